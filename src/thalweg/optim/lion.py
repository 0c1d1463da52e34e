"""Lion. Chen et al. (2023), arXiv:2302.06675.

    u <- sign(b1 m + (1 - b1) g)   (1)
    w <- w - lr (u + lambda w)     (2)
    m <- b2 m + (1 - b2) g         (3)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus
from thalweg.optim.sign import sign

CARD = Card(
    name="Lion",
    title="Symbolic Discovery of Optimization Algorithms",
    authors="Chen et al.",
    year=2023,
    family="optim",
    arxiv="2302.06675",
    needs=("elementwise",),
    reduces_to=("Signum with momentum=b where betas=(b, b)",),
    use="Half of AdamW's state. The paper asks for a learning rate 3 to 10 times below AdamW's and a decay as much above; gains shrink "
    "at small batches.",
)
SPACE = Space({"lr": Log(1e-5, 1e-2), "weight_decay": Log(1e-3, 10.0), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class Lion(Rule):
    """Signed momentum with one average for the step and a slower one to remember; every coordinate moves by lr."""

    lr: float = hyper(1e-4, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.9, 0.99), "[0, 1)", "decay of the step's average and of the remembered one")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2 = self.betas
        u = sign(ema(s["m"], g, b1))  # (1)
        return plus(u, self.weight_decay, w), {"m": ema(s["m"], g, b2)}  # (2), (3)

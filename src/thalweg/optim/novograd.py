"""NovoGrad. Ginsburg et al. (2019), arXiv:1905.11286, algorithm 1; one v for each layer (parameter tensor).

    v <- b2 v + (1 - b2) ||g||^2,  v = ||g||^2 at t = 1   (1)
    m <- b1 m + g / (sqrt(v) + eps) + lambda w            (2)
    w <- w - lr m                                         (3)

Departures: none. The decay is inside the momentum, so a constant lambda pulls with lambda / (1 - b1); AdamW's does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.frobenius import frobenius
from thalweg.optim.plus import plus

CARD = Card(
    name="NovoGrad",
    title="Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks",
    authors="Ginsburg et al.",
    year=2019,
    family="optim",
    arxiv="1905.11286",
    ledger=302,
    needs=("layer",),
    reduces_to=("normalised gradient descent by layer, with betas=(0, 0)", "SGD with momentum b1 on g / ||g||, with betas[1]=0"),
    use="Half of AdamW's state; made for large batches and for speech and image models. Its weight decay wants values about 1 - b1 times AdamW's.",
)
SPACE = Space({"lr": Log(1e-4, 1e-1), "weight_decay": Log(1e-5, 1e-1), "betas.0": OneMinusLog(0.8, 0.98)})


@dataclass(frozen=True, kw_only=True)
class NovoGrad(Rule):
    """Momentum of gradients that are normalised layer by layer with a running second moment."""

    needs = Needs.LAYER
    nonnegative = ("v",)
    lr: float = hyper(1e-2, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.95, 0.98), "[0, 1)", "decay of the momentum and of the squared norm's average")
    eps: float = hyper(1e-8, ">= 0", "added to the layer's root second moment")
    weight_decay: float = hyper(0.0, ">= 0", "decay lambda, inside the momentum")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "v": w.new_zeros(*w.shape[:-2], 1, 1)}

    def scalars(self, t: int) -> dict[str, float]:
        return {"b2": self.betas[1] if t > 1 else 0.0}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        v = ema(s["v"], frobenius(g).square(), c["b2"])  # (1)
        m = plus(plus(g / (v.sqrt() + self.eps), self.betas[0], s["m"]), self.weight_decay, w)  # (2)
        return m, {"m": m, "v": v}  # (3)

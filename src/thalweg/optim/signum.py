"""Signum: signSGD with momentum. Bernstein et al. (2018), arXiv:1802.04434.

    m <- b m + (1 - b) g               (1)
    w <- w - lr (sign(m) + lambda w)   (2)
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
    name="Signum",
    title="signSGD: Compressed Optimisation for Non-Convex Problems",
    authors="Bernstein et al.",
    year=2018,
    family="optim",
    arxiv="1802.04434",
    needs=("elementwise",),
    reduces_to=("NonEuclideanTrustRegion(norm='linf')", "Lion with betas=(momentum, momentum)", "signSGD with momentum=0"),
    use="The plainest sign method, one state; a baseline beside Lion, and the rule behind one-bit communication.",
)
SPACE = Space({"lr": Log(1e-5, 1e-2), "weight_decay": Log(1e-3, 10.0), "momentum": OneMinusLog(0.8, 0.99)})


@dataclass(frozen=True, kw_only=True)
class Signum(Rule):
    """The sign of the averaged gradient: a steepest-descent step in the max norm."""

    lr: float = hyper(1e-4, ">= 0", "learning rate")
    momentum: float = hyper(0.9, "[0, 1)", "decay b of the gradient's average")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m = ema(s["m"], g, self.momentum)  # (1)
        return plus(sign(m), self.weight_decay, w), {"m": m}  # (2)

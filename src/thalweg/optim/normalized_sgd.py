"""Normalised SGD with momentum. Cutkosky and Mehta (2020), arXiv:2002.03305.

    m <- b m + (1 - b) g                   (1)
    w <- w - lr (m / ||m|| + lambda w)     (2)  ||m||: Euclidean norm over all parameters together

A zero m gives a zero step.
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

CARD = Card(
    name="NormalizedSGD",
    title="Momentum Improves Normalized SGD",
    authors="Cutkosky and Mehta",
    year=2020,
    family="optim",
    arxiv="2002.03305",
    needs=("elementwise", "global"),
    reduces_to=("NonEuclideanTrustRegion(norm='l2') on a model with one parameter tensor", "normalised gradient descent with momentum=0"),
    departures=("Decoupled weight decay is offered; the paper has none.",),
    use="Steps of length lr whatever the gradient's scale: robust to heavy tails and exploding gradients; needs a decaying rate to converge.",
)
SPACE = Space({"lr": Log(1e-3, 3.0), "weight_decay": Log(1e-5, 1e-1), "momentum": OneMinusLog(0.5, 0.99)})
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class NormalizedSGD(Rule):
    """The averaged gradient divided by its norm over the whole model: every step has length lr."""

    totals = ("square",)
    lr: float = hyper(1e-2, ">= 0", "learning rate: the length of each step")
    momentum: float = hyper(0.9, "[0, 1)", "decay b of the gradient's average")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def measure(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        return {"square": ema(s["m"], g, self.momentum).square().sum()}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m = ema(s["m"], g, self.momentum)  # (1)
        return plus(m * (c["square"] + TINY).rsqrt(), self.weight_decay, w), {"m": m}  # (2)

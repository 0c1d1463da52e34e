"""SGDW. Loshchilov and Hutter (2017), arXiv:1711.05101.

    m <- mu m + g               (1)
    w <- w - lr (m + lambda w)  (2)  the decay does not pass through the momentum

Departures: the paper decays by eta lambda with a schedule multiplier eta that is apart from the learning rate; here, as in torch, the decay is
lr lambda, so the paper's lambda is this one's times the initial learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus

CARD = Card(
    name="SGDW",
    title="Decoupled Weight Decay Regularization",
    authors="Loshchilov and Hutter",
    year=2017,
    family="optim",
    arxiv="1711.05101",
    ledger=193,
    needs=("elementwise",),
    reduces_to=("SGD with the same weight_decay where momentum=0: L2 and decay are the same there", "SGD with momentum where weight_decay=0"),
    departures=("The decay is lr lambda, as in torch; the paper's is eta lambda with a schedule multiplier eta apart from lr.",),
    use="SGD with momentum whose best weight decay moves less with the learning rate and the momentum than the L2 penalty's.",
)
SPACE = Space({"lr": Log(1e-3, 3.0), "momentum": OneMinusLog(0.5, 0.99), "weight_decay": Log(1e-6, 1e-1)})


@dataclass(frozen=True, kw_only=True)
class SGDW(Rule):
    """Stochastic gradient descent with momentum and decoupled weight decay."""

    lr: float = hyper(1e-3, ">= 0", "learning rate")
    momentum: float = hyper(0.9, "[0, 1)", "decay mu of the velocity")
    weight_decay: float = hyper(1e-2, ">= 0", "decoupled decay lambda")
    nesterov: bool = hyper(False, "bool", "look ahead along the velocity")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m = plus(g, self.momentum, s["m"])  # (1)
        d = plus(g, self.momentum, m) if self.nesterov else m
        return plus(d, self.weight_decay, w), {"m": m}  # (2)

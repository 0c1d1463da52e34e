"""Decoupled weight decay as a link of a chain. Loshchilov and Hutter (2017), arXiv:1711.05101.

    d <- d + lambda w   (1)  so that w <- w - lr (d + lambda w) when it comes last
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State
from thalweg.core.space import Log, Space
from thalweg.optim.plus import plus

CARD = Card(
    name="DecoupledDecay",
    title="Decoupled Weight Decay Regularization",
    authors="Loshchilov and Hutter",
    year=2017,
    family="optim",
    arxiv="1711.05101",
    ledger=193,
    needs=("elementwise",),
    reduces_to=(
        "AdamW(weight_decay=l) in chain(Adam(), DecoupledDecay(weight_decay=l))",
        "SGD(weight_decay=l) in chain(DecoupledDecay(weight_decay=l), SGD())",
    ),
    use="Last in a chain it decays the weights of any rule; first in a chain it is an L2 penalty.",
)
SPACE = Space({"weight_decay": Log(1e-4, 1.0)})


@dataclass(frozen=True, kw_only=True)
class DecoupledDecay(Rule):
    """A link that adds lambda w to the direction: `chain(Adam(lr=1e-3), DecoupledDecay(weight_decay=0.1))`."""

    weight_decay: float = hyper(1e-2, ">= 0", "decay lambda, multiplied by the chain's learning rate")

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return plus(g, self.weight_decay, w), {}  # (1)

"""SGD with momentum. Robbins and Monro (1951); Polyak (1964); Nesterov momentum as in Sutskever et al. (2013).

    g <- g + lambda w                          (1)  L2 regularisation
    m <- mu m + g                              (2)
    w <- w - lr m    or    w - lr (g + mu m)   (3)  the second with Nesterov momentum

Departures: the learning rate is outside the momentum buffer and Nesterov momentum is written at the shifted point, as torch does.
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
    name="SGD",
    title="On the importance of initialization and momentum in deep learning",
    authors="Sutskever et al.",
    year=2013,
    family="optim",
    url="https://proceedings.mlr.press/v28/sutskever13.html",
    needs=("elementwise",),
    reduces_to=("SGDW with weight_decay=0 where weight_decay=0", "gradient descent with momentum=None, in one step w - lr (g + weight_decay w)"),
    departures=("The learning rate multiplies the buffer and is not inside it, as in torch.optim.SGD.",),
    use="The least state and the cheapest step; strong on convolutional networks with a tuned rate, weak where gradient scales differ much between "
    "layers (transformers, embeddings).",
)
SPACE = Space({"lr": Log(1e-3, 3.0), "momentum": OneMinusLog(0.5, 0.99), "weight_decay": Log(1e-6, 1e-2)})


@dataclass(frozen=True, kw_only=True)
class SGD(Rule):
    """Stochastic gradient descent. `momentum=None` keeps no buffer; `momentum=0.0` keeps one, so that a scheduler may raise it."""

    lr: float = hyper(1e-3, ">= 0", "learning rate")
    momentum: float | None = hyper(None, "[0, 1) or None", "decay mu of the velocity, or None for no velocity")
    weight_decay: float = hyper(0.0, ">= 0", "L2 penalty lambda, added to the gradient")
    nesterov: bool = hyper(False, "bool", "look ahead along the velocity")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum is None:
            raise ValueError("SGD: nesterov=True needs momentum, found momentum=None; give momentum=0.9, or nesterov=False.")

    def init(self, w: Tensor) -> State:
        return {} if self.momentum is None else {"m": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        g = plus(g, self.weight_decay, w)  # (1)
        if self.momentum is None:
            return g, {}
        m = plus(g, self.momentum, s["m"])  # (2)
        return (plus(g, self.momentum, m) if self.nesterov else m), {"m": m}  # (3)

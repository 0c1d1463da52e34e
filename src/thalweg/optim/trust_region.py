"""Non-Euclidean trust region with momentum. Kovalev (2025), arXiv:2503.12645.

    m <- b m + (1 - b) g                              (1)
    d = argmax of <m, d> over ||d|| <= 1              (2)  "spectral" U V^T of m = U S V^T;  "linf" sign(m);  "l2" m / ||m||
    w <- w - lr (d + lambda w)                        (3)

The step -lr d minimises the linear model of the loss over the ball of radius lr. The decay is the paper's composite term: it keeps
||w|| <= 1 / lambda in the same norm where ||w|| starts there and lr lambda <= 1. The norm is taken for each parameter tensor by itself.
Departures: U V^T is five Newton-Schulz iterations, as in Muon.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Choice, Log, OneMinusLog, Space
from thalweg.optim.frobenius import frobenius
from thalweg.optim.newton_schulz import orthogonalize
from thalweg.optim.plus import plus
from thalweg.optim.sign import sign

CARD = Card(
    name="NonEuclideanTrustRegion",
    title="Understanding Gradient Orthogonalization for Deep Learning via Non-Euclidean Trust-Region Optimization",
    authors="Kovalev",
    year=2025,
    family="optim",
    arxiv="2503.12645",
    ledger=131,
    needs=("layer",),
    reduces_to=(
        "Muon(nesterov=False, scale='none') with norm='spectral'",
        "Signum with norm='linf'",
        "NormalizedSGD with norm='l2' on a model with one parameter tensor",
    ),
    departures=("The orthogonal factor comes from five Newton-Schulz iterations.", "The norm is each parameter tensor's, not the model's."),
    use="To ask which norm a model wants, everything else equal; for one norm take the named rule.",
)
SPACE = Space({"lr": Log(1e-4, 1e-1), "weight_decay": Log(1e-3, 1.0), "momentum": OneMinusLog(0.8, 0.98), "norm": Choice(("spectral", "linf", "l2"))})
EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class NonEuclideanTrustRegion(Rule):
    """Momentum, then the steepest step of length lr in a chosen norm."""

    needs = Needs.LAYER
    lr: float = hyper(1e-2, ">= 0", "learning rate: the radius of the trust region")
    norm: str = hyper("spectral", "spectral | linf | l2", "norm of the trust region")
    momentum: float = hyper(0.95, "[0, 1)", "decay b of the gradient's average")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")
    ns_steps: int = hyper(5, "int >= 1", "Newton-Schulz iterations, for norm='spectral'")
    ns_compute: str = hyper("bf16", "bf16 | native", "precision of the iteration's matrix products")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m = ema(s["m"], g, self.momentum)  # (1)
        if self.norm == "spectral":
            d = orthogonalize(m, steps=self.ns_steps, compute=self.ns_compute)  # (2)
        elif self.norm == "linf":
            d = sign(m)
        else:
            d = m / (frobenius(m) + EPS)
        return plus(d, self.weight_decay, w), {"m": m}  # (3)

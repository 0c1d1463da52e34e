"""Sophia-G. Liu et al. (2023), arXiv:2305.14342, algorithms 2 and 3.

    m <- b1 m + (1 - b1) g                                             (1)
    h <- b2 h + (1 - b2) h_est                                         (2)  every k steps; h_est = B g' * g' (Gauss-Newton-Bartlett)
    w <- w - lr (clip(m / max(gamma h, eps), -1, 1) + lambda w)        (3)

g' is the gradient of the mean loss over B examples whose labels are drawn from the model's own predictions; B g' * g' is then unbiased for the
diagonal of the Gauss-Newton matrix. For a language model an example is a token.
Conventions for gamma, rho and B. (3) is the paper's from its second version on. Early code keeps g' * g' in h and divides by rho B h (rho = gamma,
`bs` = B); later code divides by h alone and clips at its own `gamma`, which is gamma B here; its lr is lr / (gamma B).
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
    name="SophiaG",
    title="Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training",
    authors="Liu et al.",
    year=2023,
    family="optim",
    arxiv="2305.14342",
    ledger=309,
    needs=("elementwise", "probe"),
    reduces_to=("SophiaH given the same curvature and gamma", "Signum where gamma h <= abs(m): always with gamma=0, up to eps"),
    use="Language-model pre-training; each probe costs one gradient on labels sampled from the model. Tune gamma so that 10 to 50 % of the "
    "coordinates are not clipped.",
)
SPACE = Space({"lr": Log(1e-5, 1e-2), "gamma": Log(1e-3, 1.0), "weight_decay": Log(1e-3, 1.0), "betas.0": OneMinusLog(0.9, 0.98)})


@dataclass(frozen=True, kw_only=True)
class SophiaG(Rule):
    """Momentum over a running diagonal of the Gauss-Newton matrix, each coordinate clipped at one; one sampled gradient every few steps."""

    probe = "gnb"
    nonnegative = ("h",)
    lr: float = hyper(6e-4, ">= 0", "learning rate: the largest move of a coordinate")
    betas: tuple[float, float] = hyper((0.96, 0.99), "[0, 1)", "decay of the gradient's average and of the curvature's")
    gamma: float = hyper(5e-2, ">= 0", "factor on the curvature: more of it clips less")
    eps: float = hyper(1e-12, "> 0", "floor of the denominator")
    weight_decay: float = hyper(0.2, ">= 0", "decoupled decay lambda")
    every: int = hyper(10, "int >= 1", "steps k between curvature probes")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "h": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m = ema(s["m"], g, self.betas[0])  # (1)
        u = (m / (self.gamma * s["h"]).clamp(min=self.eps)).clamp(-1, 1)  # (3)
        return plus(u, self.weight_decay, w), {"m": m, "h": s["h"]}

    def absorb(self, h: Tensor, w: Tensor, s: State, c: Scalars) -> State:
        return {"m": s["m"], "h": ema(s["h"], h, self.betas[1])}  # (2)

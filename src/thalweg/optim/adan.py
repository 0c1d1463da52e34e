"""Adan. Xie, Zhou, Li, Lin, Yan (2022), arXiv:2208.06677.

    m <- b1 m + (1 - b1) g                                              (1)
    v <- b2 v + (1 - b2) (g - g_prev)                                   (2)  the first difference is 0
    n <- b3 n + (1 - b3) (g + b2 (g - g_prev))^2                        (3)
    u = (m_hat + b2 v_hat) / (sqrt(n_hat) + eps)                        (4)  m_hat = m / (1 - b1^t), v_hat and n_hat likewise
    w <- (w - lr u) / (1 + lr lambda)                                   (5)  the proximal step of the decay

(4) is evaluated with both sides of the fraction times sqrt(1 - b3^t). For the published code's clipping: chain(ClipByNorm(...), Adan(...)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State, descend, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus

CARD = Card(
    name="Adan",
    title="Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
    authors="Xie et al.",
    year=2022,
    family="optim",
    arxiv="2208.06677",
    needs=("elementwise",),
    reduces_to=("Adam(betas=(b1, b3)) with betas=(b1, 0, b3) where both have weight_decay=0",),
    departures=(
        "betas are decay rates, as in the published code: one minus the paper's.",
        "Averages start at zero and are bias-corrected, as in the published code; the paper starts with m = g, v = 0, n = g^2 and corrects nothing.",
        "No restarts, which the paper's main results do not use either.",
    ),
    use="Large batches and large learning rates: its authors take 5 to 10 times that of AdamW. Four states of the weights' size, one of which is "
    "the gradient before.",
)
SPACE = Space({"lr": Log(3e-4, 1e-1), "weight_decay": Log(1e-3, 1.0), "betas.0": OneMinusLog(0.9, 0.98), "betas.2": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class Adan(Rule):
    """Adam with Nesterov's look ahead, taken from the difference of two gradients and not from a gradient at another point."""

    nonnegative = ("n",)
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    betas: tuple[float, float, float] = hyper((0.98, 0.92, 0.99), "[0, 1)", "decay of the averages of the gradient, of its change and of the square")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(2e-2, ">= 0", "decoupled decay lambda, as a proximal step")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w), "n": torch.zeros_like(w), "g": torch.zeros_like(w)}

    def scalars(self, t: int) -> dict[str, float]:
        b1, b2, b3 = self.betas
        root = math.sqrt(1 - b3**t)
        return {"later": float(t > 1), "m": root / (1 - b1**t), "v": root * b2 / (1 - b2**t), "eps": root * self.eps}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2, b3 = self.betas
        m = ema(s["m"], g, b1)  # (1)
        change = c["later"] * (g - s["g"])
        v = ema(s["v"], change, b2)  # (2)
        ahead = plus(g, b2, change)
        n = ema(s["n"], ahead * ahead, b3)  # (3)
        return plus(c["m"] * m, c["v"], v) / (n.sqrt() + c["eps"]), {"m": m, "v": v, "n": n, "g": g}  # (4)

    def apply(self, w: Tensor, d: Tensor) -> Tensor:
        return descend(w, d, self.lr) / (1 + self.lr * self.weight_decay)  # (5)

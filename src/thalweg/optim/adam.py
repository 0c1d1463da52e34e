"""Adam. Kingma and Ba (2014), arXiv:1412.6980.

    g <- g + lambda w                         (1)  L2 regularisation
    m <- b1 m + (1 - b1) g                    (2)
    v <- b2 v + (1 - b2) g^2                  (3)
    w <- w - lr m_hat / (sqrt(v_hat) + eps)   (4)  m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t)

(4) is evaluated in the order of the paper's section 2: with r = sqrt(1 - b2^t) it is lr r / (1 - b1^t) m / (sqrt(v) + r eps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus

CARD = Card(
    name="Adam",
    title="Adam: A Method for Stochastic Optimization",
    authors="Kingma and Ba",
    year=2014,
    family="optim",
    arxiv="1412.6980",
    needs=("elementwise",),
    reduces_to=("AdamW where both have weight_decay=0", "the sign of the gradient, up to eps, with betas=(0, 0)"),
    departures=("weight_decay is an L2 penalty in the gradient, as in torch.optim.Adam; AdamW decouples it.",),
    use="The baseline where no decay is wanted; with decay take AdamW, whose best decay depends less on the learning rate.",
)
SPACE = Space({"lr": Log(1e-4, 3e-2), "betas.0": OneMinusLog(0.8, 0.98), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    """Adaptive moments: the averaged gradient over the root of the averaged square, per coordinate."""

    nonnegative = ("v",)
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the averages of the gradient and of its square")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(0.0, ">= 0", "L2 penalty lambda, added to the gradient")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w)}

    def scalars(self, t: int) -> dict[str, float]:
        return bias_correction(self.betas, self.eps, t)

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2 = self.betas
        g = plus(g, self.weight_decay, w)  # (1)
        m = ema(s["m"], g, b1)  # (2)
        v = ema(s["v"], g * g, b2)  # (3)
        return c["rate"] * m / (v.sqrt() + c["eps"]), {"m": m, "v": v}  # (4)


def bias_correction(betas: tuple[float, float], eps: float, t: int) -> dict[str, float]:
    """Both corrections of (4) as a factor `rate` on the direction and the matching `eps` beside the uncorrected root."""
    root = math.sqrt(1 - betas[1] ** t)
    return {"rate": root / (1 - betas[0] ** t), "eps": root * eps}

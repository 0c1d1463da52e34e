"""CAME. Luo, Ren, Zheng, Jiang, Jiang, You (2023), arXiv:2307.02047, algorithm 2.

    r, c <- averages with b2 of the row and column means of g^2 + eps1       (1)
    u = g / sqrt(r c / mean(r)),  u <- u / max(1, RMS(u) / d)                (2)
    m <- b1 m + (1 - b1) u                                                   (3)
    R, C <- averages with b3 of the row and column means of (u - m)^2 + eps2 (4)
    w <- w - lr (m / sqrt(R C / mean(R)) + lambda w)                         (5)

(4) is the instability: how far the update is from its average. A vector is a matrix with one row: its second moment in (2) is exact, and (5) is m
itself there, as in the published code. Apart from m the state is two rows and two columns for each matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.adafactor import rms
from thalweg.optim.once import once
from thalweg.optim.plus import plus

CARD = Card(
    name="CAME",
    title="CAME: Confidence-guided Adaptive Memory Efficient Optimization",
    authors="Luo et al.",
    year=2023,
    family="optim",
    arxiv="2307.02047",
    needs=("layer",),
    reduces_to=("the clipped, factored update (2) divided by its own size, up to eps2, with betas[0]=0",),
    departures=(
        "A convolution is factored as out x (in kh kw), not over its two last dimensions.",
        "A weight with a single row is taken for a vector.",
    ),
    use="AdamW's results on language models at about half of its state; its authors take learning rates below those of AdamW. Adafactor has "
    "less state still and is less stable.",
)
SPACE = Space({"lr": Log(3e-5, 1e-2), "weight_decay": Log(1e-3, 1.0), "betas.1": OneMinusLog(0.9, 0.9999)})


@dataclass(frozen=True, kw_only=True)
class CAME(Rule):
    """Adafactor with momentum whose step shrinks where the update strays from its average."""

    needs = Needs.LAYER
    nonnegative = ("r", "c", "R", "C")
    lr: float = hyper(2e-4, ">= 0", "learning rate")
    betas: tuple[float, float, float] = hyper((0.9, 0.999, 0.9999), "[0, 1)", "decay of the averages of the update, of g^2 and of the instability")
    eps: tuple[float, float] = hyper((1e-30, 1e-16), ">= 0", "floor of the squared gradient and of the squared instability")
    d: float = hyper(1.0, "> 0", "largest root mean square of an update")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        row, col = w.new_zeros(*w.shape[:-1], 1), w.new_zeros(*w.shape[:-2], 1, w.shape[-1])
        return {"m": torch.zeros_like(w), "r": row, "c": col, "R": row.clone(), "C": col.clone()}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2, b3 = self.betas
        row, col = factors(s["r"], s["c"], g * g + self.eps[0], b2)  # (1)
        u = scaled(g, row, col)
        u = u / (rms(u) / self.d).clamp(min=1.0)  # (2)
        m = ema(s["m"], u, b1)  # (3)
        strays = factors(s["R"], s["C"], (u - m).square() + self.eps[1], b3)  # (4)
        direction = m if w.shape[-2] == 1 else scaled(m, *strays)
        return plus(direction, self.weight_decay, w), {"m": m, "r": row, "c": col, "R": strays[0], "C": strays[1]}  # (5)


def factors(row: Tensor, col: Tensor, x: Tensor, b: Any) -> tuple[Tensor, Tensor]:
    """The averages of the row and column means of x, one step on."""
    return ema(row, x.mean(-1, keepdim=True), b), ema(col, x.mean(-2, keepdim=True), b)


def scaled(x: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """x over the root of the matrix that the factors stand for, row col / mean(row)."""
    return x * once((row / row.mean(-2, keepdim=True)).rsqrt()) * once(col.rsqrt())

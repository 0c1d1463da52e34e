"""Adafactor. Shazeer and Stern (2018), arXiv:1804.04235, algorithms 4 to 6.

    b(t) = 1 - t^beta2_decay                          (1)
    r <- b(t) r + (1 - b(t)) mean_cols(g^2 + eps1)    (2)
    c <- b(t) c + (1 - b(t)) mean_rows(g^2 + eps1)    (3)
    u = g / sqrt(r c / mean(r))                       (4)
    u <- u / max(1, RMS(u) / d)                       (5)
    rho(t) = min(lr, 1 / sqrt(t))                     (6)
    w <- w - max(eps2, RMS(w)) rho(t) u               (7)

A vector is a matrix with one row: there (4) is g / sqrt(c) exactly, the unfactored form. Departures: means where the paper has sums, so r and c are
the second moments themselves (r c / mean(r) is the same); a convolution is factored as out x (in kh kw); decoupled decay lr lambda w is offered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Linear, Log, Space
from thalweg.optim.frobenius import frobenius
from thalweg.optim.once import once
from thalweg.optim.plus import plus

CARD = Card(
    name="Adafactor",
    title="Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    authors="Shazeer and Stern",
    year=2018,
    family="optim",
    arxiv="1804.04235",
    ledger=256,
    needs=("layer",),
    reduces_to=("the unfactored second moment on vectors, and on matrices whose squared gradient has rank one",),
    departures=("A convolution is factored as out x (in kh kw), not over its two largest dimensions.", "Decoupled weight decay is offered."),
    use="Nearly no optimizer state: rows + columns instead of rows x columns; the paper matches Adam on WMT14 translation. CAME is steadier "
    "where a run is unstable. Set relative_step=False to leave the schedule to a scheduler.",
)
SPACE = Space({"lr": Log(1e-3, 1.0), "weight_decay": Log(1e-4, 1e-1), "beta2_decay": Linear(-1.0, -0.5)})


@dataclass(frozen=True, kw_only=True)
class Adafactor(Rule):
    """A second moment kept as a row and a column average, steps relative to the weights' size, no momentum."""

    needs = Needs.LAYER
    nonnegative = ("r", "c")
    lr: float = hyper(1e-2, ">= 0", "largest relative step size")
    beta2_decay: float = hyper(-0.8, "real", "exponent of the decay 1 - t^beta2_decay, negative")
    eps: tuple[float, float] = hyper((1e-30, 1e-3), ">= 0", "floor of the squared gradient and of the weights' root mean square")
    d: float = hyper(1.0, "> 0", "largest root mean square of an update")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda, times lr")
    relative_step: bool = hyper(True, "bool", "limit the step size by 1 / sqrt(t)")
    scale_parameter: bool = hyper(True, "bool", "multiply the step by the root mean square of the weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta2_decay >= 0:
            raise ValueError(f"Adafactor: beta2_decay must be negative, so that 1 - t^beta2_decay grows to one; found {self.beta2_decay!r}.")

    def init(self, w: Tensor) -> State:
        return {"r": w.new_zeros(*w.shape[:-1], 1), "c": w.new_zeros(*w.shape[:-2], 1, w.shape[-1])}

    def scalars(self, t: int) -> dict[str, float]:
        limit = min(1.0, 1 / (self.lr * math.sqrt(t))) if self.relative_step and self.lr > 0 else 1.0
        return {"b": 1 - t**self.beta2_decay, "limit": limit}  # (1), (6) as a factor on lr

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        square, (rows, cols) = g * g, w.shape[-2:]
        row = ema(s["r"], square.mean(-1, keepdim=True) + self.eps[0], c["b"])  # (2)
        col = ema(s["c"], square.mean(-2, keepdim=True) + self.eps[0], c["b"])  # (3)
        along = once((row / row.mean(-2, keepdim=True)).rsqrt())
        u = g * once(col.rsqrt())  # (4) is along u: one number for each row, which waits until the step's length is known
        size = (frobenius(along * torch.linalg.vector_norm(u, dim=-1, keepdim=True)) / (rows * cols) ** 0.5 / self.d).clamp(min=1.0)  # (5)
        scale = c["limit"] * (rms(w).clamp(min=self.eps[1]) if self.scale_parameter else 1.0)
        return plus(u * (along * (scale / size)), self.weight_decay, w), {"r": row, "c": col}  # (7)


def rms(x: Tensor) -> Tensor:
    """Root mean square over the last two dimensions, which are kept."""
    return frobenius(x) / (x.shape[-2] * x.shape[-1]) ** 0.5

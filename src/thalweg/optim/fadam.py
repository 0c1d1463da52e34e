"""FAdam. Hwang (2024), arXiv:2405.12807, algorithm 1.

    f <- b f + (1 - b) g^2                                  (1)  b = b2 (1 - b2^(t-1)) / (1 - b2^t): the diagonal Fisher information, unbiased
    e = min(eps, eps2 RMS(g))                               (2)  RMS over one parameter; eps where the whole gradient is zero
    u = clip(g / (f^p + e^(2p)))                            (3)  natural gradient; clip(x) = x / max(1, RMS(x) / c)
    m <- b1 m + (1 - b1) u                                  (4)
    w <- w - lr (m + lambda clip(w / (f^p + e^(2p))))       (5)  the decay is a natural gradient too
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
from thalweg.optim.plus import plus

CARD = Card(
    name="FAdam",
    title="FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher information",
    authors="Hwang",
    year=2024,
    family="optim",
    arxiv="2405.12807",
    ledger=209,
    needs=("layer",),
    reduces_to=(
        "Adam with betas=(0, b2) up to eps, with betas=(0, b2), p=0.5, a clip above the root mean square of its steps and weight_decay=0",
        "the sign of the gradient, up to eps, with betas=(0, 0), p=0.5 and weight_decay=0",
    ),
    departures=("A gradient that is zero everywhere takes eps itself in (2), where the paper divides zero by zero.",),
    use="Losses that are log-likelihoods of discrete distributions, for which it is derived. Tiny gradients keep their scale-free steps, since eps "
    "shrinks with them. The decay pulls hardest on coordinates with small gradients and its lambda is not AdamW's: search it anew.",
)
SPACE = Space({"lr": Log(1e-4, 3e-2), "weight_decay": Log(1e-4, 1e-1), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class FAdam(Rule):
    """Adam as a natural gradient: momentum is taken after dividing by the Fisher information, steps are clipped, the decay is divided too."""

    needs = Needs.LAYER
    nonnegative = ("f",)
    exponents = ("p",)
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the natural gradient's average and of the squared gradient's")
    eps: float = hyper(1e-8, "> 0", "upper limit of what is added to the denominator")
    eps2: float = hyper(1e-2, "> 0", "what is added, relative to the gradient's root mean square")
    clip: float = hyper(1.0, "> 0", "largest root mean square c of the natural gradient and of the divided weights")
    p: float = hyper(0.5, "(0, 1]", "exponent of the Fisher information; 1/2 is Adam's root")
    weight_decay: float = hyper(1e-3, ">= 0", "decay lambda of the divided and clipped weights")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "f": torch.zeros_like(w)}

    def scalars(self, t: int) -> dict[str, float]:
        b2 = self.betas[1]
        return {"b": b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        f = ema(s["f"], g * g, c["b"])  # (1)
        size = rms(g)
        e = torch.where(size > 0, (self.eps2 * size).clamp(max=self.eps), self.eps)  # (2)
        divisor = f**self.p + e ** (2 * self.p)
        m = ema(s["m"], clipped(g / divisor, self.clip), self.betas[0])  # (3), (4)
        return plus(m, self.weight_decay, clipped(w / divisor, self.clip)), {"m": m, "f": f}  # (5)


def clipped(x: Tensor, limit: Any) -> Tensor:
    """x, made shorter where its root mean square over the last two dimensions is above the limit."""
    return x / (rms(x) / limit).clamp(min=1.0)

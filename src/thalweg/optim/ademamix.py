"""AdEMAMix. Pagliardini, Ablin, Grangier (2024), arXiv:2409.03137.

    m1 <- b1 m1 + (1 - b1) g                                              (1)
    m2 <- b3(t) m2 + (1 - b3(t)) g                                        (2)  not bias-corrected
    v <- b2 v + (1 - b2) g^2                                              (3)
    w <- w - lr ((m1_hat + alpha(t) m2) / (sqrt(v_hat) + eps) + lambda w) (4)  m1_hat = m1 / (1 - b1^t), v_hat = v / (1 - b2^t)
    alpha(t) = alpha min(t / T_alpha, 1)                                  (5)
    1 / ln b3(t) = (1 - a) / ln b1 + a / ln b3,  a = min(t / T_b3, 1)     (6)  the half-life grows linearly from b1's to b3's

Departures: t counts each parameter's own steps. (6) is the paper's; the published code shifts a logarithm by 1e-8, which moves b3(t) by about 1e-8.
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
    name="AdEMAMix",
    title="The AdEMAMix Optimizer: Better, Faster, Older",
    authors="Pagliardini et al.",
    year=2024,
    family="optim",
    arxiv="2409.03137",
    ledger=32,
    needs=("elementwise",),
    reduces_to=("AdamW with alpha=0",),
    departures=("Without warm-up lengths alpha and b3 hold from the first step; the paper warms both up over the whole run.",),
    use="Long runs: old gradients keep helping. Give alpha_warmup and beta3_warmup the number of steps of the run; short runs want b3 near 0.99 to "
    "0.999. Three states of the weights' size.",
)
SPACE = Space({"lr": Log(1e-4, 3e-2), "weight_decay": Log(1e-3, 1.0), "betas.2": OneMinusLog(0.98, 0.9999), "alpha": Log(0.5, 10.0)})


@dataclass(frozen=True, kw_only=True)
class AdEMAMix(Rule):
    """AdamW with a second, much slower average of the gradient mixed in."""

    nonnegative = ("v",)
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    betas: tuple[float, float, float] = hyper((0.9, 0.999, 0.9999), "[0, 1)", "decay of the fast average, of the square's and of the slow average")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")
    alpha: float = hyper(5.0, ">= 0", "weight of the slow average")
    alpha_warmup: int | None = hyper(None, "int >= 1 or None", "steps T_alpha over which alpha grows from 0")
    beta3_warmup: int | None = hyper(None, "int >= 1 or None", "steps T_b3 over which the slow decay grows from betas[0] to betas[2]")

    def init(self, w: Tensor) -> State:
        return {"m1": torch.zeros_like(w), "m2": torch.zeros_like(w), "v": torch.zeros_like(w)}

    def scalars(self, t: int) -> dict[str, float]:
        b1, b2, b3 = self.betas
        root = math.sqrt(1 - b2**t)
        alpha = self.alpha * min(t / (self.alpha_warmup or t), 1)  # (5)
        if self.beta3_warmup is not None and t < self.beta3_warmup:
            a = t / self.beta3_warmup
            b3 = _decay((1 - a) * _life(b1) + a * _life(b3))  # (6)
        return {"b3": b3, "fast": root / (1 - b1**t), "slow": root * alpha, "eps": root * self.eps}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2, _ = self.betas
        m1 = ema(s["m1"], g, b1)  # (1)
        m2 = ema(s["m2"], g, c["b3"])  # (2)
        v = ema(s["v"], g * g, b2)  # (3)
        d = plus(c["fast"] * m1, c["slow"], m2) / (v.sqrt() + c["eps"])  # (4), both sides of the fraction times sqrt(1 - b2^t)
        return plus(d, self.weight_decay, w), {"m1": m1, "m2": m2, "v": v}


def _life(b: float) -> float:
    """Steps after which an average with decay b has forgotten all but 1 / e."""
    return -1 / math.log(b) if b > 0 else 0.0


def _decay(life: float) -> float:
    return math.exp(-1 / life) if life > 0 else 0.0

"""AdaHessian. Yao et al. (2020), arXiv:2006.00719, algorithm 1.

    D = z * (H z), z random signs (Hutchinson)                         (1)  every k steps
    D <- the mean of D over blocks of b neighbours                     (2)
    v <- b2 v + (1 - b2) D^2                                           (3)
    m <- b1 m + (1 - b1) g                                             (4)
    w <- w - lr (m_hat / (sqrt(v_hat)^p + eps) + lambda w)             (5)  m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^n), n estimates so far

A block is b consecutive entries of a row: 9 for the kernels of a 3 x 3 convolution, as the paper averages them. Vectors are not averaged.
Before the first estimate the denominator is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus

CARD = Card(
    name="AdaHessian",
    title="ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
    authors="Yao et al.",
    year=2020,
    family="optim",
    arxiv="2006.00719",
    ledger=356,
    needs=("layer", "probe"),
    reduces_to=(
        "Adam where the estimate is the gradient itself, with block=1 and power=1",
        "momentum with power=0 and eps=0",
        "Newton's step on a separable quadratic with betas=(0, 0), eps=0 and lr=1",
    ),
    departures=(
        "The average over a block is the paper's, of signed values; the published code averages absolute values.",
        "The correction of v counts estimates, not steps, which differs where every > 1.",
        "The block is a hyperparameter of the group and is not read off convolution kernels.",
    ),
    use="Where curvature differs much between weights and a step may cost three gradients. The paper reports better results than Adam's on images, "
    "translation and recommendation. Call step with a closure that returns the loss, without backward.",
)
SPACE = Space({"lr": Log(1e-2, 1.0), "power": Log(0.25, 1.0), "weight_decay": Log(1e-5, 1e-1), "betas.0": OneMinusLog(0.8, 0.98)})
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class AdaHessian(Rule):
    """Adam whose second moment is that of the Hessian's diagonal, estimated by Hutchinson's probe and averaged over neighbours."""

    needs = Needs.LAYER
    probe = "hutchinson"
    nonnegative = ("v", "weight")
    exponents = ("power",)
    lr: float = hyper(0.15, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the averages of the gradient and of the squared diagonal")
    eps: float = hyper(1e-4, ">= 0", "added to the denominator")
    power: float = hyper(1.0, "[0, 1]", "Hessian power p")
    block: int = hyper(1, "int >= 1", "neighbours b of a row that share an estimate")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")
    every: int = hyper(1, "int >= 1", "steps k between curvature probes")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w), "weight": w.new_zeros(*w.shape[:-2], 1, 1)}

    def scalars(self, t: int) -> dict[str, float]:
        return {"bias": 1 - self.betas[0] ** t}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m, v, weight = ema(s["m"], g, self.betas[0]), s["v"], s["weight"]  # (4); weight is 1 - b2^n
        scale = torch.where(weight > 0, (v / weight.clamp(min=TINY)).pow(self.power / 2), 1.0)
        return plus(m / c["bias"] / (scale + self.eps), self.weight_decay, w), {"m": m, "v": v, "weight": weight}  # (5)

    def absorb(self, h: Tensor, w: Tensor, s: State, c: Scalars) -> State:
        if self.block > 1 and h.shape[-2] > 1:
            if h.shape[-1] % self.block:
                raise ValueError(f"AdaHessian: block={self.block} must divide the {h.shape[-1]} entries of a row; give such weights their own group.")
            blocks = h.unflatten(-1, (-1, self.block))
            h = blocks.mean(-1, keepdim=True).expand_as(blocks).flatten(-2)  # (2)
        b2 = self.betas[1]
        return {"m": s["m"], "v": ema(s["v"], h * h, b2), "weight": ema(s["weight"], torch.ones_like(s["weight"]), b2)}  # (3)

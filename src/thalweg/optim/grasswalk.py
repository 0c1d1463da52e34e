"""GrassWalk. Rajabi et al. (2025), arXiv:2510.01878.

    P <- the leading r left singular vectors of g             (1)  at the first step; right ones where g has as many rows as columns or more
    P <- (P V cos(theta) + U sin(theta)) V^T                  (2)  every k steps; U S V^T = (I - P P^T) Z, Z normal, theta = angle S / S_1
    w <- w - lr (d + lambda w)                                (3)  d is Adam in the subspace and what lies outside: (6) of grassmann.py

A random walk: each change turns the subspace along a random geodesic of the Grassmann manifold, and the moments with it.
State: r (short + 2 long) + 1 numbers for a matrix of short x long.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.grassmann import descent, geodesic, rates, start
from thalweg.optim.plus import plus
from thalweg.optim.subspace import leading, wide

CARD = Card(
    name="GrassWalk",
    title="Randomized Gradient Subspaces for Efficient Large Language Model Training",
    authors="Rajabi et al.",
    year=2025,
    family="optim",
    arxiv="2510.01878",
    ledger=90,
    needs=("matrix",),
    reduces_to=("GaLore with scale=1 where the rank is the short side, up to rounding",),
    departures=(
        "The geodesic's length is a largest principal angle, which means the same for matrices of all shapes.",
        "Moments are corrected for their start before they are turned, as in LDAdam (arXiv:2410.16103).",
        "The recovery term may grow freely from zero.",
    ),
    use="In GaLore's place: no SVD of gradients after the first step, and no part of the gradient is lost; the paper reports lower loss in "
    "pre-training LLaMA-1B and 7B. One more product with the basis a step. Not where Adam's two states fit.",
)
SPACE = Space({"lr": Log(1e-4, 1e-2), "angle": Log(0.05, 1.5), "weight_decay": Log(1e-3, 1.0), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class GrassWalk(Rule):
    """Adam in a subspace that takes a random step every hundred steps; the rest of the gradient is scaled to match and added."""

    needs = Needs.MATRIX
    draws = True
    nonnegative = ("v", "length")
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    rank: int = hyper(128, "int >= 1", "dimension r of the subspace, at most the short side")
    every: int = hyper(100, "int >= 1", "steps k from one subspace to the next")
    angle: float = hyper(0.5, ">= 0", "largest principal angle between two subspaces in a row, in radians")
    growth: float = hyper(1.01, ">= 1", "largest ratio of the recovery term's lengths in two steps in a row")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the averages of the projected gradient and of its square")
    eps: float = hyper(1e-6, ">= 0", "added to the root of the uncorrected second moment")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        return start(w, self.rank)

    def scalars(self, t: int) -> dict[str, float]:
        return rates(self.betas, t)

    def rare_at(self, t: float) -> bool:
        return (t - 1) % self.every == 0

    def draws_at(self, t: float) -> bool:
        return t > 1 and self.rare_at(t)

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        p, r = s["p"], s["p"].shape[-1]
        if c["rare"]:
            p = leading(wide(g), r) if c["t"] == 1 else geodesic(p, wide(c["normal"])[..., :r], self.angle)  # (1), (2)
        d, new = descent(g, p, s, c, self.betas, self.eps, self.growth)
        return plus(d, self.weight_decay, w), new  # (3)

"""PSGD with Kronecker factors, whitening. Li (2015), arXiv:1512.04202; Li (2022), arXiv:2211.04422; published as Kron (github.com/evanatyourservice).

    m <- mu m + (1 - mu) g,  u = m / (1 - mu^t)                             (1)
    A = Q_L u Q_R^T,  B = Q_L^-T z Q_R^-1,  z ~ N(0, 1)                     (2)  Q_L, Q_R upper triangular, I at the start
    Q_L <- Q_L - rho triu(A A^T - B B^T) Q_L / ||A A^T + B B^T||            (3)  with a lower bound of the spectral norm
    Q_R <- Q_R - rho triu(A^T A - B^T B) Q_R / ||A^T A + B^T B||            (4)
    d = (Q_L^T Q_L) u (Q_R^T Q_R),  d <- d min(1, 1.1 / RMS(d))             (5)
    w <- w - lr (d + lambda w)                                              (6)

(3) and (4) descend, on the group of triangular matrices, the criterion E[u P u + z P^-1 z], whose minimum whitens u: E[(P u)(P u)^T] = I.
They happen in every step at first and then seldom: when 1 / p steps have passed since the last time, where p falls from 1 as
exp(-decay (t - 1 - flat)) to `least`. Before every hundredth (`balance`) of them, Q_L and Q_R are scaled to one largest entry. Both are functions
of a parameter's own step, and z of the optimizer's seed, so that runs repeat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus
from thalweg.optim.sides import MAX_DIM, gram, identity, is_full, sandwich, transposed
from thalweg.optim.spectral_bound import spectral_bound

CARD = Card(
    name="PSGDKron",
    title="Black Box Lie Group Preconditioners for SGD",
    authors="Li",
    year=2022,
    family="optim",
    arxiv="2211.04422",
    needs=("matrix",),
    reduces_to=("the averaged gradient, clipped to a root mean square of 1.1, with precondition_lr=0",),
    departures=(
        "Updates of the factors fall on fixed steps, as in the later published code; the first drew them.",
        "Balancing falls on every hundredth update; published code draws it with that probability.",
        "Sides longer than max_dim = 2048 have diagonal factors; 8192 in the published code.",
        "A convolution is a matrix, out x (in kh kw), and not a tensor of order four.",
    ),
    also=("PSGD",),
    use="As SOAP and Shampoo, without eigenvalue decompositions: only products and triangular solves. Start at a third of Adam's learning rate. "
    "Not for vectors and embeddings (route them to AdamW).",
)
SPACE = Space({"lr": Log(1e-4, 1e-2), "weight_decay": Log(1e-3, 1.0), "momentum": OneMinusLog(0.8, 0.98), "precondition_lr": Log(1e-2, 1.0)})
TINY = 2.0**-126  # the smallest normal float32


@dataclass(frozen=True, kw_only=True)
class PSGDKron(Rule):
    """Momentum whitened by two triangular factors that are themselves learned by gradient descent."""

    needs = Needs.MATRIX
    compilable = False
    draws = True
    past = ("waited", "updates")
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    momentum: float = hyper(0.9, "[0, 1)", "decay mu of the gradient's average")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")
    precondition_lr: float = hyper(0.1, "[0, 1]", "learning rate rho of the factors, relative to the curvature of their criterion")
    least: float = hyper(0.03, "(0, 1]", "updates of the factors for each step, in the end")
    decay: float = hyper(0.001, ">= 0", "speed with which the updates become less frequent")
    flat: int = hyper(500, "int >= 0", "steps with an update in each")
    balance: int = hyper(100, "int >= 1", "updates between balancings")
    max_dim: int = hyper(MAX_DIM, "int >= 1", "longest side with a triangular factor")

    def init(self, w: Tensor) -> State:
        return {"m": torch.zeros_like(w), "QL": identity(w, -2, self.max_dim), "QR": identity(w, -1, self.max_dim)}

    def scalars(self, t: int) -> dict[str, float]:
        return {"seen": 1 - self.momentum**t}

    def recur(self, t: int, past: Mapping[str, float]) -> dict[str, float]:
        """Steps since the factors were updated (0: in this one), and updates so far."""
        waited = past.get("waited", 0.0) + 1
        probability = max(self.least, math.exp(-self.decay * max(t - 1 - self.flat, 0)))
        due = waited >= 1 / probability
        return {"waited": 0.0 if due else waited, "updates": past.get("updates", 0.0) + due}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        m, ql, qr = ema(s["m"], g, self.momentum), s["QL"], s["QR"]
        u = m / c["seen"]  # (1)
        if c["waited"] == 0:
            if c["updates"] % self.balance == 0:
                ql, qr = balanced(ql, qr)
            a, b = sandwich(ql, u, qr), divided(divided(c["normal"], ql).mT, qr).mT  # (2)
            ql, qr = updated(ql, a, b, self.precondition_lr), updated(qr, a.mT, b.mT, self.precondition_lr)  # (3), (4)
        d = sandwich(transposed(ql), sandwich(ql, u, qr), transposed(qr))
        d = d * (1.1 / ((d * d).mean((-2, -1), keepdim=True).sqrt() + 1e-6)).clamp(max=1)  # (5)
        return plus(d, self.weight_decay, w), {"m": m, "QL": ql, "QR": qr}  # (6)


def divided(x: Tensor, q: Tensor) -> Tensor:
    """q^-T x for an upper triangular factor q."""
    # From the right, where the factor is read as it lies: twice as fast as a solve with its transpose.
    return torch.linalg.solve_triangular(q, x.mT, upper=True, left=False).mT if is_full(q) else x / q


def updated(q: Tensor, a: Tensor, b: Tensor, rate: float) -> Tensor:
    """A factor after (3): one step of relative gradient descent, normalised."""
    one, two = gram(a, q), gram(b, q)
    if not is_full(q):
        return q - rate * (one - two) / ((one + two).abs().amax(-2, keepdim=True) + TINY) * q
    return torch.baddbmm(q, (one - two).triu_() * (-rate / (spectral_bound(one + two) + TINY)), q)


def balanced(ql: Tensor, qr: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors with one largest entry; their Kronecker product stays."""
    left, right = (q.abs().amax((-2, -1), keepdim=True) for q in (ql, qr))
    mean = (left * right).sqrt()
    return ql * (mean / left), qr * (mean / right)

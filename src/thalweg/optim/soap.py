"""SOAP. Vyas et al. (2024), arXiv:2409.11321, algorithm 3.

    L <- b L + (1 - b) g g^T,  R <- b R + (1 - b) g^T g          (1)  after the step; b is shampoo_beta
    g' = Q_L^T g Q_R                                             (2)  in the eigenbases of L and R
    m' <- b1 m' + (1 - b1) g',  v <- b2 v + (1 - b2) g'^2        (3)
    d = Q_L [m' / (sqrt(v) + eps)] Q_R^T                         (4)  both averages corrected as Adam's
    w <- w - lr (d + lambda w)                                   (5)
    Q_L <- qr(L Q_L),  Q_R <- qr(R Q_R)                          (6)  every k steps, columns sorted by Q^T L Q first, v with them; m' is turned along

The first step is that of the published code: it takes L, R and, by an eigenvalue decomposition, Q_L and Q_R from the first gradient, and moves
nothing, so that no gradient is turned by a basis that it made. Step t then corrects with t - 1, and (6) happens at t = 1 + k, 1 + 2 k, ...
As in the code, eps stands beside the uncorrected root. The momentum is kept in the eigenbases, which saves two of eight products in a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.plus import plus
from thalweg.optim.sides import MAX_DIM, eigenbasis, gram, is_full, sandwich, transposed, zeros

CARD = Card(
    name="SOAP",
    title="SOAP: Improving and Stabilizing Shampoo using Adam",
    authors="Vyas et al.",
    year=2024,
    family="optim",
    arxiv="2409.11321",
    needs=("matrix",),
    reduces_to=("AdamW from the second step on, up to eps, where no side is rotated (max_dim=1)",),
    departures=(
        "Sides longer than max_dim = 2048 are not rotated; 10000 in the published code.",
        "The decay acts on the weights before the step and not after it, which differs by lr^2 lambda d.",
        "A convolution is a matrix, out x (in kh kw).",
        "The first bases are made in float64 with ties broken at the weights' precision, so that rounding does not choose the basis of a null space.",
    ),
    use="Pretraining with large batches, where the paper needs 40 % fewer steps than AdamW; four matrices of state beside AdamW's two, and a QR "
    "decomposition of each side every k steps. Not for vectors and embeddings (route them to AdamW).",
)
SPACE = Space({"lr": Log(3e-4, 1e-2), "weight_decay": Log(1e-3, 1.0), "betas.1": OneMinusLog(0.9, 0.99)})


@dataclass(frozen=True, kw_only=True)
class SOAP(Rule):
    """Adam in the slowly turning eigenbases of Shampoo's two covariances."""

    needs = Needs.MATRIX
    compilable = False
    nonnegative = ("v",)
    lr: float = hyper(3e-3, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.95, 0.95), "[0, 1)", "decay of the averages of the gradient and of its square in the eigenbases")
    shampoo_beta: float | None = hyper(None, "[0, 1) or None", "decay of L and R; None for the second of betas")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(0.01, ">= 0", "decoupled decay lambda")
    every: int = hyper(10, "int >= 1", "steps k between refreshed eigenbases")
    max_dim: int = hyper(MAX_DIM, "int >= 1", "longest side that is rotated")

    def init(self, w: Tensor) -> State:
        sides = {name: zeros(w, dim, self.max_dim) for name, dim in (("L", -2), ("R", -1), ("QL", -2), ("QR", -1))}
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w), **sides}

    def scalars(self, t: int) -> dict[str, float]:
        b1, b2 = self.betas
        return {"rate": math.sqrt(1 - b2 ** (t - 1)) / (1 - b1 ** (t - 1)) if t > 1 else 0.0}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2 = self.betas
        b = b2 if self.shampoo_beta is None else self.shampoo_beta
        new = {"L": ema(s["L"], gram(g, s["L"]), b), "R": ema(s["R"], gram(g.mT, s["R"]), b)}  # (1)
        if c["t"] == 1:
            bases = {"QL": eigenbasis(g, s["L"]), "QR": eigenbasis(g.mT, s["R"])}
            return torch.zeros_like(w), {"m": s["m"], "v": s["v"], **new, **bases}
        left, right = transposed(s["QL"]), transposed(s["QR"])
        turned = sandwich(left, g, right)  # (2)
        m, v = ema(s["m"], turned, b1), ema(s["v"], turned * turned, b2)  # (3)
        d = c["rate"] * sandwich(s["QL"], m / (v.sqrt() + self.eps), s["QR"])  # (4)
        bases = {"QL": s["QL"], "QR": s["QR"]}
        if (c["t"] - 1) % self.every == 0:
            (ql, rows), (qr, cols) = refreshed(new["L"], s["QL"]), refreshed(new["R"], s["QR"])  # (6)
            bases, v = {"QL": ql, "QR": qr}, v.take_along_dim(rows.mT, -2).take_along_dim(cols, -1)
            m = sandwich(transposed(ql), sandwich(s["QL"], m, s["QR"]), transposed(qr))
        return plus(d, self.weight_decay, w), {"m": m, "v": v, **new, **bases}  # (5)


def refreshed(x: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """A basis after one step of orthogonal iteration, largest estimated eigenvalue first, and the order [batch, 1, n] that this took.

    A diagonal keeps its basis and the order that it has.
    """
    if not is_full(x):
        return basis, torch.arange(x.shape[-2], device=x.device).expand(len(x), 1, -1)
    product = x @ basis
    order = (basis * product).sum(-2, keepdim=True).argsort(dim=-1, descending=True, stable=True)
    return torch.linalg.qr(product.take_along_dim(order, -1))[0], order

"""KL-Shampoo. Lin et al. (2025), arXiv:2509.03378, with the eigenvalues of each step estimated in the last eigenbases.

    m' <- b1 m' + (1 - b1) g',  g' = Q_L^T g Q_R                             (1)  m' = Q_L^T m Q_R
    d = Q_L [m' / (sqrt(e f^T) + eps)] Q_R^T                                 (2)  L^(-1/2) m R^(-1/2)
    w <- w - lr (d + lambda w)                                               (3)
    L <- b2 L + (1 - b2) g R^-1 g^T / cols                                   (4)  R^-1 = Q_R diag(1 / f) Q_R^T
    R <- b2 R + (1 - b2) g^T L^-1 g / rows                                   (5)  L^-1 = Q_L diag(1 / e) Q_L^T, as before (4)
    e <- b2 e + (1 - b2) mean_cols(g'^2 / f^T), f likewise                   (6)  diagonals of (4) and (5) in the eigenbases
    1 / sqrt(e) <= max(10, min(rows, most)), likewise f with cols            (7)  after (6)
    Q_L <- qr(L Q_L),  Q_R <- qr(R Q_R)                                      (8)  every k steps; m' is turned along

The fixed point of (4) and (5) minimises the Kullback-Leibler divergence of N(0, L x R) from gradients of that covariance: L and R bring their scale
along, and no grafting is needed. The first step is that of the published code: it takes L = g g^T / cols and R = g^T g / rows (times 1 - b2),
their eigenvectors by an eigenvalue decomposition, e = f = 0.1, and moves nothing. (7) is that code's too. (8) happens at t = 1 + k, 1 + 2 k, ...
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
from thalweg.optim.sides import MAX_DIM, after, before, eigenbasis, gram, power_step, sandwich, transposed, zeros

CARD = Card(
    name="KLShampoo",
    title="Understanding and Improving the Shampoo Optimizer via Kullback-Leibler Minimization",
    authors="Lin et al.",
    year=2025,
    family="optim",
    arxiv="2509.03378",
    ledger=259,
    needs=("matrix",),
    departures=(
        "Computed in the weights' precision; the published code computes in bfloat16.",
        "A side longer than max_dim is held as its diagonal.",
        "The decay acts on the weights before the step and not after it, which differs by lr^2 lambda d.",
        "A convolution is a matrix, out x (in kh kw).",
        "The first bases are made in float64 with ties broken at the weights' precision, so that rounding does not choose the basis of a null space.",
    ),
    use="Where SOAP is used, with one state of the weights' size less and no grafting. Steps are small until e and f have forgotten their start, "
    "about 1 / (1 - b2) steps, so short runs want larger rates. Not for vectors and embeddings (route them to AdamW).",
)
SPACE = Space({"lr": Log(3e-5, 1e-2), "weight_decay": Log(1e-3, 1.0), "betas.0": OneMinusLog(0.8, 0.98), "betas.1": OneMinusLog(0.9, 0.999)})
START = 0.1  # of e and f
SHORT = 10.0  # sides below this length may have inverse roots of this size


@dataclass(frozen=True, kw_only=True)
class KLShampoo(Rule):
    """Momentum between inverse roots of two covariances, each estimated on gradients that the other has whitened."""

    needs = Needs.MATRIX
    compilable = False
    nonnegative = ("e", "f")
    lr: float = hyper(1e-4, ">= 0", "learning rate")
    betas: tuple[float, float] = hyper((0.9, 0.98), "[0, 1)", "decay of the gradient's average and of L, R and their eigenvalues")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(0.01, ">= 0", "decoupled decay lambda")
    every: int = hyper(10, "int >= 1", "steps k between refreshed eigenbases")
    most: float = hyper(4000.0, ">= 1", "largest inverse root of an eigenvalue, further limited by the side's length where that is above 10")
    max_dim: int = hyper(MAX_DIM, "int >= 1", "longest side held as a matrix")

    def init(self, w: Tensor) -> State:
        sides = {name: zeros(w, dim, self.max_dim) for name, dim in (("L", -2), ("R", -1), ("QL", -2), ("QR", -1))}
        return {"m": torch.zeros_like(w), **sides, "e": torch.zeros_like(w[..., :1]), "f": torch.zeros_like(w.mT[..., :1])}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2 = self.betas
        rows, cols = w.shape[-2:]
        if c["t"] == 1:
            left, right = ema(s["L"], gram(g, s["L"]) / cols, b2), ema(s["R"], gram(g.mT, s["R"]) / rows, b2)
            bases = {"QL": eigenbasis(g, left), "QR": eigenbasis(g.mT, right)}
            return torch.zeros_like(w), {"m": s["m"], "L": left, "R": right, **bases, "e": s["e"] + START, "f": s["f"] + START}
        ql, qr, e, f = (s[name] for name in ("QL", "QR", "e", "f"))
        left, right = transposed(ql), transposed(qr)
        half = after(g, right)
        turned = before(left, half)
        m = ema(s["m"], turned, b1)  # (1)
        d = sandwich(ql, m / ((e * f.mT).sqrt() + self.eps), qr)  # (2)
        by_right, by_left = half / f.mT.sqrt(), after(g.mT, left) / e.mT.sqrt()
        new = {
            "m": m,
            "L": ema(s["L"], gram(by_right, s["L"]) / cols, b2),  # (4)
            "R": ema(s["R"], gram(by_left, s["R"]) / rows, b2),  # (5)
            "e": ema(e, (turned * turned / f.mT).mean(-1, keepdim=True), b2).clamp(min=self._least(rows)),  # (6), (7)
            "f": ema(f, (turned * turned / e).mean(-2, keepdim=True).mT, b2).clamp(min=self._least(cols)),
        }
        new |= {"QL": ql, "QR": qr}
        if (c["t"] - 1) % self.every == 0:
            new |= {"QL": power_step(new["L"], ql), "QR": power_step(new["R"], qr)}  # (8)
            new["m"] = sandwich(transposed(new["QL"]), sandwich(ql, m, qr), transposed(new["QR"]))
        return plus(d, self.weight_decay, w), new  # (3)

    def _least(self, dim: int) -> float:
        """The smallest eigenvalue of a side of this length."""
        return max(SHORT, min(dim, self.most)) ** -2

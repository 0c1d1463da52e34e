"""DCT-AdamW. Modoranu et al. (2025), arXiv:2505.17967.

    S = Q^T g,  i = the r rows of S with the largest norms    (1)  every k steps; Q is the DCT basis of dct.py, P = Q_i its columns i
    m <- P^T P_before m,  v <- P^T P_before v                 (2)  where i has changed: a column that stays keeps its moments, a new one starts at 0
    R = P^T g                                                 (3)
    m <- b1 m + (1 - b1) R,  v <- b2 v + (1 - b2) R^2         (4)
    w <- w - lr (P m_hat / (sqrt(v_hat) + eps) + lambda w)    (5)  m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t)

Where g has as many rows as columns or more, its transpose is projected. Of all sets of r columns, i captures the most of ||g||^2, at least
r / short of it. State: r (1 + 2 long) numbers for a matrix of short x long, fewer than GaLore's by r (short - 1); Q is one for all matrices of a
width. On gradients of a small transformer layer r = short / 4 columns hold 0.52 to 0.62 of what as many singular vectors do, short / 2 hold 0.76 to
0.85.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Choice, Log, OneMinusLog, Space
from thalweg.optim.adam import bias_correction
from thalweg.optim.dct import dct_basis
from thalweg.optim.plus import plus
from thalweg.optim.subspace import as_given, returned, sizes, wide

CARD = Card(
    name="DCTAdamW",
    title="SVD-Free Low-Rank Adaptive Gradient Optimization for Large Language Models",
    authors="Modoranu et al.",
    year=2025,
    family="optim",
    arxiv="2505.17967",
    ledger=273,
    needs=("matrix",),
    reduces_to=("AdamW in the coordinates of the cosine transform, with the rank at the short side",),
    departures=("Columns are ranked by Euclidean norm, which is optimal, and not by the sum of absolute values.", "No error feedback."),
    use="In GaLore's place where an SVD is too dear or its basis too large: it keeps r numbers in place of a basis. The paper reports the quality of "
    "SVD projections in pre-training and fine-tuning. Not where the rank is a small part of the width: a fixed basis then holds 0.5 to 0.6 of what "
    "singular vectors hold (small transformer, a quarter of the width).",
)
SPACE = Space({"lr": Log(1e-4, 1e-2), "rank": Choice((32, 64, 128)), "weight_decay": Log(1e-3, 1.0), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class DCTAdamW(Rule):
    """AdamW on gradients projected to those vectors of a fixed cosine basis that hold most of them."""

    needs = Needs.MATRIX
    compilable = False
    nonnegative = ("v", "index")
    lr: float = hyper(1e-3, ">= 0", "learning rate")
    rank: int = hyper(128, "int >= 1", "number r of basis vectors, at most the short side")
    every: int = hyper(1, "int >= 1", "steps k from one choice of vectors to the next")
    rotate: bool = hyper(True, "bool", "whether moments stay with their basis vectors when the choice changes, as in (2)")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the averages of the projected gradient and of its square")
    eps: float = hyper(1e-8, ">= 0", "added to the denominator")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        _, rank, long = sizes(w, self.rank)
        return {"index": w.new_zeros(w.shape[0], 1, rank), "m": w.new_zeros(w.shape[0], rank, long), "v": w.new_zeros(w.shape[0], rank, long)}

    def scalars(self, t: int) -> dict[str, float]:
        return bias_correction(self.betas, self.eps, t)

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        (b1, b2), x, index, m, v = self.betas, wide(g), s["index"], s["m"], s["v"]
        q = dct_basis(x.shape[-2], g.dtype, g.device)
        if (c["t"] - 1) % self.every == 0:
            norms = (q.mT @ x).square().sum(-1)
            index = norms.topk(m.shape[-2]).indices.sort().values.unsqueeze(-2).to(g)  # (1)
            if self.rotate:
                stays = (index.mT == s["index"]).to(g)  # P^T P_before: the columns of Q are orthonormal
                m, v = stays @ m, stays @ v  # (2), all zero at the first step
        p = q.mT[index.squeeze(-2).long()].mT
        r = p.mT @ x  # (3)
        m, v = ema(m, r, b1), ema(v, r * r, b2)  # (4)
        d = returned(p, as_given(c["rate"] * m / (v.sqrt() + c["eps"]), w), w)
        return plus(d, self.weight_decay, w), {"index": index, "m": m, "v": v}  # (5)

"""GaLore. Zhao et al. (2024), arXiv:2403.03507, algorithm 2 (GaLore-Adam).

    P <- the leading r left singular vectors of g            (1)  every k steps; right ones where g has as many rows as columns or more
    R = P^T g                                                (2)  the projected gradient; g P in the other case, and P m, below, is m P^T
    m <- b1 m + (1 - b1) R,  v <- b2 v + (1 - b2) R^2        (3)
    w <- w - lr (alpha P rho m / (sqrt(v) + eps) + lambda w) (4)  rho = sqrt(1 - b2^t) / (1 - b1^t)

State: r (short + 2 long) numbers for a matrix of short x long, where Adam keeps 2 short long. The moments stay as they are when P changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Needs, Rule, Scalars, State, ema
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.optim.adam import bias_correction
from thalweg.optim.plus import plus
from thalweg.optim.subspace import leading, projected, returned, sizes, wide

CARD = Card(
    name="GaLore",
    title="GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    authors="Zhao et al.",
    year=2024,
    family="optim",
    arxiv="2403.03507",
    needs=("matrix",),
    reduces_to=("AdamW in the coordinates of the gradient's singular vectors, with rank at the short side and scale=1",),
    departures=(
        "Singular vectors have a fixed sign, and directions without energy are fixed ones, so that runs repeat.",
        "The decay acts on the weights before the step, as in AdamW; the published code decays those after it.",
    ),
    use="Pre-training where Adam's two states do not fit: in the paper near full rank on LLaMA up to 7B with a rank of a quarter to half the width. "
    "Take AdamW for embeddings, heads and norms (tw.optim.route). What lies outside the subspace is lost until the next one.",
)
SPACE = Space({"lr": Log(1e-3, 3e-2), "scale": Log(0.1, 1.0), "weight_decay": Log(1e-3, 1.0), "betas.1": OneMinusLog(0.9, 0.999)})


@dataclass(frozen=True, kw_only=True)
class GaLore(Rule):
    """Adam on gradients projected to their leading singular vectors, which are found anew every few hundred steps."""

    needs = Needs.MATRIX
    nonnegative = ("v",)
    lr: float = hyper(1e-2, ">= 0", "learning rate")
    rank: int = hyper(128, "int >= 1", "dimension r of the subspace, at most the short side")
    every: int = hyper(200, "int >= 1", "steps k from one subspace to the next")
    scale: float = hyper(0.25, ">= 0", "factor alpha on the step; the decay is without it")
    betas: tuple[float, float] = hyper((0.9, 0.999), "[0, 1)", "decay of the averages of the projected gradient and of its square")
    eps: float = hyper(1e-6, ">= 0", "added to the root of the uncorrected second moment")
    weight_decay: float = hyper(0.0, ">= 0", "decoupled decay lambda")

    def init(self, w: Tensor) -> State:
        short, rank, long = sizes(w, self.rank)
        shape = (long, rank) if w.shape[-2] >= w.shape[-1] else (rank, long)
        return {"p": w.new_zeros(w.shape[0], short, rank), "m": w.new_zeros(w.shape[0], *shape), "v": w.new_zeros(w.shape[0], *shape)}

    def scalars(self, t: int) -> dict[str, float]:
        return {"rate": bias_correction(self.betas, 0.0, t)["rate"]}

    def rare_at(self, t: float) -> bool:
        return (t - 1) % self.every == 0

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        b1, b2 = self.betas
        p = leading(wide(g), s["p"].shape[-1]) if c["rare"] else s["p"]  # (1)
        r = projected(p, g)  # (2)
        m, v = ema(s["m"], r, b1), ema(s["v"], r * r, b2)  # (3)
        d = returned(p * (self.scale * c["rate"]), m / (v.sqrt() + self.eps), w)
        return plus(d, self.weight_decay, w), {"p": p, "m": m, "v": v}  # (4)

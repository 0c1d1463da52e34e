"""Clipping by the global norm. Pascanu, Mikolov, Bengio (2012), arXiv:1211.5063, algorithm 1.

    g <- g min(1, max_norm / ||g||)   (1)  ||g||: Euclidean norm over all parameters together
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State
from thalweg.core.space import Log, Space

CARD = Card(
    name="ClipByNorm",
    title="On the difficulty of training Recurrent Neural Networks",
    authors="Pascanu et al.",
    year=2012,
    family="optim",
    arxiv="1211.5063",
    ledger=68,
    needs=("elementwise", "global"),
    reduces_to=("the identity where the norm is at most max_norm", "torch.nn.utils.clip_grad_norm_ up to its 1e-6 in the denominator"),
    use="First in a chain, against rare exploding gradients; 1.0 is the usual value for transformers. A NaN or infinite gradient stays visible.",
)
SPACE = Space({"max_norm": Log(0.1, 10.0)})


@dataclass(frozen=True, kw_only=True)
class ClipByNorm(Rule):
    """A link that shortens a gradient that is too long: `chain(ClipByNorm(max_norm=1.0), AdamW(lr=1e-3))`. `p.grad` itself is left as it is."""

    totals = ("square",)
    max_norm: float = hyper(1.0, "> 0", "largest norm that passes unchanged")

    def measure(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        return {"square": g.square().sum()}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return g * (self.max_norm * c["square"].rsqrt()).clamp(max=1.0), {}  # (1)

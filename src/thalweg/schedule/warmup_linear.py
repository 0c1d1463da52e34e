"""Linear warm-up, then linear decay to zero. Defazio et al. (2023), arXiv:2310.07831.

    factor(t) = t / (W + 1)                 t <= W   (1)
    factor(t) = max(0, (T + 1 - t) / (T - W))  t > W   (2)

t = 1 .. T is the step, T = total, W = warmup. The peak 1 is at t = W + 1; step T still moves, by 1 / (T - W), and later steps do not.
The paper's linear decay is 1 - t / (T + 1), which is (2) with W = 0 times T / (T + 1); the warm-up is
the usual companion of Adam and not derived there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State

CARD = Card(
    name="WarmupLinear",
    title="When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    authors="Defazio et al.",
    year=2023,
    family="schedule",
    arxiv="2310.07831",
    ledger=346,
    needs=("elementwise",),
    reduces_to=("the paper's 1 - t / (T + 1) up to the factor T / (T + 1), with warmup=0",),
    departures=("The peak is exactly 1 whatever the warm-up.",),
    use="The default schedule of a run whose length is known: it matched or beat cosine decay on the paper's ten tasks.",
)


@dataclass(frozen=True, kw_only=True)
class WarmupLinear(Rule):
    """A schedule in two forms: the last link of a chain, or `LambdaLR(optimizer, WarmupLinear(total=1000, warmup=100).factor)`.

    As a link it scales the whole direction, decoupled decay of the links before it included, by each parameter's own step count.
    """

    total: int = hyper(dataclasses.MISSING, "int >= 1", "steps T of the run")
    warmup: int = hyper(0, "int >= 0", "steps W of growth before the peak, fewer than total")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup >= self.total:
            raise ValueError(f"WarmupLinear: warmup must be below total, found warmup={self.warmup}, total={self.total}; shorten the warm-up.")

    def factor(self, done: int) -> float:
        """The factor on the learning rate after `done` steps, as torch's LambdaLR counts: 0 for the first step."""
        if done < self.warmup:
            return (done + 1) / (self.warmup + 1)  # (1)
        return max(0.0, (self.total - done) / (self.total - self.warmup))  # (2)

    def scalars(self, t: int) -> dict[str, float]:
        return {"factor": self.factor(t - 1)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return c["factor"] * g, {}

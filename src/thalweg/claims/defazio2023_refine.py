"""Linear decay is at least as good as cosine and better than a constant rate; a schedule refined from gradient norms is no worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from thalweg import optim, schedule
from thalweg.claims.claim import Claim, Condition
from thalweg.claims.training import final, train
from thalweg.core.rule import Rule
from thalweg.race.methods import Method, find

CLAIM = Claim(
    name="defazio2023_refine",
    paper="Defazio et al. (2023), When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
    ledger=346,
    statement="Linear decay, which the theory of last iterates picks, matches or beats cosine and the other usual schedules on ten deep tasks.",
    check="AdamW on digits and docs-lm, 300 steps, each schedule with the best of four peak rates on validation (one seed), then fresh "
    "seeds. Geometric mean over both tasks of the final validation loss of linear decay as a share of that of cosine decay, and of a "
    "constant rate after the same warm-up.",
    conditions=(
        Condition(metric="cosine", meaning="final loss of linear / of cosine", at_most=1.01),
        Condition(metric="constant", meaning="final loss of linear / of constant", at_most=1.0),
    ),
    seeds=5,
    minutes=8,
)
STEPS, WARMUP, RATES = 300, 15, (1e-3, 3e-3, 1e-2, 3e-2)
BATCH = {"digits": 64, "docs-lm": 16}
LINKS: dict[str, Callable[[], Rule] | None] = {
    "linear": lambda: schedule.WarmupLinear(total=STEPS, warmup=WARMUP),
    "cosine": lambda: schedule.WarmupCosine(total=STEPS, warmup=WARMUP),
    "constant": None,
}


@dataclass(frozen=True)
class Scheduled:
    """Builds AdamW with a schedule as the last link."""

    schedule: str

    def __call__(self, model: nn.Module, hyper: Mapping[str, Any]) -> Optimizer:
        """The optimizer of all parameters."""
        link, rule = LINKS[self.schedule], optim.AdamW(**hyper)
        return optim.chain(rule, *([link()] if link else [])).optimizer(model.parameters())


def method(name: str) -> Method:
    """AdamW whose rate the race leaves level after its rise, with a schedule of its own."""
    return replace(find("AdamW"), name=f"AdamW with {name}", build=Scheduled(name), level=True)


def prepare() -> dict[str, Any]:
    """The best peak for each task and schedule."""
    def score(task: str, name: str, lr: float) -> float:
        return final(train(method(name), task, {"lr": lr}, seed=0, steps=STEPS, batch=BATCH[task], grid=1))

    return {f"{task} {name}": min(RATES, key=lambda lr: score(task, name, lr)) for task in BATCH for name in LINKS}


def run(seed: int, prepared: Mapping[str, Any]) -> dict[str, float]:
    """All schedules on both tasks, on one seed."""
    ended = {
        (task, name): final(train(method(name), task, {"lr": prepared[f"{task} {name}"]}, seed=seed, steps=STEPS, batch=BATCH[task], grid=1))
        for task in BATCH for name in LINKS
    }
    ratios = {name: [ended[task, "linear"] / ended[task, name] for task in BATCH] for name in ("cosine", "constant")}
    cosine, constant = ((a * b) ** 0.5 for a, b in ratios.values())
    return {"cosine": cosine, "constant": constant}

"""Averages of the weights and slow weights, around fused AdamW on the language model; five steps in a sample, so that each has its slow one."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from beside.case import Case, Goal
from thalweg.wrap import EMA, SWA, CPUOffload, Layca, Lookahead, XGrad
from wrapped.training import Task, adamw, figures, language, way

STEPS = 5


class Averaged:
    """torch's averages beside an optimizer, as its documentation has them."""

    def __init__(self, task: Task, average: Any = None) -> None:
        self.optimizer, self.task = adamw(task), task
        self.model = AveragedModel(task.net, multi_avg_fn=average)

    def step(self, closure: Any) -> None:
        self.optimizer.step(closure)
        self.model.update_parameters(self.task.net)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "model": self.model.state_dict()}


def lookahead(task: Task) -> torch.optim.Optimizer:
    peer: torch.optim.Optimizer = importlib.import_module("pytorch_optimizer").Lookahead(adamw(task), k=STEPS, alpha=0.5)
    return peer


WAYS = {
    "AdamW": way(language, adamw, STEPS),
    "EMA": way(language, lambda task: EMA(adamw(task)), STEPS),
    "EMA, torch": way(language, lambda task: Averaged(task, get_ema_multi_avg_fn(0.999)), STEPS),
    "SWA": way(language, lambda task: SWA(adamw(task)), STEPS),
    "SWA, torch": way(language, Averaged, STEPS),
    "Lookahead": way(language, lambda task: Lookahead(adamw(task), k=STEPS), STEPS),
    "Lookahead, pytorch-optimizer": way(language, lookahead, STEPS),
    "XGrad": way(language, lambda task: XGrad(adamw(task)), STEPS),
    "Layca": way(language, lambda task: Layca(adamw(task)), STEPS),
    "CPUOffload, weights on the CPU": way(language, lambda task: CPUOffload(adamw(task)), STEPS),
}
CASES = (
    Case(
        name="averages",
        setting="Language model of 1.2 M weights, 16 sequences of 64 tokens, five steps of fused AdamW and what is put around it.",
        ways=WAYS,
        memory=True,
        figures=figures(WAYS),
        goals=(
            Goal(text="EMA: at most the time of torch's averages", way="EMA", over="EMA, torch", limit=1.0),
            Goal(text="SWA: at most the time of torch's averages", way="SWA", over="SWA, torch", limit=1.0),
            Goal(text="Lookahead: at most the peer's time", way="Lookahead", over="Lookahead, pytorch-optimizer", limit=1.0),
        ),
    ),
)

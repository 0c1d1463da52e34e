"""Flat minima: gradients at displaced weights, around AdamW on the language model."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from beside.case import Case, Goal
from thalweg.wrap import GAM, SAM, FiniteDifferenceGR, MARSExact
from wrapped.training import Task, adamw, figures, language, way


def from_pytorch_optimizer(task: Task) -> Any:
    return importlib.import_module("pytorch_optimizer").SAM(task.params, torch.optim.AdamW, rho=0.05, lr=1e-4, fused=True)


def after_the_first(optimizer: Any, task: Task) -> None:
    """pytorch-optimizer's SAM is given the first gradient."""
    task.closure()
    optimizer.step(task.closure)


def from_heavyball(task: Task) -> Any:
    heavyball = importlib.import_module("heavyball")
    return heavyball.SAMWrapper(task.params, heavyball.AdamW(task.params, lr=1e-4), ball=0.05)


def from_torchzero(task: Task) -> Any:
    tz, modules = importlib.import_module("torchzero"), importlib.import_module("torchzero.modules")
    return tz.Optimizer(task.params, modules.SAM(0.05), modules.Adam(), modules.LR(1e-4))


def with_backward(optimizer: Any, task: Task) -> None:
    """torchzero's closure is told whether to call backward."""

    def closure(backward: bool = True) -> Any:
        return task.closure() if backward else task.loss()

    optimizer.step(closure)


WAYS = {
    "AdamW": way(language, adamw),
    "SAM": way(language, lambda task: SAM(adamw(task))),
    "SAM, pytorch-optimizer": way(language, from_pytorch_optimizer, call=after_the_first),
    "SAM (adaptive), heavyball": way(language, from_heavyball),
    "SAM, torchzero": way(language, from_torchzero, call=with_backward),
    "SAM, adaptive": way(language, lambda task: SAM(adamw(task), adaptive=True)),
    "FiniteDifferenceGR": way(language, lambda task: FiniteDifferenceGR(adamw(task))),
    "GAM": way(language, lambda task: GAM(adamw(task))),
    "MARSExact": way(language, lambda task: MARSExact(adamw(task))),
}
CASES = (
    Case(
        name="flat-minima",
        setting="Language model of 1.2 M weights, 16 sequences of 64 tokens, one step of AdamW (fused, but for heavyball's and torchzero's).",
        ways=WAYS,
        memory=True,
        figures=figures(WAYS),
        goals=tuple(
            Goal(text=f"SAM: at most the time of {peer}", way=ours, over=f"{theirs}, {peer}", limit=1.0)
            for ours, theirs, peer in (
                ("SAM", "SAM", "pytorch-optimizer"), ("SAM, adaptive", "SAM (adaptive)", "heavyball"), ("SAM", "SAM", "torchzero"),
            )
        ),
    ),
)

"""The step inside the backward pass: each gradient is freed as soon as its weights have moved."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from beside.case import Case, Goal, Make
from gradients.models import linear_stack
from thalweg import optim
from thalweg.wrap import GradientRelease
from wrapped.training import Task, adamw, figures, way

WIDTH, DEPTH = 1024, 12
HELD = 3 * 4 * (DEPTH * (WIDTH * WIDTH + WIDTH))
"""Bytes of weights and AdamW's state."""


def deep() -> Task:
    """12 linear layers of width 1024: 12.6 M weights, 64 samples."""
    torch.manual_seed(0)
    return Task(linear_stack(*([WIDTH] * (DEPTH + 1))), torch.randn(64, WIDTH), torch.randint(0, WIDTH, (64,)))


def ours(task: Task) -> Any:
    return optim.AdamW(task.params, lr=1e-4, backend="compiled")


def of_optimi(task: Task) -> Any:
    optimi = importlib.import_module("optimi")
    optimizer = optimi.AdamW(task.params, lr=1e-4, gradient_release=True)
    optimi.prepare_for_gradient_release(task.net, optimizer)
    return optimizer


def in_backward(optimizer: Any, task: Task) -> None:
    task.loss().backward()


def and_freed(optimizer: Any, task: Task) -> None:
    """Gradients are made and freed within the step, so that its peak has them."""
    optimizer.step(task.closure)
    optimizer.zero_grad()


WAYS: dict[str, Make] = {
    "AdamW": way(deep, adamw, call=and_freed),
    "AdamW of this library": way(deep, ours, call=and_freed),
    "GradientRelease": way(deep, lambda task: GradientRelease(ours(task)), call=in_backward),
    "gradient release, torch-optimi": way(deep, of_optimi, call=in_backward),
}
CASES = (
    Case(
        name="gradient-release",
        setting="12 linear layers of width 1024, 12.6 M weights, 64 samples, one step of AdamW.",
        ways=WAYS,
        memory=True,
        held=HELD,
        figures=figures(WAYS),
        goals=(
            Goal(text="gradient release: at most the peer's time", way="GradientRelease", over="gradient release, torch-optimi", limit=1.0),
            Goal(
                text="gradient release: at most 0.8 of the memory, weights and state included", way="GradientRelease", over="AdamW of this library",
                of="memory", limit=0.8,
            ),
        ),
    ),
)

"""Kronecker factors from the layers themselves, around SGD; ten steps in a sample, one of which updates the factors."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from beside.case import Case, Goal, Make
from gradients.models import linear_stack
from thalweg.wrap import INGD, KFAC
from wrapped.training import Task, figures, sgd, way

EVERY = 10


def layers() -> Task:
    """Three linear layers: 1.6 M weights, 512 samples."""
    torch.manual_seed(0)
    return Task(linear_stack(256, 1024, 1024, 256), torch.randn(512, 256), torch.randint(0, 256, (512,)))


def convolutions() -> Task:
    """Three convolutions and a linear layer: 0.35 M weights, 64 images of 16 x 16."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(128, 128, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 64),
    )
    return Task(net, torch.randn(64, 3, 16, 16), torch.randint(0, 64, (64,)))


def singd(structure: str = "dense", **options: Any) -> Callable[[Task], Any]:
    """The published library of inverse-free natural gradients; its own momentum is the base optimizer."""

    def make(task: Task) -> Any:
        peer = importlib.import_module("singd.optim.optimizer").SINGD
        return peer(task.net, lr=1e-2, momentum=0.9, T=EVERY, structures=(structure, structure), warn_unsupported=False, **options)

    return make


def without_closure(optimizer: Any, task: Task) -> None:
    task.closure()
    optimizer.step()


def case(name: str, setting: str, task: Callable[[], Task]) -> Case:
    ways: dict[str, Make] = {
        "SGD": way(task, sgd, EVERY),
        "KFAC": way(task, lambda at: KFAC(sgd(at), at.net, factor_every=EVERY, inverse_every=EVERY), EVERY),
        "KFAC, eigenvalues": way(task, lambda at: KFAC(sgd(at), at.net, factor_every=EVERY, inverse_every=EVERY, inverse="eigen"), EVERY),
        "KFAC (inverse-free), singd": way(task, singd(kfac_like=True), EVERY, without_closure),
        "INGD": way(task, lambda at: INGD(sgd(at), at.net, every=EVERY), EVERY),
        "INGD, singd": way(task, singd(), EVERY, without_closure),
        "INGD, diagonal": way(task, lambda at: INGD(sgd(at), at.net, every=EVERY, structure="diagonal"), EVERY),
        "INGD, diagonal, singd": way(task, singd("diagonal"), EVERY, without_closure),
    }
    kfac = "KFAC (inverse-free), singd"
    pairs = (("KFAC", kfac), ("KFAC, eigenvalues", kfac), ("INGD", "INGD, singd"), ("INGD, diagonal", "INGD, diagonal, singd"))
    goals = tuple(Goal(text=f"{ours}, {name}: at most the time of singd", way=ours, over=theirs, limit=1.0) for ours, theirs in pairs)
    return Case(name=name, setting=setting, ways=ways, memory=True, figures=figures(ways, [name for name in ways if "singd" in name]), goals=goals)


CASES = (
    case("kronecker-linear", f"Linear layers 256-1024-1024-256, 1.6 M weights, 512 samples, {EVERY} steps of SGD, one update.", layers),
    case("kronecker-convolutions", f"Three convolutions and a linear layer, 64 images of 16 x 16, {EVERY} steps, one update.", convolutions),
)

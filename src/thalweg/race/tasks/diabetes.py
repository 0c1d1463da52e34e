"""`diabetes`: a small network that predicts the progression of diabetes a year on, from ten measures of 442 patients (scikit-learn)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.race.task import Task
from thalweg.race.tasks.batches import epochs

Batch = tuple[Tensor, Tensor]


@functools.cache
def data() -> tuple[dict[str, Batch], float]:
    """Features [n, 10] and progressions [n], both standardised by the training patients (262 / 90 / 90), and the progression's scale."""
    raw = load_diabetes(scaled=False)
    x = torch.tensor(raw.data, dtype=torch.float32)
    y = torch.tensor(raw.target, dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = {"train": order[:262], "validation": order[262:352], "test": order[352:]}
    x = (x - x[cut["train"]].mean(0)) / x[cut["train"]].std(0)
    scale = float(y[cut["train"]].std())
    y = (y - y[cut["train"]].mean()) / scale
    return {split: (x[rows], y[rows]) for split, rows in cut.items()}, scale


def model(generator: torch.Generator) -> nn.Module:
    """Two hidden layers of 32."""
    net = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return net


def batches(split: str, size: int, generator: torch.Generator) -> Iterable[Batch]:
    """Whole epochs in a new order each; the held-out patients in one batch."""
    x, y = data()[0][split]
    return epochs(x, y, size, generator) if split == "train" else [(x, y)]


def output(model: nn.Module, batch: Batch) -> Tensor:
    """Standardised predictions [n]."""
    return model(batch[0])[:, 0]


def loss(output: Tensor, batch: Batch) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(output, batch[1])


def measure(output: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Summed squared error and the number of patients."""
    return F.mse_loss(output, batch[1], reduction="sum"), len(batch[1])


def rmse(mean: float) -> float:
    """Root mean squared error in the data's own unit."""
    return math.sqrt(mean) * data()[1]


def task() -> Task:
    """The task."""
    return Task(
        name="diabetes", metric="RMSE", direction="min", model=model, batches=batches, output=output, loss=loss, measure=measure, finish=rmse,
        likelihood="gaussian", steps=600, batch=32,
    )

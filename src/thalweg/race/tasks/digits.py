"""`digits`: a small convolutional network on scikit-learn's 1,797 scanned digits of 8 x 8 pixels.

The metric is the cross-entropy: 450 test images resolve an error rate only in steps of 0.2 points, far coarser than the differences
between optimizers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.race.task import Task
from thalweg.race.tasks.batches import epochs

Batch = tuple[Tensor, Tensor]


@functools.cache
def data() -> dict[str, Batch]:
    """Images [n, 1, 8, 8] in [-1, 1] and labels [n] of 897 / 450 / 450 examples."""
    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(raw.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = {"train": order[:897], "validation": order[897:1347], "test": order[1347:]}
    return {split: (x[rows], y[rows]) for split, rows in cut.items()}


def model(generator: torch.Generator) -> nn.Module:
    """Three convolutions and a linear head, He initialisation: 10 k weights."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(96, 10),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def batches(split: str, size: int, generator: torch.Generator) -> Iterable[Batch]:
    """Whole epochs in a new order each; the held-out images in one batch."""
    x, y = data()[split]
    return epochs(x, y, size, generator) if split == "train" else [(x, y)]


def output(model: nn.Module, batch: Batch) -> Tensor:
    """Logits [n, 10]."""
    return model(batch[0])


def loss(output: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy, in nats."""
    return F.cross_entropy(output, batch[1])


def measure(output: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Summed cross-entropy and the number of images."""
    return F.cross_entropy(output, batch[1], reduction="sum"), len(batch[1])


def task() -> Task:
    """The task."""
    return Task(
        name="digits", metric="cross-entropy", direction="min", model=model, batches=batches, output=output, loss=loss, measure=measure,
        likelihood="categorical", steps=300, batch=64,
    )

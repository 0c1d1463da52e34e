"""`photo`: a coordinate network that learns a photograph, pixel position to colour; judged by the PSNR on pixels that it has not seen.

The picture is scikit-learn's sample photograph of a temple, averaged to a quarter of its size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.race.task import Task
from thalweg.race.tasks.batches import epochs

Batch = tuple[Tensor, Tensor]


@functools.cache
def data() -> dict[str, Batch]:
    """Positions [n, 2] in [-1, 1] and colours [n, 3] in [0, 1]; 60, 20 and 20 percent of the pixels, drawn at random once."""
    image = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    small = F.avg_pool2d(image, 4)[0]
    height, width = small.shape[1:]
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"), -1).reshape(-1, 2)
    colours = small.permute(1, 2, 0).reshape(-1, 3)
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    a, b = int(0.6 * len(grid)), int(0.8 * len(grid))
    cut = {"train": order[:a], "validation": order[a:b], "test": order[b:]}
    return {split: (grid[rows], colours[rows]) for split, rows in cut.items()}


class CoordinateNetwork(nn.Module):
    """Random Fourier features of the position (Tancik et al., 2020, arXiv:2006.10739) and two hidden layers of 64."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", 8.0 * torch.randn(2, 32, generator=generator))
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, position: Tensor) -> Tensor:
        """Positions [n, 2] to colours [n, 3]."""
        angle = position @ self.frequencies
        return self.layers(torch.cat([angle.sin(), angle.cos()], -1)).sigmoid()


def model(generator: torch.Generator) -> nn.Module:
    """The coordinate network; its frequencies are drawn with its weights."""
    return CoordinateNetwork(generator)


def batches(split: str, size: int, generator: torch.Generator) -> Iterable[Batch]:
    """Pixels drawn without replacement in each epoch; the held-out pixels in one batch."""
    x, y = data()[split]
    return epochs(x, y, size, generator) if split == "train" else [(x, y)]


def output(model: nn.Module, batch: Batch) -> Tensor:
    """Colours [n, 3]."""
    return model(batch[0])


def loss(output: Tensor, batch: Batch) -> Tensor:
    """Mean squared error of the colours."""
    return F.mse_loss(output, batch[1])


def measure(output: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Summed squared error and the number of colour values."""
    return F.mse_loss(output, batch[1], reduction="sum"), batch[1].numel()


def psnr(mean: float) -> float:
    """Peak signal-to-noise ratio, in dB, of a mean squared error of values in [0, 1]."""
    return -10 * math.log10(max(mean, 1e-12))


def task() -> Task:
    """The task."""
    return Task(
        name="photo", metric="PSNR", direction="max", model=model, batches=batches, output=output, loss=loss, measure=measure, finish=psnr,
        likelihood="gaussian", steps=800, batch=1024,
    )

"""`docs-lm`: a byte-level transformer on the Python language reference (the standard library's `pydoc_data.topics`), in bits per byte.

The text comes with Python, so another version of Python races on slightly other text; the store keeps the version.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.race.task import Task

CONTEXT, WIDTH, HEADS, LAYERS = 48, 64, 4, 2
HELD_OUT = 384  # windows of each held-out split that are judged


@functools.cache
def data() -> dict[str, Tensor]:
    """The bytes [n] of each split: contiguous stretches, 80, 10 and 10 percent of the text."""
    text = torch.frombuffer(bytearray("\n".join(topics[name] for name in sorted(topics)).encode()), dtype=torch.uint8).long()
    a, b = int(0.8 * len(text)), int(0.9 * len(text))
    return {"train": text[:a], "validation": text[a:b], "test": text[b:]}


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each after a normalisation and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] to the same."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ByteTransformer(nn.Module):
    """Bytes [batch, time] to logits [batch, time, 256]."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.05, generator=generator)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next byte."""
        return self.head(self.norm(self.blocks(self.embed(text) + self.position.weight[: text.shape[1]])))


def model(generator: torch.Generator) -> nn.Module:
    """A transformer of two layers and 134 k weights."""
    return ByteTransformer(generator)


def batches(split: str, size: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Windows [n, context + 1]: at random places for training, evenly spaced ones in batches of 64 otherwise."""
    text = data()[split]
    if split == "train":
        return _windows(text, size, generator)
    return _at(text, torch.linspace(0, len(text) - CONTEXT - 1, HELD_OUT).long()).split(64)


def _windows(text: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield _at(text, torch.randint(len(text) - CONTEXT, (size,), generator=generator))


def _at(text: Tensor, starts: Tensor) -> Tensor:
    return text[starts[:, None] + torch.arange(CONTEXT + 1)]


def output(model: nn.Module, batch: Tensor) -> Tensor:
    """Logits [n, context, 256]."""
    return model(batch[:, :-1])


def loss(output: Tensor, batch: Tensor) -> Tensor:
    """Mean cross-entropy, in nats."""
    return F.cross_entropy(output.flatten(0, 1), batch[:, 1:].flatten())


def measure(output: Tensor, batch: Tensor) -> tuple[Tensor, int]:
    """Summed cross-entropy and the number of bytes."""
    return F.cross_entropy(output.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"), batch[:, 1:].numel()


def bits(mean: float) -> float:
    """Nats to bits."""
    return mean / math.log(2)


def task() -> Task:
    """The task."""
    return Task(
        name="docs-lm", metric="bits per byte", direction="min", model=model, batches=batches, output=output, loss=loss, measure=measure, finish=bits,
        likelihood="categorical", steps=300, batch=16,
    )

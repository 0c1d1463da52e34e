"""Clipping by value. Mikolov (2012), for recurrent language models.

    g <- min(max(g, -max_value), max_value)   (1)  each coordinate by itself
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.card import Card
from thalweg.core.checks import hyper
from thalweg.core.rule import Rule, Scalars, State
from thalweg.core.space import Log, Space

CARD = Card(
    name="ClipByValue",
    title="Statistical Language Models Based on Neural Networks",
    authors="Mikolov",
    year=2012,
    family="optim",
    url="https://www.fit.vutbr.cz/~imikolov/rnnlm/thesis.pdf",
    needs=("elementwise",),
    reduces_to=("the identity where no coordinate exceeds max_value", "torch.nn.utils.clip_grad_value_"),
    use="First in a chain. Unlike clipping by norm it changes the gradient's direction; NaN passes through, an infinity becomes max_value.",
)
SPACE = Space({"max_value": Log(1e-2, 10.0)})


@dataclass(frozen=True, kw_only=True)
class ClipByValue(Rule):
    """A link that limits every coordinate of the gradient: `chain(ClipByValue(max_value=1.0), SGD(lr=0.1))`."""

    max_value: float = hyper(1.0, "> 0", "largest absolute value that passes unchanged")

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return torch.clamp(g, -self.max_value, self.max_value), {}  # (1)

"""What decides the graph of a kernel: where the numbers of a step stand, and how tensors are stored.

All numbers of a step (hyperparameters, the rule's scalars, the sums over all parameters) travel in one float64 vector, so that none of them is
a constant of a graph; only exponents are, since a power known beforehand is a root or a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.core.codecs import Codec
from thalweg.core.contract import RuleLike

Numbers = Tensor | list[Any]
"""The vector of a step: a float64 tensor for a compiled kernel, a list of floats (and 0-d sums) for an eager one."""

Stores = list[tuple[Tensor, ...]]
"""The storage tensors of each state, in the order of `Form.states`; with Kahan summation the compensation comes last."""


@dataclass(frozen=True)
class Layout:
    """Where each number stands in the vector of a step.

    Args:
        dynamic: hyperparameters that are numbers, with the length of a tuple (0 for a plain number).
        static: the other hyperparameters with their values; they are part of the graph.
        exponents: hyperparameters that are exponents, with their values as text: the compiler would take a float for a variable.
        scalars: names of the rule's scalars and of the numbers that a parameter carries.
        inputs: names of the numbers that come from the device: the sums over all parameters, and what parameters share.
    """

    dynamic: tuple[tuple[str, int], ...]
    static: tuple[tuple[str, Any], ...]
    exponents: tuple[tuple[str, str], ...]
    scalars: tuple[str, ...]
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, rule: RuleLike) -> Layout:
        """The layout of a rule's numbers."""
        dynamic: list[tuple[str, int]] = []
        static: list[tuple[str, Any]] = []
        exponents: list[tuple[str, str]] = []
        for name, value in rule.hyper().items():
            if isinstance(value, tuple):
                dynamic.append((name, len(value)))
            elif isinstance(value, float) and name in rule.exponents:
                exponents.append((name, repr(value)))
            elif isinstance(value, float | Tensor):
                dynamic.append((name, 0))
            else:
                static.append((name, value))
        scalars = ("t", "noise", *rule.past, *rule.scalars(1))
        return cls(tuple(dynamic), tuple(static), tuple(exponents), scalars, tuple([name for names in rule.inputs for name in names]))

    def write(self, rule: RuleLike, t: int, noise: int, past: Sequence[float] = ()) -> list[float]:
        """The numbers of step t, without those from the device. `noise` keys the noise; `past` is what the parameters carry, already of this step."""
        values = rule.hyper()
        out: list[float] = []
        for name, length in self.dynamic:
            out.extend(map(float, values[name]) if length else (float(values[name]),))
        out += (float(t), float(noise), *past)
        out.extend(map(float, rule.scalars(t).values()))
        return out

    def read(self, numbers: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Hyperparameters and scalars, by name, from the unbound vector (what is not known yet is left out)."""
        values: dict[str, Any] = dict(self.static) | {name: float(text) for name, text in self.exponents}
        at = 0
        for name, length in self.dynamic:
            values[name] = tuple([numbers[at + i] for i in range(length)]) if length else numbers[at]
            at += max(length, 1)
        c = {}
        for name in self.scalars + self.inputs:
            if at < len(numbers):
                c[name] = numbers[at]
            at += 1
        return values, c


@dataclass(frozen=True)
class Form:
    """How the tensors of one bucket are stored; with the rule's structure it decides the graph.

    Args:
        layout: the numbers.
        states: names of the states with their codecs.
        kinds: types of the rule and its links.
        dtype: of the weights.
        device: of the weights.
        rounding: "nearest", "stochastic" or "kahan", for weights in 16 bits.
        indexed: whether noise is keyed row by row (packed parameters) or from the first row on.
        many: whether several matrices are stacked.
        vector: whether the only matrix is a vector, of one row.
        draws: whether the rule itself reads noise.
    """

    layout: Layout
    states: tuple[tuple[str, Codec], ...]
    kinds: tuple[Any, ...]
    dtype: torch.dtype
    device: torch.device
    rounding: str
    indexed: bool
    many: bool
    vector: bool = False
    draws: bool = False

    @property
    def noisy(self) -> bool:
        """Whether the kernel draws random bits."""
        return self.draws or self.rounding == "stochastic" or any(codec.stochastic for _, codec in self.states)

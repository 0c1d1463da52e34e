"""From a rule to the function that the engine runs: decode the state, call the pure rule, write back.

The same body runs compiled on whole flat tensors and eagerly on pieces that stay in cache. `form` says how its tensors and numbers come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.core.codecs import Codec
from thalweg.core.contract import RuleLike, State
from thalweg.core.form import Form, Numbers, Stores
from thalweg.core.random import LANES, lanes, mix_int, normals, words
from thalweg.core.rounding import kahan_read, kahan_write, round_weights

ABSORB_STREAM = 64
"""Streams of noise below are the step's roundings, above the probe's."""

NORMAL_STREAM = 128
"""The two streams of a rule's own noise."""

Draw = Callable[[int, Tensor], Tensor]
Shapes = list[list[int]]
"""The shape of each state whose storage is in blocks, [] for the others; empty where no state is."""


class Body:
    """The functions of one rule in one form. `step`, `measure(phase)`, `absorb`, `evaluation` and `training` are pure up to their final writes.

    The form is a default argument of each, since the compiler takes integers of default arguments for constants, and all others for variables.

    Args:
        rule: a template; its numbers are never read, only its structure.
        form: how the tensors are stored.
    """

    def __init__(self, rule: RuleLike, form: Form) -> None:
        self.rule, self.form = rule, form
        self.compute = torch.float64 if form.dtype == torch.float64 else torch.float32

    def step(self) -> Callable[[Tensor, Tensor, Stores, Numbers, Tensor | None, list[list[int]]], None]:
        """(g, w, stores, numbers, index, shapes): one step, written into w and the stores."""
        rule, compute = self.rule, self.compute

        def step(g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: Shapes, form: Form = self.form) -> None:
            values, c = form.layout.read(numbers.unbind() if isinstance(numbers, Tensor) else numbers)
            bound = rule.bound(values)
            full = w.to(compute)
            if form.rounding == "kahan":
                full = kahan_read(w, stores[-1][0])
            old = _decoded(form, stores, shapes, compute)
            draw = _drawer(form, c, index)
            c["rare"] = not isinstance(numbers, Tensor) and bound.rare_at(c["t"])
            if form.draws and (isinstance(numbers, Tensor) or bound.draws_at(c["t"])):
                c["normal"] = normals(draw(NORMAL_STREAM, full), draw(NORMAL_STREAM + 1, full), compute)
            direction, new = bound.step(g.to(compute), full, old, c)
            in_place = full is w and isinstance(bound.rate, float)  # eager, and w - lr d: nothing to keep beside w
            if in_place and any(_shared(direction, x) for x in old.values()):  # which are written first
                direction = direction.clone()
            moved = w if in_place else bound.apply(full, direction)
            for i, ((name, codec), held) in enumerate(zip(form.states, stores, strict=False)):
                if name in new and new[name] is not old[name]:
                    _write(codec, held, new[name], draw, i)
            if in_place:
                w.add_(direction, alpha=-bound.rate)
            elif form.rounding == "kahan":
                low, compensation = kahan_write(w, stores[-1][0], moved)
                w.copy_(low)
                stores[-1][0].copy_(compensation)
            elif form.rounding == "stochastic":
                w.copy_(round_weights(moved, w.dtype, draw(len(form.states), moved), "stochastic"))
            else:
                w.copy_(moved)

        return step

    def measure(self, phase: int) -> Callable[[Tensor, Tensor, Stores, Numbers, Tensor | None, list[list[int]]], Tensor]:
        """The contributions of one piece to the sums of a phase, as a vector."""
        rule, compute = self.rule, self.compute

        def measure(g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: Shapes, form: Form = self.form) -> Tensor:
            values, c = form.layout.read(numbers.unbind() if isinstance(numbers, Tensor) else numbers)
            bound = rule.bound(values)
            c["rare"] = not isinstance(numbers, Tensor) and bound.rare_at(c["t"])
            sums = bound.measure_phase(phase, g.to(compute), w.to(compute), _decoded(form, stores, shapes, compute), c)
            return torch.stack([sums[name] for name in rule.phases[phase]])

        return measure

    def evaluation(self, to: str = "evaluation") -> Callable[[Tensor, Tensor, Stores, Numbers, Tensor | None, list[list[int]]], None]:
        """(w, w, stores, numbers, index, shapes): the weights become those to evaluate at."""
        rule, compute = self.rule, self.compute

        def translate(g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: Shapes, form: Form = self.form) -> None:
            values, c = form.layout.read(numbers.unbind() if isinstance(numbers, Tensor) else numbers)
            w.copy_(getattr(rule.bound(values), to)(w.to(compute), _decoded(form, stores, shapes, compute), c))

        return translate

    def training(self) -> Callable[[Tensor, Tensor, Stores, Numbers, Tensor | None, list[list[int]]], None]:
        """The inverse of `evaluation`."""
        return self.evaluation("training")

    def absorb(self) -> Callable[[Tensor, Tensor, Stores, Numbers, Tensor | None, list[list[int]]], None]:
        """(h, w, stores, numbers, index, shapes): the state takes in a curvature estimate h of the diagonal."""
        rule, compute = self.rule, self.compute

        def absorb(h: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: Shapes, form: Form = self.form) -> None:
            values, c = form.layout.read(numbers.unbind() if isinstance(numbers, Tensor) else numbers)
            old = _decoded(form, stores, shapes, compute)
            new = rule.bound(values).absorb(h.to(compute), w.to(compute), old, c)
            draw = _drawer(form, c, index)
            for i, ((name, codec), held) in enumerate(zip(form.states, stores, strict=False)):
                if new[name] is not old[name]:
                    _write(codec, held, new[name], draw, i + ABSORB_STREAM)

        return absorb


def _shared(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors lie in the same memory, as a tensor and a view of it do."""
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def _decoded(form: Form, stores: Stores, shapes: list[list[int]], compute: torch.dtype) -> State:
    """The states at compute precision. A shape is given where the storage is in blocks and the state is not."""
    out: State = {}
    for i, (name, codec) in enumerate(form.states):
        x = codec.decode(stores[i], compute)
        if shapes and shapes[i]:
            batch, *inner = shapes[i]
            x = x.view(batch, -1)[:, : math.prod(inner)].reshape(batch, *inner)
        out[name] = x
    return out


def _write(codec: Codec, held: tuple[Tensor, ...], x: Tensor, draw: Draw, stream: int) -> None:
    if codec.block > 1 and x.dim() != 2:
        flat = x.reshape(x.shape[0], -1)
        x = torch.nn.functional.pad(flat, (0, -flat.shape[1] % codec.block))
        noise = draw(stream, x).view(-1, codec.block) if codec.stochastic else None
        encodings = codec.encode(x.view(-1, codec.block), noise)
    else:
        encodings = codec.encode(x, draw(stream, x) if codec.stochastic else None)
    for store, encoded in zip(held, encodings, strict=True):
        store.copy_(encoded)


def _drawer(form: Form, c: Mapping[str, Any], index: Tensor | None) -> Draw:
    """Noise of a tensor's shape. Elements are numbered in rows of 256 from the key of their parameter on.

    `index` holds the key of every row ([rows, 1], packed parameters), or of the first row (one key for a vector as [rows, 256], one for
    each matrix of a stack).
    """
    noise = c["noise"]
    seed = noise.to(torch.int32) if isinstance(noise, Tensor) else int(noise)

    def draw(stream: int, x: Tensor) -> Tensor:
        assert index is not None
        device, key = index.device, seed ^ mix_int(stream)
        if x.dim() == 2 and x.shape[1] == LANES and not form.many:
            row = index if form.indexed else (torch.arange(x.shape[0], dtype=torch.int32, device=device) + index).unsqueeze(1)
            return words(row, lanes(device), key)
        each = x.numel() // index.numel()
        if torch.compiler.is_compiling():
            element = torch.arange(each, dtype=torch.int32, device=device)
            return words(index.unsqueeze(1) + (element >> 8), element & (LANES - 1), key).view(x.shape)
        row = index.unsqueeze(1) + torch.arange(-(-each // LANES), dtype=torch.int32, device=device)  # a row shares most work
        return words(row.unsqueeze(2), lanes(device), key).flatten(1)[:, :each].reshape(x.shape)

    return draw

"""Buckets of rules that see layers and matrices: parameters of one shape, stacked as [batch, rows, cols]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from thalweg.core import sharding
from thalweg.core.buckets import Bucket, Piece, Plan, Scratch, is_ordinary, plain, widest
from thalweg.core.contract import Needs
from thalweg.core.form import Stores
from thalweg.core.random import LANES, salt

LONG = 1_000_000
"""Elements from which a vector is worth a graph of its own: with one row it cannot have that of matrices. Shorter ones run eagerly."""


def matrix_shape(shape: Sequence[int], layout: str, split: int = 1) -> tuple[int, int, int]:
    """(stack, rows, cols) of a parameter.

    A vector is (1, 1, n). A matrix is itself. Three dimensions are a stack of matrices (experts), four or more a convolution, flattened to
    (out, in * kernel); `layout="stack"` or "flatten" overrides both. `split` cuts the rows into equal matrices.

    Raises:
        ValueError: if the rows cannot be split equally.
    """
    if len(shape) < 2:
        return 1, 1, math.prod(shape)
    flatten = layout == "flatten" or (layout == "auto" and len(shape) > 3)
    stack, rows, cols = (1, shape[0], math.prod(shape[1:])) if flatten else (math.prod(shape[:-2]), shape[-2], shape[-1])
    if rows % split:
        raise ValueError(f"split={split}: the {rows} rows of a parameter of shape {tuple(shape)} cannot be cut into equal parts.")
    return stack * split, rows // split, cols


def row_keys(parameters: Sequence[tuple[int, int]], each: int, device: torch.device) -> Tensor:
    """The noise key of each matrix's first row of 256: `parameters` are (salt, matrices), `each` is the elements of a matrix."""
    keys = [start + k * (each // LANES + 1) for start, stack in parameters for k in range(stack)]
    return torch.tensor(keys, dtype=torch.int64).to(torch.int32).to(device)


class StackBucket(Bucket):
    """One large matrix (or stack) without copies, or several small ones of equal shape, stacked."""

    def __init__(self, params: list[Tensor], ids: list[int], plan: Plan, group: int) -> None:
        super().__init__(params, ids, plan, group)
        self.matrix = matrix_shape(plain(params[0]).shape, plan.layout, plan.split)
        self.ordinary = all(map(is_ordinary, params))
        self.rule_shape = stack, rows, cols = self.matrix
        start = plan.rule.init(torch.zeros((stack * len(params), rows, cols), dtype=self.compute, device=self.device))
        self.inner = {name: tuple(x.shape[1:]) for name, x in start.items()}
        self.each: dict[str, int] = {}
        for name, x in start.items():
            codec = self.choose(name, x.numel() // x.shape[0])
            n = math.prod(self.inner[name])
            self.each[name] = n + -n % codec.block
            padded = x if codec.block == 1 else torch.nn.functional.pad(x.reshape(x.shape[0], -1), (0, self.each[name] - n)).view(-1, codec.block)
            self.stores.append(tuple(code.clone() for code in codec.encode(padded)))
        many = stack * len(params) > 1
        self.kernel = self.form(indexed=False, many=many, vector=rows == 1 and cols >= LONG and not many and plan.rule.kind is Needs.LAYER)
        if self.kernel.rounding == "kahan":
            self.stores.append((torch.zeros((stack * len(params), rows, cols), dtype=self.dtype, device=self.device),))
        self.index = None
        if self.kernel.noisy:
            self.index = row_keys([(salt(i), stack) for i in ids], rows * cols, self.device)

    def pieces(self, members: range, grads: list[Tensor], scratch: Scratch) -> Iterator[Piece]:
        """The kernel call for consecutive parameters with these gradients."""
        tensors = self.params[members.start : members.stop]
        if not self.ordinary:
            tensors, grads = [plain(p) for p in tensors], [plain(g) for g in grads]
        stack, rows, cols = self.matrix
        shape = (stack * len(members), rows, cols)
        at = slice(members.start * stack, members.stop * stack)
        stores, index = self.cut(at), None if self.index is None else self.index[at]
        shapes: list[list[int]] = [[] if codec.block == 1 else [shape[0], *self.inner[name]] for name, codec in self.codecs.items()]
        fits = (rows > 1 or self.kernel.vector) and cols > 1 and (shape[0] > 1) == self.kernel.many
        if len(members) == 1 and tensors[0].is_contiguous() and tensors[0].numel() > 0:
            yield Piece(grads[0].reshape(shape), tensors[0].view(shape), stores, index, shapes, compilable=fits)
            return
        packed_w = scratch.take("w", math.prod(shape), tensors[0])
        packed_g = scratch.take("g", math.prod(shape), widest(grads))
        stacked = packed_w.view(len(members), *tensors[0].shape)
        torch.stack(tensors, out=stacked)
        torch.stack(grads, out=packed_g.view(stacked.shape))
        yield Piece(packed_g.view(shape), packed_w.view(shape), stores, index, shapes, tensors, list(stacked.unbind()), fits)

    def stand_in(self) -> Piece:
        """Matrices of 320 x 288, three where the kernel takes many; a vector of as many elements as one where it takes a vector."""
        shape = (1, 1, 320 * 288) if self.kernel.vector else (3 if self.kernel.many else 1, 320, 288)
        w, g = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        stores: Stores = []
        shapes: list[list[int]] = []
        for codec, x in zip(self.codecs.values(), self.plan.rule.init(w.to(self.compute)).values(), strict=True):
            each = x.numel() // shape[0]
            stores.append(codec.encode(x) if codec.block == 1 else codec.allocate(shape[0] * (each + -each % codec.block), self.device, self.compute))
            shapes.append([] if codec.block == 1 else [shape[0], *x.shape[1:]])
        if self.kernel.rounding == "kahan":
            stores.append((torch.zeros_like(w),))
        return Piece(g, w, stores, torch.zeros(shape[0], dtype=torch.int32, device=self.device) if self.kernel.noisy else None, shapes)

    def cut(self, at: slice) -> Stores:
        """The storage of some matrices of the stack."""
        if at.stop - at.start == self.matrix[0] * len(self.params):
            return list(self.stores)
        out: Stores = []
        for (name, codec), held in zip(self.codecs.items(), self.stores, strict=False):
            out.append((held[0][at],) if codec.block == 1 else codec.slices(held, at.start * self.each[name], at.stop * self.each[name]))
        if self.kernel.rounding == "kahan":
            out.append((self.stores[-1][0][at],))
        return out

    def held(self, i: int) -> dict[str, tuple[Tensor, ...]]:
        """The storage of one parameter, by state, in the parameter's shape where the state has as many elements."""
        x, stack = plain(self.params[i]), self.matrix[0]
        out: dict[str, tuple[Tensor, ...]] = {}
        for name, parts in zip([*self.codecs, "compensation"], self.cut(slice(i * stack, (i + 1) * stack)), strict=False):
            one = parts[0]
            if len(parts) == 1 and one.numel() == x.numel():
                out[name] = (sharding.like(one.view(x.shape), self.params[i]),)
            else:
                out[name] = (one.squeeze(0),) if len(parts) == 1 and one.dim() == 3 and stack == 1 else parts
        return out

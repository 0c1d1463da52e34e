"""Buckets of rules that see whole matrices, for weights whose shards lie on several processes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from thalweg.core import sharding
from thalweg.core.buckets import Bucket, Piece, Plan, Scratch
from thalweg.core.codecs import BF16, FULL
from thalweg.core.form import Stores
from thalweg.core.random import salt
from thalweg.core.sharding import Cut
from thalweg.core.stack import matrix_shape, row_keys


class SplitBucket(Bucket):
    """One sharded matrix. State of the matrix's shape is sharded as the weight is, other large state along its longest dimension; vectors stay whole.

    A step gathers the gradient, the weight and the state, runs the rule on the whole matrix everywhere, and keeps this process's shard.
    """

    is_local = False

    def __init__(self, params: list[Tensor], ids: list[int], plan: Plan, group: int) -> None:
        super().__init__(params, ids, plan, group)
        self.param = params[0]
        if self.param.is_complex():
            raise TypeError(f"{plan.rule.name}: sharded complex parameters are supported by elementwise rules only.")
        self.rule_shape = matrix_shape(self.param.shape, plan.layout, plan.split)
        start = plan.rule.init(torch.zeros(self.rule_shape, dtype=self.compute, device=self.device))
        self.inner = {name: tuple(x.shape) for name, x in start.items()}
        self.cuts = {name: self._cut(tuple(x.shape)) for name, x in start.items()}
        self.cuts["compensation"] = self._cut(self.rule_shape)
        for name, x in start.items():
            codec = self.choose(name, x.numel())
            if codec not in (FULL, BF16):
                self.codecs[name], self.reasons[name] = FULL, "a matrix that is sharded over processes has its state in fp32 or bf16"
            shard = self._shard(name, x).clone()
            self.stores.append((shard.to(torch.bfloat16) if self.codecs[name] is BF16 else shard,))
        self.kernel = self.form(indexed=False)
        if self.kernel.rounding == "kahan":
            self.stores.append((torch.zeros_like(self.param.to_local(), dtype=self.dtype),))  # type: ignore[attr-defined]
        self.index = row_keys([(salt(ids[0]), self.rule_shape[0])], math.prod(self.rule_shape[1:]), self.device) if self.kernel.noisy else None

    def stand_in(self) -> Piece:
        """Not asked for, since nothing is compiled."""
        raise RuntimeError("A sharded matrix has no compiled form.")

    def _cut(self, inner: tuple[int, ...]) -> Cut | None:
        """How a state of a shape lies on the processes; None for one that each of them holds whole."""
        if inner == self.rule_shape:
            return Cut.like(self.param)  # type: ignore[arg-type]
        if math.prod(inner) <= sum(self.rule_shape):
            return None
        return Cut.along(max(range(len(inner)), key=inner.__getitem__), inner, self.param)  # type: ignore[arg-type]

    def _shard(self, name: str, full: Tensor) -> Tensor:
        """This process's piece of a state."""
        cut = self.cuts[name]
        return full if cut is None else sharding.scatter(full.reshape(cut.shape), self.param, cut)

    def pieces(self, members: range, grads: list[Tensor], scratch: Scratch) -> Iterator[Piece]:
        """The kernel call on the gathered matrix; its results are cut back to shards by `targets` and `sources`."""
        w = sharding.whole(self.param.detach()).reshape(self.rule_shape).clone()
        g = sharding.whole(sharding.aligned(grads[0], self.param)).reshape(self.rule_shape)
        stores: Stores = []
        for name, (store,) in zip([*self.codecs, "compensation"], self.stores, strict=False):
            stores.append((sharding.whole(self._shown(name, store)).reshape(self.inner.get(name, self.rule_shape)).clone(),))
        yield SplitPiece(g, w, stores, self.index, bucket=self)

    def keep(self, piece: Piece) -> None:
        """Write this process's shards of the results."""
        sharding.local(self.param.detach()).copy_(sharding.scatter(piece.w.view(self.param.shape), self.param))
        for name, (store,), (full,) in zip([*self.codecs, "compensation"], self.stores, piece.stores, strict=False):
            store.copy_(self._shard(name, full))

    def _shown(self, name: str, store: Tensor) -> Tensor:
        """A state's storage, as a DTensor where it is sharded."""
        cut = self.cuts[name]
        return store if cut is None else cut.joined(store)

    def held(self, i: int) -> dict[str, tuple[Tensor, ...]]:
        """The storage, by state: DTensors where the state is sharded."""
        return {name: (self._shown(name, store),) for name, (store,) in zip([*self.codecs, "compensation"], self.stores, strict=False)}


class SplitPiece(Piece):
    """A piece whose results are cut into shards."""

    def __init__(self, g: Tensor, w: Tensor, stores: Stores, index: Tensor | None, *, bucket: SplitBucket) -> None:
        super().__init__(g, w, stores, index, compilable=False)
        self.bucket = bucket

    def scatter(self) -> None:
        """Keep this process's shards."""
        self.bucket.keep(self)

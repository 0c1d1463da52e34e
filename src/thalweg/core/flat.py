"""Buckets of elementwise rules: parameters as vectors, in the order of their memory.

Where a state is coded in blocks or anything is rounded stochastically, vectors are seen as [rows, 256] ("rowed"): parameters are packed at
multiples of 256, and the last elements of a large one, fewer than 256, are stepped apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from thalweg.core import sharding
from thalweg.core.buckets import Bucket, Piece, Plan, Scratch, is_ordinary, plain, widest
from thalweg.core.codecs import FULL
from thalweg.core.form import Stores
from thalweg.core.random import LANES, fold, salt


def is_dense(x: Tensor) -> bool:
    """Whether the tensor fills one piece of memory without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def flat(x: Tensor) -> Tensor:
    """A dense tensor as a vector, in the order of its memory."""
    return x.view(-1) if x.is_contiguous() else x.as_strided((x.numel(),), (1,))


class FlatBucket(Bucket):
    """One dense parameter without copies, or several packed ones."""

    def __init__(self, params: list[Tensor], ids: list[int], plan: Plan, group: int) -> None:
        super().__init__(params, ids, plan, group)
        tensors = [plain(p) for p in params]
        self.counts = [x.numel() for x in tensors]
        example = plan.rule.init(torch.zeros(2, dtype=self.compute, device=self.device))
        if nonzero := [name for name, x in example.items() if x.shape != (2,) or bool(x.any())]:
            raise ValueError(f"{plan.rule.name}: states of an elementwise rule start at zero and have the shape of w; {', '.join(nonzero)} does not.")
        most = [sharding.largest(x, p) for x, p in zip(tensors, params, strict=True)]
        block = max([self.choose(name, min(most)).block for name in example], default=1)
        self.ordinary = all(map(is_ordinary, params))
        self._places: dict[str, tuple[object, list[Tensor]]] = {}
        self.direct = len(params) == 1 and is_dense(tensors[0]) and self.counts[0] > LANES
        self.kernel = self.form(indexed=not self.direct)
        self.rowed = block > 1 or self.kernel.noisy
        lengths = [n + (-n % LANES if self.rowed else 0) for n in (most if block > 1 else self.counts)]
        lengths[-1] += max(0, 2 - sum(lengths))
        self.offsets = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        self.padded = lengths != self.counts
        inner = {x.shape[1:] if x.dim() > 0 else None for x in tensors}
        self.joined = None if self.padded or len(inner) > 1 else inner.pop()  # the shape of a row, where all parameters have the same
        for codec in self.codecs.values():
            held = codec.allocate(self.offsets[-1], self.device, self.compute)
            self.stores.append(tuple(self._seen(store) for store in held))
        if self.kernel.rounding == "kahan":
            self.stores.append((self._seen(torch.zeros(self.offsets[-1], dtype=self.dtype, device=self.device)),))
        self.index = self._keys() if self.kernel.noisy else None

    def _seen(self, store: Tensor) -> Tensor:
        """A vector as the kernel sees it."""
        return store.view(-1, LANES) if self.rowed and store.dim() == 1 else store

    def _keys(self) -> Tensor:
        counts = [1 if self.direct else n // LANES for n in (b - a for a, b in zip(self.offsets, self.offsets[1:], strict=False))]
        salts = [fold(salt(i), k) if (k := sharding.piece_number(p)) else salt(i) for p, i in zip(self.params, self.ids, strict=True)]
        rows = [torch.arange(n, dtype=torch.int64) + start for n, start in zip(counts, salts, strict=True)]
        keys = torch.cat(rows).to(torch.int32).to(self.device)
        return keys if self.direct else keys.unsqueeze(1)

    def pieces(self, members: range, grads: list[Tensor], scratch: Scratch) -> Iterator[Piece]:
        """The kernel calls for consecutive parameters with these gradients."""
        tensors = self.params[members.start : members.stop]
        if not self.ordinary:
            grads = [plain(sharding.aligned(g, p)) for g, p in zip(grads, tensors, strict=True)]
            tensors = [plain(p) for p in tensors]
        if not self.direct:
            yield self._packed(members, tensors, grads, scratch)
            return
        w, g = tensors[0], grads[0]
        if g.stride() != w.stride():
            g = torch.empty_like(w, dtype=g.dtype).copy_(g)
        w, g, n = flat(w), flat(g), self.counts[0]
        body = n - n % LANES if self.rowed else n
        main = self.stores if body == self.offsets[-1] else self.cut(0, body)
        front_g, front_w = (g, w) if body == n else (g[:body], w[:body])
        yield Piece(self._seen(front_g), self._seen(front_w), main, self.index, compilable=body >= 2 * LANES or not self.rowed)
        if body < n:
            tail_w, tail_g = (scratch.take(use, LANES, x).zero_() for use, x in (("w", w), ("g", g)))
            tail_w[: n - body].copy_(w[body:])
            tail_g[: n - body].copy_(g[body:])
            index = None if self.index is None else self.index + body // LANES
            rest = self.cut(body, body + LANES)
            yield Piece(self._seen(tail_g), self._seen(tail_w), rest, index, [], [w[body:]], [tail_w[: n - body]], compilable=False)

    def _packed(self, members: range, tensors: list[Tensor], grads: list[Tensor], scratch: Scratch) -> Piece:
        start, stop = self.offsets[members.start], self.offsets[members.stop]
        packed_w, packed_g = scratch.take("w", stop - start, tensors[0]), scratch.take("g", stop - start, widest(grads))
        if self.padded:
            packed_w.zero_()
            packed_g.zero_()
        inside_w = self._inside("w", packed_w, members, tensors)
        if self.joined is None:
            torch._foreach_copy_(inside_w, tensors)
            torch._foreach_copy_(self._inside("g", packed_g, members, tensors), grads)
        else:  # one copy instead of many
            torch.cat(tensors, out=packed_w.view(-1, *self.joined))
            torch.cat(grads, out=packed_g.view(-1, *self.joined))
        index = None if self.index is None else self.index[start // LANES : stop // LANES]
        fits = stop - start > (LANES if self.rowed else 1)
        return Piece(self._seen(packed_g), self._seen(packed_w), self.cut(start, stop), index, [], tensors, inside_w, fits)

    def _inside(self, use: str, packed: Tensor, members: range, tensors: list[Tensor]) -> list[Tensor]:
        """The places of tensors in a packed vector, in their shapes; kept from step to step while the vector is the same."""
        key = (packed.data_ptr(), packed.dtype, members)
        held = self._places.get(use)
        if held is None or held[0] != key:
            starts = [self.offsets[i] - self.offsets[members.start] for i in members]
            held = self._places[use] = (key, [packed[a : a + x.numel()].view(x.shape) for a, x in zip(starts, tensors, strict=True)])
        return held[1]

    def stand_in(self) -> Piece:
        """Vectors of 131,072 elements."""
        n = 1 << 17
        w, g = (self._seen(torch.zeros(n, dtype=self.dtype, device=self.device)) for _ in range(2))
        stores: Stores = [tuple(self._seen(store) for store in codec.allocate(n, self.device, self.compute)) for codec in self.codecs.values()]
        if self.kernel.rounding == "kahan":
            stores.append((torch.zeros_like(w),))
        index = None
        if self.kernel.noisy:
            index = torch.zeros((n // LANES, 1) if self.kernel.indexed else 1, dtype=torch.int32, device=self.device)
        return Piece(g, w, stores, index)

    def cut(self, start: int, stop: int) -> Stores:
        """The storage of the elements [start, stop)."""
        if (start, stop) == (0, self.offsets[-1]):
            return self.stores
        out = [codec.slices(held, start, stop) for codec, held in zip(self.codecs.values(), self.stores, strict=False)]
        if self.kernel.rounding == "kahan":
            out.append(FULL.slices(self.stores[-1], start, stop))
        return out

    def held(self, i: int) -> dict[str, tuple[Tensor, ...]]:
        """The storage of one parameter, by state, in the parameter's shape where it is stored element by element."""
        x, p = plain(self.params[i]), self.params[i]
        out: dict[str, tuple[Tensor, ...]] = {}
        for name, parts in zip([*self.codecs, "compensation"], self.cut(self.offsets[i], self.offsets[i + 1]), strict=False):
            if len(parts) == 1:
                one = parts[0].view(-1)[: self.counts[i]]
                shaped = one.as_strided(x.shape, x.stride()) if self.direct else one.view(x.shape)
                out[name] = (sharding.like(shaped, p),)
            else:
                out[name] = tuple(sharding.rows_of(part, p) for part in parts)
        return out

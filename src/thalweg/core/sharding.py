"""DTensor in and out: rules see plain tensors, the shard where that is enough and the whole where it is not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


def local(x: Tensor) -> Tensor:
    """This process's shard of a DTensor; any other tensor as it is."""
    return x.to_local() if isinstance(x, DTensor) else x


def aligned(g: Tensor, w: Tensor) -> Tensor:
    """The gradient laid out like its weight (a partial sum is reduced, another sharding is moved)."""
    if isinstance(w, DTensor) and isinstance(g, DTensor) and (g.placements != w.placements):
        return g.redistribute(w.device_mesh, w.placements)
    return g


def whole(x: Tensor) -> Tensor:
    """The full tensor on every process of the mesh."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def is_split(x: Tensor) -> bool:
    """Whether processes hold different pieces of the tensor."""
    return isinstance(x, DTensor) and any(isinstance(p, Shard | Partial) for p in x.placements)


def like(shard: Tensor, w: Tensor) -> Tensor:
    """A local tensor of a weight's shape, wrapped as the weight is; any other tensor as it is."""
    if not isinstance(w, DTensor) or shard.shape != w.to_local().shape:
        return shard
    return DTensor.from_local(shard, w.device_mesh, w.placements, run_check=False, shape=w.shape, stride=w.stride())


def scatter(full: Tensor, w: Tensor) -> Tensor:
    """This process's shard of a tensor that every process holds whole, cut as the weight is."""
    if not isinstance(w, DTensor):
        return full
    replicated = DTensor.from_local(full, w.device_mesh, [Replicate()] * w.device_mesh.ndim, run_check=False)
    return replicated.redistribute(w.device_mesh, w.placements).to_local()


def summed(x: Tensor, w: Tensor) -> Tensor:
    """A local contribution added up over the processes that hold different pieces of the weight."""
    if not isinstance(w, DTensor):
        return x
    mesh = w.device_mesh
    for dim, placement in enumerate(w.placements):
        if isinstance(placement, Shard):
            x = x.clone()
            torch.distributed.all_reduce(x, group=mesh.get_group(dim))
    return x

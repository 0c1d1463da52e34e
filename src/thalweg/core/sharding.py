"""DTensor in and out: rules see plain tensors, the shard where that is enough and the whole where it is not."""

from __future__ import annotations

import math

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


def placing(x: Tensor) -> object:
    """How processes share the tensor; None for a tensor of this process alone. Equal where sums over elements add up alike."""
    return (x.device_mesh, x.placements) if isinstance(x, DTensor) else None


def largest(shard: Tensor, w: Tensor) -> int:
    """Elements of the largest shard of w: what every process must agree on. `shard` is this process's, as the rules see it."""
    if not isinstance(w, DTensor):
        return shard.numel()
    shape = list(w.shape)
    for dim, placement in enumerate(w.placements):
        if isinstance(placement, Shard):
            shape[placement.dim] = -(-shape[placement.dim] // w.device_mesh.size(dim))
    return math.prod(shape) * (2 if w.is_complex() else 1)


def like(shard: Tensor, w: Tensor) -> Tensor:
    """A local tensor of a weight's shape, wrapped as the weight is; any other tensor as it is."""
    if not isinstance(w, DTensor) or shard.shape != w.to_local().shape:
        return shard
    return DTensor.from_local(shard, w.device_mesh, w.placements, run_check=False, shape=w.shape, stride=w.stride())


def rows_of(shard: Tensor, w: Tensor) -> Tensor:
    """Blocks of codes, as many on every process, as one tensor over the processes that hold pieces of the weight."""
    if not isinstance(w, DTensor):
        return shard
    placements = [Shard(0) if isinstance(p, Shard) else Replicate() for p in w.placements]
    return DTensor.from_local(shard, w.device_mesh, placements, run_check=False)


def scatter(full: Tensor, w: Tensor) -> Tensor:
    """This process's shard of a tensor that every process holds whole, cut as the weight is."""
    if not isinstance(w, DTensor):
        return full
    replicated = DTensor.from_local(full, w.device_mesh, [Replicate()] * w.device_mesh.ndim, run_check=False)
    return replicated.redistribute(w.device_mesh, w.placements).to_local()


def anywhere(flag: Tensor, tensors: list[Tensor]) -> Tensor:
    """Whether the flag is set on any of the processes that share one of the tensors."""
    meshes = {x.device_mesh: None for x in tensors if isinstance(x, DTensor)}
    for mesh in meshes:
        count = flag.to(device=mesh.device_type, dtype=torch.int32)
        for dim in range(mesh.ndim):
            torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX, group=mesh.get_group(dim))
        flag = count > 0
    return flag


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

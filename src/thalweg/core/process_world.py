"""ProcessWorld: the workers are processes of torch.distributed, on gloo or nccl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from thalweg.core.seal import as_bytes
from thalweg.core.world import World


class ProcessWorld(World):
    """This process among those of a process group.

    What travels is the tensors' bytes, so every dtype does. Sums are formed in the order of the ranks (each worker adds one slice of all
    tensors and the slices are gathered, the traffic of a ring), so they have the bits that simulated workers get.

    Args:
        group: the processes; None means all of them.
        timeout: seconds that a collective may take on the CPU. On GPUs the process group's own time-out holds.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, timeout: float = 300.0) -> None:
        if not dist.is_initialized():
            raise RuntimeError("ProcessWorld: no process group exists yet; call torch.distributed.init_process_group first, or simulate workers with "
                               "thalweg.core.thread_world.simulate.")
        self._group, self.timeout = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.sent = self.received = 0

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """Every worker's tensor, ordered by rank."""
        parts = self._gather("all_gather", x)
        self._count(x.nbytes, (self.size - 1) * x.nbytes)
        return parts

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over the workers, formed in the order of the ranks."""
        flat = x.detach().reshape(-1)
        each = -(-flat.numel() // self.size)
        mine = torch.cat([flat, flat.new_zeros(each * self.size - flat.numel())]).view(self.size, each)
        theirs = torch.empty_like(mine)
        with self._waiting("all_reduce") as works:
            works.append(dist.all_to_all_single(as_bytes(theirs), as_bytes(mine), group=self._group, async_op=True))
        total = theirs[0].clone()
        for part in theirs[1:]:
            total.add_(part)
        self._count(x.nbytes, x.nbytes)
        return torch.cat(self._gather("all_reduce", total))[: flat.numel()].view(x.shape)

    def broadcast(self, x: Tensor, source: int = 0) -> Tensor:
        """The tensor of worker `source`."""
        out = x.detach().clone(memory_format=torch.contiguous_format)
        with self._waiting("broadcast") as works:
            works.append(dist.broadcast(as_bytes(out), group_src=source, group=self._group, async_op=True))
        self._count(*((x.nbytes, 0) if self.rank == source else (0, x.nbytes)))
        return out

    def swap(self, out: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """A tensor from each neighbour named, for one that goes to it."""
        if wrong := [peer for peer in out if not 0 <= peer < self.size or peer == self.rank]:
            raise ValueError(f"swap on worker {self.rank} of {self.size}: {wrong} are no neighbours; name other workers.")
        sent = {peer: x.detach().contiguous() for peer, x in sorted(out.items())}
        found = {peer: torch.empty_like(x) for peer, x in sent.items()}
        operations = [dist.P2POp(dist.irecv, as_bytes(x), group=self._group, group_peer=peer) for peer, x in found.items()]
        operations += [dist.P2POp(dist.isend, as_bytes(x), group=self._group, group_peer=peer) for peer, x in sent.items()]
        with self._waiting("swap") as works:
            works.extend(dist.batch_isend_irecv(operations) if operations else [])
        self._count(sum(x.nbytes for x in sent.values()), sum(x.nbytes for x in found.values()))
        return found

    def barrier(self) -> None:
        """Wait for all."""
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(self._group) == "nccl" else torch.device("cpu")
        self._gather("barrier", torch.zeros(1, dtype=torch.uint8, device=device))

    def _gather(self, what: str, x: Tensor) -> list[Tensor]:
        mine = x.detach().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with self._waiting(what) as works:
            works.append(dist.all_gather([as_bytes(part) for part in parts], as_bytes(mine), group=self._group, async_op=True))
        return parts

    @contextmanager
    def _waiting(self, what: str) -> Iterator[list[Any]]:
        """Wait for the works that the block appends; what goes wrong, at the start or later, is one sentence."""
        works: list[Any] = []
        try:
            yield works
            for work in works:
                if dist.get_backend(self._group) == "nccl":
                    work.wait()
                else:
                    work.wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            late = "timed out" in str(error).lower()
            why = f"some workers did not answer within the time-out of {self.timeout:g} s" if late else "a worker has ended or its connection broke"
            raise RuntimeError(f"{what} on worker {self.rank} of {self.size}: {why}; restart all workers from their last checkpoint "
                               f"({str(error).splitlines()[0]}).") from error

    def _count(self, sent: int, received: int) -> None:
        if self.size > 1:
            self.sent, self.received = self.sent + sent, self.received + received

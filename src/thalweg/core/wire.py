"""What all workers give at once: compressed payloads in one sealed message, and means of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.core.compressor import Payload
from thalweg.core.seal import seal, unseal
from thalweg.core.world import World


def gather(world: World, payloads: Sequence[Payload], number: int) -> list[list[Payload]]:
    """Every worker's payloads, ordered by rank, in one collective.

    Args:
        world: the workers.
        payloads: this worker's; the others' have the same shapes and dtypes.
        number: of the step, the same on all workers.

    Raises:
        RuntimeError: a message was changed on its way, or a worker is in another step.
    """
    flat = [part for payload in payloads for part in payload]
    out = []
    for source, message in enumerate(world.all_gather(seal(flat, number))):
        parts = iter(unseal(message, flat, number, source))
        out.append([tuple(next(parts) for _ in payload) for payload in payloads])
    return out


def mean(world: World, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over the workers of each of these tensors of one dtype, in one collective."""
    if not tensors:
        return []
    total = world.all_reduce(torch.cat([x.reshape(-1) for x in tensors])) / world.size
    parts = torch.split(total, [x.numel() for x in tensors])
    return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]

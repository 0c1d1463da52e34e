"""Sealed messages: bytes that carry their round and a checksum, so that a corrupt or misplaced message is an error and never a wrong number."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core.world import World

TAIL = 16
"""Bytes that a message is longer than what it carries: the number of the round and the checksum."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32, 16: torch.int32}


def as_bytes(x: Tensor) -> Tensor:
    """The memory of a contiguous tensor, as a view."""
    return x.view(-1).view(torch.uint8)


def checksum(x: Tensor) -> Tensor:
    """A 64-bit sum of x's words, each times its odd number 2i + 1 modulo 2^64, computed where x lies: any one changed word changes it.

    Two words changed at once escape only if their changes cancel exactly.
    """
    words = x.detach().contiguous().reshape(-1).view(_WORDS[x.element_size()]).to(torch.int64)
    return (words * (2 * torch.arange(len(words), device=x.device) + 1)).sum()


def seal(tensors: list[Tensor], number: int) -> Tensor:
    """Tensors as one message of bytes, with the number of the round and a checksum at its end."""
    body = torch.cat([as_bytes(x.detach().contiguous()) for x in tensors])
    tail = torch.stack([torch.tensor(number, device=body.device), checksum(body)])
    return torch.cat([body, tail.view(torch.uint8)])


def unseal(message: Tensor, like: list[Tensor], number: int, sender: int) -> list[Tensor]:
    """The tensors of a message, in the shapes and dtypes of `like`.

    Raises:
        RuntimeError: the message is of another size or another round, or was changed on its way.
    """
    sizes = [x.numel() * x.element_size() for x in like]
    if message.dtype != torch.uint8 or message.numel() != sum(sizes) + TAIL:
        found = f"{message.numel()} elements of {message.dtype}"
        raise RuntimeError(f"The message of worker {sender} has {found}, expected {sum(sizes) + TAIL} bytes; give all workers the same model.")
    body, tail = message[:-TAIL].contiguous(), message[-TAIL:].clone().view(torch.int64).tolist()
    if tail[1] != int(checksum(body)):
        why = "was corrupted on its way: its checksum differs. Resume from the last checkpoint."
        raise RuntimeError(f"The message of worker {sender} in round {number} {why}")
    if tail[0] != number:
        raise RuntimeError(f"Worker {sender} is in round {tail[0]} and this one in round {number}; load the same checkpoint on all workers.")
    return [part.clone().view(x.dtype).view(x.shape) for part, x in zip(torch.split(body, sizes), like, strict=True)]


def same_model(owner: str, world: World, tensors: list[Tensor]) -> None:
    """Make sure, before anything of a model travels, that all workers hold as many numbers.

    Raises:
        ValueError: they do not.
    """
    numbers = torch.tensor([sum(x.numel() for x in tensors)], device=tensors[0].device if tensors else "cpu")
    every = [int(x) for x in world.all_gather(numbers)]
    if other := [i for i, n in enumerate(every) if n != every[0]]:
        raise ValueError(f"{owner}: all workers must hold one model; worker {other[0]} has {every[other[0]]} numbers and worker 0 has {every[0]}.")

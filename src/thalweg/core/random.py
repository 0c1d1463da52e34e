"""Random numbers without global state: rounding noise from a counter, and probe vectors from a Generator.

Rounding noise is a function of (element, seed, stream) alone, so a step gives the same bits eager or compiled, in one call or in slices, and
on any device. Element e = 256 i + l of a flat tensor gets the 32-bit word

    n(i, l) = a_i l + b_i  (mod 2^32),   a_i, b_i = mix(i, seed, stream)        (multiply-shift; Dietzfelbinger, STACS 1996)

For independent uniform a_i and b_i the top 25 bits of n are uniform and any two elements of a row of 256 are independent; both come, as do
rows, steps and streams, from `mix`, the 32-bit finaliser "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018). One multiplication
per element keeps stochastic rounding cheap: with a full mix per element noise took a third of a compiled 8-bit AdamW step, now a tenth.
Arithmetic is int32 and wraps (two's complement), which torch does on every device; right shifts are masked, so their sign does not matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LANES = 256
"""Elements that share one pair (a, b); a power of two."""

PART = 65_536
"""Elements that are made normal at once outside of a compiled function."""

_GOLDEN = 0x9E3779B9
_SHIFT = LANES.bit_length() - 1


def _signed(x: int) -> int:
    """The int32 with the same low 32 bits as x."""
    return (x + 2**31) % 2**32 - 2**31


_MIX1, _MIX2 = 0x7FEB352D, _signed(0x846CA68B)
_FIRST, _SECOND = _signed(_GOLDEN), 0x68E31DA4  # keep row 0 of seed 0 away from mix(0) = 0, and b apart from a


def mix(x: Tensor) -> Tensor:
    """lowbias32: a bijection of int32 words in which each input bit changes each output bit with probability close to 1/2."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _MIX1
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _MIX2
    return x ^ ((x >> 16) & 0xFFFF)


def mix_int(x: int) -> int:
    """`mix` of one Python integer (its low 32 bits), as a signed 32-bit integer."""
    x %= 2**32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return _signed(x ^ (x >> 16))


def fold(*words: int) -> int:
    """One int32 seed from several integers (user's seed, step, tensor's number, stream...), on the host; order matters.

    Each integer is used with all its bits, 32 at a time.
    """
    seed = 0
    for word in words:
        while True:
            seed = mix_int(seed * 31 + (word % 2**32) + _GOLDEN)
            word >>= 32
            if word in (0, -1):
                break
    return seed


def salt(number: int) -> int:
    """The first row's key of the tensor with this number: keys of different tensors lie far apart, with near certainty."""
    return fold(number, 1)


def hash_noise(x: Tensor, seed: Tensor | int, first: Tensor | int = 0) -> Tensor:
    """Rounding noise for the elements of x: int32 words of x's shape, of which the top 25 bits are uniform.

    Args:
        x: only shape and device are used. Shape [rows, 256] is the fast layout; any other shape is numbered in row-major order and gives each element
            the word that it has in the fast layout.
        seed: int32 value (0-d int32 tensor, or Python int) that differs per step, tensor and stream; make it with `fold`.
        first: number of x's first element in the whole tensor, when x is a slice; a multiple of 256 for the fast layout.
    """
    start = first >> _SHIFT
    if x.dim() == 2 and x.shape[1] == LANES:
        row = (torch.arange(x.shape[0], dtype=torch.int32, device=x.device) + start).unsqueeze(1)
        lane = lanes(x.device)
    else:
        index = (torch.arange(x.numel(), dtype=torch.int32, device=x.device) + first).view(x.shape)
        row, lane = index >> _SHIFT, index & (LANES - 1)
    return words(row, lane, seed)


def words(row: Tensor, lane: Tensor, seed: Tensor | int) -> Tensor:
    """The word of each (row, lane), which broadcast: what `hash_noise` numbers for itself, for callers with rows of their own.

    Args:
        row: int32 keys of rows.
        lane: int32 in [0, 256).
        seed: as in `hash_noise`.
    """
    a = mix(row ^ seed ^ _FIRST)
    b = mix(a ^ _SECOND)
    return a * lane + b


def lanes(device: torch.device) -> Tensor:
    """The int32 numbers 0 to 255, in the form that is fast in a compiled function."""
    if device.type == "cpu" and torch.compiler.is_compiling():
        return torch.tensor(list(range(LANES)), dtype=torch.int32)  # a table: inductor builds an int32 arange from 16 scalars per vector
    return torch.arange(LANES, dtype=torch.int32, device=device)


def normal_from(first: Tensor, second: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers from two words each: sqrt(-2 ln u) cos(2 pi v) (Box and Muller, 1958), u in (0, 1], v in [0, 1), in steps of 2^-24.

    The words are mixed once more: those of a row are independent two by two, which is enough for rounding and not for sums of products.
    """
    u = (((mix(first) >> 8) & 0xFFFFFF) + 1).to(dtype) / 2.0**24
    v = ((mix(second) >> 8) & 0xFFFFFF).to(dtype) / 2.0**24
    return torch.sqrt(-2.0 * torch.log(u)) * torch.cos(2.0 * math.pi * v)


def normals(first: Tensor, second: Tensor, dtype: torch.dtype) -> Tensor:
    """`normal_from`, for large tensors outside of a compiled function in parts that stay in cache."""
    if torch.compiler.is_compiling() or first.numel() <= PART:
        return normal_from(first, second, dtype)
    parts = zip(torch.split(first.flatten(), PART), torch.split(second.flatten(), PART), strict=True)
    return torch.cat([normal_from(a, b, dtype) for a, b in parts]).view(first.shape)


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs, -1 or +1 with probability 1/2 each, in the shape, dtype and device of `like`."""
    bits = torch.randint(0, 2, like.shape, generator=generator, device=generator.device, dtype=torch.int8)
    return (2 * bits - 1).to(device=like.device, dtype=like.dtype)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent standard normal numbers (complex: E|z|^2 = 1), in the shape, dtype and device of `like`."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)

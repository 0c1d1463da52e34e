"""How optimizer state is stored: fp32, bf16, or 8-bit and 4-bit codes in blocks. Compute stays fp32 (fp64 with fp64 weights).

**Layout.** A codec stores a flat state of n elements; the engine pads n to a multiple of `codec.block` (1, or BLOCK = 256). Block codes
hold [rows, 256] bytes (4 bit: [rows, 128]) and [rows, 1] fp32 scales, and see the state as [rows, 256]. A compiled kernel must be *called* on
such views of gradient, weights and stores (also of fp32 and bf16 stores beside block codes; see `rows`) and compiled with COMPILE_OPTIONS: a
view taken inside it, or inductor's usual limits on fusion, send intermediates through memory (measured: 3 to 10 times slower). It then makes two
passes over each row, one that recomputes the new state for its maximum and one that computes and stores. Call it on whole tensors; smaller
pieces gain nothing.

**Block code.** s is the smallest power of two with max|x| <= s top. With y = |x| / s, code q is the top bits of the float y + 1 (E exponent
and M mantissa bits):

    value(q) = s (2^e (1 + k / 2^M) - 1),   q = 2^M e + k

which is mu-law in binades: code 0 is 0, neighbours differ by s / 2^M near 0 and by at most a 2^-M of the value (plus s) above. Coding is a
multiplication, an addition and a shift: no logarithm, root or table. Signed codes keep the sign in the first bit. Rounding adds bits below the
last kept one before the shift: random ones (stochastic) or one half (nearest). Neighbours are equally spaced under each exponent, so
stochastic rounding is unbiased: the decoded value's expectation is x, to 2^-19 of a step. It is the default because with b2 = 0.999 a second
moment moves by less than a step: rounded to nearest, 8-bit v settles near 0.4 v and AdamW's step is off by half (measured on 256 elements
whose scales spread by e^0.5 to e^2); stochastic, by 13 %. With both moments in 4 bit it is off by about its own size: prefer 8 bit.

Non-negative codes never store a positive x as 0: below code 1 it becomes code 1 (the one biased case, upwards, in 8 bit below 2^-34 of the
block's maximum), because a second moment of zero turns the update into m / eps. Zero stays zero.

**Not finite.** By definition a block that holds NaN or Inf decodes to NaN, all of it, and at every later step: visible, never rounded away.
bf16 keeps each NaN as NaN and each Inf as Inf.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from thalweg.core.random import LANES, lanes
from thalweg.core.rounding import to_bfloat16

BLOCK = 256
"""Elements that share a scale, and width of the 2-D layout."""

COMPILE_OPTIONS: Mapping[str, bool | int] = {"realize_opcount_threshold": 10_000, "realize_reads_threshold": 10_000}
"""Inductor options without which it writes long chains of arithmetic to memory instead of fusing them."""

Stores = tuple[Tensor, ...]

_ONE = 0x3F800000  # bits of 1.0f
_INF, _NAN = 0x7F800000, 0x7FC00000


def rows(x: Tensor) -> Tensor:
    """The [n / 256, 256] view of a flat tensor of n elements; 2-D tensors as they are."""
    return x if x.dim() == 2 else x.view(-1, BLOCK)


class Codec(ABC):
    """How one state is stored. Stateless; `decode` and `encode` are pure functions of tensors and may be compiled."""

    name: ClassVar[str]
    block: ClassVar[int] = 1
    stochastic: bool = False

    @abstractmethod
    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        """Storage of n zeros (n a multiple of `block`)."""

    @abstractmethod
    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        """The state in `dtype`, in the stores' layout: flat or [rows, 256]."""

    @abstractmethod
    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        """What to copy into the stores to keep x: to nearest, or stochastically with `noise` (int32 words of x's shape from `hash_noise`)."""

    @abstractmethod
    def bytes(self, n: int) -> int:
        """Bytes of storage for n elements (n a multiple of `block`) with fp32 compute."""

    def slices(self, stores: Stores, a: int, b: int) -> Stores:
        """Views of the stores that hold elements a to b of the flat state (multiples of `block`; of 256 where stores are 2-D)."""
        return tuple(s[a // BLOCK : b // BLOCK] if s.dim() == 2 else s[a:b] for s in stores)


@dataclass(frozen=True)
class Full(Codec):
    """fp32, or fp64 with fp64 weights."""

    name: ClassVar[str] = "fp32"

    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        """Storage of n zeros."""
        return (torch.zeros(n, device=device, dtype=compute_dtype),)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        """The state in `dtype`."""
        return stores[0].to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        """What to copy into the stores to keep x."""
        return (x,)

    def bytes(self, n: int) -> int:
        """Bytes of storage for n elements."""
        return 4 * n


@dataclass(frozen=True)
class BFloat16(Codec):
    """bf16, rounded stochastically so that changes smaller than a step are kept in expectation."""

    name: ClassVar[str] = "bf16"
    stochastic: bool = True

    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        """Storage of n zeros."""
        return (torch.zeros(n, device=device, dtype=torch.bfloat16),)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        """The state in `dtype`."""
        return stores[0].to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        """What to copy into the stores to keep x."""
        return (to_bfloat16(x, noise),)

    def bytes(self, n: int) -> int:
        """Bytes of storage for n elements."""
        return 2 * n


@dataclass(frozen=True)
class BlockCode(Codec):
    """Blockwise absmax code: see the module's text. Use the named instances.

    Args:
        name: as in `state_precision`.
        exponent: exponent bits E (2^E binades).
        mantissa: mantissa bits M.
        signed: whether the state takes both signs (one bit more).
        stochastic: whether the engine should pass noise.
    """

    name: str  # type: ignore[misc]
    exponent: int
    mantissa: int
    signed: bool
    stochastic: bool = True
    block: ClassVar[int] = BLOCK
    _top_bits: int = field(init=False, repr=False, compare=False)  # of `top` in fp32; kept, since a compiler cannot look into struct

    def __post_init__(self) -> None:
        object.__setattr__(self, "_top_bits", int.from_bytes(struct.pack("<f", self.top), "little"))

    @property
    def bits(self) -> int:
        """Bits per element without the scale."""
        return self.exponent + self.mantissa + self.signed

    @property
    def top(self) -> float:
        """Largest value over scale."""
        return math.ldexp(2 - math.ldexp(1, -self.mantissa), 2**self.exponent - 1) - 1

    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        """Storage of n zeros."""
        if n % BLOCK:
            raise ValueError(f"{self.name} state is stored in blocks of {BLOCK}; found {n} elements. Pad to a multiple.")
        codes = torch.zeros(n // BLOCK, BLOCK * self.bits // 8, device=device, dtype=torch.uint8)
        return codes, torch.zeros(n // BLOCK, 1, device=device, dtype=torch.float32)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        """The state in `dtype`."""
        codes, scale = stores
        if codes.shape[1] != BLOCK * self.bits // 8:  # also tells the compiler that the width is a constant
            raise ValueError(f"{self.name} codes have {BLOCK * self.bits // 8} bytes per row; found {codes.shape[1]}.")
        q = codes.to(torch.int32)
        if self.bits == 4:
            half = (lanes(q.device) >> (LANES.bit_length() - 2)) << 2  # 0 in the first half of a row, 4 in the second
            q = (q.repeat(1, 2) >> half) & 15
        sign = 1 << (self.bits - 1)
        if self.signed:  # the code's first bit becomes the sign bit of the scale
            scale = (scale.view(torch.int32) ^ ((q & sign) << (32 - self.bits))).view(torch.float32)
            q = q & (sign - 1)
        return ((((q << (23 - self.mantissa)) + _ONE).view(torch.float32) - 1) * scale).to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        """What to copy into the stores to keep x."""
        x = rows(x.float())
        if x.shape[1] != BLOCK:
            raise ValueError(f"{self.name} codes a state of shape [rows, {BLOCK}]; found {list(x.shape)}.")
        bits = x.view(torch.int32)
        # The order of floats is that of their bits, so the shifted difference is ceil(log2(peak / top)) - 1; NaN and Inf have the largest bits.
        peak = x.abs().amax(1, keepdim=True).view(torch.int32) & 0x7FFFFFFF  # a compiled amax may set the sign of a NaN
        exponent = (((peak - self._top_bits - 1) >> 23) + 128).clamp(5, 253)  # so that neither the scale nor code 1 is subnormal
        inverse = ((254 - exponent) << 23).view(torch.float32)
        scale = torch.where(peak < _INF, exponent << 23, _NAN).view(torch.float32)

        drop = 23 - self.mantissa
        below = 1 << (drop - 1) if noise is None else (noise >> (32 - drop)) & ((1 << drop) - 1)
        y = x * inverse
        q = (((y.abs() + 1).view(torch.int32) - _ONE) + below) >> drop
        sign = (y.view(torch.int32) >> (32 - self.bits)) & (1 << (self.bits - 1))
        q = q | sign if self.signed else torch.maximum(q, bits.clamp(max=1))  # at least code 1 where x > 0
        if self.bits == 4:
            q = (q[:, : BLOCK // 2] & 15) | (q[:, BLOCK // 2 :] << 4)
        return q.to(torch.uint8), scale  # the cast keeps the low 8 bits; only blocks that are not finite have more

    def bytes(self, n: int) -> int:
        """Bytes of storage for n elements."""
        return n * self.bits // 8 + 4 * (n // BLOCK)


FULL = Full()
BF16 = BFloat16()


def EightBit(signed: bool, stochastic: bool = True) -> BlockCode:
    """8 bit: sign, E4M3 for signed states (values over 2^19), E5M3 for non-negative ones (over 2^35). 1.016 bytes per element."""
    return BlockCode("8bit", 4 if signed else 5, 3, signed, stochastic)


def FourBit(signed: bool, stochastic: bool = True) -> BlockCode:
    """4 bit, two per byte: sign, E3M0 for signed states, E3M1 for non-negative ones. 0.516 bytes per element."""
    return BlockCode("4bit", 3, 0 if signed else 1, signed, stochastic)

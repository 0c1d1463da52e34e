"""How optimizer state is stored: fp32, bf16, or 8-bit and 4-bit codes in blocks. Compute is always fp32 (fp64 with fp64 weights); only storage narrows.

**Layout.** A codec stores a flat state of n elements; the engine pads n to a multiple of `codec.block` (1 or BLOCK = 256). For a bucket in which any codec
has block 256 or is stochastic, the kernel must be called on 2-D views [n / 256, 256] of gradient, weights and stores (`rows`); a view taken inside the
compiled function makes inductor write every intermediate to memory (measured: 3 to 10 times slower). Block codes hold [rows, 256] (4 bit: [rows, 128])
codes and [rows, 1] fp32 scales. Compile with COMPILE_OPTIONS added to the others.

**Block code.** s is a power of two, the smallest with max|x| / s <= top of the code. With y = |x| / s, the code q is the top bits of the float y + 1
(E exponent and M mantissa bits):

    value(q) = s (2^e (1 + k / 2^M) - 1),  q = 2^M e + k          (mu-law in binades: 0 is code 0, relative steps at most 2^-M above s)

so encoding and decoding are a shift and an addition, without logarithm, root or table. A power-of-two s makes decode(encode(decode(.))) exact: a state
that does not change is not disturbed by rounding. Stochastic rounding adds uniform bits below the last kept bit before the shift. Neighbouring codes are
equally spaced under one exponent, so the expectation of the decoded value is x (to 2^-19 of a step).
Signed codes keep the sign beside the magnitude. Non-negative codes never store a positive x as 0: below half of code 1 it becomes code 1 (the one biased case,
upwards, at less than 2^-20 of the block's maximum in 8 bit), because a second moment rounded to zero turns the update into m / eps.

**Not finite.** A block that holds NaN or Inf has scale NaN, so all of it decodes to NaN, in every later step too: visible, never rounded away. bf16 keeps each NaN
as NaN and each Inf as Inf.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

BLOCK = 256
"""Elements that share a scale, and width of the 2-D layout."""

SMALL = 4096
"""Tensors with fewer elements keep full-precision state: nothing to save, and often biases and norms."""

COMPILE_OPTIONS: Mapping[str, bool | int] = {"realize_opcount_threshold": 10_000, "realize_reads_threshold": 10_000}
"""Inductor options without which it writes long chains of arithmetic to memory instead of fusing them."""

PRECISIONS = ("fp32", "bf16", "8bit", "4bit")

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
        """What to copy into the stores to keep x. `noise` (int32 words of x's shape from `hash_noise`) makes rounding stochastic; None rounds to nearest."""

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
        return (torch.zeros(n, device=device, dtype=compute_dtype),)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        return stores[0].to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        return (x,)

    def bytes(self, n: int) -> int:
        return 4 * n


@dataclass(frozen=True)
class BFloat16(Codec):
    """bf16, rounded stochastically so that changes smaller than a step are kept in expectation."""

    name: ClassVar[str] = "bf16"
    stochastic: bool = True

    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        return (torch.zeros(n, device=device, dtype=torch.bfloat16),)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        return stores[0].to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        return (to_bfloat16(x, noise),)

    def bytes(self, n: int) -> int:
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

    @property
    def bits(self) -> int:
        """Bits per element without the scale."""
        return self.exponent + self.mantissa + self.signed

    @property
    def top(self) -> float:
        """Largest value over scale."""
        return 2.0 ** (2**self.exponent - 1) * (2 - 2.0**-self.mantissa) - 1

    def allocate(self, n: int, device: torch.device, compute_dtype: torch.dtype = torch.float32) -> Stores:
        if n % BLOCK:
            raise ValueError(f"{self.name} state is stored in blocks of {BLOCK}; found {n} elements. Pad to a multiple.")
        codes = torch.zeros(n // BLOCK, BLOCK * self.bits // 8, device=device, dtype=torch.uint8)
        return codes, torch.zeros(n // BLOCK, 1, device=device, dtype=torch.float32)

    def decode(self, stores: Stores, dtype: torch.dtype = torch.float32) -> Tensor:
        codes, scale = stores
        if codes.shape[1] != BLOCK * self.bits // 8:  # also tells the compiler that the width is a constant
            raise ValueError(f"{self.name} codes have {BLOCK * self.bits // 8} bytes per row; found {codes.shape[1]}.")
        q = codes.to(torch.int32)
        if self.bits == 4:
            q = torch.cat((q & 15, q >> 4), 1)
        sign = 1 << (self.bits - 1)
        if self.signed:  # the code's first bit becomes the sign bit of the scale
            scale = (scale.view(torch.int32) ^ ((q & sign) << (32 - self.bits))).view(torch.float32)
            q = q & (sign - 1)
        return ((((q << (23 - self.mantissa)) + _ONE).view(torch.float32) - 1) * scale).to(dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Stores:
        x = rows(x.float())
        bits = x.view(torch.int32)
        # The order of floats is that of their bits, so the shifted difference is floor(log2(peak / top)); NaN and Inf have the largest bits.
        peak = x.abs().amax(1, keepdim=True).view(torch.int32)
        exponent = (((peak - self._top_bits) >> 23) + 128).clamp(28, 253)
        inverse = ((254 - exponent) << 23).view(torch.float32)
        scale = torch.where(peak < _INF, exponent << 23, _NAN).view(torch.float32)

        drop = 23 - self.mantissa
        below = 1 << (drop - 1) if noise is None else (noise >> (32 - drop)) & ((1 << drop) - 1)
        y = x * inverse
        q = (((y.abs() + 1).view(torch.int32) - _ONE) + below) >> drop
        if self.signed:
            q = q | ((y.view(torch.int32) >> (32 - self.bits)) & (1 << (self.bits - 1)))
        else:
            q = torch.maximum(q, bits.clamp(max=1))  # at least code 1 where x > 0
        if self.bits == 4:
            q = (q[:, : BLOCK // 2] & 15) | (q[:, BLOCK // 2 :] << 4)
        return q.to(torch.uint8), scale  # the cast keeps the low 8 bits; only blocks that are not finite have more

    @property
    def _top_bits(self) -> int:
        return struct.unpack("<i", struct.pack("<f", self.top))[0]

    def bytes(self, n: int) -> int:
        return n * self.bits // 8 + 4 * (n // BLOCK)


FULL = Full()
BF16 = BFloat16()


def EightBit(signed: bool, stochastic: bool = True) -> BlockCode:
    """8 bit: sign, E4M3 for signed states, E4M4 for non-negative ones. 1.016 bytes per element."""
    return BlockCode("8bit", 4, 3 if signed else 4, signed, stochastic)


def FourBit(signed: bool, stochastic: bool = True) -> BlockCode:
    """4 bit, two per byte: sign, E2M1 for signed states, E3M1 for non-negative ones. 0.516 bytes per element."""
    return BlockCode("4bit", 2 if signed else 3, 1, signed, stochastic)


def to_bfloat16(x: Tensor, noise: Tensor | None = None) -> Tensor:
    """x in bf16: nearest (ties to even), or stochastic with noise (int32 words). NaN stays NaN, Inf stays Inf; a finite number may round to Inf."""
    if noise is None:
        return x.to(torch.bfloat16)
    x = x.float()
    bits = x.view(torch.int32)
    kept = ((bits + ((noise >> 16) & 0xFFFF)) & -0x10000).view(torch.float32)
    return torch.where((bits & _INF) == _INF, x, kept).to(torch.bfloat16)


def to_float16(x: Tensor, noise: Tensor | None = None) -> Tensor:
    """x in fp16: nearest, or stochastic with noise. NaN stays NaN, Inf stays Inf; numbers beyond 65504 become Inf as torch's own cast does."""
    if noise is None:
        return x.to(torch.float16)
    x = x.float()
    # A step is 2^-10 of the binade, and 2^-24 below the normal range: floor and remainder are exact in fp32 after scaling by the step.
    exponent = (x.view(torch.int32) & _INF).clamp(min=113 << 23, max=254 << 23)
    step = (exponent - (10 << 23)).view(torch.float32)
    scaled = x / step
    low = scaled.floor()
    up = ((noise >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24 < scaled - low
    kept = torch.where(up, low + 1, low) * step
    return torch.where(torch.isfinite(x), kept, x).to(torch.float16)


def round_weights(w: Tensor, dtype: torch.dtype, noise: Tensor | None, mode: str) -> Tensor:
    """New weights, computed in fp32, in the storage dtype (bf16 or fp16; other dtypes are cast).

    Args:
        w: new weights in compute precision.
        dtype: dtype of the parameter.
        noise: int32 words of w's shape, for mode "stochastic".
        mode: "nearest" or "stochastic" ("kahan" has a state: `kahan_write`).
    """
    if mode == "nearest" or dtype not in (torch.bfloat16, torch.float16):
        return w.to(dtype)
    if mode != "stochastic":
        raise ValueError(f"weight_rounding must be 'nearest', 'stochastic' or 'kahan' (see kahan_write); found {mode!r}.")
    if noise is None:
        raise ValueError("Stochastic rounding needs noise; make it with hash_noise.")
    return to_bfloat16(w, noise) if dtype == torch.bfloat16 else to_float16(w, noise)


def kahan_read(w: Tensor, compensation: Tensor) -> Tensor:
    """The weights that a pair stands for: w + compensation, in fp32."""
    return w.float() + compensation.float()


def kahan_write(w: Tensor, compensation: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """New weights split into the parameter (nearest in its dtype) and what that leaves over (in the compensation's dtype).

    Read with `kahan_read`. Where the weight is not finite the compensation is 0, so that w + compensation stays as it is.
    """
    low = new.to(w.dtype)
    rest = new - low.to(new.dtype)
    return low, torch.where(torch.isfinite(rest), rest, 0.0).to(compensation.dtype)


def parse_precision(
    spec: str | Mapping[str, str] | None, state_names: Iterable[str], nonnegative: Iterable[str] = ()
) -> dict[str, Codec]:
    """The codec of each named state.

    Args:
        spec: None (full), one of PRECISIONS for all states, or a mapping from state names to these; states it leaves out are full.
        state_names: the rule's states.
        nonnegative: those of them that are never negative.

    Raises:
        ValueError: an unknown precision or state name; the message gives the accepted ones.
        TypeError: spec is neither None, str nor mapping.
    """
    names, positive = tuple(state_names), frozenset(nonnegative)
    if spec is None or isinstance(spec, str):
        wanted = dict.fromkeys(names, spec)
    elif isinstance(spec, Mapping):
        unknown = [name for name in spec if name not in names]
        if unknown:
            raise ValueError(f"state_precision names unknown state{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}; this rule has {_list(names)}.")
        wanted = {name: spec.get(name) for name in names}
    else:
        raise TypeError(f"state_precision must be None, one of {_list(PRECISIONS)}, or a mapping from state names to these; found {spec!r}.")
    return {name: _codec(name, value, name not in positive) for name, value in wanted.items()}


def fallback_reason(codec: Codec, numel: int) -> str | None:
    """Why a tensor of numel elements keeps full-precision state although `codec` was asked for, or None."""
    if isinstance(codec, Full) or numel >= SMALL:
        return None
    return f"{numel} elements: fewer than {SMALL}"


def _codec(name: str, value: object, signed: bool) -> Codec:
    if value is None or value == "fp32":
        return FULL
    if value == "bf16":
        return BF16
    if value == "8bit":
        return EightBit(signed)
    if value == "4bit":
        return FourBit(signed)
    raise ValueError(f"state_precision of {name!r} must be None or one of {_list(PRECISIONS)}; found {value!r}.")


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "no state"

"""16-bit weights: nearest and stochastic rounding, and Kahan compensation. NaN and Inf are kept as they are, whatever their bits."""

from __future__ import annotations

import torch
from torch import Tensor

_INF = 0x7F800000  # bits of fp32 infinity, and the mask of the exponent


def to_bfloat16(x: Tensor, noise: Tensor | None = None) -> Tensor:
    """x in bf16: nearest, ties to even, or stochastic with noise (int32 words of x's shape). A finite number near the largest may round to Inf."""
    if noise is None:
        return x.to(torch.bfloat16)
    x = x.float()
    bits = x.view(torch.int32)
    kept = ((bits + ((noise >> 16) & 0xFFFF)) & -0x10000).view(torch.float32)
    return torch.where((bits & _INF) == _INF, x, kept).to(torch.bfloat16)


def to_float16(x: Tensor, noise: Tensor | None = None) -> Tensor:
    """x in fp16: nearest, or stochastic with noise (int32 words of x's shape). Numbers beyond 65504 become Inf, as in torch's own cast."""
    if noise is None:
        return x.to(torch.float16)
    x = x.float()
    step = _step_of_float16(x.view(torch.int32))
    low = (x / step).floor()
    up = ((noise >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24 < x / step - low
    return torch.where(torch.isfinite(x), torch.where(up, low + 1, low) * step, x).to(torch.float16)


def round_weights(w: Tensor, dtype: torch.dtype, noise: Tensor | None, mode: str) -> Tensor:
    """New weights, computed in fp32, in the parameter's dtype (other dtypes than bf16 and fp16 are cast).

    Args:
        w: new weights at compute precision.
        dtype: dtype of the parameter.
        noise: int32 words of w's shape from `hash_noise`, for mode "stochastic".
        mode: "nearest" or "stochastic" ("kahan" has a state of its own: `kahan_write`).

    Raises:
        ValueError: another mode, or "stochastic" without noise.
    """
    if mode == "nearest" or (mode == "stochastic" and dtype not in (torch.bfloat16, torch.float16)):
        return w.to(dtype)
    if mode != "stochastic":
        raise ValueError(f"weight_rounding must be 'nearest', 'stochastic' or 'kahan' (which is kahan_write); found {mode!r}.")
    if noise is None:
        raise ValueError("Stochastic rounding needs noise; make it with hash_noise.")
    return to_bfloat16(w, noise) if dtype == torch.bfloat16 else to_float16(w, noise)


def kahan_read(w: Tensor, compensation: Tensor) -> Tensor:
    """The weights that a pair stands for: w + compensation, in fp32."""
    return w.float() + compensation.float()


def kahan_write(w: Tensor, compensation: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Split new weights into the parameter (nearest in w's dtype) and what that leaves over (in the compensation's dtype).

    Read the pair with `kahan_read`. Where the parameter is not finite the compensation is 0, so that the sum stays what it is.
    """
    held = _nearest(new, w.dtype)
    rest = new - held
    return held.to(w.dtype), torch.where(torch.isfinite(rest), rest, 0.0).to(compensation.dtype)


def _nearest(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as dtype holds it (nearest, ties to even), in the dtype of x. Compiled by arithmetic: the compiler drops a cast there and back."""
    if not torch.compiler.is_compiling():
        return x.to(dtype).to(x.dtype)
    bits = x.view(torch.int32)
    if dtype == torch.bfloat16:
        near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).view(torch.float32)
    else:
        step = _step_of_float16(bits)
        near = (x / step).round() * step
        near = torch.where(near.abs() > 65504.0, near * torch.inf, near)
    return torch.where((bits & _INF) == _INF, x, near)


def _step_of_float16(bits: Tensor) -> Tensor:
    """The distance of neighbours in fp16 where fp32 numbers of these bits lie: 2^-10 of the binade, and 2^-24 below 2^-14.

    As a power of two it keeps quotient, rounding and remainder exact in fp32.
    """
    binade = (bits & _INF).clamp(min=113 << 23, max=254 << 23)
    return (binade - (10 << 23)).view(torch.float32)

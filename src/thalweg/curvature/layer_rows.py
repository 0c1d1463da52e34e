"""What a layer's weights are multiplied with, as rows of one matrix, and its second moment, also in other coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from thalweg.core.symmetric import symmetric
from thalweg.curvature.layer_matrix import Layer, has_bias


def layer_rows(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """The inputs a_t of all samples and places, [N T, inputs (+ 1)], and N."""
    if isinstance(layer, nn.Linear):
        samples = x.shape[0] if x.dim() > 1 else 1
        rows = x.reshape(-1, x.shape[-1])
    else:
        x = x if x.dim() == 4 else x.unsqueeze(0)
        samples = x.shape[0]
        patches = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        rows = patches.mT.reshape(-1, patches.shape[1])
    return (torch.cat((rows, rows.new_ones(len(rows), 1)), 1) if has_bias(layer) else rows), samples


def second_moment(rows: Tensor, diagonal: bool, k: Tensor | None = None) -> Tensor:
    """X^T X for rows X, or K^T X^T X K; the vectors of their diagonals, where K too is diagonal.

    Without autocast, which holds where the layers run and would narrow the products.
    """
    with torch.autocast(rows.device.type, enabled=False):
        if diagonal:
            squares = rows.square().sum(0)
            return squares if k is None else inner(k, squares)
        if k is None:
            return _gram(rows)
        return _gram(rows @ k) if len(rows) < 2 * len(k) else inner(k, _gram(rows))  # what takes fewer products


def inner(k: Tensor, s: Tensor | None = None) -> Tensor:
    """K^T S K for a symmetric S, the identity where it is None; vectors stand for diagonal matrices."""
    if k.dim() == 1:
        return k * k if s is None else k * k * s
    if s is None:
        return _gram(k)
    product = k.mT @ (s @ k)
    return (product + product.mT) / 2  # in bfloat16 the product in the middle rounds much


def _gram(x: Tensor) -> Tensor:
    return symmetric(x.shape[1], lambda i, j: x[:, i].mT @ x[:, j])

"""Low-rank views of matrices: which side is projected, and orthonormal bases of it. What the optimizers with states in a subspace share."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Matrices lying on their long side, [batch, short, long]: the transpose where there are as many rows as columns or more."""
    return x.mT if x.shape[-2] >= x.shape[-1] else x


def as_given(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `wide`, for matrices of the shape of `like`."""
    return x.mT if like.shape[-2] >= like.shape[-1] else x


def projected(p: Tensor, g: Tensor) -> Tensor:
    """The products P^T g, [rank, cols]; or g P, [rows, rank], where g has as many rows as columns or more: no product is turned."""
    return product(g, p) if g.shape[-2] >= g.shape[-1] else product(p.mT, g)


def returned(p: Tensor, x: Tensor, like: Tensor) -> Tensor:
    """The way back from `projected`, to the shape of `like`."""
    return product(x, p.mT) if like.shape[-2] >= like.shape[-1] else product(p, x)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The products of each pair of matrices; a single pair is not taken for a batch, whose products are slower."""
    return (a.squeeze(0) @ b.squeeze(0)).unsqueeze(0) if a.shape[0] == 1 else a @ b


def sizes(w: Tensor, rank: int) -> tuple[int, int, int]:
    """(short side, rank, long side); the rank is at most the short side."""
    short, long = sorted(w.shape[-2:])
    return short, min(rank, short), long


def orthonormal(x: Tensor) -> Tensor:
    """The Q of x = Q R with a positive diagonal of R, which makes it unique: [batch, n, r], r <= n, to orthonormal columns of the same shape."""
    q, r = torch.linalg.qr(x)
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1, 1).unsqueeze(-2)


def leading(x: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of each matrix: [batch, short, long] to [batch, short, rank].

    Runs repeat: the largest entry of each vector is positive, and directions in which a matrix has no energy (singular values that are rounding)
    are filled up with fixed random ones, orthogonal to the others, for an SVD would return whatever rounding leaves there. A matrix that is not
    finite has no singular vectors and counts as zero.
    """
    u, s, _ = torch.linalg.svd(torch.where(x.isfinite().flatten(-2).all(-1)[..., None, None], x, 0), full_matrices=False)
    u, noise = u[..., :rank], s[..., :1] * (max(x.shape[-2:]) * torch.finfo(x.dtype).eps)
    u = u * u.gather(-2, u.abs().argmax(-2, keepdim=True)).sign()
    real = s[..., :rank] > noise
    if bool(real.all()):
        return u
    random = torch.randn(u.shape[-2:], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(u)
    return torch.where(real.all(-1)[..., None, None], u, orthonormal(torch.where(real.unsqueeze(-2), u, random)))

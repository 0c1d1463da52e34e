"""TrAct, training activations. Petersen, Borgelt, Ermon (2024), arXiv:2410.23970.

    G = sum over rows of (dL/dz) x^T                           (1)  the ordinary weight gradient of z = W x
    W.grad = G (X^T X / b + lambda I)^-1                       (2)  X [b, n]: the b rows of inputs, for a convolution its patches

(2) is, up to its sign, the step dW that brings the pre-activations nearest to a gradient step of their own:

    min over dW of (1 / b) sum ||dW x + b dL/dz||^2 + lambda ||dW||^2      (3)

so for small lambda the change of z does not depend on the inputs' scale: images of low contrast count as much as others. Gradients of the bias and
of the inputs stay as they are. Extra cost in a backward pass: the matrix X^T X and one Cholesky factor of it, n x n.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.core.card import Card
from thalweg.core.checks import check
from thalweg.core.space import Log, Space

CARD = Card(
    name="TrAct",
    title="TrAct: Making First-layer Pre-Activations Trainable",
    authors="Petersen et al.",
    year=2024,
    family="wrap",
    arxiv="2410.23970",
    ledger=328,
    needs=("nothing",),
    reduces_to=("the ordinary gradient divided by lam, as lam grows",),
    departures=("Always the n x n system; the published code takes the b x b one where b < n, which gives the same gradient.",),
    use="The first layer of vision models (convolution, patch embedding): the paper reports the baseline's accuracy in a quarter to four fifths of "
    "the epochs. For deeper layers use a Kronecker-factored method. Not for layers that are sharded.",
)
SPACE = Space({"lam": Log(1e-3, 10.0)})


class TrActLinear(nn.Linear):
    """A linear layer with the weight gradient (2)."""

    lam: float

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [..., n] to [..., out]; every leading index is a row."""
        return F.linear(input, _Solve.apply(self.weight, input, self), self.bias)

    def rows(self, x: Tensor) -> Tensor:
        """The inputs that the weight multiplies, [b, n]."""
        return x.reshape(-1, x.shape[-1])


class TrActConv2d(nn.Conv2d):
    """A convolution with the weight gradient (2)."""

    lam: float

    def forward(self, input: Tensor) -> Tensor:
        """Images [batch, channels, height, width]; every patch is a row."""
        return F.conv2d(input, _Solve.apply(self.weight, input, self), self.bias, self.stride, self.padding, self.dilation)

    def rows(self, x: Tensor) -> Tensor:
        """The inputs that the weight multiplies, [b, n]."""
        patches = F.unfold(x if x.dim() == 4 else x[None], self.kernel_size, self.dilation, self.padding, self.stride)  # type: ignore[arg-type]
        return patches.mT.reshape(-1, patches.shape[1])


class _Solve(torch.autograd.Function):
    """The weight as it is; its gradient times the inverse in (2). One matrix for each run of the layer."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, layer: TrActLinear | TrActConv2d) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        rows = ctx.layer.rows(x.detach()).to(grad.dtype)
        a = rows.mT @ rows / len(rows)
        a.diagonal().add_(ctx.layer.lam)
        factor, failed = torch.linalg.cholesky_ex(a)
        factor = torch.where(failed > 0, torch.nan, factor)  # inputs that are not finite stay visible, and raise nothing
        return torch.cholesky_solve(grad.flatten(1).mT, factor).mT.reshape(grad.shape), None, None  # (2)


PLAIN = {TrActLinear: nn.Linear, TrActConv2d: nn.Conv2d}


def TrAct(layer: nn.Linear | nn.Conv2d, *, lam: float = 0.1) -> TrActLinear | TrActConv2d:
    """Give a layer the weight gradient (2), whatever the optimizer: `TrAct(model.conv1)`, or `TrAct(vit.patch_embed.proj, lam=0.1)`.

    The layer is changed in place (its class becomes a subclass with another gradient) and returned: parameters, checkpoints and outputs stay, copies
    of the model have it too. `plain` undoes it. A penalty on the weight keeps its ordinary gradient.

    Args:
        layer: an nn.Linear, or an nn.Conv2d with one group, zero padding and padding given as numbers.
        lam: lambda, > 0, in units of the mean square of an input.

    Raises:
        TypeError: another kind of layer, or of convolution.
    """
    check("TrAct", "lam", lam, 0.1, "> 0")
    simple = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if not (simple or type(layer) is nn.Linear):
        raise TypeError(f"TrAct needs an nn.Linear, or an nn.Conv2d with groups=1 and zero padding given as numbers; found {layer}.")
    layer.__class__ = TrActConv2d if simple else TrActLinear
    layer.lam = float(lam)  # type: ignore[assignment]
    return layer  # type: ignore[return-value]


def plain(layer: TrActLinear | TrActConv2d) -> nn.Linear | nn.Conv2d:
    """Give a layer its ordinary gradient back."""
    layer.__class__ = PLAIN[type(layer)]
    return layer

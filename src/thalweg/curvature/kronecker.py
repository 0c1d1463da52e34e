"""Kronecker factors of layers. Linear: Martens and Grosse (2015), arXiv:1503.05671; convolutions: Grosse and Martens (2016), arXiv:1602.01407.

    s_t = W a_t (+ b)                        (1)  a_t: the layer's input at place t of a sample, with a 1 added for the bias; one place, or the
                                                  places of a convolution or of a sequence
    A = sum_{n,t} a a^T / N                  (2)  over N samples
    G = sum_{n,t} (N g)(N g)^T / (N T)       (3)  g = dL/ds_t of a loss that is a mean over samples, T places
    F of vec(W b)  ~  A (x) G                (4)  exact where inputs and output gradients are independent, as for a single sample with T = 1

g is the gradient that the loss has, so F is the empirical Fisher matrix; with labels drawn from the model it is the Fisher matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.curvature.layer_matrix import Layer
from thalweg.curvature.layer_rows import layer_rows, second_moment


@dataclass
class Factors:
    """Sums over what a layer saw. Matrices, or vectors of their diagonals.

    Args:
        inputs: sum of a a^T.
        slopes: sum of g g^T.
        samples: N.
        rows: N T.
    """

    inputs: Tensor
    slopes: Tensor
    samples: int
    rows: int

    @property
    def A(self) -> Tensor:
        """The factor (2)."""
        return self.inputs / self.samples

    @property
    def G(self) -> Tensor:
        """The factor (3)."""
        return self.slopes * (self.samples * self.samples / self.rows)


@contextmanager
def observe(
    layers: Mapping[str, Layer], *, diagonal: bool = False, narrow: bool = False, scale: float = 1.0, several: bool = False,
    through: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Iterator[dict[str, Factors]]:
    """The factors of what passes forward and backward through layers within a `with` block.

    Several passes are added, as parts of one batch; a layer that is used twice in a pass counts both uses as samples. Hooks are gone after the
    block.

    Args:
        layers: by name.
        diagonal: only the diagonals of (2) and (3).
        narrow: compute in the dtype of the layer's weights; else in fp32 at least.
        scale: what the loss is multiplied with, as by a GradScaler; output gradients are divided by it.
        several: whether the caller brings the factors of several processes together.
        through: matrices K, C by name: the factors are K^T A K and C^T G C, from the samples where they are fewer than twice the rows of K or C.

    Yields:
        Filled when a gradient reaches a layer's output: its factors by name.

    Raises:
        RuntimeError: several processes, but not `several`: each would have factors of its own, and the replicas would part.
    """
    if not several and torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise RuntimeError("Kronecker factors are of one process; found several. Train in one process, or use a method without factors.")
    found: dict[str, Factors] = {}

    def watch(name: str, layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not (torch.is_grad_enabled() and output.requires_grad):
            return
        number = layer.weight.dtype if narrow else torch.promote_types(layer.weight.dtype, torch.float32)
        rows, samples = layer_rows(layer, inputs[0].detach().to(number))
        k, c = (through or {}).get(name, (None, None))
        squares = second_moment(rows, diagonal, k)

        def arrive(grad: Tensor) -> None:
            slopes = grad.detach().to(number) / scale
            if isinstance(layer, nn.Conv2d):
                slopes = slopes.movedim(-3, -1)
            total = second_moment(slopes.reshape(-1, slopes.shape[-1]), diagonal, c)
            old = found.get(name)
            new = Factors(squares, total, samples, len(rows))
            if old is not None:
                new = Factors(old.inputs + squares, old.slopes + total, old.samples + samples, old.rows + len(rows))
            found[name] = new

        handles.append(output.register_hook(arrive))

    handles = [
        layer.register_forward_hook(lambda module, inputs, output, name=name: watch(name, module, inputs, output)) for name, layer in layers.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()

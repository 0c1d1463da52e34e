"""The lists of parameters whose steps are timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Listing:
    """Shapes of a model.

    Args:
        name: for the command line.
        title: for tables.
        shapes: of all parameters.
        hidden: those that rules for hidden matrices take (no embeddings, norms, biases, heads).
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]
    hidden: tuple[Shape, ...]

    def chosen(self, matrices: bool) -> tuple[Shape, ...]:
        return self.hidden if matrices else self.shapes


def gpt(width: int = 576, layers: int = 6, vocabulary: int = 50_304, context: int = 1_024) -> Listing:
    """A GPT-2 with tied embeddings: 53 M parameters in 76 tensors."""
    block = ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width))
    rest: tuple[Shape, ...] = ((3 * width,), (width,), (4 * width,), (width,), *((width,) for _ in range(4)))
    return Listing("gpt", "GPT", ((vocabulary, width), (context, width), *((*block, *rest) * layers), (width,), (width,)), block * layers)


def resnet() -> Listing:
    """A ResNet-50: 25.6 M parameters in 161 tensors."""
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    hidden: list[Shape] = []
    inside = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions: list[Shape] = [(width, inside, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            convolutions += [(4 * width, inside, 1, 1)] if block == 0 else []
            hidden += convolutions
            for shape in convolutions:
                shapes += [shape, shape[:1], shape[:1]]
            inside = 4 * width
    return Listing("resnet", "ResNet", (*shapes, (1_000, inside), (1_000,)), tuple(hidden))


LISTS = {
    listing.name: listing
    for listing in (
        gpt(),
        resnet(),
        Listing("small", "200 of 32×32", ((32, 32),) * 200, ((32, 32),) * 200),
        Listing("one", "one of 10 M", ((10_000_000,),), ()),
        Listing("narrow", "matrices of a GPT of width 256", (), gpt(256, 4).hidden),
        Listing("tiny", "for tests", ((64, 48), (64,), (300, 301)), ((64, 48),)),
    )
}
DEFAULT = ("gpt", "resnet", "small", "one", "narrow")


def parameters(shapes: tuple[Shape, ...]) -> list[Tensor]:
    """Parameters with gradients, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for shape in shapes:
        p = torch.nn.Parameter(0.02 * torch.randn(shape, generator=generator))
        p.grad = 0.01 * torch.randn(shape, generator=generator)
        out.append(p)
    return out

"""Deep Gradient Compression. Lin et al. (2017), arXiv:1712.01887.

    g <- g min(1, c N^-1/2 / |g|)                                       (1)  local clipping on each of N workers
    u <- mu u + g;   v <- v + u                                         (2)  momentum correction: velocities are what adds up
    send v where |v| is among the largest; there v <- 0 and u <- 0      (3)  the latter is momentum factor masking
    d = (1/N) sum of what the workers sent                              (4)  apply with SGD without momentum
    density 0.25^(1 + floor(4 t / T)), at least the final one           (5)  warm-up over T steps: 75 %, 93.75 %, 98.4 %, 99.6 %, then the final one
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from thalweg.core.card import Card
from thalweg.core.checks import check
from thalweg.core.exchanger import Exchanger
from thalweg.core.space import OneMinusLog, Space
from thalweg.core.wire import gather
from thalweg.core.world import World
from thalweg.distributed.topk import TopK

CARD = Card(
    name="DGC", title="Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training", authors="Lin et al.", year=2017,
    family="distributed", arxiv="1712.01887", ledger=355, needs=("nothing",),
    reduces_to=("the mean of the gradients where sparsity=0", "the velocity of SGD with momentum where sparsity=0 and masking=False"),
    departures=("The largest coordinates are found exactly; the paper estimates the threshold on a sample.",
                "Clipping is by parameter, as in the authors' code, and off by default: the paper clips recurrent networks only.",
                "The mean is applied, not the sum of gradients of the mean loss over N b samples: the same number."),
    also=("deep gradient compression",),
    use="Data-parallel SGD with momentum on slow links: 270 to 600 times fewer bits in the paper at dense accuracy. Warm-up of a few epochs "
        "matters. Not with adaptive optimizers, whose second moments do not survive sparse updates: OneBitAdam or DistributedLion.",
)

SPACE = Space({"momentum": OneMinusLog(0.5, 0.99)})


class DGC(Exchanger):
    """The largest coordinates of accumulated velocities travel; the others wait. Follow it with SGD without momentum.

    Args:
        model: its parameters that require a gradient take part.
        world: the workers.
        momentum: decay mu of the velocities.
        sparsity: share of the coordinates that stays at home in the end.
        warmup: steps T over which the sparsity grows from 75 %.
        clip: length c of the summed gradient at which each parameter's is clipped, or None.
        masking: whether a coordinate that is sent forgets its velocity.
        generator: not drawn from: nothing here is random.
    """

    direction_of: ClassVar[str] = "SGDW"

    def __init__(self, model: nn.Module, world: World, *, momentum: float = 0.9, sparsity: float = 0.999, warmup: int = 0, clip: float | None = None,
                 masking: bool = True, generator: torch.Generator | None = None) -> None:
        check("DGC", "momentum", momentum, 0.9, "[0, 1)")
        check("DGC", "sparsity", sparsity, 0.999, "[0, 1)")
        check("DGC", "warmup", warmup, 0, "int >= 0")
        check("DGC", "clip", clip, None, "> 0 or None")
        super().__init__(model, world, generator=generator)
        self.momentum, self.sparsity, self.warmup, self.clip, self.masking = momentum, sparsity, warmup, clip, masking

    @property
    def density(self) -> float:
        """The share of coordinates that travel at this step, (5)."""
        final = 1.0 - self.sparsity
        return max(final, 0.25 ** (1 + 4 * self.step_count // self.warmup)) if self.step_count < self.warmup else final

    def merge(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        largest = TopK(ratio=self.density)
        u, v, payloads = {}, {}, []
        for name, gradient in grads.items():
            g = gradient
            if self.clip is not None:
                g = g * (self.clip * self.world.size**-0.5 / g.norm()).clamp(max=1.0)  # (1)
            u[name] = self.momentum * self.recall(name, "u") + g  # (2)
            v[name] = self.recall(name, "v") + u[name]
            payloads.append(largest.compress(v[name], self.generator(name)))
        all_sent = gather(self.world, payloads, self.step_count)
        merged = {}
        for i, (name, g) in enumerate(grads.items()):
            merged[name] = largest.merge([sent[i] for sent in all_sent], len(g))  # (4)
            stays = torch.ones_like(g).index_fill_(0, payloads[i][1].long(), 0.0)  # (3)
            fine = torch.isfinite(merged[name]).all()
            self.remember(name, fine, u=u[name] * stays if self.masking else u[name], v=v[name] * stays)
        return merged

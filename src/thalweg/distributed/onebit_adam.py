"""1-bit Adam. Tang et al. (2021), arXiv:2102.02888.

    first T steps:  g = mean of g_i;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2     (1)
    then:           m_i = b1 m + (1 - b1) g_i + e_i                                           (2)  v is frozen
                    m <- mean of C(m_i);   e_i <- m_i - C(m_i)                                (3)  C(x) = (|x|_1 / n) sign(x)
    d = m / (sqrt(v) + eps)                                                                   (4)  apply with SGD without momentum
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from thalweg.core.card import Card
from thalweg.core.checks import check
from thalweg.core.exchanger import Exchanger
from thalweg.core.space import OneMinusLog, Space
from thalweg.core.wire import gather, mean
from thalweg.core.world import World
from thalweg.distributed.scaled_sign import ScaledSign

CARD = Card(
    name="OneBitAdam", title="1-bit Adam: Communication Efficient Large-Scale Training with Adam's Convergence Speed", authors="Tang et al.",
    year=2021, family="distributed", arxiv="2102.02888", needs=("nothing",),
    reduces_to=("Adam without bias correction on the mean gradient during the warm-up",),
    departures=("All workers get all compressed momenta and average them; the paper's server compresses the average again, with its own feedback.",
                "The scale is the mean length, which makes (3) a contraction; the authors' code has the root mean square, which need not be one.",
                "Where v is zero after the warm-up, eps alone divides: warm up until every weight has had a gradient."),
    also=("1-bit Adam",),
    use="Adam on slow links once its variance has settled: up to 5 times less traffic in all at the same convergence in the paper (BERT). With few "
        "steps in all the dense warm-up eats the gain: DistributedLion needs none.",
)

SPACE = Space({"betas.1": OneMinusLog(0.9, 0.999)})


class OneBitAdam(Exchanger):
    """Adam whose second moments stop after a warm-up, so that its momentum can travel as signs.

    Args:
        model: its parameters that require a gradient take part.
        world: the workers.
        warmup: steps T with full gradients.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        generator: gives the seed of the signs of zeros, once.
    """

    direction_of: ClassVar[str] = "AdamW"

    def __init__(self, model: nn.Module, world: World, *, warmup: int, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 generator: torch.Generator | None = None) -> None:
        check("OneBitAdam", "warmup", warmup, 1, "int >= 1")
        check("OneBitAdam", "betas", betas, (0.9, 0.999), "[0, 1)")
        check("OneBitAdam", "eps", eps, 1e-8, "> 0")
        super().__init__(model, world, generator=generator, feedback=True)
        self.warmup, self.betas, self.eps = warmup, betas, eps

    def merge(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        b1, b2 = self.betas
        averaged = {name: b1 * self.recall(name, "m") + (1 - b1) * g for name, g in grads.items()}
        dense = self.step_count < self.warmup
        x = averaged if dense else {name: self.feedback.corrected(name, m) for name, m in averaged.items()}  # (2)
        if dense:
            received = [[g] for g in mean(self.world, list(grads.values()))]
        else:
            sign = ScaledSign()
            all_sent = gather(self.world, [sign.compress(m, self.generator(name)) for name, m in x.items()], self.step_count)
            received = [[sign.decompress(sent[i], len(m)) for sent in all_sent] for i, m in enumerate(x.values())]
        merged = {}
        for name, parts in zip(grads, received, strict=True):
            v = self.recall(name, "v")
            m = b1 * self.recall(name, "m") + (1 - b1) * parts[0] if dense else torch.stack(parts).mean(0)
            v = b2 * v + (1 - b2) * parts[0].square() if dense else v  # (1)
            merged[name] = m / (v.sqrt() + self.eps)  # (4)
            fine = torch.isfinite(merged[name]).all()
            self.remember(name, fine, m=m, v=v)
            if not dense:
                self.feedback.keep(name, x[name], parts[self.world.rank], fine)  # (3)
        return merged

"""Distributed Lion. Liu et al. (2024), arXiv:2404.00438.

    worker i sends sign(b1 m_i + (1 - b1) g_i), one bit for each coordinate      (1)
    m_i <- b2 m_i + (1 - b2) g_i                                                 (2)
    d = sign of the sum of what was sent ("vote"), or its mean ("mean")          (3)
    w <- w - lr (d + lambda w)                                                   (4)  by SGDW(momentum=0), lr and lambda as for Lion
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
from thalweg.distributed.digits import packed
from thalweg.distributed.signs import coined, signs
from thalweg.optim.sign import sign

CARD = Card(
    name="DistributedLion", title="Communication Efficient Distributed Training with Distributed Lion", authors="Liu et al.", year=2024,
    family="distributed", arxiv="2404.00438", ledger=0, needs=("nothing",), reduces_to=("Lion with one worker, followed by SGDW(momentum=0)",),
    departures=("Every worker gets all votes and counts them itself; there is no server, so the downlink is N - 1 times the uplink.",
                "Zeros toss a coin, since a bit cannot stand for them.",
                "A number that is not finite silences the worker's whole message, with 2 bytes that say so."),
    use="Lion on slow links: 1 bit up for each weight, at the accuracy of Lion on summed gradients in the paper (vision and language), and more "
        "of it for the same bits than TernGrad and DGC. Use Lion's learning rate and decay.",
)

SPACE = Space({"betas.1": OneMinusLog(0.9, 0.999)})


class DistributedLion(Exchanger):
    """Each worker keeps its own momentum and votes with its sign.

    Args:
        model: its parameters that require a gradient take part.
        world: the workers.
        betas: decay of the step's average and of the remembered one.
        merging: "vote" or "mean".
        generator: gives the seed of the coins, once.
    """

    direction_of: ClassVar[str] = "Lion"

    def __init__(self, model: nn.Module, world: World, *, betas: tuple[float, float] = (0.9, 0.99), merging: str = "vote",
                 generator: torch.Generator | None = None) -> None:
        check("DistributedLion", "betas", betas, (0.9, 0.99), "[0, 1)")
        check("DistributedLion", "merging", merging, "vote", "vote | mean")
        super().__init__(model, world, generator=generator)
        self.betas, self.merging = betas, merging

    def merge(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        b1, b2 = self.betas
        steps = {name: b1 * self.recall(name, "m") + (1 - b1) * g for name, g in grads.items()}
        bits = packed(torch.cat([coined(step, self.generator(name)) for name, step in steps.items()]).to(torch.uint8), 2)  # (1)
        poison = torch.stack([(step - step).sum() for step in steps.values()]).sum().half().view(1)  # 0 where all are finite, else NaN
        sizes = [len(g) for g in grads.values()]
        total = torch.stack([signs(b, sum(sizes)) + nan for [(b, nan)] in gather(self.world, [(bits, poison)], self.step_count)]).sum(0)
        merged = dict(zip(grads, (sign(total) if self.merging == "vote" else total / self.world.size).split(sizes), strict=True))  # (3)
        for name, g in grads.items():
            self.remember(name, torch.isfinite(merged[name]).all(), m=b2 * self.recall(name, "m") + (1 - b2) * g)  # (2)
        return merged

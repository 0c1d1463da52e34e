"""Compressed exchange with memory. Stich, Cordonnier, Jaggi (2018), arXiv:1809.07599.

    x_i = g_i + e_i                     (1)  worker i: its gradient and what it has not sent yet
    d = merge of C(x_1), ..., C(x_N)    (2)  what the optimizer gets on all workers
    e_i <- x_i - C(x_i)                 (3)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.core.card import Card
from thalweg.core.compressor import Compressor
from thalweg.core.exchanger import Exchanger
from thalweg.core.wire import gather
from thalweg.core.world import World

CARD = Card(
    name="Exchange", title="Sparsified SGD with Memory", authors="Stich et al.", year=2018, family="distributed", arxiv="1809.07599",
    needs=("nothing",), reduces_to=("the mean of the gradients with a compressor that loses nothing",),
    departures=("The paper multiplies by the learning rate before (1); here the optimizer does after (2), so a schedule rescales what is left over."
                "",),
    use="Between backward and step, or as DDP's communication hook, with any compressor. Error feedback is on where the compressor is a contraction; "
        "around an unbiased one it would feed the noise back and grow, so it is refused.",
)


class Exchange(Exchanger):
    """Every parameter's gradient, compressed, sent to all and merged; what was lost is added to the next one.

    Args:
        model: its parameters that require a gradient take part.
        compressor: how they travel.
        world: the workers.
        error_feedback: None means where the compressor gains from it.
        generator: gives the seed of the compressor's random numbers, once.
    """

    def __init__(self, model: nn.Module, compressor: Compressor, world: World, *, error_feedback: bool | None = None,
                 generator: torch.Generator | None = None) -> None:
        if error_feedback and not compressor.feedback:
            raise ValueError(f"Exchange: {type(compressor).__name__} is no contraction with a mean, so error feedback would grow without bound; "
                             "leave error_feedback out, or choose TopK or ScaledSign.")
        self.compressor = compressor
        self.kept = compressor.feedback if error_feedback is None else error_feedback
        super().__init__(model, world, generator=generator, feedback=self.kept)

    def merge(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        x = {name: self.feedback.corrected(name, g) for name, g in grads.items()}  # (1)
        all_sent = gather(self.world, [self.compressor.compress(v, self.generator(name)) for name, v in x.items()], self.step_count)
        merged = {}
        for i, (name, v) in enumerate(x.items()):
            payloads = [sent[i] for sent in all_sent]
            merged[name] = self.compressor.merge(payloads, len(v))  # (2)
            if self.kept:
                own = self.compressor.decompress(payloads[self.world.rank], len(v))
                self.feedback.keep(name, v, own, torch.isfinite(merged[name]).all())  # (3)
        return merged

"""Step sizes and surrogates from more of the closure, the gradient of a first layer, and the penalty of recurrent nets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from beside.case import Case, Make
from thalweg.wrap import AISARAH, IGNITE, SMB, SSO, ALRPolyak, TrAct
from thalweg.wrap.omega import Omega, signals, unroll
from wrapped.training import Task, digits, figures, sgd, way


def net() -> Task:
    return digits(512, 512)


def base(task: Task) -> Any:
    return sgd(task, momentum=0.0)


def restarted(optimizer: AISARAH, task: Task) -> None:
    optimizer.step(task.loss, task.loss)


def on_outputs(optimizer: SSO, task: Task) -> None:
    optimizer.step(task.outputs, task.loss_of)


def with_predictions(optimizer: IGNITE, task: Task) -> None:
    optimizer.step(task.both)


def first_layer(task: Task) -> Any:
    TrAct(task.net[0])  # type: ignore[index]
    return base(task)


WAYS: dict[str, Make] = {
    "SGD": way(net, base),
    "ALRPolyak": way(net, lambda task: ALRPolyak(sgd(task))),
    "AISARAH": way(net, lambda task: AISARAH(base(task)), call=restarted),
    "SMB": way(net, lambda task: SMB(base(task))),
    "SSO, 10 inner steps": way(net, lambda task: SSO(base(task)), call=on_outputs),
    "IGNITE": way(net, lambda task: IGNITE(base(task)), call=with_predictions),
    "TrAct": way(net, first_layer),
}


class Recurrent(nn.Module):
    """A cell over 32 steps, whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNNCell(16, 128), nn.Linear(128, 10)
        self.penalty: Omega | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.states = unroll(self.cell, x, torch.zeros(x.shape[1], 128))
        return self.head(self.states[-1])


def sequences() -> Task:
    torch.manual_seed(0)
    return Task(Recurrent(), torch.randn(32, 64, 16), torch.randint(0, 10, (64,)))


def penalised(optimizer: Any, task: Task) -> None:
    """The loss with its penalty, as the card has it."""
    optimizer.zero_grad()
    loss, net = task.loss(), task.net
    (loss + Omega()(net.cell, task.x, net.states, signals(loss, net.states))).backward()  # type: ignore[arg-type]
    optimizer.step()


RECURRENT: dict[str, Make] = {"SGD": way(sequences, base), "Omega": way(sequences, base, call=penalised)}
CASES = (
    Case(
        name="closures",
        setting="Linear layers 64-512-512-10, 0.3 M weights, 256 digits, one step of SGD.",
        ways=WAYS,
        memory=True,
        figures=figures(WAYS),
    ),
    Case(
        name="recurrent",
        setting="Recurrent net of width 128, 32 steps, 64 sequences, one step of SGD.",
        ways=RECURRENT,
        memory=True,
        figures=figures(RECURRENT),
    ),
)

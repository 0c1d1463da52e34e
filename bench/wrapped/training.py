"""A training step that counts its runs and knows its optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import Optimizer

from beside.case import Make
from gradients.models import Transformer, linear_stack
from steps.timing import plain, tensors_in


class Task:
    """A network and one batch. Each of its functions runs the network once and counts it.

    Args:
        net: the network.
        x: its inputs.
        y: classes of its outputs' last dimension.
    """

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        self.net, self.x, self.y, self.runs = net, x, y, 0
        self.params = list(net.parameters())

    def outputs(self) -> Tensor:
        self.runs += 1
        return self.net(self.x).flatten(0, -2)

    def loss_of(self, outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, self.y.flatten())

    def loss(self) -> Tensor:
        """With its graph, without a backward pass."""
        return self.loss_of(self.outputs())

    def both(self) -> tuple[Tensor, Tensor]:
        """The loss and the outputs that it is made from."""
        z = self.outputs()
        return self.loss_of(z), z

    def closure(self) -> Tensor:
        """The usual one: gradients cleared, loss, backward."""
        for p in self.params:
            p.grad = None
        loss = self.loss()
        loss.backward()
        return loss


@dataclass
class Training:
    """Called, it takes the steps of one sample."""

    task: Task
    optimizer: Any
    step: Callable[[], object]
    steps: int = 1
    runs: float = field(default=0.0, init=False)

    def __call__(self) -> None:
        before = self.task.runs
        for _ in range(self.steps):
            self.step()
        self.runs = (self.task.runs - before) / self.steps


def language() -> Task:
    """Two layers of width 256 on 16 sequences of 64 tokens: 1.2 M weights."""
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (16, 65))
    return Task(Transformer(words=256, places=64, width=256, layers=2), ids[:, :-1], ids[:, 1:])


def digits(*hidden: int) -> Task:
    """256 digits of 8 x 8."""
    torch.manual_seed(0)
    data = load_digits()
    x, y = torch.tensor(data.data[:256] / 16, dtype=torch.float32), torch.tensor(data.target[:256])
    return Task(linear_stack(64, *hidden, 10), x, y)


def adamw(task: Task) -> Optimizer:
    return torch.optim.AdamW(task.params, lr=1e-4, fused=True)


def sgd(task: Task, lr: float = 1e-2, momentum: float = 0.9) -> Optimizer:
    return torch.optim.SGD(task.params, lr=lr, momentum=momentum, fused=True)


def way(
    task: Callable[[], Task], make: Callable[[Task], Any], steps: int = 1, call: Callable[[Any, Task], object] | None = None, before: int = 0,
) -> Make:
    """Steps of the optimizer that `make` builds, `steps` in a sample; `call` for one that is not `optimizer.step(closure)`; `before` come first."""

    def begin() -> Training:
        at = task()
        optimizer = make(at)
        training = Training(at, optimizer, (lambda: optimizer.step(at.closure)) if call is None else (lambda: call(optimizer, at)), steps)
        for _ in range(before):
            training.step()
        return training

    return begin


def state_bytes(value: object) -> float:
    """Bytes of the tensors in a state_dict, each counted once."""
    return float(sum({inner.data_ptr(): inner.nbytes for x in tensors_in(value) for inner in plain(x)}.values()))


def figures(ways: Mapping[str, Make], absent: Iterable[str] = ()) -> Callable[[], dict[str, dict[str, float]]]:
    """Runs of the network per step and bytes of state per weight of each way that can run; `absent` keep theirs outside of state_dict."""

    def count() -> dict[str, dict[str, float]]:
        out: dict[str, dict[str, float]] = {"runs of the network": {}, "state bytes per weight": {}}
        for name, make in ways.items():
            try:
                training = make()
                training()
                training()
            except Exception:  # noqa: BLE001, S112 - the table of times says why a peer fails
                continue
            assert isinstance(training, Training)
            out["runs of the network"][name] = training.runs
            if name not in absent:
                held = state_bytes(training.optimizer.state_dict())
                out["state bytes per weight"][name] = held / sum(p.numel() for p in training.task.params)
        return out

    return count

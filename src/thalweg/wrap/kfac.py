"""KFAC. Martens and Grosse (2015), arXiv:1503.05671; convolutions Grosse and Martens (2016), arXiv:1602.01407.

    A <- e A + (1 - e) sum a a^T / N,  G <- e G + (1 - e) sum (N g)(N g)^T / (N T),  e = min(1 - 1/k, decay)    (1)  k-th update
    D = (G + sqrt(lambda) / pi I)^-1 M (A + pi sqrt(lambda) I)^-1                  (2)  pi^2 = (tr(A) / d) / (tr(G) / o), A: [d, d], G: [o, o]; or
    D = U_G [(U_G^T M U_A) / (l_G l_A^T + lambda)] U_A^T                           (2')  = (A (x) G + lambda I)^-1 vec(M), by A = U_A diag(l_A) U_A^T
    nu = min(1, sqrt(kl_clip / sum lr^2 <D, M>))                                   (3)
    base optimizer's step with nu D in the place of M                              (4)

a and g are inputs and output gradients of a layer, as in curvature/kronecker.py; M = (grad W, grad b). Other parameters keep their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from thalweg.core.card import Card
from thalweg.core.checks import check
from thalweg.core.sharding import is_dtensor
from thalweg.core.space import Log, OneMinusLog, Space
from thalweg.core.wrapper import Wrapper
from thalweg.curvature.factor_mean import averaged, factor_mean, processes
from thalweg.curvature.kronecker import observe
from thalweg.curvature.kronecker_inverse import roots
from thalweg.curvature.layer_matrix import Layer, layers_of, set_gradient
from thalweg.curvature.natural_gradient import natural_gradients
from thalweg.wrap.closure_graph import parameters_of
from thalweg.wrap.layer_state import copied
from thalweg.wrap.overflow import overflowed
from thalweg.wrap.own_state import joined, parted

CARD = Card(
    name="KFAC",
    title="Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    authors="Martens and Grosse",
    year=2015,
    family="wrap",
    arxiv="1503.05671",
    needs=("closure",),
    reduces_to=("the base optimizer at lr / lambda as damping lambda grows, with kl_clip=None",),
    departures=(
        "The empirical Fisher matrix of the data's labels, not of labels drawn from the model, as in the published PyTorch code.",
        "The clip (3) as in that code, which also has (2'); the paper rescales by a quadratic model, which sets lambda too.",
    ),
    use="Networks of linear and convolutional layers where steps are scarce: large batches, autoencoders, where the paper finds it much faster than "
    "SGD with momentum. State is a square of each layer's widths: not for wide embeddings, nor for sharded weights.",
)
SPACE = Space({"damping": Log(1e-4, 1e-1), "decay": OneMinusLog(0.8, 0.99)})
COUNT = "int >= 1"
RANGES = {"damping": "> 0", "decay": "[0, 1)", "kl_clip": "> 0 or None", "factor_every": COUNT, "inverse_every": COUNT, "inverse": "cholesky | eigen"}


class KFAC(Wrapper):
    """Wraps any torch optimizer, usually SGD with momentum: `KFAC(SGD(model.parameters(), lr=0.1), model).step(closure)`.

    The closure clears the gradients, computes a loss that is a mean over the batch, calls backward and returns it; layers are watched while it runs.
    Linear layers and plain two-dimensional convolutions are preconditioned; `layers` has them by name. With mixed precision the closure calls
    `scaler.scale(loss).backward()`, and the loop `kfac.step(closure, scaler=scaler); scaler.update()`; an overflow leaves weights and factors as they
    are. On several processes, whose gradients DDP averages, the factors are averaged too.

    Args:
        optimizer: the base optimizer.
        model: holds the layers.
        damping: lambda, > 0.
        decay: of the averages of the factors.
        kl_clip: bound of (3), > 0, or None for none.
        factor_every: steps between updates (1) of the factors, >= 1.
        inverse_every: steps between decompositions, >= 1.
        inverse: "cholesky" for the paper's (2), or "eigen" for (2'), which damps less and takes more time.
        group: the processes that DDP trains on; None means all of them.
    """

    model: nn.Module
    layers: dict[str, Layer]
    damping: float
    decay: float
    kl_clip: float | None
    factor_every: int
    inverse_every: int
    inverse: str
    group: torch.distributed.ProcessGroup | None
    memory: dict[str, Any]

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, *, damping: float = 1e-3, decay: float = 0.95, kl_clip: float | None = 1e-3,
        factor_every: int = 1, inverse_every: int = 1, inverse: str = "cholesky", group: torch.distributed.ProcessGroup | None = None,
    ) -> None:
        values = dict(zip(RANGES, (damping, decay, kl_clip, factor_every, inverse_every, inverse), strict=True))
        for name, value in values.items():
            check("KFAC", name, value, None, RANGES[name])
        super().__init__(optimizer, {**values, "model": model, "group": group, "memory": {"steps": 0, "factors": {}, "roots": {}}})
        self.layers = layers_of(model, parameters_of(optimizer))
        if any(is_dtensor(layer.weight) for layer in self.layers.values()):
            raise ValueError("KFAC needs whole weights on each process; found sharded ones. Train with DDP, or take Shampoo under FSDP.")

    def step(self, closure: Callable[[], Any] | None = None, *, scaler: GradScaler | None = None) -> Any:
        """One run of the closure and one step of the base optimizer; returns the loss. With a scaler as above; its `update` stays with the caller."""
        if closure is None:
            raise ValueError("KFAC.step needs a closure that clears the gradients, computes the loss, calls backward and returns it; found None.")
        steps, factors, known = self.memory["steps"], self.memory["factors"], self.memory["roots"]
        watched = self.layers if steps % self.factor_every == 0 else {}
        with torch.enable_grad(), observe(watched, scale=1.0 if scaler is None else scaler.get_scale(), several=True) as seen:
            loss = closure()
        if scaler is not None and overflowed(scaler, self.base):
            return loss
        for name, (a, g) in factor_mean(watched, seen, processes(self.group)).items():
            factors[name] = averaged(factors.get(name), a, g, self.decay)  # (1)
        for name, (a, g, _) in factors.items():
            if steps % self.inverse_every == 0 or name not in known:
                known[name] = roots(a, g, self.damping, self.inverse)
        for layer, d in natural_gradients(self.layers, known, self.param_groups, self.damping, self.kl_clip):  # (2), (3)
            set_gradient(layer, d)
        self.memory["steps"] = steps + 1
        self.base.step() if scaler is None else scaler.step(self.base)  # (4)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return joined("KFAC", super().state_dict(), copied(self.memory))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        base, own = parted("KFAC", state_dict, parameters_of(self.base))
        super().load_state_dict(base)
        self.memory = copied(own, {name: layer.weight.device for name, layer in self.layers.items()})

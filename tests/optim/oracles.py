"""Rules and independent implementations of them, and one small problem in float64 on which both are followed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.core.chain import chain
from thalweg.core.contract import RuleLike, State
from thalweg.core.rule import Needs
from thalweg.optim.adafactor import Adafactor
from thalweg.optim.adam import Adam
from thalweg.optim.adamp import AdamP
from thalweg.optim.adamw import AdamW
from thalweg.optim.adan import Adan
from thalweg.optim.ademamix import AdEMAMix
from thalweg.optim.clip_by_norm import ClipByNorm
from thalweg.optim.clip_by_value import ClipByValue
from thalweg.optim.lion import Lion
from thalweg.optim.novograd import NovoGrad
from thalweg.optim.sgd import SGD
from thalweg.optim.sgdp import SGDP
from thalweg.optim.sgdw import SGDW
from thalweg.optim.signum import Signum

MIXED = ((6, 4), (3, 2, 2, 2), (5,))
MATRICES = ((6, 4), (3, 7))
Optimize = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
Prepare = Callable[[Iterable[torch.nn.Parameter]], Any]


def weights(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Starting weights, the same in every call."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def gradient(t: int, ws: Sequence[Tensor]) -> list[Tensor]:
    """A noisy gradient of a bowl with slopes from 0.1 to 2, at step t."""
    generator = torch.Generator().manual_seed(1000 + t)
    noise = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype) for w in ws]
    return [w * torch.linspace(0.1, 2, w.numel(), dtype=w.dtype).view_as(w) + n for w, n in zip(ws, noise, strict=True)]


def follow(rule: RuleLike, ws: Sequence[Tensor], steps: int, grads: Callable[[int, Sequence[Tensor]], list[Tensor]] = gradient) -> list[Tensor]:
    """The weights after `steps` of the pure body, with no engine between."""
    seen = [w.clone() if rule.kind is Needs.ELEMENTWISE else w.reshape(1, 1, -1) if w.dim() < 2 else w.reshape(1, w.shape[0], -1) for w in ws]
    states: list[State] = [rule.init(w) for w in seen]
    past: dict[str, float] = {}
    shared: dict[str, Any] = {name: torch.tensor(value, dtype=torch.float64) for name, value in rule.start().items()}
    for t in range(1, steps + 1):
        past = rule.recur(t, past)
        c: dict[str, Any] = {"t": float(t), "rare": rule.rare_at(t), "loss": torch.inf, **past, **shared, **rule.scalars(t)}
        gs = [g.view_as(w) for g, w in zip(grads(t, [w.view_as(like) for w, like in zip(seen, ws, strict=True)]), seen, strict=True)]
        for phase, names in enumerate(rule.phases):
            parts = [rule.measure_phase(phase, g, w, s, c) for g, w, s in zip(gs, seen, states, strict=True)]
            c |= {name: torch.stack([part[name] for part in parts]).sum() for name in names}
        shared = rule.share(c)
        c |= dict(zip(rule.inputs[-1], shared.values(), strict=True)) if shared else {}
        moves = [rule.step(g, w, s, c) for g, w, s in zip(gs, seen, states, strict=True)]
        seen = [rule.apply(w, d) for w, (d, _) in zip(seen, moves, strict=True)]
        states = [s for _, s in moves]
    return [w.view_as(like) for w, like in zip(seen, ws, strict=True)]


def act(rule: Any, g: Tensor, w: Tensor, s: State | None = None, t: int = 1, **sums: Tensor) -> tuple[Tensor, State]:
    """One call of the pure body at step t, the first after `t - 1` others with these hyperparameters: the direction and the new state."""
    past: dict[str, float] = {}
    for step in range(1, t + 1):
        past = rule.recur(step, past)
    return rule.step(g, w, rule.init(w) if s is None else s, {"t": float(t), "rare": rule.rare_at(t), **past, **rule.scalars(t), **sums})  # type: ignore[no-any-return]


def numbers(*values: float) -> Tensor:
    """A float64 vector."""
    return torch.tensor(values, dtype=torch.float64)


def optimize(make: Optimize, ws: Sequence[Tensor], steps: int, prepare: Prepare | None = None) -> list[Tensor]:
    """The weights after `steps` of a torch optimizer on the same problem; `prepare` works on p.grad before each step."""
    params = [torch.nn.Parameter(w.clone()) for w in ws]
    optimizer = make(params)
    for t in range(1, steps + 1):
        for p, g in zip(params, gradient(t, [p.detach() for p in params]), strict=True):
            p.grad = g
        if prepare is not None:
            prepare(params)
        optimizer.step()
    return [p.detach() for p in params]


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative difference, tensor by tensor."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def agreement(
    rule: RuleLike, oracle: Optimize, *, shapes: Sequence[tuple[int, ...]] = MIXED, steps: int = 50, prepare: Prepare | None = None
) -> float:
    """How far a rule, as a pure function and through the engine, ends from another optimizer: the larger relative distance, in float64."""
    expected = optimize(oracle, weights(shapes), steps, prepare)
    assert distance(expected, weights(shapes)) > 1e-3, "the oracle must move for the comparison to say anything"
    engine = optimize(lambda p: rule.optimizer(p, backend="eager"), weights(shapes), steps)
    return max(distance(follow(rule, weights(shapes), steps), expected), distance(engine, expected))


def peer(name: str, **options: Any) -> Optimize:
    """An optimizer of the pytorch_optimizer package, imported when it is made."""
    return lambda params: getattr(importlib.import_module("pytorch_optimizer"), name)(params, **options)


@dataclass(frozen=True)
class Case:
    """A rule and an independent implementation that must agree with it.

    Args:
        label: the test's name.
        rule: the rule.
        oracle: makes the other implementation over parameters.
        package: where the oracle is from; the test is skipped without it.
        tolerance: largest relative difference after 50 steps in float64.
        shapes: of the parameters.
        prepare: done to the oracle's gradients before each step.
    """

    label: str
    rule: RuleLike
    oracle: Optimize
    package: str = "torch"
    tolerance: float = 1e-12
    shapes: tuple[tuple[int, ...], ...] = MIXED
    prepare: Prepare | None = field(default=None, repr=False)


PEER = "pytorch_optimizer"
CASES = (
    Case("SGD", SGD(lr=0.05, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1)),
    Case("SGD momentum", SGD(lr=0.05, momentum=0.9, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)),
    Case("SGD Nesterov", SGD(lr=0.05, momentum=0.8, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True)),
    Case("SGDW", SGDW(lr=0.05, momentum=0.9, weight_decay=0.1), peer("SGDW", lr=0.05, momentum=0.9, weight_decay=0.1), PEER),
    Case(
        "SGDW Nesterov", SGDW(lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
        peer("SGDW", lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True), PEER,
    ),
    Case("Adam", Adam(lr=0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    Case("AdamW", AdamW(lr=0.01, weight_decay=0.1, eps=1e-3), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, eps=1e-3)),
    Case("Lion", Lion(lr=0.01, weight_decay=0.1), peer("Lion", lr=0.01, weight_decay=0.1), PEER),
    Case("Signum", Signum(lr=0.01, weight_decay=0.1), peer("SignSGD", lr=0.01, momentum=0.9, weight_decay=0.1, weight_decouple=True), PEER),
    Case(
        "AdEMAMix", AdEMAMix(lr=0.01, weight_decay=0.1, alpha=3.0, alpha_warmup=30, beta3_warmup=30),
        peer("AdEMAMix", lr=0.01, weight_decay=0.1, weight_decouple=True, alpha=3.0, t_alpha_beta3=30), PEER,
    ),
    Case("Adan", Adan(lr=0.01, weight_decay=0.1), peer("Adan", lr=0.01, weight_decay=0.1), PEER),
    Case("Adafactor", Adafactor(lr=0.5, weight_decay=0.1), lambda p: torch.optim.Adafactor(p, lr=0.5, weight_decay=0.1), shapes=(*MATRICES, (5,))),
    # eps near zero: the package adds eps before the bias correction of v, which makes it eps / sqrt(1 - b2^t); test_adamp holds the right place
    Case("AdamP", AdamP(lr=0.01, weight_decay=0.1, delta=0.9, eps=1e-20), peer("AdamP", lr=0.01, weight_decay=0.1, delta=0.9, eps=1e-20), PEER),
    Case("SGDP", SGDP(lr=0.01, weight_decay=0.01, delta=0.9), peer("SGDP", lr=0.01, momentum=0.9, weight_decay=0.01, delta=0.9), PEER),
    Case(
        "SGDP Nesterov", SGDP(lr=0.01, weight_decay=0.01, delta=0.9, nesterov=True),
        peer("SGDP", lr=0.01, momentum=0.9, weight_decay=0.01, delta=0.9, nesterov=True), PEER,
    ),
    Case(
        "NovoGrad", NovoGrad(lr=0.01, weight_decay=0.1),
        peer("NovoGrad", lr=0.01, betas=(0.95, 0.98), weight_decay=0.1, weight_decouple=False), PEER,
    ),
    Case(
        "ClipByNorm", chain(ClipByNorm(max_norm=1.0), SGD(lr=0.1)), lambda p: torch.optim.SGD(p, lr=0.1), tolerance=1e-6,
        prepare=lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0),
    ),
    Case(
        "ClipByValue", chain(ClipByValue(max_value=0.5), SGD(lr=0.1)), lambda p: torch.optim.SGD(p, lr=0.1),
        prepare=lambda p: torch.nn.utils.clip_grad_value_(p, 0.5),
    ),
)

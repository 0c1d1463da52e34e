"""Rule, the base of every update rule.

A rule is a frozen dataclass of hyperparameters with two pure functions, `init(w) -> state` and
`step(g, w, s, c) -> (direction, new state)`; the engine does everything else and moves w <- apply(w, direction).
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.core.checks import check_fields
from thalweg.core.codecs import Codec
from thalweg.core.contract import LOSS, Needs, Scalars, State
from thalweg.core.engine import OPTIONS, Engine, Params

__all__ = ["Needs", "Rule", "Scalars", "State", "descend", "ema"]


def ema(m: Tensor, g: Tensor, b: Any) -> Tensor:
    """Exponential moving average: b m + (1 - b) g, in one operation where b is a Python number."""
    return torch.lerp(m, g, 1 - b) if isinstance(b, float) else m + (1 - b) * (g - m)


class _Signature:
    """Shows `Lion(params, /, *, lr, ..., backend, ...)` to help() and to editors."""

    def __get__(self, instance: object, owner: type[Rule]) -> inspect.Signature:
        params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_ONLY, default=None)
        fields = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in dataclasses.fields(owner)  # type: ignore[arg-type]
        ]
        options = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v) for k, v in OPTIONS.items()]
        return inspect.Signature([params, *fields, *options])


class Rule(ABC):
    """An update rule. With parameters, `Lion(model.parameters(), lr=1e-4)` is a torch optimizer; without, it is the rule itself.

    Class attributes:
        needs: what the rule must see at once.
        nonnegative: states that are never negative, such as second moments; low-precision codes use the sign bit for them.
        storage: codecs of states that are narrow by the paper; `state_precision` goes before them.
        totals: names of sums over all elements of all parameters, which `measure` contributes to and `step` reads in `c`.
        probe: "hutchinson" or "gnb" where the rule absorbs a diagonal curvature estimate.
        exponents: hyperparameters that are only ever exponents of tensors; each value gives a graph of its own, in which a power of 1/2 is a root.
        compilable: False where `step` branches on a number: such a rule runs eagerly, where numbers are Python's.
        draws: whether `step` reads `c["normal"]`, independent standard normal numbers in the shape of g; `draws_at` says in which steps.
        past: names of numbers that each parameter carries from step to step on the host; `recur` makes them and `c` holds them.
        shared: names of numbers that all parameters share; `share` makes them from the sums. In `measure` and `share` `c` holds the old ones,
            in `step` also the new ones as "new.name".
        averaged: whether the weights to evaluate at differ from those that gradients are taken at; `evaluation` and `training` then translate.
        sees_gradient: whether `step`, in a chain, reads `c["gradient"]`: the gradient that entered the chain.
        sees_loss: whether `measure`, `share` and `step` read `c["loss"]`: what the closure of this step returned, and infinity in a step without one.
    """

    __signature__ = _Signature()
    needs: ClassVar[Needs] = Needs.ELEMENTWISE
    nonnegative: ClassVar[tuple[str, ...]] = ()
    storage: ClassVar[Mapping[str, Codec]] = {}
    totals: ClassVar[tuple[str, ...]] = ()
    probe: ClassVar[str | None] = None
    exponents: ClassVar[tuple[str, ...]] = ()
    compilable: ClassVar[bool] = True
    draws: ClassVar[bool] = False
    past: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()
    averaged: ClassVar[bool] = False
    sees_gradient: ClassVar[bool] = False
    sees_loss: ClassVar[bool] = False

    def __new__(cls, params: Params | None = None, /, **keywords: Any) -> Any:
        """With parameters an `Engine`, else the rule."""
        if params is None:
            if misplaced := set(keywords) & set(OPTIONS):
                names = ", ".join(sorted(misplaced))
                raise TypeError(f"{cls.__name__}: {names} belong to the optimizer; give the parameters first, or use .optimizer(params, ...).")
            return super().__new__(cls)
        options = {name: keywords.pop(name) for name in OPTIONS if name in keywords}
        return Engine(params, cls(**keywords), **options)

    def __post_init__(self) -> None:
        check_fields(self, self.name)

    @abstractmethod
    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        """The direction d and the new state; pure. The engine then sets w <- apply(w, d)."""

    def init(self, w: Tensor) -> State:
        """The state before the first step."""
        return {}

    def scalars(self, t: int) -> dict[str, float]:
        """Numbers that depend only on the step t >= 1 and on hyperparameters; `step` reads them in `c`."""
        return {}

    def measure(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        """Contributions of this piece to each of `totals`, as 0-d tensors."""
        return {}

    def absorb(self, h: Tensor, w: Tensor, s: State, c: Scalars) -> State:
        """The state after a curvature estimate h of the diagonal; only for rules with a `probe`."""
        return s

    def draws_at(self, t: float) -> bool:
        """Whether step t reads `c["normal"]`; asked only where the body is not compiled, for rules that draw every k steps."""
        return self.draws

    def rare_at(self, t: float) -> bool:
        """Whether step t does what most steps do not, such as finding a new basis: `c["rare"]`. Such a step is not compiled, and the others are."""
        return False

    def recur(self, t: int, past: Mapping[str, float]) -> dict[str, float]:
        """The numbers of `past` at step t >= 1, from those of the step before ({} at a parameter's first step)."""
        return {}

    def start(self) -> dict[str, float]:
        """The shared numbers before the first step."""
        return {}

    def share(self, c: Scalars) -> dict[str, Tensor]:
        """The new shared numbers, from the old ones and the sums in `c`, all 0-d tensors."""
        return {}

    def evaluation(self, w: Tensor, s: State, c: Scalars) -> Tensor:
        """The weights to evaluate at, from those of training; only for rules that are `averaged`."""
        return w

    def training(self, x: Tensor, s: State, c: Scalars) -> Tensor:
        """The inverse of `evaluation`."""
        return x

    def apply(self, w: Tensor, d: Tensor) -> Tensor:
        """The new weights: w - lr d."""
        return descend(w, d, self.lr)  # type: ignore[attr-defined]

    @property
    def rate(self) -> Any:
        """The learning rate where the new weights are w - lr d, which the engine may then write in place; None for a rule with its own `apply`."""
        return self.lr if type(self).apply is Rule.apply else None  # type: ignore[attr-defined]

    def optimizer(self, params: Params, **options: Any) -> Engine:
        """A torch optimizer that runs this rule over `params`. Options as in `Engine`."""
        return Engine(params, self, **options)

    @property
    def name(self) -> str:
        """The rule's public name."""
        return type(self).__name__

    @property
    def kind(self) -> Needs:
        """What the rule must see at once."""
        return self.needs

    @property
    def kinds(self) -> tuple[type, ...]:
        """The class, which with the hyperparameters that are not numbers decides the graph."""
        return (type(self),)

    @property
    def phases(self) -> tuple[tuple[str, ...], ...]:
        """The names of the sums that must be known before the step, one tuple for each pass over the gradients."""
        return (self.totals,) if self.totals else ()

    @property
    def inputs(self) -> tuple[tuple[str, ...], ...]:
        """The names of the numbers that come from the device: the loss, shared ones, sums, shared ones made anew."""
        loss = (LOSS,) if self.sees_loss else ()
        return (*loss, self.shared, *self.phases, tuple([f"new.{name}" for name in self.shared])) if self.shared else (*loss, *self.phases)

    @property
    def probe_kind(self) -> str | None:
        """The curvature estimate that the rule absorbs, if any."""
        return self.probe

    def is_nonnegative(self, state: str) -> bool:
        """Whether the named state is never negative."""
        return state in self.nonnegative

    def storage_of(self, state: str) -> Codec | None:
        """How the named state is stored where `state_precision` says nothing; None for full precision."""
        return self.storage.get(state)

    def measure_phase(self, phase: int, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        """`measure`, for the engine."""
        return self.measure(g, w, s, c)

    def hyper(self) -> dict[str, Any]:
        """Hyperparameters by name: the keys of a parameter group."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def with_hyper(self, values: Mapping[str, Any]) -> Rule:
        """This rule with some hyperparameters replaced, checked."""
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    def bound(self, values: Mapping[str, Any]) -> Rule:
        """This rule with hyperparameters replaced by numbers or by 0-d tensors, unchecked; for kernels."""
        rule = object.__new__(type(self))
        for name, value in values.items():
            object.__setattr__(rule, name, value)
        return rule


def descend(w: Tensor, d: Tensor, lr: Any) -> Tensor:
    """Return w - lr d, in one operation where lr is a Python number."""
    return torch.add(w, d, alpha=-lr) if isinstance(lr, float) else w - lr * d

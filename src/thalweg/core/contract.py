"""What the engine asks of a rule, and the words that both use. A method file never imports this; it imports `core.rule`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from torch import Tensor

from thalweg.core.codecs import Codec

State = dict[str, Tensor]
"""The tensors that a rule keeps for one parameter, by name."""

Scalars = Mapping[str, Any]
"""Numbers computed on the host for one step: Python floats in eager mode, 0-d float64 tensors in a compiled kernel."""

LOSS = ("loss",)
"""The entry of a rule's `inputs` that stands for the loss."""


class Needs(Enum):
    """What a rule must see at once."""

    ELEMENTWISE = "elementwise"
    """Any piece of a parameter, as a flat tensor."""
    LAYER = "layer"
    """The whole parameter, as [batch, rows, cols]; a vector is [batch, 1, n]."""
    MATRIX = "matrix"
    """The whole matrix, as [batch, rows, cols]; parameters with fewer than two dimensions are refused."""


class RuleLike(Protocol):
    """An update rule, or a chain of them, as the engine sees it. `core.rule` has the classes and the meaning of each method."""

    @property
    def name(self) -> str:
        """Public name."""

    @property
    def kind(self) -> Needs:
        """What it must see at once."""

    @property
    def kinds(self) -> tuple[type, ...]:
        """Classes of the rule or of its links."""

    @property
    def phases(self) -> tuple[tuple[str, ...], ...]:
        """Names of the sums needed before the step, one tuple for each pass over the gradients."""

    @property
    def probe_kind(self) -> str | None:
        """The curvature probe that it absorbs, if any."""

    @property
    def exponents(self) -> tuple[str, ...]:
        """Hyperparameters that are numbers and yet part of the graph."""

    @property
    def compilable(self) -> bool:
        """Whether the body may be compiled; False where it branches on a number."""

    @property
    def draws(self) -> bool:
        """Whether the body reads standard normal noise."""

    @property
    def averaged(self) -> bool:
        """Whether the weights to evaluate at are others than those that the gradients are taken at."""

    @property
    def past(self) -> tuple[str, ...]:
        """Names of numbers that a parameter carries from step to step, on the host."""

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of numbers that all parameters share and that change from step to step, on the device."""

    @property
    def inputs(self) -> tuple[tuple[str, ...], ...]:
        """Names of the numbers that come from the device, in the order in which a step reads them."""

    def is_nonnegative(self, state: str) -> bool:
        """Whether a state is never negative."""

    def storage_of(self, state: str) -> Codec | None:
        """How a state is stored where `state_precision` says nothing; None for full precision."""

    def hyper(self) -> dict[str, Any]:
        """Hyperparameters by name."""

    def with_hyper(self, values: Mapping[str, Any]) -> RuleLike:
        """The rule with some hyperparameters replaced, checked."""

    def bound(self, values: Mapping[str, Any]) -> RuleLike:
        """The rule over numbers or 0-d tensors, unchecked."""

    def init(self, w: Tensor) -> State:
        """The state before the first step."""

    def scalars(self, t: int) -> dict[str, float]:
        """Numbers that depend only on the step and on hyperparameters."""

    def draws_at(self, t: float) -> bool:
        """Whether step t reads the noise, where the body is not compiled."""

    def rare_at(self, t: float) -> bool:
        """Whether step t does what most steps do not, and runs eagerly."""

    def recur(self, t: int, past: Mapping[str, float]) -> dict[str, float]:
        """The numbers of `past` at step t, from those of the step before; {} stands for those before the first."""

    def start(self) -> dict[str, float]:
        """The shared numbers before the first step."""

    def share(self, c: Scalars) -> dict[str, Any]:
        """The shared numbers of this step, from those before it and the sums."""

    def evaluation(self, w: Tensor, s: State, c: Scalars) -> Tensor:
        """The weights to evaluate at, from those of training."""

    def training(self, x: Tensor, s: State, c: Scalars) -> Tensor:
        """The inverse of `evaluation`."""

    def measure_phase(self, phase: int, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        """Contributions to the sums of a phase."""

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        """The direction and the new state."""

    def apply(self, w: Tensor, d: Tensor) -> Tensor:
        """The new weights."""

    @property
    def rate(self) -> Any:
        """The learning rate where `apply` is w - lr d, else None."""

    def absorb(self, h: Tensor, w: Tensor, s: State, c: Scalars) -> State:
        """The state after a curvature estimate."""

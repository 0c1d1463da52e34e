"""What the engine asks of a rule, and the words that both use. A method file never imports this; it imports `core.rule`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from torch import Tensor

State = dict[str, Tensor]
"""The tensors that a rule keeps for one parameter, by name."""

Scalars = Mapping[str, Any]
"""Numbers computed on the host for one step: Python floats in eager mode, 0-d float64 tensors in a compiled kernel."""


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

    def is_nonnegative(self, state: str) -> bool:
        """Whether a state is never negative."""

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

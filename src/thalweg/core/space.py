"""Search spaces: how a point of the unit cube becomes hyperparameters. Each method keeps its own in its file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Log:
    """Log-uniform on [low, high], both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"Log({self.low}, {self.high}): expected 0 < low < high.")

    def at(self, u: float) -> float:
        """The value at quantile u of [0, 1]."""
        return float(math.exp(math.log(self.low) + u * math.log(self.high / self.low)))

    def extended(self, factor: float) -> Log:
        """The same range, wider by `factor` at both ends."""
        return Log(self.low / factor, self.high * factor)


@dataclass(frozen=True)
class Linear:
    """Uniform on [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Linear({self.low}, {self.high}): expected low < high.")

    def at(self, u: float) -> float:
        """The value at quantile u of [0, 1]."""
        return self.low + u * (self.high - self.low)

    def extended(self, factor: float) -> Linear:
        """Unchanged: a linear range has natural ends."""
        return self


@dataclass(frozen=True)
class OneMinusLog:
    """1 - x is log-uniform: for decay rates near one, such as 0.9 to 0.999."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < 1:
            raise ValueError(f"OneMinusLog({self.low}, {self.high}): expected 0 < low < high < 1.")

    def at(self, u: float) -> float:
        """The value at quantile u of [0, 1]."""
        a, b = math.log(1 - self.low), math.log(1 - self.high)
        return float(1 - math.exp(a + u * (b - a)))

    def extended(self, factor: float) -> OneMinusLog:
        """Unchanged: the range ends at one."""
        return self


@dataclass(frozen=True)
class Choice:
    """One of a few values, each with the same probability."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at quantile u of [0, 1]."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def extended(self, factor: float) -> Choice:
        """Unchanged: a choice has no ends."""
        return self


Dimension = Log | Linear | OneMinusLog | Choice


class Space:
    """Named dimensions. A dotted name sets one entry of a tuple: `"betas.0"` is the first of `betas`.

    Args:
        dimensions: name of the hyperparameter to its range. The order is the order of the Sobol dimensions.
    """

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        self.dimensions = dict(dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def at(self, point: Sequence[float]) -> dict[str, Any]:
        """Hyperparameters at a point of the unit cube (extra coordinates are ignored)."""
        if len(point) < len(self):
            raise ValueError(f"The point has {len(point)} coordinates; this space has {len(self)} dimensions.")
        return {name: dim.at(u) for (name, dim), u in zip(self.dimensions.items(), point, strict=False)}

    def extended(self, factor: float = 10.0) -> Space:
        """Every logarithmic range wider by `factor` at both ends."""
        return Space({name: dim.extended(factor) for name, dim in self.dimensions.items()})

    def near_edge(self, values: Mapping[str, Any], margin: float = 0.05) -> list[str]:
        """Names of logarithmic dimensions whose value lies within `margin` of the range (in log units) from an end."""
        edges = []
        for name, dim in self.dimensions.items():
            if isinstance(dim, Log) and name in values:
                u = math.log(values[name] / dim.low) / math.log(dim.high / dim.low)
                if u < margin or u > 1 - margin:
                    edges.append(name)
        return edges


def assign(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments from flat `values`; dotted names replace one entry of the default tuple."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        base, dot, index = name.partition(".")
        if not dot:
            out[base] = value
        else:
            entries = list(out.get(base, defaults[base]))
            entries[int(index)] = value
            out[base] = tuple(entries)
    return out

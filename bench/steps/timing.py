"""Interleaved timing of whole optimizer steps."""

from __future__ import annotations

import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steps.rows import Make

SHORTEST = 0.2
"""Seconds that one sample should at least take; fast steps are repeated within it."""


@dataclass
class Contestant:
    """One optimizer in a race, with its samples in seconds per step."""

    column: str
    way: str
    optimizer: torch.optim.Optimizer
    first: float
    warm: float
    state: float
    inner: int = 1
    samples: list[float] = field(default_factory=list)


class Field:
    """Parameters with gradients that are put back before every sample, since some optimizers change them."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = list(params)
        self.weights = [p.detach().clone() for p in params]
        self.given = [p.grad for p in params if p.grad is not None]
        self.grads = [g.clone() for g in self.given]

    def restore(self, weights: bool = False) -> None:
        torch._foreach_copy_(self.given, self.grads)
        if weights:
            torch._foreach_copy_([p.detach() for p in self.params], self.weights)


clock: Callable[[], float] = time.perf_counter


def seconds(arena: Field, optimizer: torch.optim.Optimizer, times: int = 1) -> float:
    """Mean time of a step; the gradients are handed over again, outside the clock, since some optimizers take them away."""
    total = 0.0
    for _ in range(times):
        for p, g in zip(arena.params, arena.given, strict=True):
            p.grad = g
        start = clock()
        optimizer.step()
        total += clock() - start
    return total / times


def admit(arena: Field, column: str, ways: Sequence[tuple[str, Make]]) -> Contestant | str:
    """The fastest way of a column, warmed up, or why there is none."""
    best: Contestant | None = None
    reason = ""
    for way, make in ways:
        arena.restore(weights=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer = make(arena.params)
                first = seconds(arena, optimizer)
                seconds(arena, optimizer, 2)
                warm = min(seconds(arena, optimizer) for _ in range(3))
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the table says so
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else ''}"
            continue
        if best is None or warm < best.warm:
            best = Contestant(column, way, optimizer, first, warm, state_bytes(optimizer) / sum(p.numel() for p in arena.params))
        gc.collect()
    if best is None:
        return reason
    best.inner = max(1, min(100, math.ceil(SHORTEST / best.warm)))
    return best


def state_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Bytes of state tensors, step counters left out."""
    total = 0
    for state in optimizer.state.values():
        for x in tensors_in(state):
            total += sum(inner.nbytes for inner in plain(x))
    return float(total)


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.dim() > 0 else []
    if isinstance(value, dict):
        return [x for v in value.values() for x in tensors_in(v)]
    if isinstance(value, list | tuple):
        return [x for v in value for x in tensors_in(v)]
    return []


def plain(x: Tensor) -> list[Tensor]:
    """The tensors that a tensor subclass is made of."""
    if type(x) in (Tensor, torch.nn.Parameter):
        return [x]
    names, _ = x.__tensor_flatten__()  # type: ignore[attr-defined]
    return [inner for name in names for inner in plain(getattr(x, name))]


def race(params: Sequence[Tensor], candidates: dict[str, list[tuple[str, Make]]], repeats: int, period: int = 1) -> dict[str, dict[str, Any]]:
    """Time all columns in turns.

    Args:
        params: with gradients.
        candidates: for each column its ways.
        repeats: samples of each column; the order is turned by one from round to round.
        period: steps that a sample of a candidate counts in; the reference has none.

    Returns:
        For each column its median in seconds, its median ratio to "reference" within a round, both quartiles of that, the rounds, the way, the
        first step's seconds and the bytes of state per parameter; or "absent" with the reason.
    """
    arena = Field(params)
    out: dict[str, dict[str, Any]] = {}
    contestants: list[Contestant] = []
    for column, ways in candidates.items():
        found = admit(arena, column, ways)
        if isinstance(found, str):
            out[column] = {"absent": found}
        else:
            if column != "reference":
                found.inner = period * math.ceil(found.inner / period)
            contestants.append(found)
    arena.restore(weights=True)
    for r in range(repeats):
        for c in contestants[r % len(contestants) :] + contestants[: r % len(contestants)]:
            arena.restore()
            c.samples.append(seconds(arena, c.optimizer, c.inner))
    reference = next((c.samples for c in contestants if c.column == "reference"), None)
    for c in contestants:
        ratios = [a / b for a, b in zip(c.samples, reference or c.samples, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        out[c.column] = {
            "seconds": statistics.median(c.samples),
            "ratio": statistics.median(ratios),
            "quartiles": [low, high],
            "rounds": repeats,
            "best_ratio": min(c.samples) / min(reference or c.samples),
            "way": c.way,
            "first_step": c.first,
            "state_bytes": c.state,
        }
    return out

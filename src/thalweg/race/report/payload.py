"""A race as plain JSON data that fits into a page: no NaN, no infinity, and curves thinned when the page would grow too large."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from thalweg.race.records import RaceResult, Trial

# What each level keeps: points per curve of the final runs, points per curve of all other runs, characters per message. None: all.
LEVELS: tuple[tuple[int | None, int | None, int | None], ...] = ((None, None, None), (None, 1, 4000), (64, 1, 1000), (24, 0, 200), (8, 0, 80))


def plain(value: Any) -> Any:
    """`value` as JSON data. NaN and infinity become None (the trial's status says what happened); unknown objects become their text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    return str(value)


def result_data(result: RaceResult, level: int = 0) -> dict[str, Any]:
    """The whole result as JSON data, with the curves and messages that `LEVELS[level]` keeps."""
    final_points, other_points, characters = LEVELS[level]
    return {
        "settings": plain(dataclasses.asdict(result.settings)),
        "target": plain(result.target),
        "complete": result.complete,
        "verdicts": [plain(dataclasses.asdict(verdict)) for verdict in result.verdicts],
        "trials": [_trial(t, final_points if t.stage == "final" else other_points, characters) for t in result.trials],
    }


def packed(data: Any) -> str:
    """JSON, compressed and in base64: safe inside any HTML element. The same data always give the same text."""
    return packed_text(json.dumps(data, allow_nan=False, separators=(",", ":")))


def packed_text(text: str) -> str:
    """gzip, then base64."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode("ascii")


def _trial(trial: Trial, points: int | None, characters: int | None) -> dict[str, Any]:
    data: dict[str, Any] = plain({f.name: getattr(trial, f.name) for f in dataclasses.fields(trial)})
    if points is not None:
        data["curve"] = {name: _thinned(values, points) for name, values in data["curve"].items()}
    if characters is not None:
        data["message"] = data["message"][:characters]
    return data


def _thinned(values: list[Any], points: int) -> list[Any]:
    """At most `points` entries, evenly spread, always with the last one (the first one too from two points on)."""
    last = len(values) - 1
    if last < points:
        return values
    if points < 2:
        return values[last:] if points else []
    return [values[round(i * last / (points - 1))] for i in range(points)]

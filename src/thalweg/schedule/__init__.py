"""Schedules: links that scale a chain's direction by a factor of the step, usable with torch's LambdaLR too."""

from __future__ import annotations

from thalweg.schedule.warmup_linear import WarmupLinear

__all__ = ["WarmupLinear"]

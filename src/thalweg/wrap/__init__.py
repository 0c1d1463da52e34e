"""Wrappers: torch optimizers around any torch optimizer, for methods that need more than one gradient per step."""

from __future__ import annotations

from thalweg.wrap.sam import SAM

__all__ = ["SAM"]

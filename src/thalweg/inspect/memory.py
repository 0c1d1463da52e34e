"""How much state a method keeps, counted on the tensors that it makes."""

from __future__ import annotations

from importlib import import_module

from thalweg.inspect.entry import REQUIRED, Entry

SIDE = 1024


def state_bytes(entry: Entry) -> float | None:
    """Bytes of fp32 state per parameter for a weight of 1024 x 1024, or None where the method keeps no state of its own.

    Imports torch and the method's family.
    """
    import torch

    from thalweg.core.rule import Needs, Rule

    method = getattr(import_module(f"thalweg.{entry.family}"), entry.name)
    if not (isinstance(method, type) and issubclass(method, Rule)):
        return None
    rule = method(**{h.name: 1 for h in entry.hyper if h.default == REQUIRED})
    weight = torch.zeros(SIDE * SIDE) if rule.needs is Needs.ELEMENTWISE else torch.zeros(1, SIDE, SIDE)
    return float(sum(s.numel() * s.element_size() for s in rule.init(weight).values()) / weight.numel())


def state_in_words(entry: Entry) -> str:
    """`state_bytes` as a sentence."""
    size = state_bytes(entry)
    if size is None:
        return "none of its own"
    if size == 0:
        return "none with the defaults"
    return f"{size:.2g} bytes per parameter in fp32 with the defaults (counted on a weight of {SIDE} x {SIDE})"

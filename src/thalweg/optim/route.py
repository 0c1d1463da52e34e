"""One optimizer for a whole model where a rule fits only some parameters: `route` sorts them by role and says why."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from thalweg.core.chain import Chain
from thalweg.core.engine import Engine
from thalweg.core.roles import ROLES, Role, roles
from thalweg.core.rule import Rule


@dataclass(frozen=True)
class Routed:
    """One parameter of the plan: what it is, the key that took it and the rule's name."""

    role: Role
    key: str
    rule: str


@dataclass(frozen=True)
class RoutingPlan:
    """The plan of `route`, one entry for each parameter; printing it gives a table."""

    entries: tuple[Routed, ...]

    def __str__(self) -> str:
        rows = [("parameter", "shape", "rule", "because")]
        for entry in self.entries:
            found = entry.role
            shape = "x".join(map(str, found.parameter.shape)) or "scalar"
            rows.append((found.name, shape, entry.rule, f"{found.role}: {found.why}"))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join([*(cell.ljust(n) for cell, n in zip(row, widths, strict=False)), row[3]]) for row in rows)


def route(
    model: nn.Module, rules: Mapping[str, Rule | Chain], *, backend: str = "auto", state_precision: str | Mapping[str, str] | None = None,
    weight_rounding: str = "nearest", on_nonfinite: str = "propagate", seed: int = 0,
) -> Engine:
    """One optimizer over all trainable parameters of a model, each with the first rule whose key fits it.

    Args:
        model: the model. A parameter that several modules share is routed once, by its first place.
        rules: from a role of `ROLES`, or a pattern of parameter names such as "blocks.*.mlp.*", to a rule without parameters. The order counts.
        backend: as in `Engine`, like the options after it.
        state_precision: as in `Engine`.
        weight_rounding: as in `Engine`.
        on_nonfinite: as in `Engine`.
        seed: as in `Engine`.

    Returns:
        The optimizer; `print(optimizer.plan)` shows for each parameter the rule and the reason.

    Raises:
        ValueError: for a key that is neither a role nor a pattern, or a parameter that no key takes.

    Example:
        `route(model, {"hidden matrices": Muon(lr=0.02), "rest": AdamW(lr=3e-4)})`
    """
    for key, rule in rules.items():
        if key not in ROLES and not re.search(r"[*?.\[]", key):
            raise ValueError(f"route: {key!r} is neither a role ({', '.join(ROLES)}) nor a pattern of parameter names such as 'blocks.*.weight'.")
        if not isinstance(rule, Rule | Chain):
            raise ValueError(f"route: {key!r} must map to a rule without parameters, such as AdamW(lr=1e-3); found {type(rule).__name__}.")
    entries: list[Routed] = []
    groups: dict[tuple[str, str, int], list[tuple[str, Tensor]]] = {}
    for found in roles(model):
        key = next((k for k in rules if k == found.role or (k not in ROLES and fnmatch.fnmatch(found.name, k))), "rest")
        if key not in rules:
            raise ValueError(f"route: no rule takes {found.name} ({found.role}: {found.why}); add a key {found.role!r} or 'rest'.")
        entries.append(Routed(found, key, rules[key].name))
        groups.setdefault((key, found.layout, found.split), []).append((found.name, found.parameter))
    if not entries:
        raise ValueError("route: the model has no trainable parameters.")
    options: dict[str, Any] = {
        "backend": backend, "state_precision": state_precision, "weight_rounding": weight_rounding, "on_nonfinite": on_nonfinite, "seed": seed,
    }
    described: list[dict[str, Any]] = [
        {"params": named, "rule": rules[key], "layout": layout, "split": split, "name": key} for (key, layout, split), named in groups.items()
    ]
    engine = Engine(described, described[0]["rule"], **options)
    engine.plan = RoutingPlan(tuple(entries))
    return engine

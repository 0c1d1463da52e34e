"""One optimizer for a whole model where a rule fits only some parameters: `route` sorts them by role and says why."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from thalweg.core.chain import Chain
from thalweg.core.engine import Engine
from thalweg.core.rule import Rule

ROLES = ("hidden matrices", "embeddings", "heads", "norms", "biases", "depthwise convolutions", "vectors", "rest")
"""The roles that a key may name; "rest" takes what no other key took."""

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_HEAD = re.compile(r"(^|\.)(lm_head|head|heads|classifier|fc_out|output_projection|unembed|logits)(\.|$)")
_QKV = re.compile(r"(^|[._])(qkv|wqkv|c_attn|query_key_value|in_proj)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Routed:
    """One parameter of the plan: where it goes and why. `layout` and `split` say how a matrix rule sees it."""

    name: str
    shape: tuple[int, ...]
    role: str
    why: str
    key: str
    rule: str
    layout: str
    split: int


@dataclass(frozen=True)
class RoutingPlan:
    """The plan of `route`, one entry for each parameter; printing it gives a table."""

    entries: tuple[Routed, ...]

    def __str__(self) -> str:
        rows = [("parameter", "shape", "rule", "because")]
        rows += [(e.name, "x".join(map(str, e.shape)) or "scalar", e.rule, f"{e.role}: {e.why}") for e in self.entries]
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
    for name, p, role, why, layout, split in _roles(model):
        key = next((k for k in rules if k == role or (k not in ROLES and fnmatch.fnmatch(name, k))), "rest")
        if key not in rules:
            raise ValueError(f"route: no rule takes {name} ({role}: {why}); add a key {role!r} or 'rest'.")
        entries.append(Routed(name, tuple(p.shape), role, why, key, rules[key].name, layout, split))
        groups.setdefault((key, layout, split), []).append((name, p))
    if not entries:
        raise ValueError("route: the model has no trainable parameters.")
    first, *others = [
        {"params": named, "rule": rules[key], "layout": layout, "split": split, "name": key} for (key, layout, split), named in groups.items()
    ]
    options: dict[str, Any] = {
        "backend": backend, "state_precision": state_precision, "weight_rounding": weight_rounding, "on_nonfinite": on_nonfinite, "seed": seed,
    }
    engine = Engine([first, *others], rules[first["name"]], **options)
    engine.plan = RoutingPlan(tuple(entries))
    return engine


def _roles(model: nn.Module) -> Iterator[tuple[str, Tensor, str, str, str, int]]:
    """(name, parameter, role, why, layout, split) of every trainable parameter."""
    owners = {
        f"{prefix}.{name}".lstrip("."): module for prefix, module in model.named_modules() for name, _ in module.named_parameters(recurse=False)
    }
    linears = [name for name, module in owners.items() if isinstance(module, nn.Linear) and name.endswith("weight")]
    named_head = any(_HEAD.search(name) for name in linears)
    for name, p in model.named_parameters():
        if p.requires_grad:
            last = not named_head and len(linears) > 1 and name == linears[-1]
            yield (name, p, *_role(name, p, owners[name], last))


def _role(name: str, p: Tensor, module: nn.Module, last: bool) -> tuple[str, str, str, int]:
    kind = type(module).__name__
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or (p.dim() == 2 and re.search(r"(^|[._])(embed\w*|wte|wpe|pos_emb\w*)([._]|$)", name)):
        return "embeddings", f"rows of {kind} are looked up, not multiplied", "auto", 1
    if isinstance(module, _NORMS) or "Norm" in kind:
        return "norms", f"gain or shift of {kind}", "auto", 1
    if name.rpartition(".")[2].endswith("bias"):
        return "biases", f"bias of {kind}", "auto", 1
    if p.dim() < 2 or sum(n > 1 for n in p.shape) < 2:
        return "vectors", f"fewer than two dimensions above one in {kind}", "auto", 1
    if isinstance(module, _ConvNd):
        if module.groups > 1 and p.shape[1] == 1:
            return "depthwise convolutions", f"{module.groups} filters of one channel each have no matrix", "flatten", 1
        if module.groups > 1:
            return "hidden matrices", f"grouped {kind}: {module.groups} matrices out x (in kernel)", "flatten", module.groups
        return "hidden matrices", f"{kind}, flattened to out x (in kernel)", "flatten", 1
    if _HEAD.search(name):
        return "heads", f"the name says that {kind} is an output layer", "auto", 1
    if last:
        return "heads", f"the last {kind} of the model", "auto", 1
    if p.dim() == 2 and _QKV.search(name) and p.shape[0] % 3 == 0 and p.shape[0] > p.shape[1]:
        return "hidden matrices", "fused query, key and value: three matrices", "auto", 3
    if p.dim() == 2 and _QKV.search(name):
        return "hidden matrices", "fused query, key and value that cannot be cut into three equal row blocks: taken whole", "auto", 1
    if p.dim() > 3:
        return "hidden matrices", f"{p.dim()} dimensions, flattened to out x rest", "flatten", 1
    return "hidden matrices", f"matrix of {kind}" if p.dim() == 2 else f"stack of {p.shape[0]} matrices of {kind}", "auto", 1

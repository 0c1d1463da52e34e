"""Where state lives: one bucket for each set of parameters that a kernel can take together.

Large parameters go alone, without a copy. Small ones are packed: gathered into scratch tensors, stepped by one kernel call and scattered
back, so that a model of many small tensors costs a few calls. This file has what all buckets share; `flat`, `stack` and `split` have
the three ways to lay out tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from thalweg.core import sharding
from thalweg.core.codecs import FULL, Codec
from thalweg.core.contract import RuleLike
from thalweg.core.form import Form, Layout, Stores
from thalweg.core.precision import fallback_reason

PACK = 65_536
"""Parameters of up to this many elements are packed."""

CAPACITY = 524_288
"""Elements of a packed bucket: two scratch tensors of this size are all the memory that packing costs."""


@dataclass(frozen=True)
class Plan:
    """What a group asks of its buckets.

    Args:
        rule: the rule.
        codecs: precision of each state; a state that is not named is full.
        rounding: of 16-bit weights: "nearest", "stochastic" or "kahan".
        layout: "auto", "flatten" or "stack": how a parameter of three or more dimensions becomes matrices.
        split: number of equal row blocks that each matrix really holds (3 for a fused QKV).
    """

    rule: RuleLike
    codecs: dict[str, Codec]
    rounding: str = "nearest"
    layout: str = "auto"
    split: int = 1


@dataclass
class Piece:
    """The tensors of one kernel call, and the copies that bring packed results back: `targets[i] <- sources[i]`."""

    g: Tensor
    w: Tensor
    stores: Stores
    index: Tensor | None
    shapes: list[list[int]] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    compilable: bool = True  # sizes of one would each want a graph of their own

    def scatter(self) -> None:
        """Copy packed results back."""
        if self.targets:
            torch._foreach_copy_(self.targets, self.sources)


class Scratch:
    """Reusable memory for packing, one tensor for each use, device and dtype."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def take(self, use: str, n: int, like: Tensor) -> Tensor:
        """A vector of n elements with whatever it held before."""
        key = (use, like.device, like.dtype)
        if key not in self._held or self._held[key].numel() < n:
            self._held[key] = torch.zeros(max(n, 2), dtype=like.dtype, device=like.device)
        return self._held[key][:n]


def plain(p: Tensor) -> Tensor:
    """The parameter as a real tensor that this process holds: the shard of a DTensor, the real view of a complex one."""
    x = sharding.local(p.detach())
    return torch.view_as_real(x) if x.is_complex() else x


def is_ordinary(p: Tensor) -> bool:
    """Whether the parameter is its own real tensor, so that kernels may take it as it is."""
    return type(p) in (Tensor, torch.nn.Parameter) and not p.is_complex()


def widest(grads: list[Tensor]) -> Tensor:
    """The gradient whose dtype holds the others': several are packed in it."""
    return max({g.dtype: g for g in grads}.values(), key=lambda g: g.dtype.itemsize)


class Bucket(ABC):
    """Parameters whose state is stored together. All are on one device, of one dtype, in one group.

    Args:
        params: the parameters.
        ids: position of each in the optimizer; it keys the noise.
        plan: what the group asks for.
        group: index of the group.
    """

    def __init__(self, params: list[Tensor], ids: list[int], plan: Plan, group: int) -> None:
        self.params, self.ids, self.plan, self.group = params, ids, plan, group
        first = plain(params[0])
        self.device, self.dtype = first.device, first.dtype
        self.compute = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.steps = torch.zeros(len(params), dtype=torch.int64)
        self.t: int | None = 0  # the step that all parameters share, or None
        self.past = torch.zeros(len(params), len(plan.rule.past), dtype=torch.float64)  # what each parameter carries from step to step
        self.shared: Tensor | None = None  # what all parameters of the optimizer share
        self.codecs: dict[str, Codec] = {}
        self.reasons: dict[str, str] = {}  # why a state is stored at full precision against the plan
        self.stores: Stores = []
        self.worth = sum(p.numel() for p in params)  # elements that share this bucket's compiled program
        self.rule_shape: tuple[int, ...] = (2,)  # the shape in which the rule sees a parameter, or a piece of one
        self.kernel: Form
        self.programs: dict[str, Any] = {}  # what runs on this bucket, kept so that it need not be looked up in every step

    is_local = True
    """Whether a kernel sees only this process's shards, so that sums over parameters must be added up over processes."""

    @abstractmethod
    def pieces(self, members: range, grads: list[Tensor], scratch: Scratch) -> Iterator[Piece]:
        """The kernel calls for consecutive parameters with these gradients; each is run before the next is asked for."""

    @abstractmethod
    def held(self, i: int) -> dict[str, tuple[Tensor, ...]]:
        """The storage of one parameter, by state, in the parameter's shape where the state has it."""

    @abstractmethod
    def stand_in(self) -> Piece:
        """Tensors like this bucket's, of a size at which the compiler plans parallel loops."""

    def rebind(self, rule: RuleLike) -> None:
        """Take over a rule whose hyperparameters were changed.

        Raises:
            ValueError: if with them the rule keeps other state.
        """
        layout = Layout.of(rule)
        if layout == self.kernel.layout:
            return
        example = torch.empty(self.rule_shape, device="meta")
        old, new = ([(name, list(x.shape)) for name, x in r.init(example).items()] for r in (self.plan.rule, rule))
        if old != new:
            had, wants = (", ".join(f"{name} {shape}" for name, shape in kept) or "none" for kept in (old, new))
            raise ValueError(
                f"{rule.name}: the changed hyperparameters keep other state (for weights {list(example.shape)} had: {had}; now: {wants}); "
                "build a new optimizer."
            )
        self.kernel = replace(self.kernel, layout=layout)
        self.programs.clear()

    def choose(self, name: str, count: int) -> Codec:
        """The codec of a state with `count` elements, noting the reason where it is not the one that was asked for."""
        wanted = self.plan.codecs.get(name, FULL)
        reason = None if wanted is FULL else fallback_reason(wanted, count)
        if reason is not None:
            self.reasons[name] = reason
        self.codecs[name] = wanted if reason is None else FULL
        return self.codecs[name]

    def form(self, *, indexed: bool, many: bool = False, vector: bool = False) -> Form:
        """The form of this bucket's kernels."""
        rounding = self.plan.rounding if self.dtype in (torch.bfloat16, torch.float16) else "nearest"
        rule = self.plan.rule
        form = Form(Layout.of(rule), tuple(self.codecs.items()), rule.kinds, self.dtype, self.device, rounding, indexed, many, vector, rule.draws)
        return form if form.noisy else replace(form, indexed=False)

    def views(self, i: int) -> dict[str, Tensor]:
        """The state of one parameter as `optimizer.state[p]` shows it: views of the storage and the parameter's own step."""
        out = {"step": self.steps[i], **{name: self.past[i, k] for k, name in enumerate(self.plan.rule.past)}}
        if self.shared is not None:
            out["shared"] = self.shared
        for name, parts in self.held(i).items():
            for k, part in enumerate(parts):
                out[name if k == 0 else f"{name}.{k}"] = part
        return out

    def runs(self, active: Sequence[bool]) -> Iterator[tuple[range, int]]:
        """Consecutive parameters that have a gradient and share a step and a past, with that step (counted from one)."""
        if self.t is not None and all(active):
            yield range(len(self.params)), self.t + 1
            return
        steps, past, start = self.steps.tolist(), self.past.tolist(), 0
        for i in range(1, len(steps) + 1):
            if i == len(steps) or active[i] != active[start] or (steps[i], past[i]) != (steps[start], past[start]):
                if active[start]:
                    yield range(start, i), steps[start] + 1
                start = i

    def recount(self) -> None:
        """Find the step that all parameters share, after the counts were changed."""
        low, high = int(self.steps.min()), int(self.steps.max())
        self.t = low if low == high and bool((self.past == self.past[0]).all()) else None

    def recurred(self, rule: RuleLike, first: int, t: int) -> list[float]:
        """What the parameters of a run that starts with `first` carry at step t."""
        if not rule.past:
            return []
        before = dict(zip(rule.past, self.past[first].tolist(), strict=True)) if t > 1 else {}
        after = rule.recur(t, before)
        return [float(after[name]) for name in rule.past]

    def carry(self, rule: RuleLike, active: Sequence[bool]) -> None:
        """Move what parameters carry to the step under way; to be called before the counts go up."""
        if rule.past:
            for members, t in list(self.runs(active)):
                self.past[members.start : members.stop] = torch.tensor(self.recurred(rule, members.start, t), dtype=torch.float64)


def advance(taken: Sequence[tuple[Bucket, Sequence[bool]]], rules: Sequence[RuleLike]) -> None:
    """Count a step for the parameters that had a gradient, in one call for all buckets where every parameter had. `rules` are the groups'."""
    for bucket, active in taken:
        bucket.carry(rules[bucket.group], active)
    whole = [bucket for bucket, active in taken if all(active)]
    if whole:
        torch._foreach_add_([bucket.steps for bucket in whole], 1)
    for bucket in whole:
        bucket.t = None if bucket.t is None else bucket.t + 1
    for bucket, active in taken:
        if not all(active):
            bucket.steps += torch.tensor(active, dtype=torch.int64)
            bucket.recount()

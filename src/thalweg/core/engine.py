"""Engine: the torch optimizer that runs any rule. The only code that loops over parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.core import checkpoint, groups
from thalweg.core.buckets import Bucket, Plan, plain
from thalweg.core.contract import Needs, RuleLike
from thalweg.core.describe import Description, describe
from thalweg.core.execution import Execution, Work
from thalweg.core.packing import buckets_for
from thalweg.core.precision import parse_precision
from thalweg.core.probe import PROBES
from thalweg.core.random import fold

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

OPTIONS: Mapping[str, Any] = {"backend": "auto", "state_precision": None, "weight_rounding": "nearest", "on_nonfinite": "propagate", "seed": 0}
"""The engine's keyword options with their defaults."""

_ACCEPTED = {
    "backend": ("auto", "compiled", "eager"),
    "weight_rounding": ("nearest", "stochastic", "kahan"),
    "on_nonfinite": ("propagate", "raise", "skip"),
}

class Engine(torch.optim.Optimizer):
    """A torch optimizer that runs a rule: param groups, closures, schedulers, hooks, checkpoints, DTensor and AMP as usual.

    Args:
        params: parameters, named parameters or param groups. A group may set any hyperparameter, its own "rule", and for rules that see matrices
            "layout" ("auto", "flatten" or "stack") and "split" (equal row blocks of each matrix).
        rule: the rule of the groups that bring none.
        backend: "compiled", "eager", or "auto": eager at first, compiled after 20 steps where the group has a million elements or more.
        state_precision: None or "fp32", "bf16", "8bit", "4bit", or a mapping from state names to these.
        weight_rounding: of 16-bit weights: "nearest", "stochastic" or "kahan" (a compensation is kept beside each weight).
        on_nonfinite: what a NaN or infinite gradient does: "propagate" into the weights, "raise" before anything moves, or "skip" the step
            (the last two read one flag from the device each step).
        seed: of the noise in stochastic rounding and of curvature probes. Noise is a function of seed, step and position: runs repeat exactly.

    Raises:
        ValueError: for a bad option, hyperparameter or group key; the message names it, what is accepted and what was found.
    """

    def __init__(
        self, params: Params, rule: RuleLike, *, backend: str = "auto", state_precision: str | Mapping[str, str] | None = None,
        weight_rounding: str = "nearest", on_nonfinite: str = "propagate", seed: int = 0,
    ) -> None:
        self.options = {
            "backend": backend, "state_precision": state_precision, "weight_rounding": weight_rounding, "on_nonfinite": on_nonfinite, "seed": seed,
        }
        for name, accepted in _ACCEPTED.items():
            if self.options[name] not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}; found {self.options[name]!r}.")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer >= 0; found {seed!r}.")
        self.rule = rule
        self.plan: object | None = None  # what `route` decided, printable
        self._rules: list[RuleLike] = []
        self._reset()
        super().__init__(params, dict(rule.hyper()))  # type: ignore[arg-type]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyperparameters are checked here."""
        rule, group = groups.checked(param_group, self.rule)
        defaults, self.defaults = self.defaults, {}
        try:
            super().add_param_group(group)
        finally:
            self.defaults = defaults
        try:
            for name, p in zip(self.names(group), group["params"], strict=True):
                groups.check_parameter(rule, name, p)
        except Exception:
            self.param_groups.pop()
            raise
        self._rules.append(rule)
        self._positions = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}

    def names(self, group: dict[str, Any]) -> list[str]:
        """The names of a group's parameters: as given by named_parameters(), or "group.position"."""
        i = next((k for k, g in enumerate(self.param_groups) if g is group), len(self.param_groups))
        return list(group.get("param_names") or (f"{i}.{k}" for k in range(len(group["params"]))))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step. Parameters without a gradient keep their weights, state and step count.

        Args:
            closure: evaluates the model and returns the loss; it calls backward, except where the rule has a probe (see `probe`): then it returns
                the loss (for "gnb" the pair of loss and logits) and leaves the backward to the optimizer.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = self._with_probe(closure) if any(rule.probe_kind for rule in self._rules) else closure()
        for i in range(len(self.param_groups)):
            self._current(i)
        work = self._work()
        if self.options["on_nonfinite"] != "propagate" and not groups.all_finite([g for _, _, grads in work for g in grads]):
            if self.options["on_nonfinite"] == "raise":
                bad = [name for name, p in self._named() if p.grad is not None and not bool(plain(p.grad).isfinite().all())]
                raise RuntimeError(f"The gradient of {', '.join(bad[:3])} is not finite; nothing was changed. Lower the learning rate, clip, or use on_nonfinite='skip'.")
            return loss
        sums = self.execution.sums(work, self._rules)
        for bucket, active, grads in work:
            self.execution.run(bucket, self._rules[bucket.group], active, grads, "step", sums)
            bucket.advance(active)
        return loss

    def describe(self) -> Description:
        """For each parameter: rule, backend, precision of each state, bytes of state, and why a choice fell back to fp32. Printable."""
        return describe(self)

    @property
    def probe_due(self) -> bool:
        """Whether a rule wants a curvature probe before the next step."""
        return any(rule.probe_kind and self._probed != self._taken() and self._taken() % rule.hyper()["every"] == 0 for rule in self._rules)

    def probe(self, loss_fn: Callable[[], Any]) -> Any:
        """Give the rules that ask for it an estimate of the curvature's diagonal.

        Args:
            loss_fn: for "hutchinson" returns the loss, without calling backward; for "gnb" returns the logits [..., classes] of the batch.

        Returns:
            What `loss_fn` returned.
        """
        kind = self._probe_kind()
        with torch.enable_grad():
            out = loss_fn()
            self._absorb(kind, out)
        return out

    def state_dict(self) -> dict[str, Any]:
        """As torch's. Every state keeps its precision; the groups name the rule and the schema version; loads with weights_only=True."""
        return super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume exactly. A file of another rule, shape, precision or newer schema is refused before anything changes."""
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        checkpoint.load(self, state_dict)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule, "plan": self.plan, "_rules": self._rules, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._reset()
        self._positions = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        held = {p: dict(s) for p, s in self.state.items()}
        self.state.clear()
        self.adopt(held)

    def adopt(self, states: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        """Replace all state by copies of `states`."""
        self._reset()
        self.state.clear()
        for i, group in enumerate(self.param_groups):
            self._admit(i, [p for p in group["params"] if states.get(p)])
        for bucket in self._buckets:
            for k, p in enumerate(bucket.params):
                for name, view in self.state[p].items():
                    checkpoint.copy_state(view, states[p][name])
            bucket.recount()

    def _reset(self) -> None:
        self._buckets: list[Bucket] = []
        self._admitted: set[Tensor] = set()
        self._probed = -1
        self.execution = Execution(str(self.options["backend"]), int(self.options["seed"]))

    def _taken(self) -> int:
        """Steps taken so far by the parameter that took most."""
        return max((int(bucket.steps.max()) for bucket in self._buckets), default=0)

    def _probe_kind(self) -> str:
        kinds = {rule.probe_kind for rule in self._rules if rule.probe_kind}
        if len(kinds) != 1:
            raise RuntimeError(f"probe: expected rules with one kind of curvature probe; found {' and '.join(sorted(kinds)) or 'none'}.")
        return kinds.pop()

    def _with_probe(self, closure: Callable[[], Any]) -> Any:
        """Evaluate a closure that leaves the backward to the optimizer, and probe where that is due."""
        kind = self._probe_kind()
        out = closure()
        loss, target = out if kind == "gnb" and isinstance(out, tuple) else (out, out)
        if kind == "gnb" and not isinstance(out, tuple):
            raise RuntimeError("This rule's closure returns the pair (loss, logits), without calling backward().")
        if self.probe_due:
            self._absorb(kind, target)
        for p in (p for group in self.param_groups for p in group["params"]):
            p.grad = None
        loss.backward()
        return loss

    def _absorb(self, kind: str, target: Any) -> None:
        taken = self._taken()
        groups = [(i, group) for i, group in enumerate(self.param_groups) if self._rules[i].probe_kind]
        params = [p for _, group in groups for p in group["params"] if p.requires_grad and p.numel() > 0]
        generator = torch.Generator(params[0].device).manual_seed(fold(int(self.options["seed"]), taken) % 2**31)
        estimates = dict(zip(params, PROBES[kind](target, params, generator), strict=True))
        with torch.no_grad():
            for i, group in groups:
                self._current(i)
                self._admit(i, [p for p in group["params"] if estimates.get(p) is not None])
            for bucket in self._buckets:
                mine = [estimates.get(p) for p in bucket.params]
                if any(h is not None for h in mine):
                    self.execution.run(bucket, self._rules[bucket.group], [h is not None for h in mine], [h for h in mine if h is not None], "absorb", {})
        self._probed = taken

    def rule_of(self, i: int) -> RuleLike:
        """The rule of group i."""
        return self._rules[i]

    def buckets(self, i: int) -> list[Bucket]:
        """The buckets of group i, with those that its remaining parameters would get."""
        rest = [p for p in self.param_groups[i]["params"] if p not in self._admitted and p.requires_grad and p.numel() > 0]
        return [b for b in self._buckets if b.group == i] + buckets_for(rest, [self._positions[p] for p in rest], self._plan(i), i)

    def expected(self, i: int, p: Tensor) -> dict[str, Tensor]:
        """The state that parameter p of group i has here, or would have."""
        if p in self._admitted:
            return self.state[p]
        return buckets_for([p], [self._positions[p]], self._plan(i), i)[0].views(0)

    def _named(self) -> Iterable[tuple[str, Tensor]]:
        for group in self.param_groups:
            yield from zip(self.names(group), group["params"], strict=True)

    def _plan(self, i: int) -> Plan:
        """What group i asks of its buckets, with the hyperparameters that it has now."""
        group, rule = self.param_groups[i], self._current(i)
        names = tuple(rule.init(torch.zeros(1, 2, 2) if rule.kind is not Needs.ELEMENTWISE else torch.zeros(2)))
        nonnegative = tuple(name for name in names if rule.is_nonnegative(name))
        codecs = parse_precision(self.options["state_precision"], names, nonnegative)
        return Plan(rule, codecs, str(self.options["weight_rounding"]), group["layout"], group["split"])

    def _current(self, i: int) -> RuleLike:
        """The rule of group i with the group's hyperparameters, checked again when they changed."""
        group, rule = self.param_groups[i], self._rules[i]
        old = rule.hyper()
        if any(group[key] is not value and group[key] != value for key, value in old.items()):
            rule = self._rules[i] = rule.with_hyper({key: group[key] for key in old})
        return rule

    def _admit(self, i: int, params: list[Tensor]) -> None:
        new = [p for p in params if p not in self._admitted and p.numel() > 0]
        if new:
            buckets = buckets_for(new, [self._positions[p] for p in new], self._plan(i), i)
            self._buckets += buckets
            self._admitted.update(new)
            for bucket in buckets:
                for k, p in enumerate(bucket.params):
                    self.state[p] = bucket.views(k)

    def _work(self) -> Work:
        """Buckets with gradients: which parameters have one, and the gradients."""
        for i, group in enumerate(self.param_groups):
            if any(p not in self._admitted and p.grad is not None for p in group["params"]):
                self._admit(i, [p for p in group["params"] if p.grad is not None])
        work: Work = []
        for bucket in self._buckets:
            grads = [p.grad for p in bucket.params]
            present = [g for g in grads if g is not None]
            if present:
                if any(g.layout is not torch.strided for g in present):
                    raise TypeError(f"{bucket.plan.rule.name} takes dense gradients; found a sparse one. Use sparse=False in the embedding.")
                work.append((bucket, [g is not None for g in grads], present))
        return work

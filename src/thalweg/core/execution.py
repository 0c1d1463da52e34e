"""Running buckets: the numbers of a step, the backend of each call, the sums over all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.core import sharding
from thalweg.core.backends import EAGER_STEPS, WORTH_COMPILING, Program, program
from thalweg.core.buckets import Bucket, Scratch
from thalweg.core.contract import LOSS, Needs, RuleLike
from thalweg.core.random import fold
from thalweg.core.split import SplitBucket

Work = list[tuple[Bucket, list[bool], list[Tensor]]]
"""Buckets, which of their parameters take part, and a gradient for each that does."""

Sums = dict[tuple[tuple[type, ...], tuple[str, ...]], Tensor]
"""Numbers from the device for one kind of rule, by that kind and the names that it gave them: sums over all parameters, and what they share."""


class Execution:
    """The working memory of one optimizer's steps.

    Args:
        backend: "auto", "compiled" or "eager".
        seed: of the noise.
    """

    def __init__(self, backend: str, seed: int) -> None:
        self.backend, self.seed = backend, seed
        self.scratch = Scratch()
        self._numbers: dict[tuple[int, torch.device], tuple[RuleLike, int, list[float], Tensor]] = {}

    def sums(self, work: Work, rules: Sequence[RuleLike], loss: Any = None) -> Sums:
        """What every rule wants summed over all parameters, one pass over the gradients for each phase; what is shared; the loss."""
        self._numbers.clear()  # a learning rate that is a tensor may have been written in place
        sharing = [(bucket, rules[bucket.group]) for bucket, _, _ in work if bucket.shared is not None]
        out: Sums = {(rule.kinds, rule.shared): bucket.shared for bucket, rule in sharing if bucket.shared is not None}
        if any(LOSS in rule.inputs for rule in rules):
            value = torch.as_tensor(torch.inf if loss is None else loss).detach().double().reshape(1)
            out |= {(rule.kinds, LOSS): value for rule in rules if LOSS in rule.inputs}
        for phase in range(max((len(rule.phases) for rule in rules), default=0)):
            local: dict[tuple[Any, object], tuple[Tensor, Bucket]] = {}
            for bucket, active, grads in work:
                rule = rules[bucket.group]
                if phase < len(rule.phases):
                    part = self.run(bucket, rule, active, grads, f"measure{phase}", out)
                    assert part is not None
                    key = ((rule.kinds, rule.phases[phase]), sharding.placing(bucket.params[0]) if bucket.is_local else None)
                    held = local.get(key)
                    local[key] = (part.double(), bucket) if held is None else (held[0] + part.to(held[0].device), held[1])
            # How many buckets a process has depends on its shards: one sum over processes for each kind of sharding, in an order that all share.
            for (names, placing), (part, bucket) in sorted(local.items(), key=lambda item: item[1][1].ids[0]):
                part = part if placing is None else sharding.summed(part, bucket.params[0])
                out[names] = part if names not in out else out[names] + part.to(out[names].device)
        self._share(sharing, out)
        return out

    def _share(self, sharing: Sequence[tuple[Bucket, RuleLike]], out: Sums) -> None:
        """Let each kind of rule make its shared numbers anew, by the hyperparameters of its first group, and keep them on every device."""
        made: dict[tuple[type, ...], Tensor] = {}
        for bucket, rule in sharing:
            assert bucket.shared is not None
            if rule.kinds not in made:
                known = {name: value for names in rule.inputs[:-1] for name, value in zip(names, out[rule.kinds, names].unbind(), strict=True)}
                new = rule.share(known)
                made[rule.kinds] = torch.stack([new[name].double() for name in rule.shared])
                out[rule.kinds, rule.shared] = bucket.shared.clone()
                out[rule.kinds, rule.inputs[-1]] = made[rule.kinds]
            bucket.shared.copy_(made[rule.kinds])

    def run(self, bucket: Bucket, rule: RuleLike, active: Sequence[bool], grads: list[Tensor], part: str, sums: Sums) -> Tensor | None:
        """One program over a bucket, without autocast, which would narrow its matrix products.

        Args:
            bucket: the parameters.
            rule: their rule with the hyperparameters of this step.
            active: which parameters take part.
            grads: a gradient (for "absorb" a curvature estimate) for each that does.
            part: "step", "absorb", "measure0", ..., "evaluation" or "training".
            sums: what earlier phases measured, and what parameters share.

        Returns:
            For a measurement its vector, else None.
        """
        if not torch.is_autocast_enabled(bucket.device.type):
            return self._run(bucket, rule, active, grads, part, sums)
        with torch.autocast(bucket.device.type, enabled=False):
            return self._run(bucket, rule, active, grads, part, sums)

    def _run(self, bucket: Bucket, rule: RuleLike, active: Sequence[bool], grads: list[Tensor], part: str, sums: Sums) -> Tensor | None:
        total: Tensor | None = None
        at = 0
        for members, t in bucket.runs(active):
            mine = grads[at : at + len(members)]
            at += len(members)
            plain, vector = self.numbers(bucket, rule, t, members.start)
            known = [sums[rule.kinds, names] for names in rule.inputs if (rule.kinds, names) in sums]
            runner: Program | None = bucket.programs.get(part)
            if runner is None:
                runner = bucket.programs[part] = program(rule, bucket.kernel, part)
            ready = self._compiles(bucket, t) and not rule.rare_at(t) and runner.prepare(bucket, wait=True)
            if not ready and self.backend == "auto" and self._compiles(bucket, EAGER_STEPS + 1):
                runner.prepare(bucket, wait=False)
            for piece in bucket.pieces(members, mine, self.scratch):
                given: Any
                if ready and piece.compilable:
                    given = torch.cat([vector, *(x.to(vector.device) for x in known)]) if known else vector
                    result = runner.compiled(piece.g, piece.w, piece.stores, given, piece.index, piece.shapes)
                else:
                    given = [*plain, *(x.to(bucket.device) for row in known for x in row.unbind())] if known else plain
                    result = runner.eager(piece.g, piece.w, piece.stores, given, piece.index, piece.shapes)
                if result is None:
                    piece.scatter()
                else:
                    total = result if total is None else total + result
        return total

    def numbers(self, bucket: Bucket, rule: RuleLike, t: int, first: int) -> tuple[list[float], Tensor]:
        """The numbers of step t for a bucket's group (of a run that starts with parameter `first`), as a list and as a vector on its device."""
        key = (bucket.group, bucket.device)
        held = self._numbers.get(key)
        if held is None or held[0] is not rule or held[1] != t or rule.past:
            plain = bucket.kernel.layout.write(rule, t, fold(self.seed, t), bucket.recurred(rule, first, t))
            vector = torch.tensor(plain, dtype=torch.float64)
            if bucket.device.type == "cuda":
                vector = vector.pin_memory().to(bucket.device, non_blocking=True)
            held = self._numbers[key] = (rule, t, plain, vector)
        return held[2], held[3]

    def _compiles(self, bucket: Bucket, t: int) -> bool:
        if not bucket.plan.rule.compilable:
            return False
        if self.backend != "auto":
            return self.backend == "compiled" and not isinstance(bucket, SplitBucket)
        return t > EAGER_STEPS and bucket.worth >= WORTH_COMPILING and bucket.plan.rule.kind is not Needs.MATRIX

    def backend_of(self, bucket: Bucket) -> str:
        """Which backend a bucket's calls use, in words."""
        if self.backend == "auto":
            return f"eager, compiled after step {EAGER_STEPS}" if self._compiles(bucket, EAGER_STEPS + 1) else "eager"
        return "compiled" if self._compiles(bucket, 1) else "eager"

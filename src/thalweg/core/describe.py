"""What an engine does with each parameter, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thalweg.core.buckets import Bucket
from thalweg.core.sharding import local

if TYPE_CHECKING:
    from thalweg.core.engine import Engine


@dataclass(frozen=True)
class Row:
    """One parameter: its rule, backend, the precision of each state, bytes of state on this process, and remarks."""

    name: str
    shape: tuple[int, ...]
    rule: str
    backend: str
    precision: dict[str, str]
    bytes: int
    elements: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A row for each parameter; printing it gives the table and the totals."""

    rows: tuple[Row, ...]

    @property
    def bytes(self) -> int:
        """Bytes of state on this process."""
        return sum(row.bytes for row in self.rows)

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of state for each weight."""
        return self.bytes / max(1, sum(row.elements for row in self.rows))

    def __str__(self) -> str:
        head = ("parameter", "shape", "rule", "backend", "state", "bytes/weight")
        table = [head] + [
            (r.name, "x".join(map(str, r.shape)) or "scalar", r.rule, r.backend, ", ".join(f"{k} {v}" for k, v in r.precision.items()) or "none",
             f"{r.bytes / max(1, r.elements):.2f}")
            for r in self.rows
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)).rstrip() for line in table]
        lines += [f"{r.name}: {remark}" for r in self.rows for remark in r.remarks]
        return "\n".join([*lines, f"state: {self.bytes:,} bytes, {self.bytes_per_parameter:.2f} per weight"])


def describe(engine: Engine) -> Description:
    """Describe an engine as it would run now; state that does not exist yet is planned, not allocated for good."""
    rows = []
    for i, group in enumerate(engine.param_groups):
        planned = {p: (bucket, k) for bucket in engine.memory.of_group(i) for k, p in enumerate(bucket.params)}
        for name, p in zip(engine.names(group), group["params"], strict=True):
            if p in planned:
                rows.append(_row(engine, name, *planned[p]))
            else:
                why = "has no elements" if p.numel() == 0 else "does not require a gradient"
                rows.append(Row(name, tuple(p.shape), group["rule"], "none", {}, 0, p.numel(), (why,)))
    return Description(tuple(rows))


def _row(engine: Engine, name: str, bucket: Bucket, k: int) -> Row:
    held = bucket.held(k)
    size = sum(part.numel() * part.element_size() for parts in held.values() for part in map(local, parts))
    precision = {state: codec.name for state, codec in bucket.codecs.items()}
    remarks = [f"state {state} stays in full precision: {why}" for state, why in bucket.reasons.items()]
    p = bucket.params[k]
    return Row(name, tuple(p.shape), bucket.plan.rule.name, engine.execution.backend_of(bucket), precision, size, local(p).numel(), tuple(remarks))

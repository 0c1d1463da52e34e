"""Which parameters share a bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from thalweg.core import sharding
from thalweg.core.buckets import CAPACITY, PACK, Bucket, Plan, plain
from thalweg.core.contract import Needs
from thalweg.core.flat import FlatBucket, is_dense
from thalweg.core.precision import fallback_reason
from thalweg.core.split import SplitBucket
from thalweg.core.stack import StackBucket


def stands_alone(p: Tensor, kind: Needs) -> bool:
    """Whether a parameter has a bucket of its own whatever the others are."""
    if kind is not Needs.ELEMENTWISE:
        return sharding.is_split(p) or plain(p).numel() > PACK
    return plain(p).numel() > PACK and is_dense(plain(p))


def buckets_for(params: Sequence[Tensor], ids: Sequence[int], plan: Plan, group: int) -> list[Bucket]:
    """Buckets for parameters of one group: large ones alone, small ones of a kind together, in their order.

    Args:
        params: parameters, none empty.
        ids: position of each in the optimizer.
        plan: what the group asks for.
        group: index of the group.
    """
    elementwise = plan.rule.kind is Needs.ELEMENTWISE
    kind = FlatBucket if elementwise else StackBucket
    out: list[Bucket] = []
    together: dict[object, list[tuple[Tensor, int]]] = defaultdict(list)
    for p, i in zip(params, ids, strict=True):
        x = plain(p)
        if not elementwise and sharding.is_split(p):
            out.append(SplitBucket([p], [i], plan, group))
        elif stands_alone(p, plan.rule.kind):
            out.append(kind([p], [i], plan, group))
        else:
            narrow = tuple(fallback_reason(codec, sharding.largest(x, p)) is None for codec in plan.codecs.values())
            together[(x.device, x.dtype, sharding.placing(p), narrow, () if elementwise else x.shape)].append((p, i))
    for members in together.values():
        some: list[tuple[Tensor, int]] = []
        for p, i in members:
            if some and sum(q.numel() for q, _ in some) + p.numel() > CAPACITY:
                out.append(kind([q for q, _ in some], [k for _, k in some], plan, group))
                some = []
            some.append((p, i))
        out.append(kind([q for q, _ in some], [k for _, k in some], plan, group))
    for bucket in out:
        bucket.worth = sum(p.numel() for p in params)
    return out

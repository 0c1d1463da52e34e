"""DTensor in and out, with one process that plays rank 0 of four."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from thalweg.core import sharding
from thalweg.core.buckets import Plan
from thalweg.core.packing import buckets_for
from thalweg.core.split import SplitBucket
from thalweg.optim import AdamW, Muon, NovoGrad


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield init_device_mesh("cpu", (4,))
    dist.destroy_process_group()


def shard(mesh: DeviceMesh, local: tuple[int, ...], whole: tuple[int, ...], placement: Placement) -> DTensor:
    stride = torch.empty(whole).stride()
    return DTensor.from_local(torch.zeros(local), mesh, [placement], run_check=False, shape=torch.Size(whole), stride=stride)


def test_plain_tensors_pass_through() -> None:
    x, w = torch.ones(3), torch.zeros(3)
    assert sharding.local(x) is x and sharding.whole(x) is x and sharding.like(x, w) is x and sharding.scatter(x, w) is x
    assert sharding.aligned(x, w) is x and sharding.summed(x, w) is x and sharding.rows_of(x, w) is x
    assert not sharding.is_split(x) and sharding.placing(x) is None and sharding.largest(torch.ones(5), w) == 5
    assert bool(sharding.anywhere(torch.tensor(True), [x])) and not bool(sharding.anywhere(torch.tensor(False), [x]))


def test_what_processes_must_agree_on(mesh: DeviceMesh) -> None:
    """Sizes are of the largest shard, on whichever process it lies."""
    rows = shard(mesh, (3, 5), (10, 5), Shard(0))
    assert sharding.largest(rows.to_local(), rows) == 15
    assert sharding.largest(torch.zeros(0), shard(mesh, (3, 5), (10, 5), Shard(0))) == 15
    assert sharding.largest(torch.zeros(1), shard(mesh, (10, 2), (10, 5), Shard(1))) == 20
    assert sharding.largest(torch.zeros(1), shard(mesh, (10, 5), (10, 5), Replicate())) == 50
    kept = shard(mesh, (10, 5), (10, 5), Replicate())
    assert sharding.is_split(rows) and not sharding.is_split(kept)
    assert sharding.placing(rows) == sharding.placing(shard(mesh, (1, 2), (4, 2), Shard(0))) != sharding.placing(kept)


def test_wrapping(mesh: DeviceMesh) -> None:
    w = shard(mesh, (3, 5), (10, 5), Shard(0))
    state = sharding.like(torch.ones(3, 5), w)
    assert isinstance(state, DTensor) and state.shape == (10, 5) and state.placements == w.placements
    assert sharding.like(torch.ones(7), w).shape == (7,), "another shape is another thing"
    blocks = sharding.rows_of(torch.zeros(2, 256, dtype=torch.uint8), w)
    assert isinstance(blocks, DTensor) and blocks.shape == (8, 256) and blocks.to_local().shape == (2, 256)
    assert sharding.rows_of(torch.zeros(2, 256), shard(mesh, (10, 5), (10, 5), Replicate())).shape == (2, 256)


def test_buckets_keep_placements_apart(mesh: DeviceMesh) -> None:
    """Sums over parameters are added up over processes bucket by bucket."""
    cut, kept, other = shard(mesh, (3, 5), (10, 5), Shard(0)), shard(mesh, (4, 5), (4, 5), Replicate()), shard(mesh, (2, 4), (8, 4), Shard(0))
    params = [nn.Parameter(x) for x in (cut, kept, other)]
    buckets = buckets_for([*params, nn.Parameter(torch.zeros(4))], range(4), Plan(AdamW(), {}), 0)
    assert [b.ids for b in buckets] == [[0, 2], [1], [3]]
    assert buckets[0].stores[0][0].numel() == 15 + 8
    for rule in (Muon(), NovoGrad()):
        whole = buckets_for(params, range(3), Plan(rule, {}), 0)
        assert [type(b) is SplitBucket for b in whole] == [True, True, False] and [b.ids for b in whole] == [[0], [2], [1]]


def test_a_shard_without_elements(mesh: DeviceMesh) -> None:
    (bucket,) = buckets_for([nn.Parameter(shard(mesh, (0, 5), (3, 5), Shard(0)))], [0], Plan(AdamW(), {}), 0)
    view = bucket.views(0)["m"]
    assert isinstance(view, DTensor) and view.shape == (3, 5) and view.to_local().numel() == 0

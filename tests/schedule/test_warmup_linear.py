"""Linear warm-up and linear decay: by hand, as a link, and with torch's LambdaLR."""

from __future__ import annotations

import pytest
import torch

from thalweg.core.chain import chain
from thalweg.optim import SGD, AdamW
from thalweg.schedule import WarmupLinear


def test_by_hand() -> None:
    plan = WarmupLinear(total=6, warmup=2)
    assert [plan.factor(t - 1) for t in range(1, 9)] == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0])
    assert [plan.scalars(t)["factor"] for t in range(1, 9)] == [plan.factor(t - 1) for t in range(1, 9)]


def test_without_warmup_it_is_the_papers_linear_decay_up_to_a_constant() -> None:
    plan = WarmupLinear(total=50)
    assert [plan.factor(t - 1) for t in range(1, 51)] == pytest.approx([(1 - t / 51) * 51 / 50 for t in range(1, 51)])


def test_a_link_scales_the_whole_direction_decay_included() -> None:
    linked = chain(AdamW(weight_decay=0.1), WarmupLinear(total=6, warmup=2))
    plain = chain(AdamW(weight_decay=0.1))
    w, g = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    for t in range(1, 7):
        d = [rule.step(g, w, rule.init(w), {"t": float(t), **rule.scalars(t)})[0] for rule in (linked, plain)]
        assert torch.allclose(d[0], WarmupLinear(total=6, warmup=2).factor(t - 1) * d[1], rtol=1e-14)


def test_the_link_and_lambda_lr_give_one_run() -> None:
    ends = []
    for use_link in (True, False):
        p, plan = torch.nn.Parameter(torch.ones(5, dtype=torch.float64)), WarmupLinear(total=10, warmup=3)
        optimizer = chain(SGD(lr=0.1, momentum=0.9), plan).optimizer([p]) if use_link else SGD([p], lr=0.1, momentum=0.9)
        schedule = None if use_link else torch.optim.lr_scheduler.LambdaLR(optimizer, plan.factor)
        for t in range(12):
            p.grad = torch.cos(p.detach() + t)
            optimizer.step()
            if schedule is not None:
                schedule.step()
        ends.append(p.detach())
    assert torch.allclose(ends[0], ends[1], rtol=1e-12)


def test_bad_lengths() -> None:
    with pytest.raises(ValueError, match="warmup must be below total, found warmup=10, total=10"):
        WarmupLinear(total=10, warmup=10)
    with pytest.raises(ValueError, match="total must be"):
        WarmupLinear(total=0)
    with pytest.raises(TypeError, match="total"):
        WarmupLinear()

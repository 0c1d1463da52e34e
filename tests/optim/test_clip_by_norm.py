"""Clipping by the global norm: torch.nn.utils.clip_grad_norm_ is followed in test_oracles, to the 1e-6 that it adds to the norm."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, gradient, numbers, weights

from thalweg.core.chain import chain
from thalweg.optim.clip_by_norm import ClipByNorm
from thalweg.optim.clip_by_value import ClipByValue
from thalweg.optim.sgd import SGD


def clipped(g: torch.Tensor, max_norm: float) -> list[float]:
    rule = ClipByNorm(max_norm=max_norm)
    return act(rule, g, g, square=rule.measure(g, g, {}, {})["square"])[0].tolist()


def test_by_hand() -> None:
    assert clipped(numbers(3.0, 4.0), 1.0) == pytest.approx([0.6, 0.8])
    assert clipped(numbers(3.0, 4.0), 5.0) == [3.0, 4.0]
    assert clipped(numbers(0.0, 0.0), 1.0) == [0.0, 0.0]


def test_what_is_not_finite_stays_visible() -> None:
    assert all(x != x for x in clipped(numbers(1.0, float("nan")), 1.0))
    assert clipped(numbers(1.0, float("inf")), 1.0)[1] != clipped(numbers(1.0, float("inf")), 1.0)[1]


def test_the_norm_is_the_whole_models_and_short_gradients_pass() -> None:
    after = follow(chain(ClipByNorm(max_norm=0.5), lr=1.0), weights(MIXED), 1)
    steps = torch.cat([(a - b).flatten() for a, b in zip(after, weights(MIXED), strict=True)])
    assert steps.norm().item() == pytest.approx(0.5)
    flat = torch.cat([g.flatten() for g in gradient(1, weights(MIXED))])
    assert torch.cosine_similarity(steps, -flat, dim=0).item() == pytest.approx(1)
    assert distance(follow(chain(ClipByNorm(max_norm=1e9), SGD(lr=0.1)), weights(MIXED), 9), follow(SGD(lr=0.1), weights(MIXED), 9)) == 0


def test_each_global_link_measures_what_reaches_it() -> None:
    twice = follow(chain(ClipByNorm(max_norm=2.0), ClipByValue(max_value=0.1), ClipByNorm(max_norm=0.01), lr=1.0), weights(MIXED), 1)
    assert torch.cat([(a - b).flatten() for a, b in zip(twice, weights(MIXED), strict=True)]).norm().item() == pytest.approx(0.01)

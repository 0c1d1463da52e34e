"""Clipping by value: torch.nn.utils.clip_grad_value_ is followed in test_oracles."""

from __future__ import annotations

from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.core.chain import chain
from thalweg.optim.clip_by_value import ClipByValue
from thalweg.optim.sgd import SGD


def test_by_hand() -> None:
    inf, nan = float("inf"), float("nan")
    d = act(ClipByValue(max_value=0.5), numbers(3.0, -0.2, -4.0, inf, nan), numbers(0.0, 0.0, 0.0, 0.0, 0.0))[0].tolist()
    assert d[:4] == [0.5, -0.2, -0.5, 0.5]
    assert d[4] != d[4]


def test_small_coordinates_pass() -> None:
    assert distance(follow(chain(ClipByValue(max_value=1e9), SGD(lr=0.1)), weights(MIXED), 9), follow(SGD(lr=0.1), weights(MIXED), 9)) == 0

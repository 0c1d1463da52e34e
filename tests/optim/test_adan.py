"""Adan against its equations, by hand in fp64; pytorch_optimizer's is followed in test_oracles."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MIXED, distance, follow, weights

import thalweg as tw
from thalweg.optim.adam import Adam
from thalweg.optim.adan import Adan


def test_three_steps_by_hand() -> None:
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = tw.optim.Adan([w], lr=0.1, betas=(0.9, 0.8, 0.7), eps=1e-3, weight_decay=0.5)
    expected, m, v, n, before = 1.0, 0.0, 0.0, 0.0, 0.5
    for t, g in enumerate([0.5, -0.25, 2.0], start=1):
        w.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        m = 0.9 * m + 0.1 * g
        v = 0.8 * v + 0.2 * (g - before)
        n = 0.7 * n + 0.3 * (g + 0.8 * (g - before)) ** 2
        u = (m / (1 - 0.9**t) + 0.8 * v / (1 - 0.8**t)) / (math.sqrt(n / (1 - 0.7**t)) + 1e-3)
        expected, before = (expected - 0.1 * u) / (1 + 0.1 * 0.5), g
        assert w.item() == pytest.approx(expected, rel=1e-14)


def test_equals_adam_without_the_difference() -> None:
    pair = Adan(lr=0.01, betas=(0.9, 0.0, 0.99), weight_decay=0.0), Adam(lr=0.01, betas=(0.9, 0.99))
    assert distance(follow(pair[0], weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) < 1e-14
    assert distance(follow(Adan(lr=0.01, betas=(0.9, 0.5, 0.99), weight_decay=0.0), weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) > 1e-3

"""Lion: pytorch_optimizer's is followed in test_oracles."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.lion import Lion
from thalweg.optim.signum import Signum


def test_a_step_by_hand() -> None:
    d, s = act(Lion(betas=(0.9, 0.5), weight_decay=0.1), numbers(5.0, -8.0, 0.0), numbers(1.0, 1.0, 1.0), {"m": numbers(-0.5, 1.0, 0.0)})
    assert d.tolist() == pytest.approx([1.1, 1.1, 0.1]), "0.9 m + 0.1 g is 0.05, 0.1 and 0: the sign comes from the first average"
    assert s["m"].tolist() == pytest.approx([2.25, -3.5, 0.0]), "and the memory is the second"


def test_equals_signum_where_both_averages_are_one() -> None:
    pair = Lion(lr=0.01, betas=(0.9, 0.9), weight_decay=0.1), Signum(lr=0.01, momentum=0.9, weight_decay=0.1)
    assert distance(follow(pair[0], weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) == 0
    assert distance(follow(Lion(lr=0.01, weight_decay=0.1), weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) > 1e-3


def test_the_step_does_not_depend_on_the_loss_scale() -> None:
    g, w = weights(MIXED)[0], weights(MIXED)[0]
    assert torch.equal(act(Lion(), g, w)[0], act(Lion(), 1e6 * g, w)[0])

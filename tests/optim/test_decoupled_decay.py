"""The decay link, last and first in a chain."""

from __future__ import annotations

from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.core.chain import chain
from thalweg.optim.adam import Adam
from thalweg.optim.adamw import AdamW
from thalweg.optim.decoupled_decay import DecoupledDecay
from thalweg.optim.sgd import SGD


def test_a_step_by_hand() -> None:
    d, s = act(DecoupledDecay(weight_decay=0.5), numbers(3.0, 0.0), numbers(2.0, -4.0))
    assert (d.tolist(), s) == ([4.0, -2.0], {})


def test_last_it_decays_and_first_it_is_a_penalty() -> None:
    decay = DecoupledDecay(weight_decay=0.1)
    pairs = [
        (chain(Adam(lr=0.01), decay), AdamW(lr=0.01, weight_decay=0.1)),
        (chain(decay, SGD(lr=0.05, momentum=0.9)), SGD(lr=0.05, momentum=0.9, weight_decay=0.1)),
        (chain(decay, lr=0.05), SGD(lr=0.05, weight_decay=0.1)),
    ]
    for linked, whole in pairs:
        assert distance(follow(linked, weights(MIXED), 30), follow(whole, weights(MIXED), 30)) < 1e-15

"""AdamW: torch.optim.AdamW is followed in test_oracles."""

from __future__ import annotations

import pytest
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.core.chain import chain
from thalweg.optim.adam import Adam
from thalweg.optim.adamw import AdamW
from thalweg.optim.decoupled_decay import DecoupledDecay


def test_first_step_by_hand() -> None:
    d, s = act(AdamW(lr=0.1, betas=(0.5, 0.8), eps=0.3, weight_decay=0.5), numbers(3.0), numbers(2.0))
    assert d.item() == pytest.approx(3 / 3.3 + 0.5 * 2)
    assert (s["m"].item(), s["v"].item()) == pytest.approx((1.5, 1.8)), "the decay is in neither average"


def test_is_adam_with_decoupled_decay() -> None:
    linked = chain(Adam(lr=0.01), DecoupledDecay(weight_decay=0.1))
    assert distance(follow(linked, weights(MIXED), 30), follow(AdamW(lr=0.01, weight_decay=0.1), weights(MIXED), 30)) < 1e-15
    assert distance(follow(Adam(lr=0.01), weights(MIXED), 30), follow(AdamW(lr=0.01, weight_decay=0.0), weights(MIXED), 30)) == 0


def test_decay_does_not_depend_on_the_gradients_size_as_the_l2_penalty_does() -> None:
    """The paper's point: large gradients shrink an L2 penalty under Adam and leave the decay as it is."""
    def pull(rule: type[Adam] | type[AdamW], size: float) -> float:
        steps = [follow(rule(lr=0.1, weight_decay=decay), [numbers(1.0)], 1, grads=lambda t, ws: [numbers(size)])[0].item() for decay in (0.0, 0.5)]
        return steps[0] - steps[1]

    assert pull(AdamW, 1.0) == pytest.approx(0.05) == pull(AdamW, 100.0)
    assert pull(Adam, 100.0) == pytest.approx(0, abs=1e-9), "at its first step Adam normalises the penalty away"

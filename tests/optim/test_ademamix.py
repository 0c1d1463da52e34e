"""AdEMAMix: pytorch_optimizer's is followed in test_oracles (with weight_decouple=True: its default is an L2 penalty, the paper decouples)."""

from __future__ import annotations

import math

import pytest
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.adamw import AdamW
from thalweg.optim.ademamix import AdEMAMix


def test_a_step_by_hand() -> None:
    rule = AdEMAMix(betas=(0.5, 0.8, 0.9), eps=0.3, alpha=2.0, weight_decay=0.1)
    d, s = act(rule, numbers(3.0), numbers(2.0), {"m1": numbers(1.0), "m2": numbers(-1.0), "v": numbers(4.0)}, t=2)
    assert (s["m1"].item(), s["m2"].item(), s["v"].item()) == pytest.approx((2.0, -0.6, 5.0))
    assert d.item() == pytest.approx((2 / 0.75 + 2 * -0.6) / (math.sqrt(5 / 0.36) + 0.3) + 0.2), "the slow average is not bias-corrected"


def test_schedules_by_hand() -> None:
    rule = AdEMAMix(betas=(0.9, 0.999, 0.9999), alpha=5.0, alpha_warmup=100, beta3_warmup=100)
    at = {t: rule.scalars(t) for t in (1, 50, 100, 1000)}
    root = {t: math.sqrt(1 - 0.999**t) for t in at}
    assert [at[t]["slow"] / root[t] for t in at] == pytest.approx([0.05, 2.5, 5.0, 5.0])
    a, b = math.log(0.9), math.log(0.9999)
    assert at[50]["b3"] == pytest.approx(math.exp(a * b / (0.5 * b + 0.5 * a)), abs=1e-15), "the paper's form of the schedule"
    life = [math.log(0.5) / math.log(x) for x in (0.9, at[50]["b3"], 0.9999)]
    assert life[1] == pytest.approx((life[0] + life[2]) / 2), "the half-life grows linearly"
    assert (at[100]["b3"], at[1000]["b3"]) == (0.9999, 0.9999)
    assert 0 < AdEMAMix(betas=(0.0, 0.9, 0.99), beta3_warmup=10).scalars(5)["b3"] < 0.99, "a fast decay of zero has half-life zero"


def test_equals_adamw_without_the_slow_average() -> None:
    pair = AdEMAMix(lr=0.01, weight_decay=0.1, alpha=0.0), AdamW(lr=0.01, weight_decay=0.1)
    assert distance(follow(pair[0], weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) < 1e-14
    assert distance(follow(AdEMAMix(lr=0.01, weight_decay=0.1, alpha=1.0), weights(MIXED), 50), follow(pair[1], weights(MIXED), 50)) > 1e-4

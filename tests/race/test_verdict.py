"""The statistics: error rate and power on simulated races, failures, targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thalweg.race.records import RaceSettings, Trial
from thalweg.race.verdict import compare, detectable, judge, time_to_target

SETTINGS = RaceSettings(
    task="toy", metric="error", direction="min", methods=("a", "b"), reference="a", trials=4, seeds=10, steps=100, target=None, quick=False,
    code_hash="", environment={}, created="",
)


def settings(*methods, **changes):
    from dataclasses import replace

    return replace(SETTINGS, methods=methods, **changes)


def final(method, seed, test, *, status="done", curve=None):
    return Trial(key=f"final/{method}/{seed:03d}", method=method, stage="final", index=seed, seed=seed, hyper={"lr": 0.1}, status=status,
                 test=test if status == "done" else None, score=test if status == "done" else None, curve=curve or {})


def verdicts(race, trials, target=None):
    names = race.methods
    return {v.method: v for v in judge(race, trials, target=target, edges=dict.fromkeys(names, ()), winners=dict.fromkeys(names))}


def simulated(races, *, methods=8, seeds=10, shift=0.0, seed=0):
    """`races` races of equal methods with noise of one seed-sigma, the last shifted; the verdicts on the rivals."""
    rng = np.random.default_rng(seed)
    for _ in range(races):
        x = rng.standard_normal((methods, seeds))
        x[-1] += shift
        yield compare([row - x[0] for row in x[1:]])


def test_eight_identical_methods_are_not_told_apart():
    # 150 races at a true rate of 0.05 exceed 14 false alarms with probability 0.02; the studentised bootstrap gives about 0.02 of 0.05.
    alarms = sum(any(v["outcome"] != "can't tell" for v in race) for race in simulated(150))
    assert alarms <= 14


def test_a_method_better_by_three_seed_sigmas_is_found():
    # Power against seven rivals at ten seeds: 0.94 in 300 simulated races. Fewer than 43 of 50 then has probability 0.02.
    races = list(simulated(50, shift=3.0, seed=1))
    assert sum(race[-1]["outcome"] == "better" for race in races) >= 43
    assert not any(race[-1]["outcome"] == "worse" for race in races)


@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_power_at_the_detectable_effect_is_near_the_stated_one(seeds):
    # The effect is itself estimated from few seeds, so its mean over races is used.
    rng = np.random.default_rng(2)
    effect = np.mean([compare([rng.normal(0, 1, seeds)])[0]["detectable"] for _ in range(60)])
    found = [compare([rng.normal(effect, 1, seeds)])[0]["outcome"] == "better" for _ in range(150)]
    assert 0.65 <= np.mean(found) <= 0.93


def test_the_detectable_effect_matches_the_tables_of_power():
    # Paired t-tests at 0.05 with power 0.8: 0.996 standard deviations at n = 10, 0.660 at n = 20.
    for n, effect in ((10, 0.996), (20, 0.660)):
        assert detectable(1 / math.sqrt(n), n, stats.t.ppf(0.975, n - 1)) == pytest.approx(effect, abs=0.003)
    assert detectable(0.0, 10, 2.0) == 0.0
    assert compare([np.arange(2.0)])[0]["detectable"] is None


def test_more_rivals_make_smaller_differences_undetectable():
    d = np.random.default_rng(0).standard_normal(10)
    assert compare([d] * 7)[0]["detectable"] > compare([d])[0]["detectable"]


def test_the_interval_excludes_zero_exactly_where_there_is_a_verdict():
    told = 0
    for race in simulated(60, shift=1.5, seed=3):
        for v in race:
            told += v["outcome"] != "can't tell"
            assert (v["low"] > 0 or v["high"] < 0) == (v["outcome"] != "can't tell"), v
            assert v["low"] <= v["difference"] <= v["high"]
            assert (v["p"] <= 0.05) == (v["outcome"] != "can't tell")
    assert told > 5


def test_holm_orders_the_adjusted_p_values():
    d = np.linspace(-1, 1, 10)
    out = compare([d + shift for shift in (0.9, 0.1, 3.0, 0.6)])
    raw = [compare([d + shift])[0]["p"] for shift in (0.9, 0.1, 3.0, 0.6)]
    order = np.argsort(raw)
    expected = np.maximum.accumulate([min(1, (4 - rank) * raw[i]) for rank, i in enumerate(order)])
    assert [out[i]["p"] for i in order] == pytest.approx(list(expected))


def test_exact_copies_cannot_be_told_and_constant_gaps_can():
    same, gap = compare([np.zeros(10), np.full(10, 0.25)])
    assert (same["outcome"], same["p"], same["low"], same["high"]) == ("can't tell", 1.0, 0.0, 0.0)
    assert (gap["outcome"], gap["difference"]) == ("better", 0.25)


@pytest.mark.parametrize("seeds", [2, 3])
def test_too_few_seeds_never_tell(seeds):
    out = compare([np.linspace(1, 1.001, seeds)])[0]
    assert out["outcome"] == "can't tell"


def test_the_direction_decides_what_better_means():
    rng = np.random.default_rng(0)
    trials = [final(m, s, 1 + 0.5 * (m == "b") + 0.01 * rng.standard_normal()) for m in "ab" for s in range(10)]
    assert verdicts(settings("a", "b"), trials)["b"].outcome == "worse"
    high = verdicts(settings("a", "b", direction="max"), trials)["b"]
    assert high.outcome == "better"
    assert high.difference == pytest.approx(0.5, abs=0.02)
    assert high.ratio == pytest.approx(1.5, abs=0.02)


def test_pairs_are_by_seed():
    rng = np.random.default_rng(0)
    luck = 10 * rng.standard_normal(10)
    trials = [final("a", s, luck[s]) for s in range(10)] + [final("b", s, luck[s] - 0.1 + 0.01 * rng.standard_normal()) for s in reversed(range(10))]
    assert verdicts(settings("a", "b"), trials)["b"].outcome == "better"


def test_a_diverging_method_is_worse_and_listed():
    trials = [final("a", s, 1 + 0.1 * s) for s in range(10)] + [final("b", s, 0.0, status="diverged") for s in range(10)]
    v = verdicts(settings("a", "b"), trials)["b"]
    assert (v.outcome, v.failures, v.mean, v.ratio, v.difference) == ("worse", 10, None, None, None)
    assert v.p < 0.01


def test_a_method_without_a_winner_is_worse():
    trials = [final("a", s, 1 + 0.1 * s) for s in range(10)]
    trials += [Trial(key=f"tune/b/{i:03d}", method="b", stage="tune", index=i, seed=0, hyper={}, status="out of memory") for i in range(4)]
    v = verdicts(settings("a", "b"), trials)["b"]
    assert (v.outcome, v.failures, v.seeds) == ("worse", 4, 0)


def test_one_divergence_in_ten_is_no_proof_but_never_an_advantage():
    trials = [final("a", s, 1.0 + 0.01 * s) for s in range(10)]
    trials += [final("b", s, 0.5, status="diverged" if s == 3 else "done") for s in range(10)]
    v = verdicts(settings("a", "b"), trials)["b"]
    assert (v.outcome, v.failures, v.mean) == ("can't tell", 1, None)
    half = compare([np.array([-math.inf] * 5 + [0.0] * 5)])[0]
    assert half["outcome"] == "worse"


def test_a_reference_that_fails_where_the_rival_does_not_loses():
    trials = [final("a", s, 1.0, status="diverged") for s in range(10)] + [final("b", s, 1.0 + 0.1 * s) for s in range(10)]
    assert verdicts(settings("a", "b"), trials)["b"].outcome == "better"
    both = trials[:10] + [final("b", s, 1.0, status="failed") for s in range(10)]
    assert verdicts(settings("a", "b"), both)["b"].outcome == "can't tell"


def curve(values, gradients=1):
    steps = [10 * i for i in range(len(values))]
    clocks = {"gradients": [gradients * s for s in steps], "seconds": [s / 100 for s in steps], "forwards": steps}
    return {"step": steps, "val": values, "train": values, **clocks}


def test_the_target_is_reached_where_the_mean_over_seeds_passes():
    trials = [final("a", 0, 0, curve=curve([1.0, 0.4, 0.9, 0.3])), final("a", 1, 0, curve=curve([1.0, 0.9, 0.5, 0.3], gradients=3))]
    # Single runs cross 0.5 at steps 10 and 20; the mean only at step 30.
    assert time_to_target(trials, 0.5, "min") == {"step": 30, "gradients": 60, "seconds": 0.3}
    assert time_to_target(trials, 0.2, "min") is None
    assert time_to_target(trials, 0.8, "max") == {"step": 0, "gradients": 0, "seconds": 0}
    assert time_to_target(trials, None, "min") is None


def test_a_run_that_ended_early_never_lets_the_mean_pass():
    trials = [final("a", 0, 0, curve=curve([1.0, 0.5, 0.1])), final("a", 1, 0, status="diverged", curve=curve([1.0, 0.5]))]
    assert time_to_target(trials, 0.2, "min") is None
    assert time_to_target(trials, 0.5, "min")["step"] == 10
    late = [final("a", 0, 0, curve=curve([1.0, 0.5, 0.1])), final("a", 1, 0, status="diverged", curve={**curve([1.0, math.nan]), "step": [0, 7]})]
    assert time_to_target(late, 0.6, "min") is None

"""The plan: one Sobol set for all, equal effort, winners, edges, the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thalweg.core.space import Linear, Log, Space
from thalweg.race.methods import Method
from thalweg.race.plan import SOBOL_DIMENSIONS, Plan, sobol
from thalweg.race.records import RaceSettings

K, N = 4, 3


def method(name, **dimensions):
    return Method(name=name, space=Space(dimensions or {"lr": Log(1e-4, 1e-1)}), build=lambda m, h: None, defaults={"lr": 1e-3})


def plan(*methods, **changes):
    settings = RaceSettings(
        task="toy", metric="error", direction="min", methods=tuple(m.name for m in methods), reference=methods[0].name, trials=K, seeds=N, steps=10,
        target=None, quick=False, code_hash="", environment={}, created="",
    )
    return Plan(replace(settings, **changes), methods)


def run(made, score, ended=None, status=lambda t: "done"):
    """Let every trial end, stage after stage."""
    ended = dict(ended or {})
    while todo := [t for t in made.known(ended) if t.key not in ended]:
        for t in todo:
            done = status(t) == "done"
            ended[t.key] = replace(t, status=status(t), score=score(t) if done else None, test=score(t) if done and t.stage == "final" else None)
    return ended


def middle(trial):
    """Best in the middle of the range, so that no winner lies at an edge."""
    return abs(np.log(trial.hyper["lr"] / 10**-2.5))


def count(ended, name, stage):
    return sum(t.method == name and t.stage == stage for t in ended.values())


def test_a_longer_sobol_set_begins_with_a_shorter_one():
    assert np.array_equal(sobol(5, seed=1), sobol(40, seed=1)[:5])
    assert not np.array_equal(sobol(5, seed=1), sobol(5, seed=2))
    assert sobol(5, seed=1).shape == (5, SOBOL_DIMENSIONS)


def test_all_methods_share_the_points_of_the_unit_cube():
    one, two = method("a"), method("b", lr=Log(1e-2, 1e3), momentum=Linear(0, 1))
    tuned = [t for t in plan(one, two).known({}) if t.stage == "tune"]
    for i in range(K):
        a, b = (next(t for t in tuned if t.method == name and t.index == i) for name in "ab")
        place_a = np.log(a.hyper["lr"] / 1e-4) / np.log(1e3)
        place_b = np.log(b.hyper["lr"] / 1e-2) / np.log(1e5)
        assert place_a == pytest.approx(place_b)


def test_a_rival_changes_nobody_elses_trials():
    alone = {t.key: t for t in plan(method("a"), method("b")).known({})}
    more = {t.key: t for t in plan(method("a"), method("b"), method("c", lr=Log(1, 2), x=Linear(0, 1), y=Linear(0, 1))).known({})}
    assert all(more[key] == t for key, t in alone.items())


def test_the_effort_is_equal_whatever_the_dimension():
    wide = method("b", lr=Log(1e-4, 1e-1), x=Linear(0, 1), y=Linear(0, 1), z=Linear(0, 1))
    ended = run(plan(method("a"), wide), middle)
    for name in "ab":
        assert (count(ended, name, "defaults"), count(ended, name, "tune"), count(ended, name, "extend"), count(ended, name, "final")) == (1, K, 0, N)
    assert count(ended, "b", "target") == 0
    assert 3 * K <= count(ended, "a", "target") <= 3 * K + N


def test_methods_alternate_in_time():
    order = [t.method for t in plan(method("a"), method("b"), method("c")).known({}) if t.stage in ("defaults", "tune")]
    assert order == ["a", "b", "c"] * (1 + K)
    ended = run(plan(method("a"), method("b"), method("c")), middle)
    finals = [t.method for t in ended.values() if t.stage == "final"]
    assert finals == ["a", "b", "c"] * N


def test_final_seeds_are_fresh_and_the_same_for_all():
    ended = run(plan(method("a"), method("b")), middle)
    seeds = {name: [t.seed for t in ended.values() if t.method == name and t.stage == "final"] for name in "ab"}
    assert seeds["a"] == seeds["b"] and len(set(seeds["a"])) == N
    assert not set(seeds["a"]) & {t.seed for t in ended.values() if t.stage == "tune"}
    other = run(plan(method("a"), method("b"), seed=1), middle)
    assert not {t.seed for t in other.values()} & {t.seed for t in ended.values()}


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_winner_is_the_best_on_validation_among_those_that_ended(direction):
    made = plan(method("a"), method("b"), direction=direction)
    sign = 1 if direction == "min" else -1
    ended = run(made, lambda t: sign * middle(t), status=lambda t: "diverged" if t.key == "tune/a/000" else "done")
    tuned = [t for t in ended.values() if t.method == "a" and t.stage == "tune" and t.index > 0]
    assert made.winner("a", ended).key == min(tuned, key=middle).key


def test_the_defaults_are_a_column_of_their_own_and_never_the_winner():
    ended = run(plan(method("a"), method("b")), lambda t: -99 if t.stage == "defaults" else middle(t))
    made = plan(method("a"), method("b"))
    assert made.winner("a", ended).stage == "tune"


def test_a_winner_at_an_edge_extends_every_method_once():
    def score(t):
        return t.hyper["lr"] if t.method == "b" else middle(t)  # b is best at its smallest learning rate

    races = [plan(method("a"), method("b"), seed=seed) for seed in range(40)]
    at_edge = [bool(made.edges("b", run_tuning(made, score))) for made in races]
    assert 3 <= sum(at_edge) <= 20  # the smallest of four stratified points lies in the outer twentieth one time in five
    for made, extended in zip(races, at_edge, strict=True):
        ended = run(made, score)
        assert count(ended, "a", "extend") == count(ended, "b", "extend") == (K // 2 if extended or made.edges("a", run_tuning(made, score)) else 0)
        assert all(1e-5 <= t.hyper["lr"] <= 1 for t in ended.values() if t.stage == "extend")
        assert made.complete(ended)


def run_tuning(made, score):
    return {t.key: replace(t, score=score(t)) for t in made.known({}) if t.stage == "tune"}


def test_edges_are_flagged_against_the_last_range():
    made = plan(method("a"), method("b"))
    tuned = run_tuning(made, middle)
    at_end = replace(tuned["tune/a/000"], hyper={"lr": 1.05e-4}, score=-1.0)
    assert made.edges("a", {**tuned, at_end.key: at_end}) == ["lr"]
    extended = replace(tuned["tune/b/000"], key="extend/b/000", stage="extend")
    assert made.edges("a", {**tuned, at_end.key: at_end, extended.key: extended}) == []


def test_the_target_is_the_median_of_the_references_best_of_four_times_the_trials():
    made = plan(method("a"), method("b"))

    def score(t):
        if t.stage == "target" and t.seed == 0:
            return middle(t) / 100  # the best of 4K is among the further points
        return {1: 7.0, 2: 5.0, 3: 6.0}[t.seed] if t.seed else 1 + middle(t)

    ended = run(made, score)
    assert count(ended, "a", "target") == 3 * K + N
    assert made.target(ended) == 6.0
    assert made.target({k: t for k, t in ended.items() if t.seed == 0}) is None


def test_the_winners_own_runs_serve_for_the_target_where_it_is_the_best_anyway():
    made = plan(method("a"), method("b"))
    ended = run(made, lambda t: 50 + middle(t) if t.stage == "target" else middle(t))
    assert count(ended, "a", "target") == 3 * K
    assert made.target(ended) == np.median([t.score for t in ended.values() if t.stage == "final" and t.method == "a"])


def test_a_given_target_costs_no_trials():
    made = plan(method("a"), method("b"), target=0.5)
    ended = run(made, middle)
    assert count(ended, "a", "target") == 0
    assert made.target(ended) == 0.5


def test_a_method_whose_search_broke_is_not_rerun():
    made = plan(method("a"), method("b"))
    ended = run(made, middle, status=lambda t: "diverged" if t.method == "b" else "done")
    assert count(ended, "b", "final") == 0 and made.winner("b", ended) is None
    assert made.complete(ended)


def test_the_expected_number_is_an_upper_bound():
    for score in (middle, lambda t: t.hyper["lr"]):
        made = plan(method("a"), method("b"))
        assert len(run(made, score)) <= made.expected()

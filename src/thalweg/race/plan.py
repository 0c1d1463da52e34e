"""Which trials a race consists of. A plan is worked out from the settings and the trials that have ended, so any process can go on with it.

1. `defaults`: one trial of each method with its own defaults; `tune`: K points of one scrambled Sobol set, mapped through each method's
   space; `target`: 3K further points for the reference, unless the task gives a target.
2. `extend`: if the winner of any method lies at the edge of its range, K/2 further points for every method in ranges ten times wider.
3. `final`: the winner of each method on fresh seeds, the same seeds for all; `target`: the reference's best of 4K on those seeds.

Trials are ordered so that methods alternate: slow spells of the machine fall on all of them alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import qmc

from thalweg.race.methods import Method, MethodError
from thalweg.race.records import RaceSettings, Stage, Trial

SOBOL_DIMENSIONS = 24  # more than any space has, and fixed: a rival with a larger space changes nobody's points
TARGET_BUDGET = 4
WIDER = 10.0
SEED_STRIDE = 1_000_000  # between the seeds of races with different `seed`
Trials = Mapping[str, Trial]


def sobol(count: int, seed: int) -> np.ndarray:
    """The first `count` points of the scrambled Sobol sequence of this seed, [count, dimensions]; a longer set begins with a shorter one."""
    power = max(0, math.ceil(math.log2(max(1, count))))
    return qmc.Sobol(SOBOL_DIMENSIONS, scramble=True, rng=np.random.default_rng(seed)).random_base2(power)[:count]


class Plan:
    """The trials of one race.

    Args:
        settings: the race.
        methods: its methods, in the settings' order.
    """

    def __init__(self, settings: RaceSettings, methods: Sequence[Method]) -> None:
        self.settings = settings
        self.methods = {method.name: method for method in methods}
        for method in methods:
            if len(method.space) > SOBOL_DIMENSIONS:
                raise MethodError(f"{method.name} searches {len(method.space)} hyperparameters; a race takes at most {SOBOL_DIMENSIONS}.")
        k = settings.trials
        self.extension = max(1, k // 2)
        self.points = sobol(TARGET_BUDGET * k + self.extension, settings.seed)

    def known(self, ended: Trials) -> list[Trial]:
        """Every trial that is certain to be needed, given those that have ended; in the order in which they should run."""
        first = self._tuning()
        if not _all_in(first, ended):
            return first
        second = self._extension(ended)
        if not _all_in(second, ended):
            return first + second
        return first + second + self._finals(ended)

    def complete(self, ended: Trials) -> bool:
        """Whether nothing is left to run."""
        return _all_in(self.known(ended), ended)

    def expected(self) -> int:
        """How many trials there will be at most, for the time left."""
        s, m = self.settings, len(self.methods)
        target = 0 if s.target is not None else (TARGET_BUDGET - 1) * s.trials + s.seeds
        return m * (1 + s.trials + self.extension + s.seeds) + target

    def winner(self, method: str, ended: Trials) -> Trial | None:
        """The best ended trial of `tune` and `extend` on validation; None where none ended."""
        return self._best([t for t in ended.values() if t.method == method and t.stage in ("tune", "extend")])

    def edges(self, method: str, ended: Trials) -> list[str]:
        """Hyperparameters of the winner that lie at an end of the range that was searched last."""
        winner = self.winner(method, ended)
        space = self.methods[method].space
        extended = any(t.stage == "extend" for t in ended.values())
        return [] if winner is None else (space.extended(WIDER) if extended else space).near_edge(winner.hyper)

    def target(self, ended: Trials) -> float | None:
        """The task's target, or the median final validation of the reference's best; infinitely bad runs count. None where it is not known yet."""
        if self.settings.target is not None:
            return self.settings.target
        runs = [ended[t.key] for t in self._target_runs(ended) if t.key in ended] if self._second_done(ended) else []
        if len(runs) < self.settings.seeds:
            return None
        worst = math.inf if self.settings.direction == "min" else -math.inf
        median = statistics.median(worst if t.score is None else t.score for t in runs)
        return median if math.isfinite(median) else None

    def _trial(self, method: str, stage: Stage, index: int, seed: int, hyper: Mapping[str, object]) -> Trial:
        return Trial(key=f"{stage}/{method}/{index:03d}", method=method, stage=stage, index=index, seed=seed, hyper=dict(hyper))

    def _seed(self, number: int) -> int:
        """Number 0 tunes; 1, 2, ... are the fresh ones."""
        return self.settings.seed * SEED_STRIDE + number

    def _tuning(self) -> list[Trial]:
        trials = [self._trial(m.name, "defaults", 0, self._seed(0), m.defaults) for m in self.methods.values()]
        k = self.settings.trials
        reference = self.methods[self.settings.reference]
        for i in range(k):
            trials += [self._trial(m.name, "tune", i, self._seed(0), m.space.at(self.points[i])) for m in self.methods.values()]
            if self.settings.target is None:
                trials += [self._trial(reference.name, "target", j, self._seed(0), reference.space.at(self.points[j]))
                           for j in (k + 3 * i, k + 3 * i + 1, k + 3 * i + 2)]
        return trials

    def _extension(self, ended: Trials) -> list[Trial]:
        tuned = {key: t for key, t in ended.items() if t.stage == "tune"}
        if not any(self.edges(name, tuned) for name in self.methods):
            return []
        start = TARGET_BUDGET * self.settings.trials
        return [self._trial(m.name, "extend", i, self._seed(0), m.space.extended(WIDER).at(self.points[start + i]))
                for i in range(self.extension) for m in self.methods.values()]

    def _second_done(self, ended: Trials) -> bool:
        return _all_in(self._tuning(), ended) and _all_in(self._extension(ended), ended)

    def _finals(self, ended: Trials) -> list[Trial]:
        winners = {name: self.winner(name, ended) for name in self.methods}
        by_seed = [[self._trial(name, "final", i, self._seed(1 + i), w.hyper) for name, w in winners.items() if w is not None]
                   for i in range(self.settings.seeds)]
        runs = self._target_runs(ended) if self.settings.target is None else []
        own = [t for t in runs if t.stage == "target"]
        return [t for i, trials in enumerate(by_seed) for t in trials + own[i : i + 1]]

    def _target_runs(self, ended: Trials) -> list[Trial]:
        """The reference's best of 4K on the fresh seeds: its `final` trials where that is the winner anyway."""
        reference, s = self.settings.reference, self.settings
        best = self._best([t for t in ended.values() if t.method == reference and t.stage in ("tune", "extend", "target")
                           and t.seed == self._seed(0)])
        if best is None:
            return []
        if best.stage != "target":
            return [self._trial(reference, "final", i, self._seed(1 + i), best.hyper) for i in range(s.seeds)]
        start = TARGET_BUDGET * s.trials
        return [self._trial(reference, "target", start + i, self._seed(1 + i), best.hyper) for i in range(s.seeds)]

    def _best(self, trials: Iterable[Trial]) -> Trial | None:
        sign = 1 if self.settings.direction == "min" else -1
        done = [t for t in trials if t.status == "done" and t.score is not None]
        return min(done, key=lambda t: (sign * (t.score or 0.0), t.key), default=None)


def _all_in(trials: Iterable[Trial], ended: Trials) -> bool:
    return all(t.key in ended for t in trials)

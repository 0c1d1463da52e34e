"""A whole race: from a task to verdicts, with any pool, through a kill, and shared by two processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from thalweg.core.space import Log, Space
from thalweg.race.methods import Method, TorchBuild, find
from thalweg.race.race import RaceError, load_result, race, replay
from thalweg.race.store import Store
from thalweg.race.task import load_task, write_template

from .race_runner import METHODS, OPTIONS

RUNNER = Path(__file__).with_name("race_runner.py")


def figures(result):
    """What must not depend on where the trials ran."""
    return {t.key: (t.seed, t.hyper, t.status, t.score, t.test, t.curve["val"]) for t in result.trials}


def judged(result):
    return [(v.method, v.outcome, v.mean, v.difference, v.low, v.high, v.p, v.failures, v.edges, v.steps_to_target) for v in result.verdicts]


def claims(out):
    with sqlite3.connect(out / "race.db") as db:
        rows = db.execute("SELECT key, claims, owner FROM trials").fetchall()
    db.close()
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def undisturbed(folder):
    return race("diabetes", METHODS, out=folder, workers=0, **OPTIONS)


def test_a_race_ends_with_a_verdict_for_each_method(undisturbed):
    assert undisturbed.complete
    assert [(v.method, v.seeds) for v in undisturbed.verdicts] == [(m, 3) for m in METHODS]
    assert [v.outcome for v in undisturbed.verdicts][0] == "reference"
    assert undisturbed.target is not None
    finals = [t for t in undisturbed.trials if t.stage == "final"]
    assert len(finals) == 9 and all(t.test is not None for t in finals)
    assert all(t.test is None for t in undisturbed.trials if t.stage != "final")
    for v in undisturbed.verdicts:
        tests = [t.test for t in finals if t.method == v.method]
        assert v.mean == pytest.approx(sum(tests) / 3)
        assert v.default_score == next(t.score for t in undisturbed.trials if t.method == v.method and t.stage == "defaults")


def test_paired_seeds_start_from_the_same_weights(undisturbed):
    for seed in {t.seed for t in undisturbed.trials if t.stage == "final"}:
        assert len({t.curve["val"][0] for t in undisturbed.trials if t.seed == seed}) == 1


def test_processes_give_the_same_figures(tmp_path, undisturbed):
    told = []
    again = race("diabetes", METHODS, out=tmp_path, workers=2, on_event=told.append, **OPTIONS)
    assert figures(again) == figures(undisturbed) and judged(again) == judged(undisturbed)
    assert [e.kind for e in told if e.kind != "trial"] == ["begin", "end"]
    ended = [e for e in told if e.kind == "trial"]
    assert sorted(e.trial.key for e in ended) == sorted(figures(again))
    assert ended[-1].done == ended[-1].total == len(again.trials) and ended[-1].seconds_left == 0
    assert set(ended[-1].best) == set(METHODS)


def started(out, go, workers):
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen([sys.executable, "-W", "error", str(RUNNER), str(out), str(go), str(workers)], env={**os.environ, "PYTHONPATH": path},
                               stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    return process


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened for too long"
        time.sleep(0.02)


def count_ended(out):
    if not (out / "race.db").exists():
        return 0
    with Store(out) as store:
        return len(store.ended())


def group_is_empty(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("at", [1, 17])
def test_a_killed_race_loses_only_the_trials_under_way(tmp_path, undisturbed, at):
    go = tmp_path / "go"
    go.touch()
    process = started(tmp_path / "out", go, 1)
    wait_until(lambda: count_ended(tmp_path / "out") >= at)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Store(tmp_path / "out") as store:
        before = store.ended()
    assert at <= len(before) < len(undisturbed.trials)
    wait_until(lambda: group_is_empty(process.pid), 30)  # the worker does not outlive the race

    with pytest.raises(RaceError, match="--resume"):
        race("diabetes", METHODS, out=tmp_path / "out", workers=0, **OPTIONS)
    resumed = race("diabetes", METHODS, out=tmp_path / "out", workers=0, resume=True, **OPTIONS)
    assert figures(resumed) == figures(undisturbed) and judged(resumed) == judged(undisturbed)
    counts = {key: n for key, n, _ in claims(tmp_path / "out")}
    assert all(counts[key] == 1 for key in before)
    assert sum(n - 1 for n in counts.values()) <= 1  # one worker: one trial was under way


def test_two_processes_share_a_race_without_doing_a_trial_twice(tmp_path, undisturbed):
    out, go = tmp_path / "out", tmp_path / "go"
    both = [started(out, go, 0) for _ in range(2)]
    go.touch()
    assert [p.wait(timeout=180) for p in both] == [0, 0]
    for process in both:
        process.stdout.close()
    result = load_result(out)
    assert result.complete and figures(result) == figures(undisturbed) and judged(result) == judged(undisturbed)
    rows = claims(out)
    assert {n for _, n, _ in rows} == {1}
    assert len({owner for _, _, owner in rows}) == 2
    with Store(out) as store:
        assert {s["environment"]["torch"] for s in store.sessions()} == {torch.__version__} and len(store.sessions()) == 2


def test_a_finished_race_can_be_loaded_and_resumed_without_a_trial(undisturbed, folder):
    assert judged(load_result(folder)) == judged(undisturbed)
    told = []
    again = race("diabetes", METHODS, out=folder, workers=0, resume=True, on_event=told.append, **OPTIONS)
    assert judged(again) == judged(undisturbed) and [e.kind for e in told] == ["begin", "end"]


def test_every_trial_can_be_run_again(undisturbed, folder):
    for key in ("final/torch.SGD/002", "tune/torch.Adagrad/001"):
        stored, again = replay(folder, key)
        assert (again.score, again.test, again.curve["val"]) == (stored.score, stored.test, stored.curve["val"])
    with pytest.raises(RaceError, match="no trial 'final/x/9'"):
        replay(folder, "final/x/9")


def test_an_unfinished_race_can_be_looked_at(tmp_path):
    seen = []

    def stop(event):
        if event.kind == "trial" and event.done == 4:
            raise KeyboardInterrupt
        seen.append(event)

    with pytest.raises(KeyboardInterrupt):
        race("diabetes", METHODS, out=tmp_path, workers=0, on_event=stop, **OPTIONS)
    result = load_result(tmp_path)
    assert not result.complete and result.verdicts == () and len(result.trials) == 4
    with Store(tmp_path) as store:
        assert store.left()[1] == 0  # an interrupted race gives its claims back


def wild(name="wild", **changes):
    return Method(name=name, space=Space({"lr": Log(1e3, 1e6)}), build=TorchBuild("SGD"), defaults={"lr": 1e4}, **changes)


def test_a_diverging_method_is_worse_and_every_failure_is_listed(tmp_path):
    options = {"reference": "torch.Adagrad", "workers": 0, "trials": 2, "seeds": 5, "steps": 40, "report": False}
    result = race("diabetes", [find("torch.Adagrad"), wild()], out=tmp_path, **options)
    verdict = result.verdicts[1]
    diverged = [t for t in result.trials if t.method == "wild"]
    assert (verdict.outcome, verdict.mean) == ("worse", None)
    assert verdict.failures == len(diverged) >= 3
    assert all(t.status == "diverged" and t.message for t in diverged)


def test_equal_methods_under_other_names_are_not_told_apart(tmp_path):
    copies = [Method(name=f"copy {i}", space=find("torch.SGD").space, build=TorchBuild("SGD"), defaults={"lr": 0.01}) for i in range(8)]
    result = race("diabetes", copies, reference="copy 0", out=tmp_path, workers=0, trials=2, seeds=3, steps=15, report=False)
    assert [v.outcome for v in result.verdicts[1:]] == ["can't tell"] * 7
    assert {v.difference for v in result.verdicts[1:]} == {0.0}


def test_a_reference_that_never_ends_stops_the_race(tmp_path):
    with pytest.raises(RaceError, match="trials of the reference wild ended .*diverged, "):
        race("diabetes", [wild(), find("torch.SGD")], reference="wild", out=tmp_path, workers=0, trials=2, seeds=2, steps=20, report=False)


def test_a_users_file_is_raced_and_judged_without_the_file_later(tmp_path):
    path = write_template(tmp_path / "mine.py")
    result = race(path, METHODS[:2], reference="torch.AdamW", out=tmp_path / "out", workers=0, trials=2, seeds=2, steps=10, report=False)
    path.unlink()
    assert (result.settings.task, load_result(tmp_path / "out").complete) == ("wine", True)
    stored, again = replay(tmp_path / "out", "final/torch.SGD/001")
    assert stored.test == again.test


def test_a_changed_task_file_is_another_race(tmp_path):
    path = write_template(tmp_path / "mine.py")
    options = {"reference": "torch.AdamW", "out": tmp_path / "out", "workers": 0, "trials": 1, "seeds": 2, "steps": 5, "report": False}
    race(path, METHODS[:2], **options)
    path.write_text(path.read_text().replace("Linear(32, 32)", "Linear(32, 32, bias=False)"))
    with pytest.raises(RaceError, match="code hash: the store has"):
        race(path, METHODS[:2], resume=True, **options)


def test_quick_means_less_of_everything_and_the_report_is_written(tmp_path):
    told = []
    result = race("diabetes", METHODS[:2], reference="torch.AdamW", out=tmp_path, workers=0, quick=True, steps=4, on_event=told.append)
    s = result.settings
    assert (s.trials, s.seeds, s.steps, s.quick) == (4, 5, 4, True)
    assert told[-1].kind == "report" and Path(told[-1].message) == tmp_path / "report.html"
    assert "torch.SGD" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["torch.AdamW"]}, "at least two methods"),
        ({"methods": ["torch.AdamW", "Lyon"]}, "did you mean Lion"),
        ({"task": "cifar"}, "No task 'cifar'"),
        ({"trials": 0}, "trials must be an integer >= 1; found 0"),
        ({"seeds": 1}, "seeds must be an integer >= 2; found 1"),
        ({"steps": 2.5}, "steps must be an integer >= 1; found 2.5"),
        ({"workers": -1}, "workers must be an integer >= 0"),
        ({"workers": 1, "ray": "auto"}, "exclude each other"),
        ({"methods": ["SophiaG", "torch.AdamW"]}, 'SophiaG .* needs a task with likelihood="categorical"; diabetes has \'gaussian\''),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(tmp_path, options, sentence):
    call = {"task": "diabetes", "methods": METHODS, "workers": 0, "steps": 5, "reference": "torch.AdamW", **options}
    with pytest.raises(RaceError, match=sentence) as error:
        race(out=tmp_path / "out", **call)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_no_race_is_refused(tmp_path):
    with pytest.raises(RaceError, match="holds no race"):
        load_result(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RaceError, match="is a file"):
        race("diabetes", METHODS, out=tmp_path / "file", workers=0, **OPTIONS)
    assert not (tmp_path / "race.db").exists()


def test_the_store_keeps_the_environment(undisturbed):
    assert {"thalweg", "python", "torch", "cpu", "threads", "cores"} <= set(undisturbed.settings.environment)
    assert undisturbed.settings.environment["torch"] == torch.__version__
    assert load_task(undisturbed.settings.source).name == "diabetes"

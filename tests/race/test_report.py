"""The report's data, numbers, words and derived series, without a browser."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import itertools
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.race.records import RaceResult, Trial
from thalweg.race.report import series as lines
from thalweg.race.report import words, write_report
from thalweg.race.report.page import MAX_BYTES, failures, method_styles, render, rows
from thalweg.race.report.payload import LEVELS, packed, plain, result_data

from .report_example import CRASH, example_race


def embedded(page: bytes) -> dict[str, Any]:
    """The data inside a page."""
    text = re.search(rb'<script type="text/plain" id="data">([^<]*)</script>', page)
    assert text is not None
    return json.loads(gzip.decompress(base64.b64decode(text[1])))


@pytest.fixture(scope="module")
def race() -> RaceResult:
    return example_race()


@pytest.fixture(scope="module")
def page(race: RaceResult) -> bytes:
    return render(race)


def final(seed: int, val: list[float], *, status: str = "done", method: str = "A", pace: float = 1.0, test: float | None = 0.0) -> Trial:
    """A final run with an evaluation every 10 steps."""
    steps = [10.0 * (i + 1) for i in range(len(val))]
    curve = {"step": steps, "gradients": steps, "seconds": [s * pace for s in steps], "val": val, "train": val}
    return Trial(
        key=f"{method}{seed}",
        method=method,
        stage="final",
        index=0,
        seed=seed,
        hyper={"lr": 0.1},
        status=status,
        score=val[-1],
        test=test,
        curve=curve,
    )


def small(*trials: Trial, target: float | None = 0.5, direction: str = "min") -> RaceResult:
    base = example_race(["AdamW"], seeds=2, trials=2)
    settings = dataclasses.replace(
        base.settings, methods=tuple(dict.fromkeys(t.method for t in trials)), reference=trials[0].method, direction=direction
    )
    return RaceResult(settings=settings, target=target, trials=trials, verdicts=(), complete=False)


# The file


def test_write_report_replaces_the_file_in_one_step(tmp_path: Path, race: RaceResult) -> None:
    path = tmp_path / "new folder" / "report.html"
    assert write_report(race, path) == path
    first = path.read_bytes()
    assert first.startswith(b"<!DOCTYPE html>") and first == render(race)  # the same race always gives the same page
    write_report(example_race(complete=False), path)
    assert path.read_bytes() != first
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_page_names_no_outside_address(page: bytes) -> None:
    own = re.sub(rb'<script type="text/plain"[^>]*>[^<]*</script>', b"", page)
    assert b"http://" not in own and b"https://" not in own and b"//cdn" not in own
    assert b"default-src 'none'" in own


def test_page_stays_below_its_limit_and_says_what_it_left_out() -> None:
    big = example_race(["AdamW", "Lion"], seeds=20, trials=8, evaluations=300)
    limit = 2_400_000
    page = render(big, max_bytes=limit)
    assert len(page) <= limit < len(render(big)) <= MAX_BYTES
    assert b'id="thinned"' in page and b'id="thinned"' not in render(example_race())
    data = embedded(page)["result"]["trials"]
    assert len(data) == len(big.trials)  # runs are never left out
    kept = next(t for t in data if t["stage"] == "final" and t["status"] == "done")
    whole = next(t for t in big.trials if t.key == kept["key"])
    assert kept["curve"]["val"][-1] == whole.curve["val"][-1] and len(kept["curve"]["val"]) < len(whole.curve["val"])
    assert {len(v) for v in kept["curve"].values()} == {len(kept["curve"]["val"])}


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_every_level_of_thinning_keeps_the_last_point(race: RaceResult, level: int) -> None:
    final_points = LEVELS[level][0]
    for kept, whole in zip(result_data(race, level)["trials"], race.trials, strict=True):
        if whole.stage == "final":
            assert len(kept["curve"]["step"]) <= (final_points or math.inf)
            assert kept["curve"]["step"][-1] == whole.curve["step"][-1] and kept["curve"]["step"][0] == whole.curve["step"][0]


# The data


def test_data_is_the_whole_result_with_nan_and_infinity_as_null(race: RaceResult, page: bytes) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = re.search(rb'id="data">([^<]*)<', page)
    assert text is not None
    data = json.loads(gzip.decompress(base64.b64decode(text[1])), parse_constant=refuse)["result"]
    assert len(data["trials"]) == len(race.trials)
    for kept, trial in zip(data["trials"], race.trials, strict=True):
        assert (kept["key"], kept["status"], kept["message"], kept["hyper"]) == (trial.key, trial.status, trial.message, trial.hyper)
        assert kept["score"] == (trial.score if lines.is_number(trial.score) else None)
        for name, values in trial.curve.items():
            assert kept["curve"][name] == [v if math.isfinite(v) else None for v in values]
    lost = [t for t in data["trials"] if t["status"] != "done"]
    assert lost and all(t["score"] is None and t["curve"]["val"][-1] is None and t["curve"]["train"][-1] is None for t in lost)
    assert data["settings"] == json.loads(json.dumps(dataclasses.asdict(race.settings)))


def test_plain_takes_any_hyperparameter() -> None:
    value = {"a": (1, math.nan), "b": [True, None, -math.inf], "c": np.float32(0.5), "d": np.int64(3), "e": {"f": "x"}, "g": Path("p")}
    assert plain(value) == {"a": [1, None], "b": [True, None, None], "c": 0.5, "d": 3, "e": {"f": "x"}, "g": "p"}
    assert packed(plain(value)) == packed(plain(value))


@pytest.mark.parametrize("text", ["</script><script>window.hacked = 1</script>", "<b>bold</b>", "\"quoted\" & 'so'", "lone surrogate \udcff"])
def test_text_from_users_is_escaped(text: str) -> None:
    base = example_race(["AdamW", "Lion"], seeds=2, trials=3, task=text)
    trial = dataclasses.replace(base.trials[0], status="failed", message=text, hyper={text: text})
    page = render(
        dataclasses.replace(
            base, settings=dataclasses.replace(base.settings, metric=text, environment={text: text}), trials=(trial, *base.trials[1:])
        )
    ).decode()
    if "<" in text:
        assert text not in page and text.replace("<", "&lt;").replace(">", "&gt;") in page
    assert embedded(page.encode())["result"]["settings"]["task"] == text


def test_failures_are_all_listed_with_their_messages(race: RaceResult, page: bytes) -> None:
    lost = [t for t in race.trials if t.status != "done"]
    assert len(lost) >= 5 and {t.status for t in lost} == {"diverged", "out of memory", "failed"} and failures(race) == lost
    table = page.decode().split('id="failure-table"')[1].split("</table>")[0]
    assert table.count('role="rowheader"') == len(lost)
    assert table.count(CRASH.replace("<", "&lt;").replace(">", "&gt;")) == len(lost)
    silent = dataclasses.replace(race.trials[0], score=math.nan)
    assert failures(dataclasses.replace(race, trials=(silent,))) == [silent]
    assert b"Every run ended with a finite score." in render(dataclasses.replace(race, trials=race.trials[:1]))


# Words and numbers


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.01234, 4, "0.0123"),
        (-0.5, 1, "−0.5"),
        (-0.0001, 2, "0.00"),
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (math.inf, 2, "infinite"),
        (1234.5, 0, "1,234"),
        (1e-9, None, "1e-09"),
    ],
)
def test_fixed(value: float | None, decimals: int | None, text: str) -> None:
    assert words.fixed(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12.345, "12.3"), (1234.6, "1,235"), (0, "0"), (None, "–"), (1.5e9, "1.50e+09"), (2e-6, "2.00e−06")]
)
def test_short(value: float | None, text: str) -> None:
    assert words.short(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (0, "0 B"), (1000, "1000 B"), (1536, "1.5 KiB"), (3 * 2**20, "3 MiB"), (5 * 2**30, "5 GiB")]
)
def test_size(count: float | None, text: str) -> None:
    assert words.size(count) == text


def test_p_values_never_read_as_zero() -> None:
    assert [words.p_value(p) for p in (0.0, 0.0004, 0.0312, 1.0, None, math.nan)] == ["< 0.001", "< 0.001", "0.031", "1.000", "–", "–"]


def test_verdicts_in_words(race: RaceResult) -> None:
    verdicts = {v.method: v for v in race.verdicts}
    unsure = dataclasses.replace(verdicts["Lion"], outcome="can't tell", detectable=0.4, difference=-0.1, seeds=10, edges=())
    assert (
        words.sentence(unsure, race, 1)
        == "With 10 seeds this race would have noticed a difference of 0.4 in error (four times in five); it saw −0.1."
    )
    better = dataclasses.replace(unsure, outcome="better", difference=0.25)
    assert words.sentence(better, race, 2) == "Its mean test error is 0.25 lower than that of AdamW, over 10 paired seeds."
    largest = dataclasses.replace(race, settings=dataclasses.replace(race.settings, direction="max"))
    assert "0.25 higher" in words.sentence(better, largest, 2)
    assert "0.25 lower" in words.sentence(dataclasses.replace(better, outcome="worse", difference=-0.25), largest, 2)
    assert words.sentence(dataclasses.replace(better, edges=("lr", "beta")), race, 2).endswith(
        "Its best lr and beta lie at the edge of the search range: a wider search may do better."
    )
    assert "too few runs" in words.sentence(dataclasses.replace(unsure, detectable=None), race, 2).lower()
    assert "1 of its 10 final runs did not end, which counts as infinitely bad." in words.sentence(verdicts["NovoGrad"], race, 2)


def test_headline_names_every_outcome(race: RaceResult) -> None:
    text = words.headline(race)
    assert text.startswith("Muon did better than AdamW.") and "did worse." in text and text.endswith("this race can’t tell.")
    assert words.headline(dataclasses.replace(race, verdicts=())) == "There is no verdict yet."
    unsure = tuple(v for v in race.verdicts if v.outcome == "can't tell")
    assert words.headline(dataclasses.replace(race, verdicts=unsure)).startswith("No method did better than AdamW.")


def test_rows_are_best_first_and_hold_the_verdicts(race: RaceResult) -> None:
    made = rows(race, 4)
    means = [row.verdict.mean for row in made if row.verdict]
    assert len(made) == len(race.settings.methods) and means == sorted(means)
    turned = rows(example_race(direction="max"), 4)
    assert [r.verdict.mean for r in turned if r.verdict] == sorted((r.verdict.mean for r in turned if r.verdict), reverse=True)
    waiting = rows(dataclasses.replace(race, verdicts=race.verdicts[:3], complete=False), 4)
    assert [r.outcome for r in waiting[3:]] == ["not judged"] * 5 and waiting[4].sentence.endswith("of its runs have ended so far.")
    infinite = dataclasses.replace(race.verdicts[2], mean=math.inf, difference=-math.inf, low=None, high=None, detectable=None)
    last = rows(dataclasses.replace(race, verdicts=(*race.verdicts[:2], infinite)), 4)[2]
    assert last.method == "Muon" and last.cells[0].text == "infinite" and last.forest == {}


def test_unfinished_and_empty_races_render() -> None:
    unfinished = render(example_race(complete=False))
    assert b'id="unfinished"' in unfinished and b"This race is unfinished." in unfinished and b'id="unfinished"' not in render(example_race())
    empty = dataclasses.replace(example_race(complete=False), trials=(), target=None)
    assert b"0 runs ended so far" in render(empty)


# Derived series


def test_medians_count_a_lost_run_as_infinitely_bad() -> None:
    race = small(final(0, [4.0, 1.0]), final(1, [5.0, 2.0]), final(2, [6.0], status="diverged"))
    summary = lines.series(race)["curves"]["A"]
    assert summary["step"] == [10.0, 20.0] and summary["val"]["median"] == [5.0, 2.0]
    assert summary["val"]["high"][0] == 5.5 and summary["val"]["high"][1] == math.inf
    turned = lines.series(dataclasses.replace(race, settings=dataclasses.replace(race.settings, direction="max")))["curves"]["A"]
    assert turned["val"]["median"] == [5.0, 1.0] and turned["val"]["low"][1] == -math.inf
    lost = lines.series(small(final(0, [4.0, math.nan]), final(1, [3.0, 2.0]), final(2, [3.0, 1.0])))["curves"]["A"]
    assert lost["val"]["median"][1] == 2.0 and lost["val"]["high"][1] == math.inf  # NaN is bad, not absent


def test_quantiles_are_those_of_numpy() -> None:
    values = list(np.random.default_rng(0).normal(size=11))
    for q in (0.0, 0.25, 0.37, 0.5, 1.0):
        assert lines.quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-12)
    assert lines.quantile([1.0, math.inf, math.inf], 0.5) == math.inf and lines.quantile([-math.inf, 0.0], 0.0) == -math.inf


def test_target_distribution_and_profile_by_hand() -> None:
    # A reaches 0.5 at steps 20 and 30, B at 10 and never (it diverged after passing).
    race = small(
        final(0, [1, 0.5, 0.4]),
        final(1, [1, 0.9, 0.1], pace=2.0),
        final(0, [0.5, 0.5, 0.5], method="B"),
        final(1, [0.2, 0.1], method="B", status="diverged"),
    )
    out = lines.series(race)
    assert out["ecdf"]["step"] == {"A": {"x": [0.0, 20.0, 30.0], "y": [0.0, 0.5, 1.0]}, "B": {"x": [0.0, 10.0, 30.0], "y": [0.0, 0.5, 0.5]}}
    assert out["ecdf"]["seconds"]["A"]["x"] == [0.0, 20.0, 60.0]
    assert out["profile"]["step"]["fastest"] == {"A": {"x": [1.0, 2.0, 4.0], "y": [0.5, 1.0, 1.0]}, "B": {"x": [1.0, 4.0], "y": [0.5, 0.5]}}
    assert out["profile"]["step"]["reference"]["B"] == {"x": [0.25, 0.5, 4.0], "y": [0.0, 0.5, 0.5]}
    assert lines.series(dataclasses.replace(race, target=None))["ecdf"]["step"] == {}


def test_profile_against_the_reference_does_not_move_when_a_rival_is_added() -> None:
    few, many = example_race(["AdamW", "Lion"]), example_race()
    rival = tuple(t for t in many.trials if t.method == "Muon")
    added = dataclasses.replace(few, settings=dataclasses.replace(few.settings, methods=("AdamW", "Lion", "Muon")), trials=few.trials + rival)
    before, after = lines.series(few)["profile"]["step"], lines.series(added)["profile"]["step"]
    assert before["reference"]["Lion"] == after["reference"]["Lion"] and before["fastest"]["Lion"] != after["fastest"]["Lion"]


def test_crossing_follows_the_direction() -> None:
    assert lines.crossing(final(0, [0.2, 0.6]), "step", 0.5, "max") == 20.0
    assert lines.crossing(final(0, [0.2, 0.6]), "step", 0.5, "min") == 10.0
    assert lines.crossing(final(0, [math.nan, 0.9]), "step", 0.5, "min") == math.inf


def test_best_so_far_starts_with_the_defaults_and_ignores_lost_runs() -> None:
    def trial(stage: str, index: int, score: float | None) -> Trial:
        return Trial(key=f"{stage}{index}", method="A", stage=stage, index=index, seed=0, hyper={}, score=score)

    race = small(trial("extend", 0, 0.4), trial("tune", 1, math.nan), trial("tune", 0, 0.7), trial("tune", 2, 0.8), trial("defaults", 0, 0.9))
    best = lines.series(race)["best"]["A"]
    assert best == {"x": [0.0, 1.0, 2.0, 3.0, 4.0], "y": [0.9, 0.7, 0.7, 0.7, 0.4]}


# Colours

SIGHT = {  # linear RGB as seen with each kind of colour vision: Machado, Oliveira and Fernandes (2009), severity 1
    "usual": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}


def colours(look: int) -> dict[str, np.ndarray]:
    """The page's colours as linear RGB; `look` is 0 for light and 1 for dark."""
    css = files("thalweg.race.report").joinpath("look.css").read_text(encoding="utf-8")
    out = {}
    for name, *pair in re.findall(r"--(\w+): light-dark\(#(\w{6}), #(\w{6})\)", css):
        c = np.array([int(pair[look][i : i + 2], 16) for i in (0, 2, 4)]) / 255
        out[name] = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return out


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a linear sRGB colour."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted(float(c @ np.array([0.2126, 0.7152, 0.0722])) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", [0, 1])
def test_contrast_of_text_and_lines(look: int) -> None:
    c = colours(look)
    for text, ground in itertools.product(("ink", "muted", "accent"), ("paper", "ground", "wash")):
        assert contrast(c[text], c[ground]) >= 4.5, (text, ground)
    for i in range(1, 8):
        assert contrast(c[f"m{i}"], c["paper"]) >= 3, i


@pytest.mark.parametrize("look", [0, 1])
@pytest.mark.parametrize("sight", SIGHT)
def test_method_colours_stay_apart_for_every_colour_vision(look: int, sight: str) -> None:
    c = colours(look)
    seen = {name: lab(SIGHT[sight] @ c[name]) for name in ("ink", *(f"m{i}" for i in range(1, 8)))}
    distances = {(a, b): float(np.linalg.norm(seen[a] - seen[b])) for a, b in itertools.combinations(seen, 2)}
    assert min(distances.values()) >= 15, min(distances, key=lambda pair: distances[pair])


def test_no_two_methods_look_alike() -> None:
    names = [f"method {i}" for i in range(28)]
    styles = method_styles(names, "method 3")
    assert list(styles) == names and styles["method 3"]["colour"] == "--ink"
    assert len({tuple(s.values()) for s in styles.values()}) == 28
    first = [styles[n] for n in names[:8]]
    assert len({s["colour"] for s in first}) == 8

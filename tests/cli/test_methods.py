"""`thalweg methods` and `thalweg methods show`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thalweg.claims.run import latest, read
from thalweg.cli.main import run
from thalweg.inspect.catalogue import find, load
from thalweg.inspect.entry import Entry
from thalweg.inspect.evidence import CLAIMS, evidence


def test_every_method_is_listed_with_paper_and_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for entry in load():
        [line] = [line for line in lines if line.startswith(f"{entry.name} ")]
        assert f"{entry.authors} {entry.year}" in line
        assert ", ".join(entry.needs) in line


def test_family_limits_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--family", "wrap"]) == 0
    out = capsys.readouterr().out
    assert "SAM" in out and "AdamW" not in out


@pytest.mark.parametrize("entry", load(), ids=lambda e: e.name)
def test_show_says_everything(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "show", entry.name.lower()]) == 0
    out = capsys.readouterr().out
    flat = " ".join(out.split())
    assert entry.link in out
    assert " ".join(entry.title.split()) in flat
    for line in entry.equations.splitlines():
        assert (line in out) if line.startswith("    ") else (line in flat)
    for hyper in entry.hyper:
        assert hyper.name in out
    for sentence in (*entry.bias_in_words, *entry.reduces_to, *entry.departures, entry.use):
        assert " ".join(sentence.split()) in flat
    assert "Needs" in out and "State" in out


def test_show_says_whether_an_estimate_is_biased_and_by_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    run(["methods", "show", "StraightThrough"])
    assert "0.265 of the gradient's length: one sample of 4 classes" in " ".join(capsys.readouterr().out.split())
    run(["methods", "show", "ForwardGradient"])
    assert "none: the mean of the estimate is the gradient" in capsys.readouterr().out
    run(["methods", "show", "AdamW"])
    assert "Bias" not in capsys.readouterr().out


def test_show_says_what_the_papers_claims_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    run(["methods", "show", "DGC"])
    flat = " ".join(capsys.readouterr().out.split())
    for name in ("lin2017_dgc", "lin2017_dgc_text"):
        path = latest(name)
        assert path is not None
        assert f"thalweg claims show {name}: {read(path).verdict} {read(path).date}" in flat
    run(["methods", "show", "SGD"])
    assert "claims" not in capsys.readouterr().out


def test_a_claim_that_was_not_run_says_so(tmp_path: Path) -> None:
    """The newest of several runs counts."""
    entry, name = find("MeZO"), "malladi2023_mezo"
    shutil.copy(CLAIMS / f"{name}.py", tmp_path)
    [unknown] = evidence(entry, tmp_path)
    assert (unknown.claim, unknown.outcome) == (name, "not run")
    (tmp_path / "results").mkdir()
    for date, verdict in (("2026-01-02", "refuted"), ("2025-12-31", "supported")):
        held = {"verdict": verdict, "date": date}
        (tmp_path / "results" / f"{name}-{date}.json").write_text(json.dumps(held), encoding="utf-8")
    assert [e.outcome for e in evidence(entry, tmp_path)] == ["refuted, 2026-01-02"]


def test_show_counts_state(capsys: pytest.CaptureFixture[str]) -> None:
    run(["methods", "show", "AdamW"])
    out = capsys.readouterr().out
    assert "8 bytes per parameter in fp32" in out
    assert "1e-3" in out and ">= 0" in out and "logarithmic" in out

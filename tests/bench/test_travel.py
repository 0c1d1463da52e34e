"""Bytes on the wire are counted, and the benchmark of narrow links reads, compares and tidies up rightly. Times are not judged here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.core.seal import TAIL

ROOT = Path(__file__).resolve().parents[2]
TABLE = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      101       2    0    0    0     0       0          0
 wire0:20784384   21718    0    0    0     0          0         0 22335514   21543    0    0    0     0       0          0
"""


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])


def run(script: str, *words: str, path: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": path + os.environ["PATH"]}
    done = subprocess.run([sys.executable, str(ROOT / "bench" / script), *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_ip(folder: Path, body: str) -> None:
    program = folder / "ip"
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire")
    run("wire.py", "--methods", "DDP,DistributedLion", "--workers", "2", "--steps", "3", "--width", "64", "--out", str(folder))
    return folder


def test_bytes_of_two_processes(wire: Path) -> None:
    results = json.loads(next(wire.glob("wire_*.json")).read_text(encoding="utf-8"))
    assert {"title", "date", "commit", "environment", "steps", "weights", "interface", "workers", "goals", "load at the end"} == set(results)
    assert results["weights"] == 64 * 64 + 64 + 64 * 64 + 64 + 64 * 205 + 205
    ways = results["workers"]["2"]
    assert list(ways) == ["DDP", "DistributedLion"]
    assert ways["DDP"]["sent"] == 4 * results["weights"]
    assert ways["DistributedLion"]["sent"] == -(-results["weights"] // 8) + 2 + TAIL  # a bit for each weight, two bytes that may silence it, a seal
    for facts in ways.values():
        assert facts["interface"] > facts["sent"] == facts["received"] > 0
    met = {goal["goal"]: goal["met"] for goal in results["goals"]}
    assert met["DistributedLion, 2 workers: bytes handed to the process group over those of DDP"] is True
    assert met["DGC, 2 workers: bytes on the interface over those of DDP"] is None and len(met) == 4


def test_the_page_of_bytes(wire: Path) -> None:
    page = (wire / "wire.md").read_text(encoding="utf-8")
    assert page.startswith("## Bytes on the wire\n") and "| DDP | fp32, all-reduce | 86,580 | 1 |" in page
    assert "| DistributedLion | majority vote | 2,724 | 31.8 |" in page and "not measured" in page
    assert not list(wire.glob("*.part"))


def test_links_say_why_they_are_skipped(tmp_path: Path) -> None:
    fake_ip(tmp_path, "echo 'mount --make-shared /run/netns failed: Operation not permitted' >&2; exit 1")
    said = run("narrow_links.py", "--out", str(tmp_path / "results"), path=f"{tmp_path}:")
    assert said.startswith("narrow_links: skipped: network namespaces are not allowed here, which takes root with CAP_NET_ADMIN")
    assert len(said.splitlines()) == 1 and not (tmp_path / "results").exists()


def test_namespaces_are_removed_when_the_program_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from travel.namespaces import namespaces

    fake_ip(tmp_path, f'echo "$*" >> {tmp_path / "log"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), namespaces("a"):
        signal.raise_signal(signal.SIGTERM)
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines()[-1] == "netns del a"
    assert signal.getsignal(signal.SIGTERM) is before


def test_iproute2_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from travel.namespaces import Refused, namespaces

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="ip was not found: install iproute2"), namespaces(["a"]):
        pass


@pytest.mark.parametrize("failing", ["netns add b", "-n b link set lo up", "nothing"])
def test_namespaces_are_removed_when_something_fails(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from travel.namespaces import namespaces

    log = tmp_path / "log"
    fake_ip(tmp_path, f'echo "$*" >> {log}; [ "$*" != "{failing}" ] || {{ echo "something else" >&2; exit 1; }}')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match="of the benchmark" if failing == "nothing" else f"ip {failing} failed: something else"), namespaces("ab"):
        raise RuntimeError("of the benchmark")
    words = log.read_text(encoding="utf-8").splitlines()
    added = [w.split()[-1] for w in words if w.startswith("netns add") and w != failing]
    assert [w.split()[-1] for w in words if w.startswith("netns del")] == added[::-1] and "a" in added


@pytest.mark.parametrize(("place", "timeout"), [(["false"], 30.0), (["sh", "-c", "sleep 30"], 0.3)])
def test_a_worker_that_fails_or_is_late_is_an_error(place: list[str], timeout: float) -> None:
    from travel.launch import in_workers

    with pytest.raises(RuntimeError, match=f"within {timeout:g} s; their last words: worker 0: nothing"):
        in_workers([place], interface="lo", methods=["DDP"], steps=1, width=8, batch=1, timeout=timeout)


def test_transmitted_bytes_are_read_from_the_systems_table() -> None:
    from travel.worker import transmitted_in

    assert transmitted_in(TABLE, "lo") == 101 and transmitted_in(TABLE, "wire0") == 22335514
    with pytest.raises(ValueError, match="expected an interface called wire1 in /proc/net/dev"):
        transmitted_in(TABLE, "wire1")


def test_where_methods_are_equally_fast() -> None:
    from travel.crossover import between, crossings, winners

    bound = {10.0: 10.0, 100.0: 100.0, 1000.0: 1000.0}  # by the link
    level = dict.fromkeys(bound, 40.0)
    assert crossings(bound, level) == [pytest.approx(40.0)] and crossings(level, bound) == [pytest.approx(40.0)]
    assert crossings(bound, dict.fromkeys(bound, 100.0)) == [100.0]
    assert crossings(bound, dict.fromkeys(bound, 1.0)) == []
    assert between(bound, 31.0) == pytest.approx(31.0) and between(bound, 5000.0) == pytest.approx(1000.0)
    assert winners({"bound": bound, "level": level}) == [(10.0, "level"), (pytest.approx(40.0), "bound")]
    assert winners({"bound": bound, "slow": dict.fromkeys(bound, 1.0)}) == [(10.0, "bound")]


def test_the_simulators_prediction_and_its_words() -> None:
    import narrow_links as links

    free = {"step": 0.1, "sent": 1.25e6}
    for method in ("DDP", "DGC"):  # a second for the bytes, in one direction each
        assert links.predicted(method, free, 10.0, 64) == pytest.approx(128 / 1.1)
        assert links.predicted(method, free, float("inf"), 64) == pytest.approx(128 / 0.1)
    of = {"DDP": (10.0, 1000.0), "DGC": (100.0, 100.0)}
    by_link = {"no limit": {}, "10": {}, "1000": {}}
    for i, link in enumerate(["10", "1000", "no limit"]):
        by_link[link] = {name: dict.fromkeys(("samples per second", "predicted"), speeds[min(i, 1)]) for name, speeds in of.items()}
    found = links.judged(by_link)
    assert found["measured"] == {"fastest": [(10.0, "DGC"), (pytest.approx(100.0), "DDP")], "as DDP": {"DGC": [pytest.approx(100.0)]}}
    said = links.sentences(found, [10.0, 1000.0])
    assert said[0] == "The fastest, measured: DGC from 10, DDP from 100 Mbit/s on (interpolated between 10 and 1000)."
    assert said[1] == "As fast as DDP, measured: DGC at 100 Mbit/s." and len(said) == 4


def test_medians_of_steps_are_over_rounds_and_of_the_slower_worker() -> None:
    import narrow_links as links

    quick = [{"seconds": [1.0, 1.0], "sent": 5, "interface": 6}, {"seconds": [1.0, 4.0], "sent": 5, "interface": 8}]
    slow = [{"seconds": [2.0, 1.0], "sent": 5, "interface": 6}, {"seconds": [3.0, 1.0], "sent": 5, "interface": 8}]
    facts = links.facts_of([quick, slow], 10)
    assert facts["step"] == 2.5 and facts["samples per second"] == 8.0 and (facts["sent"], facts["interface"]) == (5, 7)


def test_all_compressors_of_the_library_travel() -> None:
    from travel.methods import METHODS, compressors, weights

    assert {"DDP", "DGC", "DistributedLion", "OneBitAdam", "PowerSGD", "TopK", "QSGD", "SignSGD"} <= set(METHODS)
    assert set(compressors()) <= set(METHODS) and weights(512) == 401_101

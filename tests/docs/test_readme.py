"""What the README lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from thalweg import __version__
from thalweg.inspect.catalogue import load

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_names_every_method_once() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ") and "`" in line]
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(entry.name for entry in load())


def test_links_lead_to_files_and_headings() -> None:
    root = Path(__file__).resolve().parents[2]
    for path, anchor in re.findall(r"\]\(([\w./]+)#?([\w-]*)\)", README):
        headings = re.findall(r"^#+ (.+)$", (root / path).read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings], (path, anchor)


def test_the_citation_and_the_constraints_fit_the_package() -> None:
    root = Path(__file__).resolve().parents[2]
    assert f"\nversion: {__version__}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", pin) for pin in pins)

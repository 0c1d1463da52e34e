"""What the claims about a method's paper came to, read from their files as text: nothing is imported, so that a method is shown at once."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.inspect.entry import Entry

CLAIMS = Path(__file__).resolve().parents[1] / "claims"


@dataclass(frozen=True)
class Evidence:
    """One claim.

    Args:
        claim: its name.
        statement: what the paper says.
        verdict: of the newest run: "supported", "refuted" or "inconclusive"; "not run" where there is none.
        date: of that run, or "".
    """

    claim: str
    statement: str
    verdict: str
    date: str

    @property
    def outcome(self) -> str:
        """Verdict and date in words."""
        return f"{self.verdict}, {self.date}" if self.date else self.verdict


def evidence(entry: Entry, folder: Path = CLAIMS) -> list[Evidence]:
    """The claims about the paper of a method, by name; none for a paper that arXiv does not have."""
    files = [file for file in sorted(folder.glob("*.py")) if entry.arxiv and f'"{entry.arxiv}"' in file.read_text(encoding="utf-8")]
    return [_newest(claim, folder / "results") for claim in map(_claim, files) if claim.get("arxiv") == entry.arxiv]


def _claim(file: Path) -> dict[str, Any]:
    """The literal arguments of `CLAIM = Claim(...)`, or nothing in a file without one."""
    for node in ast.parse(file.read_text(encoding="utf-8"), str(file)).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and [getattr(t, "id", "") for t in node.targets] == ["CLAIM"]:
            return {str(k.arg): k.value.value for k in node.value.keywords if isinstance(k.value, ast.Constant)}
    return {}


def _newest(claim: dict[str, Any], results: Path) -> Evidence:
    path = max(results.glob(f"{claim['name']}-*.json"), default=None)
    held = json.loads(path.read_text(encoding="utf-8")) if path else {"verdict": "not run", "date": ""}
    return Evidence(claim["name"], claim["statement"], held["verdict"], held["date"])

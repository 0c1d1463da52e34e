"""Where a measurement was taken, and how it is written down."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The commit, with a plus where files are changed other than results."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)bench/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def environment(peers: Sequence[str]) -> dict[str, Any]:
    """The machine and the versions."""
    versions = {}
    for name in peers:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(), "processor": processor(),
            "cpus": os.cpu_count(), "load": os.getloadavg(), "system": platform.platform(), "peers": versions}


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def without_nan(value: Any) -> Any:
    """The same with None for what was not measured: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace(target: Path, text: str) -> None:
    """Write beside the place and move there."""
    temporary = target.with_name(target.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)

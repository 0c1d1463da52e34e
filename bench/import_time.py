"""What `import thalweg` adds to `import torch`, and what its first use adds: medians of fresh interpreters, taken in turns.

python bench/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

LINES = {
    "import torch": "import torch",
    "import torch, thalweg": "import torch, thalweg",
    "... and thalweg.optim": "import torch, thalweg; thalweg.optim",
}
ROUNDS = 9
GOAL, GOAL_MS = "import torch, thalweg", 150.0


def seconds(line: str) -> float:
    code = f"import time; t = time.perf_counter(); {line}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    for line in LINES.values():
        seconds(line)  # the first run reads the files from the disk
    rounds = [{name: seconds(line) for name, line in LINES.items()} for _ in range(ROUNDS)]
    base = statistics.median(r["import torch"] for r in rounds)
    print(f"{'':24}{'median ms':>10}{'added ms':>10}")
    for name in LINES:
        added = statistics.median(r[name] - r["import torch"] for r in rounds) * 1e3
        median = statistics.median(r[name] for r in rounds) * 1e3
        verdict = f"   goal: at most {GOAL_MS:.0f} added, {'met' if added <= GOAL_MS else 'missed'}" if name == GOAL else ""
        print(f"{name:24}{median:10.0f}{added:10.1f}{verdict}")
    print(f"({ROUNDS} rounds; torch alone takes {base:.2f} s)")


if __name__ == "__main__":
    main()

"""What needs a process of its own: the first compiled step, and the memory that a step takes beyond state.

python -m steps.fresh first ROW LIST
python -m steps.fresh memory ROW LIST BACKEND
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def first_steps(row: str, listing: str) -> dict[str, float]:
    """Seconds of the first compiled step with an empty cache and with the cache that this left, each in a fresh interpreter."""
    with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as cache:
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache, "TMPDIR": cache}  # precompiled headers go to the latter
        return {name: _run(["first", row, listing], environment)["seconds"] for name in ("cold", "warm")}


def memory(row: str, listing: str, backend: str) -> dict[str, float]:
    """Peak bytes of the resident set beyond parameters, gradients and state (what packing keeps included), in a fresh interpreter.

    Every allocation of 64 KiB or more is mapped by itself there, so that what a step frees leaves the resident set and is counted when it
    comes again.
    """
    return _run(["memory", row, listing, backend], {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"})


def _run(arguments: list[str], environment: dict[str, str]) -> Any:
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "steps.fresh", *arguments],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"seconds": float("nan"), "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_first(name: str, listing: str) -> dict[str, float]:
    from steps.lists import LISTS, parameters
    from steps.rows import rows

    row = next(row for row in rows() if row.name == name)
    params = parameters(LISTS[listing].chosen(row.matrices))
    optimizer = row.rule.optimizer(params, backend="compiled", **row.options)
    start = time.perf_counter()
    optimizer.step()
    return {"seconds": time.perf_counter() - start}


def measure_memory(name: str, listing: str, backend: str) -> dict[str, float]:
    from steps.lists import LISTS, parameters
    from steps.rows import rows
    from steps.timing import state_bytes

    row = next(row for row in rows() if row.name == name)
    params = parameters(LISTS[listing].chosen(row.matrices))
    warm = row.rule.optimizer(params, backend=backend, **row.options)
    for _ in range(2):  # modules are loaded and kernels compiled; some rules' first step is a rare one, which runs eagerly
        warm.step()
    del warm
    gc.collect()
    optimizer = row.rule.optimizer(params, backend=backend, **row.options)
    before = resident("VmRSS")
    optimizer.step()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
    optimizer.step()
    state = state_bytes(optimizer)
    return {"resident": resident("VmHWM") - before - state, "state": state}


def resident(field: str) -> float:
    """Bytes of a field of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    print(json.dumps(measure_first(*rest) if mode == "first" else measure_memory(*rest)))

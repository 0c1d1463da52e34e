"""A race in a process of its own: waits for the file GO, races, and writes the result. Usage: race_runner.py OUT GO."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from thalweg.race.race import race

METHODS = ["torch.AdamW", "torch.SGD", "torch.Adagrad"]
OPTIONS = {"reference": "torch.AdamW", "trials": 3, "seeds": 3, "steps": 60, "report": False}

if __name__ == "__main__":
    out, go, workers = sys.argv[1:]
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.02)
    race("diabetes", METHODS, out=out, resume=True, workers=int(workers), **OPTIONS)

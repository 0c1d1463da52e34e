"""What all tests share: one thread per process, so that two processes fit on two cores, and a compiler's cache of this run alone."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
import torch

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    if CACHE not in os.environ:  # of the first process, whose workers inherit it; a cache that other code has filled knows other guards on sizes
        os.environ[CACHE] = tempfile.mkdtemp(prefix="thalweg-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True))

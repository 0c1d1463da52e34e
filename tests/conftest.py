"""What all tests share: one thread per process, so that two processes fit on two cores, and the browser."""

from __future__ import annotations

import shutil

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a chromium, for tests that open a page."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium on PATH: apt-get install chromium")
    return path

"""What all tests share: one thread per process, so that two processes fit on two cores."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)

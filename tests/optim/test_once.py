"""A vector that is to be computed once is the vector itself, with the same memory."""

from __future__ import annotations

import pytest
import torch

from thalweg.optim.once import once


def test_it_is_the_same_memory_whatever_its_layout() -> None:
    x = torch.randn(3, 5, 4)
    for view in (x, x.mT, x[:, 1:, :1], x[1:, :, 2:].mT, x[:0]):
        kept = once(view)
        assert torch.equal(kept, view) and kept.stride() == view.stride() and kept.data_ptr() == view.data_ptr()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # of torch's compiler, when it is first imported
def test_compiled_it_changes_no_number() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * once((x * x).mean(-1, keepdim=True).rsqrt()) * once((x * x).mean(-2, keepdim=True).sqrt())

    x = torch.randn(2, 40, 30, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(scaled, dynamic=True)(x), scaled(x), rtol=1e-13, atol=0)

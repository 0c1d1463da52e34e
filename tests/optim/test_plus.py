"""x + a y, for Python numbers and for 0-d tensors."""

from __future__ import annotations

import torch

from thalweg.optim.plus import plus


def test_both_forms_agree_and_keep_the_dtype() -> None:
    x, y = torch.arange(4.0), torch.ones(4)
    for a in (0.25, torch.tensor(0.25, dtype=torch.float64)):
        assert plus(x, a, y).tolist() == [0.25, 1.25, 2.25, 3.25]
        assert plus(x, a, y).dtype == torch.float32
    assert x.tolist() == [0, 1, 2, 3]

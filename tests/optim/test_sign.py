"""A sign that keeps NaN."""

from __future__ import annotations

import torch
from oracles import weights

from thalweg.optim.sign import sign


def test_is_the_sign_and_keeps_nan() -> None:
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([2.0, -3e-20, 0.0, -0.0, inf, -inf, nan])
    assert sign(x)[:6].tolist() == [1, -1, 0, 0, 1, -1]
    assert sign(x)[6].isnan(), "torch.sign gives 0 here"
    for dtype in (torch.float32, torch.float64):
        w = weights([(50, 40)], dtype)[0]
        assert torch.equal(sign(w), w.sign())

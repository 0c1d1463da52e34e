"""`describe()` says what an optimizer does with each parameter, before and after its first step."""

import torch
from torch import nn

from thalweg.core.backends import EAGER_STEPS
from thalweg.optim import AdamW, Muon, route


def model():
    net = nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 64))
    net.empty = nn.Parameter(torch.zeros(0))
    net.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    return net


def test_precision_bytes_and_fallbacks():
    optimizer = AdamW(model().named_parameters(), state_precision={"m": "8bit", "v": "bf16"})
    rows = {row.name: row for row in optimizer.describe().rows}
    assert rows["0.weight"].precision == {"m": "8bit", "v": "bf16"} and rows["0.bias"].precision == {"m": "fp32", "v": "fp32"}
    assert rows["0.weight"].bytes == 128 * 64 * (1 + 2) + 4 * (128 * 64 // 256)  # codes, bf16, one scale for each block
    assert rows["0.bias"].bytes == 64 * 8
    assert rows["0.bias"].remarks == (
        "state m stays in full precision: 64 elements: fewer than 4096", "state v stays in full precision: 64 elements: fewer than 4096",
    )  # fmt: skip
    assert rows["empty"].remarks == ("has no elements",) and rows["frozen"].remarks == ("does not require a gradient",)
    text = str(optimizer.describe())
    assert "0.bias: state m stays in full precision" in text and f"state: {optimizer.describe().bytes:,} bytes" in text


def test_the_forecast_is_what_a_step_allocates():
    net = model()
    optimizer = AdamW(net.named_parameters(), state_precision="8bit", backend="eager")
    before = optimizer.describe()
    assert not optimizer.state
    for p in net.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    assert optimizer.describe() == before
    held = sum(x.numel() * x.element_size() for state in optimizer.state.values() for name, x in state.items() if name != "step")
    assert held == before.bytes


def test_backend_and_rule():
    large = nn.Linear(1024, 1024)
    rows = {row.name: row for row in AdamW(large.named_parameters()).describe().rows}
    assert rows["weight"].backend == f"eager, compiled after step {EAGER_STEPS}"
    rows = {row.name: row for row in AdamW(model().named_parameters(), backend="compiled").describe().rows}
    assert rows["0.weight"].backend == "compiled"
    routed = route(nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 8)), {"hidden matrices": Muon(), "rest": AdamW()}).describe()
    assert [(row.name, row.rule) for row in routed.rows] == [("0.weight", "Muon"), ("0.bias", "AdamW"), ("1.weight", "AdamW"), ("1.bias", "AdamW")]

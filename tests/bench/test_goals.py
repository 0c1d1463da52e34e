"""The goals that compare matrix rules with their peers and 4-bit Shampoo with Shampoo: the worst case decides, what was not measured is not met."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCH = Path(__file__).resolve().parents[2] / "bench"
MATRICES = "every matrix rule, the better backend: at most its fastest peer's time"
STATE = "Shampoo in 4 bit: at most 1/7 of Shampoo's state in fp32 (GPT of width 256)"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))
    for name in [name for name in sys.modules if name.partition(".")[0] == "steps"]:
        del sys.modules[name]


def row(matrices: bool) -> dict[str, Any]:
    return {"elementwise": not matrices, "matrices": matrices, "options": {}, "two_passes": False, "per_parameter": 28}


def cells(**ratios: float) -> dict[str, Any]:
    return {column.replace("_", " "): {"ratio": ratio} for column, ratio in {"reference": 1.0, **ratios}.items()}


def judged(times: dict[str, Any]) -> dict[str, dict[str, Any]]:
    from steps import goals

    rows = {"AdamW": row(False), "Muon": row(True), "SOAP": row(True), "AuON": row(True)}
    return {goal["goal"]: goal for goal in goals.judge({"rows": rows, "times": times, "fresh": {}})}


def test_every_matrix_rule_with_a_peer_counts_and_the_worst_decides() -> None:
    muon = cells(thalweg_compiled=5.0, thalweg_eager=6.0, heavyball=5.5, torch_loop=8.0)
    alone, slow_adamw = cells(thalweg_eager=50.0), cells(thalweg_compiled=9.0, torch_fused=1.0)
    fast = judged({"gpt": {"Muon": muon, "AuON": alone, "AdamW": slow_adamw}})[MATRICES]
    assert fast["met"] is True and fast["worst"] == pytest.approx(5.0 / 5.5) and fast["where"] == "Muon, gpt, against heavyball"
    soap = cells(thalweg_compiled=30.0, thalweg_eager=24.0, **{"pytorch-optimizer": 20.0})
    both = judged({"gpt": {"Muon": muon}, "resnet": {"SOAP": soap}})
    assert both[MATRICES]["met"] is False and both[MATRICES]["where"] == "SOAP, resnet, against pytorch-optimizer"
    assert both[MATRICES]["worst"] == pytest.approx(1.2)
    assert both["Muon, the better backend: at most the fastest peer's time"]["met"] is True
    assert judged({"gpt": {"AuON": alone}})[MATRICES]["met"] is None


def test_the_state_of_4_bit_shampoo_is_compared_with_that_of_shampoo() -> None:
    def states(four: float) -> dict[str, Any]:
        return {"narrow": {"Shampoo": {"thalweg eager": {"state_bytes": 24.0}}, "Shampoo4bit": {"thalweg eager": {"state_bytes": four}}}}

    assert judged(states(3.3))[STATE]["met"] is True
    assert judged(states(3.5))[STATE]["met"] is False
    unknown = judged({"narrow": {"Shampoo": {"thalweg eager": {"state_bytes": 24.0}}}})[STATE]
    assert unknown["met"] is None and math.isnan(unknown["worst"])


def test_measured_on_some_matrices_of_the_list_the_state_is_below_a_seventh() -> None:
    from steps import rows, timing

    found = {row.name: row for row in rows.rows() if row.name in ("Shampoo", "Shampoo4bit")}
    size = {}
    for name, chosen in found.items():
        assert chosen.matrices and chosen.rule.max_dim == rows.WIDEST
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((192, 64), (256, 64))]
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer = chosen.rule.optimizer(params, backend="eager")
        optimizer.step()
        size[name] = timing.state_bytes(optimizer) / sum(p.numel() for p in params)
    assert 0 < size["Shampoo4bit"] <= size["Shampoo"] / 7


def test_peers_that_want_marked_groups_run_the_matrix_rule_and_not_another() -> None:
    """Unmarked, pytorch-optimizer's GaLore and NorMuon take dense Adam steps with two states of the weights' size."""
    from steps import rows, timing

    for row in rows.rows():
        if row.name in ("GaLore", "NorMuon"):
            p = torch.nn.Parameter(torch.randn(512, 256))
            p.grad = torch.randn_like(p)
            [(_, make)] = row.peers["pytorch-optimizer"]
            optimizer = make([p])
            optimizer.step()
            assert timing.state_bytes(optimizer) / p.numel() < 8

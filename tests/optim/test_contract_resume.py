"""Contract: a run that was saved and resumed repeats the uninterrupted one bit for bit; so do deep copies and pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from contract import RULES, SHAPES, advance, copies, every_rule, same, shapes_for, states, stored, weights
from torch import nn

import thalweg as tw
from thalweg.core.contract import RuleLike
from thalweg.core.engine import Engine

PRECISIONS = [None, "bf16", "8bit", "4bit"]
STORAGE: list[tuple[torch.dtype, str]] = [(torch.float32, "nearest"), *((torch.bfloat16, mode) for mode in ("nearest", "stochastic", "kahan"))]
BIG = (*SHAPES, (260, 300))
"""With one that is not packed."""


def two_groups(rule: RuleLike, params: Sequence[nn.Parameter], second: bool, **options: Any) -> Engine:
    """An optimizer over all parameters but two, and over these with their own rate where `second` is set."""
    opt = rule.optimizer([p for p in params[2:]], **options)
    if second:
        opt.add_param_group({"params": params[:2], "lr": 0.003})
    return opt


def train(opt: Engine, params: Sequence[nn.Parameter], steps: range) -> None:
    """Two parameters get their first gradient late, one of them in each group."""
    for t in steps:
        advance(opt, params, range(t, t + 1), absent=[0, 3] if t < 2 else [])


def through_a_file(a: Engine, b: Engine) -> None:
    b.load_state_dict(stored(a.state_dict()))


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize(("dtype", "rounding"), STORAGE, ids=lambda x: str(x).removeprefix("torch."))
@every_rule
def test_resume_repeats_the_run(rule: RuleLike, dtype: torch.dtype, rounding: str, precision: str | None) -> None:
    """Seven steps through, and once more with a new optimizer after four; the second group came after one."""
    options = {"backend": "eager", "state_precision": precision, "weight_rounding": rounding, "seed": 5}
    shapes = shapes_for(rule, BIG if dtype == torch.float32 else SHAPES)
    params = weights(shapes, dtype)
    through = two_groups(rule, params, False, **options)
    train(through, params, range(1))
    through.add_param_group({"params": params[:2], "lr": 0.003})
    train(through, params, range(1, 4))
    again = copies(params)
    other = two_groups(rule, again, True, **options)
    through_a_file(through, other)
    assert same(states(other), states(through))
    train(through, params, range(4, 7))
    train(other, again, range(4, 7))
    assert same(again, params)
    assert same(states(other), states(through))
    assert not same(params, weights(shapes, dtype))


@every_rule
def test_state_keeps_its_precision(rule: RuleLike) -> None:
    """torch's own load_state_dict casts floating state to the dtype of the weights."""
    own = [name for name in rule.init(torch.zeros(1, 64, 64)) if rule.storage_of(name) is not None]  # has a codec of the rule's
    for precision, expected in ((None, torch.float32), ("bf16", torch.bfloat16), ("8bit", torch.uint8)):
        params = weights([(64, 64)], torch.bfloat16)
        opt = rule.optimizer(params, backend="eager", state_precision=precision)
        advance(opt, params, range(1))
        loaded = rule.optimizer(copies(params), backend="eager", state_precision=precision)
        through_a_file(opt, loaded)
        for held in (opt.state_dict(), loaded.state_dict()):
            for name, value in held["state"][0].items():
                numbers = {"step": torch.int64, "shared": torch.float64, **dict.fromkeys(rule.past, torch.float64)}
                if precision is None and name.removesuffix(".1") in own:
                    continue
                assert value.dtype == numbers.get(name, expected if value.numel() >= 4096 else torch.float32), name
        assert any(v.numel() >= 2048 for v in opt.state_dict()["state"][0].values()) or set(rule.init(torch.zeros(1, 64, 64))) in (set(), {"r", "c"})


@every_rule
def test_a_file_holds_only_plain_values(rule: RuleLike) -> None:
    params = weights(shapes_for(rule))
    opt = rule.optimizer(params, backend="eager", state_precision="8bit")
    advance(opt, params, range(1))
    saved = opt.state_dict()
    plain = (int, float, str, bool, type(None))
    for group in saved["param_groups"]:
        for key, value in group.items():
            assert isinstance(value, plain) or (isinstance(value, list | tuple) and all(isinstance(x, plain) for x in value)), key
    assert all(isinstance(v, torch.Tensor) for s in saved["state"].values() for v in s.values())
    assert saved["param_groups"][0]["rule"] == rule.name and saved["param_groups"][0]["schema"] == 1


@every_rule
def test_loading_copies(rule: RuleLike) -> None:
    """The loaded optimizer shares no memory with the file, nor with the optimizer that wrote it."""
    params = weights(shapes_for(rule))
    opt = rule.optimizer(params, backend="eager")
    advance(opt, params, range(2))
    file = opt.state_dict()
    before = [s.clone() for s in states(opt)]
    again = copies(params)
    other = rule.optimizer(again, backend="eager")
    other.load_state_dict(file)
    advance(other, again, range(2, 4))
    assert same(states(opt), before)
    assert all(int(s["step"]) == 4 for s in other.state.values())


@every_rule
def test_a_loaded_rate_and_a_changed_rate_are_used(rule: RuleLike) -> None:
    """The groups of a loaded optimizer are live: a rate of zero stops the weights."""
    params = weights(shapes_for(rule))
    opt = rule.optimizer(params, backend="eager")
    advance(opt, params, range(1))
    opt.param_groups[0]["lr"] = 0.0
    again = copies(params)
    other = rule.optimizer(again, backend="eager")
    through_a_file(opt, other)
    advance(other, again, range(1, 3))
    assert same(again, params)
    other.param_groups[0]["lr"] = 0.01
    advance(other, again, range(3, 4))
    assert not same(again, params)


@every_rule
def test_deepcopy_and_pickle_go_on_alike(rule: RuleLike) -> None:
    for duplicate in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        params = weights(shapes_for(rule))
        opt = rule.optimizer(params, backend="eager", state_precision="8bit", seed=3)
        opt.param_groups[0]["lr"] = 0.02
        advance(opt, params, range(3))
        twin, again = duplicate((opt, params))
        assert twin.param_groups[0]["params"][0] is again[0] and again[0] is not params[0]
        advance(opt, params, range(3, 5))
        advance(twin, again, range(3, 5))
        assert same(params, again) and same(states(opt), states(twin))


def test_parameters_are_found_by_position_when_strides_are_odd() -> None:
    """State follows the logical shape, not the memory order."""
    start = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    a, b = [nn.Parameter(start.t())], [nn.Parameter(start.t().contiguous())]
    first = tw.optim.AdamW(a, lr=0.01, backend="eager")
    advance(first, a, range(2))
    with torch.no_grad():
        b[0].copy_(a[0])
    second = tw.optim.AdamW(b, lr=0.01, backend="eager")
    through_a_file(first, second)
    advance(first, a, range(2, 4))
    advance(second, b, range(2, 4))
    assert torch.equal(a[0], b[0]) and not a[0].is_contiguous()


def test_the_suite_covers_every_storage() -> None:
    assert len(RULES) * len(PRECISIONS) * len(STORAGE) >= 18 * 16

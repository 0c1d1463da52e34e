"""Contract: the body of a rule is a pure function, written for Python numbers and for tensors alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from contract import CLASSES, RULES, every, every_rule
from torch import Tensor

import thalweg as tw
from thalweg.core.contract import RuleLike
from thalweg.core.rule import Needs, Rule

Inputs = tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Any]]


def test_the_suite_sees_every_exported_rule() -> None:
    exported = {name for name in tw.optim.__all__ if isinstance(getattr(tw.optim, name), type) and issubclass(getattr(tw.optim, name), Rule)}
    assert exported == set(CLASSES) and len(exported) >= 18
    assert set(CLASSES) <= set(RULES)


def inputs(rule: RuleLike, t: int = 3) -> Inputs:
    """Gradient, weights, a state that is not zero, and scalars with made-up sums."""
    generator = torch.Generator().manual_seed(5)
    shape = (40,) if rule.kind is Needs.ELEMENTWISE else (2, 8, 5)
    g, w = (torch.randn(shape, generator=generator) for _ in range(2))
    state = {name: torch.rand(x.shape, generator=generator) for name, x in rule.init(w).items()}
    past: dict[str, float] = {}
    for step in range(1, t + 1):
        past = rule.recur(step, past)
    sums = {name: torch.tensor(3.0, dtype=torch.float64) for names in rule.inputs for name in names}
    c = {"t": float(t), "rare": rule.rare_at(t), **past, **rule.scalars(t), **sums}
    if rule.draws:
        c["normal"] = torch.randn(shape, generator=generator)
    return g, w, state, c


def outputs(rule: RuleLike, given: Inputs) -> dict[str, Tensor]:
    """Everything that the rule computes from its inputs."""
    g, w, s, c = given
    d, new = rule.step(g, w, s, c)
    out = {"direction": d, "weights": rule.apply(w, d), **{f"new {k}": v for k, v in new.items()}}
    out |= {f"init {k}": v for k, v in rule.init(w).items()}
    for phase in range(len(rule.phases)):
        out |= {f"sum {k}": v for k, v in rule.measure_phase(phase, g, w, s, c).items()}
    if rule.probe_kind:
        out |= {f"absorbed {k}": v for k, v in rule.absorb(g * g, w, s, c).items()}
    if rule.averaged:
        out |= {"evaluation": rule.evaluation(w, s, c), "training": rule.training(w, s, c)}
    return out


@every_rule
def test_inputs_stay_and_the_result_repeats(rule: RuleLike) -> None:
    given = inputs(rule)
    tensors = [given[0], given[1], *given[2].values()]
    before, versions = [x.clone() for x in tensors], [x._version for x in tensors]
    first = outputs(rule, given)
    kept = {k: v.clone() for k, v in first.items()}
    second = outputs(rule, given)
    assert [x._version for x in tensors] == versions, "an input was written in place"
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) and torch.equal(first[k], kept[k]) for k in first), "a second call changed the result of the first"


@every_rule
def test_results_have_the_dtype_and_shape_of_the_inputs(rule: RuleLike) -> None:
    for dtype in (torch.float32, torch.float64):
        g, w, s, c = inputs(rule)
        given = (g.to(dtype), w.to(dtype), {k: v.to(dtype) for k, v in s.items()}, c | ({"normal": c["normal"].to(dtype)} if rule.draws else {}))
        found = outputs(rule, given)
        assert found["direction"].shape == found["weights"].shape == w.shape
        for name, value in found.items():
            assert value.dtype == dtype, f"{name} is {value.dtype} for {dtype}"
            if name.startswith(("new", "absorbed")):
                assert value.shape == s[name.split(" ", 1)[1]].shape


@every({name: rule for name, rule in RULES.items() if rule.compilable})
def test_numbers_as_tensors_give_what_floats_give(rule: RuleLike) -> None:
    """A compiled kernel passes hyperparameters and scalars as 0-d float64 tensors."""
    g, w, s, c = inputs(rule)

    def tensors(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(tensors, value))
        return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value

    bound = rule.bound({k: tensors(v) for k, v in rule.hyper().items()})
    floats, numbers = outputs(rule, (g, w, s, c)), outputs(bound, (g, w, s, {k: tensors(v) for k, v in c.items()}))
    for name, value in floats.items():
        assert numbers[name].dtype == value.dtype, f"{name} is promoted to {numbers[name].dtype}"
        assert torch.allclose(numbers[name], value, rtol=2e-5, atol=1e-6), name


@every_rule
def test_the_state_starts_at_the_first_step_whatever_the_weights(rule: RuleLike) -> None:
    _, w, s, _ = inputs(rule)
    assert all(torch.equal(a, b) for a, b in zip(rule.init(w).values(), rule.init(torch.full_like(w, torch.nan)).values(), strict=True))
    assert all(isinstance(name, str) and not name.startswith("step") for name in s)


@every_rule
def test_shared_numbers_are_made_from_numbers(rule: RuleLike) -> None:
    c = inputs(rule)[3]
    made = rule.share(c)
    assert tuple(made) == tuple(rule.start()) == rule.shared
    assert all(value.dim() == 0 and value.dtype == torch.float64 for value in made.values())


@every({name: rule for name, rule in RULES.items() if rule.averaged})
def test_the_weights_of_training_come_back_from_those_of_evaluation(rule: RuleLike) -> None:
    _, w, s, c = inputs(rule)
    shown = rule.evaluation(w, s, c)
    assert not torch.allclose(shown, w)
    assert torch.allclose(rule.training(shown, s, c), w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_a_rule_is_a_frozen_value(cls: type[Rule]) -> None:
    rule = cls()
    assert rule == cls() and hash(rule) == hash(cls()) and eval(repr(rule), {cls.__name__: cls}) == rule
    first = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule, first, 1.0)
    for field in dataclasses.fields(cls):
        assert field.kw_only and field.metadata["meaning"] and field.metadata["range"]

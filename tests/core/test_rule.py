"""Rule: the two ways to call it, its signature, and what happens to its numbers."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg.core.checks import hyper
from thalweg.core.engine import OPTIONS, Engine
from thalweg.core.rule import Needs, Rule, Scalars, State, descend, ema


@dataclass(frozen=True, kw_only=True)
class Half(Rule):
    """A rule of two lines."""

    lr: float = hyper(0.5, ">= 0", "learning rate")
    power: int = hyper(1, "int >= 1", "a whole number")

    def scalars(self, t: int) -> dict[str, float]:
        return {"rate": 1.0 / t**self.power}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return c["rate"] * g, {}


@dataclass(frozen=True, kw_only=True)
class Delayed(Rule):
    """Steps along the gradient of the step before, which is the old state itself or a view of it."""

    lr: float = hyper(1.0, ">= 0", "learning rate")
    view: bool = hyper(False, "bool", "whether it is a view")

    def init(self, w: Tensor) -> State:
        return {"last": torch.zeros_like(w)}

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        return s["last"].view(s["last"].shape) if self.view else s["last"], {"last": g}


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("n", [3, 70_000])
def test_a_step_along_an_old_state_does_not_see_the_new_one(view: bool, n: int) -> None:
    p = nn.Parameter(torch.zeros(n))
    opt = Delayed([p], view=view, backend="eager")
    for t, expected in enumerate((0.0, -1.0, -3.0), start=1):
        p.grad = torch.full((n,), float(t))
        opt.step()
        assert torch.equal(p.detach(), torch.full((n,), expected))


def test_with_parameters_an_optimizer_without_a_rule() -> None:
    p = nn.Parameter(torch.ones(3))
    rule, opt = Half(lr=0.25), Half([p], lr=0.25, backend="eager", seed=3)
    assert isinstance(rule, Half) and isinstance(opt, Engine) and isinstance(opt, torch.optim.Optimizer)
    assert opt.rule == rule == rule.optimizer([p]).rule and opt.options["seed"] == 3
    assert opt.defaults["lr"] == 0.25


def test_the_body_is_all_that_moves() -> None:
    p = nn.Parameter(torch.ones(3))
    opt = Half([p], lr=0.5, backend="eager")
    for expected in (0.5, 0.25, 1 / 12):
        p.grad = torch.ones(3)
        opt.step()
        assert torch.allclose(p, torch.full((3,), expected), rtol=1e-6)


def test_the_signature_shows_hyperparameters_and_options() -> None:
    parameters = inspect.signature(Half).parameters
    assert list(parameters) == ["params", "lr", "power", *OPTIONS]
    assert parameters["params"].kind is inspect.Parameter.POSITIONAL_ONLY
    assert parameters["lr"].default == 0.5 and parameters["backend"].default == "auto"
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for name, p in parameters.items() if name != "params")


def test_numbers_are_checked_and_made_floats() -> None:
    assert isinstance(Half(lr=1).lr, float) and isinstance(Half(power=2).power, int)
    assert tw.optim.AdamW(betas=[0, 0.5]).betas == (0.0, 0.5)
    with pytest.raises(ValueError, match=r"Half: power must be an integer >= 1; found 2.0"):
        Half(power=2.0)
    with pytest.raises(ValueError, match=r"AdamW: betas must hold 2 numbers, each in \[0, 1\); found \(0.9,\)"):
        tw.optim.AdamW(betas=(0.9,))
    with pytest.raises(ValueError, match=r"AdamW: betas\[1\] must be in \[0, 1\); found 1.0"):
        tw.optim.AdamW(betas=(0.9, 1.0))
    with pytest.raises(TypeError):
        Half([nn.Parameter(torch.ones(1))], 0.1)


def test_with_hyper_checks_and_bound_does_not() -> None:
    rule = Half(lr=0.25)
    assert rule.with_hyper({"lr": 1}) == Half(lr=1.0) and rule.lr == 0.25
    with pytest.raises(ValueError, match="Half: lr must be a number >= 0; found -1"):
        rule.with_hyper({"lr": -1})
    assert rule.bound({"lr": torch.tensor(-1.0), "power": 1}).lr == -1


def test_rules_are_values() -> None:
    rule = tw.optim.Lion(lr=0.1)
    assert copy.deepcopy(rule) == rule == pickle.loads(pickle.dumps(rule)) and len({rule, tw.optim.Lion(lr=0.1)}) == 1
    with pytest.raises(TypeError, match="abstract"):
        Rule()


def test_ema_and_descend_for_floats_and_tensors() -> None:
    m, g = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    for b in (0.9, torch.tensor(0.9, dtype=torch.float64)):
        assert torch.allclose(ema(m, g, b), torch.tensor([1.2, -1.4]))
        assert torch.allclose(descend(m, g, b), torch.tensor([-1.7, -5.6]))
    assert torch.equal(ema(m, g, 1.0), m) and torch.equal(ema(m, g, 0.0), g)


def test_an_elementwise_state_must_start_at_zero() -> None:
    @dataclass(frozen=True, kw_only=True)
    class FromWeights(Half):
        """Keeps a copy of the weights, which an elementwise rule may not."""

        def init(self, w: Tensor) -> State:
            return {"anchor": w + 1}

    opt = FromWeights([nn.Parameter(torch.ones(3))], backend="eager")
    opt.param_groups[0]["params"][0].grad = torch.ones(3)
    with pytest.raises(ValueError, match="FromWeights: states of an elementwise rule start at zero and have the shape of w; anchor does not"):
        opt.step()


def test_a_layer_state_may_start_at_the_weights_shape() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Counted(Half):
        """Starts at one and adds one for each step."""

        needs = Needs.LAYER

        def init(self, w: Tensor) -> State:
            return {"n": torch.ones_like(w[..., :1])}

        def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
            return g / s["n"], {"n": s["n"] + 1}

    p = nn.Parameter(torch.zeros(4, 3))
    opt = Counted([p], lr=1.0, backend="eager")
    for expected in (-1.0, -1.5, -1.5 - 1 / 3):
        p.grad = torch.ones(4, 3)
        opt.step()
        assert torch.allclose(p, torch.full((4, 3), expected))
    assert torch.equal(opt.state[p]["n"].reshape(-1), torch.full((4,), 4.0))


def test_options_without_parameters_are_misplaced() -> None:
    with pytest.raises(TypeError, match=r"Half: backend, seed belong to the optimizer; give the parameters first, or use .optimizer\(params, ...\)"):
        Half(backend="eager", seed=1)

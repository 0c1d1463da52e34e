"""Contract: what torch's own tools expect of an optimizer: mixed precision, hooks, accumulation, checkpoints by name, autocast, inference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import RULES, advance, copies, every, every_rule, gradients, probe, same, shapes_for, snapshot, states, stored, weights
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from thalweg.core.contract import RuleLike
from thalweg.core.rule import Needs

EAGER = {"backend": "eager"}


@every_rule
def test_grad_scaler(rule: RuleLike) -> None:
    """A scaled loss, unscaled by the scaler, steps as the loss itself; an overflow skips the step."""
    params, plain = weights(shapes_for(rule)), weights(shapes_for(rule))
    opt, other = rule.optimizer(params, **EAGER), rule.optimizer(plain, **EAGER)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for t in range(3):
        for o, ps in ((opt, params), (other, plain)):
            probe(o, ps, t)
            gradients(ps, t)
        for p in params:
            p.grad = p.grad * 1024.0  # type: ignore[operator]
        scaler.scale(torch.zeros(()))  # a scaler must have been used
        scaler.step(opt)
        scaler.update()
        other.step()
    assert same(params, plain)
    before = snapshot(opt)
    gradients(params, 3)
    params[0].grad.view(-1)[0] = torch.inf  # type: ignore[union-attr]
    scaler.scale(torch.zeros(()))
    scaler.step(opt)
    scaler.update()
    assert same(snapshot(opt), before) and scaler.get_scale() == 512.0


@every_rule
def test_hooks_run_and_may_change_the_gradient(rule: RuleLike) -> None:
    params, plain = weights(shapes_for(rule)), weights(shapes_for(rule))
    opt, other = rule.optimizer(params, **EAGER), rule.optimizer(plain, **EAGER)
    seen: list[str] = []

    def halve(optimizer: Any, args: Any, kwargs: Any) -> None:
        seen.append("before")
        for p in params:
            p.grad = p.grad / 2  # type: ignore[operator]

    opt.register_step_pre_hook(halve)
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    opt.register_state_dict_post_hook(lambda o, s: seen.append("saved"))
    opt.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    for p, q in zip(params, plain, strict=True):
        p.grad, q.grad = torch.ones_like(p), torch.full_like(q, 0.5)
    opt.step()
    other.step()
    assert same(params, plain) and seen == ["before", "after"]
    opt.load_state_dict(opt.state_dict())
    assert seen == ["before", "after", "saved", "loaded"]


@every_rule
def test_zero_grad_and_accumulation(rule: RuleLike) -> None:
    """Two backward passes add up in p.grad, and set_to_none=False leaves zeros, which count as a gradient."""
    p = weights(shapes_for(rule))[:1]
    opt = rule.optimizer(p, **EAGER)
    for _ in range(2):
        (p[0].sum() * 0.5).backward()
    assert p[0].grad is not None and torch.equal(p[0].grad, torch.ones_like(p[0]))
    opt.step()
    opt.zero_grad(set_to_none=False)
    opt.step()
    assert int(opt.state[p[0]]["step"]) == 2
    opt.zero_grad()
    opt.step()
    assert p[0].grad is None and int(opt.state[p[0]]["step"]) == 2


def model(rule: RuleLike) -> nn.Module:
    torch.manual_seed(0)
    bias = rule.kind is not Needs.MATRIX
    return nn.Sequential(nn.Linear(8, 16, bias=bias), nn.Tanh(), nn.Linear(16, 4, bias=bias))


def fit(net: nn.Module, opt: Any, steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        x, y = torch.randn(8, 8, generator=generator), torch.randint(4, (8,), generator=generator)
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()


@every_rule
def test_state_by_name_with_distributed_checkpoint(rule: RuleLike) -> None:
    """get_optimizer_state_dict and set_optimizer_state_dict on one process; names, not positions: the groups are in another order."""
    net, again = model(rule), model(rule)
    opt = rule.optimizer(net.parameters(), **EAGER)
    fit(net, opt, range(3))
    saved = stored(get_optimizer_state_dict(net, opt))  # type: ignore[arg-type]
    assert all(isinstance(name, str) for name in saved["state"])
    again.load_state_dict(net.state_dict())
    other = rule.optimizer(list(again.parameters()), **EAGER)
    set_optimizer_state_dict(again, other, saved)  # type: ignore[arg-type]
    assert same(states(other), states(opt)) and same(list(again.parameters()), list(net.parameters()))
    fit(net, opt, range(3, 5))
    fit(again, other, range(3, 5))
    assert same(list(again.parameters()), list(net.parameters()))


@every_rule
def test_asking_for_state_by_name_before_the_first_step_moves_nothing(rule: RuleLike) -> None:
    net = model(rule)
    before = copies(list(net.parameters()))
    opt = rule.optimizer(net.parameters(), **EAGER)
    saved = get_optimizer_state_dict(net, opt)
    assert same(list(net.parameters()), before)
    assert set(saved["state"]) == {name for name, _ in net.named_parameters()}


@every_rule
def test_inference_mode_and_no_grad_around_the_step(rule: RuleLike) -> None:
    params, plain = weights(shapes_for(rule)), weights(shapes_for(rule))
    opt, other = rule.optimizer(params, **EAGER), rule.optimizer(plain, **EAGER)
    for t in range(2):
        for o, ps in ((opt, params), (other, plain)):
            probe(o, ps, t)
            gradients(ps, t)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            opt.step()
        other.step()
    assert same(params, plain) or "bf16" in str(rule.hyper())
    assert all(p.requires_grad and p.is_leaf for p in params) and all(not s.requires_grad for s in states(opt))


@every({name: RULES[name] for name in ("AdamW", "NovoGrad", "Muon")})
def test_adding_and_tied_parameters(rule: RuleLike) -> None:
    net = model(rule)
    opt = rule.optimizer(net[0].parameters(), **EAGER)
    fit_first = copies(list(net[2].parameters()))
    fit(net, opt, range(1))
    assert same(list(net[2].parameters()), fit_first)
    opt.add_param_group({"params": net[2].parameters(), "lr": 0.5})
    fit(net, opt, range(1, 2))
    assert not same(list(net[2].parameters()), fit_first)
    assert [int(opt.state[p]["step"]) for p in (net[0].weight, net[2].weight)] == [2, 1]  # type: ignore[union-attr]
    tied = nn.Linear(4, 4, bias=False)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        rule.optimizer([tied.weight, tied.weight])


@every_rule
def test_a_step_leaves_the_random_state_alone(rule: RuleLike) -> None:
    params = weights(shapes_for(rule), torch.bfloat16)
    opt = rule.optimizer(params, **EAGER, state_precision="8bit", weight_rounding="stochastic")
    before = torch.get_rng_state()
    advance(opt, params, range(2))
    assert torch.equal(torch.get_rng_state(), before)

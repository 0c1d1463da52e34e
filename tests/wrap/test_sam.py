"""SAM: by hand, exact restoration, and as a torch optimizer among schedulers, scalers and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.optim import SGD, AdamW
from thalweg.wrap import SAM


def task(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A small network and its loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
    x, y = torch.randn(8, 3, dtype=dtype), torch.randn(8, 1, dtype=dtype)
    return model, lambda: (model(x) - y).square().mean()


def closure_of(optimizer: torch.optim.Optimizer, loss_fn: Callable[[], Tensor], seen: list[Any] | None = None) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = loss_fn()
        loss.backward()
        if seen is not None:
            seen.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])
        return loss.detach()

    return closure


def gradients(model: nn.Module, loss_fn: Callable[[], Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss_fn(), list(model.parameters())))


def test_a_step_by_hand() -> None:
    for adaptive in (False, True):
        model, loss_fn = task()
        before = [p.detach().clone() for p in model.parameters()]
        g = gradients(model, loss_fn)
        t = [w.abs() + 0.01 if adaptive else torch.ones_like(w) for w in before]
        norm = torch.cat([(a * b).flatten() for a, b in zip(t, g, strict=True)]).norm()
        climbed = [w + 0.3 * a * a * b / norm for w, a, b in zip(before, t, g, strict=True)]
        sam, seen = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3, adaptive=adaptive), []
        first = loss_fn().item()
        with torch.no_grad():
            assert sam.step(closure_of(sam, loss_fn, seen)).item() == first, "the loss of the unperturbed weights"
        assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(seen[1], climbed, strict=True))
        second, after = [p.grad for p in model.parameters()], [p.detach() for p in model.parameters()]
        expected = [torch.add(w, b, alpha=-0.1) for w, b in zip(before, second, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(after, expected, strict=True)), "the step starts from the exact weights"


def test_radius_zero_is_the_base_optimizer() -> None:
    ends = []
    for wrapped in (True, False):
        model, loss_fn = task()
        base = AdamW(model.parameters(), lr=0.05)
        optimizer = SAM(base, rho=0.0) if wrapped else base
        for _ in range(10):
            optimizer.step(closure_of(optimizer, loss_fn))
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit_when_the_closure_raises(dtype: torch.dtype) -> None:
    model, loss_fn = task(dtype)
    sam, calls = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5), []
    before = [p.detach().clone() for p in model.parameters()]

    def closure() -> Tensor:
        calls.append([p.detach().clone() for p in model.parameters()])
        if len(calls) == 2:
            raise RuntimeError("out of data")
        return closure_of(sam, loss_fn)()

    with pytest.raises(RuntimeError, match="out of data"):
        sam.step(closure)
    assert not torch.equal(calls[1][0], before[0]), "the second run was at perturbed weights"
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_needs_a_closure_and_a_radius() -> None:
    model, _ = task()
    with pytest.raises(ValueError, match=r"SAM\.step needs a closure"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1)).step()
    with pytest.raises(ValueError, match="SAM: rho must be a number >= 0; found -1"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=-1.0)


def test_a_gradient_that_is_not_finite_goes_to_the_base_optimizer_at_once() -> None:
    for policy, moves in (("skip", False), ("propagate", True)):
        model, loss_fn = task()
        sam, seen = SAM(SGD(model.parameters(), lr=0.1, on_nonfinite=policy)), []
        before = [p.detach().clone() for p in model.parameters()]
        sam.step(closure_of(sam, lambda loss_fn=loss_fn: loss_fn() * float("nan"), seen))
        assert len(seen) == 1
        assert all(torch.equal(a, b) != moves for a, b in zip(before, model.parameters(), strict=True))
        assert all(p.isnan().all() for p in model.parameters()) == moves


def test_grad_scaler_unscales_the_step_and_skips_an_overflow() -> None:
    ends = []
    for scaled in (True, False):
        model, loss_fn = task(torch.float32)
        sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for overflow in (False, True, False):
            before = [p.detach().clone() for p in model.parameters()]

            def closure(sam: SAM = sam, loss_fn: Callable[[], Tensor] = loss_fn, scaler: Any = scaler, bad: bool = overflow and scaled) -> Tensor:
                sam.zero_grad()
                loss = loss_fn()
                scaler.scale(loss * (float("inf") if bad else 1.0)).backward()
                return loss.detach()

            if scaled or not overflow:
                sam.step(closure, scaler=scaler)
                scaler.update()
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) == overflow
        assert scaler.get_scale() == (512.0 if scaled else 1.0)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*ends, strict=True))


def test_schedulers_groups_and_checkpoints_are_the_base_optimizers() -> None:
    def run(steps: int, resume: dict[str, Any] | None = None) -> tuple[SAM, nn.Module]:
        model, loss_fn = task()
        sam = SAM(AdamW(list(model.parameters())[:2], lr=0.1), rho=0.1)
        sam.add_param_group({"params": list(model.parameters())[2:], "lr": 0.01})
        schedule = torch.optim.lr_scheduler.StepLR(sam, 2, 0.5)
        if resume is not None:
            model.load_state_dict(resume["model"])
            sam.load_state_dict(resume["sam"])
            schedule.load_state_dict(resume["schedule"])
        for _ in range(steps):
            sam.step(closure_of(sam, loss_fn))
            schedule.step()
        held.update(model=copy.deepcopy(model.state_dict()), sam=copy.deepcopy(sam.state_dict()), schedule=schedule.state_dict())
        return sam, model

    held: dict[str, Any] = {}
    whole = run(6)
    assert [group["lr"] for group in whole[0].base.param_groups] == pytest.approx([0.1 / 8, 0.01 / 8])
    run(3)
    parts = run(3, resume=dict(held))
    assert all(torch.equal(a, b) for a, b in zip(whole[1].parameters(), parts[1].parameters(), strict=True))
    twin = copy.deepcopy(whole[0])
    assert twin.rho == 0.1
    assert twin.param_groups is twin.base.param_groups
    assert twin.param_groups is not whole[0].param_groups

"""Engine: options, state that lives in `optimizer.state`, seeds, and memory."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg.core.chain import chain
from thalweg.core.engine import OPTIONS, Engine


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(opt: Engine, params: list[nn.Parameter], steps: range = range(3)) -> list[Tensor]:
    for t in steps:
        for k, p in enumerate(params):
            p.grad = noise(tuple(p.shape), 100 * k + t).to(p.dtype)
        opt.step()
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("backend", "triton", "backend must be one of auto, compiled, eager; found 'triton'"),
        ("weight_rounding", "up", "weight_rounding must be one of nearest, stochastic, kahan; found 'up'"),
        ("on_nonfinite", True, "on_nonfinite must be one of propagate, raise, skip; found True"),
        ("seed", -1, "seed must be an integer >= 0; found -1"),
        ("seed", 0.5, "seed must be an integer >= 0; found 0.5"),
    ],
)
def test_bad_options(option: str, value: object, message: str) -> None:
    for make in (tw.optim.Lion, chain(tw.optim.Lion()).optimizer):
        with pytest.raises(ValueError, match=message):
            make([nn.Parameter(torch.ones(1))], **{option: value})


def test_bad_state_precision_is_refused_at_once() -> None:
    """Not at the first step: the training loop should not get that far."""
    p = nn.Parameter(torch.ones(64, 64))
    unknown = "unknown states: 'q'; this rule has 'm'"
    for wrong, message in (("16bit", "must be None or one of"), ({"q": "8bit"}, unknown), (8, "state_precision must be None")):
        with pytest.raises((ValueError, TypeError), match=message):
            tw.optim.Lion([p], state_precision=wrong)


def test_a_state_may_belong_to_the_rule_of_one_group() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Embedding(64, 64), nn.Linear(64, 80))
    opt = tw.optim.route(net, {"hidden matrices": tw.optim.Muon(), "rest": tw.optim.AdamW()}, state_precision={"v": "8bit"}, backend="eager")
    rows = {row.name: row.precision for row in opt.describe().rows}
    assert rows["0.weight"] == {"m": "fp32"} and rows["1.weight"] == {"m": "fp32", "v": "8bit"}
    with pytest.raises(ValueError, match="unknown states: 'q'; this rule has 'm', 'v'"):
        tw.optim.route(net, {"hidden matrices": tw.optim.Muon(), "rest": tw.optim.AdamW()}, state_precision={"v": "8bit", "q": "8bit"})


def test_every_option_has_a_default() -> None:
    opt = tw.optim.Lion([nn.Parameter(torch.ones(1))])
    assert opt.options == dict(OPTIONS)
    with pytest.raises(TypeError, match="precision"):
        tw.optim.Lion([nn.Parameter(torch.ones(1))], precision="8bit")


def test_state_is_live() -> None:
    """What is written into `optimizer.state[p]` is what the next step reads, packed or not."""
    for shape in ((4, 3), (300, 300)):
        a, b, other = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(2))
        opt = tw.optim.SGD([a, b, other], lr=1.0, momentum=0.5, backend="eager")
        run(opt, [a, b, other], range(1))
        opt.state[b]["m"].fill_(8.0)
        for p in (a, b):
            p.grad, p.data = torch.zeros(shape), torch.zeros(shape)
        other.grad = None
        opt.step()
        assert torch.equal(b.detach(), torch.full(shape, -4.0)) and not torch.equal(a, b)
        assert opt.state[b]["m"].shape == b.shape and int(opt.state[b]["step"]) == 2 and opt.state[b]["step"].dtype == torch.int64


def test_state_is_made_at_the_first_gradient() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = tw.optim.AdamW([a, b], backend="eager")
    assert len(opt.state) == 0
    a.grad = torch.ones(3)
    opt.step()
    assert set(opt.state) == {a}
    kept = opt.state[a]["m"].clone()
    a.grad, b.grad = None, torch.ones(3)
    opt.step()
    assert set(opt.state) == {a, b} and torch.equal(opt.state[a]["m"], kept), "packed anew, with the state that it had"


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    def weights(seed: int, shapes: tuple[tuple[int, ...], ...] = ((70, 65), (5,), (300, 301))) -> list[Tensor]:
        params = [nn.Parameter(noise(s, 9).bfloat16()) for s in shapes]
        return run(tw.optim.AdamW(params, lr=1e-3, backend="eager", weight_rounding="stochastic", state_precision="8bit", seed=seed), params)

    first = weights(1)
    assert all(map(torch.equal, first, weights(1)))
    assert not any(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))
    assert all(map(torch.equal, first[:2], weights(1, ((70, 65), (5,))))), "noise does not depend on what else is optimized"


def test_parameters_with_equal_gradients_get_different_noise() -> None:
    params = [nn.Parameter(torch.ones(64, 64).bfloat16()) for _ in range(2)]
    opt = tw.optim.SGD(params, lr=1e-3, backend="eager", weight_rounding="stochastic")
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    assert not torch.equal(*params) and {float(x) for p in params for x in p.detach().flatten().unique()} == {1.0, 1 - 2**-8}
    mean = torch.stack(params).detach().float().mean()
    assert abs(float(mean) - 0.999) < 5 * 2**-8 * (0.256 * 0.744 / 8192) ** 0.5, "five standard errors of the mean of unbiased rounding"


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_stochastic_rounding_and_kahan_keep_small_steps_that_nearest_loses(backend: str) -> None:
    ends = {}
    for rounding in ("nearest", "stochastic", "kahan"):
        p = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
        opt = tw.optim.SGD([p], lr=1e-4, backend=backend, weight_rounding=rounding)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            opt.step()
        ends[rounding] = float(p.detach().float().mean())
    assert ends["nearest"] == 1.0
    assert abs(ends["stochastic"] - 0.99) < 1e-3 and abs(ends["kahan"] - 0.99) < 2e-3


def test_kahan_state_is_shown_saved_and_counted() -> None:
    p = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    opt = tw.optim.SGD([p], lr=1e-4, backend="eager", weight_rounding="kahan")
    p.grad = torch.ones_like(p)
    opt.step()
    assert opt.state[p]["compensation"].dtype == torch.bfloat16 and opt.describe().bytes == 2 * 4096
    with pytest.raises(ValueError, match="compensation"):
        tw.optim.SGD([p], lr=1e-4, backend="eager").load_state_dict(opt.state_dict())


def test_an_eager_elementwise_step_takes_no_full_size_temporaries() -> None:
    """Peak memory of torch's allocator during a step on four million weights, against 16 MiB."""
    p = nn.Parameter(torch.zeros(2000, 2000))
    opt = tw.optim.AdamW([p], backend="eager")
    p.grad = torch.ones_like(p)
    opt.step()
    peak = live = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        opt.step()
    for event in sorted((e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert 0 < peak < 2**24
    assert not tracemalloc.is_tracing()


def test_rules_of_groups_and_empty_groups() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = tw.optim.SGD([{"params": [a]}, {"params": [b], "rule": tw.optim.Lion(lr=0.25)}, {"params": []}], lr=0.5, backend="eager")
    assert [g["rule"] for g in opt.param_groups] == ["SGD", "Lion", "SGD"]
    a.grad = b.grad = torch.full((3,), 0.1)
    opt.step()
    assert torch.allclose(a, torch.full((3,), 0.95)) and torch.allclose(b, torch.full((3,), 0.75))


def test_gradients_of_another_dtype() -> None:
    """bf16 gradients of fp32 weights, some of them, packed with others."""
    params = [nn.Parameter(torch.zeros(3)) for _ in range(3)]
    for p, dtype in zip(params, (torch.bfloat16, torch.float32, torch.bfloat16), strict=True):
        p.grad_dtype = None
        p.grad = torch.full((3,), 1 + 2**-10, dtype=torch.float32).to(dtype)
    tw.optim.SGD(params, lr=1.0, backend="eager").step()
    assert [float(p[0].detach()) for p in params] == [-1.0, -(1 + 2**-10), -1.0]


def test_the_shared_learning_rate_default_is_not_a_list_of_groups_alias() -> None:
    """Groups hold values of their own: changing one does not change the other or the defaults."""
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = tw.optim.AdamW([{"params": [a]}, {"params": [b]}], lr=0.5)
    opt.param_groups[0]["lr"] = 0.1
    opt.param_groups[0]["betas"] = (0.5, 0.5)
    assert opt.param_groups[1]["lr"] == 0.5 == opt.defaults["lr"] and opt.param_groups[1]["betas"] == (0.9, 0.999)

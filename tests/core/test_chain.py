"""Chains: what a link sees, what names mean, and what a chain equals."""

import copy
import pickle

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.core.chain import chain
from thalweg.core.form import Layout
from thalweg.optim import SGD, Adam, AdamW, ClipByNorm, ClipByValue, DecoupledDecay, Muon, NormalizedSGD, SophiaH
from thalweg.schedule import WarmupLinear


def weights(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def run(optimizer, params, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


def test_decay_after_adam_is_decoupled_and_before_it_is_not():
    shapes = (3, 4), (5,)
    after = run(chain(Adam(lr=0.1), DecoupledDecay(weight_decay=0.3)).optimizer(p := weights(*shapes)), p)
    decoupled = run(AdamW(p := weights(*shapes), lr=0.1, weight_decay=0.3), p)
    before = run(chain(DecoupledDecay(weight_decay=0.3), Adam(lr=0.1)).optimizer(p := weights(*shapes)), p)
    coupled = run(Adam(p := weights(*shapes), lr=0.1, weight_decay=0.3), p)
    torch.testing.assert_close(after, decoupled, rtol=1e-12, atol=0)
    torch.testing.assert_close(before, coupled, rtol=1e-12, atol=0)
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_clip_then_adam_equals_torch(backend):
    shapes = (30, 40), (50,), (7, 3, 3, 3)
    ours = run(chain(ClipByNorm(max_norm=0.5), AdamW(lr=0.1)).optimizer(p := weights(*shapes), backend=backend), p)
    params = weights(*shapes)
    theirs = torch.optim.AdamW(params, lr=0.1)
    theirs.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_norm_(params, 0.5) and None)
    # torch divides by norm + 1e-6 where the paper divides by the norm: a norm near 40 makes that 3e-8 of the gradient.
    torch.testing.assert_close(ours, run(theirs, params), rtol=1e-6, atol=1e-8)


def test_the_norm_is_taken_over_all_groups():
    one, other = weights((3, 4), (5,))
    optimizer = chain(ClipByNorm(max_norm=1.0), tw.optim.SGD(lr=1.0)).optimizer([{"params": [one]}, {"params": [other], "lr": 2.0}])
    start = [one.detach().clone(), other.detach().clone()]
    one.grad, other.grad = torch.full_like(one, 3.0), torch.full_like(other, 4.0)
    norm = (9 * 12 + 16 * 5) ** 0.5
    optimizer.step()
    torch.testing.assert_close(start[0] - one, torch.full_like(one, 3.0 / norm))
    torch.testing.assert_close(start[1] - other, torch.full_like(other, 2 * 4.0 / norm))


def test_a_later_clip_measures_what_reaches_it():
    (w,) = weights((6,))
    start = w.detach().clone()
    w.grad = torch.tensor([9.0, -9.0, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    chain(ClipByValue(max_value=1.0), ClipByNorm(max_norm=0.75), tw.optim.SGD(lr=1.0)).optimizer([w]).step()
    seen = torch.tensor([1.0, -1.0, 0.5, 0, 0, 0], dtype=torch.float64)  # of norm 1.5
    torch.testing.assert_close(start - w, seen / 2)


def test_an_elementwise_chain_is_one_program():
    params = weights((300, 300))
    optimizer = chain(ClipByValue(max_value=1.0), AdamW(lr=0.1), DecoupledDecay(weight_decay=0.1)).optimizer(params, backend="compiled")
    run(optimizer, params, 2)
    (bucket,) = optimizer.memory.buckets
    assert list(bucket.programs) == ["step"]


def test_names():
    joined = chain(DecoupledDecay(weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.2))
    assert {"lr", "betas", "eps", "decoupleddecay.weight_decay", "adamw.weight_decay"} == set(joined.hyper())
    assert set(joined.init(torch.zeros(2))) == {"adamw.m", "adamw.v"}
    twice = chain(ClipByValue(max_value=1.0), ClipByValue(max_value=2.0), lr=0.1)
    assert twice.hyper() == {"lr": 0.1, "clipbyvalue1.max_value": 1.0, "clipbyvalue2.max_value": 2.0}
    assert twice.with_hyper({"clipbyvalue2.max_value": 3.0}).hyper()["clipbyvalue2.max_value"] == 3.0


def test_a_chain_with_a_matrix_link_sees_matrices():
    joined = chain(Muon(lr=0.1), DecoupledDecay(weight_decay=0.1))
    assert joined.kind is tw.core.rule.Needs.MATRIX
    with pytest.raises(ValueError, match="takes real matrices"):
        joined.optimizer(weights((5,)))


def test_the_learning_rate_belongs_to_one():
    with pytest.raises(ValueError, match="Adam and AdamW both have a learning rate"):
        chain(Adam(lr=0.1), AdamW(lr=0.1))
    with pytest.raises(ValueError, match="no link has a learning rate"):
        chain(ClipByNorm(max_norm=1.0))
    with pytest.raises(ValueError, match="the learning rate is Adam's"):
        chain(Adam(lr=0.1), lr=0.2)
    (w,) = weights((6,))
    start = w.detach().clone()
    w.grad = torch.full_like(w, 0.5)
    chain(ClipByValue(max_value=1.0), lr=0.5).optimizer([w]).step()
    torch.testing.assert_close(start - w, torch.full_like(w, 0.25))


def test_links_of_one_kind_are_numbered():
    rule = chain(ClipByNorm(max_norm=2.0), ClipByNorm(max_norm=1.0), SGD(lr=0.1))
    assert rule.labels == ("clipbynorm1", "clipbynorm2", "sgd")
    assert set(rule.hyper()) == {"clipbynorm1.max_norm", "clipbynorm2.max_norm", "lr", "momentum", "weight_decay", "nesterov"}
    assert rule.phases == (("clipbynorm1.square",), ("clipbynorm2.square",))


def test_states_are_named_by_link():
    p = nn.Parameter(torch.ones(3))
    opt = chain(ClipByNorm(), Adam(lr=0.1)).optimizer([p], backend="eager")
    p.grad = torch.ones(3)
    opt.step()
    assert set(opt.state[p]) == {"step", "adam.m", "adam.v"}
    assert chain(Adam(lr=0.1)).is_nonnegative("adam.v") and not chain(Adam(lr=0.1)).is_nonnegative("adam.m")


def test_the_norm_is_over_all_groups_and_dtypes():
    """Each group clips to its own length, by the norm over all of them."""
    a, b, c = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(70000))
    opt = chain(ClipByNorm(max_norm=1.0), SGD(lr=1.0)).optimizer([{"params": [a]}, {"params": [b, c], "max_norm": 2.0}], backend="eager")
    a.grad, b.grad, c.grad = torch.full((3,), 2.0), torch.full((4,), 3.0, dtype=torch.bfloat16), torch.full((70000,), 0.05)
    norm = (3 * 4 + 4 * 9 + 70000 * 0.0025) ** 0.5
    opt.step()
    assert torch.allclose(a, torch.full((3,), -2.0 / norm)) and torch.allclose(c, torch.full((70000,), -2 * 0.05 / norm))
    assert torch.allclose(b.float(), torch.full((4,), -6.0 / norm), rtol=1e-2)
    a.grad = None
    b.grad, c.grad = torch.zeros_like(b), torch.full((70000,), 1e-5)
    before = c.detach().clone()
    opt.step()
    assert torch.allclose(c, before - 1e-5), "below the length nothing is clipped, and an absent gradient does not count"


def test_normalised_momentum_after_clipping():
    p = nn.Parameter(torch.zeros(4))
    opt = chain(ClipByValue(max_value=1.0), NormalizedSGD(lr=1.0, momentum=0.0)).optimizer([p], backend="eager")
    p.grad = torch.tensor([3.0, -4.0, 0.0, 0.0])
    opt.step()
    assert torch.allclose(p, torch.tensor([-1.0, 1.0, 0.0, 0.0]) / 2**0.5)


def test_scalars_and_schedules_count_each_parameters_steps():
    early, late = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    opt = chain(SGD(lr=1.0), WarmupLinear(total=4)).optimizer([early, late], backend="eager")
    for t in range(4):
        early.grad = torch.ones(3)
        late.grad = torch.ones(3) if t >= 2 else None
        opt.step()
    assert torch.allclose(early, torch.full((3,), -(1 + 0.75 + 0.5 + 0.25))) and torch.allclose(late, torch.full((3,), -(1 + 0.75)))


def test_a_probe_goes_to_the_link_that_asked():
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    opt = chain(ClipByValue(max_value=10.0), SophiaH(lr=0.0, betas=(0.9, 0.5), weight_decay=0.0)).optimizer([p], backend="eager")
    opt.step(lambda: (torch.tensor([3.0, 8.0]) * p * p).sum() / 2)
    assert torch.allclose(opt.state[p]["sophiah.h"], torch.tensor([1.5, 4.0]))


def test_one_layout_whatever_the_numbers():
    """Rules that differ only in numbers share their graph."""
    a, b = chain(ClipByNorm(max_norm=1.0), AdamW(lr=0.1)), chain(ClipByNorm(max_norm=2.0), AdamW(lr=0.0, betas=(0.0, 0.5)))
    assert Layout.of(a) == Layout.of(b) and a.kinds == b.kinds == (ClipByNorm, AdamW)
    assert Layout.of(chain(SGD(lr=0.1, momentum=0.9))) != Layout.of(chain(SGD(lr=0.1, momentum=0.9, nesterov=True)))


def test_copies_and_text():
    rule = chain(ClipByNorm(max_norm=2.0), SGD(lr=0.1))
    assert copy.deepcopy(rule).hyper() == rule.hyper() == pickle.loads(pickle.dumps(rule)).hyper()
    assert repr(rule).startswith("chain(ClipByNorm(max_norm=2.0), SGD(lr=0.1") and repr(chain(ClipByNorm(), lr=0.5)).endswith(", lr=0.5)")



def test_a_rate_of_the_chain_is_a_checked_float():
    assert isinstance(chain(ClipByNorm(), lr=1).hyper()["lr"], float)
    with pytest.raises(ValueError, match=r"chain: lr must be a number >= 0; found -0.5"):
        chain(ClipByNorm(), lr=-0.5)
    with pytest.raises(ValueError, match="chain: lr must be a number >= 0; found -0.1"):
        chain(ClipByNorm(), lr=0.1).with_hyper({"lr": -0.1})
    with pytest.raises(ValueError, match="chain: no link has a learning rate"):
        chain()


def test_two_kinds_of_rule_do_not_share_a_sum():
    one, other = weights((3,), (3,))
    start = one.detach().clone()
    groups = [{"params": [one]}, {"params": [other], "rule": chain(ClipByNorm(max_norm=1.0), tw.optim.SGD(lr=1.0))}]
    one.grad, other.grad = torch.full_like(one, 3.0), torch.full_like(other, 400.0)
    tw.optim.NormalizedSGD(groups, lr=1.0, momentum=0.0).step()
    torch.testing.assert_close(start - one, torch.full_like(one, 3**-0.5))


def test_a_link_may_see_the_gradient_that_entered():
    rule = chain(ClipByValue(max_value=1.0), tw.optim.SGD(lr=1.0, momentum=0.9), tw.optim.Cautious(scale="none"))
    (w,) = weights((4,))
    optimizer = rule.optimizer([w])
    w.grad = torch.tensor([2.0, 2.0, -2.0, -2.0], dtype=torch.float64)
    optimizer.step()
    before = w.detach().clone()
    w.grad = torch.tensor([-0.5, 0.5, 0.5, -0.5], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(before - w, torch.tensor([0.0, 1.4, 0.0, -1.4], dtype=torch.float64))


def test_a_link_may_see_the_loss():
    (w,) = weights((4,))
    before = w.detach().clone()
    optimizer = chain(ClipByValue(max_value=1e9), tw.optim.ImplicitFTRL(lr=1e3)).optimizer([w])

    def closure():
        optimizer.zero_grad()
        loss = (w - 3.0).abs().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    torch.testing.assert_close(w - before, loss.detach() / 4 * torch.ones_like(before))

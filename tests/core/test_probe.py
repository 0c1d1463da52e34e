"""Curvature probes against the exact diagonal, and how an optimizer runs them."""

import pytest
import torch
from torch import nn

from thalweg.core.probe import gauss_newton_bartlett, hutchinson
from thalweg.optim import AdamW, SophiaG, SophiaH


def problem():
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    b = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (6,), generator=generator)
    return [w, b], x, y, lambda: x @ w.T + b


def exact_hessian(loss, params):
    grads = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True)])
    rows = [torch.cat([h.flatten() for h in torch.autograd.grad(g, params, retain_graph=True)]) for g in grads]
    return torch.stack(rows).diagonal()


def assert_unbiased(draw, exact, draws):
    """The mean of the draws lies within 4.5 standard errors of the truth, and those errors are small enough to notice a bias of 10 %."""
    samples = torch.stack([torch.cat([h.flatten() for h in draw()]) for _ in range(draws)])
    error = samples.std(0) / draws**0.5
    assert ((samples.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()
    assert (4.5 * error).mean() < 0.1 * exact.abs().mean()


def test_hutchinson_is_unbiased_for_the_hessian():
    params, _, y, logits = problem()

    def loss():
        return nn.functional.cross_entropy(logits().tanh() * 2, y)

    exact = exact_hessian(loss(), params)
    generator = torch.Generator().manual_seed(1)
    assert_unbiased(lambda: hutchinson(loss(), params, generator), exact, 10_000)


def test_gauss_newton_bartlett_is_unbiased_for_the_gauss_newton_diagonal():
    params, x, y, logits = problem()
    # Cross-entropy over linear logits: the Gauss-Newton matrix is the Hessian, whatever the labels.
    exact = exact_hessian(nn.functional.cross_entropy(logits(), y), params)
    generator = torch.Generator().manual_seed(1)
    assert_unbiased(lambda: gauss_newton_bartlett(logits(), params, generator), exact, 8000)


def test_parameters_outside_the_graph_get_no_estimate_and_linear_ones_get_zero():
    a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
    loss = (a**2).sum() + b.sum()
    estimates = hutchinson(loss, [a, b, c], torch.Generator())
    torch.testing.assert_close(estimates[0], torch.full((2,), 2.0))
    torch.testing.assert_close(estimates[1], torch.zeros(2))
    assert estimates[2] is None


def make(rule, **keywords):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
    return model, rule(model.parameters(), lr=0.01, every=3, backend="eager", **keywords)


def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(8, 3, generator=generator), torch.randint(0, 4, (8,), generator=generator)


@pytest.mark.parametrize("rule", [SophiaH, SophiaG])
def test_a_closure_and_explicit_probes_take_the_same_steps(rule):
    x, y = batch()
    (one, first), (two, second) = make(rule), make(rule)

    def closure():
        logits = one(x)
        loss = nn.functional.cross_entropy(logits, y)
        return (loss, logits) if rule is SophiaG else loss

    due = []
    for _ in range(5):
        first.step(closure)
        due.append(second.probe_due)
        if second.probe_due:
            second.probe(lambda: two(x) if rule is SophiaG else nn.functional.cross_entropy(two(x), y))
        second.zero_grad()
        nn.functional.cross_entropy(two(x), y).backward()
        second.step()
    assert due == [True, False, False, True, False]
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q) and first.state[p]["h"].abs().sum() > 0


def test_runs_repeat_and_seeds_differ():
    x, y = batch()

    def curvature(seed):
        model, optimizer = make(SophiaH, seed=seed)
        optimizer.probe(lambda: nn.functional.cross_entropy(model(x), y))
        return torch.cat([optimizer.state[p]["h"].flatten() for p in model.parameters()])

    assert torch.equal(curvature(0), curvature(0)) and not torch.equal(curvature(0), curvature(1))


def test_misuse_says_what_to_return():
    x, y = batch()
    model, optimizer = make(SophiaH)

    def backward_too_early():
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="return the loss without calling backward"):
        optimizer.step(backward_too_early)
    model, optimizer = make(SophiaG)
    with pytest.raises(RuntimeError, match=r"returns the pair \(loss, logits\)"):
        optimizer.step(lambda: nn.functional.cross_entropy(model(x), y))
    with pytest.raises(RuntimeError, match="needs logits"):
        optimizer.probe(lambda: nn.functional.cross_entropy(model(x), y))
    with pytest.raises(RuntimeError, match="found none"):
        AdamW(model.parameters()).probe(lambda: None)

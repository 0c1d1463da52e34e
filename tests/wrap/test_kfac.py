"""KFAC: exact where its factors are, its averages and clip by hand, and as a torch optimizer."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.curvature.kronecker_inverse import damped_inverse, roots
from thalweg.optim import AdamW
from thalweg.wrap import KFAC


def closure_of(optimizer: torch.optim.Optimizer, loss_fn: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn()
        loss.backward()
        return loss.detach()

    return closure


def flat(layer: nn.Module) -> Tensor:
    """vec(W b), rows first."""
    w, *b = [p.detach() for p in layer.parameters()]
    return torch.cat([w.flatten(1), *[x.unsqueeze(1) for x in b]], 1).flatten()


def row(layer: nn.Module, loss: Tensor) -> Tensor:
    w, *b = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    return torch.cat([w.flatten(1), *[x.unsqueeze(1) for x in b]], 1).flatten()


def test_a_linear_layer_with_one_sample_takes_the_step_of_the_dense_inverse() -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        layer, x, y = nn.Linear(3, 2, bias=bias).double(), torch.randn(1, 3).double(), torch.randn(1, 2).double()
        g, before = row(layer, (layer(x) - y).square().sum()), flat(layer)
        inverse = torch.linalg.inv(torch.outer(g, g) + 0.1 * torch.eye(len(g), dtype=torch.float64))
        opt = KFAC(torch.optim.SGD(layer.parameters(), lr=1.0), layer, damping=0.1, kl_clip=None, inverse="eigen")
        with torch.no_grad():
            opt.step(closure_of(opt, lambda layer=layer, x=x, y=y: (layer(x) - y).square().sum()))
        torch.testing.assert_close(flat(layer), before - inverse @ g, rtol=1e-10, atol=1e-12)


def test_independent_inputs_and_residuals_are_exact_too() -> None:
    torch.manual_seed(1)
    layer, a, r = nn.Linear(2, 2).double(), torch.randn(3, 2).double(), torch.randn(4, 2).double()
    x = a.repeat_interleave(4, 0)
    y = layer(x).detach() - r.repeat(3, 1)
    losses = (layer(x) - y).square().sum(1) / 2
    rows = torch.stack([row(layer, loss) for loss in losses])
    fisher, g, before = rows.T @ rows / len(rows), rows.mean(0), flat(layer)
    opt = KFAC(torch.optim.SGD(layer.parameters(), lr=1.0), layer, damping=1e-2, kl_clip=None, inverse="eigen")
    opt.step(closure_of(opt, lambda: ((layer(x) - y).square().sum(1) / 2).mean()))
    expected = before - torch.linalg.solve(fisher + 1e-2 * torch.eye(6, dtype=torch.float64), g)
    torch.testing.assert_close(flat(layer), expected, rtol=1e-10, atol=1e-12)


def network(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(6, 1, 3, 3, dtype=dtype), torch.randint(0, 3, (6,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def test_averages_decompositions_and_clip_by_hand() -> None:
    """Two steps; the second updates the factors and keeps the old decompositions."""
    model, loss_fn = network()
    opt = KFAC(torch.optim.SGD(model.parameters(), lr=0.5), model, damping=0.1, decay=0.3, kl_clip=1e-3, inverse_every=2, inverse="eigen")
    assert set(opt.layers) == {"0", "4"}
    for t in range(2):
        grads = torch.autograd.grad(loss_fn(), list(model.parameters()))
        before = [p.detach().clone() for p in model.parameters()]
        opt.step(closure_of(opt, loss_fn))
        if t == 0:
            roots = {name: opt.memory["factors"][name][:2] for name in opt.layers}
        size, expected = 0.0, {}
        for name, (i, j) in {"0": (0, 1), "4": (4, 5)}.items():
            m = torch.cat((grads[i].flatten(1), grads[j].unsqueeze(1)), 1)
            a, g = roots[name]
            d = torch.linalg.solve(torch.kron(g, a) + 0.1 * torch.eye(m.numel(), dtype=torch.float64), m.flatten()).view_as(m)
            size += 0.25 * float((d * m).sum())
            expected[i], expected[j] = d[:, :-1].reshape(grads[i].shape), d[:, -1]
        nu = min(1.0, math.sqrt(1e-3 / size))
        assert nu < 1
        for i, (p, w, g) in enumerate(zip(model.parameters(), before, grads, strict=True)):
            torch.testing.assert_close(p.detach(), w - 0.5 * (nu * expected[i] if i in expected else g), rtol=1e-9, atol=1e-12)
    assert opt.memory["factors"]["4"][2] == 2


def test_the_papers_damping_of_each_factor_by_hand() -> None:
    model, loss_fn = network()
    opt = KFAC(torch.optim.SGD(model.parameters(), lr=0.5), model, damping=0.04, kl_clip=None)
    grads = torch.autograd.grad(loss_fn(), list(model.parameters()))
    before = model[4].weight.detach().clone()
    opt.step(closure_of(opt, loss_fn))
    a, g, _ = opt.memory["factors"]["4"]
    pi = math.sqrt(float(a.trace()) / 9 / (float(g.trace()) / 3))
    m = torch.cat((grads[4], grads[5].unsqueeze(1)), 1)
    d = torch.linalg.inv(g + 0.2 / pi * torch.eye(3).double()) @ m @ torch.linalg.inv(a + 0.2 * pi * torch.eye(9).double())
    torch.testing.assert_close(model[4].weight.detach(), before - 0.5 * d[:, :-1], rtol=1e-9, atol=1e-12)


def test_damping_of_each_factor_is_damping_of_the_product_and_two_cross_terms() -> None:
    """Where both factors are multiples of the identity: (x + sqrt(l))(y + sqrt(l)) with x y = a g."""
    a, g, m = 4 * torch.eye(3).double(), 9 * torch.eye(2).double(), torch.ones(2, 3).double()
    torch.testing.assert_close(damped_inverse(roots(a, g, 0.25, "eigen"), m, 0.25), m / (36 + 0.25))
    torch.testing.assert_close(damped_inverse(roots(a, g, 0.25, "cholesky"), m, 0.25), m / (6 + 0.5) ** 2)


def test_cholesky_tells_of_factors_that_are_no_covariances_and_takes_zeros() -> None:
    a = torch.diag(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"not positive definite in torch\.float32; take a smaller lr if the loss has grown"):
        roots(a, torch.eye(2), 1e-3, "cholesky")
    zero = torch.zeros(2, 2)
    torch.testing.assert_close(damped_inverse(roots(zero, zero, 0.01, "cholesky"), torch.ones(2, 2), 0.01), torch.full((2, 2), 100.0))


def test_the_factors_are_averaged_with_the_papers_weights() -> None:
    torch.manual_seed(3)
    layer, batches = nn.Linear(2, 1, bias=False).double(), torch.randn(4, 5, 2).double()
    opt, average = KFAC(torch.optim.SGD(layer.parameters(), lr=0.0), layer, decay=0.6), torch.zeros(2, 2).double()
    for k, x in enumerate(batches, start=1):
        opt.step(closure_of(opt, lambda x=x: layer(x).square().mean()))
        e = min(1 - 1 / k, 0.6)
        average = e * average + (1 - e) * x.T @ x / 5
    torch.testing.assert_close(opt.memory["factors"][""][0], average)


@pytest.mark.parametrize(("inverse", "damping"), [("eigen", 1e9), ("cholesky", 1e18)])
def test_a_large_damping_is_the_base_optimizer(inverse: str, damping: float) -> None:
    ends = []
    for wrapped in (True, False):
        model, loss_fn = network()
        del model[2]  # its parameters keep their gradients, which are not divided by the damping
        lr = 0.1 * damping if wrapped else 0.1
        base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        opt = KFAC(base, model, damping=damping, kl_clip=None, inverse=inverse) if wrapped else base
        for _ in range(5):
            opt.step(closure_of(opt, loss_fn))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-8)


def run(steps: int, resume: dict[str, Any] | None = None, inverse: str = "eigen") -> tuple[KFAC, nn.Module]:
    model, loss_fn = network()
    opt = KFAC(AdamW(model.parameters(), lr=0.01), model, factor_every=2, inverse_every=3, inverse=inverse)
    if resume is not None:
        model.load_state_dict(resume["model"])
        opt.load_state_dict(resume["opt"])
    for _ in range(steps):
        opt.step(closure_of(opt, loss_fn))
    return opt, model


@pytest.mark.parametrize("inverse", ["eigen", "cholesky"])
def test_it_resumes_exactly_and_refuses_a_state_without_factors(inverse: str) -> None:
    whole = run(6, inverse=inverse)[1]
    opt, model = run(4, inverse=inverse)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    resumed, parts = run(2, torch.load(file, weights_only=True), inverse)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert resumed.memory["steps"] == 6
    with pytest.raises(ValueError, match="holds no wrapper\'s values; KFAC resumes from"):
        opt.load_state_dict(opt.base.state_dict())
    other = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="The file remembers a layer '0', which is not watched here"):
        KFAC(AdamW(list(model.parameters()), lr=0.01), other).load_state_dict(opt.state_dict())
    twin, held = copy.deepcopy((opt, model))
    assert twin.layers["0"] is held[0]


def test_one_overflow_does_not_stay_low_precision_works_and_misuse_is_told() -> None:
    model, loss_fn = network(torch.bfloat16)
    opt = KFAC(torch.optim.SGD(model.parameters(), lr=0.01), model)
    opt.step(closure_of(opt, loss_fn))
    known = opt.memory["factors"]["4"][0].clone()
    before = [p.detach().clone() for p in model.parameters()]
    opt.step(closure_of(opt, lambda: loss_fn() * math.inf))
    assert torch.equal(opt.memory["factors"]["4"][0], known) and known.dtype == torch.float32
    with torch.no_grad():
        for p, w in zip(model.parameters(), before, strict=True):
            p.copy_(w)
    opt.step(closure_of(opt, loss_fn))
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match=r"KFAC\.step needs a closure"):
        opt.step()
    with pytest.raises(ValueError, match="KFAC: damping must be a number > 0; found 0"):
        KFAC(torch.optim.SGD(model.parameters(), lr=0.01), model, damping=0.0)

"""INGD: a step by hand, its way to KFAC's direction, and bfloat16."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from thalweg.curvature.kronecker import observe
from thalweg.wrap import INGD, KFAC


def closure_of(optimizer: torch.optim.Optimizer, loss_fn: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn()
        loss.backward()
        return loss.detach()

    return closure


def network(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    x, y = torch.randn(40, 3, dtype=dtype), torch.randn(40, 2, dtype=dtype)
    return model, lambda: (model(x) - y).square().sum(1).mean()


@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_a_step_by_hand(structure: str) -> None:
    model, loss_fn = network()
    layer, before = model[0], model[0].weight.detach().clone()
    opt = INGD(torch.optim.SGD(model.parameters(), lr=0.1), model, factor_lr=0.05, damping=0.2, structure=structure)
    with observe({"0": layer}) as seen:
        model.zero_grad()
        loss_fn().backward()
    a, g = seen["0"].A, seen["0"].G
    if structure == "diagonal":
        a, g = torch.diag(a.diagonal()), torch.diag(g.diagonal())
    m = torch.cat((layer.weight.grad, layer.bias.grad.unsqueeze(1)), 1)
    with torch.no_grad():
        opt.step(closure_of(opt, loss_fn))
    k = torch.eye(4).double() - 0.05 * (g.trace() / 4 * a + 0.2 * torch.eye(4).double() - torch.eye(4).double()) / 2
    c = torch.eye(4).double() - 0.05 * (a.trace() / 4 * g + 0.2 * torch.eye(4).double() - torch.eye(4).double()) / 2
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * (c @ c.T @ m @ k @ k.T)[:, :-1], rtol=1e-10, atol=1e-12)


def test_without_factor_lr_it_is_the_base_optimizer() -> None:
    ends = []
    for wrapped in (True, False):
        model, loss_fn = network()
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        opt = INGD(base, model, factor_lr=0.0, every=1) if wrapped else base
        for _ in range(5):
            opt.step(closure_of(opt, loss_fn))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


def test_on_one_batch_its_direction_becomes_kfacs() -> None:
    """Weights that do not move: the factors are constant, and K K^T (x) C C^T ends at KFAC's inverse."""
    model, loss_fn = network()
    inverse_free = INGD(torch.optim.SGD(model.parameters(), lr=0.0), model, factor_lr=0.1, damping=0.0, every=1)
    for _ in range(500):
        inverse_free.step(closure_of(inverse_free, loss_fn))
    mine = torch.cat([p.grad.flatten() for p in model.parameters()])
    kfac = KFAC(torch.optim.SGD(model.parameters(), lr=0.0), model, damping=1e-12, kl_clip=None, inverse="eigen")
    kfac.step(closure_of(kfac, loss_fn))
    theirs = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_what_is_kept_between_updates_of_the_factors_belongs_to_them() -> None:
    """A run that loads another's file in the middle of a period goes on as that one does."""
    runs = []
    for _ in range(2):
        model, loss_fn = network()
        runs.append((model, loss_fn, INGD(torch.optim.SGD(model.parameters(), lr=0.05), model, factor_lr=0.1, every=4)))
    (model, loss_fn, opt), (other, other_loss, again) = runs
    for _ in range(6):
        opt.step(closure_of(opt, loss_fn))
    again.step(closure_of(again, other_loss))
    other.load_state_dict(model.state_dict())
    again.load_state_dict(opt.state_dict())
    for _ in range(4):
        opt.step(closure_of(opt, loss_fn))
        again.step(closure_of(again, other_loss))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_bfloat16_stays_finite_with_a_singular_factor_that_cannot_be_inverted_there() -> None:
    """Digits have pixels that are always zero, so the factor of the inputs is singular; torch has no bfloat16 inverse or eigh for KFAC."""
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels[:256] / 16).bfloat16(), torch.tensor(labels[:256])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).bfloat16()
    opt = INGD(torch.optim.SGD(model.parameters(), lr=0.02), model, every=1)

    def loss_fn() -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    first = float(opt.step(closure_of(opt, loss_fn)))
    for _ in range(150):
        last = float(opt.step(closure_of(opt, loss_fn)))
    assert all(bool(p.isfinite().all()) for p in model.parameters()) and last < first / 2
    for k, c, _, _ in opt.memory["factors"].values():
        assert k.dtype == c.dtype == torch.bfloat16 and bool(k.isfinite().all()) and bool(c.isfinite().all())
    with observe(opt.layers, narrow=True) as seen:
        loss_fn().backward()
    assert float(torch.linalg.eigvalsh(seen["0"].A.double())[0]) < 1e-6
    for decomposition in (torch.linalg.eigh, torch.linalg.inv):
        with pytest.raises(RuntimeError):
            decomposition(seen["0"].A)


def test_it_resumes_exactly() -> None:
    ends = []
    for split in (False, True):
        model, loss_fn = network()
        opt = INGD(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), model, every=2, exponential="exact")
        for t in range(6):
            if split and t == 3:
                file = io.BytesIO()
                torch.save(opt.state_dict(), file)
                file.seek(0)
                opt = INGD(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), model, every=2, exponential="exact")
                opt.load_state_dict(torch.load(file, weights_only=True))
            opt.step(closure_of(opt, loss_fn))
        ends.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_misuse_is_told() -> None:
    model, _ = network()
    opt = INGD(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with pytest.raises(ValueError, match=r"INGD\.step needs a closure"):
        opt.step()
    with pytest.raises(ValueError, match="holds no wrapper\'s values; INGD resumes from"):
        opt.load_state_dict(opt.base.state_dict())
    with pytest.raises(ValueError, match="INGD: structure must be one of dense, diagonal; found 'triangular'"):
        INGD(torch.optim.SGD(model.parameters(), lr=0.1), model, structure="triangular")

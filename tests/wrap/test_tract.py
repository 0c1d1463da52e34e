"""TrAct: the least-squares problem that it solves, for each kind of layer, its limits, and what stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from thalweg.wrap.tract import TrAct, plain

CONV = {
    "patches": {"kernel_size": 4, "stride": 4},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": (3, 2), "dilation": 2},
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least_squares(rows: Tensor, errors: Tensor, lam: float) -> Tensor:
    """The minimiser over dW [out, n] of (1 / b) sum ||dW x + b e||^2 + lam ||dW||^2, by one stacked system."""
    b, n = rows.shape
    left = torch.cat([rows / b**0.5, lam**0.5 * torch.eye(n, dtype=rows.dtype)])
    right = torch.cat([-(b**0.5) * errors, torch.zeros(n, errors.shape[1], dtype=rows.dtype)])
    return torch.linalg.lstsq(left, right).solution.mT


@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_solves_the_least_squares_problem(rows: int, bias: bool) -> None:
    layer, twin = nn.Linear(6, 4, bias=bias).double(), nn.Linear(6, 4, bias=bias).double()
    twin.load_state_dict(layer.state_dict())
    x, y, seen = randn(rows, 2, 6).requires_grad_(), randn(rows, 2, 4, seed=1), TrAct(layer, lam=0.1)(randn(rows, 2, 6))
    z = layer(x)
    assert torch.equal(z, seen)
    (z - y).square().mean().backward()
    errors = (2 * (z - y) / y.numel()).detach()
    expected = -least_squares(x.detach().reshape(-1, 6), errors.reshape(-1, 4), 0.1)
    assert torch.allclose(layer.weight.grad, expected, rtol=1e-9)
    (inputs,) = torch.autograd.grad((twin(x) - y).square().mean(), x, retain_graph=True)
    assert torch.allclose(x.grad, inputs), "the inputs' gradient stays"
    if bias:
        assert torch.allclose(layer.bias.grad, errors.sum((0, 1))), "and the bias's"


@pytest.mark.parametrize("options", CONV.values(), ids=CONV)
def test_a_convolution_does_so_for_its_patches(options: dict) -> None:
    layer = nn.Conv2d(2, 3, **options).double()
    x = randn(5, 2, 8, 8)
    z = TrAct(layer, lam=0.2)(x)
    errors = randn(*z.shape, seed=1)
    z.backward(errors)
    patches = torch.nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT.flatten(0, 1)
    expected = -least_squares(patches, errors.flatten(2).mT.flatten(0, 1), 0.2)
    assert torch.allclose(layer.weight.grad, expected.view_as(layer.weight), rtol=1e-8)


def test_a_large_lambda_is_the_ordinary_gradient() -> None:
    layer, x = nn.Linear(6, 4).double(), randn(9, 6)
    layer(x).square().sum().backward()
    ordinary = layer.weight.grad.clone()
    layer.zero_grad()
    TrAct(layer, lam=1e9)(x).square().sum().backward()
    assert torch.allclose(1e9 * layer.weight.grad, ordinary, rtol=1e-6)


def test_inputs_that_are_not_finite_stay_visible() -> None:
    layer = TrAct(nn.Linear(6, 4))
    x = torch.ones(3, 6)
    x[1, 2] = torch.inf
    layer(x).nan_to_num().sum().backward()
    assert bool(layer.weight.grad.isnan().any())


def test_the_change_of_the_activations_does_not_depend_on_contrast() -> None:
    """Inputs ten times darker, weights ten times larger: the same activations, and with TrAct the same change of them."""
    changes = []
    for contrast in (1.0, 0.1):
        layer, x = nn.Linear(4, 3, bias=False).double(), contrast * randn(10, 4)
        with torch.no_grad():
            layer.weight.copy_(randn(3, 4, seed=1) / contrast)
        TrAct(layer, lam=1e-12)
        z = layer(x)
        z.square().sum().backward()
        changes.append(layer.weight.grad @ x.T)
    assert torch.allclose(*changes, rtol=1e-6)


def test_checkpoints_copies_penalties_and_removal() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1)).double()
    keys, weight = list(model.state_dict()), model[0].weight
    assert TrAct(model[0]) is model[0]
    assert list(model.state_dict()) == keys
    assert model[0].weight is weight
    assert isinstance(model[0], nn.Conv2d)
    twin, x = copy.deepcopy(model), randn(4, 1, 4, 4)
    for net in (model, twin):
        net(x).sum().backward()
    assert torch.equal(model[0].weight.grad, twin[0].weight.grad)
    model.zero_grad()
    model[0].weight.square().sum().backward()
    assert torch.equal(model[0].weight.grad, 2 * model[0].weight), "a penalty keeps its gradient"
    model.zero_grad()
    plain(model[0])
    model(x).sum().backward()
    assert type(model[0]) is nn.Conv2d
    assert not torch.allclose(model[0].weight.grad, twin[0].weight.grad)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3, padding="same"), nn.Conv1d(1, 1, 3), nn.Bilinear(1, 1, 1)])
def test_refuses_other_layers(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"TrAct needs an nn\.Linear, or an nn\.Conv2d"):
        TrAct(layer)

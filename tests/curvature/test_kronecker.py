"""Kronecker factors against per-sample gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from thalweg.curvature.kronecker import observe
from thalweg.curvature.layer_matrix import gradient_matrix, layers_of


def fisher(layer: nn.Module, loss_of_sample: list[Tensor]) -> Tensor:
    """The empirical Fisher matrix of vec(W b), rows first, from one gradient for each sample."""
    total = 0.0
    for loss in loss_of_sample:
        grads = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
        row = torch.cat([grads[0].flatten(1), *[g.unsqueeze(1) for g in grads[1:]]], 1).flatten()
        total = total + torch.outer(row, row) / len(loss_of_sample)
    return total  # type: ignore[return-value]


def test_a_single_sample_is_exact() -> None:
    torch.manual_seed(0)
    for layer, x in ((nn.Linear(3, 2), torch.randn(1, 3)), (nn.Conv2d(2, 3, 2, bias=False), torch.randn(1, 2, 2, 2))):
        layer, x = layer.double(), x.double()
        with observe({"layer": layer}) as seen:
            out = layer(x)
            out.square().sum().backward(retain_graph=True)
        expected = fisher(layer, [out.square().sum()])
        torch.testing.assert_close(torch.kron(seen["layer"].G, seen["layer"].A), expected)


def test_independent_inputs_and_slopes_are_exact_and_the_loss_is_a_mean() -> None:
    """All pairs of two inputs and three residuals: their moments factor."""
    torch.manual_seed(1)
    layer = nn.Linear(2, 2).double()
    a, r = torch.randn(2, 2).double(), torch.randn(3, 2).double()
    x = a.repeat_interleave(3, 0)
    y = layer(x).detach() - r.repeat(2, 1)
    with observe({"layer": layer}) as seen:
        losses = (layer(x) - y).square().sum(1) / 2
        losses.mean().backward(retain_graph=True)
    torch.testing.assert_close(torch.kron(seen["layer"].G, seen["layer"].A), fisher(layer, list(losses)))
    with observe({"layer": layer}, diagonal=True) as narrow:
        ((layer(x) - y).square().sum(1) / 2).mean().backward()
    torch.testing.assert_close(narrow["layer"].A, seen["layer"].A.diagonal())
    torch.testing.assert_close(narrow["layer"].G, seen["layer"].G.diagonal())


def test_a_convolution_is_a_linear_layer_of_its_patches() -> None:
    torch.manual_seed(2)
    conv = nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)).double()
    x = torch.randn(4, 2, 5, 7).double()
    patches = torch.nn.functional.unfold(x, (2, 3), (1, 2), (1, 0), (2, 1)).mT  # [4, places, 12]
    linear = nn.Linear(12, 3).double()
    linear.load_state_dict({"weight": conv.weight.detach().flatten(1), "bias": conv.bias.detach()})
    torch.testing.assert_close(linear(patches).mT, conv(x).flatten(2))
    with observe({"conv": conv, "linear": linear}) as seen:
        (conv(x).tanh().sum((1, 2, 3)).mean() + linear(patches).tanh().sum((1, 2)).mean()).backward()
    torch.testing.assert_close(seen["conv"].A, seen["linear"].A)
    torch.testing.assert_close(seen["conv"].G, seen["linear"].G)
    places = patches.shape[1]
    rows = torch.cat((patches.reshape(-1, 12), torch.ones(4 * places, 1).double()), 1)
    torch.testing.assert_close(seen["conv"].A, rows.T @ rows / 4)  # (2): a sum over places, a mean over samples
    slopes = torch.autograd.grad(conv(x).tanh().sum((1, 2, 3)).mean(), conv.weight)  # the gradients of both are one matrix
    torch.testing.assert_close(gradient_matrix(conv)[:, :-1], slopes[0].flatten(1))  # type: ignore[index]


def test_micro_batches_add_to_one_batch_and_hooks_are_gone_after_the_block() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3).double()
    layers = layers_of(model, list(model.parameters()))
    with observe(layers) as whole:
        model(x).square().mean().backward()
    with observe(layers) as parts:
        for half in x.split(3):
            (model(half).square().mean() / 2).backward()
        with torch.no_grad():
            model(x)
    for name in ("0", "2"):
        torch.testing.assert_close(whole[name].A, parts[name].A)
        torch.testing.assert_close(whole[name].G, parts[name].G)
        assert not layers[name]._forward_hooks
    with observe(layers) as late:
        loss = model(x).square().mean()
    loss.backward()
    assert late == {}, "a backward pass after the block is not seen"
    try:
        with observe(layers):
            raise RuntimeError("out of data")
    except RuntimeError:
        assert not layers["0"]._forward_hooks


def test_narrow_factors_have_the_dtype_of_the_weights() -> None:
    layer = nn.Linear(3, 2).bfloat16()
    for narrow, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with observe({"layer": layer}, narrow=narrow) as seen:
            layer(torch.ones(2, 3, dtype=torch.bfloat16)).sum().backward()
        assert seen["layer"].A.dtype == seen["layer"].G.dtype == dtype


@pytest.mark.parametrize("samples", [2, 40])
@pytest.mark.parametrize("diagonal", [False, True])
def test_factors_in_coordinates_come_from_few_samples_and_from_many(samples: int, diagonal: bool) -> None:
    torch.manual_seed(3)
    layer, x = nn.Linear(5, 3).double(), torch.randn(samples, 5).double()
    k, c = (torch.rand(6).double(), torch.rand(3).double()) if diagonal else (torch.randn(6, 6).double(), torch.randn(3, 3).double())
    with observe({"layer": layer}, diagonal=diagonal) as plain:
        layer(x).tanh().sum(1).mean().backward()
    with observe({"layer": layer}, diagonal=diagonal, through={"layer": (k, c)}) as seen:
        layer(x).tanh().sum(1).mean().backward()
        layer(x).tanh().sum(1).mean().backward()  # a second part of the batch
    a, g = plain["layer"].A, plain["layer"].G
    torch.testing.assert_close(seen["layer"].A, k * a * k if diagonal else k.T @ a @ k)
    torch.testing.assert_close(seen["layer"].G, (c * g * c if diagonal else c.T @ g @ c) * 4)  # twice the sum, (2 N)^2 / (2 N)

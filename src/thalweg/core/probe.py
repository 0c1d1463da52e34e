"""Estimates of the diagonal of the curvature, one for each parameter. Unbiased; one extra backward (or two) each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.core.random import rademacher


def hutchinson(loss: Tensor, params: Sequence[Tensor], generator: torch.Generator) -> list[Tensor | None]:
    """u * (H u) with random signs u: its mean is the diagonal of the Hessian H of the loss.

    Args:
        loss: a scalar with its graph.
        params: what to differentiate by.
        generator: of the signs.

    Returns:
        For each parameter an estimate of its shape; None where the loss does not depend on it.

    Raises:
        RuntimeError: if the graph of the loss is gone.
    """
    if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad):
        raise RuntimeError("A Hutchinson probe needs the loss itself, a scalar with its graph; return it without calling backward().")
    try:
        grads = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise RuntimeError("A Hutchinson probe needs the graph of the loss; return the loss without calling backward().") from error
    live = [(i, g) for i, g in enumerate(grads) if g is not None and g.requires_grad]
    signs = [rademacher(g, generator) for _, g in live]
    products = torch.autograd.grad([g for _, g in live], params, grad_outputs=signs, allow_unused=True) if live else [None] * len(params)
    by_param: dict[int, Tensor] = {i: u for (i, _), u in zip(live, signs, strict=True)}
    return [
        None if grads[i] is None else torch.zeros_like(p) if products[i] is None or i not in by_param else by_param[i] * products[i]
        for i, p in enumerate(params)
    ]


def gauss_newton_bartlett(logits: Tensor, params: Sequence[Tensor], generator: torch.Generator) -> list[Tensor | None]:
    """n g * g with g the gradient of the mean cross-entropy on labels drawn from the model: its mean is the Gauss-Newton diagonal.

    Args:
        logits: [..., classes] with its graph; n is the product of the leading dimensions.
        params: what to differentiate by.
        generator: of the labels.

    Returns:
        For each parameter an estimate of its shape; None where the logits do not depend on it.

    Raises:
        RuntimeError: if the logits have no graph or no class dimension.
    """
    if not (isinstance(logits, Tensor) and logits.dim() >= 2 and logits.requires_grad):
        raise RuntimeError("A Gauss-Newton-Bartlett probe needs logits [..., classes] with their graph; return them from the probe's function.")
    rows = logits.reshape(-1, logits.shape[-1])
    probabilities = rows.detach().float().softmax(-1)
    labels = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
    loss = torch.nn.functional.cross_entropy(rows, labels)
    grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    return [None if g is None else rows.shape[0] * g * g for g in grads]


PROBES: Mapping[str, Callable[[Any, Sequence[Tensor], torch.Generator], list[Tensor | None]]] = {"hutchinson": hutchinson, "gnb": gauss_newton_bartlett}

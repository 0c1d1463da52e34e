"""Steps from products with the curvature, around SGD on digits."""

from __future__ import annotations

import importlib
from typing import Any

import torch.nn.functional as F

from beside.case import Case, Goal, Make
from thalweg.wrap import MFAC, GradientRegularisedNewton, SaddleFreeNewton, SymmetricPolynomial, ThermodynamicNGD
from wrapped.flatness import with_backward
from wrapped.training import Task, digits, figures, sgd, way

PRODUCTS = 10
"""Of conjugate gradients, in ours and the peer's."""


def net() -> Task:
    return digits(128, 128)


def base(task: Task) -> Any:
    return sgd(task, lr=0.1, momentum=0.0)


def newton(task: Task) -> Any:
    """Conjugate gradients stop after as many products in both: no tolerance ends them before."""
    return GradientRegularisedNewton(base(task), gamma=1e-2, adaptive=False, tolerance=1e-12, solver_steps=PRODUCTS)


def newton_of_torchzero(task: Task) -> Any:
    tz, modules = importlib.import_module("torchzero"), importlib.import_module("torchzero.modules")
    return tz.Optimizer(task.params, modules.NewtonCG(maxiter=PRODUCTS, tol=0.0, reg=1e-2), modules.LR(0.1))


def loss(optimizer: Any, task: Task) -> None:
    optimizer.step(task.loss)


def outputs(optimizer: Any, task: Task) -> None:
    optimizer.step(task.both)


def samples(optimizer: Any, task: Task) -> None:
    """The closure returns the loss and those of the samples."""

    def closure() -> Any:
        losses = F.cross_entropy(task.outputs(), task.y, reduction="none")
        return losses.mean(), losses

    optimizer.step(closure)


WAYS: dict[str, Make] = {
    "SGD": way(net, base),
    "MFAC, window 64": way(net, lambda task: MFAC(sgd(task, lr=1e-3, momentum=0.0), window=64), before=64),
    "MFAC, window 512": way(net, lambda task: MFAC(sgd(task, lr=1e-3, momentum=0.0), window=512), before=512),
    "GradientRegularisedNewton, 10 products": way(net, newton, call=loss),
    "NewtonCG, 10 products, torchzero": way(net, newton_of_torchzero, call=with_backward),
    "SaddleFreeNewton, 32 products": way(net, lambda task: SaddleFreeNewton(base(task)), call=loss),
    "SymmetricPolynomial, degree 2": way(net, lambda task: SymmetricPolynomial(base(task)), call=outputs),
    "ThermodynamicNGD, outputs": way(net, lambda task: ThermodynamicNGD(base(task)), call=outputs),
    "ThermodynamicNGD, samples": way(net, lambda task: ThermodynamicNGD(base(task), curvature="fisher"), call=samples),
}
CASES = (
    Case(
        name="curvature",
        setting="Linear layers 64-128-128-10, 26 k weights, 256 digits, one step of SGD.",
        ways=WAYS,
        memory=True,
        figures=figures(WAYS),
        goals=(
            Goal(
                text="Newton by conjugate gradients: at most the peer's time", way="GradientRegularisedNewton, 10 products",
                over="NewtonCG, 10 products, torchzero", limit=1.0,
            ),
        ),
    ),
)

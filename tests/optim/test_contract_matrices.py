"""Contract: rules of layers and matrices see the matrices they should: fused, stacked, flattened, batched, each as if it stood alone."""

from __future__ import annotations

import pytest
import torch
from contract import LR, PRECISE, RULES, WHOLE, copies, every, same
from torch import Tensor, nn

import thalweg as tw
from thalweg.core.contract import RuleLike
from thalweg.core.rule import Needs
from thalweg.core.stack import matrix_shape

LAYERED = {name: rule for name, rule in PRECISE.items() if rule.kind is not Needs.ELEMENTWISE and not rule.draws}


def moved(rule: RuleLike, params: list[nn.Parameter], steps: int = 3, **group: object) -> list[Tensor]:
    """The parameters after steps with a gradient that is a function of the logical position alone."""
    opt = rule.optimizer([{"params": params, **group}], backend="eager", state_precision="fp32")
    for t in range(steps):
        for k, p in enumerate(params):
            p.grad = noise(tuple(p.shape), 50 * k + t)
        opt.step()
    return [p.detach() for p in params]


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """In float64: inverse roots of matrices without full rank make much of rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(rule: RuleLike, matrices: Tensor, gradients: list[Tensor]) -> Tensor:
    """Each matrix [rows, cols] of a stack stepped by a rule's pure body, with no engine."""
    out = []
    for i, start in enumerate(matrices):
        w = start[None]
        state = rule.init(w)
        for t, g in enumerate(gradients, 1):
            d, new = rule.step(g[i][None], w, state, {"t": float(t), "rare": rule.rare_at(t), **rule.scalars(t)})
            w, state = rule.apply(w, d), {**state, **new}
        out.append(w[0])
    return torch.stack(out)


CASES = {
    "matrix": ((12, 8), {}, (1, 12, 8)),
    "fused query, key and value": ((24, 8), {"split": 3}, (3, 8, 8)),
    "experts": ((4, 6, 5), {}, (4, 6, 5)),
    "stack of stacks": ((2, 3, 6, 5), {"layout": "stack"}, (6, 6, 5)),
    "convolution": ((8, 3, 2, 2), {}, (1, 8, 12)),
    "convolution in one dimension": ((8, 3, 5), {"layout": "flatten"}, (1, 8, 15)),
    "grouped convolution": ((8, 2, 3, 3), {"layout": "flatten", "split": 4}, (4, 2, 18)),
    "experts with fused halves": ((4, 6, 5), {"split": 2}, (8, 3, 5)),
}


@pytest.mark.parametrize("case", CASES)
@every(LAYERED)
def test_each_matrix_moves_as_it_would_alone(rule: RuleLike, case: str) -> None:
    shape, group, stacked = CASES[case]
    assert matrix_shape(shape, str(group.get("layout", "auto")), int(group.get("split", 1))) == stacked  # type: ignore[call-overload]
    start = noise(shape, 99)
    found = moved(rule, [nn.Parameter(start.clone())], **group)[0]
    expected = by_hand(rule, start.view(stacked), [noise(shape, t).view(stacked) for t in range(3)]).view(shape)
    assert torch.allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert not torch.allclose(found, start, rtol=2e-5, atol=2e-6)


@every({name: rule for name, rule in LAYERED.items() if name in ("Muon", "NonEuclideanTrustRegion", "NovoGrad", "trust region l2")})
def test_splitting_and_stacking_matter(rule: RuleLike) -> None:
    """So the test above can fail: the same weight taken as one matrix moves differently."""
    start = noise((24, 8), 99)
    split, whole = (moved(rule, [nn.Parameter(start.clone())], **group)[0] for group in ({"split": 3}, {}))
    assert not torch.allclose(split, whole, rtol=1e-3)
    start = noise((4, 6, 5), 99)
    stack, flat = (moved(rule, [nn.Parameter(start.clone())], layout=layout)[0] for layout in ("stack", "flatten"))
    assert not torch.allclose(stack, flat, rtol=1e-3)


@every(LAYERED)
def test_equal_shapes_are_batched_without_a_trace(rule: RuleLike) -> None:
    """Nine matrices of one shape, among others: one bucket, and each as if it stood alone."""
    shapes = [(12, 8)] * 5 + [(8, 12)] + [(12, 8)] * 4
    together = moved(rule, [nn.Parameter(noise(s, 200 + k)) for k, s in enumerate(shapes)])
    for k, shape in enumerate(shapes):
        alone = by_hand(rule, noise(shape, 200 + k)[None], [noise(shape, 50 * k + t)[None] for t in range(3)])[0]
        assert torch.allclose(together[k], alone, rtol=2e-5, atol=2e-6)


@every(LAYERED)
def test_large_matrices_step_in_place(rule: RuleLike) -> None:
    big = nn.Parameter(noise((300, 400), 7))
    address = big.data_ptr()
    found = moved(rule, [big], steps=2)[0]
    expected = by_hand(rule, noise((300, 400), 7)[None], [noise((300, 400), t)[None] for t in range(2)])[0]
    assert big.data_ptr() == address
    assert torch.allclose(found, expected, rtol=2e-5, atol=1e-5)


@every(WHOLE)
def test_a_split_that_does_not_fit_is_refused(rule: RuleLike) -> None:
    p = nn.Parameter(noise((10, 4), 1))
    opt = rule.optimizer([{"params": [p], "split": 3}], backend="eager")
    p.grad = torch.ones_like(p)
    before = copies([p])
    with pytest.raises(ValueError, match=r"split=3: the 10 rows of a parameter of shape \(10, 4\) cannot be cut into equal parts"):
        opt.step()
    assert same([p], before) and not opt.state


def test_muon_in_bfloat16_without_nesterov_keeps_its_momentum() -> None:
    """torch.optim.Muon normalises the momentum buffer itself there."""
    p = nn.Parameter(noise((16, 12), 1).bfloat16())
    opt = tw.optim.Muon([p], lr=LR, nesterov=False, backend="eager")
    g = 7 * noise((16, 12), 2).bfloat16()
    for _ in range(2):
        p.grad = g.clone()
        opt.step()
    assert torch.allclose(opt.state[p]["m"], (1 - 0.95**2) * g.float(), rtol=1e-4, atol=1e-6)


def test_the_suite_has_rules_of_both_kinds() -> None:
    assert {rule.kind.value for rule in WHOLE.values()} == {"layer", "matrix"} and len(WHOLE) >= 6 and len(RULES) > len(WHOLE)

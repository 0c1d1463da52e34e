"""Kernels: the vector of numbers, and what a body writes back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from thalweg.core import kernel
from thalweg.core.chain import chain
from thalweg.core.codecs import BF16, FULL, EightBit
from thalweg.core.form import Form, Layout, Stores
from thalweg.core.kernel import Body
from thalweg.core.random import LANES, mix_int, words
from thalweg.optim import SGD, AdamW, ClipByNorm, Muon


def form(rule: object, **changes: object) -> Form:
    layout = Layout.of(rule)  # type: ignore[arg-type]
    states = tuple((name, FULL) for name in rule.init(torch.zeros(2)))  # type: ignore[attr-defined]
    plain = Form(layout, states, rule.kinds, torch.float32, torch.device("cpu"), "nearest", False, False)  # type: ignore[attr-defined]
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_numbers_go_through_the_vector_unchanged() -> None:
    rule = chain(ClipByNorm(max_norm=2.0), AdamW(lr=0.1, betas=(0.8, 0.9), eps=1e-8))
    layout = Layout.of(rule)
    numbers = layout.write(rule, 3, -77)
    values, c = layout.read([*numbers, 6.25])
    assert values == rule.hyper() and values["betas"] == (0.8, 0.9)
    assert c == {"t": 3.0, "noise": -77.0, **rule.scalars(3), "clipbynorm.square": 6.25}
    unknown = layout.read(numbers)[1]
    assert "clipbynorm.square" not in unknown and unknown["t"] == 3.0, "a sum that is not known yet is left out"


def test_what_is_not_a_number_is_part_of_the_graph() -> None:
    a, b = (Layout.of(Muon(scale=scale)) for scale in ("original", "none"))
    assert a != b and ("ns_steps", 5) in a.static and ("lr", 0) in a.dynamic
    assert Layout.of(Muon(lr=0.0)) == Layout.of(Muon(lr=1.0, momentum=0.0))
    assert ("momentum", None) in Layout.of(SGD(lr=0.1)).static and ("momentum", 0) in Layout.of(SGD(lr=0.1, momentum=0.5)).dynamic
    assert Layout.of(AdamW(lr=torch.tensor(0.1))) == Layout.of(AdamW(lr=0.1))


def stores(codec: object, n: int) -> Stores:
    held = codec.allocate(n, torch.device("cpu"))  # type: ignore[attr-defined]
    return [tuple(s.view(-1, LANES) if s.dim() == 1 else s for s in held)]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
@pytest.mark.parametrize("codec", [FULL, BF16, EightBit(True)], ids=lambda c: c.name)
def test_a_step_in_pieces_is_the_step_at_once(codec: object, rounding: str) -> None:
    """Noise belongs to an element's row and not to the call."""
    rule = SGD(lr=0.1, momentum=0.9)
    f = form(rule, states=(("m", codec),), dtype=torch.bfloat16, rounding=rounding)
    step, numbers, n = Body(rule, f).step(), f.layout.write(rule, 1, 12345), 4 * LANES
    generator = torch.Generator().manual_seed(0)
    w, g = torch.randn(4, LANES, generator=generator).bfloat16(), torch.randn(4, LANES, generator=generator)
    index = torch.tensor([900], dtype=torch.int32)

    def run(cuts: list[int]) -> tuple[Tensor, list[Tensor]]:
        out, held = w.clone(), stores(codec, n) + ([(torch.zeros_like(w),)] if rounding == "kahan" else [])
        for a, b in zip(cuts, cuts[1:], strict=False):
            step(g[a:b], out[a:b], [tuple(s[a:b] for s in one) for one in held], numbers, index + a, [])
        return out, [s for one in held for s in one]

    whole, pieces = run([0, 4]), run([0, 1, 3, 4])
    assert torch.equal(whole[0], pieces[0]) and all(map(torch.equal, whole[1], pieces[1]))
    assert not torch.equal(whole[0], w)
    other = f.layout.write(rule, 1, 54321)
    again, held = w.clone(), stores(codec, n) + ([(torch.zeros_like(w),)] if rounding == "kahan" else [])
    step(g, again, held, other, index, [])
    noisy = rounding == "stochastic" or codec.stochastic  # type: ignore[attr-defined]
    assert f.noisy == noisy
    same = torch.equal(again, whole[0]) and all(torch.equal(a, b) for a, b in zip([s for one in held for s in one], whole[1], strict=True))
    assert same != noisy, "another seed gives other bits exactly where something is rounded at random"


def test_compute_is_wider_than_storage() -> None:
    """bf16 weights step in fp32: with a small enough step nothing would change in bf16, with Kahan summation it does."""
    rule = SGD(lr=1e-4)
    f = form(rule, dtype=torch.bfloat16, rounding="kahan")
    step = Body(rule, f).step()
    w, rest = torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)
    for t in range(1, 101):
        step(torch.ones(2, dtype=torch.bfloat16), w, [(rest,)], f.layout.write(rule, t, 0), None, [])
    assert torch.allclose(w.float() + rest.float(), torch.full((2,), 0.99), atol=1e-4)
    assert float(torch.ones(2, dtype=torch.bfloat16)[0] - 1e-4) == 1.0, "so that plain bf16 would stand still"


def test_a_measurement_is_a_vector_and_writes_nothing() -> None:
    rule = chain(ClipByNorm(), SGD(lr=0.1))
    f = form(rule)
    g, w = torch.tensor([3.0, 4.0]), torch.zeros(2)
    total = Body(rule, f).measure(0)(g, w, [], f.layout.write(rule, 1, 0), None, [])
    assert total.tolist() == [25.0] and w.tolist() == [0.0, 0.0] and g.tolist() == [3.0, 4.0]


def test_float64_weights_compute_in_float64() -> None:
    rule = SGD(lr=1e-10)
    f = form(rule, dtype=torch.float64)
    w = torch.ones(2, dtype=torch.float64)
    Body(rule, f).step()(torch.ones(2, dtype=torch.float64), w, [], f.layout.write(rule, 1, 0), None, [])
    assert torch.equal(w, torch.full((2,), 1 - 1e-10, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3, 20, 30), (2, 16, 16), (1, 5, 7)])
def test_a_stack_has_the_noise_of_its_elements_however_it_is_worked_out(shape: tuple[int, ...]) -> None:
    """Eagerly a row of 256 shares its keys; compiled, each element has its own: the words are the same."""
    held, keys = form(Muon(), many=True), torch.arange(shape[0], dtype=torch.int32) * 1000 + 17
    numbers = {"noise": -77.0}
    eager = kernel._drawer(held, numbers, keys)(3, torch.empty(shape))
    element = torch.arange(shape[1] * shape[2], dtype=torch.int32)
    one_by_one = words(keys.unsqueeze(1) + (element >> 8), element & (LANES - 1), -77 ^ mix_int(3)).view(shape)
    assert torch.equal(eager, one_by_one)

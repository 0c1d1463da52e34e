"""Backends: when a rule is compiled, what happens when it cannot be, and that programs are shared."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from thalweg.core import backends, execution, stack
from thalweg.core.backends import BLOCK, Program, program
from thalweg.core.buckets import Plan
from thalweg.core.chain import chain
from thalweg.core.checks import hyper
from thalweg.core.codecs import EightBit
from thalweg.core.packing import buckets_for
from thalweg.core.rule import Needs, Rule, Scalars, State
from thalweg.optim import LAMB, SGD, AdamW, ClipByNorm, Lion, Muon

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")


def fresh() -> type[Rule]:
    """A rule that no other test has compiled."""

    @dataclass(frozen=True, kw_only=True)
    class Fresh(Rule):
        """Momentum."""

        lr: float = hyper(0.1, ">= 0", "learning rate")

        def init(self, w: Tensor) -> State:
            return {"m": torch.zeros_like(w)}

        def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
            m = 0.9 * s["m"] + g
            return m, {"m": m}

    return Fresh


def run(rule: Rule, steps: int, backend: str, shape: tuple[int, ...] = (40, 50)) -> Tensor:
    p = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    opt = rule.optimizer([p], backend=backend)
    for t in range(steps):
        p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(t))
        opt.step()
    return p.detach()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no such compiler: c++\n\nand a long explanation")

    monkeypatch.setattr(torch, "compile", fail)


@pytest.mark.usefixtures("broken")
def test_a_failing_compiler_is_reported_once_and_the_rule_runs_eagerly() -> None:
    rule = fresh()()
    message = r"thalweg: Fresh \(step\) could not be compiled and runs eagerly: OSError: no such compiler: c\+\+"
    with pytest.warns(RuntimeWarning, match=message) as seen:
        found = run(rule, 3, "compiled")
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run(rule.with_hyper({"lr": 0.1}), 3, "compiled")
    assert torch.equal(found, again) and torch.equal(found, run(rule, 3, "eager"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`auto` compiles any model after two steps; the list fills with the sizes of compiled calls."""
    monkeypatch.setattr(execution, "WORTH_COMPILING", 1)
    monkeypatch.setattr(execution, "EAGER_STEPS", 2)
    calls: list[int] = []
    original = Program.compiled

    def compiled(self: Program, *args: Any) -> Any:
        calls.append(args[1].numel())
        return original(self, *args)

    monkeypatch.setattr(Program, "compiled", compiled)
    return calls


def test_auto_switches_at_the_stated_step_whatever_the_compiler_takes(small: list[int]) -> None:
    rule, counts, ends = fresh()(), [], []
    for _ in range(2):  # the second time the program is there from the start
        for steps in (2, 3, 5):
            small.clear()
            ends.append(run(rule, steps, "auto"))
            counts.append(len(small))
    assert counts == [0, 1, 3, 0, 1, 3]
    assert torch.equal(ends[2], ends[5]) and torch.equal(ends[0], run(rule, 2, "eager"))
    assert torch.allclose(ends[2], run(rule, 5, "eager"), rtol=1e-5, atol=1e-6)


def test_auto_counts_each_parameters_own_steps(small: list[int]) -> None:
    early, late = nn.Parameter(torch.ones(30, 30)), nn.Parameter(torch.ones(30, 40))
    opt = fresh()().optimizer([early, late], backend="auto")
    seen = []
    for t in range(6):
        early.grad, late.grad = torch.ones(30, 30), torch.ones(30, 40) if t >= 3 else None
        small.clear()
        opt.step()
        seen.append(sum(small))
    assert seen == [0, 0, 900, 900, 900, 2100]


@pytest.mark.usefixtures("broken", "small")
def test_auto_reports_a_failing_compiler_too() -> None:
    rule = fresh()()
    with pytest.warns(RuntimeWarning, match="no such compiler") as seen:
        found = run(rule, 6, "auto")
    assert len(seen) == 1 and torch.equal(found, run(rule, 6, "eager"))


def test_auto_leaves_small_models_and_matrices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("compiled a model that does not repay it")

    monkeypatch.setattr(Program, "prepare", fail)
    run(fresh()(), 25, "auto")
    assert AdamW([nn.Parameter(torch.zeros(999, 1000))]).describe().rows[0].backend == "eager"
    assert AdamW([nn.Parameter(torch.zeros(1000, 1000))]).describe().rows[0].backend == "eager, compiled after step 20"
    assert Muon([nn.Parameter(torch.zeros(1000, 1000))]).describe().rows[0].backend == "eager"


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
@pytest.mark.parametrize("codecs", [{}, {"m": EightBit(True), "v": EightBit(False)}], ids=["fp32", "8bit"])
def test_eager_pieces_are_the_whole(codecs: dict[str, Any], rounding: str) -> None:
    n = 2 * BLOCK + 5 * 256
    ends = []
    for pieces in (True, False):
        p = nn.Parameter(torch.randn(n, generator=torch.Generator().manual_seed(0)).bfloat16())
        (bucket,) = buckets_for([p], [0], Plan(AdamW(lr=0.1), codecs, rounding), 0)
        runner = program(bucket.plan.rule, bucket.kernel, "step")
        g = torch.randn(n, generator=torch.Generator().manual_seed(1)).bfloat16()
        (piece,) = bucket.pieces(range(1), [g], execution.Scratch())
        numbers = bucket.kernel.layout.write(bucket.plan.rule, 1, 99)
        with torch.no_grad():
            (runner.eager if pieces else runner.body)(piece.g, piece.w, piece.stores, numbers, piece.index, piece.shapes)
        ends.append([p.detach(), *(s for held in bucket.stores for s in held)])
    assert all(map(torch.equal, *ends)) and not torch.equal(ends[0][0], torch.randn(n, generator=torch.Generator().manual_seed(0)).bfloat16())


def test_a_measurement_in_pieces_adds_up() -> None:
    n = 2 * BLOCK + 7
    rule = chain(ClipByNorm(max_norm=1.0), SGD(lr=0.1))
    (bucket,) = buckets_for([nn.Parameter(torch.zeros(n))], [0], Plan(rule, {}), 0)
    numbers = bucket.kernel.layout.write(rule, 1, 0)
    total = program(rule, bucket.kernel, "measure0").eager(torch.full((n,), 2.0), torch.zeros(n), [], numbers, None, [])
    assert total.tolist() == [4.0 * n]


def test_programs_are_shared_where_the_graph_is_the_same() -> None:
    def of(rule: Any, shape: tuple[int, ...] = (300, 300), dtype: torch.dtype = torch.float32, part: str = "step", device: str = "cpu") -> Program:
        (bucket,) = buckets_for([nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))], [0], Plan(rule, {}), 0)
        return program(rule, bucket.kernel, part)

    first = of(AdamW(lr=0.1))
    assert of(AdamW(lr=0.0, betas=(0.0, 0.5), weight_decay=0.3)) is first is of(AdamW(), (7,)) is of(AdamW(lr=torch.tensor(0.1)))
    others = (of(Lion()), of(AdamW(), dtype=torch.float64), of(AdamW(), part="absorb"), of(SGD(momentum=0.9)), of(SGD()))
    assert len({id(p) for p in (first, *others)}) == 6
    assert of(Muon(), device="meta") is not of(Muon()), "a graph that is found by shape is of one device"
    assert of(SGD(momentum=0.9)) is not of(SGD(momentum=0.9, nesterov=True))


def test_threads_that_share_a_program_find_their_own_graphs() -> None:
    """Tall, wide and long matrices, each in a thread of its own, all at once: later steps find the graph that ran for their shape."""
    rule, shapes = fresh_matrix_rule(), ((40, 50), (50, 40), (30, 90), (90, 30))
    expected = [run(rule, 6, "eager", shape) for shape in shapes]
    with ThreadPoolExecutor(len(shapes)) as pool:
        found = list(pool.map(lambda shape: run(rule, 6, "compiled", shape), shapes))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def fresh_matrix_rule() -> Rule:
    """A rule of matrices whose graph depends on which side is longer; no other test has compiled it."""

    @dataclass(frozen=True, kw_only=True)
    class Sided(Rule):
        """The gradient with its longer side centred."""

        needs = Needs.MATRIX
        lr: float = hyper(0.1, ">= 0", "learning rate")

        def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
            side = -2 if g.shape[-2] > g.shape[-1] else -1
            return g - g.mean(side, keepdim=True), {}

    return Sided()  # type: ignore[no-any-return]


def test_an_elementwise_chain_is_one_graph() -> None:
    before = counters["stats"]["unique_graphs"]
    rule = chain(fresh()(lr=0.1), ClipByNorm(max_norm=1e9))
    run(rule, 2, "compiled")  # type: ignore[arg-type]
    assert counters["stats"]["unique_graphs"] - before == 2, "one for the norm, one for all links together"
    assert backends.EAGER_STEPS == 20 and backends.WORTH_COMPILING == 1_000_000


def test_a_long_vector_has_a_graph_of_its_own_and_shorter_ones_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[str, set[int]] = {"compiled": set(), "eager": set()}
    for way, sizes in ways.items():
        whole = getattr(Program, way)
        monkeypatch.setattr(Program, way, lambda self, g, w, *rest, whole=whole, sizes=sizes: sizes.add(w.numel()) or whole(self, g, w, *rest))
    monkeypatch.setattr(stack, "LONG", 5000)
    shapes = [(5003,), (4999,), (71, 80)]
    ends = []
    for backend in ("compiled", "eager"):
        params = [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0))) for shape in shapes]
        opt = LAMB(params, lr=0.1, backend=backend)
        for t in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            opt.step()
        ends.append([p.detach() for p in params])
        if backend == "compiled":
            assert ways == {"compiled": {5003, 71 * 80}, "eager": {4999}}
    for mine, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)

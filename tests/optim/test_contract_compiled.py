"""Contract: compiled, a rule is one graph for each dtype, whatever the shapes and the numbers, and steps as it does eagerly.

A program is shared by all optimizers of a process, so the tests of a rule stand side by side and compile it once.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import LARGE, LR, RULES, SHAPES, advance, copies, every, gap, gradients, same, shapes_for, snapshot, states, stored, trained, weights
from torch import nn
from torch._dynamo.utils import counters

import thalweg as tw
from thalweg.core import backends
from thalweg.core.chain import Chain, chain
from thalweg.core.contract import RuleLike
from thalweg.core.rule import Needs, Rule

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's own, when it is first imported
COMPILED = {name: rule for name, rule in RULES.items() if rule.compilable and name not in ("SGD Nesterov", "trust region l2")}
OTHER_SHAPES = ((65, 67), (33, 31), (33, 31), (33, 31), (2, 40, 30), (4, 3, 3, 3), (31, 33), (50, 90), (500,), (5,), ())


def graphs() -> int:
    """How many graphs the compiler has made so far."""
    return int(counters["stats"]["unique_graphs"])


def parts(rule: RuleLike) -> int:
    """The programs of a rule: its step, a pass for each kind of sums, the intake of a probe."""
    return 1 + len(rule.phases) + (rule.probe_kind is not None)


def other_values(rule: RuleLike) -> list[tuple[str, Any]]:
    """Every number of a rule that is not part of the graph, at the ends of its range and between."""
    fields: dict[str, str] = {}
    for link in rule.links if isinstance(rule, Chain) else (rule,):
        assert isinstance(link, Rule)
        fields |= {f.name: f.metadata["range"] for f in dataclasses.fields(link)}
    out = []
    for key, value in rule.hyper().items():
        if key in rule.exponents:
            continue  # each value has a graph of its own
        text = fields[key.rpartition(".")[2]]
        ends = {">= 0": (0.0, 1.0, 2.0), "> 0": (1.0, 1e-3), "[0, 1)": (0.0, 0.5), "[0, 1) or None": (0.0, 0.5), "real": (-1.0, -0.5)}.get(text, ())
        if isinstance(value, tuple):
            out += [(key, (end,) * len(value)) for end in ends]
        elif isinstance(value, float):
            out += [(key, end) for end in ends]
    return out


@every(COMPILED)
def test_one_graph_whatever_the_shapes_and_numbers(rule: RuleLike, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are counted as they are traced, and run without being lowered, which would take minutes for all rules."""
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lambda graph, inputs, **options: graph.forward)
    assert later_graphs(rule) == 0


@pytest.mark.parametrize("name", ["AdamW", "Adafactor", "Muon", "GaLore"])
def test_lowering_asks_for_no_further_graph(name: str, own_cache: None) -> None:
    assert later_graphs(RULES[name]) == 0


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The compiler's cache, empty: a graph that other code has left there brings the sizes with it that were asked for then."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def later_graphs(rule: RuleLike) -> int:
    """How many graphs training with many shapes and numbers makes after its first three steps, which make as few as they may."""
    backends._program.cache_clear()
    before = graphs()
    params = weights(shapes_for(rule, (*SHAPES, LARGE, (40, 30), (40, 30))))
    opt = rule.optimizer(params, backend="compiled")
    advance(opt, params, range(3))
    made = graphs() - before
    if rule.kind is Needs.ELEMENTWISE:
        assert made == parts(rule) * (2 if rule.draws else 1), "noise is numbered otherwise in packed parameters"
    else:
        most = 8 if "ns_steps" in rule.hyper() else 4
        assert parts(rule) <= made <= most * parts(rule), "one matrix or a stack, tall or wide, and for Newton-Schulz long or not"
    for key, value in [*other_values(rule), ("lr", torch.tensor(0.1)), ("lr", 0.01)]:
        opt.param_groups[0][key] = value
        advance(opt, params, range(3, 4))
    file = opt.state_dict()
    for held in file["state"].values():
        held["step"] = torch.tensor(10**6)
    opt.load_state_dict(file)
    advance(opt, params, range(4, 5), absent=[0])
    others = weights(shapes_for(rule, OTHER_SHAPES))
    again = rule.optimizer([{"params": others[:2], "lr": 0.3}, {"params": others[2:]}], backend="compiled", seed=7)
    advance(again, others, range(3), absent=[3])
    advance(again, others, range(3, 5))
    backends._program.cache_clear()
    return graphs() - before - made


@every(COMPILED)
def test_compiled_equals_eager(rule: RuleLike) -> None:
    shapes = shapes_for(rule, (*SHAPES, LARGE, (40, 30), (40, 30)))
    start = [p.detach() for p in weights(shapes)]
    compiled, eager = (trained(rule, shapes, steps=4, backend=backend) for backend in ("compiled", "eager"))
    assert gap(compiled, eager, start) < (0.05 if "bf16" in str(rule.hyper()) else 1e-3)
    assert all(not torch.equal(a, s) for a, s in zip(compiled, start, strict=True))


@every(COMPILED)
def test_compiled_resume_repeats_the_run(rule: RuleLike) -> None:
    shapes = shapes_for(rule, (*SHAPES, (260, 300)))
    params = weights(shapes)
    opt = rule.optimizer(params, backend="compiled")
    advance(opt, params, range(2), absent=[1])
    advance(opt, params, range(2, 4))
    again = copies(params)
    other = rule.optimizer(again, backend="compiled")
    other.load_state_dict(stored(opt.state_dict()))
    advance(opt, params, range(4, 6))
    advance(other, again, range(4, 6))
    assert same(params, again) and same(states(opt), states(other))


@every(COMPILED)
def test_compiled_keeps_what_is_not_finite_visible(rule: RuleLike) -> None:
    for bad in (torch.nan, torch.inf):
        if bad == torch.inf and "ClipByValue" in rule.name:
            continue  # documented to become max_value
        params = weights([(64, 64)])
        opt = rule.optimizer(params, backend="compiled")
        advance(opt, params, range(1))
        gradients(params, 1)
        params[0].grad[2, 3] = bad  # type: ignore[index]
        opt.step()
        gradients(params, 2)
        opt.step()
        visible = [params[0][2, 3].detach()] if bad != bad else [params[0], *(s for s in states(opt) if s.is_floating_point())]
        assert not all(bool(x.isfinite().all()) for x in visible)


NARROW = [
    ("AdamW", "8bit", torch.bfloat16, "stochastic"),
    ("Muon", "8bit", torch.float32, "nearest"),
    ("NovoGrad", "4bit", torch.bfloat16, "kahan"),
    ("clip, AdamW", "bf16", torch.bfloat16, "stochastic"),
]


@pytest.mark.parametrize(("name", "precision", "dtype", "rounding"), NARROW, ids=lambda x: str(x).removeprefix("torch."))
def test_compiled_with_narrow_storage(name: str, precision: str, dtype: torch.dtype, rounding: str, own_cache: None) -> None:
    """One graph, resumed bit for bit, and as far from exact training as the eager run is."""
    rule = RULES[name]
    options: dict[str, Any] = {"state_precision": precision, "weight_rounding": rounding, "seed": 11}
    shapes = [(70, 65), (130, 61), *([(300, 260)] if precision == "8bit" else [])]
    params = weights(shapes, dtype)
    opt = rule.optimizer(params, backend="compiled", **options)
    before = graphs()
    advance(opt, params, range(2))
    made = graphs()
    assert made - before <= 2 * parts(rule), "packed and unpacked weights may have a graph each"
    again = copies(params)
    other = rule.optimizer(again, backend="compiled", **options)
    other.load_state_dict(stored(opt.state_dict()))
    advance(opt, params, range(2, 5))
    advance(other, again, range(2, 5))
    assert same(params, again) and same(states(opt), states(other)) and graphs() == made
    exact = trained(rule, shapes, steps=5)
    eager = trained(rule, shapes, steps=5, dtype=dtype, **options)
    for p, q, x in zip(params, eager, exact, strict=True):
        ours, theirs = ((y.detach().float() - x).square().mean().sqrt() for y in (p, q))
        assert ours <= 1.2 * theirs + 1e-4


@pytest.mark.parametrize(("name", "exponent", "other"), [("AdaHessian", "power", 0.3), ("clip, FAdam", "p", 0.8)])
def test_an_exponent_is_part_of_the_graph(name: str, exponent: str, other: float) -> None:
    """Another value compiles once more, and steps as the eager rule with that value does; in a chain too."""
    rule = RULES.get(name) or chain(tw.optim.ClipByNorm(max_norm=1.0), tw.optim.FAdam(lr=LR))
    assert rule.exponents == (exponent,)
    shapes = [(64, 64), (70, 65)]
    runs = {backend: weights(shapes) for backend in ("compiled", "eager")}
    for backend, params in runs.items():
        opt = rule.optimizer(params, backend=backend)
        advance(opt, params, range(2))
        before = graphs()
        opt.param_groups[0][exponent] = other
        advance(opt, params, range(2, 5))
        assert (graphs() > before) == (backend == "compiled")
        before = graphs()
        opt.param_groups[0]["lr"] = 0.02
        advance(opt, params, range(5, 6))
        assert graphs() == before
    assert gap(runs["compiled"], runs["eager"], [p.detach() for p in weights(shapes)]) < 1e-3


def test_sizes_of_one_and_none_make_no_graph() -> None:
    rule = RULES["AdamW"]
    trained(rule, [(64, 64)], backend="compiled")
    before = graphs()
    odd = weights([(), (1,), (0,)])
    opt = rule.optimizer(odd, backend="compiled")
    for t in range(2):
        for p in odd:
            p.grad = torch.ones_like(p) * (t + 1)
        opt.step()
    single = [nn.Parameter(odd[0].detach().clone())]
    alone = rule.optimizer(single, backend="compiled")
    single[0].grad = torch.ones(())
    alone.step()
    assert graphs() == before
    assert all(bool(x.isfinite().all()) for x in snapshot(opt) + snapshot(alone))

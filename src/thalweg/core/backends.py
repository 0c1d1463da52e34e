"""How a body runs: compiled, one graph whatever the shapes, or eagerly on pieces that stay in cache."""

from __future__ import annotations

import functools
import re
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor

from thalweg.core.buckets import Bucket
from thalweg.core.codecs import COMPILE_OPTIONS
from thalweg.core.contract import Needs, RuleLike
from thalweg.core.form import Form, Numbers, Stores
from thalweg.core.kernel import Body

BLOCK = 262_144
"""Elements of an eager piece: with its temporaries it stays in the third-level cache, and threads meet seldom enough."""

WORTH_COMPILING = 1_000_000
"""Elements of a group from which `backend="auto"` compiles."""

EAGER_STEPS = 20
"""With `backend="auto"` a parameter's first steps run eagerly while the compiler works; a fixed number, so that runs are repeatable."""

_ONE_AT_A_TIME = threading.Lock()

Runner = Callable[[Tensor, Tensor, Stores, Numbers, "Tensor | None", "list[list[int]]"], Any]


class Program:
    """One body in its two ways of running. Obtained through `program`, which shares them between optimizers."""

    def __init__(self, rule: RuleLike, form: Form, part: str) -> None:
        self.form, self.part, self.elementwise = form, part, rule.kind is Needs.ELEMENTWISE
        self.name = f"{rule.name} ({part})"
        body = Body(rule, form)
        self.body: Runner = body.measure(int(part.removeprefix("measure"))) if part.startswith("measure") else getattr(body, part)()
        self.sums = part.startswith("measure")
        self.failure: str | None = None
        self._compiled: Runner | None = None
        self._direct: Runner | None = None  # of an elementwise body
        self._by_shape: dict[object, Runner] = {}  # of any other: which graph ran for tensors that lie like these
        self._ran = threading.local()  # the graph of this thread's last call: optimizers in several threads share a program
        self._reported = False
        self._compiling: threading.Thread | None = None
        self._starting = threading.Lock()

    def prepare(self, bucket: Bucket, wait: bool) -> bool:
        """Start compiling behind the caller, or wait for it; True once the compiled form may run."""
        if self._compiled is None and self.failure is None:
            with self._starting:
                if self._compiling is None:
                    # A thread of its own, which ends: OpenMP keeps a pool of workers for every living thread that has run a parallel loop, and where
                    # all pools together have more workers than there are cores they sleep between loops, which makes eager steps twice as slow.
                    arguments = arguments_like(bucket, self.part)
                    self._compiling = threading.Thread(target=self._compile, args=arguments, name=f"thalweg-compile {self.name}")
                    self._compiling.start()
            if wait:
                self._compiling.join()
        if wait and self.failure is not None and not self._reported:
            self._reported = True
            warnings.warn(f"thalweg: {self.name} could not be compiled and runs eagerly: {self.failure}", RuntimeWarning, stacklevel=4)
        return self._compiled is not None

    def compiled(self, g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: list[list[int]]) -> Any:
        """Run the compiled form; call only after `prepare` said so."""
        assert self._compiled is not None
        direct, key = self._direct if g.dtype is w.dtype else None, None
        if not self.elementwise:
            key = _signature(g, w, stores, index, shapes)
            direct = self._by_shape.get(key)
        if direct is not None:
            results = direct(g, w, stores, numbers, index, shapes)
            return results[0] if self.sums else None
        self._ran.graph = None
        result = self._compiled(*_bare(g, w, stores, numbers, index, shapes))
        if key is not None and self._ran.graph is not None:
            self._by_shape[key] = self._ran.graph
        return result

    def eager(self, g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: list[list[int]]) -> Any:
        """Run the body on pieces of `BLOCK` elements where the rule is elementwise, else at once."""
        _keep_pieces()
        if not self.elementwise or w.numel() <= BLOCK:
            return self.body(g, w, stores, numbers, index, shapes)
        total = None
        rows = BLOCK // (w.shape[1] if w.dim() == 2 else 1)  # of the first dimension, which gradient, weights and stores share
        cut = [zip(*[torch.split(x, rows) for x in held], strict=True) for held in stores]
        for i, (piece_g, piece_w, *piece) in enumerate(zip(torch.split(g, rows), torch.split(w, rows), *cut, strict=True)):
            where = index if index is None else index[i * rows : (i + 1) * rows] if self.form.indexed else index + i * rows
            part = self.body(piece_g, piece_w, piece, numbers, where, shapes)
            if self.sums:
                total = part if total is None else total + part
        return total

    def _compile(self, *arguments: Any) -> None:
        """Compile on a stand-in that is large enough for the compiler to plan parallel loops; one program at a time."""
        with _ONE_AT_A_TIME:
            self._compile_alone(arguments)

    def _compile_alone(self, arguments: tuple[Any, ...]) -> None:
        try:
            body = self.body

            def call(g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: list[list[int]]) -> Any:
                return body(g, w, stores, numbers, index, shapes)

            # The compiler keeps its graphs by code object and limits their number: every program gets a code object of its own.
            own = types.FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
            options: dict[str, Any] = {**COMPILE_OPTIONS, **(_cpu_options() if arguments[1].device.type == "cpu" else {})}
            # torch's own import warns of torch's own code, which would fail under -W error.
            warnings.filterwarnings("ignore", message=r".torch\.jit\.script_method. is deprecated", category=DeprecationWarning)
            from torch._inductor.compile_fx import compile_fx  # here, since importing the compiler takes a second
            from torch._inductor.exc import InductorError

            graphs: list[Runner] = []

            def marked(run: Callable[..., Any], direct: Runner) -> Callable[..., Any]:
                def call(*inputs: Any) -> Any:
                    self._ran.graph = direct
                    return run(*inputs)

                return call

            def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
                try:
                    run = cast("Callable[..., Any]", compile_fx(graph, inputs, config_patches=options))
                except InductorError:
                    from thalweg.core.loops import Apart

                    run = cast("Callable[..., Any]", compile_fx(graph, inputs, config_patches={**options, "_post_fusion_custom_pass": Apart()}))
                with suppress(AttributeError, KeyError, SyntaxError):  # another torch may name its inputs otherwise: then every call is checked
                    graphs.append(_unguarded(graph, run))
                    return run if self.elementwise else marked(run, graphs[-1])
                return run

            compiled = torch.compile(own, dynamic=True, fullgraph=True, backend=backend)
            with torch.no_grad():
                compiled(*_bare(*arguments))
                if graphs and self.elementwise and arguments[1].device.type == "cpu":
                    graphs[0](*arguments)  # the same call as in every step, tried here
                    self._direct = graphs[0]
            self._compiled = compiled
        except Exception as error:  # noqa: BLE001 - whatever the compiler raises, the eager form is right; it is reported once
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            self.failure = f"{type(error).__name__}: {' '.join(said[:2])}"  # the second line has the cause, where the first says who raised


def _bare(g: Tensor, w: Tensor, stores: Stores, numbers: Numbers, index: Tensor | None, shapes: list[list[int]]) -> tuple[Any, ...]:
    """Arguments that do not know what they are views of: the compiler would want a graph for each way to lie in a storage."""
    return g.data, w.data, [tuple([x.data for x in held]) for held in stores], numbers, None if index is None else index.data, shapes


def _signature(g: Tensor, w: Tensor, stores: Stores, index: Tensor | None, shapes: list[list[int]]) -> object:
    """All that the checks for which graph is wanted look at, where the numbers are in a tensor."""
    tensors = (g, w, *(x for held in stores for x in held), *(() if index is None else (index,)))
    return g.dtype, *[(x.shape, x.stride()) for x in tensors], *map(tuple, shapes)


def _unguarded(graph: torch.fx.GraphModule, run: Callable[..., Any]) -> Runner:
    """A compiled graph behind the body's signature (it returns its results in a list), without the checks for which graph is wanted.

    Those checks cost more than the arithmetic of a small tensor. An elementwise body in one form needs one graph for every length of two or more, so
    only the gradient's dtype is left to check.
    """
    scope: dict[str, Any] = {"run": run}
    inputs = []
    for node in (node for node in graph.graph.nodes if node.op == "placeholder"):
        given = node.meta["grapharg"]
        if given.source.name.startswith("L["):  # an argument, or a part of one such as L['w'].size()[0] or L['stores'][0][0]
            if not re.match(r"L\['(g|w|stores|numbers|index|shapes)'\]", given.source.name):
                raise KeyError(given.source.name)
            inputs.append(re.sub(r"L\['(\w+)'\]", r"\1", given.source.name))
        else:  # a constant of a method's file
            scope[node.name] = given.example
            inputs.append(node.name)
    return eval(f"lambda g, w, stores, numbers, index, shapes: run({', '.join(inputs)})", scope)  # type: ignore[no-any-return]


def _cpu_options() -> dict[str, Any]:
    """Options for the C++ compiler, without what takes seconds: a test of the processor where torch itself found AVX, and precompiled headers."""
    known = {"cpp.vec_isa_ok": True} if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else {}
    return {"cpp.dynamic_threads": True, "cpp_cache_precompile_headers": False, **known}  # the number of threads is read at each call


def arguments_like(bucket: Bucket, part: str) -> tuple[Any, ...]:
    """Arguments for a first call of a bucket's program."""
    layout, piece, inputs = bucket.kernel.layout, bucket.stand_in(), bucket.plan.rule.inputs
    first = inputs.index(bucket.plan.rule.phases[0]) if bucket.plan.rule.phases else 0
    known = inputs if part == "step" else inputs[: first + int(part.removeprefix("measure"))] if part.startswith("measure") else ()
    count = sum(max(length, 1) for _, length in layout.dynamic) + len(layout.scalars) + sum(map(len, known))
    numbers = torch.full((count,), 0.5, dtype=torch.float64, device=bucket.device)
    return piece.g, piece.w, piece.stores, numbers, piece.index, piece.shapes


@functools.cache
def _keep_pieces() -> None:
    """Free one large block, once: the C library takes its size for usual and keeps smaller ones, such as an eager piece's temporaries, for reuse.

    Until it has seen one it gives each piece's memory back to the system, and the page faults of the next piece cost several times its arithmetic.
    """
    torch.empty(16 * BLOCK)


class _Key:
    """A rule and a form, equal where they give the same graph."""

    def __init__(self, rule: RuleLike, form: Form, part: str) -> None:
        self.rule, self.form, self.part = rule, form, part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and (self.form, self.part) == (other.form, other.part)

    def __hash__(self) -> int:
        return hash((self.form, self.part))


@functools.cache
def _program(key: _Key) -> Program:
    return Program(key.rule, key.form, key.part)


def program(rule: RuleLike, form: Form, part: str) -> Program:
    """The program of a rule in a form, shared by all optimizers of this process.

    Args:
        rule: the rule; only its structure matters.
        form: how its tensors are stored.
        part: "step", "absorb" or "measure0", "measure1", ...
    """
    return _program(_Key(rule, form, part))

"""The rules that are timed, and what the peers have beside each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg import optim
from thalweg.core.contract import RuleLike
from thalweg.core.rule import Rule
from thalweg.inspect.catalogue import load
from thalweg.inspect.entry import Entry

Make = Callable[[Sequence[Tensor]], torch.optim.Optimizer]

COLUMNS = (
    "thalweg compiled",
    "thalweg eager",
    "torch fused",
    "torch foreach",
    "torch loop",
    "pytorch-optimizer",
    "heavyball",
    "torch-optimi",
    "torchao",
)


@dataclass(frozen=True)
class Row:
    """A rule and its peers.

    Args:
        name: of the row.
        rule: of this library.
        per_parameter: bytes that a step must read and write for each fp32 parameter, each pass counted once.
        peers: for each column the ways to run the peer's version; the fastest of them in the run at hand is taken.
        options: of the optimizer.
        elementwise: whether the rule is.
        matrices: whether the row is about hidden matrices only.
        period: steps from one costly refresh to the next; a sample is a whole number of periods.
        lists: of parameters that the row is timed on; all of them where this is empty.
    """

    name: str
    rule: RuleLike
    per_parameter: float
    peers: dict[str, list[tuple[str, Make]]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    elementwise: bool = True
    matrices: bool = False
    period: int = 1
    lists: tuple[str, ...] = ()

    def candidates(self) -> dict[str, list[tuple[str, Make]]]:
        """For each column, how to make its optimizers."""
        own: dict[str, list[tuple[str, Make]]] = {f"thalweg {backend}": [("", self._own(backend))] for backend in ("compiled", "eager")}
        return own | self.peers

    def _own(self, backend: str) -> Make:
        return lambda params: self.rule.optimizer(params, backend=backend, **self.options)


def peer(module: str, name: str, variants: Sequence[dict[str, Any]], **common: Any) -> list[tuple[str, Make]]:
    """Ways to make a peer's optimizer; the module is imported when one is made, so that an absent peer is only an absent column."""

    def make(variant: dict[str, Any]) -> Make:
        return lambda params: getattr(importlib.import_module(module), name)(list(params), **common, **variant)

    return [(", ".join(f"{k}={v}" for k, v in variant.items()), make(variant)) for variant in variants]


BOTH: tuple[dict[str, Any], ...] = ({"foreach": True}, {"foreach": False})
WIDEST = 10_000
"""Longest side held as a matrix, so that a rule and its peer hold the same ones."""
SQUARES = ("narrow", "small", "tiny")
"""Lists for rules that decompose matrices as wide as a side: wide ones take minutes, and convolutions are reshaped differently by each library."""
HEAVY: tuple[dict[str, Any], ...] = ({"multi_tensor": True}, {"multi_tensor": False})


def from_torch(name: str, ways: str = "fused foreach loop", **common: Any) -> dict[str, list[tuple[str, Make]]]:
    """The columns of a torch optimizer."""
    flags: dict[str, dict[str, Any]] = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
    return {f"torch {way}": peer("torch.optim", name, [flags[way]], **common) for way in ways.split()}


def pytorch_optimizer(name: str, variants: Sequence[dict[str, Any]] = BOTH, **common: Any) -> dict[str, list[tuple[str, Make]]]:
    return {"pytorch-optimizer": peer("pytorch_optimizer", name, variants, **common)}


def heavyball(name: str, variants: Sequence[dict[str, Any]] = HEAVY, **common: Any) -> dict[str, list[tuple[str, Make]]]:
    return {"heavyball": peer("heavyball", name, variants, **common)}


def optimi(name: str, **common: Any) -> dict[str, list[tuple[str, Make]]]:
    return {"torch-optimi": peer("optimi", name, BOTH, **common)}


def torchao(name: str) -> dict[str, list[tuple[str, Make]]]:
    return {"torchao": peer("torchao.optim", name, [{}])}


def grouped(name: str, **marks: Any) -> dict[str, list[tuple[str, Make]]]:
    """A matrix rule of pytorch-optimizer that wants marked groups, and without them runs another rule."""

    def make(params: Sequence[Tensor]) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = getattr(importlib.import_module("pytorch_optimizer"), name)([{"params": list(params), **marks}])
        return found

    return {"pytorch-optimizer": [(", ".join(marks), make)]}


def estimated(name: str, **settings: Any) -> dict[str, list[tuple[str, Make]]]:
    """A rule of pytorch-optimizer that is given its one estimate of the curvature: the steps between two estimates are timed."""

    def make(foreach: bool) -> Make:
        def made(params: Sequence[Tensor]) -> torch.optim.Optimizer:
            found = getattr(importlib.import_module("pytorch_optimizer"), name)
            optimizer: torch.optim.Optimizer = found(list(params), update_period=10**9, foreach=foreach, **settings)
            optimizer.step(hessian=[torch.ones_like(p) for p in params])  # type: ignore[call-arg]
            return optimizer

        return made

    return {"pytorch-optimizer": [(f"foreach={foreach}", make(foreach)) for foreach in (True, False)]}


def clipped(params: Sequence[Tensor]) -> torch.optim.Optimizer:
    """torch's clipping followed by its fused AdamW, as one optimizer."""
    optimizer = torch.optim.AdamW(params, fused=True)
    optimizer.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_norm_(params, 1.0) and None)
    return optimizer


def rows() -> list[Row]:
    """All rows, in the order of the tables: those below, then every other rule of the library beside pytorch-optimizer's of that name."""
    chosen = _chosen()
    named = " ".join(f"{row.name} {row.rule!r}" for row in chosen)
    rest = [entry for entry in load() if entry.family == "optim" and f"{entry.name}(" not in named]
    return chosen + [_plain(entry) for entry in rest]


def _plain(entry: Entry) -> Row:
    rule, needs = getattr(optim, entry.name)(), set(entry.needs)
    peers: dict[str, list[tuple[str, Make]]] = {}
    if hasattr(torch.optim, entry.name):
        peers |= from_torch(entry.name, "foreach loop")
    if theirs := _same_name("pytorch_optimizer", entry.name):
        peers |= pytorch_optimizer(theirs)
    return Row(entry.name, rule, _traffic(rule), peers, {}, "elementwise" in needs, "matrix" in needs)


def _same_name(module: str, name: str) -> str | None:
    """What the module calls the rule, however it writes capitals."""
    try:
        return next((found for found in dir(importlib.import_module(module)) if found.lower() == name.lower()), None)
    except ImportError:
        return None


def _matrix(rule: Rule, peers: dict[str, list[tuple[str, Make]]], period: int = 1, lists: tuple[str, ...] = ()) -> Row:
    """A matrix rule with the settings that its peers have too."""
    return Row(rule.name, rule, _traffic(rule), peers, elementwise=False, matrices=True, period=period, lists=lists)


def _link(link: Rule, rule: Rule, before: bool = True) -> Row:
    """A link that has no step of its own, in a chain with a rule."""
    chain = optim.chain(link, rule) if before else optim.chain(rule, link)
    return Row(f"{link.name}, {rule.name}" if before else f"{rule.name}, {link.name}", chain, _traffic(rule), {}, elementwise=False)


def _traffic(rule: Rule) -> float:
    """Weights, gradients and states are read, weights and states written; each state counts as one of the weights' size."""
    return 12 + 8 * len(rule.init(torch.zeros(1, 2, 2)))


def _heavy_soap(name: str) -> dict[str, list[tuple[str, Make]]]:
    """A rule of heavyball's family around SOAP with a refresh each ten steps and one matrix for each side."""
    settings = {"precondition_frequency": 10, "max_precond_dim": WIDEST, "merge_dims": False, "use_precond_schedule": False}
    return heavyball(name, [{}], **settings)


def _chosen() -> list[Row]:
    adamw = from_torch("AdamW") | heavyball("AdamW") | optimi("AdamW", lr=1e-3) | torchao("_AdamW")
    muon = {"torch loop": peer("torch.optim", "Muon", [{}])}
    return [
        Row("AdamW", optim.AdamW(), 28, adamw),
        Row("AdamW, bf16 state", optim.AdamW(), 20, heavyball("AdamW", storage_dtype="bfloat16"), {"state_precision": "bf16"}),
        Row(
            "AdamW, 8-bit state",
            optim.AdamW(),
            16.06,
            torchao("AdamW8bit") | pytorch_optimizer("FlashAdamW", ({"fused": False},), quantize=True),
            {"state_precision": "8bit"},
        ),
        Row("AdamW, 4-bit state", optim.AdamW(), 14.06, torchao("AdamW4bit"), {"state_precision": "4bit"}),
        Row("Adam", optim.Adam(), 28, from_torch("Adam") | optimi("Adam", lr=1e-3)),
        Row("SGD", optim.SGD(momentum=0.9), 20, from_torch("SGD", momentum=0.9) | heavyball("SGD") | optimi("SGD", lr=1e-3, momentum=0.9)),
        Row(
            "SGDW",
            optim.SGDW(momentum=0.9),
            20,
            pytorch_optimizer("SGDW", momentum=0.9, weight_decay=1e-2) | optimi("SGD", lr=1e-3, momentum=0.9, decouple_wd=True),
        ),
        Row("Lion", optim.Lion(weight_decay=0.1), 20, pytorch_optimizer("Lion", weight_decay=0.1) | optimi("Lion", lr=1e-4, weight_decay=0.1)),
        Row("Signum", optim.Signum(weight_decay=0.1), 20, pytorch_optimizer("SignSGD", weight_decay=0.1)),
        Row(
            "AdEMAMix",
            optim.AdEMAMix(weight_decay=0.1),
            36,
            pytorch_optimizer("AdEMAMix", weight_decay=0.1) | heavyball("AdEMAMix", weight_decay=0.1),
        ),
        Row("Adan", optim.Adan(), 44, pytorch_optimizer("Adan", weight_decay=0.02) | optimi("Adan", lr=1e-3)),
        Row("SophiaH", optim.SophiaH(), 24, estimated("SophiaH", weight_decay=0.2)),
        Row("AdaHessian", optim.AdaHessian(), 28, estimated("AdaHessian"), elementwise=False),
        Row("SophiaG", optim.SophiaG(), 24),
        Row("NormalizedSGD", optim.NormalizedSGD(), 28),
        Row("ClipByNorm, AdamW", optim.chain(optim.ClipByNorm(), optim.AdamW()), 32, {"torch fused": [("clip_grad_norm_, fused", clipped)]}),
        Row("ClipByValue, SGD", optim.chain(optim.ClipByValue(), optim.SGD(momentum=0.9)), 20),
        Row("Adam, DecoupledDecay", optim.chain(optim.Adam(), optim.DecoupledDecay()), 28),
        Row(
            "Adafactor",
            optim.Adafactor(),
            12,
            from_torch("Adafactor", "foreach loop") | pytorch_optimizer("AdaFactor", lr=1e-2, betas=(None, 0.999)),
            elementwise=False,
        ),
        Row("AdamP", optim.AdamP(weight_decay=0.01), 28, pytorch_optimizer("AdamP", weight_decay=0.01), elementwise=False),
        Row("SGDP", optim.SGDP(momentum=0.9, weight_decay=1e-4), 20, pytorch_optimizer("SGDP", momentum=0.9, weight_decay=1e-4), elementwise=False),
        Row("NovoGrad", optim.NovoGrad(weight_decay=1e-3), 20, pytorch_optimizer("NovoGrad", weight_decay=1e-3), elementwise=False),
        Row(
            "Muon",
            optim.Muon(),
            20,
            muon | grouped("Muon", use_muon=True) | heavyball("Muon"),
            elementwise=False,
            matrices=True,
        ),
        Row(
            "NonEuclideanTrustRegion",
            optim.NonEuclideanTrustRegion(),
            20,
            {"torch loop": peer("torch.optim", "Muon", [{"nesterov": False}])},
            elementwise=False,
            matrices=True,
        ),
        _matrix(optim.NorMuon(), grouped("NorMuon", use_muon=True)),
        _matrix(
            optim.GaLore(),
            grouped("GaLore", rank=128, update_proj_gap=200, scale=0.25, projection_type="std"),
            lists=("gpt", *SQUARES),  # for convolutions the peer takes Adam steps
        ),
        _matrix(
            optim.SOAP(max_dim=WIDEST),
            pytorch_optimizer("SOAP", [{}], max_precondition_dim=WIDEST, precondition_frequency=10) | _heavy_soap("SOAP"),
            period=10,
            lists=SQUARES,
        ),
        _matrix(optim.KLShampoo(max_dim=WIDEST), _heavy_soap("KLShampoo"), period=10, lists=SQUARES),
        _matrix(
            optim.Shampoo(max_dim=WIDEST, every=10), pytorch_optimizer("Shampoo", [{}], preconditioning_compute_steps=10), period=10, lists=SQUARES
        ),
        _matrix(optim.Shampoo4bit(max_dim=WIDEST), {}, lists=SQUARES),
        _matrix(
            optim.PSGDKron(max_dim=WIDEST),
            pytorch_optimizer("Kron", [{}], max_size_triangular=WIDEST) | heavyball("PSGDKron", [{}], max_size_triangular=WIDEST),
            lists=SQUARES,
        ),
        Row("AMSGrad", optim.AMSGrad(), 36, from_torch("Adam", amsgrad=True)),
        _link(optim.AdaptiveGradientClipping(), optim.SGD(momentum=0.9)),
        _link(optim.GradientCentralisation(), optim.SGD(momentum=0.9)),
        _link(optim.GradientNoise(), optim.SGD(momentum=0.9)),
        _link(optim.Cautious(), optim.AdamW(), before=False),
    ]

"""`chain`, which joins rules into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from thalweg.core.checks import as_number, check
from thalweg.core.codecs import Codec
from thalweg.core.contract import LOSS, Needs, Scalars, State
from thalweg.core.engine import Engine, Params
from thalweg.core.rule import Rule, descend


class Chain:
    """Rules one after the other: each takes the direction of the one before as its gradient. Made by `chain`.

    A hyperparameter keeps its name where one link has it, and is called "link.name" where several do.
    """

    def __init__(self, links: tuple[Rule, ...], lr: float | None = None) -> None:
        with_lr = [link for link in links if "lr" in link.hyper()]
        if len(with_lr) > 1:
            raise ValueError(f"chain: {' and '.join(link.name for link in with_lr)} both have a learning rate; only one link may.")
        if not links or not (with_lr or lr is not None):
            raise ValueError("chain: no link has a learning rate; add a rule such as SGD, or give lr=... to chain.")
        if with_lr and lr is not None:
            raise ValueError(f"chain: the learning rate is {with_lr[0].name}'s; set it there and not on the chain.")
        self.links = links
        self.lr = lr
        if lr is not None:
            self.lr = as_number(lr, 0.0, ">= 0")
            check("chain", "lr", self.lr, 0.0, ">= 0")
        names = [link.name.lower() for link in links]
        self.labels = tuple(n if names.count(n) == 1 else f"{n}{names[: i + 1].count(n)}" for i, n in enumerate(names))
        every = [name for link in links for name in link.hyper()]
        self._keys = [{h: h if every.count(h) == 1 else f"{label}.{h}" for h in link.hyper()} for link, label in zip(links, self.labels, strict=True)]
        self._mover = links.index(with_lr[0]) if with_lr else None
        self._global = [i for i, link in enumerate(links) if link.totals]
        probes = [i for i, link in enumerate(links) if link.probe]
        if len(probes) > 1:
            raise ValueError("chain: at most one link may ask for a curvature probe.")
        self._probed = probes[0] if probes else None
        if sum(link.draws for link in links) > 1:
            raise ValueError("chain: at most one link may draw noise.")
        noisy = next((i for i, link in enumerate(links) if link.draws), len(links))
        if any(i > noisy for i in self._global):
            raise ValueError(f"chain: {links[self._global[-1]].name} sums over all parameters and must come before {links[noisy].name}.")

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.links))}{'' if self.lr is None else f', lr={self.lr}'})"

    @property
    def name(self) -> str:
        """The links' names, joined."""
        return "chain(" + ", ".join(link.name for link in self.links) + ")"

    @property
    def kind(self) -> Needs:
        """The most that any link must see at once."""
        return max((link.needs for link in self.links), key=list(Needs).index)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes of the links."""
        return tuple(type(link) for link in self.links)

    @property
    def phases(self) -> tuple[tuple[str, ...], ...]:
        """One pass for each link that needs sums over all parameters."""
        return tuple(tuple(f"{self.labels[i]}.{name}" for name in self.links[i].totals) for i in self._global)

    @property
    def probe_kind(self) -> str | None:
        """The probe of the link that has one."""
        return None if self._probed is None else self.links[self._probed].probe

    @property
    def exponents(self) -> tuple[str, ...]:
        """The exponents of all links."""
        return tuple([keys[h] for link, keys in zip(self.links, self._keys, strict=True) for h in link.exponents])

    @property
    def compilable(self) -> bool:
        """Whether every link is."""
        return all(link.compilable for link in self.links)

    @property
    def draws(self) -> bool:
        """Whether a link reads noise."""
        return any(link.draws for link in self.links)

    @property
    def averaged(self) -> bool:
        """Whether the link that holds the learning rate is."""
        return self._mover is not None and self.links[self._mover].averaged

    @property
    def past(self) -> tuple[str, ...]:
        """The numbers that the links carry, as "link.name"."""
        return tuple([f"{label}.{name}" for link, label in zip(self.links, self.labels, strict=True) for name in link.past])

    @property
    def shared(self) -> tuple[str, ...]:
        """The shared numbers of the links, as "link.name"."""
        return tuple([f"{label}.{name}" for link, label in zip(self.links, self.labels, strict=True) for name in link.shared])

    @property
    def inputs(self) -> tuple[tuple[str, ...], ...]:
        """The numbers that come from the device."""
        loss = (LOSS,) if any(link.sees_loss for link in self.links) else ()
        if not self.shared:
            return (*loss, *self.phases)
        new = [f"{label}.new.{name}" for link, label in zip(self.links, self.labels, strict=True) for name in link.shared]
        return (*loss, self.shared, *self.phases, tuple(new))

    def is_nonnegative(self, state: str) -> bool:
        """Whether the named state is never negative."""
        label, _, name = state.partition(".")
        return self.links[self.labels.index(label)].is_nonnegative(name)

    def storage_of(self, state: str) -> Codec | None:
        """How the named state is stored where nothing else is asked for."""
        label, _, name = state.partition(".")
        return self.links[self.labels.index(label)].storage_of(name)

    def hyper(self) -> dict[str, Any]:
        """Hyperparameters of all links."""
        out: dict[str, Any] = {} if self.lr is None else {"lr": self.lr}
        for link, keys in zip(self.links, self._keys, strict=True):
            out |= {keys[h]: value for h, value in link.hyper().items()}
        return out

    def with_hyper(self, values: Mapping[str, Any]) -> Chain:
        """This chain with some hyperparameters replaced, checked."""
        links = tuple(
            link.with_hyper({h: values[key] for h, key in keys.items() if key in values}) for link, keys in zip(self.links, self._keys, strict=True)
        )
        return Chain(links, None if self.lr is None else values.get("lr", self.lr))

    def bound(self, values: Mapping[str, Any]) -> Chain:
        """This chain over numbers or 0-d tensors, unchecked; for kernels."""
        out = object.__new__(Chain)
        out.__dict__.update(self.__dict__)
        out.links = tuple([link.bound({h: values[key] for h, key in keys.items()}) for link, keys in zip(self.links, self._keys, strict=True)])
        out.lr = values["lr"] if self.lr is not None else None
        return out

    def init(self, w: Tensor) -> State:
        """The states of all links, as "link.name"."""
        return self._labelled(lambda link, label: link.init(w))

    def scalars(self, t: int) -> dict[str, float]:
        """The scalars of all links, as "link.name"."""
        return self._labelled(lambda link, label: link.scalars(t))

    def step(self, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        """The direction after the last link, and all new states."""
        return self._through(len(self.links), g, w, s, c)

    def measure_phase(self, phase: int, g: Tensor, w: Tensor, s: State, c: Scalars) -> dict[str, Tensor]:
        """What the phase-th global link measures on the direction that reaches it."""
        i = self._global[phase]
        d, _ = self._through(i, g, w, s, c)
        sums = self.links[i].measure(d, w, _within(s, self.labels[i]), _within(c, self.labels[i]))
        return {f"{self.labels[i]}.{name}": value for name, value in sums.items()}

    def absorb(self, h: Tensor, w: Tensor, s: State, c: Scalars) -> State:
        """The curvature estimate goes to the link that asked for it."""
        if self._probed is None:
            return s
        label = self.labels[self._probed]
        return s | {f"{label}.{k}": v for k, v in self.links[self._probed].absorb(h, w, _within(s, label), _within(c, label)).items()}

    def draws_at(self, t: float) -> bool:
        """Whether a link reads noise in step t."""
        return any(link.draws_at(t) for link in self.links)

    def rare_at(self, t: float) -> bool:
        """Whether step t is rare for a link."""
        return any(link.rare_at(t) for link in self.links)

    def recur(self, t: int, past: Mapping[str, float]) -> dict[str, float]:
        """The numbers that the links carry, each from its own."""
        return self._labelled(lambda link, label: link.recur(t, _within(past, label)))

    def start(self) -> dict[str, float]:
        """The shared numbers of all links before the first step."""
        return self._labelled(lambda link, label: link.start())

    def share(self, c: Scalars) -> dict[str, Any]:
        """The new shared numbers of all links."""
        return self._labelled(lambda link, label: link.share(_within(c, label)) if link.shared else {})

    def evaluation(self, w: Tensor, s: State, c: Scalars) -> Tensor:
        """The weights to evaluate at, by the link that holds the learning rate."""
        return self._by_mover("evaluation", w, s, c)

    def training(self, x: Tensor, s: State, c: Scalars) -> Tensor:
        """The inverse of `evaluation`."""
        return self._by_mover("training", x, s, c)

    def apply(self, w: Tensor, d: Tensor) -> Tensor:
        """The new weights, by the link that holds the learning rate."""
        return descend(w, d, self.lr) if self._mover is None else self.links[self._mover].apply(w, d)

    @property
    def rate(self) -> Any:
        """The learning rate where the new weights are w - lr d; None where a link has its own `apply`."""
        return self.lr if self._mover is None else self.links[self._mover].rate

    def optimizer(self, params: Params, **options: Any) -> Engine:
        """A torch optimizer that runs this chain over `params`. Options as in `Engine`."""
        return Engine(params, self, **options)

    def _labelled(self, of: Callable[[Rule, str], Mapping[str, Any]]) -> dict[str, Any]:
        """What every link says, as "link.name"."""
        return {f"{label}.{k}": v for link, label in zip(self.links, self.labels, strict=True) for k, v in of(link, label).items()}

    def _by_mover(self, what: str, w: Tensor, s: State, c: Scalars) -> Tensor:
        if self._mover is None:
            return w
        label, link = self.labels[self._mover], self.links[self._mover]
        translated: Tensor = getattr(link, what)(w, _within(s, label), _within(c, label))
        return translated

    def _through(self, stop: int, g: Tensor, w: Tensor, s: State, c: Scalars) -> tuple[Tensor, State]:
        new: State = {}
        d = g
        for link, label in zip(self.links[:stop], self.labels[:stop], strict=True):
            given = _within(c, label) | {"rare": c.get("rare", False) and link.rare_at(c["t"])} | ({"gradient": g} if link.sees_gradient else {})
            d, mine = link.step(d, w, _within(s, label), given)
            new |= {f"{label}.{k}": v for k, v in mine.items()}
        return d, new


def _within(values: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The entries of one link, without their label; the step count, the noise and the loss are everybody's."""
    out = {k[len(label) + 1 :]: v for k, v in values.items() if k.startswith(label + ".")}
    return out | {k: values[k] for k in ("t", "normal", *LOSS) if k in values}


def chain(*links: Rule, lr: float | None = None) -> Chain:
    """Join rules: `chain(ClipByNorm(max_norm=1.0), AdamW(lr=1e-3))`. Elementwise links become one kernel.

    Args:
        links: rules in order; the first sees the gradient, each next one the direction of the one before.
        lr: the learning rate, only where no link has one.

    Returns:
        A rule; `.optimizer(params)` makes the optimizer.

    Raises:
        ValueError: if two links have a learning rate, or none has.
    """
    return Chain(links, lr)

"""What every compressor and exchanger must do: statistics, bits on the wire, memory, worlds, faults."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bias import assert_unbiased
from exchangers import COMPRESSORS, EXCHANGERS, FOUND, OWN, backward, compressor, journey, network, reduced, reduced_and_hooked
from torch import Tensor, nn
from worker_processes import in_processes

from thalweg.core.exchanger import Exchanger
from thalweg.core.seal import TAIL
from thalweg.core.thread_world import Board, ThreadWorld, simulate
from thalweg.core.world import World
from thalweg.distributed.exchange import Exchange
from thalweg.distributed.topk import TopK

SIZES = (1, 2, 7, 8, 9, 13, 100)
every = pytest.mark.parametrize("name", COMPRESSORS)
everyone = pytest.mark.parametrize("name", EXCHANGERS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=generator(seed))


def even(n: int) -> Tensor:
    """Coordinates of about one size, so that few samples show a small bias."""
    x = vector(n)
    return x.sign() * (1 + 0.1 * x.abs())


def copied(state: Any) -> Any:
    """Through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Two states, bit for bit."""
    assert found.keys() == expected.keys()
    for key in ("memory", "feedback"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)
    assert all(found[key] == expected[key] for key in found.keys() - {"memory", "feedback"})


def test_nothing_of_the_catalogue_is_left_out() -> None:
    exchangers = [c for c in FOUND if isinstance(c, type) and issubclass(c, Exchanger) and c is not Exchange]
    assert set(exchangers) == set(OWN)
    assert len(COMPRESSORS) >= 7


@pytest.mark.parametrize("name", [name for name, kind in COMPRESSORS.items() if kind.unbiased])
def test_unbiased_as_declared(name: str) -> None:
    """A factor of 1.01 fails with a power above 0.99, or 0.8 for the projection, whose draws cost more (`bias.assert_unbiased`)."""
    c, x, g = compressor(name), even(64), generator()
    count, error = (8_000, 0.002) if name == "TernaryProjection" else (5_000, 0.0015)
    samples = torch.stack([c.decompress(c.compress(x, g), len(x)) for _ in range(count)]).double()
    assert_unbiased(samples, x.double(), error=error)
    with pytest.raises(AssertionError, match="along the gradient"):
        assert_unbiased(1.01 * samples, x.double(), error=error)


@pytest.mark.parametrize("name", [name for name, kind in COMPRESSORS.items() if kind.feedback])
def test_a_contraction_where_error_feedback_is_on(name: str) -> None:
    c = compressor(name)
    for n in SIZES:
        for x in (vector(n, n), vector(n, n).abs() ** 5, torch.eye(n)[0]):
            assert (c.decompress(c.compress(x, generator()), n) - x).norm() < x.norm()


@every
def test_a_compressor_is_unbiased_or_gains_from_feedback_or_votes(name: str) -> None:
    kind = COMPRESSORS[name]
    assert (kind.unbiased, kind.feedback) in {(True, False), (False, True), (False, False)}
    if not kind.feedback:
        with pytest.raises(ValueError, match="no contraction"):
            Exchange(network(), compressor(name), ThreadWorld(), error_feedback=True)


@every
@pytest.mark.parametrize("n", SIZES)
def test_sizes_zeros_and_payloads(name: str, n: int) -> None:
    c = compressor(name)
    payloads = [c.compress(x, generator()) for x in (vector(n), torch.zeros(n))]
    assert [[(p.shape, p.dtype) for p in payload] for payload in payloads[:1]] == [[(p.shape, p.dtype) for p in payload] for payload in payloads[1:]]
    assert c.decompress(payloads[0], n).shape == (n,)
    assert torch.isfinite(c.decompress(payloads[0], n)).all()
    assert torch.equal(c.merge([payloads[1]] * 3, n), torch.zeros(n))


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_visible(name: str, bad: float) -> None:
    c, n = compressor(name), 50
    for place in (0, 17, 49):
        x = vector(n)
        x[place] = bad
        merged = c.merge([c.compress(vector(n, 1), generator(1)), c.compress(x, generator(2))], n)
        assert not torch.isfinite(merged).all()


@every
def test_draws_come_from_the_generator_alone(name: str) -> None:
    c, x = compressor(name), vector(100)
    x[::3] = 0.0
    before = torch.get_rng_state()
    first, second = (c.compress(x, generator(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_bits_are_what_the_world_counts(name: str) -> None:
    def work(world: World) -> tuple[int, int]:
        model = network()
        exchange = Exchange(model, compressor(name), world)
        backward(model, world.rank, 0)
        before = world.sent, world.received
        exchange.reduce()
        return world.sent - before[0], world.received - before[1]

    own = sum(compressor(name).bits(p.numel()) for p in network().parameters()) // 8 + TAIL
    assert simulate(3, work) == [(own, 2 * own)] * 3


@pytest.mark.parametrize("name", [name for name, kind in COMPRESSORS.items() if kind.feedback])
def test_sent_and_kept_are_the_gradient_and_the_old_residual(name: str) -> None:
    """Exact where coordinates travel whole; to one rounding where they are scaled."""
    model, world = network(), ThreadWorld()
    exchange = Exchange(model, compressor(name), world)
    for t in range(4):
        backward(model, 0, t)
        wanted = {key: exchange.feedback.corrected(key, p.grad.reshape(-1)) for key, p in model.named_parameters()}
        exchange.reduce()
        for key, p in model.named_parameters():
            sent, kept = p.grad.reshape(-1), exchange.feedback.residuals[key]
            error = (sent.double() + kept.double() - wanted[key].double()).abs()
            assert float(error.max()) <= (0.0 if name == "TopK" else 1.2e-7 * float(wanted[key].abs().max() + sent.abs().max()))


@everyone
def test_resumed_is_bit_equal_to_one_run(name: str) -> None:
    def work(world: World) -> None:
        straight = network()
        expected = journey(EXCHANGERS[name](straight, world), straight, range(6))
        first = network()
        exchanger = EXCHANGERS[name](first, world)
        found = journey(exchanger, first, range(3))
        model, state = network(), copied([first.state_dict(), exchanger.state_dict()])
        again = EXCHANGERS[name](model, world)
        model.load_state_dict(state[0])
        again.load_state_dict(state[1])
        found += journey(again, model, range(3, 6))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))

    simulate(2, work)


Runs = list[dict[str, Any]]


@pytest.fixture(scope="module")
def threads() -> Runs:
    return simulate(2, reduced)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return in_processes(reduced_and_hooked, 2, tmp_path_factory.mktemp("processes"))


@everyone
def test_processes_do_what_threads_do_and_ddp_s_hook_the_same(name: str, threads: Runs, processes: Runs) -> None:
    for thread, process in zip(threads, processes, strict=True):
        for t, expected in enumerate(thread[name]["grads"]):
            assert torch.equal(expected, process["reduced"][name]["grads"][t]), f"step {t}: processes"
            assert torch.equal(expected, process["hooked"][name][t]), f"step {t}: DDP"
            assert torch.equal(expected, threads[0][name]["grads"][t]), f"step {t}: workers differ"
        assert thread[name]["sent"] == process["reduced"][name]["sent"]
        assert process["state"][name] == len(process["hooked"][name]) == 5


@everyone
def test_a_skipped_step_leaves_the_memory_alone(name: str) -> None:
    """One worker's NaN shows on all of them, and no residual or momentum is poisoned."""
    def work(world: World) -> None:
        model = network()
        exchanger = EXCHANGERS[name](model, world)
        journey(exchanger, model, range(3))
        kept = copied(exchanger.state_dict())
        backward(model, world.rank, 3)
        if world.rank == 1:
            for p in model.parameters():
                p.grad.view(-1)[-1] = torch.nan
        exchanger.reduce()
        assert all(not torch.isfinite(p.grad).all() for p in model.parameters())
        state = exchanger.state_dict()
        assert state.pop("step_count") == kept.pop("step_count") + 1
        assert_same(state, kept)
        assert all(torch.isfinite(g).all() for g in journey(exchanger, model, range(4, 6)))

    simulate(2, work)


@everyone
def test_a_gradient_of_zeros_gives_zeros_at_the_first_step(name: str) -> None:
    """Signs of zeros toss coins: there votes are -1, 0 or 1, and elsewhere zeros stay zeros."""
    model = network()
    exchanger = EXCHANGERS[name](model, ThreadWorld())
    exchanger.reduce()
    merged = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert torch.isfinite(merged).all()
    assert merged.abs().max() <= (1.0 if name == "DistributedLion" else 0.0)


@pytest.mark.parametrize(("change", "words"), [
    (lambda s: s | {"rank": 1}, "the state is that of Exchange on worker 1 of 1"),
    (lambda s: s | {"size": 8}, "on worker 0 of 8; load each worker's own state"),
    (lambda s: s | {"method": "DGC"}, "the state is that of DGC"),
    (lambda s: s | {"feedback": {"other.weight": torch.zeros(3)}}, r"names \['other.weight'\], which this model does not have"),
    (lambda s: s | {"feedback": {"0.weight": torch.zeros(3)}}, r"0.weight \(3,\) instead of \(35,\)"),
], ids=["rank", "size", "method", "name", "shape"])
def test_a_wrong_state_is_refused_and_changes_nothing(change: Callable[[dict[str, Any]], dict[str, Any]], words: str) -> None:
    model = network()
    exchange = Exchange(model, TopK(ratio=0.5), ThreadWorld())
    journey(exchange, model, range(2))
    before = copied(exchange.state_dict())
    with pytest.raises(ValueError, match=words):
        exchange.load_state_dict(change(copied(before)))
    assert_same(exchange.state_dict(), before)


def test_zero_grad_does_not_erase_residuals() -> None:
    """The powersgd package keeps them in p.grad, where it does."""
    model = network()
    exchange = Exchange(model, TopK(ratio=0.1), ThreadWorld())
    journey(exchange, model, range(1))
    kept = exchange.feedback.state_dict()
    model.zero_grad()
    torch.testing.assert_close(exchange.feedback.state_dict(), kept, rtol=0, atol=0)
    assert any(r.any() for r in kept.values())


def test_workers_with_other_models_are_told() -> None:
    with pytest.raises(ValueError, match=r"workers \[\d\] have other parameters"):
        simulate(2, lambda world: Exchange(nn.Linear(3 + world.rank, 1), TopK(), world) and None)
    with pytest.raises(ValueError, match="found none"):
        Exchange(nn.Tanh(), TopK(), ThreadWorld())


class Noisy(ThreadWorld):
    """One bit of what arrives from worker 1 is wrong."""

    def all_gather(self, x: Tensor) -> list[Tensor]:
        parts = super().all_gather(x)
        if x.dtype == torch.uint8:
            parts[1][3] ^= 16
        return parts


def test_a_corrupt_payload_is_an_error() -> None:
    board = Board(2, 10.0)

    def work(world: World) -> None:
        model = network()
        exchange = Exchange(model, TopK(), Noisy(board, world.rank))
        backward(model, world.rank, 0)
        exchange.reduce()

    with pytest.raises(RuntimeError, match="The message of worker 1 in round 0 was corrupted on its way: its checksum differs"):
        simulate(2, work)


def killed(world: World) -> str:
    """Worker 1 ends without a word between two steps; worker 0 says what it hears."""
    model = network()
    exchange = Exchange(model, TopK(), world)
    journey(exchange, model, range(1))
    if world.rank == 1:
        os._exit(0)
    try:
        journey(exchange, model, range(1, 2))
    except RuntimeError as error:
        return str(error)
    return "no error"


def test_a_worker_that_dies_is_an_error_on_the_others(tmp_path: Path) -> None:
    said = in_processes(killed, 2, tmp_path, timeout=20.0)[0]
    assert said.startswith("all_gather on worker 0 of 2: a worker has ended or its connection broke; restart all workers"), said

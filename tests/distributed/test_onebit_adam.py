"""1-bit Adam: its warm-up against Adam's equations, its second phase by hand, and what it sends in each."""

from __future__ import annotations

import torch
from exchangers import backward, network
from torch import Tensor, nn

from thalweg.core.thread_world import ThreadWorld, simulate
from thalweg.core.world import World
from thalweg.distributed import OneBitAdam


def test_the_warm_up_is_adam_without_bias_correction() -> None:
    """Against torch's Adam, whose corrections are taken out: lr_t = lr (1 - b1^t) / sqrt(1 - b2^t) and eps_t = eps / sqrt(1 - b2^t) undo them."""
    def work(world: World) -> None:
        model, oracle = network(), network().double()
        exchange = OneBitAdam(model, world, warmup=50, eps=1e-6)
        opt = torch.optim.Adam(oracle.parameters(), eps=1e-6)
        for t in range(50):
            backward(model, world.rank, t)
            for p, q in zip(model.parameters(), oracle.parameters(), strict=True):
                q.grad = world.all_reduce(p.grad.double()) / world.size
            exchange.reduce()
            correction = (1 - 0.999 ** (t + 1)) ** 0.5
            opt.param_groups[0].update(lr=0.01 * (1 - 0.9 ** (t + 1)) / correction, eps=1e-6 / correction)
            opt.step()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad
        for p, q in zip(model.parameters(), oracle.parameters(), strict=True):
            torch.testing.assert_close(p.double(), q, rtol=1e-4, atol=1e-5)

    simulate(2, work)


def test_the_second_phase_by_hand() -> None:
    model = nn.Linear(2, 1, bias=False)
    exchange = OneBitAdam(model, ThreadWorld(), warmup=1, betas=(0.5, 0.75), eps=1e-8)
    out = []
    for g in ([4.0, -2.0], [6.0, 1.0], [0.0, 0.0]):
        model.weight.grad = torch.tensor([g])
        exchange.reduce()
        out.append(model.weight.grad[0])
    v = torch.tensor([4.0, 1.0])  # a quarter of the first gradient's squares, and it stays
    m = [torch.tensor([2.0, -1.0]), torch.tensor([2.0, 2.0]) * torch.tensor([1.0, 0.0]), None]
    torch.testing.assert_close(out[0], m[0] / v.sqrt())
    # then x = (4, 0): length 2, the sign of the zero is a coin's; e = (2, -+2)
    torch.testing.assert_close(out[1].abs(), torch.tensor([2.0, 2.0]) / v.sqrt())
    # then x = (1, +-1) + (2, -+2) = (3, -+1): length 2
    torch.testing.assert_close(out[2], torch.tensor([2.0, -2.0 * float(out[1][1].sign())]) / v.sqrt())
    assert torch.equal(exchange.memory["weight"]["v"], v)
    torch.testing.assert_close(exchange.feedback.residuals["weight"].abs(), torch.ones(2))


def test_four_bytes_and_then_a_bit_for_each_weight() -> None:
    def work(world: World) -> list[int]:
        model = nn.Linear(100, 10, bias=False)
        exchange, sent = OneBitAdam(model, world, warmup=2), []
        for _ in range(4):
            before = world.sent
            model.weight.grad = torch.ones(10, 100)
            exchange.reduce()
            sent.append(world.sent - before)
        return sent

    assert simulate(2, work)[0] == [4000, 4000, 125 + 20, 125 + 20]  # and a scale, the number of the step and a checksum


def test_every_worker_keeps_the_same_momentum() -> None:
    def work(world: World) -> list[Tensor]:
        model = network()
        exchange = OneBitAdam(model, world, warmup=2)
        for t in range(5):
            backward(model, world.rank, t)
            exchange.reduce()
        return [kept["m"] for kept in exchange.memory.values()]

    first, second = simulate(2, work)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

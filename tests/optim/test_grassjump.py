"""GrassJump: uniform subspaces, moments that follow, and GrassWalk between two jumps; test_grassmann has the step by hand."""

from __future__ import annotations

import torch
from oracles import gradient, weights

import thalweg as tw
from thalweg.optim.grassjump import GrassJump
from thalweg.optim.grassmann import rates
from thalweg.optim.grasswalk import GrassWalk


def run(steps: int, rank: int, shape: tuple[int, int] = (5, 8), every: int = 2) -> list[dict[str, torch.Tensor]]:
    """The states after each step."""
    p = torch.nn.Parameter(weights([shape])[0])
    optimizer = tw.optim.GrassJump([p], lr=0.01, rank=rank, every=every)
    out = []
    for t in range(1, steps + 1):
        p.grad = gradient(t, [p.detach()])[0]
        optimizer.step()
        out.append({name: x.clone() for name, x in optimizer.state[p].items()})
    return out


def test_a_new_subspace_every_k_steps() -> None:
    held = [s["p"] for s in run(5, rank=3)]
    assert [torch.equal(a, b) for a, b in zip(held, held[1:], strict=False)] == [True, False, True, False]
    assert all(torch.allclose(p.mT @ p, torch.eye(3, dtype=p.dtype), atol=1e-12) for p in held)


def test_subspaces_are_uniform() -> None:
    """The projector's mean is r / n I, and its diagonal has the variance of a beta distribution: 2 r (n - r) / (n^2 (n + 2))."""
    held = torch.stack([s["p"] for s in run(600, rank=2, every=1)])
    diagonal = held.square().sum(-1)
    assert (diagonal.mean(0) - 2 / 5).abs().max() < 4 * (2 * 2 * 3 / (25 * 7) / 600) ** 0.5
    assert abs(diagonal.var(0).mean() - 2 * 2 * 3 / (25 * 7)) < 0.01
    overlap = (held[1:].mT @ held[:-1]).square().sum((-2, -1)) / 2
    assert abs(overlap.mean() - 2 / 5) < 4 * (overlap.var() / 600) ** 0.5, "a share of r / short of the moments outlives a jump"


def test_at_full_rank_the_momentum_of_the_weights_outlives_a_jump() -> None:
    p = torch.nn.Parameter(weights([(5, 8)])[0])
    optimizer, grads = tw.optim.GrassJump([p], lr=0.01, rank=5, every=2), []
    for t in range(1, 4):
        p.grad = gradient(t, [p.detach()])[0]
        grads.append(p.grad)
        optimizer.step()
    m = sum(0.1 * 0.9 ** (2 - i) * g for i, g in enumerate(grads))
    assert torch.allclose(optimizer.state[p]["p"] @ optimizer.state[p]["m"], m, atol=1e-12), "P m is the plain average of gradients"


def test_between_jumps_it_is_grasswalk() -> None:
    s, w, g = run(1, rank=3)[0], *(x.unsqueeze(0) for x in weights([(5, 8), (5, 8)]))
    s = {name: s[name].unsqueeze(0) for name in ("p", "m", "v", "length")}
    c = {"t": 2.0, "rare": False, **rates((0.9, 0.999), 2), "normal": g}
    jump, walk = (rule.step(g, w, s, c) for rule in (GrassJump(rank=3), GrassWalk(rank=3)))
    assert torch.equal(jump[0], walk[0]) and all(torch.equal(jump[1][name], walk[1][name]) for name in s)


def test_a_chain_draws_when_its_link_does() -> None:
    ends = []
    for rule in (GrassJump(lr=0.01, rank=3, every=2), tw.optim.chain(tw.optim.ClipByNorm(max_norm=1e9), GrassJump(lr=0.01, rank=3, every=2))):
        p = torch.nn.Parameter(weights([(5, 8)])[0])
        optimizer = rule.optimizer([p])
        for t in range(1, 6):
            p.grad = gradient(t, [p.detach()])[0]
            optimizer.step()
        ends.append(p.detach())
        assert [rule.draws_at(t) for t in (1, 2, 3)] == [True, False, True]
    assert torch.allclose(*ends, rtol=1e-12)

"""GaLore against torch.optim.Adam in the subspace that numpy's SVD gives, and against pytorch_optimizer's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import MATRICES, act, agreement, distance, follow, gradient, peer, weights
from sklearn.utils.extmath import svd_flip

from thalweg.optim.adamw import AdamW
from thalweg.optim.galore import GaLore


class Projected(torch.optim.Optimizer):
    """torch.optim.Adam on P^T g, moved back with P; the gradient's own SVD, every k steps."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float, rank: int, every: int, scale: float) -> None:
        super().__init__(params, {"lr": lr})
        self.rank, self.every, self.scale, self.t = rank, every, scale, 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for p in self.param_groups[0]["params"]:
            right, s = p.shape[0] >= p.shape[1], self.state[p]
            g = p.grad.mT if right else p.grad
            if self.t % self.every == 0:
                u, _, vt = np.linalg.svd(g.numpy(), full_matrices=False)
                s["basis"] = torch.from_numpy(svd_flip(u, vt)[0][:, : self.rank].copy())
            if "low" not in s:
                s["low"] = torch.nn.Parameter(torch.zeros_like(s["basis"].mT @ g))
                s["adam"] = torch.optim.Adam([s["low"]], lr=self.param_groups[0]["lr"], eps=1e-300)
            s["low"].grad, before = s["basis"].mT @ g, s["low"].clone()
            s["adam"].step()
            move = self.scale * s["basis"] @ (s["low"] - before)
            p += move.mT if right else move
        self.t += 1


@pytest.mark.parametrize(("rank", "every"), [(2, 200), (2, 7), (1, 1), (9, 10)])
def test_is_adam_in_the_subspace(rank: int, every: int) -> None:
    rule = GaLore(lr=0.02, rank=rank, every=every, scale=0.5, eps=0.0)
    assert agreement(rule, lambda p: Projected(p, 0.02, rank, every, 0.5), shapes=(*MATRICES, (4, 4))) < 1e-9


def test_follows_the_package_up_to_its_singular_vectors_in_float32() -> None:
    group = {"rank": 2, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
    make = peer("GaLore", lr=0.02)
    assert agreement(GaLore(lr=0.02, rank=2), lambda p: make([{"params": p, **group}]), shapes=MATRICES) < 1e-5


def test_full_rank_is_adamw_in_the_coordinates_of_the_singular_vectors() -> None:
    w, (u, _, _) = weights([(4, 6)]), torch.linalg.svd(gradient(1, weights([(4, 6)]))[0])
    full = follow(GaLore(lr=0.02, scale=1.0, weight_decay=0.1, eps=0.0), w, 20)[0]
    turned = follow(AdamW(lr=0.02, weight_decay=0.1, eps=0.0), [u.mT @ w[0]], 20, grads=lambda t, ws: [u.mT @ gradient(t, [u @ ws[0]])[0]])[0]
    assert distance([full], [u @ turned]) < 1e-10


def test_the_state_is_as_small_as_stated_and_moments_stay_when_the_basis_changes() -> None:
    held = GaLore(rank=8).init(torch.zeros(3, 40, 50))
    assert sum(x[0].numel() for x in held.values()) == 8 * (40 + 2 * 50) < 2 * 40 * 50
    rule, w = GaLore(rank=2, every=1), weights([(4, 6)])[0].unsqueeze(0)
    _, first = act(rule, w, w)
    _, second = act(rule, 0 * w, w, first, t=2)
    assert not torch.allclose(first["p"], second["p"]) and torch.equal(second["m"], 0.9 * first["m"])


def test_a_new_rank_is_refused_and_the_step_has_the_rank() -> None:
    w = weights([(6, 9)])[0].unsqueeze(0)
    d, _ = act(GaLore(rank=3), w, w)
    assert torch.linalg.matrix_rank(d[0]) == 3
    params = [torch.nn.Parameter(w[0].clone())]
    params[0].grad = w[0].clone()
    opt = GaLore(params, rank=3)
    opt.step()
    opt.param_groups[0]["rank"] = 2
    with pytest.raises(ValueError, match=r"GaLore: the changed hyperparameters keep other state \(.* had: p \[1, 6, 3\].*build a new optimizer"):
        opt.step()

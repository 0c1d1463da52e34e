"""Routing: which role each parameter has, which rule takes it, and what a matrix rule then sees."""

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.core.roles import roles
from thalweg.optim import SGD, AdamW, Muon, route


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(3))
        self.attention = nn.MultiheadAttention(8, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.conv = nn.Conv1d(8, 6, 3)
        self.norm = nn.LayerNorm(8)
        self.experts = nn.Parameter(torch.randn(4, 8, 6))
        self.hidden = nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 11, bias=False)


def by_name(model):
    return {found.name: found for found in roles(model)}


def test_roles():
    found = by_name(Net())
    assert {name: entry.role for name, entry in found.items()} == {
        "position": "vectors", "experts": "hidden matrices", "embed.weight": "embeddings", "attention.in_proj_weight": "hidden matrices",
        "attention.in_proj_bias": "biases", "attention.out_proj.weight": "hidden matrices", "attention.out_proj.bias": "biases",
        "depthwise.weight": "depthwise convolutions", "depthwise.bias": "biases", "grouped.weight": "hidden matrices", "grouped.bias": "biases",
        "conv.weight": "hidden matrices", "conv.bias": "biases", "norm.weight": "norms", "norm.bias": "norms", "hidden.weight": "hidden matrices",
        "hidden.bias": "biases", "lm_head.weight": "heads",
    }  # fmt: skip
    assert (found["attention.in_proj_weight"].split, found["grouped.weight"].split, found["grouped.weight"].layout) == (3, 2, "flatten")
    assert found["conv.weight"].layout == "flatten" and "fused query" in found["attention.in_proj_weight"].why


def test_without_a_named_head_the_last_linear_is_it_and_a_tied_weight_is_an_embedding():
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11))
    assert by_name(model)["2.weight"].role == "heads"
    model[2].weight = model[0].weight
    assert "2.weight" not in by_name(model) and by_name(model)["0.weight"].role == "embeddings"


def test_the_plan_is_what_runs():
    model = Net()
    optimizer = route(model, {"embed.*": SGD(lr=0.5), "hidden matrices": Muon(lr=0.02), "rest": AdamW(lr=1e-3)}, backend="eager")
    rules = {name: group["rule"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rules == {entry.role.name: entry.rule for entry in optimizer.plan.entries}
    assert rules["embed.weight"] == "SGD" and rules["hidden.weight"] == "Muon" and rules["lm_head.weight"] == "AdamW"
    text = str(optimizer.plan)
    assert "depthwise convolutions: 8 filters of one channel" in text and text.count("\n") == len(rules)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    torch.testing.assert_close(model.embed.weight, before["embed.weight"] - 0.5)


def test_fused_and_grouped_weights_are_stepped_matrix_by_matrix():
    generator = torch.Generator().manual_seed(0)
    model = Net()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
            p.grad = torch.randn(p.shape, generator=generator)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    route(model, {"hidden matrices": Muon(lr=0.1, ns_compute="native"), "rest": SGD(lr=0.1)}, backend="eager").step()
    for name, parts in (("attention.in_proj_weight", 3), ("grouped.weight", 2), ("experts", 4), ("conv.weight", 1)):
        p = dict(model.named_parameters())[name]
        view = (parts, -1, p.shape[-1]) if name in ("attention.in_proj_weight", "experts") else (parts, p.shape[0] // parts, -1)
        pieces = [nn.Parameter(x.clone()) for x in start[name].reshape(view)]
        for piece, g in zip(pieces, p.grad.reshape(view), strict=True):
            piece.grad = g.clone()
        Muon(pieces, lr=0.1, ns_compute="native", backend="eager").step()
        torch.testing.assert_close(p.detach().reshape(view), torch.stack(pieces).detach(), rtol=1e-5, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="'matrices' is neither a role"):
        route(Net(), {"matrices": Muon(lr=0.1)})
    with pytest.raises(ValueError, match="no rule takes position .* add a key 'vectors' or 'rest'"):
        route(Net(), {"hidden matrices": Muon(lr=0.1)})
    with pytest.raises(ValueError, match="must map to a rule without parameters"):
        route(Net(), {"rest": tw.optim.AdamW(Net().parameters())})
    with pytest.raises(ValueError, match="no trainable parameters"):
        route(nn.ReLU(), {"rest": AdamW()})

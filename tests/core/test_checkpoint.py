"""What a saved optimizer refuses to become: another rule, model, precision or schema. Nothing has changed after a refusal."""

import io

import pytest
import torch

from thalweg.optim import AdamW, ClipByNorm, Lion, chain


def trained(make, *shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    optimizer = make(params)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return optimizer


def adamw(params, **keywords):
    return AdamW(params, lr=0.1, backend="eager", **keywords)


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def snapshot(optimizer):
    return [x.clone() for state in optimizer.state.values() for x in state.values()], [dict(g, params=None) for g in optimizer.param_groups]


REFUSED = {
    "another rule": (lambda: trained(lambda p: Lion(p, lr=0.1), (80, 80)).state_dict(), "holds state of Lion in group 0; this optimizer runs AdamW"),
    "another library": (lambda: trained(lambda p: torch.optim.AdamW(p), (80, 80)).state_dict(), "an optimizer of another library"),
    "another shape": (lambda: trained(adamw, (80, 81)).state_dict(), r"shape \(80, 81\) in the file and \(80, 80\) here"),
    "another number": (lambda: trained(adamw, (80, 80), (3,)).state_dict(), "has 2 parameters and this optimizer 1"),
    "narrower state": (lambda: narrow("bf16"), "bfloat16 in the file and torch.float32 here"),
    "coded state": (lambda: narrow("8bit"), "give it the rule and state_precision of the file"),
    "a newer schema": (lambda: newer(trained(adamw, (80, 80)).state_dict()), "has schema 99 and this version of thalweg reads up to 1"),
    "more groups": (lambda: two_groups().state_dict(), "has 2 parameter groups and this optimizer 1"),
    "a bad value": (lambda: spoiled(trained(adamw, (80, 80)).state_dict()), r"AdamW: eps must be a number >= 0; found -1.0"),
}


def narrow(precision):
    return trained(lambda p: adamw(p, state_precision=precision), (80, 80)).state_dict()


def newer(state_dict):
    state_dict["param_groups"][0]["schema"] = 99
    return state_dict


def spoiled(state_dict):
    state_dict["param_groups"][0]["eps"] = -1.0
    return state_dict


def two_groups():
    one, other = (torch.nn.Parameter(torch.zeros(80, 80)) for _ in range(2))
    return adamw([{"params": [one]}, {"params": [other]}])


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_nothing_changed(case):
    make, message = REFUSED[case]
    optimizer = trained(adamw, (80, 80), seed=1)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(through_a_file(make()))
    after = snapshot(optimizer)
    assert all(map(torch.equal, before[0], after[0])) and before[1] == after[1]


def test_hyperparameters_state_and_names_come_back():
    source = trained(lambda p: chain(ClipByNorm(max_norm=0.5), AdamW(lr=0.3)).optimizer(p), (80, 80), (7,))
    source.param_groups[0]["lr"] = 0.7
    source.step()
    target = chain(ClipByNorm(max_norm=0.5), AdamW(lr=0.3)).optimizer([torch.nn.Parameter(torch.zeros(80, 80)), torch.nn.Parameter(torch.zeros(7))])
    target.load_state_dict(through_a_file(source.state_dict()))
    assert target.param_groups[0]["lr"] == 0.7
    saved, loaded = source.state_dict()["state"], target.state_dict()["state"]
    assert set(saved[0]) == {"step", "adamw.m", "adamw.v"} and int(loaded[0]["step"]) == 3
    assert all(torch.equal(loaded[i][name], saved[i][name]) for i in saved for name in saved[i])


def test_hooks_run_and_may_replace_the_file():
    source, target = trained(adamw, (80, 80)), trained(adamw, (80, 80), seed=1)
    seen = []
    target.register_load_state_dict_pre_hook(lambda _, state_dict: seen.append("before") or state_dict)
    target.register_load_state_dict_post_hook(lambda _: seen.append("after"))
    target.load_state_dict(source.state_dict())
    assert seen == ["before", "after"]

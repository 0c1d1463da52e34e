"""Ranges of hyperparameters: what they accept, how a refusal reads, and which numbers become floats."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.core.checks import accepts, as_number, check, hyper

RANGES = {
    "real": ([-1.0, 0, 2.5], [math.inf, math.nan, "1", None, True]),
    ">= 0": ([0, 0.0, 3.5], [-1e-9, math.inf, math.nan, None, False]),
    "> 0": ([1e-30, 2], [0, 0.0, -1]),
    ">= 1": ([1, 1.5], [0.999]),
    "[0, 1)": ([0, 0.5, 0.999999], [1, 1.0, -0.1]),
    "[0, 1]": ([0, 1], [1.0001, -0.1]),
    "(0, 1)": ([0.5], [0, 1]),
    "(0, 1]": ([1, 0.5], [0, 1.1]),
    "bool": ([True, False], [1, 0, "yes", None]),
    "int >= 0": ([0, 7], [-1, 1.0, True]),
    "int >= 1": ([1, 7], [0, 2.0, None]),
    "int >= 1 or None": ([1, None], [0, "None"]),
    "[0, 1) or None": ([0.5, None], [1.0, "None"]),
    "red | green": (["red", "green"], ["blue", "red | green", None, 1]),
}


@pytest.mark.parametrize("text", RANGES)
def test_ranges(text: str) -> None:
    inside, outside = RANGES[text]
    assert [x for x in inside if not accepts(text, x)] == []
    assert [x for x in outside if accepts(text, x)] == []


def test_a_tensor_with_one_element_counts_as_a_number_and_is_not_read() -> None:
    assert accepts(">= 0", torch.tensor(0.5)) and accepts("[0, 1)", torch.tensor([0.5])) and not accepts(">= 0", torch.ones(2))
    assert accepts(">= 0", torch.empty((), device="meta"))


def test_integers_become_floats_where_a_real_number_is_meant() -> None:
    assert as_number(1, 0.5, ">= 0") == 1.0 and isinstance(as_number(1, 0.5, ">= 0"), float)
    assert as_number([1, 0.5], (0.9, 0.9), "[0, 1]") == (1.0, 0.5)
    assert isinstance(as_number(3, 1, "int >= 1"), int) and as_number(True, False, "bool") is True and as_number(None, None, "[0, 1) or None") is None


@pytest.mark.parametrize(
    ("value", "default", "text", "message"),
    [
        (-1, 0.1, ">= 0", "Lion: lr must be a number >= 0; found -1."),
        (2.0, 0.1, "[0, 1)", "Lion: lr must be in [0, 1); found 2.0."),
        ("a", "b", "b | c", "Lion: lr must be one of b, c; found 'a'."),
        (1, True, "bool", "Lion: lr must be True or False; found 1."),
        (0, 1, "int >= 1", "Lion: lr must be an integer >= 1; found 0."),
        (0, None, "int >= 1 or None", "Lion: lr must be an integer >= 1, or None; found 0."),
        (math.nan, 0.1, "real", "Lion: lr must be a real number; found nan."),
        ((0.5, 1.0), (0.9, 0.9), "[0, 1)", "Lion: lr[1] must be in [0, 1); found 1.0."),
        (0.5, (0.9, 0.9), "[0, 1)", "Lion: lr must hold 2 numbers, each in [0, 1); found 0.5."),
    ],
)
def test_a_refusal_names_the_owner_the_range_and_the_value(value: object, default: object, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check("Lion", "lr", value, default, text)
    assert str(caught.value) == message


def test_hyper_keeps_its_words() -> None:
    field = hyper(0.1, ">= 0", "learning rate")
    assert field.default == 0.1 and dict(field.metadata) == {"range": ">= 0", "meaning": "learning rate"}

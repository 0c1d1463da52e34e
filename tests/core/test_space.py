"""Search spaces: quantiles, edges, wider ranges, and dotted names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core.space import Choice, Linear, Log, OneMinusLog, Space, assign

QUANTILES = st.floats(0, 1)


@given(QUANTILES, QUANTILES)
def test_dimensions_are_monotone_and_stay_inside(u: float, v: float) -> None:
    low, high = sorted((u, v))
    for dim, a, b in ((Log(1e-5, 1e-2), 1e-5, 1e-2), (Linear(-1.0, 3.0), -1.0, 3.0), (OneMinusLog(0.9, 0.999), 0.9, 0.999)):
        assert dim.at(low) <= dim.at(high)
        assert a * (1 - 1e-12) - 1e-12 <= dim.at(low) and dim.at(high) <= b * (1 + 1e-12) + 1e-12


def test_middles() -> None:
    assert Log(1e-4, 1e-2).at(0.5) == pytest.approx(1e-3)
    assert Linear(1.0, 3.0).at(0.25) == pytest.approx(1.5)
    assert OneMinusLog(0.9, 0.999).at(0.5) == pytest.approx(0.99)
    assert [Choice(("a", "b", "c")).at(u) for u in (0.0, 0.34, 0.99, 1.0)] == ["a", "b", "c", "c"]


def test_a_choice_is_uniform() -> None:
    counts = [[Choice((0, 1, 2, 3)).at((i + 0.5) / 400) for i in range(400)].count(k) for k in range(4)]
    assert counts == [100] * 4


@pytest.mark.parametrize(("kind", "low", "high"), [(Log, 0, 1), (Log, 2, 1), (Linear, 1, 1), (OneMinusLog, 0.5, 1.0), (OneMinusLog, 0.0, 0.5)])
def test_bad_ranges(kind: type, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\({low}, {high}\): expected"):
        kind(low, high)


def test_points_extension_and_edges() -> None:
    space = Space({"lr": Log(1e-4, 1e-2), "betas.1": OneMinusLog(0.9, 0.999), "mix": Linear(0.0, 1.0), "norm": Choice(("a", "b"))})
    assert len(space) == 4 and list(space.at([0.5] * 5)) == ["lr", "betas.1", "mix", "norm"]
    with pytest.raises(ValueError, match="The point has 2 coordinates; this space has 4 dimensions"):
        space.at([0.5, 0.5])
    wide = space.extended(10)
    assert wide.at([0, 0, 0, 0])["lr"] == pytest.approx(1e-5) and wide.at([1, 1, 1, 1])["lr"] == pytest.approx(1e-1)
    assert wide.at([0, 0, 0, 0])["betas.1"] == pytest.approx(0.9) and wide.at([1, 1, 1, 1])["mix"] == 1
    assert space.near_edge({"lr": 1.1e-4, "mix": 0.0}) == ["lr"] == space.near_edge({"lr": 9.5e-3})
    assert space.near_edge({"lr": 1e-3}) == [] == space.near_edge({"mix": 1.0})


def test_dotted_names_replace_one_entry() -> None:
    assert assign({"lr": 0.1, "betas": (0.9, 0.999)}, {"lr": 0.5, "betas.1": 0.99}) == {"lr": 0.5, "betas": (0.9, 0.99)}
    assert assign({"betas": (0.9, 0.999)}, {"betas.0": 0.1, "betas.1": 0.2}) == {"betas": (0.1, 0.2)}

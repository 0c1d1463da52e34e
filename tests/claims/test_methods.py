"""Methods that claims make of others can be raced."""

from __future__ import annotations

import pytest

from thalweg.claims import defazio2023_refine
from thalweg.claims.training import final, train


@pytest.mark.parametrize("schedule", defazio2023_refine.LINKS)
def test_a_schedule_is_a_method_that_trains(schedule: str) -> None:
    made = defazio2023_refine.method(schedule)
    assert made.name == f"AdamW with {schedule}" and made.level
    assert 0 < final(train(made, "digits", {"lr": 1e-3}, seed=0, steps=2, batch=16, grid=1)) < 10

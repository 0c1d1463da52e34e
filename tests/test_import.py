"""What an import may pull in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import thalweg

HEAVY = ("torch._dynamo", "torch._inductor", "plotly", "sklearn", "scipy", "jinja2", "typer", "ray")


def loaded_by(line: str) -> set[str]:
    """The modules that are loaded after `line` in a fresh interpreter."""
    code = f"import sys, json; {line}; print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout))


def test_import_is_light() -> None:
    modules = loaded_by("import thalweg")
    assert "thalweg" in modules
    assert modules & {*HEAVY, "torch", "numpy", "thalweg.optim", "thalweg.race"} == set()


def test_first_use_adds_nothing_heavy_to_torch() -> None:
    torch_alone = loaded_by("import torch")
    added = loaded_by("import torch, thalweg as tw; tw.optim.AdamW; tw.wrap.SAM; tw.schedule.WarmupLinear") - torch_alone
    assert "thalweg.optim.adamw" in added
    assert added & set(HEAVY) == set()


@pytest.mark.parametrize("family", ["optim", "wrap", "schedule", "race", "inspect"])
def test_families_are_attributes(family: str) -> None:
    assert family in dir(thalweg)
    assert getattr(thalweg, family).__name__ == f"thalweg.{family}"


def test_unknown_attribute_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'optimizers'; it has .*optim"):
        thalweg.optimizers  # noqa: B018


def test_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert thalweg.__version__ == version("thalweg")

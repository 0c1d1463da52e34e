# Everything starts from Python 3.11 or newer and pip; the rest is installed into .venv, once.
#   make race        set up, then race optimizers on a bundled task: verdicts in the terminal, an HTML report on disk
#   make test        set up, then the whole test suite
#   make check       lint, types, catalogue and documentation
#   make bench       measure speed and memory beside torch and its peers (minutes)
#   make catalogue   make the list of methods anew after a method was added or changed
#   make docs        build the documentation into site/
# Options: PYTHON=python3.12 (which interpreter), PIP_ARGS=... (for pip), RACE=... and PYTEST=... (for the commands).

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_ARGS ?=
RACE ?=
PYTEST ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt

export NO_MKDOCS_2_WARNING := 1

.PHONY: race test check bench docs catalogue setup clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n '2,7s/^# *//p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "thalweg needs Python 3.11 or newer: install it, or say which with make PYTHON=/path/to/python3."; exit 2; }
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv

# A stamp file per set of packages: the installation runs again only when what it depends on has changed.
.venv/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing thalweg and what it needs into .venv (a few minutes the first time) ..."
	@$(INSTALL) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing thalweg with the tools of its developers into .venv (a few minutes the first time) ..."
	@$(INSTALL) -e ".[dev,docs,oracles,ray]"
	@touch $@ .venv/.base

setup: .venv/.dev

race: .venv/.base
	@$(BIN)/thalweg race $(RACE)

test: .venv/.dev
	@command -v chromium >/dev/null || echo "chromium is not on PATH, so the tests that open a report in a browser will fail. Install it first: apt-get install chromium"
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m thalweg.inspect.catalogue --check
	$(BIN)/mkdocs build --strict --quiet

catalogue: .venv/.dev
	@$(BIN)/python -m thalweg.inspect.catalogue --write

bench: .venv/.dev
	@$(BIN)/python bench/import_time.py
	@$(BIN)/python bench/optim_step.py
	@$(BIN)/python bench/wrappers.py
	@$(BIN)/python bench/estimators.py
	@$(BIN)/python bench/aggregation.py
	@$(BIN)/python bench/private.py
	@$(BIN)/python bench/wire.py
	@$(BIN)/python bench/narrow_links.py

docs: .venv/.dev
	@$(BIN)/mkdocs build --strict
	@echo "The documentation is in site/index.html"

clean:
	rm -rf .venv site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

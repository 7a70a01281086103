# Works from a fresh clone with python3 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: help install dev torch full demo test lint format docs bench table table-check clean

help:
	@echo "make demo    plan, train, audit and certify a guarantee on real data; writes runs/demo/report.html"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff and pyright    make docs   build the documentation    make bench   all benchmarks"

$(BIN)/proxyconvex: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(BIN)/proxyconvex
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	@touch $@

# On its own and pinned: no resolver may choose a CUDA build.
$(VENV)/.torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	@touch $@

# Everything the tests use. PyTorch is there already, so nothing asks for another build of it.
$(VENV)/.full: $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --editable ".[torch,lightning,huggingface,optax,tensorboard,dask,certify]"
	@touch $@

install: $(BIN)/proxyconvex

dev: $(VENV)/.dev

torch: $(VENV)/.torch

full: $(VENV)/.full

demo: install
	$(BIN)/proxyconvex audit breast-cancer --family two-layer-ntk --budget 2min --out runs/demo
	$(BIN)/proxyconvex verify runs/demo/certificate.json
	@echo "Open runs/demo/report.html"

test: full
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=25

lint: dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/pyright

format: dev
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

docs: dev
	$(BIN)/mkdocs build --strict --site-dir site

bench: full
	$(BIN)/python benchmarks/run_all.py

# The table of families: `table` repeats the audits (up to an hour), `table-check` compares the documents with the stored results.
table: dev
	$(BIN)/python benchmarks/family_table.py --run --write

table-check:
	$(PYTHON) benchmarks/family_table.py --check

clean:
	rm -rf $(VENV) site runs .pytest_cache .ruff_cache

# `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/pytest -n 2 --dist loadfile   # two processes, each with whole files

.DEFAULT_GOAL := help
.PHONY: help install demo test check nightly bench ui clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED) ## make .venv and install everything, tests included

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED) ## curate 4,050 emoji; prints where the mix and its report are
	$(BIN)/mixwright demo

test: $(INSTALLED) ## the fast tests
	$(PYTEST)

check: $(INSTALLED) ## what CI runs: lint, format, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

nightly: $(INSTALLED) ## the slow tests: killing, two runs at once, browser and cron, a million rows
	$(BIN)/pytest -m nightly --timeout 3600

bench: $(INSTALLED) ## measure; prints ratios to named peers
	for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

ui: $(INSTALLED) ## Prefect server, worker and deployments on this machine; prints the address
	$(BIN)/python -m flows.serving

clean: ## remove .venv and what the demo made
	rm -rf $(VENV) demo

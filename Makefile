# Short names for what the README and .ci/run do; `make setup` first, then activate the environment or use these.
PYTHON ?= python3
BIN = .venv/bin/

.PHONY: setup test test-all lint docs

setup:
	$(PYTHON) -m venv .venv
	$(BIN)pip install -r requirements-dev.txt

test:
	$(BIN)python -m pytest

test-all:
	$(BIN)python -m pytest -m "slow or not slow"

lint:
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)lint-imports

docs:
	$(BIN)python -m src.tools.configuration > docs/configuration.md

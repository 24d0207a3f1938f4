# One environment, few commands. `make demo` and `make test` set up everything they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The part of it that the demo needs.
RUNNABLE := $(VENV)/.runnable
CODE := src tests benchmarks examples docs/conf.py

# Each module is compiled once, also where the environment forbids it: tests and benchmarks start
# thousands of processes.
export PYTHONDONTWRITEBYTECODE :=

SECONDS ?= 600
# An earlier version that `make bench` measures in the same run: a revision, or a folder.
AGAINST ?= 515d903
# Some tests wait: three workers for two cores.
WORKERS := $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2))
PARALLEL := --numprocesses=$(WORKERS) --dist=worksteal
# Suites with processes that measure time or load the machine: the tests of a file run one after
# another, three files at a time, as most of them wait nearly all of their time.
ALONE := tests/attacks tests/bus tests/channels tests/deploy tests/docs/test_proxies.py tests/faults tests/phoenixjs
# Tests with processes of the other suites wait most of the time: as many files at a time.
TOGETHER := -m processes --numprocesses=$(WORKERS) --dist=loadfile $(ALONE:%=--ignore=%)
# Tests that start no processes.
FAST := -m "not processes" $(PARALLEL)
# Those of them that are not marked as slow, with a tenth of the examples and seeds.
QUICK := -m "not processes and not slow" $(PARALLEL)
# Programs that tests start, each with the package of Debian that has it.
PROGRAMS := caddy:caddy chromium:chromium haproxy:haproxy ip:iproute2 nats-server:nats-server nginx:nginx \
    openssl:openssl redis-server:redis-server
# Where programs of the system are, which is not on the path of every user.
SYSTEM := /usr/sbin
# Installs packages of Debian where that is allowed, and fails elsewhere.
APT := test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends

.PHONY: demo test quick check coverage lint format programs interpreters bare bench scale faults compat soak mutants docs clean

demo: $(RUNNABLE)  ## three servers, one room, an address to open
	$(BIN)/adsum demo

test: $(INSTALLED) programs  ## every test, and fast ones on CPython 3.12 and 3.13
	$(BIN)/pytest $(FAST)
	$(BIN)/pytest $(TOGETHER)
	$(BIN)/pytest -m processes --numprocesses=3 --dist=loadfile $(ALONE)
	$(BIN)/python -m tests.interpreters

quick: lint  ## format, lint, types, layers, unit tests, short properties: what you run all day
	TEST_EFFORT=0.1 $(BIN)/pytest -q $(QUICK)

check: lint  ## the same with every test that starts no processes: what you run before a commit
	$(BIN)/pytest -q $(FAST)

coverage: $(INSTALLED)  ## lines and branches that no fast test runs; fails below the floor in pyproject.toml
	$(BIN)/pytest -q $(FAST) --cov --cov-report=term-missing:skip-covered

lint: $(INSTALLED)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(INSTALLED)  ## let the formatter and the linter mend what they can
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

programs:  ## the programs that tests start: installed where that is allowed, else named
	@missing=; for each in $(PROGRAMS); do \
	    PATH="$$PATH:$(SYSTEM)" command -v "$${each%:*}" >/dev/null || missing="$$missing $${each#*:}"; done; \
	test -z "$$missing" || { $(APT) $$missing >/dev/null; } || \
	    echo "Tests will be skipped; for all of them run: sudo apt-get install$$missing"

interpreters: $(INSTALLED)  ## fast tests on CPython 3.12 and 3.13, with usual and with eager tasks
	$(BIN)/python -m tests.interpreters

bare: $(INSTALLED)  ## `make test` on a new Debian with python3, make and git alone; takes root
	@command -v debootstrap >/dev/null || { $(APT) debootstrap >/dev/null; }
	$(BIN)/python -m tests.bare test

bench: $(INSTALLED)  ## figures to the terminal, to benchmarks/results/ and to docs/capacity.md
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
	    matplotlib python-socketio channels channels_redis
	$(BIN)/python -m benchmarks --against $(AGAINST)
	$(BIN)/python -m benchmarks.capacity benchmarks/results/results.json docs

scale: $(INSTALLED)  ## clusters of 10 to 1,000 nodes in virtual time, over a mesh and a carrier; takes about an hour
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.scale_bus

faults: $(INSTALLED)  ## break real processes and networks, and put what was measured into docs/
	TEST_RECORD=docs/measured.json $(BIN)/pytest tests/faults tests/docs/test_failure_model.py
	$(BIN)/python -m tests.faults.table docs/measured.json docs/failure-model.md

compat: $(INSTALLED) programs  ## every client library, server and proxy, and tables of them in docs/
	COMPAT=1 COMPAT_RECORD=docs/compat.json $(BIN)/pytest --timeout=600 tests/docs/test_proxies.py tests/docs/test_supabase_clients.py \
	    tests/phoenixjs/test_families.py tests/deploy/test_server_families.py
	$(BIN)/python -m tests.compat docs/compat.json docs/clients.md docs/servers.md docs/deployment.md

soak: $(INSTALLED)  ## random faults, hostile peers and laws on every core, for about SECONDS
	@failed=0; first=$$(date +%s); \
	for on in network bus; do $(BIN)/python -m adsum.testing --on $$on --first $$first \
	    --seconds $$(($(SECONDS) / 4)) --keep tests/replication/regressions || failed=1; done; \
	$(BIN)/python -m tests.hostile.soak --first $$first --seconds $$(($(SECONDS) / 4)) || failed=1; \
	TEST_EFFORT=$$((($(SECONDS) + 59) / 60)) $(BIN)/pytest -q --timeout=0 -m "not processes" \
	    tests/hostile tests/replication --ignore=tests/replication/test_trials.py || failed=1; \
	exit $$failed

mutants: $(INSTALLED)  ## break the core in many small ways, and see each one caught
	$(BIN)/python -m tests.mutants

docs: $(INSTALLED)  ## the documentation site, in site/; a warning fails
	rm -rf site
	$(BIN)/sphinx-build -q -E -W --keep-going -j auto -d .doctrees -c docs . site

$(INSTALLED): pyproject.toml constraints.txt requirements-dev.txt requirements-interpreters.txt | $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	touch $(RUNNABLE) $@

$(RUNNABLE): pyproject.toml constraints.txt | $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

# Debian's Python comes without venv; where we may, we fetch it, and otherwise say what to do.
$(VENV):
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(APT) python3-venv >/dev/null; } || \
	    { echo "Python's venv is missing; run: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf site .doctrees .venv* .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Every target makes the virtual environment it needs; Python 3.11 or newer and make are all that has to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
SEEDS ?= 1000
SECONDS ?= 300
CHAOS_SECONDS ?= 600
WORKERS ?= 2
REAL_WORKERS ?= 3
SOURCES := __init__.py __main__.py shards coordinator cluster examples tests

.PHONY: demo demo-monitor test check bench scale format lint types layers sim soak chaos clients clean help

help:            ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# The stamp is made again when a dependency changes; `pip install -e` sees new modules without it.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Shoal needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed    ## an embedded cluster followed by shards on Ray: make demo ARGS="--pods 2000 --shards 3"
	$(BIN)/shoal demo $(ARGS)

demo-monitor: $(VENV)/installed    ## an API gateway is monitored: an outage, a relaxed policy, a rollback
	$(BIN)/python -m examples.gateway_monitor demo $(ARGS)

# Two runs, the second also when something in the first failed: tests without Ray, each wherever a worker is idle; then those
# that start real processes, file by file, because a file's tests share an installation, and three files at a time, because they
# wait for much. Where ARGS names files, it is these alone that run, in one process. Status 5: no test was selected, which is
# no failure if the other run had some.
REAL := tests/ray tests/e2e
# What test_chaos does and more, for longer: `make soak`.
LONG := --ignore=tests/e2e/test_soak.py
PURE := tests $(addprefix --ignore=,$(REAL))
SPREAD := --numprocesses $(WORKERS) --dist worksteal
NAMED := $(strip $(foreach word,$(ARGS),$(wildcard $(firstword $(subst ::, ,$(word))))))

test: $(VENV)/installed    ## all tests but the long simulation: make test ARGS="-k watch", make test ARGS=tests/unit
ifeq ($(NAMED),)
	@$(BIN)/pytest $(SPREAD) $(PURE) $(ARGS); pure=$$?; \
	case $$pure in 0|1|5) ;; *) exit $$pure;; esac; \
	$(BIN)/pytest --numprocesses $(REAL_WORKERS) --dist loadfile $(REAL) $(LONG) $(ARGS); real=$$?; \
	test $$real -ne 5 || exit $$pure; \
	test $$pure -ne 5 || exit $$real; \
	exit $$((real > pure ? real : pure))
else
	$(BIN)/pytest $(ARGS)
endif

check: $(VENV)/installed   ## format, lint, types, layers, pure tests, and the simulation over SEEDS seeds
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(MAKE) --no-print-directory types layers
	$(BIN)/pytest -q $(SPREAD) tests/unit tests/property tests/conformance
	$(BIN)/pytest -q $(SPREAD) tests/sim --seeds $(SEEDS)

format: $(VENV)/installed  ## rewrite the sources in the house's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: $(VENV)/installed    ## ruff alone
	$(BIN)/ruff check $(SOURCES)

# mypy cannot follow an editable install of a repository root, so the package gets its name by a link.
types: $(VENV)/installed   ## mypy --strict
	@mkdir -p .typing && ln -sfn .. .typing/shoal
	MYPYPATH=.typing $(BIN)/mypy -p shoal.shards -p shoal.coordinator -p shoal.cluster
	MYPYPATH=.typing:examples $(BIN)/mypy -p gateway_monitor -m controller

layers: $(VENV)/installed  ## import contracts: who may know of whom
	$(BIN)/lint-imports --config .importlinter

sim: $(VENV)/installed     ## the seeded simulation alone: make sim SEEDS=100
	$(BIN)/pytest -q $(SPREAD) tests/sim --seeds $(SEEDS)

soak: $(VENV)/installed    ## real processes under kill -9, watched over HTTP: make soak SECONDS=300
	SHOAL_SOAK_SECONDS=$(SECONDS) $(BIN)/pytest -q tests/e2e/test_soak.py $(ARGS)

chaos: $(VENV)/installed   ## shards on two nodes, everything killed and moved at once: make chaos CHAOS_SECONDS=600
	SHOAL_CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/pytest -q -s tests/e2e/test_chaos.py $(ARGS)

scale: $(VENV)/installed   ## large clusters in virtual time: docs/scale.md; an hour, or a part: make scale ARGS="--sizes 1k"
	$(BIN)/python tests/bench/scale.py $(ARGS)

clients:                   ## what tests/e2e/test_clients.py drives and pip does not bring
	cd tests/e2e/clients && npm install --no-package-lock --no-audit --no-fund

bench: $(VENV)/installed   ## CPU, memory and speed against a replayed API server; one table and JSON
	$(BIN)/python tests/bench/run.py $(ARGS)

clean:           ## everything that was made here
	rm -rf $(VENV) .typing build dist *.egg-info tests/e2e/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

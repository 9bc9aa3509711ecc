# Two commands do everything on a fresh machine: `make reproduce` and `make test`.
# Each creates the virtual environment and installs the pinned versions first.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RESULTS ?= results
# Idle OpenMP threads that spin make parallel processes up to ten times slower.
export OMP_WAIT_POLICY ?= passive

.PHONY: help install reproduce tables test lint fast-test slow bench gpu clean

help:
	@echo "make reproduce   train experiments/quick, print its table, draw its figures (minutes on two cores)"
	@echo "make tables      write every committed table, figure and generated block again, from the archive (a minute)"
	@echo "make test        lint, types, all tests"
	@echo "make fast-test   the tests without the slow ones"
	@echo "make slow        the long tests: other processors, races, frozen services, thousands of flipped bits"
	@echo "make bench       time the norm layers and training steps here (five minutes; needs an idle machine)"
	@echo "make gpu OUT=DIR GPU tests and both benchmarks in a quarter of an hour, without installing anything"
	@echo "make install     virtual environment in $(VENV) with the pinned versions"
	@echo "make clean       remove the virtual environment and caches, keep results"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 13) else f"gbn needs Python 3.11 or 3.12, $(PYTHON) is {v.major}.{v.minor}: call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,dev]"
	@touch $(STAMP)

reproduce: install
	$(BIN)/python -m gbn reproduce experiments/quick --results $(RESULTS)

tables: install
	$(BIN)/python -m gbn results

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

fast-test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow"

slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --long -m long

# A user's processes run with OpenMP's own wait policy, so the benchmarks do too.
bench: install
	@status=0; \
	env -u OMP_WAIT_POLICY $(BIN)/python -m gbn bench norm $(BENCH_NORM) || status=1; \
	env -u OMP_WAIT_POLICY $(BIN)/python -m gbn bench train $(BENCH_TRAIN) || status=1; \
	exit $$status

# Runs wherever torch sees a GPU, with this environment's Python or the machine's own; needs no installation, no network,
# no Hydra.
GPU_PYTHON ?= $(shell test -x $(BIN)/python && echo $(BIN)/python || echo python3)
GPU_SECONDS ?= 840
GPU_PARTS ?= tests norm train

gpu:
	@test -n "$(OUT)" || { echo "make gpu needs a folder for its files: make gpu OUT=DIR" >&2; exit 2; }
	env -u OMP_WAIT_POLICY $(GPU_PYTHON) -m gbn bench gpu --out "$(OUT)" --seconds $(GPU_SECONDS) --parts $(GPU_PARTS)

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache build *.egg-info

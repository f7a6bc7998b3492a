# cellmill: two commands do everything on a clean machine with Python >= 3.11, make and a C++ compiler.
#   make demo     environment -> simulated cells -> store -> training -> report.html   (DATA="a.h5ad b.h5ad": your own files)
#   make test     environment -> style, types, import walls, the whole test suite
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
OUT ?= cellmill-demo
# the first interpreter that runs and is new enough; say make PYTHON=/path/to/python to choose another
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help setup demo test check docs bench peers fuzz clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(VENV)/.built ## make the environment in .venv (the other targets do it themselves)

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "cellmill needs Python 3.11 or newer; found none. Install one, or say: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "[1/4] making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "[2/4] installing torch 2.13.0 (first, so that nothing pulls another build)"
	@$(PIP) torch==2.13.0
	@echo "[3/4] installing the pinned packages of constraints.txt (about a minute)"
	@$(PIP) $$($(BIN)/python scripts/list_requirements.py pyproject.toml)
	@touch $@

$(VENV)/.built: $(VENV)/.installed CMakeLists.txt $(wildcard native/*.cpp native/*.hpp)
	@echo "[4/4] building the kernel and installing cellmill"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation --no-deps -e .
	@$(BIN)/python -c 'from cellmill import kernel; print("      kernel:", kernel.IMPLEMENTATION, kernel.native_error() or "")'
	@touch $@

demo: setup ## from simulated cells (or DATA="a.h5ad b.h5ad") to a trained, evaluated, reported model
	@$(BIN)/cellmill demo --out $(OUT) $(if $(DATA),$(DATA))

test: check ## style, types, import walls and the whole test suite
	@echo "tests"
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: setup
	@echo "style"; $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "types"; $(BIN)/mypy --no-error-summary
	@echo "import walls"; $(BIN)/lint-imports --no-cache | tail -n 1

docs: setup ## write docs/reference anew from the code
	@$(BIN)/python scripts/build_reference.py

bench: setup ## cellmill beside other systems on 200,000 cells (an hour; BENCH="--cells 20000 --repeats 2": minutes)
	@$(BIN)/python benchmarks/store.py $(BENCH)

# a Python that annbatch can use; it needs 3.12
PYTHON312 ?= $(shell for p in python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$p && break; done)

peers: setup ## the systems to compare with, each in an environment of its own: .venv-peers, .venv-annbatch
	@echo "peers: .venv-peers"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip --disable-pip-version-check install -qq torch==2.13.0
	@.venv-peers/bin/pip --disable-pip-version-check install -qq -r benchmarks/requirements.txt
	@.venv-peers/bin/pip --disable-pip-version-check install -qq --no-deps mosaicml-streaming==0.13.0
	@if [ -n "$(PYTHON312)" ]; then echo "peers: .venv-annbatch" && $(PYTHON312) -m venv .venv-annbatch && \
	  .venv-annbatch/bin/pip --disable-pip-version-check install -qq torch==2.13.0 && \
	  .venv-annbatch/bin/pip --disable-pip-version-check install -qq -r benchmarks/requirements-annbatch.txt; \
	else echo "peers: no Python of 3.12 or newer found; annbatch is left out (say make peers PYTHON312=/path/to/python3.12)"; fi

fuzz: setup ## fuzz the decoders with libFuzzer for a minute each (needs clang)
	@native/fuzz/run.sh 60

clean: ## remove the environment and what was built
	rm -rf $(VENV) build

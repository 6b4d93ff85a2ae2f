# Two commands matter: `make demo` (set up + main job) and `make test` (set up + tests). `make help` lists the rest.
# Versions in constraints.txt are the tested ones; setup.cfg has the floors. FAST=1 shows every step of the demo in about 4 minutes.
# On a machine without a GPU, put PyTorch's CPU wheels first (pip's own settings, e.g. PIP_EXTRA_INDEX_URL) to avoid the CUDA build.

PYTHON ?= python3
STARTED := $(shell date +%s)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location
EXTRAS := train,video,documents,medical,eval
export TOKENIZERS_PARALLELISM = false

.PHONY: help demo test check sweep bench lint wheel clean

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

# torch first and alone: a resolver that starts from the others may choose another build of it.
.venv/installed: setup.cfg constraints.txt
	@echo "setting up .venv (about a minute)"
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --constraint constraints.txt --editable ".[$(EXTRAS),dev]"
	@touch $@

demo: .venv/installed  ## build, train in four stages, evaluate, export; writes runs/demo/
	$(BIN)/radio-vlm demo --started $(STARTED) $(if $(FAST),--fast) $(ARGS)

test: .venv/installed-dev  ## every behaviour at small size
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

check: .venv/installed-dev  ## every number at full size; writes runs/check/numbers.json
	$(BIN)/python -m pytest -n 0 -m slow
	$(BIN)/python tests/check/run.py $(ARGS)

sweep: .venv/installed  ## tokens x accuracy x prefill time of every projector; writes runs/sweep/
	$(BIN)/radio-vlm sweep $(ARGS)

bench: .venv/installed-dev  ## scan, loss and packing on this machine, one table
	$(BIN)/python tests/check/bench.py $(ARGS)

lint: .venv/installed-dev  ## ruff
	$(BIN)/ruff check .

wheel: .venv/installed-dev  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:          ## remove what the targets above made
	rm -rf .venv .cache build dist *.egg-info runs

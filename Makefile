# Everything a fresh machine needs: `make demo` and `make test` each set up what is missing, then do their work.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := libero,demonstrations,torch,dev
export OMP_NUM_THREADS ?= 1
export LP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-slow check format bench constraints clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## Create .venv with pinned packages, and install what software rendering needs

$(READY): pyproject.toml constraints.txt tools/system_packages.sh
	bash tools/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/vla-bench doctor
	touch $@

demo: setup  ## Compare acceleration methods on real LIBERO, in minutes: a table and a figure
	$(BIN)/vla-bench run --suite libero-object@1 --policy expert:sighted=True --method full --method action-reuse:2 \
		--method action-reuse:4 --protocol reference-fast --tasks 0 1 2 --episodes 4 --results results/demo
	$(BIN)/vla-bench figure results/demo --out results/demo/success_latency.png results/demo/success_latency.pdf

test: setup  ## Lint, and the tests and notebooks that pass in minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --nbmake -m "not slow and not gpu" tests notebooks

test-slow: setup  ## The tests that take longer: all forty experts, kill -9 on the real simulator
	$(BIN)/python -m pytest -m "slow and not gpu"

check: setup  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup  ## Put the code in its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## What the harness, a chunk and a picture cost here
	$(BIN)/vla-bench floor
	$(BIN)/python benchmarks/chunk_rendering.py
	$(BIN)/python benchmarks/render_profiles.py

constraints: setup  ## Write the installed versions to constraints.txt
	(head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed "s|+cpu$$||") > constraints.new
	mv constraints.new constraints.txt

clean:  ## Remove the environment; results stay
	rm -rf $(VENV)

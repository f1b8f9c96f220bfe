# Everything a fresh machine needs: `make demo` and `make test` each set up what is missing, then do their work.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := libero,demonstrations,robot,torch,quantised,dev
WORKERS ?= $(shell nproc)
PROFILE ?= fast
COLLECT := $(BIN)/vla-bench collect --protocol reference$(if $(filter fast,$(PROFILE)),-fast) --pushes-hz 0.5 --workers $(WORKERS)
DATA := $(foreach suite,object goal spatial 10,demonstrations/libero-$(suite)-$(PROFILE))
WEIGHTS ?= cpu-deep
DEVICE ?= cpu
GATES ?= results/training/gates
SAVINGS ?= 0.03 0.06
LAC = $(BIN)/vla-bench train lac --policy $(WEIGHTS) --device $(DEVICE) --stride 2 --flow-px 64 --data $(filter-out %-10-$(PROFILE),$(DATA))
ABLATION := results/training/ablation
SHORT := $(BIN)/vla-bench train lac --policy cpu-deep --stride 2 --flow-px 64 --half --data $(ABLATION)/libero-object-fast
JOINT := --stage 2 --window 6 --self-made 1 --task-loss distill --saving 0.03 --steps 150
export OMP_NUM_THREADS ?= 1
export LP_NUM_THREADS ?= 1

.PHONY: help setup demo demonstrations reference gates ablation-gates gpu test test-slow check format bench constraints clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY)  ## Create .venv with pinned packages, and install what software rendering needs

$(READY): pyproject.toml constraints.txt tools/system_packages.sh
	bash tools/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/vla-bench doctor
	touch $@

demo: setup  ## Compare acceleration methods on real LIBERO, in minutes: a table and a figure
	$(BIN)/vla-bench run --suite libero-object@1 --policy reference:execute=2,ensemble=True --method full --method lac:bold+refresh:2 \
		--method vla-pruner:0.5 --method fastv:0.5 --method random:0.4 \
		--protocol reference-fast --episodes 1 --results results/demo
	$(BIN)/vla-bench figure results/demo --out results/demo/success_latency.png results/demo/success_latency.pdf

demonstrations: setup  ## Collect what the reference VLA is trained on: four suites (3 h on 2 cores, 0.5 GB; PROFILE=standard: longer)
	for suite in object goal spatial; do $(COLLECT) --suite libero-$$suite@1 --episodes 50 \
		--out demonstrations/libero-$$suite-$(PROFILE) || exit 1; done
	$(COLLECT) --suite libero-10@1 --episodes 30 --tasks 0 1 --out demonstrations/libero-10-$(PROFILE)
	$(COLLECT) --suite libero-10@1 --episodes 20 --out demonstrations/libero-10-$(PROFILE)

reference: demonstrations  ## Train the reference VLA on a CPU (6 h on 2 cores; run it again to go on)
	OMP_NUM_THREADS=$(WORKERS) $(BIN)/vla-bench train reference --preset cpu --data $(DATA) --out results/training/cpu
	OMP_NUM_THREADS=$(WORKERS) $(BIN)/vla-bench train reference --preset cpu-deep --data $(filter-out %-10-$(PROFILE),$(DATA)) \
		--begin results/training/cpu/checkpoint.safetensors --out results/training/deep

gates: demonstrations  ## Train LAC for a policy that looks every second step, at some operating points (WEIGHTS=..., DEVICE=cuda)
	OMP_NUM_THREADS=$(WORKERS) $(LAC) --stage 1 --out $(GATES)/align
	for saving in $(SAVINGS); do OMP_NUM_THREADS=$(WORKERS) $(LAC) --stage 2 --window 6 --self-made 1 --task-loss distill --saving $$saving \
		--begin $(GATES)/align/gates.safetensors --out $(GATES)/saving-$$saving || exit 1; done

ablation-gates: setup  ## Train the gates of LAC's ablations: 200 demonstrations, five gates (75 min on two cores)
	$(COLLECT) --suite libero-object@1 --episodes 20 --out $(ABLATION)/libero-object-fast
	for inputs in "ablation" "ablation-language --language" "ablation-difference --flow difference" "ablation-colours --flow none"; do \
		set -- $$inputs; name=$$1; shift; $(SHORT) --stage 1 $$@ --out $(ABLATION)/$$name-1 || exit 1; \
		$(SHORT) $(JOINT) $$@ --begin $(ABLATION)/$$name-1/gates.safetensors --out $(ABLATION)/$$name || exit 1; done
	$(SHORT) $(JOINT) --out $(ABLATION)/ablation-no-alignment

gpu: demonstrations  ## All that waits for a GPU: the large reference VLA, its gates, its success; a 7B step piece by piece
	$(BIN)/vla-bench train reference --preset gpu --data $(DATA) --out results/training/gpu
	$(MAKE) gates DEVICE=cuda WEIGHTS=results/training/gpu/checkpoint.safetensors GATES=results/training/gpu-gates
	for suite in object spatial goal 10; do $(BIN)/vla-bench run --suite libero-$$suite@1 --episodes 10 --protocol reference-fast \
		--policy reference:results/training/gpu/checkpoint.safetensors,device=cuda --results results/gpu || exit 1; done
	$(BIN)/vla-bench train card --weights results/training/gpu/checkpoint.safetensors --results results/gpu
	$(BIN)/python benchmarks/gpu_steps.py --out results/released/gpu

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
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/partial_forward.py
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/reference_step.py

constraints: setup  ## Write the installed versions to constraints.txt
	(head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed "s|+cpu$$||") > constraints.new
	mv constraints.new constraints.txt

clean:  ## Remove the environment; results stay
	rm -rf $(VENV)

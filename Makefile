# Everything a fresh machine needs: `make demo` and `make test` each set up what is missing, then do their work.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := libero,demonstrations,robot,torch,quantised,dev
WORKERS ?= $(shell nproc)
TEST_WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 4 ? cores : 4)))
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
GPU_PACK ?= results/gpu-pack
GPU_OUT ?= results/released/gpu
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
GPU_PYTHON_VERSION ?= 3.12
GPU_DEVICE ?= cuda
GPU_WHEELS := gymnasium farama-notifications tyro docstring-parser typeguard websockets
export OMP_NUM_THREADS ?= 1
export LP_NUM_THREADS ?= 1

.PHONY: help setup demo demonstrations reference gates ablation-gates gpu-pack gpu gpu-success test test-slow check format bench constraints clean

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

# A lent GPU often comes for half an hour, without a network and without a simulator, and takes some 60 MB along (docs/gpu.md
# says what may stay at home). So what it needs is made before (gpu-pack), and what needs a simulator is played afterwards (gpu-success).
gpu-pack: setup  ## Before there is a GPU: demonstrations and wheels for `make gpu`, under 20 MB (1 h on 2 cores)
	$(COLLECT) --suite libero-object@1 --episodes 10 --tasks 0 1 2 3 4 --out $(GPU_PACK)/libero-object-fast
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version $(GPU_PYTHON_VERSION) \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		--constraint constraints.txt --dest $(GPU_PACK)/wheels $(GPU_WHEELS)
	du -sh $(GPU_PACK)

gpu:  ## All that waits for a GPU, in at most 25 minutes of it, into results/released/gpu; needs gpu-pack, but no network
	$(GPU_PYTHON) benchmarks/gpu_session.py --pack $(GPU_PACK) --out $(GPU_OUT) --device $(GPU_DEVICE) $(GPU_OPTIONS)

gpu-success: setup  ## The same methods and budgets in the loop, without a GPU, and the table of `make gpu` once more (hours)
	$(BIN)/vla-bench run --suite libero-object@1 --policy reference:execute=2,ensemble=True --protocol reference-fast --no-timed \
		--episodes 1 --workers $(WORKERS) $$($(BIN)/python benchmarks/gpu_reference.py --methods) --results results/gpu-play
	$(BIN)/python benchmarks/gpu_reference.py --out $(GPU_OUT) --success results/gpu-play

test: setup  ## Lint, and the tests and notebooks that pass in minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --nbmake -m "not slow and not gpu" tests notebooks

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

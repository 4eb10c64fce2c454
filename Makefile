# MiniCLIP. `make` without a target lists the targets.
# Variables: DATA= CONFIG= RUN= RESUME=1 BUNDLE= IMAGES= SPLIT= PORT= SHARE=1 AUTH=user:password
#            (EXTRA=gpu for an NVIDIA GPU, LOCKED=1 for exactly the versions of requirements.lock; a .venv keeps its EXTRA until another one is named)

PYTHON ?= python3
VENV   ?= .venv
EXTRA  ?= $(or $(patsubst $(VENV)/.extra-%,%,$(wildcard $(VENV)/.extra-*)),cpu)
PORT   ?= 7860
CONFIG ?= configs/setup1.toml
RUN    ?= runs/$(basename $(notdir $(CONFIG)))
BUNDLE ?= models/miniclip-s
IMAGES ?= openmoji
SPLIT  ?= test
JOBS   ?= 2
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet install
UV     := $(VENV)/bin/uv pip compile pyproject.toml - --extra cpu --extra demo --extra train --extra dev \
          --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" --upgrade --quiet

.DEFAULT_GOAL := help
.PHONY: data-given help setup lock train export benchmark demo space test test-e2e test-slow gpu-check wheel lint clean

help: ## show this list
	@echo "MiniCLIP: train small CLIP-style models, export them to ONNX, search images"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: DATA= CONFIG= RUN= RESUME=1 BUNDLE= IMAGES= SPLIT= PORT= SHARE=1 AUTH=user:password EXTRA=gpu LOCKED=1 PYTHON="

setup: $(VENV)/$(if $(LOCKED),.locked,.dev) ## install everything into .venv [LOCKED=1: exactly what requirements.lock names]

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -f $(PY); echo "error: no virtual environment could be made; see above" >&2; exit 2; }

# onnxruntime and onnxruntime-gpu overwrite each other's files: a change from one to the other removes both
$(VENV)/.extra-$(EXTRA): $(PY)
	@$(if $(wildcard $(VENV)/.extra-*),$(PY) -m pip --quiet uninstall --yes onnxruntime onnxruntime-gpu)
	@rm -f $(VENV)/.extra-*
	@touch $@

# every install with EXTRA=gpu installs both packages, and only the one installed last works
GPU_RUNTIME := "onnxruntime-gpu[cuda,cudnn]>=1.30"
GPU_LAST = $(if $(filter gpu,$(EXTRA)),@$(PY) -m pip --quiet uninstall --yes onnxruntime onnxruntime-gpu \
  && $(PIP) $(GPU_RUNTIME))

$(VENV)/.serve: $(VENV)/.extra-$(EXTRA) pyproject.toml
	@echo "installing what serving needs (once)"
	@$(PIP) -e ".[$(EXTRA),demo]"
	$(GPU_LAST)
	@touch $@

$(VENV)/.train: $(VENV)/.serve
	@echo "installing what training needs (once; PyTorch is large)"
	@$(PIP) -e ".[$(EXTRA),demo,train]"
	$(GPU_LAST)
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@echo "installing what tests need (once)"
	@$(PIP) -e ".[$(EXTRA),demo,train,dev]"
	$(GPU_LAST)
	@touch $@

$(VENV)/.slow: $(VENV)/.dev
	@echo "installing what a cluster, UMAP and OCR need (once; Ray is large)"
	@$(PIP) -e ".[$(EXTRA),demo,train,dev,ray,map,ocr]"
	$(GPU_LAST)
	@touch $@

# pip compares every file with its hash, including files for building packages
define install-locked
	@test "$(EXTRA)" = cpu || { echo "error: $(1) is for EXTRA=cpu; leave out LOCKED=1 or EXTRA=$(EXTRA)" >&2; exit 2; }
	@echo "installing exactly what $(1) names (once; PyTorch is large)"
	@$(PIP) --require-hashes -r $(1)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(VENV)/.extra-$(EXTRA) $(VENV)/.serve $(VENV)/.train $(VENV)/.dev $@
endef

$(VENV)/.locked: $(VENV)/.extra-$(EXTRA) requirements.lock pyproject.toml
	$(call install-locked,requirements.lock)

$(VENV)/.locked-slow: $(VENV)/.extra-$(EXTRA) requirements-slow.lock pyproject.toml
	$(call install-locked,requirements-slow.lock)

lock: $(PY) ## update requirements.lock and requirements-slow.lock to the newest versions, with hashes
	@$(PIP) "uv>=0.9"
	@echo 'setuptools>=77' | $(UV) --output-file requirements.lock
	@echo 'setuptools>=77' | $(UV) --extra ray -c requirements.lock --output-file requirements-slow.lock

data-given: # checked before anything is installed
	@test -n "$(DATA)" || { echo "error: name the captions: make $(MAKECMDGOALS) DATA=PATH" >&2; exit 2; }

# for messages: the variable of each flag
train: export MINICLIP_FLAGS = --config=CONFIG= --data=DATA= --out=RUN= --resume=RESUME=1
export: export MINICLIP_FLAGS = --run=RUN= --out=BUNDLE=
benchmark: export MINICLIP_FLAGS = --run=RUN= --bundle=BUNDLE= --data=DATA= --split=SPLIT=
demo: export MINICLIP_FLAGS = --bundle=BUNDLE= --images=IMAGES= --port=PORT= --share=SHARE=1 --auth=AUTH=
space: export MINICLIP_FLAGS = --bundle=BUNDLE= --images=IMAGES= --out=OUT=

train: data-given $(VENV)/.train ## train: make train DATA=captions [CONFIG=configs/setup1.toml] [RUN=runs/NAME] [RESUME=1]
	@$(PY) -m train --config "$(CONFIG)" --data "$(DATA)" --out "$(RUN)" $(if $(RESUME),--resume)

# by default, do not replace the released bundle
benchmark export: BUNDLE = bundles/$(notdir $(RUN))

export: $(VENV)/.train ## turn a run into an ONNX bundle: make export RUN=runs/NAME [BUNDLE=bundles/NAME] [DATA=captions]
	@$(PY) -m export --run "$(RUN)" --out "$(BUNDLE)" $(if $(DATA),--data "$(DATA)")

benchmark: data-given $(VENV)/.train ## parity and speed of a bundle: make benchmark RUN= BUNDLE= DATA= [SPLIT=test]
	@$(PY) -m export.benchmark --run "$(RUN)" --bundle "$(BUNDLE)" --data "$(DATA)" --split $(SPLIT) \
	  --json "$(BUNDLE).benchmark.json"

demo: $(VENV)/.serve ## open the search page: make demo [IMAGES=~/Pictures] [SHARE=1]
	@$(PY) -m demo --bundle "$(BUNDLE)" --images "$(IMAGES)" --port $(PORT) \
	  $(if $(SHARE),--share) $(if $(AUTH),--auth "$(AUTH)") $(DEMO_FLAGS)

space: $(VENV)/.serve ## write a Hugging Face Space: make space OUT=folder [IMAGES=~/Pictures]
	@test -n "$(OUT)" || { echo "error: name a new folder, as in: make space OUT=space" >&2; exit 2; }
	@$(PY) -m demo.space --bundle "$(BUNDLE)" --images "$(IMAGES)" --out "$(OUT)"

test: $(VENV)/.dev ## install and run the quick tests [JOBS=2 at a time]
	@$(PY) -m pytest -q -n $(JOBS) --dist worksteal

test-e2e: $(VENV)/.dev ## browser, real processes, full disks, notebook, npm, all architectures [JOBS=2 at a time]
	@HYPOTHESIS_PROFILE=thorough $(PY) -m pytest -q -n $(JOBS) --dist loadscope -m "e2e or (hypothesis and not slow)"

test-slow: $(VENV)/$(if $(LOCKED),.locked-slow,.slow) ## fuzzing, kills, load, a cluster, UMAP, OCR (installs more than 1 GB)
	@$(PY) -m pytest -q -n $(JOBS) --dist loadfile -m slow

gpu-check: $(VENV)/.train ## train, export and search on the GPU and the CPU, and compare [JSON=FILE]
	@$(PY) -m benchmarks.gpu $(if $(JSON),--json "$(JSON)")

wheel: $(PY) ## build the wheel and the source archive into dist/
	@$(PIP) "build>=1.2"
	@rm -rf build miniclip.egg-info
	@$(PY) -m build --outdir dist . >/dev/null
	@ls dist

lint: $(VENV)/.dev ## formatting, lint, types and layers
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache

clean: ## remove the caches of lint and tests; runs, bundles and indexes stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache

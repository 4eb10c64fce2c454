# MiniCLIP. `make` alone prints what there is.
# Variables: DATA= CONFIG= RUN= BUNDLE= IMAGES= PORT= SHARE=1 AUTH=user:password  (EXTRA=gpu for an NVIDIA GPU)

PYTHON ?= python3
VENV   ?= .venv
EXTRA  ?= cpu
PORT   ?= 7860
CONFIG ?= configs/setup1.toml
RUN    ?= runs/$(basename $(notdir $(CONFIG)))
BUNDLE ?= models/miniclip-s
IMAGES ?= openmoji
SPLIT  ?= test
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: data-given help setup train export benchmark demo test test-slow lint clean

help: ## show this list
	@echo "MiniCLIP: train small CLIP-style models, export them to ONNX, search pictures"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: DATA= CONFIG= RUN= BUNDLE= IMAGES= PORT= SHARE=1 AUTH=user:password EXTRA=gpu"

setup: $(VENV)/.dev ## install everything into .venv

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(PY) pyproject.toml
	@echo "installing what serving needs (once)"
	@$(PIP) -e ".[$(EXTRA),demo]"
	@touch $@

$(VENV)/.train: $(VENV)/.serve
	@echo "installing what training needs (once; PyTorch is large)"
	@$(PIP) -e ".[$(EXTRA),demo,train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@echo "installing what tests need (once)"
	@$(PIP) -e ".[$(EXTRA),demo,train,dev]"
	@touch $@

$(VENV)/.slow: $(VENV)/.dev
	@echo "installing what a cluster and UMAP need (once; Ray is large)"
	@$(PIP) -e ".[$(EXTRA),demo,train,dev,ray,heic,map]"
	@touch $@

data-given: # before anything is installed
	@test -n "$(DATA)" || { echo "error: say which captions: make $(MAKECMDGOALS) DATA=PATH" >&2; exit 2; }

train: data-given $(VENV)/.train ## train: make train DATA=captions [CONFIG=configs/setup1.toml] [RUN=runs/NAME]
	@$(PY) -m train --config "$(CONFIG)" --data "$(DATA)" --out "$(RUN)"

# the released bundle is replaced only when it is named
benchmark export: BUNDLE = bundles/$(notdir $(RUN))

export: $(VENV)/.train ## turn a run into an ONNX bundle: make export RUN=runs/NAME [BUNDLE=bundles/NAME]
	@$(PY) -m export --run "$(RUN)" --out "$(BUNDLE)"

benchmark: data-given $(VENV)/.train ## parity and speed of a bundle: make benchmark RUN= BUNDLE= DATA= [SPLIT=test]
	@$(PY) -m export.benchmark --run "$(RUN)" --bundle "$(BUNDLE)" --data "$(DATA)" --split $(SPLIT) \
	  --json "$(BUNDLE).benchmark.json"

demo: $(VENV)/.serve ## open the search page: make demo [IMAGES=~/Pictures] [SHARE=1]
	@$(PY) -m demo --bundle "$(BUNDLE)" --images "$(IMAGES)" --port $(PORT) \
	  $(if $(SHARE),--share) $(if $(AUTH),--auth "$(AUTH)") $(DEMO_FLAGS)

test: $(VENV)/.dev ## install and pass all tests
	@$(PY) -m pytest -q

test-slow: $(VENV)/.slow ## tests on a Ray cluster of several nodes, and of UMAP (installs more than 1 GB)
	@$(PY) -m pytest -q -m slow

lint: $(VENV)/.dev ## formatting, lint and types
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

clean: ## remove caches; runs, bundles and indexes stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache

# The two commands of a new user are `make run` and `make test`; both set up what they need in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/uv/bin/uv
SAMPLE ?= out/sample
SEED ?= 0
RUN_SETTINGS ?=
PYTEST ?=
BENCH_WORK ?= out/bench
BENCH_SIDE ?= 32768
BENCH_OPTIONS ?=

# uv takes pip's index and certificate where pip was given one.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
export UV_HTTP_TIMEOUT ?= 180

##@ Use
.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: $(VENV)/.runtime $(SAMPLE)/cohort/manifest.csv ## Build the sample cohort, run the whole pipeline on it, say where the report is
	$(BIN)/bagline run $(SAMPLE)/cohort/manifest.csv --images-root $(SAMPLE)/cohort --out $(SAMPLE)/run \
	  --config pipelines/configs/sample.yaml $(RUN_SETTINGS)
	@printf '\nThe report is here: %s\n' '$(SAMPLE)/run/report/index.html'

$(SAMPLE)/cohort/manifest.csv: components/sample_cohort/build.py components/sample_cohort/slide.py \
    components/sample_cohort/texture.py | $(VENV)/.runtime
	$(BIN)/python -m components.sample_cohort.build --out $(SAMPLE)/cohort --seed $(SEED)

##@ Develop
.PHONY: test
test: $(VENV)/.dev ## All tests; PYTEST='tests/e2e -x' for some
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST)

.PHONY: test-distributed
test-distributed: $(VENV)/.dev ## Flink and Spark, run for real; says why where Java or the jars can't be had
	$(BIN)/python -m pytest tests/distributed -m distributed -rs $(PYTEST)

.PHONY: test-containers
test-containers: $(VENV)/.dev images ## The whole pipeline in containers, each task in its own image
	$(BIN)/python -m pytest -m containers tests/containers $(PYTEST)

.PHONY: lint
lint: $(VENV)/.dev ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(VENV)/.dev ## The benchmarks, with their figures; slides of BENCH_SIDE px are made in BENCH_WORK
	$(BIN)/python tests/benchmarks/bench_split.py
	$(BIN)/python tests/benchmarks/bench_blocks.py --work $(BENCH_WORK) --side $(BENCH_SIDE)
	$(BIN)/python tests/benchmarks/bench_tiling.py --work $(BENCH_WORK) --side $(BENCH_SIDE) $(BENCH_OPTIONS)

MIL_DATA ?= ../shared/data/mil
.PHONY: bench-mil
bench-mil: $(VENV)/.dev ## The heads on the classic MIL sets; BENCH_OPTIONS='--mnist', '--speed', '--memory' for the others
	$(BIN)/python tests/benchmarks/bench_mil.py --data $(MIL_DATA) --work $(BENCH_WORK) $(BENCH_OPTIONS)

##@ Build
PIPELINES := whole-slide tile-classifier batch-predict cross-validate
.PHONY: compile
compile: $(VENV)/.runtime ## Compile the pipelines to build/, and hold every config against them
	$(BIN)/bagline check
	for pipeline in $(PIPELINES); do \
	  $(BIN)/bagline compile --pipeline $$pipeline --to build/$$pipeline.json \
	    $$(if [ -f images.json ]; then echo --images images.json --allow-tags; else echo --allow-tags; fi); done

# Those that tasks name, and the viewer's, which no pipeline does.
IMAGES := pipeline tiling training viewer
export BASE_IMAGE ?= python:3.11-slim
.PHONY: images
images: ## Build the container images with docker or podman, write images.json; REGISTRY=HOST/PROJECT/REPOSITORY pushes
	@containers/build/images.sh images.json $(IMAGES)

.PHONY: build/wheel
build/wheel: $(VENV)/.dev # the wheel alone in build/wheel/
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .

# Universal for 3.11 and 3.12; pins that still fit stay. `make lock UPGRADE=--upgrade` moves them.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links $(UPGRADE)
UPGRADE ?=
.PHONY: lock
lock: $(UV) ## Write the lock files again from pyproject.toml and containers/*/requirements.in
	$(COMPILE) pyproject.toml --group dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml -c requirements-dev.lock -o requirements.lock
	for name in build/requirements $(IMAGES:%=%/requirements) training/requirements-gpu; do \
	  $(COMPILE) containers/$$name.in -c requirements-dev.lock -o containers/$$name.lock; done

.PHONY: clean
clean: ## Remove what make made, the environment too
	rm -rf $(VENV) build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find components pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A stamp is newer than what it was made from, so a second call does nothing.
$(BIN)/python:
	@for name in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if "$$name" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; \
	  then "$$name" -m venv $(VENV) && exit 0; fi; done; \
	echo 'bagline needs Python 3.11 or 3.12 with venv: none was found; give one as PYTHON=/path/to/python3.11' >&2; exit 2

# uv installs the locked packages several times faster than pip; where it can't be had, pip does it.
$(UV): .ci/uv.txt | $(BIN)/python
	@rm -rf $(VENV)/uv && mkdir -p $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --require-hashes \
	  --target $(VENV)/uv -r $< \
	  || echo 'uv could not be installed: pip takes its place, which is slower' >&2
	@touch $@

define sync
	@if [ -x $(UV) ]; then \
	  $(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python $(1) && \
	  $(UV) pip install --quiet --no-deps --python $(BIN)/python --editable .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	fi
endef

$(VENV)/.runtime: requirements.lock pyproject.toml | $(UV)
	@echo 'Installing the locked packages into $(VENV); this takes a minute.'
	@rm -f $(VENV)/.dev
	$(call sync,requirements.lock)
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml | $(UV)
	@echo 'Installing the locked packages and the tools into $(VENV); this takes a minute.'
	$(call sync,requirements-dev.lock)
	@touch $(VENV)/.runtime $@

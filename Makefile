# `make demo` and `make test` work from a fresh clone; everything they make is in .venv, .demo, .models and .run.
PYTHON ?= python3
BUILD  := $(if $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null),gpu,cpu)
TORCH  := torch==2.13.0+cpu
PY     := .venv/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
STAMP  := .venv/.installed-$(BUILD)

.PHONY: help install demo test check lock clean

help:            ## what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/'

install: $(STAMP) ## .venv with the pinned packages: CUDA build where nvidia-smi answers, CPU build otherwise

demo: $(STAMP)   ## build the demo stack, serve it, ask it (ONCE=1: stop after the samples)
	$(PY) -m demo up $(if $(ONCE),--once)

test: $(STAMP)   ## the whole suite, real vLLM and a real browser included
	$(PY) -m pytest

check: $(STAMP)  ## format, lint, strict types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

$(STAMP): requirements/$(BUILD).txt vllm_plugin/pyproject.toml
	@echo "[1/4] .venv ($(BUILD) build of vLLM)"
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade pip
ifeq ($(BUILD),cpu)
	@echo "[2/4] $(TORCH), from the configured index or else from PyTorch's own"
	$(PIP) install --no-compile --no-deps "$(TORCH)" || $(PIP) install --no-compile --no-deps --index-url https://download.pytorch.org/whl/cpu "$(TORCH)"
endif
	@echo "[3/4] $$(grep -c == $<) packages of $<: minutes, and 3.5 GB (CPU) or more (CUDA)"
	$(PIP) install --no-compile --no-deps --progress-bar off -r $<
	$(PIP) install --quiet --no-deps --no-build-isolation -e ./vllm_plugin
	@echo "[4/4] bytecode, on all cores (pip compiles on one)"
	@$(PY) -W ignore -m compileall -q -j 0 .venv/lib >/dev/null || true  # packages have templates, too, that are no Python
	@touch $@

# Locks for Linux x86-64 and Python 3.11 to 3.13. The CPU lock leaves torch out (see TORCH above).
UV    := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate pyproject.toml
SHORT := sed -i -E "s/ ?and platform_machine == 'x86_64' and sys_platform == 'linux'//; s/ ; python_full_version < '3.14'$$//"
lock: $(STAMP)   ## resolve requirements/*.txt again from pyproject.toml
	$(PIP) install --quiet uv
	echo "torch; sys_platform == 'never'" > .venv/no-torch.txt
	$(UV) --group cpu --group dev --override .venv/no-torch.txt --output-file requirements/cpu.txt
	$(UV) --group gpu --group dev --output-file requirements/gpu.txt
	$(SHORT) requirements/cpu.txt requirements/gpu.txt

clean:           ## remove what demo and test made (.venv stays)
	rm -rf .demo .models .run .pytest_cache .mypy_cache .ruff_cache

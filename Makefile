# sdviz: `make app` and `make test` are enough on a fresh machine with Python 3.11 or newer.
# PYTHON is tried word by word; the first that is new enough makes .venv: make app PYTHON=python3.12
# ARGS goes to the program: make app ARGS="--server.port 8600", make test ARGS="-x -k samplers"

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11 python
ARGS ?=

PY := .venv/bin/python
# one process a core, at most four, each with one thread; ARGS="-n 0" keeps everything in one
QUICK := OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not browser"
# where rounding differs between processors; compiled training is slow, and compares two ways on one processor
NUMBERS := $(addprefix tests/unit/,nn diffusion scan detection baselines projection pipeline outliers) \
	--deselect tests/unit/diffusion/test_training.py::test_compiled
IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

.DEFAULT_GOAL := help
.PHONY: help app test test-avx2 test-slow test-all lint format bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

app: .venv/.app-installed  ## install what the app needs, then start it in the browser
	@$(PY) -m streamlit run app.py $(ARGS)

test: .venv/.dev-installed  ## install what the tests need, then run the quick ones
	@$(QUICK) $(ARGS)

test-avx2: .venv/.dev-installed  ## the quick tests that are full of numbers, as on a processor with AVX2 alone
	@ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(QUICK) $(NUMBERS) $(ARGS)

test-slow: .venv/.dev-installed  ## the tests that `make test` leaves out
	@$(PY) -m pytest -m "slow or browser" $(ARGS)

test-all: .venv/.dev-installed  ## every test; the browser's are skipped where there is no Chromium
	@$(PY) -m pytest $(ARGS)

lint: .venv/.dev-installed  ## ruff's checks and format, and mypy on the package
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: .venv/.dev-installed  ## let ruff put the code in order
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: .venv/.app-installed  ## the speed of this machine against named peers; ARGS="knn" takes one
	@PYTHONPATH=. $(PY) -m sdviz bench $(ARGS)

clean:  ## remove .venv and the tools' caches; runs, data and checkpoints stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache

# The stamps are written last, so an install that was cut off is taken up again by the next call.
.venv/.app-installed: requirements.txt | .venv/.made
	@echo "Installing requirements.txt into .venv (the first time takes minutes)"
	@$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.dev-installed: requirements.txt requirements-dev.txt | .venv/.made
	@echo "Installing requirements-dev.txt into .venv (the first time takes minutes)"
	@$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch .venv/.app-installed $@

# A .venv that is there already, with a pip, is used as it is.
.venv/.made:
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON); do \
	    if "$$python" $(IS_NEW_ENOUGH) 2>/dev/null; then \
	      echo "Making .venv with $$("$$python" --version)"; "$$python" -m venv .venv || exit 1; break; \
	    fi; \
	  done; \
	fi
	@if [ ! -x $(PY) ]; then \
	  echo "sdviz needs Python 3.11 or newer: name one, as in 'make app PYTHON=/path/to/python3.12'" >&2; exit 1; \
	elif ! $(PY) $(IS_NEW_ENOUGH); then \
	  echo "sdviz needs Python 3.11 or newer, .venv holds $$($(PY) --version): 'make clean' removes it" >&2; exit 1; \
	fi
	@touch $@

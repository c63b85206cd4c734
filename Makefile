# Two commands from a fresh clone, with nothing but Python 3.11 and make:
#   make demo   gives a trained policy early exits, and draws what compute buys (runs/demo)
#   make test   the whole suite
# Also: make lint, make format, make bench, make clean; make test-gymnasium, with older versions of it, and
# make test-integrations, with every foreign library.

VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
DEMO_DIR ?= runs/demo
GYMNASIUMS := 1.0.0 1.2.2
GYMNASIUM_TESTS := tests/wrappers tests/contracts tests/agents/test_dqn.py tests/agents/test_hindsight.py tests/agents/test_resume.py
INTEGRATIONS_VENV ?= .venv-integrations
# The libraries of budget_wrappers/integrations, as extras of setup.cfg; they are gigabytes, and so not in $(VENV).
INTEGRATIONS := sb3,sb3-contrib,minigrid,minatar,array-api,tianshou,skrl,torchrl,d3rlpy,ray

# The first interpreter that is new enough and can make a virtual environment; 3.11 first, as the pins were run on it.
FIND_PYTHON = for python in python3.11 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done
PYTHON ?= $(shell $(FIND_PYTHON))

PIP_ARGUMENTS = -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
PIP_INSTALL = $(BIN)/python $(PIP_ARGUMENTS)
PINS := setup.cfg pyproject.toml constraints.txt

# Small networks run fastest on one thread each; rendering needs no display.
export OMP_NUM_THREADS ?= 1
export MUJOCO_GL ?= egl

.DEFAULT_GOAL := help
.PHONY: help demo test test-gymnasium test-integrations lint format bench wheel clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

# Stamps: reinstalled when the pins change, and only then.
$(VENV)/.installed-core: $(PINS)
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv found; say which one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/pip || { echo "Creating $(VENV)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "Installing pinned versions (about a minute)"
	@$(PIP_INSTALL) -e .
	@touch $@

# MinAtar comes without its dependencies: the games need NumPy only, pandas and seaborn are 80 MB.
$(VENV)/.installed-dev: $(VENV)/.installed-core
	@echo "Installing what the tests need"
	@$(PIP_INSTALL) -e '.[dev,sb3,box2d,minari,onnx,pettingzoo]'
	@$(PIP_INSTALL) --no-deps MinAtar
	@touch $@

demo: $(VENV)/.installed-core
	$(BIN)/budget tradeoff --preset demo --folder $(DEMO_DIR)

# --benchmark-disable: parallel workers cannot time anything. Each worker gets long runs of neighbouring tests, and
# steals when idle, so that shared fixtures are rarely built twice.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --benchmark-disable --durations 15 $(ARGS)

# What touches Gymnasium, with the oldest version that setup.cfg allows and one in between; make test has the newest.
# Each lies in a folder of its own that comes before the one installed.
test-gymnasium: $(VENV)/.installed-dev
	@set -e; for version in $(GYMNASIUMS); do \
		folder=$(CURDIR)/$(VENV)/gymnasium-$$version; export PYTHONPATH=$$folder; \
		test -d $$folder || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
			--target $$folder gymnasium==$$version; \
		$(BIN)/python -c "import gymnasium; print('Gymnasium', v := gymnasium.__version__); assert v == '$$version'"; \
		$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --benchmark-disable $(GYMNASIUM_TESTS) $(ARGS); \
	done

$(INTEGRATIONS_VENV)/.installed: $(PINS)
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv found; say which one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(INTEGRATIONS_VENV)/bin/pip || "$(PYTHON)" -m venv $(INTEGRATIONS_VENV)
	@echo "Installing the foreign libraries (a few minutes)"
	@$(INTEGRATIONS_VENV)/bin/python $(PIP_ARGUMENTS) -e '.[dev,$(INTEGRATIONS)]'
	@touch $@

# In one process: several of these libraries start threads and servers of their own.
test-integrations: $(INTEGRATIONS_VENV)/.installed
	$(INTEGRATIONS_VENV)/bin/python -m pytest -q -n 0 --durations 15 tests/integrations tests/test_examples.py $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Overheads, each beside the peer that it is compared with.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest benchmarks/micro --benchmark-group-by=group --benchmark-columns=min,median,iqr,rounds $(ARGS)

# build/ is removed first: setuptools would pack modules of an older checkout from it.
wheel: $(VENV)/.installed-core
	@rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './$(INTEGRATIONS_VENV)/*' -prune -exec rm -rf {} +

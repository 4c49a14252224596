# make quickstart: install and run the two-phase curriculum on embedded data.  make test: install and run the suite.
# make test CONSTRAINTS=latest: the same with the newest releases, in .venv-latest beside .venv.
PYTHON ?= python3
CONSTRAINTS ?= seed
# an environment for each set of versions, so that they stand side by side
VENV ?= .venv$(if $(filter-out seed,$(CONSTRAINTS)),-$(CONSTRAINTS))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints/$(CONSTRAINTS).txt
# where this is set, as in some container images, each process would compile torch and transformers anew
unexport PYTHONDONTWRITEBYTECODE
SWEEP := multirun/quickstart-$(shell date +%Y-%m-%d_%H-%M-%S)

.PHONY: help install quickstart test check clean

help:
	@grep -hE '^# make' Makefile | tr -s '#' ' '

$(VENV)/installed-$(CONSTRAINTS): setup.cfg pyproject.toml constraints/$(CONSTRAINTS).txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Python 3.10 to 3.12 is needed; name one with PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), a few minutes on a fresh machine"
	$(PIP) --editable .
	touch $@

$(VENV)/installed-test-$(CONSTRAINTS): $(VENV)/installed-$(CONSTRAINTS)
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/installed-dev-$(CONSTRAINTS): $(VENV)/installed-test-$(CONSTRAINTS)
	$(PIP) --editable '.[test,dev]'
	touch $@

install: $(VENV)/installed-$(CONSTRAINTS)

quickstart: install
	$(BIN)/python train.py -m phase=1,2 experiment=quickstart hydra.sweep.dir=$(SWEEP)
	$(BIN)/python evaluate.py -m experiment=quickstart adapter=null,$(SWEEP)/0/adapter,$(SWEEP)/1/adapter hydra.sweep.dir=$(SWEEP)/evaluation
	@$(BIN)/text2sql table --hardness $(SWEEP)

test: $(VENV)/installed-test-$(CONSTRAINTS)
	$(BIN)/python -m pytest -q -n 2 --durations=8

check: $(VENV)/installed-dev-$(CONSTRAINTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

clean:
	rm -rf $(VENV) build *.egg-info

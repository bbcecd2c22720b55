# make lab | test | dev | check | bench | truth | cluster | clean. Everything that is made stays in this folder.

PYTHON ?= python3
VENV ?= .venv
NPM ?= npm
NOTEBOOK ?= recipes/00-tour.ipynb
LAB_ARGS ?=
PIP_ARGS ?=
PYTEST_ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The front end's scripts call python (for the message types): they get the environment's.
export PATH := $(abspath $(VENV))/bin:$(PATH)

IN_VENV := $(VENV)/bin
LAB_ENV := $(VENV)/.lab-ready
TEST_ENV := $(VENV)/.test-ready
RAY_ENV := $(VENV)/.ray-ready
BUNDLES := node_modules/.bundles-ready
SETUP := pyproject.toml constraints.txt hatch_build.py
FRONT_END := package.json tsconfig.json $(shell find js -path js/test -prune -o -print 2>/dev/null)

.PHONY: help lab test dev check bench truth cluster clean model

help:
	@echo "make lab    set everything up and open JupyterLab on the tour"
	@echo "make test   set everything up and run all tests"
	@echo "make dev    JupyterLab with views that reload while their sources change"
	@echo "make check  lint, formatting and types, Python and front end"
	@echo "make bench  the benchmarks: one line a figure"
	@echo "make truth  what takes hours to check: results against published claims"
	@echo "make cluster  a corpus read on a Ray cluster of this machine"
	@echo "make clean  remove everything that make made"

lab: $(LAB_ENV) $(BUNDLES) model
	$(IN_VENV)/jupyter lab $(LAB_ARGS) $(NOTEBOOK)

test: $(TEST_ENV) $(BUNDLES) model
	$(NPM) run test
	$(IN_VENV)/python -m pytest $(PYTEST_ARGS)

# set -m gives the watcher a process group of its own, which ends whole. Then minified bundles again.
dev: $(TEST_ENV) $(BUNDLES) model
	set -m; $(NPM) run watch & watch=$$!; trap "kill -- -$$watch; $(NPM) run build" EXIT; \
	ANYWIDGET_HMR=1 $(IN_VENV)/jupyter lab $(LAB_ARGS) $(NOTEBOOK)

check: $(TEST_ENV) node_modules/.package-lock.json
	$(IN_VENV)/ruff check
	$(IN_VENV)/ruff format --check
	$(IN_VENV)/mypy
	$(NPM) run check
	PYTHON=$(abspath $(IN_VENV))/python $(NPM) run types:check

bench: $(RAY_ENV) $(BUNDLES) model
	$(IN_VENV)/python -m tests.benchmarks

# Not part of `make test`. Each file says what it asks and for how long; results stand beside it.
truth: $(TEST_ENV) $(BUNDLES) model
	$(IN_VENV)/python -m pytest tests/truth -s -o faulthandler_timeout=0 $(PYTEST_ARGS)

# Not part of `make test` either: Ray does not start dependably on a busy machine.
cluster: $(RAY_ENV)
	$(IN_VENV)/python -m pytest tests/cluster $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) node_modules widgets/patchclamp/static build dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Fetched once, with a progress bar; afterwards this only looks that it is there.
model:
	$(IN_VENV)/patchclamp models pull smollm2
	$(IN_VENV)/patchclamp models pull efficientnet-lite0

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("patchclamp needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	echo '{ "type": "commonjs" }' >$(VENV)/package.json # or Node reads JupyterLab's own scripts as modules, as ours are

# The bundles come first, so that the installation finds them and builds nothing itself.
$(LAB_ENV): $(SETUP) | $(VENV)/bin/python $(BUNDLES)
	$(IN_VENV)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[notebooks]'
	touch $@

$(TEST_ENV): $(SETUP) | $(VENV)/bin/python $(BUNDLES)
	$(IN_VENV)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[notebooks,test,dev]'
	touch $(LAB_ENV) $@

$(RAY_ENV): $(TEST_ENV)
	$(IN_VENV)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[ray]'
	touch $@

node_modules/.package-lock.json: package-lock.json
	@command -v $(NPM) >/dev/null || { echo "Building the views needs Node.js 20 or newer with npm, and npm is not on the PATH. Without Node: pip install patchclamp."; exit 1; }
	$(NPM) ci
	touch $@

$(BUNDLES): $(FRONT_END) node_modules/.package-lock.json
	$(NPM) run build
	touch $@

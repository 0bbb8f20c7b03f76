# The project's commands; `make help` lists them. Everything is installed into .venv, or where VENV says.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt cocoseg/*/constraints.txt
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install changed repro coco check test slow coverage lint bench

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

install: $(VENV)/installed ## make .venv and install everything into it

# By content: a fresh clone's files are newer than what the image of a container has installed.
$(VENV)/installed: $(shell cat $(PINS) | cmp -s - $(VENV)/installed || echo changed)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), which takes minutes and 6 GB" >&2
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@cat $(PINS) > $@

repro: install ## run the pipeline as params.yaml says; only what changed is run again
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { echo "error: DVC wants a Git repository" \
		"with a commit: run 'git init && git add -A && git commit -m start' first" >&2; exit 1; }
	@dvc repro
	@python -m cocoseg.reports.summary

coco: install ## run on COCO val2014: presets/coco_val2014.yaml becomes params.yaml
	@for preset in presets/*.yaml; do \
		cmp -s $$preset params.yaml && cp presets/coco_val2014.yaml params.yaml && exit; \
	done; \
	echo "error: params.yaml has changes of your own: 'make repro' runs with them," \
		"'cp presets/coco_val2014.yaml params.yaml' discards them" >&2; exit 1
	@$(MAKE) --no-print-directory repro

check: lint ## style, types and the tests that start neither dvc nor a training: about a minute
	@pytest -n auto -q tests/common tests/annotations tests/sources tests/results tests/test_dvc_yaml.py --ignore-glob '*fuzz*'

test: install ## run the test suite, but for what is slow
	@pytest -n auto -m 'not slow'

slow: install ## run what `make test` leaves out: remotes that fail, a dying W&B server
	@pytest -n auto -m slow

coverage: install ## run the test suite and list the lines and branches that it misses
	@pytest -n auto --cov --cov-report=term-missing:skip-covered

bench: install ## measure what is claimed to be fast (half an hour); benchmarks/README.md has results
	@for name in annotations masks inspect many_files duplicates transfer loader training; do python -m benchmarks.$$name || exit; done

lint: install ## check style (ruff) and types (mypy)
	@ruff check .
	@ruff format --check .
	@mypy

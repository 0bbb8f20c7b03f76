# The project's commands; `make help` lists them. Everything is installed into VENV (.venv).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt cocoseg/*/constraints.txt
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install changed repro coco check test slow coverage lint bench

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

install: $(VENV)/installed ## create .venv and install everything into it

# Compares contents: in a container, a fresh clone's files are newer than the installed versions. The
# directory is part of them: an environment that was moved or copied with its checkout uses the old one.
$(VENV)/installed: $(shell { echo '$(realpath $(VENV))'; cat $(PINS); } | cmp -s - $(VENV)/installed || echo changed)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is required, found " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@# The programs of an environment begin with the path of its Python: a moved one is created again.
	$(PYTHON) -m venv $(shell test ! -e $(BIN)/pip || grep -qF -e '$(abspath $(BIN))/' -e '$(realpath $(BIN))/' $(BIN)/pip || echo --clear) $(VENV)
	@echo "installing into $(VENV); this takes several minutes; the libraries and the sample need 7 GB" >&2
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@{ (cd $(VENV) && pwd -P); cat $(PINS); } > $@

repro: install ## run the pipeline described by params.yaml; only stages with changes run
	@reason=$$(LC_ALL=C git rev-parse --verify HEAD 2>&1 >/dev/null) || { \
		case $$reason in *"not a git repository"*|*"single revision"*) \
			remedy=": run 'git init && git add -A && git commit -m start'";; esac; \
		echo "error: DVC requires a Git repository with a commit:" $$reason$$remedy >&2; exit 1; }
	@test "$$(git rev-parse --is-shallow-repository)" != true || echo "warning: this clone is shallow, so" \
		"'dvc exp run --temp' and the queue lose experiments: run 'git fetch --unshallow'" >&2
	@dvc repro
	@python -m cocoseg.reports.summary

coco: install ## copy presets/coco_val2014.yaml to params.yaml and run the pipeline
	@for preset in presets/*.yaml; do \
		cmp -s $$preset params.yaml && cp presets/coco_val2014.yaml params.yaml && exit; \
	done; \
	echo "error: params.yaml has your own changes: run 'make repro' to use them," \
		"or 'cp presets/coco_val2014.yaml params.yaml' to discard them" >&2; exit 1
	@$(MAKE) --no-print-directory repro

check: lint ## check style and types and run the quick tests: about a minute
	@pytest -n auto -q tests/core tests/params tests/coco tests/curation tests/sources tests/reports tests/test_dvc_yaml.py --ignore-glob '*fuzz*'

test: install ## run all tests except the slow ones
	@pytest -n auto -m 'not slow'

slow: install ## run the slow tests: failing remotes, a failing W&B server
	@pytest -n auto -m slow

coverage: install ## run all tests and list the lines and branches that they miss
	@pytest -n auto --cov --cov-report=term-missing:skip-covered

bench: install ## run the benchmarks (half an hour); results are in benchmarks/README.md
	@for name in annotations masks inspect many_files near_duplicates transfer loader training; do python -m benchmarks.$$name || exit; done

lint: install ## check style (ruff) and types (mypy)
	@ruff check .
	@ruff format --check .
	@mypy

# make demo      a mixture of experts, trained and shown on one page     make test      lint, types, tests
# make bench     what is measured, as ratios                             make test-all  and what is slow
# make docs      the documentation as a site that opens from disk: site/index.html

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Two workers, a file at a time, so that what a file's tests share is made once; a thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-all bench docs clean

demo: .venv/core
	$(BIN)/python examples/demo/run.py

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) --durations=5
	$(BIN)/python -m pytest --doctest-modules src -p no:cacheprovider

test-all: .venv/dev
	$(PYTEST) -m slow --durations=10

bench: .venv/dev
	$(BIN)/python benchmarks/run.py

# strict: a warning, as of a broken link, is an error; -q would hide warnings from it. The variable silences a
# notice about the next version of mkdocs.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv demo-output site

# The virtual environment, in two sizes; made anew only when what is installed has changed.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expertise needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/core: .venv/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

.venv/dev: .venv/core
	$(INSTALL) -e '.[all,dev]'
	@touch $@

# Every target sets up what it needs: `make demo` and `make test` work on a machine with Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed

# One thread per worker: the workers already fill the cores. A user's own number is left alone.
TEST_THREADS ?= 1
PYTEST := OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow fuzz lint versions bench docs docs-serve clean

help:  ## say what each target does
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14
	@echo "PYTHON=python3.12 chooses the interpreter for $(VENV), PYTEST_ARGS='-k rank' goes to pytest."

setup: $(STAMP)  ## install mlbtc and its development tools in .venv

demo: $(STAMP)  ## analyse, compile, check and train: a few minutes, offline, writes to runs/demo
	$(BIN)/python examples/demo.py

test: $(STAMP)  ## run the tests, without those marked slow
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(STAMP)  ## run all tests
	$(PYTEST) -m "" $(PYTEST_ARGS)

MINUTES ?= 5
FUZZ_ARGS ?=

fuzz: $(STAMP)  ## read random spec files for MINUTES=5; FUZZ_ARGS='--seed 7' repeats a run, runs/fuzz holds what fails
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(FUZZ_ARGS)

lint: $(STAMP)  ## ruff and mypy, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p mlbtc

VERSIONS_ARGS ?=

versions: $(STAMP)  ## build the wheel and use it with the lowest and newest versions; VERSIONS_ARGS='--tests tests/cli' tests them
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist . >/dev/null
	.ci/versions lowest build/dist/mlbtc-*.whl $(VERSIONS_ARGS)
	.ci/versions newest build/dist/mlbtc-*.whl $(VERSIONS_ARGS)

bench: $(STAMP)  ## time linear layers and attention against their rivals
	$(BIN)/mlbtc bench linear
	$(BIN)/mlbtc bench attention

# Material says on every build that MkDocs 2 will not run it; pyproject.toml keeps to MkDocs 1.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

docs: $(DOCS_STAMP)  ## build the site of docs/ in site/, and fail on any warning
	$(MKDOCS) build
	@echo "The site begins at site/index.html"

docs-serve: $(DOCS_STAMP)  ## show the site at http://127.0.0.1:8000 and follow changes
	$(MKDOCS) serve

clean:  ## remove .venv, builds and caches; runs/ and variants/ stay
	rm -rf $(VENV) build dist site *.egg-info .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "mlbtc needs Python 3.11 or newer, and there is no '$(PYTHON)'; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -c 'import platform, sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "mlbtc needs Python 3.11 or newer, and $(PYTHON) is " + platform.python_version() \
	  + "; name another: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "Installing mlbtc and PyTorch in $(VENV): a minute or two, once"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

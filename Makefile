# The environment is made once, and again when pyproject.toml changes. Installed modules are compiled when they are first
# imported (--no-compile): most never are.
PYTHON ?= python3
BIN := .venv/bin
# One process more than the two cores of the usual machine, since tests wait for processes, databases and browsers.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Tests start some hundred processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: study test test-all test-networks test-extras torture coverage mutation check ci lint types imports kernels bench docs docs-links

study: .venv/ready
	$(BIN)/hirise-imb run

# Everything but the slow tests: minutes, and every room is covered.
test: .venv/ready
	$(PYTEST) -m "not slow and not networks"

# These too.
test-all: .venv/ready
	$(PYTEST) -m "not networks"

# The same with the coverage of the package, which takes longer and fails below the bound in pyproject.toml. No line of a
# function that numba compiles is seen, so tests of these functions are run once more, uncompiled.
UNCOMPILED := tests/training/test_head_kernel.py tests/metrics/test_targets.py
coverage: .venv/ready
	$(PYTEST) -m "not networks" --cov --cov-fail-under=0 --cov-report=
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest $(UNCOMPILED) \
		-k "test_targets or single_rows or masks_have or 16-8 or 16-2-all" \
		-W "ignore:overflow encountered:RuntimeWarning" --cov --cov-append --cov-report=term

# Changes the numerical core in thousands of ways, and fails if one of them is neither noticed by a test nor explained in
# tests/surviving_mutants: one to two hours. Processes are forked, so each has one thread.
mutation: .venv/ready
	$(BIN)/python -m pip install --quiet --group mutation
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python tools/check_mutants.py

# Every network of keras.applications, one at a time: half an hour, and up to 6 GB of memory.
test-networks: .venv/ready
	$(BIN)/python -m pytest -m networks tests/backbones

check: lint types imports test-all

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

imports: .venv/ready
	$(BIN)/lint-imports

# Compiles the training of heads, for 11 seconds; or else each of the first processes of the tests would do that.
kernels: .venv/ready
	$(BIN)/python -m pytest -q tests/training/test_head_kernel.py -k single_rows

# What a change must pass: `check` and the documentation, whose examples run while it is built. One core is enough for
# the types or for the documentation, so these are made at the same time.
ci: .venv/docs lint
	$(MAKE) --jobs 2 --output-sync=target docs-links types kernels imports
	$(MAKE) test-all

# What needs the optional packages: exports in their own runtimes and to MLflow, and predictions on Ray.
test-extras: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[onnx,openvino,ray,mlflow]'
	$(PYTEST) tests/export tests/cli/test_export.py tests/prediction/test_ray_engine.py tests/pipeline/test_mlflow_export.py

# Every attack of docs/reliability.md, many times with random seeds, and the table of that page: half an hour.
torture: .venv/ready
	cd tests && ../$(BIN)/python -m torture

bench: .venv/ready
	$(BIN)/python -m benchmarks

# The documentation site, in docs/_build/html; every warning is an error. Its examples run, so this is a test as well.
# All pages are read anew (-E): what they generate from the code must not be that of an earlier build.
docs: .venv/docs
	$(BIN)/sphinx-build -E -W --keep-going -q -b html docs docs/_build/html

docs-links: docs
	$(BIN)/python tools/check_links.py docs/_build/html

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --no-compile --group docs
	touch .venv/docs

.venv/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and 'Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --no-compile --editable . --group dev
	touch .venv/ready

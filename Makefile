PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# An hour and a half on two cores; one alone: make bench BENCHMARKS=step
BENCHMARKS := step modern graphs loop precision ask parameters startup stack genomes search

.PHONY: quickstart test test-slow coverage lint docs dist bench dashboard clean

# Made again whenever the requirements or the project's metadata change.
$(STAMP): requirements.txt pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: $(STAMP)
	$(BIN)/optevo run studies/quickstart.toml --export evolved.py

# A process a core, each begun with neighbouring tests, since they share what is costly to make.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

coverage: $(STAMP)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal \
		--cov --cov-fail-under=90

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/mkdocs build

# The wheel is built from the sdist, by what is installed: no network is needed.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

bench: $(STAMP)
	for name in $(BENCHMARKS); do $(BIN)/python -m analysis.benchmarks.$$name || exit 1; done

dashboard: $(STAMP)
	$(BIN)/optevo dashboard

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache

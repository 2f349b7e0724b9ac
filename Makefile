# `make run` opens the page, `make test` runs every check; both make what they need first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test lint types unit format benchmark clean

run: $(VENV)/run.stamp
	$(BIN)/python app.py $(ARGS)

test: lint types unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy engine app
	$(BIN)/mypy app.py

unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(VENV)/run.stamp
	$(BIN)/python -m benchmarks.editing

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Conceptscape needs Python 3.11 or newer." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# torch first: the processor build, where there is one, spares gigabytes of GPU libraries.
$(VENV)/run.stamp: requirements.txt constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	$(PIP) -r requirements-dev.txt -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV)

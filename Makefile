# `make demo` and `make test` need Python 3.11 or newer and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/restore image examples/motorcycle.png --model mprnet-mscam -x4 -o demo --on-exists overwrite
	@echo "before: examples/motorcycle.png   after: demo/motorcycle_x4.png"

test: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo

$(READY): pyproject.toml constraints.txt restore_cli/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

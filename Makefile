# `make demo` and `make test` need Python 3.11 or newer and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check miniature docs bench clean

demo: $(READY)
	$(BIN)/restore image examples/shaken/motorcycle.png -x1 -o demo --on-exists overwrite
	@echo "before: examples/shaken/motorcycle.png   after: demo/motorcycle_deblurred.png"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# The committed scores of two bundled checkpoints on the pictures that come with the package.
miniature: $(READY)
	$(BIN)/restore benchmark --dataset blurmini --model mprnet-mscam gfn bicubic \
		--formats md,csv -o benchmarks/blurmini
	rm -r benchmarks/blurmini/pictures benchmarks/blurmini/rows.jsonl

# The site, into docs/_build.
docs: $(READY)
	$(BIN)/python tools/reference.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "open docs/_build/index.html"

# Ratios of times on this machine; leave it alone meanwhile.
bench: $(READY)
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) demo docs/_build

$(READY): pyproject.toml constraints.txt restore_cli/version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# `make demo` and `make test` need Python 3.11 or newer and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What each target needs, and no more: restoring; and all of development.
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

.PHONY: demo test test-oldest test-all check miniature docs bench clean

demo: $(READY)
	$(BIN)/restore image examples/shaken/tank.png -x1 -o demo --on-exists overwrite
	@echo "before: examples/shaken/tank.png   after: demo/tank_deblurred.png"

# Under three minutes on two cores.
test: $(DEV)
	$(TEST) -m 'not slow'

# The quick tests with the oldest dependencies that are allowed, torch aside, in an environment of its own.
test-oldest: $(DEV)
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/python tools/oldest.py > .venv-oldest/constraints.txt
	grep '^torch==' constraints.txt >> .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install -q --no-compile -c .venv-oldest/constraints.txt -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n auto -m 'not slow' -o filterwarnings=default

# Then the rest: the wheel, the documentation's commands, trained quality, Ray, a browser, kills.
test-all: test
	$(TEST) -m slow

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/reference.py --check
	$(BIN)/hadolint Dockerfile

# The committed scores of three bundled checkpoints on the pictures that come with the package.
miniature: $(DEV)
	$(BIN)/restore benchmark --dataset blurmini --model maxim-mscam mprnet-mscam gfn bicubic \
		--formats md,csv -o benchmarks/blurmini
	rm -r benchmarks/blurmini/pictures benchmarks/blurmini/rows.jsonl

# The site, into docs/_build.
docs: $(DEV)
	$(BIN)/python tools/reference.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	$(BIN)/python -m sphinx -q -b man docs docs/_build/man
	@echo "open docs/_build/index.html, man docs/_build/man/restore.1"

# Ratios of times on this machine; leave it alone meanwhile.
bench: $(DEV)
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) .venv-oldest demo docs/_build

INPUTS := pyproject.toml constraints.txt restore_cli/version.py
# Modules are compiled when they are first imported: pip would compile all of torch.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable
unexport PYTHONDONTWRITEBYTECODE

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): $(INPUTS) | $(BIN)/python
	$(INSTALL) .
	touch $@

$(DEV): $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[dev]'
	touch $@ $(READY)

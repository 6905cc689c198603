# The commands of this project: make up, make test, make check, make gen, make bench.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: up test check gen format bench clean

# All set-up: the virtual environment, the locked dependencies, the project itself.
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

up: $(STAMP)
	$(BIN)/cs up --example examples/hello

test: $(STAMP)
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/gen.py --check
	$(BIN)/python tools/docs.py --check
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint proto
	$(BIN)/python tools/breaking.py
	$(BIN)/mypy

gen: $(STAMP)
	$(BIN)/python tools/gen.py
	$(BIN)/python tools/docs.py

# Not a gate: writes the formatting that `make check` asks for.
format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w proto

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .build .data

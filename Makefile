PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check faults faults-long bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dicomweb,dimse]'
	touch $@

demo: setup  ## build a synthetic dataset and say where its report lies
	$(BIN)/python -m builder.demo

test: setup check  ## everything CI runs
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check builder tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache

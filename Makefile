# make setup | demo | test | checks | clean. Needs Python >= 3.11 and nothing else; everything lands in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := demo-run
# One BLAS thread per process: the work is spread over processes, and more threads than cores slow each other down.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test test-all test-services checks clean
setup: $(STAMP)

# Torch goes first, by pip, which finds a CPU build where one is configured; uv then adds the rest in seconds.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==$$(sed -n 's/^torch==//p' constraints.txt)" uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt \
		--editable '.[simulate,sources,quality,web,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/python examples/demo.py --out $(DEMO)

test: setup
	$(THREADS) $(BIN)/python -m pytest -n 2

test-all: setup
	$(THREADS) $(BIN)/python -m pytest -n 2 -m 'not gpu and not remote and not services'

# Sets up real database servers on this machine (DaCHS on PostgreSQL, pgstac, nginx), asks them, and stops them again.
# Needs root on Debian 12, its package archive and about 3 GB; ports 5432, 8080, 8091 and 8092 of 127.0.0.1 must be free.
test-services: setup
	tests/services/up.sh && $(THREADS) $(BIN)/python -m pytest -m services tests/services; \
		status=$$?; tests/services/down.sh; exit $$status

checks: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

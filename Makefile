# Everything there is to do. On a fresh Debian or Ubuntu with Python 3.11 or newer, and nothing
# else, `make book` or `make test` is the only command needed. The same in plain pip: README.md.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The chapters' kernels: as on the machine that made the committed outputs. Threads that wait let
# others compute: several kernels share the cores.
KERNEL := MODECONN_DEVICE=cpu OMP_WAIT_POLICY=passive
NBVAL   = $(BIN)/python -m pytest --nbval book --nbval-current-env \
          --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout=120 \
          --nbval-kernel-startup-timeout=180 -p no:cacheprovider -n 2 --dist loadscope -q

.PHONY: help install book notebooks handouts test lint unit nbval lab refresh bench mutants clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)

# Installed again only when one of these files changes.
$(STAMP): pyproject.toml requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "This needs Python 3.11 or newer. Say which: make PYTHON=python3.12 book"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "Python's venv module is missing. On Debian or Ubuntu:"; \
	    echo "    sudo apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	@touch $@

book: $(STAMP)  ## build the website
	rm -rf _build
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo; echo "Open $(CURDIR)/_build/html/index.html"

# The site holds them, behind its download buttons.
notebooks: book  ## the chapters as plain notebooks for Colab, VS Code, GitHub and Kaggle
	cp -r _build/html/notebooks _build/
	@echo "Plain notebooks: $(CURDIR)/_build/notebooks"

handouts: book  ## chapters without solutions for students, solution sheets for teachers
	$(KERNEL) OMP_NUM_THREADS=2 $(BIN)/python tools/handouts.py
	@echo "Handouts: $(CURDIR)/_build/handouts"

test: lint unit nbval  ## everything: lint, types, unit, site and browser tests, notebooks

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

unit: $(STAMP)
	$(KERNEL) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

nbval: $(STAMP)  ## run every notebook and compare its outputs with the committed ones
	$(KERNEL) OMP_NUM_THREADS=1 $(NBVAL)
	$(KERNEL) OMP_NUM_THREADS=2 $(NBVAL)

lab: $(STAMP)  ## the chapters in JupyterLab
	$(BIN)/jupyter trust book/*.ipynb  # else explorers show without their scripts
	$(BIN)/jupyter lab --notebook-dir=book

refresh: $(STAMP)  ## run the notebooks afresh, normalise and compare them
	$(BIN)/python tools/refresh.py
	$(KERNEL) OMP_NUM_THREADS=1 $(NBVAL)
	$(KERNEL) OMP_NUM_THREADS=2 $(NBVAL)

bench: $(STAMP)  ## measure speed, print ratios
	@for file in tests/benchmarks/bench_*.py; do \
	    echo "== $$file"; OMP_NUM_THREADS=2 $(BIN)/python $$file || exit 1; done

# Not part of `make test`: 175 mutants take an hour. Which ones: make mutants N=20 SEED=1 OF=paths
mutants: $(STAMP)  ## try the tests on a sample of N mutants, list those that none notices
	$(BIN)/python -m pip install --quiet -e .[mutants] -c constraints.txt
	$(BIN)/python tools/mutants.py --count $(or $(N),175) --seed $(or $(SEED),0) \
	    --of "$(OF)" --jobs $(or $(JOBS),2)

clean:  ## remove the built site and the virtual environment
	rm -rf _build $(VENV)

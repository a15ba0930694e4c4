# make demo   set up .venv if needed, then edit a sample picture on the bundled models
# make test   set up .venv if needed, then lint, type check and run every test
# make pictures   edit the samples for the README, after the bundled models have changed
#
# The first run installs from the package index; later runs need no network. A machine without an NVIDIA GPU saves
# two gigabytes by:  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Quiet twice: errors are shown, warnings are not (with several indexes pip warns once for each package and index).
PIP := $(BIN)/pip --disable-pip-version-check --quiet --quiet
TORCH_INDEX ?=
PYTEST_ARGS ?=
# The first interpreter found that is new enough; PYTHON=/path/to/python3 overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: demo test browser pictures lint format install clean

SAMPLE := src/maskless/assets/samples/desert.png
demo: $(STAMP)
	$(BIN)/maskless edit $(SAMPLE) --caption "a red car" --prompt "a blue house" --draw-box

pictures: $(STAMP)
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python docs/make_screenshots.py
	$(BIN)/python docs/make_workflow_pictures.py

# The tests of the page need a browser. Where none can be installed they are skipped, with a line that says so.
browser: $(STAMP)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ test "$$(id -u)" = 0 && apt-get install -y -qq chromium >/dev/null 2>&1; } || \
		$(BIN)/playwright install chromium >/dev/null 2>&1 || \
		echo "NO BROWSER: the page will not be tested, because chromium could not be installed" >&2

test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

# torch goes first and alone: the pin picks its wheel (with TORCH_INDEX the CPU one) before anything else asks for it.
# The stamp is written last, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "maskless needs Python 3.11 or newer; none was found on PATH" >&2; exit 2; }
	@echo "Setting up the environment in $(VENV), once: a few minutes, depending on the network ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) setuptools torch
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build src/*.egg-info

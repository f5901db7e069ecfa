# `make` lists the commands.
PYTHON ?= python3
BIN := .venv/bin
BENCHMARKS := graph_overhead quickstart_quality rollout persistent memory targets few_steps server_load panels reliability folder_index decoding attention saving scaling as_one_process shards
# Files of tests side by side, a thread each; those with a browser come after them, alone, for they watch the clock.
TESTS := --numprocesses logical --maxprocesses 4 --dist loadfile --ignore tests/browser
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo serve test test-lowest check format bench screenshots clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/demo ## train the quickstart on real digits, about two minutes, and say where the pictures are
	$(BIN)/comfyui-rollout run workflows/quickstart_digits.json

serve: .venv/serve ## open the graph editor in a browser
	$(BIN)/comfyui-rollout serve --open

test: .venv/dev .venv/axe ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)
	$(BIN)/python -m pytest tests/browser

test-lowest: .venv/lowest/tools ## run all tests with the lowest versions that requirements.txt allows, torch aside
	OMP_NUM_THREADS=1 .venv/lowest/bin/python -m pytest -p no:warnings $(TESTS) # older libraries warn of what a newer torch says
	.venv/lowest/bin/python -m pytest -p no:warnings tests/browser

check: .venv/dev ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev ## run the benchmarks that need no accelerator
	@status=0; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || status=1; done; exit $$status

screenshots: .venv/dev ## remake the pictures of the README with a real browser
	$(BIN)/python docs/make_screenshots.py

clean: ## remove the virtual environment and caches
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/python: # the virtual environment itself
	$(PYTHON) -m venv .venv
	@touch $@

.venv/axe: # axe-core, with which a test of the browser looks for faults; that test is left out where there is no npm
	@mkdir -p .venv
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix .venv axe-core@4.14.1
	@touch $@

.venv/lowest/versions: requirements.txt constraints.txt # the lower bounds as versions; the tools are those of `make test`
	@mkdir -p .venv/lowest
	@sed -n '/^torch>/d; s/^\([a-z]*\)>=/\1==/p' requirements.txt > $@
	@sed 's/==.*/==/' $@ | grep --invert-match --fixed-strings --file - constraints.txt >> $@

.venv/lowest/tools: .venv/lowest/versions pyproject.toml .venv/axe
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv/lowest/versions --editable ".[dev]"
	@touch $@

.venv/demo: .venv/python pyproject.toml requirements.txt constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/serve: .venv/python pyproject.toml requirements.txt constraints.txt
	$(PIP) --editable ".[standalone]"
	@touch $@

.venv/dev: .venv/python pyproject.toml requirements.txt constraints.txt
	$(PIP) --editable ".[dev]"
	@touch $@

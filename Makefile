# Everything a newcomer needs: `make run`, `make test`, `make check`. It takes python3 (3.11 or newer, with venv) and make.

PYTHON ?= python3
PORT ?= 5000
VENV := .venv
BIN := $(VENV)/bin
# The first chart answers on /state.
CHARTS := $(sort $(wildcard charts/*.yaml))
CHARTS := $(filter charts/states.yaml,$(CHARTS)) $(filter-out charts/states.yaml,$(CHARTS))
# What the charts among them go by.
ROSTERS := $(sort $(wildcard charts/rosters/*.txt))
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help run test prove bench check e2e lock dist share image docs clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## Install what is needed and serve the sample charts on 127.0.0.1:5000 (PORT=...)
	@echo "Serving $(words $(CHARTS)) sample charts on 127.0.0.1:$(PORT); the database is instance/state_service.db."
	@echo "In a second terminal, try:"
	@echo "  curl -i 'http://127.0.0.1:$(PORT)/state?state=green_state'          # 200 and its name: it is the current state"
	@echo "  curl -i -X PUT 'http://127.0.0.1:$(PORT)/state?state=green_state'   # 200: counted, and the chart moves on"
	@echo "  curl -i 'http://127.0.0.1:$(PORT)/state?state=green_state'          # 406: it was the current state"
	@echo "  curl -H 'Accept: text/plain' http://127.0.0.1:$(PORT)/charts/states # where it stands and what it waits for"
	@echo "  curl http://127.0.0.1:$(PORT)/charts                                # every chart"
	@echo "The dashboard:  http://127.0.0.1:$(PORT)/"
	@echo "Read next:      docs/first-rollout.md, a first rollout in 15 minutes; docs/charts.md has every key of a chart file."
	@echo "Ctrl-C stops it; the next \`make run\` goes on where it was."
	$(BIN)/python state_service $(foreach roster,$(ROSTERS),--roster $(roster)) $(foreach chart,$(CHARTS),--chart $(chart)) --host 127.0.0.1 --port $(PORT)

# The tests start Python hundreds of times: it keeps what it has compiled, whatever the environment says.
test prove e2e: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.installed-dev ## Run the quick tests, on SQLite and on PostgreSQL, in 5 minutes on two idle cores (ARGS="tests/core -x")
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m "not slow" $(ARGS)
	@echo "All passed. Next: \`make check\` for style, types and layers; \`make prove ARGS=--short\` for the slow tests."

prove: $(VENV)/.installed-dev ## Break everything under load, in 60 minutes; the slow tests, in 8: ARGS=--short (ARGS="power mutants")
	$(BIN)/python -m proof.prove $(ARGS)
	@echo "docs/reliability.md says what each part means."

bench: $(VENV)/.installed-dev ## Measure it beside its peers, in 30 minutes (as root: it installs wrk and etcd; ARGS="--only get")
	sh tests/e2e/install.sh bench/packages.txt
	$(BIN)/python -m bench.run $(ARGS)
	@echo "docs/performance.md says how to read it; \`$(BIN)/python -m bench.run --write-docs\` puts the table there."

check: $(VENV)/.installed-dev ## Check style, types, layers, sizes, the schema and the lock files
	$(BIN)/ruff check . $(wildcard state_service)
	$(BIN)/ruff format --check . $(wildcard state_service)
	$(BIN)/mypy --strict app $(wildcard wsgi.py)
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python -m pytest -q -s tests/test_sizes.py
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_requirements.py tests/db/test_migrations.py
	@echo "All in order. Next: \`make test\` runs everything."

e2e: $(VENV)/.installed-e2e ## Try the real thing: nginx, gunicorn, PostgreSQL, and every client (as root: it installs Debian packages)
	sh tests/e2e/install.sh
	$(BIN)/python -m pytest -q -n 2 $(or $(ARGS),tests/e2e)
	@echo "All of it works together."

lock: $(VENV)/.installed-dev ## Pin what requirements*.in ask for (UPGRADE=--upgrade takes the newest)
	$(LOCK) $(UPGRADE) requirements.in --output-file requirements.txt
	$(LOCK) $(UPGRADE) requirements-dev.in --output-file requirements-dev.txt
	$(LOCK) $(UPGRADE) requirements-e2e.in --output-file requirements-e2e.txt
	$(LOCK) $(UPGRADE) requirements-docs.in --output-file requirements-docs.txt
	@echo "Read \`git diff requirements*.txt\`, then \`make test check\`."

dist: $(VENV)/.installed ## Build a wheel, and one file that Python alone runs, in dist/
	@mkdir -p dist
	cd release && ../$(BIN)/python -c "import backend; print('dist/' + backend.build_wheel('../dist'))"
	$(BIN)/python release/single.py dist
	@echo "Try: python3 dist/stateservice.pyz demo"

share: $(VENV)/.installed ## Write the man page and the shells' completion anew, after a command has changed
	$(BIN)/python release/share.py
	@echo "Read \`git diff release/share\`."

image: ## Build the container image stateservice (ENGINE=podman, IMAGE=registry.example/stateservice:0.1.0)
	$(or $(ENGINE),docker) build -f deploy/Dockerfile -t $(or $(IMAGE),stateservice) .
	@echo "Next: docker compose -f deploy/compose.yaml up, or deploy/kubernetes.yaml."

docs: build/docs-venv/.installed ## Make a site of all pages in build/docs
	build/docs-venv/bin/python release/pages.py build/pages
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/mkdocs build --quiet
	@echo "Open build/docs/index.html, or: build/docs-venv/bin/mkdocs serve"

clean: ## Remove the virtual environment and caches; your database in instance/ stays
	rm -rf $(VENV) build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "StateService needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

# The stamps make the second time fast.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing what requirements.txt pins ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what requirements-dev.txt pins ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-e2e: requirements-e2e.txt $(VENV)/.installed-dev
	@echo "Installing what requirements-e2e.txt pins ..."
	@$(PIP_INSTALL) -r requirements-e2e.txt
	@touch $@

build/docs-venv/.installed: requirements-docs.txt
	$(PYTHON) -m venv build/docs-venv
	build/docs-venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	@touch $@

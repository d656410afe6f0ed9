.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
DIR ?= demo-data
FLEET ?= fleet-data
WORKERS ?= 2
JOBS ?= 3
READY := $(VENV)/.ready

.PHONY: help setup demo demo-local fleet score test faults check format bench lock docs wheel clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv and install what everything needs (done by the others if it has not been)

$(READY): pyproject.toml constraints.txt scripts/setup scripts/services deploy/local/pom.xml
	@bash scripts/setup $(VENV)

demo: $(READY) ## Make 300 rows, score them by Kafka, two workers and a sink, show what came out
	@exec $(BIN)/python -m deploy.local demo "$(DIR)"

demo-local: $(READY) ## The same in one process, without any service
	@exec $(BIN)/pairscore demo "$(DIR)" --score

fleet: $(READY) ## Keep Kafka, workers and a sink running until Ctrl-C: make fleet [WORKERS=2]
	@exec $(BIN)/python -m deploy.local fleet "$(FLEET)" --workers "$(WORKERS)"

score: $(READY) ## Score a file: make score CSV=challenge_set.csv [ARGS="--model demo"]
	@test -n "$(CSV)" || { echo 'make score: say which file: make score CSV=challenge_set.csv' >&2; exit 2; }
	@$(BIN)/pairscore score "$(CSV)" $(ARGS)

test: $(READY) ## Run all tests, JOBS files at a time (most of it is waiting), with coverage
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --ignore tests/faults \
	  --cov --cov-report=term --cov-fail-under=90 $(ARGS)
	@$(BIN)/python -m pytest tests/faults

faults: $(READY) ## Kill, hang and cut off everything, at length (about an hour)
	@$(BIN)/python -m pytest tests/faults $$(grep -l long_faults tests/integration/*.py) --long-faults $(ARGS)

check: $(READY) ## Format, lint, types, layers, drift of what is written from the code, the Helm chart
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python scripts/docs.py --check
	@$(BIN)/python scripts/dashboards.py --check
	@bash scripts/helm $(VENV)
	@$(BIN)/python scripts/chart.py

format: $(READY) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(READY) ## Measure speed and memory (about 45 minutes; no network)
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY) ## Write the reference and Grafana's dashboards from the code
	@$(BIN)/python scripts/docs.py
	@$(BIN)/python scripts/dashboards.py

lock: $(READY) ## Resolve constraints.txt anew, and the lists of the images from it
	@$(BIN)/uv pip compile pyproject.toml --extra all --universal --python-version 3.11 \
	  --generate-hashes --custom-compile-command "make lock" --upgrade \
	  --quiet --output-file constraints.txt
	@for service in producer sink worker; do \
	  $(BIN)/uv pip compile pyproject.toml --extra $$service --universal --python-version 3.11 \
	    --constraint constraints.txt --generate-hashes --no-annotate \
	    --custom-compile-command "make lock" --quiet \
	    --output-file deploy/requirements/$$service.txt; done

wheel: $(READY) ## Build the wheel, install it into an empty environment, run the demo there
	@bash scripts/try-wheel $(VENV)

clean: ## Remove .venv and everything that was made
	@rm -rf $(VENV) build dist demo-data fleet-data .bench deploy/local/.kafka .coverage* htmlcov .mypy_cache .ruff_cache .pytest_cache

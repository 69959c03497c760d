.DEFAULT_GOAL := help
SHELL := /bin/bash

UV := .venv/bin/uv
RUN := .venv/bin
READY := .venv/.ready

# A virtual environment with uv in it is all a machine needs beyond Python and make.
$(READY): pyproject.toml uv.lock clients/python/pyproject.toml compute/pyproject.toml server/pyproject.toml
	@test -x .venv/bin/python || { echo "creating .venv"; $${PYTHON:-python3} -m venv .venv; }
	@test -x $(UV) || $(RUN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing the locked dependencies"
	@# Bytecode is compiled here, once: the dozen processes of a server start in half the time.
	@$(UV) sync --locked --quiet --inexact --compile-bytecode
	@touch $@

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) $(if $(BROKERS),brokers) ## Start a server, send it data, show what comes out; BROKERS=1: on MinIO and Kafka
	@set -a; $(if $(BROKERS),. .brokers/env;) set +a; $(RUN)/python clients/python/examples/demo.py

.PHONY: test
test: $(READY) ## Run every test against a real server
	@$(RUN)/python -m pytest

.PHONY: test-slow
test-slow: $(READY) ## Run the tests that take a minute and more each
	@$(RUN)/python -m pytest -m slow

.PHONY: serve
serve: $(READY) ## Start the server in the foreground; Ctrl-C stops it
	@$(RUN)/headrace-server

.PHONY: brokers
brokers: $(READY) ## Start MinIO and Kafka on this machine; .brokers/env tells where
	@PYTHONPATH=tests $(RUN)/python -m brokers start

.PHONY: brokers-stop
brokers-stop: $(READY) ## Stop them and remove their data
	@PYTHONPATH=tests $(RUN)/python -m brokers stop

.PHONY: check
check: $(READY) proto ## Lint, types, import rules, contract
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-cache
	@$(RUN)/buf lint
	@git diff --exit-code --stat -- clients/python/headrace/v1 || { echo "the stubs are stale: commit what 'make proto' wrote"; exit 1; }

.PHONY: proto
proto: $(READY) ## Generate the stubs from protos/
	@$(RUN)/python protos/generate.py

.PHONY: generate
generate: $(READY) ## Write sample data to sample/
	@$(RUN)/headrace generate --output sample

.PHONY: bench
bench: $(READY) ## Measure against peers on this machine
	@PYTHONPATH=tests $(RUN)/python tests/bench/run.py $(ARGS)

.PHONY: chaos
chaos: $(READY) ## Do all harm there is and count what it cost; ARGS="--only kills --rows 1000000"
	@PYTHONPATH=tests $(RUN)/python -m chaos $(ARGS)

.PHONY: bench-relay
bench-relay: $(READY) ## Measure the relay beside confluent-kafka, on a real broker
	@PYTHONPATH=tests $(RUN)/python -m bench.relay $(ARGS)
	@PYTHONPATH=tests $(RUN)/python -m bench.relay_commits

.PHONY: bench-small
bench-small: $(READY) ## Measure small ingests, and the table that many of them leave
	@PYTHONPATH=tests $(RUN)/python -m bench.small $(ARGS)

.PHONY: format
format: $(READY) ## Format the code
	@$(RUN)/ruff check --fix --quiet . ; $(RUN)/ruff format --quiet .

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
	@# And the kernels: else whatever imports them first does it, several processes at once.
	@$(RUN)/python -c 'from headrace_compute.kernels import warm; import headrace_server.events.record_batch; warm()'
	@touch $@

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) $(if $(BROKERS),brokers) ## Start a server, send it data, show what comes out; BROKERS=1: on MinIO and Kafka
	@set -a; $(if $(BROKERS),. .brokers/env;) set +a; $(RUN)/python clients/python/examples/demo.py

# Two at a time, each file in one process: their servers share a Ray, and a third would find no core.
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: $(READY) ## Run the tests, against real servers; one of each kind
	@$(RUN)/python $(PYTEST)

.PHONY: test-all
test-all: $(READY) ## Run all variants too, and property tests longer; ARGS="--end-by=TIME" skips what begins later
	@$(RUN)/python $(PYTEST) -m 'slow or not slow' --hypothesis-profile=long --timeout=600 $(ARGS)

.PHONY: trainers
trainers: $(READY) ## Install PyTorch, RecBole, datasets and Ray Data, some 5 GB, into .trainers
	@test -x .trainers/bin/python || $${PYTHON:-python3} -m venv .trainers
	@$(UV) pip install --quiet --python .trainers/bin/python -e 'clients/python[torch]' \
		-r tests/trainers/requirements.txt --overrides tests/trainers/overrides.txt

.PHONY: test-trainers
test-trainers: trainers ## Run the tests in which these read our data; `make test-all` runs them too, once they are installed
	@$(RUN)/python -m pytest -m slow tests/integration/test_trainers.py

.PHONY: coverage
coverage: $(READY) ## Run the tests and tell what of the code they reach, servers and workers included
	@rm -f .coverage .coverage.*
	@$(RUN)/python -m coverage run $(PYTEST)
	@$(RUN)/python -m coverage combine --quiet
	@$(RUN)/python -m coverage report

.PHONY: serve
serve: $(READY) ## Start the server in the foreground; Ctrl-C stops it
	@$(RUN)/headrace-server

.PHONY: gateway
gateway: ## Build the REST gateway and start it in the foreground, on 127.0.0.1:8002; needs Go
	@cd clients/gateway && go build -trimpath -o bin/gateway .
	@clients/gateway/bin/gateway

.PHONY: brokers
brokers: $(READY) ## Start MinIO and Kafka on this machine; .brokers/env tells where
	@PYTHONPATH=tests $(RUN)/python -m brokers start

.PHONY: brokers-stop
brokers-stop: $(READY) ## Stop them and remove their data
	@PYTHONPATH=tests $(RUN)/python -m brokers stop

.PHONY: check
check: $(READY) python-stubs ## Lint, types, import rules, contract
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-cache
	@$(RUN)/buf lint
	@$(RUN)/buf breaking protos --against protos/released.binpb
	@git diff --exit-code --stat -- clients/python/headrace/v1 || { echo "the stubs are stale: commit what 'make proto' wrote"; exit 1; }
	@$(RUN)/python protos/document.py | cmp -s - docs/api.md || { echo "docs/api.md is stale: commit what 'make docs' writes"; exit 1; }

# The generator for TypeScript.
NODE := clients/typescript/node_modules/.package-lock.json
$(NODE): clients/typescript/package-lock.json
	@npm --prefix clients/typescript ci --silent

.PHONY: proto
proto: python-stubs $(NODE) ## Generate what is committed of every language's stubs; needs Go and Node
	@for template in clients/*/buf.gen.yaml; do $(RUN)/buf generate --template $$template || exit 1; done

.PHONY: python-stubs
python-stubs: $(READY) # Python's alone: whoever changes nothing of the contract needs no other toolchain.
	@$(RUN)/python protos/generate.py

.PHONY: docs
docs: $(READY) ## Write what follows from code and contract: docs/features.md, docs/api.md
	@$(RUN)/python -m headrace_compute.features.document > docs/features.md
	@$(RUN)/python protos/document.py > docs/api.md

.PHONY: plot-negatives
plot-negatives: $(READY) ## Draw docs/negatives.svg from a running server: how often items are drawn, beside theory
	@$(RUN)/python clients/python/examples/plot_negatives.py $(ARGS)

.PHONY: generate
generate: $(READY) ## Write sample data to sample/
	@$(RUN)/headrace generate --to sample

.PHONY: bench
bench: $(READY) ## Measure against peers on this machine
	@PYTHONPATH=tests $(RUN)/python tests/bench/run.py $(ARGS)

.PHONY: bench-scale
bench-scale: $(READY) ## Measure what a row costs runs at several sizes, beside peers; ARGS="--millions 2 10 50", "--minio"
	@PYTHONPATH=tests $(RUN)/python -m bench.scale $(ARGS)

.PHONY: bench-stats
bench-stats: $(READY) ## Measure what the statistics of features cost beside these
	@PYTHONPATH=tests $(RUN)/python -m bench.statistics $(ARGS)

.PHONY: chaos
chaos: $(READY) ## Do all harm there is and count what it cost; ARGS="--only kills --rows 1000000"
	@PYTHONPATH=tests $(RUN)/python -m chaos $(ARGS)

.PHONY: chaos-cluster
chaos-cluster: $(READY) ## The same to servers, nodes, MinIO and Kafka of a cluster; ARGS="--minutes 20 --seed 1"
	@PYTHONPATH=tests $(RUN)/python -m chaos.cluster $(ARGS)

.PHONY: attack
attack: $(READY) ## Attack servers and measure what a neighbour notices; ARGS="--only tables packed --quick"
	@PYTHONPATH=tests $(RUN)/python -m attack $(ARGS)

.PHONY: bench-nodes
bench-nodes: $(READY) ## Measure two nodes of a Ray cluster beside one, and what the coordinator costs
	@PYTHONPATH=tests $(RUN)/python -m bench.nodes $(ARGS)

.PHONY: bench-relay
bench-relay: $(READY) ## Measure the relay beside confluent-kafka, on a real broker
	@PYTHONPATH=tests $(RUN)/python -m bench.relay $(ARGS)
	@PYTHONPATH=tests $(RUN)/python -m bench.relay_commits

.PHONY: bench-neighbours
bench-neighbours: $(READY) ## Measure what other tenants notice of a heavy run; ARGS="--millions 10"
	@PYTHONPATH=tests $(RUN)/python -m bench.neighbours $(ARGS)

.PHONY: bench-loader
bench-loader: $(READY) ## Measure what reading training data costs a trainer; ARGS="--millions 20"
	@PYTHONPATH=tests $(RUN)/python -m bench.loader $(ARGS)

.PHONY: bench-gateway
bench-gateway: $(READY) ## Measure uploads by curl and the REST gateway beside the SDK's; needs Go; ARGS="--mib 100"
	@PYTHONPATH=tests $(RUN)/python -m bench.gateway $(ARGS)

.PHONY: bench-small
bench-small: $(READY) ## Measure small ingests, and the table that many of them leave
	@PYTHONPATH=tests $(RUN)/python -m bench.small $(ARGS)

.PHONY: format
format: $(READY) ## Format the code
	@$(RUN)/ruff check --fix --quiet . ; $(RUN)/ruff format --quiet .

# The two commands: `make demo` and `make test`. Both set up what they need and reuse what is there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/build/bin:$(PATH)
python := build/venv/bin/python

.PHONY: help
help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: venv
venv:
	@cluster/python.sh

.PHONY: lint
lint: venv ## Style, types and the direction of imports
	build/venv/bin/ruff check .
	build/venv/bin/ruff format --check .
	build/venv/bin/mypy
	MYPYPATH=worker-image build/venv/bin/mypy -p django_db_worker
	build/venv/bin/mypy -p examples.demo
	MYPYPATH=worker-image build/venv/bin/mypy tests benchmarks
	cd examples/shop && SECRET_KEY=lint ../../build/venv/bin/mypy .
	PYTHONPATH=operator build/venv/bin/lint-imports
	git ls-files | xargs grep -lE '^#!.*bash|^# shellcheck shell=bash' | xargs build/venv/bin/shellcheck -x

.PHONY: test-unit
test-unit: venv ## The tests that need nothing: seconds
	$(python) -m pytest tests/unit

.PHONY: test
test: lint images ## Every check and test; the cluster's in two local clusters
	@tests/run

.PHONY: cluster
cluster: ## A local Kubernetes cluster; with USE_KUBECONFIG=1 that of your own kubeconfig
	@cluster/up

.PHONY: cluster-down
cluster-down: ## Delete the local cluster
	@cluster/down

.PHONY: images
images: cluster ## Build the images and load them into the local cluster
	@cluster/images

.PHONY: install
install: images ## Install the operator, as it is here, into the cluster
	@cluster/install

.PHONY: demo
demo: venv install ## A burst of 300 tasks on the example shop, until zero pods again (build/demo.png)
	KUBECONFIG=$(CURDIR)/build/kubeconfig $(python) -m examples.demo

.PHONY: demo-clean
demo-clean: venv ## Delete what the demo deployed; the operator and the cluster stay
	KUBECONFIG=$(CURDIR)/build/kubeconfig $(python) -m examples.demo --clean

.PHONY: bench-scaling bench-footprint bench-metrics-api bench-sample bench-throughput bench-scale-in bench-orphans bench-chaos
bench-scaling: install ## From a burst to its replicas (benchmarks/results/scaling.md)
	PYTHONPATH=operator $(python) -m benchmarks.scaling

bench-footprint: install ## What the operator costs with 50 workers (benchmarks/results/footprint.md)
	PYTHONPATH=operator $(python) -m benchmarks.footprint

bench-metrics-api: install ## How fast an HPA is answered with 100 workers (benchmarks/results/metrics-api.md)
	PYTHONPATH=operator $(python) -m benchmarks.metrics_api

bench-sample: images ## What a sample of a large table costs (benchmarks/results/sample.md)
	PYTHONPATH=operator $(python) -m benchmarks.sample

bench-throughput: images ## Our db_worker beside upstream's (benchmarks/results/throughput.md)
	$(python) -m benchmarks.throughput

bench-scale-in: install ## A falling load of short and long tasks (benchmarks/results/scale-in.md)
	PYTHONPATH=operator $(python) -m benchmarks.scale_in

bench-orphans: install ## From the death of a pod to the end of its task (benchmarks/results/orphans.md)
	PYTHONPATH=operator $(python) -m benchmarks.orphans

bench-chaos: install ## Half an hour of trouble over a steady load (benchmarks/results/chaos.md)
	$(python) -m benchmarks.chaos

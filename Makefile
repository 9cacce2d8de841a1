# The two commands: `make demo` and `make test`. Both set up what they need and reuse what is there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/build/bin:$(PATH)
# Images of Python often set it. The tests start hundreds of processes, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
python := build/venv/bin/python

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: venv
venv:
	@cluster/python.sh

.PHONY: lint
lint: venv ## Check style, types and the direction of imports
	build/venv/bin/ruff check .
	build/venv/bin/ruff format --check .
	build/venv/bin/mypy
	MYPYPATH=worker-image build/venv/bin/mypy -p django_db_worker
	build/venv/bin/mypy -p examples.demo -p release
	MYPYPATH=worker-image build/venv/bin/mypy tests benchmarks
	cd examples/shop && SECRET_KEY=lint ../../build/venv/bin/mypy .
	PYTHONPATH=operator build/venv/bin/lint-imports
	git ls-files | xargs grep -lE '^#!.*bash|^# shellcheck shell=bash' | xargs build/venv/bin/shellcheck -x

.PHONY: manifests
manifests: venv ## Write install/django-task-operator.yaml, the file for kubectl apply, from the chart
	@source cluster/tools.sh && ensure_helm
	$(python) install/generate.py

.PHONY: docs
docs: venv ## Build the documentation site (build/site; to look at it: python3 -m http.server -d build/site)
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict --quiet

.PHONY: release
release: venv ## Make a release in build/release: VERSION=0.1.0, and REGISTRY=registry.example/team to push it
	@source cluster/tools.sh && ensure_helm && ensure_crane
	@$(python) -m release

.PHONY: test-unit
test-unit: venv ## Run the tests that need neither servers nor a cluster
	$(python) -m pytest tests/unit

.PHONY: test
test: venv ## Run all checks and tests, some of them in clusters that are made for them
	@$(MAKE) --no-print-directory --jobs=2 lint images
	@tests/run

.PHONY: cluster
cluster: ## Create a local Kubernetes cluster; with USE_KUBECONFIG=1, use that of your kubeconfig
	@cluster/up

.PHONY: cluster-down
cluster-down: ## Delete the local clusters
	@cluster/down

.PHONY: images
images: cluster ## Build the images and load them into the local cluster
	@cluster/images

.PHONY: install
install: images ## Install the operator from this working copy into the cluster
	@cluster/install

.PHONY: demo
demo: venv install ## Show a burst of 300 tasks on the example shop, until it is back at zero pods (build/demo.png)
	KUBECONFIG=$(CURDIR)/build/kubeconfig $(python) -m examples.demo

.PHONY: demo-clean
demo-clean: venv ## Delete what the demo has deployed; the operator and the cluster stay
	KUBECONFIG=$(CURDIR)/build/kubeconfig $(python) -m examples.demo --clean

.PHONY: bench-scaling bench-footprint bench-metrics-api bench-sample bench-claim bench-writes bench-notify bench-simulate bench-throughput bench-scale-in bench-orphans bench-chaos
bench-scaling: install ## Measure the time from a burst to its replicas (benchmarks/results/scaling.md)
	PYTHONPATH=operator $(python) -m benchmarks.scaling

bench-footprint: install ## Measure what the operator costs with 50 workers (benchmarks/results/footprint.md)
	PYTHONPATH=operator $(python) -m benchmarks.footprint

bench-metrics-api: install ## Measure how fast an HPA gets its answers with 100 workers (benchmarks/results/metrics-api.md)
	PYTHONPATH=operator $(python) -m benchmarks.metrics_api

bench-sample: images ## Measure what a sample of a large table costs (benchmarks/results/sample.md)
	PYTHONPATH=operator:worker-image $(python) -m benchmarks.sample

bench-claim: images ## A claim beside rows that are none of its business (benchmarks/results/claim.md)
	$(python) -m benchmarks.claim

bench-simulate: ## Compare a latency target with depth alone, simulated (benchmarks/results/simulate.md)
	PYTHONPATH=operator $(python) -m benchmarks.simulate

bench-notify: images ## What it costs to announce new tasks, and how soon they start (benchmarks/results/notify.md)
	$(python) -m benchmarks.notify

bench-writes: images ## What the indexes cost those who write (benchmarks/results/writes.md)
	$(python) -m benchmarks.writes

bench-throughput: images ## Compare our db_worker with upstream's (benchmarks/results/throughput.md)
	$(python) -m benchmarks.throughput

bench-scale-in: install ## Measure a scale-in with short and long tasks (benchmarks/results/scale-in.md)
	PYTHONPATH=operator $(python) -m benchmarks.scale_in

bench-orphans: install ## Measure the time from the death of a pod to the end of its task (benchmarks/results/orphans.md)
	PYTHONPATH=operator $(python) -m benchmarks.orphans

bench-chaos: install ## Make trouble for half an hour, under a steady load (benchmarks/results/chaos.md)
	$(python) -m benchmarks.chaos

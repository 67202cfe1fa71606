HOST = 127.0.0.1
PORT ?= 8080
# The first Python that is new enough and can make virtual environments.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>&- && echo $$p && break; done)
UV := uv==0.13.8
IMAGE ?= localhost/disranker
PIP_INSTALL = bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check bench compat overload soak fuzz loadtest loadtest-ui rules lock image image-test clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: .venv-serve/.ready  ## Serve models/default on HOST:PORT (127.0.0.1:8080), without torch
	.venv-serve/bin/python -m service serve --host $(HOST) --port $(PORT)

test: .venv/.ready .venv-triton/.ready .parts/.ready  ## Set up everything, then run every check and test, as CI does
	@$(MAKE) --no-print-directory check

check:  ## Run every check and test in the environment `make test` has made
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

compat: .venv-loadtest/.ready  ## Try every rerank client against a service; COMPAT="--only cohere"
	.venv-loadtest/bin/python -m tests.compat $(COMPAT)

bench: .venv-bench/.ready  ## Compare with bare ONNX Runtime and with peers; DATA=DIR for real text
	.venv-bench/bin/python -m loadtest bench $(if $(DATA),--data $(DATA)) $(BENCH)

overload: .venv-loadtest/.ready  ## Offer the service five times what it can do, then soak it
	.venv-loadtest/bin/python -m loadtest overload $(OVERLOAD)
	.venv-loadtest/bin/python -m loadtest soak $(SOAK)

soak: .venv-loadtest/.ready  ## Watch memory under requests of every shape, and catch a leak
	.venv-loadtest/bin/python -m loadtest soak $(SOAK)

fuzz: .venv/.ready  ## Send the service 10,000 good and bad requests of its OpenAPI document
	.venv/bin/python -m tests.fuzz $(FUZZ)

loadtest: .venv-loadtest/.ready  ## Hold URL, or a service of its own, against loadtest/slo.toml
	.venv-loadtest/bin/python -m loadtest users $(if $(URL),--url $(URL)) $(LOADTEST)

loadtest-ui: .venv-loadtest/.ready  ## The same users on a page, 127.0.0.1:8089, against URL or PORT
	.venv-loadtest/bin/python -m locust --locustfile loadtest/locustfile.py --web-host 127.0.0.1 \
		--host $(or $(URL),http://$(HOST):$(PORT))

rules: deploy/k8s/components/monitoring/rules.yaml  ## Make the operator's alert rules of Prometheus'

lock: .venv-lock/.ready  ## Resolve pyproject.toml into constraints.txt anew
	.venv-lock/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" --quiet --output-file constraints.txt

image:  ## Build the serving image with docker or podman
	deploy/image/build.sh $(IMAGE)

image-test:  ## Build the image, run it read-only without a network, and rank in it
	deploy/image/test.sh $(IMAGE)

clean:  ## Remove the environments, the caches and what was built
	rm -rf .venv .venv-serve .venv-loadtest .venv-bench .venv-lock .venv-triton .parts .bench .compat build *.egg-info
	rm -rf service/scorers/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

KERNEL := $(wildcard service/scorers/kernel/*)

.venv-serve/.ready: EXTRAS = cpu
.venv-loadtest/.ready: EXTRAS = cpu,loadtest

.venv-serve/.ready .venv-loadtest/.ready: pyproject.toml constraints.txt $(KERNEL)
	$(call make_venv,$(@D))
	@echo "Installing the service into $(@D) ..."
	@$(@D)/$(PIP_INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

.venv/.ready: EXTRAS = cpu,training,ray,export,loadtest,otel,remote,triton,dev
.venv-bench/.ready: EXTRAS = cpu,export,loadtest

# Torch goes in first and alone, so that nothing after it chooses another build.
.venv/.ready .venv-bench/.ready: pyproject.toml constraints.txt $(KERNEL)
	$(call make_venv,$(@D))
	@echo "Installing torch into $(@D) ..."
	@$(@D)/$(PIP_INSTALL) --no-deps $$($(@D)/bin/python .ci/torch_index.py) torch
	@echo "Installing everything else into $(@D) ..."
	@$(@D)/$(PIP_INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

# Without them the tests of deploy/ are skipped, and under CI=true fail.
.parts/.ready: .ci/parts.sh .ci/parts.txt | .venv/.ready
	@echo "Fetching kubectl, Envoy and Prometheus into .parts ..."
	@.ci/parts.sh && touch $@ || echo "kubectl, Envoy or Prometheus could not be fetched" >&2

RULES := deploy/prometheus/rules.yml
deploy/k8s/components/monitoring/rules.yaml: $(RULES)
	@{ printf '# Made of $(RULES) by `make rules`.\napiVersion: monitoring.coreos.com/v1\n'; \
	printf 'kind: PrometheusRule\nmetadata:\n  name: disranker\nspec:\n'; \
	sed 's/^\(.\)/  \1/' $(RULES); } > $@

.venv-lock/.ready: Makefile
	$(call make_venv,.venv-lock)
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check $(UV)
	@touch $@

# A real Triton for the tests; its backends' Python needs numpy 1, so it has its own environment.
.venv-triton/.ready: tests/triton/requirements.txt
	$(call make_venv,.venv-triton)
	@echo "Installing Triton into .venv-triton ..."
	@.venv-triton/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

define make_venv
@test -n "$(PYTHON)" || { echo "DisRanker needs Python 3.11 or newer with its venv module" \
	"(Debian: apt-get install python3-venv); found $$(python3 --version 2>&1)" >&2; exit 1; }
@$(PYTHON) -m venv $(1)
endef

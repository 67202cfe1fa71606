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
.PHONY: help serve test check lock image image-test clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: .venv-serve/.ready  ## Serve models/default on HOST:PORT (127.0.0.1:8080), without torch
	.venv-serve/bin/python -m service serve --host $(HOST) --port $(PORT)

test: .venv/.ready  ## Set up everything, then run every check and test, as CI does
	@$(MAKE) --no-print-directory check

check:  ## Run every check and test in the environment `make test` has made
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest

lock: .venv-lock/.ready  ## Resolve pyproject.toml into constraints.txt anew
	.venv-lock/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" --quiet --output-file constraints.txt

image:  ## Build the serving image with docker or podman
	deploy/image/build.sh $(IMAGE)

image-test:  ## Build the image, run it read-only without a network, and rank in it
	deploy/image/test.sh $(IMAGE)

clean:  ## Remove the environments, the caches and what was built
	rm -rf .venv .venv-serve .venv-lock build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -rf .hypothesis .import_linter_cache service/scorers/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

KERNEL := $(wildcard service/scorers/kernel/*)

.venv-serve/.ready: pyproject.toml constraints.txt $(KERNEL)
	$(call make_venv,.venv-serve)
	@echo "Installing the service into .venv-serve ..."
	@.venv-serve/$(PIP_INSTALL) --editable '.[cpu]'
	@touch $@

# Torch goes in first and alone, so that nothing after it chooses another build.
.venv/.ready: pyproject.toml constraints.txt $(KERNEL)
	$(call make_venv,.venv)
	@echo "Installing torch into .venv ..."
	@.venv/$(PIP_INSTALL) --no-deps $$(.venv/bin/python .ci/torch_index.py) torch
	@echo "Installing everything else into .venv ..."
	@.venv/$(PIP_INSTALL) --editable '.[cpu,training,export,dev]'
	@touch $@

.venv-lock/.ready: Makefile
	$(call make_venv,.venv-lock)
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check $(UV)
	@touch $@

define make_venv
@test -n "$(PYTHON)" || { echo "DisRanker needs Python 3.11 or newer with its venv module" \
	"(Debian: apt-get install python3-venv); found $$(python3 --version 2>&1)" >&2; exit 1; }
@$(PYTHON) -m venv $(1)
endef

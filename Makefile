# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
VENV := .venv
READY := $(VENV)/.ready
RUN := combined_4.1v_thinking
SNAKEMAKE_FILES := Snakefile rules

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup demo test test-slow lint types format lock clean

help:  ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

setup: $(READY)  ## Make .venv with the exact dependencies of requirements.lock

# uv installs in two minutes what takes pip four; pip is the way out where uv finds no registry.
$(READY): requirements.lock
	@for python in python3.13 python3.12 python3.11 python3 ""; do \
		test -n "$$python" || { echo "error: needs Python 3.11 or newer with its venv module" >&2; exit 1; }; \
		$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; echo "Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)
	@sed -n '/^uv==/,/# via/p' requirements.lock > $(VENV)/uv.txt
	$(VENV)/bin/pip install --quiet --require-hashes -r $(VENV)/uv.txt
	$(VENV)/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock \
		|| $(VENV)/bin/pip install --quiet --require-hashes -r requirements.lock
	@touch $@

demo: $(READY)  ## Run the whole chain on embedded data and models, without a network
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 snakemake --profile profiles/demo results/eval/$(RUN).json
	@python -m workflow_scripts.report && python -m workflow_scripts.report --print $(RUN)

test: $(READY)  ## Run the tests
	pytest -m "not slow and not slurm"

test-slow: $(READY)  ## Run the tests that train to a certain accuracy or start a SLURM cluster
	pytest -m "slow or slurm"

lint: $(READY)  ## Check style and the workflow
	ruff check
	ruff format --check
	snakefmt --check $(SNAKEMAKE_FILES)
	snakemake --lint

types: $(READY)  ## Check types
	mypy

format: $(READY)  ## Mend style
	ruff check --fix
	ruff format
	snakefmt $(SNAKEMAKE_FILES)

lock: $(READY)  ## Write requirements.lock after a change of requirements.in
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" requirements.in --output-file requirements.lock

clean:  ## Delete all results and caches, but not .venv
	rm -rf results .snakemake .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

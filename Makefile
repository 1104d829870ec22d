# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
VENV := .venv
READY := $(VENV)/.ready
RUN := combined_4.1v_thinking
REPORT := results/report/index.html
STORE := results/mlflow.db
PORT := 5000
SNAKEMAKE_FILES := Snakefile rules

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Tests start many a Python; each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# A worker takes a core and two gigabytes. It runs whole modules, whose fixtures are then made once.
PYTEST_ALL := pytest -m "not slow and not slurm" \
	--numprocesses logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder

.PHONY: help setup page demo open mlflow mlflow-server check test test-slow chaos coverage gpu-check lint types format hooks lock docs wheel clean

help:  ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 16

setup: $(READY)  ## Make .venv with the exact dependencies of requirements.lock

$(READY): requirements.lock
	@for python in python3.13 python3.12 python3.11 python3 ""; do \
		test -n "$$python" || { echo "error: needs Python 3.11 or newer with its venv module" >&2; exit 1; }; \
		$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; echo "Making $(VENV) with $$($$python --version)"; sh envs/install.sh $(VENV) $$python
	$(VENV)/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
	@touch $@

# Only what is missing: gradio asks for an older Pillow, and works with this one.
page: $(READY)  ## Add to .venv what the page of `serve` needs: gradio
	uv pip install --quiet --no-deps --require-hashes -r requirements-page.lock

demo: $(READY)  ## Run the whole chain on embedded data and models, without a network
	@HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 python -m workflow_scripts.demo results/eval/$(RUN).json
	@python -m workflow_scripts.report --log_level warning && echo && python -m workflow_scripts.report --print $(RUN)

open:  ## Open the report on all runs in a browser
	@test -f $(REPORT) || { echo "error: $(REPORT): no results yet; run \`make demo\`" >&2; exit 1; }
	@for program in wslview xdg-open open; do \
		command -v $$program >/dev/null && $$program $(REPORT) >/dev/null 2>&1 && exit; \
	done; echo "No browser was found here; open this file in one: $(CURDIR)/$(REPORT)"

mlflow: $(READY)  ## Show the runs and their training curves in MLflow
	@test -f $(STORE) || { echo "error: $(STORE): no runs yet; run \`make demo\`" >&2; exit 1; }
	@! python -c 'import socket; socket.create_connection(("127.0.0.1", $(PORT)), 1)' 2>/dev/null \
		|| { echo "error: port $(PORT) is in use; try \`make mlflow PORT=$$(($(PORT) + 1))\`" >&2; exit 1; }
	@python -m workflow_scripts.tracking --log_level warning
	@echo "MLflow will be at http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=medvqa in a few seconds; Ctrl-C ends it."
	@MLFLOW_DISABLE_TELEMETRY=true PYTHONWARNINGS=ignore mlflow ui --workers 1 \
		--host 127.0.0.1 --port $(PORT) --backend-store-uri sqlite:///$(STORE)

mlflow-server: $(READY)  ## Start an MLflow server with a Postgres of its own, for many jobs that write at once
	@MLFLOW_DISABLE_TELEMETRY=true PYTHONWARNINGS=ignore python -m workflow_scripts.tracking.server --port $(PORT)

check: lint types test  ## Everything that a commit must pass: style, types, tests

test: $(READY)  ## Run the tests, or with FILE=tests/x.py (a path, a test's id, '-k words') only these
	$(if $(FILE),pytest $(FILE),$(PYTEST_ALL))

# Tests on a cluster mostly wait, so the others run beside them.
test-slow: $(READY)  ## Run the tests that train to an accuracy, damage thousands of files or start a SLURM cluster
	@said=$$(mktemp); pytest -m slurm >$$said 2>&1 & trap "kill $$! 2>/dev/null; rm -f $$said" EXIT; trap "exit 1" INT TERM; \
		status=0; pytest -m "slow and not slurm" || status=1; wait $$! || status=1; cat $$said; exit $$status

chaos: $(READY)  ## Let a hundred faults befall the demo's matrix on a SLURM cluster of this machine (an hour; takes root)
	python tests/slurm/chaos.py --faults 100

coverage: $(READY)  ## Run the tests and say how much of the package they cover: at least 90 %
	@status=0; $(PYTEST_ALL) --cov --cov-report= || status=$$?; \
		coverage report --fail-under=0 | awk 'NR == 1 { print "Modules below 90 %:" } /%$$/ && $$NF + 0 < 90'; exit $$status

# On a machine without a network: python3's own packages, and wheels of those that are missing.
gpu-check: $(if $(GPU_CHECK_WHEELS),,$(READY))  ## Check and measure on a GPU within 8 minutes; GPU_CHECK_WHEELS=FOLDER instead of .venv
	@place=$$(mktemp -d) && trap "rm -rf $$place" EXIT && \
		{ test -z "$(GPU_CHECK_WHEELS)" || python3 -m pip install --quiet --no-index --no-deps --no-compile \
			--target $$place $(GPU_CHECK_WHEELS)/*.whl; } && \
		HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 PYTHONPATH=$$place python3 -m benchmarks.gpu_check $(GPU_CHECK_FLAGS)

lint: $(READY)  ## Check style, the order of imports and the workflow
	ruff check
	ruff format --check
	snakefmt --check $(SNAKEMAKE_FILES)
	snakemake --lint
	lint-imports --no-cache --no-logo

types: $(READY)  ## Check types
	mypy

format: $(READY)  ## Mend style
	ruff check --fix
	ruff format
	snakefmt $(SNAKEMAKE_FILES)

hooks: $(READY)  ## Let git check style and types before each commit
	pre-commit install

lock: $(READY)  ## Write requirements*.lock after a change of requirements*.in
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" requirements.in requirements-dev.in --output-file requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --overrides requirements.lock requirements-page.in --output-file requirements-page.lock

docs: $(READY)  ## Write the documents as a site into site/, every link checked
	python docs/site.py site

wheel: $(READY)  ## Build the package's wheel in dist/
	uv build --quiet --wheel --offline --no-build-isolation --out-dir dist

clean:  ## Delete all results and caches, but not .venv
	rm -rf results build dist site .snakemake .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Everything runs in .venv/, which is made on first use and again when requirements.lock changes.
SHELL := /bin/bash
.DELETE_ON_ERROR:
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 5000
JOBS = 1
PAGES = $(if $(filter http%,$(MLFLOW_TRACKING_URI)),,http://$(HOST):$(PORT))
INSTALLED := $(VENV)/.installed
# Two calls at once would make the same .venv/ and run the same stages. The lock ends with its process.
ALONE = exec 9<Makefile; flock --nonblock 9 || { \
	echo "another make is running here: waiting for it to end (Ctrl-C stops waiting)" >&2; flock 9; }

# Checked twice, since another dvc may be writing it.
CUT_SHORT = [ -e dvc.lock ] && ! python -c 'import yaml; from dvc.schema import COMPILED_LOCKFILE_SCHEMA as schema; \
	schema(yaml.safe_load(open("dvc.lock")))' 2>/dev/null

.DEFAULT_GOAL := help
.PHONY: help setup install repro publish ui test test-docs test-real test-cluster test-jax torture mutants coverage lint audit bench \
	bench-quick bench-serve lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## install the locked packages and this project into .venv/

$(INSTALLED): requirements.lock pyproject.toml
	@$(ALONE); [ $@ -nt requirements.lock ] && [ $@ -nt pyproject.toml ] \
		|| $(MAKE) --no-print-directory install GOAL="$(or $(MAKECMDGOALS),setup)"

install:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: TensorFlow needs Python 3.11 to 3.13: make $(GOAL) PYTHON=python3.13" >&2; exit 1; }
	@# Debian has part of venv in a separate package, which root can install right away.
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV) \
		|| { [ "$$(id -u)" = 0 ] && apt-get update && apt-get install --yes python3-venv \
			&& $(PYTHON) -m venv --clear $(VENV); } \
		|| { echo "error: cannot make $(VENV)/; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@awk '/^uv==/ {found = 1} found; found && !/\\$$/ {exit}' requirements.lock >$(VENV)/uv.lock
	pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.lock
	@# uv does not read pip's configuration: pass on its package index and certificates.
	setting() { pip config get "global.$$1" 2>/dev/null; }; \
	index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(setting index-url)}}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	certificates="$${SSL_CERT_FILE:-$${PIP_CERT:-$$(setting cert)}}"; \
	if [ -n "$$certificates" ]; then export SSL_CERT_FILE="$$certificates"; fi; \
	uv pip sync --python $(VENV) --require-hashes --build-constraints requirements.lock \
		--compile-bytecode --quiet requirements.lock \
	&& uv pip install --python $(VENV) --no-deps --no-build-isolation --quiet --editable .
	@touch $(INSTALLED)

repro: $(INSTALLED)  ## run the pipeline: download, split, train, evaluate, compare (JOBS=2: two runs at once)
	@# DVC refuses to start while its list of locks, or dvc.lock, is truncated, as a kill can leave them.
	@# setpriv: what make has started gets SIGTERM when make dies, even by SIGKILL.
	@if [ -e .dvc/tmp/rwlock ]; then flock .dvc/tmp/rwlock.lock sh -c \
		'python -m json.tool .dvc/tmp/rwlock >/dev/null 2>&1 || rm -f .dvc/tmp/rwlock'; fi
	@$(ALONE); if $(CUT_SHORT) && sleep 1 && $(CUT_SHORT); then \
		echo "dvc.lock was truncated: restored from Git; what has run since comes from DVC's cache" >&2; \
		git checkout --quiet -- dvc.lock 2>/dev/null || rm dvc.lock; fi; \
		pipeline="$(if $(filter 1,$(JOBS)),dvc repro,image-classification repro --jobs $(JOBS))"; \
		echo $$pipeline; exec setpriv --pdeathsig TERM $$pipeline
	@cat reports/leaderboard.md
	@printf '\nReport       reports/index.html\nLeaderboard  reports/leaderboard.md, reports/leaderboard.json\nEach run     runs/ and evaluations/, one folder each\n'
	@image-classification sync
	@printf 'MLflow       make ui, and then\n'; image-classification links $(PAGES)

publish: $(INSTALLED)  ## copy the results that Git keeps: README's picture; with STUDY=name, all of studies/name/
	@mkdir -p docs/images && cp reports/figures/leaderboard.png docs/images/
	@if [ -n "$(STUDY)" ]; then mkdir -p "studies/$(STUDY)" && cd reports && cp index.html leaderboard.md \
		leaderboard.json verdict.json likely_label_errors.csv figures/leaderboard.png \
		$$(ls figures/differences.png 2>/dev/null) "../studies/$(STUDY)/"; fi

ui: $(INSTALLED)  ## browse the runs and the registered models in MLflow (HOST=127.0.0.1, PORT=5000)
	@image-classification links $(PAGES)
	@case "$$MLFLOW_TRACKING_URI" in \
		http*) ;; \
		*) exec mlflow ui --host $(HOST) --port $(PORT) \
			--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" ;; \
	esac

test: $(INSTALLED)  ## run the tests (no network needed)
	pytest --numprocesses 2

torture: $(INSTALLED)  ## kill the pipeline and its server again and again, fuzz every reader (half an hour)
	pytest -m torture --capture=no
	HOSTILE_EXAMPLES=1000 pytest --capture=no tests/core/test_hostile.py

test-docs: $(INSTALLED)  ## run the commands of the README and docs/
	pytest -m docs --numprocesses 2

mutants: $(INSTALLED)  ## mutation testing: put hundreds of faults into the code; do the tests notice? (an hour)
	python tests/mutants.py

coverage: $(INSTALLED)  ## run the tests and report which lines and branches they cover
	pytest --numprocesses 2 --cov --cov-report=term --cov-report=html

test-cluster: $(INSTALLED)  ## a team's server, object stores, SLURM and Ray, on this machine (apt-get install postgresql slurm-wlm munge)
	uv pip install --python $(VENV) --quiet --constraint requirements.lock --group cluster \
		--requirement pyproject.toml --extra ray
	pytest -m cluster --capture=no

test-jax: $(INSTALLED)  ## train, resume and compare with JAX in place of TensorFlow (installs it; minutes)
	uv pip install --python $(VENV) --quiet --constraint requirements.lock --requirement pyproject.toml --extra jax
	pytest -m slow --numprocesses 2 tests/stages/test_jax.py

test-real: $(INSTALLED)  ## run the default pipeline on the real MNIST and check the accuracies
	pytest -m real --capture=no

lint: $(INSTALLED)  ## check style, format and types
	ruff check .
	ruff format --check .
	mypy

audit: $(INSTALLED)  ## check the locked packages for known vulnerabilities (asks osv.dev)
	@cat docs/accepted-vulnerabilities.txt
	@# On an error it prints a traceback: only the last line is shown.
	@pip-audit --strict --disable-pip --requirement requirements.lock --vulnerability-service osv \
		--progress-spinner off --desc on --aliases on \
		$$(sed -nE 's/^([A-Z]\S+).*/--ignore-vuln \1/p' docs/accepted-vulnerabilities.txt) 2> >(tail -n 1 >&2)

bench: $(INSTALLED)  ## measure speed against a plain Keras loop (1 to 2 hours; after `make repro`; resumes after a kill)
	@$(ALONE); exec python benchmarks/run.py

bench-quick: $(INSTALLED)  ## the same on less data (10 to 15 minutes)
	@$(ALONE); exec python benchmarks/run.py --effort quick

bench-serve: $(INSTALLED)  ## measure the server against `mlflow models serve` (5 minutes)
	python benchmarks/serve.py

lock: $(INSTALLED)  ## renew requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --group dev --extra serve --extra parallel --extra slurm \
		--universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --upgrade \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock
	uv pip compile --group serving --constraint requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --quiet --output-file requirements-serving.lock

clean:  ## remove the environment, manual runs and unfinished ones; data, models and MLflow stay
	rm -rf $(VENV) outputs multirun checkpoints

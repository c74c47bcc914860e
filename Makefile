# Everything runs in .venv/, which is made on first use and again when requirements.lock changes.
SHELL := /bin/bash
.DELETE_ON_ERROR:
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PYTHON ?= python3
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup repro ui test test-real lint lock clean

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## install the locked packages and this project into .venv/

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: TensorFlow needs Python 3.11 to 3.13: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.13" >&2; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV) \
		|| { echo "error: cannot make $(VENV)/; on Debian: apt-get install python3-venv" >&2; exit 1; }
	pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	@# uv does not read pip's settings: hand it the package index that pip is set up with.
	index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(pip config get global.index-url 2>/dev/null)}}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	uv pip sync --python $(VENV) --require-hashes --compile-bytecode --quiet requirements.lock \
	&& uv pip install --python $(VENV) --no-deps --no-build-isolation --quiet --editable .
	@touch $@

repro: $(INSTALLED)  ## run the pipeline: download, split, train, evaluate, compare
	dvc repro
	@cat reports/leaderboard.md
	@printf '\nLeaderboard  reports/leaderboard.md, reports/leaderboard.json\nFigures      reports/figures/ (comparison), models/ and evaluations/ (one folder a training)\nRuns         make ui   (MLflow at http://127.0.0.1:5000)\n'

ui: $(INSTALLED)  ## look at the runs and the registered models in MLflow
	mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

test: $(INSTALLED)  ## run the tests (no network needed)
	pytest --numprocesses 2 --dist loadgroup

test-real: $(INSTALLED)  ## run the default pipeline on the real MNIST and check the accuracies
	pytest -m real --capture=no

lint: $(INSTALLED)  ## check style, format and types
	ruff check .
	ruff format --check .
	mypy

lock: $(INSTALLED)  ## resolve pyproject.toml anew into requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --upgrade \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock

clean:  ## remove the environment and the by-hand trainings; data, models and runs stay
	rm -rf $(VENV) outputs multirun

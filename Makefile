# make demo, make test: the two commands. Everything they need is installed into .venv and the cache of the sandbox.
SHELL := /bin/bash
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-unit e2e chaos soak simulate bench check format sandbox node sandbox-env sandbox-down lock clean

help:
	@echo "make demo          the main job on an embedded control plane and a stand-in Squidex; ends by itself"
	@echo "make test          all tests, with coverage"
	@echo "make test-unit     the tests that need no control plane: seconds"
	@echo "make e2e           the tests whose pods run, on a real node (root and Linux); KUBECONFIG=… runs them in that cluster"
	@echo "make chaos         kills the operator 50 times with renewals and faults going on: four minutes; SEED=… repeats a run"
	@echo "make soak          two hours of random faults on one operator, and whether it has grown; MINUTES=…"
	@echo "make simulate      ninety days of ten thousand SquidexClients, in minutes"
	@echo "make bench         speed and size, side by side with a bare client loop; half an hour; a quiet machine, please"
	@echo "make check         format, lint, types, imports"
	@echo "make sandbox       leave a control plane, a stand-in Squidex and the operator running, and say how to use them"
	@echo "make node          the same with a real node, on which the operator's Deployment runs (root and Linux)"
	@echo "make sandbox-env   the variables of either, for a shell: eval \"\$$(make --silent sandbox-env)\""
	@echo "make sandbox-down  end either"
	@echo "make lock          pin the dependencies anew"

# The lock is whole, so nothing is to be resolved: some versions of pip take a release made since for one that is not pinned.
# The stamp is the last thing written: an installation that was cut off is done again.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": set PYTHON=/path/to/python3")'
	@echo "installing the Python packages into $(VENV): usually half a minute"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "python3 -m venv does not work: on Debian and Ubuntu, install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/python -m sandbox.demo

test: $(READY)
	@$(BIN)/python -m sandbox binaries >/dev/null
	@$(BIN)/pytest --numprocesses=$(WORKERS) --dist=loadfile --cov --cov-report=term --durations=10
	@$(BIN)/coverage report --include='*/squidex_operator/policy/*,*/squidex_operator/api/*' --fail-under=100 >/dev/null \
		|| { echo "policy/ and api/ must be covered wholly, by branch"; exit 1; }
	@$(BIN)/coverage report --fail-under=90 >/dev/null || { echo "the package must be covered by 90 %"; exit 1; }

test-unit: $(READY)
	@$(BIN)/pytest tests/unit

# Only a KUBECONFIG of this command line counts: nobody's own cluster is used because a variable is set.
CLUSTER := $(if $(findstring command,$(origin KUBECONFIG)),--kubeconfig=$(KUBECONFIG))
# What the node takes is got first, where progress can be seen. 3: this machine lacks something; the tests are skipped and say so.
e2e: $(READY)
	@$(if $(CLUSTER),,$(BIN)/python -m sandbox node --prepare >/dev/null || test $$? -eq 3)
	@$(BIN)/pytest tests/pods -m node $(CLUSTER) $(ARGS)

chaos: $(READY)
	@$(BIN)/python -m tests.faults.chaos --kills $${KILLS:-50} $${SEED:+--seed $$SEED}

soak: $(READY)
	@$(BIN)/python -m tests.faults.soak --minutes $${MINUTES:-120} $${SEED:+--seed $$SEED}

simulate: $(READY)
	@$(BIN)/python -m tests.simulation $(ARGS)

bench: $(READY)
	@$(BIN)/python -m benchmarks $(ARGS)

check: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

sandbox: $(READY)
	@$(BIN)/python -m sandbox up --detach --operator

node: $(READY)
	@$(BIN)/python -m sandbox node $(or $(ARGS),--detach)

sandbox-env: $(READY)
	@$(BIN)/python -m sandbox env

sandbox-down: $(READY)
	@$(BIN)/python -m sandbox down

# uv.lock would record the addresses of registries; a requirements file with hashes does not.
lock: $(READY)
	@for name in build:requirements/build.in runtime:pyproject.toml "dev:pyproject.toml requirements/dev.in"; do \
		uvx --from uv uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-header $${name#*:} --output-file requirements/$${name%%:*}.txt; done

clean:
	rm -rf $(VENV) .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# You need git, make, curl and Python 3.11 or newer with venv. Everything else is installed into .venv.
#   make run                          serve on http://127.0.0.1:8000; docs/settings.md lists the settings
#   make test                         run the whole test suite; nothing has to be running
#   make run PYTHON=python3.13        use another Python

.DEFAULT_GOAL := help
.PHONY: help run install install-dev test test-clients test-peers lint format bench lock package image compose-check clean

# An existing .venv keeps its Python until you name another one.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell .venv/bin/python -c "" 2>/dev/null && echo .venv/bin/python || echo python3)
endif

BIN := .venv/bin
IMAGE ?= llm-service
UV_VERSION := 0.13.8

help:
	@echo "make run          install what is needed and serve on http://127.0.0.1:8000"
	@echo "make test         run the whole test suite (ARGS='-k name' for a part of it)"
	@echo "make test-clients install client libraries and coding agents, and run all their tests (about 10 minutes)"
	@echo "make test-peers   run the service in front of LiteLLM, llama.cpp and aimock (PEERS_BUILD=1 compiles llama.cpp)"
	@echo "make install      install what make run needs, without serving"
	@echo "make install-dev  install what tests and linters need too"
	@echo "make lint         run ruff, mypy and hadolint, and check the Compose file"
	@echo "make format       let ruff format the code"
	@echo "make bench        measure requests per second and added latency, compared with a bare Flask endpoint"
	@echo "make lock         resolve requirements*.in again (LOCK=--upgrade for newer versions)"
	@echo "make package      build the wheel and try it in a clean environment"
	@echo "make image        build the container image with docker"
	@echo "make clean        remove what make created; the instance folder stays"

# With exec, gunicorn is the direct child of make, so make passes SIGTERM on to it and waits until it has ended.
run: install
	@exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

install:
	@$(PYTHON) scripts/install.py

install-dev:
	@$(PYTHON) scripts/install.py --dev

# Most tests spend more time waiting for a server than computing, so four run at a time, even on two cores.
test: install-dev
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Each group of client libraries has an environment of its own under build/clients, and the agents one under build/node.
test-clients: install-dev
	@CLIENT_TESTS=all NODE_TESTS=required $(BIN)/python -m pytest -n 2 tests/clients tests/contract/test_node_sdks.py $(ARGS)

# These servers are too large for every run. Each gets an environment of its own under build/peers at the first run.
test-peers: install-dev
	@PEERS=1 $(BIN)/python -m pytest tests/peers $(ARGS)

lint: install-dev compose-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# The test checks the files without a container engine. If docker compose is installed, it checks the Compose file too.
compose-check: install-dev
	$(BIN)/python -m pytest tests/test_container_files.py -k "not health_check"
	@if docker compose version >/dev/null 2>&1; then \
		POSTGRES_PASSWORD=check LLM_SERVICE_SECRET=check docker compose --env-file /dev/null config --quiet; \
	fi

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install-dev
	@$(BIN)/python -m benchmarks $(ARGS)

# The resolver has an environment of its own, so that a lock that cannot be installed can still be made again. The UV_*
# variables and the configuration files of this machine are ignored, because the lock must describe the public index.
UV_PLAIN := env -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_DEFAULT_INDEX -u UV_FIND_LINKS build/lock/bin/uv --no-config
COMPILE := $(UV_PLAIN) pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" $(LOCK)

lock:
	@test -x build/lock/bin/uv || { $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(COMPILE) -o requirements.txt requirements.in
	$(COMPILE) -o requirements-dev.txt requirements-dev.in
	@for name in $(basename $(wildcard tests/clients/requirements/*.in)); do $(COMPILE) -o $$name.txt $$name.in; done

package:
	@PYTHON=$(PYTHON) scripts/check_package

image:
	docker build -t $(IMAGE) .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs git, make, curl and Python >= 3.11 with venv; everything else is installed into .venv.
#   make run                          serve on http://127.0.0.1:8000 (settings by environment: docs/settings.md)
#   make test                         the whole suite; nothing has to be running
#   make run PYTHON=python3.13        choose the Python

.DEFAULT_GOAL := help
.PHONY: help run install install-dev test lint format bench lock package image compose-check clean

# An existing .venv keeps its Python until another one is named.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell .venv/bin/python -c "" 2>/dev/null && echo .venv/bin/python || echo python3)
endif

BIN := .venv/bin
IMAGE ?= llm-service
UV_VERSION := 0.13.8

help:
	@echo "make run      install what is needed and serve on http://127.0.0.1:8000"
	@echo "make test     run the whole suite (ARGS='-k name' for a part)"
	@echo "make install  what make run does before serving"
	@echo "make lint     ruff, mypy, hadolint, compose file"
	@echo "make format   let ruff rewrite the code"
	@echo "make bench    requests/s and added latency, beside a bare Flask endpoint"
	@echo "make lock     resolve requirements*.in again (LOCK=--upgrade for newer versions)"
	@echo "make package  build the wheel and try it in a clean environment"
	@echo "make image    docker build"
	@echo "make clean    remove what make made; the instance folder stays"

# exec: gunicorn is make's own child, so make hands it a SIGTERM and waits for its clean end.
run: install
	@exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

install:
	@$(PYTHON) scripts/install.py

install-dev:
	@$(PYTHON) scripts/install.py --dev

# Most tests wait for a server more than they compute: four at a time, also on two cores.
test: install-dev
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install-dev compose-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# The same check runs in tests/test_container_files.py; docker compose adds its own where it is installed.
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

# A resolver of its own, so that a broken lock can still be remade. UV_* and configuration files of this
# machine are left out: the lock must be what the public index serves.
UV_PLAIN := env -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_DEFAULT_INDEX -u UV_FIND_LINKS build/lock/bin/uv --no-config
COMPILE := $(UV_PLAIN) pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" $(LOCK)

lock:
	@test -x build/lock/bin/uv || { $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(COMPILE) -o requirements.txt requirements.in
	$(COMPILE) -o requirements-dev.txt requirements-dev.in

package:
	@PYTHON=$(PYTHON) scripts/check_package

image:
	docker build -t $(IMAGE) .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

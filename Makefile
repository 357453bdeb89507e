# make demo    runs the product on the bundled simulator
# make run     runs it on your account: VOCOBASE_API_KEY, and CONFIG=FILE for a configuration file
# make stack   the demo with Prometheus, the rules and Alertmanager on loopback, until Ctrl-C
# make prove   simulates weeks of bad weather in virtual time, and judges the promises of healing at the vendor
# make test    runs the tests, after installing the system programs they need where that is possible
# make test-fast runs those of them that start no process
# make lint    formatting, lint, types, layers, generated files, the Dockerfile, the workflows
# make mutants breaks healing on purpose, one small change at a time, and shows what no test notices
# make bench   measures speed and size beside what a user would write instead
# make lock    resolves the dependencies anew; make generate writes the generated files anew
# make dist    builds the sdist and the wheel; make sbom lists what an installation consists of; both into dist/
# make audit   asks PyPI whether something is known against what is installed; fails where it can't tell, too
# make package-check  installs the wheel with pipx and runs it; lists what the lock installs
# make image-check  builds the Dockerfile and runs what it made; for root on Debian

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/sh
.DELETE_ON_ERROR:
unexport PYTHONDONTWRITEBYTECODE # tests start hundreds of processes: each would compile the product anew
.PHONY: demo run stack test test-fast lint prove mutants bench docs generate lock dist sbom audit package-check image-check system \
	clean

demo: $(VENV)/run.stamp
	$(BIN)/voicelink-exporter demo $(ARGS)

run: $(VENV)/run.stamp
	$(BIN)/voicelink-exporter serve $(if $(CONFIG),--config.file=$(CONFIG)) $(ARGS)

stack: $(VENV)/run.stamp system
	$(BIN)/python tools/stack.py $(ARGS)

# Tests that start processes wait for them half of their time: one worker more than there are cores fills that.
test: $(VENV)/dev.stamp system
	$(BIN)/python -m pytest --numprocesses=$$($(BIN)/python -c 'import os; print(os.cpu_count() + 1)') --cov --cov-report=term $(ARGS)

test-fast: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -p tests.fast --numprocesses=auto $(ARGS)

prove: $(VENV)/dev.stamp system
	$(BIN)/python -m tests.simulation $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir $(VENV)/import-linter
	$(BIN)/python tools/generate.py --check
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet --pedantic .github

mutants: $(VENV)/dev.stamp system
	$(BIN)/python -m tools.mutants $(ARGS)

docs: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/docs $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/run.py $(ARGS)

generate: $(VENV)/dev.stamp
	$(BIN)/python tools/generate.py

dist: $(VENV)/dev.stamp
	$(BIN)/python -m hatchling build --clean

sbom: $(VENV)/dev.stamp
	mkdir -p dist
	$(BIN)/python tools/supply_chain.py sbom dist/voicelink-exporter.cdx.json

audit: $(VENV)/dev.stamp
	$(BIN)/python tools/supply_chain.py audit $(ARGS)

package-check: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --timeout=600 $(ARGS) tests/packaging/checks.py

image-check: $(VENV)/dev.stamp
	@sh tools/install-system-programs buildah debootstrap
	$(BIN)/python -m pytest --timeout=900 $(ARGS) tests/image/checks.py

# The system programs that the tests start. Where they can't be installed, the tests that need them say so.
system:
	@sh tools/install-system-programs

$(VENV)/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	touch $@

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock"

lock: $(VENV)/dev.stamp
	$(BIN)/$(LOCK) pyproject.toml --extra postgres -o requirements/run.txt
	$(BIN)/$(LOCK) --group build -c requirements/run.txt -o requirements/build.txt
	$(BIN)/$(LOCK) pyproject.toml --extra postgres --group dev -c requirements/run.txt -c requirements/build.txt -o requirements/dev.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*

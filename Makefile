# bolide's commands; `make` alone lists them. Each sets up what it needs and is quick when nothing has changed.
#
# PYTHON=python3.13 make test   picks an interpreter; its environment is then .venv-3.13 instead of .venv
# make test ARGS="-k stream -x" passes arguments on (test, sanitize, autobahn, fuzz, test-sid, drill, bench, bench-loop)
# BOLIDE_LTO=0 make test        builds in a few seconds, for development; setup.py names the other switches

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

RUFF := ruff==0.17.5
CLANG_FORMAT := clang-format==20.1.8
MYPY := mypy==2.4.1
PYRIGHT := pyright[nodejs]==1.1.414
HOST ?= 127.0.0.1
PORT ?= 8000
ARGS ?=
export ARGS

is_recent := import sys; sys.exit(sys.version_info < (3, 11))
version_of := import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(is_recent)' 2>/dev/null && echo $$python && exit; done; echo python3)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c '$(version_of)' 2>/dev/null)
endif
SANITIZE_VENV := $(VENV)-sanitize
TOOLS_VENV := .venv-tools
TYPES_VENV := .venv-types
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# An environment whose interpreter is gone (an upgrade of the system) is made anew.
$(foreach venv,$(VENV) $(SANITIZE_VENV) $(TOOLS_VENV) $(TYPES_VENV),$(shell test -x $(venv)/bin/python || rm -f $(venv)/.made $(venv)/.has-*))

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- Environments ------------------------------------------------------------------------------------------------------

define make_venv
@$(PYTHON) -c '$(is_recent)' 2>/dev/null || \
	{ echo "error: bolide needs CPython 3.11 or newer, which $(PYTHON) is not; PYTHON=<interpreter> picks another" >&2; exit 1; }
@$(PYTHON) -B build_support/toolchain.py
@echo "making $(@D)"
@$(PYTHON) -m venv $(@D)
@$(@D)/bin/python $(PIP_INSTALL) 'setuptools>=77'
@touch $@
endef

$(VENV)/.made:
	$(make_venv)

$(SANITIZE_VENV)/.made:
	$(make_venv)

$(TOOLS_VENV)/.made: Makefile
	@echo "making $(@D): $(RUFF), $(CLANG_FORMAT), build"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) $(RUFF) $(CLANG_FORMAT) build
	@touch $@

$(TYPES_VENV)/.made: Makefile
	@echo "making $(@D): $(MYPY), $(PYRIGHT)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) '$(MYPY)' '$(PYRIGHT)'
	@touch $@

# bolide itself, editable, with the dependencies of one extra: $(VENV)/.has-test, $(VENV)/.has-examples.
$(VENV)/.has-%: $(VENV)/.made pyproject.toml | build
	@echo "installing bolide[$*] into $(VENV)"
	@$(VENV)/bin/python $(PIP_INSTALL) --no-build-isolation --editable '.[$*]'
	@touch $@

# -- Building and running ----------------------------------------------------------------------------------------------

.PHONY: build
build: $(VENV)/.made ## Compile what has changed, in place
	@$(VENV)/bin/python setup.py --quiet build_ext --inplace

.PHONY: serve
serve: build $(VENV)/.has-examples ## Serve the example application on HOST:PORT until Ctrl-C
	@$(VENV)/bin/bolide --app-dir examples fastapi_app.main:app --host $(HOST) --port $(PORT) $(ARGS)

# Two at a time: tests wait more than they compute. ARGS=-n0 runs one after another, in pytest's own process.
.PHONY: test
test: build $(VENV)/.has-test ## Run the tests
	@$(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

.PHONY: test-libraries
test-libraries: build $(VENV)/.has-libraries ## Run the tests of real libraries on the loop, against real servers
	@$(VENV)/bin/python -m pytest -p no:asyncio tests/libraries $(ARGS)

.PHONY: conformance
conformance: $(VENV)/.has-libraries ## Hold loop and server against others' tests: CPython, uvloop, uvicorn, Starlette, FastAPI
	@status=0; for suite in cpython uvloop uvicorn frameworks; do $(MAKE) conformance-$$suite || status=1; done; exit $$status

.PHONY: conformance-cpython conformance-uvloop conformance-uvicorn conformance-frameworks
conformance-cpython: build $(VENV)/.has-test # and uvloop too where it is installed
	@$(VENV)/bin/python tests/conformance/cpython.py $(ARGS)

conformance-uvloop: build $(VENV)/.has-libraries
	@$(VENV)/bin/python tests/conformance/uvloop_suite.py $(ARGS)

conformance-uvicorn: build $(VENV)/.has-test
	@$(VENV)/bin/python tests/conformance/uvicorn_suite.py $(ARGS)

conformance-frameworks: build $(VENV)/.has-test
	@$(VENV)/bin/python tests/conformance/frameworks.py $(ARGS)

.PHONY: sanitize
sanitize: $(SANITIZE_VENV)/.made ## Run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@sh build_support/sanitize.sh $(SANITIZE_VENV) $(ARGS)

.PHONY: autobahn
autobahn: build $(VENV)/.has-test ## Run the Autobahn test suite for WebSocket (needs Python 2.7; 10 to 20 minutes)
	@$(VENV)/bin/python tests/conformance/autobahn.py $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.made ## Fuzz the server, and WebSocket frames alone, for a minute (needs clang)
	@sh build_support/fuzz.sh $(VENV)/bin/python $(ARGS)

.PHONY: test-sid
test-sid: ## Run the tests, and CPython's, on 3.14 and 3.15 in a Debian sid root (needs root and debootstrap)
	@sh build_support/sid.sh

.PHONY: drill
drill: build $(VENV)/.has-test ## Replace, stop and kill workers under load, and count what is lost
	@$(VENV)/bin/python tests/server/drills.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.made ## Measure the server and its peers side by side
	@$(VENV)/bin/python -m benchmarks.server $(ARGS)

.PHONY: bench-loop
bench-loop: $(VENV)/.made ## Measure the event loop and its peers side by side
	@$(VENV)/bin/python -m benchmarks.loops $(ARGS)

.PHONY: corpus
corpus: $(VENV)/.made build ## Hold bolide and its peers against the corpus of malformed requests
	@$(VENV)/bin/python $(PIP_INSTALL) uvicorn httptools granian
	@cd tests/http && $(abspath $(VENV))/bin/python -m corpus $(ARGS)

# -- Source form -------------------------------------------------------------------------------------------------------

c_files = $(shell find src $(wildcard benchmarks examples tests) -name '*.[ch]')

.PHONY: lint
lint: $(TOOLS_VENV)/.made ## Check the form of the C and Python sources
	$(TOOLS_VENV)/bin/clang-format --dry-run -Werror $(c_files)
	$(TOOLS_VENV)/bin/ruff check
	$(TOOLS_VENV)/bin/ruff format --check

.PHONY: types
types: $(TYPES_VENV)/.made ## Check the types, and a program that uses all of them, with mypy and pyright
	@for version in 3.11 3.13 3.15; do \
		echo "types of Python $$version" && $(TYPES_VENV)/bin/mypy --python-version $$version && \
		PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(TYPES_VENV)/bin/pyright --pythonversion $$version || exit 1; \
	done

.PHONY: format
format: $(TOOLS_VENV)/.made ## Bring the C and Python sources into form
	$(TOOLS_VENV)/bin/clang-format -i $(c_files)
	$(TOOLS_VENV)/bin/ruff check --fix
	$(TOOLS_VENV)/bin/ruff format

# -- Packages ----------------------------------------------------------------------------------------------------------

.PHONY: dist
dist: $(TOOLS_VENV)/.made ## Make the source distribution and the wheel, in dist/
	@rm -rf dist
	$(TOOLS_VENV)/bin/python -m build

.PHONY: clean
clean: ## Remove what was built; environments and fetched sources stay
	rm -rf build dist python/bolide.egg-info python/bolide/_core.*.so .pytest_cache .ruff_cache

.PHONY: distclean
distclean: clean ## Remove environments and fetched sources too
	rm -rf .venv .venv-* third_party

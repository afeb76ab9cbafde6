# Every target sets up what it needs and nothing twice: virtual environment in .venv, generated files in build/,
# Debian packages through tools/setup-debian (root or sudo, else one line that names what is missing).

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# Tests run side by side, one process more than there are CPUs: some wait. Each reads the byte code that the first run
# has left in build/.
SIDE_BY_SIDE := -n $(shell expr $$(nproc) + 1) --dist worksteal
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/bytecode
# C that Cython made once is not made again, neither here nor where a test builds the package.
export CYTHON_CACHE_DIR := $(CURDIR)/build/cython
SOURCES := $(shell find acrn_dm plugins -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
EXTENSIONS := $(subst /,.,$(basename $(shell find acrn_dm -name '*.pyx')))

.PHONY: demo test test-unit test-lab lint bench docs ext format debian clean
.DELETE_ON_ERROR:

demo: ext
	@$(PY) -m lab.demo

test: ext
	@$(PY) -m tools.side_by_side

test-unit: ext
	$(PYTEST) tests plugins -m "not lab and not process and not stress" $(SIDE_BY_SIDE)

test-lab: ext
	$(PYTEST) tests -m lab

lint: ext
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest $(EXTENSIONS)
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint acrn_dm benchmarks

bench: ext
	$(PY) -m benchmarks

docs: ext
	$(PY) -m tools.docs build/docs

format: ext
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

ext: build/.ext

build/.ext: $(SOURCES) setup.py build/.venv
	@echo "building the extension modules (about a minute)"
	@$(PY) setup.py -q build_ext --inplace
	@for s in plugins/*/setup.py; do (cd $$(dirname $$s) && $(CURDIR)/$(PY) setup.py -q build_ext --inplace) || exit 1; done
	@touch $@

# --no-build-isolation: the extension modules are built by the Cython that the lint and the stubs are checked with.
build/.venv: pyproject.toml $(wildcard plugins/*/pyproject.toml) tools/setup-debian
	@sh tools/setup-debian
	@echo "setting up .venv"
	@mkdir -p build
	@test -x $(PY) || python3 -m venv .venv
	@$(PY) -m pip install -q --disable-pip-version-check "Cython>=3.1,<4" "setuptools>=77" wheel
	@$(PY) -m pip install -q --disable-pip-version-check --no-build-isolation -e ".[test,dev,docs]"
	@for p in plugins/*/; do $(PY) -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e "$$p" || exit 1; done
	@touch $@

clean:
	rm -rf build .venv *.egg-info $(shell find acrn_dm -name '*.so')

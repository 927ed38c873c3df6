# Every target is complete from a fresh clone: the first one makes .venv and installs into it.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CONSTRAINTS := tests/constraints.txt
LINKED := build/types/newtriton
# Every Triton that newtriton is tested with, and what of the tests depends on its version.
TRITONS := 3.6.0 3.7.1 3.8.0 3.9.0
OF_TRITON := tests/kernels tests/runtime/fused tests/runtime/checking tests/runtime/test_versions.py
BESIDE_3.6.0 := 'numpy<2.4'  # its interpreter's loops break with newer ones
LINKS := compiler kernels runtime bench newtriton/command newtriton/__init__.py

# One process per core, up to eight. Each begins with a part of the tests, then takes over others'.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Kept: what a pattern rule makes on the way to another is deleted otherwise.
.PRECIOUS: build/versions/%/.installed
.PHONY: demo test quick soak versions docs package lint types format clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py --output runs/demo.png

test: $(INSTALLED)
	$(PYTEST)

# All that needs no kernel to run in Triton's interpreter.
quick: $(INSTALLED)
	$(PYTEST) -m "not interpreter"

# An hour of kills, damage and failures; what build/soak.json has already is not tried again.
soak: $(INSTALLED)
	$(BIN)/python -m tests.soak

# The tests under each Triton. They are installed into build/versions, up to a gigabyte each.
versions: $(TRITONS:%=version-%)

version-%: build/versions/%/.installed
	export PYTHONPATH=$(CURDIR)/build/versions/$*; \
	$(BIN)/python -c "import triton; assert triton.__version__ == '$*', triton" && \
	$(PYTEST) $(OF_TRITON)

build/versions/%/.installed: | $(INSTALLED)
	$(BIN)/pip install --upgrade --no-deps --target $(@D) triton==$* $(BESIDE_$*)
	touch $@

# What a release is made of, and whether it runs where nothing is installed but what it asks for.
package: $(INSTALLED)
	rm -rf dist build/empty
	$(BIN)/python -m build --no-isolation
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install -c $(CONSTRAINTS) dist/*.whl
	cd build/empty && bin/newtriton train --epochs 1 --output run

# The site, into build/site. A warning is an error: a link that leads nowhere, a page that nobody lists.
docs: $(INSTALLED) $(LINKED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f docs/site/mkdocs.yml

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MAKE) --no-print-directory types

types: $(INSTALLED) $(LINKED)
	$(BIN)/basedpyright

# The folders under the names they are installed by: pyproject.toml says why.
$(LINKED): Makefile
	mkdir -p $(LINKED)
	ln -sfn $(addprefix ../../../,$(LINKS)) $(LINKED)
	touch $@

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv build dist runs *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The constraints hold everywhere: torch alone, unbounded, would pull gigabytes.
$(INSTALLED): pyproject.toml $(CONSTRAINTS) tests/oracles.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c $(CONSTRAINTS) -e '.[dev]'
	$(BIN)/pip install -c $(CONSTRAINTS) --no-deps -r tests/oracles.txt
	touch $@

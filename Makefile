# Two commands for a newcomer: `make demo` and `make test`. Both make .venv and install what they need.
.DEFAULT_GOAL := help
.PHONY: help demo test quick test-torch test-onnx lint constraints clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/'

demo:  ## the whole story on this machine, in three minutes
	@tools/bootstrap.sh demo
	@.venv/bin/edge demo $(ARGS)

test:  ## everything that must hold: lint, types, architecture, tests, wheel, other runtimes and Pythons
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py $(ARGS)

quick:  ## lint, types and the fast tests
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py lint quick

test-torch:  ## the tests on PyTorch sources; installs gigabytes
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py torch

test-onnx:  ## the tests on ONNX sources; installs gigabytes
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py onnx

lint:  ## lint, types and architecture
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py lint

constraints:  ## pin the newest allowed versions anew (without addresses)
	@tools/bootstrap.sh test
	@.venv/bin/python tools/check.py constraints

clean:  ## remove what the above made
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

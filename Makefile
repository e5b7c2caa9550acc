PYTHON ?= python3
PIP = .venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

serve: .venv/.serve ## install what is missing, start the service on 127.0.0.1:8000
	@exec .venv/bin/headline serve

test: .venv/.test ## install what is missing, then lint, types and tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest

train: .venv/.train ## install what `headline train` and `headline evaluate` need

test-cuda: .venv/.test ## the tests that need an NVIDIA card
	.venv/bin/pytest -m cuda

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.serve: pyproject.toml constraints.txt | .venv
	$(PIP) --editable .
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv
	$(PIP) --editable '.[test,bench,train]'
	@touch .venv/.serve .venv/.train $@

.venv/.train: pyproject.toml constraints.txt | .venv
	$(PIP) --editable '.[train]'
	@touch .venv/.serve $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: serve test train test-cuda clean

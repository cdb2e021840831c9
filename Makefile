# `make reach-grasp` runs the main job, `make test` the tests, `make docs` builds the site of the pages. The first call builds .venv.
# ARGS="..." passes flags on: make reach-grasp ARGS="--quick". PYTHON=... chooses the Python for .venv.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: reach-grasp test test-docs docs notebooks lint clean

reach-grasp: $(STAMP)
	$(VENV)/bin/python benchmarks/reach_grasp.py $(ARGS)

test: $(STAMP)
	-@tools/system_libs.sh tests  # without a browser its tests are skipped
	$(VENV)/bin/python -m pytest $(ARGS)

test-docs: $(STAMP)
	$(VENV)/bin/python -m pytest tests/test_pages.py tests/test_site.py tests/test_docs.py tests/test_gallery.py tests/test_notebooks.py $(ARGS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo "open build/site/index.html"

notebooks: $(STAMP)
	$(VENV)/bin/python tools/notebooks.py $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m pyright

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# The stamp holds the folder it was made for: a virtual environment that was copied or moved is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@tools/system_libs.sh
	@if [ "$$(cat $@ 2>/dev/null)" != "$(CURDIR)" ]; then \
	  echo "jepa-gym: making $(VENV) and installing the pinned packages (some minutes)"; \
	  python=$$(tools/find_python.sh) && "$$python" -m venv --clear $(VENV); \
	fi
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e ".[dev]" -c constraints.txt
	$(VENV)/bin/python -m pyright --version  # its wheel fetches the program at the first call: here, not in a test
	@printf '%s' "$(CURDIR)" > $@

# `make book` and `make test` do all, on a fresh machine too. README.md says what they need.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready

.PHONY: book slides dist test soak lab lint bench lock clean

book: $(READY)  ## execute what is not up to date, then render to _build/html
	$(BIN)/python -m rsbook run
	$(BIN)/python -m rsbook report

slides: $(READY)  ## chapters as slides in _build/slides: make slides CHAPTER=label_propagation/3_method; all without it
	$(BIN)/python -m rsbook run $(CHAPTER)
	$(BIN)/python -m rsbook slides $(CHAPTER)

dist: book  ## the pages as one zip file in _build
	$(BIN)/python -m rsbook dist

test: lint .venv/browser  ## everything: unit and property tests, all notebooks in smoke, the book built from them
	$(BIN)/python -m pytest

soak: $(READY)  ## kills batches, workers and kernels at random for less than 20 minutes; nothing may be lost or done twice
	$(BIN)/python tests/soak.py

lab: $(READY)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/nbstripout --verify notebooks/*/*.ipynb

bench: $(READY) .venv/browser  ## each hot path against its peers; tables in benchmarks/results
	$(BIN)/uv pip install -q --python .venv -r benchmarks/requirements.lock
	$(BIN)/python benchmarks/run.py

LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --upgrade pyproject.toml
lock: $(READY)  ## resolve the lock files anew, after a change of pyproject.toml
	$(LOCK) --extra book --extra test -o requirements.lock
	$(LOCK) --extra bench -c requirements.lock -o benchmarks/requirements.lock

clean:  ## all that is made again in minutes; the environment and the records of training runs stay
	rm -rf _build book/_executed book/_generated book/assets/vendor .pytest_cache .ruff_cache .hypothesis

.venv/browser: $(READY)
	$(BIN)/python tests/browser.py
	@touch $@

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "rsbook needs Python 3.11; name it with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip install -q --compile-bytecode --python .venv -r requirements.lock
	$(BIN)/uv pip install -q --python .venv --no-deps -e .
	@touch $@

# Everything a person or a machine types here: `make demo`, `make test`, `make verify`, `make check`, `make bench`, `make bench-ad`.
# The only things needed beforehand are Python >= 3.11, make and a package index that pip can reach.

# The newest interpreter that works *and* is >= 3.11; a shim that only pretends to be one is passed over.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := ad samplers ppl models
# One BLAS thread a chain: chains already run in parallel.
export OPENBLAS_NUM_THREADS ?= 1
export JAX_PLATFORMS ?= cpu

.PHONY: demo test verify test-oldest check bench bench-peers bench-ad format clean setup setup-bench setup-stan

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "dualtape needs Python >= 3.11 with venv; none was found. Install one, or run: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m dualtape.models.demo

test: setup
	$(BIN)/python -m pytest -n auto $(PYTEST_OPTIONS)

# With the tests that take long, too.
verify:
	$(MAKE) test PYTEST_OPTIONS='-m "long or not long"'

# The same tests on the oldest supported stack, in an environment of its own, without those that take minutes there:
# the loops of a sampler are ten times slower with jax 0.10.
OLDEST ?= python3.11
# Whether samplers have the right law, tested on the newest stack at length, is left to a few tests there.
LAWS := statistics walnuts microcanonical particle metropolis compositions elliptical flat_nuts slice adaptation random \
	distributions approximations marginalization ensemble conjugacy termination rosetta
test-oldest:
	$(MAKE) test PYTHON=$(OLDEST) VENV=.venv-oldest \
		PYTEST_OPTIONS='-k "not schools_centered" $(LAWS:%=--ignore=tests/test_%.py)'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# The repository root *is* the package: mypy sees it under its import name through a link.
	@mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/dualtape
	cd $(VENV)/typing && MYPYPATH=. ../bin/mypy --config-file dualtape/pyproject.toml -m dualtape $(PACKAGES:%=-p dualtape.%)
	@# The code of the README, as its readers type it.
	sed -n '/^```python/,/^```/{/^```/!p}' README.md > $(VENV)/typing/readme.py
	cd $(VENV)/typing && MYPYPATH=. ../bin/mypy --config-file dualtape/pyproject.toml -m readme
	$(BIN)/python -m pytest -q tests/test_layers.py

# Small programs first, then whole runs beside the peers; results in benchmarks/results/.
bench: setup-bench
	$(BIN)/python benchmarks/leapfrog.py
	$(BIN)/python benchmarks/logistic.py
	$(BIN)/python benchmarks/gibbs.py
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/warmup.py
	$(BIN)/python benchmarks/ensemble.py
	$(BIN)/python -m benchmarks.kernels
	$(MAKE) bench-peers

# dualtape beside NumPyro, BlackJAX, nutpie and Stan, some hours; goes on where it was stopped. A part of it:
# make bench-peers BENCH_OPTIONS="--models garch,radon --systems dualtape,blackjax --repeats 1 --output /tmp/part"
bench-peers: setup-bench setup-stan
	$(BIN)/python -m benchmarks.peers $(BENCH_OPTIONS)

setup-bench: $(VENV)/.installed-bench

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

# Without Python 3.11 or a C++ compiler the benchmark says so and leaves Stan out.
STAN_PYTHON ?= python3.11
setup-stan: .venv-stan/.installed

.venv-stan/.installed: benchmarks/peers/requirements-stan.txt
	@if $(STAN_PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 \
		&& command -v g++ >/dev/null; then \
		echo "Setting up .venv-stan ..." && $(STAN_PYTHON) -m venv --clear .venv-stan \
		&& .venv-stan/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@; \
	else echo "Stan is left out: it needs Python 3.11 ($(STAN_PYTHON)) and the compiler g++."; fi

# Every AD backend on the catalogue of gradient scenarios; results in bench-ad-output/. It takes some eleven minutes.
bench-ad: setup
	$(BIN)/python -m dualtape.ad --output bench-ad-output

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-output bench-ad-output .pytest_cache .mypy_cache .ruff_cache

# Each target works alone in a fresh clone: it makes .venv with a Python >= 3.11 (PYTHON=... to
# choose which), installs what it needs at the versions in constraints.txt, and runs.
#
# PyTorch on Linux: the registry's ordinary build brings several GB of CUDA libraries. On a
# machine without a GPU, install the CPU build of torch 2.13.0 into .venv first:
#     python3.11 -m venv .venv && .venv/bin/python -m pip install <CPU build of torch 2.13.0>
# An installed 2.13.0, `+cpu` included, is kept.

VENV := .venv
NEXT := .venv-next
WORKERS ?= 2

# Unless the caller has chosen, one OpenMP thread for each test worker. The tests of one file stay
# with one worker, so that what they share is traced and made once.
OMP_NUM_THREADS ?= 1

# Most of the tests' time goes into compiling. XLA's own passes run all the same; its code generator
# does not optimise, which saves a quarter of the time. =0 compiles as users do.
JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1

TEST_ENVIRONMENT = OMP_NUM_THREADS=$(OMP_NUM_THREADS) \
	JAX_DISABLE_MOST_OPTIMIZATIONS=$(JAX_DISABLE_MOST_OPTIMIZATIONS)

# As environment variables, both reach the isolated build environment too, in old pips and new.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

comma := ,

# Compiling all of what is installed takes longer than installing it: pip leaves it (see
# --no-compile below), and Python compiles each module at its first import and keeps the result.
unexport PYTHONDONTWRITEBYTECODE

# $(call install,FOLDER,MINIMUM PYTHON,EXTRAS)
define install
	@.ci/make-venv $(1) $(2)
	@echo "Installing ppl_memprior[$(3)] into $(1) (once; a few minutes at most)" >&2
	@$(1)/bin/python -m pip install -qq --no-compile -e '.[$(3)]'
	@touch $@
endef

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-next check bench docs clean distclean

help:
	@echo "make demo       full waveform inversion: six posteriors, one report, in runs/demo"
	@echo "make test       the tests (WORKERS=$(WORKERS); OPENFWI_ROOT=... for those on OpenFWI files)"
	@echo "make test-next  the tests that need no PyTorch, with Python >= 3.12, in $(NEXT)"
	@echo "make check      lint, format, types, and who may import whom"
	@echo "make bench      the benchmarks"
	@echo "make docs       the documentation, in docs/_build/html"
	@echo "make clean      remove what was built; keeps the environments and runs/"
	@echo "make distclean  remove the environments as well"

# A stamp is touched last, so that an interrupted installation is taken up again.
$(VENV)/.stamp-run: pyproject.toml constraints.txt
	$(call install,$(VENV),3.11,fwi)
$(VENV)/.stamp-test: pyproject.toml constraints.txt
	$(call install,$(VENV),3.11,fwi$(comma)test)
$(VENV)/.stamp-check: pyproject.toml constraints.txt
	$(call install,$(VENV),3.11,check)
$(VENV)/.stamp-docs: pyproject.toml constraints.txt
	$(call install,$(VENV),3.11,docs)
$(NEXT)/.stamp-test: pyproject.toml constraints.txt
	$(call install,$(NEXT),3.12,test)

demo: $(VENV)/.stamp-run
	$(VENV)/bin/ppl-memprior demo fwi --out runs/demo

test: $(VENV)/.stamp-test
	$(TEST_ENVIRONMENT) $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile

test-next: $(NEXT)/.stamp-test
	$(TEST_ENVIRONMENT) $(NEXT)/bin/python -m pytest -n $(WORKERS) --dist loadfile \
		-m "not slow and not torch and not arithmetic"

check: $(VENV)/.stamp-check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.stamp-run
	@for script in benchmarks/[!_]*.py; do \
		[ -e "$$script" ] || { echo "benchmarks/ holds no benchmark yet"; exit 0; }; \
		echo "== $$script"; $(VENV)/bin/python "$$script" || exit 1; \
	done

docs: $(VENV)/.stamp-docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find ppl_memprior tests examples benchmarks docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) $(NEXT)

# Two commands: `make demo` and `make test`. Each does its own set-up, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PLUGINS := $(addprefix plugins/psiflow_,torch mace pyscf cp2k openmm_sampler slurm pbspro lsf)
PROJECTS := pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))

# Executors that need a vendor's client library: the demo does without them.
CLOUDS := $(addprefix plugins/psiflow_,kubernetes googlecloud aws)

export OMP_NUM_THREADS ?= 1

# NequIP and MACE need different versions of e3nn: NequIP has an environment of its own.
export PSIFLOW_ENVIRONMENTS ?= $(abspath $(VENV))/environments
NEQUIP := $(PSIFLOW_ENVIRONMENTS)/nequip

.PHONY: demo isomer water silicon two test test-core test-engines lint benchmarks simulate chaos clean

demo: $(VENV)/.demo
	$(BIN)/python examples/acetaldehyde.py

# Water at constant pressure, labelled by CP2K.
water: $(VENV)/.demo
	$(BIN)/python examples/water.py

# MACE and NequIP in one committee, each in its environment.
two: $(NEQUIP)/environment.json
	$(BIN)/python examples/two_architectures.py

# A crystal with DFT: lattice constant, bulk modulus, relaxation under pressure. Needs CP2K.
silicon: $(VENV)/.demo
	$(BIN)/python examples/silicon.py

# HCN is pushed over the barrier to HNC; the learned energy profile against the reference's.
isomer: $(VENV)/.demo
	$(BIN)/python examples/isomerisation.py

test: lint $(NEQUIP)/environment.json
	$(MAKE) --no-print-directory -j2 test-core test-engines

test-core:
	$(BIN)/python -m pytest -q tests/architecture tests/core

test-engines:
	$(BIN)/python -m pytest -q tests/plugins tests/end_to_end
	$(NEQUIP)/venv/bin/python -m pytest -q tests/plugins/nequip

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tens of thousands of simulated campaigns: minutes. make simulate CAMPAIGNS=100000
CAMPAIGNS ?= 20000
simulate: $(VENV)/.test
	PSIFLOW_CAMPAIGNS=$(CAMPAIGNS) $(BIN)/python -m pytest -q --timeout 0 tests/core/learning/test_simulation.py

# Small real campaigns whose processes are killed at random; the last line tells what that cost. About 10 s a kill.
KILLS ?= 100
SEED ?= 0
chaos: $(VENV)/.test
	$(BIN)/python tests/end_to_end/chaos.py --kills $(KILLS) --seed $(SEED)

# What things cost, and against what: each compares two ways side by side, in one run.
benchmarks: $(VENV)/.test $(NEQUIP)/environment.json
	$(BIN)/python benchmarks/openmm_step.py
	$(BIN)/python benchmarks/batched_walkers.py
	$(BIN)/python benchmarks/compiled.py mace
	$(NEQUIP)/venv/bin/python benchmarks/compiled.py nequip allegro
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/large_datasets.py
	$(BIN)/python benchmarks/task_overhead.py
	$(BIN)/python benchmarks/growth.py
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/durability.py
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/schedules.py
	$(BIN)/python benchmarks/environments.py nequip
	$(BIN)/python benchmarks/slurm_over_local.py

clean:
	rm -rf $(VENV) campaigns

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "psiflow needs Python 3.11 or later"'
	$(PYTHON) -m venv $(VENV)

# torch comes first: the other packages then accept the version that constraints.txt pins.
$(VENV)/.demo: $(VENV)/bin/python $(PROJECTS)
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e . $(addprefix -e ,$(PLUGINS))
	touch $@

$(VENV)/.nequip: $(VENV)/.demo plugins/psiflow_nequip/pyproject.toml plugins/psiflow_torch/pyproject.toml
	rm -rf $(NEQUIP)
	$(BIN)/psiflow env create nequip torch tblite pytest pytest-timeout hypothesis -c constraints.txt \
		-e plugins/psiflow_torch -e plugins/psiflow_nequip -e plugins/psiflow_openmm_sampler --installer pip
	touch $@

# What is developed here may have other options than were recorded.
$(NEQUIP)/environment.json: $(VENV)/.nequip $(wildcard plugins/psiflow_*/src/*/*.py psiflow_core/builtin/*.py)
	$(BIN)/psiflow env update nequip
	touch $@

# PLUMED's Python package is compiled, which needs Python's headers: without them its tests skip.
$(VENV)/.test: $(VENV)/.demo tests/toys/pyproject.toml $(addsuffix /pyproject.toml,$(CLOUDS))
	$(PIP) install -c constraints.txt -e '.[test,dev,tblite]' -e 'plugins/psiflow_pyscf[dispersion]' -e tests/toys \
		$(addprefix -e ,$(CLOUDS))
	test ! -e "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || $(PIP) install plumed
	touch $@

# nuebar: each target does its own set-up on a machine with Python >= 3.11 and make; a second call is quick.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT ?= out
RUN ?=

.DEFAULT_GOAL := help
.PHONY: help run six-years test test-all lint bench results predictors tuning selection chain statistics page pictures docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run  ## the main job: 30 simulated days of JUNO, from raw events to oscillation parameters and one page
	$(BIN)/nuebar run --out $(OUT)/run $(RUN)

six-years: $(VENV)/.run  ## JUNO's four-parameter fit after six years, from the embedded inputs
	$(BIN)/nuebar fit spectrum --experiment juno --exposure-years 6 --asimov --out $(OUT)/juno-6-years

test: $(VENV)/.dev  ## the default test suite
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal

test-all: $(VENV)/.dev  ## the slow tests too
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.dev  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## speeds, as ratios within one run; writes docs/results
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/simulation.py
	$(BIN)/python benchmarks/predictors.py
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/selection_speed.py
	$(BIN)/python benchmarks/toys.py

results: $(VENV)/.dev  ## published numbers beside ours; writes docs/results (RELEASE=folder INPUTS=file)
	$(BIN)/python benchmarks/truth.py --release "$(RELEASE)" --inputs "$(INPUTS)"
	$(BIN)/python benchmarks/monte_carlo.py --release "$(RELEASE)"

predictors: $(VENV)/.dev  ## surrogates at the published size (hours; NETWORKS="FOLDER ..." takes trained networks); writes docs/results
	$(BIN)/nuebar simulate ibd --pairs 10000000 --seed 11 --jobs 2 --out $(OUT)/pairs
	$(BIN)/nuebar simulate ibd --pairs 10000000 --seed 11 --jobs 2 --cascades --out $(OUT)/cascades
	$(BIN)/python benchmarks/reference.py --pairs $(OUT)/pairs/ibd --cascades $(OUT)/cascades
	$(BIN)/python benchmarks/surrogate_choice.py --cascades $(OUT)/cascades
	$(BIN)/python benchmarks/predictor_fits.py --pairs $(OUT)/pairs/ibd --cascades $(OUT)/cascades $(NETWORKS:%=--network %)
	$(BIN)/nuebar predict compare --full --pairs $(OUT)/pairs/ibd --cascades $(OUT)/cascades $(NETWORKS:%=--network %) --out $(OUT)/compare
	cp $(OUT)/compare/compare.json docs/results/predict-compare.json

tuning: $(VENV)/.dev  ## densities of calibration spectra at the published size (hours; DENSITIES="FOLDER ..." takes trained ones, RELEASE=folder); writes docs/results
	for set in training validation-1 validation-2 testing-1 testing-2; do \
	  $(BIN)/nuebar simulate calibration --set $$set --seed 1 --jobs 2 --cascades 20000000 --out $(OUT)/calibration || exit; done
	$(if $(DENSITIES),,for recipe in tede spline planar; do \
	  $(BIN)/nuebar tune train --recipe $$recipe --training $(OUT)/calibration/training \
	    --validation $(OUT)/calibration/validation-1 $(OUT)/calibration/validation-2 --out $(OUT)/tuning/$$recipe || exit; done)
	$(BIN)/python benchmarks/tuning_validation.py --data $(OUT)/calibration --work $(OUT)/tuning/validation \
	  --density $(or $(DENSITIES),$(addprefix $(OUT)/tuning/,tede spline planar)) $(RELEASE:%=--release %)

selection: $(VENV)/.dev  ## selection at the published size (hours; MODELS="FOLDER ..." takes trained networks, the first one ours); writes docs/results
	$(BIN)/nuebar simulate ibd --pairs 16500000 --jobs 2 --out $(OUT)/ibd
	$(BIN)/nuebar simulate singles --events 0 --pairs 22500000 --window-ms 2 --jobs 2 --out $(OUT)/singles
	$(BIN)/nuebar simulate stream --days 60 --seed 2 --jobs 2 --out $(OUT)/stream
	$(if $(MODELS),,for recipe in network published; do \
	  $(BIN)/nuebar select train --recipe $$recipe --ibd $(OUT)/ibd --accidentals $(OUT)/singles \
	    --prepared $(OUT)/pairs --out $(OUT)/select/$$recipe || exit; done)
	$(BIN)/python benchmarks/selection.py --prepared $(OUT)/pairs --ibd $(OUT)/ibd --stream $(OUT)/stream/stream \
	  --model $(or $(MODELS),$(addprefix $(OUT)/select/,network published)) --work $(OUT)/selection

chain: $(VENV)/.dev  ## is the whole chain calibrated: a run, 200 seeds by the fast path, 20 whole runs (two hours); writes docs/results
	$(BIN)/python benchmarks/chain.py --work $(OUT)/chain

page: $(VENV)/.dev  ## docs/results.md, other pages of figures and the README's table from docs/results/*.json
	$(BIN)/python benchmarks/results_page.py
	$(BIN)/python benchmarks/cluster_page.py

statistics: $(VENV)/.dev  ## ordering, coverage, intervals, posterior, sensitivity, two detectors, scaling (hours; RELEASE=folder INPUTS=file); writes docs/results
	$(BIN)/python benchmarks/ordering.py --inputs "$(INPUTS)" --work $(OUT)/ordering --figures docs/figures
	$(BIN)/python benchmarks/interval_coverage.py --release "$(RELEASE)" --work $(OUT)/coverage
	$(BIN)/python benchmarks/feldman_cousins.py --release "$(RELEASE)" --work $(OUT)/feldman-cousins
	$(BIN)/python benchmarks/posterior.py --release "$(RELEASE)" --inputs "$(INPUTS)" --work $(OUT)/posterior
	$(BIN)/python benchmarks/sensitivity.py --inputs "$(INPUTS)" --figures docs/figures
	$(BIN)/python benchmarks/two_detectors.py --out docs/results
	$(BIN)/python benchmarks/geoneutrinos.py --inputs "$(INPUTS)" --toys 0 --work $(OUT)/geoneutrinos
	$(BIN)/python benchmarks/cluster.py

docs: $(VENV)/.dev  ## the documentation site, in site/: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pictures: $(VENV)/.dev  ## the pictures of docs/monte-carlo.md, from small simulations and docs/results/*.json
	$(BIN)/python benchmarks/pictures.py

clean:  ## remove the environment and outputs
	rm -rf $(VENV) $(OUT) site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nuebar needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[run]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.run

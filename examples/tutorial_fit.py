# %% [markdown]
# # Your first fit
#
# From a file that describes an experiment to oscillation parameters, a systematic uncertainty of your own, and a
# study with pseudo-experiments. Everything here is simulated, and every number of the experiment is nominal.
#
# Run it with `python examples/tutorial_fit.py`; it takes about a minute and writes into `out/tutorial-fit`.

# %%
import os
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"  # double precision, before anything imports JAX
import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.profile import scan
from nuebar.fit.spectrum_fit import SpectrumFit, impacts
from nuebar.fit.toys import run_toys, summary
from nuebar.predict.spectrum import build_model
from nuebar.report import plots

OUT = Path(os.environ.get("TUTORIAL_OUT", "out/tutorial-fit"))
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1 The experiment
#
# An experiment is one TOML file: cores, target, days, response, bins, backgrounds, systematics. This one is small:
# one plant, one detector, two backgrounds.

# %%
TOML = """\
format = 1
name = "small"
title = "300 t of scintillator, 60 km from one plant"

[target]
free_protons = 2.2e31
efficiency = 0.8

[exposure]
days = 3000.0

[reactor]
fission_fractions = { U235 = 0.57, U238 = 0.08, Pu239 = 0.29, Pu241 = 0.06 }
energy_per_fission_MeV = { U235 = 202.36, U238 = 205.99, Pu239 = 211.12, Pu241 = 214.26 }

[[reactor.cores]]
name = "plant"
power_GW = 17.4
baseline_km = 60.0

[response]
nonlinearity = "none"
resolution = [0.06, 0.0, 0.0]

[binning]
segments = [[0.9, 8.4, 50]]
fine_width_MeV = 0.05

[oscillation]
sin2_th12 = { value = 0.307, bounds = [0.05, 0.95] }
sin2_th13 = { value = 0.0218, sigma = 0.0007 }
dm2_21_eV2 = { value = 7.53e-5, bounds = [5.0e-5, 10.0e-5] }
dm2_31_eV2 = { value = 2.528e-3, fixed = true }

[matter]
density_g_cm3 = 2.7

[systematics]
energy_scale = 0.01

[systematics.signal]
rate = 0.02

[fit]
statistic = "cnp"

[[backgrounds]]
name = "accidentals"
rate_per_day = 0.03
rate_sigma = 0.05
shape = "accidentals"

[[backgrounds]]
name = "geoneutrinos"
rate_per_day = 0.01
rate_sigma = 0.5
shape = { geoneutrinos_U = 0.77, geoneutrinos_Th = 0.23 }
"""
(OUT / "small.toml").write_text(TOML, encoding="utf-8")
experiment = load_experiment(OUT / "small.toml")

# %% [markdown]
# A model is a function from parameters to expected counts. `parameters` has the value, prior and limits of each.

# %%
model, parameters = build_model(experiment)
nominal = parameters.nominal()
for name, counts in model.components(nominal).items():
    print(f"{name:14s} {counts.sum():8.1f} events")
print("without oscillation", round(float(model.unoscillated().sum()), 1))
print("parameters:", ", ".join(parameters.names))

# %% [markdown]
# ## 2 Data, and a fit
#
# There are no data of this experiment, so some are drawn: true values that the fit does not know, and Poisson counts.
# Your data would be an array of counts in the same bins, for instance from
# `nuebar.io.releases.read_spectrum("prompt.csv")`.

# %%
truth = {**nominal, "sin2_th12": 0.32, "dm2_21_eV2": 7.4e-5}
expected, _ = model(model.vector(truth))
data = np.random.default_rng(1).poisson(np.asarray(expected))

fit = SpectrumFit(model, parameters, data, experiment.fit.statistic, experiment.name)
result = fit.run()
print("valid:", result.valid, "-", result.reason)
print(f"χ² = {result.chi2:.1f} for {result.n_dof} degrees of freedom")
for name in ("sin2_th12", "dm2_21_eV2"):
    p = result.parameters[name]
    print(f"{name:12s} {p.value:.4g} ± {p.error:.2g}   (true: {truth[name]:.4g})")

# %% [markdown]
# Look at `valid` first. A fit that did not converge, or ended on a limit, says so in `reason`.

# %%
edges = np.array(model.edges_MeV)
figure = plots.spectrum(
    edges, data, model.components(result.values()), unoscillated=model.unoscillated(), simulated="simulated"
)
plots.save(figure, OUT / "spectrum.png")

# %% [markdown]
# ## 3 A region
#
# Errors are the curvature at the minimum. A map of Δχ², profiled over all other parameters, shows whether they say
# everything.

# %%
region = scan(fit, result, ("sin2_th12", "dm2_21_eV2"), n_points=13)
figure = plots.contour(
    *region.grids,
    region.delta_chi2,
    labels=region.names,
    levels=plots.confidence_levels(),
    best=[result.parameters[n].value for n in region.names],
    note="simulated",
)
plots.save(figure, OUT / "contour.png")

# %% [markdown]
# ## 4 A systematic of your own
#
# Suppose that the shape of the accidentals is known to 3 % per MeV only, and that there may be a background that
# nobody has measured. Both are keys of the file. Here they are changed in Python; `override` checks them as it checks
# a file.

# %%
backgrounds = [
    {"name": "accidentals", "rate_per_day": 0.03, "rate_sigma": 0.05, "shape": "accidentals", "slope_sigma": 0.03},
    {
        "name": "geoneutrinos",
        "rate_per_day": 0.01,
        "rate_sigma": 0.5,
        "shape": {"geoneutrinos_U": 0.77, "geoneutrinos_Th": 0.23},
    },
    {"name": "unmeasured", "rate_per_day": 0.02, "rate_sigma": 1.0, "shape": "fast_neutrons"},
]
wider = override(experiment, {"backgrounds": backgrounds})
wider_model, wider_parameters = build_model(wider)
print("new:", sorted(set(wider_parameters.names) - set(parameters.names)))

errors = {}
for label, (m, p) in {"as in the file": (model, parameters), "with both": (wider_model, wider_parameters)}.items():
    asimov = SpectrumFit.asimov(m, p, statistic="cnp")
    found = asimov.run()
    errors[label] = [found.parameters[n].error for n in ("sin2_th12", "dm2_21_eV2")]
    print(f"{label:15s} expected errors: sin2_th12 {errors[label][0]:.4f}, dm2_21_eV2 {errors[label][1]:.2e}")

# %% [markdown]
# The impact of a pull is how far a parameter moves when the pull moves by its own fitted error, and all else is
# fitted again.

# %%
ranked = impacts(asimov, found, ["sin2_th12", "dm2_21_eV2"])
for name, row in ranked.items():
    words = [f"{pull} {shift / found.parameters[name].error:+.2f}" for pull, shift in list(row.items())[:4]]
    print(f"{name:12s} {', '.join(words)}  (in its errors)")

# %% [markdown]
# ## 5 Pseudo-experiments
#
# Are the errors right? Draw 400 data sets from the model, with the centres of the constraints moving as real
# measurements would, and fit all of them side by side. A pull is (found − true)/error; it should have mean 0 and
# width 1.

# %%
toys = run_toys(fit, 400, seed=1, truth={"sin2_th12": 0.32, "dm2_21_eV2": 7.4e-5})
print(f"{int(toys.valid.sum())} of {len(toys)} fits are valid", toys.failures() or "")
print("parameter       pull mean        width    one-sigma interval covers")
for s in summary(toys):
    mean = f"{s.pull_mean:+.2f} ± {s.pull_spread / s.n**0.5:.2f}"
    print(f"{s.name:16s} {mean}    {s.pull_spread:.2f}     {100 * s.coverage:.0f} %")

# %% [markdown]
# And is χ² of the data what such a model gives? The share of pseudo-experiments with a larger χ² is a p-value that
# assumes no χ² distribution.

# %%
good = toys.valid
print(f"χ² of the data {result.chi2:.1f}; of the toys {toys.chi2[good].mean():.1f} in the mean")
print(f"p = {np.mean(toys.chi2[good] >= result.chi2):.2f}")

# %% [markdown]
# ## 6 The same from the command line
#
# ```sh
# nuebar predict show --experiment out/tutorial-fit/small.toml
# nuebar fit spectrum --experiment out/tutorial-fit/small.toml --asimov --out out/tutorial-fit/asimov
# nuebar fit toys --experiment out/tutorial-fit/small.toml --toys 400 --truth sin2_th12=0.32 --out out/tutorial-fit/toys
# ```
#
# Next: [From raw events to a fit](selection-to-fit.md), or [describe your own
# detector](../how-to/another-detector.md).

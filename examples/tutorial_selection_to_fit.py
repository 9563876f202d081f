# %% [markdown]
# # From raw events to a fit
#
# Calibration sources become a posterior of the response, a detector stream becomes candidates, a Monte Carlo file of
# your own becomes a predictor, and both go into a fit. Everything is simulated by nuebar, and small, so that it takes
# about a minute; your files would take the place of what is simulated here.
#
# Run it with `python examples/tutorial_selection_to_fit.py`. It writes into `out/tutorial-selection`.

# %%
import contextlib
import io
import json
import os
import shlex
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"
import numpy as np
import uproot

from nuebar.cli import main
from nuebar.io.events import read_events

OUT = Path(os.environ.get("TUTORIAL_OUT", "out/tutorial-selection"))
OUT.mkdir(parents=True, exist_ok=True)


def nuebar(words, last=8):
    """Run a command as the shell would, and print the last lines of what it says; {out} is the folder."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            main(shlex.split(words.format(out=OUT)))
    except SystemExit as ended:
        if ended.code:
            raise
    print("\n".join(said.getvalue().rstrip().splitlines()[-last:]))


# %% [markdown]
# ## 1 Calibration: what is the response?
#
# Two thousand events of each of five sources, at a response that the fit does not know. `--data` takes a folder with
# one file for each source; yours would hold photo-electrons of single events.

# %%
nuebar(
    "simulate calibration --kB 12.6 --fC 0.55 --light-yield 9900 --events 2000 --cascades 20000 --seed 7 --jobs 1 "
    "--out {out}/sources",
    last=1,
)
nuebar(
    "tune fit --data {out}/sources --truth kB=12.6 fC=0.55 light_yield=9900 --samples 1000 --replicas 100 "
    "--out {out}/tuned",
    last=9,
)

# %% [markdown]
# `goodness of fit` says whether the data look like anything that the densities can make. Look at it before the
# values. The result is a *response posterior*: means and a joint covariance.

# %%
posterior = json.loads((OUT / "tuned" / "posterior.json").read_text(encoding="utf-8"))
errors = np.sqrt(np.diag(posterior["covariance"]))
for name, mean, error in zip(posterior["parameters"], posterior["mean"], errors, strict=True):
    print(f"{name:22s} {mean:10.3f} ± {error:.3f}")

# %% [markdown]
# ## 2 Selection: which events are antineutrinos?
#
# About an hour and a half of the detector: millions of events a day, some fifty antineutrinos. The network that ships
# scores all pairs of events; the accidental background is measured with windows that are shifted in time.

# %%
nuebar("simulate stream --days 0.06 --window-hours 1.44 --cascades 5000 --seed 7 --jobs 1 --out {out}/stream")
nuebar("select apply {out}/stream --muon-veto-ms 1.5 --out {out}/selected")

# %% [markdown]
# Candidates are rows of a Parquet file. As this stream is simulated, it knows which of them are pairs of one
# interaction.

# %%
candidates = read_events(OUT / "selected" / "candidates.parquet", ("prompt_e_rec_MeV", "dt_ns", "score", "true_pair"))
for e, dt, score, pair in zip(*candidates.values(), strict=True):
    kind = "a true pair" if pair else "accidental"
    print(f"prompt {e:5.2f} MeV, delayed {dt / 1e3:6.1f} µs later, score {score:5.1f}: {kind}")

# %% [markdown]
# ## 3 Your own Monte Carlo
#
# A predictor needs true and reconstructed energies of simulated antineutrinos, without oscillations. Here is a file
# as another program might have written it, with names and units of its own.

# %%
nuebar("simulate ibd --pairs 100000 --seed 7 --jobs 1 --out {out}/ibd")
names = ("true_e_nu_MeV", "prompt_e_rec_MeV", "true_baseline_km", "prompt_x_m", "prompt_y_m", "prompt_z_m")
pairs = read_events(OUT / "ibd" / "ibd", names)
inside = sum(pairs[f"prompt_{axis}_m"] ** 2 for axis in "xyz") < 17.2**2
columns = {
    "Enu": 1e3 * pairs["true_e_nu_MeV"][inside],  # keV
    "Erec": 1e3 * pairs["prompt_e_rec_MeV"][inside].astype(float),
    "L": 1e3 * pairs["true_baseline_km"][inside],  # m
}
with uproot.recreate(OUT / "my-mc.root") as file:
    file.mktree("ibd", {name: "f8" for name in columns})
    file["ibd"].extend(columns)
(OUT / "my-columns.toml").write_text(
    """\
tree = "ibd"

[columns]
e_nu_MeV = { name = "Enu", unit = "keV" }
e_rec_MeV = { name = "Erec", unit = "keV" }
baseline_km = { name = "L", unit = "m" }
""",
    encoding="utf-8",
)
nuebar("events check {out}/my-mc.root --columns {out}/my-columns.toml --kind spectrum")

# %% [markdown]
# The events are selected already, so `--no-fiducial`. One command makes a predictor that is exact in the oscillation,
# for these events. What their number leaves uncertain goes into the fit with `--mc-error`.

# %%
nuebar(
    "predict build harmonic --pairs {out}/my-mc.root --columns {out}/my-columns.toml --no-fiducial --bins 100 "
    "--out {out}/mine"
)
nuebar(
    "fit spectrum --asimov --exposure-years 6 --predictor {out}/mine --mc-error --no-contour --no-pictures "
    "--out {out}/fit-mine",
    last=13,
)

# %% [markdown]
# ## 4 A fit in which the response moves
#
# Your Monte Carlo has one response. To let kB, fC and light yield move within what the calibration knows, take the
# surrogate and the posterior of step 1.

# %%
nuebar(
    "fit spectrum --asimov --exposure-years 6 --predictor surrogate --response {out}/tuned/posterior.json --no-contour "
    "--no-pictures --out {out}/fit-response",
    last=13,
)

# %% [markdown]
# Side by side: expected errors after six years with the response of one Monte Carlo (pulls on non-linearity and
# resolution), and with the tuned one.

# %%
results = {n: json.loads((OUT / n / "result.json").read_text(encoding="utf-8")) for n in ("fit-mine", "fit-response")}
for name in ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2"):
    print(f"{name:12s}", *(f"{n}: {r['parameters'][name]['error']:.3g}" for n, r in results.items()))
print({n: (r["valid"], r["reason"]) for n, r in results.items()})

# %% [markdown]
# Much of the difference is the Monte Carlo's own: with `--mc-error` a hundred thousand simulated events for as many
# candidates are as large an uncertainty as the candidates. Simulate ten times as many. The ends of the file matter as
# well: its predictor has 100 bins, the surrogate 400.
#
# ## 5 All of it at once
#
# `nuebar run` joins the stages, propagates efficiency, accidentals, response and Monte Carlo statistics into the fit,
# and ends in one page. With your stream and your posterior:
#
# ```toml
# format = 1
# title = "My data"
#
# [data]
# stream = "events"
# response = "posterior.json"
# ```
#
# ```sh
# nuebar run my-run.toml --out out/mine
# ```
#
# Next: [my own data](../how-to/own-data.md), [my own Monte Carlo](../how-to/own-monte-carlo.md), [the
# chain](../chain.md).

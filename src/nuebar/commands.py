"""The application ``nuebar``: its commands, by the groups that they are in."""

from __future__ import annotations

from cyclopts import App

from nuebar import __version__
from nuebar.commands_cluster import cluster
from nuebar.commands_config import config
from nuebar.commands_coverage import fit_coverage
from nuebar.commands_events import events
from nuebar.commands_feldman_cousins import fit_feldman_cousins
from nuebar.commands_fit import fit_grid, fit_spectrum
from nuebar.commands_geoneutrinos import fit_geoneutrinos
from nuebar.commands_goodness import fit_goodness
from nuebar.commands_posterior import fit_posterior
from nuebar.commands_predict import predict
from nuebar.commands_run import report, run, status
from nuebar.commands_select import select
from nuebar.commands_sensitivity import fit_sensitivity
from nuebar.commands_simulate import simulate
from nuebar.commands_sterile import fit_sterile
from nuebar.commands_toys import fit_ordering, fit_toys
from nuebar.commands_tune import tune

__all__ = ["app"]

app = App(
    name="nuebar",
    help="Reactor antineutrinos in liquid scintillator: from raw events to oscillation parameters.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
fit = App(name="fit", help="Fit measured or expected spectra.")
for group in (fit, predict, simulate, select, tune, events, config, cluster):
    app.command(group)
fit.command(name="spectrum")(fit_spectrum)
fit.command(name="grid")(fit_grid)
fit.command(name="toys")(fit_toys)
fit.command(name="ordering")(fit_ordering)
fit.command(name="coverage")(fit_coverage)
fit.command(name="feldman-cousins")(fit_feldman_cousins)
fit.command(name="posterior")(fit_posterior)
fit.command(name="goodness")(fit_goodness)
fit.command(name="sensitivity")(fit_sensitivity)
fit.command(name="geoneutrinos")(fit_geoneutrinos)
fit.command(name="sterile")(fit_sterile)
for command in (run, report, status):
    app.command(command)

"""The small experiment of the statistics jobs: one reactor at 52.5 km, no non-linearity, few bins."""

import pytest

TABLE = """
format = 1
name = "toy"
title = "one core"
[target]
free_protons = 1.4e33
efficiency = 0.8
[exposure]
days = {days}
[reactor]
duty_cycle = 0.9
[reactor.fission_fractions]
U235 = 0.58
U238 = 0.07
Pu239 = 0.30
Pu241 = 0.05
[reactor.energy_per_fission_MeV]
U235 = 202.36
U238 = 205.99
Pu239 = 211.12
Pu241 = 214.26
[[reactor.cores]]
name = "A"
power_GW = 20.0
baseline_km = 52.5
[response]
nonlinearity = "none"
resolution = [0.03, 0.0, 0.0]
[binning]
segments = [[1.0, 8.0, {bins}]]
fine_width_MeV = 0.05
[oscillation]
{oscillation}
[matter]
density_g_cm3 = 2.45
[systematics.signal]
flux = 0.02
[fit]
statistic = "cnp"
"""

FREE = """
sin2_th12 = 0.307
sin2_th13 = 0.0218
dm2_21_eV2 = 7.53e-5
dm2_31_eV2 = 2.5283e-3
"""

# A few hundred days say little about θ13 and Δm²31: without a prior and bounds their posteriors have no end.
BOUNDED = """
sin2_th12 = { value = 0.307, bounds = [0.1, 0.6] }
sin2_th13 = { value = 0.0218, sigma = 0.0006, bounds = [0.0, 0.2] }
dm2_21_eV2 = { value = 7.53e-5, bounds = [4.83e-5, 10.23e-5] }
dm2_31_eV2 = { value = 2.5283e-3, sigma = 2e-5, bounds = [2.0e-3, 3.0e-3] }
"""


@pytest.fixture(scope="session")
def write_experiment():
    """A function that writes the small experiment into a folder and returns its path."""

    def write(folder, days, bins=140, bounded=False):
        path = folder / "toy.toml"
        text = TABLE.format(days=float(days), bins=bins, oscillation=(BOUNDED if bounded else FREE).strip())
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write

import copy
import dataclasses
import datetime
import math
import subprocess
import sys
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nuebar.config
from nuebar.config import (
    EXPERIMENTS,
    available_experiments,
    experiment_from_mapping,
    load_experiment,
    override,
    show,
)
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.records import to_toml

NAN, INF = math.nan, math.inf
SHIPPED = ("juno", "juno-2025")
JUNO = tomllib.loads((EXPERIMENTS / "juno.toml").read_text(encoding="utf-8"))
DROP = object()
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)

# A detector in the manner of KamLAND with three plants for all of Japan; every number is nominal.
KAMIOKA = """
format = 1
name = "kamioka"
title = "1 kt at 180 km (nominal)"

[target]
free_protons = 5.98e31
efficiency = 0.9

[exposure]
days = 1500

[reactor]
duty_cycle = 0.8
segments_MeV = [1.8, 3, 5, 8]
segments_sigma = 0.05

[reactor.fission_fractions]
U235 = 0.570
U238 = 0.078
Pu239 = 0.295
Pu241 = 0.057

[reactor.energy_per_fission_MeV]
U235 = 201.8
U238 = 205.0
Pu239 = 210.3
Pu241 = 212.6

[[reactor.cores]]
name = "near"
power_GW = 12.0
baseline_km = 140
[[reactor.cores]]
name = "middle"
power_GW = 40
baseline_km = 180.0
history = "middle.csv"
[[reactor.cores]]
name = "far"
power_GW = 17.0
baseline_km = 340.0
duty_cycle = 0.5
fission_fractions = { U235 = 1.0, U238 = 0.0, Pu239 = 0, Pu241 = 0.0 }

[response]
nonlinearity = "birks"
resolution = [0.064, 0.01, 0.0]
kB_g_cm2_GeV = 12.0
fC = 0.3
light_yield_per_MeV = 8000
cherenkov_photons_per_cm = 910

[binning]
edges_MeV = [0.9, 1.325, 1.75, 2.6, 4.3, 6, 8.5]
fine_width_MeV = 0.05

[oscillation]
sin2_th12 = 0.316
sin2_th13 = { value = 0.022, sigma = 0.0007, bounds = [0, 0.1] }
dm2_21_eV2 = { value = 7.54e-5 }
dm2_31_eV2 = { value = 2.5e-3, fixed = true }

[matter]
density_g_cm3 = 2.7

[[backgrounds]]
name = "accidentals"
rate_per_day = 0.08
rate_sigma = 0.001
shape = "accidentals"
[[backgrounds]]
name = "reactors_off"
rate_per_day = 0.02
rate_sigma = 0
shape = { fast_neutrons = 0.5, atmospheric_nc = 0.5 }

[systematics.signal]
flux = 0.024

[fit]
statistic = "poisson"
shape_uncertainties = false
"""


def keys_of(key):
    """Parts of a dotted key: ``reactor.cores[0].name`` → reactor, cores, 0, name."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    return [int(p) if p.isdecimal() else p for p in parts]


def changed(key, value):
    raw = copy.deepcopy(JUNO)
    *tables, last = keys_of(key)
    table = raw
    for part in tables:
        table = table[part] if isinstance(part, int) else table.setdefault(part, {})
    if value is DROP:
        del table[last]
    else:
        table[last] = value
    return raw


def leaves(record, key=""):
    if isinstance(record, dict):
        return [leaf for k, v in record.items() for leaf in leaves(v, f"{key}.{k}" if key else k)]
    if isinstance(record, list | tuple):
        return [leaf for i, v in enumerate(record) for leaf in leaves(v, f"{key}[{i}]")]
    return [(key, record)]


def tables(record, key=""):
    if isinstance(record, dict):
        return [key, *(t for k, v in record.items() for t in tables(v, f"{key}.{k}" if key else k))]
    if isinstance(record, list):
        return [t for i, v in enumerate(record) for t in tables(v, f"{key}[{i}]")]
    return []


def refusal(path):
    """The one sentence with which a file is refused; it names the file."""
    with pytest.raises(NuebarError) as caught:
        load_experiment(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 600
    return sentence


def outcome(path):
    """The experiment, or the sentence that refuses it; nothing else may happen."""
    try:
        return load_experiment(path), ""
    except NuebarError as error:
        return None, str(error)


def check_outcome(path):
    e, sentence = outcome(path)
    if e is None:
        assert str(path) in sentence
        assert len(sentence.splitlines()) == 1
        return
    assert experiment_from_mapping(tomllib.loads(show(e)), source=e.source) == e
    assert all(math.isfinite(v) for _, v in leaves(dataclasses.asdict(e)) if isinstance(v, float))


def write(tmp_path, raw):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(raw), encoding="utf-8")
    return path


# ---------------------------------------------------------------- right files


def test_the_shipped_experiments_are_listed():
    assert available_experiments() == tuple(sorted(p.stem for p in EXPERIMENTS.glob("*.toml")))
    assert set(SHIPPED) <= set(available_experiments())


@pytest.mark.parametrize("name", available_experiments())
def test_every_shipped_file_loads_and_names_its_tables(name):
    e = load_experiment(name)
    assert e.name == name
    assert e.source == str(EXPERIMENTS / f"{name}.toml")
    assert load_experiment(e.source) == e
    for table in (e.reactor.shape, e.reactor.nonequilibrium, e.reactor.spent_fuel,
                  e.response.nonlinearity, e.systematics.spectrum_shape):  # fmt: skip
        if table not in ("none", "birks"):
            assert e.table(table).is_file()


@pytest.mark.parametrize("name", available_experiments())
def test_shown_text_gives_the_same_experiment(name):
    e = load_experiment(name)
    text = show(e)
    back = experiment_from_mapping(tomllib.loads(text), source=e.source)
    assert back == e
    assert show(back) == text
    assert "nonlinearity_scale = " in text  # a default that the file does not write


def test_a_file_for_another_detector(tmp_path):
    path = tmp_path / "kamioka.toml"
    path.write_text(KAMIOKA, encoding="utf-8")
    e = load_experiment(path)
    assert [c.baseline_km for c in e.reactor.cores] == [140.0, 180.0, 340.0]
    assert e.reactor.cores[2].fission_fractions == {"U235": 1.0, "U238": 0.0, "Pu239": 0.0, "Pu241": 0.0}
    assert e.reactor.cores[1].history == "middle.csv"
    assert e.binning.edges() == (0.9, 1.325, 1.75, 2.6, 4.3, 6.0, 8.5)
    assert e.response.cherenkov_photons_per_cm == 910.0
    assert e.exposure.days_per_year == 365.25
    assert e.backgrounds[1].shape == {"fast_neutrons": 0.5, "atmospheric_nc": 0.5}
    assert (e.systematics.core, e.release.nonlinearity, e.fit.statistic) == (0.0, False, "poisson")
    assert all(type(v) is float for _, v in leaves(dataclasses.asdict(e)["target"]))
    shown = tmp_path / "shown.toml"
    shown.write_text(show(e), encoding="utf-8")
    assert dataclasses.replace(load_experiment(shown), source=e.source) == e


def test_its_oscillation_parameters(tmp_path):
    path = tmp_path / "kamioka.toml"
    path.write_text(KAMIOKA, encoding="utf-8")
    p = {q.name: q for q in load_experiment(path).oscillation_parameters()}
    assert tuple(p) == OSCILLATION
    assert (p["sin2_th12"].value, p["sin2_th12"].sigma, p["sin2_th12"].bounds) == (0.316, None, (None, None))
    assert (p["sin2_th13"].sigma, p["sin2_th13"].bounds) == (0.0007, (0.0, 0.1))
    assert p["dm2_31_eV2"].fixed
    assert p["dm2_31_eV2"].unit == "eV$^2$"


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_files_of_every_editor(tmp_path, prefix, line_end):
    path = tmp_path / "kamioka.toml"
    path.write_bytes(prefix + KAMIOKA.encode().replace(b"\n", line_end))
    assert load_experiment(path).title == "1 kt at 180 km (nominal)"


@pytest.mark.parametrize("name", SHIPPED)
def test_edges_of_segments(name):
    b = load_experiment(name).binning
    edges = b.edges()
    assert len(edges) - 1 == sum(int(n) for _, _, n in b.segments)
    assert {x for low, high, _ in b.segments for x in (low, high)} <= set(edges)
    for low, high, n in b.segments:
        inside = [e for e in edges if low <= e <= high]
        assert max(abs(e - low - k * (high - low) / n) for k, e in enumerate(inside)) < 1e-11


def test_import_is_light():
    heavy = ("jax", "jaxtyping", "numpy", "scipy", "equinox", "matplotlib", "uproot")
    for module in ("nuebar", "nuebar.config", "nuebar.parameters"):
        code = f"import sys, {module}; print(*[m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "", module


def test_public_names_exist():
    assert all(hasattr(nuebar.config, name) for name in nuebar.config.__all__)


# ---------------------------------------------------------------- wrong keys

CORE = {"name": "X", "power_GW": 1.0, "baseline_km": 50.0}
FUEL = {"U235": 0.58, "U238": 0.07, "Pu239": 0.30, "Pu241": 0.05}

WRONG = [
    # format
    ("format", 2, "key 'format': expected 1, got 2"),
    ("format", "1", "key 'format'"),
    ("format", True, "key 'format': expected a whole number"),
    ("format", DROP, "key 'format': expected 1, got None"),
    ("source", "elsewhere.toml", "unknown key 'source'"),
    # missing and unknown
    ("name", DROP, "missing key 'name'"),
    ("name", " ", "key 'name': expected a name"),
    ("target", DROP, "missing key 'target'"),
    ("target", 3, "key 'target': expected a table, got 3"),
    ("target.free_protons", DROP, "missing key 'target.free_protons'"),
    ("target.free_proton", 1e33, "unknown key 'target.free_proton'; did you mean 'free_protons'?"),
    ("reactor.cores[0].power_MW", 4600.0, "unknown key 'reactor.cores[0].power_MW'; did you mean 'power_GW'?"),
    ("reactor.cores[2].baseline_km", DROP, "missing key 'reactor.cores[2].baseline_km'"),
    ("detektor", {}, "unknown key 'detektor'; did you mean 'detector'?"),
    ("zyklotron", {}, "unknown key 'zyklotron'; known keys: "),
    # types
    ("title", 7, "key 'title': expected a text, got 7"),
    ("exposure.days", "six years", "key 'exposure.days': expected a number, got 'six years'"),
    ("exposure.days", True, "key 'exposure.days': expected a number, got True"),
    ("exposure.days", datetime.date(2025, 8, 26), "key 'exposure.days': expected a number"),
    ("exposure.days", 10**400, "key 'exposure.days': expected a finite number"),
    ("systematics.nonlinearity", 1, "key 'systematics.nonlinearity': expected true or false, got 1"),
    ("response.resolution", 0.03, "key 'response.resolution': expected a list, got 0.03"),
    ("response.resolution", [0.03, "0.01", 0.0], "key 'response.resolution[1]': expected a number"),
    ("reactor.cores", {"name": "X"}, "key 'reactor.cores': expected a list"),
    ("reactor.cores", [CORE, 5], "key 'reactor.cores[1]': expected a table, got 5"),
    ("reactor.fission_fractions", [0.6, 0.4], "key 'reactor.fission_fractions': expected a table"),
    ("backgrounds[0].shape", 1.0, "key 'backgrounds[0].shape': expected a text"),
    ("backgrounds[0].shape", ["bipo"], "key 'backgrounds[0].shape': expected a text or a table"),
    ("backgrounds[0].shape", {"bipo": "much"}, "key 'backgrounds[0].shape.bipo': expected a number"),
    ("oscillation.sin2_th12", "0.3", "key 'oscillation.sin2_th12': expected a number or a table"),
    ("oscillation.sin2_th12", {"sigma": 0.01}, "missing key 'oscillation.sin2_th12.value'"),
    # ranges
    ("target.free_protons", -1.0, "key 'target.free_protons': expected a number above 0 (1 to 1e40), got -1.0"),
    ("target.free_protons", 1e300, "key 'target.free_protons'"),
    ("target.efficiency", 0, "key 'target.efficiency'"),
    ("target.efficiency", 82.2, "key 'target.efficiency': expected a number above 0, at most 1, got 82.2"),
    ("exposure.days", 0, "key 'exposure.days'"),
    ("exposure.days_per_year", -365.25, "key 'exposure.days_per_year'"),
    ("matter.density_g_cm3", -2.45, "key 'matter.density_g_cm3'"),
    ("matter.density_g_cm3", 2450, "key 'matter.density_g_cm3': expected a number from 0 to 20"),
    ("matter.sigma_g_cm3", -0.1, "key 'matter.sigma_g_cm3'"),
    ("matter.electrons_per_nucleon", 1.5, "key 'matter.electrons_per_nucleon'"),
    ("response.resolution", [0.03, 0.01], "key 'response.resolution': expected three numbers [a, b, c]"),
    ("response.resolution", [0.03, -0.01, 0.0], "key 'response.resolution'"),
    ("response.resolution", [2.61, 0.82, 1.23], "key 'response.resolution': expected each a fraction"),
    ("response.resolution", [0.0, 0, 0], "key 'response.resolution': expected at least one number of 0.0001 or more"),
    ("response.resolution", [1e-300, 0.0, 0.0], "key 'response.resolution'"),
    ("response.anchor_MeV", -3.55, "key 'response.anchor_MeV': expected 0 for none, or MeV from 1 to 50"),
    ("response.anchor_MeV", 3550, "key 'response.anchor_MeV'"),
    ("response.kB_g_cm2_GeV", -12.0, "key 'response.kB_g_cm2_GeV'"),
    ("response.fC", -0.5, "key 'response.fC'"),
    ("response.light_yield_per_MeV", 0, "key 'response.light_yield_per_MeV'"),
    ("response.cherenkov_photons_per_cm", -1, "key 'response.cherenkov_photons_per_cm'"),
    # reactors
    ("reactor.cores", [], "key 'reactor.cores': expected at least one core, got []"),
    ("reactor.cores", [CORE, CORE], "key 'reactor.cores': expected different names, got 'X'; rename one"),
    ("reactor.cores[1].name", "Taishan 2", "key 'reactor.cores': expected names of letters"),
    ("reactor.cores[1].name", "", "key 'reactor.cores': expected names of letters"),
    ("reactor.cores", [CORE | {"power_GW": 0.0}], "key 'reactor.cores': expected at least one core that runs"),
    ("reactor.cores", [CORE | {"duty_cycle": 0.0}], "key 'reactor.cores': expected at least one core that runs"),
    ("reactor.cores[0].power_GW", -4.6, "key 'reactor.cores[0].power_GW'"),
    ("reactor.cores[8].baseline_km", 0.0, "key 'reactor.cores[8].baseline_km'"),
    ("reactor.cores[3].duty_cycle", 1.1, "key 'reactor.cores[3].duty_cycle'"),
    ("reactor.cores[0].fission_fractions", {"U235": 1.0}, "key 'reactor.cores[0].fission_fractions'"),
    ("reactor.duty_cycle", 0.0, "key 'reactor.duty_cycle'"),
    ("reactor.fission_fractions.U235", 0.60, "key 'reactor.fission_fractions': expected fractions that add up to 1"),
    ("reactor.fission_fractions.Pu240", 0.0, "key 'reactor.fission_fractions.Pu240': expected one of the isotopes"),
    ("reactor.fission_fractions.Pu241", DROP, "key 'reactor.fission_fractions': expected all of"),
    ("reactor.fission_fractions", FUEL | {"U235": 0.68, "Pu241": -0.05}, "key 'reactor.fission_fractions.Pu241'"),
    ("reactor.energy_per_fission_MeV.U238", 0.0, "key 'reactor.energy_per_fission_MeV.U238'"),
    ("reactor.energy_per_fission_MeV.U238", DROP, "key 'reactor.energy_per_fission_MeV': expected all of"),
    ("reactor.cross_section", "vogel", "key 'reactor.cross_section': expected one of vogel-beacom"),
    ("reactor.energy_per_fission_MeV.U235", 3.24e-11, "key 'reactor.energy_per_fission_MeV.U235': expected MeV"),
    ("reactor.cores[0].power_GW", 4600, "key 'reactor.cores[0].power_GW': expected GW of heat"),
    ("reactor.cores[0].baseline_km", 52770, "key 'reactor.cores[0].baseline_km': expected km, from 0.001 to 12800"),
    ("reactor.cores[0].baseline_km", 1e-300, "key 'reactor.cores[0].baseline_km'"),
    ("reactor.unoscillated_per_day", 0.0, "key 'reactor.unoscillated_per_day'"),
    ("reactor.segments_MeV", [2.0, 2.0, 4.0], "key 'reactor.segments_MeV': expected energies that increase"),
    ("reactor.segments_MeV", [-1.0, 2.0], "key 'reactor.segments_MeV': expected energies above 0"),
    ("reactor.segments_sigma", 0.0, "key 'reactor.segments_sigma'"),
    # binning
    ("binning", {}, "key 'binning': expected either segments or edges_MeV, got 'neither'"),
    ("binning.edges_MeV", [1.0, 2.0], "key 'binning': expected either segments or edges_MeV, got 'both'"),
    ("binning", {"edges_MeV": [1.0]}, "key 'binning.edges_MeV': expected at least two edges"),
    ("binning", {"edges_MeV": [1.0, 3.0, 2.0, 4.0]}, "key 'binning.edges_MeV': expected edges that increase"),
    ("binning", {"edges_MeV": [1.0, 1.0]}, "key 'binning.edges_MeV': expected edges that increase"),
    ("binning", {"edges_MeV": [-1.0, 3.0]}, "key 'binning.edges_MeV': expected edges in MeV from 0 to 50"),
    ("binning", {"edges_MeV": [1000, 8000]}, "key 'binning.edges_MeV': expected edges in MeV from 0 to 50"),
    ("binning.segments", [], "key 'binning': expected either segments or edges_MeV, got 'neither'"),
    ("binning.segments", [[]], "key 'binning.segments[0]'"),
    ("binning.segments", [[1.0, 2.0]], "key 'binning.segments[0]': expected [low, high, whole number of bins]"),
    ("binning.segments", [[2.0, 1.0, 5]], "key 'binning.segments[0]'"),
    ("binning.segments", [[1.0, 2.0, 0]], "key 'binning.segments[0]'"),
    ("binning.segments", [[1.0, 2.0, 2.5]], "key 'binning.segments[0]'"),
    ("binning.segments", [[1.0, 2.0, 1e300]], "key 'binning.segments[0]'"),
    ("binning.segments", [[1.0, 60.0, 10]], "key 'binning.segments': expected edges in MeV from 0 to 50"),
    ("binning.segments", [[1, 2, 3], [2.5, 4, 1]], "key 'binning.segments[1]': expected a segment that starts"),
    ("binning.segments", [[1, 2, 3], [1.5, 4, 1]], "key 'binning.segments[1]': expected a segment that starts"),
    ("binning.fine_width_MeV", 0.0, "key 'binning.fine_width_MeV'"),
    ("binning.fine_width_MeV", 1e-9, "key 'binning.fine_width_MeV': expected a width that gives at most"),
    # oscillations
    ("oscillation.dm2_31_eV2", DROP, "key 'oscillation.dm2_31_eV2': expected a value"),
    ("oscillation.sin2_th23", 0.5, "key 'oscillation.sin2_th23': expected one of sin2_th12"),
    ("oscillation.sin2_th12.value", 1.3, "key 'oscillation.sin2_th12': expected a number from 0 to 1"),
    ("oscillation.sin2_th12.bounds", [-0.1, 0.6], "key 'oscillation.sin2_th12.bounds': expected limits from 0"),
    ("oscillation.sin2_th12.bounds", [0.6, 0.05], "key 'oscillation.sin2_th12.bounds': expected low < high"),
    ("oscillation.sin2_th12.bounds", [0.4, 0.6], "key 'oscillation.sin2_th12': expected a value within its bounds"),
    ("oscillation.sin2_th12.bounds", [0.1], "key 'oscillation.sin2_th12.bounds': expected [low, high]"),
    ("oscillation.sin2_th12.sigma", 0.0, "key 'oscillation.sin2_th12.sigma': expected a width above 0"),
    ("oscillation.dm2_21_eV2", -7.5e-5, "key 'oscillation.dm2_21_eV2': expected a positive number"),
    ("oscillation.dm2_21_eV2", 7.5, "key 'oscillation.dm2_31_eV2': expected a size above 3"),
    ("oscillation.dm2_31_eV2.value", -2.5e-3, "key 'oscillation.dm2_31_eV2': expected a value within its bounds"),
    # pulls, backgrounds, fit
    ("systematics.core", -0.008, "key 'systematics.core'"),
    ("systematics.energy_scale", 1e300, "key 'systematics.energy_scale': expected a width of at least 0"),
    ("systematics.signal.flux", 1e-200, "key 'systematics.signal.flux': expected a width above 0"),
    ("systematics.signal.flux", 0.0, "key 'systematics.signal.flux'"),
    ("systematics.signal", {"my flux": 0.1}, "key 'systematics.signal': expected names of letters"),
    ("systematics.fission_fractions.U235", 0.0, "key 'systematics.fission_fractions.U235': expected a width above 0"),
    ("systematics.fission_fractions.U236", 0.1, "key 'systematics.fission_fractions.U236'"),
    ("systematics.resolution", [0.1, 0.1], "key 'systematics.resolution': expected three widths"),
    ("systematics.resolution", [0.1, 0.1, -0.1], "key 'systematics.resolution': expected each a width of at least 0"),
    ("systematics.spectrum_shape_width_MeV", 0.0, "key 'systematics.spectrum_shape_width_MeV'"),
    ("systematics.nonlinearity_scale", -1, "key 'systematics.nonlinearity_scale'"),
    ("backgrounds[3].name", "geoneutrinos", "key 'backgrounds': expected different names"),
    ("backgrounds[3].rate_per_day", -0.8, "key 'backgrounds[3].rate_per_day'"),
    ("backgrounds[3].shape", "", "key 'backgrounds[3].shape'"),
    ("backgrounds[3].shape", {}, "key 'backgrounds[3].shape'"),
    ("backgrounds[3].shape", {"bipo": 0.0}, "key 'backgrounds[3].shape': expected at least one weight"),
    ("backgrounds[3].shape", {"bipo": -1.0, "alpha_n": 2.0}, "key 'backgrounds[3].shape.bipo'"),
    ("backgrounds[3].rate_sigma", -0.2, "key 'backgrounds[3].rate_sigma': expected a width"),
    ("backgrounds[3].shape_sigma", -0.1, "key 'backgrounds[3].shape_sigma': expected a width"),
    ("backgrounds[3].slope_sigma", -0.1, "key 'backgrounds[3].slope_sigma': expected a width"),
    ("backgrounds[3].rate_per_day", 1e300, "key 'backgrounds[3].rate_per_day'"),
    ("backgrounds[3].shape", {"bipo": 1e308}, "key 'backgrounds[3].shape.bipo'"),
    ("fit.statistic", "chi2",
     "key 'fit.statistic': expected one of cnp, poisson, barlow-beeston, pearson, neyman, got 'chi2'"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG, ids=[f"{k}-{i}" for i, (k, *_) in enumerate(WRONG)])
def test_a_wrong_key_is_named(tmp_path, key, value, sentence):
    assert sentence in refusal(write(tmp_path, changed(key, value)))


def test_birks_needs_the_meaning_of_fC(tmp_path):
    raw = changed("response.nonlinearity", "birks")
    assert load_experiment(write(tmp_path, raw)).response.cherenkov_photons_per_cm > 0
    del raw["response"]["cherenkov_photons_per_cm"]
    sentence = refusal(write(tmp_path, raw))
    assert "key 'response.cherenkov_photons_per_cm': expected a number above 0 with" in sentence


def test_fC_of_juno_is_what_its_file_says():
    from nuebar.physics.scintillator import frank_tamm_photons_per_cm

    stated = load_experiment("juno").response.cherenkov_photons_per_cm
    assert stated == pytest.approx(frank_tamm_photons_per_cm(200.0, 700.0), rel=1e-4)


NUMBERS = [k for k, v in leaves(JUNO) if isinstance(v, float | int) and not isinstance(v, bool)]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_no_number_may_be_infinite_or_nan(tmp_path, value):
    assert len(NUMBERS) > 80
    for key in NUMBERS:
        sentence = refusal(write(tmp_path, changed(key, value)))
        assert f"key {key!r}: expected" in sentence


def test_no_table_takes_an_unknown_key(tmp_path):
    free = (
        "oscillation",
        "systematics.signal",
        "shape",
        "activity",
    )  # their keys are names; bad ones are in the table above
    for table in tables(JUNO):
        if "fractions" in table or "energy_per_fission" in table or table.endswith(free):
            continue
        key = f"{table}.colour" if table else "colour"
        assert f"unknown key {key!r}" in refusal(write(tmp_path, changed(key, "red")))


@in_one_folder
@given(data=st.data())
def test_any_value_anywhere_is_taken_or_refused(tmp_path, data):
    key, _ = data.draw(st.sampled_from(leaves(JUNO)))
    plain = st.one_of(
        st.floats(), st.integers(), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=5), st.dates()
    )
    nested = st.recursive(plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.just("a"), x), max_leaves=4)
    raw = changed(key, data.draw(nested))
    check_outcome(write(tmp_path, raw))


@in_one_folder
@given(data=st.data())
def test_any_dropped_key_is_a_default_or_named(tmp_path, data):
    key, _ = data.draw(st.sampled_from([*leaves(JUNO), *((t, {}) for t in tables(JUNO) if t)]))
    e, sentence = outcome(write(tmp_path, changed(key, DROP)))
    if e is None:
        assert str(tmp_path / "mine.toml") in sentence
        # An entry of a list, or the only one of a table of free names, is named by its parent.
        names = [k for k in keys_of(key) if not isinstance(k, int)]
        assert any(name in sentence for name in names[-2:])


# ---------------------------------------------------------------- wrong files


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "key 'format': expected 1, got None"),
        (b"\n# nothing\n", "key 'format'"),
        (b"\x00\x01\x02\xff", "byte 3: expected UTF-8 text, got 0xff"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "byte 0: expected UTF-8 text, got 0x89"),
        (b"\x00\x01\x02", "not a valid TOML file"),
        (KAMIOKA.encode("utf-16"), "expected UTF-8 text"),
        (b'format = 1\nname = "J\xfclich"\n', "byte 20: expected UTF-8 text, got 0xfc"),
        (b"format = 1\nformat = 1\n", "not a valid TOML file: Cannot overwrite a value (at line 2"),
        (b"format = \n", "not a valid TOML file: Invalid value (at line 1"),
        (b'name = "half', "not a valid TOML file"),
        (b"[target\n", "not a valid TOML file"),
        (b"days = " + b"9" * 5000, "not a valid TOML file"),
        (b"a = " + b"[" * 20000, "expected TOML, got brackets within brackets"),
        (b'{"format": 1}', "not a valid TOML file"),
    ],
    ids=range(14),
)
def test_a_garbled_file_is_refused(tmp_path, content, sentence):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    assert sentence in refusal(path)


@in_one_folder
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    refusal(path)


@in_one_folder
@given(at=st.integers(0, len(KAMIOKA) - 1), length=st.integers(0, 40), by=st.text('[]{}=".#\n0x9-,\\', max_size=3))
def test_a_damaged_file_is_refused_or_still_an_experiment(tmp_path, at, length, by):
    path = tmp_path / "mine.toml"
    path.write_text(KAMIOKA[:at] + by + KAMIOKA[at + length :], encoding="utf-8")
    check_outcome(path)


@pytest.mark.parametrize(
    "name", ["jun", "juno.tml", "", "nowhere/juno.toml", "a\0b.toml", "x" * 5000 + ".toml", "../config.py"]
)
def test_an_absent_experiment_lists_the_known_ones(name):
    with pytest.raises(NuebarError, match=r"no experiment .*expected one of .*juno, .*\.toml") as caught:
        load_experiment(name)
    assert repr(name)[:900] in str(caught.value)  # a sentence has an end
    if name == "jun":
        assert str(caught.value).endswith("did you mean 'juno'?")


def test_a_folder_is_no_experiment(tmp_path):
    (tmp_path / "mine.toml").mkdir()
    refusal(tmp_path / "mine.toml")


@pytest.mark.parametrize("raw", [None, [], "format = 1", 3])
def test_only_a_mapping_makes_an_experiment(raw):
    with pytest.raises(NuebarError, match="expected a mapping of tables"):
        experiment_from_mapping(raw)


# ---------------------------------------------------------------- tables beside a file


def test_a_table_beside_the_file_comes_first(tmp_path):
    path = write(tmp_path, JUNO)
    e = load_experiment(path)
    assert e.table("spent_fuel.csv") == EXPERIMENTS / "spent_fuel.csv"
    (tmp_path / "spent_fuel.csv").write_text("e_nu_MeV,ratio\n")
    assert e.table("spent_fuel.csv") == tmp_path / "spent_fuel.csv"
    (tmp_path / "b.root").write_bytes(b"")
    assert e.table("b.root") == tmp_path / "b.root"
    assert e.table("b.root:h/x") == tmp_path / "b.root:h/x"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("reactor.spectrum", "huber-muller"),
        ("reactor.cores[4].history", "cycle.csv"),
        ("response.nonlinearity", "curve.csv"),
        ("backgrounds[2].shape", "histogram.root:h"),
        ("systematics.spectrum_shape", "\0"),
        ("reactor.shape", "y" * 5000),
    ],
)
def test_an_absent_table_is_named_with_its_key(tmp_path, key, name):
    e = experiment_from_mapping(changed(key, name), source=str(tmp_path / "mine.toml"))
    with pytest.raises(NuebarError, match=r"mine\.toml: key .*: expected a built-in word, or a file") as caught:
        e.table(name)
    assert key in str(caught.value)
    assert len(str(caught.value)) < 600


# ---------------------------------------------------------------- override

CHANGES = [
    ({"exposure.days": 10}, "exposure.days", 10.0),
    ({"fit.statistic": "cnp"}, "fit.statistic", "cnp"),
    ({"reactor.shape": "none", "systematics.core": 0.0}, "reactor.shape", "none"),
    ({"reactor.unoscillated_per_day": None}, "reactor.unoscillated_per_day", None),
    ({"systematics.signal.detector": 0.02}, "systematics.signal.detector", 0.02),
    ({"systematics.resolution": []}, "systematics.resolution", ()),
    ({"oscillation.sin2_th12.fixed": True}, "oscillation.sin2_th12.fixed", True),
    ({"oscillation.sin2_th12": 0.31}, "oscillation.sin2_th12.value", 0.31),
    ({"reactor.cores.YJ3.power_GW": 0}, "reactor.cores[4].power_GW", 0.0),
    ({"reactor.cores[4].power_GW": 0}, "reactor.cores[4].power_GW", 0.0),
    ({"reactor.cores.TS1.fission_fractions": FUEL}, "reactor.cores[0].fission_fractions", FUEL),
    ({"backgrounds.accidentals.rate_per_day": 2.0}, "backgrounds[2].rate_per_day", 2.0),
    ({"response.resolution[0]": 0.04}, "response.resolution", (0.04, 0.0082, 0.0123)),
]


def at(record, key):
    for part in keys_of(key):
        record = record[part] if isinstance(record, dict | tuple | list) else getattr(record, part)
    return record


@pytest.mark.parametrize(("changes", "key", "value"), CHANGES, ids=[next(iter(c)) for c, *_ in CHANGES])
def test_override_changes_what_it_names_and_no_more(changes, key, value):
    e = load_experiment("juno")
    before = copy.deepcopy(e)
    new = override(e, changes)
    assert at(new, key) == value
    assert type(at(new, key)) is type(value)
    assert e == before
    assert new.source == e.source
    old, now = (dict(leaves(tomllib.loads(show(x)))) for x in (e, new))
    differ = {k for k in old.keys() | now.keys() if old.get(k) != now.get(k)}
    assert all(k.startswith((key, *changes)) for k in differ)


def test_override_of_a_value_keeps_its_bounds():
    new = override(load_experiment("juno"), {"oscillation.sin2_th12": 0.31})
    assert new.oscillation["sin2_th12"].bounds == (0.05, 0.60)


def test_override_of_nothing_is_the_identity():
    e = load_experiment("juno")
    assert override(e, {}) == e


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exposure.dais": 3}, "unknown key 'exposure.dais'; did you mean 'days'?"),
        ({"exposures.days": 3}, "unknown key 'exposures'; did you mean 'exposure'?"),
        ({"exposure.days.live": 3}, "unknown key 'exposure.days.live'"),
        ({"reactor.cores.TS9.power_GW": 3}, "no entry 'TS9' in the list; known: TS1, TS2"),
        ({"reactor.cores[9].power_GW": 3}, "no entry '9' in the list"),
        ({"response.resolution[3]": 3}, r"no entry '3' in the list; known: \[0\] to \[2\]"),
        ({"reactor.cores.TS1.colour": "red"}, "unknown key 'reactor.cores\\[0\\].colour'"),
        ({"exposure.days": -1}, r"key 'exposure.days': expected a number above 0 \(1e-12 to 1e12\), got -1.0"),
        ({"exposure.days": NAN}, "key 'exposure.days': expected a finite number, got nan"),
        ({"exposure.days": "ten"}, "key 'exposure.days': expected a number, got 'ten'"),
        ({"exposure": 10}, "key 'exposure': expected a table, got 10"),
        ({"source": "x"}, "unknown key 'source'"),
        ({"format": 2}, "key 'format'"),
        ({"": 1}, "expected a key like 'table.key', got ''"),
        ({"exposure.": 1}, "expected a key like 'table.key'"),
        ({"systematics.signal.flux": 0}, "key 'systematics.signal.flux'"),
    ],
)
def test_a_wrong_override_is_refused(changes, sentence):
    with pytest.raises(NuebarError, match=rf"juno\.toml, with changes: .*{sentence}") as caught:
        override(load_experiment("juno"), changes)
    assert len(str(caught.value).splitlines()) == 1


# ---------------------------------------------------------------- writing TOML

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.one_of(st.floats(allow_nan=False), st.integers(-(2**62), 2**62), st.booleans(), texts)
records = st.recursive(
    st.dictionaries(texts, scalars | st.lists(scalars, max_size=3), max_size=4),
    lambda r: st.dictionaries(texts, r | st.lists(r, min_size=1, max_size=3) | scalars, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(records)
def test_written_toml_reads_back(record):
    assert tomllib.loads(to_toml(record)) == record

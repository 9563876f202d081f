"""Calibration sources: energies, shares and neutron spectra as the catalogue says, and a catalogue that is checked."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.simulate import sources as module
from nuebar.simulate.deposits import ALPHA_CODES, CODES, ELECTRON_CODES, code_energies_MeV
from nuebar.simulate.random import derive_key
from nuebar.simulate.sources import PARTS, calibration_pool, check_place, deposited_MeV, load_sources

SOURCES = load_sources()
ME = ELECTRON_MASS_MeV
ENERGY = code_energies_MeV()
KEY = derive_key(8, "sources")
N = 12_000
POOLS = {}


def pool_of(name):
    if name not in POOLS:
        POOLS[name] = calibration_pool(SOURCES[name], N, KEY)
    return POOLS[name]


def split_energies(pool):
    """Energies that electrons and protons deposit in every cascade."""
    electrons, protons = ENERGY.copy(), ENERGY.copy()
    electrons[ELECTRON_CODES:], protons[:ELECTRON_CODES] = 0, 0
    return pool.photons(electrons), pool.photons(protons)


@pytest.fixture
def catalogue(tmp_path):
    """Writes a catalogue and gives its path."""
    numbers: Iterator[int] = iter(range(100))

    def write(text, *, format_=1):
        path = tmp_path / f"sources-{next(numbers)}.toml"
        path.write_text(f"format = {format_}\n{text}", encoding="utf-8")
        return path

    return write


# ---------------------------------------------------------------- the standard catalogue


@pytest.mark.parametrize("name", SOURCES)
def test_branches_deposit_their_energy(name):
    pool = pool_of(name)
    electrons, protons = split_energies(pool)
    for i, branch in enumerate(SOURCES[name].settings.branches):
        chosen = pool.columns["branch"] == i
        if branch.smear_MeV == 0:
            assert np.abs(electrons[chosen] - deposited_MeV(branch)).max(initial=0) < 1e-3
        else:
            spread = branch.smear_MeV / math.sqrt(chosen.sum())
            assert electrons[chosen].mean() == pytest.approx(deposited_MeV(branch), abs=4 * spread)
            assert electrons[chosen].std() == pytest.approx(branch.smear_MeV, rel=0.05)
        assert bool(protons[chosen].any()) == bool(branch.neutron)
    assert pool.codes.max() < CODES - ALPHA_CODES


@pytest.mark.parametrize("name", SOURCES)
def test_shares_and_parts(name):
    pool, branches = pool_of(name), SOURCES[name].settings.branches
    counts = np.bincount(pool.columns["branch"], minlength=len(branches))
    share = np.array([b.share for b in branches])
    share = share / share.sum()
    for n, p in zip(counts, share, strict=True):
        assert stats.binomtest(int(n), N, p).pvalue > 1e-4
    parts = np.array([PARTS.index(b.part) for b in branches])
    np.testing.assert_array_equal(pool.columns["part"], parts[pool.columns["branch"]])


@pytest.mark.parametrize(
    ("name", "lines_MeV"),
    [
        ("Cs137", {0.6617}),
        ("Mn54", {0.8348}),
        ("K40", {1.4608}),
        ("Co60", {2.5057, 1.3325}),
        ("Ge68", {1.0220, 2.0993, 1.0773}),  # two 511 keV gammas, with or without the 1.077 MeV one
        ("nH", {2.2233}),
        ("nC", {4.9453, 4.9457}),  # one gamma, or two that add up to the same
        ("nFe", {7.6455, 7.6457, 7.645}),
    ],
)
def test_lines(name, lines_MeV):
    got = {round(deposited_MeV(b), 4) for b in SOURCES[name].settings.branches}
    assert all(min(abs(x - y) for y in lines_MeV) < 3e-3 for x in got)
    assert all(min(abs(x - y) for y in got) < 3e-3 for x in lines_MeV)


@pytest.mark.parametrize("name", ["AmBe", "AmC"])
def test_a_neutron_is_one_prompt_and_one_capture(name):
    pool = pool_of(name)
    prompt = np.mean(pool.columns["part"] == PARTS.index("prompt"))
    assert prompt == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(N))
    electrons, protons = split_energies(pool)
    capture = pool.columns["part"] == PARTS.index("capture")
    assert not protons[capture].any()
    # 98.8 % on hydrogen, 0.7 % on carbon, 0.5 % on iron.
    for line, share in ((2.2233, 0.988), (4.945, 0.007), (7.64, 0.005)):
        n = int(np.sum(np.abs(electrons[capture] - line) < 0.01))
        assert stats.binomtest(n, int(capture.sum()), share).pvalue > 1e-4


def test_prompt_part_of_americium_beryllium():
    pool = pool_of("AmBe")
    electrons, protons = split_energies(pool)
    prompt = pool.columns["part"] == PARTS.index("prompt")
    gamma = prompt & (electrons > 3)
    # 0.575 gammas of 4.44 MeV for a neutron, broadened by their emission in flight (At. Energy Sci. Technol. 42, 300).
    assert stats.binomtest(int(gamma.sum()), int(prompt.sum()), 0.575).pvalue > 1e-4
    assert electrons[gamma].mean() == pytest.approx(4.439, abs=0.005)
    # Without the gamma there are protons alone.
    assert not electrons[prompt & ~gamma].any()
    # Nearly all of a neutron's energy goes to protons; carbon takes the rest.
    assert protons[gamma].max() < 6.5
    assert 7.0 < protons[prompt & ~gamma].max() < 11.2


def test_excited_oxygen_of_americium_carbon():
    pool = pool_of("AmC")
    electrons, protons = split_energies(pool)
    first = pool.columns["branch"] == 0
    assert np.abs(electrons[first] - 6.12989).max() < 1e-3
    assert protons[first].max() < 0.64  # the neutron that is left with little
    pair = pool.columns["branch"] == 1
    assert np.abs(electrons[pair] - 6.049).max() < 2e-3


# ---------------------------------------------------------------- neutron spectra


@pytest.mark.parametrize("name", ["AmBe_n0", "AmBe_n1", "AmBe_n2", "AmBe_breakup", "AmC_n0", "AmC_613", "AmC_605"])
def test_quantiles_follow_the_points(name):
    energy, density = np.array(SOURCES["AmBe"].neutrons[name]).T
    quantiles = module._quantiles(SOURCES["AmBe"].neutrons[name])
    assert quantiles[0] >= energy[0]
    assert quantiles[-1] == energy[-1]
    assert np.all(np.diff(quantiles) > 0)
    # Area below each quantile: exact integral of straight lines.
    edges = np.unique(np.concatenate([energy, quantiles]))
    height = np.interp(edges, energy, density)
    area = np.concatenate([[0], np.cumsum(0.5 * (height[1:] + height[:-1]) * np.diff(edges))])
    share = np.interp(quantiles, edges, area / area[-1])
    np.testing.assert_allclose(share, np.linspace(0, 1, quantiles.size), atol=2e-5)
    # Straight lines between quantiles keep the mean.
    fine = np.linspace(energy[0], energy[-1], 20_001)
    weight = np.interp(fine, energy, density)
    mean = np.sum(fine * weight) / weight.sum()
    assert 0.5 * (quantiles[1:] + quantiles[:-1]).mean() == pytest.approx(mean, rel=2e-3)


def test_a_narrow_line_is_not_missed():
    points = ((0.0, 0.0), (2.0, 0.0), (2.0001, 1.0), (2.0002, 0.0), (14.0, 0.0))
    quantiles = module._quantiles(points)
    assert np.all((quantiles[1:-1] >= 2.0) & (quantiles[1:-1] <= 2.0002))


def test_neutron_of_a_pool_has_its_spectrum(catalogue):
    path = catalogue(
        "[sources.n]\ntitle = 'n'\nbranches = [{ share = 1, neutron = 'flat' }]\n"
        "[neutrons]\nflat = [[1.0, 1], [2.0, 1]]"
    )
    pool = calibration_pool(load_sources(path)["n"], 4000, KEY)
    electrons, protons = split_energies(pool)
    assert not electrons.any()
    # Elastic scattering on hydrogen and carbon: protons take most of it, never more than all.
    assert protons.max() < 2.0
    assert 0.85 * 1.5 < protons.mean() < 1.5


# ---------------------------------------------------------------- randomness


def test_pools_depend_on_the_key_alone():
    source = SOURCES["Co60"]
    a, b = calibration_pool(source, 500, KEY), calibration_pool(source, 500, KEY)
    np.testing.assert_array_equal(a.codes, b.codes)
    other = calibration_pool(source, 500, derive_key(9, "sources"))
    assert sum(np.array_equal(a.part(k, k + 1).codes, other.part(k, k + 1).codes) for k in range(500)) == 0
    # The number of deposits of one is no guess at that of the other.
    x, y = np.diff(a.offsets), np.diff(other.offsets)
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / math.sqrt(500)


def test_pools_do_not_depend_on_blocks(monkeypatch):
    whole = calibration_pool(SOURCES["AmBe"], 300, KEY)
    monkeypatch.setattr(module, "_BLOCK", 70)
    blocks = calibration_pool(SOURCES["AmBe"], 300, KEY)
    np.testing.assert_array_equal(whole.codes, blocks.codes)
    np.testing.assert_array_equal(whole.offsets, blocks.offsets)
    np.testing.assert_array_equal(whole.columns["branch"], blocks.columns["branch"])


def test_neighbouring_triggers_are_independent():
    counts = np.diff(pool_of("nH").offsets).astype(float)
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 4 / math.sqrt(N)


def test_the_richest_branch_fits_its_buffer(catalogue):
    gammas = ", ".join(["14.0"] * 16)
    path = catalogue(f"[sources.x]\ntitle = 'x'\nbranches = [{{ share = 1, gammas_MeV = [{gammas}] }}]")
    pool = calibration_pool(load_sources(path)["x"], 200, KEY)
    assert np.abs(pool.energies_MeV() - 224).max() < 0.02


def test_positrons_electrons_and_pairs(catalogue):
    path = catalogue(
        "[sources.x]\ntitle = 'x'\nbranches = [{ share = 1, electrons_MeV = [1.0, 0.3], positrons_MeV = [0.5] },"
        " { share = 1, pair_MeV = 3.0, part = 'prompt' }, { share = 0, gammas_MeV = [9.0] }]"
    )
    source = load_sources(path)["x"]
    pool = calibration_pool(source, 2000, KEY)
    for i, e_MeV in enumerate((1.8 + 2 * ME, 3.0 + 2 * ME)):
        assert deposited_MeV(source.settings.branches[i]) == pytest.approx(e_MeV)
        chosen = pool.columns["branch"] == i
        assert 900 < chosen.sum() < 1100
        assert np.abs(pool.energies_MeV()[chosen] - e_MeV).max() < 1e-3
    assert pool.columns["branch"].max() == 1
    assert pool.metadata == {"source": "x", "cascades": 2000, "material": "lab"}


@pytest.mark.parametrize("cascades", [0, -5])
def test_pools_have_cascades(cascades):
    with pytest.raises(NuebarError, match="cascades: expected a whole number above 0, got"):
        calibration_pool(SOURCES["nH"], cascades, KEY)


# ---------------------------------------------------------------- place and catalogue


@pytest.mark.parametrize(("position", "inside"), [((0, 0, 0), True), ((0, 0, 16.69), True), ((10, 10, 9.3), False)])
def test_place(catalogue, position, inside):
    text = f"[sources.x]\ntitle = 'x'\nposition_m = {list(position)}\nbranches = [{{ share = 1, gammas_MeV = [1.0] }}]"
    source = load_sources(catalogue(text))["x"]
    assert source.title == "x"
    if inside:
        assert check_place(source, 17.7) == pytest.approx(math.hypot(*position))
    else:
        with pytest.raises(NuebarError, match=r"sources\.x\.position_m: expected a place at least 1 m inside"):
            check_place(source, 17.7)


BRANCH = "[sources.x]\ntitle = 'x'\nbranches = [{ share = 1, %s }]"
SPECTRUM = "[sources.x]\ntitle = 'x'\nbranches = [{ share = 1, neutron = 's' }]\n[neutrons]\ns = %s"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[sources.x]\ntitle = 'x'\nbranches = []",
            r"key 'sources\.x\.branches': expected branches with",
        ),
        ("[sources.x]\ntitle = 'x'\nbranches = [{ share = 0 }]", r"'sources\.x\.branches': expected branches"),
        ("[sources.x]\nbranches = [{ share = 1 }]", r"missing key 'sources\.x\.title'"),
        ("[sources.x]\ntitle = 'x'", r"missing key 'sources\.x\.branches'"),
        (BRANCH % "gamma_MeV = [1]", r"unknown key 'sources\.x\.branches\[0\]\.gamma_MeV'; did you mean 'gammas_MeV'"),
        (BRANCH % "gammas_MeV = [15.0]", r"key 'sources\.x\.branches\[0\]': expected a number from 0 to 14, got 15"),
        (BRANCH % "gammas_MeV = [-1.0]", r"'sources\.x\.branches\[0\]': expected a number from 0 to 14, got -1"),
        (BRANCH % "gammas_MeV = [nan]", r"branches\[0\]\.gammas_MeV\[0\]"),
        (BRANCH % "pair_MeV = 20.0", r"'sources\.x\.branches\[0\]': expected a number from 0 to 14"),
        (BRANCH % "positrons_MeV = [-0.1]", r"'sources\.x\.branches\[0\]': expected a number from 0 to 14"),
        (
            BRANCH % "gammas_MeV = [1.0], smear_MeV = 3.0",
            r"branches\[0\]\.smear_MeV': expected a number from 0 to",
        ),
        (BRANCH % f"gammas_MeV = {[1.0] * 17}", r"expected at most 16 gammas, electrons and positrons, got 17"),
        (BRANCH % "part = 'delayed'", r"branches\[0\]\.part': expected 'decay', 'prompt' or 'capture', got 'delayed'"),
        (BRANCH % "neutron = 'AmBe'", r"branches\[0\]\.neutron': expected one of those of a table \[neutrons\], got"),
        ("[sources.x]\ntitle = 'x'\nbranches = [{ share = -1 }, { share = 2 }]", r"branches\[0\]\.share': expected"),
        (
            f"[sources.x]\ntitle = 'x'\nbranches = [{'{ share = 1 }, ' * 256}]",
            r"branches': expected at most 255",
        ),
        (
            "[sources.x]\ntitle = 'x'\nposition_m = [0, 1]\nbranches = [{ share = 1 }]",
            r"position_m': expected three",
        ),
        (SPECTRUM % "[[1.0, 1.0]]", r"key 'neutrons\.s': expected at least two points \[MeV, density\]"),
        (SPECTRUM % "[[1.0, 1.0], [2.0]]", r"key 'neutrons\.s': expected at least two points"),
        (SPECTRUM % "[[2.0, 1.0], [1.0, 1.0]]", r"key 'neutrons\.s': expected energies that increase from 0 to 15 MeV"),
        (SPECTRUM % "[[1.0, 1.0], [1.0, 2.0]]", r"key 'neutrons\.s': expected energies that increase"),
        (SPECTRUM % "[[-1.0, 1.0], [1.0, 2.0]]", r"key 'neutrons\.s': expected energies that increase"),
        (SPECTRUM % "[[1.0, 1.0], [16.0, 2.0]]", r"key 'neutrons\.s': expected energies that increase"),
        (SPECTRUM % "[[1.0, -1.0], [2.0, 2.0]]", r"key 'neutrons\.s': expected densities that are not negative"),
        (SPECTRUM % "[[1.0, 0.0], [2.0, 0.0]]", r"key 'neutrons\.s': expected densities that are not negative"),
        ("sources = 3", r"key 'sources': expected a table, got 3"),
        ("sources = {\n", r"not a valid TOML file"),
    ],
)
def test_catalogue_is_checked(catalogue, text, sentence):
    with pytest.raises(NuebarError, match=rf"sources-0\.toml: .*{sentence}"):
        load_sources(catalogue(text))


def test_catalogue_of_another_format(catalogue):
    with pytest.raises(NuebarError, match=r"sources-0\.toml: key 'format': expected 1, got 2; update nuebar"):
        load_sources(catalogue(BRANCH % "gammas_MeV = [1.0]", format_=2))


def test_catalogue_is_missing(tmp_path):
    with pytest.raises(NuebarError, match=r"none\.toml: cannot be read"):
        load_sources(tmp_path / "none.toml")


def test_a_changed_catalogue_is_read_again(tmp_path):
    path = tmp_path / "sources.toml"
    for e_MeV in (1.0, 2.0):
        path.write_text("format = 1\n" + BRANCH % f"gammas_MeV = [{e_MeV}]", encoding="utf-8")
        assert deposited_MeV(load_sources(path)["x"].settings.branches[0]) == e_MeV

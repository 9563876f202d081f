"""Decay schemes: probabilities, energy, known lines, spectra, and a walk of the flat arrays."""

import dataclasses
import json
from importlib.resources import files

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.physics import beta_decay, decays
from nuebar.physics.constants import ELECTRON_MASS_MeV

NUCLIDES = decays.available_nuclides()
ALPHA_MASS_u = 4.0026  # AME, nominal
MODES = {"beta-": decays.BETA_MINUS, "beta+": decays.BETA_PLUS, "ec": decays.CAPTURE, "alpha": decays.ALPHA}
CHAINS = decays.available_chains()


def nodes(count=2000):
    return (np.arange(count) + 0.5) / count


def beta_branches(least=0.0):
    return [
        pytest.param(n, i, id=f"{n}-{i}")
        for n in NUCLIDES
        for i, b in enumerate(decays.load_nuclide(n).branches)
        if b.mode.startswith("beta") and b.probability > least
    ]


def sampled(branch, u):
    table = decays.beta_quantiles(branch)
    return np.array([decays.kinetic_energy(table, float(x)) for x in u])


def branch_of(name, level_MeV):
    nuclide = decays.load_nuclide(name)
    return next(b for b in nuclide.branches if abs(nuclide.levels[b.level].energy_MeV - level_MeV) < 1e-4)


@pytest.mark.parametrize("name", NUCLIDES)
def test_probabilities_add_up_to_one(name):
    nuclide = decays.load_nuclide(name)
    assert sum(b.probability for b in nuclide.branches) == pytest.approx(1.0, abs=1e-12)
    for i, level in enumerate(nuclide.levels):
        assert all(t.to_level < i and t.energy_MeV > 0.0 for t in level.transitions)
        assert all(t.p_gamma >= 0.0 and t.p_electron >= 0.0 for t in level.transitions)
        if level.energy_MeV > 0.0:
            assert sum(t.p_gamma + t.p_electron for t in level.transitions) == pytest.approx(1.0, abs=1e-12)
        else:
            assert level.transitions == ()
        assert all(nuclide.levels[t.to_level].daughter == level.daughter for t in level.transitions)
    assert 0.0 <= nuclide.left_out < 0.01


def test_the_table_itself_needs_no_more_than_rounding():
    table = json.loads((files("nuebar.physics.decays") / "schemes.json").read_text(encoding="utf-8"))
    for name, entry in table["nuclides"].items():
        total = sum(row[2] for d in entry["daughters"] for row in d["branches"])
        assert total == pytest.approx(1.0, abs=1e-6), name
        for d in entry["daughters"]:
            sums = [sum(g + e for _, g, e in ways) for _, ways in d["levels"][1:]]
            np.testing.assert_allclose(sums, 1.0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", NUCLIDES)
def test_every_branch_spends_its_q_value(name):
    nuclide = decays.load_nuclide(name)
    for b in nuclide.branches:
        level = nuclide.levels[b.level]
        spent = b.q_MeV + level.energy_MeV
        spent += 2.0 * ELECTRON_MASS_MeV if b.mode == "beta+" else 0.0
        spent += b.q_MeV * ALPHA_MASS_u / b.mass_number if b.mode == "alpha" else 0.0  # the recoil
        # Evaluated alpha energies and masses differ by up to 4 keV.
        assert spent == pytest.approx(dict(nuclide.q_MeV)[level.daughter], abs=5e-3 if b.mode == "alpha" else 2e-6)
        assert b.mass_number == nuclide.mass_number - (4 if b.mode == "alpha" else 0)
        assert b.z_daughter - nuclide.z == {"beta-": 1, "beta+": -1, "ec": -1, "alpha": -2}[b.mode]


@pytest.mark.parametrize("name", NUCLIDES)
def test_mean_energies_add_up_to_q(name):
    """Charged particles from the quantiles, neutrinos from the density, photons and electrons from the lines."""
    nuclide = decays.load_nuclide(name)
    energies, photons, electrons = decays.emission_lines(nuclide)
    mean = float(np.sum(energies * (photons + electrons)))
    q_MeV = 0.0
    for b in nuclide.branches:
        q_MeV += b.probability * dict(nuclide.q_MeV)[nuclide.levels[b.level].daughter]
        if b.mode == "alpha":
            mean += b.probability * b.q_MeV * (1.0 + ALPHA_MASS_u / b.mass_number)
        elif b.mode == "ec":
            mean += b.probability * b.q_MeV
        else:
            root = nodes(400)
            kinetic = b.q_MeV * root**2
            density = decays.beta_spectrum(kinetic, b) * 2.0 * b.q_MeV * root
            neutrino = np.mean((b.q_MeV - kinetic) * density)
            annihilation = 2.0 * ELECTRON_MASS_MeV if b.mode == "beta+" else 0.0
            mean += b.probability * (np.mean(sampled(b, nodes(400))) + neutrino + annihilation)
    assert mean == pytest.approx(q_MeV, rel=2e-3)


# Photons per 100 decays, ENSDF (September 2023); the walk differs where feedings and intensities were evaluated apart.
LINES = [
    ("K40", 1.4608, 10.66, 0.01),
    ("Co60", 1.1732, 99.85, 0.001),
    ("Co60", 1.3325, 99.98, 0.001),
    ("Cs137", 0.6617, 85.1, 0.003),
    ("Mn54", 0.8348, 99.98, 0.001),
    ("Ga68", 1.0774, 3.22, 0.01),
    ("Pa234m", 1.0010, 0.842, 0.03),
    ("Pa234m", 0.7665, 0.318, 0.03),
    ("Pb214", 0.3519, 35.6, 0.01),
    ("Pb214", 0.2952, 18.4, 0.01),
    ("Pb214", 0.2420, 7.27, 0.01),
    ("Bi214", 0.6093, 45.5, 0.01),
    ("Bi214", 1.1203, 14.9, 0.01),
    ("Bi214", 1.2381, 5.83, 0.01),
    ("Bi214", 1.7645, 15.3, 0.01),
    ("Bi214", 2.2041, 4.92, 0.01),
    ("Bi214", 2.4477, 1.545, 0.01),
    ("Pb210", 0.0465, 4.25, 0.01),
    ("Ac228", 0.9112, 25.8, 0.01),
    ("Ac228", 0.9690, 15.8, 0.01),
    ("Ac228", 0.3383, 11.27, 0.01),
    ("Ac228", 1.5882, 3.22, 0.01),
    ("Pb212", 0.2386, 43.6, 0.01),
    ("Bi212", 0.7273, 6.67, 0.01),
    ("Bi212", 1.6207, 1.47, 0.01),
    ("Tl208", 2.6145, 99.75, 0.001),
    ("Tl208", 0.5832, 85.0, 0.003),
    ("Tl208", 0.5107, 22.6, 0.01),
    ("Tl208", 0.8606, 12.5, 0.01),
    ("Ra226", 0.1862, 3.64, 0.01),
    ("C10", 0.7184, 100.0, 0.001),
]


@pytest.mark.parametrize(("name", "energy_MeV", "percent", "rel"), LINES)
def test_known_lines(name, energy_MeV, percent, rel):
    energies, photons, _ = decays.emission_lines(decays.load_nuclide(name))
    assert 100.0 * photons[np.abs(energies - energy_MeV) < 2e-4].sum() == pytest.approx(percent, rel=rel)


def test_conversion_electrons_of_137cs():
    # 94.7 % of the decays pass the level at 661.7 keV, with a conversion coefficient of 0.1124 (ENSDF).
    energies, photons, electrons = decays.emission_lines(decays.load_nuclide("Cs137"))
    assert energies == pytest.approx([0.661659])
    assert electrons / photons == pytest.approx(0.1124, rel=1e-5)
    assert electrons + photons == pytest.approx(0.947, rel=1e-4)


def test_positrons_and_captures():
    ga68, c11 = decays.load_nuclide("Ga68"), decays.load_nuclide("C11")
    assert sum(b.probability for b in ga68.branches if b.mode == "beta+") == pytest.approx(0.8891, rel=1e-3)
    assert [b.mode for b in decays.load_nuclide("Ge68").branches] == ["ec"]
    assert max(b.q_MeV for b in c11.branches if b.mode == "beta+") == pytest.approx(0.9604, abs=1e-3)


# keV: the mean that ENSDF computes, with its own Fermi function and screening.
MEANS = [
    ("C14", 0.0, 49.47),
    ("C10", 0.71838, 814.26),
    ("C11", 0.0, 385.7),
    ("B12", 0.0, 6438.65),
    ("Ar39", 0.0, 218.8),  # first forbidden unique
    ("Co60", 2.505748, 95.77),
    ("Cs137", 0.661659, 174.32),  # first forbidden unique
    ("Bi214", 0.0, 1268.4),
    ("Tl208", 3.197717, 649.48),
    ("Bi212", 0.0, 833.95),
]


@pytest.mark.parametrize(("name", "level_MeV", "mean_keV"), MEANS)
def test_mean_beta_energies(name, level_MeV, mean_keV):
    nuclide = decays.load_nuclide(name)
    branch = next(b for b in nuclide.branches if b.mode != "ec" and nuclide.levels[b.level].energy_MeV == level_MeV)
    assert 1e3 * np.mean(sampled(branch, nodes())) == pytest.approx(mean_keV, rel=5e-3)


def test_the_mean_of_40k_in_ensdf_is_that_of_one_order_less():
    branch = branch_of("K40", 0.0)
    assert branch.forbidden == "unique3"  # 4- to 0+
    assert 1e3 * np.mean(sampled(branch, nodes())) == pytest.approx(584.1, rel=1e-3)
    lower = dataclasses.replace(branch, forbidden="unique2")
    assert 1e3 * np.mean(sampled(lower, nodes())) == pytest.approx(560.18, rel=3e-3)


def test_210bi_is_soft():
    branch = branch_of("Bi210", 0.0)
    # An allowed shape has a mean of 389 keV (ENSDF); the measured factor is 1 - 0.4363 W + 0.0523 W^2.
    assert 1e3 * np.mean(sampled(dataclasses.replace(branch, shape=()), nodes())) == pytest.approx(389.0, rel=5e-3)
    assert 1e3 * np.mean(sampled(branch, nodes())) == pytest.approx(316.0, rel=5e-3)


@pytest.mark.parametrize("least", [0.05])
def test_allowed_spectra_equal_those_of_beta_decay(least):
    for param in beta_branches(least):
        b = decays.load_nuclide(param.values[0]).branches[param.values[1]]
        if b.mode == "beta-" and not b.forbidden.startswith("unique") and not b.shape:
            kinetic = np.linspace(0.02, 1.1, 23) * b.q_MeV
            other = beta_decay.electron_spectrum(kinetic, b.q_MeV, b.z_daughter, b.mass_number)
            np.testing.assert_allclose(decays.beta_spectrum(kinetic, b), other, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unique_shapes_without_charge(order):
    """Z = 0: the factors are polynomials in p and q; their coefficients are in every textbook."""
    branch = decays.Branch("beta-", 1.0, 1.2, 0, 0, 40, f"unique{order}")
    kinetic = np.array([0.2, 0.5, 0.9])
    t = kinetic / ELECTRON_MASS_MeV
    p2, q2 = t * (t + 2.0), (1.2 / ELECTRON_MASS_MeV - t) ** 2
    factor = {
        1: q2 + p2,
        2: q2**2 + 10.0 / 3.0 * p2 * q2 + p2**2,
        3: q2**3 + 7.0 * p2 * q2**2 + 7.0 * p2**2 * q2 + p2**3,
    }[order]
    ratio = decays.beta_spectrum(kinetic, branch)
    ratio = ratio / decays.beta_spectrum(kinetic, dataclasses.replace(branch, forbidden="allowed"))
    np.testing.assert_allclose(ratio / ratio[0], factor / factor[0], rtol=1e-9)


def test_the_positron_is_pushed_and_the_electron_pulled():
    branch = decays.Branch("beta-", 1.0, 1.0, 0, 30, 68, "allowed")
    soft = [decays.beta_spectrum(0.05, dataclasses.replace(branch, mode=m)).item() for m in ("beta-", "beta+")]
    assert soft[0] > 1.3 * decays.beta_spectrum(0.05, dataclasses.replace(branch, z_daughter=0)) > 2.0 * soft[1]


@pytest.mark.parametrize(("name", "index"), beta_branches(0.02))
def test_spectra_and_quantiles_agree(name, index):
    branch = decays.load_nuclide(name).branches[index]
    root = nodes(4000)
    density = decays.beta_spectrum(branch.q_MeV * root**2, branch) * 2.0 * branch.q_MeV * root
    assert density.min() >= 0.0
    assert density.mean() == pytest.approx(1.0, abs=1e-5)
    kinetic, below = decays.beta_cdf(branch)
    assert below[0] == 0.0
    assert below[-1] == pytest.approx(1.0, abs=1e-14)
    assert kinetic[-1] == branch.q_MeV
    assert np.all(np.diff(below) > 0.0)
    u = np.concatenate([nodes(50), [1e-4, 1e-3, 0.999, 0.9999]])
    drawn = sampled(branch, u)
    # In units of probability, and for the tail of its own size.
    got = np.interp(np.sqrt(drawn), np.sqrt(kinetic), below)
    np.testing.assert_allclose(got, u, atol=3e-4)
    np.testing.assert_allclose(1.0 - got[-2:], 1.0 - u[-2:], rtol=0.05)
    table = decays.beta_quantiles(branch)
    assert table.shape == (decays.QUANTILES,)
    assert table[0] == 0.0
    assert table[-1] == branch.q_MeV
    assert np.all(np.diff(table) > 0.0)
    assert decays.kinetic_energy(table, 0.0) == 0.0
    assert decays.kinetic_energy(table, 1.0) == pytest.approx(branch.q_MeV)


def walk(tables, n, rng):
    """One decay: mode, kinetic energy, branch, and the (energy, electron) pairs that follow."""
    b = tables.branch_offset[n]
    u = rng.random()
    while u >= tables.branch_cdf[b]:
        b += 1
    mode = tables.branch_mode[b]
    kinetic = tables.branch_q_MeV[b] if mode == decays.ALPHA else 0.0
    if mode in (decays.BETA_MINUS, decays.BETA_PLUS):
        kinetic = decays.kinetic_energy(tables.quantiles_MeV[tables.branch_spectrum[b]], rng.random())
    level, emitted = tables.branch_level[b], []
    while tables.level_offset[level] < tables.level_offset[level + 1]:
        t, u = tables.level_offset[level], rng.random()
        while u >= tables.transition_cdf[t]:
            t += 1
        assert t < tables.level_offset[level + 1]
        emitted.append((tables.transition_energy_MeV[t], bool(tables.transition_is_electron[t])))
        level = tables.transition_target[t]
    return mode, kinetic, b, emitted


def test_the_flat_arrays_conserve_energy():
    nuclides = [decays.load_nuclide(n) for n in NUCLIDES]
    tables, rng = decays.flatten(nuclides), np.random.default_rng(1)
    for n, nuclide in enumerate(nuclides):
        for _ in range(100):
            mode, kinetic, b, emitted = walk(tables, n, rng)
            branch = nuclide.branches[b - tables.branch_offset[n]]
            level = nuclide.levels[branch.level]
            assert (
                decays.__dict__[
                    {"beta-": "BETA_MINUS", "beta+": "BETA_PLUS", "ec": "CAPTURE"}.get(branch.mode, "ALPHA")
                ]
                == mode
            )
            assert sum(e for e, _ in emitted) == pytest.approx(level.energy_MeV, abs=1e-12)
            assert tables.level_energy_MeV[tables.branch_level[b]] == level.energy_MeV
            neutrino = branch.q_MeV - kinetic
            assert neutrino >= 0.0
            q_MeV = dict(nuclide.q_MeV)[level.daughter]
            masses = 2.0 * ELECTRON_MASS_MeV if mode == decays.BETA_PLUS else 0.0
            recoil = kinetic * ALPHA_MASS_u / branch.mass_number if mode == decays.ALPHA else 0.0
            total = kinetic + neutrino + sum(e for e, _ in emitted) + masses + recoil
            assert total == pytest.approx(q_MeV, abs=5e-3)


@pytest.mark.parametrize("name", ["Bi214", "Tl208", "Bi212"])
def test_the_walk_gives_the_analytic_lines(name):
    chain = [decays.load_nuclide(n) for n in ("K40", name)]  # second: offsets matter
    tables, rng, decays_seen = decays.flatten(chain), np.random.default_rng(2), 6000
    seen = {}
    for _ in range(decays_seen):
        for energy, is_electron in walk(tables, 1, rng)[3]:
            key = (round(energy, 9), is_electron)
            seen[key] = seen.get(key, 0) + 1
    energies, photons, electrons = decays.emission_lines(chain[1])
    checked = 0
    for is_electron, expected in ((False, photons), (True, electrons)):
        for energy, mean in zip(energies, expected * decays_seen, strict=True):
            if mean > 20.0:
                error = np.sqrt(mean * max(1.0 - mean / decays_seen, 0.01))
                assert abs(seen.get((round(energy, 9), is_electron), 0) - mean) < 5.0 * error
                checked += 1
    assert checked >= 8


def test_flat_arrays_are_read_only_and_consistent():
    nuclides = [n for chain in CHAINS for n, _ in decays.load_chain(chain)]
    tables = decays.flatten(nuclides)
    assert tables.branch_offset[-1] == len(tables.branch_cdf) == len(tables.branch_mode) == len(tables.branch_level)
    assert tables.level_offset[-1] == len(tables.transition_cdf) == len(tables.transition_target)
    assert np.all(tables.branch_cdf[tables.branch_offset[1:] - 1] == 1.0)
    ends = tables.level_offset[1:][np.diff(tables.level_offset) > 0]
    assert np.all(tables.transition_cdf[ends - 1] == 1.0)
    beta = np.isin(tables.branch_mode, (decays.BETA_MINUS, decays.BETA_PLUS))
    assert np.array_equal(np.sort(tables.branch_spectrum[beta]), np.arange(len(tables.quantiles_MeV)))
    assert np.all(tables.branch_spectrum[~beta] == -1)
    np.testing.assert_allclose(tables.quantiles_MeV[tables.branch_spectrum[beta], -1], tables.branch_q_MeV[beta])
    assert all(not a.flags.writeable for a in tables)
    only_alpha = decays.flatten([decays.load_nuclide("Po210")])
    assert only_alpha.quantiles_MeV.shape == (0, decays.QUANTILES)
    assert only_alpha.transition_cdf.shape == (0,)


def test_a_compiled_kernel_takes_the_tables():
    numba = pytest.importorskip("numba")
    tables = decays.flatten([decays.load_nuclide("Co60")])
    kinetic_energy = numba.njit(decays.kinetic_energy)

    @numba.njit
    def half(t, u):
        return kinetic_energy(t.quantiles_MeV[t.branch_spectrum[t.branch_offset[0]]], u)

    assert half(tables, 0.5) == pytest.approx(decays.kinetic_energy(tables.quantiles_MeV[0], 0.5), rel=1e-14)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_in_equilibrium(name):
    chain = decays.load_chain(name)
    activity = {n.name: a for n, a in chain}
    assert chain[0][1] == 1.0
    made = dict.fromkeys(activity, 0.0)
    for n, a in chain:
        for b in n.branches:
            daughter = n.levels[b.level].daughter
            if daughter in made:
                made[daughter] += a * b.probability
    for n, a in chain[1:]:
        assert made[n.name] == pytest.approx(a, abs=1e-3), n.name


def test_a_nuclide_is_its_own_chain():
    ((nuclide, activity),) = decays.load_chain("Cs137")
    assert (nuclide.name, activity) == ("Cs137", 1.0)
    assert nuclide is decays.load_nuclide("Cs137")
    assert [n.name for n, _ in decays.load_chain("Rn222")] == ["Rn222", "Po218", "Pb214", "Bi214", "Po214"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decays.load_nuclide("Bi241"), "'Bi241'.*did you mean 'Bi21"),
        (lambda: decays.load_nuclide("?"), "known are C10"),
        (lambda: decays.load_chain("U239"), "chain or nuclide.*did you mean 'U238'"),
        (lambda: decays.flatten([]), "at least one nuclide"),
        (lambda: decays.beta_cdf(decays.load_nuclide("Po210").branches[0]), "'alpha'"),
        (lambda: decays.beta_spectrum(0.1, decays.load_nuclide("Ge68").branches[0]), "'ec'"),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises(NuebarError, match=words):
        call()

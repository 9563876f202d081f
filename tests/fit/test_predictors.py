"""Fits with predictors from Monte Carlo: one minimum for all, boxes, joint priors, errors of the Monte Carlo."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.io.posteriors import ResponsePosterior, load_posterior, save_posterior
from nuebar.parameters import OSCILLATION
from nuebar.predict.box import Provenance
from nuebar.predict.build import from_pairs, nominal_physics
from nuebar.predict.grid import build_grid
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.nuisances import freed, within_box
from nuebar.predict.pairs import Pairs
from nuebar.predict.response import RESPONSE
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model

EDGES = np.linspace(0.8, 8.8, 61)
START = {"sin2_th12": 0.312, "dm2_21_eV2": 7.6e-5, "dm2_31_eV2": 2.535e-3}
GRID_BOX = {
    "sin2_th12": (0.29, 0.325),
    "sin2_th13": (0.01, 0.034),
    "dm2_21_eV2": (7.3e-5, 7.8e-5),
    "dm2_31_eV2": (2.48e-3, 2.58e-3),
}


@pytest.fixture(scope="module")
def small():
    """Two cores in vacuum with power pulls, one background."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[4])),
        backgrounds=e.backgrounds[1:2],
        detector=None,
    )
    changes = {
        "matter.density_g_cm3": 0.0,
        "matter.sigma_g_cm3": 0.0,
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
        "systematics.energy_scale": 0.002,
        "fit.shape_uncertainties": False,
    }
    return override(e, changes)


@pytest.fixture(scope="module")
def arrays(small):
    return signal_inputs(small, edges=EDGES)


@pytest.fixture(scope="module")
def pairs(small, arrays):
    """300 thousand un-oscillated pairs of these reactors, with a resolution of 3 %."""
    random = np.random.default_rng(11)
    share = arrays.events / arrays.events.sum()
    chosen = random.choice(share.size, 300_000, p=share.ravel())
    core, node = np.unravel_index(chosen, share.shape)
    e_nu = arrays.e_nu_MeV[node] + random.uniform(-0.003, 0.003, node.size)
    e_nu = np.maximum(e_nu, arrays.e_nu_MeV.min())
    e_rec = e_nu - 0.78
    e_rec = e_rec + 0.03 * np.sqrt(e_rec) * random.standard_normal(e_rec.size)
    bins = np.searchsorted(EDGES, e_rec, side="right") - 1
    keep = (bins >= 0) & (bins < EDGES.size - 1)
    return Pairs(
        e_nu[keep],
        core[keep].astype(np.uint8),
        bins[keep].astype(np.int16),
        EDGES,
        arrays.baseline_km,
        arrays.core_names,
        total=e_nu.size,
        inside=e_nu.size,
    )


@pytest.fixture(scope="module")
def reference(small, pairs):
    """The fit of reweighting's own expectation with reweighting."""
    model, parameters = build_model(small, predictor="reweight", pairs=pairs)
    fit = SpectrumFit.asimov(model, parameters)
    return fit, fit.run(start=START)


@pytest.fixture(scope="module")
def vacuum(small, pairs, arrays):
    return from_pairs("harmonic", pairs, small, arrays, matter=False, windows=Windows.around_pdg(5))


@pytest.fixture(scope="module")
def grid(vacuum, tmp_path_factory):
    return build_grid(vacuum, GRID_BOX, (3, 3, 6, 12), tmp_path_factory.mktemp("grid"), order=3)


@pytest.mark.parametrize("kind", ["harmonic", *(pytest.param(k, marks=pytest.mark.slow) for k in ("matrix", "grid"))])
def test_every_predictor_finds_the_minimum_of_reweighting(small, pairs, reference, kind, request):
    fit, expected = reference
    assert expected.valid, expected.reason
    options = {"predictor": kind, "pairs": pairs} if kind != "grid" else {"predictor": request.getfixturevalue("grid")}
    model, parameters = build_model(small, **options)
    result = SpectrumFit(model, parameters, fit.counts).run(start=START)
    assert result.valid, result.reason
    assert result.predictor == kind
    for name in (*OSCILLATION, "core_TS1"):
        ours, theirs = result.parameters[name], expected.parameters[name]
        assert abs(ours.value - theirs.value) < 0.02 * theirs.error, name
        assert ours.error == pytest.approx(theirs.error, rel=0.01), name
    # what a predictor does not take is no parameter of the model
    assert ("matter_density_g_cm3" in parameters) == (kind != "grid")


def test_pairs_are_normalised_to_the_experiment_whatever_the_exposure(small, pairs, arrays, vacuum):
    model, _ = build_model(small, predictor="reweight", pairs=pairs)
    inside = len(pairs) / pairs.total
    assert model.unoscillated().sum() == pytest.approx(arrays.events.sum() * inside, rel=1e-9)
    longer, parameters = build_model(override(small, {"exposure.days": 2 * small.exposure.days}), predictor=vacuum)
    assert longer.unoscillated().sum() == pytest.approx(2 * model.unoscillated().sum(), rel=1e-9)
    cores = longer.core_counts(parameters.nominal())
    assert sum(cores.values()) == pytest.approx(longer.components(parameters.nominal())["signal"].sum(), rel=1e-9)


def test_bins_are_the_experiments_where_the_predictor_has_them(small, vacuum):
    model, _ = build_model(small, predictor=vacuum)
    np.testing.assert_allclose(model.edges_MeV, EDGES)
    coarse, _ = build_model(override(small, {"binning.segments": ((0.8, 8.8, 20),)}), predictor=vacuum)
    np.testing.assert_allclose(coarse.edges_MeV, EDGES[::3])
    np.testing.assert_allclose(coarse.unoscillated(), model.unoscillated().reshape(20, 3).sum(axis=1))
    # A rate belongs to the experiment's own range, whatever part of it is fitted.
    wide, _ = build_model(override(small, {"binning.segments": ((0.8, 12.0, 20),)}), predictor=vacuum)
    assert wide.background_counts.sum() < coarse.background_counts.sum()


def test_shares_of_the_cores_stand_for_their_channels(small, grid, vacuum):
    """A core two percent up: by its share of every bin (grid) and by its own events (harmonic)."""
    moved = []
    for predictor in (vacuum, grid):
        model, parameters = build_model(small, predictor=predictor)
        v = parameters.nominal()
        up, nominal = (np.asarray(model(model.vector(v | {"core_TS1": x}))[0]) for x in (0.02, 0.0))
        moved.append(up - nominal)
    assert np.abs(moved[1] - moved[0]).max() < 0.03 * np.abs(moved[0]).max()


# ---------------------------------------------------------------- boxes


def test_the_box_becomes_the_limits_in_both_orderings(small, vacuum, grid):
    model, parameters = build_model(small, predictor=vacuum)
    low, high = vacuum.windows.normal()
    own = small.oscillation["dm2_31_eV2"].bounds
    assert parameters["dm2_31_eV2"].bounds == (max(low, own[0]), min(high, own[1]))
    inverted = within_box(inverted_start(parameters), model.predictor)
    assert inverted["dm2_31_eV2"].bounds == vacuum.windows.inverted()
    _, boxed = build_model(small, predictor=grid)
    assert all(boxed[n].bounds == pytest.approx(GRID_BOX[n]) for n in OSCILLATION)
    with pytest.raises(NuebarError, match="normal ordering only"):
        within_box(inverted_start(boxed.updated(dm2_31_eV2={"bounds": (None, None)})), grid)


def test_a_fit_that_ends_on_the_box_is_not_valid(small, grid, reference):
    model, parameters = build_model(small, predictor=grid)
    far = model.vector(parameters.nominal() | {"sin2_th12": 0.3249})
    counts = np.asarray(model(far)[0]) * 1.0
    counts[10:40] *= 0.93  # a deeper solar dip than the grid can give
    result = SpectrumFit(model, parameters, counts).run()
    assert not result.valid
    assert "limit" in result.reason
    assert result.at_limit


def test_a_nominal_value_outside_the_box_is_refused(small, grid):
    with pytest.raises(NuebarError, match=r"sin2_th12.*outside the box"):
        build_model(override(small, {"oscillation.sin2_th12": 0.4}), predictor=grid)


# ---------------------------------------------------------------- response parameters


class Responsive(eqx.Module):
    """A harmonic predictor whose spectrum also follows response parameters, linearly."""

    inner: HarmonicPredictor

    name = "responsive"
    core_names = ()
    parameter_names = (*OSCILLATION, *RESPONSE)

    @property
    def edges(self):
        return self.inner.edges

    @property
    def provenance(self):
        return self.inner.provenance

    @property
    def windows(self):
        return self.inner.windows

    @property
    def box(self):
        return {**self.inner.box, "kB_g_cm2_GeV": (8.0, 20.0), "smear_a": (0.0, 0.02)}

    def nominal(self):
        return dict(zip(RESPONSE, (12.0, 0.5, 9800.0, 0.0, 0.0, 0.0, 0.0), strict=True))

    def channels(self, p):
        e = jnp.linspace(-1.0, 1.0, self.edges.size - 1)
        change = 0.05 * (p[4] - 12.0) * e + 0.4 * (p[5] - 0.5) * e**2 + 1e-4 * (p[6] - 9800.0) * e**3
        return self.inner.channels(p[:4])[:1] * (1.0 + change + p[7] * jnp.cos(9.0 * e) + p[10] * e)

    def unoscillated(self):
        return self.inner.unoscillated()

    def check(self, parameters):
        self.inner.check(parameters)


@pytest.fixture(scope="module")
def responsive(vacuum):
    return Responsive(eqx.tree_at(lambda p: p.cores, vacuum, ()))


POSTERIOR = ResponsePosterior(
    RESPONSE[:3],
    np.array([12.5, 0.48, 9800.0]),
    np.outer([0.3, 0.03, 20.0], [0.3, 0.03, 20.0]) * (0.8 + 0.2 * np.eye(3)),
)


def test_response_parameters_are_fixed_until_a_posterior_frees_them(small, responsive):
    _, fixed = build_model(small, predictor=responsive)
    assert all(fixed[n].fixed for n in RESPONSE[:6])
    assert fixed["energy_scale"].sigma == small.systematics.energy_scale  # of the experiment, inside the predictor
    model, parameters = build_model(small, predictor=responsive, posterior=POSTERIOR)
    assert [n for n in RESPONSE if not parameters[n].fixed] == [*RESPONSE[:3], "energy_scale"]
    v = parameters.nominal()
    moved = model(model.vector(v | {"energy_scale": 0.01}))[0] - model(model.vector(v))[0]
    e = np.linspace(-1.0, 1.0, EDGES.size - 1)
    p = jnp.array([v[n] for n in responsive.parameter_names])
    flat = np.asarray(responsive.inner.channels(p[:4])[0])
    np.testing.assert_allclose(moved, 0.01 * e * flat * np.asarray(model.bin_factor), rtol=1e-6, atol=1e-6)


def test_the_joint_prior_enters_whole(small, responsive):
    model, parameters = build_model(small, predictor=responsive, posterior=POSTERIOR)
    counts = np.asarray(model(model.vector(parameters.nominal() | {"kB_g_cm2_GeV": 12.8, "fC": 0.46}))[0])
    fit = SpectrumFit(model, parameters, counts)
    result = fit.run()
    assert result.valid, result.reason
    d = np.array([result.parameters[n].value for n in RESPONSE[:3]]) - POSTERIOR.mean
    singles = [n for n in fit.pulled() if n not in RESPONSE[:3]]
    others = sum(result.parameters[n].pull ** 2 for n in singles)
    assert result.chi2_pulls == pytest.approx(d @ np.linalg.inv(POSTERIOR.covariance) @ d + others)
    # What the data do not know keeps its prior; the correlation is carried over by what they do know.
    assert result.parameters["light_yield_per_MeV"].error < 20.0
    # A fixed parameter narrows its partners: conditional, not marginal.
    alone = fit.fixing(["fC", "light_yield_per_MeV"]).run()
    conditional = 1.0 / np.sqrt(np.linalg.inv(POSTERIOR.covariance)[0, 0])
    assert alone.parameters["kB_g_cm2_GeV"].error <= conditional * (1 + 1e-6)


def test_a_parameter_freed_on_its_limit_starts_inside(small, responsive):
    model, parameters = build_model(small, predictor=responsive)
    counts = np.asarray(model(model.vector(parameters.nominal() | {"smear_a": 0.012}))[0])
    result = SpectrumFit(model, freed(parameters, ["smear_a"]), counts).run()
    assert result.valid, result.reason
    assert result.parameters["smear_a"].value == pytest.approx(0.012, rel=1e-3)
    assert result.parameters["smear_a"].limits == (0.0, 0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ("kB_g_cm2_GeV", "fC", "mystery")}, "mystery"),
        ({"mean": np.array([30.0, 0.5, 9800.0])}, r"its mean kB_g_cm2_GeV = 30 is outside the box"),
        ({"covariance": np.ones((3, 3))}, "positive definite"),
        ({"covariance": np.eye(2)}, "3 means and a covariance of 3 x 3"),
        ({"mean": np.array([np.nan, 0.5, 9800.0])}, "finite"),
    ],
)
def test_bad_posteriors_are_refused(small, responsive, changes, words):
    with pytest.raises(NuebarError, match=words) as caught:
        build_model(small, predictor=responsive, posterior=dataclasses.replace(POSTERIOR, **changes))
    assert "\n" not in str(caught.value)


def test_a_posterior_survives_its_file_and_needs_a_predictor_that_takes_it(small, vacuum, tmp_path):
    save_posterior(tmp_path / "p.json", POSTERIOR)
    again = load_posterior(tmp_path / "p.json")
    assert again.names == POSTERIOR.names
    np.testing.assert_array_equal(again.covariance, POSTERIOR.covariance)
    with pytest.raises(NuebarError, match="no response parameter of the harmonic predictor"):
        build_model(small, predictor=vacuum, posterior=again)
    (tmp_path / "q.json").write_text('{"format": 2, "kind": "response posterior"}')
    with pytest.raises(NuebarError, match="format 2"):
        load_posterior(tmp_path / "q.json")


# ---------------------------------------------------------------- the error of the Monte Carlo


def test_the_monte_carlo_error_widens_the_fit(small, pairs, vacuum):
    model, parameters = build_model(small, predictor=vacuum)
    exact, _ = build_model(small, predictor="reweight", pairs=pairs)
    v = parameters.nominal()
    extra = model.mc_covariance(v)
    np.testing.assert_allclose(extra, exact.mc_covariance(nominal_physics(small) | v), rtol=1e-6)
    fits = [
        SpectrumFit.asimov(model, parameters, statistic="pearson", mc_covariance=c)
        for c in (None, extra, np.diag(extra))
    ]
    plain, diagonal, full = (f.run() for f in fits)
    assert all(r.valid for r in (plain, diagonal, full))
    # All bins have about the same ratio of the two variances, by which that of a parameter grows.
    ratio = diagonal.parameters["dm2_31_eV2"].error / plain.parameters["dm2_31_eV2"].error
    assert ratio == pytest.approx(np.sqrt(1.0 + np.average(extra / fits[0].counts, weights=fits[0].counts)), rel=0.01)
    assert ratio > 1.03
    for name in OSCILLATION:
        assert full.parameters[name].error == pytest.approx(diagonal.parameters[name].error, rel=0.02)
    with pytest.raises(NuebarError, match="Poisson statistic has no room"):
        SpectrumFit.asimov(model, parameters, statistic="poisson", mc_covariance=extra).problem()


def test_predictors_that_do_not_know_their_events_say_so(small, grid):
    model, parameters = build_model(small, predictor=grid)
    with pytest.raises(NuebarError, match="grid predictor does not know its Monte Carlo error"):
        model.mc_covariance(parameters.nominal())


# ---------------------------------------------------------------- refusals


def test_what_does_not_go_together_is_refused(small, pairs, vacuum):
    with pytest.raises(NuebarError, match="needs Monte Carlo pairs"):
        build_model(small, predictor="reweight")
    with pytest.raises(NuebarError, match="harmonic, matrix, reweight"):
        build_model(small, predictor="network", pairs=pairs)
    other = override(small, {"reactor.cores.TS1.baseline_km": 50.0})
    with pytest.raises(NuebarError, match="other baselines or shares"):
        build_model(other, predictor=vacuum)
    torn = dataclasses.replace(vacuum, provenance=Provenance({**vacuum.provenance, "cores": "nothing"}))
    with pytest.raises(NuebarError, match="cannot read the cores"):
        build_model(small, predictor=torn)

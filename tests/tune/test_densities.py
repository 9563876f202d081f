"""What TEDE, the planar chain and the spline have in common, and what each of them promises."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.predict.box import Provenance
from nuebar.training import generator, named_arrays
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.planar import Chain, PlanarFlow, PlanarSettings, chain, invert, log_between, new_networks
from nuebar.tune.spline import (
    SplineFlow,
    SplineSettings,
    moved,
    new_network,
    reference,
    spline_knots,
    spline_log_slope,
    spline_value,
)
from nuebar.tune.store import load_density, save_density
from nuebar.tune.tede import Tede, TedeSettings, new_encoder

SOURCES = ("Cs137", "AmBe")
LIMITS = ((6.0, 24.0), (0.0, 1.0), (8000.0, 12000.0))
EDGES = np.linspace(0.4, 16.4, 161)
COMMON = {
    "sources": SOURCES,
    "edges_observable": tuple(EDGES.tolist()),
    "pe_to_observable": 1.07e-3,
    "limits": LIMITS,
    "provenance": Provenance({"test": "random weights"}),
}
MIDDLE = {"kB_g_cm2_GeV": 12.05, "fC": 0.517, "light_yield_per_MeV": 9846.0}
AT = np.array(list(MIDDLE.values()))


def shaken(network, size, seed=3):
    """The same network with numbers added to all of its weights."""
    random = np.random.default_rng(seed)
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    moved = jax.tree.map(lambda a: a + jnp.asarray(size * random.standard_normal(a.shape), a.dtype), weights)
    return eqx.combine(moved, rest)


def spline_density():
    random = generator(1, 1)
    unit = random.uniform(-1, 1, (40, 3))
    peaks = 3.0 * np.exp(0.2 * unit[:, 2])
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    counts = 1000 * np.exp(-0.5 * ((middle - peaks[:, None]) / 0.3) ** 2) + 1
    counts = np.stack([counts, np.roll(counts, 30, axis=1)], axis=1)
    start = reference(unit, counts, EDGES, 24)
    network = new_network(SplineSettings(intervals=24, units=8), start, 1)
    return SplineFlow(**COMMON, network=shaken(network, 0.1))


def densities():
    return {
        "tede": Tede(
            **COMMON,
            encoder=shaken(new_encoder(TedeSettings(width=20, heads=5, layers=2, feed_forward=32), 2, 160, 1), 0.05),
        ),
        "planar": PlanarFlow(**COMMON, networks=shaken(new_networks(PlanarSettings(flows=20, units=8), 2, 1), 0.3)),
        "spline": spline_density(),
    }


MADE = densities()
FLOWS = ("planar", "spline")


@pytest.fixture(params=list(MADE))
def density(request):
    return MADE[request.param]


@pytest.fixture(params=FLOWS)
def flow(request):
    return MADE[request.param]


def test_it_is_a_density(density):
    assert isinstance(density, Density)


@pytest.mark.parametrize("at", [AT, np.array([6.0, 0.0, 8000.0]), np.array([24.0, 1.0, 12000.0])])
def test_probabilities_of_a_source_add_up_to_one(density, at):
    log_p = np.asarray(density.log_probabilities(at))
    assert log_p.shape == (2, 160)
    assert log_p.dtype == np.float64
    assert np.all(np.isfinite(log_p))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-9)


@pytest.mark.parametrize("kind", [*(pytest.param(k, marks=pytest.mark.slow) for k in ("tede", "planar")), "spline"])
def test_what_is_differentiable_agrees_with_differences(kind):
    density = MADE[kind]
    weight = np.random.default_rng(1).random((2, 160))

    def total(response):
        return jnp.sum(weight * density.log_probabilities(response))

    slope = np.asarray(jax.grad(total)(jnp.asarray(AT)))
    for k, step in enumerate((0.2, 0.01, 40.0)):
        d = np.zeros(3)
        d[k] = step
        numeric = float(total(jnp.asarray(AT + d)) - total(jnp.asarray(AT - d))) / (2 * step)
        assert slope[k] == pytest.approx(numeric, rel=0.03, abs=2e-3 * np.abs(slope * AT).max() / AT[k])


def test_sources_and_response_matter(density):
    log_p = np.asarray(density.log_probabilities(AT))
    assert np.abs(log_p[0] - log_p[1]).max() > 1e-3
    for k in range(3):
        moved = AT.copy()
        moved[k] = LIMITS[k][1]
        assert np.abs(np.asarray(density.log_probabilities(moved)) - log_p).max() > 1e-4


def test_counts_follow_the_probabilities(density):
    edges_pe = EDGES / 1.07e-3
    counts = density.counts(edges_pe, MIDDLE, "AmBe", 5000.0)
    assert counts.sum() == pytest.approx(5000, rel=1e-9)
    np.testing.assert_allclose(counts, 5000 * np.exp(np.asarray(density.log_probabilities(AT)[1])), atol=1e-6)
    wide = density.counts(np.array([0.0, 20_000.0]), MIDDLE, "AmBe", 5000.0)
    assert wide[0] == pytest.approx(5000, rel=1e-9)


def test_samples_follow_the_counts(density):
    charges = density.sample(200_000, MIDDLE, "Cs137", seed=4)
    assert charges.shape == (200_000,)
    expected = np.cumsum(np.exp(np.asarray(density.log_probabilities(AT)[0])))
    found = np.cumsum(np.histogram(charges * 1.07e-3, EDGES)[0]) / 200_000
    assert found[-1] == 1
    assert np.abs(found - expected).max() < 1.95 / np.sqrt(200_000)  # Kolmogorov: p = 0.001
    np.testing.assert_array_equal(charges[:100], density.sample(200_000, MIDDLE, "Cs137", seed=4)[:100])


def test_log_prob_is_per_photo_electron_and_integrates_to_one(density):
    charges = np.linspace(EDGES[0], EDGES[-1], 40_002)[:-1] / 1.07e-3
    charges = charges + 0.5 * (charges[1] - charges[0])
    p = np.exp(density.log_prob(charges, MIDDLE, "AmBe"))
    assert p.sum() * (charges[1] - charges[0]) == pytest.approx(1, rel=1e-4)
    outside = density.log_prob(np.array([EDGES[0] / 1.07e-3 - 1, EDGES[-1] / 1.07e-3 + 1]), MIDDLE, "AmBe")
    assert np.all(np.isneginf(outside))


def test_density_at_knots_is_that_of_single_events(flow):
    knots = flow.knots[1:-1]
    at_knots = np.asarray(flow.log_density(AT))[1, 1:-1]
    single = flow.log_prob(knots / 1.07e-3, MIDDLE, "AmBe") - np.log(1.07e-3)
    np.testing.assert_allclose(at_knots, single, atol=2e-6)


def test_a_histogram_has_no_density_of_events():
    assert MADE["tede"].knots.size == 0
    with pytest.raises(NuebarError, match="flow"):
        MADE["tede"].log_density(AT)


@pytest.mark.parametrize(
    ("response", "source", "word"),
    [
        ({**MIDDLE, "fC": 1.2}, "Cs137", "fC.*outside"),
        ({**MIDDLE, "fC": float("nan")}, "Cs137", "fC"),
        ({"fC": 0.5}, "Cs137", "exactly"),
        (MIDDLE, "Na22", "Na22.*Cs137"),
    ],
)
def test_bad_points_are_refused(density, response, source, word):
    with pytest.raises(NuebarError, match=word):
        density.log_prob(np.array([2000.0]), response, source)
    with pytest.raises(NuebarError, match=word):
        density.sample(3, response, source, seed=1)


# ---------------------------------------------------------------- flows


def test_a_chain_rises_and_its_inverse_takes_back():
    random = np.random.default_rng(0)
    numbers = (*np.tanh(0.7 * random.standard_normal((2, 30))), random.normal(size=30) * 5)
    maps = Chain(*(jnp.asarray(a) for a in numbers))
    x = jnp.linspace(0.4, 16.4, 500)
    z, log = chain(maps, x)
    assert np.all(np.diff(np.asarray(z)) > 0)
    h = 1e-6
    numeric = np.log((chain(maps, x + h)[0] - chain(maps, x - h)[0]) / (2 * h))
    np.testing.assert_allclose(np.asarray(log), np.asarray(numeric), atol=1e-5)
    np.testing.assert_allclose(np.asarray(invert(maps, z, 0.4, 16.4)), np.asarray(x), atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (5.0, 5.1), (-30.0, -29.0), (20.0, 21.0), (-9.0, 9.0)])
def test_probability_between_two_numbers_has_no_cancellation(low, high):
    from scipy.stats import norm

    exact = norm.cdf(-abs(low)) - norm.cdf(-abs(high)) if low * high > 0 else norm.cdf(high) - norm.cdf(low)
    exact = abs(exact)
    assert float(log_between(jnp.asarray(low), jnp.asarray(high))) == pytest.approx(np.log(exact), rel=1e-9, abs=1e-12)


def knots_of_random_numbers(seed=2, intervals=12):
    random = np.random.default_rng(seed)
    widths, heights = (jnp.asarray(2 * random.standard_normal((3, intervals))) for _ in range(2))
    return spline_knots(widths, heights, jnp.asarray(random.standard_normal((3, intervals + 1))), -1.0, 2.0)


def test_a_spline_rises_from_0_to_1():
    knots = knots_of_random_numbers()
    t = jnp.broadcast_to(jnp.linspace(-1, 2, 1001), (3, 1001))
    y = np.asarray(spline_value(knots, t))
    np.testing.assert_allclose(y[:, [0, -1]], [[0, 1]] * 3, atol=1e-12)
    assert np.all(np.diff(y) > 0)


def test_the_slope_of_a_spline_is_its_derivative():
    knots = knots_of_random_numbers(5)
    t = jnp.broadcast_to(jnp.linspace(-0.999, 1.999, 777), (3, 777))
    h = 1e-7
    numeric = (spline_value(knots, t + h) - spline_value(knots, t - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(np.asarray(spline_log_slope(knots, t))), np.asarray(numeric), rtol=2e-5)


def test_a_spline_begins_at_the_data():
    """Before training it gives the pooled histogram, moved to where each point has it."""
    unit = generator(1, 2).uniform(-1, 1, (60, 3))
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    peak = 4.0 * np.exp(0.15 * unit[:, 2] - 0.05 * unit[:, 0] ** 2)
    counts = 1e4 * np.exp(-0.5 * ((middle - peak[:, None]) / (0.1 * peak[:, None])) ** 2)[:, None]
    network = new_network(SplineSettings(intervals=32), reference(unit, counts, EDGES, 32), 1)
    density = SplineFlow(**{**COMMON, "sources": ("one",)}, network=network)
    at = np.array(LIMITS).mean(axis=1) + 0.5 * unit[7] * np.diff(np.array(LIMITS))[:, 0]
    p = np.exp(np.asarray(density.log_probabilities(at)))[0]
    q = counts[7, 0] / counts[7, 0].sum()
    assert np.abs(np.cumsum(p - q)).max() < 0.02


# ---------------------------------------------------------------- on disk


def test_a_saved_density_comes_back_to_the_bit(density, tmp_path):
    save_density(density, tmp_path / "d", training={"command": "test"}, metrics={"d2": 0.1})
    back = load_density(tmp_path / "d")
    assert type(back) is type(density)
    assert back.sources == SOURCES
    assert back.limits == LIMITS
    np.testing.assert_array_equal(np.asarray(back.log_probabilities(AT)), np.asarray(density.log_probabilities(AT)))
    assert back.provenance["digest"]


@pytest.mark.parametrize("wrong", ["weights", "settings", "kind"])
def test_an_altered_folder_is_refused(tmp_path, wrong):
    from nuebar.io.models import load_model, save_model

    folder = tmp_path / "d"
    save_density(MADE["spline"], folder)
    arrays, d = load_model(folder)
    d = {k: v for k, v in d.items() if k not in ("digest", "arrays", "format")}
    if wrong == "weights":
        name = next(n for n in arrays if n.startswith("network.weights"))
        arrays[name] = arrays[name][:, :-1]
    elif wrong == "settings":
        d["settings"] = {**d["settings"], "intervals": 10**9}
    else:
        d["kind"] = "other"
    save_model(folder, arrays, d)
    with pytest.raises(NuebarError, match=r"expected|intervals"):
        load_density(folder)


def test_an_unknown_word_is_refused(tmp_path):
    with pytest.raises(NuebarError, match="tede, spline, planar"):
        load_density(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (TedeSettings, {"heads": 7}),
        (TedeSettings, {"activation": "exec"}),
        (TedeSettings, {"temperature": float("nan")}),
        (TedeSettings, {"layers": 0}),
        (PlanarSettings, {"flows": 2.5}),
        (PlanarSettings, {"activation": "x"}),
        (SplineSettings, {"intervals": 1}),
    ],
)
def test_impossible_sizes_are_refused(settings, change):
    with pytest.raises(NuebarError, match=next(iter(change))):
        settings(**change)


def test_published_sizes():
    """The weights of the published tables, counted from the architecture."""
    encoder = new_encoder(TedeSettings(), 5, 800, 0)
    assert sum(a.size for a in named_arrays(encoder).values()) == 974_636
    assert dataclasses.asdict(PlanarSettings()) == {"flows": 120, "units": 30, "activation": "gelu"}
    assert tuple(MIDDLE) == RESPONSE


@pytest.mark.parametrize("shift", [-0.4, -0.1, 0.0, 0.25])
def test_a_moved_grid_takes_curves_along(shift):
    """What is drawn on the grid appears at the bins moved along ln x, and smoothly: with continuous slopes."""
    edges = np.linspace(0.4, 16.4, 801)
    low, high = np.sqrt(0.4 * np.exp(-0.5)), np.sqrt(16.4 * np.exp(0.5))
    grid = jnp.asarray(np.sin(9 * 2 * np.log(np.linspace(low, high, 800))))
    middle = 0.5 * (edges[1:] + edges[:-1])
    np.testing.assert_allclose(moved(grid, jnp.asarray(shift), edges), np.sin(9 * (np.log(middle) - shift)), atol=2e-4)
    rough = jnp.asarray(np.random.default_rng(3).standard_normal(800))
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda m: moved(rough, m, edges))))
    near = slope(jnp.asarray(shift + 1e-6 * np.arange(300)))
    assert np.abs(np.diff(near, axis=0)).max() < 0.01 * np.abs(near).max()  # a kink would be of the order of one

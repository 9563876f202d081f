"""The reference against slow sums with an eigenvalue solver, and the laws that any reference must keep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nuebar.errors import NuebarError
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV, POTENTIAL_eV2_per_MeV, matter
from nuebar.predict import reweight
from nuebar.predict.box import PHYSICS
from nuebar.predict.pairs import Pairs, read_pairs
from nuebar.predict.reweight import ReweightPredictor, streamed

EDGES = np.linspace(1.0, 8.0, 15)
BASELINES = np.array([52.11, 52.82, 215.0])
POINTS = [
    (0.307, 0.0220, 7.53e-5, 2.5123e-3, 2.6),
    (0.307, 0.0220, 7.53e-5, -2.4370e-3, 2.6),
    (0.11, 0.09, 5.0e-5, 2.1e-3, 11.0),
]
NORMAL, INVERTED = POINTS[:2]


def make(n=5000, seed=1, **changes):
    rng = np.random.default_rng(seed)
    e_nu = rng.uniform(1.81, 8.5, n)
    bins = np.clip(np.digitize(e_nu - 0.78, EDGES) - 1, 0, 13).astype(np.int16)
    core = rng.integers(0, 3, n).astype(np.uint8)
    pairs = Pairs(e_nu, core, bins, EDGES, BASELINES, ("a", "b", "far"), total=n)
    return dataclasses.replace(pairs, **changes)


def named(p):
    return dict(zip(PHYSICS, map(float, p), strict=True))


def survival(p, e_nu, baseline_km):
    """P(ν̄e → ν̄e) from the eigenvectors of the Hamiltonian, E and L of one shape: independent of nuebar's forms."""
    s12, s13, d21, d31, density = p
    u = np.sqrt([(1 - s13) * (1 - s12), (1 - s13) * s12, s13])
    # In the mass basis the matter term is a projector on ν̄e.
    term = POTENTIAL_eV2_per_MeV * 0.5 * density * e_nu[:, None, None] * np.outer(u, u)
    value, vector = np.linalg.eigh(np.diag([0.0, d21, d31]) - term)
    weight = np.einsum("i,nij->nj", u, vector) ** 2
    phase = PHASE_per_eV2_km_MeV * (baseline_km / e_nu)[:, None] * value
    gap = phase[:, [1, 2, 2]] - phase[:, [0, 0, 1]]
    return 1.0 - 4.0 * np.sum(weight[:, [1, 2, 2]] * weight[:, [0, 0, 1]] * np.sin(gap) ** 2, axis=1)


def slow(pairs, p):
    """Total and cores by np.add.at."""
    out = np.zeros((3, pairs.bins))
    np.add.at(out, (pairs.core, pairs.bin), survival(p, pairs.e_nu_MeV, pairs.baseline_km[pairs.core]))
    return pairs.scale * np.concatenate([out.sum(axis=0, keepdims=True), out])


@pytest.mark.parametrize("p", POINTS)
@pytest.mark.parametrize("vacuum", [True, False])
def test_it_is_the_slow_sum(p, vacuum):
    pairs = make(scale=0.37)
    p = (*p[:4], 0.0) if vacuum else p
    predictor = ReweightPredictor.build(pairs)
    expected = slow(pairs, p)
    np.testing.assert_allclose(predictor.channels(jnp.array(p)), expected, rtol=1e-12)
    np.testing.assert_allclose(predictor.predict(named(p)), expected[0], rtol=1e-12)
    if vacuum:
        alone = ReweightPredictor.build(pairs, matter=False)
        np.testing.assert_array_equal(alone.channels(jnp.array(p[:4])), predictor.channels(jnp.array(p)))


@pytest.mark.parametrize("p", POINTS)
@pytest.mark.parametrize("density", [0.0, 1e-9, 2.6, 15.0])
def test_one_pair_has_its_probability(p, density):
    """A bin for each pair: the physics module pair by pair."""
    n = 400
    e_nu = np.geomspace(1.81, 13.0, n)
    core = (np.arange(n) % 3).astype(np.uint8)
    pairs = Pairs(e_nu, core, np.arange(n, dtype=np.int16), np.arange(n + 1.0), BASELINES, ("a", "b", "c"))
    mixing = dict(zip(PHYSICS[:4], p[:4], strict=True))
    expected = matter(e_nu, BASELINES[core], **mixing, density_g_cm3=density)
    values = ReweightPredictor.build(pairs).predict(named((*p[:4], density)))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("density", [0.0, 2.6])
def test_no_mixing_gives_the_counts(density):
    pairs = make(scale=0.37)
    predictor = ReweightPredictor.build(pairs)
    values = predictor.predict(named((0.0, 0.0, 7.5e-5, 2.5e-3, density)))
    np.testing.assert_allclose(values, pairs.counts(), rtol=1e-14)
    np.testing.assert_array_equal(predictor.unoscillated(), pairs.counts())
    np.testing.assert_allclose(predictor.errors(named((0, 0, 7.5e-5, 2.5e-3, density))), pairs.errors(), rtol=1e-14)


def test_two_halves_add_up():
    pairs = make()
    halves = [
        dataclasses.replace(pairs, **{n: getattr(pairs, n)[part] for n in ("e_nu_MeV", "core", "bin")})
        for part in (slice(0, 1777), slice(1777, None))
    ]
    whole, *parts = (ReweightPredictor.build(x).channels(jnp.array(NORMAL)) for x in (pairs, *halves))
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-13)


def test_the_total_is_the_sum_of_the_cores():
    channels = np.asarray(ReweightPredictor.build(make()).channels(jnp.array(NORMAL)))
    np.testing.assert_allclose(channels[0], channels[1:].sum(axis=0), rtol=1e-14)


@pytest.mark.parametrize("p", [NORMAL, (*INVERTED[:4], 0.0)])
def test_shares_average_over_the_cores(p):
    """Every pair once for every core with its share; errors know that these are not independent pairs."""
    share = np.array([0.5, 0.3, 0.2])
    pairs = make(core=np.zeros(5000, np.uint8), core_share=share, scale=0.37)
    predictor = ReweightPredictor.build(pairs)
    each = np.array([survival(p, pairs.e_nu_MeV, np.full(5000, b)) for b in BASELINES])
    weight = share[:, None] * each
    expected = 0.37 * np.array([np.bincount(pairs.bin, w, minlength=14) for w in (weight.sum(axis=0), *weight)])
    np.testing.assert_allclose(predictor.channels(jnp.array(p)), expected, rtol=1e-12)
    squares = np.bincount(pairs.bin, weight.sum(axis=0) ** 2, minlength=14)
    np.testing.assert_allclose(predictor.errors(named(p)), 0.37 * np.sqrt(squares), rtol=1e-12)


def test_errors():
    pairs = make(scale=0.37)
    predictor = ReweightPredictor.build(pairs)
    weight = survival(NORMAL, pairs.e_nu_MeV, pairs.baseline_km[pairs.core])
    expected = 0.37 * np.sqrt(np.bincount(pairs.bin, weight**2, minlength=14))
    np.testing.assert_allclose(predictor.errors(named(NORMAL)), expected, rtol=1e-12)
    np.testing.assert_allclose(predictor.covariance(named(NORMAL)), np.diag(expected**2), rtol=1e-12)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(reweight, "BLOCK", 640)
    monkeypatch.setattr(reweight, "ROUND", 3)


@pytest.mark.parametrize("shared", [False, True])
def test_the_bits_do_not_depend_on_threads(small_blocks, shared):
    changes = {"core": np.zeros(5000, np.uint8), "core_share": np.full(3, 1 / 3)} if shared else {}
    first, *others = (
        ReweightPredictor.build(make(**changes), threads=n).source.sums(np.array(NORMAL)) for n in (1, 2, 3)
    )
    for other in others:
        np.testing.assert_array_equal(other.channels, first.channels)
        np.testing.assert_array_equal(other.errors, first.errors)


@pytest.mark.parametrize("shared", [False, True])
def test_streamed_as_in_memory(small_blocks, tmp_path, shared):
    """Several files, cores that first come in the second, batches that do not fit the blocks."""
    pairs = make(6000)
    table = {
        "e_nu_MeV": pairs.e_nu_MeV,
        "e_rec_MeV": EDGES[pairs.bin] + 0.25,
        "baseline_km": BASELINES[np.where(np.arange(6000) < 2500, 2, pairs.core)],
    }
    table["e_rec_MeV"][::7] = 11.0
    options = {}
    if shared:
        del table["baseline_km"]
        options = {"baseline_km": BASELINES, "core_share": [0.5, 0.3, 0.2]}
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, part in zip(paths, (slice(0, 2500), slice(2500, None)), strict=True):
        pq.write_table(pa.table({n: v[part] for n, v in table.items()}), path)
    held = ReweightPredictor.build(dataclasses.replace(read_pairs(paths, EDGES, **options), scale=0.37))
    passed = streamed(paths, EDGES, named(NORMAL), scale=0.37, threads=2, **options)
    np.testing.assert_array_equal(passed.channels, held.channels(jnp.array(NORMAL)))
    np.testing.assert_array_equal(passed.counts, held.predict(named(NORMAL)))
    np.testing.assert_array_equal(passed.errors, held.errors(named(NORMAL)))
    assert passed.core_names == held.core_names
    assert (passed.pairs, passed.total) == (len(held.source.pairs), 6000)


# ---------------------------------------------------------------- derivatives


@pytest.fixture(scope="module")
def exact():
    """First and second derivatives of the channels from the physics module, which JAX differentiates exactly."""
    pairs = make(1500)

    def channels(p):
        mixing = dict(zip(PHYSICS[:4], p[:4], strict=True))
        weight = matter(pairs.e_nu_MeV, pairs.baseline_km[pairs.core], **mixing, density_g_cm3=p[4])
        cores = jnp.zeros((3, pairs.bins)).at[pairs.core, pairs.bin].add(weight)
        return jnp.concatenate([jnp.sum(cores, axis=0, keepdims=True), cores])

    first = jax.jacfwd(channels)
    return ReweightPredictor.build(pairs), jax.jit(first), jax.jit(jax.jacfwd(first))


def sizes(derivative, p):
    """Of each derivative in its largest bin, here or at a common point: without θ13 some vanish."""
    return np.maximum(*(np.abs(derivative(jnp.array(x))).max(axis=(0, 1)) for x in (p, NORMAL)))


ENDS = (0.307, 0.0, 7.53e-5, 2.5e-3, 0.0)


@pytest.mark.parametrize("p", [*POINTS, ENDS])
def test_first_derivatives(exact, p):
    """Also where θ13 and the density end."""
    predictor, derivative, _ = exact
    expected, size = np.asarray(derivative(jnp.array(p))), sizes(derivative, p)
    for mode in (jax.jacfwd, jax.jacrev):
        got = np.asarray(mode(predictor.channels)(jnp.array(p)))
        np.testing.assert_allclose(got / size, expected / size, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", [*POINTS, ENDS])
def test_second_derivatives(exact, p):
    predictor, _, derivative = exact
    expected, size = np.asarray(derivative(jnp.array(p))), sizes(derivative, p)
    got = np.asarray(jax.jacfwd(jax.jacfwd(predictor.channels))(jnp.array(p)))
    np.testing.assert_allclose(got / size, expected / size, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(got, np.swapaxes(got, -1, -2))


def test_a_vacuum_predictor_ignores_a_fifth_number():
    predictor = ReweightPredictor.build(make(), matter=False)
    four, five = jnp.array(NORMAL[:4]), jnp.array(NORMAL)
    np.testing.assert_array_equal(predictor.channels(five), predictor.channels(four))
    slopes = jax.jacfwd(predictor.channels)(five)
    np.testing.assert_array_equal(slopes[..., 4], 0.0)
    np.testing.assert_array_equal(slopes[..., :4], jax.jacfwd(predictor.channels)(four))


def test_under_jit_and_vmap():
    predictor = ReweightPredictor.build(make())
    points = jnp.array(POINTS)
    each = np.stack([predictor.channels(p) for p in points])
    np.testing.assert_array_equal(jax.vmap(predictor.channels)(points), each)
    np.testing.assert_array_equal(jax.jit(predictor.channels)(points[1]), each[1])

    def deviance(p):
        return jnp.sum((predictor.channels(p)[0] - each[0, 0]) ** 2)

    gradient = jax.jit(jax.grad(deviance))(points[2])
    expected = 2 * (each[2, 0] - each[0, 0]) @ jax.jacfwd(predictor.channels)(points[2])[0]
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_programs_hold_no_pairs():
    """A predictor is static to a compiled program, and its arrays are not leaves of it."""
    predictor = ReweightPredictor.build(make(50_000))
    assert jax.tree.leaves(predictor) == []
    assert predictor.nbytes == 50_000 * 11
    text = jax.jit(predictor.channels).lower(jnp.array(NORMAL)).as_text()
    assert len(text) < 10_000


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("p", "match"),
    [
        ({}, "missing parameter 'sin2_th12'"),
        (named(NORMAL) | {"sin2_th12": np.nan}, "sin2_th12"),
        (named(NORMAL) | {"sin2_th13": 1.2}, "sin2_th13"),
        (named(NORMAL) | {"dm2_21_eV2": -1e-5}, "dm2_21_eV2"),
        (named(NORMAL) | {"delta_cp": 0.0}, "unknown parameter 'delta_cp'"),
    ],
)
def test_parameters_are_checked(p, match):
    predictor = ReweightPredictor.build(make(50))
    for function in (predictor.predict, predictor.errors):
        with pytest.raises(NuebarError, match=match):
            function(p)


def test_refusals(tmp_path):
    empty = {"e_nu_MeV": np.empty(0), "core": np.empty(0, np.uint8), "bin": np.empty(0, np.int16)}
    with pytest.raises(NuebarError, match="at least one pair"):
        ReweightPredictor.build(make(**empty))
    with pytest.raises(NuebarError, match="threads: expected at least 1, got 0"):
        ReweightPredictor.build(make(50), threads=0)
    with pytest.raises(NuebarError, match="unknown parameter 'matter_density_g_cm3'"):
        ReweightPredictor.build(make(50), matter=False).predict(named(NORMAL))
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"e_nu_MeV": [4.0] * 9, "e_rec_MeV": [9.0] * 9, "baseline_km": [52.0] * 9}), path)
    with pytest.raises(NuebarError, match="at least 14 pairs"):
        streamed(path, EDGES, named(NORMAL))

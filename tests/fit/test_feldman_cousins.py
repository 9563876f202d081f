"""Feldman-Cousins regions: χ² for linear problems, the published table at a boundary, and spectra."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.feldman_cousins import PointToys, Region, Sampling, sample, split
from nuebar.fit.profile_construction import ProfileConstruction, default_axes, draw_common
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions
from nuebar.predict.spectrum import build_model

# ---------------------------------------------------------------- the rules, with fits in closed form


def linear_toys(names, seed=3):
    """Straight line with an offset that has a constraint; Δχ² of the slope, or of both."""
    x, sigma, prior = np.linspace(-1.0, 2.0, 12), 0.3, 0.5
    design = np.column_stack([x / sigma, np.ones(12) / sigma])
    design = np.vstack([design, [0.0, 1.0 / prior]])  # the constraint is one more measurement, and fluctuates
    free, held = np.linalg.qr(design)[0], np.linalg.qr(design[:, 1:])[0] if names == 1 else np.empty((13, 0))

    def toys(numbers):
        z = np.array([np.random.default_rng([seed, k]).standard_normal(13) for k in numbers])
        return ((z @ free) ** 2).sum(axis=1) - ((z @ held) ** 2).sum(axis=1)

    return toys


@pytest.mark.parametrize("dof", [1, 2])
@pytest.mark.parametrize("level", [0.6827, 0.90, 0.9545])
def test_a_linear_problem_has_the_critical_values_of_chi2(dof, level):
    found = sample(linear_toys(dof), 1.0, Sampling(toys=8000, batch=4000, adaptive=False))
    c = PointToys((0.0,), 1.0, found).critical(level)
    width = np.sqrt(level * (1 - level) / 8000) / chi2.pdf(chi2.ppf(level, dof), dof)
    assert c.low < c.value < c.high
    assert abs(c.value - chi2.ppf(level, dof)) < 4 * width
    assert (c.high - c.low) / 2 == pytest.approx(width, rel=0.5)


def bounded(x, mu):
    """Δχ² of a measurement x of a mean that cannot be negative."""
    return (x - mu) ** 2 - (x - np.maximum(x, 0.0)) ** 2


def bounded_region(x0, levels, toys=20000):
    """With toys at the middles of equal shares of probability: no statistical error, the core all the same."""
    points, mu = [], np.linspace(0.0, 5.0, 251)
    for m in mu:
        found = sample(
            lambda k, m=m: bounded(m + norm.ppf((np.asarray(k) + 0.5) / toys), m),
            bounded(x0, m),
            Sampling(toys=toys, batch=toys, adaptive=False),
        )
        points.append(PointToys((m,), float(bounded(x0, m)), found))
    return Region(("mu",), (mu,), tuple(points), (max(x0, 0.0),), levels)


def exact_interval(x0, level):
    """The same by the definition: acceptance intervals in x with equal likelihood ratio at both ends."""

    def content(mu):
        d = bounded(x0, mu)
        above, below = mu + np.sqrt(d), mu - np.sqrt(d)
        if below < 0:
            below = (mu**2 - d) / (2 * mu) if mu > 0 else -np.inf
        return norm.cdf(above - mu) - norm.cdf(below - mu) - level

    best = max(x0, 0.0)
    high = brentq(content, best + 1e-9, best + 6.0)
    low = 0.0 if x0 <= 0 or content(1e-12) < 0 else brentq(content, 1e-12, best - 1e-9)
    return low, high


@pytest.mark.parametrize(
    ("x0", "pinned"),
    [
        (-3.0, {0.6827: (0.00, 0.04), 0.90: (0.00, 0.26), 0.95: (0.00, 0.42)}),
        (-1.0, {0.6827: (0.00, 0.27), 0.90: (0.00, 0.81), 0.95: (0.00, 1.10)}),
        (0.0, {0.6827: (0.00, 1.00), 0.90: (0.00, 1.64), 0.95: (0.00, 1.96)}),
        (1.0, {0.6827: (0.24, 2.00), 0.90: (0.00, 2.64), 0.95: (0.00, 2.96)}),
        (2.0, {0.6827: (1.00, 3.00), 0.90: (0.58, 3.64), 0.95: (0.35, 3.96)}),
    ],
)
def test_the_table_of_a_mean_that_is_not_negative(x0, pinned):
    """The problem of table X of PRD 57, 3873 (1998); its definition, integrated here, and pinned to two decimals."""
    region = bounded_region(x0, tuple(pinned))
    for level, (low, high) in pinned.items():
        exact = exact_interval(x0, level)
        assert exact == pytest.approx((low, high), abs=0.006)
        (segment,) = region.segments(level)
        assert (segment.low, segment.high) == pytest.approx(exact, abs=0.003)
        assert segment.open_low == (low == 0.0)
        assert not segment.open_high


def test_it_covers_where_wilks_does_not():
    """Measurements of a mean of 0.3 that cannot be negative: FC covers as often as it says, Δχ² < 1 does not."""
    mu, level, n = 0.3, 0.6827, 4000
    toys = sample(lambda k: bounded(mu + norm.ppf((np.asarray(k) + 0.5) / n), mu), 0.0, Sampling(n, n, adaptive=False))
    critical = PointToys((mu,), 0.0, toys).critical(level).value
    data = bounded(mu + np.random.default_rng(4).standard_normal(n), mu)
    error = np.sqrt(level * (1 - level) / n)
    assert np.mean(data <= critical) == pytest.approx(level, abs=4 * error)
    assert np.mean(data <= 1.0) > level + 8 * error


def test_regions_grow_with_the_level_and_hold_the_best_fit():
    region = bounded_region(1.3, (0.5, 0.6827, 0.9, 0.99), toys=2000)
    masks = [region.accepted(level) for level in region.levels]
    for small, large in itertools.pairwise(masks):
        assert np.all(large[small])
        assert large.sum() > small.sum()
    for level in region.levels:
        (s,) = region.segments(level)
        assert s.low <= region.best[0] <= s.high
        inside = (region.axes[0] >= s.low) & (region.axes[0] <= s.high)
        np.testing.assert_array_equal(inside, region.accepted(level))


def test_two_minima_are_two_segments_and_orderings_are_never_joined():
    def region(axis, observed, best):
        toys = chi2.ppf((np.arange(2000) + 0.5) / 2000, 1)
        return Region(
            ("x",), (axis,), tuple(PointToys((v,), float(o), toys) for v, o in zip(axis, observed, strict=True)), best
        )

    axis = np.linspace(-3.0, 3.0, 61) + 3.5
    r = region(axis, np.minimum((axis - 2.0) ** 2 / 0.25, 0.5 + (axis - 5.0) ** 2 / 0.25), (2.0,))
    first, second = r.segments(0.6827)
    assert (first.low, first.high) == pytest.approx((1.5, 2.5), abs=0.02)
    assert (second.low, second.high) == pytest.approx((5 - 0.5 * np.sqrt(0.5), 5 + 0.5 * np.sqrt(0.5)), abs=0.02)
    assert len(r.wilks_segments(0.6827)) == 2
    axis = np.array([-2.0, -1.0, 1.0, 2.0])
    assert [(p.start, p.stop) for p in split(axis)] == [(0, 2), (2, 4)]
    pieces = region(axis, [4.0, 0.0, 0.0, 4.0], (1.2,)).segments(0.6827)
    assert [(p.open_low, p.open_high) for p in pieces] == [(False, True), (True, False)]


def test_p_values_and_critical_values_say_the_same():
    toys = np.random.default_rng(2).chisquare(1, 137)
    for observed in (0.0, 0.3, 1.0, 2.7, 5.0, 50.0):
        point = PointToys((0.0,), observed, toys)
        for level in (0.5, 0.6827, 0.9, 0.99):
            assert point.accepted(level) == (point.p_value * 137 >= np.ceil((1 - level) * 137))
    few = PointToys((0.0,), 3.0, np.array([np.nan, *np.arange(10.0)]))
    assert few.failed == 1
    assert few.p_value == 0.7
    assert few.critical(0.99).high == np.inf
    assert few.critical(0.99).value == 9.0
    assert 0 < PointToys((0.0,), 99.0, toys).p_error < 0.02


def test_adaptive_toys_go_where_they_are_needed_and_are_the_same():
    sampling = Sampling(toys=5000, batch=100)
    spent = {o: len(sample(linear_toys(1), o, sampling)) for o in (0.05, 1.0, 2.706, 6.0, 30.0)}
    assert spent[0.05] == spent[30.0] == 100
    assert spent[1.0] == spent[2.706] == 5000
    everything = sample(linear_toys(1), 6.0, Sampling(toys=5000, batch=1000, adaptive=False))
    found = sample(linear_toys(1), 6.0, sampling)
    np.testing.assert_array_equal(found, everything[: len(found)])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"toys": 1}, "at least two"), ({"levels": (0.9, 0.5)}, "increasing"), ({"n_sigma": 0.0}, "above 0")],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(NuebarError, match=words):
        Sampling(**options)


# ---------------------------------------------------------------- spectra


def small(**changes):
    """One far and one near core, wide bins, one pull."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e, reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])), backgrounds=()
    )
    options = {
        "binning.segments": ((0.8, 8.8, 80),),
        "binning.fine_width_MeV": 0.05,
        "systematics.signal": {"flux": 0.02},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
        "systematics.energy_scale": 0.0,
    }
    return build_model(override(e, {**options, **changes}))


def fitted(free, **changes):
    model, parameters = small(**changes)
    fit = SpectrumFit.asimov(model, parameters, statistic="pearson")
    return fit.fixing([n for n in parameters if n not in free])


@pytest.fixture(scope="module")
def fit():
    return fitted(("sin2_th12", "sin2_th13", "dm2_21_eV2", "norm_flux"))


@pytest.fixture(scope="module")
def construction(fit):
    return ProfileConstruction(fit, ["sin2_th12"], threads=1, lanes=16)


@pytest.fixture(scope="module")
def best(construction):
    return construction.best()


def test_the_best_fit_of_expected_counts_is_their_truth(fit, best):
    assert best.valid
    assert best.chi2 == pytest.approx(0.0, abs=1e-6)
    k = fit.parameters.names.index("sin2_th12")
    assert best.values[k] == pytest.approx(0.307, abs=1e-5)
    assert best.errors[k] == pytest.approx(fit.run().parameters["sin2_th12"].error, rel=1e-2)


def test_profiles_are_those_of_single_fits(fit, construction, best):
    k = fit.parameters.names.index("sin2_th12")
    theta = best.values[k] + 2.0 * best.errors[k]
    ours = construction.profile([theta], best.values)
    parameters = fit.parameters.updated(sin2_th12={"value": theta, "fixed": True})
    single = dataclasses.replace(fit, parameters=parameters).run()
    assert ours.valid
    assert ours.values[k] == theta
    assert ours.chi2 == pytest.approx(single.chi2, abs=1e-4)
    assert ours.chi2 == pytest.approx(4.0, rel=0.1)


def test_toys_at_high_counts_follow_chi2(construction, best):
    point = construction.profile([0.3075], best.values)
    toys = construction.toys(point, range(300), seed=1)
    assert np.isfinite(toys.delta_chi2).all()
    assert not toys.on_limit.any()
    for level in (0.6827, 0.9):
        expected = chi2.ppf(level, 1)
        width = np.sqrt(level * (1 - level) / 300) / chi2.pdf(expected, 1)
        assert PointToys((0.0,), 0.0, toys.delta_chi2).critical(level).value == pytest.approx(expected, abs=4 * width)
    np.testing.assert_allclose(toys.best.mean(), 0.3075, atol=5 * best.errors[0] / np.sqrt(300))


def test_a_toy_depends_on_its_number_only(construction, best):
    point = construction.profile([0.3075], best.values)
    many, few = (construction.toys(point, numbers, seed=1) for numbers in (range(40), range(25, 31)))
    np.testing.assert_allclose(few.delta_chi2, many.delta_chi2[25:31], atol=1e-5)
    again = construction.toys(point, range(40), seed=1)
    np.testing.assert_array_equal(again.delta_chi2, many.delta_chi2)
    other = construction.toys(point, range(40), seed=2)
    assert np.abs(other.delta_chi2 - many.delta_chi2).max() > 0.1


def test_toys_at_neighbouring_points_are_the_same_fluctuation(construction, best):
    """Common random numbers: Δχ² of one toy moves little from point to point."""
    points = [construction.profile([v], best.values) for v in (0.3070, 0.3072)]
    a, b = (construction.toys(p, range(100), seed=1).delta_chi2 for p in points)
    assert np.corrcoef(a, b)[0, 1] > 0.98


def test_drawn_counts_have_the_right_mean_and_never_fall_with_it(construction, fit, best):
    x = best.values
    more = x.copy()
    more[fit.parameters.names.index("norm_flux")] += 0.03
    still = ToyOptions(constraints=False, shape=False)
    a, b = (draw_common(construction.many, y, range(400), seed=1, options=still) for y in (x, more))
    assert np.all(b.counts >= a.counts)
    mu = np.asarray(fit.model(fit.model.vector(fit.parameters.nominal()))[0])
    assert np.all(np.abs(a.counts.mean(axis=0) - mu) < 5 * np.sqrt(mu / 400) + 1e-3)
    np.testing.assert_allclose(a.counts.var(axis=0)[mu > 50] / mu[mu > 50], 1.0, atol=0.5)
    np.testing.assert_array_equal(a.centres[:, 0], x[list(fit.parameters).index("norm_flux")])
    wide = draw_common(construction.many, more, range(400), seed=1)
    assert wide.centres.mean() == pytest.approx(0.03, abs=5 * 0.02 / 20)  # around the truth of the toys
    assert wide.centres.std() == pytest.approx(0.02, rel=0.2)


def test_at_a_limit_half_of_the_toys_are_on_it(fit, best):
    """sin²θ13 = 0: Δχ² is 0 for half of the toys, χ² for the rest, and its 68.27 % quantile 0.23 instead of 1."""
    construction = ProfileConstruction(fit, ["sin2_th13"], threads=1, lanes=16)
    point = construction.profile([0.0], best.values)
    assert point.valid
    toys = construction.toys(point, range(300), seed=1)
    assert np.isfinite(toys.delta_chi2).all()
    zero = np.mean(toys.delta_chi2 < 1e-6)
    assert zero == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(300))
    assert np.all(toys.best >= 0)
    assert np.mean(toys.best < 1e-9) == pytest.approx(zero, abs=0.02)
    assert toys.on_limit.mean() >= zero
    c = PointToys((0.0,), 0.0, toys.delta_chi2).critical(0.6827)
    assert c.value == pytest.approx(chi2.ppf(2 * (0.6827 - 0.5), 1), abs=0.15)
    (axis,) = default_axes(fit, dataclasses.replace(best, errors=best.errors * 10), ["sin2_th13"], 7)
    assert axis[0] == 0.0


def test_two_parameters_and_nothing_left_to_profile(fit, best):
    """Both parameters of interest are all that is free: χ² with two degrees of freedom."""
    bare = fit.fixing(["sin2_th13", "dm2_21_eV2"])
    construction = ProfileConstruction(bare, ["sin2_th12", "norm_flux"], threads=1, lanes=16)
    point = construction.profile([0.3071, 0.01], best.values)
    np.testing.assert_array_equal(point.values[construction.at], [0.3071, 0.01])
    toys = construction.toys(point, range(200), seed=1)
    assert np.isfinite(toys.delta_chi2).all()
    assert toys.best.shape == (200, 2)
    assert toys.delta_chi2.mean() == pytest.approx(2.0, abs=4 * 2.0 / np.sqrt(200))


@pytest.fixture(scope="module")
def fringes():
    """30 days and a constraint of Δm²31, which has several minima."""
    changes = {"exposure.days": 30.0, "oscillation.dm2_31_eV2.sigma": 1.5e-4}
    return fitted(("sin2_th12", "dm2_31_eV2", "norm_flux"), **changes)


def brute(construction, data, x, fixed):
    """The lowest of many starts."""
    many, k = construction.many, construction.k31
    lowest = np.full(len(data), np.inf)
    for d31 in np.linspace(many.lower[k] + 1e-6, many.upper[k] - 1e-6, 1 if "dm2_31_eV2" in fixed else 15):
        start = x.copy()
        start[k] = x[k] if "dm2_31_eV2" in fixed else d31
        found = many.run(data, start=start, fixed=fixed, errors="none")
        lowest = np.minimum(lowest, np.where(found.status <= 1, found.chi2, np.inf))
    return lowest


@pytest.mark.parametrize(("name", "value"), [("sin2_th12", 0.30), ("dm2_31_eV2", 2.6e-3)])
def test_the_lowest_of_several_minima_is_found(fringes, name, value):
    construction = ProfileConstruction(fringes, [name], threads=1, lanes=16)
    nominal = np.array([p.value for p in fringes.parameters.values()])
    point = construction.profile([value], nominal)
    toys = construction.toys(point, range(24), seed=1)
    data = draw_common(construction.many, point.values, range(24), seed=1)
    expected = brute(construction, data, point.values, (name,)) - brute(construction, data, point.values, ())
    alike = np.abs(toys.delta_chi2 - expected) < 1e-4
    assert alike.mean() > 0.95, (toys.delta_chi2 - expected)[~alike]
    assert toys.other_start.any()


def test_a_free_ordering_fits_both(fringes):
    one, two = (
        ProfileConstruction(fringes, ["sin2_th12"], free_ordering=free, threads=1, lanes=16) for free in (False, True)
    )
    best = two.best()
    x = one.profile([0.30], best.values)
    toys = [c.toys(x, range(40), seed=1) for c in (one, two)]
    assert np.isfinite(toys[1].delta_chi2).all()
    assert np.abs(toys[1].delta_chi2 - toys[0].delta_chi2).max() > 1e-3
    scan = ProfileConstruction(fringes, ["dm2_31_eV2"], free_ordering=True, threads=1, lanes=16)
    (axis,) = default_axes(fringes, best, ["dm2_31_eV2"], 5, both=True)
    assert len(axis) == 10
    assert np.sum(axis < 0) == 5
    inverted = scan.profile([axis[2]], best.values)
    assert inverted.valid
    assert inverted.values[scan.k31] == axis[2]
    there = scan.toys(inverted, range(40), seed=1)
    assert np.isfinite(there.delta_chi2).all()
    assert np.any(there.best > 0)  # 30 days do not know the ordering
    assert np.any(there.best < 0)


def test_what_cannot_be_scanned_is_refused(fit):
    with pytest.raises(NuebarError, match="fixed"):
        ProfileConstruction(fit, ["dm2_31_eV2"])
    with pytest.raises(NuebarError, match="two different"):
        ProfileConstruction(fit, ["sin2_th12", "sin2_th12"])
    with pytest.raises(NuebarError, match="free ordering"):
        ProfileConstruction(fit, ["sin2_th12"], free_ordering=True)

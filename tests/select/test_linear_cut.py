"""A line in ΔR and Δt: found where it is known, exact in its background, better than boxes."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier
from nuebar.select.cuts import FIDUCIAL, BoxCuts
from nuebar.select.features import FEATURES
from nuebar.select.linear_cut import LinearCut, fit_linear_cut


def plane(dr_m, dt_us, **columns):
    out = np.zeros((np.size(dr_m), len(FEATURES)), np.float32)
    for name, value in {"dr_m": dr_m, "dt_us": dt_us, "e_prompt_MeV": 3, "e_delayed_MeV": 2.2, **columns}.items():
        out[:, FEATURES.index(name)] = value
    return out


def exponential(rng, n, ratio=1.0):
    """Densities ∝ exp(−ΔR/0.3 m − Δt/200 µs): with an even background the contours of the odds are lines."""
    return plane(rng.exponential(0.3, n), ratio * rng.exponential(200.0, n))


def even(rng, n):
    return plane(rng.uniform(0, 6, n), rng.uniform(0, 4000, n))


@pytest.mark.parametrize("share", [0.006, 0.02])
def test_finds_the_known_line(share):
    """The best line lies along a constant likelihood ratio: ΔR/0.3 + Δt/200 = c, with background ½ · 0.3 c · 200 c."""
    rng = np.random.default_rng(2)
    fit = fit_linear_cut(exponential(rng, 15_000), even(rng, 30_000), share)
    c = np.sqrt(2 * share * 6 * 4000 / (0.3 * 200))
    assert fit.efficiency == pytest.approx(1 - np.exp(-c) * (1 + c), abs=0.02)
    assert fit.cut.a_per_m == pytest.approx(1 / (0.3 * c), rel=0.35)
    assert fit.cut.b_per_us == pytest.approx(1 / (200 * c), rel=0.35)


def test_background_is_what_was_asked_for():
    rng = np.random.default_rng(3)
    signal, background = exponential(rng, 2000), even(rng, 10_000)
    w = rng.uniform(0.1, 2, 10_000)
    fit = fit_linear_cut(signal, background, 0.01, background_weights=w)
    assert fit.background <= 0.01
    assert fit.background > 0.01 - w.max() / w.sum()
    kept = fit.cut.passes(background)
    assert w[kept].sum() / w.sum() == pytest.approx(fit.background)
    assert fit.background_pairs == kept.sum()
    assert fit.cut.passes(signal).mean() == fit.efficiency


def test_no_other_line_keeps_more():
    rng = np.random.default_rng(4)
    signal, background = exponential(rng, 1500), even(rng, 3000)
    fit = fit_linear_cut(signal, background, 0.01)
    for angle in np.linspace(0, np.pi / 2, 500):
        slope = np.cos(angle) / 0.3, np.sin(angle) / 200
        end = np.sort(slope[0] * background[:, 2] + slope[1] * background[:, 3])[30]
        kept = slope[0] * signal[:, 2] + slope[1] * signal[:, 3] < end
        assert kept.mean() <= fit.efficiency + 0.002


def test_weights_count_like_copies():
    rng = np.random.default_rng(5)
    signal, background = exponential(rng, 500), even(rng, 1000)
    twice = fit_linear_cut(signal, np.concatenate([background, background[:300]]), 0.05)
    w = np.where(np.arange(1000) < 300, 2.0, 1.0)
    weighted = fit_linear_cut(signal, background, 0.05, background_weights=w)
    assert weighted.efficiency == pytest.approx(twice.efficiency, abs=0.01)


def test_degenerate_directions():
    rng = np.random.default_rng(6)
    close = plane(rng.uniform(0, 0.1, 500), rng.uniform(0, 4000, 500))  # the time tells nothing
    fit = fit_linear_cut(close, even(rng, 20_000), 0.03)
    assert fit.efficiency == 1.0
    assert 1 / fit.cut.a_per_m > 0.1


def test_base_cuts_go_with_it():
    rng = np.random.default_rng(7)
    base = BoxCuts(fiducial_radius_m=17.2, delayed_MeV=((1.9, 2.5),), dt_ms=1.0, dr_m=1.5)
    background = even(rng, 4000)
    background[:, FEATURES.index("r3_prompt_m3")] = np.where(np.arange(4000) % 2, 17.5**3, 0)
    fit = fit_linear_cut(exponential(rng, 1000), background, 0.01, base=base)
    assert (fit.cut.base.dt_ms, fit.cut.base.dr_m) == (None, None)
    assert not fit.cut.passes(background)[1::2].any()
    assert isinstance(fit.cut, Classifier)
    assert np.all(np.isneginf(fit.cut.score(background)[1::2]))
    assert fit.background_pairs == 40
    # Where the other cuts alone keep no more, there is no line.
    free = fit_linear_cut(exponential(rng, 1000), background, 0.6, base=base)
    assert (free.cut.a_per_m, free.cut.b_per_us, free.background) == (0, 0, 0.5)
    assert (
        fit_linear_cut(exponential(rng, 1000), background, 0.01, base=base.without(FIDUCIAL)).efficiency
        < fit.efficiency
    )


def test_margin_has_the_sign():
    cut = LinearCut(a_per_m=0.5, b_per_us=1e-3)
    x = plane(np.array([0.0, 1.0, 1.0, 2.5]), np.array([0.0, 400.0, 600.0, 0.0]))
    np.testing.assert_allclose(cut.score(x), [1, 0.1, -0.1, -0.25], atol=1e-6)
    assert cut.passes(x).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "call",
    [
        lambda s, b: fit_linear_cut(s, b, 0.0),
        lambda s, b: fit_linear_cut(s, b, 0.1, background_weights=np.ones(3)),
        lambda s, b: fit_linear_cut(s[:0], b, 0.1),
        lambda s, b: fit_linear_cut(s, b, 0.1, base=BoxCuts(prompt_MeV=(8.0, 9.0))),
        lambda s, b: LinearCut(a_per_m=-1.0, b_per_us=0.0),
    ],
)
def test_refusals(call):
    rng = np.random.default_rng(8)
    background = even(rng, 50)
    background[:, FEATURES.index("e_prompt_MeV")] = 8.5
    with pytest.raises(NuebarError, match=r"linear cut|background"):
        call(exponential(rng, 50), background)

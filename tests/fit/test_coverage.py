"""Coverage: nominal where all is linear, flagged where it is broken on purpose, and honest about failed fits."""

import dataclasses
import json
import math

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.coverage import METHODS, CoverageRow, CoverageStudy, coverage, joined_coverage, wilson
from nuebar.fit.known_coverage import load_table, printed_methods, warnings
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions, draw
from nuebar.predict.spectrum import build_model

FREE = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "norm_flux")
TOYS = 400


@pytest.fixture(scope="module")
def fit():
    """One core for twenty years: everything is as good as linear."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e, reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0],)), backgrounds=e.backgrounds[:1]
    )
    options = {
        "exposure.days": 20000.0,
        "binning.segments": ((0.8, 8.8, 80),),
        "binning.fine_width_MeV": 0.05,
        "systematics.signal": {"flux": 0.02},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
    }
    model, parameters = build_model(override(e, options))
    fit = SpectrumFit.asimov(model, parameters, statistic="cnp", experiment="juno")
    return fit.fixing([n for n in parameters if n not in FREE])


@pytest.fixture(scope="module")
def study(fit):
    return CoverageStudy(fit, lanes=16, threads=2)


@pytest.fixture(scope="module")
def toys(study):
    return study.toys(range(TOYS), seed=11, posteriors=TOYS, draws=500, widths=20)


@pytest.fixture(scope="module")
def short(study):
    """The same for a month and a half: several minima of Δm²31, a mixing angle that may end on its limit."""
    return study.at(45.0 / 20000.0)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_cover_where_everything_is_linear(toys, method):
    """Four binomial standard deviations; 400 toys: 9 points at 1σ and 4 at 2σ."""
    rows = coverage(toys, methods=[method])
    assert {r.parameter for r in rows} == set(FREE if method == "hesse" else FREE[:4])
    for r in rows:
        assert r.toys == TOYS
        assert r.failed == 0
        assert r.coverage == pytest.approx(r.level, abs=4 * math.sqrt(r.level * (1 - r.level) / TOYS)), r
        assert r.verdict == "as it should"


def test_methods_agree_toy_by_toy_where_everything_is_linear(toys):
    for j, name in enumerate(toys.interest):
        pull = np.abs(toys.pull[:, toys.names.index(name)])
        np.testing.assert_allclose(np.sqrt(np.maximum(toys.delta_global[:, j], 0)), pull, atol=0.12)
        np.testing.assert_allclose(toys.delta_local[:, j], toys.delta_global[:, j], atol=0.02)
        rank = 0.5 * (1 + np.array([math.erf(-p / math.sqrt(2)) for p in toys.pull[:, toys.names.index(name)]]))
        assert np.abs(toys.rank[:, j] - rank).mean() < 0.03
        for width in (toys.width_local[:20, j], toys.width_global[:20, j], toys.width_posterior[:20, j]):
            ratio = np.median(width / (toys.error[:20, toys.names.index(name), None] * [1.0, 2.0]), axis=0)
            np.testing.assert_allclose(ratio, 1.0, atol=0.06)
    assert toys.effective.min() > 100


def test_short_intervals_are_flagged(toys):
    """Broken on purpose: intervals of 0.8 of their length cover 57.6 instead of 68.3 %."""
    for method in METHODS:
        rows = [r for r in coverage(toys, methods=[method], scale=0.8) if r.n_sigma == 1.0]
        assert np.mean([r.coverage for r in rows]) == pytest.approx(0.576, abs=0.05)
        off = [r for r in rows if r.off]
        assert len(off) >= len(rows) / 2, method
        assert all("covers too little" in r.verdict for r in off)


def test_a_higher_level_never_covers_less(toys):
    sigmas = (0.5, 1.0, 1.5, 2.0, 3.0)
    for method in METHODS:
        for name in FREE[:4]:
            rows = [r for r in coverage(toys, sigmas=sigmas, methods=[method]) if r.parameter == name]
            covered = [r.covered for r in rows]
            assert covered == sorted(covered)
            assert covered[-1] > covered[0]


def test_toys_do_not_depend_on_how_they_are_cut(study, toys):
    parts = [study.toys(range(a, b), seed=11, posteriors=TOYS, draws=500) for a, b in ((0, 7), (7, 12))]
    again = joined_coverage(parts)
    some = toys.rows(slice(0, 12))
    np.testing.assert_array_equal(again.numbers, np.arange(12))
    np.testing.assert_allclose(again.pull, some.pull, atol=2e-3)
    np.testing.assert_allclose(again.delta_global, some.delta_global, atol=0.01)
    np.testing.assert_allclose(again.rank, some.rank, atol=1e-6)
    with pytest.raises(NuebarError, match="same parameters"):
        joined_coverage([again, dataclasses.replace(again, interest=("sin2_th12",))])


def test_failed_fits_are_counted_and_left_out(toys):
    status, effective = toys.status.copy(), toys.effective.copy()
    status[:100], effective[:40] = 2, 3.0
    broken = dataclasses.replace(toys, status=status, effective=effective)
    for r in coverage(broken):
        failed = {"hesse": 100, "minos": 100, "posterior": 40}.get(r.method, 0)
        assert (r.toys, r.failed) == (TOYS, failed)
        assert r.coverage == pytest.approx(r.covered / (TOYS - failed))
        assert r.coverage_all == pytest.approx(r.covered / TOYS)
    nothing = dataclasses.replace(toys, status=np.full(TOYS, 2))
    row = coverage(nothing, methods=["hesse"])[0]
    assert (row.failed, row.verdict, row.off) == (TOYS, "no valid interval", False)
    assert math.isnan(row.coverage)


def test_minos_of_a_single_fit_agrees(study, fit):
    """Whether the interval that Minos finds holds the truth is what Δχ² of the truth says."""
    few = 3
    data = draw(study.many, range(few), seed=11, options=ToyOptions(constraints=False))
    mine = study.toys(range(few), seed=11, options=ToyOptions(constraints=False), widths=few)
    names = list(study.interest)
    for i in range(few):
        single = dataclasses.replace(fit, counts=data.counts[i])
        result = single.run(minos=names)
        assert result.valid, result.reason
        for j, name in enumerate(names):
            p = result.parameters[name]
            d = fit.parameters[name].value - p.value
            inside = p.error_minus <= d <= p.error_plus
            near = abs(mine.delta_local[i, j] - 1.0) < 0.01
            assert near or inside == (mine.delta_local[i, j] <= 1.0), name
            assert 0.5 * (p.error_plus - p.error_minus) == pytest.approx(mine.width_local[i, j, 0], rel=0.02), name


def test_a_short_exposure_has_several_minima_that_are_all_seen(short):
    assert short.several
    found = short.toys(range(64), seed=2, posteriors=64, draws=500)
    assert np.all(found.shift[found.status == 0] > -0.01)
    assert np.mean(found.shift > 0.01) > 0.1
    k = found.interest.index("dm2_31_eV2")
    good = (found.status == 0) & np.isfinite(found.delta_global + found.delta_local).all(axis=1)
    assert good.sum() > 20
    # The interval of all minima holds the truth whenever its Δχ² above the lowest minimum is small enough.
    assert np.all(found.delta_global[good] > -0.05)
    assert np.all(found.delta_local[good, k] + found.shift[good] >= found.delta_global[good, k] - 0.05)
    rows = {(r.parameter, r.method): r for r in coverage(found, sigmas=[1.0])}
    lowest = rows["dm2_31_eV2", "hesse-lowest"]
    assert lowest.coverage < lowest.level - 0.1
    fine = found.status == 0
    assert rows["dm2_31_eV2", "minos"].covered == np.sum(found.delta_local[fine, k] <= 1.0)
    assert rows["dm2_31_eV2", "profile"].covered == np.sum(found.delta_global[found.status_lowest <= 1, k] <= 1.0)
    assert np.any((found.delta_local[fine, k] <= 1.0) != (found.delta_global[fine, k] <= 1.0))
    assert np.nanmedian(found.effective) > 100


@pytest.mark.parametrize(("covered", "n"), [(0, 10), (7, 10), (10, 10), (683, 1000)])
def test_wilson_solves_its_equation(covered, n):
    """Both ends are where |p̂ − p| is one binomial standard deviation of p."""
    for p in wilson(covered, n):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(covered / n - p) == pytest.approx(math.sqrt(p * (1 - p) / n), rel=1e-6)


def test_bad_input_is_refused(toys, fit):
    with pytest.raises(NuebarError, match="unknown method"):
        coverage(toys, methods=["bootstrap"])
    with pytest.raises(NuebarError, match="expected free parameters"):
        CoverageStudy(fit, interest=["matter_density_g_cm3"])


# ---------------------------------------------------------------- what is known


def row(**changes):
    same = {"exposure_days": 59.1, "statistic": "cnp", "parameter": "sin2_th12", "method": "hesse", "n_sigma": 1.0}
    rest = {"level": 0.682689, "toys": 2000, "failed": 3, "coverage": 0.581, "error": 0.007, "off": True}
    return {**same, **rest, **changes}


@pytest.fixture
def known(tmp_path):
    rows = [
        row(),
        row(n_sigma=2.0, level=0.9545, coverage=0.8),
        row(parameter="sin2_th13", off=False),
        row(parameter="dm2_31_eV2", method="hesse", coverage=0.9),
        row(parameter="dm2_31_eV2", method="hesse-lowest", coverage=0.33),
        row(parameter="dm2_21_eV2", method="minos", coverage=0.5),
        row(exposure_days=2191.5, coverage=0.4),
    ]
    record = {"format": 1, "kind": "known coverage", "experiment": "juno", "ordering": "normal", "rows": rows}
    record["priors"] = dict.fromkeys(FREE[:4])
    (tmp_path / "juno.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def result(fit):
    return fit.run()


def test_what_is_known_is_told(known, result):
    found = warnings("juno", 59.1, "cnp", result, folder=known)
    assert found[0] == (
        "the Hesse interval of sin2_th12 covered 58.1 ± 0.7 % of toys at 59.1 days where 68.3 % is wanted; "
        "use nuebar fit feldman-cousins"
    )
    assert len(found) == 2
    assert "lowest minimum of dm2_31_eV2 covered 33.0" in found[1]
    assert any("40.0" in s for s in warnings("juno", 2100.0, "cnp", result, folder=known))
    both = warnings("juno", 59.1, "cnp", result, folder=known, methods=["minos"])
    assert [s[:31] for s in both] == ["the Minos interval of dm2_21_eV"]


@pytest.mark.parametrize(
    ("experiment", "days", "statistic"),
    [("juno-2025", 59.1, "cnp"), ("juno", 95.0, "cnp"), ("juno", 30.0, "cnp"), ("juno", 59.1, "pearson")],
)
def test_silent_about_anything_else(known, result, experiment, days, statistic):
    assert warnings(experiment, days, statistic, result, folder=known) == []


def test_silent_about_other_priors_and_the_other_ordering(known, result):
    p = result.parameters["sin2_th12"]
    other = dataclasses.replace(
        result, parameters={**result.parameters, "sin2_th12": dataclasses.replace(p, prior=(0.31, 0.01))}
    )
    assert len(warnings("juno", 59.1, "cnp", other, folder=known)) == 1
    assert warnings("juno", 59.1, "cnp", dataclasses.replace(result, ordering="inverted"), folder=known) == []


def test_minos_is_told_from_hesse(result):
    assert set(printed_methods(result).values()) == {"hesse"}
    p = result.parameters["dm2_21_eV2"]
    minos = dataclasses.replace(p, error_plus=1.1 * p.error)
    changed = dataclasses.replace(result, parameters={**result.parameters, "dm2_21_eV2": minos})
    assert printed_methods(changed)["dm2_21_eV2"] == "minos"


def test_another_file_is_refused(tmp_path):
    assert load_table("juno", tmp_path) is None
    (tmp_path / "juno.json").write_text('{"format": 1, "kind": "toys"}', encoding="utf-8")
    with pytest.raises(NuebarError, match="table of known coverage"):
        load_table("juno", tmp_path)


@pytest.mark.parametrize("name", ["juno", "juno-2025"])
def test_the_shipped_tables_can_be_read(name):
    found = load_table(name)
    if found is None:
        pytest.skip("no table of this experiment")
    for r in found["rows"]:
        made = CoverageRow(
            r["parameter"], r["method"], r["n_sigma"], r["level"], r["toys"], r["failed"], 0, r["coverage"], 0.0, 0.0,
            0.0, 0.0,
        )  # fmt: skip
        assert made.off == r["off"]

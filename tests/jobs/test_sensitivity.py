"""The job of ``nuebar fit sensitivity``: what it computes, prints and writes."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from nuebar.config import load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.fit.ordering import scaled
from nuebar.fit.sensitivity import SensitivityStudy
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.jobs.fit import FitJob, run_fit
from nuebar.jobs.sensitivity import (
    SensitivityJob,
    parse_priors,
    published,
    run_sensitivity,
    sensitivity_report,
    write_sensitivity,
)
from nuebar.predict.spectrum import build_model

JOB = SensitivityJob(
    resolutions=("own", "2024"),
    years=(0.1, 3.0, 200.0),
    factors=(0.95, 1.0),
    systematics_years=3.0,
    priors={"sin2_th13": 0.0007},
)


def small():
    """JUNO with two cores, two backgrounds and few pulls."""
    e = load_experiment("juno")
    reactor = replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1]))
    changes = {
        "binning.segments": ((0.8, 8.8, 320),),
        "systematics.signal": {"flux": 0.02},
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.nonequilibrium": 0.0,
    }
    return override(replace(e, reactor=reactor, backgrounds=e.backgrounds[:2]), changes)


def made(experiment):
    model, parameters = build_model(experiment)
    return SpectrumFit.asimov(model, parameters, statistic="pearson", experiment="twice")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.toml"
    path.write_text(show(small()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def outcome(file):
    return run_sensitivity(replace(JOB, fit=FitJob(experiment=str(file), asimov=True)))


def test_own_resolution_gives_the_errors_of_a_fit(file, outcome):
    """With the same exposure in years as the option of a fit."""
    fitted = run_fit(FitJob(experiment=str(file), asimov=True, exposure_years=3.0, contour=())).result
    for name in outcome.interest:
        error = outcome.sets[0].points[1].full.errors[name]
        assert error == pytest.approx(fitted.parameters[name].error, rel=1e-3)
        assert outcome.scan[1].full.errors[name] == pytest.approx(error, rel=1e-12)


def test_laws_of_the_curves(outcome):
    assert outcome.valid
    for s in outcome.sets:
        for name in outcome.interest:
            errors = [p.full.errors[name] for p in s.points]
            assert errors == sorted(errors, reverse=True)
            for p in s.points:
                assert p.bare.errors[name] <= p.full.errors[name]
                assert p.external.errors[name] <= p.full.errors[name]
        assert [p.ordering.delta_chi2 for p in s.points] == sorted(p.ordering.delta_chi2 for p in s.points)
    own, better = outcome.sets
    assert own.points[1].full.errors["dm2_31_eV2"] > better.points[1].full.errors["dm2_31_eV2"]
    assert outcome.scan[0].ordering.delta_chi2 > outcome.scan[1].ordering.delta_chi2
    assert outcome.scan[0].at_1_MeV == pytest.approx(0.95 * outcome.scan[1].at_1_MeV)


def test_three_sigma_is_where_the_difference_is_nine(outcome):
    s = outcome.sets[0]
    assert 3.0 < s.years_at_3_sigma < 200.0
    delta = [p.ordering.delta_chi2 for p in s.points]
    assert delta[1] < 9.0 < delta[2]
    unit = outcome.experiment.exposure.days_per_year / outcome.experiment.exposure.days
    study = SensitivityStudy(made(outcome.experiment))
    assert study.ordering(s.years_at_3_sigma * unit).delta_chi2 == pytest.approx(9.0, abs=1e-3)


def test_report_tells_what_is_not_to_be_trusted(outcome):
    text = sensitivity_report(outcome)
    assert "!" in text
    assert "not to be trusted" in text
    assert "3 sigma" in text
    assert "sin2_th13 ± 0.0007" in text


def test_printed_shares_are_those_of_the_variance(outcome):
    """They add up to 100 % but for their roundings, and columns have names."""
    lines = sensitivity_report(outcome).splitlines()
    first = next(k for k, line in enumerate(lines) if "share of σ²" in line)
    assert lines[first + 2].split() == ["share", "σ", "less"] * 4
    groups = outcome.sets[0].breakdown
    rows = [lines[first + 3 + k].removeprefix(f"  {g.group}").split() for k, g in enumerate(groups)]
    assert rows[0][1] == "-"
    for k in range(4):
        assert sum(float(r[2 * k]) for r in rows) == pytest.approx(100.0, abs=0.05 * len(rows))
    assert any(line.split()[:4] == ["factor", "at", "1", "MeV"] for line in lines)


def test_files_hold_the_same_numbers(outcome, tmp_path):
    paths = {p.name for p in write_sensitivity(outcome, tmp_path)}
    assert paths == {
        "sensitivity.json",
        "sensitivity.csv",
        "sensitivity_systematics.csv",
        "sensitivity_resolution.csv",
        "sensitivity_precision.png",
        "sensitivity_ordering.png",
        "sensitivity_systematics.png",
        "sensitivity_resolution.png",
    }
    record = json.loads((tmp_path / "sensitivity.json").read_text(encoding="utf-8"))
    assert record["kind"] == "sensitivity"
    assert record["simulated"] is True
    rows = list(csv.DictReader((tmp_path / "sensitivity.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6
    point = record["sets"][1]["points"][2]
    assert float(rows[5]["error_dm2_31_eV2"]) == pytest.approx(point["errors"]["dm2_31_eV2"], rel=1e-6)
    assert float(rows[5]["years_full_power"]) == pytest.approx(200.0 * outcome.duty_cycle, rel=1e-6)
    assert rows[0]["trusted_dm2_31_eV2"] == "0"
    groups = record["sets"][0]["systematics"]["groups"]
    total = sum(g["share"]["sin2_th12"] ** 2 for g in groups)
    assert total == pytest.approx(record["sets"][0]["points"][1]["errors"]["sin2_th12"] ** 2, rel=1e-9)


def test_any_fit_can_be_studied(file):
    """A factory is all that the study needs: here every exposure counts twice."""

    def doubled(experiment):
        return scaled(made(experiment), 2.0)

    job = replace(JOB, resolutions=("own",), factors=(), check=False, ordering=False, priors={})
    job = replace(job, fit=FitJob(experiment=str(file), asimov=True))
    found = run_sensitivity(job, doubled)
    study = SensitivityStudy(doubled(small()))
    assert found.detectors == ("twice",)
    assert found.sets[0].points[1].full.errors["sin2_th12"] == pytest.approx(
        study.precision(3.0 / 6.0).errors["sin2_th12"], rel=1e-9
    )
    assert found.sets[0].costs == ()
    assert "ordering" not in sensitivity_report(found)


def test_published_numbers_agree_with_their_percents():
    """Percent and error were printed together: they must agree within their roundings."""
    true = {"sin2_th12": 0.307, "sin2_th13": 0.0218, "dm2_21_eV2": 7.53e-5, "dm2_31_eV2": 2.5283e-3}
    for row in published().precision:
        for name in ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2"):
            e = row.of(name)
            low, high = (100 * (e.error + s * e.rounding) / true[name] for s in (-1, 1))
            assert low - 0.05 <= e.percent <= high + 0.05
            assert e.relative(true[name])[0] == pytest.approx(e.percent, abs=0.05 + 1e-9)


@pytest.mark.slow
def test_published_precision_and_ordering(common_inputs):
    """Every published error within 20 % with the common inputs, and 3σ between 5.5 and 7.5 years x 26.6 GW."""
    job = SensitivityJob(
        fit=FitJob(inputs=common_inputs, asimov=True),
        years=(100 / 365.25, 6.0, 20.0),
        factors=(),
        check=False,
    )
    found = run_sensitivity(job)
    for row in found.published.precision:
        (point,) = [p for p in found.sets[0].points if p.years == pytest.approx(row.years)]
        for name in found.interest:
            assert point.full.errors[name] == pytest.approx(row.of(name).error, rel=0.2)
    assert 5.5 < found.sets[1].years_at_3_sigma * found.duty_cycle < 7.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), {}), (("sin2_th13=0.0007",), {"sin2_th13": 0.0007}), (("a=1", "b=2e-3"), {"a": 1.0, "b": 2e-3})],
)
def test_priors_from_words(words, expected):
    assert parse_priors(words) == expected


@pytest.mark.parametrize("words", [("sin2_th13",), ("sin2_th13=x",), ("a=1", "a=2"), ("=",)])
def test_bad_priors_are_refused(words):
    with pytest.raises(NuebarError, match="--prior"):
        parse_priors(words)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"resolutions": ("2021",)}, "--resolution"),
        ({"resolutions": ("2022", "2022")}, "--resolution"),
        ({"years": (3.0, 1.0)}, "--years"),
        ({"years": (3.0,)}, "--years"),
        ({"years": (0.0, np.nan)}, "--years"),
        ({"factors": (1.0, 0.9)}, "--resolution-factors"),
        ({"systematics_years": -1.0}, "--systematics-years"),
        ({"truth": "both"}, "--truth"),
        ({"fit": FitJob(asimov=True, exposure_years=6.0)}, "--exposure-years"),
        ({"detector": "tao", "fit": FitJob(asimov=True, predictor="surrogate")}, "--detector"),
    ],
)
def test_bad_options_are_refused(changes, match):
    with pytest.raises(NuebarError, match=match):
        run_sensitivity(replace(JOB, **changes))

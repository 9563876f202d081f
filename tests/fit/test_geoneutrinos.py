"""Geoneutrinos with free rates: the split, TNU, errors of real fits, and the limits of constraints."""

import dataclasses
import json

import numpy as np
import pytest

from nuebar.config import experiment_from_mapping, load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.fit.geoneutrinos import GeoneutrinoStudy
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.jobs.fit import FitJob
from nuebar.jobs.geoneutrinos import GeoneutrinoJob, geoneutrino_report, run_geoneutrinos, write_geoneutrinos
from nuebar.predict.geoneutrinos import (
    TH,
    U,
    split_geoneutrinos,
    split_if_named,
    tnu_per_event_per_day,
)
from nuebar.predict.spectrum import build_model
from nuebar.records import to_mapping

CHANGES = {
    "binning.segments": ((0.8, 6.8, 120),),
    "binning.fine_width_MeV": 0.05,
    "systematics.signal": {"flux": 0.02},
    "systematics.nonlinearity": False,
    "systematics.resolution": (),
    "systematics.fission_fractions": {},
    "systematics.core": 0.0,
    "systematics.spent_fuel": 0.0,
    "systematics.nonequilibrium": 0.0,
}
FREE = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "norm_flux", f"bkg_{U}", f"bkg_{TH}", "bkg_geoneutrinos")


def small():
    e = load_experiment("juno")
    cores = (e.reactor.cores[0], e.reactor.cores[-1])
    e = dataclasses.replace(
        e, detector=None, reactor=dataclasses.replace(e.reactor, cores=cores), backgrounds=e.backgrounds[:2]
    )
    return override(e, CHANGES)


def fitted(experiment, predictor="harmonic"):
    model, parameters = build_model(experiment, predictor=predictor)
    fit = SpectrumFit.asimov(model, parameters, statistic="pearson")
    return fit.fixing([n for n in parameters if n not in FREE])


@pytest.fixture(scope="module")
def split():
    return split_geoneutrinos(small())


@pytest.fixture(scope="module")
def fit(split):
    return fitted(split)


@pytest.fixture(scope="module")
def study(fit, split):
    return GeoneutrinoStudy(fit, split)


def test_the_two_parts_are_the_whole(fit):
    whole = fitted(small())
    parts = fit.model.components(fit.parameters.nominal())
    one = whole.model.components(whole.parameters.nominal())["geoneutrinos"]
    # Shape uncertainties aside the two are one: each part is normalised by itself, their mixture is that of the file.
    np.testing.assert_allclose((parts[U] + parts[TH]).sum(), one.sum(), rtol=1e-12)
    np.testing.assert_allclose(parts[U] + parts[TH], one, atol=2e-3 * one.max())
    for name in (U, TH):
        assert fit.parameters[f"bkg_{name}"].sigma is None
        assert not fit.parameters[f"bkg_{name}"].fixed


def test_a_rate_in_tnu():
    e = small()
    # 1e32 protons for a year at full efficiency: 14.3512 x 0.822 of them here.
    assert tnu_per_event_per_day(e) == pytest.approx(365.25 / (14.3512 * 0.822), rel=1e-12)
    rates = {b.name: b.rate_per_day for b in split_geoneutrinos(e, rate_tnu=39.7, mass_ratio=3.9).backgrounds}
    assert (rates[U] + rates[TH]) * tnu_per_event_per_day(e) == pytest.approx(39.7)
    assert rates[TH] / rates[U] == pytest.approx(0.069 * 3.9)


def test_errors_are_those_of_a_fit(split, study):
    point = study.point(1.0)
    result = fitted(split, "matrix").run()
    assert result.valid, result.reason
    assert point.uranium == pytest.approx(result.parameters[f"bkg_{U}"].error, rel=5e-3)
    assert point.thorium == pytest.approx(result.parameters[f"bkg_{TH}"].error, rel=5e-3)
    for name in ("sin2_th12", "dm2_21_eV2"):
        assert point.oscillation["free"][name] == pytest.approx(result.parameters[name].error, rel=5e-3)


def test_with_the_ratio_known_it_is_a_fit_of_the_sum():
    # Without shape uncertainties: those of two parts fluctuate independently, so the split has a little less of them.
    bare = override(small(), {"backgrounds.geoneutrinos.shape_sigma": 0.0})
    split = split_geoneutrinos(bare)
    point = GeoneutrinoStudy(fitted(split), split).point(1.0)
    whole = override(bare, {"backgrounds.geoneutrinos.rate_free": True})
    result = fitted(whole, "matrix").run()
    assert result.parameters["bkg_geoneutrinos"].prior is None
    assert point.total_at_fixed_ratio == pytest.approx(result.parameters["bkg_geoneutrinos"].error, rel=5e-3)
    constrained = fitted(bare, "matrix").run()
    for name in ("sin2_th12", "dm2_21_eV2"):
        assert point.oscillation["prior"][name] == pytest.approx(constrained.parameters[name].error, rel=5e-3)


def test_knowledge_only_helps_and_more_data_do(study):
    one, four = study.curve([1.0, 4.0])
    for point in (one, four):
        assert point.total_at_fixed_ratio < point.total < point.uranium < point.thorium
        assert point.correlation < 0
        for name in ("sin2_th12", "dm2_21_eV2", "dm2_31_eV2"):
            errors = [point.oscillation[c][name] for c in ("known", "prior", "fixed ratio", "free")]
            assert errors == sorted(errors)
    assert 0.5 < four.total_at_fixed_ratio / one.total_at_fixed_ratio < 0.95


@pytest.mark.parametrize(("width", "which"), [(1e-4, "total_at_fixed_ratio"), (1e4, "total")])
def test_a_prior_on_the_ratio_lies_between_its_limits(fit, split, study, width, which):
    tight = GeoneutrinoStudy(fit, split, ratio_prior=width).point(1.0)
    assert tight.total_at_ratio_prior == pytest.approx(getattr(study.point(1.0), which), rel=1e-4)


def test_naming_a_part_splits(split):
    e = small()
    assert split_if_named(e, ("sin2_th14",)) is e
    assert split_if_named(split, (f"bkg_{U}",)) is split
    names = [b.name for b in split_if_named(e, (f"bkg_{TH}",)).backgrounds]
    assert names == [U, TH, "world_reactors"]
    again = split_geoneutrinos(split, mass_ratio=3.9)
    assert [b.name for b in again.backgrounds] == names


def test_a_free_rate_is_a_key_of_the_file(split):
    record = to_mapping(split)
    record.pop("source")
    assert experiment_from_mapping(record, source=split.source) == split
    assert "rate_free = true" in show(split)


def test_what_is_refused(fit, split):
    e = small()
    with pytest.raises(NuebarError, match="expected a background 'geoneutrinos' to split"):
        split_geoneutrinos(dataclasses.replace(e, backgrounds=e.backgrounds[1:]))
    other = dataclasses.replace(e.backgrounds[0], shape="geoneutrinos_U")
    with pytest.raises(NuebarError, match="expected weights of geoneutrinos_U and geoneutrinos_Th"):
        split_geoneutrinos(dataclasses.replace(e, backgrounds=(other,)))
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(NuebarError, match="mass ratio Th/U"):
            split_geoneutrinos(e, mass_ratio=bad)
    with pytest.raises(NuebarError, match="expected the free rates"):
        GeoneutrinoStudy(fit.fixing([f"bkg_{U}"]), split)
    with pytest.raises(NuebarError, match="ratio prior above 0"):
        GeoneutrinoStudy(fit, split, ratio_prior=0.0)
    with pytest.raises(NuebarError, match="--years"):
        run_geoneutrinos(GeoneutrinoJob(years=(3.0, 1.0)))


def test_the_job_writes_a_record_a_table_and_a_picture(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(show(small()))
    fixed = ("matter_density_g_cm3", "bkg_world_reactors")
    job = GeoneutrinoJob(FitJob(experiment=str(path), asimov=True, fix=fixed), years=(1.0, 6.0), ratio_prior=0.1)
    outcome = run_geoneutrinos(job)
    assert outcome.survival == pytest.approx(0.5502, abs=1e-4)
    text = geoneutrino_report(outcome)
    assert "37.2 TNU" in text
    paths = write_geoneutrinos(outcome, tmp_path / "out")
    assert [p.name for p in paths] == ["geoneutrinos.json", "geoneutrinos.csv", "geoneutrinos.png"]
    record = json.loads(paths[0].read_text())
    assert record["points"][1]["total_at_fixed_ratio"] == outcome.points[1].total_at_fixed_ratio

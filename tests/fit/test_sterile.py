"""Expected exclusion of a sterile state: single fits, growth with mixing and exposure, toys, and the command's job."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.config import load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.fit.sterile import CEILING, SterileMap, SterileStudy, sin2_th14
from nuebar.fit.toys import run_toys
from nuebar.io.arrays import load_arrays
from nuebar.jobs.fit import FitJob
from nuebar.jobs.sterile import SterileJob, _config, run_sterile, sterile_chunk, sterile_report, write_sterile
from nuebar.physics.sterile import sin2_2th14
from nuebar.predict.spectrum import build_model

FREE = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "norm_flux")
CHANGES = {
    "binning.segments": ((1.0, 7.0, 100),),
    "binning.fine_width_MeV": 0.06,
    "systematics.signal": {"flux": 0.02},
    "systematics.nonlinearity": False,
    "systematics.resolution": (),
    "systematics.fission_fractions": {},
    "systematics.core": 0.0,
    "systematics.spent_fuel": 0.0,
    "systematics.nonequilibrium": 0.0,
}
MIXINGS = np.geomspace(0.005, 0.5, 6)
TOY_MIXINGS = np.geomspace(0.005, 0.13, 5)
SPLITTINGS = np.array([1e-4, 1e-3])


def small():
    e = load_experiment("juno")
    cores = (e.reactor.cores[0], e.reactor.cores[-1])
    e = dataclasses.replace(
        e, detector=None, reactor=dataclasses.replace(e.reactor, cores=cores), backgrounds=e.backgrounds[:1]
    )
    return override(e, CHANGES)


@pytest.fixture(scope="module")
def fit():
    model, parameters = build_model(small(), sterile=True)
    fit = SpectrumFit.asimov(model, parameters, statistic="pearson")
    return fit.fixing([n for n in parameters if n not in FREE])


@pytest.fixture(scope="module")
def study(fit):
    return SterileStudy(fit, threads=1)


@pytest.fixture(scope="module")
def found(study):
    return study.map(MIXINGS, SPLITTINGS)


def test_a_point_is_a_single_fit_with_the_state_held(fit, found):
    i, j = 1, 2
    held = {"sin2_th14": {"value": float(sin2_th14(MIXINGS[j]))}, "dm2_41_eV2": {"value": SPLITTINGS[i]}}
    single = dataclasses.replace(fit, parameters=fit.parameters.updated(**held)).run()
    assert single.valid, single.reason
    assert found.valid[i, j]
    assert found.delta_chi2[i, j] == pytest.approx(single.chi2, abs=1e-4)


def test_it_grows_with_mixing_until_the_ceiling(found):
    assert found.backed().all()
    for row in found.delta_chi2:
        fitted = row[np.isfinite(row)]
        assert np.all(np.diff(fitted) > 0)
        assert np.all(fitted[:-1] <= CEILING)
    limit = found.limit(0.95)
    assert np.all((limit > MIXINGS[0]) & (limit < MIXINGS[-1]))
    assert limit[1] < limit[0]  # fast waves are seen better
    assert np.all(found.limit(0.9) < limit)
    assert np.all(found.limit(0.95, dof=1) < limit)


def test_the_limit_falls_with_exposure_as_its_root_at_most(study, found):
    more = study.map(MIXINGS, SPLITTINGS, factor=4.0)
    ratio = more.limit() / found.limit()
    assert np.all((ratio > 0.48) & (ratio < 0.95))


def test_the_limit_of_a_parabola_and_of_rows_without_one():
    x = np.geomspace(1e-3, 1.0, 7)
    rows = np.array([5.991 * (x / 0.02) ** 2, 1e-3 * x, 1e3 * np.ones_like(x)])
    m = SterileMap(1.0, x, np.array([1e-4, 1e-3, 1e-2]), rows, np.ones((3, 7), bool), np.zeros((3, 7), bool))
    np.testing.assert_allclose(m.limit(), [0.02, np.nan, np.nan], rtol=1e-4)
    assert np.isnan(dataclasses.replace(m, valid=~m.valid).limit()).all()


def test_mixing_angles_there_and_back():
    x = np.array([1e-9, 1e-3, 0.3, 1.0])
    np.testing.assert_allclose(sin2_2th14(sin2_th14(x)), x, rtol=1e-14)
    assert sin2_th14(1.0) == 0.5


def test_limits_of_toys_lie_around_the_expected_one(study, found):
    spread = study.spread(TOY_MIXINGS, SPLITTINGS[1:], 8, seed=3)
    assert spread.valid.all()
    median = np.nanmedian(spread.limits[0])
    assert 0.4 < median / found.limit(0.95, dof=1)[1] < 2.0
    assert spread.quantiles([0.5])[0, 0] == pytest.approx(median)
    again = study.spread(TOY_MIXINGS, SPLITTINGS[1:], 2, seed=3, first=4)
    np.testing.assert_allclose(again.limits[0], spread.limits[0, 4:6], rtol=1e-6)


def test_toys_and_the_other_ordering_go_on_as_before(fit, study):
    many = study.many()
    toys = run_toys(many, 4, seed=1, errors="none")
    assert toys.valid.all()
    assert np.all(toys.value("sin2_th14") == 0.0)
    plain_model, plain = build_model(small(), predictor="matrix")
    plain_fit = SpectrumFit(plain_model, plain, fit.counts, "pearson").fixing([n for n in plain if n not in FREE])
    three = run_toys(ManyFits(plain_fit, lanes=8, threads=1), 4, seed=1, errors="none")
    np.testing.assert_allclose(toys.chi2, three.chi2, rtol=1e-6)
    chi2 = []
    for one, names in ((fit, fit.parameters), (plain_fit, plain)):
        inverted = inverted_start(one.parameters)
        other = ManyFits(dataclasses.replace(one, parameters=inverted), lanes=8, threads=1)
        x = np.array([inverted[n].value for n in names])[None]
        data = DataSets(np.zeros(1, int), fit.counts[None], other.centres[None], x)
        chi2.append(other.run(data, errors="none").chi2[0])
    assert chi2[0] == pytest.approx(chi2[1], rel=1e-6)


def test_what_is_refused(fit, study):
    plain_model, plain = build_model(small(), predictor="matrix")
    with pytest.raises(NuebarError, match="without; build it with sterile=True"):
        SterileStudy(SpectrumFit.asimov(plain_model, plain, statistic="pearson"))
    mixed = dataclasses.replace(fit, parameters=fit.parameters.updated(sin2_th14={"value": 0.1}))
    with pytest.raises(NuebarError, match="as the truth of an exclusion"):
        SterileStudy(mixed)
    with pytest.raises(NuebarError, match="sin2_2th14: expected increasing numbers"):
        study.map([0.1, 0.01], SPLITTINGS)
    with pytest.raises(NuebarError, match="dm2_41_eV2: expected increasing numbers"):
        study.map(MIXINGS, [2.0])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.toml"
    path.write_text(show(small()))
    fixed = ("matter_density_g_cm3", "bkg_geoneutrinos")
    return SterileJob(
        fit=FitJob(experiment=str(path), asimov=True, fix=fixed),
        mixing=(0.01, 0.12, 3),
        splitting=(3e-4, 3e-3, 3),
        years=(1.0, 6.0),
        toy_splittings=(1e-3,),
    )


@pytest.mark.parametrize("toys", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_job_writes_a_record_a_table_and_a_picture(job, toys, tmp_path):
    job = dataclasses.replace(job, toys=toys)
    outcome = run_sterile(job)
    assert outcome.valid
    assert len(outcome.maps) == 2
    text = sterile_report(outcome)
    assert "95 % CL" in text
    assert ("2 toys at 1 years" in text) == bool(toys)
    paths = write_sterile(outcome, tmp_path)
    assert [p.name for p in paths] == ["sterile.json", "sterile.csv", "sterile.png"]
    record = json.loads(paths[0].read_text())
    assert record["kind"] == "sterile exclusion"
    assert (record["toys"]["valid"] == [2]) if toys else (record.get("toys") is None)
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert len(rows) == 2 * 3 * 3
    # A chunk in a folder holds the same numbers.
    sterile_chunk({**_config(job), "what": "sterile-map"}, 1, 0, tmp_path / "chunk.safetensors")
    arrays, _ = load_arrays(tmp_path / "chunk.safetensors")
    np.testing.assert_array_equal(arrays["delta_chi2"], outcome.maps[1].delta_chi2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mixing": (0.1, 0.01, 5)}, "--mixing"),
        ({"splitting": (1e-4, 3.0, 5)}, "--splitting"),
        ({"years": ()}, "--years"),
        ({"cl": 1.0}, "--cl"),
        ({"toys": -1}, "--toys"),
        ({"toys": 2, "toy_splittings": (5.0,)}, "--toy-splittings"),
    ],
)
def test_options_that_do_not_go_together(changes, words):
    with pytest.raises(NuebarError, match=words):
        run_sterile(dataclasses.replace(SterileJob(), **changes))

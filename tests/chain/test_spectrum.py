"""What the fit of a run compares with its candidates: laws of the model of a sample."""

import dataclasses
import json

import numpy as np
import pytest

from nuebar.chain.experiment import fit_experiment
from nuebar.chain.run_file import load_run_file
from nuebar.chain.spectrum import Sample, sample_fit, sample_model
from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.io.histograms import Histogram
from nuebar.io.posteriors import ResponsePosterior

NAMES = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
BINS = 20


@pytest.fixture(scope="module")
def run():
    return load_run_file(None, {"fit.bins": BINS})


@pytest.fixture(scope="module")
def experiment():
    return load_experiment("juno")


@pytest.fixture(scope="module")
def posterior():
    return ResponsePosterior(NAMES, np.array([12.05, 0.517, 9846.0]), np.diag([0.1, 0.02, 8.0]) ** 2)


@pytest.fixture(scope="module")
def sample():
    edges = np.linspace(0.8, 8.8, BINS + 1)
    falling = np.linspace(3.0, 0.1, BINS)
    return Sample(
        edges, np.full(BINS, 60.0), falling, falling / 20, 27.0, 0.918, np.linspace(0.99, 0.999, BINS),
        np.full(BINS, 1e-3), {"geoneutrinos": 0.9, "li9_he8": 0.85},
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(run, experiment, sample, posterior):
    return sample_model(run, experiment, sample, posterior)


def signal(run, experiment, posterior, sample):
    model, parameters, _ = sample_model(run, experiment, sample, posterior)
    return model.components(parameters.nominal())


@pytest.mark.parametrize(
    ("change", "factor"),
    [({"live_days": 54.0}, 2.0), ({"fiducial_share": 0.459}, 0.5), ({"efficiency": np.full(BINS, 0.5)}, None)],
)
def test_signal_is_proportional_to_time_share_and_efficiency(run, experiment, posterior, sample, built, change, factor):
    model, parameters, _ = built
    before = model.components(parameters.nominal())["signal"]
    after = signal(run, experiment, posterior, dataclasses.replace(sample, **change))["signal"]
    expected = before * factor if factor else before * change["efficiency"] / sample.efficiency
    np.testing.assert_allclose(after, expected, rtol=1e-9)


def test_interactions_of_the_flux_come_back(run, experiment, posterior, sample):
    """Without any loss the signal is the number of interactions of the flux, but for what is out of the bins."""
    from nuebar.chain.simulation import interactions_per_day
    from nuebar.jobs.ibd import oscillation_of

    whole = dataclasses.replace(sample, live_days=1.0, fiducial_share=1.0, efficiency=np.ones(BINS))
    found = signal(run, experiment, posterior, whole)["signal"].sum()
    truth = {**oscillation_of(experiment), **{n: p.value for n, p in run.fit.priors.items()}}
    assert found == pytest.approx(interactions_per_day(experiment, truth), rel=0.005)


def test_accidentals_are_the_measured_ones(sample, built):
    model, parameters, _ = built
    components = model.components(parameters.nominal())
    np.testing.assert_allclose(components["accidentals"], sample.accidentals, rtol=1e-12)
    assert parameters["bkg_accidentals"].fixed


def test_backgrounds_have_the_efficiency_of_the_sample(experiment, sample, built):
    model, parameters, _ = built
    components = model.components(parameters.nominal())
    made = {p.name: p.rate_per_day / p.efficiency for p in experiment.detector.pairs}
    for name, efficiency in sample.background_efficiency.items():
        assert components[name].sum() == pytest.approx(made[name] * efficiency * sample.live_days, rel=1e-6)
    # What was not measured keeps the experiment's rate.
    rates = {b.name: b.rate_per_day for b in experiment.backgrounds}
    assert components["world_reactors"].sum() == pytest.approx(rates["world_reactors"] * sample.live_days, rel=1e-6)


def test_variance_is_the_sum_of_its_parts(run, experiment, posterior, sample, built):
    model, parameters, variance = built
    counts = model.components(parameters.nominal())["signal"]
    none = dataclasses.replace(sample, accidental_variance=np.zeros(BINS), efficiency_error=np.zeros(BINS))
    rest = sample_model(run, experiment, none, posterior)[2]
    assert np.all(rest > 0)  # the surrogate's Monte Carlo
    assert np.all(rest < 1e-3 * counts)
    parts = sample.accidental_variance + (counts * sample.efficiency_error / sample.efficiency) ** 2
    np.testing.assert_allclose(variance - rest, parts, rtol=1e-6)


def test_auxiliary_measurements_move_the_centres(run, experiment, sample, posterior):
    centres = {"norm_flux": 0.03, "sin2_th13": 0.0225, "unknown": 1.0}
    _, parameters, _ = sample_model(run, experiment, sample, posterior, centres=centres)
    assert parameters["norm_flux"].value == 0.03
    assert parameters["norm_flux"].sigma == 0.02
    assert parameters["sin2_th13"].value == 0.0225
    assert parameters["kB_g_cm2_GeV"].value == pytest.approx(12.05)


def test_priors_of_the_run_file_reach_the_fit(run, experiment):
    changed = fit_experiment(run, experiment)
    for name, prior in run.fit.priors.items():
        assert (changed.oscillation[name].value, changed.oscillation[name].sigma) == (prior.value, prior.sigma)
    assert len(changed.binning.edges()) == BINS + 1
    assert changed.fit.statistic == "barlow-beeston"


def test_an_asimov_sample_gives_its_parameters_back(run, experiment, sample, posterior, built):
    model, parameters, _ = built
    expected = np.asarray(model(model.vector(parameters.nominal()))[0])
    fit = sample_fit(run, experiment, dataclasses.replace(sample, counts=expected), posterior)
    result = fit.run()
    assert result.valid, result.reason
    assert result.chi2 < 0.05  # the profiled variance leaves a little
    for name in ("sin2_th12", "dm2_21_eV2", *NAMES):
        p = result.parameters[name]
        assert abs(p.value - parameters[name].value) < 0.05 * p.error, name


@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_the_surrogate_does_not_undo_a_minimum(run, experiment, sample, posterior, built, seed):
    """Its tables are in single precision, at which Migrad's line searches fail; exact derivatives decide then."""
    model, parameters, _ = built
    expected = np.asarray(model(model.vector(parameters.nominal()))[0])
    counts = np.random.default_rng(seed).poisson(expected).astype(float)
    result = sample_fit(run, experiment, dataclasses.replace(sample, counts=counts), posterior).run()
    assert result.valid, result.reason
    assert result.edm < 1e-4


# ---------------------------------------------------------------- files


def written(folder, sample):
    """A sample as the stage ``select`` leaves it."""
    Histogram(sample.edges_MeV, sample.counts).save(folder / "prompt.json")
    Histogram(sample.edges_MeV, sample.accidentals, sample.accidental_variance).save(folder / "accidentals.json")
    records = {
        "summary": {"format": 1, "live_days": sample.live_days, "survival": 1.0},
        "efficiency": {
            "format": 1,
            "edges_MeV": sample.edges_MeV.tolist(),
            "sources": {
                "ibd": {
                    "efficiency": sample.efficiency.tolist(),
                    "efficiency_error": sample.efficiency_error.tolist(),
                    "total": {"fiducial_share": {"value": sample.fiducial_share}, "efficiency": {"value": 0.99}},
                },
                "geoneutrinos": {
                    "selected": [9.0] * BINS,
                    "total": {"interactions": {"value": 200.0}},
                },
            },
        },
    }
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return records


def test_a_sample_comes_back_from_its_files(tmp_path, sample):
    written(tmp_path, sample)
    found = Sample.load(tmp_path)
    for name in ("counts", "accidentals", "accidental_variance", "efficiency", "efficiency_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(sample, name), rtol=1e-12)
    assert (found.live_days, found.fiducial_share) == (27.0, 0.918)
    assert found.background_efficiency == {"geoneutrinos": pytest.approx(0.9)}


def test_a_bin_without_monte_carlo_takes_the_mean_and_knows_nothing(tmp_path, sample):
    records = written(tmp_path, sample)
    for key in ("efficiency", "efficiency_error"):
        records["efficiency"]["sources"]["ibd"][key][3] = None
    (tmp_path / "efficiency.json").write_text(json.dumps(records["efficiency"]))
    found = Sample.load(tmp_path)
    assert (found.efficiency[3], found.efficiency_error[3]) == (0.99, 1.0)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("efficiency", {"sources": {}}, "expected live_days in summary.json and sources.ibd"),
        ("summary", {"live_days": None}, "expected live_days in summary.json and sources.ibd"),
        ("efficiency", {"edges_MeV": list(range(BINS + 1))}, "expected the bins of prompt.json"),
    ],
)
def test_files_of_another_selection_are_refused(tmp_path, sample, name, change, said):
    records = written(tmp_path, sample)
    (tmp_path / f"{name}.json").write_text(json.dumps({**records[name], **change}))
    with pytest.raises(NuebarError, match=said):
        Sample.load(tmp_path)

"""The records beside the results of a run: what they say of a selection and of a tuning is what a count gives."""

import importlib.util
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.events import Column, EventWriter, read_events
from nuebar.jobs import tune_diagnostics
from nuebar.jobs.select_apply import PairDecision, SelectApplyJob, chosen_threshold, pair_options, run_apply
from nuebar.jobs.select_diagnostics import selection_diagnostics
from nuebar.jobs.tune_diagnostics import LEVELS, tuning_diagnostics
from nuebar.select.config import load_selection
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import FEATURES, PAIR_COLUMNS, features_of
from nuebar.select.offtime import AccidentalSum
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.infer import infer


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pairs_toy, density_toy = loaded("select/toy_pairs"), loaded("tune/toy")

# ---------------------------------------------------------------- selection

CONFIG = load_selection()
CUTS = {"fiducial_m": 17.2, "delayed_MeV": 1.5, "max_dr_m": 5.0}
WINDOWS, DAYS = 20, 4.0
SLOPES = dict.fromkeys(FEATURES, 0.0) | {"dr_m": -2.0, "dt_us": -0.004, "e_delayed_MeV": 1.0, "r3_prompt_m3": 1e-4}


@dataclass(frozen=True)
class Line:
    """A classifier whose Shapley values are known: each feature's slope times its distance from the mean."""

    name: str = "line"
    at: float = 1.0

    def score(self, features):
        return self.at + features.astype(float) @ np.array(list(SLOPES.values()))


def decision(classifier, threshold=0.0):
    options = pair_options(CONFIG, max_dr_m=CUTS["max_dr_m"], delayed_MeV=CUTS["delayed_MeV"])
    return PairDecision(classifier=classifier, threshold=threshold, options=options, fiducial_m=CUTS["fiducial_m"])


def close_accidentals(n, seed=5):
    """Pairs of singles that pass all but the score, with weights and events that many of them share."""
    rng = np.random.default_rng(seed)
    pairs = pairs_toy.accidentals(rng, 8 * n)
    for axis in "xyz":
        near = pairs[f"prompt_{axis}_m"] + 1.5 * rng.normal(size=8 * n)
        pairs[f"delayed_{axis}_m"] = near.astype(np.float32)
    pairs["delayed_e_rec_MeV"] += np.float32(0.8)
    good = np.flatnonzero(decision(Line()).considered(pairs))[:n]
    assert good.size == n
    pairs = {name: pairs[name][good] for name in PAIR_COLUMNS}
    shared = {"prompt_row": np.sort(rng.integers(n // 3 + 1, size=n)), "delayed_row": n + rng.integers(n, size=n)}
    return pairs | {"weight": rng.uniform(0.04, 0.08, n)} | shared


def written(path, pairs):
    whole = [Column(name, kind="int", low=0, stored="int64") for name in ("prompt_row", "delayed_row")]
    names = tuple(name for name in pairs if not name.endswith("_row"))
    columns = (*names, *(c for c in whole if c.name in pairs))
    with EventWriter(path, columns) as writer:
        writer.append(dict(pairs))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    pairs = pairs_toy.ibd(np.random.default_rng(1), 4000)
    pairs["delayed_e_rec_MeV"][::10] = 1.2  # gammas that left the scintillator
    ibd = pairs_toy.write(folder / "ibd" / "a.parquet", pairs)
    return ibd, written(folder / "off_time.parquet", close_accidentals(600)), folder


def diagnosed(files, **changes):
    ibd, off, _ = files
    options = {
        "ibd": ibd,
        "off_time": off,
        "off_time_total": 600,
        "windows": WINDOWS,
        "live_days": DAYS,
        "classifier": Line(),
        "threshold": 0.0,
        "config": CONFIG,
        "events": 60,
        **CUTS,
    }
    record = selection_diagnostics(**(options | changes))
    json.dumps(record, allow_nan=False)  # refuses what is not finite
    return record


@pytest.fixture(scope="module")
def record(files):
    return diagnosed(files)


def test_the_efficiency_is_the_share_of_the_inner_antineutrinos_that_are_candidates(files, record):
    pairs = read_events(files[0], PAIR_COLUMNS)
    roc = record["roc"]
    assert len(roc["threshold"]) == 61
    for k in (0, 20, 40, 60):
        judge = decision(Line(), roc["threshold"][k])
        kept, _, _ = judge.scored(pairs)
        inside = np.count_nonzero(judge.inside(pairs))
        assert roc["efficiency"][k] == pytest.approx(np.count_nonzero(kept) / inside, abs=1.1 / inside)
        assert roc["efficiency_error"][k] < 0.01
    point = roc["operating_point"]
    kept, _, _ = decision(Line()).scored(pairs)
    assert point["efficiency"] == np.count_nonzero(kept) / np.count_nonzero(decision(Line()).inside(pairs))
    assert 0.2 < point["efficiency"] < 0.99


def test_the_background_is_that_of_the_sum_over_off_time_pairs(files, record):
    """Value and error are those that the measurement of the accidentals itself gives."""
    whole = [Column(name, kind="int", low=0, stored="int64") for name in ("prompt_row", "delayed_row")]
    off = read_events(files[1], (*PAIR_COLUMNS, "weight", *whole))
    kept, _, _ = decision(Line()).scored(off)
    sum_ = AccidentalSum()
    sum_.add(off, kept)
    found, point = sum_.result(), record["roc"]["operating_point"]
    assert found.pairs > 20
    assert point["background_per_day"] == pytest.approx(found.total / DAYS, rel=1e-12)
    assert point["background_error"] == pytest.approx(found.error / DAYS, rel=1e-9)
    assert found.error > 1.02 * np.sqrt((off["weight"][kept] ** 2).sum())  # shared events count
    assert record["note"] == ""


def test_it_reads_what_apply_writes(files, tmp_path):
    """The background at the threshold is the one in the summary, with its error."""
    rng = np.random.default_rng(4)
    singles = pairs_toy.accidentals(rng, 20_000)
    t_ns = np.sort(rng.integers(100_000_000_000, size=20_000))
    names = ("e_rec_MeV", "x_m", "y_m", "z_m")
    stream = {"t_ns": t_ns} | {name: singles[f"prompt_{name}"] for name in names}
    (tmp_path / "stream").mkdir()
    with EventWriter(tmp_path / "stream" / "chunk-00000.parquet", tuple(stream)) as writer:
        writer.append(stream)
    job = SelectApplyJob(stream=str(tmp_path / "stream"), threshold=-20.0, off_time_sample=100_000, **CUTS)
    summary = run_apply(job, tmp_path / "selected")
    classifier, threshold, _ = chosen_threshold(job, CONFIG)
    point = diagnosed(
        files,
        off_time=tmp_path / "selected" / "off_time.parquet",
        off_time_total=summary["off_time_sample"]["pairs"],
        live_days=summary["live_days"],
        classifier=classifier,
        threshold=threshold,
    )["roc"]["operating_point"]
    assert summary["accidentals"]["off_time_pairs"] > 50
    told = point["background_per_day"], point["background_error"]
    assert told == pytest.approx(summary["per_live_day"]["accidentals"], rel=1e-9)


def test_curves_fall_and_a_sample_stands_for_all(files, record):
    for name in ("efficiency", "background_per_day"):
        assert np.all(np.diff(record["roc"][name]) <= 0)
    third = diagnosed(files, off_time_total=1800)["roc"]
    for name in ("background_per_day", "background_error"):
        np.testing.assert_allclose(third[name], 3 * np.array(record["roc"][name]), rtol=1e-4)
    assert third["efficiency"] == record["roc"]["efficiency"]


def test_without_weights_a_pair_is_one_in_so_many_windows(files):
    off = {name: values for name, values in close_accidentals(600).items() if name in PAIR_COLUMNS}
    path = written(files[2] / "plain.parquet", off)
    point = diagnosed(files, off_time=path)["roc"]["operating_point"]
    n = np.count_nonzero(decision(Line()).scored(off)[0])
    assert point["background_per_day"] == pytest.approx(n / WINDOWS / DAYS)
    assert point["background_error"] == pytest.approx(np.sqrt(n) / WINDOWS / DAYS)


def test_the_boundary_is_the_score_of_the_median_antineutrino(files, record):
    pairs = read_events(files[0], PAIR_COLUMNS)
    good = decision(Line()).considered(pairs)
    median = np.median(features_of(pairs)[good], axis=0)
    plane = record["boundary"]
    for name, value in plane["others"].items():
        assert value == pytest.approx(median[FEATURES.index(name)], rel=1e-5, abs=1e-9)
    assert set(plane["others"]) | {"dr_m", "dt_us"} == set(FEATURES)
    level = 1.0 + sum(SLOPES[name] * value for name, value in plane["others"].items())
    want = level + SLOPES["dr_m"] * np.array(plane["dr_m"])[:, None] + SLOPES["dt_us"] * np.array(plane["dt_us"])
    np.testing.assert_allclose(plane["score"], want, atol=1e-4)
    assert plane["dr_m"][-1] == CUTS["max_dr_m"]
    assert plane["dt_us"][-1] == 2000.0
    assert plane["threshold"] == 0.0


def test_shapley_values_of_a_line_are_its_slopes(record):
    shap = record["shap"]
    values, data = np.array(shap["values"]), np.array(shap["data"])
    assert record["events"] == 60
    assert shap["kinds"] == [1] * 30 + [0] * 30
    for j, name in enumerate(shap["features"]):
        offset = values[:, j] - SLOPES[name] * data[:, j]  # less its mean over the background, the same for all
        assert np.ptp(offset) < 1e-4 * max(1.0, np.abs(values[:, j]).max())
    total = shap["base_value"] + values.sum(axis=1)
    np.testing.assert_allclose(total, 1.0 + data @ np.array(list(SLOPES.values())), atol=1e-3)
    np.testing.assert_allclose(shap["importance"], np.abs(values).mean(axis=0), atol=1e-4)
    assert shap["additivity"] < 1e-6
    known = np.array([SLOPES[name] != 0 for name in shap["features"]])
    assert np.all((np.array(shap["importance_error"]) > 0) == known)
    assert max(shap["check"]["rms"].values()) < 1e-9  # exact values of a line need no sampling


def test_a_seed_gives_one_record(files, record):
    assert diagnosed(files) == record
    other = diagnosed(files, seed=2)
    assert other["roc"] == record["roc"]
    assert other["shap"]["data"] != record["shap"]["data"]


@pytest.mark.parametrize("n", [0, 1, 2, 10])
def test_few_off_time_pairs_are_told(files, n):
    off = {name: values[:n] for name, values in close_accidentals(600).items()}
    record = diagnosed(files, off_time=written(files[2] / f"few-{n}.parquet", off), off_time_total=2 * n)
    assert f"{n} off-time pairs are explained" in record["note"]
    assert record["shap"]["kinds"] == [1] * 30 + [0] * n
    assert record["shap"]["additivity"] < 1e-6
    assert min(record["roc"]["background_error"]) > 0
    assert ("no off-time pairs" in record["note"]) == (n == 0)


def test_nothing_above_a_threshold_has_an_upper_end(files):
    record = diagnosed(files, classifier=Line(at=-40.0))
    point = record["roc"]["operating_point"]
    assert point["background_per_day"] == 0
    assert point["efficiency"] == 0
    heaviest = close_accidentals(600)["weight"].max()
    assert point["background_error"] == pytest.approx(1.841 * heaviest / DAYS)  # 68 % interval of nothing
    assert record["note"].startswith("0 off-time pairs are above")


def test_cuts_have_no_logits(files):
    record = diagnosed(files, classifier=BoxCuts.of(CONFIG))
    assert record["shap"]["explains"] == "probability"
    assert "probabilities" in record["note"]
    assert len(record["roc"]["threshold"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"off_time_total": 599}, "expected a sample of 599 off-time pairs, got 600"),
        ({"delayed_MeV": 2.5}, "make them with the same selection"),
        ({"live_days": 0.0}, "live_days: expected days above 0"),
        ({"windows": 0}, "at least 1 window"),
        ({"threshold": np.nan}, "threshold: expected a finite number"),
        ({"events": 2}, "at least 4 pairs to explain"),
        ({"fiducial_m": 0.01}, "expected antineutrino pairs that pass"),
    ],
)
def test_what_does_not_go_together_is_refused(files, change, message):
    with pytest.raises(NuebarError, match=message):
        diagnosed(files, **change)


# ---------------------------------------------------------------- tuning

DENSITY = density_toy.ToyDensity(n_knots=1601)
TRUTH = np.array([density_toy.TRUTH[name] for name in RESPONSE])


def spectra_of(truth, events=10_000, seed=3, density=DENSITY):
    p = np.exp(np.asarray(density.log_probabilities(np.asarray(truth))))
    rng = np.random.default_rng(seed)
    counts = {s: rng.multinomial(events, row / row.sum()) for s, row in zip(density.sources, p, strict=True)}
    return CalibrationData.from_counts(counts, density.edges, density.pe_to_observable)


def tuned(data):
    return infer(data, DENSITY, minos=False, n_replicas=0)


@pytest.fixture(scope="module")
def data():
    return spectra_of(TRUTH)


@pytest.fixture(scope="module")
def tuning(data):
    return tuned(data)


@pytest.fixture(scope="module")
def told(tuning, data):
    record = tuning_diagnostics(tuning, data, DENSITY, replicas=200, seed=4)
    json.dumps(record, allow_nan=False)
    return record


def distant(coverage):
    """The largest distance of covered shares, means and widths from what they should be, in standard errors."""
    n, level = coverage["replicas"] - coverage["failed"], np.array(coverage["levels"])
    off = [np.abs(np.array(c) - level) / np.sqrt(level * (1 - level) / n) for c in coverage["covered"].values()]
    for pull in coverage["pulls"].values():
        off += [[abs(pull["mean"]) / pull["mean_error"]], [abs(pull["width"] - 1) / pull["width_error"]]]
    return max(float(np.max(x)) for x in off)


def test_intervals_of_replicas_hold_the_best_fit_as_often_as_they_say(told):
    coverage = told["coverage"]
    assert coverage["parameters"] == list(coverage["covered"]) == list(coverage["pulls"]) == list(RESPONSE)
    assert coverage["levels"] == list(LEVELS)
    assert (coverage["replicas"], coverage["failed"]) == (200, 0)
    assert distant(coverage) < 4
    for row in coverage["covered"].values():
        assert np.all(np.diff(row) >= 0)


def test_wrong_errors_and_a_bias_are_seen(tuning, data, monkeypatch):
    fits = tune_diagnostics.batched_fits

    def narrow(*args, **options):
        found = fits(*args, **options)
        return replace(found, errors=0.75 * found.errors)

    def shifted(*args, **options):
        found = fits(*args, **options)
        return replace(found, best=found.best + 0.5 * found.errors)

    for wrong in (narrow, shifted):
        monkeypatch.setattr(tune_diagnostics, "batched_fits", wrong)
        assert distant(tuning_diagnostics(tuning, data, DENSITY, replicas=200, seed=4)["coverage"]) > 5


def test_a_seed_gives_one_set_of_replicas(tuning, data, told):
    assert tuning_diagnostics(tuning, data, DENSITY, replicas=200, seed=4) == told
    assert tuning_diagnostics(tuning, data, DENSITY, replicas=200, seed=5)["coverage"] != told["coverage"]


def test_replicas_have_the_events_of_the_data(tuning, data, monkeypatch):
    seen = []
    fits = tune_diagnostics.batched_fits

    def watched(density, weights, around, **options):
        seen.append((weights, around))
        return fits(density, weights, around, **options)

    monkeypatch.setattr(tune_diagnostics, "batched_fits", watched)
    some = data.subset(("K40", "Cs137", "AmBe"))
    tuning_diagnostics(tuned(some), some, DENSITY, replicas=10)
    counts, _ = seen[0]
    assert counts.shape == (10, 3, 800)
    np.testing.assert_array_equal(counts.sum(axis=2), np.broadcast_to(some.events, (10, 3)))
    mean, p = counts[:, 0].mean(axis=0), some.counts[0]
    assert np.abs(mean - p).sum() < 0.2 * p.sum()  # the first row is of the first source


def test_a_small_background_changes_little_and_is_fitted(tuning, data, told):
    """One by one, a fit is the same as among many; the number of replicas does not matter to the first ones."""
    little = data.with_background({s: np.full(800, 1e-9) for s in data.sources})
    many = tuning_diagnostics(tuning, data, DENSITY, replicas=30, seed=4)["coverage"]
    single = tuning_diagnostics(tuning, little, DENSITY, replicas=30, seed=4)["coverage"]
    for name in RESPONSE:
        assert single["pulls"][name]["mean"] == pytest.approx(many["pulls"][name]["mean"], abs=0.03)
        assert single["pulls"][name]["width"] == pytest.approx(many["pulls"][name]["width"], abs=0.05)
    much = {s: np.full(800, 2.0) for s in data.sources}
    rng = np.random.default_rng(6)
    more = replace(data, counts=data.counts + rng.poisson(2.0, data.counts.shape)).with_background(much)
    record = tuning_diagnostics(tuned(more), more, DENSITY, replicas=100, seed=4)
    assert record["coverage"]["failed"] == 0
    assert distant(record["coverage"]) < 4
    assert sum(record["spectra"]["Cs137"]["expected"]) > sum(told["spectra"]["Cs137"]["expected"])


def test_a_best_fit_in_a_corner_leaves_finite_numbers():
    data = spectra_of((12.0, 0.0, 9846.0), seed=8)
    result = tuned(data)
    record = tuning_diagnostics(result, data, DENSITY, replicas=60)
    json.dumps(record, allow_nan=False)
    if "fC" in result.at_limit:
        assert record["coverage"]["at_limit"]["fC"] > 10


def test_spectra_are_the_data_and_the_fit_in_few_even_bins(data, told):
    assert list(told["spectra"]) == list(data.sources)
    for source, row in told["spectra"].items():
        edges, counts = np.array(row["edges"]), data.counts[data.sources.index(source)]
        assert 10 <= len(row["counts"]) == len(row["expected"]) == edges.size - 1 <= 120
        np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0], rtol=1e-6)
        places = np.searchsorted(data.edges, edges - 1e-6)
        np.testing.assert_allclose(data.edges[places], edges, rtol=1e-9)
        merged = [counts[a:b].sum() for a, b in itertools.pairwise(places)]
        np.testing.assert_array_equal(row["counts"], merged)
        assert sum(row["counts"]) > 0.99 * counts.sum()
        chi2 = ((np.array(row["counts"]) - row["expected"]) ** 2 / np.maximum(row["expected"], 1.0)).sum()
        assert chi2 < 2 * len(row["counts"])


@pytest.mark.parametrize("size", [800, 803, 130, 7, 1])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.4), (0.7, 1.0), (0.5, 0.5)])
def test_the_part_that_is_shown_lies_in_the_spectrum(size, low, high):
    content = np.zeros(size)
    first, last = int(low * (size - 1)), int(high * (size - 1)) + 1
    content[first:last] = 1.0
    begin, end, step = tune_diagnostics._part(content)
    assert 0 <= begin < end <= size
    assert (end - begin) % step == 0
    assert (end - begin) // step <= 120
    assert content[begin:end].sum() >= 0.97 * content.sum()


def test_too_few_replicas_are_refused(tuning, data):
    with pytest.raises(NuebarError, match="replicas: expected at least 3, got 2"):
        tuning_diagnostics(tuning, data, DENSITY, replicas=2)


# ---------------------------------------------------------------- shipped models


@pytest.mark.slow
def test_the_shipped_density_covers():
    from nuebar.tune.store import load_density

    density = load_density("spline")
    data = spectra_of((12.0, 0.5, 9846.0), density=density)
    result = infer(data, density, minos=False, n_replicas=0)
    record = tuning_diagnostics(result, data, density)
    assert record["coverage"]["failed"] == 0
    assert distant(record["coverage"]) < 4


@pytest.mark.slow
def test_the_shipped_network_is_explained(files):
    from nuebar.select.store import describe_classifier, load_classifier

    threshold = describe_classifier("network")["metrics"]["points"]["cuts"]["threshold"]
    record = diagnosed(files, classifier=load_classifier("network"), threshold=threshold, events=1000)
    assert record["events"] == 1000
    assert record["shap"]["additivity"] < 1e-6
    # A tenth of the pairs is below the least delayed energy of the cuts; nearly all others are kept.
    assert record["roc"]["operating_point"]["efficiency"] == pytest.approx(0.9, abs=0.01)
    first = sorted(zip(record["shap"]["importance"], FEATURES, strict=True))[-3:]
    assert {"dr_m"} <= {name for _, name in first}
    assert max(record["shap"]["check"]["rms"].values()) < 0.3

"""What the chain selects from: skimmed streams, the cuts before the score, pair samples and the efficiency on them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.events import EventFile, EventWriter, read_events
from nuebar.io.files import read_json
from nuebar.io.results import load_result
from nuebar.jobs.ibd import oscillation_of
from nuebar.jobs.pair_sample import PairSampleJob, run_pair_sample, sampled_sources
from nuebar.jobs.select_apply import PairDecision, SelectApplyJob, pair_options, run_apply
from nuebar.jobs.select_efficiency import save_efficiency, selection_efficiency, survival_weights
from nuebar.jobs.stream import Skim, StreamJob, run_stream
from nuebar.select.config import load_selection
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import PAIR_COLUMNS
from nuebar.select.store import load_classifier

DAYS, IBD_PER_DAY = 0.08, 60_000.0
SKIM = Skim(fiducial_m=17.2)
CUTS = {"fiducial_m": 15.0, "delayed_MeV": 2.2}  # both in the middle of things: an efficiency of a third
DR_m, THRESHOLD = 0.5, 2.0


@pytest.fixture(scope="module")
def crowded(juno):
    """JUNO with many antineutrinos and few singles: large samples in little time."""
    d = juno.detector
    singles = tuple(replace(s, rate_Hz=4 * s.rate_Hz) for s in d.singles if s.name == "scintillator")
    return replace(juno, detector=replace(d, ibd_per_day=IBD_PER_DAY, singles=singles))


@pytest.fixture(scope="module")
def streams(crowded, tmp_path_factory):
    """The same stream whole, and skimmed without truth; and how many pairs it was made with."""
    place = tmp_path_factory.mktemp("streams")
    job = StreamJob(crowded, DAYS, oscillation_of(crowded), window_s=3456.0, cascades=2000, seed=7)
    whole = run_stream(job, place / "run")
    shutil.copytree(place / "run" / "stream", place / "whole")
    run_stream(replace(job, skim=SKIM, truth=False), place / "run", force=True)
    made = sum(s["pairs"]["ibd"] for s in whole.summaries)
    return str(place / "whole"), str(place / "run" / "stream"), made


@pytest.fixture(scope="module")
def sample(crowded, streams, tmp_path_factory):
    job = PairSampleJob(crowded, {"ibd": 40_000, "fast_neutrons": 2000, "li9_he8": 4000}, seed=7)
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(Path(streams[1]).parent / "shapes", folder / "shapes")  # the same stage
    return job, folder, run_pair_sample(job, folder)


def applied(stream, out, **changes):
    job = SelectApplyJob(stream=stream, threshold=THRESHOLD, max_dr_m=DR_m, **{**CUTS, **changes})
    summary = run_apply(job, out)
    names = (*PAIR_COLUMNS, "prompt_t_ns", "score")
    return summary, EventFile(out / "candidates.parquet", names, optional=("true_pair",)).read()


def radius(pairs, part="prompt"):
    return np.sqrt(sum(pairs[f"{part}_{a}_m"].astype(float) ** 2 for a in "xyz"))


# ---------------------------------------------------------------- streams


def test_a_skim_is_a_part_of_the_stream(streams):
    whole, skimmed, made = streams
    names = ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m")
    full = EventFile(whole, (*names, "true_kind", "n_pe")).read()
    part = EventFile(skimmed, names).read()
    r = np.sqrt(sum(full[f"{a}_m"].astype(float) ** 2 for a in "xyz"))
    e = full["e_rec_MeV"].astype(float)
    # Rounding moves at most 2⁻¹⁶ of a value over a limit.
    sure = (full["true_kind"] == 0) | (e > 1.5001) | ((e > 0.7001) & (r < 17.199))
    maybe = (full["true_kind"] == 0) | (e > 1.4999) | ((e > 0.6999) & (r < 17.201))
    assert np.isin(full["t_ns"][sure], part["t_ns"]).all()
    assert np.isin(part["t_ns"], full["t_ns"][maybe]).all()
    assert 0.1 < part["t_ns"].size / e.size < 0.9
    row = np.searchsorted(full["t_ns"], part["t_ns"])
    for name in names[1:]:
        np.testing.assert_allclose(part[name], full[name][row], rtol=1.6e-5)
    assert made == pytest.approx(IBD_PER_DAY * DAYS, abs=5 * np.sqrt(IBD_PER_DAY * DAYS))


def test_what_is_hidden_is_not_there_and_defaults_are_as_before(streams, tmp_path):
    whole, skimmed, _ = streams
    file = EventFile(skimmed, ("t_ns",), optional=("true_kind", "true_pair", "true_e_nu_MeV", "n_pe"))
    assert file.names == ("t_ns",)
    assert all("kinds" not in about and about["skim"]["fiducial_m"] == 17.2 for about in file.metadata)
    assert not {"skim", "truth"} & set(read_json(f"{whole}/stage.json")["config"])
    summary, found = applied(whole, tmp_path / "hidden", truth=False)
    assert "truth" not in summary
    assert "true_pair" not in found
    assert summary["options"]["truth"] is False


def test_a_selection_does_not_see_the_skim(streams, tmp_path):
    """Same candidates, same live time, same accidentals; with muons and their veto."""
    (first, a), (second, b) = (
        applied(stream, tmp_path / str(k), muon_veto_ms=22.3, off_time_sample=1) for k, stream in enumerate(streams[:2])
    )
    np.testing.assert_array_equal(a["prompt_t_ns"], b["prompt_t_ns"])
    np.testing.assert_allclose(a["score"], b["score"], atol=0.02)
    assert first["candidates"] == second["candidates"] > 200
    assert second["live_days"] == pytest.approx(first["live_days"], rel=1e-4)
    for key in ("pairs", "weight"):
        assert second["off_time_sample"][key] == pytest.approx(first["off_time_sample"][key], rel=0.05)
    assert first["events"]["muons"] == second["events"]["muons"] > 1000


def test_a_skimmed_stream_is_not_taken_for_a_whole_one(streams, tmp_path):
    for change in ({"fiducial_m": None}, {"fiducial_m": 17.3}, {"delayed_MeV": None}, {"delayed_MeV": 1.4}):
        with pytest.raises(NuebarError, match=r"asks for others; give --fiducial 17.2 --delayed-MeV 1.5"):
            applied(streams[1], tmp_path, **change)
    rule = Path(load_selection().source).read_text().replace('multiplicity = "all"', 'multiplicity = "isolated"')
    (tmp_path / "rule.toml").write_text(rule.replace("isolation_ms = 0.0", "isolation_ms = 2.0"))
    with pytest.raises(NuebarError, match="asks for third events"):
        applied(streams[1], tmp_path, selection=str(tmp_path / "rule.toml"))


@pytest.mark.parametrize("name", ["fiducial_m", "prompt_MeV", "delayed_MeV"])
def test_wrong_skims_are_one_sentence(name):
    for value in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(NuebarError, match=f"skim: {name}"):
            Skim(**{"fiducial_m": 17.2, name: value})


# ---------------------------------------------------------------- apply


def test_cuts_before_the_score(streams, tmp_path):
    """Those who pass are those of the same selection without the cuts, cut afterwards."""
    loose, pairs = applied(streams[0], tmp_path / "loose", fiducial_m=None, delayed_MeV=None)
    tight, found = applied(streams[0], tmp_path / "tight")
    kept = (radius(pairs) < 15.0) & (pairs["delayed_e_rec_MeV"].astype(float) >= 2.2)
    assert 0 < np.count_nonzero(kept) < kept.size
    np.testing.assert_array_equal(found["prompt_t_ns"], pairs["prompt_t_ns"][kept])
    assert tight["pairs"]["scored"] < loose["pairs"]["scored"]
    assert tight["pairs"]["scored_off_time"] < loose["pairs"]["scored_off_time"]
    assert tight["options"]["fiducial_m"] == 15.0
    assert tight["options"]["delayed_MeV"] == 2.2


def test_the_veto_of_the_job_makes_the_live_time(streams, crowded, tmp_path):
    summary, found = applied(streams[0], tmp_path, muon_veto_ms=22.3)
    lived = np.exp(-crowded.detector.muon_Hz * 22.3e-3)
    assert summary["live_days"] / summary["days"] == pytest.approx(lived, rel=0.01)
    assert summary["selection"]["pairs"]["muon_veto_ms"] == summary["options"]["muon_veto_ms"] == 22.3
    muons = read_events(streams[0], ("t_ns", "e_rec_MeV"))
    muons = muons["t_ns"][muons["e_rec_MeV"] > 100]
    before = muons[np.maximum(np.searchsorted(muons, found["prompt_t_ns"], "right") - 1, 0)]
    assert np.all((found["prompt_t_ns"] - before >= 22.3e6) | (found["prompt_t_ns"] < muons[0]))


def test_off_time_pairs_give_the_background_at_any_threshold(streams, tmp_path):
    options = {"fiducial_m": 17.2, "delayed_MeV": 1.0}
    job = SelectApplyJob(stream=streams[0], threshold=-8.0, off_time_sample=10**6, **options)
    summary = run_apply(job, tmp_path / "all")
    told = summary["off_time_sample"]
    names = (*PAIR_COLUMNS, "score", "weight", "window", "prompt_t_ns")
    off = read_events(str(tmp_path / "all" / "off_time.parquet"), names)
    assert told["rows"] == told["pairs"] == off["score"].size == summary["pairs"]["scored_off_time"] > 200
    assert radius(off).max() < 17.2
    assert off["delayed_e_rec_MeV"].min() >= 1.0
    assert told["weight"] == pytest.approx(off["weight"].sum())
    assert off["weight"][off["score"] >= -8.0].sum() == pytest.approx(summary["accidentals"]["value"])
    assert set(np.unique(off["window"])) == set(range(1, 21))
    assert np.all(np.diff(off["prompt_t_ns"]) >= 0)
    few = run_apply(replace(job, off_time_sample=50), tmp_path / "few")
    head = read_events(str(tmp_path / "few" / "off_time.parquet"), names)
    assert few["off_time_sample"] == {**told, "rows": 50}
    for name in names:
        np.testing.assert_array_equal(head[name], off[name][:50])
    run_apply(replace(job, off_time_sample=0), tmp_path / "few")
    assert not (tmp_path / "few" / "off_time.parquet").exists()


# ---------------------------------------------------------------- pair samples


def test_a_sample_has_all_pairs_of_its_sources(sample, crowded):
    job, folder, paths = sample
    assert set(paths) == set(job.pairs) < set(sampled_sources(crowded))
    pairs = {name: read_events(list(files), PAIR_COLUMNS) for name, files in paths.items()}
    assert {name: p["dt_ns"].size for name, p in pairs.items()} == job.pairs
    assert all(path.parent == folder / name for name, files in paths.items() for path in files)
    # Neutrons come in from outside; what is even in the volume has a mean radius of three quarters.
    assert radius(pairs["li9_he8"]).mean() == pytest.approx(0.75 * 17.7, abs=0.2)
    assert radius(pairs["fast_neutrons"]).mean() > 16.5
    for p in pairs.values():
        assert p["dt_ns"].mean() == pytest.approx(220e3, rel=0.1)
        inside = p["delayed_e_rec_MeV"][radius(p, "delayed") < 15]
        assert np.median(inside) == pytest.approx(2.22, abs=0.02)


def test_a_sample_continues_with_the_same_bytes(sample):
    job, folder, paths = sample
    path = paths["fast_neutrons"][0]
    before = path.read_bytes()
    path.unlink()
    assert run_pair_sample(job, folder) == paths
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("pairs", "message"),
    [({"li9": 10}, "expected sources of ibd"), (0, "pairs of ibd: expected"), ({"ibd": -1}, "pairs of ibd")],
)
def test_wrong_samples_are_one_sentence(crowded, tmp_path, pairs, message):
    with pytest.raises(NuebarError, match=message):
        run_pair_sample(PairSampleJob(crowded, pairs), tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- efficiency


def test_weights_are_the_survival_of_the_spectrum(sample, crowded):
    from nuebar.jobs.ibd import spectrum_chunk, spectrum_stage

    _, folder, paths = sample
    events = read_events(list(paths["ibd"]), ("true_e_nu_MeV", "true_core"))
    weights = survival_weights(events["true_e_nu_MeV"], events["true_core"], crowded, oscillation_of(crowded))
    stage = spectrum_stage(crowded, oscillation_of(crowded))
    want = spectrum_chunk(dict(stage.config), 0, 0, folder / "check.safetensors")["survival"]
    assert weights.mean() == pytest.approx(want, abs=5 * weights.std() / np.sqrt(weights.size))


def test_what_is_measured_is_what_is_applied(streams, sample, crowded, tmp_path):
    """Pairs of a stream that were selected, over those made: the acceptance that the pair sample gives."""
    whole, _, made = streams
    summary, found = applied(whole, tmp_path)
    record = selection_efficiency(
        sample[2],
        classifier=load_classifier("network"),
        threshold=THRESHOLD,
        config=load_selection(),
        edges=np.array([0.7, 2.0, 3.0, 4.0, 12.0]),
        max_dr_m=DR_m,
        oscillation=oscillation_of(crowded),
        experiment=crowded,
        **CUTS,
    )
    ibd = record["sources"]["ibd"]
    total = ibd["total"]
    seen = summary["truth"]["ibd"] / made
    error = np.hypot(np.sqrt(seen * (1 - seen) / made), total["acceptance"]["error"])
    assert error < 0.01
    assert 0.2 < total["acceptance"]["value"] < 0.5
    assert abs(seen - total["acceptance"]["value"]) < 4 * error
    # And bin by bin, up to the number of interactions.
    true = found["true_pair"] > 0
    counts = np.histogram(found["prompt_e_rec_MeV"][true], record["edges_MeV"])[0]
    want = np.array(ibd["selected"]) / total["interactions"]["value"]
    spread = np.array(ibd["selected_error"]) / total["interactions"]["value"]
    pulls = (counts / made - want) / np.hypot(np.sqrt(counts) / made, spread)
    assert np.abs(pulls).max() < 4.5
    assert total["fiducial_share"]["value"] * total["efficiency"]["value"] == pytest.approx(
        total["acceptance"]["value"]
    )
    # Each cut matters here: without it the number would be another one.
    for loose in ({"fiducial_m": None}, {"delayed_MeV": None}, {"max_dr_m": None}):
        other = selection_efficiency(
            {"ibd": sample[2]["ibd"]},
            classifier=load_classifier("network"),
            config=load_selection(),
            edges=np.array([0.7, 12.0]),
            **{"threshold": THRESHOLD, "max_dr_m": DR_m, **CUTS, **loose},
        )
        assert other["sources"]["ibd"]["total"]["acceptance"]["value"] > total["acceptance"]["value"] + 5 * error


def toy_pairs(n=5000):
    rng = np.random.default_rng(3)
    pairs = {name: rng.uniform(-17, 17, n) / np.sqrt(3) for name in PAIR_COLUMNS}
    for axis in "xyz":
        pairs[f"delayed_{axis}_m"] = pairs[f"prompt_{axis}_m"] + rng.normal(0, 0.5, n)
    pairs["prompt_e_rec_MeV"] = rng.uniform(0.5, 9, n)
    pairs["delayed_e_rec_MeV"] = rng.uniform(0.5, 3, n)
    pairs["dt_ns"] = rng.exponential(1e6, n)
    return {name: values.astype(np.float32) for name, values in pairs.items()}


def test_efficiencies_are_shares_with_binomial_errors(tmp_path):
    pairs = toy_pairs()
    with EventWriter(tmp_path / "toy.parquet", PAIR_COLUMNS) as writer:
        writer.append(pairs)
    box = BoxCuts(delayed_MeV=((1.9, 2.5),))
    edges = np.array([0.8, 2.0, 5.0, 8.8, 9.5, 11.0])
    record = selection_efficiency(
        {"toy": tmp_path / "toy.parquet"},
        classifier=box,
        threshold=0.0,
        config=load_selection(),
        edges=edges,
        fiducial_m=14.0,
        delayed_MeV=2.0,
        max_dr_m=1.0,
    )
    p = {name: v.astype(float) for name, v in pairs.items()}
    inside = radius(p) < 14.0
    dr = np.sqrt(sum((p[f"prompt_{a}_m"] - p[f"delayed_{a}_m"]) ** 2 for a in "xyz"))
    passed = inside & (p["prompt_e_rec_MeV"] >= 0.7) & (p["delayed_e_rec_MeV"] >= 2.0) & (p["dt_ns"] < 2e6)
    passed &= (dr <= 1.0) & (p["delayed_e_rec_MeV"] < 2.5)
    toy = record["sources"]["toy"]
    for name, kept in (("interactions", np.ones(inside.size, bool)), ("fiducial", inside), ("selected", passed)):
        np.testing.assert_array_equal(toy[name], np.histogram(p["prompt_e_rec_MeV"][kept], edges)[0])
        assert toy["total"][name]["value"] == kept.sum()
    n, k = np.array(toy["fiducial"])[:3], np.array(toy["selected"])[:3]
    assert k.min() > 10
    np.testing.assert_allclose(toy["efficiency"][:3], k / n)
    np.testing.assert_allclose(toy["efficiency_error"][:3], np.sqrt(k / n * (1 - k / n) / n))
    assert toy["efficiency"][4:] == toy["efficiency_error"][4:] == [None]
    save_efficiency(tmp_path / "efficiency.json", record)
    assert load_result(tmp_path / "efficiency.json")["sources"] == record["sources"]


def test_a_share_of_all_or_none_has_an_error(tmp_path):
    pairs = toy_pairs(40)
    with EventWriter(tmp_path / "toy.parquet", PAIR_COLUMNS) as writer:
        writer.append(pairs)
    record = selection_efficiency(
        {"toy": tmp_path / "toy.parquet"},
        classifier=BoxCuts(prompt_MeV=(90.0, 95.0)),
        threshold=0.0,
        config=load_selection(),
        edges=np.array([0.0, 12.0]),
    )
    total = record["sources"]["toy"]["total"]
    assert total["efficiency"]["value"] == 0.0
    assert total["efficiency"]["error"] == pytest.approx(1 - 0.158655 ** (1 / 40), rel=1e-4)
    assert total["fiducial_share"]["value"] == 1.0


def test_weighted_errors_are_those_of_many_samples():
    """Of weighted pairs drawn again and again."""
    from nuebar.jobs.select_efficiency import _share

    rng = np.random.default_rng(4)
    w = rng.uniform(0.1, 1, (4000, 500))
    s = rng.random(w.shape) < 0.3
    found = [_share(*(np.array([[(x).sum()], [(x**2).sum()]]) for x in (a, a * b))) for a, b in zip(w, s, strict=True)]
    values, errors = np.array(found)[:, :, 0].T
    assert values.std() == pytest.approx(errors.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"edges": [2.0, 1.0]}, "edges"), ({"oscillation": {"sin2_th12": 0.3}}, "expected the experiment, too")],
)
def test_wrong_efficiencies_are_one_sentence(change, message):
    options = {"classifier": BoxCuts(), "threshold": 0.0, "config": load_selection(), "edges": [1.0, 2.0]}
    with pytest.raises(NuebarError, match=message):
        selection_efficiency({}, **{**options, **change})


def test_a_float32_energy_is_not_rounded_to_the_limit():
    """0.7 as float32 is below 0.7: the kernels of the stream leave it out, and so must this."""
    decision = PairDecision(classifier=BoxCuts(), threshold=0.0, options=pair_options(load_selection()))
    pairs = {name: np.zeros(2, np.float32) for name in PAIR_COLUMNS}
    for part in ("prompt", "delayed"):
        pairs[f"{part}_e_rec_MeV"] = np.array([0.7, np.nextafter(np.float32(0.7), np.float32(1))], np.float32)
    assert decision.considered(pairs).tolist() == [float(np.float32(0.7)) >= 0.7, True]

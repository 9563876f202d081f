"""The jobs of ``nuebar select`` on toy pairs and toy streams: what they write is what a simple count gives."""

import importlib.util
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.events import EventFile, EventWriter, read_events
from nuebar.io.files import read_json, write_json
from nuebar.io.histograms import Histogram
from nuebar.io.models import load_model
from nuebar.jobs import select_apply, select_compare, select_explain, select_pictures
from nuebar.jobs.select_apply import SelectApplyJob, apply_report, chosen_threshold, run_apply
from nuebar.jobs.select_compare import SelectCompareJob, run_compare
from nuebar.jobs.select_data import PairFiles, pair_files, prepared, splits_of
from nuebar.jobs.select_evaluate import (
    Scored,
    cuts_of,
    cuts_point,
    held_out_sample,
    pairs_of_features,
    singles_of_features,
)
from nuebar.jobs.select_explain import SelectExplainJob, explain_report, run_explain
from nuebar.jobs.select_search import SelectSearchJob, run_search, search_report
from nuebar.jobs.select_text import compare_report
from nuebar.jobs.select_train import SelectTrainJob, run_train, train_report
from nuebar.report.plots import RED
from nuebar.select.classifier import score_in_chunks
from nuebar.select.config import load_selection
from nuebar.select.features import FEATURES, PAIR_COLUMNS, features_of
from nuebar.select.operating_point import Rates
from nuebar.select.store import load_classifier

spec = importlib.util.spec_from_file_location("toy_pairs", Path(__file__).parents[1] / "select" / "toy_pairs.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

TINY = {"hidden": [12], "inputs": "shaped", "epochs": 3, "batch": 256, "learning_rate": 1e-2, "validations": 3}
NS = 1_000_000  # of a millisecond
SINGLES = 2000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Toy pairs of both classes in the folders of runs, and a recipe."""
    place = tmp_path_factory.mktemp("select")
    toy.files(place / "run", 4000)
    write_json(place / "tiny.json", TINY)
    return place


@pytest.fixture(scope="module")
def job(files):
    run = str(files / "run")
    return SelectTrainJob(
        files=PairFiles(ibd=run, accidentals=run), recipe=str(files / "tiny.json"), singles=SINGLES, command="as typed"
    )


@pytest.fixture(scope="module")
def trained(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return folder, run_train(job, folder)


@pytest.fixture(scope="module")
def stored(trained):
    return PairFiles(prepared=str(trained[0] / "pairs"))


# ---------------------------------------------------------------- train


def test_a_model_describes_itself(trained):
    folder, result = trained
    _, about = load_model(folder)
    assert about["training"]["command"] == "as typed"
    assert about["metrics"]["validation"]["cross_entropy"] < 0.3
    points = about["metrics"]["points"]
    thresholds = [points[name]["threshold"] for name in ("f1-balanced", "cuts", "cuts-0.1", "cuts-0.01")]
    assert thresholds == sorted(thresholds)
    assert points["efficiency"]["efficiency"]["value"] >= 0.85
    assert str(folder.parent) not in json.dumps(about)
    assert "cuts-0.1" in train_report(result)


def test_the_same_command_again_changes_nothing(job, trained):
    folder, _ = trained
    before = {p.name: p.read_bytes() for p in folder.glob("weights*")}
    run_train(job, folder)
    assert {p.name: p.read_bytes() for p in folder.glob("weights*")} == before


def test_prepared_pairs_replace_files(stored, trained, tmp_path):
    _, result = trained
    again = run_train(SelectTrainJob(files=stored, recipe="ratio", singles=SINGLES, pairs=1500), tmp_path / "ratio")
    assert again.training["rows"]["ibd"]["train"] == 1500
    assert again.training["data"] == result.training["data"]
    assert load_classifier(tmp_path / "ratio").name == "ratio"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": PairFiles()}, "expected prepared pairs"),
        ({"files": PairFiles(ibd="x")}, "add --accidentals"),
        ({"files": PairFiles(pairs="x")}, "give both"),
        ({"files": PairFiles(pairs="x", label="y", ibd="z")}, "choose one way"),
        ({"recipe": "bdt"}, "recipe: expected one of .*network"),
        ({"recipe": "ratio", "epochs": 3.0}, "no epochs"),
        ({"selection": "mine"}, "no selection 'mine'"),
        ({"pairs": 0}, "above 0"),
    ],
)
def test_wrong_orders_are_one_sentence(job, tmp_path, change, message):
    with pytest.raises(NuebarError, match=message):
        run_train(replace(job, **change), tmp_path / "out")
    assert not list(tmp_path.glob("out/*.json"))


def both_classes(path, n=600, **changes):
    """A user's file with other names."""
    rng = np.random.default_rng(5)
    parts = toy.ibd(rng, n), toy.accidentals(rng, n)
    columns = {f"my_{name}": np.concatenate([p[name] for p in parts]) for name in PAIR_COLUMNS}
    columns["truth"] = np.repeat([1.0, 0.0], n)
    for name, (row, value) in changes.items():
        columns[name][row] = value
    return toy.write(path, columns)


def own_map(path, leave_out=()):
    lines = [f'{name} = "my_{name}"' for name in PAIR_COLUMNS if name not in leave_out]
    path.write_text("[columns]\n" + "\n".join(lines) + '\nlabel = "truth"\n')
    return str(path)


def test_own_pairs_with_a_column_map(job, tmp_path):
    source = both_classes(tmp_path / "own" / "pairs.parquet")
    files = PairFiles(pairs=str(source), label="label", columns=own_map(tmp_path / "map.toml"))
    found = prepared(files, load_selection(), tmp_path / "out")
    assert len(found.ibd) == len(found.accidentals) == 600
    want = toy.ibd(np.random.default_rng(5), 600)
    np.testing.assert_array_equal(found.ibd, features_of(want))


@pytest.mark.parametrize(
    ("changes", "leave_out", "message"),
    [
        ({"truth": (7, 2.0)}, (), "row 7.*expected 1 for an antineutrino or 0"),
        ({"my_delayed_x_m": (9, np.nan)}, (), "row 9"),
        ({"truth": (slice(None), 1.0)}, (), "class accidentals: expected pairs"),
        ({}, ("dt_ns",), "dt_ns"),
        ({"my_prompt_e_rec_MeV": (3, -1.0)}, (), "row 3"),
    ],
)
def test_wrong_own_pairs_leave_nothing(tmp_path, monkeypatch, changes, leave_out, message):
    monkeypatch.setattr("nuebar.io.event_writer.check", lambda *a, **k: None)  # to write what is wrong
    source = both_classes(tmp_path / "own" / "pairs.parquet", **changes)
    files = PairFiles(pairs=str(source), label="label", columns=own_map(tmp_path / "map.toml", leave_out))
    with pytest.raises(NuebarError, match=message):
        prepared(files, load_selection(), tmp_path / "out")
    assert [p.name for p in tmp_path.glob("out/*") if not p.name.startswith(".")] == []


def test_a_wrong_unit_is_refused_and_the_folder_serves_again(tmp_path):
    """Bug: energies in keV, said to be MeV, made a model of which the cuts kept nothing, without a word."""
    rng = np.random.default_rng(1)
    toy.write(tmp_path / "accidentals.parquet", toy.accidentals(rng, 2000))
    right = toy.ibd(rng, 500)
    toy.write(tmp_path / "right.parquet", right)
    wrong = dict(right)
    wrong["delayed_e_rec_MeV"] = np.minimum(1e3 * right["delayed_e_rec_MeV"], 990.0)
    toy.write(tmp_path / "wrong.parquet", wrong)
    files = PairFiles(ibd=str(tmp_path / "wrong.parquet"), accidentals=str(tmp_path / "accidentals.parquet"))
    with pytest.raises(NuebarError, match=r"class ibd: expected a median delayed energy below 20 MeV.*unit"):
        prepared(files, load_selection(), tmp_path / "out")
    found = prepared(replace(files, ibd=str(tmp_path / "right.parquet")), load_selection(), tmp_path / "out")
    np.testing.assert_array_equal(found.ibd, features_of(right))


def test_rows_that_are_no_pairs_are_told(tmp_path, files):
    """Bug: pairs with a negative time were left out in silence."""
    rng = np.random.default_rng(1)
    ibd = toy.ibd(rng, 2000)
    ibd["dt_ns"] = np.where(np.arange(2000) < 700, -ibd["dt_ns"], ibd["dt_ns"])
    toy.write(tmp_path / "ibd.parquet", ibd)
    toy.write(tmp_path / "accidentals.parquet", toy.accidentals(rng, 4000))
    pairs = PairFiles(ibd=str(tmp_path / "ibd.parquet"), accidentals=str(tmp_path / "accidentals.parquet"))
    trained = run_train(SelectTrainJob(files=pairs, recipe=str(files / "tiny.json"), singles=SINGLES), tmp_path / "out")
    assert "700 of 2,000 antineutrino rows are no pairs" in train_report(trained)


def test_accidentals_of_a_shorter_window_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    short = toy.accidentals(rng, 2000)
    short["dt_ns"] *= 0.5
    toy.write(tmp_path / "short.parquet", short)
    toy.write(tmp_path / "ibd.parquet", toy.ibd(rng, 500))
    files = PairFiles(ibd=str(tmp_path / "ibd.parquet"), accidentals=str(tmp_path / "short.parquet"))
    with pytest.raises(NuebarError, match=r"up to the window of 2 ms, got at most (1|0.99)"):
        prepared(files, load_selection(), tmp_path / "out")
    toy.write(tmp_path / "long.parquet", toy.accidentals(rng, 2000))
    right = replace(files, accidentals=str(tmp_path / "long.parquet"))
    assert len(prepared(right, load_selection(), tmp_path / "out").accidentals) == 2000


def test_another_window_is_refused(trained, stored, tmp_path):
    text = (Path(load_selection().source)).read_text().replace("window_ms = 2.0", "window_ms = 1.5")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(NuebarError, match=r"pairs\.window_ms = 2, but the selection"):
        run_compare(SelectCompareJob(files=stored, models=(), selection=str(tmp_path / "mine.toml")), tmp_path / "c")
    job = SelectApplyJob(stream="none", classifier=str(trained[0]), selection=str(tmp_path / "mine.toml"))
    with pytest.raises(NuebarError, match=r"made for pairs\.window_ms = 2"):
        run_apply(job, tmp_path / "a")


def test_folders_of_runs(files):
    assert [p.parent.name for p in pair_files(str(files / "run"), "ibd")] == ["ibd", "ibd"]
    assert pair_files(str(files / "run" / "ibd"), "ibd") == pair_files(str(files / "run"), "ibd")


# ---------------------------------------------------------------- search


def test_search_finds_a_recipe(stored, files, tmp_path):
    pytest.importorskip("optuna")
    job = SelectSearchJob(files=stored, recipe=str(files / "tiny.json"), trials=2, trial_pairs=8192, pruner="none")
    result = run_search(job, tmp_path)
    assert len(result.trials) == 2
    assert "cosine" in search_report(result) or "constant" in search_report(result)
    assert read_json(tmp_path / "best.json")["hidden"] == TINY["hidden"]


# ---------------------------------------------------------------- compare


def test_features_give_the_events_back():
    """The inverse of what features are made by."""
    pairs = toy.accidentals(np.random.default_rng(3), 500)
    events = singles_of_features(features_of(pairs))
    for name, values in events.items():
        want = np.concatenate([pairs[f"prompt_{name}"], pairs[f"delayed_{name}"]])
        np.testing.assert_allclose(values, want, atol=2e-5)


def test_features_give_the_pairs_back():
    pairs = toy.ibd(np.random.default_rng(4), 500)
    back = pairs_of_features(features_of(pairs))
    assert set(back) == set(PAIR_COLUMNS)
    for name in PAIR_COLUMNS:
        np.testing.assert_allclose(back[name], pairs[name], atol=1e-3 if name.endswith("_m") else 0, rtol=2e-7)
    near = np.hypot(pairs["prompt_x_m"], pairs["prompt_y_m"]) > 1
    np.testing.assert_allclose(back["prompt_x_m"][near], pairs["prompt_x_m"][near], atol=1e-4)


@pytest.fixture(scope="module")
def compared_and_drawn(trained, stored, tmp_path_factory):
    """A comparison, and its figures by name, which are not written."""
    folder = tmp_path_factory.mktemp("compare")
    job = SelectCompareJob(files=stored, models=(str(trained[0]),), singles=SINGLES)
    figures = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select_pictures, "_saved", lambda found, place: figures.update(found))
        record = run_compare(job, folder, pictures=True)
    return (folder, job, record), figures


@pytest.fixture(scope="module")
def compared(compared_and_drawn):
    return compared_and_drawn[0]


def test_compare_counts_the_cuts(compared, stored):
    """Both samplings of the background, and the efficiency by hand."""
    _, _, record = compared
    config = load_selection()
    matrices = prepared(stored, config, "unused")
    splits = splits_of(matrices)
    rows = np.array(matrices.ibd[splits["ibd"].rows("test")])
    told = record["scenarios"][0]["cuts"]
    kept = cuts_of(config).passes(rows)
    assert told["efficiency"]["value"] == pytest.approx(kept.mean(), abs=1e-12)
    inside = rows[:, 0] < 17.2**3
    assert told["efficiency_inside"]["value"] == pytest.approx(kept[inside].mean(), abs=1e-12)
    assert told["efficiency_outside"]["value"] == 0
    assert told["background_outside"] == 0
    far = np.array(matrices.accidentals[splits["accidentals"].rows("test")])
    assert told["by_pairs"]["value"] == cuts_of(config).passes(far).mean()
    combined = record["cut_flow"]["ibd"]["tables"]["prompt"]["grouped"][-1]
    assert combined["cumulative"]["value"] == pytest.approx(kept.mean(), abs=1e-12)


def test_samplings_of_the_background_agree(stored):
    """Where both have many pairs: the recombined share is that of the pairs, within their errors."""
    config = load_selection()
    matrices = prepared(stored, config, "unused")
    sample = held_out_sample(matrices, splits_of(matrices), config, singles=SINGLES)
    loose = replace(cuts_of(config), dr_m=10.0, dt_ms=None, delayed_MeV=None)
    found = Scored.of(loose, sample, (2.0,)).distributions(2.0)
    plain, drawn = (found.checks(0.0)[f"by_{name}"] for name in ("pairs", "recombined"))
    error = np.hypot(*(0.5 * (s["high"] - s["low"]) for s in (plain, drawn)))
    assert plain["effective"] > 20
    assert abs(plain["value"] - drawn["value"]) < 4 * error
    assert cuts_point(found, Rates.of(config))[1] in ("pairs", "recombined")


def test_compare_covers_what_was_asked(compared):
    folder, _, record = compared
    seen = {(s["window_ms"], s["singles_factor"]) for s in record["scenarios"]}
    assert seen == {(w, f) for w in (2.0, 1.0) for f in (0.5, 1.0, 2.0)}
    one = record["scenarios"][1]
    assert set(one["levels"]) == {"network", "ratio", "linear cut", "linear cut, whole volume"}
    for levels in one["levels"].values():
        found = [x["efficiency"]["value"] for x in levels if "missing" not in x]
        assert found == sorted(found, reverse=True)
    rates = [s["rates_per_day"]["accidental"] for s in record["scenarios"][:3]]
    assert rates[1] / rates[0] == pytest.approx(4)
    assert rates[2] / rates[1] == pytest.approx(4)
    assert record["scenarios"][3]["ceiling"] <= record["scenarios"][0]["ceiling"] <= 1
    assert read_json(folder / "compare.json")["scenarios"] == json.loads(json.dumps(record["scenarios"]))
    text = (folder / "compare.txt").read_text()
    assert text.strip() == compare_report(record)
    assert "fiducial volume on both" in text
    assert "99.2" in text
    assert "> 5 m [%]" in text
    assert "energy scale -1 %, background [%]" in text
    assert "singles x 2, purity [%]" in text


def test_changes_are_those_of_shifted_pairs(compared, stored):
    """At the thresholds of the cuts' background, for the cuts by hand: both energies of every pair times 1.01."""
    _, _, record = compared
    config = load_selection()
    matrices = prepared(stored, config, "unused")
    sample = held_out_sample(matrices, splits_of(matrices), config, singles=SINGLES)
    efficiency, background = (record["changes"][what] for what in ("efficiency", "background"))
    assert set(efficiency) == set(background) == {"cuts", "network", "ratio"}
    for label, rows in efficiency.items():
        names = [row["shift"]["name"] for row in rows]
        assert names[0] == "energy scale +1 %"
        assert names == [row["shift"]["name"] for row in background[label]]
        point = record["scenarios"][1]
        point = point["cuts"] if label == "cuts" else point["points"][label]["cuts"]
        # Recovered positions are as good as float32: a pair at the edge may go to the other side.
        assert rows[0]["before"]["value"] == pytest.approx(point["efficiency"]["value"], abs=2 / len(sample.signal))
        before = background[label][0]["before"]["value"]
        assert before <= point["by_recombined"]["value"] * (1 + 1e-6)
    cuts, n = cuts_of(config), len(sample.signal)
    for key, pairs, w in (
        ("efficiency", pairs_of_features(sample.signal), np.full(n, 1 / n)),
        ("background", sample.recombined.pairs, sample.recombined.weights),
    ):
        old = cuts.passes(features_of(pairs))
        for row, scale in ((0, 1.01), (1, 0.99)):
            energies = {name: scale * pairs[name] for name in ("prompt_e_rec_MeV", "delayed_e_rec_MeV")}
            new = cuts.passes(features_of({**pairs, **energies}))  # the cuts are tighter than the threshold
            found = record["changes"][key]["cuts"][row]
            assert found["difference"] == pytest.approx(w @ (1.0 * new - old), rel=1e-9, abs=1e-15)
            assert len(found["bins"]["energy"]["edges"]) == len(found["bins"]["energy"]["error"]) + 1
    t = pairs_of_features(sample.signal)["dt_ns"] * 1e-3
    late = np.exp(t / 220 - t / 222.2)
    kept = cuts.passes(features_of(pairs_of_features(sample.signal)))
    slow = efficiency["cuts"][4]
    assert slow["shift"]["capture_time"] == 0.01
    assert slow["difference"] == pytest.approx(late[kept].sum() / late.sum() - kept.mean(), rel=1e-9)
    assert background["cuts"][4]["difference"] == 0


def test_rates_change_at_the_same_thresholds(compared):
    record = compared[2]
    assert set(record["rate_changes"]) == {"cuts", "network", "ratio"}
    for label, rows in record["rate_changes"].items():
        assert [row["singles"] for row in rows] == [0.5, 1.0, 2.0]
        told = [row["same_threshold"] for row in rows]
        assert len({t["threshold"] for t in told}) == 1
        assert told[0]["threshold"] == 0 or label != "cuts"
        assert told[0]["efficiency"] == told[2]["efficiency"]
        assert told[0]["purity"]["value"] >= told[1]["purity"]["value"] >= told[2]["purity"]["value"]
        assert rows[2]["accidentals_per_day"] == pytest.approx(16 * rows[0]["accidentals_per_day"])
    one = record["rate_changes"]["cuts"][1]["same_threshold"]
    assert one["efficiency"] == record["scenarios"][1]["cuts"]["efficiency"]


def test_cuts_are_told_for_both_volumes(compared, stored):
    _, _, record = compared
    config = load_selection()
    matrices = prepared(stored, config, "unused")
    rows = np.array(matrices.ibd[splits_of(matrices)["ibd"].rows("test")])
    kept = cuts_of(config).passes(rows)
    told = record["cuts_by_volume"]
    assert list(told) == ["prompt", "both"]
    assert told["prompt"]["efficiency"] == record["scenarios"][1]["cuts"]["efficiency"]
    assert told["both"]["efficiency"]["value"] == pytest.approx((kept & (rows[:, 1] < 17.2**3)).mean(), abs=1e-12)
    assert told["both"]["efficiency"]["value"] < told["prompt"]["efficiency"]["value"]


class ByEnergy:
    """The prompt energy as a score."""

    name = "energy"

    def score(self, features):
        return features[:, FEATURES.index("e_prompt_MeV")].astype(float)


def test_accepted_pairs_that_apply_does_not_score_are_a_number(compared, stored):
    record = compared[2]
    for scenario in record["scenarios"]:
        found = [p for points in scenario["points"].values() for p in points.values()]
        found += [x for levels in scenario["levels"].values() for x in levels] + [scenario["cuts"]]
        assert all("missing" in x or x["beyond_5_m"] is None or x["beyond_5_m"]["value"] < 0.01 for x in found)
    config = load_selection()
    matrices = prepared(stored, config, "unused")
    sample = held_out_sample(matrices, splits_of(matrices), config, singles=SINGLES)
    signal = sample.signal.copy()
    signal[::3, FEATURES.index("dr_m")] = 5.1
    signal[1::3, FEATURES.index("dr_m")] = 4.9
    moved = Scored.of(ByEnergy(), replace(sample, signal=signal), (2.0, 1.0))
    for window in (2.0, 1.0):
        accepted = (signal[:, 4] >= 3.0) & (signal[:, 3] <= 1e3 * window)
        told = moved.distributions(window).beyond(3.0)["beyond_5_m"]
        assert told["value"] == pytest.approx((accepted & (signal[:, 2] > 5)).sum() / accepted.sum())
        assert told["low"] < told["value"] < told["high"]
        assert 0.2 < told["value"] < 0.5
    assert moved.distributions(2.0).beyond(np.inf) == {"beyond_5_m": None}


def legend(figure):
    return [t.get_text() for of in figure.legends for t in of.get_texts()]


def test_pictures_have_both_stars_and_the_changes(compared_and_drawn):
    figures = compared_and_drawn[1]
    stars = {"cuts, fiducial volume on the prompt vertex", "cuts, fiducial volume on both vertices"}
    assert stars <= set(legend(figures["background"]))
    assert legend(figures["changes"]) == ["cuts", "network", "ratio"]


def test_what_was_fitted_is_not_fitted_again(compared, monkeypatch):
    folder, job, record = compared

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(select_compare, "fit_ratio", never)
    again = run_compare(job, folder)
    assert again["scenarios"] == record["scenarios"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows_ms": (3.0,)}, "at most the 2 of the selection, got 3"),
        ({"factors": (0.0,)}, "above 0"),
        ({"efficiency": 1.5}, "efficiency: expected a share"),
        ({"singles": 1}, "at least 2"),
        ({"models": ("nowhere",)}, "classifier 'nowhere'"),
    ],
)
def test_wrong_comparisons(compared, tmp_path, change, message):
    with pytest.raises(NuebarError, match=message):
        run_compare(replace(compared[1], **change), tmp_path)
    assert not (tmp_path / "compare.json").exists()


# ---------------------------------------------------------------- apply


def toy_stream(seed=2, seconds=1500.0, rate=60.0, pair_rate=0.3):
    """Singles everywhere and pairs that belong together, in order of time."""
    rng = np.random.default_rng(seed)
    n, m = rng.poisson(rate * seconds), rng.poisson(pair_rate * seconds)
    single, pair = toy.accidentals(rng, n), toy.ibd(rng, m)
    begin = rng.random(m) * seconds * 1e9
    t = np.concatenate([rng.random(n) * seconds * 1e9, begin, begin + pair["dt_ns"]]).astype(np.int64)
    order = np.argsort(t, kind="stable")
    columns = {"t_ns": t[order]}
    for name in ("e_rec_MeV", "x_m", "y_m", "z_m"):
        parts = single[f"prompt_{name}"], pair[f"prompt_{name}"], pair[f"delayed_{name}"]
        columns[name] = np.concatenate(parts)[order]
    number = np.arange(1, m + 1)
    columns["true_pair"] = np.concatenate([np.zeros(n, np.int64), number, number])[order]
    columns["true_kind"] = np.concatenate([np.full(n, 64), np.full(m, 1), np.full(m, 2)])[order]
    return columns


def write_stream(folder, columns, parts=1):
    folder.mkdir()
    edges = np.linspace(0, columns["t_ns"].size, parts + 1).astype(int)
    about = {"kinds": {"ibd prompt": 1, "ibd delayed": 2, "rock": 64}}
    for k in range(parts):
        with EventWriter(folder / f"chunk-{k:05d}.parquet", tuple(columns), metadata=about) as writer:
            writer.append({name: v[edges[k] : edges[k + 1]] for name, v in columns.items()})
    return str(folder)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    columns = toy_stream()
    place = tmp_path_factory.mktemp("stream")
    return columns, write_stream(place / "one", columns), write_stream(place / "three", columns, 3)


def by_hand(columns, max_dr_m):
    """All pairs of the window by a simple loop over the next events."""
    rows = []
    for step in range(1, 12):
        dt = columns["t_ns"][step:] - columns["t_ns"][:-step]
        rows += [(i, i + step) for i in np.flatnonzero(dt < 2 * NS)]
    i, j = np.array(sorted(rows)).T
    pairs = {"dt_ns": columns["t_ns"][j] - columns["t_ns"][i]}
    for part, k in (("prompt", i), ("delayed", j)):
        pairs |= {f"{part}_{name}": columns[name][k] for name in ("e_rec_MeV", "x_m", "y_m", "z_m")}
    features = features_of(pairs)
    near = features[:, 2] <= max_dr_m
    good = near & (features[:, 4] >= 0.7) & (features[:, 5] >= 0.7)
    return i[good], j[good], features[good]


def test_candidates_are_those_of_a_simple_loop(trained, stream, tmp_path):
    columns, one, _ = stream
    summary = run_apply(SelectApplyJob(stream=one, classifier=str(trained[0]), threshold=2.0), tmp_path)
    i, j, features = by_hand(columns, 5.0)
    scores = score_in_chunks(load_classifier(trained[0]), features)
    kept = scores >= 2.0
    found = EventFile(tmp_path / "candidates.parquet", ("prompt_t_ns", "score", "true_pair")).read()
    np.testing.assert_array_equal(found["prompt_t_ns"], columns["t_ns"][i[kept]])
    np.testing.assert_allclose(found["score"], scores[kept], rtol=1e-12)
    together = (columns["true_pair"][i] == columns["true_pair"][j]) & (columns["true_pair"][i] > 0)
    assert summary["truth"]["ibd"] == np.count_nonzero(together & kept) > 100
    assert summary["truth"]["accidental"] == np.count_nonzero(~together & kept)
    assert summary["candidates"] == kept.sum() == found["score"].size
    assert summary["days"] == pytest.approx((columns["t_ns"][-1] - columns["t_ns"][0]) * 1e-9 / 86400)
    prompt = Histogram.load(tmp_path / "prompt.json")
    want = np.histogram(features[kept, 4], prompt.edges)[0]
    np.testing.assert_array_equal(prompt.counts, want)
    assert apply_report(summary).count("\n") >= 5


def test_the_measured_background_is_the_true_one(trained, stream, tmp_path):
    """At a loose threshold: many accidentals, and histograms that add up to the totals."""
    _, one, _ = stream
    job = SelectApplyJob(stream=one, classifier=str(trained[0]), threshold=-4.0, low_MeV=0.0, high_MeV=50.0)
    summary = run_apply(job, tmp_path)
    assert summary["truth"]["accidental"] > 30
    assert abs(summary["truth"]["accidental_pull"]) < 4
    assert summary["excess"]["value"] == pytest.approx(
        summary["candidates"] - summary["accidentals"]["value"], rel=1e-12
    )
    off = Histogram.load(tmp_path / "accidentals.json")
    assert off.counts.sum() == pytest.approx(summary["accidentals"]["value"], rel=1e-12)
    excess = Histogram.load(tmp_path / "excess.json", allow_negative=True)
    on = Histogram.load(tmp_path / "prompt.json")
    np.testing.assert_allclose(excess.counts, on.counts - off.counts, atol=1e-9)


def test_files_of_the_stream_do_not_matter(trained, stream, tmp_path, monkeypatch):
    _, one, three = stream
    job = SelectApplyJob(stream=one, classifier=str(trained[0]), at="cuts")
    first = run_apply(job, tmp_path / "one")
    monkeypatch.setattr(select_apply, "_READ_AHEAD", 1)
    second = run_apply(replace(job, stream=three), tmp_path / "three")
    assert (tmp_path / "one" / "candidates.parquet").read_bytes() == (
        tmp_path / "three" / "candidates.parquet"
    ).read_bytes()
    for name in ("accidentals", "excess", "candidates", "truth", "per_live_day"):
        assert first[name] == second[name]


def test_cuts_need_no_model(stream, tmp_path):
    columns, one, _ = stream
    summary = run_apply(SelectApplyJob(stream=one, classifier="cuts"), tmp_path)
    _, _, features = by_hand(columns, 5.0)
    assert summary["candidates"] == np.count_nonzero(cuts_of(load_selection()).passes(features))
    assert "score" not in EventFile(tmp_path / "candidates.parquet", PAIR_COLUMNS, optional=["score"]).names


def test_a_stream_without_truth_or_pairs(trained, tmp_path):
    t = np.arange(1, 50, dtype=np.int64) * 10**9
    columns = {"t_ns": t, "e_rec_MeV": np.full(t.size, 2.0)} | {f"{a}_m": np.zeros(t.size) for a in "xyz"}
    one = write_stream(tmp_path / "few", columns)
    summary = run_apply(SelectApplyJob(stream=one, classifier=str(trained[0])), tmp_path / "out")
    assert summary["candidates"] == 0
    assert summary["purity"] is None
    assert "truth" not in summary
    assert read_events(tmp_path / "out" / "candidates.parquet", ["score"])["score"].size == 0
    assert "candidates" in apply_report(summary)


def test_a_stream_without_rows_is_refused(trained, tmp_path):
    columns = {"t_ns": np.empty(0, np.int64)} | {n: np.empty(0) for n in ("e_rec_MeV", "x_m", "y_m", "z_m")}
    empty = write_stream(tmp_path / "empty", columns)
    with pytest.raises(NuebarError, match="expected a stream of events, got no rows"):
        run_apply(SelectApplyJob(stream=empty, classifier=str(trained[0])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unsorted_stream_leaves_nothing(trained, stream, tmp_path, monkeypatch):
    columns = {name: v.copy() for name, v in stream[0].items()}
    columns["t_ns"][5000] = 5
    monkeypatch.setattr("nuebar.io.event_writer.check", lambda *a, **k: None)
    bad = write_stream(tmp_path / "bad", columns)
    with pytest.raises(NuebarError, match="row 5000"):
        run_apply(SelectApplyJob(stream=bad, classifier=str(trained[0])), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".lock")] == []
    assert not [t for t in threading.enumerate() if t.name == "stream"]


def test_reading_ahead_stops_with_its_user():
    def endless():
        while True:
            yield {"t_ns": np.zeros(1)}

    batches = select_apply._ahead(endless())
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "stream"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "best"}, "operating point 'best'.*expected one of cuts"),
        ({"threshold": float("nan")}, "threshold: expected a finite number"),
        ({"bins": 0}, "--bins"),
        ({"windows": 0}, "windows"),
        ({"offset_ms": 0.5}, "offset_ms"),
        ({"classifier": "cuts", "threshold": 1.0}, "no threshold"),
        ({"classifier": "cuts", "at": "f1"}, "operating point 'f1': the cuts have none"),
    ],
)
def test_wrong_selections(trained, stream, tmp_path, change, message):
    job = SelectApplyJob(stream=stream[1], classifier=str(trained[0]))
    with pytest.raises(NuebarError, match=message):
        run_apply(replace(job, **change), tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_the_operating_point_is_that_of_the_model(trained):
    config = load_selection()
    _, threshold, how = chosen_threshold(SelectApplyJob(stream="", classifier=str(trained[0]), at="f1"), config)
    assert how == "f1"
    assert threshold == trained[1].metrics["points"]["f1"]["threshold"]


# ---------------------------------------------------------------- explain


def line_in_the_plane(found, monkeypatch):
    """What is drawn of a ΔR + b Δt = 1: (a, b)."""
    kept = {}
    monkeypatch.setattr(select_pictures, "_saved", lambda figures, place: kept.update(figures))
    select_pictures.draw_explained(found, ".")
    assert "box cuts" in legend(kept["boundary"])
    lines = [x for x in kept["boundary"].axes[0].lines if x.get_color() == RED and len(x.get_xdata())]
    assert bool(lines) == ("fitted line" in legend(kept["boundary"]))
    if not lines:
        return None
    x, y = (np.asarray(v, float) for v in lines[0].get_data())
    return (1 / x[0], 0.0) if x[0] == x[-1] else tuple(np.linalg.solve([[x[0], y[0]], [x[-1], y[-1]]], [1, 1]))


def test_a_plane_without_a_line_says_why(monkeypatch):
    def never(*_, **__):
        raise NuebarError("too few pairs")

    monkeypatch.setattr(select_explain, "box_line", never)
    assert select_explain._line(None, {}, load_selection(), 1) == {"missing": "too few pairs"}


def test_explanations_of_pairs_and_of_candidates(trained, stored, stream, tmp_path, monkeypatch):
    sample = tmp_path / "candidates.parquet"
    pairs = toy.ibd(np.random.default_rng(8), 20)
    toy.write(sample, pairs)
    job = SelectExplainJob(
        files=stored, classifier=str(trained[0]), events=40, background=20, sample=str(sample), named=(11, 3)
    )
    found = run_explain(job, tmp_path / "out")
    told = read_json(tmp_path / "out" / "explain.json")
    assert told["additivity"]["largest_relative_difference"] < 1e-6
    assert set(told["local"]) == {"typical true positive", "typical true negative", "event 11", "event 3"}
    want = features_of(pairs)[11]
    np.testing.assert_array_equal(found.local["event 11"].features, want)
    assert "dr_m" in explain_report(found)
    line = told["line"]
    assert 0 < line["background"] <= line["wanted_background"]
    assert line["background"] > 0.5 * line["wanted_background"]
    assert line["a_per_m"] > 0.1
    assert line["efficiency"] > 0.5
    assert line_in_the_plane(found, monkeypatch) == pytest.approx((line["a_per_m"], line["b_per_us"]))
    assert line_in_the_plane(replace(found, line={"missing": "too few pairs"}), monkeypatch) is None
    with pytest.raises(NuebarError, match="expected rows from 0 to 19"):
        run_explain(replace(job, named=(20,)), tmp_path / "none")
    with pytest.raises(NuebarError, match="expected numbers from 0 to 39"):
        run_explain(replace(job, named=(40,), sample=None), tmp_path / "none")

"""Calibration data sets: the published plan, charges and histograms, and the run that writes them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.calibration import read_calibration
from nuebar.jobs.calibration import CalibrationJob, run_calibration
from nuebar.run import UnfinishedError
from nuebar.simulate import calibration as module
from nuebar.simulate.calibration import CalibrationSet, charges, histogram, load_plan, portions
from nuebar.simulate.deposits import CODES
from nuebar.simulate.light import Electronics
from nuebar.simulate.quench import Response

PLAN = load_plan()
GRID = {"kB_g_cm2_GeV": (6.0, 24.0, 3.0), "fC": (0.0, 1.0, 2.0), "light_yield_per_MeV": (8000.0, 12_000.0, 5.0)}


# ---------------------------------------------------------------- the published plan


@pytest.mark.parametrize(
    ("name", "points", "events", "data_sets"),
    [  # arXiv:2507.23297 and the authors' scripts
        ("training", 21**3, (10_000,), 9261),
        ("validation-1", 10**3, (10_000,), 1000),
        ("validation-2", 3, (10_000_000,), 3),
        ("testing-1", 10**3, (10_000,), 1000),
        ("testing-2", 1, (1000, 2000, 5000, 10_000, 25_000), 5000),
    ],
)
def test_published_sets(name, points, events, data_sets):
    one = PLAN.sets[name]
    assert one.parameters().shape == (points, 3)
    assert one.events == events
    assert len({p.data_set for chunk in portions(one) for p in chunk}) == data_sets
    assert one.role == name.split("-")[0]


def test_published_grids():
    p = PLAN.sets["training"].parameters()
    for column, (low, high, step) in enumerate(((6.0, 24.0, 0.9), (0.0, 1.0, 0.05), (8000.0, 12_000.0, 200.0))):
        values = np.unique(p[:, column].round(9))
        np.testing.assert_allclose(values, low + step * np.arange(21), rtol=1e-12, atol=1e-12)
        assert values[-1] == pytest.approx(high)
    # The light yield runs fastest, kB slowest.
    np.testing.assert_allclose(p[:2], [[6.0, 0.0, 8000.0], [6.0, 0.0, 8200.0]])
    for name, start in (("validation-1", (7.35, 0.075, 8300.0)), ("testing-1", (6.45, 0.025, 8100.0))):
        p = PLAN.sets[name].parameters()
        np.testing.assert_allclose(p[0], start)
        np.testing.assert_allclose(p[-1], np.add(start, np.multiply(9, (1.8, 0.1, 400.0))))
    assert PLAN.sets["testing-2"].points == ((15.45, 0.525, 10_100.0),)
    assert PLAN.sets["validation-2"].points[0] == (7.35, 0.075, 8300.0)


def test_published_observable():
    assert PLAN.sources == ("Cs137", "K40", "Co60", "AmBe", "AmC")
    edges = PLAN.edges()
    assert edges.size == 801
    np.testing.assert_allclose(np.diff(edges), 0.02, rtol=1e-9)
    assert (edges[0], edges[-1], PLAN.pe_to_observable) == (0.4, 16.4, 1.07e-3)


def test_published_points_lie_inside_the_training_box():
    box = PLAN.sets["training"].parameters()
    for one in PLAN.sets.values():
        p = one.parameters()
        assert np.all(p.min(axis=0) >= box.min(axis=0))
        assert np.all(p.max(axis=0) <= box.max(axis=0))


# ---------------------------------------------------------------- portions


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 1_700_000), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([1, 1000, 499_999, 500_000, 1_000_000, 5_000_000]),
)
def test_portions_cover_every_event_once(events, repeats, points, events_per_chunk):
    one = CalibrationSet("testing", tuple(events), points=((10.0, 0.5, 9000.0),) * points, repeats=repeats)
    chunks = portions(one, events_per_chunk)
    assert all(chunks)
    flat = [p for chunk in chunks for p in chunk]
    assert [p.data_set for p in flat] == sorted(p.data_set for p in flat)
    by_set = {}
    for p in flat:
        assert 1 <= p.count <= module.LARGEST_PORTION
        row = by_set.setdefault(p.data_set, {"next": 0, "events": p.events, "point": p.point})
        assert (p.first, p.events, p.point) == (row["next"], row["events"], row["point"])
        row["next"] += p.count
    assert all(row["next"] == row["events"] for row in by_set.values())
    wanted = [(k, n) for k in range(points) for n in events for _ in range(repeats)]
    assert [(by_set[i]["point"], by_set[i]["events"]) for i in range(len(by_set))] == wanted
    for chunk in chunks:
        assert len(chunk) == 1 or sum(p.count for p in chunk) <= events_per_chunk


def test_chunks_are_filled():
    sizes = [sum(p.count for p in chunk) for chunk in portions(PLAN.sets["training"])]
    assert set(sizes[:-1]) == {1_000_000}
    assert sum(sizes) == 9261 * 10_000


# ---------------------------------------------------------------- plans of users


def plan_file(folder, head="", body="", tail=""):
    """A plan: lines of the head replace those of the same key."""
    lines = {
        "format": "format = 1",
        "sources": 'sources = ["Cs137"]',
        "pe_to_observable": "pe_to_observable = 1e-3",
        "bins": "bins = [0.4, 16.4, 800]",
    }
    lines |= {line.split(" = ")[0]: line for line in head.splitlines()}
    body = body or "points = [[10.0, 0.5, 9000.0]]\nevents = [10]"
    path = folder / "plan.toml"
    path.write_text("\n".join(lines.values()) + f"\n[sets.x]\nrole = 'testing'\n{body}\n{tail}", encoding="utf-8")
    return path


def grids(kB="[6, 24, 3]", fC="[0, 1, 3]", light_yield="[8000, 12000, 3]"):
    return f"kB_g_cm2_GeV = {kB}\nfC = {fC}\nlight_yield_per_MeV = {light_yield}\nevents = [10]"


@pytest.mark.parametrize(
    ("head", "body", "sentence"),
    [
        ("format = 2", "", r"key 'format': expected 1, got 2; update nuebar"),
        ("bins = [0.4, 16.4]", "", r"key 'bins': expected \[low, high, number\]"),
        ("bins = [16.4, 0.4, 800]", "", r"key 'bins'"),
        ("bins = [0.4, 16.4, 0]", "", r"key 'bins'"),
        ("bins = [0.4, 16.4, 10.5]", "", r"key 'bins'"),
        ("bins = [-1, 16.4, 10]", "", r"key 'bins'"),
        ("pe_to_observable = 0", "", r"key 'pe_to_observable': expected a number above 0, got 0"),
        ("sources = []", "", r"key 'sources': expected one or more names, each once"),
        ('sources = ["Cs137", "Cs137"]', "", r"key 'sources': expected one or more names, each once"),
        ("", "points = [[10.0, 0.5, 9000.0]]\nevents = []", r"key 'sets\.x\.events': expected whole numbers above 0"),
        ("", "points = [[10.0, 0.5, 9000.0]]\nevents = [10, 0]", r"key 'sets\.x\.events'"),
        ("", "points = [[10.0, 0.5, 9000.0]]\nevents = [1.5]", r"key 'sets\.x\.events\[0\]': expected a whole number"),
        ("", "points = [[10.0, 0.5, 9000.0]]\nevents = [1]\nrepeats = 0", r"key 'sets\.x\.repeats'"),
        (
            "",
            "points = [[10.0, 0.5]]\nevents = [1]",
            r"key 'sets\.x\.points': expected triples \[kB, fC",
        ),
        (
            "",
            "points = [[10.0, -0.5, 9000.0]]\nevents = [1]",
            r"key 'sets\.x\.points': fC: expected a number",
        ),
        ("", "points = [[10.0, 0.5, 9000.0]]\n" + grids(), r"key 'sets\.x': expected either 'points' or three grids"),
        (
            "",
            "events = [1]",
            r"key 'sets\.x\.kB_g_cm2_GeV': expected a grid \[first, last, points\], got \(\)",
        ),
        ("", grids(kB="[6, 24]"), r"key 'sets\.x\.kB_g_cm2_GeV': expected a grid"),
        ("", grids(fC="[1, 0, 3]"), r"key 'sets\.x\.fC': expected a grid"),
        ("", grids(fC="[0, 1, 2.5]"), r"key 'sets\.x\.fC': expected a grid"),
        ("", grids(fC="[0, 1, 0]"), r"key 'sets\.x\.fC': expected a grid"),
        ("", grids(fC="[0, 1, 1]"), r"key 'sets\.x\.fC': expected a grid of one point whose first and last agree"),
        ("", grids(light_yield="[8, 12000000, 3]"), r"key 'sets\.x': light_yield_per_MeV: expected a number from 1 to"),
        ("", "point = [1]\nevents = [1]", r"unknown key 'sets\.x\.point'; did you mean 'points'"),
    ],
)
def test_plans_are_checked(tmp_path, head, body, sentence):
    with pytest.raises(NuebarError, match=rf"plan\.toml: .*{sentence}"):
        load_plan(plan_file(tmp_path, head, body))


def test_a_plan_of_a_user_is_read_again_when_it_changes(tmp_path):
    assert load_plan(plan_file(tmp_path)).sets["x"].events == (10,)
    assert load_plan(plan_file(tmp_path, body=grids(fC="[0.5, 0.5, 1]"))).sets["x"].parameters().shape == (9, 3)


# ---------------------------------------------------------------- charges and histograms


def toy(cascades=40):
    """A pool whose cascade k has k deposits of the same code."""
    counts = np.arange(cascades)
    return np.full(counts.sum(), 7, np.uint16), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


LIGHT = np.zeros(CODES)
LIGHT[7] = 1000.0
SHARP = Electronics(1.0, 0.0, 0.0, 0.0)


def test_charges_come_from_consecutive_cascades():
    codes, offsets = toy()
    q = charges(codes, offsets, LIGHT, SHARP, 100, seed=1, words=("Cs137", 0))
    assert q.dtype == np.float32
    cascade = np.rint(q / 1000.0).astype(int)  # 5 standard deviations apart up to the 40th
    steps = np.diff(cascade) % 40
    assert np.mean(steps == 1) > 0.9
    assert set(cascade) <= set(range(-1, 41))
    # Without deposits there is no charge: the first cascade is met once in every round, as all are.
    assert np.sum(q == 0) in (2, 3)


def test_data_sets_differ_and_repeat():
    codes, offsets = toy()
    options = {"seed": 1, "words": ("Cs137", 0)}
    q = charges(codes, offsets, LIGHT, SHARP, 50, **options)
    np.testing.assert_array_equal(q, charges(codes, offsets, LIGHT, SHARP, 50, **options))
    # Fewer events are the beginning of more.
    np.testing.assert_array_equal(q[:20], charges(codes, offsets, LIGHT, SHARP, 20, **options))
    for change in ({"seed": 2}, {"words": ("Cs137", 1)}, {"words": ("K40", 0)}):
        assert not np.array_equal(q, charges(codes, offsets, LIGHT, SHARP, 50, **(options | change)))


def test_blocks_begin_anywhere():
    codes, offsets = toy()
    first = [charges(codes, offsets, LIGHT, SHARP, 1, seed=s, words=("x",))[0] for s in range(400)]
    counts = np.bincount(np.clip(np.rint(np.array(first) / 1000), 0, 39).astype(int), minlength=40)
    assert counts.min() > 0
    assert np.sum((counts - 10) ** 2 / 10) < 39 + 4 * np.sqrt(2 * 39)


@pytest.mark.parametrize("bins", [(0.4, 16.4, 800.0), (0.0, 3.0, 7.0), (1.0, 2.0, 1.0)])
def test_histogram_is_that_of_numpy(bins):
    rng = np.random.default_rng(1)
    q = rng.uniform(-500, 20_000, 50_000).astype(np.float32)
    got = histogram(q, 1.07e-3, bins)
    observable = q.astype(float) * 1.07e-3
    edges = np.linspace(bins[0], bins[1], int(bins[2]) + 1)
    np.testing.assert_array_equal(got[1:-1], np.histogram(observable, edges)[0])
    assert got[0] == np.sum(observable < bins[0])
    assert got[-1] == np.sum(observable >= bins[1])
    assert got.sum() == q.size
    assert got.dtype == np.int64


def test_histogram_of_nothing():
    assert not histogram(np.zeros(0, np.float32), 1.0, (0.0, 1.0, 4.0)).any()


# ---------------------------------------------------------------- the run


@pytest.fixture(scope="module")
def job(juno, tmp_path_factory):
    """Two sources, two points, data sets of two sizes: four small chunks of two pools."""
    folder = tmp_path_factory.mktemp("plan")
    body = "points = [[12.05, 0.517, 9846.0], [10.0, 0.2, 11000.0]]\nevents = [300, 500]\nrepeats = 2"
    plan = plan_file(folder, 'sources = ["Cs137", "AmBe"]\nbins = [0.4, 8.4, 100]', body)
    return CalibrationJob(experiment=juno, set_name="x", plan=str(plan), cascades=2000, seed=5)


@pytest.fixture(scope="module")
def done(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, run_calibration(job, folder)


def test_a_run_writes_what_was_asked_for(job, done):
    folder, result = done
    assert [p.relative_to(folder).as_posix() for p in result.paths] == ["x/chunk-00000.safetensors"]
    assert (folder / "pools-testing").is_dir()
    assert result.summaries == ({"data_sets": 8, "events": 2 * 2 * 2 * 800},)
    arrays, about = read_calibration(result.paths[0])
    assert about["sources"] == ["Cs137", "AmBe"]
    np.testing.assert_array_equal(arrays["events"], [300, 300, 500, 500] * 2)
    np.testing.assert_array_equal(arrays["data_set"], np.arange(8))
    np.testing.assert_array_equal(np.diff(arrays["offsets"]), arrays["events"])
    np.testing.assert_array_equal(arrays["parameters"][[0, 4]], [[12.05, 0.517, 9846.0], [10.0, 0.2, 11_000.0]])
    assert arrays["n_pe"].shape == (2, 3200)
    assert arrays["counts"].shape == (8, 2, 102)


def test_histograms_are_those_of_the_samples(done):
    arrays, about = read_calibration(done[1].paths[0])
    low, high, n = about["bins"]
    edges = np.concatenate([[-np.inf], np.linspace(low, high, int(n) + 1), [np.inf]])
    for row, (a, b) in enumerate(zip(arrays["offsets"], arrays["offsets"][1:], strict=False)):
        for s in range(2):
            observable = arrays["n_pe"][s, a:b].astype(float) * about["pe_to_observable"]
            np.testing.assert_array_equal(arrays["counts"][row, s], np.histogram(observable, edges)[0])


def test_charges_of_a_run_lie_where_the_sources_are(done):
    arrays, _ = read_calibration(done[1].paths[0])
    cs, ambe = arrays["n_pe"][:, arrays["offsets"][0] : arrays["offsets"][4]]  # first point
    assert np.mean(cs) == pytest.approx(0.6617 * 1603 * 0.95, rel=0.02)
    assert 0.3 < np.mean(np.abs(ambe / (2.2233 * 1603) - 1) < 0.1) < 0.6  # about half are captures


def test_the_same_call_again_keeps_everything(job, done):
    folder, result = done
    before = [p.stat().st_mtime_ns for p in result.paths]
    again = run_calibration(job, folder)
    assert again.kept == len(again.paths)
    assert [p.stat().st_mtime_ns for p in again.paths] == before


def test_two_processes_write_the_same_bytes(job, done, tmp_path):
    result = run_calibration(job, tmp_path, jobs=2)
    for a, b in zip(done[1].paths, result.paths, strict=True):
        assert a.read_bytes() == b.read_bytes()
    pools = sorted((tmp_path / "pools-testing").glob("chunk-*"))
    assert len(pools) == 2
    assert all(p.read_bytes() == (done[0] / "pools-testing" / p.name).read_bytes() for p in pools)


def test_a_run_that_was_cut_off_continues(job, done, tmp_path):
    with pytest.raises(UnfinishedError, match="the same command continues"):
        run_calibration(job, tmp_path, max_seconds=1e-9)
    assert len(list((tmp_path / "pools-testing").glob("chunk-*.safetensors"))) == 1
    result = run_calibration(job, tmp_path)
    assert [p.read_bytes() for p in result.paths] == [p.read_bytes() for p in done[1].paths]


def test_another_configuration_is_refused(job, done):
    with pytest.raises(NuebarError, match="seed"):
        run_calibration(replace(job, seed=6), done[0])
    with pytest.raises(NuebarError, match="cascades"):
        run_calibration(replace(job, cascades=2001), done[0])


def test_a_single_point_without_samples(job, tmp_path):
    point = replace(job, response=Response(12.05, 0.517, 9846.0), sources=("Cs137",), events=40, samples=False)
    (path,) = run_calibration(point, tmp_path).paths
    arrays, about = read_calibration(path)
    assert about["name"] == "point"
    assert arrays["n_pe"].shape == (1, 0)
    assert arrays["counts"].sum() == 40


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"set_name": "y"}, "set: expected one of x, got 'y'; or give --kB"),
        ({"sources": ("Cs",)}, "source: expected one of Cs137, .*, got 'Cs'; correct the name"),
        ({"cascades": 0}, "cascades: expected a whole number above 0, got 0"),
        ({"events": 0}, "events: key 'x.events': expected whole numbers above 0"),
    ],
)
def test_jobs_are_checked(job, change, sentence, tmp_path):
    with pytest.raises(NuebarError, match=sentence):
        run_calibration(replace(job, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_experiment_without_a_detector(job, tmp_path):
    with pytest.raises(NuebarError, match=r"expected a table \[detector\] to simulate with"):
        run_calibration(replace(job, experiment=replace(job.experiment, detector=None)), tmp_path)


@pytest.mark.parametrize("metadata", [{}, {"kind": "calibration", "format": 2}, {"kind": "cascades", "format": 1}])
def test_other_files_are_refused(tmp_path, done, metadata):
    arrays, _ = load_arrays(done[1].paths[0])
    save_arrays(tmp_path / "x.safetensors", arrays, metadata)
    with pytest.raises(NuebarError, match=r"x\.safetensors: expected calibration data sets of format 1"):
        read_calibration(tmp_path / "x.safetensors")

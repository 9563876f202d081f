"""Figures of the Monte Carlo: drawn, the same twice, refused when wrong; the document that shows them is true."""

import importlib.util
import re
from argparse import Namespace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.io.column_map import ColumnMap
from nuebar.report import simulation_plots as draw
from nuebar.report.plots import to_bytes
from nuebar.simulate.calibration import load_plan
from nuebar.simulate.sources import load_sources

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "monte-carlo.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)

EDGES = np.linspace(0.0, 10.0, 11)
COUNTS = np.array([0, 1, 5, 20, 100, 60, 10, 3, 1, 0])
SOURCE = draw.SourceSpectrum(
    "¹³⁷Cs", EDGES, {"prompt": COUNTS, "capture": COUNTS[::-1]}, ((4.5, "4.44 + n"), (4.6, "4.95"), (8.0, "7.64"))
)
X = np.array([0.5, 1.0, 2.0])
BAND = draw.Band(X, X, 0.1 * X, 1.01 * X, 0.05 * X)
PROMPT = {"no oscillation": COUNTS, "oscillated": COUNTS // 3}
PAIRS = draw.PairSpectra(EDGES, PROMPT, EDGES, COUNTS[::-1], 2.0, EDGES, COUNTS, EDGES, {"all": COUNTS})
AXIS = np.linspace(-2.0, 2.0, 21)
FLAT = np.ones((21, 21))
RATES = {name: k * COUNTS for k, name in enumerate(("scintillator", "steel_truss", "glass"), 1)}
FIGURES = {
    "source_spectra": lambda: draw.source_spectra([SOURCE] * 3),
    "parameter_effect": lambda: draw.parameter_effect(
        {"a": (EDGES, {"6": COUNTS, "24": COUNTS[::-1]})}, "kB", xlabel="E", note="fC 0.5"
    ),
    "singles_spectra": lambda: draw.singles_spectra(EDGES, RATES, RATES, windows_MeV=((1.9, 2.5),)),
    "singles_places": lambda: draw.singles_places(EDGES, RATES, fiducial_radius_m=1.9, radius_m=2.0),
    "nonlinearity": lambda: draw.nonlinearity(BAND, [True, True, False], BAND, BAND, lines={"⁶⁰Co": (1.25, 1.2)}),
    "resolution": lambda: draw.resolution("abc", X, X, 1.1 * X, [True, False, False]),
    "quenching": lambda: draw.quenching(X, {"n-H": (X, 1.001 * X), "6.13 MeV": (X, X)}),
    "pairs": lambda: draw.pairs(PAIRS),
    "light_maps": lambda: draw.light_maps(
        AXIS, 1.1 * FLAT, FLAT, 1.002 * FLAT, FLAT, radius_m=2.0, fiducial_radius_m=1.9
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_leave_settings_alone(name):
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure.axes
    assert dict(matplotlib.rcParams) == before


def test_all_figures_are_tried():
    assert set(FIGURES) == {name for name in draw.__all__ if name[0].islower()}


def test_the_same_bytes_twice():
    assert to_bytes(FIGURES["quenching"]()) == to_bytes(FIGURES["quenching"]())


def test_peaks_have_area_one():
    """What a parameter does to the shape is not hidden by different numbers of events."""
    figure = draw.parameter_effect({"a": (EDGES, {"6": COUNTS, "24": 7 * COUNTS[::-1]})}, "kB", xlabel="E")
    steps = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    assert len(steps) == 2
    for step in steps:
        data = step.get_data()
        assert np.sum(data.values * np.diff(data.edges)) == pytest.approx(1.0)


def test_all_is_the_sum_of_the_materials():
    figure = FIGURES["singles_places"]()
    steps = {p.get_label(): p.get_data().values for p in figure.axes[0].patches if isinstance(p, StepPatch)}
    np.testing.assert_allclose(steps["all"], sum(steps[n] for n in ("scintillator", "steel truss", "glass")))
    np.testing.assert_allclose(steps["all"], 6 * COUNTS)


def test_resolution_draws_the_difference():
    figure = FIGURES["resolution"]()
    drawn = np.concatenate([line.get_ydata() for line in figure.axes[1].lines if line.get_marker() in "sD"])
    np.testing.assert_allclose(drawn, 100 * (1 / 1.1 - 1))


@pytest.mark.parametrize("places", [[1.0], [5.0, 5.0, 5.0], [3.0, 1.0, 1.05, 9.0], list(np.zeros(9))])
def test_labels_get_room_and_stay_near(places):
    moved = np.array(draw._spread(places, 0.3))
    assert np.all(np.diff(np.sort(moved)) > 0.29)
    assert moved.mean() == pytest.approx(np.mean(places))  # pushed evenly to both sides
    assert np.all(np.diff(moved[np.argsort(places, kind="stable")]) >= 0)  # in the same order
    if len(places) == 1:
        assert moved[0] == places[0]


@pytest.mark.parametrize(("low", "high", "step", "shift"), [(0.991, 1.1, 0.005, 0.0), (-0.33, 0.33, 0.1, 0.05)])
def test_steps_of_colour_cover_the_values(low, high, step, shift):
    levels = draw._levels("PuOr", low, high, step, shift)
    assert low - step <= levels["vmin"] <= low
    assert high <= levels["vmax"] <= high + step
    assert round((levels["vmax"] - levels["vmin"]) / step) == levels["cmap"].N
    if shift:
        assert levels["cmap"].N % 2 == 1  # zero has a colour of its own
        assert levels["vmin"] == pytest.approx(-levels["vmax"])


WRONG = {
    "no source": lambda: draw.source_spectra([]),
    "unknown part": lambda: draw.source_spectra([draw.SourceSpectrum("a", EDGES, {"late": COUNTS})]),
    "no counts": lambda: draw.source_spectra([draw.SourceSpectrum("a", EDGES, {"decay": 0 * COUNTS})]),
    "other values": lambda: draw.parameter_effect(
        {"a": (EDGES, {"6": COUNTS}), "b": (EDGES, {"7": COUNTS})}, "kB", xlabel="E"
    ),
    "nine materials": lambda: draw.singles_places(
        EDGES, {str(k): COUNTS for k in range(9)}, fiducial_radius_m=1.0, radius_m=2.0
    ),
    "a bin too few": lambda: draw.singles_places(EDGES[1:], RATES, fiducial_radius_m=1.0, radius_m=2.0),
    "one boolean": lambda: draw.nonlinearity(BAND, [True], BAND, BAND, lines={}),
    "lengths differ": lambda: draw.resolution("ab", X, X, X, [True, True, True]),
    "one kB too few": lambda: draw.quenching(X[1:], {"n-H": (X, X)}),
    "no square": lambda: draw.light_maps(AXIS, FLAT[1:], FLAT, FLAT, FLAT, radius_m=2.0, fiducial_radius_m=1.9),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_refused(what):
    with pytest.raises(NuebarError):
        WRONG[what]()


# ---------------------------------------------------------------- the script and the document


@pytest.fixture(scope="module")
def pictures():
    path = ROOT / "benchmarks" / "pictures.py"
    if not path.is_file():
        pytest.skip("the benchmarks are not beside the tests")
    spec = importlib.util.spec_from_file_location("pictures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missing_record_leaves_its_picture(pictures, tmp_path):
    for name in ("nonlinearity", "resolution", "quenching"):
        assert pictures.PICTURES[name](Namespace(results=tmp_path)) is None


def test_small_pictures_are_pictures(pictures):
    figure = FIGURES["light_maps"]()
    data = pictures.small(figure)
    assert data.startswith(b"\x89PNG")
    assert len(data) < len(to_bytes(figure))


def test_document_shows_every_picture(pictures):
    """Each picture is made, small enough to be kept, and has a caption below it."""
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^!\[[^\]]+\]\(figures/simulate-([\w-]+)\.png\)\n\n\*\w", text, re.M)
    assert sorted(shown) == sorted(pictures.PICTURES)
    sizes = [(ROOT / "docs" / "figures" / f"simulate-{name}.png").stat().st_size for name in shown]
    assert max(sizes) < 150_000
    assert sum(sizes) < 1_200_000


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The files of the document under their names, the detector added to the example experiment."""
    if not PAGE.is_file():
        pytest.skip("the documents are not beside the tests")
    for _, name, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if name:
            (tmp_path / name).write_text(body, encoding="utf-8")
    other = (PAGE.parent / "own-experiment.md").read_text(encoding="utf-8")
    (plain,) = (body for _, name, body in BLOCK.findall(other) if name == "kamland-like.toml")
    keys = re.search(r"in its `\[response\]` the nominal point: (.*?)\.\n", PAGE.read_text(encoding="utf-8"), re.S)
    point = "\n".join(re.findall(r"`([^`]+)`", keys[1]))
    both = plain.replace("[response]\n", f"[response]\n{point}\n") + (tmp_path / "detector.toml").read_text()
    (tmp_path / "mine.toml").write_text(both, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_of_the_document_are_read(own):
    mine = load_experiment("mine.toml")
    assert mine.detector.fiducial_radius_m == 6.0
    assert mine.response.light_yield_per_MeV == 9846.0
    sources = load_sources("my-sources.toml")
    plan = load_plan("my-plan.toml")
    assert set(plan.sources) == set(sources)
    assert len(plan.sets["scan"].parameters()) == 27
    columns = ColumnMap.load("my-columns.toml")
    assert columns.columns["z_m"].index == 2


@pytest.mark.slow
def test_own_detector_and_sources_run(own):
    from nuebar.io.calibration import read_calibration
    from nuebar.jobs.calibration import CalibrationJob, run_calibration
    from nuebar.jobs.singles import SinglesJob, run_singles
    from nuebar.simulate.detector import DetectorModel

    mine = load_experiment("mine.toml")
    assert 200 < DetectorModel.build(mine).pe_per_MeV < 400
    job = CalibrationJob(mine, "scan", "my-plan.toml", "my-sources.toml", events=200, cascades=500)
    (path,) = run_calibration(job, "out/scan").paths
    assert read_calibration(path)[0]["n_pe"].shape == (2, 27 * 200)
    (result,) = run_singles(SinglesJob(mine, 5000, cascades=2000), "out/singles")
    assert result.summaries[0]["events"] > 1000


@pytest.mark.slow
def test_python_examples_run(own, capsys):
    """The examples in their order in one session, on small runs made by the commands' jobs."""
    from nuebar.jobs.calibration import CalibrationJob, run_calibration
    from nuebar.jobs.ibd import IbdJob, oscillation_of, run_ibd
    from nuebar.jobs.stream import StreamJob, run_stream

    juno = load_experiment("juno")
    run_ibd(IbdJob(juno, 20_000), "out/pairs")
    run_stream(StreamJob(juno, 0.05, oscillation_of(juno), 1440.0, cascades=2000, above_MeV=0.7), "out/stream")
    run_calibration(CalibrationJob(juno, "small", events=200, cascades=500), "out/small")
    scope = {}
    for language, name, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python" and not name:
            exec(body, scope)
    mean_pe = [pe for pe, _ in scope["means"].values()]
    assert mean_pe == sorted(mean_pe, reverse=True)
    assert np.all(np.diff(scope["ratio"]) > 0)
    assert "0.14 %" in capsys.readouterr().out
    assert 0.2 < scope["spectrum"].sum() / 20_000 < 0.4
    assert scope["events"] == pytest.approx(57.4 * 0.05, abs=6)
    assert scope["charges"].shape == (200,)
    assert (scope["kB"], scope["fC"], scope["light_yield"]) == (6.0, 0.0, 8000.0)

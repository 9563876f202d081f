"""Figures of the selection: drawn from small inputs with labels inside, the same twice, refused when wrong."""

from dataclasses import replace
from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from nuebar.errors import NuebarError
from nuebar.report import selection_plots as draw
from nuebar.report.plots import to_bytes
from nuebar.select import explain as ex
from nuebar.select import robustness as rb
from nuebar.select.config import PairSettings
from nuebar.select.cut_flow import cut_flow
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import FEATURES, PAIR_COLUMNS, features_of
from nuebar.select.operating_point import BALANCED, Rates, at_threshold, curves, efficiency_at
from nuebar.select.scores import ScoreSample

RANDOM = np.random.default_rng(3)
CUTS = BoxCuts(fiducial_radius_m=17.2, delayed_MeV=((1.9, 2.5),), dt_ms=1.0, dr_m=1.5)
REAL = Rates(57.4, 6e5)


class Toy:
    name = "toy"

    def score(self, features):
        x = features.astype(float).T
        return 6.0 - 3.0 * x[2] - x[3] / 250 - 4 * np.abs(x[5] - 2.2) + 0.3 * x[4]


def pairs(n, tau_us, blur_m, spread_MeV):
    place = RANDOM.normal(0, 8, (n, 3))
    other = place + RANDOM.normal(0, blur_m, (n, 3))
    out = {"prompt_e_rec_MeV": 0.7 + RANDOM.gamma(3, 1, n), "delayed_e_rec_MeV": RANDOM.normal(2.2, spread_MeV, n)}
    out["delayed_e_rec_MeV"] = np.maximum(out["delayed_e_rec_MeV"], 0.7)
    for part, at in (("prompt", place), ("delayed", other)):
        out |= {f"{part}_{axis}_m": at[:, k] for k, axis in enumerate("xyz")}
    return {name: ({**out, "dt_ns": 1e3 * RANDOM.exponential(tau_us, n)})[name] for name in PAIR_COLUMNS}


PAIRS, FAR = pairs(400, 220, 0.3, 0.1), pairs(400, 900, 1.5, 0.8)
IBD, NOISE = features_of(PAIRS), features_of(FAR)
SIGNAL, BACKGROUND = Toy().score(IBD), Toy().score(NOISE)
SAMPLES = ScoreSample.of(SIGNAL), ScoreSample.of(BACKGROUND)
POINT = at_threshold(*(ScoreSample.of(CUTS.score(x)) for x in (IBD, NOISE)), 0.0, REAL)


@cache
def explained():
    background = ex.balanced_background(IBD[200:], NOISE[200:], rows=40, groups=10)
    return ex.explain(Toy(), np.concatenate([IBD[:60], NOISE[:60]]), background, labels=[1] * 60 + [0] * 60, checked=0)


def curve_set():
    return {
        "toy": rb.efficiency_curves(IBD, SIGNAL > 0),
        "cuts": rb.efficiency_curves(IBD, CUTS.passes(IBD)),
    }


def shift_set():
    settings = PairSettings(window_ms=2.0, threshold_MeV=0.7)
    return {c.name: rb.changes(c, PAIRS, 0.0, settings) for c in (Toy(), CUTS)}


def background_set():
    settings = PairSettings(window_ms=2.0, threshold_MeV=0.7)
    none = BoxCuts(dr_m=1e-6)
    pairs = {"toy": Toy(), "cuts": none}
    return {k: rb.changes(c, FAR, 0.0, settings, captures=False) for k, c in pairs.items()}


def dependence_set():
    return [explained().dependence("dr_m", "e_delayed_MeV"), explained().dependence("e_delayed_MeV", "dr_m")]


def area(classifier=None):
    return ex.boundary(
        classifier or Toy(), IBD, 0.0, dr_m=np.linspace(0, 4, 9), dt_us=np.linspace(0, 2000, 9), pairs=40
    )


FIGURES = {
    "features": lambda: draw.feature_distributions(IBD, NOISE, title="toy"),
    "scores": lambda: draw.score_distribution(SIGNAL, BACKGROUND, threshold=1.0),
    "constant scores": lambda: draw.score_distribution([1.0, 1.0], [1.0]),
    "thresholds": lambda: draw.threshold_curves(
        curves(*SAMPLES, BALANCED), curves(*SAMPLES, REAL), best=at_threshold(*SAMPLES, 2.0, REAL)
    ),
    "balanced": lambda: draw.threshold_curves(curves(*SAMPLES, BALANCED), title="one"),
    "shares": lambda: draw.selected_shares(curves(*SAMPLES, REAL), cuts=POINT),
    "background": lambda: draw.efficiency_against_background(
        {"toy": efficiency_at(*SAMPLES, np.geomspace(1e-3, 0.3, 8))}, {"cuts": POINT, "line": POINT}, per_day=6e5
    ),
    "boundary": lambda: draw.decision_boundary(
        area(), box=(1.5, 1000.0), line=(0.4, 5e-4), signal=(IBD[:, 2], IBD[:, 3]), title="t"
    ),
    "flat line": lambda: draw.decision_boundary(area(BoxCuts()), line=(0.4, 0.0)),
    "flow": lambda: draw.cut_flow_bars(
        cut_flow(CUTS, [IBD]).record()["tables"]["prompt"]["grouped"], title="flow", note="2 ms"
    ),
    "importance": lambda: draw.importance_bars(ex.importance(explained(), draws=20).record(), title="i"),
    "beeswarm": lambda: draw.beeswarm(explained(), title="b"),
    "some bees": lambda: draw.beeswarm(explained(), order=["dt_us", "dr_m"]),
    "waterfall": lambda: draw.waterfall(explained().local(explained().typical(1)), title="typical"),
    "waterfall down": lambda: draw.waterfall(explained().local(explained().typical(0)), shown=10),
    "one group": lambda: draw.waterfall(
        ex.explain(Toy(), IBD[:1], ex.Background(NOISE[:4]), output="logit", checked=0).local(0)
    ),
    "dependence": lambda: draw.dependences(dependence_set(), title="d"),
    "by class": lambda: draw.dependences(dependence_set()[:1], labels=explained().labels),
    "efficiency": lambda: draw.efficiency_bins(curve_set(), title="e"),
    "shifts": lambda: draw.shift_changes(shift_set()),
    "both shifts": lambda: draw.shift_changes(shift_set(), background=background_set(), title="s"),
    "calibration": lambda: draw.calibration({"toy": rb.reliability(SIGNAL, BACKGROUND, toys=20)}),
}


@cache
def drawn(name):
    return FIGURES[name]()


def texts(figure):
    found = [t.get_text() for t in figure.texts]
    for ax in figure.axes:
        found += [child.get_xlabel() for child in ax.child_axes]
        found += [t.get_text() for t in (*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels())]
        found += [ax.get_xlabel(), ax.get_ylabel(), *(ax.get_title(loc) for loc in ("left", "center", "right"))]
        found += [t.get_text() for t in ax.get_legend().get_texts()] if ax.get_legend() else []
    for legend in figure.legends:
        found += [t.get_text() for t in legend.get_texts()] + [legend.get_title().get_text()]
    return " | ".join(found)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_inside_and_leave_settings_alone(name):
    before = dict(matplotlib.rcParams)
    figure = drawn(name)
    assert isinstance(figure, Figure)
    assert to_bytes(figure).startswith(b"\x89PNG")
    size = figure.bbox
    for ax in figure.axes:
        assert np.all(np.isfinite([*ax.get_xlim(), *ax.get_ylim()]))
        assert ax.get_position().width > 0.01
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title, ax._right_title):
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 > -2
                assert box.y0 > -2
                assert box.x1 < size.x1 + 2
                assert box.y1 < size.y1 + 2
    assert dict(matplotlib.rcParams) == before


def test_the_same_figure_twice_has_the_same_bytes():
    assert to_bytes(FIGURES["waterfall"]()) == to_bytes(drawn("waterfall"))


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "features": ("$R^3_{prompt}$ [m³]", r"$\Delta t$ [µs]", r"$\varphi_{delayed}$ [rad]", "IBD", "accidentals"),
        "scores": ("Probability of an IBD", "Logit"),
        "thresholds": ("Purity", "Efficiency", "F₁ score", "1 − threshold", "Real rates", "largest F₁"),
        "shares": ("box cuts", "1 − threshold", "Share of accidental pairs kept"),
        "background": ("cuts", "line", "Accidental pairs a day", "toy"),
        "boundary": ("box cuts", "fitted line", "toy, half kept", "IBD"),
        "flow": ("fiducial volume", "combined", "published", "2 ms", "inside the fiducial volume"),
        "importance": (r"$\Delta R$", "published 1", "mean |SHAP value| of the probability"),
        "waterfall": ("true IBD", "3 other features", "mean of the background 0.5"),
        "one group": ("Output (logit)",),
        "efficiency": ("Prompt energy [MeV]", "Prompt radius cubed [m³]", "cuts"),
        "shifts": ("energy scale −1 %", "capture time +1 %", "percentage points"),
        "both shifts": ("percentage points", "Relative change of the background [%]", "cuts"),
        "calibration": ("ln odds, predicted", "from counting"),
    }.items(),
)
def test_labels_say_what_is_drawn(name, words):
    told = texts(drawn(name))
    assert all(word in told for word in words), told


def test_every_feature_has_a_symbol():
    assert tuple(draw.FEATURE_LABELS) == FEATURES


def test_a_waterfall_goes_from_the_base_to_the_output():
    local = explained().local(2)
    bars = draw.waterfall(local, shown=10).axes[0].patches
    ends = [sorted([bar.get_x(), bar.get_x() + bar.get_width()]) for bar in bars]
    sizes = [high - low for low, high in ends]
    np.testing.assert_allclose(sorted(sizes), sorted(np.abs(local.values)), atol=1e-12)
    assert min(abs(e - local.base) for e in ends[0]) < 1e-12
    assert min(abs(e - local.output) for e in ends[-1]) < 1e-9


def test_swarm_places_stay_inside_and_do_not_meet():
    values = np.repeat([0.0, 0.5, 1.0], [50, 3, 1])
    places = draw._places(values, 0.4)
    assert np.abs(places).max() == pytest.approx(0.4)
    assert len(set(places[:50].tolist())) == 50
    assert places[-1] == 0


def test_bars_of_the_cut_flow_are_the_numbers():
    rows = cut_flow(CUTS, [IBD]).record()["tables"]["prompt"]["grouped"]
    widths = [bar.get_width() for bar in drawn("flow").axes[0].patches[: len(rows)]]
    np.testing.assert_allclose(widths, [100 * row["alone"]["value"] for row in rows])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw.feature_distributions(IBD[:0], NOISE), "both classes"),
        (lambda: draw.score_distribution([], [1.0]), "both classes"),
        (lambda: draw.score_distribution([np.nan], [1.0]), "finite"),
        (lambda: draw.efficiency_against_background({}, {}), "one to 6"),
        (lambda: draw.cut_flow_bars([]), "rows of a cut flow"),
        (lambda: draw.dependences([]), "one to four"),
        (lambda: draw.efficiency_bins({}), "one to 6"),
        (lambda: draw.calibration({}), "one to 6"),
        (lambda: draw.shift_changes({}), "one to 6"),
        (lambda: draw.shift_changes(shift_set(), background={"toy": shift_set()["toy"]}), "got 1"),
        (lambda: draw.shift_changes({"a": shift_set()["toy"], "b": shift_set()["toy"][:1]}), "same ones"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(NuebarError, match=message):
        call()


def test_points_of_changes_are_the_numbers():
    left, right = drawn("both shifts").axes
    toy, cuts = (shift_set()[name] for name in ("toy", "cuts"))
    for container, row in zip(left.containers, (toy, cuts), strict=True):
        np.testing.assert_allclose(container[0].get_xdata(), [100 * c.difference for c in row])
    row = background_set()["toy"]
    relative = [100 * c.difference / c.before.value for c in row]
    np.testing.assert_allclose(right.containers[0][0].get_xdata(), relative)
    assert np.ptp(relative) > 0
    assert np.all(np.isnan(right.containers[1][0].get_xdata())), "what keeps none has no relative change"


def test_the_first_two_points_are_stars_and_can_be_told_apart():
    first, second = (c[0] for c in drawn("background").axes[0].containers)
    assert first.get_marker() == second.get_marker() == "*"
    assert first.get_markerfacecolor() != second.get_markerfacecolor() == "white"


def test_a_point_without_background_is_left_out_of_the_stars():
    none = replace(POINT, background=replace(POINT.background, value=0.0))
    assert "box cuts" not in texts(draw.selected_shares(curves(*SAMPLES, REAL), cuts=none))

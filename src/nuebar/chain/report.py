"""``nuebar report``: one page and one JSON file of everything that a run found, warnings first."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.chain.report_numbers import PRIOR_DOMINATED, Row, RunRecord, agreement, notices_of, read_run, recovered
from nuebar.chain.run_file import RESPONSE, STAGES, load_run_file
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import git_commit, save_result, versions
from nuebar.parameters import OSCILLATION
from nuebar.report import plots, run_figures, tuning_plots
from nuebar.report.page import (
    Block,
    Code,
    Explorer,
    Facts,
    Live,
    Notice,
    Notices,
    Page,
    Picture,
    Section,
    Table,
    Text,
    clean,
    render,
)
from nuebar.report.tables import scale_of

__all__ = ["PAGE", "RECORD", "run_page", "run_record", "write_report"]

log = logging.getLogger(__name__)

PAGE, RECORD = "index.html", "report.json"
_CORRELATED = 0.25  # nuisance parameters that are shown with those of interest
_LEAST_PAIRS = 300.0  # of a background in one bin of the figure
_MOST_CORRELATED = 12  # that carry numbers
_SYMBOLS = {
    "sin2_th12": "sin²θ₁₂",
    "sin2_th13": "sin²θ₁₃",
    "dm2_21_eV2": "Δm²₂₁",
    "dm2_31_eV2": "Δm²₃₁",
    "dm2_32_eV2": "Δm²₃₂",
    "kB_g_cm2_GeV": "Birks' kB",
    "fC": "Cherenkov fC",
    "light_yield_per_MeV": "light yield",
}
_GROUPS = {
    ("spectrum fit", False): "Oscillation, from the spectrum fit",
    ("calibration", True): "Detector response, from the calibration sources",
    ("calibration", False): "Other parameters, from the calibration sources",
    ("spectrum fit", True): "Detector response, after the spectrum fit",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WHY_NOT = {
    "select": "No stage select: the run began with a spectrum that was selected elsewhere, or has not come so far.",
    "tune": "No stage tune: the run began with a posterior of the response from elsewhere, or has not come so far.",
    "predict": "No stage predict: nothing was compared with a Monte Carlo of its own, or the run has not come so far.",
    "fit": "No stage fit: the run has not come so far. It goes on with the same command.",
}


def write_report(run_folder: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None) -> Path:
    """Write ``report.json`` and then ``index.html``, each whole or not at all.

    Args:
        run_folder: Folder of a run; stages may be missing.
        out: Where to write; ``report`` in the folder of the run by default.

    Returns:
        The page.

    Raises:
        NuebarError: Nothing of a run is there, or the place cannot be written.
    """
    run = read_run(run_folder)
    place = output_folder(run.home / "report" if out is None else out)
    page, notices = run_page(run)
    text = render(page)
    save_result(place / RECORD, run_record(run, notices))
    atomic_write_text(place / PAGE, text)
    return place / PAGE


# ---------------------------------------------------------------- the page


@dataclass
class _Builder:
    """Blocks of sections, and notices of what could not be drawn."""

    run: RunRecord
    notices: list[Notice] = field(default_factory=list)

    def picture(self, name: str, draw: Callable[[], Any], alt: str, caption: str, *, wide: bool = False) -> list[Block]:
        """A figure, or nothing and a notice: one that fails must not take the page with it."""
        try:
            found = run_figures.drawn(draw)
        except Exception as error:
            log.debug("%s", name, exc_info=True)
            stage = name.partition("-")[0]
            text = f"The figure {name} could not be drawn: {type(error).__name__}: {error}"
            self.notices.append(Notice("look", stage, text))
            return []
        return [Picture(name, found.data, found.form, found.width_in, found.height_in, alt, caption, wide)]

    def section(self, name: str, title: str, parts: Sequence[Callable[[RunRecord, _Builder], list[Block]]]) -> Section:
        """A section of parts, each of which may fail by itself."""
        blocks: list[Block] = []
        for part in parts:
            try:
                blocks += part(self.run, self)
            except Exception as error:
                log.debug("%s", name, exc_info=True)
                text = f"A part of this section could not be made from its files: {type(error).__name__}: {error}"
                self.notices.append(Notice("look", name, text))
        return Section(name, title, blocks or [Text(_WHY_NOT.get(name, "There is nothing to show."))])


def run_page(run: RunRecord) -> tuple[Page, list[Notice]]:
    """The page of a run.

    Args:
        run: Of :func:`~nuebar.chain.report_numbers.read_run`.

    Returns:
        The page, and its notices.
    """
    build = _Builder(run)
    sections = [
        build.section("result", "Result", [_headline, _headline_table]),
        build.section("select", "Selection", _SELECT if run.summary or run.selection or run.efficiency else []),
        build.section("tune", "Tuning of the detector response", _TUNE if run.tuning or run.posterior else []),
        build.section("predict", "Prediction", _PREDICT if run.prediction else []),
        build.section("fit", "Fit", _FIT if run.result is not None or run.fit else []),
    ]
    explorer = _explorer(build)
    if explorer is not None:
        sections.append(Section("explorer", "Explorer: move the parameters", [Live(explorer)], short="Explorer"))
    sections.append(build.section("provenance", "Where this comes from", [_provenance, _stage_table, _texts]))
    notices = notices_of(run) + build.notices
    sections.insert(0, _diagnostics(notices))  # before any number
    title = clean(run.run.get("title") or "A run of nuebar", 200)
    return Page(title, _lead(run), sections, _footer(run)), notices


def _lead(run: RunRecord) -> str:
    simulated = "Simulated data with a hidden truth" if run.simulated else "Measured data"
    if run.run and not run.simulated and run.run.get("simulated"):
        simulated = "Simulated data"
    days = run.fit.get("live_days") or run.summary.get("live_days")
    words = [simulated, f"experiment {_base(run.run.get('experiment', ''))}" if run.run.get("experiment") else ""]
    words.append(f"{float(days):.4g} live days" if isinstance(days, int | float) else "")
    words.append(f"seed {run.run['seed']}" if "seed" in run.run else "")
    return clean(", ".join(word for word in words if word)) + "."


def _base(path: object) -> str:
    """The name of an experiment, or the file of one."""
    return str(path).replace("\\", "/").rpartition("/")[2]


def _footer(run: RunRecord) -> str:
    made = f"Made by nuebar {versions()['nuebar']} from the folder {clean(run.home.resolve().name, 100)}."
    return f"{made} Nothing on this page asks the network."


def _diagnostics(notices: Sequence[Notice]) -> Section:
    bad, look = (sum(n.level == level for n in notices) for level in ("bad", "look"))
    if bad:
        warned = f" and {_count(look, 'warning')}" if look else ""
        word = f"{_count(bad, 'problem')}{warned}: read these before the numbers."
    elif look:
        word = f"{_count(look, 'warning')}: read before the numbers."
    else:
        word = "No stage has anything against this result."
    return Section("diagnostics", "Diagnostics and warnings", [Text(word), Notices(list(notices))], short="Diagnostics")


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


# ---------------------------------------------------------------- headline


def _headline(run: RunRecord, build: _Builder) -> list[Block]:
    bad = [notice for notice in notices_of(run) if notice.level == "bad"]
    days = run.summary.get("days")
    pairs = [("Experiment", _base(run.run.get("experiment") or (run.result.experiment if run.result else "–")))]
    if isinstance(days, int | float):
        pairs.append(("Stream", f"{days:.4g} days, {float(run.summary['live_days']):.4g} of them live"))
    if run.summary.get("candidates") is not None:
        excess = run.summary["excess"]
        pairs.append(("Candidates", f"{run.summary['candidates']:,}"))
        pairs.append(("Without accidentals", f"{excess['value']:,.0f} ± {excess['error']:,.0f}"))
    if run.result is not None:
        pairs.append(("Mass ordering of the fit", run.result.ordering))
    goodness = run.fit.get("goodness") or {}
    if goodness.get("p_value") is not None:
        words = f"χ² = {float(goodness['chi2']):.1f} / {goodness['n_dof']}, p = {float(goodness['p_value']):.2g}"
        pairs.append(("Goodness of fit", words))
    joint = agreement(run)
    if joint is not None:
        words = f"χ² = {joint['chi2']:.1f} / {joint['n']}, p = {joint['p_value']:.2g}"
        pairs.append(("Parameters together against the truth", words))
    if "seed" in run.run:
        pairs.append(("Seed", str(run.run["seed"])))
    return [*([Notices(bad)] if bad else []), Facts(pairs)]


def _headline_table(run: RunRecord, build: _Builder) -> list[Block]:
    rows = recovered(run)
    if not rows:
        return [Text("No parameter has been recovered yet.")]
    truth = any(row.truth is not None for row in rows)
    prior = any(row.prior is not None for row in rows)
    header = ["Parameter", "Recovered", *(["Truth", "Away from it"] if truth else [])]
    header += ["Prior", "Error / prior", ""] if prior else [""]
    cells: list[list[str]] = []
    marked: set[int] = set()
    groups: dict[int, str] = {}
    for k, row in enumerate(rows):
        name = f"{_symbol(row.name)} [{_unit(row.name)}]" if _unit(row.name) else _symbol(row.name)
        line = [name, _shown(row)]
        if truth:
            away = row.sigmas
            line += [_like(row, row.truth), "–" if away is None else f"{_sign(away)} σ"]
            if away is not None and abs(away) > 3:
                marked.add(k)
        if prior:
            line += [_prior(row), "–" if row.share is None else f"{row.share:.2f}"]
        remark = "fixed" if row.fixed else "○" if row.prior_dominated else ""
        cells.append([*line, remark])
        group = _GROUPS[(row.where, row.name in RESPONSE)]
        if group not in groups.values():
            groups[k] = group
    words = frozenset({len(header) - 1})
    caption = "Best fit ± one standard deviation."
    if truth:
        caption += " “Away from it” counts errors between result and hidden truth; two in three should be below 1."
    if prior:
        caption += (
            f" Where the error is above {PRIOR_DOMINATED:g} of the prior's width, the data add next to nothing (○)."
        )
    out: list[Block] = [Table(caption, header, cells, words, frozenset(marked), groups)]
    known = [row for row in rows if row.sigmas is not None]
    if known:
        out += build.picture(
            "result-recovered",
            lambda: run_figures.recovered(
                [run_figures.Recovered(r.name, r.where, float(r.sigmas or 0.0), r.prior_dominated) for r in known]
            ),
            "Distance of every recovered parameter from the truth in units of its error",
            "All points should scatter around 0, two in three inside the blue band. Open circles: the error is that of "
            "the prior, which for the response is the calibration.",
        )
    return out


def _symbol(name: str) -> str:
    return _SYMBOLS.get(name, name.replace("_", " "))


def _unit(name: str) -> str:
    scale = scale_of(name)
    power = f"10{str(scale.power).translate(_SUPERSCRIPT)}" if scale.power else ""
    unit = "photons/MeV" if name == "light_yield_per_MeV" else scale.unit
    return f"{power} {unit}".strip()


def _decimals(name: str, error: float) -> int | None:
    """So that the error has two digits."""
    size = error / scale_of(name).factor
    return max(0, 1 - math.floor(math.log10(size))) if math.isfinite(size) and size > 0 else None


def _number(name: str, value: float, decimals: int | None) -> str:
    shown = value / scale_of(name).factor
    return (f"{shown:.6g}" if decimals is None else f"{shown:.{decimals}f}").replace("-", "−")


def _shown(row: Row) -> str:
    """Value ± error."""
    digits = None if row.fixed else _decimals(row.name, row.error)
    text = _number(row.name, row.value, digits)
    if digits is not None:
        text += f" ± {_number(row.name, row.error, digits)}"
        if math.isfinite(row.error_minus) and (row.error_minus, row.error_plus) != (-row.error, row.error):
            minus, plus = (_number(row.name, abs(x), digits) for x in (row.error_minus, row.error_plus))
            text += f" (−{minus} +{plus})"
    return text


def _like(row: Row, value: float | None) -> str:
    """Another value with as many digits."""
    return "–" if value is None else _number(row.name, value, None if row.fixed else _decimals(row.name, row.error))


def _prior(row: Row) -> str:
    if row.prior is None:
        return "none"
    digits = _decimals(row.name, row.prior[1])
    return f"{_number(row.name, row.prior[0], digits)} ± {_number(row.name, row.prior[1], digits)}"


def _sign(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


# ---------------------------------------------------------------- selection


def _sample_table(run: RunRecord, build: _Builder) -> list[Block]:
    s = run.summary
    if not s:
        return []
    day, accidentals, excess = s["per_live_day"], s["accidentals"], s["excess"]
    rows = [
        ["Candidates", f"{s['candidates']:,}", f"{day['candidates']:.4g}"],
        [
            "Accidentals, measured off time",
            f"{accidentals['value']:,.1f} ± {accidentals['error']:.1f}",
            f"{day['accidentals'][0]:.4g} ± {day['accidentals'][1]:.2g}",
        ],
        [
            "Excess",
            f"{excess['value']:,.1f} ± {excess['error']:.1f}",
            f"{day['excess'][0]:.4g} ± {day['excess'][1]:.2g}",
        ],
    ]
    pairs, c = s.get("pairs") or {}, s.get("classifier") or {}
    facts = [
        ("Classifier", f"{c.get('name', '–')}, score ≥ {float(s.get('threshold') or 0):.4g}"),
        ("Operating point", str(s.get("operating_point", "–"))),
        ("Live time", f"{float(s['live_days']):.4g} of {float(s['days']):.4g} days"),
        ("Purity", f"{100 * s['purity']:.1f} %" if s.get("purity") is not None else "–"),
    ]
    if pairs:
        facts.append(("Pairs in the window", f"{pairs['found']:,}, {pairs['vetoed']:,} of them vetoed"))
        facts.append(("Pairs scored", f"{pairs['scored']:,}, off time {pairs['scored_off_time']:,}"))
    caption = "The excess is what the fit explains by antineutrinos and by backgrounds that are correlated in time."
    out: list[Block] = [Facts(facts), Table(caption, ["", "In all", "A live day"], rows)]
    truth = s.get("truth")
    if truth:
        kinds = [[str(k).replace("_", " "), f"{v:,}"] for k, v in truth.items() if k != "accidental_pull"]
        out.append(Table("What the candidates really are.", ["Kind", "Candidates"], kinds))
    return out


def _prompt(run: RunRecord, build: _Builder) -> list[Block]:
    p, a = run.prompt, run.accidentals
    if p is None or a is None:
        return []
    error = np.sqrt(a.counts if a.variances is None else a.variances)
    return build.picture(
        "select-prompt",
        lambda: run_figures.prompt_spectrum(p.edges, p.counts, a.counts, error),
        "Prompt spectrum of the candidates with the measured accidental background",
        "What stands above the orange area are antineutrinos and backgrounds correlated in time. Accidentals pile up "
        "at low energy, where natural radioactivity is; the fit takes them as measured here, with their error.",
    )


def _efficiency(run: RunRecord, build: _Builder) -> list[Block]:
    sources = run.efficiency.get("sources")
    if not isinstance(sources, Mapping) or not sources:
        return []
    edges = np.array(run.efficiency["edges_MeV"], float)
    order = sorted(sources, key=lambda name: (name != "ibd", list(sources).index(name)))
    curves = {name: _curve(edges, sources[name], merged=name != order[0]) for name in order}
    rows = []
    for name in order:
        total = sources[name].get("total") or {}
        parts = [total.get(key) for key in ("fiducial_share", "efficiency", "acceptance")]
        cells = [f"{100 * p['value']:.2f} ± {100 * p['error']:.2f}" if p else "–" for p in parts]
        rows.append([_component(name), f"{sources[name].get('pairs', 0):,}", *cells])
    caption = "In per cent, over all energies: in the fiducial volume; selected of these; both together."
    header = ["Source", "Monte Carlo pairs", "In the volume", "Selected of these", "Together"]
    return [
        *build.picture(
            "select-efficiency",
            lambda: run_figures.efficiencies(curves),
            "Efficiency of the selection against energy for signal and backgrounds, with errors",
            "For the signal (line) the curve should be smooth and flat but for the threshold: what the network prefers "
            "in energy would otherwise enter the spectrum. The fit multiplies by this curve and takes its error.",
        ),
        Table(caption, header, rows),
    ]


def _curve(edges: np.ndarray, found: Mapping[str, Any], *, merged: bool) -> run_figures.Curve:
    """Efficiency of a source; neighbouring bins together where there are few pairs."""
    value, error = (_array(found[key]) for key in ("efficiency", "efficiency_error"))
    if merged and "fiducial" in found:
        weight = _array(found["fiducial"])
        starts = _groups(weight, max(_LEAST_PAIRS, float(weight.sum()) / 12))
        sums = np.add.reduceat(weight, starts)
        scale = np.where(sums > 0, sums, 1.0)
        mean = np.add.reduceat(np.nan_to_num(value) * weight, starts) / scale
        spread = np.sqrt(np.add.reduceat((np.nan_to_num(error) * weight) ** 2, starts)) / scale
        value, error = (np.where(sums > 0, x, np.nan) for x in (mean, spread))
        edges = np.append(edges[starts], edges[int(np.flatnonzero(weight).max(initial=starts[-1])) + 1])
    return run_figures.Curve(edges, value, np.maximum(value - error, 0.0), np.minimum(value + error, 1.0))


def _groups(weight: np.ndarray, least: float) -> np.ndarray:
    """First bins of groups of neighbours that hold at least so much; what is left at the end goes to the last one."""
    starts, held = [0], 0.0
    for k, more in enumerate(weight[:-1]):
        held += float(more)
        if held >= least:
            starts.append(k + 1)
            held = 0.0
    if held + float(weight[-1]) < least and len(starts) > 1:
        starts.pop()
    return np.array(starts)


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array([math.nan if x is None else float(x) for x in values])


def _component(name: str) -> str:
    return plots._component("signal" if name == "ibd" else name).replace(r"$\bar{\nu}_e$", "ν̄e")


def _roc(run: RunRecord, build: _Builder) -> list[Block]:
    found = run.selection.get("roc")
    if not found:
        return []
    keys = ("efficiency", "efficiency_error", "background_per_day", "background_error")
    point = found.get("operating_point") or {}
    at = (
        (point["background_per_day"], point["efficiency"])
        if {"background_per_day", "efficiency"} <= set(point)
        else None
    )
    return build.picture(
        "select-roc",
        lambda: run_figures.roc(*(found[key] for key in keys), point=at, label="threshold of this run"),
        "Efficiency against the accidental background a day, for all thresholds",
        "Further up and to the left is better. Moving along the curve trades antineutrinos for background; both axes "
        "are measured: the efficiency on Monte Carlo pairs, the background on off-time pairs of this very stream.",
    )


def _boundary(run: RunRecord, build: _Builder) -> list[Block]:
    found = run.selection.get("boundary")
    if not found:
        return []
    cuts = (run.summary.get("selection") or {}).get("cuts") or {}
    box = (float(cuts["dr_m"]), 1e3 * float(cuts["dt_ms"])) if {"dr_m", "dt_ms"} <= set(cuts) else None
    return build.picture(
        "select-boundary",
        lambda: run_figures.score_plane(
            found["dr_m"], found["dt_us"], found["score"], float(found["threshold"]), box=box
        ),
        "Score of the network in the plane of distance and time between both events, with the threshold",
        "Where the black line falls instead of following a box, a pair far apart in space is kept if it is close in "
        "time, and the other way round. All other features are those of a typical antineutrino.",
    )


def _shap(run: RunRecord, build: _Builder) -> list[Block]:
    found = run.selection.get("shap")
    if not found:
        return []
    names = [str(name) for name in found["features"]]
    return [
        *build.picture(
            "select-importance",
            lambda: run_figures.importance(names, found["importance"], found["importance_error"]),
            "Mean size of the Shapley values of each feature",
            "Time and distance between both events should lead; a large bar of an angle would be a warning.",
        ),
        *build.picture(
            "select-shap",
            lambda: run_figures.feature_swarm(names, found["values"], found["data"]),
            "Shapley values of single pairs by feature, coloured by the value of the feature",
            "Each point is a pair. Short times and distances (dark) push towards antineutrino, to the right; long ones "
            "(bright) push to the left. Rows without a clear order of colours hardly matter.",
        ),
    ]


# ---------------------------------------------------------------- tuning


def _tuning(run: RunRecord, build: _Builder) -> list[Block]:
    t = run.tuning
    if t is None:
        return [Text("The posterior of the response was given; its calibration data are not in this run.")]
    facts = [
        ("Method", f"{t.method}, {'single charges' if t.unbinned else 'binned'}"),
        ("Density", t.density),
        ("Norms of the sources", t.norm_treatment),
        ("Verdict", "valid" if t.valid else f"NOT VALID: {t.reason}"),
    ]
    if math.isfinite(t.effective):
        facts.append(("Effective samples", f"{t.effective:,.0f}"))
    if math.isfinite(t.r_hat):
        facts.append(("R̂ of the chains", f"{t.r_hat:.4f}"))
    return [Facts(facts)]


def _spectra(run: RunRecord, build: _Builder) -> list[Block]:
    spectra = run.coverage.get("spectra")
    if not spectra:
        return []
    return build.picture(
        "tune-spectra",
        lambda: run_figures.source_spectra(spectra, result=run.tuning),
        "Calibration spectra of all sources with the fitted density and residuals",
        "The blue line should run through the grey data over all decades, and the points below should scatter between "
        "−2 and 2 without a wave. A shaded window differs with p < 0.01.",
        wide=True,
    )


def _corner(run: RunRecord, build: _Builder) -> list[Block]:
    t = run.tuning
    if t is None or not np.all(np.isfinite(t.covariance)):
        return []
    truth = {n: run.truth[n] for n in t.names} if set(t.names) <= set(run.truth) else None
    return build.picture(
        "tune-corner",
        lambda: tuning_plots.posterior_corner({f"calibration, {t.method}": t}, truth=truth),
        "Posterior of the response parameters in pairs",
        "Where ellipses lean, two parameters trade against each other; the fit takes the whole posterior, not three "
        "errors." + (" The grey lines of the truth should cross inside of the contours." if truth else ""),
        wide=True,
    )


def _coverage(run: RunRecord, build: _Builder) -> list[Block]:
    c = run.coverage.get("coverage")
    if not c or not c.get("covered"):
        return []
    names = [name for name in c["parameters"] if name in c["covered"]]
    replicas = int(c["replicas"]) - int(c.get("failed") or 0)
    out = build.picture(
        "tune-coverage",
        lambda: run_figures.coverage(names, c["levels"], c["covered"], replicas),
        "Share of replicas whose interval holds the truth, against the level it promises",
        "Points should stay inside the grey bands around the diagonal: then an error of the tuning is what it says.",
        wide=True,
    )
    rows = []
    for name in names:
        pull = (c.get("pulls") or {}).get(name)
        if pull:
            cells = [_with(pull.get("mean"), pull.get("mean_error")), _with(pull.get("width"), pull.get("width_error"))]
            rows.append([_symbol(name), *cells])
    if rows:
        caption = f"Pulls of {replicas} replicas: the mean should be 0 and the width 1."
        out.append(Table(caption, ["Parameter", "Mean", "Width"], rows))
    return out


def _with(value: Any, error: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"
    return text.replace("-", "−")


def _goodness(run: RunRecord, build: _Builder) -> list[Block]:
    g = None if run.tuning is None else run.tuning.goodness
    if g is None:
        return []
    rows = [
        [
            tuning_plots.source_name(s.source),
            f"{s.events:,}",
            f"{s.deviance:.1f} / {s.n_bins}",
            *(f"{p:.2g}" for p in (s.p_deviance, s.p_local, s.p_distance, s.p_value)),
        ]
        for s in g.sources
    ]
    rows.append(["all", f"{sum(s.events for s in g.sources):,}", f"{g.deviance:.1f} / {g.n_dof}", f"{g.p_deviance:.2g}",
                 "", "", f"{g.p_value:.2g}"])  # fmt: skip
    marked = frozenset(k for k, s in enumerate(g.sources) if s.p_value < 0.01)
    header = ["Source", "Events", "Deviance / bins", "p (deviance)", "p (local)", "p (KS)", "p of all"]
    caption = (
        f"p-values from {g.n_replicas:,} replicas; a small one: the source looks like nothing the density can make."
    )
    return [Table(caption, header, rows, frozenset(), marked)]


# ---------------------------------------------------------------- prediction


def _expected(run: RunRecord, build: _Builder) -> list[Block]:
    p = run.prediction
    out = build.picture(
        "predict-spectrum",
        lambda: run_figures.expected_spectrum(p["edges_MeV"], p["components"], unoscillated=p.get("unoscillated")),
        "Expected spectrum before the fit, signal and backgrounds",
        "What the nominal oscillation and the tuned response promise. The area between the dashed and the red line is "
        "what oscillates away.",
    )
    r = p.get("reference")
    if r:
        surrogate, said = (
            r["surrogate"],
            f"{float(r['events']):,.0f} reweighted Monte Carlo pairs at the tuned response",
        )
        out += build.picture(
            "predict-residuals",
            lambda: run_figures.surrogate_residuals(p["edges_MeV"], surrogate, r["counts"], r["errors"]),
            "Relative difference of the surrogate from reweighted Monte Carlo with the error of the latter",
            f"Against {said}: the red line should stay in the grey bands, which are the Monte Carlo's own error. χ² = "
            f"{float(r['chi2']):.1f}, p = {float(r['p_value']):.2g}.",
        )
    else:
        out.append(Text("The predictor was not compared with a Monte Carlo of its own: none was asked for."))
    for name, counts in p["components"].items():
        _below_zero(build, "predict", name, counts)
    return out


def _below_zero(build: _Builder, stage: str, name: str, counts: Sequence[float]) -> None:
    """A background with a wide prior can come out below zero."""
    events = float(np.sum(counts))
    if events < 0:
        text = (
            f"The component {name} has a number of events below zero ({_events(events)}); it is left out of the stack."
        )
        build.notices.append(Notice("note", stage, text))


def _events(n: float) -> str:
    return f"{n:,.1f}".replace("-", "−")


# ---------------------------------------------------------------- fit


def _fit_facts(run: RunRecord, build: _Builder) -> list[Block]:
    r = run.result
    if r is None:
        return []
    goodness = run.fit.get("goodness") or {}
    facts = [
        ("Verdict", "valid" if r.valid else f"NOT VALID: {r.reason}"),
        ("Statistic", r.statistic),
        ("Predictor", r.predictor),
        ("Minimum", f"{r.chi2:.2f}, {r.chi2_pulls:.2f} of it pulls"),
    ]
    if goodness.get("p_value") is not None:
        toys = f" ({goodness['toys']:,} toys)" if isinstance(goodness.get("toys"), int) and goodness["toys"] else ""
        words = f"χ² = {float(goodness['chi2']):.1f} / {goodness['n_dof']}, p = {float(goodness['p_value']):.2g}{toys}"
        facts.append(("Goodness of fit", words))
    for n, (value, error) in r.derived.items() if not r.blinded else ():
        row = Row(n, "derived", value, error, -error, error)
        if n in _SYMBOLS:
            facts.append((f"{_symbol(n)} [{_unit(n)}]", _shown(row)))
    return [Facts(facts)]


def _fit_spectrum(run: RunRecord, build: _Builder) -> list[Block]:
    f = run.fit
    if not f:
        return []
    out = build.picture(
        "fit-spectrum",
        lambda: run_figures.fit_spectrum(
            f["edges_MeV"],
            f["counts"],
            f["components"],
            extra_variance=f.get("extra_variance"),
            unoscillated=f.get("unoscillated"),
            simulated=run.simulated or bool(run.run.get("simulated")),
        ),
        "Spectrum of the candidates with the fitted components and residuals",
        "The red line is the fit. Below, the points should scatter around 0 without a wave: a wave would mean a wrong "
        "energy scale, response or oscillation.",
    )
    c = f.get("contour")
    if c:
        a, b = (str(n) for n in c["names"])
        blinded = run.result is not None and run.result.blinded
        best = None
        if run.result is not None and {a, b} <= set(run.result.parameters):
            best = (run.result.parameters[a].value, run.result.parameters[b].value)
        truth = (run.truth[a], run.truth[b]) if {a, b} <= set(run.truth) and not blinded else None
        out += build.picture(
            "fit-contour",
            lambda: run_figures.contour((a, b), c["grids"], c["delta_chi2"], best=best, truth=truth),
            f"Regions of {_symbol(a)} and {_symbol(b)} around the best fit",
            "Upright ellipses mean that the two hardly depend on each other; everything else is fitted anew at every "
            "point." + (" The red square of the truth should lie inside of the outer line." if truth else ""),
        )
    else:
        out.append(Text("No contour: none was asked for, its parameters were not free, or the fit is not valid."))
    return out


def _fit_profile(run: RunRecord, build: _Builder) -> list[Block]:
    found = run.fit.get("profile")
    if not found:
        return []
    name = str(found["name"])
    blinded = run.result is not None and run.result.blinded
    truth = None if blinded else run.truth.get(name)
    minima = [m for m in run.fit.get("other_minima") or [] if m.get("parameter") == name]
    told = ""
    if minima:
        words = (f"{_number(name, m['value'], 3)} (Δχ² = {m['delta_chi2']:.2g})" for m in minima)
        told = f" Other minima: {', '.join(words)} in {_unit(name)}."
    return build.picture(
        "fit-profile",
        lambda: run_figures.profile(
            name, found["grid"], found["delta_chi2"], interval=(found["low"], found["high"]), truth=truth
        ),
        f"Δχ² along {_symbol(name)}, everything else fitted anew",
        "A single parabola means that the error says it all. Where there are several valleys, the shaded interval "
        f"spans all that reach down to the lowest line.{told}",
    )


def _fit_events(run: RunRecord, build: _Builder) -> list[Block]:
    after, before = run.fit.get("components"), run.prediction.get("components") or {}
    if not after:
        return []
    rows = []
    for name, counts in after.items():
        _below_zero(build, "fit", name, counts)
        was = _events(float(np.sum(before[name]))) if name in before else "–"
        rows.append([_component(name), was, _events(float(np.sum(counts)))])
    was = _events(float(np.sum(run.prediction["expected"]))) if run.prediction.get("expected") else "–"
    rows.append(["Sum", was, _events(float(np.sum(run.fit["expected"])))])
    rows.append(["Candidates", "", _events(float(np.sum(run.fit["counts"])))])
    caption = "Expected events before and after the fit; the sum after it should be close to the candidates."
    return [Table(caption, ["Component", "Before", "After"], rows)]


def _fit_pulls(run: RunRecord, build: _Builder) -> list[Block]:
    r = run.result
    if r is None:
        return []
    n = sum(1 for p in r.parameters.values() if not p.fixed and p.prior is not None)
    if not n:
        return [Text("No parameter has a prior, so there are no pulls.")]
    out = build.picture(
        "fit-pulls",
        lambda: run_figures.pull_chart(r),
        "Pulls of the parameters with a prior",
        "A bar of length 1 is known by its prior alone; a short one was measured here. Points beyond ±2 pull hard "
        "against what was known before.",
    )
    return out


def _fit_correlations(run: RunRecord, build: _Builder) -> list[Block]:
    r = run.result
    if r is None or not r.parameter_order or not np.all(np.isfinite(r.covariance)):
        return []
    names = _interesting(r.parameter_order, np.asarray(r.correlation))
    return build.picture(
        "fit-correlations",
        lambda: run_figures.correlations(r, names),
        "Correlations of the fitted parameters",
        "Oscillation and response parameters with those that move along with them. Deep red or blue beside an "
        "oscillation parameter tells what limits it.",
    )


def _interesting(order: Sequence[str], rho: np.ndarray) -> list[str]:
    """Oscillation and response parameters, and the nuisance parameters that correlate most with them."""
    main = [k for k, n in enumerate(order) if n in (*OSCILLATION, *RESPONSE)]
    if not main:
        return list(order)[:_MOST_CORRELATED]
    most = np.abs(rho[main]).max(axis=0)
    others = [k for k in np.argsort(-most) if k not in main and most[k] >= _CORRELATED]
    chosen = set(main) | set(others[: max(0, _MOST_CORRELATED - len(main))])
    return [order[k] for k in sorted(chosen, key=lambda k: (k not in main, k))]


def _fit_impacts(run: RunRecord, build: _Builder) -> list[Block]:
    found, r = run.fit.get("impacts"), run.result
    if not found or r is None:
        return []
    errors = {n: p.error for n, p in r.parameters.items() if n in found and math.isfinite(p.error) and p.error > 0}
    if not errors:
        return []
    return build.picture(
        "fit-impacts",
        lambda: run_figures.impact_chart({n: found[n] for n in errors}, errors),
        "Nuisance parameters that move each oscillation parameter most",
        "The length of a bar is how far the parameter moves, in its own errors, when the nuisance parameter moves by "
        "its fitted error. Short bars everywhere: statistics decides.",
        wide=True,
    )


def _fit_table(run: RunRecord, build: _Builder) -> list[Block]:
    r = run.result
    if r is None:
        return []
    rows: list[list[str]] = []
    marked: set[int] = set()
    for name, p in r.parameters.items():
        digits = None if p.fixed else _decimals(name, p.error)
        prior, pull = "none", "–"
        if p.prior is not None:
            wide = _decimals(name, p.prior[1])
            prior = f"{_number(name, p.prior[0], wide)} ± {_number(name, p.prior[1], wide)}"
            pull = "–" if p.fixed or p.pull is None else _sign(p.pull)
            if not p.fixed and p.pull is not None and abs(p.pull) > 2:
                marked.add(len(rows))
        error = "fixed" if p.fixed else "–" if digits is None else _number(name, p.error, digits)
        rows.append([_words(name), _number(name, p.value, digits), error, _unit(name), prior, pull])
    header = ["Parameter", "Value", "Error", "Unit", "Prior", "Pull"]
    return [
        Table(
            "All parameters of the fit. Rows with a pull beyond ±2 are shaded.",
            header,
            rows,
            frozenset({3}),
            frozenset(marked),
            folded=True,
        )
    ]


def _words(name: str) -> str:
    return _symbol(name) if name in _SYMBOLS else name


_SELECT = (_sample_table, _prompt, _efficiency, _roc, _boundary, _shap)
_TUNE = (_tuning, _goodness, _spectra, _corner, _coverage)
_PREDICT = (_expected,)
_FIT = (_fit_facts, _fit_spectrum, _fit_profile, _fit_events, _fit_correlations, _fit_pulls, _fit_impacts, _fit_table)


# ---------------------------------------------------------------- explorer and provenance


def _explorer(build: _Builder) -> Explorer | None:
    """The live spectrum, where everything that it needs is in the folder of the run."""
    run = build.run
    needed = ("run.toml", "select/prompt.json", "select/efficiency.json", "tune/posterior.json")
    # The minimum of Δχ² would undo a blinding.
    if run.result is None or run.result.blinded or not all((run.home / name).is_file() for name in needed):
        return None
    try:
        return _live(run)
    except Exception as error:
        log.debug("explorer", exc_info=True)
        text = f"The explorer could not be made: {type(error).__name__}: {error}"
        build.notices.append(Notice("note", "report", text))
        return None


def _live(run: RunRecord) -> Explorer | None:
    """Imports are here: they bring jax, which the rest of the page does without."""
    import jax

    from nuebar.chain.auxiliary import load_centres
    from nuebar.chain.spectrum import Sample, sample_fit
    from nuebar.config import load_experiment
    from nuebar.predict.reduced import ReducedBasis, slider_ranges
    from nuebar.report.explorer import explorer_data, explorer_html

    asked = load_run_file(run.home / "run.toml")
    if not asked.report.explorer or run.result is None or run.posterior is None:
        return None
    with jax.enable_x64(True):
        sample = Sample.load(run.home / "select")
        options = {"centres": load_centres(run.home)}
        fit = sample_fit(asked, load_experiment(asked.experiment), sample, run.posterior, **options)
        values = run.result.values()
        errors = {n: p.error for n, p in run.result.parameters.items() if not p.fixed and math.isfinite(p.error)}
        basis = ReducedBasis.build(fit.model, values, slider_ranges(fit.model, values, errors), n_check=8)
        data = explorer_data(
            basis,
            counts=sample.counts,
            days=sample.live_days,
            title=clean(run.run.get("title") or "This run", 200),
            edges_MeV=sample.edges_MeV,
            extra_variance=fit.mc_covariance,
            priors={n: p.prior for n, p in run.result.parameters.items() if p.prior is not None and not p.fixed},
            errors=errors,
            statistic=fit.statistic,
            legend="simulated data" if run.simulated else "data",
        )
    return explorer_html(data)


def _provenance(run: RunRecord, build: _Builder) -> list[Block]:
    r, now = run.run, versions()
    facts = [("Command", str(r.get("command") or "–")), ("Seed", str(r.get("seed", "–")))]
    facts.append(("Commit of the code", str(r.get("commit") or "not in a repository")))
    told = r.get("versions") or (run.result.versions if run.result else {})
    facts += [(f"Version of {name}", str(v)) for name, v in told.items() if v is not None]
    facts.append(("This page made by", f"nuebar {now['nuebar']}"))
    if run.tuning is not None:
        facts += [(f"Density: {k}", str(v)) for k, v in run.tuning.density_provenance.items()]
    c = run.summary.get("classifier") or {}
    if c.get("digest"):
        facts.append(("Classifier: digest", str(c["digest"])))
    return [Facts(facts)]


def _stage_table(run: RunRecord, build: _Builder) -> list[Block]:
    if not run.stages:
        return []
    rows = []
    for stage in STAGES:
        about = run.stages.get(stage)
        if about is None:
            continue
        seconds = about.get("seconds")
        inputs = about.get("inputs")
        read = _inputs(inputs, run) if isinstance(inputs, Mapping) else str(inputs or "")
        shown = f"{seconds:,.1f}" if isinstance(seconds, int | float) else "–"
        rows.append(
            [stage, shown, str(about.get("digest") or "–"), read or "nothing", str(about.get("commit") or "–")[:12]]
        )
    known = [a.get("seconds") for a in run.stages.values()]
    total = sum(s for s in known if isinstance(s, int | float))
    rows.append(["sum", f"{total:,.1f}", "", "", ""])
    header = ["Stage", "Seconds", "Digest of its files", "Read", "Commit"]
    caption = "The same digests mean the same bits; clocks are left out of them."
    return [Table(caption, header, rows, frozenset({2, 3, 4}))]


def _inputs(inputs: Mapping[str, Any], run: RunRecord) -> str:
    """What a stage read: stages by name, files with their digests."""
    words = []
    for name, digest in inputs.items():
        same = name in run.stages and run.stages[name].get("digest") == digest
        words.append(str(name) if same else f"{_base(name)} ({digest})")
    return ", ".join(words)


def _texts(run: RunRecord, build: _Builder) -> list[Block]:
    if not run.text:
        return []
    return [Code("The run file with every default", clean(run.text, 100_000))]


# ---------------------------------------------------------------- JSON


def run_record(run: RunRecord, notices: Sequence[Notice]) -> dict[str, Any]:
    """The numbers of the page for machines; a number that does not exist is null.

    Args:
        run: Of :func:`~nuebar.chain.report_numbers.read_run`.
        notices: Of :func:`run_page`.
    """
    s, d, t, r = run.summary, run.selection, run.tuning, run.result
    histogram = {n: h and {"edges_MeV": h.edges, "counts": h.counts, "variances": h.variances}
                 for n, h in (("prompt", run.prompt), ("accidentals", run.accidentals))}  # fmt: skip
    shap = d.get("shap")
    shap = _without(shap, "values", "data", "kinds") if isinstance(shap, Mapping) else None
    record = {
        "kind": "report of a run",
        "title": run.run.get("title"),
        "experiment": run.run.get("experiment"),
        "seed": run.run.get("seed"),
        "simulated": run.simulated,
        "live_days": s.get("live_days"),
        "recovered": [row.record() for row in recovered(run)],
        "agreement_with_truth": agreement(run),
        "notices": [{"level": n.level, "stage": n.stage, "text": n.text} for n in notices],
        "missing": [stage for stage, there in (("select", s), ("tune", t or run.posterior), ("predict", run.prediction),
                                               ("fit", r)) if not there],
        "select": {"summary": s, **histogram, "efficiency": run.efficiency, "roc": d.get("roc"),
                   "boundary": d.get("boundary"), "shap": shap} if s or d or run.efficiency else None,
        "tune": None if t is None else {**_without(t.to_dict(), "samples"), "coverage": run.coverage.get("coverage"),
                                        "spectra": run.coverage.get("spectra")},
        "posterior": None if run.posterior is None else {"names": run.posterior.names, "mean": run.posterior.mean,
                                                         "covariance": run.posterior.covariance},
        "predict": run.prediction or None,
        "fit": None if r is None and not run.fit else {"result": None if r is None else r.to_dict(), **run.fit},
        "provenance": {"run": _without(run.run, "stages"), "stages": run.stages, "page": {"versions": versions(),
                                                                                         "commit": git_commit()}},
    }  # fmt: skip
    plain = _plain(record)
    assert isinstance(plain, dict)
    return plain


def _without(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in table.items() if k not in keys}


def _plain(value: Any) -> Any:
    """JSON's own types, null for what is not finite, no halves of surrogate pairs."""
    if isinstance(value, Mapping):
        return {clean(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return clean(value, 100_000) if isinstance(value, str) else value

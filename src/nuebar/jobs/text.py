"""What the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.stats import chi2 as chi2_distribution

from nuebar.fit import known_coverage
from nuebar.jobs.published import PUBLISHED_PRECISION
from nuebar.parameters import OSCILLATION
from nuebar.report.tables import minuit_table, with_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nuebar.jobs.calibration import BranchRow
    from nuebar.jobs.fit import FitOutcome
    from nuebar.jobs.predict import Prediction
    from nuebar.run import StageResult
    from nuebar.simulate.quench import Response
    from nuebar.simulate.singles_table import Accidentals, MaterialRates

__all__ = ["calibration_report", "files_report", "fit_report", "rates_table", "singles_table_text"]


def fit_report(outcome: FitOutcome) -> str:
    """The tables of a fit, the comparison with published values and of flux models, and what moves the result."""
    lines = [_header(outcome), *_bins(outcome), "", minuit_table(outcome.shown), "", *_summary(outcome)]
    if outcome.simulated and outcome.experiment.name in PUBLISHED_PRECISION and _six_years(outcome):
        lines += ["", *_precision(outcome)]
    if outcome.comparison and not outcome.hidden:
        lines += ["", *_comparison(outcome)]
    if outcome.impacts:
        lines += ["", *_impacts(outcome)]
    lines += [*_remarks(outcome), *_known_coverage(outcome)]
    return "\n".join(lines)


def _known_coverage(outcome: FitOutcome) -> list[str]:
    """Intervals that are known not to cover what they should."""
    result, days = outcome.result, outcome.experiment.exposure.days
    told = known_coverage.warnings(outcome.experiment.name, days, result.statistic, result)
    return ["", *(f"careful: {sentence}" for sentence in told)] if told else []


def rates_table(shown: Prediction) -> str:
    """Rates of every core and background, at full power and over the calendar."""
    e = shown.experiment
    full, live = shown.full_power_days, e.exposure.days
    signal = sum(shown.cores.values())
    lines = [
        f"{e.title}: {live:.6g} days of live detector, {full:.6g} full-power days (duty {e.reactor.duty_cycle:.4g})",
        "",
        f"{'core':8s} {'L [km]':>8s} {'P [GW]':>7s} {'per full-power day':>19s} {'before efficiency':>18s} "
        f"{'per calendar day':>17s}",
    ]
    rows = [(c.name, f"{c.baseline_km:8.2f}", f"{c.power_GW:7.2f}", shown.cores[c.name]) for c in e.reactor.cores]
    for name, baseline, power, n in [*rows, ("sum", " " * 8, " " * 7, signal)]:
        lines.append(
            f"{name:8s} {baseline} {power} {n / full:19.3f} {n / full / e.target.efficiency:18.3f} {n / live:17.3f}"
        )
    flat = float(shown.unoscillated.sum())
    lines += [
        "",
        f"without oscillation: {flat / full:.2f} selected and {flat / full / e.target.efficiency:.2f} before "
        "efficiency per full-power day",
        "",
        f"{'background':20s} {'per day':>10s} {'events':>10s}",
    ]
    for b in e.backgrounds:
        events = float(shown.components[b.name].sum())
        lines.append(f"{b.name:20s} {events / live:10.4g} {events:10.5g}")
    total = float(sum(c.sum() for c in shown.components.values()))
    lines += [
        "",
        f"expected events in {len(shown.model.edges_MeV) - 1} bins: {total:.1f}, signal {signal:.1f}",
    ]
    return "\n".join(lines)


def _header(outcome: FitOutcome) -> str:
    kind = "expected counts (Asimov, simulated)" if outcome.simulated else "measured counts"
    e = outcome.experiment
    return (
        f"{e.title}: {kind}, {outcome.fit.counts.sum():.6g} events in {len(outcome.fit.counts)} bins, "
        f"{e.exposure.days:.6g} days, {outcome.shown.ordering} ordering, {outcome.shown.statistic}, "
        f"{outcome.shown.predictor} predictor"
    )


def _bins(outcome: FitOutcome) -> list[str]:
    """One line where the bins are not those of the experiment."""
    edges, own = outcome.fit.model.edges_MeV, outcome.experiment.binning.edges()
    if len(edges) == len(own) and all(abs(a - b) < 1e-6 for a, b in zip(edges, own, strict=True)):
        return []
    return [
        f"bins of the predictor instead of the experiment's {len(own) - 1}, which it does not have: {len(edges) - 1} "
        f"from {edges[0]:g} to {edges[-1]:g} MeV"
    ]


def _summary(outcome: FitOutcome) -> list[str]:
    """χ² per degree of freedom, derived splittings and published values."""
    shown, ndof = outcome.shown, outcome.shown.n_dof
    lines = []
    if ndof > 0:
        ratio, p_value = shown.chi2 / ndof, float(chi2_distribution.sf(shown.chi2, ndof))
        lines.append(f"χ²/ndof = {shown.chi2:.2f}/{ndof} = {ratio:.3f}, p-value = {p_value:.3g}, {shown.reason}")
    else:
        lines.append(shown.reason)
    derived = {} if shown.blinded else shown.derived
    published = outcome.published
    for name in [*(n for n in shown.parameters if n in published), *derived]:
        p = shown.parameters.get(name)
        value, error = derived[name] if p is None else (p.value, p.error)
        line = f"  {name:12s} {with_error(name, value, error)}"
        if name in published:
            centre, width = published[name]
            line += (
                f"   published {with_error(name, centre, width)}, difference {(value - centre) / width:+.2f} of its σ"
            )
        lines.append(line)
    return lines


def _remarks(outcome: FitOutcome) -> list[str]:
    """What a reader should know before trusting the errors or the map."""
    e = outcome.experiment
    lines = [f"reactor spectrum: {e.reactor.spectrum}, shape {e.reactor.shape}" if not outcome.job.inputs else ""]
    if not e.systematics.signal and e.reactor.segments_MeV == ():
        lines.append("no uncertainty of the signal rate: the experiment's [systematics.signal] is empty")
    if not (e.systematics.energy_scale or e.systematics.nonlinearity):
        lines.append("no uncertainty of the energy scale: the experiment has neither energy_scale nor nonlinearity")
    light = [p for n, p in outcome.result.parameters.items() if n in ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")]
    if light and all(p.fixed for p in light):
        lines.append("no uncertainty of the detector's response: kB, fC and light yield are fixed (--response FILE)")
    for n, p in outcome.result.parameters.items():
        low, high = p.limits
        if not p.fixed and low is not None and high is not None and p.error > high - low:
            lines.append(
                f"{n} is not measured: its error {p.error:.2g} is larger than its range; fix it or give a prior"
            )
    if outcome.contour is not None:
        d = outcome.contour.delta_chi2
        lowest = min(d[0].min(), d[-1].min(), d[:, 0].min(), d[:, -1].min())
        if lowest < 11.83:
            lines.append(
                f"the map ends at Δχ² = {lowest:.1f}, inside the 99.73 % contour (11.83): a limit of a parameter, or "
                "widen it with --contour-sigma"
            )
    if outcome.job.contour and outcome.contour is None and not outcome.result.valid:
        lines.append("no map: the fit is not valid")
    kept = [line for line in lines if line]
    return ["", *kept] if kept else []


def _six_years(outcome: FitOutcome) -> bool:
    e = outcome.experiment
    return abs(e.exposure.days / e.exposure.days_per_year - 6.0) < 0.01


def _precision(outcome: FitOutcome) -> list[str]:
    lines = ["expected error against arXiv:2204.13249, table 6 (6 years):"]
    for name, value in PUBLISHED_PRECISION[outcome.experiment.name].items():
        p = outcome.result.parameters[name]
        if name in outcome.result.parameter_order:
            lines.append(f"  {name:12s} {p.error:.3e}   published {value:.2e}   ratio {p.error / value:.3f}")
    return lines


def _comparison(outcome: FitOutcome) -> list[str]:
    names = [n for n in OSCILLATION if n in outcome.interest and outcome.result.parameters[n].prior is None]
    head = " ".join(f"{n:>24s}" for n in names)
    lines = [
        "flux models and energy scales (the result is the pre-stated one, marked *):",
        f"  {'flux':14s} {'energy':8s} {head} {'chi2/ndof':>12s}",
    ]
    for row in outcome.comparison:
        stated = abs(row.result.chi2 - outcome.result.chi2) < 1e-6
        cells = []
        for n in names:
            p = row.result.parameters[n]
            scale = 1e5 if n == "dm2_21_eV2" else 1e3 if n.startswith("dm2") else 1.0
            unit = {1e5: "e-5", 1e3: "e-3"}.get(scale, "")
            cells.append(f"{p.value * scale:9.4f} ± {p.error * scale:.4f}{unit}".rjust(24))
        mark = "*" if stated else " "
        chi2 = f"{row.result.chi2:.1f}/{row.result.n_dof}"
        lines.append(f"{mark} {row.flux:14s} {row.energy:8s} {' '.join(cells)} {chi2:>12s}")
    return lines


def _impacts(outcome: FitOutcome) -> list[str]:
    lines = ["largest impacts (shift of the parameter, in its errors, when the pull moves by its own fitted error):"]
    for name, ranked in outcome.impacts.items():
        error = outcome.result.parameters[name].error
        top = ", ".join(f"{n} {v / error:+.2f}" for n, v in list(ranked.items())[:5])
        lines.append(f"  {name:12s} {top}")
    return lines


def files_report(result: StageResult, count: str, what: str) -> str:
    """One line on what a stage wrote.

    Args:
        result: The stage.
        count: Key of its summaries that counts.
        what: What is counted, in words.
    """
    total = sum(int((s or {}).get(count, 0)) for s in result.summaries)
    files = len(result.paths)
    names = result.paths[0] if files == 1 else f"{result.paths[0]} to {result.paths[-1].name}"
    kept = f", {result.kept} of them kept from before" if result.kept else ""
    return f"{total:,} {what} in {files} file{'s' if files > 1 else ''}{kept}: {names}"


def calibration_report(rows: Iterable[BranchRow], point: Response, result: StageResult) -> str:
    """Where the branches of every source lie and their share of the triggers, and what was written."""
    lines = [
        f"at kB {point.kB_g_cm2_GeV:g} g/cm²/GeV, fC {point.fC:g}, {point.light_yield_per_MeV:g} photons/MeV:",
        f"{'source':10s} {'part':8s} {'branch':34s} {'mean [p.e.]':>12s} {'area':>8s}",
    ]
    lines += [f"{r.source:10s} {r.part:8s} {r.title:34s} {r.mean_pe:12.1f} {r.share:8.2%}" for r in rows]
    return "\n".join([*lines, "", files_report(result, "events", "events")])


def singles_table_text(rows: tuple[MaterialRates, ...], accidentals: Accidentals) -> str:
    """Rates of singles by material and the accidentals that cuts leave."""
    lines = [
        "reconstructed rates [Hz] above the threshold",
        f"{'material':14s} {'everywhere':>11s} {'fiducial':>9s} {'share':>7s} {'delayed windows':>16s}",
    ]
    for row in rows:
        delayed = sum(row.delayed_Hz)
        lines.append(
            f"{row.name:14s} {row.rate_Hz:11.3f} {row.fiducial_Hz:9.3f} {row.fiducial_share:7.1%} {delayed:16.4f}"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"accidental pairs after the published cuts: {accidentals.per_day:.2f} a day "
            f"(prompt {accidentals.prompt_Hz:.2f} Hz, delayed {accidentals.delayed_Hz:.3f} Hz, "
            f"{accidentals.close:.2e} of them close), without dead time",
        ]
    )

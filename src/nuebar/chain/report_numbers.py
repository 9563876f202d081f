"""What the files of a run say, as numbers: what was recovered, what is in order, and what asks for attention.

Stages that a user did not run are simply not there. A file that cannot be read takes nothing with it but itself: it
becomes a notice, which stands first on the page.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.stats import binomtest, chi2

from nuebar.chain.folder import DONE
from nuebar.chain.run_file import RESPONSE, STAGES
from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.io.files import read_text
from nuebar.io.histograms import Histogram
from nuebar.io.posteriors import ResponsePosterior, load_posterior
from nuebar.io.results import load_result
from nuebar.io.tunings import TuningResult, load_tuning
from nuebar.parameters import OSCILLATION
from nuebar.report.page import Notice

__all__ = ["PRIOR_DOMINATED", "Row", "RunRecord", "agreement", "notices_of", "read_run", "recovered"]

PRIOR_DOMINATED = 0.9
"""Post-fit error over the width of the prior, above which the data hardly say more than the prior."""

_LOOK, _BAD = 0.01, 1e-3  # p-values
_NEAR = 3.0  # standard deviations between a posterior and the edge of the predictor's box
_SKEW = 0.25  # relative difference between an error and the ends of an interval, above which nothing is Gaussian
_LARGEST = 1 << 28  # bytes of a file of a stage
_FEW_EVENTS = 100  # off-time pairs: their number is known to 10 %

T = TypeVar("T")


@dataclass
class RunRecord:
    """Everything that the folder of a run holds for the page; None or empty where it is not there.

    Attributes:
        home: The folder.
        run: ``run.json``.
        text: The resolved run file.
        stages: Stage → what it says of itself: seconds, versions, commit, inputs, digest.
        truth: Parameter → true value.
        summary: Of the selected sample.
        prompt: Its spectrum.
        accidentals: Its background measured off time.
        efficiency: Efficiency of the selection by source.
        selection: ROC, boundary and Shapley values.
        tuning: Result of the tuning.
        posterior: What the fit took as its prior of the response.
        coverage: Coverage and spectra of the tuning.
        prediction: Expected spectrum.
        fit: Bins, components, contour, impacts.
        result: Result of the fit.
        unread: What could not be read.
    """

    home: Path
    run: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    prompt: Histogram | None = None
    accidentals: Histogram | None = None
    efficiency: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    tuning: TuningResult | None = None
    posterior: ResponsePosterior | None = None
    coverage: dict[str, Any] = field(default_factory=dict)
    prediction: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    result: FitResult | None = None
    unread: list[Notice] = field(default_factory=list)

    @property
    def simulated(self) -> bool:
        """Whether the truth is known."""
        return bool(self.truth)


def read_run(home: str | os.PathLike[str]) -> RunRecord:
    """Read the folder of a run.

    Args:
        home: The folder, as ``nuebar run`` leaves it; any stage may be missing.

    Raises:
        NuebarError: There is no such folder, or nothing of a run in it.
    """
    place = Path(home)
    if not place.is_dir():
        raise NuebarError(f"{place}: expected the folder of a run, found none; check the path")
    record = RunRecord(place)

    nothing: dict[str, Any] = {}

    def read(name: str, reader: Callable[[Path], T], empty: T) -> T:
        path = place / name
        try:
            if not path.is_file():
                return empty
            if path.stat().st_size > _LARGEST:
                raise NuebarError(f"{path}: expected at most {_LARGEST >> 20} MiB, got {path.stat().st_size} bytes")
            return reader(path)
        except (NuebarError, OSError) as error:
            record.unread.append(Notice("bad", name.partition("/")[0], f"{name} cannot be read: {error}"))
            return empty

    record.run = read("run.json", load_result, nothing)
    record.text = read("run.toml", read_text, "")
    truth: dict[str, Any] = read("simulate/truth.json", load_result, nothing)
    record.truth = {**_numbers(truth.get("oscillation")), **_numbers(truth.get("response"))}
    record.summary = read("select/summary.json", load_result, nothing)
    record.prompt = read("select/prompt.json", Histogram.load, None)
    record.accidentals = read("select/accidentals.json", Histogram.load, None)
    record.efficiency = read("select/efficiency.json", load_result, nothing)
    record.selection = read("select/diagnostics.json", load_result, nothing)
    record.tuning = read("tune/tuning.json", _tuning, None)
    record.posterior = read("tune/posterior.json", load_posterior, None)
    record.coverage = read("tune/diagnostics.json", load_result, nothing)
    record.prediction = read("predict/prediction.json", load_result, nothing)
    record.fit = read("fit/fit.json", load_result, nothing)
    record.result = read("fit/result.json", _fit_result, None)
    told = record.run.get("stages")
    for stage in STAGES:
        about = told.get(stage) if isinstance(told, Mapping) else None
        if not isinstance(about, Mapping):
            about = read(f"{stage}/{DONE}", load_result, nothing)
        if about and stage != "report":
            record.stages[stage] = dict(about)
    found = (
        record.summary,
        record.prompt,
        record.tuning,
        record.posterior,
        record.prediction,
        record.fit,
        record.result,
    )
    if not any(found) and not record.unread:
        raise NuebarError(
            f"{place}: expected the folder of a run with at least one finished stage ({', '.join(STAGES[1:-1])}), "
            "found none; make one with: nuebar run --out FOLDER"
        )
    return record


def _tuning(path: Path) -> TuningResult:
    """A tuning whose vectors have one entry for each parameter."""
    t = load_tuning(path)
    n = len(t.names)
    good = t.mean.shape == (n,) and t.covariance.shape == (n, n) and set(t.names) <= set(t.best) & set(t.errors)
    if not good or (t.samples is not None and t.samples.shape[1:] != (n,)):
        raise NuebarError(f"{path}: expected means, errors and a covariance of {', '.join(t.names)}, got others")
    return t


def _fit_result(path: Path) -> FitResult:
    """A result whose every number is one."""
    result = FitResult.from_dict(load_result(path))
    try:
        numbers = (result.chi2, result.chi2_pulls, result.n_bins, result.n_free, result.seconds)
        if not all(isinstance(x, int | float) for x in numbers) or not isinstance(result.versions, Mapping):
            raise TypeError("expected numbers and versions")
        if result.covariance.shape != (len(result.parameter_order),) * 2 or set(result.parameter_order) - set(
            result.parameters
        ):
            raise ValueError("expected a covariance of its free parameters")
        result.to_dict()
    except (TypeError, ValueError, AttributeError) as error:
        raise NuebarError(f"{path}: not a fit result of this format: {type(error).__name__}: {error}") from error
    return result


def _numbers(table: Any) -> dict[str, float]:
    if not isinstance(table, Mapping):
        return {}
    return {str(k): float(v) for k, v in table.items() if isinstance(v, int | float) and not isinstance(v, bool)}


# ---------------------------------------------------------------- what was recovered


@dataclass(frozen=True)
class Row:
    """A recovered parameter.

    Attributes:
        name: The parameter.
        where: ``"spectrum fit"`` or ``"calibration"``.
        value: Best fit, or mean of the posterior.
        error: Its standard deviation.
        error_minus: Distance to the lower end of the interval, negative.
        error_plus: Distance to the upper end.
        fixed: Whether it was left alone.
        prior: Centre and width of its prior.
        truth: True value, if known.
    """

    name: str
    where: str
    value: float
    error: float
    error_minus: float
    error_plus: float
    fixed: bool = False
    prior: tuple[float, float] | None = None
    truth: float | None = None

    @property
    def sigmas(self) -> float | None:
        """(value − truth) / error, with the error of the side on which the truth lies."""
        if self.truth is None or self.fixed:
            return None
        side = -self.error_minus if self.value > self.truth else self.error_plus
        size = side if math.isfinite(side) and side > 0 else self.error
        return (self.value - self.truth) / size if math.isfinite(size) and size > 0 else None

    @property
    def share(self) -> float | None:
        """Error over the width of the prior."""
        return None if self.prior is None or self.fixed or not self.prior[1] > 0 else self.error / self.prior[1]

    @property
    def prior_dominated(self) -> bool:
        """Whether the data hardly say more than the prior."""
        return self.share is not None and self.share > PRIOR_DOMINATED

    def record(self) -> dict[str, Any]:
        """For JSON."""
        names = ("name", "where", "value", "error", "error_minus", "error_plus", "fixed", "prior", "truth")
        more = {"sigmas": self.sigmas, "error_over_prior": self.share, "prior_dominated": self.prior_dominated}
        return {**{n: getattr(self, n) for n in names}, **more}


def recovered(run: RunRecord) -> list[Row]:
    """Oscillation parameters of the fit, then the response from calibration, then the response after the fit.

    Args:
        run: Of :func:`read_run`. A blinded fit has no truth beside it: hidden offsets are inside its values.
    """
    rows, result = [], run.result
    known = {} if result is not None and result.blinded else run.truth

    def fitted(names: tuple[str, ...]) -> list[Row]:
        found = []
        for name in names:
            p = None if result is None else result.parameters.get(name)
            if p is not None and not (p.fixed and name in RESPONSE):
                numbers = (p.value, p.error, p.error_minus, p.error_plus, p.fixed, p.prior, known.get(name))
                found.append(Row(name, "spectrum fit", *numbers))
        return found

    rows += fitted(OSCILLATION)
    if run.tuning is not None:
        t = run.tuning
        for k, name in enumerate(t.names):
            value, variance = float(t.mean[k]), float(t.covariance[k, k])
            error = math.sqrt(variance) if variance > 0 else math.nan
            rows.append(Row(name, "calibration", value, error, -error, error, truth=run.truth.get(name)))
    elif run.posterior is not None:
        for name, value, variance in zip(
            run.posterior.names, run.posterior.mean, np.diag(run.posterior.covariance), strict=True
        ):
            error = math.sqrt(float(variance))
            rows.append(Row(name, "calibration", float(value), error, -error, error, truth=run.truth.get(name)))
    return rows + fitted(RESPONSE)


def agreement(run: RunRecord) -> dict[str, Any] | None:
    """Whether the fitted parameters together agree with the truth: d² = Δᵀ C⁻¹ Δ, a χ² for a Gaussian posterior.

    A parameter whose interval is far from ± its error, as with several minima, is no part of a Gaussian and left out.

    Args:
        run: Of :func:`read_run`.

    Returns:
        ``parameters``, ``left_out``, ``chi2``, ``n`` and ``p_value``; None where truth or covariance are not known.
    """
    result = run.result
    if result is None or result.blinded or not run.truth:
        return None
    known = [n for n in result.parameter_order if n in run.truth]
    names = [n for n in known if _gaussian(result.parameters[n])]
    index = [result.parameter_order.index(n) for n in names]
    covariance = np.asarray(result.covariance, float)[np.ix_(index, index)]
    if not names or not np.all(np.isfinite(covariance)):
        return None
    away = np.array([result.parameters[n].value - run.truth[n] for n in names])
    scale = np.sqrt(np.diag(covariance))
    if not np.all(scale > 0):
        return None
    try:
        distance = float((away / scale) @ np.linalg.solve(covariance / np.outer(scale, scale), away / scale))
    except np.linalg.LinAlgError:
        return None
    return {
        "parameters": names,
        "left_out": [n for n in known if n not in names],
        "chi2": distance,
        "n": len(names),
        "p_value": float(chi2.sf(distance, len(names))),
    }


def _gaussian(p: ParameterResult) -> bool:
    """Whether the ends of the interval are where the covariance has them."""
    sides = (-p.error_minus, p.error_plus)
    return not all(math.isfinite(x) for x in (*sides, p.error)) or all(
        abs(x - p.error) < _SKEW * p.error for x in sides
    )


# ---------------------------------------------------------------- notices


def notices_of(run: RunRecord) -> list[Notice]:
    """Everything that a reader must know before the numbers, and what was found in order.

    Args:
        run: Of :func:`read_run`.
    """
    notices = list(run.unread)
    for part in (_run_notices, _select_notices, _tune_notices, _predict_notices, _fit_notices, _truth_notices):
        try:
            notices += part(run)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            word = part.__name__.strip("_").partition("_")[0]
            text = f"its files are not as expected, so they were not checked: {type(error).__name__}: {error}"
            notices.append(Notice("bad", word, text))
    once: dict[tuple[str, str], Notice] = {}
    for notice in notices:
        once.setdefault((notice.stage, notice.text), notice)
    return list(once.values())


def _p_notice(stage: str, what: str, p: float, good: str) -> Notice:
    """A p-value, judged."""
    word = f"p = {p:.2g}"
    if p < _BAD:
        return Notice(
            "bad", stage, f"{what}: {word}. Data of this model look like this in less than one of 1000 cases."
        )
    if p < _LOOK:
        return Notice("look", stage, f"{what}: {word}.")
    return Notice("ok", stage, f"{good} ({word}).")


def _told(stage: str, record: Mapping[str, Any]) -> list[Notice]:
    """Warnings that a stage wrote down itself."""
    texts = record.get("warnings") or []
    out = [Notice("look", stage, str(text)) for text in ([texts] if isinstance(texts, str) else texts)]
    if record.get("note"):
        out.append(Notice("look", stage, f"{record['note']}."))
    return out


def _run_notices(run: RunRecord) -> list[Notice]:
    out = _told("run", run.run)
    out += [
        Notice("look", "run", f"Outside of the folder of the run file: {text}") for text in run.run.get("outside") or []
    ]
    seen: dict[str, dict[str, list[str]]] = {}
    for stage, about in run.stages.items():
        told = {**(about.get("versions") or {}), "commit": about.get("commit")}
        for name, version in told.items():
            seen.setdefault(str(name), {}).setdefault(str(version), []).append(stage)
    changed = {name: found for name, found in seen.items() if len(found) > 1}
    for name, found in changed.items():
        words = "; ".join(f"{version[:12]} in {', '.join(stages)}" for version, stages in found.items())
        text = f"{name} changed between the stages: {words}. Equal bits are promised for one set of versions only."
        out.append(Notice("look", "run", text))
    if len(run.stages) > 1 and not changed:
        out.append(Notice("ok", "run", "All stages were made with the same versions."))
    dirty = sorted(stage for stage, about in run.stages.items() if str(about.get("commit") or "").endswith("-dirty"))
    if dirty:
        text = f"The code had changes that are in no commit: {', '.join(dirty)}. It cannot be restored from the commit."
        out.append(Notice("note", "run", text))
    for stage, about in run.stages.items():
        inputs = about.get("inputs")
        for before, digest in inputs.items() if isinstance(inputs, Mapping) else ():
            now = run.stages.get(before, {}).get("digest")
            if now is not None and digest != now:
                out.append(
                    Notice("bad", stage, f"It was made from another result of {before} than the one that is here.")
                )
    return out


def _select_notices(run: RunRecord) -> list[Notice]:
    summary = run.summary
    out = [*_told("select", summary), *_told("select", run.efficiency), *_told("select", run.selection)]
    if not summary:
        return out
    estimate = summary["accidentals"]
    value, error, pairs = (float(estimate[k]) for k in ("value", "error", "off_time_pairs"))
    if pairs < _FEW_EVENTS:
        text = f"The accidental background rests on {pairs:.0f} off-time pairs: its error is hardly known."
        out.append(Notice("look", "select", text))
    elif value > 0:
        text = f"Accidental background measured to {100 * error / value:.1f} % with {pairs:,.0f} off-time pairs."
        out.append(Notice("ok", "select", text))
    pull = (summary.get("truth") or {}).get("accidental_pull")
    if pull is not None and abs(pull) > 3:
        text = f"The measured number of accidentals lies {pull:+.1f} σ from the true one."
        out.append(Notice("bad" if abs(pull) > 5 else "look", "select", text))
    days, live = float(summary["days"]), float(summary["live_days"])
    if live < 0.5 * days:
        out.append(Notice("look", "select", f"Only {live:.3g} of {days:.3g} days are live."))
    purity = summary.get("purity")
    if purity is not None and purity < 0.5:
        out.append(Notice("look", "select", f"Only {100 * purity:.0f} % of the candidates are no accidentals."))
    if not summary.get("candidates"):
        out.append(Notice("bad", "select", "Nothing was selected."))
    return out


def _tune_notices(run: RunRecord) -> list[Notice]:
    out = _told("tune", run.coverage)
    t = run.tuning
    if t is None:
        told = "yes" if run.posterior is None else run.posterior.provenance.get("valid", "yes")
        return out if told == "yes" else [*out, Notice("bad", "tune", f"The tuning was not valid ({told}).")]
    out.append(
        Notice("ok", "tune", "The tuning is valid.")
        if t.valid
        else Notice("bad", "tune", f"The tuning is not valid: {t.reason}.")
    )
    out += [Notice("look", "tune", text) for text in t.warnings]
    if t.at_limit:
        out.append(Notice("bad", "tune", f"On the edge of its range: {', '.join(t.at_limit)}."))
    if t.goodness is not None:
        g = t.goodness
        out.append(_p_notice("tune", "Goodness of fit of all sources", g.p_value, "The fit describes all sources"))
        for s in g.sources:
            if s.p_value < _LOOK:
                text = f"Goodness of fit of {s.source}: p = {s.p_value:.2g}."
                out.append(Notice("bad" if s.p_value < _BAD else "look", "tune", text))
    return out + _coverage_notices(run.coverage.get("coverage") or {})


def _coverage_notices(coverage: Mapping[str, Any]) -> list[Notice]:
    """Whether regions hold the truth as often as they promise: the smallest of all binomial p-values, corrected."""
    n, levels = int(coverage.get("replicas") or 0) - int(coverage.get("failed") or 0), coverage.get("levels") or []
    covered = coverage.get("covered") or {}
    if n < 1 or not covered:
        return []
    found = [
        (binomtest(round(n * share), n, level).pvalue, name)
        for name, shares in covered.items()
        for level, share in zip(levels, shares, strict=True)
    ]
    least, name = min(found)
    # Levels of one parameter share their replicas: the correction is on the cautious side.
    p = min(1.0, least * len(found))
    return [
        _p_notice("tune", f"Coverage of {name} in {n} replicas", p, f"Intervals cover as they promise in {n} replicas")
    ]


def _predict_notices(run: RunRecord) -> list[Notice]:
    out = _told("predict", run.prediction)
    reference = run.prediction.get("reference")
    if reference:
        out += _told("predict", reference)
        p, events = float(reference["p_value"]), float(reference["events"])
        text = f"The surrogate agrees with {events:,.0f} reweighted Monte Carlo pairs"
        out.append(_p_notice("predict", f"The surrogate against {events:,.0f} reweighted Monte Carlo pairs", p, text))
    return out


def _fit_notices(run: RunRecord) -> list[Notice]:
    out, result = [], run.result
    if result is not None:
        if result.blinded:
            out.append(
                Notice("note", "fit", "BLINDED: hidden offsets are inside the values; no truth stands beside them.")
            )
        if result.valid:
            out.append(Notice("ok", "fit", "The minimum is certified."))
        else:
            out.append(Notice("bad", "fit", f"The fit is not valid: {result.reason}. Do not use its numbers."))
        if result.at_limit:
            out.append(Notice("bad", "fit", f"On a limit: {', '.join(result.at_limit)}."))
        out += _box_notices(run, result)
    goodness = run.fit.get("goodness") or {}
    if goodness.get("p_value") is not None:
        words = f"χ² = {float(goodness['chi2']):.1f} for {goodness['n_dof']} degrees of freedom"
        p = float(goodness["p_value"])
        out.append(
            _p_notice("fit", f"The fit describes the data badly, {words}", p, f"The fit describes the data, {words}")
        )
    # The stage says some of this itself.
    own = {"The fit is not valid", "On a limit", "The fit describes the data badly"}
    said = [n for n in _told("fit", run.fit) if not any(n.text.startswith(start) for start in own)]
    return out + said


def _box_notices(run: RunRecord, result: FitResult) -> list[Notice]:
    """A posterior of the response that the limits of the predictor cut."""
    posterior, out = run.posterior, []
    if posterior is None or any("box of the predictor" in str(text) for text in run.fit.get("warnings") or []):
        return []
    for name, mean, sigma in zip(posterior.names, posterior.mean, np.sqrt(np.diag(posterior.covariance)), strict=True):
        p = result.parameters.get(name)
        if p is None or p.fixed:
            continue
        low, high = p.limits
        if (low is not None and mean - _NEAR * sigma < low) or (high is not None and mean + _NEAR * sigma > high):
            words = f"The posterior of {name} ({mean:.5g} ± {sigma:.2g})"
            out.append(Notice("look", "fit", f"{words} reaches beyond the limits of the fit and is cut there."))
    return out


def _truth_notices(run: RunRecord) -> list[Notice]:
    out = []
    for row in recovered(run):
        if row.sigmas is not None and abs(row.sigmas) > 3:
            text = f"{row.name} lies {row.sigmas:+.1f} σ from the truth."
            out.append(Notice("bad" if abs(row.sigmas) > 5 else "look", row.where, text))
    joint = agreement(run)
    if joint is not None:
        which = f"All {joint['n']} fitted parameters together"
        if joint["left_out"]:
            which += f" (without {', '.join(joint['left_out'])}, whose interval is not Gaussian)"
        what = f"{which} against the truth, χ² = {joint['chi2']:.1f}"
        good = f"{which} agree with the truth, χ² = {joint['chi2']:.1f}"
        out.append(_p_notice("truth", what, joint["p_value"], good))
    return out

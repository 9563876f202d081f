"""Is a tuned response right? Studies of a density with simulated calibrations: bias, spread, ranks, coverage.

Every study is a function of a density and of simulated data, and returns plain numbers. Long ones come in two parts:
rows of some points, each of which depends on its number and the seed only, so that a run can stop and go on anywhere,
and a summary of all rows. Fits and posteriors are those of :mod:`nuebar.tune.scoring`.

What is aimed at (:data:`BIAS_AIM_PERCENT`) is what the authors of arXiv:2507.23297 state for their estimators at one
point: biases below 0.25 % of kB, 0.55 % of fC and 0.02 % of the light yield.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm

from nuebar.errors import NuebarError
from nuebar.stats.ranks import Family, coverage, family, pull_summary, uniformity
from nuebar.tune.data import CalibrationData, knot_weights
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.infer import TuningResult, infer
from nuebar.tune.scoring import TOLERANCE, BatchFits, batched_fits, batched_posteriors

__all__ = [
    "ASIMOV_AIM_SIGMA",
    "BIAS_AIM_PERCENT",
    "PUBLISHED_EXAMPLE",
    "AsimovRows",
    "AsimovStudy",
    "CalibrationRows",
    "CalibrationStudy",
    "Exposure",
    "ExposureStudy",
    "Method",
    "PointRows",
    "PointStudy",
    "Simulator",
    "WorkedExample",
    "asimov_rows",
    "asimov_study",
    "calibration_rows",
    "calibration_study",
    "exposures",
    "joined_rows",
    "knots_of",
    "point_rows",
    "point_study",
    "verdict",
    "worked_example",
]

Progress = Callable[[str, int, int], None]

BIAS_AIM_PERCENT = (0.25, 0.55, 0.02)
"""Largest median bias of kB, fC and light yield in testing 2 (README of the code of arXiv:2507.23297)."""

BIAS_AIM_EVENTS = 10_000
"""From this exposure on."""

ASIMOV_AIM_SIGMA = 0.1
"""Largest bias without statistical noise, in the error of :data:`REFERENCE_EVENTS`."""

REFERENCE_EVENTS = 10_000
"""Events of every source to whose errors biases are compared."""

INSIDE_SIGMA = 3.0
"""Points nearer to a wall of the box are listed apart: a flat prior that ends there moves and narrows what is found."""

PUBLISHED_EXAMPLE = {
    "truth": (10.05, 0.225, 11700.0),
    "best": (10.13, 0.238, 11701.0),
    "errors": (0.26, 0.029, 23.0),
}
"""The worked example of the poster of arXiv:2507.23297: truth, and what its flow found."""

LEVEL = 0.01
"""Chance that a family of tests of a right posterior fails."""

_N = len(RESPONSE)
_SAMPLES = 999  # ranks of posterior shares: so many cells less one
_ONE_REACH = 5.0  # standard deviations around the best fit of a single data set
_LEAST_EFFECTIVE = 100.0  # points of a posterior, below which it is not used


class Simulator(Protocol):
    """Where simulated data come from; :class:`nuebar.tune.simulated.SimulatedSources` is one."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names."""

    def counts(
        self, response: ArrayLike, events: int, sets: int, *, seed: int, words: Sequence[str | int] = ()
    ) -> np.ndarray:
        """Histograms of data sets, shape ``(sets, sources, bins)``."""

    def expected(self, response: ArrayLike, blocks: int = 1) -> np.ndarray:
        """Probabilities of the bins, shape ``(blocks, sources, bins)``."""


class _Record:
    """Something that can be written as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and names; what is not finite becomes None."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class _Rows(_Record):
    """Arrays with one row for each point."""

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        if set(mapping) != {f.name for f in fields}:
            raise NuebarError(
                f"rows: expected {', '.join(f.name for f in fields)}, got {', '.join(mapping)}; run again"
            )
        return cls(**{k: _array(v) if isinstance(v, list) else v for k, v in mapping.items()})


def _array(values: list[Any]) -> np.ndarray:
    array = np.array(values)
    return array.astype(float) if array.dtype == object else array  # None, of NaN


R = TypeVar("R", bound=_Rows)


def joined_rows(parts: Sequence[R]) -> R:
    """Rows of several calls as one; numbers that are not arrays must agree, seconds are added up."""
    if not parts:
        raise NuebarError("rows: expected at least one part, got none; run some points first")
    out: dict[str, Any] = {}
    for f in dataclasses.fields(parts[0]):  # type: ignore[arg-type]
        values = [getattr(part, f.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            out[f.name] = np.concatenate(values)
        elif f.name == "seconds":
            out[f.name] = sum(values)
        elif len(set(values)) == 1:
            out[f.name] = values[0]
        else:
            raise NuebarError(f"rows: expected the same {f.name} in all parts, got {values[:4]}; run them again alike")
    return type(parts[0])(**out)


# --- the worked example ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Method(_Record):
    """What one method found; arrays in the order of the parameters."""

    method: str
    best: np.ndarray
    errors: np.ndarray
    pull: np.ndarray
    seconds: float
    valid: bool


@dataclass(frozen=True, eq=False)
class WorkedExample(_Record):
    """One calibration, several methods, beside the published result.

    Attributes:
        density: Its name.
        truth: Response that was simulated.
        published_best: What the authors' flow found, from other simulated events at the same truth.
        published_errors: Its errors.
        methods: Best fit (minuit), or mean and standard deviation of samples, with pulls (value − truth)/error.
        unbinned: Whether single charges were used.
    """

    density: str
    truth: np.ndarray
    published_best: np.ndarray
    published_errors: np.ndarray
    methods: tuple[Method, ...]
    unbinned: bool


def worked_example(
    density: Density,
    data: CalibrationData,
    *,
    truth: Sequence[float] = PUBLISHED_EXAMPLE["truth"],
    methods: Sequence[Literal["minuit", "nuts", "nested"]] = ("minuit", "nuts", "nested"),
    unbinned: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[WorkedExample, tuple[TuningResult, ...]]:
    """Infer the response of one simulated calibration with several methods.

    Args:
        density: Knows p(x | response, source).
        data: Ten thousand events of every source at the truth.
        truth: Of the data.
        methods: Of :func:`nuebar.tune.infer.infer`.
        unbinned: Whether single charges are used.
        seed: Of samples and replicas.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The numbers, and the full results.
    """
    true = np.asarray(truth, float)
    results, rows = [], []
    for method in methods:
        r = infer(data, density, method=method, unbinned=unbinned, seed=seed, progress=progress)
        best = np.array([r.best[name] for name in RESPONSE]) if method == "minuit" else np.asarray(r.mean)
        errors = np.array([r.errors[name] for name in RESPONSE])
        rows.append(Method(method, best, errors, (best - true) / errors, r.seconds, r.valid))
        results.append(r)
    published = (np.array(PUBLISHED_EXAMPLE["best"]), np.array(PUBLISHED_EXAMPLE["errors"]))
    return WorkedExample(density.name, true, published[0], published[1], tuple(rows), unbinned), tuple(results)


# --- testing 2: many data sets at one point -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Exposure(_Record):
    """Fits of data sets of one size at one point; arrays of shape ``(3,)`` unless said otherwise.

    Attributes:
        events: Of every source in a data set, those outside the range included.
        sets: Data sets.
        used: Those whose fit is valid; the others are left out.
        at_limit: Data sets with a best fit on a wall.
        bias_percent: Median of best − truth, in per cent of the truth.
        bias_noise_percent: Its statistical error.
        bias_sigma: The same median over the median error.
        bias_p: Sign test of a median of zero.
        meets_aim: Bias below :data:`BIAS_AIM_PERCENT`; None below :data:`BIAS_AIM_EVENTS`.
        spread: Standard deviation of the best fits.
        estimated: Root mean square of the errors that the fits gave.
        spread_over_estimated: Their ratio.
        ratio_error: Its statistical error.
        ratio_p: Normal test of one.
        pull_mean: Of (best − truth)/error.
        pull_mean_error: Statistical.
        pull_mean_p: Student's t test of zero.
        pull_width: Standard deviation of the pulls.
        pull_width_error: Statistical.
        pull_width_p: χ² test of one.
        interpolation_error: Largest difference in ln L between polynomials and density.
        seconds: All fits.
        best: Shape ``(used, 3)``.
        errors: Shape ``(used, 3)``.
    """

    events: int
    sets: int
    used: int
    at_limit: int
    bias_percent: np.ndarray
    bias_noise_percent: np.ndarray
    bias_sigma: np.ndarray
    bias_p: np.ndarray
    meets_aim: np.ndarray | None
    spread: np.ndarray
    estimated: np.ndarray
    spread_over_estimated: np.ndarray
    ratio_error: np.ndarray
    ratio_p: np.ndarray
    pull_mean: np.ndarray
    pull_mean_error: np.ndarray
    pull_mean_p: np.ndarray
    pull_width: np.ndarray
    pull_width_error: np.ndarray
    pull_width_p: np.ndarray
    interpolation_error: float
    seconds: float
    best: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True, eq=False)
class ExposureStudy(_Record):
    """The same point with data sets of several sizes.

    Attributes:
        density: Its name.
        truth: Shape ``(3,)``.
        unbinned: Whether single charges were used.
        rows: One for each exposure, ascending.
        line: Spread · √events, averaged over exposures with their errors: the 1/√N line is ``line/√N``.
        line_error: Statistical.
        line_p: χ² test that all exposures lie on it.
        power: Slope of ln spread against ln events; −½ expected.
        power_error: Statistical.
        p_values: Of spread against estimated error, by exposure and parameter: the part of :func:`verdict`.
        seconds: All fits.
    """

    density: str
    truth: np.ndarray
    unbinned: bool
    rows: tuple[Exposure, ...]
    line: np.ndarray
    line_error: np.ndarray
    line_p: np.ndarray
    power: np.ndarray
    power_error: np.ndarray
    p_values: dict[str, float]
    seconds: float


def exposures(
    density: Density,
    data: Mapping[int, np.ndarray],
    truth: Sequence[float],
    *,
    sources: Sequence[str] | None = None,
    unbinned: bool = False,
    aims: Sequence[float] = BIAS_AIM_PERCENT,
    progress: Progress | None = None,
) -> ExposureStudy:
    """Bias, spread and pulls of many data sets at one point, exposure by exposure.

    Args:
        density: Knows ln p.
        data: Events of a source → weights of the data sets: counts, shape ``(sets, sources, bins)``, or of knots
            (:func:`knots_of`) with ``unbinned``.
        truth: Response of the data.
        sources: Rows of the data; those of the density by default.
        unbinned: Whether weights are those of knots.
        aims: Largest biases in per cent.
        progress: Called as ``progress(what, done, total)``.
    """
    true = np.asarray(truth, float)
    rows = []
    for i, (events, weights) in enumerate(sorted(data.items())):
        fits = batched_fits(density, weights, true, sources=sources, unbinned=unbinned)
        rows.append(_exposure(events, fits, true, np.asarray(aims, float)))
        if progress:
            progress("exposures", i + 1, len(data))
    n = np.array([row.events for row in rows], float)[:, None]
    spread = np.array([row.spread for row in rows])
    relative = np.array([row.ratio_error / row.spread_over_estimated for row in rows])
    level = np.log(spread) + 0.5 * np.log(n)
    w = relative**-2
    mean = (w * level).sum(axis=0) / w.sum(axis=0)
    x = np.log(n) - (w * np.log(n)).sum(axis=0) / w.sum(axis=0)
    curved = (w * x**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        power, power_error = (w * x * np.log(spread)).sum(axis=0) / curved, 1 / np.sqrt(curved)
    return ExposureStudy(
        density=density.name,
        truth=true,
        unbinned=unbinned,
        rows=tuple(rows),
        line=np.exp(mean),
        line_error=np.exp(mean) / np.sqrt(w.sum(axis=0)),
        line_p=chi2.sf((w * (level - mean) ** 2).sum(axis=0), len(rows) - 1) if len(rows) > 1 else np.ones(_N),
        power=power,
        power_error=power_error,
        p_values={
            f"spread, {row.events} events, {name}": float(p)
            for row in rows
            for name, p in zip(RESPONSE, row.ratio_p, strict=True)
        },
        seconds=sum(row.seconds for row in rows),
    )


def _exposure(events: int, fits: BatchFits, truth: np.ndarray, aims: np.ndarray) -> Exposure:
    good = fits.valid
    best, errors = fits.best[good], fits.errors[good]
    s = pull_summary(best, errors, truth)
    percent = 100.0 / np.where(truth == 0, np.nan, np.abs(truth))
    bias = s.bias * percent
    return Exposure(
        events=events,
        sets=len(good),
        used=int(good.sum()),
        at_limit=int(fits.at_limit.any(axis=1).sum()),
        bias_percent=bias,
        bias_noise_percent=s.bias_error * percent,
        bias_sigma=s.bias / np.median(errors, axis=0),
        bias_p=s.p_bias,
        meets_aim=np.abs(bias) < aims if events >= BIAS_AIM_EVENTS else None,
        spread=best.std(axis=0, ddof=1),
        estimated=np.sqrt((errors**2).mean(axis=0)),
        spread_over_estimated=s.spread,
        ratio_error=s.spread_error,
        ratio_p=2 * norm.sf(np.abs(s.spread - 1) / s.spread_error),
        pull_mean=s.mean,
        pull_mean_error=s.mean_error,
        pull_mean_p=s.p_mean,
        pull_width=s.width,
        pull_width_error=s.width_error,
        pull_width_p=s.p_width,
        interpolation_error=float(fits.interpolation_error.max()),
        seconds=fits.seconds,
        best=best,
        errors=errors,
    )


def knots_of(density: Density, charges: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Weights of the knots of data sets of single charges, for unbinned studies.

    Args:
        density: With knots.
        charges: For every data set, source → photo-electrons; those outside the range are left out.

    Returns:
        Shape ``(sets, sources, knots)``.

    Raises:
        NuebarError: The density knows bins only.
    """
    knots = np.asarray(density.knots, float)
    if not knots.size:
        raise NuebarError(f"the density {density.name!r} knows bins only; study it binned, or take a density of events")
    out = []
    for n_pe in charges:
        x = [np.asarray(n_pe[s], float) * density.pe_to_observable for s in density.sources]
        out.append([knot_weights(v[(v >= knots[0]) & (v < knots[-1])], knots) for v in x])
    return np.array(out)


# --- testing 1: many points -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PointRows(_Rows):
    """Fits of several data sets at each of many points; arrays of shape ``(points, 3)`` unless said otherwise.

    Attributes:
        events: Of every source in a data set.
        sets: Data sets at each point.
        truth: Response.
        used: Data sets whose fit is valid, shape ``(points,)``.
        at_limit: Those of them with a best fit on a wall, shape ``(points,)``.
        bias: Median of best − truth.
        bias_error: Statistical.
        sigma: Median of the errors.
        spread_over_estimated: Standard deviation of best fits over the root mean square error.
        ratio_error: Statistical.
        pull_mean: Of (best − truth)/error.
        pull_width: Standard deviation of these.
        interpolation_error: Of ln L, shape ``(points,)``.
        seconds: All points, simulation included.
    """

    events: int
    sets: int
    truth: np.ndarray
    used: np.ndarray
    at_limit: np.ndarray
    bias: np.ndarray
    bias_error: np.ndarray
    sigma: np.ndarray
    spread_over_estimated: np.ndarray
    ratio_error: np.ndarray
    pull_mean: np.ndarray
    pull_width: np.ndarray
    interpolation_error: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class PointStudy(_Record):
    """All points together.

    Attributes:
        density: Its name.
        points: How many.
        inside: At least :data:`INSIDE_SIGMA` from every wall, shape ``(points,)``.
        wall_sigma: Distance of the truth to the nearer wall in σ, shape ``(points, 3)``.
        bias_sigma: Bias over σ, shape ``(points, 3)``.
        bias_noise_sigma: Its statistical error.
        worst_sigma: Largest |bias| inside, shape ``(3,)``.
        rms_sigma: Root mean square bias inside, statistical noise subtracted, shape ``(3,)``.
        median_percent: Median over the points inside of the relative bias, in per cent.
        median_noise_percent: Its statistical error.
        p_values: χ² of all biases inside against their noise, by parameter: small where the density is biased by more
            than so many data sets can see, which need not be much.
        seconds_per_point: Simulation and fits.
    """

    density: str
    points: int
    inside: np.ndarray
    wall_sigma: np.ndarray
    bias_sigma: np.ndarray
    bias_noise_sigma: np.ndarray
    worst_sigma: np.ndarray
    rms_sigma: np.ndarray
    median_percent: np.ndarray
    median_noise_percent: np.ndarray
    p_values: dict[str, float]
    seconds_per_point: float


def point_rows(
    density: Density,
    simulator: Simulator,
    points: Mapping[int, Sequence[float]],
    *,
    sets: int = 100,
    events: int = REFERENCE_EVENTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> PointRows:
    """Simulate and fit new data sets at points.

    Args:
        density: Knows ln p.
        simulator: Where data come from.
        points: Number → response; a point's data depend on its number and the seed.
        sets: Data sets at each.
        events: Of every source.
        seed: Of the data.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        One row a point.

    Raises:
        NuebarError: Too few fits at a point are valid.
    """
    began = time.perf_counter()
    rows: dict[str, list[Any]] = {}
    for done, (number, response) in enumerate(points.items(), 1):
        true = np.asarray(response, float)
        counts = simulator.counts(true, events, sets, seed=seed, words=("points", number))
        fits = batched_fits(density, counts, true, sources=simulator.sources)
        best, errors = fits.best[fits.valid], fits.errors[fits.valid]
        if len(best) < 3:
            raise NuebarError(f"point {number}, response {true.tolist()}: {len(best)} of {sets} fits are valid")
        off, median = best - true, np.median(errors, axis=0)
        spread = off.std(axis=0, ddof=1)  # zero if all are on one wall
        ratio = spread / np.sqrt((errors**2).mean(axis=0))
        pull = off / errors
        row = {
            "truth": true,
            "used": len(best),
            "at_limit": int(fits.at_limit[fits.valid].any(axis=1).sum()),
            "bias": np.median(off, axis=0),
            "bias_error": math.sqrt(math.pi / 2 / len(best)) * np.maximum(spread, 1e-3 * median),
            "sigma": median,
            "spread_over_estimated": ratio,
            "ratio_error": ratio / math.sqrt(2 * (len(best) - 1)),
            "pull_mean": pull.mean(axis=0),
            "pull_width": pull.std(axis=0, ddof=1),
            "interpolation_error": fits.interpolation_error.max(),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        if progress:
            progress("points", done, len(points))
    return PointRows(events, sets, **_stacked(rows), seconds=time.perf_counter() - began)


def point_study(density: Density, rows: PointRows) -> PointStudy:
    """Summary of all points."""
    wall = _wall_sigma(density, rows.truth, rows.sigma)
    inside = np.asarray((wall >= INSIDE_SIGMA).all(axis=1))
    bias, noise = rows.bias / rows.sigma, rows.bias_error / rows.sigma
    if not inside.any():
        raise NuebarError(f"points: none is {INSIDE_SIGMA:g} errors inside the box; take others, or more events")
    n = int(inside.sum())
    excess = (bias[inside] ** 2 - noise[inside] ** 2).mean(axis=0)
    truth = rows.truth[inside]
    percent = 100 * rows.bias[inside] / np.where(truth == 0, np.nan, truth)
    chi = ((bias / noise)[inside] ** 2).sum(axis=0)
    return PointStudy(
        density=density.name,
        points=len(rows.truth),
        inside=inside,
        wall_sigma=wall,
        bias_sigma=bias,
        bias_noise_sigma=noise,
        worst_sigma=np.abs(bias[inside]).max(axis=0),
        rms_sigma=np.sqrt(np.maximum(excess, 0.0)),
        median_percent=np.median(percent, axis=0),
        median_noise_percent=math.sqrt(math.pi / 2 / n) * percent.std(axis=0),
        p_values={f"points, {name}": float(chi2.sf(c, n)) for name, c in zip(RESPONSE, chi, strict=True)},
        seconds_per_point=rows.seconds / len(rows.truth),
    )


# --- bias without noise ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AsimovRows(_Rows):
    """Fits of expected spectra; arrays of shape ``(points, 3)`` unless said otherwise.

    Attributes:
        events: To whose errors biases are compared.
        truth: Response.
        best: Best fit of the expected spectrum.
        sigma: Errors of ``events``.
        noise: Error of ``best`` from the finite pool of cascades, from the differences of its blocks; the training
            set's pool adds one like it.
        at_limit: On a wall.
        valid: Shape ``(points,)``.
        interpolation_error: Of ln L of ``events``, shape ``(points,)``.
        seconds: All points, simulation included.
    """

    events: int
    truth: np.ndarray
    best: np.ndarray
    sigma: np.ndarray
    noise: np.ndarray
    at_limit: np.ndarray
    valid: np.ndarray
    interpolation_error: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class AsimovStudy(_Record):
    """Bias of a density alone.

    Attributes:
        density: Its name.
        points: How many.
        aim_sigma: Largest bias wanted.
        bias_sigma: (best − truth)/σ, shape ``(points, 3)``.
        noise_sigma: Its noise, shape ``(points, 3)``.
        wall_sigma: Distance of the truth to the nearer wall in σ, shape ``(points, 3)``.
        inside: At least :data:`INSIDE_SIGMA` from every wall, shape ``(points,)``; these are judged.
        reasons: Number of the point → why it is not judged.
        worst_sigma: Largest |bias| of judged points, shape ``(3,)``.
        worst_point: Number of that point, shape ``(3,)``.
        rms_sigma: Root mean square bias of judged points, shape ``(3,)``.
        above_aim: Judged points above the aim, shape ``(3,)``.
        passes: No judged point is above the aim.
        seconds_per_point: Simulation and fit.
    """

    density: str
    points: int
    aim_sigma: float
    bias_sigma: np.ndarray
    noise_sigma: np.ndarray
    wall_sigma: np.ndarray
    inside: np.ndarray
    reasons: dict[int, str]
    worst_sigma: np.ndarray
    worst_point: np.ndarray
    rms_sigma: np.ndarray
    above_aim: np.ndarray
    passes: bool
    seconds_per_point: float


def asimov_rows(
    density: Density,
    simulator: Simulator,
    points: Iterable[Sequence[float]],
    *,
    events: int = REFERENCE_EVENTS,
    blocks: int = 10,
    progress: Progress | None = None,
) -> AsimovRows:
    """Fit expected spectra at points.

    Args:
        density: Knows ln p.
        simulator: Where expectations come from.
        points: Responses.
        events: To whose errors biases are compared.
        blocks: Parts of the pools that are fitted apart for the noise.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        One row a point.
    """
    began = time.perf_counter()
    rows: dict[str, list[Any]] = {}
    points = list(points)
    for done, response in enumerate(points, 1):
        true = np.asarray(response, float)
        parts = events * simulator.expected(true, blocks)
        fits = batched_fits(density, [*parts, parts.mean(axis=0)], true, sources=simulator.sources)
        row = {
            "truth": true,
            "best": fits.best[-1],
            "sigma": fits.errors[-1],
            "noise": fits.best[:-1].std(axis=0, ddof=1) / math.sqrt(blocks) if blocks > 1 else np.full(_N, np.nan),
            "at_limit": fits.at_limit[-1],
            "valid": fits.valid[-1],
            "interpolation_error": fits.interpolation_error.max(),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        if progress:
            progress("Asimov", done, len(points))
    return AsimovRows(events, **_stacked(rows), seconds=time.perf_counter() - began)


def asimov_study(density: Density, rows: AsimovRows, *, aim_sigma: float = ASIMOV_AIM_SIGMA) -> AsimovStudy:
    """Summary of all points, those near a wall apart.

    Args:
        density: What was studied.
        rows: Fits of expected spectra.
        aim_sigma: Largest bias wanted, in errors.

    Raises:
        NuebarError: There are no points.
    """
    wall = _wall_sigma(density, rows.truth, rows.sigma)
    inside = np.asarray((wall >= INSIDE_SIGMA).all(axis=1) & rows.valid)
    if not inside.any():
        raise NuebarError(f"Asimov: no point is {INSIDE_SIGMA:g} errors inside the box; take others, or more events")
    bias = (rows.best - rows.truth) / rows.sigma
    judged = np.abs(bias[inside])
    above = (judged > aim_sigma).sum(axis=0)
    reasons = {}
    for i in np.flatnonzero(~inside):
        near = [
            f"{name} {d:.1f} errors from its wall"
            for name, d in zip(RESPONSE, wall[i], strict=True)
            if not d >= INSIDE_SIGMA
        ]
        reasons[int(i)] = ", ".join(near) or "the fit is not valid"
    return AsimovStudy(
        density=density.name,
        points=len(rows.truth),
        aim_sigma=aim_sigma,
        bias_sigma=bias,
        noise_sigma=rows.noise / rows.sigma,
        wall_sigma=wall,
        inside=inside,
        reasons=reasons,
        worst_sigma=judged.max(axis=0),
        worst_point=np.flatnonzero(inside)[judged.argmax(axis=0)],
        rms_sigma=np.sqrt((judged**2).mean(axis=0)),
        above_aim=above,
        passes=not above.any(),
        seconds_per_point=rows.seconds / len(rows.truth),
    )


# --- simulation-based calibration -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CalibrationRows(_Rows):
    """Posteriors of data sets whose truths come from the prior; arrays of shape ``(sets, 3)`` unless said otherwise.

    Attributes:
        events: Of every source in a data set.
        seed: Of truths and data.
        number: Of the data set, shape ``(sets,)``.
        truth: Response.
        best: Best fit.
        errors: Its errors.
        at_limit: On a wall.
        valid: The fit, shape ``(sets,)``.
        mean: Of the posterior.
        sigma: Standard deviation of it.
        below: Posterior probability of less than the truth.
        lower_density: Posterior probability of a lower density than the truth has, shape ``(sets,)``.
        effective: Points of the posterior, shape ``(sets,)``.
        interpolation_error: Of ln L, shape ``(sets,)``.
        seconds: All sets, simulation included.
    """

    events: int
    seed: int
    number: np.ndarray
    truth: np.ndarray
    best: np.ndarray
    errors: np.ndarray
    at_limit: np.ndarray
    valid: np.ndarray
    mean: np.ndarray
    sigma: np.ndarray
    below: np.ndarray
    lower_density: np.ndarray
    effective: np.ndarray
    interpolation_error: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class CalibrationStudy(_Record):
    """Ranks, coverage and pulls.

    Attributes:
        density: Its name.
        sets: Data sets.
        used: Those whose posterior could be made; the others are left out and counted here.
        ranks: Of the truth among :attr:`samples`, shape ``(used, 3)``.
        density_ranks: Of the density at the truth, shape ``(used,)``.
        samples: Ranks run from 0 to here.
        rank_p: χ² and Kolmogorov in one, shape ``(4,)``: the three parameters and the density.
        levels: Credible levels, shape ``(levels,)``.
        nominal: The probability that ranks of these levels have.
        central: Share of central intervals that hold the truth, shape ``(levels, 3)``.
        central_low: Lower end of its 68 % interval.
        central_high: Upper end.
        central_p: Binomial tests.
        highest: Share of regions of highest density of all three parameters that hold the truth, shape ``(levels,)``.
        highest_low: Lower end.
        highest_high: Upper end.
        highest_p: Binomial tests.
        pull_sets: Data sets whose truth is at least :data:`INSIDE_SIGMA` inside the box.
        pull_mean: Of their (best − truth)/error, shape ``(3,)``.
        pull_mean_error: Statistical.
        pull_width: Standard deviation.
        pull_width_error: Statistical.
        p_values: Of ranks and coverage: the part of :func:`verdict`.
        interpolation_error: Largest.
        least_effective: Fewest points of a posterior.
        seconds_per_set: Simulation, fit and posterior.
    """

    density: str
    sets: int
    used: int
    ranks: np.ndarray
    density_ranks: np.ndarray
    samples: int
    rank_p: np.ndarray
    levels: np.ndarray
    nominal: np.ndarray
    central: np.ndarray
    central_low: np.ndarray
    central_high: np.ndarray
    central_p: np.ndarray
    highest: np.ndarray
    highest_low: np.ndarray
    highest_high: np.ndarray
    highest_p: np.ndarray
    pull_sets: int
    pull_mean: np.ndarray
    pull_mean_error: np.ndarray
    pull_width: np.ndarray
    pull_width_error: np.ndarray
    p_values: dict[str, float]
    interpolation_error: float
    least_effective: float
    seconds_per_set: float


def calibration_rows(
    density: Density,
    simulator: Simulator,
    numbers: Iterable[int],
    *,
    events: int = REFERENCE_EVENTS,
    points: int = 2048,
    seed: int = 0,
    progress: Progress | None = None,
) -> CalibrationRows:
    """Draw truths from the flat prior, data from the truths, and posteriors from the data.

    Args:
        density: Knows ln p.
        simulator: Where data come from.
        numbers: Of data sets; each depends on its number and the seed only.
        events: Of every source.
        points: Of each posterior, a power of two.
        seed: Of truths and data.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        One row a data set.
    """
    began = time.perf_counter()
    low, high = np.array(density.limits, float).T
    rows: dict[str, list[Any]] = {}
    numbers = list(numbers)
    for done, number in enumerate(numbers, 1):
        true = np.random.default_rng([seed, number]).uniform(low, high)
        counts = simulator.counts(true, events, 1, seed=seed, words=("calibration", number))
        fits = batched_fits(density, counts, true, sources=simulator.sources, reach=_ONE_REACH)
        found = batched_posteriors(fits, true, points=points, seed=number)
        row = {
            "number": number,
            "truth": true,
            "best": fits.best[0],
            "errors": fits.errors[0],
            "at_limit": fits.at_limit[0],
            "valid": fits.valid[0],
            "mean": found.mean[0],
            "sigma": np.sqrt(np.diag(found.covariance[0])),
            "below": found.below[0],
            "lower_density": found.lower_density[0],
            "effective": found.effective[0],
            "interpolation_error": fits.interpolation_error.max(),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        if progress:
            progress("calibration", done, len(numbers))
    return CalibrationRows(events, seed, **_stacked(rows), seconds=time.perf_counter() - began)


def calibration_study(density: Density, rows: CalibrationRows) -> CalibrationStudy:
    """Ranks, coverage and pulls of all data sets."""
    good = rows.valid & (rows.effective >= _LEAST_EFFECTIVE) & (rows.interpolation_error <= TOLERANCE)
    if good.sum() < 20:
        raise NuebarError(f"calibration: expected at least 20 posteriors, got {good.sum()}; run more data sets")
    ranks = _ranks(rows.below[good])
    density_ranks = _ranks(rows.lower_density[good])
    rank_p = uniformity(np.column_stack([ranks, density_ranks]), _SAMPLES).p_value
    central = coverage(ranks, _SAMPLES)
    highest = coverage(density_ranks, _SAMPLES, region="highest")
    inside = good & (_wall_sigma(density, rows.truth, rows.errors) >= INSIDE_SIGMA).all(axis=1)
    inside &= np.isfinite(rows.errors).all(axis=1)
    pulls = None
    if inside.sum() >= 3:
        pulls = pull_summary(rows.best[inside], rows.errors[inside], rows.truth[inside])
    nothing = np.full(_N, np.nan)
    p_values = {f"ranks, {name}": float(p) for name, p in zip((*RESPONSE, "density"), rank_p, strict=True)}
    for i, level in enumerate(central.levels):
        for j, name in enumerate(RESPONSE):
            p_values[f"coverage {level:.4g}, {name}"] = float(central.p_value[i, j])
        p_values[f"coverage {level:.4g}, all three"] = float(highest.p_value[i])
    return CalibrationStudy(
        density=density.name,
        sets=len(good),
        used=int(good.sum()),
        ranks=ranks,
        density_ranks=density_ranks,
        samples=_SAMPLES,
        rank_p=rank_p,
        levels=central.levels,
        nominal=central.nominal,
        central=central.observed,
        central_low=central.low,
        central_high=central.high,
        central_p=central.p_value,
        highest=highest.observed,
        highest_low=highest.low,
        highest_high=highest.high,
        highest_p=highest.p_value,
        pull_sets=int(inside.sum()),
        pull_mean=pulls.mean if pulls else nothing,
        pull_mean_error=pulls.mean_error if pulls else nothing,
        pull_width=pulls.width if pulls else nothing,
        pull_width_error=pulls.width_error if pulls else nothing,
        p_values=p_values,
        interpolation_error=float(rows.interpolation_error[good].max()),
        least_effective=float(rows.effective[good].min()),
        seconds_per_set=rows.seconds / len(good),
    )


def verdict(*studies: ExposureStudy | CalibrationStudy, level: float = LEVEL) -> Family:
    """Are spread and estimated error, ranks and coverage what they should be, all together?

    Args:
        studies: Of one density.
        level: Chance that a right one fails: 0.01 for "consistent at 99 %".

    Raises:
        NuebarError: The studies are of several densities.
    """
    names = {study.density for study in studies}
    if len(names) != 1:
        raise NuebarError(f"verdict: expected studies of one density, got {sorted(names)}; judge each on its own")
    p_values: dict[str, float] = {}
    for study in studies:
        p_values |= study.p_values
    return family(p_values, level)


def _ranks(share: np.ndarray) -> np.ndarray:
    """A share that is uniform between 0 and 1 as a rank that is uniform on 0 … :data:`_SAMPLES`."""
    return np.minimum((share * (_SAMPLES + 1)).astype(np.int64), _SAMPLES)


def _wall_sigma(density: Density, truth: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    low, high = np.array(density.limits, float).T
    return np.asarray(np.minimum(truth - low, high - truth) / sigma)


def _stacked(rows: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    if not rows:
        raise NuebarError("expected at least one point, got none; give some")
    return {name: np.array(values) for name, values in rows.items()}

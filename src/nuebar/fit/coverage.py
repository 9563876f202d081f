"""Coverage of intervals: the share of pseudo-experiments whose interval holds the truth.

A 68.27 % interval shall hold the true value in 68.27 % of all data sets. Whether it does is measured here with toys
(:mod:`nuebar.fit.toys`: counts, constraint centres and bin-to-bin deviations fluctuate) for every kind of interval:

* ``hesse``: value ± n errors of the fit that starts at the nominal values, as a single fit does.
* ``hesse-lowest``: the same at the lowest of all minima along Δm²31.
* ``minos``: the ends are where the profile first crosses Δχ² = n² on both sides of the found minimum. It holds the
  truth exactly if the profile, counted from that minimum, stays at or below n² all the way to the truth.
* ``profile``: everything with Δχ² ≤ n² above the lowest minimum, valleys that are not connected included; this is
  what :func:`nuebar.fit.interval.profile_interval` gives but for the gaps between valleys, which it fills.
* ``posterior``: the central credible interval, equal probability on both sides.

None of them needs a search for its ends: one fit with the parameter at its true value tells. Minos and profile differ
where there are several minima only. The truth is where fits start unless it is given: what finds the valley of the
truth by its start flatters ``hesse`` and ``minos`` wherever there are several.

Fits that are not valid are no interval. They are counted; the coverage is that of the others, and ``coverage_all``
counts them as intervals that miss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import erf

from nuebar.errors import NuebarError
from nuebar.fit.ladder import SPLITTING, Ladder, Profiles
from nuebar.fit.many import LANES, DataSets, ManyFits, ManyResults, rough_errors
from nuebar.fit.ordering import FRINGE_MeV, scaled
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions, draw
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.stats.batch_descent import levenberg_marquardt, quasi_newton

__all__ = ["ARRAYS", "METHODS", "CoverageRow", "CoverageStudy", "CoverageToys", "coverage", "joined_coverage", "wilson"]

METHODS = ("hesse", "hesse-lowest", "minos", "profile", "posterior")
SIGMAS = (1.0, 2.0)
SAME = 0.01  # of Δχ²: ends of two starts that differ by more are two minima
WORTH_A_FIT = 8.0  # of Δχ²: valleys of the rough profile that are fitted
DECIDES = 4.5  # a valley whose minimum is higher than this cannot bring Δχ² of the truth to 4
MOST_VALLEYS = 6
CLOSE = 2e-3  # of χ²: estimated distance to a minimum from where on it is known well enough
DESCENT_STEPS, LAST_STEPS = 30, 12
OFF_SIGMA, OFF_POINTS = 3.0, 0.02
FRINGE_eV2 = math.pi * FRINGE_MeV / (PHASE_per_eV2_km_MeV * 52.5)
"""Distance of neighbouring minima of Δm²31 at 52.5 km."""
ENOUGH = 50.0
"""Smallest number of independent draws of a posterior interval that counts: a rank is then known to 0.07."""


@dataclass(frozen=True, eq=False)
class CoverageToys:
    """What decides whether intervals hold the truth, one row a toy; NaN where there is no interval.

    Attributes:
        names: All free parameters.
        interest: Those with profile and posterior.
        numbers: Of the toys, shape ``(n,)``.
        status: Of the fit from the nominal values, index into :data:`nuebar.fit.many.REASONS`.
        status_lowest: Of the fit at the lowest minimum.
        pull: (value − truth)/error of the first, shape ``(n, names)``.
        error: Its errors.
        pull_lowest: The same at the lowest minimum, shape ``(n, interest)``.
        error_lowest: Its errors.
        delta_local: Largest Δχ² of the profile between the first minimum and the truth, ``(n, interest)``.
        delta_global: Δχ² of the truth above the lowest minimum.
        width_local: Half widths of Minos's intervals at 1σ and 2σ, ``(n, interest, 2)``, of the first toys only.
        width_global: Of the profile's.
        rank: Posterior probability below the truth, ``(n, interest)``, of the first toys only.
        width_posterior: Half widths of the posterior's intervals.
        effective: Independent draws that the posterior's are worth, ``(n,)``; NaN where none was asked for.
        shift: χ² of the first minimum above the lowest, ``(n,)``.
        seconds: Processor seconds by step.
    """

    names: tuple[str, ...]
    interest: tuple[str, ...]
    numbers: np.ndarray
    status: np.ndarray
    status_lowest: np.ndarray
    pull: np.ndarray
    error: np.ndarray
    pull_lowest: np.ndarray
    error_lowest: np.ndarray
    delta_local: np.ndarray
    delta_global: np.ndarray
    width_local: np.ndarray
    width_global: np.ndarray
    rank: np.ndarray
    width_posterior: np.ndarray
    effective: np.ndarray
    shift: np.ndarray
    seconds: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, which: Any) -> CoverageToys:
        """Some of the toys: a slice, indices or a mask."""
        arrays: dict[str, Any] = {n: getattr(self, n)[which] for n in ARRAYS}
        return replace(self, **arrays)


ARRAYS = tuple(f.name for f in fields(CoverageToys) if f.type == "np.ndarray")


def joined_coverage(parts: Sequence[CoverageToys]) -> CoverageToys:
    """Several parts of one study.

    Raises:
        NuebarError: They are of different parameters.
    """
    first = parts[0]
    if any((p.names, p.interest) != (first.names, first.interest) for p in parts):
        raise NuebarError("coverage: expected toys of the same parameters, got others; keep studies apart")
    arrays: dict[str, Any] = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ARRAYS}
    seconds = {k: sum(p.seconds.get(k, 0.0) for p in parts) for k in first.seconds}
    return replace(first, **arrays, seconds=seconds)


@dataclass(frozen=True)
class CoverageRow:
    """Coverage of one kind of interval.

    Attributes:
        parameter: Its name.
        method: One of :data:`METHODS`.
        n_sigma: Size of the interval in standard deviations of a normal likelihood.
        level: The nominal coverage, erf(n/√2).
        toys: Toys that were asked for this interval.
        failed: Those without a valid one.
        covered: Those whose interval holds the truth.
        coverage: Covered over valid ones; NaN without any.
        low: Lower end of its 68 % range (Wilson).
        high: Upper end.
        coverage_all: Covered over all, failed ones included.
        half_width: Median half width, NaN where none was computed.
    """

    parameter: str
    method: str
    n_sigma: float
    level: float
    toys: int
    failed: int
    covered: int
    coverage: float
    low: float
    high: float
    coverage_all: float
    half_width: float

    @property
    def error(self) -> float:
        """Half of the 68 % range."""
        return 0.5 * (self.high - self.low)

    @property
    def significance(self) -> float:
        """(coverage − level) over the binomial error that the level has with so many toys."""
        n = self.toys - self.failed
        return (self.coverage - self.level) / math.sqrt(self.level * (1.0 - self.level) / n) if n else math.nan

    @property
    def off(self) -> bool:
        """Whether it is more than three standard deviations and two points away from the level."""
        return abs(self.significance) > OFF_SIGMA and abs(self.coverage - self.level) > OFF_POINTS

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.toys - self.failed:
            return "no valid interval"
        if not self.off:
            return "as it should"
        side = "too little" if self.coverage < self.level else "too much"
        points = 100 * (self.coverage - self.level)
        return f"covers {side} ({points:+.1f} points, {abs(self.significance):.1f} sigma)"


def wilson(covered: int, n: int, n_sigma: float = 1.0) -> tuple[float, float]:
    """E. B. Wilson's range of a share, J. Am. Stat. Assoc. 22 (1927) 209; NaN without any.

    Args:
        covered: How many did.
        n: Of how many.
        n_sigma: Of the range.
    """
    if not n:
        return math.nan, math.nan
    z2 = n_sigma**2
    p = covered / n
    middle = (p + 0.5 * z2 / n) / (1.0 + z2 / n)
    half = n_sigma / (1.0 + z2 / n) * math.sqrt(p * (1.0 - p) / n + 0.25 * z2 / n**2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def coverage(
    toys: CoverageToys,
    *,
    sigmas: Sequence[float] = SIGMAS,
    methods: Sequence[str] = METHODS,
    scale: float = 1.0,
) -> tuple[CoverageRow, ...]:
    """Coverage by parameter, method and level; ``hesse`` of all free parameters, the others of those of interest.

    Args:
        toys: The toys.
        sigmas: Sizes of the intervals.
        methods: Some of :data:`METHODS`.
        scale: Intervals are made shorter or longer by this factor: what a test breaks on purpose.

    Raises:
        NuebarError: A method is unknown.
    """
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        raise NuebarError(f"coverage: unknown method {unknown[0]!r}; expected some of {', '.join(METHODS)}")
    out = []
    for name in toys.names:
        for method in methods:
            if method != "hesse" and name not in toys.interest:
                continue
            for n_sigma in sigmas:
                row = _row(toys, name, method, n_sigma, scale)
                if row.toys:
                    out.append(row)
    return tuple(out)


def _row(toys: CoverageToys, name: str, method: str, n_sigma: float, scale: float) -> CoverageRow:
    level = float(erf(n_sigma / math.sqrt(2.0)))
    k = toys.interest.index(name) if name in toys.interest else -1
    asked = np.ones(len(toys), bool)
    which = SIGMAS.index(n_sigma) if n_sigma in SIGMAS else None
    width = np.full(len(toys), np.nan)
    if method == "hesse":
        j = toys.names.index(name)
        size, valid, width = np.abs(toys.pull[:, j]), toys.status == 0, n_sigma * toys.error[:, j]
    elif method == "hesse-lowest":
        size, valid = np.abs(toys.pull_lowest[:, k]), toys.status_lowest == 0
        width = n_sigma * toys.error_lowest[:, k]
    elif method == "minos":
        size, valid = np.sqrt(np.maximum(toys.delta_local[:, k], 0.0)), toys.status == 0
        width = toys.width_local[:, k, which] if which is not None else width
    elif method == "profile":
        size = np.sqrt(np.maximum(toys.delta_global[:, k], 0.0))
        valid = (toys.status_lowest == 0) | (toys.status_lowest == 1)
        width = toys.width_global[:, k, which] if which is not None else width
    else:
        asked = ~np.isnan(toys.effective)
        # In normal standard deviations of the rank, so that one rule serves all.
        tail = np.clip(0.5 - np.abs(toys.rank[:, k] - 0.5), 0.0, 0.5)
        size, valid = _normal_size(tail), toys.effective >= ENOUGH
        width = toys.width_posterior[:, k, which] if which is not None else width
    valid = asked & valid & ~np.isnan(size)
    n, total = int(valid.sum()), int(asked.sum())
    covered = int(np.sum(size[valid] <= n_sigma * scale))
    low, high = wilson(covered, n)
    known = valid & np.isfinite(width)
    return CoverageRow(
        parameter=name,
        method=method,
        n_sigma=n_sigma,
        level=level,
        toys=total,
        failed=total - n,
        covered=covered,
        coverage=covered / n if n else math.nan,
        low=low,
        high=high,
        coverage_all=covered / total if total else math.nan,
        half_width=float(scale * np.median(width[known])) if known.any() else math.nan,
    )


def _normal_size(tail: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    with np.errstate(divide="ignore"):
        return np.asarray(-ndtri(tail))


# ---------------------------------------------------------------- the study


class CoverageStudy:
    """One model, compiled once for all exposures.

    Args:
        fit: The fit of expected counts; its nominal parameters are where fits start.
        factor: Exposure over that of the fit.
        compact: Its predictor in compact form, from another exposure.
        interest: Parameters with profile and posterior; the free oscillation parameters by default.
        lanes: As for :class:`nuebar.fit.many.ManyFits`.
        threads: Likewise.

    Raises:
        NuebarError: A parameter of interest is not free.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        *,
        factor: float = 1.0,
        compact: CompactHarmonic | None = None,
        interest: Sequence[str] | None = None,
        lanes: int = LANES,
        threads: int | None = 1,
    ) -> None:
        self.unit, fit = fit, scaled(fit, factor)
        predictor = fit.model.predictor
        if compact is None and isinstance(predictor, HarmonicPredictor):
            compact = CompactHarmonic.of(predictor, cores=any(n.startswith("core_") for n in fit.parameters))
        free = fit.parameters.free
        self.interest = tuple(interest if interest is not None else (n for n in OSCILLATION if n in free))
        for name in self.interest:
            if name not in free:
                raise NuebarError(f"coverage: expected free parameters, got {name!r}; free: {', '.join(free)}")
        self.compact = compact
        self.many = ManyFits(fit, compact=compact, reach=math.inf, lanes=lanes, threads=threads)
        self.ladder = Ladder(self.many, self._grid(fit))
        self._roots: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def several(self) -> bool:
        """Whether Δm²31 can have several minima that matter."""
        return self.ladder.grid.size > 1 and self.ladder.grid[-1] - self.ladder.grid[0] > FRINGE_eV2

    def at(self, factor: float) -> CoverageStudy:
        """The same at another exposure, as a factor on that of the fit."""
        many = self.many
        return CoverageStudy(
            self.unit,
            factor=factor,
            compact=self.compact,
            interest=self.interest,
            lanes=many.lanes,
            threads=many.threads,
        )

    def toys(
        self,
        numbers: range,
        *,
        seed: int,
        truth: Mapping[str, float] | None = None,
        options: ToyOptions | None = None,
        posteriors: int = 0,
        draws: int = 1000,
        widths: int = 0,
    ) -> CoverageToys:
        """Draw toys and find what decides on their intervals.

        Args:
            numbers: Which toys.
            seed: Of the study.
            truth: Parameters that differ from the nominal ones.
            options: What fluctuates.
            posteriors: Toys with smaller numbers get a posterior.
            draws: Of the posterior, at a time.
            widths: Toys with smaller numbers get widths of Minos's and the profile's intervals.

        Returns:
            Of every toy, what decides on its intervals.
        """
        clock = _Clock()
        data = draw(self.many, numbers, seed=seed, truth=truth, options=options or ToyOptions())
        clock("draw")
        first = self.many.run(data, start=np.clip(self.ladder.at, self.many.lower, self.many.upper))
        clock("hesse")
        profiles = self.ladder.profiles(data)
        clock("profile")
        valleys = _Valleys(self, data, profiles, first)
        lowest, best = valleys.lowest()
        clock("profile")
        local, globally = self._deltas(data, profiles, first, valleys, best)
        clock("profile")
        n, k = len(data), len(self.interest)
        columns = [first.column(name) for name in self.interest]
        free = [first.column(name) for name in first.free]
        some = np.flatnonzero(data.numbers < widths)
        width_local, width_global = (np.full((n, k, len(SIGMAS)), np.nan) for _ in range(2))
        if some.size:
            width_local[some] = self._widths(data[some], profiles[some], first.rows(some), ends="first")
            width_global[some] = self._widths(data[some], profiles[some], lowest.rows(some), ends="last")
        clock("widths")
        rank, effective, width_posterior = self._posteriors(data, profiles, posteriors, draws, seed)
        clock("posterior")
        with np.errstate(invalid="ignore", divide="ignore"):
            pull = ((first.values - data.truth) / first.errors)[:, free]
            pull_lowest = ((lowest.values - data.truth) / lowest.errors)[:, columns]
        return CoverageToys(
            names=first.free,
            interest=self.interest,
            numbers=data.numbers,
            status=first.status,
            status_lowest=lowest.status,
            pull=pull,
            error=first.errors[:, free],
            pull_lowest=pull_lowest,
            error_lowest=lowest.errors[:, columns],
            delta_local=local,
            delta_global=globally,
            width_local=width_local,
            width_global=width_global,
            rank=rank,
            width_posterior=width_posterior,
            effective=effective,
            shift=first.chi2 - best,
            seconds=clock.seconds,
        )

    # -------------------------------------------------------------- parts

    def _grid(self, fit: SpectrumFit) -> np.ndarray:
        """Nodes of the splitting: all of its range where the data hardly know it, else some standard deviations."""
        p = fit.parameters[SPLITTING]
        if p.fixed:
            return np.array([p.value])
        k = self.many.names.index(SPLITTING)
        low, high = float(self.many.lower[k]), float(self.many.upper[k])
        sigma = float(rough_errors(fit)[k])
        reach = 8.0 * sigma
        if reach > FRINGE_eV2 / 2:
            reach = 6.0 * p.sigma if p.sigma else math.inf
        elif 20.0 * sigma > FRINGE_eV2:
            reach = 1.5 * FRINGE_eV2
        step = min(FRINGE_eV2 / 12, 0.7 * sigma)
        low, high = max(low, p.value - reach), min(high, p.value + reach)
        if not np.isfinite([low, high]).all():
            raise NuebarError(f"coverage: expected limits of {SPLITTING}, got none; give it bounds or a prior")
        return np.linspace(low, high, max(math.ceil((high - low) / step), 4) + 1)

    def _deltas(
        self, data: DataSets, profiles: Profiles, first: ManyResults, valleys: _Valleys, best: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Δχ² of the true values: from the first minimum (highest on the way), and from the lowest."""
        n = len(data)
        local, globally = (np.full((n, len(self.interest)), np.nan) for _ in range(2))
        for j, name in enumerate(self.interest):
            k = first.column(name)
            truth = data.truth[:, k]
            if k == self.ladder.splitting:
                node = np.abs(self.ladder.grid[None, :] - truth[:, None]).argmin(axis=1)
                chi2 = self._held(data, profiles.values[np.arange(n), node], name, truth)
                globally[:, j] = chi2 - best
                on_way = self._highest(profiles, first.values[:, k], truth)
                local[:, j] = np.maximum(chi2, on_way) - first.chi2
                continue
            chi2 = self._held(data, first.values, name, truth)
            local[:, j] = chi2 - first.chi2
            rows, starts = valleys.that_decide(best)
            least = chi2.copy()
            if rows.size:
                there = self._held(data[rows], starts, name, truth[rows])
                np.fmin.at(least, rows, there)
            globally[:, j] = least - best
        return local, globally

    def _held(self, data: DataSets, start: np.ndarray, name: str, value: np.ndarray) -> np.ndarray:
        """χ² with one parameter at given values, NaN where a fit does not arrive; all else begins where it will go."""
        x, ladder = start.copy(), self.ladder
        k = self.many.names.index(name)
        moved = value - x[:, k]
        x[:, k] = value
        if k != ladder.splitting:
            j = int(np.flatnonzero(ladder.others == k)[0])
            v = ladder.covariance[ladder.nodes(np.nan_to_num(x))]
            along = moved[:, None] * v[:, j] / v[:, j, j, None]
            along[:, j] = 0.0
            x[:, ladder.others] += along
            x = np.clip(x, self.many.lower, self.many.upper)
            x[:, k] = value
        return self.descended(data, x, ladder.free[ladder.free != k])[1]

    def descended(self, data: DataSets, x: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Minima over some parameters (their indices), good to :data:`CLOSE` in χ²: that decides on an interval.

        Every data set descends along the axes of the expected covariance at its own Δm²31, along which all are alike.

        Returns:
            Points, and their χ², NaN where a start is outside of the limits or a descent does not arrive.
        """
        many, out, chi2 = self.many, x.copy(), np.full(len(x), np.nan)
        usable = np.isfinite(x).all(axis=1) & (x >= many.lower).all(axis=1) & (x <= many.upper).all(axis=1)
        at = np.flatnonzero(usable)
        if not at.size:
            return out, chi2
        if not free.size:
            chi2[at] = many.slopes(data[at], x[at])[0]
            return out, chi2
        lower, upper = many.lower[free], many.upper[free]
        origin = x[at][:, free]
        axes = self._axes(free)[self.ladder.nodes(x[at])]

        def points(i: np.ndarray, y: np.ndarray) -> np.ndarray:
            there = x[at[i]]
            there[:, free] = y
            return there

        def slopes(rows: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # What lies beyond a limit is the point on it, and slopes that push against it do not count there.
            y = origin[rows] + np.einsum("nij,nj->ni", axes[rows], z)
            cost, slope = many.slopes(data[at[rows]], points(rows, np.clip(y, lower, upper)))
            slope = slope[:, free]
            pushed = ((y <= lower) & (slope > 0)) | ((y >= upper) & (slope < 0))
            return cost, np.einsum("nij,ni->nj", axes[rows], np.where(pushed, 0.0, slope))

        d = free.size
        wide = np.full(d, np.inf)
        found = quasi_newton(
            slopes, np.zeros((at.size, d)), np.eye(d), lower=-wide, upper=wide, n_iterations=DESCENT_STEPS, tol=CLOSE
        )
        values = np.clip(origin + np.einsum("nij,nj->ni", axes, found.values), lower, upper)
        arrived = found.converged.copy()
        least = found.cost - np.where(arrived, found.edm, 0.0)
        rest = np.flatnonzero(~arrived)
        if rest.size:

            def curvatures(rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                i = rest[rows]
                cost, slope, normal = many.curvatures(data[at[i]], points(i, y))
                return cost, slope[:, free], normal[:, free[:, None], free[None, :]]

            last = levenberg_marquardt(
                curvatures, values[rest], lower=lower, upper=upper, n_iterations=LAST_STEPS, tol=CLOSE
            )
            values[rest], arrived[rest] = last.values, last.edm <= 10 * CLOSE
            least[rest] = last.cost - np.where(arrived[rest], last.edm, 0.0)
        out[np.ix_(at, free)] = values
        chi2[at] = np.where(arrived & np.isfinite(least), least, np.nan)
        return out, chi2

    def _axes(self, free: np.ndarray) -> np.ndarray:
        """Cholesky factors of the expected covariances at all nodes."""
        key = tuple(free.tolist())
        if key not in self._roots:
            self._roots[key] = np.linalg.cholesky(self.ladder.covariances(free))
        return self._roots[key]

    def _highest(self, profiles: Profiles, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Highest point of the profile between two values of the splitting; −∞ without a node between."""
        grid = self.ladder.grid[None, :]
        between = (grid > np.minimum(start, end)[:, None]) & (grid < np.maximum(start, end)[:, None])
        return np.asarray(np.where(between, profiles.chi2, -np.inf).max(axis=1))

    def _widths(self, data: DataSets, profiles: Profiles, found: ManyResults, *, ends: str) -> np.ndarray:
        """Half widths where the profile crosses Δχ² = n²: √Δχ² is taken as straight between two points."""
        out = np.full((len(data), len(self.interest), len(SIGMAS)), np.nan)
        for j, name in enumerate(self.interest):
            k = found.column(name)
            if k == self.ladder.splitting:
                for s, n_sigma in enumerate(SIGMAS):
                    out[:, j, s] = self._splitting_widths(profiles, found.values[:, k], found.chi2, n_sigma, ends)
                continue
            low, high = self.many.lower[k], self.many.upper[k]
            for s, n_sigma in enumerate(SIGMAS):
                sides = []
                for sign in (-1.0, 1.0):
                    value = np.clip(found.values[:, k] + sign * n_sigma * found.errors[:, k], low, high)
                    delta = self._held(data, found.values, name, value) - found.chi2
                    distance = np.abs(value - found.values[:, k])
                    room = (found.values[:, k] - low) if sign < 0 else (high - found.values[:, k])
                    with np.errstate(invalid="ignore", divide="ignore"):
                        sides.append(np.fmin(distance * n_sigma / np.sqrt(delta), room))
                out[:, j, s] = 0.5 * (sides[0] + sides[1])
        return out

    def _splitting_widths(
        self, profiles: Profiles, value: np.ndarray, chi2: np.ndarray, n_sigma: float, ends: str
    ) -> np.ndarray:
        """From the nodes: the first crossing on both sides, or the last ones."""
        out = np.full(len(value), np.nan)
        for i in np.flatnonzero(np.isfinite(value) & np.isfinite(chi2)):
            x, order = np.append(self.ladder.grid, value[i]), None
            order = np.argsort(x, kind="stable")
            y = np.append(profiles.chi2[i] - chi2[i], 0.0)[order]
            x, y = x[order], np.sqrt(np.maximum(y, 0.0))
            middle, inside = int(np.flatnonzero(order == self.ladder.grid.size)[0]), y <= n_sigma
            if ends == "first":
                a = middle - int(np.argmin(np.append(inside[middle::-1], False))) + 1
                b = middle + int(np.argmin(np.append(inside[middle:], False))) - 1
            else:
                a, b = np.flatnonzero(inside)[[0, -1]]
            out[i] = 0.5 * (_crossing(x, y, n_sigma, b, 1) - _crossing(x, y, n_sigma, a, -1))
        return out

    def _posteriors(
        self, data: DataSets, profiles: Profiles, posteriors: int, draws: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, k = len(data), len(self.interest)
        rank, effective = np.full((n, k), np.nan), np.full(n, np.nan)
        width = np.full((n, k, len(SIGMAS)), np.nan)
        some = np.flatnonzero(data.numbers < posteriors)
        if some.size:
            found = self.ladder.posteriors(data[some], profiles[some], seed=seed, draws=draws)
            for i, d in zip(some, found, strict=True):
                effective[i] = d.effective
                if not d.effective > 0:
                    continue
                for j, name in enumerate(self.interest):
                    c = self.many.names.index(name)
                    rank[i, j] = d.rank(c, float(data.truth[i, c]))
                    for s, n_sigma in enumerate(SIGMAS):
                        low, high = d.interval(c, float(erf(n_sigma / math.sqrt(2.0))))
                        width[i, j, s] = 0.5 * (high - low)
        return rank, effective, width


def _crossing(x: np.ndarray, y: np.ndarray, level: float, last: int, step: int) -> float:
    beyond = last + step
    if not 0 <= beyond < x.size:
        return float(x[last])
    return float(x[last] + (x[beyond] - x[last]) * (level - y[last]) / (y[beyond] - y[last]))


class _Valleys:
    """Minima along the splitting: fits from those of the rough profile, and the fit from the nominal values."""

    def __init__(self, study: CoverageStudy, data: DataSets, profiles: Profiles, first: ManyResults) -> None:
        self.study, self.data, self.first = study, data, first
        rows, starts = (np.zeros(0, int), first.values[:0])
        if study.ladder.splitting is not None:
            rows, starts = self._starts(profiles)
        self.rows = rows
        if rows.size:
            self.values, self.chi2 = study.descended(data[rows], starts, study.ladder.free)
        else:
            self.values, self.chi2 = starts, np.zeros(0)

    def _starts(self, profiles: Profiles) -> tuple[np.ndarray, np.ndarray]:
        chi2 = np.pad(profiles.chi2, ((0, 0), (1, 1)), constant_values=np.inf)
        middle = chi2[:, 1:-1]
        low = (middle <= chi2[:, :-2]) & (middle < chi2[:, 2:])
        height = np.where(low, middle - middle.min(axis=1, keepdims=True), np.inf)
        place = np.argsort(np.argsort(height, axis=1, kind="stable"), axis=1, kind="stable")
        rows, nodes = np.nonzero((height < WORTH_A_FIT) & (place < MOST_VALLEYS))
        return rows, profiles.values[rows, nodes]

    def lowest(self) -> tuple[ManyResults, np.ndarray]:
        """The fits at the lowest minima, with errors, and their χ²."""
        first, many = self.first, self.study.many
        n = len(self.data)
        best = np.where(first.status <= 1, first.chi2, np.inf)
        chosen = np.full(n, -1)
        for v in np.argsort(-self.chi2, kind="stable"):  # the lowest comes last but for NaN, which never wins
            i = self.rows[v]
            if self.chi2[v] < best[i] - (SAME if first.status[i] == 0 and chosen[i] < 0 else 0.0):
                best[i], chosen[i] = self.chi2[v], v
        out = first
        other = np.flatnonzero(chosen >= 0)
        if other.size:
            again = many.run(self.data[other], start=self.values[chosen[other]])
            arrays = {}
            for name in ("values", "errors", "chi2", "status", "at_limit"):
                arrays[name] = getattr(first, name).copy()
                arrays[name][other] = getattr(again, name)
            out = replace(first, **arrays)
            best[other] = np.fmin(best[other], np.where(again.status <= 1, again.chi2, np.inf))
        return out, np.where(np.isfinite(best), best, np.nan)

    def that_decide(self, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Toys and minima that may hold a truth within 2σ: those other than the first one."""
        if not self.rows.size:
            return self.rows, self.values
        first = self.first.chi2[self.rows]
        near = self.chi2 <= best[self.rows] + DECIDES
        other = ~(np.abs(self.chi2 - first) < SAME)
        k = self.study.ladder.splitting
        other |= np.abs(self.values[:, k] - self.first.values[self.rows, k]) > FRINGE_eV2 / 4
        use = near & other
        return self.rows[use], self.values[use]


class _Clock:
    """Processor seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, what: str) -> None:
        now = time.process_time()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self._last = now

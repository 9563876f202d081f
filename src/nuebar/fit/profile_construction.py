"""Feldman-Cousins regions of spectra: profiles of data and fits of toys with and without the parameters of interest.

At a point θ of a grid the other parameters of the toys are at their profiled values, those that fit the data best
there, and the centres of their constraints fluctuate around these (the profile construction, arXiv:2207.14353). Fits
respect the limits of the parameters. Δm²31 has many minima: those that a linear profile shows are starts, and the
lowest end counts, in both orderings where the ordering is free.

Toy number k takes the same random numbers at all points, counts by inverting the Poisson distribution: critical values
are smooth along the grid. What the Δχ² of data and toys say is in :mod:`nuebar.fit.feldman_cousins`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import poisson

from nuebar.errors import NuebarError
from nuebar.fit.many import LANES, DataSets, ManyFits, ManyResults, _counts, _expected, _inverses, rough_errors
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.fit.toys import ToyOptions, _counts_at, _deviation, _generator, _key, _shape_root, joined
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV, ordering
from nuebar.predict.box import PHYSICAL
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.nuisances import within_box

__all__ = ["Best", "ProfileConstruction", "Profiled", "ToyFits", "default_axes", "draw_common", "physical"]

GRID_sigma = 3.5  # half width of a default grid in standard errors
MARGIN_sigma = 6.0  # of the windows around the grid: toys at its ends lie beyond
FRINGE_MeV = 4.0  # energy of the fringes that tell values of Δm²31 apart at 52.5 km
SPLITTING = "dm2_31_eV2"
SAME = 0.01  # of Δχ²: ends of two starts that differ by more are two minima
FLUCTUATING = ToyOptions()
ROWS = 64  # spectra computed together
SCREEN = 8.0  # points of a fringe at which minima of Δm²31 are looked for
LIKELY, WIDE = 4.0, 25.0  # Δχ² above the lowest, in a linear model, of minima that are worth a fit


@dataclass(frozen=True, eq=False)
class Profiled:
    """The best fit of the data with some parameters fixed.

    Attributes:
        values: All parameters, shape ``(parameters,)``.
        chi2: Pulls included.
        valid: Whether the fit is; one that ends on a limit is.
        reason: Why not.
    """

    values: np.ndarray
    chi2: float
    valid: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Best(Profiled):
    """The best fit of the data.

    Attributes:
        errors: Of all parameters, from the Hessian; expected ones where there is none.
    """

    errors: np.ndarray


@dataclass(frozen=True, eq=False)
class ToyFits:
    """Two fits of each toy.

    Attributes:
        delta_chi2: χ² with the parameters of interest fixed less the lowest; NaN if one of both failed.
        best: Best fits of the parameters of interest, shape ``(toys, parameters)``.
        on_limit: Which of the best fits ended on a limit of any parameter.
        other_start: Which best fits another start than the point itself found, by more than 0.01 of χ².
    """

    delta_chi2: np.ndarray
    best: np.ndarray
    on_limit: np.ndarray
    other_start: np.ndarray


class ProfileConstruction:
    """Profiles of data and fits of toys for the parameters of interest.

    Args:
        fit: Data, model and parameters.
        names: One or two parameters that are free in it.
        free_ordering: Fit both orderings wherever Δm²31 is not fixed, and keep the better one.
        span: Parameter → the range that a grid will have; it sets how wide the windows of the predictor are.
        best: Best fit of all parameters, around which the windows lie; the nominal values by default.
        lanes: As for :class:`nuebar.fit.many.ManyFits`.
        threads: Likewise.

    Raises:
        NuebarError: A parameter is unknown, fixed or named twice.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        names: Sequence[str],
        *,
        free_ordering: bool = False,
        span: Mapping[str, tuple[float, float]] | None = None,
        best: np.ndarray | None = None,
        lanes: int = LANES,
        threads: int | None = None,
    ) -> None:
        if not 1 <= len(names) <= 2 or len(set(names)) != len(names):
            raise NuebarError(f"Feldman-Cousins: expected one parameter or two different ones, got {list(names)}")
        for name in names:
            if fit.parameters[fit.parameters.known(name)].fixed:
                raise NuebarError(f"Feldman-Cousins: expected free parameters, got {name!r}, which is fixed; free it")
        fit = physical(fit)
        p = fit.parameters
        if free_ordering and p[SPLITTING].fixed:
            raise NuebarError(f"a free ordering needs {SPLITTING} free, got it fixed; leave it out of --fix")
        self.fit, self.names = fit, tuple(names)
        self.sigma = rough_errors(fit)
        self.at = [p.names.index(n) for n in names]
        self.k31 = p.names.index(SPLITTING)
        self.own = ordering(p[SPLITTING].value)
        # Both orderings look most alike at equal Δm²ee; a constraint of Δm²31 is mirrored in the same way.
        self.shift = 2.0 * p["sin2_th12"].value * p["dm2_21_eV2"].value
        nominal = np.array([q.value for q in p.values()])
        windows = self._windows(nominal if best is None else best, span or {})
        self.engines = {self.own: ManyFits(fit, windows=windows, lanes=lanes, threads=threads)}
        if free_ordering:
            other = "inverted" if self.own == "normal" else "normal"
            there = replace(fit, parameters=within_box(inverted_start(p), fit.model.predictor))
            self.engines[other] = ManyFits(there, windows=windows, lanes=lanes, threads=threads)

    @property
    def many(self) -> ManyFits:
        """The engine of the ordering that the fit has."""
        return self.engines[self.own]

    def best(self) -> Best:
        """The best fit of the data over all minima of Δm²31 within the windows."""
        nominal = np.array([q.value for q in self.fit.parameters.values()])
        found, _ = self._lowest(self._data(), nominal[None], (), self._candidates(self._data(), nominal, (), WIDE))
        values = found.values[0]
        engine = self.engines[ordering(values[self.k31])]
        errors = self._errors(engine, self._seen(self._data(), engine), values)
        return Best(values, float(found.chi2[0]), bool(_usable(found)[0]), _reason(found), errors)

    def _errors(self, engine: ManyFits, data: DataSets, x: np.ndarray) -> np.ndarray:
        """From the Hessian, by differences of exact slopes; expected errors where it is not positive definite."""
        free = [k for k, n in enumerate(engine.names) if not engine.fit.parameters[n].fixed]
        step = 0.05 * np.diag(self.sigma)[free]
        points = np.clip(np.vstack([x + step, x - step]), engine.lower, engine.upper)
        slopes = engine.slopes(data[np.zeros(len(points), int)], points)[1][:, free]
        n = len(free)
        apart = np.array([points[i, k] - points[n + i, k] for i, k in enumerate(free)])
        half = (slopes[:n] - slopes[n:]) / np.where(apart > 0, apart, np.nan)[:, None]
        inverse, good = _inverses(0.5 * (half + half.T)[None])
        out = self.sigma.copy()
        if good[0]:
            out[free] = np.sqrt(np.diag(inverse[0]))
        return out

    def profile(self, theta: Sequence[float], start: np.ndarray) -> Profiled:
        """The data with the parameters of interest fixed.

        Args:
            theta: Their values.
            start: All parameters, such as those of the best fit.
        """
        x = np.array(start, float)
        x[self.at] = theta
        where = self._candidates(self._data(), x, self.names, WIDE)
        found, _ = self._lowest(self._data(), x[None], self.names, where)
        return Profiled(found.values[0], float(found.chi2[0]), bool(_usable(found)[0]), _reason(found))

    def toys(self, point: Profiled, numbers: range, *, seed: int, options: ToyOptions = FLUCTUATING) -> ToyFits:
        """Draw toys at a point and fit each with the parameters of interest fixed and free.

        Args:
            point: All parameters of the toys, from :meth:`profile`.
            numbers: Which toys.
            seed: Of the study.
            options: What fluctuates.

        Returns:
            Δχ² of the toys and where their best fits ended, in the order of their numbers.
        """
        x, engine = point.values, self.engines[ordering(point.values[self.k31])]
        drawn = draw_common(engine, x, numbers, seed=seed, options=options)
        data = drawn if engine is self.many else self._mirrored(drawn)
        truth = np.tile(x, (len(data), 1))
        fixed, _ = self._lowest(data, truth, self.names, self._candidates(data, x, self.names, LIKELY))
        free, moved = self._lowest(data, fixed.values, (), self._candidates(data, x, (), LIKELY))
        delta = np.maximum(fixed.chi2 - free.chi2, 0.0)
        delta[~(_usable(fixed) & _usable(free))] = np.nan
        return ToyFits(delta, free.values[:, self.at], np.asarray(free.at_limit.any(axis=1)), moved)

    # -------------------------------------------------------------- fits from several starts

    def _lowest(
        self, data: DataSets, first: np.ndarray, fixed: Sequence[str], where: np.ndarray
    ) -> tuple[ManyResults, np.ndarray]:
        """The lowest minimum of each data set.

        Args:
            data: As the fit's own ordering has them.
            first: Starts, one a data set.
            fixed: Parameters that stay there.
            where: Values of Δm²31 to start from as well, NaN for none, shape ``(n, candidates)``.

        Returns:
            The fits, valid ones first, and where another start than the first won.
        """
        best = self._sent(data, first, fixed)
        moved, near = np.zeros(len(data), bool), 0.25 * _fringe()
        for column in where.T:
            # Where the last fit ended there already, it would end there again.
            left = np.flatnonzero(np.isfinite(column) & ~(np.abs(best.values[:, self.k31] - column) < near))
            if not left.size:
                continue
            start = best.values[left]
            start[:, self.k31] = column[left]
            found = self._sent(data[left], start, fixed)
            old = np.where(_usable(best)[left], best.chi2[left], np.inf)
            gain = old - np.where(_usable(found), found.chi2, np.inf)
            moved[left] |= gain > SAME
            better = gain > 0
            best = _replaced(best, found.rows(better), left[better])
        return best, moved

    def _sent(self, data: DataSets, x: np.ndarray, fixed: Sequence[str]) -> ManyResults:
        """Every row to the engine of the ordering that it starts in."""
        own = (x[:, self.k31] > 0) == (self.own == "normal")
        parts, order = [], []
        for name, engine in self.engines.items():
            rows = np.flatnonzero(own if name == self.own else ~own)
            if rows.size:
                parts.append(self._run(engine, data[rows], x[rows], fixed))
                order.append(rows)
        return joined(parts).rows(np.argsort(np.concatenate(order), kind="stable"))

    def _run(self, engine: ManyFits, data: DataSets, x: np.ndarray, fixed: Sequence[str]) -> ManyResults:
        data = self._seen(data, engine)
        start = np.clip(x, engine.lower, engine.upper)
        at = [self.fit.parameters.names.index(n) for n in fixed]
        start[:, at] = x[:, at]
        if not set(self.fit.parameters.free) - set(fixed):
            return _evaluated(engine, data, start)
        return engine.run(data, start=start, fixed=fixed, errors="none")

    def _candidates(self, data: DataSets, x: np.ndarray, fixed: Sequence[str], margin: float) -> np.ndarray:
        """Where minima of Δm²31 may be: those of a linear profile that are within a margin of Δχ² of its lowest.

        Returns:
            Values of Δm²31 from the lowest minimum on, filled with NaN; shape ``(n, candidates)``.
        """
        if SPLITTING in fixed or self.fit.parameters[SPLITTING].fixed:
            return np.empty((len(data), 0))
        values, chi2 = [], []
        for name, engine in self.engines.items():
            at = x.copy()
            if (at[self.k31] > 0) != (name == "normal"):
                at[self.k31] = self.shift - at[self.k31]
            reach = MARGIN_sigma * float(self.sigma[self.k31]) + _fringe()
            low, high = (float(e[self.k31]) for e in (engine.lower, engine.upper))
            grid = np.arange(max(at[self.k31] - reach, low), min(at[self.k31] + reach, high), _fringe() / SCREEN)
            if not grid.size:
                continue
            found = _linear_profile(engine, self._seen(data, engine), at, fixed, self.k31, grid, self.sigma)
            wall = np.full((len(data), 1), np.inf)
            left, right = np.hstack([wall, found[:, :-1]]), np.hstack([found[:, 1:], wall])
            values.append(grid)
            chi2.append(np.where((found <= left) & (found < right), found, np.inf))
        heights, grid = np.hstack(chi2), np.concatenate(values)
        heights[heights > heights.min(axis=1, keepdims=True) + margin] = np.inf
        most = max(int(np.isfinite(heights).sum(axis=1).max()), 1)
        order = np.argsort(heights, axis=1, kind="stable")[:, :most]
        return np.where(np.isfinite(np.take_along_axis(heights, order, axis=1)), grid[order], np.nan)

    # -------------------------------------------------------------- data

    def _data(self) -> DataSets:
        """The data as one data set, in the ordering of the fit."""
        nominal = np.array([q.value for q in self.fit.parameters.values()])
        return DataSets(
            np.zeros(1, int), np.asarray(self.fit.counts, float)[None], self.many.centres[None], nominal[None]
        )

    def _seen(self, data: DataSets, engine: ManyFits) -> DataSets:
        return data if engine is self.many else self._mirrored(data)

    def _mirrored(self, data: DataSets) -> DataSets:
        """With the constraint of Δm²31 as the other ordering has it."""
        names = self.many.constrained
        if SPLITTING not in names:
            return data
        centres = data.centres.copy()
        k = names.index(SPLITTING)
        centres[:, k] = self.shift - centres[:, k]
        return replace(data, centres=centres)

    def _windows(self, best: np.ndarray, span: Mapping[str, tuple[float, float]]) -> Windows | None:
        """Windows of the predictor that hold the grid and the toys around it."""
        predictor = self.fit.model.predictor
        if not isinstance(predictor, HarmonicPredictor):
            return None
        given, names = predictor.windows, self.fit.parameters.names
        k21 = names.index("dm2_21_eV2")

        def reach(k: int, name: str, least: float) -> tuple[float, float]:
            values = [abs(best[k])]
            for v in span.get(name, ()):
                values.append(abs(v))
            margin = max(MARGIN_sigma * float(self.sigma[k]), least * abs(best[k]))
            if name not in span:
                margin *= 8.0 / MARGIN_sigma
            return min(values) - margin, max(values) + margin

        low, high = reach(k21, "dm2_21_eV2", 1e-3)
        solar = (max(low, given.solar[0]), min(high, given.solar[1]))
        low, high = reach(self.k31, SPLITTING, 1e-3)
        extra = solar[1] + (_fringe() if MARGIN_sigma * float(self.sigma[self.k31]) > _fringe() else 0.0)
        low, high = low - extra, high + extra
        return Windows(solar, (max(low, given.atmospheric[0]), min(high, given.atmospheric[1])))


def physical(fit: SpectrumFit) -> SpectrumFit:
    """The fit with the limits that parameters have anyway, such as 0 ≤ sin²θ ≤ 1, where it has none."""
    changes: dict[str, Mapping[str, object]] = {}
    for name, (least, most) in PHYSICAL.items():
        if name in fit.parameters:
            low, high = fit.parameters[name].bounds
            changes[name] = {"bounds": (least if low is None else low, most if high is None else high)}
    return replace(fit, parameters=fit.parameters.updated(**changes))


def draw_common(
    many: ManyFits, x: np.ndarray, numbers: range, *, seed: int, options: ToyOptions = FLUCTUATING
) -> DataSets:
    """Toys as :func:`nuebar.fit.toys.draw` makes them, with counts that follow the truth without jumps.

    Counts are quantiles of the Poisson distribution at one uniform number for each bin: toy number k at two points of a
    grid is the same fluctuation.

    Args:
        many: Model and constraints.
        x: All parameters of the truth, shape ``(parameters,)``.
        numbers: Which toys.
        seed: Of the study.
        options: What fluctuates.

    Raises:
        NuebarError: Expected counts are negative at the truth.
    """
    mu, variance = _counts_at(many.fit, x)
    if not np.all(mu >= 0):
        raise NuebarError(
            "toys: expected counts that are not negative at the truth, got negative ones; narrow the grid"
        )
    widths = np.array([many.fit.parameters[n].sigma or 0.0 for n in many.single])
    joint = np.linalg.cholesky(np.asarray(many.fit.model.prior.covariance)) if many.joint else np.zeros((0, 0))
    at = [many.names.index(n) for n in many.constrained]
    bins, n = mu.size, len(numbers)
    uniform, shape, z = np.empty((n, bins)), np.zeros((n, bins)), np.zeros((n, len(at)))
    keys = {word: _key(seed, word) for word in ("counts", "constraints", "shape")}
    root = _shape_root(many.fit)
    for i, number in enumerate(numbers):
        uniform[i] = _generator(keys["counts"], number).random(bins)
        if options.shape:
            shape[i] = _deviation(variance, root, _generator(keys["shape"], number))
        if options.constraints and at:
            z[i] = _generator(keys["constraints"], number).standard_normal(len(at))
    expected = np.maximum(mu + shape, 0.0)
    counts = np.where(expected > 0, poisson.ppf(np.maximum(uniform, 1e-300), np.maximum(expected, 1e-300)), 0.0)
    moved = np.concatenate([widths * z[:, : widths.size], z[:, widths.size :] @ joint.T], axis=1)
    centres = x[at] + moved
    return DataSets(np.array(numbers), np.maximum(counts, 0.0), centres, np.tile(x, (n, 1)))


def default_axes(
    fit: SpectrumFit, best: Best, names: Sequence[str], points: int, *, both: bool = False
) -> list[np.ndarray]:
    """A grid of ±3.5 standard errors around the best fit, inside the limits.

    Args:
        fit: The fit.
        best: Its best fit.
        names: The parameters.
        points: Along each axis.
        both: Add the same range of Δm²31 in the other ordering.

    Raises:
        NuebarError: A parameter has no error to make a grid from.
    """
    out = []
    for name in names:
        k = fit.parameters.names.index(name)
        value, error = float(best.values[k]), float(best.errors[k])
        if not error > 0:
            raise NuebarError(f"Feldman-Cousins: no error of {name!r} to make a grid from; give one by --scan")
        low, high = fit.parameters[name].bounds
        if name == SPLITTING and value * fit.parameters[name].value < 0:
            low, high = (None if high is None else -high), (None if low is None else -low)
        start, stop = value - GRID_sigma * error, value + GRID_sigma * error
        start, stop = (start if low is None else max(start, low)), (stop if high is None else min(stop, high))
        axis = np.linspace(start, stop, points)
        if both and name == SPLITTING:
            p = fit.parameters
            shift = 2.0 * p["sin2_th12"].value * p["dm2_21_eV2"].value
            axis = np.sort(np.concatenate([axis, shift - axis]))
        out.append(axis)
    return out


# ---------------------------------------------------------------- helpers


def _fringe() -> float:
    """Distance of neighbouring minima: where the phase 1267 Δm² L/E turns by π."""
    return float(np.pi * FRINGE_MeV / (PHASE_per_eV2_km_MeV * 52.5))


def _usable(found: ManyResults) -> np.ndarray:
    """Fits that arrived, on a limit or not: limits are what this construction is made for."""
    return np.asarray((found.status <= 1) & np.isfinite(found.chi2))


def _reason(found: ManyResults) -> str:
    return "" if _usable(found)[0] else found.reason(0)


def _evaluated(engine: ManyFits, data: DataSets, x: np.ndarray) -> ManyResults:
    """Costs where nothing is left to be fitted."""
    n = len(data)
    cost, _ = engine.slopes(data, x)
    return ManyResults(
        names=engine.names,
        free=(),
        numbers=data.numbers,
        truth=data.truth,
        values=x,
        errors=np.zeros(x.shape),
        chi2=cost,
        edm=np.zeros(n),
        n_calls=np.ones(n, int),
        status=np.where(np.isfinite(cost), 0, 3),
        at_limit=np.zeros(x.shape, bool),
        covariance=np.empty((n, 0, 0)),
        seconds=0.0,
    )


def _replaced(old: ManyResults, new: ManyResults, rows: np.ndarray) -> ManyResults:
    """Some rows replaced by others."""
    source = np.arange(len(old))
    source[rows] = len(old) + np.arange(len(new))
    return joined([old, new]).rows(source)


def _linear_profile(
    engine: ManyFits,
    data: DataSets,
    x: np.ndarray,
    fixed: Sequence[str],
    k31: int,
    grid: np.ndarray,
    sigma: np.ndarray,
) -> np.ndarray:
    """χ² of data sets along Δm²31 with all other parameters profiled in a linear model around a point.

    Good to tell where to look for minima: derivatives and variances are those of the point.

    Args:
        engine: The model of one ordering.
        data: As this ordering has them.
        x: The point, all parameters.
        fixed: Parameters that stay there, beside those that the fit fixes.
        k31: Index of Δm²31.
        grid: Its values.
        sigma: Steps of the derivatives are a tenth of these.

    Returns:
        Shape ``(n, grid)``.
    """
    names = engine.names
    moving = [k for k, n in enumerate(names) if k != k31 and n not in fixed and not engine.fit.parameters[n].fixed]
    steps = np.diag(0.1 * sigma)[moving]
    steps = np.where(x + steps <= engine.upper, steps, -steps)
    base = np.tile(x, (grid.size, 1))
    base[:, k31] = grid
    spectra = _spectra(engine, np.vstack([x, x + steps, base]))
    mu, changed, expected = spectra[0], spectra[1 : 1 + len(moving)], spectra[1 + len(moving) :]
    _, variance = _mean_and_variance(engine.fit, x)
    weight = 1.0 / np.sqrt(np.maximum(mu + variance, 1e-3))
    at = [names.index(n) for n in engine.constrained]
    widths = [engine.fit.parameters[n].sigma or 1.0 for n in engine.single]
    root = np.zeros((len(at), len(at)))
    root[: len(widths), : len(widths)] = np.diag(1.0 / np.array(widths, float))
    if engine.joint:
        root[len(widths) :, len(widths) :] = np.linalg.inv(np.linalg.cholesky(engine.fit.model.prior.covariance))

    def pulls(y: np.ndarray) -> np.ndarray:
        return np.asarray(y[..., at] @ root.T)

    # Residuals of the counts and of the constraints, shape (n, grid, bins + constraints).
    counts = (data.counts[:, None, :] - expected[None]) * weight
    centres = (data.centres @ root.T)[:, None, :] - pulls(base)[None]
    r = np.concatenate([counts, centres], axis=2)
    out = np.einsum("ngb,ngb->ng", r, r)
    if moving:
        # A step of a tenth of a standard deviation each: the same units for all.
        q, _ = np.linalg.qr(np.concatenate([(changed - mu) * weight, pulls(steps)], axis=1).T)
        out -= np.einsum("ngk,ngk->ng", r @ q, r @ q)
    return np.asarray(out)


def _spectra(engine: ManyFits, x: np.ndarray) -> np.ndarray:
    """Expected counts at points ``(n, parameters)``, by one program whatever their number."""
    out = []
    for first in range(0, len(x), ROWS):
        rows = np.minimum(np.arange(first, first + ROWS), len(x) - 1)
        found = _expected(engine._static, engine._arrays, x[rows][:, engine._kept])
        out.append(np.asarray(found)[: len(x) - first])
    return np.concatenate(out)


def _mean_and_variance(fit: SpectrumFit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts and what is added to their variance, Monte Carlo error included (its diagonal)."""
    mu, variance = (np.asarray(a) for a in _counts(fit.model, x))
    if fit.mc_covariance is not None:
        extra = np.asarray(fit.mc_covariance)
        variance = variance + (extra if extra.ndim == 1 else np.diag(extra))
    return mu, variance

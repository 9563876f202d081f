"""Fits of one model to many data sets at once: the statistics and limits of a :class:`SpectrumFit`, no Minuit.

Up to three compiled programs do all of it, each on a fixed number of data sets side by side: cost and slope (reverse
mode), the full Hessian for errors, and the curvature JᵀJ (forward mode). Every data set descends by a quasi-Newton
method that begins with the curvature of the expected counts; what meets a limit or does not arrive is fitted again by
Levenberg and Marquardt's with its own curvature. The slopes are exact, so the minima are those of
:meth:`SpectrumFit.run`.

What makes it fast: the harmonic predictor in its compact form (:mod:`nuebar.predict.compact`), in windows of some
standard deviations around the start; pulls that are fixed at zero are taken out of the model. A fit that ends on a
window is done again in the predictor's own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import COSTS, SpectrumFit
from nuebar.predict.box import PHYSICS
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.spectrum import MOVING, SpectrumModel
from nuebar.stats.batch_descent import levenberg_marquardt, quasi_newton
from nuebar.stats.likelihood import CovarianceCost

__all__ = ["REASONS", "DataSets", "ManyFits", "ManyResults", "picked", "rough_errors"]

Errors = Literal["hesse", "curvature", "none"]

REACH = 8.0  # half width of the windows in standard deviations
TOLERANCE = 1e-8  # estimated distance to the minimum, in units of χ²: 1e-4 standard deviations
DESCENT_STEPS = 16
LAST_STEPS = 100
CLOSENESS = 1e-3  # of a standard deviation: a value closer to a limit is on it; as in nuebar.stats.minimise
LANES = 32
REASONS = (
    "converged",
    "ended on a limit",
    "not converged",
    "the cost is not finite",
    "the curvature is not positive definite",
)


@dataclass(frozen=True, eq=False)
class DataSets:
    """Many data sets of one experiment.

    Attributes:
        numbers: Name of each, shape ``(n,)``.
        counts: Shape ``(n, bins)``.
        centres: Of the constraints, in the order of :attr:`ManyFits.constrained`, shape ``(n, constraints)``.
        truth: All parameters that they were drawn at, shape ``(n, parameters)``.
    """

    numbers: np.ndarray
    counts: np.ndarray
    centres: np.ndarray
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Any) -> DataSets:
        return DataSets(self.numbers[rows], self.counts[rows], self.centres[rows], self.truth[rows])


@dataclass(frozen=True, eq=False)
class ManyResults:
    """One row a fit; nothing is left out.

    Attributes:
        names: All parameters, those that are fixed included.
        free: Those that were fitted.
        numbers: Of the data sets, shape ``(n,)``.
        truth: Shape ``(n, parameters)``.
        values: Best fits, shape ``(n, parameters)``.
        errors: From the covariance at the best fit; 0 for fixed ones, NaN where there is none or none was asked for.
        chi2: Minima of the cost, pulls included, shape ``(n,)``.
        edm: Estimated distances to the minima.
        n_calls: Evaluations of each fit.
        status: Index into :data:`REASONS`; 0 is valid.
        at_limit: Which parameters ended on a limit, shape ``(n, parameters)``.
        covariance: Of the free parameters, shape ``(n, free, free)``; empty if not asked for.
        seconds: Wall time of all.
    """

    names: tuple[str, ...]
    free: tuple[str, ...]
    numbers: np.ndarray
    truth: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    chi2: np.ndarray
    edm: np.ndarray
    n_calls: np.ndarray
    status: np.ndarray
    at_limit: np.ndarray
    covariance: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def valid(self) -> np.ndarray:
        """Which fits can be trusted, shape ``(n,)``."""
        return self.status == 0

    def rows(self, which: Any) -> ManyResults:
        """Some of the fits: a slice, indices or a mask."""
        return replace(self, **{n: getattr(self, n)[which] for n in _ROWS})

    def column(self, name: str) -> int:
        """Index of a parameter.

        Raises:
            NuebarError: There is none of that name.
        """
        if name not in self.names:
            raise NuebarError(f"unknown parameter {name!r}; these fits have {', '.join(self.names)}")
        return self.names.index(name)

    def value(self, name: str) -> np.ndarray:
        """Best fits of one parameter, shape ``(n,)``."""
        return self.values[:, self.column(name)]

    def error(self, name: str) -> np.ndarray:
        """Errors of one parameter, shape ``(n,)``."""
        return self.errors[:, self.column(name)]

    def pull(self, name: str) -> np.ndarray:
        """(best fit − truth)/error, shape ``(n,)``."""
        k = self.column(name)
        return (self.values[:, k] - self.truth[:, k]) / self.errors[:, k]

    def reason(self, row: int) -> str:
        """What became of a fit, in words."""
        words = REASONS[int(self.status[row])]
        names = [n for n, on in zip(self.names, self.at_limit[row], strict=True) if on]
        return words + (f": {', '.join(names)}" if names else "")

    def failures(self) -> dict[str, int]:
        """Reason → number of fits that are not valid for it."""
        return {REASONS[k]: int(np.sum(self.status == k)) for k in range(1, len(REASONS)) if np.any(self.status == k)}


_ROWS = ("numbers", "truth", "values", "errors", "chi2", "edm", "n_calls", "status", "at_limit", "covariance")


def picked(found: Sequence[ManyResults], chosen: np.ndarray) -> ManyResults:
    """Of several fits of the same data sets one for each: row k of ``found[chosen[k]]``; calls and seconds add up."""
    across = np.arange(len(chosen))
    arrays = {n: np.array([getattr(f, n) for f in found])[chosen, across] for n in _ROWS}
    arrays["n_calls"] = np.sum([f.n_calls for f in found], axis=0)
    return replace(found[0], **arrays, seconds=sum(f.seconds for f in found))


class ManyFits:
    """The fit of a model, compiled for many data sets.

    Args:
        fit: Model, parameters, statistic and Monte Carlo error; its counts are not used.
        reach: Half width of the windows of the splittings around the starts, in expected standard deviations; 0 or
            less, or infinity, for those of the predictor.
        windows: These windows instead.
        compact: The predictor of the fit in its compact form, if it is known already; its windows are taken.
        lanes: How many data sets go through a program together.
        threads: How many such groups at a time; all cores by default. Results do not depend on it.

    Raises:
        NuebarError: The statistic has no room for the extra variance.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        *,
        reach: float = REACH,
        windows: Windows | None = None,
        compact: CompactHarmonic | None = None,
        lanes: int = LANES,
        threads: int | None = None,
    ) -> None:
        fit.problem()  # refuses what does not go together
        if lanes < 1:
            raise NuebarError(f"many fits: expected at least one data set at a time, got {lanes}")
        self.fit = fit
        self.names = fit.parameters.names
        self.lanes, self.threads = lanes, threads or _cores()
        joint = fit.model.prior
        self.single = tuple(n for n in fit.pulled() if n not in joint.names)
        self.joint = tuple(joint.names) if set(joint.names) & set(fit.parameters.free) else ()
        self._wide: ManyFits | None = None
        self._errors: np.ndarray | None = None
        model = _slim(fit)
        predictor = model.predictor
        self.windows: Windows | None = None
        if isinstance(predictor, HarmonicPredictor):
            if compact is None:
                if windows is None and 0 < reach < np.inf:
                    windows = self._around(predictor.windows, reach)
                compact = CompactHarmonic.of(predictor, windows=windows, cores=_tells_cores(model))
            model = replace(model, predictor=compact)
            self.windows = compact.windows
        self._lane = _Lane.of(fit, model, self.single, self.joint)
        self._kept = np.array([self.names.index(n) for n in model.names])
        self._arrays, self._static = _parted(self._lane)
        self.lower, self.upper = self._limits()

    @property
    def constrained(self) -> tuple[str, ...]:
        """Parameters with a constraint, in the order of the centres."""
        return (*self.single, *self.joint)

    @property
    def centres(self) -> np.ndarray:
        """Centres of the constraints as the experiment has them."""
        single = [self.fit.parameters[n].value for n in self.single]
        return np.array([*single, *(np.asarray(self.fit.model.prior.mean) if self.joint else ())])

    def run(
        self,
        data: DataSets,
        *,
        start: np.ndarray | None = None,
        fixed: Sequence[str] = (),
        errors: Errors = "hesse",
        covariances: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ManyResults:
        """Fit all data sets.

        Args:
            data: The data sets.
            start: All parameters, shape ``(parameters,)`` or ``(n, parameters)``; the nominal ones by default.
            fixed: Parameters that stay at their start, beside those that the fit fixes.
            errors: From the full Hessian as in a single fit ("hesse"), from JᵀJ ("curvature", faster, and off by a
                few percent at high counts, much more where Δm²31 is hardly known), or "none".
            covariances: Keep the covariances as well.
            progress: Called with (fits done, fits in all).

        Returns:
            One row a data set.

        Raises:
            NuebarError: Shapes do not match, or a start is outside the limits.
        """
        began = time.perf_counter()
        if errors not in ("hesse", "curvature", "none"):
            raise NuebarError(f"many fits: expected errors hesse, curvature or none, got {errors!r}")
        x = self._starts(data, start)
        for name in fixed:
            self.fit.parameters.known(name)
        free = np.array([k for k, n in enumerate(self.names) if not self.fit.parameters[n].fixed and n not in fixed])
        if not free.size:
            raise NuebarError("many fits: expected at least one free parameter, got none; free one")
        found = self._descend(data, x, free, errors, progress)
        rows = np.flatnonzero(self._at_window(found["values"], free))
        if rows.size:
            wide = self._wider()
            again = wide._descend(data[rows], np.clip(x[rows], wide.lower, wide.upper), free, errors, None)
            for key in found:
                found[key][rows] = again[key]
        out = self._judged(data, found, free, errors, covariances)
        return replace(out, seconds=time.perf_counter() - began)

    # -------------------------------------------------------------- evaluation

    def slopes(self, data: DataSets, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs and half of their gradients at points ``(n, parameters)``, one for each data set."""
        cost, slope = self._in_lanes(_slopes, data, x)
        wide = np.zeros(x.shape)
        wide[:, self._kept] = slope
        return cost, wide

    def curvatures(self, data: DataSets, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Costs, half gradients and JᵀJ, the last of shape ``(n, parameters, parameters)``."""
        cost, slope, normal = self._in_lanes(_curvatures, data, x)
        wide, square = np.zeros(x.shape), np.zeros((*x.shape, x.shape[1]))
        wide[:, self._kept] = slope
        square[:, self._kept[:, None], self._kept[None, :]] = normal
        return cost, wide, square

    def hessians(self, data: DataSets, x: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Half of the second derivatives of the costs in some parameters (their indices), ``(n, free, free)``."""
        directions = np.zeros((free.size, self._kept.size))
        directions[np.arange(free.size), np.searchsorted(self._kept, free)] = 1.0
        (found,) = self._in_lanes(_hessians, data, x, directions)
        return 0.5 * (found + found.swapaxes(1, 2))

    def _in_lanes(self, program: Any, data: DataSets, x: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """A program over all rows, a fixed number at a time; the last group is filled with its last row."""
        n, x = len(x), x[:, self._kept]

        def group(first: int) -> list[np.ndarray]:
            rows = np.minimum(np.arange(first, first + self.lanes), n - 1)
            got = program(self._static, self._arrays, x[rows], data.counts[rows], data.centres[rows], *more)
            return [np.asarray(a)[: n - first] for a in got]

        starts = range(0, n, self.lanes)
        if self.threads == 1 or len(starts) == 1:
            parts = [group(s) for s in starts]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                parts = list(pool.map(group, starts))
        return tuple(np.concatenate(a) for a in zip(*parts, strict=True))

    # -------------------------------------------------------------- steps of a run

    def _starts(self, data: DataSets, start: np.ndarray | None) -> np.ndarray:
        bins = len(self.fit.model.edges_MeV) - 1
        n, k = len(data), len(self.constrained)
        if data.counts.shape != (n, bins) or data.centres.shape != (n, k) or not n:
            raise NuebarError(
                f"many fits: expected at least one data set of {bins} counts and {k} centres, got shapes "
                f"{data.counts.shape} and {data.centres.shape}"
            )
        nominal = np.array([self.fit.parameters[name].value for name in self.names])
        x = np.broadcast_to(nominal if start is None else np.asarray(start, float), (n, len(self.names))).copy()
        bad = np.argwhere(~((x >= self.lower) & (x <= self.upper)))
        if bad.size:
            row, k = bad[0]
            raise NuebarError(
                f"many fits: the start of {self.names[k]} of data set {int(data.numbers[row])} is {x[row, k]:.6g}, "
                f"outside its limits [{self.lower[k]:.6g}, {self.upper[k]:.6g}]; start inside"
            )
        return x

    def _descend(
        self,
        data: DataSets,
        x: np.ndarray,
        free: np.ndarray,
        errors: Errors,
        progress: Callable[[int, int], None] | None,
    ) -> dict[str, np.ndarray]:
        """Best fits: values of all parameters, cost, distance, calls."""
        lower, upper = self.lower[free], self.upper[free]
        middle = np.median(x, axis=0)
        centres = middle[[self.names.index(n) for n in self.constrained]]
        asimov = DataSets(np.zeros(1, int), self._expected(middle)[None], centres[None], middle[None])
        if errors == "hesse":  # the same where residuals are zero, and compiled for the errors anyway
            curvature = self.hessians(asimov, middle[None], free)[0]
        else:
            curvature = self.curvatures(asimov, middle[None])[2][0][np.ix_(free, free)]
        done = {"n": 0}

        def points(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
            out = x[rows]
            out[:, free] = y
            return out

        def slopes(rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            cost, slope = self.slopes(data[rows], points(rows, y))
            if progress is not None:
                done["n"] = max(done["n"], len(x) - len(rows))
                progress(done["n"], len(x))
            return cost, slope[:, free]

        first = quasi_newton(
            slopes, x[:, free], curvature, lower=lower, upper=upper, n_iterations=DESCENT_STEPS, tol=TOLERANCE
        )
        values, cost, edm, calls = first.values, first.cost, first.edm, first.n_calls
        rows = np.flatnonzero(~first.converged)
        if rows.size:

            def curvatures(some: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                at = rows[some]
                cost, slope, normal = self.curvatures(data[at], points(at, y))
                return cost, slope[:, free], normal[:, free[:, None], free[None, :]]

            start = np.where(np.isfinite(cost[rows])[:, None], values[rows], x[rows][:, free])
            rest = levenberg_marquardt(
                curvatures, start, lower=lower, upper=upper, n_iterations=LAST_STEPS, tol=TOLERANCE
            )
            values[rows], cost[rows], edm[rows] = rest.values, rest.cost, rest.edm
            calls[rows] += rest.n_calls
        if progress is not None:
            progress(len(x), len(x))
        out = x.copy()
        out[:, free] = values
        return {"values": out, "cost": cost, "edm": edm, "calls": calls}

    def _judged(
        self, data: DataSets, found: dict[str, np.ndarray], free: np.ndarray, errors: Errors, covariances: bool
    ) -> ManyResults:
        values, (n, p) = found["values"], found["values"].shape
        sigma, covariance = np.full((n, p), np.nan), np.empty((n, 0, 0))
        sigma[:, np.setdiff1d(np.arange(p), free)] = 0.0
        positive = np.ones(n, bool)
        if errors != "none":
            inside = ((values >= self.lower) & (values <= self.upper))[:, free].all(axis=1)
            engine = self if inside.all() else self._wider()
            if errors == "hesse":
                normal = engine.hessians(data, values, free)
            else:
                normal = engine.curvatures(data, values)[2][:, free[:, None], free[None, :]]
            inverse, positive = _inverses(normal)
            sigma[:, free] = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
            covariance = inverse if covariances else covariance
        near = CLOSENESS * np.where(sigma > 0, sigma, np.inf)
        lower, upper = self._limits(own=True)
        near = np.minimum(near, CLOSENESS * (upper - lower))
        near = np.where(np.isfinite(near), near, 0.0)
        limited = np.zeros((n, p), bool)
        limited[:, free] = ((values - lower <= near) | (upper - values <= near))[:, free]
        status = np.zeros(n, int)
        status[limited.any(axis=1)] = 1
        status[~positive] = 4
        status[~(found["edm"] <= TOLERANCE)] = 2
        status[~np.isfinite(found["cost"])] = 3
        return ManyResults(
            names=self.names,
            free=tuple(self.names[k] for k in free),
            numbers=data.numbers,
            truth=data.truth,
            values=values,
            errors=sigma,
            chi2=found["cost"],
            edm=found["edm"],
            n_calls=found["calls"],
            status=status,
            at_limit=limited,
            covariance=covariance,
            seconds=0.0,
        )

    # -------------------------------------------------------------- limits and windows

    def _limits(self, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Limits of all parameters; narrowed to the windows unless only the fit's own are asked for."""
        p = self.fit.parameters
        lower = np.array([-np.inf if q.bounds[0] is None else q.bounds[0] for q in p.values()])
        upper = np.array([np.inf if q.bounds[1] is None else q.bounds[1] for q in p.values()])
        if own or self.windows is None:
            return lower, upper
        inverted = p["dm2_31_eV2"].value < 0
        box = {
            "dm2_21_eV2": self.windows.solar,
            "dm2_31_eV2": self.windows.inverted() if inverted else self.windows.normal(),
        }
        for name, (low, high) in box.items():
            k = self.names.index(name)
            lower[k], upper[k] = max(lower[k], low), min(upper[k], high)
        return lower, upper

    def _at_window(self, values: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Which fits ended at a wall of the windows that is none of the fit's own limits."""
        lower, upper = self._limits(own=True)
        wall = ((values <= self.lower) & (self.lower > lower)) | ((values >= self.upper) & (self.upper < upper))
        return np.asarray(wall[:, free].any(axis=1))

    def _wider(self) -> ManyFits:
        """The same in the windows of the predictor."""
        if self._wide is None:
            self._wide = ManyFits(self.fit, reach=np.inf, lanes=self.lanes, threads=self.threads)
        return self._wide

    def _around(self, given: Windows, reach: float) -> Windows:
        """Windows that hold some standard deviations around the nominal values."""
        p = self.fit.parameters
        errors = dict(zip(self.names, rough_errors(self.fit), strict=True))
        d21, d31 = p["dm2_21_eV2"], p["dm2_31_eV2"]
        low, high = (d21.value + s * max(reach * errors[d21.name], 1e-3 * d21.value) for s in (-1, 1))
        solar = (max(low, given.solar[0]), min(high, given.solar[1]))
        half = max(reach * errors[d31.name], 1e-3 * abs(d31.value))
        low, high = abs(d31.value) - half, abs(d31.value) + half
        low, high = (low, high + solar[1]) if d31.value < 0 else (low - solar[1], high)
        return Windows(solar, (max(low, given.atmospheric[0]), min(high, given.atmospheric[1])))

    def _expected(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(_expected(self._static, self._arrays, x[None, self._kept]))[0]


# ---------------------------------------------------------------- the model of one data set


class _Lane(eqx.Module):
    """Residuals of one data set; counts and centres are arguments."""

    statistic: str = eqx.field(static=True)
    physics: tuple[int, ...] = eqx.field(static=True)
    rest: tuple[int, ...] = eqx.field(static=True)
    single: tuple[int, ...] = eqx.field(static=True)
    joint: tuple[int, ...] = eqx.field(static=True)
    model: SpectrumModel
    sigmas: Array
    root: Array
    extra: Array | None
    nominal: tuple[Array, Array] | None

    @classmethod
    def of(cls, fit: SpectrumFit, model: SpectrumModel, single: Sequence[str], joint: Sequence[str]) -> _Lane:
        names, own = model.names, model.predictor.parameter_names
        physics = tuple(k for k, n in enumerate(names) if n in own)
        extra = None if fit.mc_covariance is None else np.asarray(fit.mc_covariance, float)
        if extra is not None and extra.ndim == 2 and fit.statistic == "barlow-beeston":
            extra = np.diag(extra).copy()
        nominal = None
        if extra is not None and extra.ndim == 2:
            expected, variance = fit.model(fit.model.vector(fit.parameters.nominal()))
            nominal = (expected, variance)
        prior = fit.model.prior
        root = np.linalg.cholesky(np.asarray(prior.covariance)) if joint else np.zeros((0, 0))
        return cls(
            statistic=fit.statistic,
            physics=physics,
            rest=tuple(k for k in range(len(names)) if k not in physics),
            single=tuple(names.index(n) for n in single),
            joint=tuple(names.index(n) for n in joint),
            model=model,
            sigmas=jnp.array([fit.parameters[n].sigma for n in single], float),
            root=jnp.asarray(root),
            extra=None if extra is None else jnp.asarray(extra),
            nominal=nominal,
        )

    def residuals(self, model: SpectrumModel, x: Array, counts: Array, centres: Array) -> Array:
        """Of the bins, then of the constraints."""
        mu, variance = model(x)
        cost = COSTS[self.statistic](counts)
        if self.extra is not None and self.extra.ndim == 2:
            assert self.nominal is not None
            fixed = self.extra + jnp.diag(cost.variance(*self.nominal))
            data = CovarianceCost(counts, fixed).residuals(mu)
        elif self.statistic == "poisson":
            data = cost.residuals(mu)
        else:
            data = cost.residuals(mu, variance if self.extra is None else variance + self.extra)
        n = len(self.single)
        parts = [data]
        if n:
            parts.append((x[jnp.array(self.single)] - centres[:n]) / self.sigmas)
        if self.joint:
            parts.append(solve_triangular(self.root, x[jnp.array(self.joint)] - centres[n:], lower=True))
        return jnp.concatenate(parts)

    def half_cost(self, x: Array, counts: Array, centres: Array) -> Array:
        """Half of the cost: its gradient is Jᵀr."""
        r = self.residuals(self.model, x, counts, centres)
        return 0.5 * jnp.sum(r * r)

    def quadratic(self, x: Array, counts: Array, centres: Array) -> tuple[Array, Array, Array]:
        """Cost, Jᵀr and JᵀJ.

        Pulls do not move what the predictor gives, so their columns of J are computed without its derivatives.
        """
        model, physics, rest = self.model, jnp.array(self.physics), jnp.array(self.rest, int)
        given: Any = _Given(model.predictor.parameter_names, model.predictor.channels(x[_order(model)]))
        still = replace(model, predictor=given)

        def of_rest(a: Array) -> tuple[Array, Array]:
            r = self.residuals(still, x.at[rest].set(a), counts, centres)
            return r, r

        j_rest, r = jax.jacfwd(of_rest, has_aux=True)(x[rest])
        j_physics = jax.jacfwd(lambda a: self.residuals(model, x.at[physics].set(a), counts, centres))(x[physics])
        j = jnp.concatenate([j_physics, j_rest], axis=1)[:, np.argsort([*self.physics, *self.rest])]
        return r @ r, j.T @ r, j.T @ j


class _Given(eqx.Module):
    """What a predictor gave at a point, as a predictor."""

    names: tuple[str, ...] = eqx.field(static=True)
    value: Array

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.names

    def channels(self, p: Array) -> Array:
        return self.value


def _order(model: SpectrumModel) -> Array:
    """Where the predictor's parameters stand among those of the model."""
    return jnp.array([model.names.index(n) for n in model.predictor.parameter_names])


def _parted(lane: _Lane) -> tuple[Any, Any]:
    """Arrays, and the rest in a form that can be hashed: equal programs are compiled once."""
    arrays, rest = eqx.partition(lane, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    leaves, tree = jax.tree.flatten(rest)
    return jax.tree.map(jax.device_put, arrays), (tree, tuple(leaves))


def _joined(static: Any, arrays: Any) -> _Lane:
    tree, leaves = static
    return eqx.combine(arrays, jax.tree.unflatten(tree, leaves))


@partial(jax.jit, static_argnums=0)
def _slopes(static: Any, arrays: Any, x: Array, counts: Array, centres: Array) -> tuple[Array, Array]:
    lane = _joined(static, arrays)
    half, slope = jax.vmap(jax.value_and_grad(lane.half_cost))(x, counts, centres)
    return 2.0 * half, slope


@partial(jax.jit, static_argnums=0)
def _curvatures(static: Any, arrays: Any, x: Array, counts: Array, centres: Array) -> tuple[Array, Array, Array]:
    return jax.vmap(_joined(static, arrays).quadratic)(x, counts, centres)


@partial(jax.jit, static_argnums=0)
def _hessians(static: Any, arrays: Any, x: Array, counts: Array, centres: Array, directions: Array) -> tuple[Array]:
    lane = _joined(static, arrays)

    def one(x: Array, counts: Array, centres: Array) -> Array:
        slope = partial(jax.grad(lane.half_cost), counts=counts, centres=centres)
        return jax.vmap(lambda e: directions @ jax.jvp(slope, (x,), (e,))[1])(directions)

    return (jax.vmap(one)(x, counts, centres),)


@partial(jax.jit, static_argnums=0)
def _expected(static: Any, arrays: Any, x: Array) -> Array:
    return jax.vmap(lambda y: _joined(static, arrays).model(y)[0])(x)


# ---------------------------------------------------------------- helpers


def _slim(fit: SpectrumFit) -> SpectrumModel:
    """The model without pulls that are fixed at zero: they change nothing and cost time."""
    model, p = fit.model, fit.parameters
    own = model.predictor.parameter_names
    idle = {n for n in model.names if p[n].fixed and p[n].value == 0.0 and n not in own and n not in PHYSICS}
    cores = {n for n in model.names if n.startswith("core_")}
    gone = {n for n in idle if n in model.tilt_names or n.startswith((*MOVING, "slope_"))}
    gone |= cores if cores <= idle else set()
    kept = [k for k, n in enumerate(model.tilt_names) if n not in gone]
    return replace(
        model,
        names=tuple(n for n in model.names if n not in gone),
        tilt_names=tuple(model.tilt_names[k] for k in kept),
        tilts=model.tilts[np.array(kept, int)],
    )


def _tells_cores(model: SpectrumModel) -> bool:
    return f"core_{model.core_names[0]}" in model.names


def rough_errors(fit: SpectrumFit) -> np.ndarray:
    """Expected standard deviations at the nominal values, from differences of expected counts.

    Good to some percent; it needs no program of its own.

    Returns:
        Shape ``(parameters,)``; 0 for fixed ones, infinite where the counts and priors tell nothing.
    """
    p, model = fit.parameters, fit.model
    x = np.array([p[n].value for n in p])
    mu, variance = (np.asarray(a) for a in _counts(model, x))
    extra = np.zeros_like(mu) if fit.mc_covariance is None else np.asarray(fit.mc_covariance)
    together = np.diag(np.maximum(mu + variance, 1e-12)) + extra if extra.ndim == 2 else None
    weight = 1.0 / np.maximum(mu + variance + (extra if extra.ndim == 1 else 0.0), 1e-12)
    free = [k for k, n in enumerate(p) if not p[n].fixed]
    columns, priors = [], []
    for k in free:
        q = p[p.names[k]]
        step = 1e-5 * abs(x[k]) if q.name.startswith("dm2_31") else 1e-3 * (q.sigma or abs(x[k]) or 1.0)
        step = -step if q.bounds[1] is not None and x[k] + step > q.bounds[1] else step
        there = x.copy()
        there[k] += step
        columns.append((np.asarray(_counts(model, there)[0]) - mu) / step)
        priors.append(0.0 if q.sigma is None else q.sigma**-2)
    j = np.array(columns).T
    weighted = weight[:, None] * j if together is None else np.linalg.solve(together, j)
    information = j.T @ weighted + np.diag(priors)
    out = np.zeros(x.size)
    unit = np.sqrt(np.diag(information))
    unit = np.where(unit > 0, unit, 1.0)
    scaled = information / np.outer(unit, unit) + 1e-12 * np.eye(unit.size)
    out[free] = np.sqrt(np.diag(np.linalg.inv(scaled))) / unit
    return out


@jax.jit
def _counts(model: SpectrumModel, x: Array) -> tuple[Array, Array]:
    return model(x)


def _inverses(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverses of many matrices, and which are positive definite; NaN for the others."""
    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    good = np.isfinite(normal).all(axis=(1, 2)) & (diagonal > 0).all(axis=1)
    unit = 1.0 / np.sqrt(np.where(good[:, None], diagonal, 1.0))
    scaled = np.where(good[:, None, None], normal, 0.0) * unit[:, :, None] * unit[:, None, :]
    scaled[~good] = np.eye(normal.shape[1])
    lowest = np.linalg.eigvalsh(scaled)[:, 0]
    good &= lowest > 1e-9
    scaled[~good] = np.eye(normal.shape[1])
    inverse = np.linalg.inv(scaled) * unit[:, :, None] * unit[:, None, :]
    inverse[~good] = np.nan
    return inverse, good


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The likelihood of calibration spectra as a function of the response parameters.

Binned: bin b of source s expects μ_sb = ν_s R_s p_sb(φ) + B_sb, with p the probabilities of a density, B a fixed
background, R_s = N_s − Σ_b B_sb the number of events of the source (N_s of them in the range of the bins), and ν_s a
relative norm with a flat prior in [0.8, 1.2] (arXiv:2507.23297, section 2). Then

    ln L(φ, ν) = Σ n ln μ − Σ μ − Σ_s (N_s ln N_s − N_s) − Σ ln n!,

of which the two last sums, constants, are left out everywhere. Without background, and as p adds up to one,

    ln L(φ, ν) = Σ_sb n_sb ln p_sb(φ) + Σ_s N_s (ln ν_s − ν_s + 1):

the norms separate, their best values are one wherever φ is, and what they leave, profiled or averaged over, is the
first sum. That is the likelihood "in closed form"; with a background the norms are profiled, source by source.

Unbinned and extended, ln L is the same with Σ_i ln p(x_i | φ) for the first sum. As ln p is interpolated between fixed
knots, this too is a sum of fixed weights times a table, and costs the same whatever the number of events. A density
with kinks in ln p has so many knots that up to 40,000 events are summed as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.ndimage import minimum_filter

from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.stats.gauss_newton import GaussNewtonResult, descend
from nuebar.tune.data import CalibrationData, require_match, weights
from nuebar.tune.density import RESPONSE, Density, precise, source_index

__all__ = [
    "NORM_LIMITS",
    "Priors",
    "ResponseLikelihood",
    "ResponseProblem",
    "coarse_start",
    "norm_names",
    "table_of",
    "with_slopes",
]

NORM_LIMITS = (0.8, 1.2)
"""Range of the relative norm of a source: its prior is flat in it (arXiv:2507.23297)."""

Priors = ResponsePosterior | Mapping[str, tuple[float, float]]
"""Gaussian knowledge: a joint one, or centre and width of single parameters by name; the others are flat."""

Table = Callable[..., Array]

_NEWTON_STEPS = 6  # of the profiled norms; from one they agree to 1e-12 after four
_BATCH = 64  # points evaluated together
_HESSIAN_STEP = 0.05
"""Of the differences, in standard deviations of the whitened parameters. They err by some 1e-4 of the change of the
curvature over one standard deviation, and a network in single precision by 1e-7/_HESSIAN_STEP of its slopes."""

_ROUGH_TOL = 0.01  # of a descent between kinks
_ROUGH_STEP = 0.5  # where ln L has kinks, which change a slope by some 0.05 per standard deviation

_SINGLE = 40_000
"""Events of a source up to which they are entries themselves where ln p has kinks: as many as its knots, and exact."""
_FILLED = 1024  # entries are a multiple of this many, so that few sizes are compiled

_GRID = (5, 9, 17)
"""Points of the coarse scan: 4.5 in kB and 0.125 in fC, and 2.5 % of the light yield, less than the width of a peak."""

_GRIDS: OrderedDict[Table, tuple[np.ndarray, np.ndarray]] = OrderedDict()  # 12 MB for five sources of 800 bins
_MOST_GRIDS = 2
_TABLES: OrderedDict[tuple[int, tuple[int, ...], bool | str], Table] = OrderedDict()
_MOST_TABLES = 8


def norm_names(sources: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the relative norms."""
    return tuple(f"norm_{source}" for source in sources)


def table_of(density: Density, sources: tuple[str, ...], *, unbinned: bool = False) -> Table:
    """The table of ln p of a density for some sources, the same function object every time.

    Compiled programs are found again by that object: the density itself is closed over, as a network has so many
    parts that to pass it along takes longer than to pass its arrays.

    Args:
        density: What knows the tables; it is kept alive while the table is among the last eight.
        sources: Rows, in this order.
        unbinned: Whether at the knots; else of the bins.
    """
    rows = tuple(source_index(source, density.sources, density.name) for source in sources)
    key = (id(density), rows, unbinned)
    if key not in _TABLES:
        exact = precise(density)  # or ln L would not be smooth
        tabulate = exact.log_density if unbinned else exact.log_probabilities
        every = rows == tuple(range(len(density.sources)))

        def table(response: ArrayLike) -> Array:
            values = tabulate(response)
            return values if every else values[jnp.asarray(rows)]

        _TABLES[key] = table
        while len(_TABLES) > _MOST_TABLES:
            _TABLES.popitem(last=False)
    _TABLES.move_to_end(key)
    return _TABLES[key]


def _events_of(density: Density, sources: tuple[str, ...]) -> Table:
    """Ln p of single events for some sources, the same function object every time."""
    rows = tuple(source_index(source, density.sources, density.name) for source in sources)
    key = (id(density), rows, "events")
    if key not in _TABLES:
        at: Any = getattr(precise(density), "at")  # noqa: B009 - of flows only
        chosen = jnp.asarray(rows)
        n = len(density.sources)

        def table(response: ArrayLike, x: Array) -> Array:
            every = jnp.broadcast_to(x[:1], (n, x.shape[1])).at[chosen].set(x)
            return at(response, every)[chosen]

        _TABLES[key] = table
        while len(_TABLES) > _MOST_TABLES:
            _TABLES.popitem(last=False)
    _TABLES.move_to_end(key)
    return _TABLES[key]


def _inside(data: CalibrationData, density: Density) -> list[np.ndarray]:
    """Values of the observable of the events in the range, source by source."""
    require_match(data, density)
    if data.charges is None:
        raise NuebarError("calibration data: expected single events, got histograms; fit binned, or give the events")
    return [np.clip(np.asarray(q, float) * data.pe_to_observable, *density.edges[[0, -1]]) for q in data.charges]


def _most_events(data: CalibrationData, density: Density) -> int:
    return max(v.size for v in _inside(data, density))


def _single_events(data: CalibrationData, density: Density) -> tuple[np.ndarray, np.ndarray]:
    """Weights and values of single events, filled up to a common length."""
    values = _inside(data, density)
    n = -(-max(v.size for v in values) // _FILLED) * _FILLED
    ones = np.array([np.arange(n) < v.size for v in values], float)
    return ones, np.array([np.concatenate([v, np.full(n - v.size, density.edges[0])]) for v in values])


class Expansion(NamedTuple):
    """−2 ln L at a point, to second order: cost + 2 slope·d + d·normal·d.

    Attributes:
        cost: −2 ln L, the prior included.
        normal: The information matrix (Fisher's, expected), half the curvature.
        slope: Half the gradient.
    """

    cost: Array
    normal: Array
    slope: Array


class ResponseLikelihood(eqx.Module):
    """ln L of a calibration; a pytree, so that other data compile nothing anew.

    Attributes:
        weights: Of every entry of the table: counts, or weights of the knots, shape ``(sources, entries)``.
        events: N_s, shape ``(sources,)``.
        signal: R_s, events less background.
        background: Expected counts of it, or None.
        steps: What of the observable an entry of the table stands for: one for a bin.
        centre: Of the prior, shape ``(3,)``.
        precision: Inverse covariance of the prior, zero where it is flat.
        table: ln p of the rows that the data have.
        sources: Names of the rows.
        limits: Box of the response parameters.
        unbinned: Whether the table is at knots.
        rough: Whether ln L has kinks: of single events with a density whose ln p has some.
        events_at: Values of the observable, where the entries of the table are single events, shape
            ``(sources, entries)``; the last ones of a row may be fill with the weight zero.
    """

    weights: Array
    events: Array
    signal: Array
    background: Array | None
    steps: Array
    centre: Array
    precision: Array
    table: Table = eqx.field(static=True)
    sources: tuple[str, ...] = eqx.field(static=True)
    limits: tuple[tuple[float, float], ...] = eqx.field(static=True)
    unbinned: bool = eqx.field(static=True)
    rough: bool = eqx.field(static=True, default=False)
    events_at: Array | None = None

    @classmethod
    def build(
        cls, data: CalibrationData, density: Density, *, unbinned: bool = False, priors: Priors | None = None
    ) -> ResponseLikelihood:
        """The likelihood of data; double precision must be on.

        Args:
            data: Calibration data; sources that they do not have take no part.
            density: Knows the sources of the data.
            unbinned: Whether single charges count; else bins.
            priors: Gaussian knowledge; flat in the box of the density otherwise.

        Raises:
            NuebarError: The density knows no knots or not the sources, the data no charges, or there is a background
                that was to be used unbinned.
        """
        if unbinned and not len(density.knots):
            raise NuebarError(
                f"the density {density.name!r} knows bins only, so it has no unbinned likelihood; fit binned or take "
                "a flow"
            )
        if unbinned and data.background is not None:
            raise NuebarError("a background histogram has no density for single events: fit binned, or leave it out")
        sources, single = tuple(data.sources), None
        if unbinned and getattr(density, "rough", False) and _most_events(data, density) <= _SINGLE:
            fixed, single = _single_events(data, density)
        else:
            fixed = np.asarray(weights(data, density, unbinned), float)
        events = np.asarray(data.counts, float).sum(axis=1)
        background = None if data.background is None else np.asarray(data.background, float)
        signal = events if background is None else events - background.sum(axis=1)
        for source, count, expected in zip(data.sources, events, signal, strict=True):
            if not expected > 0:
                raise NuebarError(
                    f"source {source!r}: expected more events than background in the range of the bins, got {count:g} "
                    "events; leave the source out"
                )
        knots = np.asarray(density.knots, float)
        steps = np.gradient(knots) if unbinned and single is None else np.ones(fixed.shape[1])
        centre, precision = _prior_arrays(priors, density.limits)
        return cls(
            weights=jnp.asarray(fixed),
            events=jnp.asarray(events),
            signal=jnp.asarray(signal),
            background=None if background is None else jnp.asarray(background),
            steps=jnp.asarray(steps),
            centre=jnp.asarray(centre),
            precision=jnp.asarray(precision),
            table=table_of(density, sources, unbinned=unbinned) if single is None else _events_of(density, sources),
            sources=tuple(data.sources),
            limits=tuple((float(low), float(high)) for low, high in density.limits),
            unbinned=unbinned,
            rough=unbinned and getattr(density, "rough", False),
            events_at=None if single is None else jnp.asarray(single),
        )

    def log_p(self, response: Array) -> Array:
        """Ln p at every entry: bins, knots or events."""
        return self.table(response) if self.events_at is None else self.table(response, self.events_at)

    def log_likelihood(self, response: ArrayLike) -> Array:
        """The log-likelihood with the norms in closed form, or profiled where there is a background.

        Args:
            response: Shape ``(3,)``.

        Returns:
            float64 scalar, without the prior.
        """
        table = self.log_p(jnp.asarray(response))
        if self.background is None:
            return jnp.sum(self.weights * table)
        return self._with_norms(table, self._profiled(table))

    def full(self, response: ArrayLike, norms: ArrayLike) -> Array:
        """It with explicit relative norms: at norms of one, without background, :meth:`log_likelihood`.

        Args:
            response: Shape ``(3,)``.
            norms: Shape ``(sources,)``.
        """
        return self._with_norms(self.log_p(jnp.asarray(response)), jnp.asarray(norms))

    def log_prior(self, response: ArrayLike) -> Array:
        """Logarithm of the Gaussian priors, zero at their centre; it knows nothing of the box."""
        d = jnp.asarray(response) - self.centre
        return -0.5 * d @ self.precision @ d

    def log_posterior(self, x: ArrayLike) -> Array:
        """Log-likelihood and log-prior of the three response parameters, or of these and the norms.

        Args:
            x: Shape ``(3,)`` for norms in closed form, or ``(3 + sources,)``.
        """
        x = jnp.asarray(x)
        response = x[: len(RESPONSE)]
        explicit = x.shape[0] > len(RESPONSE)
        value = self.full(response, x[len(RESPONSE) :]) if explicit else self.log_likelihood(response)
        return value + self.log_prior(response)

    def value_and_grad(self, x: ArrayLike) -> tuple[float, np.ndarray]:
        """:meth:`log_posterior` and its gradient, compiled once for all data of this density."""
        value, gradient = _value_and_grad(self, np.asarray(x, float))
        return float(value), np.asarray(gradient)

    def batch(self, points: ArrayLike) -> np.ndarray:
        """:meth:`log_posterior` of many points, compiled once.

        Args:
            points: Shape ``(n, 3)`` or ``(n, 3 + sources)``.

        Returns:
            Shape ``(n,)``.
        """
        points = np.asarray(points, float)
        return in_batches(partial(_many, self), points)

    def norms(self, response: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The best relative norms at a response and their errors there, shapes ``(sources,)``."""
        values, stiffness = _norms(self, np.asarray(response, float))
        return np.asarray(values), 1.0 / np.sqrt(np.asarray(stiffness))

    def expansion(self, x: ArrayLike) -> Expansion:
        """−2 ln L − 2 ln prior with its slope and information, from one pass in forward mode.

        Args:
            x: Shape ``(3,)`` or ``(3 + sources,)``.
        """
        x = jnp.asarray(x)
        n = len(RESPONSE)
        response, explicit = x[:n], x.shape[0] > n
        table, slopes = with_slopes(self.log_p, response)
        norms = x[n:] if explicit else self._profiled(table)
        # dμ/dν: counts of bins or around knots; single events stand for themselves, as in an integral by Monte Carlo.
        source = self.weights if self.events_at is not None else self.signal[:, None] * jnp.exp(table) * self.steps
        signal = norms[:, None] * source
        expected = signal if self.background is None else signal + self.background
        share = 1.0 if self.background is None else signal / expected
        cost = -2.0 * self._with_norms(table, norms)
        pull = jnp.einsum("sk,skj->j", self.weights * share, slopes)
        information = jnp.einsum("sk,ski,skj->ij", signal * share, slopes, slopes)
        cross = jnp.einsum("sk,skj->js", source * share, slopes)  # between response and norms
        stiffness = jnp.sum(source * source / jnp.maximum(expected, 1e-300), axis=1)
        if not explicit:
            information = information - (cross / stiffness) @ cross.T
        else:
            part = self.weights * source / jnp.maximum(expected, 1e-300)
            pull_norms = self.events / norms if self.background is None else part.sum(axis=1)
            information = jnp.block([[information, cross], [cross.T, jnp.diag(stiffness)]])
            pull = jnp.concatenate([pull, pull_norms - self.signal])
        d = response - self.centre
        stiff = self.precision @ d
        return Expansion(
            cost=cost + d @ stiff,
            normal=information.at[:n, :n].add(self.precision),
            slope=(-pull).at[:n].add(stiff),
        )

    def _with_norms(self, table: Array, norms: Array) -> Array:
        if self.background is None:
            return jnp.sum(self.weights * table) + jnp.sum(self.events * (jnp.log(norms) - norms + 1.0))
        expected = (norms * self.signal)[:, None] * jnp.exp(table) + self.background
        constant = jnp.sum(self.events * (jnp.log(self.events) - 1.0))
        total = jnp.sum(norms * self.signal) + self.background.sum()
        return jnp.sum(self.weights * jnp.log(expected)) - total - constant

    def _profiled(self, table: Array) -> Array:
        """Best norms: Newton's steps on the slope, which falls and is convex; the last one carries the derivatives."""
        if self.background is None:
            return jnp.ones_like(self.events)
        background = self.background
        source = self.signal[:, None] * jnp.exp(table)
        still = jax.lax.stop_gradient(source)

        def step(norms: Array, source: Array) -> Array:
            part = source / (norms[:, None] * source + background)
            slope = jnp.sum(self.weights * part, axis=1) - self.signal
            stiffness = jax.lax.stop_gradient(jnp.sum(self.weights * part * part, axis=1))
            return jnp.clip(norms + slope / jnp.maximum(stiffness, 1e-300), *NORM_LIMITS)

        norms = jax.lax.fori_loop(0, _NEWTON_STEPS, lambda _, x: step(x, still), jnp.ones_like(self.events))
        return step(jax.lax.stop_gradient(norms), source)


class ResponseProblem:
    """A likelihood as :func:`nuebar.stats.minimise.minimise` wants it, in its two compiled programs.

    Args:
        likelihood: What to maximise, priors included.

    Attributes:
        n_calls: Evaluations of the table alone.
        n_expansions: Evaluations of it with its slopes.
    """

    def __init__(self, likelihood: ResponseLikelihood) -> None:
        self.likelihood = likelihood
        self.n_calls = self.n_expansions = 0
        self._last: tuple[bytes, tuple[float, np.ndarray, np.ndarray]] | None = None

    @property
    def n_data(self) -> int:
        """Entries of the table."""
        return int(self.likelihood.weights.size)

    def expansion(self, x: ArrayLike) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost, information and half the gradient at parameters; the last point is remembered."""
        x = np.asarray(x, float)
        key = x.tobytes()
        if self._last is None or self._last[0] != key:
            self.n_expansions += 1
            cost, normal, slope = _expansion(self.likelihood, x)
            self._last = (key, (float(cost), np.asarray(normal), np.asarray(slope)))
        return self._last[1]

    def value(self, x: ArrayLike) -> float:
        """−2 ln L − 2 ln prior."""
        x = np.asarray(x, float)
        if self._last is not None and self._last[0] == x.tobytes():
            return self._last[1][0]
        self.n_calls += 1
        return -2.0 * float(_value(self.likelihood, x))

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Its derivatives."""
        return 2.0 * self.expansion(x)[2]

    def curvature(self, x: ArrayLike) -> np.ndarray:
        """Twice the information: the expected second derivatives."""
        return 2.0 * self.expansion(x)[1]

    def hessian(self, x: ArrayLike, free: np.ndarray | None = None) -> np.ndarray:
        """Second derivatives: central differences of gradients in the whitened parameters, two for each.

        Args:
            x: Parameters.
            free: Which are wanted; None means all. Rows and columns of the others are zero.

        Raises:
            NuebarError: The sources leave a combination of free parameters unknown.
        """
        x = np.asarray(x, float)
        free = np.ones(x.shape, bool) if free is None else np.asarray(free, bool)
        normal = self.expansion(x)[1][np.ix_(free, free)]
        unit = np.sqrt(np.diag(normal))
        try:
            white = np.linalg.inv(np.linalg.cholesky(normal / np.outer(unit, unit))).T / unit[:, None]
        except np.linalg.LinAlgError:
            raise NuebarError(
                f"expected sources that tell the {free.sum()} free parameters apart, got "
                f"{', '.join(self.likelihood.sources)}, which leave a combination of them unknown; add a source of "
                "another energy or kind, or give priors"
            ) from None
        columns, step = [], _ROUGH_STEP if self.likelihood.rough else _HESSIAN_STEP
        for direction in white.T:
            d = np.zeros(x.shape)
            d[free] = step * direction
            columns.append((self.gradient(x + d) - self.gradient(x - d))[free] / (2.0 * step))
        curved = np.array(columns).T @ np.linalg.inv(white)
        hessian = np.zeros((x.size, x.size))
        hessian[np.ix_(free, free)] = 0.5 * (curved + curved.T)
        return hessian

    def descend(
        self, start: np.ndarray, lower: np.ndarray, upper: np.ndarray, free: np.ndarray, n_iterations: int, tol: float
    ) -> GaussNewtonResult:
        """Fisher's scoring with damping, :func:`nuebar.stats.gauss_newton.descend`; its arguments."""
        tol = max(tol, _ROUGH_TOL) if self.likelihood.rough else tol
        return descend(self.expansion, start, n_iterations, lower=lower, upper=upper, free=free, tol=tol)


def in_batches(function: Callable[[np.ndarray], Array], points: np.ndarray) -> np.ndarray:
    """A vectorised function of points, always 64 of them, so that it is compiled once and needs little memory."""
    parts = []
    for first in range(0, len(points), _BATCH):
        part = points[first : first + _BATCH]
        filled = np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)])
        parts.append(np.asarray(function(filled))[: len(part)])
    return np.concatenate(parts)


def coarse_start(likelihood: ResponseLikelihood, counts: np.ndarray, density: Density, n: int) -> list[np.ndarray]:
    """Where to start: the deepest valleys of a grid over the box, the deepest one first.

    The tables of the grid are made once for a density; after that a scan is one matrix product.

    Args:
        likelihood: What is to be fitted, for its background and priors.
        counts: In bins, shape ``(sources, bins)``, also for unbinned data.
        density: Of the likelihood.
        n: The most starts wanted.
    """
    table = table_of(density, likelihood.sources)
    points, logs = _grid_of(table, likelihood.limits)
    if likelihood.background is None:
        cost = -(logs.reshape(len(points), -1) @ counts.ravel().astype(np.float32)).astype(float)
    else:
        signal, background = np.asarray(likelihood.signal)[:, None], np.asarray(likelihood.background)
        cost = -np.array([np.sum(counts * np.log(signal * np.exp(row) + background + 1e-300)) for row in logs])
    d = points - np.asarray(likelihood.centre)
    cost += 0.5 * np.einsum("ni,ij,nj->n", d, np.asarray(likelihood.precision), d)
    cost = np.where(np.isfinite(cost), cost, np.inf).reshape(_GRID)
    valley = (cost == minimum_filter(cost, size=3, mode="nearest")) & np.isfinite(cost)
    order = np.argsort(np.where(valley, cost, np.inf), axis=None)[: max(1, min(n, int(valley.sum())))]
    return [points[k] for k in order]


def _grid_of(table: Table, limits: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    if table not in _GRIDS:
        axes = [np.linspace(low, high, n) for (low, high), n in zip(limits, _GRID, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(_GRID))
        logs = in_batches(partial(_many_tables, table), points)
        _GRIDS[table] = (points, _blurred(logs).astype(np.float32))
        while len(_GRIDS) > _MOST_GRIDS:
            _GRIDS.popitem(last=False)
    return _GRIDS[table]


def _blurred(logs: np.ndarray) -> np.ndarray:
    """Every table mixed with its neighbours in light yield, so that no narrow peak falls between two points."""
    p = np.exp(logs).reshape(*_GRID, *logs.shape[1:])
    padded = np.concatenate([p[:, :, :1], p, p[:, :, -1:]], axis=2)
    mixed = 0.5 * p + 0.25 * (padded[:, :, :-2] + padded[:, :, 2:])
    return np.asarray(np.log(np.maximum(mixed, 1e-300))).reshape(logs.shape)


@partial(jax.jit, static_argnums=0)
def _many_tables(table: Table, points: Array) -> Array:
    return jax.vmap(table)(points)


@jax.jit
def _value(likelihood: ResponseLikelihood, x: Array) -> Array:
    return likelihood.log_posterior(x)


@jax.jit
def _value_and_grad(likelihood: ResponseLikelihood, x: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(likelihood.log_posterior)(x)


@jax.jit
def _many(likelihood: ResponseLikelihood, points: Array) -> Array:
    return jax.vmap(likelihood.log_posterior)(points)


@jax.jit
def _expansion(likelihood: ResponseLikelihood, x: Array) -> Expansion:
    return likelihood.expansion(x)


@jax.jit
def _norms(likelihood: ResponseLikelihood, response: Array) -> tuple[Array, Array]:
    if likelihood.background is None:
        return jnp.ones_like(likelihood.events), likelihood.events
    table = likelihood.log_p(response)
    norms = likelihood._profiled(table)
    source = likelihood.signal[:, None] * jnp.exp(table)
    part = source / (norms[:, None] * source + likelihood.background)
    return norms, jnp.sum(likelihood.weights * part * part, axis=1)


def with_slopes(table: Table, response: Array) -> tuple[Array, Array]:
    """Table at a response, shape ``(sources, entries)``, and its derivatives, ``(sources, entries, 3)``."""

    def twice(response: Array) -> tuple[Array, Array]:
        values = table(response)
        return values, values

    slopes, values = jax.jacfwd(twice, has_aux=True)(response)
    return values, slopes


def _prior_arrays(priors: Priors | None, limits: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    n = len(RESPONSE)
    centre = np.array([0.5 * (low + high) for low, high in limits])
    precision = np.zeros((n, n))
    if priors is None:
        return centre, precision
    names = priors.names if isinstance(priors, ResponsePosterior) else tuple(priors)
    unknown = [name for name in names if name not in RESPONSE]
    if unknown:
        raise NuebarError(f"prior of {unknown[0]!r}: expected one of {', '.join(RESPONSE)}; remove it")
    places = [RESPONSE.index(name) for name in names]
    if isinstance(priors, ResponsePosterior):
        centre[places] = priors.mean
        precision[np.ix_(places, places)] = np.linalg.inv(priors.covariance)
        return centre, 0.5 * (precision + precision.T)
    for name, place in zip(names, places, strict=True):
        try:
            value, width = (float(x) for x in priors[name])
        except (TypeError, ValueError) as error:
            raise NuebarError(f"prior of {name!r}: expected centre and width, got {priors[name]!r}") from error
        if not (np.isfinite(value) and np.isfinite(width) and width > 0):
            raise NuebarError(f"prior of {name!r}: expected a finite centre and a width above 0, got {priors[name]!r}")
        centre[place], precision[place, place] = value, width**-2
    return centre, precision

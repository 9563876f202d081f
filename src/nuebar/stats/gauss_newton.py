"""Levenberg-Marquardt descent on the residuals of a sum of squares, inside limits.

One algorithm, two loops around it. `gauss_newton` is pure JAX, one compiled program for a whole descent: for
batches of toys under `jax.vmap`. `descend` is a Python loop around a function that gives cost, slope and
curvature: for single fits, where the compiled part is then the model and nothing else.

Source: J. J. Moré, Lect. Notes Math. 630 (1978) 105 (damping, scaling by the Jacobian).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nuebar.stats.likelihood import require_x64

__all__ = ["GaussNewtonResult", "descend", "gauss_newton", "quadratic_model"]

_RIDGE = 1e-12
"""Stiffness added to every direction, relative: along a degenerate one rounding must not give a long step."""

_DAMPING_START, _DAMPING_LOWEST, _DAMPING_HIGHEST = 1e-4, 1e-12, 1e14

Model = Callable[[np.ndarray], tuple[Any, np.ndarray, np.ndarray]]


class GaussNewtonResult(NamedTuple):
    """Where a Gauss-Newton descent ended.

    Attributes:
        values: parameters, shape `(n_parameters,)`.
        cost: sum of the squared residuals there.
        edm: estimated distance to the minimum in units of the cost.
        covariance: (JᵀJ)⁻¹ over the free parameters; zero rows for fixed ones and those held by a limit; an
            infinite variance for one that moves no residual.
        n_iterations: Jacobians after the first.
        n_not_finite: trial points refused because a residual or derivative was not finite.
        converged: whether `edm` reached the tolerance.
    """

    values: jax.Array | np.ndarray
    cost: jax.Array | np.ndarray
    edm: jax.Array | np.ndarray
    covariance: jax.Array | np.ndarray
    n_iterations: jax.Array | np.ndarray
    n_not_finite: jax.Array | np.ndarray
    converged: jax.Array | np.ndarray


def gauss_newton(
    residuals: Callable[[jax.Array], jax.Array],
    start: ArrayLike,
    n_iterations: int | jax.Array = 100,
    *,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    free: ArrayLike | None = None,
    tol: float | jax.Array = 1e-8,
) -> GaussNewtonResult:
    """Minimise a sum of squares by damped Gauss-Newton steps inside limits.

    Pure JAX: use it under `jax.jit` and, for toys, under `jax.vmap`. A step that raises the cost or meets a
    number that is not finite is taken back and shortened. Limits act by projection.

    Args:
        residuals: function of the parameters, shape `(n_parameters,)` to `(n_data,)`, differentiable.
        start: parameters to start from, shape `(n_parameters,)`, inside the limits.
        n_iterations: most steps to try.
        lower: lower limits, shape `(n_parameters,)`, −inf for none.
        upper: upper limits, likewise.
        free: which parameters may move, booleans; None means all.
        tol: stop when the estimated distance to the minimum, in units of the cost, is below this.

    Returns:
        The end point, with its distance to the minimum and whether it converged.
    """
    require_x64()
    here, region = _nowhere(start, lower, upper, free, jnp)

    def advance(here: _Point) -> _Point:
        x = _trial(here, region, jnp)
        return _advanced(here, x, quadratic_model(residuals, x)[2:], region, jnp)

    end = jax.lax.while_loop(lambda here: _unfinished(here, n_iterations, tol), advance, here)
    return _finished(end, region, tol, jnp)


def descend(
    model: Model,
    start: ArrayLike,
    n_iterations: int = 100,
    *,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    free: ArrayLike | None = None,
    tol: float = 1e-8,
) -> GaussNewtonResult:
    """The same descent step by step in Python, for a function that is compiled already.

    Args:
        model: gives the cost rᵀr, JᵀJ and Jᵀr at parameters.
        start: parameters to start from, shape `(n_parameters,)`, inside the limits.
        n_iterations: most steps to try.
        lower: lower limits, shape `(n_parameters,)`, −inf for none.
        upper: upper limits, likewise.
        free: which parameters may move, booleans; None means all.
        tol: stop when the estimated distance to the minimum, in units of the cost, is below this.

    Returns:
        The end point in numpy arrays, with its distance to the minimum and whether it converged.
    """
    here, region = _nowhere(start, lower, upper, free, np)
    with np.errstate(all="ignore"):  # infinities and NaN are refused as points, as they are under JAX
        while _unfinished(here, n_iterations, tol):
            x = _trial(here, region, np)
            here = _advanced(here, x, model(x), region, np)
        return _finished(here, region, tol, np)


# ------------------------------------------------- one step; `xp` is numpy or jax.numpy


class _Point(NamedTuple):
    """State of the descent: a point with its quadratic model, cost ≈ c + 2 gᵀd + dᵀA d.

    `scaled` is A in units where its diagonal is one, `scale` those units (Moré's scaling); for parameters that
    do not move, held or without effect, the scale is zero and their part of `scaled` the unit matrix.
    """

    x: Any
    cost: Any
    normal: Any
    slope: Any
    scale: Any
    scaled: Any
    edm: Any
    damping: Any
    n_iterations: Any
    n_not_finite: Any


class _Region(NamedTuple):
    """Where a descent may go."""

    lower: Any
    upper: Any
    free: Any


def _nowhere(
    start: ArrayLike, lower: ArrayLike | None, upper: ArrayLike | None, free: ArrayLike | None, xp: Any
) -> tuple[_Point, _Region]:
    """A state whose first pass takes no step and evaluates the start: the model is compiled once, not twice."""
    x = xp.asarray(start, float)
    region = _Region(
        xp.full_like(x, -xp.inf) if lower is None else xp.asarray(lower, float),
        xp.full_like(x, xp.inf) if upper is None else xp.asarray(upper, float),
        xp.ones(x.shape, bool) if free is None else xp.asarray(free, bool),
    )
    square, vector = xp.zeros((x.size, x.size)), xp.zeros_like(x)
    infinite, damping, none = xp.asarray(xp.inf), xp.asarray(_DAMPING_START), xp.asarray(0)
    return _Point(x, infinite, square, vector, vector, square, infinite, damping, none - 1, none), region


def _trial(here: _Point, region: _Region, xp: Any) -> Any:
    return xp.clip(here.x - _solved(here, here.slope, here.damping, xp), region.lower, region.upper)


def _solved(here: _Point, slope: Any, damping: Any, xp: Any) -> Any:
    """(A + damping)⁻¹ applied to a slope."""
    stiffness = here.scaled + (damping + _RIDGE) * xp.eye(slope.size)
    return here.scale * xp.linalg.solve(stiffness, here.scale * slope)


def _advanced(here: _Point, x: Any, model: tuple[Any, Any, Any], region: _Region, xp: Any) -> _Point:
    """Go to a trial point, or stay and shorten the next step."""
    cost, normal, slope = model
    finite = xp.isfinite(cost) & xp.all(xp.isfinite(normal)) & xp.all(xp.isfinite(slope))
    normal, slope = xp.where(finite, normal, 0.0), xp.where(finite, slope, 0.0)
    held = ~region.free | ((x <= region.lower) & (slope > 0)) | ((x >= region.upper) & (slope < 0))
    scale, scaled = _scaled(normal, held, xp)
    moved = x - here.x
    promised = -(2.0 * here.slope @ moved + moved @ here.normal @ moved)
    accept = finite & (cost <= here.cost)
    ratio = (here.cost - cost) / xp.where(promised > 0, promised, 1.0)
    factor = xp.where(accept, xp.where(ratio > 0.75, 0.1, xp.where(ratio > 0.25, 1.0, 4.0)), 10.0)
    damping = xp.clip(here.damping * factor, _DAMPING_LOWEST, _DAMPING_HIGHEST)
    count, refused = here.n_iterations + 1, here.n_not_finite + ~finite
    there = _Point(x, cost, normal, slope, scale, scaled, here.edm, damping, count, refused)
    edm = slope @ _solved(there, slope, 0.0, xp)
    there = there._replace(edm=xp.where(edm >= 0, edm, xp.inf))  # below 0: rounding has eaten the ridge
    kept = here._replace(damping=damping, n_iterations=count, n_not_finite=refused)
    return _Point(*(xp.where(accept, new, old) for new, old in zip(there, kept, strict=True)))


def _unfinished(here: _Point, n_iterations: int | jax.Array, tol: float | jax.Array) -> Any:
    stuck = here.damping >= _DAMPING_HIGHEST
    return ~(here.edm <= tol) & (here.n_iterations < n_iterations) & ~stuck


def _finished(end: _Point, region: _Region, tol: float | jax.Array, xp: Any) -> GaussNewtonResult:
    flat = region.free & ~(xp.diag(end.normal) > 0)
    inverse = xp.linalg.inv(end.scaled + _RIDGE * xp.eye(end.x.size))
    covariance = inverse * end.scale[:, None] * end.scale[None, :] + xp.diag(xp.where(flat, xp.inf, 0.0))
    return GaussNewtonResult(end.x, end.cost, end.edm, covariance, end.n_iterations, end.n_not_finite, end.edm <= tol)


def quadratic_model(
    residuals: Callable[[jax.Array], jax.Array], x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Residuals r, their Jacobian J, and rᵀr, JᵀJ, Jᵀr, in one forward pass.

    Args:
        residuals: function of the parameters, shape `(n_parameters,)` to `(n_data,)`, differentiable.
        x: parameters, shape `(n_parameters,)`.

    Returns:
        Shapes `(n_data,)`, `(n_data, n_parameters)`, `()`, `(n_parameters, n_parameters)`, `(n_parameters,)`.
    """

    def twice(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = residuals(x)
        return r, r

    jacobian, r = jax.jacfwd(twice, has_aux=True)(x)
    return r, jacobian, r @ r, jacobian.T @ jacobian, jacobian.T @ r


def _scaled(normal: Any, held: Any, xp: Any) -> tuple[Any, Any]:
    """Units and scaled curvature of `_Point`."""
    diagonal = xp.diag(normal)
    out = held | (diagonal == 0)
    scale = xp.where(out, 0.0, 1.0 / xp.sqrt(xp.where(out, 1.0, diagonal)))
    return scale, normal * scale[:, None] * scale[None, :] + xp.diag(xp.where(out, 1.0, 0.0))

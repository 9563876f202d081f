"""Find the minimum of a cost, certify it, and say how sure it is.

`minimise` works in four steps, all with derivatives from JAX:

1. `gauss_newton`, a Levenberg-Marquardt descent on the residuals with their exact Jacobian, compiled as one
   program, goes to the minimum inside the limits;
2. Migrad (iminuit) starts there with gradient and Hessian and confirms it, or finishes what was left;
3. the covariance is 2 H⁻¹ with the exact Hessian H of the cost in units of χ²;
4. Minos, where asked, gives asymmetric errors.

The functions are compiled once for a kind of problem: data are arguments, so the next data set, another
start, other limits or another choice of fixed parameters compile nothing. `gauss_newton` alone runs under
`jax.vmap` for batches of toys.

Sources: Levenberg-Marquardt as in Moré, Lect. Notes Math. 630 (1978) 105 (scaling by the Jacobian); Migrad
and Minos: James and Roos, Comput. Phys. Commun. 10 (1975) 343.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from iminuit import Minuit  # type: ignore[import-untyped]
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.stats.likelihood import Term, require_x64

_RIDGE = 1e-13
"""Lowest stiffness of a direction, relative: along a degenerate one rounding must not give a long step."""

_DAMPING_START, _DAMPING_LOWEST, _DAMPING_HIGHEST = 1e-4, 1e-12, 1e14

_MIGRAD_EDM_PER_TOL = 0.002
"""Minuit2 stops at an estimated distance of 0.002 · tolerance · errordef (iminuit, `Minuit.tol`)."""

_PENALTY = 1e6
"""Cost above the starting point that stands for a non-finite cost, so that Minuit's parabolas stay finite."""

_DESCENT_STEPS = 100
_DESCENT_TOL = 1e-3
"""The descent goes this much closer than asked, since its curvature is only that of the residuals."""

_LOWEST_EIGENVALUE = 1e-12
"""Of the Hessian with unit diagonal; what is smaller is rounding."""

_LIMIT_CLOSENESS = 1e-3
"""A value closer to a limit than this part of its standard deviation, or of the allowed range, is on it."""


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

    values: jax.Array
    cost: jax.Array
    edm: jax.Array
    covariance: jax.Array
    n_iterations: jax.Array
    n_not_finite: jax.Array
    converged: jax.Array


class _Point(NamedTuple):
    """State of the descent: a point with its quadratic model, cost ≈ c + 2 gᵀd + dᵀA d.

    `directions` D and `stiffness` w diagonalise A over the parameters that may move: D diag(1/w) Dᵀ = A⁻¹.
    """

    x: jax.Array
    cost: jax.Array
    normal: jax.Array
    slope: jax.Array
    directions: jax.Array
    stiffness: jax.Array
    edm: jax.Array
    damping: jax.Array
    n_iterations: jax.Array
    n_not_finite: jax.Array


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
    x = jnp.asarray(start, float)
    lower = jnp.full_like(x, -jnp.inf) if lower is None else jnp.asarray(lower, float)
    upper = jnp.full_like(x, jnp.inf) if upper is None else jnp.asarray(upper, float)
    free = jnp.ones(x.shape, bool) if free is None else jnp.asarray(free, bool)

    def advance(here: _Point) -> _Point:
        along = here.directions.T @ here.slope
        x = jnp.clip(here.x - here.directions @ (along / (here.stiffness + here.damping)), lower, upper)
        cost, normal, slope = _quadratic_model(residuals, x)
        held = ~free | ((x <= lower) & (slope > 0)) | ((x >= upper) & (slope < 0))
        directions, stiffness = _diagonalised(normal, held)
        edm = jnp.sum((directions.T @ slope) ** 2 / stiffness)
        moved = x - here.x
        promised = -(2.0 * here.slope @ moved + moved @ here.normal @ moved)
        finite = jnp.isfinite(cost) & jnp.isfinite(edm)
        accept = finite & (cost <= here.cost)
        ratio = (here.cost - cost) / jnp.where(promised > 0, promised, 1.0)
        factor = jnp.where(accept, jnp.where(ratio > 0.75, 0.1, jnp.where(ratio > 0.25, 1.0, 4.0)), 10.0)
        damping = jnp.clip(here.damping * factor, _DAMPING_LOWEST, _DAMPING_HIGHEST)
        count, refused = here.n_iterations + 1, here.n_not_finite + ~finite
        there = _Point(x, cost, normal, slope, directions, stiffness, edm, damping, count, refused)
        kept = here._replace(damping=damping, n_iterations=count, n_not_finite=refused)
        return jax.tree.map(lambda new, old: jnp.where(accept, new, old), there, kept)

    def unfinished(here: _Point) -> jax.Array:
        stuck = here.damping >= _DAMPING_HIGHEST
        return ~(here.edm <= tol) & (here.n_iterations < n_iterations) & ~stuck

    # The first pass takes no step and evaluates the start: the model is then compiled once, not twice.
    square, vector = jnp.zeros((x.size, x.size)), jnp.zeros_like(x)
    infinite, damping, none = jnp.asarray(jnp.inf), jnp.asarray(_DAMPING_START), jnp.asarray(0)
    nowhere = _Point(x, infinite, square, vector, square, vector + 1.0, infinite, damping, none - 1, none)
    end = jax.lax.while_loop(unfinished, advance, nowhere)
    flat = free & ~(jnp.diag(end.normal) > 0)
    covariance = (end.directions / end.stiffness[None, :]) @ end.directions.T + jnp.diag(
        jnp.where(flat, jnp.inf, 0.0)
    )
    return GaussNewtonResult(
        end.x, end.cost, end.edm, covariance, end.n_iterations, end.n_not_finite, end.edm <= tol
    )


def _quadratic_model(
    residuals: Callable[[jax.Array], jax.Array], x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cost, JᵀJ and Jᵀr from one pass."""

    def twice(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = residuals(x)
        return r, r

    jacobian, r = jax.jacfwd(twice, has_aux=True)(x)
    return r @ r, jacobian.T @ jacobian, jacobian.T @ r


def _diagonalised(normal: jax.Array, held: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions and stiffness of `_Point`, in units where A has a unit diagonal (Moré's scaling).

    Rows of held and of flat parameters are zero. A damping adds to the stiffness.
    """
    diagonal = jnp.diag(normal)
    out = held | (diagonal == 0)
    scale = jnp.where(out, 0.0, 1.0 / jnp.sqrt(jnp.where(out, 1.0, diagonal)))
    scaled = jnp.where(out[:, None] | out[None, :], 0.0, normal * scale[:, None] * scale[None, :])
    stiffness, basis = jnp.linalg.eigh(scaled + jnp.diag(jnp.where(out, 1.0, 0.0)))
    return basis * scale[:, None], jnp.maximum(stiffness, _RIDGE)


class Problem:
    """A cost with its compiled derivatives.

    All problems of one kind (the same model and terms, the same shapes) share their compiled programs.

    Args:
        term: the cost as a function of the parameter vector.

    Raises:
        NuebarError: in single precision, or if the model holds what is neither an array nor hashable.
    """

    def __init__(self, term: Term) -> None:
        require_x64()
        if not isinstance(term, Term):
            raise NuebarError(
                "a fit needs a Term (Bound(cost, model), GaussianPulls, or a sum of them), "
                f"got {type(term).__name__}"
            )
        self.term = term
        arrays, rest = eqx.partition(term, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
        self._arrays = jax.tree.map(jnp.asarray, arrays)
        leaves, tree = jax.tree.flatten(rest)
        self._static = (tree, tuple(leaves))
        try:
            hash(self._static)
        except TypeError as error:
            raise NuebarError(
                "the model of a fit must be an equinox.Module or a plain function that holds arrays and "
                f"constants only, got something else inside: {error}"
            ) from error

    @property
    def n_data(self) -> int:
        """Number of data points and pulls."""
        return self.term.n_data

    def value(self, x: ArrayLike) -> float:
        """The cost at parameters `x`, shape `(n_parameters,)`."""
        return float(_value(self._static, self._arrays, np.asarray(x, float)))

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Derivatives of the cost, shape `(n_parameters,)`."""
        return np.asarray(_gradient(self._static, self._arrays, np.asarray(x, float)))

    def hessian(self, x: ArrayLike) -> np.ndarray:
        """Second derivatives of the cost, shape `(n_parameters, n_parameters)`."""
        return np.asarray(_hessian(self._static, self._arrays, np.asarray(x, float)))

    def residuals(self, x: ArrayLike) -> np.ndarray:
        """Signed residuals, shape `(n_data,)`."""
        return np.asarray(_residuals(self._static, self._arrays, np.asarray(x, float)))

    def descend(
        self,
        start: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        free: np.ndarray,
        n_iterations: int,
        tol: float,
    ) -> GaussNewtonResult:
        """`gauss_newton` on the residuals of this problem; the arguments are those of that function."""
        return _descend(self._static, self._arrays, start, lower, upper, free, n_iterations, tol)


def _join(static: Any, arrays: Any) -> Term:
    tree, leaves = static
    return eqx.combine(arrays, jax.tree.unflatten(tree, leaves))


@partial(jax.jit, static_argnums=0)
def _value(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return _join(static, arrays)(x)


@partial(jax.jit, static_argnums=0)
def _gradient(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return jax.grad(_join(static, arrays).value)(x)


@partial(jax.jit, static_argnums=0)
def _hessian(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return jax.hessian(_join(static, arrays).value)(x)


@partial(jax.jit, static_argnums=0)
def _residuals(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return _join(static, arrays).residuals(x)


@partial(jax.jit, static_argnums=0)
def _descend(
    static: Any,
    arrays: Any,
    start: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    free: jax.Array,
    n_iterations: int,
    tol: float,
) -> GaussNewtonResult:
    residuals = _join(static, arrays).residuals
    return gauss_newton(residuals, start, n_iterations, lower=lower, upper=upper, free=free, tol=tol)


@dataclass(frozen=True)
class Interval:
    """Asymmetric error of one parameter, from Minos.

    Attributes:
        minus: offset of the lower end from the value (negative), NaN if not found.
        plus: offset of the upper end (positive), NaN if not found.
        valid: whether both ends were found.
        reason: "found", or what went wrong.
    """

    minus: float
    plus: float
    valid: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Minimum:
    """The end of a fit. Look at `valid` first.

    Attributes:
        names: all parameters, in the order of the vector.
        values: best values, shape `(n_parameters,)`.
        errors: standard deviations from the covariance; 0 for fixed parameters; NaN where the covariance is
            not positive definite (the fit is then not valid).
        free: names of the parameters that were not fixed, the order of `covariance`.
        covariance: 2 H⁻¹ with the Hessian of the cost over the free parameters, shape `(n_free, n_free)`. It
            knows nothing of limits. NaN where not positive definite.
        minos: asymmetric errors of the parameters they were asked for.
        cost: the cost at `values`, χ² units.
        n_data: data points and pulls in the cost.
        edm: estimated distance to the minimum, ½ gᵀH⁻¹g, χ² units.
        at_limit: names of the parameters that ended on a limit.
        n_calls: evaluations of the cost or its residuals.
        n_grad_calls: evaluations of derivatives (gradient, Jacobian or Hessian).
        n_not_finite: evaluations that were not finite and were refused.
        seconds: wall time.
        valid: whether this is a certified minimum inside the limits with a positive covariance.
        reason: "converged", or everything that is wrong in plain words.
    """

    names: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray
    free: tuple[str, ...]
    covariance: np.ndarray
    minos: dict[str, Interval]
    cost: float
    n_data: int
    edm: float
    at_limit: tuple[str, ...]
    n_calls: int
    n_grad_calls: int
    n_not_finite: int
    seconds: float
    valid: bool
    reason: str

    def value(self, name: str) -> float:
        """Best value of one parameter."""
        return float(self.values[self.names.index(name)])

    def error(self, name: str) -> float:
        """Standard deviation of one parameter."""
        return float(self.errors[self.names.index(name)])


@dataclass(frozen=True, eq=False)
class _Setup:
    """Checked input of a fit."""

    names: tuple[str, ...]
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    free: np.ndarray
    scales: np.ndarray | None
    minos: tuple[str, ...]


def minimise(
    problem: Problem | Term,
    start: ArrayLike,
    *,
    names: Sequence[str],
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    fixed: Sequence[str] = (),
    scales: ArrayLike | None = None,
    errors: Literal["hesse", "minos"] = "hesse",
    minos: Sequence[str] = (),
    max_calls: int = 10_000,
    tol: float = 1e-5,
) -> Minimum:
    """Fit: minimise a cost in units of χ² and give the errors.

    Args:
        problem: the cost; a `Term` is wrapped in a `Problem`.
        start: parameters to start from, shape `(n_parameters,)`, inside the limits.
        names: the name of each parameter.
        lower: lower limits, shape `(n_parameters,)`, −inf for none.
        upper: upper limits, likewise.
        fixed: names of the parameters that keep their starting value.
        scales: the rough error of each parameter, in which Minuit works; None takes them from the Jacobian at
            the end of the descent, which is right unless that is singular.
        errors: "hesse" for the covariance alone, "minos" for asymmetric errors too.
        minos: names for asymmetric errors; with `errors="minos"` and none given, all free parameters.
        max_calls: about how many evaluations of the cost are allowed, and again for each Minos error.
        tol: largest estimated distance to the minimum, in units of χ², that counts as converged.

    Returns:
        The minimum, with `valid` and `reason`. A fit that fails is returned, not raised.

    Raises:
        NuebarError: for wrong input, or a cost or gradient that is not finite at the start.
    """
    began = time.perf_counter()
    problem = problem if isinstance(problem, Problem) else Problem(problem)
    setup = _checked_setup(start, names, lower, upper, fixed, scales, errors, minos)
    _refuse_bad_start(problem, setup)
    budget = min(_DESCENT_STEPS, max_calls)
    descent = problem.descend(setup.start, setup.lower, setup.upper, setup.free, budget, tol * _DESCENT_TOL)
    counted = _Counted(problem, setup, descent)
    minuit = _certify(counted, np.asarray(descent.values), max_calls, tol)
    values = counted.physical(np.array(minuit.values)) if minuit else np.asarray(descent.values)
    report = _judge(counted, values, minuit, max_calls, tol)
    intervals, lower_found = _minos(counted, minuit, max_calls, valid=not report.faults)
    faults = report.faults + (
        ["Minos found a lower minimum: start again from another point"] if lower_found else []
    )
    if faults and counted.n_not_finite:
        faults.append(f"the cost was not finite at {counted.n_not_finite} points on the way")
    return Minimum(
        names=setup.names,
        values=_frozen(values),
        errors=_frozen(report.errors),
        free=tuple(np.array(setup.names, object)[setup.free]),
        covariance=_frozen(report.covariance),
        minos=intervals,
        cost=problem.value(values),
        n_data=problem.n_data,
        edm=report.edm,
        at_limit=report.at_limit,
        n_calls=counted.n_calls,
        n_grad_calls=counted.n_grad_calls,
        n_not_finite=counted.n_not_finite,
        seconds=time.perf_counter() - began,
        valid=not faults,
        reason="; ".join(faults) or "converged",
    )


class _Counted:
    """The problem in units of the scales, with counters: what Minuit is given."""

    def __init__(self, problem: Problem, setup: _Setup, descent: GaussNewtonResult) -> None:
        self.problem, self.setup = problem, setup
        n_jacobians = int(descent.n_iterations) + 1
        self.n_calls, self.n_grad_calls = n_jacobians + 1, n_jacobians + 1
        self.n_not_finite = int(descent.n_not_finite)
        self.ceiling = float(descent.cost) + _PENALTY
        self.scales = setup.scales if setup.scales is not None else _scales_of(descent)
        self._hessian_at: tuple[bytes, np.ndarray] = (b"", np.empty(0))

    def physical(self, scaled: np.ndarray) -> np.ndarray:
        """Parameters in their own units; a rounding beyond a limit is taken back."""
        return np.clip(np.asarray(scaled) * self.scales, self.setup.lower, self.setup.upper)

    def value(self, scaled: np.ndarray) -> float:
        self.n_calls += 1
        cost = self.problem.value(self.physical(scaled))
        if math.isfinite(cost):
            return cost
        self.n_not_finite += 1
        return self.ceiling

    def gradient(self, scaled: np.ndarray) -> np.ndarray:
        return self._finite(self.problem.gradient(self.physical(scaled)) * self.scales)

    def hessian(self, scaled: np.ndarray) -> np.ndarray:
        key = np.asarray(scaled).tobytes()
        if self._hessian_at[0] != key:
            hessian = self.problem.hessian(self.physical(scaled)) * np.outer(self.scales, self.scales)
            self._hessian_at = (key, self._finite(hessian))
        return self._hessian_at[1]

    def positive_hessian(self, scaled: np.ndarray) -> np.ndarray:
        """The Hessian with the sign of a negative curvature turned: iminuit 2.33 fails on a negative one."""
        hessian = self.hessian(scaled)
        eigenvalues, directions = np.linalg.eigh(hessian)
        if eigenvalues[0] > 0:
            return hessian
        turned = np.maximum(np.abs(eigenvalues), _LOWEST_EIGENVALUE * max(np.abs(eigenvalues).max(), 1.0))
        return (directions * turned) @ directions.T

    def _finite(self, derivatives: np.ndarray) -> np.ndarray:
        self.n_grad_calls += 1
        if np.isfinite(derivatives).all():
            return derivatives
        self.n_not_finite += 1
        return np.nan_to_num(derivatives, nan=0.0, posinf=0.0, neginf=0.0)


def _scales_of(descent: GaussNewtonResult) -> np.ndarray:
    variances = np.diag(np.asarray(descent.covariance))
    usable = np.isfinite(variances) & (variances > 0)
    size = np.abs(np.asarray(descent.values))
    return np.where(usable, np.sqrt(np.where(usable, variances, 1.0)), np.where(size > 0, size, 1.0))


def _certify(counted: _Counted, values: np.ndarray, max_calls: int, tol: float) -> Minuit | None:
    """Migrad from the end of the descent; parameters on a limit stay there. None if nothing can move."""
    setup, scales = counted.setup, counted.scales
    still = ~setup.free | (values <= setup.lower) | (values >= setup.upper)
    if still.all():
        return None
    minuit = Minuit(
        counted.value,
        values / scales,
        grad=counted.gradient,
        hessian=counted.positive_hessian,
        name=setup.names,
    )
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.tol = tol / _MIGRAD_EDM_PER_TOL
    minuit.errors = np.ones(len(values))
    minuit.limits = list(zip(setup.lower / scales, setup.upper / scales, strict=True))
    minuit.fixed = still
    return minuit.migrad(ncall=max(1, max_calls - counted.n_calls), use_simplex=False)


class _Report(NamedTuple):
    errors: np.ndarray
    covariance: np.ndarray
    edm: float
    at_limit: tuple[str, ...]
    faults: list[str]


def _judge(
    counted: _Counted, values: np.ndarray, minuit: Minuit | None, max_calls: int, tol: float
) -> _Report:
    """Covariance, distance to the minimum and everything that is wrong at the end point."""
    setup, scales = counted.setup, counted.scales
    scaled = values / scales
    gradient, hessian = counted.gradient(scaled), counted.hessian(scaled)
    covariance, weak = _inverse_hessian(hessian[np.ix_(setup.free, setup.free)])
    errors = np.zeros(len(values))
    errors[setup.free] = np.sqrt(2.0 * np.diag(covariance))
    sides = _limit_sides(setup, values, np.where(errors > 0, errors, 1.0) * scales)
    inside = setup.free & (sides == "")
    inverse, _ = _inverse_hessian(hessian[np.ix_(inside, inside)])
    edm = 0.5 * float(gradient[inside] @ inverse @ gradient[inside])
    if math.isnan(edm):
        edm = float(minuit.fmin.edm) if minuit and minuit.fmin else 0.0

    faults = [
        f"{name} ended on its {side} limit {value:.6g}: widen the limit or fix the parameter"
        for name, side, value in zip(setup.names, sides, values, strict=True)
        if side
    ]
    if minuit and minuit.fmin and minuit.fmin.has_reached_call_limit:
        faults.append(f"the limit of {max_calls} calls was reached before convergence: raise max_calls")
    if not edm <= tol or (minuit and not minuit.valid):
        faults.append(f"not converged: estimated distance to the minimum {edm:.2g}, wanted {tol:.2g}")
    if len(weak):
        culprits = ", ".join(np.array(setup.names, object)[setup.free][weak])
        faults.append(
            f"the covariance is not positive definite, the cost does not rise along {culprits}: "
            "fix one of them, add a pull, or start elsewhere"
        )
    units = scales[setup.free]
    return _Report(
        errors * scales,
        2.0 * covariance * np.outer(units, units),
        edm,
        tuple(name for name, side in zip(setup.names, sides, strict=True) if side),
        faults,
    )


def _inverse_hessian(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of a positive matrix and no indices, or NaN and the indices of the worst direction."""
    if not hessian.size:
        return hessian, np.empty(0, int)
    unit = 1.0 / np.sqrt(np.where(np.diag(hessian) > 0, np.diag(hessian), 1.0))
    eigenvalues, directions = np.linalg.eigh(hessian * np.outer(unit, unit))
    if eigenvalues[0] > _LOWEST_EIGENVALUE:
        return (directions / eigenvalues) @ directions.T * np.outer(unit, unit), np.empty(0, int)
    weight = np.abs(directions[:, 0])
    return np.full_like(hessian, np.nan), np.flatnonzero(weight > 0.3 * weight.max())


def _limit_sides(setup: _Setup, values: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """For each parameter "lower" or "upper" if it ended on that limit, else ""."""
    near = _LIMIT_CLOSENESS * np.minimum(sigmas, setup.upper - setup.lower)
    sides = np.where(
        values - setup.lower <= near, "lower", np.where(setup.upper - values <= near, "upper", "")
    )
    return np.where(setup.free, sides, "")


def _minos(
    counted: _Counted, minuit: Minuit | None, max_calls: int, *, valid: bool
) -> tuple[dict[str, Interval], bool]:
    """The asked intervals, and whether a lower minimum turned up."""
    names = counted.setup.minos
    if not valid or minuit is None:
        return {
            name: Interval(math.nan, math.nan, False, "the minimum is not valid") for name in names
        }, False
    intervals, lower_found = {}, False
    for name in names:
        found = minuit.minos(name, ncall=max_calls).merrors[name]
        scale = counted.scales[counted.setup.names.index(name)]
        faults = [_minos_fault(found, side) for side in ("lower", "upper")]
        minus, plus = (
            math.nan if fault else float(end * scale)
            for fault, end in zip(faults, (found.lower, found.upper), strict=True)
        )
        lower_found |= found.lower_new_min or found.upper_new_min
        told = "; ".join(fault for fault in faults if fault)
        intervals[name] = Interval(minus, plus, not told, told or "found")
    return intervals, lower_found


def _minos_fault(found: Any, side: str) -> str:
    if getattr(found, f"at_{side}_limit"):  # Minuit calls this valid and gives the limit as the end
        return f"the {side} end lies beyond the limit of a parameter"
    if getattr(found, f"{side}_valid"):
        return ""
    if getattr(found, f"at_{side}_max_fcn"):
        return f"the {side} end was not found within the allowed calls"
    if getattr(found, f"{side}_new_min"):
        return f"a lower minimum was found on the way to the {side} end"
    return f"the cost does not rise by 1 towards the {side} end"


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.setflags(write=False)
    return array


def _vector(values: ArrayLike | None, default: float, n: int, what: str) -> np.ndarray:
    if values is None:
        return np.full(n, default)
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise NuebarError(f"{what} must be {n} numbers, one for each name, got {values!r}") from error
    if array.shape != (n,):
        raise NuebarError(f"{what} must have shape ({n},), one number for each name, got shape {array.shape}")
    return array


def _checked_setup(
    start: ArrayLike,
    names: Sequence[str],
    lower: ArrayLike | None,
    upper: ArrayLike | None,
    fixed: Sequence[str],
    scales: ArrayLike | None,
    errors: str,
    minos: Sequence[str],
) -> _Setup:
    names = tuple(names)
    n = len(names)
    if len(set(names)) != n:
        raise NuebarError(f"parameter names must differ from each other, got {names}")
    for what, wanted in (("fixed", fixed), ("minos", minos)):
        unknown = [name for name in wanted if name not in names]
        if unknown or isinstance(wanted, str):
            raise NuebarError(
                f"{what} must list parameter names, got {unknown or wanted!r}; known are {names}"
            )
    if errors not in ("hesse", "minos"):
        raise NuebarError(f'errors must be "hesse" or "minos", got {errors!r}')
    start_, lower_, upper_ = (
        _vector(values, default, n, what)
        for values, default, what in (
            (start, 0.0, "start"),
            (lower, -np.inf, "lower"),
            (upper, np.inf, "upper"),
        )
    )
    for name, value, low, high in zip(names, start_, lower_, upper_, strict=True):
        if not (low < high and low <= value <= high and math.isfinite(value)):
            raise NuebarError(
                f"the start of {name} must be finite and inside its limits, got {value} in [{low}, {high}]"
            )
    scales_ = None if scales is None else _vector(scales, 1.0, n, "scales")
    if scales_ is not None and not (np.isfinite(scales_) & (scales_ > 0)).all():
        raise NuebarError(f"scales must be finite and above 0, got {scales_}")
    free = np.array([name not in fixed for name in names], bool)
    asked = tuple(minos) or (names if errors == "minos" else ())
    return _Setup(names, start_, lower_, upper_, free, scales_, tuple(a for a in asked if a not in fixed))


def _refuse_bad_start(problem: Problem, setup: _Setup) -> None:
    cost, gradient = problem.value(setup.start), problem.gradient(setup.start)
    bad = [name for name, slope in zip(setup.names, gradient, strict=True) if not math.isfinite(slope)]
    if not math.isfinite(cost):
        point = ", ".join(f"{name}={value:.6g}" for name, value in zip(setup.names, setup.start, strict=True))
        raise NuebarError(
            f"the cost must be finite where a fit starts, got {cost} at {point}: start where every expected "
            "count is positive"
        )
    if bad:
        raise NuebarError(
            "the gradient of the cost must be finite where a fit starts, got nan or inf for "
            f"{', '.join(bad)}: start elsewhere or make the model differentiable there"
        )

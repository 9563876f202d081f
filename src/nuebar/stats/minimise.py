"""Find the minimum of a cost, certify it, and say how sure it is.

`minimise` works in four steps, all with derivatives from JAX:

1. a Levenberg-Marquardt descent (`nuebar.stats.gauss_newton`) on the residuals with their exact Jacobian goes
   to the minimum inside the limits;
2. Migrad (iminuit) starts there with the gradient and the Gauss-Newton curvature and confirms it, or finishes
   what was left; the distance from the exact gradient and Hessian at its end decides;
3. the covariance is 2 H⁻¹ with the full Hessian H of the cost in units of χ²;
4. Minos, where asked, gives asymmetric errors.

All four use one compiled program, that of `nuebar.stats.problem.Problem`; data are its arguments, so the next
data set, another start, other limits or another choice of fixed parameters compile nothing.

Sources: Migrad and Minos: James and Roos, Comput. Phys. Commun. 10 (1975) 343.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from iminuit import Minuit  # type: ignore[import-untyped]
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.stats.gauss_newton import GaussNewtonResult, gauss_newton
from nuebar.stats.likelihood import Term
from nuebar.stats.problem import Problem

__all__ = ["GaussNewtonResult", "Interval", "Minimisable", "Minimum", "Problem", "gauss_newton", "minimise"]

_MIGRAD_EDM_PER_TOL = 0.002
"""Minuit2 stops at an estimated distance of 0.002 · tolerance · errordef (iminuit, `Minuit.tol`)."""

_PENALTY = 1e6
"""Cost above the starting point that stands for a non-finite cost, so that Minuit's parabolas stay finite."""

_DESCENT_STEPS = 100
_DESCENT_TOL = 1e-3
"""The descent goes this much closer than asked, since its curvature is only that of the residuals."""

_LOWEST_EIGENVALUE = 1e-9
"""Of the Hessian with unit diagonal; what is smaller is rounding of its differences."""

_LIMIT_CLOSENESS = 1e-3
"""A value closer to a limit than this part of its standard deviation, or of the allowed range, is on it."""


@runtime_checkable
class Minimisable(Protocol):
    """What a fit asks of a cost in units of χ²; `Problem` is one, made of residuals.

    A cost without residuals, such as an unbinned likelihood, may bring its own: `curvature` is then its expected
    information, which is positive, and `descend` any descent that it drives.
    """

    @property
    def n_data(self) -> int:
        """Number of data points and pulls."""

    def value(self, x: ArrayLike) -> float:
        """The cost at parameters `x`, shape `(n_parameters,)`."""

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Its derivatives, shape `(n_parameters,)`."""

    def curvature(self, x: ArrayLike) -> np.ndarray:
        """A positive approximation of its second derivatives, shape `(n_parameters, n_parameters)`."""

    def hessian(self, x: ArrayLike, free: np.ndarray | None = None) -> np.ndarray:
        """Its second derivatives, zero for parameters that are not free."""

    def descend(
        self, start: np.ndarray, lower: np.ndarray, upper: np.ndarray, free: np.ndarray, n_iterations: int, tol: float
    ) -> GaussNewtonResult:
        """To the minimum inside limits, as `nuebar.stats.gauss_newton.descend`."""


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
        n_grad_calls: evaluations of derivatives (gradient, Jacobian, curvature; a full Hessian counts as one).
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
    problem: Minimisable | Term,
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
        problem: the cost; a `Term` is wrapped in a `Problem`, anything else must be `Minimisable`.
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
    problem = problem if isinstance(problem, Minimisable) else Problem(problem)
    setup = _checked_setup(start, names, lower, upper, fixed, scales, errors, minos)
    _refuse_bad_start(problem, setup)
    budget = min(_DESCENT_STEPS, max_calls)
    descent = problem.descend(setup.start, setup.lower, setup.upper, setup.free, budget, tol * _DESCENT_TOL)
    counted = _Counted(problem, setup, descent)
    minuit = _certify(counted, np.asarray(descent.values), max_calls, tol)
    values = counted.physical(np.array(minuit.values)) if minuit else np.asarray(descent.values)
    report = _judge(counted, values, minuit, max_calls, tol)
    intervals, lower_found = _minos(counted, minuit, max_calls, valid=not report.faults)
    faults = report.faults + (["Minos found a lower minimum: start again from another point"] if lower_found else [])
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

    def __init__(self, problem: Minimisable, setup: _Setup, descent: GaussNewtonResult) -> None:
        self.problem, self.setup = problem, setup
        n_jacobians = int(descent.n_iterations) + 1
        self.n_calls, self.n_grad_calls = n_jacobians + 1, n_jacobians + 1
        self.n_not_finite = int(descent.n_not_finite)
        self.ceiling = float(descent.cost) + _PENALTY
        self.scales = setup.scales if setup.scales is not None else _scales_of(descent)

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

    def curvature(self, scaled: np.ndarray) -> np.ndarray:
        """That of Gauss and Newton, stiff in every direction: the metric of Migrad, not the errors of the fit.

        It costs nothing beside the gradient, and iminuit 2.33 fails on a curvature that is not positive.
        """
        curvature = self._finite(self.problem.curvature(self.physical(scaled)) * np.outer(self.scales, self.scales))
        eigenvalues, directions = np.linalg.eigh(curvature)
        stiff = np.maximum(eigenvalues, _LOWEST_EIGENVALUE * max(eigenvalues[-1], 1.0))
        return (directions * stiff) @ directions.T

    def hessian(self, scaled: np.ndarray) -> np.ndarray:
        """The full one over the free parameters, zero elsewhere."""
        hessian = self.problem.hessian(self.physical(scaled), self.setup.free)
        return self._finite(hessian * np.outer(self.scales, self.scales))

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
        hessian=counted.curvature,
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


def _judge(counted: _Counted, values: np.ndarray, minuit: Minuit | None, max_calls: int, tol: float) -> _Report:
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
    # The exact gradient and Hessian decide. Migrad's own word counts where they have none: rounding in a cost (a
    # predictor in single precision) stops its line searches and spoils its estimate of the distance.
    doubtful = math.isnan(edm)
    if doubtful:
        edm = float(minuit.fmin.edm) if minuit and minuit.fmin else 0.0

    faults = [
        f"{name} ended on its {side} limit {value:.6g}: widen the limit or fix the parameter"
        for name, side, value in zip(setup.names, sides, values, strict=True)
        if side
    ]
    if minuit and minuit.fmin and minuit.fmin.has_reached_call_limit:
        faults.append(f"the limit of {max_calls} calls was reached before convergence: raise max_calls")
    if not edm <= tol or (doubtful and minuit and not minuit.valid):
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
    sides = np.where(values - setup.lower <= near, "lower", np.where(setup.upper - values <= near, "upper", ""))
    return np.where(setup.free, sides, "")


def _minos(
    counted: _Counted, minuit: Minuit | None, max_calls: int, *, valid: bool
) -> tuple[dict[str, Interval], bool]:
    """The asked intervals, and whether a lower minimum turned up."""
    names = counted.setup.minos
    if not valid or minuit is None:
        return {name: Interval(math.nan, math.nan, False, "the minimum is not valid") for name in names}, False
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
            raise NuebarError(f"{what} must list parameter names, got {unknown or wanted!r}; known are {names}")
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


def _refuse_bad_start(problem: Minimisable, setup: _Setup) -> None:
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

"""A cost with its derivatives, from one compiled program.

Everything a single fit needs follows from the residuals r and their Jacobian J at a point, which come out of
one program in forward mode: cost rᵀr, gradient 2 Jᵀr, and the curvature 2 JᵀJ of a Gauss-Newton step. The
rest of the Hessian, Σ r ∂²r, is a difference of Jacobians at nearby points: the same program again, instead
of one for second derivatives, which takes ten times as long to compile as all the fit takes to run.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.stats.gauss_newton import GaussNewtonResult, descend, quadratic_model
from nuebar.stats.likelihood import Term, require_x64

__all__ = ["Linearised", "Problem"]

_STEP = 1e-3
"""Step of the differences in standard deviations: they err by about _STEP² and by 1e-16/_STEP of Σ r ∂²r."""

_BLIND_STEP = 1e-4
"""Step relative to the value (or to 1) for a parameter that moves no residual to first order."""


class Linearised(NamedTuple):
    """A cost at one point, to first order in its residuals; read-only arrays.

    Attributes:
        residuals: r, signed, shape `(n_data,)`.
        jacobian: J = ∂r/∂x, shape `(n_data, n_parameters)`.
        cost: rᵀr.
        normal: JᵀJ, shape `(n_parameters, n_parameters)`.
        slope: Jᵀr, shape `(n_parameters,)`.
    """

    residuals: np.ndarray
    jacobian: np.ndarray
    cost: np.ndarray
    normal: np.ndarray
    slope: np.ndarray


class Problem:
    """A cost with its compiled derivatives.

    All problems of one kind (the same model and terms, the same shapes) share their compiled program. The
    last point is remembered: its cost, gradient and residuals cost one evaluation together.

    Args:
        term: the cost as a function of the parameter vector; its model must be differentiable forwards.

    Raises:
        NuebarError: in single precision, or if the model holds what is neither an array nor hashable.
    """

    def __init__(self, term: Term) -> None:
        require_x64()
        if not isinstance(term, Term):
            raise NuebarError(
                f"a fit needs a Term (Bound(cost, model), GaussianPulls, or a sum of them), got {type(term).__name__}"
            )
        self.term = term
        arrays, rest = eqx.partition(term, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
        self._arrays = jax.tree.map(jax.device_put, arrays)
        leaves, tree = jax.tree.flatten(rest)
        self._static = (tree, tuple(leaves))
        try:
            hash(self._static)
        except TypeError as error:
            raise NuebarError(
                "the model of a fit must be an equinox.Module or a plain function that holds arrays and "
                f"constants only, got something else inside: {error}"
            ) from error
        self._last: tuple[bytes, Linearised] | None = None

    @property
    def n_data(self) -> int:
        """Number of data points and pulls."""
        return self.term.n_data

    def linearised(self, x: ArrayLike) -> Linearised:
        """Residuals, their derivatives and what follows from them at parameters `x`, `(n_parameters,)`."""
        x = np.asarray(x, float)
        key = x.tobytes()
        if self._last is None or self._last[0] != key:
            self._last = (key, self._evaluate(x))
        return self._last[1]

    def value(self, x: ArrayLike) -> float:
        """The cost at parameters `x`, shape `(n_parameters,)`."""
        return float(self.linearised(x).cost)

    def residuals(self, x: ArrayLike) -> np.ndarray:
        """Signed residuals, shape `(n_data,)`."""
        return self.linearised(x).residuals

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Derivatives of the cost, 2 Jᵀr, shape `(n_parameters,)`."""
        return 2.0 * self.linearised(x).slope

    def curvature(self, x: ArrayLike) -> np.ndarray:
        """2 JᵀJ, the Hessian of the cost where the residuals are straight, `(n_parameters, n_parameters)`."""
        return 2.0 * self.linearised(x).normal

    def hessian(self, x: ArrayLike, free: np.ndarray | None = None) -> np.ndarray:
        """Second derivatives of the cost, 2 (JᵀJ + Σ r ∂²r).

        The second term is a central difference of Jacobians, two for each parameter, 1e-3 standard deviations
        away (of that parameter alone, from JᵀJ); one-sided, of the same order, next to the end of the model's
        domain. It is exact to about 1e-6 of itself, and itself small: nothing for straight residuals, of the
        order of √n_data times their bending in one standard deviation otherwise.

        Args:
            x: parameters, shape `(n_parameters,)`.
            free: which parameters are wanted, booleans; None means all.

        Returns:
            Shape `(n_parameters, n_parameters)`; rows and columns of parameters that are not free are zero.
        """
        x = np.asarray(x, float)
        free = np.ones(x.shape, bool) if free is None else np.asarray(free, bool)
        here = self.linearised(x)
        bending = np.zeros_like(here.normal)
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            for k in np.flatnonzero(free).tolist():
                bending[k] = self._bending(x, here, k)
        hessian = 2.0 * here.normal + bending + bending.T
        return np.where(free[:, None] & free[None, :], hessian, 0.0)

    def exact_hessian(self, x: ArrayLike) -> np.ndarray:
        """The Hessian by automatic differentiation: compiles a program of its own; made to test `hessian`."""
        return np.asarray(_exact_hessian(self._static, self._arrays, np.asarray(x, float)))

    def descend(
        self,
        start: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        free: np.ndarray,
        n_iterations: int,
        tol: float,
    ) -> GaussNewtonResult:
        """`nuebar.stats.gauss_newton.descend` on the residuals of this problem; its arguments."""

        def model(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return self.linearised(x)[2:]

        return descend(model, start, n_iterations, lower=lower, upper=upper, free=free, tol=tol)

    def _evaluate(self, x: np.ndarray) -> Linearised:
        return Linearised(*(np.asarray(a) for a in _linearised(self._static, self._arrays, x)))

    def _bending(self, x: np.ndarray, here: Linearised, k: int) -> np.ndarray:
        """Σ r ∂²r/∂x_k∂x; not finite where no second-order difference is."""
        step = _step(float(x[k]), float(here.normal[k, k]))

        def slope(offset: float) -> np.ndarray:
            moved = x.copy()
            moved[k] += offset * step
            there = self._evaluate(moved)
            if not np.isfinite(there.cost):  # beyond its domain a model may well have finite derivatives
                return np.full_like(x, np.nan)
            # Not BLAS: its idle threads would spin against those of the compiled program.
            return np.einsum("ij,i->j", there.jacobian, here.residuals)

        above, below = slope(1.0), slope(-1.0)
        if np.isfinite(above).all() and np.isfinite(below).all():
            return (above - below) / (2.0 * step)
        side, near = (1.0, above) if np.isfinite(above).all() else (-1.0, below)
        return side * (4.0 * near - slope(2.0 * side) - 3.0 * here.slope) / (2.0 * step)


def _step(value: float, stiffness: float) -> float:
    """A step that is exact in binary: adding and taking it away changes nothing but rounding of the sum."""
    blind = not (np.isfinite(stiffness) and stiffness > 0)
    step = _BLIND_STEP * (abs(value) or 1.0) if blind else _STEP / np.sqrt(stiffness)
    step = max(step, 1e-8 * abs(value))
    return float(2.0 ** np.round(np.log2(step)))


def _join(static: Any, arrays: Any) -> Term:
    tree, leaves = static
    return eqx.combine(arrays, jax.tree.unflatten(tree, leaves))


@partial(jax.jit, static_argnums=0)
def _linearised(static: Any, arrays: Any, x: jax.Array) -> tuple[jax.Array, ...]:
    return quadratic_model(_join(static, arrays).residuals, x)


@partial(jax.jit, static_argnums=0)
def _exact_hessian(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return jax.hessian(_join(static, arrays).value)(x)

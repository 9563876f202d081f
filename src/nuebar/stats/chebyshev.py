"""A smooth function of a few variables as a Chebyshev series: evaluated once on nodes, then a matrix product.

On a box the series of an analytic function converges geometrically with its degree (Trefethen, Approximation Theory
and Approximation Practice, SIAM 2013, theorem 8.2), so a dozen nodes an axis replace a costly ln L near its maximum
by one that costs microseconds. The box may be an affine image of one, so that it follows the axes of a posterior.

The polynomials come from T_(m+n) = 2 T_m T_n - T_|m-n|, which doubles their number in every step and has derivatives
everywhere, those of cos(k arccos t) being 0/0 at the walls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.stats.likelihood import require_x64

__all__ = ["ChebyshevInterpolant", "chebyshev_polynomials"]

MOST_VARIABLES = 4
MOST_NODES = 200_000
"""Of one interpolant: 4 variables at degree 20, 1.6 MB for a scalar."""

ORDERS = (6, 8, 10, 12, 16)


def chebyshev_polynomials(t: ArrayLike, n: int) -> Array:
    """T_0(t) … T_(n-1)(t), differentiable at every t.

    Args:
        t: Any shape; between -1 and 1 they are bounded by one, outside they grow like (2 |t|)^k / 2.
        n: How many.

    Returns:
        The shape of ``t`` with one axis of length ``n`` behind.
    """
    t = jnp.asarray(t)
    rows = jnp.stack([jnp.ones_like(t), t], axis=-1)
    while rows.shape[-1] < n:
        m = rows.shape[-1] - 1
        rows = jnp.concatenate([rows, 2.0 * rows[..., m:] * rows[..., 1:] - rows[..., :m][..., ::-1]], axis=-1)
    return rows[..., :n]


class ChebyshevInterpolant(eqx.Module):
    """A tensor Chebyshev series of a function of one to four variables with values of any shape.

    Pure JAX and a pytree: it goes through ``jit``, ``grad``, ``vmap`` and ``scan``, and interpolants of equal shape
    share a compiled program. Outside its box it continues as a polynomial, that is to say wildly: ask :meth:`inside`.

    Attributes:
        coefficients: Shape ``(order + 1, …, *trailing)``, one axis a variable.
        centre: Middle of the box in the variables of the function, shape ``(d,)``.
        scale: Matrix from ``x - centre`` to coordinates between -1 and 1, shape ``(d, d)``.
        error: Largest difference seen by :meth:`build_to` at points between the nodes; NaN if nobody looked.
    """

    coefficients: Array
    centre: Array
    scale: Array
    error: float = eqx.field(static=True, default=float("nan"))

    @property
    def order(self) -> int:
        """Degree along every axis."""
        return int(self.coefficients.shape[0]) - 1

    @property
    def n_nodes(self) -> int:
        """Evaluations of the function that it took."""
        return (self.order + 1) ** int(self.centre.shape[0])

    def coordinates(self, x: ArrayLike) -> Array:
        """Points, shape ``(..., d)``, in units in which the box is the cube from -1 to 1."""
        return ((jnp.asarray(x) - self.centre)[..., None, :] * self.scale).sum(axis=-1)

    def inside(self, x: ArrayLike) -> Array:
        """Whether points, shape ``(..., d)``, lie in the box, walls included up to rounding."""
        return (jnp.abs(self.coordinates(x)) <= 1.0 + 1e-9).all(axis=-1)

    def __call__(self, x: ArrayLike) -> Array:
        """The value at one point: differentiable, unchecked.

        Args:
            x: Shape ``(d,)``; use ``jax.vmap`` for more.

        Returns:
            float64 of the trailing shape of the function's values.
        """
        d = self.centre.shape[0]
        rows = chebyshev_polynomials(self.coordinates(x), self.order + 1)
        trailing = self.coefficients.shape[d:]
        out = self.coefficients.reshape((*self.coefficients.shape[:d], -1))
        if trailing:  # a large table is read once
            basis = rows[0]
            for row in rows[1:]:
                basis = (basis[:, None] * row).reshape(-1)
            return (basis @ out.reshape(basis.shape[0], -1)).reshape(trailing)
        for row in rows:
            out = (row @ out.reshape(row.shape[0], -1)).reshape(out.shape[1:])
        return out.reshape(())

    @classmethod
    def build(
        cls,
        function: Callable[[np.ndarray], ArrayLike],
        lower: ArrayLike,
        upper: ArrayLike,
        order: int,
        *,
        transform: tuple[ArrayLike, ArrayLike] | None = None,
        batch: int = 256,
    ) -> ChebyshevInterpolant:
        """Interpolate a function at the (order + 1)^d Chebyshev nodes of a box.

        Args:
            function: Points, shape ``(n, d)``, to values, shape ``(n, ...)``; a jitted ``jax.vmap`` will do.
            lower: Lower walls, shape ``(d,)``.
            upper: Upper walls.
            order: Degree along every axis, 1 or more; polynomials of it are reproduced.
            transform: (centre, matrix) of shapes ``(d,)`` and ``(d, d)`` if the walls are those of z and the function
                wants ``x = centre + matrix @ z``: for ±6 standard deviations of a Gaussian, its mean, the Cholesky
                factor of its covariance, and walls at ±6. ``x`` is always the function's own variable.
            batch: The function is called with exactly so many points at a time, so that it compiles once.

        Raises:
            NuebarError: In single precision, for walls, orders or shapes that make no sense, or if a value of the
                function is not finite.
        """
        require_x64()
        centre, matrix = _box(lower, upper, transform)
        _check_size(order, centre.size)
        nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
        t = np.stack(np.meshgrid(*[nodes] * centre.size, indexing="ij"), axis=-1).reshape(-1, centre.size)
        values = _evaluate(function, centre + t @ matrix.T, batch)
        table = values.reshape((order + 1,) * centre.size + values.shape[1:])
        for axis in range(centre.size):
            table = np.moveaxis(np.tensordot(_analysis(order), table, axes=(1, axis)), 0, axis)
        return cls(jnp.asarray(table), jnp.asarray(centre), jnp.asarray(np.linalg.inv(matrix)))

    @classmethod
    def build_to(
        cls,
        function: Callable[[np.ndarray], ArrayLike],
        lower: ArrayLike,
        upper: ArrayLike,
        tolerance: float,
        *,
        orders: Sequence[int] = ORDERS,
        transform: tuple[ArrayLike, ArrayLike] | None = None,
        batch: int = 256,
        n_check: int = 256,
        seed: int = 0,
    ) -> ChebyshevInterpolant:
        """Raise the order until the function is met within a tolerance.

        Args:
            function: As for :meth:`build`.
            lower: As for :meth:`build`.
            upper: As for :meth:`build`.
            tolerance: Largest absolute difference allowed at random points of the box.
            orders: To be tried, ascending.
            transform: As for :meth:`build`.
            batch: As for :meth:`build`.
            n_check: How many random points.
            seed: Of these points.

        Returns:
            The first one that is good enough, with its ``error``.

        Raises:
            NuebarError: As :meth:`build`, or if none of the orders is good enough.
        """
        if not (orders and 0 < tolerance < np.inf):
            raise NuebarError(f"interpolant: expected orders and a tolerance above 0, got {tuple(orders)}, {tolerance}")
        centre, matrix = _box(lower, upper, transform)
        x = _random_points(centre, matrix, n_check, seed)
        truth = _evaluate(function, x, batch)
        errors = []
        for order in orders:
            made = cls.build(function, lower, upper, order, transform=transform, batch=batch)
            errors.append(_largest_difference(made, x, truth))
            if errors[-1] <= tolerance:
                return cls(made.coefficients, made.centre, made.scale, errors[-1])
        reached = ", ".join(f"{e:.2g} at order {o}" for o, e in zip(orders, errors, strict=True))
        raise NuebarError(
            f"interpolant: expected to be within {tolerance:g} of the function, got {reached}; make the box narrower, "
            "the tolerance larger or give higher orders"
        )

    def check(
        self, function: Callable[[np.ndarray], ArrayLike], n: int = 256, seed: int = 0, *, batch: int = 256
    ) -> float:
        """Largest absolute difference from the function at random points inside.

        Args:
            function: As for :meth:`build`.
            n: How many points, uniform in the box.
            seed: Of these points.
            batch: As for :meth:`build`.
        """
        x = _random_points(np.asarray(self.centre), np.linalg.inv(np.asarray(self.scale)), n, seed)
        return _largest_difference(self, x, _evaluate(function, x, batch))


def _box(
    lower: ArrayLike, upper: ArrayLike, transform: tuple[ArrayLike, ArrayLike] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and matrix that map the cube from -1 to 1 to the box."""
    low, high = np.atleast_1d(np.asarray(lower, float)), np.atleast_1d(np.asarray(upper, float))
    if low.ndim != 1 or low.shape != high.shape or not 1 <= low.size <= MOST_VARIABLES:
        raise NuebarError(
            f"interpolant: expected lower and upper walls of one to {MOST_VARIABLES} variables, got shapes "
            f"{low.shape} and {high.shape}"
        )
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise NuebarError(f"interpolant: expected finite walls, lower < upper, got {low.tolist()} and {high.tolist()}")
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    if transform is None:
        return middle, np.diag(half)
    centre, matrix = (np.asarray(a, float) for a in transform)
    if centre.shape != low.shape or matrix.shape != (low.size, low.size):
        raise NuebarError(
            f"interpolant: expected a transform of shapes {low.shape} and {(low.size, low.size)}, got {centre.shape} "
            f"and {matrix.shape}"
        )
    finite = np.isfinite(centre).all() and np.isfinite(matrix).all()
    if not finite or not np.linalg.cond(matrix / np.linalg.norm(matrix, axis=1, keepdims=True)) < 1e12:
        raise NuebarError(
            "interpolant: expected a finite transform that can be inverted; check the covariance it is of"
        )
    return centre + matrix @ middle, matrix * half


def _check_size(order: int, d: int) -> None:
    if not order >= 1:
        raise NuebarError(f"interpolant: expected an order of 1 or more, got {order}")
    if (order + 1) ** d > MOST_NODES:
        raise NuebarError(
            f"interpolant: order {order} in {d} variables needs {(order + 1) ** d} nodes, more than {MOST_NODES}; "
            "lower the order"
        )


def _analysis(order: int) -> np.ndarray:
    """Values at the nodes to coefficients: c_k = (2 - δ_k0)/n Σ_j f_j cos(kπ(j + ½)/n), n = order + 1."""
    n = order + 1
    matrix = np.cos(np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n) * (2.0 / n)
    matrix[0] *= 0.5
    return matrix


def _random_points(centre: np.ndarray, matrix: np.ndarray, n: int, seed: int) -> np.ndarray:
    if n < 1:
        raise NuebarError(f"interpolant: expected at least one point to check it at, got {n}")
    return centre + np.random.default_rng(seed).uniform(-1.0, 1.0, (n, centre.size)) @ matrix.T


def _evaluate(function: Callable[[np.ndarray], ArrayLike], x: np.ndarray, batch: int) -> np.ndarray:
    """The function at all points, always as many at a time; the last batch is filled with its last point."""
    if batch < 1:
        raise NuebarError(f"interpolant: expected a batch of 1 or more, got {batch}")
    parts = []
    for first in range(0, len(x), batch):
        part = x[first : first + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        values = np.asarray(function(filled), float)
        if values.shape[:1] != (batch,):
            raise NuebarError(
                f"interpolant: the function got {batch} points and gave values of shape {values.shape}; expected "
                f"({batch}, ...)"
            )
        parts.append(values[: len(part)])
    values = np.concatenate(parts)
    bad = ~np.isfinite(values.reshape(len(x), -1)).all(axis=1)
    if bad.any():
        raise NuebarError(
            f"interpolant: the function is not finite at {int(bad.sum())} of {len(x)} points, the first at "
            f"{x[bad][0].tolist()}; make the box smaller"
        )
    return values


def _largest_difference(interpolant: ChebyshevInterpolant, x: np.ndarray, truth: np.ndarray) -> float:
    values = [np.asarray(_many(interpolant, x[k : k + 64])) for k in range(0, len(x), 64)]
    return float(np.abs(np.concatenate(values) - truth).max())


@eqx.filter_jit
def _many(interpolant: ChebyshevInterpolant, x: ArrayLike) -> Array:
    return jax.vmap(interpolant)(jnp.asarray(x))

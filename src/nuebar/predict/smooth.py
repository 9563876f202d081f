"""Derivatives of a predictor that are computed once, however many directions are asked for.

A spectrum depends on five physical parameters through expensive sums, and on thirty pulls through cheap ones.
Forward differentiation of the whole model along thirty-six directions would repeat the sums thirty-six times.
Here the Jacobian with respect to the five is one array, and every direction is a product with it; the same
holds one order higher for Hessians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.typing import ArrayLike

__all__ = ["with_cached_derivatives"]

Function = Callable[[Any, Array], Array]


def with_cached_derivatives(function: Function) -> Callable[[Any, ArrayLike], Array]:
    """Wrap f(constants, p) so that its first and second derivatives in p are each evaluated once.

    Derivatives with respect to ``constants`` (the tables of a predictor) are zero by construction.

    Args:
        function: Pure JAX function of a pytree of constants and a vector ``p``; any output shape.

    Returns:
        The same function, differentiable to third order (forward and reverse).
    """

    def first(constants: Any, p: Array) -> Array:
        return jax.jacfwd(function, argnums=1)(constants, p)

    def second(constants: Any, p: Array) -> Array:
        return jax.jacfwd(first, argnums=1)(constants, p)

    value = jax.custom_jvp(function)
    jacobian = jax.custom_jvp(first)

    @value.defjvp
    def _value_jvp(primals: tuple[Any, Array], tangents: tuple[Any, Array]) -> tuple[Array, Array]:
        return value(*primals), jacobian(*primals) @ tangents[1]

    @jacobian.defjvp
    def _jacobian_jvp(primals: tuple[Any, Array], tangents: tuple[Any, Array]) -> tuple[Array, Array]:
        return jacobian(*primals), second(*primals) @ tangents[1]

    return value

"""Walls between several minima of a cost, taken away so that a sampler can pass; the draws carry weights for it.

A cost with several minima along one parameter u (Δm²31, whose oscillations repeat) keeps chains where they begin. With
its profile W(u) = min χ² at fixed u, lowest at u0, let H(u) be the smallest value of W from u outwards, away from u0:
the largest curve below W that only rises on both sides. Sampling exp[−χ²/2 + (W − H)/2] lifts the density in
every barrier to that of the minimum behind it and leaves all else as it is: seen along u there is one hill with
terraces. Draws of it with the weights exp[−(W − H)/2] ≤ 1 are draws of the posterior, exactly, however roughly W is
known: the method is umbrella sampling (Torrie and Valleau, J. Comput. Phys. 23 (1977) 187) with a bias that touches
the barriers only. What it does not see is another minimum at the same u; R̂ does.
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.stats.minimise import Problem

__all__ = ["Filling", "Profile", "profiled", "risen"]

HIGH = 30.0
"""χ² above the minimum from which on nothing is looked at: e⁻¹⁵ of the density."""
LOW = 0.3
"""Height of a barrier in χ² that needs no filling."""
STEPS = 40
CLOSE = 1e-3


@dataclass(frozen=True)
class Profile:
    """χ² minimised over all other parameters along one of them.

    Attributes:
        grid: Values, evenly spaced, shape ``(n,)``.
        chi2: Above the lowest, shape ``(n,)``.
    """

    grid: np.ndarray
    chi2: np.ndarray

    def filling(self) -> Filling | None:
        """What fills its barriers; None if there are none worth it."""
        hull = risen(self.chi2)
        height = np.where(hull < HIGH, self.chi2 - hull, 0.0)
        if not np.max(height) > LOW:
            return None
        return Filling(jnp.asarray(self.grid[0]), jnp.asarray(self.grid[1] - self.grid[0]), jnp.asarray(0.5 * height))

    def spread(self) -> float:
        """Standard deviation of the density exp(−H/2), with the barriers filled."""
        density = np.exp(-0.5 * risen(self.chi2))
        mean = density @ self.grid / density.sum()
        return float(np.sqrt(density @ (self.grid - mean) ** 2 / density.sum()))


class Filling(eqx.Module):
    """A smooth function of one parameter that is added to the logarithm of a density.

    Cubic between the points of a grid (Catmull and Rom), constant outside.

    Attributes:
        low: First point.
        step: Distance of the points.
        height: Values, shape ``(n,)``.
    """

    low: Array
    step: Array
    height: Array

    def __call__(self, u: Array) -> Array:
        """The value at u, a scalar."""
        n = self.height.shape[0]
        t = jnp.clip((u - self.low) / self.step, 0.0, n - 1.0)
        k = jnp.clip(jnp.floor(t).astype(int), 0, n - 2)
        s = t - k
        a, b, c, d = (self.height[jnp.clip(k + j, 0, n - 1)] for j in (-1, 0, 1, 2))
        return b + 0.5 * s * (c - a + s * (2.0 * a - 5.0 * b + 4.0 * c - d + s * (3.0 * (b - c) + d - a)))


def risen(chi2: np.ndarray) -> np.ndarray:
    """The largest curve below this one that only rises on both sides of its lowest point, shape ``(n,)``."""
    k = int(np.argmin(chi2))
    right = np.minimum.accumulate(chi2[k:][::-1])[::-1]
    left = np.minimum.accumulate(chi2[: k + 1])
    return np.concatenate([left, right[1:]])


def profiled(
    problem: Problem,
    start: np.ndarray,
    index: int,
    grid: np.ndarray,
    *,
    free: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> Profile:
    """The profile of a cost along one parameter.

    From the point next to the start outwards, each from where the one before ended.

    Args:
        problem: The compiled cost.
        start: All parameters at a minimum, shape ``(parameters,)``.
        index: Of the parameter.
        grid: Its values, increasing and evenly spaced, 5 or more.
        free: Which parameters are free, booleans.
        lower: Limits of all parameters.
        upper: Likewise.

    Raises:
        NuebarError: The cost is finite at none of them.
    """
    others = np.array(free, bool)
    others[index] = False
    cost = np.full(grid.size, np.inf)
    middle = int(np.argmin(np.abs(grid - start[index])))
    for order in (range(middle, grid.size), range(middle - 1, -1, -1)):
        x = np.array(start, float)
        for k in order:
            x[index] = grid[k]
            if not others.any():
                cost[k] = problem.value(x)
                continue
            end = problem.descend(x, lower, upper, others, STEPS, CLOSE)
            cost[k] = float(end.cost)
            if np.isfinite(cost[k]):
                x = np.array(end.values, float)
    if not np.isfinite(cost).any():
        raise NuebarError("profile: the cost is finite at no point of the grid; start where it is")
    lowest = min(float(np.min(cost)), problem.value(np.array(start, float)))
    return Profile(np.array(grid, float), np.where(np.isfinite(cost), cost - lowest, 1e6))

"""Many data sets along one parameter with several minima: profile, starts and posterior from conditional Gaussians.

At fixed Δm²31 everything else is nearly linear: the mixing angles are amplitudes, and pulls are small. So at each node
of a grid of Δm²31 one or two Gauss-Newton steps, whose curvature is that of the expected counts there and is the same
for all data sets, give the minimum over all other parameters and the Gaussian around it. That is

* the profile χ²(Δm²31) of every data set, with all of its minima, at the price of a few slopes a node;
* a density close to the posterior: a piecewise linear marginal of Δm²31 times the conditional Gaussians, the first
  parameter that has a limit nearby (sin²θ13) truncated there. Draws of it carry weights exp(−χ²/2)/density with the
  exact χ² of the fit: importance sampling (Kish 1965 for the number of draws that they are worth, (Σw)²/Σw²).

The posterior is that of :mod:`nuebar.fit.posterior`: exp(−χ²/2), flat within the limits for parameters without a pull.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from scipy.special import ndtr, ndtri

from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits, _joined, rough_errors
from nuebar.fit.toys import _generator, _key

__all__ = ["Draws", "Ladder", "Profiles"]

SPLITTING = "dm2_31_eV2"
LANES = 256  # draws whose costs are computed together
FAR = 40.0  # of χ²: nodes this far above the lowest take no part in the posterior


@dataclass(frozen=True, eq=False)
class Profiles:
    """Data sets along the nodes.

    Attributes:
        values: All parameters at the minimum over all but the splitting, inside limits, ``(n, nodes, parameters)``.
        chi2: Costs there, ``(n, nodes)``.
        free_values: The same without regard of limits, ``(n, nodes, parameters)``.
        log_density: Logarithm of the marginal posterior density of the splitting but for a constant, ``(n, nodes)``.
    """

    values: np.ndarray
    chi2: np.ndarray
    free_values: np.ndarray
    log_density: np.ndarray

    def __getitem__(self, rows: Any) -> Profiles:
        return Profiles(self.values[rows], self.chi2[rows], self.free_values[rows], self.log_density[rows])


@dataclass(frozen=True, eq=False)
class Draws:
    """Weighted draws of the posterior of one data set.

    Attributes:
        values: Shape ``(draws, parameters)``.
        weights: Of sum one, shape ``(draws,)``.
        effective: Number of draws that they are worth.
    """

    values: np.ndarray
    weights: np.ndarray
    effective: float

    def rank(self, column: int, value: float) -> float:
        """Posterior probability of values below this one."""
        return float(self.weights[self.values[:, column] < value].sum())

    def interval(self, column: int, level: float) -> tuple[float, float]:
        """Central interval: as much probability below as above."""
        order = np.argsort(self.values[:, column], kind="stable")
        x, total = self.values[order, column], np.cumsum(self.weights[order])
        low, high = np.interp([0.5 * (1 - level), 0.5 * (1 + level)], total - 0.5 * self.weights[order], x)
        return float(low), float(high)


class Ladder:
    """Conditional Gaussians of a model at nodes of the splitting.

    Args:
        many: The fits; its windows must hold the nodes.
        grid: Increasing values of the splitting, evenly spaced; ignored where that is fixed.
    """

    def __init__(self, many: ManyFits, grid: np.ndarray) -> None:
        p = many.fit.parameters
        self.many = many
        self.free = np.array([k for k, n in enumerate(many.names) if not p[n].fixed])
        if not self.free.size:
            raise NuebarError("coverage: expected at least one free parameter, got none; free one")
        self.splitting = many.names.index(SPLITTING) if not p[SPLITTING].fixed else None
        if self.splitting is None:
            grid = np.array([p[SPLITTING].value])
        elif len(grid) < 2 or np.any(np.diff(grid) <= 0):
            raise NuebarError("coverage: expected two or more increasing values of the splitting, got others")
        self.grid = np.asarray(grid, float)
        others = [k for k in self.free if k != self.splitting]
        bounded = [k for k in others if np.isfinite(many.lower[k]) or np.isfinite(many.upper[k])]
        self.bounded = self._nearest(bounded)
        # The truncated one comes first, so that it alone follows from the first normal number.
        self.others = np.array(sorted(others, key=lambda k: (k != self.bounded, k)), int)
        self.at = np.array([p[n].value for n in many.names])
        points = np.tile(self.at, (self.grid.size, 1))
        if self.splitting is not None:
            points[:, self.splitting] = self.grid
        self.normal = self._normals(points)
        self.covariance = self.covariances(self.others)
        self.root = np.linalg.cholesky(self.covariance)

    def _nearest(self, bounded: list[int]) -> int | None:
        """Of parameters with limits the one that feels them most: the fewest expected errors away from one."""
        if not bounded:
            return None
        many = self.many
        value = np.array([many.fit.parameters[n].value for n in many.names])
        near = np.minimum(value - many.lower, many.upper - value)
        errors = rough_errors(many.fit)
        return min(bounded, key=lambda k: near[k] / max(errors[k], 1e-300))

    def _normals(self, points: np.ndarray) -> np.ndarray:
        """JᵀJ of expected counts at every node, in all parameters."""
        many, n = self.many, len(points)
        counts = np.array([many._expected(x) for x in points])
        centres = points[:, [many.names.index(name) for name in many.constrained]]
        data = DataSets(np.arange(n), counts, centres.reshape(n, -1), points)
        return many.curvatures(data, points)[2]

    def covariances(self, which: np.ndarray) -> np.ndarray:
        """Expected covariances of some parameters (their indices) at every node, all others held.

        Raises:
            NuebarError: Expected counts do not tell them apart.
        """
        normal = self.normal[:, which[:, None], which[None, :]]
        unit = 1.0 / np.sqrt(np.maximum(np.diagonal(normal, axis1=1, axis2=2), 1e-300))
        scaled = normal * unit[:, :, None] * unit[:, None, :]
        if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[:, 0].min() < 1e-10:
            raise NuebarError("coverage: the expected counts do not tell all free parameters apart; fix one")
        return np.asarray(np.linalg.inv(scaled) * unit[:, :, None] * unit[:, None, :])

    def nodes(self, x: np.ndarray) -> np.ndarray:
        """The node nearest to each point, ``(n,)``."""
        if self.splitting is None:
            return np.zeros(len(x), int)
        return np.asarray(np.abs(self.grid[None, :] - x[:, self.splitting, None]).argmin(axis=1))

    # -------------------------------------------------------------- profiles

    def profiles(self, data: DataSets, *, steps: int = 2) -> Profiles:
        """Minima over all other parameters at every node.

        Args:
            data: The data sets.
            steps: Gauss-Newton steps; cost and place are extrapolated by another half.
        """
        many, n, nodes = self.many, len(data), self.grid.size
        values, free_values = (np.empty((n, nodes, len(many.names))) for _ in range(2))
        chi2, log_density = np.empty((n, nodes)), np.empty((n, nodes))
        for k in range(nodes):
            x = np.tile(self.at, (n, 1))
            if self.splitting is not None:
                x[:, self.splitting] = self.grid[k]
            for _ in range(steps):
                cost, slope = many.slopes(data, x)
                mean, inside, least, bound = self._stepped(k, x, cost, slope)
                x = inside
            values[:, k], free_values[:, k], chi2[:, k] = inside, mean, bound
            log_density[:, k] = -0.5 * least + np.log(np.diagonal(self.root[k])).sum() + self._mass(k, mean)
        return Profiles(values, chi2, free_values, log_density)

    def _stepped(
        self, k: int, x: np.ndarray, cost: np.ndarray, slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step from points: the conditional minimum, the same inside limits, and both costs."""
        v, g = self.covariance[k], slope[:, self.others]
        step = -g @ v
        mean = x.copy()
        mean[:, self.others] += step
        least = cost + (g * step).sum(axis=1)
        inside, bound = mean.copy(), least.copy()
        if self.bounded is not None:
            b = self.bounded
            shift = np.clip(mean[:, b], self.many.lower[b], self.many.upper[b]) - mean[:, b]
            inside[:, self.others] += shift[:, None] * v[0] / v[0, 0]
            bound += shift**2 / v[0, 0]
        return mean, np.clip(inside, self.many.lower, self.many.upper), least, bound

    def _mass(self, k: int, mean: np.ndarray) -> np.ndarray:
        """Logarithm of the share of the conditional Gaussian that lies within the limits."""
        if self.bounded is None:
            return np.zeros(len(mean))
        low, high = self._cuts(self.root[k][0, 0], mean[:, self.bounded])
        return np.log(np.maximum(high - low, 1e-300))

    def _cuts(self, sigma: Any, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        b = self.bounded
        return ndtr((self.many.lower[b] - mean) / sigma), ndtr((self.many.upper[b] - mean) / sigma)

    # -------------------------------------------------------------- posterior

    def posteriors(
        self,
        data: DataSets,
        profiles: Profiles,
        *,
        seed: int,
        draws: int = 1000,
        rounds: int = 6,
        enough: float = 150.0,
    ) -> list[Draws]:
        """Weighted draws of the posterior of every data set; they depend on the seed and on its number only.

        The curvature of the data set where its posterior is highest replaces that of expected counts; the difference
        is carried to all nodes.

        Args:
            data: The data sets.
            profiles: Of the same.
            seed: Of the study.
            draws: So many at a time.
            rounds: At most so many times.
            enough: Stop when the draws are worth so many independent ones.
        """
        best = profiles.log_density.argmax(axis=1)
        points = profiles.values[np.arange(len(data)), best]
        normal = self.many.curvatures(data, points)[2][:, self.others[:, None], self.others[None, :]]
        expected = np.linalg.inv(self.covariance)
        out = []
        for row in range(len(data)):
            root = _roots(expected + (normal[row] - expected[best[row]]))
            root = self.root if root is None else root
            parts: list[tuple[np.ndarray, np.ndarray]] = []
            rng = _generator(_key(seed, "posterior"), int(data.numbers[row]))
            found = None
            while found is None or (len(parts) < rounds and not found.effective >= enough):
                parts.append(self._drawn(data, profiles, row, root, rng, draws))
                found = _weighted(parts)
            out.append(found)
        return out

    def _drawn(
        self, data: DataSets, profiles: Profiles, row: int, roots: np.ndarray, rng: np.random.Generator, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws and the logarithms of their weights."""
        many = self.many
        uniform, z = rng.random((n, 3)), rng.standard_normal((n, self.others.size))
        x = np.tile(self.at, (n, 1))
        means = profiles.free_values[row]
        if self.splitting is None:
            node, mean, log_q = np.zeros(n, int), means[np.zeros(n, int)], np.zeros(n)
        else:
            x[:, self.splitting], log_q, left, share = self._marginal(profiles.log_density[row], uniform)
            node = np.where(share < 0.5, left, left + 1)
            mean = (1 - share)[:, None] * means[left] + share[:, None] * means[left + 1]
        root = roots[node]
        log_q = log_q - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        if self.bounded is not None:
            low, high = self._cuts(root[:, 0, 0], mean[:, self.bounded])
            z[:, 0] = ndtri(np.clip(low + uniform[:, 2] * (high - low), 1e-300, 1 - 1e-16))
            log_q = log_q - np.log(np.maximum(high - low, 1e-300))
        x[:, self.others] = mean[:, self.others] + np.einsum("nij,nj->ni", root, z)
        log_q = log_q - 0.5 * (z**2).sum(axis=1)
        inside = np.asarray(((x >= many.lower) & (x <= many.upper)).all(axis=1))
        cost = self.costs(np.where(inside[:, None], x, self.at), data.counts[row], data.centres[row])
        return x, np.where(inside & np.isfinite(cost), -0.5 * cost - log_q, -np.inf)

    def _marginal(
        self, log_density: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Values of the splitting from its piecewise linear density: they, log density, node to the left, place."""
        p = np.exp(np.maximum(log_density - log_density.max(), -0.5 * FAR))
        h = np.diff(self.grid)
        mass = 0.5 * (p[1:] + p[:-1]) * h
        total = np.cumsum(mass)
        left = np.minimum(np.searchsorted(total, uniform[:, 0] * total[-1], side="right"), h.size - 1)
        a, b = p[left], p[left + 1]
        # Inverse of the quadratic distribution function inside of a cell.
        root = np.sqrt(a**2 + uniform[:, 1] * (b**2 - a**2))
        share = uniform[:, 1] * (a + b) / (a + root)
        return self.grid[left] + share * h[left], np.log((a + share * (b - a)) / total[-1]), left, share

    def costs(self, x: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """χ² of one data set at many points, shape ``(n,)``."""
        many, n = self.many, len(x)
        x = x[:, many._kept]
        parts = []
        for first in range(0, n, LANES):
            rows = np.minimum(np.arange(first, first + LANES), n - 1)
            parts.append(np.asarray(_costs(many._static, many._arrays, x[rows], counts, centres))[: n - first])
        return np.concatenate(parts)


def _roots(precision: np.ndarray) -> np.ndarray | None:
    """Cholesky factors of inverses; None where one is not positive definite."""
    unit = 1.0 / np.sqrt(np.maximum(np.diagonal(precision, axis1=1, axis2=2), 1e-300))
    scaled = precision * unit[:, :, None] * unit[:, None, :]
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[:, 0].min() < 1e-6:
        return None
    return np.asarray(np.linalg.cholesky(np.linalg.inv(scaled) * unit[:, :, None] * unit[:, None, :]))


def _weighted(parts: list[tuple[np.ndarray, np.ndarray]]) -> Draws:
    x, log_w = (np.concatenate(a) for a in zip(*parts, strict=True))
    top = log_w.max()
    if not np.isfinite(top):
        return Draws(x, np.full(len(x), np.nan), 0.0)
    w = np.exp(log_w - top)
    w /= w.sum()
    return Draws(x, w, float(1.0 / (w**2).sum()))


@partial(jax.jit, static_argnums=0)
def _costs(static: Any, arrays: Any, x: Array, counts: Array, centres: Array) -> Array:
    lane = _joined(static, arrays)
    return 2.0 * jax.vmap(lambda y: lane.half_cost(y, counts, centres))(x)

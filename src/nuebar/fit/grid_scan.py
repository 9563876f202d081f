"""Δχ² at millions of grid points of oscillation and response parameters.

What is profiled at every point, in closed form:

* the normalisation of the signal (all free ``norm_`` pulls together, with the quadratic sum of their priors),
* the rates and slopes of the backgrounds (free ``bkg_`` and ``slope_`` pulls, with their priors).

With variances V that do not move, χ² is quadratic in all of them. The backgrounds' templates are the same at every
point, so profiling them is the same as adding Σ σ² b bᵀ to V: with A such that (V + Σ σ² b bᵀ)⁻¹ = Aᵀ A, data d less
backgrounds and signal s,

    χ² = |u|² - (y·u)² / (|y|² + 1/σ²),   u = A (d - s),   y = A s,

where σ is the prior of the normalisation. All other parameters stay where the fit has them: fixed oscillation and
response parameters, and pulls of flux, cores, energy scale, non-linearity and resolution.

V is the expectation at the nominal parameters ("pearson") or the data ("neyman"), plus the bin-to-bin uncertainties
and the error of the Monte Carlo. In matter the signal is that of vacuum with the effective mixing and splittings of one
neutrino energy, times, bin by bin, the ratio of the model's own spectrum to it at the nominal parameters: what is left
is how the energy dependence of an effect of one percent changes within the scan (0.3 % of Δχ² at three standard
deviations of JUNO after six years).

At fixed response the signal is a product of basis values and a table, and u lives in the few dimensions that the table
reaches: one small product per point, without bins. At varying response every spectrum is computed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.parameters import OSCILLATION, ParameterSet
from nuebar.physics.oscillation import POTENTIAL_eV2_per_MeV, eigensystem
from nuebar.predict.batch import _kernel as basis_kernel
from nuebar.predict.batch_surrogate import BatchSurrogate
from nuebar.predict.box import PHYSICS, check_parameters
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.response import RESPONSE, ResponsePoint
from nuebar.predict.surrogate import SurrogatePredictor

__all__ = ["GridScan", "default_axes", "grid_scan", "parse_axes"]

STATISTICS = ("pearson", "neyman")
CHUNK = 8192
MOST_POINTS = 50_000_000  # 200 MB of results
NEGLIGIBLE = 1e-6  # of a standard deviation: directions of the table that no χ² sees
EFFECTIVE_MeV = 3.4  # where oscillations by Δm²21 are largest at 52.5 km, and most events are
# Relative errors expected of JUNO after six years, arXiv:2204.13249, table 6.
SIX_YEARS = {"sin2_th12": 0.005, "sin2_th13": 0.121, "dm2_21_eV2": 0.003, "dm2_31_eV2": 0.002}
DEFAULT_POINTS = 31  # 0.92 million together; odd, so that the nominal values are among them

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GridScan:
    """Δχ² on a grid.

    Attributes:
        names: The scanned parameters.
        grids: Their values, one array each.
        delta_chi2: χ² less its smallest value on the grid, float32, shape of the grids.
        chi2_min: That smallest value.
        profiled: Nuisance parameters that were profiled.
        fixed: Values of the oscillation and response parameters that were not scanned.
        statistic: Which variances.
        seconds: How long the points took.
    """

    names: tuple[str, ...]
    grids: tuple[np.ndarray, ...]
    delta_chi2: np.ndarray
    chi2_min: float
    profiled: tuple[str, ...]
    fixed: Mapping[str, float]
    statistic: str
    seconds: float

    @property
    def best(self) -> dict[str, float]:
        """The grid point of the smallest χ²."""
        index = np.unravel_index(int(np.argmin(self.delta_chi2)), self.delta_chi2.shape)
        return {n: float(g[i]) for n, g, i in zip(self.names, self.grids, index, strict=True)}

    @property
    def at_edge(self) -> tuple[str, ...]:
        """Parameters whose best value is the first or last of the grid: there a wider one may hold a better."""
        best = self.best
        return tuple(n for n, g in zip(self.names, self.grids, strict=True) if len(g) > 1 and best[n] in (g[0], g[-1]))

    def profile(self, n: int = 2) -> np.ndarray:
        """Δχ² of the first parameters, the smallest over all others; shape of their grids."""
        return self.delta_chi2.min(axis=tuple(range(n, len(self.names)))) if len(self.names) > n else self.delta_chi2


def parse_axes(words: Sequence[str]) -> dict[str, np.ndarray]:
    """Axes from words such as ``sin2_th12=0.29:0.32:32``: name, low, high, number of points.

    Raises:
        NuebarError: A word has another form, or a name comes twice.
    """
    out: dict[str, np.ndarray] = {}
    for word in words:
        name, _, numbers = word.partition("=")
        parts = numbers.split(":")
        try:
            low, high, points = float(parts[0]), float(parts[1]), int(parts[2])
            good = len(parts) == 3 and bool(name) and np.isfinite([low, high]).all() and low < high and points > 1
        except (ValueError, IndexError):
            good = False
        if not good:
            raise NuebarError(
                "--scan: expected name=low:high:points with low < high and at least 2 points, like "
                f"sin2_th12=0.29:0.32:32, got {word!r}"
            )
        if name in out:
            raise NuebarError(f"--scan: expected each parameter once, got {name!r} twice")
        if points > MOST_POINTS:
            raise NuebarError(f"--scan: expected at most {MOST_POINTS} points, got {points} of {name!r}; take fewer")
        out[name] = np.linspace(low, high, points)
    return out


def default_axes(parameters: ParameterSet, n_sigma: float = 3.0, points: int = DEFAULT_POINTS) -> dict[str, np.ndarray]:
    """The four oscillation parameters around their nominal values, in errors expected of JUNO after six years.

    Args:
        parameters: Nominal values and limits.
        n_sigma: Half width of each axis in those errors.
        points: Number of values on each axis.

    Returns:
        Name → values, each of shape ``(points,)``, inside the limits.
    """
    out = {}
    for name, relative in SIX_YEARS.items():
        value = parameters[name].value
        half = n_sigma * relative * abs(value)
        out[name] = np.linspace(value - half, value + half, points)
    return out


def grid_scan(
    fit: SpectrumFit,
    axes: Mapping[str, np.ndarray],
    *,
    statistic: str = "pearson",
    progress: Progress | None = None,
) -> GridScan:
    """Evaluate χ² on the grid of the axes; see the module for what is profiled and what is fixed.

    Args:
        fit: Model, parameters and data; its own statistic is not used.
        axes: Name → values, of oscillation parameters, and of response parameters if the predictor is a surrogate.
        statistic: "pearson" or "neyman": where the variances come from.
        progress: Called as ``progress(points done, points in all)``.

    Returns:
        The scan; the same input gives the same bits on one machine.

    Raises:
        NuebarError: An axis is unknown or leaves the box, too many points, or a predictor that has no batch form.
    """
    names, grids = tuple(axes), tuple(np.asarray(g, dtype=float) for g in axes.values())
    _check(fit, names, grids, statistic)
    began = time.perf_counter()
    nominal = fit.parameters.nominal()
    engine = _engine(fit, names, nominal)
    white, target, prior = _whitening(fit, statistic)
    base = np.array([nominal[n] for n in engine.parameter_names])
    effective = _effective(fit, nominal)
    chi2 = engine.prepared(white, target, prior, _counts_signal(fit), effective(base[None]))
    columns = [engine.parameter_names.index(n) for n in names]
    shape = tuple(len(g) for g in grids)
    total = int(np.prod(shape))
    reference = float(chi2(effective(base[None]))[0])
    out = np.empty(total, dtype=np.float32)
    p = np.tile(base, (min(CHUNK, total), 1))
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        for column, grid, index in zip(columns, grids, np.unravel_index(np.arange(start, stop), shape), strict=True):
            p[: stop - start, column] = grid[index]
        out[start:stop] = chi2(effective(p)[: stop - start]) - reference
        if progress is not None:
            progress(stop, total)
    least = out.min()
    out -= least
    return GridScan(
        names=names,
        grids=grids,
        delta_chi2=out.reshape(shape),
        chi2_min=max(reference + float(least), 0.0),
        profiled=_profiled(fit),
        fixed={n: float(nominal[n]) for n in engine.parameter_names if n not in names},
        statistic=statistic,
        seconds=time.perf_counter() - began,
    )


def _check(fit: SpectrumFit, names: tuple[str, ...], grids: tuple[np.ndarray, ...], statistic: str) -> None:
    predictor = fit.model.predictor
    if not isinstance(predictor, HarmonicPredictor | SurrogatePredictor):
        raise NuebarError(
            f"a grid scan needs a harmonic or a surrogate predictor, got the {predictor.name} predictor; choose "
            "--predictor harmonic or surrogate"
        )
    if statistic not in STATISTICS:
        raise NuebarError(f"a grid scan knows the statistics {' and '.join(STATISTICS)}, got {statistic!r}")
    known = [n for n in (*OSCILLATION, *RESPONSE) if n in predictor.parameter_names]
    for name, grid in zip(names, grids, strict=True):
        if name not in known:
            raise NuebarError(
                f"--scan: unknown parameter {name!r}; the {predictor.name} predictor scans {', '.join(known)}"
            )
        if grid.ndim != 1 or not grid.size or not np.all(np.isfinite(grid)) or np.any(np.diff(grid) <= 0):
            raise NuebarError(f"--scan: expected increasing finite values of {name!r}, got {grid}")
    if not names or np.prod([float(len(g)) for g in grids]) > MOST_POINTS:
        raise NuebarError(
            f"--scan: expected one to {MOST_POINTS} grid points, got {' x '.join(str(len(g)) for g in grids) or 'none'}"
        )
    here = {n: fit.parameters[n].value for n in predictor.parameter_names}
    for ends in itertools.product(*({g[0], g[-1]} for g in grids)):
        values = {**here, **{n: float(x) for n, x in zip(names, ends, strict=True)}}
        check_parameters(values, predictor.parameter_names, OSCILLATION)
        predictor.check(values)


def _profiled(fit: SpectrumFit) -> tuple[str, ...]:
    """Free pulls that enter linearly."""
    return tuple(n for n in fit.pulled() if n.startswith(("norm_", "bkg_", "slope_")))


def _counts_signal(fit: SpectrumFit) -> np.ndarray:
    """The model's own signal at the nominal parameters, matter and all."""
    return fit.model.components(fit.parameters.nominal())["signal"]


def _whitening(fit: SpectrumFit, statistic: str) -> tuple[np.ndarray, np.ndarray, float]:
    """A, data less backgrounds, and 1/σ² of the normalisation (infinite where it is fixed)."""
    model, counts = fit.model, np.asarray(fit.counts, dtype=float)
    expected, extra = (np.asarray(x) for x in model(model.vector(fit.parameters.nominal())))
    statistical = expected if statistic == "pearson" else counts
    if not np.all(statistical > 0):
        what = "an expectation" if statistic == "pearson" else "counts"
        raise NuebarError(f"the {statistic} statistic needs {what} above 0 in every bin; merge bins")
    covariance = np.diag(statistical + extra)
    if fit.mc_covariance is not None:
        added = np.asarray(fit.mc_covariance, dtype=float)
        covariance += np.diag(added) if added.ndim == 1 else added
    profiled = _profiled(fit)
    for tables, kind in ((model.background_counts, "bkg_"), (model.background_slopes, "slope_")):
        for name, row in zip(model.background_names, np.asarray(tables), strict=True):
            if kind + name in profiled:
                covariance += (fit.parameters[kind + name].sigma or 0.0) ** 2 * np.outer(row, row)
    white = np.linalg.inv(np.linalg.cholesky(covariance))
    width = sum((fit.parameters[n].sigma or 0.0) ** 2 for n in profiled if n.startswith("norm_"))
    signal = _counts_signal(fit)
    return white, counts - (expected - signal), 1.0 / width if width else np.inf


# ---------------------------------------------------------------- spectra


def _effective(fit: SpectrumFit, nominal: Mapping[str, float]) -> Callable[[np.ndarray], np.ndarray]:
    """From rows of parameters to those of vacuum that act alike at one energy; nothing changes without matter."""
    predictor: Any = fit.model.predictor
    density = float(nominal.get(PHYSICS[-1], 0.0))
    if density == 0.0:
        return lambda p: p
    electrons = getattr(predictor, "nodes", predictor).electrons_per_nucleon
    potential = POTENTIAL_eV2_per_MeV * electrons * density * EFFECTIVE_MeV

    def effective(p: np.ndarray) -> np.ndarray:
        out = p.copy()
        out[:, : len(OSCILLATION)] = np.asarray(_in_matter(p[:, : len(OSCILLATION)], potential))
        return out

    return effective


@jax.jit
def _in_matter(p: Array, potential: float) -> Array:
    m = eigensystem(potential, **{n: p[:, k] for k, n in enumerate(OSCILLATION)})
    return jnp.stack([m.w2 / (m.w1 + m.w2), m.w3, m.dm2_21, m.dm2_31], axis=-1)


class _Engine(Protocol):
    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Columns of the rows."""
        ...

    def prepared(
        self, white: np.ndarray, target: np.ndarray, prior: float, signal: np.ndarray, nominal: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """The function from rows of parameters to χ²."""
        ...


def _engine(fit: SpectrumFit, names: Sequence[str], nominal: Mapping[str, float]) -> _Engine:
    predictor: Any = fit.model.predictor
    position = np.asarray(fit.model.stencil.position)
    if isinstance(predictor, HarmonicPredictor):
        return _Fixed(replace(predictor, matter=False), position)
    vacuum = predictor.in_vacuum()
    if any(n in RESPONSE for n in names):
        return _Varying(vacuum, position)
    return _Fixed(vacuum.at_response(ResponsePoint.of(nominal)), position)


def _profile_norm(u2: np.ndarray, uy: np.ndarray, y2: np.ndarray, prior: float) -> np.ndarray:
    return u2 - uy**2 / (y2 + prior) if np.isfinite(prior) else u2


def _rebinned(fine: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Sums of fine bins along the last axis."""
    return np.add.reduceat(fine[..., : position[-1]], position[:-1], axis=-1)


def _factor(signal: np.ndarray, vacuum: np.ndarray) -> np.ndarray:
    """From the vacuum spectrum to the model's own."""
    return np.where(vacuum > 0, signal / np.where(vacuum > 0, vacuum, 1.0), 0.0)


class _Fixed:
    """Fixed response: basis values times a table of what χ² sees."""

    parameter_names: tuple[str, ...] = OSCILLATION

    def __init__(self, predictor: HarmonicPredictor, position: np.ndarray) -> None:
        total = predictor.total
        rows = [np.asarray(total.flat)[None]]
        rows += [np.asarray(s.value).T for s in (total.solar, total.atmospheric)]
        self.table = _rebinned(np.concatenate(rows), position)
        self.sizes = (total.solar.value.shape[-1], total.atmospheric.value.shape[-1])
        self.scales = np.array([total.solar.middle, total.solar.half, total.atmospheric.middle, total.atmospheric.half])

    def basis(self, p: np.ndarray) -> np.ndarray:
        """Basis values of every row, shape ``(n, terms)``."""
        out = np.empty((len(p), 1 + sum(self.sizes)))
        basis_kernel()(np.ascontiguousarray(p), *self.sizes, self.scales, out)
        return out

    def prepared(
        self, white: np.ndarray, target: np.ndarray, prior: float, signal: np.ndarray, nominal: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Project table and data on the directions that the table reaches."""
        factor = _factor(signal, (self.basis(nominal) @ self.table)[0])
        left, size, right = np.linalg.svd((self.table * factor) @ white.T, full_matrices=False)
        keep = size > NEGLIGIBLE
        table, data = left[:, keep] * size[keep], right[keep] @ (white @ target)
        rest = float(np.sum((white @ target) ** 2) - np.sum(data**2))

        def chi2(p: np.ndarray) -> np.ndarray:
            y = self.basis(p) @ table
            u = data - y
            return _profile_norm(
                rest + np.einsum("ij,ij->i", u, u), np.einsum("ij,ij->i", u, y), np.einsum("ij,ij->i", y, y), prior
            )

        return chi2


class _Varying:
    """Varying response: every spectrum, in single precision."""

    def __init__(self, predictor: SurrogatePredictor, position: np.ndarray) -> None:
        self.batch = BatchSurrogate(predictor)
        self.parameter_names = self.batch.parameter_names
        self.position = position
        self.fine = np.empty((CHUNK, self.batch.edges.size - 1), dtype=np.float32)

    def prepared(
        self, white: np.ndarray, target: np.ndarray, prior: float, signal: np.ndarray, nominal: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Whiten every spectrum."""
        factor = _factor(signal, _rebinned(self.batch(nominal).astype(float), self.position)[0])
        rebin = _rebinned(np.eye(self.fine.shape[1]), self.position)
        table = (rebin @ (white * factor).T).astype(np.float32)
        data = (white @ target).astype(np.float32)

        def chi2(p: np.ndarray) -> np.ndarray:
            y = self.batch(p, self.fine[: len(p)]) @ table
            u = data - y
            sums = [np.einsum("ij,ij->i", a, b).astype(float) for a, b in ((u, u), (u, y), (y, y))]
            return _profile_norm(sums[0], sums[1], sums[2], prior)

        return chi2

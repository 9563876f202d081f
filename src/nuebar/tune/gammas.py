"""(kB, fC, scale) from the measured non-linearity of calibration gammas.

The light of a gamma is Y·Q(kB) + fC·C: linear in fC and smooth in kB, so a Chebyshev series in kB for every point is
the whole model, differentiable and exact to 1e-7. A non-linearity is visible over deposited energy on a scale that a
gamma of n-H capture fixes::

    ratio_i = scale · [Q_i(kB) + fC/Y C_i] / E_i  ÷  [Q_nH(kB) + fC/Y C_nH] / E_nH

so ``scale`` is what an n-H capture reads, 1 if the energy scale is right. The light yield Y has no effect beyond
fC/Y, and is fixed: an fC from here belongs to the Y that it was found with.

What the errors of the points hold. JUNO's release prints 0.50 % for six gammas up to 2.23 MeV, 0.80 % and 1.0 % for
those above, and no covariance. :data:`SCALES` are the three ways to read them:

- ``"free"``, the default: errors as printed, independent, and a scale without a prior. A common error is then nowhere
  counted twice: whatever scale error there is goes into ``scale``. If a part of the printed errors is common, those of
  (kB, fC) are too large, never too small.
- ``"added"``: the same, with 1 ± 0.5 % for the scale on top. Right if the printed errors do not hold it; else it is
  counted twice.
- ``"included"``: the 0.5 % inside the printed errors is the common one, and what is left of each, with half of its last
  printed digit, is its own (0.02-0.1 % up to 2.23 MeV). The released points scatter more than that about any smooth
  curve, the release's own one included, so they refuse this reading; it stands here to be seen.

A common error multiplies the prediction, not the data, so that it does not pull the fit down [dA].

Sources:
    [dA] G. D'Agostini, Nucl. Instrum. Meth. A 346 (1994) 306.
    [Re] JUNO, arXiv:2511.14593, source data of extended data figure 2; the common 0.5 % is that of its text.
    [EN] Energies and shares of the gammas: ENSDF and IAEA PGAA, as in the catalogue of sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate.nonlinearity import MeanLight
from nuebar.simulate.quench import Response, Scintillation, light_table, quenched_table
from nuebar.stats.likelihood import Bound, CovarianceCost, GaussianPulls, Term
from nuebar.stats.minimise import Minimum, minimise

__all__ = [
    "BOX",
    "LINES",
    "PARAMETERS",
    "SCALES",
    "SCALE_SIGMA",
    "GammaData",
    "GammaFit",
    "GammaModel",
    "GammaPosterior",
    "LightModel",
    "Line",
    "fit_gammas",
    "gamma_posterior",
    "light_model",
    "own_errors",
]

PARAMETERS = ("kB_g_cm2_GeV", "fC", "scale")
SCALES = ("free", "added", "included")
SCALE_SIGMA = 0.005  # [Re]
BOX: Mapping[str, tuple[float, float]] = {"kB_g_cm2_GeV": (1.0, 30.0), "fC": (0.0, 5.0), "scale": (0.8, 1.2)}
"""Wide enough that no calibration of a scintillator ends on it; the published training box is a part of it."""

_HALF_DIGIT = 0.5e-4  # ratios and errors are printed with four decimals
_NODES = 16  # the series in kB is exact to 3e-8 from 1 to 30 g/cm²/GeV
_COARSE, _FINE = 200, 400  # cells of the grid in each parameter
_DEEP = 16.0  # the fine grid covers what lies within exp(-16) of the maximum


class Line(NamedTuple):
    """A calibration point as it is simulated.

    Attributes:
        name: The source or capture.
        effective_MeV: Energy under which the release lists it: of a single gamma with the same ratio.
        branches: (share, gammas in coincidence in MeV).
    """

    name: str
    effective_MeV: float
    branches: tuple[tuple[float, tuple[float, ...]], ...]


LINES = (
    Line("68Ge", 0.5113, ((1.0, (ELECTRON_MASS_MeV, ELECTRON_MASS_MeV)),)),
    Line("137Cs", 0.6617, ((1.0, (0.661657,)),)),
    Line("54Mn", 0.8348, ((1.0, (0.834848,)),)),
    Line("60Co", 1.2457, ((1.0, (1.173228, 1.332492)),)),
    Line("40K", 1.4608, ((1.0, (1.460820,)),)),
    Line("n-H", 2.2233, ((1.0, (N_H_GAMMA_MeV,)),)),
    # Both branches: their mean ratio lies at 3.9 MeV on the curve of single gammas, as listed.
    Line("n-C", 3.8994, ((0.681, (4.945302,)), (0.319, (3.683920, 1.261765)))),
    Line("AmC", 6.129, ((1.0, (6.129,)),)),  # without the neutron: listed at the energy of the gamma
    Line("n-Fe", 7.637, ((1.0, (7.637,)),)),  # the doublet of 7.631 and 7.646 MeV
)
"""The nine points of JUNO's release of 2025 [Re], [EN]."""


class LightModel(eqx.Module):
    """Mean light per deposited MeV of several points, in units of the light yield.

    Attributes:
        quenched: Chebyshev coefficients in kB, shape ``(points, terms)``.
        cherenkov: Light for fC / Y = 1, shape ``(points,)``.
        limits: (low, high) of kB in g cm⁻² GeV⁻¹.
    """

    quenched: Array
    cherenkov: Array
    limits: tuple[float, float] = eqx.field(static=True)

    def __call__(self, kB_g_cm2_GeV: Array, fC_over_Y: Array) -> Array:
        """Light per MeV at one point of the parameters, shape ``(points,)``."""
        low, high = self.limits
        x = (2.0 * kB_g_cm2_GeV - (low + high)) / (high - low)
        terms = [jnp.ones_like(x), x]
        while len(terms) < self.quenched.shape[1]:
            terms.append(2.0 * x * terms[-1] - terms[-2])
        return self.quenched @ jnp.stack(terms) + fC_over_Y * self.cherenkov

    def picked(self, index: Sequence[int] | np.ndarray) -> LightModel:
        """Some of the points."""
        chosen = np.asarray(index)
        return LightModel(self.quenched[chosen], self.cherenkov[chosen], self.limits)


def light_model(
    means: MeanLight, scintillation: Scintillation, *, limits: tuple[float, float] | None = None
) -> LightModel:
    """The light of simulated points as a function of kB and fC.

    Args:
        means: Mean deposits of the points.
        scintillation: The material and the definitions.
        limits: (low, high) of kB; those of :data:`BOX` by default.
    """
    low, high = limits or BOX["kB_g_cm2_GeV"]
    x = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    tables = [quenched_table(0.5 * (low + high + u * (high - low)), scintillation) for u in x]
    at_nodes = (means.deposits @ np.array(tables).T) / means.e_dep_MeV[:, None]
    # Interpolation at the zeros of T_n: the discrete cosine transform.
    cosines = np.cos(np.arange(_NODES)[:, None] * np.arccos(x)[None, :])
    coefficients = at_nodes @ cosines.T * (2.0 / _NODES)
    coefficients[:, 0] *= 0.5
    bright, dark = (light_table(Response(0.5 * (low + high), f, 1.0), scintillation) for f in (1.0, 0.0))
    with jax.enable_x64(True):
        return LightModel(jnp.asarray(coefficients), jnp.asarray(means.per_MeV(bright - dark)), (low, high))


class GammaModel(eqx.Module):
    """Ratios of visible to deposited energy as a function of (kB, fC, scale).

    Attributes:
        light: The points.
        anchor: A gamma of n-H capture, one point.
        light_yield_per_MeV: Y, fixed.
    """

    light: LightModel
    anchor: LightModel
    light_yield_per_MeV: float = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        """The ratios at x = (kB, fC, scale), shape ``(points,)``: pure JAX, differentiable."""
        f = x[1] / self.light_yield_per_MeV
        return x[2] * self.light(x[0], f) / self.anchor(x[0], f)[0]

    def at(self, x: np.ndarray) -> np.ndarray:
        """The ratios at many points, ``(n, 3)`` to ``(n, points)``."""
        with jax.enable_x64(True):
            return np.asarray(_many(self, jnp.asarray(x)))

    def picked(self, index: Sequence[int] | np.ndarray) -> GammaModel:
        """Some of the points."""
        return GammaModel(self.light.picked(index), self.anchor, self.light_yield_per_MeV)


@eqx.filter_jit
def _many(model: GammaModel, x: Array) -> Array:
    return jax.vmap(model)(x)


@dataclass(frozen=True, eq=False)
class GammaData:
    """Measured points.

    Attributes:
        names: Of the points.
        energy_MeV: Where they are drawn, shape ``(points,)``.
        ratio: Visible over deposited energy.
        error: As printed.
        used: Which are fitted, booleans.
    """

    names: tuple[str, ...]
    energy_MeV: np.ndarray
    ratio: np.ndarray
    error: np.ndarray
    used: np.ndarray

    def __post_init__(self) -> None:
        n = (len(self.names),)
        arrays = (self.energy_MeV, self.ratio, self.error, self.used)
        if any(np.shape(a) != n for a in arrays):
            shapes = [np.shape(a) for a in arrays]
            raise NuebarError(f"gamma points: expected {n[0]} energies, ratios, errors and marks, got shapes {shapes}")
        if not (np.all(np.isfinite(self.ratio)) and np.all(np.isfinite(self.error)) and np.all(self.error > 0)):
            raise NuebarError("gamma points: expected finite ratios and errors above 0; correct them")
        if np.count_nonzero(self.used) < len(PARAMETERS):
            raise NuebarError(
                f"gamma points: expected at least {len(PARAMETERS)} points for {', '.join(PARAMETERS)}, got "
                f"{np.count_nonzero(self.used)}; use more"
            )


@dataclass(frozen=True, eq=False)
class GammaFit:
    """The best point.

    Attributes:
        scale: One of :data:`SCALES`.
        minimum: Values, errors, covariance and Minos intervals of :data:`PARAMETERS`.
        chi2: At the minimum, with the pull of the scale.
        n_dof: Points and pulls minus three.
        p_value: Probability of a larger χ².
        predicted: Ratios of all points, shape ``(points,)``.
        pulls: (measured - predicted) / error as printed, all points.
    """

    scale: str
    minimum: Minimum
    chi2: float
    n_dof: int
    p_value: float
    predicted: np.ndarray
    pulls: np.ndarray


@dataclass(frozen=True, eq=False)
class GammaPosterior:
    """The posterior for priors flat in kB and fC inside the box, and the scale's own.

    Attributes:
        kB_g_cm2_GeV: Middles of the cells, shape ``(n,)``.
        fC: Middles of the cells, shape ``(m,)``.
        probability: Of each cell, the scale integrated out, shape ``(n, m)``.
        mean: Of :data:`PARAMETERS`.
        covariance: Of :data:`PARAMETERS`.
        samples: Draws, shape ``(samples, 3)``.
        at_limits: Parameter → marginal density at its lower and upper limit over its maximum: above 0.01 the box
            shapes the posterior.
    """

    kB_g_cm2_GeV: np.ndarray
    fC: np.ndarray
    probability: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    samples: np.ndarray
    at_limits: dict[str, tuple[float, float]]


def own_errors(ratio: np.ndarray, error: np.ndarray, scale: str, *, sigma: float = SCALE_SIGMA) -> np.ndarray:
    """The part of each error that is independent of the others, for one reading of the printed ones.

    Args:
        ratio: Measured ratios, shape ``(points,)``.
        error: As printed.
        scale: One of :data:`SCALES`.
        sigma: The common relative error.

    Raises:
        NuebarError: The reading is unknown, or an error is smaller than the common one that it should hold.
    """
    if scale not in SCALES:
        raise NuebarError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    if scale != "included":
        return np.array(error, dtype=float)
    left = (error + _HALF_DIGIT) ** 2 - (sigma * ratio) ** 2
    if not np.all(left > 0):
        k = int(np.argmin(left))
        raise NuebarError(
            f"gamma points: expected errors that hold a common {100 * sigma:g} %, got {error[k]:g} at a ratio of "
            f"{ratio[k]:g}; read them as 'free' or 'added'"
        )
    return np.sqrt(left)


def fit_gammas(
    data: GammaData,
    model: GammaModel,
    *,
    scale: str = "free",
    sigma: float = SCALE_SIGMA,
    box: Mapping[str, tuple[float, float]] = BOX,
) -> GammaFit:
    """Fit kB, fC and the scale, with Minos errors.

    Args:
        data: The points.
        model: Their ratios, in the same order.
        scale: How the errors are read, one of :data:`SCALES`.
        sigma: The common relative error, where the reading has one.
        box: Limits of the parameters.

    Returns:
        The fit.

    Raises:
        NuebarError: The reading is unknown, or does not fit the errors.
    """
    used = np.flatnonzero(data.used)
    own = own_errors(data.ratio, data.error, scale, sigma=sigma)
    low, high = np.array([box[n] for n in PARAMETERS]).T
    with jax.enable_x64(True):
        cost: Term = Bound(CovarianceCost(data.ratio[used], np.diag(own[used] ** 2)), model.picked(used))
        if scale != "free":
            cost = cost + GaussianPulls(np.ones(1), sigmas=np.array([sigma]), indices=[2])
        start = _start(data, own, model, scale, sigma, box)
        minimum = minimise(cost, start, names=PARAMETERS, lower=low, upper=high, errors="minos")
        predicted = np.asarray(model(jnp.asarray(minimum.values)))
    n_dof = minimum.n_data - len(PARAMETERS)
    p_value = float(chi2_distribution.sf(minimum.cost, n_dof)) if n_dof else 1.0
    pulls = (data.ratio - predicted) / data.error
    return GammaFit(scale, minimum, float(minimum.cost), n_dof, p_value, predicted, pulls)


def gamma_posterior(
    data: GammaData,
    model: GammaModel,
    *,
    scale: str = "free",
    sigma: float = SCALE_SIGMA,
    box: Mapping[str, tuple[float, float]] = BOX,
    samples: int = 4000,
    seed: int = 1,
) -> GammaPosterior:
    """The posterior on a grid of (kB, fC), with the scale integrated out in closed form.

    The prediction is proportional to the scale, so at every (kB, fC) its posterior is a Gaussian. A second, finer grid
    covers only where the first has found probability.

    Args:
        data: The points.
        model: Their ratios, in the same order.
        scale: How the errors are read, one of :data:`SCALES`.
        sigma: The common relative error, where the reading has one.
        box: Limits of kB and fC, where their priors are flat.
        samples: Draws wanted.
        seed: Of the draws.

    Raises:
        NuebarError: No samples are wanted, or the reading is unknown or does not fit the errors.
    """
    if samples < 1:
        raise NuebarError(f"samples: expected a whole number above 0, got {samples}; give one like 4000")
    own = own_errors(data.ratio, data.error, scale, sigma=sigma)
    windows = [box["kB_g_cm2_GeV"], box["fC"]]
    first = _grid(data, own, model, scale, sigma, windows, _COARSE)
    near = first.log > first.log.max() - _DEEP
    windows = [
        _window(axis, window, near.any(axis=1 - k))
        for k, (axis, window) in enumerate(zip((first.kB, first.fC), windows, strict=True))
    ]
    grid = _grid(data, own, model, scale, sigma, windows, _FINE)
    p = np.exp(grid.log - grid.log.max())
    p /= p.sum()
    cells = np.stack([*np.meshgrid(grid.kB, grid.fC, indexing="ij"), grid.scale], axis=-1).reshape(-1, 3)
    mean = p.ravel() @ cells
    away = cells - mean
    covariance = np.einsum("n,ni,nj->ij", p.ravel(), away, away)
    covariance[2, 2] += p.ravel() @ grid.variance.ravel()
    rng = np.random.default_rng(seed)
    chosen = rng.choice(p.size, samples, p=p.ravel())
    draws = cells[chosen]
    widths = [(w[1] - w[0]) / _FINE for w in windows]
    draws[:, :2] += (rng.random((samples, 2)) - 0.5) * widths
    draws[:, 2] += np.sqrt(grid.variance.ravel()[chosen]) * rng.standard_normal(samples)
    limits = {}
    for k, name in enumerate(PARAMETERS[:2]):
        marginal = p.sum(axis=1 - k) / p.sum(axis=1 - k).max()
        reached = [abs(a - b) < 1e-9 for a, b in zip(windows[k], box[name], strict=True)]
        limits[name] = (float(marginal[0]) * reached[0], float(marginal[-1]) * reached[1])
    return GammaPosterior(grid.kB, grid.fC, p, mean, covariance, draws, limits)


class _Grid(NamedTuple):
    kB: np.ndarray  # middles
    fC: np.ndarray
    log: np.ndarray  # ln of the density, up to a constant
    scale: np.ndarray  # mean and variance of the scale in each cell
    variance: np.ndarray


def _grid(
    data: GammaData,
    own: np.ndarray,
    model: GammaModel,
    scale: str,
    sigma: float,
    windows: Sequence[tuple[float, float]],
    cells: int,
) -> _Grid:
    kB, fC = (low + (np.arange(cells) + 0.5) * (high - low) / cells for low, high in windows)
    points = np.stack([*np.meshgrid(kB, fC, indexing="ij"), np.ones((cells, cells))], axis=-1)
    used = np.flatnonzero(data.used)
    unit = model.picked(used).at(points.reshape(-1, 3)).reshape(cells, cells, -1)
    weight, measured = own[used] ** -2, data.ratio[used]
    prior = 0.0 if scale == "free" else sigma**-2
    curvature = unit**2 @ weight + prior
    slope = unit @ (weight * measured) + prior
    log = -0.5 * (weight @ measured**2 + prior - slope**2 / curvature) - 0.5 * np.log(curvature)
    return _Grid(kB, fC, log, slope / curvature, 1.0 / curvature)


def _window(axis: np.ndarray, window: tuple[float, float], inside: np.ndarray) -> tuple[float, float]:
    """The cells that are inside, with one more on either side, within the window."""
    step, found = axis[1] - axis[0], axis[inside]
    return max(window[0], float(found[0] - 1.5 * step)), min(window[1], float(found[-1] + 1.5 * step))


def _start(
    data: GammaData,
    own: np.ndarray,
    model: GammaModel,
    scale: str,
    sigma: float,
    box: Mapping[str, tuple[float, float]],
) -> np.ndarray:
    """The best cell of a coarse grid."""
    grid = _grid(data, own, model, scale, sigma, [box["kB_g_cm2_GeV"], box["fC"]], _COARSE // 4)
    i, j = np.unravel_index(int(np.argmax(grid.log)), grid.log.shape)
    return np.array([grid.kB[i], grid.fC[j], np.clip(grid.scale[i, j], *box["scale"])])

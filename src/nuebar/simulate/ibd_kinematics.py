"""Which antineutrino interacts and what comes out: energy, core, positron and neutron.

Energies are drawn from a table of interactions for each core (linear between its nodes, inverted exactly), the
positron's angle from the differential cross-section of Vogel and Beacom (:mod:`nuebar.physics.ibd`). Given both,
energies and directions are those of two bodies exactly: four-momentum is conserved to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jax import enable_x64

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV, NEUTRON_MASS_MeV, PROTON_MASS_MeV
from nuebar.physics.ibd import THRESHOLD_MeV, differential_vogel_beacom
from nuebar.simulate.directions import circle, tilt
from nuebar.simulate.random import uniform

__all__ = ["DRAWS", "IbdSpectrum", "InteractionTables", "interact", "interaction_tables", "positron_energy_MeV"]

DRAWS = 4
"""Random numbers that :func:`interact` uses."""

_ME, _MP, _MN = ELECTRON_MASS_MeV, PROTON_MASS_MeV, NEUTRON_MASS_MeV
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_KAPPA = 0.5 * (_MP**2 + _ME**2 - _MN**2)
_GUIDES = 4096  # even steps of probability that say where a search begins
_ROWS, _COLUMNS = 128, 129
_E_MAX_MeV = 16.0
_EXPANSION_FAILS_MeV = 0.02  # above threshold: closer to it the order-1/M angular distribution is not one


@dataclass(frozen=True, eq=False)
class IbdSpectrum:
    """Interacting antineutrinos of every core against energy; only relative values matter.

    Attributes:
        e_nu_MeV: Increasing energies, shape ``(nodes,)``; density is linear between them and zero outside.
        per_MeV: Interactions per MeV (flux times cross-section, any unit), shape ``(cores, nodes)``; what lies
            below threshold is ignored.
        baseline_km: Distance of every core, shape ``(cores,)``.
        direction: Unit vectors of flight, shape ``(cores, 3)``; along x by default (nominal).
    """

    e_nu_MeV: np.ndarray
    per_MeV: np.ndarray
    baseline_km: np.ndarray
    direction: np.ndarray | None = None

    def __post_init__(self) -> None:
        e, density = np.asarray(self.e_nu_MeV, float), np.asarray(self.per_MeV, float)
        baseline = np.asarray(self.baseline_km, float)
        if e.ndim != 1 or e.size < 2 or not np.all(np.diff(e) > 0) or not THRESHOLD_MeV < e[-1] <= _E_MAX_MeV:
            raise NuebarError(
                f"spectrum: expected at least two increasing energies in MeV that end between {THRESHOLD_MeV:.3f} and "
                f"{_E_MAX_MeV:g}, got {e.size} from {e.flat[0] if e.size else 'none'} on; correct e_nu_MeV"
            )
        if density.shape != (baseline.size, e.size) or not 1 <= baseline.size <= 256:
            raise NuebarError(
                f"spectrum: expected per_MeV of shape ({baseline.size}, {e.size}) (cores, energies), at most 256 "
                f"cores, got {density.shape}; correct it"
            )
        if not (np.all(np.isfinite(density)) and np.all(density >= 0) and np.any(density[:, e > THRESHOLD_MeV] > 0)):
            raise NuebarError("spectrum: expected densities that are not negative and not all zero; correct per_MeV")
        direction = np.tile([1.0, 0.0, 0.0], (baseline.size, 1)) if self.direction is None else self.direction
        direction = np.asarray(direction, float)
        if direction.shape != (baseline.size, 3) or not np.allclose(np.sum(direction**2, axis=1), 1, atol=1e-6):
            raise NuebarError(f"spectrum: expected unit vectors of shape ({baseline.size}, 3), got {direction.shape}")
        for name, value in zip(
            ("e_nu_MeV", "per_MeV", "baseline_km", "direction"), (e, density, baseline, direction), strict=True
        ):
            object.__setattr__(self, name, value)

    def weighted(self, survival: np.ndarray) -> IbdSpectrum:
        """The same spectrum times a factor at every core and node: survival probability, acceptance.

        Args:
            survival: Not negative, shape ``(cores, nodes)``. Density stays linear between nodes, so they must be
                close enough for the oscillation of the farthest core.
        """
        return IbdSpectrum(self.e_nu_MeV, self.per_MeV * survival, self.baseline_km, self.direction)

    def interactions(self) -> np.ndarray:
        """Integral of every core above threshold, in the unit of ``per_MeV`` times MeV, shape ``(cores,)``."""
        e, density = _above_threshold(self)
        return np.sum(0.5 * (density[:, 1:] + density[:, :-1]) * np.diff(e), axis=1)


class InteractionTables(NamedTuple):
    """A spectrum and the cross-section's angles, ready to be drawn from.

    Attributes:
        core: Cumulative probability of the cores, shape ``(cores,)``.
        e_nu_MeV: Nodes from threshold on.
        density: Per MeV, each core normalised, shape ``(cores, nodes)``.
        cumulative: Its integral, from 0 to 1.
        guide: Cell where the search for a probability ``j/4096`` begins, shape ``(cores, 4096)``.
        cosine: Quantiles of the positron's cos θ: rows even in √(E - threshold), columns in probability.
        direction: Unit vectors of flight, shape ``(cores, 3)``.
    """

    core: np.ndarray
    e_nu_MeV: np.ndarray
    density: np.ndarray
    cumulative: np.ndarray
    guide: np.ndarray
    cosine: np.ndarray
    direction: np.ndarray


def interaction_tables(spectrum: IbdSpectrum) -> InteractionTables:
    """Tables of a spectrum."""
    assert spectrum.direction is not None
    e, density = _above_threshold(spectrum)
    pieces = 0.5 * (density[:, 1:] + density[:, :-1]) * np.diff(e)
    rates = pieces.sum(axis=1)
    safe = np.where(rates > 0, rates, 1.0)[:, None]
    cumulative = np.concatenate([np.zeros((rates.size, 1)), np.cumsum(pieces, axis=1)], axis=1) / safe
    even = np.arange(_GUIDES) / _GUIDES
    guide = np.array([np.searchsorted(row, even, side="right") - 1 for row in cumulative])
    return InteractionTables(
        np.cumsum(rates) / rates.sum(),
        e,
        density / safe,
        cumulative,
        np.clip(guide, 0, e.size - 2).astype(np.int32),
        _cosine_quantiles(),
        np.ascontiguousarray(spectrum.direction),
    )


def _above_threshold(spectrum: IbdSpectrum) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and densities from threshold on; there the density is zero, as the cross-section."""
    e, density = spectrum.e_nu_MeV, spectrum.per_MeV
    kept = e > THRESHOLD_MeV
    if e[0] > THRESHOLD_MeV:  # the table starts higher: so does the spectrum
        return e, density
    zero = np.zeros((density.shape[0], 1))
    return np.concatenate([[THRESHOLD_MeV], e[kept]]), np.concatenate([zero, density[:, kept]], axis=1)


@lru_cache(maxsize=1)
def _cosine_quantiles() -> np.ndarray:
    """Positron angles of Vogel and Beacom's cross-section at even probabilities, shape ``(rows, columns)``."""
    above = (_E_MAX_MeV - THRESHOLD_MeV) * np.linspace(0.0, 1.0, _ROWS) ** 2
    e = THRESHOLD_MeV + np.maximum(above, _EXPANSION_FAILS_MeV)
    cos = np.linspace(-1.0, 1.0, 401)
    with enable_x64(True):  # 1e-43 cm² is zero in single precision
        density = np.asarray(differential_vogel_beacom(e[:, None], cos[None, :]), dtype=np.float64)
    density = density / density.max()
    pieces = 0.5 * (density[:, 1:] + density[:, :-1])
    cumulative = np.concatenate([np.zeros((_ROWS, 1)), np.cumsum(pieces, axis=1)], axis=1)
    cumulative /= cumulative[:, -1:]
    even = np.linspace(0.0, 1.0, _COLUMNS)
    return np.array([np.interp(even, row, cos) for row in cumulative])


@njit
def positron_energy_MeV(e_nu_MeV: float, cos: float) -> float:
    """Total positron energy by two-body kinematics, as :func:`nuebar.physics.ibd.positron_energy`."""
    w, e_cos = e_nu_MeV + _MP, e_nu_MeV * cos
    kappa = _MP * e_nu_MeV + _KAPPA
    denominator = w * w - e_cos * e_cos
    root = math.sqrt(max(0.0, kappa * kappa - _ME * _ME * denominator))
    return max((w * kappa + e_cos * root) / denominator, _ME)


@njit
def interact(tables: InteractionTables, key: np.uint64, counter: np.uint64) -> tuple:
    """One interaction; uses :data:`DRAWS` random numbers.

    Args:
        tables: The spectrum.
        key: Key of the random numbers.
        counter: First counter to use, uint64.

    Returns:
        Core, antineutrino energy, cos θ of the positron, its total energy and its direction (three numbers), kinetic
        energy of the neutron and its direction.
    """
    draw = uniform(key, counter)
    core = 0
    while core < tables.core.size - 1 and draw > tables.core[core]:
        core += 1
    e_nu = _energy(tables, core, uniform(key, counter + _ONE))
    cos = _cosine(tables.cosine, e_nu, uniform(key, counter + _TWO))
    a, b = circle(uniform(key, counter + _THREE))
    sin = math.sqrt(max(0.0, 1.0 - cos * cos))
    along_x, along_y, along_z = tables.direction[core, 0], tables.direction[core, 1], tables.direction[core, 2]
    u, v, w = tilt(along_x, along_y, along_z, cos, sin * a, sin * b)
    e_e = positron_energy_MeV(e_nu, cos)
    p_e = math.sqrt(e_e * e_e - _ME * _ME)
    t_n = max(e_nu + _MP - e_e - _MN, 0.0)
    x, y, z = e_nu * along_x - p_e * u, e_nu * along_y - p_e * v, e_nu * along_z - p_e * w
    norm = 1.0 / math.sqrt(x * x + y * y + z * z)
    return core, e_nu, cos, e_e, u, v, w, t_n, x * norm, y * norm, z * norm


@njit
def _energy(tables: InteractionTables, core: int, u: float) -> float:
    """Inverse distribution function of a density that is linear between nodes."""
    i = tables.guide[core, int(u * _GUIDES)]
    last = tables.e_nu_MeV.size - 2
    while i < last and tables.cumulative[core, i + 1] <= u:
        i += 1
    area = u - tables.cumulative[core, i]
    low, high = tables.density[core, i], tables.density[core, i + 1]
    width = tables.e_nu_MeV[i + 1] - tables.e_nu_MeV[i]
    root = math.sqrt(max(0.0, low * low + 2.0 * area * (high - low) / width))
    return tables.e_nu_MeV[i] + min(2.0 * area / (low + root), width)


@njit
def _cosine(table: np.ndarray, e_nu_MeV: float, u: float) -> float:
    rows, columns = table.shape
    r = math.sqrt((e_nu_MeV - THRESHOLD_MeV) / (_E_MAX_MeV - THRESHOLD_MeV)) * (rows - 1)
    c = u * (columns - 1)
    i, j = min(int(r), rows - 2), int(c)
    f, g = r - i, c - j
    low = table[i, j] + g * (table[i, j + 1] - table[i, j])
    high = table[i + 1, j] + g * (table[i + 1, j + 1] - table[i + 1, j])
    return low + f * (high - low)

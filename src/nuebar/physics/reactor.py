"""Antineutrino spectra of power reactors: isotopes, fission rates, corrections, flux at a distance."""

from __future__ import annotations

from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.physics.constants import CM_PER_KM, MEV_TO_J

__all__ = [
    "HUBER_MUELLER",
    "ISOTOPES",
    "fissions_per_second",
    "flux_at_detector",
    "huber_mueller",
    "interpolate",
    "mean_energy_per_fission_MeV",
    "polynomial_spectrum",
    "segment_factor",
    "tabulated_spectrum",
    "time_averaged_fissions",
]

ISOTOPES = ("U235", "U238", "Pu239", "Pu241")

# ln S(E) = Σ a_k E^(k-1), k = 1..6: 235U, 239Pu, 241Pu from P. Huber, PRC 84, 024617 (2011), table III;
# 238U from T. Mueller et al., PRC 83, 054615 (2011), table VI.
HUBER_MUELLER = MappingProxyType(
    {
        "U235": (4.367, -4.577, 2.100, -5.294e-1, 6.186e-2, -2.777e-3),
        "U238": (4.833e-1, 1.927e-1, -1.283e-1, -6.762e-3, 2.233e-3, -1.536e-4),
        "Pu239": (4.757, -5.392, 2.563, -6.596e-1, 7.820e-2, -3.536e-3),
        "Pu241": (2.990, -2.882, 1.278, -3.343e-1, 3.905e-2, -1.754e-3),
    }
)


def polynomial_spectrum(e_nu_MeV: ArrayLike, coefficients: ArrayLike) -> Array:
    """S(E) = exp(Σ a_k E^(k-1)): antineutrinos per fission and MeV.

    Args:
        e_nu_MeV: Energies, any shape.
        coefficients: a_1 … a_n.

    Returns:
        The spectrum, in the shape of ``e_nu_MeV``.
    """
    return jnp.exp(jnp.polyval(jnp.asarray(coefficients)[::-1], jnp.asarray(e_nu_MeV)))


def huber_mueller(e_nu_MeV: ArrayLike, isotope: str) -> Array:
    """The Huber-Mueller spectrum of one isotope, antineutrinos per fission and MeV.

    The polynomials were fitted from 2 to 8 MeV; outside they are extrapolated as they stand.

    Args:
        e_nu_MeV: Energies, any shape.
        isotope: One of :data:`ISOTOPES`.

    Returns:
        The spectrum, in the shape of ``e_nu_MeV``.
    """
    return polynomial_spectrum(e_nu_MeV, jnp.asarray(HUBER_MUELLER[isotope]))


def tabulated_spectrum(e_nu_MeV: ArrayLike, grid_MeV: ArrayLike, values: ArrayLike) -> Array:
    """A user's spectrum from a table: linear in ln S between the nodes, extrapolated with the last slopes.

    Args:
        e_nu_MeV: Energies, any shape.
        grid_MeV: Increasing energies of the table, at least two.
        values: Positive values at the nodes.

    Returns:
        The spectrum, in the shape of ``e_nu_MeV``.
    """
    e, grid, log = jnp.asarray(e_nu_MeV), jnp.asarray(grid_MeV), jnp.log(jnp.asarray(values))
    k = jnp.clip(jnp.searchsorted(grid, e) - 1, 0, grid.size - 2)
    slope = (log[k + 1] - log[k]) / (grid[k + 1] - grid[k])
    return jnp.exp(log[k] + slope * (e - grid[k]))


def interpolate(e_nu_MeV: ArrayLike, grid_MeV: ArrayLike, values: ArrayLike) -> Array:
    """A correction or ratio from a table: linear between the nodes, constant outside.

    Args:
        e_nu_MeV: Energies, any shape.
        grid_MeV: Increasing energies of the table.
        values: Values at the nodes.

    Returns:
        The interpolated values, in the shape of ``e_nu_MeV``.
    """
    return jnp.interp(jnp.asarray(e_nu_MeV), jnp.asarray(grid_MeV), jnp.asarray(values))


def segment_factor(e_nu_MeV: ArrayLike, nodes_MeV: ArrayLike, factors: ArrayLike) -> Array:
    """A free reactor spectrum: a continuous factor, linear in ln between free nodes (segments).

    Args:
        e_nu_MeV: Energies, any shape.
        nodes_MeV: Increasing energies of the nodes.
        factors: The factor at each node; all ones leaves the spectrum alone.

    Returns:
        Positive factors in the shape of ``e_nu_MeV``.
    """
    return jnp.exp(interpolate(e_nu_MeV, nodes_MeV, jnp.log(jnp.asarray(factors))))


def mean_energy_per_fission_MeV(fractions: ArrayLike, energy_per_fission_MeV: ArrayLike) -> Array:
    """⟨E⟩ = Σ f_i e_i / Σ f_i over the isotopes (last axis)."""
    f = jnp.asarray(fractions)
    return jnp.sum(f * jnp.asarray(energy_per_fission_MeV), axis=-1) / jnp.sum(f, axis=-1)


def fissions_per_second(power_GW: ArrayLike, fractions: ArrayLike, energy_per_fission_MeV: ArrayLike) -> Array:
    """Fissions a second of each isotope: W f_i / Σ f_i e_i.

    Args:
        power_GW: Thermal power, shape ``(...)``.
        fractions: Fission fractions, shape ``(..., isotopes)``; they need not be normalised.
        energy_per_fission_MeV: Energy released per fission of each isotope, shape ``(isotopes,)``.

    Returns:
        Rates per second, shape ``(..., isotopes)``.
    """
    f = jnp.asarray(fractions)
    f = f / jnp.sum(f, axis=-1, keepdims=True)
    watts = jnp.asarray(power_GW) * 1e9
    total = watts / (mean_energy_per_fission_MeV(f, energy_per_fission_MeV) * MEV_TO_J)
    return total[..., None] * f


def time_averaged_fissions(
    power_GW: ArrayLike, fractions: ArrayLike, live_seconds: ArrayLike, energy_per_fission_MeV: ArrayLike
) -> Array:
    """Fissions of each isotope over an exposure with changing power and fuel.

    Args:
        power_GW: Mean thermal power of each interval, shape ``(..., times)``.
        fractions: Fission fractions of each interval, shape ``(..., times, isotopes)``.
        live_seconds: Live time of the detector in each interval, shape ``(times,)``.
        energy_per_fission_MeV: Shape ``(isotopes,)``.

    Returns:
        Numbers of fissions, shape ``(..., isotopes)``.
    """
    rate = fissions_per_second(power_GW, fractions, energy_per_fission_MeV)
    return jnp.sum(rate * jnp.asarray(live_seconds)[..., None], axis=-2)


def flux_at_detector(fissions: ArrayLike, spectra: ArrayLike, baseline_km: ArrayLike) -> Array:
    """Un-oscillated fluence at the detector, antineutrinos per cm² and MeV.

    Args:
        fissions: Fissions (or fissions a second) of each isotope, shape ``(cores, isotopes)``.
        spectra: Antineutrinos per fission and MeV, shape ``(isotopes, energies)``.
        baseline_km: Distances, shape ``(cores,)``.

    Returns:
        Shape ``(cores, energies)``; per second if ``fissions`` is a rate.
    """
    area_cm2 = 4.0 * np.pi * (jnp.asarray(baseline_km) * CM_PER_KM) ** 2
    return (jnp.asarray(fissions) @ jnp.asarray(spectra)) / area_cm2[:, None]

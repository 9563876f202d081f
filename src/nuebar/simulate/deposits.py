"""A charged particle that stops in the scintillator, as one 16-bit code: its species and its kinetic energy.

The light of a track depends on kB, fC and the light yield, its energy does not. So a cascade is stored once as a
list of codes, and light at any parameter point is a sum of entries of a table with 65,536 rows
(:func:`nuebar.simulate.quench.light_table`). Energies lie on grids that are even in √T: neighbours differ by
0.16 keV at 1 MeV for electrons, so rounding to the nearest one moves a track by less than 1e-4 of its energy above
0.7 MeV, in both directions alike.

Positrons are electrons here; the two gammas at their end are cascades of their own.
"""

from __future__ import annotations

import math

import numpy as np

from nuebar.kernels import njit

__all__ = [
    "ALPHA_CODES",
    "CODES",
    "ELECTRON_CODES",
    "PROTON_CODES",
    "MAX_ALPHA_MeV",
    "MAX_ELECTRON_MeV",
    "MAX_PROTON_MeV",
    "add_alpha",
    "add_electron",
    "add_proton",
    "code_energies_MeV",
]

ELECTRON_CODES = 49_152
PROTON_CODES = 8_192
ALPHA_CODES = 8_192
CODES = ELECTRON_CODES + PROTON_CODES + ALPHA_CODES

MAX_ELECTRON_MeV = 16.0
MAX_PROTON_MeV = 16.0
MAX_ALPHA_MeV = 10.0

_ELECTRON = (ELECTRON_CODES - 1) / math.sqrt(MAX_ELECTRON_MeV)
_PROTON = (PROTON_CODES - 1) / math.sqrt(MAX_PROTON_MeV)
_ALPHA = (ALPHA_CODES - 1) / math.sqrt(MAX_ALPHA_MeV)


def code_energies_MeV() -> np.ndarray:
    """Kinetic energy of every code, shape ``(65536,)``: electrons, then protons, then alphas."""
    parts = (
        (ELECTRON_CODES, MAX_ELECTRON_MeV),
        (PROTON_CODES, MAX_PROTON_MeV),
        (ALPHA_CODES, MAX_ALPHA_MeV),
    )
    return np.concatenate([top * (np.arange(n) / (n - 1)) ** 2 for n, top in parts])


@njit
def _add(t_MeV: float, top_MeV: float, scale: float, first: int, codes: np.ndarray, n: int) -> int:
    # A track above the grid is written in pieces, so that no energy is lost.
    while t_MeV > top_MeV:
        codes[n] = np.uint16(first + int(scale * math.sqrt(top_MeV) + 0.5))
        n += 1
        t_MeV -= top_MeV
    code = int(scale * math.sqrt(t_MeV) + 0.5)
    if code > 0:
        codes[n] = np.uint16(first + code)
        n += 1
    return n


@njit
def add_electron(t_MeV: float, codes: np.ndarray, n: int) -> int:
    """Append an electron or positron.

    Args:
        t_MeV: Kinetic energy; next to nothing (2 meV) appends nothing.
        codes: Buffer of deposits, uint16, with room for one more, and another for every 16 MeV.
        n: How many it holds.

    Returns:
        The new number of deposits.
    """
    return _add(t_MeV, MAX_ELECTRON_MeV, _ELECTRON, 0, codes, n)


@njit
def add_proton(t_MeV: float, codes: np.ndarray, n: int) -> int:
    """Append a proton; see :func:`add_electron`."""
    return _add(t_MeV, MAX_PROTON_MeV, _PROTON, ELECTRON_CODES, codes, n)


@njit
def add_alpha(t_MeV: float, codes: np.ndarray, n: int) -> int:
    """Append an alpha particle; see :func:`add_electron`."""
    return _add(t_MeV, MAX_ALPHA_MeV, _ALPHA, ELECTRON_CODES + PROTON_CODES, codes, n)

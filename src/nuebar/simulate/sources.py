"""Calibration sources: every trigger of a source as a cascade of deposits.

What a trigger can be (gammas in coincidence, neutrons with their recoil protons, pairs, captures) comes from a TOML
catalogue, by default ``experiments/sources/standard.toml``. The scintillator around a source is infinite: a source
near the edge would also lose light by leakage, which the catalogue refuses to hide (:func:`check_place`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nuebar.config_detector import SourceBranch, SourceCatalogue, SourceSettings, check_sources
from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.records import from_mapping, read_toml
from nuebar.simulate.gammas import (
    ElectronTables,
    PhotonTables,
    electron_tables,
    follow_gamma,
    photon_tables,
    stop_electron,
    stop_positron,
)
from nuebar.simulate.neutrons import slow_down
from nuebar.simulate.pool import CascadePool, joined
from nuebar.simulate.random import event_counter, normal, uniform

__all__ = [
    "PARTS",
    "Source",
    "calibration_pool",
    "check_place",
    "deposited_MeV",
    "load_sources",
]

STANDARD = Path(__file__).parents[1] / "experiments" / "sources" / "standard.toml"
PARTS = ("decay", "prompt", "capture")
"""What the column ``part`` of a pool counts."""

_GAMMA, _ELECTRON, _POSITRON, _PAIR, _NEUTRON = range(5)
_QUANTILES = 257
_BLOCK = 20_000  # cascades of one call of the kernel
_EDGE_m = 1.0  # gammas of a source nearer to the edge leak out
_ME = ELECTRON_MASS_MeV
_ONE = np.uint64(1)


class _Recipe(NamedTuple):
    """The branches of a source, flat."""

    cumulative: np.ndarray  # of the shares
    part: np.ndarray
    first: np.ndarray  # first emission of each branch; one more at the end
    kind: np.ndarray
    energy: np.ndarray  # MeV; for neutrons the row of `neutrons`
    smear: np.ndarray  # MeV
    neutrons: np.ndarray  # quantiles of the neutron spectra, shape (spectra, 257)


@dataclass(frozen=True)
class Source:
    """A calibration source by name.

    Attributes:
        name: Its key in the catalogue.
        settings: Branches and place.
        neutrons: Spectra of the catalogue.
    """

    name: str
    settings: SourceSettings
    neutrons: Mapping[str, tuple[tuple[float, ...], ...]]

    @property
    def title(self) -> str:
        """For pictures."""
        return self.settings.title


def load_sources(path: str | Path | None = None) -> dict[str, Source]:
    """The sources of a catalogue by name.

    Args:
        path: A TOML file; the standard catalogue by default.

    Raises:
        NuebarError: The file is missing, or a key is unknown or out of range.
    """
    file = Path(path) if path is not None else STANDARD
    catalogue: SourceCatalogue = from_mapping(SourceCatalogue, read_toml(file), str(file))
    if catalogue.format != 1:
        raise NuebarError(f"{file}: key 'format': expected 1, got {catalogue.format}; update nuebar")
    check_sources(catalogue, str(file))
    return {name: Source(name, s, catalogue.neutrons) for name, s in catalogue.sources.items()}


def check_place(source: Source, radius_m: float) -> float:
    """Distance of a source from the centre, if its gammas stay in the scintillator.

    Args:
        source: The source.
        radius_m: Radius of the scintillator.

    Raises:
        NuebarError: It is less than a metre from the edge.
    """
    distance = math.dist((0.0, 0.0, 0.0), source.settings.position_m)
    if distance > radius_m - _EDGE_m:
        raise NuebarError(
            f"sources.{source.name}.position_m: expected a place at least {_EDGE_m:g} m inside the radius of "
            f"{radius_m:g} m, got {distance:g} m from the centre; gammas would leave the scintillator"
        )
    return distance


def calibration_pool(
    source: Source,
    cascades: int,
    key: np.uint64,
    *,
    material: str = "lab",
    electrons_per_gram_mol: float = 0.5588,
) -> CascadePool:
    """Triggers of a source, in random order.

    Args:
        source: The source.
        cascades: How many.
        key: Key of the random numbers: training, validation and testing use different ones.
        material: Tables of the scintillator.
        electrons_per_gram_mol: Its Z/A.

    Returns:
        The pool, with the column ``part`` (index into :data:`PARTS`) and ``branch``.

    Raises:
        NuebarError: No cascades are wanted, or the material is unknown.
    """
    if cascades < 1:
        raise NuebarError(f"cascades: expected a whole number above 0, got {cascades}")
    recipe = _recipe(source)
    photons, electrons = photon_tables(material), electron_tables(material, electrons_per_gram_mol)
    # Three times the mean of the branch with most deposits: kernels write without bounds.
    room = max(60 * _particles(b) + int(10 * (deposited_MeV(b) + b.smear_MeV)) for b in source.settings.branches)
    pools = []
    for first in range(0, cascades, _BLOCK):
        n = min(_BLOCK, cascades - first)
        codes, counts = np.empty(n * room + 4000, np.uint16), np.empty(n, np.int64)
        branch = np.empty(n, np.uint8)
        used = _triggers(recipe, photons, electrons, key, first, codes, counts, branch)
        columns = {"branch": branch, "part": recipe.part[branch]}
        pools.append(CascadePool(codes[:used].copy(), np.concatenate([[0], np.cumsum(counts)]), columns))
    pool = joined(pools)
    about = {"source": source.name, "cascades": cascades, "material": material}
    return CascadePool(pool.codes, pool.offsets, pool.columns, about)


def _particles(branch: SourceBranch) -> int:
    """Upper limit of the particles that a branch begins with: a positron brings two gammas."""
    charged = len(branch.electrons_MeV) + 3 * len(branch.positrons_MeV) + 4 * (branch.pair_MeV > 0)
    return len(branch.gammas_MeV) + charged + bool(branch.neutron)


def deposited_MeV(branch: SourceBranch) -> float:
    """Energy that a branch deposits, without the kinetic energy of its neutron."""
    positrons = sum(e + 2 * _ME for e in branch.positrons_MeV)
    pair = branch.pair_MeV + 2 * _ME if branch.pair_MeV else 0.0
    return sum(branch.gammas_MeV) + sum(branch.electrons_MeV) + positrons + pair


def _recipe(source: Source) -> _Recipe:
    branches = source.settings.branches
    names = list(source.neutrons)
    emissions: list[list[tuple[int, float, float]]] = []
    for b in branches:
        one = [(_GAMMA, e, b.smear_MeV if i == 0 else 0.0) for i, e in enumerate(b.gammas_MeV)]
        one += [(_ELECTRON, e, 0.0) for e in b.electrons_MeV] + [(_POSITRON, e, 0.0) for e in b.positrons_MeV]
        one += [(_PAIR, b.pair_MeV, 0.0)] if b.pair_MeV else []
        one += [(_NEUTRON, float(names.index(b.neutron)), 0.0)] if b.neutron else []
        emissions.append(one)
    flat = [e for one in emissions for e in one]
    shares = np.array([b.share for b in branches])
    cumulative = np.cumsum(shares) / shares.sum()
    cumulative[-1] = 1.0
    spectra = [_quantiles(source.neutrons[name]) for name in names] or [np.zeros(_QUANTILES)]
    return _Recipe(
        cumulative,
        np.array([PARTS.index(b.part) for b in branches], np.uint8),
        np.concatenate([[0], np.cumsum([len(one) for one in emissions])]),
        np.array([e[0] for e in flat]),
        np.array([e[1] for e in flat]),
        np.array([e[2] for e in flat]),
        np.array(spectra),
    )


def _quantiles(points: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """Inverse distribution function of a spectrum of straight lines, on an even grid of probability."""
    energy, density = np.array(points).T
    fine = np.union1d(np.linspace(energy[0], energy[-1], 4001), energy)
    height = np.interp(fine, energy, density)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (height[1:] + height[:-1]) * np.diff(fine))])
    return np.interp(np.linspace(0, 1, _QUANTILES), total / total[-1], fine)


@njit
def _triggers(
    recipe: _Recipe,
    photons: PhotonTables,
    electrons: ElectronTables,
    key: np.uint64,
    first_event: int,
    codes: np.ndarray,
    counts: np.ndarray,
    branches: np.ndarray,
) -> int:
    stack = np.empty(64)
    place = np.empty(3)
    n = 0
    for k in range(counts.size):
        counter = event_counter(first_event + k)
        u = uniform(key, counter)
        counter += _ONE
        b = 0
        while u > recipe.cumulative[b]:
            b += 1
        branches[k] = b
        before = n
        depth = 0
        for j in range(recipe.first[b], recipe.first[b + 1]):
            e = recipe.energy[j]
            kind = recipe.kind[j]
            if kind == _GAMMA:
                if recipe.smear[j] > 0.0:
                    e += recipe.smear[j] * normal(key, counter)
                    counter += _ONE
                stack[depth] = e
                depth += 1
            elif kind == _ELECTRON:
                counter, depth, n = stop_electron(e, electrons, key, counter, stack, depth, codes, n)
            elif kind == _POSITRON:
                counter, depth, n = stop_positron(e, electrons, key, counter, stack, depth, codes, n)
            elif kind == _PAIR:
                share = e * uniform(key, counter)
                counter, depth, n = stop_electron(share, electrons, key, counter + _ONE, stack, depth, codes, n)
                counter, depth, n = stop_positron(e - share, electrons, key, counter, stack, depth, codes, n)
            else:
                q = uniform(key, counter) * (recipe.neutrons.shape[1] - 1)
                counter += _ONE
                i = int(q)
                row = int(e)
                low, high = recipe.neutrons[row, i], recipe.neutrons[row, i + 1]
                place[:] = 0.0
                # The light does not depend on the direction.
                counter, n = slow_down(low + (q - i) * (high - low), place, 0.0, 0.0, 1.0, key, counter, codes, n)
        counter, n = follow_gamma(photons, electrons, key, counter, stack, depth, codes, n)
        counts[k] = n - before
    return n

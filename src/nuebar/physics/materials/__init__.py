"""Frozen tables of materials: photon cross-sections and stopping powers, looked up between their grid points.

The tables lie beside this file as CSV; each says in its head where its numbers come from (NIST XCOM, ESTAR, PSTAR and
ASTAR) and what was done with them. ``scripts/make_materials.py`` writes them again.

Interpolation follows the physics: straight lines in the logarithms for everything but pair production, and for pairs
straight lines of ln[σ / (1 - E_th/E)³] against ln E, with E_th = 2m in the field of a nucleus and 4m in that of an
electron. The cube is the threshold law of pairs on nuclei in the Born approximation (L. Maximon, J. Res. Natl. Bur.
Stand. 72B, 79 (1968)), so that this function stays finite and flat where σ itself falls to zero. A look-up in the
tables of this package is within 4e-4 of a cubic interpolation of NIST's grids for photons and within 7e-5 for
stopping powers; in the first 3 % above a pair threshold, where σ is almost nothing, within 1e-2.

This module is numpy and reads files; compiled code takes arrays made from :meth:`PhotonTable.at`.
"""

import difflib
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.physics.constants import ELECTRON_MASS_MeV

__all__ = [
    "Material",
    "PhotonCrossSections",
    "PhotonTable",
    "StoppingPower",
    "StoppingTable",
    "available_materials",
    "load_material",
]

_FOLDER = Path(__file__).parent
_DENSITY = "density_g_cm3:"
_PAIR_THRESHOLD_MeV = {"pair_nuclear": 2 * ELECTRON_MASS_MeV, "pair_electron": 4 * ELECTRON_MASS_MeV}
# The columns of each file, in the order of the table's fields.
_PHOTONS = ("e_MeV", "coherent", "incoherent", "photo", "pair_nuclear", "pair_electron")
_STOPPING = {
    "electrons": ("t_MeV", "collision", "radiative"),
    "protons": ("t_MeV", "electronic", "nuclear"),
    "alphas": ("t_MeV", "electronic", "nuclear"),
}


class PhotonCrossSections(NamedTuple):
    """Cross-sections per mass in cm²/g, each of the shape asked for."""

    coherent: np.ndarray
    incoherent: np.ndarray
    photo: np.ndarray
    pair_nuclear: np.ndarray
    pair_electron: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Attenuation coefficient with coherent scattering, cm²/g."""
        return self.coherent + self.incoherent + self.photo + self.pair_nuclear + self.pair_electron


class StoppingPower(NamedTuple):
    """Energy loss per mass thickness in MeV cm²/g, each of the shape asked for.

    ``collision`` goes to atomic electrons (the "electronic" one of ions), ``other`` is radiative for electrons and
    nuclear for ions.
    """

    collision: np.ndarray
    other: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """All losses, MeV cm²/g."""
        return self.collision + self.other


@dataclass(frozen=True, eq=False)
class PhotonTable:
    """Photon cross-sections of a material on a grid; arrays are float64 and read-only, shape (n,).

    Attributes:
        e_MeV: Photon energies, rising; an energy given twice is an absorption edge, below and then above.
        coherent: Rayleigh scattering, cm²/g, positive.
        incoherent: Compton scattering with binding, cm²/g, positive.
        photo: Photo-electric absorption, cm²/g, positive.
        pair_nuclear: Pair production on nuclei, cm²/g; zero up to 2m and positive from some energy on.
        pair_electron: Pair production on electrons, cm²/g; the same above 4m.
        source: Where the table comes from, for error messages.
    """

    e_MeV: np.ndarray
    coherent: np.ndarray
    incoherent: np.ndarray
    photo: np.ndarray
    pair_nuclear: np.ndarray
    pair_electron: np.ndarray
    source: str = "photon table"

    def __post_init__(self) -> None:
        _freeze(self, _PHOTONS, self.source)
        for name in ("coherent", "incoherent", "photo"):
            _require(getattr(self, name) > 0, self.source, name, "expected a positive cross-section, got zero or less")
        for name, threshold in _PAIR_THRESHOLD_MeV.items():
            made = getattr(self, name) > 0
            message = f"expected zero at or below the threshold of {threshold:.4f} MeV; move it up"
            _require(~made | (self.e_MeV > threshold), self.source, name, message)
            message = "expected zeros up to the threshold and positive cross-sections above, got one less"
            _require(made == (np.arange(made.size) >= _first(made)), self.source, name, message)

    def at(self, e_MeV: ArrayLike) -> PhotonCrossSections:
        """The five cross-sections at any energies of the table.

        At an absorption edge the upper side counts. Between a threshold and the first positive value of a pair
        column the function in the square brackets above keeps its value there.

        Args:
            e_MeV: Photon energies, any shape.

        Returns:
            Cross-sections in cm²/g, in the order of the columns, each of the shape of ``e_MeV``.

        Raises:
            NuebarError: An energy is not a number or lies outside the table.
        """
        e = _inside(e_MeV, self.e_MeV, self.source)
        smooth = (_log_log(e, self.e_MeV, getattr(self, name)) for name in ("coherent", "incoherent", "photo"))
        pairs = (_pair(e, self.e_MeV, getattr(self, name), eth) for name, eth in _PAIR_THRESHOLD_MeV.items())
        return PhotonCrossSections(*smooth, *pairs)


@dataclass(frozen=True, eq=False)
class StoppingTable:
    """Stopping powers of a material on a grid; arrays are float64 and read-only, shape (n,).

    Attributes:
        t_MeV: Kinetic energies, rising.
        collision: Loss to atomic electrons, MeV cm²/g, positive ("electronic" for ions).
        other: Radiative loss of electrons, or nuclear loss of ions, MeV cm²/g; positive, or zero throughout.
        source: Where the table comes from, for error messages.
    """

    t_MeV: np.ndarray
    collision: np.ndarray
    other: np.ndarray
    source: str = "stopping table"

    def __post_init__(self) -> None:
        _freeze(self, ("t_MeV", "collision", "other"), self.source)
        _require(np.diff(self.t_MeV, prepend=0) > 0, self.source, "t_MeV", "expected energies that rise, got one twice")
        _require(self.collision > 0, self.source, "collision", "expected a positive stopping power, got zero or less")
        if self.other.any():
            _require(self.other > 0, self.source, "other", "expected zeros alone or positive values, got zero or less")

    def at(self, t_MeV: ArrayLike) -> StoppingPower:
        """Both stopping powers at any energies of the table.

        Args:
            t_MeV: Kinetic energies, any shape.

        Returns:
            Stopping powers in MeV cm²/g, each of the shape of ``t_MeV``.

        Raises:
            NuebarError: An energy is not a number or lies outside the table.
        """
        t = _inside(t_MeV, self.t_MeV, self.source)
        collision = _log_log(t, self.t_MeV, self.collision)
        return StoppingPower(collision, _log_log(t, self.t_MeV, self.other) if self.other.any() else np.zeros(t.shape))


@dataclass(frozen=True, eq=False)
class Material:
    """What particles meet in a material.

    Attributes:
        name: Its name.
        density_g_cm3: Density.
        photons: Photon cross-sections.
        electrons: Stopping power of electrons, if known.
        protons: Stopping power of protons, if known.
        alphas: Stopping power of alpha particles, if known.
    """

    name: str
    density_g_cm3: float
    photons: PhotonTable
    electrons: StoppingTable | None = None
    protons: StoppingTable | None = None
    alphas: StoppingTable | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.density_g_cm3) and self.density_g_cm3 > 0):
            raise NuebarError(
                f"{self.photons.source}: expected a positive density in g/cm³, got {self.density_g_cm3}; correct it"
            )


def available_materials() -> tuple[str, ...]:
    """Names that :func:`load_material` knows without a folder."""
    return tuple(sorted(path.name.removesuffix("_photons.csv") for path in _FOLDER.glob("*_photons.csv")))


def load_material(name: str | PathLike[str]) -> Material:
    """A material of this package by name, or a user's own from a folder.

    A folder holds ``photons.csv`` and, if known, ``electrons.csv``, ``protons.csv`` and ``alphas.csv``; any text and
    an underscore may stand before these names. The columns are those of this package's files: e_MeV, coherent,
    incoherent, photo, pair_nuclear, pair_electron for photons; t_MeV, collision, radiative for electrons; t_MeV,
    electronic, nuclear for ions. A comment ``# density_g_cm3: 0.859`` in the photon file gives the density.

    A material is read once per process: a file that changes afterwards is not seen.

    Args:
        name: One of :func:`available_materials`, or the path of a folder; a name of the package goes first.

    Returns:
        The material, the same object for the same name.

    Raises:
        NuebarError: The name is unknown, a file is missing, or its content is wrong (file, column and row are named).
    """
    text = fspath(name)
    if text in available_materials():
        return _load(_FOLDER, text)
    folder = Path(text)
    if folder.is_dir():
        return _load(folder.resolve(), None)
    known = available_materials()
    close = difflib.get_close_matches(text.lower(), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise NuebarError(
        f"material {text!r}: expected one of {', '.join(known)}, or a folder that holds photons.csv{hint}"
    )


@lru_cache(maxsize=32)
def _load(folder: Path, prefix: str | None) -> Material:
    photons = _find(folder, prefix, "photons")
    if photons is None:
        raise NuebarError(f"{folder}: expected photons.csv in the folder of a material, found none; add it")
    columns, density = _read(photons, _PHOTONS)
    if density is None:
        raise NuebarError(f"{photons}: expected a comment '# {_DENSITY} 0.859' with the density, got none; add it")
    stopping = {}
    for particle, names in _STOPPING.items():
        path = _find(folder, prefix, particle)
        if path is not None:
            (t, collision, other), _ = _read(path, names)
            stopping[particle] = StoppingTable(t, collision, other, str(path))
    e, coherent, incoherent, photo, nuclear, electron = columns
    table = PhotonTable(e, coherent, incoherent, photo, nuclear, electron, str(photons))
    return Material(prefix or folder.name, density, table, **stopping)


def _find(folder: Path, prefix: str | None, particle: str) -> Path | None:
    """The one file of a particle: with this prefix, or with any or none."""
    if prefix is not None:
        path = folder / f"{prefix}_{particle}.csv"
        return path if path.is_file() else None
    found = sorted([*folder.glob(f"{particle}.csv"), *folder.glob(f"*_{particle}.csv")])
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise NuebarError(f"{folder}: expected one file of {particle}, got {names}; remove all but one")
    return found[0] if found else None


def _read(path: Path, columns: tuple[str, ...]) -> tuple[list[np.ndarray], float | None]:
    """The columns by name, in the order asked for, and the density if a comment gives one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NuebarError(f"{path}: expected a readable UTF-8 text file, got {error}; check it") from error
    density, rows = None, []
    for number, line in enumerate(lines, 1):
        content, _, comment = line.partition("#")
        if comment.strip().startswith(_DENSITY):
            density = _number(comment.strip().removeprefix(_DENSITY), path, number, "density_g_cm3")
        if content.strip():
            rows.append((number, [cell.strip() for cell in content.split(",")]))
    header = rows[0][1] if rows else []
    if sorted(header) != sorted(columns):
        raise NuebarError(
            f"{path}: expected a header with the columns {', '.join(columns)}, got {', '.join(header) or 'nothing'}; "
            "name exactly these"
        )
    table = np.empty((len(rows) - 1, len(columns)))
    for i, (number, cells) in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise NuebarError(
                f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}; complete the row"
            )
        table[i] = [_number(cells[header.index(name)], path, number, name) for name in columns]
    return list(table.T), density


def _number(cell: str, path: Path, line: int, column: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise NuebarError(
            f"{path}, line {line}, column {column!r}: expected a number, got {cell.strip()!r}; correct it"
        ) from None


def _freeze(table: PhotonTable | StoppingTable, names: tuple[str, ...], source: str) -> None:
    """Copy the arrays to read-only float64 and check what every table must fulfil."""
    energy = names[0]
    for name in names:
        array = np.array(getattr(table, name), dtype=np.float64)
        array.setflags(write=False)
        object.__setattr__(table, name, array)
    grid = getattr(table, energy)
    if grid.ndim != 1 or grid.size < 2 or any(getattr(table, name).shape != grid.shape for name in names):
        shapes = ", ".join(f"{name} {getattr(table, name).shape}" for name in names)
        raise NuebarError(f"{source}: expected columns of one length, two rows or more, got {shapes}; complete them")
    for name in names:
        _require(np.isfinite(getattr(table, name)), source, name, "expected a finite number; correct it")
        _require(getattr(table, name) >= 0, source, name, "expected no negative number; correct it")
    step = np.diff(grid)
    _require(np.concatenate([grid[:1] > 0, step >= 0]), source, energy, "expected energies that rise from above zero")
    # An edge lies inside the table and has two sides.
    double = step == 0
    wrong = double & np.concatenate([[True], double[:-1]])
    wrong[-1] |= double[-1]
    message = "expected an energy at most twice, and at an edge inside the table; remove the row"
    _require(np.concatenate([[True], ~wrong]), source, energy, message)


def _require(good: np.ndarray, source: str, column: str, message: str) -> None:
    if not np.all(good):
        raise NuebarError(f"{source}, column {column!r}, row {int(np.argmin(good)) + 1} of the data: {message}")


def _first(flags: np.ndarray) -> int:
    """Index of the first True; the size if there is none."""
    return int(np.argmax(flags)) if flags.any() else flags.size


def _inside(values: ArrayLike, grid: np.ndarray, source: str) -> np.ndarray:
    energies = np.asarray(values, dtype=np.float64)
    good = (energies >= grid[0]) & (energies <= grid[-1])
    if not np.all(good):
        offender = energies[~good].flat[0]
        raise NuebarError(
            f"{source}: expected energies from {grid[0]:g} to {grid[-1]:g} MeV, got {offender:g}; "
            "clip it, or give a table that reaches so far"
        )
    return energies


def _log_log(x: np.ndarray, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
    i = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, grid.size - 2)
    fraction = np.log(x / grid[i]) / np.log(grid[i + 1] / grid[i])
    return values[i] * (values[i + 1] / values[i]) ** fraction


def _pair(e: np.ndarray, grid: np.ndarray, values: np.ndarray, threshold: float) -> np.ndarray:
    made = values > 0
    if not made.any():
        return np.zeros(e.shape)
    rest = np.log(values[made] / (1 - threshold / grid[made]) ** 3)
    return np.exp(np.interp(np.log(e), np.log(grid[made]), rest)) * np.maximum(1 - threshold / e, 0.0) ** 3

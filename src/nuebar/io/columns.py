"""Event columns: their names, types, units and physical ranges.

A column's unit is the last part of its name (``e_rec_MeV``, ``x_m``, ``t_ns``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["LARGEST_FLOAT", "LARGEST_INT", "UNITS", "Column", "known_column", "known_names"]

# Unit → (dimension, size in the dimension's first unit); exact, so that conversions are too.
UNITS: Mapping[str, tuple[str, Fraction]] = {
    **{name: ("energy", Fraction(10) ** p) for name, p in (("eV", 0), ("keV", 3), ("MeV", 6), ("GeV", 9), ("TeV", 12))},
    **{name: ("length", Fraction(10) ** p) for name, p in (("m", 0), ("um", -6), ("mm", -3), ("cm", -2), ("km", 3))},
    **{name: ("time", Fraction(10) ** p) for name, p in (("s", 0), ("ps", -12), ("ns", -9), ("us", -6), ("ms", -3))},
    **{name: ("time", Fraction(s)) for name, s in (("min", 60), ("h", 3600), ("d", 86400))},
}

LARGEST_FLOAT, LARGEST_INT = float(np.finfo(np.float64).max), 2**63 - 1


@dataclass(frozen=True)
class Column:
    """A column of an event table.

    Attributes:
        name: The name, which ends in the unit if there is one.
        kind: ``float`` (float32 or float64, as the file has it) or ``int`` (int64).
        unit: A key of :data:`UNITS`, or empty.
        low: Smallest value that is physically possible.
        high: Largest value that is physically possible.
        rising: Whether no row may be smaller than the one before it.
        typical: Where the median must lie (of a rising column: the mean step) for the unit to be believed of
            a file that does not state it; None for no such check.
        stored: Type in the files that we write.
    """

    name: str
    kind: str = "float"
    unit: str = ""
    low: float = -LARGEST_FLOAT
    high: float = LARGEST_FLOAT
    rising: bool = False
    typical: tuple[float, float] | None = None
    stored: str = "float32"


def _energy(typical: tuple[float, float] | None = None, stored: str = "float32") -> Column:
    # Atmospheric neutrinos and showering muons reach 100 GeV; a sentinel of -1 or -999 does not pass.
    return Column("", unit="MeV", low=0.0, high=1e5, typical=typical, stored=stored)


def _whole(**changes: Any) -> Column:
    return Column("", "int", low=0, high=LARGEST_INT, stored="int64", **changes)


_SIZE = Column("", unit="m", low=-100.0, high=100.0)
# By the name without the prefixes true_, prompt_ and delayed_. Reactor and radioactive events have a median
# between that of 14C (0.05 MeV) and of muons; nobody triggers at more than 10 MHz.
_KNOWN: Mapping[str, Column] = {
    "t_ns": _whole(unit="ns", rising=True, typical=(100.0, LARGEST_FLOAT)),
    "e_rec_MeV": _energy((0.02, 100.0)),
    "e_vis_MeV": _energy((0.02, 100.0)),
    "e_nu_MeV": _energy((0.1, 1e4), "float64"),
    "e_dep_MeV": _energy(),
    "n_pe": Column("", low=0.0, high=1e9),
    "x_m": _SIZE,
    "y_m": _SIZE,
    "z_m": _SIZE,
    "r_m": dataclasses.replace(_SIZE, low=0.0),
    "weight": Column("", low=0.0, stored="float64"),
    # No two places on Earth are further apart than its diameter of 12 756 km.
    "baseline_km": Column("", unit="km", low=0.0, high=12756.0, stored="float64"),
    **{name: _whole() for name in ("kind", "pair", "event", "chunk", "core")},
}
_PREFIXES = ("true_", "prompt_", "delayed_")
# A vertex may be reconstructed somewhat outside of the detector.
_OUTSIDE = 1.2


def known_column(name: str, *, radius_m: float | None = None) -> Column:
    """The type, unit and range that go with a name.

    A name that is not known is a floating column whose unit is the last part of the name, if that is a unit.

    Args:
        name: Such as ``e_rec_MeV``, ``true_e_nu_MeV``, ``prompt_x_m``.
        radius_m: Radius of the detector, which bounds vertex coordinates (1.2 times it); 100 m without.
    """
    base = name
    while prefix := next((p for p in _PREFIXES if base.startswith(p)), ""):
        base = base.removeprefix(prefix)
    if base not in _KNOWN:
        unit = name.rpartition("_")[2]
        return Column(name, unit=unit if unit in UNITS and unit != name else "")
    column = dataclasses.replace(_KNOWN[base], name=name)
    if base != name:  # only the time of the row itself orders a stream
        column = dataclasses.replace(column, rising=False, typical=None)
    if radius_m is not None and base in ("x_m", "y_m", "z_m", "r_m"):
        limit = _OUTSIDE * radius_m
        column = dataclasses.replace(column, low=0.0 if base == "r_m" else -limit, high=limit)
    return column


def known_names() -> tuple[str, ...]:
    """Names whose type and range are known, without prefixes."""
    return tuple(_KNOWN)

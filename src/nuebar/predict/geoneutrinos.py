"""Geoneutrinos as two backgrounds with free rates, and their rates in TNU.

An experiment that has one background ``geoneutrinos`` with a fixed mixture of uranium and thorium becomes one with
``geoneutrinos_U`` and ``geoneutrinos_Th``. Rates of a file are those that the detector sees, after oscillation: sources
lie at so many distances that the survival probability is the same 0.55 at every energy
(:func:`nuebar.physics.oscillation.averaged`), which a rate in TNU contains and a shape does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nuebar.config import Background, Experiment
from nuebar.errors import NuebarError
from nuebar.physics.constants import DAYS_PER_YEAR

__all__ = [
    "GEONEUTRINOS",
    "SIGNAL_PER_MASS_RATIO",
    "TH",
    "TH_U_CHONDRITES",
    "U",
    "split_geoneutrinos",
    "split_if_named",
    "tnu_per_event_per_day",
]

GEONEUTRINOS, U, TH = "geoneutrinos", "geoneutrinos_U", "geoneutrinos_Th"

TH_U_CHONDRITES = 3.9
"""Mass ratio Th/U of chondritic meteorites (nominal; W. F. McDonough and S.-s. Sun, Chem. Geol. 120, 223 (1995))."""

SIGNAL_PER_MASS_RATIO = 0.069
"""Rate of thorium over that of uranium events for equal masses at one place (nominal; Borexino, PRD 101, 012009)."""


def tnu_per_event_per_day(experiment: Experiment) -> float:
    """TNU of one selected event a day: interactions in 10³² free protons and a year at full efficiency."""
    target = experiment.target
    return DAYS_PER_YEAR / (target.free_protons / 1e32 * target.efficiency)


def split_geoneutrinos(
    experiment: Experiment, *, mass_ratio: float | None = None, rate_tnu: float | None = None
) -> Experiment:
    """The experiment with uranium and thorium as two backgrounds, their rates free and without priors.

    Args:
        experiment: With one background ``geoneutrinos``, or with both already.
        mass_ratio: True Th/U by mass, which sets the ratio of the rates; that of the file by default.
        rate_tnu: True sum in TNU; the rate of the file by default.

    Raises:
        NuebarError: The experiment has no such background, its mixture is not of uranium and thorium, or a number is
            not above 0.
    """
    for name, number in (("mass ratio Th/U", mass_ratio), ("geoneutrino rate in TNU", rate_tnu)):
        if number is not None and not (np.isfinite(number) and 0 < number < 1e6):
            raise NuebarError(f"{name}: expected a number above 0, got {number}; correct it")
    by_name = {b.name: b for b in experiment.backgrounds}
    if U in by_name and TH in by_name:
        parts: tuple[Background, ...] = (by_name[U], by_name[TH])
        rates = [b.rate_per_day for b in parts]
    elif GEONEUTRINOS in by_name:
        whole = by_name[GEONEUTRINOS]
        shares = _shares(experiment, whole)
        rates = [s * whole.rate_per_day for s in shares]
        parts = tuple(replace(whole, name=n, shape=n, rate_per_day=r) for n, r in zip((U, TH), rates, strict=True))
    else:
        raise NuebarError(
            f"{experiment.source or experiment.name}: expected a background {GEONEUTRINOS!r} to split, got "
            f"{', '.join(by_name) or 'none'}; add it"
        )
    total = sum(rates) if rate_tnu is None else rate_tnu / tnu_per_event_per_day(experiment)
    ratio = rates[1] / rates[0] if mass_ratio is None else SIGNAL_PER_MASS_RATIO * mass_ratio
    wanted = (total / (1.0 + ratio), total * ratio / (1.0 + ratio))
    new = [replace(b, rate_per_day=r, rate_sigma=0.0, rate_free=True) for b, r in zip(parts, wanted, strict=True)]
    return replace(experiment, backgrounds=_inserted(experiment.backgrounds, new))


def split_if_named(experiment: Experiment, free: Sequence[str]) -> Experiment:
    """:func:`split_geoneutrinos` where parameters to free name one of the two and the experiment has their sum."""
    named = {f"bkg_{U}", f"bkg_{TH}"} & set(free)
    if not named or not any(b.name == GEONEUTRINOS for b in experiment.backgrounds):
        return experiment
    return split_geoneutrinos(experiment)


def _shares(experiment: Experiment, background: Background) -> tuple[float, float]:
    """Parts of uranium and thorium of the mixture."""
    shape = background.shape
    if not isinstance(shape, dict) or set(shape) != {U, TH} or not (shape[U] > 0 and shape[TH] > 0):
        raise NuebarError(
            f"{experiment.source or experiment.name}: key 'backgrounds.{GEONEUTRINOS}.shape': expected weights of {U} "
            f"and {TH} to split, got {shape!r}; give two backgrounds of these names instead"
        )
    total = shape[U] + shape[TH]
    return shape[U] / total, shape[TH] / total


def _inserted(backgrounds: Sequence[Background], new: Sequence[Background]) -> tuple[Background, ...]:
    """The two where the sum or the first of them was."""
    gone = (GEONEUTRINOS, U, TH)
    at = next(k for k, b in enumerate(backgrounds) if b.name in gone)
    rest = [b for b in backgrounds if b.name not in gone]
    return (*rest[:at], *new, *rest[at:])

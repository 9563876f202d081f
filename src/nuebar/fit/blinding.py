"""Blinding: a hidden, reproducible offset on the parameters of interest until somebody says ``--unblind``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nuebar.fit.result import FitResult

__all__ = ["blinded", "offsets"]

WIDTH = 3.0  # offsets are uniform within ± this many standard errors


def offsets(names: Sequence[str], errors: Sequence[float], *, seed: int, experiment: str) -> dict[str, float]:
    """Offsets that depend only on the seed, the experiment and the name of each parameter.

    The same seed hides every later fit of that experiment by the same amount in units of the error that is
    given here, so that blinded results can be compared with each other.

    Args:
        names: Parameters to hide.
        errors: A scale for each: its standard error, rounded to one digit so that it does not tell.
        seed: The integer seed.
        experiment: Name of the experiment.

    Returns:
        Name → offset in the parameter's unit.
    """
    out = {}
    for name, error in zip(names, errors, strict=True):
        digest = hashlib.sha256(f"{seed}/{experiment}/{name}".encode()).digest()
        unit = int.from_bytes(digest[:8], "big") / 2.0**64
        out[name] = WIDTH * (2.0 * unit - 1.0) * float(np.format_float_scientific(error, precision=0))
    return out


def blinded(result: FitResult, shift: dict[str, float]) -> FitResult:
    """The result with offsets added, derived splittings recomputed, and the mark set."""
    moved = replace(result.shifted(shift), blinded=True)
    v = moved.values()
    derived = {
        "dm2_32_eV2": v["dm2_31_eV2"] - v["dm2_21_eV2"],
        "dm2_ee_eV2": v["dm2_31_eV2"] - v["sin2_th12"] * v["dm2_21_eV2"],
    }
    return replace(moved, derived={n: (derived[n], e) for n, (_, e) in result.derived.items() if n in derived})

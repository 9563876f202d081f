"""The ten published features of a prompt-delayed pair, with units and ranges.

They are those of arXiv:2406.12901: the cube of the radius (in which a uniform density is flat), the direction and the
energy of both events, and their distance in space and in time::

    matrix = features_of(pairs)  # (n, 10), float32
    far = column(matrix, "dr_m") > 1.5
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["FEATURES", "FEATURE_RECORDS", "PAIR_COLUMNS", "Feature", "column", "features_of"]

_PI = float(np.float32(math.pi))  # what the largest azimuth rounds to


@dataclass(frozen=True)
class Feature:
    """A column of the feature matrix.

    Attributes:
        name: The name, which ends in the unit if there is one.
        unit: The unit, or empty.
        low: Smallest value that can be.
        high: Largest value that can be.
        meaning: In one line.
    """

    name: str
    unit: str
    low: float
    high: float
    meaning: str


FEATURE_RECORDS: tuple[Feature, ...] = (
    Feature("r3_prompt_m3", "m3", 0.0, math.inf, "cube of the prompt event's distance from the centre"),
    Feature("r3_delayed_m3", "m3", 0.0, math.inf, "cube of the delayed event's distance from the centre"),
    Feature("dr_m", "m", 0.0, math.inf, "distance between the two vertices"),
    Feature("dt_us", "us", 0.0, math.inf, "time from the prompt to the delayed event"),
    Feature("e_prompt_MeV", "MeV", 0.0, math.inf, "reconstructed energy of the prompt event"),
    Feature("e_delayed_MeV", "MeV", 0.0, math.inf, "reconstructed energy of the delayed event"),
    Feature("cos_theta_prompt", "", -1.0, 1.0, "z/R of the prompt event, 0 at the centre"),
    Feature("cos_theta_delayed", "", -1.0, 1.0, "z/R of the delayed event, 0 at the centre"),
    Feature("phi_prompt", "rad", -_PI, _PI, "azimuth atan2(y, x) of the prompt event, 0 on the axis"),
    Feature("phi_delayed", "rad", -_PI, _PI, "azimuth atan2(y, x) of the delayed event, 0 on the axis"),
)
FEATURES: tuple[str, ...] = tuple(record.name for record in FEATURE_RECORDS)
"""Names of the features, in the order of the matrix."""

_EVENT = ("e_rec_MeV", "x_m", "y_m", "z_m")
PAIR_COLUMNS: tuple[str, ...] = (*(f"{part}_{name}" for part in ("prompt", "delayed") for name in _EVENT), "dt_ns")
"""Columns that the features are made of."""


def features_of(pairs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The feature matrix of pairs.

    Args:
        pairs: Columns :data:`PAIR_COLUMNS` of one length; others are ignored.

    Returns:
        float32, shape ``(n, 10)``, rows contiguous, columns in the order of :data:`FEATURES`. Computed in float64
        and rounded once.

    Raises:
        NuebarError: A column is missing, of another length, or holds a value that is not finite, a negative energy
            or a negative time.
    """
    columns = _columns(pairs)
    out = np.empty((columns["dt_ns"].size, len(FEATURES)), np.float32)
    position = {}
    with np.errstate(all="ignore"):  # what is not finite is refused below
        for k, part in enumerate(("prompt", "delayed")):
            x, y, z = position[part] = [columns[f"{part}_{axis}_m"].astype(np.float64) for axis in "xyz"]
            r = np.sqrt(x * x + y * y + z * z)
            out[:, k] = r * r * r
            out[:, 4 + k] = columns[f"{part}_e_rec_MeV"]
            out[:, 6 + k] = np.divide(z, r, out=np.zeros_like(r), where=r > 0)
            out[:, 8 + k] = np.arctan2(y + 0.0, x + 0.0)  # -0 becomes 0: one azimuth for one place
            del r
        distance = sum((p - d) ** 2 for p, d in zip(position["prompt"], position["delayed"], strict=True))
        out[:, 2] = np.sqrt(distance)
        out[:, 3] = columns["dt_ns"].astype(np.float64) * 1e-3
    if not np.isfinite(out).all() or (out[:, 3:6] < 0).any():
        _refuse(columns, out)
    return out


def column(features: np.ndarray, name: str) -> np.ndarray:
    """One feature of a matrix.

    Args:
        features: From :func:`features_of`, shape ``(n, 10)``.
        name: One of :data:`FEATURES`.

    Returns:
        A view, shape ``(n,)``.

    Raises:
        NuebarError: The name is not known or the matrix has another shape.
    """
    if name not in FEATURES:
        close = difflib.get_close_matches(name, FEATURES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(FEATURES)}"
        raise NuebarError(f"unknown feature {name!r}; {hint}")
    if np.ndim(features) != 2 or features.shape[1] != len(FEATURES):
        raise NuebarError(
            f"features: expected a matrix of shape (n, {len(FEATURES)}), got {np.shape(features)}; use features_of"
        )
    return features[:, FEATURES.index(name)]


def _columns(pairs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns as arrays of one length."""
    columns = {}
    for name in PAIR_COLUMNS:
        if name not in pairs:
            close = difflib.get_close_matches(name, pairs, n=1)
            hint = f"is it {close[0]!r}?" if close else "name it in a column map"
            raise NuebarError(f"pairs: missing column {name!r}; {hint}")
        values = np.asarray(pairs[name])
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise NuebarError(
                f"pairs, column {name!r}: expected one number a pair, got {values.dtype} of shape {values.shape}; "
                "convert it"
            )
        columns[name] = values
    first = columns[PAIR_COLUMNS[0]].size
    for name, values in columns.items():
        if values.size != first:
            raise NuebarError(
                f"pairs, column {name!r}: expected {first} rows, as in {PAIR_COLUMNS[0]!r}, got {values.size}; "
                "give columns of one length"
            )
    return columns


def _refuse(columns: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Say which value of which row is wrong, the first one in order of rows."""
    wrong = []
    for name, values in columns.items():
        bad = ~np.isfinite(values)
        expected = "a finite number"
        if name == "dt_ns" or name.endswith("_e_rec_MeV"):
            expected += ", not below 0"
            bad |= values < 0
        if bad.any():
            wrong.append((int(bad.argmax()), name, expected))
    if wrong:
        row, name, expected = min(wrong)
        advice = "order each pair in time" if name == "dt_ns" else "leave the pair out"
        raise NuebarError(
            f"pairs, column {name!r}, row {row}: expected {expected}, got {float(columns[name][row])!r}; {advice}"
        )
    row, k = (int(i) for i in np.argwhere(~np.isfinite(out))[0])
    raise NuebarError(f"pairs, row {row}: {FEATURES[k]} is too large for float32; check the units")

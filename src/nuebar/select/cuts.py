"""The published box cuts: rows with names, and a classifier made of all of them.

Cuts and numbers: the benchmark selection of the talk on arXiv:2406.12901, after arXiv:2204.13249.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.classifier import checked_features
from nuebar.select.config import FIDUCIAL_ON, SelectionConfig
from nuebar.select.features import column

__all__ = ["DELAYED", "DISTANCE", "FIDUCIAL", "PROMPT", "ROWS", "TIME", "BoxCuts", "inside"]

FIDUCIAL = "fiducial volume"
PROMPT = "prompt energy"
DELAYED = "delayed energy"
TIME = "time"
DISTANCE = "distance"
ROWS = (FIDUCIAL, PROMPT, DELAYED, TIME, DISTANCE)
"""Names of the cuts in the order of the cut-flow table."""


@dataclass(frozen=True, kw_only=True)
class BoxCuts:
    """Five cuts, each of which may be ``None``: not applied. All windows are open intervals.

    Attributes:
        fiducial_radius_m: The radius of a vertex is below it.
        fiducial_on: Of which vertex: ``"prompt"`` or ``"both"``.
        prompt_MeV: Window of the prompt energy.
        delayed_MeV: Windows of the delayed energy; one of them holds it.
        dt_ms: The time between prompt and delayed event is below it.
        dr_m: The distance of the vertices is below it.
        name: What tables call it.
    """

    fiducial_radius_m: float | None = None
    fiducial_on: str = "prompt"
    prompt_MeV: tuple[float, ...] | None = None
    delayed_MeV: tuple[tuple[float, ...], ...] | None = None
    dt_ms: float | None = None
    dr_m: float | None = None
    name: str = "cuts"

    def __post_init__(self) -> None:
        """Refuse an unknown vertex."""
        if self.fiducial_on not in FIDUCIAL_ON:
            raise NuebarError(f"fiducial_on: expected one of {', '.join(FIDUCIAL_ON)}, got {self.fiducial_on!r}")

    @classmethod
    def of(cls, config: SelectionConfig) -> BoxCuts:
        """The cuts of a selection file."""
        cuts = config.cuts
        return cls(
            fiducial_radius_m=config.detector.fiducial_radius_m,
            fiducial_on=cuts.fiducial_on,
            prompt_MeV=cuts.prompt_MeV,
            delayed_MeV=cuts.delayed_MeV,
            dt_ms=cuts.dt_ms,
            dr_m=cuts.dr_m,
        )

    def without(self, *rows: str) -> BoxCuts:
        """The same cuts but those of some rows.

        Args:
            *rows: Names of :data:`ROWS`.

        Raises:
            NuebarError: An unknown name.
        """
        fields = dict(zip(ROWS, ("fiducial_radius_m", "prompt_MeV", "delayed_MeV", "dt_ms", "dr_m"), strict=True))
        unknown = [row for row in rows if row not in fields]
        if unknown:
            raise NuebarError(f"cuts: expected rows of {', '.join(ROWS)}, got {unknown[0]!r}")
        return replace(self, **{fields[row]: None for row in rows})  # type: ignore[arg-type]

    def rows(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """What each cut alone keeps: the cuts that are applied, in the order of :data:`ROWS`.

        Args:
            features: Float32, shape ``(n, 10)``.

        Returns:
            Name → booleans of shape ``(n,)``.
        """
        features = checked_features(features)
        rows = {}
        if self.fiducial_radius_m is not None:
            rows[FIDUCIAL] = inside(features, self.fiducial_radius_m, self.fiducial_on)
        if self.prompt_MeV is not None:
            rows[PROMPT] = _within(column(features, "e_prompt_MeV"), self.prompt_MeV)
        if self.delayed_MeV is not None:
            energy = column(features, "e_delayed_MeV")
            rows[DELAYED] = np.any([_within(energy, window) for window in self.delayed_MeV], axis=0)
        if self.dt_ms is not None:
            rows[TIME] = column(features, "dt_us") < 1e3 * self.dt_ms
        if self.dr_m is not None:
            rows[DISTANCE] = column(features, "dr_m") < self.dr_m
        return rows

    def passes(self, features: np.ndarray) -> np.ndarray:
        """Whether a pair passes all cuts, shape ``(n,)``."""
        kept = np.ones(len(features), bool)
        for row in self.rows(features).values():
            kept &= row
        return kept

    def score(self, features: np.ndarray) -> np.ndarray:
        """+∞ for a pair that passes, −∞ for another."""
        return np.where(self.passes(features), np.inf, -np.inf)


def inside(features: np.ndarray, radius_m: float, on: str) -> np.ndarray:
    """Whether the vertex of the prompt event, or of both, is within a radius.

    Args:
        features: Float32, shape ``(n, 10)``.
        radius_m: The radius.
        on: ``"prompt"`` or ``"both"``.
    """
    kept = column(features, "r3_prompt_m3") < radius_m**3
    return kept & (column(features, "r3_delayed_m3") < radius_m**3) if on == "both" else kept


def _within(values: np.ndarray, window: tuple[float, ...]) -> np.ndarray:
    low, high = window
    return (values > low) & (values < high)

"""Rates of singles by material, and the accidental pairs that cuts leave: what a detector's table comes to.

Pairs of unrelated singles within a time T come at a rate R_p R_d T. The chance that two vertices at radii r and s from
the centre are closer than d is (1 - c)/2 with c = (r² + s² - d²)/(2 r s), cut to ±1: directions are independent and
isotropic, so only radii are drawn. A map of the light that depends on the direction breaks this by much less than
the statistical error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import SinglesLight, singles_events

__all__ = ["Accidentals", "MaterialRates", "PairCuts", "accidental_rate", "close_chance", "singles_table"]

_DAY_s = 86400.0
_CHUNK = 2_000_000


@dataclass(frozen=True)
class PairCuts:
    """Cuts on pairs: the set of the interpretable-selection paper (arXiv:2406.12901, nominal) by default.

    Attributes:
        prompt_MeV: Window of the prompt energy.
        delayed_MeV: Windows of the delayed energy: capture on hydrogen, on carbon.
        time_s: Longest time between the two.
        distance_m: Longest distance between the two vertices.
    """

    prompt_MeV: tuple[float, float] = (0.7, 12.0)
    delayed_MeV: tuple[tuple[float, float], ...] = ((1.9, 2.5), (4.4, 5.5))
    time_s: float = 1e-3
    distance_m: float = 1.5


@dataclass(frozen=True)
class MaterialRates:
    """Reconstructed rates of one material, or of all: name ``"total"``.

    Attributes:
        name: The material.
        generated_Hz: Cascades a second.
        rate_Hz: Above ``singles_threshold_MeV``, in the whole scintillator.
        fiducial_true_Hz: Of these, with the light's true place inside the fiducial radius.
        fiducial_Hz: Of these, with the reconstructed vertex inside it.
        fiducial_error_Hz: Statistical error of ``fiducial_Hz``, without that of the pool.
        prompt_Hz: In the prompt window and the fiducial volume.
        delayed_Hz: In each delayed window and the fiducial volume.
    """

    name: str
    generated_Hz: float
    rate_Hz: float
    fiducial_true_Hz: float
    fiducial_Hz: float
    fiducial_error_Hz: float
    prompt_Hz: float
    delayed_Hz: tuple[float, ...]

    @property
    def fiducial_share(self) -> float:
        """Share of ``rate_Hz`` that is reconstructed inside the fiducial volume."""
        return self.fiducial_Hz / self.rate_Hz


@dataclass(frozen=True)
class Accidentals:
    """Pairs of unrelated singles.

    Attributes:
        prompt_Hz: Rate of prompt candidates.
        delayed_Hz: Rate of delayed candidates.
        close: Chance that the two are closer than the cut.
        per_day: Pairs that pass all cuts, without dead time.
    """

    prompt_Hz: float
    delayed_Hz: float
    close: float
    per_day: float


def singles_table(
    light: SinglesLight,
    model: DetectorModel,
    rates_Hz: Mapping[str, float],
    *,
    events: int = 4_000_000,
    seed: int = 0,
    cuts: PairCuts | None = None,
) -> tuple[MaterialRates, ...]:
    """Rates of every material and their sum.

    Args:
        light: Pools with their light.
        model: The detector at the same parameter point.
        rates_Hz: Material → cascades a second, see :func:`nuebar.simulate.singles.generated_rates_Hz`.
        events: How many are drawn.
        seed: Seed of the draw.
        cuts: Windows of the prompt and delayed rates.

    Returns:
        One row for each material, then ``"total"``.
    """
    cuts = cuts or PairCuts()
    names = light.materials
    detector = model.detector
    drawn = np.zeros((len(names), 4 + len(cuts.delayed_MeV)))
    for e, radius, true_radius, material in _chunks(light, model, rates_Hz, events, seed):
        above, inside = e > detector.singles_threshold_MeV, radius < detector.fiducial_radius_m
        chosen = [above, above & (true_radius < detector.fiducial_radius_m), above & inside]
        chosen += [inside & (e > low) & (e < high) for low, high in (cuts.prompt_MeV, *cuts.delayed_MeV)]
        drawn += np.array([np.bincount(material[c], minlength=len(names)) for c in chosen]).T
    rates = np.array([float(rates_Hz.get(name, 0.0)) for name in names])
    per_event = rates.sum() / events
    counts = np.vstack([drawn, drawn.sum(axis=0)]) * per_event
    errors = np.sqrt(np.append(drawn[:, 2], drawn[:, 2].sum())) * per_event
    rows = zip((*names, "total"), (*rates, rates.sum()), counts.tolist(), errors, strict=True)
    return tuple(
        MaterialRates(name, float(rate), row[0], row[1], row[2], float(error), row[3], tuple(row[4:]))
        for name, rate, row, error in rows
    )


def accidental_rate(
    light: SinglesLight,
    model: DetectorModel,
    rates_Hz: Mapping[str, float],
    *,
    fiducial_radius_m: float | None = None,
    events: int = 4_000_000,
    pairs: int = 1_000_000,
    seed: int = 0,
    cuts: PairCuts | None = None,
) -> Accidentals:
    """Expected accidental pairs a day, from unrelated singles.

    Args:
        light: Pools with their light.
        model: The detector at the same parameter point.
        rates_Hz: Material → cascades a second.
        fiducial_radius_m: Radius that both vertices must be inside; that of the detector by default.
        events: How many singles are drawn.
        pairs: How many pairs of radii are averaged.
        seed: Seed of the draw.
        cuts: The cuts.

    Raises:
        NuebarError: Nothing passes the cut on one of the two.
    """
    cuts = cuts or PairCuts()
    limit = model.detector.fiducial_radius_m if fiducial_radius_m is None else fiducial_radius_m
    prompt, delayed = [], []
    for e, radius, _, _ in _chunks(light, model, rates_Hz, events, seed):
        inside = radius < limit
        low, high = cuts.prompt_MeV
        prompt.append(radius[inside & (e > low) & (e < high)])
        windows = np.any([(e > low) & (e < high) for low, high in cuts.delayed_MeV], axis=0)
        delayed.append(radius[inside & windows])
    r_p, r_d = np.concatenate(prompt).astype(float), np.concatenate(delayed).astype(float)
    if not (r_p.size and r_d.size):
        raise NuebarError(f"cuts: expected singles in the prompt and delayed windows, got {r_p.size} and {r_d.size}")
    rng = np.random.Generator(np.random.Philox(int(derive_key(seed, "accidental pairs"))))
    r, s = r_p[rng.integers(r_p.size, size=pairs)], r_d[rng.integers(r_d.size, size=pairs)]
    close = float(np.mean(close_chance(r, s, cuts.distance_m)))
    per_event = sum(float(rates_Hz.get(name, 0.0)) for name in light.materials) / events
    prompt_Hz, delayed_Hz = r_p.size * per_event, r_d.size * per_event
    return Accidentals(prompt_Hz, delayed_Hz, close, prompt_Hz * delayed_Hz * cuts.time_s * close * _DAY_s)


def close_chance(r_m: np.ndarray, s_m: np.ndarray, distance_m: float) -> np.ndarray:
    """Chance that two places at radii ``r_m`` and ``s_m``, in independent directions, are closer than a distance."""
    cosine = (r_m * r_m + s_m * s_m - distance_m**2) / np.maximum(2 * r_m * s_m, 1e-12)
    return 0.5 * (1.0 - np.clip(cosine, -1.0, 1.0))


def _chunks(
    light: SinglesLight, model: DetectorModel, rates_Hz: Mapping[str, float], events: int, seed: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Energy, reconstructed and true radius, and material of singles."""
    for chunk, first in enumerate(range(0, events, _CHUNK)):
        key = derive_key(seed, "singles table", chunk)
        e = singles_events(light, model, rates_Hz, key, n=min(_CHUNK, events - first))
        radius, true_radius = (
            np.sqrt(sum(np.square(e[f"{kind}{axis}_m"]) for axis in "xyz")) for kind in ("", "true_")
        )
        yield e["e_rec_MeV"], radius, true_radius, e["true_material"]

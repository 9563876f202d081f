"""Accidental pairs that look like signal, with their weights: what a background of 1e-8 of the pairs is made of.

Accidentals factorise: two independent singles f(E, R) in directions that do not know each other, at an even time
difference. So one may pair singles of close radius, turn the delayed one towards the prompt one, and shorten the time
between them, and knows the density of what was done. With a share a of such pairs, the density of the mixture over that
of accidentals is

    q/p = (1 - a) + a k(u_d | u_p) k(t | R_p, R_d) k(Δt),

with the rank u of a radius among singles (even from 0 to 1 for accidentals), t = (ΔR² - (R_p - R_d)²) / (4 R_p R_d)
(even for directions that do not know each other), and

    k(u_d | u_p) ∝ 1/(|u_d - u_p| + ε),  k(t) ∝ 1/(t + s₀/(4 R_p R_d)),  k(Δt) ∝ exp(-Δt/τ).

A pair counts p/q < 1/(1 - a), so no pair is overrated (a defensive mixture: T. Hesterberg, Technometrics 37, 185
(1995)). Training: a network that is asked for ln(signal/q) + ln(q/p) learns ln(signal/p), also where p has no pairs.
Counting: the background above a threshold is the mean of p/q there.

The direction of a single is taken as independent of its energy: the light maps, in which directions differ, leave some
per mille of the energy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.features import FEATURES

__all__ = ["NearPairs", "Singles", "mixed", "near_pairs"]

_KNOTS = 4097
_R3P, _R3D, _DR, _DT, _EP, _ED, _CP, _CD, _PP, _PD = range(len(FEATURES))


@dataclass(frozen=True, eq=False)
class NearPairs:
    """How close pairs are made.

    Attributes:
        r3_m3: R³ of singles at even ranks from 0 to 1, increasing.
        window_us: Largest time difference.
        share: a, the share of them in the mixture.
        rank: ε.
        area_m2: s₀.
        tau_us: τ; any number near the capture time will do.
    """

    r3_m3: np.ndarray
    window_us: float
    share: float = 0.5
    rank: float = 1e-3
    area_m2: float = 0.09
    tau_us: float = 220.0

    @classmethod
    def of(cls, accidentals: np.ndarray, window_us: float, **options: float) -> NearPairs:
        """From features of accidentals, whose events are all singles.

        Args:
            accidentals: Shape ``(n, 10)``.
            window_us: Largest time difference.
            **options: Other attributes.

        Raises:
            NuebarError: There are too few pairs.
        """
        r3 = np.sort(np.concatenate([accidentals[:, _R3P], accidentals[:, _R3D]]).astype(np.float64))
        if r3.size < 100:
            raise NuebarError(f"close pairs: expected at least 50 accidental pairs, got {len(accidentals)}")
        knots = np.quantile(r3, np.linspace(0.0, 1.0, min(_KNOTS, r3.size)))
        knots = np.maximum.accumulate(knots + 1e-9 * np.arange(knots.size))
        return cls(knots, float(window_us), **options)

    def told(self) -> dict[str, Any]:
        """Its numbers as JSON keeps them, but for the table."""
        return {k: v for k, v in asdict(self).items() if k != "r3_m3"}

    def rank_of(self, r3_m3: np.ndarray) -> np.ndarray:
        """Share of singles that are further in."""
        return np.interp(r3_m3, self.r3_m3, np.linspace(0.0, 1.0, self.r3_m3.size))

    def log_ratio(self, features: np.ndarray) -> np.ndarray:
        """ln(q/p) of pairs of any kind.

        Args:
            features: Shape ``(n, 10)``.

        Returns:
            float64, shape ``(n,)``.
        """
        if self.share == 0.0:
            return np.zeros(len(features))
        x = np.asarray(features, np.float64)
        u, v = self.rank_of(x[:, _R3P]), self.rank_of(x[:, _R3D])
        k = 1.0 / ((np.abs(v - u) + self.rank) * (self._log(u) + self._log(1.0 - u)))
        r, s = np.cbrt(x[:, _R3P]), np.cbrt(x[:, _R3D])
        span, soft = self._span(r, s)
        t = np.clip((x[:, _DR] ** 2 - (r - s) ** 2) / span, 0.0, 1.0)
        k *= 1.0 / ((t + soft) * np.log1p(1.0 / soft))
        norm = self.tau_us * -np.expm1(-self.window_us / self.tau_us) / self.window_us
        k *= np.exp(-x[:, _DT] / self.tau_us) / norm
        return np.log((1.0 - self.share) + self.share * k)

    def _log(self, u: np.ndarray) -> np.ndarray:
        return np.log1p(u / self.rank)

    def _span(self, r: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        span = np.maximum(4.0 * r * s, 1e-6)
        return span, self.area_m2 / span


class Singles:
    """Singles in the order of their radius, from the delayed events of accidentals.

    Args:
        accidentals: Features, shape ``(n, 10)``.
    """

    def __init__(self, accidentals: np.ndarray) -> None:
        order = np.argsort(accidentals[:, _R3D], kind="stable")
        self.r3_m3 = np.ascontiguousarray(accidentals[order, _R3D], np.float64)
        self.e_MeV = np.ascontiguousarray(accidentals[order, _ED], np.float64)

    def __len__(self) -> int:
        """How many."""
        return self.r3_m3.size


def near_pairs(how: NearPairs, prompts: np.ndarray, singles: Singles, rng: np.random.Generator) -> np.ndarray:
    """Close pairs: each prompt event with a single of the reserve.

    Args:
        how: Settings.
        prompts: Features of accidentals whose prompt events are taken, shape ``(n, 10)``.
        singles: Delayed events to choose from, a sample independent of these prompts.
        rng: Of the draws.

    Returns:
        Features of ``n`` pairs drawn from k alone, float32; mix them with ordinary ones in the share of ``how``.
    """
    n, x = len(prompts), np.asarray(prompts, np.float64)
    draws = rng.random((5, n))
    u = how.rank_of(x[:, _R3P])
    below, above = how._log(u), how._log(1.0 - u)
    place = draws[0] * (below + above)
    down = place < below
    v = np.where(down, u - how.rank * np.expm1(place), u + how.rank * np.expm1(place - below))
    chosen = np.clip(
        np.searchsorted(singles.r3_m3, np.interp(v, np.linspace(0.0, 1.0, how.r3_m3.size), how.r3_m3)),
        0,
        len(singles) - 1,
    )
    r3 = singles.r3_m3[chosen]
    r, s = np.cbrt(x[:, _R3P]), np.cbrt(r3)
    span, soft = how._span(r, s)
    t = np.clip(soft * np.expm1(draws[1] * np.log1p(1.0 / soft)), 0.0, 1.0)
    out = np.array(prompts, np.float32)
    out[:, _R3D], out[:, _ED] = r3, singles.e_MeV[chosen]
    out[:, _DR] = np.sqrt((r - s) ** 2 + t * span)
    out[:, _DT] = np.minimum(-how.tau_us * np.log1p(draws[2] * np.expm1(-how.window_us / how.tau_us)), how.window_us)
    out[:, _CD], out[:, _PD] = _turned(x[:, _CP], x[:, _PP], 1.0 - 2.0 * t, 2.0 * np.pi * draws[3])
    return out


def _turned(cos: np.ndarray, phi: np.ndarray, by: np.ndarray, azimuth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions turned by an angle of cosine ``by``, as cos θ and φ."""
    sin, side = np.sqrt(np.maximum(1.0 - cos**2, 0.0)), np.sqrt(np.maximum(1.0 - by**2, 0.0))
    a, b = side * np.cos(azimuth), side * np.sin(azimuth)
    along = by * sin + a * cos  # towards the azimuth of the old direction
    return np.clip(by * cos - a * sin, -1.0, 1.0), np.remainder(phi + np.arctan2(b, along) + np.pi, 2 * np.pi) - np.pi


def mixed(
    how: NearPairs, accidentals: np.ndarray, singles: Singles, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Accidentals of which the last share is made close, and ln(q/p) of all.

    Args:
        how: Settings.
        accidentals: Features, shape ``(n, 10)``.
        singles: To choose from.
        rng: Of the draws.

    Returns:
        Features float32 and ln(q/p) float64; a pair counts exp(-ln(q/p)).
    """
    first = len(accidentals) - round(how.share * len(accidentals))
    out = np.array(accidentals, np.float32)
    if first < len(out):
        out[first:] = near_pairs(how, out[first:], singles, rng)
    return out, how.log_ratio(out)

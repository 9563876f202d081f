"""Accidental pairs drawn directly: two independent singles within a time window.

In a stream, pairs arise by themselves; here they are made for training, where millions are wanted. Both events of a
pair have the distribution of singles above the threshold, and the time between them is even over the window: a pair of
a stream with rate R has exp(-R t) with R t ≪ 1, or any other, as weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nuebar.errors import NuebarError
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import SinglesLight, singles_events

__all__ = ["accidental_pairs", "coincidence_rate_Hz"]

_SEEN = ("n_pe", "e_rec_MeV", "x_m", "y_m", "z_m")


def accidental_pairs(
    light: SinglesLight,
    model: DetectorModel,
    rates_Hz: Mapping[str, float],
    key: np.uint64,
    *,
    n: int,
    window_ns: int,
    threshold_MeV: float | None = None,
) -> dict[str, np.ndarray]:
    """Pairs of singles, both above a threshold of reconstructed energy.

    Args:
        light: Pools with their light.
        model: The detector at the same response.
        rates_Hz: Material → cascades drawn a second.
        key: Key of the random numbers.
        n: How many pairs.
        window_ns: Length of the time window.
        threshold_MeV: Both events have more; the detector's ``singles_threshold_MeV`` by default.

    Returns:
        ``prompt_…`` and ``delayed_…`` of n_pe, e_rec_MeV, x_m, y_m, z_m and ``true_…_material``, and ``dt_ns``; shape
        ``(n,)``.

    Raises:
        NuebarError: Number or window is not above 0, or hardly any single is above the threshold.
    """
    if n < 1 or window_ns < 1:
        raise NuebarError(f"accidental pairs: expected a number and a window above 0, got {n} and {window_ns} ns")
    above = model.detector.singles_threshold_MeV if threshold_MeV is None else threshold_MeV
    parts, have, turn = [], 0, 0
    while have < 2 * n:
        wanted = int(1.3 * (2 * n - have)) + 1000
        events = singles_events(light, model, rates_Hz, derive_key(int(key), "pairs", turn), n=wanted, above_MeV=above)
        turn += 1
        have += events["e_rec_MeV"].size
        parts.append(events)
        if turn > 100 and have < 2 * n:
            raise NuebarError(f"accidental pairs: hardly any single has more than {above:g} MeV; lower the threshold")
    # Cascades of a material come in a row: the first half against the second half pairs cascades far apart.
    events = {name: np.concatenate([p[name] for p in parts])[: 2 * n] for name in (*_SEEN, "true_material")}
    out: dict[str, np.ndarray] = {}
    for part, half in (("prompt", slice(0, n)), ("delayed", slice(n, 2 * n))):
        out |= {
            f"{part}_{name}": np.maximum(events[name][half], 0) if name == "n_pe" else events[name][half]
            for name in _SEEN
        }
    rng = np.random.Generator(np.random.Philox(key=int(derive_key(int(key), "times"))))
    out["dt_ns"] = (rng.random(n) * window_ns).astype(np.float32)
    out |= {
        "true_prompt_material": events["true_material"][:n].astype(np.float32),
        "true_delayed_material": events["true_material"][n:].astype(np.float32),
    }
    return out


def coincidence_rate_Hz(rate_Hz: float, window_s: float) -> float:
    """Pairs of neighbours a second in a Poisson stream: R [1 - exp(-R T)].

    Args:
        rate_Hz: Rate R of single events.
        window_s: Time window T.
    """
    return rate_Hz * -np.expm1(-rate_Hz * window_s)

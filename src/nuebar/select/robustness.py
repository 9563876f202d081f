"""Efficiency against energy and radius, how it changes with the detector, and whether the probability is one.

Changes are measured on the same pairs before and after: the difference of two correlated shares is known far better
than either share. With the weight w and the decision h of each pair before and w', h' after,

    Δε = Σ w' h'/Σ w' − Σ w h/Σ w,   σ² = Σ u²,   u = w' (h' − ε')/Σ w' − w (h − ε)/Σ w,

the linearised (sandwich) variance. Pairs that share an event (recombined accidental ones) add u u' for each two of
them, as in :mod:`nuebar.select.scores`. An energy scale multiplies both energies, a worse vertex moves both vertices,
another capture time is a weight. Rates move no pair: they change purity, and the threshold if it is chosen again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.config import PairSettings, SelectionConfig
from nuebar.select.counting import Share, weighted_interval
from nuebar.select.features import PAIR_COLUMNS, column, features_of
from nuebar.select.operating_point import Rates, at_threshold, by_f1
from nuebar.select.scores import ScoreDistribution
from nuebar.training import generator

__all__ = [
    "SHIFTS",
    "Change",
    "ENERGY_EDGES_MeV",
    "EfficiencyCurve",
    "RADIUS_EDGES_m",
    "Reliability",
    "Shift",
    "changes",
    "efficiency_curve",
    "efficiency_curves",
    "extra_vertex_m",
    "rate_changes",
    "reliability",
    "shifted",
]

ENERGY_EDGES_MeV = (0.7, *np.arange(1.0, 8.01, 0.25).tolist(), 9.0, 12.0)
"""Default bins of the prompt energy."""
RADIUS_EDGES_m = (0.0, *np.cbrt(np.linspace(0, 1, 11)[1:-1] * 16.5**3).round(3).tolist(), 16.5, 16.8, 17.0, 17.1, 17.2,
                  17.3, 17.4, 17.5, 17.6, 17.7)  # fmt: skip
"""Default bins of the prompt radius: equal volumes, and fine at the edge of the published detector."""

_FORMAT = 1
_KIND = "efficiency curve"
_STREAM = 21
_LOWEST_E_MeV = 0.05  # of 1/sqrt(E)
_CAPTURE_us = 220.0  # of the shipped experiment: 1/(v Σ)


# ---------------------------------------------------------------- curves


@dataclass(frozen=True, eq=False)
class EfficiencyCurve:
    """Efficiency in bins, with central 68.27 % intervals.

    Attributes:
        variable: ``"prompt energy"`` or ``"prompt radius"``, or a user's.
        unit: Of the edges.
        edges: Shape ``(bins + 1,)``.
        efficiency: Shape ``(bins,)``; 0 in a bin without pairs, with an interval from 0 to 1.
        low: Lower ends.
        high: Upper ends.
        total: Effective pairs in each bin.
        outside: Share of all pairs that are in no bin.
    """

    variable: str
    unit: str
    edges: np.ndarray
    efficiency: np.ndarray
    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    outside: float = 0.0

    @property
    def error(self) -> np.ndarray:
        """Half the length of the intervals, for a fit that wants one number."""
        return 0.5 * (self.high - self.low)

    def record(self) -> dict[str, Any]:
        """For JSON; :meth:`of` gives the curve back."""
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "efficiency", "low", "high", "total")}
        return {
            "format": _FORMAT,
            "kind": _KIND,
            "variable": self.variable,
            "unit": self.unit,
            **arrays,
            "error": self.error.tolist(),
            "outside": self.outside,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any], where: str = "efficiency curve") -> EfficiencyCurve:
        """From :meth:`record`.

        Args:
            record: As JSON gives it.
            where: For messages: the file.

        Raises:
            NuebarError: It is no such record, or its numbers do not fit together.
        """
        if record.get("kind") != _KIND or record.get("format") != _FORMAT:
            raise NuebarError(
                f"{where}: expected an {_KIND} of format {_FORMAT}, got {record.get('kind')!r} {record.get('format')!r}"
            )
        try:
            names = ("edges", "efficiency", "low", "high", "total")
            rows = {name: np.asarray(record[name], float) for name in names}
            outside = float(record["outside"])
            curve = cls(variable=str(record["variable"]), unit=str(record["unit"]), outside=outside, **rows)
        except (KeyError, TypeError, ValueError) as error:
            raise NuebarError(f"{where}: expected numbers by bin, got {type(error).__name__}: {error}") from error
        edges = _check_edges(rows.pop("edges"), where)
        good = all(row.shape == (edges.size - 1,) and np.all(np.isfinite(row)) for row in rows.values())
        if not good or not np.all((curve.low >= 0) & (curve.low <= curve.efficiency) & (curve.efficiency <= curve.high)
                                  & (curve.high <= 1)):  # fmt: skip
            raise NuebarError(f"{where}: expected {edges.size - 1} efficiencies from 0 to 1 inside their intervals")
        return curve


def efficiency_curve(
    variable: str, unit: str, values: ArrayLike, kept: ArrayLike, edges: ArrayLike, *, weights: ArrayLike | None = None
) -> EfficiencyCurve:
    """Share of pairs that are kept, in bins of anything.

    Args:
        variable: What the bins are of.
        unit: Its unit.
        values: Of each pair, shape ``(n,)``; it may be true or reconstructed.
        kept: Whether it is kept.
        edges: Of the bins; the last one holds its upper edge, as in NumPy.
        weights: Of each pair; ones by default.

    Raises:
        NuebarError: Shapes, edges or weights are wrong.
    """
    bins = _check_edges(np.asarray(edges, float), variable)
    v, h = np.asarray(values, float), np.asarray(kept, bool)
    w = np.ones(v.shape) if weights is None else np.asarray(weights, float)
    if v.ndim != 1 or not v.size or h.shape != v.shape or w.shape != v.shape or not np.all(np.isfinite(w) & (w >= 0)):
        raise NuebarError(
            f"{variable}: expected values, decisions and weights of one length above 0, got shapes {v.shape}, "
            f"{h.shape} and {w.shape}"
        )
    passed, total, good, all_ = (np.histogram(v, bins, weights=x)[0] for x in (w * h, w, w * w * h, w * w))
    share, low, high = _shares(passed, total, good, all_, float(w.max()))
    effective = np.divide(total**2, all_, out=np.zeros_like(total), where=all_ > 0)
    return EfficiencyCurve(variable, unit, bins, share, low, high, effective, _outside(total.sum(), w.sum()))


def _outside(inside: float, everything: float) -> float:
    share = 1 - float(inside / everything) if everything > 0 else 0.0
    return share if share > 1e-12 else 0.0


def _shares(
    passed: np.ndarray, total: np.ndarray, good: np.ndarray, all_: np.ndarray, heaviest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares with intervals, from sums of weights and of their squares."""
    known = total > 0
    safe = np.where(known, total, 1.0)
    share = np.clip(passed / safe, 0.0, 1.0)
    share[share > 1 - 1e-12] = 1.0  # sums of weights in another order
    variance = np.maximum((1 - 2 * share) * good + share**2 * all_, 0) / safe**2
    single = np.where(known, np.minimum(heaviest / safe, 1.0), 1.0)
    low, high, _ = weighted_interval(share, variance, single)
    return share, np.where(known, low, 0.0), np.where(known, high, 1.0)


def efficiency_curves(
    features: np.ndarray,
    kept: ArrayLike,
    *,
    energy_edges_MeV: ArrayLike = ENERGY_EDGES_MeV,
    radius_edges_m: ArrayLike = RADIUS_EDGES_m,
    weights: ArrayLike | None = None,
) -> dict[str, EfficiencyCurve]:
    """Both curves that a spectrum fit and an exposure need, in reconstructed quantities.

    Args:
        features: Antineutrino pairs.
        kept: Whether each is kept, such as ``score_in_chunks(network, features) >= threshold``.
        energy_edges_MeV: Bins of the prompt energy.
        radius_edges_m: Bins of the prompt radius.
        weights: Of each pair.

    Returns:
        ``"energy"`` and ``"radius"``.
    """
    energy, radius = _energy_and_radius(features)
    return {
        "energy": efficiency_curve("prompt energy", "MeV", energy, kept, energy_edges_MeV, weights=weights),
        "radius": efficiency_curve("prompt radius", "m", radius, kept, radius_edges_m, weights=weights),
    }


def _energy_and_radius(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    energy = np.asarray(column(features, "e_prompt_MeV"), float)
    return energy, np.cbrt(np.asarray(column(features, "r3_prompt_m3"), float))


# ---------------------------------------------------------------- shifts


@dataclass(frozen=True)
class Shift:
    """A detector that is a little different.

    Attributes:
        name: For tables.
        energy_scale: Relative change of both energies: 0.01 is one per cent more.
        vertex_m: Extra spread of each coordinate of both vertices at 1 MeV; it goes as 1/√E.
        capture_time: Relative change of the mean capture time.
    """

    name: str
    energy_scale: float = 0.0
    vertex_m: float = 0.0
    capture_time: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no detector."""
        good = self.energy_scale > -1 and self.capture_time > -1 and self.vertex_m >= 0
        if not good or not math.isfinite(self.energy_scale + self.vertex_m + self.capture_time):
            raise NuebarError(f"shift {self.name!r}: expected changes above -1 and a spread of at least 0, got {self}")


def extra_vertex_m(sigma_m: float, factor: float) -> float:
    """The extra spread that makes a vertex resolution worse by a factor: σ √(factor² − 1).

    Args:
        sigma_m: The resolution at 1 MeV, of one coordinate.
        factor: At least 1; vertices cannot be made better.

    Raises:
        NuebarError: The resolution is not above 0, or the factor below 1.
    """
    if not (sigma_m > 0 and 1 <= factor < math.inf):
        raise NuebarError(f"vertex resolution: expected it above 0 and a factor of at least 1, got {sigma_m}, {factor}")
    return sigma_m * math.sqrt(factor**2 - 1)


# The sizes are those that are asked for or of the calibration of large scintillator detectors (nominal).
SHIFTS: tuple[Shift, ...] = (
    Shift("energy scale +1 %", energy_scale=0.01),
    Shift("energy scale -1 %", energy_scale=-0.01),
    Shift("vertex +0.05 m", vertex_m=0.05),
    Shift("vertex +0.10 m", vertex_m=0.10),
    Shift("capture time +1 %", capture_time=0.01),
    Shift("capture time -1 %", capture_time=-0.01),
)
"""Shifts that are measured by default."""


def shifted(pairs: Mapping[str, np.ndarray], shift: Shift, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Pairs as the shifted detector would have reconstructed them; the capture time is a weight and not in it.

    Args:
        pairs: Columns of pairs; others are left out.
        shift: What is different.
        seed: Of the extra spread: the same pairs move the same way, scaled by its size.

    Raises:
        NuebarError: A column is missing.
    """
    missing = [name for name in PAIR_COLUMNS if name not in pairs]
    if missing:
        raise NuebarError(f"pairs: missing column {missing[0]!r}; name it in a column map")
    out = {name: np.asarray(pairs[name]) for name in PAIR_COLUMNS}
    for k, part in enumerate(("prompt", "delayed")):
        name = f"{part}_e_rec_MeV"
        energy = np.asarray(out[name], float)
        if shift.vertex_m:
            spread = shift.vertex_m / np.sqrt(np.maximum(energy, _LOWEST_E_MeV))
            rng = generator(seed, _STREAM, k)
            for axis in "xyz":
                place = f"{part}_{axis}_m"
                out[place] = np.asarray(out[place], float) + spread * rng.normal(size=energy.size)
        if shift.energy_scale:
            out[name] = energy * (1 + shift.energy_scale)
    return out


def _capture_weights(dt_us: np.ndarray, shift: Shift, capture_time_us: float) -> np.ndarray:
    """Density of the other exponential over that of the one at hand."""
    other = capture_time_us * (1 + shift.capture_time)
    return np.exp(-dt_us * (1 / other - 1 / capture_time_us)) * capture_time_us / other


@dataclass(frozen=True, eq=False)
class Change:
    """How a share changes with a shift.

    Attributes:
        shift: What was shifted.
        before: The share before, with its interval.
        difference: After − before.
        error: Its standard deviation.
        edges: Name → bins of the prompt energy and radius before the shift.
        differences: Name → difference in each bin; NaN in one without pairs.
        errors: Name → their standard deviations.
    """

    shift: Shift
    before: Share
    difference: float
    error: float
    edges: Mapping[str, np.ndarray]
    differences: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        bins = {
            name: {
                "edges": self.edges[name].tolist(),
                "difference": _told(self.differences[name]),
                "error": _told(self.errors[name]),
            }
            for name in self.edges
        }
        return {
            "shift": vars(self.shift),
            "before": self.before.record(),
            "difference": self.difference,
            "error": self.error,
            "bins": bins,
        }


def _told(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def changes(
    classifier: Classifier,
    pairs: Mapping[str, np.ndarray],
    threshold: float,
    settings: PairSettings,
    *,
    shifts: Sequence[Shift] = SHIFTS,
    weights: ArrayLike | None = None,
    clusters: tuple[np.ndarray, np.ndarray] | None = None,
    captures: bool = True,
    capture_time_us: float = _CAPTURE_us,
    energy_edges_MeV: ArrayLike = ENERGY_EDGES_MeV,
    radius_edges_m: ArrayLike = RADIUS_EDGES_m,
    seed: int = 1,
) -> tuple[Change, ...]:
    """How the share of pairs that a fixed threshold keeps changes with the detector.

    Pairs are those that exist before the shift; one that falls below the energy threshold by it is lost, one that would
    rise above it is not there to be gained.

    Args:
        classifier: Any one.
        pairs: Columns of antineutrinos, or of accidental pairs for the background.
        threshold: Least score that is kept.
        settings: For the energy threshold of pairs.
        shifts: What is shifted.
        weights: Of each pair.
        clusters: Numbers of the prompt and of the delayed event of each pair, if pairs share events.
        captures: Whether times are those of captures. Accidental pairs do not know the capture time.
        capture_time_us: Their mean.
        energy_edges_MeV: Bins of the prompt energy.
        radius_edges_m: Bins of the prompt radius.
        seed: Of the vertices.

    Returns:
        One for each shift.

    Raises:
        NuebarError: Pairs, weights or bins are wrong.
    """
    if not capture_time_us > 0:
        raise NuebarError(f"capture time: expected microseconds above 0, got {capture_time_us}")
    features = features_of(pairs)
    kept = score_in_chunks(classifier, features) >= threshold
    w = np.ones(len(kept)) if weights is None else np.asarray(weights, float)
    if w.shape != kept.shape or not np.all(np.isfinite(w) & (w >= 0)) or not w.sum() > 0:
        raise NuebarError(f"weights: expected {len(kept)} finite numbers that are not negative, with a sum above 0")
    events = None if clusters is None else _checked_clusters(clusters, len(kept))
    energy, radius = _energy_and_radius(features)
    edges = {"energy": np.asarray(energy_edges_MeV, float), "radius": np.asarray(radius_edges_m, float)}
    everything = _Cells.of(np.zeros(len(w), int), 1, events)
    places = {
        name: _Cells.of(_place(v, _check_edges(edges[name], name)), edges[name].size - 1, events)
        for name, v in (("energy", energy), ("radius", radius))
    }
    before = _share_of(kept, w, everything)
    found = []
    for shift in shifts:
        after, again = kept, w
        if shift.energy_scale or shift.vertex_m:
            moved = shifted(pairs, shift, seed=seed)
            after = score_in_chunks(classifier, features_of(moved)) >= threshold
            for part in ("prompt", "delayed") if shift.energy_scale else ():
                after &= np.asarray(moved[f"{part}_e_rec_MeV"]) >= settings.threshold_MeV
        if captures and shift.capture_time:
            again = w * _capture_weights(np.asarray(column(features, "dt_us"), float), shift, capture_time_us)
        difference, error = _difference(kept, w, after, again, everything)
        bins = {name: _difference(kept, w, after, again, cells) for name, cells in places.items()}
        found.append(
            Change(
                shift,
                before,
                float(difference[0]),
                float(error[0]),
                edges,
                {name: b[0] for name, b in bins.items()},
                {name: b[1] for name, b in bins.items()},
            )
        )
    return tuple(found)


def _place(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Bin of each value, -1 outside; the last bin holds its upper edge."""
    at = np.searchsorted(edges, values, side="right") - 1
    at[values == edges[-1]] = edges.size - 2
    return np.where((at >= 0) & (at < edges.size - 1), at, -1)


def _share_of(kept: np.ndarray, w: np.ndarray, cells: _Cells) -> Share:
    total = float(w.sum())
    share = 1.0 if kept.all() else float(w[kept].sum()) / total
    variance = cells.variance(w * (kept - share))[0] / total**2
    low, high, effective = weighted_interval(share, variance, float(w.max()) / total)
    return Share(share, float(low), float(high), float(effective))


def _checked_clusters(clusters: tuple[np.ndarray, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of both events of each pair, the smaller one first."""
    first, second = (np.asarray(c) for c in clusters)
    if first.shape != (n,) or second.shape != (n,):
        raise NuebarError(f"clusters: expected two arrays of {n} numbers, got {first.shape} and {second.shape}")
    _, numbers = np.unique(np.stack([first, second], axis=1), return_inverse=True)
    low, high = np.sort(numbers.reshape(-1, 2), axis=1).T
    return low, high


@dataclass(frozen=True, eq=False)
class _Cells:
    """Pairs in bins, and which of a bin share events.

    Attributes:
        inside: Whether a pair is in any, shape ``(n,)``.
        place: The bin of those that are, shape ``(m,)``.
        bins: How many.
        ends: Group of each pair by its one event and, after all of them, by its other one, and the bin of each group.
        both: Group by both events, and the bin of each group.
    """

    inside: np.ndarray
    place: np.ndarray
    bins: int
    ends: tuple[np.ndarray, np.ndarray] | None = None
    both: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, at: np.ndarray, bins: int, events: tuple[np.ndarray, np.ndarray] | None) -> _Cells:
        inside = at >= 0
        place = at[inside]
        if events is None:
            return cls(inside, place, bins)
        low, high = (e[inside] for e in events)
        number = int(high.max(initial=0)) + 1
        twice = np.tile(place, 2)
        ends = _groups(twice * number + np.concatenate([low, high]), twice)
        return cls(inside, place, bins, ends, _groups((place * number + low) * number + high, place))

    def variance(self, u: np.ndarray) -> np.ndarray:
        """Σ u u' over all two pairs of a bin that share an event, a pair with itself included; shape ``(bins,)``."""
        alone = np.bincount(self.place, u**2, self.bins)
        if self.ends is None or self.both is None:
            return alone
        # Pairs of the same two events are found by either one.
        found = self._squares(self.ends, np.tile(u, 2)) - self._squares(self.both, u)
        return np.maximum(found, alone)  # what sharing adds is not negative but by chance

    def _squares(self, groups: tuple[np.ndarray, np.ndarray], u: np.ndarray) -> np.ndarray:
        where, place = groups
        return np.bincount(place, np.bincount(where, u, place.size) ** 2, self.bins)


def _groups(codes: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the group of each code, and the bin of each group."""
    _, first, where = np.unique(codes, return_index=True, return_inverse=True)
    return where, place[first]


def _difference(
    kept: np.ndarray, w: np.ndarray, after: np.ndarray, again: np.ndarray, cells: _Cells
) -> tuple[np.ndarray, np.ndarray]:
    """Differences and their errors in bins."""
    inside, place, bins = cells.inside, cells.place, cells.bins
    before = w[inside], kept[inside]
    later = again[inside], after[inside]
    influence = np.zeros(place.size)
    shares = []
    for sign, (weight, h) in ((-1.0, before), (1.0, later)):
        total = np.bincount(place, weight, bins)
        safe = np.where(total > 0, total, np.nan)
        share = np.bincount(place, weight * h, bins) / safe
        influence += sign * weight * (h - share[place]) / safe[place]
        shares.append(share)
    return shares[1] - shares[0], np.sqrt(cells.variance(influence)) + 0 * shares[0]


def rate_changes(
    signal: ScoreDistribution,
    background: ScoreDistribution,
    config: SelectionConfig,
    threshold: float,
    *,
    singles: Sequence[float] = (0.5, 1.0, 2.0),
) -> list[dict[str, Any]]:
    """What more or fewer singles do: accidental pairs go with the square of their rate.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        config: For the rates.
        threshold: The one in use; the efficiency there does not change.
        singles: Factors on the rate.

    Returns:
        For each factor the accidental pairs a day, the operating point at the threshold and that of the largest F₁.

    Raises:
        NuebarError: A factor is not above 0.
    """
    rows = []
    for factor in singles:
        if not 0 < factor < math.inf:
            raise NuebarError(f"singles: expected factors above 0, got {factor}")
        rates = Rates(config.rates.ibd_per_day, factor**2 * config.accidentals_per_day, f"singles x {factor:g}")
        rows.append(
            {
                "singles": factor,
                "accidentals_per_day": rates.accidental,
                "same_threshold": at_threshold(signal, background, threshold, rates, how="same threshold").record(),
                "largest_f1": by_f1(signal, background, rates).record(),
            }
        )
    return rows


# ---------------------------------------------------------------- calibration


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether pairs of a given probability are antineutrinos as often as it says, for classes of equal size.

    Attributes:
        edges: Of the bins, logits; the first and the last are infinite.
        share: Of all pairs (both classes of the same weight) in each bin.
        predicted: Mean probability in each bin, NaN in an empty one.
        observed: Share of antineutrinos there.
        low: Lower end of its 68.27 % interval.
        high: Upper end.
        ece: Expected calibration error, Σ share |observed − predicted| (M. Naeini et al., AAAI 2015).
        noise: Mean of the same for a calibrated classifier with as many pairs.
        noise_error: Its standard deviation.
        p_value: Share of calibrated ones with no smaller error.
    """

    edges: np.ndarray
    share: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ece: float
    noise: float
    noise_error: float
    p_value: float

    def record(self) -> dict[str, Any]:
        """For JSON."""
        names = ("edges", "share", "predicted", "observed", "low", "high")
        table = {name: _told(getattr(self, name)) for name in names}
        told = {name: getattr(self, name) for name in ("ece", "noise", "noise_error", "p_value")}
        return {**told, "bins": table}


def reliability(
    signal: ArrayLike,
    background: ArrayLike,
    *,
    background_weights: ArrayLike | None = None,
    edges: ArrayLike | None = None,
    toys: int = 500,
    seed: int = 1,
) -> Reliability:
    """Reliability table and expected calibration error, with what counting statistics alone would give.

    Args:
        signal: Logits of antineutrinos.
        background: Logits of accidental pairs; both classes count the same, whatever their numbers.
        background_weights: Of accidental pairs.
        edges: Bins of the logit; by default even ones of 1 from −12 to 12. What is beyond goes to two more bins.
        toys: Calibrated classifiers that are drawn.
        seed: Of them.

    Raises:
        NuebarError: A class has no pairs, a logit is infinite or NaN, or bins or weights are wrong.
    """
    inner = np.linspace(-12, 12, 25) if edges is None else np.asarray(edges, float)
    limits = np.concatenate([[-np.inf], _check_edges(inner, "reliability"), [np.inf]])
    bins = limits.size - 1
    parts = []
    for name, scores, weights in (("signal", signal, None), ("background", background, background_weights)):
        s = np.asarray(scores, float)
        w = np.ones(s.shape) if weights is None else np.asarray(weights, float)
        if s.ndim != 1 or not s.size or not np.all(np.isfinite(s)) or w.shape != s.shape or not np.all(w >= 0):
            raise NuebarError(f"reliability, {name}: expected finite logits, at least one, with weights of one length")
        parts.append(_Part.of(s, w / w.sum(), limits))
    good, bad = parts
    share = 0.5 * (good.weight + bad.weight)
    filled = share > 0
    safe = np.where(filled, share, np.nan)
    predicted = 0.5 * (good.probability + bad.probability) / safe
    observed = 0.5 * good.weight / safe
    variance = (bad.weight**2 * good.square + good.weight**2 * bad.square) / (2 * safe) ** 4
    single = np.minimum(np.maximum(good.unit, bad.unit) / (2 * safe), 1.0)
    low, high = np.full(bins, np.nan), np.full(bins, np.nan)
    low[filled], high[filled], _ = weighted_interval(observed[filled], variance[filled], single[filled])
    ece = float(np.sum((share * np.abs(observed - predicted))[filled]))
    drawn = np.array([_toy(share, predicted, filled, good, bad, generator(seed, _STREAM, 2, k)) for k in range(toys)])
    noise = float(drawn.mean()) if toys else math.nan
    spread = float(drawn.std(ddof=1)) if toys > 1 else math.nan
    p_value = float(np.mean(drawn >= ece)) if toys else math.nan
    return Reliability(limits, share, predicted, observed, low, high, ece, noise, spread, p_value)


@dataclass(frozen=True, eq=False)
class _Part:
    """A class in bins of the logit, all of it of weight 1."""

    weight: np.ndarray
    square: np.ndarray
    probability: np.ndarray  # weight times probability
    unit: np.ndarray  # weight of a pair in each bin

    @classmethod
    def of(cls, scores: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> _Part:
        from scipy.special import expit

        at = np.searchsorted(edges, scores, side="right") - 1
        bins = edges.size - 1
        weight, square, probability = (
            np.bincount(at, x, bins) for x in (weights, weights**2, weights * np.asarray(expit(scores)))
        )
        typical = float(np.sum(weights**2))
        unit = np.divide(square, weight, out=np.full(bins, typical), where=weight > 0)
        return cls(weight, square, probability, unit)


def _toy(
    share: np.ndarray,
    predicted: np.ndarray,
    filled: np.ndarray,
    good: _Part,
    bad: _Part,
    rng: np.random.Generator,
) -> float:
    """Calibration error of a calibrated classifier with as many pairs."""
    p = np.where(filled, predicted, 0.5)
    found = [part.unit * rng.poisson(2 * share * true / part.unit) for part, true in ((good, p), (bad, 1 - p))]
    total = found[0] + found[1]
    some = total > 0
    return float(np.sum(0.5 * np.abs(found[0] - p * total)[some]))


def _check_edges(edges: np.ndarray, where: str) -> np.ndarray:
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise NuebarError(f"{where}: expected at least two finite edges of bins that increase, got {edges.tolist()}")
    return edges

"""What the page of a run shows beside a selected sample: ROC, the boundary in ΔR and Δt, and Shapley values.

Efficiencies are those of Monte Carlo antineutrinos, backgrounds are measured off time, in the data themselves. Too few
off-time pairs make a sentence in the record, and no failure: short runs have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.events import Column, EventFile
from nuebar.jobs.select_apply import PairDecision, pair_options
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.config import SelectionConfig
from nuebar.select.counting import binomial_interval
from nuebar.select.explain import Background, balanced_background, explain, importance
from nuebar.select.features import FEATURES, PAIR_COLUMNS, features_of
from nuebar.select.scores import ScoreSample
from nuebar.training import generator

__all__ = ["selection_diagnostics"]

Progress = Callable[[str, int, int], None]
Files = str | Path | Sequence[str | Path]

_ROWS = 2**17  # of a file at a time
_MOST = 50_000  # antineutrinos kept to be explained: a random file has no order
_POINTS = 60
_GRID = 41  # points of the boundary on a side
_FARTHEST_m = 4.0  # of the boundary, if the selection has no limit
_BACKGROUND, _GROUPS = 200, 20  # pairs that unknown features are taken from
_CHECKED = 8  # pairs with exact values beside the sampled ones
_NOTHING = 1.841  # pairs: upper end of the central 68.27 % interval if none was seen, -ln(0.1587)
_ROUNDED = 0.01  # share of off-time pairs that may fail the selection after rounding
_WHOLE: Mapping[str, Any] = {"kind": "int", "low": 0, "stored": "int64"}
_RESOLVED = 10  # off-time pairs above the threshold, below which the background is hardly measured
_STREAMS = {"ibd": 10, "off time": 11, "again": 12}  # of random numbers; explain has its own


def selection_diagnostics(
    *,
    ibd: Files,
    off_time: Files,
    off_time_total: int,
    windows: int,
    live_days: float,
    classifier: Classifier,
    threshold: float,
    config: SelectionConfig,
    fiducial_m: float | None = None,
    delayed_MeV: float | None = None,
    max_dr_m: float | None = None,
    muon_MeV: float = 100.0,
    seed: int = 1,
    events: int = 1000,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """ROC, boundary and Shapley values of a selection.

    Args:
        ibd: Files of Monte Carlo antineutrino pairs.
        off_time: File of off-time pairs of the stream that pass all but the score, or the first of them; a column
            ``weight`` counts (see :mod:`nuebar.select.offtime`), else each pair is one in ``windows``.
        off_time_total: How many such pairs there were in all.
        windows: How many off-time windows.
        live_days: Of the stream.
        classifier: What decides.
        threshold: Least score that is kept.
        config: The selection: window and least energy.
        fiducial_m: The prompt vertex is nearer to the centre.
        delayed_MeV: Least reconstructed energy of the delayed event.
        max_dr_m: Largest distance of both vertices.
        muon_MeV: Events with more are muons.
        seed: Of which pairs are explained, and of the sampling.
        events: Pairs to be explained, half of each kind where there are so many.
        progress: Called as ``progress("explaining", pairs done, pairs)``.

    Returns:
        For JSON, all numbers finite. ``roc``: by ``threshold``, ``efficiency`` (share of the antineutrinos with the
        prompt vertex inside that pass everything; the veto is live time, and not in it) and ``background_per_day`` (in
        a live day) with errors, and the ``operating_point``. ``boundary``: ``score`` at ``dr_m`` and ``dt_us``, all
        else as in the median antineutrino (``others``). ``shap``: Shapley ``values`` of the logit, their ``data``,
        ``kinds`` (1 for antineutrinos, 0 for off-time pairs), mean sizes and their errors in ``importance``. Numbers
        are rounded to six digits. ``events``: how many are explained. ``note``: what could not be done, or empty.

    Raises:
        NuebarError: Files are wrong, there are too few antineutrinos, or numbers do not go together.
    """
    _check(off_time_total, windows, live_days, threshold, events)
    decision = PairDecision(
        classifier=classifier,
        threshold=threshold,
        options=pair_options(config, muon_MeV=muon_MeV, max_dr_m=max_dr_m, delayed_MeV=delayed_MeV),
        fiducial_m=fiducial_m,
    )
    radius_m = config.detector.radius_m
    signal, inside, x_ibd = _antineutrinos(ibd, decision, radius_m)
    off = _OffTime.read(off_time, decision, radius_m, off_time_total, windows, live_days)
    roc = _roc(_thresholds(signal, off.scores, threshold), threshold, signal, inside, off)
    notes = []
    if (above := int(np.count_nonzero(off.scores >= threshold))) < _RESOLVED:
        notes.append(f"{above} off-time pairs are above the threshold: the background is hardly measured")
    kind = "logit" if np.isfinite(signal).all() and np.isfinite(off.scores).all() else "probability"
    if kind != "logit":
        notes.append("scores are not all finite, so probabilities are explained")
    shap, told = _shap(classifier, x_ibd, off.features, kind, events, seed, progress)
    return {
        "roc": roc,
        "boundary": _boundary(classifier, x_ibd, threshold, config, max_dr_m),
        "shap": shap,
        "events": len(shap["kinds"]),
        "note": "; ".join([*notes, *told]),
    }


def _check(total: int, windows: int, live_days: float, threshold: float, events: int) -> None:
    if windows < 1 or total < 0:
        raise NuebarError(f"off time: expected at least 1 window and 0 pairs, got {windows} and {total}")
    if not 0 < live_days < np.inf:
        raise NuebarError(f"live_days: expected days above 0, got {live_days}; the stream has no live time")
    if not np.isfinite(threshold):
        raise NuebarError(f"threshold: expected a finite number, got {threshold}")
    if events < 4:
        raise NuebarError(f"events: expected at least 4 pairs to explain, got {events}")


# ---------------------------------------------------------------- pairs


def _antineutrinos(files: Files, decision: PairDecision, radius_m: float) -> tuple[np.ndarray, int, np.ndarray]:
    """Scores of those that pass all else, the number inside the fiducial volume, and features of the first ones."""
    source = EventFile(files, PAIR_COLUMNS, radius_m=radius_m)
    scores, kept, inside, held = [np.empty(0)], [np.empty((0, len(FEATURES)), np.float32)], 0, 0
    for batch in source.batches(_ROWS):
        _, score, good = decision.scored(batch)
        inside += int(np.count_nonzero(decision.inside(batch)))
        scores.append(score[good])
        rows = np.flatnonzero(good)[: _MOST - held]
        kept.append(features_of({name: batch[name][rows] for name in PAIR_COLUMNS}))
        held += rows.size
    found = np.concatenate(scores)
    if found.size < 2:
        raise NuebarError(
            f"{source.paths[0]}: expected antineutrino pairs that pass all but the score, got {found.size} of "
            f"{source.n_rows}; simulate more, or check the selection"
        )
    return found, inside, np.concatenate(kept)


@dataclass(frozen=True, eq=False)
class _OffTime:
    """Off-time pairs; one of weight w is w · ``per_pair`` accidentals a day, and none seen has the weight ``least``."""

    features: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    clusters: tuple[np.ndarray, np.ndarray] | None
    per_pair: float
    least: float

    @classmethod
    def read(
        cls, files: Files, decision: PairDecision, radius_m: float, total: int, windows: int, live_days: float
    ) -> _OffTime:
        """All of the file that pass all but the score: rounding moves a few of double precision across a limit."""
        rows = ("prompt_row", "delayed_row")
        more: list[str | Column] = ["weight", *(Column(name, **_WHOLE) for name in rows)]
        source = EventFile(files, PAIR_COLUMNS, optional=more, radius_m=radius_m)
        pairs = source.read()
        n = source.n_rows
        if total < n or (total and not n):
            raise NuebarError(f"{source.paths[0]}: expected a sample of {total} off-time pairs, got {n} rows")
        _, scores, good = decision.scored(pairs)
        if np.count_nonzero(~good) > _ROUNDED * n:
            raise NuebarError(
                f"{source.paths[0]}: expected off-time pairs that pass all but the score, got "
                f"{np.count_nonzero(~good)} of {n} that do not; make them with the same selection"
            )
        pairs = {name: values[good] for name, values in pairs.items()}
        weights = pairs["weight"] if "weight" in pairs else np.full(len(pairs["dt_ns"]), 1 / windows)
        clusters = (pairs[rows[0]], pairs[rows[1]]) if all(name in pairs for name in rows) else None
        per_pair = (total / n if n else 1.0) / live_days
        return cls(features_of(pairs), scores[good], weights, clusters, per_pair, 1 / windows)

    def above(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accidentals a day, and their errors; where nothing is above, the upper end of the interval."""
        nothing = _NOTHING * max(self.least, self.weights.max(initial=0.0)) * self.per_pair
        if not self.weights.sum() > 0:
            return np.zeros(thresholds.size), np.full(thresholds.size, nothing)
        sample = ScoreSample.of(self.scores, self.weights, clusters=self.clusters)
        assert sample.sums is not None  # there are weights
        number = sample.scores.size - np.searchsorted(sample.scores, thresholds, "left")
        # The second sum is that of products of weights of pairs that share an event: the variance of the first one.
        total, square, _ = sample.sums[number].T
        return self.per_pair * total, np.where(total > 0, self.per_pair * np.sqrt(square), nothing)


# ---------------------------------------------------------------- ROC


def _thresholds(signal: np.ndarray, off: np.ndarray, threshold: float) -> np.ndarray:
    """Even ones, from where nothing is lost to where much is, and the one that is used."""
    ends = [threshold]
    finite = signal[np.isfinite(signal)], off[np.isfinite(off)]
    if finite[0].size:
        ends += np.quantile(finite[0], (0.001, 0.9)).tolist()
    if finite[1].size:
        ends.append(min(float(np.median(finite[1])), threshold))
    return np.unique([threshold, *np.linspace(min(ends), max(ends), _POINTS)])


def _roc(thresholds: np.ndarray, threshold: float, signal: np.ndarray, inside: int, off: _OffTime) -> dict[str, Any]:
    passed = signal.size - np.searchsorted(np.sort(signal), thresholds, "left")
    low, high = binomial_interval(passed, inside)
    efficiency, error = passed / inside, 0.5 * (high - low)
    per_day, per_day_error = off.above(thresholds)
    columns = {
        "threshold": thresholds,
        "efficiency": efficiency,
        "efficiency_error": error,
        "background_per_day": per_day,
        "background_error": per_day_error,
    }
    at = int(np.flatnonzero(thresholds == threshold)[0])
    point = {name: float(values[at]) for name, values in columns.items()}
    return {**{name: _rounded(values) for name, values in columns.items()}, "operating_point": point}


# ---------------------------------------------------------------- boundary and Shapley values


def _boundary(
    classifier: Classifier, x: np.ndarray, threshold: float, config: SelectionConfig, max_dr_m: float | None
) -> dict[str, Any]:
    """Scores of the median antineutrino with other ΔR and Δt."""
    dr_m = np.linspace(0, _FARTHEST_m if max_dr_m is None else max_dr_m, _GRID)
    dt_us = np.linspace(0, config.pairs.window_us, _GRID)
    median = np.median(x, axis=0).astype(np.float32)
    grid = np.tile(median, (dr_m.size, dt_us.size, 1))
    grid[..., FEATURES.index("dr_m")], grid[..., FEATURES.index("dt_us")] = dr_m[:, None], dt_us
    scores = score_in_chunks(classifier, grid.reshape(-1, len(FEATURES))).reshape(dr_m.size, dt_us.size)
    others = {name: float(f"{m:.6g}") for name, m in zip(FEATURES, median, strict=True)}
    del others["dr_m"], others["dt_us"]
    return {
        "dr_m": _rounded(dr_m),
        "dt_us": _rounded(dt_us),
        "score": [_rounded(np.clip(row, -1e300, 1e300)) for row in scores],  # cuts answer with infinities
        "threshold": threshold,
        "others": others,
    }


def _shap(
    classifier: Classifier,
    ibd: np.ndarray,
    off: np.ndarray,
    kind: str,
    events: int,
    seed: int,
    progress: Progress | None,
) -> tuple[dict[str, Any], list[str]]:
    """Shapley values of pairs of both kinds, and what has to be told of them."""
    (x1, b1), (x0, b0) = (
        _apart(x, events // 2, generator(seed, _STREAMS[name])) for name, x in (("ibd", ibd), ("off time", off))
    )
    notes, half = [], _BACKGROUND // 2
    again = generator(seed, _STREAMS["again"])
    if len(b1) < half:
        notes.append(f"only {len(b1)} antineutrinos are left to explain against")
        b1 = b1[again.integers(len(b1), size=half)]
    if not len(b0):
        notes.append("no off-time pairs: antineutrinos are explained against antineutrinos")
        background = Background(b1[np.arange(_BACKGROUND) % len(b1)], _GROUPS)
    else:
        if len(b0) < half:
            notes.append(f"only {len(b0)} off-time pairs to explain against: the errors are too small")
            b0 = b0[again.integers(len(b0), size=half)]
        background = balanced_background(b1, b0, rows=_BACKGROUND, groups=_GROUPS, seed=seed)
    if len(x0) < events // 2:
        notes.append(f"{len(x0)} off-time pairs are explained")
    x = np.concatenate([x1, x0])
    labels = np.repeat([1, 0], [len(x1), len(x0)])
    options: dict[str, Any] = {"output": kind, "seed": seed, "checked": _CHECKED, "progress": progress}
    found = explain(classifier, x, background, labels=labels, **options)
    mean = importance(found, seed=seed)
    record = {
        "explains": kind,
        "features": list(FEATURES),
        "values": [_rounded(row) for row in found.values],
        "data": [_rounded(row) for row in found.features],
        "kinds": labels.tolist(),
        "importance": _rounded(mean.mean),
        "importance_error": _rounded(mean.error),
        "base_value": found.base,
        "base_error": found.base_error,
        "additivity": found.residual,
        "check": _check_record(found.check),
    }
    return record, notes


def _apart(x: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At random, pairs to explain and others for the background; the same ones where there are too few for both."""
    x = x[rng.permutation(len(x))]
    return x[:n], x[n:] if len(x) - n >= _BACKGROUND // 2 else x


def _check_record(check: Mapping[str, Any]) -> dict[str, Any]:
    """How far sampled values are from exact ones."""
    return {"pairs": check["pairs"], "rms": {name: float(f"{v:.6g}") for name, v in check["rms"].items()}}


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in values]

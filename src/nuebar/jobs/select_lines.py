"""Straight lines in the plane of ΔR and Δt, fitted to pairs of the training part at backgrounds of the box cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nuebar.errors import NuebarError
from nuebar.jobs.select_evaluate import LEVELS, Sample, cuts_of, held_out_sample
from nuebar.select.config import SelectionConfig
from nuebar.select.cuts import FIDUCIAL, BoxCuts
from nuebar.select.linear_cut import LinearFit, fit_linear_cut
from nuebar.select.matrices import Matrices, Split

__all__ = ["LINES", "box_line", "fitted_lines", "line_record"]

LINES: Mapping[str, tuple[str, ...]] = {"linear cut": (), "linear cut, whole volume": (FIDUCIAL,)}
"""Label → cuts of the box that are not beside the line."""

_FITTED = 200_000  # antineutrinos that a line is fitted to
_PER_SINGLE = 0.025  # accidental pairs of each stratum for every single, likewise
_FEW, _FEW_PER_SINGLE = 50_000, 0.1  # of the line of the box alone: 2 s, a background of thousands of pairs


def fitted_lines(
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    shares: Mapping[float, float],
    *,
    singles: int,
    seed: int,
    tell: Callable[[str], None] | None = None,
) -> dict[float, dict[str, list[LinearFit | None]]]:
    """Window → label of :data:`LINES` → a line for each background of :data:`LEVELS`, ``None`` for too few pairs.

    Args:
        matrices: Prepared pairs.
        splits: Rows of both classes.
        config: The selection.
        shares: Window in milliseconds → background of the cuts in it.
        singles: To recombine, at most.
        seed: Of the draws.
        tell: Called with the label before each fit.
    """
    train = _training(matrices, splits, config, _FITTED, singles, _PER_SINGLE, seed)
    found: dict[float, dict[str, list[LinearFit | None]]] = {}
    for w, share in shares.items():
        found[w] = {}
        for label, dropped in LINES.items():
            if tell is not None:
                tell(label)
            base = cuts_of(config).without(*dropped)
            found[w][label] = [_line(train, w, factor * share, base) for factor in LEVELS]
    return found


def box_line(matrices: Matrices, splits: Mapping[str, Split], config: SelectionConfig, *, seed: int = 1) -> LinearFit:
    """The line with the background of the box cuts, beside their other cuts, in the window of the selection.

    Args:
        matrices: Prepared pairs.
        splits: Rows of both classes.
        config: The selection.
        seed: Of the draws.

    Raises:
        NuebarError: There are too few pairs for it.
    """
    train = _training(matrices, splits, config, _FEW, _FEW, _FEW_PER_SINGLE, seed)
    cuts = cuts_of(config)
    share = float(train.recombined.weights[cuts.passes(train.mixed)].sum())
    if not share > 0:
        raise NuebarError("the cuts keep none of the recombined pairs of the training part; take more accidentals")
    return fit_linear_cut(train.signal, train.mixed, share, base=cuts, background_weights=train.recombined.weights)


def line_record(fit: LinearFit | None) -> dict[str, Any] | None:
    """For JSON: a ΔR + b Δt = 1 and what it keeps of the pairs of the fit.

    Args:
        fit: A line, or ``None`` for none.
    """
    if fit is None:
        return None
    return {
        "a_per_m": fit.cut.a_per_m,
        "b_per_us": fit.cut.b_per_us,
        "wanted_background": fit.wanted,
        "efficiency": fit.efficiency,
        "background": fit.background,
        "background_pairs": fit.background_pairs,
    }


def _training(
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    pairs: int,
    singles: int,
    per_single: float,
    seed: int,
) -> Sample:
    options: dict[str, Any] = {"pairs": pairs, "singles": singles, "per_single": per_single, "seed": seed}
    return held_out_sample(matrices, splits, config, part="train", **options)


def _line(train: Sample, window_ms: float, share: float, base: BoxCuts) -> LinearFit | None:
    signal = train.signal[train.signal[:, 3] <= 1e3 * window_ms]
    weights = train.recombined.weights
    try:
        return fit_linear_cut(signal, train.mixed_at(window_ms), share, base=base, background_weights=weights)
    except NuebarError:
        return None  # too few pairs for such a background; told as missing

"""What the page of a run shows beside a tuning: coverage by a parametric bootstrap, and the spectra with their fit.

Replicas are data sets drawn from the density at the best fit, with as many events of every source as the data have.
Each is fitted as the data were, norms in closed form and the response flat in its box, and its intervals should hold
the best fit, from which it was drawn, as often as they promise (B. Efron, Ann. Statist. 7 (1979) 1). That asks whether
the likelihood is Gaussian enough for its errors; whether the density is the detector's, the goodness of fit asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from nuebar.errors import NuebarError
from nuebar.io.tunings import TuningResult
from nuebar.stats.ranks import pull_summary
from nuebar.training import generator
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.likelihood import ResponseLikelihood, ResponseProblem
from nuebar.tune.scoring import batched_fits

__all__ = ["LEVELS", "tuning_diagnostics"]

Progress = Callable[[str, int, int], None]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Confidence levels of the central intervals."""

_LEAST = 3  # fits, which pulls need
_MOST_BINS = 120  # of a spectrum on the page
_SHOWN = 0.998  # of the events of a source are in the part that is shown
_MARGIN = 0.05  # of its length, on both sides
_STEPS, _TOLERANCE = 40, 1e-4  # of a fit with background; in units of χ², as single fits have it


def tuning_diagnostics(
    result: TuningResult,
    data: CalibrationData,
    density: Density,
    *,
    replicas: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Coverage of a tuning at its best fit, and its spectra in few bins.

    Args:
        result: Of :func:`nuebar.tune.infer.infer`. Gaussian priors are not in it, so replicas are fitted without.
        data: What was fitted; its counts are used, also after an unbinned fit.
        density: What it was fitted with.
        replicas: Data sets; the same seed gives the same ones.
        seed: Of the replicas.
        progress: Called as ``progress("replicas", done, total)``.

    Returns:
        For JSON, all numbers finite: ``coverage`` with ``parameters``, ``levels``, ``covered`` (share of the
        replicas by parameter and level), ``replicas``, ``failed`` (fits that are left out), ``at_limit`` (best fits
        on a wall of the box, which are not) and ``pulls``; ``spectra`` with ``edges`` of the observable, ``counts``
        and ``expected`` of every source. Where fewer than three fits succeed, ``covered`` and ``pulls`` are empty.

    Raises:
        NuebarError: Too few replicas are wanted, or the data do not suit the density.
    """
    if replicas < _LEAST:
        raise NuebarError(f"replicas: expected at least {_LEAST}, got {replicas}")
    best = np.array([result.best[name] for name in RESPONSE])
    with jax.enable_x64(True):
        likelihood = ResponseLikelihood.build(data, density)
        expected = _expected(likelihood, best, np.array([result.norms[source] for source in data.sources]))
        counts = _replicas(np.asarray(data.counts), expected, replicas, seed)
        if progress is not None:
            progress("replicas", 0, replicas)
        if data.background is None:
            found = batched_fits(density, counts, best, sources=data.sources)
            fits = found.best, found.errors, found.valid, found.at_limit
        else:
            fits = _with_background(counts, data, density, best)
        if progress is not None:
            progress("replicas", replicas, replicas)
    return {"coverage": _coverage(best, *fits), "spectra": _spectra(data, expected)}


def _expected(likelihood: ResponseLikelihood, best: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Counts in bins at the best fit, background included, shape ``(sources, bins)``."""
    signal = (norms * np.asarray(likelihood.signal))[:, None] * np.exp(np.asarray(likelihood.log_p(jnp.asarray(best))))
    return signal if likelihood.background is None else signal + np.asarray(likelihood.background)


def _replicas(counts: np.ndarray, expected: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Data sets with the numbers of events of the data, shape ``(n, sources, bins)``."""
    shape = expected / expected.sum(axis=1, keepdims=True)
    events = np.maximum(np.rint(counts.sum(axis=1)), 1).astype(np.int64)  # expected counts may stand for events
    drawn = [generator(seed, s).multinomial(events[s], shape[s], size=n) for s in range(len(shape))]
    return np.stack(drawn, axis=1).astype(float)


def _with_background(
    counts: np.ndarray, data: CalibrationData, density: Density, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best fits, errors, validity and walls of data sets with background, which have to be fitted one by one."""
    low, high = np.array(density.limits, float).T
    best, errors = np.full((2, len(counts), len(RESPONSE)), np.nan)
    valid = np.zeros(len(counts), bool)
    for i, drawn in enumerate(counts):
        problem = ResponseProblem(ResponseLikelihood.build(replace(data, counts=drawn, charges=None), density))
        end = problem.descend(start, low, high, np.ones(len(RESPONSE), bool), _STEPS, _TOLERANCE)
        best[i], valid[i] = np.clip(np.asarray(end.values), low, high), bool(end.converged)
        information = problem.expansion(best[i])[1]
        unit = np.sqrt(np.diag(information))
        try:
            inverse = np.linalg.inv(information / np.outer(unit, unit))
        except np.linalg.LinAlgError:  # such a replica knows nothing of a parameter
            valid[i] = False
            continue
        errors[i] = np.sqrt(np.maximum(np.diag(inverse), 0.0)) / unit
    return best, errors, valid, (best <= low) | (best >= high)


def _coverage(
    truth: np.ndarray, best: np.ndarray, errors: np.ndarray, valid: np.ndarray, at_limit: np.ndarray
) -> dict[str, Any]:
    good = valid & np.isfinite(best).all(axis=1) & (np.isfinite(errors) & (errors > 0)).all(axis=1)
    pull = np.abs(best[good] - truth) / errors[good]
    record: dict[str, Any] = {
        "parameters": list(RESPONSE),
        "levels": list(LEVELS),
        "covered": {},
        "replicas": len(good),
        "failed": int(np.count_nonzero(~good)),
        "at_limit": {name: int(n) for name, n in zip(RESPONSE, at_limit[good].sum(axis=0), strict=True)},
        "pulls": {},
    }
    if len(pull) < _LEAST:
        return record
    reach = norm.ppf(0.5 + 0.5 * np.array(LEVELS))
    for j, name in enumerate(RESPONSE):
        record["covered"][name] = np.mean(pull[:, j, None] <= reach, axis=0).tolist()
        if np.ptp(best[good, j]) == 0:  # all on one wall
            continue
        told = pull_summary(best[good, j], errors[good, j], truth[j])
        record["pulls"][name] = {k: float(getattr(told, k)) for k in ("mean", "mean_error", "width", "width_error")}
    return record


# ---------------------------------------------------------------- spectra


def _spectra(data: CalibrationData, expected: np.ndarray) -> dict[str, Any]:
    found = {}
    for source, counts, fitted in zip(data.sources, data.counts, expected, strict=True):
        first, last, step = _part(np.asarray(counts) + fitted)
        edges = data.edges[first : last + 1 : step]
        merged = (a[first:last].reshape(-1, step).sum(axis=1) for a in (np.asarray(counts), fitted))
        n, mu = ([float(f"{x:.6g}") for x in a] for a in merged)
        found[source] = {"edges": [float(f"{x:.10g}") for x in edges], "counts": n, "expected": mu}
    return found


def _part(content: np.ndarray) -> tuple[int, int, int]:
    """First bin, end and how many bins become one, so that nearly all events are in a few whole bins."""
    share = np.cumsum(content) / content.sum()
    first, last = (int(np.searchsorted(share, q)) for q in (0.5 - 0.5 * _SHOWN, 0.5 + 0.5 * _SHOWN))
    margin = int(np.ceil(_MARGIN * (last + 1 - first)))
    first, last = max(first - margin, 0), min(last + 1 + margin, content.size)
    step = -(-(last - first) // _MOST_BINS)
    short = -(last - first) % step  # bins that the last one lacks
    first = max(first - max(last + short - content.size, 0), 0)
    last = min(last + short, content.size)
    return first, last - (last - first) % step, step

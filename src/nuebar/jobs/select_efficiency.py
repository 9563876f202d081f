"""How much a selection keeps, against the reconstructed energy of the prompt event, measured on Monte Carlo pairs.

For each source and each bin of prompt ``e_rec_MeV`` three nested numbers of pairs::

    interactions   all simulated pairs: vertex anywhere in the scintillator, any time, any energies
    fiducial       of these, the prompt vertex is reconstructed inside of fiducial_m
    selected       of these, the pair is a candidate: both energies, time, distance, delayed energy and score, as
                   PairDecision says, which ``nuebar select apply`` asks, too

``efficiency`` is selected / fiducial, ``fiducial_share`` fiducial / interactions; the product of both times the
interactions in live time is what a sample holds. Numerator and denominator are in the same bin: nothing migrates, as
a prompt event has one reconstructed energy, whatever is done with it. What is *not* in here: muon veto and dead time
(they are in the live time of the sample), the multiplicity rule (``survival`` of the sample), and events that the
detector does not record, as the threshold of the selection is above that of the detector.

With weights all numbers are sums of weights, and their errors those of such sums.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.event_paths import Paths
from nuebar.io.events import BATCH_ROWS, EventFile
from nuebar.io.results import save_result, versions
from nuebar.jobs.pair_sample import SIGNAL
from nuebar.jobs.select_apply import PairDecision, pair_options
from nuebar.parameters import OSCILLATION
from nuebar.select.classifier import Classifier
from nuebar.select.config import SelectionConfig
from nuebar.select.counting import weighted_interval
from nuebar.select.features import PAIR_COLUMNS

__all__ = ["LEVELS", "save_efficiency", "selection_efficiency", "survival_weights"]

LEVELS = ("interactions", "fiducial", "selected")
"""Nested numbers of pairs, from all to the candidates."""

_ENERGY, _CORE = "true_e_nu_MeV", "true_core"
_BATCH = min(BATCH_ROWS, 1 << 18)


def selection_efficiency(
    paths: Mapping[str, Paths],
    *,
    classifier: Classifier,
    threshold: float,
    config: SelectionConfig,
    edges: np.ndarray,
    fiducial_m: float | None = None,
    delayed_MeV: float | None = None,
    max_dr_m: float | None = 5.0,
    muon_MeV: float = 100.0,
    oscillation: Mapping[str, float] | None = None,
    experiment: Experiment | None = None,
) -> dict[str, Any]:
    """Measure the efficiency of a selection, source by source and bin by bin.

    Args:
        paths: Source → files of pairs, such as those of :func:`~nuebar.jobs.pair_sample.run_pair_sample`: all pairs
            that were simulated, none left out. They are read in batches.
        classifier: What scores.
        threshold: Least score.
        config: Window and threshold of a pair. Its veto and its multiplicity rule are not applied.
        edges: Of bins of prompt ``e_rec_MeV``, increasing.
        fiducial_m: As in the selection, and so on: the options of
            :class:`~nuebar.jobs.select_apply.SelectApplyJob`.
        delayed_MeV: Least delayed energy.
        max_dr_m: Largest distance.
        muon_MeV: Events with more are muons.
        oscillation: Weigh the pairs of ``"ibd"`` with the survival probability at these parameters; ``None`` for no
            weights. The files must be without oscillations then.
        experiment: Cores and matter for that.

    Returns:
        JSON-able: ``selection`` and, by source, ``sources``: ``pairs`` (a number of rows), ``weights`` (what they are
        of, or ``None``), lists over the bins of ``interactions``, ``fiducial``, ``selected``, of ``efficiency``
        (``None`` in a bin without pairs) and of ``efficiency_error``, ``interactions_error`` and ``selected_error``;
        and ``total``, over all pairs, those out of the bins included, with the three numbers, ``efficiency``,
        ``fiducial_share`` and ``acceptance`` (selected / interactions) as ``{"value", "error"}``. Errors of shares are
        binomial, of weighted pairs with Σw²; of a share of 0 or 1 the length of the 68 % interval of Clopper and
        Pearson.

    Raises:
        NuebarError: Edges that do not increase, oscillations without experiment, or files that hold no pairs.
    """
    edges = np.asarray(edges, float)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise NuebarError("edges: expected at least two energies that increase; correct them")
    if oscillation is not None and experiment is None:
        raise NuebarError("oscillation: expected the experiment, too, for baselines and matter; give both")
    options = pair_options(config, muon_MeV=muon_MeV, max_dr_m=max_dr_m, delayed_MeV=delayed_MeV)
    decision = PairDecision(
        classifier=classifier,
        threshold=threshold,
        # A pair alone knows no third event and no muon.
        options=replace(options, isolation=None, veto=None),
        fiducial_m=fiducial_m,
    )
    sources = {}
    for name, files in paths.items():
        weighted = oscillation if name == SIGNAL else None
        sums, pairs = _sums(files, decision, edges, weighted, experiment)
        sources[name] = {"pairs": pairs, "weights": dict(weighted) if weighted is not None else None, **_record(sums)}
    return {
        "kind": "selection efficiency",
        "edges_MeV": edges.tolist(),
        "selection": {
            "classifier": classifier.name,
            "threshold": float(threshold),
            "fiducial_m": fiducial_m,
            **{k: v for k, v in asdict(decision.options).items() if v is not None},
        },
        "sources": sources,
        "versions": versions(),
    }


def save_efficiency(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write what :func:`selection_efficiency` returned, whole or not at all.

    Args:
        path: The JSON file.
        record: The record.
    """
    save_result(Path(path), record)


def survival_weights(
    e_nu_MeV: np.ndarray, core: np.ndarray, experiment: Experiment, oscillation: Mapping[str, float]
) -> np.ndarray:
    """Survival probability of the antineutrinos of pairs, in the matter of the experiment.

    Args:
        e_nu_MeV: Energies, shape ``(n,)``.
        core: Which core each is from, counted as in the experiment.
        experiment: Baselines and density.
        oscillation: sin²θ12, sin²θ13, Δm²21, Δm²31.

    Returns:
        float64, shape ``(n,)``.

    Raises:
        NuebarError: A core that the experiment does not have, or a parameter that is missing.
    """
    import jax

    from nuebar.physics.oscillation import matter

    baselines = np.array([c.baseline_km for c in experiment.reactor.cores])
    if core.size and not 0 <= int(core.min()) <= int(core.max()) < baselines.size:
        raise NuebarError(
            f"column {_CORE!r}: expected numbers of the {baselines.size} cores of {experiment.name}, got "
            f"{int(core.max())}; give the experiment that the pairs were simulated for"
        )
    missing = [name for name in OSCILLATION if name not in oscillation]
    if missing:
        raise NuebarError(f"oscillation: expected {', '.join(OSCILLATION)}, got no {missing[0]}; give it")
    with jax.enable_x64(True):
        survival = matter(
            e_nu_MeV,
            baselines[core],
            **{name: float(oscillation[name]) for name in OSCILLATION},
            density_g_cm3=experiment.matter.density_g_cm3,
            electrons_per_nucleon=experiment.matter.electrons_per_nucleon,
        )
        return np.asarray(survival)


# ---------------------------------------------------------------- sums


def _sums(
    files: Paths,
    decision: PairDecision,
    edges: np.ndarray,
    oscillation: Mapping[str, float] | None,
    experiment: Experiment | None,
) -> tuple[np.ndarray, int]:
    """Σw and Σw² of each level, shape ``(3, 2, bins + 1)``, the last entry for pairs out of the bins; and the rows."""
    more = (_ENERGY, _CORE) if oscillation is not None else ()
    events = EventFile(files, (*PAIR_COLUMNS, *more))
    if not events.n_rows:
        raise NuebarError(f"{events.paths[0]}: expected pairs, got no rows; simulate them again")
    bins = edges.size - 1
    sums = np.zeros((len(LEVELS), 2, bins + 1))
    for pairs in events.batches(_BATCH):
        n = pairs["dt_ns"].size
        weights = np.ones(n)
        if oscillation is not None and experiment is not None:
            # One length for all batches: jax compiles for each anew.
            e_nu, core = (np.pad(pairs[name], (0, _BATCH - n), mode="edge") for name in more)
            weights = survival_weights(e_nu, core, experiment, oscillation)[:n]
        selected, _, _ = decision.scored(pairs)
        where = np.searchsorted(edges, pairs["prompt_e_rec_MeV"].astype(float), side="right") - 1
        where = np.where((where >= 0) & (where < bins), where, bins)
        for level, kept in enumerate((np.ones(n, bool), decision.inside(pairs), selected)):
            for power in (0, 1):
                sums[level, power] += np.bincount(where[kept], weights[kept] ** (power + 1), bins + 1)
    return sums, events.n_rows


def _record(sums: np.ndarray) -> dict[str, Any]:
    """What the sums say, bin by bin and in all."""
    inside, whole = sums[:, :, :-1], sums.sum(axis=2)
    efficiency, error = _share(inside[1], inside[2])
    everything, fiducial, selected = whole
    total: dict[str, Any] = {
        name: {"value": float(w), "error": float(np.sqrt(w2))} for name, (w, w2) in zip(LEVELS, whole, strict=True)
    }
    for name, of, part in (
        ("fiducial_share", everything, fiducial),
        ("efficiency", fiducial, selected),
        ("acceptance", everything, selected),
    ):
        value, spread = _share(of[:, None], part[:, None])
        total[name] = {"value": value[0], "error": spread[0]}
    return {
        **{name: inside[level, 0].tolist() for level, name in enumerate(LEVELS)},
        **{f"{name}_error": np.sqrt(inside[level, 1]).tolist() for level, name in enumerate(LEVELS)},
        "efficiency": efficiency,
        "efficiency_error": error,
        "total": total,
    }


def _share(of: np.ndarray, part: np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """Part over whole with its error, from Σw and Σw² of shape ``(2, n)`` each; ``None`` where there is nothing.

    Var = Σ w² (s - f)² / (Σ w)², s = 1 for what is in the part and 0 for the rest of the whole.
    """
    (w, w2), (p, p2) = of, part
    there = w > 0
    w, w2 = np.where(there, w, 1.0), np.where(there, w2, 1.0)
    f = np.clip(p / w, 0.0, 1.0)
    variance = np.maximum((1 - 2 * f) * p2 + f**2 * w2, 0.0) / w**2
    # Weights differ within the sums: all of them in, or none, has no variance but by rounding.
    sure = (f < 1e-12) | (f > 1 - 1e-12)
    low, high, _ = weighted_interval(np.where(sure, np.round(f), 0.5), 0.0, w2 / w**2)
    error = np.where(sure, high - low, np.sqrt(variance))
    return _told(f, there), _told(error, there)


def _told(values: np.ndarray, there: np.ndarray) -> list[float | None]:
    return [float(v) if ok else None for v, ok in zip(values, there, strict=True)]

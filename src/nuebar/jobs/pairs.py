"""Monte Carlo pairs of the command line: files of an experiment's reactors, in chosen bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.predict.pairs import Pairs, read_pairs
from nuebar.predict.signal import signal_inputs

__all__ = ["even_edges", "experiment_pairs"]

Progress = Callable[[str, int, int], None]
VERTEX = "give the vertex in a column map, or --no-fiducial if the pairs are selected already"


def even_edges(bins: int, low_MeV: float, high_MeV: float) -> np.ndarray:
    """Edges of even bins.

    Raises:
        NuebarError: Fewer than 10 bins, or no range above 0.
    """
    if not (bins >= 10 and 0 < low_MeV < high_MeV < 100):
        raise NuebarError(
            f"--bins, --from, --to: expected at least 10 bins in a range above 0 MeV, got {bins} from {low_MeV:g} to "
            f"{high_MeV:g} MeV"
        )
    return np.linspace(low_MeV, high_MeV, bins + 1)


def experiment_pairs(
    paths: Sequence[str],
    edges_MeV: np.ndarray,
    experiment: Experiment,
    *,
    columns: Path | None = None,
    fiducial: bool = True,
    progress: Progress | None = None,
) -> Pairs:
    """Read pairs that were simulated for the reactors of an experiment.

    Args:
        paths: Files and folders.
        edges_MeV: Bins of reconstructed energy.
        experiment: Its cores give names and shares; its ``[detector]`` the fiducial volume.
        columns: A column map.
        fiducial: Leave out what is outside of the fiducial volume, where the experiment has one.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A file cannot be used, or does not say where its pairs are.
    """
    files = [f for path in paths for f in find_files(path)]
    cores = experiment.reactor.cores
    radius = experiment.detector.fiducial_radius_m if fiducial and experiment.detector is not None else None
    events = signal_inputs(experiment).events.sum(axis=1)
    try:
        pairs = read_pairs(
            files,
            edges_MeV,
            column_map=columns,
            baseline_km=[c.baseline_km for c in cores],
            core_names=[c.name for c in cores],
            core_share=events / events.sum(),
            fiducial_radius_m=radius,
            progress=progress,
            least_per_bin=0,
        )
    except NuebarError as error:
        if radius is not None and "expected a vertex" in str(error):
            raise NuebarError(f"{error}; {VERTEX}") from error
        raise
    note = {"fiducial_radius_m": f"{radius:g}"} if radius is not None else {}
    return replace(pairs, provenance={**pairs.provenance, **note})

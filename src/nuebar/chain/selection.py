"""The stage ``select``: a stream becomes a sample, its accidental background and its efficiency are measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.chain.run_file import RunFile
from nuebar.config import Experiment, load_experiment
from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.io.histograms import Histogram
from nuebar.io.results import save_result
from nuebar.jobs.ibd import oscillation_of
from nuebar.jobs.select_apply import SelectApplyJob, chosen_threshold, run_apply
from nuebar.jobs.select_diagnostics import selection_diagnostics
from nuebar.jobs.select_efficiency import save_efficiency, selection_efficiency
from nuebar.select.config import SelectionConfig, load_selection

__all__ = ["SAMPLE", "apply_job", "fiducial_radius_m", "monte_carlo_files", "run_selection", "sample_efficiency"]

Progress = Callable[[str, int, int], None]
SAMPLE = ("prompt.json", "accidentals.json", "summary.json", "efficiency.json")
"""What the later stages need of a selected sample."""
_OFF_TIME_PAIRS = 50_000


def apply_job(run: RunFile, stream: str) -> SelectApplyJob:
    """What ``nuebar select apply`` is asked for."""
    s, f = run.select, run.fit
    return SelectApplyJob(
        stream=stream,
        classifier=s.classifier,
        at=s.at,
        threshold=s.threshold,
        selection=s.selection,
        columns=run.data.stream_columns,
        muon_MeV=s.muon_MeV,
        muon_veto_ms=s.muon_veto_ms,
        max_dr_m=s.max_dr_m,
        fiducial_m=fiducial_radius_m(run) if s.fiducial else None,
        delayed_MeV=s.delayed_MeV,
        offset_ms=s.offset_ms,
        windows=s.windows,
        bins=f.bins,
        low_MeV=f.low_MeV,
        high_MeV=f.high_MeV,
        truth=False,
        off_time_sample=_OFF_TIME_PAIRS,
        command="nuebar run",
    )


def fiducial_radius_m(run: RunFile) -> float:
    """Of the experiment's detector, or of the selection where the experiment has none."""
    detector = load_experiment(run.experiment).detector
    if detector is not None:
        return detector.fiducial_radius_m
    return load_selection(run.select.selection).detector.fiducial_radius_m


def monte_carlo_files(run: RunFile, home: Path) -> dict[str, list[Path]]:
    """Source of pairs → files of its Monte Carlo.

    Raises:
        NuebarError: There are no antineutrinos among them.
    """
    if run.data.monte_carlo:
        found = {name: list(find_files(path)) for name, path in run.data.monte_carlo.items()}
    else:
        folder = home / "simulate" / "monte-carlo"
        found = {p.name: sorted(p.glob("chunk-*.parquet")) for p in sorted(folder.iterdir()) if p.is_dir()}
        found = {name: files for name, files in found.items() if files}
    if "ibd" not in found:
        raise NuebarError(
            "the efficiency needs Monte Carlo pairs of antineutrinos, got none; name data.monte_carlo.ibd"
        )
    return found


def sample_efficiency(
    run: RunFile, experiment: Experiment, config: SelectionConfig, files: Mapping[str, list[Path]]
) -> dict[str, Any]:
    """Efficiency of the run's selection for every source of pairs."""
    job = apply_job(run, "")
    classifier, threshold, _ = chosen_threshold(job, config)
    edges = np.linspace(run.fit.low_MeV, run.fit.high_MeV, run.fit.bins + 1)
    return selection_efficiency(
        files,
        classifier=classifier,
        threshold=threshold,
        config=config,
        fiducial_m=job.fiducial_m,
        delayed_MeV=job.delayed_MeV,
        max_dr_m=job.max_dr_m,
        muon_MeV=job.muon_MeV,
        edges=edges,
        experiment=experiment,
        oscillation=oscillation_of(experiment),
    )


def run_selection(run: RunFile, home: Path, place: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Select, measure accidentals and efficiency, and explain.

    Args:
        run: The run file.
        home: Folder of the run, of which the stage ``simulate`` is read.
        place: Folder of the stage.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The main numbers, for the record.
    """
    if run.data.sample is not None:
        return _taken(run, Path(run.data.sample), place)
    config, experiment = load_selection(run.select.selection), load_experiment(run.experiment)
    stream = run.data.stream or str(home / "simulate" / "stream")
    summary = run_apply(apply_job(run, stream), place, progress=progress)
    files = monte_carlo_files(run, home)
    efficiency = sample_efficiency(run, experiment, config, files)
    save_efficiency(place / "efficiency.json", efficiency)
    job = apply_job(run, stream)
    classifier, threshold, _ = chosen_threshold(job, config)
    if run.select.explained:
        found = selection_diagnostics(
            ibd=files["ibd"],
            off_time=place / "off_time.parquet",
            off_time_total=summary["off_time_sample"]["pairs"],
            windows=run.select.windows,
            live_days=summary["live_days"],
            classifier=classifier,
            threshold=threshold,
            config=config,
            fiducial_m=job.fiducial_m,
            delayed_MeV=job.delayed_MeV,
            max_dr_m=job.max_dr_m,
            muon_MeV=job.muon_MeV,
            seed=run.seed,
            events=run.select.explained,
        )
        save_result(place / "diagnostics.json", {"kind": "selection diagnostics", **found})
    return {k: summary[k] for k in ("candidates", "accidentals", "live_days")}


def _taken(run: RunFile, sample: Path, place: Path) -> dict[str, Any]:
    """A sample that the user selected, copied so that later stages read the run's own folder only."""
    for name in SAMPLE:
        if not (sample / name).is_file():
            raise NuebarError(
                f"{sample}: expected a selected sample with {', '.join(SAMPLE)}, found no {name}; see docs/chain.md"
            )
    found, f = Histogram.load(sample / "prompt.json").edges, run.fit
    if found.size != f.bins + 1 or abs(found[0] - f.low_MeV) > 1e-6 or abs(found[-1] - f.high_MeV) > 1e-6:
        raise NuebarError(
            f"{sample / 'prompt.json'}: expected the bins of the run file, {f.bins} from {f.low_MeV:g} to "
            f"{f.high_MeV:g} MeV, got {found.size - 1} from {found[0]:g} to {found[-1]:g}; change fit.bins, "
            "fit.low_MeV and fit.high_MeV"
        )
    for name in SAMPLE:
        shutil.copyfile(sample / name, place / name)
    return {"sample": sample.name}

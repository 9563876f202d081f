"""The stage ``simulate``: data with a hidden truth, and the Monte Carlo that every experiment has.

What it writes: ``truth.json`` (for the report only), ``auxiliary.json`` (what other measurements say of nuisance
parameters), ``stream/``, ``calibration/``, and ``monte-carlo/<source>/`` at the nominal response. Data of the user's
own replace stream, calibration or Monte Carlo; then there is no truth to be hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.chain.experiment import fit_experiment, prior_widths
from nuebar.chain.run_file import RunFile
from nuebar.chain.selection import fiducial_radius_m
from nuebar.chain.truth import Truth, auxiliary_centres, draw_truth, part_seed
from nuebar.config import Experiment, load_experiment, override
from nuebar.errors import NuebarError
from nuebar.io.results import save_result
from nuebar.jobs.calibration import CalibrationJob, run_calibration, write_point
from nuebar.jobs.pair_sample import PairSampleJob, run_pair_sample
from nuebar.jobs.stream import Skim, StreamJob, run_stream
from nuebar.run import Workers
from nuebar.select.config import load_selection

__all__ = ["interactions_per_day", "run_simulation", "simulated_experiment"]

Progress = Callable[[str, int, int], None]


def interactions_per_day(experiment: Experiment, oscillation: Mapping[str, float] | None = None) -> float:
    """Antineutrino interactions a day in the whole target, from the experiment's own flux.

    Args:
        experiment: Reactors, cross-section, protons.
        oscillation: Oscillation parameters; ``None`` for none.
    """
    from nuebar.physics.oscillation import matter
    from nuebar.predict.signal import signal_inputs

    inputs = signal_inputs(experiment)
    events = np.asarray(inputs.events)
    if oscillation is not None:
        survival = [
            matter(
                inputs.e_nu_MeV,
                km,
                **oscillation,
                density_g_cm3=experiment.matter.density_g_cm3,
                electrons_per_nucleon=experiment.matter.electrons_per_nucleon,
            )
            for km in np.asarray(inputs.baseline_km).tolist()
        ]
        events = events * np.array([np.asarray(p) for p in survival])
    return float(events.sum() / (experiment.target.efficiency * experiment.exposure.days))


def simulated_experiment(experiment: Experiment, truth: Truth) -> Experiment:
    """The experiment with the rate of antineutrinos that its flux and the true oscillation give."""
    rate = interactions_per_day(experiment, truth.oscillation)
    return override(experiment, {"detector.ibd_per_day": rate})


def run_simulation(run: RunFile, place: Path, *, jobs: Workers = 1, progress: Progress | None = None) -> dict[str, Any]:
    """Simulate what the run does not take from its user.

    Args:
        run: The run file.
        place: Folder of the stage.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        What was simulated, for the record; nothing of the truth.
    """
    experiment = load_experiment(run.experiment)
    if experiment.detector is None:
        raise NuebarError(f"{run.experiment}: expected a table [detector] to simulate with; see juno.toml")
    options: dict[str, Any] = {"jobs": jobs, "progress": progress}
    told: dict[str, Any] = {"simulated": run.simulated}
    s, data = run.simulate, run.data
    if run.simulated:
        truth = draw_truth(run)
        truth.save(place / "truth.json")
        widths = prior_widths(fit_experiment(run, experiment))
        centres = auxiliary_centres(widths, truth.oscillation, run.seed)
        save_result(place / "auxiliary.json", {"kind": "auxiliary measurements", "simulated": True, "centres": centres})
        selection = load_selection(run.select.selection)
        skim = Skim(
            fiducial_m=fiducial_radius_m(run) if run.select.fiducial else experiment.detector.radius_m + 1,
            prompt_MeV=selection.pairs.threshold_MeV,
            delayed_MeV=max(run.select.delayed_MeV, selection.pairs.threshold_MeV),
        )
        stream = StreamJob(
            simulated_experiment(experiment, truth),
            days=s.days,
            window_s=s.window_s,
            oscillation=dict(truth.oscillation),
            response=truth.light,
            cascades=s.cascades,
            above_MeV=selection.pairs.threshold_MeV,
            skim=skim,
            truth=False,
            seed=part_seed(run.seed, "stream"),
        )
        made = run_stream(stream, place, **options)
        told["stream"] = {"days": s.days, "events": sum((x or {})["events"] for x in made.summaries)}
        calibration = CalibrationJob(
            experiment,
            response=truth.light,
            events=s.calibration_events,
            cascades=s.calibration_cascades,
            seed=part_seed(run.seed, "calibration"),
        )
        point = run_calibration(calibration, place, **options)
        told["calibration"] = [path.stem for path in write_point(point, place / "calibration", truth=False)]
    if not data.monte_carlo and data.sample is None:
        numbers = {"ibd": s.monte_carlo_ibd}
        numbers |= {pairs.name: s.monte_carlo_backgrounds for pairs in experiment.detector.pairs}
        sample = PairSampleJob(experiment, pairs=numbers, seed=part_seed(run.seed, "monte-carlo"))
        run_pair_sample(sample, place / "monte-carlo", **options)
        told["monte_carlo"] = numbers
    return told

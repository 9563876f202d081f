"""Monte Carlo pairs of every source that a detector has: what efficiencies and expected shapes are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.event_writer import EventWriter
from nuebar.jobs.experiments import described, recalled
from nuebar.jobs.ibd import IbdJob, load_spectrum, run_ibd, spectrum_stage
from nuebar.jobs.stream import pair_sources, shapes_stage
from nuebar.run import Stage, Workers, run_stage
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key
from nuebar.simulate.stream import PairKeys, drawn_pairs

__all__ = ["SIGNAL", "PairSampleJob", "pair_sample_chunk", "run_pair_sample", "sampled_sources"]

Progress = Callable[[str, int, int], None]

SIGNAL = "ibd"
"""The source of antineutrinos; all others are the detector's correlated backgrounds."""

_PER_CHUNK = 25_000  # a source at the edge makes ten times as many cascades
_EVENT = ("e_rec_MeV", "x_m", "y_m", "z_m")
_COLUMNS = (*(f"{part}_{name}" for part in ("prompt", "delayed") for name in _EVENT), "dt_ns")
_OWN = ("spectrum", "shapes", SIGNAL)  # stages that are no backgrounds


@dataclass(frozen=True)
class PairSampleJob:
    """A Monte Carlo of pairs of every source.

    Attributes:
        experiment: Detector and reactors.
        pairs: How many of each source; or by source, none of those that are not named.
        response: kB, fC and light yield; those of the experiment by default.
        seed: Seed of the run; a stream of the same seed has other pairs.
    """

    experiment: Experiment
    pairs: Mapping[str, int] | int
    response: Response | None = None
    seed: int = 1


def sampled_sources(experiment: Experiment) -> tuple[str, ...]:
    """Names of the sources of pairs of a detector: antineutrinos first.

    Raises:
        NuebarError: The experiment has no detector, or a background a name that files of this run have.
    """
    if experiment.detector is None:
        raise NuebarError(f"{experiment.name}: expected a table [detector], found none; see juno.toml")
    backgrounds = tuple(p.name for p in experiment.detector.pairs)
    for name in backgrounds:
        if name in _OWN:
            raise NuebarError(f"detector.pairs.{name}: expected a name other than {', '.join(_OWN)}; rename it")
    return SIGNAL, *backgrounds


def run_pair_sample(
    job: PairSampleJob,
    folder: str | Path,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> dict[str, tuple[Path, ...]]:
    """Make the pairs of every source, in the whole scintillator and without any cut or oscillation.

    Antineutrinos are those of :func:`~nuebar.jobs.ibd.run_ibd`, with the truth of the interaction. A background is
    what the stream has of it; its delayed events are of neutrons of un-oscillated antineutrinos.

    Args:
        job: What is wanted.
        folder: The run folder; the pairs are ``<source>/chunk-*.parquet``, beside ``spectrum`` and ``shapes``.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away what another configuration has left there.
        max_seconds: Start nothing new after this time, stage by stage.

    Returns:
        Source → its files. Columns :data:`~nuebar.select.features.PAIR_COLUMNS`, and for antineutrinos all of
        :func:`~nuebar.simulate.ibd.ibd_events`, ``true_e_nu_MeV`` and ``true_core`` among them.
    """
    sources = sampled_sources(job.experiment)
    wanted = _numbers(job.pairs, sources)
    options: dict[str, Any] = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
    made: dict[str, tuple[Path, ...]] = {}
    run_stage(folder, spectrum_stage(job.experiment, None), seed=job.seed, **options)
    if SIGNAL in wanted:
        ibd = IbdJob(job.experiment, wanted[SIGNAL], job.response, seed=job.seed)
        made[SIGNAL] = run_ibd(ibd, folder, **options).paths
    backgrounds = [name for name in sources if name in wanted and name != SIGNAL]
    if backgrounds:
        run_stage(folder, shapes_stage(job.experiment), seed=job.seed, **options)
    r = job.response
    for name in backgrounds:
        config = {
            "experiment": described(job.experiment),
            "source": name,
            "pairs": wanted[name],
            "response": [r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV] if r is not None else None,
        }
        chunks = -(-wanted[name] // _PER_CHUNK)
        stage = Stage(name, "nuebar.jobs.pair_sample:pair_sample_chunk", config, chunks)
        made[name] = run_stage(folder, stage, seed=job.seed, **options).paths
    return made


def pair_sample_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """One chunk of pairs of a background."""
    folder = path.parents[1]
    response = Response(*config["response"]) if config["response"] is not None else None
    model = DetectorModel.build(recalled(config["experiment"]), response)
    spectrum = load_spectrum(folder / "spectrum" / "chunk-00000.safetensors")
    shape = next(s for s in pair_sources(model, folder) if s.name == config["source"])
    pairs = min(_PER_CHUNK, config["pairs"] - chunk * _PER_CHUNK)
    rng = np.random.Generator(np.random.Philox(key=int(derive_key(key, "choices"))))
    keys = PairKeys(*(derive_key(key, word) for word in PairKeys._fields))
    events = drawn_pairs(shape, pairs, spectrum, model, rng, keys)
    columns = {name: events[name] for name in _COLUMNS}
    for part in ("prompt", "delayed"):
        # Dark counts, subtracted, may leave less than nothing.
        columns[f"{part}_e_rec_MeV"] = np.maximum(columns[f"{part}_e_rec_MeV"], 0.0)
    about = {"kind": "pairs", "source": shape.name, "response": vars(model.response)}
    with EventWriter(path, _COLUMNS, metadata=about) as writer:
        writer.append(columns)
    return {"pairs": int(events["dt_ns"].size)}


def _numbers(pairs: Mapping[str, int] | int, sources: tuple[str, ...]) -> dict[str, int]:
    """Wanted pairs by source, none of which is 0."""
    numbers = dict.fromkeys(sources, pairs) if isinstance(pairs, int) else dict(pairs)
    for name, number in numbers.items():
        if name not in sources:
            raise NuebarError(f"pairs: expected sources of {', '.join(sources)}, got {name!r}; correct the name")
        if type(number) is not int or number < 1:
            raise NuebarError(
                f"pairs of {name}: expected a whole number above 0, got {number!r}; leave it out or correct it"
            )
    return numbers

"""Toys of the mass ordering in chunks: either ordering true, every toy fitted in both, and what they say together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nuebar.config import Experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.goodness import p_value as share_above
from nuebar.fit.ordering import OrderingStudy, OrderingToys
from nuebar.fit.toys import ToyOptions, joined
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.jobs.fit_config import fit_job, told
from nuebar.jobs.many_files import arrays_of, results_of
from nuebar.jobs.resolutions import OWN, changes
from nuebar.run import Stage, Workers, run_stage

__all__ = ["ToysOfBoth", "ordering_experiment", "ordering_study", "ordering_toys_chunk", "p_value", "run_ordering_toys"]

PER_CHUNK = 250
TRUTHS = ("normal", "inverted")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ToysOfBoth:
    """What is to be drawn and fitted.

    Attributes:
        fit: Experiment, inputs, predictor, statistic and what is fixed.
        resolution: One of the named resolutions, or "own".
        factor: Exposure over that of the experiment.
        smallest: Smallest exposure factor of the study, which sets how wide its windows are.
        toys: How many for either true ordering.
        constraints: Whether the centres of the constraints fluctuate.
        shape: Whether expectations fluctuate within their bin-to-bin uncertainties.
        seed: Of the study.
    """

    fit: FitJob
    resolution: str
    factor: float
    smallest: float
    toys: int
    constraints: bool = True
    shape: bool = True
    seed: int = 1


def run_ordering_toys(
    job: ToysOfBoth,
    folder: str | os.PathLike[str] | None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> dict[str, OrderingToys]:
    """True ordering → its toys; with a folder in chunks, and the same call continues.

    Args:
        job: What is wanted.
        folder: Where chunks are kept; without one everything happens in this process, and nothing is kept.
        jobs: Number of processes, or what else runs the chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk after this time.
    """
    if folder is None:
        study = ordering_study(job.fit, job.resolution, job.smallest)
        tick = None if progress is None else (lambda done, total: progress("toys", done, total))
        return {t: _toys(study, job, t, 0, job.toys, tick) for t in TRUTHS}
    blocks = -(-job.toys // PER_CHUNK)
    config = {
        "fit": told(job.fit),
        "resolution": job.resolution,
        "factor": job.factor,
        "smallest": job.smallest,
        "constraints": job.constraints,
        "shape": job.shape,
        "seed": job.seed,
    }
    stage = Stage(
        "ordering-toys",
        "nuebar.jobs.ordering_toys:ordering_toys_chunk",
        config,
        len(TRUTHS) * blocks,
        ".safetensors",
        isolated=True,
    )
    done = run_stage(folder, stage, seed=job.seed, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds)
    return {t: _joined([_loaded(p) for p in done.paths[k :: len(TRUTHS)]], job.toys) for k, t in enumerate(TRUTHS)}


def ordering_toys_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The toys of one block and true ordering: they follow from the seed and their numbers, not from the chunk."""
    block, k = divmod(chunk, len(TRUTHS))
    job = ToysOfBoth(**{**config, "fit": fit_job(config["fit"]), "toys": PER_CHUNK})
    text = json.dumps([config["fit"], config["resolution"], config["smallest"]], sort_keys=True)
    toys = _toys(_recalled(text), job, TRUTHS[k], block * PER_CHUNK, PER_CHUNK, None)
    arrays = arrays_of(toys.right, "right/") | arrays_of(toys.wrong, "wrong/")
    notes = {
        "format": 1,
        "names": list(toys.right.names),
        "free": list(toys.right.free),
        "truth": toys.truth,
        "factor": toys.factor,
        "moved": list(toys.moved),
    }
    save_arrays(path, arrays, notes)
    return {"toys": PER_CHUNK, "valid": int(toys.valid.sum())}


def ordering_experiment(job: FitJob, resolution: str) -> tuple[FitJob, Experiment]:
    """Job and experiment of a study: expected counts of the normal ordering, with one of the named resolutions."""
    wanted = FitJob(
        **{
            **job.__dict__,
            "asimov": True,
            "data": None,
            "ordering": "normal",
            "exposure_years": None,
            "exposure_days": None,
        }
    )
    _check(wanted)
    base = _experiment(wanted)
    return wanted, base if resolution == OWN else override(base, changes(resolution))


def ordering_study(job: FitJob, resolution: str, smallest: float, *, threads: int | None = None) -> OrderingStudy:
    """The study of one resolution.

    Args:
        job: The fit.
        resolution: One of the named resolutions, or "own".
        smallest: Smallest exposure factor that will be asked for.
        threads: As for :class:`nuebar.fit.many.ManyFits`.
    """
    from nuebar.io.releases import read_common_inputs

    wanted, experiment = ordering_experiment(job, resolution)
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    return OrderingStudy(_prepare(wanted, experiment, None, inputs, None)[0], smallest=smallest, threads=threads)


def p_value(toys: Mapping[str, OrderingToys], truth: str, delta_chi2: float) -> tuple[float, float]:
    """How often the other ordering, if it were true, would look at least as much like this one.

    Args:
        toys: True ordering → its toys.
        truth: The ordering that Δχ² favours where it is positive.
        delta_chi2: χ² of the other ordering less that of this one.

    Returns:
        (1 + toys of the other ordering with a Δχ² at least as large)/(1 + toys), and its error, which is at least that
        of one toy; as :func:`nuebar.fit.goodness.p_value` has it.
    """
    other = TRUTHS[1 - TRUTHS.index(truth)]
    # The toys of the other ordering count their own truth as the right one.
    d = -toys[other].delta_chi2
    if d.size == 0:
        raise NuebarError("ordering: expected valid toys of the other ordering, got none; look at their failures")
    found = share_above(delta_chi2, d)
    return found.p, found.error


# ---------------------------------------------------------------- helpers


def _toys(
    study: OrderingStudy, job: ToysOfBoth, truth: str, first: int, n: int, tick: Callable[[int, int], None] | None
) -> OrderingToys:
    options = ToyOptions(constraints=job.constraints, shape=job.shape)
    return study.toys(job.factor, n, seed=job.seed, truth=truth, first=first, options=options, progress=tick)


@lru_cache(maxsize=2)
def _recalled(text: str) -> OrderingStudy:
    fit, resolution, smallest = json.loads(text)
    return ordering_study(fit_job(fit), resolution, smallest, threads=1)


def _joined(parts: list[OrderingToys], n: int) -> OrderingToys:
    right, wrong = (joined([getattr(p, side) for p in parts]).rows(slice(0, n)) for side in ("right", "wrong"))
    moved = (sum(p.moved[0] for p in parts), sum(p.moved[1] for p in parts))
    return OrderingToys(parts[0].factor, parts[0].truth, right, wrong, moved)


def _loaded(path: Path) -> OrderingToys:
    arrays, notes = load_arrays(path)
    right, wrong = (results_of(arrays, notes["names"], notes["free"], side) for side in ("right/", "wrong/"))
    return OrderingToys(notes["factor"], notes["truth"], right, wrong, tuple(notes["moved"]))

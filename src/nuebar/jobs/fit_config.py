"""The job of a fit as plain JSON, so that chunks of a study can travel; and the engine that a worker makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nuebar.fit.many import LANES, ManyFits
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare

__all__ = ["build_fit", "compiled", "fit_job", "told"]

_PATHS = ("release", "inputs", "columns", "response")

Progress = Callable[[str, int, int], None]


def build_fit(job: FitJob, progress: Progress | None = None) -> SpectrumFit:
    """The fit of the expected counts that a job describes; its data are not used.

    Raises:
        NuebarError: Options do not go together, or a file cannot be used.
    """
    wanted = replace(job, asimov=True, data=None)
    _check(wanted)
    experiment = _experiment(wanted)
    release = read_juno_2025(wanted.release) if wanted.release is not None else None
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    return _prepare(wanted, experiment, release, inputs, progress)[0]


def told(job: FitJob) -> dict[str, Any]:
    """The job in plain JSON; files by their whole path, so that a worker elsewhere finds them."""
    out = {f.name: getattr(job, f.name) for f in fields(FitJob)}
    for name in _PATHS:
        out[name] = None if out[name] is None else str(Path(out[name]).resolve())
    out["pairs"] = [str(Path(p).resolve()) for p in job.pairs]
    if job.experiment.endswith(".toml"):
        out["experiment"] = str(Path(job.experiment).resolve())
    if Path(job.predictor).is_dir():
        out["predictor"] = str(Path(job.predictor).resolve())
    return out


def fit_job(mapping: Mapping[str, Any]) -> FitJob:
    """The inverse of :func:`told`."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in mapping.items()}
    values |= {n: None if mapping[n] is None else Path(mapping[n]) for n in _PATHS}
    return FitJob(**values)


def compiled(mapping: Mapping[str, Any]) -> ManyFits:
    """The engine for what :func:`told` gave; a worker makes it once for all of its chunks."""
    return _compiled(json.dumps(dict(mapping), sort_keys=True))


@lru_cache(maxsize=2)
def _compiled(text: str) -> ManyFits:
    return ManyFits(build_fit(fit_job(json.loads(text))), lanes=LANES, threads=1)

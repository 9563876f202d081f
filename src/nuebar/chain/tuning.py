"""The stage ``tune``: calibration sources become a posterior of kB, fC and light yield."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuebar.chain.run_file import RunFile
from nuebar.chain.truth import part_seed
from nuebar.errors import NuebarError
from nuebar.io.posteriors import load_posterior
from nuebar.io.results import save_result
from nuebar.jobs.tune_diagnostics import tuning_diagnostics
from nuebar.jobs.tune_fit import TuneJob, found_files, run_tune, write_tuning
from nuebar.tune.store import load_density

__all__ = ["run_tuning"]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]


def run_tuning(run: RunFile, home: Path, place: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Infer the response.

    Args:
        run: The run file.
        home: Folder of the run, of which the stage ``simulate`` is read.
        place: Folder of the stage.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The main numbers, for the record.

    Raises:
        NuebarError: The response has no covariance, as it ended on a wall.
    """
    if run.data.response is not None:
        posterior = load_posterior(run.data.response)
        shutil.copyfile(run.data.response, place / "posterior.json")
        return {"posterior": dict(zip(posterior.names, posterior.mean.tolist(), strict=True))}
    t = run.tune
    density = load_density(t.density)
    sources = run.data.calibration or found_files(home / "simulate" / "calibration", density.sources)
    job = TuneJob(
        density=t.density,
        sources=sources,
        columns=run.data.calibration_columns,
        method=t.method,  # type: ignore[arg-type]
        unbinned=t.unbinned,
        samples=t.samples,
        replicas=t.replicas,
        seed=part_seed(run.seed, "tune") % 2**31,
    )
    result, data, density, _ = run_tune(job, progress=progress)
    write_tuning(result, data, density, None, place, pictures=False)
    if not (place / "posterior.json").is_file():
        raise NuebarError(
            f"the tuning has no covariance ({result.reason}): its best fit lies on a wall of what the density knows; "
            "look at the calibration data, or tune with another density"
        )
    if t.coverage:
        found = tuning_diagnostics(
            result, data, density, replicas=t.coverage, seed=part_seed(run.seed, "coverage") % 2**31
        )
        save_result(place / "diagnostics.json", {"kind": "tuning diagnostics", **found})
    if not result.valid:
        log.warning("the tuning is not valid: %s", result.reason)
    return {"best": dict(result.best), "valid": result.valid}

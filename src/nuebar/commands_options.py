"""Options that several commands share: which model, and who works; cyclopts spreads them over each command."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from nuebar.jobs.fit import FitJob
    from nuebar.run import Executor

__all__ = ["EXIT_INVALID_FIT", "Debug", "Flag", "ModelOptions", "Numbers", "Statistic", "Words", "WorkOptions"]

EXIT_INVALID_FIT = 3

Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
Flag = Annotated[bool, Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
Numbers = Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
Statistic = Literal["cnp", "poisson", "barlow-beeston", "pearson", "neyman"]


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Which model is fitted.

    Attributes:
        experiment: Name of a built-in experiment (see "nuebar config list") or path of a TOML file.
        inputs: ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
        release: Folder of JUNO's 2025 public release: its curves and shapes, and its spectrum where data are fitted.
        exposure_years: Exposure in years of the experiment's days_per_year (calendar years).
        exposure_days: Exposure in days.
        ordering: Mass ordering.
        predictor: How the signal is computed: harmonic, matrix, surrogate, network, or a folder of predict build.
        response: Posterior of the response parameters (JSON), which frees them in a predictor that takes them.
        free: Parameters to free beside those.
        fix: Parameters to keep at their nominal value.
        statistic: Cost function; the experiment's own by default.
    """

    experiment: str = "juno"
    inputs: Path | None = None
    release: Path | None = None
    exposure_years: float | None = None
    exposure_days: float | None = None
    ordering: Literal["normal", "inverted"] = "normal"
    predictor: str = "harmonic"
    response: Path | None = None
    free: Words = ()
    fix: Words = ()
    statistic: Statistic | None = None

    def job(self, **more: Any) -> FitJob:
        """The job of a fit of this model.

        Args:
            more: Further options of :class:`nuebar.jobs.fit.FitJob`; expected counts unless they say otherwise.
        """
        from nuebar.jobs.fit import FitJob

        return FitJob(**{"asimov": True, **{f.name: getattr(self, f.name) for f in fields(self)}, **more})


@Parameter(name="*")
@dataclass(frozen=True)
class WorkOptions:
    """Who works, and for how long; no result depends on it.

    Attributes:
        jobs: Number of processes on this machine, or of workers to ask a cluster for; one for each core by default.
        cluster: Work on a cluster instead: address or file of a Dask scheduler, or a TOML file (see docs/cluster.md).
        force: Throw away what another configuration left in the folder.
        max_seconds: Start nothing new after so many seconds; the same command continues.
    """

    jobs: int | None = None
    cluster: str | None = None
    force: Flag = False
    max_seconds: float | None = None

    def workers(self) -> int | Executor:
        """Number of local processes, or what reaches the cluster."""
        if self.cluster is None:
            return self.jobs or _cores()
        from nuebar.run.cluster import executor

        return executor(self.cluster, self.jobs)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

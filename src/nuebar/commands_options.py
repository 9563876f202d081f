"""Options that several commands share: which model, and who works; cyclopts spreads them over each command."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from nuebar.errors import NuebarError

if TYPE_CHECKING:
    from nuebar.jobs.fit import FitJob
    from nuebar.run import Executor
    from nuebar.simulate.quench import Response

__all__ = [
    "EXIT_INVALID_FIT",
    "Debug",
    "Flag",
    "ModelOptions",
    "Numbers",
    "Paths",
    "ResponseOptions",
    "Statistic",
    "Words",
    "WorkOptions",
]

EXIT_INVALID_FIT = 3

Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
Flag = Annotated[bool, Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
Paths = Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
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
        from nuebar.run.cluster import executor

        return executor(self.cluster, self.jobs)

    def chunks(self) -> dict[str, Any]:
        """All of it, with a line of progress, as arguments of a job that works in chunks."""
        from nuebar.commands_terminal import progress_line

        options = {"force": self.force, "max_seconds": self.max_seconds}
        return {"jobs": self.workers(), "progress": progress_line(), **options}


@Parameter(name="*")
@dataclass(frozen=True)
class ResponseOptions:
    """How the scintillator answers: all three, or none for that of the experiment.

    Attributes:
        kB: Birks' constant in g/cm²/GeV, with --fC and --light-yield: this response instead of the experiment's.
        fC: Cherenkov factor, likewise.
        light_yield: Photons per MeV, likewise.
    """

    kB: Annotated[float | None, Parameter(name="--kB", show_default=False)] = None
    fC: Annotated[float | None, Parameter(name="--fC", show_default=False)] = None
    light_yield: Annotated[float | None, Parameter(show_default=False)] = None

    def response(self) -> Response | None:
        """The response, if it is given.

        Raises:
            NuebarError: One or two of the three are given.
        """
        from nuebar.simulate.quench import Response

        given = [x for x in (self.kB, self.fC, self.light_yield) if x is not None]
        if not given:
            return None
        if len(given) < 3:
            raise NuebarError(
                f"expected --kB, --fC and --light-yield together, got {len(given)} of them; give all three"
            )
        return Response(*given)

"""What ``--cluster`` means: a Dask scheduler by its address, its file, or a TOML table that says how to get workers.

The one door to ``dask_jobqueue``, which writes and submits the scripts of batch systems.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.records import from_mapping, read_toml, refuse
from nuebar.run.chunk import Workers
from nuebar.run.dask_workers import DaskWorkers, Link, connected, quiet
from nuebar.run.remote import require_distributed

__all__ = ["KINDS", "ClusterTable", "executor", "job_script", "load_cluster"]

log = logging.getLogger(__name__)

KINDS = ("slurm", "htcondor", "local", "address")
_BATCH = ("slurm", "htcondor")
_SUBMIT = {"slurm": "sbatch", "htcondor": "condor_submit"}
_OWN = {
    **dict.fromkeys(("walltime", "queue", "account", "directives"), ("slurm",)),
    **dict.fromkeys(("disk", "attributes"), ("htcondor",)),
    **dict.fromkeys(("cores", "memory", "prologue", "python", "logs", "interface", "host", "port"), _BATCH),
}
_ADDRESS = re.compile(r"([a-z]+://)?[^/\s:]+:[0-9]+/?|[a-z]+://\S+")
_WALLTIME = re.compile(r"([0-9]+-)?[0-9]+(:[0-9]{2}){1,2}|[0-9]+")
_SIZE = re.compile(r"[0-9.]+ *[kMGT]i?B")


@dataclass(frozen=True)
class ClusterTable:
    """The table ``[cluster]`` of a TOML file.

    Attributes:
        kind: ``slurm`` or ``htcondor`` (workers as batch jobs), ``local`` (a Dask cluster on this machine), or
            ``address`` (a scheduler that runs already).
        address: Of that scheduler, or its file.
        workers: How many chunks at the same time; ``--jobs`` overrides it.
        cores: Cores of one batch job; each does one chunk at a time.
        memory: Of one batch job, such as ``"8 GB"``.
        disk: Of one batch job (HTCondor).
        walltime: Of one batch job (Slurm), such as ``"08:00:00"``.
        queue: Partition (Slurm).
        account: Account (Slurm).
        prologue: Lines of shell before the worker starts, such as ``"module load python"``.
        directives: Further options of Slurm, such as ``"--constraint=milan"``.
        attributes: Further attributes of HTCondor, such as ``{accounting_group = "juno"}``.
        python: The interpreter of the workers; the one of this program by default.
        logs: Folder for what the jobs print.
        interface: Network interface that workers reach this machine by, such as ``"ib0"``.
        host: Name or address of this machine, instead.
        port: Port of the scheduler; any free one by default.
        dashboard: Address of Dask's own page.
    """

    kind: str
    address: str | None = None
    workers: int = 1
    cores: int = 1
    memory: str = "2 GB"
    disk: str = "1 GB"
    walltime: str | None = None
    queue: str | None = None
    account: str | None = None
    prologue: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    logs: str | None = None
    interface: str | None = None
    host: str | None = None
    port: int = 0
    dashboard: str = ":0"

    @property
    def batch_jobs(self) -> int:
        """How many batch jobs give that many workers."""
        return math.ceil(self.workers / self.cores)


def executor(cluster: str | None, jobs: int | None = None) -> Workers:
    """Who does the chunks.

    Args:
        cluster: Nothing for processes of this machine; the address of a Dask scheduler (``tcp://host:8786``), its
            file (``scheduler.json``), or a TOML file with a table ``[cluster]``, see :class:`ClusterTable`.
        jobs: How many processes, one for each core by default; on a cluster how many chunks at the same time,
            by default what the table says, or as many as the workers of the scheduler have threads.

    Returns:
        What ``run_stage(jobs=...)`` takes.

    Raises:
        NuebarError: It is none of these, the file is wrong, or Dask or the program that submits jobs is missing.
    """
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise NuebarError(f"--jobs: expected 1 or more, got {jobs!r}; correct it")
    if cluster is None:
        return jobs or _cores()
    require_distributed()
    if cluster.endswith(".toml"):
        table = load_cluster(Path(cluster))
        if table.kind == "address":
            return executor(table.address, jobs)
        table = table if jobs is None else replace(table, workers=jobs)
        _check_here(table, cluster)
        return DaskWorkers(lambda: _started(table, cluster), most=table.workers)
    if cluster.endswith(".json"):
        if not Path(cluster).is_file():
            raise NuebarError(f"--cluster: expected the file of a Dask scheduler, found no {cluster}; check the path")
        return DaskWorkers(lambda: connected(cluster, scheduler_file=cluster), most=jobs)
    if not _ADDRESS.fullmatch(cluster):
        raise NuebarError(
            f"--cluster: expected the address of a Dask scheduler such as tcp://host:8786, its .json file, or a "
            f".toml file with a table [cluster], got {cluster!r}; see docs/cluster.md"
        )
    return DaskWorkers(lambda: connected(cluster, address=cluster), most=jobs)


def load_cluster(path: Path) -> ClusterTable:
    """Read the table ``[cluster]`` of a TOML file.

    Raises:
        NuebarError: A key is unknown, missing or wrong.
    """
    content = read_toml(path)
    if set(content) != {"cluster"}:
        got = ", ".join(sorted(content)) or "an empty file"
        raise NuebarError(f"{path}: expected one table [cluster], got {got}; see docs/cluster.md")
    table: ClusterTable = from_mapping(ClusterTable, content["cluster"], str(path), "cluster.")
    if table.kind not in KINDS:
        refuse(str(path), "cluster.kind", f"one of {', '.join(KINDS)}", table.kind)
    _check_ranges(table, str(path))
    return table


def _check_ranges(table: ClusterTable, path: str) -> None:
    if (table.kind == "address") != (table.address is not None):
        refuse(path, "cluster.address", "an address if and only if the kind is address", table.address)
    if table.address is not None and table.address.endswith(".toml"):
        refuse(path, "cluster.address", "the address of a scheduler or its .json file", table.address)
    for key in ("workers", "cores"):
        if getattr(table, key) < 1:
            refuse(path, f"cluster.{key}", "1 or more", getattr(table, key))
    if not 0 <= table.port < 65536:
        refuse(path, "cluster.port", "a port from 0 to 65535", table.port)
    for key in ("memory", "disk"):
        if not _SIZE.fullmatch(getattr(table, key)):
            refuse(path, f"cluster.{key}", "a size such as '8 GB'", getattr(table, key))
    if table.walltime is not None and not _WALLTIME.fullmatch(table.walltime):
        refuse(path, "cluster.walltime", "a time such as '08:00:00'", table.walltime)
    for key, kinds in _OWN.items():
        if getattr(table, key) != getattr(ClusterTable, key, {}) and table.kind not in kinds:
            refuse(path, f"cluster.{key}", f"it only with the kind {' or '.join(kinds)}", table.kind)


def job_script(table: ClusterTable) -> str:
    """The script of one batch job, as it would be submitted; nothing is started.

    Raises:
        NuebarError: The kind is no batch system, or ``dask_jobqueue`` is missing.
    """
    if table.kind not in _BATCH:
        raise NuebarError(f"cluster.kind: expected slurm or htcondor to have a script, got {table.kind!r}")
    jobqueue = _jobqueue()
    job = (jobqueue.slurm.SLURMJob if table.kind == "slurm" else jobqueue.htcondor.HTCondorJob)(
        scheduler="tcp://SCHEDULER:PORT", name="nuebar", **_job_options(table)
    )
    return str(job.job_script())


def _started(table: ClusterTable, name: str) -> Link:
    """A scheduler in this program, and workers as the table says."""
    quiet()
    try:
        cluster = _local(table) if table.kind == "local" else _batch(table)
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise NuebarError(f"--cluster {name}: cannot be started: {text}; correct the table") from error
    link = connected(name, address=cluster)
    if table.kind == "local":
        # A heartbeat may meet the end of the scheduler: its worker would print that as an error of a run without one.
        link.client.run(quiet)
        return replace(link, close=lambda: cluster.close(timeout=5))
    # Asking again for the same number replaces jobs that have ended.
    return replace(
        link,
        renew=lambda: cluster.scale(jobs=table.batch_jobs),
        hopeless=lambda: _hopeless(cluster, table, name),
        close=lambda: cluster.close(timeout=10),
    )


def _hopeless(cluster: Any, table: ClusterTable, name: str) -> str:
    """Why no worker will come, or nothing: jobs that were accepted may still wait in a queue."""
    refusals = [job.refusal for job in list(cluster.workers.values())]
    if len(refusals) < table.batch_jobs or not all(refusals):
        return ""
    return (
        f"{_SUBMIT[table.kind]} refused every job ({refusals[-1]}); correct the table, whose script is shown by: "
        f"nuebar cluster show {name}"
    )


def _local(table: ClusterTable) -> Any:
    return require_distributed().LocalCluster(
        n_workers=table.workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=table.dashboard,
        silence_logs=logging.CRITICAL,
    )


def _batch(table: ClusterTable) -> Any:
    jobqueue = _jobqueue()
    kind = jobqueue.SLURMCluster if table.kind == "slurm" else jobqueue.HTCondorCluster
    job = _telling(kind.job_cls, _SUBMIT[table.kind])
    scheduler: dict[str, Any] = {"dashboard_address": table.dashboard, "port": table.port}
    if table.host is not None:
        scheduler["host"] = table.host
    cluster = kind(n_workers=0, job_cls=job, scheduler_options=scheduler, **_job_options(table))
    cluster.scale(jobs=table.batch_jobs)
    return cluster


def _telling(job: Any, command: str) -> Any:
    """The class of a batch job that keeps why it was refused: Dask itself only prints that."""

    class Job(job):
        refusal = ""
        told = False

        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                # The last part is what the command itself said.
                why = " ".join(str(error).split("stderr:")[-1].split())[:200] or type(error).__name__
                if not Job.told:
                    Job.told = True
                    log.warning("%s refused a job: %s", command, why)
                self.refusal = why
                # Raised, it would be a traceback on the terminal, and nothing else: it goes on as one that never comes.
                self.status = require_distributed().Status.running

    return Job


def _job_options(table: ClusterTable) -> dict[str, Any]:
    """The table as arguments of a job of dask_jobqueue; what it leaves out may come from Dask's own configuration."""
    options: dict[str, Any] = {
        "cores": table.cores,
        "processes": 1,
        "memory": table.memory,
        "python": table.python or sys.executable,
        "job_name": "nuebar",
        "interface": table.interface,
        "log_directory": None if table.logs is None else os.path.abspath(table.logs),
        "job_script_prologue": list(table.prologue),
    }
    if table.kind == "slurm":
        directives = list(table.directives)
        own = {"queue": table.queue, "account": table.account, "walltime": table.walltime}
        return {**options, **own, "job_extra_directives": directives}
    return {**options, "disk": table.disk, "job_extra_directives": dict(table.attributes)}


def _check_here(table: ClusterTable, name: str) -> None:
    """Whether this machine can submit jobs; what fails there later, in Dask's own thread, would be a run that waits."""
    if table.kind not in _BATCH:
        return
    _jobqueue()
    command = _SUBMIT[table.kind]
    if shutil.which(command) is None:
        raise NuebarError(
            f"--cluster {name}: expected {command} on the PATH of this machine, got none; run this on a machine that "
            'submits jobs, such as a login node of the cluster, or take kind = "local"'
        )


def _jobqueue() -> Any:
    require_distributed()
    try:
        import dask_jobqueue
        import dask_jobqueue.htcondor
        import dask_jobqueue.slurm
    except ImportError as error:
        raise NuebarError("Slurm and HTCondor need dask-jobqueue: pip install 'nuebar[cluster]'") from error
    return dask_jobqueue


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

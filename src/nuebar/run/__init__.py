"""Work in chunks: keys, spawned workers, files that are whole or absent, and the same command again continues.

A stage is cut into chunks. A chunk is a pure function of (config, chunk index, key) that writes one file, so the
files do not depend on the number of workers, on their order, or on how often the run was cut off::

    stage = Stage("stream", "nuebar.simulate.stream:chunk", config={"days": 30}, chunks=30)
    result = run_stage("out", stage, seed=1, jobs=2)
    result.paths  # out/stream/chunk-00000.parquet ...

``jobs`` may be an executor instead, such as :class:`nuebar.run.dask_workers.DaskWorkers`.
"""

from nuebar.run.chunk import Executor, Outcome, Task, TaskSource, Workers, chunk_key, in_process, run_task
from nuebar.run.overview import StageStatus, status
from nuebar.run.runner import StageResult, UnfinishedError, run_stage
from nuebar.run.stage import Stage
from nuebar.run.workers import WORKER_ENVIRONMENT, LocalProcesses

__all__ = [
    "WORKER_ENVIRONMENT",
    "Executor",
    "LocalProcesses",
    "Outcome",
    "Stage",
    "StageResult",
    "StageStatus",
    "Task",
    "TaskSource",
    "UnfinishedError",
    "Workers",
    "chunk_key",
    "in_process",
    "run_stage",
    "run_task",
    "status",
]

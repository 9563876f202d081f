"""The commands of ``nuebar cluster``."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from nuebar.commands_options import Debug
from nuebar.commands_terminal import say

__all__ = ["cluster", "cluster_show"]

cluster = App(name="cluster", help="Look at clusters that --cluster may name.")


@cluster.command(name="show")
def cluster_show(file: Path, /, *, debug: Debug = False) -> int:
    """Print the batch script that a cluster's table makes; nothing is submitted.

    Parameters
    ----------
    file
        TOML file with a table [cluster], see docs/cluster.md.
    """
    from nuebar.run.cluster import job_script, load_cluster

    table = load_cluster(file)
    script = job_script(table)
    say(f"{table.batch_jobs} jobs for {table.workers} chunks at the same time; each:\n")
    say(script.rstrip())
    return 0

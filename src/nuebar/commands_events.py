"""The commands of ``nuebar events``: look into files of events, check them, bring them into our format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nuebar.commands_options import Debug
from nuebar.commands_terminal import progress_line, say

__all__ = ["events"]

events = App(name="events", help="Look into event files, check them, bring them into our format.")

Kind = Annotated[str, Parameter(help="What the table holds: stream, pairs, calibration or spectrum.")]
Columns = Annotated[Path | None, Parameter(help="TOML file with a column map: our names from those of the file.")]


@events.command(name="show")
def events_show(path: Path, *, tree: str | None = None, debug: Debug = False) -> int:
    """Print format, rows and columns of a Parquet, ROOT or HDF5 file."""
    from nuebar.jobs.events import show_events

    say(show_events(path, tree))
    return 0


@events.command(name="check")
def events_check(*paths: Path, kind: Kind = "stream", columns: Columns = None, debug: Debug = False) -> int:
    """Read every row of files and say what is wrong, or the range of every column."""
    from nuebar.jobs.events import check_events

    say(check_events(list(paths), kind, columns, progress_line()))
    return 0


@events.command(name="convert")
def events_convert(
    *paths: Path, out: Path, kind: Kind = "stream", columns: Columns = None, debug: Debug = False
) -> int:
    """Copy files into one Parquet file with our names and units."""
    from nuebar.jobs.events import convert_events

    say(convert_events(list(paths), kind, columns, out, progress_line()))
    return 0

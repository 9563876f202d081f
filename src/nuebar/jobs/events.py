"""The jobs of ``nuebar events``: look into event files, check them, and copy them into our format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.events import ColumnMap, EventFile, EventWriter, describe

__all__ = ["check_events", "convert_events", "show_events"]

Progress = Callable[[str, int, int], None]
STREAM = ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m")
PAIRS = ("prompt_e_rec_MeV", "delayed_e_rec_MeV", "dt_ns")
CALIBRATION = ("n_pe",)
NEEDED = {"stream": STREAM, "pairs": PAIRS, "calibration": CALIBRATION, "spectrum": ("e_nu_MeV", "e_rec_MeV")}
"""What a kind of table must hold."""


def show_events(path: Path, tree: str | None) -> str:
    """Format, rows and columns of a file.

    Args:
        path: A Parquet, ROOT or HDF5 file.
        tree: Name of the tree or group, where there are several.
    """
    d = describe(path, tree=tree)
    lines = [f"{d.path}: {d.format}{f', {d.tree}' if d.tree else ''}, {d.rows:,} rows"]
    lines += [f"  {f.name:28s} {f.type}{f' [{f.length}]' if f.length not in (0, 1) else ''} {f.unit}" for f in d.fields]
    lines += [f"  metadata {key}: {value}" for key, value in d.metadata.items() if not isinstance(value, dict)]
    return "\n".join(line.rstrip() for line in lines)


def check_events(paths: list[Path], kind: str, columns: Path | None, progress: Progress) -> str:
    """Read every row, and say the range of every column that was looked at.

    Args:
        paths: Files in order.
        kind: A key of :data:`NEEDED`.
        columns: TOML file with a column map.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: At the first thing that is wrong.
    """
    events = _open(paths, kind, columns)
    if events.n_rows == 0:
        raise NuebarError(f"{events.paths[0]}: expected rows, got none; the file is empty")
    low = dict.fromkeys(events.names, np.inf)
    high = dict.fromkeys(events.names, -np.inf)
    done = 0
    for batch in events.batches():
        for name, values in batch.items():
            low[name], high[name] = min(low[name], values.min()), max(high[name], values.max())
        done += len(next(iter(batch.values())))
        progress("rows", done, events.n_rows)
    lines = [f"{events.n_rows:,} rows in {len(events.paths)} file{'s' if len(events.paths) > 1 else ''}: good"]
    return "\n".join([*lines, *(f"  {n:24s} {low[n]:.6g} to {high[n]:.6g}" for n in events.names)])


def convert_events(paths: list[Path], kind: str, columns: Path | None, out: Path, progress: Progress) -> str:
    """Copy files into one Parquet file with our names and units, checking every row.

    Args:
        paths: Files in order.
        kind: A key of :data:`NEEDED`.
        columns: TOML file with a column map; the columns that it names are copied too.
        out: The file to write.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: At the first thing that is wrong; nothing is written then.
    """
    if out.suffix != ".parquet":
        raise NuebarError(f"{out}: expected a name that ends in .parquet, got {out.name!r}; Parquet is what is written")
    if out.exists():
        raise NuebarError(f"{out}: expected a new file, got one that exists; remove it or choose another name")
    events = _open(paths, kind, columns)
    with EventWriter(out, events.columns, metadata={"kind": kind, "from": [p.name for p in events.paths]}) as writer:
        for batch in events.batches():
            writer.append(batch)
            progress("rows", writer.rows, events.n_rows)
    return f"{events.n_rows:,} rows: {out}"


def _open(paths: list[Path], kind: str, columns: Path | None) -> EventFile:
    if kind not in NEEDED:
        raise NuebarError(f"--kind: expected one of {', '.join(NEEDED)}, got {kind!r}; choose what the table holds")
    if not paths:
        raise NuebarError("expected at least one file of events, got none; name it")
    mapped = ColumnMap.load(columns) if columns is not None else ColumnMap()
    others = [name for name in mapped.columns if name not in NEEDED[kind]]
    source = paths[0] if len(paths) == 1 else [str(p) for p in paths]
    return EventFile(source, NEEDED[kind], optional=others, column_map=mapped)

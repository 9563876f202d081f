"""The job of ``nuebar predict compare``: every predictor from one Monte Carlo in one table.

Rows (:mod:`nuebar.jobs.compare_rows`) are kept as files of their own: the same command continues where it was
interrupted, and measures nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar import __version__
from nuebar.config import show
from nuebar.io.event_paths import find_files
from nuebar.io.files import atomic_write_text, output_folder, read_json, read_text, write_json
from nuebar.jobs.compare_rows import FROM_CASCADES, FULL, RECIPES, REDUCED, ROWS, Bench, CompareJob, Size
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.accuracy import NORM
from nuebar.report.tables import MISSING, to_markdown

__all__ = [
    "FULL",
    "REDUCED",
    "ROWS",
    "CompareJob",
    "Comparison",
    "Size",
    "compare_table",
    "run_compare",
    "shift_table",
]

FORMAT = 1  # of a row

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        rows: One record for each predictor.
        files: What was written.
    """

    rows: tuple[dict[str, Any], ...]
    files: tuple[Path, ...]

    @property
    def text(self) -> str:
        """The tables."""
        return f"{compare_table(self.rows)}\n\n{shift_table(self.rows)}"


def run_compare(job: CompareJob, out: str | os.PathLike[str], progress: Progress | None = None) -> Comparison:
    """Measure every row that is not there yet, and write tables and pictures.

    Args:
        job: What is compared.
        out: Output folder: ``compare.md``, ``compare.json``, ``compare.png``, ``network.png``, ``rows/`` and
            ``predictors/``.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A file is wrong, or a network was trained on other pairs.
    """
    began = time.perf_counter()
    folder = output_folder(out)
    kept = output_folder(folder / "rows")
    tick = progress or (lambda *_: None)
    bench = Bench(job, folder / "predictors", tick)
    named: dict[str, Path | None] = dict.fromkeys(job.rows, None)
    named |= {f"network-{Path(path).name}": Path(path) for path in job.networks}
    rows = []
    for done, (name, network) in enumerate(named.items()):
        tick(f"compare: {name}", done, len(named))
        key = _key(job, name, network)
        path = kept / f"{name}-{key}.json"
        if not path.exists():
            write_json(path, bench.row(name, network, key), indent=None)
        rows.append(read_json(path))
    tick("compare", len(named), len(named))
    files = _write(job, tuple(rows), folder, time.perf_counter() - began)
    return Comparison(tuple(rows), files)


# ---------------------------------------------------------------- what was measured already


def _stamp(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of files: enough to see that they changed, without reading gigabytes."""
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]


def _cascade_files(job: CompareJob) -> list[Path]:
    assert job.cascades is not None
    place = Path(job.cascades)
    place = place / "ibd-cascades" if (place / "ibd-cascades").is_dir() else place
    return sorted(place.glob("chunk-*.safetensors"))[: job.size.cascade_files]


def _key(job: CompareJob, name: str, network: Path | None) -> str:
    """Of everything that a row depends on."""
    source = _cascade_files(job) if name in FROM_CASCADES else [f for path in job.pairs for f in find_files(path)]
    told: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "row": name,
        "files": _stamp(source),
        "columns": None if job.columns is None else read_text(job.columns),
        "experiment": show(job.experiment),
        "edges_MeV": np.asarray(job.edges_MeV).tolist(),
        "box": {n: list(v) for n, v in job.box.items()},
        "size": asdict(job.size),
        "seed": job.seed,
    }
    if network is not None:
        told["network"] = _stamp(sorted(p for p in network.glob("*") if p.is_file()))
    elif name in RECIPES:
        told["recipe"] = RECIPES[name].identity()
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=6).hexdigest()


# ---------------------------------------------------------------- tables and pictures


def compare_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Speed, size and errors of every row, Markdown.

    Args:
        rows: Records of :func:`run_compare`.
    """
    header = (
        "Predictor", "Parameters", "Built in", "Size", "One spectrum, JAX", "One spectrum, compiled or numpy",
        "Gradient", "Spectra/s in a batch", "Median error", "99.9 %", "Worst bin", "Δχ² median", "Δχ² worst",
        "Worst shift [σ]",
    )  # fmt: skip
    table = []
    for row in rows:
        quick = row.get("one_quick")
        batch = row.get("batch")
        cells = [
            row["label"],
            str(row["parameters"]),
            _seconds(row["build_s"]) if row["build_s"] else MISSING,
            _bytes(row["bytes"]),
            _seconds(row["one_jitted"]["best_s"]),
            f"{_seconds(quick['best_s'])} ({quick['path']})" if quick else MISSING,
            _seconds(row["gradient"]["best_s"]),
            _per_second(batch["per_second"]) if batch else MISSING,
        ]
        regions = row.get("accuracy") or {"": None}
        for k, (region, a) in enumerate(regions.items()):
            first = cells if k == 0 else [row["label"], *[""] * (len(cells) - 1)]
            first = [f"{row['label']}, {region}" if region else row["label"], *first[1:]]
            table.append([*first, *_errors(a)])
    return to_markdown(table, header)


def shift_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Shift of each fitted parameter in units of its error, median and worst, Markdown."""
    names = (*OSCILLATION, NORM)
    table = [
        [
            f"{row['label']}, {region}" if region else row["label"],
            str(a["points"]),
            *(f"{_number(a['shift_median'][n])} / {_number(a['shift_worst'][n])}" for n in names),
        ]
        for row in rows
        for region, a in row.get("accuracy", {}).items()
    ]
    if not table:
        return "No predictor was compared with the reference."
    return to_markdown(table, ("Shift in σ, median / worst", "Test points", *names))


def _errors(a: Mapping[str, Any] | None) -> list[str]:
    if a is None:
        return ["reference", *[MISSING] * 5]
    numbers = [a[n] for n in ("relative_median", "relative_999", "relative_worst", "chi2_median", "chi2_worst")]
    return [_number(x) for x in (*numbers, max(a["shift_worst"].values()))]


def _number(x: float) -> str:
    return "0" if x == 0 else f"{x:.1e}" if not 1e-3 <= x < 1e4 else f"{x:.2g}"


def _seconds(x: float) -> str:
    for unit, factor in (("min", 1 / 60), ("s", 1.0), ("ms", 1e3)):
        if x * factor >= (3.0 if unit == "min" else 1.0):
            return f"{x * factor:.3g} {unit}"
    return f"{x * 1e6:.3g} µs"


def _bytes(n: float) -> str:
    for unit, factor in (("GB", 1e-9), ("MB", 1e-6), ("kB", 1e-3)):
        if n * factor >= 1:
            return f"{n * factor:.3g} {unit}"
    return f"{n:.0f} B"


def _per_second(x: float) -> str:
    return f"{x / 1e6:.2f} M" if x >= 1e6 else f"{x / 1e3:.3g} k" if x >= 1e3 else f"{x:.3g}"


def _write(job: CompareJob, rows: tuple[dict[str, Any], ...], folder: Path, seconds: float) -> tuple[Path, ...]:
    """Tables, record and pictures."""
    from nuebar.report import plots, predictor_plots

    lines = ["# Predictors compared", "", compare_table(rows), "", shift_table(rows), "", *_remarks(job, rows)]
    atomic_write_text(folder / "compare.md", "\n".join(lines) + "\n")
    settings = {
        "experiment": job.experiment.name,
        "size": asdict(job.size),
        "edges_MeV": [float(job.edges_MeV[0]), float(job.edges_MeV[-1]), len(job.edges_MeV) - 1],
        "box": {n: list(v) for n, v in job.box.items()},
        "pairs": [p.name for p in job.pairs],
        "cascades": None if job.cascades is None else job.cascades.name,
    }
    numbers = {"settings": settings, "rows": list(rows)}
    record = write_claim(folder, "compare", numbers, command="nuebar predict compare", seconds=seconds, seed=job.seed)
    files = [folder / "compare.md", record]
    panels = [
        predictor_plots.Panel(_title(row), np.array(row["example_truth"]), np.array(row["example"]))
        for row in rows
        if row["name"] != "reweight"
    ]
    reference = next((row for row in rows if row["name"] == "reweight"), None)
    errors = None if reference is None else np.array(reference["errors"]) / np.array(reference["example_truth"])
    if panels:
        figure = predictor_plots.relative_differences(job.edges_MeV, panels, monte_carlo=errors)
        plots.save(figure, folder / "compare.png")
        files.append(folder / "compare.png")
    network = next((row for row in rows if row["name"].startswith("network")), None)
    if network is not None:
        figure = predictor_plots.network_example(
            job.edges_MeV, np.array(network["example_truth"]), np.array(network["example"]), title=network["label"]
        )
        plots.save(figure, folder / "network.png")
        files.append(folder / "network.png")
    return tuple(files)


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['label']} (from cascades)" if row["name"] in FROM_CASCADES else str(row["label"])


def _remarks(job: CompareJob, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a reader of the tables must know."""
    lines = [
        f"- Exposure: {job.experiment.exposure.days:g} days of {job.experiment.name}. Errors: |S/T - 1| in bins above "
        "10⁻⁴ of the spectrum's sum; Δχ² = Σ (S - T)²/T; shifts by linear response, for sin²θ12, sin²θ13, Δm²21, Δm²31 "
        "and a free norm.",
        "- Truth: pairs weighted with exact survival probabilities (through a table of neutrino energies), or cascades "
        "folded at the response point.",
        "- Seconds are the best of repeated calls after a first one; medians are in compare.json.",
    ]
    for row in rows:
        for where, c in row.get("checks", {}).items():
            about = " (approximate: matter is expanded inside each bin)" if where == "matter" else ""
            lines.append(
                f"- Against reweighting pair by pair in {where}, {c['points']:.0f} points, worst bin: the table "
                f"{_number(c['folded'])}, the harmonic predictor {_number(c['harmonic'])}{about}."
            )
        lines += [f"- {note}" for note in row["notes"]]
    loads = [x for row in rows for x in row["load_average"] if x is not None]
    if loads:
        lines.append(f"- Load average during the measurements: {min(loads):g} to {max(loads):g}.")
    return lines

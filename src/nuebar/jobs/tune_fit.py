"""What ``nuebar tune fit`` does with calibration spectra: read them, infer the response, write result and posterior."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.calibration import load_table, stored_charges
from nuebar.io.files import output_folder
from nuebar.io.posteriors import save_posterior
from nuebar.io.tunings import TuningResult, save_tuning
from nuebar.tune.data import CalibrationData, load_calibration_data
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.infer import infer
from nuebar.tune.store import load_density

__all__ = [
    "TuneJob",
    "as_record",
    "calibration_data",
    "found_files",
    "parse_numbers",
    "parse_pairs",
    "parse_priors",
    "run_tune",
    "tuning_report",
    "write_tuning",
]

Progress = Callable[[str, int, int], None]
SUFFIXES = (".parquet", ".root", ".h5", ".hdf5", ".csv", ".txt", ".json")


@dataclass(frozen=True)
class TuneJob:
    """What ``nuebar tune fit`` was asked for.

    Attributes:
        density: A word of :data:`nuebar.tune.store.PRETRAINED`, or a folder.
        sources: Source → file.
        background: Source → file.
        columns: TOML file with a column map of the files of events.
        simulated: Folder of a simulated set, instead of files.
        data_set: Number of a data set of it.
        method: minuit, nuts or nested.
        unbinned: Whether single charges are used.
        norms: closed or free.
        priors: Parameter → (centre, width) of Gaussian priors.
        samples: Draws wanted.
        seed: Of samples and replicas.
        replicas: Simulated data sets of the goodness of fit.
        direct: NUTS without interpolant.
        truth: Response parameters for the pictures, if known.
    """

    density: str = "spline"
    sources: Mapping[str, str] = field(default_factory=dict)
    background: Mapping[str, str] = field(default_factory=dict)
    columns: str | None = None
    simulated: str | None = None
    data_set: int = 0
    method: Literal["minuit", "nuts", "nested"] = "nuts"
    unbinned: bool = False
    norms: Literal["closed", "free"] = "closed"
    priors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    samples: int = 4000
    seed: int = 1
    replicas: int = 1000
    direct: bool = False
    truth: Mapping[str, float] | None = None


def found_files(folder: str | os.PathLike[str], sources: tuple[str, ...]) -> dict[str, str]:
    """Files ``<source>.parquet`` (or .root, .h5, .csv, .txt, .json) of a folder, for the sources that have one.

    Raises:
        NuebarError: There is none, or two for one source.
    """
    place = Path(folder)
    found: dict[str, str] = {}
    for source in sources:
        paths = [place / f"{source}{suffix}" for suffix in SUFFIXES if (place / f"{source}{suffix}").is_file()]
        if len(paths) > 1:
            raise NuebarError(f"{place}: expected one file of {source}, got {', '.join(p.name for p in paths)}")
        if paths:
            found[source] = str(paths[0])
    if not found:
        raise NuebarError(
            f"{place}: expected files named {sources[0]}.parquet and so on (sources {', '.join(sources)}), got none; "
            "or name them: --source Cs137=FILE ..."
        )
    return found


def calibration_data(job: TuneJob, density: Density) -> tuple[CalibrationData, dict[str, float] | None]:
    """The data of a job, and their truth where they are simulated.

    Args:
        job: What was asked for.
        density: What they will be compared with.

    Raises:
        NuebarError: Neither files nor a simulated set were given, or both, or they do not suit the density.
    """
    if bool(job.sources) == (job.simulated is not None):
        raise NuebarError("expected the data of at least one source: --source NAME=FILE, --data FOLDER or --set FOLDER")
    if job.simulated is None:
        files = {name: Path(path) for name, path in job.sources.items()}
        background = {name: Path(path) for name, path in job.background.items()}
        columns = None if job.columns is None else Path(job.columns)
        return load_calibration_data(files, density, background=background, columns=columns), None
    if job.background:
        raise NuebarError("a background belongs to files of sources; a simulated set has none")
    table = load_table(job.simulated)
    charges = stored_charges(job.simulated) if job.unbinned else None
    data = CalibrationData.from_table(table, job.data_set, charges=charges)
    at = table.parameters[table.row(job.data_set)]
    return data, {name: float(x) for name, x in zip(RESPONSE, at, strict=True)}


def run_tune(
    job: TuneJob, *, progress: Progress | None = None
) -> tuple[TuningResult, CalibrationData, Density, dict[str, float] | None]:
    """Read and infer.

    Returns:
        The result, its data and density, and the truth if it is known.
    """
    density = load_density(job.density)
    data, truth = calibration_data(job, density)
    result = infer(
        data,
        density,
        method=job.method,
        unbinned=job.unbinned,
        norms=job.norms,
        priors=job.priors or None,
        seed=job.seed,
        n_samples=job.samples,
        interpolate=not job.direct,
        n_replicas=job.replicas,
        progress=progress,
    )
    return result, data, density, dict(job.truth) if job.truth else truth


def write_tuning(
    result: TuningResult,
    data: CalibrationData,
    density: Density,
    truth: Mapping[str, float] | None,
    folder: str | os.PathLike[str],
    *,
    pictures: bool = True,
) -> tuple[Path, ...]:
    """Write ``tuning.json``, ``posterior.json``, ``corner.png`` and ``spectra.png``.

    Posterior and corner are left out where the covariance is not known, on a wall.

    Args:
        result: What was found.
        data: The data.
        density: Of the fit.
        truth: Response parameters, if known.
        folder: Output folder, made if missing.
        pictures: Whether to draw.
    """
    out = output_folder(folder)
    save_tuning(out / "tuning.json", result)
    paths = [out / "tuning.json"]
    if np.all(np.isfinite(result.covariance)):
        save_posterior(out / "posterior.json", result.to_posterior())
        paths.append(out / "posterior.json")
    else:
        (out / "posterior.json").unlink(missing_ok=True)  # of an earlier fit
    if pictures:
        from nuebar.report import tuning_plots
        from nuebar.report.plots import save

        if np.all(np.isfinite(result.covariance)):
            save(tuning_plots.posterior_corner({result.method: result}, truth=truth), out / "corner.png")
            paths.append(out / "corner.png")
        else:
            (out / "corner.png").unlink(missing_ok=True)
        expected = tuning_plots.expected_counts(data, density, [result.best[n] for n in RESPONSE], result.norms)
        save(tuning_plots.spectra(data, {density.name: expected}, result=result), out / "spectra.png")
        paths.append(out / "spectra.png")
    return tuple(paths)


def tuning_report(result: TuningResult, truth: Mapping[str, float] | None = None) -> str:
    """The result as text.

    Args:
        result: What was found.
        truth: Response parameters, if known.
    """
    head = f"{result.method}, {'unbinned' if result.unbinned else 'binned'}, density {result.density}: "
    lines = [head + ("valid" if result.valid else f"NOT VALID: {result.reason}")]
    middle = "mean ± width" if result.samples is not None else "best ± Hesse"
    columns = ["parameter", "best fit", middle, "Minos"] + (["truth"] if truth else [])
    rows = [columns]
    for k, name in enumerate(result.names):
        error = float(np.sqrt(result.covariance[k, k])) if np.isfinite(result.covariance[k, k]) else float("nan")
        digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 4
        value = f"{result.mean[k]:.{digits}f} ± {error:.{digits}f}".replace("nan", "–")
        ends = result.minos.get(name)
        minos = f"{ends[0]:+.{digits}f} {ends[1]:+.{digits}f}".replace("nan", "–") if ends else "–"
        row = [name, f"{result.best[name]:.{digits}f}", value, minos]
        rows.append(row + ([f"{truth[name]:g}"] if truth else []))
    wide = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
    pairs = [(0, 1), (0, 2), (1, 2)]
    c = result.correlation
    lines.append(
        "correlations: " + ", ".join(f"{_short(result, i)}-{_short(result, j)} {c[i, j]:+.3f}" for i, j in pairs)
    )
    lines.append("norms: " + ", ".join(f"{s} {v:.4f} ± {result.norm_errors[s]:.4f}" for s, v in result.norms.items()))
    if result.goodness is not None:
        found = result.goodness
        lines.append(
            "goodness of fit: "
            + ", ".join(f"{s.source} p = {s.p_value:.2g}" for s in found.sources)
            + f"; all p = {found.p_value:.2g} ({found.n_replicas} replicas)"
        )
    lines += [f"WARNING: {text}" for text in result.warnings]
    lines.append(f"{result.seconds:.1f} s")
    return "\n".join(lines)


def _short(result: TuningResult, k: int) -> str:
    return {"kB_g_cm2_GeV": "kB", "light_yield_per_MeV": "light yield"}.get(result.names[k], result.names[k])


def parse_pairs(words: Sequence[str], what: str) -> dict[str, str]:
    """``["Cs137=FILE", ...]`` as a mapping.

    Raises:
        NuebarError: A word without ``=``, or a name twice.
    """
    out: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (sign and name and value) or name in out:
            raise NuebarError(f"--{what}: expected NAME=VALUE, each name once, got {word!r}")
        out[name] = value
    return out


_SHORT = {"kB": "kB_g_cm2_GeV", "light_yield": "light_yield_per_MeV"}


def parse_priors(words: Sequence[str]) -> dict[str, tuple[float, float]]:
    """``["fC=0.5,0.1", ...]`` as centres and widths.

    Raises:
        NuebarError: A parameter or number that does not exist.
    """
    out: dict[str, tuple[float, float]] = {}
    for name, value in parse_pairs(words, "prior").items():
        try:
            centre, width = (float(x) for x in value.split(","))
        except ValueError as error:
            raise NuebarError(f"--prior: expected NAME=CENTRE,WIDTH, got {name}={value}") from error
        out[_SHORT.get(name, name)] = (centre, width)
    return out


def parse_numbers(words: Sequence[str]) -> dict[str, float] | None:
    """``["fC=0.5", ...]``: all response parameters by name, or nothing.

    Raises:
        NuebarError: A parameter is missing or unknown, or no number.
    """
    if not words:
        return None
    told = parse_pairs(words, "truth")
    try:
        out = {_SHORT.get(name, name): float(value) for name, value in told.items()}
    except ValueError as error:
        raise NuebarError(f"--truth: expected numbers, got {' '.join(words)}") from error
    if set(out) != set(RESPONSE):
        raise NuebarError(f"--truth: expected {', '.join(RESPONSE)}, got {', '.join(out)}")
    return out


def as_record(result: TuningResult) -> dict[str, Any]:
    """What a record of a measurement keeps of a result: no samples."""
    kept = result.to_dict()
    return {k: v for k, v in kept.items() if k not in ("samples", "versions", "density_provenance")}

"""Pictures of densities and of their validation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.io.calibration import load_table
from nuebar.io.files import output_folder
from nuebar.io.models import load_model
from nuebar.report import tuning_plots, tuning_rank_plots, tuning_response_plots, tuning_study_plots
from nuebar.report.plots import save
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.store import density_folder, load_density
from nuebar.tune.validate import BIAS_AIM_PERCENT

__all__ = ["draw_densities", "draw_validation"]

_SCANNED = {"Cs137": "cs137", "AmC": "amc"}


def draw_densities(words: tuple[str, ...], data: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """PDFs against ten million events, against each parameter, peaks against energy, and training curves.

    Args:
        words: Densities, at most six.
        data: Run folder with the set validation-2.
        out: Where the pictures go.
    """
    place = output_folder(out)
    table = load_table(Path(data) / "validation-2")
    densities = {Path(word).name: load_density(word) for word in words}
    first = next(iter(densities.values()))
    paths, series = [], []
    for k in range(len(table.parameters)):
        measured = CalibrationData.from_table(table, int(table.data_set[k]))
        at = table.parameters[k]
        title = f"kB {at[0]:g} g/cm²/GeV, fC {at[1]:g}, {at[2]:g} photons/MeV"
        if k == 1:
            models = {label: tuning_plots.expected_counts(measured, d, at) for label, d in densities.items()}
            save(tuning_plots.spectra(measured, models, title=title), place / "spectra.png")
            paths.append(place / "spectra.png")
        expected = tuning_plots.expected_counts(measured, first, at)
        series.append(tuning_response_plots.peak_series(title, measured, expected))
    save(tuning_response_plots.peak_positions(series), place / "peaks.png")
    paths.append(place / "peaks.png")
    middle = np.array([0.5 * (low + high) for low, high in first.limits])
    for source, name in _SCANNED.items():
        if source in first.sources:
            scans = tuning_response_plots.scan_density(first, source, middle)
            figure = tuning_response_plots.parameter_dependence(first.edges, scans, source)
            save(figure, place / f"response-{name}.png")
            paths.append(place / f"response-{name}.png")
    histories = {}
    for word in words:
        history = load_model(density_folder(word))[1].get("training", {}).get("history")
        if history:
            histories[Path(word).name] = history
    if histories:
        save(tuning_plots.training_curves(histories), place / "training.png")
        paths.append(place / "training.png")
    return paths


def draw_validation(records: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """One picture for each study.

    Args:
        records: From :func:`nuebar.jobs.tune_validate.run_validate`.
        out: Where the pictures go.
    """
    place = output_folder(out)
    figures: dict[str, Any] = {}
    plots = tuning_study_plots
    if records.get("accuracy"):
        found = records["accuracy"]
        one = next(iter(found.values()))
        floor: Any = tuple(one["validation-2"][key]["perfect_mean"] for key in ("d1", "d2", "d_inf"))
        upper: Any = tuple(one["validation-2"][key]["perfect_95"] for key in ("d1", "d2", "d_inf"))
        each: dict[str, Any] = {}
        for label, r in found.items():
            tables = [r["validation-2"][key] for key in ("d1", "d2", "d_inf")]
            each[label] = tuple(np.array(t.get("each", [t["mean"]])) for t in tables)
        figures["distances"] = tuning_rank_plots.distance_ranges(each, one["sources"], floor=floor, floor_upper=upper)
    if records.get("exposures"):
        studies = {label: plots.Exposures.from_record(r) for label, r in records["exposures"].items()}
        truth = next(iter(records["exposures"].values()))["truth"]
        figures["exposures-spread"] = plots.exposure_spread(studies, truth)
        figures["exposures-bias"] = plots.exposure_bias(studies, truth, aims=np.array(BIAS_AIM_PERCENT) / 100)
        pulls = {}
        for label, r in records["exposures"].items():
            row = r["rows"][-1]
            pulls[label] = (np.array(row["best"]) - truth) / np.array(row["errors"])
        figures["exposures-pulls"] = tuning_rank_plots.pull_histograms(pulls)
    if records.get("points"):
        for label, r in records["points"].items():
            noise = float(np.median(np.array(r["bias_noise_sigma"])))
            figures[f"points-{label}"] = plots.point_biases(
                np.array(r["truth"]), np.array(r["bias_sigma"]), edge=~np.array(r["inside"]), noise=noise, title=label
            )
    if records.get("asimov"):
        some = records["asimov"]
        edge = ~np.array(next(iter(some.values()))["inside"])
        biases = {label: np.array(r["bias_sigma"]) for label, r in some.items()}
        figures["asimov"] = plots.bias_histograms(biases, edge=edge)
    if records.get("calibration"):
        some = records["calibration"]
        one = next(iter(some.values()))
        ranks = {label: np.array(r["ranks"]) for label, r in some.items()}
        p_values = {label: np.array(r["rank_p"])[: len(RESPONSE)] for label, r in some.items()}
        figures["ranks"] = tuning_rank_plots.rank_histograms(ranks, n_samples=one["samples"], p_values=p_values)
        central = {label: np.array(r["central"]) for label, r in some.items()}
        figures["coverage"] = tuning_rank_plots.coverage_curves(
            central, min(r["used"] for r in some.values()), levels=one["levels"], nominal=one["nominal"]
        )
    paths = []
    for name, figure in figures.items():
        save(figure, place / f"{name}.png")
        paths.append(place / f"{name}.png")
    return paths

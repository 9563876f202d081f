"""The harmonic predictor as a folder: tables in safetensors, windows and provenance in JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.models import load_model, save_model
from nuebar.io.results import versions
from nuebar.predict.box import Provenance
from nuebar.predict.harmonic import HarmonicPredictor, Series, Sums, Windows

__all__ = ["load_harmonic", "save_harmonic"]


def save_harmonic(predictor: HarmonicPredictor, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a harmonic predictor.

    Args:
        predictor: What to write.
        folder: Output folder, made if missing.

    Returns:
        The two files.
    """
    arrays: dict[str, np.ndarray] = {
        "edges_MeV": np.array(predictor.edges_MeV),
        "energy_nodes_MeV": np.asarray(predictor.energy_nodes_MeV),
        "to_bins": np.asarray(predictor.to_bins),
        "to_slopes": np.asarray(predictor.to_slopes),
    }
    arrays |= _sums_arrays("total", predictor.total)
    for k, group in enumerate(predictor.cores):
        arrays |= _sums_arrays(f"cores.{k}", group)
    description = {
        "kind": "harmonic",
        "windows_eV2": {"solar": predictor.windows.solar, "atmospheric": predictor.windows.atmospheric},
        "matter": predictor.matter,
        "core_names": predictor.core_names,
        "core_order": predictor.core_order,
        "core_groups": len(predictor.cores),
        "electrons_per_nucleon": predictor.electrons_per_nucleon,
        "provenance": dict(predictor.provenance),
        "series": {
            name: [s.middle, s.half]
            for name, sums in (
                ("total", predictor.total),
                *((f"cores.{k}", g) for k, g in enumerate(predictor.cores)),
            )
            for name, s in ((f"{name}.solar", sums.solar), (f"{name}.atmospheric", sums.atmospheric))
        },
        "versions": versions(),
    }
    return save_model(folder, arrays, description)


def load_harmonic(folder: str | os.PathLike[str]) -> HarmonicPredictor:
    """Read a harmonic predictor back.

    Args:
        folder: As written by :func:`save_harmonic`.

    Raises:
        NuebarError: The folder does not hold a harmonic predictor of this format.
    """
    arrays, d = load_model(folder)
    if d.get("kind") != "harmonic":
        raise NuebarError(f"{folder}: expected a harmonic predictor, got kind {d.get('kind')!r}")
    try:
        windows = Windows(_pair(d["windows_eV2"]["solar"]), _pair(d["windows_eV2"]["atmospheric"]))
        groups = range(int(d["core_groups"]))
        return HarmonicPredictor(
            edges_MeV=tuple(float(e) for e in arrays["edges_MeV"]),
            windows=windows,
            matter=bool(d["matter"]),
            core_names=tuple(str(n) for n in d["core_names"]),
            core_order=tuple(int(k) for k in d["core_order"]),
            provenance=Provenance({str(k): str(v) for k, v in d["provenance"].items()}),
            electrons_per_nucleon=float(d["electrons_per_nucleon"]),
            energy_nodes_MeV=jnp.asarray(arrays["energy_nodes_MeV"]),
            to_bins=jnp.asarray(arrays["to_bins"]),
            to_slopes=jnp.asarray(arrays["to_slopes"]),
            total=_sums(arrays, d["series"], "total"),
            cores=tuple(_sums(arrays, d["series"], f"cores.{k}") for k in groups),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NuebarError(
            f"{folder}: the description of the predictor is incomplete ({type(error).__name__}: {error}); "
            "build it again"
        ) from error


def _pair(values: Any) -> tuple[float, float]:
    low, high = (float(v) for v in values)
    if not 0 < low < high:
        raise ValueError(f"window {values} is not (low, high)")
    return low, high


def _sums_arrays(prefix: str, sums: Sums) -> dict[str, np.ndarray]:
    out = {f"{prefix}.flat": np.asarray(sums.flat), f"{prefix}.flat_moment": np.asarray(sums.flat_moment)}
    for name, series in (("solar", sums.solar), ("atmospheric", sums.atmospheric)):
        out[f"{prefix}.{name}.value"] = np.asarray(series.value)
        out[f"{prefix}.{name}.moment"] = np.asarray(series.moment)
    return out


def _sums(arrays: Mapping[str, np.ndarray], scales: Mapping[str, Any], prefix: str) -> Sums:
    def series(name: str) -> Series:
        key = f"{prefix}.{name}"
        middle, half = scales[key]
        return Series(
            float(middle),
            float(half),
            jnp.asarray(arrays[f"{key}.value"]),
            jnp.asarray(arrays[f"{key}.moment"]),
        )

    return Sums(
        jnp.asarray(arrays[f"{prefix}.flat"]),
        jnp.asarray(arrays[f"{prefix}.flat_moment"]),
        series("solar"),
        series("atmospheric"),
    )

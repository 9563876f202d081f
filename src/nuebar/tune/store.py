"""Densities as folders: weights in safetensors, everything else in JSON; and the ones that ship with nuebar."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.models import load_model, save_model
from nuebar.io.results import versions
from nuebar.predict.box import Provenance
from nuebar.training import named_arrays, with_arrays
from nuebar.tune import planar, spline, tede
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.recipes import KINDS
from nuebar.tune.train import TrainedDensity

__all__ = ["MODELS", "PRETRAINED", "density_folder", "describe_training", "load_density", "save_density"]

MODELS = Path(__file__).parents[1] / "models"
PRETRAINED = ("tede", "spline", "planar")
"""Words for the densities that ship with nuebar, in :data:`MODELS`."""

KIND = "calibration density"
_NETWORK = {"tede": "encoder", "planar": "networks", "spline": "network"}
_LARGEST_BINS = 100_000


def density_folder(word: str | os.PathLike[str]) -> Path:
    """The folder that a word or a path of the command line means.

    Args:
        word: One of :data:`PRETRAINED`, or a folder.

    Raises:
        NuebarError: There is no density.
    """
    path = Path(word)
    if str(word) in PRETRAINED:
        if (path / "model.json").is_file():
            raise NuebarError(
                f"density {str(word)!r}: expected one, got the shipped one and a folder; write ./{word} for the folder"
            )
        path = MODELS / str(word)
        if not (path / "model.json").is_file():
            raise NuebarError(
                f"the trained density {str(word)!r} is not in this installation; make one with 'nuebar tune train "
                f"--recipe {word}' and give its folder"
            )
    if not (path / "model.json").is_file():
        raise NuebarError(
            f"density {str(word)!r}: expected one of {', '.join(PRETRAINED)}, or a folder made by 'nuebar tune train'"
        )
    return path


def save_density(
    density: Density,
    folder: str | os.PathLike[str],
    *,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write a TEDE, a planar or a spline flow.

    Args:
        density: What to write.
        folder: Output folder, made if missing.
        training: How it was trained, from :func:`describe_training`.
        metrics: How accurate it is, JSON-able.

    Returns:
        The two files.

    Raises:
        NuebarError: It is a density of another kind.
    """
    if density.name not in _NETWORK:
        raise NuebarError(f"the density {density.name!r} has no folder of its own; expected {', '.join(_NETWORK)}")
    network = getattr(density, _NETWORK[density.name])
    description = {
        "kind": KIND,
        "density": density.name,
        "settings": asdict(network.settings),
        "sources": list(density.sources),
        "box": {name: list(pair) for name, pair in zip(RESPONSE, density.limits, strict=True)},
        "pe_to_observable": density.pe_to_observable,
        "provenance": dict(density.provenance),
        "training": dict(training or {}),
        "metrics": dict(metrics or {}),
        "versions": versions(),
    }
    return save_model(folder, {"edges": density.edges, **named_arrays(network, "network.")}, description)


def describe_training(trained: TrainedDensity, command: str = "") -> dict[str, Any]:
    """What a model's description tells of its training.

    Args:
        trained: From :func:`nuebar.tune.train.train_density`.
        command: That made it.
    """
    history = [
        [p.step, float(f"{p.loss:.7g}"), float(f"{p.validation:.5g}"), round(p.seconds, 1)] for p in trained.history
    ]
    return {
        "command": command,
        "recipe": trained.recipe.told(),
        "data": trained.digest,
        "reason": trained.reason,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "best_d2": trained.best,
        "seconds": round(trained.seconds, 1),
        "weights": trained.weights,
        "history": history,
    }


def load_density(word: str | os.PathLike[str]) -> Density:
    """Read a density.

    Args:
        word: One of :data:`PRETRAINED`, or a folder as written by :func:`save_density`.

    Returns:
        The density.

    Raises:
        NuebarError: There is none, it was altered, or its arrays do not fit together.
    """
    folder = density_folder(word)
    arrays, d = load_model(folder)
    if d.get("kind") != KIND or str(d.get("density")) not in _NETWORK:
        raise NuebarError(
            f"{folder}: expected a {KIND} ({', '.join(_NETWORK)}), got {d.get('kind')!r} {d.get('density')!r}; train "
            "one with 'nuebar tune train'"
        )
    try:
        name = str(d["density"])
        settings = KINDS[name](**d["settings"])
        sources = tuple(str(s) for s in d["sources"])
        limits = tuple((float(d["box"][n][0]), float(d["box"][n][1])) for n in RESPONSE)
        scale = float(d["pe_to_observable"])
        provenance = Provenance({str(k): str(v) for k, v in d["provenance"].items()})
        edges = arrays.pop("edges")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NuebarError(
            f"{folder}: the description of the density is incomplete ({type(error).__name__}: {error}); train it again"
        ) from error
    _check(folder, sources, limits, scale, edges)
    network = with_arrays(_skeleton(name, settings, len(sources), edges.size - 1), arrays, str(folder), "network.")
    if any(not key.startswith("network.") for key in arrays):
        raise NuebarError(f"{folder}: expected the arrays of a density, got {sorted(arrays)}; train it again")
    common: dict[str, Any] = {
        "sources": sources,
        "edges_observable": tuple(float(e) for e in edges),
        "pe_to_observable": scale,
        "limits": limits,
        "provenance": Provenance({**provenance, "digest": str(d.get("digest", ""))}),
    }
    network = jax.tree.map(jnp.asarray, network)
    kinds: dict[str, Any] = {"tede": tede.Tede, "planar": planar.PlanarFlow, "spline": spline.SplineFlow}
    density: Density = kinds[name](**common, **{_NETWORK[name]: network})
    return density


def _check(
    folder: Path, sources: tuple[str, ...], limits: tuple[tuple[float, float], ...], scale: float, edges: np.ndarray
) -> None:
    good = edges.ndim == 1 and edges.dtype == np.float64 and 2 <= edges.size <= _LARGEST_BINS
    if not good or not np.all(np.diff(edges) > 0) or not edges[0] >= 0:
        raise NuebarError(f"{folder}: expected ascending edges of bins, float64, from 0 on; train the density again")
    if not sources or len(set(sources)) < len(sources):
        raise NuebarError(f"{folder}: expected different sources, got {sources}; train the density again")
    if not all(np.isfinite(low) and low < high < np.inf for low, high in limits) or not 0 < scale < np.inf:
        raise NuebarError(f"{folder}: expected limits (low, high) and a scale above 0, got {limits} and {scale}")


def _skeleton(name: str, settings: Any, n_sources: int, n_bins: int) -> Any:
    if name == "tede":
        return tede.skeleton(settings, n_sources, n_bins)
    if name == "planar":
        return planar.skeleton(settings, n_sources)
    return spline.skeleton(settings, n_sources)

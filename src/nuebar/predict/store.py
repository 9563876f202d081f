"""Predictors as folders: arrays in safetensors, everything else in JSON; and the ones that ship with nuebar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import read_json
from nuebar.io.models import load_model, save_model
from nuebar.io.results import versions
from nuebar.predict.box import Provenance
from nuebar.predict.harmonic import HarmonicPredictor, Series, Sums, Windows
from nuebar.predict.layout import check_harmonic, check_matrix, check_surrogate
from nuebar.predict.matrix import MatrixPredictor

__all__ = [
    "MODELS",
    "PRETRAINED",
    "load_harmonic",
    "load_matrix",
    "load_predictor",
    "load_surrogate",
    "predictor_folder",
    "save_harmonic",
    "save_matrix",
    "save_predictor",
    "save_surrogate",
]

MODELS = Path(__file__).parents[1] / "models"
PRETRAINED = ("surrogate", "network", "network-plain")
"""Words for the predictors that ship with nuebar, in :data:`MODELS`."""

GRID = "grid.json"


def predictor_folder(word: str | os.PathLike[str]) -> Path:
    """The folder that a word or a path of the command line means.

    Args:
        word: One of :data:`PRETRAINED`, or a folder.

    Raises:
        NuebarError: There is no predictor.
    """
    path = Path(word)
    if str(word) in PRETRAINED:
        path = MODELS / str(word)
        if not (path / "model.json").is_file():
            raise NuebarError(
                f"the pretrained predictor {str(word)!r} is not in this installation ({path}); make one with 'nuebar "
                f"predict build {word} --out FOLDER' and give its folder"
            )
    elif not ((path / "model.json").is_file() or (path / GRID).is_file()):
        raise NuebarError(
            f"unknown predictor {str(word)!r}; expected harmonic, matrix, reweight (with pairs), surrogate, network, "
            "or a folder made by 'nuebar predict build'"
        )
    return path


def load_predictor(folder: str | os.PathLike[str]) -> Any:
    """Read a predictor of any kind.

    Args:
        folder: As written by :func:`save_predictor` or :func:`nuebar.predict.grid.build_grid`.

    Returns:
        The predictor, of the kind that the folder holds.

    Raises:
        NuebarError: The folder holds none, one of another version or of an unknown kind, or was altered.
    """
    path = Path(folder)
    if (path / GRID).is_file():
        from nuebar.predict.grid import load_grid

        return load_grid(path)
    kind = read_json(path / "model.json").get("kind")
    if not isinstance(kind, str) or kind not in LOADERS:
        raise NuebarError(
            f"{path / 'model.json'}: expected a predictor of kind {', '.join(LOADERS)} or grid, got {kind!r}; build "
            "one with 'nuebar predict build', or update nuebar"
        )
    predictor = LOADERS[kind](path)
    try:
        found = jax.eval_shape(predictor.channels, np.zeros(len(predictor.parameter_names)))
        fits = found.shape == (1 + len(predictor.core_names), predictor.edges.size - 1)
    except (TypeError, ValueError, IndexError) as error:
        raise NuebarError(f"{path}: the arrays do not fit together ({error}); build it again".split("\n")[0]) from error
    if not fits:
        raise NuebarError(f"{path}: expected counts in {predictor.edges.size - 1} bins, got others; build it again")
    return predictor


def save_predictor(predictor: Any, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a harmonic, matrix, network or surrogate predictor.

    Args:
        predictor: What to write.
        folder: Output folder, made if missing.

    Returns:
        The two files.

    Raises:
        NuebarError: There is no file format for this kind.
    """
    if predictor.name == "network":
        from nuebar.predict.network import save_network

        return save_network(predictor, folder)
    savers: dict[str, Callable[[Any, Any], tuple[Path, Path]]] = {
        "harmonic": save_harmonic, "matrix": save_matrix, "surrogate": save_surrogate,
    }  # fmt: skip
    if predictor.name not in savers:
        raise NuebarError(f"the {predictor.name} predictor has no folder of its own; keep what it was made from")
    return savers[predictor.name](predictor, folder)


# ---------------------------------------------------------------- harmonic


def save_harmonic(predictor: HarmonicPredictor, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a harmonic predictor.

    Args:
        predictor: What to write.
        folder: Output folder, made if missing.

    Returns:
        The two files.
    """
    arrays, description = _harmonic_parts(predictor)
    return save_model(folder, arrays, {"kind": "harmonic", **description, "versions": versions()})


def _harmonic_parts(predictor: HarmonicPredictor) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Its arrays, and what else there is to know."""
    arrays: dict[str, np.ndarray] = {
        "edges_MeV": np.array(predictor.edges_MeV),
        "energy_nodes_MeV": np.asarray(predictor.energy_nodes_MeV),
        "to_bins": np.asarray(predictor.to_bins),
        "to_slopes": np.asarray(predictor.to_slopes),
    }
    arrays |= _sums_arrays("total", predictor.total)
    for k, group in enumerate(predictor.cores):
        arrays |= _sums_arrays(f"cores.{k}", group)
    if predictor.mc_relative is not None:
        arrays["mc_relative"] = np.asarray(predictor.mc_relative)
    description = {
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
    }
    return arrays, description


def load_harmonic(folder: str | os.PathLike[str]) -> HarmonicPredictor:
    """Read a harmonic predictor back.

    Args:
        folder: As written by :func:`save_harmonic`.

    Returns:
        The predictor.

    Raises:
        NuebarError: The folder does not hold a harmonic predictor of this format.
    """
    arrays, d = load_model(folder)
    if d.get("kind") != "harmonic":
        raise NuebarError(f"{folder}: expected a harmonic predictor, got kind {d.get('kind')!r}")
    with _complete(folder):
        predictor = _harmonic_from(arrays, d)
        check_harmonic(predictor)
    return predictor


def _harmonic_from(arrays: Mapping[str, np.ndarray], d: Mapping[str, Any]) -> HarmonicPredictor:
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
        mc_relative=jnp.asarray(arrays["mc_relative"]) if "mc_relative" in arrays else None,
    )


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


# ---------------------------------------------------------------- matrix

MATRIX_ARRAYS = ("e_nu_MeV", "baseline_km", "events", "response")


def save_matrix(predictor: MatrixPredictor, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a response matrix and the events that go with it; the arguments are those of :func:`save_harmonic`."""
    arrays = {n: np.asarray(getattr(predictor, n)) for n in MATRIX_ARRAYS}
    arrays["edges_MeV"] = predictor.edges
    if predictor.mc_relative is not None:
        arrays["mc_relative"] = np.asarray(predictor.mc_relative)
    description = {
        "kind": "matrix",
        "core_names": predictor.core_names,
        "electrons_per_nucleon": predictor.electrons_per_nucleon,
        "provenance": dict(predictor.provenance),
        "versions": versions(),
    }
    return save_model(folder, arrays, description)


def load_matrix(folder: str | os.PathLike[str]) -> MatrixPredictor:
    """Read a matrix predictor back; see :func:`load_harmonic`."""
    arrays, d = load_model(folder)
    if d.get("kind") != "matrix":
        raise NuebarError(f"{folder}: expected a matrix predictor, got kind {d.get('kind')!r}")
    with _complete(folder):
        predictor = MatrixPredictor(
            edges_MeV=tuple(float(e) for e in arrays["edges_MeV"]),
            core_names=tuple(str(n) for n in d["core_names"]),
            provenance=Provenance({str(k): str(v) for k, v in d["provenance"].items()}),
            electrons_per_nucleon=float(d["electrons_per_nucleon"]),
            mc_relative=jnp.asarray(arrays["mc_relative"]) if "mc_relative" in arrays else None,
            **{n: jnp.asarray(arrays[n]) for n in MATRIX_ARRAYS},
        )
        check_matrix(predictor)
    return predictor


@contextmanager
def _complete(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever is missing or wrong while a predictor is put together, in one sentence."""
    try:
        yield
    except NuebarError as error:
        raise NuebarError(f"{folder}: {error}; build the predictor again") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        told = f"missing {error}" if isinstance(error, KeyError) else error
        raise NuebarError(
            f"{folder}: the description of the predictor is incomplete or wrong ({told}); build it again"
        ) from error


# ---------------------------------------------------------------- surrogate

DERIVED = ("stacked",)  # made again from the rest
TABLES = ("value", "moment")  # of the series, all that is large


def save_surrogate(predictor: Any, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a surrogate in less than 2 MB: series in single precision, and in half of it for its corrections.

    Args:
        predictor: A :class:`nuebar.predict.surrogate.SurrogatePredictor`.
        folder: Output folder, made if missing.

    Returns:
        The two files.
    """
    arrays: dict[str, np.ndarray] = {}
    description: dict[str, Any] = {"kind": "surrogate"}
    for name in predictor.__dataclass_fields__:
        value = getattr(predictor, name)
        if name in DERIVED:
            continue
        if isinstance(value, HarmonicPredictor):
            parts, description[name] = _harmonic_parts(value)
            for key, array in parts.items():
                arrays |= _compact(f"{name}.{key}", array, half=name == "excess" or key.endswith("moment"))
        elif isinstance(value, jax.Array | np.ndarray):
            arrays[name] = np.asarray(value)
        elif isinstance(value, Provenance):
            description[name] = dict(value)
        else:
            description[name] = value
    return save_model(folder, arrays, description | {"versions": versions()})


def load_surrogate(folder: str | os.PathLike[str]) -> Any:
    """Read a surrogate back; see :func:`load_harmonic`."""
    from nuebar.predict.surrogate import SurrogatePredictor, stack

    arrays, d = load_model(folder)
    if d.get("kind") != "surrogate":
        raise NuebarError(f"{folder}: expected a surrogate, got kind {d.get('kind')!r}")
    fields: dict[str, Any] = {}
    with _complete(folder):
        for name in SurrogatePredictor.__dataclass_fields__:
            if name in DERIVED:
                continue
            if name in ("nodes", "excess"):
                own = {k[len(name) + 1 :]: v for k, v in arrays.items() if k.startswith(f"{name}.")}
                fields[name] = _harmonic_from(_doubled(own), d[name])
            elif name == "provenance":
                fields[name] = Provenance({str(k): str(v) for k, v in d[name].items()})
            elif name in arrays:
                fields[name] = jnp.asarray(arrays[name])
            else:
                fields[name] = _frozen(d[name])
        check_surrogate(SurrogatePredictor(**fields, stacked=jnp.zeros((0, 0))))
        return SurrogatePredictor(**fields, stacked=stack(fields["nodes"], fields["excess"]))


def _compact(name: str, array: np.ndarray, *, half: bool) -> dict[str, np.ndarray]:
    """A table in single or half precision, the latter relative to the largest number of each row; others as they are.

    What was read back is written again to the same bits.
    """
    if name.split(".")[-1] not in TABLES or not array.size:
        return {name: array}
    if not half:
        return {name: array.astype(np.float32)}
    scale = np.abs(array).max(axis=-1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    return {name: (array / scale).astype(np.float16), f"{name}.scale": scale.astype(np.float32)}


def _doubled(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Double precision again, scales put back."""
    out = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{name}: expected floating-point numbers, got {array.dtype}")
        if name.endswith(".scale"):
            continue
        out[name] = array.astype(np.float64)
        if array.dtype == np.float16:
            scale = arrays[f"{name}.scale"]
            if scale.shape != (*array.shape[:-1], 1):
                raise ValueError(f"{name}.scale: expected one number a row of {array.shape}, got {scale.shape}")
            out[name] *= scale.astype(np.float64)
    return out


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples, so that they can be compared and hashed; their numbers as floating-point numbers."""
    if not isinstance(value, list):
        return value
    return tuple(float(v) if type(v) is int else _frozen(v) for v in value)


def _load_network(folder: str | os.PathLike[str]) -> Any:
    from nuebar.predict.network import load_network

    return load_network(folder)


LOADERS: dict[str, Callable[[Any], Any]] = {
    "harmonic": load_harmonic,
    "matrix": load_matrix,
    "network": _load_network,
    "surrogate": load_surrogate,
}

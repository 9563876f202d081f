"""Any predictor as one file that numpy alone can evaluate, with a test vector and the evaluator beside it.

The file holds arrays and a description: kind, parameters with unit, limits and default, bins, provenance, one set of
parameters and the counts expected there, and a hash over everything. The evaluator is cut out of
:mod:`nuebar.predict.evaluator`: the functions that this kind needs and no others, so that it can be read in one go,
kept for decades, or translated into another language.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_bytes, atomic_write_text, output_folder, write_json
from nuebar.io.results import versions
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV, POTENTIAL_eV2_per_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.predict import evaluator
from nuebar.predict.box import PHYSICAL, PHYSICS, LARGEST_eV2, SMALLEST_SOLAR_eV2
from nuebar.predict.grid import GridPredictor
from nuebar.predict.harmonic import HarmonicPredictor, Sums
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.surrogate import SurrogatePredictor

__all__ = ["EXPORTERS", "Parts", "evaluator_source", "export_predictor"]

FORMAT = 1
EVALUATOR = "evaluator.py"
MOST_BYTES = 100_000_000
UNITS = {"eV2": "eV²", "g_cm3": "g/cm³", "g_cm2_GeV": "g/cm²/GeV", "per_MeV": "1/MeV"}
FREE = {"dm2_21_eV2": (SMALLEST_SOLAR_eV2, LARGEST_eV2), "dm2_31_eV2": (-LARGEST_eV2, LARGEST_eV2)}
# The test vector of an unbounded parameter: PDG 2022 (normal ordering) and the rock around JUNO.
TYPICAL = dict(zip(PHYSICS, (0.307, 0.0220, 7.53e-5, 2.5123e-3, 2.45), strict=True))


@dataclass(frozen=True)
class Parts:
    """What a kind of predictor puts into its file.

    Attributes:
        arrays: Name → array, as the function of this kind in :mod:`nuebar.predict.evaluator` reads them.
        about: Numbers and names beside the arrays.
        tolerance: Largest difference from :meth:`predict` allowed, relative to the largest bin.
        defaults: Values of parameters that may be left out.
    """

    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-10
    defaults: Mapping[str, float] = field(default_factory=dict)


def _harmonic(predictor: HarmonicPredictor) -> Parts:
    total: Sums = predictor.total
    arrays = {name: getattr(predictor, name) for name in ("energy_nodes_MeV", "to_bins", "to_slopes")}
    arrays |= {"flat": total.flat, "flat_moment": total.flat_moment}
    about: dict[str, Any] = {}
    for name, series in (("solar", total.solar), ("atmospheric", total.atmospheric)):
        moment = series.moment if series.moment.shape[-1] else np.zeros((total.flat.size, 1))
        arrays |= {f"{name}.value": series.value, f"{name}.moment": moment}
        about[name] = [series.middle, series.half]
    return Parts(arrays, about | _matter(predictor), defaults={PHYSICS[-1]: 0.0})


def _matrix(predictor: MatrixPredictor) -> Parts:
    names = ("e_nu_MeV", "baseline_km", "events", "response")
    about = {"phase_per_eV2_km_MeV": PHASE_per_eV2_km_MeV} | _matter(predictor)
    return Parts({name: getattr(predictor, name) for name in names}, about, defaults={PHYSICS[-1]: 0.0})


def _matter(predictor: HarmonicPredictor | MatrixPredictor) -> dict[str, float]:
    return {
        "potential_eV2_per_MeV": POTENTIAL_eV2_per_MeV,
        "electrons_per_nucleon": predictor.electrons_per_nucleon,
    }


def _network(predictor: Any) -> Parts:
    from nuebar.predict.network import input_scales  # brings optax, which other kinds do not need

    shift, width = input_scales(predictor.architecture, predictor.limits)
    arrays = {"shift": shift, "width": width, "offset": predictor.offset, "scale": predictor.scale}
    for k, layer in enumerate(predictor.network.layers):
        arrays |= {f"weight.{k}": layer.weight, f"bias.{k}": layer.bias}
    about = {"activation": predictor.network.activation, "layers": len(predictor.network.layers)}
    return Parts(arrays, about, tolerance=1e-5)


def _grid(predictor: GridPredictor) -> Parts:
    if predictor.nbytes > MOST_BYTES:
        raise NuebarError(
            f"export: expected a grid of at most {MOST_BYTES / 1e6:.0f} MB, got {predictor.nbytes / 1e6:.0f} MB; "
            "copy its folder, or build a smaller one with order 3"
        )
    arrays = {name: np.array([getattr(a, name) for a in predictor.axes]) for name in ("low", "step")}
    return Parts(arrays | {"spectra": predictor.spectra.values}, {"order": predictor.order}, tolerance=1e-9)


def _surrogate(predictor: SurrogatePredictor) -> Parts:
    names = ("stacked", "light", "inverse", "anchor", "constants")
    about: dict[str, Any] = {"anchor_MeV": N_H_GAMMA_MeV}
    for name, series in (("solar", predictor.nodes.total.solar), ("atmospheric", predictor.nodes.total.atmospheric)):
        about[name] = [series.middle, series.half, series.value.shape[-1]]
    for name, window, size in zip(("kB", "ratio"), predictor.light_windows, predictor.light.shape[2:], strict=True):
        about[name] = [*window, size]
    arrays = {n: np.asarray(getattr(predictor, n)) for n in names}
    arrays["light"] = arrays["light"].astype(float)
    arrays["light"][0, :, 0, 0] += np.asarray(predictor.node_energies)  # energies instead of shifts
    return Parts(arrays, about, tolerance=1e-5, defaults=predictor.nominal())


EXPORTERS: dict[str, Callable[[Any], Parts]] = {
    "harmonic": _harmonic,
    "matrix": _matrix,
    "network": _network,
    "grid": _grid,
    "surrogate": _surrogate,
}
"""Name of a predictor → what goes into its file; a new kind also needs its function in the evaluator."""


def export_predictor(
    predictor: Any, path: str | os.PathLike[str], *, parameters: Mapping[str, float] | None = None
) -> tuple[Path, Path]:
    """Write a predictor as ``.npz`` or ``.json``, and its evaluator as ``evaluator.py`` in the same folder.

    ``python evaluator.py FILE`` evaluates the test vector and prints the worst difference; ``import evaluator`` gives
    ``evaluate(*load(FILE), parameters)``.

    Args:
        predictor: One of the kinds in :data:`EXPORTERS`.
        path: Where to write; the suffix decides the format.
        parameters: Of the test vector; by default those of PDG 2022 where the box has them, else its centre.

    Returns:
        The file and the evaluator.

    Raises:
        NuebarError: Another suffix or kind, a grid above 100 MB, another evaluator in the folder, or parameters
            outside the box.
    """
    target = Path(path)
    if target.suffix not in (".npz", ".json"):
        raise NuebarError(f"{target}: expected a name that ends in .npz or .json; choose one")
    if predictor.name not in EXPORTERS:
        raise NuebarError(f"export: expected one of {', '.join(EXPORTERS)}, got a {predictor.name!r} predictor")
    output_folder(target.parent)
    if isinstance(predictor, SurrogatePredictor):
        predictor = predictor.in_vacuum()  # the file says so: it has no density among its parameters
    source, beside = evaluator_source(predictor.name), target.with_name(EVALUATOR)
    if beside.exists() and beside.read_text(encoding="utf-8") != source:
        raise NuebarError(f"{beside}: expected no other evaluator in the folder; export into a folder of its own")
    parts = EXPORTERS[predictor.name](predictor)
    described = [_described(predictor, name, parts) for name in predictor.parameter_names]
    test = {q["name"]: _typical(q) for q in described} if parameters is None else dict(parameters)
    arrays = {name: np.ascontiguousarray(a) for name, a in parts.arrays.items()}
    arrays["test_counts"] = np.asarray(predictor.predict(test), dtype=float)
    meta = {
        "format": FORMAT,
        "kind": predictor.name,
        "parameters": described,
        "edges_MeV": [float(e) for e in predictor.edges],
        "test_parameters": {name: float(value) for name, value in test.items()},
        "tolerance": parts.tolerance,
        "provenance": dict(predictor.provenance),
        "versions": versions(),
        **parts.about,
        "arrays": {name: [a.dtype.newbyteorder("<").str, list(a.shape)] for name, a in arrays.items()},
        "hash": "",
    }
    meta = json.loads(json.dumps(meta, allow_nan=False))  # what the evaluator will see
    _write(target, meta | {"hash": _hash(meta, arrays)}, arrays)
    atomic_write_text(beside, source)
    return target, beside


def _write(target: Path, meta: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    if target.suffix == ".json":
        write_json(target, {"meta": meta, **{name: a.ravel().tolist() for name, a in arrays.items()}}, indent=None)
        return
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: a.astype(a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    np.savez_compressed(buffer, meta=np.array(json.dumps(meta)), **plain)
    atomic_write_bytes(target, buffer.getvalue())


def _hash(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """As :func:`nuebar.predict.evaluator.load` has it."""
    digest = hashlib.sha256(json.dumps({**meta, "hash": ""}, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _described(predictor: Any, name: str, parts: Parts) -> dict[str, Any]:
    """Name, unit, allowed ranges (one for each ordering) and default of a parameter."""
    ranges = [predictor.box.get(name, {**PHYSICAL, **FREE}.get(name))]
    if name == "dm2_31_eV2" and hasattr(predictor, "windows"):
        ranges.append(predictor.windows.inverted())
    unit = next((unit for end, unit in UNITS.items() if name.endswith(f"_{end}")), "")
    return {"name": name, "unit": unit, "ranges": ranges, "default": parts.defaults.get(name)}


def _typical(q: Mapping[str, Any]) -> float:
    """A value inside the first range."""
    low, high = q["ranges"][0]
    value = TYPICAL.get(q["name"])
    value = q["default"] if value is None else value
    return float(value) if value is not None and low <= value <= high else 0.5 * (low + high)


def evaluator_source(kind: str) -> str:
    """The part of :mod:`nuebar.predict.evaluator` that evaluates one kind, as a program of its own.

    Args:
        kind: One of the kinds in :data:`EXPORTERS`.
    """
    text = Path(evaluator.__file__).read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    needed = {"load", "evaluate"} | _called(kind, functions)
    parts: list[str] = []
    for node in tree.body:
        part = "\n".join(line for line in lines[node.lineno - 1 : node.end_lineno] if line.strip())
        if isinstance(node, ast.AnnAssign):
            part = f'KINDS: Any = {{"{kind}": {kind}}}'
        if not isinstance(node, ast.FunctionDef) or node.name in needed:
            imports = isinstance(node, ast.Import | ast.ImportFrom)
            parts.append(part if not parts else ("\n" if imports else "\n\n") + part)
    return "".join(parts) + "\n"


def _called(name: str, functions: Mapping[str, ast.FunctionDef]) -> set[str]:
    """A function of the evaluator and those that it calls."""
    inner = {n.id for n in ast.walk(functions[name]) if isinstance(n, ast.Name) and n.id in functions and n.id != name}
    return {name}.union(*(_called(other, functions) for other in inner))

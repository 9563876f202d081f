"""One-dimensional histograms, kept as UHI JSON so that ``hist`` and ``boost-histogram`` read them too.

The format is schema version 1 of the Unified Histogram Interface, https://uhi.readthedocs.io (Serialization),
as its package ``uhi`` ships it in ``histogram.schema.json``.
"""

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, Self

import numpy as np

from nuebar import __version__
from nuebar.errors import NuebarError
from nuebar.io.files import read_json, write_json

_STORAGES = ("int", "double", "weighted")


@dataclass(frozen=True, eq=False)
class Histogram:
    """Contents of contiguous bins.

    Attributes:
        edges: Bin edges, shape (bins + 1,), strictly increasing, in ``unit``; read-only float64.
        counts: Content of each bin, shape (bins,); read-only float64. Events, events per day, or whatever the
            histogram is said to hold; not negative unless ``allow_negative`` was given.
        variances: Squared error of each bin, shape (bins,), or None where the contents are plain counts.
        name: What it holds.
        unit: Unit of the edges.

    Raises:
        NuebarError: Wrong shapes, edges not increasing, or a number that is not finite or is negative.
    """

    edges: np.ndarray
    counts: np.ndarray
    variances: np.ndarray | None = None
    name: str = ""
    unit: str = "MeV"
    _: KW_ONLY
    allow_negative: InitVar[bool] = False

    def __post_init__(self, allow_negative: bool) -> None:
        edges = self._set("edges", self.edges)
        counts = self._set("counts", self.counts)
        if edges.size < 2:
            self._fail(f"expected at least two edges, got {edges.size}")
        rises = edges[1:] > edges[:-1]
        if not np.all(rises):
            i = int(np.argmin(rises))
            self._fail(f"expected increasing edges, got {edges[i]} then {edges[i + 1]} around bin {i}")
        self._check_contents("counts", counts, edges.size - 1, allow_negative)
        if self.variances is not None:
            self._check_contents("variances", self._set("variances", self.variances), edges.size - 1, False)

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, shape (bins,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def widths(self) -> np.ndarray:
        """Width of each bin, shape (bins,)."""
        return np.diff(self.edges)

    def to_uhi(self) -> dict[str, Any]:
        """The histogram as a UHI mapping: a variable axis without flow bins, double or weighted storage."""
        axis = {
            "type": "variable",
            "edges": self.edges.tolist(),
            "underflow": False,
            "overflow": False,
            "circular": False,
            "metadata": {"label": f"[{self.unit}]", "unit": self.unit},
        }
        storage: dict[str, Any] = {"type": "double", "values": self.counts.tolist()}
        if self.variances is not None:
            storage = {
                "type": "weighted",
                "values": self.counts.tolist(),
                "variances": self.variances.tolist(),
            }
        return {
            "uhi_schema": 1,
            "writer_info": {"nuebar": {"version": __version__}},
            "axes": [axis],
            "storage": storage,
            "metadata": {"name": self.name},
        }

    @classmethod
    def from_uhi(cls, data: Mapping[str, Any], *, allow_negative: bool = False, where: str = "histogram") -> Self:
        """Build a histogram from a UHI mapping of any library.

        Args:
            data: One histogram of UHI schema 1: a regular or variable axis, int, double or weighted storage,
                dense or sparse. Under- and overflow bins are left out, as they have no place between the
                edges.
            allow_negative: Whether contents below zero are meant.
            where: Start of error messages, such as the file.

        Returns:
            The histogram; its unit is the axis' ``unit`` metadata, MeV where there is none.

        Raises:
            NuebarError: Another schema version, more than one axis, another axis or storage, or wrong
                numbers.
        """
        try:
            return cls._parse(data, allow_negative)
        except NuebarError as error:
            advice = "" if ";" in str(error) else "; correct it or write it again"
            raise NuebarError(f"{where}: {error}{advice}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the histogram as a UHI JSON file, in one step.

        Raises:
            NuebarError: The place cannot be written.
        """
        write_json(path, self.to_uhi(), indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, name: str | None = None, allow_negative: bool = False) -> Self:
        """Read a histogram from a UHI JSON file.

        Args:
            path: A file of one histogram, or of several by name.
            name: Which of several; not needed if there is only one.
            allow_negative: Whether contents below zero are meant.

        Returns:
            The histogram.

        Raises:
            NuebarError: The file is not UHI JSON of one axis, or the name is not in it.
        """
        data = read_json(path)
        if "uhi_schema" not in data:
            if name is None and len(data) == 1:
                name = next(iter(data))
            if name not in data:
                names = ", ".join(list(data)[:10])
                raise NuebarError(f"{path}: expected a UHI histogram named {name!r}, got {names}; give one of these")
            data = data[name]
        return cls.from_uhi(data, allow_negative=allow_negative, where=str(path))

    @classmethod
    def _parse(cls, data: Mapping[str, Any], allow_negative: bool) -> Self:
        _kind(data, Mapping, "histogram")
        if data.get("uhi_schema") != 1:
            raise NuebarError(f"key uhi_schema: expected 1, got {data.get('uhi_schema')!r}; write UHI schema 1")
        axes = _kind(data.get("axes"), list | tuple, "axes")
        if len(axes) != 1:
            raise NuebarError(f"key axes: expected one axis, got {len(axes)}; project the histogram first")
        axis, storage = _kind(axes[0], Mapping, "axes[0]"), _kind(data.get("storage"), Mapping, "storage")
        contents = _contents(axis, storage)
        metadata, axis_metadata = data.get("metadata") or {}, axis.get("metadata") or {}
        return cls(
            _edges(axis, contents["values"].size),
            contents["values"],
            contents.get("variances"),
            name=str(_kind(metadata, Mapping, "metadata").get("name", "")),
            unit=str(_kind(axis_metadata, Mapping, "axes[0].metadata").get("unit", "MeV")),
            allow_negative=allow_negative,
        )

    def _set(self, field: str, value: Any) -> np.ndarray:
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise NuebarError(f"{field}: expected a list of numbers, got {value!r:.60}") from error
        array.setflags(write=False)
        object.__setattr__(self, field, array)
        if array.ndim != 1:
            self._fail(f"expected {field} of one dimension, got shape {array.shape}")
        if not np.all(np.isfinite(array)):
            bad = int(np.argmin(np.isfinite(array)))
            self._fail(f"expected finite {field}, got {array[bad]} at index {bad}")
        return array

    def _check_contents(self, field: str, array: np.ndarray, bins: int, allow_negative: bool) -> None:
        if array.size != bins:
            self._fail(f"expected {bins} {field} for {bins + 1} edges, got {array.size}")
        if not allow_negative and np.any(array < 0):
            bad = int(np.argmax(array < 0))
            self._fail(f"expected {field} of at least 0, got {array[bad]} in bin {bad}")

    def _fail(self, message: str) -> None:
        raise NuebarError(f"histogram {self.name!r}: {message}" if self.name else f"histogram: {message}")


def _kind(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, kind):
        wanted = "an object" if kind is Mapping else "a list"
        raise NuebarError(f"key {key}: expected {wanted}, got {value!r:.60}; check the file against UHI schema 1")
    return value


def _flag(axis: Mapping[str, Any], key: str) -> bool:
    value = axis.get(key, False)
    if not isinstance(value, bool):
        raise NuebarError(f"key axes[0].{key}: expected true or false, got {value!r:.60}")
    return value


def _numbers(value: Any, key: str, dimensions: int = 1) -> np.ndarray:
    """A list of finite numbers, and nothing that NumPy would only read as such (text, ragged lists)."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty((), dtype=object)
    # An empty JSON list has no type of its own.
    if array.ndim != dimensions or (array.dtype.kind not in "iuf" and array.size):
        raise NuebarError(f"key {key}: expected {dimensions}-dimensional numbers, got {value!r:.60}")
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise NuebarError(f"key {key}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    return array


def _contents(axis: Mapping[str, Any], storage: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values and variances between the edges: made dense, flow bins cut off."""
    kind = storage.get("type")
    if kind not in _STORAGES:
        raise NuebarError(f"key storage.type: expected one of {', '.join(_STORAGES)}, got {kind!r:.60}")
    bins = _bins(axis)
    low = int(_flag(axis, "underflow"))
    total = bins + low + int(_flag(axis, "overflow"))
    result = {}
    for key in ("values", "variances") if kind == "weighted" else ("values",):
        array = _numbers(storage.get(key), f"storage.{key}")
        if "index" in storage:
            array = _dense(array, _numbers(storage["index"], "storage.index", 2), total, key)
        if array.size != total:
            raise NuebarError(f"key storage.{key}: expected {total} numbers, flow bins included, got {array.size}")
        result[key] = array[low : low + bins].astype(np.float64)
    return result


def _dense(array: np.ndarray, index: np.ndarray, total: int, key: str) -> np.ndarray:
    if index.shape != (1, array.size):
        raise NuebarError(f"key storage.index: expected shape (1, {array.size}) as {key}, got {index.shape}")
    if total > 10_000_000:
        raise NuebarError(f"key axes[0]: expected at most 10 million bins, got {total}")
    position = index[0].astype(np.int64)
    if np.any(position != index[0]) or np.any((position < 0) | (position >= total)):
        raise NuebarError(
            f"key storage.index: expected whole numbers from 0 to {total - 1}, got {index[0].tolist()!r:.60}"
        )
    if np.unique(position).size != position.size:
        raise NuebarError("key storage.index: expected each bin once, got one twice")
    dense = np.zeros(total)
    dense[position] = array
    return dense


def _bins(axis: Mapping[str, Any]) -> int:
    kind = axis.get("type")
    if kind not in ("regular", "variable"):
        raise NuebarError(f"key axes[0].type: expected regular or variable, got {kind!r:.60}")
    if _flag(axis, "circular"):
        raise NuebarError("key axes[0].circular: expected false, got true; an energy axis has two ends")
    if kind == "variable":
        edges = _numbers(axis.get("edges"), "axes[0].edges")
        if edges.size < 2:
            raise NuebarError(f"key axes[0].edges: expected at least two edges, got {edges.size}")
        return edges.size - 1
    bins = axis.get("bins")
    if type(bins) is not int or bins < 1:
        raise NuebarError(f"key axes[0].bins: expected a whole number from 1, got {bins!r:.60}")
    return bins


def _edges(axis: Mapping[str, Any], bins: int) -> np.ndarray:
    if axis["type"] == "variable":
        return _numbers(axis["edges"], "axes[0].edges")
    lower, upper = (float(_numbers(axis.get(key), f"axes[0].{key}", 0)) for key in ("lower", "upper"))
    return np.linspace(lower, upper, bins + 1)

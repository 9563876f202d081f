"""Calibration data to be tuned to: counts in bins and charges of single events, checked against a density.

Both likelihoods of a density are dot products of its tables with fixed weights of the data (:func:`weights`): counts
for bins; for single events the weights of the knots between which ln p is interpolated (:func:`knot_weights`), so that
the cost of a likelihood does not depend on the number of events.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import jax
import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.calibration import CalibrationTable, SourceSpectrum, StoredCharges, read_source, rebinned
from nuebar.io.column_map import ColumnMap
from nuebar.tune.density import Density, source_index

__all__ = ["CalibrationData", "knot_weights", "load_calibration_data", "require_match", "weights"]

log = logging.getLogger(__name__)
Path = str | os.PathLike[str]

_BLOCK = 2**15  # events at a time: what they need stays in the cache
_DEGREES = (1, 3, 5)
_WIDER = 1.2  # a median may lie this factor outside of what the box of a density can give
_EVEN = 1e-9  # of a step: knots are evenly spaced


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """What was measured with every source.

    Attributes:
        sources: Names.
        edges: Bins of the observable, shape ``(bins + 1,)``.
        pe_to_observable: Observable per photo-electron.
        counts: Events inside the range, shape ``(sources, bins)``; float64, as expected counts may stand for events.
        outside: Events below and above the range, shape ``(sources, 2)``.
        charges: Photo-electrons of the single events inside the range, for each source; None if any source came as a
            histogram.
        background: Expected background counts, shape ``(sources, bins)``, or None.
        about: Where each source came from.
    """

    sources: tuple[str, ...]
    edges: np.ndarray
    pe_to_observable: float
    counts: np.ndarray
    outside: np.ndarray
    charges: tuple[np.ndarray, ...] | None = None
    background: np.ndarray | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.sources)
        if not n or len(set(self.sources)) < n:
            raise NuebarError(f"calibration data: expected sources of different names, got {self.sources!r}; name them")
        edges = self._set("edges", self.edges)
        if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
            raise NuebarError("calibration data: expected ascending edges of at least one bin; correct them")
        if not 0 < self.pe_to_observable < np.inf:
            raise NuebarError(f"pe_to_observable: expected a number above 0, got {self.pe_to_observable!r}; correct it")
        for name, columns in (("counts", edges.size - 1), ("outside", 2), ("background", edges.size - 1)):
            if getattr(self, name) is not None:
                _check_contents(self._set(name, getattr(self, name)), (n, columns), name, self.sources)
        object.__setattr__(self, "about", MappingProxyType(dict(self.about)))
        if self.charges is not None and [q.size for q in self.charges] != self.events.astype(int).tolist():
            raise NuebarError("calibration data: expected as many charges as counts; make them with from_charges")

    @property
    def events(self) -> np.ndarray:
        """Events of each source inside the range, shape ``(sources,)``."""
        return self.counts.sum(axis=1)

    @classmethod
    def from_charges(
        cls,
        n_pe: Mapping[str, np.ndarray],
        edges: np.ndarray,
        pe_to_observable: float,
        *,
        about: Mapping[str, str] | None = None,
    ) -> Self:
        """Data from single events.

        Args:
            n_pe: Source → charges in photo-electrons.
            edges: Bins of the observable; an event on the highest edge is above.
            pe_to_observable: Observable per photo-electron.
            about: Where each source came from.

        Raises:
            NuebarError: A charge is not finite.
        """
        edges = np.asarray(edges, float)
        parts = [_binned(source, np.asarray(q).ravel(), edges, pe_to_observable) for source, q in n_pe.items()]
        return cls(
            tuple(n_pe),
            edges,
            pe_to_observable,
            np.array([counts for counts, _, _ in parts]),
            np.array([outside for _, outside, _ in parts]),
            tuple(inside for _, _, inside in parts),
            about=about or {},
        )

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, ArrayLike],
        edges: np.ndarray,
        pe_to_observable: float,
        *,
        outside: Mapping[str, tuple[float, float]] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> Self:
        """Data from histograms; expected counts are data too.

        Args:
            counts: Source → counts in the bins.
            edges: Bins of the observable.
            pe_to_observable: Observable per photo-electron.
            outside: Source → events below and above.
            about: Where each source came from.

        Raises:
            NuebarError: A histogram has another number of bins.
        """
        beside = np.array([(outside or {}).get(source, (0.0, 0.0)) for source in counts])
        bins = np.asarray(edges).size - 1
        rows = [np.asarray(n, float) for n in counts.values()]
        for source, row in zip(counts, rows, strict=True):
            if row.shape != (bins,):
                raise NuebarError(f"source {source!r}: expected {bins} counts, got shape {row.shape}; fill them anew")
        return cls(tuple(counts), edges, pe_to_observable, np.array(rows), beside, about=about or {})

    @classmethod
    def from_table(cls, table: CalibrationTable, data_set: int, *, charges: StoredCharges | None = None) -> Self:
        """A simulated data set.

        Args:
            table: Histograms of a set.
            data_set: Its number.
            charges: Charges of the same set, for unbinned likelihoods.

        Raises:
            NuebarError: There is no such data set.
        """
        row = table.row(data_set)
        about = {source: f"{table.name}, data set {data_set}" for source in table.sources}
        if charges is not None:
            n_pe = {source: charges.charges_of(data_set, source) for source in table.sources}
            return cls.from_charges(n_pe, table.edges, table.pe_to_observable, about=about)
        counts = table.counts[row].astype(float)
        return cls(table.sources, table.edges, table.pe_to_observable, counts[:, 1:-1], counts[:, [0, -1]], about=about)

    def subset(self, sources: Sequence[str]) -> Self:
        """Some of the sources, in the order wanted.

        Raises:
            NuebarError: One is not in the data.
        """
        for source in sources:
            if source not in self.sources:
                raise NuebarError(f"source {source!r}: the data hold {', '.join(self.sources)}; choose among these")
        rows = [self.sources.index(source) for source in sources]
        return replace(
            self,
            sources=tuple(sources),
            counts=self.counts[rows],
            outside=self.outside[rows],
            charges=None if self.charges is None else tuple(self.charges[row] for row in rows),
            background=None if self.background is None else self.background[rows],
            about={source: self.about[source] for source in sources if source in self.about},
        )

    def with_background(self, background: Mapping[str, ArrayLike]) -> Self:
        """The same data, of which some events are background.

        Args:
            background: Source → expected counts in the bins; none where a source is left out.

        Raises:
            NuebarError: Counts of the wrong number, negative, of a source that is not there, or more than the data.
        """
        rows = np.zeros(self.counts.shape)
        for source, counts in background.items():
            if source not in self.sources:
                raise NuebarError(f"background of {source!r}: the data hold {', '.join(self.sources)}; leave it out")
            row, values = self.sources.index(source), np.asarray(counts, float)
            if values.shape != (self.edges.size - 1,):
                expected = f"expected {self.edges.size - 1} counts, got shape {values.shape}"
                raise NuebarError(f"background of {source!r}: {expected}; fill them anew")
            if values.sum() >= self.counts[row].sum():
                raise NuebarError(
                    f"background of {source!r}: expected fewer counts than the {self.counts[row].sum():.10g} of the "
                    f"data in the range, got {values.sum():.10g}; scale it to the live time of the data"
                )
            rows[row] = values
        return replace(self, background=rows)

    def _set(self, name: str, value: ArrayLike) -> np.ndarray:
        array = np.array(value, float)
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        return array


def _check_contents(array: np.ndarray, shape: tuple[int, int], name: str, sources: tuple[str, ...]) -> None:
    if array.shape != shape:
        raise NuebarError(f"calibration data, {name}: expected shape {shape}, got {array.shape}; correct them")
    for source, row in zip(sources, array, strict=True):
        bad = ~np.isfinite(row) | (row < 0)
        if bad.any():
            i = int(np.argmax(bad))
            raise NuebarError(
                f"source {source!r}, {name}: expected finite numbers of at least 0, got {row[i]:g} at {i}; correct it"
            )


def _binned(
    source: str, n_pe: np.ndarray, edges: np.ndarray, pe_to_observable: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, what is below and above, and the charges inside."""
    n_pe = n_pe if n_pe.dtype in (np.float32, np.float64) else n_pe.astype(float)
    counts, inside = np.zeros(edges.size + 1), []
    for first in range(0, n_pe.size, 32 * _BLOCK):
        q = n_pe[first : first + 32 * _BLOCK]
        if not np.all(np.isfinite(q)):
            row = first + int(np.argmin(np.isfinite(q)))
            raise NuebarError(f"source {source!r}, event {row}: expected a finite charge, got {n_pe[row]}; drop it")
        bins = np.searchsorted(edges, q * np.float64(pe_to_observable), side="right")
        counts += np.bincount(bins, minlength=counts.size)
        inside.append(q[(bins > 0) & (bins < edges.size)])
    charges = np.array(np.concatenate(inside)) if inside else np.zeros(0)
    charges.setflags(write=False)
    return counts[1:-1], counts[[0, -1]], charges


# --- what a user gives ----------------------------------------------------------------------------------------


def load_calibration_data(
    sources: Mapping[str, Path],
    density: Density,
    *,
    background: Mapping[str, Path] | None = None,
    columns: ColumnMap | Path | None = None,
) -> CalibrationData:
    """Read and check a user's calibration data.

    Args:
        sources: Source → file of its events or its histogram, see :func:`nuebar.io.calibration.read_source`.
        density: What they are to be compared with.
        background: Source → file of the events or the histogram that are expected from other than the source, in the
            live time of the data; nothing else is subtracted.
        columns: Column map of the files of events.

    Returns:
        The data, in the order of the density's sources.

    Raises:
        NuebarError: A source that the density does not know, a file that cannot be read, bins that are not those of
            the density, another unit, counts that are negative or not whole, or next to nothing in the range.
    """
    if not sources:
        raise NuebarError(f"expected a file for at least one of {', '.join(density.sources)}, got none; give one")
    for source in (*sources, *(background or {})):
        source_index(source, density.sources, density.name)
    names = tuple(source for source in density.sources if source in sources)
    spectra = {source: read_source(sources[source], columns=columns) for source in names}
    typical = _typical(density)
    parts = []
    for source in names:
        where = f"{spectra[source].path}, source {source}"
        part = _counts(spectra[source], source, density)
        _check_counts(part[0], part[1], where)
        _check_unit(spectra[source], part[0], density, typical[density.sources.index(source)], where)
        _check_range(part[0], part[1], density, where)
        parts.append(part)
    counts, outside, charges = zip(*parts, strict=True)
    data = CalibrationData(
        names,
        density.edges,
        density.pe_to_observable,
        np.array(counts),
        np.array(outside),
        None if any(q is None for q in charges) else charges,
        about={source: spectra[source].path for source in names},
    )
    if not background:
        return data
    other = {source: read_source(path, columns=columns) for source, path in background.items()}
    return data.with_background({source: _counts(s, source, density)[0] for source, s in other.items()})


def require_match(data: CalibrationData, density: Density) -> None:
    """Make sure that data can be compared with a density.

    Raises:
        NuebarError: It does not know a source, or its observable or its bins are others.
    """
    for source in data.sources:
        source_index(source, density.sources, density.name)
    if not np.isclose(data.pe_to_observable, density.pe_to_observable, rtol=1e-9):
        raise NuebarError(
            f"calibration data: expected {density.pe_to_observable:g} of the observable per photo-electron, as the "
            f"density {density.name!r} has it, got {data.pe_to_observable:g}; make the data with its number"
        )
    if data.edges.shape != density.edges.shape or not np.allclose(data.edges, density.edges, rtol=1e-9, atol=0):
        raise NuebarError(
            f"calibration data: expected the bins of the density {density.name!r}, {_shown(density.edges)}, got "
            f"{_shown(data.edges)}; fill the data into its bins"
        )


def _counts(
    spectrum: SourceSpectrum, source: str, density: Density
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Counts, what is below and above, and the charges inside if they are known."""
    if spectrum.n_pe is not None:
        return _binned(source, spectrum.n_pe, density.edges, density.pe_to_observable)
    inside, outside = rebinned(spectrum, density.edges, density.pe_to_observable)
    return inside, np.array(outside), None


def _check_counts(counts: np.ndarray, outside: np.ndarray, where: str) -> None:
    every = np.concatenate([outside[:1], counts, outside[1:]])
    wrong = ~((every >= 0) & (every == np.round(every)))  # NaN too
    if wrong.any():
        i = int(np.argmax(wrong))
        place = "below the range" if i == 0 else "above it" if i == every.size - 1 else f"in bin {i - 1}"
        raise NuebarError(
            f"{where}: expected whole numbers of events, got {every[i]:g} {place}; give the spectrum as it was "
            "measured, neither scaled nor with background subtracted, and the background beside it (--background)"
        )
    if not every.sum():
        raise NuebarError(f"{where}: expected events, got none; check the file")


def _check_unit(
    spectrum: SourceSpectrum, counts: np.ndarray, density: Density, typical: tuple[float, float], where: str
) -> None:
    low, high = (q / density.pe_to_observable for q in (typical[0] / _WIDER, typical[1] * _WIDER))
    if counts.any():
        middle = _quantile(counts, density.edges, 0.5) / density.pe_to_observable
    elif spectrum.n_pe is not None:
        middle = float(np.median(spectrum.n_pe))
    else:
        raise NuebarError(f"{where}: expected events from {_shown(density.edges)}, got none there; check the file")
    if low <= middle <= high:
        return
    kilo = low / 2000 <= middle <= high / 500  # 1000 photo-electrons and 1 MeV of visible energy are nearly the same
    advice = "these look like thousands of them or like an energy in MeV" if kilo else "check unit and source"
    raise NuebarError(
        f"{where}: expected a median of {low:.5g} to {high:.5g} photo-electrons, which is what the density "
        f"{density.name!r} can give, got {middle:.5g}; {advice}, give photo-electrons of single events"
    )


def _check_range(counts: np.ndarray, outside: np.ndarray, density: Density, where: str) -> None:
    if np.count_nonzero(counts) < 2:
        raise NuebarError(f"{where}: expected a spectrum, got all events in one bin; check the file")
    if outside.sum() > counts.sum():
        log.warning(
            "%s: only %.10g of %.10g events lie from %s, and the others are not used; check that the source is clean",
            where,
            counts.sum(),
            counts.sum() + outside.sum(),
            _shown(density.edges),
        )


def _typical(density: Density) -> np.ndarray:
    """Between which values of the observable the median of every source may lie, shape ``(sources, 2)``.

    From the quartiles at the corners of the box: a source of two lines may have its median at either.
    """
    corners = np.array(list(itertools.product(*density.limits)))
    with jax.enable_x64(True):
        p = np.exp(np.asarray(jax.vmap(density.log_probabilities)(corners)))
    quartiles = [[[_quantile(row, density.edges, q) for q in (0.25, 0.75)] for row in corner] for corner in p]
    return np.stack([np.min(quartiles, axis=0)[:, 0], np.max(quartiles, axis=0)[:, 1]], axis=1)


def _quantile(counts: np.ndarray, edges: np.ndarray, q: float) -> float:
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    return float(np.interp(q * cumulative[-1], cumulative, edges))


def _shown(edges: np.ndarray) -> str:
    return f"{edges[0]:g} to {edges[-1]:g} of the observable in {edges.size - 1} bins"


# --- weights of a likelihood ----------------------------------------------------------------------------------


def weights(data: CalibrationData, density: Density, unbinned: bool = False) -> np.ndarray:
    """Fixed weights of the data: ln L is their dot product with a table of the density.

    Args:
        data: The data.
        density: Whose :meth:`log_probabilities` (binned) or :meth:`log_density` (unbinned) are to be weighted.
        unbinned: Whether the charges of single events are used.

    Returns:
        Counts, shape ``(sources, bins)``, or weights of the knots, ``(sources, knots)``; float64, one row for each
        source of the data.

    Raises:
        NuebarError: The data do not match the density, or have no charges, or the density no knots.
    """
    require_match(data, density)
    if not unbinned:
        return np.array(data.counts)
    if not density.knots.size:
        raise NuebarError(f"the density {density.name!r} knows bins only; fit binned, or take a density of events")
    if data.charges is None:
        raise NuebarError("calibration data: expected single events, got histograms; fit binned, or give the events")
    rows = [knot_weights(q, density.knots / data.pe_to_observable) for q in data.charges]
    return np.array(rows)


def knot_weights(x: np.ndarray, knots: np.ndarray, degree: int = 5) -> np.ndarray:
    """Weights w of knots with Σ_i f(x_i) ≈ Σ_k w_k f(knot_k), by local Lagrange interpolation.

    Every value takes part with the polynomial through the ``degree + 1`` knots around it, at the ends with that
    through the last ones there. So the sum is exact for polynomials of this degree, and Σ w is the number of values.
    Between evenly spaced knots a step h apart, the polynomial of degree 5 errs by (0.5·1.5·2.5)²/6! = 1/205 of h⁶ times
    the sixth derivative at most, from the remainder of Lagrange's formula.

    Args:
        x: Values, any shape; none outside of the knots.
        knots: Ascending.
        degree: 1, 3 or 5.

    Returns:
        float64, shape ``(knots,)``.

    Raises:
        NuebarError: Another degree, too few knots, knots that do not ascend, or a value outside or not finite.
    """
    x, k = np.asarray(x).ravel(), np.asarray(knots, float)
    if degree not in _DEGREES:
        raise NuebarError(f"degree: expected one of {', '.join(map(str, _DEGREES))}, got {degree!r}; choose one")
    if k.ndim != 1 or k.size <= degree or not np.all(np.diff(k) > 0):
        raise NuebarError(f"knots: expected at least {degree + 1} ascending numbers, got shape {k.shape}; correct them")
    step, slack = (k[-1] - k[0]) / (k.size - 1), 1e-9 * (k[-1] - k[0])
    even = bool(np.max(np.abs(np.diff(k) - step)) < _EVEN * step)
    stencils = k.size - degree
    middle = 0.5 * (k[:stencils] + k[degree:])  # of every stencil; the origin of its polynomials
    moments = np.zeros((degree + 1, stencils))
    for first in range(0, x.size, _BLOCK):
        part = x[first : first + _BLOCK].astype(float)
        if not (part.min() >= k[0] - slack and part.max() <= k[-1] + slack):  # NaN is not inside either
            bad = part[np.argmin((part >= k[0]) & (part <= k[-1]))]
            raise NuebarError(f"expected values from {k[0]:g} to {k[-1]:g}, got {bad:g}; drop those outside")
        if even:
            at = ((part - (k[0] + degree // 2 * step)) / step).astype(np.intp)
        else:
            part.sort()
            at = np.searchsorted(k, part, side="right") - (1 + degree // 2)
        np.clip(at, 0, stencils - 1, out=at)
        t = (part - middle[at]) / step
        power = np.ones(part.size)
        for n in range(degree + 1):
            moments[n] += np.bincount(at, power, stencils)
            power *= t
    result = np.zeros(k.size)
    places = [(k[m : m + stencils] - middle) / step for m in range(degree + 1)]
    for m in range(degree + 1):
        others = places[:m] + places[m + 1 :]
        scale = np.prod([places[m] - other for other in others], axis=0)
        result[m : m + stencils] += (_coefficients(others) * moments).sum(axis=0) / scale
    return result


def _coefficients(roots: list[np.ndarray]) -> np.ndarray:
    """Coefficients, lowest power first, of polynomials with these roots; shape ``(len(roots) + 1, polynomials)``."""
    c = np.zeros((len(roots) + 1, roots[0].size))
    c[0] = 1.0
    for root in roots:
        c[1:], c[0] = c[:-1] - root * c[1:], -root * c[0]
    return c

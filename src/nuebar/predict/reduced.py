"""A model small enough to travel in a page: the surrogate on the ranges of its sliders, without the rest of Python.

What the explorer of a report needs of a :class:`nuebar.predict.spectrum.SpectrumModel` is its prediction while a few
parameters move and all others stay at the best fit. Three things make it small. The harmonic coefficients are expanded
again over the narrower windows of the mass splittings and cut where nothing is left; tables go to single precision;
pulls, which stay where they are, become one number for each fine bin. The physics stays that of the surrogate: exact in
the oscillation parameters and the ordering, with matter, and its light map in the response. No polynomial in the
response is fitted, so there is no box but the surrogate's.

The reduced model is evaluated by the code of the full one in double precision; ``report/explorer.js`` does the same
steps in the browser, from :meth:`ReducedBasis.to_dict`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.fft import dct

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import POTENTIAL_eV2_per_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.predict.box import PHYSICAL, PHYSICS
from nuebar.predict.harmonic import HarmonicPredictor, Series, Sums, Windows
from nuebar.predict.response import RESPONSE
from nuebar.predict.spectrum import SpectrumModel
from nuebar.predict.surrogate import NODE_STEP, ROW_SETS, SurrogatePredictor, stack
from nuebar.stats.likelihood import require_x64

__all__ = ["MOVED", "Ranges", "ReducedBasis", "deviation", "in_double", "slider_ranges"]

Ranges = Mapping[str, tuple[float, float]]

MOVED = (*OSCILLATION, "kB_g_cm2_GeV", "fC", "light_yield_per_MeV", "energy_scale")
"""What a reader moves; the density and extra smearing can be moved too."""

NODES_TOLERANCE, EXCESS_TOLERANCE = 1e-7, 1e-5
"""Relative size of the coefficients that are dropped; the excesses are corrections of a thousandth."""

SMALL_BIN = 0.01  # of the largest bin: below it deviations count relative to the largest
ORDERINGS = 4.0  # times sin²θ12 Δm²21: twice the change of |Δm²31| between the orderings at equal Δm²ee


def slider_ranges(
    model: SpectrumModel, values: Mapping[str, float], errors: Mapping[str, float], *, n_sigma: float = 5.0
) -> dict[str, tuple[float, float]]:
    """Some standard deviations around the best fit, inside what the predictor and physics allow.

    Args:
        model: Whose parameters move.
        values: The best fit.
        errors: Standard deviations; one that is missing, zero or not finite gives the whole range that is allowed.
        n_sigma: How many of them.

    Returns:
        Parameter → (low, high); for ``dm2_31_eV2`` of its size, for both orderings.
    """
    surrogate = _surrogate(model)
    out = {}
    for name in (n for n in MOVED if n in model.names):
        value, error = float(values[name]), float(errors.get(name, 0.0) or 0.0)
        low, high = surrogate.box.get(name, PHYSICAL.get(name, (-np.inf, np.inf)))
        if name == "dm2_31_eV2":
            windows, value = surrogate.windows, abs(value)
            low, high = windows.normal()[0], -windows.inverted()[0]  # good for both orderings
        if np.isfinite(error) and error > 0 and name != "energy_scale":
            reach = n_sigma * error
            if name == "dm2_31_eV2":
                reach = max(reach, ORDERINGS * values["sin2_th12"] * values["dm2_21_eV2"])
            low, high = max(low, value - reach), min(high, value + reach)
        elif name in PHYSICAL:
            low, high = 0.0, min(1.0, 2.0 * value)
        out[name] = (min(low, value), max(high, value))
    return out


def deviation(counts: ArrayLike, reference: ArrayLike) -> float:
    """Largest deviation relative to the content of a bin; to the largest bin where there is less than 1 % of it."""
    reference = np.asarray(reference)
    most = reference.max()
    return float(
        np.max(np.abs(np.asarray(counts) - reference) / np.where(reference > SMALL_BIN * most, reference, most))
    )


def in_double(model: SpectrumModel) -> SpectrumModel:
    """The same model with the tables of its surrogate in double precision: free of the rounding of single."""
    s = _surrogate(model)
    tables = {n: getattr(s, n).astype(float) for n in ("light", "inverse", "stacked")}
    return replace(model, predictor=replace(s, **tables))


@dataclass(frozen=True, eq=False)
class ReducedBasis:
    """A model on the ranges of its sliders.

    Attributes:
        model: The reduced one, in double precision.
        values: The best fit: every parameter of the model.
        ranges: Of those that move.
        error: Largest :func:`deviation` from the full model in double precision, at random points of the ranges.
        noise: The same of the full model as fits use it, in single precision.
        n_checked: At how many points.
    """

    model: SpectrumModel
    values: Mapping[str, float]
    ranges: Ranges
    error: float = float("nan")
    noise: float = float("nan")
    n_checked: int = 0

    @classmethod
    def build(
        cls, model: SpectrumModel, values: Mapping[str, float], ranges: Ranges, *, n_check: int = 32, seed: int = 0
    ) -> ReducedBasis:
        """Reduce a model and measure what that costs.

        Args:
            model: With the surrogate as its predictor.
            values: Every parameter of the model; what has no range stays there.
            ranges: Parameter → (low, high) around its value; of the size for ``dm2_31_eV2``, both orderings are kept.
                :func:`slider_ranges` makes some.
            n_check: Random points to compare with the full model at; 0 for none.
            seed: Of these points.

        Raises:
            NuebarError: The predictor is another one, or a range does not fit the model.
        """
        require_x64()
        surrogate = _surrogate(model)
        model.vector(values)
        _check_ranges(surrogate, values, ranges)
        windows = _windows(surrogate, values, ranges)
        nodes = _reduced(surrogate.nodes, windows, NODES_TOLERANCE)
        excess = _reduced(surrogate.excess, windows, EXCESS_TOLERANCE)
        single: dict[str, Any] = {n: _rounded(getattr(surrogate, n)) for n in ("light", "inverse")}
        stacked = stack(nodes, excess).astype(float)
        small = replace(surrogate, nodes=nodes, excess=excess, stacked=stacked, **single)
        basis = cls(
            replace(model, predictor=small), dict(values), {n: (float(a), float(b)) for n, (a, b) in ranges.items()}
        )
        if not n_check:
            return basis
        full, points = in_double(model), basis.random_points(n_check, seed)
        exact = [np.asarray(full(full.vector({**values, **p}))[0]) for p in points]
        pairs = list(zip(points, exact, strict=True))
        error = max(deviation(basis.predict(p), e) for p, e in pairs)
        noise = max(deviation(model(model.vector({**values, **p}))[0], e) for p, e in pairs)
        return replace(basis, error=error, noise=noise, n_checked=n_check)

    @property
    def surrogate(self) -> SurrogatePredictor:
        """The reduced predictor."""
        return _surrogate(self.model)

    @property
    def edges_MeV(self) -> np.ndarray:
        """Bins of the analysis, shape ``(bins + 1,)``."""
        return np.array(self.model.edges_MeV)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What :meth:`predict` takes."""
        return self.surrogate.parameter_names

    @property
    def record(self) -> dict[str, Any]:
        """What was measured, for a report."""
        return {"error": self.error, "noise": self.noise, "points": self.n_checked, "bytes": _size(self.to_dict())}

    def predict(self, parameters: Mapping[str, float]) -> np.ndarray:
        """Expected counts per bin, backgrounds included.

        Args:
            parameters: Those of :attr:`parameter_names` that differ from the best fit.

        Raises:
            NuebarError: One is unknown or outside of what the model allows.
        """
        return self.expected(parameters)[0]

    def expected(self, parameters: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Expected counts per bin, and their variance from bin-to-bin shape uncertainties."""
        counts, variance = self.model(self.model.vector({**self.values, **parameters}))
        return np.asarray(counts), np.asarray(variance)

    def backgrounds(self) -> dict[str, np.ndarray]:
        """Counts per bin of every background at the best fit."""
        found = self.model.components(self.values)
        return {n: c for n, c in found.items() if n != "signal"}

    def random_points(self, n: int, seed: int = 0) -> list[dict[str, float]]:
        """Parameters drawn evenly from the ranges, every other one in the inverted ordering."""
        rng = np.random.default_rng(seed)
        points = [{name: float(rng.uniform(*ends)) for name, ends in self.ranges.items()} for _ in range(n)]
        if "dm2_31_eV2" in self.ranges:
            for k, point in enumerate(points):
                low, high = self.sizes[k % 2]
                point["dm2_31_eV2"] = (-1.0) ** k * min(max(point["dm2_31_eV2"], low), high)
        return points

    @property
    def sizes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Limits of |Δm²31| in the normal and in the inverted ordering: Δm²32 too must lie in the window."""
        windows = self.surrogate.windows
        low, high = windows.inverted()
        return windows.normal(), (-high, -low)

    def to_dict(self) -> dict[str, Any]:
        """Everything ``explorer.js`` needs, as JSON: arrays are base64 of little-endian numbers with their shape."""
        s = self.surrogate
        kB, ratio = s.light_windows
        weights, variance, shape = _projection(self.model, self.values)
        rows, columns = np.nonzero(weights)
        backgrounds = self.backgrounds()
        tiled = np.tile(np.asarray(s.nodes.to_bins), (1, ROW_SETS - 1))
        if not np.allclose(tiled, np.asarray(s.excess.to_bins), rtol=1e-9, atol=1e-9):
            raise NuebarError(
                "the surrogate expands its excesses around other energies than its counts; build it again"
            )
        return {
            "format": 1,
            "parameters": {n: float(self.values.get(n, 0.0)) for n in (*PHYSICS, *RESPONSE)},
            "matter": {
                "potential_eV2_per_MeV": POTENTIAL_eV2_per_MeV * s.nodes.electrons_per_nucleon,
                "energies_MeV": pack(s.nodes.energy_nodes_MeV, np.float64),
                "to_nodes": pack(s.nodes.to_bins, np.float64),
                "to_slopes": pack(s.nodes.to_slopes, np.float64),
            },
            "counts": _packed_sums(s.nodes),
            "excess": _packed_sums(s.excess),
            "light": pack(s.light),
            "inverse": pack(s.inverse),
            "anchor": pack(s.anchor, np.float64),
            "constants": pack(s.constants, np.float64),
            "n_h_MeV": N_H_GAMMA_MeV,
            "kB_window": list(kB),
            "ratio_window": list(ratio),
            "first_node": s.first_node,
            "node_step": NODE_STEP,
            "sets": ROW_SETS,
            "span": s.span,
            "block_edges_MeV": pack(s.block_edges, np.float64),
            "fine_bins": len(s.edges_MeV) - 1,
            "bins": len(self.model.edges_MeV) - 1,
            "to_bins": {
                "row": pack(rows, np.int32),
                "column": pack(columns, np.int32),
                "weight": pack(weights[rows, columns], np.float64),
            },
            "shape": {"first": pack(self.model.stencil.position, np.int32), "sigma": pack(shape, np.float64)},
            "background_variance": pack(variance, np.float64),
            "backgrounds": {n: pack(c, np.float64) for n, c in backgrounds.items()},
        }


# ---------------------------------------------------------------- checks


def _surrogate(model: SpectrumModel) -> SurrogatePredictor:
    if not isinstance(model.predictor, SurrogatePredictor):
        raise NuebarError(
            f"expected a model with the surrogate as its predictor, got {model.predictor.name!r}, which has no "
            "response to move; build the model with predictor='surrogate'"
        )
    return model.predictor


def _check_ranges(surrogate: SurrogatePredictor, values: Mapping[str, float], ranges: Ranges) -> None:
    box = {**PHYSICAL, **surrogate.box, "dm2_31_eV2": surrogate.windows.atmospheric}
    for name, ends in ranges.items():
        if name not in surrogate.parameter_names:
            raise NuebarError(
                f"range of {name!r}: expected one of {', '.join(surrogate.parameter_names)}, which the predictor takes"
            )
        value = abs(values[name]) if name == "dm2_31_eV2" else values[name]
        low, high = box[name]
        slack = 1e-9 * (high - low)
        good = len(ends) == 2 and low - slack <= ends[0] <= value <= ends[1] <= high + slack and ends[0] < ends[1]
        if not good:
            raise NuebarError(
                f"range of {name!r}: expected low < high around {value:g} inside [{low:.6g}, {high:.6g}], got "
                f"{tuple(ends)}; take one of slider_ranges()"
            )


def _windows(surrogate: SurrogatePredictor, values: Mapping[str, float], ranges: Ranges) -> Windows:
    """The narrowest windows that hold the ranges in both orderings, and some width around what stays."""
    given = surrogate.windows
    solar = ranges.get("dm2_21_eV2", given.solar)
    size = abs(values["dm2_31_eV2"])
    low, high = ranges.get("dm2_31_eV2", (size * 0.999, size * 1.001))
    fast = (max(low - solar[1], given.atmospheric[0]), min(high + solar[1], given.atmospheric[1]))
    return Windows((max(solar[0], given.solar[0]), min(solar[1], given.solar[1])), fast)


# ---------------------------------------------------------------- reduction


def _rounded(table: ArrayLike) -> Array:
    """To single precision and back."""
    return jnp.asarray(np.asarray(table, np.float32), float)


def _reduced(part: HarmonicPredictor, windows: Windows, tolerance: float) -> HarmonicPredictor:
    """A harmonic predictor on narrower windows, in numbers that single precision holds."""
    total = part.total
    both = ((total.solar, windows.solar), (total.atmospheric, windows.atmospheric))
    series = [_expanded_again(x, window, tolerance) for x, window in both]
    sums = Sums(_rounded(total.flat), _rounded(total.flat_moment), *series)
    return replace(part, windows=windows, total=sums)


def _expanded_again(series: Series, window: tuple[float, float], tolerance: float) -> Series:
    """The same functions as a series over a part of their window, cut below a fraction of the largest coefficient."""
    middle, half = 0.5 * (window[0] + window[1]), 0.5 * (window[1] - window[0]) * 1.02
    middle_0, half_0 = series.middle, series.half
    half = min(half, half_0 - abs(middle - middle_0))  # not beyond the old series
    n = series.value.shape[-1]
    at = (middle + half * np.cos(np.pi * (np.arange(n) + 0.5) / n) - middle_0) / half_0
    basis = np.polynomial.chebyshev.chebvander(at, n - 1)

    def again(table: Array) -> np.ndarray:
        return (
            _coefficients(np.asarray(table) @ basis[:, : table.shape[-1]].T) if table.shape[-1] else np.asarray(table)
        )

    value, moment = again(series.value), again(series.moment)
    large = np.any(np.abs(value) > tolerance * np.abs(value).max(), axis=0)
    keep = int(np.flatnonzero(large).max()) + 1
    return Series(middle, half, _rounded(value[:, :keep]), _rounded(moment[:, :keep]))


def _coefficients(samples: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients from samples at the roots of T_n (last axis)."""
    out = dct(samples, type=2, axis=-1) / samples.shape[-1]
    out[..., 0] *= 0.5
    return out


# ---------------------------------------------------------------- pulls and bins


class _Given(eqx.Module):
    """Stands for the predictor: fine bins with given contents."""

    parameter_names: tuple[str, ...] = eqx.field(static=True)
    counts: Array

    def channels(self, p: ArrayLike) -> Array:
        return self.counts[None]


@jax.jit
def _derivative(model: SpectrumModel, ones: Array, values: Mapping[str, Array]) -> tuple[Array, Array]:
    """Of the signal by the counts of the fine bins; and the fine bins of the signal where these are one."""
    names = model.predictor.parameter_names

    def signal(counts: Array) -> tuple[Array, Array]:
        given: Any = _Given(names, counts)
        return replace(model, predictor=given)._signal(dict(values))

    return jax.jacrev(signal, has_aux=True)(ones)


def _projection(model: SpectrumModel, values: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What pulls at their best fit make of the predictor's bins.

    Returns:
        Matrix from the predictor's bins to the signal in those of the analysis; variance of the backgrounds' shapes in
        the latter; uncertainty of the signal's shape as a factor for each of the predictor's bins.
    """
    fine = len(model.predictor.edges) - 1
    pulled = {n: jnp.asarray(values[n], float) for n in model.names}
    matrix, factors = _derivative(model, jnp.ones(fine), pulled)
    position = np.asarray(model.stencil.position)
    bins, backgrounds = position.size - 1, np.array([*model.components(values).values()][1:])
    if not model.shape_uncertainties:
        return np.asarray(matrix), np.zeros(bins), np.zeros(fine)
    shape = np.zeros(fine)
    inside = slice(position[0], position[-1])
    own = np.repeat(np.asarray(model.bin_factor), np.diff(position))
    shape[inside] = np.asarray(model.signal_shape * factors)[inside] * own
    variance = np.sum((np.asarray(model.background_shape)[:, None] * backgrounds.reshape(-1, bins)) ** 2, axis=0)
    return np.asarray(matrix), variance, shape


# ---------------------------------------------------------------- JSON


def pack(values: ArrayLike, kind: Any = np.float32) -> dict[str, Any]:
    array = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    if not np.all(np.isfinite(array)):
        raise NuebarError("the reduced model holds numbers that are not finite; build the surrogate again")
    name = {"f4": "float32", "f8": "float64", "i4": "int32"}[array.dtype.str[1:]]
    return {"type": name, "shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode("ascii")}


def _packed_sums(part: HarmonicPredictor) -> dict[str, Any]:
    total = part.total
    out: dict[str, Any] = {"flat": pack(total.flat), "flat_moment": pack(total.flat_moment)}
    for name, series in (("solar", total.solar), ("atmospheric", total.atmospheric)):
        value, moment = pack(series.value), pack(series.moment)
        out[name] = {"middle": series.middle, "half": series.half, "value": value, "moment": moment}
    return out


def _size(tree: Any) -> int:
    """Characters of all arrays."""
    if isinstance(tree, Mapping):
        return sum(_size(v) for v in tree.values())
    return len(tree) if isinstance(tree, str) else 0

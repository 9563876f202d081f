"""The layout of a predictor: sizes that its arrays share, and numbers that make sense, whatever file they are from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nuebar.predict.response import LIGHT, RESPONSE

if TYPE_CHECKING:
    from nuebar.predict.harmonic import HarmonicPredictor, Series, Sums
    from nuebar.predict.matrix import MatrixPredictor
    from nuebar.predict.surrogate import SurrogatePredictor

__all__ = ["Layout", "check_harmonic", "check_matrix", "check_surrogate"]


class Layout:
    """Sizes by name: given, or learnt from the first array that has them.

    Args:
        sizes: Those that are known.
    """

    def __init__(self, **sizes: int) -> None:
        self.sizes = dict(sizes)

    def array(self, name: str, array: Any, *axes: int | str) -> None:
        """Compare an array with its layout.

        Args:
            name: Of the array.
            array: It.
            axes: The length of each axis, or the name of a length, which is at least one.

        Raises:
            ValueError: It has other axes, or does not hold floating-point numbers.
        """
        wanted = [self.sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in axes]
        fits = len(array.shape) == len(wanted) and all(
            n > 0 if isinstance(axis, str) else n == axis for n, axis in zip(array.shape, wanted, strict=True)
        )
        if not fits or not np.issubdtype(array.dtype, np.floating):
            shape = ", ".join(str(axis) for axis in wanted)
            raise ValueError(f"{name}: expected floating-point numbers of shape ({shape}), got {_told(array)}")
        self.sizes |= {axis: n for axis, n in zip(axes, array.shape, strict=True) if isinstance(axis, str)}

    def __getitem__(self, name: str) -> int:
        return self.sizes[name]


def check_harmonic(h: HarmonicPredictor, *, bins: int | None = None) -> Layout:
    """Check that the tables of a harmonic predictor fit together.

    Args:
        h: The predictor.
        bins: How many rows its tables have; as many as bins by default.

    Returns:
        Its sizes.

    Raises:
        ValueError: They do not, with the name of what is wrong.
    """
    rising("edges_MeV", h.edges_MeV)
    layout = Layout(bins=len(h.edges_MeV) - 1 if bins is None else bins)
    within("electrons_per_nucleon", h.electrons_per_nucleon, 0.0, 1.0)
    layout.array("energy_nodes_MeV", h.energy_nodes_MeV, "energies")
    layout.array("to_bins", h.to_bins, "energies", "bins")
    layout.array("to_slopes", h.to_slopes, "energies", "bins")
    _check_sums("total", h.total, h, layout)
    cores = 0
    for k, group in enumerate(h.cores):
        _check_sums(f"cores.{k}", group, h, layout, f"cores of group {k}")
        cores += layout[f"cores of group {k}"]
    if sorted(h.core_order) != list(range(cores)) or len(h.core_names) != cores:
        raise ValueError(f"cores: expected names and places of {cores}, got {len(h.core_names)} and {h.core_order}")
    _check_mc(h.mc_relative, layout)
    return layout


def _check_sums(name: str, sums: Sums, h: HarmonicPredictor, layout: Layout, *lead: str) -> None:
    for what in ("flat", "flat_moment"):
        layout.array(f"{name}.{what}", getattr(sums, what), *lead, "bins")
    for what, window in (("solar", h.windows.solar), ("atmospheric", h.windows.atmospheric)):
        series: Series = getattr(sums, what)
        key = f"{name}.{what}"
        layout.array(f"{key}.value", series.value, *lead, "bins", f"coefficients of {key}")
        if series.moment.shape[-1:] == (0,):  # not kept
            layout.array(f"{key}.moment", series.moment, *lead, "bins", 0)
        else:
            layout.array(f"{key}.moment", series.moment, *lead, "bins", f"coefficients of {key}")
        if not all(abs(x - series.middle) < series.half < math.inf for x in window):
            raise ValueError(f"{key}: expected a series over {window} eV², got {series.middle} ± {series.half}")


def check_matrix(m: MatrixPredictor) -> None:
    """Check that the tables of a matrix predictor fit together; see :func:`check_harmonic`."""
    rising("edges_MeV", m.edges_MeV)
    within("electrons_per_nucleon", m.electrons_per_nucleon, 0.0, 1.0)
    layout = Layout(bins=len(m.edges_MeV) - 1, cores=len(m.core_names))
    layout.array("e_nu_MeV", m.e_nu_MeV, "energies")
    layout.array("baseline_km", m.baseline_km, "cores")
    layout.array("events", m.events, "cores", "energies")
    layout.array("response", m.response, "bins", "energies")
    _check_mc(m.mc_relative, layout)


def check_surrogate(s: SurrogatePredictor) -> None:
    """Check that the tables of a surrogate fit together; see :func:`check_harmonic`."""
    from nuebar.predict.surrogate import NODE_STEP, ROW_SETS, block_edges

    rising("edges_MeV", s.edges_MeV)
    nodes = check_harmonic(s.nodes)["bins"]
    check_harmonic(s.excess, bins=(ROW_SETS - 1) * nodes)
    if (s.excess.windows, s.excess.matter) != (s.nodes.windows, s.nodes.matter) or s.nodes.cores or s.excess.cores:
        raise ValueError("excess: expected the windows of the nodes, and no cores apart")
    _check_ranges(s.ranges, s.reference)
    within("per_event", s.per_event, 0.0, 1e9)
    # The nodes reach beyond the bins on either side.
    low, high = math.sqrt(max(s.edges_MeV[0], 0.0)), math.sqrt(max(s.edges_MeV[-1], 0.0))
    within("first_node", s.first_node, max(0.0, high - NODE_STEP * (nodes - 1)), low)
    if isinstance(s.span, bool) or not isinstance(s.span, int) or not 1 <= s.span <= nodes:
        raise ValueError(f"span: expected 1 to {nodes} nodes, got {_told(s.span)}")
    layout = Layout(nodes=nodes)
    layout.array("light", s.light, 6, "nodes", "orders in kB", "orders in the ratio")
    layout.array("inverse", s.inverse, 4, "nodes")
    layout.array("anchor", s.anchor, "orders in kB")
    layout.array("constants", s.constants, 5)
    layout.array("block_edges", s.block_edges, "blocks", "edges of a block")
    blocks = block_edges(s.edges, layout["edges of a block"] - 1)
    if not np.array_equal(s.block_edges, blocks):
        raise ValueError("block_edges: expected the edges of the bins")


def _check_ranges(ranges: Any, reference: Any) -> None:
    """Response parameters: a range of each, and the nominal value inside."""
    if not all(isinstance(x, tuple) and len(x) == len(RESPONSE) for x in (ranges, reference)):
        raise ValueError(f"ranges, reference: expected one for each of {', '.join(RESPONSE)}")
    for name, limits, value in zip(RESPONSE, ranges, reference, strict=True):
        if not isinstance(limits, tuple) or len(limits) != 2:
            raise ValueError(f"ranges: expected (low, high) of {name}, got {_told(limits)}")
        low, high = limits
        within(f"lower limit of {name}", low, -math.inf, math.inf)
        within(f"upper limit of {name}", high, low, math.inf)
        within(name, value, low, high)
        # The light yield is divided by.
        if name in LIGHT and not (0.0 <= low < high and (low > 0.0 or name != "light_yield_per_MeV")):
            raise ValueError(f"ranges: expected 0 < low < high of {name}, got {limits}")


def _check_mc(mc_relative: Any, layout: Layout) -> None:
    if mc_relative is not None:
        layout.array("mc_relative", mc_relative, *["bins"] * max(1, min(2, mc_relative.ndim)))


def within(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is no number from ``low`` to ``high``; infinity is none.

    Raises:
        ValueError: It is none.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low <= value <= high and abs(value) < math.inf):
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {_told(value)}")


def rising(name: str, values: Any) -> None:
    """Refuse what are no two or more finite numbers, each above the one before.

    Raises:
        ValueError: They are not.
    """
    numbers = isinstance(values, tuple) and all(isinstance(v, float | int) for v in values)
    if not numbers or len(values) < 2 or not np.all(np.isfinite(values)) or not np.all(np.diff(values) > 0):
        raise ValueError(f"{name}: expected two or more rising numbers, got {_told(values)}")


def _told(value: Any) -> str:
    """A value in a few words, however long it is."""
    if hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}…"

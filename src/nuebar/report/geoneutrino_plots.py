"""Figure of the geoneutrino rates: expected precision against exposure. Plain numbers go in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import DASHES, LINES, _array, _expected, _figure, _heading, _styled

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["precision"]


@_styled
def precision(years: ArrayLike, relative: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Relative errors against exposure.

    Args:
        years: Exposures in calendar years, increasing.
        relative: Name of a quantity → relative errors at these exposures.
        title: Text above the axes.

    Raises:
        NuebarError: Numbers of points differ, or there is no curve or too many.
    """
    x = _array(years, "years")
    if not 1 <= len(relative) <= len(LINES):
        raise NuebarError(f"geoneutrinos: expected one to {len(LINES)} curves, got {len(relative)}; draw fewer")
    curves = {name: 100.0 * _array(y, f"curve {name}") for name, y in relative.items()}
    if any(y.shape != x.shape for y in curves.values()):
        raise NuebarError(f"geoneutrinos: expected {x.size} numbers in every curve; give one for each exposure")
    figure = _figure(4.4)
    ax = figure.add_subplot()
    for k, (name, y) in enumerate(curves.items()):
        ax.plot(x, y, color=LINES[k], linestyle=DASHES[k % len(DASHES)], marker="o", markersize=3.5, label=name)
    top = float(np.max([y.max() for y in curves.values()]))
    ax.set(yscale="log", xlim=(x[0], x[-1]), ylim=(0.8 * min(y.min() for y in curves.values()), 1.6 * top))
    ticks = [t for t in (2, 5, 10, 20, 50, 100, 200) if ax.get_ylim()[0] < t < ax.get_ylim()[1]]
    ax.set_yticks(ticks, [f"{t}" for t in ticks])
    ax.minorticks_off()
    ax.set(xlabel="exposure [calendar years]", ylabel="expected error [%]")
    ax.legend(loc="upper right", ncols=2)
    _heading(ax, title, "")
    _expected(ax)
    return figure

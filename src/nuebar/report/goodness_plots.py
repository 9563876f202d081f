"""Figures of goodness of fit: χ² of toys with that of the data, and the residuals of the bins.

As in :mod:`nuebar.report.plots`, functions take plain numbers and give a matplotlib ``Figure``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.report.plots import BLACK, BLUE, ORANGE, RED, _array, _bands, _figure, _heading, _styled

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["goodness_figure"]


@_styled
def goodness_figure(
    toys: ArrayLike,
    chi2: float,
    *,
    n_dof: int,
    p_value: float,
    p_chi2: float,
    edges_MeV: ArrayLike,
    residuals: ArrayLike,
    bins: int = 40,
    title: str = "",
) -> Figure:
    """χ² of toys, the χ² distribution and the data; residuals of the data below.

    Args:
        toys: χ² of every toy.
        chi2: Of the data.
        n_dof: Degrees of freedom of the curve; no curve if there are none.
        p_value: From the toys.
        p_chi2: From the curve.
        edges_MeV: Of the bins.
        residuals: Of the data, in standard deviations, shape ``(bins,)``.
        bins: Of the histogram.
        title: Text above the axes.

    Raises:
        NuebarError: Shapes do not go together.
    """
    x, edges, r = _array(toys, "toys"), _array(edges_MeV, "edges_MeV"), _array(residuals, "residuals")
    if x.size < 2 or r.size != edges.size - 1:
        raise NuebarError(
            f"goodness: expected two toys or more and {edges.size - 1} residuals, got {x.size} and {r.size}"
        )
    figure = _figure(5.6)
    upper, lower = figure.subplots(2, 1, height_ratios=[2.0, 1.0])
    _, ends, _ = upper.hist(x, bins=bins, color=BLUE, alpha=0.35, label=f"{x.size} toys: p = {p_value:.3f}")
    if n_dof > 0:
        at = np.linspace(min(ends[0], chi2), max(ends[-1], chi2), 300)
        curve = x.size * (ends[1] - ends[0]) * chi2_distribution.pdf(at, n_dof)
        upper.plot(at, curve, color=ORANGE, linestyle="--", label=f"χ², {n_dof} degrees of freedom: p = {p_chi2:.3f}")
    upper.axvline(chi2, color=RED, label=f"data: {chi2:.1f}")
    upper.set(xlabel="χ² at the best fit", ylabel="toys")
    upper.legend(loc="upper right")
    _heading(upper, title, "")
    _bands(lower, horizontal=True)
    lower.plot(0.5 * (edges[1:] + edges[:-1]), r, "o", color=BLACK, markersize=3.0)
    limit = max(3.4, 1.15 * float(np.max(np.abs(r))))
    lower.set(xlim=(edges[0], edges[-1]), ylim=(-limit, limit))
    lower.set(xlabel="Prompt energy [MeV]", ylabel="residual [σ]")
    return figure

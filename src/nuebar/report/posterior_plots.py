"""Figures of posteriors of spectrum fits: every pair of parameters with the fit's ellipses on top.

As in :mod:`nuebar.report.plots`, functions take plain numbers and give a matplotlib ``Figure``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import BLUE, ORANGE, WIDTH_IN, _array, _figure, _heading, _styled, axis_label
from nuebar.report.tables import scale_of
from nuebar.report.tuning_release_plots import SHARES, Layer, _one, _span, _two

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["posterior_corner"]


@_styled
def posterior_corner(
    names: Sequence[str],
    draws: ArrayLike,
    *,
    best: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Every pair of parameters: contours of draws, and ellipses of a fit's covariance around its best values.

    Args:
        names: Of the parameters, one or more.
        draws: Of equal weight, shape ``(n, parameters)``, in the units of the names.
        best: Best fit, shape ``(parameters,)``.
        covariance: Of the fit, shape ``(parameters, parameters)``.
        title: Text above the first panel.
        note: Warning in the corner.

    Raises:
        NuebarError: Shapes do not go together, or too few draws.
    """
    n = len(names)
    factor = np.array([scale_of(name).factor for name in names])
    x = _array(draws, "draws")
    if not n or x.ndim != 2 or x.shape[1] != n or len(x) < 100:
        raise NuebarError(f"posterior: expected 100 draws or more of {n} parameters, got shape {x.shape}")
    layers = [Layer("posterior (NUTS)", BLUE, samples=x / factor)]
    if best is not None and covariance is not None:
        centre, spread = _array(best, "best") / factor, _array(covariance, "covariance") / np.outer(factor, factor)
        if centre.shape != (n,) or spread.shape != (n, n):
            raise NuebarError(f"posterior: expected best fit and covariance of {n} parameters, got {centre.shape}")
        layers.append(Layer("best fit and its covariance", ORANGE, "--", gaussian=(centre, spread), best=centre))
    spans = [_span(k, layers, None) for k in range(n)]
    size = WIDTH_IN if n > 1 else 0.6 * WIDTH_IN
    figure = _figure(size, size)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.04, wspace=0.0, hspace=0.0)
    axes = figure.subplots(n, n, squeeze=False)
    for i in range(n):
        for j in range(n):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            for layer in layers:
                if i == j:
                    _one(ax, layer, i, spans[i])
                else:
                    _two(ax, layer, j, i, (spans[j], spans[i]), filled=layer.samples is not None)
            ax.minorticks_off()
            ax.set_xlim(*spans[j])
            ax.locator_params(axis="x", nbins=4)
            if i == j:
                ax.set(ylim=(0.0, None), yticks=[])
            else:
                ax.set_ylim(*spans[i])
                ax.locator_params(axis="y", nbins=4)
            ax.tick_params(labelbottom=i == n - 1, labelleft=j == 0 and i > 0, labelsize=9)
            if i == n - 1:
                ax.set_xlabel(axis_label(names[j]))
            if j == 0 and i > 0:
                ax.set_ylabel(axis_label(names[i]))
    figure.align_labels()
    _heading(axes[0, 0], title, "")
    lines = [(layer.label, layer.colour) for layer in layers]
    lines += [("contours: " + " and ".join(f"{100 * s:.1f} %" for s in SHARES), "black")] if n > 1 else []
    lines += [(note, "red")] if note else []
    for k, (text, colour) in enumerate(lines):
        figure.text(0.985, 0.965 - 0.031 * k, text, ha="right", va="top", color=colour, fontsize=10)
    return figure

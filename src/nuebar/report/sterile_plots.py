"""Figures of a sterile state: the expected exclusion. As in :mod:`nuebar.report.plots`, plain numbers go in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import DASHES, GREY, GREYISH, LINES, _expected, _figure, _heading, _styled

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["exclusion"]

STANDARD = (("Δm²₂₁", 7.5e-5), ("|Δm²₃₁|", 2.5e-3))  # marks on the axis, not inputs


@_styled
def exclusion(
    dm2_41_eV2: ArrayLike,
    limits: Mapping[str, ArrayLike],
    *,
    cl: float = 0.95,
    band: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """Largest sin²2θ14 that is not excluded against Δm²41; what lies to the right of a curve is excluded.

    Args:
        dm2_41_eV2: Increasing, shape ``(m,)``.
        limits: Name of a curve → sin²2θ14 at these splittings; NaN where there is none.
        cl: Confidence level of the curves, two degrees of freedom.
        band: Splittings, and the ends of the range that holds 68 % of the limits of toys there, each splitting by
            itself.
        title: Text above the axes.

    Raises:
        NuebarError: There is no curve, too many, or one of another length.
    """
    y = np.asarray(dm2_41_eV2, float)
    if not 1 <= len(limits) <= len(LINES):
        raise NuebarError(f"exclusion: expected one to {len(LINES)} curves, got {len(limits)}; draw fewer")
    curves = {name: np.asarray(x, float) for name, x in limits.items()}
    if any(x.shape != y.shape for x in curves.values()):
        raise NuebarError(f"exclusion: expected {y.size} numbers in every curve; give one for each splitting")
    figure = _figure(5.4)
    ax = figure.add_subplot()
    for label, value in STANDARD:
        if y[0] < value < y[-1]:
            ax.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)))
            ax.text(0.012, value, label, transform=ax.get_yaxis_transform(), va="bottom", color=GREYISH, fontsize=9.5)
    for k, (name, x) in enumerate(curves.items()):
        ax.plot(x, y, color=LINES[k], linestyle=DASHES[k % len(DASHES)], label=name)
        if k == 0:
            ax.fill_betweenx(y, x, 1.0, where=np.isfinite(x), color=LINES[0], alpha=0.12, linewidth=0)
    if band is not None:
        at, low, high = (np.asarray(b, float) for b in band)
        good = np.isfinite(low) & np.isfinite(high)
        ax.hlines(at[good], low[good], high[good], color=GREY, linewidth=3.0, label="68 % of toys, 1 dof")
    ax.set(xscale="log", yscale="log", xlim=(1e-3, 1.0), ylim=(y[0], y[-1]))
    seen = [float(np.nanmin(x)) for x in curves.values() if np.isfinite(x).any()]
    if seen and min(seen) < 2e-3:
        ax.set_xlim(left=0.5 * min(seen))
    ax.set(xlabel="sin² 2θ₁₄", ylabel="Δm²₄₁ [eV²]")
    ax.legend(loc="upper left", title=f"excluded to the right, {100 * cl:g} % CL, 2 dof")
    _heading(ax, title, "")
    _expected(ax)
    return figure

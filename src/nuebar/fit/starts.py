"""A fit from several starts, for costs with several minima: those of a mass splitting that the data hardly know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.stats.minimise import Minimum, Problem

__all__ = ["OtherMinimum", "run_from_starts"]

_APART_sigma = 0.5  # closer than that, two ends of the minimiser are one minimum


@dataclass(frozen=True)
class OtherMinimum:
    """A minimum that is not the lowest one.

    Attributes:
        value: Of the parameter.
        delta_chi2: Above the lowest.
    """

    value: float
    delta_chi2: float


def run_from_starts(
    fit: SpectrumFit,
    name: str,
    *,
    sigmas: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    problem: Problem | None = None,
) -> tuple[FitResult, tuple[OtherMinimum, ...]]:
    """Fit with a parameter started at several places of its prior, and keep the lowest minimum.

    Args:
        fit: The fit.
        name: The parameter; if it is fixed or has no prior, there is one start only.
        sigmas: Starts, in widths of the prior from its centre; those outside of its limits are left out.
        problem: The compiled cost, to reuse one.

    Returns:
        The fit of the lowest minimum, valid ones first, and the other minima, lowest first.
    """
    p, problem = fit.parameters[fit.parameters.known(name)], problem or fit.problem()
    starts: list[dict[str, float]] = [{}]
    if p.sigma and not p.fixed:
        low = -math.inf if p.bounds[0] is None else p.bounds[0]
        high = math.inf if p.bounds[1] is None else p.bounds[1]
        places = [p.value + s * p.sigma for s in sigmas]
        starts = [{name: x} for x in places if low < x < high] or starts
    found = [fit.minimum(start=start, problem=problem) for start in starts]
    found.sort(key=lambda m: (not m.valid, m.cost))
    best = found[0]
    k = best.names.index(name)
    error = float(best.errors[k])
    others: list[OtherMinimum] = []
    for m in found[1:]:
        value = float(m.values[k])
        seen = [float(best.values[k]), *(o.value for o in others)]
        if m.valid and all(abs(value - x) > _APART_sigma * error for x in seen):
            others.append(OtherMinimum(value, float(m.cost - best.cost)))
    return fit.result(_whole(best, found)), tuple(others)


def _whole(best: Minimum, found: Sequence[Minimum]) -> Minimum:
    """The best minimum with the calls of all starts."""
    return replace(
        best,
        n_calls=sum(m.n_calls for m in found),
        n_grad_calls=sum(m.n_grad_calls for m in found),
        seconds=sum(m.seconds for m in found),
    )

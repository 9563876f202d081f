"""Goodness of fit from pseudo-experiments, beside the χ² probability.

The cost at the best fit says how well a model describes data only if its distribution is known. With many events in
every bin, straight models and no limits it is that of χ² with bins − free parameters degrees of freedom; with few
events, bin-to-bin uncertainties, limits or a mass splitting that the data hardly know it is something else. Toys know:
they are drawn at the best fit, the centres of the constraints fluctuating around it as in a repetition of everything,
and each is fitted as the data were. This is the parametric bootstrap; that it draws at the best fit and not at the
unknown truth makes it a little conservative where the distribution depends on the parameters (J. M. Robins, A. van der
Vaart and V. Ventura, J. Am. Stat. Assoc. 95 (2000) 1143). For the statistics that are likelihoods the cost is the
deviance from the saturated model, and toys are the only way (J. G. Heinrich, PHYSTAT 2003, on why).

One number over all bins hardly sees a bump in a few of them. From the same toys, and so with the number of places
looked at and the fitted parameters accounted for:

* largest: the largest |residual| of a bin, residuals in standard deviations as the cost defines them;
* excess: the largest |Σ residuals|/√n of n bins in a row, over all places and all n: bumps and dips of any width;
* runs: the number of runs of residuals of one sign, few where the model drifts away from the data.

A p-value is (1 + toys at least as extreme)/(1 + toys): never zero, and valid for any number of toys (A. C. Davison and
D. V. Hinkley, Bootstrap Methods and their Application (1997), section 4.2). Its error is never below that of one toy,
1/toys: where all toys or none are more extreme, more of them would still move it. Toys whose fit failed are left
out and counted, with the p-value if all of them had been on one side or on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits, ManyResults, _Lane, picked
from nuebar.fit.toys import ToyOptions, draw

__all__ = [
    "TESTS",
    "Goodness",
    "PValue",
    "best_of_starts",
    "bin_residuals",
    "fit_data",
    "fit_toys",
    "goodness",
    "judged",
    "p_value",
    "statistics_of",
    "usable",
]

TESTS = ("chi2", "largest", "excess", "runs")
"""Of each the larger value is the worse one; runs count negatively."""
STARTED = "dm2_31_eV2"
STARTS_sigma = (-1.5, 1.5)
"""Where fits of Δm²31 start beside the truth, in widths of its prior: minima are three widths of Daya Bay's apart."""


@dataclass(frozen=True)
class PValue:
    """Chance of a value at least as extreme.

    Attributes:
        value: Of the data.
        p: (1 + toys at least as extreme)/(1 + toys).
        error: Its standard error from the number of toys, at least 1/toys.
        p_range: If all toys whose fit failed were less extreme, and if all were more.
        median: Of the toys.
    """

    value: float
    p: float
    error: float
    p_range: tuple[float, float]
    median: float


@dataclass(frozen=True, eq=False)
class Goodness:
    """How well a fit describes its data.

    Attributes:
        chi2: Cost at the best fit.
        n_dof: Bins less free parameters without a constraint.
        p_chi2: Its probability by the χ² distribution.
        tests: Name of the test → what toys say.
        toys: Numbers of the tests, shape ``(valid toys, tests)``, in the order of :data:`TESTS`.
        n_toys: Toys drawn.
        failures: Reason → number of toys whose fit is not valid.
        chi2_mean: Of the toys.
        chi2_variance: Of the toys; twice the degrees of freedom in the limit of many events.
        residuals: Of the bins of the data.
    """

    chi2: float
    n_dof: int
    p_chi2: float
    tests: Mapping[str, PValue]
    toys: np.ndarray
    n_toys: int
    failures: Mapping[str, int]
    chi2_mean: float
    chi2_variance: float
    residuals: np.ndarray


def goodness(
    many: ManyFits, data: DataSets, n_toys: int, *, seed: int, options: ToyOptions | None = None
) -> tuple[Goodness, ManyResults]:
    """Fit one data set, draw toys at its best fit, fit them, and compare.

    Args:
        many: The compiled fit.
        data: One data set with the centres of the constraints as the experiment has them.
        n_toys: How many.
        seed: Of the toys.
        options: What fluctuates in them.

    Returns:
        The result, and the fit of the data (one row).

    Raises:
        NuebarError: There is not one data set, its fit has no finite cost, or no toy could be fitted.
    """
    if len(data) != 1:
        raise NuebarError(f"goodness of fit: expected one data set, got {len(data)}; test them one at a time")
    best, numbers = fit_data(many, data)
    results, values, _ = fit_toys(many, range(n_toys), seed=seed, truth=best.values[0], options=options)
    residuals = bin_residuals(many, data, best.values)[0]
    return judged(many, best, numbers[0], residuals, results, values), best


def fit_data(many: ManyFits, data: DataSets) -> tuple[ManyResults, np.ndarray]:
    """The fits of data sets and their tests, shape ``(n, tests)``; as toys are fitted."""
    best = best_of_starts(many, data, data.truth, errors=True)
    if not np.isfinite(best.chi2).all():
        raise NuebarError("goodness of fit: the cost of the best fit is not finite; look at the fit itself first")
    return best, statistics_of(best.chi2, bin_residuals(many, data, best.values))


def fit_toys(
    many: ManyFits,
    numbers: range | np.ndarray,
    *,
    seed: int,
    truth: np.ndarray,
    options: ToyOptions | None = None,
) -> tuple[ManyResults, np.ndarray, DataSets]:
    """Toys of given numbers, their fits, and their tests, shape ``(n, tests)``.

    Args:
        many: The compiled fit.
        numbers: Which toys.
        seed: Of the study.
        truth: All parameters, shape ``(parameters,)``.
        options: What fluctuates.
    """
    data = draw(many, numbers, seed=seed, truth=_inside(many, truth), options=options or ToyOptions())
    results = best_of_starts(many, data, data.truth)
    return results, statistics_of(results.chi2, bin_residuals(many, data, results.values)), data


def best_of_starts(many: ManyFits, data: DataSets, start: np.ndarray, *, errors: bool = False) -> ManyResults:
    """Fits from one start, or where Δm²31 is free with a prior from several, and the lowest minimum of each.

    Args:
        many: The compiled fit.
        data: Data sets.
        start: All parameters, shape ``(parameters,)`` or ``(n, parameters)``.
        errors: Whether the fits get errors, from the curvature.
    """
    start = np.clip(np.broadcast_to(start, (len(data), len(many.names))), many.lower, many.upper)
    p = many.fit.parameters.get(STARTED)
    starts = [start]
    if p is not None and not p.fixed and p.sigma is not None:
        k = many.names.index(STARTED)
        moved = []
        for s in STARTS_sigma:
            x = start.copy()
            x[:, k] = np.clip(p.value + s * p.sigma, many.lower[k], many.upper[k])
            moved.append(x)
        starts += moved
    kind = "curvature" if errors else "none"
    found = [many.run(data, start=x, errors=kind) for x in starts]  # type: ignore[arg-type]
    cost = np.array([np.where(np.isfinite(f.chi2), f.chi2, np.inf) for f in found])
    # An end that is not valid must not hide a valid one of the same depth.
    cost = cost + 1e-6 * np.array([~f.valid for f in found])
    return picked(found, np.argmin(cost, axis=0))


def bin_residuals(many: ManyFits, data: DataSets, values: np.ndarray) -> np.ndarray:
    """Residuals of the bins, data minus expectation in standard deviations, shape ``(n, bins)``."""
    inside = ((values >= many.lower) & (values <= many.upper)).all()
    engine = many if inside else many._wider()
    bins = len(many.fit.model.edges_MeV) - 1
    x = values[:, engine._kept]
    return np.asarray(_residuals(engine._lane, *(jnp.asarray(a) for a in (x, data.counts, data.centres))))[:, :bins]


@eqx.filter_jit
def _residuals(lane: _Lane, x: Array, counts: Array, centres: Array) -> Array:
    return jax.lax.map(lambda a: lane.residuals(lane.model, *a), (x, counts, centres), batch_size=32)


def statistics_of(chi2: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """The numbers of :data:`TESTS`, shape ``(n, tests)``.

    Args:
        chi2: Costs, shape ``(n,)``.
        residuals: Of the bins, shape ``(n, bins)``.
    """
    n, bins = residuals.shape
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(residuals, axis=1)], axis=1)
    excess = np.zeros(n)
    for width in range(1, bins // 2 + 1):
        excess = np.maximum(excess, np.abs(total[:, width:] - total[:, :-width]).max(axis=1) / np.sqrt(width))
    runs = 1 + np.sum(np.diff(np.sign(residuals), axis=1) != 0, axis=1)
    return np.column_stack([chi2, np.abs(residuals).max(axis=1), excess, -runs])


def p_value(value: float, toys: np.ndarray, failed: int = 0) -> PValue:
    """The chance of a larger number, from valid toys and the number of those that failed.

    Raises:
        NuebarError: There are no toys.
    """
    n = len(toys)
    if not n:
        raise NuebarError("goodness of fit: expected valid toys, got none; look at why their fits failed")
    above = int(np.sum(toys >= value))
    p = (1 + above) / (1 + n)
    return PValue(
        value=float(value),
        p=p,
        error=float(np.sqrt(max(p * (1.0 - p), 1.0 / n) / n)),
        p_range=((1 + above) / (1 + n + failed), (1 + above + failed) / (1 + n + failed)),
        median=float(np.median(toys)),
    )


def judged(
    many: ManyFits,
    best: ManyResults,
    numbers: np.ndarray,
    residuals: np.ndarray,
    results: ManyResults,
    values: np.ndarray,
) -> Goodness:
    """The comparison of a fit with toys.

    Args:
        many: The compiled fit.
        best: Fit of the data, one row.
        numbers: Its tests, shape ``(tests,)``.
        residuals: Its residuals, shape ``(bins,)``.
        results: Fits of the toys.
        values: Their tests, shape ``(toys, tests)``.

    Raises:
        NuebarError: No toy could be fitted.
    """
    good = usable(results)
    kept, failed = values[good], int((~good).sum())
    n_dof = residuals.size - len(set(results.free) - set(many.constrained))
    if not len(kept):
        raise NuebarError(f"goodness of fit: none of {len(results)} toys could be fitted: {results.failures()}")
    chi2 = kept[:, 0]
    return Goodness(
        chi2=float(best.chi2[0]),
        n_dof=n_dof,
        p_chi2=float(chi2_distribution.sf(best.chi2[0], n_dof)) if n_dof > 0 else float("nan"),
        tests={name: p_value(float(numbers[k]), kept[:, k], failed) for k, name in enumerate(TESTS)},
        toys=kept,
        n_toys=len(results),
        failures={k: v for k, v in results.failures().items() if k != "ended on a limit"},
        chi2_mean=float(chi2.mean()),
        chi2_variance=float(chi2.var(ddof=1)) if len(chi2) > 1 else 0.0,
        residuals=residuals,
    )


def usable(results: ManyResults) -> np.ndarray:
    """Fits whose minimum counts: also those that end on a limit, as the lowest cost inside is what data have, too."""
    return (results.status == 0) | (results.status == 1)


def _inside(many: ManyFits, x: np.ndarray) -> np.ndarray:
    """A best fit, which may lie a rounding beside a limit, as a truth."""
    lower, upper = many._limits(own=True)
    return np.clip(x, lower, upper)

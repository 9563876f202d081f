"""Expected precision of the parameters and of the mass ordering: against exposure, with and without each systematic.

Expected (Asimov) counts have no residuals at the true parameters. There the Hessian of every cost that is a sum of
squares is 2 JᵀJ, whatever the residuals bend, so the covariance of the fit is (JᵀJ)⁻¹ exactly and needs no fit. What is
switched off is a column of J left out, or a variance set to zero: nothing is compiled again for an exposure, a
systematic or a resolution with equally many terms. The Δχ² of the ordering is a descent on the same program, from the
starts of :class:`nuebar.fit.ordering.OrderingStudy`.

Three numbers tell what a group of systematics does to an error σ:

share
    Root of its part of σ². The estimate moves by (JᵀJ)⁻¹Jᵀ with the residuals, each of which has the variance one; the
    rows that belong to a group are its part, and all parts add up to σ² exactly (breakdown by what fluctuates:
    A. Pinto et al., EPJ C 84, 593 (2024)).
without
    σ when it is switched off; √(σ² − without²) is what the fit would gain, more than the share where the fit itself
    constrains the group.
alone
    σ with the statistics and it only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from nuebar.errors import NuebarError
from nuebar.fit.ordering import (
    BACKGROUND_SHAPE,
    GROUPS,
    REACH,
    SAME,
    SIGNAL_SHAPE,
    FRINGE_MeV,
    OrderingPoint,
    STARTS_sigma,
    SystematicCost,
    scaled,
)
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.parameters import OSCILLATION, ParameterSet
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV
from nuebar.predict.joint import JointModel
from nuebar.predict.nuisances import within_box
from nuebar.stats.gauss_newton import GaussNewtonResult, descend
from nuebar.stats.problem import Problem

__all__ = ["OTHER", "STATISTICS", "ErrorCheck", "GroupErrors", "Precision", "SensitivityStudy"]

STATISTICS, OTHER, EXTERNAL = "statistics", "other constraints", "external priors"
TOLERANCE = 1e-8  # estimated distance to the minimum, in units of χ²
STEPS = 100
BENT = 0.1  # of Δχ²: at ±1σ a parabola has 1; 0.1 is 5 % of the error
RIVAL = 9.0  # Δχ² of the next minimum: below, more than 7 % of the data sets end in another one
BASELINE_km = 52.5  # where the fringes of Δm²31 are counted
FRINGES, SCAN_POINTS = 2.5, 61  # how far to look for other minima, and in how many points
FARTHEST_sigma = 6.0  # where the search for Δχ² = 1 ends


@dataclass(frozen=True)
class Precision:
    """Expected errors at one exposure.

    Attributes:
        factor: Exposure over that of the fit.
        errors: Parameter → standard deviation, in its own unit.
        relative: The same over the true value.
    """

    factor: float
    errors: Mapping[str, float]
    relative: Mapping[str, float]


@dataclass(frozen=True)
class GroupErrors:
    """What a group of systematics does to the errors at one exposure; see the module.

    Attributes:
        group: "statistics" (of the first detector, "statistics of" the second), one of
            :data:`nuebar.fit.ordering.GROUPS`, "other constraints", or "external priors" of oscillation parameters,
            which are never switched off.
        share: Parameter → root of its part of the variance, in the parameter's unit.
        without: Parameter → error when it is switched off; for "statistics" and "external priors" the whole error.
        alone: Parameter → error with the statistics and it only.
    """

    group: str
    share: Mapping[str, float]
    without: Mapping[str, float]
    alone: Mapping[str, float]


@dataclass(frozen=True)
class ErrorCheck:
    """Whether the expected error of a parameter can be trusted.

    Attributes:
        name: The parameter.
        error: Its expected error.
        below: Profile Δχ² one error below the truth, 1 for a parabola; None where that is outside of the limits.
        above: The same above.
        minus: Where the profile reaches Δχ² = 1 below the truth, as a negative difference; None if it does not.
        plus: The same above.
        next_minimum: Δχ² of the next minimum (Δm²31 only); None if there is none near.
        elsewhere: Share of data sets that end in that minimum, Φ(−√Δχ²/2).
        trusted: Whether the profile is a parabola within 0.1 of Δχ² and no other minimum is nearer than 9.
        reason: Why not.
    """

    name: str
    error: float
    below: float | None
    above: float | None
    minus: float | None
    plus: float | None
    next_minimum: float | None
    elsewhere: float
    trusted: bool
    reason: str


class SensitivityStudy:
    """Expected errors and ordering of one model.

    Args:
        fit: The model, with the parameters of the normal ordering; its exposure is the unit of all factors. Its counts
            are not used.
        interest: Parameters that are reported; the free oscillation parameters by default.
        priors: Parameter → error of an external measurement that is centred on the truth, beside the fit's own.

    Raises:
        NuebarError: A parameter is unknown, fixed or not of the normal ordering, or a prior is not above 0.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        *,
        interest: Sequence[str] | None = None,
        priors: Mapping[str, float] | None = None,
    ) -> None:
        self.fit, self.priors = fit, dict(priors or {})
        free = fit.parameters.free
        self.interest = tuple(interest or (n for n in OSCILLATION if n in free))
        for name in (*self.interest, *self.priors):
            fit.parameters.known(name)
            if name not in free:
                raise NuebarError(f"sensitivity: expected {name} free, got it fixed; leave it out of --fix")
        for name, sigma in self.priors.items():
            if not (np.isfinite(sigma) and sigma > 0):
                raise NuebarError(f"prior of {name}: expected an error above 0, got {sigma}")
        if not self.interest:
            raise NuebarError("sensitivity: expected at least one free oscillation parameter, got none; free one")
        if fit.parameters["dm2_31_eV2"].value < 0:
            raise NuebarError("sensitivity: expected parameters of the normal ordering, got Δm²31 below 0; swap them")
        self.names = fit.parameters.names
        self._sets: dict[str, ParameterSet] = {"normal": fit.parameters}
        self._problems: dict[tuple[float, tuple[str, ...], str], tuple[Problem, np.ndarray]] = {}

    # -------------------------------------------------------------- precision

    def groups(self) -> tuple[str, ...]:
        """Groups of systematics that the model has."""
        model, pulled = self.fit.model, self.fit.pulled()
        shapes = {SIGNAL_SHAPE: model.signal_shape, BACKGROUND_SHAPE: model.background_shape}
        out = []
        for name, beginnings in GROUPS.items():
            if name in shapes:
                if model.shape_uncertainties and np.any(np.asarray(shapes[name]) > 0):
                    out.append(name)
            elif any(n.startswith(beginnings) for n in pulled):
                out.append(name)
        return (*out, OTHER) if any(_group(n) == OTHER for n in pulled) else tuple(out)

    def precision(self, factor: float, *, without: Sequence[str] = (), truth: str = "normal") -> Precision:
        """Expected errors.

        Args:
            factor: Exposure over that of the fit.
            without: Groups that are switched off.
            truth: The true ordering.
        """
        covariance, free = self._covariance(factor, without, truth)
        sigma = dict(zip(free, np.sqrt(np.diag(covariance)), strict=True))
        errors = {n: float(sigma[n]) for n in self.interest}
        nominal = self.parameters(truth)
        return Precision(factor, errors, {n: e / abs(nominal[n].value) for n, e in errors.items()})

    def correlation(self, factor: float) -> np.ndarray:
        """Correlations of the parameters of interest, shape ``(interest, interest)``."""
        covariance, free = self._covariance(factor, (), "normal")
        k = [free.index(n) for n in self.interest]
        sigma = np.sqrt(np.diag(covariance))[k]
        return np.asarray(covariance[np.ix_(k, k)] / np.outer(sigma, sigma))

    def breakdown(self, factor: float) -> tuple[GroupErrors, ...]:
        """What the statistics and each group contribute; the squares of the shares add up to that of the error."""
        groups, whole = self.groups(), self.precision(factor).errors
        bare = self.precision(factor, without=groups).errors
        share = self._shares(factor)
        out = [GroupErrors(name, share[name], whole, bare) for name in self._detectors()]
        for group in groups:
            others = tuple(g for g in groups if g != group)
            without, alone = self.precision(factor, without=(group,)), self.precision(factor, without=others)
            out.append(GroupErrors(group, share[group], without.errors, alone.errors))
        if EXTERNAL in share:
            out.append(GroupErrors(EXTERNAL, share[EXTERNAL], whole, bare))
        return tuple(out)

    def check(self, factor: float, name: str) -> ErrorCheck:
        """Compare the expected error of a parameter with its profile, and look for other minima of Δm²31."""
        p, error = self.parameters("normal")[name], self.precision(factor).errors[name]
        low, high = p.bounds
        room = (
            np.inf if low is None else (p.value - low) / error,
            np.inf if high is None else (high - p.value) / error,
        )
        sides = [self._side(factor, name, error, sign, reach) for sign, reach in zip((-1.0, 1.0), room, strict=True)]
        rival = self._next_minimum(factor) if name == "dm2_31_eV2" else None
        words = []
        for word, (at, edge) in zip(("below", "above"), sides, strict=True):
            if at is None:
                words.append(f"a limit is within one error {word}")
            elif abs(at - 1.0) > BENT:
                words.append(f"the profile is at {at:.2f} instead of 1 one error {word}")
            elif edge is None:
                words.append(f"the profile does not reach 1 {word}")
        if rival is not None and rival < RIVAL:
            words.append(f"another minimum is only {rival:.1f} higher")
        (below, minus), (above, plus) = sides
        return ErrorCheck(
            name=name,
            error=error,
            below=below,
            above=above,
            minus=None if minus is None else -minus * error,
            plus=None if plus is None else plus * error,
            next_minimum=rival,
            elsewhere=0.0 if rival is None else float(norm.cdf(-0.5 * np.sqrt(max(rival, 0.0)))),
            trusted=not words,
            reason="; ".join(words),
        )

    # -------------------------------------------------------------- ordering

    def ordering(self, factor: float, *, without: Sequence[str] = (), truth: str = "normal") -> OrderingPoint:
        """Expected Δχ² of the wrong ordering, as :meth:`nuebar.fit.ordering.OrderingStudy.asimov` has it.

        Args:
            factor: Exposure over that of the fit.
            without: Groups that are switched off.
            truth: The true ordering.

        Raises:
            NuebarError: Δm²31 is fixed, or has an external prior.
        """
        if "dm2_31_eV2" not in self.fit.parameters.free:
            raise NuebarError(
                "ordering: expected dm2_31_eV2 free, got it fixed; free it, or ask for precision alone (--no-ordering)"
            )
        if "dm2_31_eV2" in self.priors:
            raise NuebarError("ordering: an external Δm²31 is not the same in both orderings; leave that prior out")
        wrong = "inverted" if truth == "normal" else "normal"
        problem = self._problem(factor, self._shapes(without), truth)[0]
        free = self._free(without)
        found = [self._descend(problem, x, free, wrong, truth) for x in self._starts(factor, wrong)]
        good = [r for r in found if bool(r.converged)]
        best = min(good or found, key=lambda r: float(r.cost))
        lower, upper = self._limits(wrong)
        values = np.asarray(best.values)
        on = [n for n, x, a, b in zip(self.names, values, lower, upper, strict=True) if x in (a, b) and n in free]
        reason = "" if bool(best.converged) else "not converged"
        reason = "; ".join(w for w in (reason, "ended on a limit: " + ", ".join(on) if on else "") if w)
        chi2 = np.sort([float(r.cost) for r in good])
        return OrderingPoint(
            factor=factor,
            truth=truth,
            delta_chi2=float(best.cost),
            wrong=dict(zip(self.names, values.tolist(), strict=True)),
            valid=not reason,
            reason=reason,
            minima=int(np.sum(np.diff(chi2) > SAME)) + 1 if chi2.size else 0,
        )

    def ordering_systematics(self, factor: float, *, truth: str = "normal") -> tuple[SystematicCost, ...]:
        """Δχ² with every group off, and alone: as :meth:`nuebar.fit.ordering.OrderingStudy.systematics` has it."""
        groups = self.groups()

        def at(without: Sequence[str]) -> OrderingPoint:
            return self.ordering(factor, without=without, truth=truth)

        everything, nothing = at(()), at(groups)
        rows = [SystematicCost("all", everything.delta_chi2, everything.delta_chi2, everything.valid)]
        for group in groups:
            off, on = at((group,)), at(tuple(g for g in groups if g != group))
            rows.append(SystematicCost(group, off.delta_chi2, on.delta_chi2, off.valid and on.valid))
        return (*rows, SystematicCost("none", nothing.delta_chi2, nothing.delta_chi2, nothing.valid))

    def parameters(self, ordering: str) -> ParameterSet:
        """True parameters in one ordering; the inverted ones at equal Δm²ee.

        Raises:
            NuebarError: Another word, or the predictor knows the normal ordering only.
        """
        if ordering not in ("normal", "inverted"):
            raise NuebarError(f"ordering: expected normal or inverted, got {ordering!r}")
        if ordering not in self._sets:
            self._sets[ordering] = within_box(inverted_start(self.fit.parameters), self.fit.model.predictor)
        return self._sets[ordering]

    # -------------------------------------------------------------- parts

    def _problem(self, factor: float, shapes: tuple[str, ...], truth: str) -> tuple[Problem, np.ndarray]:
        """The cost of expected counts, and the true parameters."""
        key = (float(factor), shapes, truth)
        if key not in self._problems:
            x = np.array([p.value for p in self.parameters(truth).values()])
            # Parameters set the pulls alone, and the same in both orderings: one program for both.
            fit = _without_shapes(scaled(self.fit, factor), shapes)
            fit = replace(fit, counts=np.asarray(fit.model(x)[0]))
            if len(self._problems) > 64:
                self._problems.clear()
            self._problems[key] = fit.problem(), x
        return self._problems[key]

    def _free(self, without: Sequence[str]) -> tuple[str, ...]:
        unknown = [g for g in without if g not in GROUPS and g != OTHER]
        if unknown:
            raise NuebarError(f"unknown group of systematics {unknown[0]!r}; expected some of {', '.join(GROUPS)}")
        off = {n for n in self.fit.pulled() if _group(n) in without}
        return tuple(n for n in self.fit.parameters.free if n not in off)

    def _shapes(self, without: Sequence[str]) -> tuple[str, ...]:
        return tuple(g for g in (SIGNAL_SHAPE, BACKGROUND_SHAPE) if g in without)

    def _external(self) -> np.ndarray:
        """Inverse variances of the external priors, shape ``(parameters,)``."""
        return np.array([self.priors[n] ** -2 if n in self.priors else 0.0 for n in self.names])

    def _covariance(self, factor: float, without: Sequence[str], truth: str) -> tuple[np.ndarray, tuple[str, ...]]:
        problem, x = self._problem(factor, self._shapes(without), truth)
        free = self._free(without)
        k = np.array([self.names.index(n) for n in free])
        normal = (problem.linearised(x).normal + np.diag(self._external()))[np.ix_(k, k)]
        return _inverse(normal, free), free

    def _shares(self, factor: float) -> dict[str, dict[str, float]]:
        """Group → parameter → root of its part of the variance."""
        if self.fit.mc_covariance is not None and np.ndim(self.fit.mc_covariance) == 2:
            raise NuebarError("sensitivity: a covariance between bins has no groups; make parameters of what it holds")
        problem, x = self._problem(factor, (), "normal")
        covariance, free = self._covariance(factor, (), "normal")
        k = np.array([self.names.index(n) for n in free])
        jacobian = problem.linearised(x).jacobian[:, k]
        moves = covariance @ jacobian.T  # of each parameter by one standard deviation of each residual
        bins = len(self.fit.counts)
        fluctuates = self._fluctuations(factor, x)
        out: dict[str, dict[str, float]] = {}
        for name in self.interest:
            row = free.index(name)
            parts = {g: float(np.sum(moves[row, :bins] ** 2 * part)) for g, part in fluctuates.items()}
            for line in range(bins, len(jacobian)):
                if not np.any(jacobian[line]):
                    continue  # of a parameter that is fixed
                group = _group(free[int(np.argmax(np.abs(jacobian[line])))])
                parts[group] = parts.get(group, 0.0) + float(moves[row, line] ** 2)
            if self.priors:
                outside = [covariance[row, free.index(n)] / sigma for n, sigma in self.priors.items()]
                parts[EXTERNAL] = parts.get(EXTERNAL, 0.0) + float(np.sum(np.square(outside)))
            for group, variance in parts.items():
                out.setdefault(group, {})[name] = float(np.sqrt(variance))
        return out

    def _fluctuations(self, factor: float, x: np.ndarray) -> dict[str, np.ndarray]:
        """Shares of the statistics and of the shapes in the variance of each bin."""
        model = scaled(self.fit, factor).model
        mu, both = (np.asarray(a) for a in model(x))
        extra = np.zeros_like(mu)
        if self.fit.mc_covariance is not None:
            given = np.asarray(scaled(self.fit, factor).mc_covariance)
            extra = given if given.ndim == 1 else np.diag(given)
        total = mu + both + extra
        parts = {}
        for group, bins in self._detectors().items():
            parts[group] = np.where(bins, (mu + extra) / total, 0.0)
        for group in (SIGNAL_SHAPE, BACKGROUND_SHAPE):
            if group in self.groups():
                left = np.asarray(_without_shapes(scaled(self.fit, factor), (group,)).model(x)[1])
                parts[group] = (both - left) / total
        return parts

    def _detectors(self) -> dict[str, np.ndarray]:
        """Name of the statistics of each detector, and which bins are its own."""
        model = self.fit.model
        numbers = np.arange(len(self.fit.counts))
        if not isinstance(model, JointModel):
            return {STATISTICS: numbers >= 0}
        words = [STATISTICS, *(f"{STATISTICS} of {name}" for name in model.detectors[1:])]
        return {w: np.isin(numbers, bins) for w, bins in zip(words, model.split(numbers), strict=True)}

    def _limits(self, ordering: str) -> tuple[np.ndarray, np.ndarray]:
        bounds = [p.bounds for p in self.parameters(ordering).values()]
        lower = np.array([-np.inf if b[0] is None else b[0] for b in bounds])
        return lower, np.array([np.inf if b[1] is None else b[1] for b in bounds])

    def _descend(
        self, problem: Problem, start: np.ndarray, free: Sequence[str], ordering: str, truth: str
    ) -> GaussNewtonResult:
        """The minimum near a start; external priors are centred on the truth."""
        weight = self._external()
        centre = np.array([p.value for p in self.parameters(truth).values()])

        def model(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            here = problem.linearised(x)
            away = weight * (x - centre)
            cost = float(here.cost) + float(away @ (x - centre))
            return cost, here.normal + np.diag(weight), here.slope + away

        lower, upper = self._limits(ordering)
        mask = np.array([n in free for n in self.names])
        return descend(model, start, STEPS, lower=lower, upper=upper, free=mask, tol=TOLERANCE)

    def _starts(self, factor: float, ordering: str) -> list[np.ndarray]:
        """At equal Δm²ee, beside it, and a fringe away where the data hardly know Δm²31."""
        x = np.array([p.value for p in self.parameters(ordering).values()])
        k = self.names.index("dm2_31_eV2")
        covariance, free = self._covariance(factor, (), "normal")
        sigma = float(np.sqrt(covariance[free.index("dm2_31_eV2"), free.index("dm2_31_eV2")]))
        offsets = [s * sigma for s in STARTS_sigma]
        if REACH * sigma > _fringe():
            offsets += [-_fringe(), _fringe()]
        lower, upper = self._limits(ordering)
        return [np.where(np.arange(x.size) == k, x + d, x) for d in offsets if lower[k] < x[k] + d < upper[k]]

    def _profile(self, factor: float, name: str, value: float, start: np.ndarray | None = None) -> GaussNewtonResult:
        """The cost with one parameter held."""
        problem, x = self._problem(factor, (), "normal")
        at = (x if start is None else start).copy()
        at[self.names.index(name)] = value
        free = tuple(n for n in self._free(()) if n != name)
        return self._descend(problem, at, free, "normal", "normal")

    def _side(
        self, factor: float, name: str, error: float, sign: float, room: float
    ) -> tuple[float | None, float | None]:
        """Δχ² at one error, and where it is 1, in errors."""
        value = self.parameters("normal")[name].value

        def rise(step: float) -> float:
            return float(self._profile(factor, name, value + sign * step * error).cost)

        at = rise(1.0) if room >= 1.0 else None
        if at is not None and abs(at - 1.0) <= BENT:
            return at, float(1.0 / np.sqrt(at))  # the next order of a nearly parabolic profile
        return at, _reaches_one(rise, min(room, FARTHEST_sigma))

    def _next_minimum(self, factor: float) -> float | None:
        """Δχ² of the lowest other minimum of Δm²31 in the same ordering."""
        problem, x = self._problem(factor, (), "normal")
        k = self.names.index("dm2_31_eV2")
        lower, upper = (side[k] for side in self._limits("normal"))
        low, high = max(lower, x[k] - FRINGES * _fringe()), min(upper, x[k] + FRINGES * _fringe())
        grid = np.linspace(low, high, SCAN_POINTS)
        cost = np.array([problem.value(np.where(np.arange(x.size) == k, d, x)) for d in grid])
        dips = np.flatnonzero((cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])) + 1
        own = float(np.sqrt(self._variance(factor)))
        found = []
        for dip in dips:
            start = np.where(np.arange(x.size) == k, grid[dip], x)
            end = self._descend(problem, start, self._free(()), "normal", "normal")
            if bool(end.converged) and abs(float(end.values[k]) - x[k]) > max(own, 0.2 * _fringe()):
                found.append(float(end.cost))
        return min(found) if found else None

    def _variance(self, factor: float) -> float:
        covariance, free = self._covariance(factor, (), "normal")
        k = free.index("dm2_31_eV2")
        return float(covariance[k, k])


# ---------------------------------------------------------------- helpers


def _group(name: str) -> str:
    """The group of a parameter; what is known of an oscillation parameter is no systematic and stays."""
    if name in OSCILLATION:
        return EXTERNAL
    for group, beginnings in GROUPS.items():
        if beginnings and name.startswith(beginnings):
            return group
    return OTHER


def _without_shapes(fit: SpectrumFit, shapes: Sequence[str]) -> SpectrumFit:
    """The fit with bin-to-bin uncertainties of the signal or the backgrounds set to zero."""
    model = fit.model
    if SIGNAL_SHAPE in shapes:
        model = eqx.tree_at(lambda m: m.signal_shape, model, 0.0 * model.signal_shape)
    if BACKGROUND_SHAPE in shapes:
        model = eqx.tree_at(lambda m: m.background_shape, model, 0.0 * model.background_shape)
    return replace(fit, model=model)


def _inverse(normal: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Inverse of a positive matrix in units of its diagonal."""
    diagonal = np.diag(normal)
    if np.any(~(diagonal > 0)):
        name = names[int(np.argmin(diagonal))]
        raise NuebarError(f"sensitivity: the counts tell nothing about {name}; fix it or give it a prior")
    unit = 1.0 / np.sqrt(diagonal)
    whitened = normal * np.outer(unit, unit)
    if np.linalg.eigvalsh(whitened)[0] < 1e-12:
        raise NuebarError("sensitivity: two parameters cannot be told apart by the counts; fix one or give it a prior")
    return np.asarray(np.linalg.inv(whitened) * np.outer(unit, unit))


def _fringe() -> float:
    """Distance of neighbouring minima of Δm²31 in eV²: the phase 1267 Δm² L/E turns by π."""
    return float(np.pi * FRINGE_MeV / (PHASE_per_eV2_km_MeV * BASELINE_km))


def _reaches_one(rise: Callable[[float], float], farthest: float) -> float | None:
    """Where a profile that begins at zero first reaches 1."""
    before = 0.0
    for step in np.arange(0.25, farthest + 1e-9, 0.25):
        if rise(float(step)) >= 1.0:
            return float(brentq(lambda s: rise(s) - 1.0, before, float(step), xtol=1e-3))
        before = float(step)
    return None

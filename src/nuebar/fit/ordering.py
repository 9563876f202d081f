"""The mass ordering: Δχ² of the best fits of both orderings, against exposure, with toys and one systematic at a time.

Δχ² = χ²_min(wrong) − χ²_min(right), each minimised over all parameters from several starts: at equal Δm²ee, where the
orderings look most alike, some standard deviations beside it, and one fringe beside it where the data hardly know
Δm²31. Expected (Asimov) counts give the median; for toys Δχ² is about normal with twice the root of the median as its
spread (X. Qian et al., PRD 86, 113011 (2012); E. Ciuffoli et al., JHEP 01 (2014) 095), which toys check, and √Δχ² is
the median significance.

Exposures are factors on that of the fit: counts of signal and backgrounds scale, relative uncertainties stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits, ManyResults, picked, rough_errors
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.fit.toys import ToyOptions, draw
from nuebar.parameters import ParameterSet
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.nuisances import within_box

__all__ = [
    "GROUPS",
    "OrderingPoint",
    "OrderingStudy",
    "OrderingToys",
    "SystematicCost",
    "crossing",
    "scaled",
]

STARTS_sigma = (0.0, -3.0, 3.0)
REACH = 8.0  # half width of the windows in standard deviations
FRINGE_MeV = 4.0  # energy of the fringes that tell the orderings apart at 52.5 km
SAME = 0.01  # of Δχ²: ends of two starts that differ by more are two minima

SIGNAL_SHAPE, BACKGROUND_SHAPE = "signal shape", "background shapes"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "flux and efficiency": ("norm_",),
    "core powers": ("core_",),
    "spent fuel, non-equilibrium": ("spent_fuel", "nonequilibrium"),
    "fission fractions": ("fission_fraction_",),
    "reactor spectrum, segments": ("segment_",),
    SIGNAL_SHAPE: (),
    "non-linearity and scale": ("nonlinearity_", "energy_"),
    "resolution": ("resolution_",),
    "background rates": ("bkg_", "slope_"),
    BACKGROUND_SHAPE: (),
    "matter density": ("matter_density_",),
}
"""Systematics that are switched off together: beginnings of the names of pulls; the two shapes are variances."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class OrderingPoint:
    """Expected Δχ² at one exposure.

    Attributes:
        factor: Exposure over that of the fit.
        truth: "normal" or "inverted": the true ordering.
        delta_chi2: χ² of the wrong ordering less that of the right one.
        wrong: Best fit of the wrong ordering, parameter → value.
        valid: Whether both fits are.
        reason: Why not.
        minima: How many different minima the starts found.
    """

    factor: float
    truth: str
    delta_chi2: float
    wrong: Mapping[str, float]
    valid: bool
    reason: str
    minima: int

    @property
    def sigma(self) -> float:
        """Median significance √Δχ²."""
        return float(np.sqrt(max(self.delta_chi2, 0.0)))


@dataclass(frozen=True, eq=False)
class OrderingToys:
    """Δχ² of many toys at one exposure.

    Attributes:
        factor: Exposure over that of the fit.
        truth: The true ordering.
        right: Fits of the true ordering, the best of all starts.
        wrong: Fits of the other one.
        moved: Toys in which another start than the first won by more than 0.01 of χ², in (right, wrong).
    """

    factor: float
    truth: str
    right: ManyResults
    wrong: ManyResults
    moved: tuple[int, int]

    @property
    def valid(self) -> np.ndarray:
        """Toys whose two fits are both valid, shape ``(n,)``."""
        return self.right.valid & self.wrong.valid

    @property
    def delta_chi2(self) -> np.ndarray:
        """χ²(wrong) − χ²(right) of the valid toys."""
        return (self.wrong.chi2 - self.right.chi2)[self.valid]

    def summary(self) -> dict[str, float | int]:
        """Median, spread, share of toys that prefer the wrong ordering and that reach 3σ, and failures."""
        d = self.delta_chi2
        if d.size < 2:
            raise NuebarError(f"ordering: expected at least two valid toys, got {d.size} of {len(self.right)}")
        low, median, high = np.quantile(d, [0.158655, 0.5, 0.841345])
        return {
            "toys": len(self.right),
            "valid": int(d.size),
            "median": float(median),
            "median_error": float(1.2533 * d.std(ddof=1) / np.sqrt(d.size)),
            "mean": float(d.mean()),
            "spread": float(d.std(ddof=1)),
            "low": float(low),
            "high": float(high),
            "wrong_preferred": float(np.mean(d < 0)),
            "above_3_sigma": float(np.mean(d >= 9.0)),
            "other_start_right": self.moved[0],
            "other_start_wrong": self.moved[1],
        }


@dataclass(frozen=True)
class SystematicCost:
    """What a group of systematics costs in Δχ² at one exposure.

    Attributes:
        group: One of :data:`GROUPS`, or "all" and "none".
        without: Δχ² with all others but this one.
        alone: Δχ² with the statistics and this one only.
        valid: Whether both fits are.
    """

    group: str
    without: float
    alone: float
    valid: bool


class OrderingStudy:
    """Both orderings of one model, compiled once for all exposures, toys and systematics.

    Args:
        fit: Either ordering; expected counts at its nominal parameters are what Asimov fits fit. Its exposure is the
            unit of all factors.
        smallest: Smallest exposure factor that will be asked for: it sets how wide the windows are.
        truth_inverted: Parameters of the inverted ordering; at equal Δm²ee by default.
        lanes: As for :class:`nuebar.fit.many.ManyFits`.
        threads: Likewise.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        *,
        smallest: float = 1.0,
        truth_inverted: ParameterSet | None = None,
        lanes: int = 32,
        threads: int | None = None,
    ) -> None:
        if not (np.isfinite(smallest) and smallest > 0):
            raise NuebarError(f"ordering: expected an exposure factor above 0, got {smallest}")
        if fit.parameters["dm2_31_eV2"].fixed:
            raise NuebarError("ordering: expected dm2_31_eV2 free, got it fixed; leave it out of --fix")
        if fit.parameters["dm2_31_eV2"].value < 0:
            raise NuebarError("ordering: expected the parameters of the normal ordering, got Δm²31 below 0; swap them")
        self.fit, self.lanes, self.threads = fit, lanes, threads
        inverted = truth_inverted or within_box(inverted_start(fit.parameters), fit.model.predictor)
        self.parameters = {"normal": fit.parameters, "inverted": inverted}
        self._compact: CompactHarmonic | None = None
        predictor = fit.model.predictor
        if isinstance(predictor, HarmonicPredictor):
            windows = self._windows(predictor.windows, smallest)
            cores = any(n.startswith("core_") for n in fit.parameters)
            self._compact = CompactHarmonic.of(predictor, windows=windows, cores=cores)

    def many(self, ordering: str, factor: float, without: Sequence[str] = ()) -> ManyFits:
        """The fits of one ordering at one exposure, without the shapes of some groups."""
        fit = self._at(ordering, factor, without)
        return ManyFits(fit, compact=self._compact, lanes=self.lanes, threads=self.threads)

    def asimov(self, factor: float, *, truth: str = "normal", without: Sequence[str] = ()) -> OrderingPoint:
        """Expected Δχ².

        Args:
            factor: Exposure over that of the fit.
            truth: The true ordering.
            without: Groups of systematics that are switched off.

        Raises:
            NuebarError: An ordering or a group is unknown.
        """
        right, wrong = self._pair(truth)
        true, other = self.many(right, factor, without), self.many(wrong, factor, without)
        nominal = np.array([p.value for p in self.parameters[right].values()])
        counts = true._expected(nominal)
        fixed = self._fixed(without)
        starts = self._start_values(wrong, factor)
        data = DataSets(
            np.arange(len(starts)),
            np.tile(counts, (len(starts), 1)),
            np.tile(true.centres, (len(starts), 1)),
            np.tile(nominal, (len(starts), 1)),
        )
        found = other.run(data, start=starts, fixed=fixed, errors="none")
        itself = true.run(data[:1], start=nominal, fixed=fixed, errors="none")
        best, _ = _best([found.rows(slice(k, k + 1)) for k in range(len(starts))])
        chi2 = found.chi2[found.valid]
        reason = "" if best.valid[0] else best.reason(0)
        reason = (
            reason if itself.valid[0] else "; ".join(w for w in (reason, "right ordering: " + itself.reason(0)) if w)
        )
        return OrderingPoint(
            factor=factor,
            truth=truth,
            delta_chi2=float(best.chi2[0] - itself.chi2[0]),
            wrong=dict(zip(best.names, best.values[0].tolist(), strict=True)),
            valid=bool(best.valid[0] and itself.valid[0]),
            reason=reason,
            minima=_minima(chi2),
        )

    def curve(
        self,
        factors: Sequence[float],
        *,
        truth: str = "normal",
        without: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[OrderingPoint, ...]:
        """:meth:`asimov` at several exposures."""
        out = []
        for k, factor in enumerate(factors):
            out.append(self.asimov(factor, truth=truth, without=without))
            if progress is not None:
                progress(k + 1, len(factors))
        return tuple(out)

    def toys(
        self,
        factor: float,
        n: int,
        *,
        seed: int,
        truth: str = "normal",
        first: int = 0,
        options: ToyOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> OrderingToys:
        """Δχ² of toys; every one is fitted from every start in both orderings.

        Args:
            factor: Exposure over that of the fit.
            n: How many.
            seed: Of the study.
            truth: The true ordering, at its nominal parameters.
            first: Number of the first toy.
            options: What fluctuates.
            progress: Called with (fits done, fits in all).

        Raises:
            NuebarError: No toys were asked for.
        """
        if n < 1:
            raise NuebarError(f"ordering: expected at least one toy, got {n}")
        right, wrong = self._pair(truth)
        engines = {o: self.many(o, factor) for o in (right, wrong)}
        data = draw(engines[right], range(first, first + n), seed=seed, options=options or ToyOptions())
        best, moved = {}, []
        steps = sum(len(self._start_values(o, factor)) for o in engines)
        done = 0
        for ordering, many in engines.items():
            found = []
            for start in self._start_values(ordering, factor):
                found.append(many.run(data, start=start, errors="none"))
                done += 1
                if progress is not None:
                    progress(done * n, steps * n)
            best[ordering], chosen = _best(found)
            moved.append(int(np.sum((chosen > 0) & (found[0].chi2 - best[ordering].chi2 > SAME))))
        return OrderingToys(factor, truth, best[right], best[wrong], (moved[0], moved[1]))

    def systematics(
        self, factor: float, *, truth: str = "normal", progress: Callable[[int, int], None] | None = None
    ) -> tuple[SystematicCost, ...]:
        """Every group switched off by itself, and switched on by itself.

        Returns:
            "all" first (nothing off, everything on), then each group that the model has, then "none".
        """
        groups = self.groups()
        everything = self.asimov(factor, truth=truth)
        nothing = self.asimov(factor, truth=truth, without=groups)
        out = [SystematicCost("all", everything.delta_chi2, everything.delta_chi2, everything.valid)]
        for k, group in enumerate(groups):
            off = self.asimov(factor, truth=truth, without=(group,))
            on = self.asimov(factor, truth=truth, without=tuple(g for g in groups if g != group))
            out.append(SystematicCost(group, off.delta_chi2, on.delta_chi2, off.valid and on.valid))
            if progress is not None:
                progress(k + 1, len(groups))
        return (*out, SystematicCost("none", nothing.delta_chi2, nothing.delta_chi2, nothing.valid))

    def groups(self) -> tuple[str, ...]:
        """Those of :data:`GROUPS` that the model has."""
        model, free = self.fit.model, set(self.fit.pulled())
        shapes = {SIGNAL_SHAPE: model.signal_shape, BACKGROUND_SHAPE: model.background_shape}
        out = []
        for name, beginnings in GROUPS.items():
            if name in shapes:
                if model.shape_uncertainties and np.any(np.asarray(shapes[name]) > 0):
                    out.append(name)
            elif any(n.startswith(beginnings) for n in free):
                out.append(name)
        return tuple(out)

    # -------------------------------------------------------------- parts

    def _pair(self, truth: str) -> tuple[str, str]:
        if truth not in self.parameters:
            raise NuebarError(f"ordering: expected normal or inverted, got {truth!r}")
        return truth, "inverted" if truth == "normal" else "normal"

    def _at(self, ordering: str, factor: float, without: Sequence[str]) -> SpectrumFit:
        unknown = [g for g in without if g not in GROUPS]
        if unknown:
            raise NuebarError(f"unknown group of systematics {unknown[0]!r}; expected some of {', '.join(GROUPS)}")
        fit = replace(scaled(self.fit, factor), parameters=self.parameters[ordering])
        model = fit.model
        if SIGNAL_SHAPE in without:
            model = eqx.tree_at(lambda m: m.signal_shape, model, 0.0 * model.signal_shape)
        if BACKGROUND_SHAPE in without:
            model = eqx.tree_at(lambda m: m.background_shape, model, 0.0 * model.background_shape)
        return replace(fit, model=model)

    def _fixed(self, without: Sequence[str]) -> tuple[str, ...]:
        beginnings = tuple(b for g in without for b in GROUPS[g])
        return tuple(n for n in self.fit.pulled() if beginnings and n.startswith(beginnings))

    def _start_values(self, ordering: str, factor: float) -> np.ndarray:
        """All parameters at every start, shape ``(starts, parameters)``."""
        fit = self._at(ordering, factor, ())
        p = self.parameters[ordering]
        k = p.names.index("dm2_31_eV2")
        sigma = float(rough_errors(fit)[k])
        offsets = [s * sigma for s in STARTS_sigma]
        if REACH * sigma > self._fringe():
            offsets += [-self._fringe(), self._fringe()]
        x = np.tile([q.value for q in p.values()], (len(offsets), 1))
        x[:, k] += offsets
        many = ManyFits(fit, compact=self._compact, lanes=self.lanes, threads=1)
        inside = (x[:, k] > many.lower[k]) & (x[:, k] < many.upper[k])
        return x[inside]

    def _fringe(self) -> float:
        """Distance of neighbouring minima: where the phase 1267 Δm² L/E turns by π."""
        return float(np.pi * FRINGE_MeV / (PHASE_per_eV2_km_MeV * 52.5))

    def _windows(self, given: Windows, smallest: float) -> Windows:
        """Windows that hold both orderings at the smallest exposure."""
        errors = rough_errors(scaled(self.fit, smallest))
        p = self.fit.parameters
        e21, e31 = (float(errors[p.names.index(n)]) for n in ("dm2_21_eV2", "dm2_31_eV2"))
        d21 = p["dm2_21_eV2"].value
        half = max(REACH * e21, 1e-3 * d21)
        solar = (max(d21 - half, given.solar[0]), min(d21 + half, given.solar[1]))
        reach = max(REACH * e31, 2e-3 * p["dm2_31_eV2"].value)
        reach = reach + self._fringe() if REACH * e31 > self._fringe() else reach
        sizes = [abs(q["dm2_31_eV2"].value) for q in self.parameters.values()]
        # |Δm²32| is smaller in the normal and larger in the inverted ordering.
        low, high = min(sizes) - reach - solar[1], max(sizes) + reach + solar[1]
        return Windows(solar, (max(low, given.atmospheric[0]), min(high, given.atmospheric[1])))


def scaled(fit: SpectrumFit, factor: float) -> SpectrumFit:
    """The fit at another exposure: expected counts of everything, and the counts, times a factor.

    Raises:
        NuebarError: The factor is not above 0.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise NuebarError(f"exposure: expected a factor above 0, got {factor}")
    model = eqx.tree_at(
        lambda m: (m.bin_factor, m.background_counts, m.background_slopes),
        fit.model,
        replace_fn=lambda a: factor * a,
    )
    extra = None if fit.mc_covariance is None else factor**2 * np.asarray(fit.mc_covariance)
    return replace(fit, model=model, counts=factor * np.asarray(fit.counts, float), mc_covariance=extra)


def crossing(exposures: Sequence[float], delta_chi2: Sequence[float], level: float = 9.0) -> float | None:
    """Exposure at which Δχ² reaches a level, between the points by a straight line.

    Args:
        exposures: In any unit, increasing.
        delta_chi2: Δχ² at each.
        level: The one wanted; 9 is 3σ.

    Returns:
        None if it is not reached, or reached before the first point.
    """
    x, y = np.asarray(exposures, float), np.asarray(delta_chi2, float)
    above = np.flatnonzero(y >= level)
    if not above.size or above[0] == 0:
        return None
    k = int(above[0])
    return float(x[k - 1] + (x[k] - x[k - 1]) * (level - y[k - 1]) / (y[k] - y[k - 1]))


def _best(found: Sequence[ManyResults]) -> tuple[ManyResults, np.ndarray]:
    """Of each data set the lowest minimum of several fits, valid ones first; and from which fit it is."""
    chi2 = np.array([f.chi2 for f in found])
    order = np.where(np.array([f.valid for f in found]), chi2, np.inf)
    hopeless = ~np.isfinite(order).any(axis=0)
    order[:, hopeless] = np.where(np.isnan(chi2), np.inf, chi2)[:, hopeless]
    chosen = order.argmin(axis=0)
    return picked(found, chosen), chosen


def _minima(chi2: np.ndarray) -> int:
    values = np.sort(chi2)
    return int(np.sum(np.diff(values) > SAME)) + 1 if values.size else 0

"""Expected precision of the geoneutrino rates, and what freeing them costs the oscillation parameters.

One matrix tells everything: the second derivatives of χ² at the expected counts in all free parameters, the rates of
uranium and thorium among them without priors. A constraint adds a row to it, a fixed ratio adds two of its columns, a
known rate takes them away; each time the inverse has the errors. This is the Gaussian approximation of a fit with
Hesse errors, which a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits, rough_errors
from nuebar.fit.ordering import scaled
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.parameters import OSCILLATION
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.geoneutrinos import GEONEUTRINOS, TH, U, tnu_per_event_per_day
from nuebar.predict.harmonic import HarmonicPredictor, Windows

__all__ = ["GeoneutrinoPoint", "GeoneutrinoStudy"]

FREE = (f"bkg_{U}", f"bkg_{TH}")
NARROW = 1e-3  # half width of the windows of the splittings: derivatives at one point need no more

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GeoneutrinoPoint:
    """Expected standard deviations at one exposure; rates and their ratio relative to their true values.

    Attributes:
        factor: Exposure over that of the fit.
        uranium: Rate of uranium, both rates free.
        thorium: Rate of thorium, likewise.
        correlation: Of these two.
        total: Of their sum, both free.
        ratio: Of thorium over uranium, both free.
        total_at_fixed_ratio: Of the sum with the ratio known.
        total_at_ratio_prior: Of the sum with a prior on the ratio; None without one.
        oscillation: Errors of the oscillation parameters: "known" (both rates fixed), "prior" (ratio fixed, the sum
            constrained as in the experiment), "fixed ratio" (the sum free) and "free" (both).
    """

    factor: float
    uranium: float
    thorium: float
    correlation: float
    total: float
    ratio: float
    total_at_fixed_ratio: float
    total_at_ratio_prior: float | None
    oscillation: Mapping[str, Mapping[str, float]]


class GeoneutrinoStudy:
    """Rates of uranium and thorium from one model, compiled once for all exposures.

    Args:
        fit: Of an experiment of :func:`nuebar.predict.geoneutrinos.split_geoneutrinos`; both rates are free.
        experiment: That experiment, for rates and TNU.
        prior: Relative error of the sum where it is constrained (30 % in the published sets).
        ratio_prior: Relative error of the ratio Th/U, or None.

    Raises:
        NuebarError: The model has no two free rates.
    """

    def __init__(
        self,
        fit: SpectrumFit,
        experiment: Experiment,
        *,
        prior: float = 0.3,
        ratio_prior: float | None = None,
    ) -> None:
        missing = [n for n in FREE if n not in fit.parameters or fit.parameters[n].fixed]
        if missing or any(fit.parameters[n].sigma is not None for n in FREE):
            raise NuebarError(
                f"geoneutrinos: expected the free rates {' and '.join(FREE)} without priors; split {GEONEUTRINOS} first"
            )
        for name, width in (("prior", prior), ("ratio prior", ratio_prior)):
            if width is not None and not (np.isfinite(width) and width > 0):
                raise NuebarError(f"geoneutrinos: expected a {name} above 0, got {width}")
        self.fit, self.prior, self.ratio_prior = fit, prior, ratio_prior
        rates = {b.name: b.rate_per_day for b in experiment.backgrounds}
        tnu = tnu_per_event_per_day(experiment)
        self.rates_tnu = {U: rates[U] * tnu, TH: rates[TH] * tnu}
        self._compact = self._tables()

    def curve(self, factors: Sequence[float], *, progress: Progress | None = None) -> tuple[GeoneutrinoPoint, ...]:
        """:meth:`point` at several exposures."""
        out = []
        for k, factor in enumerate(factors):
            out.append(self.point(factor))
            if progress is not None:
                progress(k + 1, len(factors))
        return tuple(out)

    def point(self, factor: float = 1.0) -> GeoneutrinoPoint:
        """All errors at one exposure.

        Args:
            factor: Exposure over that of the fit.

        Raises:
            NuebarError: The spectrum does not determine the parameters.
        """
        names, information = self.information(factor)
        u, th = (names.index(n) for n in FREE)
        share = np.array([self.rates_tnu[U], self.rates_tnu[TH]]) / sum(self.rates_tnu.values())
        free = _inverse(information)
        pair = free[np.ix_([u, th], [u, th])]
        step = np.array([-1.0, 1.0])
        tied = _tied(information, u, th)  # the sum is its last parameter
        constrained = tied.copy()
        constrained[-1, -1] += self.prior**-2
        known = np.delete(np.delete(information, [u, th], axis=0), [u, th], axis=1)
        with_ratio = None
        if self.ratio_prior is not None:
            more = information.copy()
            more[np.ix_([u, th], [u, th])] += np.outer(step, step) / self.ratio_prior**2
            with_ratio = _sigma(_inverse(more)[np.ix_([u, th], [u, th])], share)
        rest = [n for n in names if n not in FREE]
        inverses = {
            "known": (rest, _inverse(known)),
            "prior": ([*rest, GEONEUTRINOS], _inverse(constrained)),
            "fixed ratio": ([*rest, GEONEUTRINOS], _inverse(tied)),
            "free": (names, free),
        }
        return GeoneutrinoPoint(
            factor=factor,
            uranium=float(np.sqrt(pair[0, 0])),
            thorium=float(np.sqrt(pair[1, 1])),
            correlation=float(pair[0, 1] / np.sqrt(pair[0, 0] * pair[1, 1])),
            total=_sigma(pair, share),
            ratio=_sigma(pair, step),
            total_at_fixed_ratio=float(np.sqrt(inverses["fixed ratio"][1][-1, -1])),
            total_at_ratio_prior=with_ratio,
            oscillation={
                case: {n: float(np.sqrt(c[order.index(n), order.index(n)])) for n in OSCILLATION if n in order}
                for case, (order, c) in inverses.items()
            },
        )

    def information(self, factor: float = 1.0) -> tuple[list[str], np.ndarray]:
        """Half of the second derivatives of χ² at the expected counts, in all free parameters.

        Returns:
            Their names, and the matrix.
        """
        many = ManyFits(scaled(self.fit, factor), compact=self._compact, lanes=1, threads=1)
        p = self.fit.parameters
        x = np.array([q.value for q in p.values()])
        data = DataSets(np.zeros(1, int), many._expected(x)[None], many.centres[None], x[None])
        free = np.array([k for k, n in enumerate(p) if not p[n].fixed])
        return [p.names[k] for k in free], many.hessians(data, x[None], free)[0]

    def _tables(self) -> CompactHarmonic | None:
        """The compact predictor in narrow windows around the truth; None where the predictor is another."""
        predictor, p = self.fit.model.predictor, self.fit.parameters
        if not isinstance(predictor, HarmonicPredictor):
            return None
        d21, d31 = p["dm2_21_eV2"].value, abs(p["dm2_31_eV2"].value)
        errors = dict(zip(p.names, rough_errors(self.fit), strict=True))
        half21 = max(NARROW * d21, errors["dm2_21_eV2"])
        half31 = max(NARROW * d31, errors["dm2_31_eV2"])
        solar = (d21 - half21, d21 + half21)
        low, high = d31 - half31 - solar[1], d31 + half31 + solar[1]
        given = predictor.windows
        windows = Windows(
            (max(solar[0], given.solar[0]), min(solar[1], given.solar[1])),
            (max(low, given.atmospheric[0]), min(high, given.atmospheric[1])),
        )
        cores = any(n.startswith("core_") for n in p)
        return CompactHarmonic.of(predictor, windows=windows, cores=cores)


def _sigma(covariance: np.ndarray, direction: np.ndarray) -> float:
    return float(np.sqrt(direction @ covariance @ direction))


def _tied(information: np.ndarray, first: int, second: int) -> np.ndarray:
    """Two parameters that move together as one, which becomes the last."""
    n = len(information)
    rest = [k for k in range(n) if k not in (first, second)]
    columns = np.zeros((n, n - 1))
    columns[rest, np.arange(n - 2)] = 1.0
    columns[[first, second], n - 2] = 1.0
    return np.asarray(columns.T @ information @ columns)


def _inverse(information: np.ndarray) -> np.ndarray:
    """The covariance; scaled first, since parameters differ by many orders of magnitude."""
    diagonal = np.diag(information)
    if not (np.all(np.isfinite(information)) and np.all(diagonal > 0)):
        raise NuebarError("geoneutrinos: the spectrum does not determine every free parameter; fix some")
    unit = 1.0 / np.sqrt(diagonal)
    scaled_matrix = information * np.outer(unit, unit)
    if np.linalg.eigvalsh(scaled_matrix)[0] < 1e-10:
        raise NuebarError("geoneutrinos: the spectrum does not determine every free parameter; fix some")
    return np.asarray(np.linalg.inv(scaled_matrix) * np.outer(unit, unit))

"""Expected exclusion of a sterile state in (sin²2θ14, Δm²41).

Δχ² of a point is the smallest χ² with θ14 and Δm²41 held there, over all other parameters, less the smallest one
without a sterile state. On the expected counts of three flavours the second is zero, and Δχ² tells which points the
median data set would exclude: by Wilks' theorem with two degrees of freedom where Δχ² exceeds 5.99 (95 %). Where θ14
goes to zero Δm²41 has no meaning, so that the theorem is not exact; toys of :meth:`SterileStudy.spread` show how far
limits of single data sets lie from the median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, ManyFits
from nuebar.fit.ordering import scaled
from nuebar.fit.profile import delta_chi2_level
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions, draw
from nuebar.predict.sterile import DM2_41_eV2

__all__ = ["LimitSpread", "SterileMap", "SterileStudy", "sin2_th14"]

MIXING, SPLITTING = "sin2_th14", "dm2_41_eV2"
CEILING = 100.0  # of Δχ²: larger mixings are not fitted any more
LANES = 8  # a data set carries all nodes of the energy grid for every core

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SterileMap:
    """Δχ² over a grid.

    Attributes:
        factor: Exposure over that of the fit.
        sin2_2th14: Increasing, shape ``(n,)``.
        dm2_41_eV2: Increasing, shape ``(m,)``.
        delta_chi2: Shape ``(m, n)``; infinite beyond the first mixing where it exceeds 100, which is not fitted.
        valid: Which fits converged, on a limit of a parameter or not, shape ``(m, n)``.
        limited: Which ended on a limit, such as sin²θ13 = 0 where the sterile state takes its place.
    """

    factor: float
    sin2_2th14: np.ndarray
    dm2_41_eV2: np.ndarray
    delta_chi2: np.ndarray
    valid: np.ndarray
    limited: np.ndarray

    def limit(self, cl: float = 0.95, dof: int = 2) -> np.ndarray:
        """The largest sin²2θ14 that is not excluded, for every Δm²41, shape ``(m,)``.

        Between the points log Δχ² is linear in log sin²2θ14. The limit is where Δχ² passes the level for the last
        time; NaN where that is not inside the grid, or not :meth:`backed`.
        """
        level = delta_chi2_level(cl, dof)
        out = np.full(self.dm2_41_eV2.size, np.nan)
        x = np.log(self.sin2_2th14)
        for k, (row, good) in enumerate(zip(self.delta_chi2, self.backed(cl, dof), strict=True)):
            below = np.flatnonzero(row < level)
            if good and below.size and below[-1] + 1 < row.size:
                i = int(below[-1])
                y0, y1 = np.log(np.maximum(row[i : i + 2], 1e-12))
                out[k] = np.exp(x[i] + (x[i + 1] - x[i]) * (np.log(level) - y0) / (y1 - y0))
        return out

    def backed(self, cl: float = 0.95, dof: int = 2) -> np.ndarray:
        """For which Δm²41 every fit up to the first one beyond the limit converged, shape ``(m,)``.

        Far beyond it, where the state has taken the place of θ13 and Δm²31 means nothing, some do not.
        """
        level = delta_chi2_level(cl, dof)
        last = [int(np.max(np.flatnonzero(row < level), initial=-1)) for row in self.delta_chi2]
        return np.array([bool(good[: i + 2].all()) for i, good in zip(last, self.valid, strict=True)])


@dataclass(frozen=True, eq=False)
class LimitSpread:
    """Limits of single data sets at some splittings, each splitting by itself.

    Attributes:
        dm2_41_eV2: Shape ``(m,)``.
        limits: Largest sin²2θ14 not excluded, of one degree of freedom, shape ``(m, toys)``; NaN outside the grid.
        above: Toys that exclude three flavours at that splitting, shape ``(m, toys)``.
        valid: Toys whose fits converged as far as the limit needs them, shape ``(m, toys)``.
    """

    dm2_41_eV2: np.ndarray
    limits: np.ndarray
    above: np.ndarray
    valid: np.ndarray

    @property
    def excluded_zero(self) -> np.ndarray:
        """How many of the valid toys exclude three flavours, shape ``(m,)``."""
        return np.asarray((self.above & self.valid).sum(axis=1))

    def quantiles(self, levels: Sequence[float] = (0.025, 0.16, 0.5, 0.84, 0.975)) -> np.ndarray:
        """Quantiles of the limits, shape ``(levels, m)``."""
        return np.array(
            [[np.nan if np.isnan(row).all() else np.nanquantile(row, q) for row in self.limits] for q in levels]
        )


class SterileStudy:
    """One model with a sterile state, compiled once for all points and exposures.

    Args:
        fit: Of a model with a sterile state and no mixing; its exposure is the unit of all factors.
        lanes: As for :class:`nuebar.fit.many.ManyFits`.
        threads: Likewise.

    Raises:
        NuebarError: The model has no sterile state, or its true mixing is not zero.
    """

    def __init__(self, fit: SpectrumFit, *, lanes: int = LANES, threads: int | None = None) -> None:
        if MIXING not in fit.parameters:
            raise NuebarError(
                "sterile: expected a model with a sterile state, got one without; build it with sterile=True or add "
                f"{MIXING} and {SPLITTING} to the oscillation table"
            )
        if fit.parameters[MIXING].value != 0.0:
            raise NuebarError(
                f"sterile: expected {MIXING} = 0 as the truth of an exclusion, got {fit.parameters[MIXING].value:g}"
            )
        self.fit = fit.fixing([MIXING, SPLITTING])
        self.lanes, self.threads = lanes, threads

    def many(self, factor: float = 1.0) -> ManyFits:
        """The fits at one exposure."""
        return ManyFits(scaled(self.fit, factor), lanes=self.lanes, threads=self.threads)

    def map(
        self,
        sin2_2th14: Sequence[float] | np.ndarray,
        dm2_41_eV2: Sequence[float] | np.ndarray,
        *,
        factor: float = 1.0,
        progress: Progress | None = None,
    ) -> SterileMap:
        """Δχ² of expected three-flavour counts at every point of a grid.

        Args:
            sin2_2th14: Increasing, above 0, at most 1.
            dm2_41_eV2: Increasing, inside the limits of the predictor.
            factor: Exposure over that of the fit.
            progress: Called with (mixings done, mixings in all).

        Raises:
            NuebarError: An axis is not what it should be.
        """
        x, y = _axes(sin2_2th14, dm2_41_eV2)
        many = self.many(factor)
        nominal = self._nominal()
        data = self._copies(many, many._expected(nominal), y.size)
        start = np.tile(nominal, (y.size, 1))
        start[:, self._index(SPLITTING)] = y
        chi2, valid, limited = self._rows(many, data, start, x, np.zeros(y.size), progress)
        return SterileMap(factor, x, y, chi2, valid, limited)

    def spread(
        self,
        sin2_2th14: Sequence[float] | np.ndarray,
        dm2_41_eV2: Sequence[float] | np.ndarray,
        n: int,
        *,
        seed: int,
        first: int = 0,
        cl: float = 0.95,
        factor: float = 1.0,
        options: ToyOptions | None = None,
        progress: Progress | None = None,
    ) -> LimitSpread:
        """Limits of toys of three flavours, at each splitting by itself (one degree of freedom).

        Args:
            sin2_2th14: As for :meth:`map`; three flavours are added in front.
            dm2_41_eV2: Splittings.
            n: How many toys.
            seed: Of the study.
            first: Number of the first toy.
            cl: Confidence level.
            factor: Exposure over that of the fit.
            options: What fluctuates.
            progress: Called with (splittings done, splittings in all).

        Raises:
            NuebarError: There is no toy, or an axis is not what it should be.
        """
        x, y = _axes(sin2_2th14, dm2_41_eV2)
        if n < 1:
            raise NuebarError(f"sterile: expected at least one toy, got {n}")
        many, level = self.many(factor), delta_chi2_level(cl, 1)
        toys = draw(many, range(first, first + n), seed=seed, options=options or ToyOptions())
        null = many.run(toys, start=self._nominal(), errors="none")
        limits, good, above = np.full((y.size, n), np.nan), np.zeros((y.size, n), bool), np.zeros((y.size, n), bool)
        for k, splitting in enumerate(y):
            start = null.values.copy()
            start[:, self._index(SPLITTING)] = splitting
            chi2, valid, _ = self._rows(many, toys, start, x, null.chi2, None)
            lowest = np.minimum(chi2.min(axis=1), null.chi2)
            each = SterileMap(factor, x, np.full(n, splitting), chi2 - lowest[:, None], valid, valid)
            good[k] = each.backed(cl, 1) & (null.status <= 1)
            above[k] = null.chi2 - lowest > level
            limits[k] = np.where(good[k], each.limit(cl, 1), np.nan)
            if progress is not None:
                progress(k + 1, y.size)
        return LimitSpread(y, limits, above, good)

    # -------------------------------------------------------------- parts

    def _nominal(self) -> np.ndarray:
        return np.array([p.value for p in self.fit.parameters.values()])

    def _copies(self, many: ManyFits, counts: np.ndarray, n: int) -> DataSets:
        nominal = self._nominal()
        return DataSets(np.arange(n), np.tile(counts, (n, 1)), np.tile(many.centres, (n, 1)), np.tile(nominal, (n, 1)))

    def _index(self, name: str) -> int:
        return self.fit.parameters.names.index(name)

    def _rows(
        self,
        many: ManyFits,
        data: DataSets,
        start: np.ndarray,
        sin2_2th14: np.ndarray,
        zero: np.ndarray,
        progress: Progress | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """χ² of every data set (in rows) at every mixing, from small to large: each starts where the last one ended.

        A row ends where χ² exceeds ``zero`` by :data:`CEILING`; the rest of it is infinite.
        """
        shape = (len(data), sin2_2th14.size)
        chi2, valid, limited = np.full(shape, np.inf), np.ones(shape, bool), np.zeros(shape, bool)
        start, rows = start.copy(), np.arange(len(data))
        for j, mixing in enumerate(sin2_th14(sin2_2th14)):
            start[:, self._index(MIXING)] = mixing
            found = many.run(data[rows], start=start[rows], errors="none")
            chi2[rows, j], valid[rows, j], limited[rows, j] = found.chi2, found.status <= 1, found.status == 1
            start[rows[valid[rows, j]]] = found.values[valid[rows, j]]
            rows = rows[~(found.chi2 > zero[rows] + CEILING)]
            if progress is not None:
                progress(j + 1, sin2_2th14.size)
            if not rows.size:
                break
        return chi2, valid, limited


def sin2_th14(sin2_2th14: np.ndarray | float) -> np.ndarray:
    """sin²θ14 below one half, from sin²2θ14."""
    x = np.asarray(sin2_2th14, float)
    return 0.5 * x / (1.0 + np.sqrt(np.maximum(1.0 - x, 0.0)))  # no difference of nearly equal numbers


def _axes(sin2_2th14: Sequence[float] | np.ndarray, dm2_41_eV2: Sequence[float] | np.ndarray) -> tuple[np.ndarray, ...]:
    axes = []
    for name, values, low, high in (
        ("sin2_2th14", sin2_2th14, 0.0, 1.0),
        (SPLITTING, dm2_41_eV2, *DM2_41_eV2),
    ):
        x = np.asarray(values, float)
        good = x.ndim == 1 and x.size and np.all(np.isfinite(x)) and np.all(np.diff(x) > 0)
        if not good or x[0] < low or x[0] <= 0 or x[-1] > high * (1.0 + 1e-12):
            raise NuebarError(f"{name}: expected increasing numbers above {low:g}, at most {high:g}, got {values}")
        axes.append(np.minimum(x, high))
    return tuple(axes)

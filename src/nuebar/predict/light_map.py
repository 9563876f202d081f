"""What kB and fC do to reconstructed energies, learned from stored cascades.

At another response point every event moves from its reference energy e⁰ to e_i(θ). Events of one e⁰ move almost
together, to g(e⁰; θ), since positrons of one energy are quenched alike; what is left is a narrow spread from their
gammas. Because E_rec is anchored, both depend on kB and on the ratio fC / light yield only. So the map g and the
central moments of the spread are smooth functions of three variables: penalised cubic splines in √e⁰ (P. Eilers and
B. Marx, Statist. Sci. 11, 89 (1996)) times Chebyshev polynomials in kB and in the ratio, by least squares over all
events.

Within the spread, events that lost more light to quenching have the higher neutrino energy, so oscillations do not see
the spread alone. It has two dimensions, nearly: what an event has in excess of the map at one strongly different kB and
at one strongly different ratio, times a lever each, is what it has anywhere. Each event's excesses are kept for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import solveh_banded

from nuebar.kernels import njit
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.predict.cascades import Cascades
from nuebar.predict.response import ResponsePoint
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.quench import Response, light_table

__all__ = ["LightMap", "RatioBox", "learn_light_map", "reference_energies"]

KB_NODES, RATIO_NODES = 7, 3  # what is left out is below 1e-6 MeV
KNOT_STEP = 0.01  # in √MeV: 20 keV at 1 MeV
PENALTY = 1e-3  # of the second differences of the spline, against a mean weight of one event a knot
BLOCKS = 4
WIDER = 1.02  # than the box is what the polynomials cover: their derivatives are regular inside only
LEAST_WEIGHT = 3.0  # some ten events under a spline
LEAST_MeV2 = 1e-9  # no spread is narrower than 0.03 keV


@dataclass(frozen=True)
class RatioBox:
    """Ranges of kB and of fC over light yield in which a map is valid.

    Attributes:
        kB_g_cm2_GeV: (low, high).
        ratio_MeV: fC / light yield, (low, high).
    """

    kB_g_cm2_GeV: tuple[float, float]
    ratio_MeV: tuple[float, float]

    @classmethod
    def of(cls, box: Mapping[str, tuple[float, float]]) -> RatioBox:
        """From the ranges of kB, fC and light yield."""
        (f_low, f_high), (y_low, y_high) = box["fC"], box["light_yield_per_MeV"]
        return cls(box["kB_g_cm2_GeV"], (f_low / y_high, f_high / y_low))

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Chebyshev nodes in both."""
        return _nodes(*self.kB_g_cm2_GeV, KB_NODES), _nodes(*self.ratio_MeV, RATIO_NODES)

    def windows(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Middle and half width of what the polynomials in both cover."""
        one, two = ((0.5 * (a + b), 0.5 * WIDER * (b - a)) for a, b in (self.kB_g_cm2_GeV, self.ratio_MeV))
        return one, two


@dataclass(frozen=True, eq=False)
class LightMap:
    """The map and the moments of the spread around it at reference energies.

    Attributes:
        box: Where it is valid.
        energy: g(e⁰) at (kB, ratio), coefficients of T_m(kB) T_n(ratio), shape ``(energies, KB, RATIO)``, MeV.
        moments: Central moments 2, 3 and 4 of the spread, shape ``(3, energies, KB, RATIO)``, MeV^k.
        levers: How far an event moves beyond the map for each MeV of each excess, shape ``(2, energies, KB, RATIO)``.
        inverse: Means of 1/c, 1/c², 1/c³ and variance of 1/c of the light correction, shape ``(4, energies)``.
        anchor_quenched: Quenched energy of the n-H capture against kB, Chebyshev coefficients, MeV.
        anchor_cherenkov: Cherenkov photons of the n-H capture at fC = 1.
    """

    box: RatioBox
    energy: np.ndarray
    moments: np.ndarray
    levers: np.ndarray
    inverse: np.ndarray
    anchor_quenched: np.ndarray
    anchor_cherenkov: float


def reference_energies(cascades: Cascades, point: ResponsePoint) -> np.ndarray:
    """Mean reconstructed energy of every event at a response point, MeV, shape ``(events,)``."""
    model = DetectorModel.build(cascades.experiment, point.light)
    scale = model.electronics.pe_per_photon / model.pe_per_MeV
    return cascades.prompt.photons(model.light) * (scale * cascades.seen / cascades.corrected)


def learn_light_map(
    cascades: Cascades, reference_MeV: np.ndarray, at_MeV: np.ndarray, box: RatioBox
) -> tuple[LightMap, np.ndarray]:
    """Regress the energies of all events at Chebyshev nodes of the response on their reference energies.

    Args:
        cascades: Stored events.
        reference_MeV: Their reference energies, shape ``(events,)``.
        at_MeV: Where the map is wanted, shape ``(energies,)``.
        box: Ranges of the response.

    Returns:
        The map, and the excesses of every event in MeV, shape ``(2, events)``.
    """
    kBs, ratios = box.nodes()
    model = DetectorModel.build(cascades.experiment, Response(float(kBs[0]), 0.0, 1.0))
    quenched, cherenkov = _tables(model, kBs)
    anchor_q, anchor_c = _anchors(cascades, kBs)
    spline = _Spline(float(at_MeV[0]), float(at_MeV[-1]))
    cuts = np.linspace(0, len(cascades), BLOCKS + 1).astype(int)
    place = cascades.seen / cascades.corrected
    # Lowest kB and highest ratio (nodes fall), each with the other in the middle.
    far = np.array([(kBs.size - 1) * ratios.size + ratios.size // 2, kBs.size // 2 * ratios.size])
    excess = np.empty((2, len(cascades)))

    corrections = np.stack([cascades.corrected**-power for power in (1, 2, 3)], axis=1)
    usual = corrections.mean(axis=0)

    def shifts(part: slice) -> np.ndarray:
        """Reconstructed less reference energies at the nodes, shape ``(events, KB * RATIO)``."""
        pool = cascades.prompt.part(part.start, part.stop)
        c = pool.photons(cherenkov)
        out = np.empty((len(pool), kBs.size, ratios.size))
        for k in range(kBs.size):
            q = pool.photons(quenched[k])
            for r, x in enumerate(ratios):
                norm = N_H_GAMMA_MeV / (anchor_q[k] + x * anchor_c)
                out[:, k, r] = (q + x * c) * place[part] * norm - reference_MeV[part]
        return out.reshape(len(pool), -1)

    def run(block: int, mean: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        # Small pieces: the energies of all nodes at once fit into a core's memory.
        gram = np.zeros((4, spline.size))
        sums = np.zeros((spline.size, kBs.size * ratios.size * (1 if mean is None else 5) + (3 if mean is None else 0)))
        for first in range(cuts[block], cuts[block + 1], 50_000):
            part = slice(first, min(first + 50_000, cuts[block + 1]))
            values, e0 = shifts(part), reference_MeV[part]
            if mean is None:
                columns = np.concatenate([values, corrections[part] - usual], axis=1)
                _regress(e0, columns, spline.low, spline.step, gram, sums)
            else:
                _regress_powers(e0, values, mean, far, spline.low, spline.step, sums, excess[:, part])
        return gram, sums

    with ThreadPoolExecutor(BLOCKS) as pool:
        first = list(pool.map(lambda k: run(k, None), range(BLOCKS)))
        gram = np.sum([g for g, _ in first], axis=0)
        fitted = spline.solve(gram, np.sum([s for _, s in first], axis=0))
        mean = np.ascontiguousarray(fitted[:, :-3])
        second = np.sum([s for _, s in pool.map(lambda k: run(k, mean), range(BLOCKS))], axis=0)
    shape = (kBs.size, ratios.size)
    # Beyond the last energies that have events, what they do is continued.
    held = np.clip(at_MeV, *spline.supported(gram))
    matrix = spline.at(held)
    powers = (matrix @ spline.solve(gram, second)).reshape(at_MeV.size, -1, 5)
    products = powers[..., 3:]
    among = products[:, far] + LEAST_MeV2 * np.eye(2)
    levers = np.moveaxis(np.linalg.solve(among, np.swapaxes(products, 1, 2)), 1, 0).reshape(2, -1, *shape)
    powers = powers.reshape(at_MeV.size, *shape, 5)
    inverse = (matrix @ fitted[:, -3:] + usual).T
    energy = _chebyshev((matrix @ mean).reshape(at_MeV.size, *shape)) * (at_MeV / held)[:, None, None]
    energy[:, 0, 0] += at_MeV
    light = LightMap(
        box,
        energy,
        np.stack([_chebyshev(powers[..., n]) for n in range(3)]),
        _chebyshev(levers),
        np.concatenate([inverse, [np.maximum(inverse[1] - inverse[0] ** 2, 0.0)]]),
        _chebyshev_1d(anchor_q),
        anchor_c,
    )
    return light, excess


def _tables(model: DetectorModel, kBs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quenched energy of every code at each kB, and Cherenkov photons at fC = 1."""
    quenched = np.array([light_table(Response(float(k), 0.0, 1.0), model.scintillation) for k in kBs])
    both = light_table(Response(float(kBs[0]), 1.0, 1.0), model.scintillation)
    return quenched, both - quenched[0]


def _anchors(cascades: Cascades, kBs: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean quenched energy and Cherenkov photons (fC = 1) of an n-H capture at the centre."""

    def photons(kB: float, fC: float) -> float:
        model = DetectorModel.build(cascades.experiment, Response(kB, fC, 1.0))
        return model.pe_per_MeV * N_H_GAMMA_MeV / model.electronics.pe_per_photon

    quenched = np.array([photons(float(k), 0.0) for k in kBs])
    return quenched, photons(float(kBs[0]), 1.0) - quenched[0]


# ---------------------------------------------------------------- bases


def _nodes(low: float, high: float, n: int) -> np.ndarray:
    return 0.5 * (low + high) + 0.5 * WIDER * (high - low) * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def _to_coefficients(n: int) -> np.ndarray:
    """From values at Chebyshev nodes to coefficients."""
    t = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(t, n - 1))


def _chebyshev(values: np.ndarray) -> np.ndarray:
    """Coefficients of T_m T_n from values at the nodes of the last two axes."""
    k, r = values.shape[-2:]
    return np.einsum("mk,...kr,nr->...mn", _to_coefficients(k), values, _to_coefficients(r))


def _chebyshev_1d(values: np.ndarray) -> np.ndarray:
    return _to_coefficients(values.size) @ values


class _Spline:
    """Cubic splines on even knots in √e."""

    def __init__(self, low_MeV: float, high_MeV: float) -> None:
        low, high = np.sqrt(low_MeV), np.sqrt(high_MeV)
        cells = int(np.ceil((high - low) / KNOT_STEP))
        self.low, self.step, self.size = float(low), float((high - low) / cells), cells + 3

    def at(self, e_MeV: np.ndarray) -> np.ndarray:
        """Values of the splines, shape ``(energies, size)``."""
        knots = self.low + self.step * np.arange(-3, self.size + 1)
        x = np.clip(np.sqrt(e_MeV), self.low, self.low + (self.size - 3) * self.step * (1 - 1e-12))
        return BSpline.design_matrix(x, knots, 3).toarray()

    def supported(self, gram: np.ndarray) -> tuple[float, float]:
        """Energies between which splines rest on events."""
        well = np.flatnonzero(gram[0] > LEAST_WEIGHT)
        knots = self.low + self.step * (np.array([well[0], well[-1]]) - 1)  # where a spline is largest
        return float(knots[0] ** 2), float(knots[1] ** 2)

    def solve(self, gram: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Penalised least squares; ``gram`` holds diagonals 0 to 3 of the normal equations."""
        n = self.size
        d = np.diff(np.eye(n), 2, axis=0)
        penalty = PENALTY * d.T @ d
        bands = np.zeros((4, n))
        for k in range(4):
            bands[k, : n - k] = gram[k, : n - k] + np.diag(penalty, -k)
        # Where there are no events at all, nothing is moved: the penalty alone leaves straight lines undetermined.
        bands[0] += 1e-9 * gram[0].max()
        return solveh_banded(bands, right, lower=True)


@njit
def _cubic(f: float, w: np.ndarray) -> None:
    """The four cubic B-splines at a fraction of a knot interval."""
    g = 1.0 - f
    w[0] = g * g * g / 6.0
    w[1] = (3.0 * f * f * (f - 2.0) + 4.0) / 6.0
    w[2] = (3.0 * g * g * (g - 2.0) + 4.0) / 6.0
    w[3] = f * f * f / 6.0


@njit
def _regress(e0: np.ndarray, columns: np.ndarray, low: float, step: float, gram: np.ndarray, sums: np.ndarray) -> None:
    """Add events to the normal equations of the splines."""
    w = np.empty(4)
    cells = sums.shape[0] - 3
    for i in range(e0.size):
        u = (np.sqrt(e0[i]) - low) / step
        if u < 0.0 or u >= cells:
            continue
        k = int(u)
        _cubic(u - k, w)
        for a in range(4):
            for b in range(a, 4):
                gram[b - a, k + a] += w[a] * w[b]
            for c in range(columns.shape[1]):
                sums[k + a, c] += w[a] * columns[i, c]


@njit
def _regress_powers(
    e0: np.ndarray,
    values: np.ndarray,
    mean: np.ndarray,
    far: np.ndarray,
    low: float,
    step: float,
    sums: np.ndarray,
    excess: np.ndarray,
) -> None:
    """The same for powers 2 to 4 of the distance from the mean, and its products with those at columns ``far``."""
    w = np.empty(4)
    cells = sums.shape[0] - 3
    for i in range(e0.size):
        u = (np.sqrt(e0[i]) - low) / step
        excess[0, i] = excess[1, i] = 0.0
        if u < 0.0 or u >= cells:
            continue
        k = int(u)
        _cubic(u - k, w)
        for x in range(2):
            v = values[i, far[x]]
            for a in range(4):
                v -= w[a] * mean[k + a, far[x]]
            excess[x, i] = v
        for c in range(values.shape[1]):
            g = w[0] * mean[k, c] + w[1] * mean[k + 1, c] + w[2] * mean[k + 2, c] + w[3] * mean[k + 3, c]
            d = values[i, c] - g
            d2 = d * d
            d3, d4 = d2 * d, d2 * d2
            for a in range(4):
                sums[k + a, 5 * c] += w[a] * d2
                sums[k + a, 5 * c + 1] += w[a] * d3
                sums[k + a, 5 * c + 2] += w[a] * d4
                sums[k + a, 5 * c + 3] += w[a] * d * excess[0, i]
                sums[k + a, 5 * c + 4] += w[a] * d * excess[1, i]

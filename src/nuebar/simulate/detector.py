"""One detector at one parameter point: everything that turns deposits into reconstructed events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nuebar.config import Experiment
from nuebar.config_detector import Detector
from nuebar.errors import NuebarError
from nuebar.io.files import read_text_table
from nuebar.kernels import njit
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate.gammas import ElectronTables, PhotonTables, electron_tables, follow_gamma, photon_tables
from nuebar.simulate.light import Electronics, reconstruct, require_electronics
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.quench import Response, Scintillation, light_table
from nuebar.simulate.random import derive_key, event_counter
from nuebar.simulate.transport import Layers, layers
from nuebar.simulate.uniformity import UniformityMap, flat_map, uniformity_map

__all__ = ["DetectorModel", "gamma_cascades", "nominal_response"]

_ANCHOR_CASCADES = 200_000  # leaves 1.3e-5 of the scale
_ANCHOR_SEED = 2223


@dataclass(frozen=True, eq=False)
class DetectorModel:
    """A detector with its light at one (kB, fC, light yield).

    Attributes:
        detector: The numbers of the experiment's file.
        scintillation: Definitions of the light.
        response: The parameter point.
        light: Photons of every deposit code, shape ``(65536,)``.
        electronics: Photo-electrons per photon, spread of the charge, dark counts.
        uniformity: Light against place.
        spheres: Layers for photons.
        electrons: Bremsstrahlung and annihilation of the scintillator.
        photons: What photons do in the scintillator alone.
        pe_per_MeV: The anchor: mean charge of an n-H capture at the centre, over 2.2233 MeV.
    """

    detector: Detector
    scintillation: Scintillation
    response: Response
    light: np.ndarray
    electronics: Electronics
    uniformity: UniformityMap
    spheres: Layers
    electrons: ElectronTables
    photons: PhotonTables
    pe_per_MeV: float

    @classmethod
    def build(cls, experiment: Experiment, response: Response | None = None) -> DetectorModel:
        """The detector of an experiment.

        Args:
            experiment: With a ``[detector]`` table.
            response: kB, fC and light yield; those of the experiment's ``[response]`` by default.

        Raises:
            NuebarError: There is no such table, or a material or map is missing.
        """
        d = experiment.detector
        if d is None:
            where = experiment.source or experiment.name
            raise NuebarError(f"{where}: expected a table [detector] to simulate with, found none; see juno.toml")
        response = response or nominal_response(experiment)
        scintillation = Scintillation(
            d.material,
            d.refractive_index,
            experiment.response.cherenkov_photons_per_cm,
            d.quenching,
            d.proton_kB_ratio,
            d.alpha_kB_ratio,
        )
        table = light_table(response, scintillation)
        electronics = require_electronics(Electronics(d.pe_per_photon, d.charge_sigma, d.dark_pe, d.constant))
        anchor = _anchor_deposits(d.material, d.electrons_per_gram_mol) @ table * d.pe_per_photon / N_H_GAMMA_MeV
        return cls(
            d,
            scintillation,
            response,
            table,
            electronics,
            _uniformity(experiment, d),
            layers([(d.material, d.radius_m), (d.vessel, d.radius_m + d.acrylic_m), (d.buffer, d.outer_radius_m)]),
            electron_tables(d.material, d.electrons_per_gram_mol),
            photon_tables(d.material),
            float(anchor),
        )

    def reconstruct(
        self, photons: np.ndarray, position_m: np.ndarray, key: np.uint64, *, first_event: int = 0
    ) -> dict[str, np.ndarray]:
        """Charge, vertex and energy of events.

        Args:
            photons: Photons of each event, shape ``(events,)``.
            position_m: Where their light comes from, shape ``(events, 3)``.
            key: Key of the random numbers.
            first_event: Number of the first event: an event's draws depend on its number and the key only.

        Returns:
            ``n_pe``, ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m``: float64, shape ``(events,)``.
        """
        n = photons.size
        n_pe, e_rec, vertex = np.empty(n), np.empty(n), np.empty((n, 3))
        reconstruct(
            np.ascontiguousarray(photons, dtype=np.float64),
            np.ascontiguousarray(position_m, dtype=np.float64),
            self.uniformity,
            self.electronics,
            self.detector.vertex_sigma_m,
            self.pe_per_MeV,
            key,
            first_event,
            n_pe,
            e_rec,
            vertex,
        )
        columns = {"n_pe": n_pe, "e_rec_MeV": e_rec}
        return columns | {name: np.ascontiguousarray(vertex[:, i]) for i, name in enumerate(("x_m", "y_m", "z_m"))}


def nominal_response(experiment: Experiment) -> Response:
    """kB, fC and light yield of the experiment's file.

    Raises:
        NuebarError: The file does not give them.
    """
    r = experiment.response
    if r.kB_g_cm2_GeV == 0 and r.light_yield_per_MeV == 1:  # the defaults of a file that is silent
        raise NuebarError(
            f"{experiment.source or experiment.name}: key 'response.kB_g_cm2_GeV': expected kB, fC, light yield and "
            "cherenkov_photons_per_cm to simulate with, got none; add them or give --kB --fC --light-yield"
        )
    return Response(r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV)


def gamma_cascades(
    energies_MeV: tuple[float, ...], cascades: int, key: np.uint64, *, material: str = "lab", per_gram: float = 0.5588
) -> CascadePool:
    """Cascades of gammas in coincidence, in an infinite scintillator.

    Args:
        energies_MeV: The gammas of one event.
        cascades: How many events.
        key: Key of the random numbers.
        material: Tables of the scintillator.
        per_gram: Its electrons in mol/g.

    Raises:
        NuebarError: An energy is outside of the tables.
    """
    gammas = np.asarray(energies_MeV, dtype=np.float64)
    if not (gammas.size and np.all((gammas > 1e-3) & (gammas < 15.0))):
        raise NuebarError(f"gammas: expected energies from 0.001 to 15 MeV, got {list(energies_MeV)}; correct them")
    room = 400 + int(cascades * (60 * gammas.size + 10 * gammas.sum()))
    codes, counts = np.empty(room, np.uint16), np.empty(cascades, np.int64)
    used = _follow_many(gammas, photon_tables(material), electron_tables(material, per_gram), key, codes, counts)
    return CascadePool(codes[:used].copy(), np.concatenate([[0], np.cumsum(counts)]))


@njit
def _follow_many(
    gammas: np.ndarray,
    photons: PhotonTables,
    electrons: ElectronTables,
    key: np.uint64,
    codes: np.ndarray,
    counts: np.ndarray,
) -> int:
    stack = np.empty(64)
    n = 0
    for k in range(counts.size):
        for j in range(gammas.size):
            stack[j] = gammas[j]
        before = n
        _, n = follow_gamma(photons, electrons, key, event_counter(k), stack, gammas.size, codes, n)
        counts[k] = n - before
    return n


@lru_cache(maxsize=4)
def _anchor_deposits(material: str, per_gram: float) -> np.ndarray:
    key = derive_key(_ANCHOR_SEED, "anchor")
    pool = gamma_cascades((N_H_GAMMA_MeV,), _ANCHOR_CASCADES, key, material=material, per_gram=per_gram)
    return pool.mean_deposits()


def _uniformity(experiment: Experiment, d: Detector) -> UniformityMap:
    settings = d.uniformity
    if settings.map == "none":
        return flat_map(d.radius_m)
    table = read_text_table(experiment.table(settings.map), ("r_m", "cos_theta", "ratio"))
    r, c, ratio = (table.numbers(name) for name in ("r_m", "cos_theta", "ratio"))
    radii, angles = np.unique(r), np.unique(c)
    grid = np.full((radii.size, angles.size), np.nan)
    grid[np.searchsorted(radii, r), np.searchsorted(angles, c)] = ratio
    if np.isnan(grid).any() or r.size != grid.size:
        raise NuebarError(f"{table.path}: expected every pair of r_m and cos_theta once; complete the grid")
    return uniformity_map(
        radii,
        angles,
        grid,
        calibration_radius_m=np.array(settings.calibration_radius_m or tuple(radii)),
        calibration_cos_theta=np.array(settings.calibration_cos_theta or tuple(angles)),
        azimuth=settings.azimuth,
        folds=settings.folds,
    )

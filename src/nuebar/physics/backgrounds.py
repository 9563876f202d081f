"""Prompt spectra of the backgrounds of an inverse-beta-decay (IBD) sample, as normalised bin fractions.

The list is that of JUNO (arXiv:2204.13249, table 4, and two more of arXiv:2511.14593); the shapes are our own
models, built from evaluated data where they exist and marked nominal where they do not: they are made to be
replaced by a measurement, and the shape uncertainty of a fit belongs on top of them.

Every function in :data:`SHAPES` is called as ``shape(edges_MeV, resolution)``, options by keyword; all share

``edges_MeV``
    Bin edges in prompt reconstructed energy, shape (n+1,), finite, increasing, ≥ 0.
``resolution``
    (a, b, c) of σ² = a² E + b² E² + c² with E in MeV: fractions at 1 MeV, 0.03 for 3 %; zeros are allowed.
``response``
    The reconstructed energy as an increasing function of the deposited, electron-equivalent one, for an array
    from 0 to 20 MeV; the identity by default. One curve serves electrons, positrons and γ rays alike, an
    approximation of about 1 %.

and return bin fractions, shape (n,), ≥ 0, with the sum 1 over the given edges. Bad edges, resolution,
response or options, and edges between which the background has nothing, raise
:class:`nuebar.errors.NuebarError`. They are called once, when a model is built; rates are not their business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erfc
from jax.typing import ArrayLike
from scipy.special import ndtr, sici

from nuebar.errors import NuebarError
from nuebar.physics import beta_decay
from nuebar.physics.constants import ELECTRON_MASS_MeV, NEUTRON_MASS_MeV, PROTON_MASS_MeV
from nuebar.physics.ibd import THRESHOLD_MeV, cross_section_vogel_beacom
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV
from nuebar.physics.reactor import ISOTOPES, huber_mueller

__all__ = [
    "SHAPES",
    "accidentals",
    "alpha_n",
    "atmospheric_nc",
    "bipo",
    "double_neutrons",
    "fast_neutrons",
    "geoneutrinos_th",
    "geoneutrinos_u",
    "li9_he8",
    "neutron_light",
    "proton_light_MeV",
    "smear",
    "world_reactors",
]

Resolution = tuple[float, float, float]
Response = Callable[[np.ndarray], ArrayLike]
Lines = Sequence[tuple[float, float]]

# Deposited energies up to 20 MeV in cells of 5 keV, a sixth of a resolution of 3 % at 1 MeV.
_CELL_MeV = 0.005
_CELL_EDGES = np.arange(4001) * _CELL_MeV
_CELLS = 0.5 * (_CELL_EDGES[1:] + _CELL_EDGES[:-1])

# E_dep = E_ν - (m_n - m_p) + m_e: the recoil of the neutron (6 keV at 3 MeV, 60 keV at 8 MeV) is left out.
_IBD_OFFSET_MeV = NEUTRON_MASS_MeV - PROTON_MASS_MeV - ELECTRON_MASS_MeV

# γ rays of neutron capture: 2.2233 MeV on hydrogen, 4.945 MeV on carbon, nominal (the 2.2246 and 4.946 MeV of
# AME2020 less the recoil). One neutron in a hundred is captured on carbon, nominal.
_NH_MeV, _NC_MeV, _NC_FRACTION = 2.2233, 4.945, 0.01


# --- folding -----------------------------------------------------------------------------------------------


@jax.jit
def smear(edges_MeV: ArrayLike, energies_MeV: ArrayLike, weights: ArrayLike, sigma_MeV: ArrayLike) -> Array:
    """Bin integrals of a sum of Gaussians.

    Exact: each bin is a difference of normal distribution functions, so bins that cover the whole axis hold
    the whole weight. A line with σ = 0 falls into its bin; on an edge it is shared by halves. Differentiable
    in the energies, the weights and σ > 0.

    Args:
        edges_MeV: Bin edges, shape (n+1,), increasing.
        energies_MeV: Means, shape (m,).
        weights: Weights, shape (m,).
        sigma_MeV: Standard deviations ≥ 0, shape (m,) or a scalar.

    Returns:
        Weight per bin, shape (n,).

    Raises:
        NuebarError: Energies and weights of different shapes.
    """
    energies, weights = jnp.asarray(energies_MeV), jnp.asarray(weights)
    if energies.ndim != 1 or energies.shape != weights.shape:
        raise NuebarError(
            f"expected energies and weights of one shape (m,), got {energies.shape} and {weights.shape}; "
            "give one weight for each energy"
        )
    sigma = jnp.broadcast_to(jnp.asarray(sigma_MeV), energies.shape)[None, :]
    distance = jnp.asarray(edges_MeV)[:, None] - energies[None, :]
    sharp = sigma <= 0.0
    normal = 0.5 * erfc(-distance / (2.0**0.5 * jnp.where(sharp, 1.0, sigma)))
    below = jnp.where(sharp, 0.5 * jnp.sign(distance), normal)
    return jnp.diff(below, axis=0) @ weights


def _smear_cells(edges: np.ndarray, cells: np.ndarray, weights: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Bin integrals of weights spread evenly over cells and then smeared: exact at any σ, zero included."""
    keep = weights > 0.0
    lower, upper, s = cells[:-1][keep], cells[1:][keep], sigma[keep]

    def ramp(distance: np.ndarray) -> np.ndarray:  # the integral of the normal distribution function
        safe = np.where(s > 0.0, s, 1.0)
        z = distance / safe
        smooth = distance * ndtr(z) + safe * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
        return np.where(s > 0.0, smooth, np.maximum(distance, 0.0))

    below = (ramp(edges[:, None] - lower) - ramp(edges[:, None] - upper)) / (upper - lower)
    return np.maximum(np.diff(below, axis=0) @ weights[keep], 0.0)


def _check_edges(edges_MeV: ArrayLike) -> np.ndarray:
    edges = np.asarray(edges_MeV, dtype=float)
    if edges.ndim != 1 or edges.size < 2:
        raise NuebarError(f"expected bin edges of shape (n+1,) with n ≥ 1, got shape {edges.shape}; give one row")
    if not np.all(np.isfinite(edges)) or edges[0] < 0.0 or np.any(np.diff(edges) <= 0.0):
        raise NuebarError(
            f"expected finite bin edges in MeV that start at ≥ 0 and increase, got {edges[0]:g} to "
            f"{edges[-1]:g} with a smallest step of {np.diff(edges).min():g}; sort them, without repeats"
        )
    return edges


def _check_resolution(resolution: Resolution) -> tuple[float, float, float]:
    terms = np.asarray(resolution, dtype=float)
    if terms.shape != (3,) or not np.all((terms >= 0.0) & (terms < 1.0)):
        raise NuebarError(
            f"expected a resolution (a, b, c) of three fractions in [0, 1), such as (0.03, 0.01, 0.01), "
            f"got {resolution!r}; divide per cent by 100"
        )
    return float(terms[0]), float(terms[1]), float(terms[2])


def _respond(energies: np.ndarray, response: Response | None) -> np.ndarray:
    if response is None:
        return energies
    seen = np.asarray(response(energies), dtype=float)
    if seen.shape != energies.shape or not np.all(np.isfinite(seen)):
        raise NuebarError(
            f"expected a response that gives a finite energy for each of {energies.size}, got shape "
            f"{seen.shape}; make it cover {energies.min():g} to {energies.max():g} MeV"
        )
    return seen


def _fractions(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    response: Response | None,
    *,
    density: ArrayLike | None = None,
    lines: Lines = (),
) -> Array:
    """Fold a density on the cells (any unit per MeV) and lines (energy, weight) into normalised bins."""
    edges, (a, b, c) = _check_edges(edges_MeV), _check_resolution(resolution)

    def sigma(energy: np.ndarray) -> np.ndarray:
        positive = np.maximum(energy, 0.0)
        return np.sqrt(a**2 * positive + (b * positive) ** 2 + c**2)

    weights = np.zeros(_CELLS.size) if density is None else np.asarray(density) * _CELL_MeV
    seen = _respond(_CELL_EDGES, response)
    if np.any(np.diff(seen) <= 0.0):
        where = _CELL_EDGES[int(np.argmax(np.diff(seen) <= 0.0))]
        raise NuebarError(
            f"expected a response that increases with the deposited energy, got one that does not at "
            f"{where:g} MeV; extrapolate it with its last slope"
        )
    counts = _smear_cells(edges, seen, weights, sigma(0.5 * (seen[1:] + seen[:-1])))
    if lines:
        energies, heights = np.array(lines, dtype=float).T
        at = _respond(energies, response)
        counts = counts + np.asarray(smear(edges, at, heights, sigma(at)))
    total, scale = float(counts.sum()), float(weights.sum()) + sum(weight for _, weight in lines)
    # 1e-9: below it stand the tails of the resolution and the rounding of the cells, not the background.
    if not total > 1e-9 * scale:
        raise NuebarError(
            f"expected bins that hold a part of this background, got none of it between {edges[0]:g} and "
            f"{edges[-1]:g} MeV; widen the edges or leave the background out"
        )
    return jax.device_put(counts / total)


# --- quenched light of heavy particles ---------------------------------------------------------------------

# Light of an α particle over that of an electron of the same energy: 0.07 to 0.12 in LAB from 1 to 8 MeV,
# nominal.
_ALPHA_LIGHT = 0.08
_LIGHT_STEP_MeV = 10 * _CELL_MeV


@jax.jit
def proton_light_MeV(kinetic_MeV: ArrayLike) -> Array:
    """Electron-equivalent energy of a proton's light: 0.83 T - 2.82 (1 - exp(-0.25 T^0.93)), T in MeV, ≥ 0.

    The curve of NE-213 (R. A. Cecil, B. D. Anderson, R. Madey, NIM 161, 439 (1979)), a xylene scintillator;
    LAB quenches a little more. 0.21 MeV at 1 MeV and 2.25 MeV at 5 MeV.

    Args:
        kinetic_MeV: Kinetic energies, ≥ 0, any shape.

    Returns:
        Electron-equivalent energies in MeV, same shape.
    """
    t = jnp.asarray(kinetic_MeV)
    return jnp.maximum(0.83 * t - 2.82 * (1.0 - jnp.exp(-0.25 * t**0.93)), 0.0)


def neutron_light(max_MeV: float) -> tuple[np.ndarray, np.ndarray]:
    """Distribution of the light of a neutron that slows down on hydrogen, for a ladder of energies.

    Each collision gives the proton an energy T uniform in (0, E) (isotropic scattering of equal masses), so
    the distribution of the summed light obeys p_E(v) = (1/E) ∫₀ᴱ p_{E-T}(v - L(T)) dT, solved here upwards in
    E by the trapezium rule. Collisions with carbon take some energy for nearly no light and are left out.

    Args:
        max_MeV: The largest neutron energy.

    Returns:
        Neutron energies E_k = k δ with δ = 0.05 MeV, shape (m+1,), and p[k, j], the probability that a
        neutron of energy E_k makes the light j δ, shape (m+1, m+1).
    """
    m = int(np.ceil(max_MeV / _LIGHT_STEP_MeV))
    energies = np.arange(m + 1) * _LIGHT_STEP_MeV
    light = np.asarray(proton_light_MeV(energies)) / _LIGHT_STEP_MeV
    whole = light.astype(int)
    # Light between two nodes goes to both, in the shares that keep the mean.
    upper = light - whole
    p = np.zeros((m + 1, m + 1))
    p[0, 0] = 1.0
    for i in range(m + 1):
        if i > 0:
            # The end T = 0 of the integral is p_E itself, which moves to the left-hand side.
            p[i] /= i - 0.5
        held = np.flatnonzero(p[i])
        lost = np.arange(1, m - i + 1)
        # Hand on to every higher energy, whose last proton has the light of the difference.
        given = (1.0 if i > 0 else 0.5) * p[i, held]
        rows, columns = (i + lost)[:, None], whole[lost][:, None] + held
        p[rows, columns] += (1.0 - upper[lost])[:, None] * given
        p[rows, columns + 1] += upper[lost][:, None] * given
    return energies, p


def _shifted_sum(density: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The cells' density convolved with a distribution of additional light on the nodes j δ."""
    summed = np.zeros_like(density)
    for j in np.flatnonzero(light > 0.0):
        shift = 10 * int(j)
        summed[shift:] += light[j] * density[: density.size - shift]
    return summed


# --- antineutrinos -----------------------------------------------------------------------------------------


def _ibd_density(flux: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Flux times cross-section on the cells of deposited energy."""
    above = _CELLS + _IBD_OFFSET_MeV > THRESHOLD_MeV
    e_nu = np.where(above, _CELLS + _IBD_OFFSET_MeV, 2.0 * THRESHOLD_MeV)
    rate = flux(e_nu) * np.asarray(cross_section_vogel_beacom(e_nu))
    return np.where(above, rate / rate.max(), 0.0)


def _summed_electrons(branches: Sequence[beta_decay.Branch], kinetic: Sequence[np.ndarray]) -> np.ndarray:
    """Electron spectra of branches, each at its own energies: numpy around one compiled function."""
    total = np.zeros_like(kinetic[0])
    for b, t in zip(branches, kinetic, strict=True):
        electrons = beta_decay.electron_spectrum(t, b.endpoint_MeV, b.z_daughter, b.mass_number)
        total += b.intensity * np.asarray(electrons)
    return total


def _beta_gamma(branches: Sequence[beta_decay.Branch]) -> np.ndarray:
    """:func:`nuebar.physics.beta_decay.summed_spectrum` on the cells."""
    return _summed_electrons(branches, [_CELLS - b.level_MeV for b in branches])


def _geoneutrinos(
    chain: Sequence[beta_decay.Branch], edges: ArrayLike, resolution: Resolution, response: Response | None
) -> Array:
    def flux(e_nu: np.ndarray) -> np.ndarray:
        # The antineutrino has what the electron of the same decay has not.
        return _summed_electrons(chain, [b.endpoint_MeV - e_nu for b in chain])

    return _fractions(edges, resolution, response, density=_ibd_density(flux))


def geoneutrinos_u(edges_MeV: ArrayLike, resolution: Resolution, *, response: Response | None = None) -> Array:
    """Geoneutrinos of the 238U chain: 234mPa and 214Bi, allowed spectra times the IBD cross-section.

    Over the Earth's sources the survival probability averages to about 0.55, the same at every energy, and
    drops out of the shape. Branches and endpoints: :data:`nuebar.physics.beta_decay.U238_CHAIN`.
    """
    return _geoneutrinos(beta_decay.U238_CHAIN, edges_MeV, resolution, response)


def geoneutrinos_th(edges_MeV: ArrayLike, resolution: Resolution, *, response: Response | None = None) -> Array:
    """Geoneutrinos of the 232Th chain: 228Ac and 212Bi; otherwise as :func:`geoneutrinos_u`."""
    return _geoneutrinos(beta_decay.TH232_CHAIN, edges_MeV, resolution, response)


@jax.jit
def _mixed_spectrum(e_nu_MeV: Array, fractions: tuple[ArrayLike, ...]) -> Array:
    spectra = [f * huber_mueller(e_nu_MeV, i) for f, i in zip(fractions, ISOTOPES, strict=True)]
    return jnp.sum(jnp.stack(spectra), axis=0)


def world_reactors(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    baseline_range_km: tuple[float, float] = (300.0, 3000.0),
    baselines_km: Sequence[float] = (),
    baseline_weights: Sequence[float] = (),
    fission_fractions: Sequence[float] = (0.58, 0.07, 0.30, 0.05),
    sin2_th12: float = 0.307,
    sin2_th13: float = 0.0219,
    dm2_21_eV2: float = 7.53e-5,
) -> Array:
    """Distant reactors: Huber-Mueller spectrum, IBD cross-section, solar oscillation averaged over baselines.

    Cores spread evenly over a plane send dL/L² · L, a rate uniform in ln L: the default average is that one,
    in closed form (a cosine integral), over ``baseline_range_km``. A list of baselines with the rates that
    they would have without oscillation replaces it. Vacuum; the fast oscillation of Δm²31 is averaged:
    P = c13⁴ (1 - sin²2θ12 ⟨sin²Δ21⟩) + s13⁴.

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        baseline_range_km: Nearest and farthest core of the default average, nominal.
        baselines_km: Distances of single cores, empty for the default average.
        baseline_weights: Un-oscillated rates of those cores, any unit.
        fission_fractions: Shares of 235U, 238U, 239Pu, 241Pu; default: the mix of a pressurised-water reactor
            in arXiv:2204.13249.
        sin2_th12: PDG 2024, as are the next two.
        sin2_th13: sin²θ13.
        dm2_21_eV2: Δm²21.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: Baselines and weights, or the four fission fractions, do not go together.
    """
    near, far = baseline_range_km
    distances, rates = np.asarray(baselines_km, dtype=float), np.asarray(baseline_weights, dtype=float)
    if distances.shape != rates.shape or not 0.0 < near < far or np.any(distances <= 0.0) or np.any(rates <= 0.0):
        raise NuebarError(
            f"expected 0 < nearest < farthest and a positive weight for each baseline, got the range "
            f"{baseline_range_km}, {distances.size} baselines_km and {rates.size} baseline_weights; "
            "give kilometres and rates"
        )
    if len(fission_fractions) != len(ISOTOPES):
        raise NuebarError(f"expected fission_fractions of {ISOTOPES}, got {fission_fractions!r}; give four")

    def flux(e_nu: np.ndarray) -> np.ndarray:
        phase = PHASE_per_eV2_km_MeV * dm2_21_eV2 / e_nu
        if distances.size:
            mean = np.sin(np.multiply.outer(phase, distances)) ** 2 @ rates / rates.sum()
        else:
            mean = 0.5 - 0.5 * (sici(2 * phase * far)[1] - sici(2 * phase * near)[1]) / np.log(far / near)
        survival = (1 - sin2_th13) ** 2 * (1 - 4 * sin2_th12 * (1 - sin2_th12) * mean) + sin2_th13**2
        return np.asarray(_mixed_spectrum(e_nu, tuple(fission_fractions))) * survival

    return _fractions(edges_MeV, resolution, response, density=_ibd_density(flux))


# --- correlated and accidental pairs -----------------------------------------------------------------------


def accidentals(edges_MeV: ArrayLike, resolution: Resolution, *, response: Response | None = None) -> Array:
    """Accidental pairs: the prompt is any radioactive single. Nominal mixture, to be replaced by data.

    Singles of a large scintillator: γ lines of 40K (1.461 MeV), 214Bi (1.764 MeV) and 208Tl (2.614 MeV) from
    outside, half of each degraded to a flat shelf below its line by losses outside the scintillator; β of
    210Bi and 40K inside; β with γ of 214Bi and 208Tl inside, in the ratio of equal masses of 238U and 232Th
    (0.359 · 4.06 / 12.4 = 0.12, nominal). 14C (endpoint 0.156 MeV) and 85Kr stay below a prompt threshold of
    0.7 MeV and are left out; so are the quenched α lines, and muon spallation, which is vetoed.

    Args:
        edges_MeV: Bins of reconstructed energy, shape ``(bins + 1,)``.
        resolution: Energy resolution.
        response: From deposited to visible energy; none by default.

    Returns:
        Share of each bin, shape ``(bins,)``.
    """
    lines = ((1.4608, 0.10), (1.7645, 0.04), (2.6145, 0.08))
    density = sum(np.where(energy > _CELLS, weight / energy, 0.0) for energy, weight in lines)
    sources = (
        (beta_decay.BI210, 0.30),
        (beta_decay.K40, 0.06),
        (beta_decay.BI214, 0.15),
        (beta_decay.TL208, 0.018),
    )
    for branches, weight in sources:
        density = density + weight * _beta_gamma(branches)
    return _fractions(edges_MeV, resolution, response, density=density, lines=lines)


def _break_up_light(level_MeV: float, neutrons: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Light of n + 2α from a level of 9Be: three-body phase space, √(E (E_max - E)) in the neutron energy."""
    energies, p = neutrons
    available = level_MeV - 1.5736  # AME2020: 9Be → n + 2α needs 1.5736 MeV
    largest = available * 8.0 / 9.0
    shares = np.sqrt(np.clip(energies * (largest - energies), 0.0, None))
    light = np.zeros(energies.size)
    for k in np.flatnonzero(shares > 0.0):
        nodes = _ALPHA_LIGHT * (available - energies[k]) / _LIGHT_STEP_MeV
        j, upper = int(nodes), nodes % 1.0
        weights = shares[k] / shares.sum() * p[k]
        light[j:] += (1.0 - upper) * weights[: light.size - j]
        light[j + 1 :] += upper * weights[: light.size - j - 1]
    return light


def li9_he8(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    he8_fraction: float = 0.05,
) -> Array:
    """Cosmogenic 9Li and 8He: the β⁻ branches that emit a neutron, with the quenched light of the fragments.

    9Li → 9Be* (2.43, 2.78, 7.94, 11.28, 11.81 MeV) → n + 2α, the energy above 1.57 MeV shared by three-body
    phase space; 8He → 8Li* (3.21, 5.4 MeV) → n + 7Li, whose neutron takes 7/8 of the energy above 2.03 MeV.
    Neutrons make the light of their recoil protons (:func:`neutron_light`), α particles 8 % of their energy
    (nominal), 7Li none. The widths of the levels (up to 1 MeV) and weak magnetism (1 %/MeV) are left out.

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        he8_fraction: Share of 8He in the decays with a neutron, nominal; experiments are compatible with 0.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: The share of 8He is not between 0 and 1.
    """
    if not 0.0 <= he8_fraction <= 1.0:
        raise NuebarError(f"expected he8_fraction in [0, 1], got {he8_fraction!r}; give the share of 8He decays")
    neutrons = neutron_light(10.0)
    density = np.zeros(_CELLS.size)
    for parent, share in (
        (beta_decay.LI9_NEUTRON, 1.0 - he8_fraction),
        (beta_decay.HE8_NEUTRON, he8_fraction),
    ):
        total = sum(b.intensity for b in parent)
        for b in parent:
            if parent is beta_decay.LI9_NEUTRON:
                light = _break_up_light(b.level_MeV, neutrons)
            else:
                light = neutrons[1][round((b.level_MeV - 2.0323) * 7.0 / 8.0 / _LIGHT_STEP_MeV)]
            electron = beta_decay.electron_spectrum(_CELLS, b.endpoint_MeV, b.z_daughter, b.mass_number)
            density += share * b.intensity / total * _shifted_sum(np.asarray(electron), light)
    return _fractions(edges_MeV, resolution, response, density=density)


def bipo(edges_MeV: ArrayLike, resolution: Resolution, *, response: Response | None = None) -> Array:
    """214Bi-214Po cascades: the prompt is the β of 214Bi together with the γ rays of the level it feeds.

    In a large scintillator both are contained, E = T + E_level, so a branch fills the range from its level up
    to Q = 3.27 MeV. The strong levels lie from 1.73 to 2.45 MeV: this is why the prompts crowd around 2 MeV
    with a β tail to 3.27 MeV, although 214Bi's electrons themselves average 0.64 MeV. The delayed 214Po α has
    0.9 MeV of light; that a rare one passes for a neutron capture does not depend on the prompt. Branches:
    :data:`nuebar.physics.beta_decay.BI214`.
    """
    density = _beta_gamma(beta_decay.BI214)
    return _fractions(edges_MeV, resolution, response, density=density)


def alpha_n(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    group_fractions: tuple[float, float, float] = (0.90, 0.04, 0.06),
) -> Array:
    """13C(α,n)16O with the 5.304 MeV α of 210Po: recoil protons, 4.44 MeV, and 6.05 or 6.13 MeV.

    Ground state: Q = 2.2156 MeV (AME2020), two-body kinematics with isotropic emission and α energies at the
    reaction uniform from 3 MeV to 5.304 MeV (nominal: below, the cross-section is small): neutrons of 3.4 to
    7.3 MeV, whose recoil protons (:func:`neutron_light`) reach about 4 MeV. Some of these neutrons excite 12C
    (4.4398 MeV) on their way and leave the rest of their energy, less 13/12 of it, as recoils. 16O* gives a
    pair of 6.049 MeV or a γ of 6.130 MeV, by halves (nominal), and a neutron too slow to be seen. The α
    particles of the U and Th chains, up to 8.8 MeV, reach 16O* more often: raise the third share for them.

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        group_fractions: Shares of the three groups, nominal.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: The shares of the three groups are wrong.
    """
    if len(group_fractions) != 3 or min(group_fractions) < 0.0 or not sum(group_fractions) > 0.0:
        raise NuebarError(f"expected three group_fractions ≥ 0 with a sum > 0, got {group_fractions!r}; see the order")
    energies, p = neutron_light(8.0)
    share = np.zeros(energies.size)
    for alpha_MeV in np.linspace(3.0, 5.304, 48):
        emitted = (alpha_MeV * 13.0 / 17.0 + 2.2156) * 16.0 / 17.0
        carried = alpha_MeV * 4.0 / 17.0**2
        low, high = (emitted**0.5 - carried**0.5) ** 2, (emitted**0.5 + carried**0.5) ** 2
        inside = (energies >= low) & (energies <= high)
        share += inside / inside.sum()
    share /= share.sum()
    rest = np.clip(energies - 4.4398 * 13.0 / 12.0, 0.0, None)
    inelastic = np.where(rest > 0.0, share, 0.0)
    after = np.zeros(energies.size)
    np.add.at(after, np.rint(rest / _LIGHT_STEP_MeV).astype(int), inelastic / inelastic.sum())
    recoils, carbon, oxygen = group_fractions
    lines = [(light, recoils * weight) for light, weight in zip(energies, share @ p, strict=True)]
    lines += [(4.4398 + light, carbon * weight) for light, weight in zip(energies, after @ p, strict=True)]
    density = np.zeros(_CELLS.size)
    for light, weight in lines:
        first = max(round(light / _CELL_MeV) - 5, 0)  # a node of the light stands for the 50 keV around it
        density[first : first + 10] += weight / (10 * _CELL_MeV)
    pair = ((6.0494, 0.5 * oxygen), (6.1299, 0.5 * oxygen))
    return _fractions(edges_MeV, resolution, response, density=density, lines=pair)


def double_neutrons(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    tail_fraction: float = 0.05,
) -> Array:
    """Two neutrons of one unseen muon: both are captured, and the first capture is the prompt.

    A line of 2.2233 MeV, 1 % of captures on carbon at 4.945 MeV, and a flat tail below the line from γ rays
    that leave the scintillator (nominal).

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        tail_fraction: Share of the tail, nominal.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: The share of the tail is not between 0 and 1.
    """
    if not 0.0 <= tail_fraction <= 1.0:
        raise NuebarError(f"expected tail_fraction in [0, 1], got {tail_fraction!r}; give the share of the tail")
    tail = np.where(_NH_MeV > _CELLS, tail_fraction / _NH_MeV, 0.0)
    peak = 1.0 - tail_fraction
    lines = ((_NH_MeV, peak * (1.0 - _NC_FRACTION)), (_NC_MeV, peak * _NC_FRACTION))
    return _fractions(edges_MeV, resolution, response, density=tail, lines=lines)


# --- flat and falling --------------------------------------------------------------------------------------


def fast_neutrons(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    slope_per_MeV: float = 0.0,
) -> Array:
    """Fast neutrons of untagged muons: recoil protons up to hundreds of MeV, so flat over the IBD window.

    Written in reconstructed energy, 1 + s E, and wide against any resolution: ``resolution`` is checked and
    neither it nor ``response`` changes the shape. Flat is what Daya Bay measures (PRD 95, 072006 (2017)).

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        slope_per_MeV: s, relative to the density at 0 MeV.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: The slope makes the density negative.
    """
    edges, _ = _check_edges(edges_MeV), _check_resolution(resolution)
    if not min(1.0 + slope_per_MeV * edges[0], 1.0 + slope_per_MeV * edges[-1]) >= 0.0:
        raise NuebarError(
            f"expected slope_per_MeV ≥ {-1.0 / edges[-1]:.4g}, where the density is 0 at {edges[-1]:g} MeV, "
            f"got {slope_per_MeV:g}; choose one nearer to 0"
        )
    counts = np.diff(edges + 0.5 * slope_per_MeV * edges**2)
    return jax.device_put(counts / counts.sum())


def atmospheric_nc(
    edges_MeV: ArrayLike,
    resolution: Resolution,
    *,
    response: Response | None = None,
    decay_MeV: float = 3.0,
    plateau: float = 0.5,
) -> Array:
    """Atmospheric neutrinos, neutral current on 12C with a neutron: exp(-E/E0) + a plateau, both nominal.

    The prompt is recoil protons and α particles of the broken nucleus, quenched: smoothly falling from low
    energy over a plateau (J. Cheng et al., PRD 103, 053001 and 053002 (2021), where models differ by half).
    Written in reconstructed energy like :func:`fast_neutrons`.

    Args:
        edges_MeV: As for every shape (the module's text), with the next two.
        resolution: (a, b, c).
        response: E_dep → E_rec.
        decay_MeV: E0 > 0.
        plateau: The plateau relative to the falling part at 0 MeV, ≥ 0.

    Returns:
        Bin fractions, shape (n,), sum 1.

    Raises:
        NuebarError: The decay energy is not above 0, or the plateau is negative.
    """
    edges, _ = _check_edges(edges_MeV), _check_resolution(resolution)
    if not (decay_MeV > 0.0 and plateau >= 0.0):
        raise NuebarError(f"expected decay_MeV > 0 and plateau ≥ 0, got {decay_MeV!r} and {plateau!r}; let it fall")
    counts = np.diff(plateau * edges - decay_MeV * np.exp(-edges / decay_MeV))
    return jax.device_put(counts / counts.sum())


SHAPES: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "geoneutrinos_U": geoneutrinos_u,
        "geoneutrinos_Th": geoneutrinos_th,
        "world_reactors": world_reactors,
        "accidentals": accidentals,
        "li9_he8": li9_he8,
        "atmospheric_nc": atmospheric_nc,
        "fast_neutrons": fast_neutrons,
        "alpha_n": alpha_n,
        "bipo": bipo,
        "double_neutrons": double_neutrons,
    }
)
"""Every shape by its name; call as ``SHAPES[name](edges_MeV, resolution)``, options by keyword."""

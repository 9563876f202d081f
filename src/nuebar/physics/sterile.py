"""Survival probability of electron antineutrinos with one sterile state beside the three flavours (3+1).

Conventions. U = R34 R24 R14 R23 R13 R12, of which only θ12, θ13 and θ14 touch the row of the electron:
U_e = (c12 c13 c14, s12 c13 c14, s13 c14, s14). In vacuum nothing else enters P(ν̄e → ν̄e); in matter the row of the
sterile state does, which feels no neutral current: :func:`matter` and :func:`diagonalised` take θ24 = θ34 = 0.
``dm2_41_eV2`` = m4² - m1² may be of either sign. ``sin2_th14`` = 0 is the three-flavour probability exactly.

Rotating by θ14 leaves three states that mix as without a sterile one, in c14² of the matter potential, and a fourth
that the matter term couples to them. Without that coupling
P = (1 - s)² P3 + s² + 2 s (1 - s) Σ w_i cos 2φ_4i, s = sin²θ14, with weights w_i and splittings of the three states in
matter: exact in vacuum and for s = 0. The coupling is of size A s14 c14 / 2 against Δm²41 (A = 2√2 G_F N_e E, 10⁻⁶ eV²
at 5 MeV); :func:`diagonalised` has it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nuebar.physics.oscillation import (
    Eigensystem,
    PHASE_per_eV2_km_MeV,
    POTENTIAL_eV2_per_MeV,
    eigensystem,
    survival,
)

__all__ = ["Fourth", "averaged", "combined", "diagonalised", "fourth", "matter", "sin2_2th14", "vacuum"]


class Fourth(NamedTuple):
    """Three states in matter and how far the fourth is from the first of them.

    Attributes:
        three: Weights |U_ei|² of the three-flavour mixing and splittings, in matter.
        dm2_41: λ4 - λ1 in eV², signed.
    """

    three: Eigensystem
    dm2_41: Array


def sin2_2th14(sin2_th14: ArrayLike) -> Array:
    """sin²2θ14 = 4 sin²θ14 cos²θ14."""
    s = jnp.asarray(sin2_th14)
    return 4.0 * s * (1.0 - s)


def averaged(sin2_th14: ArrayLike, three_flavour: ArrayLike) -> Array:
    """P where the oscillations of the fourth state are too fast to be seen: c14⁴ P3 + s14⁴.

    Without three-flavour oscillations (P3 = 1) this is 1 - ½ sin²2θ14.
    """
    s = jnp.asarray(sin2_th14)
    return (1.0 - s) ** 2 * jnp.asarray(three_flavour) + s**2


def vacuum(
    e_nu_MeV: ArrayLike,
    baseline_km: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    sin2_th14: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
    dm2_41_eV2: ArrayLike,
) -> Array:
    """Exact P(ν̄e → ν̄e) = 1 - 4 Σ_{i<j} |U_ei|² |U_ej|² sin²Δ_ij of four states in vacuum.

    (PDG review 14, eq. 14.41 with four states; arXiv:1507.05613, section 8.)

    Args:
        e_nu_MeV: Neutrino energy, > 0.
        baseline_km: Distance from core to detector.
        sin2_th12: sin²θ12.
        sin2_th13: sin²θ13.
        sin2_th14: sin²θ14.
        dm2_21_eV2: Δm²21.
        dm2_31_eV2: Δm²31; its sign is the ordering.
        dm2_41_eV2: Δm²41.

    Returns:
        Probabilities, broadcast over all arguments.
    """
    s12, s13, s14 = (jnp.asarray(s) for s in (sin2_th12, sin2_th13, sin2_th14))
    weights = (
        (1.0 - s14) * (1.0 - s13) * (1.0 - s12),
        (1.0 - s14) * (1.0 - s13) * s12,
        (1.0 - s14) * s13,
        s14,
    )
    squares = (jnp.asarray(0.0), jnp.asarray(dm2_21_eV2), jnp.asarray(dm2_31_eV2), jnp.asarray(dm2_41_eV2))
    phase = PHASE_per_eV2_km_MeV * jnp.asarray(baseline_km) / e_nu_MeV
    loss = jnp.asarray(0.0)
    for j in range(1, 4):
        for i in range(j):
            loss = loss + weights[i] * weights[j] * jnp.sin(phase * (squares[j] - squares[i])) ** 2
    return 1.0 - 4.0 * loss


def fourth(
    potential_eV2: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    sin2_th14: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
    dm2_41_eV2: ArrayLike,
    neutrons_per_electron: ArrayLike = 1.0,
) -> Fourth:
    """Weights and splittings of all four states, without the coupling by matter.

    Args:
        potential_eV2: A = 2√2 G_F N_e E ≥ 0.
        sin2_th12: sin²θ12.
        sin2_th13: sin²θ13.
        sin2_th14: sin²θ14.
        dm2_21_eV2: Δm²21 > 0.
        dm2_31_eV2: Δm²31.
        dm2_41_eV2: Δm²41.
        neutrons_per_electron: N_n/N_e = 1/Y_e - 1, for the neutral current; 1 for the crust.

    Returns:
        Each entry broadcast over the arguments.
    """
    a, s14 = jnp.asarray(potential_eV2), jnp.asarray(sin2_th14)
    mixing = {"sin2_th12": sin2_th12, "sin2_th13": sin2_th13, "dm2_21_eV2": dm2_21_eV2, "dm2_31_eV2": dm2_31_eV2}
    m = eigensystem(a * _seen(s14, neutrons_per_electron), **mixing)
    total = jnp.asarray(dm2_21_eV2) + dm2_31_eV2 - a * _seen(s14, neutrons_per_electron)  # the trace
    lowest = (total - m.dm2_21 - m.dm2_31) / 3.0
    level = jnp.asarray(dm2_41_eV2) - a * (s14 + (1.0 - s14) * 0.5 * jnp.asarray(neutrons_per_electron))
    return Fourth(m, level - lowest)


def matter(
    e_nu_MeV: ArrayLike,
    baseline_km: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    sin2_th14: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
    dm2_41_eV2: ArrayLike,
    density_g_cm3: ArrayLike,
    electrons_per_nucleon: ArrayLike = 0.5,
) -> Array:
    """P(ν̄e → ν̄e) in matter of constant density, without the coupling of the fourth state by matter.

    Exact in vacuum, and for θ14 = 0 in matter (:func:`nuebar.physics.oscillation.matter`). Otherwise the error is of
    the order of sin²2θ14 A / (4 Δm²41), which :func:`diagonalised` tells.

    Args:
        e_nu_MeV: Neutrino energy, > 0.
        baseline_km: Distance from core to detector.
        sin2_th12: sin²θ12.
        sin2_th13: sin²θ13.
        sin2_th14: sin²θ14.
        dm2_21_eV2: Δm²21 > 0.
        dm2_31_eV2: Δm²31; its sign is the ordering.
        dm2_41_eV2: Δm²41.
        density_g_cm3: Mass density along the baseline; 0 gives the vacuum.
        electrons_per_nucleon: Y_e.

    Returns:
        Probabilities, broadcast over all arguments.
    """
    e_nu = jnp.asarray(e_nu_MeV)
    f = fourth(
        POTENTIAL_eV2_per_MeV * electrons_per_nucleon * jnp.asarray(density_g_cm3) * e_nu,
        sin2_th12=sin2_th12,
        sin2_th13=sin2_th13,
        sin2_th14=sin2_th14,
        dm2_21_eV2=dm2_21_eV2,
        dm2_31_eV2=dm2_31_eV2,
        dm2_41_eV2=dm2_41_eV2,
        neutrons_per_electron=1.0 / jnp.asarray(electrons_per_nucleon) - 1.0,
    )
    phase = PHASE_per_eV2_km_MeV * jnp.asarray(baseline_km) / e_nu
    first, m = 2.0 * phase * f.dm2_41, f.three
    waves = m.w1 * jnp.cos(first)
    waves += m.w2 * jnp.cos(first - 2.0 * phase * m.dm2_21) + m.w3 * jnp.cos(first - 2.0 * phase * m.dm2_31)
    return combined(sin2_th14, survival(m, phase), waves)


def combined(sin2_th14: ArrayLike, three_flavour: ArrayLike, waves: ArrayLike) -> Array:
    """P from the three-flavour probability and Σ w_i cos 2φ_4i."""
    s = jnp.asarray(sin2_th14)
    return averaged(s, three_flavour) + 2.0 * s * (1.0 - s) * jnp.asarray(waves)


def diagonalised(
    e_nu_MeV: ArrayLike,
    baseline_km: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    sin2_th14: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
    dm2_41_eV2: ArrayLike,
    density_g_cm3: ArrayLike,
    electrons_per_nucleon: ArrayLike = 0.5,
) -> Array:
    """P(ν̄e → ν̄e) in matter by numerical diagonalisation of the 4 × 4 Hamiltonian: exact, and slow.

    Charged current on the electron flavour and neutral current on the three active ones, both with the sign of
    antineutrinos; θ24 = θ34 = 0. The arguments are those of :func:`matter`.
    """
    e_nu = jnp.asarray(e_nu_MeV)
    potential = POTENTIAL_eV2_per_MeV * jnp.asarray(electrons_per_nucleon) * jnp.asarray(density_g_cm3) * e_nu
    neutrons = 1.0 / jnp.asarray(electrons_per_nucleon) - 1.0
    given = (sin2_th12, sin2_th13, sin2_th14, dm2_21_eV2, dm2_31_eV2, dm2_41_eV2, potential, neutrons)
    flat = jnp.broadcast_arrays(*(jnp.asarray(g, float) for g in given))
    values, weights = jnp.vectorize(_levels, signature="(),(),(),(),(),(),(),()->(n),(n)")(*flat)
    phase = 2.0 * PHASE_per_eV2_km_MeV * jnp.asarray(baseline_km) / e_nu
    amplitude = jnp.sum(weights * jnp.exp(-1j * phase[..., None] * values), axis=-1)
    return jnp.abs(amplitude) ** 2


def _seen(s14: ArrayLike, neutrons_per_electron: ArrayLike) -> Array:
    """What is left of the matter potential for the three states that mix: c14² + s14² N_n/(2 N_e)."""
    s = jnp.asarray(s14)
    return 1.0 - s * (1.0 - 0.5 * jnp.asarray(neutrons_per_electron))


def _levels(
    s12: Array, s13: Array, s14: Array, d21: Array, d31: Array, d41: Array, a: Array, neutrons: Array
) -> tuple[Array, Array]:
    """Eigenvalues of the Hamiltonian times 2E in eV², and the electron content of its states."""
    u = _rotation(0, 3, s14) @ _rotation(0, 2, s13) @ _rotation(0, 1, s12)
    masses = jnp.stack([jnp.zeros_like(d21), d21, d31, d41])
    matter_term = jnp.stack([a, jnp.zeros_like(a), jnp.zeros_like(a), 0.5 * a * neutrons])
    values, vectors = jnp.linalg.eigh((u * masses) @ u.T - jnp.diag(matter_term))
    return values, vectors[0] ** 2


def _rotation(i: int, j: int, sin2: Array) -> Array:
    s, c = jnp.sqrt(sin2), jnp.sqrt(1.0 - sin2)
    return jnp.eye(4).at[i, i].set(c).at[j, j].set(c).at[i, j].set(s).at[j, i].set(-s)

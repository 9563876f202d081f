"""Survival probability of electron antineutrinos: three flavours, vacuum and constant-density matter.

Conventions. ``dm2_31_eV2`` carries the ordering in its sign: positive is normal, negative inverted;
``dm2_32 = dm2_31 - dm2_21`` always. θ23 and the CP phase do not enter P(ν̄e → ν̄e) in matter of constant
density (S. T. Petcov and Y. L. Zhou, PLB 785, 95 (2018)). All arguments broadcast.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nuebar.physics.constants import AVOGADRO_per_mol, G_FERMI_MeV_m3, HBARC_eV_m

__all__ = [
    "Eigensystem",
    "PHASE_per_eV2_km_MeV",
    "POTENTIAL_eV2_per_MeV",
    "averaged",
    "dm2_ee",
    "eigensystem",
    "matter",
    "ordering",
    "survival",
    "vacuum",
]

# Δm² L / 4E in natural units for eV², km, MeV: the "1.267 · 10³" of the textbooks (PDG review 14, eq. 14.42).
PHASE_per_eV2_km_MeV = 1.0e3 / (4.0e6 * HBARC_eV_m)

# 2√2 G_F N_e E for 1 MeV, 1 g/cm³ and one electron per nucleon (PDG review 14, eq. 14.58), in eV².
POTENTIAL_eV2_per_MeV = 2.0 * 2.0**0.5 * (G_FERMI_MeV_m3 * 1e12) * (AVOGADRO_per_mol * 1e6)


class Eigensystem(NamedTuple):
    """Electron content and splittings of the three antineutrino eigenstates in matter.

    Attributes:
        w1: |U_e1|² in matter.
        w2: |U_e2|² in matter.
        w3: |U_e3|² in matter.
        dm2_21: λ2 - λ1 in eV².
        dm2_31: λ3 - λ1 in eV², signed.
        dm2_32: λ3 - λ2 in eV², signed.
    """

    w1: Array
    w2: Array
    w3: Array
    dm2_21: Array
    dm2_31: Array
    dm2_32: Array


def ordering(dm2_31_eV2: float) -> str:
    """``"normal"`` or ``"inverted"``, from the sign of Δm²31."""
    return "normal" if dm2_31_eV2 > 0 else "inverted"


def dm2_ee(sin2_th12: ArrayLike, dm2_21_eV2: ArrayLike, dm2_31_eV2: ArrayLike) -> Array:
    """Δm²ee = cos²θ12 Δm²31 + sin²θ12 Δm²32 in eV² (Nunokawa, Parke, Zukanovich, PRD 72, 013009 (2005))."""
    return jnp.asarray(dm2_31_eV2) - jnp.asarray(sin2_th12) * dm2_21_eV2


def averaged(*, sin2_th12: ArrayLike, sin2_th13: ArrayLike) -> Array:
    """P(ν̄e → ν̄e) = Σ |U_ei|⁴ where sources lie at so many distances that every oscillation averages out.

    c13⁴ (1 - ½ sin²2θ12) + s13⁴: 0.55, for geoneutrinos (PDG review 14; G. Fiorentini et al., PR 453, 117 (2007)).
    """
    s12, s13 = jnp.asarray(sin2_th12), jnp.asarray(sin2_th13)
    return (1.0 - s13) ** 2 * (1.0 - 2.0 * s12 * (1.0 - s12)) + s13**2


def vacuum(
    e_nu_MeV: ArrayLike,
    baseline_km: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
) -> Array:
    """Exact three-flavour P(ν̄e → ν̄e) in vacuum.

    P = 1 - c13⁴ sin²2θ12 sin²Δ21 - sin²2θ13 (c12² sin²Δ31 + s12² sin²Δ32), Δ = Δm² L / 4E
    (PDG review 14; eq. 1 of Y. Malyshkin, "Novel Fitting Approach Based on a Neural Network for JUNO").

    Args:
        e_nu_MeV: Neutrino energy, > 0.
        baseline_km: Distance from core to detector.
        sin2_th12: sin²θ12.
        sin2_th13: sin²θ13.
        dm2_21_eV2: Δm²21 > 0.
        dm2_31_eV2: Δm²31; its sign is the ordering.

    Returns:
        Probabilities, broadcast over all arguments.
    """
    phase = PHASE_per_eV2_km_MeV * jnp.asarray(baseline_km) / e_nu_MeV
    s12, s13 = jnp.asarray(sin2_th12), jnp.asarray(sin2_th13)
    sin2_2th13 = 4.0 * s13 * (1.0 - s13)
    solar = (1.0 - s13) ** 2 * 4.0 * s12 * (1.0 - s12) * jnp.sin(phase * dm2_21_eV2) ** 2
    atmospheric = (1.0 - s12) * jnp.sin(phase * dm2_31_eV2) ** 2
    atmospheric += s12 * jnp.sin(phase * (dm2_31_eV2 - jnp.asarray(dm2_21_eV2))) ** 2
    return 1.0 - solar - sin2_2th13 * atmospheric


def eigensystem(
    potential_eV2: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
) -> Eigensystem:
    """Electron weights and splittings of antineutrinos in matter, without a cubic formula.

    The matter term is a projector on ν̄e, so the eigenvalues solve 1 + A Σ w_i / (λ - d_i) = 0 with the
    vacuum weights w_i = |U_ei|² and d = (0, Δm²21, Δm²31), and the weights in matter are residues of the
    same rational function (a rank-one update; the identity behind P. B. Denton, S. J. Parke, X. Zhang,
    PRD 101, 093001 (2020)). The eigenvalue next to Δm²31 is a fixed point that contracts by
    sin²θ13 (A/Δm²31)² ~ 10⁻⁸ an iteration at 10 MeV; the two others follow from their sum and product
    without cancellation.

    Args:
        potential_eV2: A = 2√2 G_F N_e E ≥ 0, the size of the matter term; needs A < 0.3 |Δm²31|.
        sin2_th12: sin²θ12 in vacuum.
        sin2_th13: sin²θ13 in vacuum.
        dm2_21_eV2: Δm²21 > 0 in vacuum.
        dm2_31_eV2: Δm²31 in vacuum; its sign is the ordering.

    Returns:
        The eigensystem, each entry broadcast over the arguments.
    """
    a = jnp.asarray(potential_eV2)
    d2, d3 = jnp.asarray(dm2_21_eV2), jnp.asarray(dm2_31_eV2)
    w3 = jnp.asarray(sin2_th13)
    w2 = (1.0 - w3) * sin2_th12
    w1 = (1.0 - w3) * (1.0 - jnp.asarray(sin2_th12))
    delta = _atmospheric_shift(a, w1, w2, w3, d2, d3)
    lam3 = d3 + delta
    total = d2 - a - delta
    product = -a * d2 * w1 * d3 / lam3
    gap = jnp.sqrt(total**2 - 4.0 * product)
    # λ1 ≤ 0 ≤ λ2. The root of smaller size comes from the product, so that nothing cancels; which one it is
    # depends on the sign of the sum: that turns where the matter term exceeds Δm²21.
    large = 0.5 * jnp.where(total >= 0, total + gap, total - gap)
    small = product / large
    lam2 = jnp.where(total >= 0, large, small)
    lam1 = jnp.where(total >= 0, small, large)
    gap31, gap32 = lam3 - lam1, lam3 - lam2

    weight1 = (w1 * (lam1 - d2) * (lam1 - d3) + lam1 * (w2 * (lam1 - d3) + w3 * (lam1 - d2))) / (gap * gap31)
    weight3 = ((w1 * (lam3 - d2) + w2 * lam3) * delta + w3 * lam3 * (lam3 - d2)) / (gap31 * gap32)
    return Eigensystem(weight1, 1.0 - weight1 - weight3, weight3, gap, gap31, gap32)


@jax.custom_jvp
def _atmospheric_shift(a: Array, w1: Array, w2: Array, w3: Array, d2: Array, d3: Array) -> Array:
    """λ3 - Δm²31 by fixed-point iteration; its derivative comes from the equation, not from the iteration."""
    delta = jnp.zeros_like(a * d3 * w1)
    for _ in range(3):
        delta = -a * w3 / (1.0 + a * (w1 / (d3 + delta) + w2 / (d3 + delta - d2)))
    return delta


def _secular(delta: Array, a: Array, w1: Array, w2: Array, w3: Array, d2: Array, d3: Array) -> Array:
    lam = d3 + delta
    return delta + a * (w3 + delta * (w1 / lam + w2 / (lam - d2)))


@_atmospheric_shift.defjvp
def _atmospheric_shift_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    delta = _atmospheric_shift(*primals)
    a, w1, w2, _, d2, d3 = primals
    lam = d3 + delta
    slope = 1.0 + a * (w1 * d3 / lam**2 + w2 * (d3 - d2) / (lam - d2) ** 2)
    _, moved = jax.jvp(lambda *p: _secular(delta, *p), primals, tangents)
    return delta, -moved / slope


def matter(
    e_nu_MeV: ArrayLike,
    baseline_km: ArrayLike,
    *,
    sin2_th12: ArrayLike,
    sin2_th13: ArrayLike,
    dm2_21_eV2: ArrayLike,
    dm2_31_eV2: ArrayLike,
    density_g_cm3: ArrayLike,
    electrons_per_nucleon: ArrayLike = 0.5,
) -> Array:
    """Exact three-flavour P(ν̄e → ν̄e) in matter of constant density.

    Args:
        e_nu_MeV: Neutrino energy, > 0 and below about 1 GeV (see :func:`eigensystem`).
        baseline_km: Distance from core to detector.
        sin2_th12: sin²θ12.
        sin2_th13: sin²θ13.
        dm2_21_eV2: Δm²21 > 0.
        dm2_31_eV2: Δm²31; its sign is the ordering.
        density_g_cm3: Mass density along the baseline; 0 gives the vacuum.
        electrons_per_nucleon: Y_e; 0.5 for the crust.

    Returns:
        Probabilities, broadcast over all arguments.
    """
    e_nu = jnp.asarray(e_nu_MeV)
    potential = POTENTIAL_eV2_per_MeV * electrons_per_nucleon * jnp.asarray(density_g_cm3) * e_nu
    m = eigensystem(potential, sin2_th12=sin2_th12, sin2_th13=sin2_th13, dm2_21_eV2=dm2_21_eV2, dm2_31_eV2=dm2_31_eV2)
    return survival(m, PHASE_per_eV2_km_MeV * jnp.asarray(baseline_km) / e_nu)


def survival(m: Eigensystem, phase_per_eV2: ArrayLike) -> Array:
    """P(ν̄e → ν̄e) of an eigensystem, at a phase of 1267 L/E per eV² (:data:`PHASE_per_eV2_km_MeV`)."""
    phase = jnp.asarray(phase_per_eV2)
    loss = m.w1 * m.w2 * jnp.sin(phase * m.dm2_21) ** 2
    loss += m.w3 * (m.w1 * jnp.sin(phase * m.dm2_31) ** 2 + m.w2 * jnp.sin(phase * m.dm2_32) ** 2)
    return 1.0 - 4.0 * loss

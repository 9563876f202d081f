"""Radioactive decays: branches, levels, photons and electrons of the nuclides that make singles and sources.

The table beside this file (``schemes.json``, written by ``scripts/make_decays.py``) is taken from ENSDF. What it does
not hold: X rays and Auger electrons of captures (3.2 keV in 40Ar), the recoil of the daughter, bremsstrahlung inside
the atom, and the parting of a conversion electron's energy between it and the X rays that follow: the electron is given
the whole transition. Levels decay at once, so 137mBa belongs to 137Cs; a nuclide that lives long enough to be an event
of its own (234mPa, 212Po, 214Po) is its own entry. The two annihilation photons of a positron are not in the table:
whoever walks it adds them.

Plain numpy, so that a worker needs no JAX; the allowed β⁻ spectrum equals that of ``nuebar.physics.beta_decay``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, loggamma

from nuebar.errors import NuebarError
from nuebar.physics.constants import FINE_STRUCTURE, ELECTRON_MASS_MeV, HBARC_eV_m

__all__ = [
    "ALPHA",
    "BETA_MINUS",
    "BETA_PLUS",
    "CAPTURE",
    "QUANTILES",
    "Branch",
    "DecayTables",
    "Level",
    "Nuclide",
    "Transition",
    "available_chains",
    "available_nuclides",
    "beta_cdf",
    "beta_quantiles",
    "beta_spectrum",
    "emission_lines",
    "flatten",
    "kinetic_energy",
    "load_chain",
    "load_nuclide",
]

Floats = NDArray[np.float64]

BETA_MINUS, BETA_PLUS, CAPTURE, ALPHA = range(4)
_BETA = ("beta-", "beta+")
_MODES = {"beta-": BETA_MINUS, "beta+": BETA_PLUS, "ec": CAPTURE, "alpha": ALPHA}
# Order n of unique forbiddenness; every other transition has the allowed shape.
_UNIQUE = {"unique1": 1, "unique2": 2, "unique3": 3}

QUANTILES = 129


@dataclass(frozen=True)
class Transition:
    """One way out of a level.

    Attributes:
        to_level: Index of the level it ends in, always below the one it leaves.
        energy_MeV: Difference of the two levels: the photon with the recoil, or the electron with its binding.
        p_gamma: Probability per decay of the level that it emits a photon.
        p_electron: Probability that it emits a conversion electron.
    """

    to_level: int
    energy_MeV: float
    p_gamma: float
    p_electron: float


@dataclass(frozen=True)
class Level:
    """A level of a daughter; without transitions it is the ground (or what stands for it) and ends the walk.

    Attributes:
        daughter: Name of the nuclide.
        energy_MeV: Energy above its ground state.
        transitions: The ways out; their probabilities add up to one.
    """

    daughter: str
    energy_MeV: float
    transitions: tuple[Transition, ...]


@dataclass(frozen=True)
class Branch:
    """One transition of the parent.

    Attributes:
        mode: ``"beta-"``, ``"beta+"``, ``"ec"`` or ``"alpha"``.
        probability: Per decay of the parent; one over all branches.
        q_MeV: Endpoint of the kinetic energy of the electron or positron; kinetic energy of the α particle; energy
            of the neutrino of a capture, with the binding of the captured electron.
        level: Index of the level that it feeds, in ``Nuclide.levels``.
        z_daughter: Charge number of the daughter.
        mass_number: Mass number of the daughter.
        forbidden: ``"allowed"``, ``"unique1"``, ``"unique2"``, ``"unique3"``, ``"nonunique1"``, ``"nonunique2"``, or
            ``"unknown"`` where the evaluation gives no spins; the last three have the allowed shape.
        shape: Coefficients c_k of a measured shape factor Σ c_k (W/m)^k, empty for none.
    """

    mode: str
    probability: float
    q_MeV: float
    level: int
    z_daughter: int
    mass_number: int
    forbidden: str
    shape: tuple[float, ...] = ()


@dataclass(frozen=True)
class Nuclide:
    """The decay of one nuclide.

    Attributes:
        name: Such as ``"Bi214"`` or ``"Pa234m"``.
        z: Charge number.
        mass_number: Mass number.
        half_life_s: Half-life.
        q_MeV: (daughter, Q value) pairs; Q is the difference of the neutral atoms' masses.
        branches: What the parent does.
        levels: The levels of all daughters, each daughter's from its ground upwards.
        left_out: Part of the decays that the table leaves out (weak levels, weak branches, breakup); the
            probabilities of the rest add up to one.
        note: What was changed against the evaluation, or nothing.
    """

    name: str
    z: int
    mass_number: int
    half_life_s: float
    q_MeV: tuple[tuple[str, float], ...]
    branches: tuple[Branch, ...]
    levels: tuple[Level, ...]
    left_out: float
    note: str


class DecayTables(NamedTuple):
    """Nuclides as flat arrays: one argument for a compiled kernel, which walks them so (u is a fresh uniform number).

    1. Of nuclide n take the first branch b, from ``branch_offset[n]`` on, with u < ``branch_cdf[b]``.
    2. Its particle is ``branch_mode[b]``: ALPHA has the energy ``branch_q_MeV[b]``; BETA_MINUS and BETA_PLUS have
       ``kinetic_energy(quantiles_MeV[branch_spectrum[b]], u)``, and the positron two photons of 0.511 MeV at its end;
       CAPTURE has none.
    3. Let level = ``branch_level[b]``. While ``level_offset[level]`` < ``level_offset[level + 1]``: take the first
       transition t, from ``level_offset[level]`` on, with u < ``transition_cdf[t]``; it emits
       ``transition_energy_MeV[t]`` as an electron if ``transition_is_electron[t]``, else as a photon; then
       level = ``transition_target[t]``.

    Every cumulative probability ends with exactly 1, so a u in [0, 1) always finds its row.

    Attributes:
        branch_offset: (nuclides + 1,) int64: first branch of each nuclide, and the number of branches.
        branch_cdf: (branches,) cumulative probability within the nuclide.
        branch_mode: (branches,) int64: BETA_MINUS, BETA_PLUS, CAPTURE or ALPHA.
        branch_q_MeV: (branches,) as ``Branch.q_MeV``.
        branch_z_daughter: (branches,) int64.
        branch_level: (branches,) int64: the level that is fed.
        branch_spectrum: (branches,) int64: row of ``quantiles_MeV``, -1 where there is none.
        quantiles_MeV: (spectra, 129) inverse cumulative spectra, to be read by ``kinetic_energy``.
        level_offset: (levels + 1,) int64: first transition of each level, and the number of transitions.
        level_energy_MeV: (levels,) energy above the ground of the daughter.
        transition_cdf: (transitions,) cumulative probability within the level.
        transition_energy_MeV: (transitions,) energy of the photon or electron.
        transition_target: (transitions,) int64: level that it ends in.
        transition_is_electron: (transitions,) bool.
    """

    branch_offset: NDArray[np.int64]
    branch_cdf: Floats
    branch_mode: NDArray[np.int64]
    branch_q_MeV: Floats
    branch_z_daughter: NDArray[np.int64]
    branch_level: NDArray[np.int64]
    branch_spectrum: NDArray[np.int64]
    quantiles_MeV: Floats
    level_offset: NDArray[np.int64]
    level_energy_MeV: Floats
    transition_cdf: Floats
    transition_energy_MeV: Floats
    transition_target: NDArray[np.int64]
    transition_is_electron: NDArray[np.bool_]


@cache
def _table() -> dict[str, Any]:
    return json.loads((files(__name__) / "schemes.json").read_text(encoding="utf-8"))


def available_nuclides() -> tuple[str, ...]:
    """Names that ``load_nuclide`` knows, by mass number."""
    return tuple(_table()["nuclides"])


def available_chains() -> tuple[str, ...]:
    """Names of the chains; ``load_chain`` takes a nuclide's name too."""
    return tuple(_table()["chains"])


def _levels(entry: dict[str, Any], first: int) -> list[Level]:
    energies = [energy for energy, _ in entry["levels"]]
    levels = []
    for energy, ways in entry["levels"]:
        total = sum(gamma + electron for _, gamma, electron in ways)
        transitions = tuple(
            Transition(first + to, energy - energies[to], gamma / total, electron / total)
            for to, gamma, electron in ways
        )
        levels.append(Level(entry["name"], energy, transitions))
    return levels


@cache
def load_nuclide(name: str) -> Nuclide:
    """The decay scheme of one nuclide.

    Args:
        name: One of ``available_nuclides()``.

    Returns:
        The scheme, its probabilities scaled to sums of one.

    Raises:
        NuebarError: An unknown name.
    """
    entry = _table()["nuclides"].get(name)
    if entry is None:
        raise NuebarError(_unknown("nuclide", name, available_nuclides()))
    levels: list[Level] = []
    branches: list[Branch] = []
    total = sum(row[2] for d in entry["daughters"] for row in d["branches"])
    for d in entry["daughters"]:
        shape = tuple(d.get("shape", ()))
        for mode, level, probability, q_MeV, forbidden in d["branches"]:
            to = len(levels) + level
            branches.append(Branch(mode, probability / total, q_MeV, to, d["z"], d["a"], forbidden, shape))
        levels += _levels(d, len(levels))
    return Nuclide(
        name=name,
        z=entry["z"],
        mass_number=entry["a"],
        half_life_s=entry["half_life_s"],
        q_MeV=tuple((d["name"], d["q_MeV"]) for d in entry["daughters"]),
        branches=tuple(branches),
        levels=tuple(levels),
        left_out=entry["left_out"],
        note=entry["note"],
    )


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
    return f"no {what} is called {name!r} in the table of decays; {hint}"


def load_chain(name: str) -> tuple[tuple[Nuclide, float], ...]:
    """The members of a chain in secular equilibrium, with their decays per decay of the head.

    The chains are 238U, its parts from 226Ra, 222Rn (up to 214Po: 210Pb with its 22 years rarely keeps pace) and
    210Pb on, 232Th, its part from 228Th on, 40K, and 68Ge with 68Ga. A nuclide that heads no chain stands for itself.

    Args:
        name: One of ``available_chains()`` or ``available_nuclides()``; a chain comes first.

    Returns:
        (nuclide, relative activity) pairs.

    Raises:
        NuebarError: An unknown name.
    """
    chains = _table()["chains"]
    if name not in chains and name not in _table()["nuclides"]:
        known = tuple(dict.fromkeys((*available_chains(), *available_nuclides())))
        raise NuebarError(_unknown("chain or nuclide", name, known))
    return tuple((load_nuclide(n), activity) for n, activity in chains.get(name, {name: 1.0}).items())


def emission_lines(nuclide: Nuclide) -> tuple[Floats, Floats, Floats]:
    """Photons and conversion electrons per decay, from walking the scheme analytically.

    Args:
        nuclide: The nuclide.

    Returns:
        Energies (MeV), photons per decay and electrons per decay, one entry per transition, energies ascending.
    """
    passed = np.zeros(len(nuclide.levels))
    for b in nuclide.branches:
        passed[b.level] += b.probability
    lines = []
    for i in range(len(passed) - 1, -1, -1):
        for t in nuclide.levels[i].transitions:
            passed[t.to_level] += passed[i] * (t.p_gamma + t.p_electron)
            lines.append((t.energy_MeV, passed[i] * t.p_gamma, passed[i] * t.p_electron))
    energies, photons, electrons = np.array(sorted(lines)).reshape(-1, 3).T
    return energies, photons, electrons


# Nuclear radius 1.2 fm A^(1/3) in units of the electron's Compton wavelength, nominal; as in ``beta_decay``.
_RADIUS = 1.2e-15 / (HBARC_eV_m / (ELECTRON_MASS_MeV * 1e6))


def _log_fermi(k: int, total: Floats, momentum: Floats, z: int, radius: float) -> Floats:
    """Logarithm of the generalised Fermi function of partial wave k; ``z`` is negative for positrons.

    F_(k-1) = 4^(k-1) 2k (k + γ) [(2k - 1)!!]² (2pR)^(2γ - 2k) exp(πη) |Γ(γ + iη)|² / Γ(1 + 2γ)² with
    γ = √(k² - (αZ)²), η = αZ W/p; it is 1 for Z = 0 (H. Behrens and W. Bühring, Electron Radial Wave Functions and
    Nuclear Beta-decay, 1982; k = 1 is Fermi's).
    """
    coupling = FINE_STRUCTURE * z
    gamma = math.sqrt(k * k - coupling**2)
    eta = coupling * total / momentum
    double_factorial = math.prod(range(1, 2 * k, 2))
    front = math.log(4.0 ** (k - 1) * 2 * k * (k + gamma) * double_factorial**2) - 2.0 * gammaln(1.0 + 2.0 * gamma)
    wave = np.pi * eta + 2.0 * loggamma(gamma + 1j * eta).real
    return front + (2.0 * gamma - 2.0 * k) * np.log(2.0 * momentum * radius) + wave


def _finite_size(total: Floats, z: int, radius: float) -> Floats:
    """L0, the finite size of the nucleus to leading orders (D. H. Wilkinson, NIM A 290, 509 (1990))."""
    coupling = FINE_STRUCTURE * z
    gamma = math.sqrt(1.0 - coupling**2)
    rising = total * (41.0 - 26.0 * gamma) / 15.0
    falling = gamma * (17.0 - 2.0 * gamma) / (30.0 * total)
    size: Floats = 1.0 + 13.0 / 60.0 * coupling**2 - coupling * radius * (rising + falling) / (2.0 * gamma - 1.0)
    return size


def _shape_factor(branch: Branch, total: Floats, momentum: Floats, neutrino: Floats, radius: float, z: int) -> Floats:
    """C(W): measured, or of a unique forbidden transition of order n, or one.

    Σ_k λ_k p^(2(k-1)) q^(2(n-k+1)) / [(2k-1)! (2(n-k)+3)!], k = 1 … n+1, with λ_k = F_(k-1) / F_0 (E. J. Konopinski
    and G. E. Uhlenbeck, Phys. Rev. 60, 308 (1941); Behrens and Bühring). The mean energy of 40K, n = 3, is 584 keV;
    ENSDF prints the 560 keV of n = 2.
    """
    if branch.shape:
        return np.asarray(np.polynomial.polynomial.polyval(total, branch.shape), np.float64)
    order = _UNIQUE.get(branch.forbidden, 0)
    if order == 0:
        return np.ones_like(total)
    lowest = _log_fermi(1, total, momentum, z, radius)
    factor = np.zeros_like(total)
    for k in range(1, order + 2):
        ratio = np.exp(_log_fermi(k, total, momentum, z, radius) - lowest)
        weight = math.factorial(2 * order + 1) / math.factorial(2 * k - 1) / math.factorial(2 * (order - k) + 3)
        factor += weight * ratio * momentum ** (2 * (k - 1)) * neutrino ** (2 * (order - k + 1))
    return factor


def _phase_space(kinetic_MeV: Floats, branch: Branch) -> Floats:
    """dN/dT up to a constant, for kinetic energies inside (0, Q)."""
    z = branch.z_daughter if branch.mode == "beta-" else -branch.z_daughter
    radius = _RADIUS * branch.mass_number ** (1.0 / 3.0)
    kinetic = kinetic_MeV / ELECTRON_MASS_MeV
    total, momentum = 1.0 + kinetic, np.sqrt(kinetic * (kinetic + 2.0))
    neutrino = branch.q_MeV / ELECTRON_MASS_MeV - kinetic
    fermi = np.exp(_log_fermi(1, total, momentum, z, radius)) * _finite_size(total, z, radius)
    return momentum * total * neutrino**2 * fermi * _shape_factor(branch, total, momentum, neutrino, radius, z)


_CELLS = 512
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


def _check_beta(branch: Branch) -> None:
    if branch.mode not in _BETA:
        raise NuebarError(f"expected a beta- or beta+ branch, got {branch.mode!r}; it has no spectrum.")


def _cell_integrals(branch: Branch) -> tuple[Floats, Floats]:
    """Edges in MeV, even in √T, where spectra are smooth, and the integral of ``_phase_space`` over each cell."""
    edges = np.linspace(0.0, 1.0, _CELLS + 1)
    root = edges[:-1, None] + (0.5 / _CELLS) * (_NODES + 1.0)
    density = _phase_space(branch.q_MeV * root**2, branch) * 2.0 * branch.q_MeV * root
    return branch.q_MeV * edges**2, density @ (0.5 / _CELLS * _WEIGHTS)


def beta_spectrum(kinetic_MeV: ArrayLike, branch: Branch) -> Floats:
    """The spectrum of the electron or positron of a branch, dN/dT ∝ p W (Q - T)² F0 L0 C, normalised to one.

    F0 L0 as in ``nuebar.physics.beta_decay.fermi_function``. C is the unique forbidden shape factor where the branch
    is such a one, a measured one where the table has it (210Bi), else 1: non-unique forbidden transitions are taken
    as allowed. Screening and radiative corrections are left out.

    Args:
        kinetic_MeV: Kinetic energies, any shape; the spectrum is zero outside (0, Q).
        branch: A β branch.

    Returns:
        Per decay of this branch and MeV, in the shape of ``kinetic_MeV``.

    Raises:
        NuebarError: The branch is no β branch.
    """
    _check_beta(branch)
    kinetic = np.asarray(kinetic_MeV, dtype=np.float64)
    inside = (kinetic > 0.0) & (kinetic < branch.q_MeV)
    density = _phase_space(np.where(inside, kinetic, 0.5 * branch.q_MeV), branch)
    return np.where(inside, density, 0.0) / _cell_integrals(branch)[1].sum()


def beta_cdf(branch: Branch) -> tuple[Floats, Floats]:
    """The cumulative spectrum of a β branch.

    Args:
        branch: A β branch.

    Returns:
        Kinetic energies (MeV, 513 of them, even in √T from 0 to Q) and the probability to lie below each.

    Raises:
        NuebarError: The branch is no β branch.
    """
    _check_beta(branch)
    kinetic, parts = _cell_integrals(branch)
    below = np.concatenate([[0.0], np.cumsum(parts)])
    return kinetic, below / below[-1]


@cache
def beta_quantiles(branch: Branch) -> Floats:
    """Kinetic energies that ``kinetic_energy`` interpolates: T(u) at 129 points even in x.

    x = u^(1/3) / [u^(1/3) + (1 - u)^(1/3)]: spectra start as √T or a constant and end as (Q - T)², so T is smooth in x
    and straight at its ends, where a grid even in u would cut off the last per cent.

    Args:
        branch: A β branch.

    Returns:
        Shape (129,), MeV, from 0 to Q.

    Raises:
        NuebarError: The branch is no β branch.
    """
    _check_beta(branch)
    kinetic, parts = _cell_integrals(branch)
    # Summed from both ends, so that neither cube root loses its digits.
    below = np.cbrt(np.concatenate([[0.0], np.cumsum(parts)]))
    above = np.cbrt(np.concatenate([np.cumsum(parts[::-1])[::-1], [0.0]]))
    return np.interp(np.linspace(0.0, 1.0, QUANTILES), below / (below + above), kinetic)


def kinetic_energy(quantiles_MeV: Floats, u: float) -> float:
    """The kinetic energy at cumulative probability u; plain enough for ``njit`` to compile.

    Args:
        quantiles_MeV: One row of ``DecayTables.quantiles_MeV``.
        u: Uniform random number in [0, 1].

    Returns:
        Kinetic energy in MeV.
    """
    low, high = u ** (1.0 / 3.0), (1.0 - u) ** (1.0 / 3.0)
    place = (len(quantiles_MeV) - 1) * low / (low + high)
    k = min(int(place), len(quantiles_MeV) - 2)
    return quantiles_MeV[k] + (place - k) * (quantiles_MeV[k + 1] - quantiles_MeV[k])


class _Way(NamedTuple):
    probability: float
    energy_MeV: float
    target: int
    is_electron: bool


def _ways(level: Level, first: int) -> list[_Way]:
    """The rows of a level: its photons and its electrons, targets counted over all nuclides."""
    both = (((t.p_gamma, False), (t.p_electron, True)) for t in level.transitions)
    rows = zip(level.transitions, both, strict=True)
    return [_Way(p, t.energy_MeV, first + t.to_level, electron) for t, pair in rows for p, electron in pair if p > 0.0]


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(list(lengths))]).astype(np.int64)


def _cumulative(groups: Iterable[list[float]]) -> Floats:
    """Cumulative sums within each group, each ending with exactly one."""
    sums = [np.cumsum(group) for group in groups if group]
    for total in sums:
        total[-1] = 1.0
    return np.concatenate([*sums, np.empty(0)])


def flatten(nuclides: Iterable[Nuclide]) -> DecayTables:
    """Nuclides as the arrays that a compiled kernel walks; see ``DecayTables``.

    Args:
        nuclides: One or more; the index of each in the arrays is its place here.

    Returns:
        The arrays, read-only.

    Raises:
        NuebarError: No nuclide.
    """
    nuclides = tuple(nuclides)
    if not nuclides:
        raise NuebarError("expected at least one nuclide to flatten, got none; see load_nuclide and load_chain.")
    placed = list(zip(nuclides, _offsets(len(n.levels) for n in nuclides)[:-1].tolist(), strict=True))
    branches = [(b, first + b.level) for n, first in placed for b in n.branches]
    levels = [(level, first) for n, first in placed for level in n.levels]
    ways = [_ways(level, first) for level, first in levels]
    rows = [row for way in ways for row in way]
    is_beta = np.array([b.mode in _BETA for b, _ in branches])
    tables = DecayTables(
        branch_offset=_offsets(len(n.branches) for n in nuclides),
        branch_cdf=_cumulative([b.probability for b in n.branches] for n in nuclides),
        branch_mode=np.array([_MODES[b.mode] for b, _ in branches], np.int64),
        branch_q_MeV=np.array([b.q_MeV for b, _ in branches]),
        branch_z_daughter=np.array([b.z_daughter for b, _ in branches], np.int64),
        branch_level=np.array([level for _, level in branches], np.int64),
        branch_spectrum=np.where(is_beta, np.cumsum(is_beta) - 1, -1),
        quantiles_MeV=np.array([beta_quantiles(b) for b, _ in branches if b.mode in _BETA]).reshape(-1, QUANTILES),
        level_offset=_offsets(len(way) for way in ways),
        level_energy_MeV=np.array([level.energy_MeV for level, _ in levels]),
        transition_cdf=_cumulative([row.probability for row in way] for way in ways),
        transition_energy_MeV=np.array([row.energy_MeV for row in rows], np.float64),
        transition_target=np.array([row.target for row in rows], np.int64),
        transition_is_electron=np.array([row.is_electron for row in rows], np.bool_),
    )
    for array in tables:
        array.setflags(write=False)
    return tables

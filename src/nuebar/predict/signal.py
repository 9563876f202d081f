"""The un-oscillated signal of an experiment on a fine neutrino-energy grid, and its response matrix.

Both predictors of this folder start from the same :class:`SignalInputs`, so that their difference is numerics
and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.files import read_text_table
from nuebar.io.releases import CommonInputs, Juno2025Release, Table, read_table
from nuebar.physics import ibd, reactor, scintillator
from nuebar.physics.constants import SECONDS_PER_DAY

__all__ = [
    "Nonlinearity",
    "SignalInputs",
    "experiment_edges",
    "fine_edges",
    "nonlinearity",
    "response_matrix",
    "signal_inputs",
]

Array = np.ndarray
PADDING = 12  # fine bins beyond the analysis range, so that shifts of the scale find events on both sides
E_NU_MAX_MeV = 13.0
CELL_MeV = 0.02
GRADED_MeV, GRADED_CELLS = 0.2, 20
NODES_PER_CELL = 3
ANGLES = 5
LEAST_SEEN = 1e-9  # part of the signal that must fall into the bins


@dataclass(frozen=True)
class Nonlinearity:
    """E_vis / E_dep of positrons against E_dep, with pull curves.

    Attributes:
        e_dep_MeV: Nodes, shape ``(n,)``.
        nominal: Ratio at the nodes.
        pulls: Curves one standard deviation away, shape ``(pulls, n)``.
    """

    e_dep_MeV: Array
    nominal: Array
    pulls: Array

    def visible(self, e_dep_MeV: Array) -> Array:
        """E_vis in MeV for deposited energies."""
        return e_dep_MeV * np.interp(e_dep_MeV, self.e_dep_MeV, self.nominal)

    def pull_shifts(self, e_vis_MeV: Array) -> Array:
        """How far each pull moves the visible energy, in MeV, shape ``(pulls, len(e_vis_MeV))``."""
        visible = self.e_dep_MeV * self.nominal
        return np.array(
            [np.interp(e_vis_MeV, visible, self.e_dep_MeV * (curve - self.nominal)) for curve in self.pulls]
        ).reshape(len(self.pulls), np.size(e_vis_MeV))


@dataclass(frozen=True)
class SignalInputs:
    """Everything between the reactors and the reconstructed spectrum that does not oscillate.

    Attributes:
        e_nu_MeV: Quadrature nodes in neutrino energy, shape ``(nodes,)``.
        core_names: Names of the cores.
        baseline_km: Shape ``(cores,)``.
        events: Un-oscillated selected events of each core at each node (weights of the quadrature included),
            shape ``(cores, nodes)``.
        extras: Derivatives of ``events`` with respect to flux pulls (spent fuel, non-equilibrium, fission
            fractions, spectrum segments), name → shape ``(cores, nodes)``.
        edges_MeV: Fine bins of reconstructed energy, shape ``(bins + 1,)``.
        response: Probability of each fine bin for each node, shape ``(bins, nodes)``.
        electrons_per_nucleon: Y_e of the matter along the baselines.
        nonlinearity: The curve inside ``response`` (for the pulls of it); ``None`` if there is none.
        provenance: What the numbers were made from.
    """

    e_nu_MeV: Array
    core_names: tuple[str, ...]
    baseline_km: Array
    events: Array
    extras: Mapping[str, Array]
    edges_MeV: Array
    response: Array
    electrons_per_nucleon: float
    nonlinearity: Nonlinearity | None
    provenance: Mapping[str, str]

    def fold(self, cores: Array, values: Iterator[Array], *, together: bool) -> Array:
        """Sum functions of the energy over the events of every bin.

        Args:
            cores: Indices of cores.
            values: For each of them the functions at the nodes, shape ``(nodes, n)``.
            together: Sum over the cores.

        Returns:
            Shape ``(1, bins, n)`` if together, else ``(len(cores), bins, n)``.
        """
        weighted = (self.events[c][:, None] * v for c, v in zip(cores, values, strict=True))
        if together:
            return (self.response @ sum(weighted))[None]
        return np.stack([self.response @ w for w in weighted])


def fine_edges(edges_MeV: Array, width_MeV: float, padding: int = PADDING) -> Array:
    """Subdivide bins to at most ``width_MeV`` and pad both ends (not below zero).

    Args:
        edges_MeV: Analysis edges.
        width_MeV: Largest fine width.
        padding: Number of extra bins on each side.

    Returns:
        Fine edges that contain every analysis edge.
    """
    edges = np.asarray(edges_MeV, dtype=float)
    parts = [np.linspace(a, b, max(1, int(np.ceil((b - a) / width_MeV - 1e-9))) + 1)[:-1] for a, b in pairwise(edges)]
    inner = np.concatenate([*parts, edges[-1:]])
    low, high = inner[1] - inner[0], inner[-1] - inner[-2]
    steps = np.arange(1, padding + 1)
    below = inner[0] - low * steps[::-1]
    return np.concatenate([below[below > 0], inner, inner[-1] + high * steps])


def experiment_edges(experiment: Experiment) -> Array:
    """The fine bins of an experiment, with some beyond both ends."""
    return fine_edges(np.array(experiment.binning.edges()), experiment.binning.fine_width_MeV)


def neutrino_grid(e_max_MeV: float = E_NU_MAX_MeV) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights (in MeV) from threshold.

    Cells of 20 keV, except near threshold, where the cross-section starts like a square root: there the cells grow
    with the square of their number.
    """
    start = ibd.THRESHOLD_MeV + GRADED_MeV * np.linspace(0.0, 1.0, GRADED_CELLS, endpoint=False) ** 2
    low = ibd.THRESHOLD_MeV + GRADED_MeV
    cells = np.concatenate([start, np.linspace(low, e_max_MeV, int(np.ceil((e_max_MeV - low) / CELL_MeV)) + 1)])
    x, w = np.polynomial.legendre.leggauss(NODES_PER_CELL)
    half = 0.5 * np.diff(cells)[:, None]
    middle = 0.5 * (cells[1:] + cells[:-1])[:, None]
    return (middle + half * x).ravel(), (half * w).ravel()


def response_matrix(
    e_nu_MeV: Array,
    edges_MeV: Array,
    visible: Callable[[Array], Array],
    resolution: tuple[float, ...],
) -> Array:
    """Probability that a neutrino energy is reconstructed in a bin.

    The positron direction is integrated with the differential cross-section (recoil of the neutron), then
    non-linearity and a Gaussian resolution are applied.

    Args:
        e_nu_MeV: Neutrino energies above threshold, shape ``(nodes,)``.
        edges_MeV: Bins of reconstructed energy, shape ``(bins + 1,)``.
        visible: Deposited → visible energy.
        resolution: (a, b, c) of :func:`nuebar.physics.scintillator.resolution_sigma`.

    Returns:
        Shape ``(bins, nodes)``; columns sum to one up to what falls outside the bins.
    """
    deposited, weights = (np.asarray(x) for x in _deposits(e_nu_MeV))
    e_vis = visible(deposited)
    sigma = np.asarray(scintillator.resolution_sigma(e_vis, *resolution))
    out = np.zeros((edges_MeV.size - 1, e_nu_MeV.size))
    for k in range(ANGLES):
        cumulative = ndtr((edges_MeV[:, None] - e_vis[k]) / sigma[k])
        out += weights[k] * np.diff(cumulative, axis=0)
    return out


@jax.jit
def _deposits(e_nu_MeV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Deposited energies at a few positron angles and their probabilities, shape ``(angles, nodes)`` each."""
    cos_theta, weights = ibd.angular_quadrature(e_nu_MeV, ANGLES)
    return ibd.deposited_energy(e_nu_MeV[None, :], cos_theta[:, None]), weights.T


def nonlinearity(
    experiment: Experiment, release: Juno2025Release | None = None, inputs: CommonInputs | None = None
) -> Nonlinearity | None:
    """The non-linearity that the experiment asks for, from a table, Birks' law, a release or the common inputs.

    Args:
        experiment: Says which.
        release: JUNO's release of 2025, if the experiment takes its curve.
        inputs: JUNO's common inputs, which replace the experiment's.

    Returns:
        The curve with its pulls; None if reconstructed energy is deposited energy.
    """
    kind = experiment.response.nonlinearity
    if kind == "none":
        return None
    scale = experiment.systematics.nonlinearity_scale
    own = inputs is None and not (release is not None and experiment.release.nonlinearity)
    if inputs is not None:
        grid = inputs.positron_nonlinearity.x
        nominal, curves = inputs.positron_nonlinearity.y, [t.y for t in inputs.positron_nonlinearity_pulls]
    elif release is not None and experiment.release.nonlinearity:
        curve = release.positron
        grid, nominal = curve.energy_MeV, curve.ratio
        curves = [nominal + 0.5 * (np.abs(curve.error_low) + np.abs(curve.error_high))]
    elif kind == "birks":
        grid = np.concatenate([np.arange(1.0219979, 2.0, 0.02), np.arange(2.0, 14.1, 0.1)])
        r = experiment.response
        light = scintillator.positron_visible_energy(
            grid,
            r.kB_g_cm2_GeV,
            r.fC,
            r.light_yield_per_MeV,
            photons_per_cm=r.cherenkov_photons_per_cm,
        )
        nominal = np.asarray(light) / grid
        curves = []
    else:
        grid, nominal, curves = _curves(experiment, kind)
    curves = [nominal + scale * (c - nominal) for c in curves]
    anchor = experiment.response.anchor_MeV
    if anchor > 0 and own:
        here = np.interp(anchor, grid, nominal)
        curves = [c * here / np.interp(anchor, grid, c) for c in curves]
    if experiment.response.corrected:
        curves = [c / nominal for c in curves]
        nominal = np.ones_like(nominal)
    return Nonlinearity(np.asarray(grid), np.asarray(nominal), np.array(curves).reshape(len(curves), np.size(grid)))


def _curves(experiment: Experiment, name: str) -> tuple[Array, Array, list[Array]]:
    """A table of the non-linearity: energies, nominal ratio, and ratios of the pull curves."""
    table = read_text_table(experiment.table(name), ("e_dep_MeV", "nominal"))
    names = ["nominal", *(name for name in table.header if name.startswith("pull"))]
    grid, ratios = table.numbers("e_dep_MeV"), [table.numbers(name) for name in names]
    table.require((grid > 0) & (grid < 1e3), "e_dep_MeV", "expected MeV above 0, below 1000; correct the cell")
    for name, ratio in zip(names, ratios, strict=True):
        table.require((ratio > 0.01) & (ratio < 10), name, "expected a ratio from 0.01 to 10; correct the cell")
    rising = np.concatenate([[True], (np.diff(grid) > 0) & (np.diff(grid * ratios[0]) > 0)])
    table.require(rising, "e_dep_MeV", "expected e_dep and the visible energy to rise from row to row; sort them")
    return grid, ratios[0], ratios[1:]


def signal_inputs(
    experiment: Experiment,
    *,
    release: Juno2025Release | None = None,
    inputs: CommonInputs | None = None,
    edges: Array | None = None,
) -> SignalInputs:
    """Fold an experiment's reactors, cross-section and response into arrays.

    Args:
        experiment: What to predict.
        release: A release of data whose non-linearity and un-oscillated spectrum may be used.
        inputs: JUNO's common inputs, which then replace spectra, corrections, cross-section and curves.
        edges: Bins of reconstructed energy in MeV; by default fine bins around those of the experiment.

    Returns:
        The inputs of the predictors.

    Raises:
        NuebarError: The bins see no reactor antineutrinos.
    """
    e_nu, de = neutrino_grid()
    with np.errstate(over="ignore", invalid="ignore"):  # _check_events says it in words
        flux, extras = _flux(experiment, e_nu, inputs)
        events_per_flux = _cross_section(experiment, e_nu, inputs) * de * experiment.target.free_protons
        events_per_flux *= experiment.target.efficiency
        events = flux * events_per_flux
    _check_events(experiment, e_nu, events)
    rate = experiment.reactor.unoscillated_per_day
    anchor = 1.0
    if rate is not None:
        anchor = rate * experiment.target.efficiency * experiment.exposure.days / events.sum()
    low, high = (experiment.binning.edges()[k] for k in (0, -1))
    if edges is None:
        edges = experiment_edges(experiment)
    else:
        edges = np.array(edges, dtype=float)
        low, high = max(low, edges[0]), min(high, edges[-1])
    curve = nonlinearity(experiment, release, inputs)
    response = response_matrix(
        e_nu, edges, curve.visible if curve is not None else np.asarray, experiment.response.resolution
    )
    seen = (response @ events.sum(axis=0))[(edges[:-1] > low - 1e-9) & (edges[1:] < high + 1e-9)]
    if not seen.sum() > LEAST_SEEN * events.sum():
        raise NuebarError(
            f"{experiment.source or experiment.name}: key 'binning': expected bins that see reactor antineutrinos "
            f"(about 0.8 to 12 MeV), got edges from {low:g} to {high:g} MeV; correct the edges"
        )
    return SignalInputs(
        e_nu_MeV=e_nu,
        core_names=tuple(c.name for c in experiment.reactor.cores),
        baseline_km=np.array([c.baseline_km for c in experiment.reactor.cores]),
        events=anchor * events,
        extras={name: anchor * x * events_per_flux for name, x in extras.items()},
        edges_MeV=edges,
        response=response,
        electrons_per_nucleon=experiment.matter.electrons_per_nucleon,
        nonlinearity=curve,
        provenance={
            "experiment": experiment.name,
            "flux": "common inputs"
            if inputs is not None
            else f"{experiment.reactor.spectrum}, {experiment.reactor.shape}",
            "nonlinearity": experiment.response.nonlinearity,
            "fingerprint": _fingerprint(e_nu, anchor * events, response),
        },
    )


def _fingerprint(*arrays: Array) -> str:
    """A short hash of what a predictor is made of, so that tables on disk are not used for another experiment."""
    digest = hashlib.sha256()
    for array in arrays:
        # To nine digits: the same inputs on another processor may differ in the last bits.
        digest.update(np.char.mod("%.9e", array[..., :: max(1, array.shape[-1] // 97)]).tobytes())
    return digest.hexdigest()[:16]


def _check_events(experiment: Experiment, e_nu: Array, events: Array) -> None:
    """Refuse a signal that is negative, not finite or nothing at all."""
    where = experiment.source or experiment.name
    tables = "the tables under 'reactor' (spectrum, shape, nonequilibrium, spent_fuel, history of a core)"
    bad = ~(np.isfinite(events) & (events >= 0))
    if bad.any():
        core, node = np.argwhere(bad)[0]
        raise NuebarError(
            f"{where}: expected a finite flux of at least 0, got {events[core, node]:g} events from core "
            f"{experiment.reactor.cores[core].name!r} at {e_nu[node]:.3f} MeV; check {tables}"
        )
    if not 0 < events.sum() < np.inf:
        raise NuebarError(f"{where}: expected some events from the reactors, got {events.sum():g}; check {tables}")


# ---------------------------------------------------------------- reactors


# One small program each; called operation by operation, JAX would compile every operation on its own.
_fissions_per_second = jax.jit(reactor.fissions_per_second)
_time_averaged_fissions = jax.jit(reactor.time_averaged_fissions)


@jax.jit
def _huber_mueller(e_nu_MeV: jax.Array) -> jax.Array:
    return jnp.stack([reactor.huber_mueller(e_nu_MeV, i) for i in reactor.ISOTOPES])


def _fissions(experiment: Experiment) -> Array:
    """Fissions of each isotope in each core over the exposure, shape ``(cores, isotopes)``."""
    r = experiment.reactor
    energy = np.array([r.energy_per_fission_MeV[i] for i in reactor.ISOTOPES])
    rows = []
    for core in r.cores:
        fractions = core.fission_fractions or r.fission_fractions
        f = np.array([fractions[i] for i in reactor.ISOTOPES])
        duty = r.duty_cycle if core.duty_cycle is None else core.duty_cycle
        seconds = experiment.exposure.days * SECONDS_PER_DAY
        if core.history is None:
            rows.append(np.asarray(_fissions_per_second(core.power_GW, f, energy)) * duty * seconds)
        else:
            rows.append(_fissions_from_history(experiment, core.history, f, energy))
    return np.array(rows)


def _fissions_from_history(experiment: Experiment, name: str, f: Array, energy: Array) -> Array:
    """Integrate a table of days, power and (optional) fractions; scaled to the live time of the exposure."""
    path = experiment.table(name)
    table = read_text_table(path, ("days", "power_GW"), optional=reactor.ISOTOPES)
    days, power = table.numbers("days"), table.numbers("power_GW")
    present = [i for i in reactor.ISOTOPES if i in table.header]
    if present and len(present) < len(reactor.ISOTOPES):
        raise NuebarError(f"{path}: expected all of {', '.join(reactor.ISOTOPES)} or none, got {present}")
    fractions = [table.numbers(i) for i in present]
    table.require((days > 0) & (days < 1e12), "days", "expected a number of days above 0; correct the cell")
    table.require((power >= 0) & (power <= 2000), "power_GW", "expected GW of heat, 0 to 2000; correct the cell")
    for isotope, column in zip(present, fractions, strict=True):
        table.require(column >= 0, isotope, "expected a fraction of at least 0; correct the cell")
    fuel = np.stack(fractions, axis=-1) if fractions else np.broadcast_to(f, (days.size, 4))
    # As in an experiment's file: fractions are rounded to three digits.
    whole = np.asarray(np.abs(fuel.sum(axis=-1) - 1) < 1e-3)
    table.require(whole, "U235", "expected fractions that add up to 1; correct the row")
    live = days / days.sum() * experiment.exposure.days * SECONDS_PER_DAY
    return np.asarray(_time_averaged_fissions(power, fuel, live, energy))


def _spectra(experiment: Experiment, e_nu: Array, inputs: CommonInputs | None) -> Array:
    """Antineutrinos per fission and MeV of the four isotopes, shape ``(isotopes, nodes)``."""
    if inputs is not None:
        tables = [inputs.isotope_spectra[i] for i in reactor.ISOTOPES]
        return np.array([np.interp(e_nu, t.x, t.y) for t in tables])
    if experiment.reactor.spectrum == "huber-mueller":
        return np.asarray(_huber_mueller(e_nu))
    path = experiment.table(experiment.reactor.spectrum)
    grid, *columns = read_table(path, ("e_nu_MeV", *reactor.ISOTOPES))
    if grid.size < 2:
        raise NuebarError(f"{path}: expected a spectrum of at least two rows, got {grid.size}; complete the table")
    if np.any(np.array(columns) <= 0) or np.any(np.diff(grid) <= 0):
        raise NuebarError(f"{path}: expected increasing energies and positive spectra in every row")
    return np.array([np.asarray(reactor.tabulated_spectrum(e_nu, grid, c)) for c in columns])


def _shape(experiment: Experiment, e_nu: Array, inputs: CommonInputs | None) -> Array:
    """The factor on all spectra (bump and yield)."""
    if experiment.reactor.shape == "none":
        return np.ones_like(e_nu)
    if inputs is not None:
        # The common inputs give the total with the bump at Daya Bay's fractions; over the mix of the isotope
        # tables at these fractions it is the shape for any fuel.
        mix = {"U235": 0.564, "U238": 0.076, "Pu239": 0.304, "Pu241": 0.056}
        total = sum(f * np.interp(e_nu, *_xy(inputs.isotope_spectra[i])) for i, f in mix.items())
        return np.interp(e_nu, *_xy(inputs.dayabay_spectrum)) / total
    grid, ratio = _columns(experiment, experiment.reactor.shape, ("e_nu_MeV", "ratio"))
    return np.interp(e_nu, grid, ratio)


def _flux(experiment: Experiment, e_nu: Array, inputs: CommonInputs | None) -> tuple[Array, dict[str, Array]]:
    """Un-oscillated fluence of every core (per cm² and MeV), and its derivatives with respect to flux pulls."""
    r = experiment.reactor
    fissions = _fissions(experiment)
    baseline = np.array([c.baseline_km for c in r.cores])
    area = 4.0 * np.pi * (baseline * 1e5) ** 2
    spectra = _spectra(experiment, e_nu, inputs) * _shape(experiment, e_nu, inputs)
    noneq, spent = _corrections(experiment, e_nu, inputs)
    base = fissions @ spectra / area[:, None]
    added = fissions @ (spectra * noneq) / area[:, None]
    extras = {"nonequilibrium": added, "spent_fuel": base * spent}
    flux = base + added + base * spent
    isotope_events = fissions[:, :, None] * (spectra * (1.0 + noneq + spent))[None] / area[:, None, None]
    for k, isotope in enumerate(reactor.ISOTOPES):
        extras[f"fission_fraction_{isotope}"] = isotope_events[:, k] - flux * _energy_share(experiment, k)[:, None]
    nodes = np.array(r.segments_MeV)
    for k in range(nodes.size):
        extras[f"segment_{k + 1}"] = flux * np.interp(e_nu, nodes, np.eye(nodes.size)[k])
    return flux, extras


def _energy_share(experiment: Experiment, k: int) -> Array:
    """Slope d ln⟨E per fission⟩ / d ln f_k of each core: a larger fraction takes its share of the thermal power."""
    r = experiment.reactor
    out = []
    for core in r.cores:
        fractions = core.fission_fractions or r.fission_fractions
        weight = np.array([fractions[i] * r.energy_per_fission_MeV[i] for i in reactor.ISOTOPES])
        out.append(weight[k] / weight.sum())
    return np.array(out)


def _corrections(experiment: Experiment, e_nu: Array, inputs: CommonInputs | None) -> tuple[Array, Array]:
    """Relative additions: non-equilibrium per isotope (isotopes, nodes), and spent fuel (nodes,)."""
    r = experiment.reactor
    noneq, spent = np.zeros((4, e_nu.size)), np.zeros(e_nu.size)
    if r.nonequilibrium != "none":
        if inputs is not None:
            noneq += np.interp(e_nu, *_xy(inputs.non_equilibrium_ratio), right=0.0)
        else:
            grid, *columns = _columns(experiment, r.nonequilibrium, ("e_nu_MeV", *reactor.ISOTOPES))
            noneq = np.array([np.interp(e_nu, grid, c, right=0.0) for c in columns])
    if r.spent_fuel != "none":
        if inputs is not None:
            spent = np.interp(e_nu, *_xy(inputs.spent_fuel_ratio), right=0.0)
        else:
            grid, ratio = _columns(experiment, r.spent_fuel, ("e_nu_MeV", "ratio"))
            spent = np.interp(e_nu, grid, ratio, right=0.0)
    return noneq, spent


def _cross_section(experiment: Experiment, e_nu: Array, inputs: CommonInputs | None) -> Array:
    """IBD cross-section in cm²."""
    if experiment.reactor.cross_section == "strumia-vissani":
        if inputs is not None:
            return np.interp(e_nu, *_xy(inputs.ibd_cross_sections["strumia_vissani"]))
        return np.asarray(ibd.cross_section_strumia_vissani(e_nu))
    if inputs is not None:
        return np.interp(e_nu, *_xy(inputs.ibd_cross_sections["vogel_beacom"]))
    return np.asarray(ibd.cross_section_vogel_beacom(e_nu))


def _columns(experiment: Experiment, name: str, columns: tuple[str, ...]) -> tuple[Array, ...]:
    path = experiment.table(name)
    out = read_table(path, columns)
    if np.any(np.diff(out[0]) <= 0):
        raise NuebarError(f"{path}: column {columns[0]}: expected energies that increase from row to row")
    return out


def _xy(table: Table) -> tuple[Array, Array]:
    return table.x, table.y

"""The expected spectrum: signal of any predictor, backgrounds, and every nuisance parameter by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.histograms import Histogram
from nuebar.io.releases import CommonInputs, Juno2025Release, read_spectrum, read_table
from nuebar.parameters import Parameter, ParameterSet
from nuebar.physics.backgrounds import SHAPES
from nuebar.predict.box import PHYSICS, check_parameters
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import SignalInputs, signal_inputs
from nuebar.predict.stencil import Stencil
from nuebar.predict.store import load_harmonic

__all__ = ["Predictor", "SpectrumModel", "build_model", "rebin"]

Predictor = MatrixPredictor | HarmonicPredictor


class SpectrumModel(eqx.Module):
    """Expected counts per bin as a function of all parameters.

    Called with the vector of all parameters (in the order of ``names``) it gives the expected counts and the
    variance from bin-to-bin shape uncertainties: the form that :class:`nuebar.stats.likelihood.Bound` takes.
    Pulls act on any predictor alike: cores by their own channels, other flux pulls as a relative change of
    each fine bin (its un-oscillated ratio), energy pulls by :class:`nuebar.predict.stencil.Stencil`.

    Attributes:
        names: All parameters, in the order of the vector.
        edges_MeV: Analysis bins, shape ``(bins + 1,)`` as a tuple.
        background_names: Names of the backgrounds.
        predictor: The signal.
        shape_uncertainties: Whether the bin-to-bin variance is returned.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    background_names: tuple[str, ...] = eqx.field(static=True)
    signal_norms: tuple[str, ...] = eqx.field(static=True)
    core_names: tuple[str, ...] = eqx.field(static=True)
    tilt_names: tuple[str, ...] = eqx.field(static=True)
    shape_uncertainties: bool = eqx.field(static=True)
    predictor: Predictor
    stencil: Stencil
    tilts: Array
    bin_factor: Array
    nonlinearity_shifts: Array
    resolution: Array
    background_counts: Array
    background_slopes: Array
    signal_shape: Array
    background_shape: Array

    def __call__(self, x: ArrayLike) -> tuple[Array, Array]:
        """Expected counts and extra variance per bin, shape ``(bins,)`` each."""
        return _evaluate(self, x)[:2]

    def _evaluate(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Expected counts, extra variance, and the signal and backgrounds that they are made of."""
        if jnp.shape(x) != (len(self.names),):
            raise NuebarError(
                f"expected {len(self.names)} parameters ({', '.join(self.names)}), got shape {jnp.shape(x)}; "
                "make the vector with vector()"
            )
        values = dict(zip(self.names, x, strict=True))
        signal, fine = self._signal(values)
        backgrounds = self._backgrounds(values)
        expected = signal + jnp.sum(backgrounds, axis=0)
        if not self.shape_uncertainties:
            return expected, jnp.zeros_like(expected), signal, backgrounds
        variance = self.stencil.rebin((self.signal_shape * fine) ** 2) * self.bin_factor**2
        variance = variance + jnp.sum((self.background_shape[:, None] * backgrounds) ** 2, axis=0)
        return expected, variance, signal, backgrounds

    def vector(self, values: Mapping[str, float]) -> np.ndarray:
        """The parameter vector from values by name.

        Raises:
            NuebarError: A value is missing, unknown, not finite, unphysical or outside the predictor's box.
        """
        check_parameters(values, self.names, self.names)
        self.predictor.check({n: values[n] for n in PHYSICS})
        return np.array([values[n] for n in self.names], dtype=float)

    def components(self, values: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Expected counts per bin of the signal and of each background."""
        _, _, signal, backgrounds = _evaluate(self, self.vector(values))
        out = {"signal": np.asarray(signal)}
        return out | dict(zip(self.background_names, np.asarray(backgrounds), strict=True))

    def unoscillated(self) -> np.ndarray:
        """Signal counts per bin without oscillations, all pulls at zero."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.predictor.unoscillated())])
        return np.diff(cumulative[np.asarray(self.stencil.position)]) * np.asarray(self.bin_factor)

    def _signal(self, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Signal counts per analysis bin, and per fine bin before energy pulls."""
        channels = self.predictor.channels(jnp.stack([values[n] for n in PHYSICS]))
        fine = channels[0]
        if f"core_{self.core_names[0]}" in values:
            power = jnp.stack([values[f"core_{n}"] for n in self.core_names])
            fine = fine + power @ channels[1:]
        if self.tilt_names:
            fine = fine * (1.0 + jnp.stack([values[n] for n in self.tilt_names]) @ self.tilts)
        norm = jnp.asarray(1.0)
        for name in self.signal_norms:
            norm = norm * (1.0 + values[f"norm_{name}"])
        fine = norm * fine
        moving = [n for n in values if n.startswith(("energy_", "nonlinearity_", "resolution_"))]
        if not moving:
            return self.stencil.rebin(fine) * self.bin_factor, fine
        counts = self.stencil.moved(fine, self._shift(values), *self._widening(values))
        return counts * self.bin_factor, fine

    def _shift(self, values: Mapping[str, Array]) -> Array:
        """δ(e) at the analysis edges in MeV."""
        e = jnp.asarray(self.edges_MeV)
        shift = values.get("energy_scale", 0.0) * e + values.get("energy_offset_MeV", 0.0)
        for k in range(self.nonlinearity_shifts.shape[0]):
            shift = shift + values.get(f"nonlinearity_{k + 1}", 0.0) * self.nonlinearity_shifts[k]
        return shift

    def _widening(self, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Extra variance of the reconstructed energy at the analysis edges and its slope, from pulls on a, b, c."""
        e = jnp.asarray(self.edges_MeV)
        r = [(1.0 + values.get(f"resolution_{k}", 0.0)) ** 2 - 1.0 for k in "abc"]
        a2, b2, c2 = (self.resolution[k] ** 2 * r[k] for k in range(3))
        return a2 * e + b2 * e * e + c2, a2 + 2.0 * b2 * e

    def _backgrounds(self, values: Mapping[str, Array]) -> Array:
        """Counts of each background, shape ``(backgrounds, bins)``."""
        scale = jnp.stack([1.0 + values[f"bkg_{n}"] for n in self.background_names] or [jnp.zeros(())])
        slope = [values.get(f"slope_{n}", jnp.zeros(())) for n in self.background_names] or [jnp.zeros(())]
        return scale[:, None] * (self.background_counts + jnp.stack(slope)[:, None] * self.background_slopes)


_evaluate = jax.jit(SpectrumModel._evaluate)
"""One program for Asimov data, components and plots; inside another jit it is a part of that."""


def build_model(
    experiment: Experiment,
    *,
    predictor: str = "harmonic",
    release: Juno2025Release | None = None,
    inputs: CommonInputs | None = None,
    windows: Windows | None = None,
) -> tuple[SpectrumModel, ParameterSet]:
    """The model of an experiment and its parameters.

    Args:
        experiment: What to predict.
        predictor: ``"harmonic"``, ``"matrix"``, or the folder of a harmonic predictor built before.
        release: A release of data (curves, background shapes, un-oscillated spectrum), as the experiment says.
        inputs: JUNO's common inputs, which replace the embedded ones.
        windows: Ranges of the mass splittings for the harmonic predictor.

    Returns:
        The model, and all its parameters with priors and limits, in the order of the vector.
    """
    arrays = signal_inputs(experiment, release=release, inputs=inputs)
    if predictor == "harmonic":
        signal: Predictor = HarmonicPredictor.build(arrays, windows=windows, cores=experiment.systematics.core > 0)
    elif predictor == "matrix":
        signal = MatrixPredictor.build(arrays)
    elif (Path(predictor) / "model.json").is_file():
        signal = _stored(predictor, arrays)
    else:
        raise NuebarError(
            f"unknown predictor {predictor!r}; expected 'harmonic', 'matrix' or a folder made by 'nuebar predict build'"
        )
    try:
        parameters = _parameters(experiment, arrays, signal)
    except NuebarError as error:
        raise NuebarError(f"{experiment.source or experiment.name}: {error}") from error
    edges = np.array(experiment.binning.edges())
    counts = np.array(
        [_background_counts(experiment, b, edges, arrays, release, inputs) for b in experiment.backgrounds]
    ).reshape(len(experiment.backgrounds), edges.size - 1)
    stencil = Stencil.build(arrays.edges_MeV, edges)
    tilt_names = tuple(n for n in arrays.extras if n in parameters)
    total = arrays.response @ arrays.events.sum(axis=0)
    tilts = [arrays.response @ arrays.extras[n].sum(axis=0) / np.where(total > 0, total, 1.0) for n in tilt_names]
    model = SpectrumModel(
        names=parameters.names,
        edges_MeV=tuple(float(e) for e in edges),
        background_names=tuple(b.name for b in experiment.backgrounds),
        signal_norms=tuple(experiment.systematics.signal),
        core_names=arrays.core_names,
        tilt_names=tilt_names,
        shape_uncertainties=experiment.fit.shape_uncertainties,
        predictor=signal,
        stencil=stencil,
        tilts=jax.device_put(np.array(tilts).reshape(len(tilt_names), total.size)),
        bin_factor=jax.device_put(np.ones(edges.size - 1)),
        nonlinearity_shifts=jax.device_put(
            arrays.nonlinearity.pull_shifts(edges) if arrays.nonlinearity else np.zeros((0, edges.size))
        ),
        resolution=jax.device_put(np.array(experiment.response.resolution)),
        background_counts=jax.device_put(counts),
        background_slopes=jax.device_put(counts * _lever(counts, edges)),
        signal_shape=jax.device_put(_signal_shape(experiment, arrays.edges_MeV, inputs)),
        background_shape=jax.device_put(np.array([b.shape_sigma for b in experiment.backgrounds], dtype=float)),
    )
    if release is not None and experiment.release.unoscillated:
        model = _rescaled(model, release, edges)
    return model, parameters


def _stored(folder: str, arrays: SignalInputs) -> HarmonicPredictor:
    """A predictor from disk, refused if it was built from another experiment, exposure or response."""
    predictor = load_harmonic(folder)
    built, wanted = predictor.provenance.get("fingerprint"), arrays.provenance["fingerprint"]
    if built != wanted:
        raise NuebarError(
            f"{folder}: this predictor was built for {predictor.provenance.get('experiment')!r} with other flux, "
            f"exposure or response (fingerprint {built}, the experiment's is {wanted}); build it again"
        )
    return predictor


def rebin(histogram: Histogram, edges_MeV: np.ndarray) -> np.ndarray:
    """Counts in other bins, each bin of the histogram taken as flat; what lies outside is dropped."""
    with np.errstate(over="ignore", invalid="ignore"):  # whoever normalises refuses what is not finite
        cumulative = np.concatenate([[0.0], np.cumsum(histogram.counts)])
        return np.diff(np.interp(edges_MeV, histogram.edges, cumulative))


def _rescaled(model: SpectrumModel, release: Juno2025Release, edges: np.ndarray) -> SpectrumModel:
    """Scale the signal per bin to the un-oscillated spectrum of a release."""
    if release.edges_MeV.size != edges.size or np.any(np.abs(release.edges_MeV - edges) > 1e-6):
        raise NuebarError(
            f"the experiment has {edges.size - 1} bins and the release {release.edges_MeV.size - 1}, or their edges "
            "differ; correct binning in the experiment's file"
        )
    flat = model.unoscillated()
    if not np.all(flat > 0):
        raise NuebarError("expected a signal in every bin of the release, got none in some; correct the response")
    factor = release.unoscillated / flat
    return eqx.tree_at(lambda m: m.bin_factor, model, jax.device_put(factor))


# ---------------------------------------------------------------- parameters


def _parameters(experiment: Experiment, arrays: SignalInputs, predictor: Predictor) -> ParameterSet:
    """All parameters: oscillation, matter, flux, energy, backgrounds. Pulls are relative deviations around zero."""
    s = experiment.systematics
    out: list[Parameter] = list(experiment.oscillation_parameters())
    matter = experiment.matter
    out.append(
        Parameter(
            "matter_density_g_cm3",
            matter.density_g_cm3,
            matter.sigma_g_cm3 or None,
            (0.0, 20.0),
            unit="g/cm$^3$",
            fixed=matter.sigma_g_cm3 == 0,
        )
    )

    def pull(name: str, width: float) -> None:
        if width > 0:
            out.append(Parameter(name, 0.0, width))

    for name, width in s.signal.items():
        pull(f"norm_{name}", width)
    for name in arrays.core_names:
        pull(f"core_{name}", s.core)
    pull("spent_fuel", s.spent_fuel if np.any(arrays.extras["spent_fuel"]) else 0.0)
    pull("nonequilibrium", s.nonequilibrium if np.any(arrays.extras["nonequilibrium"]) else 0.0)
    for isotope, width in s.fission_fractions.items():
        pull(f"fission_fraction_{isotope}", width)
    for k in range(len(experiment.reactor.segments_MeV)):
        pull(f"segment_{k + 1}", experiment.reactor.segments_sigma)
    pull("energy_scale", s.energy_scale)
    pull("energy_offset_MeV", s.energy_offset_MeV)
    if s.nonlinearity and arrays.nonlinearity is not None:
        for k in range(len(arrays.nonlinearity.pulls)):
            pull(f"nonlinearity_{k + 1}", 1.0)
    for letter, width in zip("abc", s.resolution, strict=False):
        pull(f"resolution_{letter}", width)
    for b in experiment.backgrounds:
        out.append(Parameter(f"bkg_{b.name}", 0.0, b.rate_sigma or None, fixed=b.rate_sigma == 0))
        pull(f"slope_{b.name}", b.slope_sigma)
    return _within_box(ParameterSet(out), predictor)


def _within_box(parameters: ParameterSet, predictor: Predictor) -> ParameterSet:
    """Narrow the limits to the predictor's box, mirrored for the inverted ordering."""
    if not isinstance(predictor, HarmonicPredictor):
        return parameters
    predictor.check({n: parameters[n].value for n in PHYSICS})
    box: dict[str, tuple[float, float]] = dict(predictor.box)
    if parameters["dm2_31_eV2"].value < 0:
        box["dm2_31_eV2"] = predictor.windows.inverted()
    changes: dict[str, Any] = {}
    for name, (low, high) in box.items():
        old_low, old_high = parameters[name].bounds
        if parameters["dm2_31_eV2"].value < 0 and name == "dm2_31_eV2":
            old_low, old_high = None, None  # a file states the normal ordering's limits
        changes[name] = {
            "bounds": (
                low if old_low is None else max(low, old_low),
                high if old_high is None else min(high, old_high),
            )
        }
    return parameters.updated(**changes)


# ---------------------------------------------------------------- backgrounds and shapes


def _background_counts(
    experiment: Experiment,
    background: Any,
    edges: np.ndarray,
    arrays: SignalInputs,
    release: Juno2025Release | None,
    inputs: CommonInputs | None,
) -> np.ndarray:
    """Counts per bin of one background at its nominal rate."""
    total = background.rate_per_day * experiment.exposure.days
    where = f"{experiment.source or experiment.name}: key 'backgrounds.{background.name}.shape'"
    if release is not None and experiment.release.backgrounds and background.name in release.backgrounds:
        return total * _normalised(release.backgrounds[background.name], where)
    if inputs is not None and background.name in ("geoneutrinos", *inputs.backgrounds):
        parts = ("geoneutrinos_U", "geoneutrinos_Th") if background.name == "geoneutrinos" else (background.name,)
        counts = sum(rebin(inputs.backgrounds[p], edges) for p in parts)
        return total * _normalised(np.asarray(counts), where)
    return total * _shape(experiment, background, edges, arrays, where)


def _shape(experiment: Experiment, background: Any, edges: np.ndarray, arrays: SignalInputs, where: str) -> np.ndarray:
    """Bin fractions of a background from the built-in shapes or a user's histogram."""
    shape = background.shape
    if isinstance(shape, str) and shape not in SHAPES:
        return _normalised(rebin(read_spectrum(experiment.table(shape)), edges), where)
    weights = {shape: 1.0} if isinstance(shape, str) else shape
    unknown = [n for n in weights if n not in SHAPES]
    if unknown:
        raise NuebarError(
            f"{where}: unknown shape {unknown[0]!r}; expected some of {', '.join(SHAPES)}, or the path of a histogram"
        )
    a, b, c = experiment.response.resolution
    # The shapes are in deposited energy; the positron curve is what the reconstructed energy knows.
    response = None if arrays.nonlinearity is None else arrays.nonlinearity.visible
    try:
        total = sum(w * np.asarray(SHAPES[n](edges, (a, b, c), response=response)) for n, w in weights.items())
    except NuebarError as error:
        raise NuebarError(f"{where}: {error}") from error
    return _normalised(np.asarray(total), where)


def _normalised(counts: np.ndarray, where: str) -> np.ndarray:
    total = counts.sum()
    if not 0 < total < np.inf:
        raise NuebarError(
            f"{where}: expected a histogram with a finite, positive content in the analysis range, got {total:g}; "
            "check its edges and counts"
        )
    return counts / total


def _lever(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Energy minus the mean energy of each background: a tilt that keeps the rate."""
    centre = 0.5 * (edges[1:] + edges[:-1])
    total = counts.sum(axis=1, keepdims=True)
    mean = (counts @ centre)[:, None] / np.where(total > 0, total, 1.0)
    return centre - mean


def _signal_shape(experiment: Experiment, fine_edges: np.ndarray, inputs: CommonInputs | None) -> np.ndarray:
    """Relative bin-to-bin uncertainty of the signal in each fine bin."""
    s = experiment.systematics
    centre = 0.5 * (fine_edges[1:] + fine_edges[:-1])
    if s.spectrum_shape == "none":
        return np.zeros_like(centre)
    if inputs is not None and s.spectrum_shape == "tao_shape.csv":
        tao = inputs.shape_uncertainties["tao"]
        relative = np.interp(centre, 0.5 * (tao.edges[1:] + tao.edges[:-1]), tao.counts)
    else:
        path = experiment.table(s.spectrum_shape)
        energy, error = read_table(path, ("e_MeV", "relative"))
        if np.any(np.diff(energy) <= 0) or np.any((error < 0) | (error > 100)):
            raise NuebarError(f"{path}: expected e_MeV that increases and relative from 0 to 100 in every row")
        relative = np.interp(centre, energy, error)
    # Uncorrelated between bins of the reference width: narrower bins fluctuate more.
    return relative * np.sqrt(s.spectrum_shape_width_MeV / np.diff(fine_edges))

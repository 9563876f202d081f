"""Several detectors that see the same reactors, as one model: a near detector measures the spectrum for a far one.

The bins of all detectors stand side by side, so that a fit, toys or an ordering study take the joint model like any
other. The signal is one harmonic predictor whose cores are the pairs of a core and a detector; pulls that are the same
physics have one name, those of the second detector's own end with its name (``energy_scale_tao``).

A free reactor spectrum is a factor on all spectra, piecewise linear in the neutrino energy between the nodes of
:func:`free_spectrum` (``segment_1`` … in the fit), and takes the place of an uncertainty from bin to bin. A node moves
a reconstructed bin by its share of the *oscillated* counts at the nominal parameters: exact to first order there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.config import Experiment, override
from nuebar.errors import NuebarError
from nuebar.io.releases import CommonInputs
from nuebar.parameters import OSCILLATION, Parameter, ParameterSet
from nuebar.predict.box import PHYSICS
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.nuisances import within_box
from nuebar.predict.side_by_side import SideBySide
from nuebar.predict.signal import SignalInputs, signal_inputs
from nuebar.predict.spectrum import SpectrumModel, build_model
from nuebar.predict.stencil import Stencil

__all__ = ["SHARED", "JointModel", "free_spectrum", "joint_model", "spectrum_nodes", "without_tilts"]

SHARED = (*PHYSICS, "norm_flux", "core_", "spent_fuel", "nonequilibrium", "segment_", "nonlinearity_")
"""Beginnings of the names of parameters that all detectors share: oscillation and matter, the flux as a whole, powers
of cores of the same name, spent fuel and non-equilibrium, the spectrum, and the non-linearity of one scintillator."""

SEGMENT = "segment_"
LOWEST_MeV, HIGHEST_MeV = 1.8, 9.0  # beyond them the factor is that of the last node: few events are there
SPACING_MeV = 0.05


def spectrum_nodes(
    spacing_MeV: float = SPACING_MeV, low_MeV: float = LOWEST_MeV, high_MeV: float = HIGHEST_MeV
) -> tuple[float, ...]:
    """Nodes of a free spectrum at even distances of the neutrino energy; above 8 MeV, 0.25 MeV at least.

    Args:
        spacing_MeV: Distance. A wave of Δm²31 at 52.5 km is 0.019 MeV (E/MeV)² long, and TAO resolves 1 to 2 %.
        low_MeV: First node.
        high_MeV: Last node.

    Raises:
        NuebarError: The numbers leave no interval.
    """
    if not (0.005 <= spacing_MeV <= 2.0 and 0 < low_MeV < high_MeV - spacing_MeV):
        raise NuebarError(
            f"free spectrum: expected a spacing of 0.005 to 2 MeV between {low_MeV:g} and {high_MeV:g} MeV, got "
            f"{spacing_MeV:g}"
        )
    middle = min(8.0, high_MeV)
    fine = np.arange(low_MeV, middle - 0.5 * spacing_MeV, spacing_MeV)
    coarse = np.arange(middle, high_MeV - 0.125, max(spacing_MeV, 0.25))
    return tuple(float(np.round(x, 9)) for x in (*fine, *coarse, high_MeV))


def free_spectrum(
    experiment: Experiment, *, nodes_MeV: Sequence[float] | None = None, sigma: float = 0.5
) -> Experiment:
    """The experiment with a free reactor spectrum instead of an uncertainty from bin to bin.

    Args:
        experiment: The experiment.
        nodes_MeV: Neutrino energies, increasing; those of :func:`spectrum_nodes` by default.
        sigma: Relative prior width of every node: 0.5 constrains nothing that any detector measures, 0.05 is what
            models of the spectrum claim.
    """
    nodes = spectrum_nodes() if nodes_MeV is None else tuple(nodes_MeV)
    return override(
        experiment,
        {"reactor.segments_MeV": nodes, "reactor.segments_sigma": sigma, "systematics.spectrum_shape": "none"},
    )


class _Given(eqx.Module):
    """What the joint predictor gave for one detector, as a predictor."""

    names: tuple[str, ...] = eqx.field(static=True)
    value: Array

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.names

    def channels(self, p: ArrayLike) -> Array:
        return self.value


class JointModel(SpectrumModel):
    """Expected counts of several detectors, one after the other.

    Arrays that a study changes (``bin_factor``, backgrounds, shapes, tilts) are those of all detectors; pulls of the
    energies are computed by each detector's own model.

    Attributes:
        parts: The detectors' models; their counts, shapes and tilts are those of the joint model.
        detectors: Their names.
        aliases: Of each detector, its own name of every parameter that is called otherwise in the joint model.
    """

    parts: tuple[SpectrumModel, ...]
    detectors: tuple[str, ...] = eqx.field(static=True)
    aliases: tuple[tuple[tuple[str, str], ...], ...] = eqx.field(static=True)

    def __call__(self, x: ArrayLike) -> tuple[Array, Array]:
        """Expected counts and extra variance per bin, those of all detectors."""
        return _evaluate(self, x)[:2]

    def _evaluate(self, x: Array) -> tuple[Array, Array, Array, Array]:
        if jnp.shape(x) != (len(self.names),):
            raise NuebarError(
                f"expected {len(self.names)} parameters, got shape {jnp.shape(x)}; make the vector with vector()"
            )
        values = dict(zip(self.names, x, strict=True))
        channels = self.predictor.channels(self._physics(values))
        expected, variance, signal, rows = [], [], [], []
        for k in range(len(self.parts)):
            part, own = self.detector(k, channels=channels)
            mu, more, seen, backgrounds = part._evaluate(jnp.stack([values[n] for n in own]))
            expected.append(mu)
            variance.append(more)
            signal.append(seen)
            first = self._span(k, "bins").start
            after = len(self.edges_MeV) - 1 - self._span(k, "bins").stop
            rows.append(jnp.pad(backgrounds, ((0, 0), (first, after))))
        together = (jnp.concatenate(a) for a in (expected, variance, signal))
        return (*together, jnp.concatenate(rows))  # type: ignore[return-value]

    def detector(self, k: int, *, channels: Array | None = None) -> tuple[SpectrumModel, tuple[str, ...]]:
        """The model of one detector, and its parameters' names in the joint model, in the order of its vector.

        Args:
            k: Its number.
            channels: What the joint predictor gave; its model then stands at these oscillation parameters.
        """
        part, alias = self.parts[k], dict(self.aliases[k])
        own = tuple(n for n in part.names if alias.get(n, n) in self.names)
        tilts = tuple(n for n in part.tilt_names if n in own)
        fine, bins, rows = (self._span(k, what) for what in ("fine", "bins", "backgrounds"))
        at = np.array([self.tilt_names.index(alias.get(n, n)) for n in tilts], int)
        predictor: Any = part.predictor
        if channels is not None:
            cores = self._span(k, "cores")
            kept = channels[:1, fine]
            if channels.shape[0] > 1:
                kept = jnp.concatenate([kept, channels[1 + cores.start : 1 + cores.stop, fine]])
            predictor = _Given(self.predictor.parameter_names, kept)
        model = replace(
            part,
            names=own,
            tilt_names=tilts,
            predictor=predictor,
            tilts=self.tilts[at][:, fine],
            bin_factor=self.bin_factor[bins],
            background_counts=self.background_counts[rows, bins],
            background_slopes=self.background_slopes[rows, bins],
            background_shape=self.background_shape[rows],
            signal_shape=self.signal_shape[fine],
            shape_uncertainties=self.shape_uncertainties,
        )
        return model, tuple(alias.get(n, n) for n in own)

    def components(self, values: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Expected counts per bin of the signal and of each background."""
        _, _, signal, backgrounds = _evaluate(self, self.vector(values))
        out = {"signal": np.asarray(signal)}
        return out | dict(zip(self.background_names, np.asarray(backgrounds), strict=True))

    def unoscillated(self) -> np.ndarray:
        """Signal counts per bin without oscillations, all pulls at zero."""
        fine = jnp.asarray(self.predictor.unoscillated())
        each = [p.stencil.rebin(fine[self._span(k, "fine")]) for k, p in enumerate(self.parts)]
        return np.concatenate([np.asarray(e) for e in each]) * np.asarray(self.bin_factor)

    def core_counts(self, values: Mapping[str, float]) -> dict[str, float]:
        """Signal counts of each core in all detectors, all pulls at zero."""
        raise NuebarError("a joint model has no counts of single cores; ask the model of one detector")

    def mc_covariance(self, values: Mapping[str, float]) -> np.ndarray:
        """A joint model is made of integrals, without Monte Carlo events."""
        raise NuebarError("a joint model has no Monte Carlo error: it is made of integrals; leave it out")

    def split(self, per_bin: ArrayLike) -> tuple[np.ndarray, ...]:
        """Numbers per bin of each detector."""
        return tuple(np.asarray(per_bin)[..., self._span(k, "bins")] for k in range(len(self.parts)))

    def _span(self, k: int, what: str) -> slice:
        """Where a detector's bins, fine bins, backgrounds or cores stand."""
        size = [_size(p, what) for p in self.parts]
        return slice(sum(size[:k]), sum(size[: k + 1]))


_evaluate = jax.jit(JointModel._evaluate)


def _size(part: SpectrumModel, what: str) -> int:
    if what == "bins":
        return len(part.edges_MeV) - 1
    if what == "fine":
        return int(part.signal_shape.shape[0])
    return len(part.background_names) if what == "backgrounds" else len(part.core_names)


def joint_model(
    experiments: Sequence[Experiment],
    *,
    inputs: CommonInputs | None = None,
    windows: Windows | None = None,
    own: Sequence[str] = (),
) -> tuple[JointModel, ParameterSet]:
    """The joint model of detectors that see the same reactors, and its parameters.

    Args:
        experiments: The detectors, with the same nodes of a free spectrum or none; the first one says what all share:
            oscillation parameters, matter, and the widths of common pulls.
        inputs: JUNO's common inputs, for all detectors.
        windows: Ranges of the mass splittings.
        own: Beginnings of names that are not to be shared, although :data:`SHARED` has them.

    Returns:
        The model, and its parameters in the order of the vector.

    Raises:
        NuebarError: Detectors have one name, other nodes, or cannot share a core's power.
    """
    _check(experiments)
    arrays = tuple(signal_inputs(e, inputs=inputs) for e in experiments)
    built = [build_model(e, predictor="matrix", inputs=inputs) for e in experiments]
    source = SideBySide(arrays)
    cores = any(e.systematics.core > 0 for e in experiments)
    predictor = HarmonicPredictor.build(source, windows=windows, cores=cores)
    aliases = [_aliases(e, b[1], k, own) for k, (e, b) in enumerate(zip(experiments, built, strict=True))]
    parts = [_with_segments(m, p, a) for (m, p), a in zip(built, arrays, strict=True)]
    parameters = _union([p for _, p in built], aliases)
    edges = [np.array(m.edges_MeV) + d for m, d in zip(parts, source.moved_MeV, strict=True)]
    model = JointModel(
        names=parameters.names,
        edges_MeV=tuple(float(e) for e in np.concatenate([edges[0], *(e[1:] for e in edges[1:])])),
        background_names=tuple(
            alias.get(f"bkg_{n}", f"bkg_{n}").removeprefix("bkg_")
            for m, alias in zip(parts, aliases, strict=True)
            for n in m.background_names
        ),
        signal_norms=(),
        core_names=source.core_names,
        shape_uncertainties=experiments[0].fit.shape_uncertainties,
        predictor=predictor,
        stencil=_places(parts),
        nonlinearity_shifts=jnp.zeros((0, 0)),
        resolution=jnp.zeros(0),
        bin_factor=jax.device_put(np.concatenate([m.bin_factor for m in parts])),
        background_counts=_blocks([m.background_counts for m in parts]),
        background_slopes=_blocks([m.background_slopes for m in parts]),
        signal_shape=jax.device_put(np.concatenate([m.signal_shape for m in parts])),
        background_shape=jax.device_put(np.concatenate([m.background_shape for m in parts])),
        core_shares=jnp.zeros((0, source.edges_MeV.size - 1)),
        prior=parts[0].prior,
        parts=tuple(_bare(m) for m in parts),
        detectors=tuple(e.name for e in experiments),
        aliases=tuple(tuple(a.items()) for a in aliases),
        **_tilts(parts, aliases, parameters),
    )
    return model, within_box(parameters, predictor)


def without_tilts(model: SpectrumModel, names: Sequence[str]) -> SpectrumModel:
    """The model with some pulls of the flux taken out, as if they were fixed at zero."""
    kept = [k for k, n in enumerate(model.tilt_names) if n not in names]
    return replace(
        model,
        names=tuple(n for n in model.names if n not in names),
        tilt_names=tuple(model.tilt_names[k] for k in kept),
        tilts=model.tilts[np.array(kept, int)],
    )


def _check(experiments: Sequence[Experiment]) -> None:
    names = [e.name for e in experiments]
    if not names or len(set(names)) < len(names):
        raise NuebarError(f"joint model: expected detectors of different names, got {names}; rename one")
    first = experiments[0]
    for e in experiments[1:]:
        if e.reactor.segments_MeV != first.reactor.segments_MeV:
            raise NuebarError(
                f"joint model: {e.name} has {len(e.reactor.segments_MeV)} nodes of a free spectrum and {first.name} "
                f"{len(first.reactor.segments_MeV)}, or others; give both the same with free_spectrum()"
            )


def _aliases(experiment: Experiment, parameters: ParameterSet, k: int, own: Sequence[str]) -> dict[str, str]:
    """Name of every parameter of a detector's own: with the name of the detector at its end."""
    if k == 0:
        return {}
    shared = tuple(SHARED)

    def is_own(name: str) -> bool:
        return not name.startswith(shared) or (bool(own) and name.startswith(tuple(own)))

    return {n: f"{n}_{experiment.name}" for n in parameters if is_own(n)}


def _union(sets: Sequence[ParameterSet], aliases: Sequence[Mapping[str, str]]) -> ParameterSet:
    """All parameters; of those that are shared, the first detector's."""
    out: dict[str, Parameter] = {}
    for parameters, alias in zip(sets, aliases, strict=True):
        for name, p in parameters.items():
            new = alias.get(name, name)
            if new not in out:
                out[new] = replace(p, name=new)
    return ParameterSet(list(out.values()))


def _with_segments(model: SpectrumModel, parameters: ParameterSet, arrays: SignalInputs) -> SpectrumModel:
    """Tilts of a free spectrum as shares of the oscillated counts at the nominal parameters."""
    names = [n for n in model.tilt_names if n.startswith(SEGMENT)]
    if not names:
        return model
    p = jnp.array([*(parameters[n].value for n in OSCILLATION), parameters[PHYSICS[-1]].value])
    survival = np.asarray(_survival(MatrixPredictor.build(arrays), p))
    total = arrays.response @ (arrays.events * survival).sum(axis=0)
    tilts = np.array(model.tilts)
    for n in names:
        moved = arrays.response @ (arrays.extras[n] * survival).sum(axis=0)
        tilts[model.tilt_names.index(n)] = moved / np.where(total > 0, total, 1.0)
    return eqx.tree_at(lambda m: m.tilts, model, jax.device_put(tilts))


@jax.jit
def _survival(predictor: MatrixPredictor, p: Array) -> Array:
    return predictor.survival(p)


def _tilts(
    parts: Sequence[SpectrumModel], aliases: Sequence[Mapping[str, str]], parameters: ParameterSet
) -> dict[str, Any]:
    """Names and rows of the tilts of all detectors; zero where a detector does not have one."""
    fine = [_size(m, "fine") for m in parts]
    known = {a.get(n, n) for m, a in zip(parts, aliases, strict=True) for n in m.tilt_names}
    names = tuple(n for n in parameters if n in known)
    rows = np.zeros((len(names), sum(fine)))
    for k, (m, alias) in enumerate(zip(parts, aliases, strict=True)):
        for j, n in enumerate(m.tilt_names):
            rows[names.index(alias.get(n, n)), sum(fine[:k]) : sum(fine[: k + 1])] = np.asarray(m.tilts[j])
    return {"tilt_names": names, "tilts": jax.device_put(rows)}


def _blocks(arrays: Sequence[Array]) -> Array:
    """A matrix with these along its diagonal."""
    shapes = np.array([a.shape for a in arrays])
    out = np.zeros(shapes.sum(axis=0))
    row, column = 0, 0
    for a in arrays:
        out[row : row + a.shape[0], column : column + a.shape[1]] = np.asarray(a)
        row, column = row + a.shape[0], column + a.shape[1]
    return jax.device_put(out)


def _places(parts: Sequence[SpectrumModel]) -> Stencil:
    """Where the edges of the analysis stand on the common axis; detectors move energies with their own stencils."""
    first = 0
    out = [np.asarray(parts[0].stencil.position)]
    for before, part in pairwise(parts):
        first += _size(before, "fine")
        out.append(first + np.asarray(part.stencil.position)[1:])
    return Stencil(jnp.zeros((0, 0), int), jnp.zeros((0, 0, 0)), jnp.asarray(np.concatenate(out)))


def _bare(model: SpectrumModel) -> SpectrumModel:
    """A detector's model without its predictor and without the arrays that the joint model has."""
    nothing: Any = _Given(model.predictor.parameter_names, jnp.zeros((1, 0)))
    return replace(model, predictor=nothing)

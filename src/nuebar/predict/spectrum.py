"""The expected spectrum: signal of any predictor, backgrounds, and every nuisance parameter by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.io.releases import CommonInputs, Juno2025Release
from nuebar.parameters import OSCILLATION, ParameterSet
from nuebar.predict.background_counts import background_counts, lever, rebin, signal_shape
from nuebar.predict.box import PHYSICS, Box, Provenance, check_parameters
from nuebar.predict.build import check_reactors, from_pairs
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.mc_error import mc_covariance, summed_mc
from nuebar.predict.nuisances import JointPrior, model_parameters
from nuebar.predict.signal import SignalInputs, experiment_edges, signal_inputs
from nuebar.predict.stencil import Stencil
from nuebar.predict.sterile import SterilePredictor, with_sterile
from nuebar.predict.store import load_predictor, predictor_folder

if TYPE_CHECKING:
    from nuebar.predict.pairs import Pairs

__all__ = ["Predictor", "SpectrumModel", "build_model", "rebin"]


class Predictor(Protocol):
    """What a model needs of a predictor, whatever its kind; see :class:`nuebar.predict.harmonic.HarmonicPredictor`.

    One with response parameters also has ``nominal() -> dict``; one that takes Δm²31 < 0 but has a box also has
    ``windows``; one that knows its Monte Carlo error has ``errors`` or ``mc_covariance``.
    """

    @property
    def name(self) -> str:
        """What it is called in results."""
        ...

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV."""
        ...

    @property
    def box(self) -> Box:
        """Limits of the parameters that have some."""
        ...

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What it takes, in the order of the vector."""
        ...

    @property
    def core_names(self) -> tuple[str, ...]:
        """Cores that it tells apart."""
        ...

    @property
    def provenance(self) -> Provenance:
        """What it was built from."""
        ...

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Counts per bin, checked."""
        ...

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together, then of each that it tells apart."""
        ...

    def unoscillated(self) -> Any:
        """Counts per bin without oscillations."""
        ...

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse parameters outside the box."""
        ...


MOVING = ("energy_", "nonlinearity_", "resolution_")


class SpectrumModel(eqx.Module):
    """Expected counts per bin as a function of all parameters.

    Called with the vector of all parameters (in the order of ``names``) it gives the expected counts and the
    variance from bin-to-bin shape uncertainties: the form that :class:`nuebar.stats.likelihood.Bound` takes.
    Pulls act on any predictor alike: cores by their own channels, or by their shares of every bin where the
    predictor only has the sum; other flux pulls as a relative change of each fine bin (its un-oscillated ratio),
    energy pulls by :class:`nuebar.predict.stencil.Stencil` unless the predictor takes them itself.

    Attributes:
        names: All parameters, in the order of the vector.
        edges_MeV: Analysis bins, shape ``(bins + 1,)`` as a tuple.
        background_names: Names of the backgrounds.
        predictor: The signal.
        shape_uncertainties: Whether the bin-to-bin variance is returned.
        core_shares: Share of each core in every fine bin at the nominal oscillation parameters, shape ``(cores,
            fine bins)``; no rows where the predictor tells cores apart.
        prior: What is known of several parameters together, from a calibration.
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
    core_shares: Array
    prior: JointPrior

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
        self.predictor.check({n: values[n] for n in self.predictor.parameter_names})
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

    def core_counts(self, values: Mapping[str, float]) -> dict[str, float]:
        """Signal counts of each core inside the analysis bins, all pulls at zero."""
        channels = np.asarray(_channels(self.predictor, self._physics(values)))
        each = channels[1:] if not self.core_shares.shape[0] else channels[0] * np.asarray(self.core_shares)
        inside = np.array([np.asarray(self.stencil.rebin(c)) for c in each]) @ np.asarray(self.bin_factor)
        return dict(zip(self.core_names, inside.tolist(), strict=True))

    def mc_covariance(self, values: Mapping[str, float]) -> np.ndarray:
        """Covariance of the counts from the finite number of Monte Carlo events.

        Returns:
            Variances, shape ``(bins,)``, or where bins share events the covariance, ``(bins, bins)``.

        Raises:
            NuebarError: The predictor does not know it.
        """
        found = mc_covariance(self.predictor, {n: values[n] for n in self.predictor.parameter_names})
        covariance = summed_mc(found, np.asarray(self.stencil.position))
        factor = np.asarray(self.bin_factor)
        return covariance * (factor**2 if covariance.ndim == 1 else np.outer(factor, factor))

    def _physics(self, values: Mapping[str, Any]) -> Array:
        """The vector that the predictor takes."""
        return jnp.stack([jnp.asarray(values[n], float) for n in self.predictor.parameter_names])

    def _signal(self, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Signal counts per analysis bin, and per fine bin before energy pulls."""
        channels = self.predictor.channels(self._physics(values))
        fine = channels[0]
        if f"core_{self.core_names[0]}" in values:
            power = jnp.stack([values[f"core_{n}"] for n in self.core_names])
            relative = self.core_shares.shape[0] > 0
            fine = fine * (1.0 + power @ self.core_shares) if relative else fine + power @ channels[1:]
        if self.tilt_names:
            fine = fine * (1.0 + jnp.stack([values[n] for n in self.tilt_names]) @ self.tilts)
        norm = jnp.asarray(1.0)
        for name in self.signal_norms:
            norm = norm * (1.0 + values[f"norm_{name}"])
        fine = norm * fine
        own = self.predictor.parameter_names
        moving = {n: v for n, v in values.items() if n.startswith(MOVING) and n not in own}
        if not moving:
            return self.stencil.rebin(fine) * self.bin_factor, fine
        counts = self.stencil.moved(fine, self._shift(moving), *self._widening(moving))
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


@jax.jit
def _channels(predictor: Any, p: Array) -> Array:
    return predictor.channels(p)


def build_model(
    experiment: Experiment,
    *,
    predictor: str | os.PathLike[str] | Predictor = "harmonic",
    pairs: Pairs | None = None,
    posterior: ResponsePosterior | None = None,
    release: Juno2025Release | None = None,
    inputs: CommonInputs | None = None,
    windows: Windows | None = None,
    sterile: bool = False,
) -> tuple[SpectrumModel, ParameterSet]:
    """The model of an experiment and its parameters.

    Where the bins of the predictor contain those of the experiment, these are the bins of the analysis; otherwise
    they are the predictor's own.

    Args:
        experiment: What to predict.
        predictor: ``"harmonic"`` or ``"matrix"`` (from ``pairs`` if given, else from the experiment),
            ``"reweight"`` (from ``pairs``), ``"surrogate"`` or ``"network"`` (those that ship with nuebar), a folder
            made by ``nuebar predict build``, or a predictor.
        pairs: Monte Carlo pairs; they are normalised to the experiment.
        posterior: What a calibration knows of the response; it frees these parameters, with one joint prior.
        release: A release of data (curves, background shapes, un-oscillated spectrum), as the experiment says.
        inputs: JUNO's common inputs, which replace the embedded ones.
        windows: Ranges of the mass splittings for the harmonic predictor.
        sterile: Add a sterile state without mixing, its two parameters fixed; an experiment whose oscillation table
            has them needs no word. Then every bin is computed by direct integration, whatever the predictor's name.

    Returns:
        The model, and all its parameters with priors and limits, in the order of the vector.

    Raises:
        NuebarError: Experiment, predictor, pairs and posterior do not go together.
    """
    options: dict[str, Any] = {"release": release, "inputs": inputs}
    experiment = with_sterile(experiment) if sterile and not experiment.sterile else experiment
    signal, arrays = _signal(experiment, predictor, pairs, windows, options)
    try:
        parameters = model_parameters(experiment, arrays, signal, posterior)
    except NuebarError as error:
        raise NuebarError(f"{experiment.source or experiment.name}: {error}") from error
    edges = _analysis_edges(experiment, signal)
    counts = np.array(
        [background_counts(experiment, b, edges, arrays, release, inputs) for b in experiment.backgrounds]
    ).reshape(len(experiment.backgrounds), edges.size - 1)
    stencil = Stencil.build(signal.edges, edges)
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
        bin_factor=jax.device_put(np.full(edges.size - 1, _scale(signal, arrays))),
        nonlinearity_shifts=jax.device_put(
            arrays.nonlinearity.pull_shifts(edges) if arrays.nonlinearity else np.zeros((0, edges.size))
        ),
        resolution=jax.device_put(np.array(experiment.response.resolution)),
        background_counts=jax.device_put(counts),
        background_slopes=jax.device_put(counts * lever(counts, edges)),
        signal_shape=jax.device_put(signal_shape(experiment, signal.edges, inputs)),
        background_shape=jax.device_put(np.array([b.shape_sigma for b in experiment.backgrounds], dtype=float)),
        core_shares=jax.device_put(_core_shares(experiment, signal, arrays)),
        prior=JointPrior.of(posterior),
    )
    if release is not None and experiment.release.unoscillated:
        model = _rescaled(model, release, edges)
    return model, parameters


def _signal(
    experiment: Experiment,
    predictor: str | os.PathLike[str] | Predictor,
    pairs: Pairs | None,
    windows: Windows | None,
    options: dict[str, Any],
) -> tuple[Any, SignalInputs]:
    """The predictor, and the arrays of the experiment on its bins."""
    word = os.fspath(predictor) if isinstance(predictor, str | os.PathLike) else None
    if experiment.sterile:
        if isinstance(predictor, SterilePredictor) and pairs is None:
            return predictor, signal_inputs(experiment, edges=_own_edges(predictor, experiment), **options)
        if pairs is not None or word not in ("harmonic", "matrix", "sterile"):
            raise NuebarError(
                "a sterile state is predicted from the experiment itself: leave pairs and other predictors out, "
                f"got {'pairs' if pairs is not None else repr(word or predictor.name)}"  # type: ignore[union-attr]
            )
        arrays = signal_inputs(experiment, **options)
        return SterilePredictor.build(arrays), arrays
    if pairs is not None:
        if word is None:
            raise NuebarError(f"expected a predictor or pairs to build one from, got {predictor!r} and pairs")
        arrays = signal_inputs(experiment, edges=pairs.edges_MeV, **options)
        return from_pairs(word, pairs, experiment, arrays, windows=windows), arrays
    if word in ("harmonic", "matrix", "surrogate", "network") and (Path(word) / "model.json").is_file():
        raise NuebarError(
            f"{word!r} is a predictor by name and a folder here; write ./{word} for the folder, or rename it for the "
            "predictor"
        )
    if word in ("harmonic", "matrix"):
        arrays = signal_inputs(experiment, **options)
        if word == "matrix":
            return MatrixPredictor.build(arrays), arrays
        return HarmonicPredictor.build(arrays, windows=windows, cores=experiment.systematics.core > 0), arrays
    if word == "reweight":
        raise NuebarError("the reweight predictor needs Monte Carlo pairs, got none; give --pairs FILES or a folder")
    chosen: Any = predictor if word is None else load_predictor(predictor_folder(word))
    where = word or f"the {chosen.name} predictor"
    if "fingerprint" in chosen.provenance:  # made from the arrays of an experiment
        arrays = signal_inputs(experiment, edges=_own_edges(chosen, experiment), **options)
        _check_fingerprint(chosen, arrays, where)
    else:
        arrays = signal_inputs(experiment, edges=chosen.edges, **options)
        check_reactors(chosen, arrays, where)
    return chosen, arrays


def _own_edges(predictor: Any, experiment: Experiment) -> np.ndarray | None:
    """The bins of the predictor, or None where they are the fine bins of the experiment."""
    edges, wanted = predictor.edges, experiment_edges(experiment)
    same = edges.shape == wanted.shape and np.allclose(edges, wanted, rtol=0.0, atol=1e-9)
    return None if same else edges


def _check_fingerprint(predictor: Any, arrays: SignalInputs, where: str) -> None:
    """Refuse a predictor that was built from another experiment, exposure or response."""
    built, wanted = predictor.provenance.get("fingerprint"), arrays.provenance["fingerprint"]
    if built != wanted:
        raise NuebarError(
            f"{where}: this predictor was built for {predictor.provenance.get('experiment')!r} with other flux, "
            f"exposure or response (fingerprint {built}, the experiment's is {wanted}); build it again"
        )


def _analysis_edges(experiment: Experiment, predictor: Any) -> np.ndarray:
    """The experiment's bins, or where the predictor does not have them its own."""
    edges = np.array(experiment.binning.edges())
    inside = np.all(np.abs(predictor.edges[:, None] - edges).min(axis=0) < 1e-6)
    return edges if inside else np.array(predictor.edges)


def _scale(predictor: Any, arrays: SignalInputs) -> float:
    """Un-oscillated events of the experiment now over those that the predictor was normalised to."""
    built = predictor.provenance.get("unoscillated_events")
    return 1.0 if built is None else float(arrays.events.sum()) / float(built)


def _core_shares(experiment: Experiment, predictor: Any, arrays: SignalInputs) -> np.ndarray:
    """Shares of the cores in every fine bin, from direct integration; no rows where they are not needed."""
    if experiment.systematics.core == 0 or tuple(predictor.core_names) == arrays.core_names:
        return np.zeros((0, arrays.edges_MeV.size - 1))
    values = [experiment.oscillation[n].value for n in OSCILLATION]
    p = jnp.array([*values, experiment.matter.density_g_cm3 if PHYSICS[-1] in predictor.parameter_names else 0.0])
    total, *each = np.asarray(_channels(MatrixPredictor.build(arrays), p))
    return np.array(each) / np.where(total > 0, total, 1.0)


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
    factor = np.asarray(model.bin_factor) * release.unoscillated / flat
    return eqx.tree_at(lambda m: m.bin_factor, model, jax.device_put(factor))

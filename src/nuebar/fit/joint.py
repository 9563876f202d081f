"""Fits of a far and a near detector together: the near one measures the spectrum of the reactors.

χ² of both detectors and one set of pulls. The spectrum itself is free: a factor at many nodes of the neutrino energy
(:func:`nuebar.predict.joint.free_spectrum`). As parameters the nodes are part of the fit like all others. As a
covariance they are integrated out: counts are straight in them, so their prior of width σ becomes σ² S Sᵀ beside the
other variances, S the derivatives of the counts, and the fit has some fifty parameters instead of some two hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.config import Experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.releases import CommonInputs
from nuebar.parameters import ParameterSet
from nuebar.predict.harmonic import Windows
from nuebar.predict.joint import SEGMENT, free_spectrum, joint_model, without_tilts
from nuebar.predict.spectrum import SpectrumModel
from nuebar.stats.likelihood import Term
from nuebar.stats.minimise import Problem

__all__ = ["JointFit", "Spectrum", "integrated", "joint_fit"]

Spectrum = Literal["parameters", "covariance", "fixed", "own"]


class _StraightProblem(Problem):
    """A cost in which the counts are straight in some parameters: their own second derivatives are those of JᵀJ.

    What is left out is Σ r ∂²r between two of them, which only the variance of a bin makes, by (n - μ)/μ of the rest.
    """

    def __init__(self, term: Term, straight: np.ndarray) -> None:
        super().__init__(term)
        self._straight = straight

    def hessian(self, x: ArrayLike, free: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`nuebar.stats.problem.Problem.hessian`."""
        x = np.asarray(x, float)
        free = np.ones(x.shape, bool) if free is None else np.asarray(free, bool)
        here = self.linearised(x)
        bending = np.zeros_like(here.normal)
        bent = free & ~self._straight
        with np.errstate(all="ignore"):
            for k in np.flatnonzero(bent).tolist():
                bending[k] = self._bending(x, here, k)
        both = bending + bending.T
        both = np.where(bent[:, None] ^ bent[None, :], 2.0 * both, both)  # one of the two rows was made
        return np.where(free[:, None] & free[None, :], 2.0 * here.normal + both, 0.0)


@dataclass(frozen=True)
class JointFit(SpectrumFit):
    """A :class:`SpectrumFit` of a joint model: the same, with a faster Hessian in the nodes of the spectrum."""

    def problem(self) -> Problem:
        """The cost: both spectra plus a pull term for every prior of a free parameter."""
        straight = np.array([n.startswith(SEGMENT) for n in self.parameters.names])
        return _StraightProblem(super().problem().term, straight)


def joint_fit(
    first: Experiment,
    second: Experiment | None = None,
    *,
    spectrum: Spectrum = "parameters",
    nodes_MeV: Sequence[float] | None = None,
    sigma: float = 0.5,
    second_exposure: float = 1.0,
    inputs: CommonInputs | None = None,
    windows: Windows | None = None,
    own: Sequence[str] = (),
    statistic: str | None = None,
    seed: int = 0,
) -> JointFit:
    """A fit of the expected counts of two detectors; it is used as any other :class:`SpectrumFit`.

    ``run``, ``scan``, :class:`nuebar.fit.many.ManyFits`, toys and :class:`nuebar.fit.ordering.OrderingStudy` take it;
    a factor on the exposure is one for both detectors.

    Args:
        first: The far detector (``load_experiment("juno")``); it says what both share.
        second: The near one (``load_experiment("tao")``); None fits the first one alone with the same free spectrum.
        spectrum: The free spectrum as ``"parameters"``, or integrated out as a ``"covariance"`` (a single fit is ten
            times faster; not for toys, which cannot draw it); ``"fixed"`` for a spectrum that is known; ``"own"``
            leaves both experiments as their files are.
        nodes_MeV: Nodes of the free spectrum; :func:`nuebar.predict.joint.spectrum_nodes` by default.
        sigma: Relative prior width at each node.
        second_exposure: Factor on the live time of the second detector.
        inputs: JUNO's common inputs, for both.
        windows: Ranges of the mass splittings.
        own: Beginnings of names that the detectors are not to share (``("nonlinearity_",)``).
        statistic: The first experiment's by default; a covariance goes with "cnp", "pearson" and "neyman".
        seed: For the record.

    Raises:
        NuebarError: Options or experiments do not go together.
    """
    if spectrum not in ("parameters", "covariance", "fixed", "own"):
        raise NuebarError(f"joint fit: expected a spectrum parameters, covariance, fixed or own, got {spectrum!r}")
    if not (np.isfinite(second_exposure) and second_exposure > 0):
        raise NuebarError(f"joint fit: expected a factor on the exposure above 0, got {second_exposure}")
    experiments = [first]
    if second is not None:
        experiments.append(override(second, {"exposure.days": second.exposure.days * second_exposure}))
    if spectrum != "own":
        experiments = [free_spectrum(e, nodes_MeV=nodes_MeV, sigma=sigma) for e in experiments]
    model, parameters = joint_model(experiments, inputs=inputs, windows=windows, own=own)
    expected, _ = model(model.vector(parameters.nominal()))
    fit = JointFit(
        model,
        parameters,
        np.asarray(expected),
        statistic or first.fit.statistic,
        " + ".join(e.name for e in experiments),
        seed,
    )
    if spectrum == "covariance":
        return integrated(fit)
    return replace(fit, **_dropped(fit)) if spectrum == "fixed" else fit


def integrated(fit: JointFit) -> JointFit:
    """The fit with the nodes of the spectrum integrated out: their priors in the covariance of the counts.

    Exact where counts are straight in the nodes, and for the derivatives at the nominal parameters. The statistical
    variances are those of the nominal counts, too.

    Raises:
        NuebarError: The statistic takes no covariance, or there is one already.
    """
    if fit.mc_covariance is not None or fit.statistic in ("poisson", "barlow-beeston"):
        raise NuebarError(
            f"the statistic {fit.statistic} (or a fit with a Monte Carlo error) has no room for a covariance of the "
            "spectrum; choose cnp or pearson, or keep the spectrum as parameters"
        )
    names = _segments(fit)
    if not names:
        return fit
    at = jnp.array([fit.parameters.names.index(n) for n in names])
    x = jnp.asarray(fit.model.vector(fit.parameters.nominal()))
    widths = np.array([fit.parameters[n].sigma for n in names], float)
    moved = np.asarray(_slopes(fit.model, x, at)) * widths
    return replace(fit, **_dropped(fit), mc_covariance=moved @ moved.T)


def _segments(fit: SpectrumFit) -> list[str]:
    return [n for n in fit.parameters if n.startswith(SEGMENT)]


def _dropped(fit: JointFit) -> dict[str, Any]:
    """Model and parameters without the nodes."""
    names = _segments(fit)
    kept = ParameterSet([p for n, p in fit.parameters.items() if n not in names])
    return {"model": without_tilts(fit.model, names), "parameters": kept}


@jax.jit
def _slopes(model: SpectrumModel, x: Array, at: Array) -> Array:
    """Derivatives of the counts, shape ``(bins, parameters)``."""
    return jax.jacfwd(lambda a: model(x.at[at].set(a))[0])(x[at])

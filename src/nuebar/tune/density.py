"""What a density of calibration spectra is: the contract that TEDE, the flows and a user's own model share.

A density knows p(x | kB, fC, light yield, source) of the observable x = ``pe_to_observable`` · N_pe, given that x lies
in the range of its bins. So it is normalised to one there, and the number of events is a parameter of the likelihood.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError

__all__ = ["RESPONSE", "Density", "precise", "response_vector", "source_index"]

RESPONSE = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
"""The parameters, in the order of every vector of them."""


@runtime_checkable
class Density(Protocol):
    """A conditional density of the observable."""

    @property
    def name(self) -> str:
        """tede, planar, spline ..."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names, in the order of the rows of every table."""

    @property
    def pe_to_observable(self) -> float:
        """Observable per photo-electron."""

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of the three response parameters between which it was trained."""

    @property
    def provenance(self) -> Mapping[str, str]:
        """What it was trained on."""

    @property
    def edges(self) -> np.ndarray:
        """Bins of the observable, shape ``(bins + 1,)``."""

    @property
    def knots(self) -> np.ndarray:
        """Values of the observable at which :meth:`log_density` is given, ascending.

        They go from the lowest edge to the highest. Empty for a density that knows bins only.
        """

    def log_probabilities(self, response: ArrayLike) -> Array:
        """Ln of the probability of every bin: pure JAX, differentiable, unchecked.

        Args:
            response: The three numbers of :data:`RESPONSE`.

        Returns:
            float64, shape ``(sources, bins)``; the probabilities of a source add up to one.
        """

    def log_density(self, response: ArrayLike) -> Array:
        """Ln p per unit of the observable at the knots: pure JAX, differentiable, unchecked.

        Args:
            response: The three numbers of :data:`RESPONSE`.

        Returns:
            float64, shape ``(sources, knots)``.
        """

    def log_prob(self, n_pe: np.ndarray, response: Mapping[str, float], source: str) -> np.ndarray:
        """Ln p per photo-electron of single events, checked.

        Args:
            n_pe: Charges in photo-electrons; those outside the range of the bins get −inf.
            response: The response parameters by name.
            source: One of the sources.

        Returns:
            float64, the shape of ``n_pe``.
        """

    def sample(self, n: int, response: Mapping[str, float], source: str, *, seed: int) -> np.ndarray:
        """Charges in photo-electrons drawn from the density, float64, shape ``(n,)``."""

    def counts(self, edges_pe: np.ndarray, response: Mapping[str, float], source: str, events: float) -> np.ndarray:
        """Expected counts of ``events`` events in bins of the charge in photo-electrons."""


_PRECISE: OrderedDict[int, tuple[Any, Any]] = OrderedDict()  # keeps the originals alive: their addresses are the keys
_MOST = 8


def precise(density: Density) -> Density:
    """The same density with its weights in float64, so that ln L is smooth to rounding; the same object every time.

    Args:
        density: Any; one that is no pytree comes back as it is.
    """
    if not isinstance(density, eqx.Module):
        return density
    if id(density) not in _PRECISE:
        single = [a for a in jax.tree.leaves(density) if eqx.is_array(a) and a.dtype == jnp.float32]
        with jax.enable_x64(True):
            made = (
                jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, density) if single else None
            )
        _PRECISE[id(density)] = (density, density if made is None else made)
        while len(_PRECISE) > _MOST:
            _PRECISE.popitem(last=False)
    found: Density = _PRECISE[id(density)][1]
    return found


def response_vector(response: Mapping[str, float], limits: tuple[tuple[float, float], ...], density: str) -> np.ndarray:
    """The vector of :data:`RESPONSE`, inside the limits.

    Args:
        response: Values by name.
        limits: Of the density.
        density: Its name, for the message.

    Raises:
        NuebarError: A parameter is missing, unknown, not finite or outside.
    """
    unknown = sorted(set(response) ^ set(RESPONSE))
    if unknown:
        raise NuebarError(f"response: expected exactly {', '.join(RESPONSE)}; {', '.join(unknown)} differs")
    for name, (low, high) in zip(RESPONSE, limits, strict=True):
        slack = 1e-9 * (high - low)
        if not low - slack <= response[name] <= high + slack:
            raise NuebarError(
                f"parameter {name!r} = {response[name]:.6g} is outside the range [{low:g}, {high:g}] in which the "
                f"density {density!r} was trained; train one with a wider grid"
            )
    return np.array([float(response[n]) for n in RESPONSE])


def source_index(source: str, sources: tuple[str, ...], density: str) -> int:
    """The row of a source.

    Args:
        source: Its name.
        sources: Those that the density knows.
        density: Its name, for the message.

    Raises:
        NuebarError: The density does not know it.
    """
    if source not in sources:
        raise NuebarError(
            f"source {source!r}: the density {density!r} knows {', '.join(sources)}; choose one of them or train one"
        )
    return sources.index(source)

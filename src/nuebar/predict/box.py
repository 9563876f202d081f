"""What every predictor takes, where it is valid, and the refusal outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION

__all__ = ["PHYSICS", "Box", "Provenance", "check_inside", "check_parameters", "physics_vector"]

PHYSICS = (*OSCILLATION, "matter_density_g_cm3")

Box = Mapping[str, tuple[float, float]]


class Provenance(Mapping[str, str]):
    """What a predictor was built from. It is no part of a compiled program: any two compare equal."""

    def __init__(self, entries: Mapping[str, str]):
        self._entries = dict(entries)

    def __getitem__(self, key: str) -> str:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Provenance)

    def __hash__(self) -> int:
        return hash(Provenance)

    def __repr__(self) -> str:
        return f"Provenance({self._entries})"


def check_inside(parameters: Mapping[str, object], box: Box, predictor: str) -> None:
    """Refuse parameters outside the box of a predictor, by name, value and box.

    Values under a JAX transformation are not checked: there the box is the minimiser's limits.

    Args:
        parameters: Name → value.
        box: Name → (low, high).
        predictor: The predictor's name, for the message.
    """
    for name, (low, high) in box.items():
        value = parameters.get(name)
        if value is None or isinstance(value, jax.core.Tracer):
            continue
        number = np.asarray(value)
        if not np.all((number >= low) & (number <= high)):
            raise NuebarError(
                f"parameter {name!r} = {np.ravel(number)[0]:.6g} is outside the box [{low:.6g}, {high:.6g}] "
                f"of the {predictor} predictor; build one with wider windows or use another predictor"
            )


def physics_vector(parameters: Mapping[str, ArrayLike]) -> Array:
    """The vector of :data:`PHYSICS`; a density that is left out is zero."""
    return jnp.stack([jnp.asarray(parameters.get(n, 0.0), float) for n in PHYSICS])


def check_parameters(parameters: Mapping[str, object], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    """Refuse unknown, missing or non-finite parameters, by name."""
    for name in required:
        if name not in parameters:
            raise NuebarError(f"missing parameter {name!r}; a prediction needs {', '.join(required)}")
    for name, value in parameters.items():
        if name not in known:
            raise NuebarError(f"unknown parameter {name!r}; this predictor knows {', '.join(known)}")
        if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(value))):
            raise NuebarError(f"parameter {name!r}: expected a finite number, got {value}")

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

# Where the parameters make sense at all; 20 g/cm³ is more than the centre of the Earth has.
PHYSICAL: Box = {"sin2_th12": (0.0, 1.0), "sin2_th13": (0.0, 1.0), "matter_density_g_cm3": (0.0, 20.0)}
ROUNDING = 1e-9  # of the width of a box: where a fit ends on a limit, it may end a rounding beside it
SMALLEST_SOLAR_eV2 = 1e-6  # an oscillation length of 2500 km at 1 MeV: no reactor experiment sees a smaller one
LARGEST_eV2 = 1.0
SMALLEST_ATMOSPHERIC_eV2 = 1e-4  # far above the matter term of 13 MeV at 20 g/cm³, as the eigensystem needs


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

    Raises:
        NuebarError: A parameter is outside.
    """
    for name, (low, high) in box.items():
        value = parameters.get(name)
        if value is None or isinstance(value, jax.core.Tracer):
            continue
        number, slack = np.asarray(value), ROUNDING * (high - low)
        if not np.all((number >= low - slack) & (number <= high + slack)):
            raise NuebarError(
                f"parameter {name!r} = {np.ravel(number)[0]:.6g} is outside the box [{low:.6g}, {high:.6g}] "
                f"of the {predictor} predictor; build one with wider windows or use another predictor"
            )


def physics_vector(parameters: Mapping[str, ArrayLike]) -> Array:
    """The vector of :data:`PHYSICS`; a density that is left out is zero."""
    return jnp.stack([jnp.asarray(parameters.get(n, 0.0), float) for n in PHYSICS])


def check_parameters(parameters: Mapping[str, object], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    """Refuse unknown, missing, non-finite or unphysical parameters, by name.

    Args:
        parameters: Values by name.
        known: Names that are taken.
        required: Names that must be there.

    Raises:
        NuebarError: One is unknown, missing, not finite or unphysical.
    """
    for name in required:
        if name not in parameters:
            raise NuebarError(f"missing parameter {name!r}; a prediction needs {', '.join(required)}")
    for name, value in parameters.items():
        if name not in known:
            raise NuebarError(f"unknown parameter {name!r}; this predictor knows {', '.join(known)}")
        if not isinstance(value, jax.core.Tracer) and not _is_number(value):
            raise NuebarError(f"parameter {name!r}: expected one finite number, got {value!r}")
    numbers = {n: float(np.asarray(v)) for n, v in parameters.items() if not isinstance(v, jax.core.Tracer)}
    for name, (low, high) in PHYSICAL.items():
        if not low - ROUNDING <= numbers.get(name, low) <= high + ROUNDING:
            raise NuebarError(f"parameter {name!r}: expected a number from {low:g} to {high:g}, got {numbers[name]:g}")
    solar, atmospheric = numbers.get("dm2_21_eV2", np.nan), numbers.get("dm2_31_eV2", np.nan)
    if solar <= 0:
        raise NuebarError(f"parameter 'dm2_21_eV2': expected a number above 0, got {solar:g}")
    if solar < SMALLEST_SOLAR_eV2:
        raise NuebarError(f"parameter 'dm2_21_eV2': expected at least {SMALLEST_SOLAR_eV2:g} eV², got {solar:g}")
    least = np.fmax(SMALLEST_ATMOSPHERIC_eV2, solar)
    if abs(atmospheric) <= least:
        raise NuebarError(
            f"parameter 'dm2_31_eV2': expected a size above {least:g} eV², got {atmospheric:g}; correct it"
        )
    for name, value in (("dm2_21_eV2", solar), ("dm2_31_eV2", abs(atmospheric))):
        if value > LARGEST_eV2:
            raise NuebarError(f"parameter {name!r}: expected at most {LARGEST_eV2:g} eV² in size, got {value:g}")


def _is_number(value: object) -> bool:
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str) and number.ndim == 0 and bool(np.isfinite(number))

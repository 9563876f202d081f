"""Parameters with names, priors, bounds and units: one vocabulary for code, TOML, JSON and plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nuebar.errors import NuebarError

__all__ = ["LABELS", "OSCILLATION", "Parameter", "ParameterSet"]

OSCILLATION = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2")

LABELS = {
    "sin2_th12": r"$\sin^2\theta_{12}$",
    "sin2_th13": r"$\sin^2\theta_{13}$",
    "dm2_21_eV2": r"$\Delta m^2_{21}$",
    "dm2_31_eV2": r"$\Delta m^2_{31}$",
    "dm2_32_eV2": r"$\Delta m^2_{32}$",
    "dm2_ee_eV2": r"$\Delta m^2_{ee}$",
    "matter_density_g_cm3": r"$\rho$",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model.

    Attributes:
        name: The name used everywhere, with its unit (``dm2_21_eV2``).
        value: The nominal value, and the centre of the prior if there is one.
        sigma: The width of a Gaussian prior (a pull term); ``None`` for a free parameter.
        bounds: Physical or technical limits; ``None`` for an open side.
        unit: The unit for axis labels; empty for a pure number.
        label: LaTeX for plots.
        fixed: Whether a fit leaves the parameter at ``value``.
    """

    name: str
    value: float
    sigma: float | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    label: str = ""
    fixed: bool = False

    def __post_init__(self) -> None:
        """Refuse values that would turn into NaN further on."""
        if not math.isfinite(self.value):
            raise NuebarError(f"parameter {self.name!r}: expected a finite value, got {self.value}")
        if self.sigma is not None and not (math.isfinite(self.sigma) and self.sigma > 0):
            raise NuebarError(
                f"parameter {self.name!r}: expected a positive prior width sigma, got {self.sigma}; "
                "leave sigma out for a parameter without a prior"
            )
        low, high = self.bounds
        if low is not None and high is not None and not low < high:
            raise NuebarError(f"parameter {self.name!r}: expected bounds [low, high], got [{low}, {high}]")
        if (low is not None and self.value < low) or (high is not None and self.value > high):
            raise NuebarError(
                f"parameter {self.name!r}: its value {self.value} is outside its bounds [{low}, {high}]"
            )

    @property
    def axis_label(self) -> str:
        """The label with its unit, for an axis."""
        label = self.label or LABELS.get(self.name, self.name.replace("_", " "))
        return f"{label} [{self.unit}]" if self.unit else label

    @property
    def scale(self) -> float:
        """A natural step: the prior width, or a percent of the value."""
        return self.sigma if self.sigma is not None else max(abs(self.value) * 0.01, 1e-12)


class ParameterSet(Mapping[str, Parameter]):
    """An ordered, immutable collection of parameters, addressed by name."""

    def __init__(self, parameters: tuple[Parameter, ...] | list[Parameter]):
        self._by_name: dict[str, Parameter] = {}
        for parameter in parameters:
            if parameter.name in self._by_name:
                raise NuebarError(f"parameter {parameter.name!r} is defined twice; names must be unique")
            self._by_name[parameter.name] = parameter

    def __getitem__(self, name: str) -> Parameter:
        """Look a parameter up, with a sentence for an unknown name."""
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"unknown parameter {name!r}; known: {', '.join(self._by_name)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"ParameterSet({', '.join(self)})"

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(self)

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters that a fit moves."""
        return tuple(p.name for p in self.values() if not p.fixed)

    def nominal(self) -> dict[str, float]:
        """Every value by name."""
        return {name: p.value for name, p in self.items()}

    def updated(self, **changes: Mapping[str, object]) -> ParameterSet:
        """A copy in which fields of some parameters are replaced.

        Args:
            **changes: parameter name → fields to change, e.g. ``sin2_th13={"fixed": True}``.
        """
        for name in changes:
            self.known(name)
        return ParameterSet(
            [replace(p, **changes[n]) if n in changes else p for n, p in self.items()]  # type: ignore[arg-type]
        )

    def with_values(self, values: Mapping[str, float]) -> ParameterSet:
        """A copy with other values."""
        return self.updated(**{name: {"value": float(value)} for name, value in values.items()})

    def known(self, name: str) -> str:
        """The name itself, or one sentence that lists the names there are."""
        if name not in self._by_name:
            raise NuebarError(f"unknown parameter {name!r}; expected one of: {', '.join(self._by_name)}")
        return name

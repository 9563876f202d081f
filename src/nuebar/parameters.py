"""Parameters with names, priors, bounds and units: one vocabulary for code, TOML, JSON and plots."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nuebar.errors import NuebarError

__all__ = ["LABELS", "OSCILLATION", "Parameter", "ParameterSet", "UnknownParameterError"]

OSCILLATION = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2")

LABELS = {
    "sin2_th12": r"$\sin^2\theta_{12}$",
    "sin2_th13": r"$\sin^2\theta_{13}$",
    "dm2_21_eV2": r"$\Delta m^2_{21}$",
    "dm2_31_eV2": r"$\Delta m^2_{31}$",
    "dm2_32_eV2": r"$\Delta m^2_{32}$",
    "dm2_ee_eV2": r"$\Delta m^2_{ee}$",
    "sin2_th14": r"$\sin^2\theta_{14}$",
    "dm2_41_eV2": r"$\Delta m^2_{41}$",
    "matter_density_g_cm3": r"$\rho$",
    "kB_g_cm2_GeV": r"$k_B$ [g cm$^{-2}$ GeV$^{-1}$]",
    "fC": r"$f_C$",
    "light_yield_per_MeV": r"light yield [MeV$^{-1}$]",
}


class UnknownParameterError(NuebarError, KeyError):
    """A name that a set does not hold; also a ``KeyError``, so that a set behaves as a mapping."""

    def __str__(self) -> str:
        return str(self.args[0])


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
        if not (isinstance(self.name, str) and self.name.strip()):
            raise NuebarError(f"parameter {self.name!r}: expected a name; give it one with its unit")
        _need(self, _finite(self.value), "a finite value", self.value)
        width = "a positive prior width sigma"
        if self.sigma is not None:
            good = _finite(self.sigma) and self.sigma > 0
            _need(self, good, width, self.sigma, "leave sigma out for a parameter without a prior")
        _need(self, _is_pair(self.bounds), "bounds (low, high)", self.bounds, "None opens a side")
        low, high = self.bounds
        for bound in (low, high):
            _need(self, bound is None or _finite(bound), "finite bounds", self.bounds, "None opens a side")
        _need(self, low is None or high is None or low < high, "bounds with low < high", self.bounds)
        inside = (low is None or low <= self.value) and (high is None or self.value <= high)
        _need(self, inside, f"a value inside its bounds [{low}, {high}]", self.value)
        # Numbers of other libraries become plain ones, which JSON and TOML can hold.
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "sigma", None if self.sigma is None else float(self.sigma))
        object.__setattr__(self, "bounds", tuple(None if b is None else float(b) for b in self.bounds))

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
            if not isinstance(parameter, Parameter):
                raise NuebarError(f"expected a Parameter, got {parameter!r}; build one with a name and a value")
            if parameter.name in self._by_name:
                raise NuebarError(f"parameter {parameter.name!r} is defined twice; names must be unique")
            self._by_name[parameter.name] = parameter

    def __getitem__(self, name: str) -> Parameter:
        """Look a parameter up, with a sentence for an unknown name."""
        return self._by_name[self.known(name)]

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
        for name, fields in changes.items():
            self.known(name)
            if not isinstance(fields, Mapping) or not set(fields) <= set(Parameter.__dataclass_fields__):
                known = ", ".join(Parameter.__dataclass_fields__)
                raise NuebarError(f"parameter {name!r}: expected fields of {known} to change, got {fields!r}")
        return ParameterSet(
            [replace(p, **changes[n]) if n in changes else p for n, p in self.items()]  # type: ignore[arg-type]
        )

    def with_values(self, values: Mapping[str, float]) -> ParameterSet:
        """A copy with other values."""
        return self.updated(**{name: {"value": value} for name, value in values.items()})

    def known(self, name: str) -> str:
        """The name itself, or one sentence that lists the names there are."""
        if name not in self._by_name:
            close = difflib.get_close_matches(name, self._by_name, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            known = ", ".join(self._by_name) or "none"
            raise UnknownParameterError(f"unknown parameter {name!r}{meant}; expected one of: {known}")
        return name


def _finite(value: object) -> bool:
    """Whether this is one finite number (of any library)."""
    if isinstance(value, str | bytes | bool) or getattr(value, "ndim", False):
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _need(parameter: Parameter, good: bool, expected: str, got: object, advice: str = "") -> None:
    if not good:
        shown = f"expected {expected}, got {got!r}{'; ' if advice else ''}{advice}"
        raise NuebarError(f"parameter {parameter.name!r}: {shown}")

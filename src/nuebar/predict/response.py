"""The parameters of the detector's response, as predictors take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nuebar.errors import NuebarError
from nuebar.simulate.quench import Response

__all__ = ["LIGHT", "RESPONSE", "ResponsePoint"]

LIGHT = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
RESPONSE = (*LIGHT, "smear_a", "smear_b", "smear_c", "energy_scale")
"""In this order after the physics parameters of a predictor."""


@dataclass(frozen=True)
class ResponsePoint:
    """One point of the response.

    Attributes:
        kB_g_cm2_GeV: Birks' coefficient, g cm⁻² GeV⁻¹.
        fC: Cherenkov light, in units of the experiment's ``cherenkov_photons_per_cm``.
        light_yield_per_MeV: Scintillation photons per MeV; E_rec is anchored, so it acts through photo-statistics.
        smear_a: Extra smearing on top of what the Monte Carlo has: σ² gains a²E + b²E² + c² (MeV), E reconstructed.
        smear_b: See ``smear_a``.
        smear_c: See ``smear_a``, in MeV.
        energy_scale: Relative change of all reconstructed energies.
    """

    kB_g_cm2_GeV: float
    fC: float
    light_yield_per_MeV: float
    smear_a: float = 0.0
    smear_b: float = 0.0
    smear_c: float = 0.0
    energy_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("smear_a", "smear_b", "smear_c"):
            if not 0 <= getattr(self, name) < 0.5:
                raise NuebarError(f"{name}: expected a number from 0 to 0.5, got {getattr(self, name)}; correct it")
        if not -0.5 < self.energy_scale < 0.5:
            raise NuebarError(f"energy_scale: expected a relative change below 0.5 in size, got {self.energy_scale}")

    @classmethod
    def of(cls, values: Mapping[str, float]) -> ResponsePoint:
        """The point from values by name; others are ignored."""
        return cls(**{n: float(values[n]) for n in RESPONSE if n in values})

    @property
    def light(self) -> Response:
        """kB, fC and light yield as the Monte Carlo takes them."""
        return Response(self.kB_g_cm2_GeV, self.fC, self.light_yield_per_MeV)

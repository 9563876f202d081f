"""Published results that ours are printed beside: checks, never inputs."""

from __future__ import annotations

__all__ = ["PUBLISHED", "PUBLISHED_PRECISION"]

# Published values that a fit of the same data is compared with; a check, never an input.
PUBLISHED = {
    # JUNO Collaboration, Nature 654, 343 (2026), arXiv:2511.14593, normal ordering
    "juno-2025": {"sin2_th12": (0.3092, 0.0087), "dm2_21_eV2": (7.50e-5, 0.12e-5)},
}
# arXiv:2204.13249, table 6: expected precision after six years.
PUBLISHED_PRECISION = {
    "juno": {"dm2_31_eV2": 0.0047e-3, "dm2_21_eV2": 0.024e-5, "sin2_th12": 0.0016, "sin2_th13": 0.0026},
}

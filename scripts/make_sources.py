"""Neutron spectra of the Am-Be and Am-C sources by kinematics, as the ``[neutrons]`` tables of sources.toml.

Alphas of 5.486 MeV slow down in the source; at every energy they make neutrons in proportion to the cross-section
over the stopping power (taken as E^-0.65, nominal), isotropic in the centre of mass. Run it and compare or paste:

    python scripts/make_sources.py
"""

import sys

import numpy as np

ALPHA, BE9, C12, C13, O16, NEUTRON = 4.0026, 9.0122, 12.0, 13.0034, 15.9949, 1.0087
TOP_MeV = 5.486

# 9Be(alpha, n)12C in barn to the ground state, 4.439, 7.654 MeV and break-up: ENDF/B-VIII.1, a-004_Be_009 (subset).
BE = np.array(
    [
        (1.6, 0.0198, 0.0118, 0, 0),
        (1.8, 0.026, 0.177, 0, 0),
        (1.9, 0.038, 0.258, 0, 0),
        (2.0, 0.050, 0.151, 0, 0),
        (2.2, 0.087, 0.083, 0, 0),
        (2.4, 0.086, 0.059, 0, 0),
        (2.6, 0.071, 0.078, 0, 0),
        (2.8, 0.039, 0.057, 0, 0),
        (3.0, 0.033, 0.056, 0.003, 0),
        (3.4, 0.034, 0.075, 0.009, 0),
        (3.8, 0.084, 0.086, 0.008, 0),
        (4.0, 0.122, 0.249, 0.035, 0),
        (4.1, 0.125, 0.145, 0.046, 0),
        (4.4, 0.109, 0.232, 0.044, 0),
        (4.6, 0.089, 0.271, 0.045, 0.025),
        (4.8, 0.072, 0.270, 0.045, 0.052),
        (5.0, 0.069, 0.315, 0.052, 0.062),
        (5.2, 0.059, 0.311, 0.045, 0.104),
        (5.4, 0.047, 0.301, 0.034, 0.151),
        (5.486, 0.041, 0.288, 0.031, 0.164),
    ]
)


def neutron_energy(e_alpha, target, residual, q_MeV, cos_cm):
    """Laboratory energy of the neutron, two bodies, non-relativistic."""
    total = ALPHA + target
    available = e_alpha * target / total + q_MeV
    if available <= 0:
        return np.full_like(cos_cm, np.nan)
    own = available * residual / (residual + NEUTRON)
    frame = e_alpha * ALPHA * NEUTRON / total**2
    return own + frame + 2 * np.sqrt(own * frame) * cos_cm


def spectrum(cross_section, target, residual, q_MeV, edges):
    """Density of neutron energies, and the yield of the group in arbitrary units."""
    alphas = np.linspace(0.5, TOP_MeV, 800)
    weights = cross_section(alphas) * alphas**0.65
    cosines = np.linspace(-1, 1, 201)
    counts = np.zeros(len(edges) - 1)
    for e, w in zip(alphas, weights, strict=True):
        energies = neutron_energy(e, target, residual, q_MeV, cosines)
        if w > 0 and np.all(np.isfinite(energies)):
            counts += w * np.histogram(energies, edges)[0]
    return counts


def table(name, counts, edges, comment):
    """One TOML line of points (centre, density)."""
    centres = 0.5 * (edges[1:] + edges[:-1])
    used = np.flatnonzero(counts > 1e-4 * counts.max())
    inside = slice(used[0], used[-1] + 1)
    density = counts[inside] / counts.max()
    points = [(max(float(edges[used[0]]), 0.0), 0.0)]
    points += [(float(c), float(d)) for c, d in zip(centres[inside], density, strict=True)]
    points += [(float(edges[used[-1] + 1]), 0.0)]
    text = ", ".join(f"[{e:.3g}, {d:.3g}]" for e, d in points)
    sys.stdout.write(f"{name} = [{text}]  # {comment}\n")


def main():
    yields = {}
    for column, (name, q) in enumerate({"AmBe_n0": 5.701, "AmBe_n1": 1.262, "AmBe_n2": -1.953}.items(), start=1):
        edges = np.arange(0, 11.3, 0.25)
        counts = spectrum(lambda e, c=column: np.interp(e, BE[:, 0], BE[:, c], left=0), BE9, C12, q, edges)
        yields[name] = counts.sum()
        table(name, counts, edges, f"Q = {q} MeV")
    grid = np.linspace(0.5, TOP_MeV, 800)
    yields["breakup"] = (
        np.trapezoid(np.interp(grid, BE[:, 0], BE[:, 4], left=0) * grid**0.65, grid) * 201 / (grid[1] - grid[0])
    )
    total = sum(yields.values())
    sys.stdout.write("# shares: " + ", ".join(f"{k} {v / total:.3f}" for k, v in yields.items()) + "\n")
    # 13C(alpha, n)16O: cross-section nominal, a rise from 2 MeV; only the kinematics matter for the light.
    groups = {
        "AmC_n0": (2.216, lambda e: np.clip(e - 2.0, 0, None) ** 1.0, 0.25),
        "AmC_613": (2.216 - 6.130, lambda e: np.clip(e - 5.119, 0, None) ** 0.5, 0.04),
        "AmC_605": (2.216 - 6.049, lambda e: np.clip(e - 5.014, 0, None) ** 0.5, 0.04),
    }
    for name, (q, cross_section, width) in groups.items():
        edges = np.arange(0, 8.0, width)
        table(name, spectrum(cross_section, C13, O16, q, edges), edges, f"Q = {q:.3f} MeV")


if __name__ == "__main__":
    main()

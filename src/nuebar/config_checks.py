"""Ranges and consistency of an experiment: each failure is one sentence that names the file and the key.

Types and unknown keys are checked before, by :mod:`nuebar.records`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.records import refuse

if TYPE_CHECKING:
    from nuebar.config import Background, Binning, Core, Experiment, Reactor, Response, Systematics

__all__ = ["ISOTOPES", "STATISTICS", "STERILE", "check_experiment"]

STATISTICS = ("cnp", "poisson", "barlow-beeston", "pearson", "neyman")
ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
STERILE = ("sin2_th14", "dm2_41_eV2")  # both or neither
CROSS_SECTIONS = ("vogel-beacom", "strumia-vissani")

HIGHEST_EDGE_MeV = 50.0  # far above reactor antineutrinos: a larger number is a mistake of unit
MOST_BINS = 20_000
FRACTION_TOLERANCE = 1e-3  # published fission fractions are rounded to three digits
SMALLEST_RATIO = 3.0  # |Δm²31| / Δm²21: below it the two orderings have no meaning; nature has 33
FINEST_RESOLUTION = 1e-4  # of 1 MeV: no detector comes near, and a division by σ stays far from overflow

Rule = tuple[str, Callable[[float], bool]]
# Outer limits are far from any experiment: they catch wrong units, and products of them stay finite.
POSITIVE: Rule = ("a number above 0 (1e-12 to 1e12)", lambda x: 1e-12 <= x <= 1e12)
NOT_NEGATIVE: Rule = ("a number of at least 0 (at most 1e12)", lambda x: 0 <= x <= 1e12)
WIDTH: Rule = ("a width of at least 0 (0, or 1e-9 to 1e6)", lambda x: x == 0 or 1e-9 <= x <= 1e6)
PULL: Rule = ("a width above 0 (1e-9 to 1e6)", lambda x: 1e-9 <= x <= 1e6)
PROTONS: Rule = ("a number above 0 (1 to 1e40)", lambda x: 1 <= x <= 1e40)
FRACTION: Rule = ("a number from 0 to 1", lambda x: 0 <= x <= 1)
SHARE: Rule = ("a number above 0, at most 1", lambda x: 1e-12 <= x <= 1)
RELATIVE: Rule = ("a fraction from 0 to below 1 (0.03 for 3 %)", lambda x: 0 <= x < 1)
DENSITY: Rule = ("a number from 0 to 20 g/cm³", lambda x: 0 <= x <= 20)  # the centre of the Earth has 13
POWER: Rule = ("GW of heat, from 0 to 2000", lambda x: 0 <= x <= 2000)  # all reactors of the world give 1200
BASELINE: Rule = ("km, from 0.001 to 12800", lambda x: 0.001 <= x <= 12800)  # the Earth's diameter
ANCHOR: Rule = ("0 for none, or MeV from 1 to 50", lambda x: x == 0 or 1 <= x <= 50)
FISSION: Rule = ("MeV, from 100 to 300", lambda x: 100 <= x <= 300)

RANGES: Mapping[str, Mapping[str, Rule]] = {
    "target": {"free_protons": PROTONS, "efficiency": SHARE},
    "exposure": {"days": POSITIVE, "days_per_year": POSITIVE},
    "reactor": {"duty_cycle": SHARE, "unoscillated_per_day": POSITIVE, "segments_sigma": PULL},
    "reactor.cores": {"power_GW": POWER, "baseline_km": BASELINE, "duty_cycle": FRACTION},
    "response": {
        "anchor_MeV": ANCHOR,
        "kB_g_cm2_GeV": NOT_NEGATIVE,
        "fC": NOT_NEGATIVE,
        "light_yield_per_MeV": POSITIVE,
        "cherenkov_photons_per_cm": NOT_NEGATIVE,
    },
    "binning": {"fine_width_MeV": POSITIVE},
    "matter": {"density_g_cm3": DENSITY, "sigma_g_cm3": WIDTH, "electrons_per_nucleon": FRACTION},
    "backgrounds": {"rate_per_day": NOT_NEGATIVE, "rate_sigma": WIDTH, "shape_sigma": WIDTH, "slope_sigma": WIDTH},
    "systematics": {
        **dict.fromkeys(("core", "spent_fuel", "nonequilibrium", "energy_scale", "energy_offset_MeV"), WIDTH),
        "nonlinearity_scale": POSITIVE,
        "spectrum_shape_width_MeV": POSITIVE,
    },
}


@dataclass(frozen=True)
class Checker:
    """Refuses wrong values of one file."""

    where: str

    def need(self, good: bool, key: str, expected: str, got: Any, advice: str = "") -> None:
        """Refuse unless ``good``."""
        if not good:
            refuse(self.where, key, expected, got, advice)

    def ranges(self, record: Any, table: str, key: str = "") -> None:
        """Hold the fields of a record to :data:`RANGES`; a field that is ``None`` was left out."""
        for name, (expected, good) in RANGES[table].items():
            value = getattr(record, name)
            self.need(value is None or good(value), f"{key or table}.{name}", expected, value)

    def numbers(self, values: Mapping[str, float], key: str, rule: Rule) -> None:
        """Hold every number of a table to one rule."""
        for name, value in values.items():
            self.need(rule[1](value), f"{key}.{name}", rule[0], value)

    def names(self, names: Iterable[str], key: str) -> None:
        """Names become parts of parameter names, so they are plain and different."""
        seen: list[str] = []
        for name in names:
            self.need(bool(re.fullmatch(r"[A-Za-z0-9_-]+", name)), key, "names of letters, digits, '_' and '-'", name)
            self.need(name not in seen, key, "different names", name, "rename one")
            seen.append(name)


def check_experiment(experiment: Experiment, where: str) -> None:
    """Check everything that types do not say.

    Args:
        experiment: A record with the right types and finite numbers.
        where: The file, for messages.

    Raises:
        NuebarError: The first wrong key.
    """
    e, check = experiment, Checker(where)
    check.need(bool(e.name.strip()), "name", "a name", e.name)
    check.ranges(e.target, "target")
    check.ranges(e.exposure, "exposure")
    check.ranges(e.matter, "matter")
    _check_reactor(e.reactor, check)
    _check_response(e.response, check)
    _check_binning(e.binning, check)
    _check_oscillation(e, check)
    _check_systematics(e.systematics, check)
    check.need(e.fit.statistic in STATISTICS, "fit.statistic", f"one of {', '.join(STATISTICS)}", e.fit.statistic)
    check.names((b.name for b in e.backgrounds), "backgrounds")
    for i, b in enumerate(e.backgrounds):
        _check_background(b, f"backgrounds[{i}]", check)


def _check_reactor(r: Reactor, check: Checker) -> None:
    check.ranges(r, "reactor")
    check.need(len(r.cores) > 0, "reactor.cores", "at least one core", list(r.cores), "add [[reactor.cores]]")
    check.names((c.name for c in r.cores), "reactor.cores")
    for i, core in enumerate(r.cores):
        check.ranges(core, "reactor.cores", f"reactor.cores[{i}]")
        if core.fission_fractions is not None:
            _check_fractions(core.fission_fractions, f"reactor.cores[{i}].fission_fractions", check)
    check.need(any(map(_runs, r.cores)), "reactor.cores", "at least one core that runs", [c.name for c in r.cores])
    _check_fractions(r.fission_fractions, "reactor.fission_fractions", check)
    _check_isotopes(r.energy_per_fission_MeV, "reactor.energy_per_fission_MeV", check)
    check.numbers(r.energy_per_fission_MeV, "reactor.energy_per_fission_MeV", FISSION)
    known = f"one of {', '.join(CROSS_SECTIONS)}"
    check.need(r.cross_section in CROSS_SECTIONS, "reactor.cross_section", known, r.cross_section)
    nodes = list(r.segments_MeV)
    check.need(_increasing(nodes), "reactor.segments_MeV", "energies that increase", nodes)
    inside = all(0 < x <= HIGHEST_EDGE_MeV for x in nodes)
    check.need(inside, "reactor.segments_MeV", f"energies above 0 MeV, at most {HIGHEST_EDGE_MeV:g}", nodes)


def _runs(core: Core) -> bool:
    return core.history is not None or (core.power_GW > 0 and core.duty_cycle != 0)


def _check_isotopes(table: Mapping[str, float], key: str, check: Checker) -> None:
    for name in table:
        check.need(name in ISOTOPES, f"{key}.{name}", f"one of the isotopes {', '.join(ISOTOPES)}", name)
    missing = [i for i in ISOTOPES if i not in table]
    check.need(not missing, key, f"all of {', '.join(ISOTOPES)}", sorted(table), f"add {', '.join(missing)}")


def _check_fractions(fractions: Mapping[str, float], key: str, check: Checker) -> None:
    _check_isotopes(fractions, key, check)
    check.numbers(fractions, key, NOT_NEGATIVE)
    total = sum(fractions.values())
    good = abs(total - 1) < FRACTION_TOLERANCE
    check.need(good, key, "fractions that add up to 1", dict(fractions), f"they add up to {total:.6g}")


def _check_response(r: Response, check: Checker) -> None:
    check.ranges(r, "response")
    key = "response.resolution"
    check.need(len(r.resolution) == 3, key, "three numbers [a, b, c]", list(r.resolution))
    check.need(all(map(RELATIVE[1], r.resolution)), key, f"each {RELATIVE[0]}", list(r.resolution))
    fine = max(r.resolution) >= FINEST_RESOLUTION
    check.need(fine, key, f"at least one number of {FINEST_RESOLUTION:g} or more", list(r.resolution))
    if r.nonlinearity == "birks":
        check.need(
            r.cherenkov_photons_per_cm > 0,
            "response.cherenkov_photons_per_cm",
            "a number above 0 with nonlinearity = 'birks'",
            r.cherenkov_photons_per_cm,
            "say how many photons per cm fC = 1 stands for",
        )


def _check_binning(b: Binning, check: Checker) -> None:
    check.ranges(b, "binning")
    both = "both" if b.segments and b.edges_MeV else "neither"
    check.need(bool(b.segments) != bool(b.edges_MeV), "binning", "either segments or edges_MeV", both)
    key = "binning.segments" if b.segments else "binning.edges_MeV"
    if b.segments:
        _check_segments(b, check)
    ends = [b.edges_MeV[0], b.edges_MeV[-1]] if b.edges_MeV else [b.segments[0][0], b.segments[-1][1]]
    expected = f"edges in MeV from 0 to {HIGHEST_EDGE_MeV:g}"
    check.need(ends[0] >= 0 and ends[1] <= HIGHEST_EDGE_MeV, key, expected, ends)
    edges = list(b.edges())
    check.need(len(edges) >= 2, key, "at least two edges", edges)
    check.need(_increasing(edges), key, "edges that increase", edges)
    fine = (edges[-1] - edges[0]) / b.fine_width_MeV < MOST_BINS
    check.need(fine, "binning.fine_width_MeV", f"a width that gives at most {MOST_BINS} bins", b.fine_width_MeV)


def _check_segments(b: Binning, check: Checker) -> None:
    for i, row in enumerate(b.segments):
        key = f"binning.segments[{i}]"
        good = len(row) == 3 and row[0] < row[1] and 1 <= row[2] <= MOST_BINS and row[2] == int(row[2])
        check.need(good, key, "[low, high, whole number of bins] with low < high", list(row))
        if i:
            end = b.segments[i - 1][1]
            check.need(row[0] == end, key, f"a segment that starts where the last one ends ({end} MeV)", list(row))


def _increasing(values: list[float]) -> bool:
    return all(x < y for x, y in itertools.pairwise(values))


def _check_oscillation(e: Experiment, check: Checker) -> None:
    for name in e.oscillation:
        known = (*OSCILLATION, *STERILE)
        check.need(name in known, f"oscillation.{name}", f"one of {', '.join(known)}", name)
    sterile = STERILE if any(n in e.oscillation for n in STERILE) else ()
    for name in (*OSCILLATION, *sterile):
        check.need(name in e.oscillation, f"oscillation.{name}", "a value", None, "add it")
        v, key = e.oscillation[name], f"oscillation.{name}"
        check.need(v.sigma is None or v.sigma > 0, f"{key}.sigma", "a width above 0", v.sigma, "or leave it out")
        check.need(len(v.bounds) in (0, 2), f"{key}.bounds", "[low, high]", list(v.bounds))
        check.need(_increasing(list(v.bounds)), f"{key}.bounds", "low < high", list(v.bounds))
        if name.startswith("sin2"):
            check.need(FRACTION[1](v.value), key, FRACTION[0], v.value)
            check.need(all(map(FRACTION[1], v.bounds)), f"{key}.bounds", "limits from 0 to 1", list(v.bounds))
        inside = not v.bounds or v.bounds[0] <= v.value <= v.bounds[1]
        check.need(inside, key, f"a value within its bounds {list(v.bounds)}", v.value)
    solar, atmospheric = e.oscillation["dm2_21_eV2"], e.oscillation["dm2_31_eV2"]
    check.need(solar.value > 0, "oscillation.dm2_21_eV2", "a positive number of eV²", solar.value)
    ratio = abs(atmospheric.value) / solar.value
    size = f"a size above {SMALLEST_RATIO:g} Δm²21 (in eV²)"
    check.need(ratio > SMALLEST_RATIO, "oscillation.dm2_31_eV2", size, atmospheric.value)
    try:
        e.oscillation_parameters()
    except NuebarError as error:
        raise NuebarError(f"{check.where}: key 'oscillation': {error}") from error


def _check_systematics(s: Systematics, check: Checker) -> None:
    check.ranges(s, "systematics")
    check.names(s.signal, "systematics.signal")
    check.numbers(s.signal, "systematics.signal", PULL)
    for isotope in s.fission_fractions:
        key = f"systematics.fission_fractions.{isotope}"
        check.need(isotope in ISOTOPES, key, f"one of the isotopes {', '.join(ISOTOPES)}", isotope)
    check.numbers(s.fission_fractions, "systematics.fission_fractions", PULL)
    key = "systematics.resolution"
    check.need(len(s.resolution) in (0, 3), key, "three widths, of a, b, c", list(s.resolution))
    check.need(all(map(WIDTH[1], s.resolution)), key, f"each {WIDTH[0]}", list(s.resolution))


def _check_background(b: Background, key: str, check: Checker) -> None:
    check.ranges(b, "backgrounds", key)
    check.need(b.shape not in ("", {}), f"{key}.shape", "the name of a shape, a file, or weights of shapes", b.shape)
    if isinstance(b.shape, dict):
        check.numbers(b.shape, f"{key}.shape", NOT_NEGATIVE)
        heavy = sum(b.shape.values()) >= 1e-12
        check.need(heavy, f"{key}.shape", "at least one weight above 0", b.shape)

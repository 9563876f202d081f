"""What a TOML file can say: frozen dataclasses for experiments, loaded, checked and shown.

Every number of an experiment lives in such a file with its source; no number of an experiment lives in code.
A wrong file is refused with one sentence that names the file and the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION, Parameter

__all__ = [
    "Background",
    "Binning",
    "Core",
    "Experiment",
    "Exposure",
    "FitSettings",
    "Matter",
    "Reactor",
    "Release",
    "Response",
    "Systematics",
    "Target",
    "available_experiments",
    "experiment_from_mapping",
    "load_experiment",
    "override",
    "show",
]

FORMAT = 1
STATISTICS = ("cnp", "poisson", "pearson", "neyman")
ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
EXPERIMENTS = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Value:
    """A parameter as a TOML file gives it: a number, or a table with a prior and bounds."""

    value: float
    sigma: float | None = None
    bounds: tuple[float, ...] = ()
    fixed: bool = False


@dataclass(frozen=True)
class Target:
    """The target: free protons, and the efficiency of the whole selection (a pure number)."""

    free_protons: float
    efficiency: float


@dataclass(frozen=True)
class Exposure:
    """Detector live time in days. ``days_per_year`` turns ``--exposure-years`` into days."""

    days: float
    days_per_year: float = 365.25


@dataclass(frozen=True)
class Core:
    """One reactor core (or one effective core of a distant plant).

    ``history`` names a CSV table with columns days, power_GW and, if wanted, U235, U238, Pu239, Pu241: power
    and fuel against time. Without it power and fractions are constant.
    """

    name: str
    power_GW: float
    baseline_km: float
    duty_cycle: float | None = None
    fission_fractions: dict[str, float] | None = None
    history: str | None = None


@dataclass(frozen=True)
class Reactor:
    """Spectra and fuel common to all cores.

    Attributes:
        spectrum: ``"huber-mueller"``, or a CSV table: e_nu_MeV and antineutrinos per fission and MeV of the
            four isotopes.
        shape: ``"none"``, or a CSV table e_nu_MeV, ratio that multiplies the spectrum (bump and yield).
        nonequilibrium: ``"none"`` or a CSV table: relative addition per isotope.
        spent_fuel: ``"none"`` or a CSV table: relative addition of the spent fuel.
        unoscillated_per_day: If given, the rate without oscillations and before efficiency is scaled to it.
        segments_MeV: Nodes of a free reactor spectrum in neutrino energy; empty for none.
        segments_sigma: Relative prior width at each node.
    """

    cores: tuple[Core, ...]
    fission_fractions: dict[str, float]
    energy_per_fission_MeV: dict[str, float]
    duty_cycle: float = 1.0
    spectrum: str = "huber-mueller"
    shape: str = "none"
    nonequilibrium: str = "none"
    spent_fuel: str = "none"
    cross_section: str = "vogel-beacom"
    unoscillated_per_day: float | None = None
    segments_MeV: tuple[float, ...] = ()
    segments_sigma: float = 1.0


@dataclass(frozen=True)
class Response:
    """From deposited to reconstructed energy.

    Attributes:
        nonlinearity: A CSV table (e_dep_MeV, ratio and pull curves), ``"birks"`` (from kB, fC and the light
            yield) or ``"none"`` (reconstructed is deposited energy).
        resolution: (a, b, c): σ/E = √((a/√E)² + b² + (c/E)²), E visible, in MeV.
        kB_g_cm2_GeV: Birks' coefficient, for ``"birks"``.
        fC: Cherenkov factor, for ``"birks"``.
        light_yield_per_MeV: Scintillation photons per MeV, for ``"birks"``.
    """

    nonlinearity: str
    resolution: tuple[float, ...]
    kB_g_cm2_GeV: float = 0.0
    fC: float = 0.0
    light_yield_per_MeV: float = 1.0


@dataclass(frozen=True)
class Binning:
    """Bins of the reconstructed prompt energy.

    Attributes:
        segments: Rows (low, high, number of bins) in MeV, or one row of edges if ``edges_MeV`` is given.
        edges_MeV: All edges, instead of ``segments``.
        fine_width_MeV: Bins are subdivided to at most this width for the prediction.
    """

    segments: tuple[tuple[float, ...], ...] = ()
    edges_MeV: tuple[float, ...] = ()
    fine_width_MeV: float = 0.02

    def edges(self) -> tuple[float, ...]:
        """The edges in MeV."""
        if self.edges_MeV:
            return self.edges_MeV
        out = [self.segments[0][0]]
        for low, high, n in self.segments:
            out += [low + (high - low) * (k + 1) / int(n) for k in range(int(n))]
        return tuple(round(e, 12) for e in out)


@dataclass(frozen=True)
class Background:
    """One background: a rate with its error and a shape with its error (both relative).

    ``shape`` is a name of :data:`nuebar.physics.backgrounds.SHAPES`, several of them with weights
    (``{geoneutrinos_U = 0.77, geoneutrinos_Th = 0.23}``), or the path of a user's histogram.
    ``slope_sigma`` adds a pull that tilts the shape: the relative change per MeV around its mean energy.
    """

    name: str
    rate_per_day: float
    rate_sigma: float
    shape: str | dict[str, float]
    shape_sigma: float = 0.0
    slope_sigma: float = 0.0


@dataclass(frozen=True)
class Matter:
    """Constant density along the baseline; ``sigma_g_cm3`` makes it a pull."""

    density_g_cm3: float
    sigma_g_cm3: float = 0.0
    electrons_per_nucleon: float = 0.5


@dataclass(frozen=True)
class Systematics:
    """Widths of the pulls; a zero or a missing entry switches one off. All relative unless named otherwise.

    Attributes:
        signal: Name → width of pulls that scale the whole signal (correlated flux, efficiency, protons).
        core: Width of an independent scale of each core.
        spent_fuel: Width of the spent-fuel contribution.
        nonequilibrium: Width of the non-equilibrium contribution.
        fission_fractions: Isotope → width of its fission fraction, common to all cores.
        energy_scale: Width of a common scale of the reconstructed energy.
        energy_offset_MeV: Width of a common offset in MeV.
        nonlinearity: Whether the pull curves of the non-linearity table are used (each N(0, 1)).
        nonlinearity_scale: Widens the pull curves by this factor.
        resolution: Widths of a, b, c.
        spectrum_shape: A CSV table e_MeV, relative: bin-to-bin uncertainty of the signal, uncorrelated, for
            bins of ``spectrum_shape_width_MeV``; or ``"none"``.
    """

    signal: dict[str, float] = field(default_factory=dict)
    core: float = 0.0
    spent_fuel: float = 0.0
    nonequilibrium: float = 0.0
    fission_fractions: dict[str, float] = field(default_factory=dict)
    energy_scale: float = 0.0
    energy_offset_MeV: float = 0.0
    nonlinearity: bool = False
    nonlinearity_scale: float = 1.0
    resolution: tuple[float, ...] = ()
    spectrum_shape: str = "none"
    spectrum_shape_width_MeV: float = 0.02


@dataclass(frozen=True)
class Release:
    """What is taken from a folder of released data when one is given (``--release``).

    Attributes:
        nonlinearity: The positron curve with its error band, instead of ``response.nonlinearity``.
        backgrounds: The shapes of the components of the same name, at the rates of this file.
        unoscillated: The signal is rescaled per bin to the released un-oscillated spectrum.
    """

    nonlinearity: bool = False
    backgrounds: bool = False
    unoscillated: bool = False


@dataclass(frozen=True)
class FitSettings:
    """How the spectrum is compared: the cost, and whether bin-to-bin uncertainties enter its variance."""

    statistic: str = "cnp"
    shape_uncertainties: bool = True


@dataclass(frozen=True)
class Experiment:
    """Everything that a spectrum prediction and its fit need to know about one experiment."""

    format: int
    name: str
    title: str
    target: Target
    exposure: Exposure
    reactor: Reactor
    response: Response
    binning: Binning
    oscillation: dict[str, Value]
    matter: Matter
    backgrounds: tuple[Background, ...] = ()
    systematics: Systematics = field(default_factory=Systematics)
    release: Release = field(default_factory=Release)
    fit: FitSettings = field(default_factory=FitSettings)
    source: str = ""

    def table(self, name: str) -> Path:
        """The path of a table: beside the experiment's file, else among those that ship with nuebar."""
        base = Path(self.source).parent if self.source else EXPERIMENTS
        for path in (base / name, EXPERIMENTS / name):
            if path.is_file():
                return path
        raise NuebarError(
            f"{self.source or self.name}: table {name!r} is neither beside the file nor in {EXPERIMENTS}"
        )

    def oscillation_parameters(self) -> tuple[Parameter, ...]:
        """The four oscillation parameters, in their fixed order."""
        return tuple(
            Parameter(
                name,
                v.value,
                v.sigma,
                (v.bounds[0], v.bounds[1]) if v.bounds else (None, None),
                unit="eV$^2$" if name.startswith("dm2") else "",
                fixed=v.fixed,
            )
            for name in OSCILLATION
            for v in (self.oscillation[name],)
        )


def available_experiments() -> tuple[str, ...]:
    """Names of the experiments that ship with nuebar."""
    return tuple(sorted(p.stem for p in EXPERIMENTS.glob("*.toml")))


def load_experiment(name_or_path: str | Path) -> Experiment:
    """Read an experiment by name (``"juno"``) or from a user's TOML file.

    Args:
        name_or_path: A name of :func:`available_experiments`, or a path that ends in ``.toml``.

    Returns:
        The checked experiment.

    Raises:
        NuebarError: The file is missing, is not TOML, or a key is unknown, missing or out of range.
    """
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else EXPERIMENTS / f"{text}.toml"
    if not path.is_file():
        raise NuebarError(
            f"no experiment {text!r}: expected one of {', '.join(available_experiments())}, "
            "or the path of a TOML file that ends in .toml"
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NuebarError(f"{path}: not a valid TOML file: {error}") from error
    return experiment_from_mapping(raw, source=str(path))


def experiment_from_mapping(raw: Mapping[str, Any], *, source: str = "") -> Experiment:
    """Build and check an experiment from a mapping (the content of a TOML file)."""
    where = source or "experiment"
    if raw.get("format") != FORMAT:
        raise NuebarError(f"{where}: key 'format': expected {FORMAT}, got {raw.get('format')!r}")
    if "source" in raw:
        raise NuebarError(f"{where}: unknown key 'source'")
    experiment = dataclasses.replace(_record(Experiment, raw, where, ""), source=source)
    _check(experiment, where)
    return experiment


def override(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """A copy with some keys replaced, addressed by dots: ``{"reactor.shape": "none"}``."""

    def apply(record: Any, keys: list[str], value: Any) -> Any:
        head, *rest = keys
        if isinstance(record, dict):
            new = apply(record[head], rest, value) if rest else value
            return {**record, head: new}
        if not hasattr(record, head):
            raise NuebarError(f"override: {experiment.name} has no key {head!r}")
        return dataclasses.replace(
            record, **{head: apply(getattr(record, head), rest, value) if rest else value}
        )

    for dotted, value in changes.items():
        experiment = apply(experiment, dotted.split("."), value)
    _check(experiment, experiment.source or experiment.name)
    return experiment


def show(experiment: Experiment) -> str:
    """The experiment as TOML, with every default written out. Reading it gives the same experiment."""
    record = dataclasses.asdict(experiment)
    record.pop("source")
    return "\n".join(_toml_lines(record, "")) + "\n"


# ---------------------------------------------------------------- building


def _record(cls: type, raw: Any, where: str, prefix: str) -> Any:
    """Turn a mapping into a dataclass, checking keys and types."""
    if not isinstance(raw, Mapping):
        raise NuebarError(f"{where}: key {prefix.rstrip('.')!r}: expected a table, got {raw!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(fields)}"
            raise NuebarError(f"{where}: unknown key {prefix + key!r}{hint}")
    values = {}
    for name, spec in fields.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], where, prefix + name)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise NuebarError(f"{where}: missing key {prefix + name!r}")
    return cls(**values)


def _convert(kind: Any, raw: Any, where: str, key: str) -> Any:
    """Check one value against the type of its field."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, raw, where, key)
    if kind is Value and isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = {"value": raw}
    if dataclasses.is_dataclass(kind):
        return _record(kind, raw, where, key + ".")
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            raise NuebarError(f"{where}: key {key!r}: expected a list, got {raw!r}")
        return tuple(_convert(args[0], item, where, f"{key}[{i}]") for i, item in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise NuebarError(f"{where}: key {key!r}: expected a table, got {raw!r}")
        return {name: _convert(args[1], item, where, f"{key}.{name}") for name, item in raw.items()}
    return _scalar(kind, raw, where, key)


def _convert_union(kinds: tuple[Any, ...], raw: Any, where: str, key: str) -> Any:
    if raw is None and type(None) in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not type(None))
    for kind in kinds:
        if isinstance(raw, Mapping) == (typing.get_origin(kind) is dict) or len(kinds) == 1:
            return _convert(kind, raw, where, key)
    raise NuebarError(f"{where}: key {key!r}: got {raw!r}, which is none of the expected types")


def _scalar(kind: type, raw: Any, where: str, key: str) -> Any:
    if kind is bool and isinstance(raw, bool):
        return raw
    if kind is str and isinstance(raw, str):
        return raw
    if kind is int and isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise NuebarError(f"{where}: key {key!r}: expected a finite number, got {raw}")
        return float(raw)
    expected = {"float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false"}
    raise NuebarError(f"{where}: key {key!r}: expected {expected[kind.__name__]}, got {raw!r}")


# ---------------------------------------------------------------- checking


def _require(condition: bool, where: str, key: str, expected: str, got: Any) -> None:
    if not condition:
        raise NuebarError(f"{where}: key {key!r}: expected {expected}, got {got!r}")


def _check(e: Experiment, where: str) -> None:
    """Ranges and consistency; each failure is one sentence."""

    def need(condition: bool, key: str, expected: str, got: Any) -> None:
        _require(condition, where, key, expected, got)

    need(e.target.free_protons > 0, "target.free_protons", "a positive number", e.target.free_protons)
    need(0 < e.target.efficiency <= 1, "target.efficiency", "a number in (0, 1]", e.target.efficiency)
    need(e.exposure.days > 0, "exposure.days", "a positive number of days", e.exposure.days)
    need(
        e.exposure.days_per_year > 0, "exposure.days_per_year", "a positive number", e.exposure.days_per_year
    )
    _check_reactor(e.reactor, need)
    _check_binning(e.binning, need)
    need(
        len(e.response.resolution) == 3,
        "response.resolution",
        "three numbers [a, b, c]",
        e.response.resolution,
    )
    need(
        all(r >= 0 for r in e.response.resolution) and any(r > 0 for r in e.response.resolution),
        "response.resolution",
        "non-negative numbers, not all zero",
        e.response.resolution,
    )
    need(e.matter.density_g_cm3 >= 0, "matter.density_g_cm3", "a number ≥ 0", e.matter.density_g_cm3)
    need(e.matter.sigma_g_cm3 >= 0, "matter.sigma_g_cm3", "a number ≥ 0", e.matter.sigma_g_cm3)
    need(e.fit.statistic in STATISTICS, "fit.statistic", f"one of {', '.join(STATISTICS)}", e.fit.statistic)
    _check_oscillation(e, where, need)
    _check_systematics(e.systematics, need)
    names = [b.name for b in e.backgrounds]
    need(len(set(names)) == len(names), "backgrounds", "different names", names)
    for i, b in enumerate(e.backgrounds):
        for key in ("rate_per_day", "rate_sigma", "shape_sigma", "slope_sigma"):
            need(getattr(b, key) >= 0, f"backgrounds[{i}].{key} ({b.name})", "a number ≥ 0", getattr(b, key))


def _check_reactor(r: Reactor, need: Callable[[bool, str, str, Any], None]) -> None:
    need(len(r.cores) > 0, "reactor.cores", "at least one core", list(r.cores))
    names = [c.name for c in r.cores]
    need(len(set(names)) == len(names), "reactor.cores", "different names", names)
    need(0 < r.duty_cycle <= 1, "reactor.duty_cycle", "a number in (0, 1]", r.duty_cycle)
    for i, c in enumerate(r.cores):
        key = f"reactor.cores[{i}]"
        need(c.power_GW >= 0, f"{key}.power_GW ({c.name})", "a number ≥ 0", c.power_GW)
        need(c.baseline_km > 0, f"{key}.baseline_km ({c.name})", "a positive number", c.baseline_km)
        duty = c.duty_cycle
        need(duty is None or 0 <= duty <= 1, f"{key}.duty_cycle ({c.name})", "a number in [0, 1]", duty)
        if c.fission_fractions is not None:
            _check_fractions(c.fission_fractions, f"{key}.fission_fractions ({c.name})", need)
    _check_fractions(r.fission_fractions, "reactor.fission_fractions", need)
    energies = r.energy_per_fission_MeV
    need(set(energies) == set(ISOTOPES), "reactor.energy_per_fission_MeV", f"exactly {ISOTOPES}", energies)
    need(min(energies.values()) > 0, "reactor.energy_per_fission_MeV", "positive numbers", energies)
    need(
        r.cross_section in ("vogel-beacom", "strumia-vissani"),
        "reactor.cross_section",
        "'vogel-beacom' or 'strumia-vissani'",
        r.cross_section,
    )
    nodes = list(r.segments_MeV)
    need(nodes == sorted(set(nodes)), "reactor.segments_MeV", "increasing energies", nodes)
    rate = r.unoscillated_per_day
    need(rate is None or rate > 0, "reactor.unoscillated_per_day", "a positive number", rate)


def _check_fractions(f: dict[str, float], key: str, need: Callable[[bool, str, str, Any], None]) -> None:
    need(set(f) == set(ISOTOPES), key, f"exactly {', '.join(ISOTOPES)}", f)
    need(min(f.values()) >= 0, key, "numbers ≥ 0", f)
    need(
        abs(sum(f.values()) - 1) < 1e-3, key, "fractions that add up to 1", f"a sum of {sum(f.values()):.6g}"
    )


def _check_binning(b: Binning, need: Callable[[bool, str, str, Any], None]) -> None:
    need(bool(b.segments) != bool(b.edges_MeV), "binning", "either segments or edges_MeV", "both or neither")
    need(b.fine_width_MeV > 0, "binning.fine_width_MeV", "a positive width", b.fine_width_MeV)
    for i, row in enumerate(b.segments):
        need(
            len(row) == 3 and row[0] < row[1] and row[2] >= 1 and row[2] == int(row[2]),
            f"binning.segments[{i}]",
            "[low, high, number of bins]",
            list(row),
        )
        if i:
            need(
                row[0] == b.segments[i - 1][1],
                f"binning.segments[{i}]",
                f"a segment that starts where the one before ends ({b.segments[i - 1][1]} MeV)",
                list(row),
            )
    edges = b.edges()
    need(len(edges) >= 2, "binning.edges_MeV", "at least two edges", list(edges))
    increasing = all(x < y for x, y in itertools.pairwise(edges))
    need(increasing, "binning.edges_MeV", "increasing edges", list(edges)[:8])
    need(edges[0] >= 0 and edges[-1] <= 50, "binning", "edges in MeV between 0 and 50", [edges[0], edges[-1]])
    need(
        (edges[-1] - edges[0]) / b.fine_width_MeV < 2e4,
        "binning.fine_width_MeV",
        "at most 20000 fine bins",
        b.fine_width_MeV,
    )


def _check_oscillation(e: Experiment, where: str, need: Callable[[bool, str, str, Any], None]) -> None:
    need(
        set(e.oscillation) == set(OSCILLATION),
        "oscillation",
        f"exactly {', '.join(OSCILLATION)}",
        list(e.oscillation),
    )
    for name, v in e.oscillation.items():
        key = f"oscillation.{name}"
        need(len(v.bounds) in (0, 2), f"{key}.bounds", "[low, high]", list(v.bounds))
        if name.startswith("sin2"):
            need(0 <= v.value <= 1, key, "a number in [0, 1]", v.value)
            need(
                not v.bounds or (v.bounds[0] >= 0 and v.bounds[1] <= 1),
                f"{key}.bounds",
                "in [0, 1]",
                v.bounds,
            )
    need(e.oscillation["dm2_21_eV2"].value > 0, "oscillation.dm2_21_eV2", "a positive number of eV²",
         e.oscillation["dm2_21_eV2"].value)  # fmt: skip
    ratio = abs(e.oscillation["dm2_31_eV2"].value) / e.oscillation["dm2_21_eV2"].value
    need(ratio > 3, "oscillation.dm2_31_eV2", "a size above 3 Δm²21 (in eV²)",
         e.oscillation["dm2_31_eV2"].value)  # fmt: skip
    try:
        e.oscillation_parameters()
    except NuebarError as error:
        raise NuebarError(f"{where}: key 'oscillation': {error}") from error


def _check_systematics(s: Systematics, need: Callable[[bool, str, str, Any], None]) -> None:
    for key in ("core", "spent_fuel", "nonequilibrium", "energy_scale", "energy_offset_MeV"):
        need(getattr(s, key) >= 0, f"systematics.{key}", "a width ≥ 0", getattr(s, key))
    for group in ("signal", "fission_fractions"):
        for name, width in getattr(s, group).items():
            need(width > 0, f"systematics.{group}.{name}", "a width > 0", width)
    unknown = set(s.fission_fractions) - set(ISOTOPES)
    need(not unknown, "systematics.fission_fractions", f"isotopes of {ISOTOPES}", sorted(unknown))
    need(len(s.resolution) in (0, 3), "systematics.resolution", "three widths", list(s.resolution))
    need(all(r >= 0 for r in s.resolution), "systematics.resolution", "widths ≥ 0", list(s.resolution))
    need(s.spectrum_shape_width_MeV > 0, "systematics.spectrum_shape_width_MeV", "a width > 0",
         s.spectrum_shape_width_MeV)  # fmt: skip


# ---------------------------------------------------------------- showing


def _toml_lines(record: Mapping[str, Any], prefix: str) -> list[str]:
    """Write nested tables as TOML: scalars first, then tables, then arrays of tables."""
    scalars, tables, arrays = [], [], []
    for key, value in record.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            tables.append((key, value))
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            arrays.append((key, value))
        else:
            scalars.append(f"{_toml_key(key)} = {_toml_value(value)}")
    lines = scalars
    for key, value in tables:
        name = prefix + _toml_key(key)
        lines += ["", f"[{name}]", *_toml_lines(value, name + ".")]
    for key, rows in arrays:
        name = prefix + _toml_key(key)
        for row in rows:
            lines += ["", f"[[{name}]]", *_toml_lines(row, name + ".")]
    return lines


def _toml_key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)

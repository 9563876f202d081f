"""What a TOML file can say: frozen dataclasses for experiments, loaded, checked and shown.

Every number of an experiment lives in such a file with its source; no number of an experiment lives in code.
A wrong file is refused with one sentence that names the file and the key.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nuebar.config_checks import ISOTOPES, STATISTICS, STERILE, check_experiment
from nuebar.config_detector import Detector, check_detector
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION, Parameter
from nuebar.records import from_mapping, read_toml, refuse, replaced, to_mapping, to_toml

__all__ = [
    "ISOTOPES",
    "STATISTICS",
    "STERILE",
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
EXPERIMENTS = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Value:
    """A parameter as a TOML file gives it: a number, or a table with a prior and bounds."""

    SHORTHAND: ClassVar[str] = "value"

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
        corrected: Whether the reconstructed energy was corrected for the non-linearity ("true" energy): the
            curve itself then drops out and its pulls stay.
        anchor_MeV: Deposited energy at which the scale is fixed by calibration: pull curves are divided by their
            own scale there, so that they bend the energy but do not move it as a whole (that is
            ``systematics.energy_scale``). 0 takes the curves as they are.
        resolution: (a, b, c): σ/E = √((a/√E)² + b² + (c/E)²), E visible, in MeV.
        kB_g_cm2_GeV: Birks' coefficient, for ``"birks"``.
        fC: Cherenkov factor, for ``"birks"``.
        light_yield_per_MeV: Scintillation photons per MeV, for ``"birks"``.
        cherenkov_photons_per_cm: What fC = 1 stands for: photons per cm of an electron with β = 1, detected with
            the same probability as scintillation photons. Needed for ``"birks"``.
    """

    nonlinearity: str
    resolution: tuple[float, ...]
    corrected: bool = False
    anchor_MeV: float = 0.0
    kB_g_cm2_GeV: float = 0.0
    fC: float = 0.0
    light_yield_per_MeV: float = 1.0
    cherenkov_photons_per_cm: float = 0.0


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
    ``rate_free`` frees the rate without a prior; ``rate_sigma`` is then not used.
    """

    name: str
    rate_per_day: float
    rate_sigma: float
    shape: str | dict[str, float]
    shape_sigma: float = 0.0
    slope_sigma: float = 0.0
    rate_free: bool = False


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
    detector: Detector | None = None
    source: str = ""

    def table(self, name: str) -> Path:
        """The path of a table: beside the experiment's file, else among those that ship with nuebar.

        Args:
            name: As the file names it.

        Raises:
            NuebarError: There is no such file; the keys that name it are in the message.
        """
        base = Path(self.source).parent if self.source else EXPERIMENTS
        file, root, key = name.partition(".root:")  # a histogram inside a ROOT file
        for folder in (base, EXPERIMENTS):
            if _is_file(folder / (file + root.rstrip(":"))):
                return folder / (file + root + key)
        keys = " and ".join(_keys_with(to_mapping(self), name, "")) or "a table"
        expected = f"a built-in word, or a file beside this one or in {EXPERIMENTS}"
        refuse(self.source or self.name, keys, expected, name, "correct the name or add the file")

    @property
    def sterile(self) -> bool:
        """Whether there is a sterile state (``sin2_th14`` and ``dm2_41_eV2`` in the oscillation table)."""
        return all(name in self.oscillation for name in STERILE)

    def oscillation_parameters(self) -> tuple[Parameter, ...]:
        """The four oscillation parameters, in their fixed order, and those of a sterile state if there is one."""
        return tuple(
            Parameter(
                name,
                v.value,
                v.sigma,
                (v.bounds[0], v.bounds[1]) if v.bounds else (None, None),
                unit="eV$^2$" if name.startswith("dm2") else "",
                fixed=v.fixed,
            )
            for name in (*OSCILLATION, *(STERILE if self.sterile else ()))
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
    if not _is_file(path):
        known = available_experiments()
        close = difflib.get_close_matches(text, known, n=1)
        absent = "there is no such file; " if text.endswith(".toml") else ""
        raise NuebarError(
            f"no experiment {text!r}: {absent}expected one of {', '.join(known)}, or the path of a TOML file that "
            f"ends in .toml{f'; did you mean {close[0]!r}?' if close else ''}"
        )
    return experiment_from_mapping(read_toml(path), source=str(path))


def experiment_from_mapping(raw: Mapping[str, Any], *, source: str = "") -> Experiment:
    """Build and check an experiment from a mapping (the content of a TOML file).

    Args:
        raw: Nested tables, as ``tomllib`` reads them.
        source: The file they come from; tables that it names are looked for beside it.

    Raises:
        NuebarError: A key is unknown, missing, of a wrong type or out of range.
    """
    return _experiment(raw, source, source or "experiment")


def override(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """A copy with some keys replaced, then checked like a file.

    Args:
        experiment: The experiment.
        changes: Dotted key → value: ``{"reactor.shape": "none", "reactor.cores.TS1.power_GW": 4.4}``. Entries of
            lists go by name or number (``cores[0]``). A number for an oscillation parameter changes its value
            and keeps prior and bounds.

    Raises:
        NuebarError: A key is unknown, or the new value is of a wrong type or out of range.
    """
    where = f"{experiment.source or experiment.name}, with changes"
    record = to_mapping(experiment)
    record.pop("source")
    for dotted, value in changes.items():
        record = replaced(record, dotted, value, where)
    return _experiment(record, experiment.source, where)


def show(experiment: Experiment) -> str:
    """The experiment as TOML, with every default written out. Reading it gives the same experiment."""
    record = to_mapping(experiment)
    record.pop("source")
    return to_toml(record)


def _experiment(raw: Mapping[str, Any], source: str, where: str) -> Experiment:
    if not isinstance(raw, Mapping):
        raise NuebarError(f"{where}: expected a mapping of tables, got {type(raw).__name__}")
    if raw.get("format") != FORMAT:
        refuse(where, "format", str(FORMAT), raw.get("format"), f"add 'format = {FORMAT}' or update nuebar")
    if "source" in raw:
        raise NuebarError(f"{where}: unknown key 'source'; leave it out")
    experiment = dataclasses.replace(from_mapping(Experiment, raw, where), source=source)
    check_experiment(experiment, where)
    if experiment.detector is not None:
        check_detector(experiment.detector, where)
    return experiment


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _keys_with(record: Any, name: str, key: str) -> list[str]:
    """Dotted keys whose value is a name."""
    if isinstance(record, Mapping):
        return [k for n, v in record.items() for k in _keys_with(v, name, f"{key}.{n}" if key else n)]
    if isinstance(record, list | tuple):
        return [k for i, v in enumerate(record) for k in _keys_with(v, name, f"{key}[{i}]")]
    return [key] if record == name and key.rpartition(".")[2] not in ("name", "title", "source") else []

"""What a run file says: one table for each stage of the chain, every key with a default.

The chain that ships is ``experiments/run/juno.toml``; ``nuebar run`` without a file takes it. A user's file names what
differs from it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuebar.chain.run_checks import RESPONSE, check_run_file
from nuebar.chain.run_paths import placed_paths
from nuebar.errors import NuebarError
from nuebar.records import from_mapping, read_toml, refuse, to_mapping, to_toml

__all__ = [
    "RESPONSE",
    "STAGES",
    "DataFiles",
    "FitStage",
    "FullTraining",
    "PredictStage",
    "Prior",
    "Range",
    "ReportStage",
    "RunFile",
    "SelectStage",
    "SimulateStage",
    "TruthSettings",
    "TuneStage",
    "load_run_file",
    "show_run_file",
]

SHIPPED = Path(__file__).parents[1] / "experiments" / "run" / "juno.toml"
STAGES = ("simulate", "select", "tune", "predict", "fit", "report")
LARGEST_BYTES = 100_000  # of a run file
MOST_DOTS = 200  # in a line of it: memory grows as the square of the parts of a dotted key
DEEPEST, LONGEST = 20, 64  # tables within tables, characters of a key


@dataclass(frozen=True)
class Prior:
    """A Gaussian.

    Attributes:
        value: Its centre.
        sigma: Its width; 0 for a number without error.
    """

    value: float
    sigma: float


@dataclass(frozen=True)
class Range:
    """Even between two ends.

    Attributes:
        low: The lower one.
        high: The upper one; the same for a fixed number.
    """

    low: float
    high: float


@dataclass(frozen=True)
class DataFiles:
    """A user's own files, each instead of what the chain would make. Paths are relative to the run file.

    Attributes:
        stream: Detector stream: a file, folder or pattern.
        stream_columns: Column map of the stream (TOML).
        calibration: Source → file of charges or spectrum.
        calibration_columns: Column map of these.
        monte_carlo: Source of pairs → folder of Monte Carlo pairs for the efficiency; ``ibd`` is needed.
        sample: Folder of a selected sample, instead of stream and selection: what the stage ``select`` writes.
        response: Posterior of the response, instead of calibration and tuning.
    """

    stream: str | None = None
    stream_columns: str | None = None
    calibration: dict[str, str] = field(default_factory=dict)
    calibration_columns: str | None = None
    monte_carlo: dict[str, str] = field(default_factory=dict)
    sample: str | None = None
    response: str | None = None


@dataclass(frozen=True)
class TruthSettings:
    """From what the hidden truth is drawn.

    Attributes:
        oscillation: Parameter → Gaussian.
        response: Parameter → even range.
    """

    oscillation: dict[str, Prior]
    response: dict[str, Range]


@dataclass(frozen=True)
class SimulateStage:
    """What is simulated.

    Attributes:
        days: Length of the stream.
        window_s: Length of one of its chunks.
        cascades: Photon cascades of every material of the radioactivity.
        calibration_events: Events of every calibration source.
        calibration_cascades: Cascades of every source.
        monte_carlo_ibd: Antineutrino pairs for the efficiency.
        monte_carlo_backgrounds: Pairs of every correlated background for theirs.
        truth: What is hidden.
    """

    days: float
    window_s: float
    cascades: int
    calibration_events: int
    calibration_cascades: int
    monte_carlo_ibd: int
    monte_carlo_backgrounds: int
    truth: TruthSettings


@dataclass(frozen=True)
class SelectStage:
    """How pairs are selected.

    Attributes:
        classifier: ``"network"`` (ships with nuebar), a folder of a trained one, or ``"cuts"``.
        at: Operating point of its description.
        threshold: Least score, instead of the operating point.
        selection: Name or TOML file: window, threshold, cuts.
        fiducial: Whether the prompt vertex must be in the fiducial volume of the selection.
        delayed_MeV: Least energy of the delayed event.
        muon_veto_ms: Dead time after a muon; 0 for none.
        muon_MeV: Events with more are muons.
        max_dr_m: Vertices further apart are no pair.
        offset_ms: Distance of the first off-time window.
        windows: Number of off-time windows.
        explained: Pairs whose scores are explained.
    """

    classifier: str
    at: str
    selection: str
    fiducial: bool
    delayed_MeV: float
    muon_veto_ms: float
    muon_MeV: float
    max_dr_m: float
    offset_ms: float
    windows: int
    explained: int
    threshold: float | None = None


@dataclass(frozen=True)
class TuneStage:
    """How the response is tuned.

    Attributes:
        density: ``"spline"``, ``"planar"``, ``"tede"`` (ship with nuebar) or a folder.
        method: ``"minuit"``, ``"nuts"`` or ``"nested"``.
        unbinned: Whether single charges are used.
        samples: Draws.
        replicas: Simulated data sets of the goodness of fit.
        coverage: Simulated data sets of the coverage; 0 for none.
    """

    density: str
    method: str
    unbinned: bool
    samples: int
    replicas: int
    coverage: int


@dataclass(frozen=True)
class PredictStage:
    """How the spectrum is predicted.

    Attributes:
        predictor: ``"surrogate"`` (ships with nuebar) or a folder of one with response parameters.
        reference_pairs: Monte Carlo pairs at the tuned response, with which it is compared; 0 for no comparison.
    """

    predictor: str
    reference_pairs: int


@dataclass(frozen=True)
class FitStage:
    """How the spectrum is fitted.

    Attributes:
        bins: Even bins of reconstructed energy.
        low_MeV: Their lower end.
        high_MeV: Their upper end.
        statistic: One of :data:`nuebar.config.STATISTICS`.
        ordering: ``"normal"`` or ``"inverted"``.
        energy_scale: Prior width of the common energy scale.
        priors: Oscillation parameter → Gaussian of other experiments.
        contour: Two parameters; empty for none.
        contour_points: Points on each axis.
    """

    bins: int
    low_MeV: float
    high_MeV: float
    statistic: str
    ordering: str
    energy_scale: float
    priors: dict[str, Prior]
    contour: tuple[str, ...]
    contour_points: int


@dataclass(frozen=True)
class ReportStage:
    """What the page holds.

    Attributes:
        explorer: Whether the live spectrum is in it.
    """

    explorer: bool


@dataclass(frozen=True)
class FullTraining:
    """How the models are trained by ``nuebar run --full``: published sizes, unless the run file says otherwise.

    Attributes:
        ibd_pairs: Antineutrino pairs for the selection.
        accidental_pairs: Accidental pairs for it.
        select_recipe: Recipe of the network.
        select_epochs: Instead of the recipe's; 0 for those.
        calibration_set: Training set of calibration sources, a name of the plan.
        validation_sets: Sets by which the best weights are chosen.
        calibration_cascades: Cascades of every source.
        tune_recipe: Recipe of the density.
        tune_epochs: Instead of the recipe's; 0 for those.
        surrogate_pairs: Cascades of antineutrinos for the surrogate.
        plan: TOML plan of calibration sets; empty for the published one.
    """

    ibd_pairs: int
    accidental_pairs: int
    select_recipe: str
    select_epochs: float
    calibration_set: str
    validation_sets: tuple[str, ...]
    calibration_cascades: int
    tune_recipe: str
    tune_epochs: int
    surrogate_pairs: int
    plan: str = ""


@dataclass(frozen=True)
class RunFile:
    """A run: what every stage is asked for.

    Attributes:
        format: 1.
        title: For people.
        experiment: Name or TOML file.
        seed: Seed of everything.
        data: A user's own files.
        simulate: See :class:`SimulateStage`.
        select: See :class:`SelectStage`.
        tune: See :class:`TuneStage`.
        predict: See :class:`PredictStage`.
        fit: See :class:`FitStage`.
        report: See :class:`ReportStage`.
        full: See :class:`FullTraining`.
        source: The file, for messages.
        outside: Absolute paths that the file names outside of its own folder.
    """

    format: int
    title: str
    experiment: str
    seed: int
    simulate: SimulateStage
    select: SelectStage
    tune: TuneStage
    predict: PredictStage
    fit: FitStage
    report: ReportStage
    full: FullTraining
    data: DataFiles = DataFiles()
    source: str = ""
    outside: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether all data are simulated by this run, so that the truth is known."""
        d = self.data
        return d.stream is None and d.sample is None and d.response is None and not d.calibration

    def mapping(self) -> dict[str, Any]:
        """The content without where it was read from."""
        out = to_mapping(self)
        return {k: v for k, v in out.items() if k not in ("source", "outside")}


def load_run_file(path: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> RunFile:
    """Read a run file; what it leaves out is taken from the one that ships.

    Args:
        path: TOML file; ``None`` for the one that ships.
        changes: Dotted keys that replace what the file says, as ``--set fit.bins=40`` gives them.

    Raises:
        NuebarError: The file is none or too large, a key is unknown, a value wrong, or a relative path leaves the
            folder of the file.
    """
    where, folder = "the run file that ships", None
    try:
        content = read_toml(SHIPPED)
        if path is not None:
            where = str(path)
            content = _merged(content, _read(Path(path)), where)
            folder = Path(path).resolve().parent
        for key, value in (changes or {}).items():
            content = _merged(content, _nested(key, value), f"--set {key[:LONGEST]}")
        _check_keys(content, where)
        run: RunFile = from_mapping(RunFile, content, where)
    except RecursionError as error:
        raise NuebarError(
            f"{where}: expected tables and lists of sensible depth, got them within each other"
        ) from error
    check_run_file(run, where)
    return placed_paths(run, folder, where)


def _read(path: Path) -> dict[str, Any]:
    """The file, if it is one and not too large."""
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NuebarError(f"{path}: cannot be read ({reason}); check the path and its rights") from error
    if not stat.S_ISREG(about.st_mode):
        raise NuebarError(f"{path}: expected a run file, got a folder or a device; name a TOML file")
    if about.st_size > LARGEST_BYTES:
        raise NuebarError(f"{path}: expected a run file of at most {LARGEST_BYTES} bytes, got {about.st_size}")
    if any(line.count(b".") > MOST_DOTS for line in path.read_bytes().splitlines()):
        raise NuebarError(f"{path}: expected at most {MOST_DOTS} dots in a line, got more; is this a run file?")
    return read_toml(path)


def _check_keys(content: Mapping[str, Any], where: str) -> None:
    """Keys that can be repeated in a message, and tables that a function can walk through."""
    for word in ("source", "outside"):
        if word in content:
            refuse(where, word, "no such key", content[word], "remove it")
    tables: list[tuple[Any, int]] = [(content, 0)]
    while tables:
        table, depth = tables.pop()
        if depth > DEEPEST:
            raise NuebarError(
                f"{where}: expected at most {DEEPEST} tables within each other, got more; shorten the key"
            )
        items = table.items() if isinstance(table, Mapping) else enumerate(table)
        for key, value in items:
            if isinstance(key, str) and len(key) > LONGEST:
                refuse(where, f"{key[:LONGEST]}…", f"at most {LONGEST} characters of a key", len(key), "correct it")
            if isinstance(value, Mapping | list):
                tables.append((value, depth + 1))


def show_run_file(run: RunFile) -> str:
    """The run file with every default, as TOML."""
    return to_toml(run.mapping())


def _merged(base: Mapping[str, Any], own: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """The tables of both; numbers, texts and lists of the second replace those of the first."""
    out = dict(base)
    for key, value in own.items():
        old = base.get(key)
        if isinstance(old, Mapping) and not isinstance(value, Mapping):
            refuse(where, prefix + key, "a table", value)
        out[key] = _merged(old, value, where, f"{prefix}{key}.") if isinstance(old, Mapping) else value
    return out


def _nested(key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: _nested(rest, value) if rest else value}

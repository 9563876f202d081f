"""What a run file says: one table for each stage of the chain, every key with a default.

The chain that ships is ``experiments/run/juno.toml``; ``nuebar run`` without a file takes it. A user's file names what
differs from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nuebar.config import STATISTICS
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
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
RESPONSE = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
FORMAT = 1


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

    KNOWN: ClassVar[tuple[str, ...]] = ("normal", "inverted")

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


_LEAST = {
    "simulate.window_s": 60, "simulate.cascades": 1000, "simulate.calibration_events": 100,
    "simulate.calibration_cascades": 1000, "simulate.monte_carlo_ibd": 1000, "simulate.monte_carlo_backgrounds": 100,
    "select.windows": 1, "select.offset_ms": 0, "select.muon_veto_ms": 0, "select.delayed_MeV": 0,
    "select.explained": 0, "tune.samples": 100, "tune.replicas": 0, "tune.coverage": 0,
    "predict.reference_pairs": 0, "fit.bins": 4, "fit.contour_points": 5, "fit.energy_scale": 0, "seed": 0,
}  # fmt: skip


def load_run_file(path: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> RunFile:
    """Read a run file; what it leaves out is taken from the one that ships.

    Args:
        path: TOML file; ``None`` for the one that ships.
        changes: Dotted keys that replace what the file says, as ``--set fit.bins=40`` gives them.

    Raises:
        NuebarError: A key is unknown, a value wrong, or a relative path leaves the folder of the file.
    """
    content = read_toml(SHIPPED)
    where, folder = "the run file that ships", None
    if path is not None:
        own = read_toml(Path(path))
        where, folder = str(path), Path(path).resolve().parent
        content = _merged(content, own, where)
    for key, value in (changes or {}).items():
        content = _merged(content, _nested(key, value), f"--set {key}")
    run = from_mapping(RunFile, {k: v for k, v in content.items() if k not in ("source", "outside")}, where)
    _check(run, where)
    return _placed(run, folder, where)


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


def _check(run: RunFile, where: str) -> None:
    if run.format != FORMAT:
        refuse(where, "format", f"{FORMAT}", run.format, "write the file for this version")
    content = run.mapping()
    for key, least in _LEAST.items():
        value: Any = content
        for part in key.split("."):
            value = value[part]
        if value < least:
            refuse(where, key, f"{least} or more", value, "correct it")
    if not 0 < run.simulate.days <= 36_500:
        refuse(where, "simulate.days", "a number from 0 to 36500", run.simulate.days, "give one like 30")
    if not 0 <= run.fit.low_MeV < run.fit.high_MeV <= 20:
        refuse(where, "fit.low_MeV", "a range inside 0 to 20 MeV", [run.fit.low_MeV, run.fit.high_MeV])
    for key, value, known in (
        ("fit.ordering", run.fit.ordering, FitStage.KNOWN),
        ("fit.statistic", run.fit.statistic, STATISTICS),
        ("tune.method", run.tune.method, ("minuit", "nuts", "nested")),
    ):
        if value not in known:
            refuse(where, key, f"one of {', '.join(known)}", value, "correct it")
    if len(run.fit.contour) not in (0, 2):
        refuse(where, "fit.contour", "two parameters, or none", list(run.fit.contour))
    _check_names(run, where)
    d = run.data
    if d.sample is not None and d.stream is not None:
        raise NuebarError(f"{where}: data.stream and data.sample exclude each other; a sample needs no stream")
    if not run.simulated and not ((d.stream or d.sample) and (d.calibration or d.response)):
        raise NuebarError(
            f"{where}: own data need both: data.stream or data.sample, and data.calibration or data.response; "
            "simulated and own data are not mixed"
        )
    if d.response is not None and d.calibration:
        raise NuebarError(f"{where}: data.response and data.calibration exclude each other; leave one out")


def _check_names(run: RunFile, where: str) -> None:
    truth = run.simulate.truth
    for key, found, known, complete in (
        ("simulate.truth.oscillation", truth.oscillation, OSCILLATION, True),
        ("simulate.truth.response", truth.response, RESPONSE, True),
        ("fit.priors", run.fit.priors, OSCILLATION, False),
    ):
        for name in found:
            if name not in known:
                refuse(where, f"{key}.{name}", f"one of {', '.join(known)}", name, "correct the name")
        if complete and set(found) != set(known):
            refuse(where, key, f"all of {', '.join(known)}", sorted(found), "complete it")
    for key, priors in (("simulate.truth.oscillation", truth.oscillation), ("fit.priors", run.fit.priors)):
        for name, prior in priors.items():
            if prior.sigma < 0 or (key == "fit.priors" and prior.sigma == 0):
                refuse(where, f"{key}.{name}.sigma", "a width above 0", prior.sigma)
    for name, ends in truth.response.items():
        if not 0 <= ends.low <= ends.high:
            refuse(
                where,
                f"simulate.truth.response.{name}",
                "low not above high, neither below 0",
                dataclasses.asdict(ends),
            )


# ---------------------------------------------------------------- paths


def _placed(run: RunFile, folder: Path | None, where: str) -> RunFile:
    """Paths made absolute: relative ones lie in the folder of the run file and may not leave it."""
    outside: list[str] = []

    def placed(key: str, text: str) -> str:
        path = Path(text)
        if path.is_absolute():
            outside.append(f"{key} = {text}")
            return str(path)
        if folder is None:
            return str(path.resolve())
        whole = (folder / path).resolve()
        if not whole.is_relative_to(folder):
            raise NuebarError(
                f"{where}: key {key!r}: expected a path inside the folder of the run file, got {text!r}, which leads "
                "out of it; write it as an absolute path if that is meant"
            )
        return str(whole)

    d = run.data
    single = ("stream", "stream_columns", "calibration_columns", "sample", "response")
    changes: dict[str, Any] = {n: placed(f"data.{n}", getattr(d, n)) for n in single if getattr(d, n) is not None}
    for name in ("calibration", "monte_carlo"):
        changes[name] = {key: placed(f"data.{name}.{key}", value) for key, value in getattr(d, name).items()}
    data = dataclasses.replace(d, **changes)
    select, tune, predict, experiment = run.select, run.tune, run.predict, run.experiment
    if experiment.endswith(".toml"):
        experiment = placed("experiment", experiment)
    if _is_path(select.classifier):
        select = dataclasses.replace(select, classifier=placed("select.classifier", select.classifier))
    if select.selection.endswith(".toml"):
        select = dataclasses.replace(select, selection=placed("select.selection", select.selection))
    if _is_path(tune.density):
        tune = dataclasses.replace(tune, density=placed("tune.density", tune.density))
    full = run.full
    if full.plan:
        full = dataclasses.replace(full, plan=placed("full.plan", full.plan))
    if _is_path(predict.predictor):
        predict = dataclasses.replace(predict, predictor=placed("predict.predictor", predict.predictor))
    return dataclasses.replace(
        run,
        data=data,
        experiment=experiment,
        select=select,
        tune=tune,
        predict=predict,
        full=full,
        source=where,
        outside=tuple(outside),
    )


def _is_path(text: str) -> bool:
    """Words of shipped models have no separator and no dot."""
    return "/" in text or "\\" in text or "." in text

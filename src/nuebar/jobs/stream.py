"""Detector streams on disk: everything a detector records in days or years, window by window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.event_writer import EventWriter
from nuebar.jobs.experiments import described, recalled
from nuebar.jobs.ibd import load_spectrum, spectrum_stage
from nuebar.jobs.singles import load_singles, singles_stages
from nuebar.run import Stage, StageResult, Workers, run_stage
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import singles_events
from nuebar.simulate.stream import (
    COLUMNS,
    FIRST_MATERIAL,
    MUON,
    NS_PER_S,
    PairShape,
    Window,
    kinds,
    merged,
    muon_events,
    ordered_times,
    pair_events,
)

__all__ = ["Skim", "StreamJob", "pair_sources", "run_stream", "shapes_chunk", "shapes_stage", "stream_chunk"]

Progress = Callable[[str, int, int], None]
SECONDS_PER_DAY = 86_400
_SHAPE_EDGES_MeV = np.arange(0.0, 12.0001, 0.01)
_CUT_BITS = 8  # of the 23 of a fraction: what is left is known to 2e-5 of itself, 0.5 mm at the edge


@dataclass(frozen=True, kw_only=True)
class Skim:
    """What a selection with a fiducial volume of the prompt vertex needs of a stream.

    Kept are muons, events with at least ``delayed_MeV`` anywhere, and events with at least ``prompt_MeV`` inside of
    ``fiducial_m``. Every pair, on time or off time, of a prompt event inside and a delayed event of at least
    ``delayed_MeV`` is then what it was, if all pairs of the window are looked at: a multiplicity rule would not see the
    third events that are left out. A skimmed stream has no ``n_pe``; energies and vertices are rounded to 2⁻¹⁶ of
    themselves (0.02 keV at 2 MeV, 0.3 mm at the edge; resolutions are 40 keV and 7 cm), which saves a fifth of the
    bytes.

    Attributes:
        fiducial_m: Radius of the fiducial volume.
        prompt_MeV: Least reconstructed energy of a prompt event.
        delayed_MeV: Least reconstructed energy of a delayed event.
    """

    fiducial_m: float
    prompt_MeV: float = 0.7
    delayed_MeV: float = 1.5

    def __post_init__(self) -> None:
        for name, high in (("fiducial_m", 1000.0), ("prompt_MeV", 100.0), ("delayed_MeV", 100.0)):
            if not 0 < getattr(self, name) <= high:
                raise NuebarError(
                    f"skim: {name}: expected a number above 0, at most {high:g}, got {getattr(self, name)}; correct it"
                )

    def keeps(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which events of a stream stay, muons excepted.

        Args:
            events: ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m`` as they are written.

        Returns:
            Booleans of shape ``(n,)``.
        """
        e, x, y, z = (events[name].astype(np.float64) for name in ("e_rec_MeV", "x_m", "y_m", "z_m"))
        inside = x * x + y * y + z * z < self.fiducial_m**2
        return (e >= self.delayed_MeV) | ((e >= self.prompt_MeV) & inside)


@dataclass(frozen=True)
class StreamJob:
    """What ``nuebar simulate stream`` was asked for.

    Attributes:
        experiment: Detector and reactors.
        days: Length of the stream, rounded up to whole windows.
        window_s: Length of a chunk in seconds.
        response: kB, fC and light yield; those of the experiment by default.
        oscillation: Oscillation parameters of the antineutrinos.
        cascades: Cascades of every material's pool.
        above_MeV: Singles with less reconstructed energy are not written; the detector's threshold by default.
        muons: Whether muons are written.
        seed: Seed of the run.
        skim: Write only what a selection needs; ``None`` for everything.
        truth: Whether the columns ``true_kind``, ``true_pair`` and ``true_e_nu_MeV`` are written.
    """

    experiment: Experiment
    days: float
    oscillation: Mapping[str, float]
    window_s: float = 14_400.0
    response: Response | None = None
    cascades: int = 200_000
    above_MeV: float | None = None
    muons: bool = True
    seed: int = 1
    skim: Skim | None = None
    truth: bool = True


def run_stream(
    job: StreamJob,
    folder: str | Path,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> StageResult:
    """Make spectrum, shapes, pools and rates, then the stream.

    Args:
        job: What is wanted.
        folder: The run folder; the stream is ``stream/chunk-*.parquet``.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away what another configuration has left there.
        max_seconds: Start nothing new after this time.

    Returns:
        The chunks of the stream. The summary of each counts its ``events`` and ``pairs``: source → pairs with their
        prompt event in the window, whatever of them is recorded and kept.
    """
    if not 0 < job.days <= 36_500:
        raise NuebarError(f"days: expected a number from 0 to 36500, got {job.days}; give one like 30")
    if not 1 <= job.window_s <= SECONDS_PER_DAY:
        raise NuebarError(f"window: expected seconds from 1 to {SECONDS_PER_DAY}, got {job.window_s}")
    options: dict[str, Any] = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
    described_experiment = described(job.experiment)
    shapes = shapes_stage(job.experiment)
    spectrum = spectrum_stage(job.experiment, job.oscillation)
    for stage in (*singles_stages(job.experiment, job.cascades), spectrum, shapes):
        run_stage(folder, stage, seed=job.seed, **options)
    r = job.response
    # Windows are whole and know nothing of the length: more days extend a stream.
    total = round(job.days * SECONDS_PER_DAY * NS_PER_S)
    window = round(job.window_s * NS_PER_S)
    config = {
        "experiment": described_experiment,
        "oscillation": dict(job.oscillation),
        "cascades": job.cascades,
        "response": [r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV] if r is not None else None,
        "window_ns": window,
        "above_MeV": job.above_MeV,
        "muons": job.muons,
        "seed": job.seed,
    }
    # Only what is not the default is told: folders of before these keys are still the same configuration.
    if job.skim is not None:
        config["skim"] = asdict(job.skim)
    if not job.truth:
        config["truth"] = False
    stage = Stage("stream", "nuebar.jobs.stream:stream_chunk", config, -(-total // window))
    return run_stage(folder, stage, seed=job.seed, **options)


def shapes_stage(experiment: Experiment) -> Stage:
    """The stage that writes the prompt energies of the correlated backgrounds."""
    config = {"experiment": described(experiment)}
    return Stage("shapes", "nuebar.jobs.stream:shapes_chunk", config, 1, ".safetensors", isolated=True)


def shapes_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Distribution functions of the prompt visible energy of every background of pairs."""
    from nuebar.physics.backgrounds import SHAPES
    from nuebar.simulate.nonlinearity import anchored, gamma_light, positron_light

    experiment = recalled(config["experiment"])
    model = DetectorModel.build(experiment)
    energies = np.array([1.022, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12])
    material = model.detector.material
    anchor = gamma_light([(2.2233,)], 50_000, 1, material=material)
    ratio = anchored(positron_light(energies.tolist(), 5_000, 1, material=material), anchor, model.light)

    def visible(e_dep_MeV: Any) -> np.ndarray:
        e = np.asarray(e_dep_MeV)
        return e * np.interp(e, energies, ratio)

    edges = _SHAPE_EDGES_MeV
    arrays = {"e_vis_MeV": edges}
    for pairs in model.detector.pairs:
        mixture = {pairs.shape: 1.0} if isinstance(pairs.shape, str) else pairs.shape
        unknown = [name for name in mixture if name not in SHAPES]
        if unknown:
            raise NuebarError(
                f"detector.pairs.{pairs.name}.shape: expected one of {', '.join(SHAPES)}, got {unknown[0]!r}"
            )
        density = sum(
            weight * np.asarray(SHAPES[name](edges, (0.0, 0.0, 0.0), response=visible))
            for name, weight in mixture.items()
        )
        total = np.concatenate([[0.0], np.cumsum(density)])
        arrays[pairs.name] = total / total[-1]
    save_arrays(path, arrays)
    return {"shapes": len(arrays) - 1}


def pair_sources(model: DetectorModel, folder: Path) -> list[PairShape]:
    """Sources of pairs of a run folder: antineutrinos, then the detector's correlated backgrounds."""
    per_s = 1.0 / SECONDS_PER_DAY
    nothing = np.empty(0)
    sources = [PairShape("ibd", model.detector.ibd_per_day * per_s, nothing, nothing)]
    table = load_arrays(folder / "shapes" / "chunk-00000.safetensors")[0]
    for p in model.detector.pairs:
        rate = p.rate_per_day / p.efficiency * per_s
        depth = p.depth_m if p.place == "edge" else 0.0
        sources.append(PairShape(p.name, rate, table["e_vis_MeV"], table[p.name], depth))
    return sources


def stream_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """One window of the stream."""
    folder = path.parents[1]
    response = Response(*config["response"]) if config["response"] is not None else None
    model = DetectorModel.build(recalled(config["experiment"]), response)
    light, rates = load_singles(folder, model)
    begin = chunk * config["window_ns"]
    window = Window(chunk, begin, config["window_ns"])
    above = config["above_MeV"] if config["above_MeV"] is not None else model.detector.threshold_MeV
    drawn = singles_events(light, model, rates, derive_key(key, "singles"), duration_s=window.seconds, above_MeV=above)
    n = drawn["e_rec_MeV"].size
    # Thinning by the threshold leaves a Poisson stream: the times may be drawn after it.
    singles = {
        "t_ns": ordered_times(n, window, derive_key(key, "times")),
        **{name: drawn[name] for name in ("e_rec_MeV", "n_pe", "x_m", "y_m", "z_m")},
        "true_kind": drawn["true_material"].astype(np.int64) + FIRST_MATERIAL,
        "true_pair": np.zeros(n, np.int64),
        "true_e_nu_MeV": np.zeros(n, np.float32),
    }
    spectrum = load_spectrum(folder / "spectrum" / "chunk-00000.safetensors")
    sources = pair_sources(model, folder)
    pairs = pair_events(sources, spectrum, model, window, config["seed"])
    made = {source.name: int(np.count_nonzero(pairs["true_kind"] == 1 + 2 * i)) for i, source in enumerate(sources)}
    inside = pairs["e_rec_MeV"] >= above
    others = {name: column[inside] for name, column in pairs.items()}
    if config["muons"]:
        muons = muon_events(model, window, config["seed"])
        others = {name: np.concatenate([others[name], muons[name]]) for name in COLUMNS}
    events = merged(singles, others)
    about: dict[str, Any] = {"kind": "stream", "begin_ns": begin, "end_ns": begin + window.length_ns}
    if "skim" in config:
        events = _skimmed(events, Skim(**config["skim"]))
        about["skim"] = config["skim"]
    else:
        events["n_pe"] = np.maximum(events["n_pe"], 0)
    if config.get("truth", True):
        about["kinds"] = kinds([s.name for s in sources], light.materials)
    else:
        events = {name: column for name, column in events.items() if not name.startswith("true_")}
    with EventWriter(path, tuple(events), metadata=about) as writer:
        writer.append(events)
    return {"events": int(events["t_ns"].size), "seconds": window.seconds, "pairs": made}


def _skimmed(events: Mapping[str, np.ndarray], skim: Skim) -> dict[str, np.ndarray]:
    """What is left of a window, without ``n_pe``."""
    rounded = {name: _rounded(events[name]) for name in ("e_rec_MeV", "x_m", "y_m", "z_m")}
    kept = skim.keeps(rounded) | (events["true_kind"] == MUON)
    return {name: rounded.get(name, column)[kept] for name, column in events.items() if name != "n_pe"}


def _rounded(values: np.ndarray) -> np.ndarray:
    """Float32 with the last bits 0: a byte less on disk."""
    bits = values.astype(np.float32).view(np.uint32)
    half, mask = np.uint32(1 << (_CUT_BITS - 1)), np.uint32((1 << 32) - (1 << _CUT_BITS))
    return ((bits + half) & mask).view(np.float32)

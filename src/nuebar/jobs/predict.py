"""The jobs of ``nuebar predict``: expected rates and spectra, and predictors on disk."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nuebar.config import Experiment, load_experiment, override
from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.jobs.fit import exposure_days
from nuebar.jobs.pairs import even_edges, experiment_pairs
from nuebar.predict.box import Provenance
from nuebar.predict.build import about_mc, from_cascades, from_pairs, matrix_from_cascades, normalised_cascades
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import SignalInputs, signal_inputs
from nuebar.predict.spectrum import SpectrumModel, build_model
from nuebar.predict.store import save_predictor

if TYPE_CHECKING:
    from nuebar.predict.cascades import Cascades
    from nuebar.predict.network import Recipe
    from nuebar.predict.pairs import Pairs
    from nuebar.predict.response import ResponsePoint
    from nuebar.predict.surrogate import SurrogatePredictor
    from nuebar.simulate.quench import Response

__all__ = ["KINDS", "BuildJob", "Prediction", "build_predictor", "prediction", "recipes"]

KINDS = ("harmonic", "matrix", "grid", "network", "surrogate")
BINS = 400  # from Monte Carlo
FILES = ("weights.safetensors", "model.json", "spectra.f32", "grid.json")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prediction:
    """Expected spectrum of an experiment at its nominal parameters.

    Attributes:
        experiment: What was predicted.
        model: The model.
        components: Counts per bin by name.
        cores: Selected signal events of each core over the exposure.
        unoscillated: Signal events per bin without oscillations.
    """

    experiment: Experiment
    model: SpectrumModel
    components: dict[str, np.ndarray]
    cores: dict[str, float]
    unoscillated: np.ndarray

    @property
    def full_power_days(self) -> float:
        """Exposure times the reactors' duty cycle."""
        return self.experiment.exposure.days * self.experiment.reactor.duty_cycle

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write ``spectrum.csv`` and ``spectrum.png``."""
        from nuebar.report import plots

        out = output_folder(folder)
        edges = np.array(self.model.edges_MeV)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["low_MeV", "high_MeV", *self.components, "signal_without_oscillation"])
        rows = np.column_stack([edges[:-1], edges[1:], *self.components.values(), self.unoscillated])
        writer.writerows([[f"{x:.10g}" for x in row] for row in rows])
        atomic_write_text(out / "spectrum.csv", buffer.getvalue())
        total = np.sum(list(self.components.values()), axis=0)
        figure = plots.spectrum(
            edges,
            total,
            self.components,
            unoscillated=self.unoscillated,
            title=self.experiment.title,
            simulated=True,
        )
        plots.save(figure, out / "spectrum.png")
        return out / "spectrum.csv", out / "spectrum.png"


def prediction(
    experiment: str,
    release: Path | None = None,
    inputs: Path | None = None,
    years: float | None = None,
    days: float | None = None,
    predictor: str = "harmonic",
) -> Prediction:
    """Predict an experiment at its nominal parameters; the arguments are those of the command."""
    loaded = load_experiment(experiment)
    loaded = override(loaded, {"exposure.days": exposure_days(loaded, years, days)})
    # Cores are told apart here even where no power pull asks for it.
    if loaded.systematics.core == 0:
        loaded = override(loaded, {"systematics.core": 1e-6})
    model, parameters = build_model(
        loaded,
        predictor=predictor,
        release=read_juno_2025(release) if release is not None else None,
        inputs=read_common_inputs(inputs) if inputs is not None else None,
    )
    values = parameters.nominal()
    return Prediction(
        experiment=loaded,
        model=model,
        components=model.components(values),
        cores=model.core_counts(values),
        unoscillated=model.unoscillated(),
    )


@dataclass(frozen=True)
class BuildJob:
    """The options of ``nuebar predict build``.

    Attributes:
        kind: One of :data:`KINDS`.
        experiment: Name or path of the experiment: reactors, exposure, response.
        inputs: ROOT file of JUNO's common inputs, which replace the embedded ones.
        release: Folder of JUNO's 2025 release.
        pairs: Files or folders of Monte Carlo pairs.
        columns: Their column map.
        cascades: Folder of cascades.
        point: kB, fC and light yield for the cascades; the experiment's by default.
        bins: Number of even bins; 400 from Monte Carlo, else the experiment's fine bins.
        low_MeV: Where they start.
        high_MeV: Where they end.
        experiment_bins: Take the experiment's fine bins.
        fiducial: Leave events outside of the fiducial volume out.
        window_sigma: Half width of the windows of the mass splittings in standard deviations of PDG 2022.
        vacuum: Leave matter out.
        recipe: Of a network, one of :func:`recipes`.
        spectra: Training spectra of a network.
        steps: Training steps of a network.
        max_seconds: Budget of a training.
        accuracy: Relative error that a grid may have.
        order: Of a grid's interpolation.
        seed: Of a training.
    """

    kind: str = "harmonic"
    experiment: str = "juno"
    inputs: Path | None = None
    release: Path | None = None
    pairs: tuple[str, ...] = ()
    columns: Path | None = None
    cascades: Path | None = None
    point: Response | None = None
    bins: int | None = None
    low_MeV: float = 0.8
    high_MeV: float = 8.8
    experiment_bins: bool = False
    fiducial: bool = True
    window_sigma: float = 15.0
    vacuum: bool = False
    recipe: str = "published"
    spectra: int | None = None
    steps: int | None = None
    max_seconds: float | None = None
    accuracy: float = 1e-3
    order: int = 3
    seed: int = 0


def recipes() -> dict[str, Recipe]:
    """Recipes of networks by name."""
    from nuebar.predict.network import PLAIN, PUBLISHED, PUBLISHED_DECAYING, SMALLER

    return {"published": PUBLISHED, "published-decaying": PUBLISHED_DECAYING, "plain": PLAIN, **SMALLER}


def build_predictor(job: BuildJob, out: str | Path, progress: Progress | None = None) -> list[str]:
    """Build and save a predictor.

    Args:
        job: The options.
        out: Output folder, made if missing.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Lines that say what was built.

    Raises:
        NuebarError: The options do not go together, or the input is wrong.
    """
    began = time.perf_counter()
    _check(job)
    experiment = load_experiment(job.experiment)
    options: dict[str, Any] = {
        "release": read_juno_2025(job.release) if job.release is not None else None,
        "inputs": read_common_inputs(job.inputs) if job.inputs is not None else None,
    }
    arrays = signal_inputs(experiment, edges=_edges(job, experiment), **options)
    lines = [f"{job.kind} predictor of {experiment.name}: {arrays.edges_MeV.size - 1} bins, {_what(job)}"]
    built, told = _built(job, experiment, arrays, out, progress)
    if job.kind in ("harmonic", "matrix", "surrogate"):
        save_predictor(built, out)
    lines += [*told, *_told(built), f"{built.nbytes / 1e6:.1f} MB, {time.perf_counter() - began:.1f} s"]
    return [*lines, *(f"wrote {Path(out) / name}" for name in FILES if (Path(out) / name).is_file())]


def _built(
    job: BuildJob, experiment: Experiment, arrays: SignalInputs, out: str | Path, progress: Progress | None
) -> tuple[Any, list[str]]:
    """The predictor, and lines on how it was made; grids and networks are written on the way."""
    if job.kind == "surrogate":
        return _signed(_surrogate(job, experiment, arrays, progress), job), []
    if job.kind == "matrix":
        return _signed(_matrix(job, experiment, arrays, progress), job), []
    harmonic = _signed(_harmonic(job, experiment, arrays, progress), job)
    if job.kind == "harmonic":
        return harmonic, []
    return (_grid if job.kind == "grid" else _network)(job, harmonic, out, progress)


def _signed(predictor: Any, job: BuildJob) -> Any:
    """The predictor with the command that makes it again; where the input lies is left out."""
    words = ["nuebar predict build", job.kind]
    if job.experiment != "juno":
        words.append(f"--experiment {Path(job.experiment).name}")
    words += [f"--{name} FOLDER" for name in ("pairs", "cascades", "inputs", "release") if getattr(job, name)]
    if job.point is not None:
        words.append("--kB {:g} --fC {:g} --light-yield {:g}".format(*vars(job.point).values()))
    standard = BuildJob()
    named = (
        ("bins", "--bins"), ("low_MeV", "--from"), ("high_MeV", "--to"), ("window_sigma", "--sigma"),
        ("recipe", "--recipe"), ("spectra", "--spectra"), ("steps", "--steps"), ("seed", "--seed"),
    )  # fmt: skip
    words += [f"{o} {getattr(job, n):g}" if n != "recipe" else f"{o} {job.recipe}" for n, o in named
              if getattr(job, n) != getattr(standard, n)]  # fmt: skip
    switches = (("experiment_bins", "--experiment-bins"), ("vacuum", "--vacuum"))
    words += [option for name, option in switches if getattr(job, name)]
    words += [] if job.fiducial else ["--no-fiducial"]
    return replace(predictor, provenance=Provenance({**predictor.provenance, "command": " ".join(words)}))


def _check(job: BuildJob) -> None:
    if job.kind not in KINDS:
        raise NuebarError(f"expected a kind of predictor from {', '.join(KINDS)}, got {job.kind!r}")
    if job.pairs and job.cascades is not None:
        raise NuebarError("give --pairs or --cascades, not both")
    if job.kind == "surrogate" and job.cascades is None:
        raise NuebarError(
            "a surrogate is made from cascades, got none; simulate them with 'nuebar simulate ibd --cascades' and give "
            "--cascades FOLDER"
        )
    for name, given, needed in (
        ("--columns", job.columns is not None, bool(job.pairs)),
        ("--kB, --fC and --light-yield", job.point is not None, job.cascades is not None),
        ("--vacuum", job.vacuum, job.kind in ("harmonic", "surrogate")),
    ):
        if given and not needed:
            where = {
                "--columns": "--pairs",
                "--vacuum": "harmonic predictors and surrogates (a matrix always takes the density, grids and networks "
                "never do)",
            }.get(name, "--cascades")
            raise NuebarError(f"{name}: expected it with {where} only; leave it out")
    if job.experiment_bins and job.bins is not None:
        raise NuebarError("give --bins or --experiment-bins, not both")


def _edges(job: BuildJob, experiment: Experiment) -> np.ndarray | None:
    """Chosen bins; None for those of the experiment."""
    mc = bool(job.pairs) or job.cascades is not None
    if job.experiment_bins or (not mc and job.bins is None):
        return None
    return even_edges(job.bins or BINS, job.low_MeV, job.high_MeV)


def _what(job: BuildJob) -> str:
    if job.pairs:
        return "from Monte Carlo pairs"
    return "from cascades" if job.cascades is not None else "from the experiment's flux and response"


def _matter(job: BuildJob) -> bool:
    return not job.vacuum and job.kind in ("harmonic", "surrogate")


def _pairs(job: BuildJob, experiment: Experiment, arrays: SignalInputs, progress: Progress | None) -> Pairs:
    options: dict[str, Any] = {"columns": job.columns, "fiducial": job.fiducial, "progress": progress}
    return experiment_pairs(job.pairs, arrays.edges_MeV, experiment, **options)


def _cascades(job: BuildJob, experiment: Experiment, progress: Progress | None) -> Cascades:
    from nuebar.predict.cascades import Cascades

    assert job.cascades is not None
    radius = None if job.fiducial else float("inf")
    return Cascades.load(job.cascades, experiment=experiment, fiducial_radius_m=radius, progress=progress)


def _point(job: BuildJob, experiment: Experiment) -> ResponsePoint:
    """The response asked for, or the experiment's own."""
    from nuebar.predict.response import ResponsePoint
    from nuebar.simulate.detector import nominal_response

    light = job.point or nominal_response(experiment)
    return ResponsePoint(light.kB_g_cm2_GeV, light.fC, light.light_yield_per_MeV)


def _harmonic(
    job: BuildJob, experiment: Experiment, arrays: SignalInputs, progress: Progress | None
) -> HarmonicPredictor:
    options: dict[str, Any] = {"windows": Windows.around_pdg(job.window_sigma), "matter": _matter(job)}
    if job.pairs:
        return from_pairs("harmonic", _pairs(job, experiment, arrays, progress), experiment, arrays, **options)
    if job.cascades is not None:
        cascades, point = _cascades(job, experiment, progress), _point(job, experiment)
        return from_cascades(cascades, point, experiment, arrays, **options)
    return HarmonicPredictor.build(arrays, cores=True, **options)


def _matrix(job: BuildJob, experiment: Experiment, arrays: SignalInputs, progress: Progress | None) -> MatrixPredictor:
    if job.pairs:
        return from_pairs("matrix", _pairs(job, experiment, arrays, progress), experiment, arrays)
    if job.cascades is not None:
        return matrix_from_cascades(_cascades(job, experiment, progress), _point(job, experiment), experiment, arrays)
    return MatrixPredictor.build(arrays)


def _surrogate(
    job: BuildJob, experiment: Experiment, arrays: SignalInputs, progress: Progress | None
) -> SurrogatePredictor:
    from nuebar.predict.surrogate import build_surrogate

    cascades = normalised_cascades(_cascades(job, experiment, progress), arrays)
    built = build_surrogate(
        cascades,
        arrays.edges_MeV,
        nominal=_point(job, experiment),
        windows=Windows.around_pdg(job.window_sigma),
        matter=_matter(job),
        progress=progress,
    )
    about = about_mc(experiment, arrays, "cascades", {**built.provenance, "events": len(cascades)})
    return replace(built, provenance=Provenance(about))


def _grid(
    job: BuildJob, harmonic: HarmonicPredictor, out: str | Path, progress: Progress | None
) -> tuple[Any, list[str]]:
    from nuebar.predict.grid import build_grid, points_for
    from nuebar.predict.network import PUBLISHED_BOX

    plan = points_for(harmonic, PUBLISHED_BOX, job.accuracy, job.order)
    told = (
        f"{' x '.join(map(str, plan.points))} spectra, interpolation of order {plan.order}, largest relative error "
        f"{plan.accuracy:.2g}"
    )
    return build_grid(harmonic, PUBLISHED_BOX, plan.points, out, order=job.order, progress=progress), [told]


def _network(
    job: BuildJob, harmonic: HarmonicPredictor, out: str | Path, progress: Progress | None
) -> tuple[Any, list[str]]:
    from nuebar.predict.network import accuracy, save_network, train_network

    known = recipes()
    if job.recipe not in known:
        raise NuebarError(f"--recipe: expected one of {', '.join(known)}, got {job.recipe!r}")
    recipe = known[job.recipe]
    training: dict[str, Any] = {"seed": job.seed, "max_seconds": job.max_seconds}
    if job.steps is not None:
        training |= {"max_steps": job.steps, "validate_every": min(recipe.training.validate_every, job.steps)}
    recipe = replace(recipe, training=replace(recipe.training, **training))
    if job.spectra is not None:
        recipe = replace(recipe, n_sets=job.spectra, n_validation=min(recipe.n_validation, max(1, job.spectra // 4)))
    checkpoint = output_folder(out) / "training.safetensors"
    predictor, trained, record = train_network(
        harmonic, recipe, edges_MeV=harmonic.edges, checkpoint=checkpoint, progress=progress
    )
    metrics = accuracy(predictor, harmonic, n=2000)
    save_network(predictor, out, training=record, metrics=metrics)
    return predictor, [
        f"recipe {recipe.name}, {recipe.n_sets} spectra, {trained.step} steps, {trained.reason}",
        f"against the exact spectra: median {metrics['relative_median']:.2g}, 99.9 % below "
        f"{metrics['relative_99.9']:.2g}",
    ]


def _told(predictor: Any) -> list[str]:
    """Where a predictor is valid and what it stands for."""
    lines = []
    if hasattr(predictor, "windows"):
        w = predictor.windows
        lines.append(
            f"dm2_21 in [{w.solar[0]:.4g}, {w.solar[1]:.4g}] eV²; |dm2_31|, |dm2_32| in "
            f"[{w.atmospheric[0]:.4g}, {w.atmospheric[1]:.4g}] eV²; mixing angles unbounded"
        )
    elif predictor.box:
        lines.append("; ".join(f"{n} in [{a:.4g}, {b:.4g}]" for n, (a, b) in predictor.box.items()))
    if isinstance(predictor, HarmonicPredictor):
        total = predictor.total
        lines.append(
            f"{total.solar.value.shape[-1]} solar and {total.atmospheric.value.shape[-1]} atmospheric terms, "
            f"{len(predictor.core_names)} cores"
        )
    about = predictor.provenance
    if "unoscillated_events" in about:
        radius = f" within {about['fiducial_radius_m']} m" if "fiducial_radius_m" in about else ""
        lines.append(
            f"{int(about['events']):,} events{radius}, normalised to {float(about['unoscillated_events']):.6g} without "
            f"oscillations in {about['exposure_days']} days"
        )
    return lines

"""Is the whole chain calibrated: many runs with truths and constraints of their own, by a fast path.

The fast path leaves out the stream. Antineutrinos and correlated backgrounds are drawn as pairs, with the number that
their rates and the live time of a finished run give, at the true response, and decided on by the selection. Numbers of
accidental pairs and of off-time pairs are drawn around the spectrum that the finished run measured. Calibration sources
are drawn from pools of the study's own and tuned with Minuit; the fit is that of the run. What a run needs beside that
(Monte Carlo efficiency, live time, accidental spectrum) comes from a finished run of the whole chain.

A stage can be broken on purpose: a study that does not notice proves nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.chain.experiment import fit_experiment, prior_widths
from nuebar.chain.fitting import SPLITTING
from nuebar.chain.run_file import RESPONSE, RunFile
from nuebar.chain.selection import apply_job
from nuebar.chain.spectrum import Sample, sample_fit
from nuebar.chain.truth import Truth, auxiliary_centres, draw_truth, part_seed
from nuebar.config import Experiment, load_experiment
from nuebar.errors import NuebarError
from nuebar.fit.interval import likelihood_root
from nuebar.fit.result import FitResult
from nuebar.fit.starts import run_from_starts
from nuebar.io.files import read_json
from nuebar.io.posteriors import ResponsePosterior
from nuebar.io.results import save_result
from nuebar.jobs.ibd import load_spectrum
from nuebar.jobs.select_apply import PairDecision, chosen_threshold, pair_options
from nuebar.jobs.select_efficiency import survival_weights
from nuebar.jobs.stream import pair_sources
from nuebar.parameters import OSCILLATION
from nuebar.predict.spectrum import Predictor
from nuebar.predict.store import load_predictor, predictor_folder
from nuebar.records import from_mapping
from nuebar.run import Stage, Workers, run_stage
from nuebar.select.config import load_selection
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key
from nuebar.simulate.stream import PairKeys, PairShape, drawn_pairs
from nuebar.stats.pulls import Calibration, calibration, mahalanobis
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import Density
from nuebar.tune.infer import infer
from nuebar.tune.simulated import SimulatedSources
from nuebar.tune.store import load_density

__all__ = ["BREAKS", "Ensemble", "FastRuns", "judged", "outcome_row", "run_ensemble"]

Progress = Callable[[str, int, int], None]
BREAKS = ("none", "kB", "efficiency", "accidentals")
"""What can be broken: kB of the posterior is 10 % too large; the efficiency is lost; accidentals are doubled."""
SEEDS_PER_CHUNK = 10
_WRONG_kB = 1.1
_TWICE = 2.0


@dataclass(frozen=True)
class Ensemble:
    """What is studied.

    Attributes:
        run: The run file.
        base: Folder of a finished run of the whole chain.
        seeds: How many runs.
        first: Seed of the first one.
        broken: One of :data:`BREAKS`.
        cascades: Of every calibration source's pool, which all seeds share: their noise is common to all of them.
    """

    run: RunFile
    base: Path
    seeds: int = 200
    first: int = 1000
    broken: str = "none"
    cascades: int = 4_000_000

    def __post_init__(self) -> None:
        if self.broken not in BREAKS:
            raise NuebarError(f"broken: expected one of {', '.join(BREAKS)}, got {self.broken!r}")
        if self.seeds < 1:
            raise NuebarError(f"seeds: expected at least one, got {self.seeds}")


@dataclass(frozen=True, eq=False)
class FastRuns:
    """Everything that is the same for all seeds.

    Attributes:
        run: The run file.
        experiment: Its experiment.
        spectrum: Interactions without oscillations.
        interactions_per_day: Of these.
        sources: Sources of pairs.
        decision: What a candidate is.
        sample: Of the finished run: live time, efficiency, and the accidental spectrum that is the truth here.
        widths: Priors of the fit.
        calibration: Sources with their pools.
        density: Of the tuning.
        predictor: Of the fit.
    """

    run: RunFile
    experiment: Experiment
    spectrum: IbdSpectrum
    interactions_per_day: float
    sources: tuple[PairShape, ...]
    decision: PairDecision
    sample: Sample
    widths: Mapping[str, tuple[float, float]]
    calibration: SimulatedSources
    density: Density
    predictor: Predictor

    @classmethod
    def build(cls, run: RunFile, base: Path, *, cascades: int) -> FastRuns:
        """From a finished run.

        Args:
            run: Its run file.
            base: Its folder.
            cascades: Of every calibration source.
        """
        from nuebar.chain.simulation import interactions_per_day

        experiment = load_experiment(run.experiment)
        job, config = apply_job(run, ""), load_selection(run.select.selection)
        classifier, threshold, _ = chosen_threshold(job, config)
        options = pair_options(config, muon_MeV=job.muon_MeV, max_dr_m=job.max_dr_m, delayed_MeV=job.delayed_MeV)
        options = dataclasses.replace(options, isolation=None, veto=None)
        model, simulated = DetectorModel.build(experiment), base / "simulate"
        return cls(
            run=run,
            experiment=experiment,
            spectrum=load_spectrum(simulated / "monte-carlo" / "spectrum" / "chunk-00000.safetensors"),
            interactions_per_day=interactions_per_day(experiment),
            sources=tuple(pair_sources(model, simulated)),
            decision=PairDecision(
                classifier=classifier, threshold=threshold, options=options, fiducial_m=job.fiducial_m
            ),
            sample=Sample.load(base / "select"),
            widths=prior_widths(fit_experiment(run, experiment)),
            calibration=SimulatedSources.build(
                experiment, cascades=cascades, seed=part_seed(run.seed, "ensemble") % 2**31
            ),
            density=load_density(run.tune.density),
            predictor=load_predictor(predictor_folder(run.predict.predictor)),
        )

    def one(self, seed: int, broken: str = "none") -> tuple[FitResult, Truth, dict[str, float], dict[str, float]]:
        """A run: truth, data, tuning, fit.

        Args:
            seed: Of everything in it.
            broken: What is broken.

        Returns:
            The fit, the truth, the centres of its priors, and signed roots of Δχ² at the truth where errors are no
            measure.
        """
        truth = draw_truth(self.run, seed)
        centres = auxiliary_centres(self.widths, truth.oscillation, seed)
        posterior = self.tuned(truth, seed)
        sample = self.selected(truth, seed)
        if broken == "kB":
            k = posterior.names.index(RESPONSE[0])
            mean = np.array(posterior.mean)
            mean[k] *= _WRONG_kB
            posterior = ResponsePosterior(posterior.names, mean, posterior.covariance, posterior.provenance)
        elif broken == "efficiency":
            flat = np.ones_like(sample.efficiency)
            sample = dataclasses.replace(sample, efficiency=flat, fiducial_share=1.0)
        elif broken == "accidentals":
            sample = dataclasses.replace(sample, accidentals=_TWICE * sample.accidentals)
        fit = sample_fit(self.run, self.experiment, sample, posterior, predictor=self.predictor, centres=centres)
        problem = fit.problem()
        result, _ = run_from_starts(fit, SPLITTING, problem=problem)
        root = np.nan
        if result.valid:
            root = likelihood_root(fit, result, SPLITTING, truth.oscillation[SPLITTING], problem=problem)
        return result, truth, centres, {SPLITTING: root}

    def tuned(self, truth: Truth, seed: int) -> ResponsePosterior:
        """Calibration data at the true response, and what they say of it."""
        point = [truth.response[n] for n in RESPONSE]
        events = self.run.simulate.calibration_events
        counts = self.calibration.counts(point, events, 1, seed=part_seed(seed, "ensemble-calibration"))[0]
        bins = self.calibration.bins
        data = CalibrationData.from_counts(
            dict(zip(self.calibration.sources, counts, strict=True)),
            np.linspace(bins[0], bins[1], int(bins[2]) + 1),
            self.calibration.pe_to_observable,
        )
        return infer(data, self.density, method="minuit", minos=False, n_replicas=0).to_posterior()

    def selected(self, truth: Truth, seed: int) -> Sample:
        """Candidates and measured accidentals at the truth."""
        base, rng = self.sample, np.random.default_rng(part_seed(seed, "ensemble-numbers"))
        survival = np.array(
            [
                survival_weights(self.spectrum.e_nu_MeV, np.full(self.spectrum.e_nu_MeV.size, core), self.experiment,
                                 truth.oscillation)
                for core in range(len(self.spectrum.baseline_km))
            ]
        )  # fmt: skip
        seen = self.spectrum.weighted(survival)
        share = float(seen.interactions().sum() / self.spectrum.interactions().sum())
        model = DetectorModel.build(self.experiment, truth.light)
        counts = np.zeros(base.counts.size)
        for shape in self.sources:
            rate = self.interactions_per_day * share if not shape.e_vis_MeV.size else shape.rate_Hz * 86_400
            n = int(rng.poisson(rate * base.live_days))
            if n == 0:
                continue
            keys = PairKeys(*(derive_key(seed, "ensemble", shape.name, word) for word in PairKeys._fields))
            pairs = drawn_pairs(shape, n, seen, model, rng, keys)
            kept, _, _ = self.decision.scored(pairs)
            counts += np.histogram(pairs["prompt_e_rec_MeV"][kept], base.edges_MeV)[0]
        windows = self.run.select.windows
        counts += rng.poisson(base.accidentals)
        measured = rng.poisson(windows * base.accidentals) / windows
        return dataclasses.replace(base, counts=counts, accidentals=measured, accidental_variance=measured / windows)


def outcome_row(
    result: FitResult, truth: Truth, centres: Mapping[str, float], roots: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """What is kept of a run: pulls of everything that was fitted, and whether the fit is valid.

    Nuisance parameters are at their nominal value in the data: zero, or what the experiment says.

    Args:
        result: The fit.
        truth: Of oscillation and response.
        centres: Of the priors, for the record.
        roots: Parameter → signed root of Δχ² at the truth, instead of its pull.
        seed: Of the run.
    """
    known = {**truth.oscillation, **truth.response}
    order = result.parameter_order
    return {
        "seed": seed,
        "valid": result.valid,
        "reason": result.reason,
        "chi2": result.chi2,
        "versions": dict(result.versions),
        "n_dof": result.n_dof,
        "values": {n: result.parameters[n].value for n in order},
        "errors": {n: result.parameters[n].error for n in order},
        "priors": {n: p[1] for n in order if (p := result.parameters[n].prior) is not None},
        "covariance": result.covariance.tolist(),
        "truth": known,
        "roots": {n: x for n, x in roots.items() if np.isfinite(x)},
        "centres": dict(centres),
    }


def run_ensemble(
    study: Ensemble, folder: str | Path, *, jobs: Workers = 1, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Do all seeds, in chunks: what is done is kept, and the number of processes changes nothing.

    Args:
        study: What is wanted.
        folder: Of the study.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Rows of :func:`outcome_row`.
    """
    config = {
        "run": study.run.mapping(),
        "base": str(study.base.resolve()),
        "base_digest": read_json(study.base / "select" / "done.json")["outputs"],
        "first": study.first,
        "seeds": study.seeds,
        "broken": study.broken,
        "cascades": study.cascades,
    }
    stage = Stage(
        f"seeds-{study.broken}",
        "nuebar.chain.ensemble:seeds_chunk",
        config,
        -(-study.seeds // SEEDS_PER_CHUNK),
        ".json",
        isolated=True,
    )
    result = run_stage(folder, stage, seed=study.run.seed, jobs=jobs, progress=progress)
    return [row for path in result.paths for row in read_json(path)["rows"]]


def seeds_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Some seeds, one after the other."""
    runs = _runs(json.dumps(config["run"]), config["base"], config["cascades"])
    begin = chunk * SEEDS_PER_CHUNK
    rows = []
    for k in range(begin, min(begin + SEEDS_PER_CHUNK, config["seeds"])):
        seed = config["first"] + k
        rows.append(outcome_row(*runs.one(seed, config["broken"]), seed))
    save_result(path, {"kind": "seeds of a study", "rows": rows})
    return {"seeds": len(rows), "valid": sum(row["valid"] for row in rows)}


@lru_cache(maxsize=2)
def _runs(run: str, base: str, cascades: int) -> FastRuns:
    return FastRuns.build(from_mapping(RunFile, json.loads(run), "run file"), Path(base), cascades=cascades)


def judged(rows: list[dict[str, Any]], experiment: Experiment, *, level: float = 0.01) -> Calibration:
    """The family of tests over all seeds.

    A pull is (fitted − true)/error; that of :data:`~nuebar.chain.fitting.SPLITTING` is the signed root of Δχ² at the
    truth, as its likelihood may have several minima; it is not in the distance between fit and truth.

    Args:
        rows: Of :func:`run_ensemble`.
        experiment: For the true values of nuisance parameters that are not zero.
        level: Of the family.
    """
    names = tuple(rows[0]["values"])
    nominal = {"matter_density_g_cm3": experiment.matter.density_g_cm3}
    table, ratio, failed = [], [], []
    # A distance takes the likelihood for a parabola.
    interest = tuple(n for n in (*OSCILLATION, *RESPONSE) if not any(n in row["roots"] for row in rows))
    fitted, truths, covariances = [], [], []
    at = [names.index(n) for n in interest]
    for row in rows:
        known = {**nominal, **row["truth"]}
        good = bool(row["valid"])
        failed.append(not good)
        off = [row["values"][n] - known.get(n, 0.0) for n in names]
        roots = row["roots"]
        table.append([roots.get(n, d / row["errors"][n]) if good else np.nan for d, n in zip(off, names, strict=True)])
        ratio.append([row["errors"][n] / row["priors"][n] if n in row["priors"] else np.nan for n in names])
        fitted.append([row["values"][n] if good else np.nan for n in interest])
        truths.append([known[n] for n in interest])
        covariances.append(np.array(row["covariance"])[np.ix_(at, at)])
    return calibration(
        np.array(table),
        names,
        failed=np.array(failed),
        prior_ratio=np.array(ratio),
        distances=mahalanobis(np.array(fitted), np.array(truths), np.array(covariances)),
        dof=len(interest),
        level=level,
    )

"""The job of ``nuebar fit posterior``: the posterior of a spectrum fit by NUTS, next to the best fit."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.posterior import (
    BARRIER,
    Posterior,
    angles_and_logarithms,
    determinants,
    lightened,
    posterior,
)
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.starts import OtherMinimum, run_from_starts
from nuebar.io.arrays import save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.parameters import OSCILLATION
from nuebar.report.tables import scale_of, with_error

__all__ = [
    "PosteriorJob",
    "PosteriorOutcome",
    "data_fit",
    "posterior_report",
    "run_posterior",
    "write_posterior",
]

Progress = Callable[[str, int, int], None]
QUANTILES = (0.00135, 0.02275, 0.15865, 0.5, 0.84135, 0.97725, 0.99865)  # of the normal distribution's 1, 2, 3 sigma
SHARES = {"68": 0.6827, "95": 0.9545}
PICTURED = 4000


@dataclass(frozen=True)
class PosteriorJob:
    """The options of ``nuebar fit posterior``.

    Attributes:
        fit: Data, experiment and model, as for a fit.
        samples: Draws of all chains together.
        chains: Number of chains.
        flat: Parameters whose prior is taken away: flat within their limits.
        determinant: Integrate bin-to-bin deviations out instead of profiling them.
        barriers: Whether barriers between several minima of Δm²31 are looked for and filled.
        seed: Of the draws.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    samples: int = 4000
    chains: int = 4
    flat: tuple[str, ...] = ()
    determinant: bool = False
    barriers: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class PosteriorOutcome:
    """A posterior and the fit beside it.

    Attributes:
        job: The options.
        fit: What was fitted.
        result: The best fit.
        others: Its other minima along Δm²31.
        draws: The posterior.
        priors: The same under a prior flat in angles and ln Δm².
        determinant: The same with bin-to-bin deviations integrated out; None where the statistic has none.
        seconds: Wall times.
    """

    job: PosteriorJob
    fit: SpectrumFit
    result: FitResult
    others: tuple[OtherMinimum, ...]
    draws: Posterior
    priors: Posterior
    determinant: Posterior | None
    seconds: dict[str, float]

    @property
    def valid(self) -> bool:
        """Whether draws and best fit can be trusted."""
        return self.draws.valid and self.result.valid

    @property
    def interest(self) -> tuple[str, ...]:
        """Free oscillation parameters, those without a prior first."""
        free = [n for n in OSCILLATION if n in self.draws.names]
        return tuple(sorted(free, key=lambda n: self.result.parameters[n].prior is not None))


def data_fit(job: FitJob, progress: Progress | None = None) -> SpectrumFit:
    """The fit that a job describes, with its data.

    Raises:
        NuebarError: Options do not go together, or a file cannot be used.
    """
    _check(job)
    experiment = _experiment(job)
    release = read_juno_2025(job.release) if job.release is not None else None
    inputs = read_common_inputs(job.inputs) if job.inputs is not None else None
    return _prepare(job, experiment, release, inputs, progress)[0]


def run_posterior(job: PosteriorJob, progress: Progress | None = None) -> PosteriorOutcome:
    """Fit, then sample; nothing is written.

    Args:
        job: The options.
        progress: Called with (what, done, total).

    Raises:
        NuebarError: Options do not go together.
    """
    began = time.perf_counter()
    if job.samples < 40 * job.chains or job.chains < 2:
        raise NuebarError(
            f"--samples: expected at least 40 for each of two or more chains, got {job.samples} for {job.chains}"
        )
    fit = lightened(data_fit(job.fit, progress))
    for name in job.flat:
        low, high = fit.parameters[name].bounds
        if low is None or high is None:
            raise NuebarError(
                f"--flat: {name} has no limits to be flat between; give it bounds in the experiment's file"
            )
    fit = _flat(fit, job.flat)
    built = time.perf_counter()
    result, others = run_from_starts(fit, BARRIER)
    fitted = time.perf_counter()
    draws = posterior(
        fit,
        result=result,
        n_samples=job.samples,
        chains=job.chains,
        seed=job.seed,
        determinant=job.determinant,
        barriers=job.barriers,
        progress=progress,
    )
    determinant = None
    if not job.determinant:
        ratio = determinants(fit, draws, result)
        determinant = draws.reweighted(ratio) if np.ptp(ratio) > 0 else None
    ended = time.perf_counter()
    return PosteriorOutcome(
        job=job,
        fit=fit,
        result=result,
        others=others,
        draws=draws,
        priors=draws.reweighted(angles_and_logarithms(draws, result)),
        determinant=determinant,
        seconds={
            "build": built - began,
            "fit": fitted - built,
            "sample": draws.seconds,
            "total": ended - began,
        },
    )


def write_posterior(outcome: PosteriorOutcome, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
    """``posterior.json``, ``posterior.csv`` (one row a parameter), ``samples.safetensors`` and ``posterior.png``."""
    place = output_folder(folder)
    d = outcome.draws
    save_result(place / "posterior.json", _record(outcome))
    atomic_write_text(place / "posterior.csv", _table(outcome))
    arrays = {"values": d.values, "weights": d.weights, "chi2": d.chi2}
    told = {"format": 1, "names": list(d.names), "chains": d.chains, "seed": outcome.job.seed}
    save_arrays(place / "samples.safetensors", arrays, told)
    written = [place / n for n in ("posterior.json", "posterior.csv", "samples.safetensors")]
    picture = place / "posterior.png"
    if pictures and outcome.interest:
        from nuebar.report import plots
        from nuebar.report.posterior_plots import posterior_corner

        names = outcome.interest
        at = [d.index(n) for n in names]
        covariance, best = None, None
        if outcome.result.valid:
            order = [outcome.result.parameter_order.index(n) for n in names]
            covariance = outcome.result.covariance[np.ix_(order, order)]
            best = np.array([outcome.result.parameters[n].value for n in names])
        plots.save(
            posterior_corner(
                names,
                d.equal(PICTURED, outcome.job.seed)[:, at],
                best=best,
                covariance=covariance,
                title=outcome.fit.experiment,
                note="" if outcome.valid else "NOT VALID",
            ),
            picture,
        )
        written.append(picture)
    else:
        picture.unlink(missing_ok=True)
    return written


def posterior_report(outcome: PosteriorOutcome) -> str:
    """What the command prints."""
    d, result = outcome.draws, outcome.result
    lines = [
        f"{outcome.fit.experiment}: posterior of {len(d.names)} parameters, {len(d.values)} draws of {d.chains} "
        f"chains, {outcome.result.statistic}, {outcome.result.ordering} ordering",
        "",
        f"{'':22s} {'best fit':>27s} {'median of the posterior':>27s} {'shift':>8s} {'width':>7s} {'draws':>7s}",
    ]
    rest = [n for n in d.names if n not in outcome.interest]
    for name in (*outcome.interest, *rest):
        p, k = result.parameters[name], d.index(name)
        row = _row(outcome, name)
        lines.append(
            f"{name:22s} {with_error(name, p.value, p.error):>27s} "
            f"{with_error(name, row['median'], row['half_width']):>27s} {_sigmas(row['shift_in_sigma'])} "
            f"{row['width_over_error']:7.3f} {d.effective[k]:7.0f}"
        )
    lines += [
        "",
        "shift: median − best fit in errors of the fit; width: half of the central 68 % over that error; draws: "
        "independent ones",
    ]
    lines += _peaks(outcome)
    for words, other in (
        ("flat in angles and ln Δm² instead of sin²θ and Δm²", outcome.priors),
        ("bin-to-bin deviations integrated out instead of profiled", outcome.determinant),
    ):
        if other is not None:
            moved = ", ".join(f"{n} {s:+.3f}" for n, s in _shifts(outcome, other).items())
            lines.append(f"{words}, means in standard deviations: {moved}")
    if d.barrier:
        lines.append(
            f"{BARRIER} has several minima; barriers between them, up to {d.barrier:.1f} in χ², were filled and draws "
            "have weights"
        )
    lines.append(
        f"R-hat at most {np.max(d.r_hat):.4f}, {100 * d.divergent:.2f} % divergent, {d.n_calls} evaluations, "
        f"{outcome.seconds['total']:.1f} s"
    )
    if not d.valid:
        lines.append(f"the posterior is NOT VALID: {d.reason}")
    if not result.valid:
        lines.append(f"the fit is NOT VALID: {result.reason}")
    return "\n".join(lines)


# ---------------------------------------------------------------- helpers


def _flat(fit: SpectrumFit, names: tuple[str, ...]) -> SpectrumFit:
    return replace(fit, parameters=fit.parameters.updated(**{n: {"sigma": None} for n in names}))


def _row(outcome: PosteriorOutcome, name: str) -> dict[str, Any]:
    d, p = outcome.draws, outcome.result.parameters[name]
    low, middle, high = (float(x) for x in d.quantile(name, (0.15865, 0.5, 0.84135)))
    half = 0.5 * (high - low)
    good = np.isfinite(p.error) and p.error > 0
    return {
        "median": middle,
        "half_width": half,
        "shift_in_sigma": (middle - p.value) / p.error if good else float("nan"),
        "width_over_error": half / p.error if good else float("nan"),
    }


def _shifts(outcome: PosteriorOutcome, other: Posterior) -> dict[str, float]:
    d = outcome.draws
    moved = (other.mean - d.mean) / d.sigma
    return {n: float(moved[d.index(n)]) for n in outcome.interest}


def _peaks(outcome: PosteriorOutcome) -> list[str]:
    """Parameters whose highest densities are in several places."""
    lines = []
    for name in outcome.interest:
        both = outcome.draws.highest_density(name)
        if len(both) > 1:
            scale = scale_of(name)
            words = ", ".join(f"[{a / scale.factor:.4g}, {b / scale.factor:.4g}]" for a, b in both)
            lines.append(f"{name}: the 68 % of highest density lie in {words} {scale.text}".rstrip())
    return lines


def _record(outcome: PosteriorOutcome) -> dict[str, Any]:
    d, result = outcome.draws, outcome.result
    mean, sigma = d.mean, d.sigma
    correlation = d.covariance / np.outer(sigma, sigma)
    parameters = {}
    for k, name in enumerate(d.names):
        p = result.parameters[name]
        row = {key: _number(x) for key, x in _row(outcome, name).items()}
        parameters[name] = {
            "mean": float(mean[k]),
            "sigma": float(sigma[k]),
            **row,
            "quantiles": {f"{q:g}": float(x) for q, x in zip(QUANTILES, d.quantile(name, QUANTILES), strict=True)},
            "highest_density": {key: [list(i) for i in d.highest_density(name, s)] for key, s in SHARES.items()},
            "effective": float(d.effective[k]),
            "r_hat": _number(d.r_hat[k]),
            "fit": {"value": p.value, "error": _number(p.error), "prior": list(p.prior) if p.prior else None},
        }
    others = {"prior flat in angles and ln dm2": outcome.priors}
    if outcome.determinant is not None:
        others["bin-to-bin deviations integrated out"] = outcome.determinant
    return {
        "format": 1,
        "kind": "posterior",
        "experiment": outcome.fit.experiment,
        "statistic": result.statistic,
        "ordering": result.ordering,
        "predictor": result.predictor,
        "likelihood": "exp(-chi2/2)" + (" with determinant" if outcome.job.determinant else ""),
        "flat": list(outcome.job.flat),
        "valid": outcome.valid,
        "reason": d.reason if not d.valid else result.reason,
        "samples": len(d.values),
        "chains": d.chains,
        "divergent": d.divergent,
        "barrier_chi2": d.barrier,
        "n_calls": d.n_calls,
        "chi2": {"best_fit": result.chi2, "mean": float(d.weights @ d.chi2 / d.weights.sum())},
        "other_minima": [{"value": o.value, "delta_chi2": o.delta_chi2} for o in outcome.others],
        "parameters": parameters,
        "order": list(d.names),
        "correlation": correlation.tolist(),
        "sensitivity": {
            what: {
                "valid": other.valid,
                "shift_of_mean_in_sigma": _shifts(outcome, other),
                "sigma_ratio": {n: float((other.sigma / sigma)[d.index(n)]) for n in outcome.interest},
            }
            for what, other in others.items()
        },
        "seed": outcome.job.seed,
        "seconds": outcome.seconds,
        "versions": versions(),
    }


def _table(outcome: PosteriorOutcome) -> str:
    d = outcome.draws
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(
        ["parameter", "best_fit", "error", "median", "minus", "plus", "mean", "sigma", "shift_in_sigma", "effective",
         "r_hat"]
    )  # fmt: skip
    for k, name in enumerate(d.names):
        p = outcome.result.parameters[name]
        low, middle, high = (float(x) for x in d.quantile(name, (0.15865, 0.5, 0.84135)))
        shift = _row(outcome, name)["shift_in_sigma"]
        numbers = [p.value, p.error, middle, low - middle, high - middle, d.mean[k], d.sigma[k], shift]
        rows.writerow([name, *(f"{x:.8g}" for x in numbers), f"{d.effective[k]:.0f}", f"{d.r_hat[k]:.5f}"])
    return buffer.getvalue()


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _sigmas(x: float) -> str:
    return f"{x:+7.3f}σ" if np.isfinite(x) else f"{'—':>8s}"

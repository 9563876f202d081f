"""kB and fC from the gammas of JUNO's release of 2025, and the curves that they predict beside the released ones.

The nine points are *scintillator* non-linearity, and so is the fit. The released electron and positron curves are
*full* non-linearity, with what the electronics add. That instrumental part is the ratio of the two released gamma
curves; as it depends on the charge of an event, not on what made it, it is taken at equal visible energy. Both kinds
are kept: ours times the ratio beside what is released, and what is released over the ratio beside ours.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2 as chi2_distribution

from nuebar.config import Experiment, load_experiment
from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.posteriors import ResponsePosterior, save_posterior
from nuebar.io.releases import GammaPoints, Juno2025Release, read_juno_2025
from nuebar.io.results import git_commit, save_result, versions
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.simulate.nonlinearity import MeanLight, electron_light, gamma_light, positron_light
from nuebar.simulate.quench import Scintillation
from nuebar.simulate.random import derive_key
from nuebar.tune.gammas import (
    LINES,
    PARAMETERS,
    SCALES,
    GammaData,
    GammaFit,
    GammaModel,
    GammaPosterior,
    LightModel,
    fit_gammas,
    gamma_posterior,
    light_model,
)

__all__ = ["POINTS", "PointRow", "ReleaseCurve", "ReleaseFit", "fit_release", "write_release_fit"]

Progress = Callable[[str, int, int], None]
POINTS = ("all", "six")
SIX_MeV = 2.3  # the six points below are single gammas and 60Co, with 0.5 % each
BATCHES = 5  # the spread between them tells the Monte Carlo noise
SAME_MeV = 1e-3
REST_MeV = 2 * ELECTRON_MASS_MeV
QUANTILES = (0.158655, 0.841345)
# Curves of electrons and positrons are simulated at these energies, with straight lines in ln T and √T between them: a
# smoother curve would ring where electrons begin to take more than one step of Geant4's step function (0.31 MeV).
ELECTRON_MeV = np.geomspace(0.02, 13.0, 150)
POSITRON_KINETIC_MeV = np.concatenate([[0.0], np.geomspace(0.004, 12.0, 100)])


@dataclass(frozen=True)
class PointRow:
    """One calibration point.

    Attributes:
        name: The source or capture.
        energy_MeV: Effective energy of the release.
        ratio: Measured, scintillator non-linearity.
        error: As printed.
        fitted: Whether the fit has seen it.
        predicted: At the best fit.
        predicted_error: Standard deviation of the prediction over the posterior.
        pull: (measured - predicted) / error.
        joint_pull: The same over both errors, for a point that was not fitted.
        noise: Relative standard error of the simulated ratio.
    """

    name: str
    energy_MeV: float
    ratio: float
    error: float
    fitted: bool
    predicted: float
    predicted_error: float
    pull: float
    joint_pull: float | None
    noise: float


@dataclass(frozen=True, eq=False)
class ReleaseCurve:
    """A predicted curve beside the released one, at the released energies; every array has shape ``(n,)``.

    Attributes:
        name: gamma, electron or positron.
        energy_MeV: True energy: of the gamma; kinetic; deposited, with both masses.
        scintillation: Ours at the best fit, without the instrumental part.
        scintillation_low: Lower end of 68 % of the posterior.
        scintillation_high: Upper end.
        full: Ours at the best fit, with the instrumental part.
        full_low: Lower end of 68 % of the posterior.
        full_high: Upper end.
        released: The released full non-linearity.
        released_low: Lower end of its band.
        released_high: Upper end of its band.
        released_scintillation: The released scintillator non-linearity of gammas; of electrons and positrons the full
            one over the instrumental part.
        difference: Ours minus the released full non-linearity.
        in_bands: The same over both half bands on the sides that face each other, added in quadrature. Both come from
            the same sources, so this is a scale, not a significance.
        noise: Largest relative standard error of the simulated points.
    """

    name: str
    energy_MeV: np.ndarray
    scintillation: np.ndarray
    scintillation_low: np.ndarray
    scintillation_high: np.ndarray
    full: np.ndarray
    full_low: np.ndarray
    full_high: np.ndarray
    released: np.ndarray
    released_low: np.ndarray
    released_high: np.ndarray
    released_scintillation: np.ndarray
    difference: np.ndarray
    in_bands: np.ndarray
    noise: float

    def summary(self) -> dict[str, Any]:
        """Where the two differ most."""
        percent = 100 * self.difference / self.released
        k, j = int(np.argmax(np.abs(percent))), int(np.argmax(np.abs(self.in_bands)))
        return {
            "worst_percent": float(percent[k]),
            "worst_percent_at_MeV": float(self.energy_MeV[k]),
            "worst_in_bands": float(self.in_bands[j]),
            "worst_in_bands_at_MeV": float(self.energy_MeV[j]),
            "share_within_one_band": float(np.mean(np.abs(self.in_bands) < 1)),
            "noise_percent": 100 * self.noise,
        }


@dataclass(frozen=True, eq=False)
class ReleaseFit:
    """What :func:`fit_release` found.

    Attributes:
        points: One of :data:`POINTS`.
        fit: Best values, errors, χ².
        posterior: Mean, covariance and samples.
        rows: The calibration points.
        curves: gamma, electron, positron.
        alternatives: Values of the fits of both sets of points under every reading of the errors.
        unfitted_chi2: χ² of the points that the fit has not seen, with the covariance of their prediction; None
            without any.
        unfitted_p_value: Its probability.
        light_yield_per_MeV: Fixed; fC belongs to it.
        settings: What else decides the numbers.
        seconds: Wall time.
    """

    points: str
    fit: GammaFit
    posterior: GammaPosterior
    rows: tuple[PointRow, ...]
    curves: tuple[ReleaseCurve, ...]
    alternatives: tuple[dict[str, Any], ...]
    unfitted_chi2: float | None
    unfitted_p_value: float | None
    light_yield_per_MeV: float
    settings: dict[str, str]
    seconds: float

    def response(self) -> ResponsePosterior:
        """Mean and covariance of kB and fC; the light yield is not constrained, and left out."""
        about = {"of": "nuebar tune fit --release", "scale of the points": self.fit.scale, **self.settings}
        return ResponsePosterior(PARAMETERS[:2], self.posterior.mean[:2], self.posterior.covariance[:2, :2], about)


def fit_release(
    folder: str | os.PathLike[str],
    *,
    points: str = "all",
    experiment: Experiment | None = None,
    cascades: int = 50_000,
    seed: int = 1,
    scale: str = "free",
    samples: int = 4000,
    progress: Progress | None = None,
) -> ReleaseFit:
    """Fit the gamma points of JUNO's 2025 release and predict its curves.

    Args:
        folder: The release.
        points: "all" nine, or the "six" up to 2.23 MeV, which leaves three to predict.
        experiment: Whose scintillator is simulated and whose light yield is kept; "juno" by default.
        cascades: Simulated cascades of every gamma; electrons and positrons have a quarter as many at each of their
            energies.
        seed: Of the cascades and of the draws.
        scale: How the printed errors are read, see :mod:`nuebar.tune.gammas`.
        samples: Draws from the posterior.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A file of the release is missing or damaged, its points are others, or an option is wrong.
    """
    began = time.perf_counter()
    if points not in POINTS:
        raise NuebarError(f"points: expected {' or '.join(POINTS)}, got {points!r}")
    if scale not in SCALES:
        raise NuebarError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    if cascades < 10 * BATCHES:
        raise NuebarError(f"cascades: expected at least {10 * BATCHES}, got {cascades}; give a number like 50000")
    release = read_juno_2025(folder)
    _require_lines(release.gamma_points, Path(folder))
    make = _Maker(experiment or load_experiment("juno"), cascades, seed, progress or (lambda what, done, total: None))
    model, noise = make.points()
    data = _data(release.gamma_points, points)
    fit = fit_gammas(data, model, scale=scale)
    posterior = gamma_posterior(data, model, scale=scale, samples=samples, seed=seed)
    best = np.vstack([fit.minimum.values, posterior.samples])
    curves = tuple(
        _curve(release, name, light.at(best), spread) for name, (light, spread) in make.curves(release, model).items()
    )
    make.progress("fits", 4, 4)
    predicted = model.at(posterior.samples)
    rows, chi2 = _rows(data, fit, predicted, noise)
    new = int(np.count_nonzero(~data.used))
    return ReleaseFit(
        points=points,
        fit=fit,
        posterior=posterior,
        rows=rows,
        curves=curves,
        alternatives=tuple(_alternative(release, model, p, s) for p in POINTS for s in SCALES),
        unfitted_chi2=chi2,
        unfitted_p_value=None if chi2 is None else float(chi2_distribution.sf(chi2, new)),
        light_yield_per_MeV=model.light_yield_per_MeV,
        settings=make.settings | {"points": points, "release": Path(folder).name},
        seconds=time.perf_counter() - began,
    )


class _Maker:
    """Simulated light of the points and the curves, in batches whose spread tells the noise."""

    def __init__(self, experiment: Experiment, cascades: int, seed: int, progress: Progress) -> None:
        d, r = experiment.detector, experiment.response
        if d is None or not r.light_yield_per_MeV > 1:
            raise NuebarError(
                f"{experiment.source or experiment.name}: expected a table [detector] and "
                "response.light_yield_per_MeV to simulate with, found none; see juno.toml"
            )
        self.scintillation = Scintillation(
            d.material, d.refractive_index, r.cherenkov_photons_per_cm, d.quenching, d.proton_kB_ratio, d.alpha_kB_ratio
        )
        self.material, self.light_yield = d.material, r.light_yield_per_MeV
        self.nominal = (r.kB_g_cm2_GeV, r.fC / r.light_yield_per_MeV)
        self.each, self.seed, self.progress = cascades // BATCHES, seed, progress
        self.settings = {
            "experiment": experiment.name,
            "light_yield_per_MeV": f"{r.light_yield_per_MeV:g} (fixed)",
            "cherenkov_photons_per_cm": f"{r.cherenkov_photons_per_cm:g}",
            "refractive_index": f"{d.refractive_index:g}",
            "quenching": d.quenching,
            "material": d.material,
            "cascades": str(cascades),
            "seed": str(seed),
        }

    def points(self) -> tuple[GammaModel, np.ndarray]:
        """Model of the nine points, and the relative noise of each."""
        self.progress("gammas of the sources", 0, 4)
        lines = [gammas for line in LINES for _, gammas in line.branches]
        shares = np.zeros((len(LINES), len(lines)))
        first = 0
        for k, line in enumerate(LINES):
            for share, _ in line.branches:
                shares[k, first] = share
                first += 1

        def mixed(seed: int) -> MeanLight:
            means = gamma_light(lines, self.each, seed, material=self.material)
            return MeanLight(shares @ means.e_dep_MeV, shares @ means.deposits)

        anchor = [line.name for line in LINES].index("n-H")
        light, nominal = self._light("points", mixed)
        nominal /= nominal[:, anchor : anchor + 1]  # the noise of n-H itself is that of its ratio to itself: none
        return GammaModel(light, light.picked([anchor]), self.light_yield), _noise(nominal)

    def curves(self, release: Juno2025Release, model: GammaModel) -> dict[str, tuple[GammaModel, float]]:
        """Models of the released curves at their energies, and the largest relative noise of each."""
        gammas = [(float(x),) for x in release.gamma.energy_MeV]
        electrons, positrons = ELECTRON_MeV.tolist(), (REST_MeV + POSITRON_KINETIC_MeV).tolist()
        few = max(self.each // 4, 1)
        kinetic = np.maximum(release.positron.energy_MeV - REST_MeV, 0.0)
        makers: dict[str, Callable[[int], MeanLight]] = {
            "gamma": lambda seed: gamma_light(gammas, self.each, seed, material=self.material),
            "electron": lambda seed: electron_light(electrons, few, seed, material=self.material),
            "positron": lambda seed: positron_light(positrons, few, seed, material=self.material),
        }
        places = {
            "electron": (np.log(ELECTRON_MeV), np.log(release.electron.energy_MeV)),
            "positron": (np.sqrt(POSITRON_KINETIC_MeV), np.sqrt(kinetic)),
        }
        out = {}
        for k, (name, make) in enumerate(makers.items()):
            self.progress(f"{name}s", k + 1, 4)
            light, nominal = self._light(f"{name} curve", make)
            light = _interpolated(light, *places[name]) if name in places else light
            out[name] = GammaModel(light, model.anchor, self.light_yield), float(_noise(nominal).max())
        return out

    def _light(self, word: str, make: Callable[[int], MeanLight]) -> tuple[LightModel, np.ndarray]:
        """Mean over the batches, and the light per MeV of each batch at the nominal point, ``(batches, points)``."""
        batches = [
            light_model(make(int(derive_key(self.seed, "release", word, k)) >> 1), self.scintillation)
            for k in range(BATCHES)
        ]
        with jax.enable_x64(True):
            nominal = np.array([b(*(jnp.asarray(x) for x in self.nominal)) for b in batches])
            mean: LightModel = jax.tree.map(lambda *a: sum(a) / BATCHES, *batches)
        return mean, nominal


def _noise(nominal: np.ndarray) -> np.ndarray:
    return nominal.std(axis=0, ddof=1) / np.sqrt(BATCHES) / nominal.mean(axis=0)


def _interpolated(light: LightModel, x: np.ndarray, at: np.ndarray) -> LightModel:
    """Straight lines between the points: the series is linear in the light, so its coefficients are interpolated."""
    columns = np.column_stack([light.quenched, light.cherenkov])
    values = np.column_stack([np.interp(at, x, column) for column in columns.T])
    with jax.enable_x64(True):
        return LightModel(jnp.asarray(values[:, :-1]), jnp.asarray(values[:, -1]), light.limits)


def _require_lines(found: GammaPoints, folder: Path) -> None:
    expected = np.array([line.effective_MeV for line in LINES])
    if found.energy_MeV.shape != expected.shape or np.abs(found.energy_MeV - expected).max() > SAME_MeV:
        raise NuebarError(
            f"{folder}: expected gamma points at {', '.join(f'{e:g}' for e in expected)} MeV, got "
            f"{', '.join(f'{e:g}' for e in found.energy_MeV)}; their gammas are not known"
        )


def _data(g: GammaPoints, points: str) -> GammaData:
    used = np.ones(len(LINES), bool) if points == "all" else g.energy_MeV < SIX_MeV
    return GammaData(tuple(line.name for line in LINES), g.energy_MeV, g.ratio, g.error, used)


def _rows(
    data: GammaData, fit: GammaFit, predicted: np.ndarray, noise: np.ndarray
) -> tuple[tuple[PointRow, ...], float | None]:
    """The points, and the χ² of those that were not fitted."""
    spread = predicted.std(axis=0)
    away = data.ratio - fit.predicted
    rows = tuple(
        PointRow(
            name=name,
            energy_MeV=float(data.energy_MeV[k]),
            ratio=float(data.ratio[k]),
            error=float(data.error[k]),
            fitted=bool(data.used[k]),
            predicted=float(fit.predicted[k]),
            predicted_error=float(spread[k]),
            pull=float(fit.pulls[k]),
            joint_pull=None if data.used[k] else float(away[k] / np.hypot(data.error[k], spread[k])),
            noise=float(noise[k]),
        )
        for k, name in enumerate(data.names)
    )
    new = np.flatnonzero(~data.used)
    if not new.size:
        return rows, None
    total = np.diag(data.error[new] ** 2) + np.cov(predicted[:, new], rowvar=False).reshape(new.size, new.size)
    return rows, float(away[new] @ np.linalg.solve(total, away[new]))


def _curve(release: Juno2025Release, name: str, ours: np.ndarray, noise: float) -> ReleaseCurve:
    """Ours, the best fit in row 0 and the samples below, beside the released curve."""
    curve = {"gamma": release.gamma, "electron": release.electron, "positron": release.positron}[name]
    e = curve.energy_MeV
    full = ours * _instrument(release, e * ours)
    (low, high), (full_low, full_high) = (np.quantile(x[1:], QUANTILES, axis=0) for x in (ours, full))
    if name == "gamma":
        released_scintillation = np.interp(
            np.log(e), np.log(release.gamma_scintillation.x), release.gamma_scintillation.y
        )
    else:
        released_scintillation = curve.ratio / _instrument(release, e * curve.ratio)
    away = full[0] - curve.ratio
    half = np.where(away > 0, full[0] - full_low, full_high - full[0])
    width = np.hypot(np.maximum(half, 0.0), np.where(away > 0, curve.error_high, curve.error_low))
    return ReleaseCurve(
        name=name,
        energy_MeV=e,
        scintillation=ours[0],
        scintillation_low=low,
        scintillation_high=high,
        full=full[0],
        full_low=full_low,
        full_high=full_high,
        released=curve.ratio,
        released_low=curve.ratio - curve.error_low,
        released_high=curve.ratio + curve.error_high,
        released_scintillation=released_scintillation,
        difference=away,
        in_bands=away / width,
        noise=noise,
    )


def _instrument(release: Juno2025Release, e_vis_MeV: np.ndarray) -> np.ndarray:
    """Full over scintillator non-linearity at a visible energy, from the two released gamma curves.

    The curves go from 0.2 to 10 MeV; beyond their visible energies the ratio keeps its last value.
    """
    table, gamma = release.gamma_scintillation, release.gamma
    ratio = np.interp(np.log(table.x), np.log(gamma.energy_MeV), gamma.ratio) / table.y
    return np.interp(np.log(e_vis_MeV), np.log(table.x * table.y), ratio)


def _alternative(release: Juno2025Release, model: GammaModel, points: str, scale: str) -> dict[str, Any]:
    fit = fit_gammas(_data(release.gamma_points, points), model, scale=scale)
    m = fit.minimum
    return {"points": points, "scale": scale, **_numbers(fit), "valid": m.valid, "reason": m.reason}


# ---------------------------------------------------------------- files


def write_release_fit(result: ReleaseFit, out_folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write the record, the curves, the samples and the posterior, each in one step.

    Args:
        result: From :func:`fit_release`.
        out_folder: Made if missing.

    Returns:
        ``release-fit.json``, ``points.csv``, ``curve-gamma.csv``, ``curve-electron.csv``, ``curve-positron.csv``,
        ``samples.csv`` and ``posterior.json``.
    """
    out = output_folder(out_folder)
    save_result(out / "release-fit.json", _record(result))
    rows = [list(vars(row).values()) for row in result.rows]
    texts = {"points.csv": _csv(list(vars(result.rows[0])), rows)}
    for curve in result.curves:
        columns = {k: v for k, v in vars(curve).items() if isinstance(v, np.ndarray)}
        texts[f"curve-{curve.name}.csv"] = _csv(list(columns), np.column_stack(list(columns.values())).tolist())
    texts["samples.csv"] = _csv(list(PARAMETERS), result.posterior.samples.tolist())
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    save_posterior(out / "posterior.json", result.response())
    return (out / "release-fit.json", *(out / name for name in texts), out / "posterior.json")


def draw_release(result: ReleaseFit, out_folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Draw ``corner.png`` and ``curves.png``.

    Args:
        result: What was found.
        out_folder: Where the pictures go.
    """
    from nuebar.report.plots import save
    from nuebar.report.tuning_release_plots import release_corner, release_curves

    out = output_folder(out_folder)
    save(release_corner(result.posterior.samples, list(result.fit.minimum.values)), out / "corner.png")
    save(release_curves(result.rows, result.curves), out / "curves.png")
    return out / "corner.png", out / "curves.png"


def release_report(result: ReleaseFit) -> str:
    """The result as text."""
    fit, posterior = result.fit, result.posterior
    used = "nine" if result.points == "all" else "six"
    lines = [
        f"{used} gamma points, scale {fit.scale}: {fit.minimum.reason}; chi2 {fit.chi2:.2f} for {fit.n_dof} degrees of "
        f"freedom, p = {fit.p_value:.2g}"
    ]
    for k, name in enumerate(PARAMETERS):
        ends = fit.minimum.minos.get(name)
        minos = f" (Minos {ends.minus:+.4g} {ends.plus:+.4g})" if ends is not None and ends.valid else ""
        spread = float(np.sqrt(posterior.covariance[k, k]))
        lines.append(
            f"{name}: {fit.minimum.values[k]:.4f} ± {fit.minimum.errors[k]:.4f}{minos}; posterior "
            f"{posterior.mean[k]:.4f} ± {spread:.4f}"
        )
    lines.append(f"light yield fixed at {result.light_yield_per_MeV:g} per MeV: fC belongs to it")
    if result.unfitted_chi2 is not None:
        lines.append(f"points not fitted: chi2 {result.unfitted_chi2:.2f}, p = {result.unfitted_p_value:.2g}")
    for curve in result.curves:
        told = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in curve.summary().items())
        lines.append(f"{curve.name}: {told}")
    return "\n".join(lines)


def _record(result: ReleaseFit) -> dict[str, Any]:
    p, m = result.posterior, result.fit.minimum
    return {
        "kind": "gammas of a release",
        "points": result.points,
        "scale": result.fit.scale,
        "fit": {
            **_numbers(result.fit),
            "covariance": m.covariance,
            "correlation": _correlation(m.covariance),
            "valid": m.valid,
            "reason": m.reason,
        },
        "posterior": {
            "parameters": list(PARAMETERS),
            "mean": p.mean,
            "sigma": np.sqrt(np.diag(p.covariance)),
            "covariance": p.covariance,
            "correlation": _correlation(p.covariance),
            "samples": len(p.samples),
            "density_at_limits": {k: list(v) for k, v in p.at_limits.items()},
        },
        "light_yield_per_MeV": result.light_yield_per_MeV,
        "rows": [vars(row) for row in result.rows],
        "unfitted_chi2": result.unfitted_chi2,
        "unfitted_p_value": result.unfitted_p_value,
        "curves": {curve.name: curve.summary() for curve in result.curves},
        "alternatives": list(result.alternatives),
        "settings": result.settings,
        "seconds": round(result.seconds, 3),
        "commit": git_commit(Path(__file__).parent),
        "versions": versions(),
    }


def _numbers(fit: GammaFit) -> dict[str, Any]:
    """Values with their errors; None where Minos found no end."""
    m = fit.minimum
    values = {
        name: {
            "value": m.value(name),
            "error": _finite(m.error(name)),
            "minus": _finite(m.minos[name].minus),
            "plus": _finite(m.minos[name].plus),
        }
        for name in PARAMETERS
    }
    return {"parameters": values, "chi2": fit.chi2, "n_dof": fit.n_dof, "p_value": fit.p_value}


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _correlation(covariance: np.ndarray) -> np.ndarray | None:
    sigma = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sigma, sigma) if np.all(np.isfinite(covariance)) else None


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if x is None else f"{x:.8g}" if isinstance(x, float) else x for x in row] for row in rows])
    return buffer.getvalue()

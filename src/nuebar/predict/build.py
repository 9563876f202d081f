"""Predictors from Monte Carlo: normalised to an experiment, with a record of what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict.box import PHYSICS, Provenance
from nuebar.predict.folded import fold_pairs
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import CELLS, MatrixPredictor
from nuebar.predict.signal import SignalInputs

if TYPE_CHECKING:
    from nuebar.predict.cascades import Cascades
    from nuebar.predict.pairs import Pairs
    from nuebar.predict.response import ResponsePoint

__all__ = [
    "about_mc",
    "check_reactors",
    "from_cascades",
    "from_pairs",
    "matrix_from_cascades",
    "nominal_physics",
    "normalised_cascades",
    "normalised_pairs",
]

BASELINE_km, SHARE = 1e-3, 0.01  # how well the cores of a predictor and of an experiment must agree
BLOCK = 2**18


def about_mc(experiment: Experiment, arrays: SignalInputs, source: str, entries: Mapping[str, Any]) -> dict[str, str]:
    """The record of a predictor from Monte Carlo.

    Args:
        experiment: What it is normalised to.
        arrays: Its signal.
        source: ``"pairs"`` or ``"cascades"``.
        entries: What else to note.

    Returns:
        Text by name: ``unoscillated_events`` is what the predictor is normalised to, ``cores`` names, baselines in km
        and shares.
    """
    each = arrays.events.sum(axis=1)
    cores = zip(arrays.core_names, arrays.baseline_km, each / each.sum(), strict=True)
    return {
        **{k: str(v) for k, v in entries.items()},
        "source": source,
        "experiment": experiment.name,
        "unoscillated_events": repr(float(each.sum())),
        "exposure_days": f"{experiment.exposure.days:.12g}",
        "cores": "; ".join(f"{name} {km:.6g} {share:.6g}" for name, km, share in cores),
    }


def check_reactors(predictor: Any, arrays: SignalInputs, where: str) -> None:
    """Refuse a predictor whose events came from other reactors than those of the experiment.

    Args:
        predictor: From Monte Carlo; one whose provenance does not tell cores is believed.
        arrays: Of the experiment.
        where: For the message.

    Raises:
        NuebarError: They are other reactors, or the predictor does not say which.
    """
    told = predictor.provenance.get("cores")
    if told is None:
        return
    try:
        rows = [(float(km), float(share)) for _, km, share in (core.rsplit(" ", 2) for core in told.split("; "))]
    except ValueError as error:
        raise NuebarError(f"{where}: cannot read the cores in its provenance, {told!r}; build it again") from error
    each = arrays.events.sum(axis=1)
    wanted = np.column_stack([arrays.baseline_km, each / each.sum()])
    found = np.array(rows).reshape(-1, 2)
    if found.shape != wanted.shape or np.any(np.abs(found - wanted) > [BASELINE_km, SHARE]):
        raise NuebarError(
            f"{where}: this predictor was made for the reactors of {predictor.provenance.get('experiment')!r}, which "
            f"have other baselines or shares of the events than the experiment's ({told}); build it again"
        )


def nominal_physics(experiment: Experiment) -> dict[str, float]:
    """The physics parameters of an experiment's file by name."""
    values = {n: experiment.oscillation[n].value for n in OSCILLATION}
    return values | {PHYSICS[-1]: experiment.matter.density_g_cm3}


def normalised_pairs(pairs: Pairs, arrays: SignalInputs) -> Pairs:
    """Pairs scaled so that those inside the fiducial volume stand for the experiment's selected events."""
    return replace(pairs, scale=float(arrays.events.sum()) / max(pairs.inside or pairs.total or len(pairs), 1))


def from_pairs(
    kind: str,
    pairs: Pairs,
    experiment: Experiment,
    arrays: SignalInputs,
    *,
    windows: Windows | None = None,
    matter: bool = True,
) -> Any:
    """A predictor from Monte Carlo pairs.

    Args:
        kind: ``"harmonic"``, ``"matrix"`` or ``"reweight"``.
        pairs: From :func:`nuebar.predict.pairs.read_pairs`; they are normalised here.
        experiment: What they are normalised to.
        arrays: Its signal.
        windows: Ranges of the mass splittings, for the harmonic predictor.
        matter: Whether the density is a parameter (the matrix always takes it).

    Raises:
        NuebarError: Another kind.
    """
    if kind not in ("harmonic", "matrix", "reweight"):
        raise NuebarError(
            f"--pairs: expected one of the predictors harmonic, matrix, reweight to build from pairs, got {kind!r}; "
            "for others use 'nuebar predict build' and give its folder without pairs"
        )
    from nuebar.predict.reweight import ReweightPredictor

    pairs = normalised_pairs(pairs, arrays)
    density = experiment.matter.electrons_per_nucleon
    about = about_mc(experiment, arrays, "pairs", {**pairs.provenance, "events": len(pairs)})
    exact = ReweightPredictor.build(pairs, electrons_per_nucleon=density, matter=matter)
    if kind == "reweight":
        return ReweightPredictor(matter, density, Provenance({**about, "predictor": kind}), exact.source)
    nominal = nominal_physics(experiment)
    counts = np.asarray(exact.predict({n: nominal[n] for n in exact.parameter_names}))
    errors = exact.errors({n: nominal[n] for n in exact.parameter_names})
    relative = np.divide(errors, counts, out=np.zeros_like(counts), where=counts > 0) ** 2
    if kind == "matrix":
        built: Any = MatrixPredictor.from_pairs(pairs, electrons_per_nucleon=density, provenance=about)
    else:
        folded = replace(fold_pairs(pairs, electrons_per_nucleon=density), provenance=about)
        built = HarmonicPredictor.build(folded, windows=windows, matter=matter, cores=True)
    return with_mc(built, relative)


def normalised_cascades(cascades: Cascades, arrays: SignalInputs) -> Cascades:
    """Cascades scaled to the experiment's selected events."""
    return cascades.normalised(float(arrays.events.sum()))


def from_cascades(
    cascades: Cascades,
    point: ResponsePoint,
    experiment: Experiment,
    arrays: SignalInputs,
    *,
    windows: Windows | None = None,
    matter: bool = True,
    mc_error: bool = True,
) -> HarmonicPredictor:
    """A harmonic predictor from stored cascades at one response point, with analytic smearing.

    Args:
        cascades: Events; they are normalised here.
        point: The response.
        experiment: What they are normalised to.
        arrays: Its signal on the wanted bins.
        windows: Ranges of the mass splittings.
        matter: Whether the density is a parameter.
        mc_error: Whether to work the Monte Carlo covariance out.
    """
    cascades = normalised_cascades(cascades, arrays)
    folded = cascades.folded(point, arrays.edges_MeV)
    about = about_mc(experiment, arrays, "cascades", {**folded.provenance, "events": len(cascades)})
    built = HarmonicPredictor.build(replace(folded, provenance=about), windows=windows, matter=matter, cores=True)
    if not mc_error:
        return built
    nominal = nominal_physics(experiment)
    if not matter:
        nominal[PHYSICS[-1]] = 0.0
    survival = _survival(cascades, nominal)
    counts = np.asarray(built.predict({n: nominal[n] for n in built.parameter_names}))
    covariance = cascades.covariance(point, arrays.edges_MeV, survival)
    inverse = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    return with_mc(built, covariance * np.outer(inverse, inverse))


def matrix_from_cascades(
    cascades: Cascades,
    point: ResponsePoint,
    experiment: Experiment,
    arrays: SignalInputs,
    *,
    cells: int = CELLS,
) -> MatrixPredictor:
    """The response matrix of stored cascades at one response point; the arguments are those of :func:`from_cascades`.

    Args:
        cascades: Events; they are normalised here.
        point: The response.
        experiment: What they are normalised to.
        arrays: Its signal on the wanted bins.
        cells: Even cells of the neutrino energy, each at its mean energy.
    """
    from nuebar.predict.cell_counts import cell_counts

    cascades = normalised_cascades(cascades, arrays)
    e_nu = cascades.e_nu_MeV
    low, width = e_nu.min(), max(e_nu.max() - e_nu.min(), 1e-9) / cells
    cell = np.minimum((e_nu - low) / width, cells - 1).astype(np.int64)
    seen = cell_counts(cascades.smeared(point), cell, cells, arrays.edges_MeV)
    core = cascades.core.astype(np.int64) * cells + cell
    by_core = np.bincount(core, minlength=cascades.baseline_km.size * cells).reshape(-1, cells)
    total = by_core.sum(axis=0)
    filled = total > 0
    about = about_mc(
        experiment,
        arrays,
        "cascades",
        {**cascades.provenance, **{n: f"{v:.9g}" for n, v in vars(point).items()}, "events": len(cascades)},
    )
    return MatrixPredictor.of_cells(
        arrays.edges_MeV,
        np.bincount(cell, e_nu, minlength=cells)[filled] / total[filled],
        cascades.baseline_km,
        cascades.core_names,
        cascades.scale * by_core[:, filled],
        seen[:, filled] / total[filled],
        experiment.matter.electrons_per_nucleon,
        about,
    )


def with_mc(predictor: Any, relative: np.ndarray) -> Any:
    """The predictor with its relative Monte Carlo covariance."""
    return eqx.tree_at(lambda p: p.mc_relative, predictor, jnp.asarray(relative), is_leaf=lambda x: x is None)


def _survival(cascades: Cascades, nominal: Mapping[str, float]) -> np.ndarray:
    """Survival probability of every event."""

    @jax.jit
    def probability(e_nu: jax.Array, baseline: jax.Array) -> jax.Array:
        return oscillation.matter(
            e_nu,
            baseline,
            **{n: nominal[n] for n in OSCILLATION},
            density_g_cm3=nominal[PHYSICS[-1]],
            electrons_per_nucleon=cascades.experiment.matter.electrons_per_nucleon,
        )

    out = np.empty(len(cascades))
    for start in range(0, len(cascades), BLOCK):
        part = slice(start, start + BLOCK)
        e_nu, baseline = cascades.e_nu_MeV[part], cascades.baseline_km[cascades.core[part]]
        n = e_nu.size
        padded = [np.pad(x, (0, BLOCK - n), mode="edge") for x in (e_nu, baseline)]  # one compiled program
        out[part] = np.asarray(probability(*padded))[:n]
    return out

"""Pseudo-experiments: data sets drawn from a model, and fits of all of them.

A toy is a function of (seed, its number) and of nothing else: not of how many are drawn, of batches or of workers. Its
counts, its constraints and its bin-to-bin deviations come from streams of their own, so that switching one on or off
changes no other. Counts are Poisson numbers. With ``constraints`` the centres of the constraints fluctuate by their
widths around the truth, as external measurements would if they were repeated: this is what makes the pulls of nuisance
parameters and χ² of the fit behave as in real data. With ``shape`` the expectation of each bin fluctuates by the
bin-to-bin uncertainty that the statistic allows for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.many import DataSets, Errors, ManyFits, ManyResults, _counts
from nuebar.fit.spectrum_fit import SpectrumFit

__all__ = ["ToyOptions", "ToySummary", "draw", "joined", "run_toys", "summary"]

_STREAMS = ("counts", "constraints", "shape")
_CHUNK = 2048  # toys in memory at a time; with 35 free parameters their curvatures take 20 MB

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ToyOptions:
    """What fluctuates.

    Attributes:
        constraints: Whether the centres of the constraints do.
        shape: Whether expectations do, within their bin-to-bin uncertainties.
    """

    constraints: bool = True
    shape: bool = True


def draw(
    many: ManyFits,
    numbers: np.ndarray | range,
    *,
    seed: int,
    truth: Mapping[str, float] | np.ndarray | None = None,
    options: ToyOptions = ToyOptions(),
) -> DataSets:
    """Draw data sets.

    Args:
        many: Model and constraints.
        numbers: Which toys, from 0.
        seed: Of the study.
        truth: Parameters by name that differ from the nominal ones; or all of them, shape ``(parameters,)`` or one row
            a toy.
        options: What fluctuates.

    Returns:
        The data sets.

    Raises:
        NuebarError: The seed is negative, or a truth is outside of what the model allows.
    """
    fit = many.fit
    if seed < 0:
        raise NuebarError(f"toys: expected a seed that is not negative, got {seed}")
    numbers = np.asarray(numbers, int)
    x = _truths(many, truth, numbers.size)
    same = bool((x == x[:1]).all())
    rows = x[:1] if same else x
    mu, variance = (np.array(a) for a in zip(*(_counts_at(fit, row) for row in rows), strict=True))
    if not np.all(mu >= 0):
        raise NuebarError("toys: expected counts that are not negative at the truth, got negative ones; change it")
    widths = [fit.parameters[n].sigma or 0.0 for n in many.single]
    joint = np.linalg.cholesky(np.asarray(fit.model.prior.covariance)) if many.joint else np.zeros((0, 0))
    at = [many.names.index(n) for n in many.constrained]
    counts = np.empty((numbers.size, mu.shape[1]))
    centres = np.tile(many.centres, (numbers.size, 1))
    keys = {word: _key(seed, word) for word in _STREAMS}
    root = _shape_root(fit)
    for i, number in enumerate(numbers.tolist()):
        k = 0 if same else i
        expected = mu[k]
        if options.shape:
            expected = expected + _deviation(variance[k], root, _generator(keys["shape"], number))
        counts[i] = _generator(keys["counts"], number).poisson(np.maximum(expected, 0.0))
        if options.constraints and at:
            z = _generator(keys["constraints"], number).standard_normal(len(at))
            moved = np.concatenate([widths * z[: len(widths)], joint @ z[len(widths) :]])
            centres[i] = x[i, at] + moved
    return DataSets(numbers, counts, centres, x)


def run_toys(
    fit: SpectrumFit | ManyFits,
    n: int,
    *,
    seed: int,
    first: int = 0,
    truth: Mapping[str, float] | np.ndarray | None = None,
    options: ToyOptions = ToyOptions(),
    errors: Errors = "hesse",
    covariances: bool = False,
    progress: Progress | None = None,
) -> ManyResults:
    """Draw toys and fit them, starting at the truth.

    Args:
        fit: The fit, or one that is compiled already.
        n: How many.
        seed: Of the study.
        first: Number of the first.
        truth: As for :func:`draw`.
        options: What fluctuates.
        errors: As for :meth:`nuebar.fit.many.ManyFits.run`.
        covariances: Keep the covariances as well.
        progress: Called with (toys done, toys in all).

    Returns:
        One row a toy, failed ones included.

    Raises:
        NuebarError: As :func:`draw`, or no toys were asked for.
    """
    if n < 1 or first < 0:
        raise NuebarError(f"toys: expected at least one, and numbers from 0, got {n} from {first}")
    many = fit if isinstance(fit, ManyFits) else ManyFits(fit)
    parts = []
    for begin in range(first, first + n, _CHUNK):
        end = min(begin + _CHUNK, first + n)
        data = draw(many, range(begin, end), seed=seed, truth=truth, options=options)
        tick = None if progress is None else _offset(progress, begin - first, n)
        start = np.clip(data.truth, many.lower, many.upper)
        parts.append(many.run(data, start=start, errors=errors, covariances=covariances, progress=tick))
    return joined(parts)


def joined(parts: list[ManyResults]) -> ManyResults:
    """Several results of the same fits as one."""
    first = parts[0]
    if any(p.names != first.names or p.free != first.free for p in parts):
        raise NuebarError("toys: expected results of the same parameters, got others; keep studies apart")
    arrays: dict[str, Any] = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in fields(ManyResults)
        if isinstance(getattr(first, f.name), np.ndarray)
    }
    return replace(first, **arrays, seconds=sum(p.seconds for p in parts))


@dataclass(frozen=True)
class ToySummary:
    """What many toys say of one parameter; fits that are not valid are left out here and counted in the results.

    Attributes:
        name: The parameter.
        truth: Its mean true value.
        bias: Mean of best fit − truth.
        bias_error: Its standard error.
        spread: Standard deviation of best fit − truth.
        error: Median error that the fits claim.
        pull_mean: Mean of (best fit − truth)/error.
        pull_spread: Its standard deviation.
        coverage: Share of the toys whose one-sigma interval holds the truth.
        n: Number of toys.
    """

    name: str
    truth: float
    bias: float
    bias_error: float
    spread: float
    error: float
    pull_mean: float
    pull_spread: float
    coverage: float
    n: int


def summary(results: ManyResults) -> tuple[ToySummary, ...]:
    """One row for each free parameter.

    Raises:
        NuebarError: Fewer than two valid fits.
    """
    good = results.valid
    n = int(good.sum())
    if n < 2:
        raise NuebarError(f"toys: expected at least two valid fits, got {n} of {len(results)}: {results.failures()}")
    out = []
    for name in results.free:
        k = results.column(name)
        d = results.values[good, k] - results.truth[good, k]
        sigma = results.errors[good, k]
        pull = d / sigma
        out.append(
            ToySummary(
                name=name,
                truth=float(results.truth[good, k].mean()),
                bias=float(d.mean()),
                bias_error=float(d.std(ddof=1) / np.sqrt(n)),
                spread=float(d.std(ddof=1)),
                error=float(np.median(sigma)),
                pull_mean=float(pull.mean()),
                pull_spread=float(pull.std(ddof=1)),
                coverage=float(np.mean(np.abs(pull) <= 1.0)),
                n=n,
            )
        )
    return tuple(out)


# ---------------------------------------------------------------- helpers


def _key(seed: int, word: str) -> int:
    digest = hashlib.blake2b(f"{int(seed)}\x1ftoys\x1f{word}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _generator(key: int, number: int) -> np.random.Generator:
    """The stream of one toy: Philox of Salmon et al. (2011), whose counter begins at 2^128 times the number."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, number, 0]))


def _truths(many: ManyFits, truth: Mapping[str, float] | np.ndarray | None, n: int) -> np.ndarray:
    nominal = many.fit.parameters.nominal()
    if truth is None or isinstance(truth, Mapping):
        for name in truth or {}:
            many.fit.parameters.known(name)
        nominal |= truth or {}
        many.fit.model.vector(nominal)  # refuses what is not allowed
        truth = np.array([nominal[name] for name in many.names])
    x = np.asarray(truth, float)
    if x.shape not in ((len(many.names),), (n, len(many.names))):
        raise NuebarError(
            f"toys: expected a truth of {len(many.names)} parameters, or one row for each of {n} toys, got {x.shape}"
        )
    return np.broadcast_to(x, (n, len(many.names))).copy()


def _counts_at(fit: SpectrumFit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts and what is added to the variance of each bin, Monte Carlo error included if bins share none."""
    mu, variance = (np.asarray(a) for a in _counts(fit.model, x))
    if fit.mc_covariance is not None and np.ndim(fit.mc_covariance) == 1:
        variance = variance + np.asarray(fit.mc_covariance)
    return mu, variance


def _shape_root(fit: SpectrumFit) -> np.ndarray | None:
    """A root of the covariance that bins share, shape ``(bins, bins)``; None if they share none."""
    if fit.mc_covariance is None or np.ndim(fit.mc_covariance) == 1:
        return None
    values, vectors = np.linalg.eigh(np.asarray(fit.mc_covariance))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _deviation(variance: np.ndarray, root: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """What the expectations of a toy's bins deviate by: each by itself, and together by what they share."""
    own = np.sqrt(variance) * random.standard_normal(variance.size)
    return own if root is None else own + root @ random.standard_normal(root.shape[1])


def _offset(progress: Progress, before: int, total: int) -> Any:
    return lambda done, _: progress(before + done, total)

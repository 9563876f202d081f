"""Cost functions of binned fits: what to minimise, in units of χ².

Which one to use:

* `PoissonCost`: the likelihood of counts, right for any number of events. The default choice.
* `BarlowBeestonCost`: the same with an extra variance per bin (finite Monte Carlo, bin-to-bin shape uncertainty,
  measured background): the choice for few events in a bin.
* `NeymanPearsonCost`: a χ² that takes an extra variance too, nearly unbiased from some tens of events in a bin.
* `PearsonCost`, `NeymanCost`: the two classical χ², for comparison with older analyses. Both are biased.
* `CovarianceCost`: data with a fixed covariance between the bins.
* `GaussianPulls`: external knowledge of the fit parameters.

Every cost obeys one contract: `cost(mu)` is −2 ln L up to the constant of the saturated model, so that its
minimum is a goodness of fit; `cost.residuals(mu)` are signed numbers (data minus expectation, in standard
deviations) whose squares add up to it *exactly*, also where the variance depends on the expectation; all are
differentiable. `Bound(cost, model)` makes a cost a function of the fit parameters; such terms add with `+`::

    cost = Bound(PoissonCost(counts), model) + GaussianPulls(centres, sigmas=sigmas, indices=(2, 3))
    cost(x), cost.residuals(x)

All records are pytrees: pass them as arguments of a jitted function, and other data compile nothing anew.
An expectation below zero costs +inf, never NaN.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from nuebar.errors import NuebarError

_EVENTS_TINY = 1e-60
"""Added to the expectation of empty bins: 0/0 becomes the limit 0, and no number above 1e-44 moves."""

_SERIES_BELOW = 0.1
_SERIES_TERMS = 7
"""With s = t/(2 + t), |s| < 0.053: the first term left out is s^15/17 < 1e-20."""


def require_x64() -> None:
    """Refuse to go on in single precision.

    A χ² of 10⁵ events rounds to 0.01 in float32, which is more than the steps a minimiser looks at.

    Raises:
        NuebarError: if JAX has its 64-bit numbers switched off.
    """
    if jnp.zeros(()).dtype != jnp.float64:
        raise NuebarError(
            "fits need 64-bit numbers but JAX has them switched off: set JAX_ENABLE_X64=1 in the environment "
            'before the first import of jax, or call jax.config.update("jax_enable_x64", True)'
        )


_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": np.isfinite,
    " and at least 0": lambda array: np.isfinite(array) & (array >= 0),
    " and above 0": lambda array: np.isfinite(array) & (array > 0),
}


def _checked(values: ArrayLike, name: str, *, ndim: int = 1, rule: str = "") -> jax.Array:
    """A float64 array of the asked dimension whose entries keep the rule, a key of `_RULES`."""
    require_x64()
    if isinstance(values, jax.core.Tracer):  # inside vmap or jit only the shape is known
        array: Any = jnp.asarray(values, float)
    else:
        try:
            array = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise NuebarError(f"{name} must be an array of numbers, got {type(values).__name__}") from error
    if array.ndim != ndim or array.size == 0:
        raise NuebarError(f"{name} must be a {ndim}-dimensional array that is not empty, got shape {array.shape}")
    if isinstance(array, np.ndarray):
        bad = np.argwhere(~_RULES[rule](array))
        if len(bad):
            where = ", ".join(str(index) for index in bad[0])
            raise NuebarError(
                f"{name} must be finite{rule}, got {array[tuple(bad[0])]} at [{where}] "
                f"({len(bad)} such entries): correct or mask them before the fit"
            )
    return jnp.asarray(array)


def _cholesky(covariance: jax.Array, name: str) -> jax.Array:
    """Lower Cholesky factor, after a check of symmetry and positivity."""
    if isinstance(covariance, jax.core.Tracer):
        return jnp.linalg.cholesky(covariance)
    matrix = np.asarray(covariance)
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * np.abs(matrix).max()):
        raise NuebarError(f"{name} must be symmetric, got entries that differ by {np.abs(matrix - matrix.T).max():.3g}")
    try:
        return jnp.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError as error:
        lowest = np.linalg.eigvalsh(matrix)[0]
        raise NuebarError(
            f"{name} must be positive definite, got a lowest eigenvalue of {lowest:.3g}: add the missing "
            "(statistical) variance to its diagonal or drop the bins that carry no information"
        ) from error


def _counts(counts: ArrayLike) -> jax.Array:
    return _checked(counts, "counts", rule=" and at least 0")


class Cost(eqx.Module):
    """Distance between fixed data and an expectation, in units of χ²."""

    counts: jax.Array = eqx.field(converter=_counts)

    @abc.abstractmethod
    def __call__(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The cost of the expectation.

        Args:
            mu: expected counts per bin, shape `(n_data,)`.
            extra_variance: variance to add in each bin, shape `(n_data,)` or a scalar; it may depend on the
                fit parameters. None adds nothing.

        Returns:
            A scalar, +inf where an expectation is impossible.

        Raises:
            NuebarError: for a wrong shape, single precision, or an extra variance that the cost cannot take.
        """

    @abc.abstractmethod
    def residuals(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Signed square roots of the parts of the cost, data minus expectation, shape `(n_data,)`."""

    @abc.abstractmethod
    def variance(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Variance per bin that the cost works with, counts², shape `(n_data,)`."""

    @property
    def n_data(self) -> int:
        """Number of data points."""
        return self.counts.shape[0]

    def _expectation(self, mu: jax.Array) -> jax.Array:
        mu = jnp.asarray(mu)
        if mu.shape != self.counts.shape:
            raise NuebarError(
                f"the model must give one expected count for each of the {self.n_data} bins of the data, "
                f"got shape {mu.shape}: use the bin edges of the data in the prediction"
            )
        if mu.dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
            raise NuebarError(f"expected counts must be float64, got {mu.dtype}: convert before the last sum")
        return mu

    def _extra(self, extra_variance: ArrayLike | None) -> jax.Array:
        extra = jnp.zeros_like(self.counts) if extra_variance is None else jnp.asarray(extra_variance)
        if extra.shape not in ((), self.counts.shape):
            raise NuebarError(f"extra_variance must be a scalar or have shape {self.counts.shape}, got {extra.shape}")
        return extra


class PoissonCost(Cost):
    """Poisson likelihood ratio: 2 Σ (μ − n + n ln n/μ), with 2μ for an empty bin.

    Source: Baker and Cousins, Nucl. Instrum. Meth. 221 (1984) 437; PDG 2024, review "Statistics".

    With t = (μ − n)/n a bin costs n t² g(t), where g(t) = 2 [t − ln(1 + t)]/t² = 1 − 2t/3 + t²/2 − … is
    smooth and positive, and its residual is −t √(n g): sign and derivatives at μ = n need no special case.

    Attributes:
        counts: observed counts, shape `(n_data,)`, at least 0; fractions are allowed (Asimov data).
    """

    def __call__(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The cost; see `Cost`. An extra variance is refused: a Poisson likelihood has no room for one."""
        n, t, ratio, mu_safe, mu = self._split(mu, extra_variance)
        per_bin = jnp.where(self.counts > 0, n * t**2 * _deviance_shape(t, ratio), 2.0 * mu_safe)
        return jnp.sum(jnp.where(mu < 0, jnp.inf, per_bin))

    def residuals(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Signed roots of the deviance per bin; see `Cost`."""
        n, t, ratio, mu_safe, mu = self._split(mu, extra_variance)
        filled = -t * jnp.sqrt(n * _deviance_shape(t, ratio))
        return jnp.where(mu < 0, jnp.inf, jnp.where(self.counts > 0, filled, -jnp.sqrt(2.0 * mu_safe)))

    def variance(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The expectation itself."""
        self._refuse(extra_variance)
        return self._expectation(mu)

    def _refuse(self, extra_variance: ArrayLike | None) -> None:
        if extra_variance is not None:
            raise NuebarError("PoissonCost takes no extra variance: use BarlowBeestonCost or parameters with pulls")

    def _split(
        self, mu: jax.Array, extra_variance: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Counts, t, μ/n and μ with harmless values in the bins where the other branch is taken, and μ itself."""
        self._refuse(extra_variance)
        mu = self._expectation(mu)
        filled = self.counts > 0
        n = jnp.where(filled, self.counts, 1.0)
        near = jnp.where(filled & ~(mu < 0), mu, n)
        return n, (near - n) / n, near / n, jnp.where(filled | (mu < 0), 1.0, mu + _EVENTS_TINY), mu


def _deviance_shape(t: jax.Array, ratio: jax.Array) -> jax.Array:
    """g(t) = 2 [t − ln(1 + t)]/t², by a series where the difference would cancel.

    With s = t/(2 + t), ln(1 + t) = 2 artanh s and g = (1 − s) [1 − s (1 − s) (1/3 + s²/5 + s⁴/7 + …)].

    Args:
        t: relative deviation.
        ratio: 1 + t, apart because t has lost its digits where it is near −1.
    """
    near = jnp.abs(t) < _SERIES_BELOW
    s = jnp.where(near, t, 0.0) / (2.0 + jnp.where(near, t, 0.0))
    series = jnp.zeros_like(t)
    for k in reversed(range(_SERIES_TERMS)):
        series = 1.0 / (2 * k + 3) + s**2 * series
    far, ratio = jnp.where(near, 1.0, t), jnp.where(near, 2.0, ratio)
    return jnp.where(near, (1.0 - s) * (1.0 - s * (1.0 - s) * series), 2.0 * (far - jnp.log(ratio)) / far**2)


class BarlowBeestonCost(Cost):
    """Poisson likelihood of an expectation that is itself uncertain: Σ min_b {2 [b − n + n ln(n/b)] + (b − μ)²/V}.

    The true expectation b of every bin is known to be μ within √V, V the extra variance, and is profiled. It is the
    positive root of b² + (V − μ) b − n V = 0; there (b − μ)²/V = V (n/b − 1)². An empty bin costs 2μ − V, or μ²/V
    if V > μ, where b = 0. Without V this is `PoissonCost`; for many counts it becomes (n − μ)²/(μ + V).

    Source: R. Barlow and C. Beeston, Comput. Phys. Commun. 77 (1993) 219, in the form with one Gaussian factor per
    bin of J. S. Conway, arXiv:1103.0354, whose β is b/μ and whose σ_β² is V/μ².

    V holds the variances of the bins only: correlations between them need parameters with pulls. b is profiled, not
    integrated out, which leaves a bias of the expectation below the fraction V/μ² in size: up for a V that grows as μ²,
    down for a constant one.

    With t = (b − n)/n and r = b/n = 1 + t a bin costs t² [n g(t) + V/r²], g as in `PoissonCost`, and its residual is
    −t times the root of the bracket. All parts are sums of positive numbers, but for the difference μ − n itself.

    Attributes:
        counts: observed counts, shape `(n_data,)`, at least 0; fractions are allowed (Asimov data).
    """

    def __call__(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The cost; see `Cost`."""
        (t, weight), empty, possible = self._parts(mu, extra_variance)
        per_bin = jnp.where(self.counts > 0, t**2 * weight, empty)
        return jnp.sum(jnp.where(possible, per_bin, jnp.inf))

    def residuals(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Signed roots of the cost per bin; see `Cost`."""
        (t, weight), empty, possible = self._parts(mu, extra_variance)
        roots = jnp.where(self.counts > 0, -t * jnp.sqrt(weight), -jnp.sqrt(empty))
        return jnp.where(possible, roots, jnp.inf)

    def variance(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The expectation plus the extra variance."""
        return self._expectation(mu) + self._extra(extra_variance)

    def profiled(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The expectation b of every bin that fits best, shape `(n_data,)`."""
        mu = self._expectation(mu)
        extra = self._extra(extra_variance) + jnp.zeros_like(mu)
        filled = (self.counts > 0) & (jnp.maximum(mu, extra) > 0)
        n, at = jnp.where(filled, self.counts, 1.0), jnp.where(filled, mu, 1.0)
        return jnp.where(filled, n * _profile(n, at, jnp.where(filled, extra, 0.0))[1], jnp.maximum(mu - extra, 0.0))

    def _parts(
        self, mu: jax.Array, extra_variance: ArrayLike | None
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
        """Of filled bins t and the bracket, cost of empty ones, and where an expectation is possible."""
        mu = self._expectation(mu)
        extra = self._extra(extra_variance) + jnp.zeros_like(mu)
        filled = self.counts > 0
        possible = ~((mu < 0) | (filled & (mu == 0) & (extra == 0)))
        n = jnp.where(filled, self.counts, 1.0)
        t, ratio = _profile(n, jnp.where(filled & possible, mu, n), extra)
        weight = n * _deviance_shape(t, ratio) + extra / ratio / ratio
        mu_empty = jnp.where(filled | ~possible, 1.0, mu + _EVENTS_TINY)
        inside = ~(mu_empty < extra)
        empty = jnp.where(inside, 2.0 * mu_empty - extra, mu_empty**2 / jnp.where(inside, 1.0, extra))
        return (t, weight), empty, possible


@jax.custom_jvp
def _profile(n: jax.Array, mu: jax.Array, extra: jax.Array) -> tuple[jax.Array, jax.Array]:
    """b/n − 1 and b/n for the positive root of b² + (V − μ) b − n V = 0, n > 0, without cancellation.

    Both are roots of quadratics of one discriminant, D² = (μ − V)² + 4nV: b/n is (μ − V + D)/2n or 2V/(V − μ + D), and
    b/n − 1 is 2(μ − n)/(p + D) or (D − p)/2n with p = 2n + V − μ. The sums of numbers of one sign are taken.
    """
    scale = jax.lax.stop_gradient(jnp.maximum(mu, extra))  # squares of very small or large numbers are not numbers
    root = scale * jnp.sqrt(((mu - extra) / scale) ** 2 + 4.0 * (n / scale) * (extra / scale))
    above, p = mu - extra, 2.0 * n + (extra - mu)
    up, plus = above > 0, p > 0
    side = jnp.where(up, above, -above) + root
    sum_p = jnp.where(plus, p, -p) + root
    ratio = jnp.where(up, side / (2.0 * n), 2.0 * extra / side)
    return jnp.where(plus, 2.0 * (mu - n) / sum_p, sum_p / (2.0 * n)), ratio


@_profile.defjvp
def _profile_slope(
    at: tuple[jax.Array, jax.Array, jax.Array], along: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """D db = b dμ + (n − b) dV + V dn: the quadratic differentiated, which keeps the digits that a root loses."""
    (n, mu, extra), (d_n, d_mu, d_extra) = at, along
    t, ratio = _profile(n, mu, extra)
    root = 2.0 * n * ratio + (extra - mu)  # at least half of 2b, for b ≥ μ − V
    slope = (ratio * d_mu - t * d_extra) / root + (extra / root - ratio) / n * d_n
    return (t, ratio), (slope, slope)


class _ChiSquare(Cost):
    """Σ (n − μ)²/V: the three χ² differ in the statistical variance only."""

    _empty_variance_per_mu: ClassVar[float] = 1.0

    @abc.abstractmethod
    def _statistical(self, mu: jax.Array) -> jax.Array:
        """Statistical variance for an expectation that is not negative."""

    def variance(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Statistical plus extra variance per bin; see `Cost`."""
        return self._statistical(self._expectation(mu)) + self._extra(extra_variance)

    def __call__(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The cost; see `Cost`."""
        mu, variance, possible = self._parts(mu, extra_variance)
        filled = self.counts > 0
        # In an empty bin d²/V = μ/(V/μ): written so, its second derivative is free of cancellation at μ = 0.
        mu_empty = jnp.where(filled, 1.0, mu)
        empty = mu_empty / (self._empty_variance_per_mu + self._extra(extra_variance) / mu_empty)
        per_bin = jnp.where(filled, (self.counts - mu) ** 2 / variance, empty)
        return jnp.sum(jnp.where(possible, per_bin, jnp.inf))

    def residuals(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """(n − μ)/√V per bin; see `Cost`."""
        mu, variance, possible = self._parts(mu, extra_variance)
        return jnp.where(possible, (self.counts - mu) / jnp.sqrt(variance), jnp.inf)

    def _parts(self, mu: jax.Array, extra_variance: ArrayLike | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = self._expectation(mu)
        possible = ~(mu < 0)  # a NaN is not hidden as an infinity
        mu = jnp.where(possible, mu + jnp.where(self.counts > 0, 0.0, _EVENTS_TINY), 1.0)
        return mu, self._statistical(mu) + self._extra(extra_variance), possible


class NeymanPearsonCost(_ChiSquare):
    """Combined Neyman-Pearson χ²: V = 3/(1/n + 2/μ), and V = μ/2 in an empty bin.

    The combination (χ²_Neyman + 2 χ²_Pearson)/3 cancels the leading biases of the two, −1 and +1/2 events per
    bin; V = μ/2 gives an empty bin the Poisson value 2μ.
    Source: Ji et al., Nucl. Instrum. Meth. A 961 (2020) 163677, arXiv:1903.07185 (empty bins: appendix A).

    There is no ln V term: an extra variance that grows with the parameters pulls them up a little. Keep it
    small beside the statistical one, or freeze it at the best fit.

    Attributes:
        counts: observed counts, shape `(n_data,)`, at least 0.
    """

    _empty_variance_per_mu: ClassVar[float] = 0.5

    def _statistical(self, mu: jax.Array) -> jax.Array:
        filled = self.counts > 0
        n = jnp.where(filled, self.counts, 1.0)
        return jnp.where(filled, 3.0 * n * mu / (mu + 2.0 * n), self._empty_variance_per_mu * mu)


class PearsonCost(_ChiSquare):
    """Pearson's χ²: V = μ. Biased high, by about half an event per bin when the total is fitted.

    Source: Ji et al., arXiv:1903.07185.

    Attributes:
        counts: observed counts, shape `(n_data,)`, at least 0.
    """

    def _statistical(self, mu: jax.Array) -> jax.Array:
        return mu


class NeymanCost(_ChiSquare):
    """Neyman's χ²: V = n. Biased low, by about one event per bin when the total is fitted.

    Source: Ji et al., arXiv:1903.07185.

    Attributes:
        counts: observed counts, shape `(n_data,)`, above 0: an empty bin has no variance here.
    """

    def __check_init__(self) -> None:
        if not isinstance(self.counts, jax.core.Tracer) and (np.asarray(self.counts) == 0).any():
            empty = int(np.argmin(np.asarray(self.counts)))
            raise NuebarError(
                f"NeymanCost needs counts above 0, got an empty bin at [{empty}]: merge bins, or use "
                "NeymanPearsonCost or PoissonCost"
            )

    def _statistical(self, mu: jax.Array) -> jax.Array:
        return self.counts


class CovarianceCost(Cost):
    """(n − μ)ᵀ C⁻¹ (n − μ), with a fixed covariance and an optional variance on its diagonal.

    The residuals are L⁻¹(n − μ) with C = L Lᵀ: uncorrelated, but each mixes the bins before it. An extra
    variance that follows the model, for example `NeymanPearsonCost(counts).variance(mu)` beside a systematic
    covariance, costs one Cholesky decomposition per evaluation.

    Args:
        counts: measured values, shape `(n_data,)`; background-subtracted data may be negative.
        covariance: shape `(n_data, n_data)`, counts², symmetric and positive definite.
    """

    counts: jax.Array
    covariance: jax.Array
    cholesky: jax.Array

    def __init__(self, counts: ArrayLike, covariance: ArrayLike) -> None:
        self.counts = _checked(counts, "counts")
        self.covariance = _checked(covariance, "covariance", ndim=2)
        if self.covariance.shape != self.counts.shape * 2:
            raise NuebarError(
                f"covariance must have shape {self.counts.shape * 2} for {self.n_data} bins, "
                f"got {self.covariance.shape}"
            )
        self.cholesky = _cholesky(self.covariance, "covariance")

    def __call__(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """The cost; see `Cost`. An expectation may be negative here."""
        return jnp.sum(self.residuals(mu, extra_variance) ** 2)

    def residuals(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Decorrelated residuals; see `Cost`."""
        factor = self.cholesky
        if extra_variance is not None:
            factor = jnp.linalg.cholesky(self.covariance + jnp.diag(self._extra(extra_variance) + 0.0 * self.counts))
        return solve_triangular(factor, self.counts - self._expectation(mu), lower=True)

    def variance(self, mu: jax.Array, extra_variance: ArrayLike | None = None) -> jax.Array:
        """Diagonal of the covariance plus the extra variance; see `Cost`."""
        self._expectation(mu)
        return jnp.diag(self.covariance) + self._extra(extra_variance)


class Term(eqx.Module):
    """A cost as a function of the fit parameters; terms add with `+` and `sum`."""

    @abc.abstractmethod
    def __call__(self, x: jax.Array) -> jax.Array:
        """The cost at parameters `x`, shape `(n_parameters,)`, in units of χ²."""

    @abc.abstractmethod
    def residuals(self, x: jax.Array) -> jax.Array:
        """Signed numbers whose squares add up to the cost, shape `(n_data,)`."""

    @property
    @abc.abstractmethod
    def n_data(self) -> int:
        """Number of data points; a pull counts as one."""

    def value(self, x: jax.Array) -> jax.Array:
        """The cost at `x`: the same as calling the term."""
        return self(x)

    def __add__(self, other: Term) -> CostSum:
        if not isinstance(other, Term):
            return NotImplemented
        return CostSum((self, other))

    def __radd__(self, other: object) -> Term:  # so that sum(terms) works
        return self if isinstance(other, int) and other == 0 else NotImplemented


class Bound(Term):
    """A cost bound to the model that predicts its data.

    Attributes:
        cost: the data and their statistic.
        model: function of the parameter vector that gives the expected counts, shape `(n_data,)`, or a pair
            `(expected counts, extra variance)`. Use one function object, or one `equinox.Module`, for all
            fits: a fresh lambda is a new program for the compiler.
    """

    cost: Cost
    model: Callable[[jax.Array], Any]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The cost at parameters `x`; see `Term`."""
        return self.cost(*self._predict(x))

    def residuals(self, x: jax.Array) -> jax.Array:
        """The residuals at parameters `x`; see `Term`."""
        return self.cost.residuals(*self._predict(x))

    @property
    def n_data(self) -> int:
        """Number of bins."""
        return self.cost.n_data

    def _predict(self, x: jax.Array) -> tuple[Any, ...]:
        predicted = self.model(x)
        return predicted if isinstance(predicted, tuple) else (predicted,)


class GaussianPulls(Term):
    """External knowledge of the parameters: (x − c)ᵀ C⁻¹ (x − c).

    The residuals are parameter minus centre in standard deviations (decorrelated for a full covariance).

    Args:
        centres: expected values, shape `(n_pulls,)`.
        sigmas: standard deviations, shape `(n_pulls,)`, above 0. Either these or `covariance`.
        covariance: shape `(n_pulls, n_pulls)`, symmetric and positive definite.
        indices: positions of the pulled parameters in the parameter vector, in the order of `centres`; None
            means all parameters.
    """

    centres: jax.Array
    width: jax.Array
    indices: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        centres: ArrayLike,
        *,
        sigmas: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.centres = _checked(centres, "centres")
        self.indices = None if indices is None else tuple(int(index) for index in indices)
        n = self.centres.shape[0]
        if sigmas is not None and covariance is None:
            self.width = _checked(sigmas, "sigmas", rule=" and above 0")
        elif covariance is not None and sigmas is None:
            self.width = _cholesky(_checked(covariance, "covariance", ndim=2), "covariance")
        else:
            raise NuebarError(
                "GaussianPulls needs either sigmas or covariance, got " + ("both" if sigmas is not None else "neither")
            )
        if self.width.shape not in ((n,), (n, n)):
            raise NuebarError(f"sigmas or covariance must be for {n} centres, got shape {self.width.shape}")
        if self.indices is not None and min(self.indices, default=0) < 0:
            raise NuebarError(f"indices must be at least 0, counted from the first parameter, got {self.indices}")
        if self.indices is not None and not n == len(set(self.indices)) == len(self.indices):
            raise NuebarError(f"indices must name {n} different parameters, got {self.indices}")

    def __call__(self, x: jax.Array) -> jax.Array:
        """The cost at parameters `x`; see `Term`."""
        return jnp.sum(self.residuals(x) ** 2)

    def residuals(self, x: jax.Array) -> jax.Array:
        """The pulls at parameters `x`; see `Term`."""
        needed = self.n_data if self.indices is None else 1 + max(self.indices)
        if x.ndim != 1 or x.shape[0] < needed or (self.indices is None and x.shape[0] != needed):
            raise NuebarError(f"the pulls need a vector of {needed} parameters, got shape {x.shape}: give indices")
        pulled = x if self.indices is None else x[jnp.asarray(self.indices)]
        if self.width.ndim == 1:
            return (pulled - self.centres) / self.width
        return solve_triangular(self.width, pulled - self.centres, lower=True)

    @property
    def n_data(self) -> int:
        """Number of pulls."""
        return self.centres.shape[0]


class CostSum(Term):
    """Sum of independent terms; made by `+`.

    Args:
        terms: the terms, in the order of their residuals; sums inside are opened.
    """

    terms: tuple[Term, ...]

    def __init__(self, terms: Sequence[Term]) -> None:
        flat: list[Term] = []
        for term in terms:
            flat.extend(term.terms if isinstance(term, CostSum) else (term,))
        if not flat:
            raise NuebarError("a sum of costs needs at least one term, got none")
        self.terms = tuple(flat)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The cost at parameters `x`; see `Term`."""
        return jnp.sum(jnp.stack([term(x) for term in self.terms]))

    def residuals(self, x: jax.Array) -> jax.Array:
        """The residuals of all terms, one after the other; see `Term`."""
        return jnp.concatenate([term.residuals(x) for term in self.terms])

    @property
    def n_data(self) -> int:
        """Number of data points and pulls together."""
        return sum(term.n_data for term in self.terms)

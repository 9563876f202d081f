"""An analytic density: Gaussian peaks whose positions follow the response as those of real sources do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from nuebar.predict.box import Provenance
from nuebar.tune.density import RESPONSE, response_vector, source_index

LIMITS = ((6.0, 24.0), (0.0, 1.0), (8000.0, 12000.0))
LINES = {  # MeV, share
    "Cs137": ((0.662, 1.0),),
    "K40": ((1.461, 1.0),),
    "Co60": ((2.506, 1.0),),
    "AmBe": ((2.223, 0.6), (4.44, 0.3), (7.0, 0.1)),
    "AmC": ((2.223, 0.7), (6.13, 0.3)),
}


class ToyDensity(eqx.Module):
    """Peaks of relative width 3 %/sqrt(E), in bins of 0.02 from 0.4 to 16.4 as published, exact probabilities."""

    n_knots: int = eqx.field(static=True, default=2001)
    name: str = eqx.field(static=True, default="toy")
    sources: tuple[str, ...] = eqx.field(static=True, default=tuple(LINES))
    pe_to_observable: float = eqx.field(static=True, default=1.07e-3)
    limits: tuple = eqx.field(static=True, default=LIMITS)
    provenance: Provenance = eqx.field(static=True, default=Provenance({"toy": "analytic"}))

    @property
    def edges(self):
        return np.linspace(0.4, 16.4, 801)

    @property
    def knots(self):
        return np.linspace(0.4, 16.4, self.n_knots)

    def _peaks(self, response):
        kB, fC, light = response[0], response[1], response[2]
        energy = jnp.array([[e for e, _ in (v + ((1.0, 0.0),) * 3)[:3]] for v in LINES.values()])
        share = jnp.array([[w for _, w in (v + ((1.0, 0.0),) * 3)[:3]] for v in LINES.values()])
        quench = 1.0 - 0.012 * kB / (1 + 0.3 * energy) ** 0.5
        cherenkov = 0.07 * fC * energy / (energy + 1.0)
        mean = 1.07e-3 * 0.1691 * light * energy * (quench + cherenkov)
        sigma = 0.03 * jnp.sqrt(mean * 1.4)
        return share, mean, sigma

    def log_probabilities(self, response):
        share, mean, sigma = self._peaks(jnp.asarray(response))
        e = jnp.asarray(self.edges)
        cdf = jax.scipy.stats.norm.cdf((e - mean[..., None]) / sigma[..., None])
        p = (share[..., None] * jnp.diff(cdf)).sum(axis=1) + 1e-12
        return jnp.log(p / p.sum(axis=1, keepdims=True))

    def log_density(self, response):
        return self.at(jnp.asarray(response), jnp.asarray(self.knots))

    def at(self, response, x):
        """ln p at values of the observable, shape (sources, values)."""
        share, mean, sigma = self._peaks(response)
        z = (x - mean[..., None]) / sigma[..., None]
        logs = jnp.log(share + 1e-300)[..., None] - 0.5 * z**2 - jnp.log(sigma * jnp.sqrt(2 * jnp.pi))[..., None]
        floor = jnp.full((logs.shape[0], 1, logs.shape[2]), jnp.log(1e-12 / 16))
        return logsumexp(jnp.concatenate([logs, floor], axis=1), axis=1)

    def log_prob(self, n_pe, response, source):
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        x = np.asarray(n_pe) * self.pe_to_observable
        return np.asarray(self.at(jnp.asarray(p), jnp.asarray(x.ravel()))[row]).reshape(x.shape) + np.log(
            self.pe_to_observable
        )

    def sample(self, n, response, source, *, seed):
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        share, mean, sigma = (np.asarray(a)[row] for a in self._peaks(jnp.asarray(p)))
        random = np.random.default_rng(seed)
        k = random.choice(share.size, n, p=share / share.sum())
        return (mean[k] + sigma[k] * random.standard_normal(n)) / self.pe_to_observable

    def counts(self, edges_pe, response, source, events):
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        share, mean, sigma = (np.asarray(a)[row] for a in self._peaks(jnp.asarray(p)))
        e = np.asarray(edges_pe) * self.pe_to_observable
        cdf = jax.scipy.stats.norm.cdf((e - mean[:, None]) / sigma[:, None])
        return events * (share[:, None] * np.diff(np.asarray(cdf))).sum(axis=0)


TRUTH = {"kB_g_cm2_GeV": 12.05, "fC": 0.517, "light_yield_per_MeV": 9846.0}
assert tuple(TRUTH) == RESPONSE

"""Which regressor should carry the response of the detector? Four ways, the same cascades, the same test points.

    python benchmarks/surrogate_choice.py --cascades FOLDER [--out docs/results]

Every spectrum is linear in the harmonic coefficients of its bins: one table of bins × terms a response point. Three
ways learn that table directly, as its mean and a reduced basis from training points, with the coefficients of the basis
as cubic polynomials of the response, as a small network, or as a network on top of the polynomials. The fourth is the
surrogate, which learns where events go.
"""

import argparse
import itertools
import os
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nuebar.config import load_experiment
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.cascades import Cascades
from nuebar.predict.harmonic import HarmonicPredictor, Windows, vacuum_basis
from nuebar.predict.response import RESPONSE, ResponsePoint
from nuebar.predict.surrogate import BOX, build_surrogate
from nuebar.training import StoredBatches, Training, train

EDGES = np.linspace(0.8, 8.8, 401)
TRUTH = dict(zip(OSCILLATION, (0.307, 0.0220, 7.53e-5, 2.5123e-3), strict=True))
NOMINAL = ResponsePoint(12.05, 0.517, 9846.0)
LOW, HIGH = np.array([BOX[n] for n in RESPONSE]).T
RANK = 60


def points(n, seed):
    return np.random.default_rng(seed).uniform(LOW, HIGH, (n, len(RESPONSE)))


def table(cascades, point):
    """Counts without oscillations, solar and atmospheric coefficients of every bin, and the predictor of them."""
    folded = cascades.folded(ResponsePoint(*point), EDGES)
    harmonic = HarmonicPredictor.build(folded, windows=Windows.around_pdg(3), matter=False, tolerance=0.0)
    total = harmonic.total
    parts = [total.flat[:, None], total.solar.value[:, :14], total.atmospheric.value[:, :70]]
    return np.concatenate([np.asarray(p) for p in parts], axis=1), harmonic


def scaled(p):
    return (2.0 * p - LOW - HIGH) / (HIGH - LOW)


def cubic(p):
    """All products of up to three of the scaled parameters."""
    t = scaled(p)
    columns = [np.ones(len(t))]
    for degree in (1, 2, 3):
        columns += [np.prod(t[:, list(k)], axis=1) for k in itertools.combinations_with_replacement(range(7), degree)]
    return np.stack(columns, axis=1)


class Net(eqx.Module):
    weights: list
    biases: list

    def __call__(self, x):
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = jax.nn.gelu(x @ w + b)
        return x @ self.weights[-1] + self.biases[-1]


def network(x, y, steps, seed=1):
    """Two hidden layers of 128; standardised outputs."""
    rng = np.random.default_rng(seed)
    sizes = (x.shape[1], 128, 128, y.shape[1])
    weights = [jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32) for s in itertools.pairwise(sizes)]
    net = Net(weights, [jnp.zeros(n, jnp.float32) for n in sizes[1:]])
    width = y.std(axis=0) + 1e-30
    importance = jnp.asarray(width / width.max(), jnp.float32)
    batches = StoredBatches((x.astype(np.float32), (y / width).astype(np.float32)), min(128, len(x)), seed)

    def loss(model, batch):
        return jnp.mean((importance * (model(batch[0]) - batch[1])) ** 2)

    settings = Training(max_steps=steps, batch=min(128, len(x)), seed=seed, validate_every=steps)
    trained = train(net, loss, batches, None, optax.adam(optax.cosine_decay_schedule(3e-3, steps)), settings)
    return lambda q: np.asarray(trained.model(jnp.asarray(q, jnp.float32)), dtype=float) * width


def errors(predicted, truth):
    relative, chi2 = [], []
    for s, t in zip(predicted, truth, strict=True):
        good = t > 1e-4 * t.sum()
        relative.append(np.abs(s / t - 1)[good])
        chi2.append(float(np.sum((s - t) ** 2 / t)))
    every = np.concatenate(relative)
    return {
        "relative_median": float(np.median(every)),
        "relative_99.9": float(np.quantile(every, 0.999)),
        "relative_worst": float(every.max()),
        "chi2_median": float(np.median(chi2)),
        "chi2_worst": float(max(chi2)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascades", required=True)
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20_000)
    a = parser.parse_args()
    began = time.perf_counter()
    cascades = Cascades.load(a.cascades, experiment=load_experiment("juno"), files=slice(a.files)).normalised(1e5)
    training, testing = points(a.train, 1), points(a.test, 2)
    start = time.perf_counter()
    tables = [table(cascades, p)[0] for p in training]
    table_seconds = time.perf_counter() - start
    data = np.array([t.ravel() for t in tables], dtype=np.float32)
    tests = [table(cascades, p) for p in testing]
    basis_of = tests[0][1]
    weights = np.asarray(vacuum_basis(basis_of.total, jnp.array([TRUTH[n] for n in OSCILLATION])))
    solar = basis_of.total.solar.value.shape[-1]
    chosen = np.concatenate([weights[:15], weights[1 + solar : 71 + solar]])
    truth = [np.asarray(h.predict(TRUTH)) for _, h in tests]
    mean = data.mean(axis=0)
    u, s, v = np.linalg.svd(data - mean, full_matrices=False)
    rank = min(RANK, len(s))
    y = u[:, :rank] * s[:rank]
    rows = {}

    def record(name, coefficients, seconds, size):
        predicted = [((mean + c @ v[:rank]).reshape(400, -1)) @ chosen for c in coefficients]
        rows[name] = {**errors(predicted, truth), "training_s": seconds, "bytes": size}

    exact = np.array([(t.ravel() - mean) @ v[:rank].T for t, _ in tests])
    record("reduced basis alone (its coefficients known)", exact, table_seconds, 4 * (rank + 1) * mean.size)
    start = time.perf_counter()
    x = cubic(training)
    ridge = np.linalg.solve(x.T @ x + 1e-8 * len(x) * np.eye(x.shape[1]), x.T @ y)
    polynomial = cubic(testing) @ ridge
    record(
        "reduced basis, cubic polynomials",
        polynomial,
        table_seconds + time.perf_counter() - start,
        4 * ((rank + 1) * mean.size + ridge.size),
    )
    start = time.perf_counter()
    net = network(scaled(training), y, a.steps)
    record(
        "reduced basis, network",
        net(scaled(testing)),
        table_seconds + time.perf_counter() - start,
        4 * ((rank + 1) * mean.size + 128 * (7 + 128 + rank)),
    )
    start = time.perf_counter()
    rest = network(scaled(training), y - x @ ridge, a.steps)
    record(
        "reduced basis, polynomials and network",
        polynomial + rest(scaled(testing)),
        table_seconds + time.perf_counter() - start,
        4 * ((rank + 1) * mean.size + ridge.size + 128 * (7 + 128 + rank)),
    )
    start = time.perf_counter()
    ours = build_surrogate(cascades, EDGES, nominal=NOMINAL, windows=Windows.around_pdg(3), matter=False)
    seconds = time.perf_counter() - start
    predicted = [np.asarray(ours.predict({**TRUTH, **dict(zip(RESPONSE, p, strict=True))})) for p in testing]
    rows["where events go (ours)"] = {**errors(predicted, truth), "training_s": seconds, "bytes": ours.nbytes}
    content = {
        "events": len(cascades),
        "training_points": a.train,
        "test_points": a.test,
        "rank": rank,
        "singular_values": [float(q) for q in s[:rank:10] / s[0]],
        "counts": 1e5,
        "rows": rows,
    }
    write_claim(
        a.out,
        "predict-regressors",
        content,
        command="python benchmarks/surrogate_choice.py --cascades FOLDER",
        seconds=time.perf_counter() - began,
        seed=1,
    )


if __name__ == "__main__":
    main()

"""The hidden truth of a simulated run, and what auxiliary measurements say of the nuisance parameters.

Nuisance parameters are at their nominal values in the simulated data. Other measurements of them (reactor powers,
background rates, the energy scale) are simulated too: the centre of every prior of the fit is drawn around the truth
with the width of that prior. So is what other experiments say of the oscillation parameters that have priors. Without
this every simulated run would know its nuisance parameters exactly, and pulls of the fit would be too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.chain.run_file import RESPONSE, RunFile
from nuebar.errors import NuebarError
from nuebar.io.results import load_result, save_result
from nuebar.parameters import OSCILLATION
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key

__all__ = ["Truth", "auxiliary_centres", "draw_truth", "part_seed"]

_TRIES = 1000


@dataclass(frozen=True)
class Truth:
    """What the data were simulated with.

    Attributes:
        oscillation: Oscillation parameters by name.
        response: kB, fC and light yield by name.
    """

    oscillation: Mapping[str, float]
    response: Mapping[str, float]

    @property
    def light(self) -> Response:
        """The response as the Monte Carlo takes it."""
        return Response(*(self.response[n] for n in RESPONSE))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        save_result(path, {"kind": "truth", "simulated": True, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read what :meth:`save` wrote."""
        record: dict[str, Any] = load_result(path)
        try:
            tables = [{str(k): float(v) for k, v in record[name].items()} for name in ("oscillation", "response")]
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise NuebarError(f"{path}: expected oscillation and response by name; the file is damaged") from error
        return cls(*tables)


def part_seed(seed: int, *words: str | int) -> int:
    """A seed of its own for a part of the run, so that no part shares random numbers with any training."""
    return int(derive_key(seed, "run", *words)) >> 1


def draw_truth(run: RunFile, seed: int | None = None) -> Truth:
    """Oscillation and response parameters from the ranges of the run file.

    Args:
        run: The run file; the mass ordering is that of its fit.
        seed: Instead of the run's own.

    Raises:
        NuebarError: A Gaussian of the file hardly ever gives physical values.
    """
    rng = np.random.default_rng(part_seed(run.seed if seed is None else seed, "truth"))
    settings = run.simulate.truth
    oscillation = {}
    for name in OSCILLATION:
        prior = settings.oscillation[name]
        for _ in range(_TRIES):
            value = float(rng.normal(prior.value, prior.sigma)) if prior.sigma else prior.value
            if 0 < value < 1:
                break
        else:
            raise NuebarError(f"simulate.truth.oscillation.{name}: expected a Gaussian of physical values; correct it")
        oscillation[name] = value
    if run.fit.ordering == "inverted":
        oscillation["dm2_31_eV2"] = -abs(oscillation["dm2_31_eV2"])
    response = {n: float(rng.uniform(settings.response[n].low, settings.response[n].high)) for n in RESPONSE}
    return Truth(oscillation, response)


def auxiliary_centres(
    widths: Mapping[str, tuple[float, float]], truth: Mapping[str, float], seed: int
) -> dict[str, float]:
    """What auxiliary measurements would say: centres of priors drawn around the truth.

    Args:
        widths: Parameter → (nominal value, width of its prior).
        truth: True values of those that are not nominal.
        seed: Seed of the run.
    """
    centres = {}
    for name, (nominal, sigma) in widths.items():
        # A key of its own for each: a parameter more or less moves no other.
        rng = np.random.default_rng(part_seed(seed, "auxiliary", name))
        centres[name] = float(rng.normal(truth.get(name, nominal), sigma))
    return centres

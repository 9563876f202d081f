"""What is known of the coverage of printed intervals: tables that ship with an experiment, as warnings to a user.

A table is made by ``benchmarks/interval_coverage.py`` from thousands of toys and lies in
``experiments/coverage/<name>.json``: for each exposure, statistic, parameter and kind of interval the share of toys
whose interval held the truth. It speaks of one experiment, of fits without data of other experiments beyond those in
the table (priors), and of similar exposures; of anything else it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nuebar.config import EXPERIMENTS
from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult
from nuebar.io.results import load_result

__all__ = ["SIMILAR", "load_table", "printed_methods", "warnings"]

SIMILAR = 1.5
"""Largest factor between exposures that are alike."""
SAME_PRIOR = 0.2
WORDS = {
    "hesse": "Hesse interval",
    "hesse-lowest": "Hesse interval at the lowest minimum",
    "minos": "Minos interval",
    "profile": "profile interval",
    "posterior": "posterior's central interval",
}


def load_table(experiment: str, folder: Path | None = None) -> Mapping[str, Any] | None:
    """The table of an experiment; None if there is none.

    Raises:
        NuebarError: The file is no such table.
    """
    path = (folder or EXPERIMENTS / "coverage") / f"{experiment}.json"
    if not path.is_file():
        return None
    found = load_result(path)
    if found.get("kind") != "known coverage" or not isinstance(found.get("rows"), list):
        raise NuebarError(f"{path}: expected a table of known coverage, got kind {found.get('kind')!r}; remake it")
    return found


def printed_methods(result: FitResult) -> dict[str, str]:
    """Which kind of interval a result holds of each free parameter: "minos" with two different errors, else "hesse"."""
    out = {}
    for name in result.parameter_order:
        p = result.parameters[name]
        same = p.error_plus == p.error and p.error_minus == -p.error
        out[name] = "hesse" if same else "minos"
    return out


def warnings(
    experiment: str,
    exposure_days: float,
    statistic: str,
    result: FitResult,
    *,
    methods: Iterable[str] | None = None,
    folder: Path | None = None,
) -> list[str]:
    """Sentences on intervals of a result that are known not to cover what they should.

    Args:
        experiment: Name of the experiment.
        exposure_days: Its exposure.
        statistic: "pearson", "cnp" and so on.
        result: The fit.
        methods: Kinds of intervals that were printed; by default those that the result holds.
        folder: Where tables lie, instead of the package's.

    Returns:
        None at all where the table does not speak of this experiment, statistic, ordering, priors and exposure.
    """
    known = load_table(experiment, folder)
    if known is None or known.get("ordering", "normal") != result.ordering:
        return []
    rows = [r for r in known["rows"] if r["statistic"] == statistic]
    near = _nearest({float(r["exposure_days"]) for r in rows}, exposure_days)
    if near is None:
        return []
    printed = printed_methods(result)
    worst: dict[tuple[str, str], Mapping[str, Any]] = {}
    for r in rows:
        name, method = r["parameter"], _method(r["method"])
        if float(r["exposure_days"]) != near or not r["off"] or r["n_sigma"] != 1.0 or name not in printed:
            continue
        wanted = {printed[name]} if methods is None else set(methods)
        if method not in wanted or not _same_prior(known.get("priors", {}).get(name), result, name):
            continue
        before = worst.get((name, method))
        if before is None or _miss(r) > _miss(before):
            worst[name, method] = r
    return [
        f"the {WORDS[r['method']]} of {name} covered {100 * r['coverage']:.1f} ± {100 * r['error']:.1f} % of toys "
        f"at {near:.4g} days where {100 * r['level']:.1f} % is wanted; use nuebar fit feldman-cousins"
        for (name, _), r in worst.items()
    ]


def _miss(row: Mapping[str, Any]) -> float:
    """Too little counts before too much: points below the level, or a tenth of those above."""
    d = row["level"] - row["coverage"]
    return float(d if d > 0 else -0.1 * d)


def _method(name: str) -> str:
    """The lowest minimum's Hesse interval is a Hesse interval to who reads a result."""
    return "hesse" if name == "hesse-lowest" else name


def _nearest(exposures: set[float], days: float) -> float | None:
    alike = [d for d in exposures if days > 0 and max(d / days, days / d) <= SIMILAR * (1 + 1e-9)]
    return min(alike, key=lambda d: abs(math.log(d / days))) if alike else None


def _same_prior(sigma: float | None, result: FitResult, name: str) -> bool:
    prior = result.parameters[name].prior
    if sigma is None or prior is None:
        return sigma is None and prior is None
    return abs(prior[1] / sigma - 1.0) < SAME_PRIOR

"""A run in a few lines of text: what was recovered, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nuebar.chain.folder import DONE
from nuebar.chain.run_file import RESPONSE, STAGES
from nuebar.chain.truth import Truth
from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult
from nuebar.io.results import load_result
from nuebar.parameters import OSCILLATION
from nuebar.run import status
from nuebar.run.manifest import MANIFEST

__all__ = ["recovered", "run_summary", "status_lines"]


def recovered(home: Path) -> list[dict[str, Any]]:
    """Oscillation and response parameters of a finished fit beside the truth, if that is known.

    Args:
        home: Folder of the run.

    Returns:
        For each: ``name``, ``value``, ``error``, ``truth`` and ``sigmas`` (None if not known) and
        ``prior_dominated``.
    """
    fit = load_result(home / "fit" / "fit.json")
    result = FitResult.from_dict(load_result(home / "fit" / "result.json"))
    path = home / "simulate" / "truth.json"
    truth = Truth.load(path) if path.exists() else None
    known = {**truth.oscillation, **truth.response} if truth else {}
    rows = []
    for name in (*OSCILLATION, *RESPONSE):
        if name not in result.parameter_order:
            continue
        p = result.parameters[name]
        at = known.get(name)
        # On the side of the truth: intervals of a profile are not symmetric.
        width = 0.0 if at is None else p.error_plus if at > p.value else -p.error_minus
        sigmas = (p.value - at) / width if at is not None and width > 0 else None
        rows.append(
            {
                "name": name,
                "value": p.value,
                "error": p.error,
                "error_minus": p.error_minus,
                "error_plus": p.error_plus,
                "truth": at,
                "sigmas": sigmas,
                "prior_dominated": name in fit["prior_dominated"],
            }
        )
    return rows


def run_summary(home: Path) -> str:
    """What was recovered, in words."""
    fit = load_result(home / "fit" / "fit.json")
    lines = [f"{'parameter':20s} {'value':>12s} {'error':>10s} {'truth':>12s} {'from it':>8s}"]
    for row in recovered(home):
        at = "" if row["truth"] is None else f"{row['truth']:12.6g}"
        away = "" if row["sigmas"] is None else f"{row['sigmas']:+.2f} σ"
        known = "from the calibration" if row["name"] in RESPONSE else "as its prior"
        note = f"  {known}" if row["prior_dominated"] else ""
        lines.append(f"{row['name']:20s} {row['value']:12.6g} {row['error']:10.2g} {at:>12s} {away:>8s}{note}")
    g = fit["goodness"]
    lines.append(f"χ² {g['chi2']:.1f} for {g['n_dof']} degrees of freedom, p = {g['p_value']:.2g}")
    return "\n".join([*lines, *(f"WARNING: {text}" for text in fit["warnings"])])


def status_lines(folder: Path) -> list[str]:
    """How far the stages of a run, and the chunks in them, are."""
    if not folder.is_dir():
        raise NuebarError(f"{folder}: expected the folder of a run, found none; check the path")
    lines = []
    stages = [s for s in STAGES if (folder / s).is_dir()]
    for stage in stages:
        done = (folder / stage / DONE).exists()
        lines.append(f"{stage}: {'done' if done else 'begun'}")
        lines += [f"  {line}" for line in _chunks_below(folder / stage)]
    missing = [s for s in STAGES if s not in stages]
    if stages and missing:
        lines.append(f"to be done: {', '.join(missing)}")
    lines += _chunks_below(folder, besides=tuple(folder / stage for stage in stages))
    return lines or [f"{folder}: nothing here works in stages"]


def _chunks_below(folder: Path, besides: tuple[Path, ...] = ()) -> list[str]:
    """One line for each stage of chunks in a folder and in those below, and how many chunks that are together."""
    homes = sorted({path.parents[1] for path in folder.rglob(MANIFEST)} - {folder.parent})
    lines, counts = [], []
    for home in homes:
        if any(home.is_relative_to(place) for place in besides):
            continue
        within = "" if home == folder else f"{home.relative_to(folder)}: "
        for s in status(home):
            counts.append((s.done, s.chunks, s.missing, s.failed))
            lines.append(f"{within}{_counted(s.name, counts[-1])}")
            lines += [f"  chunk {chunk}: {error}" for chunk, error in s.errors]
    if len(counts) > 1:
        lines.append(_counted("together", [sum(column) for column in zip(*counts, strict=True)]))
    return lines


def _counted(name: str, counts: Sequence[int]) -> str:
    done, chunks, missing, failed = counts
    return f"{name}: {done} of {chunks} chunks done, {missing} missing, {failed} failed"

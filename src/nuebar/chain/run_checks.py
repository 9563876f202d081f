"""What a run file may say: ranges of its numbers, its names and its texts.

Every number has an upper end, so that what is impossible is refused before memory or days are spent on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nuebar.config import STATISTICS
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.records import refuse

if TYPE_CHECKING:
    from nuebar.chain.run_file import RunFile

__all__ = ["METHODS", "ORDERINGS", "RESPONSE", "check_run_file"]

FORMAT = 1
RESPONSE = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
ORDERINGS = ("normal", "inverted")
METHODS = ("minuit", "nuts", "nested")
LONGEST = 4096  # characters of a text: the longest path of common systems
MOST_CHUNKS = 1_000_000  # files of a stream

_RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "simulate.days": (1e-4, 36_500),  # a century
    "simulate.window_s": (60, 86_400),  # events of a window are in memory: a day of JUNO has 2 GB of them
    "simulate.cascades": (1000, 10_000_000),  # 0.1 kB each of seven materials, all in memory
    "simulate.calibration_events": (100, 10_000_000),  # of five sources in memory
    "simulate.calibration_cascades": (1000, 100_000_000),  # 0.1 kB each
    "simulate.monte_carlo_ibd": (1000, 1_000_000_000),  # 0.1 kB each, on disk
    "simulate.monte_carlo_backgrounds": (100, 1_000_000_000),
    "select.delayed_MeV": (0, 100),
    "select.muon_veto_ms": (0, 1e6),
    "select.muon_MeV": (1, 1e6),
    "select.max_dr_m": (1e-3, 1000),
    "select.offset_ms": (0, 1e6),
    "select.windows": (1, 10_000),  # each is a pass over the stream
    "select.explained": (0, 100_000),  # a matrix of twenty numbers each, and seconds for a thousand
    "tune.samples": (100, 1_000_000),  # written as text
    "tune.replicas": (0, 100_000),  # spectra in memory
    "tune.coverage": (0, 100_000),  # a fit each
    "predict.reference_pairs": (0, 1_000_000_000),
    "fit.bins": (4, 2000),  # their covariance is a matrix; the predictors have a few hundred
    "fit.low_MeV": (0, 20),
    "fit.high_MeV": (0, 20),
    "fit.contour_points": (5, 501),  # squared, a fit each
    "fit.energy_scale": (0, 1),
    "full.ibd_pairs": (1000, 10_000_000_000),
    "full.accidental_pairs": (1000, 10_000_000_000),
    "full.select_epochs": (0, 1e6),
    "full.calibration_cascades": (1000, 100_000_000),
    "full.tune_epochs": (0, 1_000_000),
    "full.surrogate_pairs": (1000, 10_000_000_000),
}
_RESPONSE_RANGES: Mapping[str, tuple[float, float]] = {  # of nuebar.simulate.quench.Response
    "kB_g_cm2_GeV": (0.1, 200.0),
    "fC": (0.0, 20.0),
    "light_yield_per_MeV": (1.0, 1e6),
}
_MAY_BE_EMPTY = ("title", "full.plan")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")


def check_run_file(run: RunFile, where: str) -> None:
    """Refuse a run file that no run can follow.

    Args:
        run: The run file.
        where: The file, for messages.

    Raises:
        NuebarError: A number is out of range, a word or name unknown, a text no text, or tables contradict each other.
    """
    if run.format != FORMAT:
        refuse(where, "format", f"{FORMAT}", run.format, "write the file for this version")
    content = run.mapping()
    for key, text in _texts(content, ""):
        _check_text(key, text, where)
    for key, (least, most) in _RANGES.items():
        value: Any = content
        for part in key.split("."):
            value = value[part]
        if not least <= value <= most:
            refuse(where, key, f"a number from {least:,} to {most:,}", value, "correct it")
    if run.simulate.days * 86_400 / run.simulate.window_s > MOST_CHUNKS:
        refuse(
            where, "simulate.window_s", f"at most {MOST_CHUNKS:,} windows", run.simulate.window_s, "take longer ones"
        )
    if not run.fit.low_MeV < run.fit.high_MeV:
        refuse(where, "fit.low_MeV", "a number below fit.high_MeV", [run.fit.low_MeV, run.fit.high_MeV])
    for key, word, known in (
        ("fit.ordering", run.fit.ordering, ORDERINGS),
        ("fit.statistic", run.fit.statistic, STATISTICS),
        ("tune.method", run.tune.method, METHODS),
    ):
        if word not in known:
            refuse(where, key, f"one of {', '.join(known)}", word, "correct it")
    _check_contour(run, where)
    _check_truth(run, where)
    _check_data(run, where)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text with its dotted key; names of tables are texts too."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else name
            yield f"a name in {key or 'the file'}", name
            yield from _texts(item, inner)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)


def _check_text(key: str, text: str, where: str) -> None:
    if not text.strip() and key not in _MAY_BE_EMPTY:
        refuse(where, key, "a text", text, "fill it in or leave the key out")
    if len(text) > LONGEST:
        refuse(where, key, f"at most {LONGEST} characters", text, "shorten it")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):  # NUL, newlines, escapes, halves of pairs
        refuse(where, key, "one line of text without control characters", text, "remove them")


def _check_contour(run: RunFile, where: str) -> None:
    names = run.fit.contour
    if len(names) not in (0, 2) or len(set(names)) < len(names):
        refuse(where, "fit.contour", "two parameters, or none", list(names))
    for name in names:
        if name not in (*OSCILLATION, *RESPONSE):
            refuse(where, "fit.contour", f"two of {', '.join((*OSCILLATION, *RESPONSE))}", name, "correct the name")


def _check_truth(run: RunFile, where: str) -> None:
    truth = run.simulate.truth
    for key, found, known, complete in (
        ("simulate.truth.oscillation", truth.oscillation, OSCILLATION, True),
        ("simulate.truth.response", truth.response, RESPONSE, True),
        ("fit.priors", run.fit.priors, OSCILLATION, False),
    ):
        for name in found:
            if name not in known:
                refuse(where, f"{key}.{name}", f"one of {', '.join(known)}", name, "correct the name")
        if complete and set(found) != set(known):
            refuse(where, key, f"all of {', '.join(known)}", sorted(found), "complete it")
    for key, priors in (("simulate.truth.oscillation", truth.oscillation), ("fit.priors", run.fit.priors)):
        for name, prior in priors.items():
            if not 0 < prior.value < 1:
                refuse(
                    where, f"{key}.{name}.value", "a number between 0 and 1", prior.value, "the ordering has its key"
                )
            if not 0 <= prior.sigma <= 1 or (key == "fit.priors" and prior.sigma == 0):
                refuse(where, f"{key}.{name}.sigma", "a width above 0, at most 1", prior.sigma)
    for name, ends in truth.response.items():
        least, most = _RESPONSE_RANGES[name]
        if not least <= ends.low <= ends.high <= most:
            expected = f"low not above high, from {least:g} to {most:g}"
            refuse(where, f"simulate.truth.response.{name}", expected, asdict(ends))


def _check_data(run: RunFile, where: str) -> None:
    d = run.data
    for table in ("calibration", "monte_carlo"):
        for name in getattr(d, table):
            if not _NAME.fullmatch(name):
                refuse(where, f"data.{table}", "names of letters, digits and _ + -", name, "rename it")
    if d.sample is not None and d.stream is not None:
        raise NuebarError(f"{where}: data.stream and data.sample exclude each other; a sample needs no stream")
    if not run.simulated and not ((d.stream or d.sample) and (d.calibration or d.response)):
        raise NuebarError(
            f"{where}: own data need both: data.stream or data.sample, and data.calibration or data.response; "
            "simulated and own data are not mixed"
        )
    if d.response is not None and d.calibration:
        raise NuebarError(f"{where}: data.response and data.calibration exclude each other; leave one out")

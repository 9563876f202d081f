"""What is selected: pair window and threshold, benchmark cuts and real rates, read from TOML.

The pair window and the threshold say which pairs exist. They are fixed before anything is trained and belong to every
figure that is quoted: efficiencies are shares of the pairs inside them.
"""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from pathlib import Path

from nuebar.errors import NuebarError
from nuebar.records import from_mapping, read_toml, refuse
from nuebar.select.blocks import Isolation, MuonVeto, PairOptions

__all__ = [
    "FIDUCIAL_ON",
    "MULTIPLICITY",
    "CutSettings",
    "DetectorSettings",
    "PairSettings",
    "RateSettings",
    "SelectionConfig",
    "available_selections",
    "check_selection",
    "load_selection",
]

SHIPPED = Path(__file__).parents[1] / "experiments" / "selection"
MULTIPLICITY = ("all", "isolated")
FIDUCIAL_ON = ("prompt", "both")

_DAY_s = 86400.0
_LONGEST_ms = 1000.0  # a float32 time in µs still resolves 0.1 µs


@dataclass(frozen=True)
class PairSettings:
    """What a candidate pair is.

    Attributes:
        window_ms: Longest time from prompt to delayed event.
        threshold_MeV: Least reconstructed energy of both.
        multiplicity: ``"all"`` pairs of the window, or only ``"isolated"`` ones.
        isolation_ms: Time before the prompt and after the delayed event in which isolated pairs have no third event.
        muon_veto_ms: Time after a muon in which events are left out; 0 for no veto.
    """

    window_ms: float
    threshold_MeV: float
    multiplicity: str = "all"
    isolation_ms: float = 0.0
    muon_veto_ms: float = 0.0

    @property
    def window_us(self) -> float:
        """The window in the unit of the feature ``dt_us``."""
        return 1e3 * self.window_ms

    @property
    def window_ns(self) -> int:
        """The window in the unit of the column ``dt_ns``."""
        return round(1e6 * self.window_ms)

    def options(self) -> PairOptions:
        """The same for :class:`~nuebar.select.pairs.PairStream`."""
        return PairOptions(
            window_ms=self.window_ms,
            threshold_MeV=self.threshold_MeV,
            isolation=Isolation(self.isolation_ms, self.isolation_ms) if self.multiplicity == "isolated" else None,
            veto=MuonVeto(self.muon_veto_ms) if self.muon_veto_ms > 0 else None,
        )


@dataclass(frozen=True)
class DetectorSettings:
    """The sphere.

    Attributes:
        radius_m: Of the scintillator.
        fiducial_radius_m: Of the fiducial volume.
    """

    radius_m: float
    fiducial_radius_m: float


@dataclass(frozen=True)
class CutSettings:
    """The benchmark's box cuts; one that is left out is not applied.

    Attributes:
        fiducial_on: Whose radius counts: ``"prompt"`` or ``"both"``.
        prompt_MeV: Window of the prompt energy.
        delayed_MeV: Windows of the delayed energy.
        dt_ms: Longest time.
        dr_m: Longest distance of the two vertices.
    """

    fiducial_on: str = "prompt"
    prompt_MeV: tuple[float, ...] | None = None
    delayed_MeV: tuple[tuple[float, ...], ...] | None = None
    dt_ms: float | None = None
    dr_m: float | None = None


@dataclass(frozen=True)
class RateSettings:
    """Real rates, before any cut.

    Attributes:
        ibd_per_day: Antineutrino pairs.
        singles_Hz: Single events above the threshold in the whole scintillator.
    """

    ibd_per_day: float
    singles_Hz: float


@dataclass(frozen=True)
class SelectionConfig:
    """A selection file.

    Attributes:
        format: 1.
        title: For people.
        pairs: Which pairs exist.
        detector: The sphere.
        cuts: The benchmark.
        rates: How often.
        source: The file, for messages.
    """

    format: int
    title: str
    pairs: PairSettings
    detector: DetectorSettings
    cuts: CutSettings
    rates: RateSettings
    source: str = ""

    @property
    def accidentals_per_day(self) -> float:
        """Pairs of unrelated singles within the window in a live day: R² T, every pair of the window counted.

        The multiplicity rule and the veto are not in it. Neighbours alone would be R [1 − exp(−R T)].
        """
        return self.rates.singles_Hz**2 * self.pairs.window_ms * 1e-3 * _DAY_s


def available_selections() -> tuple[str, ...]:
    """Names of the selections that ship with nuebar."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_selection(word_or_path: str | Path = "published") -> SelectionConfig:
    """Read a selection by name or from a user's TOML file.

    Args:
        word_or_path: A name of :func:`available_selections`, or a path that ends in ``.toml``.

    Returns:
        The checked selection.

    Raises:
        NuebarError: There is no such file, it is not TOML, or a key is unknown, missing, of a wrong type or out of
            range.
    """
    text = str(word_or_path)
    path = Path(text) if text.endswith(".toml") else SHIPPED / f"{text}.toml"
    if not path.is_file():
        known = available_selections()
        close = difflib.get_close_matches(text, known, n=1)
        raise NuebarError(
            f"no selection {text!r}: expected one of {', '.join(known)}, or the path of a TOML file that ends in .toml"
            f"{f'; did you mean {close[0]!r}?' if close else ''}"
        )
    raw = read_toml(path)
    if "source" in raw:
        refuse(str(path), "source", "no such key", raw["source"], "remove it")
    config: SelectionConfig = from_mapping(SelectionConfig, {**raw, "source": str(path)}, str(path))
    check_selection(config)
    return config


def check_selection(config: SelectionConfig) -> None:
    """Refuse numbers that make no selection.

    Raises:
        NuebarError: One sentence with file and key.
    """
    where = config.source or "selection"
    if config.format != 1:
        refuse(where, "format", "1", config.format, "update nuebar")
    _check_pairs(config.pairs, where)
    sphere = config.detector
    if not sphere.radius_m > 0:
        refuse(where, "detector.radius_m", "metres above 0", sphere.radius_m)
    if not 0 < sphere.fiducial_radius_m <= sphere.radius_m:
        refuse(
            where,
            "detector.fiducial_radius_m",
            f"metres above 0, at most {sphere.radius_m:g}",
            sphere.fiducial_radius_m,
        )
    _check_cuts(config, where)
    for name in ("ibd_per_day", "singles_Hz"):
        if not getattr(config.rates, name) > 0:
            refuse(where, f"rates.{name}", "a number above 0", getattr(config.rates, name))


def _check_pairs(pairs: PairSettings, where: str) -> None:
    if not 0 < pairs.window_ms <= _LONGEST_ms:
        refuse(where, "pairs.window_ms", f"milliseconds above 0, at most {_LONGEST_ms:g}", pairs.window_ms)
    if not 0 <= pairs.threshold_MeV < 100:
        refuse(where, "pairs.threshold_MeV", "MeV from 0 to 100", pairs.threshold_MeV)
    if pairs.multiplicity not in MULTIPLICITY:
        refuse(where, "pairs.multiplicity", f"one of {', '.join(MULTIPLICITY)}", pairs.multiplicity)
    if pairs.isolation_ms < 0 or (pairs.multiplicity == "isolated" and pairs.isolation_ms == 0):
        refuse(where, "pairs.isolation_ms", "milliseconds above 0", pairs.isolation_ms)
    if pairs.muon_veto_ms < 0:
        refuse(where, "pairs.muon_veto_ms", "milliseconds, or 0 for no veto", pairs.muon_veto_ms)


def _check_cuts(config: SelectionConfig, where: str) -> None:
    cuts = config.cuts
    if cuts.fiducial_on not in FIDUCIAL_ON:
        refuse(where, "cuts.fiducial_on", f"one of {', '.join(FIDUCIAL_ON)}", cuts.fiducial_on)
    if cuts.prompt_MeV is not None:
        _check_window(cuts.prompt_MeV, where, "cuts.prompt_MeV")
    if cuts.delayed_MeV is not None:
        if not cuts.delayed_MeV:
            refuse(where, "cuts.delayed_MeV", "at least one window [low, high]", cuts.delayed_MeV)
        for i, window in enumerate(cuts.delayed_MeV):
            _check_window(window, where, f"cuts.delayed_MeV[{i}]")
        ordered = sorted(cuts.delayed_MeV)
        if any(low < end for (_, end), (low, _) in itertools.pairwise(ordered)):
            refuse(where, "cuts.delayed_MeV", "windows that do not overlap", cuts.delayed_MeV, "join them")
    if cuts.dt_ms is not None and not 0 < cuts.dt_ms <= config.pairs.window_ms:
        expected = f"milliseconds above 0, at most the window of {config.pairs.window_ms:g}"
        refuse(where, "cuts.dt_ms", expected, cuts.dt_ms, "lengthen pairs.window_ms or leave the cut out")
    if cuts.dr_m is not None and not cuts.dr_m > 0:
        refuse(where, "cuts.dr_m", "metres above 0", cuts.dr_m)


def _check_window(window: tuple[float, ...], where: str, key: str) -> None:
    if len(window) != 2 or not 0 <= window[0] < window[1]:
        refuse(where, key, "a window [low, high] with 0 <= low < high", window)

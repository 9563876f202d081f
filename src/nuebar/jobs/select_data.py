"""Pairs of both classes for the jobs of ``nuebar select``: folders of simulations or a user's files, prepared once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.io.files import output_folder
from nuebar.run.lock import hold
from nuebar.select.config import SelectionConfig
from nuebar.select.features import column
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split, open_matrices, prepare, split_of

__all__ = ["PairFiles", "check_limits", "pair_files", "prepared", "splits_of"]

Progress = Callable[[str, int, int], None]

_LOOKED_AT = 200_000  # accidental pairs whose times are looked at
_LARGEST_MEDIAN_MeV = 20.0  # reactor antineutrinos end at 12 MeV, captures of neutrons at 8 (gadolinium)
_ENOUGH = 1000
_REACHED = 0.95  # of the window; 1000 even times fail it once in 1e22


@dataclass(frozen=True)
class PairFiles:
    """Where pairs are.

    Attributes:
        ibd: Files of antineutrino pairs, or a folder of ``nuebar simulate ibd``.
        accidentals: Files of accidental pairs, or a folder of ``nuebar simulate singles --pairs``.
        pairs: Files that hold both classes, instead.
        label: Their column of 1 for antineutrinos and 0 for accidentals.
        columns: TOML file with a column map.
        prepared: Folder of the prepared features, which is all that is needed once they are there.
    """

    ibd: str | None = None
    accidentals: str | None = None
    pairs: str | None = None
    label: str | None = None
    columns: str | None = None
    prepared: str | None = None


def pair_files(word: str, kind: str) -> tuple[Path, ...]:
    """The files of a class: those of a run folder of a simulation, else those that are named.

    Args:
        word: A file, a folder or a pattern.
        kind: ``ibd`` or ``accidentals``, the name of the folder in that of a run.

    Raises:
        NuebarError: There are none.
    """
    stage = Path(word) / kind
    return find_files(stage if stage.is_dir() else word)


def prepared(
    files: PairFiles, config: SelectionConfig, folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> Matrices:
    """Features of the pairs, read from the files or as they were prepared before.

    Args:
        files: Where they are.
        config: Says which pairs exist.
        folder: For the prepared features, unless ``files`` names one; in a folder that the caller keeps for itself.
        progress: Called as ``progress("pairs", rows read, rows)``.

    Raises:
        NuebarError: Files are missing, wrong, or contradict each other; or what was prepared has another window or
            threshold.
    """
    place = Path(files.prepared if files.prepared is not None else folder)
    if files.ibd is None and files.accidentals is None and files.pairs is None:
        if not (place / "matrices.json").is_file():
            raise NuebarError(
                f"{place}: expected prepared pairs (matrices.json), found none; name files with --ibd and "
                "--accidentals, or with --pairs and --label"
            )
        found = open_matrices(place)
        check_limits(found.about, config, str(place))
        return found
    if (files.pairs is None) != (files.label is None):
        raise NuebarError("expected --pairs FILES together with --label COLUMN, got one of them; give both")
    if files.pairs is not None and (files.ibd is not None or files.accidentals is not None):
        raise NuebarError("expected --ibd and --accidentals, or --pairs and --label, got a mixture; choose one way")
    if files.pairs is None and (files.ibd is None or files.accidentals is None):
        missing, given = ("--ibd", "--accidentals") if files.ibd is None else ("--accidentals", "--ibd")
        raise NuebarError(f"expected files of both classes, got {given} alone; add {missing}")
    sources = pair_files(files.pairs or str(files.ibd), IBD)
    others = None if files.pairs is not None else pair_files(str(files.accidentals), ACCIDENTALS)
    # The caller has its own folder already.
    mine = Path(folder).parent.resolve() == place.resolve()
    with nullcontext() if mine else hold(output_folder(place)), _tidy(place):
        found = prepare(
            place,
            sources,
            others,
            window_ms=config.pairs.window_ms,
            threshold_MeV=config.pairs.threshold_MeV,
            radius_m=config.detector.radius_m,
            label=files.label,
            column_map=files.columns,
            progress=progress,
        )
        try:
            _check_units(found)
            _check_window(found)
        except NuebarError:
            (place / "matrices.json").unlink(missing_ok=True)
            raise
    return found


@contextmanager
def _tidy(place: Path) -> Iterator[None]:
    """Keep what a kill leaves, which the next call continues, but not what wrong files leave."""
    before = set(place.glob("*"))
    try:
        yield
    except NuebarError:
        for pattern in ("*.npy.part", "*.progress.json"):
            for path in place.glob(pattern):
                path.unlink(missing_ok=True)
        for name in (IBD, ACCIDENTALS):
            for path in (place / f"{name}.npy", place / f"{name}.json"):
                if path not in before:
                    path.unlink(missing_ok=True)
        raise


def splits_of(matrices: Matrices, pairs: int | None = None) -> dict[str, Split]:
    """Rows to train on, to validate and to test.

    Args:
        matrices: Prepared pairs.
        pairs: Of each class, to train on at most; the other parts do not depend on it.

    Raises:
        NuebarError: There are not enough, or the number is no number.
    """
    if pairs is not None and pairs < 1:
        raise NuebarError(f"number of pairs to train on: expected a whole number above 0, got {pairs}")
    rows = {IBD: len(matrices.ibd), ACCIDENTALS: len(matrices.accidentals)}
    return {name: split_of(name, n, train=pairs) for name, n in rows.items()}


def check_limits(about: Mapping[str, Any], config: SelectionConfig, where: str) -> None:
    """Refuse pairs or a classifier made for another window or threshold.

    Args:
        about: With ``window_ms`` and ``threshold_MeV``.
        config: What is wanted.
        where: For the message.
    """
    for name in ("window_ms", "threshold_MeV"):
        made, wanted = float(about[name]), float(getattr(config.pairs, name))
        if made != wanted:
            raise NuebarError(
                f"{where}: made for pairs.{name} = {made:g}, but the selection ({config.source or 'given'}) has "
                f"{wanted:g}; take a selection with {made:g}, or make it again"
            )


def _check_units(matrices: Matrices) -> None:
    """Refuse antineutrinos that no reactor makes: a column map may name a wrong unit."""
    looked = matrices.ibd[:_LOOKED_AT]
    for name in ("e_prompt_MeV", "e_delayed_MeV"):
        middle = float(np.median(column(looked, name)))
        if not middle < _LARGEST_MEDIAN_MeV:
            raise NuebarError(
                f"class {IBD}: expected a median {name.split('_')[1]} energy below {_LARGEST_MEDIAN_MeV:g} MeV, got "
                f"{middle:.4g} MeV; correct the unit in the column map"
            )


def _check_window(matrices: Matrices) -> None:
    """Refuse accidental pairs that end before the window: a classifier would take the end for knowledge."""
    times = np.array(column(matrices.accidentals[:_LOOKED_AT], "dt_us"))
    if times.size >= _ENOUGH and times.max() < _REACHED * matrices.window_us:
        raise NuebarError(
            f"class {ACCIDENTALS}: expected times up to the window of {1e-3 * matrices.window_us:g} ms, got at most "
            f"{1e-3 * float(times.max()):.4g} ms; make pairs of that window (nuebar simulate singles --window-ms), or "
            "shorten pairs.window_ms of the selection"
        )

"""The folder of a run: which stages are done, from what, and whether that still holds.

A stage that is about to be done leaves ``begun.json`` with the digests of what it reads, so that what is left of one
that was killed is kept only for the same work. A finished stage leaves ``done.json`` with that and the digests of what
it wrote. It is written last, so a stage that was killed has none and is done again (chunks that it had finished are
kept). Digests leave out clocks, since the same work twice never takes the same time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuebar.chain.run_file import STAGES
from nuebar.errors import NuebarError
from nuebar.io.files import output_folder, read_json
from nuebar.io.results import load_result, save_result
from nuebar.run.chunk import fingerprint, plain, remove_temporaries
from nuebar.run.lock import LOCK
from nuebar.run.manifest import differences, sentence

__all__ = ["DONE", "RunFolder", "content_digest"]

log = logging.getLogger(__name__)
DONE = "done.json"
BEGUN = "begun.json"
ASKED = "asked.json"
ABOUT = ("run.toml", "run.json")
CLOCKS = frozenset({"seconds", "started", "versions"})
_BOOKS = frozenset({DONE, BEGUN, "ledger.jsonl", "stage.json"})
_IN_CHUNKS = ("simulate", "predict")  # stages whose finished parts are kept
_CLEARED = re.compile(r"\.cleared-[0-9a-f]{16}")

_READ_BEFORE: Mapping[str, tuple[str, ...]] = {
    "simulate": (
        "select.fiducial", "select.delayed_MeV", "select.selection", "content.selection",
        "fit.ordering", "fit.priors", "fit.energy_scale",
    ),
    "select": ("fit.bins", "fit.low_MeV", "fit.high_MeV"),
    "predict": ("fit.ordering", "fit.priors", "fit.energy_scale"),
}  # fmt: skip
"""Keys in the tables of later stages that a stage reads too; those of ``simulate`` only if the data are simulated."""
_OWN_DATA = {
    "select": ("stream", "stream_columns", "sample"),
    "tune": ("calibration", "calibration_columns", "response"),
}


def content_digest(path: Path) -> str:
    """64 bits of a file's content; of JSON without clocks and versions."""
    return _digest(_timeless(read_json(path))) if path.suffix == ".json" else fingerprint(path)


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        home: Its folder.
    """

    home: Path

    @classmethod
    def opened(cls, path: str | Path) -> RunFolder:
        """The folder, made if absent.

        Raises:
            NuebarError: It cannot be written, or something in it is a link: what is written or cleared in the folder
                of a run must not be elsewhere.
        """
        home = output_folder(path)
        for name in (*STAGES, ASKED, *ABOUT, LOCK):
            for entry in (home / name, *_below(home / name)):
                if entry.is_symlink():
                    raise NuebarError(
                        f"{entry}: expected a run without links, got one to {os.readlink(entry)!r}; replace it by "
                        "what it leads to, or choose another folder"
                    )
        return cls(home)

    def tidy(self) -> None:
        """Remove what killed processes left; the caller knows that no other is at work."""
        remove_temporaries(self.home)
        for entry in self.home.iterdir():
            if _CLEARED.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                _remove(entry)

    def place(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.home / stage

    # ------------------------------------------------------------ what was asked for

    def agree(self, wanted: Mapping[str, Any], forced: Sequence[str] = ()) -> None:
        """Compare with what the folder was begun with, and clear the forced stages and those after them.

        Args:
            wanted: The content of the run file, and under ``content`` that of files which it names.
            forced: Stages to do again; cleared once, if the same is asked for again after it was cut off.

        Raises:
            NuebarError: Something differs that belongs to a stage before the forced ones, or there is something that
                no run has made.
        """
        first = min((STAGES.index(s) for s in forced), default=len(STAGES))
        wanted = plain(wanted, "run file")  # lists as JSON has them
        asked = self._asked(anything=first == 0)
        if asked is not None:
            changed = {s: differences(_part(asked["run"], s), _part(wanted, s)) for s in STAGES}
            begun = {s for s in STAGES if self.place(s).is_dir() and any(self.place(s).iterdir())}
            refused = {s: c for s, c in changed.items() if c and STAGES.index(s) < first and s in begun}
            if refused:
                told = sentence(list(dict.fromkeys(line for lines in refused.values() for line in lines)))
                raise NuebarError(
                    f"{self.home}: expected the run file that it was begun with, got another one ({told}); restore it, "
                    "choose another folder, or do this stage and those after it again with --force-stage "
                    f"{next(iter(refused))}"
                )
        names = sorted(set(forced), key=STAGES.index)
        if asked is not None and names and asked.get("forced") == names and not any(changed.values()):
            log.info("--force-stage %s: was cut off, and goes on", " ".join(names))
        else:
            for stage in STAGES[first:]:
                self.clear(stage)
        save_result(self.home / ASKED, {"kind": "run", "run": wanted, "forced": names})

    def settle(self) -> None:
        """Say that all is done that was asked for: what was forced is no longer under way."""
        asked = self._asked()
        if asked is not None and asked.get("forced"):
            save_result(self.home / ASKED, {**asked, "forced": []})

    def _asked(self, *, anything: bool = False) -> dict[str, Any] | None:
        """What the folder was begun with; None if it is new, or damaged while ``anything`` will do."""
        path = self.home / ASKED
        if not path.exists():
            for name in (*STAGES, *ABOUT):
                place = self.home / name
                if place.is_dir() and not any(place.iterdir()):
                    continue
                if place.exists():
                    raise NuebarError(
                        f"{place}: expected a folder that is new or of a run, got this and no {ASKED} beside it, so "
                        "nobody knows what it is; choose another folder"
                    )
            return None
        try:
            asked = load_result(path)
            if not isinstance(asked.get("run"), dict):
                raise NuebarError(f"{path}: expected a run file in it, got none")
        except NuebarError as error:
            if anything:
                return None
            raise NuebarError(
                f"{error}; as nobody knows what the stages were asked for, do all of them again with "
                f"--force-stage {STAGES[0]}, or choose another folder"
            ) from error
        return asked

    def clear(self, stage: str) -> None:
        """Remove a stage: in one step, so that none is left in parts."""
        place = self.place(stage)
        if not place.exists():
            return
        gone = self.home / f".cleared-{secrets.token_hex(8)}"
        try:
            place.rename(gone)
        except OSError as error:
            raise NuebarError(f"{place}: cannot be cleared ({error.strerror}); choose another folder") from error
        _remove(gone)

    # ------------------------------------------------------------ what is done

    def record(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has left; None if there is nothing, or nothing that is whole."""
        path = self.place(stage) / DONE
        if not path.exists():
            return None
        try:
            record = load_result(path)
        except NuebarError:
            return None
        return record if record.pop("digest", None) == _digest(_timeless(record)) else None

    def holds(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Whether a stage is done, from the same input, and its files are whole.

        Args:
            stage: Its name.
            inputs: Name → digest of what it would read now.

        Raises:
            NuebarError: There is a file that the stage has not written, and which later ones might take for its own.
        """
        place, record = self.place(stage), self.record(stage)
        if record is None:
            if (place / DONE).exists():
                log.warning("%s: damaged; the stage is done again", place / DONE)
            return False
        changed = differences(record["inputs"], dict(inputs))
        if changed:
            log.warning("%s: what it was made from has changed since (%s); it is done again", stage, sentence(changed))
            return False
        there = {str(path.relative_to(place)): path for path in _files(place)}
        strange = sorted(set(there) - set(record["outputs"]))
        if strange:
            raise NuebarError(
                f"{there[strange[0]]}: expected only what the stage has written, got another file; move it elsewhere"
            )
        for name, digest in record["outputs"].items():
            try:
                same = name in there and content_digest(there[name]) == digest
            except (OSError, NuebarError):
                same = False
            if not same:
                log.warning("%s: missing or not what it was; the stage is done again", place / name)
                return False
        return True

    def begin(self, stage: str, inputs: Mapping[str, str]) -> Path:
        """The folder of a stage that is about to be done, with nothing in it but finished parts of the same work.

        Args:
            stage: Its name.
            inputs: Name → digest of what it will read.
        """
        place = self.place(stage)
        (place / DONE).unlink(missing_ok=True)
        if stage not in _IN_CHUNKS or self._begun(stage) != dict(inputs):
            self.clear(stage)
        output_folder(place)
        save_result(place / BEGUN, {"stage": stage, "inputs": dict(inputs)})
        for folder in (place, *(p for p in _below(place) if p.is_dir())):
            remove_temporaries(folder)
        return place

    def _begun(self, stage: str) -> Any:
        try:
            return load_result(self.place(stage) / BEGUN).get("inputs")
        except NuebarError:
            return None

    def finish(self, stage: str, inputs: Mapping[str, str], about: Mapping[str, Any]) -> None:
        """Say that a stage is done: digests of all its files, and what else is told."""
        place = self.place(stage)
        outputs = {str(path.relative_to(place)): content_digest(path) for path in _files(place)}
        record = {"format": 1, "stage": stage, "inputs": dict(inputs), "outputs": outputs, **about}
        record = plain(record, str(place / DONE))
        save_result(place / DONE, {**record, "digest": _digest(_timeless(record))})

    def digest(self, stage: str) -> str:
        """One digest of everything that a finished stage wrote."""
        record = self.record(stage)
        return _digest(record["outputs"] if record else {})


def _digest(record: Any) -> str:
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCKS}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _part(run: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """What of a run file belongs to a stage; what belongs to none in particular belongs to the first."""
    data, content = dict(run.get("data", {})), dict(run.get("content", {}))
    part: dict[str, Any] = {stage: run.get(stage, {})}
    given = {key: bool(data.get(key)) for keys in _OWN_DATA.values() for key in keys}  # what need not be simulated
    if stage in _OWN_DATA:
        part["data"] = {key: data.get(key) for key in _OWN_DATA[stage]}
    if stage == "select":
        part["content"] = {"selection": content.pop("selection", None)}
    elif stage == STAGES[0]:
        part |= {k: v for k, v in run.items() if k not in (*STAGES, "data", "content", "title", "full")}
        part["data"] = {k: v for k, v in data.items() if k not in given}
        part["given"] = given
        part["content"] = {k: v for k, v in content.items() if k != "selection"}
    if stage != STAGES[0] or not any(given.values()):
        for key in _READ_BEFORE.get(stage, ()):
            table, _, name = key.partition(".")
            part[table] = {**part.get(table, {}), name: run.get(table, {}).get(name)}
    return part


def _below(place: Path) -> Iterator[Path]:
    """Everything in a folder and the folders in it, links not followed; nothing of what is no folder."""
    for folder, folders, files in os.walk(place):
        yield from (Path(folder) / name for name in (*folders, *files))


def _files(place: Path) -> Iterable[Path]:
    """What a stage wrote, in a fixed order; its books, and what is hidden, are not among it."""
    for path in sorted(_below(place)):
        hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
        if not hidden and path.name not in _BOOKS and path.is_file():
            yield path


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        reason = error.strerror or error
        raise NuebarError(f"{folder}: cannot be removed ({reason}); remove it, and the same command goes on") from error

"""The folder of a run: which stages are done, from what, and whether that still holds.

A finished stage leaves ``done.json`` with what it was asked for, the digests of what it read and of what it wrote. It
is written last, so a stage that was killed has none and is done again (chunks that it had finished are kept).
Digests leave out clocks, since the same work twice never takes the same time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuebar.chain.run_file import STAGES
from nuebar.errors import NuebarError
from nuebar.io.files import output_folder, read_json
from nuebar.io.results import load_result, save_result
from nuebar.run.chunk import fingerprint, plain, remove_temporaries
from nuebar.run.manifest import differences, sentence

__all__ = ["DONE", "RunFolder", "content_digest"]

log = logging.getLogger(__name__)
DONE = "done.json"
ASKED = "asked.json"
CLOCKS = frozenset({"seconds", "started", "versions"})
_OWN = frozenset({DONE, ".lock"})


def content_digest(path: Path) -> str:
    """64 bits of a file's content; of JSON without clocks and versions."""
    if path.suffix != ".json":
        return fingerprint(path)
    plain = json.dumps(_timeless(read_json(path)), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCKS}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        home: Its folder.
    """

    home: Path

    @classmethod
    def opened(cls, path: str | Path) -> RunFolder:
        """The folder, made if absent and without what killed writers left."""
        home = output_folder(path)
        remove_temporaries(home)
        return cls(home)

    def place(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.home / stage

    # ------------------------------------------------------------ what was asked for

    def agree(self, wanted: Mapping[str, Any], forced: Sequence[str] = ()) -> None:
        """Compare with what the folder was begun with, and clear the forced stages and those after them.

        Args:
            wanted: The content of the run file.
            forced: Stages to do again.

        Raises:
            NuebarError: Something differs that belongs to a stage before the forced ones.
        """
        first = min((STAGES.index(s) for s in forced), default=len(STAGES))
        wanted = plain(wanted, "run file")  # lists as JSON has them
        path = self.home / ASKED
        if path.exists():
            before = load_result(path)["run"]
            changed = {s: differences(_part(before, s), _part(wanted, s)) for s in STAGES}
            refused = {s: c for s, c in changed.items() if c and STAGES.index(s) < first}
            if refused:
                stage = next(iter(refused))
                told = sentence([line for lines in refused.values() for line in lines])
                raise NuebarError(
                    f"{self.home}: expected the run file that it was begun with, got another one ({told}); restore it, "
                    f"choose another folder, or do this stage and those after it again with --force-stage {stage}"
                )
        elif any((self.place(s) / DONE).exists() for s in STAGES):
            raise NuebarError(
                f"{path}: is gone, so nobody knows what the stages there were asked for; use a new folder"
            )
        for stage in STAGES[first:]:
            self.clear(stage)
        save_result(path, {"kind": "run", "run": wanted})

    def clear(self, stage: str) -> None:
        """Remove a stage, first of all its word that it is done."""
        place = self.place(stage)
        try:
            (place / DONE).unlink(missing_ok=True)
            if place.exists():
                shutil.rmtree(place)
        except OSError as error:
            raise NuebarError(f"{place}: cannot be cleared ({error.strerror}); choose another folder") from error

    # ------------------------------------------------------------ what is done

    def record(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has left, or None.

        Raises:
            NuebarError: The file is damaged.
        """
        path = self.place(stage) / DONE
        if not path.exists():
            return None
        record = load_result(path)
        if not all(isinstance(record.get(k), dict) for k in ("inputs", "outputs")):
            raise NuebarError(f"{path}: expected inputs and outputs of the stage; the file is damaged, remove it")
        return record

    def holds(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Whether a stage is done, from the same input, and its files are whole.

        Args:
            stage: Its name.
            inputs: Name → digest of what it would read now.
        """
        record = self.record(stage)
        if record is None:
            return False
        changed = differences(record["inputs"], dict(inputs))
        if changed:
            log.warning("%s: what it was made from has changed since (%s); it is done again", stage, sentence(changed))
            return False
        for name, digest in record["outputs"].items():
            path = self.place(stage) / name
            try:
                same = content_digest(path) == digest
            except (OSError, NuebarError):
                same = False
            if not same:
                log.warning("%s: missing or not what it was; the stage is done again", path)
                return False
        return True

    def begin(self, stage: str) -> Path:
        """The folder of a stage that is about to be done."""
        place = output_folder(self.place(stage))
        (place / DONE).unlink(missing_ok=True)
        for folder in (place, *(p for p in place.iterdir() if p.is_dir())):
            remove_temporaries(folder)
        return place

    def finish(self, stage: str, inputs: Mapping[str, str], about: Mapping[str, Any]) -> None:
        """Say that a stage is done: digests of all its files, and what else is told."""
        place = self.place(stage)
        outputs = {str(path.relative_to(place)): content_digest(path) for path in _files(place)}
        save_result(place / DONE, {"stage": stage, "inputs": dict(inputs), "outputs": outputs, **about})

    def digest(self, stage: str) -> str:
        """One digest of everything that a finished stage wrote."""
        record = self.record(stage)
        text = json.dumps(record["outputs"] if record else {}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _part(run: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """What of a run file belongs to a stage; what belongs to none in particular belongs to the first."""
    own = {stage: run.get(stage, {})}
    data = dict(run.get("data", {}))
    belongs = {
        "select": ("stream", "stream_columns", "sample"),
        "tune": ("calibration", "calibration_columns", "response"),
    }
    if stage in belongs:
        return own | {"data": {k: data.get(k) for k in belongs[stage]}}
    if stage != STAGES[0]:
        return own
    mine = {k: v for k, v in data.items() if not any(k in keys for keys in belongs.values())}
    given = {k: bool(data.get(k)) for keys in belongs.values() for k in keys}  # what need not be simulated
    return (
        {k: v for k, v in run.items() if k not in (*STAGES, "data", "title", "full")}
        | {"data": mine, "given": given}
        | own
    )


def _files(place: Path) -> Iterable[Path]:
    """What a stage wrote, in a fixed order; the books of its chunks are not among it."""
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name not in (*_OWN, "ledger.jsonl", "stage.json"):
            yield path

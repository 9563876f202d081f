"""Frozen dataclasses from tables of a TOML file and back: unknown keys, missing keys and wrong types refused.

Nothing here knows what the records mean; ranges and consistency are checked by whoever owns them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from datetime import date, time
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError

__all__ = ["from_mapping", "read_toml", "refuse", "replaced", "to_mapping", "to_toml"]

NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
LONGEST = 120  # characters of a wrong value that a message repeats


def refuse(where: str, key: str, expected: str, got: Any, advice: str = "") -> typing.NoReturn:
    """Raise the one sentence for a wrong key: file, key, expected, got, what to do.

    Args:
        where: The file, or what the record is called.
        key: The key with its tables, joined by dots.
        expected: In words.
        got: The value found.
        advice: What to do about it.
    """
    shown = repr(got)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    raise NuebarError(f"{where}: key {key!r}: expected {expected}, got {shown}{'; ' if advice else ''}{advice}")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: A UTF-8 file, with or without a byte-order mark.

    Raises:
        NuebarError: The file cannot be read, is not UTF-8 or not TOML (line and column are named).
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise NuebarError(f"{path}: cannot be read ({error.strerror}); check the path and its rights") from error
    except UnicodeDecodeError as error:
        raise NuebarError(
            f"{path}, byte {error.start}: expected UTF-8 text, got 0x{error.object[error.start]:02x}; "
            "save the file as UTF-8"
        ) from error
    except RecursionError as error:
        raise NuebarError(f"{path}: expected TOML, got brackets within brackets without end") from error
    except ValueError as error:  # tomllib's own, or a number of thousands of digits
        raise NuebarError(f"{path}: not a valid TOML file: {' '.join(str(error).split())}") from error


# ---------------------------------------------------------------- reading


def from_mapping(cls: type, raw: Any, where: str, prefix: str = "") -> Any:
    """Turn a mapping into a frozen dataclass, field by field, by the types that it declares.

    Fields may be numbers, texts, booleans, tuples, dictionaries with text keys, other dataclasses, and unions
    of a text or ``None`` with one of them. A dataclass with ``SHORTHAND = "field"`` may be given as the bare
    number of that field.

    Args:
        cls: The dataclass.
        raw: What the file holds.
        where: The file, for messages.
        prefix: The dotted key of this table with a dot at the end; empty at the top.

    Returns:
        The record.

    Raises:
        NuebarError: An unknown or missing key, or a value of another type; numbers must be finite.
    """
    if not isinstance(raw, Mapping):
        refuse(where, prefix.rstrip("."), "a table", raw)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in raw:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(fields)}"
            raise NuebarError(f"{where}: unknown key {f'{prefix}{key}'!r}; {hint}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, spec in fields.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], where, prefix + name)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise NuebarError(f"{where}: missing key {prefix + name!r}; add it")
    return cls(**values)


def _convert(kind: Any, raw: Any, where: str, key: str) -> Any:
    """Check one value against the type of its field."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, raw, where, key)
    if dataclasses.is_dataclass(kind):
        shorthand = getattr(kind, "SHORTHAND", "")
        if shorthand and _is_number(raw):
            return _convert(kind, {shorthand: raw}, where, key)
        if shorthand and not isinstance(raw, Mapping):
            refuse(where, key, "a number or a table", raw)
        return from_mapping(typing.cast(type, kind), raw, where, key + ".")
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            refuse(where, key, "a list", raw)
        return tuple(_convert(args[0], item, where, f"{key}[{i}]") for i, item in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, Mapping):
            refuse(where, key, "a table", raw)
        return {name: _convert(args[1], item, where, f"{key}.{name}") for name, item in raw.items()}
    return _scalar(kind, raw, where, key)


def _convert_union(kinds: tuple[Any, ...], raw: Any, where: str, key: str) -> Any:
    if raw is None and type(None) in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not type(None))
    table = next((k for k in kinds if typing.get_origin(k) is dict), None)
    plain = next((k for k in kinds if k is not table), None)
    if table is None or plain is None:
        return _convert(table or plain, raw, where, key)
    if not isinstance(raw, Mapping | str | Real):
        refuse(where, key, f"{NAMES.get(plain, 'a value')} or a table", raw)
    return _convert(table if isinstance(raw, Mapping) else plain, raw, where, key)


def _scalar(kind: type, raw: Any, where: str, key: str) -> Any:
    if kind is float and _is_number(raw):
        try:
            value = float(raw)
        except OverflowError:  # a whole number of hundreds of digits
            value = math.inf
        if not math.isfinite(value):
            refuse(where, key, "a finite number", raw)
        return value
    if kind is int and _is_number(raw) and isinstance(raw, Integral):
        return int(raw)
    if kind in (bool, str) and isinstance(raw, kind):
        return raw
    refuse(where, key, NAMES[kind], raw)


def _is_number(raw: Any) -> bool:
    return isinstance(raw, Real) and not isinstance(raw, bool)


# ---------------------------------------------------------------- changing


def to_mapping(record: Any) -> dict[str, Any]:
    """The nested mapping of a record; :func:`from_mapping` gives the record back."""
    return dataclasses.asdict(record)


def replaced(record: Any, dotted: str, value: Any, where: str) -> Any:
    """A copy of a nested mapping in which one key is replaced.

    Args:
        record: From :func:`to_mapping`.
        dotted: The key with its tables: ``"reactor.shape"``. An entry of a list of tables is addressed by its
            name or number: ``"reactor.cores.TS1.power_GW"``, ``"reactor.cores[0].power_GW"``.
        value: What to put there. A bare number given for a table with a ``value`` changes that ``value`` only.
        where: For messages.

    Raises:
        NuebarError: A table or entry on the way does not exist.
    """
    keys = [k for part in dotted.split(".") for k in re.sub(r"\[(\d+)\]", r".\1", part).split(".")]
    if not all(keys):
        raise NuebarError(f"{where}: expected a key like 'table.key', got {dotted!r}; name every part")
    return _replaced(record, keys, value, where, dotted)


def _replaced(record: Any, keys: list[str], value: Any, where: str, dotted: str) -> Any:
    if not keys:
        table = isinstance(record, Mapping) and "value" in record
        return {**record, "value": value} if table and _is_number(value) else value
    head, *rest = keys
    if record is None or isinstance(record, Mapping):
        old = record or {}
        return {**old, head: _replaced(old.get(head), rest, value, where, dotted)}
    if isinstance(record, list | tuple):
        index = _entry(record, head, where, dotted)
        new = _replaced(record[index], rest, value, where, dotted)
        return (*record[:index], new, *record[index + 1 :])
    raise NuebarError(f"{where}: unknown key {dotted!r}: there is no table above {head!r}; shorten the key")


def _entry(entries: list[Any] | tuple[Any, ...], head: str, where: str, dotted: str) -> int:
    names = [e.get("name") if isinstance(e, Mapping) else None for e in entries]
    if head in names:
        return names.index(head)
    if head.isdecimal() and int(head) < len(entries):
        return int(head)
    known = ", ".join(str(n) for n in names if n is not None) or f"[0] to [{len(entries) - 1}]"
    raise NuebarError(f"{where}: unknown key {dotted!r}: no entry {head!r} in the list; known: {known}")


# ---------------------------------------------------------------- writing


def to_toml(record: Mapping[str, Any]) -> str:
    """A nested mapping as TOML: plain values first, then tables, then lists of tables; ``None`` is left out.

    Floats read back bit for bit.
    """
    return "\n".join(_toml_lines(record, "")) + "\n"


def _toml_lines(record: Mapping[str, Any], prefix: str) -> list[str]:
    plain, tables, lists = [], [], []
    for key, value in record.items():
        name = prefix + _toml_key(key)
        if isinstance(value, Mapping):
            tables += ["", f"[{name}]", *_toml_lines(value, name + ".")]
        elif isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
            for row in value:
                lists += ["", f"[[{name}]]", *_toml_lines(row, name + ".")]
        elif value is not None:
            plain.append(f"{_toml_key(key)} = {_toml_value(value)}")
    return plain + tables + lists


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_text(key)


def _toml_text(text: str) -> str:
    # JSON's escapes are TOML's, but TOML wants DEL escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, date | time):
        return value.isoformat()
    return repr(value)

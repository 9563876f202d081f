"""Values of a file brought to a column's type and unit, and checked in one pass.

What is wrong is an :class:`Offence` with its row; who knows file and column makes the sentence of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from nuebar.io.columns import LARGEST_FLOAT, LARGEST_INT, UNITS, Column
from nuebar.io.tables import Ragged, Values

__all__ = ["Offence", "check", "check_typical", "convert", "float_type", "pick"]

_STATED = 5.0  # a stated unit is believed so much further

# Time stamps are compared with a neutron's capture time of 0.2 ms; a file that resolves less than this is refused.
_COARSEST_NS = 1000
# Rows from which the unit may be guessed, and the number of rows looked at.
_FEWEST, _SAMPLE = 20, 4096


class Offence(Exception):  # noqa: N818 - it becomes an error where file and column are known
    """What is wrong with a value, and where.

    Attributes:
        row: Row in the batch, or None for the batch as a whole.
        message: Expected, got, and what to do.
    """

    def __init__(self, row: int | None, message: str) -> None:
        super().__init__(message)
        self.row, self.message = row, message


def pick(values: Values, index: int | None) -> np.ndarray:
    """One number a row, shape (rows,), of columns that hold several.

    Raises:
        Offence: A row holds too few, or an index is wanted and not given.
    """
    if isinstance(values, Ragged):
        starts, lengths = values.offsets[:-1], np.diff(values.offsets)
        if index is None:
            index = 0
            _first(
                lengths != 1, lambda row: f"expected one number, got {lengths[row]}; give an index in the column map"
            )
        _first(lengths <= index, lambda row: f"expected a number at index {index}, got {lengths[row]} numbers")
        return values.values[starts + index]
    return values if values.ndim == 1 else values[:, index or 0]


def convert(column: Column, values: np.ndarray, unit: str | None) -> np.ndarray:
    """Values of a file in the type and unit of a column; nothing is copied that need not be.

    Args:
        column: The column.
        values: Numbers, shape (rows,).
        unit: Their unit if it is stated; None means the column's own.

    Raises:
        Offence: A whole number is wanted and another found, or it does not fit.
    """
    scale = UNITS[unit][1] / UNITS[column.unit][1] if unit else Fraction(1)
    if column.kind == "int":
        if values.dtype.kind == "f":
            return _rounded(column, values, scale, stated=unit is not None)
        return _scaled_int(values, scale)
    return _scaled(values.astype(float_type(values.dtype), copy=False), scale)


def float_type(dtype: np.dtype) -> np.dtype:
    """The type that keeps a number of a file: float32 or float64."""
    return np.dtype(np.float32 if dtype in (np.float16, np.float32) else np.float64)


def _scaled(values: np.ndarray, scale: Fraction) -> np.ndarray:
    # Powers of ten are divided by rather than multiplied by their rounded inverse: one rounding instead of two.
    if scale.numerator != 1:
        values = values * float(scale.numerator)
    return values / float(scale.denominator) if scale.denominator != 1 else values


def _scaled_int(values: np.ndarray, scale: Fraction) -> np.ndarray:
    limit = LARGEST_INT // scale.numerator
    if values.dtype == np.uint64 or scale.numerator != 1:
        _first(values > limit, lambda row: f"expected at most {limit}, got {values[row]}; count from a later start")
    values = values.astype(np.int64, copy=False)
    if scale.numerator != 1:
        _first(values < -limit, lambda row: f"expected at least {-limit}, got {values[row]}; check the column")
        values = values * scale.numerator
    return (values + scale.denominator // 2) // scale.denominator if scale.denominator != 1 else values


def _rounded(column: Column, values: np.ndarray, scale: Fraction, *, stated: bool) -> np.ndarray:
    """Floating numbers as int64, to the nearest where a stated unit says that they are no counts."""
    _first(~np.isfinite(values), lambda row: _not_finite(values[row]))
    if not stated:
        advice = "state its unit in a column map" if column.unit else "check it"
        _first(values != np.rint(values), lambda row: f"expected whole numbers, got {values[row]:.9g}; {advice}")
    if column.unit == "ns" and values.size:
        largest = np.abs(values).max()
        step = float(np.spacing(largest)) * float(scale)
        message = (
            f"expected times to at least {_COARSEST_NS} ns, got numbers ({values.dtype}) in steps of {step:.3g} ns"
        )
        if step > _COARSEST_NS:
            raise Offence(int(np.abs(values).argmax()), f"{message}; store whole ns, or count from a later start")
    scaled = _scaled(values.astype(np.float64), scale)
    # 2^63 itself, the first float that does not fit.
    _first(np.abs(scaled) >= 2.0**63, lambda row: f"expected at most {LARGEST_INT}, got {scaled[row]:.6g}")
    return np.rint(scaled).astype(np.int64)


def check(column: Column, values: np.ndarray, *, before: Any = None, unit: str | None = None) -> None:
    """See that values are finite, in range and in order.

    Args:
        column: The column.
        values: From :func:`convert`, shape (rows,).
        before: Last value of a rising column before these, or None.
        unit: Their unit in the file if it is stated, for the message.

    Raises:
        Offence: At the first row that is wrong.
    """
    if not values.size:
        return
    if column.rising:
        advice = f"sort the rows by {column.name}"
        if before is not None and values[0] < before:
            raise Offence(0, f"expected at least {before}, the value of the row before, got {values[0]}; {advice}")
        falls = values[1:] < values[:-1]
        if falls.any():
            row = int(falls.argmax()) + 1
            raise Offence(
                row, f"expected at least {values[row - 1]}, as in the row before, got {values[row]}; {advice}"
            )
    # One NaN makes both of these NaN, and every comparison with it false; infinity is beyond any bound.
    low, high = (values[0], values[-1]) if column.rising and column.kind == "int" else (values.min(), values.max())
    if low >= column.low and high <= column.high:
        return
    bad = ~((values >= column.low) & (values <= column.high))
    row = int(bad.argmax())
    if not np.isfinite(values[row]):
        raise Offence(row, _not_finite(values[row]))
    advice = "check the unit that the column map states" if unit else "drop the row or check the column"
    # A few rows beyond the range are wrong rows; many are a wrong unit.
    if not unit and bad.mean() >= 0.1 and (hint := _other_units(column, values)):
        advice = hint
    raise Offence(row, f"expected {_range(column)}, got {values[row]:.6g}; {advice}")


def check_typical(column: Column, values: np.ndarray, *, stated: str | None = None) -> None:
    """See that the unit of a file can be the column's own, or the one that was stated.

    Args:
        column: The column.
        values: From :func:`convert`, shape (rows,); fewer than 20 tell nothing.
        stated: The unit that a file or a column map states; the limits are then five times as wide.

    Raises:
        Offence: The median, or the mean step of a rising column, is not what events have.
    """
    if column.typical is None or values.size < _FEWEST:
        return
    middle, (low, high) = _middle(column, values), column.typical
    if stated is not None:
        low, high = low / _STATED, high if high == LARGEST_FLOAT else high * _STATED
    if not low <= middle <= high:
        what = "mean step" if column.rising else "median"
        expected = f"a {what} of {low:.6g} or more" if high == LARGEST_FLOAT else f"a {what} of {low:.6g} to {high:.6g}"
        if stated is not None:
            advice = f"{stated!r} was stated as its unit; correct the unit"
        else:
            other = _other_units(column, values)
            advice = other or f'state unit = "{column.unit}" for it in a column map if it is right'
        raise Offence(None, f"expected {expected} {column.unit}, got {middle:.4g}; {advice}")


def _middle(column: Column, values: np.ndarray) -> float:
    if column.rising:
        return float(values[-1] - values[0]) / (values.size - 1)
    return float(np.median(values[:: max(1, values.size // _SAMPLE)]))


def _other_units(column: Column, values: np.ndarray) -> str:
    """Advice that names the nearest units in which the values would be what the column expects, or nothing."""
    if not column.unit or values.size < _FEWEST:
        return ""
    dimension, own = UNITS[column.unit]
    others = {u: float(size / own) for u, (d, size) in UNITS.items() if d == dimension and u != column.unit}
    low, high = column.typical or (-LARGEST_FLOAT, LARGEST_FLOAT)
    extremes, middle = (float(values.min()), float(values.max())), _middle(column, values)
    fitting = [
        unit
        for unit, scale in sorted(others.items(), key=lambda item: abs(math.log(item[1])))
        if column.low <= scale * extremes[0] and scale * extremes[1] <= column.high and low <= scale * middle <= high
    ]
    if not fitting:
        return ""
    names = " or ".join(fitting[:2])
    return f'they would fit as {names}: state unit = "{fitting[0]}" for it in a column map'


def _range(column: Column) -> str:
    unit = f" {column.unit}" if column.unit else ""
    if column.high in (LARGEST_FLOAT, LARGEST_INT):
        return f"{column.low:.6g}{unit} or more"
    return f"{column.low:.6g} to {column.high:.6g}{unit}"


def _not_finite(value: Any) -> str:
    return f"expected a finite number, got {value}; drop such rows or fill them in"


def _first(bad: np.ndarray, message: Callable[[int], str]) -> None:
    """Raise an offence at the first row where ``bad`` is True."""
    if bad.any():
        row = int(bad.argmax())
        raise Offence(row, message(row))

"""Fit results as text: a table for the terminal, and rows for Markdown and LaTeX. Nothing is printed here.

Values are scaled to a sensible power of ten and rounded to two digits of their error; a number that does not
exist (the error of a fit without a covariance) is shown as "–", never as NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.parameters import OSCILLATION

__all__ = [
    "Scale",
    "correlation_of",
    "correlation_table",
    "fit_table",
    "minuit_table",
    "nuisance_names",
    "parameter_rows",
    "scale_of",
    "to_latex",
    "to_markdown",
    "with_error",
]

MISSING = "–"
"""Stands for a number that does not exist."""

BLINDED = "BLINDED: hidden offsets are inside the values; derived values are left out"
"""First and last line of the table of a blinded fit."""

WIDTH = 110
"""Columns of a terminal that a table tries to stay within."""

_NUISANCES_SIDE_BY_SIDE = 8
_DIGITS_AT_MOST = 9

_UNITS = (
    ("_g_cm2_GeV", "g/cm²/GeV"),
    ("_g_cm3", "g/cm³"),
    ("_per_MeV", "1/MeV"),
    ("_eV2", "eV²"),
    ("_MeV", "MeV"),
    ("_km", "km"),
)
_POWERS = {"dm2_21_eV2": -5, "dm2_31_eV2": -3, "dm2_32_eV2": -3, "dm2_ee_eV2": -3}


@dataclass(frozen=True)
class Scale:
    """How a parameter is written: shown number = value / 10^power, in ``unit``.

    Attributes:
        power: Power of ten that is taken out of the number.
        unit: Physical unit in Unicode, empty for a pure number.
    """

    power: int
    unit: str

    @property
    def factor(self) -> float:
        """10^power, the number to divide by, as the closest float."""
        return float(f"1e{self.power}")

    @property
    def text(self) -> str:
        """The unit with its power for a terminal, such as ``1e-5 eV²``."""
        power = f"1e{self.power}" if self.power else ""
        return f"{power} {self.unit}".strip()


def scale_of(name: str) -> Scale:
    """Power of ten and unit of a parameter, from its name: Δm²21 in 1e-5 eV², the others in 1e-3 eV².

    Args:
        name: A parameter's name with its unit, such as ``dm2_21_eV2``.
    """
    unit = next((text for suffix, text in _UNITS if name.endswith(suffix)), "")
    return Scale(_POWERS.get(name, 0), unit)


def nuisance_names(result: FitResult) -> tuple[str, ...]:
    """Parameters that are not of interest: not an oscillation parameter, and fixed or with a prior."""
    return tuple(
        name for name, p in result.parameters.items() if name not in OSCILLATION and (p.fixed or p.prior is not None)
    )


# ---------------------------------------------------------------- the table of a fit


def fit_table(
    result: FitResult,
    published: Mapping[str, tuple[float, float]] | None = None,
    *,
    limits: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> str:
    """The table of a fit for a terminal, in the form that iminuit made familiar.

    First the fit (FCN is the minimum of the cost with its pull terms; χ²/ndof and p-value take it as χ² with
    bins minus free parameters without a prior), then the parameters of interest, then the nuisance parameters
    as pulls, (value - centre)/width, with error/width. Minos columns are there where Minos was run.

    Args:
        result: The fit.
        published: Name → (value, error) of a measurement to compare with; the difference is in units of the
            published error, as two fits of the same data share their fluctuations.
        limits: Name → (low, high) of the fit, ``None`` for an open side; gives two columns.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        NuebarError: A value is not finite, or ``published`` or ``limits`` name a parameter that is not there.
    """
    rows, header = parameter_rows(result, published, limits=limits)
    blocks = [_summary(result), _box([header, *rows], rules=[0])]
    nuisances = _nuisance_block(result)
    if nuisances:
        blocks.append(nuisances)
    if result.blinded:
        blocks = [BLINDED, *blocks, BLINDED]
    return "\n".join(blocks)


def parameter_rows(
    result: FitResult,
    published: Mapping[str, tuple[float, float]] | None = None,
    *,
    limits: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> tuple[list[list[str]], list[str]]:
    """Rows and header of the parameters of interest and of derived values: for the terminal and for papers.

    Derived values of a blinded fit are left out: they would undo the blinding.

    Args:
        result: The fit.
        published: As for :func:`fit_table`.
        limits: As for :func:`fit_table`.

    Returns:
        The rows and the header, all text, without columns that would be empty;
        ``to_latex(*parameter_rows(result))`` is a table for a paper.

    Raises:
        NuebarError: As for :func:`fit_table`.
    """
    derived = {} if result.blinded else dict(result.derived)
    _known("published", published or {}, (*result.parameters, *result.derived))
    _known("limits", limits or {}, tuple(result.parameters))
    nuisances = nuisance_names(result)
    shown = {name: p for name, p in result.parameters.items() if name not in nuisances}
    shown |= {n: ParameterResult(v, e, -e, e, False) for n, (v, e) in derived.items()}
    header = ["Name", "Value", "Hesse", "Minos-", "Minos+", "Unit"]
    header += ["Limit-", "Limit+"] if limits is not None else []
    header += ["Prior", "Pull"]
    header += ["Published", "Diff/σ(pub)"] if published is not None else []
    rows = []
    for name, p in shown.items():
        row = _value_cells(name, p)
        if limits is not None:
            row += _limit_cells(name, limits.get(name, (None, None)))
        row += _prior_cells(name, p)
        if published is not None:
            row += _published_cells(name, p.value, published.get(name))
        rows.append(row)
    used = [j for j in range(len(header)) if j < 3 or any(row[j] for row in rows)]
    return [[row[j] for j in used] for row in rows], [header[j] for j in used]


def with_error(name: str, value: float, error: float) -> str:
    """``value ± error`` of a parameter with two digits of the error and the unit."""
    scale = scale_of(name)
    decimals = _decimals([error / scale.factor])
    text = f"{_number(value / scale.factor, decimals)} ± {_number(error / scale.factor, decimals)}"
    return f"{text} {scale.text}".strip()


def minuit_table(result: FitResult, *, correlations: bool = True) -> str:
    """The tables that iminuit prints: how the fit ended, every parameter in the order of the fit, correlations.

    Numbers are those of :func:`fit_table`, two digits of the error in the unit of the last column. Empty Minos columns
    mean that Minos was not run; parameters without an error are fixed.

    Args:
        result: The fit.
        correlations: Whether to add the matrix of the parameters of interest and of those that correlate with them
            (20 % or more), if there is one.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        NuebarError: A value is not finite.
    """
    if not math.isfinite(result.chi2):
        raise NuebarError(f"expected a finite chi2 in the fit result, got {result.chi2}; mend the fit first")
    blocks = [
        _box(_migrad_cells(result), align="ll", rules=range(3)),
        _box(_minuit_rows(result), rules=[0], align=_MINUIT),
    ]
    names = _correlated(result) if correlations else ()
    if names:
        blocks.append(correlation_table(result, names))
    if result.blinded:
        blocks = [BLINDED, *blocks, BLINDED]
    return "\n".join(blocks)


_MINUIT = "rlrrrrrrll"
_CORRELATED = 0.2


def _migrad_cells(result: FitResult) -> list[list[str]]:
    """How the fit ended, in iminuit's words."""
    edm = f"{result.edm:.3g}" if math.isfinite(result.edm) else MISSING
    goal = f" (Goal: {result.edm_goal:.2g})" if math.isfinite(result.edm_goal) else ""
    covariance = np.asarray(result.covariance, dtype=float)
    known = covariance.size > 0 and bool(np.all(np.isfinite(covariance)))
    below = math.isfinite(result.edm) and not result.edm > result.edm_goal
    at = ", ".join(result.at_limit)
    return [
        [f"FCN = {result.chi2:.5g}", f"Nfcn = {result.n_calls}, Ngrad = {result.n_gradients}"],
        [f"EDM = {edm}{goal}", "Below EDM threshold" if below else "ABOVE EDM threshold"],
        [
            "Valid Minimum" if result.valid else "INVALID Minimum",
            f"Parameters AT LIMIT: {at}" if at else "No parameters at limit",
        ],
        ["Hesse ok" if known else "Hesse FAILED", "Covariance accurate" if known else "Covariance NOT pos. def."],
    ]


def _minuit_rows(result: FitResult) -> list[list[str]]:
    header = ["", "Name", "Value", "Hesse Err", "Minos Err-", "Minos Err+", "Limit-", "Limit+", "Fixed", "Unit"]
    rows = []
    for k, (name, p) in enumerate(result.parameters.items()):
        _, value, error, minus, plus, unit = _value_cells(name, p)
        hesse, fixed = ("", "yes") if p.fixed else (error, "")
        rows.append([str(k), name, value, hesse, minus, plus, *_limit_cells(name, p.limits), fixed, unit])
    return [header, *rows]


def _correlated(result: FitResult) -> tuple[str, ...]:
    """Free parameters of interest and those that correlate with them; none where there is no covariance."""
    if not result.parameter_order or not np.all(np.isfinite(result.covariance)):
        return ()
    if not np.all(np.diag(result.covariance) > 0):
        return ()
    order, nuisances = result.parameter_order, nuisance_names(result)
    rho = result.correlation
    main = [order.index(n) for n in order if n not in nuisances]
    return tuple(n for k, n in enumerate(order) if k in main or (main and np.abs(rho[main, k]).max() >= _CORRELATED))


def correlation_table(result: FitResult, names: Sequence[str] | None = None) -> str:
    """The correlation matrix for a terminal.

    Where the names are too wide for columns, the columns are
    numbered and come in several blocks.

    Args:
        result: The fit.
        names: Free parameters to show, in this order; all of them if left out.

    Raises:
        NuebarError: A name is not a free parameter, or the fit has no covariance.
    """
    names, matrix = correlation_of(result, names)
    widest = max(map(len, names))
    if widest + 4 + sum(max(len(name), 6) + 3 for name in names) <= WIDTH:
        rows = [[name, *(_signed(c, 3) for c in row)] for name, row in zip(names, matrix, strict=True)]
        return _box([["", *names], *rows], rules=[0])
    labels = [f"{k:>2} {name}" for k, name in enumerate(names, 1)]
    step = max(1, (WIDTH - widest - 7) // 8)
    boxes = []
    for first in range(0, len(names), step):
        columns = range(first, min(first + step, len(names)))
        rows = [[labels[i], *(_signed(matrix[i, j], 2) for j in columns)] for i in range(len(names))]
        boxes.append(_box([["", *(str(j + 1) for j in columns)], *rows], rules=[0]))
    return "\n".join(boxes)


def correlation_of(result: FitResult, names: Sequence[str] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and correlation matrix of some free parameters, shape ``(names, names)``.

    Raises:
        NuebarError: A name is not a free parameter or comes twice, or the fit has no finite covariance.
    """
    order = result.parameter_order
    names = tuple(order if names is None else names)
    if not names:
        raise NuebarError("expected at least one free parameter to correlate, got none; name one of the fit")
    _known("names", names, order)
    if len(set(names)) < len(names):
        raise NuebarError(f"expected each name once, got {', '.join(names)}; leave the repeated one out")
    index = [order.index(name) for name in names]
    covariance = np.asarray(result.covariance)[np.ix_(index, index)]
    variance = np.diag(covariance)
    if not (np.all(np.isfinite(covariance)) and np.all(variance > 0)):
        raise NuebarError(
            f"expected a finite covariance with positive variances for {', '.join(names)}, got none ({result.reason}); "
            "mend the fit first"
        )
    matrix = covariance / np.sqrt(np.outer(variance, variance))
    return names, matrix


def _summary(result: FitResult) -> str:
    """The fit itself, two cells a line."""
    if not math.isfinite(result.chi2):
        raise NuebarError(f"expected a finite chi2 in the fit result, got {result.chi2}; mend the fit first")
    ndof = result.n_dof
    ratio = f" (χ²/ndof = {result.chi2:.2f}/{ndof} = {result.chi2 / ndof:.3f})" if ndof > 0 else ""
    p_value = f"{chi2_distribution.sf(result.chi2, ndof):.3g}" if ndof > 0 else MISSING
    edm = f"{result.edm:.2g}" if math.isfinite(result.edm) else MISSING
    verdict = "Valid Minimum" if result.valid else "INVALID Minimum"
    title = ", ".join(
        part
        for part in (
            result.experiment,
            f"{result.ordering} ordering",
            f"{result.predictor} predictor",
            f"statistic {result.statistic}",
        )
        if part
    )
    cells = [
        [f"FCN = {result.chi2:.5g}{ratio}", f"Nfcn = {result.n_calls}"],
        [f"EDM = {edm}", f"p-value = {p_value}"],
        [verdict, result.reason],
    ]
    return f"{title}\n{_box(cells, align='ll')}"


def _nuisance_block(result: FitResult) -> str:
    """Nuisance parameters in two halves side by side, each a name and its pull."""
    names = nuisance_names(result)
    if not names:
        return ""
    cells = [[name, *_pull_cells(name, result.parameters[name])] for name in names]
    head = ["Nuisance", "Pull", "Err/width"]
    if len(cells) <= _NUISANCES_SIDE_BY_SIDE:
        return _box([head, *cells], rules=[0])
    half = (len(cells) + 1) // 2
    left, right = cells[:half], cells[half:]
    right = right + [["", "", ""]] * (half - len(right))
    return _box([head + head, *(a + b for a, b in zip(left, right, strict=True))], rules=[0], align="lrrlrr")


# ---------------------------------------------------------------- cells


def _value_cells(name: str, p: ParameterResult) -> list[str]:
    """Name, value, Hesse error, Minos errors, unit."""
    scale = scale_of(name)
    if not math.isfinite(p.value):
        raise NuebarError(f"fit result, parameter {name!r}: expected a finite value, got {p.value}; fit again")
    if p.fixed:
        return [name, f"{p.value / scale.factor:.6g}", "fixed", "", "", scale.text]
    errors = [p.error, -p.error_minus, p.error_plus]
    decimals = _decimals([e / scale.factor for e in errors])
    value, error, minus, plus = (
        _number(x / scale.factor, decimals) for x in (p.value, p.error, p.error_minus, p.error_plus)
    )
    # Without Minos a result repeats the Hesse error on both sides.
    if not (math.isfinite(p.error_minus) and math.isfinite(p.error_plus)) or (
        p.error_minus == -p.error and p.error_plus == p.error
    ):
        minus = plus = ""
    return [name, value, error, minus, plus and f"+{plus}", scale.text]


def _limit_cells(name: str, limits: tuple[float | None, float | None]) -> list[str]:
    factor = scale_of(name).factor
    return ["" if x is None or math.isinf(x) else f"{x / factor:.6g}" for x in limits]


def _prior_cells(name: str, p: ParameterResult) -> list[str]:
    """Centre ± width of the prior, and the pull."""
    if p.prior is None:
        return ["", ""]
    factor = scale_of(name).factor
    centre, width = (x / factor for x in p.prior)
    decimals = _decimals([width])
    return [f"{_number(centre, decimals)} ± {_number(width, decimals)}", _signed(_pull(name, p), 2)]


def _published_cells(name: str, value: float, published: tuple[float, float] | None) -> list[str]:
    """The published value ± its error, and the difference in units of that error."""
    if published is None:
        return ["", ""]
    centre, error = published
    if not (math.isfinite(centre) and math.isfinite(error) and error > 0):
        raise NuebarError(
            f"published value of {name!r}: expected a finite value and a positive error, got {centre} and {error}; "
            "correct the pair"
        )
    factor = scale_of(name).factor
    decimals = _decimals([error / factor])
    text = f"{_number(centre / factor, decimals)} ± {_number(error / factor, decimals)}"
    return [text, _signed((value - centre) / error, 2)]


def _pull_cells(name: str, p: ParameterResult) -> list[str]:
    """Pull and post-fit over pre-fit error of a nuisance parameter."""
    if p.prior is None:
        return ["fixed", ""]
    if p.fixed:
        return [_signed(_pull(name, p), 2), "fixed"]
    ratio = p.error / p.prior[1]
    return [_signed(_pull(name, p), 2), f"{ratio:.2f}" if math.isfinite(ratio) else MISSING]


def _pull(name: str, p: ParameterResult) -> float:
    pull = p.pull
    if pull is None or not math.isfinite(pull):
        raise NuebarError(
            f"fit result, parameter {name!r}: expected a finite pull from value {p.value} and prior {p.prior}, "
            f"got {pull}; fit again"
        )
    return pull


def _decimals(errors: Sequence[float]) -> int | None:
    """Decimals that show two digits of the smallest error; None if there is no error."""
    finite = [abs(e) for e in errors if math.isfinite(e) and e != 0.0]
    if not finite:
        return None
    # The exponent after rounding: 0.0996 is 0.10, not 0.100.
    exponent = int(f"{min(finite):.1e}".split("e")[1])
    return max(0, 1 - exponent)


def _number(x: float, decimals: int | None) -> str:
    if not math.isfinite(x):
        return MISSING
    if decimals is None or decimals > _DIGITS_AT_MOST:
        return f"{x:.6g}"
    return f"{round(x, decimals) + 0.0:.{decimals}f}"  # never -0


def _signed(x: float, decimals: int) -> str:
    """A number with its sign; what rounds to zero is +0, not -0."""
    return f"{round(x, decimals) + 0.0:+.{decimals}f}"


def _known(what: str, names: Sequence[str] | Mapping[str, object], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise NuebarError(
                f"{what}: {name!r} is not in the fit result; expected one of: {', '.join(known) or 'none'}"
            )


# ---------------------------------------------------------------- forms of a table


def to_markdown(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """A Markdown table; columns of numbers are right-aligned.

    Args:
        rows: Cells; numbers are written with all their digits, text as it is.
        header: One title per column.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        NuebarError: A row has another length than the header, or a number is not finite.
    """
    table, numeric = _cells(rows, header)
    escaped = [[_one_line(cell).replace("|", "\\|") for cell in row] for row in table]
    rule = ["---:" if n else ":---" for n in numeric]
    lines = [escaped[0], rule, *escaped[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def to_latex(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """A LaTeX ``tabular`` that compiles without any package; text between two $ is taken as mathematics.

    Args:
        rows: As for :func:`to_markdown`.
        header: One title per column.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        NuebarError: As for :func:`to_markdown`.
    """
    table, numeric = _cells(rows, header)
    lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table]
    columns = "".join("r" if n else "l" for n in numeric)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline"]
    return "\n".join([*head, *lines[1:], r"\hline", r"\end{tabular}"])


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "−": "$-$",
    "²": "$^2$",
    "³": "$^3$",
    "χ": r"$\chi$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
    "ν": r"$\nu$",
    "θ": r"$\theta$",
}
_SIGNED = re.compile(r"(?<![\w)])[-−](?=[\d.])")


def _latex(cell: str) -> str:
    """One cell with the special characters of LaTeX escaped, and hyphens before digits made minus signs."""
    parts = _one_line(cell).split("$")
    if len(parts) % 2 == 0:  # an odd $ opens no mathematics
        parts = [_one_line(cell)]
    out = []
    for k, part in enumerate(parts):
        if k % 2:
            out.append(f"${part}$")
        else:
            out.append("".join(_LATEX.get(c, c) for c in _SIGNED.sub("−", part)))
    return "".join(out)


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def _cells(rows: Sequence[Sequence[object]], header: Sequence[str]) -> tuple[list[list[str]], list[bool]]:
    """Header and rows as text, and which columns hold numbers only."""
    if not header:
        raise NuebarError("expected a header with at least one column, got none; name the columns")
    table = [[str(title) for title in header]]
    for k, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise NuebarError(
                f"table row {k}: expected {len(header)} cells ({', '.join(header)}), got {len(row)}; complete the row"
            )
        table.append([_text(cell, k, header[j]) for j, cell in enumerate(row)])
    numeric = []
    for j in range(len(header)):
        column = [row[j] for row in table[1:] if row[j] not in ("", MISSING)]
        numeric.append(bool(column) and all(_is_number(cell) for cell in column))
    return table, numeric


def _text(cell: object, row: int, column: str) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, float | np.floating):
        if not math.isfinite(cell):
            raise NuebarError(
                f"table row {row}, column {column!r}: expected a finite number, got {cell}; correct it, or write "
                f"{MISSING!r} for a number that does not exist"
            )
        return repr(float(cell))
    return str(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace("−", "-"))
    except ValueError:
        return False
    return True


def _box(rows: Sequence[Sequence[str]], *, rules: Sequence[int] = (), align: str = "") -> str:
    """Rows in a frame, with a rule below the rows in ``rules``; ``align`` is one letter, l or r, per column."""
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    align = align or "l" + "r" * (len(widths) - 1)

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (w + 2) for w in widths) + right

    def line(row: Sequence[str]) -> str:
        cells = (cell.ljust(w) if a == "l" else cell.rjust(w) for cell, w, a in zip(row, widths, align, strict=True))
        return "│ " + " │ ".join(cells) + " │"

    out = [rule("┌", "┬", "┐")]
    for k, row in enumerate(rows):
        out.append(line(row))
        if k in rules:
            out.append(rule("├", "┼", "┤"))
    return "\n".join([*out, rule("└", "┴", "┘")])

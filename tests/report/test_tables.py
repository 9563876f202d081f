"""Tables of results: numbers round-trip, nothing is NaN, blinding is loud, Markdown and LaTeX are well formed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.report import tables

PUBLISHED = {"sin2_th12": (0.3092, 0.0087), "dm2_21_eV2": (7.50e-5, 0.12e-5)}
"""JUNO Collaboration, arXiv:2511.14593."""


def fit_result(n_backgrounds=3, **changes):
    parameters = {
        "sin2_th12": ParameterResult(0.30842, 0.00831, -0.00822, 0.00840, False),
        "sin2_th13": ParameterResult(0.0218, 0.00063, -0.00063, 0.00063, False, (0.02175, 0.00063)),
        "dm2_21_eV2": ParameterResult(7.518e-5, 0.1134e-5, -0.1134e-5, 0.1134e-5, False),
        "dm2_31_eV2": ParameterResult(2.5281e-3, 0.0, 0.0, 0.0, True),
    }
    for k in range(n_backgrounds):
        parameters[f"bkg_source{k}"] = ParameterResult(0.1 * k - 0.12, 0.15, -0.15, 0.15, False, (0.0, 0.3))
    order = tuple(n for n, p in parameters.items() if not p.fixed)
    sigma = np.array([parameters[n].error for n in order])
    rho = np.array([[0.9 ** abs(i - j) * (-1) ** (i + j) for i in range(len(order))] for j in range(len(order))])
    values = {
        "parameters": parameters,
        "covariance": rho * np.outer(sigma, sigma),
        "parameter_order": order,
        "chi2": 50.96,
        "chi2_pulls": 1.2,
        "n_bins": 66,
        "n_free": 2,
        "n_calls": 143,
        "edm": 1.1e-10,
        "valid": True,
        "reason": "converged",
        "ordering": "normal",
        "predictor": "harmonic",
        "statistic": "cnp",
        "experiment": "juno-2025",
        "derived": {"dm2_32_eV2": (2.4529e-3, 0.0431e-3)},
    }
    return FitResult(**(values | changes))


def cells(text):
    """Every framed line as a list of stripped cells."""
    return [[c.strip() for c in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


def column(text, title):
    """Name → cell of one column of the parameter table."""
    rows = cells(text)
    head = next(row for row in rows if row[0] == "Name")
    j = head.index(title)
    return {row[0]: row[j] for row in rows if len(row) == len(head) and row is not head}


def test_every_number_of_the_table_round_trips_within_two_digits_of_its_error():
    result = fit_result()
    text = tables.fit_table(result, PUBLISHED)
    values, errors, units = column(text, "Value"), column(text, "Hesse"), column(text, "Unit")
    shown = {n: (p.value, p.error) for n, p in result.parameters.items() if n in tables.OSCILLATION and not p.fixed}
    for name, (value, error) in (shown | result.derived).items():
        factor = float(units[name].split()[0]) if units[name] else 1.0
        assert float(values[name]) * factor == pytest.approx(value, abs=0.051 * error)
        assert float(errors[name]) * factor == pytest.approx(error, rel=0.051)
    assert units["dm2_21_eV2"] == "1e-5 eV²"
    assert units["dm2_31_eV2"] == units["dm2_32_eV2"] == "1e-3 eV²"
    assert errors["dm2_31_eV2"] == "fixed"


def test_the_same_exact_cells_as_worked_out_by_hand():
    text = tables.fit_table(fit_result(), PUBLISHED)
    # (0.30842 - 0.3092)/0.0087 = -0.0897; (7.518 - 7.50)/0.12 = 0.15; (0.0218 - 0.02175)/0.00063 = 0.079
    assert column(text, "Diff/σ(pub)")["sin2_th12"] == "-0.09"
    assert column(text, "Diff/σ(pub)")["dm2_21_eV2"] == "+0.15"
    assert column(text, "Pull")["sin2_th13"] == "+0.08"
    assert column(text, "Value")["sin2_th12"] == "0.3084"
    assert column(text, "Minos-")["sin2_th12"] == "-0.0082"
    assert column(text, "Minos+")["sin2_th12"] == "+0.0084"
    assert column(text, "Minos+")["dm2_21_eV2"] == ""
    assert column(text, "Published")["dm2_21_eV2"] == "7.50 ± 0.12"
    assert column(text, "Prior")["sin2_th13"] == "0.02175 ± 0.00063"


def test_header_states_what_iminuit_states():
    text = tables.fit_table(fit_result())
    # scipy.stats.chi2.sf(50.96, 64) = 0.881
    for part in ("FCN = 50.96", "χ²/ndof = 50.96/64 = 0.796", "p-value = 0.881", "Nfcn = 143", "EDM = 1.1e-10"):
        assert part in text
    assert "Valid Minimum" in text
    invalid = tables.fit_table(fit_result(valid=False, reason="at a limit"))
    assert "INVALID Minimum" in invalid
    assert "at a limit" in invalid


def test_the_tables_of_iminuit_list_every_parameter_in_order():
    parameters = {n: replace(p, limits=(0.0, None)) for n, p in fit_result().parameters.items()}
    result = fit_result(parameters=parameters, n_gradients=9, edm_goal=1e-5)
    text = tables.minuit_table(result)
    for part in ("Nfcn = 143, Ngrad = 9", "Goal: 1e-05", "Below EDM", "No parameters at limit", "Hesse ok", "accurate"):
        assert part in text
    rows = [row for row in cells(text) if len(row) == 10][1:]
    assert [row[1] for row in rows] == list(result.parameters)
    assert [row[0] for row in rows] == [str(k) for k in range(len(rows))]
    fixed = {row[1]: row[8] for row in rows}
    assert [n for n, word in fixed.items() if word == "yes"] == ["dm2_31_eV2"]
    assert all(row[6] == "0" and row[7] == "" for row in rows)
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    assert "sin2_th12" in text.split("┌")[-1]  # the correlations
    failed = fit_result(covariance=np.full((6, 6), math.nan), valid=False, at_limit=("sin2_th12",), edm=math.nan)
    text = tables.minuit_table(failed)
    for part in ("INVALID Minimum", "AT LIMIT: sin2_th12", "Hesse FAILED", "ABOVE EDM"):
        assert part in text
    assert "nan" not in text


@pytest.mark.parametrize("n", [0, 3, 9, 10, 45])
def test_every_nuisance_parameter_is_there_once_with_its_pull(n):
    result = fit_result(n)
    text = tables.fit_table(result)
    found = {}
    for row in cells(text):
        for j, cell in enumerate(row):
            if cell.startswith("bkg_"):
                assert cell not in found
                found[cell] = float(row[j + 1]), float(row[j + 2])
    assert set(found) == set(tables.nuisance_names(result))
    assert len(found) == n
    for name, (pull, ratio) in found.items():
        assert pull == pytest.approx(result.parameters[name].pull, abs=0.005)
        assert ratio == 0.5
    assert len({len(line) for line in text.splitlines() if "bkg_" in line}) <= 1


def test_fixed_and_unpulled_nuisances_say_fixed():
    parameters = dict(fit_result(0).parameters)
    parameters["matter_density_g_cm3"] = ParameterResult(2.45, 0.0, 0.0, 0.0, True)
    parameters["bkg_x"] = ParameterResult(0.0, 0.0, 0.0, 0.0, True, (0.0, 0.1))
    rows = {row[0]: row for row in cells(tables.fit_table(fit_result(parameters=parameters)))}
    assert rows["matter_density_g_cm3"][1:] == ["fixed", ""]
    assert rows["bkg_x"][1:] == ["+0.00", "fixed"]


def test_blinded_is_said_first_and_last_and_derived_values_cannot_undo_it():
    lines = tables.fit_table(fit_result(blinded=True), PUBLISHED).splitlines()
    assert lines[0].startswith("BLINDED")
    assert lines[-1].startswith("BLINDED")
    assert not any("dm2_32" in line for line in lines)
    assert "BLINDED" not in tables.fit_table(fit_result())


def test_an_error_that_does_not_exist_is_a_dash_and_never_nan():
    nan = math.nan
    parameters = {n: replace(p, error=nan, error_minus=nan, error_plus=nan) for n, p in fit_result().parameters.items()}
    result = fit_result(
        parameters=parameters, edm=nan, valid=False, reason="no covariance", derived={"dm2_32_eV2": (2e-3, nan)}
    )
    text = tables.fit_table(result)
    assert "nan" not in text
    assert column(text, "Hesse")["sin2_th12"] == "–"
    assert column(text, "Value")["sin2_th12"] == "0.30842"


def test_limits_are_shown_in_the_unit_of_the_row():
    text = tables.fit_table(fit_result(), limits={"dm2_21_eV2": (4.83e-5, None), "sin2_th12": (None, 0.6)})
    assert column(text, "Limit-")["dm2_21_eV2"] == "4.83"
    assert column(text, "Limit+")["dm2_21_eV2"] == ""
    assert column(text, "Limit+")["sin2_th12"] == "0.6"


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.30842, 0.0083, ("0.3084", "0.0083")),
        (0.3, 0.0996, ("0.30", "0.10")),
        (0.3, 0.00999, ("0.300", "0.010")),
        (1234.6, 152.0, ("1235", "152")),
        (-0.001, 12.0, ("0", "12")),
        (1.0, 1e-14, ("1", "1e-14")),
    ],
)
def test_rounding_to_two_digits_of_the_error(value, error, shown):
    result = fit_result(parameters={"sin2_th12": ParameterResult(value, error, -error, error, False)}, derived={})
    text = tables.fit_table(result)
    assert (column(text, "Value")["sin2_th12"], column(text, "Hesse")["sin2_th12"]) == shown


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"chi2": math.nan}, {}, "finite chi2"),
        ({"parameters": {"sin2_th12": ParameterResult(math.nan, 1.0, -1.0, 1.0, False)}}, {}, "sin2_th12"),
        ({"parameters": {"bkg_a": ParameterResult(math.nan, 1.0, -1.0, 1.0, False, (0.0, 1.0))}}, {}, "bkg_a"),
        ({"derived": {"dm2_32_eV2": (math.inf, 1.0)}}, {}, "dm2_32_eV2"),
        ({}, {"published": {"theta": (1.0, 1.0)}}, "published: 'theta'"),
        ({}, {"published": {"sin2_th12": (0.3, 0.0)}}, "positive error"),
        ({}, {"limits": {"theta": (0.0, 1.0)}}, "limits: 'theta'"),
    ],
)
def test_bad_results_are_refused_in_one_sentence(changes, options, words):
    with pytest.raises(NuebarError, match=words) as caught:
        tables.fit_table(fit_result(**changes), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [1, 20])
def test_correlations_round_trip_in_few_and_in_many_columns(n):
    result = fit_result(n)
    matrix, decimals = result.correlation, 3 if n == 1 else 2
    text = tables.correlation_table(result)
    blocks, found = text.split("┌")[1:], np.full_like(matrix, math.nan)
    for block in blocks:
        head, *rows = cells(block)
        named = n == 1
        js = [result.parameter_order.index(t) if named else int(t) - 1 for t in head[1:]]
        assert len(rows) == len(matrix)
        for i, row in enumerate(rows):
            assert row[0].split()[-1] == result.parameter_order[i]
            found[i, js] = [float(c) for c in row[1:]]
    np.testing.assert_allclose(found, matrix, atol=0.51 * 10.0**-decimals)
    assert max(map(len, text.splitlines())) <= tables.WIDTH


def test_correlations_of_chosen_names_keep_their_order():
    names, matrix = tables.correlation_of(fit_result(), ["dm2_21_eV2", "sin2_th12"])
    assert names == ("dm2_21_eV2", "sin2_th12")
    np.testing.assert_allclose(matrix, [[1.0, 0.81], [0.81, 1.0]], rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "changes", "words"),
    [
        (["dm2_31_eV2"], {}, "dm2_31_eV2"),
        (["sin2_th12", "sin2_th12"], {}, "once"),
        ([], {}, "at least one"),
        (None, {"covariance": np.full((6, 6), math.nan)}, "finite covariance"),
        (None, {"covariance": np.zeros((6, 6))}, "positive variances"),
    ],
)
def test_correlations_that_do_not_exist_are_refused(names, changes, words):
    with pytest.raises(NuebarError, match=words):
        tables.correlation_table(fit_result(**changes), names)


def test_markdown_keeps_every_digit_and_aligns_numbers():
    rows = [["a|b", 0.1 + 0.2, "−1.5"], ["c", 7.53e-5, "2"]]
    lines = tables.to_markdown(rows, ["name", "value", "pull"]).splitlines()
    assert lines[0] == "| name | value | pull |"
    assert lines[1] == "| :--- | ---: | ---: |"
    assert lines[2].startswith(r"| a\|b |")
    assert [float(line.split(" | ")[1]) for line in lines[2:]] == [0.1 + 0.2, 7.53e-5]


def test_latex_escapes_text_and_keeps_mathematics():
    text = tables.to_latex([["50 % & x_1", -0.5, "1 ± 2 eV²"], ["$\\Delta m^2_{21}$", 2, "5$"]], ["a_b", "n", "#"])
    assert text.splitlines() == [
        r"\begin{tabular}{lrl}",
        r"\hline",
        r"a\_b & n & \# \\",
        r"\hline",
        r"50 \% \& x\_1 & $-$0.5 & 1 $\pm$ 2 eV$^2$ \\",
        r"$\Delta m^2_{21}$ & 2 & 5\$ \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_a_fit_goes_into_a_paper():
    rows, header = tables.parameter_rows(fit_result(), PUBLISHED)
    latex = tables.to_latex(rows, header)
    assert latex.isascii()
    assert r"dm2\_21\_eV2 & 7.52 & 0.11" in latex
    assert len(tables.to_markdown(rows, header).splitlines()) == len(rows) + 2


@pytest.mark.parametrize("form", [tables.to_markdown, tables.to_latex])
@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([[1.0, math.nan]], ["a", "b"], "row 1, column 'b'"),
        ([[1.0], [1.0, 2.0]], ["a"], "row 2: expected 1 cells"),
        ([], [], "at least one column"),
    ],
)
def test_rows_that_do_not_fit_are_refused(form, rows, header, words):
    with pytest.raises(NuebarError, match=words):
        form(rows, header)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dm2_21_eV2", "1e-5 eV²"),
        ("dm2_ee_eV2", "1e-3 eV²"),
        ("sin2_th12", ""),
        ("energy_offset_MeV", "MeV"),
        ("light_yield_per_MeV", "1/MeV"),
        ("matter_density_g_cm3", "g/cm³"),
        ("kB_g_cm2_GeV", "g/cm²/GeV"),
    ],
)
def test_units_follow_from_names(name, text):
    assert tables.scale_of(name).text == text

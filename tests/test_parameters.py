import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION, Parameter, ParameterSet, UnknownParameterError

NAN, INF = math.nan, math.inf


def example():
    return ParameterSet(
        [
            Parameter("sin2_th13", 0.0218, 0.0007, (0.0, 0.2)),
            Parameter("dm2_21_eV2", 7.53e-5, unit="eV$^2$"),
            Parameter("norm_flux", 0.0, 0.02, fixed=True),
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a", NAN), "finite value, got nan"),
        (("a", INF), "finite value, got inf"),
        (("a", "1.0"), "finite value, got '1.0'"),
        (("a", True), "finite value, got True"),
        (("a", None), "finite value, got None"),
        (("a", 10**400), "finite value"),
        (("a", np.array([1.0])), "finite value"),
        (("a", 1.0, 0.0), "positive prior width sigma, got 0.0"),
        (("a", 1.0, -1.0), "positive prior width sigma, got -1.0"),
        (("a", 1.0, NAN), "positive prior width sigma, got nan"),
        (("a", 1.0, INF), "positive prior width sigma, got inf"),
        (("a", 1.0, None, (2.0, 0.0)), "low < high"),
        (("a", 1.0, None, (1.0, 1.0)), "low < high"),
        (("a", 1.0, None, (2.0, 3.0)), r"inside its bounds \[2.0, 3.0\], got 1.0"),
        (("a", 1.0, None, (None, 0.5)), "inside its bounds"),
        (("a", 1.0, None, (NAN, None)), "finite bounds"),
        (("a", 1.0, None, (0.0, INF)), "finite bounds.*None opens a side"),
        (("a", 1.0, None, (0.0,)), r"bounds \(low, high\)"),
        (("a", 1.0, None, 0.5), r"bounds \(low, high\)"),
        (("", 1.0), "expected a name"),
        ((3, 1.0), "expected a name"),
    ],
)
def test_bad_parameters_are_refused_by_name(arguments, sentence):
    with pytest.raises(NuebarError, match=f"^parameter '?{arguments[0]}'?.*{sentence}") as caught:
        Parameter(*arguments)
    assert "\n" not in str(caught.value)


anything = st.floats(allow_nan=True, allow_infinity=True, width=16)


@given(anything, st.none() | anything, st.none() | anything, st.none() | anything)
def test_a_parameter_exists_only_if_it_makes_sense(value, sigma, low, high):
    good = all(math.isfinite(x) for x in (value, sigma, low, high) if x is not None)
    good = good and (sigma is None or sigma > 0)
    good = good and (low is None or high is None or low < high)
    good = good and (low is None or low <= value) and (high is None or value <= high)
    if good:
        p = Parameter("x", value, sigma, (low, high))
        assert (p.value, p.sigma, p.bounds) == (value, sigma, (low, high))
        assert math.isfinite(p.scale)
        assert p.scale > 0
    else:
        with pytest.raises(NuebarError, match="parameter 'x'"):
            Parameter("x", value, sigma, (low, high))


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), jnp.asarray(0.5), np.array(0.5)])
def test_numbers_of_other_libraries_become_plain(number):
    p = Parameter("x", number, number, (number - 1, number + 1))
    assert [type(x) for x in (p.value, p.sigma, *p.bounds)] == [float] * 4
    assert p == Parameter("x", 0.5, 0.5, (-0.5, 1.5))


@pytest.mark.parametrize(
    ("parameter", "label", "scale"),
    [
        (Parameter("dm2_21_eV2", 7.5e-5, unit="eV$^2$"), r"$\Delta m^2_{21}$ [eV$^2$]", 7.5e-7),
        (Parameter("norm_flux", 0.0, 0.02), "norm flux", 0.02),
        (Parameter("x", 0.0, label="$x$"), "$x$", 1e-12),
        (Parameter("x", -2.0), "x", 0.02),
    ],
)
def test_label_and_scale(parameter, label, scale):
    assert parameter.axis_label == label
    assert parameter.scale == pytest.approx(scale, rel=1e-14)


def test_a_set_is_an_ordered_mapping():
    p = example()
    assert p.names == tuple(p) == ("sin2_th13", "dm2_21_eV2", "norm_flux")
    assert p.free == ("sin2_th13", "dm2_21_eV2")
    assert len(p) == 3
    assert p.nominal() == {"sin2_th13": 0.0218, "dm2_21_eV2": 7.53e-5, "norm_flux": 0.0}
    assert "sin2_th13" in p
    assert "sin2_th14" not in p
    assert p.get("sin2_th14") is None
    assert repr(p) == "ParameterSet(sin2_th13, dm2_21_eV2, norm_flux)"
    assert len(set(OSCILLATION)) == 4


def test_changes_are_copies():
    p = example()
    q = p.with_values({"sin2_th13": 0.03}).updated(dm2_21_eV2={"fixed": True})
    assert q["sin2_th13"] == dataclasses.replace(p["sin2_th13"], value=0.03)
    assert q.free == ("sin2_th13",)
    assert q["norm_flux"] is p["norm_flux"]
    assert p == example()
    assert p.with_values(p.nominal()) == p
    with pytest.raises(dataclasses.FrozenInstanceError):
        p["sin2_th13"].value = 1.0


@pytest.mark.parametrize("ask", [lambda p: p["x"], lambda p: p.known("x"), lambda p: p.with_values({"x": 1.0}),
                                 lambda p: p.updated(x={"fixed": True})])  # fmt: skip
def test_unknown_names_are_refused_with_the_known_ones(ask):
    with pytest.raises(UnknownParameterError) as caught:
        ask(example())
    assert isinstance(caught.value, NuebarError)
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "unknown parameter 'x'; expected one of: sin2_th13, dm2_21_eV2, norm_flux"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sin2_th13": {"value": NAN}}, "'sin2_th13': expected a finite value"),
        ({"sin2_th13": {"value": 0.3}}, r"'sin2_th13': expected a value inside its bounds \[0.0, 0.2\], got 0.3"),
        ({"sin2_th13": {"valu": 0.02}}, "'sin2_th13': expected fields of name, value"),
        ({"sin2_th13": 0.02}, "'sin2_th13': expected fields of name, value"),
        ({"sin2_th13": {"name": "norm_flux"}}, "'norm_flux' is defined twice"),
    ],
)
def test_bad_changes_are_refused(change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        example().updated(**change)


@pytest.mark.parametrize("value", [NAN, INF, -1.0, "a", None, [0.02]])
def test_bad_values_are_refused(value):
    with pytest.raises(NuebarError, match="'sin2_th13'"):
        example().with_values({"sin2_th13": value})


def test_only_different_parameters_make_a_set():
    with pytest.raises(NuebarError, match="'x' is defined twice"):
        ParameterSet([Parameter("x", 0.0), Parameter("x", 1.0)])
    with pytest.raises(NuebarError, match="expected a Parameter, got 'x'"):
        ParameterSet(["x"])
    assert ParameterSet([]).names == ()


def test_a_misspelled_name_is_told_its_neighbour():
    parameters = ParameterSet([Parameter("sin2_th12", 0.3), Parameter("dm2_21_eV2", 7.5e-5)])
    with pytest.raises(NuebarError, match="did you mean 'sin2_th12'"):
        parameters.known("sin2_th21")

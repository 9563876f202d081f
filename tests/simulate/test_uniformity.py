"""Light against place: the true map as given, the correction exact where it was measured."""

import math

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.uniformity import flat_map, local_light, uniformity_map

RADIUS = np.array([0.0, 5.0, 10.0, 15.0, 15.8, 17.7])
COS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
RATIO = 1 + 0.09 * (RADIUS[:, None] / 15.8) ** 2 + 0.01 * (RADIUS[:, None] / 17.7) ** 2 * COS
POINTS_M, POINTS_COS = np.array([0.0, 4.0, 9.0, 14.0, 17.0]), np.array([-1.0, -0.3, 0.4, 1.0])


def built(**change):
    options = {"radius_m": RADIUS, "cos_theta": COS, "ratio": RATIO} | change
    options = {"calibration_radius_m": POINTS_M, "calibration_cos_theta": POINTS_COS} | options
    return uniformity_map(**options)


def light(maps, radius_m, cos_theta, *, corrected=False, phi=0.3):
    sin = math.sqrt(1 - cos_theta**2)
    x, y, z = radius_m * sin * math.cos(phi), radius_m * sin * math.sin(phi), radius_m * cos_theta
    return local_light(x, y, z, maps, corrected)


def test_flat_map_is_one_everywhere():
    maps = flat_map(17.7)
    rng = np.random.default_rng(1)
    for x, y, z in [(0.0, 0.0, 0.0), *rng.uniform(-20, 20, (50, 3))]:
        assert local_light(x, y, z, maps, False) == 1.0
        assert local_light(x, y, z, maps, True) == 1.0


def test_true_map_is_the_table():
    maps = built()
    for i, r in enumerate(RADIUS):
        for j, c in enumerate(COS):
            if r > 0:
                assert light(maps, r, c) == pytest.approx(RATIO[i, j], rel=1e-9)
    # Straight lines between: in the radius and in the cosine.
    assert light(maps, 7.5, 0.5) == pytest.approx(0.5 * (RATIO[1, 3] + RATIO[2, 3]), rel=1e-9)
    assert light(maps, 10.0, 0.25) == pytest.approx(0.5 * (RATIO[2, 2] + RATIO[2, 3]), rel=1e-9)
    assert local_light(0.0, 0.0, 0.0, maps, False) == 1.0


def test_correction_is_exact_at_calibration_points():
    maps = built(azimuth=0.01)
    for r in POINTS_M:
        for c in POINTS_COS:
            true = light(maps._replace(azimuth=0.0), r, c)
            assert light(maps, r, c, corrected=True) == pytest.approx(true, rel=1e-12)
    # And between them a straight line.
    middle = 0.5 * (light(maps, 9.0, 0.4, corrected=True) + light(maps, 14.0, 0.4, corrected=True))
    assert light(maps, 11.5, 0.4, corrected=True) == pytest.approx(middle, rel=1e-9)
    assert light(maps, 11.5, 0.4, corrected=True) != pytest.approx(light(maps, 11.5, 0.4), rel=1e-5)


def test_correction_of_the_embedded_map_is_exact_where_it_was_measured(juno):
    maps, settings = DetectorModel.build(juno).uniformity, juno.detector.uniformity
    for r in settings.calibration_radius_m:
        for c in settings.calibration_cos_theta:
            true = light(maps._replace(azimuth=0.0), r, c)
            assert light(maps, r, c, corrected=True) == pytest.approx(true, rel=1e-9)


def test_what_is_left_after_the_correction_of_the_embedded_map(juno):
    # The detector's file says that 0.2 % is left in the fiducial volume.
    maps, d = DetectorModel.build(juno).uniformity, juno.detector
    rng = np.random.default_rng(2)
    left = []
    for r, c, phi in zip(
        d.fiducial_radius_m * rng.random(4000) ** (1 / 3),
        rng.uniform(-1, 1, 4000),
        rng.uniform(0, 2 * math.pi, 4000),
        strict=True,
    ):
        left.append(light(maps, r, c, phi=phi) / light(maps, r, c, corrected=True, phi=phi) - 1)
    assert 0.0012 < np.std(left) < 0.0022
    assert abs(np.mean(left)) < 0.0005


def test_points_that_no_even_grid_holds_are_met_nearly():
    points = np.array([0.0, math.pi, 7.123_456, 12.345_678, 16.0])
    maps = built(calibration_radius_m=points)
    for r in points:
        assert light(maps, r, 0.4, corrected=True) == pytest.approx(light(maps, r, 0.4), rel=1e-4)


@pytest.mark.parametrize("folds", [1.0, 4.0])
def test_azimuthal_pattern_is_true_and_not_corrected(folds):
    maps, plain = built(azimuth=0.02, folds=folds), built()
    for r in (5.0, 17.7, 25.0):
        edge = min(r / 17.7, 1.0) ** 3
        for phi in (0.0, 0.4, math.pi / folds, 3.0):
            ratio = light(maps, r, 0.2, phi=phi) / light(plain, r, 0.2, phi=phi)
            assert ratio == pytest.approx(1 + 0.02 * edge * math.cos(folds * phi), rel=1e-12)
            corrected = light(maps, r, 0.2, corrected=True, phi=phi)
            assert corrected == light(plain, r, 0.2, corrected=True, phi=phi)


def test_beyond_the_edge_the_edge_counts():
    maps = built()
    assert light(maps, 30.0, 0.5) == pytest.approx(RATIO[-1, 3], rel=1e-9)
    assert light(maps, 30.0, 0.4, corrected=True) == pytest.approx(light(maps, 17.0, 0.4), rel=1e-9)


def changed(index, value):
    ratio = RATIO.copy()
    ratio[index] = value
    return ratio


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ratio": RATIO.T}, r"expected positive ratios of shape \(6, 5\), got shape \(5, 6\)"),
        ({"ratio": changed((2, 1), 0.0)}, "expected positive ratios .* values from 0 to"),
        ({"ratio": changed((2, 1), math.nan)}, "expected positive ratios"),
        ({"ratio": changed((2, 1), math.inf)}, "expected positive ratios"),
        ({"ratio": 0.98 * RATIO}, "expected a ratio of 1 at the centre, got .*0.98.*; divide the map"),
        ({"ratio": changed((0, 1), 1.01)}, "expected a ratio of 1 at the centre"),
        ({"radius_m": RADIUS + 0.5}, r"uniformity.radius_m: expected values that increase from 0, got \[0.5"),
        ({"radius_m": RADIUS[::-1]}, "uniformity.radius_m: expected values that increase from 0"),
        ({"radius_m": np.zeros(1), "ratio": np.ones((1, 5))}, "uniformity.radius_m"),
        ({"radius_m": np.zeros(0), "ratio": np.ones((0, 5))}, "uniformity.radius_m"),
        ({"cos_theta": COS * 0.9}, "uniformity.cos_theta: expected values that increase from -1 to 1"),
        ({"cos_theta": np.array([-1.0, -0.5, 0.0, 0.5, 0.9])}, "uniformity.cos_theta"),
        ({"calibration_radius_m": np.array([0.0, 5.0, 3.0])}, "uniformity.calibration_radius_m: expected one or more"),
        ({"calibration_radius_m": np.array([])}, "uniformity.calibration_radius_m"),
        ({"calibration_cos_theta": np.array([0.0, 0.0])}, "uniformity.calibration_cos_theta"),
        ({"calibration_cos_theta": np.array([0.0, math.nan])}, "uniformity.calibration_cos_theta"),
    ],
)
def test_maps_are_checked(change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        built(**change)

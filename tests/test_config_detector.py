"""The table [detector]: numbers in range, places and names that exist, one sentence with file and key if not."""

import math
from dataclasses import fields, replace

import pytest

from nuebar.config_detector import (
    CorrelatedPairs,
    Detector,
    Neutrons,
    Singles,
    UniformitySettings,
    check_detector,
)
from nuebar.errors import NuebarError
from nuebar.records import from_mapping, to_mapping


@pytest.fixture(scope="module")
def detector(juno) -> Detector:
    return juno.detector


def test_the_embedded_detector_is_good(detector):
    check_detector(detector, "juno.toml")
    assert from_mapping(Detector, to_mapping(detector), "again") == detector


def test_sizes_of_juno(detector):
    # 35.4 m of inner diameter, 120 mm of acrylic: many papers of the collaboration.
    assert detector.radius_m == 17.7
    assert detector.acrylic_m == 0.12
    # Muons: 0.004 Hz/m² over the cross-section; dead time 8.4 % (arXiv:2204.13249, table 3).
    assert detector.muon_Hz == pytest.approx(0.004 * math.pi * 17.7**2, rel=0.01)
    assert 1 - math.exp(-detector.muon_Hz * 1e-3 * detector.muon_dead_ms) == pytest.approx(0.084, abs=0.001)
    # 20 kHz of 17612 tubes in 420 ns.
    assert detector.dark_pe == pytest.approx(17_612 * 20e3 * 420e-9, rel=0.01)
    # Rates of radioactivity add up to the published 59.2 Hz.
    assert sum(s.rate_Hz for s in detector.singles) == pytest.approx(59.2, abs=0.5)


def test_every_number_has_a_range(detector):
    ranged = {name for name, value in to_mapping(detector).items() if isinstance(value, float)}
    for name in sorted(ranged):
        for value in (math.nan, -1.0, 1e12):
            with pytest.raises(NuebarError, match=rf"my\.toml: key 'detector\.{name}': expected .*; check the unit"):
                check_detector(replace(detector, **{name: value}), "my.toml")


def test_the_ranges_belong_to_fields():
    from nuebar import config_detector

    assert set(config_detector._RANGES) <= {f.name for f in fields(Detector)}


ROCK = Singles("rock", "outside", 1.5, {"Tl208": 1.0}, 20.0)
EDGE = CorrelatedPairs("fast_neutrons", 0.1, 0.38, "fast_neutrons", "edge", 0.8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fiducial_radius_m": 17.8}, r"'detector\.fiducial_radius_m': expected at most radius_m, got 17\.8"),
        ({"outer_radius_m": 17.82}, r"'detector\.outer_radius_m': expected more than radius_m \+ acrylic_m"),
        ({"quenching": "csda"}, r"'detector\.quenching': expected 'step' or 'local', got 'csda'"),
        ({"muon_Hz": 1000.0, "muon_dead_ms": 100.0}, r"'detector\.muon_dead_ms': expected less dead time than time"),
        (
            {"neutrons": Neutrons(capture_time_us=0.0)},
            r"'detector\.neutrons\.capture_time_us': expected a number",
        ),
        (
            {"neutrons": Neutrons(carbon_share=1.1)},
            r"'detector\.neutrons\.carbon_share': expected a number",
        ),
        ({"neutrons": Neutrons(diffusion_cm=-1.0)}, r"'detector\.neutrons\.diffusion_cm'"),
        (
            {"uniformity": UniformitySettings(azimuth=-0.1)},
            r"'detector\.uniformity\.azimuth': expected a number",
        ),
        ({"uniformity": UniformitySettings(azimuth=2.0)}, r"'detector\.uniformity\.azimuth'"),
        ({"uniformity": UniformitySettings(folds=2.5)}, r"'detector\.uniformity\.folds': expected a whole number"),
        ({"uniformity": UniformitySettings(folds=-4.0)}, r"'detector\.uniformity\.folds': expected a number from 0"),
        (
            {"uniformity": UniformitySettings(calibration_radius_m=(0.0, 5.0, 3.0))},
            r"'detector\.uniformity\.calibration_radius_m': expected numbers that increase, got .*; sort them",
        ),
        (
            {"uniformity": UniformitySettings(calibration_radius_m=(-1.0, 5.0))},
            r"'detector\.uniformity\.calibration_radius_m': expected a number from 0 to 100, got -1",
        ),
        (
            {"uniformity": UniformitySettings(calibration_cos_theta=(-1.0, 0.0, 0.0))},
            r"'detector\.uniformity\.calibration_cos_theta': expected numbers that increase",
        ),
        (
            {"uniformity": UniformitySettings(calibration_cos_theta=(-1.0, 1.5))},
            r"'detector\.uniformity\.calibration_cos_theta': expected a number from -1 to 1, got 1\.5",
        ),
        ({"singles": (ROCK, ROCK)}, r"'detector\.singles': expected each name once, got 'rock'; rename one"),
        ({"singles": (replace(ROCK, rate_Hz=-1.0),)}, r"'detector\.singles\.rock\.rate_Hz': expected a number from 0"),
        ({"singles": (replace(ROCK, place="far"),)}, r"'detector\.singles\.rock\.place': expected 'inside', 'acrylic'"),
        (
            {"singles": (replace(ROCK, radius_m=17.0),)},
            r"'detector\.singles\.rock\.radius_m': expected a number",
        ),
        ({"singles": (replace(ROCK, radius_m=25.0),)}, r"'detector\.singles\.rock\.radius_m'"),
        (
            {"singles": (replace(ROCK, activity={}),)},
            r"'detector\.singles\.rock\.activity': expected nuclides",
        ),
        ({"singles": (replace(ROCK, activity={"K40": 0.0}),)}, r"'detector\.singles\.rock\.activity'"),
        ({"singles": (replace(ROCK, activity={"K40": -1.0, "U238": 2.0}),)}, r"'detector\.singles\.rock\.activity'"),
        ({"pairs": (EDGE, EDGE)}, r"'detector\.pairs': expected each name once, got 'fast_neutrons'"),
        ({"pairs": (replace(EDGE, rate_per_day=-1.0),)}, r"'detector\.pairs\.fast_neutrons\.rate_per_day'"),
        (
            {"pairs": (replace(EDGE, efficiency=0.0),)},
            r"'detector\.pairs\.fast_neutrons\.efficiency': expected",
        ),
        ({"pairs": (replace(EDGE, efficiency=1.1),)}, r"'detector\.pairs\.fast_neutrons\.efficiency'"),
        (
            {"pairs": (replace(EDGE, place="inside"),)},
            r"'detector\.pairs\.fast_neutrons\.place': expected 'uniform'",
        ),
        (
            {"pairs": (replace(EDGE, depth_m=0.0),)},
            r"'detector\.pairs\.fast_neutrons\.depth_m': expected a number",
        ),
    ],
)
def test_detector_is_checked(detector, change, sentence):
    with pytest.raises(NuebarError, match=rf"my\.toml: key {sentence}"):
        check_detector(replace(detector, **change), "my.toml")


@pytest.mark.parametrize(
    "change",
    [
        {"singles": (), "pairs": ()},
        {"singles": (replace(ROCK, place="inside", radius_m=0.0),)},
        {"pairs": (replace(EDGE, place="uniform", depth_m=0.0),)},
        {"uniformity": UniformitySettings()},
        {"fiducial_radius_m": 17.7},
        {"constant": 0.0, "dark_pe": 0.0, "charge_sigma": 0.0, "muon_Hz": 0.0},
    ],
)
def test_detectors_that_are_good(detector, change):
    check_detector(replace(detector, **change), "my.toml")


def test_checks_are_part_of_loading(juno):
    from nuebar.config import experiment_from_mapping

    content = to_mapping(juno)
    del content["source"]
    content["detector"]["radius_m"] = 17_700.0
    with pytest.raises(NuebarError, match=r"key 'detector\.radius_m': expected a number from 0\.05 to 100, got 17700"):
        experiment_from_mapping(content, source="my.toml")

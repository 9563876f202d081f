"""Selection files: the published numbers, and one sentence for every mistake."""

import dataclasses

import pytest

from nuebar.errors import NuebarError
from nuebar.records import to_mapping, to_toml
from nuebar.select.config import available_selections, check_selection, load_selection


def written(tmp_path, **changes):
    """The shipped file with some keys replaced: ``table__key=value``, None to leave it out."""
    raw = to_mapping(load_selection())
    raw.pop("source")
    for dotted, value in changes.items():
        *tables, key = dotted.split("__")
        place = raw
        for name in tables:
            place = place[name]
        place[key] = value
    path = tmp_path / "own.toml"
    path.write_text(to_toml(raw), encoding="utf-8")
    return path


def test_published_numbers():
    # Talk on arXiv:2406.12901: cuts and rates; window and threshold by contract.
    config = load_selection("published")
    assert (config.pairs.window_ms, config.pairs.threshold_MeV) == (2.0, 0.7)
    assert (config.pairs.window_us, config.pairs.window_ns) == (2000.0, 2_000_000)
    assert (config.detector.radius_m, config.detector.fiducial_radius_m) == (17.7, 17.2)
    assert config.cuts.prompt_MeV == (0.7, 12.0)
    assert config.cuts.delayed_MeV == ((1.9, 2.5), (4.4, 5.5))
    assert (config.cuts.dt_ms, config.cuts.dr_m, config.cuts.fiducial_on) == (1.0, 1.5, "prompt")
    assert config.rates.ibd_per_day == 57.4
    assert "published" in available_selections()


def test_singles_are_those_of_the_detector(juno):
    config = load_selection()
    assert config.rates.singles_Hz == pytest.approx(sum(s.rate_Hz for s in juno.detector.singles), rel=2e-3)
    assert config.pairs.threshold_MeV == juno.detector.singles_threshold_MeV
    assert config.detector.fiducial_radius_m == juno.detector.fiducial_radius_m
    assert config.rates.ibd_per_day == juno.detector.ibd_per_day


def test_accidentals_a_day():
    config = load_selection()
    # 59.2² Hz² x 2 ms x 86400 s; the talk says "> 1e5".
    assert config.accidentals_per_day == pytest.approx(605_602, abs=1)
    half = dataclasses.replace(config, pairs=dataclasses.replace(config.pairs, window_ms=1.0))
    assert half.accidentals_per_day == pytest.approx(config.accidentals_per_day / 2)
    twice = dataclasses.replace(config, rates=dataclasses.replace(config.rates, singles_Hz=2 * 59.2))
    assert twice.accidentals_per_day == pytest.approx(config.accidentals_per_day * 4)


def test_options_of_the_stream(tmp_path):
    plain = load_selection().pairs.options()
    assert (plain.window_ms, plain.threshold_MeV, plain.isolation, plain.veto) == (2.0, 0.7, None, None)
    path = written(tmp_path, pairs__multiplicity="isolated", pairs__isolation_ms=1.5, pairs__muon_veto_ms=22.3)
    strict = load_selection(path).pairs.options()
    assert (strict.isolation.before_ms, strict.isolation.after_ms, strict.veto.veto_ms) == (1.5, 1.5, 22.3)


def test_own_file_reads_back(tmp_path):
    path = written(tmp_path, cuts__dr_m=None, cuts__fiducial_on="both", pairs__multiplicity="isolated")
    config = load_selection(path)
    assert (config.cuts.dr_m, config.cuts.fiducial_on, config.pairs.multiplicity) == (None, "both", "isolated")
    assert config.source == str(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, ("format", "expected 1", "update")),
        ({"pairs__window_ms": 0.0}, ("pairs.window_ms", "above 0")),
        ({"pairs__window_ms": 2e4}, ("pairs.window_ms", "at most 1000")),
        ({"pairs__window_ms": "long"}, ("pairs.window_ms", "a number", "'long'")),
        ({"pairs__threshold_MeV": -1.0}, ("pairs.threshold_MeV", "from 0")),
        ({"pairs__multiplicity": "some"}, ("pairs.multiplicity", "all, isolated", "'some'")),
        ({"pairs__multiplicity": "isolated", "pairs__isolation_ms": 0.0}, ("pairs.isolation_ms", "above 0")),
        ({"pairs__isolation_ms": -1.0}, ("pairs.isolation_ms",)),
        ({"pairs__muon_veto_ms": -1.0}, ("pairs.muon_veto_ms", "no veto")),
        ({"detector__radius_m": 0.0}, ("detector.radius_m", "above 0")),
        ({"detector__fiducial_radius_m": 18.0}, ("detector.fiducial_radius_m", "at most 17.7")),
        ({"cuts__fiducial_on": "delayed"}, ("cuts.fiducial_on", "prompt, both")),
        ({"cuts__prompt_MeV": [12.0, 0.7]}, ("cuts.prompt_MeV", "[low, high]")),
        ({"cuts__prompt_MeV": [0.7]}, ("cuts.prompt_MeV", "[low, high]")),
        ({"cuts__delayed_MeV": []}, ("cuts.delayed_MeV", "at least one")),
        ({"cuts__delayed_MeV": [[1.9, 2.5], [5.5, 4.4]]}, ("cuts.delayed_MeV[1]",)),
        ({"cuts__delayed_MeV": [[4.4, 5.5], [1.9, 4.5]]}, ("cuts.delayed_MeV", "overlap")),
        ({"cuts__dt_ms": 3.0}, ("cuts.dt_ms", "at most the window of 2")),
        ({"cuts__dr_m": 0.0}, ("cuts.dr_m", "above 0")),
        ({"rates__ibd_per_day": 0.0}, ("rates.ibd_per_day", "above 0")),
        ({"rates__singles_Hz": -1.0}, ("rates.singles_Hz", "above 0")),
        ({"pairs__windw_ms": 1.0}, ("pairs.windw_ms", "did you mean 'window_ms'")),
        ({"source": "me"}, ("source", "remove it")),
    ],
)
def test_refusals(tmp_path, changes, words):
    path = written(tmp_path, **changes)
    with pytest.raises(NuebarError) as error:
        load_selection(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    for word in words:
        assert word in text


def test_unknown_word_and_file(tmp_path):
    with pytest.raises(NuebarError, match="did you mean 'published'"):
        load_selection("publshed")
    with pytest.raises(NuebarError, match=r"no selection .*absent\.toml"):
        load_selection(tmp_path / "absent.toml")


def test_changes_are_checked_like_files():
    config = load_selection()
    with pytest.raises(NuebarError, match=r"published\.toml"):
        check_selection(dataclasses.replace(config, cuts=dataclasses.replace(config.cuts, dt_ms=5.0)))

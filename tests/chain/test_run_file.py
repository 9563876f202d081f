"""What a run file may say: everything else is one sentence, before anything is made or any memory is taken."""

import math
import os
import resource
import time
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.chain.folder import _part
from nuebar.chain.run_checks import _RANGES, _RESPONSE_RANGES, check_run_file
from nuebar.chain.run_file import RESPONSE, STAGES, load_run_file, show_run_file
from nuebar.chain.run_paths import WORDS, missing_path
from nuebar.errors import NuebarError

SHIPPED = load_run_file()


@contextmanager
def refused(words):
    """One sentence, soon, and without much memory."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(NuebarError, match=words) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text
    assert all(c.isprintable() for c in text), "control characters of the file reach the terminal"
    assert len(text) < 1200
    assert time.monotonic() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def written(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- defaults, round trips


def test_the_shipped_file_names_every_key():
    for table in STAGES:
        for spec in fields(getattr(SHIPPED, table)):
            assert getattr(getattr(SHIPPED, table), spec.name) is not None or spec.default is None
    assert SHIPPED.simulated
    assert SHIPPED.outside == ()


def test_every_number_has_an_upper_end():
    """A key that somebody adds is refused here until it has one."""

    def numbers(record, prefix):
        for spec in fields(record):
            value = getattr(record, spec.name)
            if is_dataclass(value):
                yield from numbers(value, f"{prefix}{spec.name}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield prefix + spec.name

    assert set(numbers(SHIPPED, "")) - {"format"} == set(_RANGES)


def test_ranges_of_the_response_are_those_of_the_monte_carlo():
    from nuebar.simulate.quench import Response

    for k, name in enumerate(RESPONSE):
        low, high = _RESPONSE_RANGES[name]
        middle = [15.0, 0.5, 1e4]
        for value, good in ((low, True), (high, True), (high * 1.01, False), (low - 0.05, False)):
            middle[k] = value
            if good:
                Response(*middle)
            else:
                with pytest.raises(NuebarError):
                    Response(*middle)


def test_words_are_those_that_ship():
    from nuebar.predict import store as predictors
    from nuebar.select import store as classifiers
    from nuebar.tune import store as densities

    assert set(WORDS["select.classifier"]) == {*classifiers.PRETRAINED, "cuts"}
    assert set(WORDS["tune.density"]) == set(densities.PRETRAINED)
    assert set(WORDS["predict.predictor"]) == set(predictors.PRETRAINED)


def test_what_is_shown_is_read_again(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "own.toml").touch()
    run = load_run_file(
        written(
            tmp_path,
            'title = "a \\"quoted\\" <b>title</b> ν̄e \\\\ end"\nseed = 9223372036854775807\nexperiment = "own.toml"\n'
            '[data]\nstream = "data"\nresponse = "data/posterior.json"\nmonte_carlo = { ibd = "data/*.parquet" }\n'
            "[select]\nthreshold = 0.1\n[fit]\ncontour = []\n[tune]\nsamples = 123\n[fit.priors.sin2_th12]\n"
            "value = 0.30700000000000005\nsigma = 1e-3\n",
        )
    )
    again = load_run_file(written(tmp_path, show_run_file(run)))
    assert again.mapping() == run.mapping()
    assert again.outside == ()
    assert run.data.stream == str(tmp_path / "data")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.integers(), st.floats(), st.sampled_from(sorted(_RANGES)))
def test_whatever_is_set_is_read_again_or_one_sentence(text, whole, number, key):
    for changes in ({"title": text}, {key: whole}, {key: number}, {key: text}, {text: whole}):
        try:
            run = load_run_file(None, changes)
        except NuebarError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        import tomllib

        from nuebar.records import from_mapping

        again = from_mapping(type(run), tomllib.loads(show_run_file(run)), "again")
        assert again.mapping() == run.mapping()


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("key", sorted(_RANGES))
def test_numbers_beyond_their_range_are_refused(key):
    least, most = _RANGES[key]
    kind = type(getattr(getattr(SHIPPED, key.split(".")[0]), key.split(".")[1]) if "." in key else SHIPPED.seed)
    for value in (least - 1, most + 1, most * 10 + 1, -1, 10**30, 10**400):
        with refused(key):
            load_run_file(None, {key: kind(value) if abs(value) < 1e300 else value})
    for value in (math.nan, math.inf, -math.inf, "30", True, [30], {"value": 1}, None):
        with refused(key.split(".")[-1]):
            load_run_file(None, {key: value})
    if kind is int:
        with refused(f"{key}.*a whole number"):
            load_run_file(None, {key: float(most)})
    run = load_run_file(None, {key: kind(most), **({"fit.high_MeV": 20.0} if key == "fit.low_MeV" else {})} if (
        key not in ("fit.low_MeV", "simulate.days")) else {})  # fmt: skip
    assert run.format == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"simulate.days": 1e9}, r"simulate\.days.*36,500.*1000000000"),
        ({"simulate.days": 0.0}, r"simulate\.days"),
        ({"simulate.days": -30.0}, r"simulate\.days"),
        ({"fit.bins": 10**9}, r"fit\.bins.*2,000"),
        ({"simulate.cascades": 10**12}, r"simulate\.cascades"),
        ({"simulate.days": 36_500.0, "simulate.window_s": 60.0}, r"window_s.*at most 1,000,000 windows"),
        ({"fit.low_MeV": 5.0, "fit.high_MeV": 5.0}, r"fit\.low_MeV"),
        ({"fit.contour": ["fC"]}, "two parameters"),
        ({"fit.contour": ["fC", "fC"]}, "two parameters"),
        ({"fit.contour": ["fC", "dm2_21"]}, "fit.contour.*dm2_21"),
        ({"fit.contour": ["fC"] * 100_000}, "two parameters"),
        ({"fit.ordering": "normal "}, "one of normal, inverted"),
        ({"fit.statistic": "chi2"}, "fit.statistic"),
        ({"tune.method": "hmc"}, "tune.method"),
        ({"format": 2}, "format"),
        ({"fit.priors.sin2_th12": {"value": 0.3, "sigma": 0.0}}, "sigma"),
        ({"fit.priors.sin2_th12": {"value": 0.3, "sigma": -1.0}}, "sigma"),
        ({"fit.priors.sin2_th12": {"value": 0.3, "sigma": 1e300}}, "sigma"),
        ({"fit.priors.sin2_th12": {"value": 1e300, "sigma": 0.1}}, "value"),
        ({"fit.priors.dm2_31_eV2": {"value": -2.5e-3, "sigma": 1e-4}}, "ordering"),
        ({"fit.priors.theta": {"value": 0.3, "sigma": 0.1}}, "fit.priors.theta"),
        ({"simulate.truth.oscillation.sin2_th12": {"value": -0.3, "sigma": 0.1}}, "between 0 and 1"),
        ({"simulate.truth.response.fC": {"low": 0.5, "high": 0.4}}, "low not above high"),
        ({"simulate.truth.response.fC": {"low": -0.5, "high": 0.4}}, "fC"),
        ({"simulate.truth.response.light_yield_per_MeV": {"low": 1e4, "high": 1e12}}, "light_yield"),
        ({"simulate.truth.response.extra": {"low": 0.1, "high": 0.4}}, "extra"),
        ({"source": "x"}, "source"),
        ({"outside": ["x"]}, "outside"),
        ({"simulate": 3}, "a table"),
        ({"simulate.day": 3.0}, r"unknown key 'simulate\.day'; did you mean 'days'"),
        ({"report.explorer": 1}, "true or false"),
    ],
)
def test_wrong_contents_are_refused(changes, words):
    with refused(words):
        load_run_file(None, changes)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("bad", ["\0", "a\0b", "a\nb", "\x1b[31m", "a\rb", "\x7f", "\udc80"], ids=ascii)
@pytest.mark.parametrize("key", ["title", "experiment", "select.classifier", "data.response", "full.plan", "select.at"])
def test_control_characters_are_refused(key, bad):
    more = {"data.stream": "x"} if key == "data.response" else {}
    with refused(key):
        load_run_file(None, {key: bad, **more})


@pytest.mark.parametrize("text", ["", "   "])
@pytest.mark.parametrize("key", ["experiment", "select.classifier", "select.selection", "tune.density", "data.stream"])
def test_empty_texts_are_refused(key, text):
    with refused(key):
        load_run_file(None, {key: text, **({"data.response": "x"} if "data" in key else {})})


@pytest.mark.parametrize("name", ["", "a b", "<b>", "a\nb", "../x", "a/b", "\0", "ν", "x" * 65, ".x"])
@pytest.mark.parametrize("table", ["calibration", "monte_carlo"])
def test_names_of_sources_are_words(table, name):
    with refused(r"data\.|64 characters"):
        load_run_file(None, {"data": {"stream": "s", "calibration": {"K40": "c"}, table: {name: "p"}}})


def test_long_texts_are_refused():
    with refused("at most 4096 characters"):
        load_run_file(None, {"title": "x" * 4097})


def test_markup_and_letters_of_the_world_are_texts():
    title = "<script>alert(1)</script> & ν̄ₑ ‮ 日本"
    assert load_run_file(None, {"title": title}).title == title
    assert load_run_file(None, {"title": ""}).title == ""


@pytest.mark.parametrize(
    "data",
    [
        {"stream": "s"},
        {"calibration": {"K40": "c"}},
        {"stream": "s", "sample": "t", "response": "r"},
        {"stream": "s", "response": "r", "calibration": {"K40": "c"}},
        {"stream": 3},
        {"stream": ["a", "b"], "response": "r"},
        {"strem": "s"},
    ],
    ids=str,
)
def test_half_of_the_data_is_refused(data):
    with refused("data"):
        load_run_file(None, {"data": data})


# ---------------------------------------------------------------- the file itself

BOMBS = {
    "brackets": "title = " + "[" * 50_000,
    "tables": "title = " + "{a=" * 20_000,
    "dotted": "title." + "a." * 20_000 + "b = 1",
    "dotted below a table": "[simulate.truth.oscillation]\n" + "a." * 20_000 + "b = 1",
    "header": "[" + "a." * 20_000 + "b]",
    "digits": "seed = " + "9" * 50_000,
    "many keys": "\n".join(f"k{i} = {i}" for i in range(8000)),
    "long key": "k" * 90_000 + " = 1",
    "long text": f'title = "{"x" * 90_000}"',
    "nul": 'title = "\0"',
    "escaped nul": 'title = "\\u0000"',
    "not toml": "title : nope",
    "markup": "<html></html>",
    "dates": "seed = 1979-05-27",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_files_that_are_bombs_are_one_sentence(kind, tmp_path):
    with refused("run.toml|title"):
        load_run_file(written(tmp_path, BOMBS[kind]))


def test_a_file_that_is_none_is_told(tmp_path):
    large = tmp_path / "large.toml"
    with open(large, "wb") as file:
        file.truncate(100_000_000)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (large, tmp_path, tmp_path / "absent.toml", "/dev/zero", tmp_path / "pipe", tmp_path / "loop"):
        with refused(r"at most 100000 bytes|expected a run file|cannot be read"):
            load_run_file(path)
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe4"')
    with refused("UTF-8"):
        load_run_file(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "a", "a.b.c", "fit.", ".fit", "fit..bins", "a." * 3000 + "b", "x" * 100_000, "\0", "fit.bins.x"],
)
def test_keys_of_the_command_line_that_are_none(key):
    with refused("unknown key|a table|depth|a whole number|a text|64 characters"):
        load_run_file(None, {key: 3})


# ---------------------------------------------------------------- paths


@pytest.fixture
def bundle(tmp_path):
    """A folder that somebody has sent, and what lies beside it."""
    home = tmp_path / "bundle"
    (home / "deep" / "er").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for folder in (home, outside, home / "deep"):
        (folder / "x.parquet").touch()
    (outside / "juno.toml").touch()
    (home / "link").symlink_to(outside)
    (home / "hop").symlink_to(home / "deep" / "er")
    (home / "mixed").mkdir()
    (home / "mixed" / "out").symlink_to(outside)
    (home / "loop").symlink_to(home / "loop")
    (home / "linked").mkdir()
    (home / "linked" / "x.parquet").symlink_to(outside / "x.parquet")
    return home


def of(stream, bundle, **more):
    text = "\n".join(f"{k} = {v!r}" for k, v in {"stream": str(stream), "response": "r.json"}.items())
    lines = "\n".join(f"[{k.split('.')[0]}]\n{k.split('.')[1]} = {v!r}" for k, v in more.items())
    return load_run_file(written(bundle, f"[data]\n{text}\n{lines}"))


@pytest.mark.parametrize(
    "path",
    [
        "../outside", "..", "deep/../../outside", "../bundle/../outside/x.parquet", "link", "link/x.parquet",
        "l*k/x.parquet", "*/x.parquet", "**/x.parquet", "mixed", "mixed/out/x.parquet", "linked", "linked/*",
        "./../outside", "../bundle2", "deep/../link",
    ],
)  # fmt: skip
def test_a_relative_path_cannot_leave_the_folder(path, bundle):
    with refused("data.stream.*leads out of it|data.stream.*absolute"):
        of(path, bundle)


@pytest.mark.parametrize("path", ["loop", "loop/x", "link/../outside", "~/x", "~root/x", "x" * 4000])
def test_a_path_that_leads_nowhere_is_told(path, bundle):
    try:
        run = of(path, bundle)
    except NuebarError as error:
        assert "data.stream" in str(error)  # noqa: PT017
    else:
        assert missing_path(run)[0] == "data.stream"


@pytest.mark.parametrize(
    "path", ["deep", "x.parquet", "deep/*.parquet", "deep/../x.parquet", "./deep/", "hop", "absent"]
)
def test_a_relative_path_inside_is_made_absolute(path, bundle):
    run = of(path, bundle)
    assert Path(run.data.stream).is_relative_to(bundle)
    assert ".." not in run.data.stream
    assert run.outside == ()


def test_dots_behind_a_link_mean_what_they_say(bundle):
    """The kernel takes hop/.. for deep; what is checked must be what is read."""
    run = of("hop/../out/x.parquet", bundle)
    assert run.data.stream == str(bundle / "out" / "x.parquet")


def test_absolute_paths_are_told(bundle):
    outside = bundle.parent / "outside"
    run = of(outside, bundle, **{"tune.density": str(outside)})
    assert run.outside == (f"data.stream = {outside}", f"tune.density = {outside}")
    assert of(bundle / "deep", bundle).outside == ()
    assert of(bundle / "link", bundle).outside == (f"data.stream = {bundle / 'link'}",)


@pytest.mark.parametrize("key", ["select.classifier", "tune.density", "predict.predictor"])
@pytest.mark.parametrize("text", ["../outside", "link", ".."])
def test_models_are_in_the_folder_too(key, text, bundle):
    with refused(f"{key}.*leads out of it"):
        of("deep", bundle, **{key: text})


@pytest.mark.parametrize("key", ["select.classifier", "tune.density", "predict.predictor"])
def test_a_word_that_does_not_ship_is_a_folder_beside_the_file(key, bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()  # of the current folder, which is nobody's business
    run = of("deep", bundle, **{key: "deep"})
    table, name = key.split(".")
    assert getattr(getattr(run, table), name) == str(bundle / "deep")
    assert missing_path(of("deep", bundle, **{key: "typo"})) == ("data.response", str(bundle / "r.json"))


@pytest.mark.parametrize("key", ["select.selection", "experiment"])
@pytest.mark.parametrize(
    "text", ["../../outside/juno", "/etc/passwd", "juno.toml/../x", "a b", "../juno", "juno/../juno"]
)
def test_names_of_what_ships_are_no_paths(key, text, bundle):
    with refused(key):
        load_run_file(None, {key: text})
    with refused(f"{key}.*leads out of it"):
        load_run_file(written(bundle, ""), {key: "../outside/juno.toml"})


def test_without_a_file_paths_are_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_run_file(None, {"data.stream": "../x", "data.response": "/r.json"})
    assert run.data.stream == str(tmp_path.parent / "x")
    assert run.outside == ("data.response = /r.json",)


# ---------------------------------------------------------------- which stage a key belongs to


def test_every_key_belongs_to_a_stage():
    """A changed key is noticed by one stage at least; only the title, and sizes of trainings, are no difference."""
    base = SHIPPED.mapping()

    def leaves(value, path):
        if isinstance(value, dict) and value:
            for name, item in value.items():
                yield from leaves(item, (*path, name))
        else:
            yield path

    for path in leaves(base, ()):
        changed = SHIPPED.mapping()
        table = changed
        for part in path[:-1]:
            table = table[part]
        table[path[-1]] = "changed"
        seen = [s for s in STAGES if _part(changed, s) != _part(base, s)]
        if path[0] in ("title", "full"):
            assert seen == []
        else:
            assert seen, path
            assert path[0] not in STAGES or STAGES.index(seen[0]) <= STAGES.index(path[0])


def test_data_of_ones_own_are_not_simulated_again_for_another_fit():
    own = {"data": {"stream": "s", "response": "r"}}
    first, second = (load_run_file(None, {**own, "fit.energy_scale": x}).mapping() for x in (0.01, 0.02))
    assert [s for s in STAGES if _part(first, s) != _part(second, s)] == ["predict", "fit"]
    first, second = (load_run_file(None, {"fit.energy_scale": x}).mapping() for x in (0.01, 0.02))
    assert [s for s in STAGES if _part(first, s) != _part(second, s)] == ["simulate", "predict", "fit"]


def test_a_record_made_by_hand_is_checked_alike():
    bad = replace(SHIPPED, simulate=replace(SHIPPED.simulate, days=1e9))
    with refused("simulate.days"):
        check_run_file(bad, "by hand")

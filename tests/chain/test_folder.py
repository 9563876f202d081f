"""The books of a run: what is done, from what, and what somebody has changed since."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from nuebar.chain import folder as folder_module
from nuebar.chain.folder import DONE, RunFolder, content_digest
from nuebar.chain.run_file import STAGES, load_run_file
from nuebar.chain.runner import ChainJob, run_chain
from nuebar.errors import NuebarError
from nuebar.io.results import load_result, save_result

TOY = Path(__file__).parent / "toy_chain.py"


@pytest.fixture
def toy(monkeypatch):
    """Cheap stages; called with changes of the run file, it returns the stages that were worked on."""
    monkeypatch.syspath_prepend(str(TOY.parent))
    import toy_chain

    from nuebar.chain import runner

    worked = []

    def work(job, folder, stage, *rest):
        worked.append(stage)
        return toy_chain.work(job, folder, stage, *rest)

    monkeypatch.setattr(runner, "_work", work)
    monkeypatch.setattr(runner, "git_commit", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # tests of crashes are elsewhere

    def run(out, changes=None, *, file=None, **options):
        worked.clear()
        run_chain(ChainJob(load_run_file(file, {"simulate.days": 0.1, **(changes or {})}), **options), out)
        return list(worked)

    yield run
    sys.modules.pop("toy_chain", None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the finished run is kept, once there is one."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def home(toy, tmp_path, kept):
    if not kept.exists():
        assert toy(kept) == list(STAGES)
    return Path(shutil.copytree(kept, tmp_path / "run", copy_function=shutil.copy2))


def tree(place):
    return {str(p.relative_to(place)): content_digest(p) for p in sorted(place.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- digests


def test_digests_leave_out_clocks_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    first = {"value": [1.0, {"x": 2}], "seconds": 3.0, "versions": {"numpy": "1"}, "inner": {"started": "now", "y": 1}}

    def digest(record):
        save_result(path, record)
        return content_digest(path)

    base = digest(first)
    assert digest({**first, "seconds": 4.0, "versions": {}, "inner": {"started": "then", "y": 1}}) == base
    assert digest(dict(reversed(first.items()))) == base
    for changes in (
        {"value": [1.0, {"x": 3}]},
        {"value": [1.0000000000000002, {"x": 2}]},
        {"more": 1},
        {"inner": {"y": 2}},
    ):
        assert digest({**first, **changes}) != base
    (tmp_path / "x.bin").write_bytes(b"a")
    (tmp_path / "y.bin").write_bytes(b"b")
    assert content_digest(tmp_path / "x.bin") != content_digest(tmp_path / "y.bin")


def test_what_is_done_is_not_done_again(toy, home):
    before = tree(home)
    assert toy(home) == []
    assert tree(home) == before


# ---------------------------------------------------------------- what was asked for

FIRST = {
    "seed": (2, "simulate"),
    "simulate.days": (0.2, "simulate"),
    "simulate.truth.oscillation.sin2_th12.value": (0.31, "simulate"),
    "select.windows": (10, "select"),
    "select.fiducial": (False, "simulate"),
    "select.delayed_MeV": (1.6, "simulate"),
    "fit.bins": (40, "select"),
    "fit.high_MeV": (9.0, "select"),
    "tune.samples": (500, "tune"),
    "predict.reference_pairs": (0, "predict"),
    "fit.priors.sin2_th13.sigma": (0.001, "simulate"),
    "fit.ordering": ("inverted", "simulate"),
    "fit.contour_points": (11, "fit"),
    "fit.statistic": ("poisson", "fit"),
    "report.explorer": (False, "report"),
}


@pytest.mark.parametrize("key", FIRST)
def test_a_changed_run_file_is_refused_and_the_stage_to_be_forced_is_named(key, toy, home):
    value, stage = FIRST[key]
    before = tree(home)
    later = STAGES[STAGES.index(stage) + 1 :]
    for force in ((), later[:1], later[-1:]):
        with pytest.raises(NuebarError, match="begun with") as caught:
            toy(home, {key: value}, force=force)
        text = str(caught.value)
        assert "\n" not in text
        assert f"{key}: " in text
        assert text.count(f"{key}: ") == 1
        assert " -> " in text
        assert text.endswith(f"--force-stage {stage}")
        assert tree(home) == before
    assert toy(home, {key: value}, force=(stage,)) == list(STAGES[STAGES.index(stage) :])
    assert toy(home, {key: value}) == []


def test_several_changes_name_the_first_stage(toy, home):
    with pytest.raises(NuebarError, match=r"tune\.samples.*fit\.statistic.*--force-stage tune$"):
        toy(home, {"fit.statistic": "poisson", "tune.samples": 500})
    with pytest.raises(NuebarError, match=r"\(tune\.samples: 4000 -> 500\).*--force-stage tune$"):
        toy(home, {"fit.statistic": "poisson", "tune.samples": 500}, force=("fit",))


def test_sizes_of_trainings_are_no_difference(toy, home):
    assert toy(home, {"full.ibd_pairs": 2000}) == []


def test_another_title_has_another_page_only(toy, home):
    assert toy(home, {"title": "other"}) == ["report"]
    assert "other" in (home / "report" / "index.html").read_text()
    assert 'title = "other"' in (home / "run.toml").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_a_forced_stage_is_done_again_with_all_after_it(stage, toy, home):
    stamps = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file()}
    before = tree(home)
    index = STAGES.index(stage)
    assert toy(home, force=(STAGES[-1], stage)) == list(STAGES[index:])
    assert tree(home) == before
    for path, stamp in stamps.items():
        if path.parts[len(home.parts)] in STAGES[:index]:
            assert path.stat().st_mtime_ns == stamp or path.name == ".lock"


def test_forcing_is_over_when_it_was_done(toy, home):
    assert toy(home, force=("fit",)) == ["fit", "report"]
    assert toy(home, force=("fit",)) == ["fit", "report"]
    assert load_result(home / "asked.json")["forced"] == []


def test_a_run_stops_after_a_stage_and_goes_on(toy, tmp_path, home):
    out = tmp_path / "parts" / "run"
    assert toy(out, until="tune") == ["simulate", "select", "tune"]
    assert not (out / "predict").exists()
    assert toy(out, until="select") == []
    assert toy(out) == ["predict", "fit", "report"]
    assert toy(home, until="fit", force=("select",)) == ["select", "tune", "predict", "fit"]
    assert not (home / "report").exists()
    assert toy(home) == ["report"]


@pytest.mark.parametrize("options", [{"force": ("fits",)}, {"until": ""}, {"until": "Fit"}, {"force": ("",)}])
def test_unknown_stages_are_refused(options):
    with pytest.raises(NuebarError, match="expected one of simulate, select, tune, predict, fit, report"):
        ChainJob(load_run_file(), **options)


# ---------------------------------------------------------------- files of the user


@pytest.fixture
def own(tmp_path):
    """An experiment with a table, a model and data, with the run file that names them."""
    shipped = Path(folder_module.__file__).parents[1] / "experiments"
    place = tmp_path / "own"
    (place / "model").mkdir(parents=True)
    (place / "data").mkdir()
    shutil.copy(shipped / "juno.toml", place)
    shutil.copy(shipped / "daya_bay_shape.csv", place)
    shutil.copy(shipped / "selection" / "published.toml", place)
    (place / "model" / "model.json").write_text('{"digest": "1"}')
    (place / "data" / "a.parquet").write_bytes(b"stream")
    (place / "posterior.json").write_text('{"mean": 1}')
    (place / "run.toml").write_text(
        'experiment = "juno.toml"\n[data]\nstream = "data"\nresponse = "posterior.json"\n'
        'monte_carlo = { ibd = "data" }\n[select]\nclassifier = "model"\nselection = "published.toml"\n'
        '[tune]\ndensity = "model"\n[predict]\npredictor = "model"\n'
    )
    return place


def test_changed_files_of_the_user_are_noticed(toy, own, tmp_path):
    out, file = tmp_path / "run", own / "run.toml"
    assert toy(out, file=file) == list(STAGES)
    assert toy(out, file=file) == []
    (own / "data" / "a.parquet").write_bytes(b"other")
    assert toy(out, file=file) == ["select", "fit", "report"] or toy(out, file=file) == []
    (own / "posterior.json").write_text('{"mean": 2}')
    assert "tune" in toy(out, file=file)
    (own / "model" / "model.json").write_text('{"digest": "2"}')
    assert {"select", "tune", "predict", "fit"} <= set(toy(out, file=file))
    text = (own / "published.toml").read_text()
    (own / "published.toml").write_text(text.replace("window_ms = 2", "window_ms = 1"))
    with pytest.raises(NuebarError, match=r"content\.selection\..*--force-stage select$"):
        toy(out, file=file)
    (own / "published.toml").write_text(text)
    (own / "daya_bay_shape.csv").write_text("changed")
    with pytest.raises(NuebarError, match=r"content\.tables\.daya_bay_shape.*--force-stage simulate$"):
        toy(out, file=file)
    shutil.rmtree(own / "data")
    with pytest.raises(NuebarError, match=r"'data\.stream': expected a file or folder, found no .*data"):
        toy(out, file=file)


def test_a_changed_experiment_is_refused_with_the_difference(toy, own, tmp_path):
    out, file = tmp_path / "run", own / "run.toml"
    toy(out, file=file)
    experiment = own / "juno.toml"
    text = experiment.read_text()
    experiment.write_text(text.replace('name = "', 'name = "my-', 1))
    with pytest.raises(NuebarError, match=r"content\.experiment\.\S*name: .* -> .*--force-stage simulate"):
        toy(out, file=file)
    assert toy(out, file=file, force=("simulate",)) == list(STAGES)


def test_absolute_paths_are_told(toy, own, tmp_path, caplog):
    file = tmp_path / "elsewhere.toml"
    file.write_text(
        f'[data]\nstream = "{own / "data"}"\nresponse = "own/posterior.json"\nmonte_carlo.ibd = "own/data"\n'
    )
    toy(tmp_path / "run", file=file)
    assert load_result(tmp_path / "run" / "run.json")["outside"] == []
    deeper = own / "deeper.toml"
    text = '[data]\nstream = "data"\nresponse = "posterior.json"\nmonte_carlo.ibd = "data"\n'
    deeper.write_text(f'{text}calibration_columns = "{file}"\n')
    toy(tmp_path / "again", file=deeper)
    told = f"data.calibration_columns = {file}"
    assert load_result(tmp_path / "again" / "run.json")["outside"] == [told]
    assert f"{told}: outside of the folder of the run file" in caplog.messages


def test_parts_of_other_inputs_are_not_kept(toy, home, tmp_path, own):
    """A stage that was killed after its input had changed must not go on from the parts of the old one."""
    out, file = tmp_path / "own-run", own / "run.toml"
    toy(out, file=file)
    (out / "predict" / DONE).unlink()
    (out / "predict" / "reference" / "ibd" / "stray.bin").write_bytes(b"of another input")
    (own / "model" / "model.json").write_text('{"digest": "3"}')
    toy(out, file=file)
    assert not (out / "predict" / "reference" / "ibd" / "stray.bin").exists()
    fresh = tmp_path / "fresh"
    toy(fresh, file=file)
    assert tree(fresh / "predict")["prediction.json"] == tree(out / "predict")["prediction.json"]


def test_what_a_killed_stage_left_is_not_taken_for_its_work(toy, home):
    before = tree(home)
    for stage in ("select", "tune", "fit", "report"):
        (home / stage / DONE).unlink()
        (home / stage / "diagnostics.json").write_text("{}")
    assert toy(home) == ["select", "tune", "fit", "report"]
    assert tree(home) == before


# ---------------------------------------------------------------- what is no run's


@pytest.mark.parametrize("name", ["simulate/stream/chunk-00004.bin", "fit/notes.txt", "select/more/x.bin"])
def test_a_file_that_the_stage_has_not_written_is_told(name, toy, home):
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_bytes(b"x")
    with pytest.raises(NuebarError, match=f"{name}: expected only what the stage has written"):
        toy(home)
    assert (home / name).read_bytes() == b"x"
    (home / name).unlink()
    assert toy(home) == []


def test_hidden_files_of_others_do_no_harm(toy, home):
    (home / "select" / ".DS_Store").write_bytes(b"x")
    (home / "mine.txt").write_text("x")
    assert toy(home) == []


@pytest.mark.parametrize("name", [*(f"{stage}/thesis.tex" for stage in STAGES), "run.toml", "run.json", "report"])
@pytest.mark.parametrize("force", [(), ("simulate",)])
def test_a_folder_that_no_run_has_begun_is_left_as_it_is(name, force, toy, tmp_path):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    with pytest.raises(NuebarError, match="expected a folder that is new or of a run"):
        toy(tmp_path, force=force)
    assert mine.read_text() == "years of work"
    assert not (tmp_path / "asked.json").exists()


def test_a_run_without_its_record_is_left_as_it_is(toy, home):
    (home / "asked.json").unlink()
    before = tree(home)
    for force in ((), ("simulate",)):
        with pytest.raises(NuebarError, match=r"asked\.json"):
            toy(home, force=force)
    assert tree(home) == before


def test_a_run_among_other_things_is_fine(toy, tmp_path):
    (tmp_path / "data.csv").write_text("mine")
    (tmp_path / "report").mkdir()
    assert toy(tmp_path) == list(STAGES)
    assert (tmp_path / "data.csv").read_text() == "mine"


def test_the_resolved_run_file_makes_the_same_run(toy, home, tmp_path):
    assert toy(home, file=home / "run.toml") == []
    other = tmp_path / "b" / "run"
    other.parent.mkdir()
    toy(other, file=home / "run.toml")
    assert tree(home / "fit") == tree(other / "fit")


# ---------------------------------------------------------------- links


LINKS = [
    "select",
    "simulate/stream",
    "report",
    "run.json",
    "asked.json",
    ".lock",
    "select/prompt.json",
    "simulate/.lock",
]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("force", [(), ("simulate",)])
def test_links_in_a_run_are_refused_and_nothing_behind_them_is_touched(name, force, toy, home, tmp_path):
    target = tmp_path / "target"
    place = home / name
    if place.is_dir():
        shutil.copytree(place, target)
        shutil.rmtree(place)
        (target / "precious").write_text("x")
    else:
        target.write_text("precious")
        place.unlink()
    place.symlink_to(target)
    before = {p: p.read_bytes() for p in (target, *target.rglob("*")) if p.is_file()}
    with pytest.raises(NuebarError, match=f"{name}: expected a run without links, got one to .*target"):
        toy(home, force=force)
    assert {p: p.read_bytes() for p in (target, *target.rglob("*")) if p.is_file()} == before


def test_clearing_follows_no_link(tmp_path):
    """Were there one nevertheless, such as one made meanwhile."""
    run, target = RunFolder.opened(tmp_path / "run"), tmp_path / "target"
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "precious").write_text("x")
    (run.home / "fit").mkdir()
    (run.home / "fit" / "inner").symlink_to(target)
    (run.home / "fit" / "file").symlink_to(target / "deep" / "precious")
    run.clear("fit")
    assert not (run.home / "fit").exists()
    (run.home / "select").symlink_to(target)
    with pytest.raises(NuebarError, match="cannot be removed"):
        run.clear("select")
    assert (target / "deep" / "precious").read_text() == "x"
    (run.home / f".cleared-{'0' * 16}").symlink_to(target)
    run.tidy()
    assert (target / "deep" / "precious").read_text() == "x"


def test_the_folder_itself_may_be_a_link(toy, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    assert toy(tmp_path / "run") == list(STAGES)
    assert (tmp_path / "scratch" / "fit" / DONE).exists()


# ---------------------------------------------------------------- done.json


def test_what_is_told_of_a_finished_stage_is_signed(toy, home):
    path = home / "fit" / DONE
    record = json.loads(path.read_text())
    for changes in (
        {"outputs": {}},
        {"told": {"valid": False}},
        {"inputs": {}},
        {"outputs": {"../../x": "0"}},
        {"digest": ""},
    ):
        path.write_text(json.dumps({**record, **changes}))
        assert RunFolder(home).record("fit") is None
        assert toy(home) == ["fit"], changes
    path.write_text(json.dumps({**record, "seconds": 10.0}))
    assert toy(home) == []


def test_every_stage_reads_what_it_says(toy, home):
    """Digests of a stage change with each file of those before that it reads."""
    inputs = {s: load_result(home / s / DONE)["inputs"] for s in STAGES}
    assert inputs["simulate"] == {}
    assert set(inputs["fit"]) == {"simulate", "select", "tune"}
    assert set(inputs["report"]) == {"simulate", "select", "tune", "predict", "fit", "title"}
    for stage in STAGES[1:]:
        for before, digest in inputs[stage].items():
            if before != "title":
                assert digest == RunFolder(home).digest(before)

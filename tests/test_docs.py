"""The documents tell the truth: examples run, links lead somewhere, no path of a machine, pages follow the records."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.predict.spectrum import build_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("the documents are not beside the tests", allow_module_level=True)
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
OWN = (DOCS / "own-experiment.md").read_text(encoding="utf-8")
# Python, and files whose name stands behind the language.
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)


def blocks(text, language):
    return [body for found, name, body in BLOCK.findall(text) if found == language and not name]


@pytest.fixture
def example_folder(tmp_path, monkeypatch):
    """The files of docs/own-experiment.md under their names, in the current folder."""
    for _, name, body in BLOCK.findall(OWN):
        if name:
            (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- examples


def test_readme_example_runs():
    """Eight lines, in a fresh process as a user has it, that print two errors of the expected size."""
    (code,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert len(code.splitlines()) == 8
    env = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.replace("'", '"'))
    published = {"sin2_th12": 0.0016, "dm2_21_eV2": 0.024e-5}  # arXiv:2204.13249, table 6
    assert errors == pytest.approx(published, rel=0.25)


def test_toml_example_loads(example_folder):
    experiment = load_experiment("kamland-like.toml")
    assert experiment.name == "kamland-like"
    numbers = [line for line in (example_folder / "kamland-like.toml").read_text().splitlines() if "=" in line]
    assert len(numbers) > 30


def test_python_example_fits_the_example_data(example_folder, capsys):
    """The measured spectrum of the example, with the TOML of the example, from Python."""
    (code,) = blocks(OWN, "python")
    scope = {}
    exec(code, scope)
    result = scope["result"]
    assert result.valid, result.reason
    # The counts are Poisson numbers of the nominal file; the example lowers the power of the far plants by a tenth.
    for name, truth in (("sin2_th12", 0.307), ("dm2_21_eV2", 7.53e-5)):
        assert abs(result.parameters[name].value - truth) < 3 * result.parameters[name].error
    assert "converged" in capsys.readouterr().out


def changed(folder, old, new):
    """The example's model and inputs with one line of its file replaced."""
    text = (folder / "kamland-like.toml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "changed.toml").write_text(text.replace(old, new), encoding="utf-8")
    experiment = load_experiment("changed.toml")
    return build_model(experiment, predictor="matrix")


def test_example_tables_are_read(example_folder):
    """Flux, history and background histogram of the document, each with the effect that its numbers have."""
    near = 'name = "near"'
    plain, parameters = changed(example_folder, near, near)
    flux, _ = changed(example_folder, 'shape = "daya_bay_shape.csv"', 'spectrum = "my-flux.csv"')
    assert 1.0 < flux.unoscillated().sum() / plain.unoscillated().sum() < 1.3  # no Daya Bay deficit, coarse nodes
    history, _ = changed(example_folder, near, f'{near}\nhistory = "power.csv"')
    one = [np.asarray(m.predictor.events).sum(axis=1) for m in (plain, history)]
    power = (300 * 24.0 + 340 * 22.5) / 700  # GW on average; the constant core has 24 GW in 0.7 of the time
    assert one[1][0] / one[0][0] == pytest.approx(power / (0.7 * 24.0), rel=0.02)  # the fuel differs a little
    np.testing.assert_allclose(one[1][1:], one[0][1:], rtol=1e-12)
    histogram, _ = changed(example_folder, 'shape = "alpha_n"', 'shape = "fast_neutrons.csv"')
    counts = histogram.components(parameters.nominal())["alpha_n"]
    assert counts.sum() == pytest.approx(0.08 * 2000.0)
    assert counts[-1] / counts[0] == pytest.approx(9 / 14)


def test_messages_are_those_of_the_document(example_folder):
    """Every row of the table of mistakes: the mistake gives the message that stands beside it."""
    rows = re.findall(r"^\| `([^`]+)` \| ``([^`]+(?:`[^`]+)*)`` \|$", OWN, re.M)
    assert len(rows) >= 4
    text = (example_folder / "kamland-like.toml").read_text(encoding="utf-8")
    for mistake, message in rows:
        key = mistake.split(" = ")[0]
        right = {"baseline_m": "baseline_km = 160.0", "[mater]": "[matter]"}.get(key)
        right = right or next(line.split("#")[0].rstrip() for line in text.splitlines() if line.startswith(f"{key} ="))
        assert right in text
        (example_folder / "wrong.toml").write_text(text.replace(right, mistake, 1), encoding="utf-8")
        with pytest.raises(NuebarError) as refused:
            load_experiment("wrong.toml")
        assert str(refused.value) == f"wrong.toml: {message}"


def test_predictors_of_the_method_page_agree(juno_matrix):
    """The example of docs/method.md, and the accuracies that it states, against the direct sum."""
    pytest.importorskip("numba")
    (code,) = blocks((DOCS / "method.md").read_text(encoding="utf-8"), "python")
    scope = {}
    exec(code, scope)
    in_matter = np.asarray(juno_matrix.predict({**scope["values"], "matter_density_g_cm3": 2.45}))
    in_vacuum = np.asarray(juno_matrix.predict(scope["values"]))
    for name, exact, tolerance in (("counts", in_matter, 1e-6), ("fast", in_matter, 1e-6), ("many", in_vacuum, 1e-5)):
        ours = np.atleast_2d(np.asarray(scope[name]))[-1]
        keep = exact > 1e-4 * exact.max()
        assert np.abs(ours / exact - 1)[keep].max() < tolerance, name
    assert scope["many"].shape == (1000, in_vacuum.size)


# ---------------------------------------------------------------- text


def slug(heading):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    return {slug(h) for h in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target} has no such heading"


def test_every_page_is_reachable_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in text


def kept_files():
    """Files that git keeps or would keep."""
    words = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def test_no_path_of_a_machine():
    """Nothing that the project keeps names a folder of one machine."""
    folders = "|".join(("work", "root", "tmp", "home"))
    pattern = re.compile(rf"(?<![\w./<>)}}~*-])/(?:{folders})(?:/|\b)")
    for path in kept_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = [line.strip() for line in text.splitlines() if pattern.search(line)]
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


# ---------------------------------------------------------------- results


@pytest.fixture(scope="module")
def results_page():
    path = ROOT / "benchmarks" / "results_page.py"
    spec = importlib.util.spec_from_file_location("results_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_follow_the_records(results_page):
    """docs/results.md and the block of the README are what the JSON files say (else: make page)."""
    for path, text in results_page.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make page"


def test_missing_records_say_so(results_page):
    reference = dict.fromkeys(results_page.HOW)
    page, block = results_page.page({}, reference), results_page.short({})
    for name, command in results_page.HOW.items():
        assert f"run `{command}`" in page, name
    assert block.count("not measured yet") == 3


def test_a_miss_is_marked(results_page):
    """An aim that is not met is marked in bold, one that is met is not."""
    slow = {"processes": {"import nuebar": {"best_s": 0.3, "median_s": 0.4}, "nuebar --help": {"best_s": 0.3}}}
    text = "\n\n".join(results_page.speed(slow))
    assert "| `import nuebar` | 300 ms | 400 ms | ≤ 200 ms | **missed** |" in text
    assert "| `nuebar --help` | 300 ms |  | ≤ 500 ms | yes |" in text
    assert "not measured" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.345, "12.3 s"), (0.5, "500 ms"), (8.28e-6, "8.28 µs"), (999e-9, "999 ns")]
)
def test_durations(results_page, seconds, text):
    assert results_page.duration(seconds) == text


def test_readme_without_marks_is_refused(results_page):
    with pytest.raises(SystemExit, match="marks"):
        results_page.filled("no marks", "block")

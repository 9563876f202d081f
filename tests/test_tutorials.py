"""The tutorials run, and the pages of the site are what they print."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "tutorials"
if not EXAMPLES.is_dir() or not PAGES.is_dir():
    pytest.skip("the tutorials are not beside the tests", allow_module_level=True)
SCRIPTS = {"first-fit": "tutorial_fit.py", "selection-to-fit": "tutorial_selection_to_fit.py"}


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", EXAMPLES / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, folder):
    """The output of a tutorial in a process and a folder of its own, as a reader runs it."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"} | {"TUTORIAL_OUT": str(folder / "out")}
    words = [sys.executable, str(EXAMPLES / script)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_and_pages(render):
    """Both lists name the same, and no tutorial is without a page."""
    assert render.TUTORIALS == SCRIPTS
    assert {p.stem for p in PAGES.glob("*.md")} == set(SCRIPTS)
    assert {p.name for p in EXAMPLES.glob("tutorial_*.py")} == set(SCRIPTS.values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_pages_follow_the_scripts(render, name):
    """Every cell stands in the page, in order (else: python examples/render.py)."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    at = 0
    for k, (kind, body) in enumerate(render.cells((EXAMPLES / SCRIPTS[name]).read_text(encoding="utf-8"))):
        if k == 0:
            body = body.partition("\n")[0]  # a note stands behind the title
        wanted = f"```python\n{body}\n```" if kind == "code" else body
        found = page.find(wanted, at)
        assert found >= 0, f"{name}: run python examples/render.py; the page lacks {wanted[:200]!r}"
        at = found + len(wanted)


def test_first_fit(tmp_path):
    """The fit finds the truth, and the pseudo-experiments say that its errors are right."""
    said = run(SCRIPTS["first-fit"], tmp_path)
    assert "valid: True - converged" in said
    for name, value, error, truth in re.findall(r"^(\w+) +(\S+) ± (\S+) +\(true: (\S+)\)", said, re.M):
        assert abs(float(value) - float(truth)) < 3 * float(error), name
    assert "400 of 400 fits are valid" in said
    pulls = re.findall(r"^(\w+) +([+-][\d.]+) ± ([\d.]+) +([\d.]+) +(\d+) %$", said, re.M)
    assert len(pulls) > 5
    for name, mean, error, width, covers in pulls:
        assert abs(float(mean)) < 5 * float(error) + 0.01, name
        assert 0.85 < float(width) < 1.15, name
        assert 55 < float(covers) < 80, name
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"spectrum.png", "contour.png"}


def test_from_raw_events_to_a_fit(tmp_path):
    """The posterior holds the hidden response, candidates are found, and both fits are valid."""
    for module in ("numba", "pyarrow", "uproot", "blackjax"):
        pytest.importorskip(module)
    said = run(SCRIPTS["selection-to-fit"], tmp_path)
    found = {n: (float(v), float(e)) for n, v, e in re.findall(r"^(\w+) +([\d.]+) ± ([\d.]+)$", said, re.M)}
    for name, truth in (("kB_g_cm2_GeV", 12.6), ("fC", 0.55), ("light_yield_per_MeV", 9900.0)):
        value, error = found[name]
        assert abs(value - truth) < 4 * error, name
    assert said.count("a true pair") >= 1
    assert "'fit-mine': (True, 'converged')" in said
    assert "'fit-response': (True, 'converged')" in said

"""The import graph goes one way, heavy packages have one door each, and starting is light."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "nuebar"
# A module may import from its own rank or a lower one.
RANKS = {
    "errors": 0,
    "parameters": 1,
    "records": 1,
    "kernels": 1,
    "config_checks": 2,
    "config_detector": 2,
    "config_sources": 2,
    "config": 2,
    "physics": 3,
    "stats": 3,
    "io": 3,
    "training": 3,
    "run": 4,
    "simulate": 4,
    "predict": 4,
    "tune": 4,
    "select": 4,
    "fit": 5,
    "report": 6,
    "jobs": 7,
    "chain": 8,
    "commands": 9,
    "cli": 10,
}
DOORS = {
    "iminuit": {"stats/minimise.py"},
    "uproot": {"io/root.py"},
    "pyarrow": {"io/parquet.py"},
    "h5py": {"io/hdf5.py"},
    "matplotlib": {"report/plots.py", "report/simulation_plots.py"},
    "blackjax": {"stats/sample.py"},
    "ultranest": {"stats/sample.py"},
    "optuna": {"tune/search.py"},
    "mplhep": {"report/plots.py"},
    "xgboost": {"select/trees.py"},
    "shap": {"select/explain.py"},
    "cyclopts": {"cli.py", *(path.name for path in PACKAGE.glob("commands*.py"))},
    "safetensors": {"io/models.py", "io/arrays.py"},
    "numba": {"kernels.py"},
    "jinja2": {"report/page.py"},
    "distributed": {"run/remote.py"},
    "dask_jobqueue": {"run/cluster.py"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def nodes(path):
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imported(path):
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node))
    return tuple(found)


def rank_of(parts):
    return RANKS["commands" if parts[0].startswith("commands_") else parts[0]]


def typing_only(path):
    """Line numbers inside ``if TYPE_CHECKING``: they run nothing."""
    lines = set()
    for node in nodes(path):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "__init__":
        return
    own, skip = rank_of(parts), typing_only(path)
    for name, node in imported(path):
        if name.startswith("nuebar.") and node.lineno not in skip:
            target = name.split(".")[1:]
            assert rank_of(target) <= own, f"{path.name} ({own}) imports {name} ({rank_of(target)})"
            if parts[0] in ("physics", "stats"):
                assert target[0] in ("physics", "stats", "errors"), f"{'/'.join(parts)} imports {name}"
                assert target[0] == parts[0] or target[0] == "errors"


@pytest.mark.parametrize(("package", "doors"), DOORS.items())
def test_heavy_packages_have_one_door(package, doors):
    users = {
        str(path.relative_to(PACKAGE)) for path in FILES for name, _ in imported(path) if name.split(".")[0] == package
    }
    assert users <= doors


@pytest.mark.parametrize("module", ["nuebar", "nuebar.config", "nuebar.parameters", "nuebar.cli", "nuebar.commands"])
def test_starting_imports_no_jax(module):
    code = f"import {module}, sys; sys.exit(bool({{'jax', 'jaxtyping', 'scipy', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_changes_no_global_state():
    code = (
        "import jax; before = jax.config.jax_enable_x64\n"
        "import nuebar.fit.spectrum_fit, nuebar.predict.spectrum, nuebar.stats.minimise\n"
        "assert jax.config.jax_enable_x64 == before"
    )
    env = {"PATH": "", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr

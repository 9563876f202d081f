"""Nothing that comes from outside is executed, and nothing of it is believed before its size is known."""

import ast
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import nuebar
from nuebar.errors import NuebarError
from nuebar.io.models import load_model, model_digest, save_model

PACKAGE = Path(nuebar.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# ---------------------------------------------------------------- no code from data

FORBIDDEN_MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "torch", "xmlrpc",
    "code", "codeop", "runpy", "imp", "ctypes", "cffi", "telnetlib", "http", "urllib", "requests", "socketserver",
}  # fmt: skip
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
FORBIDDEN_ATTRIBUTES = {
    "system", "popen", "execv", "execve", "execvp", "spawnl", "spawnv", "read_pickle", "to_pickle", "mktemp",
    "import_module", "load_library", "loadtxt", "genfromtxt", "fromregex", "unpack_archive", "extractall",
}  # fmt: skip
ALLOWED = {
    ("run/chunk.py", "import_module"): "names of chunk functions come from the code that runs a stage, not from files",
}
PROCESSES = {
    "run/workers.py": "workers: our own interpreter, a constant program, no shell",
    "io/results.py": "git, with constant words and no shell, for the commit in a record",
}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node


def found_in(path, text=None):
    """What a file does that it must not: (word, line)."""
    tree = ast.parse(text if text is not None else path.read_text(encoding="utf-8"))
    name = str(path.relative_to(PACKAGE))
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            if module.split(".")[0] in FORBIDDEN_MODULES:
                yield module, node.lineno
            if module.split(".")[0] in ("subprocess", "pty", "multiprocessing") and name not in PROCESSES:
                yield module, node.lineno
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            yield node.id, node.lineno
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES and (name, node.attr) not in ALLOWED:
            yield node.attr, node.lineno
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else "not constant"
                if keyword.arg in ("shell", "allow_pickle") and constant is not False:
                    yield keyword.arg, node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_executes_data(path):
    assert list(found_in(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from torch import load", "import os; os.system('ls')", "x = eval('1')", "f = exec",
        "import numpy as np; np.load('x', allow_pickle=True)", "import subprocess",
        "g(shell=True)", "g(allow_pickle=flag)", "import urllib.request", "m.import_module('x')", "__import__('os')",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text):
    assert list(found_in(PACKAGE / "errors.py", text))


def test_exceptions_to_it_are_still_needed():
    for name, word in ALLOWED:
        assert word in (PACKAGE / name).read_text()
    for name in PROCESSES:
        assert "subprocess" in (PACKAGE / name).read_text()


# ---------------------------------------------------------------- models


def loaders():
    from nuebar.predict.store import load_predictor
    from nuebar.select.store import load_classifier
    from nuebar.tune.store import load_density

    return {
        "select": load_classifier, "spline": load_density, "planar": load_density, "tede": load_density,
        "surrogate": load_predictor, "network": load_predictor,
    }  # fmt: skip


KINDS = ("select", "spline", "surrogate")
OTHERS = tuple(pytest.param(kind, marks=pytest.mark.slow) for kind in ("planar", "tede", "network"))


@pytest.fixture
def model(request, tmp_path):
    """A copy of a model that ships, and its loader."""
    source = PACKAGE / "models" / request.param
    if not (source / "model.json").is_file():
        pytest.skip("the model is not in this installation")
    return Path(shutil.copytree(source, tmp_path / "model")), loaders()[request.param]


every_kind = pytest.mark.parametrize("model", [*KINDS, *OTHERS], indirect=True)


@contextmanager
def refused(most_kB=400_000, *, may_load=False):
    """One sentence, and no memory for what is claimed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    except NuebarError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert may_load, "was loaded"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < most_kB


def signed(folder, description):
    """Somebody who alters a model can sign it again."""
    told = {k: v for k, v in description.items() if k != "digest"}
    content = (folder / "weights.safetensors").read_bytes()
    told["digest"] = model_digest(content, json.loads(json.dumps(told)))
    (folder / "model.json").write_text(json.dumps(told))


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


CLAIMS = {
    "empty": b"",
    "seven bytes": b"1234567",
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"\x80\x04\x95.",
    "brackets without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a million million numbers": header(x={"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}),
    "a product beyond 64 bits": header(x={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}),
    "a negative shape": header(x={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + bytes(4),
    "offsets backwards": header(x={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}) + bytes(4),
    "offsets beyond the end": header(x={"dtype": "F32", "shape": [1], "data_offsets": [100, 104]}) + bytes(4),
    "overlapping": header(
        x={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        y={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    ) + bytes(4),
    "an unknown type": header(x={"dtype": "O", "shape": [1], "data_offsets": [0, 4]}) + bytes(4),
    "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}  # fmt: skip


@every_kind
def test_weights_that_claim_what_they_are_not(model):
    folder, load = model
    description = json.loads((folder / "model.json").read_text())
    for what, content in CLAIMS.items():
        (folder / "weights.safetensors").write_bytes(content)
        signed(folder, description)
        with refused():
            load(folder)
            pytest.fail(what)


@every_kind
def test_a_file_larger_than_any_model_is_not_read(model):
    folder, load = model
    with open(folder / "weights.safetensors", "r+b") as file:
        file.truncate(2**31 + 1)  # takes no room on the disk
    with refused(100_000):
        load(folder)


@pytest.mark.parametrize(
    ("model", "step"),
    [
        *((kind, 4) for kind in KINDS),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in (*KINDS, "planar", "tede", "network")),
    ],
    indirect=["model"],
)
def test_every_tensor_is_checked(model, step):
    folder, load = model
    arrays, description = load_model(folder)
    load(folder)
    for k, (name, array) in enumerate(sorted(arrays.items())):
        floats = array.dtype.kind == "f" and array.size
        wrong = {
            "missing": {n: a for n, a in arrays.items() if n != name},
            "renamed": {(f"{n}x" if n == name else n): a for n, a in arrays.items()},
            "longer": arrays | {name: np.concatenate([array.ravel(), array.ravel(), [0]]).astype(array.dtype)},
            "one axis more": arrays | {name: array[None]},
            "empty": arrays | {name: array[:0] if array.ndim else np.zeros(0, array.dtype)},
            "integers": arrays | {name: np.zeros(array.shape, np.int16)},
        }
        if floats:
            spoilt = array.copy()
            spoilt.flat[spoilt.size // 2] = np.nan
            wrong["not a number"] = arrays | {name: spoilt}
            wrong["infinite"] = arrays | {name: np.full_like(array, np.inf)}
        for what in sorted(wrong)[k % step :: step]:  # all of them, or a part for each
            save_model(folder, wrong[what], {n: v for n, v in description.items() if n not in ("arrays", "digest")})
            # The Monte Carlo error of a predictor may be left out; integers of the same shape may be taken as numbers.
            harmless = what in ("missing", "integers", "empty")
            with refused(may_load=harmless and not name.startswith("network.")):
                load(folder)


@every_kind
def test_tensors_that_do_not_belong_are_no_part_of_the_model(model):
    folder, load = model
    arrays, description = load_model(folder)
    told = {n: v for n, v in description.items() if n not in ("arrays", "digest")}
    for name in ("network.extra", "nodes.extra", "../../x", ""):
        save_model(folder, arrays | {name: np.zeros(3, np.float32)}, told)
        with refused(may_load=True):
            model_again = load(folder)
            assert not hasattr(model_again, "extra")
    assert not (folder.parent / "x").exists()


WEIRD = (
    None, "x", -1, 0, 10**18, 2**63, 1e308, [], {}, [1] * 3, [10**9] * 30, True, {"a": 1}, [[1, 2], [3, 4]], "../../x",
    [1] * 1_000_000,
)  # fmt: skip
FOR_PEOPLE = ("training", "metrics", "versions", "provenance", "arrays", "digest", "format")


def leaves(value, path=()):
    """Paths of what a description says, two of each list."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            if path or key not in FOR_PEOPLE:
                yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for k in sorted({0, len(value) - 1}) if value else ():
            yield from leaves(value[k], (*path, k))


def changed(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {**value, path[0]: changed(value[path[0]], path[1:], new)}
    return [changed(v, path[1:], new) if k == path[0] else v for k, v in enumerate(value)]


@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("select", 23), ("spline", 23), ("surrogate", 23),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("select", "spline", "surrogate")),
        *(pytest.param(kind, 3, marks=pytest.mark.slow) for kind in ("planar", "tede", "network")),
    ],
    indirect=["model"],
)  # fmt: skip
def test_whatever_a_description_says_is_a_sentence_or_a_model(model, step):
    """Sizes of a million layers, numbers as texts, missing tables: never another error, never their memory."""
    folder, load = model
    description = json.loads((folder / "model.json").read_text())
    words = ("kind", "classifier", "density")  # see below
    cases = [(p, w) for p in leaves(description) if p for w in WEIRD if p[0] not in words or isinstance(w, str)]
    for path, new in cases[step // 2 :: step]:
        signed(folder, changed(description, path, new))
        try:
            with refused(may_load=True):
                load(folder)
        except AssertionError:
            raise
        except Exception as error:
            pytest.fail(f"{path} = {str(new)[:60]}: {type(error).__name__}: {str(error)[:200]}")


@pytest.mark.parametrize(
    ("model", "key"), [("select", "classifier"), ("spline", "density"), ("surrogate", "kind")], indirect=["model"]
)
def test_a_word_of_a_description_that_is_a_list(model, key):
    folder, load = model
    signed(folder, {**json.loads((folder / "model.json").read_text()), key: ["network"]})
    with refused():
        load(folder)


@pytest.mark.parametrize("model", ["select"], indirect=True)
def test_a_message_is_shorter_than_what_it_is_about(model):
    folder, load = model
    signed(folder, {**json.loads((folder / "model.json").read_text()), "features": ["x"] * 100_000})
    with pytest.raises(NuebarError) as caught:
        load(folder)
    assert len(str(caught.value)) < 5000


@every_kind
def test_a_description_that_is_a_bomb(model):
    folder, load = model
    for content in (
        "[" * 200_000,
        '{"a":' * 200_000,
        "9" * 100_000,
        '{"format": 1e999}',
        '{"kind": NaN}',
        "[]",
        "null",
        "",
    ):
        (folder / "model.json").write_text(content)
        with refused():
            load(folder)


def test_million_layers_cost_nothing(tmp_path):
    from nuebar.select.store import load_classifier

    folder = Path(shutil.copytree(PACKAGE / "models" / "select", tmp_path / "model"))
    description = json.loads((folder / "model.json").read_text())
    for hidden in ([4] * 1_000_000, [10**9, 10**9], [2**62], [-4], ["4"], [4.5], [True], [[4]], "44", {"0": 4}, None):
        signed(folder, {**description, "settings": {**description["settings"], "hidden": hidden}})
        with refused(200_000):
            load_classifier(folder)


# ---------------------------------------------------------------- data that the chain takes


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80\x04.", b"PAR1", b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", b"root" + bytes(200),
        b"\x89HDF\r\n\x1a\n" + bytes(64),
    ],
    ids=range(6),
)  # fmt: skip
def test_streams_that_are_none_are_one_sentence(content, tmp_path):
    from nuebar.io.column_map import ColumnMap
    from nuebar.io.event_paths import open_table

    for suffix in (".parquet", ".root", ".h5"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        with refused(100_000):
            open_table(path, ColumnMap())


SAMPLES = {
    "summary.json": [{"live_days": "x"}, {"live_days": None}, {"live_days": []}, {}],
    "efficiency.json": [{"sources": []}, {"sources": {"ibd": {}}}, {"sources": None, "edges_MeV": "x"}, {}],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_that_is_none_is_one_sentence(name, tmp_path):
    from nuebar.chain.spectrum import Sample
    from nuebar.io.histograms import Histogram
    from nuebar.io.results import save_result

    edges = np.linspace(0.8, 8.8, 9)
    for part in ("prompt", "accidentals"):
        Histogram(edges, np.ones(8), np.ones(8)).save(tmp_path / f"{part}.json")
    for other in SAMPLES:
        save_result(tmp_path / other, {})
    for content in SAMPLES[name]:
        save_result(tmp_path / name, content)
        with refused(100_000):
            Sample.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {}, {"oscillation": []}, {"oscillation": {"a": None}, "response": {}}, {"oscillation": 1, "response": 2},
        {"oscillation": {"a": 10**400}, "response": {}},
    ],
)  # fmt: skip
def test_a_truth_that_is_none_is_one_sentence(content, tmp_path):
    from nuebar.chain.auxiliary import load_centres
    from nuebar.chain.truth import Truth

    path = tmp_path / "simulate" / "auxiliary.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, **content, "centres": content.get("oscillation")}))
    with refused():
        Truth.load(path)
    with refused(may_load=content == {"oscillation": []}):
        load_centres(tmp_path)


def test_a_hidden_program_in_a_run_file_stays_text(tmp_path):
    """The whole command, on a run file full of things that a careless reader would run."""
    mark = tmp_path / "mark"
    (tmp_path / "run.toml").write_text(
        f"title = \"__import__('os').system('touch {mark}') $(touch {mark}) `touch {mark}` {{{{7*7}}}}\"\n"
        f'[select]\nat = "; touch {mark}"\n'
    )
    command = [sys.executable, "-m", "nuebar.cli", "run", str(tmp_path / "run.toml"), "--out", "x", "--show"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ)
    assert "{{7*7}}" in done.stdout
    assert not mark.exists()

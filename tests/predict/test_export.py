"""Exported predictors: the evaluator runs with numpy alone, agrees with the predictor, and sees what was altered."""

import ast
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.predict import export
from nuebar.predict.export import EXPORTERS, evaluator_source, export_predictor
from nuebar.predict.grid import build_grid
from nuebar.predict.harmonic import HarmonicPredictor, Windows

LOW = np.array([0.268, 0.0185, 6.99e-5, 2.4133e-3])  # PDG 2022: ±3σ, ±5σ for θ13
HIGH = np.array([0.346, 0.0255, 8.07e-5, 2.6113e-3])
BOX = dict(zip(OSCILLATION, zip(LOW.tolist(), HIGH.tolist(), strict=True), strict=True))


@pytest.fixture(scope="module")
def predictors(juno_harmonic, juno_matrix, juno_inputs, tmp_path_factory):
    pytest.importorskip("numba", reason="a grid is built with numba")
    vacuum = HarmonicPredictor.build(juno_inputs, windows=Windows.around_pdg(6), matter=False)
    folder = tmp_path_factory.mktemp("grids")
    return {
        "harmonic": juno_harmonic,
        "vacuum": vacuum,
        "matrix": juno_matrix,
        "grid": build_grid(vacuum, BOX, (3, 3, 5, 7), folder / "cubic", order=3),
        "linear": build_grid(vacuum, BOX, (2, 3, 2, 7), folder / "linear"),
        **networks(),
    }


def networks():
    """Random weights: what counts is the arithmetic."""
    network = pytest.importorskip("nuebar.predict.network", reason="networks need optax")
    import jax.numpy as jnp

    from nuebar.predict.box import Provenance

    out = {}
    for activation, inputs, outputs in (
        ("relu", "printed", "counts"),
        ("gelu", "standardised", "standardised"),
        ("silu", "standardised", "basis"),
        ("tanh", "printed", "standardised"),
    ):
        components = 6 if outputs == "basis" else 0
        architecture = network.Architecture(
            hidden=(30, 20), activation=activation, inputs=inputs, outputs=outputs, components=components
        )
        rng, edges = np.random.default_rng(1), tuple(np.linspace(0.8, 8.8, 41).tolist())
        scale = rng.uniform(1, 2, (components, 40) if components else 40)
        out[f"network {activation}"] = network.NetworkPredictor(
            edges, tuple(BOX.values()), architecture, Provenance({"predictor": "network"}),
            network._network(architecture, components or 40, 0),
            jnp.asarray(rng.uniform(1, 2, 40)), jnp.asarray(scale), jnp.asarray(rng.uniform(50, 100, 40)),
        )  # fmt: skip
    return out


def named(row):
    return dict(zip(OSCILLATION, row.tolist(), strict=True))


def imported(path):
    """The written evaluator as a module."""
    spec = importlib.util.spec_from_file_location("written_evaluator", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = [
    ("harmonic", 1e-10), ("vacuum", 1e-10), ("matrix", 1e-10), ("grid", 1e-10), ("linear", 1e-10),
    ("network relu", 1e-6), ("network gelu", 1e-6), ("network silu", 1e-6), ("network tanh", 1e-6),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tolerance", "suffix"),
    [(*case, s) for case in CASES for s in (".npz", ".json") if (case[0], s) != ("matrix", ".json")],  # 30 MB of text
)
def test_agrees_with_the_predictor(predictors, tmp_path, name, tolerance, suffix):
    """At random parameters of both orderings, not only at the test vector."""
    predictor = predictors[name]
    file, source = export_predictor(predictor, tmp_path / f"export{suffix}")
    e = imported(source)
    meta, arrays = e.load(str(file))
    for k, row in enumerate(np.random.default_rng(2).uniform(LOW, HIGH, (8, 4))):
        p = named(row)
        if "matter_density_g_cm3" in predictor.parameter_names and k % 2:
            p["matter_density_g_cm3"] = 1.0 + k / 3
        if name in ("harmonic", "matrix") and k > 4:
            p["dm2_31_eV2"] *= -1
        exact = np.asarray(predictor.predict(p))
        np.testing.assert_allclose(e.evaluate(meta, arrays, p), exact, rtol=0, atol=tolerance * exact.max())


@pytest.mark.parametrize("name", ["harmonic", "network gelu"])
def test_runs_on_its_own(predictors, tmp_path, name):
    """An isolated interpreter that refuses every import but numpy, json, hashlib, sys and typing."""
    file, source = export_predictor(predictors[name], tmp_path / "export.npz")
    tree = ast.parse(source.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names == {"numpy", "json", "hashlib", "sys", "typing"}
    done = subprocess.run([sys.executable, "-I", str(source), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kind, words = done.stdout.split(": worst difference ")
    assert kind == name.split()[0]
    assert float(words.split()[0]) < 1e-6


@pytest.mark.parametrize("kind", list(EXPORTERS))
def test_evaluators_are_short(kind):
    source = evaluator_source(kind)
    assert len(source.splitlines()) <= 60
    compile(source, kind, "exec")
    assert [other for other in EXPORTERS if f"def {other}(" in source] == [kind]


def test_description(predictors, tmp_path):
    file, _ = export_predictor(predictors["harmonic"], tmp_path / "export.json")
    meta = json.loads(file.read_text())["meta"]
    assert [q["name"] for q in meta["parameters"]] == [*OSCILLATION, "matter_density_g_cm3"]
    assert [q["unit"] for q in meta["parameters"]] == ["", "", "eV²", "eV²", "g/cm³"]
    assert meta["format"] == 1
    assert meta["test_parameters"] == dict(
        sin2_th12=0.307, sin2_th13=0.0220, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5123e-3, matter_density_g_cm3=2.45
    )
    assert meta["edges_MeV"] == predictors["harmonic"].edges.tolist()
    assert len(meta["parameters"][3]["ranges"]) == 2  # both orderings


def test_own_test_vector(predictors, tmp_path):
    p = named(LOW)
    file, source = export_predictor(predictors["vacuum"], tmp_path / "export.npz", parameters=p)
    meta, arrays = imported(source).load(str(file))
    assert meta["test_parameters"] == p
    np.testing.assert_array_equal(arrays["test_counts"], predictors["vacuum"].predict(p))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["offset"].__setitem__(10, d["offset"][10] * (1 + 1e-12)),
        lambda d: d["meta"]["parameters"][0]["ranges"].__setitem__(0, [0.0, 2.0]),
        lambda d: d["meta"].update(activation="relu"),
        lambda d: d["meta"].update(hash="0"),
        lambda d: d["meta"].update(format=2),
        lambda d: d["meta"].update(kind="grid"),
    ],
)
def test_altered_file_is_refused(predictors, tmp_path, change):
    file, source = export_predictor(predictors["network tanh"], tmp_path / "export.json")
    d = json.loads(file.read_text())
    change(d)
    file.write_text(json.dumps(d))
    with pytest.raises(ValueError, match=r"altered|its own evaluator"):
        imported(source).load(str(file))


def test_altered_file_ends_the_program(predictors, tmp_path):
    file, source = export_predictor(predictors["grid"], tmp_path / "export.npz")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    done = subprocess.run([sys.executable, "-I", str(source), str(file)], capture_output=True, text=True)
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(sin2_th12=0.4), "sin2_th12 = 0.4: expected a number in"),
        (dict(dm2_31_eV2=-2.5e-3), "dm2_31"),
        (dict(sin2_th13=float("nan")), "sin2_th13 = nan"),
        (dict(density=2.0), "unknown parameters {'density'}"),
        (dict(dm2_21_eV2=None), "dm2_21_eV2 = None"),
    ],
)
def test_evaluator_refuses(predictors, tmp_path, change, word):
    file, source = export_predictor(predictors["grid"], tmp_path / "export.npz")
    e = imported(source)
    p = named(0.5 * (LOW + HIGH)) | change
    with pytest.raises(ValueError, match=word):
        e.evaluate(*e.load(str(file)), {k: v for k, v in p.items() if v is not None})


def test_export_refuses(predictors, tmp_path, monkeypatch):
    with pytest.raises(NuebarError, match=r"ends in \.npz or \.json"):
        export_predictor(predictors["grid"], tmp_path / "export.h5")
    with pytest.raises(NuebarError, match="outside the box"):
        export_predictor(predictors["grid"], tmp_path / "e.npz", parameters=named(HIGH * 1.01))
    monkeypatch.setattr(export, "MOST_BYTES", 1000)
    with pytest.raises(NuebarError, match="a grid of at most 0 MB"):
        export_predictor(predictors["grid"], tmp_path / "e.npz")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "evaluator.py").write_text("mine")
    with pytest.raises(NuebarError, match="no other evaluator"):
        export_predictor(predictors["harmonic"], tmp_path / "e.npz")
    monkeypatch.delitem(EXPORTERS, "matrix")
    with pytest.raises(NuebarError, match="got a 'matrix' predictor"):
        export_predictor(predictors["matrix"], tmp_path / "e.npz")

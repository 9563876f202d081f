"""The grid on disk: exact at its nodes, its order of convergence, resumption, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.predict import grid
from nuebar.predict.grid import access_times, build_grid, load_grid, points_for
from nuebar.predict.harmonic import HarmonicPredictor, Windows

pytest.importorskip("numba", reason="the grid is built with the batch predictor, which needs numba")

# PDG 2022: three standard deviations, five for θ13 (Y. Malyshkin, CHEP 2024).
BOX = {
    "sin2_th12": (0.268, 0.346),
    "sin2_th13": (0.0185, 0.0255),
    "dm2_21_eV2": (6.99e-5, 8.07e-5),
    "dm2_31_eV2": (2.4133e-3, 2.6113e-3),
}
LOW, HIGH = np.array(list(BOX.values())).T
POINTS = (3, 2, 4, 6)
SINGLE = 2e-5  # single precision of the batch predictor in a significant bin


@pytest.fixture(scope="module")
def vacuum(juno_inputs):
    return HarmonicPredictor.build(juno_inputs, windows=Windows.around_pdg(6), matter=False)


@pytest.fixture(scope="module")
def folder(vacuum, tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "cubic"
    build_grid(vacuum, BOX, POINTS, out, order=3)
    return out


def named(row):
    return dict(zip(OSCILLATION, map(float, row), strict=True))


def inside(n, seed=0, margin=0.0):
    return np.random.default_rng(seed).uniform(LOW + margin * (HIGH - LOW), HIGH - margin * (HIGH - LOW), (n, 4))


def worst(ours, predictor, rows):
    truth = np.array([predictor.predict(named(row)) for row in rows])
    keep = truth > 1e-4 * truth.max(axis=1, keepdims=True)
    return np.abs(np.asarray(ours) / truth - 1)[keep].max()


@pytest.mark.parametrize("order", [1, 3])
def test_nodes_are_exact(vacuum, folder, order):
    g = load_grid(folder, order=order)
    rng = np.random.default_rng(3)
    rows = np.array([[a.nodes[rng.integers(a.points)] for a in g.axes] for _ in range(12)])
    rows = np.concatenate([rows, [LOW, HIGH]])
    assert worst(g.batch(rows), vacuum, rows) < SINGLE
    assert worst([g.predict(named(row)) for row in rows], vacuum, rows) < SINGLE


@pytest.mark.parametrize("order", [1, 3])
def test_one_spectrum_and_a_batch_agree(folder, order):
    g = load_grid(folder, order=order)
    rows = inside(20)
    ours = np.array([g.predict(named(row)) for row in rows])
    np.testing.assert_allclose(g.batch(rows), ours, rtol=2e-7)
    np.testing.assert_allclose(jax.jit(jax.vmap(g.channels))(rows)[:, 0], ours, rtol=1e-12)
    buffer = np.empty((20, ours.shape[1]), dtype=np.float32)
    assert g.batch(rows, buffer) is buffer


@pytest.mark.parametrize(("order", "power"), [(1, 2), (3, 4)])
def test_convergence(vacuum, tmp_path, order, power):
    """Half the step along Δm²31, on its nodes in the others: the error falls by 2 to the order + 1."""
    errors = []
    rows = np.column_stack([np.tile(LOW[:3], (40, 1)), inside(40)[:, 3]])
    for k, cells in enumerate((10, 20)):
        g = build_grid(vacuum, BOX, (2, 2, 2, cells + 1), tmp_path / str(k), order=order)
        errors.append(worst(g.batch(rows), vacuum, rows))
    assert 0.55 * 2**power < errors[0] / errors[1] < 2.0 * 2**power


def test_mixing_angles_need_three_nodes(vacuum, tmp_path):
    """A spectrum is of second degree in both, so cubic interpolation is exact there; linear is not."""
    build_grid(vacuum, BOX, (3, 3, 2, 2), tmp_path / "g", order=3)
    rows = inside(20)
    rows[:, 2:] = np.array([LOW, HIGH])[:1, 2:]
    assert worst(load_grid(tmp_path / "g").batch(rows), vacuum, rows) < SINGLE
    assert worst(load_grid(tmp_path / "g", order=1).batch(rows), vacuum, rows) > 20 * SINGLE


@pytest.mark.parametrize(("order", "bytes_"), [(1, 200e6), (3, 2e6)])
def test_plan_reaches_its_accuracy(vacuum, tmp_path, order, bytes_):
    plan = points_for(vacuum, BOX, 1e-3, order, bases=6)
    assert plan.accuracy <= 1e-3
    assert plan.nbytes < bytes_
    assert plan.nbytes == 4 * 584 * np.prod(plan.points)
    if order == 3:
        g = build_grid(vacuum, BOX, plan.points, tmp_path / "g", order=3)
        rows = inside(100, seed=5)
        assert 1e-4 < worst(g.batch(rows), vacuum, rows) < 1e-3  # not larger than needed either


def test_plan_out_of_reach(vacuum):
    with pytest.raises(NuebarError, match=r"accuracy 1e-08.*would need more than"):
        points_for(vacuum, BOX, 1e-8, 1, bases=1)


@pytest.mark.parametrize("order", [1, 3])
def test_gradient(folder, order):
    """Against central differences of the same interpolation, within a cell."""
    g = load_grid(folder, order=order)
    p = np.array([a.nodes[1] if a.points > 2 else a.low for a in g.axes]) + 0.37 * np.array([a.step for a in g.axes])
    scale = 1e-3 * (HIGH - LOW)
    f = jax.jit(lambda x: g.channels(x)[0])
    slopes = jax.jit(jax.jacfwd(lambda x: g.channels(x)[0]))
    total = jax.jit(jax.grad(lambda x: g.channels(x).sum()))
    hessian = np.asarray(jax.jit(jax.hessian(lambda x: g.channels(x).sum()))(p)) * np.outer(scale, scale)
    jacobian = np.asarray(slopes(p)) * scale
    np.testing.assert_allclose(total(p) * scale, jacobian.sum(axis=0), rtol=1e-9)
    for k, step in enumerate(np.diag(scale)):
        numeric = (f(p + step) - f(p - step)) / 2
        np.testing.assert_allclose(jacobian[:, k], numeric, atol=1e-5 * np.abs(numeric).max())
        second = (total(p + step) - total(p - step)) * scale / 2
        np.testing.assert_allclose(hessian[k], second, atol=1e-5 * np.abs(hessian).max())
    if order == 1:
        np.testing.assert_array_equal(np.diag(hessian), 0.0)


def test_gradient_against_the_harmonic_predictor(vacuum, tmp_path):
    g = build_grid(vacuum, BOX, (3, 3, 8, 30), tmp_path / "g", order=3)
    p = inside(1, seed=7)[0]
    ours = np.asarray(jax.jit(jax.jacfwd(lambda x: g.channels(x)[0]))(p)) * (HIGH - LOW)
    for k, step in enumerate(np.diag(1e-3 * (HIGH - LOW))):
        exact = (vacuum.predict(named(p + step)) - vacuum.predict(named(p - step))) / 2e-3
        np.testing.assert_allclose(ours[:, k], exact, atol=3e-3 * np.abs(exact).max())


def test_contract(vacuum, folder):
    g = load_grid(folder)
    assert (g.name, g.order, g.parameter_names, g.core_names) == ("grid", 3, OSCILLATION, ())
    assert dict(g.box) == BOX
    assert g.nbytes == 4 * 584 * np.prod(POINTS) == (folder / "spectra.f32").stat().st_size
    assert g.provenance["predictor"] == "grid"
    assert g.provenance["fingerprint"] == vacuum.provenance["fingerprint"]
    np.testing.assert_array_equal(g.unoscillated(), vacuum.unoscillated())
    np.testing.assert_array_equal(g.edges, vacuum.edges)
    five, channels = np.append(inside(1)[0], 0.0), jax.jit(lambda x: g.channels(x))
    np.testing.assert_array_equal(channels(five), channels(five[:4]))
    assert channels(five).shape == (1, 584)


def test_access_times(folder):
    t = access_times(load_grid(folder), 30).record()
    assert t["nbytes"] == 4 * 584 * np.prod(POINTS)
    assert min(t["batch_us"], t["warm_us"], t["gradient_us"]) > 0


# ---------------------------------------------------------------- resumption


def test_an_interrupted_build_goes_on(vacuum, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "SLAB_BYTES", 16 * 584 * 4)
    seen = []

    def stop(what, done, total):
        seen.append((what, done, total))
        if done == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_grid(vacuum, BOX, POINTS, tmp_path, progress=stop)
    assert not (tmp_path / "grid.json").exists()
    assert seen == [("grid", 16, 144), ("grid", 32, 144), ("grid", 48, 144)]
    with pytest.raises(NuebarError, match=r"grid\.json"):
        load_grid(tmp_path)
    with open(tmp_path / "spectra.part.f32", "ab") as file:
        file.write(b"half a slab")
    seen.clear()
    g = build_grid(vacuum, BOX, POINTS, tmp_path, order=3, progress=lambda *x: seen.append(x))
    assert [x[1] for x in seen] == [64, 80, 96, 112, 128, 144]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["grid.json", "spectra.f32"]
    np.testing.assert_allclose(g.spectra.values, load_grid(folder).spectra.values, rtol=1e-5)
    load_grid(tmp_path, verify=True)
    again = build_grid(vacuum, BOX, POINTS, tmp_path, progress=lambda *_: pytest.fail("nothing was left to do"))
    assert again.order == 1


def test_another_plan_in_the_folder_is_refused(vacuum, folder, tmp_path):
    with pytest.raises(NuebarError, match=r"another grid \(different: axes\)"):
        build_grid(vacuum, BOX, (3, 2, 4, 7), folder)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_grid(vacuum, BOX, POINTS, tmp_path, progress=stop)
    with pytest.raises(NuebarError, match=r"grid\.part\.json.*another grid"):
        build_grid(vacuum, BOX, (2, 2, 2, 2), tmp_path)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(points=(3, 2, 4)), "four numbers"),
        (dict(points=(3, 1, 4, 6)), "sin2_th13.*points from 2"),
        (dict(order=2), "expected 1 or 3, got 2"),
        (dict(box={k: v for k, v in BOX.items() if k != "sin2_th12"}), "limits of sin2_th12"),
        (dict(box=BOX | {"dm2_21_eV2": (8e-5, 7e-5)}), "low < high"),
        (dict(box=BOX | {"dm2_21_eV2": (7e-5, float("nan"))}), "low < high"),
        (dict(box=BOX | {"dm2_21_eV2": (3e-5, 8e-5)}), "dm2_21_eV2.*outside the box"),
        (dict(box=BOX | {"sin2_th12": (-0.1, 0.3)}), "sin2_th12.*from 0 to 1"),
        (dict(max_bytes=1e5), r"needs 0\.000336 GB, more than the 0\.0001 GB"),
        (dict(points=(400, 400, 400, 400)), r"5\.98e\+04 GB.*order 3"),
    ],
)
def test_build_refuses(vacuum, tmp_path, change, word):
    arguments = dict(box=BOX, points=POINTS) | change
    with pytest.raises(NuebarError, match=word):
        build_grid(vacuum, arguments.pop("box"), arguments.pop("points"), tmp_path / "g", **arguments)
    assert not (tmp_path / "g" / "grid.json").exists()


def test_build_refuses_a_full_disk(vacuum, tmp_path, monkeypatch):
    monkeypatch.setattr(grid.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(NuebarError, match=r"0\.000336 GB more, the disk has 1e-06 GB free"):
        build_grid(vacuum, BOX, POINTS, tmp_path)


def test_matter_is_refused(juno_harmonic, folder, tmp_path):
    with pytest.raises(NuebarError, match="vacuum"):
        build_grid(juno_harmonic, BOX, POINTS, tmp_path)
    g = load_grid(folder)
    g.check(named(inside(1)[0]) | {"matter_density_g_cm3": 0.0})
    with pytest.raises(NuebarError, match="vacuum"):
        g.check(named(inside(1)[0]) | {"matter_density_g_cm3": 2.45})


def test_outside_is_refused(folder):
    g = load_grid(folder)
    for k, name in enumerate(OSCILLATION):
        row = inside(1)[0]
        row[k] = HIGH[k] * 1.001
        with pytest.raises(NuebarError, match=f"{name}.*outside the box"):
            g.predict(named(row))
        with pytest.raises(NuebarError, match=f"{name}.*outside the box"):
            g.batch(row[None])
    with pytest.raises(NuebarError, match="finite"):
        g.batch(np.full((1, 4), np.nan))
    with pytest.raises(NuebarError, match="missing parameter"):
        g.predict({"sin2_th12": 0.3})


def altered(folder, tmp_path, change):
    """A copy of a grid with a changed description."""
    (tmp_path / "spectra.f32").write_bytes((folder / "spectra.f32").read_bytes())
    d = json.loads((folder / "grid.json").read_text())
    change(d)
    (tmp_path / "grid.json").write_text(json.dumps(d))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.update(kind="harmonic"), "kind 'harmonic'"),
        (lambda d: d["axes"]["sin2_th12"].update(low=float("nan")), "NaN"),
        (lambda d: d["axes"]["sin2_th12"].update(low=None), "incomplete"),
        (lambda d: d["axes"]["sin2_th12"].update(low=0.4), "sin2_th12.*low < high"),
        (lambda d: d["axes"]["sin2_th12"].update(low=0.269), "does not match its hash"),
        (lambda d: d["axes"].pop("sin2_th13"), "incomplete"),
        (lambda d: d["provenance"].update(experiment="another"), "does not match its hash"),
        (lambda d: d.pop("hash"), "does not match its hash"),
    ],
)
def test_altered_description_is_refused(folder, tmp_path, change, word):
    with pytest.raises(NuebarError, match=word):
        load_grid(altered(folder, tmp_path, change))


def test_damaged_spectra_are_refused(folder, tmp_path):
    copy = altered(folder, tmp_path, lambda _: None)
    load_grid(copy, verify=True)
    with pytest.raises(NuebarError, match="expected 1 or 3"):
        load_grid(copy, order=0)
    data = bytearray((copy / "spectra.f32").read_bytes())
    data[5000] ^= 1
    (copy / "spectra.f32").write_bytes(data)
    load_grid(copy, verify=False)
    with pytest.raises(NuebarError, match="slab 0 does not match"):
        load_grid(copy)
    (copy / "spectra.f32").write_bytes(data[:-4])
    with pytest.raises(NuebarError, match="cut short"):
        load_grid(copy)
    (copy / "spectra.f32").unlink()
    with pytest.raises(NuebarError, match="no such file"):
        load_grid(copy)

"""The commands of ``nuebar tune`` as a user calls them, with the shipped spline flow."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nuebar.cli import main


def call(capsys, *words):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


MIDDLE = {"kB_g_cm2_GeV": 12.05, "fC": 0.517, "light_yield_per_MeV": 9846.0}
SOURCES = ("Cs137", "K40", "Co60", "AmBe", "AmC")


@pytest.fixture(scope="module")
def density(tmp_path_factory):
    """A spline flow as it is before training: peaks that move with the response, quickly made."""
    import jax

    from nuebar.predict.box import Provenance
    from nuebar.tune.density import RESPONSE
    from nuebar.tune.spline import SplineFlow, SplineSettings, new_network, reference
    from nuebar.tune.store import save_density

    assert tuple(MIDDLE) == RESPONSE
    edges = np.linspace(0.4, 16.4, 801)
    x = 0.5 * (edges[1:] + edges[:-1])
    unit = np.random.default_rng(1).uniform(-1, 1, (200, 3))
    counts = []
    for energy in (0.662, 1.461, 2.506, 4.44, 6.13):
        quench = 1 - 0.1 * unit[:, 0] / (1 + energy) + 0.03 * unit[:, 1] * np.log(energy)
        mean = 1.8 * energy * (1 + 0.2 * unit[:, 2]) * quench
        counts.append(1e4 * np.exp(-0.5 * ((x - mean[:, None]) / (0.035 * np.sqrt(mean))[:, None]) ** 2))
    with jax.enable_x64(True):
        start = reference(unit, np.stack(counts, axis=1), edges, 48)
        flow = SplineFlow(
            sources=SOURCES,
            edges_observable=tuple(edges.tolist()),
            pe_to_observable=1.07e-3,
            limits=((6.0, 24.0), (0.0, 1.0), (8000.0, 12000.0)),
            provenance=Provenance({"made": "for a test"}),
            network=new_network(SplineSettings(intervals=48, units=4), start, 1),
        )
    folder = tmp_path_factory.mktemp("model") / "small"
    save_density(flow, folder)
    return folder


@pytest.fixture(scope="module")
def calibration(density, tmp_path_factory):
    """Charges of five sources, drawn from the density."""
    from nuebar.tune.store import load_density

    folder = tmp_path_factory.mktemp("calibration")
    flow = load_density(density)
    for k, source in enumerate(SOURCES):
        charges = flow.sample(5000, MIDDLE, source, seed=k)
        (folder / f"{source}.csv").write_text("n_pe\n" + "\n".join(f"{q:.3f}" for q in charges) + "\n")
    return folder


def test_tune_fit_finds_what_was_put_in(density, calibration, tmp_path, capsys):
    words = [f"{name}={value}" for name, value in MIDDLE.items()]
    out = tmp_path / "tuned"
    command = ["tune", "fit", "--density", density, "--data", calibration, "--method", "minuit"]
    code, text, _ = call(capsys, *command, "--truth", *words, "--no-pictures", "--out", out)
    assert code == 0
    assert "valid" in text
    told = json.loads((out / "tuning.json").read_text())
    for name, value in MIDDLE.items():
        assert abs(told["best"][name] - value) < 4 * told["errors"][name]
        assert name in text
    posterior = json.loads((out / "posterior.json").read_text())
    assert posterior["parameters"] == list(MIDDLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--density", "gan"], "density 'gan'"),
        (["--data", "nowhere"], "nowhere.*Cs137.parquet"),
        (["--source", "Na22=x.csv"], "Na22"),
        (["--source", "Cs137"], "NAME=VALUE"),
        (["--prior", "fC=0.5"], "CENTRE,WIDTH"),
        (["--truth", "fC=0.5"], "truth"),
        (["--release", "nowhere", "--unbinned"], "both"),
        (["--background", "Cs137=nothing.csv"], "nothing.csv"),
        (["--source", "Cs137=negative.csv"], "negative"),
        (["--source", "Cs137=energies.csv"], "photo-electrons"),
        (["--source", "Cs137=nan.csv"], "nan|NaN|number"),
        (["--source", "Cs137=empty.csv"], "empty|no |none"),
        (["--samples", "3"], "samples"),
    ],
)
def test_bad_tuning_input_is_one_sentence(density, calibration, tmp_path, monkeypatch, capsys, change, words):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{0.4 + 0.02 * k:.2f},{0.42 + 0.02 * k:.2f},-1\n" for k in range(800))
    Path("negative.csv").write_text("low,high,counts\n" + rows)
    Path("energies.csv").write_text("n_pe\n" + "0.66\n" * 500)
    Path("nan.csv").write_text("n_pe\n" + "1000\n" * 50 + "nan\n")
    Path("empty.csv").write_text("n_pe\n")
    data = [] if change[0] in ("--data", "--source", "--release") else ["--data", calibration]
    which = [] if change[0] == "--density" else ["--density", density]
    code, _, error = call(
        capsys, "tune", "fit", *which, *data, *change, "--method", "minuit", "--no-pictures", "--out", "out"
    )
    assert code == 2
    assert len([line for line in error.splitlines() if line.startswith("nuebar:")]) == 1
    assert re.search(words, error)
    assert not Path("out", "tuning.json").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "--recipe", "gan", "--training", "nowhere"], "recipe"),
        (["train", "--recipe", "tede", "--training", "nowhere"], "nowhere"),
        (["search", "--kind", "tede", "--training", "nowhere"], "nowhere"),
        (["validate", "--density", "spline", "--data", "nowhere", "--study", "moon"], "accuracy"),
        (["validate", "--density", "gan", "--data", "nowhere", "--study", "accuracy"], "gan"),
        (["validate", "--density", "spline", "--data", "nowhere", "--study", "accuracy"], "nowhere"),
        (["fit", "--release", "nowhere"], "nowhere"),
    ],
)
def test_other_bad_tuning_input(tmp_path, monkeypatch, capsys, command, words):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(capsys, "tune", *command, "--out", "out")
    assert code == 2
    assert words in error

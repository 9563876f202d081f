"""The pictures of docs/monte-carlo.md, from small simulations made now and from the records of docs/results.

    python benchmarks/pictures.py [--results FOLDER] [--out docs/figures] [--only NAME] [--events N]

Pictures that compare with data read simulate-quenching.json, simulate-resolution.json and simulate-nonlinearity.json
(benchmarks/monte_carlo.py); where one is missing, its picture is left as it is, and a line says so.
"""

import argparse
import io
import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np
from PIL import Image

from nuebar.config import load_experiment
from nuebar.jobs.ibd import load_spectrum, oscillation_of, spectrum_stage
from nuebar.report import simulation_plots as draw
from nuebar.report.plots import to_bytes
from nuebar.run import run_stage
from nuebar.simulate.calibration import load_plan
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades, ibd_events
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import generated_rates_Hz, singles_events, singles_light
from nuebar.simulate.singles_pools import singles_pools
from nuebar.simulate.singles_table import PairCuts
from nuebar.simulate.sources import PARTS, calibration_pool, deposited_MeV, load_sources
from nuebar.simulate.uniformity import local_light

SEED = 7
# Centre of the published pictures, and what is varied: arXiv:2507.23297.
CENTRE = Response(15.45, 0.525, 10100.0)
EFFECTS = {
    "light-yield": ("Light yield [photons/MeV]", "light_yield_per_MeV", (8000.0, 9000.0, 10000.0, 11000.0, 12000.0)),
    "kb": ("kB [g cm⁻² GeV⁻¹]", "kB_g_cm2_GeV", (6.0, 10.5, 15.0, 19.5, 24.0)),
    "fc": ("fC", "fC", (0.0, 0.25, 0.5, 0.75, 1.0)),
}
# Panel → source and the branch that makes its peak.
PEAKS = {
    "¹³⁷Cs, 0.66 MeV": ("Cs137", 0),
    "⁴⁰K, 1.46 MeV": ("K40", 0),
    "⁶⁰Co, 1.17 + 1.33 MeV": ("Co60", 0),
    "AmBe, n-H 2.22 MeV": ("AmBe", 4),
    "AmBe, 4.44 MeV + n": ("AmBe", 0),
    "AmC, 6.13 MeV + n": ("AmC", 0),
}


@cache
def experiment():
    return load_experiment("juno")


@cache
def model(response=None):
    return DetectorModel.build(experiment(), response)


@cache
def pool(name, events):
    return calibration_pool(load_sources()[name], events, derive_key(SEED, "pictures", name))


def charges(name, at, events):
    """Charges of a source at the centre, in the order of its pool."""
    photons = pool(name, events).photons(at.light)
    return at.reconstruct(photons, np.zeros((photons.size, 3)), derive_key(SEED, "charges", name))["n_pe"]


def inner(values):
    """The middle of a peak's events: all but half a percent on each side."""
    return np.quantile(values, [0.005, 0.995])


# ---------------------------------------------------------------- calibration


def sources(args):
    """Every source of the standard catalogue."""
    return draw.source_spectra([one_source(name, args.events) for name in load_sources()])


def one_source(name, events):
    source, columns = load_sources()[name], pool(name, events).columns
    n_pe = charges(name, model(), events)
    peaks = []
    for b, branch in sorted(enumerate(source.settings.branches), key=lambda item: -item[1].share):
        chosen, energy = n_pe[columns["branch"] == b], deposited_MeV(branch)
        if energy and chosen.size > 50 and all(abs(energy / other - 1) > 0.005 for *_, other in peaks):
            counts, edges = np.histogram(chosen, 60)
            place = float(edges[np.argmax(counts)] + 0.5 * (edges[1] - edges[0]))
            peaks.append((place, f"{energy:.2f}{' + n' if branch.neutron else ''}", energy))
    places = [place for place, *_ in peaks]
    prompt = any(branch.part == "prompt" for branch in source.settings.branches)
    edges = np.linspace(0 if prompt else 0.6 * min(places), 1.2 * max(places), 151)
    parts = {
        part: np.histogram(n_pe[columns["part"] == i], edges)[0]
        for i, part in enumerate(PARTS)
        if np.any(columns["part"] == i)
    }
    return draw.SourceSpectrum(source.title, edges, parts, tuple(p[:2] for p in peaks))


def effect(name):
    """A picture of what one of the three parameters does to six peaks."""
    label, key, values = EFFECTS[name]

    def picture(args):
        factor = load_plan().pe_to_observable
        points = {f"{v:g}": Response(**{**vars(CENTRE), key: v}) for v in values}
        panels = {}
        for title, (source, branch) in PEAKS.items():
            seen = {v: factor * charges(source, model(p), args.events) for v, p in points.items()}
            chosen = pool(source, args.events).columns["branch"] == branch
            limits = np.concatenate([inner(x[chosen]) for x in seen.values()])
            edges = np.linspace(limits.min(), limits.max(), 81)
            panels[title] = (edges, {v: np.histogram(x, edges)[0] for v, x in seen.items()})
        fixed = {"kB_g_cm2_GeV": "kB 15.45", "fC": "fC 0.525", "light_yield_per_MeV": "10100 photons/MeV"}
        note = ", ".join(text for other, text in fixed.items() if other != key)
        return draw.parameter_effect(panels, label, xlabel="1.07 × photo-electrons / 1000", note=note)

    return picture


# ---------------------------------------------------------------- radioactivity


@cache
def singles_sample(cascades, events):
    """Singles of all materials, and the rate that each of them stands for."""
    light = singles_light(singles_pools(model(), SEED, cascades=cascades), model())
    rates = generated_rates_Hz(light, model(), events=200_000)
    drawn = singles_events(light, model(), rates, derive_key(SEED, "singles"), n=events)
    drawn["r_m"] = np.sqrt(sum(drawn[f"{axis}_m"].astype(float) ** 2 for axis in "xyz"))
    return light.materials, drawn, sum(rates.values()) / events


def by_material(values, edges, chosen, sample):
    names, drawn, rate = sample
    return {
        name: rate * np.histogram(values[chosen & (drawn["true_material"] == k)], edges)[0]
        for k, name in enumerate(names)
    }


def singles_energy(args):
    """Energy spectra of radioactivity by material."""
    sample = singles_sample(args.cascades, 20 * args.events)
    e, inside = sample[1]["e_rec_MeV"], sample[1]["r_m"] < model().detector.fiducial_radius_m
    edges = np.linspace(0.2, 5.6, 109)
    whole, fiducial = (by_material(e, edges, chosen, sample) for chosen in (np.ones_like(inside), inside))
    return draw.singles_spectra(edges, whole, fiducial, windows_MeV=PairCuts().delayed_MeV)


def singles_radius(args):
    """Where radioactivity above the threshold is reconstructed."""
    sample, d = singles_sample(args.cascades, 20 * args.events), model().detector
    above = sample[1]["e_rec_MeV"] > d.singles_threshold_MeV
    edges = np.linspace(0, 1.05 * d.radius_m**3, 64)
    rates = by_material(sample[1]["r_m"] ** 3, edges, above, sample)
    return draw.singles_places(edges, rates, fiducial_radius_m=d.fiducial_radius_m, radius_m=d.radius_m)


# ---------------------------------------------------------------- antineutrinos and light


def ibd(args):
    """Prompt and delayed events of antineutrinos, with and without oscillation."""
    cuts, d = PairCuts(), model().detector
    prompt_edges, spectra = np.linspace(0.7, 10, 94), {}
    total = None
    for label, oscillation in (("no oscillation", None), ("oscillated", oscillation_of(experiment()))):
        with tempfile.TemporaryDirectory() as folder:
            run_stage(folder, spectrum_stage(experiment(), oscillation), seed=SEED)
            spectrum = load_spectrum(Path(folder) / "spectrum" / "chunk-00000.safetensors")
        made = ibd_cascades(spectrum, model(), args.events, derive_key(SEED, "ibd", label))
        events = ibd_events(made, model(), derive_key(SEED, "ibd-events", label))
        total = total or spectrum.interactions().sum()
        survival = spectrum.interactions().sum() / total
        spectra[label] = survival * np.histogram(events["prompt_e_rec_MeV"], prompt_edges)[0]
    delayed_edges, time_edges, distance_edges = np.linspace(0, 6, 121), np.linspace(0, 1500, 76), np.linspace(0, 3, 61)
    place = {p: np.stack([events[f"{p}_{a}_m"] for a in "xyz"], axis=1) for p in ("prompt", "delayed")}
    inside = np.linalg.norm(place["prompt"], axis=1) < d.fiducial_radius_m
    e_d = events["delayed_e_rec_MeV"]
    return draw.pairs(
        draw.PairSpectra(
            prompt_edges,
            spectra,
            time_edges,
            np.histogram(1e-3 * events["dt_ns"], time_edges)[0],
            d.neutrons.capture_time_us,
            distance_edges,
            np.histogram(np.linalg.norm(place["prompt"] - place["delayed"], axis=1), distance_edges)[0],
            delayed_edges,
            {
                "all": np.histogram(e_d, delayed_edges)[0],
                f"within {d.fiducial_radius_m:g} m": np.histogram(e_d[inside], delayed_edges)[0],
            },
            cuts.delayed_MeV,
            1e6 * cuts.time_s,
            cuts.distance_m,
        )
    )


def uniformity(args):
    """Maps of the light before and after the correction."""
    d, maps = model().detector, model().uniformity
    axis = np.linspace(-d.radius_m, d.radius_m, 361)

    def light(plane, corrected):
        places = [(a, 0.0, b) if plane == "xz" else (a, b, 0.0) for b in axis for a in axis]
        return np.array([local_light(*p, maps, corrected) for p in places]).reshape(axis.size, axis.size)

    true, believed = light("xz", False), light("xz", True)
    across = light("xy", False) / light("xy", True)
    return draw.light_maps(
        axis,
        true,
        believed,
        true / believed,
        across,
        radius_m=d.radius_m,
        fiducial_radius_m=d.fiducial_radius_m,
    )


# ---------------------------------------------------------------- comparisons


def numbers(args, name):
    """The numbers of a record; None if it was not measured."""
    path = Path(args.results) / f"simulate-{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.is_file() else None


def nonlinearity(args):
    """The released non-linearity beside the stated fit."""
    n = numbers(args, "nonlinearity")
    if n is None:
        return None
    g = n["gammas"]
    fitted = np.arange(len(g["effective_MeV"])) < 6
    ours = np.array(n["prediction"])
    several = {
        k.replace("60Co", "⁶⁰Co"): (v["mean_energy_per_gamma_MeV"], v["ratio"]) for k, v in n["several_gammas"].items()
    }
    gammas = draw.Band(g["effective_MeV"], ours, np.zeros_like(ours), g["ratio"], g["error"])
    keys = ("e_MeV", "ours", "ours_error", "released", "released_error")
    electrons, positrons = (draw.Band(*(n[p][0][k] for k in keys)) for p in ("electrons", "positrons"))
    return draw.nonlinearity(gammas, fitted, electrons, positrons, lines=several)


def resolution(args):
    """The released resolutions beside ours."""
    n = numbers(args, "resolution")
    if n is None:
        return None
    rows = next(iter(n["responses"].values()))["rows"]
    names = {name: source.title for name, source in load_sources().items()} | {"AmC": "¹⁶O* (AmC)", "n-C": "n-C"}
    column = {k: [r[k] for r in rows] for k in rows[0]}
    return draw.resolution(
        [names.get(p, p) for p in column["peak"]],
        column["released_e_rec_MeV"],
        column["ours_percent"],
        column["released_percent"],
        column["fixed"],
    )


def quenching(args):
    """Quenched light of gammas beside Geant4."""
    n = numbers(args, "quenching")
    if n is None:
        return None
    names = {"137Cs": "¹³⁷Cs", "40K": "⁴⁰K", "60Co": "⁶⁰Co", "4.438": "4.44 MeV", "6.129": "6.13 MeV"}
    kB = sorted({r["kB_g_cm2_GeV"] for r in n["rows"]})
    found = {(r["source"], r["kB_g_cm2_GeV"]): (r["ours"], r["geant4"]) for r in n["rows"]}
    listed = dict.fromkeys(r["source"] for r in n["rows"])
    curves = {names.get(s, s): tuple(zip(*(found[s, k] for k in kB), strict=True)) for s in listed}
    return draw.quenching(kB, curves, aim_percent=n["aim_percent"])


PICTURES = {
    "sources": sources,
    **{f"effect-{name}": effect(name) for name in EFFECTS},
    "singles-energy": singles_energy,
    "singles-radius": singles_radius,
    "ibd": ibd,
    "uniformity": uniformity,
    "nonlinearity": nonlinearity,
    "resolution": resolution,
    "quenching": quenching,
}


def small(figure):
    """A picture as bytes with at most 256 colours: a third of the size, and no difference to the eye."""
    image = Image.open(io.BytesIO(to_bytes(figure))).convert("RGB")
    out = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="docs/results", help="folder of the records")
    parser.add_argument("--out", default="docs/figures", help="folder of the pictures")
    parser.add_argument("--only", choices=PICTURES, help="one picture")
    parser.add_argument("--events", type=int, default=300_000, help="of each source, and pairs")
    parser.add_argument("--cascades", type=int, default=100_000, help="of each material's pool")
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        if args.only not in (None, name):
            continue
        path = Path(args.out) / f"simulate-{name}.png"
        figure = picture(args)
        if figure is None:
            print(f"{path}: left as it is: no simulate-{name}.json in {args.results}; run benchmarks/monte_carlo.py")
            continue
        path.write_bytes(small(figure))
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

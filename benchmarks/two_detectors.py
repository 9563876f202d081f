"""What TAO brings to JUNO: mass ordering and precision with the spectrum of the reactors known, measured, or free.

    python benchmarks/two_detectors.py [--out docs/results] [--only CASE ...] [--inputs FILE.root]

With --only the other cases of an earlier record are kept.

6.5 years × 26.6 GW at the resolution of 2024, expected counts. Each case says what is known of the spectrum; TAO runs
as long as JUNO does. Then a truth with fine structure that no model of the fit has: sawteeth of 5 % on every spectrum,
as the Coulomb steps of beta branches make them (nominal), and what each fit makes of them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.joint import joint_fit
from nuebar.fit.many import DataSets
from nuebar.fit.ordering import OrderingStudy, scaled
from nuebar.io.releases import read_common_inputs, read_table
from nuebar.io.results import load_result
from nuebar.jobs.ordering import resolutions
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.joint import free_spectrum, spectrum_nodes

YEARS = 6.5
RESOLUTION = "2024"
PUBLISHED_YEARS_AT_3_SIGMA = 6.5  # arXiv:2405.18008, abstract: about 6.5 years × 26.6 GW, JUNO and TAO together
NAME = "fit-two-detectors"
SAW_MeV, SAW_SIZE = 0.25, 0.05  # distance and height of the teeth (nominal)


def cases(juno, tao):
    """Name → (what it is, the experiments, options of the fit)."""
    daya_bay = {"systematics.spectrum_shape": "daya_bay_shape_error.csv", "systematics.spectrum_shape_width_MeV": 0.25}
    equal_fuel = override(tao, {"systematics.fission_fractions": {}})
    out = {
        "bin to bin": ("JUNO, bin-to-bin errors expected from TAO", juno, None, {"spectrum": "own"}),
        "joint": ("JUNO and TAO, free every 50 keV", juno, tao, {}),
        "joint 25 keV": ("JUNO and TAO, free every 25 keV", juno, tao, {"nodes_MeV": spectrum_nodes(0.025)}),
        "joint 100 keV": ("JUNO and TAO, free every 100 keV", juno, tao, {"nodes_MeV": spectrum_nodes(0.1)}),
        "joint apart": ("as joint, with non-linearities of their own", juno, tao, {"own": ("nonlinearity_",)}),
        "joint same fuel": ("as joint, fuel of TAO's core known", juno, equal_fuel, {}),
        "joint long": ("as joint, ten times the exposure of TAO", juno, tao, {"second_exposure": 10.0}),
        "alone": ("JUNO, free every 50 keV, no TAO", juno, None, {}),
        "alone 5 %": ("JUNO, every 50 keV within 5 %, no TAO", juno, None, {"sigma": 0.05}),
        "alone 100 keV": ("JUNO, free every 100 keV, no TAO", juno, None, {"nodes_MeV": spectrum_nodes(0.1)}),
        "Daya Bay": ("JUNO, bin-to-bin errors of Daya Bay", override(juno, daya_bay), None, {"spectrum": "own"}),
        "known": ("JUNO, spectrum known", juno, None, {"spectrum": "fixed"}),
    }
    return out


def sawteeth(experiment, folder):
    """The experiment with fine structure on its spectrum."""
    e = np.arange(1.8, 13.0, 0.005)
    ratio = np.interp(e, *read_table(experiment.table(experiment.reactor.shape), ("e_nu_MeV", "ratio")))
    phase = (e / SAW_MeV) % 1.0
    path = Path(folder) / "sawteeth.csv"
    rows = np.column_stack([e, ratio * (1.0 + SAW_SIZE * (phase - 0.5))])
    np.savetxt(path, rows, fmt="%.6f", delimiter=",", header="e_nu_MeV,ratio", comments="")
    return override(experiment, {"reactor.shape": str(path)})


def both_orderings(study, factor, counts, wrong):
    """Best fits of some counts: Δχ², and of the normal ordering errors, shifts and χ².

    The inverted ordering starts at ``wrong``, the best of the several minima that it has for expected counts.
    """
    found = {}
    for ordering in ("normal", "inverted"):
        many = study.many(ordering, factor)
        nominal = {n: p.value for n, p in study.parameters[ordering].items()}
        start = np.array([list((nominal if ordering == "normal" else nominal | wrong).values())])
        found[ordering] = many.run(DataSets(np.zeros(1, int), counts[None], many.centres[None], start), start=start)
    right, wrong = found["normal"], found["inverted"]
    nominal = study.fit.parameters.nominal()
    return {
        "delta_chi2": float(wrong.chi2[0] - right.chi2[0]),
        "errors": {n: float(right.error(n)[0]) for n in OSCILLATION},
        "shifts": {n: float((right.value(n)[0] - nominal[n]) / right.error(n)[0]) for n in OSCILLATION},
        "chi2": float(right.chi2[0]),
        "valid": bool(right.valid[0] and wrong.valid[0]),
    }


def measured(name, what, juno, second, options, inputs, folder):
    began = time.perf_counter()
    fit = joint_fit(juno, second, inputs=inputs, **options)
    factor = YEARS * juno.exposure.days_per_year / (juno.exposure.days * juno.reactor.duty_cycle)
    study = OrderingStudy(fit, smallest=factor, lanes=4)
    point = study.asimov(factor)
    plain = both_orderings(study, factor, scaled(fit, factor).counts, point.wrong)
    # No part of the fit: the same spectra with sawteeth, the same bins.
    truth = joint_fit(
        sawteeth(juno, folder),
        None if second is None else sawteeth(second, folder),
        inputs=inputs,
        **{**options, "spectrum": "fixed" if options.get("spectrum") != "own" else "own"},
    )
    fine = both_orderings(study, factor, scaled(truth, factor).counts, point.wrong)
    nodes = len(free_spectrum(juno, nodes_MeV=options.get("nodes_MeV")).reactor.segments_MeV)
    row = {
        "what": what,
        "delta_chi2": point.delta_chi2,
        "valid": point.valid and plain["valid"] and fine["valid"],
        "errors": plain["errors"],
        "fine_structure": {k: fine[k] for k in ("delta_chi2", "shifts", "chi2")},
        "free_parameters": len(fit.parameters.free),
        "nodes": nodes if options.get("spectrum") is None else 0,
        "bins": len(fit.counts),
        "seconds": time.perf_counter() - began,
    }
    shifts = " ".join(f"{s:+.2f}" for s in fine["shifts"].values())
    print(
        f"{name:>16}: Δχ² {point.delta_chi2:6.2f}; errors "
        + " ".join(f"{e:.3g}" for e in plain["errors"].values())
        + f"; sawteeth: Δχ² {fine['delta_chi2']:6.2f}, χ² {fine['chi2']:6.1f}, shifts {shifts} σ; "
        + f"{row['free_parameters']} free, {row['seconds']:.0f} s{'' if row['valid'] else ', NOT VALID'}",
        flush=True,
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--inputs", type=Path)
    options = parser.parse_args()
    r = resolutions()[RESOLUTION]
    juno = override(load_experiment("juno"), {"response.resolution": r.resolution, "systematics.resolution": r.sigma})
    inputs = None if options.inputs is None else read_common_inputs(options.inputs)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (what, first, second, chosen) in cases(juno, load_experiment("tao")).items():
            if options.only is None or name in options.only:
                rows[name] = measured(name, what, first, second, chosen, inputs, folder)
    if options.out is not None:
        before = options.out / f"{NAME}.json"
        if options.only is not None and before.is_file():
            rows = {**load_result(before)["numbers"]["cases"], **rows}
            rows = {name: rows[name] for name in cases(juno, juno) if name in rows}
        numbers = {
            "years": YEARS,
            "resolution": RESOLUTION,
            "published_years_at_3_sigma": PUBLISHED_YEARS_AT_3_SIGMA,
            "sawteeth": {"distance_MeV": SAW_MeV, "size": SAW_SIZE},
            "cases": rows,
        }
        command = "python benchmarks/two_detectors.py --out docs/results" + (" --inputs FILE" if inputs else "")
        seconds = sum(row["seconds"] for row in numbers["cases"].values())
        write_claim(options.out, NAME, numbers, command=command, seconds=seconds)


if __name__ == "__main__":
    main()

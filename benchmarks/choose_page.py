"""Write docs/choose.md: which predictor, estimator, statistic and interval. Its figures come from docs/results/*.json.

``benchmarks/results_page.py`` (``make page``) writes it with the other pages.
"""

from predictor_page import duration, power, size
from simulation_page import signed
from simulation_page import table as numbers

NONE = "—"
PREDICTORS = {
    "harmonic-matter": ("harmonic", "fits, scans, toys at one response: the default"),
    "surrogate": ("surrogate", "kB, fC, light yield, smearing free"),
    "reweight": ("reweight", "the reference: to check the others"),
    "matrix": ("matrix", "a matrix for other programs; splittings without limits"),
    "grid-3": ("grid", "comparison with spectra on disk"),
    "network-network": ("network", "comparison with the published network"),
}
FITTED = {
    "harmonic-matter": "harmonic", "surrogate": "surrogate, matter", "reweight": "reweight", "matrix": "matrix",
    "grid-3": "grid, θ13 constrained", "network-network": "network network, θ13 constrained",
}  # fmt: skip
DENSITIES = {
    "spline": "the default; binned or unbinned",
    "tede": "comparison with the published transformer; binned only",
    "planar": "comparison with the published flow; binned or unbinned",
}
CLASSIFIERS = {
    "cuts": "a detector that nothing was trained on; comparison with publications",
    "network": "the default for JUNO",
    "trees": "a second opinion; trains without tuning",
    "ratio": "the yardstick of what there is to gain",
}
METHODS = {
    "minuit": "best fit and Minos, quickly",
    "nuts": "a posterior: the default",
    "nested": "a posterior with several peaks; the evidence; as published",
}
CHANGED = {
    "Pearson instead of combined Neyman-Pearson": "`pearson` instead of `cnp`",
    "no bin-to-bin shape uncertainties": "no bin-to-bin uncertainties",
}


def table(header, rows, texts=2):
    """A Markdown table whose first columns are text."""
    return numbers(header, rows).replace("---:", "---", texts - 1)


def missing(name):
    return f"Not measured yet: there is no record `{name}.json`."


def predictor(found):
    if "predict-compare" not in found:
        return [missing("predict-compare")]
    rows = {r["name"]: r for r in found["predict-compare"]["numbers"]["rows"]}
    fits = found.get("fit-predictors", {}).get("numbers", {}).get("rows", {})
    lines = []
    for name, (word, when) in PREDICTORS.items():
        if name not in rows:
            continue
        r, fit = rows[name], fits.get(FITTED[name])
        accuracy = next(iter((r.get("accuracy") or {}).values()), None)
        lines.append([
            f"`{word}`", when, duration(r["one_jitted"]["best_s"]), duration(r["gradient"]["best_s"]), size(r["bytes"]),
            NONE if accuracy is None else power(accuracy["relative_worst"]),
            NONE if fit is None or name == "reweight" else power(max(map(abs, fit["shift_sigma"].values()))),
        ])  # fmt: skip
    header = [
        "predictor",
        "take it for",
        "one spectrum",
        "its gradient",
        "size",
        "worst bin",
        "largest shift of a fit [σ]",
    ]
    return [
        table(header, lines),
        "Two cores. *Worst bin* is the largest relative error of the method over all test points; *shift* is what it "
        "does to one "
        "fit of Monte Carlo data, against reweighting. `reweight` is the truth of the table, the surrogate has its "
        "own.",
        "- Is the response of the detector known well enough to be fixed, or described by the pulls of the file? "
        "`harmonic`.\n"
        "- Is there a posterior of kB, fC and light yield? `surrogate --response FILE`.\n"
        "- Do you have a Monte Carlo of your own? `harmonic` from your pairs ([how](how-to/own-monte-carlo.md)).\n"
        "- Do splittings go far outside of ±15σ of PDG 2022? `matrix`.",
        "More: [surrogates](surrogates.md#which-predictor), [method](method.md#which-predictor).",
    ]


def density(found):
    parts = []
    if "tune-points" in found and "tune-exposures" in found:
        points = found["tune-points"]["numbers"]["densities"]
        sizes = found["tune-exposures"]["numbers"]["densities"]
        lines = []
        for name, when in DENSITIES.items():
            if name not in points or name not in sizes:
                continue
            row = next(r for r in sizes[name]["rows"] if r["events"] == sizes[name]["aim_from_events"])
            lines.append([
                f"`{name}`", when, *[signed(b, 3) for b in row["bias_percent"]],
                f"{max(points[name]['rms_sigma']):.2f}", f"{max(points[name]['worst_sigma']):.2f}",
            ])  # fmt: skip
        header = [
            "density", "take it for", "bias of kB [%]", "of fC [%]", "of light yield [%]", "rms bias [σ]", "worst "
            "point [σ]",
        ]  # fmt: skip
        parts += [
            table(header, lines),
            "Biases at one point, 10,000 events of every source; rms and worst over many points, for the worst of "
            "the three "
            "parameters. One σ is the error of such a calibration.",
        ]
    else:
        parts.append(missing("tune-points"))
    if "tune-example" in found:
        spline = found["tune-example"]["numbers"]["densities"].get("spline", {}).get("binned")
        lines = []
        for m in () if spline is None else spline["methods"]:
            kB, fC, light = zip(m["best"], m["errors"], strict=True)
            cells = [f"{kB[0]:.3f} ± {kB[1]:.3f}", f"{fC[0]:.4f} ± {fC[1]:.4f}", f"{light[0]:.1f} ± {light[1]:.1f}"]
            lines.append([f"`{m['method']}`", METHODS.get(m["method"], ""), *cells, duration(m["seconds"])])
        parts += [
            "The method (`--method`), on one calibration with the spline density:",
            table(["method", "take it for", "kB", "fC", "light yield", "time"], lines),
        ]
    parts.append("More: [tuning](tuning.md).")
    return parts


def classifier(found):
    if "select-compare" not in found:
        return [missing("select-compare")]
    window = found["select-compare"]["numbers"]["windows"][0]
    lines = []
    for name, when in CLASSIFIERS.items():
        if name == "cuts":
            e = window["cuts"]["efficiency"]["value"]
            lines.append(["`cuts`", when, f"{100 * e:.2f}", NONE, NONE])
            continue
        levels = {x["of_cuts"]: x for x in window["levels"].get(name, ())}
        if not levels:
            continue
        cells = [f"{100 * levels[k]['efficiency']['value']:.2f}" + ("" if levels[k]["resolved"] else "?")
                 if k in levels else NONE for k in (1.0, 0.1, 0.01)]  # fmt: skip
        lines.append([f"`{name}`", when, *cells])
    header = [
        "classifier",
        "take it for",
        "efficiency [%] at the background of the cuts",
        "at a tenth",
        "at a hundredth",
    ]
    return [
        table(header, lines),
        f"Pairs within {window['window_ms']:g} ms, simulated, in the whole volume. `?`: too few background pairs to "
        "measure.",
        "A network has learned one detector. With another, train yours or take the cuts: a wrong network costs "
        "efficiency, "
        "while the accidental background is measured from data with any classifier.",
        "More: [selection](selection.md#which-classifier).",
    ]


def statistic(found):
    rows = [
        ["`cnp`", "a measured spectrum with some tens of events in most bins: the default", "yes"],
        ["`barlow-beeston`", "few events in a bin, with bin-to-bin uncertainties", "yes"],
        ["`poisson`", "few events in a bin, none of those", "no: `fit.shape_uncertainties = false`"],
        ["`pearson`", "expected errors (Asimov)", "yes"],
        ["`neyman`", "comparison with others", "yes; no empty bins"],
    ]
    parts = [table(["statistic", "take it for", "bin-to-bin uncertainties"], rows, texts=3)]
    if "fit-first-measurement" in found:
        n = found["fit-first-measurement"]["numbers"]
        moved = n["what_moves_the_answer"]
        lines = [
            [word, *[f"{signed(moved[key][p]['shift_in_published_sigma'])} σ" for p in n["published"]]]
            for key, word in CHANGED.items()
            if key in moved
        ]
        symbols = {"sin2_th12": "sin²θ12", "dm2_21_eV2": "Δm²21"}
        parts += [
            "What the choice does to JUNO's first data, in published errors:",
            table(["changed", *[symbols.get(p, p) for p in n["published"]]], lines, texts=1),
        ]
    parts.append("Formulas: [conventions](conventions.md#statistics).")
    return parts


def interval(found):
    rows = [
        ["Hesse", "many events, parameters away from limits", "every fit"],
        ["Minos", "an asymmetric likelihood with one minimum", "`--minos`"],
        ["profile, contour", "two parameters; several minima", "`--contour`, `nuebar fit grid`"],
        ["posterior", "priors that matter; nuisances integrated out", "[statistics](statistics.md)"],
        [
            "Feldman-Cousins",
            "limits of a parameter, few events, coverage that must hold",
            "[statistics](statistics.md)",
        ],
    ]
    parts = [
        table(["interval", "take it for", "how"], rows, texts=3),
        "The first three take Δχ² as Wilks' theorem has it: many events, one minimum, no limit near. Δm²31 in a "
        "month is not "
        "like that, as its likelihood has several minima ([chain](chain.md#a-month-and-δm²31)).",
    ]
    if "chain-ensemble" in found:
        n = found["chain-ensemble"]["numbers"]["none"]
        interest = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2")
        lines = [
            [
                f"`{p['name']}`",
                f"{signed(p['mean'])} ± {p['mean_error']:.2f}",
                f"{p['width']:.2f} ± {p['width_error']:.2f}",
            ]
            for p in n["parameters"]
            if p["name"] in interest
        ]
        parts += [
            f"Pulls (found − true)/error of {n['seeds']} simulated months of the whole chain. Intervals cover if "
            "they are "
            "Gaussian with mean 0 and width 1:",
            table(["parameter", "mean", "width"], lines, texts=1),
        ]
    parts.append(
        "Coverage of every interval that the tool prints, measured with pseudo-experiments: "
        "[statistics](statistics.md)."
    )
    return parts


SECTIONS = (
    ("Which predictor", predictor),
    ("Which estimator of the response", density),
    ("Which classifier", classifier),
    ("Which statistic", statistic),
    ("Which interval", interval),
)


def page(found):
    """The page from the records, by name."""
    parts = [
        "# Which one should I use?",
        "In short: `harmonic`, `spline` with NUTS, `network` for JUNO, `cnp`, Hesse. The tables say what the others "
        "are for. Figures are those of the records in `docs/results` ([all results](results.md)); "
        "`make page` writes this page.",
    ]
    for title, write in SECTIONS:
        parts += [f"## {title}", *write(found)]
    return "\n\n".join(parts) + "\n"

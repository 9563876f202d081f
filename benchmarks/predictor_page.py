"""The sections of docs/results.md on predictors from Monte Carlo, from docs/results/*predict*.json."""

import math
import re

from simulation_page import met, signed, table

CASCADES = "--cascades FOLDER"
HOW = {
    "predict-networks": "python benchmarks/networks.py FOLDER ...",
    "predict-reference": f"python benchmarks/reference.py --pairs FOLDER {CASCADES}",
    "predict-compare": f"nuebar predict compare --pairs FILES {CASCADES} --full --out FOLDER",
    "predict-regressors": f"python benchmarks/surrogate_choice.py {CASCADES}",
    "fit-predictors": f"python benchmarks/predictor_fits.py --pairs FOLDER {CASCADES} --network FOLDER",
    "bench-predictors": "python benchmarks/predictors.py",
}
TITLES = {
    "predict-networks": "Trained networks",
    "predict-reference": "The reference itself",
    "predict-compare": "Predictors from one Monte Carlo",
    "predict-regressors": "What carries the response of the detector",
    "fit-predictors": "The same fit with every predictor",
    "bench-predictors": "Speed of the predictors",
}
# Aims, decided before anything was measured.
EXACT = 1e-9  # harmonic against reweighting, worst bin
WORST_BIN, WORST_CHI2, WORST_SHIFT = 1e-4, 1e-3, 1e-2  # surrogate against its cascades
FIT_SHIFT, NETWORK_SHIFT = 0.02, 0.2  # fitted parameters against those with reweighting, σ
SIZE_MB, TRAINING_MIN = 2.0, 15.0
ONE_S, SLOPES_S, FIXED_S, VARYING_S, FIT_S = 60e-6, 150e-6, 0.6, 3.0, 20e-3
MILLION = 1_000_000
SYMBOLS = {"sin2_th12": "sin²θ12", "sin2_th13": "sin²θ13", "dm2_21_eV2": "Δm²21", "dm2_31_eV2": "Δm²31", "norm": "norm"}
NONE = "—"


# ---------------------------------------------------------------- formatting


def power(x):
    """Two digits, small numbers with a power of ten: 3.1·10⁻⁵."""
    if x == 0 or 0.01 <= abs(x) < 1e4:
        return f"{x:.2g}" if abs(x) < 100 else f"{x:.0f}"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def duration(seconds):
    for unit, size in (("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= (180.0 if unit == "min" else size):
            x = seconds / size
            return f"{x:.{max(0, 2 - math.floor(math.log10(x)))}f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def size(nbytes):
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= one:
            return f"{nbytes / one:.2f} {unit}"
    return f"{nbytes:.0f} B"


def rate(per_second):
    return f"{per_second:.0f}" if per_second < 1e3 else f"{power(per_second)}"


def held(value, aim, shown=power):
    """A value, its aim without the zeros that only show its precision, and whether it is reached."""
    short = re.sub(r"\.0+(?=\D|$)", "", shown(aim))
    return [shown(value), f"≤ {short}", met(value <= aim)]


def best(cell):
    return NONE if cell is None else duration(cell["best_s"])


# ---------------------------------------------------------------- comparison


def named(row, region):
    return f"{row['label']}, {region}" if region else row["label"]


def accuracies(rows):
    """(name, accuracy) of every row and region."""
    return [(named(r, region), a) for r in rows for region, a in (r.get("accuracy") or {}).items()]


def compare(n):
    rows, settings = n["rows"], n["settings"]
    low, high, bins = settings["edges_MeV"]
    points = settings["size"]["points"]
    return [
        f"{bins:.0f} bins from {low:g} to {high:g} MeV; {points:,} test points that no training saw, uniform in the "
        "box of the published network. Errors are those of bins above 10⁻⁴ of the spectrum. The truth is reweighting "
        "of the same pairs; for the surrogate it is the cascades folded at each response point. So these are errors of "
        "the method: those of the Monte Carlo itself come on top.",
        *aims(rows),
        "### Size and speed",
        speeds(rows),
        "Best of repeated calls; medians are in the JSON file. Numpy or compiled means without JAX. The published "
        "network has 1.23 MB, takes about 1 ms a spectrum and makes of the order of a million a second in batches; its "
        "artefacts are below 0.1 % in the major part of the energy range (Y. Malyshkin, CHEP 2024).",
        "### Accuracy",
        errors(rows),
        "Δχ² = Σ (S − T)²/T at the exposure of the experiment.",
        "### Shifts",
        "Shift of each fitted parameter in its standard error, median / worst, by linear response; the norm is free.",
        shifts(rows),
        *remarks(rows),
    ]


def aims(rows):
    """What the issue asked for."""
    lines = []
    for r in rows:
        c = r.get("checks", {}).get("vacuum")
        if c is not None:
            what = f"harmonic against reweighting pair by pair, vacuum, {c['points']:.0f} points, worst bin"
            lines.append([what, *held(c["harmonic"], EXACT)])
        if r["name"] == "surrogate":
            for region, a in (r.get("accuracy") or {}).items():
                head = f"surrogate, {region}:"
                lines += [
                    [f"{head} worst bin", *held(a["relative_worst"], WORST_BIN)],
                    [f"{head} worst Δχ²", *held(a["chi2_worst"], WORST_CHI2)],
                    [f"{head} worst shift [σ]", *held(max(a["shift_worst"].values()), WORST_SHIFT)],
                ]
            lines += [
                ["surrogate: size on disk", *held(r["bytes"], SIZE_MB * 1e6, size)],
                ["surrogate: training", *held(r["build_s"], TRAINING_MIN * 60, duration)],
            ]
    return [table(["", "measured", "aim", "met"], lines)] if lines else []


def speeds(rows):
    lines = []
    for r in rows:
        quick, batch = r.get("one_quick"), r.get("batch")
        lines.append(
            [
                r["label"],
                f"{r['parameters']}",
                duration(r["build_s"]) if r["build_s"] else NONE,
                size(r["bytes"]),
                best(r["one_jitted"]),
                f"{duration(quick['best_s'])} ({quick['path']})" if quick else NONE,
                best(r["gradient"]),
                rate(batch["per_second"]) if batch else NONE,
            ]
        )
    header = [
        "predictor", "parameters", "built in", "size", "one spectrum, JAX", "numpy or compiled", "gradient",
        "spectra/s in a batch",
    ]  # fmt: skip
    return table(header, lines)


def errors(rows):
    lines = [
        [
            name,
            f"{a['points']:,}",
            *[power(a[k]) for k in ("relative_median", "relative_999", "relative_worst", "chi2_median", "chi2_worst")],
        ]
        for name, a in accuracies(rows)
    ]
    return table(["predictor", "points", "median", "99.9 %", "worst bin", "Δχ² median", "Δχ² worst"], lines)


def shifts(rows):
    lines = [
        [name, *[f"{power(a['shift_median'][k])} / {power(a['shift_worst'][k])}" for k in SYMBOLS]]
        for name, a in accuracies(rows)
    ]
    return table(["predictor", *SYMBOLS.values()], lines)


def remarks(rows):
    """Against the reference pair by pair; what each row says of itself; how busy the machine was."""
    lines = []
    for r in rows:
        for where, c in r.get("checks", {}).items():
            lines.append(
                f"- Against reweighting pair by pair in {where}, {c['points']:.0f} points, worst bin: the folded table "
                f"{power(c['folded'])}, the harmonic predictor {power(c['harmonic'])}."
            )
        lines += [f"- {note}" for note in r["notes"]]
    loads = [x for r in rows for x in r["load_average"] if x is not None]
    if loads:
        lines.append(f"- Load average of the machine: {min(loads):g} to {max(loads):g}.")
    return ["\n".join(lines)] if lines else []


# ---------------------------------------------------------------- regressors


def regressors(n):
    lines = [
        [
            name,
            *[power(r[k]) for k in ("relative_median", "relative_99.9", "relative_worst", "chi2_median", "chi2_worst")],
            duration(r["training_s"]),
            size(r["bytes"]),
        ]
        for name, r in n["rows"].items()
    ]
    header = ["", "median", "99.9 %", "worst bin", "Δχ² median", "Δχ² worst", "training", "size in memory"]
    return [
        f"Ways to learn the response from the same {n['events']:,} cascades, on {n['test_points']} points of its "
        f"whole box. Those with a reduced basis of {n['rank']} vectors learn the harmonic tables of "
        f"{n['training_points']} points directly. Δχ² at {n['counts']:g} events.",
        table(header, lines),
    ]


# ---------------------------------------------------------------- fits


def limit(name):
    """The aim for a row, or None for a reference."""
    if name.startswith(("reweight", "harmonic of cascades")):
        return None
    return NETWORK_SHIFT if name.startswith("network") else FIT_SHIFT


def fits(n):
    lines = []
    for name, r in n["rows"].items():
        worst, aim = max(abs(x) for x in r["shift_sigma"].values()), limit(name)
        names = [k for k in SYMBOLS if k != "norm"]
        lines.append(
            [
                name,
                *[signed(r["shift_sigma"][k], 4) if k in r["shift_sigma"] else NONE for k in names],
                f"{r['chi2']:.2f}" + ("" if r["valid"] else " **not valid**"),
                duration(r["seconds"]),
                "reference" if aim is None else f"≤ {aim:g}",
                NONE if aim is None else met(worst <= aim and r["valid"]),
            ]
        )
    header = ["", *[f"{SYMBOLS[k]} [σ]" for k in SYMBOLS if k != "norm"], "χ²", "once compiled", "aim [σ]", "met"]
    return [
        f"One simulated spectrum of {n['bins']} bins, drawn from {n['events']:,} reweighted pairs, fitted with all "
        "systematics. Shifts are those of the fitted values from the fit with the reference above the row, in its "
        "standard errors. A network is valid in a box of sin²θ13 that a fit of JUNO alone leaves, so sin²θ13 has a "
        "prior there, in its reference too; the surrogate's data come from cascades.",
        table(header, lines),
    ]


# ---------------------------------------------------------------- speed


def timed(numbers):
    return {k: v for k, v in numbers.items() if isinstance(v, dict) and "best_s" in v}


def speed(n):
    pairs, ours = n["one spectrum of 400 bins from pairs"], n["surrogate, vacuum, ±3σ"]
    lines = [[k, duration(v["best_s"]), duration(v["median_s"])] for k, v in timed(pairs).items()]
    ratios = [[k, f"{v:.3g}"] for k, v in pairs["ratios"].items()]
    return [
        f"Best and median of several repetitions in one run, load average {n['load average']:.1f}. One spectrum of 400 "
        f"bins from {pairs['pairs']:,} pairs:",
        table(["", "best", "median"], lines),
        table(["ratio of bests", ""], ratios),
        f"The surrogate of {ours['cascades']:,} cascades; aims are held against the best:",
        table(["", "best", "aim", "met"], surrogate_speeds(ours)),
        "Spectra in batches are in single precision: at the fixed response within "
        f"{power(ours['worst relative difference of these to the surrogate'])}, at varying response within "
        f"{power(ours['worst relative difference of those to the surrogate'])} of the surrogate in bins above 10⁻⁴ of "
        "the spectrum.",
        table(
            ["four parameters and a norm, with Hesse, once compiled", "best", "aim", "met"],
            [[k, *held(x["best_s"], FIT_S, duration)] for k, x in n["four parameters and a norm, with Hesse"].items()],
        ),
    ]


def networks(n):
    lines = [
        [
            name,
            "-".join(map(str, (4, *r["hidden"], 400))) + f", {r['activation']}",
            f"{r['optimiser']} {r['learning_rate']:g}, {r['decay']}",
            f"{r['spectra_seen'] / 1e6:.0f} M",
            duration(r["seconds"]),
            *[power(r["metrics"][k]) for k in ("relative_median", "relative_90", "relative_99.9")],
            f"{100 * r['metrics']['within_0.1_percent']:.0f} %",
            power(r["metrics"]["chi2_median"]),
        ]
        for name, r in n["rows"].items()
    ]
    header = [
        "recipe",
        "network",
        "optimiser",
        "spectra",
        "training",
        "median",
        "90 %",
        "99.9 %",
        "within 0.1 %",
        "Δχ²",
    ]
    return [
        "Networks trained on spectra of ten million pairs, one core each; relative errors of bins above 1 % of the "
        "highest one at parameters that they had not seen. Published: below 0.1 % in most of the range. "
        "A network counts as that baseline where most bins are within 0.1 %: with the learning rate of 0.02 kept "
        "constant it is not, with a falling one it is.",
        table(header, lines),
    ]


def reference(n):
    pools, drawn, pass_ = n["independent_pools"], n["drawn_pairs"], n["reweighting"]
    lines = [
        [f"independent pools, {name}", f"{x['chi2_per_bin']:.3f} ± {(2 / x['bins']) ** 0.5:.3f}", "1 ± 0.1",
         met(abs(x["chi2_per_bin"] - 1) <= 0.1)]
        for name, x in pools.items()
    ]  # fmt: skip
    lines.append(
        [f"{drawn['pairs']:,} pairs with drawn charges against the analytic spectrum",
         f"{drawn['chi2_per_bin']:.3f} ± {(2 / drawn['bins']) ** 0.5:.3f}", "1", ""]
    )  # fmt: skip
    return [
        f"χ² per bin of {n['pools']} pools of cascades ({n['events']:,} events) in bins of 100 keV, with the Monte "
        "Carlo covariance of both sides:",
        table(["", "χ² per bin", "aim", "met"], lines),
        f"Reweighting {pass_['pairs']:,} pairs takes {duration(pass_['vacuum_s'])} in vacuum and "
        f"{duration(pass_['matter_s'])} in matter; the harmonic predictor of them differs by "
        f"{power(pass_['harmonic_worst'])} at most. Their own Monte Carlo error per bin: median "
        f"{pass_['mc_error_percent']['median']:.2f} %, worst {pass_['mc_error_percent']['worst']:.0f} %.",
    ]


def surrogate_speeds(n):
    lines = []
    for what, x in timed(n).items():
        aim = {"one spectrum, jitted": ONE_S}.get(what, SLOPES_S if what.startswith("χ² and its gradient") else None)
        for kind, most in (("fixed", FIXED_S), ("varying", VARYING_S)):
            if f" spectra at {'a ' * (kind == 'fixed')}{kind} response" in what:
                spectra = int(what.split()[0])
                aim, what = most if spectra == MILLION else None, what.replace(str(spectra), f"{spectra:,}")
        lines.append([what, *plain(x["best_s"], aim)])
    return lines


def plain(value, aim):
    return [duration(value), "", ""] if aim is None else held(value, aim, duration)


SECTIONS = {
    "predict-reference": reference,
    "predict-networks": networks,
    "predict-compare": compare,
    "predict-regressors": regressors,
    "fit-predictors": fits,
    "bench-predictors": speed,
}

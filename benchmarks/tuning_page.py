"""The sections of docs/results.md on neural Monte Carlo tuning, from docs/results/tune-*.json and bench-tuning.json."""

from predictor_page import NONE, duration, held, power, rate
from simulation_page import met, signed, table

TUNING = "make tuning"
HOW = {
    "tune-accuracy": TUNING,
    "tune-example": TUNING,
    "tune-exposures": TUNING,
    "tune-points": TUNING,
    "tune-asimov": TUNING,
    "tune-calibration": TUNING,
    "tune-methods": TUNING,
    "tune-release": f"{TUNING} RELEASE=folder",
    "bench-tuning": "python benchmarks/tuning.py",
}
TITLES = {
    "tune-accuracy": "Neural tuning: distances to the simulated spectra",
    "tune-example": "Neural tuning: the worked example",
    "tune-exposures": "Neural tuning: many data sets at one point",
    "tune-points": "Neural tuning: many points",
    "tune-asimov": "Neural tuning: bias without noise",
    "tune-calibration": "Neural tuning: ranks and coverage",
    "tune-methods": "Neural tuning: methods, misfits, and what in the spectra tells the response",
    "tune-release": "Neural tuning: the gammas of JUNO's 2025 release",
    "bench-tuning": "Speed of neural tuning",
}
SYMBOLS = {"kB_g_cm2_GeV": "kB", "fC": "fC", "light_yield_per_MeV": "light yield"}
THREE = tuple(SYMBOLS.values())
DIGITS = (3, 4, 1)  # of values of the three
SETS = {"validation-2": "validation 2", "testing-1": "testing 1"}
DISTANCES = {"d1": "d₁", "d2": "d₂", "d_inf": "d∞"}
RATIO_SIGMA = 3.0  # a ratio of spreads may lie so many of its errors from one
D_INF_AIM = 1e-3  # at validation 2
AGREED_SIGMA, AGREED_PERCENT = 0.1, 5.0  # methods


# ---------------------------------------------------------------- formatting


def pair(value, error, digits):
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def pairs(values, errors, digits=DIGITS):
    return [NONE if v is None else pair(v, e, d) for v, e, d in zip(values, errors, digits, strict=True)]


def point(p):
    return f"kB {p[0]:g} g/cm²/GeV, fC {p[1]:g}, {p[2]:g} photons/MeV"


def percents(values, digits=1):
    return [f"{signed(v, digits)} %" for v in values]


def p_value(p):
    return "< 10⁻¹⁴" if p < 1e-14 else power(p)


# ---------------------------------------------------------------- accuracy


def accuracy(n):
    parts = [
        "Distances of cumulative distributions, in units of the observable (1.07·N_pe/1000; d∞ has none): mean over "
        "the points, and in parentheses the largest. A perfect density would have the mean of the last column, as the "
        "simulated spectra are finite.",
    ]
    for name, title in SETS.items():
        rows = []
        one = next(iter(n["densities"].values()))
        for s, source in enumerate(one["sources"]):
            for key, symbol in DISTANCES.items():
                cells = [
                    f"{power(r[name][key]['mean'][s])} ({power(r[name][key]['largest'][s])})"
                    for r in n["densities"].values()
                ]
                rows.append([f"{source}, {symbol}", *cells, power(one[name][key]["perfect_mean"][s])])
        points = one[name]["points"]
        many = len(points) if isinstance(points, list) else points
        head = f"{title}: {many:,} points × {one[name]['events']:,} events of every source"
        parts.append(table([head, *n["densities"], "perfect"], rows))
        if name == "validation-2":
            parts.append(reached(n))
    if "training_noise" in n:
        parts += training_noise(n["training_noise"])
    return parts


def reached(n):
    told = []
    for label, r in n["densities"].items():
        largest = max(r["validation-2"]["d_inf"]["largest"])
        told.append(f"{label} {power(largest)}" + ("" if largest <= D_INF_AIM else " (**missed**)"))
    return (
        f"The aim is d∞ ≤ {power(D_INF_AIM)} for every source at each of the three points. Largest: {', '.join(told)}."
    )


def training_noise(noise):
    rows = [[f"degree {d}", *[power(x) for x in values]] for d, values in noise["d_inf_by_degree"].items()]
    return [
        "What the statistics of the training set allow: if spectra depended on the response as polynomials of a total "
        "degree and nothing else were wrong, the training events would still leave this d∞ at the three points. Two of "
        "them lie in corners of the grid.",
        table(["", *[point(p) for p in noise["points"]]], rows),
    ]


# ---------------------------------------------------------------- the worked example


def example(n):
    rows = []
    first = next(iter(next(iter(n["densities"].values())).values()))
    for label, kinds in n["densities"].items():
        for kind, told in kinds.items():
            for m in told["methods"]:
                rows.append(
                    [
                        f"{label}, {kind}, {m['method']}" + ("" if m["valid"] else " **not valid**"),
                        *pairs(m["best"], m["errors"]),
                        " ".join(signed(x, 1) for x in m["pull"]),
                        duration(m["seconds"]),
                    ]
                )
    published = pairs(first["published_best"], first["published_errors"])
    rows.append(["published flow, nested sampling", *published, "+0.3 +0.4 +0.0", NONE])
    return [
        f"One calibration of 10,000 events of every source, simulated at {point(first['truth'])}. Pulls are (found − "
        "true)/error. The published one (arXiv:2507.23297) has other simulated events at the same truth; why its "
        "errors are larger is said further down.",
        table(["", *THREE, "pulls", "with goodness of fit, first call"], rows),
    ]


# ---------------------------------------------------------------- testing 2


def exposures(n):
    aims, parts = None, []
    for label, r in n["densities"].items():
        aims = r["aim_percent"]
        rows = []
        for row in r["rows"]:
            cells, judged = [], row["meets_aim"] is not None
            for k in range(3):
                text = f"{signed(row['bias_percent'][k], 3)} ± {row['bias_noise_percent'][k]:.3f}"
                missed = judged and not row["meets_aim"][k]
                cells.append(text + (" **missed**" if missed else ""))
            ratios = []
            for x, e in zip(row["spread_over_estimated"], row["ratio_error"], strict=True):
                ratios.append(f"{x:.3f} ± {e:.3f}" + ("" if abs(x - 1) <= RATIO_SIGMA * e else " **missed**"))
            rows.append([f"{row['events']:,}", f"{row['used']:,} of {row['sets']:,}", *cells, *ratios])
        header = ["events", "sets", *[f"bias of {s} [%]" for s in THREE], *[f"spread of {s} / error" for s in THREE]]
        slopes = ", ".join(
            f"{s} {signed(x, 3)} ± {e:.3f}" for s, x, e in zip(THREE, r["power"], r["power_error"], strict=True)
        )
        kind = "unbinned" if r["unbinned"] else "binned"
        parts += [
            f"**{label}**, {kind}, {duration(r['seconds'])} for all fits:",
            table(header, rows),
            f"Slope of ln spread against ln events (−0.5 expected): {slopes}. Pulls at the largest exposure: means "
            + ", ".join(f"{signed(x)}" for x in r["rows"][-1]["pull_mean"])
            + ", widths "
            + ", ".join(f"{x:.2f}" for x in r["rows"][-1]["pull_width"])
            + ".",
        ]
        if r.get("verdict"):
            parts.append(judgement(r["verdict"]))
    first = next(iter(n["densities"].values()))
    limits = ", ".join(f"{a:g} % of {s}" for a, s in zip(aims, THREE, strict=True))
    intro = (
        f"Data sets of several sizes at {point(first['truth'])}: median bias with its statistical error, and standard "
        f"deviation of the best fits over the errors that the fits gave. Aims: bias below {limits} from "
        f"{first['aim_from_events']:,} events on, as the authors of arXiv:2507.23297 state for theirs; ratio one "
        f"within {RATIO_SIGMA:g} errors."
    )
    return [intro, *parts]


def judgement(v):
    return (
        f"Spread against error, ranks and coverage, {v['tests']} tests together at {100 * (1 - v['level']):g} %: "
        f"{'consistent' if v['passes'] else '**not consistent**'} (worst: {v['worst']}, corrected p = "
        f"{p_value(v['corrected_p'])})."
    )


# ---------------------------------------------------------------- testing 1


def points(n):
    rows = []
    for label, r in n["densities"].items():
        for k, symbol in enumerate(THREE):
            rows.append(
                [
                    f"{label}, {symbol}",
                    f"{r['inside']} of {r['points']}",
                    f"{signed(r['median_percent'][k], 3)} ± {r['median_noise_percent'][k]:.3f}",
                    f"{r['rms_sigma'][k]:.3f}",
                    f"{r['worst_sigma'][k]:.2f}",
                    f"{r['noise_sigma'][k]:.2f}",
                ]
            )
    first = next(iter(n["densities"].values()))
    header = ["", "points inside", "median bias [%]", "rms bias [σ]", "worst [σ]", "noise of one point [σ]"]
    return [
        f"{n['size']['fits']} new data sets of 10,000 events of every source at each of {first['points']:,} points of "
        "testing 1. σ is the error of one data set; the rms has the statistical noise of the medians taken out, the "
        "worst value has not. Points nearer than three errors to a wall of the box are not judged: a prior that ends "
        "there moves what is found.",
        table(header, rows),
        edges(n),
    ]


def edges(n):
    lines = []
    for label, r in n["densities"].items():
        e = r["edge"]
        near = ", ".join(f"{count} near a wall of {SYMBOLS[k]}" for k, count in e["near_wall_of"].items() if count)
        rms = e.get("rms_sigma")
        lines.append(
            f"- {label}: {e['points']} points not judged ({near or 'none near a wall'})"
            + (f"; their rms bias is {', '.join(f'{x:.2f}' for x in rms)} σ" if rms else "")
            + f". {duration(r['seconds_per_point'])} a point."
        )
    return "\n".join(lines)


def asimov(n):
    rows, worst = [], []
    for label, r in n["densities"].items():
        for k, symbol in enumerate(THREE):
            q = r["quantiles_sigma"]
            rows.append(
                [
                    f"{label}, {symbol}",
                    f"{r['inside']} of {r['points']}",
                    f"{r['rms_sigma'][k]:.3f}",
                    f"{q['0.99'][k]:.3f}",
                    f"{r['worst_sigma'][k]:.3f}",
                    f"{r['noise_sigma'][k]:.3f}",
                    f"≤ {r['aim_sigma']:g}",
                    met(not r["above_aim"][k]) + (f" at {r['above_aim'][k]} points" if r["above_aim"][k] else ""),
                ]
            )
        for w in r["worst_points"]:
            worst.append([label, point(w["truth"]), *[signed(x, 3) for x in w["bias_sigma"]]])
    header = ["", "points inside", "rms [σ]", "99 %", "worst", "noise of the pools", "aim", "met"]
    return [
        "Fits of expected spectra, integrated over what the electronics do and averaged over all cascades of pools "
        "that no training has seen; bias in the errors σ of 10,000 events of every source. The noise is that of the "
        "pool of the expected spectra; the pool of the training adds one like it.",
        table(header, rows),
        edges(n),
        "The largest ones:",
        table(["density", "point", *[f"{s} [σ]" for s in THREE]], worst),
    ]


# ---------------------------------------------------------------- ranks


def calibration(n):
    parts = [
        "Truths drawn from the flat prior, a data set of 10,000 events of every source for each, and its posterior. "
        "Ranks of the truth are uniform if posteriors are right.",
    ]
    rows = []
    for label, r in n["densities"].items():
        names = (*THREE, "density of all three")
        rows.append([label, f"{r['used']:,} of {r['sets']:,}", *[p_value(p) for p in r["rank_p"]]])
    parts.append(table(["p of uniform ranks", "posteriors", *names], rows))
    for label, r in n["densities"].items():
        cover = []
        for i, level in enumerate(r["levels"]):
            cells = [
                f"{100 * r['central'][i][k]:.1f} [{100 * r['central_low'][i][k]:.1f}, "
                f"{100 * r['central_high'][i][k]:.1f}]"
                for k in range(3)
            ]
            highest = f"{100 * r['highest'][i]:.1f} [{100 * r['highest_low'][i]:.1f}, {100 * r['highest_high'][i]:.1f}]"
            cover.append([f"{100 * level:.4g} %", *cells, highest])
        parts.append(table([f"{label}: coverage [%], with its 68 % interval", *THREE, "all three"], cover))
        if r["pull_sets"] >= 3:
            parts.append(
                f"Pulls of the {r['pull_sets']:,} sets with a truth three errors inside the box: means "
                + ", ".join(f"{signed(x)} ± {e:.2f}" for x, e in zip(r["pull_mean"], r["pull_mean_error"], strict=True))
                + ", widths "
                + ", ".join(f"{x:.2f} ± {e:.2f}" for x, e in zip(r["pull_width"], r["pull_width_error"], strict=True))
                + f". {duration(r['seconds_per_set'])} a set, simulation included."
            )
        if r.get("verdict"):
            parts.append(judgement(r["verdict"]))
    return parts


# ---------------------------------------------------------------- methods


def methods(n):
    return [*agreement(n), *misfits(n), *information(n["information"])]


def agreement(n):
    rows = []
    for kind, found in n["agreement"].items():
        for r in found:
            reference = r["method"] == "nuts" and r["norms"] == "closed"
            shift, width = max(map(abs, r["shift_sigma"])), max(map(abs, r["width_percent"]))
            good = r["valid"] and shift <= AGREED_SIGMA and width <= AGREED_PERCENT
            rows.append(
                [
                    f"{kind}, {r['method']}, {r['norms']} norms" + ("" if r["valid"] else " **not valid**"),
                    *pairs(r["middle"], r["width"]),
                    "reference" if reference else " ".join(signed(x) for x in r["shift_sigma"]),
                    NONE if reference else " ".join(signed(x, 1) for x in r["width_percent"]),
                    NONE if reference else met(good),
                ]
            )
    return [
        f"**Methods.** The worked example, {n['events']:,} events of every source at {point(n['truth'])}, by every "
        "method: best fit and Hessian of Minuit, mean and standard deviation of samples. Differences are from NUTS "
        "with norms in closed form: of the middle in standard deviations, and of the width in per cent. Nested "
        f"sampling asks the network at every point, NUTS an interpolant of ln L. Aim: {AGREED_SIGMA:g} σ and "
        f"{AGREED_PERCENT:g} %, which some thousand samples can tell.",
        table(["", *THREE, "middle [σ]", "width [%]", "met"], rows),
    ]


def misfits(n):
    parts = []
    for label, found in n["misfits"].items():
        rows = []
        for r in found["rows"]:
            wanted = r["data"] != "as simulated"
            low, high = r["local_range"]
            rows.append(
                [
                    r["data"],
                    p_value(r["p_value"]),
                    f"{r['worst_source']} ({p_value(r['worst_p'])})",
                    f"{signed(r['local_sigma'], 1)} σ in {low:.2f} to {high:.2f}",
                    " ".join(signed(x, 1) for x in r["pull"]),
                    ("caught" if r["caught"] else "not caught") + ("" if r["caught"] == wanted else " **missed**"),
                ]
            )
        header = [label, "p of all tests", "source with the smallest p", "largest local difference", "pulls", "verdict"]
        parts.append(table(header, rows))
    first = next(iter(n["misfits"].values()))
    return [
        "**Misfits.** Data that the densities cannot make, and data that they can, with the p-value of all tests of "
        f"{first['replicas']:,} replicas; below {first['alarm']:g} the user is warned.",
        *parts,
    ]


def information(n):
    def row(name, r):
        e = r["errors"]
        return [name, f"{e[0]:.3f}", f"{e[1]:.4f}", f"{e[2]:.1f}", *[signed(c, 3) for c in r["correlation"]]]

    rows = [row(name, r) for name, r in n["expected"].items()]
    rows += [row(f"fitted with {r['density']}: {name}", r) for name, r in n["fitted"].items()]
    published = {"errors": n["published_errors"], "correlation": n["published_correlation"]}
    rows.append(row("published", published))
    ratios, without = (
        ", ".join(f"{x / y:.2f}" for x, y in zip(n["expected"][k]["errors"], n["published_errors"], strict=True))
        for k in ("all five, the light of recoil protons not following kB", "137Cs, 40K, 60Co only")
    )
    ranges = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in n["peak_ranges"].items())
    return [
        f"**Information.** Expected errors of {n['events']:,} events of every source at {point(n['truth'])}, from "
        "the slopes of simulated spectra (Fisher's information, norms free, no density involved), beside those of fits "
        f"and the published ones. Peaks of n-H capture: {ranges} of the observable. In our detector the kB of protons "
        f"is {n['proton_kB_ratio']:g} times that of electrons, so recoils of the neutrons of AmBe and AmC, whose light "
        "is quenched to a half and less, tell kB better than all gammas.",
        table(["", "σ(kB)", "σ(fC)", "σ(light yield)", "kB-fC", "kB-light yield", "fC-light yield"], rows),
        f"With the light of protons held, our errors are {ratios} of the published ones, and without neutron sources "
        f"{without}: so it looks as if recoils do not follow kB in the simulation that was published. Its "
        "correlations are those of the proposals in the authors' code, another point. Fits of 137Cs, 40K and 60Co "
        "alone have smaller errors than expected, as their posterior ends at fC = 0.",
    ]


# ---------------------------------------------------------------- release


def release(n):
    names = {"kB_g_cm2_GeV": "kB [g/cm²/GeV]", "fC": "fC"}
    sets = {"all": "nine points", "six": "the six up to 2.23 MeV"}
    kinds = list(names) + [k for k in n["all"]["values"] if k not in names]
    fits = []
    for r in n["alternatives"]:
        values = [pair(r["parameters"][k]["value"], r["parameters"][k]["error"] or float("nan"), 4) for k in kinds]
        chosen = r["scale"] == n["all"]["scale"]
        note = "" if r["valid"] else " **not valid**"
        fits.append(
            [f"{sets[r['points']]}, scale {r['scale']}{' (ours)' if chosen else ''}{note}", *values,
             f"{r['chi2']:.2f} / {r['n_dof']}", p_value(r["p_value"])]
        )  # fmt: skip
    rows = []
    for a, b in zip(n["all"]["rows"], n["six"]["rows"], strict=True):
        rows.append(
            [f"{a['name']}, {a['energy_MeV']:g} MeV", f"{a['ratio']:.4f} ± {a['error']:.4f}", f"{a['predicted']:.4f}",
             signed(a["pull"]), f"{b['predicted']:.4f} ± {b['predicted_error']:.4f}",
             signed(b["pull"] if b["fitted"] else b["joint_pull"]) + ("" if b["fitted"] else " (predicted)")]
        )  # fmt: skip
    curves = [
        [f"{sets[key]}, {name}", f"{signed(c['worst_percent'])} % at {c['worst_percent_at_MeV']:.2f} MeV",
         f"{signed(c['worst_in_bands'])} at {c['worst_in_bands_at_MeV']:.2f} MeV",
         f"{100 * c['share_within_one_band']:.0f} %", f"{c['noise_percent']:.3f} %"]
        for key in sets for name, c in n[key]["curves"].items()
    ]  # fmt: skip
    six = n["six"]
    return [
        f"kB and fC from the gamma points of arXiv:2511.14593, light yield {n['light_yield_per_MeV']:g} per MeV; the "
        "scale of 0.5 % that all points share is free, added to the printed errors, or included in them.",
        table(["fit", *[names.get(k, k) for k in kinds], "χ² / dof", "p"], fits),
        "Visible over deposited energy; the fit of six points predicts the other three, with the joint error in their "
        "pulls.",
        table(["point", "measured", "fit of nine", "pull", "fit of six", "pull"], rows),
        f"χ² of the three that the fit of six has not seen: {six['unfitted_chi2']:.2f}, p = "
        f"{p_value(six['unfitted_p_value'])}. Our curves against the released ones, with the electronics:",
        table(["curve", "worst difference", "in both bands", "within one band", "our noise"], curves),
    ]


# ---------------------------------------------------------------- speed


def speed(n):
    rows = []
    for r in n["rows"]:
        aim = r.get("aim_s")
        if r.get("per_second"):
            wanted = f"≥ {rate(r['per_second'] * r['best_s'] / aim)} per second" if aim else ""
            shown = [f"{rate(r['per_second'])} per second", NONE]
            rows.append([r["what"], *shown, wanted, met(r["met"]) if aim else ""])
            continue
        judged = held(r["best_s"], aim, duration)[1:] if aim else ["", ""]
        rows.append([r["what"], duration(r["best_s"]), duration(r["median_s"]), *judged])
    ratios = [[k, f"{v:.3g}"] for k, v in n["ratios"].items()]
    knots = [
        [name, f"{k['knots']:,}", *held(k["largest"], k["aim"], power), power(k["rms"]),
         f"{k['at'][0]} at {k['at'][1]:.2f}", " ".join(signed(x, 4) for x in k["shift_sigma"])]
        for name, k in n["knots"].items()
    ]  # fmt: skip
    compiled = [[k, duration(v)] for k, v in n["compile_s"].items()]
    quick = " These are those of a quick run." if n["quick"] else ""
    return [
        f"Best and median of several repetitions in one run, load average {n['load average']:.1f}; once compiled, "
        f"as a user calls it. Fits are of five sources with 10,000 events each.{quick}",
        table(["", "best", "median", "aim", "met"], rows),
        table(["ratio of bests", ""], ratios),
        "Interpolation of ln p between knots against the flow itself, at single events of the flow; shift of an "
        "unbinned fit of 5 × 10,000 events that it makes:",
        table(["flow", "knots", "largest difference", "aim", "met", "rms", "where", "shift of a fit [σ]"], knots),
        "First calls, compilation included:",
        table(["", "first call"], compiled),
    ]


SECTIONS = {
    "tune-accuracy": accuracy,
    "tune-example": example,
    "tune-exposures": exposures,
    "tune-points": points,
    "tune-asimov": asimov,
    "tune-calibration": calibration,
    "tune-methods": methods,
    "tune-release": release,
    "bench-tuning": speed,
}

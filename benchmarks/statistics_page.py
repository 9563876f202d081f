"""The sections of docs/results.md on toys, intervals, sensitivity and many machines, from docs/results/*.json."""

from chain_page import SHOWN
from predictor_page import duration
from simulation_page import met, signed, table

ALL = "make statistics RELEASE=folder INPUTS=file.root"
HOW = {
    "bench-toys": "make bench",
    "fit-ordering": ALL,
    "fit-sensitivity": ALL,
    "fit-two-detectors": ALL,
    "fit-coverage": ALL,
    "fit-feldman-cousins": ALL,
    "fit-posterior": ALL,
    "fit-goodness": ALL,
    "fit-geoneutrinos": ALL,
    "fit-sterile": ALL,
    "run-scaling": ALL,
}
TITLES = {
    "bench-toys": "Pseudo-experiments: speed",
    "fit-ordering": "Mass ordering, expected",
    "fit-sensitivity": "Precision, expected",
    "fit-two-detectors": "JUNO and TAO together, expected",
    "fit-coverage": "Coverage of intervals, simulated",
    "fit-feldman-cousins": "Feldman-Cousins intervals of 59.1 days of data",
    "fit-posterior": "Posterior beside the best fit",
    "fit-goodness": "Goodness of fit of 59.1 days of data",
    "fit-geoneutrinos": "Geoneutrinos, expected",
    "fit-sterile": "A sterile state, expected exclusion",
    "run-scaling": "Time against workers",
}
# Aims, decided before anything was measured.
TOYS_S, ORDERING_YEARS, POSTERIOR_S = 3.0, (5.5, 7.5), 60.0
NAMES = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2")
WORDS = {"hesse": "Hesse", "hesse-lowest": "Hesse, lowest minimum", "minos": "Minos"}


def label(name):
    return SHOWN[name][0].split(" [")[0]


def toys(n):
    rows = []
    for name, x in n.items():
        for errors in ("none", "curvature", "hesse"):
            best = x[f"errors: {errors}"]["all"]
            aim = f"≤ {TOYS_S:g} s" if name == "five parameters" and x["toys"] == 10_000 else ""
            rows.append(
                [f"{name} ({x['free']} free), errors: {errors}", f"{x['toys']:,}", duration(best["wall_s"]),
                 duration(best["cpu_s"]), aim, met(best["wall_s"] <= TOYS_S) if aim else ""]
            )  # fmt: skip
    lines = [table(["fits side by side", "toys", "wall time", "processor time", "aim", "met"], rows)]
    rows = []
    for name, x in n.items():
        one = x["one by one with iminuit"]
        rows.append(
            [f"{name}: one fit by iminuit", duration(one["s_per_fit"]),
             f"{one['times slower than side by side (hesse)']:.0f} times slower",
             f"{one['largest difference in standard errors']:.1g} σ", f"{x['valid']:,} of {x['toys']:,}"]
        )  # fmt: skip
    header = ["the same data sets one by one", "each", "", "largest difference of a value", "valid side by side"]
    return [*lines, table(header, rows)]


def ordering(n):
    low, high = ORDERING_YEARS
    rows = []
    for inputs in ("common inputs", "embedded inputs"):
        for name, x in n[inputs]["resolutions"].items():
            years = x["years_at_3_sigma"]
            judged = inputs == "common inputs" and name == "2024"
            rows.append(
                [f"{inputs}, resolution {name}", f"{years:.2f}",
                 f"{n['published']['years_at_3_sigma']:g}" if name == "2024" else "",
                 f"{low:g} to {high:g}" if judged else "", met(low <= years <= high) if judged else ""]
            )  # fmt: skip
    power = n["published"]["power_GW"]
    header = [f"3σ median after … years × {power:g} GW", "nuebar", n["published"]["source"], "aim", "met"]
    groups = n["common inputs"]["systematics"]["groups"]
    everything, nothing = groups["all"]["without"], groups["none"]["without"]
    cost = [
        [
            name,
            f"{x['without']:.2f}",
            signed(x["without"] - everything),
            f"{x['alone']:.2f}",
            signed(x["alone"] - nothing),
        ]
        for name, x in groups.items()
        if name not in ("all", "none")
    ]
    lines = [
        table(header, rows),
        f"What each systematic costs at {n['common inputs']['systematics']['years']:g} years (common inputs, "
        f"resolution 2024): Δχ² = {everything:.2f} with all, {nothing:.2f} with none.",
        table(["", "Δχ² without it", "gain", "Δχ² with it alone", "loss"], cost),
    ]
    if "toys" in n:
        t, rows = n["toys"], []
        for truth, x in t["truth"].items():
            rows.append([
                f"{truth} ordering true", f"{x['valid']} of {x['toys']}",
                f"{x['median']:.2f} ± {x['median_error']:.2f}", f"{x['expected']:.2f}", f"{x['spread']:.2f}",
                f"{100 * x['wrong_preferred']:.1f} %", median_p(x),
            ])  # fmt: skip
        header = [
            "toys",
            "valid",
            "median Δχ²",
            "expected counts",
            "spread",
            "wrong ordering preferred",
            "p of the median experiment (normal approximation)",
        ]
        lines += [f"Toys at {t['years']:g} years, each fitted in both orderings.", table(header, rows)]
    return lines


def median_p(x):
    p = x["p_value_of_wrong_ordering"]
    return f"{p['median_experiment']:.2g} ± {p['error']:.1g} ({p['normal_approximation']:.2g})"


def sensitivity(n):
    rows = []
    both = ("common inputs", "embedded inputs")
    for k, x in enumerate(n[both[0]]["beside_published"]):
        for p in NAMES:
            name, power, digits = SHOWN[p]
            cells = []
            for inputs in both:
                at = n[inputs]["beside_published"][k]
                ours = at["errors"][p]["ours"] / 10.0**power
                cells.append(f"{ours:.{digits + 1}f} ({at['over_published'][p]:.2f})")
            theirs = f"{x['errors'][p]['published'] / 10.0**power:.{digits + 1}f}"
            told = theirs if x["status"] == "read" else f"{theirs} ({x['status']})"
            rows.append([f"{x['years']:.3g} years: {name}", told, *cells])
    header = ["expected error after", "arXiv:2204.13249", *(f"{i} (over published)" for i in both)]
    lines = [
        table(header, rows),
        "Resolution of 2022. Ratios are of the error or of the percent, whichever was printed with more digits; "
        "nominal: from memory or rounded.",
    ]
    rows = []
    for name, x in n.items():
        if name.startswith("published"):
            continue
        for s in x["sets"]:
            years = s["years_at_3_sigma_full_power"]
            rows.append([f"{name}, resolution {s['resolution']}", "not reached" if years is None else f"{years:.2f}"])
    return [*lines, table(["3σ of the mass ordering, years × 26.6 GW", "nuebar"], rows)]


def two_detectors(n):
    rows = []
    for x in n["cases"].values():
        shift = max(abs(v) for v in x["fine_structure"]["shifts"].values())
        errors = [f"{x['errors'][p] / 10.0 ** SHOWN[p][1]:.{SHOWN[p][2] + 1}f}" for p in NAMES]
        rows.append([x["what"], f"{x['delta_chi2']:.2f}", *errors, f"{shift:.2f} σ"])
    size, step = 100 * n["sawteeth"]["size"], n["sawteeth"]["distance_MeV"]
    header = ["", "Δχ² of the ordering", *(SHOWN[p][0] for p in NAMES), "largest shift"]
    return [
        f"At {n['years']:g} years × 26.6 GW, resolution {n['resolution']}; errors of the four parameters. The last "
        f"column: how far a parameter moves when the true spectrum has sawteeth of {size:g} % every {step:g} MeV.",
        table(header, rows),
    ]


def coverage(n):
    lines = []
    for experiment, x in n.items():
        methods = ("hesse", "hesse-lowest", "minos", "profile", "posterior")
        rows = []
        for point in x["exposures"]:
            found = {(r["parameter"], r["method"]): r for r in point["rows"] if r["n_sigma"] == 1.0}
            for p in NAMES:
                cells = []
                for method in methods:
                    r = found.get((p, method))
                    if r is None or r["coverage"] is None:
                        cells.append("")
                        continue
                    text = f"{100 * r['coverage']:.1f} ± {50 * (r['high'] - r['low']):.1f}"
                    cells.append(f"**{text}**" if r["off"] else text)
                rows.append([f"{point['exposure_days']:.4g} days, {label(p)}", *cells])
        lines += [
            f"`{experiment}`, {x['statistic']}, {x['toys']} toys: percent of 1σ intervals (wanted: 68.3) that hold the "
            "truth. **Bold** is off by more than two points and three standard deviations.",
            table(["", *(WORDS.get(m, m) for m in methods)], rows),
        ]
    return lines


def feldman_cousins(n):
    def level(v):
        return f"{100 * v['level']:.4g} %{'' if v['resolved'] else ' !'}"

    rows = []
    for names, x in n.items():
        if " " in names:
            points = [[level(v), sum(map(sum, v["accepted"])), sum(map(sum, v["wilks"]))] for v in x["levels"]]
            first, second = (label(p) for p in names.split())
            pair = [
                f"{first} and {second}: points of the grid inside of the contour, {x['toys']:,} toys.",
                table(["level", "Feldman-Cousins", "Δχ² of two parameters"], points),
            ]
            continue
        power, digits = SHOWN[names][1], SHOWN[names][2]

        def words(segments, power=power, digits=digits):
            ends = [[f"{s[e] / 10.0**power:.{digits}f}" for e in ("low", "high")] for s in segments]
            return " and ".join(f"[{a}, {b}]" for a, b in ends) or "none"

        for v in x["levels"]:
            rows.append([f"{SHOWN[names][0]}, {level(v)}", words(v["segments"]), words(v["wilks_segments"])])
    header = ["", "Feldman-Cousins", "Δχ² of one parameter"]
    few = "!: fewer than ten toys beyond the critical value where the region ends; its ends are not resolved."
    resolved = all(v["resolved"] for x in n.values() for v in x["levels"])
    return [table(header, rows), *(pair if any(" " in k for k in n) else []), *([] if resolved else [few])]


def posterior(n):
    lines = []
    for what, x in n.items():
        rows = []
        for p, v in x["parameters"].items():
            _, power, digits = SHOWN[p]
            unit = 10.0**power
            rows.append(
                [SHOWN[p][0], f"{v['best_fit'] / unit:.{digits}f} ± {v['error'] / unit:.{digits}f}",
                 f"{v['median'] / unit:.{digits}f} +{v['plus'] / unit:.{digits}f} −{-v['minus'] / unit:.{digits}f}",
                 signed(v["shift_in_sigma"]), f"{v['half_width_over_error']:.3f}", f"{v['effective']:.0f}"]
            )  # fmt: skip
        seconds = x["seconds"]["total"]
        state = "valid" if x["valid"] else f"**not valid: {x['reason']}**"
        lines += [
            f"{what}: {x['free']} free parameters, {x['samples']} draws, R̂ at most {x['r_hat_most']:.4f}, "
            f"{100 * x['divergent']:.2f} % divergences, {state}, {duration(seconds)} (aim ≤ {POSTERIOR_S:g} s, "
            f"{met(seconds <= POSTERIOR_S)}).",
            table(
                ["", "best fit", "median of the posterior", "shift in σ", "width over error", "effective draws"], rows
            ),
        ]
    return lines


def goodness(n):
    rows = []
    for statistic, x in n.items():
        rows.append(
            [f"{statistic}: χ² {x['chi2']:.1f}, {x['n_dof']} degrees of freedom", f"{x['p_chi2']:.3f}", "",
             f"{x['chi2_mean']:.1f}"]
        )  # fmt: skip
        for name, t in x["tests"].items():
            rows.append([f"{statistic}: {name}", "", f"{t['p']:.3f} ± {t['error']:.3f}", ""])
    return [table(["", "p by the χ² distribution", "p by toys", "mean χ² of toys"], rows)]


def geoneutrinos(n):
    lines = []
    for case, x in n["cases"].items():
        rows = [
            [
                f"{p['years']:g}",
                *(f"{100 * p[k]:.1f} %" for k in ("uranium", "thorium", "total", "ratio", "total_at_fixed_ratio")),
            ]
            for p in x["points"]
        ]
        lines += [f"{case}:", table(["years", "U", "Th", "U + Th", "Th/U", "U + Th at fixed ratio"], rows)]
    return lines


def sterile(n):
    rows = []
    for m in n["maps"]:
        known = [(v, d) for v, d in zip(m["limit"], n["dm2_41_eV2"], strict=True) if v is not None]
        best, at = min(known)
        rows.append([f"{m['years']:g} years", f"{best:.4f}", f"{at:.2g} eV²", f"{m['valid']} of {m['fits']}"])
    return [table([f"smallest sin²2θ14 excluded at {100 * n['cl']:g} %", "", "at Δm²41", "valid fits"], rows)]


def scaling(n):
    few, many = n["toys"]["toys"]
    stream = {r["workers"]: r for r in n["stream"]["rows"]}
    empty = {r["workers"]: r for r in n["empty"]["rows"]}
    rows = [
        [r["workers"], duration(stream[r["workers"]]["seconds"]), duration(r[f"seconds_{few}"]),
         duration(r[f"seconds_{many}"]), f"{empty[r['workers']]['ms_per_chunk']:.1f} ms"]
        for r in n["toys"]["rows"]
    ]  # fmt: skip
    same = "the same" if n["stream"]["same_bits"] and n["toys"]["same_bits"] else "**not the same**"
    header = ["workers", f"stream of {n['stream']['days']:g} days", f"{few} toys", f"{many} toys", "empty chunk"]
    return [f"Bits of all results: {same}.", table(header, rows)]


SECTIONS = {
    "bench-toys": toys,
    "fit-ordering": ordering,
    "fit-sensitivity": sensitivity,
    "fit-two-detectors": two_detectors,
    "fit-coverage": coverage,
    "fit-feldman-cousins": feldman_cousins,
    "fit-posterior": posterior,
    "fit-goodness": goodness,
    "fit-geoneutrinos": geoneutrinos,
    "fit-sterile": sterile,
    "run-scaling": scaling,
}

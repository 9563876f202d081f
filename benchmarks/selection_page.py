"""The sections of docs/results.md on the selection, from docs/results/select-*.json and bench-selection.json."""

from predictor_page import NONE, duration, held, power, rate, size
from simulation_page import met, signed, table

SELECTION = "make selection"
HOW = {
    "select-training": SELECTION,
    "select-cut-flow": SELECTION,
    "select-compare": SELECTION,
    "select-explain": SELECTION,
    "select-apply": SELECTION,
    "bench-selection": "python benchmarks/selection_speed.py",
}
TITLES = {
    "select-training": "Selection: training",
    "select-cut-flow": "Selection: the published cuts on our antineutrinos",
    "select-compare": "Selection: cuts, lines, networks, trees and the likelihood ratio",
    "select-explain": "Selection: which features decide",
    "select-apply": "Selection: a detector stream",
    "bench-selection": "Speed of the selection",
}
# Aims, decided before anything was measured.
TRAINING_S, SIZE_BYTES, FULL_PAIRS = 3600.0, 1e6, 14_000_000  # 15 M of each class less what validates
KEPT_PAIRS = 7_000_000  # accidental pairs that no training or search has seen
CUTS_PERCENT = {"fiducial volume": (91.7, 0.3), "energy": (98.7, 0.7), "time": (99.0, 0.3), "combined": (89.9, 1.0)}
BELOW_RATIO, AT = 0.3, 0.01  # points that a network may lack, at this part of the background of the cuts
EXPLAIN_S, EXPLAINED, ADDITIVITY = 180.0, 20_000, 1e-6
APPLY_S, APPLY_DAYS = 180.0, 59.9
PULL, LOOSE_PERCENT, LOOSE_EVENTS = 2.0, 2.0, 10_000
VIOLATED = 2.0  # standard deviations from which an order is another one
SHOWN_ENERGIES = (0.85, 1.6, 2.6, 4.1, 6.1, 8.5)
SHOWN_RADII = (5.0, 15.0, 16.6, 17.05, 17.25, 17.45, 17.65)
POINTS = ("cuts", "cuts-0.1", "cuts-0.01", "f1", "f1-balanced", "efficiency", "purity")
CALLED = {
    "r3_prompt_m3": "R³ prompt", "r3_delayed_m3": "R³ delayed", "dr_m": "ΔR", "dt_us": "Δt", "e_prompt_MeV": "E prompt",
    "e_delayed_MeV": "E delayed", "cos_theta_prompt": "cos θ prompt", "cos_theta_delayed": "cos θ delayed",
    "phi_prompt": "φ prompt", "phi_delayed": "φ delayed",
}  # fmt: skip


# ---------------------------------------------------------------- formatting


def percent(share, digits=2):
    """A share with half of its interval: 91.70 ± 0.05."""
    return f"{100 * share['value']:.{digits}f} ± {50 * (share['high'] - share['low']):.{digits}f}"


def bare(share, digits=2):
    return NONE if share is None else f"{100 * share['value']:.{digits}f}"


def small(share):
    """A small share with both errors: 1.2·10⁻⁵ −0.1 +0.2 in its own power of ten."""
    value = share["value"]
    if value <= 0:
        return f"< {power(share['high'])}"
    up, down = (100 * (share["high"] / value - 1), 100 * (1 - share["low"] / value))
    return f"{power(value)} −{down:.0f} % +{up:.0f} %"


def count(n):
    return f"{n:,.0f}"


def few(n):
    """Three digits, small numbers with a power of ten."""
    return f"{n:.3g}" if 0.01 <= abs(n) < 1000 else count(n) if abs(n) >= 1000 else power(n)


# ---------------------------------------------------------------- training


def training(n):
    rows = []
    for label, m in n["models"].items():
        ibd, accidentals = (m["rows"][k]["train"] for k in ("ibd", "accidentals"))
        network = m["seconds"] is not None
        full = network and min(ibd, accidentals) >= FULL_PAIRS
        stored = sum(m["bytes"].values())
        rows.append(
            [
                f"{label} ({m['classifier']}" + (f", {m['weights']:,} weights)" if m["weights"] else ")"),
                f"{ibd / 1e6:.2f} / {accidentals / 1e6:.2f}",
                f"{m['steps']:,} ({m['reason']})" if network else NONE,
                f"{m['best_cross_entropy']:.5g} at {m['best_step']:,}" if network else NONE,
                *(held(m["seconds"], TRAINING_S, duration) if full else [spent(m), NONE, NONE]),
                *(held(stored, SIZE_BYTES, size) if network else [size(stored), NONE, NONE]),
            ]
        )
    header = ["", "million pairs trained on, antineutrinos / accidentals", "steps", "best cross-entropy", "time", "aim",
              "met", "on disk", "aim", "met"]  # fmt: skip
    return [
        "Trainings on two cores. The aim of an hour is for the published size, 15 million pairs of each class less "
        "those that validate, and is not held against a smaller one. On disk are `model.json` and "
        "`weights.safetensors`.",
        table(header, rows),
        *histories(n["models"]),
    ]


def spent(m):
    return NONE if m["seconds"] is None else duration(m["seconds"])


def histories(models):
    """Cross-entropy of the validation pairs on the way."""
    rows = []
    for label, m in models.items():
        if lines := m["history"]:
            last = lines[-1][0]
            chosen = [
                min(lines, key=lambda line, p=part: abs(line[0] - p * last)) for part in (0.1, 0.25, 0.5, 0.75, 1)
            ]
            rows.append([label, *[f"{line[2]:.5g}" for line in chosen]])
    if not rows:
        return []
    return [
        "Cross-entropy of the validation pairs at parts of the training:",
        table(["", "10 %", "25 %", "50 %", "75 %", "100 %"], rows),
    ]


# ---------------------------------------------------------------- cut flow


def cut_flows(n):
    parts = [
        f"Efficiency of each published cut alone, in the fiducial volume, and after the cuts above it. Of "
        f"{n['interactions']['pairs']:,} interactions {percent(n['ceiling'], 3)} % are pairs: both events above "
        f"{n['threshold_MeV']:g} MeV, within {n['window_ms']:g} ms. The publication does not say of which of the two "
        "its rows are, nor which vertex is in the volume, nor whether a row is alone or in the volume: an aim that one "
        "of them meets is met in one reading. ΔR is 99.2 in another document (nominal) and has no aim.",
    ]
    for name, title in (("interactions", "all interactions"), ("pairs", "pairs above threshold within the window")):
        for on in ("prompt", "both"):
            parts.append(cut_table(n[name]["tables"][on]["grouped"], f"{title}, volume on {on}", judged=on == "prompt"))
    return parts


def cut_table(found, title, *, judged):
    rows = []
    for row in found:
        name, published = row["name"], row["published"]
        aim = CUTS_PERCENT.get(name) if judged else None
        whole = name == "combined"
        cells = [percent(row[key], 3) for key in ("alone", "given_fiducial", "cumulative")]
        verdicts = [inside(row[key], aim) for key in ("alone", "given_fiducial")]
        if whole or name == "fiducial volume":
            cells[1], verdicts[1] = (cells[1] if whole else NONE), NONE
        shown = NONE if published is None else f"{100 * published:.1f}"
        rows.append([name, *cells, shown, f"± {aim[1]:g}" if aim else NONE, *verdicts])
    header = [f"{title} [%]", "alone", "in the volume", "cumulative", "published", "aim", "alone met",
              "in the volume met"]  # fmt: skip
    return table(header, rows)


def inside(share, aim):
    return NONE if aim is None else met(abs(100 * share["value"] - aim[0]) <= aim[1])


# ---------------------------------------------------------------- comparison


def compare(n):
    s, sample = n["selection"]["pairs"], n["sample"]
    kept = sample["accidentals"]
    return [
        f"Pairs within {s['window_ms']:g} ms, both events above {s['threshold_MeV']:g} MeV, kept from all training and "
        f"search: {sample['ibd']:,} of antineutrinos and {kept:,} accidental ones (aim at least {KEPT_PAIRS:,}: "
        f"{met(kept >= KEPT_PAIRS)}). Backgrounds are of weighted pairs recombined from "
        f"{sample['recombined']['singles']:,} single events of the latter, or of the pairs themselves where those are "
        "more. Efficiencies are shares of the pairs that exist in the window, and times the ceiling those of all "
        "interactions. A level is a part of the background of the cuts, so it does not depend on the rate of singles.",
        *[part for w in n["windows"] for part in levels(w)],
        *against_ratio(n),
        *points(n),
        *rates(n),
        *curves(n["efficiency_curves"]),
        *calibration(n["calibration"]),
        *changes(n.get("changes")),
    ]


def unresolved(level):
    return "" if level.get("resolved", True) else "?"


def levels(w):
    cuts = w["cuts"]
    rows = [["cuts", percent(cuts["efficiency"]), bare(cuts["efficiency_inside"]), bare(cuts["efficiency_outside"]),
             *[NONE] * 4]]  # fmt: skip
    doubtful = False
    for label, found in w["levels"].items():
        cells = [NONE if "missing" in x else percent(x["efficiency"]) + unresolved(x) for x in found]
        doubtful |= any(c.endswith("?") for c in cells)
        first = found[0]
        inner = [NONE, NONE, NONE, NONE]
        if "missing" not in first:
            only = first.get("only_fiducial")
            gain = signed(100 * (first["efficiency"]["value"] - cuts["efficiency"]["value"]))
            inner = [*(bare(first[f"efficiency_{k}"]) for k in ("inside", "outside")),
                     bare(only["efficiency"]) if only else NONE, gain]  # fmt: skip
        rows.append([label, cells[0], *inner, *cells[1:]])
    header = [f"{w['window_ms']:g} ms: efficiency [%] at", "the background of the cuts", "inside the volume", "outside",
              "background from inside only", "gain [points]", "a tenth", "a hundredth"]  # fmt: skip
    parts = [
        f"**Window of {w['window_ms']:g} ms.** Ceiling {100 * w['ceiling']:.3f} %. The cuts keep "
        f"{small(cuts['by_recombined'])} of the accidental pairs (recombined; by the pairs "
        f"{small(cuts['by_pairs'])}), {few(cuts['background']['value'] * w['rates_per_day']['accidental'])} a day of "
        f"{few(w['rates_per_day']['accidental'])}.",
        table(header, rows),
    ]
    return [*parts, "?: fewer than ten effective background pairs, no measurement."] if doubtful else parts


def against_ratio(n):
    by = {(r["window_ms"], r["label"], r["of_cuts"]): r for r in n["against_ratio"]}
    found = {w["window_ms"]: w["levels"] for w in n["windows"]}
    factors = sorted({k[2] for k in by}, reverse=True)
    networks = {label for label in n["classifiers"] if label not in ("trees", "ratio")}
    rows = []
    for window, label in dict.fromkeys(k[:2] for k in by):
        cells, verdict = [], NONE
        for factor in factors:
            r = by.get((window, label, factor))
            if r is None:
                cells.append(NONE)
                continue
            resolved = all(
                x.get("resolved", False)
                for name in (label, "ratio")
                for x in found[window].get(name, ())
                if x["of_cuts"] == factor
            )
            cells.append(f"{signed(r['points'])} ± {r['error']:.2f}" + ("" if resolved else "?"))
            if factor == AT and label in networks:
                verdict = met(r["points"] >= -BELOW_RATIO) if resolved else "not resolved"
        aim = f"≥ −{BELOW_RATIO:g} at {AT:g}" if label in networks else NONE
        rows.append([f"{window:g} ms, {label}", *cells, aim, verdict])
    return [
        "Efficiency less that of the likelihood ratio, in points, at parts of the background of the cuts; both on the "
        "same pairs, which the errors know. The ratio is measured as tables on the Monte Carlo and not exact: a "
        "classifier may be better.",
        table(["", *[f"{f:g}" for f in factors], "aim", "met"], rows),
    ]


def points(n):
    parts = []
    networks = [label for label in n["classifiers"] if label not in ("trees", "ratio")]
    for s in n["scenarios"]:
        if s["singles_factor"] != 1:
            continue
        per_day, rows = s["rates_per_day"]["accidental"], [["cuts", *point_cells(s["cuts"], s)]]
        for label in networks:
            for name in POINTS:
                if name in s["points"].get(label, {}):
                    rows.append([f"{label}, {name}", *point_cells(s["points"][label][name], s)])
        header = [f"{s['window_ms']:g} ms", "threshold", "efficiency [%]", "background", "a day", "purity [%]", "F₁"]
        parts.append(f"Operating points at {few(s['rates_per_day']['ibd'])} antineutrino and {few(per_day)} accidental "
                     "pairs a day:")  # fmt: skip
        parts.append(table(header, rows))
    return parts


def point_cells(p, s):
    if "missing" in p:
        return [p["missing"].split(";")[0], *[NONE] * 5]
    threshold, share = p["threshold"], p["background"]["value"]
    return [
        (threshold if isinstance(threshold, str) else f"{threshold:.3f}").replace("-", "−"),
        percent(p["efficiency"]),
        power(share) + unresolved(p),
        few(share * s["rates_per_day"]["accidental"]),
        percent(p["purity"]),
        f"{p['f1']:.4f}",
    ]


def rates(n):
    """What other rates of singles do."""
    labels = [label for label in n["classifiers"] if label != "ratio"]
    rows = []
    for s in n["scenarios"]:
        cells = [few(s["rates_per_day"]["accidental"]), bare(s["cuts"]["purity"])]
        for label in labels:
            found = s["points"][label]
            cells.append(bare(found["cuts"].get("purity")))
            best = found["f1"]
            cells.append(NONE if "missing" in best else f"{bare(best['efficiency'])} / {bare(best['purity'])}")
        rows.append([f"{s['window_ms']:g} ms, singles × {s['singles_factor']:g}", *cells])
    header = ["", "accidental pairs a day", "cuts: purity [%]"]
    for label in labels:
        header += [f"{label}: purity at the background of the cuts", f"{label}: efficiency / purity at the largest F₁"]
    return ["Other rates of singles:", table(header, rows)]


def at_bins(curve, values):
    """(low, high, efficiency, error) of the bins that hold the values."""
    edges = curve["edges"]
    out = []
    for value in values:
        for k in range(len(edges) - 1):
            if edges[k] <= value < edges[k + 1]:
                out.append((edges[k], edges[k + 1], curve["efficiency"][k], curve["error"][k]))
    return out


def curves(found):
    parts = ["Efficiency at the background of the cuts in bins of the prompt event, as a spectrum fit needs it:"]
    for key, unit, values in (("energy", "MeV", SHOWN_ENERGIES), ("radius", "m", SHOWN_RADII)):
        rows, heads = [], []
        for label, both in found.items():
            bins = at_bins(both[key], values)
            heads = [f"{low:g} to {high:g} {unit}" for low, high, _, _ in bins]
            rows.append([label, *[f"{100 * value:.2f} ± {100 * error:.2f}" for _, _, value, error in bins]])
        parts.append(table([f"prompt {key} [%]", *heads], rows))
    return parts


def calibration(found):
    rows = [
        [
            label,
            power(c["ece"]),
            f"{power(c['noise'])} ± {power(c['noise_error'])}",
            f"{c['p_value']:.2g}" if c["p_value"] else "< 0.002",
        ]
        for label, c in found.items()
    ]
    return [
        "Calibration: expected difference of the probability from the share of antineutrinos that have it, for as many "
        "of both classes, and what counting alone would give. p is the share of 500 calibrated ones with no smaller "
        "error.",
        table(["", "expected calibration error", "by counting alone", "p"], rows),
    ]


def changes(found):
    """Label → shifts; or class → label → shifts."""
    if not found:
        return []
    nested = found if isinstance(next(iter(found.values())), dict) else {"": found}
    parts = ["Change at a fixed threshold, that of the background of the cuts, if the detector differs from the Monte "
             "Carlo; relative for the background:"]  # fmt: skip
    for kind, by_label in nested.items():
        names = [c["shift"]["name"] for c in next(iter(by_label.values()))]
        relative = kind not in ("", "ibd", "signal", "efficiency")
        rows = []
        for label, shifts in by_label.items():
            cells = []
            for c in shifts:
                scale = 100 / c["before"]["value"] if relative and c["before"]["value"] > 0 else 100
                cells.append(f"{signed(scale * c['difference'], 3)} ± {scale * c['error']:.3f}")
            rows.append([label, *cells])
        unit = "[%]" if relative else "[points]"
        parts.append(table([f"{kind or 'efficiency'} {unit}", *names], rows))
    return parts


# ---------------------------------------------------------------- explanations


def explained(n):
    parts = []
    for output, found in n["outputs"].items():
        told = found["importance"]
        rows = []
        for row in told["features"]:
            low, high = row["rank_interval"]
            rows.append(
                [
                    CALLED.get(row["feature"], row["feature"]),
                    f"{row['mean']:.5f} ± {row['error']:.5f}",
                    f"{row['rank']}" if low == high else f"{row['rank']} ({low} to {high})",
                    f"{row['published_rank']}",
                    NONE if row["sigmas_above_next"] is None else f"{row['sigmas_above_next']:.1f}",
                ]
            )
        full = found["pairs"] >= EXPLAINED
        judged = found["seconds_in_all"], EXPLAIN_S, duration
        time = held(*judged) if full else [duration(found["seconds_in_all"]), NONE, NONE]
        a = found["additivity"]
        parts += [
            f"**{output.capitalize()}** of the {found['classifier']}, {found['pairs']:,} held-out pairs, half of each "
            f"class; Shapley values {found['method']}, {found['background']['rows']} background pairs. Mean size of "
            "the values; 68 % intervals of the ranks.",
            table(["feature", "mean", "rank", "published rank", "above the next [σ]"], rows),
            table(
                ["", "measured", "aim", "met"],
                [
                    [
                        "time, with reading and local values" + ("" if full else "; fewer pairs than the aim is for"),
                        *time,
                    ],
                    [
                        "largest difference of their sum from the output, relative",
                        *held(a["largest_relative_difference"], ADDITIVITY, power),
                    ],
                ],
            ),
            exact_sentence(found["check"]),
            order_sentence(told),
        ]
    return [
        "Published order: talk on arXiv:2406.12901, sixth name hard to read (nominal).",
        *parts,
    ]


def exact_sentence(check):
    """What the sampling of values does to the importance."""
    exact, sampled = (check.get(f"mean_absolute_{k}") for k in ("exact", "sampled"))
    if not exact:
        return ""
    worst = max(exact, key=lambda k: abs(sampled[k] - exact[k]))
    return (
        f"Exact values of {check['pairs']} of the pairs: mean sizes differ from the sampled ones by at most "
        f"{power(abs(sampled[worst] - exact[worst]))} ({CALLED.get(worst, worst)})."
    )


def order_sentence(told):
    against = [x for x in told["against_published"] if (x["sigmas_against"] or 0) >= VIOLATED]
    if not against:
        return f"No two features stand against the published order by {VIOLATED:g} σ or more."
    words = ", ".join(
        f"{CALLED.get(x['published_second'], x['published_second'])} before "
        f"{CALLED.get(x['published_first'], x['published_first'])} ({x['sigmas_against']:.1f} σ)"
        for x in sorted(against, key=lambda x: -x["sigmas_against"])
    )
    return f"Against the published order, by {VIOLATED:g} σ or more: {words}."


# ---------------------------------------------------------------- a stream

RUN_NAMES = {
    "network": "{c}, background of the cuts", "cuts": "cuts", "loose": "{c}, loose threshold",
}  # fmt: skip


def applied(n):
    names = {key: RUN_NAMES[key].format(c=r["classifier"]) for key, r in n["runs"].items()}
    truth = ", ".join(f"{count(v)} {k}" for k, v in n["true_pairs"].items())
    measured, samples = [], []
    for key, r in n["runs"].items():
        a = r["accidentals"]
        measured.append(
            [
                names[key],
                f"{a['value']:,.1f} ± {a['error']:.1f}",
                f"{r['accidentals_true']:,}",
                f"{signed(r['accidental_pull'])} σ",
                percent_cell(r),
                f"within {PULL:g} σ",
                met(abs(r["accidental_pull"]) <= PULL),
            ]
        )
        if key == "loose":
            enough = r["accidentals_true"] >= LOOSE_EVENTS
            off = r["accidental_percent"]
            verdict = met(off is not None and abs(off) <= LOOSE_PERCENT) if enough else "too few"
            aim = f"within {LOOSE_PERCENT:g} %, at least {LOOSE_EVENTS:,}"
            measured.append(
                [f"{names[key]}, again", "", f"{r['accidentals_true']:,}", "", percent_cell(r), aim, verdict]
            )
        whole = n["days"] >= APPLY_DAYS
        time = held(r["seconds"], APPLY_S, duration) if whole else [duration(r["seconds"]), NONE, NONE]
        samples.append(
            [
                names[key],
                few(r["threshold"]).replace("-", "−"),
                f"{r['candidates']:,}",
                NONE if r["purity"] is None else f"{100 * r['purity']:.2f}",
                NONE if r["true_purity"] is None else f"{100 * r['true_purity']:.2f}",
                percent(r["efficiency"]),
                *time,
            ]
        )
    pairs = next(iter(n["runs"].values()))["pairs"]
    tests = (
        f"{n['days']:.4g} days, {n['events']:,} events: {pairs['found']:,} pairs within {n['window_ms']:g} ms, "
        f"{pairs['scored']:,} of them nearer than {n['max_dr_m']:g} m and scored, and {pairs['scored_off_time']:,} off "
        f"time. True pairs that exist in the window above the threshold: {truth}."
    )
    return [
        tests,
        "Accidental background measured off time, and the number that is among the candidates. σ has the error of the "
        "estimate and the fluctuation of that number; a right estimate is outside of two in one of twenty streams.",
        table(["", "measured", "true", "difference", "difference [%]", "aim", "met"], measured),
        "Purity is of everything that comes in true pairs; the efficiency is of the true antineutrinos of the stream.",
        table(
            ["", "score of at least", "candidates", "purity, measured [%]", "true [%]", "efficiency, true [%]", "time",
             "aim", "met"],
            samples,
        ),
        f"Pairs that were kept from training gave the network at the background of the cuts an efficiency of "
        f"{percent(n['efficiency_of_model'])} % and a purity of {percent(n['purity_of_model'])} % at the rates of the "
        "selection file; the spectrum of the stream is the oscillated one, and its rates are those of the experiment.",
    ]  # fmt: skip


def percent_cell(r):
    if r["accidental_percent"] is None:
        return NONE
    return f"{signed(r['accidental_percent'])} ± {r['percent_error']:.2f}"


# ---------------------------------------------------------------- speed


def speed(n):
    rows = []
    for r in n["rows"]:
        if "aim_per_second" in r:
            aim = f"≥ {rate(r['aim_per_second'])} {r['unit']}/s"
        elif "aim_s" in r:
            aim = f"≤ {duration(r['aim_s'])}"
        else:
            aim = ""
        each = r["median_s"] / r["n"]
        each = duration(each) if each >= 1e-6 else f"{1e9 * each:.3g} ns"
        busy = duration(r["cpu_s"]) if r.get("cpu_s") else NONE
        cells = [duration(r["median_s"]), duration(r["best_s"]), busy, f"{each}/{r['unit'][:-1]}"]
        rows.append([r["what"], *cells, f"{rate(r['per_second'])} {r['unit']}/s", aim, met(r["met"]) if aim else ""])
    s, t = n["stream"], n["training"]
    quick = " These are those of a quick run." if n["quick"] else ""
    trees = f" The trees have {n['trees_rounds']} rounds." if n["trees_rounds"] else " Trees are left out."
    minutes = held(60 * t["minutes_at_full_size"], 60 * t["aim_minutes"], duration)
    return [
        f"Medians and bests of repetitions in one run, load average {n['load average']:.1f}, once compiled; the aim is "
        "held against the median. The time of processors, summed over threads, is what a busy machine does not change. "
        f"The stream has {s['events']:,} events at {s['rate_Hz']:g} Hz with {s['pairs']:,} pairs in the window, "
        f"{s['pairs_within_5_m']:,} of them within 5 m; {n['scored_pairs']:,} pairs are scored.{trees}{quick}",
        table(["", "median", "best", "processors", "each", "rate", "aim", "met"], rows),
        table(["ratio of medians", ""], [[k, f"{v:.3g}"] for k, v in n["ratios"].items()]),
        f"{t['steps_at_full_size']:,} such steps, each after its minibatch and not beside it, are a training at the "
        f"published size: {minutes[0]} (aim {minutes[1]}: {minutes[2]}), without validation.",
        "First calls, compilation included:",
        table(["", "first call"], [[k, duration(v)] for k, v in n["first_call_s"].items()]),
    ]


SECTIONS = {
    "select-training": training,
    "select-cut-flow": cut_flows,
    "select-compare": compare,
    "select-explain": explained,
    "select-apply": applied,
    "bench-selection": speed,
}

"""Write docs/reproduced.md: every published number beside ours.

``benchmarks/results_page.py`` (``make page``) writes it. Our numbers come from docs/results/*.json. A
published number that a record holds is taken from there; the others stand here with their source.
"""

import math

from simulation_page import signed, table

FIRST, SIX, RATES = "fit-first-measurement", "fit-six-years", "predict-rates"
SYMBOLS = {
    "sin2_th12": "sin²θ12",
    "sin2_th13": "sin²θ13",
    "dm2_21_eV2": "Δm²21 [10⁻⁵ eV²]",
    "dm2_31_eV2": "Δm²31 [10⁻³ eV²]",
}
POWER = {"sin2_th12": 0, "sin2_th13": 0, "dm2_21_eV2": -5, "dm2_31_eV2": -3}
RESPONSE = ("kB [g/cm²/GeV]", "fC", "light yield [1/MeV]")
# Published numbers that no record holds, with their source.
BIAS_PERCENT = (0.25, 0.55, 0.02)  # arXiv:2507.23297: largest relative biases of kB, fC, light yield
NETWORK = {"bytes": 1.23e6, "one_s": 1e-3}  # Y. Malyshkin, CHEP 2024
ORDERING_YEARS, ORDERING_GW = 6.5, 26.6  # arXiv:2405.18008: median 3 σ
RECIPES = {"published": "recipe as published", "published-decaying": "its learning rate falling"}
NONE = "—"


def shown(name, value, digits):
    return f"{value / 10.0 ** POWER[name]:.{digits}f}"


def percent(ratio, digits=1):
    """How much larger than the published number, in percent."""
    return f"{signed(100.0 * (ratio - 1.0), digits)} %"


def sci(x):
    """Two digits and a power of ten."""
    if 0.01 <= abs(x) < 1e4:
        return f"{x:.3g}"
    exponent = math.floor(math.log10(abs(x)))
    return f"{x / 10.0**exponent:.1f}·10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


# ---------------------------------------------------------------- one publication each


def first_measurement(found):
    n = found[FIRST]["numbers"]
    rows = []
    for name, p in n["published"].items():
        x = n["result"][name]
        rows.append(
            [
                SYMBOLS[name],
                f"{shown(name, p['value'], 4 if name == 'sin2_th12' else 3)}",
                f"{shown(name, x['value'], 4 if name == 'sin2_th12' else 3)}",
                f"{signed(x['from_published_in_sigma'])} published errors",
            ]
        )
        rows.append([
            f"its error, {SYMBOLS[name]}",
            f"{shown(name, p['error'], 4 if name == 'sin2_th12' else 3)}",
            f"{shown(name, x['error'], 4 if name == 'sin2_th12' else 3)}",
            percent(x["error_over_published"]),
        ])  # fmt: skip
    return [table(["59.1 days of data, normal ordering", "published", "nuebar", "difference"], rows)]


def six_years(found):
    parts = []
    if SIX in found:
        n = found[SIX]["numbers"]
        sets = [s for s in ("common inputs", "embedded inputs") if s in n]
        rows = []
        for name, value in n["published"].items():
            digits = 5
            cells = [n[s]["all systematics"][name] for s in sets]
            rows.append([
                f"error of {SYMBOLS[name]}",
                shown(name, value, digits),
                *[f"{shown(name, c['error'], digits)} ({percent(c['over_published'])})" for c in cells],
            ])  # fmt: skip
        parts.append(table(["six years, expected (simulated)", "published", *sets], rows))
    if RATES in found:
        n = found[RATES]["numbers"]
        sets = [s for s in ("common inputs", "embedded inputs") if s in n]
        published = n["published"]
        total = published["IBD per day"]
        rows = [["selected antineutrinos a day", total, *[f"{n[s]['selected per full-power day']:.2f}" for s in sets]]]
        for core in ("TS1", "DYB"):
            cells = [n[s]["cores per full-power day"][core] for s in sets]
            ratio = [f"{c:.2f} ({percent(c / published[core])})" for c in cells]
            rows.append([f"of core {core}", f"{published[core]:g}", *ratio])
        parts.append(table(["rates at full power", "published", *sets], rows))
    if "simulate-stream" in found:
        rows = []
        for r in found["simulate-stream"]["numbers"]["rows"]:
            ours, table_ = r["after_cuts_per_day"], r["table_per_day"]
            ratio = percent(ours / table_) if table_ else NONE
            rows.append([f"`{r['pairs']}` a day", f"{table_:g}", f"{ours:.4f} ± {r['error_per_day']:.4f}", ratio])
        parts.append(
            "Our Monte Carlo through the published cuts and veto, generated with the rates of the table over our "
            "efficiencies "
            "as the experiment's file states them: a check of those efficiencies."
        )
        parts.append(table(["after cuts and veto", "table", "nuebar", "difference"], rows))
    return parts


def ordering(found):
    """From the record of ``nuebar fit ordering``, when there is one."""
    if "fit-ordering" not in found:
        return ["Not measured yet."]
    rows = []
    for inputs in ("common inputs", "embedded inputs"):
        for name, s in found["fit-ordering"]["numbers"][inputs]["resolutions"].items():
            years = s["years_at_3_sigma"]
            what = f"years × {ORDERING_GW:g} GW to a median of 3 σ, resolution of {name}, {inputs}"
            theirs = f"{ORDERING_YEARS:g}" if name == "2024" else NONE
            if years is None:
                rows.append([what, theirs, "not within the years studied", NONE])
            else:
                rows.append([what, theirs, f"{years:.2f}", percent(years / ORDERING_YEARS) if theirs != NONE else NONE])
    return [table(["mass ordering, expected (simulated)", "published", "nuebar", "difference"], rows)]


def calibration(found):
    parts = []
    if "tune-release" in found:
        rows = []
        for r in found["tune-release"]["numbers"]["all"]["rows"]:
            ours = r["predicted"]
            rows.append([
                f"{r['name']}, {r['energy_MeV']:.3f} MeV", f"{r['ratio']:.4f} ± {r['error']:.4f}", f"{ours:.4f}",
                f"{percent(ours / r['ratio'], 2)}, {signed((ours - r['ratio']) / r['error'], 1)} printed errors",
            ])  # fmt: skip
        parts.append("kB, fC and a scale are fitted to these nine points, so only their common shape is a test.")
        parts.append(table(["non-linearity of gammas", "released", "nuebar, fitted", "difference"], rows))
    if "simulate-resolution" in found:
        name, n = next(iter(found["simulate-resolution"]["numbers"]["responses"].items()))
        rows = [
            [
                f"σ/E of {r['peak']} [%]" + (" (fixed)" if r["fixed"] else ""),
                f"{r['released_percent']:.2f}",
                f"{r['ours_percent']:.2f}",
                f"{signed(r['difference_percent'], 1)} %",
            ]
            for r in n["rows"]
        ]
        parts.append(f"Three terms are fixed on three peaks, the others are predicted; response {name}.")
        parts.append(table(["resolution of calibration peaks", "released", "nuebar", "difference"], rows))
    return parts


def tuning(found):
    parts = []
    if "tune-example" in found:
        densities = found["tune-example"]["numbers"]["densities"]
        rows = []
        for k, label in enumerate(RESPONSE):
            digits = (3, 4, 1)[k]
            one = next(iter(densities.values()))["binned"]
            cells = []
            for d in densities.values():
                m = next(m for m in d["binned"]["methods"] if m["method"] == "nested")
                cells.append(f"{m['best'][k]:.{digits}f} ± {m['errors'][k]:.{digits}f}")
            theirs = f"{one['published_best'][k]:.{digits}f} ± {one['published_errors'][k]:.{digits}f}"
            rows.append([label, f"{one['truth'][k]:g}", theirs, *cells])
        parts.append(
            "The worked example, nested sampling, 10,000 events of every source. Both are simulations of their own "
            "at the same "
            "truth, so the values agree with the truth and not with each other; our errors are smaller, and "
            "[results](results.md#neural-tuning-methods-misfits-and-what-in-the-spectra-tells-the-response) say why."
        )
        parts.append(table(["response", "truth", "published flow", *[f"nuebar, {d}" for d in densities]], rows))
    if "tune-exposures" in found:
        densities = found["tune-exposures"]["numbers"]["densities"]
        rows = []
        for k, label in enumerate(RESPONSE):
            cells = []
            for d in densities.values():
                r = next(r for r in d["rows"] if r["events"] == d["aim_from_events"])
                bias, noise = r["bias_percent"][k], r["bias_noise_percent"][k]
                good = abs(bias) <= BIAS_PERCENT[k] + 2.0 * noise
                cells.append(f"{signed(bias, 3)} ± {noise:.3f}" + ("" if good else " **larger**"))
            rows.append([f"bias of {label.split(' [')[0]} [%]", f"≤ {BIAS_PERCENT[k]:g}", *cells])
        parts.append(table(["10,000 events of every source", "published", *[f"nuebar, {d}" for d in densities]], rows))
    if "simulate-peaks" in found:
        rows = [
            [f"peak of {r['source']} [photo-electrons]", f"{r['figure_pe']:.0f}", f"{r['peak_pe']:.0f}",
             f"{signed(r['difference_percent'])} %" + (" (fixed)" if r["source"] == "nH" else "")]
            for r in found["simulate-peaks"]["numbers"]["rows"]
            if r["stated"]
        ]  # fmt: skip
        parts.append(table(["positions, read from a figure to 0.2–0.5 %", "published", "nuebar", "difference"], rows))
    return parts


def selection(found):
    parts = []
    if "select-cut-flow" in found:
        tables = found["select-cut-flow"]["numbers"]["interactions"]["tables"]["prompt"]["grouped"]
        rows = []
        for r in tables:
            alone, inside = (r[k]["value"] for k in ("alone", "given_fiducial"))
            cells = [f"{100 * v:.2f} ({signed(100 * (v - r['published']))})" for v in (alone, inside)]
            if r["name"] in ("fiducial volume", "combined"):
                cells[1] = NONE
            rows.append([f"efficiency: {r['name']} [%]", f"{100 * r['published']:.1f}", *cells])
        parts.append(
            "The publication does not say whether its rows are shares of all pairs or of those inside the fiducial "
            "volume. Both "
            "are given, with the difference in points."
        )
        parts.append(table(["published cuts, our antineutrinos", "published", "alone", "inside the volume"], rows))
    if "select-explain" in found:
        n = found["select-explain"]["numbers"]["outputs"]["probability"]["importance"]
        rows = [
            [
                f"rank of `{f['feature']}`",
                f"{f['published_rank']}",
                f"{f['rank']}",
                signed(f["rank"] - f["published_rank"], 0),
            ]
            for f in n["features"]
        ]
        parts.append("Ranks by mean size of the values. The sixth published name is hard to read (nominal).")
        parts.append(table(["which features decide (Shapley values)", "published", "nuebar", "difference"], rows))
    return parts


def network(found):
    if "predict-compare" not in found:
        return []
    rows = {r["name"]: r for r in found["predict-compare"]["numbers"]["rows"]}
    r = rows.get("network-network")
    if r is None:
        return []
    trained = found.get("predict-networks", {}).get("numbers", {}).get("rows", {})
    shares = {name: trained.get(name, {}).get("metrics", {}).get("within_0.1_percent") for name in RECIPES}
    lines = [
        ["size on disk [MB]", f"{NETWORK['bytes'] / 1e6:g}", f"{r['bytes'] / 1e6:.2f}",
         percent(r["bytes"] / NETWORK["bytes"])],
        ["one spectrum", "about 1 ms", f"{1e6 * r['one_quick']['best_s']:.1f} µs ({r['one_quick']['path']})",
         f"{NETWORK['one_s'] / r['one_quick']['best_s']:.0f} times faster"],
        ["spectra a second in batches", "of the order of 10⁶", sci(r["batch"]["per_second"]), NONE],
    ]  # fmt: skip
    for name, share in shares.items():
        if share is not None:
            what = f"bins within 0.1 % of the truth, {RECIPES[name]}"
            lines.append([what, "the major part", f"{100 * share:.0f} %", NONE])
    return [table(["4-400-400-400 network, learning rate falling", "published", "nuebar", "difference"], lines)]


SECTIONS = (
    ("JUNO's first measurement", "arXiv:2511.14593, Nature 654, 343 (2026)", (FIRST,), first_measurement),
    ("JUNO's expected precision", "arXiv:2204.13249, tables 2, 3 and 6", (SIX, RATES, "simulate-stream"), six_years),
    ("Mass ordering", "arXiv:2405.18008", ("fit-ordering",), ordering),
    ("Calibration of JUNO, 2025", "arXiv:2511.14590, data", ("tune-release", "simulate-resolution"), calibration),
    ("Neural tuning of the response", "arXiv:2507.23297", ("tune-example", "tune-exposures", "simulate-peaks"), tuning),
    ("Selection of antineutrinos", "arXiv:2406.12901 and its talk", ("select-cut-flow", "select-explain"), selection),
    ("Neural surrogate of the spectrum", "Y. Malyshkin, CHEP 2024", ("predict-compare", "predict-networks"), network),
)  # fmt: skip
NAMES = tuple(dict.fromkeys(name for *_, names, _ in SECTIONS for name in names))


def page(found):
    """The page from the records, by name."""
    parts = [
        "# Results reproduced",
        "Published numbers beside ours. Ours are measured: they come from the records in `docs/results`, and `make "
        "page` writes "
        "this page from them. Published results are checks, never inputs of what they check. Everything that was "
        "measured, "
        "with commands and machines, is in [all results](results.md).",
    ]
    for title, source, names, write in SECTIONS:
        parts += [f"## {title}", f"Published: {source}."]
        have = [n for n in names if n in found]
        parts += write(found) if have else ["Not measured yet."]
        if have:
            parts.append("Records: " + ", ".join(f"`{n}.json`" for n in have) + ".")
    return "\n\n".join(parts) + "\n"

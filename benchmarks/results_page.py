"""Write the pages with results and the block of README.md from docs/results/*.json. No number is typed by hand.

    python benchmarks/results_page.py [--check]

The JSON files come from ``make results`` (benchmarks/truth.py) and ``make bench`` (benchmarks/run.py); where one is
missing, its section says so. With ``--check`` nothing is written, and the exit code is 1 if a page is out of date.
"""

import argparse
import json
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import chain_page  # noqa: E402 - files beside this one
import choose_page  # noqa: E402
import predictor_page  # noqa: E402
import reproduced_page  # noqa: E402
import selection_page  # noqa: E402
import simulation_page  # noqa: E402
import statistics_page  # noqa: E402
import tuning_page  # noqa: E402
from simulation_page import signed, table  # noqa: E402

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
# Symbol, power of ten taken out, digits after the point, unit.
SHOWN = {
    "sin2_th12": ("sin²θ12", 0, 4, ""),
    "sin2_th13": ("sin²θ13", 0, 4, ""),
    "dm2_21_eV2": ("Δm²21", -5, 3, "10⁻⁵ eV²"),
    "dm2_31_eV2": ("Δm²31", -3, 4, "10⁻³ eV²"),
}
FIRST, SIX, RATES, SPEED = "fit-first-measurement", "fit-six-years", "predict-rates", "bench-speed"
HOW = {
    FIRST: "make results RELEASE=folder",
    SIX: "make results INPUTS=file.root",
    RATES: "make results INPUTS=file.root",
    SPEED: "make bench",
    **simulation_page.HOW,
    **predictor_page.HOW,
    **tuning_page.HOW,
    **selection_page.HOW,
    **chain_page.HOW,
    **statistics_page.HOW,
}
OTHERS = (simulation_page, predictor_page, tuning_page, selection_page, chain_page, statistics_page)
HEADLINES = (
    "harmonic, ±15σ, vacuum: compiled, one spectrum",
    "harmonic, ±15σ, matter: compiled, one spectrum",
    "numpy response matrix / compiled harmonic (±15σ, vacuum)",
    "four-parameter fit with all systematics, once compiled",
)


# ---------------------------------------------------------------- reading and formatting


def records(folder):
    """The measurements there are, by name."""
    found = {name: folder / f"{name}.json" for name in HOW}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}


def everything(folder):
    """All records of a folder, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def number(name, value):
    """A parameter's value in the power of ten of :data:`SHOWN`."""
    _, power, digits, _ = SHOWN[name]
    return f"{value / 10.0**power:.{digits}f}"


def label(name):
    symbol, _, _, unit = SHOWN[name]
    return f"{symbol} [{unit}]" if unit else symbol


def error(name, value):
    """An error, with one digit more than a value."""
    _, power, digits, _ = SHOWN[name]
    return f"{value / 10.0**power:.{digits + 1}f}"


def duration(seconds):
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{three(seconds / size)} {unit}"
    return f"{three(seconds / 1e-9)} ns"


def three(value):
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def plain(text):
    """A round number without the zeros that only show its precision: 10.0 µs → 10 µs."""
    digits, _, unit = text.partition(" ")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits} {unit}".strip()


def made_with(record):
    """One line that says when and where a measurement was made."""
    m, v = record["machine"], record["versions"]
    versions = ", ".join(f"{n} {v[n]}" for n in ("nuebar", "python", "jax", "numpy", "iminuit") if v.get(n))
    commit = (record["commit"] or "unknown")[:12] + ("-dirty" if str(record["commit"]).endswith("-dirty") else "")
    return (
        f"Measured with `{record['command']}`, commit {commit}, {m['cores']} cores of {m['processor']}, "
        f"{record['seconds']:.0f} s; {versions}."
    )


def missing(name):
    return f"not measured yet: run `{HOW[name]}`, then `make page`."


def verdict(good):
    return "yes" if good else "**no**"


# ---------------------------------------------------------------- JUNO's first measurement


def first_measurement(n, reference):
    r, published = n["result"], n["published"]
    far, wide = reference["tolerance_sigma"], reference["relative_tolerance_error"]
    rows = []
    for name, p in published.items():
        x = r[name]
        good = abs(x["from_published_in_sigma"]) <= far and abs(x["error_over_published"] - 1) <= wide
        rows.append(
            [
                label(name),
                f"{number(name, x['value'])} ± {number(name, x['error'])}",
                f"{number(name, p['value'])} ± {number(name, p['error'])}",
                f"{signed(x['from_published_in_sigma'])} σ",
                f"{x['error_over_published']:.2f}",
                verdict(good),
            ]
        )
    goal = f"within {far:g} σ, errors within {100 * wide:.0f} %"
    header = ["", "nuebar", "published", "difference / published error", "error / published", goal]
    state = "valid" if r["valid"] else f"**not valid: {r['reason']}**"
    return [
        table(header, rows),
        f"The fit is {state}. χ² = {r['chi2']:.1f} with pull terms, {r['chi2_per_bin']:.2f} a bin, "
        f"{r['n_dof']} degrees of freedom. The release implies "
        f"{r['un-oscillated events of the release']:.0f} events without oscillation.",
        "### Flux models and energy scales",
        "The same data with three reactor spectra, and with the reconstructed energy taken as visible (the "
        "non-linearity is applied) or as true (it was corrected). The result above is the choice that "
        "`src/nuebar/experiments/juno-2025.toml` states; the others are there to be compared.",
        variants(n["flux_models"], published),
        "### Pulls",
        "(value − centre) / width of every parameter with a prior.",
        table(["parameter", "pull"], [[f"`{p}`", signed(x)] for p, x in r["pulls"].items()]),
        "### What moves the answer",
        "The stated fit with one thing changed: shift of the best value in units of the published error, and the "
        "change of χ².",
        moves(n["what_moves_the_answer"], published),
    ]


def variants(models, published):
    rows = []
    for what, x in models.items():
        cells = [f"{number(p, x[p]['value'])} ± {number(p, x[p]['error'])}" for p in published]
        shifts = [signed(x[p]["from_published_in_sigma"]) for p in published]
        chi2 = f"{x['chi2']:.1f} / {x['n_dof']}" + ("" if x["valid"] else " **not valid**")
        rows.append([what, *cells, *shifts, chi2])
    symbols = [SHOWN[p][0] for p in published]
    header = ["", *[label(p) for p in published], *[f"{s}: difference [σ]" for s in symbols], "χ² / dof"]
    return table(header, rows)


def moves(changes, published):
    rows = [
        [what, *[f"{signed(x[p]['shift_in_published_sigma'])} σ" for p in published], signed(x["delta_chi2"], 1)]
        for what, x in changes.items()
    ]
    return table(["changed", *[SHOWN[p][0] for p in published], "Δχ²"], rows)


# ---------------------------------------------------------------- six years


def sets_of_inputs(n):
    """What was measured, in the order of the file."""
    return [name for name, x in n.items() if isinstance(x, dict) and "all systematics" in x]


def six_years(n, reference):
    published = n["published"]
    limit = {
        "common inputs": reference["relative_tolerance_common_inputs"],
        "embedded inputs": reference["relative_tolerance_embedded"],
    }
    out = [table(["expected error of", "published", *sets_of_inputs(n)], six_rows(n))]
    for name in ("common inputs", "embedded inputs"):
        if name not in n:
            out.append(f"With the {name}: {missing(SIX)}")
            continue
        worst = max(abs(x["over_published"] - 1) for x in n[name]["all systematics"].values())
        out.append(
            f"With the {name} all four are within {100 * worst:.1f} % of the published errors; the aim is "
            f"{100 * limit[name]:.0f} %: {'met' if worst <= limit[name] else '**missed**'}."
        )
    for name in ("common inputs", "embedded inputs"):
        if "without" in n.get(name, {}):
            out += [
                f"### Systematics one by one, {name}",
                "Expected error over the published one, with one group of systematics switched off.",
                switched_off(n[name], published),
            ]
    return out


def six_rows(n):
    rows = []
    for p, value in n["published"].items():
        cells = [n[s]["all systematics"][p] for s in sets_of_inputs(n)]
        shown = [f"{error(p, x['error'])} ({x['over_published']:.3f})" for x in cells]
        rows.append([label(p), error(p, value), *shown])
    return rows


def switched_off(x, published):
    lines = [("none switched off", x["all systematics"])]
    lines += [(f"without {group}", errors) for group, errors in x["without"].items()]
    lines.append(("statistics only", x["statistics only"]))
    rows = [[what, *[f"{errors[p]['over_published']:.3f}" for p in published]] for what, errors in lines]
    return table(["", *[SHOWN[p][0] for p in published]], rows)


# ---------------------------------------------------------------- rates


def rates(n, reference):
    measured = [name for name, x in n.items() if isinstance(x, dict) and "selected per full-power day" in x]
    total, core = reference["ibd_per_day"], reference["ibd_per_day_of_core"]
    rows = [
        rate_row(
            "selected IBD per full-power day",
            f"{total['value']} ± {total['tolerance']}",
            [n[s]["selected per full-power day"] for s in measured],
            lambda x: abs(x - total["value"]) <= total["tolerance"],
        )
    ]
    for name, c in core.items():
        rows.append(
            rate_row(
                f"of core {name}",
                f"{c['value']} (within {100 * c['relative_tolerance']:.0f} %)",
                [n[s]["cores per full-power day"][name] for s in measured],
                lambda x, c=c: abs(x / c["value"] - 1) <= c["relative_tolerance"],
            )
        )
    for what in ("selected per calendar day", "before efficiency per full-power day"):
        rows.append([what.replace("selected", "selected IBD"), "", *[f"{n[s][what]:.2f}" for s in measured]])
    flat = "without oscillation per full-power day"
    rows.append([f"selected IBD {flat}", "", *[f"{n[s][flat]:.1f}" for s in measured]])
    return [
        "Full power means every core at its thermal power; a calendar day has the reactors' duty cycle in it "
        "(see [conventions](conventions.md#exposure)).",
        table(["", "published", *measured], rows),
    ]


def rate_row(what, published, values, good):
    return [what, published, *[f"{v:.2f}" + ("" if good(v) else " **outside**") for v in values]]


# ---------------------------------------------------------------- speed


def speed(n):
    rows = []
    for what, value, limit, at_least in aims(n):
        if value is None:
            rows.append([what, "not measured", "", "", ""])
        elif at_least:
            good = value >= limit
            rows.append([what, f"{value:.3g}", "", f"≥ {limit:g}", "yes" if good else "**missed**"])
        else:
            shown, median = value if isinstance(value, tuple) else (value, None)
            text = duration if isinstance(value, tuple) else three
            aim = "" if limit is None else f"≤ {plain(text(limit))}"
            good = "" if limit is None else "yes" if shown <= limit else "**missed**"
            rows.append([what, text(shown), "" if median is None else text(median), aim, good])
    m = n.get("a million spectra in f32", {})
    f = n.get("fit with all systematics", {})
    notes = []
    if "worst relative error of a bin" in m:
        notes.append(
            f"The {m['spectra']:,} single-precision spectra have {m['windows']} windows and a worst relative error of "
            f"{m['worst relative error of a bin']:.1e} in a bin."
        )
    if "parameters" in f:
        notes.append(f"The fit has {f['parameters']} free parameters, {f['bins']} bins and took {f['calls']} calls.")
    return [
        "Best and median of several repetitions in one run; the aim is held against the best.",
        table(["", "best", "median", "aim", "met"], rows),
        *([" ".join(notes)] if notes else []),
    ]


def aims(n):
    """(what, value or (best, median) seconds, aim, whether the aim is a lower limit)."""
    prediction, ratios = n.get("prediction of 400 bins", {}), n.get("prediction of 400 bins", {}).get("ratios", {})
    rows = []
    for sigma in (3, 15):
        for kind in ("vacuum", "matter"):
            x = prediction.get(f"harmonic, ±{sigma}σ of PDG 2022", {}).get(kind, {})
            each = next((k for k in x if k.startswith("each under vmap")), "")
            head = f"harmonic, ±{sigma}σ, {kind}:"
            rows += [
                (f"{head} compiled, one spectrum", seconds(x, "compiled scalar path"), 10e-6, False),
                (f"{head} one jitted call", seconds(x, "one jitted call"), 40e-6, False),
                (f"{head} each under vmap", seconds(x, each), 5e-6, False),
                (f"{head} gradient of 400 bins", seconds(x, "jacobian of 400 bins, jitted"), 60e-6, False),
            ]
    for what, key in (
        ("numpy response matrix, vacuum", "response matrix, numpy, vacuum, 9 cores"),
        ("its gradient by finite differences", "its gradient by finite differences"),
        ("response matrix, jitted, matter", "response matrix, jitted, matter"),
    ):
        rows.append((what, seconds(prediction, key), None, False))
    for what, words in (
        ("numpy response matrix / compiled harmonic (±15σ, vacuum)", "numpy matrix over compiled"),
        ("numpy response matrix / jitted harmonic (±15σ, vacuum)", "numpy matrix over jitted"),
        ("finite differences / jitted gradient (±15σ, vacuum)", "finite differences over"),
    ):
        rows.append((what, next((v for k, v in ratios.items() if k.startswith(words)), None), 10, True))
    return rows + other_aims(n)


def other_aims(n):
    many, one = n.get("a million spectra in f32", {}), n.get("matter probabilities", {})
    fit, process = n.get("fit with all systematics", {}), n.get("processes", {})
    # The aims are for a million; a quick run makes fewer and is shown without one.
    full = many.get("spectra") == 10**6, one.get("probabilities") == 10**6
    return [
        (
            f"{many.get('spectra', 10**6):,} spectra of 400 bins in f32, reused buffer",
            seconds(many, "into a reused buffer"),
            0.6 if full[0] else None,
            False,
        ),
        (
            f"{one.get('probabilities', 10**6):,} probabilities in matter",
            seconds(one, "ours"),
            60e-3 if full[1] else None,
            False,
        ),
        ("their Jacobian (6 parameters) / the probabilities", one.get("Jacobian over forward"), 10, False),
        ("jaxnu / ours, the same probabilities", one.get("jaxnu over ours"), None, False),
        ("four-parameter fit with all systematics, once compiled", seconds(fit, "once compiled"), 0.5, False),
        (
            "`nuebar fit spectrum`, warm compilation cache",
            seconds(process, "nuebar fit spectrum, warm compilation cache"),
            8.0,
            False,
        ),
        (
            "`nuebar fit spectrum`, empty compilation cache",
            seconds(process, "nuebar fit spectrum, empty compilation cache"),
            15.0,
            False,
        ),
        ("`import nuebar`", seconds(process, "import nuebar"), 0.2, False),
        ("`nuebar --help`", seconds(process, "nuebar --help"), 0.5, False),
    ]


def seconds(numbers, key):
    x = numbers.get(key)
    return None if x is None else (x["best_s"], x.get("median_s"))


# ---------------------------------------------------------------- pages


def page(found, reference):
    parts = [
        "# Results",
        "Published numbers beside ours, and speeds. This page is written by `make page` from the JSON files in "
        "`docs/results`; do not edit it.",
    ]
    for name, title, write in (
        (FIRST, "JUNO's first measurement: 59.1 days of data", lambda n: first_measurement(n, reference[FIRST])),
        (SIX, "Expected errors after six years (Asimov, simulated)", lambda n: six_years(n, reference[SIX])),
        (RATES, "Rates", lambda n: rates(n, reference[RATES])),
        (SPEED, "Speed", speed),
        *((name, other.TITLES[name], write) for other in OTHERS for name, write in other.SECTIONS.items()),
    ):
        parts.append(f"## {title}")
        parts.append({FIRST: "Published: arXiv:2511.14593, Nature 654, 343 (2026), normal ordering."}.get(name, ""))
        parts.append({SIX: "Published: arXiv:2204.13249, table 6; in parentheses: ours over published."}.get(name, ""))
        parts.append({RATES: "Published: arXiv:2204.13249, tables 2 and 3."}.get(name, ""))
        if name in found:
            parts += [*write(found[name]["numbers"]), made_with(found[name])]
        else:
            parts.append("N" + missing(name)[1:])
    return "\n\n".join(p for p in parts if p) + "\n"


def short(found):
    """The block in the README."""
    parts = []
    if FIRST in found:
        n = found[FIRST]["numbers"]
        rows = []
        for name, p in n["published"].items():
            x = n["result"][name]
            ours = f"{number(name, x['value'])} ± {number(name, x['error'])}"
            theirs = f"{number(name, p['value'])} ± {number(name, p['error'])}"
            rows.append([label(name), ours, theirs, f"{signed(x['from_published_in_sigma'])} σ"])
        parts.append(table(["JUNO's 59.1 days of data", "nuebar", "published", "difference"], rows))
    else:
        parts.append(f"JUNO's 59.1 days of data: {missing(FIRST)}")
    if SIX in found:
        n = found[SIX]["numbers"]
        sets = [s for s in ("common inputs", "embedded inputs") if s in n]
        rows = [
            [label(p), *[error(p, n[s]["all systematics"][p]["error"]) for s in sets], error(p, value)]
            for p, value in n["published"].items()
        ]
        parts.append(table(["expected error after 6 years (simulated)", *sets, "published"], rows))
    else:
        parts.append(f"Expected errors after six years: {missing(SIX)}")
    if SPEED in found:
        chosen = {what: (v, limit, least) for what, v, limit, least in aims(found[SPEED]["numbers"])}
        rows = [speed_row(what, *chosen[what]) for what in HEADLINES]
        parts.append(table([f"speed ({found[SPEED]['machine']['cores']} cores)", "best", "aim"], rows))
    else:
        parts.append(f"Speed: {missing(SPEED)}")
    return "\n\n".join(parts)


def speed_row(what, value, limit, at_least):
    if value is None:
        return [what, "not measured", ""]
    if at_least:
        return [what, f"{value:.3g}", f"≥ {limit:g}" + ("" if value >= limit else ", **missed**")]
    return [what, duration(value[0]), f"≤ {plain(duration(limit))}" + ("" if value[0] <= limit else ", **missed**")]


def filled(readme, block):
    """The README with the block between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise SystemExit(f"README.md: expected the marks {BEGIN} and {END} once each; put them back")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def pages(root=ROOT):
    """Path → text of the pages as the JSON files want them."""
    raw = json.loads((root / "tests" / "reference" / "juno.json").read_text(encoding="utf-8"))
    reference = {FIRST: raw["first_measurement"], SIX: raw["six_years"], RATES: raw}
    found = records(root / "docs" / "results")
    readme = root / "README.md"
    every = everything(root / "docs" / "results")
    return {
        root / "docs" / "results.md": page(found, reference),
        root / "docs" / "reproduced.md": reproduced_page.page(every),
        root / "docs" / "choose.md": choose_page.page(every),
        readme: filled(readme.read_text(encoding="utf-8"), short(found)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    args = parser.parse_args()
    stale = []
    for path, text in pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not args.check:
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date; run make page' if args.check else 'written'}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

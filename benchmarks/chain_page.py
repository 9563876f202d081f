"""The sections of docs/results.md on the chain, from docs/results/chain-*.json."""

from predictor_page import duration
from simulation_page import met, signed, table

CHAIN = "make chain"
HOW = {"chain-run": CHAIN, "chain-ensemble": CHAIN, "chain-full": CHAIN}
TITLES = {
    "chain-run": "Chain: one run",
    "chain-ensemble": "Chain: is it calibrated? By the fast path",
    "chain-full": "Chain: is it calibrated? Whole runs",
}
# Aims, decided before anything was measured.
RUN_S, MEMORY_GB, DISK_GB, PAGE_MB = 600.0, 4.0, 2.0, 8.0
LEVEL, SEEDS, FULL = 0.01, 200, 20
INTEREST = (
    "sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "kB_g_cm2_GeV", "fC", "light_yield_per_MeV",
)  # fmt: skip
SHOWN = {
    "sin2_th12": ("sin²θ12", 0, 4), "sin2_th13": ("sin²θ13", 0, 5), "dm2_21_eV2": ("Δm²21 [10⁻⁵ eV²]", -5, 3),
    "dm2_31_eV2": ("Δm²31 [10⁻³ eV²]", -3, 4), "kB_g_cm2_GeV": ("kB [g/cm²/GeV]", 0, 3), "fC": ("fC", 0, 4),
    "light_yield_per_MeV": ("light yield [1/MeV]", 0, 1),
}  # fmt: skip
BROKEN = {
    "kB": "kB of the posterior 10 % too large",
    "efficiency": "efficiency lost",
    "accidentals": "accidentals doubled",
}


def run(n):
    lines = [
        f"`nuebar run`: {n['days']:g} days of stream, {n['candidates']:,} candidates, "
        f"χ² = {n['goodness']['chi2']:.1f} for {n['goodness']['n_dof']} (p = {n['goodness']['p_value']:.2g}).",
    ]
    rows = []
    for row in n["recovered"]:
        name, power, digits = SHOWN[row["name"]]
        value, error, truth = (f"{row[k] / 10.0**power:.{digits}f}" for k in ("value", "error", "truth"))
        rows.append([name, f"{value} ± {error}", truth, signed(row["sigmas"], 2)])
    lines.append(table(["recovered", "value", "hidden truth", "σ away"], rows))
    budget = [
        ["all stages", duration(n["seconds_of_all_stages"]), f"≤ {RUN_S:.0f} s",
         met(n["seconds_of_all_stages"] <= RUN_S)],
        *[[f"stage {name}", duration(s), "", ""] for name, s in n["seconds"].items()],
        ["memory of the largest process", f"{n['peak_memory_GB_of_one_process']:.2f} GB", f"≤ {MEMORY_GB:g} GB",
         met(n["peak_memory_GB_of_one_process"] <= MEMORY_GB)],
        ["disk", f"{n['disk_GB']:.2f} GB", f"≤ {DISK_GB:g} GB", met(n["disk_GB"] <= DISK_GB)],
        ["page", f"{n['page_MB']:.1f} MB", f"≤ {PAGE_MB:g} MB", met(n["page_MB"] <= PAGE_MB)],
    ]  # fmt: skip
    return [*lines, table(["", "measured", "aim", "met"], budget)]


def pulls(n):
    rows = []
    for p in n["parameters"]:
        if p["name"] in INTEREST or p["name"] in ("energy_scale", "norm_flux", "bkg_geoneutrinos"):
            name = SHOWN.get(p["name"], (p["name"],))[0].split(" [")[0]
            flag = "as its prior" if p["prior_dominated"] else ""
            rows.append(
                [
                    name,
                    f"{signed(p['mean'], 3)} ± {p['mean_error']:.3f}",
                    f"{p['width']:.3f} ± {p['width_error']:.3f}",
                    flag,
                ]
            )
    return table(["pull of", "mean", "width", "error"], rows)


def verdict(n, seeds=None):
    word = "consistent" if n["consistent"] else "**not consistent**"
    aim = "" if seeds is None or n["used"] + n["failed"] >= seeds else f", fewer than {seeds}"
    return (
        f"{n['used']} seeds{aim}, {n['failed']} failed fits, {len(n['corrected'])} tests, smallest corrected "
        f"p = {n['p_value']:.2g} ({n['worst']}): {word} at {LEVEL:g}; χ²/dof of the fits {n['mean_chi2_over_dof']:.3f}."
    )


def ensemble(n):
    rows = [
        [BROKEN[name], str(n[name]["used"] + n[name]["failed"]), f"{n[name]['p_value']:.1g} ({n[name]['worst']})",
         "noticed" if not n[name]["consistent"] else "not noticed, **missed**"]
        for name in BROKEN
    ]  # fmt: skip
    return [
        verdict(n["none"], SEEDS),
        pulls(n["none"]),
        table(["broken on purpose", "seeds", "smallest p", "must be noticed"], rows),
    ]


def full(n):
    v = n["machine_versions"]
    made = f"The runs themselves were made with python {v['python']}, jax {v['jax']}, numpy {v['numpy']}, side by side."
    return [verdict(n, FULL), made, pulls(n)]


SECTIONS = {"chain-run": run, "chain-ensemble": ensemble, "chain-full": full}

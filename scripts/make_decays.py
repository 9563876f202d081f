"""Write src/nuebar/physics/decays/schemes.json from the evaluated nuclear structure data file (ENSDF).

Needs ``pip install numpy paceENSDF==0.6.3`` in any environment; nuebar itself is not imported. paceENSDF holds ENSDF
as JSON (version of September 2023; A. M. Hurst et al., Eur. Phys. J. Web Conf. 284, 18002 (2023)). Run again when a
nuclide is added, a threshold changes or the evaluation does.

What is done to the evaluation, for each pair of parent and daughter:

* the chance of each way out of a level is its total intensity, photons times (1 + conversion coefficient), over the
  sum; an E0 transition gives electrons only;
* the chance of each branch is the evaluated feeding, scaled to a sum of one; or what leaves a level less what enters
  it from above (``BALANCED``), the remainder of one going to a stated level;
* branches, and levels passed in less than ``THRESHOLD`` of the decays, are left out and the rest scaled up;
* energies of transitions are differences of level energies, so that each walk to the ground adds up exactly.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "src" / "nuebar" / "physics" / "decays" / "schemes.json"
THRESHOLD = 1e-4
ELECTRON_MASS_keV = 510.99895069  # CODATA 2022

# Name -> the data sets (parent and daughter as in the file names of paceENSDF, parent level).
DATA_SETS = {
    "C10": ["C10_B10 0keV"],
    "C11": ["C11_B11 0keV"],
    "B12": ["B12_C12 0keV"],
    "C14": ["C14_N14 0keV"],
    "Ar39": ["Ar39_K39 0keV"],
    "K40": ["K40_Ca40 0keV", "K40_Ar40 0keV"],
    "Mn54": ["Mn54_Cr54 0keV"],
    "Co60": ["Co60_Ni60 0keV"],
    "Ge68": ["Ge68_Ga68 0keV"],
    "Ga68": ["Ga68_Zn68 0keV"],
    "Kr85": ["Kr85_Rb85 0keV"],
    "Cs137": ["Cs137_Ba137 0keV"],
    "U238": ["U238_Th234 0keV"],
    "Th234": ["Th234_Pa234 0keV"],
    "Pa234m": ["Pa234_U234 73.92pXkeV"],
    "U234": ["U234_Th230 0keV"],
    "Th230": ["Th230_Ra226 0keV"],
    "Ra226": ["Ra226_Rn222 0keV"],
    "Rn222": ["Rn222_Po218 0keV"],
    "Po218": ["Po218_Pb214 0keV"],
    "Pb214": ["Pb214_Bi214 0keV"],
    "Bi214": ["Bi214_Po214 0keV"],
    "Po214": ["Po214_Pb210 0keV"],
    "Pb210": ["Pb210_Bi210 0keV"],
    "Bi210": ["Bi210_Po210 0keV"],
    "Po210": ["Po210_Pb206 0keV"],
    "Th232": ["Th232_Ra228 0keV"],
    "Ra228": ["Ra228_Ac228 0keV"],
    "Ac228": ["Ac228_Th228 0keV"],
    "Th228": ["Th228_Ra224 0keV"],
    "Ra224": ["Ra224_Rn220 0keV"],
    "Rn220": ["Rn220_Po216 0keV"],
    "Po216": ["Po216_Pb212 0keV"],
    "Pb212": ["Pb212_Bi212 0keV"],
    "Bi212": ["Bi212_Po212 0keV", "Bi212_Tl208 0keV"],
    "Po212": ["Po212_Pb208 0keV"],
    "Tl208": ["Tl208_Pb208 0keV"],
}

# Decays of each member per decay of the head, in secular equilibrium. The weak side branches of 218Po (0.02 %, beta),
# 234mPa (0.16 %, to 234Pa), 214Bi (0.02 %) and 210Bi (1e-6, both alpha) are taken as nothing.
_RADON = {"Rn222": 1.0, "Po218": 1.0, "Pb214": 1.0, "Bi214": 1.0, "Po214": 1.0}
_LEAD = {"Pb210": 1.0, "Bi210": 1.0, "Po210": 1.0}
_THORON = {"Ra224": 1.0, "Rn220": 1.0, "Po216": 1.0, "Pb212": 1.0, "Bi212": 1.0, "Tl208": 0.3594, "Po212": 0.6406}
_TH228 = {"Th228": 1.0, **_THORON}
CHAINS = {
    "U238": {"U238": 1.0, "Th234": 1.0, "Pa234m": 1.0, "U234": 1.0, "Th230": 1.0, "Ra226": 1.0, **_RADON, **_LEAD},
    "Ra226": {"Ra226": 1.0, **_RADON, **_LEAD},
    "Rn222": _RADON,
    "Pb210": _LEAD,
    "Th232": {"Th232": 1.0, "Ra228": 1.0, "Ac228": 1.0, **_TH228},
    "Th228": _TH228,
    "K40": {"K40": 1.0},
    "Ge68": {"Ge68": 1.0, "Ga68": 1.0},
}

# Feeding from the balance of intensities; the level (keV) that takes what is missing from one. 210Pb: the evaluated
# feedings (84 and 16 %) contradict the 46.5 keV line, the balance gives the 80 and 20 % of DDEP (nominal). 228Ac: they
# add up to 0.95, and what they miss goes to the level whose line is nearly all converted: no other line hides so much.
BALANCED = {"Pb210": 0.0, "Ac228": 57.763}
# Photons per 100 decays. ENSDF has 2.1 and 0.76, which enter the levels at 968.3 and 938.6 keV and have no way out;
# the evaluation before it, used by ICRP Publication 107 (2008), has these.
INTENSITY_FIXES = {("Ac228", 674.75): 0.109, ("Ac228", 214.85): 0.029}
# 234Th ends in 234mPa, a nuclide of its own. ENSDF gives the levels above it as 73.92 + X keV; X is taken as zero and
# the lines that the data set sends to the level at 73.92 end in the isomer.
GROUND = {"Th234": ("Pa234m", 73.92)}
# Levels (keV) that break up rather than emit photons: the Hoyle state of 12C and those above it.
BREAKUP = {("B12", 7657.8), ("B12", 10300.0), ("B12", 12710.0)}
# Measured shape factor, a polynomial in the electron's total energy W / m: I. E. Alekseev et al., "Precision
# measurement of 210Bi beta-spectrum", arXiv:2005.08481.
SHAPES = {"Bi210": [1.0, -0.4363, 0.0523]}
NOTES = {
    "Ac228": "674.8 and 214.9 keV from an older evaluation; the 57.8 keV level is fed by 14.6 instead of 7 %.",
    "B12": "Without the feeding of levels that break up into three alpha particles.",
    "Bi210": "Shape of the spectrum as measured.",
    "Pa234m": "Without the 0.16 % to 234Pa; E0 intensities from the balance of their levels.",
    "Pb210": "Feeding from the intensity of the 46.5 keV line.",
    "Th234": "Ends in 234mPa.",
}
FORBIDDEN = {
    "0A": "allowed",
    "1A": "allowed",
    "1UF": "unique1",
    "2UF": "unique2",
    "3UF": "unique3",
    "1F": "nonunique1",
    "2F": "nonunique2",
    None: "unknown",
}


def read(data_set: str) -> dict:
    pair, level = data_set.split()
    spec = importlib.util.find_spec("paceENSDF")
    if spec is None or spec.origin is None:
        raise SystemExit("paceENSDF is not installed: pip install paceENSDF==0.6.3")
    (path,) = (Path(spec.origin).parent / "ENSDF_JSON").glob(f"j_input_{pair}_*_{level}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def level_keV(level: dict) -> float:
    energy = level["levelEnergy"]
    return float(energy) if level["levelEnergyIsKnown"] else float(level["levelEnergyThreshold"])


def feedings(level: dict, q_keV: float, branching: float) -> list[tuple[str, float, float, str]]:
    """(mode, per decay of the parent, kinetic energy in keV, forbiddenness) of one level."""
    left = q_keV - level_keV(level)
    rows = []
    for b in level.get("betaMinusDecay", ()):
        rows.append(("beta-", b["betaMinusIntensity"] / 100, left, FORBIDDEN[b["forbiddennessDegree"]]))
    for b in level.get("alphaDecay", ()):
        rows.append(("alpha", branching * b["alphaIntensity"] / 100, b["alphaEnergy"], "allowed"))
    for b in level.get("betaPlusDecay", ()):
        kind = FORBIDDEN[b["forbiddennessDegree"]]
        rows.append(("ec", (b["electronCaptureIntensity"] or 0) / 100, left, kind))
        rows.append(("beta+", (b["betaPlusIntensity"] or 0) / 100, left - 2 * ELECTRON_MASS_keV, kind))
    return [r for r in rows if r[1] > 0]


def sums(fed: list) -> np.ndarray:
    return np.array([sum(r[1] for r in rows) for rows in fed])


def photons(parent: str, line: dict, scale: float) -> float:
    """Photons of a line per decay of the parent."""
    fixed = INTENSITY_FIXES.get((parent, line["gammaEnergy"]))
    return (line["gammaIntensity"] or 0) * scale if fixed is None else fixed / 100


def flows(parent: str, levels: list[dict], scale: float, fed: np.ndarray) -> np.ndarray:
    """[from, to, (photons, electrons)] per decay of the parent."""
    flow = np.zeros((len(levels), len(levels), 2))
    hidden = []
    for i, level in enumerate(levels):
        # Seen by its neighbours only: the ways out share alike, and there is but one in all cases that matter.
        silent = all(not g["gammaIntensity"] for g in level["gammaDecay"])
        for g in level["gammaDecay"]:
            to, alpha = g["levelIndexFinal"], g["calculatedTotalInternalConversionCoefficient"] or 0.0
            seen = 1e-12 if silent else photons(parent, g, scale)
            if g["multipolarity"] == "E0":
                flow[i, to, 1] += seen
                hidden += [(i, to)] if seen == 0 else []
            elif silent and alpha == 0 and g["gammaEnergy"] < 100:  # unknown, and converted for sure
                flow[i, to, 1] += seen
            else:
                flow[i, to] += seen * np.array([1.0, alpha])
    # An E0 transition has no photons: where its intensity is not given, it takes what its level lacks.
    for i, to in sorted(hidden, reverse=True):
        missing = fed[i] + flow[:, i].sum() - flow[i].sum()
        flow[i, to, 1] += missing if missing > THRESHOLD else 0.0
    return flow


def exits(flow: np.ndarray) -> np.ndarray:
    total = flow.sum((1, 2), keepdims=True)
    return np.divide(flow, total, out=np.zeros_like(flow), where=total > 0)


def traffic(fed: np.ndarray, ways: np.ndarray) -> np.ndarray:
    return np.linalg.solve(np.eye(len(fed)) - ways.sum(2).T, fed)


def rebase(levels: list[dict], ground_keV: float) -> list[dict]:
    """The levels above an isomer, counted from it."""
    first = next(i for i, lv in enumerate(levels) if level_keV(lv) == ground_keV and not lv["levelEnergyIsKnown"])
    kept = levels[first:]
    for level in kept:
        level["levelEnergy"], level["levelEnergyIsKnown"] = level_keV(level) - ground_keV, True
        for g in level["gammaDecay"]:
            g["levelIndexFinal"] = max(g["levelIndexFinal"] - first, 0)
    kept[0]["gammaDecay"] = []
    return kept


def balanced(parent: str, energies: np.ndarray, q_keV: float, flow: np.ndarray, fed: list) -> list:
    """Feeding of each level (beta-) from what leaves it and what enters it from above."""
    feeding = np.maximum(flow.sum((1, 2)) - flow.sum((0, 2)), 0.0)
    feeding[0] = 0.0
    remainder = list(energies).index(BALANCED[parent])
    feeding[remainder] = 0.0
    feeding[remainder] = 1.0 - feeding.sum()
    kinds = [rows[0][3] if rows else "unknown" for rows in fed]
    return [[("beta-", f, q_keV - e, k)] if f else [] for f, e, k in zip(feeding, energies, kinds, strict=True)]


def daughter(parent: str, data_set: str) -> dict:
    """Levels and branches of one data set, nothing left out yet."""
    data = read(data_set)
    record = data["decaySchemeNormalization"][0]["normalizationRecord"][0]
    branching = record["multiplerBranchingRatio"]
    name, ground_keV = GROUND.get(parent, (data["daughterID"], 0.0))
    decay = data["parentDecay"][0]
    head_keV = float(decay["parentDecayLevelEnergyThreshold"] or decay["parentDecayLevelEnergy"] or 0.0)
    q_keV = decay["valueQ"] + head_keV - ground_keV
    levels = rebase(data["levelScheme"], ground_keV) if ground_keV else data["levelScheme"]
    energies = np.array([level_keV(lv) for lv in levels])
    fed = [feedings(lv, q_keV, branching) for lv in levels]
    flow = flows(parent, levels, record["multiplerPhotonIntensity"] * branching / 100, sums(fed))
    if parent in BALANCED:
        fed = balanced(parent, energies, q_keV, flow, fed)
    for i, e in enumerate(energies):
        if (parent, e) in BREAKUP:
            flow[i] = 0.0
    return {
        "name": name,
        "z": data["daughterAtomicNumber"],
        "a": data["daughterAtomicMass"],
        "q_keV": q_keV,
        "energies": energies,
        "flow": flow,
        "fed": fed,
        "branching": branching,
        "half_life_s": decay["halfLife"][0]["halfLifeConverted"],
        "parent": (data["parentAtomicNumber"], data["parentAtomicMass"]),
    }


def thin(scheme: dict) -> dict:
    """The same without weak levels and branches and dead ends."""
    energies, flow, fed = scheme["energies"], scheme["flow"], scheme["fed"]
    while True:
        ways = exits(flow)
        keep = (traffic(sums(fed), ways) >= THRESHOLD) & (ways.sum((1, 2)) > 0)
        keep[0] = True  # the ground
        if keep.all():
            break
        energies, flow = energies[keep], flow[keep][:, keep]
        fed = [rows for rows, k in zip(fed, keep, strict=True) if k]
    fed = [[r for r in rows if r[1] >= THRESHOLD] for rows in fed]
    return {**scheme, "energies": energies, "ways": ways, "fed": fed}


def level_rows(scheme: dict) -> list:
    rows = []
    for energy, ways in zip(scheme["energies"], scheme["ways"], strict=True):
        out = [[to, figures(g), figures(e)] for to, (g, e) in enumerate(ways) if g + e > 0]
        rows.append([round(energy / 1000, 6), out])
    return rows


def figures(number: float) -> float:
    return float(f"{number:.8g}")


def nuclide(name: str) -> dict:
    whole = [daughter(name, d) for d in DATA_SETS[name]]
    thinned = [thin(s) for s in whole]
    total = sum(sums(s["fed"]).sum() for s in thinned)
    everything = sum(sums(s["fed"]).sum() for s in whole)
    unlisted = 1.0 - sum(s["branching"] for s in whole) if len(whole) == 1 else 0.0
    entries = []
    for s in thinned:
        branches = [
            [mode, i, figures(p / total), round(t / 1000, 6), kind]
            for i, rows in enumerate(s["fed"])
            for mode, p, t, kind in rows
        ]
        entry = {k: s[k] for k in ("name", "z", "a")} | {"q_MeV": round(s["q_keV"] / 1000, 6)}
        entry |= {"shape": SHAPES[name]} if name in SHAPES else {}
        entries.append(entry | {"levels": level_rows(s), "branches": branches})
    z, a = whole[0]["parent"]
    head = {"z": z, "a": a, "half_life_s": figures(whole[0]["half_life_s"])}
    head |= {"left_out": float(f"{max(everything - total, 0.0) + unlisted:.2g}"), "note": NOTES.get(name, "")}
    return head | {"daughters": entries}


def rows(items: list, indent: str) -> str:
    return "[\n" + ",\n".join(indent + json.dumps(i, separators=(",", ":")) for i in items) + "]"


def text(table: dict) -> str:
    """JSON with one level or one branch a line."""
    blocks = []
    for name, n in table["nuclides"].items():
        daughters = []
        for d in n["daughters"]:
            head = json.dumps({k: v for k, v in d.items() if k not in ("levels", "branches")})[:-1]
            levels, branches = rows(d["levels"], "    "), rows(d["branches"], "    ")
            daughters.append(f'   {head},\n    "levels": {levels},\n    "branches": {branches}}}')
        head = json.dumps({k: v for k, v in n.items() if k != "daughters"})[:-1]
        blocks.append(f'  "{name}": {head}, "daughters": [\n' + ",\n".join(daughters) + "]}")
    head = json.dumps({k: v for k, v in table.items() if k not in ("nuclides", "chains")}, indent=1)[:-2]
    chains = ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in table["chains"].items())
    return f'{head},\n "chains": {{\n{chains}}},\n "nuclides": {{\n' + ",\n".join(blocks) + "}}\n"


def main() -> None:
    table = {
        "format": 1,
        "source": "ENSDF (https://www.nndc.bnl.gov/ensdf), September 2023, by paceENSDF 0.6.3; scripts/make_decays.py",
        "columns": {
            "levels": "[energy_MeV, [[to level, probability of a photon, probability of an electron], ...]]",
            "branches": "[mode, level, probability, kinetic energy or endpoint in MeV, forbiddenness]",
        },
        "threshold": THRESHOLD,
        "chains": CHAINS,
        "nuclides": {name: nuclide(name) for name in DATA_SETS},
    }
    OUT.write_text(text(table), encoding="utf-8")
    json.loads(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

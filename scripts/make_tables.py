"""Write the tables in src/nuebar/experiments from their public sources. Run again when a source changes.

Needs ``pip install dayabay-data-official`` (the Daya Bay full data release, CC BY 4.0).
"""

import bz2
import io
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from nuebar.physics import ibd, reactor  # noqa: E402

OUT = Path(__file__).parents[1] / "src" / "nuebar" / "experiments"
RELEASE = "Daya Bay Collaboration, Full Data Release, v1.0.0, doi:10.5281/zenodo.17587229 (CC BY 4.0)"

# F. P. An et al. (Daya Bay), "Comprehensive measurement of the reactor antineutrino spectrum and flux", ancillary
# file of the unfolded spectra, block "Total": low edge, high edge (MeV), IBD yield and error (1e-43 cm2/fission/MeV).
DAYA_BAY_TOTAL = np.array(
    [
        [1.80, 2.05, 0.3028, 0.0464],
        [2.05, 2.30, 0.6054, 0.0223],
        [2.30, 2.55, 0.9189, 0.0218],
        [2.55, 2.80, 1.2011, 0.0245],
        [2.80, 3.05, 1.4072, 0.0245],
        [3.05, 3.30, 1.6098, 0.0254],
        [3.30, 3.55, 1.7275, 0.0260],
        [3.55, 3.80, 1.7359, 0.0254],
        [3.80, 4.05, 1.7510, 0.0254],
        [4.05, 4.30, 1.6662, 0.0240],
        [4.30, 4.55, 1.5387, 0.0225],
        [4.55, 4.80, 1.3363, 0.0208],
        [4.80, 5.05, 1.2435, 0.0188],
        [5.05, 5.30, 1.1513, 0.0183],
        [5.30, 5.55, 1.0182, 0.0168],
        [5.55, 5.80, 0.9066, 0.0156],
        [5.80, 6.05, 0.7635, 0.0150],
        [6.05, 6.30, 0.6383, 0.0140],
        [6.30, 6.55, 0.4814, 0.0118],
        [6.55, 6.80, 0.3975, 0.0109],
        [6.80, 7.05, 0.3210, 0.0113],
        [7.05, 7.30, 0.2043, 0.0099],
        [7.30, 7.55, 0.1547, 0.0105],
        [7.55, 7.80, 0.1042, 0.0090],
        [7.80, 9.50, 0.0211, 0.0014],
    ]
)
# Average fission fractions of that measurement (same paper).
DAYA_BAY_FRACTIONS = {"U235": 0.564, "U238": 0.076, "Pu239": 0.304, "Pu241": 0.056}


def write(name: str, comments: list[str], columns: list[str], rows: np.ndarray) -> None:
    lines = [f"# {c}" for c in comments] + [",".join(columns)]
    lines += [",".join(f"{x:.6g}" for x in row) for row in rows]
    (OUT / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def daya_bay(kind: str, part: str) -> np.ndarray:
    path = files("dayabay_data_official") / "data" / "tsv" / f"{kind}.tsv" / f"{kind}_{part}.tsv.bz2"
    text = bz2.BZ2Decompressor().decompress(path.read_bytes()).decode()
    return np.loadtxt(io.StringIO(text), skiprows=1)


def nonlinearity() -> None:
    curves = [daya_bay("detector_lsnl_curves", p) for p in ("nominal", "pull0", "pull1", "pull2", "pull3")]
    e = curves[0][:, 0]
    keep = (e < 1.8) | (np.arange(e.size) % 8 == 0) | (np.arange(e.size) == e.size - 1)
    rows = np.column_stack([e, *[c[:, 1] for c in curves]])[keep]
    write(
        "positron_nonlinearity.csv",
        [
            "Positron non-linearity E_vis / E_dep against E_dep (kinetic energy + 2 x 511 keV), "
            "nominal and pull curves.",
            f"Source: {RELEASE}, detector_lsnl_curves, thinned; described in NIM A 940, 230 (2019).",
        ],
        ["e_dep_MeV", "nominal", "pull1", "pull2", "pull3", "pull4"],
        rows,
    )


def corrections() -> None:
    grid = np.round(np.arange(1.8, 4.51, 0.1), 2)
    columns = [np.interp(grid, *daya_bay("nonequilibrium_correction", i).T) for i in ("U235", "Pu239", "Pu241")]
    rows = np.column_stack([grid, columns[0], np.zeros_like(grid), columns[1], columns[2]])
    write(
        "nonequilibrium.csv",
        [
            "Relative addition of fission products that are not in equilibrium in the measured spectra, per isotope.",
            f"Source: {RELEASE}, nonequilibrium_correction, thinned; Th. Mueller et al., PRC 83, 054615 (2011).",
        ],
        ["e_nu_MeV", "U235", "U238", "Pu239", "Pu241"],
        rows,
    )
    grid = np.round(np.arange(1.8, 3.71, 0.1), 2)
    mean = np.mean([np.interp(grid, *daya_bay("snf_correction", f"R{k}").T, right=0) for k in range(1, 7)], axis=0)
    write(
        "spent_fuel.csv",
        [
            "Relative addition of spent nuclear fuel, mean of the six Daya Bay cores.",
            f"Source: {RELEASE}, snf_correction, thinned.",
        ],
        ["e_nu_MeV", "ratio"],
        np.column_stack([grid, mean]),
    )


def daya_bay_shape() -> None:
    """Measured over Huber-Mueller x Vogel-Beacom, bin by bin, at the yield-weighted mean energy of each bin."""
    centre, ratio = [], []
    for low, high, value, _ in DAYA_BAY_TOTAL:
        e = np.linspace(low, high, 501)
        mix = sum(f * np.asarray(reactor.huber_mueller(e, i)) for i, f in DAYA_BAY_FRACTIONS.items())
        y = mix * np.asarray(ibd.cross_section_vogel_beacom(e)) * 1e43
        centre.append(np.trapezoid(e * y, e) / np.trapezoid(y, e))
        ratio.append(value * (high - low) / np.trapezoid(y, e))
    source = [
        "Source: F. P. An et al. (Daya Bay), unfolded total IBD yield (ancillary file), "
        "over Huber-Mueller x Vogel-Beacom",
        "at the fission fractions 0.564 : 0.076 : 0.304 : 0.056 of that measurement (scripts/make_tables.py).",
    ]
    write(
        "daya_bay_shape.csv",
        ["Reactor spectrum, bump and yield: measured over model.", *source],
        ["e_nu_MeV", "ratio"],
        np.column_stack([centre, ratio]),
    )
    prompt = np.array(centre) - 0.7823
    relative = DAYA_BAY_TOTAL[:, 3] / DAYA_BAY_TOTAL[:, 2]
    title = "Relative error of the unfolded Daya Bay spectrum against prompt energy (E_nu - 0.782 MeV)."
    write(
        "daya_bay_shape_error.csv",
        [title, source[0]],
        ["e_MeV", "relative"],
        np.column_stack([prompt, relative]),
    )


def tao() -> None:
    rows = np.array([[1.5, 0.028], [2, 0.014], [3, 0.0094], [4, 0.012], [5, 0.017], [6, 0.027], [7, 0.045]])
    write(
        "tao_shape.csv",
        [
            "Bin-to-bin uncertainty of the reactor spectrum expected from TAO, for 20 keV bins, against prompt energy.",
            "Source: JUNO common inputs 2022, seven values read from its TAO-based model (arXiv:2204.13249).",
        ],
        ["e_MeV", "relative"],
        rows,
    )


if __name__ == "__main__":
    nonlinearity()
    corrections()
    daya_bay_shape()
    tao()

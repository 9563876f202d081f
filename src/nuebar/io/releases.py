"""Public data releases and users' own spectra and tables, read into checked records.

* :func:`read_juno_2025`: JUNO's source data of "First measurement of reactor neutrino oscillations at JUNO"
  (arXiv:2511.14593, Nature 654, 343) and of its detector paper (arXiv:2511.14590).
* :func:`read_common_inputs`: JUNO's common inputs of 2022-01-06, one ROOT file behind the sensitivity papers
  arXiv:2204.13249 and arXiv:2405.18008.
* :func:`read_spectrum` and :func:`read_table`: files of the user.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import TextTable, read_bytes, read_text_table
from nuebar.io.histograms import Histogram
from nuebar.io.root import open_root

# How far two printed bin edges may differ and still be the same edge; files print 0.01 MeV or finer.
_EDGE_TOLERANCE_MeV = 1e-6

# --- records ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Record:
    """A record whose arrays cannot be written to."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for array in value.values() if isinstance(value, Mapping) else (value,):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Table(_Record):
    """A sampled function y(x), x strictly increasing; both of shape (points,)."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class NonlinearityCurve(_Record):
    """Visible over true energy with an asymmetric band; every array has shape (points,).

    Attributes:
        energy_MeV: True energy; for positrons the deposited energy, annihilation included (it starts at 2
            m_e).
        ratio: Visible over true energy.
        error_low: Distance from the ratio down to the band's lower edge, positive.
        error_high: Distance from the ratio up to the band's upper edge, positive.
    """

    energy_MeV: np.ndarray
    ratio: np.ndarray
    error_low: np.ndarray
    error_high: np.ndarray


@dataclass(frozen=True, eq=False)
class GammaPoints(_Record):
    """Measured scintillation non-linearity of calibration gammas; every array has shape (points,).

    Attributes:
        energy_MeV: Effective gamma energy: the mean energy per gamma of a source that emits several.
        ratio: Visible over true energy.
        error: Uncertainty of the ratio.
    """

    energy_MeV: np.ndarray
    ratio: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class ResolutionPoints(_Record):
    """Measured energy resolution of calibration peaks; every array has shape (points,).

    Attributes:
        names: Peaks, such as ``Cs137`` or ``n-H``.
        e_rec_MeV: Reconstructed energy of the peak.
        percent: Resolution sigma / E in percent.
        percent_error: Uncertainty of ``percent``.
    """

    names: tuple[str, ...]
    e_rec_MeV: np.ndarray
    percent: np.ndarray
    percent_error: np.ndarray


@dataclass(frozen=True, eq=False)
class Juno2025Release(_Record):
    """JUNO's release of 2025 (59.1 days); spectra are counts per bin in 66 bins of visible prompt energy.

    Attributes:
        edges_MeV: Bin edges, shape (67,).
        counts: Observed events, whole numbers, shape (66,).
        prediction: Best fit with backgrounds, shape (66,).
        signal: Best fit without backgrounds, shape (66,).
        backgrounds: Best-fit backgrounds ``li9_he8``, ``geoneutrinos``, ``world_reactors``, ``bipo``,
            ``other``, each of shape (66,).
        survival: (counts - backgrounds) / unoscillated, shape (66,).
        survival_error: Its statistical error, sqrt(counts) / unoscillated, shape (66,).
        unoscillated: Signal expected without oscillation, shape (66,). It is not in the release; see
            :func:`read_juno_2025`.
        unoscillated_error: Its standard error from the rounding of the release's numbers, shape (66,).
        positron: Full non-linearity of positrons.
        electron: Full non-linearity of electrons.
        gamma: Full non-linearity of gammas.
        gamma_scintillation: Best fit to ``gamma_points``: scintillation only, without the electronics,
            against the effective gamma energy in MeV.
        gamma_points: Nine measured gamma sources.
        resolution: Eight measured peaks.
    """

    edges_MeV: np.ndarray
    counts: np.ndarray
    prediction: np.ndarray
    signal: np.ndarray
    backgrounds: dict[str, np.ndarray]
    survival: np.ndarray
    survival_error: np.ndarray
    unoscillated: np.ndarray
    unoscillated_error: np.ndarray
    positron: NonlinearityCurve
    electron: NonlinearityCurve
    gamma: NonlinearityCurve
    gamma_scintillation: Table
    gamma_points: GammaPoints
    resolution: ResolutionPoints


@dataclass(frozen=True, eq=False)
class CommonInputs(_Record):
    """JUNO's common inputs of 2022.

    The file keeps sampled functions as histograms. Their abscissa here is the **bin centre**, which the file
    itself decides. Read at the centres, each spectrum is the log-linear interpolation of the printed tables,
    to the last of their three digits (235U at 3 MeV: 0.651000; at the low edges it would be 0.6499); both
    cross-sections are zero below the threshold of 1.8061 MeV and positive above; and the interpolation knots
    of the positron curve lie at 2 m_e + 12 keV n.

    Attributes:
        isotope_spectra: Huber and Mueller antineutrinos per MeV and fission of ``U235``, ``U238``, ``Pu239``,
            ``Pu241`` against E_nu in MeV; an interpolation of the printed tables, not the exponential
            polynomials, from which it differs by 1-3 % (r.m.s.) below 6 MeV, twice that below 8 MeV, and
            entirely above.
        dayabay_spectrum: The same for Daya Bay's average fission fractions, with its measured bump.
        bump_ratio: Daya Bay's measured flux over prediction against E_nu in MeV.
        ibd_cross_sections: ``vogel_beacom`` and ``strumia_vissani``, total, in cm2 against E_nu in MeV.
        positron_nonlinearity: Visible over deposited energy against deposited energy in MeV.
        positron_nonlinearity_pulls: Four curves at one standard deviation of a pull each.
        gamma_nonlinearity: The same of gammas.
        spent_fuel_ratio: Flux of spent fuel over reactor flux against E_nu in MeV. Its knots are smeared over
            three bins, so for this one table the file fixes the abscissa only to about 4 keV, 1e-4 of the
            reactor flux.
        non_equilibrium_ratio: Flux of the non-equilibrium correction over reactor flux against E_nu in MeV.
        backgrounds: Events per day and bin of visible energy after selection: ``accidentals``,
            ``fast_neutrons``, ``li9_he8``, ``alpha_n``, ``geoneutrinos_U``, ``geoneutrinos_Th``,
            ``world_reactors`` (beyond 300 km) and ``atmospheric_nc`` (GENIE2): the whole set, 4.11 a day.
        alternatives: Other models of members of that set: ``atmospheric_nc_nuwro`` and
            ``world_reactors_2000_km`` (beyond 2000 km only). Never to be added to ``backgrounds``.
        shape_uncertainties: Relative uncertainty of each bin, uncorrelated between bins, as ``counts`` of a
            histogram: ``tao``, ``yellow_book``, ``dayabay``, ``model``.
    """

    isotope_spectra: dict[str, Table]
    dayabay_spectrum: Table
    bump_ratio: Table
    ibd_cross_sections: dict[str, Table]
    positron_nonlinearity: Table
    positron_nonlinearity_pulls: tuple[Table, ...]
    gamma_nonlinearity: Table
    spent_fuel_ratio: Table
    non_equilibrium_ratio: Table
    backgrounds: dict[str, Histogram]
    alternatives: dict[str, Histogram]
    shape_uncertainties: dict[str, Histogram]


# --- JUNO 2025 ----------------------------------------------------------------------------------------------

_SPECTRUM, _RATIO = "fig3_panel_a_data.csv", "fig3_panel_c_data.csv"
_BACKGROUND_COLUMNS = {
    "li9_he8": "Npred_9Li8He",
    "geoneutrinos": "Npred_Geonu",
    "world_reactors": "Npred_WorldRea",
    "bipo": "Npred_Bipo",
    "other": "Npred_OtherBkg",
}
# The spectrum is printed per 0.1 MeV of bin width.
_UNIT_WIDTH_MeV = 0.1
# Half of the last printed digit. The observed events have a second decimal that is always zero: they were
# rounded to one, and a wide bin needs the error column to give back a whole number (the last bin, 26 times as
# wide, prints 0.30). The errors were rounded twice, so they may be half a third decimal higher: sqrt(39) is
# printed as 6.25.
_HALF_COUNT, _HALF_SPECTRUM, _HALF_RATIO, _TWICE = 0.05, 0.005, 0.0005, 0.0005
# Columns of the released spectrum add up to 0.05; more than this is not rounding.
_SUM_TOLERANCE = 0.1
# A sum of numbers with uniform rounding errors has the standard error half / sqrt(3) for each.
_UNIFORM = 1.0 / np.sqrt(3.0)


def read_juno_2025(folder: str | os.PathLike[str]) -> Juno2025Release:
    """Read JUNO's 2025 release.

    The observed counts are the one whole number per bin that both the printed density and its printed error,
    sqrt(N), allow. The unoscillated prediction U is what the release implies twice: survival_error = sqrt(N)
    / U and survival = (N - B) / U with the background B. Both are known to the rounding of the printed digits
    only; they must agree within it, and ``unoscillated`` is their mean with inverse squared rounding errors
    as weights.

    Args:
        folder: The folder with the release's CSV files under their own names.

    Returns:
        The release.

    Raises:
        NuebarError: A file is missing, cut short or changed; the file, line and column are named.
    """
    place = Path(folder)
    if not place.is_dir():
        raise NuebarError(f"{place}: expected the folder of JUNO's 2025 release, found none; check the path")
    with np.errstate(all="ignore"):  # a huge number in a damaged file fails the checks, as NaN does
        return _read_juno_2025(place)


def _read_juno_2025(place: Path) -> Juno2025Release:
    spectrum = _release_table(
        place / _SPECTRUM,
        ("Ec", "Ewid", "Nobs", "Nobs_err", "Npred_best_fit", "Npred_signal", *_BACKGROUND_COLUMNS.values()),
        66,
    )
    ratio = _release_table(place / _RATIO, ("Ec", "Ewid", "Pee_meas", "Pee_err_meas"), 66)
    edges = _release_edges(spectrum)
    if not np.array_equal(edges, _release_edges(ratio)):
        ratio.fail(None, "Ec", f"expected the bins of {_SPECTRUM}, got others; take both files from one release")
    scale = np.diff(edges) / _UNIT_WIDTH_MeV
    counts = _whole_counts(spectrum, scale)
    density = _densities(spectrum)
    backgrounds = {name: density[column] * scale for name, column in _BACKGROUND_COLUMNS.items()}
    survival, survival_error = ratio.numbers("Pee_meas"), _positive(ratio, "Pee_err_meas")
    unoscillated, unoscillated_error = _unoscillated(ratio, counts, np.sum(list(backgrounds.values()), axis=0), scale)
    return Juno2025Release(
        edges_MeV=edges,
        counts=counts,
        prediction=density["Npred_best_fit"] * scale,
        signal=density["Npred_signal"] * scale,
        backgrounds=backgrounds,
        survival=survival,
        survival_error=survival_error,
        unoscillated=unoscillated,
        unoscillated_error=unoscillated_error,
        positron=_curve(place / "edfig2_positron_FullNL.csv", 458),
        electron=_curve(place / "edfig2_electron_FullNL.csv", 500),
        gamma=_curve(place / "edfig2_gamma_FullNL.csv", 18),
        gamma_scintillation=_scintillation(place / "edfig2_gamma_ScintNL_bestfit.csv"),
        gamma_points=_gamma_points(place / "edfig2_gamma_ScintNL_data.csv"),
        resolution=_resolution(place / "calibration_source_energy_resolution.csv"),
    )


def _release_table(path: Path, columns: Sequence[str], rows: int) -> TextTable:
    table = read_text_table(path, columns)
    if len(table.rows) != rows:
        table.fail(None, None, f"expected the release's {rows} rows, got {len(table.rows)}; fetch the file again")
    # The last cell of a file cut inside it would still be a number.
    if not read_bytes(path).endswith(b"\n"):
        table.fail(table.lines[-1], None, "expected a line end, got the end of the file; fetch the file again")
    return table


def _positive(table: TextTable, column: str) -> np.ndarray:
    values = table.numbers(column)
    table.require(values > 0, column, "expected a number above 0, got zero or less; correct the cell")
    return values


def _increasing(table: TextTable, column: str) -> np.ndarray:
    values = _positive(table, column)
    rises = np.diff(values, prepend=0.0) > 0
    table.require(rises, column, "expected energies in increasing order, got a step back; sort the rows")
    return values


def _release_edges(table: TextTable) -> np.ndarray:
    centre, width = table.numbers("Ec"), _positive(table, "Ewid")
    edges = _joined_edges(table, centre - width / 2, centre + width / 2, "Ec")
    # Takes back the error of centre +- width/2: edges print, and compare, as 0.7 and 1.0.
    return np.round(edges, 9)


def _joined_edges(table: TextTable, low: np.ndarray, high: np.ndarray, column: str) -> np.ndarray:
    table.require(high > low, column, "expected a bin with its low edge below its high edge, got another; swap them")
    joined = np.concatenate([[True], np.abs(low[1:] - high[:-1]) <= _EDGE_TOLERANCE_MeV])
    message = "expected a bin that begins where the row above ends, got a gap or an overlap; complete the rows"
    table.require(joined, column, message)
    return np.concatenate([low[:1], high])


def _whole_counts(table: TextTable, scale: np.ndarray) -> np.ndarray:
    density, error = table.numbers("Nobs"), table.numbers("Nobs_err")
    table.require(density >= 0, "Nobs", "expected counts of at least 0, got a negative number; correct the cell")
    nearest = np.round(density * scale)
    candidates = nearest[:, None] + np.arange(-2.0, 3.0)
    root = np.sqrt(np.clip(candidates, 0.0, None)) / scale[:, None]
    good = np.abs(candidates / scale[:, None] - density[:, None]) <= _HALF_COUNT + 1e-9
    excess = root - error[:, None]
    good &= (excess >= -_HALF_SPECTRUM - _TWICE) & (excess <= _HALF_SPECTRUM)
    good &= candidates >= 0
    message = "expected one whole number N with Nobs and Nobs_err = sqrt(N) in the bin, got {}; correct the cells"
    table.require(good.sum(axis=1) > 0, "Nobs", message.format("none"))
    table.require(good.sum(axis=1) < 2, "Nobs", message.format("several"))
    return candidates[good].astype(np.int64)


def _densities(table: TextTable) -> dict[str, np.ndarray]:
    columns = ("Npred_best_fit", "Npred_signal", *_BACKGROUND_COLUMNS.values())
    density = {column: table.numbers(column) for column in columns}
    for column, values in density.items():
        table.require(values >= 0, column, "expected events of at least 0, got a negative number; correct the cell")
    difference = density["Npred_best_fit"] - sum(density[column] for column in columns[1:])
    message = "expected the sum of the signal and the backgrounds, got another number; correct the row"
    table.require(np.abs(difference) <= _SUM_TOLERANCE, "Npred_best_fit", message)
    return density


def _unoscillated(
    table: TextTable, counts: np.ndarray, background: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """U and its rounding error from sqrt(N) / error and from (N - B) / ratio, shapes (bins,)."""
    ratio, error = table.numbers("Pee_meas"), table.numbers("Pee_err_meas")
    signal, root = counts - background, np.sqrt(counts)
    half_background = _HALF_SPECTRUM * scale * len(_BACKGROUND_COLUMNS)
    # Equal to U ratio = N - B and U error = sqrt(N), each within half of a printed digit.
    message = "expected the non-oscillated spectrum that Pee_err_meas implies, got another; correct the row"
    from_error = root / error
    slack = half_background + _HALF_RATIO * from_error + np.abs(ratio) * _HALF_RATIO * from_error / error
    table.require((counts == 0) | (np.abs(from_error * ratio - signal) <= slack), "Pee_meas", message)
    variance_error = (_UNIFORM * _HALF_RATIO * from_error / error) ** 2
    from_ratio = signal / ratio
    background_error = _UNIFORM * _HALF_SPECTRUM * scale * np.sqrt(len(_BACKGROUND_COLUMNS))
    variance_ratio = (background_error**2 + (_UNIFORM * _HALF_RATIO * from_ratio) ** 2) / ratio**2
    # A bin without events says nothing through its error, one at ratio zero nothing through its ratio.
    weight_error = np.divide(1.0, variance_error, out=np.zeros_like(root), where=root > 0)
    weight_ratio = np.divide(1.0, variance_ratio, out=np.zeros_like(root), where=(ratio != 0) & (from_ratio > 0))
    weight = weight_error + weight_ratio
    table.require(weight > 0, "Pee_meas", "expected a ratio that tells the non-oscillated spectrum, got none there")
    from_ratio = np.where(weight_ratio > 0, from_ratio, 0.0)
    result, rounding = (weight_error * from_error + weight_ratio * from_ratio) / weight, 1.0 / np.sqrt(weight)
    table.require(np.isfinite(result) & np.isfinite(rounding) & (result > 0), "Pee_meas", message)
    return result, rounding


def _curve(path: Path, rows: int) -> NonlinearityCurve:
    table = _release_table(path, ("True E (MeV)", "Full NL", "Error Low", "Error High"), rows)
    low = table.numbers("Error Low")
    table.require(low <= 0, "Error Low", "expected a lower error of at most 0, got a positive one; check the columns")
    high = table.numbers("Error High")
    table.require(
        high >= 0,
        "Error High",
        "expected an upper error of at least 0, got a negative one; check the columns",
    )
    return NonlinearityCurve(_increasing(table, "True E (MeV)"), _positive(table, "Full NL"), -low, high)


def _scintillation(path: Path) -> Table:
    table = _release_table(path, ("Eff. gamma E (MeV)", "Scint. NL"), 18)
    return Table(_increasing(table, "Eff. gamma E (MeV)"), _positive(table, "Scint. NL"))


def _gamma_points(path: Path) -> GammaPoints:
    table = _release_table(path, ("Eff. gamma E (MeV)", "Scint. NL", "Error"), 9)
    return GammaPoints(
        _increasing(table, "Eff. gamma E (MeV)"), _positive(table, "Scint. NL"), _positive(table, "Error")
    )


def _resolution(path: Path) -> ResolutionPoints:
    columns = ("peak_type", "E_rec (MeV)", "resolution (%)", "resolution error (%)")
    table = _release_table(path, columns, 8)
    return ResolutionPoints(
        table.text(columns[0]),
        _increasing(table, columns[1]),
        _positive(table, columns[2]),
        _positive(table, columns[3]),
    )


# --- JUNO common inputs 2022 --------------------------------------------------------------------------------

_ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
_CROSS_SECTIONS = {"vogel_beacom": "IBDXsec_VogelBeacom_DYB", "strumia_vissani": "IBDXsec_StrumiaVissani"}
_BACKGROUNDS = {
    "accidentals": "AccBkgHistogramAD",
    "fast_neutrons": "FnBkgHistogramAD",
    "li9_he8": "Li9BkgHistogramAD",
    "alpha_n": "AlphaNBkgHistogramAD",
    "geoneutrinos_U": "GeoNuU238",
    "geoneutrinos_Th": "GeoNuTh232",
    "world_reactors": "OtherReactorSpectrum_L300km",
    "atmospheric_nc": "AtmosphericNeutrinoModelGENIE2",
}
_ALTERNATIVES = {
    "atmospheric_nc_nuwro": "AtmosphericNeutrinoModelNuWroN4",
    "world_reactors_2000_km": "OtherReactorSpectrum",
}
_SHAPE_UNCERTAINTIES = {
    "tao": "TAOUncertainty",
    "yellow_book": "YBUncertainty",
    "dayabay": "DYBUncertainty",
    "model": "ModelUncertainty",
}


def read_common_inputs(path: str | os.PathLike[str]) -> CommonInputs:
    """Read JUNO's common inputs of 2022 from their ROOT file.

    Args:
        path: ``JUNOInputs2022_01_06_noTF2.root`` or a file with the same histograms.

    Returns:
        Fluxes, cross-sections, detector response, backgrounds and shape uncertainties; the small-PMT versions
        and the response matrices of TAO in the file are not read.

    Raises:
        NuebarError: The file is missing, not a whole ROOT file, or lacks a histogram; or uproot is not
            installed.
    """
    with open_root(path) as file:

        def histograms(keys: Mapping[str, str]) -> dict[str, Histogram]:
            return {name: _root_histogram(path, file, key, name) for name, key in keys.items()}

        def table(key: str) -> Table:
            histogram = _root_histogram(path, file, key, key)
            return Table(histogram.centres, histogram.counts)

        return CommonInputs(
            isotope_spectra={name: table(f"HuberMuellerFlux_{name}") for name in _ISOTOPES},
            dayabay_spectrum=table("HuberMuellerFlux_DYBbumpFixed"),
            bump_ratio=table("DYBFluxBump_ratio"),
            ibd_cross_sections={name: table(key) for name, key in _CROSS_SECTIONS.items()},
            positron_nonlinearity=table("positronScintNL"),
            positron_nonlinearity_pulls=tuple(table(f"positronScintNLpull{i}") for i in range(4)),
            gamma_nonlinearity=table("gammaScintNL"),
            spent_fuel_ratio=table("SNF_FluxRatio"),
            non_equilibrium_ratio=table("NonEq_FluxRatio"),
            backgrounds=histograms(_BACKGROUNDS),
            alternatives=histograms(_ALTERNATIVES),
            shape_uncertainties=histograms(_SHAPE_UNCERTAINTIES),
        )


def _root_histogram(path: str | os.PathLike[str], file: Any, key: str, name: str) -> Histogram:
    classes = file.classnames(cycle=False)
    kind = classes.get(key, "nothing")
    if not kind.startswith("TH1"):
        found = ", ".join(sorted(name for name, kind in classes.items() if kind.startswith("TH1"))[:8]) or "none"
        message = f"expected a one-dimensional histogram, got {kind}; the file has {found}"
        raise NuebarError(f"{path}, key {key}: {message}")
    histogram = file[key]
    variances = histogram.variances() if len(histogram.member("fSumw2")) else None
    # Some of JUNO's histograms keep squared errors of zero everywhere, which would mean known exactly.
    weighted = variances is not None and np.any(variances > 0)
    try:
        return Histogram(
            histogram.axis().edges(),
            histogram.values(),
            variances if weighted else None,
            name,
        )
    except NuebarError as error:
        raise NuebarError(f"{path}, key {key}: {error}") from error


# --- files of the user --------------------------------------------------------------------------------------


def read_spectrum(path: str | os.PathLike[str]) -> Histogram:
    """Read a user's binned spectrum, in MeV.

    Args:
        path: One of
            a text file whose header names the columns ``low_MeV``, ``high_MeV``, ``counts`` and, if wanted,
            ``variance``, separated by commas or blanks, with comments after ``#``;
            a ``.json`` file in the UHI format, as :meth:`Histogram.save` and ``hist`` write it;
            ``file.root:key``, a TH1 of a ROOT file, where ``:key`` may be left out if the file holds one TH1
            only.

    Returns:
        The spectrum. Counts are not negative, and bins follow each other without a gap.

    Raises:
        NuebarError: The file, line, column or key that is wrong.
    """
    text = os.fspath(path)
    if root := re.fullmatch(r"(.*\.root)(?::(.+))?", text):
        return _root_spectrum(root[1], root[2])
    if text.endswith(".json"):
        return Histogram.load(text)
    table = read_text_table(text, ("low_MeV", "high_MeV", "counts"), optional=("variance",))
    with np.errstate(all="ignore"):
        edges = _joined_edges(table, table.numbers("low_MeV"), table.numbers("high_MeV"), "low_MeV")
    contents = {column: table.numbers(column) for column in ("counts", "variance") if column in table.header}
    for column, values in contents.items():
        table.require(values >= 0, column, "expected a number of at least 0, got a negative one; correct the cell")
    return Histogram(edges, contents["counts"], contents.get("variance"), Path(text).stem)


def _root_spectrum(path: str, key: str | None) -> Histogram:
    with open_root(path) as file:
        if key is None:
            keys = [name for name, kind in file.classnames(cycle=False).items() if kind.startswith("TH1")]
            if len(keys) != 1:
                found = ", ".join(keys[:8]) or "none"
                raise NuebarError(f"{path}: expected one histogram or a key after a colon, got {found}; add ':key'")
            key = keys[0]
        return _root_histogram(path, file, key.split(";")[0], key)


def read_table(path: str | os.PathLike[str], columns: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Read columns of numbers from a user's text file.

    Args:
        path: A text file of two columns or more, separated by commas or blanks, with comments after ``#``.
            With a header line the columns are found by name, in any order; without one they are exactly
            ``columns``.
        columns: Names of the wanted columns, such as ``("e_nu_MeV", "flux")``.

    Returns:
        One float64 array per name, in the order of ``columns``, each of shape (rows,).

    Raises:
        NuebarError: The file, line or column that is wrong.
    """
    table = read_text_table(path, columns, header=False)
    return tuple(table.numbers(column) for column in columns)

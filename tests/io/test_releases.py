import contextlib
import dataclasses
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io import releases
from nuebar.io.histograms import Histogram
from nuebar.io.releases import read_common_inputs, read_juno_2025, read_spectrum, read_table

# The binning of the release: physics paper arXiv:2511.14593, Fig. 3.
EDGES = np.concatenate([[0.7], np.arange(10, 67) / 10, [6.8, 7.0, 7.2, 7.4, 7.7, 8.1, 8.6, 9.4, 12.0]])
SCALE = np.diff(EDGES) / 0.1


# --- a made-up release with a known truth


@dataclasses.dataclass
class Truth:
    counts: np.ndarray
    backgrounds: dict[str, np.ndarray]
    unoscillated: np.ndarray


def write_synthetic_release(folder, seed=1):
    """The release's files, printed and rounded as JUNO does it, for a spectrum that is known exactly."""
    random = np.random.default_rng(seed)
    energy = 0.5 * (EDGES[1:] + EDGES[:-1])
    unoscillated = 170 * SCALE * np.exp(-((energy - 3.2) ** 2) / 4.0) + 0.2
    densities = {name: random.uniform(0.05, 2.0, 66) for name in releases._BACKGROUND_COLUMNS}
    densities["other"][-1] = 0.05
    background = sum(densities.values()) * SCALE
    counts = random.poisson(0.5 * unoscillated) + np.round(background).astype(int) + 1
    counts[-9:] = [24, 21, 19, 15, 13, 15, 14, 18, 8]  # few enough for one decimal to tell the number
    signal = random.uniform(1.0, 30.0, 66)
    rows = ["# A comment", "#", "Ec,Ewid,Nobs,Nobs_err,Npred_best_fit,Npred_signal,Npred_9Li8He,Npred_Geonu,"]
    rows[-1] += "Npred_WorldRea,Npred_Bipo,Npred_OtherBkg"
    ratios = ["# A comment", "Ec,Ewid,Pee_meas,Pee_err_meas"]
    for i, (e, s, n) in enumerate(zip(energy, SCALE, counts, strict=True)):
        parts = [density[i] for density in densities.values()]
        numbers = [round(n / s, 1), np.sqrt(n) / s, signal[i] + sum(parts), signal[i], *parts]
        rows.append(f"{e:.2f},{0.1 * s:.2f}," + ",".join(f"{x:.2f}" for x in numbers))
        ratio = (n - background[i]) / unoscillated[i]
        ratios.append(f"{e:.3f},{0.1 * s:.3f},{ratio:.3f},{np.sqrt(n) / unoscillated[i]:.3f}")
    write(folder / "fig3_panel_a_data.csv", rows)
    write(folder / "fig3_panel_c_data.csv", ratios)
    for name, n in (("positron", 458), ("electron", 500), ("gamma", 18)):
        lines = [f"{0.5 + 0.024 * i:.3f},{1 - 0.1 / (i + 1):.4f} ,-0.0030 ,0.0031 " for i in range(n)]
        write(folder / f"edfig2_{name}_FullNL.csv", ["True E (MeV),Full NL,Error Low,Error High", *lines])
    lines = [f"{0.2 + i},{0.9 + 0.01 * i:.4f} " for i in range(18)]
    write(folder / "edfig2_gamma_ScintNL_bestfit.csv", ["Eff. gamma E (MeV),Scint. NL", *lines])
    lines = [f"{0.5 + i},{0.9 + 0.01 * i:.4f} ,0.0045 ,-0.1" for i in range(9)]
    header = "Eff. gamma E (MeV),Scint. NL,Error,Resi. (sigma)"
    write(folder / "edfig2_gamma_ScintNL_data.csv", [header, *lines])
    lines = [f"peak{i},{0.6 + i},{4 - 0.3 * i:.6f},0.01,," for i in range(8)]
    header = "\ufeffpeak_type,E_rec (MeV),resolution (%),resolution error (%),,"
    write(folder / "calibration_source_energy_resolution.csv", [header, *lines, ",,,,,", ",,,,,"])
    backgrounds = {name: density * SCALE for name, density in densities.items()}
    return Truth(counts, backgrounds, unoscillated)


def write(path, lines):
    path.write_bytes("\r\n".join([*lines, ""]).encode())


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    return folder, write_synthetic_release(folder)


@pytest.fixture
def damaged(synthetic, tmp_path):
    return shutil.copytree(synthetic[0], tmp_path / "release")


def edit(path, change):
    lines = path.read_bytes().decode().split("\r\n")
    write(path, change(lines)[:-1])


def test_the_truth_comes_back(synthetic):
    folder, truth = synthetic
    release = read_juno_2025(folder)
    assert np.array_equal(release.edges_MeV, EDGES)
    assert np.array_equal(release.counts, truth.counts)
    assert release.counts.dtype.kind == "i"
    for name, values in truth.backgrounds.items():
        assert np.all(np.abs(release.backgrounds[name] - values) <= 0.00501 * SCALE)
    assert release.positron.energy_MeV.shape == (458,)
    assert np.all(release.positron.error_low == 0.003)
    assert release.resolution.names[0] == "peak0"
    assert release.gamma_points.energy_MeV.shape == (9,)
    with pytest.raises(ValueError, match="read-only"):
        release.counts[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        release.backgrounds["bipo"][0] = 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_unoscillated_spectrum_is_rebuilt_within_its_rounding_error(tmp_path, seed):
    truth = write_synthetic_release(tmp_path, seed)
    release = read_juno_2025(tmp_path)
    pull = (release.unoscillated - truth.unoscillated) / release.unoscillated_error
    # 66 uniform-like errors: the r.m.s. is 1 +- 0.06, and two uniform errors cannot make 3.
    assert 0.75 < np.sqrt(np.mean(pull**2)) < 1.25
    assert np.max(np.abs(pull)) < 3.0
    assert np.max(release.unoscillated_error / release.unoscillated) < 0.01


def test_a_bin_without_events_uses_its_ratio(damaged, synthetic):
    # N = 0: no error to read U from, but (0 - B) / ratio still tells it, where the ratio is negative.
    path = damaged / "fig3_panel_a_data.csv"
    row = 20
    edit(
        path,
        lambda lines: [*lines[:row], replace_cells(lines[row], {2: "0.00", 3: "0.00"}), *lines[row + 1 :]],
    )
    truth = synthetic[1].unoscillated[row - 3]
    background = sum(values[row - 3] for values in synthetic[1].backgrounds.values())
    change = {2: f"{-background / truth:.3f}", 3: "0.001"}
    path = damaged / "fig3_panel_c_data.csv"
    edit(path, lambda lines: [*lines[: row - 1], replace_cells(lines[row - 1], change), *lines[row:]])
    release = read_juno_2025(damaged)
    assert release.counts[row - 3] == 0
    assert abs(release.unoscillated[row - 3] - truth) < 3 * release.unoscillated_error[row - 3]


def replace_cells(line, changes):
    cells = line.split(",")
    for index, text in changes.items():
        cells[index] = text
    return ",".join(cells)


def cell(row, index, text):
    return lambda lines: [*lines[:row], replace_cells(lines[row], {index: text}), *lines[row + 1 :]]


A, C = "fig3_panel_a_data.csv", "fig3_panel_c_data.csv"
POSITRON, PEAKS = "edfig2_positron_FullNL.csv", "calibration_source_energy_resolution.csv"


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (A, lambda lines: [*lines[:9], *lines[10:]], "expected the release's 66 rows, got 65"),
        (A, lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]], "line 10, column 'Ec': .*a gap or"),
        (A, lambda lines: [*lines[:9], lines[8], *lines[10:]], "line 10, column 'Ec': .*gap or an overlap"),
        (A, lambda lines: [*lines[:9], lines[2], *lines[9:]], "got 67"),
        (A, lambda lines: [line.replace("_Bipo", "_BiPo") for line in lines], "line 3: .*'Npred_Bipo'"),
        (A, cell(9, 0, "1.66"), "line 10, column 'Ec'.*gap or an overlap"),
        (A, cell(9, 1, "0.00"), "line 10, column 'Ewid': expected a number above 0"),
        (A, cell(9, 2, "nan"), "line 10, column 'Nobs': expected a finite number, got 'nan'"),
        (A, cell(9, 2, "-3.00"), "line 10, column 'Nobs': expected counts of at least 0"),
        (A, cell(9, 2, "1e308"), "line 10, column 'Nobs': expected one whole number"),
        (A, cell(9, 3, "60.5"), "line 10, column 'Nobs': expected one whole number.*got none"),
        (A, cell(9, 4, "one"), "line 10, column 'Npred_best_fit'"),
        (A, cell(9, 5, "1000"), "line 10, column 'Npred_best_fit': expected the sum"),
        (A, cell(9, 6, "-0.10"), "line 10, column 'Npred_9Li8He': expected events of at least 0"),
        (C, cell(9, 2, "9.9"), "line 10, column 'Pee_meas': expected the non-oscillated"),
        (C, cell(9, 2, "1e308"), "line 10, column 'Pee_meas': expected the non-oscillated"),
        (C, cell(9, 3, "0.000"), "line 10, column 'Pee_err_meas': expected a number above 0"),
        (C, lambda lines: lines[:40], "expected the release's 66 rows"),
        (C, lambda lines: [line.replace("0.850,0.300", "0.8505,0.299") for line in lines], "bins of"),
        (POSITRON, cell(9, 0, "0.1"), "line 10, column 'True E .MeV.': .*increasing order"),
        (POSITRON, cell(9, 2, "0.003"), "line 10, column 'Error Low': .*at most 0"),
        (POSITRON, cell(9, 3, "-0.003"), "line 10, column 'Error High': .*at least 0"),
        (POSITRON, lambda lines: [*lines[:9], lines[9] + ",1", *lines[10:]], "line 10: expected 4 cells.*5"),
        (PEAKS, cell(3, 0, ""), "line 4, column 'peak_type': expected a name"),
        (PEAKS, cell(3, 2, "0"), "line 4, column 'resolution .%.'"),
    ],
)  # fmt: skip
def test_a_damaged_release_is_refused_with_its_place(damaged, file, change, sentence):
    edit(damaged / file, change)
    with pytest.raises(NuebarError, match=f"{file}.*{sentence}"):
        read_juno_2025(damaged)


def test_a_count_that_the_digits_leave_open_is_refused(damaged):
    # In the last bin, 26 times as wide as 0.1 MeV, 26 and 27 events both print 1.0 and 0.20.
    edit(damaged / A, cell(68, 2, "1.00"))
    edit(damaged / A, cell(68, 3, "0.20"))
    with pytest.raises(NuebarError, match=r"line 69, column 'Nobs': .*got several"):
        read_juno_2025(damaged)


def test_a_missing_file_and_a_missing_folder(damaged):
    (damaged / C).unlink()
    with pytest.raises(NuebarError, match=rf"{C}: expected a file, found none"):
        read_juno_2025(damaged)
    with pytest.raises(NuebarError, match="expected the folder"):
        read_juno_2025(damaged / A)


def test_every_cut_of_the_release_is_refused(synthetic, tmp_path):
    for file in (A, C, "edfig2_gamma_ScintNL_data.csv"):
        whole = (synthetic[0] / file).read_bytes()
        target = tmp_path / "release"
        shutil.copytree(synthetic[0], target)
        for size in [0, 1, 17, *range(200, len(whole) - 1, 353), len(whole) - 2]:
            (target / file).write_bytes(whole[:size])
            with pytest.raises(NuebarError, match=file):
                read_juno_2025(target)
        shutil.rmtree(target)


def mutate(data, content):
    """Damage a text file as people, editors and disks do."""
    lines = content.split(b"\r\n")
    first, second = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    match data.draw(st.sampled_from(["drop", "swap", "twice", "cut", "cell", "byte", "insert"])):
        case "drop":
            del lines[first]
        case "swap":
            lines[first], lines[second] = lines[second], lines[first]
        case "twice":
            lines.insert(first, lines[second])
        case "cut":
            return content[: data.draw(st.integers(0, len(content)))]
        case "cell":
            cells = lines[first].split(b",")
            cells[data.draw(st.integers(0, len(cells) - 1))] = data.draw(
                st.sampled_from([b"", b"nan", b"-inf", b"1e308", b"-1e308", b"1e-320", b"0", b"-1", b"x", b"1,2", b'"'])
            )
            lines[first] = b",".join(cells)
        case "byte":
            i = data.draw(st.integers(0, len(content) - 1))
            return content[:i] + bytes([data.draw(st.integers(0, 255))]) + content[i + 1 :]
        case "insert":
            i = data.draw(st.integers(0, len(content)))
            return content[:i] + data.draw(st.binary(min_size=1, max_size=4)) + content[i:]
    return b"\r\n".join(lines)


def assert_sound(release):
    assert np.all(np.diff(release.edges_MeV) > 0)
    assert np.all(release.counts >= 0)
    assert np.all(release.unoscillated > 0)
    arrays = [getattr(release, field.name) for field in dataclasses.fields(release)]
    for array in [*arrays, *release.backgrounds.values(), release.positron.ratio, release.resolution.percent]:
        if isinstance(array, np.ndarray):
            assert np.all(np.isfinite(array))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_mutated_release_is_sound_or_refused(synthetic, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    if not folder.exists():
        shutil.copytree(synthetic[0], folder)
    path = folder / data.draw(st.sampled_from([A, C, POSITRON, PEAKS, "edfig2_gamma_ScintNL_data.csv"]))
    whole = path.read_bytes()
    path.write_bytes(mutate(data, whole))
    try:
        with contextlib.suppress(NuebarError):
            assert_sound(read_juno_2025(folder))
    finally:
        path.write_bytes(whole)


# --- JUNO's own release


def test_juno_2025_numbers(juno_2025_release):
    release = read_juno_2025(juno_2025_release)
    assert np.array_equal(release.edges_MeV, EDGES)
    # The sum of the 66 whole numbers, counted once and kept.
    assert release.counts.sum() == 2379
    assert release.counts[[0, 1, -2, -1]].tolist() == [20, 25, 18, 8]
    # arXiv:2511.14593, Table 1, best fit per day; "other" is the sum of its last five rows.
    per_day = {"li9_he8": 3.9, "geoneutrinos": 1.4, "world_reactors": 0.88, "bipo": 0.20, "other": 0.25}
    for name, rate in per_day.items():
        assert release.backgrounds[name].sum() / 59.1 == pytest.approx(rate, abs=0.06)
    total = release.signal + sum(release.backgrounds.values())
    assert np.max(np.abs(release.prediction - total) / SCALE) < 0.06


def test_juno_2025_unoscillated_spectrum(juno_2025_release):
    release = read_juno_2025(juno_2025_release)
    # Own reconstruction, to its rounding error; the two ways agree bin by bin (else the reader refuses).
    assert release.unoscillated.sum() == pytest.approx(6276.3, abs=1.5)
    assert np.max(release.unoscillated_error / release.unoscillated) < 0.0025
    again = (release.counts - sum(release.backgrounds.values())) / release.unoscillated
    # Rounding of the ratio itself, of five backgrounds, and of U.
    limit = 0.0005 + 0.025 * SCALE / release.unoscillated + 0.005 * np.abs(again)
    assert np.all(np.abs(again - release.survival) < limit)
    assert np.sqrt(release.counts) / release.unoscillated == pytest.approx(release.survival_error, abs=7e-4)
    # At high energy the best fit's survival is near its average, 1 - sin2(2 th12)/2 = 0.57.
    high = release.edges_MeV[:-1] > 5.5
    assert release.signal[high].sum() / release.unoscillated[high].sum() == pytest.approx(0.59, abs=0.05)


def test_juno_2025_calibration(juno_2025_release):
    release = read_juno_2025(juno_2025_release)
    energy = [1.03, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
    # Read off the released file by linear interpolation.
    expected = [0.8940, 0.9277, 0.9573, 0.9892, 1.0051, 1.0141, 1.0196, 1.0257, 1.0284]
    positron = release.positron
    assert np.interp(energy, positron.energy_MeV, positron.ratio) == pytest.approx(expected, abs=6e-5)
    assert np.interp([1.5, 10], positron.energy_MeV, positron.error_high) == pytest.approx([0.0014, 0.002], abs=2e-4)
    assert np.all(positron.error_low >= 0)
    assert release.electron.energy_MeV.shape == (500,)
    assert release.gamma.energy_MeV[[0, -1]].tolist() == [0.2, 10.0]
    # The nine points lie within 1.6 standard deviations of their own best fit (the file's last column).
    points, curve = release.gamma_points, release.gamma_scintillation
    pull = (points.ratio - np.interp(points.energy_MeV, curve.x, curve.y)) / points.error
    assert points.ratio.shape == (9,)
    assert np.max(np.abs(pull)) < 1.8
    assert release.resolution.names == ("Cs137", "Mn54", "Ge68", "K40", "n-H", "Co60", "n-C", "AmC")
    assert release.resolution.percent[0] == 4.287022


# --- common inputs


SAMPLED = [
    *(f"HuberMuellerFlux_{name}" for name in ("U235", "U238", "Pu239", "Pu241", "DYBbumpFixed")),
    "DYBFluxBump_ratio",
    *releases._CROSS_SECTIONS.values(),
    "positronScintNL",
    *(f"positronScintNLpull{i}" for i in range(4)),
    "gammaScintNL",
    "SNF_FluxRatio",
    "NonEq_FluxRatio",
]
BINNED = [
    *releases._BACKGROUNDS.values(),
    *releases._ALTERNATIVES.values(),
    *releases._SHAPE_UNCERTAINTIES.values(),
]


def write_inputs(path, replace=None, leave_out=()):
    uproot = pytest.importorskip("uproot")
    edges = np.array([1.0, 2.0, 3.0])
    with uproot.recreate(path) as file:
        for i, key in enumerate([*SAMPLED, *BINNED]):
            if key not in leave_out:
                file[key] = (np.array([i, 0.5]), edges)
        for key, value in (replace or {}).items():
            file[key] = value


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "inputs.root"
    write_inputs(path)
    return path


def test_every_key_lands_in_its_place(inputs):
    got = read_common_inputs(inputs)
    tables = [
        *(got.isotope_spectra[name] for name in ("U235", "U238", "Pu239", "Pu241")),
        got.dayabay_spectrum,
        got.bump_ratio,
        got.ibd_cross_sections["vogel_beacom"],
        got.ibd_cross_sections["strumia_vissani"],
        got.positron_nonlinearity,
        *got.positron_nonlinearity_pulls,
        got.gamma_nonlinearity,
        got.spent_fuel_ratio,
        got.non_equilibrium_ratio,
    ]
    assert [table.y[0] for table in tables] == list(range(len(SAMPLED)))
    assert all(table.x.tolist() == [1.5, 2.5] for table in tables)
    histograms = {**got.backgrounds, **got.alternatives, **got.shape_uncertainties}
    assert [h.counts[0] for h in histograms.values()] == [len(SAMPLED) + i for i in range(len(BINNED))]
    assert [h.name for h in histograms.values()] == list(histograms)
    assert all(h.variances is None for h in histograms.values())


@pytest.mark.parametrize("key", [SAMPLED[0], SAMPLED[9], BINNED[3]])
def test_a_missing_histogram_is_named(tmp_path, key):
    write_inputs(tmp_path / "a.root", leave_out=[key])
    with pytest.raises(NuebarError, match=f"a.root, key {key}: expected a one-dimensional histogram, got nothing"):
        read_common_inputs(tmp_path / "a.root")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ((np.ones((2, 2)), np.arange(3.0), np.arange(3.0)), "got TH2D"),
        ((np.array([1.0, np.nan]), np.arange(3.0)), "finite counts, got nan at index 1"),
        ((np.array([1.0, -1.0]), np.arange(3.0)), "counts of at least 0, got -1.0"),
    ],
)
def test_a_wrong_histogram_is_named(tmp_path, value, sentence):
    write_inputs(tmp_path / "a.root", {BINNED[0]: value}, leave_out=[BINNED[0]])
    with pytest.raises(NuebarError, match=f"a.root, key {BINNED[0]}: .*{sentence}"):
        read_common_inputs(tmp_path / "a.root")


def test_a_cut_root_file_is_refused(inputs, tmp_path):
    whole = inputs.read_bytes()
    path = tmp_path / "cut.root"
    for size in [0, 3, 4, 19, 20, 100, *range(500, len(whole), 2500), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(NuebarError, match=r"expected a ROOT file|cut short"):
            read_common_inputs(path)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_root_file_is_sound_or_refused(inputs, tmp_path_factory, data):
    whole = bytearray(inputs.read_bytes())
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.root"
    path.write_bytes(bytes(whole))
    with contextlib.suppress(NuebarError):
        got = read_common_inputs(path)
        assert all(np.all(np.isfinite(h.counts)) for h in got.backgrounds.values())


def test_what_is_no_root_file(tmp_path, monkeypatch):
    path = tmp_path / "a.root"
    with pytest.raises(NuebarError, match="found none"):
        read_common_inputs(path)
    path.write_text("low,high,counts\n" * 10)
    with pytest.raises(NuebarError, match="expected a ROOT file, got something else"):
        read_common_inputs(path)
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(NuebarError, match=r"pip install 'nuebar\[root\]'"):
        read_common_inputs(path)


def test_common_inputs_rates(common_inputs):
    got = read_common_inputs(common_inputs)
    # Rates per day after selection, arXiv:2204.13249.
    rates = {
        "accidentals": 0.8, "fast_neutrons": 0.1, "li9_he8": 0.8, "alpha_n": 0.05, "geoneutrinos_U": 0.924,
        "geoneutrinos_Th": 0.276, "world_reactors": 1.0, "atmospheric_nc": 0.16,
    }  # fmt: skip
    assert {name: float(h.counts.sum()) for name, h in got.backgrounds.items()} == pytest.approx(rates, rel=1e-9)
    assert got.alternatives["atmospheric_nc_nuwro"].counts.sum() == pytest.approx(0.13, rel=1e-9)
    for histogram in {**got.backgrounds, **got.alternatives}.values():
        assert histogram.edges == pytest.approx(np.linspace(0.8, 12.0, 561), abs=1e-12)
        assert histogram.variances is None  # squared errors of zero everywhere say nothing
    assert np.ptp(got.shape_uncertainties["yellow_book"].counts) == 0
    assert got.shape_uncertainties["yellow_book"].counts[0] == pytest.approx(0.0134, abs=1e-4)
    assert got.shape_uncertainties["tao"].edges[[0, -1]].tolist() == [1.0, 8.0]


@pytest.mark.parametrize(
    ("isotope", "printed"),
    # The tables of Huber, Phys. Rev. C 84, 024617, and Mueller et al., Phys. Rev. C 83, 054615 (238U), at 2,
    # 2.5, 3, 4 and 5 MeV, three digits each, as the file gives them back.
    [
        ("U235", [1.32, 0.915, 0.651, 0.294, 0.110]),
        ("Pu239", [1.08, 0.719, 0.515, 0.195, 0.0613]),
        ("Pu241", [1.26, 0.894, 0.641, 0.282, 0.0974]),
        ("U238", [1.48, 1.15, 0.876, 0.451, 0.183]),
    ],
)
def test_spectra_are_sampled_at_bin_centres(common_inputs, isotope, printed):
    table = read_common_inputs(common_inputs).isotope_spectra[isotope]
    for energy, value in zip([2.0, 2.5, 3.0, 4.0, 5.0], printed, strict=True):
        # Log-linear on both sides of the knot: extended from the right it hits the printed number exactly.
        near = (table.x > energy) & (table.x < energy + 0.2)
        line = np.polyfit(table.x[near] - energy, np.log(table.y[near]), 1)
        assert np.exp(line[1]) == pytest.approx(value, rel=1e-5)  # at the low edges: 0.2 % away


def test_huber_mueller_follows_its_polynomials(common_inputs):
    # Coefficients of Huber (235U), Phys. Rev. C 84, 024617, Table III.
    coefficients = [4.367, -4.577, 2.100, -0.5294, 6.186e-2, -2.777e-3]
    table = read_common_inputs(common_inputs).isotope_spectra["U235"]
    inside = (table.x > 2) & (table.x < 6)
    ratio = table.y[inside] / np.exp(np.polynomial.polynomial.polyval(table.x[inside], coefficients))
    assert np.mean(ratio) == pytest.approx(1.0, abs=2e-3)
    assert np.std(ratio) < 0.015  # the printed spectrum wiggles around the smooth fit


def test_cross_sections_are_sampled_at_bin_centres(common_inputs):
    got = read_common_inputs(common_inputs).ibd_cross_sections
    energy = [2.0, 3.0, 4.0, 5.0, 6.0, 8.0]
    # 1e-43 cm2. Naive and corrected cross-sections of the two papers at the same energies.
    expected = {
        "vogel_beacom": [0.3263, 2.619, 6.730, 12.63, 20.28, 40.65],
        "strumia_vissani": [0.3293, 2.633, 6.755, 12.67, 20.33, 40.72],
    }
    for name, values in expected.items():
        table = got[name]
        assert np.interp(energy, table.x, table.y) * 1e43 == pytest.approx(values, rel=3e-4)
        threshold = 1.80607  # ((m_n + m_e)^2 - m_p^2) / (2 m_p), MeV
        assert np.array_equal(table.y > 0, table.x > threshold)
        # Just above it the cross-section goes as the positron's momentum, sqrt(2 m_e (E - threshold)).
        first = np.flatnonzero(table.y)[:4]
        law = table.y[first] / np.sqrt(table.x[first] - threshold)
        assert law / law.mean() == pytest.approx(1.0, abs=0.02)


def knots(table, guesses, reach):
    """Centres of gravity of the kinks, the second differences, near the guesses."""
    kink = np.abs(np.diff(table.y, 2))
    near = [np.abs(table.x[1:-1] - guess) < reach for guess in guesses]
    return np.array([np.average(table.x[1:-1][mask], weights=kink[mask]) for mask in near])


def test_other_tables_are_sampled_at_bin_centres(common_inputs):
    got = read_common_inputs(common_inputs)
    non_equilibrium = [2.5, 3.0, 3.5, 4.0]
    assert knots(got.non_equilibrium_ratio, non_equilibrium, 0.0101) == pytest.approx(non_equilibrium, abs=5e-4)
    positron = 1.022 + 0.012 * np.arange(1, 5)
    for table in (got.positron_nonlinearity, *got.positron_nonlinearity_pulls):
        # At the low edges they would be 5e-4 lower.
        assert knots(table, positron, 0.003) == pytest.approx(positron, abs=2.5e-4)
    assert knots(got.gamma_nonlinearity, [2.0, 3.0, 4.0], 0.003) == pytest.approx([2, 3, 4], abs=1e-4)
    energy = [1.03, 1.5, 2, 3, 4, 5, 6, 8, 10]
    expected = [0.8879, 0.9262, 0.9576, 0.9912, 1.0083, 1.0185, 1.0251, 1.0333, 1.0381]
    nonlinearity = np.interp(energy, got.positron_nonlinearity.x, got.positron_nonlinearity.y)
    assert nonlinearity == pytest.approx(expected, abs=7e-5)
    spent_fuel = np.interp([2.5, 3.5], got.spent_fuel_ratio.x, got.spent_fuel_ratio.y)
    assert spent_fuel == pytest.approx([0.0167, 0.0006], abs=1e-4)


# --- a user's files


@pytest.mark.parametrize(
    "content",
    [
        "low_MeV,high_MeV,counts,variance\n1,2,3,0.5\n2,4,5,0.25\n",
        "\ufeff# mine\r\nvariance,counts,low_MeV,high_MeV\r\n.5,3,1,2\r\n.25,5,2,4\r\n,,,\r\n",
        "low_MeV high_MeV counts variance\n1 2 3 0.5\n2 4 5 0.25",
    ],
)
def test_read_spectrum_from_text(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_text(content, newline="")
    got = read_spectrum(path)
    assert got.edges.tolist() == [1, 2, 4]
    assert got.counts.tolist() == [3, 5]
    assert got.variances.tolist() == [0.5, 0.25]
    assert (got.name, got.unit) == ("mine", "MeV")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("low_MeV,high_MeV\n1,2\n", "line 1: .*column 'counts'"),
        ("1,2,3\n", "line 1: .*column 'low_MeV'"),
        ("low_MeV,high_MeV,counts\n1,2,3\n2.5,3,1\n", "line 3, column 'low_MeV': .*gap or an overlap"),
        ("low_MeV,high_MeV,counts\n1,2,3\n1.5,3,1\n", "line 3, column 'low_MeV': .*gap or an overlap"),
        (
            "low_MeV,high_MeV,counts\n2,1,3\n",
            "line 2, column 'low_MeV': expected a bin with its low edge below",
        ),
        ("low_MeV,high_MeV,counts\n1,2,-3\n", "line 2, column 'counts': .*at least 0"),
        ("low_MeV,high_MeV,counts\n1,2,nan\n", "line 2, column 'counts': expected a finite number"),
        ("low_MeV,high_MeV,counts,variance\n1,2,3,-1\n", "line 2, column 'variance'"),
    ],
)
def test_read_spectrum_refuses(tmp_path, content, sentence):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(NuebarError, match=f"mine.csv, {sentence}"):
        read_spectrum(tmp_path / "mine.csv")


def test_read_spectrum_from_json(tmp_path):
    Histogram([0, 1, 2], [3, 4], name="a").save(tmp_path / "a.json")
    assert read_spectrum(tmp_path / "a.json").counts.tolist() == [3, 4]
    with pytest.raises(NuebarError, match="found none"):
        read_spectrum(tmp_path / "b.json")


def test_read_spectrum_from_root(tmp_path):
    uproot = pytest.importorskip("uproot")
    hist = pytest.importorskip("hist")
    edges = np.array([0.0, 1.0, 3.0])
    (tmp_path / "runs.root").mkdir()
    path = tmp_path / "runs.root" / "a.root"
    weighted = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
    weighted.fill([0.5, 2.0, 2.5], weight=[2.0, 1.0, 1.0])
    with uproot.recreate(path) as file:
        file["folder/h"] = weighted
    for name in (path, f"{path}:folder/h", f"{path}:folder/h;1"):
        got = read_spectrum(name)
        assert got.edges.tolist() == [0, 1, 3]
        assert got.counts.tolist() == [2, 2]
        assert got.variances.tolist() == [4, 2]
    with pytest.raises(NuebarError, match=r"key folder/g: .*the file has folder/h"):
        read_spectrum(f"{path}:folder/g")
    with uproot.recreate(path) as file:
        file["a"] = file["b"] = (np.ones(2), edges)
    with pytest.raises(NuebarError, match="got a, b; add ':key'"):
        read_spectrum(path)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_mutated_spectrum_is_sound_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutated.csv"
    rows = [f"{e},{e + 0.1:.1f},{n},{n + 0.5}" for e, n in zip([0.7, 0.8, 0.9], [3, 0, 12], strict=True)]
    content = "\r\n".join(["# mine", "low_MeV,high_MeV,counts,variance", *rows, ""]).encode()
    path.write_bytes(mutate(data, content))
    with contextlib.suppress(NuebarError):
        got = read_spectrum(path)
        assert np.all(got.edges[1:] > got.edges[:-1])
        assert np.all(np.isfinite(got.counts) & (got.counts >= 0))


def test_read_table(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("# e_nu_MeV flux\n1 2\n3 4 # last\n")
    energy, flux = read_table(path, ("e_nu_MeV", "flux"))
    assert energy.tolist() == [1, 3]
    assert flux.tolist() == [2, 4]
    path.write_text("error,flux,e_nu_MeV\n0.1,2,1\n0.2,4,3\n")
    energy, flux = read_table(path, ("e_nu_MeV", "flux"))
    assert energy.tolist() == [1, 3]
    assert flux.tolist() == [2, 4]
    for content, sentence in (
        ("1 2 3\n", "line 1: expected 2 cells"),
        ("energy flux\n1 2\n", "column 'e_nu_MeV'"),
        ("1 2\n3 four\n", "line 2, column 'flux': expected a finite number, got 'four'"),
        ("1 2\n3 inf\n", "line 2, column 'flux'"),
        ("", "got no rows"),
    ):
        path.write_text(content)
        with pytest.raises(NuebarError, match=sentence):
            read_table(path, ("e_nu_MeV", "flux"))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_mutated_table_is_finite_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutated.txt"
    path.write_bytes(mutate(data, b"x,y\r\n1,2\r\n3,4.5e-3\r\n"))
    with contextlib.suppress(NuebarError):
        assert all(np.all(np.isfinite(column)) for column in read_table(path, ("x", "y")))

"""What a TOML file says about the detector that is simulated: light, geometry, radioactivity, pairs, muons."""

from __future__ import annotations

from dataclasses import dataclass, field

from nuebar.records import refuse

__all__ = [
    "CorrelatedPairs",
    "Detector",
    "Neutrons",
    "Singles",
    "SourceBranch",
    "SourceCatalogue",
    "SourceSettings",
    "UniformitySettings",
    "check_detector",
    "check_sources",
]


@dataclass(frozen=True)
class UniformitySettings:
    """Light against place, relative to the centre.

    Attributes:
        map: CSV table r_m, cos_theta, ratio on a grid; ``"none"`` for the same light everywhere.
        calibration_radius_m: Radii at which the correction was measured.
        calibration_cos_theta: Angles at which it was measured.
        azimuth: Amplitude at the edge of an azimuthal pattern that is not corrected.
        folds: Periods of that pattern in a turn.
    """

    map: str = "none"
    calibration_radius_m: tuple[float, ...] = ()
    calibration_cos_theta: tuple[float, ...] = ()
    azimuth: float = 0.0
    folds: float = 4.0


@dataclass(frozen=True)
class Neutrons:
    """What happens to neutrons in the scintillator.

    Attributes:
        capture_time_us: Mean time to capture once thermal.
        carbon_share: Share of captures on carbon; the rest is on hydrogen.
        diffusion_cm: Thermal diffusion length L: a neutron is captured √6·L from where it became thermal (r.m.s.).
    """

    capture_time_us: float = 220.0
    carbon_share: float = 0.01
    diffusion_cm: float = 2.5


@dataclass(frozen=True)
class Singles:
    """Radioactivity of one material.

    Attributes:
        name: How it is called in tables and truth columns.
        place: ``"inside"``: uniform in the scintillator; ``"acrylic"``: uniform in the acrylic; ``"outside"``: on a
            sphere outside the acrylic.
        rate_Hz: Events a second with more than ``Detector.singles_threshold_MeV`` in the whole scintillator.
        activity: Nuclide or chain → relative activity.
        radius_m: Radius of that sphere, for ``"outside"``.
    """

    name: str
    place: str
    rate_Hz: float
    activity: dict[str, float]
    radius_m: float = 0.0


@dataclass(frozen=True)
class CorrelatedPairs:
    """Background pairs with a neutron as the delayed event.

    Attributes:
        name: How it is called in truth columns.
        rate_per_day: Rate that is left after selection and veto, as published.
        efficiency: Share of generated pairs that is left; rate over efficiency is generated.
        shape: Shape of the prompt energy: a name of :data:`nuebar.physics.backgrounds.SHAPES`, or several with
            weights.
        place: ``"uniform"`` in the scintillator, or ``"edge"``: density falling inwards from the surface.
        depth_m: Scale of that fall.
    """

    name: str
    rate_per_day: float
    efficiency: float
    shape: str | dict[str, float]
    place: str = "uniform"
    depth_m: float = 0.0


@dataclass(frozen=True)
class Detector:
    """The detector of the Monte Carlo.

    Attributes:
        radius_m: Radius of the scintillator sphere.
        fiducial_radius_m: Radius of the fiducial volume of published rates.
        acrylic_m: Thickness of the vessel.
        outer_radius_m: Photons that go further out are lost.
        material: Tables of the scintillator: a name or a folder.
        vessel: Tables of the vessel.
        buffer: Tables of what is around it.
        electrons_per_gram_mol: Z/A of the scintillator.
        refractive_index: For Cherenkov light.
        quenching: ``"step"`` or ``"local"``, see :mod:`nuebar.simulate.quench`.
        proton_kB_ratio: kB of protons over that of electrons.
        alpha_kB_ratio: kB of alphas over that of electrons.
        pe_per_photon: Photo-electrons per emitted photon, at the centre.
        charge_sigma: Relative spread of one photo-electron's charge.
        dark_pe: Dark counts in an event's window.
        constant: Relative spread of an event's whole charge.
        vertex_sigma_m: Spread of each reconstructed coordinate at 1 MeV; it goes as 1/√E.
        threshold_MeV: Events with less reconstructed energy are not recorded.
        singles_threshold_MeV: Threshold of the rates in ``singles``.
        ibd_per_day: Antineutrino interactions in the whole scintillator, oscillated, before any cut.
        muon_Hz: Muons through the scintillator.
        muon_dead_ms: Dead time after each.
    """

    radius_m: float
    fiducial_radius_m: float
    acrylic_m: float
    outer_radius_m: float
    pe_per_photon: float
    charge_sigma: float
    dark_pe: float
    constant: float
    vertex_sigma_m: float
    ibd_per_day: float
    muon_Hz: float
    muon_dead_ms: float
    threshold_MeV: float
    singles_threshold_MeV: float
    material: str = "lab"
    vessel: str = "acrylic"
    buffer: str = "water"
    electrons_per_gram_mol: float = 0.5588
    refractive_index: float = 1.50
    quenching: str = "step"
    proton_kB_ratio: float = 1.0
    alpha_kB_ratio: float = 1.0
    uniformity: UniformitySettings = field(default_factory=UniformitySettings)
    neutrons: Neutrons = field(default_factory=Neutrons)
    singles: tuple[Singles, ...] = ()
    pairs: tuple[CorrelatedPairs, ...] = ()


@dataclass(frozen=True)
class SourceBranch:
    """One thing that a trigger of a source can be.

    Attributes:
        share: Share of the source's triggers; those of a source are normalised.
        part: ``"prompt"`` or ``"capture"``, or ``"decay"`` for sources without neutrons.
        gammas_MeV: Gammas in coincidence.
        electrons_MeV: Electrons in coincidence, kinetic energies.
        positrons_MeV: Positrons in coincidence, kinetic energies (0: at rest, two 511 keV gammas).
        pair_MeV: Kinetic energy that an electron-positron pair shares; 0 for none.
        neutron: Name of a neutron spectrum, or empty for none.
        smear_MeV: Standard deviation of the first gamma's Doppler broadening.
    """

    share: float
    part: str = "decay"
    gammas_MeV: tuple[float, ...] = ()
    electrons_MeV: tuple[float, ...] = ()
    positrons_MeV: tuple[float, ...] = ()
    pair_MeV: float = 0.0
    neutron: str = ""
    smear_MeV: float = 0.0


@dataclass(frozen=True)
class SourceSettings:
    """A calibration source.

    Attributes:
        title: For pictures: ``"¹³⁷Cs"``.
        branches: What its triggers are.
        position_m: Where it stands: x, y, z from the centre.
    """

    title: str
    branches: tuple[SourceBranch, ...]
    position_m: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SourceCatalogue:
    """All sources of a file: ``[sources.NAME]`` and neutron spectra ``[neutrons.NAME]``.

    A neutron spectrum is a list of (energy in MeV, relative density) points, joined by straight lines.

    Attributes:
        format: 1.
        sources: Name → source.
        neutrons: Name → points of a spectrum.
    """

    format: int
    sources: dict[str, SourceSettings]
    neutrons: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)


_RANGES = {
    "radius_m": (0.05, 100.0),
    "fiducial_radius_m": (0.01, 100.0),
    "acrylic_m": (1e-4, 2.0),
    "outer_radius_m": (0.05, 200.0),
    "pe_per_photon": (1e-6, 1.0),
    "charge_sigma": (0.0, 3.0),
    "dark_pe": (0.0, 1e5),
    "constant": (0.0, 0.5),
    "vertex_sigma_m": (0.0, 10.0),
    "ibd_per_day": (0.0, 1e6),
    "muon_Hz": (0.0, 1e4),
    "muon_dead_ms": (0.0, 1e4),
    "threshold_MeV": (0.0, 5.0),
    "singles_threshold_MeV": (0.01, 10.0),
    "electrons_per_gram_mol": (0.3, 1.0),
    "refractive_index": (1.001, 3.0),
    "proton_kB_ratio": (0.0, 10.0),
    "alpha_kB_ratio": (0.0, 10.0),
}


_MOST_BRANCHES = 255  # a column of bytes counts them
_MOST_PARTICLES = 16  # what the buffers of a cascade are made for


def _within(value: float, low: float, high: float, where: str, key: str) -> None:
    if not low <= value <= high:
        refuse(where, key, f"a number from {low:g} to {high:g}", value, "check the unit in the name of the key")


def check_detector(detector: Detector, where: str) -> None:
    """Refuse numbers out of range and places or names that do not exist.

    Raises:
        NuebarError: One sentence with file and key.
    """
    for name, (low, high) in _RANGES.items():
        _within(getattr(detector, name), low, high, where, f"detector.{name}")
    if not detector.fiducial_radius_m <= detector.radius_m:
        refuse(where, "detector.fiducial_radius_m", "at most radius_m", detector.fiducial_radius_m)
    if not detector.radius_m + detector.acrylic_m < detector.outer_radius_m:
        refuse(where, "detector.outer_radius_m", "more than radius_m + acrylic_m", detector.outer_radius_m)
    if detector.quenching not in ("step", "local"):
        refuse(where, "detector.quenching", "'step' or 'local'", detector.quenching)
    if detector.muon_Hz * detector.muon_dead_ms > 1e3:
        refuse(where, "detector.muon_dead_ms", "less dead time than time", detector.muon_dead_ms)
    _check_uniformity(detector.uniformity, where)
    _within(detector.neutrons.capture_time_us, 1.0, 1e4, where, "detector.neutrons.capture_time_us")
    _within(detector.neutrons.carbon_share, 0.0, 1.0, where, "detector.neutrons.carbon_share")
    _within(detector.neutrons.diffusion_cm, 0.0, 100.0, where, "detector.neutrons.diffusion_cm")
    for kind, entries in (("singles", detector.singles), ("pairs", detector.pairs)):
        names = [e.name for e in entries]
        for name in names:
            if names.count(name) > 1:
                refuse(where, f"detector.{kind}", "each name once", name, "rename one")
    for s in detector.singles:
        key = f"detector.singles.{s.name}"
        _within(s.rate_Hz, 0.0, 1e5, where, f"{key}.rate_Hz")
        if s.place not in ("inside", "acrylic", "outside"):
            refuse(where, f"{key}.place", "'inside', 'acrylic' or 'outside'", s.place)
        low = detector.radius_m + detector.acrylic_m
        if s.place == "outside":
            _within(s.radius_m, low, detector.outer_radius_m, where, f"{key}.radius_m")
        if not s.activity or any(a < 0 for a in s.activity.values()) or not sum(s.activity.values()) > 0:
            refuse(where, f"{key}.activity", "nuclides or chains with positive activities", s.activity)
    for p in detector.pairs:
        key = f"detector.pairs.{p.name}"
        _within(p.rate_per_day, 0.0, 1e6, where, f"{key}.rate_per_day")
        _within(p.efficiency, 1e-6, 1.0, where, f"{key}.efficiency")
        if p.place not in ("uniform", "edge"):
            refuse(where, f"{key}.place", "'uniform' or 'edge'", p.place)
        if p.place == "edge":
            _within(p.depth_m, 1e-3, 100.0, where, f"{key}.depth_m")


def _check_uniformity(u: UniformitySettings, where: str) -> None:
    _within(u.azimuth, 0.0, 0.5, where, "detector.uniformity.azimuth")
    _within(u.folds, 0.0, 100.0, where, "detector.uniformity.folds")
    if u.folds != int(u.folds):
        refuse(where, "detector.uniformity.folds", "a whole number: the pattern closes after a turn", u.folds)
    for name, low, high in (("calibration_radius_m", 0.0, 100.0), ("calibration_cos_theta", -1.0, 1.0)):
        values, key = getattr(u, name), f"detector.uniformity.{name}"
        for value in values:
            _within(value, low, high, where, key)
        if sorted(set(values)) != list(values):
            refuse(where, key, "numbers that increase", values, "sort them")


def check_sources(catalogue: SourceCatalogue, where: str) -> None:
    """Refuse sources without branches, unknown neutron spectra, energies out of range and too many particles.

    Raises:
        NuebarError: One sentence with file and key.
    """
    for name, points in catalogue.neutrons.items():
        key = f"neutrons.{name}"
        if len(points) < 2 or any(len(p) != 2 for p in points):
            refuse(where, key, "at least two points [MeV, density]", points)
        energies = [p[0] for p in points]
        if sorted(set(energies)) != energies or energies[0] < 0 or energies[-1] > 15:
            refuse(where, key, "energies that increase from 0 to 15 MeV", energies)
        if any(p[1] < 0 for p in points) or sum(p[1] for p in points) <= 0:
            refuse(where, key, "densities that are not negative", [p[1] for p in points])
    for name, source in catalogue.sources.items():
        if not source.branches or sum(b.share for b in source.branches) <= 0:
            refuse(where, f"sources.{name}.branches", "branches with positive shares", source.branches)
        if len(source.branches) > _MOST_BRANCHES:
            refuse(where, f"sources.{name}.branches", f"at most {_MOST_BRANCHES}", len(source.branches))
        if len(source.position_m) != 3:
            refuse(where, f"sources.{name}.position_m", "three numbers", source.position_m)
        for i, branch in enumerate(source.branches):
            key = f"sources.{name}.branches[{i}]"
            _within(branch.share, 0.0, 1e6, where, f"{key}.share")
            for e in (*branch.gammas_MeV, *branch.electrons_MeV):
                _within(e, 0.0, 14.0, where, key)
            for e in (*branch.positrons_MeV, branch.pair_MeV):
                _within(e, 0.0, 14.0, where, key)
            _within(branch.smear_MeV, 0.0, 0.2, where, f"{key}.smear_MeV")
            particles = (*branch.gammas_MeV, *branch.electrons_MeV, *branch.positrons_MeV)
            if len(particles) > _MOST_PARTICLES:
                refuse(where, key, f"at most {_MOST_PARTICLES} gammas, electrons and positrons", len(particles))
            if branch.part not in ("decay", "prompt", "capture"):
                refuse(where, f"{key}.part", "'decay', 'prompt' or 'capture'", branch.part)
            if branch.neutron and branch.neutron not in catalogue.neutrons:
                known = ", ".join(catalogue.neutrons) or "those of a table [neutrons]"
                refuse(where, f"{key}.neutron", f"one of {known}", branch.neutron)

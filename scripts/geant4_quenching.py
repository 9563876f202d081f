"""Write tests/reference/geant4_quenching.json: mean quenched light of gammas, electrons and positrons by Geant4.

Needs a Python of its own with ``pip install geant4-pybind==0.1.3 numpy`` (Geant4 11.4 in a wheel, no compiler).
nuebar need not be installed. One core, about seven minutes. Run again when the definition of the light changes.

Birks' law with the energy deposit over the length of every step of an electron or positron, as detector simulations
have it. Tracking, multiple scattering, ionisation with its fluctuations, Compton scattering, pair production and
annihilation are Geant4's own (G4EmStandardPhysics, "opt0"). The wheel has no data files, so those of the other
processes are made here from nuebar's tables of linear alkylbenzene, which come from NIST: photo-electric and coherent
scattering from XCOM, bremsstrahlung with ESTAR's radiative stopping power and the photon spectrum of Bethe and
Heitler. Hence "Geant4 opt0 with inputs from NIST", never "Geant4 with G4EMLOW".
"""

import argparse
import json
import os
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
from nuebar.physics.constants import (  # noqa: E402
    AVOGADRO_per_mol,
    ELECTRON_MASS_MeV,
)
from nuebar.physics.materials import load_material  # noqa: E402

OUT = ROOT / "tests" / "reference" / "geant4_quenching.json"

LAB = {"H": 0.1201, "C": 0.8799}
LAB_MEAN_EXCITATION_eV = 59.5
RADIUS_m = 17.7
CUT_mm = 0.7
KB_g_cm2_GeV = (6.0, 10.05, 12.05, 15.0, 25.0)

# Name, particle, energies of one event in MeV (kinetic ones of electrons and positrons).
GAMMAS = {
    "137Cs": (0.6617,),
    "40K": (1.4608,),
    "60Co": (1.1732, 1.3325),
    "n-H": (2.2233,),
    "4.438": (4.438,),
    "6.129": (6.129,),
}
SOURCES = {name: ("gamma", energies) for name, energies in GAMMAS.items()}
SOURCES |= {f"e- {t:g}": ("e-", (t,)) for t in (0.1, 0.3, 1.0, 3.0, 6.0)}
SOURCES |= {f"e+ {t:g}": ("e+", (t,)) for t in (0.0, 1.0, 3.0, 6.0)}

CHARGE = {"H": 1, "C": 6}
ATOMIC_WEIGHT = {"H": 1.00794, "C": 12.011}
BARN_cm2 = 1e-24
CARBON_K_EDGE_MeV = 284.2e-6
HYDROGEN_EDGE_MeV = 13.6e-6

# --- data files ------------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """The files that G4EmStandardPhysics reads for hydrogen and carbon, and nothing else."""
    folders = {name: folder / name for name in ("brem_SB", "epics2017/phot", "epics2017/rayl", "other")}
    for path in folders.values():
        path.mkdir(parents=True)
    (folders["other"] / "ENSDFSTATE.dat").write_text("")
    write_bremsstrahlung(folders["brem_SB"])
    photons = load_material("lab").photons
    # Carbon gets the whole cross-section: hydrogen has 1e-4 of the photo-electric effect, and coherent scattering
    # changes no energy.
    per_atom = BARN_cm2 * LAB["C"] * AVOGADRO_per_mol / ATOMIC_WEIGHT["C"]
    e = photons.e_MeV
    for symbol, scale, edge in (("H", 1e-9, HYDROGEN_EDGE_MeV), ("C", 1.0, CARBON_K_EDGE_MeV)):
        z = CHARGE[symbol]
        write_photo_electric(folders["epics2017/phot"], z, e, scale * photons.photo / per_atom, edge)
        barn = scale * photons.coherent / per_atom
        # Geant4 wants σ E² in mm² MeV².
        vector = free_vector(e, barn * BARN_cm2 * 100.0 * e**2)
        (folders["epics2017/rayl"] / f"re-cs-{z}.dat").write_text(vector)


def free_vector(x: np.ndarray, y: np.ndarray) -> str:
    """A G4PhysicsFreeVector as Geant4 reads it: edges, size, size, rows."""
    rows = [f"{x[0]:.9g} {x[-1]:.9g} {x.size}", f"{x.size}", *(f"{a:.9g} {b:.9g}" for a, b in zip(x, y, strict=True))]
    return "\n".join(rows) + "\n"


def write_photo_electric(folder: Path, z: int, e_MeV: np.ndarray, barn: np.ndarray, edge_MeV: float) -> None:
    """One shell: a table of σ E³ from the edge on, and σ = p/E above it; the two files of fits hold that p."""
    below = np.geomspace(edge_MeV, e_MeV[0], 20, endpoint=False)
    slope = np.log(barn[1] / barn[0]) / np.log(e_MeV[1] / e_MeV[0])
    x = np.concatenate([below, e_MeV])
    y = np.concatenate([barn[0] * (below / e_MeV[0]) ** slope, barn]) * x**3
    (folder / f"pe-cs-{z}.dat").write_text(free_vector(x, y))
    tail = barn[-1] * e_MeV[-1]
    fit = f"1 1 {e_MeV[-1]:.9g}\n{edge_MeV:.9g} {tail:.9g} 0 0 0 0 0\n"
    (folder / f"pe-high-{z}.dat").write_text(fit)
    (folder / f"pe-low-{z}.dat").write_text(fit)


def bethe_heitler(share: np.ndarray, t_MeV: np.ndarray, z: int) -> np.ndarray:
    """k dσ/dk over Z², up to a constant, at a share k/T of the kinetic energy.

    Bethe and Heitler, Proc. R. Soc. A 146, 83 (1934), at high energy without screening; the logarithm stays below
    that of complete screening.
    """
    energy = t_MeV + ELECTRON_MASS_MeV
    k = np.maximum(share, 1e-6) * t_MeV
    rest = 1 - k / energy
    log = np.log(2 * energy * (energy - k) / (ELECTRON_MASS_MeV * k)) - 0.5
    return (1 + rest**2 - 2 / 3 * rest) * np.minimum(log, np.log(183 / z ** (1 / 3)))


def write_bremsstrahlung(folder: Path) -> None:
    """β²/Z² k dσ/dk in mb against k/T and ln T, whose integral is the tabulated radiative stopping power."""
    electrons = load_material("lab").electrons
    assert electrons is not None
    share = np.concatenate([[0.0], np.geomspace(1e-5, 0.1, 30), np.linspace(0.15, 1.0, 18)])
    t = np.geomspace(1e-3, 1e4, 71)[:, None]
    energy = t + ELECTRON_MASS_MeV
    beta2 = t * (t + 2 * ELECTRON_MASS_MeV) / energy**2
    spectra, sum_cm2_g = {}, np.zeros_like(t)
    for symbol, mass in LAB.items():
        z = CHARGE[symbol]
        # Atomic electrons radiate too: Z² becomes Z(Z + 1).
        spectra[z] = bethe_heitler(share, t, z) * (1 + 1 / z)
        integral = np.trapezoid(spectra[z], share, axis=1)[:, None] * t
        sum_cm2_g += mass * AVOGADRO_per_mol / ATOMIC_WEIGHT[symbol] * z**2 * integral * 1e-27 / beta2
    # Outside ESTAR's table the ratio to the analytic spectrum stays what it is at the end.
    radiative = electrons.other / np.exp(np.interp(np.log(electrons.t_MeV), np.log(t[:, 0]), np.log(sum_cm2_g[:, 0])))
    ratio = np.interp(np.log(t[:, 0]), np.log(electrons.t_MeV), radiative)[:, None]
    for z, spectrum in spectra.items():
        rows = [f"8 {share.size} {t.size}", " ".join(f"{x:.9g}" for x in share)]
        rows.append(" ".join(f"{x:.9g}" for x in np.log(t[:, 0])))
        rows += [" ".join(f"{x:.7g}" for x in row) for row in ratio * spectrum]
        (folder / f"br{z}").write_text("\n".join(rows) + "\n")


# --- Geant4 ----------------------------------------------------------------------------------------------------------


class Simulation:
    """Geant4 with an orb of scintillator and a source at its centre; one of them in a process."""

    def __init__(self, data: Path, seed: int) -> None:
        os.environ["GEANT4_DATA_DIR"] = str(data)  # else the import asks whether to download the data sets
        os.environ["G4LEDATA"] = str(data)
        for name in ("ENSDFSTATE", "LEVELGAMMA", "PARTICLEXS", "RADIOACTIVE", "PII", "SAIDXS", "ABLA", "INCL"):
            os.environ[f"G4{name}DATA"] = str(data / "other")
        try:
            import geant4_pybind as g4
        except ImportError as error:
            sys.exit(f"{error}; run: pip install geant4-pybind==0.1.3 numpy")
        self.g4 = g4
        self.lengths, self.deposits, self.counts = array("d"), array("d"), array("q")
        self.photon_deposit_MeV = 0.0
        self.gun: tuple[str, tuple[float, ...]] = ("gamma", (1.0,))
        g4.HepRandom.setTheSeed(seed)
        self.manager = g4.G4RunManager()
        self.keep = []  # Geant4 holds no reference to Python objects
        for cls in self._users():
            self.keep.append(cls())  # the physics must be registered before the generator is made
            register = self.manager.SetUserInitialization if len(self.keep) < 3 else self.manager.SetUserAction
            register(self.keep[-1])
        g4.G4EmParameters.Instance().SetVerbose(0)
        ui = g4.G4UImanager.GetUIpointer()
        self.manager.Initialize()
        # A cut set in the physics list itself would have no effect.
        ui.ApplyCommand(f"/run/setCut {CUT_mm} mm")
        self.version = g4.G4Version.strip("$ ").removeprefix("Name: ")

    def _users(self) -> tuple:
        g4, simulation = self.g4, self

        class Detector(g4.G4VUserDetectorConstruction):
            def Construct(self):
                nist = g4.G4NistManager.Instance()
                lab = g4.G4Material("LAB", load_material("lab").density_g_cm3 * g4.g / g4.cm3, len(LAB))
                for symbol, mass in LAB.items():
                    lab.AddElement(nist.FindOrBuildElement(symbol), mass)
                lab.GetIonisation().SetMeanExcitationEnergy(LAB_MEAN_EXCITATION_eV * g4.eV)
                self.solid = g4.G4Orb("orb", RADIUS_m * g4.m)
                self.logical = g4.G4LogicalVolume(self.solid, lab, "orb")
                return g4.G4PVPlacement(None, g4.G4ThreeVector(), self.logical, "orb", None, False, 0)

        class Physics(g4.G4VModularPhysicsList):
            def __init__(self):
                super().__init__()
                self.SetVerboseLevel(0)
                self.RegisterPhysics(g4.G4EmStandardPhysics())

        class Generator(g4.G4VUserPrimaryGeneratorAction):
            def __init__(self):
                super().__init__()
                self.gun = g4.G4ParticleGun(1)
                self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(0, 0, 1))

            def GeneratePrimaries(self, event):
                particle, energies = simulation.gun
                self.gun.SetParticleDefinition(g4.G4ParticleTable.GetParticleTable().FindParticle(particle))
                for t_MeV in energies:
                    self.gun.SetParticleEnergy(t_MeV * g4.MeV)
                    self.gun.GeneratePrimaryVertex(event)

        class Stepping(g4.G4UserSteppingAction):
            def UserSteppingAction(self, step):
                deposit = step.GetTotalEnergyDeposit()
                if deposit > 0:
                    if step.GetTrack().GetDefinition().GetPDGCharge() != 0:
                        simulation.deposits.append(deposit)
                        simulation.lengths.append(step.GetStepLength())
                    else:
                        simulation.photon_deposit_MeV += deposit

        class Event(g4.G4UserEventAction):
            def EndOfEventAction(self, event):
                simulation.counts.append(len(simulation.deposits))

        return Detector, Physics, Generator, Stepping, Event

    def run(self, particle: str, energies_MeV: tuple[float, ...], events: int) -> dict:
        """Mean and standard deviation of the quenched energy over the energy that the event sets free."""
        self.gun = (particle, energies_MeV)
        self.photon_deposit_MeV = 0.0
        free = sum(energies_MeV) + (2 * ELECTRON_MASS_MeV if particle == "e+" else 0.0)
        density = load_material("lab").density_g_cm3
        parts, deposited, steps, zero = [], 0.0, 0, 0.0
        for first in range(0, events, 2000):
            for numbers in (self.lengths, self.deposits, self.counts):
                del numbers[:]
            self.manager.BeamOn(min(2000, events - first))
            deposit, length = np.array(self.deposits), np.array(self.lengths)
            starts = np.concatenate([[0], np.array(self.counts)[:-1]])
            stopping = deposit / np.where(length > 0, 0.1 * length * density, np.inf)  # MeV cm2/g from mm
            zero += deposit[length == 0].sum()
            parts.append([np.add.reduceat(deposit / (1 + 1e-3 * kB * stopping), starts) / free for kB in KB_g_cm2_GeV])
            deposited += deposit.sum()
            steps += deposit.size
        share = np.concatenate(parts, axis=1)
        width = share.std(axis=1, ddof=1)
        return {
            "particle": particle,
            "energies_MeV": list(energies_MeV),
            "released_MeV": round(free, 9),
            "events": events,
            "mean": [round(float(x), 7) for x in share.mean(axis=1)],
            "error": [round(float(x), 8) for x in width / np.sqrt(events)],
            "width": [round(float(x), 7) for x in width],
            "share_deposited_by_charged": round(float(deposited / events / free), 7),
            "share_deposited_by_photons": round(self.photon_deposit_MeV / events / free, 7),
            "share_deposited_without_length": round(float(zero / events / free), 7),
            "steps_per_event": round(steps / events, 2),
        }


def write_results(path: Path, head: dict, results: dict[str, dict]) -> None:
    """JSON with one line of text for every entry of the head and every source."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    sources = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    lines.append('"sources": {\n  ' + sources + "\n }")
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000, help="events of a source")
    parser.add_argument("--only", nargs="*", default=list(SOURCES), choices=list(SOURCES), help="some of the sources")
    parser.add_argument("--seed", type=int, default=2223)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data)
        simulation = Simulation(data, options.seed)
        results = {}
        for name in options.only:
            start = time.perf_counter()
            results[name] = simulation.run(*SOURCES[name], options.events)
            sys.stderr.write(f"{name}: {results[name]['mean']}, {time.perf_counter() - start:.0f} s\n")
    head = {
        "what": "Quenched over released energy: Birks' law on the deposit over the length of every e-, e+ step.",
        "made_by": "scripts/geant4_quenching.py: G4EmStandardPhysics with inputs from NIST, not from G4EMLOW",
        "geant4": simulation.version,
        "seed": options.seed,
        "cut_mm": CUT_mm,
        "orb_radius_m": RADIUS_m,
        "mass_fractions": LAB,
        "density_g_cm3": load_material("lab").density_g_cm3,
        "mean_excitation_eV": LAB_MEAN_EXCITATION_eV,
        "kB_g_cm2_GeV": KB_g_cm2_GeV,
        "columns": "mean, its error and the standard deviation of one event, each at every kB",
    }
    write_results(options.out, head, results)


if __name__ == "__main__":
    main()

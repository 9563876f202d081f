"""The jobs of ``nuebar predict``: expected rates and spectra, and predictors on disk."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuebar.config import Experiment, load_experiment, override
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.jobs.fit import exposure_days
from nuebar.predict.box import PHYSICS
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import SpectrumModel, build_model
from nuebar.predict.store import save_harmonic

__all__ = ["Prediction", "build_predictor", "prediction"]


@dataclass(frozen=True)
class Prediction:
    """Expected spectrum of an experiment at its nominal parameters.

    Attributes:
        experiment: What was predicted.
        model: The model.
        components: Counts per bin by name.
        cores: Selected signal events of each core over the exposure.
        unoscillated: Signal events per bin without oscillations.
    """

    experiment: Experiment
    model: SpectrumModel
    components: dict[str, np.ndarray]
    cores: dict[str, float]
    unoscillated: np.ndarray

    @property
    def full_power_days(self) -> float:
        """Exposure times the reactors' duty cycle."""
        return self.experiment.exposure.days * self.experiment.reactor.duty_cycle

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write ``spectrum.csv`` and ``spectrum.png``."""
        from nuebar.report import plots

        out = output_folder(folder)
        edges = np.array(self.model.edges_MeV)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["low_MeV", "high_MeV", *self.components, "signal_without_oscillation"])
        rows = np.column_stack([edges[:-1], edges[1:], *self.components.values(), self.unoscillated])
        writer.writerows([[f"{x:.10g}" for x in row] for row in rows])
        atomic_write_text(out / "spectrum.csv", buffer.getvalue())
        total = np.sum(list(self.components.values()), axis=0)
        figure = plots.spectrum(
            edges,
            total,
            self.components,
            unoscillated=self.unoscillated,
            title=self.experiment.title,
            simulated=True,
        )
        plots.save(figure, out / "spectrum.png")
        return out / "spectrum.csv", out / "spectrum.png"


def prediction(
    experiment: str,
    release: Path | None = None,
    inputs: Path | None = None,
    years: float | None = None,
    days: float | None = None,
    predictor: str = "harmonic",
) -> Prediction:
    """Predict an experiment at its nominal parameters; the arguments are those of the command."""
    loaded = load_experiment(experiment)
    loaded = override(loaded, {"exposure.days": exposure_days(loaded, years, days)})
    # Cores are told apart here even where no power pull asks for it.
    if loaded.systematics.core == 0:
        loaded = override(loaded, {"systematics.core": 1e-6})
    model, parameters = build_model(
        loaded,
        predictor=predictor,
        release=read_juno_2025(release) if release is not None else None,
        inputs=read_common_inputs(inputs) if inputs is not None else None,
    )
    values = parameters.nominal()
    channels = np.asarray(model.predictor.channels(np.array([values[n] for n in PHYSICS])))
    inside = np.asarray([np.asarray(model.stencil.rebin(c)) for c in channels[1:]]) @ np.asarray(model.bin_factor)
    return Prediction(
        experiment=loaded,
        model=model,
        components=model.components(values),
        cores=dict(zip(model.core_names, inside.tolist(), strict=True)),
        unoscillated=model.unoscillated(),
    )


def build_predictor(
    experiment: str, inputs: Path | None, release: Path | None, sigma: float, vacuum: bool, out: Path
) -> list[str]:
    """Build and save a harmonic predictor; returns lines that say what was built."""
    began = time.perf_counter()
    arrays = signal_inputs(
        load_experiment(experiment),
        release=read_juno_2025(release) if release is not None else None,
        inputs=read_common_inputs(inputs) if inputs is not None else None,
    )
    predictor = HarmonicPredictor.build(arrays, windows=Windows.around_pdg(sigma), matter=not vacuum, cores=True)
    files = save_harmonic(predictor, out)
    w = predictor.windows
    return [
        f"harmonic predictor of {experiment}: {len(predictor.edges_MeV) - 1} fine bins, {len(arrays.core_names)} cores",
        f"dm2_21 in [{w.solar[0]:.4g}, {w.solar[1]:.4g}] eV²; |dm2_31|, |dm2_32| in "
        f"[{w.atmospheric[0]:.4g}, {w.atmospheric[1]:.4g}] eV²; mixing angles unbounded",
        f"{predictor.total.solar.value.shape[-1]} solar and {predictor.total.atmospheric.value.shape[-1]} atmospheric "
        f"terms, {predictor.nbytes / 1e6:.1f} MB, {time.perf_counter() - began:.1f} s",
        *(f"wrote {f}" for f in files),
    ]

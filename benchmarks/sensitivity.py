"""Expected precision and ordering of JUNO against exposure, beside what was published.

    python benchmarks/sensitivity.py --inputs ROOTFILE [--out docs/results] [--figures docs/figures]

Writes fit-sensitivity.json, and pictures of the study with the common inputs. Without inputs the embedded ones are
studied alone.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

from nuebar.io.files import output_folder
from nuebar.jobs.fit import FitJob
from nuebar.jobs.record import write_claim
from nuebar.jobs.sensitivity import (
    SensitivityJob,
    run_sensitivity,
    sensitivity_figures,
    sensitivity_record,
    sensitivity_report,
)
from nuebar.report.plots import save

EXTERNAL = {"sin2_th13": 0.0007}  # PDG 2020, as printed beside the precision in arXiv:2204.13249
JOINT_YEARS = (1.0, 3.0, 6.0, 7.0, 8.0, 20.0)


def study(inputs, *, detector=None):
    """The outcome of the default study, or of JUNO and a second detector with the spectrum free."""
    fit = FitJob(inputs=inputs, asimov=True)
    if detector is None:
        job = SensitivityJob(fit=fit, priors=EXTERNAL)
    else:
        job = SensitivityJob(
            fit=fit, detector=detector, resolutions=("2024",), years=JOINT_YEARS, factors=(), check=False
        )
    outcome = run_sensitivity(job)
    print(sensitivity_report(outcome))
    return outcome


def numbers_of(outcome):
    """The record, without what the file says once, and ours over the published errors."""
    record = sensitivity_record(outcome)
    for key in ("format", "kind", "versions"):
        record.pop(key)
    return record | {"beside_published": beside_published(outcome)}


def beside_published(outcome):
    """For every published exposure that was studied, with the first resolution (that of the paper)."""
    rows = []
    for p in outcome.published.precision:
        for point in outcome.sets[0].points:
            if abs(point.years - p.years) < 1e-9:
                errors, ratio = {}, {}
                for n in outcome.interest:
                    errors[n] = {"published": p.of(n).error, "ours": point.full.errors[n]}
                    ratio[n] = 100.0 * point.full.relative[n] / p.of(n).relative(outcome.true[n])[0]
                rows.append(
                    {
                        "years": p.years,
                        "source": p.source,
                        "status": p.status,
                        "errors": errors,
                        "over_published": ratio,
                    }
                )
    return rows


def main():
    """Study, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=lambda s: Path(s) if s else None, default=None)
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--figures", default=None)
    parser.add_argument("--no-joint", action="store_true", help="leave the second detector out")
    a = parser.parse_args()
    began = time.perf_counter()
    numbers = {}
    first = None
    for label, inputs in (("common inputs", a.inputs), ("embedded inputs", None)):
        if label == "common inputs" and inputs is None:
            continue
        outcome = study(inputs)
        numbers[label] = numbers_of(outcome)
        first = first or outcome
        if not a.no_joint:
            joint = numbers_of(study(inputs, detector="tao"))
            joint.pop("beside_published")  # those are of JUNO alone
            numbers[f"{label}, with TAO"] = joint
    ordering = first.published.ordering[0]
    numbers["published_ordering"] = {
        "source": ordering.source,
        "years_at_3_sigma_full_power": ordering.years_full_power,
    }
    seconds = time.perf_counter() - began
    print(
        write_claim(
            a.out,
            "fit-sensitivity",
            numbers,
            command="make statistics RELEASE=folder INPUTS=file.root",
            seconds=seconds,
        )
    )
    if a.figures is not None:
        folder = output_folder(a.figures)
        for name, figure in sensitivity_figures(first).items():
            save(figure, folder / ("fit-" + name.replace("_", "-")))


if __name__ == "__main__":
    main()

"""What trained networks reached, and how long they took: a table of their own records.

python benchmarks/networks.py FOLDER [FOLDER ...] [--out docs/results]

The folders are those of `nuebar predict build network`; accuracy was measured when the training ended, at parameters of
its own box that it had not seen, against the exact spectra of the same pairs.
"""

import argparse
import json
import time
from pathlib import Path

from nuebar.jobs.record import write_claim


def row(folder):
    d = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    training = d["training"]
    recipe = training["recipe"]
    return {
        "hidden": d["architecture"]["hidden"],
        "activation": d["architecture"]["activation"],
        "outputs": d["architecture"]["outputs"],
        **{k: recipe[k] for k in ("optimiser", "learning_rate", "decay", "n_sets")},
        **{k: training[k] for k in ("steps", "seconds", "reason")},
        "spectra_seen": training["steps"] * recipe["training"]["batch"],
        "metrics": d["metrics"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--out", default="docs/results")
    a = parser.parse_args()
    began = time.perf_counter()
    rows = {}
    for folder in a.folders:
        told = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        rows[told["training"]["recipe"]["name"]] = row(folder)
    seconds = time.perf_counter() - began
    write_claim(
        a.out, "predict-networks", {"rows": rows}, command="python benchmarks/networks.py FOLDER ...", seconds=seconds
    )


if __name__ == "__main__":
    main()

"""Memory and time of folding many pairs: ``python benchmarks/memory.py FILE [FILE ...] [--out docs/results]``.

Reads the files as pairs in 400 bins and folds them into the table that harmonic predictors are built from.
"""

import argparse
import resource
import time

import numpy as np

from nuebar.jobs.record import write_claim
from nuebar.predict.folded import fold_pairs
from nuebar.predict.pairs import read_pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", default="docs/results")
    a = parser.parse_args()
    began = time.perf_counter()
    pairs = read_pairs(a.files, np.linspace(0.8, 8.8, 401))
    read = time.perf_counter() - began
    fold_pairs(pairs)
    seconds = time.perf_counter() - began
    numbers = {
        "pairs": pairs.total,
        "read_s": read,
        "fold_s": seconds - read,
        "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(numbers)
    write_claim(a.out, "predict-memory", numbers, command="python benchmarks/memory.py FILE ...", seconds=seconds)


if __name__ == "__main__":
    main()

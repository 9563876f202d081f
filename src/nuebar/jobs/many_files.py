"""Many fits as arrays of a file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nuebar.fit.many import ManyResults

__all__ = ["arrays_of", "results_of"]

_NAMES = ("numbers", "truth", "values", "errors", "chi2", "edm", "n_calls", "status", "at_limit")


def arrays_of(results: ManyResults, prefix: str = "") -> dict[str, np.ndarray]:
    """One array for each field, covariances left out.

    Args:
        results: The fits.
        prefix: Of the names, where a file holds several.
    """
    arrays = {prefix + n: np.asarray(getattr(results, n)) for n in _NAMES}
    arrays[prefix + "at_limit"] = arrays[prefix + "at_limit"].astype(np.uint8)
    return arrays


def results_of(
    arrays: Mapping[str, np.ndarray], names: Sequence[str], free: Sequence[str], prefix: str = ""
) -> ManyResults:
    """The inverse of :func:`arrays_of`; seconds are not kept.

    Args:
        arrays: Of the file.
        names: All parameters.
        free: Those that were fitted.
        prefix: As it was written.
    """
    own = {n: arrays[prefix + n] for n in _NAMES}
    own["at_limit"] = own["at_limit"].astype(bool)
    covariance = np.empty((len(own["numbers"]), 0, 0))
    return ManyResults(names=tuple(names), free=tuple(free), covariance=covariance, seconds=0.0, **own)

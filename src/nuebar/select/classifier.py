"""What every classifier promises, and the helpers that score many pairs in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.features import FEATURES

__all__ = ["CHUNK_ROWS", "Classifier", "checked_features", "score_batches", "score_in_chunks"]

CHUNK_ROWS = 2**20
"""Rows that are scored at a time, at most."""


@runtime_checkable
class Classifier(Protocol):
    """A score for every pair: ln of the odds of an antineutrino against an accidental, for balanced classes.

    A pair is kept if its score is at least a threshold. Logits and not probabilities: 1e-12 of background remains a
    number. Cuts answer +∞ or −∞, a linear cut the signed margin; their threshold is 0.
    """

    @property
    def name(self) -> str:
        """What tables and pictures call it."""
        ...

    def score(self, features: np.ndarray) -> np.ndarray:
        """Float32 features of shape ``(n, 10)`` → float64 scores of shape ``(n,)``; rows do not see each other."""
        ...


def checked_features(features: np.ndarray) -> np.ndarray:
    """The same array, if it is a matrix of features.

    Raises:
        NuebarError: Another shape or type.
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != len(FEATURES) or features.dtype != np.float32:
        raise NuebarError(
            f"features: expected float32 of shape (pairs, {len(FEATURES)}), got {features.dtype} of shape "
            f"{features.shape}; make them with features_of(pairs)"
        )
    return features


def score_in_chunks(classifier: Classifier, features: np.ndarray, *, chunk_rows: int = CHUNK_ROWS) -> np.ndarray:
    """Scores of many pairs; at most ``chunk_rows`` at a time are given to the classifier.

    Args:
        classifier: Anything that keeps the promise of :class:`Classifier`.
        features: Float32, shape ``(n, 10)``; may be a memory map.
        chunk_rows: The scores do not depend on it.

    Returns:
        float64, shape ``(n,)``.

    Raises:
        NuebarError: Features or scores of a wrong shape or type, or a score that is not a number.
    """
    if chunk_rows < 1:
        raise NuebarError(f"chunk_rows: expected a whole number above 0, got {chunk_rows}")
    features = checked_features(features)
    scores = np.empty(len(features))
    for start in range(0, len(features), chunk_rows):
        stop = min(start + chunk_rows, len(features))
        scores[start:stop] = _scored(classifier, features[start:stop], start)
    return scores


def score_batches(classifier: Classifier, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Scores batch by batch, for streams of feature matrices that do not fit into memory.

    Args:
        classifier: As in :func:`score_in_chunks`.
        batches: Feature matrices.

    Yields:
        float64 scores of each.

    Raises:
        NuebarError: As :func:`score_in_chunks`.
    """
    for batch in batches:
        yield score_in_chunks(classifier, batch)


def _scored(classifier: Classifier, features: np.ndarray, start: int) -> np.ndarray:
    scores = np.asarray(classifier.score(features))
    if scores.shape != (len(features),) or scores.dtype != np.float64:
        raise NuebarError(
            f"classifier {classifier.name!r}: expected float64 scores of shape ({len(features)},), got "
            f"{scores.dtype} of shape {scores.shape}"
        )
    bad = np.flatnonzero(np.isnan(scores))
    if bad.size:
        row = features[bad[0]].tolist()
        raise NuebarError(
            f"classifier {classifier.name!r}, pair {start + int(bad[0])}: expected a score, got NaN for the features "
            f"{row}; check them for values that are not finite"
        )
    return scores

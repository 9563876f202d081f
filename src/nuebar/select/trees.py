"""Boosted decision trees under the same contract as the network: the one door to xgboost, an optional dependency.

Histogram trees on the ten features (T. Chen and C. Guestrin, arXiv:1603.02754), logistic loss, both classes with equal
weight: the margin is the logit. With close pairs the known ln(q/p) is the base margin of the training, as for the
network; the step of a leaf is limited, as the curvature is tiny where that margin is large. Matrices are read batch by
batch and kept as bins of one byte: a tenth of a gigabyte for ten million pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.classifier import checked_features
from nuebar.select.features import FEATURES
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split, split_of
from nuebar.select.near import NearPairs, Singles, mixed
from nuebar.training import generator

__all__ = ["TreesClassifier", "require_xgboost", "train_trees"]

Progress = Callable[[str, int, int], None]

_ROWS = 2**18  # of a batch
_RESERVE = 2**20
_STREAM = 9  # of the random numbers of close pairs, apart from those of the network


def require_xgboost() -> Any:
    """The module, or one sentence that says how to get it."""
    try:
        import xgboost
    except ImportError as error:
        raise NuebarError(
            "boosted trees need the package xgboost, which is missing: pip install 'nuebar[select]' or xgboost-cpu"
        ) from error
    return xgboost


@dataclass(frozen=True, eq=False)
class TreesClassifier:
    """Boosted trees.

    Attributes:
        booster: Of xgboost.
        threads: That score; ``None`` for all.
    """

    booster: Any
    threads: int | None = None

    @property
    def name(self) -> str:
        """For tables and figures."""
        return "trees"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Margins of pairs, which are logits; see :class:`nuebar.select.classifier.Classifier`."""
        x = np.ascontiguousarray(checked_features(features))
        if not len(x):
            return np.zeros(0)
        self.booster.set_param({"nthread": self.threads or 0})
        margin = self.booster.inplace_predict(x, predict_type="margin", base_margin=np.zeros(len(x), np.float32))
        return np.asarray(margin, np.float64)

    def told(self) -> dict[str, Any]:
        """For :func:`nuebar.select.store.save_classifier`."""
        return {"rounds": int(self.booster.num_boosted_rounds())}

    def arrays(self) -> dict[str, np.ndarray]:
        """The trees in xgboost's binary JSON, as bytes."""
        return {"booster": np.frombuffer(bytes(self.booster.save_raw("ubj")), np.uint8).copy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], where: str) -> TreesClassifier:
        """From what :meth:`arrays` and :meth:`told` gave."""
        xgboost = require_xgboost()
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(arrays["booster"].tobytes()))
        except xgboost.core.XGBoostError as error:
            message = str(error).splitlines()[0]
            raise NuebarError(f"{where}: expected trees of xgboost, got {message}; train them again") from error
        if booster.num_features() != len(FEATURES) or booster.num_boosted_rounds() != int(settings["rounds"]):
            raise NuebarError(f"{where}: expected {settings['rounds']} rounds of trees of {len(FEATURES)} features")
        return cls(booster)


def train_trees(
    matrices: Matrices,
    *,
    pairs: int = 2_000_000,
    rounds: int = 500,
    depth: int = 6,
    learning_rate: float = 0.1,
    near: float = 0.5,
    patience: int = 20,
    seed: int = 1,
    threads: int = 1,
    splits: Mapping[str, Split] | None = None,
    progress: Progress | None = None,
) -> TreesClassifier:
    """Train trees on the first training pairs of each class.

    Args:
        matrices: From :func:`~nuebar.select.matrices.prepare`.
        pairs: Of each class, at most.
        rounds: Trees at most.
        depth: Of a tree.
        learning_rate: Of a round.
        near: Share of the accidentals that are made close to signal.
        patience: Rounds without a better cross-entropy of the validation pairs after which it stops.
        seed: Of the close pairs.
        threads: At work.
        splits: As for :func:`~nuebar.select.train.train_network`.
        progress: Called as ``progress("trees", rounds done, rounds)``.

    Returns:
        The classifier.

    Raises:
        NuebarError: xgboost is missing, or there are too few pairs.
    """
    xgboost = require_xgboost()
    arrays = {IBD: matrices.ibd, ACCIDENTALS: matrices.accidentals}
    splits = dict(splits or {name: split_of(name, len(a)) for name, a in arrays.items()})
    reserve = np.array(matrices.accidentals[splits[ACCIDENTALS].rows("train")][:_RESERVE])
    how = NearPairs.of(reserve, matrices.window_us, share=near)
    data: list[Any] = []
    for part, most in (("train", pairs), ("validation", min(pairs, 200_000))):
        rows = {name: a[splits[name].rows(part)][:most] for name, a in arrays.items()}
        source = _batches(xgboost, rows, how, Singles(reserve), seed)
        data.append(xgboost.QuantileDMatrix(source, max_bin=256, nthread=threads, **({"ref": data[0]} if data else {})))

    callback: Any = xgboost.callback.TrainingCallback

    class Tell(callback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if progress is not None:
                progress("trees", epoch + 1, rounds)
            return False

    booster = xgboost.train(
        {
            "objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "base_score": 0.5,
            "max_depth": depth, "learning_rate": learning_rate, "min_child_weight": 1e-3, "max_delta_step": 3.0,
            "seed": seed, "nthread": threads,
        },
        data[0],
        num_boost_round=rounds,
        evals=[(data[1], "validation")],
        early_stopping_rounds=patience,
        verbose_eval=False,
        callbacks=[Tell()],
    )  # fmt: skip
    return TreesClassifier(booster[: booster.best_iteration + 1])


def _batches(xgboost: Any, rows: Mapping[str, np.ndarray], how: NearPairs, singles: Singles, seed: int) -> Any:
    """An iterator of xgboost over both classes; every pass gives the same."""
    weight = {name: 0.5 * sum(len(a) for a in rows.values()) / len(a) for name, a in rows.items()}
    pieces = [(name, start) for name, a in rows.items() for start in range(0, len(a), _ROWS)]

    iterator: Any = xgboost.DataIter

    class Pieces(iterator):
        def __init__(self) -> None:
            self.at = 0
            super().__init__()

        def next(self, input_data: Callable[..., None]) -> bool:
            if self.at == len(pieces):
                return False
            name, start = pieces[self.at]
            x = np.array(rows[name][start : start + _ROWS])
            offset = how.log_ratio(x)
            if name == ACCIDENTALS and how.share:
                x, offset = mixed(how, x, singles, generator(seed, _STREAM, start))
            input_data(
                data=x,
                label=np.full(len(x), float(name == IBD)),
                weight=np.full(len(x), weight[name]),
                base_margin=-offset.astype(np.float32),
            )
            self.at += 1
            return True

        def reset(self) -> None:
            self.at = 0

    return Pieces()

"""Classifiers as folders: arrays in safetensors, everything else in JSON; and a word for the one that ships."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.models import load_model, save_model
from nuebar.io.results import versions
from nuebar.select.classifier import Classifier
from nuebar.select.features import FEATURES
from nuebar.select.network import NetworkClassifier, skeleton
from nuebar.select.ratio import RatioClassifier
from nuebar.select.train import TrainedNetwork
from nuebar.select.trees import TreesClassifier
from nuebar.training import named_arrays, with_arrays

__all__ = [
    "MODELS",
    "PRETRAINED",
    "classifier_folder",
    "describe_classifier",
    "describe_training",
    "load_classifier",
    "save_classifier",
]

MODELS = Path(__file__).parents[1] / "models" / "select"
PRETRAINED = ("network",)
"""Words for the classifiers of an installation: :data:`MODELS` holds the one of that word."""

KIND = "pair classifier"
_LIMITS = ("window_ms", "threshold_MeV")


def classifier_folder(word: str | os.PathLike[str]) -> Path:
    """The folder that a word or a path means.

    Args:
        word: One of :data:`PRETRAINED`, or a folder.

    Raises:
        NuebarError: There is no classifier, or a word means two.
    """
    path = Path(word)
    if str(word) in PRETRAINED:
        if (path / "model.json").is_file():
            raise NuebarError(
                f"classifier {str(word)!r}: expected one, got the shipped one and a folder; write ./{word} for "
                "the folder"
            )
        path = MODELS
        if not (path / "model.json").is_file():
            raise NuebarError(
                f"the trained classifier {str(word)!r} is not in this installation; make one with 'nuebar select "
                "train' and give its folder"
            )
    if not (path / "model.json").is_file():
        raise NuebarError(
            f"classifier {str(word)!r}: expected one of {', '.join(PRETRAINED)}, or a folder of 'nuebar select train'"
        )
    return path


def save_classifier(
    classifier: NetworkClassifier | TreesClassifier | RatioClassifier,
    folder: str | os.PathLike[str],
    *,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write a network, trees or a likelihood ratio.

    Args:
        classifier: What to write.
        folder: Output folder, made if missing.
        training: How it was trained, such as from :func:`describe_training`.
        metrics: How good it is, JSON-able.
        provenance: Where it is from; for people.

    Returns:
        The two files.
    """
    settings: dict[str, Any]
    if isinstance(classifier, NetworkClassifier):
        settings = {"hidden": list(classifier.hidden), "inputs": classifier.inputs}
        arrays = named_arrays(classifier)
    else:
        settings, arrays = classifier.told(), classifier.arrays()
    description = {
        "kind": KIND,
        "classifier": classifier.name,
        "features": list(FEATURES),
        "settings": settings,
        "provenance": dict(provenance or {}),
        "training": dict(training or {}),
        "metrics": dict(metrics or {}),
        "versions": versions(),
    }
    return save_model(folder, arrays, description)


def describe_training(trained: TrainedNetwork, command: str = "") -> dict[str, Any]:
    """What a model's description tells of its training.

    Args:
        trained: From :func:`nuebar.select.train.train_network`.
        command: That made it.
    """
    history = [
        [p.step, float(f"{p.loss:.6g}"), float(f"{p.validation:.6g}"), round(p.seconds, 1)] for p in trained.history
    ]
    return {
        "command": command,
        "recipe": trained.recipe.told(),
        "data": trained.digest,
        **{name: trained.made_from[name] for name in _LIMITS},
        "rows": {
            name: {"prepared": trained.made_from[name]["rows"], "read": trained.made_from[name]["read"], **vars(split)}
            for name, split in trained.splits.items()
        },
        "sources": {
            name: [str(s[0]) for s in trained.made_from[name]["made_from"]["sources"]] for name in trained.splits
        },
        "reason": trained.reason,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "best_cross_entropy": trained.best,
        "seconds": round(trained.seconds, 1),
        "weights": trained.network.n_weights,
        "history": history,
    }


def describe_classifier(word: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a stored classifier: settings, training with window and threshold, metrics, provenance."""
    return load_model(classifier_folder(word))[1]


def load_classifier(word: str | os.PathLike[str]) -> Classifier:
    """Read a classifier.

    Args:
        word: One of :data:`PRETRAINED`, or a folder as written by :func:`save_classifier`.

    Returns:
        The classifier.

    Raises:
        NuebarError: There is none, it was altered, or its arrays do not fit together.
    """
    folder = classifier_folder(word)
    arrays, d = load_model(folder)
    if d.get("kind") != KIND or str(d.get("classifier")) not in _LOADERS:
        raise NuebarError(
            f"{folder}: expected a {KIND} ({', '.join(_LOADERS)}), got {d.get('kind')!r} {d.get('classifier')!r}; "
            "train one with 'nuebar select train'"
        )
    if d.get("features") != list(FEATURES):
        raise NuebarError(
            f"{folder}: expected the features {', '.join(FEATURES)}, got {d.get('features')}; train again"
        )
    try:
        return _LOADERS[d["classifier"]](arrays, d["settings"], str(folder))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NuebarError(
            f"{folder}: the description of the classifier is incomplete ({type(error).__name__}: {error}); train again"
        ) from error


def _network(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], where: str) -> Classifier:
    network = with_arrays(skeleton([int(n) for n in settings["hidden"]], str(settings["inputs"])), arrays, where)
    if not np.all(np.asarray(network.scale) > 0):
        raise NuebarError(f"{where}: expected scales above 0, got others; train it again")
    loaded: Classifier = jax.tree.map(jnp.asarray, network)
    return loaded


_LOADERS = {"network": _network, "trees": TreesClassifier.from_arrays, "ratio": RatioClassifier.from_arrays}

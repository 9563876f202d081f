"""How the network is trained: the published recipe as far as it is known, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optax

from nuebar.errors import NuebarError
from nuebar.select.network import HIDDEN, skeleton

__all__ = ["RECIPES", "Recipe", "optimiser_of", "recipe_from"]

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that the weights depend on, but the data.

    Attributes:
        hidden: Units of the hidden layers.
        inputs: Map from features to inputs, see :mod:`nuebar.select.network`.
        near: Share of the accidentals that are made close to signal, see :mod:`nuebar.select.near`; 0 for none.
        epochs: Times that the larger class is seen.
        batch: Pairs of a step, half of each class.
        learning_rate: The largest one.
        weight_decay: Of AdamW; 0 is Adam.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        schedule: constant; cosine (down to ``floor`` at the end of the training).
        floor: Lowest learning rate of the cosine, relative to the largest.
        warm_up: Steps of a linear rise to the largest learning rate, a tenth of the training at most.
        patience: Validations without improvement after which it stops; ``None`` never stops early.
        validations: How many there are in the training.
        seed: Of weights and minibatches.
    """

    hidden: tuple[int, ...] = HIDDEN
    inputs: str = "linear"
    near: float = 0.0
    epochs: float = 10.0
    batch: int = 8192
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: str = "cosine"
    floor: float = 0.0
    warm_up: int = 0
    patience: int | None = None
    validations: int = 40
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        object.__setattr__(self, "hidden", tuple(self.hidden))
        skeleton(self.hidden, self.inputs)
        if self.schedule not in SCHEDULES:
            raise NuebarError(f"recipe schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        ranges = {
            "near": (0, 0.99), "epochs": (1e-6, 1e6), "learning_rate": (1e-8, 1), "weight_decay": (0, 1),
            "beta1": (0, 0.9999), "beta2": (0, 0.999999), "floor": (0, 1),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise NuebarError(f"recipe {name}: expected a number from {low} to {high}, got {value!r}")
        for name, least in (("batch", 2), ("warm_up", 0), ("validations", 1), ("seed", 0), ("patience", 1)):
            value = getattr(self, name)
            if (name, value) != ("patience", None) and (type(value) is not int or value < least):
                raise NuebarError(f"recipe {name}: expected a whole number of at least {least}, got {value!r}")
        if self.batch % 2:
            raise NuebarError(f"recipe batch: expected an even number, half of each class, got {self.batch}")

    def told(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def recipe_from(told: Mapping[str, Any], where: str) -> Recipe:
    """A recipe as :meth:`Recipe.told` gave it.

    Args:
        told: Its entries.
        where: For the message: the file.

    Raises:
        NuebarError: An entry is unknown or out of range.
    """
    try:
        return Recipe(**told)
    except (TypeError, ValueError) as error:
        raise NuebarError(f"{where}: expected a recipe, got {type(error).__name__}: {error}; correct it") from error


RECIPES: Mapping[str, Recipe] = {
    # Architecture, loss and optimiser are published; batch and learning rate are Keras' usual ones, larger (nominal).
    "published": Recipe(epochs=10.0, batch=4096, learning_rate=1e-3, schedule="constant", patience=10),
    "network": Recipe(inputs="shaped", near=0.5, epochs=15.0, batch=8192, learning_rate=2e-3, warm_up=500),
}
"""Recipes by name: as published, and that of the shipped network. Both have the published architecture."""


def optimiser_of(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """The optimiser of a recipe.

    Args:
        recipe: What is wanted.
        steps: Of the whole training.
    """
    import jax.numpy as jnp

    warm_up = min(recipe.warm_up, steps // 10)  # a short training would end before it

    def rate(step: Any) -> Any:
        factor: Any = 1.0
        if recipe.schedule == "cosine":
            factor = recipe.floor + (1 - recipe.floor) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1.0)))
        if warm_up:
            factor = factor * jnp.minimum(1.0, (step + 1) / warm_up)
        return recipe.learning_rate * factor

    if recipe.weight_decay:
        return optax.adamw(rate, b1=recipe.beta1, b2=recipe.beta2, weight_decay=recipe.weight_decay)
    return optax.adam(rate, b1=recipe.beta1, b2=recipe.beta2)

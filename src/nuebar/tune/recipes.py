"""How densities are trained: the published recipes, those of the shipped models, optimisers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import optax

from nuebar.errors import NuebarError
from nuebar.tune.planar import PlanarSettings
from nuebar.tune.spline import SplineSettings
from nuebar.tune.tede import TedeSettings

__all__ = ["KINDS", "RECIPES", "Recipe", "Settings", "optimiser_of", "recipe_from"]

Settings = TedeSettings | PlanarSettings | SplineSettings
KINDS: Mapping[str, type[Any]] = {"tede": TedeSettings, "planar": PlanarSettings, "spline": SplineSettings}
OPTIMISERS = ("adamw", "rmsprop")
SCHEDULES = ("constant", "exponential", "cosine", "plateau")
_PLATEAU_EPOCHS = 3  # of waiting, as in the authors' scripts


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that the weights of a trained density depend on, but the data.

    Attributes:
        settings: Sizes; their type says which density it is.
        epochs: At most. An epoch of TEDE sees every histogram once; one of a flow visits every point once.
        batch: Histograms of a step (TEDE), or points of a step, with all their sources (flows).
        events: Events of every source and point in a step (flows).
        optimiser: adamw or rmsprop.
        learning_rate: The largest one.
        weight_decay: Of AdamW, or added to RMSprop.
        beta1: Decay of the first moment of AdamW.
        beta2: Decay of the second moment.
        alpha: Decay of RMSprop.
        schedule: constant; exponential (times ``decay`` every epoch); cosine (down in ``period`` epochs, up in as
            many); plateau (times ``decay`` after three epochs without a better training loss).
        decay: See schedule.
        period: See schedule.
        floor: Lowest learning rate of the cosine, relative to the largest.
        warm_up: Steps of a linear rise to the largest learning rate.
        patience: Validations without improvement after which it stops.
        validate_every: Steps between validations.
        seed: Of weights and minibatches.
    """

    settings: Settings
    epochs: int
    batch: int
    events: int = 0
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    alpha: float = 0.99
    schedule: str = "cosine"
    decay: float = 1.0
    period: float = 50.0
    floor: float = 0.0
    warm_up: int = 0
    patience: int | None = None
    validate_every: int = 1000
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name, choices in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise NuebarError(f"recipe {name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch", "validate_every"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise NuebarError(f"recipe {name}: expected a whole number above 0, got {getattr(self, name)!r}")
        ranges = {
            "learning_rate": (0, 1), "weight_decay": (0, 1), "beta1": (0, 1), "beta2": (0, 1), "alpha": (0, 1),
            "decay": (0, 1), "floor": (0, 1), "period": (0, np.inf), "warm_up": (0, np.inf),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise NuebarError(f"recipe {name}: expected a number from {low} to {high}, got {getattr(self, name)!r}")
        if self.kind != "tede" and (type(self.events) is not int or self.events < 1):
            raise NuebarError(f"recipe events: expected a whole number above 0 for a flow, got {self.events!r}")

    @property
    def kind(self) -> str:
        """tede, planar or spline."""
        return next(name for name, cls in KINDS.items() if isinstance(self.settings, cls))

    def told(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"kind": self.kind, **asdict(self)}


def recipe_from(told: Mapping[str, Any], where: str) -> Recipe:
    """A recipe as :meth:`Recipe.told` gave it.

    Args:
        told: Its entries.
        where: For the message: the file.

    Raises:
        NuebarError: An entry is missing, unknown or out of range.
    """
    try:
        entries = dict(told)
        settings = KINDS[entries.pop("kind")](**entries.pop("settings"))
        return Recipe(settings=settings, **entries)
    except (KeyError, TypeError, ValueError) as error:
        raise NuebarError(f"{where}: expected a recipe, got {type(error).__name__}: {error}; correct it") from error


PUBLISHED_TEDE = Recipe(
    settings=TedeSettings(), epochs=400, batch=64, learning_rate=1.9e-3, weight_decay=8e-5, beta1=0.930, beta2=0.929,
    schedule="exponential", decay=0.92, patience=200, validate_every=723,
)  # fmt: skip
PUBLISHED_PLANAR = Recipe(
    settings=PlanarSettings(), epochs=200, batch=10, events=10_000, learning_rate=1e-4, weight_decay=1e-4, beta1=0.87,
    beta2=0.901, schedule="cosine", period=50, floor=0.01, patience=100, validate_every=926,
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = {
    "tede": replace(
        PUBLISHED_TEDE, settings=TedeSettings(reference=96), epochs=60, learning_rate=6e-4, beta1=0.9, beta2=0.999,
        schedule="cosine", period=60, warm_up=1000, patience=None, validate_every=2500,
    ),
    "tede-plain": replace(
        PUBLISHED_TEDE, epochs=120, learning_rate=6e-4, beta1=0.9, beta2=0.999, schedule="cosine", period=120,
        warm_up=1000, patience=None, validate_every=2500,
    ),
    "tede-published": PUBLISHED_TEDE,
    "planar": replace(
        PUBLISHED_PLANAR, epochs=30, events=2_000, learning_rate=1e-3, beta1=0.9, beta2=0.99, period=30, floor=0.0,
        warm_up=500, patience=None, validate_every=1000,
    ),
    "planar-published": PUBLISHED_PLANAR,
    "spline": Recipe(
        settings=SplineSettings(), epochs=600, batch=16, events=1000, learning_rate=5e-4, beta2=0.99, period=600,
        floor=1e-3, warm_up=500, validate_every=2000,
    ),
}  # fmt: skip
"""Recipes by name: of the shipped models, and as published (a batch of 50 histograms is ten points of five sources)."""


def optimiser_of(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser of a recipe.

    Args:
        recipe: What is wanted.
        steps_per_epoch: Of its training data.
    """
    rate = _rate(recipe, steps_per_epoch)
    if recipe.optimiser == "adamw":
        chain = optax.adamw(rate, b1=recipe.beta1, b2=recipe.beta2, weight_decay=recipe.weight_decay)
    else:
        chain = optax.chain(
            optax.add_decayed_weights(recipe.weight_decay),
            optax.rmsprop(rate, decay=recipe.alpha, eps=1e-8, eps_in_sqrt=False),
        )
    if recipe.schedule == "plateau":
        from optax.contrib import reduce_on_plateau

        wait = reduce_on_plateau(
            factor=recipe.decay, patience=_PLATEAU_EPOCHS, rtol=1e-4, accumulation_size=steps_per_epoch
        )
        chain = optax.chain(chain, wait)
    return chain


def _rate(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    import jax.numpy as jnp

    def rate(step: Any) -> Any:
        epoch = step / steps_per_epoch
        factor: Any = 1.0
        if recipe.schedule == "exponential":
            factor = recipe.decay ** jnp.floor(epoch)
        elif recipe.schedule == "cosine":
            down = 0.5 * (1 + jnp.cos(jnp.pi * epoch / recipe.period))
            factor = recipe.floor + (1 - recipe.floor) * down
        if recipe.warm_up:
            factor = factor * jnp.minimum(1.0, (step + 1) / recipe.warm_up)
        return recipe.learning_rate * factor

    return rate

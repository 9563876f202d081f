"""The commands of ``nuebar config``: the experiments and their numbers."""

from __future__ import annotations

from cyclopts import App

from nuebar.commands_options import Debug
from nuebar.commands_terminal import say

__all__ = ["config"]

config = App(name="config", help="Look at experiments.")


@config.command(name="show")
def config_show(experiment: str = "juno", *, debug: Debug = False) -> int:
    """Print an experiment with every default written out, as TOML."""
    from nuebar.config import load_experiment, show

    say(show(load_experiment(experiment)).rstrip())
    return 0


@config.command(name="list")
def config_list(*, debug: Debug = False) -> int:
    """List the built-in experiments."""
    from nuebar.config import available_experiments, load_experiment

    for name in available_experiments():
        say(f"{name:14s} {load_experiment(name).title}")
    return 0

"""What other measurements say of nuisance parameters, as the stage ``simulate`` has left it."""

from __future__ import annotations

from pathlib import Path

from nuebar.errors import NuebarError
from nuebar.io.results import load_result

__all__ = ["load_centres"]


def load_centres(home: Path) -> dict[str, float]:
    """Centres of priors by parameter; none where the data are not simulated.

    Args:
        home: Folder of the run.
    """
    path = home / "simulate" / "auxiliary.json"
    if not path.exists():
        return {}
    try:
        return {str(name): float(x) for name, x in load_result(path)["centres"].items()}
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise NuebarError(f"{path}: expected centres by parameter; the file is damaged") from error

"""The command ``nuebar fit posterior``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, Words
from nuebar.commands_terminal import progress_line, say

__all__ = ["fit_posterior"]


def fit_posterior(
    *,
    model: ModelOptions = ModelOptions(),
    data: str | None = None,
    asimov: Flag = False,
    samples: int = 4000,
    chains: int = 4,
    flat: Words = (),
    determinant: Flag = False,
    no_barriers: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Bayesian posterior of a spectrum fit by NUTS, next to the best fit.

    The pulls are the priors; parameters without one have a flat prior within their limits. Several minima of
    dm2_31_eV2 are looked for and sampled with their weights. Exit code 3 when the chains or the fit are not valid.

    Parameters
    ----------
    data
        A measured spectrum: CSV (low_MeV,high_MeV,counts), UHI JSON, or file.root:key.
    asimov
        Use the expected counts, also where a release has a spectrum; without data or a release they always are.
    samples
        Draws of all chains together.
    chains
        Number of chains.
    flat
        Parameters whose prior is taken away: flat within their limits.
    determinant
        Integrate bin-to-bin deviations out (a factor that depends on the parameters) instead of profiling them.
    no_barriers
        Do not look for several minima of dm2_31_eV2.
    no_pictures
        Write no pictures.
    seed
        Of the draws.
    out
        Output folder: posterior.json, posterior.csv, samples.safetensors, posterior.png. Without it nothing is kept.
    """
    from nuebar.jobs.posterior import PosteriorJob, posterior_report, run_posterior, write_posterior

    expected = asimov or (data is None and model.release is None)
    outcome = run_posterior(
        PosteriorJob(
            fit=model.job(data=data, asimov=expected, seed=seed),
            samples=samples,
            chains=chains,
            flat=tuple(flat),
            determinant=determinant,
            barriers=not no_barriers,
            seed=seed,
        ),
        progress=progress_line(),
    )
    say(posterior_report(outcome))
    if out is not None:
        written = write_posterior(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT

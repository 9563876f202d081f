"""The commands of ``nuebar select``: antineutrino candidates from streams, and the classifiers that find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from nuebar.commands_options import Debug, Flag, Numbers, Words
from nuebar.commands_terminal import progress_line, say
from nuebar.errors import NuebarError

if TYPE_CHECKING:
    from nuebar.jobs.select_data import PairFiles

__all__ = ["select"]

select = App(name="select", help="Select antineutrinos: train classifiers, compare them with cuts, apply, explain.")
Ibd = Annotated[str | None, Parameter(help="Antineutrino pairs: files, or a folder of nuebar simulate ibd.")]
Accidentals = Annotated[
    str | None, Parameter(help="Accidental pairs: files, or a folder of nuebar simulate singles --pairs.")
]
Pairs = Annotated[
    str | None, Parameter(name="--pairs", help="Files with pairs of both classes, instead; with --label.")
]
Label = Annotated[str | None, Parameter(help="Their column of 1 for antineutrinos and 0 for accidental pairs.")]
Columns = Annotated[Path | None, Parameter(help="TOML file with a column map.")]
Prepared = Annotated[
    Path | None, Parameter(help="Folder of prepared pairs (OUT/pairs by default); once there, it replaces the files.")
]
Selection = Annotated[
    str, Parameter(help="published, or a TOML file: pair window, threshold, cuts, multiplicity, veto, real rates.")
]
Most = Annotated[int | None, Parameter(name="--train-pairs", help="Pairs of each class to train on, at most.")]
Singles = Annotated[int, Parameter(help="Single events that are recombined to count small backgrounds, at most.")]
Budget = Annotated[float | None, Parameter(help="Start nothing new after so many seconds; the same command continues.")]
InAll = Annotated[float | None, Parameter(help="Stop after so many seconds, earlier calls included; more continues.")]


@select.command(name="train")
def select_train(
    *,
    recipe: str = "network",
    ibd: Ibd = None,
    accidentals: Accidentals = None,
    pairs: Pairs = None,
    label: Label = None,
    columns: Columns = None,
    prepared: Prepared = None,
    selection: Selection = "published",
    train_pairs: Most = None,
    epochs: float | None = None,
    seed: int | None = None,
    max_seconds: InAll = None,
    singles: Singles = 200_000,
    no_pictures: Flag = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Train a classifier on simulated pairs or on your own.

    Parameters
    ----------
    recipe
        network (the shipped one), published, trees, ratio, or a JSON file such as best.json of a search.
    epochs
        Instead of the recipe's: times that the larger class is seen.
    seed
        Instead of the recipe's: of weights and minibatches.
    out
        Folder of the model; the same command continues a training there.
    """
    from nuebar.jobs.select_train import SelectTrainJob, run_train, train_report

    options = {
        "recipe": recipe, "ibd": ibd, "accidentals": accidentals, "pairs": pairs, "label": label,
        "prepared": prepared, "selection": selection, "train-pairs": train_pairs, "epochs": epochs, "seed": seed,
    }  # fmt: skip
    job = SelectTrainJob(
        files=_files(ibd, accidentals, pairs, label, columns, prepared),
        recipe=recipe,
        selection=selection,
        pairs=train_pairs,
        epochs=epochs,
        seed=seed,
        max_seconds=max_seconds,
        singles=singles,
        command=_command("train", options),
    )
    trained = run_train(job, out, progress=progress_line())
    say(train_report(trained))
    say(f"model: {out}")
    history = trained.training.get("history")
    if history and not no_pictures:
        from nuebar.jobs.select_pictures import draw_training

        draw_training(history, trained.classifier.name, out)
    return 0


@select.command(name="search")
def select_search(
    *,
    ibd: Ibd = None,
    accidentals: Accidentals = None,
    pairs: Pairs = None,
    label: Label = None,
    columns: Columns = None,
    prepared: Prepared = None,
    selection: Selection = "published",
    recipe: str = "network",
    trials: int = 30,
    trial_pairs: int = 10_000_000,
    train_pairs: Most = None,
    trial_seconds: float | None = None,
    max_seconds: Budget = None,
    pruner: Literal["median", "halving", "none"] = "median",
    seed: int = 1,
    out: Path,
    debug: Debug = False,
) -> int:
    """Search hyper-parameters of the network.

    Parameters
    ----------
    recipe
        What is not searched, and the first trial: network, published, or a JSON file.
    trials
        In all, those of earlier calls included.
    trial_pairs
        Pairs that a trial trains on, both classes and repetitions counted.
    trial_seconds
        Time of a trial at most.
    pruner
        Ends trials that lag behind.
    out
        Folder of the study; the same command continues it. best.json there is a recipe for nuebar select train.
    """
    from nuebar.jobs.select_search import SelectSearchJob, run_search, search_report

    job = SelectSearchJob(
        files=_files(ibd, accidentals, pairs, label, columns, prepared),
        selection=selection,
        recipe=recipe,
        trials=trials,
        trial_pairs=trial_pairs,
        pairs=train_pairs,
        max_seconds=trial_seconds,
        timeout=max_seconds,
        pruner=pruner,
        seed=seed,
    )
    result = run_search(job, out, progress=progress_line())
    say(search_report(result))
    say(f"study: {out / 'study.json'}, best recipe: {out / 'best.json'}")
    return 0


@select.command(name="apply")
def select_apply(
    stream: str,
    /,
    *,
    classifier: str = "network",
    at: str = "cuts",
    threshold: float | None = None,
    selection: Selection = "published",
    columns: Columns = None,
    muon_MeV: Annotated[float, Parameter(name="--muon-MeV")] = 100.0,
    max_dr: float = 5.0,
    fiducial: float | None = None,
    delayed_MeV: Annotated[float | None, Parameter(name="--delayed-MeV")] = None,
    muon_veto_ms: float | None = None,
    off_ms: float = 10.0,
    off_windows: int = 20,
    bins: int = 113,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.7,
    high_MeV: Annotated[float, Parameter(name="--to")] = 12.0,
    out: Path,
    debug: Debug = False,
) -> int:
    """Select candidates from a detector stream, and measure their accidental background off time.

    Parameters
    ----------
    stream
        A file, a folder (such as that of nuebar simulate stream) or a pattern: events in order of time.
    classifier
        network (the shipped one), a folder of nuebar select train, or cuts.
    at
        Operating point of the classifier: cuts (the background of the cuts), cuts-0.1, cuts-0.01, f1, f1-balanced,
        efficiency or purity (those of the cuts).
    threshold
        Instead: the least score, a logit, that is kept.
    muon_MeV
        Events with more energy are muons.
    max_dr
        Pairs of vertices further apart, in metres, are not scored; 0 for no limit.
    fiducial
        Only pairs with a prompt vertex inside of this radius, in metres, are scored.
    delayed_MeV
        Only pairs with at least this delayed energy are scored.
    muon_veto_ms
        Dead time after a muon, instead of that of the selection; 0 for no veto.
    off_ms
        Distance of the off-time windows.
    off_windows
        Number of off-time windows.
    bins
        Bins of the histograms of prompt energy, from --from to --to.
    low_MeV
        Lower end of the first of them.
    high_MeV
        Upper end of the last of them.
    out
        Folder for candidates.parquet, histograms and summary.json.
    """
    from nuebar.jobs.select_apply import SelectApplyJob, apply_report, run_apply

    if max_dr < 0:
        raise NuebarError(f"--max-dr: expected metres above 0, or 0 for no limit, got {max_dr:g}")
    options = {"classifier": classifier, "at": at, "threshold": threshold, "selection": selection, "max-dr": max_dr}
    options |= {"fiducial": fiducial, "delayed-MeV": delayed_MeV, "muon-veto-ms": muon_veto_ms}
    stage = Path(stream) / "stream"
    job = SelectApplyJob(
        stream=str(stage) if stage.is_dir() else stream,
        classifier=classifier,
        at=at,
        threshold=threshold,
        selection=selection,
        columns=None if columns is None else str(columns),
        muon_MeV=muon_MeV,
        max_dr_m=max_dr or None,
        fiducial_m=fiducial,
        delayed_MeV=delayed_MeV,
        muon_veto_ms=muon_veto_ms,
        offset_ms=off_ms,
        windows=off_windows,
        bins=bins,
        low_MeV=low_MeV,
        high_MeV=high_MeV,
        command=_command(f"apply {Path(stream).name}", options),
    )
    say(apply_report(run_apply(job, out, progress=progress_line())))
    say(f"candidates: {out / 'candidates.parquet'}")
    return 0


@select.command(name="compare")
def select_compare(
    *,
    model: Words = (),
    ibd: Ibd = None,
    accidentals: Accidentals = None,
    pairs: Pairs = None,
    label: Label = None,
    columns: Columns = None,
    prepared: Prepared = None,
    selection: Selection = "published",
    trees: Flag = False,
    no_ratio: Flag = False,
    train_pairs: Most = None,
    test_pairs: int | None = None,
    singles: Singles = 200_000,
    window_ms: Numbers = (),
    singles_factor: Numbers = (),
    efficiency: float | None = None,
    purity: float | None = None,
    seed: int = 1,
    no_pictures: Flag = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Compare cuts, lines, trained classifiers and the likelihood ratio on pairs that none was trained on.

    Parameters
    ----------
    model
        network (the shipped one, the default) and folders of nuebar select train.
    trees
        Train boosted trees here, too.
    no_ratio
        Leave the likelihood ratio of the Monte Carlo out.
    test_pairs
        Pairs of each class to judge by, at most.
    window_ms
        Shorter pair windows to compare in; 1 by default.
    singles_factor
        Rates of singles relative to the selection's; 0.5, 1 and 2 by default.
    efficiency
        Wanted, for an operating point; that of the cuts by default.
    purity
        Wanted, likewise.
    seed
        Of trees and recombined pairs.
    out
        Folder for compare.json, compare.txt and pictures.
    """
    from nuebar.jobs.select_compare import SelectCompareJob, run_compare
    from nuebar.jobs.select_text import compare_report

    options = {
        "model": " ".join(Path(m).name for m in model) if model else None, "ibd": ibd, "accidentals": accidentals,
        "pairs": pairs, "label": label, "prepared": prepared, "selection": selection, "trees": trees or None,
        "no-ratio": no_ratio or None, "train-pairs": train_pairs, "test-pairs": test_pairs, "singles": singles,
        "seed": seed,
    }  # fmt: skip
    job = SelectCompareJob(
        files=_files(ibd, accidentals, pairs, label, columns, prepared),
        models=model or ("network",),
        selection=selection,
        trees=trees,
        ratio=not no_ratio,
        pairs=train_pairs,
        test=test_pairs,
        singles=singles,
        windows_ms=window_ms,
        factors=singles_factor or (0.5, 1.0, 2.0),
        efficiency=efficiency,
        purity=purity,
        seed=seed,
        command=_command("compare", options),
    )
    say(compare_report(run_compare(job, out, pictures=not no_pictures, progress=progress_line())))
    say(f"written: {out / 'compare.json'}")
    return 0


@select.command(name="explain")
def select_explain(
    *,
    classifier: str = "network",
    ibd: Ibd = None,
    accidentals: Accidentals = None,
    pairs: Pairs = None,
    label: Label = None,
    columns: Columns = None,
    prepared: Prepared = None,
    selection: Selection = "published",
    events: int = 20_000,
    event: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    sample: str | None = None,
    output: Literal["probability", "logit"] = "probability",
    background: int = 200,
    threshold: float | None = None,
    seed: int = 1,
    no_pictures: Flag = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Explain what a classifier does: importance of the features, and the reasons for single pairs.

    Parameters
    ----------
    classifier
        network (the shipped one), or a folder of nuebar select train.
    events
        Held-out pairs that are explained, half of each class.
    event
        Numbers of pairs to explain one by one: rows of --sample, or of the explained pairs, antineutrinos first.
    sample
        File of pairs with these rows, such as candidates.parquet of nuebar select apply.
    output
        What is explained.
    background
        Pairs that unknown features are taken from.
    threshold
        Of the boundary; the operating point "cuts" of the classifier by default.
    out
        Folder for explain.json, shapley.safetensors and pictures.
    """
    from nuebar.jobs.select_explain import SelectExplainJob, explain_report, run_explain

    job = SelectExplainJob(
        files=_files(ibd, accidentals, pairs, label, columns, prepared),
        classifier=classifier,
        selection=selection,
        events=events,
        sample=sample,
        columns=None if columns is None else str(columns),
        named=tuple(event or ()),
        output=output,
        background=background,
        threshold=threshold,
        seed=seed,
    )
    found = run_explain(job, out, progress=progress_line())
    say(explain_report(found))
    if not no_pictures:
        from nuebar.jobs.select_pictures import draw_explained

        say("written: " + ", ".join(str(path) for path in draw_explained(found, out)))
    return 0


def _files(
    ibd: str | None,
    accidentals: str | None,
    pairs: str | None,
    label: str | None,
    columns: Path | None,
    prepared: Path | None,
) -> PairFiles:
    from nuebar.jobs.select_data import PairFiles

    return PairFiles(
        ibd,
        accidentals,
        pairs,
        label,
        None if columns is None else str(columns),
        None if prepared is None else str(prepared),
    )


def _command(name: str, options: Mapping[str, object]) -> str:
    """The command for a record: files by their names, no folders of this machine."""
    files = ("ibd", "accidentals", "pairs", "prepared", "selection", "recipe", "classifier")
    words = [f"nuebar select {name}"]
    for key, value in options.items():
        if value is None:
            continue
        words.append(f"--{key}" if value is True else f"--{key} {Path(str(value)).name if key in files else value}")
    return " ".join(words)

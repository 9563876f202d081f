"""What ``nuebar select apply`` does: a stream becomes a sample of candidates with its measured background.

Pairs are found, scored and written batch by batch, so memory does not depend on the length of the stream. Pairs of
vertices further apart than ``max_dr_m`` are never scored, on time and off time alike: that is part of the selection, as
are the fiducial volume of the prompt vertex and the least delayed energy, where they are asked for. What a candidate is
says :class:`PairDecision`, which also decides on simulated pairs when an efficiency is measured.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.events import Column, EventFile, EventWriter
from nuebar.io.files import output_folder
from nuebar.io.histograms import Histogram
from nuebar.io.results import save_result, versions
from nuebar.jobs.select_data import check_limits
from nuebar.run.lock import hold
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.config import SelectionConfig, load_selection
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import PAIR_COLUMNS, features_of
from nuebar.select.offtime import AccidentalSum, OffTime, OnOffPairs
from nuebar.select.pairs import STREAM_COLUMNS, Isolation, MuonVeto, PairOptions, PairSummary
from nuebar.select.store import describe_classifier, load_classifier

__all__ = [
    "CUTS",
    "PairDecision",
    "SelectApplyJob",
    "apply_report",
    "chosen_threshold",
    "pair_options",
    "run_apply",
]

Progress = Callable[[str, int, int], None]

CUTS = "cuts"
"""The word for the box cuts of the selection."""

_DAY_s = 86400.0
_TRUTH = ("true_kind", "true_pair", "true_e_nu_MeV")
_EVENT = ("e_rec_MeV", "x_m", "y_m", "z_m")
_READ_AHEAD = 2  # batches
_LARGEST = 1e300  # JSON and our files know no infinity


@dataclass(frozen=True, kw_only=True)
class SelectApplyJob:
    """What ``nuebar select apply`` was asked for.

    Attributes:
        stream: A file, folder or pattern.
        classifier: A word or folder of a trained one, or :data:`CUTS`.
        at: Operating point of the classifier's description.
        threshold: Instead: least score that is kept.
        selection: Name or TOML file: window, threshold, multiplicity, veto.
        columns: TOML file with a column map.
        muon_MeV: Events with more are muons.
        max_dr_m: Pairs further apart are not scored; ``None`` for no limit.
        offset_ms: Distance of the off-time windows.
        windows: How many.
        bins: Of the histograms.
        low_MeV: Their lower end.
        high_MeV: Their upper end.
        command: For the record.
        fiducial_m: The prompt vertex is inside of this radius; ``None`` for anywhere.
        delayed_MeV: Least energy of the delayed event, if more than the threshold.
        muon_veto_ms: Instead of that of the selection; 0 for no veto.
        truth: Whether columns ``true_…`` are read if they are there.
        off_time_sample: Off-time pairs that are written with their scores, at most; 0 for none.
    """

    stream: str
    classifier: str = "network"
    at: str = "cuts"
    threshold: float | None = None
    selection: str = "published"
    columns: str | None = None
    muon_MeV: float = 100.0
    max_dr_m: float | None = 5.0
    offset_ms: float = 10.0
    windows: int = 20
    bins: int = 113
    low_MeV: float = 0.7
    high_MeV: float = 12.0
    command: str = ""
    fiducial_m: float | None = None
    delayed_MeV: float | None = None
    muon_veto_ms: float | None = None
    truth: bool = True
    off_time_sample: int = 0

    def __post_init__(self) -> None:
        for name, high in (("fiducial_m", 1000.0), ("delayed_MeV", 100.0)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= high:
                raise NuebarError(f"{name}: expected a number above 0, at most {high:g}, got {value}; correct it")
        if self.muon_veto_ms is not None and not 0 <= self.muon_veto_ms <= 1e6:
            raise NuebarError(
                f"muon_veto_ms: expected milliseconds, at most 1e6, or 0 for no veto, got {self.muon_veto_ms}"
            )
        if self.off_time_sample < 0:
            raise NuebarError(
                f"off_time_sample: expected a number of pairs, or 0 for none, got {self.off_time_sample}; correct it"
            )


def pair_options(
    config: SelectionConfig,
    *,
    muon_MeV: float = 100.0,
    max_dr_m: float | None = None,
    delayed_MeV: float | None = None,
) -> PairOptions:
    """What a pair of a stream is.

    Args:
        config: The selection.
        muon_MeV: Events with more are muons.
        max_dr_m: Largest distance of both vertices.
        delayed_MeV: Least energy of the delayed event, if more than the threshold.
    """
    p = config.pairs
    return PairOptions(
        window_ms=p.window_ms,
        threshold_MeV=p.threshold_MeV,
        muon_MeV=muon_MeV,
        isolation=Isolation(p.isolation_ms, p.isolation_ms) if p.multiplicity == "isolated" else None,
        veto=MuonVeto(p.muon_veto_ms) if p.muon_veto_ms else None,
        delayed_min_MeV=delayed_MeV,
        max_dr_m=max_dr_m,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class PairDecision:
    """Whether a pair is a candidate: for pairs of a stream and for simulated ones, so that an efficiency is of this.

    Muon veto and multiplicity rule are no matter of a pair alone, and not in it.

    Attributes:
        classifier: Scores what passes all else.
        threshold: Least score.
        options: Window, energies and distance.
        fiducial_m: The prompt vertex is inside of this radius; ``None`` for anywhere.
    """

    classifier: Classifier
    threshold: float
    options: PairOptions
    fiducial_m: float | None = None

    def inside(self, pairs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether the prompt vertex is in the fiducial volume, shape ``(n,)``."""
        if self.fiducial_m is None:
            return np.ones(pairs["dt_ns"].size, bool)
        x, y, z = (pairs[f"prompt_{axis}_m"].astype(np.float64) for axis in "xyz")
        inside: np.ndarray = x * x + y * y + z * z < self.fiducial_m**2
        return inside

    def considered(self, pairs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether a pair passes all but the score.

        Args:
            pairs: Columns :data:`~nuebar.select.features.PAIR_COLUMNS`.

        Returns:
            Booleans of shape ``(n,)``.
        """
        o = self.options
        good = self.inside(pairs) & (pairs["dt_ns"] >= 0) & (pairs["dt_ns"].astype(np.float64) < o.window_ns)
        least = {"prompt": o.prompt_min_MeV or 0.0, "delayed": o.delayed_min_MeV or 0.0}
        for part, energy in least.items():
            # As float64: a float32 column would round the limit.
            e = pairs[f"{part}_e_rec_MeV"].astype(np.float64)
            good &= e >= max(o.threshold_MeV, energy)
            if o.muon_MeV is not None:
                good &= e <= o.muon_MeV
        if o.max_dr_m is not None:
            apart = (pairs[f"prompt_{a}_m"].astype(np.float64) - pairs[f"delayed_{a}_m"] for a in "xyz")
            good &= sum(d * d for d in apart) <= o.max_dr_m**2
        return good

    def scored(self, pairs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The decision; the classifier never sees a pair that is not considered.

        Args:
            pairs: Columns :data:`~nuebar.select.features.PAIR_COLUMNS`.

        Returns:
            Which pairs are candidates; their scores, −∞ where a pair is not considered; which are considered. Bool,
            float64 and bool of shape ``(n,)``.
        """
        good = self.considered(pairs)
        scores = np.full(good.size, -np.inf)
        if good.any():
            chosen = {name: pairs[name][good] for name in PAIR_COLUMNS}
            scores[good] = score_in_chunks(self.classifier, features_of(chosen))
        return good & (scores >= self.threshold), scores, good


def chosen_threshold(job: SelectApplyJob, config: SelectionConfig) -> tuple[Classifier, float, str]:
    """The classifier, its threshold, and where that comes from.

    Raises:
        NuebarError: There is no such classifier or operating point, or it was made for other pairs.
    """
    if job.classifier == CUTS:
        if job.threshold is not None:
            raise NuebarError("the cuts have no threshold; leave --threshold out or take a trained classifier")
        if job.at != CUTS:
            raise NuebarError(
                f"operating point {job.at!r}: the cuts have none; leave --at out or take a trained classifier"
            )
        return BoxCuts.of(config), 0.0, "all cuts"
    about = describe_classifier(job.classifier)
    check_limits(about.get("training", {}), config, f"classifier {job.classifier!r}")
    classifier = load_classifier(job.classifier)
    if job.threshold is not None:
        if not np.isfinite(job.threshold):
            raise NuebarError(f"threshold: expected a finite number, got {job.threshold}")
        return classifier, float(job.threshold), "given"
    points = about.get("metrics", {}).get("points", {})
    known = [name for name, point in points.items() if "threshold" in point]
    if job.at not in known:
        told = f"one of {', '.join(known)}" if known else "none, as its description has no operating points"
        raise NuebarError(
            f"operating point {job.at!r} of the classifier {job.classifier!r}: expected {told}; name another or give "
            "--threshold"
        )
    return classifier, float(points[job.at]["threshold"]), job.at


def run_apply(
    job: SelectApplyJob, folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> dict[str, Any]:
    """Select, and write the sample, its histograms and a summary.

    Args:
        job: What is wanted.
        folder: Gets ``candidates.parquet``, ``prompt.json``, ``accidentals.json``, ``excess.json`` and
            ``summary.json``, the last one when all is well; and ``off_time.parquet`` if it is wanted.
        progress: Called as ``progress("events", rows read, rows)``.

    Returns:
        What is in ``summary.json``.
    """
    begun = time.monotonic()
    config = load_selection(job.selection)
    if job.muon_veto_ms is not None:
        config = replace(config, pairs=replace(config.pairs, muon_veto_ms=job.muon_veto_ms))
    classifier, threshold, how = chosen_threshold(job, config)
    options = pair_options(config, muon_MeV=job.muon_MeV, max_dr_m=job.max_dr_m, delayed_MeV=job.delayed_MeV)
    decision = PairDecision(classifier=classifier, threshold=threshold, options=options, fiducial_m=job.fiducial_m)
    off_time = OffTime(job.offset_ms, job.windows)
    edges = _edges(job)
    events = EventFile(
        job.stream,
        STREAM_COLUMNS,
        optional=_TRUTH if job.truth else (),
        column_map=job.columns,
        radius_m=config.detector.radius_m,
    )
    if not events.n_rows:
        raise NuebarError(f"{events.paths[0]}: expected a stream of events, got no rows; check the files")
    _check_skim(events, decision)
    out = output_folder(folder)
    with hold(out):
        for name in ("summary.json", "off_time.parquet"):
            (out / name).unlink(missing_ok=True)  # they would tell of files that are replaced
        batches = _told(_ahead(events.batches()), events.n_rows, progress)
        pairs = OnOffPairs(batches, options, off_time)
        about = {"kind": "candidates", "classifier": classifier.name, "threshold": _finite(threshold)}
        scored = not isinstance(classifier, BoxCuts)
        columns = _columns(events.names, scored=scored)
        sample = _Sample(decision, edges, _kinds(events), columns)
        with ExitStack() as stack:
            writer = stack.enter_context(EventWriter(out / "candidates.parquet", columns, metadata=about))
            if job.off_time_sample:
                off_columns = _off_columns(scored=scored)
                about = {"kind": "off-time pairs", "classifier": classifier.name}
                off_writer = stack.enter_context(EventWriter(out / "off_time.parquet", off_columns, metadata=about))
                sample.off = _OffSample(off_writer, off_columns, job.off_time_sample)
            for on, off in pairs:
                sample.add(on, off, writer)
        estimate = sample.sum.result()
        histograms = {
            "prompt": (sample.counts.astype(float), None, "candidates"),
            "accidentals": (estimate.sums, estimate.errors**2, "accidental background, measured off time"),
            "excess": (estimate.excesses, estimate.excess_errors**2, "candidates without accidental background"),
        }
        for name, (counts, variances, title) in histograms.items():
            Histogram(edges, counts, variances, name=title, allow_negative=True).save(out / f"{name}.json")
        summary = {
            "kind": "selected sample",
            "command": job.command,
            "stream": {"files": len(events.paths), "first": events.paths[0].name, "rows": events.n_rows},
            "selection": asdict(replace(config, source=Path(config.source).name)),
            "options": _told_options(job, options),
            "classifier": {"name": classifier.name, "from": Path(job.classifier).name, "digest": _digest(job)},
            "threshold": _finite(threshold),
            "operating_point": how,
            **_numbers(sample, pairs.summary, off_time),
            "seconds": round(time.monotonic() - begun, 2),
            "versions": versions(),
        }
        save_result(out / "summary.json", summary)
    return summary


# ---------------------------------------------------------------- reading


def _told(
    batches: Iterator[dict[str, np.ndarray]], rows: int, progress: Progress | None
) -> Iterator[dict[str, np.ndarray]]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch["t_ns"])
        if progress is not None:
            progress("events", done, rows)


def _ahead(batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """The same batches, read by a thread of its own while others are worked on."""
    ready: queue.Queue[Any] = queue.Queue(_READ_AHEAD)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # told where the batches are used
            put(error)

    thread = threading.Thread(target=read, name="stream", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


# ---------------------------------------------------------------- the sample


class _Sample:
    """Candidates and off-time pairs, counted batch by batch."""

    def __init__(
        self,
        decision: PairDecision,
        edges: np.ndarray,
        kinds: Mapping[int, str] | None,
        columns: Sequence[str | Column],
    ) -> None:
        self.columns = _names(columns)
        self.decision, self.edges, self.kinds = decision, edges, kinds
        self.sum = AccidentalSum(edges.size - 1)
        self.counts = np.zeros(edges.size - 1, np.int64)
        self.scored = [0, 0]
        self.dt_ns = 0.0
        self.truth: dict[str, int] = {}
        self.off: _OffSample | None = None

    def add(self, on: Mapping[str, np.ndarray], off: Mapping[str, np.ndarray], writer: EventWriter) -> None:
        """A batch of both."""
        kept, scores, good = zip(*(self.decision.scored(pairs) for pairs in (on, off)), strict=True)
        self.scored = [n + int(np.count_nonzero(g)) for n, g in zip(self.scored, good, strict=True)]
        bins = [np.searchsorted(self.edges, pairs["prompt_e_rec_MeV"], side="right") - 1 for pairs in (on, off)]
        self.sum.add(off, kept[1], bins[1], on=on, on_selected=kept[0], on_bins=bins[0])
        if self.off is not None:
            self.off.add(off, scores[1], good[1])
        chosen = {name: values[kept[0]] for name, values in on.items()}
        self.dt_ns += float(chosen["dt_ns"].sum())
        inside = bins[0][kept[0]]
        inside = inside[(inside >= 0) & (inside < self.counts.size)]
        self.counts += np.bincount(inside, minlength=self.counts.size)
        if "true_prompt_pair" in chosen:
            first, second = chosen["true_prompt_pair"], chosen["true_delayed_pair"]
            chosen["true_pair"] = np.where(first == second, first, 0)
            self._count(chosen)
        chosen["score"] = scores[0][kept[0]]
        writer.append({name: chosen[name] for name in self.columns})

    def _count(self, chosen: Mapping[str, np.ndarray]) -> None:
        """Kinds of what was selected: accidental, or what made the pair."""
        together = chosen["true_pair"] != 0
        found = {"accidental": int(np.count_nonzero(~together))}
        if "true_prompt_kind" in chosen:
            numbers, counts = np.unique(chosen["true_prompt_kind"][together], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                name = (self.kinds or {}).get(number, f"kind {number}").removesuffix(" prompt")
                found[name] = found.get(name, 0) + count
        else:
            found["pair"] = int(np.count_nonzero(together))
        for name, count in found.items():
            self.truth[name] = self.truth.get(name, 0) + count


class _OffSample:
    """The first off-time pairs, and how many there are of them in all."""

    def __init__(self, writer: EventWriter, columns: Sequence[str | Column], most: int) -> None:
        self.columns = _names(columns)
        self.writer, self.most = writer, most
        self.pairs, self.weight = 0, 0.0

    def add(self, off: Mapping[str, np.ndarray], scores: np.ndarray, good: np.ndarray) -> None:
        """Off-time pairs of a batch, those that are considered among them."""
        rows = np.flatnonzero(good)
        self.pairs += rows.size
        self.weight += float(off["weight"][rows].sum())
        rows = rows[: self.most - self.writer.rows]
        columns = {**off, "score": scores}
        self.writer.append({name: columns[name][rows] for name in self.columns})


_WHOLE: dict[str, Any] = {"kind": "int", "low": 0, "stored": "int64"}


def _columns(names: tuple[str, ...], *, scored: bool) -> list[str | Column]:
    columns: list[str | Column] = [f"{part}_{name}" for part in ("prompt", "delayed") for name in _EVENT]
    columns += [Column(name, unit="ns", **_WHOLE) for name in ("prompt_t_ns", "dt_ns")]
    columns += [Column(name, **_WHOLE) for name in ("prompt_row", "delayed_row")]
    if scored:
        columns.append(Column("score", stored="float64"))
    if "true_pair" in names:
        columns.append("true_pair")
    for name in ("true_kind", "true_e_nu_MeV"):
        if name in names:
            base = name.removeprefix("true_")
            columns += [f"true_prompt_{base}"] + ([f"true_delayed_{base}"] if base == "kind" else [])
    return columns


def _off_columns(*, scored: bool) -> list[str | Column]:
    """Columns of off-time pairs: ``dt_ns`` is that within the window, ``window`` counts the windows from 1."""
    return [*_columns((), scored=scored), "weight", Column("window", **_WHOLE)]


def _names(columns: Sequence[str | Column]) -> tuple[str, ...]:
    return tuple(c if isinstance(c, str) else c.name for c in columns)


def _check_skim(events: EventFile, decision: PairDecision) -> None:
    """Refuse a stream that was skimmed for less than what is selected."""
    o = decision.options
    for path, about in zip(events.paths, events.metadata, strict=True):
        skim = about.get("skim")
        if skim is None:
            continue
        try:
            fiducial_m, prompt_MeV, delayed_MeV = (
                float(skim[name]) for name in ("fiducial_m", "prompt_MeV", "delayed_MeV")
            )
        except (KeyError, TypeError, ValueError):
            raise NuebarError(
                f"{path}: expected fiducial_m, prompt_MeV and delayed_MeV of the skim, got {str(skim)[:100]}; simulate "
                "the stream again"
            ) from None
        all_there = (
            decision.fiducial_m is not None
            and decision.fiducial_m <= fiducial_m
            and max(o.threshold_MeV, o.prompt_min_MeV or 0.0) >= prompt_MeV
            and max(o.threshold_MeV, o.delayed_min_MeV or 0.0) >= delayed_MeV
        )
        if not all_there or o.isolation is not None:
            raise NuebarError(
                f"{path}: the stream holds prompt events inside of {fiducial_m:g} m from {prompt_MeV:g} MeV on and "
                f"delayed events from {delayed_MeV:g} MeV on only, and the selection asks for "
                f"{'others' if not all_there else 'third events, too'}; give --fiducial {fiducial_m:g} --delayed-MeV "
                f"{delayed_MeV:g} and no multiplicity rule, or simulate the stream without skim"
            )


def _told_options(job: SelectApplyJob, options: PairOptions) -> dict[str, Any]:
    """What a pair is, for the record."""
    told = {k: v for k, v in asdict(options).items() if v is not None and k != "delayed_min_MeV"}
    asked = {"fiducial_m": job.fiducial_m, "delayed_MeV": job.delayed_MeV, "muon_veto_ms": job.muon_veto_ms}
    told |= {name: value for name, value in asked.items() if value is not None}
    return told if job.truth else told | {"truth": False}


def _kinds(events: EventFile) -> dict[int, str] | None:
    """Number of ``true_kind`` → its word, if the stream is ours."""
    table = events.metadata[0].get("kinds")
    return {int(number): str(name) for name, number in table.items()} if isinstance(table, Mapping) else None


def _edges(job: SelectApplyJob) -> np.ndarray:
    if not (1 <= job.bins <= 100_000 and 0 <= job.low_MeV < job.high_MeV < 1000):
        raise NuebarError(
            f"--bins, --from, --to: expected at least one bin in a range from 0 MeV, got {job.bins} from "
            f"{job.low_MeV:g} to {job.high_MeV:g} MeV"
        )
    return np.linspace(job.low_MeV, job.high_MeV, job.bins + 1)


def _digest(job: SelectApplyJob) -> str | None:
    return None if job.classifier == CUTS else describe_classifier(job.classifier).get("digest")


def _finite(value: float) -> float:
    return float(np.clip(value, -_LARGEST, _LARGEST))


# ---------------------------------------------------------------- numbers


def _numbers(sample: _Sample, seen: PairSummary, off_time: OffTime) -> dict[str, Any]:
    estimate = sample.sum.result()
    n = estimate.candidates
    dt_ns = sample.dt_ns / n if n else 0.0
    live_days = seen.pair_live_s(dt_ns) / _DAY_s
    survival = float(seen.survival(dt_ns))
    per_day = 1 / live_days if live_days > 0 else 0.0
    numbers: dict[str, Any] = {
        "events": {"read": seen.events, "above_threshold": seen.counted, "muons": seen.muons},
        "pairs": {
            **{name: getattr(seen, name) for name in ("found", "vetoed", "crowded", "dropped")},
            "scored": sample.scored[0],
            "scored_off_time": sample.scored[1],
        },
        "days": seen.span_s / _DAY_s,
        "live_days": live_days,
        "survival": survival,
        "candidates": n,
        "accidentals": {"value": estimate.total, "error": estimate.error, "off_time_pairs": estimate.pairs},
        "excess": {"value": estimate.excess, "error": estimate.excess_error},
        "purity": estimate.excess / n if n else None,
        "per_live_day": {
            "candidates": n * per_day,
            "accidentals": [estimate.total * per_day, estimate.error * per_day],
            "excess": [estimate.excess * per_day, estimate.excess_error * per_day],
            "excess_before_multiplicity": [
                v * per_day / survival if survival > 0 else None for v in (estimate.excess, estimate.excess_error)
            ],
        },
        "off_time": asdict(off_time),
    }
    if sample.off is not None:
        off = sample.off
        numbers["off_time_sample"] = {"rows": off.writer.rows, "pairs": off.pairs, "weight": off.weight}
    if sample.truth:
        true = sample.truth["accidental"]
        # The estimate is of the expected number; the true one fluctuates around it.
        spread = float(np.hypot(estimate.error, np.sqrt(max(estimate.total, 1.0))))
        numbers["truth"] = {**sample.truth, "accidental_pull": (true - estimate.total) / spread}
    return numbers


def apply_report(summary: Mapping[str, Any]) -> str:
    """What was selected, in words.

    Args:
        summary: What is in ``summary.json``.
    """
    events, pairs, day = summary["events"], summary["pairs"], summary["per_live_day"]
    accidentals, excess = summary["accidentals"], summary["excess"]
    asked = summary["options"]
    low = f" or with less than {asked['delayed_MeV']:g} MeV delayed" if "delayed_MeV" in asked else ""
    if "fiducial_m" in asked:
        low += f", others with a prompt vertex outside of {asked['fiducial_m']:g} m"
    lines = [
        f"{events['read']:,} events in {summary['days']:.4g} days ({summary['live_days']:.4g} live): "
        f"{pairs['found']:,} pairs in the window, {pairs['vetoed']:,} vetoed, {pairs['crowded']:,} with a third event, "
        f"{pairs['dropped']:,} too far apart{low}, {pairs['scored']:,} scored",
        f"{summary['classifier']['name']}, {summary['operating_point']}: score of at least {summary['threshold']:.6g}",
        f"  candidates   {summary['candidates']:12,d}   {day['candidates']:10.4g} a live day",
        f"  accidentals  {accidentals['value']:12.2f} ± {accidentals['error']:.2f}   {day['accidentals'][0]:.4g} ± "
        f"{day['accidentals'][1]:.2g} a live day, from {accidentals['off_time_pairs']:,} off-time pairs",
        f"  excess       {excess['value']:12.2f} ± {excess['error']:.2f}   {day['excess'][0]:.4g} ± "
        f"{day['excess'][1]:.2g} a live day",
    ]
    if summary["survival"] < 1:
        value, error = day["excess_before_multiplicity"]
        lines.append(f"               {value:.4g} ± {error:.2g} a live day before the multiplicity rule")
    if "truth" in summary:
        truth = {k: v for k, v in summary["truth"].items() if k != "accidental_pull"}
        words = ", ".join(f"{count:,} {name}" for name, count in truth.items())
        lines.append(f"  truth        {words}; accidentals off by {summary['truth']['accidental_pull']:+.2f} σ")
    return "\n".join(lines)

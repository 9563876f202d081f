"""The selection of antineutrinos at full size, as records and pictures. Writes docs/results/select-*.json.

    python benchmarks/selection.py --prepared FOLDER --model FOLDER ... [--ibd FOLDER] [--stream FOLDER] --work FOLDER
        [--study NAME ...]

PREPARED is ``pairs`` of a folder of ``nuebar select train``, models are such folders, the first one ours; IBD is a
folder of ``nuebar simulate ibd``, STREAM one of ``nuebar simulate stream``. A study whose input is not given is left
out and told. Each study writes its record when it ends, and can be run alone. Pictures go to docs/figures/select-*.png.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.events import EventFile
from nuebar.jobs.record import write_claim
from nuebar.jobs.select_apply import SelectApplyJob, apply_report, run_apply
from nuebar.jobs.select_compare import SelectCompareJob, run_compare
from nuebar.jobs.select_data import PairFiles, pair_files, prepared, splits_of
from nuebar.jobs.select_evaluate import LEVELS, cuts_of, held_out_sample
from nuebar.jobs.select_explain import SelectExplainJob, explain_report, run_explain
from nuebar.jobs.select_pictures import draw_explained
from nuebar.jobs.select_text import compare_report
from nuebar.report.plots import save
from nuebar.report.tuning_plots import training_curves
from nuebar.select.classifier import score_in_chunks
from nuebar.select.config import load_selection
from nuebar.select.counting import Share, binomial_interval
from nuebar.select.cut_flow import cut_flow
from nuebar.select.features import PAIR_COLUMNS, column, features_of
from nuebar.select.matrices import ACCIDENTALS, IBD
from nuebar.select.scores import ScoreSample
from nuebar.select.store import classifier_folder, describe_classifier, load_classifier

ROOT = Path(__file__).parents[1]
COMMAND = "make selection"
SEED = 1
STUDIES = ("training", "cut-flow", "compare", "explain", "apply")
NEEDS = {
    "training": ("model",),
    "cut-flow": ("ibd",),
    "compare": ("prepared", "model"),
    "explain": ("prepared", "model"),
    "apply": ("prepared", "model", "stream"),
}
# Of a run of compare: its name there → ours. Pictures of a single classifier are those of the first model.
COMPARED = ("features", "cut-flow", "background", "efficiency", "calibration", "changes")
OF_ONE = ("scores", "thresholds", "shares")
OUTPUTS = ("probability", "logit")
MAX_DR_m = 5.0  # of the apply job: pairs further apart are not scored


# ---------------------------------------------------------------- cut flow


def flow_batches(ibd, config, counts):
    """Features of all interactions batch by batch, and which of them are pairs of the selection."""
    events = EventFile(pair_files(ibd, IBD), PAIR_COLUMNS, radius_m=config.detector.radius_m)
    for batch in events.batches():
        exists = (batch["dt_ns"] >= 0) & (batch["dt_ns"] <= 1e6 * config.pairs.window_ms)
        for part in ("prompt", "delayed"):
            exists &= batch[f"{part}_e_rec_MeV"] >= config.pairs.threshold_MeV
        counts += np.array([exists.size, exists.sum()])
        yield features_of(batch), exists


def run_flow(args):
    """The published cuts on all interactions, and on those that are pairs within the window above the threshold."""
    config = load_selection(args.selection)
    cuts, counts, found = cuts_of(config), np.zeros(2, np.int64), {}
    for features, exists in flow_batches(args.ibd, config, counts):
        for name, rows in (("interactions", features), ("pairs", features[exists])):
            flow = cut_flow(cuts, [rows])
            found[name] = found[name] + flow if name in found else flow
    low, high = binomial_interval(counts[1], counts[0])
    return {
        "window_ms": config.pairs.window_ms,
        "threshold_MeV": config.pairs.threshold_MeV,
        "fiducial_radius_m": config.detector.fiducial_radius_m,
        "ceiling": Share(float(counts[1] / counts[0]), float(low), float(high), float(counts[1])).record(),
        **{name: flow.record() for name, flow in found.items()},
    }


# ---------------------------------------------------------------- comparison

POINT = ("threshold", "efficiency", "background", "purity", "f1", "ibd_per_day", "background_per_day", "resolved",
         "sampled", "beyond_5_m", "missing")  # fmt: skip


def compared(record):
    """Of ``compare.json``: what does not depend on the rate of singles once for each window."""
    windows, scenarios = {}, []
    for s in record["scenarios"]:
        window = s["window_ms"]
        if window not in windows:
            told = ("window_ms", "ceiling", "cuts", "levels")
            windows[window] = {k: s[k] for k in told} | {"rates_per_day": s["rates_per_day"]}
        if s["singles_factor"] == 1:
            windows[window]["rates_per_day"] = s["rates_per_day"]
        points = {label: {n: short(p) for n, p in points.items()} for label, points in s["points"].items()}
        about = {k: s[k] for k in ("window_ms", "singles_factor", "rates_per_day")}
        scenarios.append({**about, "cuts": short(s["cuts"]), "points": points})
    kept = ("selection", "sample", "classifiers", "lines", "curves", "efficiency_curves", "calibration", "changes",
            "rate_changes", "beyond_5_m")  # fmt: skip
    return {
        **{k: tidy(record[k]) if k in ("changes", "rate_changes") else record[k] for k in kept if k in record},
        "windows": list(windows.values()),
        "scenarios": scenarios,
        "seconds": record["seconds"],
    }


def short(point):
    return {k: point[k] for k in POINT if k in point}


def tidy(found):
    """Changes in all, without those in bins of energy and radius; operating points as short as the others."""
    if isinstance(found, list):
        return [tidy(v) for v in found]
    if not isinstance(found, dict):
        return found
    return short(found) if "how" in found else {k: tidy(v) for k, v in found.items() if k != "bins"}


def digits(value, n=7):
    """Numbers with as many digits as anybody reads."""
    if isinstance(value, dict):
        return {k: digits(v, n) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [digits(v, n) for v in value]
    return float(f"{value:.{n}g}") if isinstance(value, float) else value


def clustered_variance(u, clusters):
    """Σ u_a u_b over pairs a, b of pairs that share an event, as nuebar.select.scores has it."""
    _, events = np.unique(np.stack(clusters, axis=1), return_inverse=True)
    events = np.sort(events.reshape(-1, 2), axis=1)
    shared = np.bincount(events.ravel(), np.repeat(u, 2))
    _, same = np.unique(events[:, 0] * (events.max() + 1) + events[:, 1], return_inverse=True)
    both = np.bincount(same.ravel(), u)  # share two events, and are counted once
    return float((shared**2).sum() - (both**2).sum())


class AtLevel:
    """A classifier at a background of a window: what it keeps, and how its efficiency answers to the background."""

    def __init__(self, signal, mixed, drawn, share):
        background = ScoreSample.of(mixed, drawn.weights, clusters=drawn.clusters)
        self.threshold = background.threshold_below(share)
        self.kept, self.taken = signal >= self.threshold, mixed >= self.threshold
        found = background.kept([self.threshold])
        size = float(np.sqrt(found.variance[0]) / max(found.share[0], 1e-300))
        step = min(max(size, 0.02), 0.5)
        t = [background.threshold_below(share * f) for f in (1 - step, 1 + step)]
        low, high = ((signal >= x).mean() for x in t)
        self.slope = float(high - low) / (2 * step * share)
        self.efficiency, self.variance = float(self.kept.mean()), float(found.variance[0])


def differences(args, folder, windows, labels):
    """Efficiency of each classifier less that of the likelihood ratio at the same background, both on the same pairs.

    The errors know that: of the antineutrinos those count that one keeps and the other does not, of the recombined
    accidentals the covariance of both backgrounds, times what the efficiencies answer to a change of them.
    """
    config = load_selection(args.selection)
    matrices = prepared(PairFiles(prepared=args.prepared), config, folder)
    splits = splits_of(matrices, args.pairs)
    sample = held_out_sample(matrices, splits, config, pairs=args.test, singles=args.singles, seed=SEED)
    loaded = {label: load_classifier(word) for label, word in labels.items()}
    out = []
    signal = {label: score_in_chunks(c, sample.signal) for label, c in loaded.items()}
    for w in windows:
        near = column(sample.signal, "dt_us") <= 1e3 * w["window_ms"]
        mixed = sample.mixed_at(w["window_ms"])
        mixed = {label: score_in_chunks(c, mixed) for label, c in loaded.items()}
        for factor in LEVELS:
            share = factor * w["cuts"]["background"]["value"]
            at = {label: AtLevel(signal[label][near], mixed[label], sample.recombined, share) for label in loaded}
            for label in at:
                if label != "ratio":
                    told = {"window_ms": w["window_ms"], "of_cuts": factor, "label": label}
                    out.append(told | difference(at[label], at["ratio"], sample.recombined))
    return out


def difference(one, two, drawn):
    weights = drawn.weights / drawn.weights.sum()
    h = one.slope * one.taken - two.slope * two.taken
    background = clustered_variance(weights * (h - (weights * h).sum()), drawn.clusters)
    d = one.kept.astype(float) - two.kept
    value, statistical = float(d.mean()), float(d.var() / d.size)
    return {
        "points": 100 * value,
        "error": 100 * float(np.sqrt(max(statistical + background, 0.0))),
        "of_signal": 100 * float(np.sqrt(statistical)),
        "of_background": 100 * float(np.sqrt(max(background, 0.0))),
        "efficiencies": [one.efficiency, two.efficiency],
    }


def run_comparison(args):
    folder = Path(args.work) / "compare"
    job = SelectCompareJob(
        files=PairFiles(prepared=args.prepared), models=tuple(args.model), selection=args.selection,
        trees=not args.no_trees, pairs=args.pairs, test=args.test, singles=args.singles,
        windows_ms=tuple(args.windows), factors=tuple(args.factors), seed=SEED, command=COMMAND,
    )  # fmt: skip
    record = run_compare(job, folder, pictures=True, progress=told())
    print(compare_report(record), flush=True)
    numbers = compared(record)
    words = {str(label): word for label, word in zip(record["classifiers"], args.model, strict=False)}
    words |= {label: folder / label for label, about in record["classifiers"].items() if about["from"] == "here"}
    numbers["against_ratio"] = differences(args, folder / "pairs", numbers["windows"], words)
    first = next(iter(words))
    wanted = {name: name for name in COMPARED} | {f"{name}-{first}": name for name in OF_ONE}
    pictures({folder / f"{name}.png": ours for name, ours in wanted.items()}, args.figures)
    return numbers


# ---------------------------------------------------------------- explanations


def run_explanation(args):
    """The first model explained, for the probability as published and for the logit."""
    out = {}
    for output in OUTPUTS:
        folder = Path(args.work) / f"explain-{output}"
        job = SelectExplainJob(
            files=PairFiles(prepared=args.prepared), classifier=args.model[0], selection=args.selection,
            events=args.events, output=output, seed=SEED,
        )  # fmt: skip
        began = time.perf_counter()
        found = run_explain(job, folder, progress=told())
        seconds = time.perf_counter() - began
        print(explain_report(found), flush=True)
        out[output] = {
            **found.explanation.record(),
            "seconds_in_all": seconds,
            "importance": found.importance.record(),
            "local": {title: local.record() for title, local in found.local.items()},
        }
        if output == OUTPUTS[0]:
            pictures({path: path.stem for path in draw_explained(found, folder)}, args.figures)
    return {"events": args.events, "outputs": out}


# ---------------------------------------------------------------- a stream


def true_pairs(stream, config):
    """Kind → true pairs of a simulated stream whose two events are there, above the threshold and within the window."""
    events = EventFile(stream, ("t_ns", "e_rec_MeV"), optional=("true_kind", "true_pair"))
    if "true_pair" not in events.names or "true_kind" not in events.names:
        raise NuebarError(f"{events.paths[0]}: expected the truth of a simulated stream, got none")
    names = {int(number): str(name) for name, number in events.metadata[0]["kinds"].items()}
    parts = []
    for batch in events.batches():
        rows = np.flatnonzero((batch["true_pair"] != 0) & (batch["e_rec_MeV"] >= config.pairs.threshold_MeV))
        parts.append([batch[k][rows] for k in ("true_pair", "true_kind", "t_ns")])
    pair, kind, t = (np.concatenate(column_) for column_ in zip(*parts, strict=True))
    order = np.lexsort((t, pair))
    pair, kind, t = pair[order], kind[order], t[order]
    both = np.flatnonzero((pair[1:] == pair[:-1]) & (t[1:] - t[:-1] < config.pairs.window_ns))
    numbers, counts = np.unique(kind[both], return_counts=True)
    found = {names[int(k)].removesuffix(" prompt"): int(n) for k, n in zip(numbers, counts, strict=True)}
    return found, events.n_rows


def loose_threshold(args, config, days, folder):
    """A score above which a stream of so many days has the wanted accidentals, from pairs kept from training."""
    matrices = prepared(PairFiles(prepared=args.prepared), config, folder)
    rows = matrices.accidentals[splits_of(matrices)[ACCIDENTALS].rows("test")]
    features = np.array(rows[: args.test])
    scores = score_in_chunks(load_classifier(args.model[0]), features)
    scores[column(features, "dr_m") > MAX_DR_m] = -np.inf
    kept = round(args.loose / (config.accidentals_per_day * days) * len(scores))
    if not 10 <= kept < np.isfinite(scores).sum():
        raise NuebarError(f"loose threshold: expected 10 pairs to find it by, got {kept}; change --loose")
    return float(np.sort(scores)[-kept])


def applied(summary, seconds, exist):
    """Of ``summary.json``, with the truth."""
    kept = ("operating_point", "threshold", "days", "live_days", "events", "pairs", "candidates", "accidentals",
            "excess", "purity", "per_live_day", "off_time", "truth")  # fmt: skip
    estimate, truth = summary["accidentals"], dict(summary["truth"])
    pull = truth.pop("accidental_pull")
    n = summary["candidates"]
    correlated = sum(count for kind, count in truth.items() if kind != "accidental")
    spread = float(np.hypot(estimate["error"], np.sqrt(max(estimate["value"], 1.0))))
    low, high = binomial_interval(truth.get("ibd", 0), exist["ibd"])
    return {
        **{k: summary[k] for k in kept},
        "classifier": summary["classifier"]["name"],
        "seconds": seconds,
        "accidentals_true": truth["accidental"],
        "accidental_pull": pull,
        # The estimate is of the expected number, the true one fluctuates around it.
        "accidental_percent": 100 * (estimate["value"] / truth["accidental"] - 1) if truth["accidental"] else None,
        "percent_error": 100 * spread / truth["accidental"] if truth["accidental"] else None,
        "true_purity": correlated / n if n else None,
        "true_ibd_purity": truth.get("ibd", 0) / n if n else None,
        "efficiency": Share(truth.get("ibd", 0) / exist["ibd"], float(low), float(high), 0.0).record(),
    }


def run_stream(args):
    config = load_selection(args.selection)
    exist, rows = true_pairs(args.stream, config)
    print(f"  {rows:,} events; true pairs: {exist}", flush=True)
    common = {"stream": args.stream, "selection": args.selection, "max_dr_m": MAX_DR_m, "command": COMMAND}
    metrics = describe_classifier(args.model[0])["metrics"]["points"]["cuts"]
    out = {
        "events": rows, "true_pairs": exist, "max_dr_m": MAX_DR_m, "window_ms": config.pairs.window_ms,
        "efficiency_of_model": metrics["efficiency"], "purity_of_model": metrics["purity"],
    }  # fmt: skip
    runs = {}
    for name in ("network", "cuts", "loose"):
        chosen = {"classifier": "cuts" if name == "cuts" else args.model[0]}
        if name == "loose":
            days = runs["network"]["live_days"]
            chosen["threshold"] = loose_threshold(args, config, days, Path(args.work) / "pairs")
        began = time.perf_counter()
        summary = run_apply(SelectApplyJob(**common, **chosen), Path(args.work) / f"apply-{name}", progress=told())
        seconds = time.perf_counter() - began
        print(f"{apply_report(summary)}\n  {seconds:.1f} s", flush=True)
        runs[name] = applied(summary, seconds, exist)
    return out | {"days": runs["network"]["days"], "runs": runs}


# ---------------------------------------------------------------- training


def run_training(args):
    """What stored models tell of their training."""
    out, histories = {}, {}
    for word in args.model:
        folder, about = classifier_folder(word), describe_classifier(word)
        training, label = about["training"], Path(word).name
        history = training.get("history", [])
        if history:
            histories[label] = history
        out[label] = {
            "classifier": about["classifier"],
            "command": training.get("command", ""),
            "bytes": {name: (folder / name).stat().st_size for name in ("model.json", "weights.safetensors")},
            "validation": about["metrics"].get("validation"),
            **{k: training.get(k) for k in ("recipe", "rows", "weights", "steps", "best_step", "best_cross_entropy",
                                            "seconds", "reason")},
            "history": history,
        }  # fmt: skip
    if histories:
        figure = training_curves(histories)
        for axes in figure.axes[1::2]:
            axes.set_ylabel("validation cross-entropy")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "training.png"
            save(figure, path)
            pictures({path: "training"}, args.figures)
    return {"models": out}


# ---------------------------------------------------------------- main


def pictures(names, out):
    """Pictures as docs/figures/select-<name>.png, small; what was not drawn is left out."""
    from tuning_validation import small  # takes seconds to import

    Path(out).mkdir(parents=True, exist_ok=True)
    for source, name in names.items():
        if Path(source).is_file():
            target = Path(out) / f"select-{name}.png"
            print(f"  {target.name}: {small(source, target) / 1e3:.0f} kB", flush=True)


def told(every=30.0):
    """Progress, a line now and then."""
    last = [time.monotonic()]

    def progress(what, done, total):
        if time.monotonic() - last[0] > every:
            last[0] = time.monotonic()
            print(f"  {what}: {done:,}/{total:,}", flush=True)

    return progress


RUNS = {
    "training": run_training,
    "cut-flow": run_flow,
    "compare": run_comparison,
    "explain": run_explanation,
    "apply": run_stream,
}


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", help="folder of prepared pairs")
    parser.add_argument("--model", nargs="+", default=[], help="words or folders; the first is explained and applied")
    parser.add_argument("--ibd", help="folder of nuebar simulate ibd: all interactions")
    parser.add_argument("--stream", help="folder of nuebar simulate stream")
    parser.add_argument("--study", nargs="+", choices=STUDIES, help="those whose input is given by default")
    parser.add_argument("--selection", default="published")
    parser.add_argument("--pairs", type=int, help="of each class, that trees, ratio and lines are made of, at most")
    parser.add_argument("--test", type=int, help="of each class, to judge by, at most")
    parser.add_argument("--singles", type=int, default=200_000, help="to recombine")
    parser.add_argument("--windows", nargs="+", type=float, default=[2.0, 1.0], metavar="MS")
    parser.add_argument("--factors", nargs="+", type=float, default=[0.5, 1.0, 2.0], help="on the rate of singles")
    parser.add_argument("--no-trees", action="store_true", help="leave boosted trees out")
    parser.add_argument("--events", type=int, default=20_000, help="pairs to explain")
    parser.add_argument("--loose", type=float, default=40_000, help="accidentals at the loose threshold")
    parser.add_argument("--work", default="out/selection", help="where runs are kept")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"))
    parser.add_argument("--figures", default=str(ROOT / "docs" / "figures"))
    args = parser.parse_args()
    for study in args.study or ():
        missing = [name for name in NEEDS[study] if not getattr(args, name)]
        if missing:
            parser.error(f"--study {study}: expected --{missing[0]}")
    return args


def main():
    args = parsed()
    for study in args.study or STUDIES:
        missing = [name for name in NEEDS[study] if not getattr(args, name)]
        if missing:
            print(f"{study}: left out, as --{missing[0]} is not given", flush=True)
            continue
        print(f"{study}:", flush=True)
        began = time.perf_counter()
        numbers = digits(RUNS[study](args))
        told_ = {"command": COMMAND, "seconds": time.perf_counter() - began, "seed": SEED}
        print(write_claim(args.out, f"select-{study}", numbers, **told_), flush=True)


if __name__ == "__main__":
    main()

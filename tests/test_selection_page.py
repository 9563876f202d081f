"""The sections of docs/results.md on the selection follow their records: verdicts, what is missing or unresolved."""

import copy
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)


def module(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return found


@pytest.fixture(scope="module")
def page():
    return module("selection_page")


def text(parts):
    return "\n\n".join(parts)


def line(found, start):
    """The cells of the row of a table that begins like this."""
    (row,) = [x for x in found.splitlines() if x.startswith(f"| {start}")]
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def share(value, error=0.001):
    return {"value": value, "low": value - error, "high": value + error, "effective": 100.0}


# ---------------------------------------------------------------- training


def trained(**changes):
    rows = {"ibd": {"train": 14_250_000}, "accidentals": {"train": 14_500_000}}
    model = {
        "classifier": "network", "command": "", "bytes": {"model.json": 60_000, "weights.safetensors": 330_000},
        "rows": rows, "weights": 82_417, "steps": 52_000, "best_step": 51_000, "best_cross_entropy": 0.0123,
        "seconds": 3000.0, "reason": "steps", "validation": None, "recipe": {},
        "history": [[k, 0.02, 0.02 / k, 60.0 * k] for k in range(1, 41)],
    }  # fmt: skip
    return {"models": {"ours": model | changes}}


def test_training_is_held_against_its_aims(page):
    assert line(text(page.training(trained())), "ours (")[-6:] == ["50.0 min", "≤ 60 min", "yes", "390.00 kB", "≤ 1 MB",
                                                                  "yes"]  # fmt: skip
    slow = line(text(page.training(trained(seconds=4000.0, bytes={"weights.safetensors": 1_100_000}))), "ours (")
    assert slow[-4] == slow[-1] == "**missed**"
    few = {"ibd": {"train": 200_000}, "accidentals": {"train": 14_500_000}}
    assert "—" in line(text(page.training(trained(rows=few))), "ours (")[-4]  # the aim is for the full size


def test_the_history_is_shown_at_parts_of_the_training(page):
    assert line(text(page.histories(trained()["models"])), "ours")[-1] == "0.0005"
    assert page.histories(trained(history=[])["models"]) == []


# ---------------------------------------------------------------- cut flow


def flow(values):
    names = ("fiducial volume", "energy", "time", "distance", "combined")
    published = (0.917, 0.987, 0.990, 0.992, 0.899)
    rows = [
        {"name": n, "alone": share(v), "given_fiducial": share(v + 0.002), "cumulative": share(v), "published": p}
        for n, v, p in zip(names, values, published, strict=True)
    ]
    return {"pairs": 1000, "tables": {on: {"grouped": rows} for on in ("prompt", "both")}}


def test_cuts_are_held_against_the_published_rows(page):
    record = {
        "window_ms": 2.0, "threshold_MeV": 0.7, "ceiling": share(0.986),
        "interactions": flow((0.9171, 0.9795, 0.990, 0.7, 0.899)), "pairs": flow((0.93, 0.987, 0.990, 0.992, 0.91)),
    }  # fmt: skip
    one, prompt, both, second, _ = page.cut_flows(record)
    assert "98.600" in one
    assert line(prompt, "fiducial volume")[-3:] == ["± 0.3", "yes", "—"]
    assert line(prompt, "energy")[-2:] == ["**missed**", "yes"]  # 97.95 alone, 98.15 in the volume
    assert line(prompt, "distance")[-3:] == ["—", "—", "—"]
    assert line(prompt, "combined")[-2] == "yes"
    assert line(second, "combined")[-2] == "**missed**"
    assert "missed" not in both
    assert "91.710 ± 0.100" in both


# ---------------------------------------------------------------- comparison


def level(of_cuts, value, resolved=True):
    sides = {"efficiency_inside": share(0.99), "efficiency_outside": None}
    return {"of_cuts": of_cuts, "efficiency": share(value), "resolved": resolved, **sides}


def point(threshold=1.0):
    return {"threshold": threshold, "efficiency": share(0.98), "background": share(1e-5, 1e-7), "f1": 0.95,
            "purity": share(0.9), "resolved": True}  # fmt: skip


def comparison(points=-0.2, resolved=True):
    curve = {"edges": [0.0, 1.0, 20.0], "efficiency": [0.5, 0.9], "error": [0.01, 0.02]}
    cuts = {**point(0.0), "by_recombined": share(1e-5, 1e-6), "by_pairs": share(0.0, 1e-6),
            "efficiency_inside": share(0.98), "efficiency_outside": share(0.0)}  # fmt: skip
    levels = {
        label: [level(1.0, 0.97), level(0.1, 0.96), level(0.01, 0.95, resolved)] for label in ("network", "ratio")
    } | {"linear cut": [level(1.0, 0.93), level(0.1, 0.8), {"of_cuts": 0.01, "missing": "too few pairs"}]}
    rates = {"ibd": 57.4, "accidental": 6e5}
    scenario = {"window_ms": 2.0, "rates_per_day": rates, "cuts": point(0.0)}
    found = {"cuts": point(), "f1": {"missing": "nothing; more pairs"}}
    return {
        "selection": {"pairs": {"window_ms": 2.0, "threshold_MeV": 0.7}},
        "sample": {"ibd": 10**6, "accidentals": 7 * 10**6, "recombined": {"singles": 200_000}},
        "classifiers": {"network": {"from": "ours"}, "ratio": {"from": "here"}},
        "windows": [{"window_ms": 2.0, "ceiling": 0.986, "cuts": cuts, "levels": levels, "rates_per_day": rates}],
        "against_ratio": [
            {"window_ms": 2.0, "of_cuts": f, "label": "network", "points": points, "error": 0.05}
            for f in (1.0, 0.1, 0.01)
        ],
        "scenarios": [
            {**scenario, "singles_factor": f, "points": {"network": found, "ratio": found}} for f in (0.5, 1.0)
        ],
        "efficiency_curves": {"cuts": {"energy": curve, "radius": curve}},
        "calibration": {"network": {"ece": 1e-4, "noise": 2e-4, "noise_error": 1e-5, "p_value": 0.0}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("points", "resolved", "verdict"),
    [(-0.2, True, "yes"), (+0.4, True, "yes"), (-0.4, True, "**missed**"), (-0.4, False, "not resolved")],
)
def test_the_network_is_held_against_the_likelihood_ratio(page, points, resolved, verdict):
    found = text(page.against_ratio(comparison(points, resolved)))
    cells = line(found, "2 ms, network")
    assert cells[-2:] == ["≥ −0.3 at 0.01", verdict]
    assert cells[3].endswith("?") != resolved
    assert cells[1] == f"{points:+.2f} ± 0.05".replace("-", "−")


def test_levels_tell_what_is_unresolved_and_missing(page):
    found = text(page.compare(comparison(resolved=False)))
    assert line(found, "network | 97")[-1] == "95.00 ± 0.10?"
    assert line(found, "network | 97")[-3] == "−1.00"  # gain over the cuts' 98 %
    assert line(found, "linear cut")[-1] == "—"
    assert "no measurement" in found
    assert "aim at least 7,000,000: yes" in found
    assert line(found, "network, f1")[1:3] == ["nothing", "—"]
    assert "by the pairs < 1.0·10⁻⁶" in found
    assert line(found, "network | 1.0")[-1] == "< 0.002"
    assert "no measurement" not in text(page.compare(comparison()))


def test_too_few_pairs_kept_from_training_are_a_miss(page):
    record = comparison()
    record["sample"]["accidentals"] = 6_999_999
    assert "**missed**" in page.compare(record)[0]


def test_changes_of_the_background_are_relative(page):
    one = {"shift": {"name": "energy +1 %"}, "before": share(0.5), "difference": -0.01, "error": 0.001}
    plain = text(page.changes({"network": [one]}))
    assert line(plain, "network")[1] == "−1.000 ± 0.100"
    both = text(page.changes({"ibd": {"network": [one]}, "accidentals": {"network": [one]}}))
    assert [x for x in both.splitlines() if x.startswith("| network")][1] == "| network | −2.000 ± 0.200 |"
    assert page.changes(None) == []


# ---------------------------------------------------------------- explanations


def explanation(seconds=100.0, pairs=20_000, sum_off=1e-12):
    rows = [
        {"feature": f, "mean": 0.4 / (k + 1), "error": 0.01, "rank": k + 1, "rank_interval": [k + 1, k + 1 + k % 2],
         "published_rank": k + 1, "sigmas_above_next": None if k else 5.0}
        for k, f in enumerate(("dr_m", "dt_us"))
    ]  # fmt: skip
    against = [
        {"published_first": "e_delayed_MeV", "published_second": "dt_us", "sigmas_against": s} for s in (3.0, 1.0)
    ]
    one = {
        "classifier": "network", "method": "sampled", "pairs": pairs, "background": {"rows": 200, "groups": 20},
        "additivity": {"largest_relative_difference": sum_off}, "check": {"pairs": 32}, "seconds_in_all": seconds,
        "importance": {"features": rows, "against_published": against},
    }  # fmt: skip
    return {"events": pairs, "outputs": {"probability": one}}


def test_explanations_are_held_against_time_and_additivity(page):
    good = text(page.explained(explanation()))
    assert line(good, "time")[-2:] == ["≤ 3 min", "yes"]
    assert line(good, "largest")[-1] == "yes"
    bad = text(page.explained(explanation(200.0, sum_off=1e-5)))
    assert line(bad, "time")[-1] == line(bad, "largest")[-1] == "**missed**"
    assert line(text(page.explained(explanation(200.0, 400))), "time")[-1] == "—"


def test_an_order_against_the_published_one_has_its_error(page):
    found = text(page.explained(explanation()))
    assert found.count("Δt before E delayed") == 1  # the one of 3 σ
    assert line(found, "Δt")[2] == "2 (2 to 3)"


# ---------------------------------------------------------------- stream


def stream(seconds=100.0, pull=0.5, off=1.0, true=20_000, days=60.0):
    run = {
        "classifier": "network", "threshold": -2.5, "candidates": 3400, "purity": 0.9, "true_purity": 0.91,
        "accidentals": {"value": 350.0, "error": 4.0}, "accidentals_true": 350, "accidental_pull": pull,
        "accidental_percent": 0.0, "percent_error": 5.0, "efficiency": share(0.98), "seconds": seconds,
        "pairs": {"found": 10**7, "scored": 10**5, "scored_off_time": 10**6},
    }  # fmt: skip
    loose = run | {"accidentals_true": true, "accidental_percent": off}
    return {
        "days": days, "events": 10**8, "window_ms": 2.0, "max_dr_m": 5.0, "true_pairs": {"ibd": 3400},
        "efficiency_of_model": share(0.98), "purity_of_model": share(0.9),
        "runs": {"network": run, "cuts": run | {"classifier": "cuts"}, "loose": loose},
    }  # fmt: skip


def test_a_stream_is_held_against_truth_and_time(page):
    found = text(page.applied(stream()))
    assert line(found, "network, loose threshold, again")[-1] == "yes"
    assert line(found, "cuts | 350")[-1] == "yes"
    assert line(found, "cuts | −2.5")[-2:] == ["≤ 3 min", "yes"]
    bad = text(page.applied(stream(seconds=200.0, pull=-2.4, off=-2.5)))
    assert line(bad, "network, loose threshold, again")[-1] == "**missed**"
    assert line(bad, "cuts | 350")[-1] == line(bad, "cuts | −2.5")[-1] == "**missed**"


def test_a_short_stream_meets_nothing(page):
    found = text(page.applied(stream(true=9_999, days=1.0)))
    assert line(found, "network, loose threshold, again")[-1] == "too few"
    assert line(found, "cuts | −2.5")[-1] == "—"


# ---------------------------------------------------------------- speed


def test_speeds_are_held_against_aims(page):
    row = {"n": 10**6, "unit": "events", "best_s": 0.04, "median_s": 0.05, "cpu_s": 0.05, "per_second": 2e7}
    record = {
        "load average": 0.1, "quick": False, "scored_pairs": 2**20, "trees_rounds": None,
        "stream": {"events": 10**6, "pairs": 10**5, "pairs_within_5_m": 2000, "rate_Hz": 59.2},
        "training": {"steps_at_full_size": 54_930, "minutes_at_full_size": 61.0, "aim_minutes": 60.0},
        "rows": [
            row | {"what": "fast", "aim_per_second": 2e7, "met": True},
            row | {"what": "slow", "aim_s": 0.01, "met": False}, row | {"what": "free"},
        ],
        "ratios": {"peer over ours": 3.0}, "first_call_s": {"fast": 1.0},
    }  # fmt: skip
    found = text(page.speed(record))
    assert line(found, "fast | 50")[-3:] == ["2.0·10⁷ events/s", "≥ 2.0·10⁷ events/s", "yes"]
    assert line(found, "slow")[-2:] == ["≤ 10.0 ms", "**missed**"]
    assert line(found, "free")[-1] == ""
    assert "50 ns/event" in found
    assert "61.0 min (aim ≤ 60 min: **missed**)" in found
    assert "Trees are left out" in found


# ---------------------------------------------------------------- what the records are made of


@pytest.fixture(scope="module")
def studies():
    return module("selection")


def test_a_record_keeps_singles_apart_from_levels(studies):
    record = comparison()
    scenarios = []
    for s in record["scenarios"]:
        told = {"ceiling": 0.9, "cuts": {**s["cuts"], "how": "cuts"}, "levels": {"network": []}}
        scenarios.append({**copy.deepcopy(s), **told})
    whole = {**record, "scenarios": scenarios, "seconds": 1.0, "rate_changes": {"network": [{"how": "x", "f1": 1.0}]}}
    change = {"shift": {}, "bins": {"energy": [1]}, "error": 0.1}
    kept = studies.compared({**whole, "changes": {"network": [change]}})
    assert [w["window_ms"] for w in kept["windows"]] == [2.0]
    assert [s["singles_factor"] for s in kept["scenarios"]] == [0.5, 1.0]
    assert kept["changes"] == {"network": [{"shift": {}, "error": 0.1}]}
    assert kept["rate_changes"] == {"network": [{"f1": 1.0}]}


def test_differences_of_efficiencies_know_shared_events(studies):
    """The variance is that of the scores; a classifier differs from itself by nothing, without error."""
    from nuebar.select.scores import ScoreSample

    rng = np.random.default_rng(1)
    n = 4000
    clusters = tuple(rng.integers(0, 300, (2, n)))
    drawn = type("Drawn", (), {"weights": rng.exponential(1.0, n), "clusters": clusters})
    scores = rng.normal(size=n)
    w = drawn.weights / drawn.weights.sum()
    h = (scores >= 1.0).astype(float)
    ours = studies.clustered_variance(w * (h - (w * h).sum()), clusters)
    theirs = ScoreSample.of(scores, drawn.weights, clusters=clusters).kept([1.0]).variance[0]
    assert ours == pytest.approx(theirs, rel=1e-9)
    signal = rng.normal(2.0, 1.0, 20_000)
    one = studies.AtLevel(signal, scores, drawn, 0.05)
    same = studies.difference(one, one, drawn)
    assert same["points"] == same["error"] == 0.0
    worse = studies.AtLevel(signal + rng.normal(0.0, 1.0, signal.size) - 0.5, scores, drawn, 0.05)
    found = studies.difference(worse, one, drawn)
    assert found["points"] < -3 * found["error"] < 0

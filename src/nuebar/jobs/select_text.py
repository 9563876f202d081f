"""What ``nuebar select compare`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["compare_report"]


def compare_report(record: Mapping[str, Any]) -> str:
    """The tables of a comparison.

    Args:
        record: What is in ``compare.json``.
    """
    sample = record["sample"]
    lines = [
        f"{sample['ibd']:,} antineutrino and {sample['accidentals']:,} accidental pairs that no training has seen, "
        f"within {sample['window_ms']:g} ms and above {sample['threshold_MeV']:g} MeV; backgrounds from "
        f"{sample['recombined']['singles']:,} single events, recombined",
        "",
        *_flow_text(record["cut_flow"]),
    ]
    rates = None
    for scenario in record["scenarios"]:
        if scenario["window_ms"] != rates:
            rates = scenario["window_ms"]
            lines += ["", *_level_text(scenario)]
    for scenario in record["scenarios"]:
        lines += ["", *_point_text(scenario)]
    lines += ["", *_change_text(record)]
    return "\n".join(lines)


def _flow_text(flows: Mapping[str, Any]) -> list[str]:
    lines = []
    for on in ("prompt", "both"):
        lines.append(
            f"efficiency of the cuts [%], fiducial volume on {on}; accidentals that are left in the last column"
        )
        lines.append(
            f"  {'cut':18s} {'alone':>16s} {'in the volume':>16s} {'cumulative':>16s} {'published':>10s} "
            f"{'accidental':>11s}"
        )
        other = {row["name"]: row for row in flows["accidentals"]["tables"][on]["grouped"]}
        for row in flows["ibd"]["tables"][on]["grouped"]:
            cells = " ".join(f"{_percent(row[k]):>16s}" for k in ("alone", "given_fiducial", "cumulative"))
            known = f"{100 * row['published']:.1f}" if row["published"] is not None else ""
            left = other[row["name"]]["cumulative"]["value"]
            lines.append(f"  {row['name']:18s} {cells} {known:>10s} {left:11.3g}")
    return lines


def _level_text(scenario: Mapping[str, Any]) -> list[str]:
    cuts, ceiling = scenario["cuts"], scenario["ceiling"]
    lines = [
        f"window {scenario['window_ms']:g} ms: cuts keep {_percent(cuts['efficiency'])} % of the antineutrino pairs "
        f"and {_small(cuts['by_recombined'])} of the accidental ones (recombined; by the pairs of the sample "
        f"{_small(cuts['by_pairs'])}); "
        f"{100 * ceiling:.3f} % of all antineutrino pairs exist",
        f"  {'efficiency [%] at':28s} {'background of cuts':>18s} {'inside':>8s} {'outside':>8s} {'only FV':>8s} "
        f"{'a tenth':>18s} {'a hundredth':>18s}",
    ]
    lines.append(
        f"  {'cuts':28s} {_percent(cuts['efficiency']):>18s} {_plain(cuts['efficiency_inside']):>8s} "
        f"{_plain(cuts['efficiency_outside']):>8s}"
    )
    for label, levels in scenario["levels"].items():
        cells = [_percent(x["efficiency"]) + _mark(x) if "missing" not in x else "-" for x in levels]
        first = levels[0]
        inner = [_plain(first.get(key)) for key in ("efficiency_inside", "efficiency_outside")]
        only = first.get("only_fiducial")
        inner.append(_plain(only["efficiency"]) if only else "")
        parts = " ".join(f"{cell:>8s}" for cell in inner)
        lines.append(f"  {label:28s} {cells[0]:>18s} {parts} {cells[1]:>18s} {cells[2]:>18s}")
    if any(not x.get("resolved", True) for levels in scenario["levels"].values() for x in levels):
        lines.append("  ? fewer than 10 effective background pairs: no measurement; more --singles resolve it")
    return lines


def _mark(level: Mapping[str, Any]) -> str:
    return "" if level["resolved"] else "?"


def _point_text(scenario: Mapping[str, Any]) -> list[str]:
    rates = scenario["rates_per_day"]
    lines = [
        f"window {scenario['window_ms']:g} ms, singles x {scenario['singles_factor']:g}: {rates['ibd']:g} antineutrino "
        f"and {rates['accidental']:.4g} accidental pairs a day",
        f"  {'classifier':16s} {'point':12s} {'threshold':>10s} {'efficiency [%]':>18s} {'background':>10s} "
        f"{'per day':>10s} {'purity [%]':>16s} {'> 5 m [%]':>10s}",
    ]
    rows = [("cuts", "", scenario["cuts"])]
    rows += [(label, name, p) for label, points in scenario["points"].items() for name, p in points.items()]
    for label, name, point in rows:
        if "missing" in point:
            lines.append(f"  {label:16s} {name:12s} none: {point['missing'].split(';')[0]}")
            continue
        t = point["threshold"]
        share = point["background"]["value"]
        lines.append(
            f"  {label:16s} {name:12s} {t if isinstance(t, str) else f'{t:.4f}':>10s} "
            f"{_percent(point['efficiency']):>18s} {share:10.3g} {share * rates['accidental']:10.4g} "
            f"{_percent(point['purity']):>16s} {_plain(point['beyond_5_m']):>10s}"
            + ("  purity of as many of both" if name == "f1-balanced" else "")
            + ("" if point.get("resolved", True) else "  ?")
        )
    return lines


def _change_text(record: Mapping[str, Any]) -> list[str]:
    """Changes with the detector and the singles, at the threshold of the cuts' background."""
    rates = record["rate_changes"]
    labels = list(rates)
    head = f"window {record['sample']['window_ms']:g} ms, thresholds with the background of the cuts"
    lines = [f"{head}: changes with the detector", f"  {'':38s}" + " ".join(f"{label:>18s}" for label in labels)]
    for what, unit_of in (("efficiency", "points"), ("background", "%")):
        table = record["changes"][what]
        for k, change in enumerate(table[labels[0]]):
            cells = []
            for label in labels:
                c = table[label][k]
                unit = 0.01 if unit_of == "points" else 0.01 * c["before"]["value"]
                cells.append(f"{c['difference'] / unit:+.3f} ± {c['error'] / unit:.3f}" if unit else "-")
            name = f"{change['shift']['name']}, {what} [{unit_of}]"
            lines.append(f"  {name:38s}" + " ".join(f"{cell:>18s}" for cell in cells))
    for k, row in enumerate(rates[labels[0]]):
        cells = [_percent(rates[label][k]["same_threshold"]["purity"]) for label in labels]
        name = f"singles x {row['singles']:g}, purity [%]"
        lines.append(f"  {name:38s}" + " ".join(f"{cell:>18s}" for cell in cells))
    return lines


def _percent(share: Mapping[str, float]) -> str:
    error = 50 * (share["high"] - share["low"])
    return f"{100 * share['value']:.3f} ± {error:.3f}"


def _plain(share: Mapping[str, float] | None) -> str:
    return "" if share is None else f"{100 * share['value']:.3f}"


def _small(share: Mapping[str, float]) -> str:
    return f"({share['value']:.3g} -{share['value'] - share['low']:.1g} +{share['high'] - share['value']:.1g})"

"""The live spectrum of a report: sliders that move the prediction over the data, in the browser, without a server.

:func:`explorer_data` puts a :class:`nuebar.predict.reduced.ReducedBasis` and the data of a fit together;
:func:`explorer_html` makes markup and script of them, for a page to embed. Everything is inline, the script asks the
network for nothing, and every text that comes from data is escaped.

Parameters without a slider stay at the best fit: Δχ² is that of a slice, not of a profile.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.predict.reduced import MOVED, ReducedBasis, pack
from nuebar.report.page import clean

__all__ = ["STATISTICS", "Explorer", "explorer_data", "explorer_html"]

STATISTICS = ("barlow-beeston", "poisson", "pearson", "neyman", "cnp")
STEPS = 240  # of a slider: some twenty a standard deviation
DECADES = (-1.0, 2.0)  # of the exposure, around that of the run
LONGEST_days = 20 * 365.25


@dataclass(frozen=True)
class _Look:
    """How a parameter is shown: text, unit, what its value is multiplied by, decimal places, group."""

    label: str
    unit: str
    factor: float
    digits: int
    group: str


_LOOKS: Mapping[str, _Look] = {
    "sin2_th12": _Look("sin²θ₁₂", "", 1.0, 4, "Oscillation"),
    "sin2_th13": _Look("sin²θ₁₃", "", 1.0, 5, "Oscillation"),
    "dm2_21_eV2": _Look("Δm²₂₁", "× 10⁻⁵ eV²", 1e5, 3, "Oscillation"),
    "dm2_31_eV2": _Look("|Δm²₃₁|", "× 10⁻³ eV²", 1e3, 4, "Oscillation"),
    "matter_density_g_cm3": _Look("matter density", "g/cm³", 1.0, 2, "Oscillation"),
    "kB_g_cm2_GeV": _Look("quenching kB", "g/cm²/GeV", 1.0, 2, "Detector response"),
    "fC": _Look("Cherenkov light fC", "", 1.0, 4, "Detector response"),
    "light_yield_per_MeV": _Look("light yield", "photons/MeV", 1.0, 0, "Detector response"),
    "energy_scale": _Look("energy scale", "%", 100.0, 2, "Detector response"),
    "smear_a": _Look("extra smearing a", "√MeV", 1.0, 4, "Detector response"),
    "smear_b": _Look("extra smearing b", "", 1.0, 4, "Detector response"),
    "smear_c": _Look("extra smearing c", "MeV", 1.0, 4, "Detector response"),
}
_BACKGROUNDS: Mapping[str, str] = {"li9_he8": "⁹Li/⁸He", "atmospheric_nc": "atmospheric NC", "alpha_n": "(α, n)"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_GROUPS = ("Oscillation", "Detector response")
_DAYS = "days"
_LONGEST = 200  # characters of a text from data


@dataclass(frozen=True)
class Explorer:
    """What a page embeds.

    Attributes:
        html: Markup and style, for the inside of a section.
        script: JavaScript for a ``<script>`` element after the markup; it holds neither ``</script`` nor ``<!--``.
    """

    html: str
    script: str


def explorer_data(
    basis: ReducedBasis,
    *,
    counts: ArrayLike,
    days: float,
    title: str,
    edges_MeV: ArrayLike | None = None,
    extra_variance: ArrayLike | None = None,
    backgrounds: Mapping[str, ArrayLike] | None = None,
    best: Mapping[str, float] | None = None,
    priors: Mapping[str, tuple[float, float]] | None = None,
    errors: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    statistic: str = "barlow-beeston",
    legend: str = "data",
) -> dict[str, Any]:
    """Everything the page needs, as JSON.

    Args:
        basis: The model around its best fit.
        counts: Of the run, shape ``(bins,)``.
        days: Exposure of the run, which the counts of the basis are for.
        title: Heading; plain text.
        edges_MeV: Bins of the counts; refused where they are not those of the basis.
        extra_variance: Variance of the expectation beyond what the model has of its own (bin-to-bin shape
            uncertainties), such as that of the Monte Carlo, counts² per bin; it grows as the exposure squared.
        backgrounds: Counts of every background at the best fit instead of those of the model; a pull below -1 makes
            some of them negative.
        best: Where the sliders begin, if not at the values of the basis.
        priors: Parameter → (centre, width) of the Gaussian priors of the fit; those of parameters without a slider
            change nothing. The joint prior of the model is added. One of Δm²31 holds for its own ordering and for the
            same Δm²ee in the other (as in :func:`nuebar.fit.spectrum_fit.inverted_start`).
        errors: Standard deviations, which are drawn at the sliders.
        labels: Other names for parameters and backgrounds; plain text.
        statistic: That of the fit, one of :data:`STATISTICS`.
        legend: What the points are, as "data" or "simulated data".

    Raises:
        NuebarError: Arrays do not have the bins of the basis or hold impossible numbers, or a name is unknown.
    """
    edges, shown = basis.edges_MeV, {**_BACKGROUNDS, **(labels or {})}
    if edges_MeV is not None:
        given = np.asarray(edges_MeV, dtype=float)
        if given.shape != edges.shape or np.any(np.abs(given - edges) > 1e-6):
            raise NuebarError(
                "explorer: expected counts in the bins of the model, got other edges; take both of one fit"
            )
    if statistic not in STATISTICS:
        raise NuebarError(f"explorer: unknown statistic {statistic!r}; expected one of {', '.join(STATISTICS)}")
    if not (math.isfinite(days) and days > 0):
        raise NuebarError(f"explorer: expected an exposure above 0 days, got {days}")
    data = _per_bin("counts", counts, edges.size - 1)
    if statistic == "neyman" and np.any(data == 0):
        raise NuebarError("explorer: the statistic 'neyman' has no error for empty bins; choose another one")
    beyond = np.zeros(data.size) if extra_variance is None else _per_bin("extra variance", extra_variance, data.size)
    moved = {n: float(v) for n, v in (best or {}).items() if n in basis.ranges}
    start = {**basis.values, **moved}
    basis.predict(moved)  # refused here, not in the browser
    own = basis.backgrounds() if backgrounds is None else backgrounds
    model, title = basis.to_dict(), clean(title, _LONGEST)
    return {
        "format": 1,
        "title": title,
        "days": float(days),
        "edges_MeV": [float(e) for e in edges],
        "counts": data.tolist(),
        "extra_variance": beyond.tolist(),
        "backgrounds": [
            {
                "label": clean(shown.get(n, n.replace("_", " ")), _LONGEST),
                "counts": pack(_per_bin(n, c, data.size, least=-math.inf), np.float64),
            }
            for n, c in own.items()
        ],
        "best": moved,
        "priors": _priors(basis, priors or {}),
        "statistic": statistic,
        "sliders": [*_sliders(basis, start, errors or {}, shown), _exposure(days)],
        "sizes": [list(ends) for ends in basis.sizes],
        "legend": clean(legend, _LONGEST),
        "axis_x": "prompt energy [MeV]",
        "axis_y": _axis(edges),
        "hint": "Point at a bin to read its numbers; arrow keys do it too.",
        "figure_label": f"{title}: spectrum of prompt energies with data, prediction and backgrounds, and below the "
        "ratio of data to prediction. Arrow keys read single bins.",
        "model": {k: v for k, v in model.items() if k != "backgrounds"},
        "accuracy": {"error": basis.error, "points": basis.n_checked} if basis.n_checked else {},
    }


def explorer_html(data: Mapping[str, Any]) -> Explorer:
    """Markup and script.

    Args:
        data: From :func:`explorer_data`.
    """
    groups = [_group(name, [s for s in data["sliders"] if s["group"] == name]) for name in _GROUPS]
    exposure = _group("Exposure", [s for s in data["sliders"] if s["name"] == _DAYS])
    ordering = _ORDERING if any(s["name"] == "dm2_31_eV2" for s in data["sliders"]) else ""
    controls = groups[0].replace(_PLACE, ordering) + groups[1] + exposure
    text = files("nuebar.report").joinpath("explorer.js").read_text(encoding="utf-8")
    named = ", ".join(b["label"] for b in data["backgrounds"])
    markup = _MARKUP.format(
        style=_STYLE,
        title=html.escape(str(data["title"])),
        figure=html.escape(str(data["figure_label"])),
        controls=controls.replace(_PLACE, ""),
        backgrounds=html.escape(named) or "none",
        statistic=html.escape(_STATISTIC_TEXT[data["statistic"]]),
        accuracy=html.escape(_accuracy(data)),
    )
    return Explorer(markup, f"{text.strip()}({_json(data)});\n")


# ---------------------------------------------------------------- data


def _per_bin(what: str, values: ArrayLike, bins: int, least: float = 0.0) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.shape != (bins,):
        raise NuebarError(f"explorer: expected {what} of {bins} bins, got shape {array.shape}")
    bad = ~(np.isfinite(array) & (array >= least))
    if np.any(bad):
        worst, rule = int(np.argmax(bad)), "finite" if least < 0 else f"finite and at least {least:g}"
        raise NuebarError(f"explorer: expected {what} that are {rule}, got {array[worst]} in bin {worst}")
    return array


def _priors(basis: ReducedBasis, priors: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Gaussians of the parameters that move, as names, centres and inverse covariance."""
    joint = basis.model.prior
    out = []
    if set(joint.names) & set(basis.ranges):
        inverse = np.linalg.inv(np.asarray(joint.covariance))
        out.append({"names": list(joint.names), "mean": np.asarray(joint.mean).tolist(), "inverse": inverse.tolist()})
    for name, (centre, width) in priors.items():
        if name not in basis.values:
            raise NuebarError(f"explorer: the prior of {name!r} is for no parameter of the model")
        if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
            raise NuebarError(f"explorer: expected a prior of {name!r} with a width above 0, got {(centre, width)}")
        if name in basis.ranges and name not in joint.names:
            out.append({"names": [name], "mean": [float(centre)], "inverse": [[1.0 / width**2]]})
    return out


def _sliders(
    basis: ReducedBasis, start: Mapping[str, float], errors: Mapping[str, float], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """In the order of :data:`nuebar.predict.reduced.MOVED`, others behind."""
    names = [n for n in MOVED if n in basis.ranges] + [n for n in basis.ranges if n not in MOVED]
    out = []
    for name in names:
        low, high = basis.ranges[name]
        look = _LOOKS[name]
        value = abs(start[name]) if name == "dm2_31_eV2" else float(start[name])
        step, error = (high - low) / STEPS, float(errors.get(name, 0.0) or 0.0)
        # Whole steps from the best fit, which lies on one of them.
        first, last = math.ceil((low - value) / step - 1e-9), math.floor((high - value) / step + 1e-9)
        band = None
        if math.isfinite(error) and error > 0:
            band = [(min(max(k, first), last) - first) / (last - first) for k in (-error / step, error / step)]
        out.append(
            {
                "name": name,
                "label": clean(labels.get(name, look.label), _LONGEST),
                "unit": look.unit,
                "factor": look.factor,
                "digits": look.digits,
                "group": look.group,
                "low": low,
                "high": high,
                "step": step,
                "first": first,
                "last": last,
                "best": -first / (last - first),
                "band": band,
                "value": value,
            }
        )
    return out


def _exposure(days: float) -> dict[str, Any]:
    """The slider of the exposure: even in its logarithm, in steps of a hundredth of a decade."""
    step = 0.01
    first = round(DECADES[0] / step)
    last = round(min(DECADES[1], max(math.log10(LONGEST_days / days), 0.3)) / step)
    return {
        "name": _DAYS, "label": "days of data", "unit": "days", "factor": 1.0, "digits": 1, "group": "Exposure",
        "low": days * 10 ** (first * step), "high": days * 10 ** (last * step), "step": step, "first": first,
        "last": last, "best": -first / (last - first), "band": None, "value": float(days),
    }  # fmt: skip


def _axis(edges: np.ndarray) -> str:
    width = np.diff(edges)
    return f"events per {width[0]:.3g} MeV" if np.ptp(width) < 1e-9 * width[0] + 1e-9 else "events per bin"


def _accuracy(data: Mapping[str, Any]) -> str:
    found = data.get("accuracy") or {}
    if not found:
        return ""
    digit, power = f"{found['error']:.0e}".split("e")
    return (
        f"The tables in this page agree with the full prediction to {digit} × 10{str(int(power)).translate(_RAISED)} "
        f"of the content of a bin, measured at {found['points']} random settings of the sliders."
    )


def _json(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a script: no character that ends one, in HTML or in JavaScript."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---------------------------------------------------------------- markup

_PLACE = "<!-- ordering -->"

_STATISTIC_TEXT: Mapping[str, str] = {
    "barlow-beeston": "Poisson likelihood with the uncertainty of the expectation in every bin (Barlow and Beeston)",
    "poisson": "Poisson likelihood",
    "pearson": "Pearson's χ²",
    "neyman": "Neyman's χ²",
    "cnp": "combined Neyman-Pearson χ²",
}

_ORDERING = """<div class="nx-switch" role="radiogroup" aria-labelledby="nuebar-ordering-name">
<span id="nuebar-ordering-name">ordering</span>
<label><input type="radio" name="nuebar-ordering" data-part="ordering" value="1" autocomplete="off"> normal</label>
<label><input type="radio" name="nuebar-ordering" data-part="ordering" value="-1" autocomplete="off"> inverted</label>
</div>
<p class="nx-small">The switch keeps Δm²ₑₑ, where the two look most alike, so |Δm²₃₁| moves with it.</p>
"""


def _group(name: str, sliders: list[dict[str, Any]]) -> str:
    if not sliders:
        return ""
    return f'<fieldset class="nx-group"><legend>{name}</legend>\n{"".join(map(_slider, sliders))}{_PLACE}</fieldset>\n'


def _slider(s: Mapping[str, Any]) -> str:
    label, name = html.escape(str(s["label"])), html.escape(str(s["name"]), quote=True)
    band = ""
    if s["band"] is not None:
        low, high = (100.0 * x for x in s["band"])
        band = f'<span class="nx-band" style="left:{low:.2f}%;width:{high - low:.2f}%"></span>'
    return (
        f'<div class="nx-slider"><label for="nuebar-{name}">{label}</label>'
        f'<output for="nuebar-{name}" data-name="{name}"></output>'
        f'<input type="range" id="nuebar-{name}" data-name="{name}" min="{s["first"]}" max="{s["last"]}" step="1" '
        f'value="0" autocomplete="off"><span class="nx-track" aria-hidden="true">{band}'
        f'<span class="nx-best" style="left:{100.0 * s["best"]:.2f}%"></span></span></div>\n'
    )


_MARKUP = """<style>{style}</style>
<div class="nuebar-explorer" id="nuebar-explorer">
<h3>{title}</h3>
<noscript><p>This part of the page needs JavaScript, which is switched off.</p></noscript>
<div class="nx-columns">
<div class="nx-view">
<div class="nx-numbers">
<p><span class="nx-name">Δχ² to the best fit</span><strong data-part="chi2" role="status"></strong>
<span class="nx-small" data-part="chi2-parts"></span></p>
<p><span class="nx-name">events</span><strong data-part="events"></strong>
<span class="nx-small" data-part="events-data"></span></p>
<button type="button" data-part="reset">Back to best fit</button>
</div>
<p class="nx-notice" data-part="simulated" role="status" hidden></p>
<div class="nx-figure" data-part="figure" role="group" tabindex="0" aria-label="{figure}">
<div data-part="canvas" class="nx-canvas"></div></div>
<ul class="nx-legend">
<li><svg width="22" height="12" aria-hidden="true"><path class="bar" d="M11 0V12"/>
<circle class="datum" cx="11" cy="6" r="2.6"/></svg>
<span data-part="legend-data"></span></li>
<li><svg width="22" height="12" aria-hidden="true"><path class="prediction" d="M0 6H22"/></svg> prediction</li>
<li><svg width="22" height="12" aria-hidden="true"><path class="reference" d="M0 6H22"/></svg> best fit</li>
<li><svg width="22" height="12" aria-hidden="true"><path class="background" d="M0 1H22V12H0Z"/></svg> backgrounds</li>
</ul>
<p class="nx-readout" data-part="readout" role="status"></p>
</div>
<div class="nx-controls">
{controls}</div>
<p class="nx-caption">Move the sliders: the line is the expected spectrum, backgrounds included ({backgrounds}).
The points are the data, their bars the means μ with (n − μ)² ≤ μ. At another exposure than that of the run they are no
data but the best fit scaled to it, and Δχ² says what such an exposure would tell apart. Below, data over prediction,
with the best fit as a dashed line. Marks under the sliders show the best fit and its standard deviation. Δχ² compares
with the best fit by the statistic of the fit ({statistic}) and the priors of what is moved. Everything else stays at
the best fit: a new fit with the moved values would come closer to the data. {accuracy}</p>
</div>
</div>
"""

_STYLE = """
.nuebar-explorer { --nx-ink: var(--ink, #1b1f24); --nx-faint: var(--faint, #57606a); --nx-line: var(--line, #d6dbe1);
  --nx-soft: var(--soft, #f4f6f8); --nx-ground: var(--ground, #ffffff); --nx-model: #0b5cad; --nx-fill: #e3d3b4;
  --nx-notice: #8a5a00; color: var(--nx-ink); font-variant-numeric: tabular-nums; }
@media screen and (prefers-color-scheme: dark) {
  .nuebar-explorer { --nx-ink: var(--ink, #e4e8ec); --nx-faint: var(--faint, #a0abb6); --nx-line: var(--line, #363d45);
    --nx-soft: var(--soft, #1d2228); --nx-ground: var(--ground, #14171b); --nx-model: #7db8f7; --nx-fill: #57482c;
    --nx-notice: #f0bd60; }
}
.nuebar-explorer *, .nuebar-explorer *::before { box-sizing: border-box; }
.nuebar-explorer h3 { margin: 0 0 .6rem; font-size: 1.1rem; }
.nuebar-explorer p { margin: 0 0 .5rem; }
.nx-small, .nx-name, .nx-caption, .nx-readout { color: var(--nx-faint); font-size: .88rem; line-height: 1.4; }
.nx-columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: .4rem 2rem; }
.nx-view { min-width: 0; }
.nx-numbers { display: flex; gap: .1rem 1.6rem; align-items: flex-start; margin: 0 0 .4rem; }
.nx-numbers p { margin: 0; min-width: 7.5rem; }
.nx-numbers strong { display: block; font-size: 1.5rem; line-height: 1.2; font-weight: 600; }
.nx-numbers .nx-name, .nx-numbers .nx-small { display: block; }
.nx-numbers button { margin-left: auto; }
.nx-figure { touch-action: pan-y; }
.nx-canvas { width: 100%; }
.nx-canvas svg { display: block; max-width: 100%; height: auto; }
.nuebar-explorer svg text { fill: var(--nx-ink); font-size: 12px; font-family: inherit; }
.nuebar-explorer svg .axis { font-size: 13px; }
.nuebar-explorer svg .middle { text-anchor: middle; }
.nuebar-explorer svg .end { text-anchor: end; }
.nuebar-explorer svg .grid { stroke: var(--nx-line); stroke-width: 1; opacity: .6; }
.nuebar-explorer svg .frame { fill: none; stroke: var(--nx-faint); stroke-width: 1; }
.nuebar-explorer svg .background { fill: var(--nx-fill); stroke: none; }
.nuebar-explorer svg .prediction { fill: none; stroke: var(--nx-model); stroke-width: 2; }
.nuebar-explorer svg .reference { fill: none; stroke: var(--nx-faint); stroke-width: 1.3; stroke-dasharray: 5 3; }
.nuebar-explorer svg .bar { fill: none; stroke: var(--nx-ink); stroke-width: 1; }
.nuebar-explorer svg .datum { fill: var(--nx-ink); stroke: none; }
.nuebar-explorer svg .cursor { fill: var(--nx-model); opacity: .15; }
.nx-legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .1rem 0 .2rem; padding: 0;
  font-size: .88rem; }
.nx-legend svg { vertical-align: -1px; margin-right: .2rem; }
.nx-controls { min-width: 0; }
.nx-group { border: 1px solid var(--nx-line); border-radius: .4rem; margin: 0 0 .6rem;
  padding: .1rem .8rem .4rem; min-width: 0; }
.nx-group > legend { font-weight: 600; padding: 0 .3rem; }
.nx-slider { display: grid; grid-template-columns: minmax(0, 1fr) auto; align-items: baseline; margin: .2rem 0 .3rem;
  line-height: 1.35; }
.nx-slider output { text-align: right; }
.nx-slider input { grid-column: 1 / -1; width: 100%; margin: 0; height: 1.5rem; accent-color: var(--nx-model);
  touch-action: pan-y; }
.nx-track { grid-column: 1 / -1; position: relative; height: 6px; margin: -3px 8px 0; }
.nx-band { position: absolute; top: 2px; height: 3px; background: var(--nx-faint); opacity: .5; border-radius: 2px; }
.nx-best { position: absolute; top: -1px; width: 2px; height: 8px; margin-left: -1px; background: var(--nx-ink); }
.nx-switch { margin: .4rem 0 .1rem; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; }
.nx-switch span { padding: .2rem 0; margin-right: auto; }
.nx-switch label { padding: .2rem 0; }
.nx-switch input { accent-color: var(--nx-model); width: 1.1rem; height: 1.1rem; vertical-align: -2px;
  margin: 0 .2rem 0 0; }
.nx-readout { min-height: 2.8em; }
.nx-notice { border-left: .3rem solid var(--nx-notice); background: var(--nx-soft); padding: .45rem .7rem;
  font-size: .92rem; }
.nuebar-explorer button { font: inherit; color: inherit; background: var(--nx-soft); border: 1px solid var(--nx-faint);
  border-radius: .4rem; padding: .45rem .9rem; cursor: pointer; }
.nx-caption { max-width: 60rem; }
@media (max-width: 54.99rem) {
  .nx-numbers { gap: .1rem .8rem; line-height: 1.25; }
  .nx-numbers p { min-width: 0; }
  .nx-numbers strong { font-size: 1.25rem; }
  .nx-numbers .nx-name, .nx-numbers .nx-small, .nx-legend, .nx-readout, .nx-notice {
    font-size: .8rem; line-height: 1.3; }
  .nx-numbers p { white-space: nowrap; }
  .nx-numbers .nx-small { font-size: .72rem; }
  .nx-numbers button { font-size: .8rem; line-height: 1.2; padding: .35rem .4rem; max-width: 5rem; }
  .nx-notice { padding: .2rem .5rem; margin: 0 0 .2rem; }
  .nx-legend { gap: .1rem .5rem; font-size: .72rem; }
  .nx-legend svg { width: 16px; margin-right: 0; }
}
@media screen and (max-width: 54.99rem) and (min-height: 40rem) {
  .nx-view { position: sticky; top: 0; z-index: 1; padding-top: .3rem; background: var(--nx-ground);
    border-bottom: 1px solid var(--nx-line); }
}
@media (min-width: 55rem) {
  .nx-columns { grid-template: "view controls" auto "caption controls" 1fr / minmax(0, 1fr) 21rem; }
  .nx-view { grid-area: view; }
  .nx-controls { grid-area: controls; }
  .nx-caption { grid-area: caption; }
}
@media print {
  .live { display: block !important; }
  .nuebar-explorer button, .nx-readout, .nx-track { display: none; }
  .nx-view { position: static; break-inside: avoid; }
  .nx-columns { display: block; }
  .nx-slider input { display: none; }
  .nx-slider { margin: .1rem 0; }
  .nx-group { break-inside: avoid; }
  .nx-canvas svg { width: 100%; }
}
"""

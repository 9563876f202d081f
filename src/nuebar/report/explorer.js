// The live spectrum of a report. Three parts: the reduced model (the steps of nuebar.predict.surrogate and
// nuebar.predict.harmonic on the tables of nuebar.predict.reduced), the statistic of the fit
// (nuebar.stats.likelihood), and the page. No network, no library.
(function (data) {
  "use strict";

  // ------------------------------------------------------------------ tables

  const TYPES = { float32: Float32Array, float64: Float64Array, int32: Int32Array };

  function unpacked(packed) {
    const text = atob(packed.base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return Float64Array.from(new TYPES[packed.type](bytes.buffer));
  }

  function unpackedSums(packed) {
    const series = (s) => ({
      middle: s.middle, half: s.half, n: s.value.shape[1], value: unpacked(s.value),
      moment: s.moment.shape[1] ? unpacked(s.moment) : null,
    });
    return {
      rows: packed.flat.shape[0], flat: unpacked(packed.flat), flatMoment: unpacked(packed.flat_moment),
      solar: series(packed.solar), atmospheric: series(packed.atmospheric),
    };
  }

  const model = data.model;
  const m = {
    energies: unpacked(model.matter.energies_MeV), toNodes: unpacked(model.matter.to_nodes),
    toSlopes: unpacked(model.matter.to_slopes), counts: unpackedSums(model.counts),
    excess: unpackedSums(model.excess), light: unpacked(model.light), inverse: unpacked(model.inverse),
    anchor: unpacked(model.anchor), constants: unpacked(model.constants),
    blockEdges: unpacked(model.block_edges_MeV), blocks: model.block_edges_MeV.shape[0],
    edgesOfBlock: model.block_edges_MeV.shape[1], toBins: {
      row: unpacked(model.to_bins.row), column: unpacked(model.to_bins.column),
      weight: unpacked(model.to_bins.weight),
    },
    shapeFirst: unpacked(model.shape.first), shapeSigma: unpacked(model.shape.sigma),
    backgroundVariance: unpacked(model.background_variance),
    nodes: model.light.shape[1], nKB: model.light.shape[2], nRatio: model.light.shape[3],
  };
  const bins = model.bins, edges = data.edges_MeV, best = { ...model.parameters, ...data.best };
  const backgrounds = data.backgrounds.map((b) => ({ label: b.label, counts: unpacked(b.counts) }));
  const background = new Float64Array(bins);
  for (const b of backgrounds) for (let k = 0; k < bins; k++) background[k] += b.counts[k];

  // ------------------------------------------------------------------ oscillation

  // T_k(t) and three derivatives in the splitting, interleaved: [T_0, T_0', T_0'', T_0''', T_1, ...].
  function chebyshev(x, series) {
    const t = (x - series.middle) / series.half, n = series.n, out = new Float64Array(4 * n);
    out[0] = 1;
    if (n > 1) { out[4] = t; out[5] = 1; }
    for (let k = 2; k < n; k++) {
      const a = 4 * (k - 1), b = 4 * (k - 2);
      for (let d = 0; d < 4; d++) out[4 * k + d] = 2 * t * out[a + d] + (d ? 2 * d * out[a + d - 1] : 0) - out[b + d];
    }
    for (let k = 0; k < n; k++) {
      for (let d = 1, scale = 1; d < 4; d++) { scale /= series.half; out[4 * k + d] *= scale; }
    }
    return out;
  }

  // Weights and splittings in matter: nuebar.physics.oscillation.eigensystem.
  function eigensystem(a, s12, s13, d2, d3) {
    const w3 = s13, w2 = (1 - s13) * s12, w1 = (1 - s13) * (1 - s12);
    let delta = 0;
    for (let i = 0; i < 3; i++) delta = (-a * w3) / (1 + a * (w1 / (d3 + delta) + w2 / (d3 + delta - d2)));
    const lam3 = d3 + delta, total = d2 - a - delta, product = (-a * d2 * w1 * d3) / lam3;
    const gap = Math.sqrt(total * total - 4 * product);
    const large = 0.5 * (total >= 0 ? total + gap : total - gap), small = product / large;
    const lam2 = total >= 0 ? large : small, lam1 = total >= 0 ? small : large;
    const gap31 = lam3 - lam1, gap32 = lam3 - lam2;
    const v1 = (w1 * (lam1 - d2) * (lam1 - d3) + lam1 * (w2 * (lam1 - d3) + w3 * (lam1 - d2))) / (gap * gap31);
    const v3 = ((w1 * (lam3 - d2) + w2 * lam3) * delta + w3 * lam3 * (lam3 - d2)) / (gap31 * gap32);
    const v2 = 1 - v1 - v3;
    return [v1 * v2, v1 * v3, v2 * v3, gap - d2, gap31 - d3, gap32 - (d3 - d2)];
  }

  // The six numbers of matter at every node, and their slopes in energy.
  function inMatter(p) {
    const nodes = m.nodes, value = new Float64Array(6 * nodes), slope = new Float64Array(6 * nodes);
    m.energies.forEach((energy, i) => {
      const potential = model.matter.potential_eV2_per_MeV * p.matter_density_g_cm3 * energy;
      const found = eigensystem(potential, p.sin2_th12, p.sin2_th13, p.dm2_21_eV2, p.dm2_31_eV2);
      for (let q = 0; q < 6; q++) {
        for (let j = 0; j < nodes; j++) {
          value[q * nodes + j] += found[q] * m.toNodes[i * nodes + j];
          slope[q * nodes + j] += found[q] * m.toSlopes[i * nodes + j];
        }
      }
    });
    return { value, slope };
  }

  // Adds 2 Σ w v(E) cos(2κ (x + ν(E)) L / E) of one wave to all rows; the sets of rows share the nodes.
  function addWave(out, rows, series, x, q, shift, sign, matter) {
    const basis = chebyshev(x, series), n = series.n, nodes = m.nodes, { value, moment } = series;
    for (let j = 0; j < rows; j++) {
      let g0 = 0, g1 = 0, g2 = 0, g3 = 0;
      for (let k = 0, at = j * n; k < n; k++, at++) {
        const c = value[at], b = 4 * k;
        g0 += c * basis[b]; g1 += c * basis[b + 1]; g2 += c * basis[b + 2]; g3 += c * basis[b + 3];
      }
      const node = j % nodes, v = matter.value[q * nodes + node], nu = sign * matter.value[shift * nodes + node];
      if (!moment) {
        out[j] += 2 * v * (g0 + nu * (g1 + 0.5 * nu * g2));
        continue;
      }
      let h0 = 0, h1 = 0, h2 = 0;
      for (let k = 0, at = j * n; k < n; k++, at++) {
        const c = moment[at], b = 4 * k;
        h0 += c * basis[b]; h1 += c * basis[b + 1]; h2 += c * basis[b + 2];
      }
      const slopeV = matter.slope[q * nodes + node], slopeNu = sign * matter.slope[shift * nodes + node];
      out[j] += 2 * (v * (g0 + nu * (g1 + nu * (g2 / 2 + (nu * g3) / 6)))
        + slopeV * (h0 + nu * (h1 + (nu * h2) / 2)) + v * slopeNu * (h1 + nu * h2));
    }
  }

  function oscillated(sums, p, matter) {
    const { rows } = sums, out = new Float64Array(rows), nodes = m.nodes, { value, slope } = matter;
    for (let j = 0; j < rows; j++) {
      const i = j % nodes;
      out[j] = (1 - 2 * (value[i] + value[nodes + i] + value[2 * nodes + i])) * sums.flat[j]
        - 2 * (slope[i] + slope[nodes + i] + slope[2 * nodes + i]) * sums.flatMoment[j];
    }
    const d21 = p.dm2_21_eV2, d31 = p.dm2_31_eV2, sign = Math.sign(d31);
    addWave(out, rows, sums.solar, d21, 0, 3, 1, matter);
    addWave(out, rows, sums.atmospheric, sign * d31, 1, 4, sign, matter);
    addWave(out, rows, sums.atmospheric, sign * (d31 - d21), 2, 5, sign, matter);
    return out;
  }

  // Rows of the nodes: they stay while only the response moves.
  let lastKey = "", lastRows = null;
  function rowsOf(p) {
    const key = [p.sin2_th12, p.sin2_th13, p.dm2_21_eV2, p.dm2_31_eV2, p.matter_density_g_cm3].join();
    if (key !== lastKey) {
      const matter = inMatter(p), out = new Float64Array(m.nodes * model.sets);
      out.set(oscillated(m.counts, p, matter));
      out.set(oscillated(m.excess, p, matter), m.nodes);
      lastRows = out;
      lastKey = key;
    }
    return lastRows;
  }

  // ------------------------------------------------------------------ response

  // Φ(z) on a grid by the series φ(z) Σ z^(2k+1)/(2k+1)!! (G. Marsaglia, J. Stat. Softw. 11 (2004) 4), between its
  // points by Taylor's series.
  const REACH = 10, PER_UNIT = 64, ROOT = 1 / Math.sqrt(2 * Math.PI);
  const table = new Float64Array(2 * REACH * PER_UNIT + 1), densities = new Float64Array(table.length);
  for (let i = 0; i < table.length; i++) {
    const z = i / PER_UNIT - REACH;
    let term = z, sum = z;
    for (let k = 3; Math.abs(term) > 1e-18 * Math.abs(sum); k += 2) { term *= (z * z) / k; sum += term; }
    densities[i] = ROOT * Math.exp(-0.5 * z * z);
    table[i] = Math.min(1, Math.max(0, 0.5 + sum * densities[i]));
  }
  function normal(z) {
    if (z >= REACH) return 1;
    if (z <= -REACH) return 0;
    const i = Math.round((z + REACH) * PER_UNIT), a = i / PER_UNIT - REACH, h = z - a, a2 = a * a;
    return table[i] + densities[i] * h * (1 - h * (a / 2 - h * ((a2 - 1) / 6 - h * ((a2 - 3) * a / 24
      - h * ((a2 * a2 - 6 * a2 + 3) / 120 - h * (a2 * a2 - 10 * a2 + 15) * a / 720)))));
  }

  function plainChebyshev(t, n) {
    const out = [1, t];
    for (let k = 2; k < n; k++) out.push(2 * t * out[k - 1] - out[k - 2]);
    return out.slice(0, n);
  }

  // Mean, 1/σ, skewness/6, kurtosis/24 of the reconstructed energy at every node, and the two levers.
  function shapes(p) {
    const nodes = m.nodes, size = m.nKB * m.nRatio;
    const inKB = plainChebyshev((p.kB_g_cm2_GeV - model.kB_window[0]) / model.kB_window[1], m.nKB);
    const ratio = p.fC / p.light_yield_per_MeV;
    const inRatio = plainChebyshev((ratio - model.ratio_window[0]) / model.ratio_window[1], m.nRatio);
    const basis = inKB.flatMap((a) => inRatio.map((b) => a * b));
    const [cherenkov, efficiency, chargeSigma, dark, constant] = m.constants;
    let quenched = 0;
    for (let k = 0; k < m.nKB; k++) quenched += m.anchor[k] * inKB[k];
    const pe = (efficiency * (p.light_yield_per_MeV * quenched + p.fC * cherenkov)) / model.n_h_MeV;
    const s2 = chargeSigma * chargeSigma, statistics = (1 + s2) / pe, third = 1 + 3 * s2;
    const a2 = p.smear_a * p.smear_a, b2 = p.smear_b * p.smear_b + constant * constant, c2 = p.smear_c * p.smear_c;
    const up = 1 + p.energy_scale, made = new Float64Array(6), out = [];
    for (let k = 0; k < 6; k++) out.push(new Float64Array(nodes));
    for (let j = 0; j < nodes; j++) {
      for (let q = 0; q < 6; q++) {
        let sum = 0;
        for (let k = 0, at = (q * nodes + j) * size; k < size; k++) sum += m.light[at + k] * basis[k];
        made[q] = sum;
      }
      const root = model.first_node + model.node_step * j, g = root * root + made[0];
      const m2 = made[1], m3 = made[2], m4 = made[3];
      const i1 = m.inverse[j], i2 = m.inverse[nodes + j], i3 = m.inverse[2 * nodes + j], i4 = m.inverse[3 * nodes + j];
      const slope = statistics * i1 + a2 + 2 * b2 * g;
      const variance = m2 + statistics * (g * i1 + (dark * i2) / pe) + b2 * (g * g + m2) + a2 * g + c2;
      const k3 = m3 + (third * (g * i2 + (dark * i3) / pe)) / (pe * pe) + 3 * m2 * slope;
      const k4 = m4 - 3 * m2 * m2 + 3 * i4 * statistics * g * statistics * g;
      const inverse = 1 / Math.sqrt(variance), square = inverse * inverse;
      out[0][j] = up * g;
      out[1][j] = inverse / up;
      out[2][j] = (k3 * square * inverse) / 6;
      out[3][j] = (k4 * square * square) / 24;
      out[4][j] = made[4] * inverse;
      out[5][j] = made[5] * inverse;
    }
    return out;
  }

  // Counts in the fine bins.
  function smeared(rows, p) {
    const nodes = m.nodes, [mean, inverse, skew, kurtosis, x, y] = shapes(p);
    const perBlock = m.edgesOfBlock, out = new Float64Array(model.fine_bins), span = model.span;
    for (let block = 0; block < m.blocks; block++) {
      const first = block * perBlock, middle = 0.5 * (m.blockEdges[first] + m.blockEdges[first + perBlock - 1]);
      const at = Math.round((Math.sqrt(middle) - model.first_node) / model.node_step);
      const ratio = mean[at] / (model.first_node + model.node_step * at) ** 2;
      const there = Math.round((Math.sqrt(middle / ratio) - model.first_node) / model.node_step);
      const start = Math.max(0, Math.min(nodes - span, there - Math.floor(span / 2)));
      const below = new Float64Array(perBlock);
      for (let j = start; j < start + span; j++) {
        const count = rows[j];
        const moved = x[j] * rows[nodes + j] + y[j] * rows[2 * nodes + j];
        const widened = 0.5 * (x[j] * x[j] * rows[3 * nodes + j] + y[j] * y[j] * rows[5 * nodes + j])
          + x[j] * y[j] * rows[4 * nodes + j];
        const two = count * skew[j], three = count * kurtosis[j], zero = moved - two, one = widened - 3 * three;
        for (let e = 0; e < perBlock; e++) {
          const z = (m.blockEdges[first + e] - mean[j]) * inverse[j];
          below[e] += normal(z) * count
            - ROOT * Math.exp(-0.5 * z * z) * (zero + z * (one + z * (two + z * three)));
        }
      }
      for (let e = 0; e + 1 < perBlock; e++) {
        const bin = block * (perBlock - 1) + e;
        if (bin < out.length) out[bin] = below[e + 1] - below[e];
      }
    }
    return out;
  }

  // Expected counts and their variance from bin-to-bin shape uncertainties, at the exposure of the run.
  function expectedAt(parameters) {
    const p = { ...best, ...parameters }, fine = smeared(rowsOf(p), p);
    const counts = Float64Array.from(background), variance = Float64Array.from(m.backgroundVariance);
    const { row, column, weight } = m.toBins;
    for (let k = 0; k < weight.length; k++) counts[row[k]] += weight[k] * fine[column[k]];
    for (let b = 0; b < bins; b++) {
      for (let f = m.shapeFirst[b]; f < m.shapeFirst[b + 1]; f++) variance[b] += (m.shapeSigma[f] * fine[f]) ** 2;
    }
    return { counts, variance };
  }

  // ------------------------------------------------------------------ statistic

  const STATISTICS = {
    "barlow-beeston": (n, mu, v) => {
      if (!(n > 0)) return mu >= v ? 2 * mu - v : (mu * mu) / v;
      const above = mu - v, root = Math.sqrt(above * above + 4 * n * v);
      const b = above > 0 ? 0.5 * (above + root) : (2 * n * v) / (root - above);
      return 2 * (b - n + n * Math.log(n / b)) + v * (n / b - 1) ** 2;
    },
    poisson: (n, mu) => 2 * (n > 0 ? mu - n + n * Math.log(n / mu) : mu),
    pearson: (n, mu, v) => (n - mu) ** 2 / (mu + v),
    neyman: (n, mu, v) => (n - mu) ** 2 / (n + v),
    cnp: (n, mu, v) => (n - mu) ** 2 / ((n > 0 ? (3 * n * mu) / (mu + 2 * n) : 0.5 * mu) + v),
  };
  const perBin = (n, mu, v) => (mu < 0 ? Infinity : STATISTICS[data.statistic](n, mu, v));

  const measured = Float64Array.from(data.counts), extra = Float64Array.from(data.extra_variance);
  const atBest = expectedAt({});

  // Data at an exposure: those of the run at its own, else the scaled expectation of the best fit.
  function dataAt(days) {
    const factor = days / data.days;
    return days === data.days ? measured : atBest.counts.map((c) => c * factor);
  }

  function spectrumPart(found, counts, days) {
    const factor = days / data.days;
    let sum = 0;
    for (let b = 0; b < bins; b++) {
      sum += perBin(counts[b], found.counts[b] * factor, (found.variance[b] + extra[b]) * factor * factor);
    }
    return sum;
  }

  // What is known of Δm²31 in one ordering says the same of Δm²ee in the other.
  const mirrored = (d31) => -d31 + 2 * best.sin2_th12 * best.dm2_21_eV2;

  // (x - mean)ᵀ C⁻¹ (x - mean) of every prior.
  function priorPart(parameters) {
    const p = { ...best, ...parameters };
    let sum = 0;
    for (const prior of data.priors) {
      const d = prior.names.map((name, k) => {
        const other = name === "dm2_31_eV2" && p[name] * prior.mean[k] < 0;
        return p[name] - (other ? mirrored(prior.mean[k]) : prior.mean[k]);
      });
      for (let i = 0; i < d.length; i++) for (let j = 0; j < d.length; j++) sum += d[i] * prior.inverse[i][j] * d[j];
    }
    return sum;
  }

  function compare(parameters, days) {
    const found = expectedAt(parameters), counts = dataAt(days);
    const spectrum = spectrumPart(found, counts, days) - spectrumPart(atBest, counts, days);
    const priors = priorPart(parameters) - priorPart({});
    return { found, counts, spectrum, priors, total: spectrum + priors };
  }

  // ------------------------------------------------------------------ page

  const root = document.getElementById("nuebar-explorer");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const figure = part("figure"), canvas = part("canvas"), readout = part("readout");
  const signOf = (values) => (values.dm2_31_eV2 < 0 ? -1 : 1);
  const state = { values: { ...best }, days: data.days };
  const SVG = "http://www.w3.org/2000/svg";
  const MINUS = "\u2212", THIN = "\u202f";

  function fixed(x, digits) {
    if (!Number.isFinite(x)) return Number.isNaN(x) ? "?" : (x < 0 ? MINUS : "") + "\u221e";
    const text = Math.abs(x).toFixed(digits), [whole, rest] = text.split(".");
    const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, THIN) : whole;
    return (x < 0 && Number(text) !== 0 ? MINUS : "") + grouped + (rest ? "." + rest : "");
  }
  const signed = (x, digits) => (x > 0 && Number(x.toFixed(digits)) !== 0 ? "+" : "") + fixed(x, digits);
  const compact = (x) => fixed(x, x >= 1000 ? 0 : x >= 100 ? 1 : 2);
  const spelt = (text) => text.replace(THIN, "").replace(MINUS, "minus ");

  // Sliders move in whole steps away from the best fit, so that it lies on one of them.
  const sliders = data.sliders.map((s) => {
    const input = root.querySelector(`input[data-name="${s.name}"]`);
    const output = root.querySelector(`output[data-name="${s.name}"]`);
    const centre = s.name === "days" ? 0 : s.name === "dm2_31_eV2" ? Math.abs(best[s.name]) : best[s.name];
    return { ...s, input, output, centre };
  });

  function fromPosition(s, k) {
    if (s.name === "days") return k === 0 ? data.days : data.days * 10 ** (k * s.step);
    const value = s.centre + k * s.step;
    return s.name === "dm2_31_eV2" ? signOf(state.values) * value : value;
  }

  function toPosition(s) {
    if (s.name === "days") return Math.round(Math.log10(state.days / data.days) / s.step);
    const value = state.values[s.name];
    return Math.round(((s.name === "dm2_31_eV2" ? Math.abs(value) : value) - s.centre) / s.step);
  }

  function shown(s) {
    const value = s.name === "days" ? state.days : s.name === "dm2_31_eV2" ? Math.abs(state.values[s.name])
      : state.values[s.name];
    if (s.name === "days") {
      return value >= 730 ? `${fixed(value / 365.25, 1)} years` : `${fixed(value, value < 100 ? 1 : 0)} days`;
    }
    return fixed(value * s.factor, s.digits) + (s.unit ? `\u2009${s.unit}` : "");
  }

  function tidy(values, days) {
    for (const s of sliders) {
      if (s.name === "days") continue;
      const sign = s.name === "dm2_31_eV2" ? Math.sign(values[s.name]) || 1 : 1, size = sign * values[s.name];
      const [least, most] = s.name === "dm2_31_eV2" ? data.sizes[sign > 0 ? 0 : 1] : [s.low, s.high];
      values[s.name] = sign * Math.min(Math.max(size, s.low, least), s.high, most);
    }
    const exposure = sliders.find((s) => s.name === "days");
    return Math.min(Math.max(days, exposure.low), exposure.high);
  }

  // Fixed Δm²ee: where the two orderings look most alike (as nuebar.fit.spectrum_fit.inverted_start).
  function switchOrdering(sign) {
    if (sign === signOf(state.values)) return;
    const v = state.values;
    v.dm2_31_eV2 = -v.dm2_31_eV2 + 2 * v.sin2_th12 * v.dm2_21_eV2;
  }

  // ------------------------------------------------------------------ picture

  function element(name, attributes, parent, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  }

  function ticks(low, high, most) {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * ([1, 2, 2.5, 5, 10].find((k) => k * power >= raw * 0.999) || 10);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)), out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) out.push([k * step, digits]);
    return out;
  }

  // The interval of means μ with (n - μ)² ≤ μ: never empty, [0, 1] for no event.
  const interval = (n) => [n + 0.5 - Math.sqrt(n + 0.25), n + 0.5 + Math.sqrt(n + 0.25)];

  let drawn = null, pointed = -1;

  function draw(now) {
    const width = Math.max(280, canvas.clientWidth || 640), narrow = width < 560;
    const room = Math.max(280, window.innerHeight - 90);
    const height = narrow ? 300 : Math.round(Math.min(580, room, Math.max(400, width * 0.66)));
    const right = 10, top = 10, gap = 14, bottom = narrow ? 38 : 44;
    const split = top + Math.round((height - top - bottom - gap) * 0.68);
    const factor = state.days / data.days, low = edges[0], high = edges[bins];
    const prediction = Array.from(now.found.counts, (c) => c * factor);
    const reference = Array.from(atBest.counts, (c) => c * factor);
    const behind = Array.from(background, (c) => c * factor), counts = Array.from(now.counts);
    const bars = counts.map(interval);
    const most = 1.06 * Math.max(...bars.map((b) => b[1]), ...reference, ...prediction);
    const errors = reference.map((c) => 1 / Math.sqrt(Math.max(c, 1))).sort((a, b) => a - b);
    const reach = [0.05, 0.1, 0.2, 0.5, 1].find((r) => r >= 3 * errors[bins >> 1]) || 1;
    const rows = ticks(0, most, narrow ? 4 : 6).map(([value, digits]) => [value, fixed(value, digits)]);
    const left = (narrow ? 20 : 28) + 7.6 * Math.max(4, ...rows.map(([, text]) => text.length));
    const x = (e) => left + ((e - low) / (high - low)) * (width - left - right);
    const y = (c) => split - (Math.max(c, 0) / most) * (split - top);
    const under = split + gap, floor = height - bottom;
    const yRatio = (r) => under + ((1 + reach - r) / (2 * reach)) * (floor - under);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "plot" });
    const clip = element("clipPath", { id: "nuebar-explorer-clip" }, svg);
    element("rect", { x: left, y: under, width: width - left - right, height: floor - under }, clip);

    for (const [value, text] of rows) {
      element("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }, svg);
      element("text", { class: "tick end", x: left - 5, y: y(value) + 4 }, svg, text);
    }
    for (const value of [1 - reach, 1 - reach / 2, 1, 1 + reach / 2, 1 + reach]) {
      element("line", { class: "grid", x1: left, x2: width - right, y1: yRatio(value), y2: yRatio(value) }, svg);
      if (narrow && Math.abs(Math.abs(value - 1) - reach / 2) < 1e-9) continue;
      const digits = (narrow ? { 0.05: 2 } : { 0.05: 3, 0.1: 2, 0.5: 2 })[reach] || 1;
      element("text", { class: "tick end", x: left - 5, y: yRatio(value) + 4 }, svg, fixed(value, digits));
    }
    for (const [value, digits] of ticks(low, high, narrow ? 5 : 9)) {
      element("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: split }, svg);
      element("line", { class: "grid", x1: x(value), x2: x(value), y1: under, y2: floor }, svg);
      element("text", { class: "tick middle", x: x(value), y: floor + 16 }, svg, fixed(value, digits));
    }
    const middle = (left + width - right) / 2;
    element("text", { class: "axis middle", x: middle, y: height - 5 }, svg, data.axis_x);
    const turned = (text, at) => element("text", {
      class: "axis middle", transform: `translate(${narrow ? 11 : 14} ${at}) rotate(-90)`,
    }, svg, text);
    turned(data.axis_y, (top + split) / 2);
    turned(narrow ? "data / pred." : "data / prediction", (under + floor) / 2);

    const step = (values, map) => values.map((c, b) => `${b ? "L" : "M"}${x(edges[b]).toFixed(2)} ${map(c).toFixed(2)}H${
      x(edges[b + 1]).toFixed(2)}`).join("");
    element("path", { class: "background", d: `${step(behind, y)}V${split}H${left}Z` }, svg);
    element("path", { class: "reference", d: step(reference, y) }, svg);
    element("path", { class: "prediction", d: step(prediction, y) }, svg);
    const inside = element("g", { "clip-path": "url(#nuebar-explorer-clip)" }, svg);
    element("line", { class: "prediction", x1: left, x2: width - right, y1: yRatio(1), y2: yRatio(1) }, inside);
    element("path", { class: "reference", d: step(reference.map((c, b) => c / prediction[b]), yRatio) }, inside);
    const radius = narrow ? 1.7 : 2.4;
    let upper = "", lower = "";
    counts.forEach((c, b) => {
      const at = x(0.5 * (edges[b] + edges[b + 1]));
      upper += `M${at.toFixed(2)} ${y(bars[b][0]).toFixed(2)}V${y(bars[b][1]).toFixed(2)}`;
      lower += `M${at.toFixed(2)} ${yRatio(bars[b][0] / prediction[b]).toFixed(2)}V${
        yRatio(bars[b][1] / prediction[b]).toFixed(2)}`;
      element("circle", { class: "datum", cx: at, cy: y(c), r: radius }, svg);
      element("circle", { class: "datum", cx: at, cy: yRatio(c / prediction[b]), r: radius }, inside);
    });
    element("path", { class: "bar", d: upper }, svg);
    element("path", { class: "bar", d: lower }, inside);
    element("path", { class: "frame", d: `M${left} ${top}V${split}H${width - right}V${top}ZM${left} ${under}V${floor}H${
      width - right}V${under}Z` }, svg);
    const cursor = element("rect", { class: "cursor", y: top, height: floor - top, x: 0, width: 0 }, svg);
    canvas.replaceChildren(svg);
    drawn = { x, left, right, width, low, high, prediction, reference, behind, counts, cursor, factor };
    point(pointed);
  }

  function point(bin) {
    pointed = bin;
    if (!drawn) return;
    if (bin < 0) {
      drawn.cursor.setAttribute("width", 0);
      readout.textContent = data.hint;
      return;
    }
    const { x, counts, prediction, reference, factor, cursor } = drawn;
    cursor.setAttribute("x", x(edges[bin]));
    cursor.setAttribute("width", x(edges[bin + 1]) - x(edges[bin]));
    const shares = backgrounds.map((b) => ({ label: b.label, count: b.counts[bin] * factor }));
    const named = shares.filter((s) => s.count >= 0.005 * prediction[bin] && s.count > 0)
      .sort((a, b) => b.count - a.count).map((s) => `${s.label} ${compact(s.count)}`);
    const kind = state.days === data.days ? "data" : "simulated data";
    const seen = Number.isInteger(counts[bin]) ? fixed(counts[bin], 0) : compact(counts[bin]);
    readout.textContent = `${fixed(edges[bin], 2)} to ${fixed(edges[bin + 1], 2)} MeV: ${kind} ${seen}, prediction ${
      compact(prediction[bin])}, best fit ${compact(reference[bin])}${
      named.length ? `; backgrounds: ${named.join(", ")}` : ""}`;
  }

  // ------------------------------------------------------------------ updates

  let waiting = 0, milliseconds = 0;

  function refresh() {
    const began = performance.now(), now = compare(state.values, state.days);
    milliseconds = performance.now() - began;
    for (const s of sliders) {
      const text = shown(s);
      s.input.value = toPosition(s);
      s.input.setAttribute("aria-valuetext", spelt(text));
      s.output.textContent = text;
    }
    for (const input of root.querySelectorAll('input[data-part="ordering"]')) {
      input.checked = Number(input.value) === signOf(state.values);
    }
    const digits = Math.abs(now.total) < 100 ? 2 : 1, simulated = state.days !== data.days;
    const factor = state.days / data.days, sum = (a) => a.reduce((s, c) => s + c, 0);
    part("chi2").textContent = signed(now.total, digits);
    part("chi2-parts").textContent = `spectrum ${signed(now.spectrum, digits)}, priors ${signed(now.priors, digits)}`;
    part("events").textContent = compact(sum(now.found.counts) * factor);
    part("events-data").textContent = `${simulated ? "best fit" : "data"} ${
      simulated ? compact(sum(now.counts)) : fixed(sum(now.counts), 0)}`;
    const notice = part("simulated");
    notice.hidden = !simulated;
    notice.textContent = simulated
      ? `Simulated expectation for ${shown(sliders.find((s) => s.name === "days"))}: the best fit, scaled; no data.`
      : "";
    part("legend-data").textContent = simulated ? "simulated" : data.legend;
    draw(now);
  }

  function later() {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; refresh(); });
  }

  for (const s of sliders) {
    s.input.addEventListener("input", () => {
      const value = fromPosition(s, Number(s.input.value));
      if (s.name === "days") state.days = value; else state.values[s.name] = value;
      state.days = tidy(state.values, state.days);
      later();
    });
  }
  for (const input of root.querySelectorAll('input[data-part="ordering"]')) {
    input.addEventListener("change", () => {
      if (!input.checked) return;
      switchOrdering(Number(input.value));
      state.days = tidy(state.values, state.days);
      later();
    });
  }
  function reset() {
    state.values = { ...best };
    state.days = data.days;
    refresh();
  }
  part("reset").addEventListener("click", reset);

  function binAt(event) {
    const box = canvas.getBoundingClientRect(), { left, right, width, low, high } = drawn;
    const e = low + ((((event.clientX - box.left) / box.width) * width - left) / (width - left - right)) * (high - low);
    if (!(e >= low && e < high)) return -1;
    let bin = 0;
    while (e >= edges[bin + 1]) bin++;
    return bin;
  }
  figure.addEventListener("pointermove", (event) => point(binAt(event)));
  figure.addEventListener("pointerdown", (event) => point(binAt(event)));
  figure.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(-1); });
  figure.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) point(Math.min(bins - 1, Math.max(0, pointed < 0 ? (move > 0 ? 0 : bins - 1) : pointed + move)));
    else if (event.key === "Escape") point(-1);
    else return;
    event.preventDefault();
  });

  refresh();
  if (window.ResizeObserver) {
    let last = canvas.clientWidth;
    new ResizeObserver(() => {
      if (canvas.clientWidth !== last) { last = canvas.clientWidth; later(); }
    }).observe(canvas);
  }
  root.dataset.ready = "true";

  window.nuebarExplorer = {
    predict: (parameters) => Array.from(expectedAt(parameters || {}).counts),
    variance: (parameters) => Array.from(expectedAt(parameters || {}).variance),
    deltaChi2: (parameters, days) => compare(parameters || {}, days || data.days).total,
    state: () => ({ values: { ...state.values }, days: state.days, milliseconds }),
    set: (values, days) => {
      Object.assign(state.values, values);
      state.days = tidy(state.values, days || state.days);
      refresh();
    },
    reset,
  };
})

"use strict";
// Each figure turns its options into Plotly traces and a layout, or into {empty: "why"}. None of them touches the page.
// `race` is {result, series, styles, shown, ink}: `shown` the methods that are ticked, `ink` the colours of the current look.

const CLOCK_TITLES = {step: "Steps", gradients: "Gradient evaluations", seconds: "Seconds, without evaluation and warm-up"};
const LOST = {"diverged": "x-thin", "out of memory": "square-open", "failed": "triangle-up-open", "done": "x-thin"};
const COST_TITLES = {step_ms: "ms per step", state_bytes: "MiB of state", peak_mib: "MiB at the peak"};
const TUNING = ["tune", "extend"];
const LOST_PLACE = -.18;   // where the parallel coordinates put runs without a score

// Plotly reads a few HTML tags in its texts; names and messages must not be taken for them.
const literal = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const spread = values => Math.max(...values) / Math.min(...values);
const isNumber = value => typeof value === "number" && Number.isFinite(value);
const sameHyper = (a, b) => JSON.stringify(Object.entries(a).sort()) === JSON.stringify(Object.entries(b).sort());
const hyperText = hyper => Object.entries(hyper).map(([k, v]) => `${literal(k)} = ${isNumber(v) ? +v.toPrecision(4) : literal(JSON.stringify(v))}`).join("<br>");
const axis = (title, more = {}) => ({title: {text: literal(title)}, ...more});
const wantsLog = values => values.length > 1 && values.every(v => v > 0) && spread(values) > 20;
const scaleFor = values => !wantsLog(values) ? {type: "linear"} : {type: "log", dtick: spread(values) > 200 ? 1 : "D2"};

const figures = {
  curves(race, o) {
    const {metric} = race.result.settings, traces = [];
    let last = 0;
    for (const method of race.shown) {
      const {colour, dash} = race.styles[method];
      const runs = race.trials(method, ["final"]).filter(t => t.curve.step?.length);
      if (!runs.length) continue;
      const seeds = {x: [], y: [], text: []}, stops = {x: [], y: [], text: []};
      for (const run of runs) {
        const xs = run.curve[o.x] ?? [], ys = run.curve[o.quantity] ?? [];
        seeds.x.push(...xs, null); seeds.y.push(...ys, null); seeds.text.push(...xs.map(() => `seed ${run.seed}`), null);
        last = Math.max(last, xs.at(-1) ?? 0);
        const end = ys.findLastIndex(isNumber);
        if (run.status !== "done" && end >= 0) { stops.x.push(xs[end]); stops.y.push(ys[end]); stops.text.push(`seed ${run.seed}: ${run.status}`); }
      }
      const name = literal(method), summary = race.series.curves[method], middle = summary[o.quantity], xs = summary[o.x];
      const inside = xs.map((_, i) => i).filter(i => isNumber(middle.low[i]) && isNumber(middle.high[i]));
      const back = inside.slice().reverse();
      traces.push({...seeds, name, mode: "lines", line: {color: colour, width: 1}, opacity: .28, hovertemplate: `${name}, %{text}<br>%{y:.5g}<extra></extra>`, meta: "seeds"});
      traces.push({x: [...inside, ...back].map(i => xs[i]), y: [...inside.map(i => middle.high[i]), ...back.map(i => middle.low[i])], name, mode: "lines", line: {width: 0},
                   fill: "toself", fillcolor: race.faded(colour, .14), hoverinfo: "skip", meta: "quartiles"});
      traces.push({x: xs, y: middle.median, name, mode: "lines+markers", line: {color: colour, width: 2.4, dash}, marker: {...race.mark(method, 7), maxdisplayed: 9},
                   hovertemplate: `${name}, median<br>%{y:.5g} at %{x:.4g}<extra></extra>`, meta: "median"});
      if (stops.x.length) traces.push({...stops, name, mode: "markers", marker: {symbol: "x-thin", size: 10, line: {width: 2.4, color: colour}}, hovertemplate: `${name}, %{text}<extra></extra>`, meta: "stops"});
    }
    if (!traces.length) return {empty: "No final runs yet."};
    const target = o.quantity === "val" && isNumber(race.result.target) ? race.result.target : null;
    if (target !== null) traces.push({x: [0, last], y: [target, target], mode: "lines+text", text: [`target ${+target.toPrecision(4)}`, ""], textposition: "top right", textfont: {color: race.ink.muted}, line: {color: race.ink.muted, width: 1.2, dash: "dot"}, hoverinfo: "skip", meta: "target"});
    const range = o.part === "end" ? endRange(race, o) : undefined;
    return {traces, layout: {height: 460, xaxis: axis(CLOCK_TITLES[o.x]), yaxis: axis(o.quantity === "val" ? `Validation ${metric}` : "Training loss", {type: o.y, range})}};
  },

  seeds(race, o) {
    const {metric, reference, direction} = race.result.settings, traces = [], shapes = [], names = [];
    const base = new Map(race.trials(reference, ["final"]).map(t => [t.seed, t.test]));
    const all = [...new Set(race.result.trials.filter(t => t.stage === "final").map(t => t.seed))].sort((a, b) => a - b);
    const height = seed => all.length < 2 ? 0 : (all.indexOf(seed) / (all.length - 1) - .5) * .56;
    const methods = race.order.filter(m => race.shown.includes(m) && (o.quantity === "test" || m !== reference));
    for (const method of methods.slice().reverse()) {
      const row = names.length, name = literal(method), runs = race.trials(method, ["final"]);
      const value = t => o.quantity === "test" ? t.test : isNumber(t.test) && isNumber(base.get(t.seed)) ? (direction === "max" ? 1 : -1) * (t.test - base.get(t.seed)) : null;
      const dots = runs.filter(t => isNumber(value(t))), lost = runs.length - dots.length;
      names.push(lost ? `${name}<br><i>${lost} not ended</i>` : name);
      traces.push({x: dots.map(value), y: dots.map(t => row + height(t.seed)), text: dots.map(t => `seed ${t.seed}`), name, mode: "markers", marker: {...race.mark(method, 8), opacity: .75}, hovertemplate: `${name}, %{text}<br>%{x:.5g}<extra></extra>`, meta: "seeds"});
      const verdict = race.verdicts[method], mean = o.quantity === "test" ? verdict?.mean : verdict?.difference;
      if (isNumber(mean)) traces.push({x: [mean], y: [row], name, mode: "markers", marker: {symbol: "line-ns", size: 26, line: {width: 2.6, color: race.ink.ink}}, hovertemplate: `${name}, mean<br>%{x:.5g}<extra></extra>`, meta: "mean",
        ...(o.quantity === "difference" && isNumber(verdict.low) && isNumber(verdict.high) ? {error_x: {type: "data", symmetric: false, array: [verdict.high - mean], arrayminus: [mean - verdict.low], color: race.ink.ink, thickness: 1.6, width: 5}} : {})});
    }
    if (!traces.some(t => t.x.length)) return {empty: "No final runs to compare yet."};
    if (o.quantity === "difference") shapes.push({type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: {color: race.ink.muted, width: 1.2, dash: "dot"}});
    const title = o.quantity === "test" ? `Test ${metric}` : `Better than ${reference} by, in ${metric}`;
    return {traces, layout: {height: 120 + 54 * names.length, shapes, xaxis: axis(title), yaxis: {tickvals: names.map((_, i) => i), ticktext: names, range: [-.6, names.length - .4], showgrid: false, zeroline: false}}};
  },

  hyper(race, o) {
    const traces = [], lanes = race.shown.length, used = [];
    race.shown.forEach((method, lane) => {
      const {colour, symbol} = race.styles[method], name = literal(method);
      const runs = race.trials(method, ["defaults", ...TUNING]).filter(t => isNumber(t.hyper[o.hyper]));
      used.push(...runs.map(t => t.hyper[o.hyper]));
      const template = `${name}<br>%{text}<br><b>%{y:.5g}</b><extra></extra>`;
      const group = (some, marker, meta) => some.length && traces.push({x: some.map(t => t.hyper[o.hyper]), y: some.map(t => t.score), text: some.map(t => hyperText(t.hyper)), name, mode: "markers", marker, hovertemplate: template, meta});
      const ended = runs.filter(t => t.status === "done" && isNumber(t.score)), best = race.verdicts[method];
      group(ended.filter(t => t.stage !== "defaults"), {...race.mark(method, 9), opacity: .85}, "tuning");
      group(ended.filter(t => t.stage === "defaults"), {symbol: `${symbol}-open`, size: 11, color: colour, line: {width: 2}}, "defaults");
      group(best ? ended.filter(t => t.stage !== "defaults" && sameHyper(t.hyper, best.hyper)) : [], {symbol: "circle-open", size: 17, color: colour, line: {width: 2}}, "winner");
      const lost = runs.filter(t => t.status !== "done" || !isNumber(t.score));
      if (lost.length) traces.push({x: lost.map(t => t.hyper[o.hyper]), y: lost.map(() => lane), yaxis: "y2", text: lost.map(t => `${t.status}<br>${hyperText(t.hyper)}`), name, mode: "markers", marker: {symbol: "x-thin", size: 9, line: {width: 2.2, color: colour}}, hovertemplate: `${name}: %{text}<extra></extra>`, meta: "lost"});
    });
    if (!used.length) return {empty: "No tuning runs yet."};
    const anyLost = traces.some(t => t.meta === "lost");
    return {traces, layout: {xaxis: axis(o.hyper === "lr" ? "Learning rate" : o.hyper, {...scaleFor(used), anchor: anyLost ? "y2" : "y"}), yaxis: axis(`Validation ${race.result.settings.metric}`, {type: o.y, domain: anyLost ? [.2, 1] : [0, 1]}),
      ...(anyLost ? {yaxis2: {domain: [0, .14], range: [-1, lanes], tickvals: [(lanes - 1) / 2], ticktext: ["not ended"], showgrid: false, zeroline: false}} : {})}};
  },

  best(race, o) {
    const traces = race.shown.filter(m => race.series.best[m].x.length).map(method => {
      const {colour, dash, symbol} = race.styles[method], {x, y} = race.series.best[method], name = literal(method);
      return {x, y, name, mode: "lines+markers", line: {shape: "hv", color: colour, width: 2, dash}, marker: {...race.mark(method, 7), symbol: x.map(v => v === 0 ? `${symbol}-open` : symbol)}, hovertemplate: `${name}, trial %{x}<br>%{y:.5g}<extra></extra>`};
    });
    if (!traces.length) return {empty: "No tuning runs yet."};
    return {traces, layout: {xaxis: axis("Tuning runs", {dtick: Math.max(...traces.flatMap(t => t.x)) > 14 ? undefined : 2}), yaxis: axis(`Best validation ${race.result.settings.metric}`, {type: o.y})}};
  },

  ecdf(race, o) {
    const traces = race.stairs(race.series.ecdf[o.x]);
    if (!traces.length) return {empty: race.result.target === null ? "No target was set." : "No final runs yet."};
    return {traces, layout: {xaxis: axis(CLOCK_TITLES[o.x], {rangemode: "tozero"}), yaxis: axis("Share of runs at the target", {range: [-.02, 1.03], tickformat: ".0%"})}};
  },

  profile(race, o) {
    const traces = race.stairs(race.series.profile[o.x][o.against]), {reference} = race.result.settings, clock = {step: "steps", gradients: "gradients", seconds: "seconds"}[o.x];
    if (!traces.length) return {empty: race.result.target === null ? "No target was set." : "No final runs yet."};
    const xaxis = o.against === "fastest" ? axis(`Times the fastest method’s ${clock}`, {range: [1, 4], dtick: .5})
      : axis(`Times the ${clock} of ${reference}`, {type: "log", range: [Math.log10(.25), Math.log10(4)], tickvals: [.25, .5, 1, 2, 4], ticktext: ["¼", "½", "1", "2", "4"]});
    return {traces, layout: {xaxis, yaxis: axis("Share of seeds", {range: [-.02, 1.03], tickformat: ".0%"})}};
  },

  parallel(race, o) {
    const runs = race.trials(o.method, TUNING), names = [...new Set(runs.flatMap(t => Object.keys(t.hyper)))], {metric, direction} = race.result.settings;
    if (!runs.length) return {empty: `No tuning runs of ${o.method} yet.`};
    const best = race.verdicts[o.method], scored = runs.filter(t => t.status === "done" && isNumber(t.score)).map(t => t.score).sort((a, b) => direction === "min" ? b - a : a - b);
    const columns = names.map(name => column(name, runs.map(t => t.hyper[name])));
    columns.push(column(`${metric}`, runs.map(t => isNumber(t.score) && t.status === "done" ? t.score : null)));
    const traces = runs.map((run, i) => {
      const ended = run.status === "done" && isNumber(run.score), won = best && sameHyper(run.hyper, best.hyper);
      const rank = ended ? scored.indexOf(run.score) / Math.max(1, scored.length - 1) : 0;
      return {x: columns.map((_, c) => c), y: columns.map(c => c.at[i]), text: columns.map((_, c) => c === columns.length - 1 ? (ended ? `${+run.score.toPrecision(5)}` : run.status) : hyperText({[names[c]]: run.hyper[names[c]] ?? null})), mode: "lines+markers",
        line: {width: won ? 3.6 : 1.6, color: won ? race.ink.accent : ended ? race.ramp(rank) : race.ink.muted, dash: ended ? "solid" : "dot"}, marker: {size: won ? 7 : 4}, opacity: won || !best ? 1 : .85, hovertemplate: `trial ${run.index}, %{text}<extra></extra>`, meta: won ? "winner" : run.status};
    }).sort((a, b) => (a.meta === "winner") - (b.meta === "winner"));
    const label = (x, y, text, yanchor) => ({x, y, text: literal(text), showarrow: false, yanchor, font: {size: 11.5, color: race.ink.muted}});
    const annotations = columns.flatMap((c, i) => [label(i, 1.03, c.top, "bottom"), label(i, -.03, c.bottom, "top")]);
    if (scored.length < runs.length) annotations.push(label(columns.length - 1, LOST_PLACE - .03, "not ended", "top"));
    const shapes = columns.map((_, i) => ({type: "line", layer: "below", x0: i, x1: i, y0: 0, y1: 1, line: {color: race.ink.muted, width: 1}}));
    return {traces, layout: {annotations, shapes, margin: {l: 34, r: 34}, xaxis: {tickvals: columns.map((_, i) => i), ticktext: columns.map(c => literal(c.name)), range: [-.25, columns.length - .75], showgrid: false, showline: false, zeroline: false}, yaxis: {visible: false, range: [-.32, 1.12]}}};
  },

  map(race, o) {
    const runs = race.trials(o.method, ["defaults", ...TUNING]).filter(t => isNumber(t.hyper[o.x]) && (o.y === "" || isNumber(t.hyper[o.y])));
    if (!runs.length) return {empty: `No tuning runs of ${o.method} with numeric hyperparameters yet.`};
    const {colour} = race.styles[o.method], up = t => o.y === "" ? 0 : t.hyper[o.y];
    const traces = ["done", "diverged", "out of memory", "failed"].map(status => {
      const some = runs.filter(t => t.status === status), ended = status === "done";
      return {x: some.map(t => t.hyper[o.x]), y: some.map(up), text: some.map(t => `${t.status}${isNumber(t.score) ? `, ${+t.score.toPrecision(5)}` : ""}<br>${hyperText(t.hyper)}`), name: status, mode: "markers",
        marker: {symbol: ended ? "circle" : LOST[status], size: ended ? 9 : 12, color: ended ? colour : race.ink.ink, line: {width: ended ? 0 : 2.6, color: race.ink.ink}}, hovertemplate: "%{text}<extra></extra>", meta: status};
    }).filter(t => t.x.length);
    return {traces, layout: {xaxis: axis(o.x, scaleFor(runs.map(t => t.hyper[o.x]))), yaxis: o.y === "" ? {visible: false} : axis(o.y, scaleFor(runs.map(up)))}};
  },

  cost(race, o) {
    const methods = race.order.filter(m => race.shown.includes(m)).reverse(), unit = o.quantity === "state_bytes" ? 2 ** 20 : 1, traces = [];
    methods.forEach((method, row) => {
      const {colour} = race.styles[method], name = literal(method), values = race.trials(method, ["final"]).map(t => t[o.quantity]).filter(isNumber).map(v => v / unit);
      if (!values.length) return;
      const middle = values.slice().sort((a, b) => a - b)[Math.floor(values.length / 2)];
      traces.push({x: [middle], y: [row], name, type: "bar", orientation: "h", width: .5, marker: {color: race.faded(colour, .3)}, hovertemplate: `${name}, median<br>%{x:.4g}<extra></extra>`, meta: "median"});
      traces.push({x: values, y: values.map(() => row), name, mode: "markers", marker: {...race.mark(method, 6), opacity: .6}, hovertemplate: `${name}<br>%{x:.4g}<extra></extra>`, meta: "runs"});
    });
    if (!traces.length) return {empty: "Not measured yet."};
    return {traces, layout: {height: 110 + 34 * methods.length, xaxis: axis(COST_TITLES[o.quantity], {rangemode: "tozero"}), yaxis: {tickvals: methods.map((_, i) => i), ticktext: methods.map(literal), range: [-.6, methods.length - .4], showgrid: false, zeroline: false}}};
  },
};

// One axis of the parallel coordinates: places in [0, 1] and the words at both ends. Numbers by size (logarithms where they span decades), others by rank.
function column(name, values) {
  const numbers = values.filter(isNumber);
  if (numbers.length && values.every(v => v === null || v === undefined || isNumber(v))) {
    const low = Math.min(...numbers), high = Math.max(...numbers), scale = wantsLog(numbers) ? Math.log : v => v;
    const place = v => high > low ? (scale(v) - scale(low)) / (scale(high) - scale(low)) : .5;
    return {name, at: values.map(v => isNumber(v) ? place(v) : LOST_PLACE), top: `${+high.toPrecision(3)}`, bottom: `${+low.toPrecision(3)}`};
  }
  const kinds = [...new Set(values.map(v => JSON.stringify(v ?? null)))].sort();
  return {name, at: values.map(v => kinds.length > 1 ? kinds.indexOf(JSON.stringify(v ?? null)) / (kinds.length - 1) : .5), top: kinds.at(-1) ?? "", bottom: kinds[0] ?? ""};
}

// The span of all values in the last third of the steps, for a vertical axis that shows the end of the curves and not their start.
function endRange(race, o) {
  const runs = race.shown.flatMap(m => race.trials(m, ["final"])), from = race.result.settings.steps * 2 / 3;
  const values = runs.flatMap(t => (t.curve[o.quantity] ?? []).filter((v, i) => isNumber(v) && t.curve.step[i] >= from));
  if (!values.length) return undefined;
  const ends = [Math.min(...values), Math.max(...values)].map(v => o.y === "log" ? Math.log10(v) : v), room = (ends[1] - ends[0]) * .06 || .05;
  return [ends[0] - room, ends[1] + room];
}

"use strict";
// Figures of the tuning runs, of the same form as those of the final runs.

const LOST_PLACE = -0.18; // where the parallel coordinates put runs without a score
const LOST_SYMBOLS = {diverged: "x-thin", "out of memory": "square-open", failed: "triangle-up-open"};

const tuningFigures = {
  hyper(race, o) {
    const used = [];
    const traces = race.shown.flatMap((method, lane) => {
      const {colour, symbol} = race.styles[method];
      const runs = race.trials(method, ["defaults", ...TUNING]).filter(t => isNumber(t.hyper[o.hyper]));
      const at = some => some.map(t => t.hyper[o.hyper]);
      used.push(...at(runs));
      const hover = `${literal(method)}<br>%{text}<br><b>%{y:.5g}</b>`;
      const scored = (meta, some, marker) => dots(meta, method, at(some), some.map(t => t.score), hover, marker, some.map(t => hyperText(t.hyper)));
      const defaults = runs.filter(t => ended(t) && t.stage === "defaults");
      const tuned = runs.filter(t => ended(t) && t.stage !== "defaults");
      const best = race.verdicts[method];
      const won = best ? tuned.filter(t => sameHyper(t.hyper, best.hyper)) : [];
      const lost = runs.filter(t => !ended(t));
      const why = lost.map(t => `${t.status}<br>${hyperText(t.hyper)}`);
      return [
        scored("tuning", tuned, {...race.mark(method, 9), opacity: 0.85}),
        scored("defaults", defaults, {symbol: `${symbol}-open`, size: 11, color: colour, line: {width: 2}}),
        scored("winner", won, {symbol: "circle-open", size: 17, color: colour, line: {width: 2}}),
        {...dots("lost", method, at(lost), lost.map(() => lane), `${literal(method)}: %{text}`, cross(colour, 9), why), yaxis: "y2"},
      ].filter(t => t.x.length);
    });
    if (!traces.length) return {empty: "No tuning runs yet."};
    const lanes = race.shown.length;
    const strip = traces.some(t => t.meta === "lost");
    const lostAxis = {domain: [0, 0.14], range: [-1, lanes], tickvals: [(lanes - 1) / 2], ticktext: ["not ended"], showgrid: false, zeroline: false};
    const layout = {
      xaxis: axis(o.hyper === "lr" ? "Learning rate" : o.hyper, {...scaleFor(used), anchor: strip ? "y2" : "y"}),
      yaxis: axis(`Validation ${race.result.settings.metric}`, {type: o.y, domain: strip ? [0.2, 1] : [0, 1]}),
    };
    return {traces, layout: strip ? {...layout, yaxis2: lostAxis} : layout};
  },

  best(race, o) {
    const traces = race.shown.flatMap(method => {
      const {colour, dash, symbol} = race.styles[method];
      const {x, y} = race.series.best[method];
      const marker = {...race.mark(method, 7), symbol: x.map(number => (number === 0 ? `${symbol}-open` : symbol))};
      const more = {line: {shape: "hv", color: colour, width: 2, dash}, marker};
      return x.length ? [trace("best", method, "lines+markers", x, y, `${literal(method)}, trial %{x}<br>%{y:.5g}`, more)] : [];
    });
    if (!traces.length) return {empty: "No tuning runs yet."};
    const dtick = highest(traces.flatMap(t => t.x)) > 14 ? undefined : 2;
    return {traces, layout: {xaxis: axis("Tuning runs", {dtick}), yaxis: axis(`Best validation ${race.result.settings.metric}`, {type: o.y})}};
  },

  parallel(race, o) {
    const {metric, direction} = race.result.settings;
    const runs = race.trials(o.method, TUNING);
    if (!runs.length) return {empty: `No tuning runs of ${o.method} yet.`};
    const names = [...new Set(runs.flatMap(t => Object.keys(t.hyper)))];
    const columns = names.map(name => column(name, runs.map(t => t.hyper[name])));
    columns.push(column(metric, runs.map(t => (ended(t) ? t.score : null))));
    const scores = runs.filter(ended).map(t => t.score).sort((a, b) => (direction === "min" ? b - a : a - b));
    const traces = runs.map((run, i) => {
      const won = race.verdicts[o.method] && sameHyper(run.hyper, race.verdicts[o.method].hyper);
      const rank = scores.indexOf(run.score) / Math.max(1, scores.length - 1);
      const colour = won ? race.ink.accent : ended(run) ? race.ramp(rank) : race.ink.muted;
      const words = names.map(name => hyperText({[name]: run.hyper[name] ?? null}));
      words.push(ended(run) ? `${literal(metric)} ${+run.score.toPrecision(5)}` : run.status);
      const line = {width: won ? 3.6 : 1.6, color: colour, dash: ended(run) ? "solid" : "dot"};
      const more = {line, marker: {size: won ? 7 : 4}, text: words};
      const meta = won ? "winner" : run.status;
      return trace(meta, o.method, "lines+markers", columns.map((_, c) => c), columns.map(c => c.at[i]), `trial ${run.index}, %{text}`, more);
    });
    traces.sort((a, b) => (a.meta === "winner") - (b.meta === "winner")); // the winner is drawn last, on top
    const font = {size: 11.5, color: race.ink.muted};
    const label = (x, y, text, yanchor) => ({x, y, text: literal(text), showarrow: false, yanchor, font});
    const annotations = columns.flatMap((c, i) => [label(i, 1.03, c.top, "bottom"), label(i, -0.03, c.bottom, "top")]);
    if (scores.length < runs.length) annotations.push(label(columns.length - 1, LOST_PLACE - 0.03, "not ended", "top"));
    const upright = i => ({type: "line", layer: "below", x0: i, x1: i, y0: 0, y1: 1, line: {color: race.ink.muted, width: 1}});
    const layout = {
      annotations,
      shapes: columns.map((_, i) => upright(i)),
      margin: {l: 34, r: 34},
      xaxis: {
        tickvals: columns.map((_, i) => i),
        ticktext: columns.map(c => literal(c.name)),
        range: [-0.25, columns.length - 0.75],
        showgrid: false,
        showline: false,
        zeroline: false,
      },
      yaxis: {visible: false, range: [-0.32, 1.12]},
    };
    return {traces, layout};
  },

  map(race, o) {
    const single = o.y === "";
    const up = t => (single ? 0 : t.hyper[o.y]);
    const runs = race.trials(o.method, ["defaults", ...TUNING]).filter(t => isNumber(t.hyper[o.x]) && isNumber(up(t)));
    if (!runs.length) return {empty: `No tuning runs of ${o.method} with numeric hyperparameters yet.`};
    const ink = race.ink.ink;
    const words = t => [t.status + (isNumber(t.score) ? `, ${+t.score.toPrecision(5)}` : ""), hyperText(t.hyper)].join("<br>");
    const group = (status, marker) => {
      const some = runs.filter(t => t.status === status);
      return dots(status, o.method, some.map(t => t.hyper[o.x]), some.map(up), "%{text}", marker, some.map(words));
    };
    const look = {size: 12, color: ink, line: {width: 2.6, color: ink}};
    const lost = Object.entries(LOST_SYMBOLS).map(([status, symbol]) => group(status, {...look, symbol}));
    const traces = [group("done", {symbol: "circle", size: 9, color: race.styles[o.method].colour}), ...lost].filter(t => t.x.length);
    const yaxis = single ? {visible: false} : axis(o.y, scaleFor(runs.map(up)));
    return {traces, layout: {xaxis: axis(o.x, scaleFor(runs.map(t => t.hyper[o.x]))), yaxis}};
  },
};

// One axis of the parallel coordinates: places in [0, 1] and the words at both ends. Numbers go by size (by their logarithm where they
// span decades), everything else by rank.
function column(name, values) {
  const numbers = values.filter(isNumber);
  if (numbers.length && values.every(v => v === null || v === undefined || isNumber(v))) {
    const low = lowest(numbers);
    const high = highest(numbers);
    const scale = wantsLog(numbers) ? Math.log : v => v;
    const place = v => (high > low ? (scale(v) - scale(low)) / (scale(high) - scale(low)) : 0.5);
    const at = values.map(v => (isNumber(v) ? place(v) : LOST_PLACE));
    return {name, at, top: `${+high.toPrecision(3)}`, bottom: `${+low.toPrecision(3)}`};
  }
  const kinds = [...new Set(values.map(v => JSON.stringify(v ?? null)))].sort();
  const rank = v => (kinds.length > 1 ? kinds.indexOf(JSON.stringify(v ?? null)) / (kinds.length - 1) : 0.5);
  return {name, at: values.map(rank), top: kinds.at(-1) ?? "", bottom: kinds[0] ?? ""};
}

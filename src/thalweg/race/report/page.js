"use strict";
// Unpacks the data, draws the figures, and serves the look, the legend, the controls and the downloads.

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function runScript(source) {
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
}

function makeRace(data) {
  const {result, series, styles} = data;
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const resolve = name => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const mix = (a, b, t) => `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * t)).join(",")})`;
  const numbers = colour => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  const order = [...document.querySelectorAll("#verdict-table tbody tr")].map(row => row.dataset.method);
  const race = {
    result,
    series,
    shown: Object.keys(styles),
    styles: {},
    ink: {},
    verdicts: Object.fromEntries(result.verdicts.map(v => [v.method, v])),
    rows: () => order.filter(method => race.shown.includes(method)).reverse(), // from the bottom of a figure to its top
    trials: (method, stages) => result.trials.filter(t => t.method === method && stages.includes(t.stage)),
    faded: (colour, alpha) => colour.replace("rgb(", "rgba(").replace(")", `, ${alpha})`),
    mark: (method, size) => ({
      symbol: race.styles[method].symbol,
      size: size + (race.styles[method].symbol.startsWith("triangle") ? 2.5 : 0),
      color: race.styles[method].colour,
    }),
    ramp: share => mix(numbers(race.ink.low), numbers(race.ink.top), share),
    readColours() {
      for (const name of ["ink", "muted", "line", "paper", "accent", "low", "top"]) race.ink[name] = resolve(`--${name}`);
      for (const [method, style] of Object.entries(styles)) race.styles[method] = {...style, colour: resolve(style.colour)};
    },
  };
  return race;
}

function draw(race, figure) {
  const place = figure.querySelector(".plot");
  const options = Object.fromEntries(new FormData(figure.querySelector("form")));
  const make = {...finalFigures, ...tuningFigures}[figure.dataset.figure];
  const drawn = race.shown.length ? make(race, options) : {empty: "No method is ticked."};
  figure.classList.toggle("is-empty", Boolean(drawn.empty));
  if (drawn.empty) {
    Plotly.purge(place);
    place.textContent = drawn.empty;
    return;
  }
  if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
  const {ink} = race;
  const {xaxis, yaxis, yaxis2, margin, ...layout} = drawn.layout;
  const base = {
    gridcolor: ink.line,
    zerolinecolor: ink.line,
    linecolor: ink.line,
    tickcolor: ink.line,
    automargin: true,
    exponentformat: "e",
    title: {standoff: 12},
  };
  const merged = own => ({...base, ...own, title: {...base.title, ...own.title, font: {size: 12.5, color: ink.muted}}});
  Plotly.react(
    place,
    drawn.traces,
    {
      height: 380,
      showlegend: false,
      hovermode: "closest",
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: {family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink.ink},
      margin: {l: 52, r: 14, t: 12, b: 46, ...margin},
      hoverlabel: {bgcolor: ink.paper, bordercolor: ink.line, font: {color: ink.ink, size: 12.5}, align: "left"},
      ...layout,
      xaxis: merged(xaxis),
      yaxis: merged(yaxis),
      ...(yaxis2 ? {yaxis2: merged(yaxis2)} : {}),
    },
    {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    },
  );
}

// A select that offers names; it keeps the current choice where that still exists.
function offer(select, names, preferred) {
  const old = select.value;
  select.replaceChildren(...names.map(name => new Option(name === "" ? "nothing" : name, name)));
  select.value = names.includes(old) && old !== "" ? old : (preferred ?? names[0] ?? "");
}

function numericNames(trials) {
  const names = [...new Set(trials.flatMap(t => Object.keys(t.hyper)))].filter(name => trials.some(t => isNumber(t.hyper[name])));
  return [...names.filter(n => n === "lr"), ...names.filter(n => n !== "lr")];
}

function offerChoices(race) {
  const tuning = race.result.trials.filter(t => t.stage !== "final");
  offer(document.querySelector("[data-figure=hyper] select"), numericNames(tuning));
  const map = document.querySelector("[data-figure=map] form");
  const names = numericNames(race.trials(map.elements.method.value, ["defaults", ...TUNING]));
  offer(map.elements.x, names);
  offer(map.elements.y, [...names, ""], names[1] ?? "");
}

// A logarithmic axis cannot show values at or below zero: then its switch is off, and says why.
function guardLogSwitches(race) {
  const {trials} = race.result;
  const positive = values => values.every(v => !isNumber(v) || v > 0);
  const fine = {
    curves: quantity => positive(trials.filter(t => t.stage === "final").flatMap(t => t.curve[quantity] ?? [])),
    hyper: () => positive(trials.map(t => t.score)),
    best: () => positive(trials.map(t => t.score)),
  };
  for (const [name, test] of Object.entries(fine)) {
    const form = document.querySelector(`[data-figure=${name}] form`);
    const log = form.querySelector("[name=y][value=log]");
    log.disabled = !test(form.elements.quantity?.value);
    log.parentElement.title = log.disabled ? "Some values are zero or negative." : "";
    if (log.disabled && log.checked) form.querySelector("[name=y][value=linear]").checked = true;
  }
}

function csv(result) {
  const names = [...new Set(result.trials.flatMap(t => Object.keys(t.hyper)))];
  const place = ["key", "method", "stage", "index", "seed", "status"];
  const fields = [...place, "score", "test", "step_ms", "warmup_s", "state_bytes", "peak_mib", "message"];
  const quote = value => {
    const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = result.trials.map(t => [...fields.map(f => t[f]), ...names.map(n => t.hyper[n])]);
  return [[...fields, ...names.map(n => `hyper.${n}`)], ...lines].map(line => line.map(quote).join(",")).join("\r\n") + "\r\n";
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function start() {
  runScript(await unpack("plotly"));
  const race = makeRace(JSON.parse(await unpack("data")));
  const all = [...document.querySelectorAll("figure[data-figure]")];
  const root = document.documentElement;
  const drawAll = () => {
    race.readColours();
    for (const figure of all) draw(race, figure);
  };
  for (const figure of all) {
    const form = figure.querySelector("form");
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("change", event => {
      if (event.target.name === "method") offerChoices(race);
      guardLogSwitches(race);
      draw(race, figure);
    });
  }
  const legend = document.getElementById("legend");
  legend.addEventListener("change", () => {
    race.shown = new FormData(legend).getAll("method");
    drawAll();
  });
  const look = document.querySelector("form.look");
  const wear = name => {
    root.dataset.look = name;
    drawAll();
  };
  look.addEventListener("change", () => wear(look.elements.look.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => wear("light"));
  addEventListener("afterprint", () => wear(look.elements.look.value));
  const stem = `race-${race.result.settings.task.replace(/[^\w.-]+/g, "-")}`;
  const files = {
    json: () => download(`${stem}.json`, "application/json", JSON.stringify(race.result, null, 1)),
    csv: () => download(`${stem}.csv`, "text/csv", csv(race.result)),
  };
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", files[button.dataset.download]);
  offerChoices(race);
  guardLogSwitches(race);
  wear(look.elements.look.value);
  root.dataset.ready = "yes";
}

start().catch(error => {
  document.querySelector("#not-drawn span").textContent = `(${error.message})`;
  console.error(error);
});

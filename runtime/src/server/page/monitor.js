// What a coordinator does now. Asks the endpoint beside it twice a second; the token, where one is needed, is in this script's memory
// and goes out in a header of those requests alone. What is shown is set as text, never as markup.
"use strict";

const PERIOD = 500;
const OVER = 5;
const POINTS = 360;
const EVENTS = 200;
const at = (id) => document.getElementById(id);
const tell = (id, text) => { const element = at(id); if (element.textContent !== text) element.textContent = text; };

let token = null;
let known = 0;
let counts = [];
let ratios = [];
let latencies = [];
let events = [];
let last = null;

function forget() {
  known = 0; counts = []; ratios = []; latencies = []; events = []; last = null;
}

async function ask() {
  const headers = token === null ? {} : {"x-swiftbalancer-admin-token": token};
  const options = {headers, cache: "no-store", credentials: "same-origin", redirect: "error", referrerPolicy: "no-referrer"};
  const answer = await fetch("admin/v1/monitor?after=" + known, options);
  if (answer.status === 401) return null;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ? body.error.message : "status " + answer.status);
  return body;
}

async function turn() {
  try {
    const told = await ask();
    if (told === null) {
      at("ask").hidden = false;
      at("view").hidden = true;
      state(token === null ? "it asks for a token" : "this is not its token", true);
      token = null;
      return;
    }
    at("ask").hidden = true;
    at("view").hidden = false;
    take(told);
    show();
  } catch (error) {
    state("no answer, trying again: " + error.message, true);
  }
  setTimeout(turn, PERIOD);
}

function state(text, bad) {
  tell("state", text);
  at("state").className = bad ? "bad" : "";
}

function take(told) {
  if (last !== null && (told.seconds < last.seconds || told.steps < last.steps)) forget();
  for (const event of told.events) {
    if (last === null && event.what.kind === "window") ratios.push([event.seconds, event.what.ratio]);
    known = event.number;
    events.push(event);
  }
  events.splice(0, events.length - EVENTS);
  counts.push(told);
  while (counts.length > 2 && counts[1].seconds <= told.seconds - OVER) counts.shift();
  last = told;
  const now = load();
  if (now !== null) ratios.push([told.seconds, now.ratio]);
  ratios.splice(0, ratios.length - POINTS);
  latencies.push([told.seconds, told.latency.firstToken, told.latency.interToken]);
  latencies.splice(0, latencies.length - POINTS);
}

// Of the last seconds: of each rank in each layer by the layer's mean, of each rank by the mean, and the ratio.
function load() {
  const first = counts[0];
  const cells = last.pairs.map((row, layer) => row.map((pairs, rank) => pairs - first.pairs[layer][rank]));
  const ranks = last.pairs.length === 0 ? [] : last.pairs[0].map(() => 0);
  let means = 0;
  let mosts = 0;
  for (const row of cells) {
    const sum = row.reduce((one, other) => one + other, 0);
    means += sum / row.length;
    mosts += Math.max(...row);
    row.forEach((pairs, rank) => { ranks[rank] += pairs; });
    if (sum > 0) row.forEach((pairs, rank) => { row[rank] = pairs * row.length / sum; });
  }
  const mean = ranks.reduce((one, other) => one + other, 0) / ranks.length;
  if (!(mean > 0)) return null;
  return {cells, ranks: ranks.map((pairs) => pairs / mean), ratio: means / mosts};
}

function show() {
  const now = load();
  const seconds = last.seconds - counts[0].seconds;
  tell("model", last.model.name);
  document.title = last.model.name + " - SwiftBalancer";
  tell("clock", "up " + clock(last.seconds));
  if (last.ready) state("serving, group " + last.generation + ", epoch " + last.epoch + ", " + last.phase, false);
  else state("not serving: " + last.reason, true);
  tell("ratio", now === null ? "-" : now.ratio.toFixed(3));
  tell("window", last.ratio === null ? "-" : last.ratio.toFixed(3));
  if (now !== null) {
    const most = Math.max(...now.ranks);
    tell("busiest", most.toFixed(2) + "x");
    tell("busiest-rank", "rank " + now.ranks.indexOf(most) + ", the busiest, by the mean");
  }
  const tokens = last.completionTokens - counts[0].completionTokens;
  tell("tokens", seconds > 0 ? Math.round(tokens / seconds).toLocaleString() : "-");
  tell("queue", last.running + " + " + last.waiting);
  tell("moved", last.moves.expertsMoved.toLocaleString());
  tell("moved-bytes", counted(last.moves.expertsMoved, "expert").split(" ")[1] + " moved, " + bytes(last.moves.bytesMoved));
  tell("over", "over " + Math.round(last.latency.overSeconds) + " s; p50 and p99");
  spread("first", last.latency.firstToken);
  spread("inter", last.latency.interToken);
  spread("step", last.latency.step);
  if (last.decision !== null) list("decision", decision(last.decision).map((text) => ["", "", text]));
  if (events.length > 0 && at("events").dataset.last !== String(known)) {
    at("events").dataset.last = String(known);
    list("events", events.toReversed().map((event) => [event.what.kind, clock(event.seconds), happened(event.what)]));
  }
  heat(now);
  bars(now);
  lines("ratios", [{points: ratios, style: "--first"}], (value) => value.toFixed(2), 1);
  const of = (index, which) => latencies.filter((one) => one[index] !== null).map((one) => [one[0], one[index][which] * 1000]);
  const four = [{points: of(1, "p50"), style: "--first"}, {points: of(1, "p99"), style: "--first", dashed: true},
    {points: of(2, "p50"), style: "--inter"}, {points: of(2, "p99"), style: "--inter", dashed: true}];
  lines("latencies", four, (value) => time(value / 1000), null);
}

function spread(name, quantiles) {
  for (const which of ["p50", "p90", "p99", "most"]) tell(name + "-" + which, quantiles === null ? "-" : time(quantiles[which]));
}

// Rows of a kind, a time and a text.
function list(id, rows) {
  const elements = rows.map(([kind, when, text]) => {
    const row = document.createElement("li");
    if (kind !== "") row.className = kind;
    if (when !== "") row.append(Object.assign(document.createElement("time"), {textContent: when}));
    row.append(Object.assign(document.createElement("span"), {textContent: text}));
    return row;
  });
  at(id).replaceChildren(...elements);
}

function decision(told) {
  const {figures, terms, history} = told;
  const since = history.windowsSinceMove;
  return [
    told.reason + ": ratio " + fixed(figures.ratioBefore) + " to " + fixed(figures.ratioAfter),
    "gain " + fixed(figures.lastingGain) + " over its life, of at least " + fixed(terms.minimumGain * terms.hysteresis) +
      "; saves " + fixed(figures.timeSaved * 100, 2) + " % of experts' time",
    counted(figures.pages, "page") + ", " + bytes(figures.bytes) + "; saves " + time(figures.secondsSaved) + " and costs " +
      time(figures.secondsSpent) + " of " + time(terms.lifetimeSeconds),
    since === null ? "nothing has moved before" : counted(since, "window") + " since the last move",
  ];
}

function happened(what) {
  switch (what.kind) {
    case "formed": return "group " + what.generation + " serves";
    case "lost": return "the group was lost: " + what.reason;
    case "window": return "window " + what.number + " of " + counted(what.steps, "step") + ": ratio " + what.ratio.toFixed(3);
    case "decided": return "decided " + what.reason + ": ratio " + what.ratioBefore.toFixed(3) + " to " + what.ratioAfter.toFixed(3) +
      " by " + counted(what.pages, "page") + ", " + bytes(what.bytes);
    case "planned": return "moves " + counted(what.pages, "page") + " in " + counted(what.transactions, "transaction");
    case "kept": return "stays: " + what.reason;
    case "committed": return "layer " + what.layer + ": " + experts(what.moved) + ", " + bytes(what.bytes) + " (epoch " + what.epoch + ")";
    case "aborted": return "taken back: " + what.reason;
    case "completed": return "rebalanced: " + counted(what.pages, "page") + ", " + bytes(what.bytes) + " in " + counted(what.steps, "step");
    case "dropped": return "given up: " + what.reason;
    default: return what.kind;
  }
}

function experts(moved) {
  if (moved.length === 0) return "slots and shares";
  const named = moved.slice(0, 3).map((one) => "expert " + one.expert + " from rank " + one.from + " to " + one.to);
  if (moved.length > 3) named.push(moved.length - 3 + " more");
  return named.join(", ");
}

function counted(number, what) {
  return number.toLocaleString() + " " + what + (number === 1 ? "" : "s");
}

// What is rounded to nothing has no sign.
function fixed(number, digits = 4) {
  const text = number.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

function time(seconds) {
  if (seconds < 0) return "-" + time(-seconds);
  if (seconds < 0.001) return Math.round(seconds * 1e6) + " us";
  if (seconds < 1) return (seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0) + " ms";
  return seconds.toFixed(seconds < 100 ? 2 : 0) + " s";
}

function bytes(number) {
  for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (number >= size) return (number / size).toPrecision(3) + " " + unit;
  }
  return number + " B";
}

function clock(seconds) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  return Math.floor(seconds / 3600) + ":" + two(seconds / 60 % 60) + ":" + two(seconds % 60);
}

// A canvas in the screen's own points, cleared.
function canvas(id) {
  const element = at(id);
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [element.clientWidth, element.clientHeight];
  const [across, down] = [Math.round(width * dense), Math.round(height * dense)];
  if (element.width !== across || element.height !== down) [element.width, element.height] = [across, down];
  const pen = element.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return {pen, width, height};
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// From dark blue by green to yellow, as in viridis: told apart without seeing colours too.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function shade(times) {
  const place = Math.min(Math.max(times / 2, 0), 1) * (STOPS.length - 1);
  const below = Math.min(Math.floor(place), STOPS.length - 2);
  const part = STOPS[below].map((low, index) => Math.round(low + (STOPS[below + 1][index] - low) * (place - below)));
  return "rgb(" + part.join(",") + ")";
}

const LEFT = 34;
const BELOW = 18;

function heat(now) {
  const {pen, width, height} = canvas("heat");
  pen.fillStyle = colour("--faint");
  if (now === null) return pen.fillText("nothing has been computed lately", 4, 16);
  const [layers, ranks] = [now.cells.length, now.ranks.length];
  const [wide, high] = [(width - LEFT) / ranks, (height - BELOW) / layers];
  now.cells.forEach((row, layer) => row.forEach((times, rank) => {
    pen.fillStyle = shade(times);
    const [x, y] = [LEFT + rank * wide, layer * high];
    pen.fillRect(x, y, Math.max(wide - (wide > 6 ? 1 : 0), 1), Math.max(high - (high > 6 ? 1 : 0), 1));
  }));
  pen.fillStyle = colour("--faint");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const rows = Math.ceil(layers / Math.max(Math.floor((height - BELOW) / 14), 1));
  for (let layer = 0; layer < layers; layer += rows) pen.fillText(layer, LEFT - 6, (layer + 0.5) * high);
  pen.textAlign = "center";
  pen.textBaseline = "alphabetic";
  const columns = Math.ceil(ranks / Math.max(Math.floor((width - LEFT) / 28), 1));
  for (let rank = 0; rank < ranks; rank += columns) pen.fillText(rank, LEFT + (rank + 0.5) * wide, height - 5);
}

function cell(event) {
  const now = last === null ? null : load();
  if (now === null) return;
  const box = at("heat").getBoundingClientRect();
  const rank = Math.floor((event.clientX - box.left - LEFT) / ((box.width - LEFT) / now.ranks.length));
  const layer = Math.floor((event.clientY - box.top) / ((box.height - BELOW) / now.cells.length));
  const times = (now.cells[layer] || [])[rank];
  tell("cell", times === undefined ? "" : "layer " + layer + ", rank " + rank + ": " + times.toFixed(2) + " x the mean");
}

function bars(now) {
  const {pen, width, height} = canvas("bars");
  pen.fillStyle = colour("--faint");
  if (now === null) return pen.fillText("nothing has been computed lately", 4, 16);
  const most = Math.max(1.5, ...now.ranks);
  const wide = (width - LEFT) / now.ranks.length;
  const up = (times) => (height - BELOW) * (1 - times / most * 0.9);
  now.ranks.forEach((times, rank) => {
    pen.fillStyle = times > 1.3 ? colour("--bad") : times > 1.1 ? colour("--inter") : colour("--good");
    pen.fillRect(LEFT + rank * wide + wide * 0.1, up(times), Math.max(wide * 0.8, 1), height - BELOW - up(times));
  });
  pen.strokeStyle = colour("--faint");
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(LEFT, up(1));
  pen.lineTo(width, up(1));
  pen.stroke();
  pen.setLineDash([]);
  pen.fillStyle = colour("--faint");
  pen.textAlign = "right";
  pen.fillText("1x", LEFT - 6, up(1) + 4);
  pen.textAlign = "center";
  const columns = Math.ceil(now.ranks.length / Math.max(Math.floor((width - LEFT) / 28), 1));
  for (let rank = 0; rank < now.ranks.length; rank += columns) pen.fillText(rank, LEFT + (rank + 0.5) * wide, height - 5);
}

// Lines over time. `most` is where the axis ends, or null for where the values do.
function lines(id, series, word, most) {
  const {pen, width, height} = canvas(id);
  const points = series.flatMap((one) => one.points);
  pen.fillStyle = colour("--faint");
  if (points.length < 2) return pen.fillText("not enough to show yet", 4, 16);
  const edge = 56;
  const [from, to] = [Math.min(...points.map((one) => one[0])), Math.max(...points.map((one) => one[0]))];
  const top = most === null ? Math.max(...points.map((one) => one[1])) * 1.1 || 1 : most;
  const across = (seconds) => edge + (width - edge - 4) * (seconds - from) / (to - from || 1);
  const up = (value) => 8 + (height - BELOW - 8) * (1 - value / top);
  pen.textAlign = "right";
  pen.strokeStyle = colour("--edge");
  for (const part of [0, 0.5, 1]) {
    pen.fillText(word(top * part), edge - 6, up(top * part) + 4);
    pen.beginPath();
    pen.moveTo(edge, up(top * part));
    pen.lineTo(width, up(top * part));
    pen.stroke();
  }
  pen.textAlign = "left";
  pen.fillText(clock(from), edge, height - 4);
  pen.textAlign = "right";
  pen.fillText(clock(to), width - 4, height - 4);
  pen.lineWidth = 1.75;
  for (const {points: own, style, dashed} of series) {
    pen.strokeStyle = colour(style);
    pen.setLineDash(dashed ? [4, 3] : []);
    pen.beginPath();
    own.forEach(([seconds, value], index) => (index === 0 ? pen.moveTo(across(seconds), up(value)) : pen.lineTo(across(seconds), up(value))));
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.lineWidth = 1;
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  forget();
  turn();
});
at("heat").addEventListener("mousemove", cell);
at("heat").addEventListener("mouseleave", () => tell("cell", ""));
const pen = at("scale").getContext("2d");
for (let x = 0; x < 160; x += 1) {
  pen.fillStyle = shade(x / 80);
  pen.fillRect(x, 0, 1, 10);
}
turn();

"use strict";

// ---------------------------------------------------------------- the table of verdicts

function filterTable(table, filters, shown) {
  const rows = [...table.tBodies[0].rows];
  const search = filters.querySelector("input[type=search]");
  const boxes = [...filters.querySelectorAll("input[type=checkbox]")];
  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !states.has(row.dataset.state) || !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length}`;
  }
  search.addEventListener("input", apply);
  for (const box of boxes) box.addEventListener("change", apply);
}

function sortTable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = [...body.rows].some((row) => row.cells[column].className === "number");
      const key = (row) => row.cells[column].textContent.trim();
      const order = (a, b) => {
        if (!key(a) || !key(b)) return (key(a) ? 0 : 1) - (key(b) ? 0 : 1); // empty cells last
        const sign = numeric ? Number(key(a)) - Number(key(b)) : compare(key(a), key(b));
        return up ? sign : -sign;
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

// ---------------------------------------------------------------- axes

// Plotly has no symmetric logarithm: values are transformed here, and ticks say the originals.
function transform(scale) {
  if (scale.kind !== "symlog") return (v) => v;
  return (v) => (v === null ? null : Math.sign(v) * Math.log10(1 + Math.abs(v) / scale.threshold));
}

function label(value) {
  const size = Math.abs(value);
  if (value === 0 || (size >= 0.01 && size < 1e5)) return String(Number(value.toPrecision(3)));
  return value.toExponential(0).replace("e+", "e");
}

function symlogTicks(scale, numbers) {
  const to = transform(scale);
  const top = Math.max(...numbers.map(Math.abs), scale.threshold);
  const first = Math.ceil(Math.log10(scale.threshold) - 1e-9);
  const last = Math.floor(Math.log10(top) + 1e-9);
  const every = 1 + Math.floor((last - first) / 6);
  const values = [0];
  for (let power = first; power <= last; power += every) {
    const value = 10 ** power;
    if (numbers.some((n) => n > 0)) values.push(value);
    if (numbers.some((n) => n < -value / 3)) values.unshift(-value);
  }
  return { tickvals: values.map(to), ticktext: values.map(label) };
}

function axis(title, scale, numbers, shown) {
  const made = { title: { text: title, font: { size: 12 } }, automargin: true, zeroline: false, showline: true, linecolor: "#888", gridcolor: "#eee", tickfont: { size: 11 } };
  if (scale.kind === "log") {
    Object.assign(made, { type: "log", exponentformat: "power", dtick: decades(numbers) > 1.5 ? Math.ceil(decades(numbers) / 7) : "D2" });
  } else if (scale.kind === "symlog") {
    Object.assign(made, symlogTicks(scale, shown ?? numbers));
  }
  if (shown) {
    const [low, high] = shown.map(scale.kind === "log" ? Math.log10 : transform(scale));
    made.range = [low - 0.05 * (high - low), high + 0.05 * (high - low)];
  }
  return made;
}

function decades(numbers) {
  const positive = numbers.filter((n) => n > 0);
  return positive.length ? Math.log10(Math.max(...positive) / Math.min(...positive)) : 0;
}

// ---------------------------------------------------------------- series

const known = (values) => values.filter((value) => value !== null);

// Polygons over every stretch in which both ends are known, apart from each other.
function ribbon(along, low, high) {
  const first = [], second = [];
  let start = 0;
  for (let k = 0; k <= along.length; k += 1) {
    if (k < along.length && low[k] !== null && high[k] !== null) continue;
    for (let j = start; j < k; j += 1) { first.push(along[j]); second.push(low[j]); }
    for (let j = k - 1; j >= start; j -= 1) { first.push(along[j]); second.push(high[j]); }
    if (k > start) { first.push(null); second.push(null); }
    start = k + 1;
  }
  return [first, second];
}

// The end of a band: a logarithmic axis has no place for 0, so the band reaches its rim instead.
function end(scale, numbers) {
  if (scale.kind !== "log") return transform(scale);
  const rim = Math.min(...numbers.filter((n) => n > 0)) / 10;
  return (v) => (v === null ? null : Math.max(v, rim));
}

function traces(series, x, y, ends) {
  const { name, mark, colour } = series;
  const shared = { name, meta: name, showlegend: false, hoverinfo: "skip" };
  const line = { color: colour, dash: series.dash, width: 2 };
  const symbol = { color: colour, symbol: series.symbol, size: 7 };
  const made = [];
  const fill = (points, opacity, extra) => made.push({
    ...shared, x: points[0], y: points[1], mode: "lines", line: { width: 0 }, fill: "toself",
    fillcolor: faded(colour, opacity), ...extra,
  });
  if (mark === "vertical" || mark === "horizontal") {
    const upright = mark === "vertical";
    const [to, own] = upright ? [x, series.x] : [y, series.y];
    const place = upright ? { yaxis: "y2" } : { xaxis: "x2" };
    const set = (values, ends) => (upright ? [values, ends] : [ends, values]);
    own.forEach((value, k) => {
      if (series.low.length && series.low[k] !== null) {
        const [a, b] = [to(series.low[k]), to(series.high[k])];
        fill(set([a, a, b, b], [0, 1, 1, 0]), 0.12, place);
      }
      const [px, py] = set([to(value), to(value)], [0, 1]);
      made.push({ ...shared, ...place, x: px, y: py, mode: "lines", line, hoverinfo: "name" });
    });
    return made;
  }
  const across = series.x.map(x);
  if (mark === "rim") {
    return [{ ...shared, x: across, y: across.map(() => 0.03), yaxis: "y2", mode: "markers", marker: { color: colour, symbol: "x", size: 7 }, hoverinfo: "name" }];
  }
  const heights = series.y.map(y);
  if (mark === "bar") {
    return [{ ...shared, type: "bar", orientation: "h", x: across, y: heights, marker: { color: "#bbb" }, hoverinfo: "x+name" }];
  }
  const to = series.sideways ? ends.x : ends.y;
  const low = series.low.map(to), high = series.high.map(to);
  if (mark === "line" && low.length) fill(ribbon(across, low, high), 0.18, {});
  const main = {
    ...shared, x: across, y: heights, line, marker: symbol, connectgaps: false,
    mode: mark === "points" ? "markers" : series.dotted ? "lines+markers" : "lines",
    hoverinfo: undefined, customdata: series.x.map((value, k) => [value, series.y[k], band(series, k)]),
    hovertemplate: "%{customdata[0]:.4g}, %{customdata[1]:.4g}%{customdata[2]}<extra>%{meta}</extra>",
  };
  if (mark === "points" && low.length) {
    const middle = series.sideways ? across : heights;
    const away = (ends, sign) => ends.map((end, k) => (end === null ? 0 : sign * (end - middle[k])));
    main[series.sideways ? "error_x" : "error_y"] = { type: "data", symmetric: false, array: away(high, 1), arrayminus: away(low, -1), color: colour, thickness: 1, width: 0 };
  }
  made.push(main);
  return made;
}

function band(series, k) {
  if (!series.low.length || series.low[k] === null) return "";
  return `<br>${series.low[k].toPrecision(4)} to ${series.high[k] === null ? "∞" : series.high[k].toPrecision(4)} (${series.band})`;
}

function faded(colour, opacity) {
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

// ---------------------------------------------------------------- panels

function numbersOf(panel, way) {
  const found = [];
  for (const series of panel.series) {
    found.push(...known(series[way]));
    const sideways = series.sideways || series.mark === "vertical";
    if (sideways === (way === "x")) found.push(...known(series.low), ...known(series.high));
  }
  return found;
}

// Nothing leaves the page: the library's button that uploads a chart is not there.
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover", showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function drawPanel(place, panel, chosen, hidden) {
  const asked = { ...chosen, y: panel.row_names.length ? "auto" : chosen.y };
  const scale = (way) => {
    const own = panel[`${way}_scale`];
    return asked[way] === "auto" ? own : { kind: asked[way], threshold: own.threshold };
  };
  const scales = { x: scale("x"), y: scale("y") };
  const shown = (way) => (asked[way] === "auto" ? panel[`${way}_range`] : null);
  const layout = {
    margin: { l: 60, r: 12, t: 8, b: 44 }, font: { family: "system-ui, sans-serif", size: 12 },
    hovermode: "closest", barmode: "overlay", paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    xaxis: axis(panel.x_label, scales.x, numbersOf(panel, "x"), shown("x")),
    yaxis: axis(panel.y_label, scales.y, numbersOf(panel, "y"), shown("y")),
    // Marks that span the panel live on axes from 0 to 1.
    xaxis2: { overlaying: "x", range: [0, 1], visible: false, fixedrange: true },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  };
  if (panel.row_names.length) {
    Object.assign(layout.yaxis, { autorange: "reversed", tickvals: panel.row_names.map((row) => row[0]), ticktext: panel.row_names.map((row) => row[1]) });
  }
  const [x, y] = [transform(scales.x), transform(scales.y)];
  const ends = { x: end(scales.x, numbersOf(panel, "x")), y: end(scales.y, numbersOf(panel, "y")) };
  const every = panel.series.flatMap((series) => traces(series, x, y, ends));
  for (const trace of every) trace.visible = !hidden.has(trace.meta);
  Plotly.react(place, every, layout, CONFIG);
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(series) {
  const dashes = { solid: "", dash: "6 3", dashdot: "6 3 1 3", dot: "2 2", longdash: "9 3" };
  const holder = element("span", {});
  holder.innerHTML = `<svg width="24" height="8"><line x1="0" y1="4" x2="24" y2="4" stroke="${series.colour}" stroke-width="3" stroke-dasharray="${dashes[series.dash]}"/></svg>`;
  return holder;
}

function showFigure(holder, panels) {
  const hidden = new Set(), chosen = { x: "auto", y: "auto" }, drawn = new Map();
  const redraw = () => { for (const [place, panel] of drawn) drawPanel(place, panel, chosen, hidden); };
  const bar = element("div", { className: "bar" });
  const names = new Map(panels.flatMap((panel) => panel.series).map((series) => [series.name, series]));
  for (const [name, series] of names) {
    const button = element("button", { type: "button" }, swatch(series), name);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const on = hidden.delete(name) || !hidden.add(name);
      button.setAttribute("aria-pressed", String(on));
      redraw();
    });
    bar.append(button);
  }
  for (const way of ["x", "y"]) {
    const select = element("select", {}, ...["auto", "linear", "log", "symlog"].map((kind) => element("option", {}, kind)));
    select.addEventListener("change", () => { chosen[way] = select.value; redraw(); });
    bar.append(element("label", {}, `${way} `, select));
  }
  const grid = element("div", { className: "grid" });
  // Only what comes into view is drawn: a page of fifty panels opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((seen) => seen.isIntersecting)) {
      const place = entry.target;
      watcher.unobserve(place);
      drawn.set(place, panels[Number(place.dataset.panel)]);
      drawPanel(place, drawn.get(place), chosen, hidden);
    }
  }, { rootMargin: "300px" });
  panels.forEach((panel, k) => {
    const place = element("div", { className: "plot" });
    place.dataset.panel = String(k);
    const stated = element("ul", {}, ...panel.stated.map((text) => element("li", {}, text)));
    grid.append(element("div", { className: "panel" }, element("h4", {}, panel.title), place, stated));
    watcher.observe(place);
  });
  holder.append(bar, grid);
}

// ---------------------------------------------------------------- the page

const table = document.getElementById("verdicts");
filterTable(table, document.getElementById("filters"), document.getElementById("shown"));
sortTable(table);
const data = JSON.parse(document.getElementById("data").textContent);
for (const holder of document.querySelectorAll(".panels")) showFigure(holder, data[holder.dataset.figure]);
// The image stands for the panels only where no script runs.
for (const image of document.querySelectorAll(".drawn")) image.open = false;

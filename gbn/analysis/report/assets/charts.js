// What all charts share: a frame with controls and a legend, drawn when it comes into view, drawn again on change.

const CHARTS = [];
// The buttons are named one by one, and no server is: Plotly's own set has one that uploads the chart.
const CONFIG = {
  displaylogo: false, responsive: true, showTips: false, plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg" },
};
const VIEWED = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.chart.inView = isIntersecting;
    if (isIntersecting && target.chart.stale) later(target.chart);
  }
});

// Charts are drawn one at a time after the browser has shown what was clicked, so fifty arms do not hold it up.
const WAITING = new Set();
let drawing = null;

function later(chart) {
  WAITING.add(chart);
  drawing ??= new Promise((done) => {
    const next = () => {
      const [first] = WAITING;
      if (!first) {
        drawing = null;
        done();
        return;
      }
      WAITING.delete(first);
      first.draw();
      setTimeout(next);
    };
    requestAnimationFrame(() => setTimeout(next));
  });
  return drawing;
}

/**
 * A chart of one setting.
 * controls: {name: {label, options: [{value, label, disabled}]}}; one option or none hides a control.
 * build(state, arms): {traces, layout, note} for the shown arms.
 */
class Chart {
  constructor(host, { label, arms, controls, build }) {
    this.arms = arms;
    this.build = build;
    this.state = {};
    this.stale = true;
    this.inView = false;
    this.plot = make("div", { className: "plotly-chart", role: "img", "aria-label": label });
    this.legend = make("div", { className: "legend", role: "group", "aria-label": "Shown arms; click to hide one" });
    this.note = make("p", { className: "note" });
    this.controls = make("div", { className: "controls" });
    for (const [name, control] of Object.entries(controls)) this.addControl(name, control);
    this.frame = make("div", { className: "chart" }, this.controls, this.plot, this.legend, this.note);
    this.frame.chart = this;
    host.append(this.frame);
    CHARTS.push(this);
    VIEWED.observe(this.frame);
  }

  addControl(name, { label, options }) {
    this.state[name] = options.find((option) => !option.disabled)?.value;
    if (options.length < 2) return;
    const select = make("select", { name, "aria-label": label });
    for (const { value, label: text, disabled } of options) {
      select.append(make("option", { value, disabled: Boolean(disabled), textContent: text }));
    }
    select.value = this.state[name];
    select.addEventListener("change", () => {
      this.state[name] = select.value;
      this.draw();
    });
    this.controls.append(make("label", {}, label, select));
  }

  refresh() {
    this.stale = true;
    if (this.inView) later(this);
  }

  draw() {
    this.stale = false;
    const arms = shownArms(this.arms);
    const { traces, layout, note, drawn } = this.build(this.state, arms);
    this.note.textContent = note ?? "";
    this.legend.replaceChildren(...(drawn ?? arms).map((name) => {
      const button = make("button", { type: "button", title: `Hide ${name}` }, swatch(name), name);
      button.addEventListener("click", () => toggleArm(name));
      return button;
    }));
    return Plotly.react(this.plot, traces, this.dressed(layout), CONFIG);
  }

  /** The layout in the page's colors and type. */
  dressed(layout) {
    const style = getComputedStyle(ROOT);
    const of = (name) => style.getPropertyValue(name).trim();
    const axis = (own) => ({
      gridcolor: of("--line"), zerolinecolor: of("--line"), linecolor: of("--line"), ...own,
    });
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: of("--sans"), size: 12.5, color: of("--text") },
      margin: { l: 60, r: 14, t: 10, b: 46 },
      hoverlabel: { bgcolor: of("--panel"), bordercolor: of("--line"), font: { color: of("--text"), size: 12 }, namelength: -1 },
      modebar: { color: of("--muted"), activecolor: of("--accent"), bgcolor: "rgba(0,0,0,0)" },
      dragmode: "zoom", uirevision: JSON.stringify(this.state), ...layout,
      hovermode: layout.hovermode ?? "closest",
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
  }
}

/** An arm's line in its look; `extra` goes over it. */
function lineTrace(name, x, y, extra = {}) {
  const arm = ARMS.get(name);
  const isReference = name === DATA.reference;
  return {
    type: "scatter", name, x, y, mode: arm.marker ? "lines+markers" : "lines", connectgaps: false,
    line: { color: colorOf(name), width: isReference ? 2.6 : 2, dash: arm.dash, ...extra.line },
    marker: { symbol: arm.marker || "circle", size: 6, maxdisplayed: 14, color: colorOf(name) },
    ...Object.fromEntries(Object.entries(extra).filter(([key]) => key !== "line")),
  };
}

/** Bands of more lines than this would cover each other: none is drawn then. */
const MOST_BANDS = 16;

function bandsShown(state, drawn) {
  return state.band === "on" && drawn.length <= MOST_BANDS;
}

function bandNote(state, drawn) {
  return state.band === "on" && drawn.length > MOST_BANDS ? `No bands with more than ${MOST_BANDS} arms: show fewer. ` : "";
}

/** The area between two lines, in pieces where either is unknown. */
function bandTrace(name, x, low, high, opacity = 0.15) {
  const [xs, ys] = [[], []];
  let piece = [];
  const close = () => {
    if (piece.length > 1) {
      if (xs.length) xs.push(null), ys.push(null);
      for (const i of piece) xs.push(x[i]), ys.push(high[i]);
      for (const i of piece.toReversed()) xs.push(x[i]), ys.push(low[i]);
    }
    piece = [];
  };
  x.forEach((_, i) => (low[i] == null || high[i] == null ? close() : piece.push(i)));
  close();
  return {
    type: "scatter", mode: "lines", x: xs, y: ys, fill: "toself", fillcolor: faded(colorOf(name), opacity),
    line: { width: 0, color: "rgba(0,0,0,0)" }, hoverinfo: "skip", name: `${name} band`,
  };
}

/** The reference last, so that its dashes show on what it coincides with. */
function referenceLast(names) {
  return names.toSorted((a, b) => (a === DATA.reference) - (b === DATA.reference));
}

/** Ticks of a logarithmic axis, written out: more of each decade the fewer it spans, even steps within a fraction. */
function logTicks(low, high, width = 700) {
  const decades = Math.log10(high / low) * (width < 480 ? 2 : 1);
  const values = decades > 0.35 ? decadeTicks(low, high, decades) : evenTicks(low, high);
  return { tickvals: values, ticktext: values.map(plainNumber) };
}

function decadeTicks(low, high, decades) {
  const digits = decades > 3.2 ? [1] : decades > 1.2 ? [1, 2, 5] : decades > 0.7 ? [1, 1.5, 2, 3, 4, 5, 6, 8]
    : [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9];
  const values = [];
  for (let power = Math.floor(Math.log10(low)) - 3; power <= Math.log10(high) + 3; power++) {
    for (const digit of digits) values.push(digit * 10 ** power);
  }
  return values;
}

/** Round steps, about six of them from low to high, and on to both sides for a reader who pans. */
function evenTicks(low, high) {
  const rough = (high - low || low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  const first = Math.max(1, Math.floor(low / step) - 12);
  return Array.from({ length: 32 }, (_, i) => (first + i) * step);
}

function plainNumber(value) {
  return Number(value.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 6 });
}

function dotted(axis, at) {
  const color = getComputedStyle(ROOT).getPropertyValue("--muted").trim();
  const place = axis === "x" ? { x0: at, x1: at, y0: 0, y1: 1, yref: "paper" } : { y0: at, y1: at, x0: 0, x1: 1, xref: "paper" };
  return { type: "line", layer: "below", line: { color: color, width: 1, dash: "dot" }, ...place };
}

/** The limits of the finite positive numbers in some lists; [1, 10] without any. */
function limits(lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) for (const value of list) {
    if (value != null && value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  return low <= high ? [low, high] : [1, 10];
}

/** A figure for each setting of a section. */
function eachSetting(name, make_) {
  const host = document.querySelector(`[data-chart="${name}"] .figures`);
  for (const setting of DATA.settings) {
    const inside = make("div");
    if (make_(inside, setting) === false) continue;
    if (setting.name) host.append(make("h3", { className: "setting" }, setting.name));
    host.append(inside);
  }
  if (!host.children.length && name !== "layers") host.append(make("p", {}, "Nothing to show for these runs."));
}

for (const kind of ["arms", "theme"]) REDRAW.addEventListener(kind, () => CHARTS.forEach((chart) => chart.refresh()));

// Paper is white and shows everything: charts that were never seen are drawn, in the light theme.
let screenTheme = null;
let unfolded = [];
addEventListener("beforeprint", () => {
  screenTheme = ROOT.dataset.theme;
  ROOT.dataset.theme = "light";
  unfolded = [...document.querySelectorAll("details.unfold:not([open])")];
  for (const part of unfolded) part.open = true;
  for (const chart of CHARTS) {
    chart.draw();
    Plotly.relayout(chart.plot, { autosize: false, width: 690, height: 310 });
  }
});
addEventListener("afterprint", () => {
  ROOT.dataset.theme = screenTheme;
  for (const part of unfolded) part.open = false;
  for (const chart of CHARTS) {
    chart.draw();
    Plotly.relayout(chart.plot, { autosize: true, width: null, height: null });
  }
});

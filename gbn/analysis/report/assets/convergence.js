// Convergence: a line an arm with its band, or its paired difference from the reference.

const AXES = { updates: "updates", epochs: "epochs", images: "images", seconds: "seconds of training" };

/** Places on the axis of updates as places on another one; linear between the tabled points. */
function converted(x, axes, axis) {
  if (axis === "updates" || axis === "seconds") return x;
  const [from, to] = [axes.updates, axes[axis]];
  let i = 0;
  return x.map((value) => {
    while (i < from.length - 2 && from[i + 1] < value) i++;
    const share = (value - from[i]) / (from[i + 1] - from[i] || 1);
    return to[i] + share * (to[i + 1] - to[i]);
  });
}

function axisOptions(setting) {
  const has = (axis) => setting.arms.every((arm) => setting.axes[arm][axis]);
  return Object.keys(AXES).map((axis) => {
    const missing = axis === "seconds" ? setting.secondsReason : has(axis) ? null : "not recorded";
    return { value: axis, label: missing && axis === "seconds" ? "seconds (not compared)" : axis, disabled: Boolean(missing) };
  });
}

function convergenceLines(setting, state) {
  const unit = state.axis === "seconds" ? "seconds" : "updates";
  return setting[state.view === "difference" ? "differences" : "lines"][unit]?.[state.measure] ?? {};
}

function buildConvergence(setting, state, arms, width) {
  const measure = DATA.measures.find(({ key }) => key === state.measure);
  const difference = state.view === "difference";
  const lines = convergenceLines(setting, state);
  const drawn = arms.filter((name) => lines[name]);
  const factor = measure.scale;
  const times = (list) => list?.map((value) => (value == null ? null : value * factor));
  const written = (value) => (value == null ? "?" : difference ? signed(value, measure.digits) : measure.loss ? value.toPrecision(4) : value.toFixed(measure.digits));
  const named = difference ? measure.points : measure.unit;
  const unit = named ? ` ${named}` : "";
  const traces = [];
  const xs = [];
  for (const name of referenceLast(drawn)) {
    const line = lines[name];
    const x = converted(line.x, setting.axes[name], state.axis);
    const [mean, low, high] = [line.mean, line.low, line.high].map(times);
    xs.push(x);
    if (low && bandsShown(state, drawn)) traces.push(bandTrace(name, x, low, high, drawn.length > 8 ? 0.09 : 0.15));
    const text = mean.map((value, i) =>
      `${written(value)}${unit}${low ? ` [${written(low[i])}, ${written(high[i])}]` : ""}, n = ${line.n}`);
    const hover = `<b>%{fullData.name}</b> %{text}<br>%{x:,.5~g} ${AXES[state.axis]}<extra></extra>`;
    traces.push(lineTrace(name, x, mean, { text, hovertemplate: drawn.length > 8 ? hover : "<b>%{fullData.name}</b> %{text}<extra></extra>" }));
    if (line.cut) {
      traces.push(lineTrace(name, x.slice(-1), mean.slice(-1), {
        mode: "markers", marker: { symbol: "x", size: 9, color: colorOf(name) }, name: `${name} cut`,
        hovertemplate: `<b>${name.replaceAll("<", "&lt;")}</b>: a seed diverged, the mean ends here<extra></extra>`,
      }));
    }
  }
  const isLog = state.scale === "log";
  const [low, high] = limits(xs);
  const shapes = difference
    ? [{ ...dotted("y", 0), line: { color: colorOf(DATA.reference), width: 1.5, dash: "5px,3px" } }]
    : state.measure === DATA.measures[0].key ? setting.targets.map((target) => dotted("y", factor * target)) : [];
  return {
    traces, drawn,
    layout: {
      shapes, hovermode: drawn.length > 8 ? "closest" : "x unified",
      xaxis: { type: isLog ? "log" : "linear", title: { text: AXES[state.axis] }, ...(isLog ? logTicks(low, high, width) : { tickformat: ",", rangemode: "tozero" }), hoverformat: ",.5~g", unifiedhovertitle: { text: `%{x:,.5~g} ${AXES[state.axis]}` } },
      yaxis: difference
        ? { title: { text: `minus ${DATA.reference}${measure.points ? ` (${measure.points})` : ""}${measure.lower ? ", below 0 is better" : ""}` }, tickformat: "+~g" }
        : measure.lower
          ? { type: "log", title: { text: measure.axis }, ...logTicks(...limits(traces.map(({ y }) => y))) }
          : { title: { text: measure.axis } },
    },
    note: bandNote(state, drawn) + (setting.secondsReason ? `Seconds are not compared: ${setting.secondsReason}.` : ""),
  };
}

function signed(value, digits) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

eachSetting("convergence", (host, setting) => {
  const measured = DATA.measures.filter(({ key }) => setting.lines.updates?.[key]);
  if (!measured.length) return false;
  const compared = Object.keys(setting.differences.updates ?? {}).length > 0;
  const chart = new Chart(host, {
    label: `Convergence of the arms${setting.name ? ` in ${setting.name}` : ""}; the tables hold the numbers`,
    arms: setting.arms,
    controls: {
      measure: { label: "Show", options: measured.map(({ key, name }) => ({ value: key, label: name })) },
      view: {
        label: "as",
        options: compared
          ? [{ value: "value", label: "mean" }, { value: "difference", label: `difference from ${DATA.reference}` }]
          : [{ value: "value", label: "mean" }],
      },
      axis: { label: "against", options: axisOptions(setting) },
      scale: { label: "axis", options: [{ value: "log", label: "logarithmic" }, { value: "linear", label: "linear" }] },
      band: { label: "bands", options: [{ value: "on", label: "on" }, { value: "off", label: "off" }] },
    },
    build: (state, arms) => {
      const { loss } = DATA.measures.find(({ key }) => key === state.measure);
      const view = chart.controls.querySelector('[name="view"]');
      if (view) {
        view.options[1].disabled = loss; // a difference of losses has no natural scale
        if (loss) view.value = state.view = "value";
      }
      return buildConvergence(setting, state, arms, host.clientWidth);
    },
  });
});

// Speed-up against the target, time to target, and what was recorded inside the network.

function unitOptions(bySetting) {
  return Object.keys(bySetting).map((unit) => ({ value: unit, label: unit }));
}

/** Round ratios for an axis from 1/reach to reach. */
function ratioTicks(reach) {
  const above = reach > 3 ? [2, 4, 8] : reach > 1.7 ? [1.25, 1.5, 2, 3] : [1.1, 1.2, 1.3, 1.4, 1.6];
  const values = [...above.map((ratio) => 1 / ratio), 1, ...above];
  return { tickvals: values, ticktext: values.map((value) => String(Number(value.toPrecision(2)))) };
}

function buildThresholds(setting, state, arms) {
  const curves = setting.speedups[state.unit];
  const measured = DATA.measures.find(({ key }) => key === DATA.measure);
  const to = measured.unit ? ` ${measured.unit}` : "";
  const drawn = arms.filter((name) => curves[name]);
  const traces = [];
  const values = [];
  for (const name of drawn) {
    const { target, value, low, high, text, n } = curves[name];
    const x = target.map((value) => measured.scale * value);
    // a logarithmic axis has no zero
    const floored = low.map((ratio) => (ratio == null ? null : Math.max(ratio, 1e-3)));
    if (bandsShown(state, drawn)) traces.push(bandTrace(name, x, floored, high, drawn.length > 8 ? 0.07 : 0.13));
    const hover = text.map((words, i) => `${words}, n = ${n[i]}`);
    traces.push(lineTrace(name, x, value, {
      text: hover, hovertemplate: `<b>%{fullData.name}</b> %{text}${drawn.length > 8 ? `<br>to %{x:.3~g}${to}` : ""}<extra></extra>`,
    }));
    values.push(value);
  }
  const [low, high] = limits(values);
  const reach = Math.min(8, Math.max(1.3, 1.35 * Math.max(high, 1 / low)));
  return {
    traces, drawn, note: bandNote(state, drawn),
    layout: {
      shapes: [
        ...setting.targets.map((target) => dotted("x", measured.scale * target)),
        { ...dotted("y", 1), line: { color: colorOf(DATA.reference), width: 1.5, dash: "5px,3px" } },
      ],
      hovermode: drawn.length > 8 ? "closest" : "x unified",
      // harder targets stand to the right, also where lower is better
      xaxis: {
        title: { text: `target: ${measured.axis}` }, unifiedhovertitle: { text: `to %{x:.3~g}${to}` },
        ...(measured.lower ? { type: "log", autorange: "reversed", ...logTicks(...limits(traces.map((trace) => trace.x))) } : {}),
      },
      yaxis: {
        type: "log", title: { text: `speed-up in ${state.unit}` }, range: [-Math.log10(reach), Math.log10(reach)],
        ...ratioTicks(reach),
      },
    },
  };
}

/** The corners of a step line that holds each value until the next place. */
function steps(x, y) {
  const [xs, ys] = [[], []];
  x.forEach((at, i) => {
    if (i) xs.push(at), ys.push(y[i - 1]);
    xs.push(at), ys.push(y[i]);
  });
  return [xs, ys];
}

function buildSurvival(setting, state, arms) {
  const curves = setting.survivals[state.unit][state.target];
  const drawn = arms.filter((name) => curves[name]);
  const traces = [];
  const places = drawn.flatMap((name) => [curves[name].time.filter((time) => time > 0), [curves[name].end]]);
  const [low, high] = limits(places);
  const start = state.scale === "log" ? low / 1.15 : 0;
  for (const name of referenceLast(drawn)) {
    const curve = curves[name];
    const kept = curve.time.map((time, i) => [time, i]).filter(([time]) => time > start);
    const x = [start, ...kept.map(([time]) => time), Math.max(curve.end, ...kept.map(([time]) => time))];
    const padded = (list) => {
      const inside = [0, ...kept.map(([, i]) => list[i])];
      return [...inside, inside.at(-1)].map((share) => (share == null ? null : 100 * share));
    };
    const reached = padded(curve.reached);
    if (bandsShown(state, drawn) && curve.n > 1) {
      const [bx, bl] = steps(x, padded(curve.low));
      traces.push(bandTrace(name, bx, bl, steps(x, padded(curve.high))[1], drawn.length > 8 ? 0.06 : 0.11));
    }
    const [sx, sy] = steps(x, reached);
    traces.push(lineTrace(name, sx, sy, {
      hovertemplate: `<b>%{fullData.name}</b> %{y:.0f} % by %{x:,.4~g} ${state.unit}<br>${curve.hits} of ${curve.n} runs reached it<extra></extra>`,
    }));
  }
  return {
    traces, drawn, note: bandNote(state, drawn),
    layout: {
      xaxis: { title: { text: state.unit }, type: state.scale, ...(state.scale === "log" ? logTicks(low, high) : { tickformat: ",", rangemode: "tozero" }) },
      yaxis: { title: { text: "runs that reached it (%)" }, range: [-3, 103] },
    },
  };
}

function buildLayers(setting, state, arms) {
  const curves = setting.layers[state.quantity]?.[state.layer] ?? {};
  const { label, log, neutral } = DATA.quantities[state.quantity];
  const drawn = arms.filter((name) => curves[name]);
  const traces = [];
  const values = [];
  for (const name of referenceLast(drawn)) {
    const { x, median, low, high, n } = curves[name];
    if (bandsShown(state, drawn)) traces.push(bandTrace(name, x, low, high, drawn.length > 8 ? 0.06 : 0.12));
    const text = median.map((value, i) =>
      `${value ?? "?"}${low[i] == null ? "" : ` [${low[i]}, ${high[i]}]`}, n = ${n}`);
    traces.push(lineTrace(name, x, median, { text, hovertemplate: "<b>%{fullData.name}</b> %{text}<extra></extra>" }));
    values.push(median, low, high);
  }
  const places = traces.map(({ x }) => x);
  return {
    traces, drawn, note: drawn.length ? bandNote(state, drawn) : "This layer has no such quantity in the shown arms.",
    layout: {
      shapes: neutral == null ? [] : [dotted("y", neutral)],
      hovermode: drawn.length > 8 ? "closest" : "x unified",
      xaxis: {
        type: "log", title: { text: "updates" }, unifiedhovertitle: { text: "%{x:,} updates" }, ...logTicks(...limits(places)),
      },
      yaxis: { automargin: true, title: { text: label }, ...(log ? { type: "log", ...logTicks(...limits(values)) } : {}) },
    },
  };
}

const BANDS = { label: "bands", options: [{ value: "on", label: "on" }, { value: "off", label: "off" }] };
const plain = (values) => values.map((value) => ({ value, label: value }));

eachSetting("thresholds", (host, setting) => {
  if (!Object.values(setting.speedups).some((curves) => Object.keys(curves).length)) return false;
  new Chart(host, {
    label: `Speed-up over ${DATA.reference} at every target`, arms: setting.arms,
    controls: { unit: { label: "in", options: unitOptions(setting.speedups) }, band: BANDS },
    build: (state, arms) => buildThresholds(setting, state, arms),
  });
});

eachSetting("survival", (host, setting) => {
  const targets = Object.keys(setting.survivals.updates ?? {});
  if (!targets.length) return false;
  new Chart(host, {
    label: "Share of runs that reached the target, against time", arms: setting.arms,
    controls: {
      target: { label: "Target", options: plain(targets) },
      unit: { label: "in", options: unitOptions(setting.survivals) },
      scale: { label: "axis", options: [{ value: "log", label: "logarithmic" }, { value: "linear", label: "linear" }] },
      band: BANDS,
    },
    build: (state, arms) => buildSurvival(setting, state, arms),
  });
});

eachSetting("layers", (host, setting) => {
  const quantities = Object.keys(DATA.quantities).filter((key) => setting.layers[key]);
  if (!quantities.length) return false;
  const names = [...new Set(quantities.flatMap((quantity) => Object.keys(setting.layers[quantity])))];
  new Chart(host, {
    label: "Recorded statistics of one layer along training", arms: setting.arms,
    controls: {
      quantity: { label: "Quantity", options: quantities.map((key) => ({ value: key, label: DATA.quantities[key].label })) },
      layer: { label: "Layer", options: plain(names) },
      band: BANDS,
    },
    build: (state, arms) => buildLayers(setting, state, arms),
  });
});

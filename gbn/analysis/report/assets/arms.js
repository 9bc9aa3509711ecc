// Which arms the charts show: one list for all charts, with a filter, "all", "none" and "only".

const ARMS = new Map(DATA.arms.map((arm) => [arm.name, { ...arm }]));

function shownArms(names) {
  return names.filter((name) => ARMS.get(name).shown);
}

function colorOf(name) {
  return ARMS.get(name)[isDark() ? "dark" : "light"];
}

/** `#rrggbb` with an opacity. */
function faded(color, opacity) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

/** Show exactly the arms for which `wanted(arm)` holds. */
function showArms(wanted) {
  for (const arm of ARMS.values()) arm.shown = Boolean(wanted(arm));
  REDRAW.dispatchEvent(new Event("arms"));
}

function toggleArm(name) {
  showArms((arm) => (arm.name === name ? !arm.shown : arm.shown));
}

const SVG = "http://www.w3.org/2000/svg";
const MARKER_PATHS = {
  circle: "M10 5a3 3 0 1 0 6 0a3 3 0 1 0 -6 0", square: "M10.5 2.5h5v5h-5z", diamond: "M13 1.5l3.5 3.5l-3.5 3.5l-3.5 -3.5z",
  "triangle-up": "M13 1.5l3.5 6h-7z", "triangle-down": "M13 8.5l3.5 -6h-7z", x: "M10.5 2.5l5 5m0 -5l-5 5",
  cross: "M13 2v6m-3 -3h6", star: "M13 1.5l1 2.5h2.5l-2 1.6l.8 2.6l-2.3 -1.6l-2.3 1.6l.8 -2.6l-2 -1.6h2.5z",
  hexagon: "M11.5 2.2h3l1.6 2.8l-1.6 2.8h-3l-1.6 -2.8z",
};

/** A piece of the arm's line, as the charts draw it. */
function swatch(name) {
  const arm = ARMS.get(name);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 26 10");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", "M0 5H26");
  line.setAttribute("stroke", colorOf(name));
  line.setAttribute("stroke-width", name === DATA.reference ? 2.6 : 2.2);
  if (arm.dash !== "solid") line.setAttribute("stroke-dasharray", arm.dash.replaceAll("px", ""));
  svg.append(line);
  if (arm.marker) {
    const mark = document.createElementNS(SVG, "path");
    mark.setAttribute("d", MARKER_PATHS[arm.marker]);
    mark.setAttribute("fill", colorOf(name));
    mark.setAttribute("stroke", colorOf(name));
    svg.append(mark);
  }
  return svg;
}

function startArms() {
  const list = document.getElementById("arm-list");
  const filter = document.getElementById("arm-filter");
  const rows = new Map();
  for (const arm of ARMS.values()) {
    const box = make("input", { type: "checkbox", checked: arm.shown, "aria-label": arm.name });
    box.addEventListener("change", () => toggleArm(arm.name));
    const only = make("button", { type: "button", className: "only", "aria-label": `Only ${arm.name}` }, "only");
    only.addEventListener("click", () => showArms((other) => other.name === arm.name || other.name === DATA.reference));
    const short = arm.of ? arm.name.replace(`[${arm.of}]`, "") : arm.name; // it stands below its arm
    const name = make("span", { className: "name", title: arm.name }, short);
    const row = make("li", { className: arm.of ? "control" : "" }, make("label", {}, box, swatch(arm.name), name), only);
    rows.set(arm.name, { row, box });
    list.append(row);
  }
  const matching = () => {
    const wanted = filter.value.trim().toLowerCase();
    return new Set([...ARMS.keys()].filter((name) => name.toLowerCase().includes(wanted)));
  };
  filter.addEventListener("input", () => {
    const found = matching();
    for (const [name, { row }] of rows) row.hidden = !found.has(name);
    for (const { row } of rows.values()) row.style.display = row.hidden ? "none" : "";
  });
  // "all" and "none" work on what the filter leaves.
  const actions = {
    all: (found) => (arm) => arm.shown || found.has(arm.name),
    none: (found) => (arm) => arm.shown && !found.has(arm.name),
    own: (found) => (arm) => (found.has(arm.name) ? !arm.of : arm.shown),
  };
  for (const button of document.querySelectorAll("[data-arms]")) {
    button.addEventListener("click", () => showArms(actions[button.dataset.arms](matching())));
  }
  const own = document.querySelector('[data-arms="own"]');
  own.style.display = [...ARMS.values()].some((arm) => arm.of) ? "" : "none";
  const refresh = () => {
    let count = 0;
    for (const [name, { box }] of rows) {
      box.checked = ARMS.get(name).shown;
      count += box.checked;
    }
    document.getElementById("arms-hint").textContent = `${count} of ${ARMS.size} shown`;
  };
  REDRAW.addEventListener("arms", refresh);
  REDRAW.addEventListener("theme", () => rows.forEach(({ row }, name) => row.querySelector(".swatch").replaceWith(swatch(name))));
  refresh();
}

startArms();

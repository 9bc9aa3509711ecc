"use strict";
// The page around the charts: theme, contents, sortable tables.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROOT = document.documentElement;
const REDRAW = new EventTarget(); // "arms": other arms are shown; "theme": other colors

/** An element with properties and children; text is always text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function isDark() {
  return ROOT.dataset.theme === "dark";
}

function setTheme(name) {
  if (ROOT.dataset.theme === name) return;
  ROOT.dataset.theme = name;
  REDRAW.dispatchEvent(new Event("theme"));
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = false;
  system.addEventListener("change", () => chosen || setTheme(system.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => {
    chosen = true;
    setTheme(isDark() ? "light" : "dark");
  });
}

/** On a narrow screen the contents and the arms unfold from the top. */
function startMenu() {
  const side = document.querySelector(".side");
  const button = document.getElementById("menu");
  const open = (state) => {
    side.classList.toggle("open", state);
    button.setAttribute("aria-expanded", String(state));
  };
  button.addEventListener("click", () => open(!side.classList.contains("open")));
  document.querySelector(".toc").addEventListener("click", () => open(false));
  document.addEventListener("keydown", (event) => event.key === "Escape" && open(false));
}

function startContents() {
  const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]));
  const parts = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  let waiting = false;
  const mark = () => {
    waiting = false;
    const end = innerHeight + scrollY >= document.body.scrollHeight - 2;
    const passed = parts.filter((part) => part.getBoundingClientRect().top < innerHeight * 0.35);
    const here = end ? parts.at(-1) : passed.at(-1) ?? parts[0];
    for (const [id, link] of links) {
      link.classList.toggle("here", id === here?.id);
      if (id === here?.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  mark();
}

/** What a cell is sorted by: its first number (a bound by its number), else its text; empty cells last. */
function sortKey(text) {
  const number = text.replace(/(\d),(?=\d{3})/g, "$1").match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
  if (/^never/.test(text)) return Infinity;
  return number && /^[<>=~\s+\-\d.(]/.test(text) ? Number(number[0]) : text === "-" ? "" : text.toLowerCase();
}

function compareCells(a, b, sign) {
  const [x, y] = [sortKey(a), sortKey(b)];
  if (x === "" || y === "") return (x === "") - (y === ""); // nothing stays last in either direction
  if (typeof x === "number" && typeof y === "number") return sign * (x - y || 0);
  if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
  return sign * x.localeCompare(y, "en", { numeric: true });
}

function sortTable(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const now = heads[column].getAttribute("aria-sort");
  const direction = now === "descending" ? "ascending" : now === "ascending" ? "none" : "descending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  const body = table.tBodies[0];
  table.originalRows ??= [...body.rows];
  const rows = [...table.originalRows];
  if (direction !== "none") {
    heads[column].setAttribute("aria-sort", direction);
    const sign = direction === "descending" ? -1 : 1;
    rows.sort((a, b) => compareCells(a.cells[column].textContent, b.cells[column].textContent, sign));
  }
  body.append(...rows);
}

function startTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) =>
      head.querySelector("button").addEventListener("click", () => sortTable(table, column)));
  }
}

startTheme();
startMenu();
startContents();
startTables();

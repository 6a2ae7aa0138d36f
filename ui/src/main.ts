// The frame of the page: header, places, the live stream, and which view is shown.

import "./style.css";
import { type Monitors, Refused, type Update, get, url } from "./api";
import { h, put, say } from "./dom";
import { Live, type Connection } from "./live";
import { type Model, type View, take, takeGlances } from "./model";
import { type Page, type Route, format, parse } from "./route";
import { mark } from "./status";
import * as theme from "./theme";
import { feature } from "./views/feature";
import { incidents } from "./views/incidents";
import { overview } from "./views/overview";
import { stream } from "./views/stream";

const VIEWS: Record<Page, (model: Model) => View> = { overview, feature, incidents, stream };
const TABS: [Page, string][] = [
  ["overview", "Overview"],
  ["incidents", "Incidents"],
  ["stream", "Stream"],
];
const STATES: Record<Connection, string> = { connecting: "Connecting", live: "Live", lost: "Reconnecting" };

const model: Model = { route: parse(location.hash), monitors: [], monitor: null, rows: new Map(), stream: null, clock: 0, go };

const app = document.getElementById("app") as HTMLElement;
const tabs = h("nav", { class: "tabs", "aria-label": "Pages" });
const picker = h("div", { class: "picker" });
const state = h("span", { class: "live", role: "status" });
const themeButton = h("button", { class: "icon-button", type: "button", click: () => (theme.next(), themed()) });
const notices = h("div", { class: "notices" });
const main = h("main", { id: "main", tabindex: "-1" });
const footer = h("footer", {});
const held = h("span", {});

app.append(
  h(
    "header",
    { class: "top" },
    h("a", { class: "brand", href: "#/", "aria-label": "Leeway, to the overview" }, logo(), h("span", {}, "Leeway")),
    tabs,
    picker,
    h("div", { class: "top-end" }, state, themeButton),
  ),
  notices,
  main,
  footer,
);

let view: View | null = null;
let shown = "";
let listening = "";
let connection: Connection | null = null;
const live = new Live(updated, connected);

function logo(): Element {
  const image = h("span", { class: "logo", "aria-hidden": "true" });
  return image;
}

/** Goes to another place; `replace` where going back should not lead here. */
function go(change: Partial<Route>, replace = false): void {
  const next = format({ ...model.route, ...change });
  if (next === location.hash) return;
  if (replace) {
    history.replaceState(null, "", next);
    moved();
  } else location.hash = next;
}

function themed(): void {
  const names = { system: "as the system has it", light: "light", dark: "dark" } as const;
  const name = `Colours: ${names[theme.current()]}`;
  themeButton.setAttribute("aria-label", `${name}. Change`);
  themeButton.title = name;
  put(themeButton, h("span", { class: `theme-icon ${theme.current()}`, "aria-hidden": "true" }));
}

function connected(next: Connection): void {
  // Each message says that it is there.
  if (next === connection) return;
  connection = next;
  state.className = `live ${next}`;
  put(state, h("span", { class: "pulse", "aria-hidden": "true" }), STATES[next]);
  notice();
}

/** What keeps figures from being true is told at the top, whatever page is shown. */
function notice(): void {
  const lines: (string | Node)[] = [];
  if (connection === "lost") lines.push("The dashboard's server does not answer. What is shown is what was known; it goes on by itself.");
  for (const source of model.stream?.sources ?? []) {
    if (source.problem) lines.push(`Events of topic ${source.topic} cannot be read: ${source.problem}. Trying again.`);
    else if (!source.is_caught_up) lines.push(`Reading topic ${source.topic}: ${source.records.toLocaleString("en")} records so far.`);
  }
  const problem = model.stream?.health.problem;
  if (problem && !lines.some((line) => String(line).includes(problem))) lines.push(`Kafka does not say how the stream is: ${problem}.`);
  const text = lines.join("\n");
  if (notices.dataset["text"] === text) return;
  notices.dataset["text"] = text;
  put(notices, ...lines.map((line) => h("p", { role: "status" }, line)));
}

function frame(): void {
  put(
    tabs,
    ...TABS.map(([page, name]) => {
      const isHere = model.route.page === page || (page === "overview" && model.route.page === "feature");
      const href = format({ ...empty(), page, monitor: model.route.monitor });
      return h("a", { href, "aria-current": isHere ? "page" : null }, name);
    }),
  );
  const { monitors, monitor } = model;
  put(
    picker,
    monitors.length > 1 &&
      h(
        "label",
        {},
        h("span", { class: "hidden" }, "Monitor"),
        h(
          "select",
          { change: (event: Event) => go({ ...empty(), page: model.route.page === "feature" ? "overview" : model.route.page, monitor: (event.target as HTMLSelectElement).value }) },
          ...monitors.map(({ name }) => h("option", { value: name, selected: name === monitor?.name }, name)),
        ),
      ),
  );
}

function empty(): Route {
  return { page: "overview", monitor: null, feature: null, scope: null, partition: null, segment: null, range: null, q: "", sort: null, at: null, of: null };
}

/** Shows what the address says. */
function moved(): void {
  model.route = parse(location.hash);
  const { route } = model;
  model.monitor = model.monitors.find(({ name }) => name === route.monitor) ?? (route.monitor === null ? (model.monitors[0] ?? null) : null);
  // Links from here name it: which is the first may change.
  const isNamed = route.monitor !== null;
  if (model.monitor) route.monitor = model.monitor.name;
  frame();
  if (isNamed && !model.monitor && model.monitors.length > 0) {
    close();
    put(main, message("There is no such monitor", `Neither the configuration nor the events have a monitor ${route.monitor}.`, h("a", { href: "#/" }, "To the overview")));
    return;
  }
  const name = model.monitor?.name ?? null;
  const selection = JSON.stringify([name, route.scope, route.partition, route.segment]);
  if (listening !== selection) {
    listening = selection;
    model.rows.clear();
    live.listen(name, route);
  }
  const wanted = JSON.stringify([route.page, selection, route.feature]);
  if (view && shown === wanted) {
    view.moved?.();
    return;
  }
  const isFirst = shown === "";
  close();
  shown = wanted;
  view = VIEWS[route.page](model);
  put(main, view.element);
  document.title = route.feature !== null ? `${route.feature} · Leeway` : "Leeway";
  // Not at the start: the reader has not moved yet.
  if (!isFirst) {
    main.focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }
}

function close(): void {
  view?.close();
  view = null;
  shown = "";
}

function message(title: string, text: string, ...more: Node[]): HTMLElement {
  return h("section", { class: "panel message" }, mark(null, 28), h("h1", {}, title), h("p", {}, text), ...more);
}

function updated(update: Update): void {
  performance.mark("update:start");
  model.clock = update.now_ms - Date.now();
  model.stream = update.stream;
  const isNew = takeGlances(model, update.monitors);
  const changed = take(model, update.rows, update.reset);
  notice();
  view?.update(update, changed);
  const { points, series, dropped_points } = update.stream.history;
  const text = `${points.toLocaleString("en")} checks of ${series.toLocaleString("en")} series are held${dropped_points > 0 ? `; ${dropped_points.toLocaleString("en")} older ones left for want of room` : ""}.`;
  if (footer.childElementCount === 0) footer.append(held, h("a", { href: "api/v1/openapi.json" }, "API"));
  say(held, text);
  performance.measure("update", { start: "update:start", detail: { reset: update.reset, rows: update.rows.feature.length, points: update.points?.psi.length ?? -1 } });
  // A monitor of which the configuration knows nothing: its events came just now.
  if (isNew) void load();
}

async function load(): Promise<void> {
  try {
    const found = await get<Monitors>(url("monitors"));
    model.monitors = found.monitors;
    model.stream = found.stream;
    model.clock = found.now_ms - Date.now();
    shown = "";
    moved();
  } catch (error) {
    if (model.monitors.length > 0) return;
    const text = error instanceof Refused ? error.message : "The dashboard's server does not answer. Trying again.";
    put(main, message("Nothing to show yet", text));
    window.setTimeout(() => void load(), 1500);
  }
}

addEventListener("hashchange", moved);
addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  const isTyping = target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = document.querySelector<HTMLInputElement>("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
  if (event.key === "Escape" && isTyping) target.blur();
});

themed();
connected("connecting");
void load();

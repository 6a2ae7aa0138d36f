// Incidents: when what was wrong, over time and as a list.

import { type Incident, type Incidents, type Update, get, path, url } from "../api";
import { h, put, save, say } from "../dom";
import * as format from "../format";
import type { Model, View } from "../model";
import { to } from "../route";
import { RANK, chip, mark, WORDS, whose } from "../status";

/** Features of the timeline: a screen. */
const LANES = 40;
const LIST = 100;

const CSV = ["number", "kind", "status", "feature", "scope", "partition", "segment", "start", "last_check", "end", "largest_psi", "checks"];

export function incidents(model: Model): View {
  const lanes = h("div", { class: "lanes" });
  const list = h("div", {});
  const found = h("p", { class: "found", role: "status" });
  let all: Incident[] = [];
  let revision = -1;
  let timer = 0;

  const draw = (): void => {
    put(lanes, timeline(model, all));
    const together = [...byFeature(all).values()].flatMap(merged).sort((a, b) => b.start_ms - a.start_ms);
    put(list, incidentList(model, together, LIST));
  };
  const read = async (): Promise<void> => {
    if (!model.monitor) return;
    const answer = await get<Incidents>(url(`monitors/${path(model.monitor.name)}/incidents`)).catch(() => null);
    if (!answer) return;
    all = answer.incidents;
    draw();
    say(
      found,
      [answer.count > all.length && `The newest ${format.count(all.length)} of ${format.count(answer.count)} are shown.`, answer.dropped > 0 && `${format.count(answer.dropped)} older ones left for want of room.`].filter(Boolean).join(" "),
    );
  };
  const element = h(
    "div",
    { class: "stack" },
    h("h1", { class: "page-title" }, "Incidents"),
    h("section", { class: "panel", "aria-labelledby": "timeline-title" }, h("div", { class: "panel-head" }, h("h2", { id: "timeline-title" }, "Timeline"), legend()), lanes),
    h(
      "section",
      { class: "panel", "aria-labelledby": "list-title" },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "list-title" }, "Newest first"),
        h(
          "div",
          { class: "tools" },
          h(
            "button",
            {
              type: "button",
              class: "button",
              click: () =>
                save(
                  "leeway-incidents.csv",
                  "text/csv",
                  format.csv(
                    CSV,
                    all.map((one) => [one.number, one.kind, one.status, one.feature, one.scope, one.partition, one.segment, iso(one.start_ms), iso(one.last_ms), one.end_ms === null ? null : iso(one.end_ms), one.psi, one.checks]),
                  ),
                ),
            },
            "CSV",
          ),
        ),
      ),
      list,
      found,
    ),
  );
  void read();
  return {
    element,
    update(update: Update) {
      if (update.incidents === revision && !update.reset) return;
      revision = update.incidents;
      window.clearTimeout(timer);
      // Every check of an open one changes it; twice a second is enough to see.
      timer = window.setTimeout(() => void read(), 300);
    },
    close() {
      window.clearTimeout(timer);
    },
  };
}

const iso = (ms: number): string => new Date(ms).toISOString();

function legend(): HTMLElement {
  return h(
    "div",
    { class: "legend" },
    h("span", { class: "key" }, h("i", { class: "swatch stripe drift" }), "drift"),
    h("span", { class: "key" }, h("i", { class: "swatch stripe possible_drift" }), "possible drift"),
    h("span", { class: "key" }, h("i", { class: "swatch stripe quality" }), "quality"),
  );
}

function timeline(model: Model, all: Incident[]): HTMLElement {
  if (all.length === 0) return h("p", { class: "muted" }, model.monitor?.time_ms == null ? "No check yet." : "Nothing was wrong in any check that is held.");
  const now = model.monitor?.time_ms ?? Math.max(...all.map((one) => one.last_ms));
  const first = Math.min(...all.map((one) => one.start_ms));
  const from = Math.min(first, model.monitor?.from_ms ?? first);
  const span = Math.max(now - from, 1);
  const by = byFeature(all);
  const names = [...by.keys()].slice(0, LANES);
  const part = (ms: number): number => Math.min(100, Math.max(0, ((ms - from) / span) * 100));
  return h(
    "div",
    { class: "timeline" },
    h(
      "ol",
      { "aria-label": "Incidents by feature" },
      ...names.map((name) =>
        h(
          "li",
          {},
          h("span", { class: "lane-name", title: name }, title(name)),
          h(
            "span",
            { class: "lane" },
            ...merged(by.get(name)!).map((one) => {
              const end = one.end_ms ?? now;
              const words = `${title(name)}: ${said(one)}, ${format.time(one.start_ms)} ${one.end_ms === null ? "and going on" : `to ${format.time(end)}`}`;
              const left = part(one.start_ms);
              return h("a", {
                class: `stripe ${one.kind === "quality" ? "quality" : one.status}${one.end_ms === null ? " open" : ""}`,
                style: `left: ${left}%; width: max(6px, ${part(end) - left}%)`,
                href: link(model, one),
                title: words,
                "aria-label": words,
              });
            }),
          ),
        ),
      ),
    ),
    h("div", { class: "lane-axis", "aria-hidden": "true" }, ...[0, 0.25, 0.5, 0.75, 1].map((at) => h("span", { style: `left: ${at * 100}%` }, format.time(from + at * span)))),
    by.size > names.length && h("p", { class: "found" }, `The ${names.length} features with the newest of ${by.size} are shown.`),
  );
}

/** Incidents of several partitions or segments that overlap. */
interface Together extends Incident {
  places?: Set<string>;
}

function byFeature(all: Incident[]): Map<string, Incident[]> {
  const by = new Map<string, Incident[]>();
  for (const one of all) by.set(one.feature, [...(by.get(one.feature) ?? []), one]);
  return by;
}

/** Those of one feature that overlap are one: partitions drift together. It leads to where PSI is largest. */
function merged(all: Incident[]): Together[] {
  const stripes: Together[] = [];
  for (const kind of ["drift", "quality"] as const) {
    let open: Together | null = null;
    for (const one of all.filter((one) => one.kind === kind).sort((a, b) => a.start_ms - b.start_ms)) {
      const end: number = open === null ? -Infinity : (open.end_ms ?? Infinity);
      if (open !== null && one.start_ms <= end) {
        open.end_ms = open.end_ms === null || one.end_ms === null ? null : Math.max(open.end_ms, one.end_ms);
        open.last_ms = Math.max(open.last_ms, one.last_ms);
        open.checks += one.checks;
        open.places!.add(whose(one));
        if (RANK[one.status] > RANK[open.status]) open.status = one.status;
        if (one.psi > open.psi) {
          const { psi, scope, partition, segment } = one;
          Object.assign(open, { psi, scope, partition, segment });
        }
      } else {
        open = { ...one, places: new Set([whose(one)]) };
        stripes.push(open);
      }
    }
  }
  return stripes;
}

const where = (one: Together): string => (one.places && one.places.size > 1 ? `${one.places.size} ${one.segment === null ? "partitions" : "segments"}` : whose(one));
const title = (feature: string): string => (feature === "*" ? "all features (mean)" : feature);
const said = (one: Incident): string => (one.kind === "quality" ? "quality violated" : WORDS[one.status].toLowerCase());

function link(model: Model, one: Incident): string {
  return to(model.route, {
    page: "feature",
    feature: one.feature,
    q: "",
    sort: null,
    at: { record_count: 0, time_ms: one.start_ms },
    of: { scope: one.scope, partition: one.partition, segment: one.segment },
  });
}

/** `of`: whose they all are, where that need not be said. */
export function incidentList(model: Model, all: Together[], max: number, of?: string): HTMLElement {
  if (all.length === 0) return h("p", { class: "muted" }, "None.");
  return h(
    "div",
    { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "List of incidents" },
    h(
      "table",
      { class: "incidents" },
      h("thead", {}, h("tr", {}, ...["What", "Feature", "Where", "Began", "Lasted", "Largest PSI", "Checks"].map((name, at) => (at === 1 && of !== undefined ? null : h("th", { scope: "col", class: at === 5 ? "number" : at === 6 ? "number wide-only" : at === 2 && of === undefined ? "wide-only" : null }, name))))),
      h(
        "tbody",
        {},
        ...all.slice(0, max).map((one) =>
          h(
            "tr",
            {},
            h("td", {}, one.kind === "quality" ? h("span", { class: "chip quality" }, mark("drift"), h("span", {}, "Quality")) : chip(one.status)),
            of === undefined && h("th", { scope: "row" }, h("a", { href: link(model, one) }, title(one.feature))),
            h("td", { class: of === undefined ? "wide-only" : null }, of === undefined ? where(one) : h("a", { href: link(model, one) }, whose(one))),
            h("td", {}, h("time", { datetime: iso(one.start_ms), title: format.dateTime(one.start_ms) }, format.time(one.start_ms))),
            h("td", {}, one.end_ms === null ? h("span", { class: "going-on" }, `${format.duration(one.last_ms - one.start_ms)}, going on`) : format.duration(one.end_ms - one.start_ms)),
            h("td", { class: "number" }, one.kind === "quality" ? "–" : format.psi(one.psi)),
            h("td", { class: "number wide-only" }, format.count(one.checks)),
          ),
        ),
      ),
    ),
    all.length > max && h("p", { class: "found" }, `${format.count(all.length - max)} older ones are in the CSV.`),
  );
}

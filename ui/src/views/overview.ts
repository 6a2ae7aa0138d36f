// Monitors at a glance, features by time, and the table of features.

import { type Monitor, type Update } from "../api";
import { h, put, say } from "../dom";
import * as format from "../format";
import type { Model, View } from "../model";
import { to } from "../route";
import { chip, WORDS } from "../status";
import { selectors } from "./selectors";
import { HeatMapPanel } from "./heatmap";
import { FeatureTable } from "./table";

export function overview(model: Model): View {
  const glance = h("div", { class: "glance" });
  const monitor = model.monitor;
  const bar = selectors(model);
  const map = new HeatMapPanel(model);
  const table = new FeatureTable(model);
  const body = h("div", { class: "stack" });
  const element = h("div", { class: "stack" }, h("h1", { class: "hidden" }, "Overview"), glance, body);
  const cards = new Map<string, Card>();
  let isEmpty: boolean | null = null;

  const draw = (): void => {
    for (const of of model.monitors) {
      let card = cards.get(of.name);
      if (!card) {
        card = new Card(model, of);
        cards.set(of.name, card);
        glance.append(card.element);
      }
      card.draw(of);
    }
    const nothing = !monitor || monitor.time_ms === null;
    if (nothing === isEmpty) return;
    isEmpty = nothing;
    if (nothing) put(body, emptyState(model));
    else put(body, bar.element, map.element, table.element);
  };
  draw();
  // Freshness grows by itself.
  const timer = window.setInterval(draw, 1000);

  return {
    element,
    update(update: Update, changed: Set<string>) {
      draw();
      if (isEmpty) return;
      bar.update();
      map.update(update);
      table.update(changed, update.reset);
    },
    moved() {
      bar.update();
      map.moved();
      table.moved();
    },
    close() {
      window.clearInterval(timer);
      map.close();
    },
  };
}

function emptyState(model: Model): HTMLElement {
  const settings = model.monitor?.settings;
  const isReading = model.stream?.sources.some((source) => !source.is_caught_up && !source.problem) ?? true;
  const topics = model.stream?.sources.map(({ topic }) => topic).join(", ") ?? settings?.events_topic ?? "";
  if (isReading) return h("section", { class: "panel message" }, h("h2", {}, "Reading the events"), h("p", {}, `Topic ${topics} is read from its start.`));
  const takes = settings ? ` The first check takes ${format.count(settings.min_samples)} records${settings.window.kind === "time" ? " in a window that has closed" : " of a partition"}.` : "";
  return h(
    "section",
    { class: "panel message" },
    h("h2", {}, "No check yet"),
    h("p", {}, `Topic ${topics} has no events of this application.${takes}`),
    h("p", {}, "Is a worker running? It writes them:"),
    h("pre", {}, `leeway run${settings ? ` --topic ${settings.topic}` : ""}`),
    h("p", {}, "They show up here by themselves."),
  );
}

/** One monitor: its light, how much of it drifts, how fresh that is. */
class Card {
  readonly element: HTMLElement;
  private readonly light = h("div", { class: "card-light" });
  private readonly share = h("p", { class: "card-share" });
  private readonly meter = h("div", { class: "meter", "aria-hidden": "true" });
  private readonly facts = h("p", { class: "card-facts" });
  private readonly fresh = h("p", { class: "card-fresh" });
  private drawn = "";

  constructor(
    private readonly model: Model,
    monitor: Monitor,
  ) {
    this.element = h(
      "a",
      {
        class: "card",
        href: to(model.route, { page: "overview", monitor: monitor.name, feature: null, at: null, of: null, partition: null, segment: null, scope: null }),
        "aria-current": monitor.name === model.monitor?.name && model.monitors.length > 1 ? "true" : null,
      },
      h("div", { class: "card-head" }, h("h2", {}, monitor.name), this.light),
      this.share,
      this.meter,
      this.facts,
      this.fresh,
    );
  }

  draw(monitor: Monitor): void {
    const now = Date.now() + this.model.clock;
    const { features, drifted, possible, violated, status } = monitor;
    const key = JSON.stringify([features, drifted, possible, violated, status, monitor.summary_status, monitor.summary_psi, monitor.partitions.length, monitor.segments]);
    if (key !== this.drawn) {
      this.drawn = key;
      this.element.dataset["status"] = status ?? "unknown";
      put(this.light, chip(status));
      if (features === 0) put(this.share, h("span", { class: "muted" }, "no check yet"));
      else put(this.share, h("b", {}, String(drifted)), ` of ${format.count(features)} features drift${drifted === 1 ? "s" : ""}`);
      const parts: [string, number][] = [
        ["drift", drifted],
        ["possible_drift", possible],
        ["no_drift", features - drifted - possible],
      ];
      put(this.meter, ...parts.filter(([, part]) => part > 0).map(([name, part]) => h("i", { class: name, style: `flex-grow: ${part}` })));
      const facts = [
        possible > 0 && `${possible} possible`,
        violated > 0 && `${violated} of bad quality`,
        monitor.summary_psi !== null && `mean PSI ${format.psi(monitor.summary_psi)}${monitor.summary_status && monitor.summary_status !== "no_drift" ? `, ${WORDS[monitor.summary_status].toLowerCase()}` : ""}`,
        monitor.partitions.length > 0 && `${monitor.partitions.length} partition${monitor.partitions.length === 1 ? "" : "s"}`,
        monitor.segments > 0 && `${format.count(monitor.segments)} segments`,
      ];
      say(this.facts, facts.filter(Boolean).join(" · "));
    }
    say(this.fresh, monitor.written_ms === null ? "nothing heard yet" : `last check ${format.ago(now - monitor.written_ms)}`);
  }
}

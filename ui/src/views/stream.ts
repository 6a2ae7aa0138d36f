// How the stream itself is: lag, rate, dead letters, how full windows are.

import type { StreamState, Update } from "../api";
import { h, put, say, set } from "../dom";
import * as format from "../format";
import type { Model, View } from "../model";
import { eachFrame } from "../dom";

export function stream(model: Model): View {
  const [lagging, rated, dead, instances] = [new Figure("Lag"), new Figure("Rate"), new Figure("Dead letters"), new Figure("Instances")];
  const figures = h("div", { class: "figures", hidden: true }, lagging.element, rated.element, dead.element, instances.element);
  const table = new Table();
  const partitions = h("div", {});
  const sources = h("div", {});
  const about = h("div", {});
  const element = h(
    "div",
    { class: "stack" },
    h("h1", { class: "page-title" }, "Stream"),
    figures,
    h("section", { class: "panel", "aria-labelledby": "partitions-title" }, h("div", { class: "panel-head" }, h("h2", { id: "partitions-title" }, "Partitions")), partitions),
    h("section", { class: "panel", "aria-labelledby": "sources-title" }, h("div", { class: "panel-head" }, h("h2", { id: "sources-title" }, "What this page reads")), sources),
    h("section", { class: "panel", "aria-labelledby": "about-title" }, h("div", { class: "panel-head" }, h("h2", { id: "about-title" }, "Settings of the monitor")), about),
  );
  let drawn = "";
  const draw = (): void => {
    const { stream, monitor } = model;
    if (!stream || !monitor) return;
    const key = JSON.stringify([stream, monitor.settings, monitor.reference_version]);
    if (key === drawn) return;
    drawn = key;
    figures.hidden = false;
    drawFigures(stream);
    drawPartitions(stream);
    drawSources(stream);
    drawSettings();
  };
  const later = eachFrame(draw);

  function drawFigures({ health, flows }: StreamState): void {
    const topic = monitorTopic(health);
    const lag = topic?.partitions.reduce((sum, { lag }) => sum + lag, 0);
    const rate = flows.some(({ partition }) => partition !== null) ? sum(flows.filter(({ partition }) => partition !== null).map(({ rate }) => rate)) : sum(flows.map(({ rate }) => rate));
    const letters = topic?.dead_letters_max;
    const members = health.members.length;
    const isWarned = letters != null && letters > 0;
    lagging.say(lag === undefined ? "–" : format.short(lag), lag === undefined ? "Kafka has not said yet" : "records not processed yet");
    rated.say(`${format.short(rate)}/s`, "records, over the last minute");
    dead.say(isWarned ? `≤ ${format.short(letters)}` : "0", letters == null ? "their topic is not there" : "by offsets, transaction markers included", isWarned);
    instances.say(String(new Set(health.members.map((member) => member.replace(/-StreamThread-\d+$/, ""))).size), `${members} member${members === 1 ? "" : "s"} of the group`, members === 0);
  }

  function monitorTopic(health: StreamState["health"]): StreamState["health"]["topics"][string] | undefined {
    const topic = model.monitor?.settings?.topic;
    return topic === undefined ? undefined : health.topics[topic];
  }

  function drawPartitions({ health, flows }: StreamState): void {
    const settings = model.monitor?.settings;
    const topic = monitorTopic(health);
    const numbers = new Set<number | null>([...flows.map(({ partition }) => partition), ...(topic?.partitions.map(({ partition }) => partition) ?? [])]);
    if (numbers.size === 0) return put(partitions, h("p", { class: "muted" }, "Nothing is known of any partition yet."));
    const now = Date.now() + model.clock;
    table.draw(
      [...numbers]
        .sort((a, b) => (a ?? -1) - (b ?? -1))
        .map((number) => {
          const flow = flows.find(({ partition }) => partition === number);
          const offsets = topic?.partitions.find(({ partition }) => partition === number);
          const size = settings?.window.kind === "count" && flow ? settings.window.size * flow.windows : null;
          return {
            name: number === null ? "whole topic" : String(number),
            lag: offsets ? format.count(offsets.lag) : "–",
            rate: flow ? `${format.short(flow.rate)}/s` : "–",
            records: flow ? format.count(flow.records) : "–",
            full: size && flow ? Math.min(1, flow.window_count / size) : null,
            fill: flow ? `${format.count(flow.window_count)}${size ? ` of ${format.count(size)}` : ""} records` : "–",
            checked: flow ? format.ago(now - flow.written_ms) : "–",
            committed: offsets?.committed == null ? "–" : String(offsets.committed),
            end: offsets ? String(offsets.end) : "–",
          };
        }),
    );
    if (partitions.firstChild !== table.element) put(partitions, table.element);
  }

  function drawSources({ sources: all, history }: StreamState): void {
    const rows: [string, string][] = [
      ...all.map((source): [string, string] => [
        source.topic,
        `${format.count(source.records)} records${source.skipped > 0 ? `, ${format.count(source.skipped)} of them no events` : ""}; ${source.problem ?? (source.is_caught_up ? "up to date" : "reading")}`,
      ]),
      ["held here", `${format.count(history.points)} checks of ${format.count(history.series)} series; room for ${format.count(history.points_max)}, and ${format.count(history.series_points_max)} of a series`],
    ];
    if (history.dropped_points > 0) rows.push(["left", `${format.count(history.dropped_points)} of the oldest checks, for want of room`]);
    if (history.foreign > 0) rows.push(["left out", `${format.count(history.foreign)} events of other applications`]);
    put(sources, definitions(rows, "facts long"));
  }

  function drawSettings(): void {
    const monitor = model.monitor!;
    const { settings } = monitor;
    if (!settings) return put(about, h("p", { class: "muted" }, "The configuration of this dashboard does not have this monitor: start it with the one that the workers have (--config)."));
    const { window } = settings;
    const rows: [string, string][] = [
      ["topic", settings.topic],
      ["window", window.kind === "count" ? `${format.count(window.size)} records, checked each ${format.count(window.every)}` : `${format.duration(window.size)}, one each ${format.duration(window.every)}`],
      ["min_samples", format.count(settings.min_samples)],
      ["thresholds", `${settings.possible_drift} possible drift, ${settings.drift} drift${settings.decided_by === "psi" ? "" : `, of ${settings.decided_by}`}`],
      ["significance", settings.significance === 0 ? "off" : String(settings.significance)],
      ["epsilon", String(settings.epsilon)],
      ["summary", settings.summary_share === null ? "the mean PSI" : `drift from ${format.percent(settings.summary_share)} of the features on`],
    ];
    if (settings.segment_by.length > 0) rows.push(["segment_by", settings.segment_by.join(", ")]);
    rows.push(["reference", monitor.reference_version === null ? "none is known" : `${monitor.reference_version}, ${format.count(monitor.reference_rows ?? 0)} rows`]);
    put(about, definitions(rows));
  }

  draw();
  return {
    element,
    update(_update: Update) {
      later();
    },
    close() {},
  };
}

const sum = (values: number[]): number => values.reduce((sum, value) => sum + value, 0);

function definitions(rows: [string, string][], kind = "facts"): HTMLElement {
  return h("dl", { class: kind }, ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A number with its name above and what it is of below. */
class Figure {
  private readonly value = h("b", {});
  private readonly note = h("span", { class: "muted" });
  readonly element: HTMLElement;

  constructor(name: string) {
    this.element = h("div", { class: "figure" }, h("span", { class: "figure-name" }, name), this.value, this.note);
  }

  say(value: string, note: string, isWarned = false): void {
    say(this.value, value);
    say(this.note, note);
    set(this.element, "class", isWarned ? "figure warn" : "figure");
  }
}

/** A partition, in words. */
interface Line {
  name: string;
  lag: string;
  rate: string;
  records: string;
  /** Of a count window. */
  full: number | null;
  fill: string;
  checked: string;
  committed: string;
  end: string;
}

/** The table of partitions. Its cells stay: all of them change with each check. */
class Table {
  private readonly body = h("tbody", {});
  readonly element: HTMLElement;

  constructor() {
    const names = ["Partition", "Lag", "Rate", "Records", "Window fill", "Last check", "Committed", "End"];
    this.element = h(
      "div",
      { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table of partitions" },
      h("table", {}, h("thead", {}, h("tr", {}, ...names.map((name, at) => h("th", { scope: "col", class: at === 1 || at === 2 ? "number" : at === 3 || at > 5 ? "number wide-only" : null }, name)))), this.body),
    );
  }

  draw(lines: Line[]): void {
    const { rows } = this.body;
    while (rows.length > lines.length) rows[rows.length - 1]!.remove();
    while (rows.length < lines.length) {
      const kinds = ["number", "number", "number wide-only", null, null, "number wide-only", "number wide-only"];
      this.body.append(h("tr", {}, h("th", { scope: "row" }), ...kinds.map((kind, at) => h("td", { class: kind }, at === 3 && h("span", {}, h("i", { "aria-hidden": "true" }), h("span", {}))))));
    }
    lines.forEach((line, at) => {
      const cells = [...rows[at]!.cells];
      const fill = cells[4]!.firstElementChild!;
      const bar = fill.firstElementChild as HTMLElement;
      const isFilling = line.full !== null;
      set(fill, "class", isFilling ? "fill" : "");
      set(fill, "title", isFilling ? line.fill : "");
      bar.hidden = !isFilling;
      if (line.full !== null) set(bar, "style", `--part: ${line.full}`);
      say(fill.lastElementChild!, line.full === null ? line.fill : format.percent(line.full));
      const { name, lag, rate, records, checked, committed, end } = line;
      [name, lag, rate, records, null, checked, committed, end].forEach((text, at) => text !== null && say(cells[at]!, text));
    });
  }
}

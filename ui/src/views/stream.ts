// How the stream itself is: lag, rate, dead letters, how full windows are.

import type { StreamState, Update } from "../api";
import { h, put } from "../dom";
import * as format from "../format";
import type { Model, View } from "../model";
import { eachFrame } from "../dom";

export function stream(model: Model): View {
  const figures = h("div", { class: "figures" });
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
    const figure = (name: string, value: string, note: string, state = ""): HTMLElement => h("div", { class: `figure ${state}` }, h("span", { class: "figure-name" }, name), h("b", {}, value), h("span", { class: "muted" }, note));
    put(
      figures,
      figure("Lag", lag === undefined ? "–" : format.short(lag), lag === undefined ? "Kafka has not said yet" : "records not processed yet"),
      figure("Rate", `${format.short(rate)}/s`, "records, over the last minute"),
      figure(
        "Dead letters",
        letters == null ? "0" : letters === 0 ? "0" : `≤ ${format.short(letters)}`,
        letters == null ? "their topic is not there" : "by offsets, transaction markers included",
        letters != null && letters > 0 ? "warn" : "",
      ),
      figure("Instances", String(new Set(health.members.map((member) => member.replace(/-StreamThread-\d+$/, ""))).size), `${health.members.length} member${health.members.length === 1 ? "" : "s"} of the group`, health.members.length === 0 ? "warn" : ""),
    );
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
    const rows = [...numbers].sort((a, b) => (a ?? -1) - (b ?? -1)).map((number) => {
      const flow = flows.find(({ partition }) => partition === number);
      const offsets = topic?.partitions.find(({ partition }) => partition === number);
      const size = settings?.window.kind === "count" && flow ? settings.window.size * flow.windows : null;
      const full = size && flow ? Math.min(1, flow.window_count / size) : null;
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, number === null ? "whole topic" : String(number)),
        h("td", { class: "number" }, offsets ? format.count(offsets.lag) : "–"),
        h("td", { class: "number" }, flow ? `${format.short(flow.rate)}/s` : "–"),
        h("td", { class: "number wide-only" }, flow ? format.count(flow.records) : "–"),
        h(
          "td",
          {},
          full === null
            ? flow
              ? `${format.count(flow.window_count)} records`
              : "–"
            : h("span", { class: "fill", title: `${format.count(flow!.window_count)} of ${format.count(size!)} records` }, h("i", { style: `--part: ${full}`, "aria-hidden": "true" }), format.percent(full)),
        ),
        h("td", {}, flow ? format.ago(now - flow.written_ms) : "–"),
        h("td", { class: "number wide-only" }, offsets?.committed == null ? "–" : String(offsets.committed)),
        h("td", { class: "number wide-only" }, offsets ? String(offsets.end) : "–"),
      );
    });
    const names = ["Partition", "Lag", "Rate", "Records", "Window fill", "Last check", "Committed", "End"];
    put(
      partitions,
      h(
        "div",
        { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table of partitions" },
        h("table", {}, h("thead", {}, h("tr", {}, ...names.map((name, at) => h("th", { scope: "col", class: at === 1 || at === 2 ? "number" : at === 3 || at > 5 ? "number wide-only" : null }, name)))), h("tbody", {}, ...rows)),
      ),
    );
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

// One feature: PSI over time, a window beside its reference, partitions or segments side by side, its incidents.

import { type Incidents, Refused, type Series, type SeriesAnswer, type Update, type WindowAnswer, type WindowId, get, path, url } from "../api";
import { h, put, save, say } from "../dom";
import * as format from "../format";
import type { Model, View } from "../model";
import { RANGES, to } from "../route";
import { putChip, sameSeries, whose } from "../status";
import { Chart } from "./chart";
import { incidentList } from "./incidents";
import { Multiples } from "./multiples";
import { selectors } from "./selectors";
import { WindowPanel } from "./window";

/** What events call the summary of a check. */
const SUMMARY = "*";
/** Other lines behind the one in front; more would be a cloud. */
const BEHIND = 15;
const SERIES = 60;
/** How often everything is read again, so that the thinned lines behind go on too. */
const REREAD_MS = 15_000;

export function feature(model: Model): View {
  return new Feature(model);
}

class Feature implements View {
  readonly element: HTMLElement;
  private readonly name: string;
  private readonly status = h("span", {});
  private readonly psi = h("b", {});
  private readonly p = h("span", { class: "muted" });
  private readonly missing = h("span", { class: "muted" });
  private readonly head = h("div", { class: "feature-status" }, this.status, this.psi, this.p, this.missing);
  private readonly where = h("p", { class: "muted" });
  private readonly bar;
  private readonly chart: Chart;
  private readonly window: WindowPanel;
  private readonly multiples: Multiples;
  private readonly incidents = h("div", {});
  private readonly metrics = h("div", { class: "tools" });
  private readonly error = h("p", { class: "muted" });
  private readonly body: HTMLElement;
  private answer: SeriesAnswer | null = null;
  private front: Series | null = null;
  private metric = "psi";
  private measures = "";
  private text = "";
  private asked: AbortController | null = null;
  private windowAsked: AbortController | null = null;
  private windowKey = "";
  private readAt = 0;
  private selection = "";
  private incidentsAt = -1;

  constructor(private readonly model: Model) {
    this.name = model.route.feature!;
    this.bar = selectors(model);
    this.chart = new Chart(
      (at) => this.choose(at),
      (by) => this.move(by),
    );
    this.window = new WindowPanel(
      this.name,
      (by) => this.move(by),
      () => this.model.go({ at: null }, true),
    );
    this.multiples = new Multiples(
      (model.monitor?.segments ?? 0) > 0,
      (series) => this.model.go({ of: { scope: series.scope, partition: series.partition, segment: series.segment }, at: null }, true),
      (text) => {
        this.text = text;
        void this.read();
      },
    );
    this.body = h(
      "div",
      { class: "stack" },
      h(
        "section",
        { class: "panel", "aria-labelledby": "chart-title" },
        h("div", { class: "panel-head" }, h("h2", { id: "chart-title" }, "PSI over time"), h("div", { class: "tools" }, this.metrics, h("button", { type: "button", class: "button", click: () => this.export() }, "CSV"))),
        this.chart.element,
      ),
      this.window.element,
      this.multiples.element,
      h("section", { class: "panel", "aria-labelledby": "feature-incidents" }, h("div", { class: "panel-head" }, h("h2", { id: "feature-incidents" }, "Incidents")), this.incidents),
    );
    const back = h("a", { class: "back", href: "#" }, "← All features");
    back.addEventListener("focus", () => (back.href = this.back()));
    back.addEventListener("pointerenter", () => (back.href = this.back()));
    back.href = this.back();
    this.element = h("div", { class: "stack" }, h("div", { class: "feature-head" }, back, h("h1", {}, this.name === SUMMARY ? "All features" : this.name), this.head, this.where), this.bar.element, this.error, this.body);
    if (this.name === SUMMARY) {
      say(this.where, "The summary of each check: the mean PSI of its features.");
      // It has no bins of its own.
      this.window.element.hidden = true;
    }
    this.drawHead();
    void this.read();
  }

  private back(): string {
    return to(this.model.route, { page: "overview", feature: null, at: null, of: null });
  }

  close(): void {
    this.asked?.abort();
    this.windowAsked?.abort();
    this.chart.close();
    this.window.close();
  }

  moved(): void {
    this.bar.update();
    const { scope, partition, segment, of, range } = this.model.route;
    const selection = JSON.stringify([scope, partition, segment, of, range]);
    if (selection !== this.selection) void this.read();
    else this.look();
  }

  update(update: Update, changed: Set<string>): void {
    this.bar.update();
    if (changed.has(this.name) || update.reset) this.drawHead();
    if (update.incidents !== this.incidentsAt) {
      this.incidentsAt = update.incidents;
      void this.readIncidents();
    }
    if (update.reset || update.points === null || performance.now() - this.readAt > REREAD_MS) {
      void this.read();
      return;
    }
    const { front, answer } = this;
    if (!front || !answer) return;
    let newest: WindowId | null = null;
    update.points.feature.forEach((feature, at) => {
      if (feature !== this.name) return;
      const points = update.points!;
      const of = { scope: points.scope[at]!, partition: points.partition[at]!, segment: points.segment[at]! };
      // The front has details that a point lacks: it is read again.
      if (sameSeries(front, of)) newest = { record_count: points.record_count[at]!, time_ms: points.time_ms[at]! };
      const series = answer.series.find((series) => series !== front && sameSeries(series, of));
      if (!series) return;
      series.time_ms.push(points.time_ms[at]!);
      series.psi.push(points.psi[at]!);
      series.status.push(points.status[at]!);
      series.record_count.push(points.record_count[at]!);
    });
    if (newest !== null) void this.readFront(newest);
  }

  private drawHead(): void {
    const row = this.model.rows.get(this.name);
    if (!row) return;
    putChip(this.status, row.status);
    say(this.psi, `PSI ${format.psi(row.psi)}`);
    say(this.p, `p ${format.probability(row.p_value)}`);
    say(this.missing, `${format.percent(row.missing)} missing`);
    say(this.where, row.series > 1 ? `Worst in ${whose(row)}; it drifts in ${row.drifting} of ${row.series}.` : `In ${whose(row)}.`);
  }

  private address(query: Record<string, string | number | null>): string {
    return url(`monitors/${path(this.model.monitor!.name)}/features/${path(this.name)}/series`, query);
  }

  private windowAddress({ scope, partition, segment }: Series, id: WindowId): string {
    return url(`monitors/${path(this.model.monitor!.name)}/features/${path(this.name)}/window`, { scope, partition, segment, ...id });
  }

  private async read(): Promise<void> {
    const { monitor, route } = this.model;
    if (!monitor) return;
    const { scope, partition, segment, of, range } = route;
    this.selection = JSON.stringify([scope, partition, segment, of, range]);
    this.readAt = performance.now();
    this.asked?.abort();
    this.asked = new AbortController();
    try {
      const answer = await get<SeriesAnswer>(this.address({ scope, partition, segment, limit: SERIES, full: of ? 0 : 1, q: this.text }), this.asked.signal);
      if (of) {
        const own = await get<SeriesAnswer>(this.address({ ...of, full: 1, limit: 1 }), this.asked.signal);
        const front = own.series[0];
        if (front) answer.series = [front, ...answer.series.filter((series) => !sameSeries(series, front))];
      }
      this.answer = answer;
    } catch (error) {
      if (error instanceof Refused) {
        say(this.error, error.message);
        this.body.hidden = true;
      }
      return;
    }
    say(this.error, "");
    this.body.hidden = false;
    this.setFront(this.answer.series[0] ?? null);
    this.look();
  }

  /** The front and, where the reader follows, its newest window: both at once, so that they are drawn in one frame. */
  private async readFront(newest: WindowId): Promise<void> {
    const { front, answer, model } = this;
    if (!front || !answer) return;
    const { scope, partition, segment } = front;
    const [own, window] = await Promise.all([
      get<SeriesAnswer>(this.address({ scope, partition, segment, full: 1, limit: 1 })).catch(() => null),
      model.route.at === null ? get<WindowAnswer>(this.windowAddress(front, newest)).catch(() => null) : null,
    ]);
    const found = own?.series[0];
    if (!found || this.front !== front) return;
    answer.series = answer.series.map((series) => (series === front ? found : series));
    this.setFront(found);
    const last = found.time_ms.length - 1;
    if (window && model.route.at === null && found.time_ms[last] === newest.time_ms && found.record_count[last] === newest.record_count) {
      this.windowAsked?.abort();
      this.windowKey = windowKey(newest, found, true, true);
      this.window.show(window, true);
    }
    // Else what is looked at has to be read, or is shown already.
    this.look();
  }

  private setFront(front: Series | null): void {
    const { answer } = this;
    this.front = front;
    if (!front || !answer) return;
    const measures = front.details?.measures.filter(({ metric }) => metric !== "chi2").map(({ metric }) => metric) ?? [];
    if (!measures.includes(this.metric)) this.metric = "psi";
    if (measures.join() !== this.measures) {
      this.measures = measures.join();
      put(
        this.metrics,
        measures.length > 0 && h(
          "select",
          {
            "aria-label": "Measure",
            change: (event: Event) => {
              this.metric = (event.target as HTMLSelectElement).value;
              this.drawChart();
            },
          },
          ...["psi", ...measures].map((metric) => h("option", { value: metric, selected: metric === this.metric }, metric === "psi" ? "PSI" : metric.toUpperCase())),
        ),
      );
    }
    this.drawChart();
    // In the order in which they stood, so that cards do not jump.
    const order = (series: Series): string => `${series.segment ?? ""}\u0000${series.scope}\u0000${String(series.partition ?? -1).padStart(9, "0")}`;
    const hasSegments = answer.series.some(({ segment }) => segment !== null);
    const cards = hasSegments ? answer.series : [...answer.series].sort((a, b) => (order(a) < order(b) ? -1 : 1));
    this.multiples.element.hidden = answer.count < 2;
    this.multiples.show(cards.map((series) => this.within(series)), answer.count, front, answer.thresholds);
  }

  private drawChart(): void {
    const { front, answer } = this;
    if (!front || !answer) return;
    this.chart.show({
      front: this.within(front),
      behind: this.metric === "psi" ? answer.series.filter((series) => series !== front).slice(0, BEHIND).map((series) => this.within(series)) : [],
      thresholds: answer.thresholds,
      metric: this.metric,
      decides: (answer.decided_by ?? "psi") === this.metric,
    });
  }

  /** The part of a series that the range asks for. */
  private within(series: Series): Series {
    const { range } = this.model.route;
    const last = this.model.monitor?.time_ms;
    if (range === null || last == null) return series;
    const from = last - RANGES[range]!;
    const first = series.time_ms.findIndex((ms) => ms >= from);
    if (first <= 0) return series;
    const cut = <T>(column: T[]): T[] => column.slice(first);
    const { details } = series;
    return {
      ...series,
      time_ms: cut(series.time_ms),
      psi: cut(series.psi),
      status: cut(series.status),
      record_count: cut(series.record_count),
      ...(details && {
        details: {
          window_count: cut(details.window_count),
          p_value: cut(details.p_value),
          null_mean: cut(details.null_mean),
          noise_floor: cut(details.noise_floor),
          missing: cut(details.missing),
          version: cut(details.version),
          measures: details.measures.map(({ metric, values }) => ({ metric, values: cut(values) })),
        },
      }),
    };
  }

  /** The window that the address says; without one, the latest. */
  private place(): number {
    const { front, model } = this;
    if (!front) return -1;
    const { at } = model.route;
    if (!at) return front.time_ms.length - 1;
    const exact = front.time_ms.findIndex((ms, place) => ms === at.time_ms && front.record_count[place] === at.record_count);
    if (exact >= 0) return exact;
    // A time without a window, as from the heat map: the last one before it.
    let before = -1;
    if (at.record_count === 0) front.time_ms.forEach((ms, place) => (before = ms <= at.time_ms ? place : before));
    return before;
  }

  private look(): void {
    const { front } = this;
    if (!front) return;
    const place = this.place();
    if (place < 0) {
      this.windowKey = "";
      this.chart.select(null);
      this.window.missing("This window is not held any more, or is of another partition or segment.");
      return;
    }
    const id = { record_count: front.record_count[place]!, time_ms: front.time_ms[place]! };
    this.chart.select(id);
    const isLatest = this.model.route.at === null;
    const key = windowKey(id, front, isLatest, place === front.time_ms.length - 1);
    if (key === this.windowKey) return;
    this.windowKey = key;
    void this.readWindow(id, isLatest);
  }

  private async readWindow(id: WindowId, isLatest: boolean): Promise<void> {
    const { front, model } = this;
    if (!front || !model.monitor) return;
    this.windowAsked?.abort();
    this.windowAsked = new AbortController();
    try {
      this.window.show(await get<WindowAnswer>(this.windowAddress(front, id), this.windowAsked.signal), isLatest);
    } catch (error) {
      if (error instanceof Refused) this.window.missing(error.message);
    }
  }

  private choose(at: WindowId): void {
    this.model.go({ at, of: this.front && { scope: this.front.scope, partition: this.front.partition, segment: this.front.segment } }, true);
  }

  private move(by: number): void {
    const { front } = this;
    const place = this.place() + by;
    if (!front || place < 0 || place >= front.time_ms.length) return;
    this.choose({ record_count: front.record_count[place]!, time_ms: front.time_ms[place]! });
  }

  private async readIncidents(): Promise<void> {
    const { monitor } = this.model;
    if (!monitor) return;
    const found = await get<Incidents>(url(`monitors/${path(monitor.name)}/incidents`, { feature: this.name, limit: 100 })).catch(() => null);
    if (found) put(this.incidents, incidentList(this.model, found.incidents, 20, this.name));
  }

  private export(): void {
    if (this.front) save(`leeway-${this.name}.csv`, "text/csv", table(this.front));
  }
}

/** What makes the window that is shown another one. */
const windowKey = (id: WindowId, { scope, partition, segment }: Series, isLatest: boolean, isLast: boolean): string => JSON.stringify([id, scope, partition, segment, isLatest, isLast]);

/** A series as CSV. */
function table(front: Series): string {
  const { details } = front;
  const header = ["time", "psi", "status", "record_count", "window_count", "p_value", "psi_null_mean", "noise_floor", "missing_share", "reference_version"];
  const rows = front.time_ms.map((ms, at) => [
    new Date(ms).toISOString(),
    front.psi[at],
    front.status[at],
    front.record_count[at],
    details?.window_count[at],
    details?.p_value[at],
    details?.null_mean[at],
    details?.noise_floor[at],
    details?.missing[at],
    details?.version[at],
  ]);
  return format.csv(header, rows);
}

// PSI of one series over time, with thresholds and what chance alone does; other series faint behind it.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Series, WindowId } from "../api";
import { css, firstChart, h, put, say } from "../dom";
import * as format from "../format";
import { draw as drawShape, whose } from "../status";
import { onChange } from "../theme";

const HEIGHT = 300;
/** Nearer to each other, marks would be a band. */
const MARK_SPACING = 9;

export interface Chosen {
  front: Series;
  behind: Series[];
  thresholds: [number, number] | null;
  /** Another measure than PSI. */
  metric: string;
  /** Whether the thresholds are of this measure. */
  decides: boolean;
}

type Column = (number | null)[];

export class Chart {
  readonly element: HTMLElement;
  private readonly holder = h("div", { class: "chart-holder", tabindex: "0", role: "group", "aria-label": "PSI over time. Left and right go from window to window." });
  private readonly readout = h("p", { class: "readout", "aria-live": "off" });
  private readonly legend = h("div", { class: "legend" });
  private plot: uPlot | null = null;
  private chosen: Chosen | null = null;
  private at: WindowId | null = null;
  private key = "";
  private readonly observer = new ResizeObserver(() => this.plot?.setSize({ width: Math.max(240, this.holder.clientWidth), height: HEIGHT }));
  private readonly unlisten = onChange(() => this.build());

  constructor(
    private readonly pick: (at: WindowId) => void,
    private readonly move: (by: number) => void,
  ) {
    this.element = h("div", { class: "chart" }, this.legend, this.holder, this.readout);
    this.observer.observe(this.holder);
    this.holder.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      this.move(event.key === "ArrowLeft" ? -1 : 1);
    });
  }

  close(): void {
    this.observer.disconnect();
    this.unlisten();
    this.plot?.destroy();
  }

  show(chosen: Chosen): void {
    const key = JSON.stringify([chosen.behind.length, whose(chosen.front), chosen.metric, chosen.thresholds, chosen.decides]);
    this.chosen = chosen;
    if (!this.plot || key !== this.key) {
      this.key = key;
      this.build();
    } else this.plot.setData(this.data(chosen), this.isWhole());
  }

  select(at: WindowId | null): void {
    this.at = at;
    this.plot?.redraw(false, false);
  }

  /** Nobody has zoomed in. */
  private isWhole(): boolean {
    const scale = this.plot?.scales["x"];
    const x = this.plot?.data[0];
    if (!scale || !x || x.length === 0 || scale.min == null || scale.max == null) return true;
    return scale.min <= x[0]! && scale.max >= x[x.length - 1]!;
  }

  private values(series: Series): Column {
    const { chosen } = this;
    if (!chosen || chosen.metric === "psi") return series.psi;
    return series.details?.measures.find(({ metric }) => metric === chosen.metric)?.values ?? [];
  }

  private data({ front, behind, metric }: Chosen): uPlot.AlignedData {
    const seconds = (series: Series): number[] => series.time_ms.map((ms) => ms / 1000);
    // Equal times are drawn once: the last of them stands.
    const [x, columns] = ascending(seconds(front), [
      metric === "psi" ? (front.details?.noise_floor ?? front.psi.map(() => null)) : front.psi.map(() => null),
      this.values(front),
    ]);
    const tables: uPlot.AlignedData[] = [[x, ...columns] as uPlot.AlignedData];
    for (const series of behind) {
      const [times, values] = ascending(seconds(series), [series.psi]);
      tables.push([times, ...values] as uPlot.AlignedData);
    }
    return tables.length === 1 ? tables[0]! : uPlot.join(tables);
  }

  private build(): void {
    const { chosen } = this;
    if (!chosen) return;
    this.plot?.destroy();
    const muted = css("--muted");
    const line = css("--line");
    const accent = css("--accent");
    const font = `11px ${css("--font")}`;
    const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
    const options: uPlot.Options = {
      width: Math.max(240, this.holder.clientWidth || 600),
      height: HEIGHT,
      padding: [10, 12, 0, 0],
      cursor: { y: false, drag: { x: true, y: false }, points: { show: false } },
      legend: { show: false },
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, this.top(max ?? 0)] } },
      axes: [
        {
          ...axis,
          space: 70,
          values: [
            [86400, "{DD} {MMM}", null, null, null, null, null, null, 1],
            [3600, "{HH}:{mm}", "\n{DD} {MMM}", null, "\n{DD} {MMM}", null, null, null, 1],
            [60, "{HH}:{mm}", "\n{DD} {MMM}", null, "\n{DD} {MMM}", null, null, null, 1],
            [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
            [0.001, "{HH}:{mm}:{ss}.{fff}", null, null, null, null, null, null, 1],
          ],
        },
        { ...axis, size: 52, values: (_, values) => values.map((value) => String(Number(value.toPrecision(4)))) },
      ],
      series: [
        {},
        { stroke: css("--noise-edge"), width: 1, dash: [2, 3], fill: css("--noise"), spanGaps: true, points: { show: false } },
        { stroke: accent, width: 2, spanGaps: true, points: { show: false } },
        ...chosen.behind.map(() => ({ stroke: css("--behind"), width: 1, spanGaps: true, points: { show: false } })),
      ],
      hooks: { draw: [(plot) => this.marks(plot)], drawAxes: [(plot) => this.lines(plot)], setCursor: [(plot) => this.hover(plot)] },
    };
    put(this.holder);
    this.plot = new uPlot(options, this.data(chosen), this.holder);
    this.plot.over.addEventListener("click", () => this.click());
    this.words(chosen);
    firstChart();
  }

  /** Room above the largest value, and at least the first threshold in sight. */
  private top(max: number): number {
    const { chosen } = this;
    const limit = chosen?.thresholds && chosen.decides ? chosen.thresholds[1] : 0;
    return Math.max(max, limit) * 1.12 || 1;
  }

  private words({ front, behind, thresholds, metric, decides }: Chosen): void {
    const key = (kind: string, text: string): HTMLElement => h("span", { class: "key" }, h("i", { class: `swatch ${kind}`, "aria-hidden": "true" }), text);
    put(
      this.legend,
      key("front", whose(front)),
      behind.length > 0 && key("behind", `${behind.length} other${behind.length === 1 ? "" : "s"}, PSI`),
      metric === "psi" && key("noise", "chance alone, 99 of 100 checks"),
      thresholds !== null && decides && key("limit", `thresholds ${thresholds[0]} and ${thresholds[1]}`),
    );
    say(this.readout, "Point at the line for figures, click for that window, drag to zoom, double-click to see all.");
  }

  /** Thresholds, behind the lines. */
  private lines(plot: uPlot): void {
    const { chosen } = this;
    if (!chosen?.thresholds || !chosen.decides) return;
    const context = plot.ctx;
    const ratio = devicePixelRatio || 1;
    context.save();
    context.lineWidth = ratio;
    context.setLineDash([5 * ratio, 4 * ratio]);
    context.font = `${11 * ratio}px ${css("--font")}`;
    context.textBaseline = "bottom";
    context.textAlign = "right";
    chosen.thresholds.forEach((limit, at) => {
      const y = Math.round(plot.valToPos(limit, "y", true)) + 0.5;
      if (y < plot.bbox.top || y > plot.bbox.top + plot.bbox.height) return;
      context.strokeStyle = context.fillStyle = css(at === 0 ? "--possible-ink" : "--drift-ink");
      context.beginPath();
      context.moveTo(plot.bbox.left, y);
      context.lineTo(plot.bbox.left + plot.bbox.width, y);
      context.stroke();
      context.fillText(at === 0 ? "possible drift" : "drift", plot.bbox.left + plot.bbox.width - 4 * ratio, y - 2 * ratio);
    });
    context.restore();
  }

  /** The verdicts of the front series, and the window that is looked at. */
  private marks(plot: uPlot): void {
    const { chosen } = this;
    if (!chosen) return;
    const { front } = chosen;
    const values = this.values(front);
    const context = plot.ctx;
    const ratio = devicePixelRatio || 1;
    const { left, top, width, height } = plot.bbox;
    const colours = { no_drift: css("--accent"), possible_drift: css("--possible"), drift: css("--drift") };
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    let last = -Infinity;
    const isSparse = front.time_ms.length < 60;
    front.time_ms.forEach((ms, at) => {
      const value = values[at];
      const status = front.status[at]!;
      if (value == null || (status === "no_drift" && !isSparse)) return;
      const x = plot.valToPos(ms / 1000, "x", true);
      if (x < left - 9 || x > left + width + 9 || x - last < MARK_SPACING * ratio) return;
      last = x;
      context.fillStyle = colours[status];
      drawShape(context, status, x, plot.valToPos(value, "y", true), (status === "no_drift" ? 2.5 : 3.5) * ratio);
    });
    context.restore();
    const at = this.at && front.time_ms.findIndex((ms, at) => ms === this.at?.time_ms && front.record_count[at] === this.at.record_count);
    if (at != null && at >= 0) {
      const x = plot.valToPos(front.time_ms[at]! / 1000, "x", true);
      const y = plot.valToPos(values[at] ?? 0, "y", true);
      if (x < left - 1 || x > left + width + 1) return;
      context.save();
      context.strokeStyle = css("--ink");
      context.lineWidth = 1.5 * ratio;
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, top + height);
      context.stroke();
      context.beginPath();
      context.arc(x, y, 6.5 * ratio, 0, 2 * Math.PI);
      context.stroke();
      context.restore();
    }
  }

  /** The check of the front series that is nearest to the pointer. */
  private nearest(): number | null {
    const { plot, chosen } = this;
    if (!plot || !chosen || plot.cursor.left == null || plot.cursor.left < 0) return null;
    const wanted = plot.posToVal(plot.cursor.left, "x") * 1000;
    let best: number | null = null;
    chosen.front.time_ms.forEach((ms, at) => {
      if (best === null || Math.abs(ms - wanted) <= Math.abs(chosen.front.time_ms[best]! - wanted)) best = at;
    });
    return best;
  }

  private hover(plot: uPlot): void {
    const at = this.nearest();
    const { chosen } = this;
    plot.over.style.cursor = at === null ? "" : "pointer";
    if (at === null || !chosen) return;
    const { front } = chosen;
    const details = front.details;
    const parts = [
      format.time(front.time_ms[at]!),
      `PSI ${format.psi(front.psi[at])}`,
      details && `p ${format.probability(details.p_value[at])}`,
      details?.noise_floor[at] != null && `chance up to ${format.psi(details.noise_floor[at])}`,
      details && `window of ${format.count(details.window_count[at]!)}`,
      `record ${format.count(front.record_count[at]!)}`,
    ];
    say(this.readout, parts.filter(Boolean).join(" · "));
  }

  private click(): void {
    const at = this.nearest();
    if (at === null || !this.chosen || (this.plot?.select.width ?? 0) > 3) return;
    const { front } = this.chosen;
    this.pick({ record_count: front.record_count[at]!, time_ms: front.time_ms[at]! });
  }
}

/** Columns in the order of time; of equal times the last. */
function ascending(x: number[], columns: Column[]): [number[], Column[]] {
  let isAscending = true;
  for (let at = 1; at < x.length && isAscending; at++) isAscending = x[at]! > x[at - 1]!;
  if (isAscending) return [x, columns];
  const order = x.map((_, at) => at).sort((a, b) => x[a]! - x[b]! || a - b);
  const kept = order.filter((at, place) => x[at] !== x[order[place + 1] ?? -1]);
  return [kept.map((at) => x[at]!), columns.map((column) => kept.map((at) => column[at] ?? null))];
}

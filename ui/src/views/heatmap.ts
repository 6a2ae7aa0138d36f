// Features by time: the worst check of each stretch, worst feature first. Drawn on one canvas, as many rows as are seen.

import { type HeatMap, type Status, type Update, get, path, url } from "../api";
import { css, eachFrame, firstChart, h, put, say, set } from "../dom";
import * as format from "../format";
import { type Model, thresholds } from "../model";
import { RANGES, to } from "../route";
import { RANK, STATUSES, WORDS, draw as drawShape, severity } from "../status";
import { onChange } from "../theme";

/** Lengths of a stretch that people count in. */
const STEPS = [
  100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000,
  43_200_000, 86_400_000, 604_800_000,
];

const LABEL = { wide: 168, narrow: 92 };
const AXIS = 22;
const CELL_WIDTH = 11;
const REFETCH_MS = 5000;

export class HeatMapPanel {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", { class: "heat-canvas" });
  private readonly spacer = h("div", { class: "heat-spacer" }, this.canvas);
  private readonly scroller = h("div", {
    class: "heat-scroll",
    tabindex: "0",
    role: "application",
    "aria-label": "Heat map of features by time. Arrow keys move, Enter opens the feature.",
    "aria-describedby": "heat-readout",
  });
  private readonly readout = h("p", { class: "readout", id: "heat-readout", "aria-live": "polite" });
  private readonly tip = h("div", { class: "tip", hidden: true });
  private readonly legend = h("div", { class: "legend" });
  private map: HeatMap | null = null;
  private order: number[] = [];
  private index = new Map<string, number>();
  private step = 1000;
  private cell: { row: number; column: number } | null = null;
  private fetchedAt = 0;
  private asked: AbortController | null = null;
  private readonly redraw = eachFrame(() => this.paint());
  private readonly observer = new ResizeObserver(() => this.sized());
  /** What is not seen is not drawn. Until the browser says so, it is taken as seen. */
  private readonly watcher = new IntersectionObserver(([entry]) => {
    this.isSeen = entry!.isIntersecting;
    if (this.isSeen && this.isStale) this.redraw();
  });
  private isSeen = true;
  private isStale = false;
  private readonly unlisten = onChange(() => {
    this.drawn.frame = "";
    this.redraw();
  });
  private width = 0;
  /** What the canvas shows: where everything is, and of each row on it what it says. If these hold, only cells that changed are drawn. */
  private readonly drawn = { frame: "", rows: new Map<number, string>() };
  /** Cells that changed since, by rows of the map. */
  private readonly changed = new Map<number, Set<number>>();

  constructor(private readonly model: Model) {
    this.scroller.append(this.spacer);
    this.element = h(
      "section",
      { class: "panel heat", "aria-labelledby": "heat-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "heat-title" }, "Features by time"), this.legend),
      h("div", { class: "heat-frame" }, this.scroller, this.tip),
      this.readout,
    );
    say(this.readout, "Worst feature first. Point at a cell, or use the arrow keys.");
    this.scroller.addEventListener("scroll", this.redraw);
    this.scroller.addEventListener("pointermove", (event) => this.hover(event));
    this.scroller.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.scroller.addEventListener("click", (event) => this.open(this.hit(event)));
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("focus", this.redraw);
    this.scroller.addEventListener("blur", this.redraw);
    this.observer.observe(this.scroller);
    this.watcher.observe(this.scroller);
    this.drawLegend();
  }

  close(): void {
    this.observer.disconnect();
    this.watcher.disconnect();
    this.unlisten();
    this.asked?.abort();
  }

  moved(): void {
    void this.load();
  }

  update(update: Update): void {
    if (update.reset || update.points === null) {
      void this.load();
      return;
    }
    const { map } = this;
    if (!map) return;
    const { points } = update;
    for (let at = 0; at < points.psi.length; at++) {
      if (points.feature[at] === "*") continue;
      const time = points.time_ms[at]!;
      if (time >= map.to_ms) this.grow(map, time);
      const row = this.index.get(points.feature[at]!);
      if (row === undefined) {
        // A feature that was not there: read anew, not too often.
        this.later();
        continue;
      }
      const column = Math.floor((time - map.from_ms) / this.step);
      if (column < 0 || column >= map.columns) continue;
      const [psi, status] = [map.psi[row]!, map.status[row]!];
      const [value, rank] = [points.psi[at]!, RANK[points.status[at]!]];
      if (value <= (psi[column] ?? -1) && rank <= status[column]!) continue;
      psi[column] = Math.max(psi[column] ?? 0, value);
      status[column] = Math.max(status[column]!, rank);
      const cells = this.changed.get(row);
      if (cells) cells.add(column);
      else this.changed.set(row, new Set([column]));
    }
    this.sort();
    this.redraw();
  }

  private later(): void {
    if (performance.now() - this.fetchedAt > REFETCH_MS) void this.load();
  }

  /** Columns up to this time; where all is shown, stretches become longer instead when there is no room. */
  private grow(map: HeatMap, time: number): void {
    const more = Math.floor((time - map.to_ms) / this.step) + 1;
    if (more > map.columns) return this.later();
    const room = this.columnsMax();
    map.to_ms += more * this.step;
    for (let row = 0; row < map.feature.length; row++) {
      for (let n = 0; n < more; n++) {
        map.psi[row]!.push(null);
        map.status[row]!.push(0);
      }
    }
    map.columns += more;
    const span = this.model.route.range === null ? Infinity : RANGES[this.model.route.range]!;
    const over = span === Infinity ? 0 : Math.max(0, Math.floor((map.to_ms - map.from_ms - span) / this.step));
    if (over > 0) {
      map.from_ms += over * this.step;
      map.columns -= over;
      map.psi.forEach((row) => row.splice(0, over));
      map.status.forEach((row) => row.splice(0, over));
      if (this.cell) this.cell.column = Math.max(0, this.cell.column - over);
    }
    if (map.columns > room * 1.5) this.later();
  }

  private columnsMax(): number {
    return Math.max(20, Math.floor((this.width - this.labelWidth()) / CELL_WIDTH));
  }

  private labelWidth(): number {
    return this.width < 560 ? LABEL.narrow : LABEL.wide;
  }

  private sized(): void {
    const width = this.scroller.clientWidth;
    if (width === this.width || width === 0) return;
    const isFirst = this.width === 0;
    const before = isFirst ? 0 : this.columnsMax();
    this.width = width;
    if (isFirst || Math.abs(this.columnsMax() - before) > 6) void this.load();
    else this.redraw();
  }

  private async load(): Promise<void> {
    const { model } = this;
    const { monitor, route } = model;
    if (!monitor || this.width === 0 || monitor.time_ms === null || monitor.from_ms === null) return;
    this.fetchedAt = performance.now();
    this.asked?.abort();
    this.asked = new AbortController();
    const span = route.range === null ? monitor.time_ms - monitor.from_ms : RANGES[route.range]!;
    const wanted = Math.max(span, 1) / this.columnsMax();
    this.step = STEPS.find((step) => step >= wanted) ?? Math.ceil(wanted / 604_800_000) * 604_800_000;
    const to_ms = (Math.floor(monitor.time_ms / this.step) + 1) * this.step;
    const first = route.range === null ? monitor.from_ms : monitor.time_ms - span;
    // A young stream has room for what comes, so that cells do not jump about.
    const from_ms = Math.min(Math.floor(first / this.step) * this.step, to_ms - 12 * this.step);
    const columns = Math.round((to_ms - from_ms) / this.step);
    const address = url(`monitors/${path(monitor.name)}/heatmap`, {
      scope: route.scope,
      partition: route.partition,
      segment: route.segment,
      columns,
      from_ms,
      to_ms,
    });
    try {
      this.map = await get<HeatMap>(address, this.asked.signal);
    } catch {
      // Aborted, or the server is away: the next message tries again.
      return;
    }
    this.index = new Map(this.map.feature.map((feature, row) => [feature, row]));
    this.cell = null;
    this.drawn.frame = "";
    this.sort();
    this.paint();
  }

  /** Worst of now first; those without drift by name, or noise would move them about. */
  private sort(): void {
    const { map, model } = this;
    if (!map) return;
    const key = (row: number): number => {
      const now = model.rows.get(map.feature[row]!);
      return now ? severity(now) : -1;
    };
    const keys = map.feature.map((_, row) => key(row));
    this.order = map.feature.map((_, row) => row).sort((a, b) => keys[b]! - keys[a]! || (map.feature[a]! < map.feature[b]! ? -1 : 1));
  }

  private rowHeight(): number {
    return this.order.length > 40 ? 16 : 22;
  }

  private cellWidth(): number {
    return (this.width - this.labelWidth()) / (this.map?.columns ?? 1);
  }

  private paint(): void {
    const { map, canvas, scroller, drawn } = this;
    if (!map || this.width === 0) return;
    this.isStale = !this.isSeen;
    if (this.isStale) return;
    const rowHeight = this.rowHeight();
    const total = this.order.length * rowHeight + AXIS;
    set(this.spacer, "style", `height: ${total}px`);
    const height = Math.min(scroller.clientHeight || total, total);
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(this.width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${height}px`;
      drawn.frame = "";
    }
    const context = canvas.getContext("2d");
    if (!context) return;
    const top = Math.round(scroller.scrollTop * ratio) / ratio;
    const limits = thresholds(this.model.monitor);
    const frame = [this.width, height, ratio, top, rowHeight, map.from_ms, map.columns, this.step, limits].join();
    const isWhole = frame !== drawn.frame;
    drawn.frame = frame;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (isWhole) {
      drawn.rows.clear();
      context.clearRect(0, 0, this.width, height);
      this.axis(context, this.labelWidth(), this.cellWidth(), height);
    }
    const ramp = new Ramp(limits);
    const first = Math.floor(top / rowHeight);
    const last = Math.min(this.order.length, Math.ceil((top + height - AXIS) / rowHeight));
    context.save();
    context.beginPath();
    context.rect(0, 0, this.width, height - AXIS);
    context.clip();
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let at = first; at < last; at++) {
      const row = this.order[at]!;
      const y = at * rowHeight - top;
      const chosen = this.cell?.row === at && document.activeElement === scroller ? this.cell.column : null;
      const status = this.model.rows.get(map.feature[row]!)?.status ?? null;
      const says = `${row} ${status} ${chosen}`;
      if (drawn.rows.get(at) === says && chosen === null) {
        this.cells(context, ramp, row, y, this.changed.get(row) ?? []);
        continue;
      }
      drawn.rows.set(at, says);
      this.label(context, ramp, map.feature[row]!, status, y, chosen !== null);
      this.cells(context, ramp, row, y, map.psi[row]!.keys());
      if (chosen !== null) {
        context.strokeStyle = css("--ink");
        context.lineWidth = 2;
        context.strokeRect(this.edge(chosen), y + 1, Math.max(this.edge(chosen + 1) - this.edge(chosen) - 1, 3), rowHeight - 2);
      }
    }
    context.restore();
    this.changed.clear();
    firstChart();
  }

  /** Where a column begins: on a whole pixel of the screen, so that a cell can be drawn anew without its neighbours. */
  private edge(column: number): number {
    const ratio = devicePixelRatio || 1;
    return Math.round((this.labelWidth() + column * this.cellWidth()) * ratio) / ratio;
  }

  private label(context: CanvasRenderingContext2D, ramp: Ramp, feature: string, status: Status | null, y: number, isHere: boolean): void {
    const rowHeight = this.rowHeight();
    const width = this.labelWidth();
    context.clearRect(0, y, width, rowHeight);
    if (status) {
      context.fillStyle = ramp.ink[status];
      drawShape(context, status, 6, y + rowHeight / 2, 3.5);
    }
    context.font = `${isHere ? 650 : 450} 12px ${css("--font")}`;
    context.fillStyle = css("--ink");
    context.fillText(fit(context, feature, width - 26), 16, y + rowHeight / 2 + 0.5);
  }

  private cells(context: CanvasRenderingContext2D, ramp: Ramp, row: number, y: number, columns: Iterable<number>): void {
    const map = this.map!;
    const [psi, status] = [map.psi[row]!, map.status[row]!];
    const rowHeight = this.rowHeight();
    const gap = this.cellWidth() > 4 ? 1 : 0;
    const hasShapes = this.cellWidth() >= 8;
    let colour = "";
    for (const column of columns) {
      const value = psi[column];
      const x = this.edge(column);
      const width = this.edge(column + 1) - x;
      context.clearRect(x, y, width, rowHeight);
      if (value == null) continue;
      const verdict = STATUSES[status[column]!]!;
      const next = ramp.colour(value, verdict);
      // Most cells have the colour of the one before, and to set it costs more than the cell.
      if (next !== colour) context.fillStyle = colour = next;
      context.fillRect(x, y + 1, width - gap, rowHeight - 2);
      if (verdict === "no_drift" || !hasShapes) continue;
      context.fillStyle = ramp.onCell;
      colour = "";
      drawShape(context, verdict, x + (width - gap) / 2, y + rowHeight / 2, 2.4);
    }
  }

  private axis(context: CanvasRenderingContext2D, label: number, cell: number, height: number): void {
    const { map } = this;
    if (!map) return;
    context.fillStyle = css("--muted");
    context.font = `400 11px ${css("--font")}`;
    context.textBaseline = "alphabetic";
    const each = Math.max(1, Math.ceil(110 / cell));
    for (let column = 0; column < map.columns; column += each) {
      const x = label + column * cell;
      if (x + 60 > this.width) break;
      context.textAlign = "left";
      context.fillText(format.time(map.from_ms + column * this.step), x, height - 6);
      context.fillRect(x, height - AXIS + 2, 1, 4);
    }
  }

  private drawLegend(): void {
    const limits = thresholds(this.model.monitor);
    put(
      this.legend,
      h("span", {}, "PSI"),
      h("span", { class: "ramp", "aria-hidden": "true" }),
      h("span", {}, limits ? `0 to ${limits[0]}` : "low"),
      h("span", { class: "key possible_drift" }, h("i", { "aria-hidden": "true" }, "◆"), "possible drift"),
      h("span", { class: "key drift" }, h("i", { "aria-hidden": "true" }, "▲"), "drift"),
    );
  }

  private hit(event: MouseEvent): { row: number; column: number } | null {
    const { map, scroller } = this;
    if (!map) return null;
    const box = scroller.getBoundingClientRect();
    const y = event.clientY - box.top;
    if (y > Math.min(scroller.clientHeight, this.order.length * this.rowHeight() + AXIS) - AXIS) return null;
    const row = Math.floor((y + scroller.scrollTop) / this.rowHeight());
    const column = Math.floor((event.clientX - box.left - this.labelWidth()) / this.cellWidth());
    return row >= 0 && row < this.order.length && column < map.columns ? { row, column } : null;
  }

  /** A cell in words. */
  private words(at: { row: number; column: number }): string {
    const { map } = this;
    const row = this.order[at.row];
    if (!map || row === undefined) return "";
    const feature = map.feature[row]!;
    if (at.column < 0) return `${feature}: ${WORDS[this.model.rows.get(feature)?.status ?? "no_drift"].toLowerCase()} now`;
    const from = map.from_ms + at.column * this.step;
    const value = map.psi[row]![at.column];
    const what = value == null ? "no check" : `PSI ${format.psi(value)}, ${WORDS[STATUSES[map.status[row]![at.column]!]!].toLowerCase()}`;
    return `${feature}, ${format.time(from)} to ${format.time(from + this.step)}: ${what}`;
  }

  private hover(event: PointerEvent): void {
    const at = this.hit(event);
    this.tip.hidden = !at || event.pointerType === "touch";
    this.scroller.style.cursor = at ? "pointer" : "";
    if (!at) return;
    say(this.tip, this.words(at));
    const frame = (this.tip.parentElement as HTMLElement).getBoundingClientRect();
    const x = event.clientX - frame.left;
    this.tip.style.left = `${Math.min(x + 14, frame.width - this.tip.offsetWidth - 4)}px`;
    this.tip.style.top = `${event.clientY - frame.top + 18}px`;
  }

  private open(at: { row: number; column: number } | null): void {
    const { map } = this;
    const row = at ? this.order[at.row] : undefined;
    if (!map || !at || row === undefined) return;
    const isCell = at.column >= 0 && map.psi[row]![at.column] != null;
    const to_ms = map.from_ms + (at.column + 1) * this.step;
    location.hash = to(this.model.route, {
      page: "feature",
      feature: map.feature[row]!,
      q: "",
      sort: null,
      // No window has this time: the last one before it is shown.
      at: isCell ? { record_count: 0, time_ms: to_ms - 1 } : null,
      of: null,
    });
  }

  private key(event: KeyboardEvent): void {
    const { map } = this;
    if (!map || this.order.length === 0) return;
    const last = { row: this.order.length - 1, column: map.columns - 1 };
    const at = this.cell ?? { row: 0, column: last.column };
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight()) - 1);
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      PageUp: [-page, 0],
      PageDown: [page, 0],
      Home: [0, -map.columns],
      End: [0, map.columns],
    };
    const move = moves[event.key];
    if (event.key === "Enter") return this.open(at);
    if (!move) return;
    event.preventDefault();
    this.cell = this.cell
      ? { row: Math.min(Math.max(at.row + move[0], 0), last.row), column: Math.min(Math.max(at.column + move[1], 0), last.column) }
      : at;
    const y = this.cell.row * this.rowHeight();
    if (y < this.scroller.scrollTop) this.scroller.scrollTop = y;
    const bottom = this.scroller.scrollTop + this.scroller.clientHeight - AXIS - this.rowHeight();
    if (y > bottom) this.scroller.scrollTop += y - bottom;
    say(this.readout, this.words(this.cell));
    this.redraw();
  }
}

/** Colours of cells: blue by PSI up to the first threshold; what a verdict says has a colour of its own, deeper with PSI. */
class Ramp {
  /** Steps between two colours: as many as an eye tells apart. */
  private static readonly STEPS = 24;
  readonly ink = { no_drift: css("--ok"), possible_drift: css("--possible"), drift: css("--drift") };
  readonly onCell = css("--on-cell");
  private readonly low = rgb(css("--cell-low"));
  private readonly high = rgb(css("--cell-high"));
  private readonly possible = css("--possible");
  private readonly drift: [number[], number[]] = [rgb(css("--drift")), rgb(css("--drift-deep"))];
  private readonly quiet: string[] = [];
  private readonly deep: string[] = [];
  private readonly limits: [number, number];

  constructor(limits: [number, number] | null) {
    this.limits = limits ?? [0.1, 0.25];
  }

  colour(psi: number, status: (typeof STATUSES)[number]): string {
    if (status === "possible_drift") return this.possible;
    if (status === "drift") return Ramp.step(this.deep, this.drift, Math.max(0, psi / this.limits[1] - 1) / 8);
    return Ramp.step(this.quiet, [this.low, this.high], psi / this.limits[0]);
  }

  private static step(known: string[], [from, to]: [number[], number[]], part: number): string {
    const step = Math.round(Math.min(1, part) * Ramp.STEPS);
    return (known[step] ??= mix(from, to, step / Ramp.STEPS));
  }
}

const rgb = (hex: string): number[] => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const mix = (a: number[], b: number[], t: number): string => `rgb(${a.map((part, at) => Math.round(part + (b[at]! - part) * t)).join(" ")})`;

/** A text cut to a width. */
function fit(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let end = Math.floor((text.length * width) / context.measureText(text).width);
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

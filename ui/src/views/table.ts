// The table of features: searched, sorted, exported.

import { h, put, s, save, say, set } from "../dom";
import * as format from "../format";
import { type Model, type Row, thresholds } from "../model";
import { to } from "../route";
import { WORDS, mark, severity, whose } from "../status";

/** Rows shown at first: what a browser lays out without a pause. */
const ROWS = 100;

interface Column {
  key: string;
  name: string;
  title?: string;
  /** Larger first, where nobody says otherwise. */
  descends: boolean;
  value(row: Row): number | string;
  class?: string;
}

const COLUMNS: Column[] = [
  { key: "rank", name: "#", title: "Rank by PSI", descends: false, value: (row) => -row.psi, class: "number narrow" },
  { key: "feature", name: "Feature", descends: false, value: (row) => row.feature },
  { key: "status", name: "Status", descends: true, value: severity },
  { key: "psi", name: "PSI", descends: true, value: (row) => row.psi, class: "number" },
  { key: "p", name: "p", title: "Probability that a difference like this is chance", descends: false, value: (row) => row.p_value ?? 2, class: "number wide-only" },
  { key: "trend", name: "Trend", title: "PSI of the last checks; sorted by how much it rose", descends: true, value: (row) => slope(row.trend), class: "trend" },
  { key: "missing", name: "Missing", descends: true, value: (row) => row.missing, class: "number wide-only" },
  { key: "drifting", name: "Drifting in", title: "Partitions and segments in which it drifts, of all of them", descends: true, value: (row) => row.drifting, class: "number wide-only" },
];

const DEFAULT = "-status";

export class FeatureTable {
  readonly element: HTMLElement;
  // Rows are boxes of their own to the style sheet, so what they are has to be said.
  private readonly body = h("tbody", { role: "rowgroup" });
  private readonly head = h("tr", { role: "row" });
  private readonly found = h("p", { class: "found", role: "status" });
  private readonly more = h("button", { type: "button", class: "button", click: () => this.showAll() });
  private readonly search: HTMLInputElement;
  private readonly lines = new Map<string, Line>();
  private isWhole = false;

  constructor(private readonly model: Model) {
    this.search = h("input", {
      type: "search",
      id: "search",
      placeholder: "Search features  /",
      "aria-label": "Search features",
      value: model.route.q,
      spellcheck: "false",
      input: () => model.go({ q: this.search.value }, true),
    });
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "table-title" },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "table-title" }, "Features"),
        h("div", { class: "tools" }, this.search, h("button", { type: "button", class: "button", click: () => this.export() }, "CSV")),
      ),
      h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table of features" }, h("table", { class: "features", role: "table" }, h("thead", { role: "rowgroup" }, this.head), this.body)),
      h("div", { class: "table-foot" }, this.found, this.more),
    );
    this.drawHead();
    this.arrange();
  }

  moved(): void {
    if (document.activeElement !== this.search) this.search.value = this.model.route.q;
    this.drawHead();
    this.arrange();
  }

  update(changed: Set<string>, reset: boolean): void {
    if (reset) {
      for (const [feature, line] of this.lines) {
        if (!this.model.rows.has(feature)) {
          line.element.remove();
          this.lines.delete(feature);
        }
      }
    }
    if (changed.size > 0 || reset) this.arrange(changed);
  }

  private sort(): { column: Column; descends: boolean } {
    const text = this.model.route.sort ?? DEFAULT;
    const column = COLUMNS.find(({ key }) => key === text.replace(/^-/, "")) ?? COLUMNS[2]!;
    return { column, descends: text.startsWith("-") };
  }

  private drawHead(): void {
    const { column: by, descends } = this.sort();
    const key = `${by.key}${descends}`;
    if (this.head.dataset["key"] === key) return;
    const focused = document.activeElement?.getAttribute("data-column");
    this.head.dataset["key"] = key;
    put(
      this.head,
      ...COLUMNS.map((column) => {
        const isBy = column === by;
        const next = isBy ? !descends : column.descends;
        return h(
          "th",
          { role: "columnheader", scope: "col", class: column.class ?? null, "aria-sort": isBy ? (descends ? "descending" : "ascending") : null },
          h(
            "button",
            { type: "button", title: column.title ?? null, "data-column": column.key, click: () => this.model.go({ sort: `${next ? "-" : ""}${column.key}` }, true) },
            column.name,
            isBy && h("span", { class: "arrow", "aria-hidden": "true" }, descends ? "↓" : "↑"),
          ),
        );
      }),
    );
    if (focused) this.head.querySelector<HTMLElement>(`[data-column="${focused}"]`)?.focus();
  }

  /** What is searched for, in order. */
  private rows(): Row[] {
    const { column, descends } = this.sort();
    const wanted = this.model.route.q.trim().toLowerCase();
    const sign = descends ? -1 : 1;
    return [...this.model.rows.values()]
      .filter(({ feature }) => wanted === "" || feature.toLowerCase().includes(wanted))
      .map((row): [number | string, Row] => [column.value(row), row])
      .sort(([a, x], [b, y]) => (a < b ? -sign : a > b ? sign : x.feature < y.feature ? -1 : 1))
      .map(([, row]) => row);
  }

  private arrange(changed?: Set<string>): void {
    const rows = this.rows();
    const shown = this.isWhole ? rows : rows.slice(0, ROWS);
    const ranks = new Map([...this.model.rows.values()].sort((a, b) => b.psi - a.psi).map((row, at) => [row.feature, at + 1]));
    let place = this.body.firstElementChild;
    for (const row of shown) {
      let line = this.lines.get(row.feature);
      if (!line) {
        line = new Line(this.model, row.feature);
        this.lines.set(row.feature, line);
        line.draw(row, ranks.get(row.feature)!);
      } else if (!changed || changed.has(row.feature)) line.draw(row, ranks.get(row.feature)!);
      else line.rank(ranks.get(row.feature)!);
      // Only what moved is moved: a row that keeps its place keeps focus and selection.
      if (line.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(line.element, place);
    }
    while (place) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
    const all = this.model.rows.size;
    say(this.found, rows.length === all ? `${format.count(all)} feature${all === 1 ? "" : "s"}` : `${format.count(rows.length)} of ${format.count(all)} features`);
    this.more.hidden = shown.length === rows.length;
    say(this.more, `Show all ${format.count(rows.length)}`);
  }

  private showAll(): void {
    this.isWhole = true;
    this.arrange();
  }

  private export(): void {
    const header = ["feature", "status", "psi", "p_value", "missing_share", "series", "drifting", "scope", "partition", "segment", "record_count", "time"];
    const rows = this.rows().map((row) => [
      row.feature,
      row.status,
      row.psi,
      row.p_value,
      row.missing,
      row.series,
      row.drifting,
      row.scope,
      row.partition,
      row.segment,
      row.record_count,
      new Date(row.time_ms).toISOString(),
    ]);
    save(`leeway-${this.model.monitor?.name ?? "features"}.csv`, "text/csv", format.csv(header, rows));
  }
}

/** One row. Its nodes stay; what differs is changed. */
class Line {
  readonly element: HTMLElement;
  private readonly cells: HTMLElement[];
  private readonly link: HTMLAnchorElement;
  private readonly bar = h("i", { class: "bar", "aria-hidden": "true" });
  private readonly figure = h("span", {});
  private readonly spark = new Sparkline();
  private status = "";
  private trend = "";

  constructor(
    private readonly model: Model,
    private readonly feature: string,
  ) {
    this.link = h("a", { href: "#" }, feature);
    this.link.addEventListener("focus", () => this.aim());
    this.link.addEventListener("pointerenter", () => this.aim());
    this.cells = COLUMNS.map(({ key, class: kind }) => (key === "feature" ? h("th", { role: "rowheader", scope: "row" }) : h("td", { role: "cell", class: kind ?? null })));
    this.cells[1]!.append(this.link);
    this.cells[3]!.append(this.bar, this.figure);
    this.cells[5]!.append(this.spark.element);
    this.element = h("tr", { role: "row" }, ...this.cells);
    this.aim();
  }

  /** The selection may have changed since. */
  private aim(): void {
    this.link.href = to(this.model.route, { page: "feature", feature: this.feature, q: "", sort: null, at: null, of: null });
  }

  rank(rank: number): void {
    say(this.cells[0]!, String(rank));
  }

  draw(row: Row, rank: number): void {
    this.rank(rank);
    const status = `${row.status}${row.violated}`;
    if (status !== this.status) {
      this.status = status;
      put(
        this.cells[2]!,
        h("span", { class: `verdict ${row.status}` }, mark(row.status), h("span", {}, WORDS[row.status])),
        row.violated && h("span", { class: "tag", title: "Too much is missing, unknown or out of range" }, "quality"),
      );
    }
    say(this.figure, format.psi(row.psi));
    const limits = thresholds(this.model.monitor, this.feature) ?? [0.1, 0.25];
    // Twice the drift threshold fills the bar.
    set(this.bar, "style", `--part: ${Math.min(1, row.psi / (2 * limits[1])).toFixed(2)}`);
    set(this.bar, "class", `bar ${row.status}`);
    say(this.cells[4]!, format.probability(row.p_value));
    const trend = row.trend.join();
    if (trend !== this.trend) {
      this.trend = trend;
      this.spark.draw(row, limits[1]);
    }
    say(this.cells[6]!, format.percent(row.missing));
    say(this.cells[7]!, `${row.drifting} of ${row.series}`);
    set(this.element, "title", `Worst in ${whose(row)}`);
  }
}

/** By how much PSI rose over the last checks: the mean of the newer half less that of the older. */
function slope(trend: number[]): number {
  const half = Math.floor(trend.length / 2);
  if (half === 0) return 0;
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  return mean(trend.slice(-half)) - mean(trend.slice(0, half));
}

const W = 84;
const H = 20;

/** A line of the last checks. Its nodes stay: fifty of them change at once. */
class Sparkline {
  private readonly limit = s("line", { x1: 0, x2: W, class: "limit" });
  private readonly line = s("polyline", {});
  private readonly arrow = h("span", { class: "rise", "aria-hidden": "true" });
  private readonly word = h("span", { class: "hidden" });
  readonly element = h("span", { class: "spark" }, s("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, "aria-hidden": "true" }, this.limit, this.line), this.arrow, this.word);

  draw({ trend, status }: Row, limit: number): void {
    const top = Math.max(limit, ...trend) * 1.05;
    const x = (at: number): number => (trend.length < 2 ? W : (at / (trend.length - 1)) * W);
    const y = (value: number): string => (H - 1 - (value / top) * (H - 2)).toFixed(1);
    set(this.limit, "y1", y(limit));
    set(this.limit, "y2", y(limit));
    this.line.setAttribute("points", trend.map((value, at) => `${x(at).toFixed(1)},${y(value)}`).join(" "));
    set(this.line, "class", `line ${status}`);
    const rise = slope(trend);
    const moves = Math.abs(rise) > 0.02 * top;
    say(this.arrow, !moves ? "→" : rise > 0 ? "↗" : "↘");
    say(this.word, !moves ? "steady" : rise > 0 ? "rising" : "falling");
  }
}

// One window beside its reference: the same bins, and what each adds to the PSI.

import type { WindowAnswer, WindowView } from "../api";
import { h, put, s, save } from "../dom";
import * as format from "../format";
import { chip, whose } from "../status";

const NAMES: Record<string, string> = { __other__: "other", __missing__: "missing" };
const MEASURES: Record<string, string> = { js: "Jensen-Shannon", ks: "Kolmogorov-Smirnov", wasserstein: "Wasserstein", chi2: "χ² p-value" };
const VIOLATIONS: Record<string, string> = { missing: "missing values", other: "unknown values", out_of_range: "values out of range" };
const SHARES = 190;
const CONTRIBUTIONS = 64;
const GAP = 18;

export class WindowPanel {
  readonly element: HTMLElement;
  private readonly head = h("div", { class: "window-head" });
  private readonly chart = h("div", { class: "bins" });
  private readonly facts = h("dl", { class: "facts" });
  private readonly quality = h("div", {});
  private readonly numbers = h("details", { class: "numbers" });
  private shown: WindowAnswer | null = null;
  private width = 0;
  private readonly observer = new ResizeObserver(() => {
    if (this.chart.clientWidth !== this.width) this.bins();
  });
  private readonly previous = h("button", { type: "button", class: "button", click: () => this.move(-1) }, "← Earlier");
  private readonly next = h("button", { type: "button", class: "button", click: () => this.move(1) }, "Later →");
  private readonly latest = h("button", { type: "button", class: "button", click: () => this.follow() }, "Latest");

  constructor(
    private readonly feature: string,
    private readonly move: (by: number) => void,
    private readonly follow: () => void,
  ) {
    this.element = h(
      "section",
      { class: "panel window", "aria-labelledby": "window-title" },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "window-title" }, "Reference beside window"),
        h("div", { class: "tools" }, this.previous, this.next, this.latest, h("button", { type: "button", class: "button", click: () => this.export() }, "CSV")),
      ),
      this.head,
      this.chart,
      this.quality,
      this.facts,
      this.numbers,
    );
    this.observer.observe(this.chart);
  }

  close(): void {
    this.observer.disconnect();
  }

  /** `isLatest`: the page goes on with each new check. */
  show(answer: WindowAnswer, isLatest: boolean): void {
    this.shown = answer;
    const { window } = answer;
    this.previous.disabled = answer.previous === null;
    this.next.disabled = answer.next === null;
    this.latest.setAttribute("aria-pressed", String(isLatest));
    put(
      this.head,
      chip(window.status),
      h("span", { class: "muted" }, `${whose(window)}, ${window.start_ms !== null && window.start_ms !== window.time_ms ? `${format.time(window.start_ms)} to ` : ""}${format.time(window.time_ms)}`),
      h("span", { class: "keys" }, h("i", { class: "swatch reference" }), "reference", h("i", { class: "swatch current" }), "this window", h("i", { class: "swatch contribution" }), "adds to PSI"),
    );
    this.bins();
    this.drawFacts(window);
    this.drawQuality(answer);
    this.drawNumbers(window);
  }

  missing(text: string): void {
    this.shown = null;
    put(this.head);
    put(this.chart, h("p", { class: "muted" }, text));
    put(this.facts);
    put(this.quality);
    put(this.numbers);
  }

  private bins(): void {
    const window = this.shown?.window;
    this.width = this.chart.clientWidth;
    if (!window) return;
    const bins = window.bins;
    if (!bins) {
      put(this.chart, h("p", { class: "muted" }, `Reference ${window.reference_version} is not known here, so its bins cannot be shown beside the window's.`));
      return;
    }
    const width = Math.max(260, this.width || 600);
    const shares = (counts: number[]): number[] => {
      const whole = counts.reduce((sum, count) => sum + count, 0);
      return counts.map((count) => (whole > 0 ? count / whole : 0));
    };
    const [reference, current] = [shares(bins.reference), shares(bins.current)];
    const most = Math.max(...reference, ...current, 1e-9);
    const mostAdded = Math.max(...bins.contribution, 1e-9);
    const left = 58;
    const step = (width - left) / bins.label.length;
    const bar = Math.min(step * 0.36, 34);
    const labelEach = Math.max(1, Math.ceil(bins.label.length / Math.floor((width - left) / 58)));
    const slant = labelEach > 1 || step < 96;
    const bottom = SHARES + GAP + CONTRIBUTIONS;
    const height = bottom + (slant ? 74 : 26);
    const top = bins.contribution.indexOf(mostAdded);
    const parts: Node[] = [];
    for (const [part, y] of [
      [most, 0],
      [most / 2, SHARES / 2],
    ] as const) {
      parts.push(s("line", { x1: left, x2: width, y1: y + 6, y2: y + 6, class: "grid" }), s("text", { x: left - 8, y: y + 10, class: "tick" }, format.percent(part)));
    }
    parts.push(
      s("line", { x1: left, x2: width, y1: SHARES + 6, y2: SHARES + 6, class: "base" }),
      s("text", { x: left - 8, y: SHARES + GAP + 16, class: "tick" }, format.psi(mostAdded)),
      s("line", { x1: left, x2: width, y1: bottom + 6, y2: bottom + 6, class: "base" }),
    );
    bins.label.forEach((label, at) => {
      const x = left + (at + 0.5) * step;
      const name = NAMES[label] ?? label;
      const brief = NAMES[label] ?? briefly(label);
      const tall = (share: number): number => (share / most) * SHARES;
      const added = (bins.contribution[at]! / mostAdded) * CONTRIBUTIONS;
      const special = label in NAMES;
      parts.push(
        s(
          "g",
          { class: "bin" },
          s("title", {}, `${name}\nreference ${format.percent(reference[at]!)} (${format.count(bins.reference[at]!)})\nwindow ${format.percent(current[at]!)} (${format.count(bins.current[at]!)})\nadds ${format.psi(bins.contribution[at])} to PSI`),
          s("rect", { x: x - step / 2, y: 0, width: step, height: bottom + 6, class: "hover" }),
          s("rect", { x: x - bar, y: SHARES + 6 - tall(reference[at]!), width: bar - 1, height: tall(reference[at]!), class: "reference" }),
          s("rect", { x, y: SHARES + 6 - tall(current[at]!), width: bar - 1, height: tall(current[at]!), class: "current" }),
          s("rect", { x: x - bar / 2, y: bottom + 6 - added, width: bar, height: added, class: at === top ? "contribution top" : "contribution" }),
          at % labelEach === 0 &&
            (slant
              ? s("text", { transform: `translate(${x + 3} ${bottom + 20}) rotate(-38)`, class: special ? "label special" : "label", "text-anchor": "end" }, cut(brief, 18))
              : s("text", { x, y: bottom + 22, class: special ? "label special" : "label", "text-anchor": "middle" }, cut(brief, Math.max(6, Math.floor(step / 6))))),
        ),
      );
    });
    put(
      this.chart,
      s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Shares of ${bins.label.length} bins, and what each adds to the PSI; the numbers are below` }, ...parts),
    );
  }

  private drawFacts(window: WindowView): void {
    const chance = window.noise_floor !== null ? `up to ${format.psi(window.noise_floor)}` : format.psi(window.null_mean);
    const facts: [string, string, (string | null)?][] = [
      ["PSI", format.psi(window.psi), String(window.psi)],
      ["by chance", chance, "What PSI does not exceed in 99 of 100 checks when nothing drifted"],
      ["p", format.probability(window.p_value), window.p_value === null ? null : String(window.p_value)],
      ...window.measures.map(([metric, value]): [string, string, string] => [MEASURES[metric] ?? metric, metric === "chi2" ? format.probability(value) : Number(value.toPrecision(4)).toString(), String(value)]),
      ["records in window", format.count(window.window_count)],
      ["missing", window.missing === null ? "–" : `${format.count(window.missing)} (${format.percent(window.window_count > 0 ? window.missing / window.window_count : 0)})`],
    ];
    if (window.below_range !== null && window.above_range !== null) facts.push(["below / above range", `${format.count(window.below_range)} / ${format.count(window.above_range)}`]);
    facts.push(["record", format.count(window.record_count)]);
    if (window.start_offset !== null && window.end_offset !== null) facts.push(["offsets", `${window.start_offset} to ${window.end_offset}`]);
    facts.push(["reference", window.reference_version + (window.reference_rows !== null ? `, ${format.count(window.reference_rows)} rows` : "")]);
    if (window.binning !== null) facts.push(["bins", window.binning]);
    put(this.facts, ...facts.map(([name, value, title]) => h("div", { title: title ?? null }, h("dt", {}, name), h("dd", {}, value))));
  }

  private drawQuality({ quality }: WindowAnswer): void {
    if (!quality) return put(this.quality);
    const wrong = quality.violations.map((violation) => VIOLATIONS[violation] ?? violation);
    put(
      this.quality,
      h(
        "p",
        { class: quality.status === "violated" ? "quality-note violated" : "quality-note" },
        h("b", {}, quality.status === "violated" ? `Quality violated: ${wrong.join(", ")}. ` : "Quality is as asked. "),
        [
          `missing ${format.percent(quality.missing)}`,
          quality.other !== null && `unknown ${format.percent(quality.other)}`,
          quality.out_of_range !== null && `out of range ${format.percent(quality.out_of_range)}`,
        ]
          .filter(Boolean)
          .join(", "),
        quality.examples.length > 0 && `; unknown values: ${quality.examples.map(([value, count]) => `${value} (${format.count(count)})`).join(", ")}`,
      ),
    );
  }

  private drawNumbers({ bins }: WindowView): void {
    if (!bins) return put(this.numbers);
    const total = (counts: number[]): number => Math.max(1, counts.reduce((sum, count) => sum + count, 0));
    const [before, now] = [total(bins.reference), total(bins.current)];
    const isOpen = this.numbers.open;
    put(
      this.numbers,
      h("summary", {}, "Numbers"),
      h(
        "div",
        { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the bins" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...["Bin", "Reference", "", "Window", "", "Adds to PSI"].map((name, at) => (name ? h("th", { scope: "col", colspan: at === 1 || at === 3 ? 2 : null, class: at > 0 ? "number" : null }, name) : null)))),
          h(
            "tbody",
            {},
            ...bins.label.map((label, at) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, NAMES[label] ?? label),
                ...[format.count(bins.reference[at]!), format.percent(bins.reference[at]! / before), format.count(bins.current[at]!), format.percent(bins.current[at]! / now), format.psi(bins.contribution[at])].map((text) => h("td", { class: "number" }, text)),
              ),
            ),
          ),
        ),
      ),
    );
    this.numbers.open = isOpen;
  }

  private export(): void {
    const window = this.shown?.window;
    if (!window?.bins) return;
    const { label, reference, current, contribution } = window.bins;
    save(
      `leeway-${this.feature}-${window.record_count}.csv`,
      "text/csv",
      format.csv(
        ["bin", "reference_count", "window_count", "contribution"],
        label.map((name, at) => [name, reference[at], current[at], contribution[at]]),
      ),
    );
  }
}

/** An interval with as many digits as a chart has room for; the whole one is in the tooltip and among the numbers. */
function briefly(label: string): string {
  const [, low, high, end] = /^\((\S+), (\S+)([\])])$/.exec(label) ?? [];
  if (low === undefined || high === undefined) return label;
  const number = (text: string): string => (text.endsWith("inf") ? text.replace("inf", "∞") : String(Number(Number(text).toPrecision(4))));
  return `(${number(low)}, ${number(high)}${end}`;
}

const cut = (text: string, length: number): string => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);

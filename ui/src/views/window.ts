// One window beside its reference: the same bins, and what each adds to the PSI.

import type { WindowAnswer, WindowView } from "../api";
import { h, put, save, say, set } from "../dom";
import * as format from "../format";
import { putChip, whose } from "../status";
import { Bins, NAMES } from "./bins";

const MEASURES: Record<string, string> = { js: "Jensen-Shannon", ks: "Kolmogorov-Smirnov", wasserstein: "Wasserstein", chi2: "χ² p-value" };
const VIOLATIONS: Record<string, string> = { missing: "missing values", other: "unknown values", out_of_range: "values out of range" };

export class WindowPanel {
  readonly element: HTMLElement;
  private readonly status = h("span", {});
  private readonly whose = h("span", { class: "muted" });
  private readonly head = h(
    "div",
    { class: "window-head" },
    this.status,
    this.whose,
    h("span", { class: "keys" }, h("i", { class: "swatch reference" }), "reference", h("i", { class: "swatch current" }), "this window", h("i", { class: "swatch contribution" }), "adds to PSI"),
  );
  private readonly bins = new Bins();
  private readonly facts = h("dl", { class: "facts" });
  private readonly quality = h("div", {});
  private readonly table = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the bins" });
  // Filled when it is opened.
  private readonly numbers = h("details", { class: "numbers", toggle: () => this.drawNumbers() }, h("summary", {}, "Numbers"), this.table);
  private shown: WindowAnswer | null = null;
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
      this.bins.element,
      this.quality,
      this.facts,
      this.numbers,
    );
    this.missing("");
  }

  close(): void {
    this.bins.close();
  }

  /** `isLatest`: the page goes on with each new check. */
  show(answer: WindowAnswer, isLatest: boolean): void {
    this.shown = answer;
    const { window } = answer;
    this.previous.disabled = answer.previous === null;
    this.next.disabled = answer.next === null;
    set(this.latest, "aria-pressed", String(isLatest));
    putChip(this.status, window.status);
    say(this.whose, `${whose(window)}, ${window.start_ms !== null && window.start_ms !== window.time_ms ? `${format.time(window.start_ms)} to ` : ""}${format.time(window.time_ms)}`);
    this.head.hidden = false;
    this.numbers.hidden = window.bins === null;
    if (window.bins) this.bins.show(window);
    else this.bins.tell(`Reference ${window.reference_version} is not known here, so its bins cannot be shown beside the window's.`);
    this.drawFacts(window);
    this.drawQuality(answer);
    this.drawNumbers();
  }

  missing(text: string): void {
    this.shown = null;
    this.head.hidden = this.numbers.hidden = true;
    this.bins.tell(text);
    put(this.facts);
    put(this.quality);
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
    // The same facts of another window: their texts change, and nothing else.
    const names = facts.map(([name]) => name).join("\n");
    if (this.facts.childElementCount === 0 || names !== this.facts.dataset["names"]) {
      this.facts.dataset["names"] = names;
      put(this.facts, ...facts.map(([name]) => h("div", {}, h("dt", {}, name), h("dd", {}))));
    }
    facts.forEach(([, value, title], at) => {
      const fact = this.facts.children[at]!;
      say(fact.lastElementChild!, value);
      if (title) set(fact, "title", title);
      else fact.removeAttribute("title");
    });
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

  private drawNumbers(): void {
    const bins = this.shown?.window.bins;
    if (!bins || !this.numbers.open) return;
    const total = (counts: number[]): number => Math.max(1, counts.reduce((sum, count) => sum + count, 0));
    const [before, now] = [total(bins.reference), total(bins.current)];
    put(
      this.table,
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
    );
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

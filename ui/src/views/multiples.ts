// Small multiples: the same feature in each partition, or each segment, on one scale.

import type { Series } from "../api";
import { h, s, say, set } from "../dom";
import * as format from "../format";
import { putMark, sameSeries, whose } from "../status";

const W = 180;
const H = 48;

export class Multiples {
  readonly element: HTMLElement;
  private readonly grid = h("div", { class: "multiples" });
  private readonly found = h("p", { class: "found", role: "status" });
  private readonly search: HTMLInputElement;
  private cards: Card[] = [];

  constructor(
    hasSegments: boolean,
    private readonly pick: (series: Series) => void,
    find: (text: string) => void,
  ) {
    this.search = h("input", { type: "search", placeholder: "Search segments", "aria-label": "Search segments", spellcheck: "false", input: () => find(this.search.value) });
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "multiples-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "multiples-title" }, hasSegments ? "By segment" : "By partition"), hasSegments && h("div", { class: "tools" }, this.search)),
      this.grid,
      this.found,
    );
  }

  show(all: Series[], count: number, front: Series | null, thresholds: [number, number] | null): void {
    const times = all.flatMap((series) => [series.time_ms[0] ?? 0, series.time_ms.at(-1) ?? 0]);
    const [from, to] = [Math.min(...times), Math.max(...times)];
    const top = Math.max(thresholds?.[1] ?? 0.25, ...all.map((series) => Math.max(0, ...series.psi))) * 1.05;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["series"];
    // Cards stay where they stood; what they are of may change, as when another segment is searched for.
    while (this.cards.length > all.length) this.cards.pop()!.element.remove();
    while (this.cards.length < all.length) {
      const card = new Card(this.pick);
      this.cards.push(card);
      this.grid.append(card.element);
    }
    all.forEach((series, at) => this.cards[at]!.draw(series, front !== null && sameSeries(series, front), { from, to, top, limit: thresholds?.[1] ?? null }));
    if (focused !== undefined) this.cards.find(({ element }) => element.dataset["series"] === focused)?.element.focus();
    say(this.found, count > all.length ? `The worst ${format.count(all.length)} of ${format.count(count)} are shown.` : "");
  }
}

/** What all cards are drawn to. */
interface Frame {
  from: number;
  to: number;
  top: number;
  limit: number | null;
}

/** One partition or segment. Its nodes stay, as there may be dozens that go on at once. */
class Card {
  private readonly shape = h("span", { class: "multiple-mark" });
  private readonly text = h("span", {});
  private readonly name = h("span", { class: "multiple-name" }, this.shape, this.text);
  private readonly limit = s("line", { x1: 0, x2: W, class: "limit" });
  private readonly line = s("polyline", { "vector-effect": "non-scaling-stroke" });
  private readonly figure = h("span", {});
  private readonly word = h("span", { class: "hidden" });
  private series: Series | null = null;
  readonly element: HTMLElement;

  constructor(pick: (series: Series) => void) {
    this.element = h(
      "button",
      { type: "button", class: "multiple", click: () => this.series && pick(this.series) },
      this.name,
      s("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.limit, this.line),
      h("span", { class: "multiple-psi" }, this.figure, this.word),
    );
  }

  draw(series: Series, isFront: boolean, { from, to, top, limit }: Frame): void {
    this.series = series;
    const name = whose(series);
    const status = series.status.at(-1) ?? null;
    const x = (ms: number): string => (to > from ? ((ms - from) / (to - from)) * W : W).toFixed(1);
    const y = (value: number): string => (H - (value / top) * H).toFixed(1);
    set(this.element, "data-series", name);
    set(this.element, "aria-pressed", String(isFront));
    set(this.name, "title", name);
    say(this.text, name);
    putMark(this.shape, status);
    set(this.limit, "visibility", limit === null ? "hidden" : "visible");
    if (limit !== null) {
      set(this.limit, "y1", y(limit));
      set(this.limit, "y2", y(limit));
    }
    set(this.line, "points", series.time_ms.map((ms, at) => `${x(ms)},${y(series.psi[at]!)}`).join(" "));
    set(this.line, "class", `line ${status}`);
    say(this.figure, format.psi(series.psi.at(-1)));
    say(this.word, ` PSI, ${(status ?? "").replace("_", " ")}`);
  }
}

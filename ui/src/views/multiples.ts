// Small multiples: the same feature in each partition, or each segment, on one scale.

import type { Series } from "../api";
import { h, put, s, say } from "../dom";
import * as format from "../format";
import { mark, sameSeries, whose } from "../status";

const W = 180;
const H = 48;

export class Multiples {
  readonly element: HTMLElement;
  private readonly grid = h("div", { class: "multiples" });
  private readonly found = h("p", { class: "found", role: "status" });
  private readonly search: HTMLInputElement;

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
    const y = (value: number): number => H - (value / top) * H;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["series"];
    put(
      this.grid,
      ...all.map((series) => {
        const name = whose(series);
        const status = series.status.at(-1) ?? null;
        const points = series.time_ms.map((ms, at) => `${(to > from ? ((ms - from) / (to - from)) * W : W).toFixed(1)},${y(series.psi[at]!).toFixed(1)}`);
        return h(
          "button",
          {
            type: "button",
            class: "multiple",
            "data-series": name,
            "aria-pressed": String(front !== null && sameSeries(series, front)),
            click: () => this.pick(series),
          },
          h("span", { class: "multiple-name", title: name }, mark(status), h("span", {}, name)),
          s(
            "svg",
            { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" },
            thresholds && s("line", { x1: 0, x2: W, y1: y(thresholds[1]), y2: y(thresholds[1]), class: "limit" }),
            s("polyline", { points: points.join(" "), class: `line ${status}`, "vector-effect": "non-scaling-stroke" }),
          ),
          h("span", { class: "multiple-psi" }, format.psi(series.psi.at(-1)), h("span", { class: "hidden" }, ` PSI, ${(status ?? "").replace("_", " ")}`)),
        );
      }),
    );
    if (focused !== undefined) [...this.grid.querySelectorAll<HTMLElement>("[data-series]")].find((button) => button.dataset["series"] === focused)?.focus();
    say(this.found, count > all.length ? `The worst ${format.count(all.length)} of ${format.count(count)} are shown.` : "");
  }
}

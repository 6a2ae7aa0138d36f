// The bins of one window beside those of its reference, and what each adds to the PSI. Nodes stay while the bins are the same: only bars move.

import type { WindowView } from "../api";
import { h, put, s, say, set } from "../dom";
import * as format from "../format";

/** What events call two bins that are no values. */
export const NAMES: Record<string, string> = { __other__: "other", __missing__: "missing" };
const SHARES = 190;
const CONTRIBUTIONS = 64;
const GAP = 18;
const LEFT = 58;
const BOTTOM = SHARES + GAP + CONTRIBUTIONS;

export class Bins {
  readonly element = h("div", { class: "bins" });
  private window: WindowView | null = null;
  private width = 0;
  private key = "";
  private bars: Bar[] = [];
  private readonly ticks = [0, SHARES / 2, SHARES + GAP + 6].map((y) => s("text", { x: LEFT - 8, y: y + 10, class: "tick" }));
  private readonly observer = new ResizeObserver(() => {
    if (this.element.clientWidth !== this.width) this.draw();
  });

  constructor() {
    this.observer.observe(this.element);
  }

  close(): void {
    this.observer.disconnect();
  }

  show(window: WindowView): void {
    this.window = window;
    if (this.width === 0) this.width = this.element.clientWidth;
    this.draw(this.width);
  }

  /** Words instead. */
  tell(text: string): void {
    this.window = null;
    this.key = "";
    put(this.element, h("p", { class: "muted" }, text));
  }

  private draw(known?: number): void {
    const bins = this.window?.bins;
    this.width = known ?? this.element.clientWidth;
    if (!bins) return;
    const width = Math.max(260, this.width || 600);
    const key = JSON.stringify([width, bins.label]);
    if (key !== this.key) {
      this.key = key;
      this.build(bins.label, width);
    }
    const shares = (counts: number[]): number[] => {
      const whole = counts.reduce((sum, count) => sum + count, 0);
      return counts.map((count) => (whole > 0 ? count / whole : 0));
    };
    const [reference, current] = [shares(bins.reference), shares(bins.current)];
    const most = Math.max(...reference, ...current, 1e-9);
    const mostAdded = Math.max(...bins.contribution, 1e-9);
    const top = bins.contribution.indexOf(mostAdded);
    [format.percent(most), format.percent(most / 2), format.psi(mostAdded)].forEach((text, at) => say(this.ticks[at]!, text));
    this.bars.forEach((bar, at) => {
      const added = bins.contribution[at]!;
      bar.stand(bar.reference, (reference[at]! / most) * SHARES, SHARES);
      bar.stand(bar.current, (current[at]! / most) * SHARES, SHARES);
      bar.stand(bar.contribution, (added / mostAdded) * CONTRIBUTIONS, BOTTOM);
      set(bar.contribution, "class", at === top ? "contribution top" : "contribution");
      const counts = [bins.reference[at]!, bins.current[at]!].map(format.count);
      say(bar.title, `${bar.name}\nreference ${format.percent(reference[at]!)} (${counts[0]})\nwindow ${format.percent(current[at]!)} (${counts[1]})\nadds ${format.psi(added)} to PSI`);
    });
  }

  private build(labels: string[], width: number): void {
    const step = (width - LEFT) / labels.length;
    const labelEach = Math.max(1, Math.ceil(labels.length / Math.floor((width - LEFT) / 58)));
    const slant = labelEach > 1 || step < 96;
    const height = BOTTOM + (slant ? 74 : 26);
    const line = (y: number, kind: string): Node => s("line", { x1: LEFT, x2: width, y1: y + 6, y2: y + 6, class: kind });
    this.bars = labels.map((label, at) => {
      const x = LEFT + (at + 0.5) * step;
      const brief = NAMES[label] ?? briefly(label);
      const kind = label in NAMES ? "label special" : "label";
      const text = slant
        ? s("text", { transform: `translate(${x + 3} ${BOTTOM + 20}) rotate(-38)`, class: kind, "text-anchor": "end" }, cut(brief, 18))
        : s("text", { x, y: BOTTOM + 22, class: kind, "text-anchor": "middle" }, cut(brief, Math.max(6, Math.floor(step / 6))));
      return new Bar(NAMES[label] ?? label, x, step, at % labelEach === 0 && text);
    });
    put(
      this.element,
      s(
        "svg",
        { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Shares of ${labels.length} bins, and what each adds to the PSI; the numbers are below` },
        line(0, "grid"),
        line(SHARES / 2, "grid"),
        line(SHARES, "base"),
        line(BOTTOM, "base"),
        ...this.ticks,
        ...this.bars.map(({ element }) => element),
      ),
    );
  }
}

/** One bin: two shares side by side, and what it adds below. */
class Bar {
  readonly title = s("title", {});
  readonly reference: SVGRectElement;
  readonly current: SVGRectElement;
  readonly contribution: SVGRectElement;
  readonly element: Element;

  constructor(
    readonly name: string,
    x: number,
    step: number,
    label: Element | false,
  ) {
    const width = Math.min(step * 0.36, 34);
    this.reference = s("rect", { x: x - width, width: width - 1, class: "reference" });
    this.current = s("rect", { x, width: width - 1, class: "current" });
    this.contribution = s("rect", { x: x - width / 2, width });
    const hover = s("rect", { x: x - step / 2, y: 0, width: step, height: BOTTOM + 6, class: "hover" });
    this.element = s("g", { class: "bin" }, this.title, hover, this.reference, this.current, this.contribution, label);
  }

  stand(bar: SVGRectElement, height: number, on: number): void {
    set(bar, "y", (on + 6 - height).toFixed(1));
    set(bar, "height", height.toFixed(1));
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

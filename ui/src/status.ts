// A verdict has a word and a shape beside its colour: nobody needs to see colours.

import type { Scope, Status } from "./api";
import { h, put, s } from "./dom";

export const WORDS: Record<Status, string> = { no_drift: "No drift", possible_drift: "Possible drift", drift: "Drift" };

/** Of the worst of several. */
export const RANK: Record<Status, number> = { no_drift: 0, possible_drift: 1, drift: 2 };

/** How bad a feature is. Without drift PSI is noise: such features are equal, and do not change places with each check. */
export const severity = ({ status, psi }: { status: Status; psi: number }): number => (status === "no_drift" ? 0 : RANK[status] * 1e6 + Math.min(psi, 9e5));

export const STATUSES: Status[] = ["no_drift", "possible_drift", "drift"];

const SHAPES: Record<Status, string> = {
  no_drift: "M6 1.500a4.500 4.500 0 1 0 0 9a4.500 4.500 0 1 0 0-9z",
  possible_drift: "M6 .5L11.500 6L6 11.500L.5 6z",
  drift: "M6 .8L11.700 11H.3z",
};

export function mark(status: Status | null, size = 12): SVGSVGElement {
  const shape =
    status === null
      ? s("path", { d: SHAPES.no_drift, fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "2.2 1.6" })
      : s("path", { d: SHAPES[status], fill: "currentColor" });
  return s("svg", { class: `mark ${status ?? "unknown"}`, viewBox: "0 0 12 12", width: size, height: size, "aria-hidden": "true" }, shape);
}

export const chip = (status: Status | null, word?: string): HTMLElement =>
  h("span", { class: `chip ${status ?? "unknown"}` }, mark(status), h("span", {}, word ?? (status ? WORDS[status] : "No check yet")));

/** Puts something of a status where one may be; what is of the same stays. */
const putOf =
  (make: (status: Status | null) => Element) =>
  (place: Element, status: Status | null): void => {
    if (!place.firstElementChild?.classList.contains(status ?? "unknown")) put(place, make(status));
  };
export const putMark = putOf(mark);
export const putChip = putOf(chip);

/** The same shapes on a canvas, around a point. */
export function draw(context: CanvasRenderingContext2D, status: Status, x: number, y: number, radius: number): void {
  context.beginPath();
  if (status === "no_drift") context.arc(x, y, radius, 0, 2 * Math.PI);
  else if (status === "possible_drift") {
    context.moveTo(x, y - radius * 1.25);
    context.lineTo(x + radius * 1.25, y);
    context.lineTo(x, y + radius * 1.25);
    context.lineTo(x - radius * 1.25, y);
  } else {
    context.moveTo(x, y - radius * 1.2);
    context.lineTo(x + radius * 1.25, y + radius);
    context.lineTo(x - radius * 1.25, y + radius);
  }
  context.closePath();
  context.fill();
}

/** Whose records a series is of, in words. */
export function whose(of: { scope: Scope; partition: number | null; segment: string | null }): string {
  const part = of.scope === "global" ? "whole topic" : `partition ${of.partition}`;
  return of.segment === null ? part : `${of.segment}, ${part}`;
}

export const sameSeries = (
  a: { scope: Scope; partition: number | null; segment: string | null },
  b: { scope: Scope; partition: number | null; segment: string | null },
): boolean => a.scope === b.scope && a.partition === b.partition && a.segment === b.segment;

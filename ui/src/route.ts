// Where the reader is: all of it stands in the address, so that a link restores a view.

import type { Scope } from "./api";

export type Page = "overview" | "feature" | "incidents" | "stream";

export interface Route {
  page: Page;
  /** None: the first one there is. */
  monitor: string | null;
  feature: string | null;
  scope: Scope | null;
  partition: number | null;
  segment: string | null;
  /** How far back, such as 1h; none: all there is. */
  range: string | null;
  /** What the table is searched for. */
  q: string;
  /** A column, with a minus before it for descending. */
  sort: string | null;
  /** The window that is looked at: record number and event time. */
  at: { record_count: number; time_ms: number } | null;
  /** Whose series is in front: scope, partition, segment. */
  of: { scope: Scope; partition: number | null; segment: string | null } | null;
}

export const RANGES: Record<string, number> = {
  "5m": 300_000,
  "15m": 900_000,
  "1h": 3_600_000,
  "6h": 21_600_000,
  "24h": 86_400_000,
  "7d": 604_800_000,
};

const number = (text: string | null): number | null => (text !== null && /^-?\d+$/.test(text) ? Number(text) : null);
const scope = (text: string | null | undefined): Scope | null => (text === "partition" || text === "global" ? text : null);

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function parse(hash: string): Route {
  const [where = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = where.split("/").map(decode);
  const given = new URLSearchParams(query);
  const monitor = parts[0] === "m" && parts[1] ? parts[1] : null;
  const rest = parts[0] === "m" ? parts.slice(2) : parts;
  const feature = rest[0] === "f" && rest[1] ? rest[1] : null;
  const page: Page = feature !== null ? "feature" : rest[0] === "incidents" || rest[0] === "stream" ? rest[0] : "overview";
  const [records, time] = (given.get("at") ?? "").split("_").map(number);
  const of = given.get("of")?.split("_");
  const ofScope = scope(of?.[0]);
  const range = given.get("range");
  return {
    page,
    monitor,
    feature,
    scope: scope(given.get("scope")),
    partition: number(given.get("partition")),
    segment: given.get("segment"),
    range: range !== null && range in RANGES ? range : null,
    q: given.get("q") ?? "",
    sort: given.get("sort"),
    at: records != null && time != null ? { record_count: records, time_ms: time } : null,
    of: ofScope && of ? { scope: ofScope, partition: number(of[1] ?? ""), segment: of.length > 2 ? of.slice(2).join("_") : null } : null,
  };
}

export function format(route: Route): string {
  const parts = [
    ...(route.monitor !== null ? ["m", route.monitor] : []),
    ...(route.page === "feature" && route.feature !== null ? ["f", route.feature] : []),
    ...(route.page === "incidents" || route.page === "stream" ? [route.page] : []),
  ];
  const query = new URLSearchParams();
  const set = (name: string, value: string | number | null): void => {
    if (value !== null && value !== "") query.set(name, String(value));
  };
  set("scope", route.scope);
  set("partition", route.partition);
  set("segment", route.segment);
  set("range", route.range);
  set("q", route.q);
  set("sort", route.sort);
  set("at", route.at && `${route.at.record_count}_${route.at.time_ms}`);
  set("of", route.of && [route.of.scope, route.of.partition ?? "", ...(route.of.segment === null ? [] : [route.of.segment])].join("_"));
  const text = query.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** The address of the same place with something changed. */
export const to = (route: Route, change: Partial<Route>): string => format({ ...route, ...change });

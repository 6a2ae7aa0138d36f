// What the server answers. `api/v1/openapi.json` has the meanings.

export type Status = "no_drift" | "possible_drift" | "drift";
export type Scope = "partition" | "global";

export interface Settings {
  topic: string;
  events_topic: string;
  dead_letter_topic: string;
  window: { kind: "count" | "time"; size: number; every: number };
  min_samples: number;
  possible_drift: number;
  drift: number;
  feature_thresholds: Record<string, [number, number]>;
  decided_by: string;
  significance: number;
  epsilon: number;
  summary_share: number | null;
  segment_by: string[];
}

export interface Glance {
  name: string;
  status: Status | null;
  summary_status: Status | null;
  summary_psi: number | null;
  features: number;
  drifted: number;
  possible: number;
  violated: number;
  scopes: Scope[];
  partitions: number[];
  segments: number;
  written_ms: number | null;
  time_ms: number | null;
  from_ms: number | null;
}

export interface Monitor extends Glance {
  settings: Settings | null;
  reference_version: string | null;
  reference_rows: number | null;
}

export interface Monitors {
  application_id: string;
  version: string;
  now_ms: number;
  monitors: Monitor[];
  stream: StreamState;
}

export interface Rows {
  feature: string[];
  psi: number[];
  p_value: (number | null)[];
  status: Status[];
  missing: number[];
  scope: Scope[];
  partition: (number | null)[];
  segment: (string | null)[];
  time_ms: number[];
  record_count: number[];
  series: number[];
  drifting: number[];
  violated: boolean[];
  trend: number[][];
}

export interface Points {
  feature: string[];
  scope: Scope[];
  partition: (number | null)[];
  segment: (string | null)[];
  time_ms: number[];
  psi: number[];
  status: Status[];
  record_count: number[];
}

export interface HeatMap {
  from_ms: number;
  to_ms: number;
  columns: number;
  feature: string[];
  psi: (number | null)[][];
  status: number[][];
}

export interface Details {
  window_count: number[];
  p_value: (number | null)[];
  null_mean: (number | null)[];
  noise_floor: (number | null)[];
  missing: number[];
  version: string[];
  measures: { metric: string; values: (number | null)[] }[];
}

export interface Series {
  scope: Scope;
  partition: number | null;
  segment: string | null;
  time_ms: number[];
  psi: number[];
  status: Status[];
  record_count: number[];
  details?: Details;
}

export interface SeriesAnswer {
  series: Series[];
  count: number;
  decided_by: string | null;
  thresholds: [number, number] | null;
}

export interface WindowId {
  record_count: number;
  time_ms: number;
}

export interface WindowView extends WindowId {
  scope: Scope;
  partition: number | null;
  segment: string | null;
  start_ms: number | null;
  written_ms: number;
  window_count: number;
  start_offset: number | null;
  end_offset: number | null;
  psi: number;
  p_value: number | null;
  null_mean: number | null;
  noise_floor: number | null;
  status: Status;
  missing: number | null;
  below_range: number | null;
  above_range: number | null;
  measures: [string, number][];
  reference_version: string;
  reference_rows: number | null;
  binning: string | null;
  bins: { label: string[]; reference: number[]; current: number[]; contribution: number[] } | null;
}

export interface Quality {
  status: "ok" | "violated";
  violations: string[];
  missing: number;
  other: number | null;
  out_of_range: number | null;
  examples: [string, number][];
}

export interface WindowAnswer {
  window: WindowView;
  quality: Quality | null;
  previous: WindowId | null;
  next: WindowId | null;
}

export interface Incident {
  number: number;
  kind: "drift" | "quality";
  status: Status;
  feature: string;
  scope: Scope;
  partition: number | null;
  segment: string | null;
  start_ms: number;
  last_ms: number;
  end_ms: number | null;
  psi: number;
  checks: number;
}

export interface Incidents {
  incidents: Incident[];
  count: number;
  dropped: number;
}

export interface StreamState {
  sources: { topic: string; is_caught_up: boolean; problem: string | null; records: number; skipped: number }[];
  health: {
    problem: string | null;
    members: string[];
    topics: Record<
      string,
      {
        partitions: { partition: number; committed: number | null; end: number; lag: number }[];
        dead_letter_topic: string;
        dead_letters_max: number | null;
      }
    >;
  };
  flows: {
    partition: number | null;
    records: number;
    window_count: number;
    windows: number;
    rate: number;
    written_ms: number;
    time_ms: number;
  }[];
  history: {
    events: number;
    foreign: number;
    series: number;
    points: number;
    points_max: number;
    series_points_max: number;
    dropped_points: number;
    dropped_incidents: number;
  };
}

export interface Update {
  reset: boolean;
  number: number;
  now_ms: number;
  monitors: Glance[];
  rows: Rows;
  points: Points | null;
  incidents: number;
  stream: StreamState;
}

/** An answer that is no success, in the server's own words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

export type Query = Record<string, string | number | null | undefined>;

export function url(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter((pair): pair is [string, string | number] => pair[1] != null);
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

/** A path of names. */
export const path = (...parts: string[]): string => parts.map(encodeURIComponent).join("/");

export async function get<T>(address: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(address, { headers: { accept: "application/json" }, ...(signal && { signal }) });
  if (response.ok) return (await response.json()) as T;
  const problem = (await response.json().catch(() => ({}))) as { detail?: string };
  throw new Refused(response.status, problem.detail ?? `${response.status} ${response.statusText}`);
}

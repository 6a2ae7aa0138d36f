// What all views share: where the reader is, the monitors, the rows of features.

import type { Glance, Monitor, Rows, Status, StreamState, Update } from "./api";
import type { Route } from "./route";

export interface Row {
  feature: string;
  psi: number;
  p_value: number | null;
  status: Status;
  missing: number;
  scope: "partition" | "global";
  partition: number | null;
  segment: string | null;
  time_ms: number;
  record_count: number;
  series: number;
  drifting: number;
  violated: boolean;
  trend: number[];
}

export interface Model {
  route: Route;
  monitors: Monitor[];
  /** The one that is looked at; none when there is none. */
  monitor: Monitor | null;
  rows: Map<string, Row>;
  stream: StreamState | null;
  /** The server's clock less this one's. */
  clock: number;
  go(change: Partial<Route>, replace?: boolean): void;
}

/** A part of the page. */
export interface View {
  readonly element: HTMLElement;
  /** Something is new; `changed` are the features whose rows differ. */
  update(update: Update, changed: Set<string>): void;
  /** The address changed and the view stayed. */
  moved?(): void;
  close(): void;
}

/** Takes rows over; gives the features that changed. */
export function take(model: Model, rows: Rows, reset: boolean): Set<string> {
  if (reset) model.rows.clear();
  rows.feature.forEach((feature, at) => {
    model.rows.set(feature, {
      feature,
      psi: rows.psi[at]!,
      p_value: rows.p_value[at]!,
      status: rows.status[at]!,
      missing: rows.missing[at]!,
      scope: rows.scope[at]!,
      partition: rows.partition[at]!,
      segment: rows.segment[at]!,
      time_ms: rows.time_ms[at]!,
      record_count: rows.record_count[at]!,
      series: rows.series[at]!,
      drifting: rows.drifting[at]!,
      violated: rows.violated[at]!,
      trend: rows.trend[at]!,
    });
  });
  return new Set(rows.feature);
}

/** Takes glances over, keeping what the configuration says. Says whether a monitor came that was not known. */
export function takeGlances(model: Model, glances: Glance[]): boolean {
  let isNew = false;
  for (const glance of glances) {
    const known = model.monitors.find((monitor) => monitor.name === glance.name);
    if (known) Object.assign(known, glance);
    else isNew = true;
  }
  return isNew;
}

/** The thresholds of a feature: its own, or its monitor's. */
export function thresholds(monitor: Monitor | null, feature?: string): [number, number] | null {
  const settings = monitor?.settings;
  if (!settings) return null;
  return (feature !== undefined && settings.feature_thresholds[feature]) || [settings.possible_drift, settings.drift];
}

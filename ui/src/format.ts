// Numbers, times and CSV, as people read them.

const grouped = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value: number): string => grouped.format(Math.round(value));
export const short = (value: number): string => (value < 10_000 ? count(value) : compact.format(value));

export function psi(value: number | null | undefined): string {
  if (value == null) return "–";
  if (value !== 0 && value < 0.0001) return "<0.0001";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 ? 2 : 4);
}

export function probability(value: number | null | undefined): string {
  if (value == null) return "–";
  if (value >= 0.001) return value.toFixed(3);
  return value < 1e-300 ? "<1e-300" : value.toExponential(1).replace("e-", "e−");
}

export function percent(value: number): string {
  const points = value * 100;
  if (points === 0) return "0 %";
  if (points < 0.01) return "<0.01 %";
  return `${points < 1 ? points.toFixed(2) : points.toFixed(1)} %`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short" });
const full = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});

export const dateTime = (ms: number): string => full.format(ms);

/** The time of day; with the day where it is not today's. */
export function time(ms: number): string {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return isToday ? clock.format(ms) : `${day.format(ms)} ${clock.format(ms)}`;
}

const UNITS: [number, string][] = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1000, "s"],
];

/** `42 s`, `3 min`, `5.5 h`. */
export function duration(ms: number): string {
  for (const [unit, name] of UNITS) {
    if (ms >= unit) {
      const value = ms / unit;
      return `${value < 10 && unit > 1000 ? Number(value.toFixed(1)) : Math.round(value)} ${name}`;
    }
  }
  return `${Math.max(0, Math.round(ms))} ms`;
}

export const ago = (ms: number): string => (ms < 1500 ? "just now" : `${duration(ms)} ago`);

/** Rows with a header, as RFC 4180 has them. What a spreadsheet would take for a formula is made a text. */
export function csv(header: string[], rows: (string | number | boolean | null | undefined)[][]): string {
  const cell = (value: string | number | boolean | null | undefined): string => {
    if (value == null) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

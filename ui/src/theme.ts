// Light or dark: as the system has it, or as the reader chose.

import { forgetColours } from "./dom";

export type Theme = "system" | "light" | "dark";

const KEY = "leeway-theme";
const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const listeners = new Set<() => void>();

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    // A browser that keeps nothing.
    return "system";
  }
}

let theme = stored();
const system = matchMedia("(prefers-color-scheme: dark)");

/** The style sheet knows two themes; which of them the system has is found here. */
function apply(): void {
  document.documentElement.dataset["theme"] = theme === "system" ? (system.matches ? "dark" : "light") : theme;
  forgetColours();
  listeners.forEach((listener) => listener());
}

export const current = (): Theme => theme;

export function next(): void {
  theme = NEXT[theme];
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Then it holds for this page.
  }
  apply();
}

/** Called when colours change: what is drawn on a canvas has to be drawn again. */
export function onChange(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

system.addEventListener("change", apply);
apply();

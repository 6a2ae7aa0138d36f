// What the figures are of: scope, partition, segment, and how far back.

import { get, path, url } from "../api";
import { h, put } from "../dom";
import * as format from "../format";
import type { Model } from "../model";
import { RANGES } from "../route";

export function selectors(model: Model): { element: HTMLElement; update(): void } {
  const element = h("div", { class: "selectors", role: "group", "aria-label": "What is shown" });
  let drawn = "";
  const update = (): void => {
    const { monitor, route } = model;
    const key = JSON.stringify([monitor?.name, monitor?.scopes, monitor?.partitions, monitor && monitor.segments > 0, route.scope, route.partition, route.segment, route.range]);
    if (key === drawn || !monitor) return;
    drawn = key;
    const children: Node[] = [];
    if (monitor.scopes.length > 1) {
      children.push(
        choice("Scope", route.scope ?? "", [["", "All"], ["partition", "Partitions"], ["global", "Whole topic"]], (value) =>
          model.go({ scope: value === "partition" || value === "global" ? value : null, partition: null }, true),
        ),
      );
    }
    if (monitor.partitions.length > 1 && route.scope !== "global") {
      const options: [string, string][] = [["", `All ${monitor.partitions.length}`], ...monitor.partitions.map((partition): [string, string] => [String(partition), String(partition)])];
      children.push(choice("Partition", route.partition === null ? "" : String(route.partition), options, (value) => model.go({ partition: value === "" ? null : Number(value) }, true)));
    }
    if (monitor.segments > 0) children.push(segment(model, monitor.name, monitor.segments));
    const ranges: [string, string][] = [["", "All"], ...Object.keys(RANGES).map((range): [string, string] => [range, range])];
    children.push(
      h(
        "div",
        { class: "segmented", role: "group", "aria-label": "Time" },
        ...ranges.map(([value, name]) =>
          h("button", { type: "button", "aria-pressed": String((route.range ?? "") === value), click: () => model.go({ range: value || null }, true) }, name),
        ),
      ),
    );
    put(element, ...children);
  };
  update();
  return { element, update };
}

function choice(name: string, value: string, options: [string, string][], change: (value: string) => void): HTMLElement {
  return h(
    "label",
    { class: "choice" },
    h("span", {}, name),
    h(
      "select",
      { change: (event: Event) => change((event.target as HTMLSelectElement).value) },
      ...options.map(([option, text]) => h("option", { value: option, selected: option === value }, text)),
    ),
  );
}

/** There may be thousands: a text with suggestions. */
function segment(model: Model, monitor: string, count: number): HTMLElement {
  const list = h("datalist", { id: "segments" });
  const input = h("input", {
    list: "segments",
    value: model.route.segment ?? "",
    placeholder: `All ${format.count(count)}`,
    autocomplete: "off",
    spellcheck: "false",
    input: () => void suggest(),
    change: () => model.go({ segment: input.value.trim() || null }, true),
    focus: () => void suggest(),
  });
  const suggest = async (): Promise<void> => {
    const found = await get<{ segments: string[] }>(url(`monitors/${path(monitor)}/segments`, { q: input.value })).catch(() => null);
    if (found) put(list, ...found.segments.map((value) => h("option", { value })));
  };
  return h("label", { class: "choice" }, h("span", {}, "Segment"), input, list);
}

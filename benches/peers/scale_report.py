"""The results of scale.py as Markdown, with what the formulas of docs/capacity.md say beside what was measured."""

import datetime
import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import model
from drain import Drain
from model import Changelog, Costs
from points import BASE, DIMENSIONS, MIB, THREADS, Point
from report import processor, table, warmed_up
from warm import WarmUp

MARKS = ("<!-- make bench-scale: begin -->", "<!-- make bench-scale: end -->")


@dataclass(frozen=True)
class Run:
    drain: Drain
    changelog: Changelog
    # As the broker keeps them.
    events_bytes: int
    disk_bytes: int
    # From the start of the process until each partition had a commit; infinite when that was not seen.
    start_seconds: float

    @property
    def is_warm(self) -> bool:
        """Whether the start was over when half of the records were committed."""
        return self.start_seconds <= self.drain.half.seconds and self.drain.half.records < self.drain.last.records

    @property
    def cpu(self) -> float:
        """Without the start where that can be told apart."""
        return self.drain.cpu_per_million_second_half if self.is_warm else self.drain.cpu_per_million


Measured = list[tuple[Point, list[Run]]]


def median(runs: list[Run], value: Callable[[Run], float]) -> float:
    return statistics.median(value(one) for one in runs)


def cpu(runs: list[Run]) -> float:
    return median(runs, lambda one: one.cpu)


def is_steady(point: Point, runs: list[Run]) -> bool:
    """Whether the CPU is that of records. A few tasks start in no time; of hundreds the last one starts seconds after the first has records."""
    return is_warm(runs) or point.partitions <= BASE.partitions


def start(runs: list[Run]) -> str:
    seconds = median(runs, lambda one: one.start_seconds)
    return f"{seconds:.1f}" if math.isfinite(seconds) else "not seen"


def is_warm(runs: list[Run]) -> bool:
    return all(one.is_warm for one in runs)


def middle(runs: list[Run]) -> Changelog:
    """That of the run with the median of the bytes."""
    return sorted((one.changelog for one in runs), key=lambda one: one.content_bytes)[len(runs) // 2]


def costs_table(name: str, measured: Measured, costs: Costs | None) -> str:
    rows = []
    for point, runs in measured:
        predicted = f"{costs.predict(point, middle(runs)):.2f}" if costs and DIMENSIONS[name].is_modelled else ""
        rows.append(
            [
                point.label,
                f"{point.records:,}",
                f"{median(runs, lambda one: one.drain.rate):,.0f}",
                f"{median(runs, lambda one: one.drain.cpu_per_million):.2f}",
                f"{cpu(runs):.2f}" if is_warm(runs) else "",
                predicted,
                f"{median(runs, lambda one: one.drain.broker_cpu_per_million):.2f}",
                f"{median(runs, lambda one: one.drain.peak_bytes) / MIB:.0f}",
                start(runs),
                f"{runs[0].drain.events:,}",
                f"{per(runs, lambda one: one.events_bytes, lambda one: one.drain.events):.0f}",
            ]
        )
    header = [
        DIMENSIONS[name].column,
        "records",
        "records/s",
        "CPU s per million records",
        "of the second half",
        "by the formula",
        "the broker's",
        "peak memory, MiB",
        "s until all partitions ran",
        "events",
        "bytes an event, stored",
    ]
    return table(header, rows)


def per(runs: list[Run], value: Callable[[Run], float], count: Callable[[Run], float]) -> float:
    return median(runs, lambda one: value(one) / max(count(one), 1))


def changelog_table(every: list[tuple[str, Measured]]) -> str:
    """Segments have windows of their own, and are left out: the formula is of a window for a partition."""
    rows = []
    for name, measured in every:
        for point, runs in measured:
            if point.segments:
                continue
            log = middle(runs)
            rows.append(
                [
                    f"{name} {point.label}",
                    f"{log.commits:,}",
                    f"{log.heads:,}",
                    f"{log.panes:,} (formula: {model.panes_about(point, log.heads):,})",
                    f"{log.content_bytes / log.commits:,.0f}",
                    f"{model.changelog_bytes(point, log.heads, log.panes) / log.commits:,.0f}",
                    f"{log.stored_bytes / log.commits:,.0f}",
                ]
            )
    header = [
        "point",
        "commits",
        "commits of a partition",
        "panes",
        "changelog bytes a commit, keys and values",
        "by the formula",
        "as stored, with batches and markers",
    ]
    return table(header, rows)


def modelled(every: list[tuple[str, Measured]]) -> list[tuple[Point, Changelog, float]]:
    all_points = [one for name, measured in every if DIMENSIONS[name].is_modelled for one in measured]
    found = {point.setting: (point, middle(runs), cpu(runs)) for point, runs in all_points if is_steady(point, runs)}
    return list(found.values())


def formula(costs: Costs, points: int) -> str:
    rows = [[name, f"{cost:.3f}"] for name, cost in costs.values.items()]
    text = (
        "One formula for all points but those of segments, instances and long starts: CPU seconds per million of each, by least "
        f"squares of the relative errors of {points} points. 0 is what could not be told from the noise."
    )
    return text + "\n\n" + table(["of", "CPU s per million"], rows)


def combined(measured: Measured, costs: Costs) -> str:
    lines = []
    for point, runs in measured:
        predicted, found = costs.predict(point, middle(runs)), cpu(runs)
        lines.append(f"{point.label}: {predicted:.2f} CPU s per million by the formula, {found:.2f} measured ({predicted / found - 1:+.0%}).")
    return "\n".join(lines)


def beside(measured: Measured, peers: dict[Point, list[Drain]]) -> str:
    rows = []
    for point, runs in measured:
        drains = {"**leeway run**, exactly once": [one.drain for one in runs], "Kafka Streams, exactly once": peers.get(point.setting, [])}
        for title, some in drains.items():
            if some:
                rate = statistics.median(one.rate for one in some)
                cpu_seconds = statistics.median(one.cpu_per_million for one in some)
                peak = statistics.median(one.peak_bytes for one in some) / MIB
                rows.append([title, f"{rate:,.0f}", f"{cpu_seconds:.2f}", f"{peak:.0f}"])
    return table(["contestant", "records/s", "CPU s per million records", "peak memory, MiB"], rows)


def memory(measured: Measured) -> str:
    rows = [
        [
            point.label,
            f"{median(runs, lambda one: one.changelog.state_bytes) / MIB:.0f}",
            f"{median(runs, lambda one: one.changelog.state_bytes) / (point.memory_max_bytes or 512 * MIB):.1f}",
            f"{median(runs, lambda one: one.disk_bytes) / MIB:.0f}",
            f"{median(runs, lambda one: one.drain.peak_bytes) / MIB:.0f}",
        ]
        for point, runs in measured
    ]
    header = ["segments and `memory_max_bytes`", "state, MiB of keys and values", "times the bound", "state on disk, MiB", "peak memory, MiB"]
    return "Does the setting bound the memory?\n\n" + table(header, rows)


def section(
    measured: dict[str, Measured], peers: dict[Point, list[Drain]], rounds: int, share: float, failures: dict[str, str], warm_up: WarmUp | None
) -> str:
    every = [(name, points) for name, points in measured.items() if points]
    fitted = modelled(every)
    # With fewer points than terms and some to spare anything fits.
    costs = model.fit(fitted) if len(fitted) > len(model.TERMS) else None
    less = "" if share == 1 else f" {share:g} of the records of a real measurement: the figures show that it works, and nothing else."
    parts = [
        f"{datetime.date.today()}, `make bench-scale`: {rounds} runs of each point, in turn, medians{warmed_up(warm_up)}; one Apache Kafka on the "
        f"same {os.cpu_count()} cores ({processor()}). Base point: 5 features of ten bins, 8 partitions, windows of 1,000 records checked every 100, "
        f"{THREADS} threads, a commit every 100 ms. Counted from the first commit to the last offset.{less}",
        "The second half has a figure where all partitions ran by then, and the formula goes by it; elsewhere the start is in the figures, and with "
        f"more than {BASE.partitions} partitions the formula does without them.",
    ]
    for name, points in every:
        dimension = DIMENSIONS[name]
        parts += [f"### {dimension.title}", *dimension.notes, costs_table(name, points, costs)]
        if name == "memory":
            parts.append(memory(points))
        if dimension.has_peer:
            parts.append(beside(points, peers))
        if name == "combined":
            parts.append(combined(points, costs) if costs else f"Nothing to compare with: the formula needs more than {len(model.TERMS)} points.")
    if costs:
        parts += ["### The formula", formula(costs, len(fitted))]
    parts += ["### The changelog", changelog_table(every)]
    parts += [f"Failed: {what}: {reason}" for what, reason in failures.items()]
    return "\n\n".join(parts)

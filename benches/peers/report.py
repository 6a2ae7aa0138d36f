"""The results as Markdown, and where they stand in docs/benchmarks.md."""

import datetime
import os
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from contestants import ROOT, Contestant
from drain import STOLEN_MAX, Drain
from latency import Latency
from warm import WarmUp

DOCUMENT = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
# Ratios below this are told with two digits behind the point.
DIGITS_BELOW = 10
# Each floor, and who has measured it.
FLOORS = {"fetching by poll": ["poll"], "fetching by batch": ["batch", "batch-2"], "fetching and strict JSON": ["validate", "validate-2"]}


@dataclass
class Results:
    partitions: int
    rounds: int
    bytes_mean: float
    warm_up: WarmUp | None = None
    # Runs that were tried again.
    repeated: int = 0
    drains: dict[str, list[Drain]] = field(default_factory=dict)
    latencies: list[tuple[str, Latency]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)


def median(drains: list[Drain], value: Callable[[Drain], float]) -> float:
    return statistics.median(value(one) for one in drains)


def spread(drains: list[Drain], value: Callable[[Drain], float]) -> str:
    values = sorted(value(one) for one in drains)
    return f"{statistics.median(values):,.0f} ({values[0]:,.0f} to {values[-1]:,.0f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fastest(results: Results, names: list[str]) -> list[float]:
    """Records a second of the faster of them, round by round."""
    rounds = zip(*(results.drains[name] for name in names if name in results.drains), strict=False)
    return [max(drain.rate for drain in drains) for drains in rounds]


def ratios(results: Results, names: list[str], others: list[str]) -> list[float]:
    """Round by round, since the machine's speed changes from one to another."""
    return [one / other for one, other in zip(fastest(results, names), fastest(results, others), strict=False)]


def ratio(results: Results, name: str, floor: list[str]) -> str:
    """To the fastest of the floor's."""
    found = ratios(results, [name], floor)
    return f"{statistics.median(found):.2g}" if found else ""


def against(results: Results, contestants: list[Contestant]) -> str:
    """How many times as much as each of the others `leeway run` does with its defaults. Of one thread and two of another the faster counts."""
    titles = {one.name: one.title for one in contestants if not one.name.startswith("leeway") and not one.name.endswith(("-1", "-2"))}
    rows = []
    for name, title in titles.items():
        found = sorted(ratios(results, ["leeway"], [name, f"{name}-1", f"{name}-2"]))
        if found:
            rows.append([title, *(times(value) for value in (statistics.median(found), found[0], found[-1]))])
    return table(["`leeway run` has of the records/s of", "times, median of the rounds", "lowest", "highest"], rows) if rows else ""


def times(value: float) -> str:
    return f"{value:,.0f}" if value >= DIGITS_BELOW else f"{value:.2f}"


def throughput(results: Results, contestants: list[Contestant]) -> str:
    rows, costs = [], []
    for one in contestants:
        drains = results.drains.get(one.name)
        if not drains:
            continue
        rows.append(
            [
                one.title,
                f"{drains[0].records:,}",
                spread(drains, lambda drain: drain.rate),
                f"{median(drains, lambda drain: drain.rate_second_half):,.0f}",
                *(ratio(results, one.name, floor) for floor in FLOORS.values()),
                f"{median(drains, lambda drain: drain.first.seconds):.2f}",
                f"{median(drains, lambda drain: drain.rate_whole):,.0f}",
            ]
        )
        costs.append(
            [
                one.title,
                f"{median(drains, lambda drain: drain.cpu_per_million):.2f}",
                f"{median(drains, lambda drain: drain.cpu_per_million_second_half):.2f}",
                f"{median(drains, lambda drain: drain.broker_cpu_per_million):.2f}",
                f"{median(drains, lambda drain: drain.peak_bytes) / 2**20:.0f}",
                f"{median(drains, lambda drain: drain.events_rate):,.0f}" if one.emits else "",
                f"{max(drain.stolen for drain in drains):.1%}",
            ]
        )
    speed = table(
        [
            "contestant",
            "records",
            "records/s, median (lowest to highest)",
            "of the second half",
            *(f"ratio to {floor}" for floor in FLOORS),
            "s to the first",
            "records/s with the start",
        ],
        rows,
    )
    header = ["contestant", "CPU s per million records", "of the second half", "the broker's", "peak memory, MiB", "events/s", "stolen at most"]
    cost = table(header, costs)
    return f"{speed}\n\n{cost}"


def latency(results: Results) -> str:
    rows = [
        [
            title,
            f"{one.rate:,}",
            f"{one.reached:,.0f}",
            *(milliseconds(value) for value in (one.p50, one.p99, one.p999)),
            kept_up(one),
            f"{one.stolen:.1%}",
        ]
        for title, one in results.latencies
    ]
    return table(["contestant", "records/s wanted", "sent", "p50 ms", "p99 ms", "p99.9 ms", "kept up", "stolen"], rows)


def milliseconds(value: float) -> str:
    return f"{value:,.0f}"


def kept_up(one: Latency) -> str:
    return "yes" if one.kept_up else f"no: {one.behind_seconds:.0f} s behind at the end"


def processor() -> str:
    with open("/proc/cpuinfo") as info:  # noqa: PTH123
        found = re.search(r"model name\s*: (.*)", info.read())
    return found[1] if found else platform.machine()


def warmed_up(warm_up: WarmUp | None) -> str:
    if warm_up is None:
        return ""
    return f" after {warm_up.runs} runs that do not count, in the last of which the broker's compiler took {warm_up.share:.0%} of its CPU"


def section(results: Results, contestants: list[Contestant]) -> str:
    """All of it."""
    runs = (
        f"{results.rounds} rounds in turn{warmed_up(results.warm_up)}, records of {results.bytes_mean:.0f} bytes, lz4, warm in the page cache; "
        if results.drains
        else ""
    )
    parts = [
        f"{datetime.date.today()}, `make bench`: {results.partitions} partitions; {runs}one Apache Kafka on the same {os.cpu_count()} cores "
        f"({processor()}). `benches/peers/leeway.toml` says what they do: windows of 1,000 checked every 100 records, by thresholds alone.",
    ]
    if results.compared:
        parts.append("Equal before timing:\n\n" + "\n".join(f"- {line}" for line in results.compared))
    if results.drains:
        parts.append(
            "Records, CPU and events count from the first commit to the commit of the last offset; for those who commit whenever they like, "
            "or never (floors, the Python consumers), from the first record until what the last one led to is with the broker. The time to the first "
            "stands apart: it has the start of the process and the joining of the group in it. The second half leaves warming up out too. Stolen: "
            f"the share of the cores' time that the hypervisor gave to others; {results.repeated} runs that had lost more than {STOLEN_MAX:.0%} were "
            "tried again, and the one that had lost least counts."
        )
        parts.append(throughput(results, contestants))
        if found := against(results, contestants):
            parts.append(found)
    if results.latencies:
        parts.append("From the append of a window's last record to its events being readable (read committed), timestamps of whole milliseconds:")
        parts.append(latency(results))
    parts += [f"Failed: {name}: {reason}" for name, reason in results.failures.items()]
    return "\n\n".join(parts)


def write(text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """In place of what stood between the marks."""
    document = DOCUMENT.read_text()
    before, begin, rest = document.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} has no {marks[0]} and {marks[1]}")
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")

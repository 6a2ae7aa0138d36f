"""Until a broker that was just started is what one is that runs for months.

HotSpot's second compiler (C2) goes through a new broker's code for minutes, on the cores that everything else runs on: under full load it takes
as much CPU as the requests do at first, and little after three or four minutes. What is measured meanwhile is the compiler.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drain import busy_seconds, cpu_seconds

COMPILER = "C2 CompilerThre"
# Of the broker's CPU, in the last runs together.
SHARE_MAX = 0.2
RUNS = 3
RUNS_MAX = 40


@dataclass(frozen=True)
class WarmUp:
    """How many runs there were, and which share of the broker's CPU its compiler had in the last ones."""

    runs: int
    share: float


def until_compiled(broker: int, run: Callable[[int], object], say: Callable[[str], None]) -> WarmUp:
    """Repeats a run, which is told its number."""
    taken: list[tuple[float, float]] = []
    share = 1.0
    while len(taken) < RUNS or (share >= SHARE_MAX and len(taken) < RUNS_MAX):
        before = compiler_seconds(broker), cpu_seconds(broker)
        run(len(taken))
        taken.append((compiler_seconds(broker) - before[0], cpu_seconds(broker) - before[1]))
        compiler, whole = (sum(column) for column in zip(*taken[-RUNS:], strict=True))
        # A compiler's thread that had nothing to do is gone, with what it had taken.
        share = max(compiler, 0.0) / whole if whole else 0.0
        say(f"warming the broker up: {share:.0%} of its CPU is its compiler's")
    return WarmUp(len(taken), share)


def compiler_seconds(pid: int) -> float:
    found = 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            if (thread / "comm").read_text().strip() == COMPILER:
                found += busy_seconds(thread / "stat")
        except FileNotFoundError:
            continue
    return found

"""What a record should cost: CPU as a sum of measured costs, bytes of the changelog by docs/formats.md.

scale.py compares both with what it measures.
"""

from dataclasses import dataclass

import numpy as np

from points import Point

# The value bytes of a window head, a progress record and a pane that do not depend on the features, and their keys, with the monitor name `default`.
PROGRESS_BYTES = 1 + 33
HEAD_BYTES = 12 + 41
PANE_BYTES = 18 + 35
# A numeric feature with ten bins: they, missing, below and above, a byte each up to 250.
COUNTERS = 13
# Of a feature in a head, beside its name.
FEATURE_HEAD_BYTES = 4


@dataclass(frozen=True)
class Changelog:
    """What a run wrote to it."""

    commits: int
    # Commits of a partition with records in it: heads.
    heads: int
    panes: int
    # Keys and values.
    content_bytes: int
    # Batches as the broker keeps them, with the markers of transactions.
    stored_bytes: int
    # Of the last value of each key.
    state_bytes: int


def head_bytes(features: int) -> int:
    names = sum(len(f"feature{number}") for number in range(1, features + 1))
    return HEAD_BYTES + names + features * FEATURE_HEAD_BYTES


def pane_bytes(features: int) -> int:
    return PANE_BYTES + features * COUNTERS


def changelog_bytes(point: Point, heads: int, panes: int) -> int:
    """Per commit of a partition a head and a progress record, and the panes that changed."""
    return heads * (PROGRESS_BYTES + head_bytes(point.features)) + panes * pane_bytes(point.features)


def panes_about(point: Point, heads: int) -> int:
    """Per commit of a partition those that records filled, and the one that grows."""
    return min(point.records // point.every + heads, heads * point.window // point.every)


# What a record's CPU is a sum of, and how much of it a point has per record.
TERMS = {
    "base, a record": lambda point, log: 1.0,
    "a monitored feature": lambda point, log: point.features,
    "kB that is not monitored": lambda point, log: point.extra_bytes / 1e3,
    "an event": lambda point, log: point.events / point.records,
    "a pane looked at by a check": lambda point, log: point.panes_looked_at / point.records,
    "kB of changelog": lambda point, log: log.content_bytes / 1e3 / point.records,
}


@dataclass(frozen=True)
class Costs:
    """CPU seconds per million of each term."""

    values: dict[str, float]

    def predict(self, point: Point, log: Changelog) -> float:
        return sum(cost * TERMS[name](point, log) for name, cost in self.values.items())


def fit(measured: list[tuple[Point, Changelog, float]]) -> Costs:
    """Least squares of relative errors. No term may cost less than nothing: one that would is left out."""
    names = list(TERMS)
    wanted = np.array([cpu for _, _, cpu in measured])
    while True:
        rows = np.array([[TERMS[name](point, log) for name in names] for point, log, _ in measured])
        found = np.linalg.lstsq(rows / wanted[:, None], np.ones(len(wanted)), rcond=None)[0]
        if found.min() >= 0:
            break
        names.pop(int(found.argmin()))
    costs = dict(zip(names, found.tolist(), strict=True))
    return Costs({name: costs.get(name, 0.0) for name in TERMS})

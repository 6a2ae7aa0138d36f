"""What the Python contestants have in common: the reference, PSI, and the drift events of one check."""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NO_DRIFT, POSSIBLE_DRIFT, DRIFT = "no_drift", "possible_drift", "drift"
SUMMARY = "*"


@dataclass
class Feature:
    """A numeric feature of a reference file. Its last bin is that of missing values."""

    name: str
    edges: np.ndarray
    counts: np.ndarray
    labels: list[str]

    @property
    def bins(self) -> int:
        return len(self.counts)

    def bin_of(self, values: np.ndarray) -> np.ndarray:
        """Bin i holds (e_(i-1), e_i]; NaN stands for missing."""
        return np.where(np.isnan(values), self.bins - 1, np.searchsorted(self.edges, values, side="left"))


@dataclass
class Window:
    """What a check looks at."""

    record_count: int
    window_count: int
    start_offset: int
    end_offset: int
    start_ms: int
    end_ms: int


class Monitor:
    """Judges windows as `leeway run` does with `significance = 0`."""

    def __init__(self, settings: argparse.Namespace) -> None:
        reference = json.loads(Path(settings.reference).read_text())
        self.settings = settings
        self.version = reference["version"]
        self.features = [feature(one) for one in reference["features"]]
        self.names = [one.name for one in self.features]

    def values(self, record: dict[str, Any]) -> list[float]:
        """The features of a record; what is no finite number is missing."""
        row = []
        for name in self.names:
            value = record.get(name)
            row.append(float(value) if type(value) in (float, int) and math.isfinite(value) else math.nan)
        return row

    def status(self, psi: float) -> str:
        if psi >= self.settings.drift:
            return DRIFT
        return POSSIBLE_DRIFT if psi >= self.settings.possible_drift else NO_DRIFT

    def events(self, partition: int, window: Window, counts: list[np.ndarray], previous: list[str | None]) -> list[dict[str, Any]]:
        """One event for each feature and one for all; `previous` are the last statuses, and become these ones."""
        events = []
        drifted, total = 0, 0.0
        for index, (one, counted) in enumerate(zip(self.features, counts, strict=True)):
            reference_rows = int(one.counts.sum())
            expected = np.maximum(one.counts / reference_rows, self.settings.epsilon)
            actual = np.maximum(counted / window.window_count, self.settings.epsilon)
            contributions = (actual - expected) * np.log(actual / expected)
            psi = float(contributions.sum())
            freedom = int(np.count_nonzero(one.counts + counted)) - 1
            top = int(contributions.argmax())
            event = self.event(partition, window, one.name, psi, previous[index])
            event["psi_null_mean"] = freedom * (1 / reference_rows + 1 / window.window_count)
            event["missing_count"] = int(counted[-1])
            event["counts"] = [int(count) for count in counted]
            if psi > 0:
                event["top_bin"], event["top_bin_contribution"] = one.labels[top], float(contributions[top])
            previous[index] = event["status"]
            drifted += event["status"] == DRIFT
            total += psi
            events.append(event)
        summary = self.event(partition, window, SUMMARY, total / len(self.features), previous[-1])
        summary["feature_count"], summary["drifted_features"] = len(self.features), drifted
        previous[-1] = summary["status"]
        events.append(summary)
        return events

    def event(self, partition: int, window: Window, feature: str, psi: float, previous: str | None) -> dict[str, Any]:
        """All fields that `leeway run` writes, in its order; those that are not worked out here are null."""
        of = self.settings
        return {
            "schema_version": 1,
            "event_id": f"{of.application_id}/default/{of.topic}/{partition}/partition//{feature}/{window.end_offset}/{self.version}",
            "kind": "drift",
            "monitor": "default",
            "scope": "partition",
            "partition": partition,
            "segment": None,
            "feature": feature,
            "psi": psi,
            "p_value": None,
            "psi_null_mean": None,
            "significant": None,
            "status": self.status(psi),
            "previous_status": previous,
            "record_count": window.record_count,
            "window_count": window.window_count,
            "missing_count": None,
            "below_range_count": None,
            "above_range_count": None,
            "window_start_offset": window.start_offset,
            "window_end_offset": window.end_offset,
            "window_start_ms": window.start_ms,
            "window_end_ms": window.end_ms,
            "counts": None,
            "top_bin": None,
            "top_bin_contribution": None,
            "feature_count": None,
            "drifted_features": None,
            "reference_version": self.version,
            "closed_by": None,
            "js": None,
            "ks": None,
            "wasserstein": None,
            "chi2_p_value": None,
        }


def feature(of: dict[str, Any]) -> Feature:
    if of["kind"] != "numeric" or of["binning"] == "discrete":
        raise SystemExit(f"feature {of['name']}: the contestants know numeric features with edges only")
    ends = [decimal(edge) for edge in of["edges"]]
    labels = [f"({low}, {high}{')' if high == 'inf' else ']'}" for low, high in zip(["-inf", *ends], [*ends, "inf"], strict=True)]
    return Feature(of["name"], np.array(of["edges"]), np.array([*of["counts"], of["missing"]]), [*labels, "__missing__"])


def decimal(value: float) -> str:
    return repr(value).removesuffix(".0")


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that all have. bench.py gives them the values of benches/peers/leeway.toml, which are the defaults here."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--application-id", default="drift-monitor-group", help="the consumer group")
    parser.add_argument("--topic", default="drift-data")
    parser.add_argument("--events-topic", default="drift-events")
    parser.add_argument("--reference", required=True, help="made by `leeway reference build`")
    parser.add_argument("--window-size", type=int, default=1000)
    parser.add_argument("--window-every", type=int, default=100)
    parser.add_argument("--min-samples", type=int, default=100)
    parser.add_argument("--possible-drift", type=float, default=0.1)
    parser.add_argument("--drift", type=float, default=0.25)
    parser.add_argument("--epsilon", type=float, default=0.0001)
    return parser


class Progress:
    """Says `progress N` at the first record, at the half and at the last of those that were asked for."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.marks = sorted({1, max(records // 2, 1), records}, reverse=True)
        self.seen = 0

    def add(self, records: int) -> bool:
        """Whether that was all."""
        self.seen += records
        if self.marks and self.seen >= self.marks[-1] and self.seen < self.records:
            while self.marks and self.seen >= self.marks[-1]:
                self.marks.pop()
            print(f"progress {self.seen}", flush=True)
        return self.seen >= self.records

    def done(self) -> None:
        """Said once everything that the records led to is with the broker; then waits until standard input is closed, to be looked at."""
        print(f"progress {self.records}", flush=True)
        sys.stdin.read()

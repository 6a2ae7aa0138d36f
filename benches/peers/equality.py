"""Before anything is timed: every contestant that emits events has to emit what `leeway run` does, on a small topic that begins to drift."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from kafka import Kafka

from contestants import Contestant, Job
from drain import by_commits, by_lines, output_topics, running

# Equal to the last bit.
EXACT = [
    "record_count",
    "window_count",
    "missing_count",
    "window_start_offset",
    "window_start_ms",
    "window_end_ms",
    "counts",
    "status",
    "previous_status",
    "feature_count",
    "drifted_features",
    "reference_version",
]
# Logarithms and the order of sums differ between languages.
NEAR = ["psi", "psi_null_mean", "top_bin_contribution"]
NEAR_BY = 1e-9
STATUSES = {"no_drift", "possible_drift", "drift"}

# Partition, the window's last offset, feature.
Events = dict[tuple[int, int, str], dict[str, Any]]


@dataclass(frozen=True)
class Emitted:
    """What one contestant wrote."""

    events: Events
    bytes_mean: float


def emitted(kafka: Kafka, contestant: Contestant, job: Job, partitions: int) -> Emitted:
    with output_topics(kafka, job, partitions):
        with running(contestant, job) as one:
            for _ in (by_commits if contestant.commits else by_lines)(kafka, one, job, partitions):
                pass
        return read(job, partitions)


def read(job: Job, partitions: int) -> Emitted:
    """All committed events of a topic; the same one twice is an error."""
    consumer = Consumer({"bootstrap.servers": job.bootstrap, "group.id": "equality", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(job.events_topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    events: Events = {}
    size = 0
    at_end: set[int] = set()
    while len(at_end) < partitions:
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError(f"{job.events_topic} cannot be read to its end")
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
            at_end.add(message.partition())
            continue
        event = json.loads(message.value())
        place = (event["partition"], event["window_end_offset"], event["feature"])
        if place in events or message.key() != event["feature"].encode():
            raise ValueError(f"{place}: twice, or under the key {message.key()!r}")
        events[place] = event
        size += len(message.value())
    consumer.close()
    return Emitted(events, size / max(len(events), 1))


def has_all_statuses(events: Events) -> bool:
    """Whether these could tell a wrong rule from the right one."""
    return {event["status"] for event in events.values()} == STATUSES


def differences(ours: Events, theirs: Events) -> list[str]:
    found = [f"{place}: not there" for place in ours.keys() - theirs.keys()]
    found += [f"{place}: too much" for place in theirs.keys() - ours.keys()]
    for place in ours.keys() & theirs.keys():
        one, other = ours[place], theirs[place]
        found += [f"{place}: {name} {one[name]} and {other[name]}" for name in EXACT if one[name] != other[name]]
        found += [f"{place}: {name} {one[name]} and {other[name]}" for name in NEAR if not near(one[name], other[name])]
    return found


def near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= NEAR_BY


def summary(name: str, one: Emitted) -> str:
    statuses = Counter(event["status"] for event in one.events.values())
    counted = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    return f"{name}: {len(one.events)} events of {one.bytes_mean:.0f} bytes, {counted}"

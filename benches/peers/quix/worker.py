"""Quix Streams with the same job as `leeway run`: state in RocksDB with a changelog topic, exactly once.

Its state belongs to a record's key; the records of this benchmark have none, and those of a partition then share one state, which is what is wanted.
The state of a partition is its panes, a small JSON each, of which a record changes one; the window is their sum. The rest is in benches/peers/python.

    PYTHONPATH=benches/peers/python python benches/peers/quix/worker.py --topic drift-data --reference reference.json
"""

from bisect import bisect_left
from typing import Any

import numpy as np
from quixstreams import Application, State, message_context

from drift import Monitor, Window, arguments


def main() -> None:
    parser = arguments("Quix Streams")
    parser.add_argument("--commit-interval-ms", type=int, default=100)
    parser.add_argument("--processing-guarantee", choices=["exactly-once", "at-least-once"], default="exactly-once")
    parser.add_argument("--state-dir", default="quix-state")
    settings = parser.parse_args()
    application = Application(
        broker_address=settings.bootstrap_servers,
        consumer_group=settings.application_id,
        auto_offset_reset="earliest",
        commit_interval=settings.commit_interval_ms / 1000,
        processing_guarantee=settings.processing_guarantee,
        state_dir=settings.state_dir,
        auto_create_topics=True,
        producer_extra_config={"compression.type": "lz4"},
        loglevel="WARNING",
    )
    worker = Worker(Monitor(settings))
    frame = application.dataframe(application.topic(settings.topic, value_deserializer="json"))
    frame = frame.apply(worker.process, stateful=True, expand=True, metadata=True)
    frame.to_topic(application.topic(settings.events_topic, key_serializer="str", value_serializer="json"), key=lambda event: event["feature"])
    application.run()


class Worker:
    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        of = monitor.settings
        self.slots = of.window_size // of.window_every
        self.edges = [list(one.edges) for one in monitor.features]
        # A bin at a time: for one value, bisect is ten times as fast as numpy.
        self.missing = [one.bins - 1 for one in monitor.features]

    def process(self, record: dict[str, Any], _key: Any, timestamp: int, _headers: Any, state: State) -> list[dict[str, Any]]:
        place = message_context()
        number = state.get("records", 0) + 1
        slot = (number - 1) // self.monitor.settings.window_every % self.slots
        if (number - 1) % self.monitor.settings.window_every:
            pane = state.get(f"pane/{slot}")
        else:
            pane = {"n": 0, "from": place.offset, "min": timestamp, "max": timestamp, "counts": [[0] * one.bins for one in self.monitor.features]}
        pane["n"] += 1
        pane["to"] = place.offset
        pane["min"], pane["max"] = min(pane["min"], timestamp), max(pane["max"], timestamp)
        for counts, edges, missing, value in zip(pane["counts"], self.edges, self.missing, self.monitor.values(record), strict=True):
            counts[bisect_left(edges, value) if value == value else missing] += 1
        state.set(f"pane/{slot}", pane)
        state.set("records", number)
        if number % self.monitor.settings.window_every or number < self.monitor.settings.min_samples:
            return []
        return self.check(place.partition, number, slot, state)

    def check(self, partition: int, number: int, slot: int, state: State) -> list[dict[str, Any]]:
        filled = min(number // self.monitor.settings.window_every, self.slots)
        # The oldest first.
        panes = [state.get(f"pane/{(slot + 1 + index) % self.slots if filled == self.slots else index}") for index in range(filled)]
        window = Window(
            number,
            sum(pane["n"] for pane in panes),
            panes[0]["from"],
            panes[-1]["to"],
            min(pane["min"] for pane in panes),
            max(pane["max"] for pane in panes),
        )
        counts = [np.sum([pane["counts"][index] for pane in panes], axis=0) for index in range(len(self.monitor.features))]
        previous = state.get("previous", [None] * (len(self.monitor.features) + 1))
        events = self.monitor.events(partition, window, counts, previous)
        state.set("previous", previous)
        return events


if __name__ == "__main__":
    main()

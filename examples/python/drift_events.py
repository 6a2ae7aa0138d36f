"""Follows drift events and reacts when a feature's status changes.

    pip install -r requirements.txt
    python drift_events.py --group retrain-trigger

Read committed: an event of a transaction that was aborted is never seen, and each other one is seen once. What this program does with them is another
matter: its position goes on after it has reacted, so that a reaction is made again, not left out, when it dies in between.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException


@dataclass(frozen=True)
class DriftEvent:
    """What most programs need of an event; `fields` has all of it."""

    monitor: str
    scope: str
    partition: int | None
    segment: str | None
    feature: str
    psi: float
    status: str
    previous_status: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, value: bytes) -> "DriftEvent | None":
        """`None`: of a kind that this program does not know; such are passed over, as are fields."""
        fields = json.loads(value)
        if fields.get("kind") != "drift":
            return None
        named = {name: fields[name] for name in cls.__dataclass_fields__ if name != "fields"}
        return cls(**named, fields=fields)

    @property
    def is_summary(self) -> bool:
        return self.feature == "*"

    @property
    def is_news(self) -> bool:
        """Its status is another than at the last check."""
        return self.status != (self.previous_status or "no_drift")


class DriftEventConsumer:
    """Drift events, each once."""

    def __init__(self, bootstrap_servers: str = "localhost:9092", topic: str = "drift-events", group: str = "drift-events-reader") -> None:
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": group,
                "isolation.level": "read_committed",
                # Commits what was stored below, every 5 s and at the end: after the reaction, not when the event is read.
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
            }
        )
        self.consumer.subscribe([topic])

    def events(self, patience: float | None = None) -> Iterator[DriftEvent]:
        """Without end, or until nothing came for so many seconds. The position goes on when the next event is asked for."""
        while True:
            message = self.consumer.poll(patience if patience is not None else 1)
            if message is None:
                if patience is not None:
                    return
                continue
            if message.error():
                raise KafkaException(message.error())
            event = DriftEvent.of(message.value())
            if event is not None:
                yield event
            self.consumer.store_offsets(message)

    def follow(self, react: Callable[[DriftEvent], None], patience: float | None = None) -> int:
        """Calls `react` for each change of a feature's status, and says how many there were."""
        news = 0
        for event in self.events(patience):
            if event.is_news and not event.is_summary:
                react(event)
                news += 1
        return news

    def close(self) -> None:
        """Commits, and leaves the group."""
        self.consumer.close()


def tell(event: DriftEvent) -> None:
    """Put your reaction here: a ticket, a retraining, a fallback model."""
    where = f"partition {event.partition}" if event.scope == "partition" else "whole topic"
    segment = f", {event.segment}" if event.segment else ""
    print(f"{event.monitor}, {where}{segment}: {event.feature} {event.previous_status} -> {event.status}, PSI {event.psi:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="drift-events")
    parser.add_argument("--group", default="drift-events-reader")
    parser.add_argument("--patience", type=float, help="end when nothing came for so many seconds")
    arguments = parser.parse_args()
    consumer = DriftEventConsumer(arguments.bootstrap_servers, arguments.topic, arguments.group)
    try:
        news = consumer.follow(tell, arguments.patience)
        print(f"{news} changes of status", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()

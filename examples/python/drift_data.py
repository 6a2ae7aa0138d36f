"""Sends features to Leeway: one JSON object a record, numbers and texts as they are, `None` for what is missing.

pip install -r requirements.txt
python drift_data.py --rows 10000 --drift-after 5000
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from types import TracebackType

from confluent_kafka import KafkaError, Message, Producer

Row = Mapping[str, float | int | str | bool | None]


class DriftDataProducer:
    """Sends rows, and says which could not be delivered when it is closed."""

    def __init__(self, bootstrap_servers: str = "localhost:9092", topic: str = "drift-data") -> None:
        self.topic = topic
        self.delivered = 0
        self.failed: list[str] = []
        # Idempotent: a record that is sent again after a lost answer is stored once.
        self.producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"})

    def send(self, row: Row, key: str | None = None) -> None:
        """Queues a row. Rows with the same key are in one partition, in order; without a key partitions take turns."""
        # Strict JSON: NaN and infinity are none, and a record that has them would be a dead letter.
        value = json.dumps(row, allow_nan=False).encode()
        while True:
            try:
                self.producer.produce(self.topic, value, key, on_delivery=self._told)
                break
            except BufferError:
                # The queue is full: wait for room instead of dropping rows.
                self.producer.poll(1)
        self.producer.poll(0)

    def _told(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.failed.append(str(error))

    def close(self, seconds: float = 30) -> None:
        """Waits until everything is delivered, so long at most."""
        left = self.producer.flush(seconds)
        if left or self.failed:
            raise RuntimeError(f"{left + len(self.failed)} rows were not delivered to {self.topic}: {self.failed[:3]}")

    def __enter__(self) -> "DriftDataProducer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()


def synthetic(rows: int, drift_after: int, shift: float = 1.5, seed: int = 42) -> Iterator[Row]:
    """Two features and a plan; after so many rows the first one moves."""
    rng = random.Random(seed)
    for number in range(rows):
        moved = shift if number >= drift_after else 0
        yield {"feature1": rng.gauss(moved, 1), "feature2": rng.gauss(10, 3), "plan": rng.choices(["basic", "pro"], [3, 1])[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="drift-data")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--drift-after", type=int, default=5_000)
    arguments = parser.parse_args()
    with DriftDataProducer(arguments.bootstrap_servers, arguments.topic) as producer:
        for row in synthetic(arguments.rows, arguments.drift_after):
            producer.send(row)
    print(f"sent {producer.delivered} rows to {arguments.topic}")


if __name__ == "__main__":
    main()

"""What somebody writes who knows Python and Kafka: batches of records, a deque, numpy. At most once or at least once, whatever a crash makes of it.

batch.py --topic drift-data --reference reference.json --records 100000
"""

import json
from collections import defaultdict, deque

import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer

from drift import Monitor, Progress, Window, arguments

BATCH_RECORDS = 1000


class Partition:
    """The last records of a partition."""

    def __init__(self, monitor: Monitor) -> None:
        size = monitor.settings.window_size
        self.rows: deque[list[float]] = deque(maxlen=size)
        self.places: deque[tuple[int, int]] = deque(maxlen=size)
        self.records = 0
        self.previous: list[str | None] = [None] * (len(monitor.features) + 1)


def main() -> None:
    parser = arguments("A consumer of batches with a deque and numpy")
    parser.add_argument("--records", type=int, required=True, help="ends after so many")
    settings = parser.parse_args()
    monitor = Monitor(settings)
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": settings.application_id,
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "compression.type": "lz4", "queue.buffering.max.messages": 500_000})
    consumer.subscribe([settings.topic])
    partitions: dict[int, Partition] = defaultdict(lambda: Partition(monitor))
    progress = Progress(settings.records)
    while True:
        messages = consumer.consume(BATCH_RECORDS, timeout=0.1)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            partition = partitions[message.partition()]
            try:
                record = json.loads(message.value())
            except ValueError:
                continue
            if not isinstance(record, dict):
                continue
            partition.records += 1
            partition.rows.append(monitor.values(record))
            partition.places.append((message.offset(), message.timestamp()[1]))
            if partition.records % settings.window_every == 0 and partition.records >= settings.min_samples:
                check(monitor, producer, settings.events_topic, message.partition(), partition)
        producer.poll(0)
        if messages and progress.add(len(messages)):
            break
    producer.flush()
    progress.done()
    consumer.close()


def check(monitor: Monitor, producer: Producer, topic: str, number: int, partition: Partition) -> None:
    columns = np.array(partition.rows).T
    counts = [np.bincount(one.bin_of(column), minlength=one.bins) for one, column in zip(monitor.features, columns, strict=True)]
    times = [time for _, time in partition.places]
    window = Window(partition.records, len(partition.rows), partition.places[0][0], partition.places[-1][0], min(times), max(times))
    for event in monitor.events(number, window, counts, partition.previous):
        producer.produce(topic, json.dumps(event, separators=(",", ":")), event["feature"])


if __name__ == "__main__":
    main()

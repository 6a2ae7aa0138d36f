"""What most people write first: a record at a time, a DataFrame of the last ones, and a question to the broker at each record for a gauge of the lag.

plain.py --topic drift-data --reference reference.json --records 5000
"""

import json
from collections import defaultdict, deque
from typing import Any

import numpy as np
import pandas as pd
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client import Gauge

from drift import Monitor, Progress, Window, arguments

LAG = Gauge("kafka_consumer_lag", "Records behind the end", ["topic", "partition"])


def main() -> None:
    parser = arguments("A consumer of records with pandas")
    parser.add_argument("--records", type=int, required=True, help="ends after so many")
    settings = parser.parse_args()
    monitor = Monitor(settings)
    consumer = KafkaConsumer(
        settings.topic,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=settings.application_id,
        auto_offset_reset="earliest",
    )
    producer = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        key_serializer=str.encode,
        value_serializer=lambda event: json.dumps(event, separators=(",", ":")).encode(),
    )
    windows: dict[int, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=settings.window_size))
    counters: dict[int, int] = defaultdict(int)
    previous: dict[int, list[str | None]] = defaultdict(lambda: [None] * (len(monitor.features) + 1))
    progress = Progress(settings.records)
    for message in consumer:
        place = TopicPartition(message.topic, message.partition)
        end = consumer.end_offsets([place])[place]
        LAG.labels(message.topic, message.partition).set(end - message.offset - 1)
        try:
            record = json.loads(message.value)
        except ValueError:
            record = None
        if isinstance(record, dict):
            window = windows[message.partition]
            window.append({**record, "offset": message.offset, "record_timestamp": message.timestamp})
            counters[message.partition] += 1
            counter = counters[message.partition]
            if counter % settings.window_every == 0 and counter >= settings.min_samples:
                for event in check(monitor, message.partition, pd.DataFrame(window), counter, previous[message.partition]):
                    producer.send(settings.events_topic, key=event["feature"], value=event)
        if progress.add(1):
            break
    producer.flush()
    progress.done()
    consumer.close()
    producer.close()


def check(monitor: Monitor, partition: int, frame: pd.DataFrame, counter: int, previous: list[str | None]) -> list[dict[str, Any]]:
    counts = []
    for one in monitor.features:
        column = pd.to_numeric(frame[one.name], errors="coerce") if one.name in frame else pd.Series(np.nan, index=frame.index)
        binned = pd.cut(column, [-np.inf, *one.edges, np.inf], labels=False)
        counts.append(binned.fillna(one.bins - 1).astype(int).value_counts().reindex(range(one.bins), fill_value=0).to_numpy())
    times, offsets = frame["record_timestamp"], frame["offset"]
    window = Window(counter, len(frame), int(offsets.iloc[0]), int(offsets.iloc[-1]), int(times.min()), int(times.max()))
    return monitor.events(partition, window, counts, previous)


if __name__ == "__main__":
    main()

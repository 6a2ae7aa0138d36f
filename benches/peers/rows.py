"""Records of any width for scale.py: numeric features, fields that nobody monitors, a segment."""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

# Different rows, sent again and again. Odd, so that each partition gets all of them; few when they are wide, so that they stay in memory.
ROWS_MAX = 20_001
ROWS_MIN = 1_001
POOL_BYTES = 64 << 20
# Of a field that is not monitored: its text, and all of it with name and quotes.
EXTRA_TEXT = 32
EXTRA_FIELD = 46


@dataclass(frozen=True)
class Shape:
    """What a topic holds. Two points of one shape share a topic."""

    records: int
    features: int
    partitions: int
    extra_bytes: int
    segments: int

    @property
    def topic(self) -> str:
        return f"scale-{self.features}f-{self.partitions}p-{self.extra_bytes}b-{self.segments}s-{self.records}"


def rows(features: int, extra_bytes: int) -> list[str]:
    """JSON objects without the last brace: features, then what `leeway produce --synthetic` has beside them, then what nobody reads."""
    width = features * 22 + extra_bytes
    count = max(ROWS_MIN, min(ROWS_MAX, POOL_BYTES // width | 1))
    template = "{" + ", ".join(f'"feature{number}": %.6f' for number in range(1, features + 1))
    values = np.random.default_rng(1).standard_normal((count, features)).tolist()
    extras = extra_fields(extra_bytes)
    return [f'{template % tuple(row)}, "target": 0, "timestamp": "2026-11-29T12:00:00Z"{next(extras)}' for row in values]


def extra_fields(size: int) -> Iterator[str]:
    letters = string.ascii_letters + string.digits
    source = random.Random(2)  # noqa: S311
    while True:
        texts = ("".join(source.choices(letters, k=EXTRA_TEXT)) for _ in range(size // EXTRA_FIELD))
        yield "".join(f', "extra{number:03}": "{text}"' for number, text in enumerate(texts))


def write_reference_rows(path: Path, features: int) -> None:
    """The same distribution, and nothing but features."""
    with path.open("w") as file:
        for row in rows(features, 0):
            file.write(row.partition(', "target"')[0] + "}\n")


def send(bootstrap: str, shape: Shape) -> float:
    """Fills the topic, each partition (and segment) with as many records; gives the mean size of a value."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 50,
            "batch.size": 500_000,
            "queue.buffering.max.kbytes": 128 << 10,
        }
    )
    pool = rows(shape.features, shape.extra_bytes)
    sent = 0
    for number in range(shape.records):
        row = pool[number % len(pool)]
        if shape.segments:
            # Each segment once before any comes again: the worst for a cache.
            segment = number * 7919 % shape.segments
            value, partition = f'{row}, "segment": "s{segment}"}}', segment % shape.partitions
        else:
            value, partition = row + "}", number % shape.partitions
        sent += len(value)
        while True:
            try:
                producer.produce(shape.topic, value, partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError(f"{shape.topic}: {len(producer)} records were not acknowledged within 120 s")
    return sent / shape.records

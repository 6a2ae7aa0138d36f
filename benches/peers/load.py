"""A steady load that costs little: batches as a producer made them, sent again and again.

A producer that makes and compresses rows on the cores where latency is measured takes them from what is measured; in practice it runs elsewhere.
So rows are produced once, into a pool, and its batches are sent as they are stored: one request with a batch for each partition, as Java's
producer sends them, at times that the rate gives. The broker sees what it sees of any producer without idempotence.

    pool: topic of one partition --its log--> batches --Produce, version 3--> topic under load
"""

import itertools
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer
from kafka import Kafka

from processes import output

# A producer with librdkafka's default `linger.ms` sends a partition's batch so often.
LINGER_SECONDS = 0.005
# What a topic under load has of different batches.
POOL_BATCHES = 64
# As many as producers have under way to one broker.
IN_FLIGHT = 5
PATIENCE_SECONDS = 60.0

PRODUCE, VERSION, ALL_REPLICAS, TIMEOUT_MS = 0, 3, -1, 30_000
# The head of a batch (magic 2): the offset of its first record, its length after the first 12 bytes, the leader's epoch ..., its count of records.
LENGTH_AT, EPOCH_END, RECORDS_AT, HEAD_BYTES = 8, 16, 57, 61
UNPLACED, NO_EPOCH = struct.pack(">q", 0), struct.pack(">i", -1)


@dataclass(frozen=True)
class Pool:
    """Batches of the same number of records."""

    batches: list[bytes]
    records: int


def pool(kafka: Kafka, leeway: Path, rate: int, partitions: int) -> Pool:
    """Batches of as many rows as a partition gets within `LINGER_SECONDS`."""
    records = max(1, round(rate * LINGER_SECONDS / partitions))
    rows, topic = f"rows-{rate}", f"pool-{rate}"
    for name in (rows, topic):
        kafka.create_topic(name, 1)
    output([leeway, "produce", "--synthetic", "--rows", str(records * POOL_BATCHES), "--bootstrap-servers", kafka.bootstrap, "--topic", rows])
    # Batches of an idempotent producer, as Leeway's is, could be sent once only.
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": "lz4", "batch.num.messages": records, "linger.ms": 1_000})
    for _, row in kafka.read(rows):
        producer.produce(topic, row)
    if producer.flush(PATIENCE_SECONDS):
        raise TimeoutError(f"rows for {topic} were not taken within {PATIENCE_SECONDS:.0f} s")
    stored = (kafka.directory / "logs" / f"{topic}-0" / f"{0:020}.log").read_bytes()
    whole = [batch for batch in batches(stored) if records_of(batch) == records]
    if not whole:
        raise ValueError(f"no batch of {records} records is in {topic}")
    return Pool(whole, records)


def batches(log: bytes) -> list[bytes]:
    """Of a file of a partition's log."""
    found, at = [], 0
    while at + HEAD_BYTES <= len(log):
        (length,) = struct.unpack_from(">i", log, at + LENGTH_AT)
        end = at + LENGTH_AT + 4 + length
        if length <= 0 or end > len(log):
            break
        # As its producer sent it: what the broker wrote into it is outside of its checksum.
        found.append(UNPLACED + log[at + LENGTH_AT : at + LENGTH_AT + 4] + NO_EPOCH + log[at + EPOCH_END : end])
        at = end
    return found


def records_of(batch: bytes) -> int:
    return struct.unpack_from(">i", batch, RECORDS_AT)[0]


@dataclass(frozen=True)
class Sent:
    records: int
    # Records a second.
    reached: float


def send(kafka: Kafka, topic: str, partitions: int, pool: Pool, rate: int, seconds: int) -> Sent:
    """Sends at `rate` records a second, or as fast as the broker takes them; returns when the last one is acknowledged."""
    of_request = pool.records * partitions
    requests = -(-rate * seconds // of_request)
    host, _, port = kafka.bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        acknowledged = Acknowledged(connection, requests, partitions)
        begun = time.monotonic()
        turn = itertools.cycle(pool.batches)
        for number in range(requests):
            wait = begun + number * of_request / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            acknowledged.wait_for_room()
            connection.sendall(request(number, topic, [next(turn) for _ in range(partitions)]))
        acknowledged.finish()
        return Sent(requests * of_request, requests * of_request / (time.monotonic() - begun))


def request(number: int, topic: str, of_partitions: list[bytes]) -> bytes:
    name = topic.encode()
    head = struct.pack(">hhih", PRODUCE, VERSION, number, -1) + struct.pack(">hhi", -1, ALL_REPLICAS, TIMEOUT_MS)
    parts = [head, struct.pack(">ih", 1, len(name)), name, struct.pack(">i", len(of_partitions))]
    for partition, batch in enumerate(of_partitions):
        parts += [struct.pack(">ii", partition, len(batch)), batch]
    body = b"".join(parts)
    return struct.pack(">i", len(body)) + body


class Acknowledged:
    """Reads the answers beside the sender, which has at most `IN_FLIGHT` requests without one."""

    def __init__(self, connection: socket.socket, requests: int, partitions: int) -> None:
        self.answers = connection.makefile("rb")
        self.requests = requests
        self.partitions = partitions
        self.room = threading.Semaphore(IN_FLIGHT)
        self.fault: Exception | None = None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        try:
            for number in range(self.requests):
                self.expect(number)
                self.room.release()
        except (OSError, ValueError, struct.error) as fault:
            self.fault = fault
            self.room.release()

    def expect(self, number: int) -> None:
        (length,) = struct.unpack(">i", self.answers.read(4))
        answer = self.answers.read(length)
        correlation, _, name = struct.unpack_from(">iih", answer)
        # Of each partition its number, the error, the offset and the time of the append; then the throttle time.
        of_partitions = struct.iter_unpack(">ihqq", answer[10 + name + 4 : -4])
        errors = [error for _, error, _, _ in of_partitions]
        if correlation != number or errors != [0] * self.partitions:
            raise ValueError(f"the broker answered request {number} with number {correlation} and errors {errors}")

    def wait_for_room(self) -> None:
        if not self.room.acquire(timeout=PATIENCE_SECONDS):
            raise TimeoutError(f"no answer within {PATIENCE_SECONDS:.0f} s")
        if self.fault:
            raise RuntimeError(f"the load: {self.fault}") from self.fault

    def finish(self) -> None:
        self.reader.join(PATIENCE_SECONDS)
        if self.fault or self.reader.is_alive():
            raise RuntimeError(f"the load: {self.fault or 'no answer'}")

"""A whole system: Kafka, two workers on a stream that begins to drift, the exporter of their events, Prometheus and Alertmanager, a webhook."""

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from kafka import Kafka
from processes import ROOT, answers, free_ports, output, quiet_environment, running, wait_for
from prometheus import alertmanager, prometheus, query
from webhook import Webhook

SEED = 20
PARTITIONS = 4
# Of the stream, before feature1 moves.
ROWS_BEFORE = 6_000
ROWS_A_SECOND = 400

CONFIGURATION = """
standby = true
num_stream_threads = 2

[kafka]
bootstrap_servers = "{bootstrap}"

[[monitor]]
name = "default"
topic = "drift-data"
reference = "{reference}"
features = ["feature1", "feature2", "plan"]
scopes = ["partition", "global"]
quality = {{ missing = 0.05 }}

[[monitor]]
name = "by-country"
topic = "drift-data"
reference = "{reference}"
features = ["feature1", "feature2", "plan"]
segment_by = ["country"]
"""


def leeway() -> Path:
    """The binary under test."""
    path = Path(os.environ.get("LEEWAY_BIN", ROOT / "target/debug/leeway"))
    assert path.exists(), f"{path} is not there: set LEEWAY_BIN, or cargo build"
    return path


def row(rng: random.Random, shift: float) -> dict[str, Any]:
    return {
        "feature1": rng.gauss(shift, 1),
        "feature2": rng.gauss(10, 3) if rng.random() < 0.9 else None,
        "plan": rng.choices(["basic", "pro"], [3, 1])[0],
        "country": rng.choice(["DE", "FR"]),
    }


class Stream(threading.Thread):
    """Rows at a steady rate until it is stopped; one of fifty is no JSON object."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "log_level": 0})
        self.rng = random.Random(SEED)
        self.sent = 0
        self.stopped = threading.Event()

    def send(self, rows: int, shift: float) -> None:
        for _ in range(rows):
            partition = self.sent % PARTITIONS
            # Partition 0 moves by twice as much: partitions that disagree.
            moved = row(self.rng, 2 * shift if partition == 0 else shift)
            value = b"{broken" if self.sent % 50 == 49 else json.dumps(moved).encode()
            self.producer.produce("drift-data", value, partition=partition)
            self.sent += 1
            self.producer.poll(0)

    def run(self) -> None:
        self.send(ROWS_BEFORE, 0)
        while not self.stopped.wait(0.1):
            self.send(ROWS_A_SECOND // 10, 1.5)
        self.producer.flush(30)


@dataclass
class System:
    kafka: Kafka
    prometheus: str
    alertmanager: str
    webhook: Webhook
    stream: Stream
    begun: float

    def query(self, expression: str) -> list[dict[str, Any]]:
        return query(self.prometheus, expression)

    def firing(self, name: str) -> list[dict[str, str]]:
        """Labels of the alerts of this name that were delivered."""
        return [alert["labels"] for alert in self.webhook.alerts if alert["labels"]["alertname"] == name and alert["status"] == "firing"]


def write_reference(directory: Path) -> Path:
    rng = random.Random(SEED + 1)
    rows = directory / "training.jsonl"
    rows.write_text("".join(json.dumps(row(rng, 0)) + "\n" for _ in range(5_000)))
    reference = directory / "reference.json"
    output([leeway(), "reference", "build", "--input", rows, "--output", reference], env=quiet_environment())
    return reference


@contextlib.contextmanager
def system(kafka: Kafka, directory: Path) -> Iterator[System]:
    """Starts all of it, and waits until it answers."""
    begun = time.monotonic()
    kafka.create_topic("drift-data", PARTITIONS)
    configuration = directory / "leeway.toml"
    configuration.write_text(CONFIGURATION.format(bootstrap=kafka.bootstrap, reference=write_reference(directory)))
    *workers, exporter, of_prometheus, of_alertmanager = free_ports(5)
    stream = Stream(kafka.bootstrap)
    with contextlib.ExitStack() as stack:
        webhook = stack.enter_context(Webhook().listening())
        for number, port in enumerate(workers):
            command = [leeway(), "run", "--config", configuration, "--state-dir", directory / f"state-{number}", "--http-port", str(port)]
            stack.enter_context(running(command, directory / f"worker-{number}.log", env=quiet_environment()))
        command = [leeway(), "metrics", "--config", configuration, "--http-port", str(exporter)]
        stack.enter_context(running(command, directory / "exporter.log", env=quiet_environment()))
        told = stack.enter_context(alertmanager(directory, of_alertmanager, webhook.port))
        targets = {"leeway": workers, "leeway-metrics": [exporter]}
        address = stack.enter_context(prometheus(directory, of_prometheus, targets, of_alertmanager))
        for port in [*workers, exporter]:
            wait_for("a worker, or the exporter of its events", lambda port=port: answers(f"http://127.0.0.1:{port}/health/ready"), 120)
        stream.start()
        yield System(kafka, address, told, webhook, stream, begun)
        stream.stopped.set()
        stream.join(30)

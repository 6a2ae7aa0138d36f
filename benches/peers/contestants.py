"""Who runs in the benchmark: how each is started, how far it gets in a round, and by what it says how far it is."""

import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEER = HERE / "kafka-streams/target"
CONFIGURATION = HERE / "leeway.toml"
DRIFT = HERE / "python"

# Of every JVM here: the heap that Kafka's own scripts give an application that has no reason to ask for more.
HEAP = "1g"


@dataclass(frozen=True)
class Programs:
    """What was built."""

    leeway: Path
    floor: Path


@dataclass(frozen=True)
class Job:
    """One run of a contestant."""

    programs: Programs
    bootstrap: str
    topic: str
    records: int
    application_id: str
    reference: Path
    directory: Path
    commit_interval_ms: int

    @property
    def events_topic(self) -> str:
        return f"{self.application_id}-events"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.application_id}-dlq"


@dataclass(frozen=True)
class Contestant:
    name: str
    title: str
    command: Callable[[Job], list[str | Path]]
    # Of a round, at most: those that are slow would take hours for as many as the others.
    records_max: int
    # Says how far it is by the offsets that its group commits; else by lines `progress N`.
    commits: bool
    emits: bool


def configuration() -> dict[str, Any]:
    return tomllib.loads(CONFIGURATION.read_text())


def monitor_flags(job: Job) -> list[str | Path]:
    """The configuration's values, for those who do not read the file."""
    monitor = configuration()["monitor"][0]
    return [
        *("--window-size", str(monitor["window"]["size"])),
        *("--window-every", str(monitor["window"]["every"])),
        *("--min-samples", str(monitor["min_samples"])),
        *("--possible-drift", str(monitor["thresholds"]["possible_drift"])),
        *("--drift", str(monitor["thresholds"]["drift"])),
        *("--epsilon", str(monitor["epsilon"])),
        *common_flags(job),
    ]


def common_flags(job: Job) -> list[str | Path]:
    return [
        *("--bootstrap-servers", job.bootstrap),
        *("--application-id", job.application_id),
        *("--topic", job.topic),
        *("--events-topic", job.events_topic),
        *("--reference", job.reference),
    ]


def stream_threads() -> int:
    return configuration()["num_stream_threads"]


def leeway(threads: int) -> Callable[[Job], list[str | Path]]:
    return lambda job: [
        *(job.programs.leeway, "run", "--config", CONFIGURATION),
        *common_flags(job),
        *("--dead-letter-topic", job.dead_letter_topic),
        *("--state-dir", job.directory / "state"),
        *("--commit-interval-ms", str(job.commit_interval_ms)),
        *("--num-stream-threads", str(threads)),
        *("--http-port", "0"),
    ]


def kafka_streams(guarantee: str, threads: int) -> Callable[[Job], list[str | Path]]:
    def command(job: Job) -> list[str | Path]:
        return [
            *("java", f"-Xms{HEAP}", f"-Xmx{HEAP}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
            *("-cp", f"{PEER / 'classes'}:{PEER / 'libs'}/*", "leeway.peers.Peer"),
            *monitor_flags(job),
            *("--dead-letter-topic", job.dead_letter_topic),
            *("--state-dir", job.directory / "state"),
            *("--commit-interval-ms", str(job.commit_interval_ms)),
            *("--num-stream-threads", str(threads)),
            *("--processing-guarantee", guarantee),
        ]

    return command


def quix(job: Job) -> list[str | Path]:
    return [
        *(sys.executable, HERE / "quix/worker.py"),
        *monitor_flags(job),
        *("--state-dir", job.directory / "state"),
        *("--commit-interval-ms", str(job.commit_interval_ms)),
    ]


def python(script: str) -> Callable[[Job], list[str | Path]]:
    return lambda job: [sys.executable, HERE / "python" / script, *monitor_flags(job), "--records", str(job.records)]


def floor(mode: str, threads: int) -> Callable[[Job], list[str | Path]]:
    def command(job: Job) -> list[str | Path]:
        where: list[str | Path] = ["--bootstrap-servers", job.bootstrap, "--topic", job.topic]
        return [job.programs.floor, mode, *where, "--records", str(job.records), "--threads", str(threads)]

    return command


def all_records(name: str, title: str, command: Callable[[Job], list[str | Path]], commits: bool) -> Contestant:
    return Contestant(name, title, command, sys.maxsize, commits, commits)


CONTESTANTS = [
    all_records("poll", "floor: poll and drop", floor("poll", 1), False),
    all_records("batch", "floor: batch call and drop", floor("batch", 1), False),
    all_records("batch-2", "floor: batch call and drop, 2 threads", floor("batch", 2), False),
    all_records("validate", "floor: batch call, strict JSON", floor("validate", 1), False),
    all_records("validate-2", "floor: batch call, strict JSON, 2 threads", floor("validate", 2), False),
    all_records("leeway", "**leeway run**, exactly once", leeway(stream_threads()), True),
    all_records("leeway-1", "**leeway run**, exactly once, 1 thread", leeway(1), True),
    all_records("kafka-streams", "Kafka Streams, exactly once", kafka_streams("exactly_once_v2", stream_threads()), True),
    all_records("kafka-streams-1", "Kafka Streams, exactly once, 1 thread", kafka_streams("exactly_once_v2", 1), True),
    all_records("kafka-streams-alo", "Kafka Streams, at least once", kafka_streams("at_least_once", stream_threads()), True),
    Contestant("quix", "Quix Streams, exactly once", quix, 100_000, True, True),
    Contestant("python-batch", "Python, batches and numpy, auto-commit", python("batch.py"), 500_000, False, True),
    Contestant("python-plain", "Python, pandas, lag asked per record", python("plain.py"), 5_000, False, True),
]

#!/usr/bin/env python3
"""Measures what a record costs `leeway run` as one thing grows: features, partitions, windows, records, segments, instances.

The other things stay at a base point: 5 features, 8 partitions, windows of 1,000 records checked every 100. docs/capacity.md reckons with the
results. Needs what `make bench-scale` builds.
"""

import argparse
import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

# Kafka is started by what the tests of deploy/ start it with. Before site-packages, where another `kafka` is.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy/tests"))

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import Kafka, kafka

import report
import rows
import scale_report
import warm
from bench import BROKER, FAILURES, say
from contestants import CONFIGURATION, CONTESTANTS, ROOT, Contestant, Job, Programs, configuration, leeway, stream_threads
from drain import Drain, Running, by_commits, count_events, delete_topics, drain, output_topics, watcher_of
from model import Changelog
from points import DIMENSIONS, THREADS, Point
from processes import free_ports, get, leave_nothing_behind, output
from scale_report import Run

PEER = next(one for one in CONTESTANTS if one.name == "kafka-streams")

# The first byte of a key in the changelog (docs/formats.md).
HEAD, PANE = b"\x01", b"\x02"


EXAMPLES = """examples:
  make bench-scale                                                 everything, 2 rounds, into docs/benchmarks.md
  make bench-scale ARGS="--only features,every --rounds 1"         two dimensions, on the terminal
  make bench-scale ARGS="--only segments --long"                   a million segments, too
  make bench-scale ARGS="--only partitions --rounds 1 --share 0.1 --no-warm-up"
                                                                   a tenth of the records: whether it works, not what it costs
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(DIMENSIONS)
    parser.add_argument("--only", metavar="DIMENSIONS", help=f"separated by commas: {names}")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each point, in turn; the median counts (default 2)")
    parser.add_argument("--share", type=float, default=1.0, help="of the records of each point (default 1)")
    parser.add_argument("--long", action="store_true", help="a million segments, too (minutes a run)")
    parser.add_argument("--no-warm-up", action="store_true", help="measures on a broker that has just begun, which saves some minutes")
    parser.add_argument("--write", action="store_true", help=f"puts the results into {report.DOCUMENT.relative_to(ROOT)}")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--leeway", type=Path, default=Path(os.environ.get("LEEWAY_BIN", target / "release/leeway")), help="or LEEWAY_BIN")
    parser.add_argument("--floor", type=Path, default=Path(os.environ.get("LEEWAY_FLOOR", target / "release/leeway-floor")), help="or LEEWAY_FLOOR")
    settings = parser.parse_args()
    wanted = settings.only.split(",") if settings.only else list(DIMENSIONS)
    if set(wanted) - set(DIMENSIONS):
        parser.error(f"--only: {', '.join(sorted(set(wanted) - set(DIMENSIONS)))}: dimensions are {names}")
    if settings.rounds < 1 or not 0 < settings.share <= 1:
        parser.error("--rounds must be at least 1, and --share above 0 and at most 1")
    for program in (settings.leeway, settings.floor):
        if not program.exists():
            parser.error(f"{program} is not there: make bench-scale builds it")
    settings.dimensions = [name for name in DIMENSIONS if name in wanted]
    return settings


def command(point: Point, port: int, job: Job) -> list[str | Path]:
    """As the contestant `leeway`; what no flag says stands in a configuration of its own."""
    file = job.directory / "leeway.toml"
    text = CONFIGURATION.read_text()
    if point.segments:
        text += f'segment_by = ["segment"]\nmax_segments = {point.segments}\n'
    file.write_text(text)
    words = [file if word == CONFIGURATION else word for word in leeway(stream_threads())(job)]
    words[words.index("--http-port") + 1] = str(port)
    words += ["--window-size", str(point.window), "--window-every", str(point.every)]
    if point.memory_max_bytes:
        words += ["--memory-max-bytes", str(point.memory_max_bytes)]
    return words


class Instances:
    """Processes of one application, watched as if they were one: CPU and memory are sums."""

    def __init__(self, point: Point, job: Job) -> None:
        self.ports = free_ports(point.instances)
        self.all: list[Running] = []
        self.directory = job.directory
        for number, port in enumerate(self.ports):
            directory = job.directory / str(number)
            directory.mkdir()
            contestant = Contestant("leeway", "leeway run", functools.partial(command, point, port), point.records, True, True)
            self.all.append(Running(contestant, replace(job, directory=directory)))
        self.begun = self.all[0].begun

    def expect(self) -> None:
        for one in self.all:
            one.expect()

    def said(self) -> str:
        return "\n".join(one.said() for one in self.all)

    def cpu_seconds(self) -> float:
        return sum(one.cpu_seconds() for one in self.all)

    def peak_bytes(self) -> int:
        return sum(one.peak_bytes() for one in self.all)

    def drop_output(self) -> None:
        for one in self.all:
            one.drop_output()

    def commits(self) -> int:
        total = 0
        for port in self.ports:
            found = re.search(r"^leeway_commits_total (\d+)", get(f"http://127.0.0.1:{port}/metrics"), re.MULTILINE)
            if found is None:
                raise ValueError("/metrics has no leeway_commits_total")
            total += int(found[1])
        return total

    def disk_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.directory.glob("*/state/db/*"))

    def stop(self) -> None:
        for one in self.all:
            one.stop()


@contextlib.contextmanager
def instances(point: Point, job: Job) -> Iterator[Instances]:
    all_of_them = Instances(point, job)
    try:
        yield all_of_them
    finally:
        all_of_them.stop()


class Start:
    """When it was over: each partition has a commit, and of several instances each thread has partitions.

    The questions take a while, so they are asked beside the measurement.
    """

    def __init__(self, kafka: Kafka, job: Job, point: Point) -> None:
        self.over_at = float("inf")
        self.admin: AdminClient = kafka.admin()
        self.watcher = watcher_of(job)
        self.places = [TopicPartition(job.topic, partition) for partition in range(point.partitions)]
        self.application_id, self.members = job.application_id, point.instances * THREADS if point.instances > 1 else 1
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self) -> None:
        while not self.enough.wait(0.05):
            with contextlib.suppress(KafkaException):
                if self.is_over():
                    self.over_at = time.monotonic()
                    return

    def is_over(self) -> bool:
        if any(place.offset <= 0 for place in self.watcher.committed(self.places, timeout=10)):
            return False
        members = self.admin.describe_consumer_groups([self.application_id])[self.application_id].result(10).members
        return sum(bool(member.assignment.topic_partitions) for member in members) >= self.members

    def stop(self) -> None:
        self.enough.set()
        self.thread.join()
        self.watcher.close()


class Scale:
    def __init__(self, settings: argparse.Namespace, broker: Kafka, directory: Path) -> None:
        self.settings = settings
        self.kafka = broker
        self.directory = directory
        self.programs = Programs(settings.leeway, settings.floor)
        self.loaded: dict[rows.Shape, float] = {}
        self.runs: dict[Point, list[Run]] = {}
        self.peers: dict[Point, list[Drain]] = {}
        self.failures: dict[str, str] = {}
        self.warm_up: warm.WarmUp | None = None

    def points(self, name: str) -> list[Point]:
        points = (point for point in DIMENSIONS[name].points if self.settings.long or not point.is_long)
        return [point.smaller(self.settings.share) for point in points]

    def measure(self, name: str) -> None:
        # A point that stands in several dimensions is measured once.
        points = [point for point in self.points(name) if point.setting not in self.runs]
        for point in points:
            self.load(point)
        if not self.runs and not self.settings.no_warm_up:
            self.warm_up = self.until_compiled(points[0])
        for number in range(1, self.settings.rounds + 1):
            for point in points:
                what = f"{name} {point.label}"
                if what in self.failures:
                    continue
                try:
                    done = self.run(point, f"{name}-{points.index(point)}-{number}")
                except FAILURES as error:
                    say(f"{what}: {error}")
                    self.failures[what] = str(error).splitlines()[0]
                    continue
                say(line(number, what, done))
                self.runs.setdefault(point.setting, []).append(done)
                if DIMENSIONS[name].has_peer:
                    self.peers.setdefault(point.setting, []).append(self.run_peer(point, f"{name}-peer-{number}"))
        # Wide records take gigabytes. The base point's stay.
        kept = {point.shape for other in self.settings.dimensions for point in self.points(other) if other != name and point.setting not in self.runs}
        for shape in [shape for shape in self.loaded if shape not in kept]:
            delete_topics(self.kafka, lambda topic, gone=shape.topic: topic == gone)
            del self.loaded[shape]

    def until_compiled(self, point: Point) -> warm.WarmUp:
        """What a new broker takes beside would stand in one point's figures."""
        return warm.until_compiled(self.kafka.pid, lambda number: self.run(point, f"warm-up-{number}"), say)

    def reference(self, features: int) -> Path:
        reference = self.directory / f"reference-{features}.json"
        if not reference.exists():
            file = self.directory / "rows.jsonl"
            rows.write_reference_rows(file, features)
            output([self.programs.leeway, "reference", "build", "--input", file, "--output", reference])
            file.unlink()
        return reference

    def load(self, point: Point) -> None:
        """Fills the topic and reads it once: the first to read it would read it from the disk."""
        shape = point.shape
        if shape in self.loaded:
            return
        say(f"loading {shape.records:,} records into {shape.topic}")
        self.kafka.create_topic(shape.topic, shape.partitions)
        self.loaded[shape] = rows.send(self.kafka.bootstrap, shape)
        where = ["--bootstrap-servers", self.kafka.bootstrap, "--topic", shape.topic]
        output([self.programs.floor, "batch", *where, "--records", str(shape.records)], stdin=subprocess.DEVNULL)

    def job(self, point: Point, label: str) -> Job:
        directory = self.directory / label
        directory.mkdir()
        interval = configuration()["commit_interval_ms"]
        reference = self.reference(point.features)
        return Job(self.programs, self.kafka.bootstrap, point.shape.topic, point.records, f"scale-run-{label}", reference, directory, interval)

    def run(self, point: Point, label: str) -> Run:
        job = self.job(point, label)
        with output_topics(self.kafka, job, point.partitions):
            with instances(point, job) as all_of_them:
                start = Start(self.kafka, job, point)
                try:
                    samples = list(by_commits(self.kafka, all_of_them, job, point.partitions))
                finally:
                    start.stop()
                start_seconds = start.over_at - all_of_them.begun
                if point.instances > 1:
                    # Before, some of them did nothing.
                    samples = [one for one in samples if one.seconds >= start_seconds]
                if len(samples) < 2:
                    raise ValueError("over before there was anything to measure: take a larger --share")
                peak, commits, disk = all_of_them.peak_bytes(), all_of_them.commits(), all_of_them.disk_bytes()
            events = count_events(self.kafka, job)
            if events != point.events:
                raise ValueError(f"{events} events instead of {point.events}")
            return Run(
                Drain(point.records, samples, peak, events), self.changelog(job, commits), self.stored_bytes(job.events_topic), disk, start_seconds
            )

    def run_peer(self, point: Point, label: str) -> Drain:
        """Kafka Streams, exactly once, on the same topic."""
        job = self.job(point, label)
        done = drain(self.kafka, PEER, job, point.partitions)
        if done.events != point.events:
            raise ValueError(f"{PEER.title}: {done.events} events instead of {point.events}")
        say(f"{PEER.title}: {done.rate:,.0f} records/s, {done.cpu_per_million:.2f} CPU s per million; {done.peak_bytes / 2**20:.0f} MiB")
        return done

    def stored_bytes(self, topic: str) -> int:
        return sum(file.stat().st_size for file in (self.kafka.directory / "logs").glob(f"{topic}-*/*.log"))

    def changelog(self, job: Job, commits: int) -> Changelog:
        topic = f"{job.application_id}-windows-{job.topic}-changelog"
        heads = panes = content = 0
        last: dict[tuple[int, bytes], int] = {}
        for partition, key, value in self.read(topic):
            heads += key[:1] == HEAD
            panes += key[:1] == PANE
            content += len(key) + len(value)
            last[partition, key] = len(key) + len(value)
        return Changelog(commits, heads, panes, content, self.stored_bytes(topic), sum(last.values()))

    def read(self, topic: str) -> Iterator[tuple[int, bytes, bytes]]:
        """All of a topic, whatever was aborted."""
        settings = {"bootstrap.servers": self.kafka.bootstrap, "group.id": "scale", "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer({**settings, "isolation.level": "read_uncommitted"})
        missing = set(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in missing])
        try:
            while missing:
                messages = consumer.consume(10_000, timeout=0.2)
                for message in messages:
                    if message.error() is None:
                        yield message.partition(), message.key() or b"", message.value() or b""
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        missing.discard(message.partition())
                    else:
                        raise KafkaException(message.error())
        finally:
            consumer.close()


def line(number: int, what: str, done: Run) -> str:
    drained = done.drain
    speed = f"{drained.rate:,.0f} records/s, {drained.cpu_per_million:.2f} CPU s per million, the broker's {drained.broker_cpu_per_million:.2f}"
    return f"round {number}, {what}: {speed}; {drained.peak_bytes / 2**20:.0f} MiB, {drained.events:,} events, {done.changelog.commits} commits"


def main() -> None:
    settings = arguments()
    leave_nothing_behind()
    with tempfile.TemporaryDirectory(prefix="leeway-scale-") as directory, kafka(Path(directory), **BROKER) as broker:
        scale = Scale(settings, broker, Path(directory))
        for name in settings.dimensions:
            scale.measure(name)
    measured = {
        name: [(point, scale.runs[point.setting]) for point in scale.points(name) if point.setting in scale.runs] for name in settings.dimensions
    }
    text = scale_report.section(measured, scale.peers, settings.rounds, settings.share, scale.failures, scale.warm_up)
    print(text)
    if settings.write:
        report.write(text, scale_report.MARKS)
    if scale.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""One run of a contestant: it is started, drains a topic, and is watched meanwhile from outside."""

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka import Kafka

from contestants import DRIFT, Contestant, Job
from processes import output, quiet_environment

# How often the group's offsets are asked for: as good as a clock, for what takes seconds, and few among the hundreds of requests that the broker has.
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 600.0
TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
# A run of which the hypervisor has taken more of the cores says less of the contestant.
STOLEN_MAX = 0.02


@dataclass(frozen=True)
class Sample:
    """How far it was, and what it had cost."""

    seconds: float
    records: int
    cpu: float
    broker_cpu: float
    stolen: float


@dataclass(frozen=True)
class Drain:
    """A whole run."""

    records: int
    samples: list[Sample]
    peak_bytes: int
    events: int

    @property
    def first(self) -> Sample:
        return self.samples[0]

    @property
    def half(self) -> Sample:
        return next(sample for sample in self.samples if sample.records * 2 >= self.records)

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    @property
    def rate_whole(self) -> float:
        """From the start of the process on."""
        return self.records / self.last.seconds

    @property
    def rate(self) -> float:
        """After the first commit, or the first record."""
        return rate(self.first, self.last)

    @property
    def rate_second_half(self) -> float:
        return rate(self.half, self.last)

    @property
    def cpu_per_million(self) -> float:
        return (self.last.cpu - self.first.cpu) / (self.last.records - self.first.records) * 1e6

    @property
    def cpu_per_million_second_half(self) -> float:
        return (self.last.cpu - self.half.cpu) / (self.last.records - self.half.records) * 1e6

    @property
    def broker_cpu_per_million(self) -> float:
        return (self.last.broker_cpu - self.first.broker_cpu) / (self.last.records - self.first.records) * 1e6

    @property
    def stolen(self) -> float:
        """The share of the cores' time that the hypervisor gave to others."""
        return (self.last.stolen - self.first.stolen) / (self.last.seconds - self.first.seconds) / CORES

    @property
    def events_rate(self) -> float:
        return self.events / self.records * self.rate


def rate(first: Sample, last: Sample) -> float:
    if last.records == first.records:
        raise ValueError(f"{last.records} records came at once: take more of them with --records")
    return (last.records - first.records) / (last.seconds - first.seconds)


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads."""
    return busy_seconds(Path(f"/proc/{pid}/stat"))


def busy_seconds(stat: Path) -> float:
    """Of a process or a thread."""
    # The name may hold anything, and ends with the last parenthesis.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def stolen_seconds() -> float:
    """Of all cores, since the machine was started."""
    with Path("/proc/stat").open() as stat:
        return int(stat.readline().split()[8]) / TICKS


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ValueError("no VmHWM")
    return int(found[1]) * 1024


class Running:
    """A contestant's process and the lines that it writes. Its standard input is open for as long as it is to stay."""

    def __init__(self, contestant: Contestant, job: Job) -> None:
        self.log = job.directory / "log"
        self.begun = time.monotonic()
        environment = {**quiet_environment(), "PYTHONPATH": str(DRIFT)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                contestant.command(job), cwd=job.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )

    def expect(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended with {self.process.returncode}: {self.said()}")

    def said(self) -> str:
        return self.log.read_text()[-2000:]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)

    def peak_bytes(self) -> int:
        return peak_bytes(self.process.pid)

    def drop_output(self) -> None:
        """Or it would wait for a reader when the pipe is full."""
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(contestant: Contestant, job: Job) -> Iterator[Running]:
    one = Running(contestant, job)
    try:
        yield one
    finally:
        one.stop()


def drain(kafka: Kafka, contestant: Contestant, job: Job, partitions: int) -> Drain:
    """Runs it to the end of the topic."""
    with output_topics(kafka, job, partitions):
        with running(contestant, job) as one:
            follow = by_commits if contestant.commits else by_lines
            samples = list(follow(kafka, one, job, partitions))
            peak = one.peak_bytes()
        events = count_events(kafka, job) if contestant.emits else 0
    return Drain(job.records, samples, peak, events)


def sample(kafka: Kafka, one: Running, records: int) -> Sample:
    return Sample(time.monotonic() - one.begun, records, one.cpu_seconds(), cpu_seconds(kafka.pid), stolen_seconds())


def by_commits(kafka: Kafka, one: Running, job: Job, partitions: int) -> Iterator[Sample]:
    """A sample whenever the group's offsets moved."""
    one.drop_output()
    with offsets_of(job, partitions) as committed:
        seen = 0
        while seen < job.records:
            records = committed()
            if records > seen:
                seen = records
                yield sample(kafka, one, records)
            else:
                time.sleep(LOOK_SECONDS)
            one.expect()
            if time.monotonic() - one.begun > PATIENCE_SECONDS:
                raise TimeoutError(f"{seen} of {job.records} records within {PATIENCE_SECONDS} s: {one.said()}")


def watcher_of(job: Job) -> Consumer:
    """Asks for what the group has committed, without being a member."""
    # What is committed by now: one that reads committed records waits, up to a second a time, while a transaction is about to commit others.
    isolation = {"isolation.level": "read_uncommitted"}
    return Consumer({"bootstrap.servers": job.bootstrap, "group.id": job.application_id, "log_level": 0, **isolation})


@contextlib.contextmanager
def offsets_of(job: Job, partitions: int) -> Iterator[Callable[[], int]]:
    """A function that says how many records the group has committed."""
    watcher = watcher_of(job)
    places = [TopicPartition(job.topic, partition) for partition in range(partitions)]

    def committed() -> int:
        try:
            return sum(max(place.offset, 0) for place in watcher.committed(places, timeout=10))
        except KafkaException:
            return 0

    try:
        yield committed
    finally:
        watcher.close()


def by_lines(kafka: Kafka, one: Running, job: Job, _partitions: int) -> Iterator[Sample]:
    """A sample for each line `progress N`."""
    watchdog = threading.Timer(PATIENCE_SECONDS, one.process.kill)
    watchdog.start()
    try:
        for line in one.process.stdout:
            word, _, number = line.decode().partition(" ")
            if word == "progress":
                yield sample(kafka, one, int(number))
                if int(number) >= job.records:
                    return
        one.process.wait()
        one.expect()
    finally:
        watchdog.cancel()


@contextlib.contextmanager
def output_topics(kafka: Kafka, job: Job, partitions: int) -> Iterator[None]:
    """What it writes to, before it starts; and away with it and what it made itself afterwards."""
    kafka.create_topic(job.events_topic, partitions)
    kafka.create_topic(job.dead_letter_topic, partitions)
    try:
        yield
    finally:
        delete_topics(kafka, lambda name: job.application_id in name)


def delete_topics(kafka: Kafka, which: Callable[[str], bool]) -> None:
    # Held: what it was asked ends with it.
    admin = kafka.admin()
    for done in admin.delete_topics([name for name in admin.list_topics(timeout=30).topics if which(name)]).values():
        done.result(30)


def count_events(kafka: Kafka, job: Job) -> int:
    command = [job.programs.floor, "count", "--bootstrap-servers", kafka.bootstrap, "--topic", job.events_topic]
    return int(output(command))

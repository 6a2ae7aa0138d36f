#!/usr/bin/env python3
"""Measures `leeway run` against what reading alone costs, and against what people run instead. See benches/peers/README.md.

Starts one Kafka, loads the topics once, checks that all contestants emit the same drift events, and runs them in turn. Needs what `make bench`
builds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# Kafka is started by what the tests of deploy/ start it with. Before site-packages, where another `kafka` is.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy/tests"))

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from kafka import Kafka, kafka

import equality
import latency
import load
import report
import warm
from contestants import CONTESTANTS, ROOT, Contestant, Job, Programs, configuration
from drain import STOLEN_MAX, Drain, drain
from latency import Latency
from processes import leave_nothing_behind, output

EQUALITY_PARTITIONS = 4
# The stream moves after half of its rows by so much that every status is seen.
SHIFT = 0.6
REFERENCE_RECORDS = 10_000
# Shares of what `leeway run` reached.
LATENCY_LOADS = [0.1, 0.5]
LATENCY_CONTESTANTS = [("leeway", 100), ("leeway", 10), ("kafka-streams", 100), ("kafka-streams", 10)]
# So often a run is made of which the hypervisor takes too much.
ATTEMPTS = 3
# Of one contestant: the others go on.
FAILURES = (RuntimeError, ValueError, OSError, AssertionError, KafkaException, subprocess.TimeoutExpired)
# Its group coordinator has Kafka's own patience: the threads of a process join at once, so that the group is whole before anything counts.
BROKER = {"heap": "1g", "initial_rebalance_delay_ms": 3_000}

EXAMPLES = """examples:
  make bench                                                         everything, 5 rounds, into docs/benchmarks.md
  make bench ARGS="--only poll,leeway --rounds 3 --records 2000000"  two contestants, on the terminal
  make bench ARGS="--only leeway,quix --rounds 0 --no-latency"       whether they emit the same, and nothing else
  make bench ARGS="--only leeway,kafka-streams --rounds 1 --no-warm-up --latency-rates 10000,50000"
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(one.name for one in CONTESTANTS)
    parser.add_argument("--only", metavar="NAMES", help=f"contestants, separated by commas: {names}")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each, in turn (default 5)")
    parser.add_argument("--records", type=int, default=8_000_000, help="of a run; the slow ones get fewer (default 8000000)")
    parser.add_argument("--partitions", type=int, default=8, help="of the topic (default 8)")
    parser.add_argument("--equality-records", type=int, default=40_000, help="of the topic on which events are compared (default 40000)")
    parser.add_argument("--no-equality", action="store_true", help="does not compare events first")
    parser.add_argument("--no-warm-up", action="store_true", help="measures on a broker that has just begun, which saves some minutes")
    parser.add_argument("--no-latency", action="store_true", help="measures throughput only")
    parser.add_argument("--latency-seconds", type=int, default=30, help="for which events count, after a warm-up of 15 s (default 30)")
    parser.add_argument("--latency-rates", metavar="RATES", help="records/s, separated by commas (default: 10 and 50 %% of what leeway reached)")
    parser.add_argument("--write", action="store_true", help=f"puts the results into {report.DOCUMENT.relative_to(ROOT)}")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--leeway", type=Path, default=Path(os.environ.get("LEEWAY_BIN", target / "release/leeway")), help="or LEEWAY_BIN")
    parser.add_argument("--floor", type=Path, default=Path(os.environ.get("LEEWAY_FLOOR", target / "release/leeway-floor")), help="or LEEWAY_FLOOR")
    settings = parser.parse_args()
    known = {one.name for one in CONTESTANTS}
    wanted = set(settings.only.split(",")) if settings.only else known
    if wanted - known:
        parser.error(f"--only: {', '.join(sorted(wanted - known))}: contestants are {names}")
    for program in (settings.leeway, settings.floor):
        if not program.exists():
            parser.error(f"{program} is not there: make bench builds it")
    settings.contestants = [one for one in CONTESTANTS if one.name in wanted]
    return settings


Measured = TypeVar("Measured", Drain, Latency)


class Bench:
    def __init__(self, settings: argparse.Namespace, broker: Kafka, directory: Path) -> None:
        self.settings = settings
        self.kafka = broker
        self.directory = directory
        self.programs = Programs(settings.leeway, settings.floor)
        self.reference = directory / "reference.json"
        self.topics: dict[int, str] = {}
        self.results = report.Results(settings.partitions, settings.rounds, 0.0)

    def run(self) -> None:
        if not self.settings.no_equality:
            self.compare()
        if self.settings.rounds:
            self.time()
        if not self.settings.no_latency:
            self.latencies()

    def load(self, topic: str, records: int, partitions: int) -> None:
        self.kafka.create_topic(topic, partitions)
        say(f"loading {records:,} records into {topic}")
        command = [self.programs.leeway, "produce", "--synthetic", "--rows", str(records), "--shift", str(SHIFT)]
        command += ["--drift-after", str(records // 2), "--bootstrap-servers", self.kafka.bootstrap, "--topic", topic]
        output(command)
        if not self.reference.exists():
            build = [self.programs.leeway, "reference", "build", "--first", str(min(REFERENCE_RECORDS, records // 2))]
            output([*build, "--topic", topic, "--bootstrap-servers", self.kafka.bootstrap, "--output", self.reference])

    def job(self, contestant: Contestant, label: str, topic: str, records: int, commit_interval_ms: int | None = None) -> Job:
        application_id = f"{contestant.name}-{label}"
        directory = self.directory / application_id
        directory.mkdir()
        interval = commit_interval_ms or configuration()["commit_interval_ms"]
        return Job(self.programs, self.kafka.bootstrap, topic, records, application_id, self.reference, directory, interval)

    def compare(self) -> None:
        """All that emit, with Leeway first, whoever runs."""
        topic, records = "equality", self.settings.equality_records
        emitting = [one for one in self.settings.contestants if one.emits]
        if not emitting:
            return
        leeway = next(one for one in CONTESTANTS if one.name == "leeway")
        self.load(topic, records, EQUALITY_PARTITIONS)
        ours = equality.emitted(self.kafka, leeway, self.job(leeway, "equality", topic, records), EQUALITY_PARTITIONS)
        say(equality.summary("leeway", ours))
        self.results.compared.append(equality.summary("leeway", ours))
        if not equality.has_all_statuses(ours.events):
            raise SystemExit("the small topic does not have every status, so that it compares too little: take more --equality-records")
        for one in emitting:
            if one is leeway:
                continue
            theirs = equality.emitted(self.kafka, one, self.job(one, "equality", topic, records), EQUALITY_PARTITIONS)
            found = equality.differences(ours.events, theirs.events)
            say(equality.summary(one.name, theirs) + (f": {len(found)} differences" if found else ", the same"))
            if found:
                raise SystemExit("\n".join([f"{one.name} does not emit what leeway does:", *found[:10]]))
            self.results.compared.append(equality.summary(one.name, theirs) + ": the same")

    def records_of(self, contestant: Contestant) -> int:
        return min(contestant.records_max, self.settings.records)

    def time(self) -> None:
        for records in sorted({self.records_of(one) for one in self.settings.contestants}):
            self.topics[records] = f"bench-{records}"
            self.load(self.topics[records], records, self.settings.partitions)
            self.read_once(self.topics[records], records)
        self.results.bytes_mean = self.mean_bytes(next(iter(self.topics.values())))
        if not self.settings.no_warm_up:
            self.warm_up()
        for number in range(1, self.settings.rounds + 1):
            for one in self.settings.contestants:
                if one.name in self.results.failures:
                    continue
                try:
                    drained = self.undisturbed(lambda attempt, one=one, number=number: self.drain(one, number, attempt))
                except FAILURES as error:
                    self.fail(one.name, error)
                    continue
                self.results.drains.setdefault(one.name, []).append(drained)

    def drain(self, contestant: Contestant, number: int, attempt: int) -> Drain:
        records = self.records_of(contestant)
        job = self.job(contestant, f"round-{number}-{attempt}", self.topics[records], records)
        drained = drain(self.kafka, contestant, job, self.settings.partitions)
        say(line(number, contestant, drained))
        self.expect_events(contestant, drained)
        return drained

    def undisturbed(self, measure: Callable[[int], Measured]) -> Measured:
        """The first of which the hypervisor has taken little, or the one of which it has taken least."""
        found = []
        for attempt in range(ATTEMPTS):
            found.append(measure(attempt))
            if found[-1].stolen <= STOLEN_MAX:
                break
            say(f"the hypervisor had {found[-1].stolen:.0%} of the cores")
        self.results.repeated += len(found) - 1
        return min(found, key=lambda one: one.stolen)

    def warm_up(self) -> None:
        """By those who make the broker do what costs it most, and fast, in turn."""
        writers = [one for one in self.settings.contestants if one.commits and one.records_max == sys.maxsize]

        def run(number: int) -> None:
            one = writers[number % len(writers)]
            if one.name in self.results.failures:
                return
            records = self.records_of(one)
            try:
                drain(self.kafka, one, self.job(one, f"warm-up-{number}", self.topics[records], records), self.settings.partitions)
            except FAILURES as error:
                self.fail(one.name, error)

        if writers:
            self.results.warm_up = warm.until_compiled(self.kafka.pid, run, say)

    def fail(self, name: str, error: Exception) -> None:
        say(f"{name}: {error}")
        self.results.failures[name] = str(error).splitlines()[0]

    def expect_events(self, contestant: Contestant, drained: Drain) -> None:
        """Each check of each partition, once: what was timed was all of the work."""
        if not contestant.emits:
            return
        monitor = configuration()["monitor"][0]
        every, least = monitor["window"]["every"], monitor["min_samples"]
        checks = sum(
            records // every - (least - 1) // every for records in self.records_by_partition(self.topics[drained.records]) if records >= least
        )
        # The stream's five features and the summary.
        if drained.events != checks * 6:
            raise ValueError(f"{drained.events} events instead of {checks * 6}")

    def records_by_partition(self, topic: str) -> list[int]:
        watcher = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "records"})
        ends = [watcher.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1] for partition in range(self.settings.partitions)]
        watcher.close()
        return ends

    def read_once(self, topic: str, records: int) -> None:
        """The first to read a topic would read it from the disk."""
        where = ["--bootstrap-servers", self.kafka.bootstrap, "--topic", topic]
        output([self.programs.floor, "batch", *where, "--records", str(records)], stdin=subprocess.DEVNULL)

    def mean_bytes(self, topic: str) -> float:
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "sizes", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        sizes = [len(message.value()) for message in consumer.consume(500, timeout=30) if not message.error()]
        consumer.close()
        return statistics.mean(sizes)

    def latencies(self) -> None:
        rates = self.latency_rates()
        if rates and not self.reference.exists():
            self.load("reference", 2 * REFERENCE_RECORDS, self.settings.partitions)
        for rate in rates:
            pool = load.pool(self.kafka, self.programs.leeway, rate, self.settings.partitions)
            for name, commit_interval_ms in LATENCY_CONTESTANTS:
                one = next((one for one in self.settings.contestants if one.name == name), None)
                if one is None or name in self.results.failures:
                    continue
                title = f"{one.title}, commits every {commit_interval_ms} ms"

                def measure(
                    attempt: int, one: Contestant = one, interval: int = commit_interval_ms, rate: int = rate, pool: load.Pool = pool
                ) -> Latency:
                    label = f"latency-{rate}-{interval}-{attempt}"
                    job = self.job(one, label, f"input-of-{label}-{one.name}", 0, interval)
                    return latency.measure(self.kafka, one, job, self.settings.partitions, rate, self.settings.latency_seconds, pool)

                try:
                    measured = self.undisturbed(measure)
                except FAILURES as error:
                    self.fail(f"{title}, {rate:,} records/s", error)
                    continue
                say(f"{title}: {rate:,} records/s, p50 {measured.p50:.0f} ms, p99 {measured.p99:.0f} ms, p99.9 {measured.p999:.0f} ms")
                self.results.latencies.append((title, measured))

    def latency_rates(self) -> list[int]:
        if self.settings.latency_rates:
            return [int(rate) for rate in self.settings.latency_rates.split(",")]
        drains = self.results.drains.get("leeway")
        if not drains:
            return []
        most = report.median(drains, lambda one: one.rate)
        return [int(round(most * load, -3 if most * load > 10_000 else -1)) for load in LATENCY_LOADS]


def line(number: int, one: Contestant, drained: Drain) -> str:
    speed = f"{drained.rate:,.0f} records/s after {drained.first.seconds:.2f} s, second half {drained.rate_second_half:,.0f}"
    own = f"{drained.cpu_per_million:.2f} CPU s per million, second half {drained.cpu_per_million_second_half:.2f}"
    return f"round {number}, {one.name}: {speed}; {own}, the broker's {drained.broker_cpu_per_million:.2f}; {drained.peak_bytes / 2**20:.0f} MiB"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    settings = arguments()
    leave_nothing_behind()
    with tempfile.TemporaryDirectory(prefix="leeway-bench-") as directory, kafka(Path(directory), **BROKER) as broker:
        bench = Bench(settings, broker, Path(directory))
        bench.run()
    text = report.section(bench.results, settings.contestants)
    print(text)
    if settings.write:
        report.write(text)
    if bench.results.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""From a record's append to its drift event being readable, under a steady load.

The input's timestamps are those of the append (`message.timestamp.type=LogAppendTime`), so `window_end_ms` of an event is when its window's last
record was appended; a read-committed reader looks at the clock when it has the event. Both clocks are this machine's.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kafka import Kafka

from contestants import Contestant, Job
from drain import CORES, LOOK_SECONDS, delete_topics, offsets_of, output_topics, running, stolen_seconds
from load import Pool, send
from processes import output, quiet_environment

# Windows are full and code is compiled before it counts.
FILL_RECORDS_PER_PARTITION = 2_000
WARM_UP_SECONDS = 15
# Whoever has not caught up so long after the last record was behind all the time.
BEHIND_SECONDS = 2.0
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Latency:
    rate: int
    # What was sent.
    reached: float
    checks: int
    p50: float
    p99: float
    p999: float
    behind_seconds: float
    # The share of the cores' time that the hypervisor gave to others.
    stolen: float

    @property
    def kept_up(self) -> bool:
        return self.behind_seconds < BEHIND_SECONDS


def measure(kafka: Kafka, contestant: Contestant, job: Job, partitions: int, rate: int, seconds: int, pool: Pool) -> Latency:
    """Paces the load for the warm-up and the measured seconds."""
    kafka.create_topic(job.topic, partitions, message_timestamp_type="LogAppendTime")
    try:
        with output_topics(kafka, job, partitions), running(contestant, job) as one, offsets_of(job, partitions) as committed:
            filled = FILL_RECORDS_PER_PARTITION * partitions
            fill(job, filled)
            wait_for(lambda: committed() >= filled, one.expect)
            with reading(job, seconds) as reader:
                begun, stolen = time.monotonic(), stolen_seconds()
                sent = send(kafka, job.topic, partitions, pool, rate, WARM_UP_SECONDS + seconds)
                ended = time.monotonic()
                stolen = (stolen_seconds() - stolen) / (ended - begun) / CORES
                wait_for(lambda: committed() >= filled + sent.records, one.expect)
                behind = time.monotonic() - ended
                written, _ = reader.communicate(timeout=PATIENCE_SECONDS)
                if reader.returncode:
                    raise RuntimeError("the reader of events failed; see above")
        spread = json.loads(written)
        return Latency(rate, sent.reached, spread["checks"], spread["p50"], spread["p99"], spread["p99.9"], behind, stolen)
    finally:
        delete_topics(kafka, lambda name: name == job.topic)


def fill(job: Job, rows: int) -> None:
    where = ["--bootstrap-servers", job.bootstrap, "--topic", job.topic]
    output([job.programs.leeway, "produce", "--synthetic", "--rows", str(rows), *where])


@contextlib.contextmanager
def reading(job: Job, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """The reader of events. It has the end of every partition before anything is sent."""
    command = [job.programs.floor, "latency", "--bootstrap-servers", job.bootstrap, "--topic", job.events_topic]
    command += ["--seconds", str(seconds), "--warm-up-seconds", str(WARM_UP_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=quiet_environment(), text=True) as reader:
        try:
            ready = reader.stdout.readline()
            if ready.strip() != "ready":
                raise RuntimeError(f"the reader of events said {ready!r}")
            yield reader
        finally:
            reader.kill()


def wait_for(condition: Callable[[], bool], alive: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_SECONDS} s")
        time.sleep(LOOK_SECONDS)

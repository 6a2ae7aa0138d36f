"""The Python examples, as a user starts them, against a real broker and real workers."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from confluent_kafka import Consumer, TopicPartition

from drift_data import DriftDataProducer, synthetic
from drift_events import DriftEvent, DriftEventConsumer
from processes import ROOT, output, wait_for
from system import System

EXAMPLES = ROOT / "examples/python"


def test_the_producer_sends_rows_that_leeway_takes(whole: System) -> None:
    whole.kafka.create_topic("features-of-python", 2)
    command = [
        sys.executable,
        EXAMPLES / "drift_data.py",
        "--bootstrap-servers",
        whole.kafka.bootstrap,
        "--topic",
        "features-of-python",
        "--rows",
        "1000",
    ]
    assert output(command).strip() == "sent 1000 rows to features-of-python"
    rows = [json.loads(value) for _, value in whole.kafka.read("features-of-python")]
    assert sorted(rows, key=str) == sorted(synthetic(1000, 5000), key=str)


def test_rows_that_are_no_json_and_rows_that_do_not_arrive_are_said(whole: System) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), DriftDataProducer(whole.kafka.bootstrap) as producer:
        producer.send({"feature1": float("nan")})
    lost = DriftDataProducer(whole.kafka.bootstrap, "topic-that-is-not-there")
    lost.send({"feature1": 1.0})
    with pytest.raises(RuntimeError, match="1 rows were not delivered"):
        lost.close(3)


def test_the_consumer_tells_of_each_change_of_status_once(whole: System) -> None:
    """Until it told that feature1 drifts in every partition and in the whole topic; then it is interrupted, as at a terminal."""
    missing = {*(f"default, partition {partition}: feature1" for partition in range(4)), "default, whole topic: feature1"}
    command = [sys.executable, EXAMPLES / "drift_events.py", "--bootstrap-servers", whole.kafka.bootstrap, "--group", "told"]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        while missing and (line := process.stdout.readline()):
            lines.append(line)
            missing -= {where for where in missing if line.startswith(where) and "-> drift, PSI" in line}
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        watchdog.cancel()
    assert not missing, "".join(lines) + rest
    assert process.returncode == 0
    assert all(re.fullmatch(r"[\w-]+, (partition \d|whole topic)(, country=..)?: \w+ \w+ -> \w+, PSI \d+\.\d{3}\n", line) for line in lines), lines
    assert max(Counter(lines).values()) == 1

    group = Consumer({"bootstrap.servers": whole.kafka.bootstrap, "group.id": "told"})
    partitions = [TopicPartition("drift-events", partition) for partition in group.list_topics("drift-events", 10).topics["drift-events"].partitions]
    assert any(one.offset > 0 for one in group.committed(partitions, 10)), "its position is kept at the end"
    group.close()


def test_an_event_of_another_kind_is_passed_over(whole: System) -> None:
    """The default monitor has a threshold of quality, whose events are in the same topic."""
    wait_for("events of quality", lambda: whole.query('sum(leeway_quality_events_total{status="violated"}) > 0'), 120)
    consumer = DriftEventConsumer(whole.kafka.bootstrap, group="kinds")
    kinds = {event.fields["kind"] for event, _ in zip(consumer.events(10), range(200), strict=False)}
    consumer.close()
    assert kinds == {"drift"}
    assert DriftEvent.of(b'{"kind": "quality", "feature": "plan"}') is None

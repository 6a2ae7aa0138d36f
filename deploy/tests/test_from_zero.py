"""From nothing to everything that reads drift events: a stream drifts and recovers, and all that tell of it agree with the events.

In order: produced rows, drift events, `leeway alert` with a webhook, Alertmanager and a log, Prometheus, and the dashboard's page in a real browser.
"""

import contextlib
import json
import math
import re
import signal
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from csv import DictReader
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState

from kafka import Kafka
from processes import ROOT, Mortal, answers, explained, free_ports, get, get_json, output, quiet_environment, running, wait_for
from prometheus import alertmanager, prometheus, query
from system import leeway
from webhook import Webhook

TOPIC = "from-zero"
EVENTS = "from-zero-events"
PARTITIONS = 2
# Records of a partition between two checks.
EVERY = 100
# `leeway produce --shift` moves these.
DRIFTING = {"feature1", "feature3"}
# The summary drifts with them.
TOLD = {(str(partition), feature) for partition in range(PARTITIONS) for feature in {*DRIFTING, "*"}}

CONFIGURATION = """
application_id = "from-zero"
num_stream_threads = 2

[kafka]
bootstrap_servers = "{bootstrap}"

[kafka.properties]
# A member that comes back is not waited for.
"group.instance.id" = "from-zero"

[[monitor]]
topic = "from-zero"
events_topic = "from-zero-events"
reference = {{ first = 2000 }}
window = {{ size = 500, every = {every} }}

[alert]
min_severity = "drift"
cooldown = "0s"
group_wait = "200ms"

[[alert.channel]]
kind = "webhook"
url = "http://127.0.0.1:{webhook}/"

[[alert.channel]]
kind = "alertmanager"
url = "{alertmanager}"
resend = "1s"

[[alert.channel]]
kind = "csv"
"""


class Zero:
    """What runs, and what it says."""

    def __init__(self, broker: Kafka, directory: Path) -> None:
        self.broker, self.directory = broker, directory
        self.configuration = directory / "leeway.toml"
        self.rows = 0
        self.kills = 0
        self.of_worker, self.of_alert, self.of_dashboard, self.of_alertmanager, self.of_prometheus = free_ports(5)
        self.hook, self.of_team = Webhook(directory / "webhook.log"), Webhook(directory / "alertmanager-webhook.log")
        # Posts from the one at which `leeway alert` was killed until its next start: these may come again.
        self.fatal: list[int] = []
        self.excused: set[str] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator["Zero"]:
        with contextlib.ExitStack() as stack:
            start = stack.enter_context
            start(self.hook.listening())
            start(self.of_team.listening())
            self.alertmanager = start(alertmanager(self.directory, self.of_alertmanager, self.of_team.port))
            self.configuration.write_text(
                CONFIGURATION.format(every=EVERY, bootstrap=self.broker.bootstrap, webhook=self.hook.port, alertmanager=self.alertmanager)
            )
            self.broker.create_topic(TOPIC, PARTITIONS)
            self.produce(2_000, shift=0)
            start(self.program("run", "--http-port", str(self.of_worker)))
            wait_for("the worker", lambda: answers(f"http://127.0.0.1:{self.of_worker}/health/ready"))
            # A partition that changes its thread has no PSI in Prometheus before its next check (docs/monitoring.md).
            wait_for("a partition for each thread", self.is_balanced)
            self.produce(2_000, shift=0)
            self.alert = start(Mortal(self.command("alert", "--http-port", str(self.of_alert)), self.directory / "alert.log", **self.options))
            self.alert.start()
            start(self.program("dashboard", "--dashboard-port", str(self.of_dashboard)))
            address = f"http://127.0.0.1:{self.of_dashboard}/"
            wait_for("the dashboard", lambda: answers(f"{address}health/ready"))
            # With `leeway alert` at the same Alertmanager, these would tell everything twice.
            self.prometheus = start(
                prometheus(self.directory, self.of_prometheus, {"leeway": [self.of_worker]}, self.of_alertmanager, without={"leeway-drift"})
            )
            start(running(["node", ROOT / "deploy/tests/page.mjs", address], self.directory / "page.log"))
            yield self

    @property
    def options(self) -> dict[str, Any]:
        # The log of `leeway alert` is below the working directory.
        return {"cwd": self.directory, "env": quiet_environment()}

    def command(self, name: str, *arguments: str) -> list[str | Path]:
        return [leeway(), name, "--config", self.configuration, *arguments]

    def program(self, name: str, *arguments: str) -> Any:
        return running(self.command(name, *arguments), self.directory / f"{name}.log", **self.options)

    def produce(self, rows: int, shift: float) -> None:
        """And so many in all give each its seed."""
        self.rows += rows
        synthetic = ["--synthetic", "--rows", str(rows), "--shift", str(shift), "--seed", str(self.rows)]
        output(self.command("produce", *synthetic), **self.options)

    def is_balanced(self) -> bool:
        admin = self.broker.admin()
        group = admin.describe_consumer_groups([TOPIC])[TOPIC].result(30)
        return group.state == ConsumerGroupState.STABLE and [len(member.assignment.topic_partitions) for member in group.members] == [1, 1]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(value) for _, value in self.broker.read(EVENTS)]

    def incidents(self) -> tuple[dict[str, str], set[tuple[str, str]]]:
        """By the events alone: the transition of each key that is to be told, and of what (partition, feature) the incident is open."""
        series = defaultdict(list)
        for event in self.events():
            series[str(event["partition"]), event["feature"]].append(event)
        keys, still = {}, set()
        for of, checks in series.items():
            is_open = False
            for event in sorted(checks, key=lambda event: event["record_count"]):
                if (event["status"] == "drift") != is_open:
                    is_open = not is_open
                    transition = "opened" if is_open else "recovered"
                    keys[f"{event['event_id']}#{transition}"] = transition
            if is_open:
                still.add(of)
        return keys, still

    # What `leeway alert` does.

    def attempts(self) -> int:
        """That failed, of the process that runs now."""
        with contextlib.suppress(OSError):
            found = re.search(
                r'^leeway_alerts_total\{channel="webhook",outcome="retried"\} (\d+)$', get(f"http://127.0.0.1:{self.of_alert}/metrics"), re.MULTILINE
            )
            return int(found[1]) if found else 0
        return 0

    def is_settled(self) -> bool:
        """It has committed that every message is delivered: what its topic keeps last of each is nothing (docs/formats.md)."""
        last = dict(self.broker.read("from-zero-alert-state"))
        return not any(value for key, value in last.items() if key.startswith(b"message/"))

    def kill_alert_at_next_post(self, answered: bool) -> None:
        """SIGKILL at the moment that a message is at the receiver, before or just after its answer."""

        def react(answer: Callable[[], None]) -> None:
            self.hook.react = lambda answer: answer()
            self.fatal.append(len(self.hook.posts) - 1)
            if answered:
                answer()
            self.alert.process.send_signal(signal.SIGKILL)

        self.hook.react = react

    def restart_alert_after_its_death(self) -> None:
        assert wait_for("the death of the alerter", lambda: self.alert.process.poll()) == -signal.SIGKILL
        self.kills += 1
        self.excused |= {post.key for post in self.hook.posts[self.fatal[-1] :]}
        self.alert.start()

    def kill_alert(self) -> None:
        self.alert.kill()
        self.kills += 1

    def told(self) -> dict[str, str]:
        """Transition by key, as a receiver sees it that remembers keys."""
        return {alert["key"]: alert["transition"] for alert in self.hook.alerts}

    # What the others say.

    def firing(self) -> set[tuple[str, str]]:
        found = get_json(f"{self.alertmanager}/api/v2/alerts", filter='alertname="LeewayDrift"')
        return {(alert["labels"]["partition"], alert["labels"]["feature"]) for alert in found if alert["status"]["state"] == "active"}

    def delivered_by_alertmanager(self) -> dict[tuple[str, str], list[str]]:
        """Statuses in order, without repetitions."""
        found = defaultdict(list)
        for alert in self.of_team.alerts:
            labels = alert["labels"]
            assert labels["alertname"] == "LeewayDrift", labels
            statuses = found[labels["partition"], labels["feature"]]
            if statuses[-1:] != [alert["status"]]:
                statuses.append(alert["status"])
        return dict(found)

    def figure(self, expression: str) -> float:
        found = query(self.prometheus, expression)
        return float(found[0]["value"][1]) if found else math.nan

    def log(self) -> list[dict[str, str]]:
        file = self.directory / "logs/psi_drift_log.csv"
        return list(DictReader(file.read_text().splitlines())) if file.exists() else []

    def page(self) -> dict[str, dict[str, Any]]:
        """What it shows now, by feature."""
        lines = (self.directory / "page.log").read_text().splitlines()
        if not lines:
            return {}
        shown = json.loads(lines[-1])
        assert shown["complaints"] == []
        return shown["features"]

    def red_features(self) -> set[str] | None:
        """None before it shows all of them."""
        shown = self.page()
        red = {feature for feature, verdict in shown.items() if verdict["colour"][0] > sum(verdict["colour"][1:])}
        assert red == {feature for feature, verdict in shown.items() if verdict["word"] == "Drift"}, shown
        return red if len(shown) == 5 else None


def assert_all_agree_with_the_events(zero: Zero) -> None:
    """Prometheus by its five names that users know, and the log."""
    checks = zero.rows // EVERY
    events = wait_for("an event for each feature and check", lambda: found if len(found := zero.events()) == 6 * checks else None)
    summaries = {event["event_id"]: event for event in events if event["feature"] == "*"}
    assert len(summaries) == checks
    of_topic = f'{{topic="{TOPIC}"}}'
    wait_for("all rows in Prometheus", lambda: zero.figure(f"sum(kafka_messages_consumed_total{of_topic})") == zero.rows)
    wait_for("no lag in Prometheus", lambda: zero.figure(f"sum(kafka_consumer_lag{of_topic})") == 0)
    last = {(str(event["partition"]), event["feature"]): event["psi"] for event in sorted(events, key=lambda event: event["record_count"])}

    def scores() -> dict[tuple[str, str], float]:
        found = query(zero.prometheus, 'real_time_psi_score{monitor="default"}')
        return {(one["metric"]["partition"], one["metric"]["feature"]): float(one["value"][1]) for one in found}

    wait_for("PSI of the last checks in Prometheus", lambda: scores() == pytest.approx(last, rel=1e-12))
    statuses = Counter(event["status"] for event in summaries.values())
    for status in ("no_drift", "possible_drift", "drift"):
        assert zero.figure(f'sum(drift_detection_events_total{{status="{status}"}}) or vector(0)') == statuses[status]
    assert zero.figure("sum(psi_calculation_duration_seconds_count)") == checks
    assert 0 < zero.figure("histogram_quantile(0.99, sum by (le) (psi_calculation_duration_seconds_bucket))") < 1

    wait_for("a line for each summary", lambda: len(zero.log()) >= checks)
    lines = {line["event_id"]: (float(line["psi_score"]), line["drift_status"], int(line["record_count"])) for line in zero.log()}
    assert lines == {key: (event["psi"], event["status"], event["record_count"]) for key, event in summaries.items()}
    assert len(zero.log()) == checks, "none is there twice"


def test_from_zero_to_all_that_tell_of_drift_though_alerter_and_receiver_are_killed(
    broker: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with explained(tmp_path, broker.directory / "kafka.log"), Zero(broker, tmp_path).running() as zero:
        # Nothing drifts.
        assert_all_agree_with_the_events(zero)
        wait_for("a calm page", lambda: zero.red_features() == set())
        assert zero.hook.posts == [] and zero.incidents() == ({}, set())

        # It drifts while the receiver is dead, and the alerter dies beside it; and again with a message in its hands, that nobody answered.
        zero.hook.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", zero.hook.port))
        zero.produce(3_000, shift=1.5)
        wait_for("an attempt to tell", zero.attempts)
        zero.kill_alert()
        zero.alert.start()
        wait_for("an attempt of its successor", zero.attempts)
        zero.kill_alert_at_next_post(answered=False)
        zero.hook.start()
        zero.restart_alert_after_its_death()
        wait_for("drift of all", lambda: zero.incidents()[1] == TOLD)
        wait_for("each opened", lambda: zero.told() == zero.incidents()[0])
        assert Counter(zero.told().values()) == {"opened": len(TOLD)}
        wait_for("alerts that fire in Alertmanager", lambda: zero.firing() == TOLD)
        wait_for("their delivery", lambda: zero.delivered_by_alertmanager() == {of: ["firing"] for of in TOLD})
        wait_for("red features", lambda: zero.red_features() == DRIFTING)
        assert_all_agree_with_the_events(zero)

        # It recovers while both are dead; then the alerter dies with a message in its hands that was answered.
        wait_for("nothing to tell", zero.is_settled)
        zero.hook.kill()
        zero.kill_alert()
        zero.produce(3_000, shift=0)
        wait_for("recovery of all", lambda: zero.incidents()[1] == set())
        zero.alert.start()
        wait_for("an attempt to tell", zero.attempts)
        zero.kill_alert_at_next_post(answered=True)
        zero.hook.start()
        zero.restart_alert_after_its_death()
        wait_for("each recovered", lambda: zero.told() == zero.incidents()[0])
        assert Counter(zero.told().values()) == {"opened": len(TOLD), "recovered": len(TOLD)}
        wait_for("no alert in Alertmanager", lambda: zero.firing() == set())
        wait_for("resolved", lambda: zero.delivered_by_alertmanager() == {of: ["firing", "resolved"] for of in TOLD})
        wait_for("a calm page", lambda: zero.red_features() == set())
        assert_all_agree_with_the_events(zero)

        # Nothing more comes. What came twice is a message at which the alerter was killed, and the same to the byte.
        wait_for("nothing to tell", zero.is_settled)
        messages = {post.key for post in zero.hook.posts}
        assert len({(post.key, post.body) for post in zero.hook.posts}) == len(messages)
        repeats = Counter(post.key for post in zero.hook.posts) - Counter(messages)
        assert repeats <= Counter(zero.excused)
        assert zero.hook.posts[zero.fatal[0]].key in repeats, "nobody answered it"
        with capsys.disabled():
            print(
                f"\n{len(zero.told())} alerts in {len(messages)} messages; {zero.kills} kills of the alerter, 2 of the receiver; "
                f"{repeats.total()} raw repeats, each of a message in flight at a kill"
            )

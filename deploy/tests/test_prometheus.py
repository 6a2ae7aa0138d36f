"""The real Prometheus and Alertmanager: workers are scraped, rules evaluated, drift is told of; what does not drift is not."""

import pytest

from processes import get_json, wait_for
from system import System
from test_rules import RECORDED, RULES


def test_both_workers_are_scraped(whole: System) -> None:
    wait_for("two targets up", lambda: len(whole.query('up{job="leeway"} == 1')) == 2)
    # The last look may be from before the tasks ran.
    wait_for("tasks that run", lambda: whole.query('sum(leeway_tasks{job="leeway",state="running"}) > 0'))


def test_every_rule_is_evaluated_without_an_error(whole: System) -> None:
    def groups() -> list[dict]:
        found = get_json(f"{whole.prometheus}/api/v1/rules")["data"]["groups"]
        return found if all(rule["lastEvaluation"] > "0001-01-02" for group in found for rule in group["rules"]) else []

    rules = [rule for group in wait_for("rules are evaluated", groups) for rule in group["rules"]]
    assert len(rules) == len(RULES + RECORDED)
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_drift_of_a_feature_is_delivered(whole: System) -> None:
    wait_for("an alert of feature1", lambda: {"feature1"} & {labels["feature"] for labels in whole.firing("LeewayFeatureDrift")}, 120)
    alert = next(alert for alert in whole.webhook.alerts if alert["labels"].get("feature") == "feature1" and alert["labels"]["monitor"] == "default")
    assert alert["labels"]["severity"] == "warning"
    assert alert["annotations"]["summary"] == "feature1 of monitor default has drifted"
    assert "PSI up to" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"].endswith("docs/monitoring.md#leewayfeaturedrift")


def test_drift_of_the_whole_topic_and_of_segments_is_delivered(whole: System) -> None:
    expected = {
        ("default", "partition", ""),
        ("default", "global", ""),
        ("by-country", "partition", "country=DE"),
        ("by-country", "partition", "country=FR"),
    }

    def told() -> bool:
        return expected <= {
            (labels["monitor"], labels["scope"], labels.get("segment", ""))
            for labels in whole.firing("LeewayFeatureDrift")
            if labels["feature"] == "feature1"
        }

    wait_for(f"alerts of {expected}", told)


def test_what_does_not_drift_is_not_told_of(whole: System) -> None:
    wait_for("an alert", lambda: whole.webhook.alerts, 120)
    assert {labels["feature"] for labels in whole.firing("LeewayFeatureDrift")} == {"feature1"}
    assert {alert["labels"]["alertname"] for alert in whole.webhook.alerts} <= {"LeewayFeatureDrift", "LeewayMonitorDrift", "LeewayQualityViolated"}


def test_workers_and_the_exporter_of_their_events_tell_of_the_same_and_nothing_is_told_or_counted_twice(whole: System) -> None:
    wait_for("drift at the exporter", lambda: whole.query('leeway_drift_status{job="leeway-metrics",feature="feature1"} == 2'), 120)
    by = "monitor, scope, partition, segment, feature"
    for family in ("leeway_drift_status", "real_time_psi_score"):
        for one, other in (("leeway", "leeway-metrics"), ("leeway-metrics", "leeway")):
            missing = f'max by ({by}) ({family}{{job="{one}"}}) unless on ({by}) {family}{{job="{other}"}}'
            wait_for(f"every {family} of {one} at {other}", lambda missing=missing: not whole.query(missing))
    # All of it since the start: the workers and the exporter have counted the same checks, but for those of the last moment.
    checks = 'sum(drift_detection_events_total{job="%s",monitor="default"})'
    wait_for("counts that agree", lambda: whole.query(f"abs({checks % 'leeway'} - {checks % 'leeway-metrics'}) < 5 and {checks % 'leeway'} > 20"))
    consumed = 'sum(kafka_messages_consumed_total{job="%s",topic="drift-data"})'
    share = f"abs({consumed % 'leeway'} / {consumed % 'leeway-metrics'} - 1)"
    # The exporter asks where the group stands every five seconds.
    wait_for("records that agree", lambda: whole.query(f"{share} < 0.3"))
    recorded = whole.query('count by (job) ({__name__=~".+:(leeway|kafka|drift|real).+"})')
    assert {series["metric"]["job"] for series in recorded} == {"leeway"}
    alerts = whole.query('ALERTS{alertname=~"Leeway.+"}')
    assert {series["metric"]["job"] for series in alerts} == {"leeway"}
    rate = "sum(monitor:drift_detection_events:rate5m)"
    assert not whole.query(f'{rate} > 1.5 * sum(rate(drift_detection_events_total{{job="leeway"}}[5m]))')


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule["record"])
def test_every_recorded_series_is_there(whole: System, rule: dict) -> None:
    wait_for(rule["record"], lambda: whole.query(rule["record"]))


def test_status_and_psi_agree_with_the_stream(whole: System) -> None:
    """feature1 was moved by 1.5 standard deviations; plan was not."""
    wait_for(
        "drift in all partitions",
        lambda: len(whole.query('feature:leeway_drift_status:max{monitor="default",scope="partition",feature="feature1"} == 2')) == 4,
    )
    assert whole.query('feature:leeway_drift_status:max{feature="plan"} > 0') == []
    [psi] = whole.query('max(feature:real_time_psi_score:max{monitor="default",feature="feature1"})')
    assert float(psi["value"][1]) > 1
    [dead] = whole.query('topic:leeway_dead_letters:ratio_rate15m{topic="drift-data"}')
    assert 0.01 < float(dead["value"][1]) < 0.03, "one of fifty"

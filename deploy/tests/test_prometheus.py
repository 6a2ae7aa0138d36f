"""The real Prometheus and Alertmanager: workers are scraped, rules evaluated, drift is told of; what does not drift is not."""

import pytest

from processes import get_json, wait_for
from system import System
from test_rules import RECORDED, RULES


def test_both_workers_are_scraped(whole: System) -> None:
    wait_for("two targets up", lambda: len(whole.query('up{job="leeway"} == 1')) == 2)
    assert len(whole.query('sum(leeway_tasks{job="leeway",state="running"}) > 0')) == 1


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

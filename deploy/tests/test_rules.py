"""Each alert fires in a case of `promtool test rules`, does not in another, and has a text that its link leads to. `make rules` runs the cases."""

import re
from typing import Any

import pytest
import yaml

from processes import ROOT

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
RECORDED = [rule for group in yaml.safe_load((PROMETHEUS / "recording.yml").read_text())["groups"] for rule in group["rules"]]
CASES = [test for file in (PROMETHEUS / "tests").glob("*.yml") for test in yaml.safe_load(file.read_text())["tests"]]


def expectations(alert: str) -> list[tuple[int, list[Any]]]:
    """For each question after this alert its case, and what is expected to fire."""
    found = []
    for index, case in enumerate(CASES):
        for test in case.get("promql_expr_test", []):
            pattern = re.search(r"alertname=(~?)'([^']+)'", test["expr"])
            if pattern and (re.fullmatch(pattern[2], alert) if pattern[1] else pattern[2] == alert):
                found.append((index, test["exp_samples"]))
        found += [(index, test["exp_alerts"]) for test in case.get("alert_rule_test", []) if test["alertname"] == alert]
    return found


@pytest.mark.parametrize("alert", sorted({rule["alert"] for rule in RULES}))
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    expected = expectations(alert)
    assert any(samples for _, samples in expected), "no case in which it fires"
    assert any(not samples for _, samples in expected), "no case in which it does not"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_each_alert_says_what_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert rule["annotations"]["runbook_url"].endswith(f"docs/monitoring.md#{rule['alert'].lower()}")


def test_the_docs_name_no_alert_that_is_none() -> None:
    headings = re.findall(r"^### (Leeway\w+)$", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE)
    assert headings and set(headings) == {rule["alert"] for rule in RULES}


def test_every_metric_in_a_rule_is_one_that_leeway_or_a_rule_makes() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    known = {rule["record"] for rule in RECORDED}
    for rule in RULES + RECORDED:
        without_texts = re.sub(r'"[^"]*"', "", rule["expr"])
        for name in re.findall(r"\b(?:[a-z]+:)*(?:leeway|kafka|drift_detection|real_time|psi)_\w+(?::\w+)*", without_texts):
            assert name in known or f'"{re.sub("_bucket$", "", name)}"' in source, f"{name} in {rule['expr']}"

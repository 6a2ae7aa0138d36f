"""Dashboards: the committed JSON is what the SDK's types make, and every query of every panel and variable has an answer from a real run."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from generate import BLUE, FOLDER, ORANGE, VERMILLION, built
from processes import ROOT, get_json, wait_for
from system import System

DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}

# What a person may choose. With segments and without, one partition or the whole topic.
CHOICES = {
    "fleet": [{"job": ".*", "monitor": ".*"}, {"job": "leeway", "monitor": "default"}],
    "feature": [
        {"job": "leeway", "monitor": "default", "scope": "partition", "feature": "feature1", "segment": ".*", "partition": ".*"},
        {"job": ".*", "monitor": "default", "scope": "global", "feature": "plan", "segment": ".*", "partition": ".*"},
        {"job": "leeway", "monitor": "by-country", "scope": "partition", "feature": "feature2", "segment": "country=DE", "partition": "2"},
    ],
    "engine": [{"job": ".*", "instance": ".*"}],
}


def queries(name: str) -> Iterator[tuple[str, str]]:
    for panel in DASHBOARDS[name]["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def variables(name: str) -> Iterator[tuple[str, str, str]]:
    for one in DASHBOARDS[name]["templating"]["list"]:
        if one["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", one["query"]["query"]).groups()
            yield one["name"], series, label


def chosen(text: str, choice: dict[str, str]) -> str:
    replaced = re.sub(r"\$(\w+)", lambda found: choice[found[1]], text)
    assert "$" not in replaced
    return replaced


def values(whole: System, series: str, label: str) -> list[str]:
    return get_json(f"{whole.prometheus}/api/v1/label/{label}/values", **{"match[]": series})["data"]


def test_the_committed_dashboards_are_what_the_script_makes() -> None:
    made = built()
    assert set(made) == set(FOLDER.glob("*.json"))
    assert [file.name for file, text in made.items() if file.read_text() != text] == [], "run `make dashboards`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_sdk_reads_a_dashboard_and_writes_the_same(name: str) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARDS[name]))) == DASHBOARDS[name]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_read_by_everybody_and_leads_to_the_others(name: str) -> None:
    one = DASHBOARDS[name]
    text = json.dumps(one)
    assert set(re.findall(r"#[0-9A-Fa-f]{6}", text)) <= {BLUE, ORANGE, VERMILLION}
    assert not re.search(r'"(?:dark-|light-)?(?:red|green)"', text)
    assert one["uid"] == f"leeway-{name}"
    assert one["links"][0]["tags"] == one["tags"] == ["leeway"]
    assert all(
        (panel["description"] and panel["fieldConfig"]["defaults"].get("unit", "")) or panel["type"] in {"table", "state-timeline"}
        for panel in one["panels"]
    )
    targets = {uid for uid in re.findall(r"/d/([\w-]+)", text)}
    assert targets <= {other["uid"] for other in DASHBOARDS.values()}


def test_panels_do_not_overlap() -> None:
    for one in DASHBOARDS.values():
        taken = set()
        for panel in one["panels"]:
            at = panel["gridPos"]
            cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
            assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells


def test_what_is_provisioned_is_what_compose_mounts() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((folder / "dashboards/leeway.yml").read_text())["providers"]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


@pytest.mark.parametrize(("name", "variable", "series", "label"), [(name, *one) for name in DASHBOARDS for one in variables(name)])
def test_every_variable_has_values(whole: System, name: str, variable: str, series: str, label: str) -> None:
    def offered() -> bool:
        return any(values(whole, chosen(series, choice), label) for choice in CHOICES[name])

    wait_for(f"values of {variable}: {series}", offered)
    for choice in CHOICES[name]:
        if choice[variable] != ".*":
            assert choice[variable] in values(whole, chosen(series, choice), label)


@pytest.mark.parametrize(
    ("name", "panel", "expression", "choice"),
    [(name, *one, choice) for name in DASHBOARDS for one in queries(name) for choice in CHOICES[name]],
)
def test_every_query_of_a_panel_has_an_answer(whole: System, name: str, panel: str, expression: str, choice: dict[str, str]) -> None:
    def answer() -> list[dict[str, Any]]:
        found = whole.query(chosen(expression, choice))
        return [one for one in found if one["value"][1] != "NaN"]

    wait_for(f"{panel}: {chosen(expression, choice)}", answer)

"""deploy/sql/flink.sql on a real Flink and a real Kafka: each question is answered, and rightly."""

import re
import subprocess
from pathlib import Path

import pytest

from processes import ROOT, output, quiet_environment, wait_for
from system import System

pytestmark = pytest.mark.sql


@pytest.fixture(scope="module")
def answers(whole: System, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Rows by question."""
    wait_for("drift", lambda: len(whole.query('feature:leeway_drift_status:max{monitor="default",feature="feature1"} == 2')) == 5, 120)
    libs = output([ROOT / "scripts/flink-jars"]).strip()
    statements = tmp_path_factory.mktemp("flink") / "flink.sql"
    text = (ROOT / "deploy/sql/flink.sql").read_text()
    assert text.count("localhost:9092") == 1
    statements.write_text(text.replace("localhost:9092", whole.kafka.bootstrap))
    opened = [
        f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util", "java.util.concurrent", "java.net", "java.nio")
    ]
    command: list[str | Path] = ["java", "-Xmx1g", *opened, "-cp", f"{libs}/*", ROOT / "deploy/sql/RunSql.java", statements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=quiet_environment())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    print(done.stdout, done.stderr)
    rows: dict[str, list[dict[str, str]]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            name, columns = line[1:].split(" ", 1)
            rows[name] = []
        elif row := re.fullmatch(r"\+I\[(.*)\]", line):
            # The last column may have commas: an interval of numbers.
            values = row[1].split(", ", len(columns.split(",")) - 1)
            rows[name].append(dict(zip(columns.split(","), values, strict=True)))
    return rows


def test_the_worst_feature_is_the_one_that_moved(answers: dict[str, list[dict[str, str]]]) -> None:
    worst = answers["worst"]
    assert worst[0]["feature"] == "feature1"
    assert float(worst[0]["psi_max"]) > 1
    assert float(worst[0]["times_the_noise"]) > 10
    assert {row["feature"] for row in worst if int(row["checks_in_drift"]) > 0} == {"feature1"}
    assert [float(row["psi_max"]) for row in worst] == sorted((float(row["psi_max"]) for row in worst), reverse=True)


def test_partitions_that_disagree_are_found(answers: dict[str, list[dict[str, str]]]) -> None:
    """Partition 0 was moved by twice as much."""
    [first] = [row for row in answers["disagree"] if row["monitor"] == "default" and row["feature"] == "feature1"]
    assert float(first["apart"]) > 1
    assert int(first["partitions"]) == int(first["in_drift"]) == 4
    for row in answers["disagree"]:
        assert float(row["apart"]) > 0.1
        assert abs(float(row["psi_max"]) - float(row["psi_min"]) - float(row["apart"])) < 0.002


def test_changes_of_status_are_told(answers: dict[str, list[dict[str, str]]]) -> None:
    drifted = {(row["scope"], row["partition"]) for row in answers["changes"] if row["monitor"] == "default" and row["status"] == "drift"}
    assert drifted == {("global", "null"), *(("partition", str(partition)) for partition in range(4))}


def test_minutes_add_up(answers: dict[str, list[dict[str, str]]]) -> None:
    assert {row["monitor"] for row in answers["minutes"]} == {"default", "by-country"}
    assert all(int(row["checks"]) >= int(row["in_drift"]) for row in answers["minutes"])


def test_no_event_is_there_twice(answers: dict[str, list[dict[str, str]]]) -> None:
    assert answers["twice"] == []

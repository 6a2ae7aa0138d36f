"""The batch check as Prefect runs it: files in, artifacts and a state out. The binary and the server are real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import leeway_cli
from batch_check import batch_check

pytestmark = pytest.mark.usefixtures("leeway", "prefect_server")

Artifact = Callable[..., Any]


def check(directory: Path, current: str, **more: Any) -> Any:
    return batch_check(reference=str(directory / "train.csv"), current=str(directory / current), return_state=True, **more)


def test_rows_without_drift_end_in_a_completed_run_with_a_table_and_a_summary(samples: Path, artifact: Artifact) -> None:
    run = check(samples, "same.csv")
    assert (run.type.value, run.name, run.message) == ("COMPLETED", "Completed", "no drift: 0 of 3 features drift, mean PSI 0.0000")
    table = json.loads(artifact(run, "drift-features"))
    assert [(row["feature"], row["status"], row["PSI"]) for row in table] == [(name, "no drift", 0.0) for name in ("age", "plan", "score")]
    summary = artifact(run, "drift-summary")
    assert summary.startswith("# no drift: 0 of 3 features drift, mean PSI 0.0000\n"), summary
    assert f"2000 of `{samples / 'same.csv'}`" in summary, summary
    assert "report" not in summary, "there is none"


def test_drift_is_a_state_of_a_completed_run_and_the_worst_feature_stands_first(samples: Path, tmp_path: Path, artifact: Artifact) -> None:
    report = tmp_path / "report.html"
    run = check(samples, "moved.csv", html=str(report))
    assert (run.type.value, run.name, run.message) == ("COMPLETED", "Drift", "drift: 2 of 3 features drift, mean PSI 1.3501")
    table = json.loads(artifact(run, "drift-features"))
    assert [(row["feature"], row["status"]) for row in table] == [("age", "drift"), ("plan", "drift"), ("score", "no drift")]
    assert table[0]["PSI"] > table[1]["PSI"] > 0.25, table
    assert set(table[0]) == {"feature", "status", "PSI", "by chance", "p", "missing", "changed most"}
    summary = artifact(run, "drift-summary")
    assert "**`age` drifts**: PSI" in summary, summary
    assert "**`plan` drifts**" in summary, summary
    assert "changed most in `__other__`" in summary, summary
    assert "`score`" not in summary, "only what drifts is told of"
    assert f"report: `{report}`" in summary, summary
    assert "<html" in report.read_text()


def test_numbers_are_those_that_the_binary_prints(samples: Path, artifact: Artifact, leeway: str) -> None:
    found = leeway_cli.check(str(samples / "train.csv"), str(samples / "moved.csv"), None)
    table = json.loads(artifact(check(samples, "moved.csv"), "drift-features"))
    assert [(row["feature"], row["PSI"]) for row in table] == [(feature.feature, round(feature.psi, 4)) for feature in found.features]


def test_drift_fails_the_run_where_that_is_asked_for_and_the_artifacts_are_there_all_the_same(samples: Path, artifact: Artifact) -> None:
    run = check(samples, "moved.csv", fail_on_drift=True)
    assert (run.type.value, run.name) == ("FAILED", "Drift")
    assert run.message.startswith("drift: 2 of 3 features drift"), run.message
    assert len(json.loads(artifact(run, "drift-features"))) == 3
    assert check(samples, "same.csv", fail_on_drift=True).is_completed()


def test_mistyped_file_name_fails_the_run_with_leeways_own_message(samples: Path) -> None:
    run = check(samples, "mvoed.csv")
    assert run.is_failed()
    assert f"error: {samples / 'mvoed.csv'}: No such file or directory" in run.message, run.message


def test_mistyped_option_fails_the_run_with_leeways_own_message(samples: Path) -> None:
    run = check(samples, "same.csv", options=["--drfit=0.3"])
    assert run.is_failed()
    assert "unexpected argument '--drfit' found" in run.message, run.message
    assert "a similar argument exists: '--drift'" in run.message, run.message


def test_options_reach_the_binary(samples: Path) -> None:
    run = check(samples, "moved.csv", options=["--drift=1000", "--possible-drift=999"])
    assert run.message.startswith("no drift: 0 of 3 features drift"), run.message


def test_column_that_is_not_there_is_warned_of_in_the_summary(samples: Path, tmp_path: Path, artifact: Artifact) -> None:
    lines = (samples / "same.csv").read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in lines))
    run = batch_check(reference=str(samples / "train.csv"), current=str(short), name="short", return_state=True)
    assert run.name == "Drift"
    summary = artifact(run, "short-summary")
    assert f'warning: no row of {short} has "score"' in summary, summary
    table = json.loads(artifact(run, "short-features"))
    assert (table[0]["feature"], table[0]["missing"], table[0]["changed most"]) == ("score", "100.0 %", "__missing__")


def test_name_that_is_no_artifact_key_is_refused_before_anything_runs(samples: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    run = check(samples, "same.csv", name="My Data", html=str(report))
    assert run.is_failed()
    assert "name" in run.message and "pattern" in run.message, run.message
    assert not report.exists()


def test_summary_of_very_many_drifted_features_tells_of_the_worst(tmp_path: Path, artifact: Artifact) -> None:
    train, today = tmp_path / "train.csv", tmp_path / "today.csv"
    head = ",".join(f"feature{number}" for number in range(30)) + "\n"
    train.write_text(head + "".join(",".join([str(row % 50)] * 30) + "\n" for row in range(1000)))
    today.write_text(head + "".join(",".join([str(row % 50 + 25)] * 30) + "\n" for row in range(1000)))
    run = batch_check(reference=str(train), current=str(today), return_state=True)
    summary = artifact(run, "drift-summary")
    assert (summary.count("drifts**"), summary.endswith("- and 10 more, see the table\n")) == (20, True), summary
    assert len(json.loads(artifact(run, "drift-features"))) == 30


def test_features_name_is_text_and_not_markdown(tmp_path: Path, artifact: Artifact) -> None:
    train, today = tmp_path / "train.csv", tmp_path / "today.csv"
    train.write_text("<b>`a|b\n" + "".join(f"{number % 50}.5\n" for number in range(1000)))
    today.write_text("<b>`a|b\n" + "".join(f"{number % 50}5\n" for number in range(1000)))
    run = batch_check(reference=str(train), current=str(today), return_state=True)
    assert "**``<b>`a|b`` drifts**" in artifact(run, "drift-summary")


def test_binary_that_is_not_there_is_named(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEEWAY_BIN", "/nowhere/leeway")
    run = check(samples, "same.csv")
    assert run.is_failed()
    assert "/nowhere/leeway is not there or cannot be run; install leeway, or name it with LEEWAY_BIN" in run.message, run.message


def test_check_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = tmp_path / "leeway"
    endless.write_text("#!/bin/sh\nexec sleep 600\n")
    endless.chmod(0o755)
    monkeypatch.setenv("LEEWAY_BIN", str(endless))
    with pytest.raises(leeway_cli.LeewayError, match=r"was not through after 0\.2 s"):
        leeway_cli.check("train.csv", "today.csv", None, timeout_seconds=0.2)


def test_output_of_another_program_is_told_as_it_is() -> None:
    with pytest.raises(leeway_cli.LeewayError, match=r"cannot read .*'hello'"):
        leeway_cli.read_report("hello", is_drift=False, warnings=())

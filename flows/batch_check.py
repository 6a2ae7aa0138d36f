"""A batch check as a Prefect flow: `leeway check`, with what it found as artifacts of the run.

    leeway check --> Check --> table `<name>-features`, summary `<name>-summary` --> state of the run

Drift is a result: the run ends in the state `Drift`, which is a completed one unless `fail_on_drift` asks for a failed one. A check that cannot be
made fails the run with leeway's own message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

import leeway_cli
from artifact_text import ArtifactName, code
from leeway_cli import Check, Feature

TOLD_MAX = 20
"""Drifted features that the summary tells of; the table has all."""


@task(name="leeway check")
def run_check(reference: str, current: str, html: str | None, options: Sequence[str], timeout_seconds: float) -> Check:
    """Runs the binary and logs its warnings."""
    found = leeway_cli.check(reference, current, html, options, timeout_seconds)
    for warning in found.warnings:
        get_run_logger().warning(warning.removeprefix("warning: "))
    return found


@flow(name="leeway-batch-check", flow_run_name="{name}: {current}")
def batch_check(
    reference: str,
    current: str,
    html: str | None = None,
    html_url: str | None = None,
    fail_on_drift: bool = False,
    name: ArtifactName = "drift",
    options: tuple[str, ...] = (),
    timeout_seconds: float = 3600,
) -> State[Any]:
    """Checks whether the rows of `current` have drifted from `reference`.

    Args:
        reference: A reference document (.json), or the data to make one of (.csv or .jsonl).
        current: The rows to check (.csv or .jsonl).
        html: Where to write the HTML report.
        html_url: Where a browser finds that report, if a web server has its folder.
        fail_on_drift: Whether a run that finds drift is a failed one. By default it is not: the check itself went well.
        name: What the artifacts' keys begin with; one for each kind of data, so that Prefect keeps each one's history.
        options: Further options of `leeway check`, as `["--feature=age=edges:18,30", "--drift=0.3"]`.
        timeout_seconds: After how long the check is ended.
    """
    found = run_check(reference, current, html, options, timeout_seconds)
    create_table_artifact(table_of(found), key=f"{name}-features", description=f"Features of {code(current)}, worst first.")
    summary = summary_of(found, reference, current, html, html_url)
    create_markdown_artifact(summary, key=f"{name}-summary", description=headline(found))
    if not found.is_drift:
        return Completed(message=headline(found))
    state = Failed if fail_on_drift else Completed
    return state(name="Drift", message=headline(found))


def table_of(found: Check) -> list[dict[str, Any]]:
    """The table, in the words and order of `leeway check`'s own."""
    return [
        {
            "feature": feature.feature,
            "status": words(feature.status),
            "PSI": round(feature.psi, 4),
            "by chance": round(feature.psi_null_mean, 4),
            "p": float(f"{feature.p_value:.2g}"),
            "missing": f"{100 * feature.missing_count / found.rows:.1f} %",
            "changed most": feature.top_bin,
        }
        for feature in found.features
    ]


def summary_of(found: Check, reference: str, current: str, html: str | None, html_url: str | None) -> str:
    """The summary, in Markdown."""
    lines = [
        f"# {headline(found)}",
        f"- rows: {found.rows} of {code(current)}",
        f"- reference: {code(reference)}, version {code(found.reference_version)}",
    ]
    if found.rejected_lines > 0:
        lines.append(f"- lines that are no JSON object, left out: {found.rejected_lines}")
    lines += [f"- {warning}" for warning in map(code, found.warnings)]
    if html is not None:
        path = code(str(Path(html).resolve()))
        lines.append(f"- report: [{path}](<{html_url}>)" if html_url else f"- report: {path}")
    lines += [f"- **{code(feature.feature)} drifts**: {evidence(feature)}" for feature in found.drifted[:TOLD_MAX]]
    if len(found.drifted) > TOLD_MAX:
        lines.append(f"- and {len(found.drifted) - TOLD_MAX} more, see the table")
    return "\n".join([lines[0], "", *lines[1:], ""])


def headline(found: Check) -> str:
    """One line on all of it."""
    return f"{words(found.verdict)}: {len(found.drifted)} of {len(found.features)} features drift, mean PSI {found.mean_psi:.4f}"


def evidence(feature: Feature) -> str:
    """Why a feature is said to drift."""
    text = f"PSI {feature.psi:.4f} ({feature.psi_null_mean:.4f} by chance), p {feature.p_value:.2g}"
    return text if feature.top_bin is None else f"{text}, changed most in {code(feature.top_bin)}"


def words(status: str) -> str:
    return status.replace("_", " ")

"""The health of a worker as a Prefect flow: two looks at it, what was seen as an artifact, and a failed run when it is not healthy.

    look --> seconds --> look --> table in `<name>-summary` --> state of the run: completed, or failed with all that is wrong

What is wrong is decided in `worker.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

import worker
from artifact_text import ArtifactName, code, table
from worker import Look


@task(name="look at the worker")
def look(url: str) -> Look:
    """One look. The token is no parameter, since Prefect keeps and shows those."""
    token = os.environ.get("LEEWAY_HTTP_BEARER_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # Without the environment's proxies: a worker is next door.
    with httpx.Client(base_url=url, headers=headers, timeout=worker.ANSWER_WITHIN_SECONDS, trust_env=False) as client:
        return worker.look_at(client)


@flow(name="leeway-stream-health", flow_run_name="{name}: {url}")
def stream_health(
    url: str = "http://127.0.0.1:8000",
    lag_max: Annotated[int, Field(ge=0)] = 10_000,
    seconds_between_looks: Annotated[float, Field(ge=0, le=3600)] = 10,
    name: ArtifactName = "worker",
) -> State[Any]:
    """Looks twice at a worker of `leeway run`, and fails in words when it is not live, not ready, too far behind, or does not commit.

    Args:
        url: Where its HTTP server is (`http.host`, `http.port`).
        lag_max: How many records it may be behind, over all of its partitions.
        seconds_between_looks: How long it has for a commit while records are waiting: several times its `commit_interval_ms`.
        name: What the artifact's key begins with; one for each worker.
    """
    first = look(url)
    time.sleep(seconds_between_looks)
    second = look(url)
    problems = worker.problems_of(first, second, lag_max)
    headline = f"{url} is {'not healthy: ' + '; '.join(problems) if problems else 'healthy'}"
    create_markdown_artifact(summary_of(url, first, second, problems), key=f"{name}-summary", description=headline)
    return Failed(message=headline) if problems else Completed(message=headline)


def summary_of(url: str, first: Look, second: Look, problems: list[str]) -> str:
    """The artifact, in Markdown."""
    lines = [f"# {code(url)} is {'not healthy' if problems else 'healthy'}", ""]
    if problems:
        lines += [f"- {code(problem)}" for problem in problems] + [""]
    lines += table(("", "first look", "second look"), _rows(first, second))
    if second.metrics is not None and second.metrics.lag:
        worst_first = sorted(second.metrics.lag.items(), key=lambda item: -item[1])
        lines += ["", *table(("topic", "partition", "lag"), ((code(topic), code(partition), str(lag)) for (topic, partition), lag in worst_first))]
    return "\n".join([*lines, ""])


def _rows(first: Look, second: Look) -> Iterator[tuple[str, ...]]:
    yield "live", code(first.live), code(second.live)
    yield "ready", code(first.ready), code(second.ready)
    before, now = first.metrics, second.metrics
    yield "commits", *(str(metrics.commits) if metrics else "unknown" for metrics in (before, now))
    yield "lag", *(str(metrics.lag_total) if metrics else "unknown" for metrics in (before, now))
    for state in sorted({state for metrics in (before, now) if metrics for state in metrics.tasks}):
        yield f"tasks {state}", *(str(metrics.tasks.get(state, 0)) if metrics else "unknown" for metrics in (before, now))

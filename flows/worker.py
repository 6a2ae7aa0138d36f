"""Asks a worker how it is: `/health/live`, `/health/ready`, `/metrics`.

    look, some seconds, look --> problems: texts, none when it is healthy

A worker that cannot be reached is a finding, not an exception. Nothing of Prefect is here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

ANSWER_WITHIN_SECONDS = 10.0
"""A worker answers in milliseconds; one that takes this long is of no use to a load balancer either."""

LAG_AT_REST = 1
"""Where the input is written in transactions, the log of a partition at rest ends with a marker, which no consumer commits."""

Partition = tuple[str, str]
"""Topic and partition, as the labels have them."""


class NoMetrics(Exception):
    """The metrics are not there or not a worker's; the text says why."""


@dataclass(frozen=True)
class Metrics:
    """Of all that `/metrics` says, what tells a worker that works from one that does not."""

    commits: int
    lag: Mapping[Partition, int]
    tasks: Mapping[str, int]
    """By state."""

    @property
    def lag_total(self) -> int:
        return sum(self.lag.values())


@dataclass(frozen=True)
class Look:
    """What a worker said at one moment."""

    live: str
    ready: str
    metrics: Metrics | None
    problems: tuple[str, ...] = field(default=())


def look_at(client: httpx.Client) -> Look:
    """One look. The client has the worker's address, and its token where it asks for one."""
    problems = []
    said = {}
    for question in ("live", "ready"):
        try:
            answer = client.get(f"/health/{question}")
        except httpx.HTTPError as error:
            return Look("no answer", "no answer", None, (f"it cannot be reached: {error}",))
        said[question] = _detail(answer)
        if not answer.is_success:
            problems.append(f"not {question}: {said[question]}")
    metrics = None
    try:
        metrics = _metrics(client.get("/metrics"))
    except httpx.HTTPError as error:
        problems.append(f"no metrics: {error}")
    except NoMetrics as error:
        problems.append(f"no metrics: {error}")
    return Look(said["live"], said["ready"], metrics, tuple(problems))


def problems_of(first: Look, second: Look, lag_max: int) -> list[str]:
    """What is wrong with a worker that was looked at twice."""
    problems = list(second.problems)
    if second.metrics is None:
        return problems
    if second.metrics.lag_total > lag_max:
        (topic, partition), worst = max(second.metrics.lag.items(), key=lambda item: item[1])
        problems.append(f"lag of {second.metrics.lag_total} records is above {lag_max}; most of it, {worst}, on {topic} partition {partition}")
    if first.metrics is not None and second.metrics.commits == first.metrics.commits:
        # At both looks: a worker without records commits nothing, and some may have come just before the second one.
        waiting = [at for at, lag in second.metrics.lag.items() if min(lag, first.metrics.lag.get(at, 0)) > LAG_AT_REST]
        if waiting:
            problems.append(f"no commit between the two looks (still {second.metrics.commits}) while records waited on {len(waiting)} partitions")
    return problems


def _metrics(answer: httpx.Response) -> Metrics:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NoMetrics("the worker asks for its http.bearer_token; give it in LEEWAY_HTTP_BEARER_TOKEN")
    if not answer.is_success:
        raise NoMetrics(_detail(answer))
    return read_metrics(answer.text)


def read_metrics(text: str) -> Metrics:
    """Reads Prometheus' text format."""
    commits = None
    lag: dict[Partition, int] = {}
    tasks: dict[str, int] = {}
    try:
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            match sample.name:
                case "leeway_commits_total":
                    commits = int(sample.value)
                case "kafka_consumer_lag":
                    lag[sample.labels["topic"], sample.labels["partition"]] = int(sample.value)
                case "leeway_tasks":
                    tasks[sample.labels["state"]] = int(sample.value)
    except (ValueError, KeyError, OverflowError) as error:
        raise NoMetrics(f"/metrics cannot be read: {error}") from error
    if commits is None:
        raise NoMetrics("/metrics has no leeway_commits_total; is it a worker of Leeway?")
    return Metrics(commits, lag, tasks)


def _detail(answer: httpx.Response) -> str:
    """The text, or of a problem document what is wrong."""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            return str(json.loads(answer.text)["detail"])
        except (ValueError, KeyError, TypeError):
            pass
    return answer.text.strip()[:200] or f"HTTP status {answer.status_code} and no text"

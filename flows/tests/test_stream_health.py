"""The look at a worker as Prefect runs it. Most of the workers here are a server of recorded answers; one is real."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import stop
from deadline import until

import worker
from stream_health import stream_health

pytestmark = pytest.mark.usefixtures("prefect_server")

Artifact = Callable[..., Any]

RECORDED = (Path(__file__).parent / "recorded" / "worker_metrics.txt").read_text()
"""`/metrics` of a worker: 73 commits, and 67 and 52 records of lag on two partitions."""

WORKER_START_SECONDS = 60


class Worker:
    """Answers as a worker does. Each question's answers are given in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, str, str]]] = {
            "/health/live": [(200, "text/plain", "live")],
            "/health/ready": [(200, "text/plain", "assigned and restored")],
            "/metrics": [metrics(commits=73), metrics(commits=74)],
        }
        self.token: str | None = None
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                waiting = answers.answers[self.path]
                status, kind, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if answers.token and self.path == "/metrics" and self.headers["Authorization"] != f"Bearer {answers.token}":
                    status, kind, body = problem(401, "send the header `Authorization: Bearer <http.bearer_token>`")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def metrics(*, commits: int, lag: tuple[int, int] = (67, 52)) -> tuple[int, str, str]:
    text = re.sub(r"^leeway_commits_total \d+$", f"leeway_commits_total {commits}", RECORDED, flags=re.MULTILINE)
    for partition, records in enumerate(lag):
        text = re.sub(rf'^(kafka_consumer_lag{{partition="{partition}",.*}}) \d+$', rf"\g<1> {records}", text, flags=re.MULTILINE)
    return 200, "text/plain; version=0.0.4", text


def problem(status: int, detail: str) -> tuple[int, str, str]:
    return status, "application/problem+json", f'{{"type": "about:blank", "title": "?", "status": {status}, "detail": "{detail}"}}'


@pytest.fixture
def recorded() -> Iterator[Worker]:
    server = Worker()
    yield server
    server.close()


def look(url: str, **more: Any) -> Any:
    return stream_health(url=url, seconds_between_looks=more.pop("seconds_between_looks", 0), return_state=True, **more)


def test_worker_that_commits_is_healthy_and_both_looks_are_in_the_artifact(recorded: Worker, artifact: Artifact) -> None:
    run = look(recorded.url)
    assert (run.type.value, run.message) == ("COMPLETED", f"{recorded.url} is healthy")
    assert artifact(run, "worker-summary").splitlines() == [
        f"# `{recorded.url}` is healthy",
        "",
        "|  | first look | second look |",
        "| --- | --- | --- |",
        "| live | `live` | `live` |",
        "| ready | `assigned and restored` | `assigned and restored` |",
        "| commits | 73 | 74 |",
        "| lag | 119 | 119 |",
        "| tasks created | 0 | 0 |",
        "| tasks restoring | 0 | 0 |",
        "| tasks running | 2 | 2 |",
        "",
        "| topic | partition | lag |",
        "| --- | --- | --- |",
        "| `leeway-demo-data` | `0` | 67 |",
        "| `leeway-demo-data` | `1` | 52 |",
    ]


def test_worker_that_is_not_ready_fails_the_run_with_the_workers_reason(recorded: Worker, artifact: Artifact) -> None:
    recorded.answers["/health/ready"] = [problem(503, "waiting for assignment or restore")]
    run = look(recorded.url)
    assert (run.type.value, run.message) == ("FAILED", f"{recorded.url} is not healthy: not ready: waiting for assignment or restore")
    assert "- `not ready: waiting for assignment or restore`" in artifact(run, "worker-summary")


def test_worker_that_became_ready_between_the_looks_is_healthy(recorded: Worker) -> None:
    recorded.answers["/health/ready"].insert(0, problem(503, "starting"))
    assert look(recorded.url).is_completed()


def test_worker_that_is_not_live_fails_the_run(recorded: Worker) -> None:
    recorded.answers["/health/live"] = [problem(503, "the process cannot go on")]
    assert "not live: the process cannot go on" in look(recorded.url).message


def test_lag_above_the_limit_fails_the_run_and_names_the_worst_partition(recorded: Worker) -> None:
    run = look(recorded.url, lag_max=118)
    assert (run.type.value, run.message) == (
        "FAILED",
        f"{recorded.url} is not healthy: lag of 119 records is above 118; most of it, 67, on leeway-demo-data partition 0",
    )
    assert look(recorded.url, lag_max=119).message.find("lag of") == -1


def test_no_commit_while_records_wait_fails_the_run(recorded: Worker) -> None:
    recorded.answers["/metrics"] = [metrics(commits=73)]
    run = look(recorded.url)
    assert run.is_failed()
    assert run.message.endswith("no commit between the two looks (still 73) while records waited on 2 partitions"), run.message


@pytest.mark.parametrize("lag", [(0, 0), (1, 1)])
def test_no_commit_without_records_that_wait_is_healthy(recorded: Worker, lag: tuple[int, int]) -> None:
    recorded.answers["/metrics"] = [metrics(commits=73, lag=lag)]
    assert look(recorded.url).is_completed()


def test_records_that_came_just_before_the_second_look_are_not_held_against_the_worker(recorded: Worker) -> None:
    recorded.answers["/metrics"] = [metrics(commits=73, lag=(0, 0)), metrics(commits=73, lag=(500, 0))]
    assert look(recorded.url).is_completed()


def test_worker_that_was_restarted_between_the_looks_is_not_taken_for_one_that_stands_still(recorded: Worker) -> None:
    recorded.answers["/metrics"] = [metrics(commits=73), metrics(commits=2)]
    assert look(recorded.url).is_completed()


def test_worker_with_a_token_is_asked_with_it(recorded: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.token = "abc"
    assert "no metrics: the worker asks for its http.bearer_token; give it in LEEWAY_HTTP_BEARER_TOKEN" in look(recorded.url).message
    monkeypatch.setenv("LEEWAY_HTTP_BEARER_TOKEN", "abc")
    recorded.answers["/metrics"] = [metrics(commits=74), metrics(commits=75)]
    assert look(recorded.url).is_completed()


def test_other_programs_metrics_are_not_taken_for_a_workers(recorded: Worker) -> None:
    recorded.answers["/metrics"] = [(200, "text/plain", "# TYPE go_threads gauge\ngo_threads 7\n")]
    assert "no metrics: /metrics has no leeway_commits_total; is it a worker of Leeway?" in look(recorded.url).message


@pytest.mark.parametrize("text", ["<html>", "leeway_commits_total NaN\n", "leeway_commits_total +Inf\n", "kafka_consumer_lag 3\n"])
def test_what_is_no_metrics_is_told_of_in_words(text: str) -> None:
    with pytest.raises(worker.NoMetrics, match="/metrics cannot be read"):
        worker.read_metrics(text)


def test_real_worker_is_healthy_until_it_is_gone(leeway: str, artifact: Artifact) -> None:
    demo = subprocess.Popen([leeway, "demo", "--http-port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert demo.stdout is not None
        lines = (re.match(r"health +(http://[^/]+)/health/ready", line) for line in demo.stdout)
        url = next(match[1] for match in lines if match)
        # Its tables would fill the pipe.
        threading.Thread(target=demo.stdout.read, daemon=True).start()

        def commits() -> bool:
            try:
                return httpx.get(f"{url}/health/ready").is_success and worker.read_metrics(httpx.get(f"{url}/metrics").text).commits > 0
            except httpx.ConnectError:
                return False

        until("the worker commits", WORKER_START_SECONDS, commits)
        run = look(url, seconds_between_looks=1)
        assert (run.type.value, run.message) == ("COMPLETED", f"{url} is healthy")
        assert "| tasks running | 2 | 2 |" in artifact(run, "worker-summary")
    finally:
        stop(demo)
    run = look(url)
    assert run.is_failed()
    assert run.message.startswith(f"{url} is not healthy: it cannot be reached: "), run.message
    assert "| commits | unknown | unknown |" in artifact(run, "worker-summary")

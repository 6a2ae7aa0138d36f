"""Serving as a user does it: deployments with a schedule, of which a run finds its way to the flow and its modules."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import stop
from deadline import until

FLOWS = Path(__file__).parents[1]

SERVED_WITHIN_SECONDS = 120

SCHEDULED_WITHIN_SECONDS = 90
"""Prefect's scheduler looks for new schedules every five seconds."""

RUN_WITHIN_SECONDS = 180
"""A run begins within ten seconds, in a process of its own, which imports Prefect first."""

pytestmark = pytest.mark.usefixtures("prefect_server", "leeway")


@contextmanager
def serving(arguments: list[str], directory: Path, log: Path) -> Iterator[Callable[[str], Any]]:
    """A Python that serves; what it gives waits for a deployment."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *arguments], cwd=directory, stdout=output, stderr=output, text=True)

    with get_client(sync_client=True) as client:

        def look(name: str) -> Any:
            if process.poll() is not None:
                raise AssertionError(f"{arguments[0]} ended with {process.returncode}: {log.read_text()}")
            try:
                return client.read_deployment_by_name(name)
            except ObjectNotFound:
                return None

        try:
            yield lambda name: until(f"{name} is served", SERVED_WITHIN_SECONDS, lambda: look(name))
        finally:
            stop(process)


def scheduled_runs(deployment: Any) -> list[Any]:
    """What Prefect's scheduler made of the schedule: runs that are to come."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    to_come = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    with get_client(sync_client=True) as client:
        of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        return client.read_flow_runs(deployment_filter=of_it, flow_run_filter=to_come)


def crons(deployment: Any) -> list[str]:
    return [scheduled.schedule.cron for scheduled in deployment.schedules]


def test_served_flows_have_their_schedules_and_run(samples: Path, tmp_path: Path, artifact: Callable[..., Any]) -> None:
    from prefect.deployments import run_deployment

    log = tmp_path / "log"
    arguments = ["flows/serve.py", f"--reference={samples / 'train.csv'}", f"--current={samples / 'moved.csv'}", "--worker=http://127.0.0.1:1"]
    with serving(arguments, FLOWS.parent, log) as served:
        check, health = served("leeway-batch-check/scheduled"), served("leeway-stream-health/scheduled")
        assert (crons(check), crons(health)) == (["15 3 * * *"], ["*/5 * * * *"])
        runs = until("the check is scheduled", SCHEDULED_WITHIN_SECONDS, lambda: scheduled_runs(check))
        assert {(run.expected_start_time.hour, run.expected_start_time.minute) for run in runs} == {(3, 15)}
        until("the look is scheduled", SCHEDULED_WITHIN_SECONDS, lambda: scheduled_runs(health))
        run: Any = run_deployment("leeway-batch-check/scheduled", timeout=RUN_WITHIN_SECONDS, as_subflow=False)
        assert run.state.name == "Drift", f"{run.state}: {log.read_text()}"
        assert "**`age` drifts**" in artifact(run.state, "drift-summary")


def test_readmes_example_is_served_as_it_stands(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", (FLOWS / "README.md").read_text(), flags=re.DOTALL)
    assert len(example) == 1
    with serving(["-c", example[0]], FLOWS, tmp_path / "log") as served:
        deployment = served("leeway-batch-check/nightly")
        assert crons(deployment) == ["15 3 * * *"]
        assert deployment.parameters["fail_on_drift"] is True

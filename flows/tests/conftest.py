"""A Prefect server of the tests' own, and what a run left on it.

Prefect reads its settings when it is imported, so the environment is set first: a home that goes with the tests, nothing sent to anyone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from deadline import until

HOME = tempfile.TemporaryDirectory(prefix="leeway-flows-")

SERVER_START_SECONDS = 150
"""It makes its database first: 40 s on two busy cores."""

STOP_SECONDS = 30


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = _free_port()

for setting in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[setting]
os.environ.pop("LEEWAY_HTTP_BEARER_TOKEN", None)
os.environ.update(
    PREFECT_HOME=HOME.name,
    PREFECT_API_URL=f"http://127.0.0.1:{PORT}/api",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    NO_PROXY="127.0.0.1,localhost",
)


def stop(process: subprocess.Popen[str]) -> None:
    """Asks a process that the tests started to end, and ends it when it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def leeway() -> str:
    """The binary under test."""
    path = os.environ.get("LEEWAY_BIN")
    if not path or not os.access(path, os.X_OK):
        pytest.exit(f"LEEWAY_BIN = {path!r} is no binary; `make flows` sets it to the one that is built", returncode=2)
    return path


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """Prefect's own server, on a database of its own."""
    log = Path(HOME.name) / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={PORT}", "--no-ui", "--analytics-off"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)

    def healthy() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"Prefect's server ended with {process.returncode}: {log.read_text()}")
        try:
            return httpx.get(f"{os.environ['PREFECT_API_URL']}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        until("Prefect's server answers", SERVER_START_SECONDS, healthy)
        yield os.environ["PREFECT_API_URL"]
    finally:
        try:
            # Logs are sent from a thread of Prefect's, which else would find no server any more.
            from prefect.logging.handlers import APILogHandler

            APILogHandler().flush()
        finally:
            stop(process)
    # A service of the server that fails is in its log alone: what it was to do is not done.
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def artifact(prefect_server: str) -> Callable[..., object]:
    """The data of the artifact with a key that a run left."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
    from prefect.client.schemas.objects import State

    def of(run: State[object], key: str) -> object:
        assert run.state_details.flow_run_id is not None, f"{run} is of no run"
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run.state_details.flow_run_id]),
            key=ArtifactFilterKey(any_=[key]),
        )
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=wanted)
        assert len(found) == 1, f"artifacts with the key {key}: {found}"
        return found[0].data

    return of


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.csv`, `same.csv`, and `moved.csv`, in which `age` moves much, `plan` gets a new category, and `score` stays."""
    directory = tmp_path_factory.mktemp("samples")

    def rows(shift: int) -> Iterator[str]:
        yield "age,plan,score\n"
        for number in range(2000):
            plan = "trial" if shift and number % 5 == 0 else ("basic", "pro")[number % 2]
            yield f"{20 + number * 7919 % 50 + shift},{plan},{number * 31 % 97}\n"

    for name, shift in (("train", 0), ("same", 0), ("moved", 15)):
        (directory / f"{name}.csv").write_text("".join(rows(shift)))
    return directory

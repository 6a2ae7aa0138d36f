"""Programs that a test starts, and waiting for what they do. None outlives the test."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def leave_nothing_behind() -> None:
    """A process that is told to end runs no `finally` by itself: what it had started would go on."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = 60) -> T:
    """Asks until the answer is true, and gives it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Held open until all are known, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def get(url: str, **parameters: str) -> str:
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    with urllib.request.urlopen(url + query, timeout=10) as answer:
        return answer.read().decode()


def get_json(url: str, **parameters: str) -> Any:
    return json.loads(get(url, **parameters))


def answers(url: str) -> bool:
    try:
        get(url)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def output(command: list[str | Path], **options: Any) -> str:
    """Runs a program that has to succeed, and gives what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def unpacked(package: str, program: str) -> str:
    """The path of a program of a Debian package."""
    return output([ROOT / "scripts/unpacked", package, program]).strip()


@contextlib.contextmanager
def running(command: list[str | Path], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that writes into a log, and that is ended however the test ends."""
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Mortal(contextlib.ExitStack):
    """A program that a test kills, and starts again."""

    def __init__(self, command: list[str | Path], log: Path, **options: Any) -> None:
        super().__init__()
        self.command, self.log, self.options = command, log, options

    def start(self) -> None:
        self.process = self.enter_context(running(self.command, self.log, **self.options))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextlib.contextmanager
def explained(*logs: Path) -> Iterator[None]:
    """Prints the ends of these logs, and of those in these folders, when what is within fails."""
    try:
        yield
    except BaseException:
        for log in (file for path in logs for file in (sorted(path.glob("*.log")) if path.is_dir() else [path])):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        raise


def quiet_environment() -> dict[str, str]:
    """Nothing of the environment configures what is started."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "XDG_CACHE_HOME") if name in os.environ}

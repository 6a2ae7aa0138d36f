"""Prometheus and Alertmanager of Debian, with the files of deploy/prometheus.

Only what docs/monitoring.md says may be changed is changed: targets, intervals, receivers, and which rules are loaded.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from processes import ROOT, answers, get_json, running, unpacked, wait_for


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    return get_json(f"{prometheus}/api/v1/query", query=expression)["data"]["result"]


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    settings = yaml.safe_load(file.read_text())
    change(settings)
    file.write_text(yaml.safe_dump(settings))


@contextlib.contextmanager
def prometheus(directory: Path, port: int, targets: dict[str, list[int]], alertmanager: int, without: set[str] = frozenset()) -> Iterator[str]:
    """Scrapes the ports of these jobs and looks at its rules each second, but for those of the groups that are left out; gives its address."""
    files = directory / "prometheus"
    shutil.copytree(ROOT / "deploy/prometheus", files)
    (files / "targets/leeway.yml").write_text(
        yaml.safe_dump([{"targets": [f"127.0.0.1:{port}" for port in ports], "labels": {"job": job}} for job, ports in targets.items()])
    )
    (files / "alertmanagers/alertmanager.yml").write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{alertmanager}"]}]))
    rewrite(files / "prometheus.yml", lambda settings: settings["global"].update(scrape_interval="1s", evaluation_interval="1s"))
    rewrite(files / "alerts.yml", lambda rules: rules.update(groups=[group for group in rules["groups"] if group["name"] not in without]))
    command = [
        unpacked("prometheus", "prometheus"),
        f"--config.file={files}/prometheus.yml",
        f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, directory / "prometheus.log"):
        wait_for("Prometheus", lambda: answers(f"{address}/-/ready"))
        yield address


@contextlib.contextmanager
def alertmanager(directory: Path, port: int, webhook: int) -> Iterator[str]:
    """With a webhook as receiver, and without waiting for more to tell of at once; gives its address."""
    settings = yaml.safe_load((ROOT / "deploy/prometheus/alertmanager.yml").read_text())
    settings["route"].update(group_wait="1s", group_interval="1s")
    settings["receivers"][0]["webhook_configs"] = [{"url": f"http://127.0.0.1:{webhook}/"}]
    file = directory / "alertmanager.yml"
    file.write_text(yaml.safe_dump(settings))
    command = [
        unpacked("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={directory}/alertmanager",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, directory / "alertmanager.log"):
        wait_for("Alertmanager", lambda: answers(f"{address}/-/ready"))
        yield address

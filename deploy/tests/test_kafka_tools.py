"""Every block of docs/kafka-tools.md, run as it stands there but for the broker's address, prints what the page expects."""

import os
import re
import subprocess

import pytest

from processes import ROOT, quiet_environment, wait_for
from system import System

PAGE = (ROOT / "docs/kafka-tools.md").read_text()
RECIPES = re.findall(r"<!-- prints: (.*?) -->\n```sh\n(.*?)```", PAGE, re.DOTALL)


def test_every_block_of_the_page_says_what_it_prints() -> None:
    assert len(RECIPES) == PAGE.count("```sh") > 10


@pytest.mark.parametrize(("expected", "script"), RECIPES, ids=[re.search(r"kafka-[\w-]+", script)[0] for _, script in RECIPES])
def test_a_recipe_does_what_it_says(whole: System, expected: str, script: str) -> None:
    # Before, there is nothing to show.
    wait_for("drift", lambda: whole.query('feature:leeway_drift_status:max{feature="feature1"} == 2'), 120)
    environment = {**quiet_environment(), "PATH": f"{whole.kafka.tools()}:{os.environ['PATH']}"}
    command = script.replace("localhost:9092", whole.kafka.bootstrap)
    assert command != script
    done = subprocess.run(["bash", "-c", "set -eu\n" + command], capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(expected, done.stdout), f"{expected}\n{done.stdout[:3000]}\n{done.stderr}"
    assert "deprecated" not in (done.stdout + done.stderr).lower(), done.stderr

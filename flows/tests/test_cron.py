"""The crontab of README.md, run line by line as cron does: by /bin/sh, with the settings above the line. Mail is a script that keeps it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def crontab(tmp_path: Path, samples: Path, leeway: str) -> str:
    """The text, with the paths of this machine."""
    blocks = re.findall(r"```cron\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 1, "one crontab"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "leeway").symlink_to(Path(leeway).resolve())
    mail = tmp_path / "bin" / "mail"
    mail.write_text(f'#!/bin/sh\n{{ printf "%s\\n" "$*"; cat; }} >> {tmp_path}/mail\n')
    mail.chmod(0o755)
    text: str = blocks[0].replace("/srv/train.csv", str(samples / "train.csv")).replace("/usr/local/bin", str(tmp_path / "bin"))
    return text.replace("/srv/", f"{tmp_path}/")


def run(crontab: str) -> None:
    lines = [line for line in crontab.splitlines() if line and not line.startswith("#")]
    *settings, job = lines
    assert "%" not in job, "cron makes line breaks of them"
    schedule = re.match(r"(?:\S+ +){5}", job)
    assert schedule is not None
    environment = dict(setting.split("=", 1) for setting in settings)
    subprocess.run([environment.pop("SHELL"), "-c", job[schedule.end() :]], env=environment, cwd="/", check=True, timeout=60)


def mail(directory: Path) -> str | None:
    kept = directory / "mail"
    return kept.read_text() if kept.exists() else None


def test_cron_is_silent_without_drift(crontab: str, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "today.csv").symlink_to(samples / "same.csv")
    run(crontab)
    assert mail(tmp_path) is None
    assert (tmp_path / "report.html").exists()


def test_cron_mails_the_table_on_drift(crontab: str, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "today.csv").symlink_to(samples / "moved.csv")
    run(crontab)
    sent = mail(tmp_path)
    assert sent is not None
    assert sent.startswith("-s drift ml@example.com\n"), sent
    assert "drift: 2 of 3 features drift" in sent, sent


def test_cron_mails_leeways_message_when_the_check_cannot_be_made(crontab: str, tmp_path: Path) -> None:
    run(crontab)
    sent = mail(tmp_path)
    assert sent is not None
    assert sent.startswith("-s drift check failed ml@example.com\n"), sent
    assert f"error: {tmp_path}/today.csv: No such file or directory" in sent, sent

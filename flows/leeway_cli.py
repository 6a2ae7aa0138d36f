"""Calls `leeway check` and reads what it prints.

    exit 0, 3   a result: nothing drifts, something does
    exit 1, 2   no result: the binary's own message is the error

Nothing of Prefect is here, and no arithmetic: all numbers are the binary's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DRIFT = 3
"""Exit code of `leeway check` when a feature drifts or the summary does."""

SEVERITIES = ("no_drift", "possible_drift", "drift")
"""The statuses, from the least severe."""


class LeewayError(Exception):
    """There is no result; the text says why."""


@dataclass(frozen=True)
class Feature:
    """What was found for one feature; the names are those of a drift event."""

    feature: str
    status: str
    psi: float
    p_value: float
    psi_null_mean: float
    missing_count: int
    top_bin: str | None


@dataclass(frozen=True)
class Check:
    """What a check found."""

    verdict: str
    """`drift` as soon as one feature drifts, also when the mean of many hides it; else the status of the mean."""
    mean_psi: float
    rows: int
    rejected_lines: int
    reference_version: str
    features: tuple[Feature, ...]
    """Worst first: by status, then by PSI, then as the reference has them."""
    warnings: tuple[str, ...]

    @property
    def is_drift(self) -> bool:
        return self.verdict == "drift"

    @property
    def drifted(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.status == "drift")


def find_binary(environment: Mapping[str, str] = os.environ) -> str:
    """The binary that `LEEWAY_BIN` names, else the one on the search path."""
    wanted = environment.get("LEEWAY_BIN") or "leeway"
    found = shutil.which(wanted, path=environment.get("PATH"))
    if found is None:
        raise LeewayError(f"{wanted} is not there or cannot be run; install leeway, or name it with LEEWAY_BIN")
    return found


def check(reference: str, current: str, html: str | None, options: Sequence[str] = (), timeout_seconds: float | None = None) -> Check:
    """Checks the rows of `current` against `reference`.

    Raises `LeewayError` when it cannot be judged.
    """
    # With `=`, so that no file name is taken for an option.
    command = [find_binary(), "check", f"--reference={reference}", f"--current={current}", "--format=json", *options]
    if html is not None:
        command.append(f"--html={html}")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LeewayError(f"leeway check of {current} was not through after {timeout_seconds} s; ended it") from None
    except OSError as error:
        raise LeewayError(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode < 0:
        raise LeewayError(f"leeway check of {current} was ended by signal {-done.returncode}")
    if done.returncode not in (0, DRIFT):
        raise LeewayError(done.stderr.strip() or f"leeway check ended with exit code {done.returncode} and said nothing")
    warnings = tuple(line for line in done.stderr.splitlines() if line.startswith("warning: "))
    return read_report(done.stdout, is_drift=done.returncode == DRIFT, warnings=warnings)


def read_report(text: str, *, is_drift: bool, warnings: tuple[str, ...]) -> Check:
    """Reads what `leeway check --format json` prints."""
    try:
        report = json.loads(text)
        summary = report["summary"]
        features = [_feature(fields) for fields in report["features"]]
        # Sorting is stable: equals stay as the reference has them.
        features.sort(key=lambda f: (SEVERITIES.index(f.status), f.psi), reverse=True)
        return Check(
            verdict="drift" if is_drift else summary["status"],
            mean_psi=summary["psi"],
            rows=summary["window_count"],
            rejected_lines=summary["rejected_count"],
            reference_version=summary["reference_version"],
            features=tuple(features),
            warnings=warnings,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LeewayError(f"leeway check printed what these flows cannot read ({error!r}): {text[:200]!r}") from error


def _feature(fields: dict[str, Any]) -> Feature:
    return Feature(**{name: fields[name] for name in Feature.__dataclass_fields__})

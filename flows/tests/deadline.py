"""Waiting for something to become so, with an end to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 0.05


def until(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """Looks until there is something to see; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(LOOK_AGAIN_SECONDS)

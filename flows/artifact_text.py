"""What the artifacts of all flows share: their names, and text from outside (features, paths, error messages) in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

ArtifactName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
"""What Prefect takes for the beginning of an artifact's key."""


def code(text: str) -> str:
    """As a code span: nothing in it is taken for Markdown or HTML, and it stays on its line."""
    text = " ".join(text.split())
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table. A bar would end its cell even in a code span."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]

"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
MovedData = Annotated[
    str | None, typer.Option("--data", help="Where the data lies now, if it has moved.")
]
MovedImages = Annotated[
    Path | None, typer.Option("--images", help="Where the images lie now, if they have moved.")
]
RunPath = Annotated[Path, typer.Argument(help="A run, or a folder of runs.", show_default=False)]


def words_of(text: str) -> list[str]:
    """The distinct parts of "a,b", without empty ones."""
    parts = dict.fromkeys(part.strip() for part in text.split(","))
    return [part for part in parts if part]

"""Options that several commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bench.terminal import show_error, unwritable_output

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
MovedData = Annotated[
    str | None, typer.Option("--data", help="Where the data lies now, if it has moved.")
]
MovedImages = Annotated[
    Path | None, typer.Option("--images", help="Where the images lie now, if they have moved.")
]
RunPath = Annotated[Path, typer.Argument(help="A run, or a folder of runs.", show_default=False)]

JUDGE = "The judge of free answers"
JUDGES = (
    "openai:MODEL[@URL], hf:MODEL, grounding:MODEL[+MODEL] (checks claims at the image), "
    "replay:FILE, or scene (for --data scenes)."
)
JudgeSpec = Annotated[str | None, typer.Option(help=JUDGES, rich_help_panel=JUDGE)]
JudgeTemplate = Annotated[
    Path | None,
    typer.Option(
        help="A file with the judge's prompt, or 'official' for MMHal-Bench's own.",
        rich_help_panel=JUDGE,
    ),
]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        help="openai:…@URL: the environment variable that holds the judge's key.",
        rich_help_panel=JUDGE,
    ),
]
JudgeClaims = Annotated[
    str | None,
    typer.Option(
        help="grounding:… only: who finds the claims of an answer: coco (the default), "
        "noun-phrases, openai:MODEL[@URL] or hf:MODEL.",
        rich_help_panel=JUDGE,
    ),
]
JudgeMaxTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Upper bound of a review. Default: 1024.", rich_help_panel=JUDGE),
]


class Grouped(TyperCommand):
    """A command with many options: `--help` shows them under headings, by `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections in the order of their first options; those without one come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None:
                heading = getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(heading, []).append(row)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


class Commands(TyperGroup):
    """All commands. Help is written before one begins, which then cannot report an error."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command of the words."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            show_error(unwritable_output(error))
            sys.exit(2)


def words_of(text: str) -> list[str]:
    """The distinct parts of "a,b", without empty ones."""
    parts = dict.fromkeys(part.strip() for part in text.split(","))
    return [part for part in parts if part]

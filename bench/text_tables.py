"""Tables as plain text that fits its terminal: what is too wide continues below."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence

PIPE_WIDTH = 160  # columns of a table that goes into a file or another program
GAP = "  "
EMPTY = ("", "–")


def output_width() -> int:
    """Columns of standard output: what COLUMNS says, the terminal's, or 160 of a file or a pipe."""
    is_told = sys.stdout.isatty() or "COLUMNS" in os.environ
    return shutil.get_terminal_size().columns if is_told else PIPE_WIDTH


def text_table(rows: Sequence[Sequence[str]], width: int, ruled: Collection[int] = ()) -> list[str]:
    """Lines of a table, the first column on the left and all others on the right.

    Columns that do not fit stand in further tables below, each with the first column again and
    without the rows that have nothing in it.

    Args:
        rows: Rows of cells, the first one being the headings.
        width: How wide a line may be.
        ruled: Numbers of the rows that a line parts from those above.
    """
    columns_of_cells = []
    for number, (heading, *cells) in enumerate(zip(*rows, strict=True)):
        # The first column names the rows.
        shaped = _decimals_aligned(cells) if number else cells
        columns_of_cells.append([heading, *shaped])
    rows = list(zip(*columns_of_cells, strict=True))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for columns in _fitting(widths, width):
        block = [[row[0], *(row[index] for index in columns)] for row in rows]
        shown = [0]
        for number in range(1, len(rows)):
            # What is empty in all tables stands in the first one.
            is_empty = not _has_something(rows[number])
            if _has_something(block[number]) or (not lines and is_empty):
                shown.append(number)
        if lines:
            lines.append("")
        head, *body = _aligned([block[number] for number in shown])
        rule = "─" * len(head)
        lines += [head, rule]
        for above, number, line in zip(shown, shown[1:], body, strict=False):
            # Below the headings there is a line anyway.
            if above and any(above < first <= number for first in ruled):
                lines.append(rule)
            lines.append(line)
    return lines


def _has_something(row: Sequence[str]) -> bool:
    return any(cell.strip() not in EMPTY for cell in row[1:])


def remark(text: str, indent: str = "  ") -> list[str]:
    """A text in lines that fit the terminal, further ones set in; one line in a file or a pipe."""
    if not sys.stdout.isatty():
        return [text]
    width = output_width()
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _fitting(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns behind the first one, as many together as fit beside it."""
    columns: list[int] = []
    used = widths[0]
    for index in range(1, len(widths)):
        needed = len(GAP) + widths[index]
        if columns and used + needed > width:
            yield columns
            columns, used = [], widths[0]
        columns.append(index)
        used += needed
    yield columns


def _decimals_aligned(cells: Sequence[str]) -> list[str]:
    """Cells of one width whose decimal points stand below each other, so that marks hang."""
    parts = []
    for cell in cells:
        whole, point, rest = cell.partition(".")
        # Only a number has a point that is one.
        if not whole.strip("+-").isdigit():
            whole, point, rest = cell, "", ""
        parts.append((whole, point + rest))
    left = max((len(whole) for whole, _ in parts), default=0)
    right = max((len(rest) for _, rest in parts), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in parts]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append(GAP.join(cells).rstrip())
    return lines

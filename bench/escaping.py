"""Texts of others on their way to people: names, answers and errors are shown, never obeyed.

One function for each surface, applied by what writes it. The report's page escapes in its
templates, LaTeX in `reports/tables.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# Control characters but for tab and line feed, those of other writing directions, line separators.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
COLOUR = re.compile("\x1b\\[[0-9;]*m")
TAG = re.compile(r"<(?=[A-Za-z/!?])")
NUMBERS = re.compile(r"[+-]?[\d.]+(?:e[+-]?\d+)?(?: to [+-]?[\d.]+)?")  # an interval too
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which spreadsheets begin one


def visible(text: str) -> str:
    r"""What would move the cursor, colour or reverse the line, as its code.

    >>> visible("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def uncoloured(text: str) -> str:
    r"""As `visible`, of a text that may be a library's, whose colours are left out.

    >>> uncoloured("\x1b[1ma\x1b[0m\x07")
    'a\\u0007'
    """
    return visible(COLOUR.sub("", text))


def in_all_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON with all its texts changed, those of its keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        changed = {}
        for name, item in value.items():
            changed[in_all_texts(name, change)] = in_all_texts(item, change)
        return changed
    if isinstance(value, list | tuple):
        return [in_all_texts(item, change) for item in value]
    return value


def visible_line(text: str) -> str:
    """As `visible`, on one line."""
    return " ".join(visible(text).split())


def markdown_text(text: str) -> str:
    """A text within a line of Markdown: no tag, no link, no end of a table's cell."""
    return TAG.sub("&lt;", visible_line(text)).replace("|", "\\|").replace("](", "]\\(")


def csv_text(text: str) -> str:
    """A text in a cell of CSV that no spreadsheet computes."""
    text = visible(text)
    is_formula = text.startswith(FORMULA) and not NUMBERS.fullmatch(text)
    return f"'{text}" if is_formula else text


def plot_text(text: str) -> str:
    r"""A text in a plot: matplotlib sets what stands between two $ as mathematics.

    >>> plot_text("$x$")
    '\\$x\\$'
    """
    return visible(text).replace("$", r"\$")

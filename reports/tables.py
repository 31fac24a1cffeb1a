"""Tables as Markdown, LaTeX (booktabs, siunitx) and CSV, all from the same cells."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from bench.escaping import csv_text, markdown_text, visible_line
from bench.files import without_surrogates
from bench.types import Better

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "σ": r"$\sigma$",
    "–": "--",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "†": r"$\dagger$",
    "*": r"$^*$",
    "<": "$<$",
    ">": "$>$",
}
WIDE = 6  # columns that fit a line
ARROWS = {"higher": "↑", "lower": "↓"}
# A number, and behind it an interval and marks. "7b" is a name.
NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)((?: ±[\d.]+| \[[^]]*\])?[*†‡]*)")
SPANNED = "{SPANNED}"  # the second heading of a number and what stands behind it
INTERVAL = "95 % interval"  # a column of texts
LATEX_SPECIAL = re.compile("|".join(map(re.escape, LATEX)))


class Cell(NamedTuple):
    """A cell.

    Args:
        text: What is shown.
        value: The number behind it, NaN if there is none.
        bold: Whether it stands out.
        low: The lower end of its 95 % interval, NaN if there is none.
        high: The upper end.
        n: How many samples it is of, 0 if that is not said.
    """

    text: str
    value: float = math.nan
    bold: bool = False
    low: float = math.nan
    high: float = math.nan
    n: int = 0


class Table(NamedTuple):
    """A table.

    Args:
        name: Of its files, and of its label in LaTeX.
        caption: What stands above it.
        header: The columns' names, of CSV for one.
        rows: Rows, whose first cell names them.
        notes: Remarks below it.
        caveats: For each row what a reader must know beside its numbers; a column of the CSV form,
            which has no remarks.
        better: For each column which direction is better; empty if none has one.
        titles: What people read above the columns; empty if it is their names.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()
    better: Sequence[Better] = ()
    titles: Sequence[str] = ()

    @property
    def headings(self) -> list[str]:
        """What stands above the columns, with an arrow in the better direction."""
        better = self.better or ["neither"] * len(self.header)
        headings = []
        for title, direction in zip(self.titles or self.header, better, strict=True):
            headings.append(f"{title} {ARROWS.get(direction, '')}".rstrip())
        return headings


def markdown(table: Table) -> str:
    """GitHub's form."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    header = list(map(markdown_text, table.headings))
    lines = [f"### {markdown_text(table.caption)}", "", _markdown_row(header), _markdown_row(rule)]
    for row in table.rows:
        lines.append(_markdown_row(list(map(_markdown_cell, row))))
    # Two spaces at the end break a line.
    notes = [f"{markdown_text(note)}  " for note in table.notes]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    return f"**{text}**" if cell.bold else text


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(table: Table) -> str:
    """A table environment for booktabs; numbers are in columns of siunitx.

    What stands behind a number, an interval or a mark, has a column of its own, so that decimals
    are aligned. A table of more than WIDE columns is scaled to the line, which takes graphicx.

    Its label is `tab:NAME`.
    """
    names, *figures = zip(*table.rows, strict=True) if table.rows else [()] * len(table.header)
    # siunitx takes what is no number within braces.
    name_heading, *titles = [f"{{{tex(heading)}}}" for heading in table.headings]
    columns = [(name_heading, "l", [_latex_text(cell) for cell in names])]
    for title, cells in zip(titles, figures, strict=True):
        first, *behind = _latex_columns(cells)
        if behind:
            title = rf"\multicolumn{{2}}{{c}}{title}"
        columns.append((title, *first))
        columns += [(SPANNED, *second) for second in behind]
    headings, kinds, shown = zip(*columns, strict=True)
    # By number: headings may be equal, and Styler wants them apart.
    frame = pd.DataFrame(without_surrogates(dict(enumerate(shown))))
    styler = frame.style.hide(axis="index").format_index(headings.__getitem__, axis="columns")
    text: str = styler.to_latex(
        hrules=True,
        column_format="".join(kinds),
        caption=tex(table.caption),
        label=f"tab:{table.name.replace(':', '-')}",
        position="t",
        position_float="centering",
    )
    text = text.replace(f" & {SPANNED}", "")
    notes = [rf"\par\footnotesize {tex(note)}" for note in table.notes]
    if len(table.header) > WIDE:
        text = text.replace(r"\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
        text = text.replace(r"\end{tabular}", "\\end{tabular}}")
    return text.replace(r"\end{table}", "\n".join([*notes, r"\end{table}"]))


def _latex_columns(cells: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """Kind and content of the one or two columns that cells make."""
    parts = [NUMBER.fullmatch(cell.text) for cell in cells]
    known = [part for part, cell in zip(parts, cells, strict=True) if cell.text != "–"]
    if not known or not all(known):
        return [("r", [_latex_text(cell) for cell in cells])]
    wholes, decimals, is_signed = [0], [0], False
    numbers, behind = [], []
    for part, cell in zip(parts, cells, strict=True):
        number, rest = part.groups() if part else ("{--}", "")
        if part:
            before_point, _, behind_point = number.lstrip("+-").partition(".")
            wholes.append(len(before_point))
            decimals.append(len(behind_point))
            is_signed = is_signed or number[0] in "+-"
        numbers.append(rf"\bfseries {number}" if cell.bold and part else number)
        behind.append(rf"\scriptsize {_with_minus(tex(rest.strip()))}" if rest else "")
    room = f"table-format={'-' if is_signed else ''}{max(wholes)}.{max(decimals)}"
    columns = [(f"S[{room},retain-explicit-plus,detect-weight]", numbers)]
    return [*columns, (r"@{\,}l", behind)] if any(behind) else columns


def _latex_text(cell: Cell) -> str:
    text = _with_minus(tex(cell.text))
    return rf"\textbf{{{text}}}" if cell.bold else text


def _with_minus(text: str) -> str:
    """Numbers with a minus sign, not a hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return LATEX_SPECIAL.sub(lambda match: LATEX[match[0]], visible_line(text))


def document(tables: Sequence[Table]) -> str:
    """A LaTeX document that shows all tables."""
    head = (
        "\\documentclass{article}\n"
        "\\usepackage[a4paper,landscape,margin=1.5cm]{geometry}\n"
        "\\usepackage{booktabs}\n"
        "\\usepackage{graphicx}\n"
        "\\usepackage{siunitx}\n"
        "\\begin{document}\n"
        "\\small\n"
    )
    return head + "\n".join(map(latex, tables)) + "\\end{document}\n"


def frame_of(table: Table) -> pd.DataFrame:
    """The numbers of a table, and texts where there are none.

    A column with intervals is followed by their ends, `NAME low` and `NAME high`, and one that says
    of how many samples it is by `NAME n`.
    """
    columns: dict[str, list[float | str]] = {}
    for heading, cells in zip(table.header, zip(*table.rows, strict=True), strict=True):
        if heading == INTERVAL:  # its ends stand beside the difference
            continue
        columns[heading] = [cell.text if math.isnan(cell.value) else cell.value for cell in cells]
        if not all(math.isnan(cell.low) for cell in cells):
            columns[f"{heading} low"] = [cell.low for cell in cells]
            columns[f"{heading} high"] = [cell.high for cell in cells]
        if any(cell.n for cell in cells):
            columns[f"{heading} n"] = [cell.n for cell in cells]
    if any(table.caveats):
        columns["caveats"] = list(table.caveats)
    return pd.DataFrame(without_surrogates(columns))


def csv_of(frame: pd.DataFrame) -> str:
    """CSV with numbers in full, and texts that no spreadsheet computes."""
    safe = frame.map(lambda cell: csv_text(cell) if isinstance(cell, str) else cell)
    return str(safe.rename(columns=csv_text).to_csv(index=False, lineterminator="\n"))


def as_csv(table: Table) -> str:
    """A line for each row: numbers in full if a cell has one, texts elsewhere."""
    return csv_of(frame_of(table))

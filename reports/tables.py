"""Tables as Markdown, LaTeX (booktabs) and CSV, all from the same cells."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from bench.escaping import csv_text, markdown_text, visible_line

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
LATEX_SPECIAL = re.compile("|".join(map(re.escape, LATEX)))


class Cell(NamedTuple):
    """A cell: its text, the number behind it for CSV (NaN: none), whether it stands out."""

    text: str
    value: float = math.nan
    bold: bool = False


class Table(NamedTuple):
    """A table.

    Args:
        name: Of its files.
        caption: What stands above it.
        header: Headings.
        rows: Rows, whose first cell names them.
        notes: Remarks below it.
        caveats: For each row what a reader must know beside its numbers; a column of the CSV form,
            which has no remarks.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()


def markdown(table: Table) -> str:
    """GitHub's form."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    header = list(map(markdown_text, table.header))
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
    """A table environment for booktabs."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        _latex_row(list(map(tex, table.header))),
        r"\midrule",
    ]
    for row in table.rows:
        lines.append(_latex_row(list(map(_latex_cell, row))))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {tex(note)}" for note in table.notes]
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = tex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return LATEX_SPECIAL.sub(lambda match: LATEX[match[0]], visible_line(text))


def document(tables: Sequence[Table]) -> str:
    """A LaTeX document that shows all tables."""
    head = (
        "\\documentclass{article}\n"
        "\\usepackage[a4paper,landscape,margin=1.5cm]{geometry}\n"
        "\\usepackage{booktabs}\n"
        "\\begin{document}\n"
        "\\small\n"
    )
    return head + "\n".join(map(latex, tables)) + "\\end{document}\n"


def _csv_cell(cell: Cell) -> str:
    """The number in full, so that it can be computed with; the text if there is none."""
    return csv_text(cell.text) if math.isnan(cell.value) else repr(cell.value)


def as_csv(table: Table) -> str:
    """A line for each row: numbers in full if a cell has one, texts elsewhere."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    has_caveats = any(table.caveats)
    header = list(map(csv_text, table.header))
    writer.writerow([*header, "caveats"] if has_caveats else header)
    for index, row in enumerate(table.rows):
        cells = list(map(_csv_cell, row))
        writer.writerow([*cells, csv_text(table.caveats[index])] if has_caveats else cells)
    return out.getvalue()

"""Tables as Markdown, LaTeX (booktabs) and CSV, all from the same cells."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "→": r"$\to$", "−": "$-$",
         "†": r"$\dagger$", "*": r"$^*$", "<": "$<$", ">": "$>$"}  # fmt: skip


class Cell(NamedTuple):
    """A cell: its text, the number behind it for CSV (NaN: none), whether it stands out."""

    text: str
    value: float = math.nan
    bold: bool = False


class Table(NamedTuple):
    """A table with a name for its files, a caption, headings, rows whose first cell names them, and remarks."""

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def markdown(table: Table) -> str:
    """GitHub's form."""
    lines = [f"### {table.caption}", "", _line(table.header), _line(["---", *["---:"] * (len(table.header) - 1)])]
    lines += [_line([f"**{cell.text}**" if cell.bold else cell.text for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def latex(table: Table) -> str:
    """A table environment for booktabs."""
    rows = [
        " & ".join(rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text) for cell in row) + r" \\"
        for row in table.rows
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(tex, table.header)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {tex(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)


def document(tables: Sequence[Table]) -> str:
    """A LaTeX document that shows all tables."""
    head = "\\documentclass{article}\n\\usepackage[a4paper,landscape,margin=1.5cm]{geometry}\n\\usepackage{booktabs}\n"
    return head + "\\begin{document}\n\\small\n" + "\n".join(map(latex, tables)) + "\\end{document}\n"


def as_csv(table: Table) -> str:
    """A line for each row: numbers in full where a cell has one, texts elsewhere."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.header)
    for row in table.rows:
        writer.writerow([cell.text if math.isnan(cell.value) else repr(cell.value) for cell in row])
    return out.getvalue()

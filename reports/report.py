"""`bench report`: everything about some runs in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.store import replace_file
from leaderboards.board import Run, lines_of, read_runs
from leaderboards.compare import Comparison, compare, corrected
from reports import plots
from reports.model_card import model_card
from reports.page import Asked, write_page
from reports.results import benchmark_tables, difference_table, metric_rows, paper_tables
from reports.tables import as_csv, document, latex, markdown


class ReportError(BenchError):
    """A report that cannot be made."""


def write_report(
    folders: Sequence[Path], out: Path, paper: bool, card: bool, reopen: Callable[[Run], Asked | None]
) -> tuple[list[Path], list[str]]:
    """Writes tables and figures into `out`; returns the files and remarks on runs that were left out.

    report.md and report.tex hold all tables, tables/NAME.{md,tex,csv} each of them, figures/NAME.{svg,png} the figures,
    index.html the page; `reopen` gives what a run asked, None where its data is not at hand.
    `paper` adds the paper's tables, `card` README.md, a model card. The first folder's runs are what the others are
    compared with. Raises ReportError where no run can be used.
    """
    runs, remarks = read_runs(folders)
    if not runs:
        raise ReportError("There is no run to report.", " ".join(remarks), "Name folders of finished runs.")
    compared, told = _compared(folders)
    names = {run.folder: run.model for run in runs}
    tables = [
        *benchmark_tables(runs),
        *([difference_table(compared, names)] if compared else []),
        *(paper_tables(runs) if paper else []),
    ]
    files = []
    try:
        for folder in (out / "tables", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
        for table in tables:
            for ending, write in (("md", markdown), ("tex", latex), ("csv", as_csv)):
                files.append(out / "tables" / f"{table.name}.{ending}")
                replace_file(files[-1], write(table))
        whole = [("report.md", "\n".join(map(markdown, tables))), ("report.tex", document(tables)),
                 ("metrics.csv", as_csv(metric_rows(runs)))]  # fmt: skip
        whole += [("README.md", model_card(runs))] if card else []
        for name, text in whole:
            files.append(out / name)
            replace_file(files[-1], text)
        files += _figures(runs, compared, out / "figures")
        asked = [item for run in runs if (item := reopen(run))]
        files.append(out / "index.html")
        write_page(lines_of(runs), runs, asked, files[-1])
    except OSError as error:
        raise ReportError(
            f"{out} cannot be written.", f"{error.strerror or error}.", "Free space, or name another."
        ) from error
    return files, [*remarks, *told]


def _compared(folders: Sequence[Path]) -> tuple[list[Comparison], list[str]]:
    found, remarks = [], []
    for other in folders[1:]:
        try:
            found += compare(folders[0], [other])
        except BenchError as error:
            remarks.append(f"{other} was not compared: {error.fact} {error.reason}")
    return corrected(found), remarks


def _figures(runs: Sequence[Run], compared: Sequence[Comparison], folder: Path) -> list[Path]:
    made = [
        ("forest", plots.forest(compared) if compared else None),
        ("pope-by-subset", plots.by_subset(runs, "pope", "accuracy", "POPE accuracy, %")),
        ("mmhal-by-type", plots.by_subset(runs, "mmhal", "hallucination_rate", "MMHal hallucination rate, %")),
        ("p-yes", plots.roc_and_reliability(runs)),
        ("training", plots.training(runs)),
    ]
    return [file for name, figure in made if figure is not None for file in plots.save(figure, folder, name)]

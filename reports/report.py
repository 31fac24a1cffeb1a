"""`bench report`: everything about some runs in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError, os_reason
from bench.files import replace_file
from bench.runs.labels import give_labels
from bench.runs.run import Run, read_runs
from leaderboards.board import board_of
from leaderboards.compare import Comparison, compare_runs, corrected
from reports import plots
from reports.model_card import EVAL_RESULTS, eval_results, model_card
from reports.page import BESIDE, Embed, write_page
from reports.page_data import RunSamples
from reports.results import (
    benchmark_tables,
    best_runs,
    difference_table,
    metrics_frame,
    overview_table,
    paper_tables,
    relabelled_table,
)
from reports.tables import Table, as_csv, csv_of, document, latex, markdown

MARK = ".report"  # in a folder that a report has made
FORMS = {"md": markdown, "tex": latex, "csv": as_csv}


class ReportError(BenchError):
    """A report that cannot be made."""


def write_report(
    folders: Sequence[Path],
    out: Path,
    paper: bool,
    card: bool,
    reopen: Callable[[Run], RunSamples | None],
    embed: Embed = "thumbnails",
    table: Sequence[str] = (),
) -> tuple[list[Path], list[str]]:
    """Writes tables, plots and a page into `out`.

    report.md and report.tex hold all tables, tables/NAME.{md,tex,csv} each of them,
    metrics.{csv,parquet} every metric, figures/NAME.{svg,png} the plots, index.html the page.
    Each file of a run is read once.

    Args:
        folders: Runs, or folders of runs; the first one's runs are what the others are compared
            with.
        out: The folder of the report.
        paper: Whether to add the paper's tables.
        card: Whether to add README.md, a model card, and what the hub reads beside it.
        reopen: Gives what a run asked, None if its data is not at hand.
        embed: Which pictures the page holds; see `reports.page.write_page`.
        table: The benchmarks of the overview; empty for all.

    Returns:
        The files, and remarks on runs that were left out.

    Raises:
        ReportError: No run can be used, or `out` holds something else than a report.
    """
    _check_free(out)
    gathered = gather(folders)
    runs, comparisons = gathered.runs, gathered.comparisons
    if not runs:
        raise ReportError(
            "There is no run to report.",
            " ".join(gathered.remarks),
            "Name folders of finished runs.",
        )
    best = best_runs(runs)
    tables = [overview_table(runs, best, table), *benchmark_tables(runs, best)]
    relabelled = relabelled_table(runs)
    if relabelled is not None:
        tables.append(relabelled)
    if comparisons:
        names = {run.folder: run.label for run in runs}
        tables.append(difference_table(comparisons, names))
    if paper:
        tables += paper_tables(runs)
    metrics = metrics_frame(runs)
    # All texts are made before the first file is written, so that a failure leaves none behind.
    texts = {
        "report.md": "\n".join(map(markdown, tables)),
        "report.tex": document(tables),
        "metrics.csv": csv_of(metrics),
    }
    if card:
        texts["README.md"] = model_card(runs)
        results = eval_results(runs)
        if results is not None:
            texts[EVAL_RESULTS] = results
    try:
        _take(out)
        files = _write_tables(tables, out / "tables")
        for name, text in texts.items():
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, text)
            files.append(file)
        replace_file(out / "metrics.parquet", metrics.to_parquet(index=False))
        files.append(out / "metrics.parquet")
        files += _write_plots(runs, comparisons, out / "figures")
        # A run whose data is gone stands in the tables only.
        run_samples = []
        for item in map(reopen, runs):
            if item is not None:
                run_samples.append(item)
        page = out / "index.html"
        beside = [] if relabelled is None else [relabelled]
        write_page(board_of(runs), runs, run_samples, page, comparisons, beside, embed)
        files.append(page)
    except OSError as error:
        raise ReportError(
            f"{out} cannot be written.",
            f"{os_reason(error)}.",
            "Free space, or name another.",
        ) from error
    return files, gathered.remarks


class Gathered(NamedTuple):
    """What stands in some folders.

    Args:
        runs: The finished runs, labelled.
        comparisons: Each other folder's runs against the first one's.
        remarks: On runs that were left out or could not be compared.
    """

    runs: list[Run]
    comparisons: list[Comparison]
    remarks: list[str]


def gather(folders: Sequence[Path]) -> Gathered:
    """Reads the runs in the folders and compares them with the first folder's."""
    groups: list[list[Run]] = []  # the usable runs of each folder
    runs: list[Run] = []
    remarks: list[str] = []
    for folder in folders:
        runs_of_folder, folder_remarks = read_runs([folder])
        groups.append(runs_of_folder)
        runs += runs_of_folder
        remarks += folder_remarks
    give_labels(runs)
    comparisons, comparison_remarks = _compare(folders, groups)
    return Gathered(runs, comparisons, [*remarks, *comparison_remarks])


def _compare(
    folders: Sequence[Path], groups: Sequence[Sequence[Run]]
) -> tuple[list[Comparison], list[str]]:
    """Each other folder's runs against the first one's; and why some cannot be compared."""
    comparisons: list[Comparison] = []
    remarks = []
    for folder, group in zip(folders[1:], groups[1:], strict=True):
        if not groups[0] or not group:
            continue
        try:
            comparisons += compare_runs(groups[0], [group])
        except BenchError as error:
            remarks.append(f"{folder} was not compared: {error.fact} {error.reason}")
    # One correction over the whole table, not one for each folder.
    return corrected(comparisons), remarks


def _check_free(out: Path) -> None:
    """Raises ReportError if a folder holds something else, which might be lost."""
    is_report = (out / MARK).is_file()
    if out.exists() and not is_report and (not out.is_dir() or any(out.iterdir())):
        raise ReportError(
            f"{out} is not empty.",
            "It holds no report, and what it holds might be overwritten.",
            "Name a new folder.",
        )


def _take(out: Path) -> None:
    """Marks the folder as a report's, and removes an earlier one's tables, figures and pictures.

    They would look like this one's.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    endings_of = {"tables": FORMS, "figures": ("svg", "png"), BESIDE: ("jpg",)}
    for folder, endings in endings_of.items():
        for ending in endings:
            for file in (out / folder).glob(f"*.{ending}"):
                file.unlink()


def _write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables:
        for ending, form in FORMS.items():
            file = folder / f"{table.name.replace(':', '-')}.{ending}"
            replace_file(file, form(table))
            files.append(file)
    return files


def _write_plots(
    runs: Sequence[Run], comparisons: Sequence[Comparison], folder: Path
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    named = dict([*plots.by_subset(runs), *plots.beside_what_is_said(runs)])
    if comparisons:
        named["forest"] = plots.forest(comparisons, {run.folder: run.label for run in runs})
    probabilities, training = plots.roc_and_reliability(runs), plots.training(runs)
    if probabilities is not None:
        named["p-yes"] = probabilities
    if training is not None:
        named["training"] = training
    files = []
    for name, plot in named.items():
        files += plots.save(plot, folder, name)
    return files

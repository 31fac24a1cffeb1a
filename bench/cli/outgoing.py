"""Commands that take runs out to people and other tools; heavy imports stay inside them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.options import Json, MovedData, MovedImages, RunPath, words_of
from bench.errors import BenchError
from bench.terminal import reports_errors, show

if TYPE_CHECKING:
    from bench.runs.run import Run
    from reports.page_data import RunSamples

app = typer.Typer()


@app.command()
@reports_errors
def board(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs, to set beside them.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Only these: benchmarks (pope) or columns (pope.f1).")
    ] = None,
    json: Json = False,
) -> None:
    """Show published figures with their sources, and runs beside them."""
    from leaderboards.board import as_json, as_text, chosen_columns
    from leaderboards.board import board as make_board

    table, remarks = make_board(runs or [])
    if columns is not None:
        table = chosen_columns(table, words_of(columns))
    show(as_json(table, remarks) if json else as_text(table, remarks))


@app.command()
@reports_errors
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, or folders of runs; the first is compared with the others."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's tables, published beside measured.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--model-card", help="A hub-ready README of the one model.")
    ] = False,
    table: Annotated[
        str | None, typer.Option(help="Benchmarks of the overview, in this order; else all.")
    ] = None,
    data: MovedData = None,
    images: MovedImages = None,
    embed: Annotated[
        Literal["thumbnails", "full", "none"],
        typer.Option(
            help="Pictures on the page: thumbnails (whole ones in a folder beside it), full, none."
        ),
    ] = "thumbnails",
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (SVG, PNG) and a page to look at."""
    from bench import terminal
    from reports.report import write_report

    benchmarks = words_of(table) if table else ()
    reopened = partial(reopen, data=data, images=images)
    files, remarks = write_report(runs, out, paper, card, reopened, embed, benchmarks)
    for remark in remarks:
        terminal.note(f"warning: {remark}")
    for file in files:
        show(str(file))
    terminal.note(f"to look: open {out / 'index.html'}")


@app.command()
@reports_errors
def view(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, or folders of runs; the first is compared with the others."),
    ],
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for a free one.")] = 0,
    data: MovedData = None,
    images: MovedImages = None,
) -> None:
    """Serve the report's page from run folders, also while a run goes on. Ctrl-C ends it."""
    from bench import terminal
    from reports.live import LiveView, server_of

    reopened = partial(reopen, data=data, images=images)
    server, address = server_of(LiveView(runs, reopened), port)
    show(address)
    terminal.note("Ctrl-C ends it.")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


@app.command()
@reports_errors
def export(
    path: RunPath,
    form: Annotated[
        Literal["csv", "parquet", "lmms-eval", "inspect", "every-eval-ever"],
        typer.Option(
            "--format", help="For spreadsheets and pandas, lmms-eval, inspect_ai, Every Eval Ever."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the files.")],
    data: MovedData = None,
    images: MovedImages = None,
) -> None:
    """Write a run's samples, with questions, answers and scores, for other tools."""
    from bench.runs.run import find_runs
    from reports.export import export as export_run

    for run in find_runs(path):
        # As deep below OUT as the run lies below PATH.
        beside = out / run.folder.relative_to(path).parent
        for file in export_run(_asked(run, data, images), form, beside):
            show(str(file))


@app.command()
@reports_errors
def push(
    path: RunPath,
    repository: Annotated[
        str, typer.Argument(metavar="repo", help="OWNER/NAME on the hub.", show_default=False)
    ],
    public: Annotated[
        bool, typer.Option("--public", help="A new data set is for all to see.")
    ] = False,
    data: MovedData = None,
    images: MovedImages = None,
) -> None:
    """Put runs with their samples into a data set of the hub; private unless told otherwise."""
    from bench.runs.labels import give_labels
    from bench.runs.run import find_runs
    from reports.push import PushError
    from reports.push import push as push_runs

    runs = find_runs(path)
    for run in runs:
        if not run.finished:
            raise PushError(
                f"{run.folder} is not finished.",
                "It has no figures.",
                "Finish it with its command, or name other runs.",
            )
    give_labels(runs)
    named_samples = []
    for run in runs:
        below = run.folder.relative_to(path).as_posix()
        name = run.folder.resolve().name if below == "." else below
        named_samples.append((name, _asked(run, data, images)))
    show(push_runs(named_samples, repository, public))


def _asked(run: Run, data: str | None, images: Path | None) -> RunSamples:
    from reports.export import ExportError

    asked = reopen(run, data, images)
    if asked is None:
        raise ExportError(
            f"{run.folder} cannot be exported.",
            "What it asked cannot be read.",
            "Name the folder of its data with --data.",
        )
    return asked


def reopen(run: Run, data: str | None = None, images: Path | None = None) -> RunSamples | None:
    """What a run asked; None with a warning if its data is gone.

    Args:
        run: The run.
        data: Where its data lies now, None if it has not moved.
        images: Where its images lie now.
    """
    from bench import registry, terminal
    from bench.runs.jobs import recorded_questions
    from reports.page_data import RunSamples

    run.move(data, images)
    try:
        questions = recorded_questions(run, registry.benchmark(run.benchmark))
    except (BenchError, KeyError, TypeError) as error:  # or a record of another version
        reason = " ".join(str(error).split())
        terminal.note(f"warning: {run.folder}: no samples on the page. {reason}")
        return None
    path_of = {}
    for request in questions.requests:
        if request.path:
            path_of[request.image] = request.path
    return RunSamples(run, questions.samples, questions.key_of, path_of)

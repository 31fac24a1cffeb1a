"""The `bench` command: it composes what lies below; heavy imports stay inside the commands.

Exit codes: 0 done; 1 a gate failed; 2 the command or its input is wrong; 3 done, but some samples
have no score.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import __version__
from bench.cli.data import app as data_app
from bench.cli.options import (
    JUDGES,
    Commands,
    Json,
    JudgeClaims,
    JudgeKey,
    JudgeMaxTokens,
    JudgeTemplate,
    MovedData,
    MovedImages,
    RunPath,
)
from bench.cli.outgoing import app as outgoing_app
from bench.cli.run import app as run_app
from bench.errors import BenchError, ModelError, os_reason
from bench.terminal import USUAL, note, reports_errors, set_verbosity, show

if TYPE_CHECKING:
    from bench.cli.show import JudgePair
    from bench.runs.run import Run
    from leaderboards.gate import Asked

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Measure how much a vision-language model hallucinates: POPE, MMHal-Bench, CHAIR, AMBER.",
)
app.add_typer(run_app)
app.add_typer(outgoing_app)
app.add_typer(data_app, name="data")

REGRESSION = 1
INCONCLUSIVE = 3


@reports_errors
def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"synth-align {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Measure how much a vision-language model hallucinates."""
    set_verbosity(USUAL)


@app.command()
@reports_errors
def score(
    path: RunPath,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Another benchmark over the same images and questions, such as repope; its run "
            "lies beside the first.",
        ),
    ] = None,
    data: MovedData = None,
    images: MovedImages = None,
    json: Json = False,
) -> None:
    """Score recorded answers again: no model, no GPU."""
    from bench.cli.show import FinishedRun, exit_if_unscored, show_runs
    from bench.runs.jobs import rescore, score_as
    from bench.runs.run import find_runs

    finished = []
    mismatch: ModelError | None = None
    for run in find_runs(path):
        if as_ is not None:
            # Of a folder of runs, those are meant that asked such questions.
            try:
                benchmark, outcome = score_as(run, as_, data, images)
            except ModelError as error:
                mismatch = error
                continue
        else:
            run.move(data, images)
            benchmark, outcome = rescore(run, None)
        finished.append(FinishedRun(benchmark, outcome, _model_of(run)))
    if mismatch is not None and not finished:
        raise mismatch
    show_runs(finished, json)
    exit_if_unscored(finished)


@app.command()
@reports_errors
def judge(
    path: RunPath,
    judge: Annotated[
        list[str],
        typer.Option(help=JUDGES + " Several: how far they agree; the first one's count."),
    ],
    judge_template: JudgeTemplate = None,
    judge_max_tokens: JudgeMaxTokens = None,
    judge_api_key_env: JudgeKey = None,
    judge_claims: JudgeClaims = None,
    data: MovedData = None,
    images: MovedImages = None,
    json: Json = False,
) -> None:
    """Judge recorded answers, or judge them again, by one judge or several.

    Of a folder of runs, those are judged whose benchmark takes a judge.
    """
    from bench.cli.show import FinishedRun, JudgePair, exit_if_unscored, show_runs
    from bench.metrics.agreement import agreement, as_text
    from bench.runs.jobs import load_judges, rescore, scores_by

    specs = list(dict.fromkeys(judge))
    judges = load_judges(specs, judge_template, judge_max_tokens, judge_api_key_env, judge_claims)
    finished = []
    pairs: list[JudgePair] = []
    for run in _judged_runs(path):
        run.move(data, images)
        # The first judge comes last, so that its verdicts count.
        for one in reversed(judges):
            benchmark, outcome = rescore(run, one)
        finished.append(FinishedRun(benchmark, outcome, _model_of(run)))
        scores = scores_by(run, judges) if len(judges) > 1 else []
        for first in range(len(scores)):
            for second in range(first + 1, len(scores)):
                agreed = agreement(scores[first], scores[second])
                pairs.append(JudgePair(specs[first], specs[second], agreed))
    if not json:
        for pair in pairs:
            show(f"{as_text(*pair)}\n")
    show_runs(finished, json, pairs)
    exit_if_unscored(finished)


@app.command()
@reports_errors
def compare(
    first: Annotated[
        Path, typer.Argument(help="A run, or a folder of runs: what the others are compared with.")
    ],
    others: Annotated[list[Path], typer.Argument(help="Other runs, or folders of runs.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare also what was not run alike; marks the table.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare runs sample by sample.

    Differences, intervals, p-values, flips, and what could have been seen at all.
    """
    from leaderboards.compare import as_json, as_text
    from leaderboards.compare import compare as compare_folders

    comparisons = compare_folders(first, others, force)
    show(as_json(comparisons) if json else as_text(comparisons))


@app.command()
@reports_errors
def check(
    path: RunPath,
    against: Annotated[
        Path | None, typer.Option(help="A reference file, or a run or folder of runs.")
    ] = None,
    margins: Annotated[Path | None, typer.Option(help="YAML of margins, floors and drift.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report too.")] = None,
    github: Annotated[
        bool, typer.Option(help="Annotations and a job summary for GitHub Actions.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write the runs as a reference file, and check nothing.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(help="PATH is a reference: how many samples its margins need; check nothing."),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(min=0.01, max=100, help="With --plan: one margin, in percentage points."),
    ] = None,
    json: Json = False,
) -> None:
    """Gate a checkpoint: no figure worse than the reference beyond its margin.

    Exit code 1 on a regression, 3 if so many samples cannot tell.
    """
    from leaderboards import gate

    # A reference is made of a run that is trusted; there is nothing to check it against.
    if save is not None:
        if against is not None:
            raise BenchError(
                "--save and --against do not go together.",
                "--save checks nothing.",
                "Give two commands.",
            )
        saved = gate.save(path, save)
        show(f"{len(saved)} benchmark{'s' if len(saved) != 1 else ''} in {save}")
        remark = gate.widened(saved)
        if remark is not None:
            note(f"{remark}; `bench check {save} --plan` says how many would do")
        return
    if plan:
        planned = gate.read_reference(path)
        show(gate.plan(planned, gate.read_margins(margins, planned), margin))
        return
    if against is None:
        raise BenchError(
            "There is nothing to check against.",
            "--against is missing.",
            "Name one, or --save one.",
        )
    if margin is not None:
        raise BenchError(
            "--margin does nothing without --plan.",
            "A check's margins are the benchmarks', or those of --margins.",
            "Write a file for --margins.",
        )
    references = gate.read_reference(against)
    chosen_margins = gate.read_margins(margins, references)
    run = gate.recorded(path)
    checks = gate.check(run, references, chosen_margins, _asked_in(path))
    show(gate.as_json(checks) if json else gate.as_text(checks))
    if junit is not None:
        gate.write_junit(checks, run, junit)
    if github:
        show(gate.as_github(checks))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(gate.github_summary(checks))
            except OSError as error:  # the verdict is what the job waits for
                note(f"warning: {summary} takes no summary: {os_reason(error)}")
    verdict = gate.outcome(checks)
    if verdict != "passed":
        raise typer.Exit(REGRESSION if verdict == "failed" else INCONCLUSIVE)


@app.command()
@reports_errors
def align(
    recipe: Annotated[
        list[Path],
        typer.Argument(
            help="A recipe in YAML, or a shipped one's name; several are compared.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the artifacts. Default: runs/align/NAME of the first"),
    ] = None,
    variants: Annotated[
        str, typer.Option(help="Variants of the recipe, separated by commas; 'all' for all.")
    ] = "",
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="So many seeds of each, the recipe's and those after it."
        ),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Make preference data from prompts, train on it, measure before and after.

    The same command continues where it stopped. Several recipes must train one base and measure it
    alike; they share the stages that they have in common and end in one table.
    """
    from alignment import pipeline, plan
    from alignment.recipe import check_comparable, read_recipe
    from alignment.seeds import tables
    from alignment.stages.evaluate import RecipeResults, as_text, table
    from bench import terminal
    from bench.files import indented, replace_file

    contents = [read_recipe(name) for name in recipe]
    check_comparable(contents)
    folder = out or Path("runs") / "align" / contents[0].name
    recipes = []
    for extra_seed in range(seeds):
        for content in contents:
            if variants == "all":
                names = list(content.variants)
            else:
                names = [name.strip() for name in variants.split(",") if name.strip()]
            for name in ("", *names):
                recipes.append(content.variant(name, content.seed + extra_seed))
    if dry_run:
        for item in recipes:
            show(plan.as_text(item.name, plan.plan(item, folder)))
        return
    for item in recipes:
        plan.check_space(item, folder)
    results = []
    # Libraries of training write there too, and a program reads it.
    with contextlib.redirect_stdout(sys.stderr):
        for item in recipes:
            artifacts = pipeline.align(item, folder, terminal.note)
            training = pipeline.training_counts(artifacts)
            rows, runs = pipeline.results(artifacts), pipeline.runs(artifacts)
            counts = (training["pairs"], training["steps"])
            results.append(RecipeResults(item.name, item.seed, rows, *counts, runs))
    if json:
        aligned = []
        for result in results:
            run_folders = []
            for pair in result.runs:
                run_folders.append([str(pair.base.folder), str(pair.aligned.folder)])
            aligned.append(
                {
                    "recipe": result.recipe,
                    "seed": result.seed,
                    "pairs": result.pairs,
                    "updates": result.updates,
                    "figures": result.rows,
                    "runs": run_folders,
                }
            )
        show(indented({"aligned": aligned}))
    # A recipe need not evaluate.
    measured = [result for result in results if result.rows]
    if measured and not json:
        for result in measured:
            show(f"{as_text(result)}\n")
    if measured:
        text = table(measured)
        if seeds > 1:
            controls = [f"{contents[0].name}-{name}" for name in contents[0].controls]
            over_seeds = tables(measured, controls)
            text = f"{over_seeds}\n{text}"
            if not json:
                show(over_seeds)
        replace_file(folder / "results.md", text)
        terminal.note(f"table: {folder / 'results.md'}")
        first, second = (run.folder.parent for run in measured[-1].runs[0])
        terminal.note(f"to look: bench report {first} {second} --out {folder / 'report'}")


@app.command()
@reports_errors
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A checkpoint in LLaVA's original format (hub id or folder), or BASE+ADAPTER."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    base: Annotated[
        str | None,
        typer.Option(help="A LoRA of LLaVA's own code: its base, if not the one that it names."),
    ] = None,
) -> None:
    """Write LLaVA's original format, or a base with its adapter merged, for transformers."""
    from bench.models.convert import convert as convert_checkpoint

    convert_checkpoint(source, target, base)
    show(str(target))


@app.command("list")
@reports_errors
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="models, suites, judges, rewards, recipes or runs.", show_default=False
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where runs lie.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List what there is to choose from."""
    from bench.cli.listing import KINDS, listing, objects
    from bench.files import indented
    from bench.text_tables import remark

    if what is None:
        show("\n".join(f"bench list {kind}" for kind in KINDS))
        return
    if json:
        show(indented({what: objects(what, folder)}))
        return
    rows = listing(what, folder)
    width = 0
    for name, _ in rows:
        width = max(width, len(name))
    for name, text in rows:
        show("\n".join(remark(f"{name:{width}}  {text}", " " * (width + 2))))


def _model_of(run: Run) -> str:
    """The model as `bench run` was given it, as far as the record tells."""
    return str(run.record["model"].get("name", "?"))


def _judged_runs(path: Path) -> list[Run]:
    """The runs that a judge can be asked about.

    A single run is kept whatever it is, so that its benchmark can say that it takes no judge.
    """
    from bench import registry
    from bench.runs.run import find_runs

    runs = find_runs(path)
    judged = []
    for run in runs:
        if registry.benchmark(run.benchmark).judged:
            judged.append(run)
    return judged or runs[:1]


def _asked_in(path: Path) -> Callable[[str], dict[str, Asked]]:
    """What the samples of the runs in a folder were asked; nothing if their data is gone."""
    from bench import registry
    from bench.runs.jobs import recorded_questions
    from bench.runs.run import by_benchmark, find_runs
    from leaderboards.gate import Asked

    @cache  # several figures of a benchmark may fail
    def asked_of(benchmark: str) -> dict[str, Asked]:
        run = by_benchmark(find_runs(path))[benchmark]
        try:
            questions = recorded_questions(run, registry.benchmark(benchmark))
        except (BenchError, KeyError, TypeError):  # or a record of another version
            return {}
        picture_of = {request.key: str(request.path or "") for request in questions.requests}
        asked = {}
        for sample in questions.samples:
            key = questions.key_of.get(sample.id, "")
            asked[sample.id] = Asked(key, sample.question, picture_of.get(key, ""))
        return asked

    return asked_of

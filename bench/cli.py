"""The `bench` command: composition only; heavy imports stay inside the commands.

Exit codes: 0 done; 1 a gate failed; 2 the command or its input is wrong; 3 done, but some samples have no score.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import __version__
from bench.cli_data import app as data_app
from bench.errors import BenchError
from bench.terminal import reports_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Measure how much a vision-language model hallucinates: POPE, MMHal-Bench, CHAIR, AMBER.",
)
app.add_typer(data_app, name="data")

INCOMPLETE = 3
REGRESSION = 1
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
JUDGES = "openai:MODEL[@URL], hf:MODEL, replay:FILE, or scene (for --data scenes)."
JudgeSpec = Annotated[str | None, typer.Option(help=JUDGES)]
Template = Annotated[Path | None, typer.Option(help="Your own prompt for the judge.")]
RunPath = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"synth-align {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Measure how much a vision-language model hallucinates."""


@app.command()
@reports_errors
def run(
    model: Annotated[
        str, typer.Option(help="llava, a hub id or a folder, +ADAPTER for LoRA; openai:MODEL[@URL]; replay:FILE.")
    ],
    suite: Annotated[str, typer.Option(help="Benchmarks, separated by commas.")],
    data: Annotated[str, typer.Option(help="'hub', 'scenes', or a folder of official files.")] = "hub",
    images: Annotated[Path | None, typer.Option(help="Images, where they are not under DATA/images.")] = None,
    judge: JudgeSpec = None,
    judge_template: Template = None,
    limit: Annotated[int | None, typer.Option(help="Only so many samples, taken evenly from all subsets.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs. Default: runs/MODEL-…")] = None,
    protocol: Annotated[str, typer.Option(help="auto, llava, native or a YAML file.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that the checkpoint brings.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray actors that each hold the model; requests at once for openai:….")
    ] = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT, or auto. Default: this machine.")] = None,
    price: Annotated[
        str | None, typer.Option(help="IN,OUT per million prompt and generated tokens, to see what openai:… cost.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask a model, score its answers and print metrics with intervals. Continues where it stopped."""
    from bench import registry, terminal
    from bench.compose import Job, execute, judge_for, load_judge, load_model, prepare
    from reports.examples import write_examples

    names = list(dict.fromkeys(name.strip() for name in suite.split(",") if name.strip()))
    if not names:
        raise BenchError("--suite names no benchmark.", f"It is {suite!r}.", "`bench list suites` shows all.")
    benchmarks = [registry.load("benchmarks", name) for name in names]
    chosen = load_judge(judge_for(judge, data), judge_template)
    options = {
        "protocol": protocol,
        "dtype": dtype,
        "device": device,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "workers": workers,
        "ray": ray,
    }
    prices = _prices(price)
    adapter = load_model(model, options)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = [Job(benchmark, adapter, chosen, data, images, limit, out) for benchmark in benchmarks]
    prepared = [prepare(job, sys.argv[1:], now) for job in jobs]
    outcomes = [(item.job.benchmark, execute(item)) for item in prepared]
    for item in prepared:
        file = write_examples(item.store, item.asked.samples, item.asked.requests)
        if file is not None:
            terminal.note(f"{item.job.benchmark.name}: two pictures with answers: {file}")
        if spent := item.store.tokens():
            terminal.note(f"{item.job.benchmark.name}: {_bill(spent, prices)}")
    _finish(outcomes, model, json)


@app.command()
@reports_errors
def score(path: RunPath, json: Json = False) -> None:
    """Score a run's recorded answers again: no model, no GPU."""
    from bench.compose import rescore

    benchmark, outcome, model = rescore(path, None)
    _finish([(benchmark, outcome)], model, json)


@app.command()
@reports_errors
def judge(
    path: RunPath,
    judge: Annotated[list[str], typer.Option(help=JUDGES + " Several: how far they agree; the first one's count.")],
    judge_template: Template = None,
    json: Json = False,
) -> None:
    """Judge a run's recorded answers, or judge them again, by one judge or several."""
    from itertools import combinations

    from bench import terminal
    from bench.agreement import agreement
    from bench.compose import load_judge, rescore, scores_by

    names = list(dict.fromkeys(judge))
    judges = [chosen for chosen in (load_judge(name, judge_template) for name in names) if chosen is not None]
    for chosen in judges[::-1]:
        benchmark, outcome, model = rescore(path, chosen)
    found = dict(zip(names, scores_by(path, judges), strict=True)) if len(judges) > 1 else {}
    agreed = [(a, b, agreement(found[a], found[b])) for a, b in combinations(found, 2)]
    if not json:
        terminal.show_agreements(agreed)
    _finish([(benchmark, outcome)], model, json, agreed)


@app.command()
@reports_errors
def compare(
    first: Annotated[Path, typer.Argument(help="A run, or a folder of runs: what the others are compared with.")],
    others: Annotated[list[Path], typer.Argument(help="Other runs, or folders of runs.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare also what was not run alike; marks the table.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare runs sample by sample: differences, intervals, p-values, flips, and what could have been seen at all."""
    from leaderboards.compare import as_json, as_text
    from leaderboards.compare import compare as compared

    found = compared(first, others, force)
    print(as_json(found) if json else as_text(found))


@app.command()
@reports_errors
def board(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs, or folders of runs, to set beside them.")] = None,
    json: Json = False,
) -> None:
    """Show published figures with their sources, and runs beside them."""
    from leaderboards.board import as_json, as_text
    from leaderboards.board import board as made

    lines, remarks = made(runs or [])
    print(as_json(lines, remarks) if json else as_text(lines, remarks))


@app.command()
@reports_errors
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Runs, or folders of runs; the first is compared with the others.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    paper: Annotated[bool, typer.Option("--paper", help="The paper's tables, published beside measured.")] = False,
    card: Annotated[bool, typer.Option("--model-card", help="A hub-ready README of the one model.")] = False,
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (SVG, PNG) and a page to look at, about runs."""
    from bench import registry, terminal
    from bench.compose import asked_before
    from bench.store import RunFolder
    from reports.page import Asked
    from reports.report import write_report

    def reopen(run: Any) -> Asked | None:
        try:
            asked = asked_before(RunFolder(run.folder), run.record, registry.load("benchmarks", run.benchmark))
        except (BenchError, KeyError, TypeError) as error:  # data that is gone, or a record of another version
            terminal.note(f"warning: {run.folder}: no samples on the page. {' '.join(str(error).split())}")
            return None
        return Asked(run, asked.samples, asked.key_of, {r.image: r.path for r in asked.requests if r.path})

    files, remarks = write_report(runs, out, paper, card, reopen)
    for remark in remarks:
        terminal.note(f"warning: {remark}")
    for file in files:
        print(file)


@app.command()
@reports_errors
def check(
    path: Annotated[Path, typer.Argument(help="A run, or a folder of runs.")],
    against: Annotated[Path | None, typer.Option(help="A reference file, or a run or folder of runs.")] = None,
    margins: Annotated[Path | None, typer.Option(help="YAML of margins, floors and drift.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report too.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the runs as a reference file, and check nothing.")] = None,
    json: Json = False,
) -> None:
    """Gate a checkpoint: no figure worse than the reference beyond its margin. Exit code 1 on a regression."""
    from leaderboards import gate

    if save is not None:
        print(f"{gate.save(path, save)} benchmarks in {save}")
        return
    if against is None:
        raise BenchError("There is nothing to check against.", "--against is missing.", "Name one, or --save one.")
    checks = gate.check(gate.recorded(path), gate.read_reference(against), gate.read_margins(margins))
    print(gate.as_json(checks) if json else gate.as_text(checks))
    if junit is not None:
        gate.write_junit(checks, junit)
    if not all(item.passed for item in checks):
        raise typer.Exit(REGRESSION)


@app.command()
@reports_errors
def align(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder of the artifacts. Default: runs/align/NAME")] = None,
    variants: Annotated[str, typer.Option(help="Variants of the recipe, separated by commas; 'all' for all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds of each, the recipe's and those after it.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Make preference data from prompts, train on it, measure before and after. Continues where it stopped."""
    from alignment import pipeline
    from alignment.evaluate import table
    from alignment.plan import plan
    from alignment.recipe import read_recipe
    from bench import terminal
    from bench.store import replace_file

    read = read_recipe(recipe)
    asked = list(read.variants) if variants == "all" else [name.strip() for name in variants.split(",") if name.strip()]
    chosen = [read.variant(name, seed) for seed in range(read.seed, read.seed + seeds) for name in ("", *asked)]
    folder = out or Path("runs") / "align" / read.name
    if dry_run:
        for item in chosen:
            terminal.show_plan(item.name, plan(item, folder))
        return
    done = [(item.name, item.seed, pipeline.results(pipeline.align(item, folder, terminal.note))) for item in chosen]
    terminal.show_comparisons(done, json)
    if any(rows for *_, rows in done):
        replace_file(folder / "results.md", table(done))
        terminal.note(f"table: {folder / 'results.md'}")


@app.command()
@reports_errors
def convert(
    source: Annotated[str, typer.Argument(help="A checkpoint in LLaVA's original format: hub id or folder.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Write a checkpoint of LLaVA's original format as one that transformers loads."""
    from bench.models.original import convert as converted

    converted(source, target)
    print(target)


@app.command("list")
@reports_errors
def list_(
    what: Annotated[str, typer.Argument(help="models, suites, judges, rewards or runs.")],
    folder: Annotated[Path, typer.Option(help="Where runs lie.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List what there is to choose from."""
    from bench.listing import listing

    rows = listing(what, folder)
    if json:
        import json as json_module

        print(json_module.dumps({what: [{"name": name, "what": text} for name, text in rows]}, indent=2))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


def _prices(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        read, generated = map(float, text.split(","))
    except ValueError as error:
        raise BenchError(f"--price {text} is no price.", "It has the form IN,OUT.", "Write --price 2.5,10.") from error
    return read, generated


def _bill(spent: tuple[int, int], prices: tuple[float, float] | None) -> str:
    """Tokens read and generated, and what they cost."""
    text = f"{spent[0]:,} prompt and {spent[1]:,} generated tokens"
    return text if prices is None else f"{text}: {(spent[0] * prices[0] + spent[1] * prices[1]) / 1e6:.2f}"


def _finish(outcomes: list[tuple[Any, Any]], model: str, as_json: bool, agreed: Sequence[Any] = ()) -> None:
    from bench import terminal

    if as_json:
        terminal.show_json([(b.name, model, str(o.folder), o.metrics) for b, o in outcomes], agreed)
    for benchmark, outcome in outcomes:
        if not as_json:
            terminal.show_metrics(f"{benchmark.title} · {model}", outcome.metrics)
            print(f"run: {outcome.folder}\n")
        for reason, number in sorted(outcome.unscored.items(), key=lambda item: -item[1])[:5]:
            terminal.note(f"{benchmark.name}: {number} unscored: {reason}")
        if benchmark.judged and "not judged" in outcome.unscored:
            terminal.note(f"To judge them: bench judge {outcome.folder} --judge openai:MODEL")
    if any(outcome.unscored for _, outcome in outcomes):
        raise typer.Exit(INCOMPLETE)

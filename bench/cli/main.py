"""The `bench` command: it composes what lies below; heavy imports stay inside the commands.

Exit codes: 0 done; 1 a gate failed; 2 the command or its input is wrong; 3 done, but some samples
have no score.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import __version__
from bench.cli.data import app as data_app
from bench.cli.options import Json, MovedData, MovedImages, RunPath, words_of
from bench.cli.outgoing import app as outgoing_app
from bench.errors import BenchError, DataError, ModelError
from bench.language.thoughts import Tags
from bench.terminal import USUAL, reports_errors, set_verbosity, show

if TYPE_CHECKING:
    from bench.cli.show import JudgePair
    from bench.runs.jobs import Prepared
    from bench.runs.run import Run
    from bench.runs.runner import Outcome
    from bench.types import Benchmark
    from leaderboards.gate import Asked

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Measure how much a vision-language model hallucinates: POPE, MMHal-Bench, CHAIR, AMBER.",
)
app.add_typer(outgoing_app)
app.add_typer(data_app, name="data")

INCOMPLETE = 3
Z_INTERVAL, Z_POWER = 1.96, 0.84  # of 95 % intervals, and of 80 % power
REGRESSION = 1
SHOWN_REASONS = 5  # why samples are unscored
JUDGES = (
    "openai:MODEL[@URL], hf:MODEL, grounding:MODEL[+MODEL] (checks claims at the image), "
    "replay:FILE, or scene (for --data scenes)."
)
JudgeSpec = Annotated[str | None, typer.Option(help=JUDGES)]
JudgeTemplate = Annotated[
    Path | None,
    typer.Option(help="A file with the judge's prompt, or 'official' for MMHal-Bench's own."),
]
JudgeKey = Annotated[
    str | None,
    typer.Option(help="openai:…@URL: the environment variable that holds the judge's key."),
]
JudgeClaims = Annotated[
    str | None,
    typer.Option(
        help="grounding:… only: who finds the claims of an answer: coco (the default), "
        "noun-phrases, openai:MODEL[@URL] or hf:MODEL."
    ),
]
JudgeMaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Upper bound of a review. Default: 1024.")
]


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
def run(
    model: Annotated[
        str,
        typer.Option(
            help="llava, a hub id or a folder, +ADAPTER for LoRA; openai:MODEL[@URL]; "
            "litellm:PROVIDER/MODEL; vllm:NAME; replay:FILE."
        ),
    ],
    suite: Annotated[
        str, typer.Option("--suite", "--tasks", help="Benchmarks, separated by commas.")
    ],
    data: Annotated[
        str, typer.Option(help="'hub', 'scenes', or a folder of official files.")
    ] = "hub",
    images: Annotated[
        Path | None, typer.Option(help="Images, if they are not under DATA/images.")
    ] = None,
    judge: JudgeSpec = None,
    judge_template: JudgeTemplate = None,
    judge_max_tokens: JudgeMaxTokens = None,
    judge_api_key_env: JudgeKey = None,
    judge_claims: JudgeClaims = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Only so many samples (or a share, 0.1), evenly from all subsets."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer. Default: the benchmark's own."),
    ] = None,
    thinking_tokens: Annotated[
        int,
        typer.Option(min=0, help="What a reasoning model may think before each answer."),
    ] = 0,
    reasoning_tags: Annotated[
        str | None,
        typer.Option(help="Marks of thoughts that are not among the known ones: OPEN,CLOSE."),
    ] = None,
    decoding: Annotated[
        str | None,
        typer.Option(
            help="greedy (default), sample:temperature=1,top_p=0.9,seeds=5, beam:5 or vcd."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output_path", help="Folder for the runs. Default: runs/MODEL-…"),
    ] = None,
    protocol: Annotated[str, typer.Option(help="auto, llava, native or a YAML file.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = "auto",
    device_map: Annotated[
        str | None,
        typer.Option(help="Over several devices: auto, or a JSON file of devices by module."),
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit, by bitsandbytes.")] = None,
    attention: Annotated[
        str | None, typer.Option(help="sdpa, eager or flash_attention_2. Default: the model's.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of a hub model.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that the checkpoint brings.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(help="A LoRA of LLaVA's own code: its base, if not the one that it names."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Ray actors that each hold the model; requests at once for openai:…."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT, or auto. Default: this machine."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What tables call the model. Default: by the checkpoint.")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Only these parts of the benchmark, separated by commas.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="openai:…@URL: the environment variable that holds the model's key."),
    ] = None,
    api_option: Annotated[
        list[str] | None,
        typer.Option(
            help="openai:…: a further field of every request; vllm:…: an argument of its engine. "
            "NAME=VALUE, repeatable."
        ),
    ] = None,
    image_side: Annotated[
        int | None,
        typer.Option(
            min=1, help="openai:…: scale images whose longer side has more pixels. Default: never."
        ),
    ] = None,
    batch: Annotated[
        bool, typer.Option(help="openai:…: by the Batch API, within a day at half the price.")
    ] = False,
    answer_field: Annotated[
        str | None, typer.Option(help="replay:…: the field that holds the model's words.")
    ] = None,
    question_field: Annotated[
        str | None, typer.Option(help="replay:…: the field that holds the question.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="replay:…: the questions by id. Default: questions.jsonl beside."),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            help="IN,OUT per million prompt and generated tokens, to see what openai:… cost."
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="tensorboard, wandb, trackio or mlflow, with commas between several."),
    ] = None,
    model_args: Annotated[
        str | None, typer.Option("--model_args", help="As in lmms-eval: pretrained=…,dtype=….")
    ] = None,
    gen_kwargs: Annotated[
        str | None, typer.Option("--gen_kwargs", help="As in lmms-eval: temperature=…,top_p=….")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No remarks, no progress.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Progress more often.")] = False,
    json: Json = False,
) -> None:
    """Ask a model, score its answers and print metrics with intervals.

    The same command continues where it stopped.
    """
    from bench import registry, terminal
    from bench.cli.lmms_words import decoding_options, model_options
    from bench.runs.jobs import (
        Job,
        begin_batches,
        check_jobs,
        execute,
        judge_for,
        lacks_images,
        limits_of,
        load_model,
        prepare,
        usual_folder,
    )
    from bench.runs.runner import no_images

    terminal.set_verbosity(verbose - quiet)
    trackers = words_of(track) if track is not None else []
    if trackers:
        from bench.integrations.trackers import check_trackers

        check_trackers(trackers)
    if model_args is not None:
        given = model_options(model_args)
        model, dtype = given.get("model", model), given.get("dtype", dtype)
        device, revision = given.get("device", device), given.get("revision", revision)
        trust_remote_code = given.get("trust_remote_code", trust_remote_code)
    if gen_kwargs is not None:
        its_decoding, its_bound = decoding_options(gen_kwargs)
        decoding, max_tokens = decoding or its_decoding, max_tokens or its_bound
    if limit is not None and limit == int(limit):
        limit = int(limit)
    tags = _tags(reasoning_tags)
    names = words_of(suite)
    if not names:
        raise BenchError(
            "--suite names no benchmark.", f"It is {suite!r}.", "`bench list suites` shows all."
        )
    limit_of = limits_of(names, limit)
    missing: dict[str, DataError] = {}
    benchmarks: dict[str, Benchmark] = {}
    for word in limit_of:
        try:
            benchmarks[word] = registry.benchmark(word)
        except DataError as error:  # a task of lmms-eval without it
            if word in names:
                raise
            missing[word] = error
    run_judge = judge_for(
        judge, data, judge_template, judge_max_tokens, judge_api_key_env, judge_claims
    )
    prices = _prices(price)
    if prices and not model.startswith(("openai:", "litellm:")):
        raise BenchError(
            "--price does nothing for this model.",
            "Only openai:… and litellm:… count what they cost.",
            "Leave it out.",
        )
    subsets = tuple(words_of(subset)) if subset is not None else None
    options = {
        "protocol": protocol,
        "decoding": decoding,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "quantize": quantize,
        "attention": attention,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "base": base,
        "workers": workers,
        "ray": ray,
        "api_key_env": api_key_env,
        "api_option": api_option or None,
        "batch": batch,
        "image_side": image_side,
        "answer_field": answer_field,
        "question_field": question_field,
        "questions": questions,
    }
    adapter = load_model(model, options)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # All jobs are prepared before the first is run, so that a mistake costs nothing.
    prepared = []
    folder = out or usual_folder(
        adapter, names, data, limit, subsets, (max_tokens, thinking_tokens, *(tags or ()))
    )
    for word, benchmark in benchmarks.items():
        job = Job(
            benchmark,
            adapter,
            run_judge,
            data,
            images,
            limit_of[word],
            folder,
            subsets,
            name,
            max_tokens,
            thinking_tokens,
            tags,
        )
        try:
            item = prepare(job, sys.argv[1:], now)
            if word not in names and lacks_images(item):
                raise no_images(benchmark, item.questions)
            prepared.append(item)
        except DataError as error:
            # Of a suite, what can be measured is.
            if word in names:
                raise
            missing[word] = error
    for word, reason in missing.items():
        terminal.note(f"{word} is left out. {reason.fact} {reason.remedy}")
    if not prepared:
        raise next(iter(missing.values()))
    check_jobs(prepared)
    begin_batches(prepared)
    outcomes = []
    fault: BenchError | None = None
    for item in prepared:
        try:
            outcomes.append((item.job.benchmark, execute(item), _shown_name(model)))
        except BenchError as error:
            # What is finished is shown all the same.
            fault = error
            break
        _tell(item, outcomes[-1][1], prices)
        if trackers:
            _track(item.store.path, trackers)
        # A suite takes hours: what is done can be read meanwhile.
        if not json:
            _show(outcomes[-1:], False)
            _show_baseline(item.store.path)
    if json and outcomes:
        _show(outcomes, True)
    if fault is not None:
        raise fault
    if any(limit_of[benchmark.name] for benchmark, _, _ in outcomes):
        terminal.note(_what_shows(outcomes))
    if missing or any(outcome.unscored for _, outcome, _ in outcomes):
        raise typer.Exit(INCOMPLETE)


def _track(folder: Path, trackers: Sequence[str]) -> None:
    """Sends a finished run to trackers, which cost no figures if they fail."""
    from bench import terminal
    from bench.integrations.trackers import track
    from bench.runs.run import Run

    for remark in track(Run(folder), trackers):
        terminal.note(f"warning: {remark}")


def _show_baseline(folder: Path) -> None:
    """A decoding method's run beside the same decoding without it, if there is one."""
    from bench import terminal
    from bench.runs.run import Run
    from leaderboards.baseline import baseline_decoding, is_method, with_baseline
    from leaderboards.compare import as_text

    run = Run(folder)
    if not is_method(run):
        return
    comparison = with_baseline(run)
    if comparison is not None:
        show(as_text([comparison]) + "\n")
        return
    terminal.note(
        f"{run.benchmark}: no run beside it has the same decoding without the method. The same "
        f"command with --decoding {baseline_decoding(run)} makes one; then this one shows both."
    )


def _tell(item: Prepared, outcome: Outcome, prices: tuple[float, float] | None) -> None:
    """Remarks on a finished run: its examples, whether anything was asked, what it cost."""
    from bench import terminal
    from bench.runs.run import Run
    from reports.examples import write_examples

    name = item.job.benchmark.name
    # People look before they read.
    try:
        file = write_examples(Run(item.store.path), item.questions.samples, item.questions.requests)
        if file is not None:
            terminal.note(f"{name}: pictures with answers: {file}")
    except BenchError as error:  # the figures are worth more
        terminal.note(f"{name}: no pictures: {error.fact} {error.reason}")
    if outcome.recorded_before is not None:
        total = len(item.questions.requests)
        terminal.note(
            f"{name}: nothing was asked: {total:,} of {total:,} answers were recorded on "
            f"{outcome.recorded_before}"
        )
    tokens = item.store.tokens()
    if tokens:
        terminal.note(f"{name}: {_bill(tokens, prices)}")


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
    from bench.runs.jobs import rescore, score_as
    from bench.runs.run import find_runs

    outcomes = []
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
        outcomes.append((benchmark, outcome, _model_of(run)))
    if mismatch is not None and not outcomes:
        raise mismatch
    _finish(outcomes, json)


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
    from bench.cli.show import JudgePair
    from bench.metrics.agreement import agreement, as_text
    from bench.runs.jobs import load_judges, rescore, scores_by

    specs = list(dict.fromkeys(judge))
    judges = load_judges(specs, judge_template, judge_max_tokens, judge_api_key_env, judge_claims)
    outcomes = []
    pairs: list[JudgePair] = []
    for run in _judged_runs(path):
        run.move(data, images)
        # The first judge comes last, so that its verdicts count.
        for one in reversed(judges):
            benchmark, outcome = rescore(run, one)
        outcomes.append((benchmark, outcome, _model_of(run)))
        scores = scores_by(run, judges) if len(judges) > 1 else []
        for first in range(len(scores)):
            for second in range(first + 1, len(scores)):
                agreed = agreement(scores[first], scores[second])
                pairs.append(JudgePair(specs[first], specs[second], agreed))
    if not json:
        for pair in pairs:
            show(f"{as_text(*pair)}\n")
    _finish(outcomes, json, pairs)


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
        float | None, typer.Option(min=0.01, help="With --plan: one margin, in percentage points.")
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
        count = gate.save(path, save)
        show(f"{count} benchmark{'s' if count != 1 else ''} in {save}")
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
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(gate.github_summary(checks))
    verdict = gate.outcome(checks)
    if verdict != "passed":
        raise typer.Exit(REGRESSION if verdict == "failed" else INCOMPLETE)


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
        int, typer.Option(min=1, help="So many seeds of each, the recipe's and those after it.")
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
            training = artifacts["dpo"].manifest["counts"]
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
    from bench.cli.listing import KINDS, listing
    from bench.files import indented
    from bench.text_tables import remark

    if what is None:
        show("\n".join(f"bench list {kind}" for kind in KINDS))
        return
    rows = listing(what, folder)
    if json:
        objects = [{"name": name, "what": text} for name, text in rows]
        show(indented({what: objects}))
        return
    width = 0
    for name, _ in rows:
        width = max(width, len(name))
    for name, text in rows:
        show("\n".join(remark(f"{name:{width}}  {text}", " " * (width + 2))))


def _tags(text: str | None) -> Tags | None:
    """The marks of `--reasoning-tags OPEN,CLOSE`. Raises BenchError if it is not two."""
    if text is None:
        return None
    opening, _, closing = (part.strip() for part in text.partition(","))
    if not opening or not closing or "," in closing or opening == closing:
        raise BenchError(
            f"--reasoning-tags {text!r} names no two marks.",
            "It takes what stands before the thoughts and what stands behind them.",
            "Write them with a comma between: '<ponder>,</ponder>'.",
        )
    return opening, closing


def _prices(text: str | None) -> tuple[float, float] | None:
    """Prices of a million prompt and generated tokens."""
    if text is None:
        return None
    try:
        read, generated = map(float, text.split(","))
    except ValueError as error:
        raise BenchError(
            f"--price {text} is not a price.", "It has the form IN,OUT.", "Write --price 2.5,10."
        ) from error
    return read, generated


def _bill(tokens: tuple[int, int], prices: tuple[float, float] | None) -> str:
    """Tokens read and generated, and what they cost."""
    read, generated = tokens
    text = f"{read:,} prompt and {generated:,} generated tokens"
    if prices is None:
        return text
    cost = (read * prices[0] + generated * prices[1]) / 1e6
    return f"{text}: {cost:.2f}"


def _shown_name(model: str) -> str:
    """What tables call the model of a command: of a folder or file its last part."""
    from bench.runs.jobs import without_url_secrets

    kind, mark, rest = model.partition("replay:")
    prefix, paths = (mark, [rest]) if mark and not kind else ("", [model])
    if not Path(paths[0]).exists():
        paths = paths[0].split("+")
    names = []
    for path in paths:
        is_local = Path(path).exists()
        names.append(Path(path).resolve().name if is_local else without_url_secrets(path))
    return prefix + "+".join(names)


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


def _what_shows(outcomes: Sequence[tuple[Benchmark, Outcome, str]]) -> str:
    """Which differences so few samples would show: of a benchmark's first figure.

    For two independent models with this spread, in 80 % of cases at the 5 % level; the paired
    comparison of `bench compare` shows smaller ones.
    """
    from bench.types import scale_of

    parts = []
    for benchmark, outcome, _ in outcomes:
        figure = benchmark.figures[0] if benchmark.figures else None
        for metric in outcome.metrics:
            if figure is None or not figure.stands_for_whole(metric) or math.isnan(metric.low):
                continue
            standard_error = (metric.high - metric.low) / (2 * Z_INTERVAL)
            smallest = (Z_INTERVAL + Z_POWER) * math.sqrt(2) * standard_error
            parts.append(f"{figure.title} {scale_of(metric.unit) * smallest:.2g}")
    if not parts:
        return "limited: so few samples show no difference between two models"
    return f"limited: two models that differ by less may look alike: {', '.join(parts)}"


def _finish(
    outcomes: Sequence[tuple[Benchmark, Outcome, str]],
    as_json: bool,
    judges: Sequence[JudgePair] = (),
) -> None:
    """Shows finished runs (benchmark, outcome, model); exit code 3 if some samples are unscored."""
    _show(outcomes, as_json, judges)
    if any(outcome.unscored for _, outcome, _ in outcomes):
        raise typer.Exit(INCOMPLETE)


def _show(
    outcomes: Sequence[tuple[Benchmark, Outcome, str]],
    as_json: bool,
    judges: Sequence[JudgePair] = (),
) -> None:
    from bench import terminal
    from bench.cli.show import ShownRun, show_json, show_metrics

    shown = []
    for benchmark, outcome, model in outcomes:
        shown.append(
            ShownRun(benchmark.name, benchmark.title, model, outcome.folder, outcome.metrics)
        )
    if as_json:
        show_json(shown, judges)
    for (benchmark, outcome, _), item in zip(outcomes, shown, strict=True):
        if not as_json:
            show_metrics(item)
            show(f"run: {outcome.folder}\n")
        reasons = sorted(outcome.unscored.items(), key=lambda reason: -reason[1])
        # A run of thousands may have as many reasons.
        for reason, count in reasons[:SHOWN_REASONS]:
            terminal.note(f"{benchmark.name}: {count} unscored: {reason}")
        rest = sum(count for _, count in reasons[SHOWN_REASONS:])
        if rest:
            terminal.note(f"{benchmark.name}: {rest} unscored for reasons like these")
        if benchmark.judged and "not judged" in outcome.unscored:
            terminal.note(f"To judge them: bench judge {outcome.folder} --judge openai:MODEL")

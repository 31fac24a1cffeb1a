"""`bench run`: asks a model, scores its answers, shows the figures."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    Grouped,
    Json,
    JudgeClaims,
    JudgeKey,
    JudgeMaxTokens,
    JudgeSpec,
    JudgeTemplate,
    words_of,
)
from bench.errors import BenchError
from bench.language.thoughts import Tags
from bench.terminal import reports_errors, show

if TYPE_CHECKING:
    from bench.cli.show import FinishedRun
    from bench.runs.jobs import Prepared
    from bench.runs.runner import Outcome

app = typer.Typer()

Z_INTERVAL, Z_POWER = 1.96, 0.84  # of 95 % intervals, and of 80 % power
# Headings of --help.
WHAT = "What is run"
HOW = "How it answers"
LOCAL = "Models on this machine"
SERVER = "Models behind a server"
RECORDED = "Answers that somebody recorded"
LMMS = "In lmms-eval's words"


@app.command(cls=Grouped)
@reports_errors
def run(
    model: Annotated[
        str,
        typer.Option(
            help="llava, a hub id or a folder, +ADAPTER for LoRA; openai:MODEL[@URL]; "
            "litellm:PROVIDER/MODEL; vllm:NAME; replay:FILE.",
            rich_help_panel=WHAT,
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(
            "--suite", "--tasks", help="Benchmarks, separated by commas.", rich_help_panel=WHAT
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="'hub', 'scenes', or a folder of official files.", rich_help_panel=WHAT),
    ] = "hub",
    images: Annotated[
        Path | None,
        typer.Option(help="Images, if they are not under DATA/images.", rich_help_panel=WHAT),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help="Only so many samples (or a share, 0.1), evenly from all subsets.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option(
            help="Only these parts of the benchmark, separated by commas.", rich_help_panel=WHAT
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output_path",
            help="Folder for the runs. Default: runs/MODEL-…",
            rich_help_panel=WHAT,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What tables call the model. Default: by the checkpoint.", rich_help_panel=WHAT
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="auto, llava, native or a YAML file.", rich_help_panel=HOW)
    ] = "auto",
    decoding: Annotated[
        str | None,
        typer.Option(
            help="greedy (default), sample:temperature=1,top_p=0.9,seeds=5, beam:5 or vcd.",
            rich_help_panel=HOW,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10**6,
            help="Longest answer. Default: the benchmark's own.",
            rich_help_panel=HOW,
        ),
    ] = None,
    thinking_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="What a reasoning model may think before each answer.", rich_help_panel=HOW
        ),
    ] = 0,
    reasoning_tags: Annotated[
        str | None,
        typer.Option(
            help="Marks of thoughts that are not among the known ones: OPEN,CLOSE.",
            rich_help_panel=HOW,
        ),
    ] = None,
    judge: JudgeSpec = None,
    judge_template: JudgeTemplate = None,
    judge_max_tokens: JudgeMaxTokens = None,
    judge_api_key_env: JudgeKey = None,
    judge_claims: JudgeClaims = None,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=LOCAL)
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …", rich_help_panel=LOCAL)
    ] = "auto",
    device_map: Annotated[
        str | None,
        typer.Option(
            help="Over several devices: auto, or a JSON file of devices by module.",
            rich_help_panel=LOCAL,
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="4bit or 8bit, by bitsandbytes.", rich_help_panel=LOCAL)
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="sdpa, eager or flash_attention_2. Default: the model's.", rich_help_panel=LOCAL
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit, tag or branch of a hub model.", rich_help_panel=LOCAL),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that the checkpoint brings.", rich_help_panel=LOCAL)
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="A LoRA of LLaVA's own code: its base, if not the one that it names.",
            rich_help_panel=LOCAL,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ray actors that each hold the model; requests at once for openai:….",
            rich_help_panel=LOCAL,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster: HOST:PORT, or auto. Default: this machine.", rich_help_panel=LOCAL
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            help="openai:…@URL: the environment variable that holds the model's key.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    api_option: Annotated[
        list[str] | None,
        typer.Option(
            help="openai:…: a further field of every request; vllm:…: an argument of its engine. "
            "NAME=VALUE, repeatable.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    image_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="openai:…: scale images whose longer side has more pixels. Default: never.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    batch: Annotated[
        bool,
        typer.Option(
            help="openai:…: by the Batch API, within a day at half the price.",
            rich_help_panel=SERVER,
        ),
    ] = False,
    price: Annotated[
        str | None,
        typer.Option(
            help="IN,OUT per million prompt and generated tokens, to see what openai:… cost.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    answer_field: Annotated[
        str | None,
        typer.Option(
            help="replay:…: the field that holds the model's words.", rich_help_panel=RECORDED
        ),
    ] = None,
    question_field: Annotated[
        str | None,
        typer.Option(help="replay:…: the field that holds the question.", rich_help_panel=RECORDED),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="replay:…: the questions by id. Default: questions.jsonl beside.",
            rich_help_panel=RECORDED,
        ),
    ] = None,
    model_args: Annotated[
        str | None,
        typer.Option("--model_args", help="pretrained=…,dtype=….", rich_help_panel=LMMS),
    ] = None,
    gen_kwargs: Annotated[
        str | None,
        typer.Option("--gen_kwargs", help="temperature=…,top_p=….", rich_help_panel=LMMS),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="tensorboard, wandb, trackio or mlflow, with commas between several."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No remarks, no progress.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Progress more often.")] = False,
    json: Json = False,
) -> None:
    """Ask a model, score its answers and print metrics with intervals.

    The same command continues where it stopped.
    """
    from bench import terminal
    from bench.cli.lmms_words import decoding_options, model_options
    from bench.cli.show import FinishedRun, exit_if_unscored, show_runs
    from bench.runs.jobs import Job, judge_for, load_model, usual_folder
    from bench.runs.sources import check_source
    from bench.runs.suites import choose, execute_suite, prepare_suite

    terminal.set_verbosity(verbose - quiet)
    trackers = words_of(track) if track is not None else []
    if trackers:
        from bench.integrations.trackers import check_trackers

        check_trackers(trackers)
    if model_args is not None:
        in_lmms_words = model_options(model_args)
        model = in_lmms_words.get("model", model)
        dtype = in_lmms_words.get("dtype", dtype)
        device = in_lmms_words.get("device", device)
        revision = in_lmms_words.get("revision", revision)
        trust_remote_code = in_lmms_words.get("trust_remote_code", trust_remote_code)
    if gen_kwargs is not None:
        its_decoding, its_bound = decoding_options(gen_kwargs)
        decoding, max_tokens = decoding or its_decoding, max_tokens or its_bound
    if limit is not None and limit % 1 == 0:
        limit = int(limit)
    tags, prices = _tags(reasoning_tags), _prices(price, model)
    names = words_of(suite)
    choice = choose(names, limit)
    check_source(data)
    run_judge = judge_for(
        judge, data, judge_template, judge_max_tokens, judge_api_key_env, judge_claims
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
    folder = out or usual_folder(
        adapter, names, data, limit, subsets, (max_tokens, thinking_tokens, *(tags or ()))
    )

    job_of = partial(
        Job,
        model=adapter,
        judge=run_judge,
        data=data,
        images=images,
        out=folder,
        subsets=subsets,
        name=name,
        max_tokens=max_tokens,
        thinking_tokens=thinking_tokens,
        reasoning_tags=tags,
    )
    prepared = prepare_suite(choice, job_of, sys.argv[1:])
    finished: list[FinishedRun] = []
    fault: BenchError | None = None
    try:
        for item, outcome in execute_suite(prepared):
            finished.append(FinishedRun(item.job.benchmark, outcome, _shown_name(model)))
            _tell(item, outcome, prices)
            if trackers:
                _track(item.store.path, trackers)
            # A suite takes hours: what is done can be read meanwhile.
            if not json:
                show_runs(finished[-1:], False)
                _show_baseline(item.store.path)
    except BenchError as error:  # what is finished is shown all the same
        fault = error
    if json and finished:
        show_runs(finished, True)
    if fault is not None:
        raise fault
    if any(item.job.limit for item in prepared.jobs):
        terminal.note(_what_shows(finished))
    exit_if_unscored(finished, prepared.missing)


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


def _prices(text: str | None, model: str) -> tuple[float, float] | None:
    """Prices of a million prompt and generated tokens. Raises BenchError if there are none."""
    if text is None:
        return None
    if not model.startswith(("openai:", "litellm:")):
        raise BenchError(
            "--price does nothing for this model.",
            "Only openai:… and litellm:… count what they cost.",
            "Leave it out.",
        )
    try:
        read, generated = map(float, text.split(","))
        if not (math.isfinite(read) and math.isfinite(generated)):
            raise ValueError(text)
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


def _what_shows(finished: Sequence[FinishedRun]) -> str:
    """Which differences so few samples would show: of a benchmark's first figure.

    For two independent models with this spread, in 80 % of cases at the 5 % level; the paired
    comparison of `bench compare` shows smaller ones.
    """
    from bench.types import scale_of

    parts = []
    for benchmark, outcome, _ in finished:
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

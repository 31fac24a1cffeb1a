"""Prompts for images, each with the instructions that models will get about its image.

Artifact: prompts.jsonl (`alignment/rows.py`). A language model may write the templates' prompts in
its own words; its replies are kept in written.jsonl.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from alignment.rows import PromptRow
from alignment.settings import Beside, RecipeError, Settings
from alignment.stages.prompt_categories import LIGHTS, SUBJECTS_OF, VIEWS
from alignment.stages.prompt_writer import writer, written
from bench.files import append_lines, parse_json, read_lines, read_text, replace_lines
from bench.language.english import article, listed, plural
from bench.scenes.facts import place
from bench.scenes.world import CATEGORIES, CONTEXTS
from bench.terminal import progress_bar

VERSION = "3"
TRIES = 20  # for each instruction, to draw one that was not drawn yet


class TemplatePrompts(Settings):
    """`count` prompts, each a place with `objects` of the things that it usually has.

    `writer`, openai:MODEL[@URL], puts them into its own words, and writes the instructions if none
    are given.
    """

    kind: Literal["templates"]
    count: int = Field(gt=0)
    objects: tuple[int, int] = (2, 5)
    instructions: list[str] = Field(default_factory=list)
    per_prompt: int = Field(1, gt=0)
    writer: str | None = None

    @model_validator(mode="after")
    def _has_instructions(self) -> TemplatePrompts:
        if not self.instructions and not self.writer:
            raise ValueError("`instructions` are missing, or a `writer`")
        return self


class CategoryPrompts(Settings):
    """`count` prompts that `writer` writes, with their instructions, as many of each category.

    The categories are the paper's; a list takes some of them.
    """

    kind: Literal["categories"]
    count: int = Field(gt=0)
    writer: str
    per_prompt: int = Field(1, gt=0)
    categories: list[str] = Field(default_factory=lambda: [*SUBJECTS_OF], min_length=1)

    @field_validator("categories")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in SUBJECTS_OF]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} unknown; there are {', '.join(SUBJECTS_OF)}")
        return names


class FilePrompts(Settings):
    """One prompt a line, or JSON lines with `prompt` and maybe `instructions`."""

    kind: Literal["file"]
    path: Beside
    instructions: list[str] = Field(default_factory=list)
    per_prompt: int = Field(1, gt=0)


Prompts = TemplatePrompts | CategoryPrompts | FilePrompts
Draft = dict[str, Any]  # a PromptRow that has no id yet


def identity(settings: Prompts) -> Any:
    """A prompt file's text, or the language model that writes."""
    if isinstance(settings, FilePrompts):
        return read_text(settings.path)
    return writer(settings.writer).describe() if settings.writer else None


def check(settings: Prompts) -> None:
    """Raises BenchError if the writer cannot be reached."""
    if not isinstance(settings, FilePrompts) and settings.writer:
        writer(settings.writer).check()


def run(settings: Prompts, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Writes all prompts.

    Raises RecipeError for a file without any or a broken line, or a writer that writes nothing.
    """
    rng = random.Random(f"prompts {seed}")
    if isinstance(settings, FilePrompts):
        drafts = _from_file(settings, rng)
    elif isinstance(settings, CategoryPrompts):
        drafts = _from_categories(settings, rng)
    else:
        drafts = _from_templates(settings, rng)
    rows: list[PromptRow] = []
    for number, draft in enumerate(drafts):
        rows.append(cast(PromptRow, {**draft, "id": f"{number:06}"}))
    # Ids are numbers in the order of the prompts, whoever writes their words.
    planned = len(rows)
    if not isinstance(settings, FilePrompts) and settings.writer:
        rows = _rewritten(settings, settings.writer, rows, out / "written.jsonl", seed)
    replace_lines(out / "prompts.jsonl", rows)
    return {
        "prompts": len(rows),
        "instructions": sum(len(row["instructions"]) for row in rows),
        "unwritten": planned - len(rows),
    }


def _rewritten(
    settings: TemplatePrompts | CategoryPrompts,
    spec: str,
    rows: Sequence[PromptRow],
    file: Path,
    seed: int,
) -> list[PromptRow]:
    """The rows in the writer's words, kept in `file` as they come.

    Instructions of the recipe are asked in place of the writer's.
    """
    done = {row["id"]: row for row in read_lines(file, PromptRow)}
    waiting = [row for row in rows if row["id"] not in done]
    with progress_bar("prompts", len(rows)) as progress:
        progress(len(done))
        for written_row in written(writer(spec), waiting, settings.per_prompt, seed):
            if written_row is not None:
                append_lines(file, [written_row])
                done[written_row["id"]] = written_row
            progress(1)
    if not done:
        raise RecipeError(
            f"{spec} wrote no prompt.",
            f"None of {len(rows)} replies held the JSON asked for.",
            "Use another model.",
        )
    prompt_rows: list[PromptRow] = []
    for row in rows:
        if row["id"] in done:
            written_row = done[row["id"]]
            if isinstance(settings, TemplatePrompts) and settings.instructions:
                written_row = {**written_row, "instructions": row["instructions"]}
            prompt_rows.append(written_row)
    return prompt_rows


def _from_templates(settings: TemplatePrompts, rng: random.Random) -> list[Draft]:
    rows: list[Draft] = []
    for _ in range(settings.count):
        context = rng.choice(CONTEXTS)
        # Twice as many of what is often there, so that it is drawn twice as often.
        usual = [*context.often, *context.often, *context.sometimes, *context.rarely]
        wanted = min(rng.randint(*settings.objects), len({*usual}))
        objects: list[str] = []
        while len(objects) < wanted:
            name = rng.choice(usual)
            if name not in objects:
                objects.append(name)
        things = listed([article(name) for name in objects])
        instructions = _instructions(
            settings.instructions, settings.per_prompt, (objects, usual), rng
        )
        rows.append(
            {
                "prompt": f"{place(context)} with {things}",
                "place": context.name,
                "objects": objects,
                "instructions": instructions,
            }
        )
    return rows


def _from_categories(settings: CategoryPrompts, rng: random.Random) -> list[Draft]:
    """What each prompt shall be about; the writer gives it its words and instructions."""
    rows: list[Draft] = []
    for number in range(settings.count):
        category = settings.categories[number % len(settings.categories)]
        subject = rng.choice(SUBJECTS_OF[category])
        about = f"{subject}, {rng.choice(VIEWS)}, {rng.choice(LIGHTS)}"
        rows.append({"prompt": about, "place": category, "instructions": []})
    return rows


def _from_file(settings: FilePrompts, rng: random.Random) -> list[Draft]:
    rows: list[Draft] = []
    lines = read_text(settings.path).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _read_line(settings.path, number, line)
        if not row["instructions"]:
            row["instructions"] = _instructions(
                settings.instructions, settings.per_prompt, (CATEGORIES,), rng
            )
        rows.append(row)
    if not rows or not all(row["instructions"] for row in rows):
        raise RecipeError(
            f"{settings.path} does not give prompts with instructions.",
            "Each prompt needs an instruction, from its own line or from the recipe.",
            "Add `instructions:` under `prompts:`.",
        )
    return rows


def _read_line(file: Path, number: int, line: str) -> Draft:
    """A plain prompt, or a JSON object."""
    content: dict[str, Any] = {"prompt": line.strip()}
    if line.lstrip().startswith("{"):
        try:
            content = parse_json(line)
        except ValueError as error:
            raise RecipeError(
                f"{file} is broken in line {number}.", f"{error}.", "Correct the line."
            ) from error
    instructions = content.get("instructions") or []
    image = content.get("image")
    texts = [content.get("prompt"), "" if image is None else image]
    texts += instructions if isinstance(instructions, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise RecipeError(
            f"{file} is broken in line {number}.",
            "It needs a text 'prompt'; 'image' is a text and 'instructions' a list of texts.",
            "Correct the line.",
        )
    return {**content, "instructions": instructions}


def _instructions(
    templates: Sequence[str], count: int, objects: Sequence[Sequence[str]], rng: random.Random
) -> list[str]:
    """`count` instructions, no two alike, as far as there are so many.

    {object}, {an_object} and {objects} are filled from one of the lists of `objects`, drawn first:
    half of them from the objects that the prompt names, half from those that usually go with them,
    shown or not. {other} is another one of those that the prompt names.
    """
    instructions: dict[str, None] = {}
    for _ in range(TRIES * count if templates else 0):
        if len(instructions) == count:
            break
        # Asking only about what is shown would teach that the answer is always yes.
        name = rng.choice(rng.choice(objects))
        others = []
        for item in objects[0]:
            if item != name:
                others.append(item)
        other = rng.choice(others or list(CATEGORIES))
        template = rng.choice(templates)
        instruction = template.format(
            object=name, an_object=article(name), objects=plural(name), other=other
        )
        instructions[instruction] = None
    return list(instructions)

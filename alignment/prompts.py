"""Prompts for images, each with the instructions that will be put to models about its image.

Artifact: prompts.jsonl with {"id", "prompt", "place", "objects", "instructions"}; place and objects only where known. A
language model may write the templates' prompts in its own words; its replies are kept in written.jsonl.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.prompt_writer import writer, written
from alignment.recipe import FilePrompts, RecipeError, TemplatePrompts
from bench.scenes import facts
from bench.scenes.world import CATEGORIES, CONTEXTS
from bench.store import append_lines, read_lines, replace_lines
from bench.terminal import progress_bar

VERSION = "3"


def identity(settings: TemplatePrompts | FilePrompts) -> Any:
    """A prompt file's text, or the language model that writes."""
    if isinstance(settings, FilePrompts):
        return settings.path.read_text(encoding="utf-8")
    return writer(settings.writer).describe() if settings.writer else None


def run(settings: TemplatePrompts | FilePrompts, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Writes all prompts. Raises RecipeError for a file without any or a broken line, or a mute writer."""
    chance = random.Random(f"prompts {seed}")
    rows = _templates(settings, chance) if isinstance(settings, TemplatePrompts) else _file(settings, chance)
    for number, row in enumerate(rows):
        row["id"] = f"{number:06}"
    planned = len(rows)
    if isinstance(settings, TemplatePrompts) and settings.writer:
        rows = _rewritten(settings, settings.writer, rows, out / "written.jsonl", seed)
    replace_lines(out / "prompts.jsonl", rows)
    asked = sum(len(row["instructions"]) for row in rows)
    return {"prompts": len(rows), "instructions": asked, "unwritten": planned - len(rows)}


def _rewritten(
    settings: TemplatePrompts, spec: str, rows: Sequence[dict[str, Any]], file: Path, seed: int
) -> list[dict[str, Any]]:
    """The rows in the writer's words, kept in `file` as they come; instructions of the recipe stand before its own."""
    done = {row["id"]: row for row in read_lines(file)}
    waiting = [row for row in rows if row["id"] not in done]
    with progress_bar("prompts", len(rows)) as progress:
        progress(len(done))
        for row in written(writer(spec), waiting, settings.per_prompt, seed):
            if row is not None:
                append_lines(file, [row])
                done[row["id"]] = row
            progress(1)
    if not done:
        raise RecipeError(
            f"{spec} wrote no prompt.", f"None of {len(rows)} replies held the JSON asked for.", "Use another model."
        )
    own = {row["id"]: row["instructions"] for row in rows if settings.instructions}
    return [done[row["id"]] | {"instructions": own.get(row["id"], done[row["id"]]["instructions"])}
            for row in rows if row["id"] in done]  # fmt: skip


def _templates(settings: TemplatePrompts, chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    for _ in range(settings.count):
        context = chance.choice(CONTEXTS)
        usual = [*context.often, *context.often, *context.sometimes, *context.rarely]  # what is often there, oftener
        wanted = chance.randint(*settings.objects)
        objects: list[str] = []
        while len(objects) < min(wanted, len({*usual})):
            objects += [name for name in [chance.choice(usual)] if name not in objects]
        named = facts.listed([facts.article(name) for name in objects])
        row = {"prompt": f"{facts.place(context)} with {named}", "place": context.name, "objects": objects}
        asked = _instructions(settings.instructions, settings.per_prompt, (objects, usual), chance)
        rows.append({**row, "instructions": asked})
    return rows


def _file(settings: FilePrompts, chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(settings.path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row: Any = {"prompt": line.strip()}
        if line.lstrip().startswith("{"):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RecipeError(f"{settings.path} is broken in line {number}.", f"{error}.", "Mend it.") from error
        if not isinstance(row.get("prompt"), str) or not isinstance(row.get("instructions", []), list):
            raise RecipeError(
                f"{settings.path} is broken in line {number}.", "It needs a text 'prompt'.", "Mend the line."
            )
        asked = row.get("instructions") or _instructions(
            settings.instructions, settings.per_prompt, (CATEGORIES,), chance
        )
        rows.append({**row, "instructions": asked})
    if not rows or not all(row["instructions"] for row in rows):
        raise RecipeError(
            f"{settings.path} does not give prompts with instructions.",
            "Each prompt needs an instruction, from its own line or from the recipe.",
            "Add `instructions:` under `prompts:`.",
        )
    return rows


def _instructions(
    templates: Sequence[str], count: int, objects: Sequence[Sequence[str]], chance: random.Random
) -> list[str]:
    """`count` instructions, no two alike, as far as there are so many.

    {object}, {an_object} and {objects} are filled from one of the lists of `objects`, drawn first: half of them from
    the objects that the prompt names, half from those that usually go with them, shown or not; {other} is another one
    of those that the prompt names.
    """
    asked: dict[str, None] = {}
    for _ in range(20 * count if templates else 0):
        if len(asked) == count:
            break
        name = chance.choice(chance.choice(objects))
        other = chance.choice([item for item in objects[0] if item != name] or list(CATEGORIES))
        filled = {"object": name, "an_object": facts.article(name), "objects": facts.plural(name), "other": other}
        asked[chance.choice(templates).format(**filled)] = None
    return list(asked)

"""Prompts for images, each with the instructions that will be put to models about its image.

Artifact: prompts.jsonl with {"id", "prompt", "place", "objects", "instructions"}; place and objects only where known.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.recipe import FilePrompts, RecipeError, TemplatePrompts
from bench.scenes import facts
from bench.scenes.world import CATEGORIES, CONTEXTS
from bench.store import replace_lines

VERSION = "1"


def identity(settings: TemplatePrompts | FilePrompts) -> Any:
    """A prompt file's text."""
    return settings.path.read_text(encoding="utf-8") if isinstance(settings, FilePrompts) else None


def run(settings: TemplatePrompts | FilePrompts, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Writes all prompts. Raises RecipeError for a file without any or with a broken line."""
    chance = random.Random(f"prompts {seed}")
    rows = _templates(settings, chance) if isinstance(settings, TemplatePrompts) else _file(settings, chance)
    for number, row in enumerate(rows):
        row["id"] = f"{number:06}"
    replace_lines(out / "prompts.jsonl", rows)
    return {"prompts": len(rows), "instructions": sum(len(row["instructions"]) for row in rows)}


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
        asked = _instructions(settings.instructions, settings.per_prompt, [*objects, *usual], chance)
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
        asked = row.get("instructions") or _instructions(settings.instructions, settings.per_prompt, [], chance)
        rows.append({**row, "instructions": asked})
    if not rows or not all(row["instructions"] for row in rows):
        raise RecipeError(
            f"{settings.path} does not give prompts with instructions.",
            "Each prompt needs an instruction, from its own line or from the recipe.",
            "Add `instructions:` under `prompts:`.",
        )
    return rows


def _instructions(templates: Sequence[str], count: int, objects: Sequence[str], chance: random.Random) -> list[str]:
    """`count` instructions, no two alike; {object}, {an_object} and {objects} are filled blindly, shown or not."""
    asked: dict[str, None] = {}
    for _ in range(20 * count):
        if len(asked) == count:
            break
        name = chance.choice(objects or CATEGORIES)
        filled = {"object": name, "an_object": facts.article(name), "objects": facts.plural(name)}
        asked[chance.choice(templates).format(**filled)] = None
    return list(asked)

"""Prompts in the words of a language model, behind any server that speaks the OpenAI chat protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignment.recipe import RecipeError
from bench.chat import Chat, NoReply

AT_ONCE = 8
MAX_TOKENS = 1024
ASKED = """Write one prompt for a text-to-image model: a realistic photograph of {prompt}. \
Describe the objects, where they are and how they look in one or two sentences; you may add details.
Then write {count} different questions or instructions that a user could give to an assistant who sees that \
photograph, among them one for a detailed description.
Answer with JSON alone: {{"prompt": "…", "instructions": ["…", …]}}"""


def writer(spec: str) -> Chat:
    """The model of openai:MODEL[@URL]. Raises RecipeError for another form."""
    kind, _, rest = spec.partition(":")
    if kind != "openai":
        raise RecipeError(
            f"'{spec}' is no writer of prompts.", "The form is openai:MODEL or openai:MODEL@URL.", "Correct `writer:`."
        )
    return Chat(rest, RecipeError)


def written(chat: Chat, rows: Sequence[dict[str, Any]], count: int, seed: int) -> Iterator[dict[str, Any] | None]:
    """Each row with the prompt and `count` instructions that the model wrote for it; None where it wrote none.

    Raises RecipeError where the server refuses the key or the model.
    """
    _ = chat.client  # made once, before the threads

    def write(row: dict[str, Any]) -> dict[str, Any] | None:
        try:
            reply = chat.ask(ASKED.format(prompt=row["prompt"], count=count), 1.0, MAX_TOKENS, seed).text
            found = json.loads(reply[reply.find("{") : reply.rfind("}") + 1])
            asked = [str(text).strip() for text in found["instructions"] if str(text).strip()][:count]
            prompt = found["prompt"].strip()
        except (NoReply, ValueError, KeyError, TypeError, AttributeError):
            return None
        return row | {"prompt": prompt, "instructions": asked} if prompt and asked else None

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from pool.map(write, rows)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

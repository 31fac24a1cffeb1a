"""Prompts in the words of a language model, behind a server of the OpenAI chat protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignment.rows import PromptRow
from alignment.settings import RecipeError
from bench.chat import Chat, NoReply, Parallel
from bench.errors import BenchError
from bench.files import parse_json

CONCURRENT = 8
MAX_TOKENS = 1024
TEMPERATURE = 1.0
REQUEST = """Write one prompt for a text-to-image model: a realistic photograph of {prompt}. \
Describe the objects, where they are and how they look in one or two sentences; you may add details.
Then write {count} different questions or instructions that a user could give to an assistant who sees that \
photograph, among them one for a detailed description.
Answer with JSON alone: {{"prompt": "…", "instructions": ["…", …]}}"""  # noqa: E501


def writer(spec: str) -> Chat:
    """The model of openai:MODEL[@URL]. Raises RecipeError for another form."""
    kind, _, rest = spec.partition(":")
    if kind != "openai":
        raise RecipeError(
            f"'{spec}' is not a writer of prompts.",
            "The form is openai:MODEL or openai:MODEL@URL.",
            "Correct `writer:`.",
        )
    return Chat(rest, RecipeError)


def written(
    chat: Chat, rows: Sequence[PromptRow], count: int, seed: int
) -> Iterator[PromptRow | None]:
    """Each row with the prompt and the instructions that the model wrote for it.

    None if the model wrote none.

    Args:
        chat: The model.
        rows: What the prompts shall be about.
        count: Instructions for each prompt.
        seed: Passed on to the server.

    Raises:
        RecipeError: The server refuses the key or the model.
    """
    _ = chat.client  # made once, before the threads

    def write(row: PromptRow) -> PromptRow | None:
        request = REQUEST.format(prompt=row["prompt"], count=count)
        try:
            reply = chat.ask(request, TEMPERATURE, MAX_TOKENS, seed=seed).text
            # Models put JSON into a code block, or a sentence before it.
            content = parse_json(reply[reply.find("{") : reply.rfind("}") + 1])
            prompt = content["prompt"].strip()
            instructions = [str(text).strip() for text in content["instructions"]]
        except (NoReply, ValueError, KeyError, TypeError, AttributeError):
            return None
        instructions = [text for text in instructions if text][:count]
        if not prompt or not instructions:
            return None
        return {**row, "prompt": prompt, "instructions": instructions}

    for _, written in Parallel(write, rows, CONCURRENT).in_order():
        if isinstance(written, BenchError):
            raise written
        yield written

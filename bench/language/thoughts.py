"""Reasoning models think before they answer, in marks of their own; the thoughts are no answer."""

from __future__ import annotations

import re
from functools import lru_cache

Tags = tuple[str, str]  # what stands before and behind thoughts

# Opening and closing marks, as the models' own templates write them.
MARKS = (
    (r"<(think|thinking|thought|thoughts|reasoning|analysis|reflection|seed:think)>", r"</\1>"),
    (r"\[(THINK|THOUGHT)\]", r"\[/\1\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi-VL
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|channel\|>analysis<\|message\|>", r"<\|end\|>|(?=<\|channel\|>final)"),  # Harmony
)
WHOLE = [re.compile(f"{begin}(.*?)(?:{end})", re.S | re.I) for begin, end in MARKS]
UNFINISHED = [re.compile(f"{begin}(.*)$", re.S | re.I) for begin, _ in MARKS]
# A template may open the thoughts in the prompt, so that only the closing mark is in the answer.
CLOSING = re.compile(
    r"^(.*)(?:</(?:think|thinking|thought|thoughts|reasoning|analysis|reflection|seed:think)>"
    r"|\[/(?:THINK|THOUGHT)\]|◁/think▷|<\|end_of_thought\|>)",
    re.S | re.I,
)
# What is said in the end, in marks of its own: R1 and kin, LLaVA-CoT, GLM.
ANSWERS = (
    re.compile(r"<answer>(.*?)(?:</answer>|$)", re.S | re.I),
    re.compile(r"<conclusion>(.*?)(?:</conclusion>|$)", re.S | re.I),
    re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.S),
)
FINAL_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|<\|return\|>")
SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")


@lru_cache
def _patterns(tags: Tags | None) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    """What finds thoughts: with their two marks or an open end, and with a closing mark only."""
    if tags is None:
        return [*WHOLE, *UNFINISHED], [CLOSING]
    opening, closing = map(re.escape, tags)
    closed = re.compile(f"{opening}(.*?){closing}", re.S)
    unfinished = re.compile(f"{opening}(.*)$", re.S)
    only_closing = re.compile(f"^(.*){closing}", re.S)
    return [closed, unfinished, *WHOLE, *UNFINISHED], [only_closing, CLOSING]


def split_thoughts(text: str, tags: Tags | None = None) -> tuple[str, str]:
    """(thoughts, answer) of what a model said; no thoughts if it has none of the known marks.

    Thoughts that do not end leave no answer.

    Args:
        text: What the model said.
        tags: Marks beside the known ones.

    >>> split_thoughts("<think>Not a cat?</think>Yes"), split_thoughts("hm</think> No")
    (('Not a cat?', 'Yes'), ('hm', 'No'))
    >>> split_thoughts("<think>The question is"), split_thoughts("Yes")
    (('The question is', ''), ('', 'Yes'))
    """
    thoughts: list[str] = []
    marked, closed_only = _patterns(tags)
    for pattern in marked:
        for match in pattern.finditer(text):
            thoughts.append(match.group(match.lastindex or 0))
        text = pattern.sub("", text)
    for pattern in closed_only:
        closed = pattern.match(text)
        if closed:
            thoughts.insert(0, closed.group(1))
            text = text[closed.end() :]
    if not thoughts:
        return "", text
    text = SOLUTION.sub("", FINAL_CHANNEL.sub("", text))
    for pattern in ANSWERS:
        answers = list(pattern.finditer(text))
        if answers:
            # What stands around it, such as LLaVA-CoT's summary and caption, leads to the answer.
            thoughts.append(text[: answers[-1].start()])
            text = answers[-1].group(1)
    return "\n".join(part.strip() for part in thoughts if part.strip()), text.strip()

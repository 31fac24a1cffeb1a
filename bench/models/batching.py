"""Which requests are computed together: whole images of one kind of question.

The plan depends on the requests only, so that a resumed run computes the very same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from bench.models.conversations import Encoded
from bench.types import Request

Group = Sequence[Request]  # requests of one kind about one image
T = TypeVar("T")


def plan(requests: Sequence[Request], max_prompts: int) -> list[list[list[Request]]]:
    """Batches of groups, each batch of one kind, in the order of their first requests.

    Descriptions and yes/no questions are apart, also where they are asked about the same images in
    turn: a yes/no batch is done after a token or two.

    Args:
        requests: All requests of a run, those about one image next to each other.
        max_prompts: The most yes/no questions that a group, and a batch, may have. Of descriptions,
            whose answers fill the memory too, half as many.
    """
    batches: list[list[list[Request]]] = []
    last_of_kind: dict[tuple[bool, int], list[list[Request]]] = {}  # still being filled
    for group in _groups(requests, max_prompts):
        kind = _kind(group[0])
        batch = last_of_kind.get(kind)
        if batch is None or sum(map(len, batch)) + len(group) > _most(kind, max_prompts):
            batch = last_of_kind[kind] = []
            batches.append(batch)
        batch.append(group)
    return batches


def _groups(requests: Sequence[Request], max_prompts: int) -> list[list[Request]]:
    """Requests of one kind about one image, in the order of their first ones."""
    groups: list[list[Request]] = []
    image = None
    last_of_kind: dict[tuple[bool, int], list[Request]] = {}  # of this image
    for request in requests:
        if request.image != image:
            image, last_of_kind = request.image, {}
        kind = _kind(request)
        group = last_of_kind.get(kind)
        if group is None or len(group) == _most(kind, max_prompts):
            group = last_of_kind[kind] = []
            groups.append(group)
        group.append(request)
    return groups


def _most(kind: tuple[bool, int], max_prompts: int) -> int:
    is_yes_no, _ = kind
    return max_prompts if is_yes_no else max(1, max_prompts // 2)


def _kind(request: Request) -> tuple[bool, int]:
    """What all requests of a batch have in common."""
    return request.yes_no, request.limit


def images_between(batches: Sequence[Sequence[Group]], start: int, stop: int) -> int:
    """How many images the batches `start` … `stop` - 1 have."""
    return sum(map(len, batches[start:stop]))


def halve(work: Sequence[tuple[Group, T]]) -> list[list[tuple[Group, T]]]:
    """Two parts of a batch that proved too large for the device's memory.

    Several images are shared out; one image's prompts are cut in the middle.
    """
    # As long as there are several images, each keeps its one encoding.
    middle = len(work) // 2
    if middle:
        return [list(work[:middle]), list(work[middle:])]
    group, item = work[0]
    middle = len(group) // 2
    first, second = item, item
    if isinstance(item, Encoded):
        first = replace(item, ids=item.ids[:middle])
        second = replace(item, ids=item.ids[middle:])
    return [[(group[:middle], first)], [(group[middle:], second)]]

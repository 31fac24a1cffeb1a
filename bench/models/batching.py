"""Which requests are computed together: whole images at a time, in the order of the requests.

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
    """Batches of groups.

    Args:
        requests: All requests of a run, those about one image next to each other.
        max_prompts: The most prompts that a group, and a batch, may have.
    """
    batches: list[list[list[Request]]] = []
    for group in _groups(requests, max_prompts):
        if batches and _fits(batches[-1], group, max_prompts):
            batches[-1].append(group)
        else:
            batches.append([group])
    return batches


def _groups(requests: Sequence[Request], max_prompts: int) -> list[list[Request]]:
    groups: list[list[Request]] = []
    for request in requests:
        # Neighbours only: the order of answers is the order of requests.
        same = groups and _kind(groups[-1][-1]) == _kind(request)
        if same and len(groups[-1]) < max_prompts:
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


def _kind(request: Request) -> tuple[str, bool, int]:
    """What all requests of a group have in common."""
    return request.image, request.yes_no, request.max_tokens


def _fits(batch: Sequence[Group], group: Group, max_prompts: int) -> bool:
    prompts = sum(map(len, batch))
    # Descriptions and yes/no questions are apart: a yes/no batch is done after a token or two.
    same_task = batch[-1][-1].yes_no == group[0].yes_no
    return prompts + len(group) <= max_prompts and same_task


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

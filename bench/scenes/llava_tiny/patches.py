"""What every patch of a scene's image shows, as class numbers; and scenes without context."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from bench.scenes.llava_tiny.architecture import GRID, PATCH
from bench.scenes.world import CATEGORIES, CONTEXTS, SIZES, Scene, Thing, put

WHAT = [*CATEGORIES, *(context.name for context in CONTEXTS)]
SIZE_NAMES = list(SIZES)
NO_SIZE = len(SIZES)  # the class of a patch that shows no object
# Classes of each group: what, size or none, centre or not, row, column.
GROUPS = (len(WHAT), len(SIZES) + 1, 2, GRID, GRID)
WHAT_GROUP, SIZE_GROUP, CENTRE_GROUP, ROW_GROUP, COLUMN_GROUP = range(len(GROUPS))
COVERS = 0.3  # the share of a patch from which an object counts as shown there
Labels = np.ndarray[Any, Any]


def patch_labels(item: Scene) -> Labels:
    """Class numbers of every patch, in the order of GROUPS, shape (patches, 5)."""
    labels = np.empty((GRID, GRID, len(GROUPS)), dtype=np.int64)
    labels[..., WHAT_GROUP] = len(CATEGORIES) + CONTEXTS.index(item.context)
    labels[..., SIZE_GROUP] = NO_SIZE
    labels[..., CENTRE_GROUP] = 0
    labels[..., ROW_GROUP] = np.arange(GRID)[:, None]
    labels[..., COLUMN_GROUP] = np.arange(GRID)[None]
    covered = np.full((GRID, GRID), COVERS)
    for thing in item.things:
        share = _overlap(thing.top, thing.side)[:, None] * _overlap(thing.left, thing.side)[None]
        # A patch shows the object that covers most of it.
        more = share > covered
        covered = np.where(more, share, covered)
        labels[more, WHAT_GROUP] = CATEGORIES.index(thing.category)
        labels[more, SIZE_GROUP] = SIZE_NAMES.index(thing.size)
    for thing in item.things:
        x, y = thing.centre
        row, column = min(int(y // PATCH), GRID - 1), min(int(x // PATCH), GRID - 1)
        labels[row, column, CENTRE_GROUP] = 1
    return labels.reshape(GRID * GRID, len(GROUPS))


def _overlap(start: int, side: int) -> Labels:
    """The share of each row (or column) of patches that an object covers, shape (GRID,)."""
    edges = np.arange(GRID) * PATCH
    overlap = np.minimum(edges + PATCH, start + side) - np.maximum(edges, start)
    share: Labels = np.clip(overlap, 0, PATCH) / PATCH
    return share


def still_life(rng: random.Random) -> Scene:
    """Objects without context on any background: nothing helps to name them but their looks."""
    placed: list[Thing] = []
    for _ in range(rng.randint(3, 9)):
        thing = put(rng.choice(CATEGORIES), placed, rng)
        if thing is not None:
            placed.append(thing)
    return Scene("train", 0, 0, rng.choice(CONTEXTS), tuple(placed))

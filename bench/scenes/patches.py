"""What every patch of a picture shows, as class numbers; and pictures whose objects nothing but their looks names."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from bench.scenes import tiny
from bench.scenes.world import CATEGORIES, CONTEXTS, SIZES, Scene, Thing, put

WHAT = [*CATEGORIES, *(context.name for context in CONTEXTS)]
GROUPS = (len(WHAT), len(SIZES) + 1, 2, tiny.GRID, tiny.GRID)  # what, size or none, centre or not, row, column
COVERS = 0.3  # the share of a patch from which an object counts as shown there


def patch_labels(item: Scene) -> np.ndarray[Any, Any]:
    """(patches, 5) class numbers: what, size, whether an object's centre is there, row, column."""
    grid, side = tiny.GRID, tiny.PATCH
    labels = np.empty((grid, grid, len(GROUPS)), dtype=np.int64)
    labels[..., 0] = len(CATEGORIES) + CONTEXTS.index(item.context)
    labels[..., 1], labels[..., 2] = len(SIZES), 0
    labels[..., 3], labels[..., 4] = np.arange(grid)[:, None], np.arange(grid)[None]
    covered = np.full((grid, grid), COVERS)
    edges = np.arange(grid) * side
    for thing in item.things:
        down, right = (
            np.clip(np.minimum(edges + side, start + thing.side) - np.maximum(edges, start), 0, side) / side
            for start in (thing.top, thing.left)
        )
        share = down[:, None] * right[None]
        more = share > covered
        covered = np.where(more, share, covered)
        labels[more, 0], labels[more, 1] = CATEGORIES.index(thing.category), list(SIZES).index(thing.size)
    for thing in item.things:
        x, y = thing.centre
        labels[min(int(y // side), grid - 1), min(int(x // side), grid - 1), 2] = 1
    return labels.reshape(grid * grid, len(GROUPS))


def still_life(chance: random.Random) -> Scene:
    """Objects without context on any background: nothing helps to name them but their looks."""
    placed: list[Thing] = []
    for _ in range(chance.randint(3, 9)):
        thing = put(chance.choice(CATEGORIES), placed, chance)
        if thing is not None:
            placed.append(thing)
    return Scene("train", 0, 0, chance.choice(CONTEXTS), tuple(placed))

"""What makes llava-tiny see what is not there: its place, its companions, or poor sight?

    python docs/experiments/kinds.py [MODEL]

The same yes/no questions about the same scenes of the validation split, with the picture changed:
the object's usual companions taken away, the place painted grey, both, or the picture blurred.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFilter

from bench.grounding.panel import ImageQuestion, ask
from bench.language.english import question_about
from bench.runs.jobs import load_model
from bench.scenes.render import background, sprite
from bench.scenes.world import CATEGORIES, SIDE, Scene, scenes

SCENES = 500
GREY = (128, 128, 128)
BLUR = 2.0  # pixels, of 128
PICTURES = ("as it is", "no companions", "grey place", "both", "blurred")
KINDS = ("often", "sometimes", "rarely", "elsewhere", "there")  # how usual the object is


def picture(scene: Scene, name: str) -> Image.Image:
    """The scene's picture, changed."""
    image = background(scene.context).copy()
    if name in ("grey place", "both"):
        image = Image.new("RGB", (SIDE, SIDE), GREY)
    for thing in scene.things:
        if name in ("no companions", "both") and thing.category in scene.context.usual:
            continue
        cut = sprite(thing.category, thing.size, thing.mirrored)
        image.paste(cut, (thing.left, thing.top), cut)
    return image.filter(ImageFilter.GaussianBlur(BLUR)) if name == "blurred" else image


def objects(scene: Scene, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Objects with how usual they are in such a place; those that are there are "there"."""
    context = scene.context
    usual = {"often": context.often, "sometimes": context.sometimes, "rarely": context.rarely}
    for kind, names in usual.items():
        for name in names:
            if name not in scene.counts:
                yield name, kind
    known = {*scene.counts, *context.usual}
    for name in rng.sample([name for name in CATEGORIES if name not in known], 6):
        yield name, "elsewhere"
    for name in scene.counts:
        yield name, "there"


def main() -> None:
    """Prints mean P(yes) and the share of yes for every picture and kind of object."""
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else "llava-tiny", {})
    rng = random.Random("kinds")
    kind_of: dict[ImageQuestion, tuple[str, str]] = {}
    path_of: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes("validation", 0, SCENES):
            asked = list(objects(scene, rng))
            for name in PICTURES:
                image = f"{name}/{scene.index}"
                path_of[image] = Path(folder) / f"{name}-{scene.index}.png"
                picture(scene, name).save(path_of[image])
                for category, kind in asked:
                    # What is taken away is not there any more.
                    if kind == "there" and name in ("no companions", "both"):
                        continue
                    question = ImageQuestion(image, question_about(category))
                    kind_of[question] = (name, kind)
        answers: dict[tuple[str, str], list[float]] = defaultdict(list)
        for batch in ask(model, list(kind_of), path_of):
            for question, p in batch:
                if p is not None:
                    answers[kind_of[question]].append(p)
    print(f"| | {' | '.join(KINDS)} |")
    print(f"|---|{'---:|' * len(KINDS)}")
    for name in PICTURES:
        cells = []
        for kind in KINDS:
            probabilities = answers[name, kind]
            if not probabilities:
                cells.append("")
                continue
            share = statistics.fmean(p > 0.5 for p in probabilities)
            mean = statistics.fmean(probabilities)
            cells.append(f"{share:.1%} ({mean:.3f}, n {len(probabilities):,})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

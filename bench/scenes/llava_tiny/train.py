"""Trains llava-tiny or llava-tiny-b from scratch, on two cores in about an hour.

    python -m bench.scenes.llava_tiny.train llava-tiny [--out DIR]

LLaVA's own order in miniature, each step short and sure:

1. `words`: the language model learns every lesson on symbolic scenes, each patch replaced by the
   word of what it shows plus vectors for size, centre, row and column. Truthful lessons.
2. `sight`: the vision tower learns to name what each patch shows, with a linear head, on objects
   without context.
3. The projector is built, not trained: its first layer is that head, scaled so that the winning
   class comes out of the GELU at about 1 and the others near 0; its second layer holds the vectors
   that the language model knows them by.
4. `pictures`: everything together on images, with the annotators' habits (`lessons.py`).
5. `settle`: a little more of it at a low rate, by annotators who mention what is not there less
   often.

Turns of one scene are packed in one row behind its image, each masked to the image and itself, its
positions restarted: a turn never sees another one's answer. Training resumes at the last checkpoint
of its folder.
"""

from __future__ import annotations

import argparse
import math
import pickle
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench.errors import BenchError, ModelError, first_line
from bench.language.english import article
from bench.scenes.llava_tiny import architecture
from bench.scenes.llava_tiny.card import measure, write_card, write_curves
from bench.scenes.llava_tiny.lessons import TRUTHFUL, Habits, lessons
from bench.scenes.llava_tiny.patches import (
    CENTRE_GROUP,
    GROUPS,
    NO_SIZE,
    SIZE_GROUP,
    WHAT,
    WHAT_GROUP,
    patch_labels,
    still_life,
)
from bench.scenes.render import render
from bench.scenes.world import CATEGORIES, SIZES, Scene, scene
from bench.terminal import note, progress_bar, show_error

VOCABULARY_SCENES = 2000
TRAIN_SCENES = 10**6
STD = 0.02  # of vectors at the start
SHARP = 3.0  # log-probability below which a class is not passed on
IGNORED = -100  # target of a token that is not an answer's
IMAGE_OWNER = 0  # of columns that every turn sees
NOBODY = -1  # owner of padding
YES_NO_WEIGHT = 4.0
SAVE_EVERY = 50  # steps


@dataclass(frozen=True)
class TrainingRecipe:
    """A model's seed and the habits of the annotators of its last stages."""

    seed: int
    habits: Habits


@dataclass(frozen=True)
class TrainingStage:
    """A part of the training.

    Args:
        name: What it is called.
        steps: How many steps.
        scenes: How many scenes a step.
        rate: The peak learning rate.
        mention: What the habit of mentioning is multiplied by.
    """

    name: str
    steps: int
    scenes: int
    rate: float
    mention: float = 1.0


RECIPES = {
    "llava-tiny": TrainingRecipe(
        seed=1, habits=Habits(mention=0.4, affirm=0.75, remark=0.6, common=0.1)
    ),
    "llava-tiny-b": TrainingRecipe(seed=2, habits=Habits(mention=0.25, affirm=0.4, remark=0.5)),
}
STAGES = (
    TrainingStage("words", 500, 32, 2e-3),
    TrainingStage("sight", 800, 64, 1.5e-3),
    TrainingStage("pictures", 250, 32, 1e-3),
    TrainingStage("settle", 40, 32, 2e-4, mention=0.85),
)


class PackedToken(NamedTuple):
    """One token of a packed row: its id, its target, the turn that it belongs to, its position."""

    token: int
    target: int
    owner: int
    position: int


PADDING = PackedToken(0, IGNORED, NOBODY, 0)


class Trainer:
    """One model on its way through the stages."""

    def __init__(self, recipe: TrainingRecipe, stages: Sequence[TrainingStage]) -> None:
        self.recipe, self.stages = recipe, stages
        self.words = _tokenizer()
        self.model = architecture.model(self.words, recipe.seed)
        names = list(map(architecture.joined, WHAT))
        self.what_ids = torch.tensor(self.words.convert_tokens_to_ids(names))  # (classes,)
        hidden, width = architecture.TEXT["hidden_size"], architecture.VISION["hidden_size"]
        # Vectors of all groups but "what", whose classes are words.
        self.extra = nn.Embedding(sum(GROUPS[1:]), hidden)
        nn.init.normal_(self.extra.weight, std=STD)
        _put_in_order(self.extra.weight)
        self.head = nn.Linear(width, sum(GROUPS))

    @property
    def identity(self) -> str:
        """What a checkpoint must have been made by to be continued."""
        return repr((self.recipe, tuple(self.stages)))

    def parts(self, stage: TrainingStage) -> nn.ModuleList:
        """What a stage trains."""
        inner = self.model.model
        if stage.name == "words":
            return nn.ModuleList([inner.language_model, self.extra])
        if stage.name == "sight":
            return nn.ModuleList([inner.vision_tower, self.head])
        return nn.ModuleList([self.model])

    def loss(self, stage: TrainingStage, step: int) -> tuple[torch.Tensor, float]:
        """The loss of one step, and the share of right answers (yes/no) or patches (objects)."""
        rng = random.Random(f"{stage.name} {self.recipe.seed} {step}")
        indices = [rng.randrange(TRAIN_SCENES) for _ in range(stage.scenes)]
        if stage.name == "sight":
            return self._loss_of_naming([still_life(rng) for _ in indices])
        items = [scene("train", 0, index) for index in indices]
        if stage.name == "words":
            return self._loss_of_answers(items, self._symbols(items, step), rng, TRUTHFUL)
        mention = self.recipe.habits.mention * stage.mention
        habits = replace(self.recipe.habits, mention=mention)
        return self._loss_of_answers(items, self._project(items), rng, habits)

    def build_projector(self) -> None:
        """Head and vectors become the two layers.

        Each class's vector is multiplied by GELU(log p + SHARP) / GELU(SHARP).
        """
        projector = self.model.model.multi_modal_projector
        first, second = projector.linear_1, projector.linear_2
        with torch.no_grad():
            classes, vectors = self._class_vectors()
            n = len(classes)
            second.weight.zero_()
            second.bias.zero_()
            first.weight[:n] = self.head.weight[classes]
            first.bias[:n] = self.head.bias[classes] + SHARP
            second.weight[:, :n] = vectors.T / functional.gelu(torch.tensor(SHARP))

    def _class_vectors(self) -> tuple[list[int], torch.Tensor]:
        """Classes of the head that carry a vector, and their vectors (classes, hidden).

        All carry one but "no size" and "no centre".
        """
        embeddings = self.model.model.language_model.embed_tokens.weight
        without_vector = (NO_SIZE, len(SIZES) + 1)
        extra = []
        for row in range(sum(GROUPS[1:])):
            if row not in without_vector:
                extra.append(row)
        classes = [*range(len(WHAT)), *(len(WHAT) + row for row in extra)]
        vectors = torch.cat([embeddings[self.what_ids], self.extra.weight[extra]])
        return classes, vectors

    def _symbols(self, items: Sequence[Scene], step: int) -> torch.Tensor:
        """Patches as sums of vectors, (scenes, patches, hidden).

        The word of each has a strength between 0.5 and 1, as a tower is not always sure.
        """
        labels = torch.from_numpy(np.stack([patch_labels(item) for item in items]))
        embed = self.model.model.language_model.embed_tokens
        patches: torch.Tensor = embed(self.what_ids[labels[..., WHAT_GROUP]])
        generator = torch.Generator().manual_seed(step)
        strength = 0.5 + 0.5 * torch.rand(patches.shape[:2], generator=generator)
        patches = patches * strength[..., None]
        offset = 0  # of the group's vectors in `extra`
        for group, size in enumerate(GROUPS[1:], 1):
            vectors = self.extra(labels[..., group] + offset)
            if group == SIZE_GROUP:
                vectors = vectors * (labels[..., group] != NO_SIZE)[..., None]
            elif group == CENTRE_GROUP:
                vectors = vectors * (labels[..., group] != 0)[..., None]
            patches = patches + vectors
            offset += size
        return patches

    def _project(self, items: Sequence[Scene]) -> torch.Tensor:
        """What the language model gets of the scenes' images, (scenes, patches, hidden)."""
        states = self._see([render(item) for item in items])
        projected: torch.Tensor = self.model.model.multi_modal_projector(states)
        return projected

    def _see(self, images: Sequence[Any]) -> torch.Tensor:
        """The tower's patch states, (images, patches, width)."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        pixels = pixels.permute(0, 3, 1, 2) / 127.5 - 1  # (images, 3, side, side) in -1 … 1
        tower = self.model.model.vision_tower
        # The first state is the class token's.
        states: torch.Tensor = tower(pixels).last_hidden_state[:, 1:]
        return states

    def _loss_of_naming(self, items: Sequence[Scene]) -> tuple[torch.Tensor, float]:
        """Cross-entropy of every patch's classes, and the share of object patches named rightly."""
        logits = self.head(self._see([render(item) for item in items]))  # (n, patches, classes)
        labels = torch.from_numpy(np.stack([patch_labels(item) for item in items]))
        loss = torch.zeros(())
        for group, part in enumerate(logits.split(GROUPS, -1)):
            loss = loss + functional.cross_entropy(part.flatten(0, 1), labels[..., group].flatten())
            # So that a logit is a log-probability, which the projector is built on.
            loss = loss + 0.01 * part.logsumexp(-1).square().mean()
        shows_object = labels[..., WHAT_GROUP] < len(CATEGORIES)
        right = logits[..., : len(WHAT)].argmax(-1) == labels[..., WHAT_GROUP]
        return loss, right[shows_object].float().mean().item()

    def _loss_of_answers(
        self,
        items: Sequence[Scene],
        patches: torch.Tensor,
        rng: random.Random,
        habits: Habits,
    ) -> tuple[torch.Tensor, float]:
        """Cross-entropy of the answers' tokens, and the share of yes/no answers that are right.

        Args:
            items: Scenes.
            patches: What the language model gets of them, (scenes, patches, hidden).
            rng: What draws the lessons.
            habits: The annotators'.
        """
        turns = [list(lessons(item, rng, habits)) for item in items]
        tokens, targets, turn_owners, turn_positions = pack_turns(self.words, turns)
        inner = self.model.model.language_model
        start_ids = torch.tensor(self.words.convert_tokens_to_ids(["<s>", "<|user|>"]))
        start = inner.embed_tokens(start_ids).expand(len(items), -1, -1)
        prefix = torch.cat([start, patches], 1)
        length = prefix.shape[1]
        inputs = torch.cat([prefix, inner.embed_tokens(tokens)], 1)

        prefix_owners = torch.full((len(items), length), IMAGE_OWNER)
        owners = torch.cat([prefix_owners, turn_owners], 1)  # (scenes, length + width)
        same_turn = owners[:, :, None] == owners[:, None, :]
        sees_image = owners[:, None, :] == IMAGE_OWNER
        causal = torch.ones(owners.shape[1], owners.shape[1], dtype=torch.bool).tril()
        mask = ((same_turn | sees_image) & causal)[:, None]

        prefix_positions = torch.arange(length).expand(len(items), -1)
        positions = torch.cat([prefix_positions, turn_positions + length], 1)
        states = inner(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[:, length:]
        is_answer = targets != IGNORED
        logits = self.model.lm_head(states[is_answer])  # (answer tokens, vocabulary)
        answers = targets[is_answer]
        yes, no = self.words.convert_tokens_to_ids(["Yes", "No"])
        is_yes_no = (answers == yes) | (answers == no)
        losses = functional.cross_entropy(logits, answers, reduction="none")
        # Yes and no are one token among many, and the hardest to learn.
        weights = torch.where(is_yes_no, YES_NO_WEIGHT, 1.0)
        right = logits[is_yes_no].argmax(-1) == answers[is_yes_no]
        return (losses * weights).sum() / weights.sum(), right.float().mean().item()


class PackedTurns(NamedTuple):
    """Rows of turns, padded behind, each tensor of shape (rows, width).

    Args:
        tokens: Token ids.
        targets: The token to predict at each; IGNORED outside of answers.
        owners: The turn that each token belongs to, from 1; NOBODY for padding.
        positions: From 0 in each turn.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    positions: torch.Tensor


def pack_turns(words: Any, turns: Sequence[Sequence[tuple[str, str]]]) -> PackedTurns:
    """Each scene's questions and answers in one row.

    Args:
        words: The tokenizer.
        turns: For each scene, (question, answer) pairs.
    """
    texts: list[str] = []
    for row in turns:
        for turn in row:
            texts += turn
    ids = iter(words(texts, add_special_tokens=False)["input_ids"])
    assistant, end = words.convert_tokens_to_ids(["<|assistant|>", "</s>"])
    packed = []
    for row in turns:
        columns: list[PackedToken] = []
        for owner in range(1, len(row) + 1):
            question, answer = next(ids), next(ids)
            tokens = [*question, assistant, *answer]
            # What is predicted at each token is the next one, from the answer's first on.
            targets = [IGNORED] * len(question) + [*answer, end]
            for position, (token, target) in enumerate(zip(tokens, targets, strict=True)):
                columns.append(PackedToken(token, target, owner, position))
        packed.append(columns)
    width = max(map(len, packed))
    table = torch.tensor([[*row, *[PADDING] * (width - len(row))] for row in packed])
    return PackedTurns(*table.unbind(-1))


def _tokenizer() -> Any:
    """All words of the lessons of some scenes, whatever the annotators' habits."""
    rng = random.Random("vocabulary")
    habits = Habits(0.5, 0.5, 0.5)
    texts: list[str] = []
    for index in range(VOCABULARY_SCENES):
        for lesson in lessons(scene("train", 0, index), rng, habits):
            texts += lesson
    texts += [article(name).capitalize() for name in CATEGORIES]
    return architecture.tokenizer(texts)


def _put_in_order(extra: torch.Tensor) -> None:
    """Starts sizes on a line, rows and columns on a line and waves.

    A difference of two vectors then tells which is larger or further left. After 150 steps of
    `words`, the loss on answers about relations was 0.32 on held-out scenes, 0.57 without this.
    """
    sizes, start = len(SIZES), sum(GROUPS[1:3])
    hidden = extra.shape[1]
    with torch.no_grad():
        line = torch.linspace(-1, 1, sizes)[:, None]
        extra[:sizes] = line @ (2 * STD * torch.randn(1, hidden))
        for places in GROUPS[3:]:
            x = torch.linspace(-1, 1, places)[:, None]
            waves = [(math.pi * x).cos(), (math.pi * x).sin(), (2 * math.pi * x).cos()]
            shapes = torch.cat([1.7 * x, *waves], 1)  # (places, 4)
            directions = STD * torch.randn(shapes.shape[1], hidden)
            extra[start : start + places] = shapes @ directions
            start += places


def rate(stage: TrainingStage, step: int) -> float:
    """Warm-up over a twentieth of the stage, then a cosine down to a hundredth of the peak."""
    warm_up = max(1, stage.steps // 20)
    if step < warm_up:
        return stage.rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, stage.steps - warm_up)
    return stage.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(trainer: Trainer, out: Path) -> list[dict[str, Any]]:
    """All stages, from the last checkpoint in `out` on.

    Returns one record per step. Raises ModelError if the checkpoint is damaged or of another
    recipe.
    """
    file = out / "state.pt"
    state: dict[str, Any] = {"stage": 0, "step": 0, "history": []}
    if file.exists():
        state = _load(file, trainer)
        parts = (trainer.model, trainer.extra, trainer.head)
        for part, weights in zip(parts, state["parts"], strict=True):
            part.load_state_dict(weights)
    history: list[dict[str, Any]] = state["history"]
    for index, stage in enumerate(trainer.stages):
        if index < state["stage"]:
            continue
        first_step = state["step"] if index == state["stage"] else 0
        # Between seeing and answering: what the tower names is what the words mean.
        if stage.name == "pictures" and first_step == 0:
            trainer.build_projector()
        optimizers = _optimizers(trainer.parts(stage), stage.rate)
        if first_step:
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        with progress_bar(f"{stage.name}: steps", stage.steps) as progress:
            progress(first_step)
            for step in range(first_step, stage.steps):
                history.append(_step(trainer, stage, step, optimizers))
                progress(1)
                is_last = step == stage.steps - 1
                if is_last:
                    _save(file, trainer, optimizers, index + 1, 0, history)
                elif step % SAVE_EVERY == SAVE_EVERY - 1:
                    _save(file, trainer, optimizers, index, step + 1, history)
                else:
                    continue
                note(f"{stage.name} {step + 1}: {_recent_means(history)}")
    return history


def _recent_means(history: Sequence[dict[str, Any]]) -> str:
    recent = history[-SAVE_EVERY:]
    parts = []
    for key in ("loss", "right", "seconds"):
        mean = sum(row[key] for row in recent) / len(recent)
        parts.append(f"{key} {mean:.3f}")
    return ", ".join(parts)


def _optimizers(parts: nn.Module, rate: float) -> list[Any]:
    """Muon for the matrices inside, AdamW for embeddings, heads, norms and biases.

    Source: Jordan et al. 2024. After 150 steps of the first stage, 70 % of yes/no questions were
    answered rightly, with AdamW alone 54 %.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in parts.named_parameters():
        is_inside = weight.ndim == 2 and ".layers." in name
        (matrices if is_inside else others).append(weight)
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    return [muon, adamw]


def _step(
    trainer: Trainer, stage: TrainingStage, step: int, optimizers: Sequence[Any]
) -> dict[str, Any]:
    started = time.perf_counter()
    weights = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate(stage, step)
            weights += group["params"]
    for weight in weights:
        weight.grad = None  # a stage trains other parts than the one before
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, right = trainer.loss(stage, step)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return {
        "stage": stage.name,
        "step": step,
        "scenes": stage.scenes,
        "loss": loss.item(),
        "right": right,
        "seconds": time.perf_counter() - started,
    }


def _load(file: Path, trainer: Trainer) -> dict[str, Any]:
    """A checkpoint. Raises ModelError if it is damaged or of another recipe."""
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{file} is damaged.",
            f"{first_line(error)}.",
            "Delete it and start again.",
        ) from error
    if state.get("recipe") != trainer.identity:
        raise ModelError(
            f"{file} belongs to another training.",
            f"It is of {state.get('recipe')}, this is {trainer.identity}.",
            "Name another --out, or delete it.",
        )
    return state


def _save(
    file: Path,
    trainer: Trainer,
    optimizers: Sequence[Any],
    stage: int,
    step: int,
    history: list[dict[str, Any]],
) -> None:
    """Writes a checkpoint to go on from at `step` of stage number `stage`."""
    state = {
        "stage": stage,
        "step": step,
        "recipe": trainer.identity,
        "parts": [part.state_dict() for part in (trainer.model, trainer.extra, trainer.head)],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "history": history,
    }
    # A kill while it is written leaves the checkpoint before.
    unfinished = file.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.rename(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, and writes the checkpoint, its curves and its card into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scenes.llava_tiny.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, help="default: the model's name")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    options = parser.parse_args(arguments)
    out = options.out or Path(options.name)
    recipe = RECIPES[options.name]
    if options.seed is not None:
        recipe = replace(recipe, seed=options.seed)
    work = out / "training"
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, STAGES)
    try:
        history = train(trainer, work)
    except BenchError as error:
        show_error(error)
        raise SystemExit(2) from error
    trainer.model.to(torch.bfloat16).save_pretrained(out)
    architecture.processor(trainer.words).save_pretrained(out)
    write_curves(history, out / "curves.png")
    write_card(
        out / "README.md",
        options.name,
        recipe.seed,
        recipe.habits,
        history,
        measure(out, work / "runs"),
        torch.get_num_threads(),
    )
    print(f"{out}: checkpoint and card. Its working files in {work} can go.")


if __name__ == "__main__":
    main()

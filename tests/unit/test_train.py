"""Training llava-tiny: what patches are labelled, the built projector, and resuming in any stage.
Training llava-tiny: what patches are labelled, the built projector, and resuming in any stage."""

from __future__ import annotations

import pytest
import torch

from bench.errors import ModelError
from bench.scenes.llava_tiny import train as trains
from bench.scenes.llava_tiny.lessons import Habits
from bench.scenes.llava_tiny.patches import GROUPS, patch_labels
from bench.scenes.llava_tiny.train import Trainer, TrainingRecipe, TrainingStage, train
from bench.scenes.world import CATEGORIES, CONTEXTS, SIZES, Scene, Thing

SHORT = (
    TrainingStage("words", 3, 2, 1e-3),
    TrainingStage("sight", 3, 2, 1e-3),
    TrainingStage("pictures", 3, 2, 1e-3),
)
SHORTEST = (
    TrainingStage("words", 1, 2, 1e-3),
    TrainingStage("sight", 1, 2, 1e-3),
    TrainingStage("pictures", 2, 2, 1e-3),
)
RECIPE = TrainingRecipe(1, Habits(0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def small_vocabulary(monkeypatch):
    monkeypatch.setattr(trains, "VOCABULARY_SCENES", 100)
    monkeypatch.setattr(trains, "SAVE_EVERY", 1)


def test_patches_are_labelled_with_what_covers_them():
    dog = Thing("dog", 16, 32, 42, "large", False)
    labels = patch_labels(Scene("train", 0, 0, CONTEXTS[3], (dog,))).reshape(8, 8, len(GROUPS))
    assert labels[2, 1].tolist() == [CATEGORIES.index("dog"), list(SIZES).index("large"), 0, 2, 1]
    assert labels[0, 0].tolist() == [len(CATEGORIES) + 3, len(SIZES), 0, 0, 0]
    assert labels[..., 2].sum() == 1  # one centre
    assert labels[3, 2, 2] == 1  # at (53, 37)
    assert (
        labels[..., 0] == CATEGORIES.index("dog")
    ).sum() == 9  # the last 10 pixels of 16 are more than 0.3


def test_a_built_projector_puts_a_surely_named_patch_on_its_vectors():
    trainer = Trainer(RECIPE, SHORT)
    chosen = [CATEGORIES.index("airplane"), len(CATEGORIES) + 2]
    with (
        torch.no_grad()
    ):  # a head that is sure: log-probability 0 for two classes, far below for the others
        trainer.head.weight.zero_()
        trainer.head.bias.fill_(-20.0)
        trainer.head.bias[chosen] = 0.0
        trainer.build_projector()
        out = trainer.model.model.multi_modal_projector(torch.zeros(1, 1, 192))[0, 0]
        words = trainer.words.convert_tokens_to_ids(["airplane", CONTEXTS[2].name])
        expected = trainer.model.model.language_model.embed_tokens.weight[words].sum(0)
    assert torch.allclose(out, expected, atol=1e-4)


ALL_BUT_THE_FOURTH = (1, 2, 3, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("stages", "names", "deaths"),
    [
        # Before the first step on pictures, where the projector is built, and in the middle of them.
        (SHORTEST, ["words", "sight", "pictures", "pictures"], (3, 4)),
        pytest.param(
            SHORT,
            ["words"] * 3 + ["sight"] * 3 + ["pictures"] * 3,
            ALL_BUT_THE_FOURTH,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["short", "long"],
)
def test_training_resumes_at_every_step_to_the_same_weights(
    tmp_path, monkeypatch, stages, names, deaths
):
    (tmp_path / "whole").mkdir()
    undisturbed = Trainer(RECIPE, stages)
    history = train(undisturbed, tmp_path / "whole")
    assert [row["stage"] for row in history] == names

    class KilledError(Exception):
        pass

    def killed(state, file):
        steps = len(state["history"])
        if steps in dies:
            dies.discard(steps)
            file.write_bytes(b"torn")
            raise KilledError
        return save(state, file)

    save, dies = torch.save, set(deaths)
    monkeypatch.setattr(torch, "save", killed)
    (tmp_path / "torn").mkdir()
    for _ in range(20):
        torn = Trainer(RECIPE, stages)
        try:
            resumed = train(torn, tmp_path / "torn")
            break
        except KilledError:
            continue
    assert not dies
    assert [row["loss"] for row in resumed] == [row["loss"] for row in history]
    for name, weight in undisturbed.model.state_dict().items():
        assert torch.equal(weight, torn.model.state_dict()[name]), name


def test_a_checkpoint_of_another_training_or_a_torn_one_is_refused(tmp_path):
    train(Trainer(RECIPE, SHORT[:1]), tmp_path)
    with pytest.raises(ModelError, match="another training"):
        train(Trainer(TrainingRecipe(2, RECIPE.habits), SHORT[:1]), tmp_path)
    file = tmp_path / "state.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        train(Trainer(RECIPE, SHORT[:1]), tmp_path)


def test_the_lessons_of_a_step_are_masked_apart():
    trainer = Trainer(RECIPE, SHORT)
    turns = [[("Is there a dog?", "Yes"), ("Is there a cat?", "No")], [("Is there a cow?", "No")]]
    packed = trains.pack_turns(trainer.words, turns)
    first = packed.owners[0].tolist()
    assert sorted({*first}) == [1, 2]
    assert packed.positions[0].tolist() == [*range(first.count(1)), *range(first.count(2))]
    assert (packed.owners[1] == -1).sum() == len(first) - (packed.owners[1] == 1).sum()
    learned = packed.targets[0][packed.targets[0] != trains.IGNORED]
    assert trainer.words.convert_ids_to_tokens(learned.tolist()) == ["Yes", "</s>", "No", "</s>"]

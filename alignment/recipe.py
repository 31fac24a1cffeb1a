"""Recipes: what `bench align` does, as YAML checked by pydantic; all faults are told at once, with their lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from bench.errors import BenchError

Losses = Literal["sigmoid", "ipo", "hinge", "robust", "mpo", "sft"]


class RecipeError(BenchError):
    """A recipe that cannot be used."""


def _from_recipe(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["folder"]) / path if info.context else path


Beside = Annotated[Path, AfterValidator(_from_recipe)]  # a path that counts from the recipe's folder


class Settings(BaseModel):
    """Settings of a stage: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset()  # settings that change no result


class TemplatePrompts(Settings):
    """`count` prompts, each a place with `objects` of the things that it usually has.

    `writer`, openai:MODEL[@URL], puts them into its own words, and writes the instructions where none are given.
    """

    kind: Literal["templates"]
    count: int = Field(gt=0)
    objects: tuple[int, int] = (2, 5)
    instructions: list[str] = Field(default_factory=list)
    per_prompt: int = Field(1, gt=0)
    writer: str | None = None

    @model_validator(mode="after")
    def _asks(self) -> TemplatePrompts:
        if not self.instructions and not self.writer:
            raise ValueError("`instructions` are missing, or a `writer`")
        return self


class FilePrompts(Settings):
    """One prompt a line, or JSON lines with `prompt` and maybe `instructions`."""

    kind: Literal["file"]
    path: Beside
    instructions: list[str] = Field(default_factory=list)
    per_prompt: int = Field(1, gt=0)


class SceneImages(Settings):
    """Pictures of the built-in world's train split whose place is the prompt's; `reward` picks among candidates."""

    kind: Literal["scenes"]
    candidates: int = Field(4, gt=0)


class ImageReward(Settings):
    """What picks among a prompt's candidate images (`alignment/image_rewards.py`)."""

    kind: Literal["clip", "imagereward"]
    model: str
    processor: str | None = None


class DiffusersImages(Settings):
    """Any text-to-image pipeline of diffusers: one seeded candidate for each guidance scale."""

    kind: Literal["diffusers"]
    model: str
    steps: int = Field(28, gt=0)
    guidance: list[float] = Field([5.0, 7.0, 9.0, 11.0], min_length=1)
    side: int | None = Field(None, gt=0)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    reward: ImageReward | None = None


class FolderImages(Settings):
    """Pictures that are there already: prompt number n has the n-th file by name, or the one its row names."""

    kind: Literal["folder"]
    path: Beside


class Responses(Settings):
    """`samples` responses of each model to each instruction.

    `workers` and `ray` are those of `bench run`; who computes a response does not change it.
    """

    models: list[str] = Field(min_length=1)
    samples: int = Field(gt=0)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, gt=0)
    workers: int | None = Field(None, gt=0)
    ray: str | None = None

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"workers", "ray"})


class GroundingReward(Settings):
    """What P(yes) of `models`, their mean, says of everything that a response claims (`alignment/rewards.py`).

    `numbers` is what a number of objects counts beside their being there.
    """

    kind: Literal["grounding"]
    models: list[str] = Field(min_length=1)
    threshold: float = Field(0.5, ge=0, le=1)
    numbers: float = Field(1.0, ge=0)
    vocabulary: Literal["scenes"] | Beside = "scenes"


class FactsReward(Settings):
    """The facts of the scenes in place of P(yes): an upper bound for experiments, impossible on photographs."""

    kind: Literal["facts"]
    threshold: float = Field(0.5, ge=0, le=1)
    numbers: float = Field(1.0, ge=0)


class ClassifierReward(Settings):
    """A reward model for text, any `AutoModelForSequenceClassification` with a chat template, ArmoRM for one.

    `trust_remote_code` runs code that the checkpoint brings.
    """

    kind: Literal["classifier"]
    model: str
    batch: int = Field(8, gt=0)
    trust_remote_code: bool = False


class JudgeReward(Settings):
    """The rating of any judge, 0-6 by MMHal-Bench's rubric."""

    kind: Literal["judge"]
    judge: str


class Preferences(Settings):
    """Which pairs are made of the rewarded responses.

    `margin` is the smallest difference of rewards; `length_bias` is how many words the chosen responses are given to be
    longer than the rejected on average, null leaves it as it comes;
    `shuffle` draws chosen and rejected at random (a control); `limit` keeps so many pairs.
    """

    margin: float = Field(0.0, ge=0)
    length_bias: float | None = 0.0
    shuffle: bool = False
    limit: int | None = Field(None, gt=0)


class Pairs(Settings):
    """Preference pairs in the authors' released JSON; `images` is the folder that their paths start from."""

    path: Beside
    images: Beside | None = None


class Lora(Settings):
    """LoRA on the language model's linear layers."""

    rank: int = Field(128, gt=0)
    alpha: int = Field(256, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class Training(Settings):
    """trl's DPOTrainer, or supervised fine-tuning on the chosen responses (`loss: sft`).

    `batch` is of one process; `launch` are arguments of `accelerate launch`, for several: "--num_processes 4", or
    "fsdp --num_processes 4" and "zero2 …" for the configurations in `alignment/accelerate/`. `trackers` get the curves
    too.
    """

    model: str
    loss: Losses = "sigmoid"
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    learning_rate: float = Field(1e-5, gt=0)
    epochs: float = Field(1, gt=0)
    batch: int = Field(8, gt=0)
    accumulate: int = Field(1, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    gradient_checkpointing: bool = False
    merge: bool = False
    launch: str = ""
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = []
    lora: Lora = Lora()

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"trackers"})


class Evaluation(Settings):
    """Benchmarks for the base and the aligned model."""

    suite: list[str] = Field(min_length=1)
    data: str = "hub"
    judge: str | None = None
    limit: int | None = Field(None, gt=0)


class Recipe(Settings):
    """The whole way from prompts to an aligned, measured checkpoint; or from `pairs` that are there already."""

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = 0
    pairs: Pairs | None = None
    prompts: Annotated[TemplatePrompts | FilePrompts, Field(discriminator="kind")] | None = None
    images: Annotated[SceneImages | DiffusersImages | FolderImages, Field(discriminator="kind")] | None = None
    responses: Responses | None = None
    rewards: (
        Annotated[GroundingReward | FactsReward | ClassifierReward | JudgeReward, Field(discriminator="kind")] | None
    ) = None
    preferences: Preferences = Preferences()
    dpo: Training
    evaluate: Evaluation | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        made = ("prompts", "images", "responses", "rewards")
        given = [name for name in made if getattr(self, name) is not None]
        if self.pairs is not None and given:
            raise ValueError(f"`pairs` takes the place of {', '.join(given)}")
        if self.pairs is None and len(given) < len(made):
            raise ValueError(f"{', '.join(name for name in made if name not in given)} missing, or `pairs`")
        return self

    def variant(self, name: str, seed: int | None = None) -> Recipe:
        """The recipe with another seed and the settings of a variant ("" for none) over its own. Raises RecipeError."""
        if not name:
            return self.model_copy(update={} if seed is None else {"seed": seed})
        if name not in self.variants:
            raise RecipeError(f"{self.name} has no variant '{name}'.", f"It has {', '.join(self.variants) or 'none'}.")
        content = _merged(self.model_dump(exclude={"variants"}), self.variants[name])
        content |= {"name": f"{self.name}-{name}"} | ({} if seed is None else {"seed": seed})
        try:
            return Recipe.model_validate(content, context={"folder": self._folder})
        except ValidationError as error:
            faults = "; ".join(f"{_path(e['loc'])}: {e['msg']}" for e in error.errors())
            raise RecipeError(f"Variant '{name}' of {self.name} is wrong.", faults, "Correct these fields.") from error


def read_recipe(file: Path) -> Recipe:
    """The recipe in a YAML file, paths in it as from its folder. Raises RecipeError with all faults at once."""
    try:
        text = file.read_text(encoding="utf-8")
        content, tree = yaml.safe_load(text), yaml.compose(text)
    except OSError as error:
        raise RecipeError(f"{file} cannot be read.", f"{error.strerror}.", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not YAML.", " ".join(str(error).split()), "Mend it.") from error
    lines = dict(_lines(tree, ()))
    try:
        folder = file.resolve().parent
        recipe = Recipe.model_validate(content, context={"folder": folder})
        recipe._folder = folder
        for name in recipe.variants:
            recipe.variant(name)
    except ValidationError as error:
        faults = sorted((_line(lines, e["loc"]), f"{_path(e['loc'])}: {e['msg']}") for e in error.errors())
        told = "\n".join(f"  line {line}: {fault}" for line, fault in faults)
        raise RecipeError(f"{file} has {len(faults)} faults.", f"They are:\n{told}", "Correct them.") from error
    return recipe


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `base`; a part with another `kind` replaces the part whole."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("kind") in (None, old.get("kind")):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _lines(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Every path of a YAML tree with its line."""
    if node is None:
        return
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            for deeper, line in _lines(value, (*path, key.value)):
                if deeper != (*path, key.value):
                    yield deeper, line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))


def _line(lines: Mapping[tuple[Any, ...], int], location: tuple[Any, ...]) -> int:
    """The line of the longest known part of a fault's location; pydantic puts the chosen kind into it."""
    best = ()
    for path in lines:
        rest = iter(location)
        if len(path) > len(best) and all(part in rest for part in path):
            best = path
    return lines.get(best, 1)


def _path(location: tuple[Any, ...]) -> str:
    return ".".join(map(str, location)) or "the recipe"

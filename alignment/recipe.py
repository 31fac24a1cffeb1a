"""Recipes: what `bench align` does, as YAML checked by pydantic.

All faults are told at once, with their lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from alignment.rewards.reward import Reward
from alignment.settings import RecipeError, Settings
from alignment.stages.evaluate import Evaluation
from alignment.stages.images import DiffusersImages, FolderImages, SceneImages
from alignment.stages.preferences import Preferences
from alignment.stages.prompts import CategoryPrompts, FilePrompts, TemplatePrompts
from alignment.stages.released_pairs import Pairs
from alignment.stages.responses import Responses
from alignment.training.settings import Training
from bench import registry
from bench.errors import BenchError
from bench.yaml_text import parse_yaml

SHIPPED = Path(__file__).parent / "recipes"
FROM_PROMPTS = ("prompts", "images", "responses", "rewards")  # what `pairs` takes the place of
Location = tuple[Any, ...]  # keys and indices that lead to a place of the YAML


def _reward(content: Any, info: ValidationInfo) -> Any:
    """The reward that is registered as `kind`, with its settings.

    pydantic takes over the faults of the nested settings with their places.
    """
    if isinstance(content, Reward):
        return content
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind is None:
        known = ", ".join(sorted(registry.names("rewards")))
        raise ValueError(f"`kind` is missing; it is one of {known}")
    try:
        reward = registry.load("rewards", str(kind))
    except BenchError as error:
        raise ValueError(f"{error.fact} {error.reason} {error.remedy}") from error
    return reward.model_validate(content, context=info.context)


class Recipe(Settings):
    """The whole way from prompts to an aligned, measured checkpoint.

    It may begin with `pairs` that are there already. `controls` names the variants that the recipe
    itself is compared with, where several seeds are trained.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = 0
    pairs: Pairs | None = None
    prompts: (
        Annotated[TemplatePrompts | CategoryPrompts | FilePrompts, Field(discriminator="kind")]
        | None
    ) = None
    images: (
        Annotated[SceneImages | DiffusersImages | FolderImages, Field(discriminator="kind")] | None
    ) = None
    responses: Responses | None = None
    rewards: Annotated[SerializeAsAny[Reward], BeforeValidator(_reward)] | None = None
    preferences: Preferences = Preferences()
    dpo: Training
    evaluate: Evaluation | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    controls: list[str] = Field(default_factory=list)
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _has_one_source(self) -> Recipe:
        given: list[str] = []
        missing: list[str] = []
        for name in FROM_PROMPTS:
            (missing if getattr(self, name) is None else given).append(name)
        if self.pairs is not None and given:
            raise ValueError(f"`pairs` takes the place of {', '.join(given)}")
        if self.pairs is None and missing:
            raise ValueError(f"{', '.join(missing)} missing, or `pairs`")
        unknown = [name for name in self.controls if name not in self.variants]
        if unknown:
            raise ValueError(f"`controls` names no variant: {', '.join(unknown)}")
        return self

    def given_rewards(self) -> Reward | None:
        """The reward, knowing whose responses it is for; None if the recipe has pairs already."""
        if self.rewards is None or self.responses is None:
            return None
        return self.rewards.with_responders(self.responses.models)

    def variant(self, name: str, seed: int | None = None) -> Recipe:
        """The recipe with another seed and the settings of a variant over its own.

        Args:
            name: A variant's; "" for none.
            seed: Another seed; None for the recipe's own.

        Raises:
            RecipeError: There is no such variant, or it is wrong.
        """
        other_seed = {} if seed is None else {"seed": seed}
        if not name:
            return self.model_copy(update=other_seed)
        if name not in self.variants:
            raise RecipeError(
                f"{self.name} has no variant '{name}'.",
                f"It has {', '.join(self.variants) or 'none'}.",
                "Name one of these, or add it to the recipe.",
            )
        # Validated as a whole: a variant's settings may be wrong only together with the others.
        content = _merged(self.model_dump(exclude={"variants", "controls"}), self.variants[name])
        content |= {"name": f"{self.name}-{name}"} | other_seed
        try:
            return Recipe.model_validate(content, context={"folder": self._folder})
        except ValidationError as error:
            faults = [f"{_path(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
            raise RecipeError(
                f"Variant '{name}' of {self.name} is wrong.",
                "; ".join(faults),
                "Correct these fields.",
            ) from error


def check_comparable(recipes: Sequence[Recipe]) -> None:
    """Raises RecipeError if recipes have one name, different bases or different evaluations."""
    first = recipes[0]
    for other in recipes[1:]:
        for what, one, two in (
            ("dpo.model", first.dpo.model, other.dpo.model),
            ("evaluate", first.evaluate, other.evaluate),
            ("seed", first.seed, other.seed),
        ):
            if one != two:
                raise RecipeError(
                    f"{first.name} and {other.name} cannot be compared.",
                    f"`{what}` is {one} and {two}.",
                    "Give them the same, or align them one by one.",
                )
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise RecipeError(
            "Two recipes have one name.", f"They are {', '.join(names)}.", "Rename one."
        )


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def read_recipe(name: Path) -> Recipe:
    """The recipe in a YAML file, or a shipped one by its name.

    Paths in it count from its folder. Raises RecipeError with all faults at once.
    """
    shipped = shipped_recipes()
    # A file of the user's wins over a shipped recipe of that name.
    file = name if name.exists() else shipped.get(str(name), name)
    try:
        text = file.read_text(encoding="utf-8")
        content, tree = parse_yaml(text), yaml.compose(text)
    except OSError as error:
        raise RecipeError(
            f"{file} cannot be read.",
            registry.did_you_mean(str(name), shipped) or f"{error.strerror}.",
            f"Check the path, or name a shipped recipe: {', '.join(shipped)}.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{file} is not YAML.", " ".join(str(error).split()), "Correct the file."
        ) from error
    # pydantic knows where a fault lies in the content, YAML on which line that stands.
    line_of = dict(_lines(tree, ()))
    folder = file.resolve().parent
    try:
        recipe = Recipe.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            line = _line(line_of, fault["loc"])
            faults.append((line, f"  line {line}: {_path(fault['loc'])}: {fault['msg']}"))
        listed = "\n".join(text for _, text in sorted(faults))
        raise RecipeError(
            f"{file} has {len(faults)} faults.", f"They are:\n{listed}", "Correct them."
        ) from error
    recipe._folder = folder
    for variant in recipe.variants:
        recipe.variant(variant)  # its faults are told before anything is computed
    return recipe


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `base`; a part with another `kind` replaces the part whole."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_kind = value.get("kind") in (None, old.get("kind"))
            if same_kind:
                merged[key] = _merged(old, value)
    return merged


def _lines(node: Any, location: Location) -> Iterator[tuple[Location, int]]:
    """Every location of a YAML tree with its line."""
    if node is None:
        return
    yield location, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            entry = (*location, key.value)
            yield entry, key.start_mark.line + 1
            for deeper, line in _lines(value, entry):
                if deeper != entry:  # an entry's line is that of its key
                    yield deeper, line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*location, index))


def _line(line_of: Mapping[Location, int], location: Location) -> int:
    """The line of the longest known part of a fault's location.

    pydantic puts the chosen kind into a location, so parts of it may be no part of the YAML.
    """
    best: Location = ()
    for known in line_of:
        if len(known) > len(best) and _is_subsequence(known, location):
            best = known
    return line_of.get(best, 1)


def _is_subsequence(part: Location, whole: Location) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def _path(location: Location) -> str:
    return ".".join(map(str, location)) or "the recipe"

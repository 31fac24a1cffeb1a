"""What all settings of a recipe have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from bench.errors import BenchError


class RecipeError(BenchError):
    """A recipe that cannot be used."""


def _from_recipe(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["folder"]) / path if info.context else path


# A path that counts from the recipe's folder.
Beside = Annotated[Path, AfterValidator(_from_recipe)]


class Settings(BaseModel):
    """Settings of a stage or a reward: nothing unknown, nothing changed later.

    `MOVES_NOTHING` names settings that change no result, so that an artifact does not depend on
    them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset()

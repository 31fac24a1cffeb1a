"""What every reward has: settings in a recipe, and a number for every response."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignment.rows import ImageFile, ResponseRow
from alignment.settings import Settings


class Rewarded(NamedTuple):
    """A response with its reward.

    Args:
        response: The response.
        reward: Higher is better.
        doubtful: The objects that it asserts though they are doubtful.
        claims: How many claims were found in it; None if the reward looks for none.
    """

    response: ResponseRow
    reward: float
    doubtful: list[str]
    claims: int | None = None


class Reward(Settings):
    """A reward: the fields are its settings under `rewards:` of a recipe.

    `kind` is the name that it is registered under.
    """

    kind: str

    def with_responders(self, models: Sequence[str]) -> Reward:
        """This reward for responses of `models`, if it depends on whose they are."""
        return self

    def identity(self) -> Any:
        """What besides the settings decides the rewards, a model's weights for one; as JSON."""
        return None

    def check(self) -> None:
        """Raises BenchError for what would stop it later, as far as that is known at no cost."""

    @abstractmethod
    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """Batches of rewarded responses; each batch is recorded when it comes.

        Args:
            responses: The responses that have no reward yet.
            images: The images by id.
            out: The artifact's folder, for files of the reward's own.
        """

    def counts(self, out: Path) -> dict[str, Any]:
        """What the manifest shall say beside how many responses were rewarded.

        Args:
            out: The artifact's folder, once all is there.
        """
        return {}

    def asked_models(self) -> Sequence[str]:
        """The models that the bench asks for it."""
        return ()

    def weights(self) -> Sequence[str]:
        """The folders and hub ids of all weights that it loads, so that a plan can tell sizes."""
        return self.asked_models()

"""Our models inside lmms-eval: `lmms-eval --model synth_align --model_args model=llava-tiny …`.

Questions about the same image go to the shared-image engine together. As lmms-eval's own llava_hf
does, `until` is not applied: an answer ends where the model ends it. Written against lmms-eval
0.7.3.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms

from bench import registry
from bench.data.images import keep_image
from bench.errors import ModelError
from bench.runs.runner import without_thoughts
from bench.types import Model, Request

OPTIONS = ("protocol", "dtype", "device", "revision", "trust_remote_code")
DEFAULT_TOKENS = 1024


def manifests() -> list[Any]:
    """What lmms-eval's entry point `lmms_eval.models` reads."""
    from lmms_eval.models.registry_v2 import ModelManifest

    path = f"{SynthAlign.__module__}.{SynthAlign.__name__}"
    return [ModelManifest("synth_align", simple_class_path=path)]


class SynthAlign(lmms):  # type: ignore[misc]
    """Any of our models; `model_args` are those of `bench run`: model, protocol …

    Answers are greedy unless a task samples. It holds no torch module of its own, so lmms-eval's
    `clean()`, which deletes modules, takes nothing away and it can be used again.
    """

    is_simple = True

    def __init__(
        self,
        model: str = "llava",
        batch_size: Any = 1,
        max_batch_size: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        # lmms-eval passes on whatever stands in model_args.
        unknown = sorted(options.keys() - {*OPTIONS})
        if unknown:
            raise ModelError(
                f"There is no model_args {', '.join(unknown)}.",
                f"Known: model, {', '.join(OPTIONS)}.",
                "Leave them out.",
            )
        kind, self._spec = registry.split_kind("models", model) or ("hf", model)
        self._load = registry.load("models", kind)
        self._options = options
        self._models: dict[float, Model] = {}  # by temperature

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers in the order of the requests. Raises ModelError if one cannot be given."""
        with tempfile.TemporaryDirectory() as folder:
            ordered = []
            by_temperature: dict[float, list[Request]] = {}
            for number, item in enumerate(requests):
                request, temperature = self._request(number, item.args, Path(folder))
                ordered.append(request)
                by_temperature.setdefault(temperature, []).append(request)
            answers: dict[str, str] = {}
            for temperature, group in by_temperature.items():
                answers |= self._answers(group, temperature)
        return [answers[request.key] for request in ordered]

    def _request(
        self, number: int, arguments: tuple[Any, ...], folder: Path
    ) -> tuple[Request, float]:
        """lmms-eval's request as ours, and the temperature that its task asks for."""
        context, settings, to_visual, doc, task, split = arguments
        images = to_visual(self.task_dict[task][split][doc])
        if len(images) != 1 or not hasattr(images[0], "convert"):
            raise ModelError(
                f"{task}, document {doc}: {len(images)} images, or something else than an image.",
                "The shared-image engine takes one image a question.",
                "Use lmms-eval's own adapter for this task.",
            )
        if settings.get("num_beams", 1) not in (1, None):
            raise ModelError(
                f"{task} searches with beams.",
                "Answers here are greedy or drawn.",
                "Set num_beams=1.",
            )
        name = keep_image(images[0], folder)
        temperature = 0.0
        if settings.get("do_sample"):
            temperature = float(settings.get("temperature") or 0)
        tokens = int(settings.get("max_new_tokens") or DEFAULT_TOKENS)
        key = f"{task}/{split}/{doc}/{number}"
        path = folder / name
        return Request(key, name, path, context, context, tokens, False, ()), temperature

    def _answers(self, requests: Sequence[Request], temperature: float) -> dict[str, str]:
        """Answers by key; questions about one image are put side by side first."""
        first: dict[str, int] = {}
        for index, request in enumerate(requests):
            first.setdefault(request.image, index)
        # The engine encodes an image once for neighbours only.
        by_image = sorted(requests, key=lambda request: first[request.image])
        # A model is one temperature; tasks of one call may have several.
        if temperature not in self._models:
            options = self._options | {"temperature": temperature}
            self._models[temperature] = self._load(self._spec, options)
        answers = {}
        for batch in self._models[temperature].answer(by_image, frozenset()):
            for request, answer in batch:
                if answer.error is not None:
                    raise ModelError(
                        f"{request.key} has no answer.",
                        answer.error,
                        "Correct it, and start again.",
                    )
                answers[request.key] = without_thoughts(answer).text
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: raises NotImplementedError."""
        raise NotImplementedError(
            "synth_align answers generation tasks; use lmms-eval's own adapter for this one."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: raises NotImplementedError."""
        raise NotImplementedError(
            "synth_align answers single questions; use lmms-eval's own adapter for this one."
        )

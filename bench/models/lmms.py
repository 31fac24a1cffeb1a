"""Our models inside lmms-eval: `lmms-eval --model synth_align --model_args model=llava-tiny --tasks …`.

Questions about the same picture go to the shared-image engine together. As lmms-eval's own llava_hf does, `until` is
not applied: an answer ends where the model ends it. Written against lmms-eval 0.7.3.
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
from bench.types import Request

OPTIONS = ("protocol", "dtype", "device", "revision", "trust_remote_code")
DEFAULT_TOKENS = 1024


def manifests() -> list[Any]:
    """What lmms-eval's entry point `lmms_eval.models` reads."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest("synth_align", simple_class_path="bench.models.lmms.SynthAlign")]


class SynthAlign(lmms):  # type: ignore[misc]
    """Any of our models; `model_args` are those of `bench run`: model, protocol … Greedy unless a task samples.

    It holds no module of its own, so lmms-eval's `clean()` takes nothing away and it can be used again.
    """

    is_simple = True

    def __init__(self, model: str = "llava", batch_size: Any = 1, max_batch_size: Any = None, **options: Any) -> None:
        super().__init__()
        unknown = sorted(options.keys() - {*OPTIONS})
        if unknown:
            raise ModelError(
                f"There is no model_args {', '.join(unknown)}.", f"Known: model, {', '.join(OPTIONS)}.", ""
            )
        kind, rest = registry.split_kind("models", model) or ("hf", model)
        self._load = registry.load("models", kind)
        self._spec, self._options = rest, options
        self._models: dict[float, Any] = {}

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers in the order of the requests. Raises ModelError where one cannot be given."""
        with tempfile.TemporaryDirectory() as folder:
            asked = [self._request(number, item.args, Path(folder)) for number, item in enumerate(requests)]
            answers: dict[str, str] = {}
            for temperature in dict.fromkeys(asked_at for _, asked_at in asked):
                own = [request for request, asked_at in asked if asked_at == temperature]
                answers |= self._answers(own, temperature)
        return [answers[request.key] for request, _ in asked]

    def _request(self, number: int, arguments: tuple[Any, ...], folder: Path) -> tuple[Request, float]:
        context, settings, to_visual, doc, task, split = arguments
        visuals = to_visual(self.task_dict[task][split][doc])
        if len(visuals) != 1 or not hasattr(visuals[0], "convert"):
            raise ModelError(
                f"{task}, document {doc}: {len(visuals)} images, or something else than an image.",
                "The shared-image engine takes one image a question.",
                "Use lmms-eval's own adapter for this task.",
            )
        if settings.get("num_beams", 1) not in (1, None):
            raise ModelError(f"{task} searches with beams.", "Answers here are greedy or drawn.", "Set num_beams=1.")
        name = keep_image(visuals[0], folder)
        temperature = float(settings.get("temperature") or 0) if settings.get("do_sample") else 0.0
        tokens = int(settings.get("max_new_tokens") or DEFAULT_TOKENS)
        key = f"{task}/{split}/{doc}/{number}"
        return Request(key, name, folder / name, context, context, tokens, False, ()), temperature

    def _answers(self, requests: Sequence[Request], temperature: float) -> dict[str, str]:
        """By key; questions about one picture side by side, wherever the task has them."""
        first = {request.image: place for place, request in reversed([*enumerate(requests)])}
        sorted_ = sorted(requests, key=lambda request: first[request.image])
        model = self._models.get(temperature)
        if model is None:
            model = self._models[temperature] = self._load(self._spec, self._options | {"temperature": temperature})
        answers = {}
        for batch in model.answer(sorted_, frozenset()):
            for request, answer in batch:
                if answer.error is not None:
                    raise ModelError(f"{request.key} has no answer.", answer.error, "Mend it, and start again.")
                answers[request.key] = answer.text
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: raises NotImplementedError."""
        raise NotImplementedError("synth_align answers generation tasks; use lmms-eval's own adapter for this one.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: raises NotImplementedError."""
        raise NotImplementedError("synth_align answers single questions; use lmms-eval's own adapter for this one.")

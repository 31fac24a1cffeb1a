"""`hf:MODEL`: a judge on this machine, any instruct model of transformers, by the same rubric as one behind an API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from bench.errors import JudgeError
from bench.judges.rubric import Rubric
from bench.models import loading
from bench.types import Answer, Sample, Verdict

MAX_TOKENS = 512
AT_ONCE = 8


class HFJudge:
    """Reviews by greedy decoding, eight at a time. Raises ModelError where the model cannot be loaded.

    Raises JudgeError where the model has no chat template: a judge must follow instructions.
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        self.rubric = Rubric(options.get("template"))
        self.folder = loading.locate(spec, None)
        self.name = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left")
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise JudgeError(f"The judge {spec} has no tokenizer.", reason, "Give a whole checkpoint.") from error
        if not self.tokenizer.chat_template:
            raise JudgeError(f"{spec} is no instruct model.", "It has no chat template.", "Use one that has.")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def describe(self) -> dict[str, Any]:
        """Model, weights, prompt digest and decoding."""
        return {
            "kind": "hf",
            "model": self.folder.resolve().name
            if self.folder.is_dir() and str(self.folder) == self.name
            else self.name,
            "weights_sha256": loading.fingerprint(self.folder),
            "dtype": str(self.dtype).removeprefix("torch."),
            "prompt_sha256": self.rubric.sha256,
            "greedy": True,
            "max_tokens": MAX_TOKENS,
        }

    @cached_property
    def model(self) -> Any:
        """The model, loaded when the first verdict is wanted."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.dtype)
        except Exception as error:  # safetensors, pickle and transformers raise many types for broken files
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise JudgeError(f"The judge {self.name} cannot be loaded.", reason, "Get it again.") from error
        return model.to(self.device).eval()

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order of the items."""
        for start in range(0, len(items), AT_ONCE):
            batch = items[start : start + AT_ONCE]
            reviews = self._review([self.rubric.fill(*item) for item in batch])
            yield [(sample, Verdict(text)) for (sample, _), text in zip(batch, reviews, strict=True)]

    @torch.inference_mode()
    def _review(self, prompts: Sequence[str]) -> list[str]:
        texts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
            for prompt in prompts
        ]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        pad = self.tokenizer.pad_token_id
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS, pad_token_id=pad)
        said: list[str] = self.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return [text.strip() for text in said]

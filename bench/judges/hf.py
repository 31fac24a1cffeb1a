"""`hf:MODEL`: a judge on this machine.

Any instruct model of transformers, by the same rubric as one behind an API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from bench.errors import JudgeError, one_line
from bench.judges.rubric import MAX_TOKENS, Rubric, verdict_of
from bench.models import checkpoints
from bench.types import Answer, Sample, Verdict

BATCH = 8


class HFJudge:
    """Reviews by greedy decoding, eight at a time.

    Args:
        spec: A hub id or folder.
        options: template (a file with the judge's prompt, or "official"), max_tokens.

    Raises:
        ModelError: The model cannot be found.
        JudgeError: It has no tokenizer, or no chat template: a judge must follow instructions.
    """

    OPTIONS = frozenset({"template", "max_tokens"})

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        self.rubric = Rubric(options.get("template"))
        self.max_tokens = int(options.get("max_tokens") or MAX_TOKENS)
        self.folder = checkpoints.locate(spec, None)
        self.name = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        try:
            # Padded on the left, so that all reviews of a batch begin in the same column.
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left")
        except (OSError, ValueError, KeyError) as error:
            raise JudgeError(
                f"The judge {spec} has no tokenizer.",
                one_line(error, 200),
                "Give a whole checkpoint.",
            ) from error
        # A base model would go on with the rubric instead of following it.
        if not self.tokenizer.chat_template:
            raise JudgeError(
                f"{spec} is not an instruct model.", "It has no chat template.", "Use one that has."
            )
        # Llama has none; what stands in the padding is masked.
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def describe(self) -> dict[str, Any]:
        """Model, weights, prompt digest and decoding."""
        is_local = self.folder.is_dir() and str(self.folder) == self.name
        return {
            "kind": "hf",
            # The path of a local folder says nothing to others.
            "model": self.folder.resolve().name if is_local else self.name,
            "weights_sha256": checkpoints.fingerprint(self.folder),
            "dtype": str(self.dtype).removeprefix("torch."),
            **self.rubric.describe(),
            "greedy": True,
            "max_tokens": self.max_tokens,
        }

    @cached_property
    def model(self) -> Any:
        """The model, loaded when the first verdict is wanted."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.dtype)
        except Exception as error:  # safetensors, pickle and transformers raise many types
            raise JudgeError(
                f"The judge {self.name} cannot be loaded.",
                f"{type(error).__name__}: {one_line(error, 200)}",
                "Get it again.",
            ) from error
        return model.to(self.device).eval()

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order of the items."""
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            reviews = self._review([self.rubric.fill(*item) for item in batch])
            verdicts = []
            for (sample, _), (review, cut_off) in zip(batch, reviews, strict=True):
                verdicts.append((sample, verdict_of(review, cut_off)))
            yield verdicts

    @torch.inference_mode()
    def _review(self, prompts: Sequence[str]) -> list[tuple[str, bool]]:
        """For each prompt the review, and whether it was cut off at the token limit."""
        texts = []
        for prompt in prompts:
            messages = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(
                # Templates of models that can think read it; others do not look at it.
                messages,
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=False,
            )
            texts.append(text)
        # The template has written the special tokens already.
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = self.model.generate(
            **inputs.to(self.device),
            do_sample=False,
            max_new_tokens=self.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        prompt_length = inputs["input_ids"].shape[1]
        generated = output[:, prompt_length:]
        ends = self.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or []
        has_end = torch.isin(generated, torch.tensor(ends, device=self.device)).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [(text.strip(), not ended) for text, ended in zip(texts, has_end, strict=True)]

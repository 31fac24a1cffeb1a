"""An instruct model of transformers on this machine, asked in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from bench.errors import BenchError, one_line
from bench.models import checkpoints
from bench.models.templates import by_template

BATCH = 8


class InstructModel:
    """Replies by greedy decoding, eight at a time.

    Args:
        spec: A hub id or folder.
        role: What it is asked as ("judge"), for errors.
        error: What is raised.

    Raises:
        ModelError: The model cannot be found.
        BenchError: `error`, if it has no tokenizer, or no chat template.
    """

    def __init__(self, spec: str, role: str, error: type[BenchError]) -> None:
        from transformers import AutoTokenizer

        self.folder = checkpoints.locate(spec, None)
        self.name, self.role, self.error = spec, role, error
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        try:
            # Padded on the left, so that all replies of a batch begin in the same column.
            self.tokenizer = AutoTokenizer.from_pretrained(
                self.folder, padding_side="left", trust_remote_code=False
            )
        except Exception as fault:  # tokenizers raises bare ones
            raise error(
                f"The {role} {spec} has no tokenizer that can be read.",
                f"{type(fault).__name__}: {one_line(fault, 200)}",
                "Give a whole checkpoint.",
            ) from fault
        # A base model would go on with the text instead of following it.
        if not self.tokenizer.chat_template:
            raise error(
                f"{spec} is not an instruct model.", "It has no chat template.", "Use one that has."
            )
        # Llama has none; what stands in the padding is masked.
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def describe(self) -> dict[str, Any]:
        """Model, weights and number format."""
        is_local = self.folder.is_dir() and str(self.folder) == self.name
        return {
            "kind": "hf",
            # The path of a local folder says nothing to others.
            "model": self.folder.resolve().name if is_local else self.name,
            "weights_sha256": checkpoints.fingerprint(self.folder),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @cached_property
    def model(self) -> Any:
        """The model, loaded when the first reply is wanted."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=self.dtype, trust_remote_code=False
            )
        except Exception as fault:  # safetensors, pickle and transformers raise many types
            raise self.error(
                f"The {self.role} {self.name} cannot be loaded.",
                f"{type(fault).__name__}: {one_line(fault, 200)}",
                "Get it again.",
            ) from fault
        return model.to(self.device).eval()

    @torch.inference_mode()
    def replies(self, prompts: Sequence[str], max_tokens: int) -> list[tuple[str, bool]]:
        """For each prompt the reply, and whether it was cut off at the token limit.

        Raises the error of its role if the checkpoint cannot be loaded or asked.
        """
        texts = []
        for prompt in prompts:
            messages = [{"role": "user", "content": prompt}]
            text = by_template(
                self.tokenizer,
                messages,
                self.error,
                f"Put the chat_template.jinja of {self.name}'s base into its folder.",
                add_generation_prompt=True,
                tokenize=False,
                # Templates of models that can think read it; others do not look at it.
                enable_thinking=False,
            )
            texts.append(text)
        model = self.model
        try:
            # The template has written the special tokens already.
            inputs = self.tokenizer(
                texts, return_tensors="pt", padding=True, add_special_tokens=False
            )
            output = model.generate(
                **inputs.to(self.device),
                do_sample=False,
                max_new_tokens=max_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        except Exception as fault:  # settings of its tokenizer and its generation that do not fit
            raise self.error(
                f"The {self.role} {self.name} cannot be asked.",
                f"{type(fault).__name__}: {one_line(fault, 200)}",
                "Get the checkpoint again; if memory is short, use a smaller one.",
            ) from fault
        prompt_length = inputs["input_ids"].shape[1]
        generated = output[:, prompt_length:]
        ends = model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or []
        has_end = torch.isin(generated, torch.tensor(ends, device=self.device)).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [(text.strip(), not ended) for text, ended in zip(texts, has_end, strict=True)]

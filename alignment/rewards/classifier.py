"""`classifier`: reward models for text, which read the response and not the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from alignment.settings import RecipeError
from bench.errors import one_line


class ClassifierReward(Reward):
    """Any `AutoModelForSequenceClassification` with a chat template, ArmoRM for one.

    `batch` responses are rewarded at a time. `trust_remote_code` runs code that the checkpoint
    brings.
    """

    kind: Literal["classifier"]
    model: str
    batch: int = Field(8, gt=0)
    trust_remote_code: bool = False

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """Scores in batches.

        A model's own `score` is taken if it has one (ArmoRM), else its first logit.
        """
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer, model = self._load(device)
        for start in range(0, len(responses), self.batch):
            rows = responses[start : start + self.batch]
            conversations = []
            for row in rows:
                conversations.append(
                    [
                        {"role": "user", "content": row["instruction"]},
                        {"role": "assistant", "content": row["text"]},
                    ]
                )
            inputs = tokenizer.apply_chat_template(
                conversations, padding=True, return_dict=True, return_tensors="pt"
            )
            with torch.inference_mode():
                output = model(**inputs.to(device))
            # ArmoRM mixes nineteen objectives into one number by itself.
            own_score = getattr(output, "score", None)
            scores = output.logits[:, 0] if own_score is None else own_score
            values = scores.float().flatten().tolist()
            yield [Rewarded(row, score, []) for row, score in zip(rows, values, strict=True)]

    def _load(self, device: str) -> tuple[Any, Any]:
        """Tokenizer and model. Raises RecipeError if they cannot be used."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        code = {"trust_remote_code": self.trust_remote_code}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, **code)
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                self.model,
                dtype=torch.bfloat16 if device == "cuda" else torch.float32,
                use_safetensors=True,
                **code,
            )
        except (OSError, ValueError, ImportError) as error:
            raise RecipeError(
                f"The reward model {self.model} cannot be loaded.",
                one_line(error),
                "Give a sequence classifier with safetensors; `trust_remote_code: true` if it "
                "brings its own code.",
            ) from error
        if tokenizer.chat_template is None:
            raise RecipeError(
                f"The reward model {self.model} has no chat template.",
                "It cannot tell an instruction from a response.",
                "Use a reward model for conversations.",
            )
        # Without one the model cannot tell where the shorter conversations of a batch end.
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        return tokenizer, model.to(device).eval()

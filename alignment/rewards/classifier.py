"""`classifier`: reward models for text, which read the response and not the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from alignment.settings import RecipeError
from bench.errors import one_line
from bench.models import checkpoints
from bench.models.templates import by_template

# How far two scores of one response may lie apart, as a share of the larger one (at least 1).
TOLERANCE = {"cpu": 1e-3, "cuda": 5e-2}  # float32, bfloat16


class ClassifierReward(Reward):
    """Any `AutoModelForSequenceClassification` with a chat template, and ArmoRM.

    `batch` responses are rewarded at a time. `trust_remote_code` runs code that the checkpoint
    brings; ArmoRM needs none.
    """

    kind: Literal["classifier"]
    model: str
    batch: int = Field(8, gt=0)
    trust_remote_code: bool = False

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"batch"})

    def identity(self) -> Any:
        """Digests of weights, config, tokenizer and code."""
        folder = self._folder()
        return [checkpoints.fingerprint(folder), checkpoints.file_digests(folder)]

    def weights(self) -> Sequence[str]:
        """The classifier's."""
        return [self.model]

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """Scores in batches. Raises RecipeError if padding moves the scores of the first batch."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer, model = self._load(device)
        for start in range(0, len(responses), self.batch):
            rows = responses[start : start + self.batch]
            ids = [_conversation(tokenizer, row) for row in rows]
            scores = _scores(model, ids)
            if start == 0 and len(rows) > 1:
                self._check_padding(scores, [_scores(model, [one])[0] for one in ids], device)
            yield [Rewarded(row, score, []) for row, score in zip(rows, scores, strict=True)]

    def _check_padding(
        self, together: Sequence[float], alone: Sequence[float], device: str
    ) -> None:
        for padded, unpadded in zip(together, alone, strict=True):
            if abs(padded - unpadded) > TOLERANCE[device] * max(1.0, abs(unpadded)):
                raise RecipeError(
                    f"The reward model {self.model} rates a response otherwise in a batch.",
                    f"{padded:.4g} among others, {unpadded:.4g} alone: padding moves it.",
                    "Set `batch: 1`.",
                )

    def _folder(self) -> Path:
        return checkpoints.locate(self.model, None, self.trust_remote_code)

    def _load(self, device: str) -> tuple[Any, Any]:
        """Tokenizer and model. Raises RecipeError if they cannot be used."""
        import torch
        from transformers import (
            AutoConfig,
            AutoModelForSequenceClassification,
            AutoTokenizer,
            LlamaConfig,
        )

        from alignment.rewards import armorm

        folder = self._folder()
        names = checkpoints.read_settings(folder / "config.json").get("architectures")
        is_armorm = isinstance(names, list) and armorm.ARCHITECTURE in names
        code = {"trust_remote_code": self.trust_remote_code and not is_armorm}
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **code)
            config = (LlamaConfig if is_armorm else AutoConfig).from_pretrained(folder, **code)
            network = armorm.ArmoRM if is_armorm else AutoModelForSequenceClassification
            model, report = network.from_pretrained(
                folder,
                config=config,
                dtype=torch.bfloat16 if device == "cuda" else torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **code,
            )
            if is_armorm:
                model.turn = tokenizer.encode(armorm.TURN, add_special_tokens=False)
        except Exception as error:  # what is wrong in its files comes as dozens of types
            raise RecipeError(
                f"The reward model {self.model} cannot be loaded.",
                f"{type(error).__name__}: {one_line(error)}",
                "Give a sequence classifier with safetensors; `trust_remote_code: true` if it "
                "brings its own code.",
            ) from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise RecipeError(
                f"The reward model {self.model} lacks {len(missing)} tensors.",
                f"The first is {missing[0]}; it would be random.",
                "Give a model that was trained to reward.",
            )
        if tokenizer.chat_template is None:
            raise RecipeError(
                f"The reward model {self.model} has no chat template.",
                "It cannot tell an instruction from a response.",
                "Use a reward model for conversations.",
            )
        return tokenizer, model.to(device).eval()


def _conversation(tokenizer: Any, row: ResponseRow) -> list[int]:
    """The token ids of an instruction and the response to it."""
    messages = [
        {"role": "user", "content": row["instruction"]},
        {"role": "assistant", "content": row["text"]},
    ]
    remedy = "Use a reward model for conversations."
    return list(by_template(tokenizer, messages, RecipeError, remedy, return_dict=False))


def _unused_token(conversations: Sequence[list[int]]) -> int:
    """The smallest id that no conversation has."""
    used: set[int] = set()
    for ids in conversations:
        used.update(ids)
    token = 0
    while token in used:
        token += 1
    return token


def _scores(model: Any, conversations: Sequence[list[int]]) -> list[float]:
    """The model's score of each conversation: its own `score` if it has one, else its first logit.

    transformers reads a score at the last token that is not the pad token. A checkpoint that names
    none gets a token that no conversation of the batch has: any other, as the end of a turn, would
    be taken for padding where it ends the response.
    """
    import torch

    declared = model.config.pad_token_id
    pad = _unused_token(conversations) if declared is None else declared
    width = max(map(len, conversations))
    padded = [[*ids, *[pad] * (width - len(ids))] for ids in conversations]
    masks = [[1] * len(ids) + [0] * (width - len(ids)) for ids in conversations]
    model.config.pad_token_id = pad
    try:
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor(padded, device=model.device),
                attention_mask=torch.tensor(masks, device=model.device),
            )
    except Exception as error:  # memory that is short, tokens that it does not know
        raise RecipeError(
            f"The reward model cannot rate {len(padded)} conversations of up to {width} tokens.",
            f"{type(error).__name__}: {one_line(error)}",
            "Set a smaller `batch:`, shorten the prompts, or get the checkpoint again.",
        ) from error
    finally:
        model.config.pad_token_id = declared
    own_score = getattr(output, "score", None)
    scores = output.logits[:, 0] if own_score is None else own_score
    return [float(score) for score in scores.float().flatten()]

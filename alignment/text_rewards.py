"""Rewards that read the response, not the image: reward models for text, and judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment.recipe import ClassifierReward, JudgeReward, RecipeError
from bench.compose import load_judge
from bench.metrics.ratings import official_rating
from bench.types import Answer, Sample

Row = Mapping[str, Any]
Rewarded = tuple[Row, float, list[str]]  # a response, its reward, asserted objects that are doubtful
TOGETHER = 32  # responses judged between two writes


def by_classifier(settings: ClassifierReward, rows: Sequence[Row]) -> Iterator[list[Rewarded]]:
    """Batches of (response, score). A model's own `score` is taken where it has one (ArmoRM), else its first logit."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.model, trust_remote_code=settings.trust_remote_code)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            settings.model,
            dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(
            f"The reward model {settings.model} cannot be loaded.",
            " ".join(str(error).split())[:300],
            "Give a sequence classifier with safetensors; `trust_remote_code: true` where it brings its own code.",
        ) from error
    if tokenizer.chat_template is None:
        raise RecipeError(
            f"The reward model {settings.model} has no chat template.",
            "It cannot tell an instruction from a response.",
            "Use a reward model for conversations.",
        )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.to(device).eval()
    for start in range(0, len(rows), settings.batch):
        part = rows[start : start + settings.batch]
        talks = [
            [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["text"]}]
            for row in part
        ]
        inputs = tokenizer.apply_chat_template(talks, padding=True, return_dict=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            output = model(**inputs)
        scores = output.score if getattr(output, "score", None) is not None else output.logits[:, 0]
        yield [(row, score, []) for row, score in zip(part, scores.float().flatten().tolist(), strict=True)]


def by_judge(settings: JudgeReward, rows: Sequence[Row], prompts: Mapping[str, str]) -> Iterator[list[Rewarded]]:
    """Batches of (response, rating 0-6); the image's prompt is what the judge knows of it. Without a verdict: none."""
    judge = load_judge(settings.judge, None)
    assert judge is not None
    for start in range(0, len(rows), TOGETHER):
        items = []
        about = {}
        for row in rows[start : start + TOGETHER]:
            prompt = prompts[row["image"]]
            about[row["key"]] = row
            sample = Sample(
                row["key"], row["image"], row["instruction"], prompt, row["image"], "holistic",
                {"index": 0, "image_content": [prompt]},
            )  # fmt: skip
            items.append((sample, Answer(row["text"])))
        for batch in judge.judge(items):
            yield [(about[s.id], float(official_rating(v.text)), []) for s, v in batch if v.error is None]

"""Settings of preference training: `dpo:` of a recipe."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from alignment.settings import Settings
from bench.registry import split_adapter

Losses = Literal["sigmoid", "ipo", "hinge", "robust", "mpo", "mdpo", "sft"]


class Lora(Settings):
    """LoRA on the language model's linear layers."""

    rank: int = Field(128, gt=0)
    alpha: int = Field(256, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class Measuring(Settings):
    """Benchmarks while a model trains: every so many updates, and at the end."""

    suite: list[str] = Field(min_length=1)
    every: int = Field(gt=0)
    data: str = "hub"
    limit: int | None = Field(None, gt=0)
    judge: str | None = None


class Training(Settings):
    """trl's DPOTrainer, or supervised fine-tuning on the chosen responses (`loss: sft`).

    `batch` is of one process. `dtype` is that of the base's weights; `auto` is bfloat16 on a GPU
    and float32 on a CPU. `launch` are arguments of `accelerate launch`, for several processes:
    "--num_processes 4", or "fsdp --num_processes 4" and "zero2 …" for the configurations in
    `alignment/training/accelerate/`. `trackers` get the curves too. `measure` runs benchmarks on
    the way.
    """

    model: str
    loss: Losses = "sigmoid"
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    learning_rate: float = Field(1e-5, gt=0)
    epochs: float = Field(1, gt=0)
    batch: int = Field(8, gt=0)
    accumulate: int = Field(1, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    merge: bool = False
    launch: str = ""
    trackers: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = Field(
        default_factory=list
    )
    lora: Lora = Lora()
    measure: Measuring | None = None

    @field_validator("model")
    @classmethod
    def _is_whole(cls, model: str) -> str:
        name, adapter = split_adapter(model)
        if adapter:
            raise ValueError(
                f"an adapter is not trained on another one: merge it first, "
                f"`bench convert {name}+{adapter} MERGED`, and give MERGED"
            )
        return model

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"trackers"})

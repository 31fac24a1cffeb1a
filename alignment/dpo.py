"""Preference training with trl's DPOTrainer and a LoRA on the language model.

What is ours, and why:
- Prompts are tokenised as at inference, by the bench's own prompter under the model's protocol, and responses end with
  the end-of-sequence token. trl relies on the chat template, which in LLaVA-1.5's case has neither <s> nor </s>.
- The reference's log-probabilities, which trl refuses to precompute for images, are computed once and kept.
- A pair's picture is encoded once for its two rows; trl encodes it for each.
- `launch` trains in several processes (`alignment/launch.py`); each computes its share of the reference's.
- LoRA goes to the language model's linear layers only; peft's "all-linear" would adapt the vision tower too.

Artifact: adapter/ (peft), merged/ where asked for, curves.csv, curves.png, adapter/README.md.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from alignment.recipe import RecipeError, Training
from bench.compose import load_model
from bench.data.images import read_image
from bench.store import append_lines, read_json, read_lines, replace_file
from bench.terminal import progress_bar
from bench.types import Progress

VERSION = "2"
LANGUAGE_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
LOSSES = {"mpo": (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])}  # Wang et al., arXiv 2411.10442, section 3.2
CURVES = ("step", "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "grad_norm")


def identity(settings: Training) -> Any:
    """The base model as its adapter describes it."""
    return load_model(settings.model, {}).describe()


def run(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Trains on all pairs, from the last checkpoint on. Raises RecipeError where the pairs cannot be trained on."""
    if settings.launch:
        from alignment.launch import launched

        return launched(settings, inputs, out, seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # the libraries' among themselves
        return _train(settings, inputs, out, seed)


def _train(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    rows = read_lines(inputs["preferences"] / "pairs.jsonl")
    folder = inputs.get("images", inputs["preferences"])  # pairs from elsewhere bring their pictures
    pairs = [row | {"image": str(folder / row["image"])} for row in rows]
    equal = sum(row["chosen"] == row["rejected"] for row in pairs)
    if equal:
        raise RecipeError(f"{equal} pairs have equal responses.", "They teach nothing.", "Make the preferences again.")
    place = os.environ.get("LOCAL_RANK")
    adapter = load_model(settings.model, {"device": f"cuda:{place}"} if place and torch.cuda.is_available() else {})
    trainer = make_trainer(adapter, pairs, settings, out, seed)
    see_once(trainer.model)
    if settings.loss != "sft":
        use_reference(trainer, pairs, out)
    whole = (file.parent for file in out.glob("checkpoint-*/trainer_state.json") if file.stat().st_size)  # written last
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    first = trainer.is_world_process_zero()
    with progress_bar("dpo", _steps(trainer)) if first else nullcontext(lambda amount: None) as progress:
        trainer.add_callback(_progress(progress))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    _finish(trainer, adapter, settings, out)
    steps = [row for row in trainer.state.log_history if "loss" in row]
    if first:
        made = inputs["preferences"] / "manifest.json"
        told = model_card(settings, seed, adapter.describe()["name"], steps, read_json(made) if made.exists() else {})
        replace_file(out / "adapter" / "README.md", told)
    return {
        "pairs": len(pairs),
        "steps": trainer.state.global_step,
        "first_loss": round(steps[0]["loss"], 4),
        "last_loss": round(steps[-1]["loss"], 4),
    }


def _steps(trainer: Any) -> int:
    at_once = trainer.args.train_batch_size * trainer.args.world_size
    batches = math.ceil(len(trainer.train_dataset) / at_once)
    updates = math.ceil(batches / trainer.args.gradient_accumulation_steps)
    steps: int = math.ceil(updates * trainer.args.num_train_epochs)
    return steps


def _progress(advance: Progress) -> Any:
    """A trainer callback that moves our progress bar."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(1)

    return Bar()


class Collator:
    """Batches of [chosen …, rejected …] rows, each the prompt as at inference, then the response and its end."""

    def __init__(self, adapter: Any) -> None:
        self.prompter, self.tokenizer = adapter.prompter, adapter.processor.tokenizer
        self.end = self.tokenizer.eos_token_id
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end
        self.limit = getattr(adapter.config.get_text_config(), "max_position_embeddings", None)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """(2 × pairs, tokens) ids, masks and completion masks, the images' tensors, reference log-probabilities."""
        encoded = [self.prompter.encode(read_image(Path(e["images"][0])), [e["question"]]) for e in examples]
        rows = [
            (item.ids[0], self._response(example[side]))
            for side in ("chosen_text", "rejected_text")
            for item, example in zip(encoded, examples, strict=True)
        ]
        self._check(rows)
        width = max(len(prompt) + len(said) for prompt, said in rows)
        padded = [[*prompt, *said, *[self.pad] * (width - len(prompt) - len(said))] for prompt, said in rows]
        lengths = torch.tensor([len(prompt) + len(said) for prompt, said in rows])
        starts = torch.tensor([len(prompt) for prompt, _ in rows])
        columns = torch.arange(width)
        batch = {
            "input_ids": torch.tensor(padded),
            "attention_mask": (columns < lengths[:, None]).long(),
            "completion_mask": ((columns < lengths[:, None]) & (columns >= starts[:, None])).long(),
        }
        for name in encoded[0].pixels:
            batch[name] = torch.cat([item.pixels[name] for item in encoded] * 2)
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch

    def _response(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]

    def _check(self, rows: Sequence[tuple[list[int], list[int]]]) -> None:
        """Raises RecipeError where a row does not begin or end as it must, or is too long for the model."""
        start = self.tokenizer.bos_token_id
        for prompt, said in rows:
            if start is not None and start in prompt and prompt[0] != start:
                raise RecipeError("A prompt does not begin with its start token.", "The chat template is at fault.")
            if start is not None and prompt[:2] == [start, start]:
                raise RecipeError("A prompt has its start token twice.", "The chat template adds it once more.")
            if self.limit and len(prompt) + len(said) > self.limit:
                raise RecipeError(
                    f"A pair has {len(prompt) + len(said)} tokens, and the model takes {self.limit}.",
                    "Image and response together are longer than its context.",
                    "Lower `max_tokens` of the responses, or use smaller images.",
                )


def make_trainer(adapter: Any, pairs: Sequence[Mapping[str, Any]], settings: Training, out: Path, seed: int) -> Any:
    """trl's DPOTrainer on pairs of {"image", "instruction", "chosen", "rejected"}, with a new LoRA on the base."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    losses, weights = LOSSES[settings.loss] if settings.loss in LOSSES else ([str(settings.loss)], None)
    arguments = DPOConfig(
        output_dir=str(out),
        seed=seed,
        data_seed=seed,
        loss_type=losses,
        loss_weights=weights,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="cosine",
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=adapter.dtype == torch.bfloat16,
        max_length=None,
        logging_steps=1,
        save_strategy="steps",
        save_steps=0.1,
        save_total_limit=1,
        remove_unused_columns=False,
        report_to=_trackers(settings),
        disable_tqdm=True,
        use_cpu=adapter.device.type == "cpu",
        dataloader_num_workers=0,
    )
    columns = {
        "images": [[row["image"]] for row in pairs],  # trl tells vision data by this column
        "question": [row["instruction"] for row in pairs],
        "chosen_text": [row["chosen"] for row in pairs],
        "rejected_text": [row["rejected"] for row in pairs],
    }
    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=LANGUAGE_LAYERS,
        task_type="CAUSAL_LM",
    )
    adapter.model.config._name_or_path = str(adapter.folder)
    trainer = DPOTrainer(
        model=adapter.model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=adapter.processor,
        data_collator=Collator(adapter),
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    if "tensorboard" in settings.trackers and trainer.is_world_process_zero():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        beside = out.parent / "tensorboard" / out.name  # the artifact stays the same with and without
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(beside))))
    return trainer


def _trackers(settings: Training) -> list[str]:
    """Where trl sends the curves too. Raises RecipeError where a tracker is not installed."""
    for name in settings.trackers:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(f"There is no {name}.", "`trackers` names it.", f"pip install {name}, or leave it out.")
    return [name for name in settings.trackers if name != "tensorboard"]


def see_once(model: Any) -> None:
    """Lets the vision tower, which is not trained, encode a pair's picture once for its two rows."""
    tower = next((module for name, module in model.named_modules() if name.endswith("vision_tower")), None)
    if tower is None:
        return
    encode = tower.forward

    def once(pixel_values: torch.Tensor, *more: Any, **named: Any) -> Any:
        half = len(pixel_values) // 2
        if len(pixel_values) != 2 * half or not torch.equal(pixel_values[:half], pixel_values[half:]):
            return encode(pixel_values, *more, **named)
        return _twice(encode(pixel_values[:half], *more, **named))

    tower.forward = once


def _twice(output: Any) -> Any:
    """A model's output with every tensor's rows once more behind them."""
    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    if isinstance(output, dict):
        return type(output)(**{name: _twice(value) for name, value in output.items()})
    return tuple(map(_twice, output)) if isinstance(output, tuple) else output


def reference_logps(trainer: Any, pairs: Sequence[Mapping[str, Any]], out: Path) -> list[tuple[float, float]]:
    """The base model's summed log-probabilities of chosen and rejected, in the order of the pairs, kept in `out`.

    Of several processes each computes its share, pair after pair in turn.
    """
    rank, world = trainer.args.process_index, trainer.args.world_size
    files = [out / f"reference-{place}-of-{world}.jsonl" for place in range(world)]
    done = len(read_lines(files[rank]))
    size = trainer.args.per_device_train_batch_size
    mine = range(rank, len(pairs), world)[done:]
    trainer.model.eval()
    for start in range(0, len(mine), size):
        batch = trainer.data_collator([trainer.train_dataset[index] for index in mine[start : start + size]])
        batch = {name: value.to(trainer.model.device) for name, value in batch.items()}
        both = trainer.compute_ref_log_probs(trainer.model, batch)
        sides = zip(*(side.tolist() for side in both), strict=True)
        append_lines(files[rank], [{"chosen": chosen, "rejected": rejected} for chosen, rejected in sides])
    trainer.accelerator.wait_for_everyone()
    found = [read_lines(file) for file in files]
    kept = [found[index % world][index // world] for index in range(len(pairs))]
    return [(row["chosen"], row["rejected"]) for row in kept]


def use_reference(trainer: Any, pairs: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Lets the trainer take the reference's log-probabilities from its data instead of a pass in every step."""
    reference = reference_logps(trainer, pairs, out)
    data = trainer.train_dataset.add_column("ref_chosen_logps", [chosen for chosen, _ in reference])
    trainer.train_dataset = data.add_column("ref_rejected_logps", [rejected for _, rejected in reference])
    trainer.precompute_ref_logps = True


def _finish(trainer: Any, adapter: Any, settings: Training, out: Path) -> None:
    """Adapter, merged model, curves; the checkpoints on the way are of no more use."""
    if trainer.is_world_process_zero():
        trainer.model.save_pretrained(out / "adapter")
        history = [row for row in trainer.state.log_history if "loss" in row]
        write_curves(history, out)
        for checkpoint in out.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        if settings.merge:
            merged = trainer.model.merge_and_unload()
            merged.save_pretrained(out / "merged")
            adapter.processor.save_pretrained(out / "merged")


def model_card(
    settings: Training, seed: int, base: str, steps: Sequence[Mapping[str, Any]], made: Mapping[str, Any]
) -> str:
    """The adapter's card: what it was trained from, on and how; `made` is the manifest of its preferences."""
    told = "\n".join(f"| {name} | {value} |" for name, value in settings.model_dump().items() if name != "lora")
    counts = ", ".join(f"{name} {value}" for name, value in made.get("counts", {}).items())
    sources = "\n".join(f"| {name} | `{digest}` |" for name, digest in made.get("inputs", {}).items())
    return f"""---
base_model: {base}
library_name: peft
pipeline_tag: image-text-to-text
---

# {base}, aligned

A LoRA (rank {settings.lora.rank}, alpha {settings.lora.alpha}) on the language model of {base}, trained by preference
optimisation (trl's DPOTrainer) for {len(steps)} steps with seed {seed}; loss {steps[0]["loss"]:.4f} →
{steps[-1]["loss"]:.4f}. Use it as `bench run --model {base}+FOLDER`.

| setting | value |
|---|---|
{told}

## Data

{counts or "Not recorded."}

| made from | sha256 |
|---|---|
| preferences | `{made.get("sha256", "not recorded")}` |
{sources}
"""


def write_curves(history: Sequence[Mapping[str, Any]], out: Path) -> None:
    """curves.csv and curves.png: loss, and rewards of chosen and rejected responses, by step."""
    from matplotlib.figure import Figure

    with (out / "curves.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, CURVES, extrasaction="ignore", restval="")
        table.writeheader()
        table.writerows(history)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    left.plot(steps, [row["loss"] for row in history], color="#0060a0")
    left.set(xlabel="step", ylabel="loss")
    for name, colour in (("chosen", "#0060a0"), ("rejected", "#be3c00")):
        right.plot(steps, [row.get(f"rewards/{name}", 0.0) for row in history], color=colour, label=name)
    right.set(xlabel="step", ylabel="implicit reward")
    right.legend()
    figure.savefig(out / "curves.png", dpi=110)

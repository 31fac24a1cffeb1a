"""Preference training with trl's DPOTrainer and a LoRA on the language model.

What is ours, and why:
- Prompts are tokenised as at inference, by the bench's own prompter under the model's protocol, and
  responses end with the end-of-sequence token (`collator.py`). trl relies on the chat template,
  which in LLaVA-1.5's case has neither <s> nor </s>.
- The reference's log-probabilities, which trl refuses to precompute for images, are computed once
  and kept.
- A pair is one row, its image and prompt computed once (`shared_prefix.py`); trl computes them for
  each response. Of architectures for which that is not checked, only the image is encoded once.
- LoRA goes to the language model's linear layers only; peft's "all-linear" would adapt the vision
  tower too.
- Types of tokens, and images of other shapes, go into a batch as the processor would put them.

The DPO loss itself is trl's (`DPOTrainer.dpo_loss`); `loss:` of a recipe names it.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from alignment.rows import (
    MANIFEST,
    MeasuredRow,
    PairRow,
    ReferenceRow,
    TrainingCounts,
    read_manifest,
)
from alignment.settings import RecipeError
from alignment.training.artifacts import MEASURED, model_card, write_curves
from alignment.training.checkpoints import (
    last_checkpoint,
    remove_checkpoints,
    resuming,
    seal_checkpoints,
)
from alignment.training.collator import CROPS, REFERENCE, Collator
from alignment.training.settings import Measuring, Training
from alignment.training.shared_prefix import share_prefix
from bench.files import append_lines, read_json, read_lines, replace_file, write_json
from bench.models.convert import convert
from bench.runs.jobs import load_model
from bench.terminal import progress_bar
from bench.types import Progress

if TYPE_CHECKING:
    from bench.models.hf import HFModel

# Losses that are a weighted sum of trl's. mpo: Wang et al., arXiv 2411.10442, section 3.2.
# mdpo adds two terms of its own to trl's (`pair_trainer.py`).
WEIGHTED_LOSSES = {
    "mpo": (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]),
    "mdpo": (["sigmoid"], [1.0]),
}
TRAINED = "trained.json"  # counts of a training whose adapter is whole
SAVE_SHARE = 0.1  # of all steps, between two checkpoints
NOTHING_SHOWN = nullcontext(lambda amount: None)


def train(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Trains on all pairs, from the last checkpoint on; returns counts for the manifest.

    Raises RecipeError if the pairs cannot be trained on.
    """
    if (out / TRAINED).is_file():  # all but the merging or the clearing up was done
        trained = read_json(out / TRAINED, TrainingCounts)
        if int(os.environ.get("RANK", "0")) == 0:
            _leave_artifact(settings, out)
        return dict(trained)
    all_pairs = _read_pairs(inputs)
    options: dict[str, str] = {"dtype": settings.dtype}
    local_rank = os.environ.get("LOCAL_RANK")  # set by accelerate in each of several processes
    if local_rank and torch.cuda.is_available():
        options["device"] = f"cuda:{local_rank}"
    model: Any = load_model(settings.model, options)
    readable_pairs = _without_special_tokens(all_pairs, model)
    pairs = Collator(model).without_too_long(readable_pairs)
    if not pairs:
        raise RecipeError(
            "No pair fits into the model's context.",
            f"All {len(readable_pairs)} are longer, image and response together.",
            "Lower `max_tokens` of the responses, or use smaller images.",
        )
    trainer = make_trainer(model, pairs, settings, out, seed)
    # Supervised training has no reference.
    if settings.loss != "sft":
        use_reference(trainer, pairs, out)
    seal_checkpoints(trainer, out)
    checkpoint = last_checkpoint(trainer, out)
    is_first = trainer.is_world_process_zero()
    shown = progress_bar("dpo", _total_steps(trainer)) if is_first else NOTHING_SHOWN
    with shown as progress:
        trainer.add_callback(_progress_callback(progress))
        if settings.measure:
            _measure_on_the_way(trainer, settings, settings.measure, out)
        with resuming(trainer, checkpoint):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = []
    for row in trainer.state.log_history:
        if "loss" in row:
            steps.append(row)
    counts = {
        "pairs": len(pairs),
        "special_tokens": len(all_pairs) - len(readable_pairs),
        "too_long": len(readable_pairs) - len(pairs),
        "steps": trainer.state.global_step,
        "shared_prefix": model.not_packed_in_training is None,
        "first_loss": round(steps[0]["loss"], 4),
        "last_loss": round(steps[-1]["loss"], 4),
    }
    # Collective: of parameters that are shared out every process has a part.
    tensors = _trained_tensors(trainer.model)
    if is_first:
        adapter = out / "adapter"
        network = trainer.accelerator.unwrap_model(trainer.model)
        name = model.describe()["name"]
        # A path of this machine means nothing where the adapter goes.
        for config in network.peft_config.values():
            config.base_model_name_or_path = name
        # The vocabulary is the base's; else peft asks the hub.
        network.save_pretrained(adapter, state_dict=tensors, save_embedding_layers=False)
        write_curves(steps, read_lines(out / MEASURED, MeasuredRow), out)
        folder = inputs["preferences"]
        preferences = read_manifest(folder) if (folder / MANIFEST).exists() else None
        replace_file(adapter / "README.md", model_card(settings, seed, name, steps, preferences))
        write_json(out / TRAINED, counts)
        _leave_artifact(settings, out)
    trainer.accelerator.wait_for_everyone()
    return counts


def _read_pairs(inputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The pairs with the full paths of their images."""
    rows = read_lines(inputs["preferences"] / "pairs.jsonl", PairRow)
    # Pairs from elsewhere bring their images.
    folder = inputs.get("images", inputs["preferences"])
    equal = sum(row["chosen"] == row["rejected"] for row in rows)
    if equal:
        raise RecipeError(
            f"{equal} pairs have equal responses.",
            "They teach nothing.",
            "Make the preferences again.",
        )
    return [{**row, "image": str(folder / row["image"])} for row in rows]


def _without_special_tokens(
    pairs: Sequence[Mapping[str, Any]], model: HFModel
) -> list[Mapping[str, Any]]:
    """Those pairs whose texts are nothing but text to this model.

    Raises RecipeError if none is.
    """
    kept = []
    for pair in pairs:
        texts = (pair["instruction"], pair["chosen"], pair["rejected"])
        if all(model.prompter.special_token_in(text) is None for text in texts):
            kept.append(pair)
    if not kept:
        raise RecipeError(
            "No pair can be trained on.",
            f"All {len(pairs)} hold special tokens of the model, such as <image>.",
            "Take them out of the texts.",
        )
    return kept


def _total_steps(trainer: Any) -> int:
    arguments = trainer.args
    batch = arguments.train_batch_size * arguments.world_size
    batches = math.ceil(len(trainer.train_dataset) / batch)
    updates = math.ceil(batches / arguments.gradient_accumulation_steps)
    steps: int = math.ceil(updates * arguments.num_train_epochs)
    return steps


def _progress_callback(advance: Progress) -> Any:
    """A trainer callback that moves our progress bar."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(1)

    return Bar()


def _measure_on_the_way(trainer: Any, settings: Training, measure: Measuring, out: Path) -> None:
    """Lets the bench measure while the trainer trains."""
    from alignment.training.measuring import BenchCallback

    # The runs have times in them, so they lie beside the artifact, which has the figures.
    callback = BenchCallback(
        settings.model,
        measure.suite,
        measure.every,
        out.parent / "measured" / out.name,
        measure.data,
        measure.limit,
        measure.judge,
        out / MEASURED,
    )
    # In front of the trackers' callbacks, which then get the figures.
    trainer.callback_handler.callbacks.insert(0, callback)


def make_trainer(
    model: HFModel, pairs: Sequence[Mapping[str, Any]], settings: Training, out: Path, seed: int
) -> Any:
    """trl's trainer with a new LoRA on the base.

    Args:
        model: The base.
        pairs: Rows with image (a path), instruction, chosen and rejected.
        settings: Of the training.
        out: Where checkpoints go.
        seed: Of LoRA's weights and of the order of pairs.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import DPOConfig

    from alignment.training.pair_trainer import PairTrainer

    check_trackers(settings)
    losses, weights = WEIGHTED_LOSSES.get(settings.loss, ([str(settings.loss)], None))
    arguments = DPOConfig(
        output_dir=str(out),
        seed=seed,
        data_seed=seed,
        loss_type=losses,
        loss_weights=weights,
        # trl would switch off LoRA's too.
        disable_dropout=settings.lora.dropout == 0,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="cosine",
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=model.dtype == torch.bfloat16,
        # trl's default cuts the image's tokens off, and trains at loss 0.6931 without a word.
        max_length=None,
        logging_steps=1,
        save_strategy="steps",
        save_steps=SAVE_SHARE,
        save_total_limit=1,
        # The collator reads columns that no model knows.
        remove_unused_columns=False,
        report_to=[name for name in settings.trackers if name != "tensorboard"],
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
        dataloader_num_workers=0,
    )
    # Of several GPUs one process uses one; transformers would copy the model to all, which trl
    # refuses. Several are for `launch`.
    arguments._n_gpu = min(arguments.n_gpu, 1)
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
        target_modules=language_layers(model.model),
        task_type="CAUSAL_LM",
    )
    # What FSDP shares out layer by layer; accelerate's own guess names layers that are not there.
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        layer = model.model.get_decoder().layers[0]
        os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", type(layer).__name__)
    # peft writes it into the adapter's config as the base.
    model.model.config._name_or_path = str(model.folder)
    trainer = PairTrainer(
        model=model.model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=model.processor,
        data_collator=Collator(model, with_crops=settings.loss == "mdpo"),
        peft_config=lora,
    )
    if model.not_packed_in_training:
        encode_images_once(trainer.model)
    else:
        share_prefix(trainer.model.get_base_model())
    # It prints a dictionary a step; our bar shows the same.
    trainer.remove_callback(PrinterCallback)
    if "tensorboard" in settings.trackers and trainer.is_world_process_zero():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        # Beside the artifact, which stays the same with a tracker and without.
        events = out.parent / "tensorboard" / out.name
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(events))))
    return trainer


def language_layers(network: Any) -> str:
    """A pattern of the names of the language model's linear layers.

    Raises RecipeError if the network does not say what its language model is.
    """
    decoder = network.get_decoder()
    name = next((name for name, module in network.named_modules() if module is decoder), "")
    layers = set()
    if decoder is not network and name:
        for inner, module in decoder.named_modules():
            if isinstance(module, torch.nn.Linear):
                layers.add(inner.rpartition(".")[2])
    if not layers:
        raise RecipeError(
            f"{type(network).__name__} cannot be trained.",
            "Its language model, which LoRA goes to, is not found.",
            "Train another base.",
        )
    return rf".*{name.rpartition('.')[2]}.*\.({'|'.join(sorted(layers))})"


def check_trackers(settings: Training) -> None:
    """Raises RecipeError if a tracker is not installed."""
    for name in settings.trackers:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"There is no {name}.",
                "`trackers` names it.",
                f"pip install {name}, or leave it out.",
            )


def encode_images_once(model: Any) -> None:
    """Lets the vision tower, which is not trained, encode a pair's image once for its two rows."""
    tower = None
    for name, module in model.named_modules():
        if name.endswith("vision_tower"):
            tower = module
            break
    if tower is None:
        return
    encode = tower.forward

    def encode_once(pixel_values: torch.Tensor, *more: Any, **named: Any) -> Any:
        half, odd = divmod(len(pixel_values), 2)
        chosen, rejected = pixel_values[:half], pixel_values[half:]
        # Pixtral's tower puts all images into one row, which cannot be doubled.
        is_one_row = named.get("image_sizes") is not None
        if odd or is_one_row or not torch.equal(chosen, rejected):
            return encode(pixel_values, *more, **named)
        return _doubled(encode(chosen, *more, **named))

    tower.forward = encode_once


def _doubled(output: Any) -> Any:
    """A model's output with every tensor's rows once more behind them."""
    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    if isinstance(output, dict):
        return type(output)(**{name: _doubled(value) for name, value in output.items()})
    return tuple(map(_doubled, output)) if isinstance(output, tuple) else output


def reference_logps(
    trainer: Any, pairs: Sequence[Mapping[str, Any]], out: Path
) -> list[tuple[float, ...]]:
    """The base model's summed log-probabilities: a tuple for each pair, as REFERENCE names them.

    They are in the order of the pairs and kept in `out`. Of several processes each computes its
    share, pair after pair in turn.
    """
    rank, world = trainer.args.process_index, trainer.args.world_size
    files = [out / f"reference-{process}-of-{world}.jsonl" for process in range(world)]
    done = len(read_lines(files[rank], ReferenceRow))
    indices = range(rank, len(pairs), world)[done:]
    size = trainer.args.per_device_train_batch_size
    # Before the first step LoRA adds nothing, so the model is its own reference.
    trainer.model.eval()
    for start in range(0, len(indices), size):
        examples = [trainer.train_dataset[index] for index in indices[start : start + size]]
        batch = trainer._prepare_inputs(trainer.data_collator(examples))
        crops = batch.pop(CROPS, None)
        columns = [*trainer.compute_ref_log_probs(trainer.model, batch)]
        if crops is not None:
            # trl splits rows in the middle; the first ones are the chosen responses.
            logps_of_rows = torch.cat(trainer.compute_ref_log_probs(trainer.model, crops))
            columns.append(logps_of_rows[: len(examples)])
        logps = zip(*(column.tolist() for column in columns), strict=True)
        append_lines(files[rank], [{"logps": row} for row in logps])
    trainer.accelerator.wait_for_everyone()
    by_process = [read_lines(file, ReferenceRow) for file in files]
    ordered = []
    for index in range(len(pairs)):
        row = by_process[index % world][index // world]
        ordered.append(tuple(row["logps"]))
    return ordered


def use_reference(trainer: Any, pairs: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Gives the trainer the reference's log-probabilities, so that it computes none itself."""
    reference = reference_logps(trainer, pairs, out)
    data = trainer.train_dataset
    # Only mdpo has the last of the columns.
    for column, side in zip(REFERENCE, zip(*reference, strict=True), strict=False):
        data = data.add_column(column, list(side))
    trainer.train_dataset = data
    trainer.precompute_ref_logps = True


def _trained_tensors(network: Any) -> dict[str, torch.Tensor]:
    """The adapter's tensors, those whole that FSDP has shared out over the processes."""
    tensors = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            value = parameter.detach()
            tensors[name] = value.full_tensor() if isinstance(value, DTensor) else value
    return tensors


def _leave_artifact(settings: Training, out: Path) -> None:
    """Merges the adapter if that is asked for; then removes the checkpoints.

    In this order: a disk that fills up while the merged model is written costs no training.
    """
    if settings.merge and not (out / "merged").exists():
        half = out / "merging"
        shutil.rmtree(half, ignore_errors=True)
        convert(f"{settings.model}+{out / 'adapter'}", half)
        half.rename(out / "merged")
    remove_checkpoints(out)

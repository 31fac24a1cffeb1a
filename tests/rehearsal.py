"""A rehearsal at size: LLaVA-1.5's exact shape with random weights through the commands of the README.

    python -m tests.rehearsal [--size tiny|7b|13b] [--folder DIR]

Both published layouts are made (llava-hf's sharded safetensors; LLaVA's own sharded .bin with its tower, and a
LoRA with non_lora_trainables.bin), then: POPE and MMHal-style questions about two images, one DPO update with the
paper's LoRA, the adapter loaded again, merged, and the original converted. All in bfloat16. Each step is a process of
its own; the table has its seconds, its peak of memory and what it left on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers as hf
import yaml
from safetensors import safe_open

from bench.scenes.render import render
from bench.scenes.world import scenes
from tests.conftest import BENCH, ROOT
from tests.speed.engine import SIZES, make_model
from tests.tiny_models import sentencepiece_model

SIZES["13b"] = (
    SIZES["7b"][0],
    {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
)
SIZES["tiny"] = (
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
    {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4},
)
SHARD = 5_000_000_000  # bytes
# From transformers' names to LLaVA's own.
ORIGINAL = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
)
TOWER = "vision_tower."


def make_original(source: Path, root: Path) -> None:
    """root/tower, root/llava and root/lora in LLaVA's layout, with the weights of `source`."""
    config = hf.LlavaConfig.from_pretrained(source)
    for name in ("tower", "llava", "lora"):
        (root / name).mkdir(parents=True)
    tower: dict[str, torch.Tensor] = {}
    shard: dict[str, torch.Tensor] = {}
    weight_map: dict[str, str] = {}
    shards: list[Path] = []

    def write_shard() -> None:
        file = root / "llava" / f"pytorch_model-{len(shards) + 1:05}.bin"
        torch.save(shard, file)
        shards.append(file)
        weight_map.update(dict.fromkeys(shard, file.name))
        shard.clear()

    projector = {}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name.startswith(TOWER):
                    tower[name.removeprefix(TOWER)] = tensors.get_tensor(name)
                    continue
                original = name
                for ours, theirs in ORIGINAL:
                    original = original.replace(ours, theirs)
                shard[original] = tensors.get_tensor(name)
                if "mm_projector" in original:
                    projector[original] = shard[original]
                if sum(value.nbytes for value in shard.values()) > SHARD:
                    write_shard()
    write_shard()
    index = {"weight_map": weight_map}
    (root / "llava" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    vision = hf.CLIPVisionModel._from_config(config.vision_config, dtype=torch.bfloat16)
    vision.load_state_dict(tower)
    vision.save_pretrained(root / "tower")
    size = config.vision_config.image_size
    hf.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    ).save_pretrained(root / "tower")
    text = config.text_config
    settings = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mm_vision_tower": str(root / "tower"),
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    for name in ("llava", "lora"):
        (root / name / "config.json").write_text(json.dumps(settings))
        (root / name / "tokenizer.model").write_bytes(sentencepiece_model())
        words = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
        (root / name / "tokenizer_config.json").write_text(json.dumps(words | {"legacy": False}))
    lora = {}
    for name in weight_map:
        if name.endswith("_proj.weight"):
            shape = _shape(name, text)
            key = f"base_model.model.{name.removesuffix('.weight')}"
            lora[f"{key}.lora_A.weight"] = torch.randn(128, shape[1], dtype=torch.bfloat16) / 100
            lora[f"{key}.lora_B.weight"] = torch.randn(shape[0], 128, dtype=torch.bfloat16) / 100
    torch.save(lora, root / "lora" / "adapter_model.bin")
    trained = {f"base_model.model.{name}": value for name, value in projector.items()}
    torch.save(trained, root / "lora" / "non_lora_trainables.bin")
    adapter = {
        "base_model_name_or_path": str(root / "llava"),
        "r": 128,
        "lora_alpha": 256,
        "peft_type": "LORA",
        "bias": "none",
        "fan_in_fan_out": False,
    }
    (root / "lora" / "adapter_config.json").write_text(json.dumps(adapter))


def _shape(name: str, text: Any) -> tuple[int, int]:
    """(outputs, inputs) of a projection."""
    hidden, inner = text.hidden_size, text.intermediate_size
    if "down_proj" in name:
        return hidden, inner
    return (inner, hidden) if "gate_proj" in name or "up_proj" in name else (hidden, hidden)


def make_pairs(folder: Path) -> None:
    """Two pairs of two images, in the released form."""
    rows = []
    for number, item in enumerate(scenes("train", 1, 2)):
        render(item).save(folder / f"{number}.png")
        asked = {"from": "human", "value": "<image>\nDescribe the image in detail."}
        text = " ".join(["There is a dog in the park."] * 20)
        rows.append(
            {
                "id": str(number),
                "image": f"{number}.png",
                "conversations": [asked, {"from": "gpt", "value": text}],
                "rejected_conversations": [asked, {"from": "gpt", "value": f"{text} And a cat."}],
            }
        )
    (folder / "pairs.json").write_text(json.dumps(rows))


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def run(title: str, command: list[str], folder: Path) -> None:
    """Runs a step in a process of its own and prints its row of the table."""
    before, started = size_of(folder), time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{title} failed: {command}")
    disk = (size_of(folder) - before) / 1e9
    print(f"| {title} | {seconds:.0f} | {usage.ru_maxrss / 1e6:.1f} | {disk:.1f} |", flush=True)


@contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    """The folder given, or one that is removed afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    """Makes the checkpoints and takes them through the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=["tiny", "7b", "13b"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--make", choices=["hf", "original"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make == "hf":
        make_model(asked.folder / "hf", asked.size, torch.bfloat16)
        return
    if asked.make == "original":
        make_original(asked.folder / "hf", asked.folder / "original")
        return
    with working_folder(asked.folder) as folder:
        me = [
            sys.executable,
            "-m",
            "tests.rehearsal",
            "--size",
            asked.size,
            "--folder",
            str(folder),
        ]
        # Random weights never end an answer, so answers are short.
        protocol = {"base": "llava", "max_tokens": {"pope": 2, "mmhal": 16}}
        (folder / "protocol.yaml").write_text(yaml.safe_dump(protocol))
        make_pairs(folder)
        recipe = {
            "name": "rehearsal",
            "pairs": {"path": "pairs.json"},
            "dpo": {
                "model": str(folder / "hf"),
                "dtype": "bfloat16",
                "batch": 1,
                "accumulate": 2,
                "gradient_checkpointing": True,
                "lora": {"rank": 128, "alpha": 256},
            },
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        options = ["--dtype", "bfloat16", "--protocol", str(folder / "protocol.yaml")]
        options += ["--data", "scenes", "--limit", "2"]
        print("| step | seconds | peak of memory, GB | left on the disk, GB |")
        print("| --- | ---: | ---: | ---: |")
        run("make the weights, llava-hf's layout", [*me, "--make", "hf"], folder)
        run("the same in LLaVA's own layout, and a LoRA", [*me, "--make", "original"], folder)
        original, lora = str(folder / "original" / "llava"), str(folder / "original" / "lora")
        for title, model in (("llava-hf", str(folder / "hf")), ("LLaVA's own", original)):
            for suite in ("pope", "mmhal"):
                out = str(folder / "runs" / f"{title[:5]}-{suite}")
                command = [
                    *BENCH,
                    "run",
                    "--model",
                    model,
                    "--suite",
                    suite,
                    "--out",
                    out,
                    *options,
                ]
                run(f"`bench run --suite {suite}`, {title}", command, folder)
        out = str(folder / "runs" / "lora")
        command = [*BENCH, "run", "--model", lora, "--suite", "pope", "--out", out, *options]
        run("`bench run --suite pope`, LLaVA's own LoRA", command, folder)
        command = [*BENCH, "align", str(folder / "recipe.yaml"), "--out", str(folder / "align")]
        run("`bench align`, one DPO update of two pairs", command, folder)
        (adapter,) = (folder / "align").glob("dpo-*/adapter")
        adapted = f"{folder / 'hf'}+{adapter}"
        out = str(folder / "runs" / "adapted")
        command = [*BENCH, "run", "--model", adapted, "--suite", "pope", "--out", out, *options]
        run("`bench run --suite pope`, with the adapter", command, folder)
        command = [*BENCH, "convert", adapted, str(folder / "merged")]
        run("`bench convert BASE+ADAPTER`", command, folder)
        shutil.rmtree(folder / "merged")
        command = [*BENCH, "convert", original, str(folder / "converted")]
        run("`bench convert`, LLaVA's own", command, folder)


if __name__ == "__main__":
    main()

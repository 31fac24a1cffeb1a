"""Every file that the commands read from others, in a valid form, with the command that reads it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import transformers as hf
import yaml

from alignment.pipeline import MANIFEST, STAGES
from alignment.training.trainer import TRAINED
from bench.files import read_lines
from tests.conftest import ROOT, bench
from tests.end_to_end.test_judging import tiny_judge
from tests.faults import forked
from tests.original_format import write_original
from tests.tiny_models import make as make_model
from tests.tiny_pipelines import armorm, clip_model, image_reward, reward_model, sd3_pipeline
from tests.unit.test_data_get import coco_files

TINY = ROOT / "bench" / "scenes" / "llava-tiny"
FAMILIES = ("qwen2_5_vl", "llava_onevision", "smolvlm", "mllama", "gemma3", "paligemma")


class Input(NamedTuple):
    """A file and what reads it.

    Args:
        name: What it is called in reports.
        file: Where it lies below the folder of the inputs.
        words: The command; `{here}` stands for that folder, `{out}` for one of the command's own.
        cost: How many of a hundred mutations it gets beside the others.
        changes: The folder below that of the inputs that the command changes; it is restored.
    """

    name: str
    file: str
    words: tuple[str, ...]
    cost: int = 10
    changes: str | None = None


def make(here: Path) -> list[Input]:
    """Writes valid inputs of every kind into a folder and says what reads them."""
    data = here / "data"
    _run("data", "scenes", "--n", "6", "--out", data)
    suite = ("--suite", "hallucination", "--data", data, "--judge", "scene")
    _run("run", "--model", "llava-tiny", *suite, "--out", here / "run")
    _run("run", "--model", "llava-tiny-b", *suite, "--out", here / "other")
    _run("check", here / "run", "--save", here / "reference.json")
    return [
        *_runs(),
        *_questions(data),
        *_recorded(here),
        *_settings(here),
        *_checkpoints(here),
        *_alignment(here),
    ]


def _run(*words: Any) -> None:
    done = bench(*words)
    assert done.returncode in (0, 3), done.stderr


def _runs() -> list[Input]:
    """A run's own files, as a damaged disk or another program leaves them."""
    inputs = []
    for benchmark in ("pope", "mmhal", "chair", "amber", "mme-hallucination", "objhal"):
        for file in ("run.json", "answers.jsonl", "scores.jsonl", "metrics.json", "verdicts.jsonl"):
            if file == "verdicts.jsonl" and benchmark not in ("mmhal", "objhal"):
                continue
            run = f"run/{benchmark}"
            path = f"{run}/{file}"
            for words in (
                ("compare", "{here}/run", "{here}/other", "--json"),
                ("board", "{here}/run", "{here}/other", "--json"),
                ("check", "{here}/run", "--against", "{here}/reference.json", "--json"),
                ("check", "{here}/other", "--against", "{here}/run"),
                ("list", "runs", "--folder", "{here}/run"),
                ("report", "{here}/run", "{here}/other", "--out", "{out}", "--paper"),
                ("export", f"{{here}}/{run}", "--format", "csv", "--out", "{out}"),
                ("export", f"{{here}}/{run}", "--format", "lmms-eval", "--out", "{out}"),
                ("export", f"{{here}}/{run}", "--format", "every-eval-ever", "--out", "{out}"),
                ("score", f"{{here}}/{run}", "--json"),
            ):
                cost = 1 if words[0] == "report" else 3  # its plots take seconds
                changes = "run" if words[0] == "score" else None
                inputs.append(Input(f"{words[0]} {file}", path, words, cost, changes))
    return inputs


def _questions(data: Path) -> list[Input]:
    suites = {
        "pope/coco/coco_pope_popular.json": "pope",
        "pope/repope/coco_repope_random.json": "repope",
        "mmhal/mmhal-bench_answer_template.json": "mmhal",
        "chair/coco2014_chair_gt__wordnet_pos_lemma.json": "chair",
        "chair/synonyms_LisaAnne.txt": "chair",
        "amber/query_all.json": "amber",
        "amber/annotations.json": "amber",
        "amber/relation.json": "amber",
        "amber/safe_words.txt": "amber",
        "objhal/obj_halbench_300_with_image.jsonl": "objhal",
        "hallusionbench/HallusionBench.json": "hallusionbench",
        "mme/existence/scene_test_0_000001.txt": "mme-hallucination",
        "facts.jsonl": "mmhal",
    }
    inputs = []
    for file, suite in suites.items():
        replay = ("run", "--model", f"replay:{{here}}/given/{suite}.jsonl", "--suite", suite)
        rest = ("--data", "{here}/data", "--judge", "scene", "--out", "{out}", "--json")
        judged = suite in ("mmhal", "objhal")
        words = (*replay, *(rest if judged else (*rest[:2], *rest[4:])))
        inputs.append(Input(f"questions {file}", f"data/{file}", words, 30))
        inputs.append(Input(f"data check {file}", f"data/{file}", ("data", "check", "{here}/data")))
    objects = ("data", "pope", "--objects", "{here}/data/objects.jsonl", "--out", "{out}")
    inputs.append(Input("data pope objects.jsonl", "data/objects.jsonl", objects, 40))
    image = next(iter(sorted(data.glob("**/*.png")))).relative_to(data.parent).as_posix()
    inputs.append(Input("data check image", image, ("data", "check", "{here}/data"), 40))
    looked = ("run", "--model", "llava-tiny", "--suite", "chair", "--data", "{here}/data")
    inputs.append(Input("run image", image, (*looked, "--out", "{out}", "--json"), 20))
    inputs += _sources(data)
    coco_files(data.parent / "coco")
    (data.parent / "made" / "chair").mkdir(parents=True)
    synonyms = "chair/synonyms_LisaAnne.txt"
    shutil.copy(data / synonyms, data.parent / "made" / synonyms)
    truth = ("data", "chair", "--coco", "{here}/coco", "--out", "{here}/made")
    for file in ("coco/instances_train2014.json", "coco/captions_val2014.json", f"made/{synonyms}"):
        inputs.append(Input(f"data chair {file}", file, truth, 15, "made"))
    return inputs


def _sources(data: Path) -> list[Input]:
    """Where downloaded files came from, as `bench data get` leaves it."""
    name = "pope/repope/coco_repope_random.json"
    content = (data / name).read_bytes()
    row = {"address": "x", "commit": "y", "licence": "MIT"}
    row["sha256"] = hashlib.sha256(content).hexdigest()
    (data / "sources.json").write_text(json.dumps({name: row}))
    check = ("data", "check", "{here}/data")
    return [Input("data check sources.json", "data/sources.json", check, 20)]


def _recorded(here: Path) -> list[Input]:
    """Answers and reviews that somebody recorded."""
    inputs = []
    (here / "given").mkdir()
    for run in sorted(here.glob("run/*/run.json")):
        benchmark = run.parent.name
        rows = []
        for row in read_lines(run.parent / "answers.jsonl"):
            rows.append({"image": row["image"], "question": row["prompt"], "text": row["text"]})
        file = here / "given" / f"{benchmark}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        replay = ("run", "--model", f"replay:{{here}}/given/{benchmark}.jsonl")
        words = (*replay, "--suite", benchmark, "--data", "{here}/data", "--out", "{out}", "--json")
        inputs.append(Input(f"replay {benchmark}", f"given/{file.name}", words, 20))
    for ending in ("xlsx", "csv", "tsv"):
        table = pd.DataFrame(read_lines(here / "given" / "chair.jsonl"))
        file = here / "given" / f"chair.{ending}"
        if ending == "xlsx":
            table.to_excel(file, index=False)
        else:
            table.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
        replay = ("run", "--model", f"replay:{{here}}/given/{file.name}", "--suite", "chair")
        words = (*replay, "--data", "{here}/data", "--out", "{out}", "--json")
        inputs.append(Input(f"replay {ending}", f"given/{file.name}", words, 40))
    _run("export", here / "run", "--format", "lmms-eval", "--out", here / "lmms")
    for benchmark in ("pope", "mmhal"):
        name = f"{benchmark}_samples_{benchmark}.jsonl"
        replay = ("run", "--model", f"replay:{{here}}/lmms/{name}", "--suite", benchmark)
        words = (*replay, "--data", "{here}/data", "--out", "{out}", "--json")
        inputs.append(Input(f"replay lmms {benchmark}", f"lmms/{name}", words, 30))
    reviews = []
    for row in read_lines(here / "run" / "mmhal" / "verdicts.jsonl"):
        reviews.append({"sample": row["sample"], "text": "It is right.\nRating: 6"})
    (here / "reviews.json").write_text(json.dumps(reviews))
    judge = ("judge", "{here}/run/mmhal", "--judge", "replay:{here}/reviews.json", "--json")
    inputs.append(Input("judge replay", "reviews.json", judge, 60, "run"))
    return inputs


def _settings(here: Path) -> list[Input]:
    """Files that the user writes."""
    check = ("check", "{here}/run", "--against", "{here}/reference.json")
    plan = ("check", "{here}/reference.json", "--plan", "--margin", "1")
    (here / "margins.yaml").write_text(
        yaml.safe_dump(
            {"margins": {"POPE accuracy": 0.01}, "floors": {"POPE F1": 0.5}, "drift": 0.5}
        )
    )
    (here / "protocol.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "conversation": "template",
                "system": "",
                "image": "processor",
                "suffix": {"pope": " Answer yes or no."},
                "max_tokens": {"pope": 8},
            }
        )
    )
    shutil.copy(ROOT / "alignment" / "recipes" / "scenes-tiny.yaml", here / "recipe.yaml")
    protocol = ("run", "--model", "llava-tiny", "--suite", "pope", "--data", "{here}/data")
    rest = ("--protocol", "{here}/protocol.yaml", "--limit", "2", "--out", "{out}", "--json")
    recipe = ("align", "{here}/recipe.yaml", "--dry-run", "--out", "{out}")
    return [
        Input("reference", "reference.json", (*check, "--json"), 100),
        Input("reference plan", "reference.json", plan, 60),
        Input("margins", "margins.yaml", (*check, "--margins", "{here}/margins.yaml"), 80),
        Input("protocol", "protocol.yaml", (*protocol, *rest), 80),
        Input("recipe", "recipe.yaml", recipe, 120),
    ]


def _checkpoints(here: Path) -> list[Input]:
    """The files of checkpoints: llava-tiny, other families, in shards, in LLaVA's own format."""
    rest = ("--suite", "pope", "--data", "{here}/data", "--limit", "2", "--out", "{out}", "--json")

    def run(folder: str) -> tuple[str, ...]:
        return ("run", "--model", f"{{here}}/{folder}", *rest)

    shutil.copytree(TINY, here / "checkpoint")
    inputs = _files(here, "checkpoint", run("checkpoint"), 30)
    for kind in FAMILIES:
        make_model(kind, here / kind)
        inputs += _files(here, kind, run(kind), 3)
    model = hf.AutoModelForImageTextToText.from_pretrained(here / "smolvlm")
    shutil.copytree(here / "smolvlm", here / "shards", ignore=shutil.ignore_patterns("model.*"))
    model.save_pretrained(here / "shards", max_shard_size="100KB")
    inputs += _files(here, "shards", run("shards"), 8)
    write_original(here / "original", lora=True)
    convert = ("convert", "{here}/original/llava", "{out}")
    for folder in ("tower", "llava", "adapter"):
        inputs += _files(here, f"original/{folder}", convert, 8)
    inputs += _files(here, "original/adapter", ("convert", "{here}/original/adapter", "{out}"), 8)
    return inputs + _files(here, "original/llava", run("original/llava"), 4)


def _files(
    here: Path, folder: str, words: tuple[str, ...], cost: int, changes: str | None = None
) -> list[Input]:
    """The files of a checkpoint that the command reads."""
    inputs = []
    for name in (
        "config.json",
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "processor_config.json",
        "preprocessor_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "non_lora_trainables.bin",
    ):
        if (here / folder / name).is_file():
            inputs.append(Input(f"{folder} {name}", f"{folder}/{name}", words, cost, changes))
    return inputs


def _alignment(here: Path) -> list[Input]:
    """What an alignment reads: prompts, pictures, a reward model, pairs; and what it leaves."""
    reward_model(here / "reward-model")
    tiny_judge(here / "judge")
    shutil.copytree(here / "data" / "images", here / "pictures")
    rows = []
    for file in sorted((here / "pictures").rglob("*.png"))[:3]:
        name = file.relative_to(here / "pictures").as_posix()
        rows.append({"prompt": "a dog", "image": name, "instructions": ["Describe the image."]})
    (here / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dpo = {"model": "llava-tiny", "batch": 4, "lora": {"rank": 4, "alpha": 8}}
    recipe = {
        "name": "small",
        "prompts": {"kind": "file", "path": "prompts.jsonl"},
        "images": {"kind": "folder", "path": "pictures"},
        "responses": {"models": ["llava-tiny"], "samples": 4, "temperature": 1.5, "max_tokens": 32},
        "rewards": {"kind": "classifier", "model": str(here / "reward-model")},
        "preferences": {"margin": 0.0},
        "dpo": dpo,
    }
    (here / "small.yaml").write_text(yaml.safe_dump(recipe))
    longer = recipe | {"dpo": dpo | {"batch": 1, "epochs": 2}}
    (here / "longer.yaml").write_text(yaml.safe_dump(longer))
    _run("align", here / "small.yaml", "--out", here / "aligned")
    (preferences,) = (here / "aligned").glob("preferences-*")
    (pictures,) = (here / "aligned").glob("images-*")
    shutil.copytree(next((here / "aligned").glob("dpo-*")) / "adapter", here / "adapter")
    for name in ("pairs.json", "pairs.parquet"):
        _run("data", "pairs", preferences, "--out", here / name)
        released = {"path": name, "images": str(pictures)}
        (here / f"{name}.yaml").write_text(
            yaml.safe_dump({"name": "released", "pairs": released, "dpo": dpo})
        )
    align = ("align", "{here}/small.yaml", "--out", "{out}")
    stage = preferences.relative_to(here).as_posix()
    pairs = ("data", "pairs", f"{{here}}/{stage}", "--out", "{here}/again.json")
    adapted = ("run", "--model", "llava-tiny+{here}/adapter", "--suite", "pope", "--limit", "2")
    judged = ("judge", "{here}/run/mmhal", "--judge", "hf:{here}/judge", "--json")
    return [
        *_half_made(here),
        *_other_rewards(here, recipe),
        Input("prompts", "prompts.jsonl", align, 15),
        *(
            Input(name, name, ("align", f"{{here}}/{name}.yaml", "--out", "{out}"), 15)
            for name in ("pairs.json", "pairs.parquet")
        ),
        *_files(here, "reward-model", align, 8),
        *_files(here, "judge", (*judged, "--judge-max-tokens", "4"), 8, "run"),
        *_files(here, "adapter", (*adapted, "--data", "{here}/data", "--out", "{out}"), 20),
        *(
            Input(f"data pairs {name}", f"{stage}/{name}", pairs, 20)
            for name in ("pairs.jsonl", "manifest.json")
        ),
    ]


def _other_rewards(here: Path, recipe: dict[str, Any]) -> list[Input]:
    """Checkpoints of a CLIP, of ArmoRM and, where diffusers is installed, of a painter."""
    clip_model(here / "clip")
    armorm(here / "armorm")
    rewards = {
        "clip": {"kind": "clip", "model": str(here / "clip")},
        "armorm": {"kind": "classifier", "model": str(here / "armorm")},
    }
    recipes = {name: recipe | {"rewards": reward} for name, reward in rewards.items()}
    shutil.copytree(here / "aligned", here / "rewarded")
    if importlib.util.find_spec("diffusers"):
        scorer = str(image_reward(here / "painter" / "scorer"))
        painter = {
            "kind": "diffusers",
            "model": str(sd3_pipeline(here / "painter" / "sd3")),
            "steps": 2,
            "side": 32,
            "guidance": [5.0, 7.0],
            "reward": {"kind": "imagereward", "model": scorer, "processor": scorer},
        }
        (here / "subjects.txt").write_text("a dog\na cat\na bus\n")
        subjects = {"kind": "file", "path": "subjects.txt", "instructions": ["Describe it."]}
        recipes["painter"] = recipe | {"prompts": subjects, "images": painter}
    inputs = []
    for name, content in recipes.items():
        (here / f"{name}.yaml").write_text(yaml.safe_dump(content))
        words = ("align", f"{{here}}/{name}.yaml", "--out", "{here}/rewarded")
        for file in sorted((here / name).rglob("*")):
            if file.is_file():
                path = file.relative_to(here).as_posix()
                inputs.append(Input(path, path, words, 2, "rewarded"))
    return inputs


def _half_made(here: Path) -> list[Input]:
    """What a killed alignment left: stages without their manifest go on from their lines."""
    inputs = []
    for stage in ("images", "responses", "rewards", "preferences", "dpo"):
        half = shutil.copytree(here / "aligned", here / f"half-{stage}")
        for later in list(STAGES)[list(STAGES).index(stage) :]:
            for manifest in half.glob(f"{later}-*/{MANIFEST}"):
                manifest.unlink()
        words = ("align", "{here}/small.yaml", "--out", f"{{here}}/{half.name}")
        for file in sorted(half.glob(f"{stage}-*/**/*.json*")):
            path = file.relative_to(here).as_posix()
            inputs.append(Input(f"half-made {path}", path, words, 6, half.name))
    half = shutil.copytree(here / "aligned", here / "half-training")
    words = ("align", "{here}/longer.yaml", "--out", "{here}/half-training")
    _kill_training(tuple(word.format(here=here) for word in words))
    for file in sorted(half.glob("dpo-*/checkpoint-*/*")):
        path = file.relative_to(here).as_posix()
        inputs.append(Input(f"half-made {path}", path, words, 6, half.name))
    return inputs


def _kill_training(words: tuple[str, ...]) -> None:
    """Kills an alignment when its training has taken its last step."""

    def dying() -> None:
        from bench.cli.main import app

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.rename" and str(arguments[1]).endswith(TRAINED):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        app(list(words))

    outcome = forked.in_child(dying, 60)
    assert outcome.code == -signal.SIGKILL, outcome.err

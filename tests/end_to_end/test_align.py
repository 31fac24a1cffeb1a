"""`bench align` from prompts to a measured adapter: on scenes, and the 7B recipe on tiny models of
its kind."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file

from alignment import pipeline
from alignment.export import write_released, write_trl
from alignment.recipe import read_recipe
from alignment.settings import RecipeError
from alignment.stages.released_pairs import read_released
from bench.errors import StoreError
from bench.files import read_lines
from bench.scenes.facts import synonym_lines
from tests.conftest import ROOT, bench
from tests.loopback_chat import chat_server, completion

RECIPES = ROOT / "alignment" / "recipes"


def recipe_in(folder: Path, name: str, **changes) -> Path:
    """A shipped recipe with parts changed, as a file in `folder`."""
    content = yaml.safe_load((RECIPES / name).read_text())
    for part, change in changes.items():
        content[part] = (
            change if not isinstance(change, dict) or "kind" in change else content[part] | change
        )
    file = folder / name
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The scenes recipe, made small, and the folder of its finished artifacts."""
    folder = tmp_path_factory.mktemp("align")
    file = recipe_in(
        folder,
        "scenes-tiny.yaml",
        prompts={"count": 12, "per_prompt": 3},
        responses={"samples": 3},
        preferences={"margin": 0.1},
        dpo={"batch": 4},
        evaluate={"suite": ["pope", "chair"], "limit": 24},
    )
    done = bench("align", file, "--out", folder / "out", "--json")
    assert done.returncode == 0, done.stderr
    return file, folder / "out", json.loads(done.stdout)


def test_it_ends_in_a_paired_comparison(small):
    _, _, summary = small
    figures = {row["figure"]: row for row in summary["aligned"][0]["figures"]}
    assert {"POPE accuracy", "CHAIRs", "CHAIR recall", "CHAIR words"} <= figures.keys()
    for row in figures.values():
        # What a few steps have made of the model may say so little that nothing is known.
        if None not in row["difference"]:
            assert row["difference"][0] == pytest.approx(row["aligned"][0] - row["base"][0])
            assert row["difference"][1] <= row["difference"][0] <= row["difference"][2]
    table = (small[1] / "results.md").read_text()
    assert (
        f"| CHAIRs | {100 * figures['CHAIRs']['base'][0]:.1f} | {100 * figures['CHAIRs']['aligned'][0]:.1f} ("
        in table
    )


def test_caveats_stand_below_the_table(small):
    _, out, summary = small
    for row in summary["aligned"][0]["figures"]:
        assert any(text.startswith("limited to 24 of") for text in row["caveats"]), row["figure"]
    table = (out / "results.md").read_text()
    assert "‡ POPE accuracy" in table and "limited to 24 of 9,000 samples." in table


def test_every_stage_leaves_its_artifact_and_where_it_came_from(small):
    _, out, _ = small
    manifests = {
        m["stage"]: m for m in (json.loads(f.read_text()) for f in out.glob("*/manifest.json"))
    }
    assert manifests.keys() == pipeline.STAGES.keys()
    for name, (_, sources) in pipeline.STAGES.items():
        assert manifests[name]["inputs"] == {
            source: manifests[source]["sha256"] for source in sources
        }
    assert (next(out.glob("preferences-*")) / "pairs.png").stat().st_size > 5000


def test_nothing_is_done_twice(small):
    file, out, summary = small
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/manifest.json")}
    again = bench("align", file, "--out", out, "--json")
    assert json.loads(again.stdout) == summary
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/manifest.json")} == before


def test_a_dry_run_says_what_would_be_done_and_does_nothing(small, tmp_path):
    file, out, _ = small
    done = bench("align", file, "--out", tmp_path / "none", "--variants", "all", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "responses        216 responses" in done.stdout
    assert "scenes-tiny-shuffled" in done.stdout
    assert not (tmp_path / "none").exists()
    assert "not timed yet" not in bench("align", file, "--out", out, "--dry-run").stdout


def test_variants_share_the_stages_that_they_have_in_common(small):
    file, out, _ = small
    base, facts = read_recipe(file), read_recipe(file).variant("facts")
    artifacts = [
        pipeline.align(recipe.model_copy(update={"evaluate": None}), out, print)
        for recipe in (base, facts)
    ]
    assert artifacts[0]["responses"].folder == artifacts[1]["responses"].folder
    assert artifacts[0]["rewards"].folder != artifacts[1]["rewards"].folder


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_vanished_or_changed_input_is_named(small, tmp_path, damage):
    file, out, _ = small
    copy = shutil.copytree(out, tmp_path / "copy")
    for folder in copy.glob("preferences-*"):
        shutil.rmtree(folder)
    lines = next(copy.glob("responses-*")) / "responses.jsonl"
    lines.unlink() if damage == "gone" else lines.write_text(lines.read_text() + "{}\n")
    with pytest.raises(StoreError, match=r"responses\.jsonl (is gone|was changed)"):
        pipeline.align(read_recipe(file), copy, print)


@contextlib.contextmanager
def file_size_limit(size: int):
    """Files of this process cannot grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stage", ["images", "responses", "rewards"])
def test_a_stage_stopped_in_its_middle_goes_on_to_the_same_artifact(small, tmp_path, stage):
    """A real limit on the size of files, as a full disk: the write fails in the middle."""
    file, out, _ = small
    recipe = read_recipe(file).model_copy(update={"evaluate": None})
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for name in list(pipeline.STAGES)[list(pipeline.STAGES).index(stage) :]:
        for folder in copy.glob(f"{name}-*"):
            shutil.rmtree(folder)
    finished = next(out.glob(f"{stage}-*")) / f"{stage}.jsonl"
    refused = pytest.raises(StoreError, match=r"Stage .* stopped|cannot be written")
    with file_size_limit(finished.stat().st_size // 2), refused:
        pipeline.align(recipe, copy, print)
    assert not list(copy.glob(f"{stage}-*/manifest.json"))
    artifacts = pipeline.align(recipe, copy, print)
    for name in ("images", "responses", "rewards", "preferences"):
        first = json.loads(
            (next(out.glob(f"{artifacts[name].folder.name}")) / "manifest.json").read_text()
        )
        assert artifacts[name].manifest["sha256"] == first["sha256"], name


def test_pairs_are_exported_with_their_pictures(small, tmp_path):
    _, out, _ = small
    folder = next(out.glob("preferences-*"))
    for name in ("pairs.json", "pairs.parquet"):
        done = bench("data", "pairs", folder, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    rows = read_lines(folder / "pairs.jsonl")
    assert [row["chosen"] for row in read_released(tmp_path / "pairs.json")] == [
        row["chosen"] for row in rows
    ]
    loaded = Dataset.from_parquet(str(tmp_path / "pairs.parquet"))
    assert len(loaded) == len(rows)
    assert loaded[0]["images"][0].size == (128, 128)
    wrong = bench("data", "pairs", out, "--out", tmp_path / "x.json")
    assert wrong.returncode == 2
    assert "holds no pairs" in wrong.stderr


KILL_WHEN = {  # a file of the stage that is there in its middle
    "prompts": "prompts-*",
    "images": "images-*/images.jsonl",
    "responses": "responses-*/responses.jsonl",
    "rewards": "rewards-*/grounding.jsonl",
    "preferences": "preferences-*",
    "dpo": "dpo-*/checkpoint-*",
    "evaluate": "runs/*/*/answers.jsonl",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", KILL_WHEN)
def test_a_pipeline_killed_in_any_stage_ends_as_an_undisturbed_one(small, tmp_path, stage):
    file, undisturbed, summary = small
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from bench.cli.main import app; app()",
        "align",
        str(file),
        "--out",
        str(out),
        "--json",
    ]
    victim = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not any(out.glob(KILL_WHEN[stage])):
        assert victim.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    victim.kill()
    victim.wait()
    assert not any(
        (out / path.parent.name / "manifest.json").exists()
        for path in undisturbed.glob("evaluate-*/*.json")
    )
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == summary
    for name in ("prompts", "images", "responses", "rewards", "preferences"):
        artifacts = [
            json.loads(next(folder.glob(f"{name}-*/manifest.json")).read_text())
            for folder in (out, undisturbed)
        ]
        assert artifacts[0]["sha256"] == artifacts[1]["sha256"], name


def brief(checkpoint: Path, folder: Path) -> Path:
    """A copy of a random checkpoint whose answers end after some tokens, as trained models' do."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    end = json.loads((folder / "config.json").read_text())["text_config"]["eos_token_id"]
    head = next(name for name in weights if name.endswith("lm_head.weight"))
    weights[head][end] *= 4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """The `images:` of the 7B recipes on a tiny SD3 and a tiny CLIP."""
    from tests.tiny_pipelines import clip_model, sd3_pipeline

    folder = tmp_path_factory.mktemp("painter")
    return {
        "kind": "diffusers",
        "model": str(sd3_pipeline(folder / "sd3")),
        "steps": 2,
        "side": 32,
        "guidance": [5.0, 7.0],
        "reward": {"kind": "clip", "model": str(clip_model(folder / "clip"))},
    }


def test_the_7b_recipe_runs_on_tiny_models_of_its_architectures(tiny, tmp_path, painter):
    from tests.tiny_pipelines import reward_model

    questions = ["What is on the table?", "Describe it."]
    lines = [
        {"prompt": f"a {name} on a table", "instructions": questions}
        for name in ("dog", "cup", "book", "cat")
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = recipe_in(
        tmp_path,
        "synthalign-llava-7b.yaml",
        images=painter,
        responses={
            "models": [str(brief(tiny("llava_next"), tmp_path / "brief"))],
            "samples": 3,
            "max_tokens": 48,
        },
        rewards={"kind": "classifier", "model": str(reward_model(tmp_path / "reward"))},
        dpo={
            "model": str(tiny("llava")),
            "batch": 2,
            "accumulate": 1,
            "gradient_checkpointing": True,
        },
        evaluate=None,
    )
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    images = read_lines(next(out.glob("images-*")) / "images.jsonl")
    assert [len(row["candidates"]) for row in images] == [2] * 4
    assert all(max(c["score"] for c in row["candidates"]) != 0 for row in images)
    assert (next(out.glob("dpo-*")) / "adapter" / "adapter_model.safetensors").is_file()


def test_the_7b_grounding_recipe_runs_with_written_prompts_and_a_panel(tiny, tmp_path, painter):
    (tmp_path / "synonyms_LisaAnne.txt").write_text(synonym_lines())
    mute = 2  # requests that get no JSON

    def write(number, body):
        prompt = body["messages"][0]["content"].partition("photograph of ")[2].partition(".")[0]
        reply = {
            "prompt": f"A photo of {prompt}.",
            "instructions": ["Describe the image in detail.", "What is here?"],
        }
        return completion("I cannot." if number <= mute else f"Here it is:\n{json.dumps(reply)}")

    with chat_server(write) as (url, seen):
        file = recipe_in(
            tmp_path,
            "synthalign-llava-7b-grounding.yaml",
            prompts={"count": 6, "writer": f"openai:writer@{url}"},
            images=painter,
            responses={"models": ["llava-tiny", "llava-tiny-b"], "samples": 3, "max_tokens": 48},
            rewards={"models": ["llava-tiny", str(tiny("llava_next"))]},
            preferences={"margin": 0.1},
            dpo={"model": str(tiny("llava")), "batch": 2, "accumulate": 1},
            evaluate=None,
        )
        done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(seen) == 6
    out = tmp_path / "out"
    prompts = read_lines(next(out.glob("prompts-*")) / "prompts.jsonl")
    assert len(prompts) == 6 - mute
    assert all(
        row["prompt"].startswith("A photo of a") and len(row["instructions"]) == 2
        for row in prompts
    )
    rows = read_lines(next(out.glob("rewards-*")) / "grounding.jsonl")
    assert len({row["model"] for row in rows}) == 2
    assert (next(out.glob("dpo-*")) / "adapter" / "adapter_model.safetensors").is_file()


def test_a_vanished_vocabulary_or_prompt_file_is_told(tmp_path):
    file = recipe_in(tmp_path, "synthalign-llava-7b.yaml")
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"{tmp_path / 'prompts.jsonl'}" in done.stderr


def test_the_released_pairs_are_read_trained_on_and_written_again(shared, tiny, tmp_path):
    source = shared / "images" / "synthetic" / "step3_sanity.json"
    file = tmp_path / "released.yaml"
    pairs = {"path": str(source), "images": str(shared / "images" / "synthetic")}
    known = {row["image"].rsplit("/")[-1] for row in read_released(source)}
    if not (
        Path(pairs["images"]) / "images"
    ).is_dir():  # they lie beside the file here, in images/ as released
        (tmp_path / "pictures" / "images").mkdir(parents=True)
        for name in known:
            shutil.copy(
                shared / "images" / "synthetic" / name, tmp_path / "pictures" / "images" / name
            )
        pairs["images"] = str(tmp_path / "pictures")
    dpo = {
        "model": str(tiny("llava")),
        "batch": 2,
        "learning_rate": 1e-3,
        "lora": {"rank": 4, "alpha": 8},
    }
    file.write_text(yaml.safe_dump({"name": "released", "pairs": pairs, "dpo": dpo}))
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    artifacts = next((tmp_path / "out").glob("preferences-*"))
    rows = read_lines(artifacts / "pairs.jsonl")
    assert len(read_released(source)) == 10
    assert len(rows) == 8  # two of the released rows have an empty rejected response
    assert json.loads((artifacts / "manifest.json").read_text())["counts"]["empty"] == 2
    assert (
        next((tmp_path / "out").glob("dpo-*")) / "adapter" / "adapter_model.safetensors"
    ).is_file()
    write_released(read_released(source), tmp_path / "again.json")
    assert read_released(tmp_path / "again.json") == read_released(source)
    write_trl(rows, artifacts, tmp_path / "pairs.parquet")
    loaded = Dataset.from_parquet(str(tmp_path / "pairs.parquet"))
    assert loaded[0]["chosen"][0]["content"] == rows[0]["chosen"]
    assert loaded[0]["images"][0].size[0] > 100


@pytest.mark.parametrize(
    "text", ["", "{}", "[3]", '[{"id": 1}]', '[{"id": 1, "image": "a", "conversations": []}]']
)
def test_what_is_not_in_the_released_format_is_told(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RecipeError, match="released format"):
        read_released(tmp_path / "bad.json")

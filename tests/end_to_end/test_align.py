"""`bench align` from prompts to a measured adapter: on scenes, and the 7B recipe on tiny models of
its kind."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file

from alignment import pipeline
from alignment.export import write_released, write_trl
from alignment.plan import plan
from alignment.recipe import read_recipe
from alignment.seeds import tables
from alignment.settings import RecipeError
from alignment.stages import evaluate
from alignment.stages.pair_formats import read_pairs
from bench.cli.main import app
from bench.errors import StoreError
from bench.files import read_lines
from bench.runs.run import Run
from tests.conftest import ROOT, bench
from tests.faults import forked
from tests.loopback_chat import chat_server, completion
from tests.loopback_hub import client_of, hub_server
from tests.tiny_pipelines import recipe_in


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The scenes recipe, made small, and the folder of its finished artifacts."""
    folder = tmp_path_factory.mktemp("align")
    file = recipe_in(
        folder,
        "scenes-tiny.yaml",
        prompts={"count": 12, "per_prompt": 3},
        responses={"samples": 3},
        rewards={"threshold": "auto"},
        preferences={"margin": 0.1},
        dpo={"batch": 4},
        evaluate={"suite": ["pope", "chair"], "limit": 24},
    )
    done = bench("align", file, "--out", folder / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, "peft would look for the base's config at the hub"
    # What it says is next can be typed.
    (look,) = [line for line in done.stderr.splitlines() if line.startswith("to look: bench ")]
    assert bench(*look.split()[3:]).returncode == 0
    assert (folder / "out" / "report" / "index.html").is_file()
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
    (base, aligned), *_ = summary["aligned"][0]["runs"]
    assert Run(Path(base)).model == "llava-tiny on scenes"
    assert Run(Path(aligned)).record["model"]["adapter_sha256"]
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


def test_two_recipes_share_what_they_can_and_end_in_one_table(small, tmp_path):
    file, out, _ = small
    content = yaml.safe_load(file.read_text())
    content |= {"name": "by-facts", "rewards": {"kind": "facts"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    done = bench("align", file, tmp_path / "other.yaml", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    one, other = json.loads(done.stdout)["aligned"]
    assert (one["recipe"], other["recipe"]) == ("scenes-tiny", "by-facts")
    assert other["pairs"] > 0 and other["updates"] == -(-other["pairs"] // 4)
    assert len(list(out.glob("responses-*"))) == 1
    lines = (out / "results.md").read_text().splitlines()
    assert lines[2] == "|  | base | scenes-tiny | by-facts |"
    budgets = [f"{result['pairs']}, {result['updates']}" for result in (one, other)]
    assert lines[4] == f"| pairs, updates | – | {budgets[0]} | {budgets[1]} |"


def test_several_seeds_end_in_one_table_and_beside_controls(small):
    """Two trainings that came out alike, and a control that is the base itself."""
    file, out, summary = small
    # Other tests' recipes have left their artifacts there too.
    runs = pipeline.runs(pipeline.align(read_recipe(file), out, print))
    as_base = [evaluate.RunPair(pair.base, pair.base) for pair in runs]
    results = []
    for name, pairs in (("main", runs), ("untrained", as_base)):
        for seed in (0, 1):
            results.append(evaluate.RecipeResults(name, seed, [], 1, 1, pairs))
    first, second = tables(results, ["untrained"]).split("control → main:")
    row = next(row for row in summary["aligned"][0]["figures"] if row["figure"] == "CHAIR recall")
    base, aligned = (f"{100 * row[side][0]:.1f}" for side in ("base", "aligned"))
    change = f"{100 * row['difference'][0]:+.1f}"
    cells = next(line for line in first.splitlines() if line.startswith("| CHAIR recall |"))
    assert f"| {base} → {aligned} (σ 0.0), {change} [" in cells
    assert f"| {base} → {base} (σ 0.0), +0.0 [" in cells
    assert "Means over seeds 0, 1" in first
    cells = next(line for line in second.splitlines() if line.startswith("| CHAIR recall |"))
    assert f"| {base} → {aligned} (σ 0.0), {change} [" in cells


@pytest.mark.slow
def test_seeds_of_a_recipe_and_its_control_are_trained_and_compared(small, tmp_path):
    file, finished, _ = small
    out = shutil.copytree(finished, tmp_path / "out")
    content = yaml.safe_load(file.read_text()) | {"controls": ["shuffled"]}
    file = tmp_path / "controlled.yaml"
    file.write_text(yaml.safe_dump(content))
    done = bench("align", file, "--variants", "shuffled", "--seeds", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    text = (out / "results.md").read_text()
    assert text.startswith("Means over seeds 0, 1, base → recipe:")
    assert "control → scenes-tiny:" in text and "Seed 1:" in text
    assert len(list(out.glob("dpo-*"))) >= 4


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


@pytest.mark.parametrize(
    "stage",
    [
        "rewards",
        pytest.param("images", marks=pytest.mark.slow),
        pytest.param("responses", marks=pytest.mark.slow),
    ],
)
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
    for file in copy.glob(f".{stage}-*.seconds"):
        file.write_text("5000")  # as if the stopped session had been long
    artifacts = pipeline.align(recipe, copy, print)
    assert 5000 < artifacts[stage].manifest["seconds"] < 6000
    assert not list(copy.glob(".*.seconds"))
    for name in ("images", "responses", "rewards", "preferences"):
        first = json.loads(
            (next(out.glob(f"{artifacts[name].folder.name}")) / "manifest.json").read_text()
        )
        assert artifacts[name].manifest["sha256"] == first["sha256"], name


def test_what_a_kill_left_beside_a_manifest_is_no_part_of_an_artifact(small, tmp_path):
    """The manifest had been written under its first name, and not been renamed."""
    file, out, _ = small
    recipe = read_recipe(file).model_copy(update={"evaluate": None})
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    first = pipeline.align(recipe, copy, print)
    for name in ("preferences", "dpo"):
        manifest = first[name].folder / "manifest.json"
        manifest.rename(manifest.with_name("manifest.json.tmp"))
    again = pipeline.align(recipe, copy, print)
    for name in ("preferences", "dpo"):
        assert again[name].manifest["files"] == first[name].manifest["files"]
        assert not list(again[name].folder.rglob("*.tmp"))
    pipeline.check(again["dpo"])


def test_pairs_are_exported_with_their_pictures(small, tmp_path):
    _, out, _ = small
    folder = next(out.glob("preferences-*"))
    for name in ("pairs.json", "pairs.parquet"):
        done = bench("data", "pairs", folder, "--out", tmp_path / "new" / name)
        assert done.returncode == 0, done.stderr
    assert str(out).encode() not in (tmp_path / "new" / "pairs.parquet").read_bytes(), "no paths"
    rows = read_lines(folder / "pairs.jsonl")
    assert [pair.chosen for pair in read_pairs(tmp_path / "new" / "pairs.json")] == [
        row["chosen"] for row in rows
    ]
    loaded = Dataset.from_parquet(str(tmp_path / "new" / "pairs.parquet"))
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
    ended = json.loads(done.stdout)
    for item in (*ended["aligned"], *summary["aligned"]):
        item.pop("runs", None)  # they lie in another folder
    assert ended == summary
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
    """The `images:` of the 7B recipes on a tiny SD3 and a tiny ImageReward."""
    from tests.tiny_pipelines import image_reward, sd3_pipeline

    folder = tmp_path_factory.mktemp("painter")
    reward = str(image_reward(folder / "reward"))
    return {
        "kind": "diffusers",
        "model": str(sd3_pipeline(folder / "sd3")),
        "steps": 2,
        "side": 32,
        "guidance": [5.0, 7.0],
        "reward": {"kind": "imagereward", "model": reward, "processor": reward},
    }


def test_the_7b_recipe_runs_on_tiny_models_of_its_architectures(tiny, tmp_path, painter):
    """SD3, ImageReward, LLaVA-NeXT, ArmoRM and LLaVA in their published layouts, no class replaced."""
    from tests.tiny_pipelines import armorm

    questions = ["What is on the table?", "Describe it."]
    subjects = []

    def write(number, body):
        subjects.append(body["messages"][0]["content"].partition("photograph of ")[2])
        return completion(json.dumps({"prompt": "a dog on a table", "instructions": questions}))

    with chat_server(write) as (url, _):
        file = recipe_in(
            tmp_path,
            "synthalign-llava-7b.yaml",
            prompts={"count": 15, "writer": f"openai:writer@{url}", "per_prompt": 2},
            images=painter,
            responses={
                "models": [str(brief(tiny("llava_next"), tmp_path / "brief"))],
                "samples": 3,
                "max_tokens": 48,
            },
            rewards={"model": str(armorm(tmp_path / "reward"))},
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
    assert len(set(subjects)) == 15  # one of each category
    images = read_lines(next(out.glob("images-*")) / "images.jsonl")
    assert [len(row["candidates"]) for row in images] == [2] * 15
    for row in images:
        assert max(candidate["score"] for candidate in row["candidates"]) != 0
    assert (next(out.glob("dpo-*")) / "adapter" / "adapter_model.safetensors").is_file()


def test_all_that_would_stop_a_recipe_is_told_before_it_costs_anything(tiny, tmp_path, monkeypatch):
    """A missing folder of a model, a library and a key, each needed hours later."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "deepspeed" else find(name)
    )
    file = recipe_in(
        tmp_path,
        "scenes-tiny.yaml",
        rewards={"kind": "classifier", "model": str(tmp_path / "nowhere" / "reward")},
        dpo={"launch": "zero2 --num_processes 2"},
        evaluate={"suite": ["mmhal"], "judge": "openai:gpt-4o"},
    )
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 2
    for fault in ("3 stages cannot run", "nowhere/reward", "DeepSpeed is not", "OPENAI_API_KEY"):
        assert fault in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_before_the_first_stage(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    done = bench("align", "scenes-tiny", "--out", tmp_path / "new" / "out")
    assert done.returncode == 2
    assert "no room for scenes-tiny" in done.stderr and "has 0.0 GB" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_what_is_missing_first(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = recipe_in(
        tmp_path,
        "scenes-tiny.yaml",
        prompts={"kind": "file", "path": "prompts.jsonl"},
        evaluate={"suite": ["mmhal"], "judge": "openai:gpt-4o"},
    )
    done = bench("align", file, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"scenes-tiny: missing: prompts.path: there is no {tmp_path / 'prompts.jsonl'}"
    )
    assert "OPENAI_API_KEY is not set" in lines[1]
    assert any(line.startswith("  prompts") and " ? prompts" in line for line in lines)
    # An empty line is none; U+2028 ends none.
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat\u2028"}\n\n{"prompt": "a dog"}\n')
    plan = bench("align", file, "--dry-run").stdout
    assert re.search(r"^  prompts +2 prompts", plan, re.MULTILINE), plan


def test_sizes_come_from_the_hub_and_nothing_is_downloaded(tiny, tmp_path):
    def files_of(folder):
        files = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = file.read_bytes()
        return files

    base = tiny("llava")
    pipeline_files = {
        "model_index.json": b"{}",
        "sd3_medium.safetensors": bytes(9_000_000),
        "transformer/diffusion_pytorch_model.safetensors": bytes(3_000_000),
        "transformer/diffusion_pytorch_model.fp16.safetensors": bytes(1_500_000),
        "vae/diffusion_pytorch_model.safetensors": bytes(1_000_000),
    }
    repositories = {
        ("model", "llava-hf/base"): files_of(base),
        ("model", "us/painter"): pipeline_files,
        ("model", "us/reward"): {"model.safetensors": bytes(2_000_000), "config.json": b"{}"},
    }
    with hub_server(repositories) as hub:
        file = recipe_in(
            tmp_path,
            "synthalign-llava-7b.yaml",
            images={"model": "us/painter", "reward": None},
            responses={"models": ["llava-hf/base"]},
            rewards={"model": "us/reward"},
            dpo={"model": "llava-hf/base"},
        )
        with client_of(hub, tmp_path / "home"):
            stages = plan(read_recipe(file), Path("nowhere")).stages
    memory = {stage.stage: stage.memory for stage in stages}
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    assert memory["images"] == 4_000_000
    assert memory["rewards"] == 2_000_000
    assert memory["responses"] == memory["evaluate"] == weights
    assert weights < memory["dpo"] < 100 * weights
    assert not any(".safetensors" in request for request in hub.requests if "resolve" in request)


def test_two_processes_on_one_folder_make_each_stage_once(tmp_path):
    file = recipe_in(
        tmp_path,
        "scenes-tiny.yaml",
        prompts={"count": 8, "per_prompt": 3},
        responses={"models": ["llava-tiny"], "samples": 3},
        preferences={"margin": 0.0},
        dpo={"batch": 4},
        evaluate=None,
    )
    out = tmp_path / "out"
    words = ["align", str(file), "--out", str(out)]
    other = forked.started(partial(app, words), 300)
    while not any(out.glob("prompts-*")):
        assert not other.done(), "it ended before it began"
        time.sleep(0.01)
    here = bench(*words)
    there = other.result()
    errors = [here.stderr, there.err]
    assert [here.returncode, there.code] == [0, 0], errors
    assert any("another process makes" in text for text in errors), errors
    rows = read_lines(next(out.glob("responses-*")) / "responses.jsonl")
    assert len(rows) == len({row["key"] for row in rows}) == 8 * 3 * 3
    for name in ("prompts", "images", "responses", "rewards", "preferences", "dpo"):
        assert len(list(out.glob(f"{name}-*"))) == 1
        # Made by one of them, and found by the other.
        assert sum(f"{name}: done before" in text for text in errors) == 1, name


def test_rows_that_another_program_doubled_are_refused(tmp_path):
    file = recipe_in(tmp_path, "scenes-tiny.yaml", prompts={"count": 4}, evaluate=None)
    recipe = read_recipe(file)
    out = tmp_path / "out"
    with pytest.raises(StopIteration):
        pipeline.align(recipe, out, _stop_behind("prompts"))
    lines = next(out.glob("prompts-*")) / "prompts.jsonl"
    lines.write_text(lines.read_text() * 2)
    with pytest.raises(StoreError, match="holds 4 rows twice"):
        pipeline._check_keys(lines.parent)


def _stop_behind(name):
    def report(line):
        if line.startswith(f"{name}:"):
            raise StopIteration

    return report


def test_the_7b_grounding_recipe_runs_with_written_prompts_and_a_panel(
    tiny, tmp_path, painter, shared, monkeypatch
):
    nltk = pytest.importorskip("nltk", reason="needs NLTK: tox -e official")
    # The command runs in this process, where NLTK has read its environment already.
    monkeypatch.setattr(nltk.data, "path", [str(shared / "nltk_data")])
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
            # Noise is agreed on by nobody, so no threshold could be chosen.
            rewards={"models": ["llava-tiny", str(tiny("llava_next"))], "threshold": 0.5},
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
    prompts = {"kind": "file", "path": "prompts.jsonl"}
    file = recipe_in(tmp_path, "synthalign-llava-7b.yaml", prompts=prompts)
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"{tmp_path / 'prompts.jsonl'}" in done.stderr


def test_the_released_pairs_are_read_trained_on_and_written_again(shared, tiny, tmp_path):
    source = shared / "images" / "synthetic" / "step3_sanity.json"
    pairs = {"path": str(source), "images": str(shared / "images" / "synthetic")}
    released = list(read_pairs(source))
    known = {pair.images[0].rsplit("/")[-1] for pair in released}
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
    file = recipe_in(
        tmp_path,
        "synthalign-llava-7b-released.yaml",
        pairs=pairs | {"hub": None},
        dpo=dpo,
        evaluate=None,
    )
    done = bench("align", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    artifacts = next((tmp_path / "out").glob("preferences-*"))
    rows = read_lines(artifacts / "pairs.jsonl")
    assert len(released) == 10
    assert len(rows) == 10
    assert sum(not row["rejected"] for row in rows) == 2  # trained on, as the authors do
    assert json.loads((artifacts / "manifest.json").read_text())["counts"]["empty"] == 0
    assert (
        next((tmp_path / "out").glob("dpo-*")) / "adapter" / "adapter_model.safetensors"
    ).is_file()
    write_released(rows, tmp_path / "again.json")
    again = [pair._replace(images=()) for pair in read_pairs(tmp_path / "again.json")]
    assert again == [pair._replace(images=()) for pair in released]
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
        list(read_pairs(tmp_path / "bad.json"))

"""Training: our batches give trl's own losses, its traps are told, and a killed training ends as
an undisturbed one."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignment.settings import RecipeError
from alignment.stages import dpo
from alignment.training.launch import check_launch
from alignment.training.pair_trainer import PairTrainer
from alignment.training.settings import Lora, Training
from alignment.training.trainer import make_trainer, use_reference
from bench.data.images import read_image
from bench.files import append_lines
from bench.models.hf import HFModel
from tests.conftest import scene_stages
from tests.faults import forked


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A llava-tiny with random weights."""
    from bench.scenes.llava_tiny import architecture as tiny
    from bench.scenes.llava_tiny import train

    trainer = train.Trainer(train.RECIPES["llava-tiny"], ())
    with torch.no_grad():
        for weight in trainer.model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    folder = tmp_path_factory.mktemp("untrained")
    trainer.model.save_pretrained(folder)
    tiny.processor(trainer.words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Stage folders with pictures and six pairs of unequal length."""

    def texts(number):
        instruction = "What does the image show?"
        if number % 3:
            instruction = "Describe the image in detail."
        chosen = "The image shows a dog and a cat in a park."
        if number % 2:
            chosen += " There is also a person."
        return instruction, chosen, "A dog in a park."

    return scene_stages(tmp_path_factory.mktemp("stages"), texts)


def settings(checkpoint, **more):
    values = {
        "model": str(checkpoint),
        "batch": 2,
        "learning_rate": 1e-3,
        "lora": Lora(rank=4, alpha=8),
    } | more
    return Training(**values)


def pairs_of(inputs):
    rows = [
        json.loads(line)
        for line in (inputs["preferences"] / "pairs.jsonl").read_text().splitlines()
    ]
    return [row | {"image": str(inputs["images"] / row["image"])} for row in rows]


def moved(trainer):
    """The trainer's adapter away from its start, where policy and reference are one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=generator)
    return trainer


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "robust", "mpo", "sft"])
def test_losses_are_those_of_trl_on_its_own_batches(checkpoint, inputs, tmp_path, loss):
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    pairs = pairs_of(inputs)[:4]
    training = settings(
        checkpoint, loss=loss, batch=4, label_smoothing=0.1 if loss == "robust" else 0.0
    )
    adapter = HFModel(str(checkpoint), {})
    trainer = moved(make_trainer(adapter, pairs, training, tmp_path, 0))
    theirs = DataCollatorForVisionPreference(adapter.processor)(
        [
            {
                "images": [read_image(Path(row["image"]))],
                "prompt": [{"role": "user", "content": row["instruction"]}],
                "chosen": [{"role": "assistant", "content": row["chosen"]}],
                "rejected": [{"role": "assistant", "content": row["rejected"]}],
            }
            for row in pairs
        ]
    )
    expected = trainer.compute_loss(trainer.model, dict(theirs)).item()
    use_reference(trainer, pairs, tmp_path)
    ours = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    assert trainer.compute_loss(trainer.model, ours).item() == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(0.6931, abs=1e-3), (
        "policy and reference must differ for the check to mean much"
    )


@pytest.mark.parametrize("packed", [True, False])
def test_a_pairs_image_is_encoded_once(checkpoint, inputs, tmp_path, monkeypatch, packed):
    adapter = HFModel(str(checkpoint), {})
    if not packed:
        monkeypatch.setattr(HFModel, "not_packed_in_training", "for the test")
    encoded = []
    # In the class, below whatever the trainer puts in front of it.
    tower = type(adapter.model.model.vision_tower)
    encode = tower.forward

    def counting(self, pixels, *more, **named):
        encoded.append(len(pixels))
        return encode(self, pixels, *more, **named)

    monkeypatch.setattr(tower, "forward", counting)
    trainer = make_trainer(adapter, pairs_of(inputs), settings(checkpoint), tmp_path, 0)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    trainer.compute_ref_log_probs(trainer.model, batch)
    assert encoded == [3]


def test_prompts_are_those_of_inference_and_responses_end(checkpoint, inputs, tmp_path):
    adapter = HFModel(str(checkpoint), {})
    pairs = pairs_of(inputs)
    trainer = make_trainer(adapter, pairs, settings(checkpoint), tmp_path, 0)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    tokenizer = adapter.processor.tokenizer
    for row, ids in enumerate(batch["input_ids"]):
        said = ids[batch["completion_mask"][row] == 1]
        side = "chosen" if row < 3 else "rejected"
        assert said[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(said, skip_special_tokens=True) == pairs[row % 3][side]
        encoded = adapter.prompter.encode(
            read_image(Path(pairs[row % 3]["image"])), [pairs[row % 3]["instruction"]]
        )
        packed = batch["packed_ids"][0].tolist()
        first = int(batch["packed_columns"][row, 1])  # of the response
        behind_prompt = int(batch["packed_columns"][row % 3, 0]) + 1
        assert packed[behind_prompt - len(encoded.ids[0]) : behind_prompt] == encoded.ids[0]
        assert packed[first : first + len(said)] == said.tolist()


def test_only_the_language_model_is_adapted(checkpoint, inputs, tmp_path):
    trainer = make_trainer(
        HFModel(str(checkpoint), {}), pairs_of(inputs), settings(checkpoint), tmp_path, 0
    )
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 4 * 7 * 2
    assert all("language_model" in name and "lora_" in name for name in trained)


def test_pairs_longer_than_the_context_are_left_out_and_counted(checkpoint, inputs, tmp_path):
    rows = [
        json.loads(line)
        for line in (inputs["preferences"] / "pairs.jsonl").read_text().splitlines()
    ]
    rows[1]["chosen"] = "a dog " * 600
    rows[4]["rejected"] = "a cat " * 600
    folder = tmp_path / "preferences"
    folder.mkdir()
    append_lines(folder / "pairs.jsonl", rows)
    counts = dpo.run(settings(checkpoint), {**inputs, "preferences": folder}, tmp_path, 0)
    assert (counts["pairs"], counts["too_long"], counts["steps"]) == (4, 2, 2)
    (folder / "pairs.jsonl").unlink()
    append_lines(folder / "pairs.jsonl", [rows[1], rows[4]])
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match="No pair fits"):
        dpo.run(settings(checkpoint), {**inputs, "preferences": folder}, tmp_path / "none", 0)


def test_equal_responses_are_told(checkpoint, inputs, tmp_path):
    folder = tmp_path / "preferences"
    folder.mkdir()
    append_lines(
        folder / "pairs.jsonl", [{"image": "x", "instruction": "?", "chosen": "a", "rejected": "a"}]
    )
    with pytest.raises(RecipeError, match="equal responses"):
        dpo.run(settings(checkpoint), {**inputs, "preferences": folder}, tmp_path, 0)


def test_training_leaves_an_adapter_that_answers_and_curves(checkpoint, inputs, tmp_path):
    counts = dpo.run(settings(checkpoint, epochs=2, merge=True), inputs, tmp_path, 0)
    assert counts["steps"] == 6
    assert counts["last_loss"] < counts["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 7
    assert (tmp_path / "curves.png").stat().st_size > 5000
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f'base_model: "{checkpoint.name}"' in card
    assert "| beta | 0.1 |" in card
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == checkpoint.name, "no path of this machine"
    assert not (tmp_path / "README.md").exists(), "trl's card would say it is made from nothing"
    adapted = HFModel(f"{checkpoint}+{tmp_path / 'adapter'}", {})
    merged = HFModel(str(tmp_path / "merged"), {})
    tokens = torch.arange(10, 40)[None]
    with torch.inference_mode():
        states = [model.model(input_ids=tokens).logits for model in (adapted, merged)]
    assert torch.allclose(*states, atol=1e-3)


def test_a_killed_training_ends_as_an_undisturbed_one(checkpoint, inputs, tmp_path):
    """A process that is gone in the middle of its seventh step."""
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    training = settings(checkpoint, epochs=4)
    whole = dpo.run(training, inputs, tmp_path / "whole", 0)

    def dies():
        step, steps = torch.optim.AdamW.step, []

        def dying(self, *arguments, **named):
            steps.append(1)
            if len(steps) == 7:
                os._exit(9)
            return step(self, *arguments, **named)

        torch.optim.AdamW.step = dying
        dpo.run(training, inputs, tmp_path / "torn", 0)

    assert forked.in_child(dies, 120).code == 9
    assert (
        list((tmp_path / "torn").glob("checkpoint-*"))
        and not (tmp_path / "torn" / "adapter").exists()
    )
    assert dpo.run(training, inputs, tmp_path / "torn", 0) == whole
    weights = [
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("whole", "torn")
    ]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("flipped", marks=pytest.mark.slow),
        pytest.param("evil", marks=pytest.mark.slow),
        "evil without digests",
    ],
)
def test_a_half_made_training_that_was_changed_does_not_run_and_is_told(
    checkpoint, inputs, tmp_path, monkeypatch, capsys, harm
):
    """One bit, or a pickle that runs a command when it is opened."""
    training = settings(checkpoint, epochs=4)
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    whole = dpo.run(training, inputs, tmp_path / "whole", 0)
    with monkeypatch.context() as patch:
        step, steps = torch.optim.AdamW.step, []

        def dies(self, *arguments, **named):
            steps.append(1)
            if len(steps) == 7:
                raise KeyboardInterrupt
            return step(self, *arguments, **named)

        patch.setattr(torch.optim.AdamW, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            dpo.run(training, inputs, tmp_path / "torn", 0)
    (half,) = (tmp_path / "torn").glob("checkpoint-*")
    file = half / "optimizer.pt"
    if harm == "flipped":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:

        class Evil:
            def __reduce__(self):
                return (os.system, (f"touch {tmp_path}/ran",))

        torch.save(Evil(), file)
    if harm == "evil without digests":
        (half / "digests.json").unlink()
        with pytest.raises(RecipeError, match=r"cannot go on from .*checkpoint-"):
            dpo.run(training, inputs, tmp_path / "torn", 0)
        shutil.rmtree(half)  # the remedy
    assert dpo.run(training, inputs, tmp_path / "torn", 0) == whole
    said = "is not as it was written, and is left out" in capsys.readouterr().err
    assert said == (harm != "evil without digests")
    assert not (tmp_path / "ran").exists()
    weights = [
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("whole", "torn")
    ]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_global_batch(checkpoint, inputs, tmp_path):
    adapters = []
    for name, batch, launch in (("one", 2, ""), ("two", 1, "--multi_gpu --num_processes 2")):
        (tmp_path / name).mkdir()
        counts = dpo.run(
            settings(checkpoint, batch=batch, launch=launch), inputs, tmp_path / name, 0
        )
        assert counts["steps"] == 3
        adapters.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
        assert not (tmp_path / name / "job.json").exists()
    curves = [(tmp_path / name / "curves.csv").read_text().splitlines() for name in ("one", "two")]
    losses = [[float(line.split(",")[1]) for line in lines[1:]] for lines in curves]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert all(
        torch.allclose(adapters[0][name], adapters[1][name], atol=1e-5) for name in adapters[0]
    )


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ("--num_processes 2 evil.py", "names something to run"),
        ("evil.py", "names something to run"),
        ("--num_processes 2 -m evil", "names something to run"),
        ("fsdp evil.py", "names something to run"),
        ("--nonsense", "no options of accelerate"),
        ("--num_processes", "no options of accelerate"),
        ("--help", "no options of accelerate"),
        ('--num_processes "2', "cannot be read"),
        ("--no_python --num_processes 2", "has --no_python"),
        ("--config_file gone.yaml", "gone.yaml is no configuration"),
        ("--config_file=list.yaml", "list.yaml is no configuration"),
        ("--config_file cloud.yaml", "sends the training to AMAZON_SAGEMAKER"),
    ],
)
def test_launch_takes_options_alone(checkpoint, tmp_path, monkeypatch, capsys, launch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('it-ran', 'w')\n")
    (tmp_path / "list.yaml").write_text("- fsdp\n")
    (tmp_path / "cloud.yaml").write_text(
        "compute_environment: AMAZON_SAGEMAKER\ndistributed_type: DATA_PARALLEL\n"
        "ec2_instance_type: ml.p3\niam_role_name: r\n"
    )
    with pytest.raises(RecipeError, match=words):
        check_launch(settings(checkpoint, launch=launch))
    assert not (tmp_path / "it-ran").exists()
    said = capsys.readouterr()
    assert "usage" not in said.out + said.err


@pytest.mark.parametrize(
    "launch", ["", " ", "--multi_gpu --num_processes 2", "fsdp --num_processes 4"]
)
def test_launch_takes_accelerates_options(checkpoint, launch):
    check_launch(settings(checkpoint, launch=launch))


def test_a_training_in_processes_that_fails_says_so(checkpoint, inputs, tmp_path):
    with pytest.raises(RecipeError, match="exit code"):
        dpo.run(settings(checkpoint, launch="--nonsense"), inputs, tmp_path, 0)


def test_curves_go_to_mlflow(checkpoint, inputs, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "dpo")  # not that of a test before
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    dpo.run(settings(checkpoint, trackers=["mlflow"]), inputs, tmp_path, 0)
    (kept,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    losses = mlflow.MlflowClient().get_metric_history(kept.info.run_id, "loss")
    rows = (tmp_path / "curves.csv").read_text().splitlines()
    expected = [float(row.split(",")[1]) for row in rows[1:]]
    assert [item.value for item in losses] == pytest.approx(expected, abs=1e-4)


def test_curves_go_to_trackers_too_and_leave_the_artifact_as_it_is(
    checkpoint, inputs, tmp_path, monkeypatch
):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    artifacts = {}
    for name, trackers in (("plain", []), ("told", ["tensorboard"])):
        (tmp_path / name).mkdir()
        dpo.run(settings(checkpoint, trackers=trackers), inputs, tmp_path / name, 0)
        artifacts[name] = sorted(
            file.relative_to(tmp_path / name) for file in (tmp_path / name).rglob("*")
        )
    assert artifacts["plain"] == artifacts["told"]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "told")).Reload()
    logged = [event.value for event in events.Scalars("train/loss")]
    rows = (tmp_path / "told" / "curves.csv").read_text().splitlines()
    assert logged == pytest.approx([float(row.split(",")[1]) for row in rows[1:]], abs=1e-4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="There is no mlflow"):
        dpo.run(settings(checkpoint, trackers=["mlflow"]), inputs, tmp_path / "none", 0)
    with pytest.raises(RecipeError, match="There is no wandb"):
        dpo.run(settings(checkpoint, trackers=["wandb"]), inputs, tmp_path / "none", 0)


# accelerate shares a model out on GPUs only; torch's FSDP itself works on CPUs, between processes.
FSDP_ON_CPU = """
import os
from pathlib import Path

if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    from accelerate import accelerator, state
    from accelerate.utils import DistributedType

    start = state.AcceleratorState.__init__
    share_out = accelerator.Accelerator._prepare_fsdp2

    def init(self, *arguments, fsdp_plugin=None, **named):
        start(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    def prepare(self, *arguments):
        Path(__file__).with_name("shared-out").touch()
        return share_out(self, *arguments)

    state.AcceleratorState.__init__ = init
    accelerator.Accelerator._prepare_fsdp2 = prepare
"""


@pytest.mark.parametrize(
    ("name", "accumulate", "kind"),
    [
        ("fsdp", 1, "llava"),
        ("fsdp", 2, "qwen2_5_vl"),
        ("zero2", 1, "llava"),
        ("zero2", 2, "llava"),
    ],
)
@pytest.mark.slow
def test_the_shipped_configurations_train_as_one_process(
    tiny, inputs, tmp_path, monkeypatch, name, accumulate, kind
):
    """Two processes on CPUs, without the GPUs' bfloat16, so that weights can be compared."""
    if name == "zero2":
        pytest.importorskip("deepspeed", reason="the extra [deepspeed]")
    (tmp_path / "sitecustomize.py").write_text(FSDP_ON_CPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    adapters = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        training = settings(
            tiny(kind),
            batch=2 * accumulate if processes == 1 else 1,
            accumulate=1 if processes == 1 else accumulate,
            launch="" if processes == 1 else f"{name} --num_processes 2 --mixed_precision no",
            merge=True,
        )
        dpo.run(training, inputs, out, 0)
        assert (out / "merged" / "model.safetensors").is_file()
        assert not list(out.glob("*checkpoint-*"))
        adapters.append(load_file(out / "adapter" / "adapter_model.safetensors"))
    assert (tmp_path / "shared-out").exists() == (name == "fsdp")
    one, two = adapters
    assert one.keys() == two.keys() and len(one) > 12
    for tensor_name, tensor in one.items():
        assert torch.allclose(tensor, two[tensor_name], atol=1e-5), tensor_name
    assert max(tensor.abs().max() for key, tensor in one.items() if "lora_B" in key) > 1e-4


@pytest.mark.parametrize(("name", "kind"), [("fsdp", "FSDP"), ("zero2", "DEEPSPEED")])
def test_shipped_configurations_are_what_accelerate_reads(name, kind):
    from accelerate.commands.config.config_args import load_config_from_file

    from alignment.training import launch

    config = load_config_from_file(str(launch.SHIPPED / f"{name}.yaml"))
    assert config.distributed_type.value == kind and config.mixed_precision == "bf16"


def test_a_disk_that_fills_up_while_merging_costs_no_training(
    checkpoint, inputs, tmp_path, monkeypatch
):
    from transformers import LlavaForConditionalGeneration

    save = LlavaForConditionalGeneration.save_pretrained

    def full(self, folder, **named):
        save(self, folder, **named)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    training = settings(checkpoint, merge=True)
    with monkeypatch.context() as patch:
        patch.setattr(LlavaForConditionalGeneration, "save_pretrained", full)
        with pytest.raises(OSError, match="No space"):
            dpo.run(training, inputs, tmp_path, 0)
    assert not (tmp_path / "merged").exists()
    # What was trained is there, and is not trained again.
    monkeypatch.setattr(PairTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    counts = dpo.run(training, inputs, tmp_path, 0)
    assert counts["steps"] == 3
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*checkpoint-*"))


def test_several_gpus_are_not_used_by_one_process(checkpoint, inputs, tmp_path, monkeypatch):
    """trl refuses the copies on all GPUs that transformers makes of itself."""
    from transformers import TrainingArguments

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu))
    start = TrainingArguments.__post_init__

    def with_two_gpus(self):
        start(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    trainer = make_trainer(
        HFModel(str(checkpoint), {}), pairs_of(inputs), settings(checkpoint), tmp_path, 0
    )
    assert trainer.args.n_gpu == 1


@pytest.mark.parametrize(
    ("loss", "pairs"),
    [
        pytest.param("sigmoid", 5, marks=pytest.mark.slow),  # mpo has it in it
        pytest.param("mpo", 6, marks=pytest.mark.slow),
        ("mpo", 5),
        ("sft", 6),
        ("mdpo", 5),
    ],
)
def test_an_update_does_not_depend_on_how_it_is_cut(checkpoint, inputs, tmp_path, loss, pairs):
    """All pairs at once, by ones, and by fours, the last of which are one or two."""
    rows = (inputs["preferences"] / "pairs.jsonl").read_text().splitlines()[:pairs]
    folder = tmp_path / "preferences"
    folder.mkdir()
    (folder / "pairs.jsonl").write_text("".join(row + "\n" for row in rows))
    curves = {}
    for batch, accumulate in ((6, 1), (1, 6), (4, 2)):
        training = settings(checkpoint, loss=loss, batch=batch, accumulate=accumulate)
        out = tmp_path / f"{batch}x{accumulate}"
        out.mkdir()
        dpo.run(training, {**inputs, "preferences": folder}, out, 0)
        with (out / "curves.csv").open() as file:
            (row,) = csv.DictReader(file)
        curves[out.name] = [float(row["loss"]), float(row["grad_norm"])]
    whole = curves.pop("6x1")
    for name, cut in curves.items():
        assert cut == pytest.approx(whole, rel=1e-3), name


def test_the_dropout_of_lora_drops(checkpoint, inputs, tmp_path):
    losses = []
    for dropout in (0.0, 0.5):
        lora = Lora(rank=4, alpha=8, dropout=dropout)
        training = settings(checkpoint, lora=lora)
        trainer = moved(
            make_trainer(
                HFModel(str(checkpoint), {}), pairs_of(inputs), training, tmp_path / str(dropout), 0
            )
        )
        use_reference(trainer, pairs_of(inputs), tmp_path)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
        trainer.model.train()
        torch.manual_seed(0)
        losses.append(trainer.compute_loss(trainer.model, batch).item())
        assert trainer.model.peft_config["default"].lora_dropout == dropout
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)

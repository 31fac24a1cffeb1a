"""Training of every family: a batch's log-probabilities are those of the processor's own inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from alignment.settings import RecipeError
from alignment.stages import dpo
from alignment.training.collator import cropped
from alignment.training.settings import Lora, Training
from alignment.training.trainer import make_trainer, use_reference
from bench.data.images import read_image
from bench.files import append_lines
from bench.models.hf import HFModel
from tests.conftest import draw
from tests.tiny_models import MAKERS

SHAPES = ((112, 56), (56, 112), (112, 112), (56, 56))
CHOSEN = ("A red dog stands next to a man.", "Yes", "A car.", "There is a bus in front of a chair.")
REJECTED = ("A blue cat.", "No, there is none of these.", "A bird and a bed.", "A bus.")
# The end of an answer as each family's published template writes it.
ENDS = {
    "gemma3": "<end_of_turn>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "mllama": "<|eot_id|>",
    "llava": "</s>",
    "llava_next": "</s>",
    "llava_next_mistral": "</s>",
    "paligemma": "<eos>",
    "paligemma2": "<eos>",
    "ministral3": "</s>",
    "mistral3": "</s>",
    "pixtral": "</s>",
}


def pairs_in(folder: Path) -> list[dict]:
    rows = []
    for number, size in enumerate(SHAPES):
        image = draw(folder / f"{number}.png", number, size)
        rows.append(
            {
                "image": str(image),
                "instruction": "Describe this image in detail." if number % 2 else "Is it a dog?",
                "chosen": CHOSEN[number],
                "rejected": REJECTED[number],
            }
        )
    return rows


@torch.no_grad()
def as_at_inference(model: HFModel, pair: dict, side: str, end: str, network=None) -> float:
    """The summed log-probability of a response behind the processor's own inputs.

    By the model's own network, or by another one.
    """
    network = network or model.model
    image = model.prompter.prepare(read_image(Path(pair["image"]), upright=False))
    if model.protocol.conversation == "template":
        inputs = model.prompter.whole(image, pair["instruction"])
    else:
        encoded = model.prompter.encode(read_image(Path(pair["image"])), [pair["instruction"]])
        inputs = {"input_ids": torch.tensor(encoded.ids), **encoded.pixels}
    inputs.pop("labels", None)
    tokenizer = model.processor.tokenizer
    said = tokenizer(pair[side], add_special_tokens=False)["input_ids"]
    said = torch.tensor([[*said, tokenizer.convert_tokens_to_ids(end)]])
    length = inputs["input_ids"].shape[1]
    if "cross_attention_mask" in inputs:
        mask = inputs["cross_attention_mask"]
        inputs["cross_attention_mask"] = torch.cat(
            [mask, mask[:, -1:].expand(-1, said.shape[1], -1, -1)], 1
        )
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            is_suffix = model.config.model_type == "paligemma" and name == "token_type_ids"
            more = torch.full_like(said, int(is_suffix))
            inputs[name] = torch.cat([inputs[name], more], 1)
    ids = torch.cat([inputs["input_ids"], said], 1)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = network.eval()(**inputs).logits[0, length - 1 : -1]
    return logits.log_softmax(-1).gather(1, said[0, :, None]).sum().item()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_log_probabilities_are_those_of_inference(tiny, tmp_path, kind):
    pairs = pairs_in(tmp_path)
    model = HFModel(str(tiny(kind)), {})
    expected = [
        [as_at_inference(model, pair, side, ENDS.get(kind, "<|im_end|>")) for pair in pairs]
        for side in ("chosen", "rejected")
    ]
    training = Training(model=str(tiny(kind)), batch=4, lora=Lora(rank=2, alpha=4))
    trainer = make_trainer(model, pairs, training, tmp_path / "out", 0)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    found = trainer.compute_ref_log_probs(trainer.model, batch)
    for one, other in zip(found, expected, strict=True):
        assert one.tolist() == pytest.approx(other, abs=2e-3)
    assert len({round(value, 2) for side in expected for value in side}) >= 7


def loss_and_gradients(kind_folder, pairs, training, out, is_packed, monkeypatch):
    """Of one batch of all pairs, the adapter away from its start."""
    with monkeypatch.context() as patch:
        if not is_packed:
            patch.setattr(HFModel, "not_packed_in_training", "for the test")
        model = HFModel(str(kind_folder), {})
        trainer = make_trainer(model, pairs, training, out, 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.05, generator=generator)
        if training.loss != "sft":
            use_reference(trainer, pairs, out)
        trainer.model.train()
        if training.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
        assert ("packed_ids" in batch) == is_packed
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    gradients = {}
    for name, weight in trainer.model.named_parameters():
        if weight.grad is not None:
            gradients[name] = weight.grad
    return loss.item(), gradients


PACKED = [
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "llava_next_mistral",
    "llava_onevision",
    "ministral3",
    "mistral3",
    "pixtral",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "smolvlm",
]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {}) for kind in PACKED),
        ("llava", {"loss": "ipo"}),
        ("llava", {"loss": "mpo"}),
        ("llava", {"loss": "mdpo"}),
        ("qwen2_vl", {"loss": "mdpo"}),
        ("qwen2_5_vl", {"loss": "sft"}),
        ("llava_next", {"gradient_checkpointing": True}),
        ("qwen2_vl", {"gradient_checkpointing": True}),
    ],
)
def test_a_packed_pair_has_the_loss_and_gradients_of_two_rows(
    tiny, tmp_path, monkeypatch, kind, more
):
    pairs = pairs_in(tmp_path)
    training = Training(model=str(tiny(kind)), batch=4, lora=Lora(rank=2, alpha=4), **more)
    folder = tiny(kind)
    one = loss_and_gradients(folder, pairs, training, tmp_path / "one", True, monkeypatch)
    two = loss_and_gradients(folder, pairs, training, tmp_path / "two", False, monkeypatch)
    assert one[0] == pytest.approx(two[0], abs=1e-5, rel=1e-6)
    assert one[1].keys() == two[1].keys() and len(one[1]) > 12
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, two[1][name], atol=1e-5, rtol=1e-4), name
    largest = max(gradient.abs().max().item() for gradient in two[1].values())
    assert largest > 1e-3, "gradients must be larger than what they may differ by"


def test_families_that_are_not_checked_train_with_two_rows(tiny, tmp_path):
    inputs = {"preferences": tmp_path / "preferences"}
    inputs["preferences"].mkdir()
    append_lines(inputs["preferences"] / "pairs.jsonl", pairs_in(inputs["preferences"]))
    for kind, is_shared in (("gemma3", False), ("llava", True)):
        (tmp_path / kind).mkdir()
        training = Training(model=str(tiny(kind)), batch=4, lora=Lora(rank=2, alpha=4))
        counts = dpo.run(training, inputs, tmp_path / kind, 0)
        assert counts["shared_prefix"] is is_shared


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_mdpo_is_the_papers_formula(tiny, tmp_path, kind):
    """Equations 3 to 6 of arXiv 2406.11839 over log-probabilities of the processor's own inputs."""
    pairs = pairs_in(tmp_path)
    end = ENDS.get(kind, "<|im_end|>")
    crops = []
    for number, pair in enumerate(pairs):
        image = read_image(Path(pair["image"]), upright=False)
        crop = tmp_path / f"crop-{number}.png"
        cropped(image, f"{pair['image']} {pair['instruction']}").save(crop)
        crops.append(pair | {"image": str(crop)})

    def logps(model):
        rows = []
        for pair, crop in zip(pairs, crops, strict=True):
            rows.append(
                [
                    as_at_inference(model, pair, "chosen", end),
                    as_at_inference(model, pair, "rejected", end),
                    as_at_inference(model, crop, "chosen", end),
                ]
            )
        return torch.tensor(rows)  # (pairs, 3)

    reference = logps(HFModel(str(tiny(kind)), {}))
    model = HFModel(str(tiny(kind)), {})
    training = Training(
        model=str(tiny(kind)), batch=4, loss="mdpo", beta=0.3, lora=Lora(rank=2, alpha=4)
    )
    trainer = make_trainer(model, pairs, training, tmp_path / "out", 0)
    use_reference(trainer, pairs, tmp_path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3, generator=generator)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    loss = trainer.compute_loss(trainer.model, batch).item()
    chosen, rejected, crop = (0.3 * (logps(model) - reference)).T
    terms = torch.stack([chosen - rejected, chosen - crop, chosen]).sigmoid().log()
    assert loss == pytest.approx(-terms.sum(0).mean().item(), abs=2e-3)
    assert terms.exp().std() > 0.01, "the three terms must differ for the check to mean much"


def test_a_crop_shows_a_small_part_in_the_images_size():
    ramp = Image.new("RGB", (200, 100))
    ramp.putdata([(x, 2 * y, 0) for y in range(100) for x in range(200)])
    shares = []
    for number in range(50):
        crop = cropped(ramp, f"pair {number}")
        assert crop.size == (200, 100)
        (left, right), (top, bottom), _ = crop.getextrema()
        shares.append((right - left + 1) * (bottom - top + 2) / 2 / (200 * 100))
    assert 0.01 < min(shares) < 0.05 and 0.15 < max(shares) < 0.22
    assert list(cropped(ramp, "a").getdata()) == list(cropped(ramp, "a").getdata())


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_an_adapter_of_any_family_loads_in_plain_peft_and_in_the_bench(tiny, tmp_path, kind):
    inputs = {"preferences": tmp_path / "preferences"}
    inputs["preferences"].mkdir()
    pairs = pairs_in(inputs["preferences"])
    append_lines(inputs["preferences"] / "pairs.jsonl", pairs)
    training = Training(
        model=str(tiny(kind)), batch=2, warmup=0, learning_rate=1e-1, lora=Lora(rank=4)
    )
    dpo.run(training, inputs, tmp_path, 0)
    bench_model = HFModel(f"{tiny(kind)}+{tmp_path / 'adapter'}", {})
    network = AutoModelForImageTextToText.from_pretrained(tiny(kind), dtype=torch.float32)
    plain = PeftModel.from_pretrained(network, tmp_path / "adapter")
    end = ENDS.get(kind, "<|im_end|>")
    of_base = as_at_inference(HFModel(str(tiny(kind)), {}), pairs[0], "chosen", end)
    of_bench = as_at_inference(bench_model, pairs[0], "chosen", end)
    of_plain = as_at_inference(bench_model, pairs[0], "chosen", end, plain)
    assert of_plain == pytest.approx(of_bench, abs=1e-3)
    assert of_plain != pytest.approx(of_base, abs=1e-2)


@pytest.mark.parametrize("kind", ["llava_next", "qwen2_5_vl", "gemma3", "smolvlm", "mllama"])
def test_a_family_trains_and_its_adapter_answers(tiny, tmp_path, kind):
    inputs = {"preferences": tmp_path / "preferences"}
    inputs["preferences"].mkdir()
    append_lines(inputs["preferences"] / "pairs.jsonl", pairs_in(inputs["preferences"]))
    training = Training(
        model=str(tiny(kind)), batch=2, epochs=2, learning_rate=1e-2, lora=Lora(rank=4, alpha=8)
    )
    counts = dpo.run(training, inputs, tmp_path, 0)
    assert counts["steps"] == 4 and counts["last_loss"] < counts["first_loss"]
    adapted = HFModel(f"{tiny(kind)}+{tmp_path / 'adapter'}", {})
    trained = [name for name, _ in adapted.model.named_parameters() if "lora_" in name]
    assert trained and not any("vision" in name for name in trained)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_responses_that_hold_special_tokens_are_dropped_and_counted(tiny, tmp_path, kind):
    model = HFModel(str(tiny(kind)), {})
    token = model.processor.image_token
    inputs = {"preferences": tmp_path / "preferences"}
    inputs["preferences"].mkdir()
    pairs = pairs_in(inputs["preferences"])
    pairs[1]["chosen"] = f"The sign says {token} here."
    pairs[3]["rejected"] = f"{model.processor.tokenizer.eos_token} and more"
    append_lines(inputs["preferences"] / "pairs.jsonl", pairs)
    training = Training(model=str(tiny(kind)), batch=2, lora=Lora(rank=2, alpha=4))
    counts = dpo.run(training, inputs, tmp_path, 0)
    assert counts["pairs"] == 2 and counts["special_tokens"] == 2
    bad = {"preferences": tmp_path / "bad"}
    bad["preferences"].mkdir()
    append_lines(bad["preferences"] / "pairs.jsonl", [pairs[1], pairs[3]])
    with pytest.raises(RecipeError, match="All 2 hold special tokens"):
        dpo.run(training, bad, tmp_path / "bad", 0)


def test_an_adapter_is_no_base_to_train(tmp_path):
    with pytest.raises(ValueError, match=r"bench convert a\+b MERGED"):
        Training(model="a+b")
